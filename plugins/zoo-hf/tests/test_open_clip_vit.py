"""The vision transformer of open_clip itself gives what CLIP of transformers, its formulas by hand, and open_clip give."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from test_open_clip import WIDTH
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from zoo_hf.open_clip_build import image_tower
from zoo_hf.open_clip_own import own_tower
from zoo_hf.open_clip_vit import OwnImageTower

import zoo
from zoo.testing import randomise

SIZE, PATCH = 32, 8
VISION: dict[str, Any] = {"image_size": SIZE, "layers": 2, "width": 16, "head_width": 8, "patch_size": PATCH}
VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "mean of the patches": {"pool_type": "avg"},
    "norm after the pooling": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "attentional pooler": {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 3},
    "mean of its queries": {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2, "pool_type": "avg"},
    "layer scale and other kwargs": {"ls_init_value": 0.1, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}},
}
X = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def made(vision: dict[str, Any], *, quick_gelu: bool = False, projection: int = WIDTH) -> OwnImageTower:
    torch.manual_seed(0)
    tower, faults = own_tower(VISION | vision, WIDTH, quick_gelu=quick_gelu)
    assert not faults
    return randomise(OwnImageTower(tower, (SIZE, SIZE), projection)).eval()


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_it_is_the_vision_transformer_of_clip(quick_gelu: bool) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": WIDTH}
    act = "quick_gelu" if quick_gelu else "gelu"
    theirs = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, image_size=SIZE, patch_size=PATCH, hidden_act=act)).eval()
    ours, inner = made({}, quick_gelu=quick_gelu), theirs.vision_model
    names = {"class_embedding": "embeddings.class_embedding", "positional_embedding": "embeddings.position_embedding.weight"}
    names |= {"conv1.weight": "embeddings.patch_embedding.weight"}
    names |= {
        f"{a}.{part}": f"{b}.{part}" for a, b in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")) for part in ("weight", "bias")
    }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for layer in range(2):
        for a, b in parts.items():
            names |= {f"transformer.resblocks.{layer}.{a}.{end}": f"encoder.layers.{layer}.{b}.{end}" for end in ("weight", "bias")}
    state, values = ours.state_dict(), {}
    for a, b in names.items():
        values[b] = state.pop(a)
    for layer in range(2):
        for end in ("weight", "bias"):
            thirds = state.pop(f"transformer.resblocks.{layer}.attn.in_proj_{end}").chunk(3)
            values |= {f"encoder.layers.{layer}.self_attn.{key}_proj.{end}": part for key, part in zip("qkv", thirds, strict=True)}
    assert [*state] == ["proj"]
    assert not [name for name in inner.load_state_dict(values, strict=False).missing_keys if "position_ids" not in name]
    theirs.visual_projection.weight.data = state["proj"].T.contiguous()
    with torch.no_grad():
        torch.testing.assert_close(ours(X), theirs(pixel_values=X).image_embeds, rtol=1e-4, atol=1e-5)


def attended(module: Any, queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """Return multi-head attention, written out; queries ``(batch, n, dim)``, keys ``(batch, m, width)``."""
    if module.in_proj_weight is None:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    else:
        weights = module.in_proj_weight.chunk(3)
    inputs = zip((queries, keys, keys), weights, module.in_proj_bias.chunk(3), strict=True)
    q, k, v = ((x @ weight.T + bias).unflatten(2, (heads, -1)).transpose(1, 2) for x, weight, bias in inputs)
    shares = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
    return module.out_proj((shares @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_of_pooling_is_the_one_written_out(name: str) -> None:
    vision, tower = VARIANTS[name], made(VARIANTS[name])
    norm = lambda module, x: functional.layer_norm(x, x.shape[-1:], module.weight, module.bias, eps)  # noqa: E731  # short
    eps, approximate = vision.get("norm_kwargs", {}).get("eps", 1e-5), vision.get("act_kwargs", {}).get("approximate", "none")
    with torch.no_grad():
        patches = functional.unfold(X, PATCH, stride=PATCH).transpose(1, 2) @ tower.conv1.weight.flatten(1).T
        x = torch.cat([tower.class_embedding.expand(2, 1, -1), patches], 1) + tower.positional_embedding
        x = x if vision.get("no_ln_pre") else norm(tower.ln_pre, x)
        for block in tower.transformer["resblocks"].children():
            scales = [getattr(getattr(block, part), "gamma", 1.0) for part in ("ls_1", "ls_2")]
            normed = norm(block.ln_1, x)
            x = x + scales[0] * attended(block.attn, normed, normed, 2)
            x = x + scales[1] * block.mlp.c_proj(functional.gelu(block.mlp.c_fc(norm(block.ln_2, x)), approximate=approximate))
        if vision.get("attentional_pool"):
            pooler: Any = tower.attn_pool
            x = attended(pooler.attn, pooler.ln_q(pooler.query).expand(2, -1, -1), pooler.ln_k(x), vision["attn_pooler_heads"])
        after = vision.get("final_ln_after_pool", False)
        x = x if after else norm(tower.ln_post, x)
        x = x[:, 1:].mean(1) if vision.get("pool_type") == "avg" else x[:, 0]
        x = norm(tower.ln_post, x) if after else x
        torch.testing.assert_close(tower(X), x @ tower.proj, rtol=1e-4, atol=1e-5)
        assert tower(torch.randn(2, 3, 48, 32)).shape == (2, WIDTH)  # the position embeddings are resized


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")
@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_the_one_of_open_clip(name: str, quick_gelu: bool) -> None:
    import open_clip  # type: ignore[import-not-found,unused-ignore]

    vision = VARIANTS[name]
    if quick_gelu and "act_kwargs" in vision:
        pytest.skip("open_clip has no such activation")
    tower = made(vision, quick_gelu=quick_gelu)
    theirs = open_clip.model._build_vision_tower(WIDTH, VISION | vision, quick_gelu=quick_gelu).eval()
    theirs.load_state_dict(tower.state_dict())
    resized = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        torch.testing.assert_close(tower(X), theirs(X), rtol=1e-5, atol=1e-5)
        larger = {"visual.positional_embedding": tower.positional_embedding.clone()}
        theirs.grid_size = (6, 4)
        theirs.visual = theirs  # where the function looks for it
        open_clip.model.resize_pos_embed(larger, _Holder(theirs))
        theirs.positional_embedding.data = larger["visual.positional_embedding"]
        torch.testing.assert_close(tower(resized), theirs(resized), rtol=1e-5, atol=1e-5)


class _Holder:
    def __init__(self, visual: Any) -> None:
        self.visual = visual


def test_towers_that_are_not_read_are_told_with_all_their_faults() -> None:
    vision = {"pool_type": "none", "pos_embed_type": "sin_cos_2d", "qk_norm": True, "attentional_pool": "cascade", "layers": 0}
    faults = own_tower(VISION | vision | {"norm_kwargs": {"bias": 1}, "act_kwargs": {"approximate": "tanh"}}, WIDTH, quick_gelu=True)[1]
    told = "; ".join(faults)
    assert all(
        word in told for word in ("layers is 0", "pool_type is 'none'", "'sin_cos_2d'", "qk_norm", "'cascade'", "norm_kwargs", "act_kwargs")
    )
    assert (
        "'global_average_pool'"
        in own_tower(VISION | {"global_average_pool": True, "input_patchnorm": False}, WIDTH, quick_gelu=False)[1][0]
    )
    assert own_tower(VISION | {"width": 20}, WIDTH, quick_gelu=False)[1] == ["width is 20, which heads of 8 do not divide"]
    with pytest.raises(zoo.OptionError, match="takes no drop_path_rate"):
        image_tower(own_tower(VISION, WIDTH, quick_gelu=False)[0] | {"size": (SIZE, SIZE)}, drop_path_rate=0.1)

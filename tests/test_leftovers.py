"""Tensors of a weights file that the backbone has no place for: heads and known parts are left out, anything else is an error."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import zoo
from tests.toy import ToyNet
from zoo.errors import CoverageError

pytestmark = pytest.mark.usefixtures("toys")
WIDTH = 8  # of the toy's features


def own() -> dict[str, Tensor]:
    return dict(ToyNet().state_dict())


def below(prefix: str, *, without: str = "") -> dict[str, Tensor]:
    """Return the toy's tensors once more below a prefix."""
    return {f"{prefix}{name}": tensor.clone() for name, tensor in own().items() if name != without}


def shaped(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}


# Names and kinds of shapes as published files have them beside a backbone.
BESIDE: dict[str, dict[str, Tensor]] = {
    "words that are masked (BERT)": shaped(
        cls__predictions__transform__dense__weight=(16, 16), cls__predictions__bias=(60,), cls__seq_relationship__weight=(2, 16)
    ),
    "words that are masked (DistilBERT)": shaped(
        vocab_transform__weight=(16, 16), vocab_layer_norm__weight=(16,), vocab_projector__bias=(60,)
    ),
    "the next word": shaped(lm_head__weight=(60, 16), lm_loss__weight=(60, 16), final_logits_bias=(1, 60)),
    "ELECTRA": shaped(discriminator_predictions__dense__weight=(16, 16), generator_lm_head__bias=(60,)),
    "a decoder": shaped(decoder__layers__0__fc1__weight=(32, 16), decoder__embed_tokens__weight=(60, 16)),
    "masked patches (MAE)": shaped(
        mask_token=(1, 1, 16), decoder_embed__weight=(16, 16), decoder_blocks__0__attn__qkv__weight=(48, 16), decoder_pred__bias=(12,)
    ),
    "two views (MoCo)": shaped(predictor__0__weight=(32, 16), queue=(16, 64)) | {"queue_ptr": torch.zeros(1, dtype=torch.long)},
    "clusters (SwAV)": shaped(projection_head__0__weight=(32, 16), projection_head__1__running_mean=(32,), prototypes__weight=(30, 16)),
    "a teacher (DINO)": shaped(head__mlp__0__weight=(32, 16), head__last_layer__weight_v=(64, 16), dino_loss__center=(1, 64)),
    "distillation (DeiT)": shaped(head_dist__weight=(10, 16), head__weight=(10, 16), dist_token=(1, 1, 16)),
    "segmentation": shaped(aux_classifier__0__weight=(4, 16, 3, 3), decode_head__conv_seg__bias=(3,), conv_seg__0__weight=(3, 16, 1)),
    "two towers (CLIP)": shaped(text_model__embeddings__token_embedding__weight=(60, 16), visual_projection__bias=(4,), logit_scale=()),
    "Lightning": shaped(criterion__weight=(3,), class_weights=(3,), data_preprocessor__mean=(3, 1, 1)),
    "optimizer states": shaped(optimizer__state__0__exp_avg=(8, 3, 3, 3)),
    "buffers": {"num_batches_tracked": torch.tensor(3), "position_ids": torch.ones(1, 9), "relative_position_index": torch.ones(4, 4)},
    "an averaged copy": below("running.net.") | {"running.n_averaged": torch.tensor(7)},
    "a head of its user": shaped(verdict__0__weight=(32, WIDTH), verdict__0__bias=(32,), verdict__2__weight=(5, 32), verdict__2__bias=(5,)),
}


def load(tmp_path: Path, more: dict[str, Tensor], **options: bool) -> dict[str, Tensor]:
    state = own()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state | more, path)
    built = zoo.get("toy/net", weights=path, **options).build().state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())
    return built


@pytest.mark.parametrize("kind", BESIDE)
def test_heads_and_known_parts_beside_a_backbone_are_left_out_and_counted(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "zoo"):
        load(tmp_path, BESIDE[kind])
    assert not [record for record in caplog.records if record.levelname == "WARNING" and "left out" in record.getMessage()]
    count = len(BESIDE[kind])
    assert f"{count} tensor{'s' * (count > 1)} of the weights" in caplog.text


# What a file of another network has, and how many tensors of it.
FOREIGN: dict[str, tuple[dict[str, Tensor], int]] = {
    "a gate and a norm beside a head": (shaped(gate__weight=(3,), norm_pre__weight=(8,)) | BESIDE["a head of its user"], 2),
    "a second network": (shaped(flow__conv1__weight=(8, 3, 3, 3), flow__conv1__bias=(8,), flow__out__weight=(4, 9)), 3),
    "a copy that is not whole": (below("other.", without="conv1.weight"), len(own()) - 1 - len([n for n in own() if "tracked" in n])),
    "more than a head on the features": ({f"tower.{number}.weight": torch.ones(WIDTH, WIDTH) for number in range(9)}, 9),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_anything_else_is_an_error_that_counts_it_and_names_the_remedy(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more, count = FOREIGN[kind]
    with pytest.raises(CoverageError) as caught:
        load(tmp_path, more)
    told = str(caught.value)
    assert f"fills ToyNet, and has {count} tensor{'s' * (count > 1)} more that belong to no head: " in told
    assert next(name for name in sorted(more) if not name.startswith("verdict")) in told
    assert "allow_partial=True (--allow-partial) leaves them out" in told
    load(tmp_path, more, allow_partial=True)
    assert "They are left out." in caplog.text


def test_further_blocks_and_other_tensors_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(CoverageError, match=r"1 tensor more inside its blocks: blocks\.7\.weight and 1 tensor more .* no head: gate"):
        load(tmp_path, shaped(blocks__7__weight=(2,), gate=(3,)))


def in_sequence(prefix: str = "", *, numbers: tuple[int, ...] = (0, 1, 4)) -> dict[str, Tensor]:
    """Return the toy's tensors as of nn.Sequential(*children) with activations between them."""
    parts = dict(zip(("conv1", "bn1", "blocks"), numbers, strict=True))
    return {f"{prefix}{parts[name.partition('.')[0]]}.{name.partition('.')[2]}": value.clone() for name, value in TRAINED.items()}


TRAINED = {name: torch.randn_like(value) if value.is_floating_point() else value for name, value in own().items()}


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_numbered_parts_of_a_sequential_are_read_in_order_with_a_log_line(
    prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.safetensors"
    state = in_sequence(prefix) | {"head.weight": torch.ones(3, WIDTH), "head.bias": torch.ones(3)}
    state = {name: value.abs() if name.endswith("running_var") else value for name, value in state.items()}
    safetensors.torch.save_file(state, path)
    built = zoo.get("toy/net", weights=path).build().state_dict()
    assert torch.equal(built["conv1.weight"], TRAINED["conv1.weight"])
    assert all(torch.equal(built[name], value) for name, value in TRAINED.items() if not name.endswith("running_var"))
    assert "numbers for the parts of ToyNet, as of nn.Sequential" in caplog.text


def test_numbered_parts_of_another_network_are_refused_as_numbered(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    other = {name: torch.ones(*value.shape, 2) if value.ndim else value for name, value in in_sequence().items()}
    safetensors.torch.save_file(other, path)
    with pytest.raises(CoverageError, match=r"numbered, as of nn\.Sequential.*do not fit part by part") as caught:
        zoo.get("toy/net", weights=path).build()
    assert "allow_partial" not in str(caught.value)

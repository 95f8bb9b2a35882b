"""Options of towers of open_clip itself, of images and of texts, from the configuration that is published; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import did_you_mean

# Fields of a vision_cfg that build other blocks, with the value at which they do not; read are those of CLIP.
OTHER_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
# All other fields of a vision_cfg, those that say nothing of the network in inference among them.
FIELDS: tuple[str, ...] = (
    "image_size",
    "layers",
    "width",
    "patch_size",
    "head_width",
    "mlp_ratio",
    "ls_init_value",
    "act_kwargs",
    "norm_kwargs",
)
FIELDS += ("attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "pool_type", "no_ln_pre", "final_ln_after_pool")
FIELDS += ("pos_embed_type", "block_type", "patch_dropout", "output_tokens", *OTHER_BLOCKS)
POOLS = ("tok", "avg")
# Further fields that are read, or that change nothing once a model is trained. One that is in neither list, such as the global_average_pool
# of early versions, may change the features without a trace in the weights.
READ = (
    *("image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "ls_init_value", "pos_embed_type", "block_type"),
    *("attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "no_ln_pre", "final_ln_after_pool", "pool_type"),
    *("act_kwargs", "norm_kwargs", "patch_dropout", "output_tokens"),
)


def own_tower(vision: Mapping[str, Any], embed: Any, *, quick_gelu: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the options of an image tower, and why it is none that is read; all faults at once.

    Args:
        vision: The table ``vision_cfg``; a list of ``layers`` is that of a ResNet.
        embed: Width of the space of images and texts.
        quick_gelu: Whether the activation is ``x * sigmoid(1.702 x)``, as in OpenAI's weights.
    """
    layers, width = vision.get("layers", 12), vision.get("width", 768)
    if isinstance(layers, list | tuple):
        return own_resnet(vision)
    sizes = {"layers": layers, "width": width, "patch_size": vision.get("patch_size", 16), "head_width": vision.get("head_width", 64)}
    sizes |= {name: vision.get(name, value) for name, value in (("attn_pooler_queries", 256), ("attn_pooler_heads", 8))}
    faults = [f"{name} is {value!r}; it is a whole number of at least 1" for name, value in sizes.items() if not _is_whole(value)]
    faults += [f"vision_cfg has {key!r}{did_you_mean(key, FIELDS)}, which is not known" for key in vision if _is_odd(key, vision[key])]
    if not faults and width % sizes["head_width"]:
        faults.append(f"width is {width}, which heads of {sizes['head_width']} do not divide")
    pool, attends = vision.get("pool_type", "tok"), vision.get("attentional_pool", False)
    if pool not in POOLS:
        faults.append(f"pool_type is {pool!r}; read are {' and '.join(map(repr, POOLS))}")
    if not isinstance(attends, bool):
        faults.append(f"attentional_pool is {attends!r}; read are true and false")
    if not faults and attends and _is_whole(embed) and embed % sizes["attn_pooler_heads"]:
        faults.append(f"embed_dim is {embed}, which {sizes['attn_pooler_heads']} heads of attentional pooling do not divide")
    if (places := vision.get("pos_embed_type", "learnable")) != "learnable":
        faults.append(f"pos_embed_type is {places!r}; read is 'learnable'")
    if others := [name for name in OTHER_BLOCKS if vision.get(name)]:
        faults.append(f"{', '.join(others)}: other blocks than those of CLIP are not read")
    if unknown := [name for name in vision if vision[name] and name not in (*READ, *OTHER_BLOCKS) and not name.startswith("timm_")]:
        faults.append(f"vision_cfg has {', '.join(map(repr, unknown))}, of which nothing is known here; read are {', '.join(READ)}")
    if (block := vision.get("block_type") or "default") != "default":
        faults.append(f"block_type is {block!r}; read is 'default'")
    numbers = {"mlp_ratio": vision.get("mlp_ratio", 4.0), "ls_init_value": vision.get("ls_init_value")}
    faults += [f"{name} is {value!r}; it is a number above 0" for name, value in numbers.items() if not _is_positive(value, name)]
    activation, eps, more = _activation_and_norm(vision.get("act_kwargs") or {}, vision.get("norm_kwargs") or {}, quick_gelu=quick_gelu)
    if faults := [*faults, *more]:
        return {}, faults
    return {
        "embed": embed,
        "layers": layers,
        "width": width,
        "heads": width // sizes["head_width"],
        "patch_size": sizes["patch_size"],
        "mlp_ratio": numbers["mlp_ratio"],
        "layer_scale": numbers["ls_init_value"],
        "queries": sizes["attn_pooler_queries"] if attends else 0,
        "query_heads": sizes["attn_pooler_heads"],
        "pre_norm": not vision.get("no_ln_pre", False),
        "norm_after_pool": bool(vision.get("final_ln_after_pool", False)),
        "pool": pool,
        "activation": activation,
        "eps": eps,
    }, []


def own_resnet(vision: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the options of a ResNet of CLIP, and why it is none that is read; all faults at once.

    Those fields of vision transformers that are known are without effect, as in open_clip.
    """
    stages, width, head = vision["layers"], vision.get("width", 768), vision.get("head_width", 64)
    faults = [
        f"{name} is {value!r}; it is a whole number of at least 1"
        for name, value in (("width", width), ("head_width", head))
        if not _is_whole(value)
    ]
    if len(stages) != 4 or not all(map(_is_whole, stages)):
        faults.append(f"layers is {list(stages)!r}; a ResNet has the numbers of blocks of four stages")
    faults += [f"vision_cfg has {key!r}{did_you_mean(key, FIELDS)}, which is not known" for key in vision if _is_odd(key, vision[key])]
    if not faults and (width % 2 or width * 32 % head):
        faults.append(f"width is {width}; it is even, and heads of {head} divide 32 times as much")
    sides = vision.get("image_size") or 224
    if any(_is_whole(side) and side % 32 for side in (sides if isinstance(sides, list | tuple) else [sides])):
        faults.append(f"image_size is {sides!r}; of a ResNet it is a multiple of 32")
    if faults:
        return {}, faults
    return {"stages": list(stages), "width": width, "heads": width * 32 // head}, []


TEXT_DEFAULTS: Mapping[str, Any] = {
    **{"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0, "ls_init_value": None},
    **{"act_kwargs": None, "norm_kwargs": None, "pool_type": "argmax", "proj_type": "linear", "pad_id": 0, "eos_id": 2},
    **{"embed_cls": False, "no_causal_mask": False, "proj_bias": False, "final_ln_after_pool": False},
    **{"hf_tokenizer_name": None, "tokenizer_kwargs": None, "tokenizer_mode": None, "output_tokens": False, "block_type": "default"},
}
# Fields that say something of a text tower of transformers, or nothing where they are switched off.
TEXT_OTHERS = ("hf_model_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "pooler_type", "proj")
TEXT_POOLS = ("argmax", "eos", "first", "last")


def own_text(text: Mapping[str, Any], *, quick_gelu: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the options of a text tower, and why it is none that is read; all faults at once.

    ``whole`` among them says whether texts are padded to the whole length, as what is behind their end is seen; ``pad`` is what with.

    Args:
        text: The table ``text_cfg``.
        quick_gelu: Whether the activation is ``x * sigmoid(1.702 x)``, as in OpenAI's weights.
    """
    told: dict[str, Any] = {name: text.get(name) if text.get(name) is not None else value for name, value in TEXT_DEFAULTS.items()}
    sizes = ("context_length", "vocab_size", "width", "heads", "layers")
    faults = [f"{name} is {told[name]!r}; it is a whole number of at least 1" for name in sizes if not _is_whole(told[name])]
    if not faults and told["width"] % told["heads"]:
        faults.append(f"width is {told['width']}, which {told['heads']} heads do not divide")
    faults += [
        f"{name} is {told[name]!r}; it is a number above 0" for name in ("mlp_ratio", "ls_init_value") if not _is_positive(told[name], name)
    ]
    for name in ("pad_id", "eos_id"):
        if not (told[name] == 0 or _is_whole(told[name])):
            faults.append(f"{name} is {told[name]!r}; it is the number of a token")
    read: dict[str, tuple[Any, ...]] = {"pool_type": TEXT_POOLS, "proj_type": ("linear", "none"), "block_type": ("default",)}
    read |= dict.fromkeys(("embed_cls", "no_causal_mask", "proj_bias"), (True, False))
    faults += [
        f"{name} of texts is {told[name]!r}; read is {' or '.join(map(str, known))}"
        for name, known in read.items()
        if told[name] not in known
    ]
    known = (*TEXT_DEFAULTS, *TEXT_OTHERS)
    unknown = [f"{name!r}{did_you_mean(name, known)}" for name, value in text.items() if value and name not in known]
    if unknown:
        faults.append(f"text_cfg has {', '.join(unknown)}, of which nothing is known here")
    activation, norm, more = _activation_and_norm(told["act_kwargs"] or {}, told["norm_kwargs"] or {}, quick_gelu=quick_gelu)
    if faults := [*faults, *more]:
        return {}, faults
    named = {"width": told["width"], "heads": told["heads"], "layers": told["layers"], "mlp_ratio": told["mlp_ratio"]}
    named |= {"vocabulary": told["vocab_size"], "length": told["context_length"], "layer_scale": told["ls_init_value"]}
    named |= {"activation": activation, "eps": norm, "projected": told["proj_type"] == "linear", "proj_bias": told["proj_bias"]}
    named |= {"class_token": told["embed_cls"], "causal": not told["no_causal_mask"], "pool": told["pool_type"], "end": told["eos_id"]}
    sees_padding = told["embed_cls"] or told["no_causal_mask"] or told["pool_type"] == "last"
    return named | {"whole": sees_padding, "pad": 0, "unseen": told["pad_id"]}, []


def own_width(tower: Mapping[str, Any]) -> int:
    """Return the width of the features of such a tower before the projection."""
    if "stages" in tower:
        return 32 * int(tower["width"])
    return int(tower["embed"] if tower["queries"] else tower["width"])


def _activation_and_norm(activation: Any, norm: Any, *, quick_gelu: bool) -> tuple[str, float, list[str]]:
    """Return the activation and the epsilon of the norms, and which of the two tables is not read."""
    faults = []
    if activation not in ({}, {"approximate": "tanh"}, {"approximate": "none"}) or (activation and quick_gelu):
        faults.append(f"act_kwargs is {activation!r}; read is {{'approximate': 'tanh'}}, without quick_gelu")
    if not isinstance(norm, Mapping) or [*norm] not in ([], ["eps"]) or not _is_positive(norm.get("eps", 1e-5), "eps"):
        faults.append(f"norm_kwargs is {norm!r}; read is {{'eps': 1e-6}} or another number")
    if faults:
        return "", 0.0, faults
    return "quick_gelu" if quick_gelu else activation.get("approximate", "none"), norm.get("eps", 1e-5), []


def _is_odd(field: str, value: Any) -> bool:
    """Return whether a field is none of a vision transformer's and switched on; those of timm's towers are without effect here."""
    return bool(value) and field not in FIELDS and not field.startswith("timm_")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: Any, name: str) -> bool:
    if value is None:
        return name == "ls_init_value"
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")

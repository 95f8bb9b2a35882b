"""Checkpoints that torchvision wrote: their tensors under timm's names where both have the same network, else the name to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

import zoo
from zoo_timm.torchvision_match import BUFFERS, computes_alike, set_alike

State = Mapping[str, Tensor]
Names = tuple[tuple[str, str], ...]

# A name that only one of torchvision's classes has, and that class. Those that timm reads itself are not here.
MARKERS = {
    "encoder.layers.encoder_layer_0.ln_1.weight": "VisionTransformer",
    "features.1.0.layer_scale": "ConvNeXt",
    "features.1.0.attn.cpb_mlp.0.weight": "SwinTransformerV2",
    "features.1.0.attn.relative_position_bias_table": "SwinTransformer",
    "features.1.0.block.0.0.weight": "EfficientNet",
    "features.1.conv.0.0.weight": "MobileNetV2",
    "features.1.block.0.0.weight": "MobileNetV3",
    "layers.8.0.layers.0.weight": "MNASNet",
    "blocks.0.layers.0.layers.MBconv.layers.pre_norm.weight": "MaxVit",
    "features.3.squeeze.weight": "SqueezeNet",
    "stage2.0.branch1.0.weight": "ShuffleNetV2",
    "inception3a.branch1.conv.weight": "GoogLeNet",
}
VIT: Names = (
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"conv_proj\.", "patch_embed.proj."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.fc2."),
    (r"encoder\.ln\.", "norm."),
    (r"heads\.head\.", "head."),
)
CONVNEXT: Names = (
    (r"features\.0\.", "stem."),
    *((rf"features\.{2 * stage}\.([01])\.", rf"stages.{stage}.downsample.\1.") for stage in (1, 2, 3)),
    *(
        (rf"features\.{2 * stage + 1}\.(\d+)\.{theirs}", rf"stages.{stage}.blocks.\1.{ours}")
        for stage in range(4)
        for theirs, ours in (
            (r"block\.0\.", "conv_dw."),
            (r"block\.2\.", "norm."),
            (r"block\.3\.", "mlp.fc1."),
            (r"block\.5\.", "mlp.fc2."),
            ("layer_scale", "gamma"),
        )
    ),
    (r"classifier\.0\.", "head.norm."),
    (r"classifier\.2\.", "head.fc."),
)
SWIN: Names = (
    (r"features\.0\.0\.", "patch_embed.proj."),
    (r"features\.0\.2\.", "patch_embed.norm."),
    *((rf"features\.{2 * stage}\.", f"layers.{stage}.downsample.") for stage in (1, 2, 3)),
    *(
        (rf"features\.{2 * stage + 1}\.(\d+)\.{theirs}", rf"layers.{stage}.blocks.\1.{ours}")
        for stage in range(4)
        for theirs, ours in ((r"mlp\.0\.", "mlp.fc1."), (r"mlp\.3\.", "mlp.fc2."), ("", ""))
    ),
    (r"head\.", "head.fc."),
)
RENAMED: dict[str, Names] = {"VisionTransformer": VIT, "ConvNeXt": CONVNEXT, "SwinTransformer": SWIN, "SwinTransformerV2": SWIN}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# torchvision's networks that timm builds of the same layers in the same order, under its own names.
# torchvision's further EfficientNets and all its MobileNetV3 have another epsilon, which a checkpoint does not tell.
IN_ORDER = {
    "mobilenet_v2": "mobilenetv2_100",
    "mnasnet1_0": "mnasnet_100",
    **{f"efficientnet_b{i}": f"efficientnet_b{i}" for i in range(5)},
}
LAST_LAYERS = re.compile(r"(fc|head|heads\.head|classifier(\.[1-6])?)\.weight")


def family_of(state: State) -> str:
    """Return torchvision's class whose names a checkpoint has, or nothing where it is of another library, or read by timm itself."""
    return next((family for marker, family in MARKERS.items() if marker in state), "")


def renamed(state: State, family: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a checkpoint of torchvision under the names of a timm model.

    Args:
        state: Tensors as torchvision names them.
        family: torchvision's class.
        module: timm's model.

    Raises:
        zoo.ZooError: If timm's model is another network; it names the backbone to use instead.
    """
    if family in RENAMED and type(module).__name__ == family:
        found = _renamed(state, RENAMED[family], module)
        if computes_alike(family, found, module):
            return {key: value for key, value in found.items() if not key.endswith(BUFFERS)}
    config: Mapping[str, Any] = getattr(module, "pretrained_cfg", {})
    if IN_ORDER.get(architecture_of(state)) == config.get("architecture", "") and set_alike(family, module):
        found = _in_order(state, module)
        if found:
            return found
    raise zoo.ZooError(refusal(state, module))


def refusal(state: State, module: nn.Module) -> str:
    """Return why a checkpoint of torchvision is not read, and the name that reads it."""
    name = architecture_of(state)
    what = f"is a checkpoint of torchvision's {name or family_of(state)}"
    other = f"timm's {type(module).__name__} of this name and these options is another network"
    use = f"torchvision/{name}" if name else "the name of its architecture, torchvision/…,"
    return f"{what}, and {other}; use {use} from the plugin zoo-torchvision"


def architecture_of(state: State) -> str:
    """Return torchvision's name of the architecture of a checkpoint, by its number of parameters, or nothing."""
    from torchvision import models  # type: ignore[import-untyped]  # ships no types

    left_out = (*STATISTICS, *BUFFERS)
    numbers = {key: value.numel() for key, value in state.items() if not key.endswith(left_out) and not key.startswith("aux")}
    last = max(filter(LAST_LAYERS.fullmatch, state), default="")
    if not last:
        return ""
    bias = f"{last.removesuffix('weight')}bias"
    rest = sum(numbers.values()) - numbers[last] - numbers.get(bias, 0)
    published = 1000 * (state[last].shape[1] + (bias in state))
    for name in models.list_models(module=models):
        if any(weights.meta["num_params"] == rest + published for weights in models.get_model_weights(name)):
            return str(name)
    return ""


def _renamed(state: State, names: Names, module: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        for theirs, ours in names:
            key, replaced = re.subn(rf"^{theirs}", ours, key)
            if replaced:
                break
        found[key] = value.flatten() if key.endswith(".gamma") else value
    return dict(_split_biases(found, module))


def _split_biases(state: State, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a state whose attention has biases of queries and values where timm's has no common one; that of keys counts nothing."""
    own = module.state_dict()
    for key, value in state.items():
        place = key.removesuffix("qkv.bias")
        if place != key and f"{place}q_bias" in own:
            queries, _, values = value.chunk(3)
            yield f"{place}q_bias", queries
            yield f"{place}v_bias", values
        else:
            yield key, value


def _in_order(state: State, module: nn.Module) -> dict[str, Tensor]:
    """Return a state of the same layers in the same order, or nothing where they differ."""
    theirs = _by_layer(key for key in sorted(state, key=_natural) if not key.startswith("classifier."))
    ours = _by_layer(module.state_dict())
    if len(theirs) != len(ours):
        return {}
    own, found = module.state_dict(), dict[str, Tensor]()
    for (there, names), (here, wanted) in zip(theirs.items(), ours.items(), strict=True):
        if names - {"num_batches_tracked"} != wanted - {"num_batches_tracked"}:
            return {}
        found |= {f"{here}.{name}": state[f"{there}.{name}"] for name in names}
    stem = next(iter(own))  # its input channels may differ
    return found if all(found[key].shape == own[key].shape for key in found if key != stem) else {}


def _by_layer(keys: Iterable[str]) -> dict[str, set[str]]:
    layers: dict[str, set[str]] = {}
    for key in keys:
        layer, _, name = key.rpartition(".")
        layers.setdefault(layer, set()).add(name)
    return layers


def _natural(key: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in key.split(".")]

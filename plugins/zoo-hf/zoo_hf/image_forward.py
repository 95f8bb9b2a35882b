"""The forward of image models of transformers as backbones have it: one tensor in, one tensor out, at any size that the model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo_hf.families import family_of
from zoo_hf.image_inputs import interpolates, native_size


@cache
def image_class(kind: Any, pooled: bool) -> type[nn.Module]:
    """Return a class of the home library whose forward returns one tensor; its parameters and its name stay the same.

    Args:
        kind: The class.
        pooled: Whether the tensor is the backbone's own pooled output ``(batch, dim)``, not its last map or tokens.
    """

    def forward(self: Any, x: Tensor) -> Tensor:
        config = self.config
        prepare = PREPARE.get(config.model_type)
        options: dict[str, Any] = dict(prepare(self, x)) if prepare else {}
        if interpolates(family_of(config.model_type), config) and tuple(x.shape[-2:]) != native_size(config):
            options["interpolate_pos_encoding"] = True
        output = kind.forward(self, options.pop("pixel_values", x), return_dict=True, **options)
        features: Tensor = output.pooler_output if pooled else output.last_hidden_state
        return projected(self, features)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def projected(module: nn.Module, features: Tensor) -> Tensor:
    """Return features after the projection that ``zoo_hf.build`` has added to a tower, or as they are."""
    projection = module._modules.get("projection")
    return features if projection is None else projection(features)


def _as_patches(module: Any, x: Tensor) -> Mapping[str, Any]:
    """Return images as rows of patches, channels last within a patch, with the shape of the grid, as the image processor does.

    Raises:
        zoo.OptionError: If an image is not cut into whole patches.
    """
    side, (batch, channels, height, width) = module.config.patch_size, x.shape
    rows, columns = height // side, width // side
    if (rows * side, columns * side) != (height, width):
        raise zoo.OptionError(
            f"this model takes images whose height and width are multiples of {side} pixels, and these have {height} x {width}; the "
            f"nearest image_size is {max(1, round(height / side)) * side} x {max(1, round(width / side)) * side}"
        )
    patches = x.reshape(batch, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
    mask = torch.ones(batch, rows * columns, dtype=torch.int32, device=x.device)
    shapes = torch.tensor([[rows, columns]], device=x.device).expand(batch, -1)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shapes}


def _in_order(module: Any, x: Tensor) -> Mapping[str, Any]:
    """Return the noise by which masked autoencoders order their patches: increasing, so that they stay where they are."""
    height, width = module.embeddings.patch_embeddings.patch_size
    patches = (x.shape[-2] // height) * (x.shape[-1] // width)
    return {"noise": torch.arange(patches, device=x.device).expand(len(x), -1)}


def _reset_windows(module: Any, x: Tensor) -> Mapping[str, Any]:
    """Reset window and shift sizes in place; Swin shrinks them for small images and does not restore them.

    Raises:
        zoo.OptionError: If an image is smaller than a window of the last stage.
    """
    window, stages = module.config.window_size, len(module.config.depths)
    smallest = module.config.patch_size * ((window - 1) * 2 ** (stages - 1)) + 1
    if min(x.shape[-2:]) < smallest:
        raise zoo.OptionError(
            f"swin with windows of {window} x {window} takes images of at least {smallest} pixels a side, and these have "
            f"{x.shape[-2]} x {x.shape[-1]}; give a larger image_size"
        )
    for stage in module.encoder.layers:
        for index, block in enumerate(stage.blocks):
            block.window_size, block.shift_size = window, window // 2 * (index % 2)
    return {}


def _whole_units(module: Any, x: Tensor) -> Mapping[str, Any]:
    """Check that an image is cut into whole mask units.

    Raises:
        zoo.OptionError: If it is not.
    """
    config = module.config
    steps = [stride * unit for stride, unit in zip(config.patch_stride, config.masked_unit_size, strict=True)]
    if any(side % step for side, step in zip(x.shape[-2:], steps, strict=True)):
        nearest = " x ".join(str(max(1, round(side / step)) * step) for side, step in zip(x.shape[-2:], steps, strict=True))
        raise zoo.OptionError(
            f"hiera takes images whose height is a multiple of {steps[0]} pixels and whose width is one of {steps[1]}, and these have "
            f"{x.shape[-2]} x {x.shape[-1]}; the nearest image_size is {nearest}"
        )
    return {}


PREPARE: Mapping[str, Callable[[Any, Tensor], Mapping[str, Any]]] = {
    "hiera": _whole_units,
    "siglip2_vision_model": _as_patches,
    "swin": _reset_windows,
    "vit_mae": _in_order,
}

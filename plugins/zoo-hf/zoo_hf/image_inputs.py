"""From the configurations of an image model and of its image processor to what a backbone declares of its input and features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import zoo
from zoo_hf.family import Family
from zoo_hf.image_processor import RESAMPLE, geometry, processor_of


def width(family: Family, config: Mapping[str, Any]) -> int:
    """Return the number of channels of the features: of the last stage, where there are several."""
    told = config.get(family.width)
    if family.width == "embed_dim":  # of the first stage
        stages = len(config.get("depths") or range(4))
        return int((told or 96) * (config.get("embed_dim_multiplier") or 2) ** (stages - 1))
    return int(told[-1] if isinstance(told, Sequence) else told or family.default_width)


def own_pooling(family: Family, config: Mapping[str, Any]) -> bool:
    """Return whether the backbone pools its features itself, unless it is told not to."""
    return family.pooler == "always" or (family.pooler == "default" and config.get(family.pooler_field) is not False)


def features(family: Family, config: Mapping[str, Any]) -> zoo.Features:
    """Return the features that a model declares; pooled ones keep the number of tokens that are not patches."""
    registers = config.get("num_register_tokens")
    prefix = family.class_tokens + int(family.registers if registers is None else registers)
    layout = "BD" if own_pooling(family, config) else family.layout
    return zoo.Features(dim=width(family, config), layout=layout, prefix_tokens=prefix)


def image(family: Family, config: Mapping[str, Any], processor: Mapping[str, Any]) -> zoo.Image:
    """Return the input that an image processor's configuration describes; the family's own where there is none.

    What the configuration leaves out is as the processor's class has it.
    """
    size, crop, squash = geometry(family, _own_size(family, config, processor), processor)
    channels = int(config.get("num_channels") or len(family.mean))
    kind = processor_of(family, processor) if processor else None
    values, resample = (kind.values, kind.resample) if kind else ((family.mean, family.std), family.resample)
    mean = _per_channel(processor.get("image_mean"), values[0], channels)
    std = _per_channel(processor.get("image_std"), values[1], channels)
    if processor.get("do_normalize") is False:
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    scale = _scale(processor)
    return zoo.Image(
        size=size,
        mean=tuple(value / scale for value in mean),
        std=tuple(value / scale for value in std),
        interpolation=RESAMPLE.get(processor.get("resample"), resample),  # type: ignore[arg-type]  # None has no entry
        crop=crop,
        squash=squash,
    )


def _own_size(family: Family, config: Mapping[str, Any], processor: Mapping[str, Any]) -> tuple[int, int]:
    """Return the height and width in pixels that a model was built for; a square of as many patches where it takes any shape."""
    stated = config.get("image_size")
    if stated:
        return (int(stated), int(stated)) if isinstance(stated, int) else (int(stated[0]), int(stated[1]))
    if not family.patches:
        return 224, 224
    patches = processor.get("max_num_patches") or config.get("num_patches") or family.patches
    side = math.isqrt(int(patches)) * int(config.get("patch_size") or 16)
    return side, side


def _scale(processor: Mapping[str, Any]) -> float:
    """Return the factor between values in [0, 1] and those that the processor normalises; 1 unless it rescales oddly."""
    factor = 1.0 if processor.get("do_rescale") is False else processor.get("rescale_factor") or 1 / 255
    scale = 255 * float(factor)
    return 1.0 if abs(scale - 1) < 1e-6 else scale


def _per_channel(stated: Any, default: Sequence[float], channels: int) -> Sequence[float]:
    """Return one value per channel: those stated, one number for all, or the default.

    Of the default these are, as ``zoo.get(in_chans=…)`` has them, the average for one channel, and the values in turn for more.
    """
    if isinstance(stated, int | float):
        return [float(stated)] * channels
    if stated:
        return list(stated)
    return [sum(default) / len(default)] if channels == 1 else [default[index % len(default)] for index in range(channels)]


def native_size(config: Any) -> tuple[int, int]:
    """Return the height and width in pixels that a configuration states."""
    size = config.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def interpolates(family: Family, config: Any) -> bool:
    """Return whether the forward must be told to interpolate position embeddings for images of another size."""
    return family.interpolates and getattr(config, "use_absolute_embeddings", True)

"""From the configurations of an image model and of its image processor to what a backbone declares of its input and features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import zoo
from zoo_hf.family import Family

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # as Pillow counts


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
    """Return the input that an image processor's configuration describes; the family's own where there is none."""
    size, crop = _geometry(family, config, processor)
    channels = int(config.get("num_channels") or len(family.mean))
    mean = processor.get("image_mean") or _per_channel(family.mean, channels)
    std = processor.get("image_std") or _per_channel(family.std, channels)
    if processor.get("do_normalize") is False:
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    scale = _scale(processor)
    interpolation = RESAMPLE.get(processor.get("resample"), family.resample)  # type: ignore[arg-type]  # None has no entry
    return zoo.Image(
        size=size,
        mean=tuple(value / scale for value in mean),
        std=tuple(value / scale for value in std),
        interpolation=interpolation,
        crop=crop,
    )


def _geometry(family: Family, config: Mapping[str, Any], processor: Mapping[str, Any]) -> tuple[tuple[int, int], float]:
    """Return the size in pixels and the share of the resized image that the centre crop keeps."""
    resized = _size(processor.get("size")) or _size(config.get("image_size")) or _grid(family, config) or (224, 224)
    cropped = _size(processor.get("crop_size")) if processor.get("do_center_crop") else None
    if cropped:
        return cropped, min(1.0, cropped[0] / resized[0])
    # Otherwise the size is that of the crop.
    share = processor.get("crop_pct") or (1.0 if "do_center_crop" in processor else family.crop)
    return resized, 1.0 if family.uncropped and min(resized) >= family.uncropped else min(1.0, float(share))


def _grid(family: Family, config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the size in pixels of a square of as many patches as the position embeddings were trained on."""
    if not family.patches:
        return None
    side = math.isqrt(int(config.get("num_patches") or family.patches)) * int(config.get("patch_size") or 16)
    return side, side


def _scale(processor: Mapping[str, Any]) -> float:
    """Return the factor between values in [0, 1] and those that the processor normalises; 1 unless it rescales oddly."""
    factor = 1.0 if processor.get("do_rescale") is False else processor.get("rescale_factor") or 1 / 255
    scale = 255 * float(factor)
    return 1.0 if abs(scale - 1) < 1e-6 else scale


def _per_channel(values: Sequence[float], channels: int) -> Sequence[float]:
    """Return one value per channel, as ``zoo.get(in_chans=…)`` has them: the average for one, in turn for more."""
    return [sum(values) / len(values)] if channels == 1 else [values[index % len(values)] for index in range(channels)]


def _size(told: Any) -> tuple[int, int] | None:
    """Return height and width of what configurations call a size: a number, a pair, or a table."""
    if isinstance(told, Mapping):
        edge = told.get("shortest_edge")
        told = (told.get("height") or edge, told.get("width") or edge)
    if isinstance(told, int):
        told = (told, told)
    return (int(told[0]), int(told[1])) if told and all(told) else None


def native_size(config: Any) -> tuple[int, int]:
    """Return the height and width in pixels that a configuration states."""
    size = config.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def interpolates(family: Family, config: Any) -> bool:
    """Return whether the forward must be told to interpolate position embeddings for images of another size."""
    return family.interpolates and getattr(config, "use_absolute_embeddings", True)

"""The preparation of images: read from the forms in which repositories state it, and the family's own where they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor, ConvNextImageProcessor, DeiTImageProcessor, ViTImageProcessor

import zoo


def declared(path: Path, processor: dict[str, Any] | None) -> zoo.Image:
    """Return the input that a folder with this preprocessor_config.json declares."""
    if processor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    inputs = zoo.get(path, weights=False).spec.inputs
    assert isinstance(inputs, zoo.Image)
    return inputs


@pytest.mark.parametrize(
    ("kind", "processor", "size", "crop", "interpolation"),
    [
        ("deit", None, 32, 0.875, "bicubic"),
        ("deit", {"size": 40, "do_center_crop": True, "crop_size": 30, "resample": 3}, 30, 0.75, "bicubic"),
        ("deit", {"size": {"height": 40, "width": 40}, "do_center_crop": False, "crop_size": 30}, 40, 1.0, "bicubic"),
        ("convnext", None, 32, 0.875, "bicubic"),
        ("convnext", {"size": 32, "crop_pct": 0.9, "resample": 2}, 32, 0.9, "bilinear"),
        ("convnext", {"size": {"shortest_edge": 224}, "crop_pct": None}, 224, 0.875, "bicubic"),
        ("convnext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}, 384, 1.0, "bicubic"),
        ("dinov3_vit", {"size": {"height": 48, "width": 48}, "do_center_crop": None, "resample": None}, 48, 1.0, "bilinear"),
        ("hiera", {"size": {"shortest_edge": 80}, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}}, 64, 0.8, "bicubic"),
        ("clip_vision_model", None, 32, 1.0, "bicubic"),
        ("swin", {"size": 64}, 64, 1.0, "bilinear"),
        ("segformer", {"size": {"height": 48, "width": 40}, "do_reduce_labels": False}, (48, 40), 1.0, "bilinear"),
    ],
)
def test_every_form_of_a_size_is_read(
    kind: str, processor: dict[str, Any] | None, size: Any, crop: float, interpolation: str, folder: Callable[..., Path]
) -> None:
    inputs = declared(folder(kind), processor)
    assert (inputs.size, inputs.crop) == ((size, size) if isinstance(size, int) else size, crop)
    assert inputs.interpolation == interpolation


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 0.5, 1.0]},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 55.0, 50.0]},
        {"do_rescale": False, "do_normalize": False},
    ],
)
@pytest.mark.parametrize("processor", [ViTImageProcessor, ConvNextImageProcessor])
def test_values_are_those_of_the_home_librarys_processor(processor: Any, options: dict[str, Any], folder: Callable[..., Path]) -> None:
    kind = "vit" if processor is ViTImageProcessor else "convnext"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    theirs = processor(**options, do_resize=False)
    inputs = declared(folder(kind), theirs.to_dict())
    expected = theirs(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    ours = (pixels.transpose(2, 0, 1) / 255 - np.reshape(inputs.mean, (3, 1, 1))) / np.reshape(inputs.std, (3, 1, 1))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "processor"), [("vit", ViTImageProcessor), ("deit", DeiTImageProcessor), ("clip_vision_model", CLIPImageProcessor)]
)
def test_what_the_home_library_writes_is_read(kind: str, processor: Any, folder: Callable[..., Path]) -> None:
    theirs = processor()
    inputs = declared(folder(kind), theirs.to_dict())
    assert (inputs.size, inputs.mean, inputs.std) == ((224, 224), tuple(theirs.image_mean), tuple(theirs.image_std))
    assert inputs.crop == (224 / 256 if kind == "deit" else 1.0)

"""Image processors: zoo's evaluation tensors are those of transformers, and what no declared input has is refused or told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from transformers.models.auto import image_processing_auto
from zoo_hf.declared_families import FAMILIES
from zoo_hf.describe import root
from zoo_hf.image_processor import PROCESSORS, stem

import zoo

MAPPING: dict[str, dict[str, str]] = vars(image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
PICTURED = [kind for kind, family in FAMILIES.items() if family.reads == "image"]


def processor(name: str, backend: str = "Pil", **options: Any) -> Any:
    """Return an image processor of transformers; DINOv3's has one backend only."""
    named = f"{name}ImageProcessor"
    return getattr(transformers, named + backend, getattr(transformers, named))(**options)


@pytest.fixture(scope="module")
def photo() -> PIL.Image.Image:
    """An image of 320 x 214 with shades, edges and the fine texture of a photograph."""
    noise, (y, x) = np.random.default_rng(0), np.mgrid[:214, :320]
    shades = np.stack([90 + 60 * np.sin(x / 31 + k) + 40 * np.cos(y / (17 + k)) for k in range(3)], axis=-1)
    shades[60:150, 120:230] += 70
    return PIL.Image.fromarray(np.clip(shades + noise.normal(0, 12, shades.shape), 0, 255).astype(np.uint8))


def declared(path: Path, told: dict[str, Any] | None = None) -> zoo.Image:
    """Return the input of a folder, with this preprocessor_config.json where one is given."""
    if told is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(told))
    inputs = zoo.get(path, weights=False).spec.inputs
    assert isinstance(inputs, zoo.Image)
    return inputs


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("vit", "ViT", {}),
        ("siglip_vision_model", "Siglip", {}),
        ("swin", "ViT", {"resample": 3, "size": {"height": 192, "width": 224}}),
        ("beit", "Beit", {}),
        ("vit", "DPT", {}),
        ("segformer", "Segformer", {"size": {"height": 128, "width": 128}}),
        ("dinov3_vit", "DINOv3ViT", {}),
        ("dinov2", "Bit", {"size": {"shortest_edge": 256}}),
        ("clip_vision_model", "CLIP", {}),
        ("hiera", "Bit", {"size": {"shortest_edge": 210}, "crop_size": 128}),  # floor(128 / (128 / 210)) is 209
        ("convnext", "ConvNext", {"size": {"shortest_edge": 128}}),
        ("convnext", "ConvNext", {"size": {"shortest_edge": 384}}),
        ("deit", "DeiT", {"size": {"shortest_edge": 256}}),
        ("deit", "DeiT", {"size": {"height": 224, "width": 224}}),
        ("deit", "DeiT", {}),  # both edges to 256, then 224 of the centre
        ("deit", "DeiT", {"size": {"height": 256, "width": 320}, "crop_size": {"height": 224, "width": 280}}),
    ],
)
def test_evaluation_tensors_are_those_of_transformers(
    kind: str, name: str, options: dict[str, Any], photo: PIL.Image.Image, folder: Callable[..., Path]
) -> None:
    path = folder(kind)
    for backend in ("Pil", ""):
        theirs = processor(name, backend, **options)
        inputs = declared(path, theirs.to_dict())
        ours = zoo.get(path, weights=False).adapt(2).transform()(photo)
        expected = torch.as_tensor(theirs(photo, return_tensors="pt")["pixel_values"][0])
        levels = ((ours - expected).abs() * torch.tensor(inputs.std).view(-1, 1, 1) * 255).max().item()
        exact = backend == "Pil" and name != "DINOv3ViT"
        assert levels < (0.01 if exact else 2), (backend, levels)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_defaults_of_a_class_are_those_of_transformers(name: str) -> None:
    ours, theirs = PROCESSORS[name], processor(name)
    assert (ours.resample, ours.values) == (
        {2: "bilinear", 3: "bicubic"}[int(theirs.resample)],
        (tuple(theirs.image_mean), tuple(theirs.image_std)),
    )
    size = dict(theirs.size) if theirs.size else {}
    assert ours.squashes == ("height" in size)
    assert not size or name == "Siglip2" or ours.square == bool(theirs.default_to_square)
    assert ours.crop == (theirs.crop_size.height if theirs.do_center_crop else 0)
    assert ours.share == getattr(theirs, "crop_pct", 0)


@pytest.mark.parametrize("kind", PICTURED)
def test_a_family_without_a_file_is_prepared_as_by_its_class_in_transformers(kind: str) -> None:
    family, inputs = FAMILIES[kind], root(kind).inputs
    named = MAPPING.get(kind) or MAPPING.get(family.composite) or {}
    if named:  # transformers has none for dinov3_convnext, whose files name that of dinov3_vit
        assert family.processor in {stem({"image_processor_type": name}) for name in named.values()}
    known = PROCESSORS[family.processor]
    assert isinstance(inputs, zoo.Image)
    assert inputs.squash == known.squashes


def test_a_family_that_nobody_declared_is_prepared_as_by_its_class_in_transformers() -> None:
    inputs = root("data2vec-vision").inputs
    assert isinstance(inputs, zoo.Image)
    assert (inputs.squash, inputs.interpolation) == (True, "bicubic")


def test_listed_repositories_resize_as_their_processors_do() -> None:
    squashed = {"vit-base-patch16-224": True, "siglip-base-patch16-224": True, "swin-tiny-patch4-window7-224": True}
    squashed |= {"beit-base-patch16-224": True, "clip-vit-base-patch32": False, "dinov2-small": False, "rad-dino": False}
    squashed |= {"convnext-tiny-224": False, "deit-tiny-distilled-patch16-224": True}
    assert {name: zoo.get(f"hf/{name}", weights=False).spec.inputs.squash for name in squashed} == squashed  # type: ignore[union-attr]  # images


@pytest.mark.parametrize(
    ("kind", "told", "facts"),
    [
        ("vit", {"size": {"longest_edge": 64}}, ["'longest_edge'", "shortest_edge"]),
        ("vit", {"size": {"shortest_edge": 64, "longest_edge": 96}, "do_pad": True}, ["'longest_edge'", "do_pad is True"]),
        ("vit", {"size": {"height": 64}}, ["'height': 64", "go together"]),
        ("vit", {"size": "64"}, ["size is '64'"]),
        ("vit", {"size": 64, "resample": 5}, ["resample is 5", "3 (bicubic)"]),
        ("vit", {"size": 64, "keep_aspect_ratio": True, "ensure_multiple_of": 32}, ["keep_aspect_ratio", "ensure_multiple_of is 32"]),
        ("clip_vision_model", {"size": 48, "crop_size": 64}, ["64 x 64", "larger", "48 x 48"]),
        ("clip_vision_model", {"size": 64, "crop_size": [32, 48]}, ["32 x 48", "no square"]),
        ("convnext", {"size": 64, "do_center_crop": True, "crop_size": 32}, ["crop_pct", "32 x 32"]),
    ],
)
def test_a_preparation_that_no_input_has_is_refused(kind: str, told: dict[str, Any], facts: list[str], folder: Callable[..., Path]) -> None:
    with pytest.raises(zoo.ZooError) as caught:
        declared(folder(kind), told)
    assert all(fact in str(caught.value) for fact in (f"tiny-{kind}", "preprocessor_config.json", *facts)), caught.value


@pytest.mark.parametrize(
    ("kind", "told", "size", "crop", "facts"),
    [
        (
            "deit",
            {"size": {"height": 64, "width": 64}, "crop_size": {"height": 56, "width": 48}},
            (56, 48),
            0.875,
            ["both edges to 64 x 64", "cuts out 56 x 48", "aspect ratio is kept"],
        ),
        ("siglip_vision_model", {"size": 64}, 64, 1.0, ["shorter edge", "centre is cut out"]),
        (
            "vit",
            {"image_processor_type": "AcmeImageProcessorFast", "size": 64},
            64,
            1.0,
            ["AcmeImageProcessor", "as that of ViTImageProcessor"],
        ),
        ("vit", {"size": 64, "do_resize": False, "do_sharpen": True}, 64, 1.0, ["resizes nothing", "do_sharpen of"]),
    ],
)
def test_what_zoo_prepares_otherwise_is_told(
    kind: str,
    told: dict[str, Any],
    size: int | tuple[int, int],
    crop: float,
    facts: list[str],
    folder: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="zoo"):
        inputs = declared(folder(kind), told)
    assert (inputs.size, inputs.crop) == (size if isinstance(size, tuple) else (size, size), crop)
    assert all(fact in caplog.text for fact in (f"tiny-{kind}", *facts)), caplog.text


def test_a_file_that_names_another_class_is_read_as_that_class(folder: Callable[..., Path]) -> None:
    inputs = declared(folder("vit"), {"feature_extractor_type": "CLIPFeatureExtractor", "size": 256, "image_mean": 0.5})
    assert (inputs.height, inputs.crop, inputs.squash, inputs.interpolation) == (224, 0.875, False, "bicubic")
    assert (inputs.mean, inputs.std) == ((0.5,) * 3, PROCESSORS["CLIP"].values[1])


def test_the_number_of_patches_of_images_of_any_shape_is_read(folder: Callable[..., Path]) -> None:
    theirs = processor("Siglip2", patch_size=8, max_num_patches=36)
    inputs = declared(folder("siglip2_vision_model"), theirs.to_dict())
    square = PIL.Image.fromarray(np.zeros((90, 90, 3), dtype=np.uint8))
    rows, columns = theirs(square, return_tensors="np")["spatial_shapes"][0]
    assert inputs.size == (8 * rows, 8 * columns) == (48, 48)


def test_a_model_that_an_earlier_version_saved_predicts_as_before(
    photo: PIL.Image.Image, folder: Callable[..., Path], tmp_path: Path
) -> None:
    model: Any = zoo.get(folder("vit"), weights=False).adapt(2)
    saved = model.save(tmp_path / "saved")
    config = json.loads((saved / "config.json").read_text())
    assert config["zoo"]["inputs"].pop("squash") is True
    config["zoo"]["fields_sha256"] = ""  # as earlier versions wrote it
    (height, width), photo = model.inputs.size, photo.crop((0, 0, 300, 200))
    wide = photo.resize((height * 3 // 2, height), PIL.Image.Resampling.BILINEAR)
    cropped = wide.crop(((wide.width - width) // 2, 0, (wide.width + width) // 2, height))
    new = zoo.load(saved).predict_proba([photo])[0].tolist()
    (saved / "config.json").write_text(json.dumps(config))
    old: Any = zoo.load(saved)
    assert (old.inputs.squash, zoo.get(saved).spec.inputs.squash) == (False, False)  # type: ignore[union-attr]  # an image
    whole, centre = old.predict_proba([photo, cropped]).tolist()
    assert whole == centre != new


@pytest.mark.parametrize(
    "how",
    [
        {"size": 64, "crop": 0.875},
        {"size": 60},  # an even number of pixels to cut off: an odd one is halved otherwise, see docs/plugins/hf.md
        {"size": 64, "squash": True, "interpolation": "bilinear"},
        {"size": 56, "squash": True, "crop": 0.875},
        {"size": (48, 80), "squash": True},
        {"size": 52, "mean": (0.5,), "std": (0.25,)},
    ],
)
def test_a_saved_model_tells_transformers_how_it_prepares_images(how: dict[str, Any], photo: PIL.Image.Image, tmp_path: Path) -> None:
    inputs = zoo.Image(**how)
    model = zoo.get("zoo/glyphnet", weights=False).adapt(2, in_chans=inputs.channels)
    model.inputs = inputs
    saved = model.save(tmp_path / "saved")
    picture = photo.convert("L") if inputs.channels == 1 else photo
    theirs = transformers.CLIPImageProcessorPil.from_pretrained(saved)
    expected = torch.as_tensor(theirs(picture, return_tensors="pt")["pixel_values"][0])
    assert (model.transform()(picture) - expected).abs().max() < 0.0002
    assert isinstance(transformers.AutoImageProcessor.from_pretrained(saved), transformers.CLIPImageProcessor)


def test_a_preparation_that_transformers_does_not_have_is_refused_there_and_not_squashed(tmp_path: Path) -> None:
    model = zoo.get("zoo/glyphnet", weights=False).adapt(2)
    model.inputs = zoo.Image(size=(48, 80))
    saved = model.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="size must have one of the following set of keys"):
        transformers.AutoImageProcessor.from_pretrained(saved)
    assert zoo.load(saved).inputs == model.inputs

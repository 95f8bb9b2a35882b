"""Image processors of transformers as data: the defaults of their classes, and the size and crop that a configuration describes."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zoo
from zoo_hf.family import Family

log = logging.getLogger("zoo")

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # as Pillow counts
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EDGES = ("height", "width", "shortest_edge")  # keys of a size that are read
# Switches that change what the network sees in a way that no declared input has, where they are on.
REFUSED = {
    "do_pad": "pads images",
    "do_flip_channel_order": "gives the channels as blue, green, red",
    "do_image_splitting": "cuts images into several",
    "do_pan_and_scan": "cuts images into several",
    "keep_aspect_ratio": "gives images of many shapes",
    "rescale_offset": "shifts values by -1",
    "size_divisor": "gives images of many shapes",
}
READ = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels")


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Defaults of one class of image processors, in pixels; those of a size and a crop matter where a file leaves them out.

    Attributes:
        squashes: Whether its default size is both edges', so that the aspect ratio is not kept.
        square: Whether a size that is one number is both edges', not the shorter one's.
        crop: Side of the square that is cut out of the centre by default; 0 for no crop.
        share: Share of the resized image that is kept where ``crop_pct`` does not tell it; 0 where that field is none of the class.
        resample: Interpolation.
        values: Mean and standard deviation per channel.
    """

    squashes: bool = False
    square: bool = False
    crop: int = 0
    share: float = 0.0
    resample: str = "bilinear"
    values: tuple[tuple[float, ...], tuple[float, ...]] = HALF


# By the name of the class before ImageProcessor, of transformers 5.
PROCESSORS: Mapping[str, ImageProcessor] = {
    "Beit": ImageProcessor(squashes=True, square=True, resample="bicubic"),
    "Bit": ImageProcessor(crop=224, resample="bicubic", values=OPENAI),
    "CLIP": ImageProcessor(crop=224, resample="bicubic", values=OPENAI),
    "ConvNext": ImageProcessor(share=224 / 256, resample="bicubic"),
    "DINOv3ViT": ImageProcessor(squashes=True, square=True, values=IMAGENET),
    "DPT": ImageProcessor(squashes=True, square=True, resample="bicubic"),
    "DeiT": ImageProcessor(squashes=True, square=True, crop=224, resample="bicubic"),
    "Segformer": ImageProcessor(squashes=True, square=True, values=IMAGENET),
    "Siglip": ImageProcessor(squashes=True, resample="bicubic"),
    "Siglip2": ImageProcessor(),
    "ViT": ImageProcessor(squashes=True, square=True),
}


def stem(told: Mapping[str, Any]) -> str:
    """Return the name of the class that a file states, without what versions of transformers put behind it; empty where none is."""
    named = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    return re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", named)


def processor_of(family: Family, told: Mapping[str, Any]) -> ImageProcessor | None:
    """Return the class that a file states or, where it is none of those known here, the family's; None where that is unknown too."""
    return PROCESSORS.get(stem(told)) or PROCESSORS.get(family.processor)


def geometry(family: Family, own: tuple[int, int], told: Mapping[str, Any]) -> tuple[tuple[int, int], float, bool]:
    """Return the size in pixels, the share of the resized image that the centre crop keeps, and whether both edges are resized.

    Args:
        family: Of the model.
        own: Height and width in pixels that the model was built for, where the file tells no size.
        told: Content of preprocessor_config.json; empty where there is none.
    """
    known = processor_of(family, told)
    kind = known or ImageProcessor()
    size, both = _resized(kind, told) or (own, kind.squashes)
    cropped = _cropped(kind, told) if told and not kind.share else None
    if cropped:
        share = _share(cropped[0], size[0])
        return cropped, share, both and _cuts_alike(cropped, size, share)
    if family.uncropped and min(size) >= family.uncropped:
        return size, 1.0, True
    share = min(1.0, float(told.get("crop_pct") or _default_share(known, family, told)))
    return size, share, both and not kind.share


def _cuts_alike(cropped: tuple[int, int], size: tuple[int, int], share: float) -> bool:
    """Return whether a crop keeps one share of both edges, which a declared input has."""
    return all(math.floor(edge / share) == whole for edge, whole in zip(cropped, size, strict=True))


def _default_share(kind: ImageProcessor | None, family: Family, told: Mapping[str, Any]) -> float:
    """Return the share of the resized image that is kept where no size of a crop and no ``crop_pct`` is told."""
    if not told or kind is None:
        return 1.0 if "do_center_crop" in told else family.crop
    crops = told.get("do_center_crop")
    return kind.share or (family.crop if (kind.crop if crops is None else crops) else 1.0)


def check(name: str, family: Family, told: Mapping[str, Any]) -> None:
    """Refuse a file that describes what no declared input has, and log where zoo prepares images otherwise than transformers.

    Args:
        name: Of the model, for messages.
        family: Of the model.
        told: Content of preprocessor_config.json.

    Raises:
        zoo.ZooError: With all faults of the file at once.
    """
    kind = processor_of(family, told) or ImageProcessor()
    if faults := list(_faults(kind, told)):
        raise zoo.ZooError(
            f"{name}: its image processor is none that is read: {'; '.join(faults)}; "
            "give the path of a folder with its files, whose preprocessor_config.json tells another size or crop"
        )
    for note in _notes(kind, family, told):
        log.warning("%s: %s", name, note)


def _faults(kind: ImageProcessor, told: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of a file cannot be a declared input."""
    yield from (f"{key} is {told[key]!r}, which {why}" for key, why in REFUSED.items() if told.get(key))
    if (told.get("ensure_multiple_of") or 1) != 1:
        yield f"ensure_multiple_of is {told['ensure_multiple_of']!r}, which gives images of many shapes"
    resample = told.get("resample")
    if resample is not None and resample not in RESAMPLE:
        yield f"resample is {resample!r}; read are {', '.join(f'{number} ({word})' for number, word in RESAMPLE.items())}"
    odd = [fault for key in ("size", "crop_size") for fault in _size_faults(key, told.get(key))]
    yield from odd
    resized, cropped = (None, None) if odd else (_resized(kind, told), _cropped(kind, told))
    if not resized or not cropped:
        return
    if kind.share and cropped != resized[0]:
        yield f"it crops by crop_pct and then to {cropped[0]} x {cropped[1]}"
        return
    (height, width), both = resized
    if cropped[0] > height or cropped[1] > width:
        yield f"the crop of {cropped[0]} x {cropped[1]} is larger than the resized image ({height} x {width}), so edges would be black"
    elif not both and cropped[0] != cropped[1]:
        yield f"the shorter edge is resized and {cropped[0]} x {cropped[1]} cut out, which is no square"


def _size_faults(key: str, told: Any) -> Iterator[str]:
    """Yield why a size cannot be read."""
    stated = {name: value for name, value in told.items() if value is not None} if isinstance(told, Mapping) else {}
    if unknown := [name for name in stated if name not in EDGES]:
        yield f"{key} has {', '.join(map(repr, unknown))}; read are height with width, and shortest_edge"
    elif isinstance(told, Mapping) and ("height" in stated) != ("width" in stated):
        yield f"{key} is {dict(told)!r}; height and width go together"
    elif told is not None and _pair(told) is None:
        yield f"{key} is {told!r}; it is a number of pixels, or height and width"


def _notes(kind: ImageProcessor, family: Family, told: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what zoo differs from transformers with this file."""
    named, resized, cropped = stem(told), _resized(kind, told), _cropped(kind, told)
    if named and named not in PROCESSORS:
        instead = f"as that of {family.processor}ImageProcessor" if family.processor else "by its fields alone"
        yield f"its image processor is a {named}ImageProcessor, which zoo-hf does not know; its file is read {instead}"
    if resized and resized[1] and cropped and not _cuts_alike(cropped, resized[0], _share(cropped[0], resized[0][0])):
        yield (
            f"its image processor resizes both edges to {resized[0][0]} x {resized[0][1]} and cuts out {cropped[0]} x {cropped[1]}; "
            "here the aspect ratio is kept: the shorter edge is resized to that"
        )
    if resized and not resized[1] and not cropped and not kind.share:
        yield "its image processor resizes the shorter edge and crops nothing; here the centre is cut out, for a batch has one shape"
    if told.get("do_resize") is False:
        yield "its image processor resizes nothing; here images are resized all the same, for a batch has one shape"
    odd = [key for key, value in told.items() if key.startswith("do_") and value is True and key not in READ]
    if odd:
        yield f"{', '.join(odd)} of its image processor {'is' if len(odd) == 1 else 'are'} not read"


def _resized(kind: ImageProcessor, told: Mapping[str, Any]) -> tuple[tuple[int, int], bool] | None:
    """Return height and width of the resize, and whether they are both edges', not the least that covers them; None if not told."""
    size = told.get("size")
    pair = _pair(size)
    if pair is None:
        return None
    if isinstance(size, Mapping):
        both = not size.get("shortest_edge")
    elif isinstance(size, Sequence):
        both = True
    else:
        stated = told.get("default_to_square")
        both = kind.square if stated is None else bool(stated)
    return pair, both


def _cropped(kind: ImageProcessor, told: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of the crop; None where nothing is cut off, or neither size is told."""
    crops = told.get("do_center_crop")
    if not (kind.crop if crops is None else crops):
        return None
    return _pair(told.get("crop_size")) or ((kind.crop, kind.crop) if kind.crop and told.get("size") else None)


def _share(cropped: int, resized: int) -> float:
    """Return the share of the resized edge that a crop keeps, so that dividing by it and rounding down gives the edge again."""
    share = min(1.0, cropped / resized)
    exact = share == 1 or math.floor(cropped / share) == resized
    return share if exact else math.nextafter(share, 0)


def _pair(told: Any) -> tuple[int, int] | None:
    """Return height and width of what configurations call a size: a number, a pair, or a table."""
    if isinstance(told, Mapping):
        edge = told.get("shortest_edge")
        told = (told.get("height") or edge, told.get("width") or edge)
    if isinstance(told, int) and not isinstance(told, bool):
        told = (told, told)
    if not isinstance(told, Sequence) or len(told) != 2:
        return None
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in told)
    return (told[0], told[1]) if whole else None

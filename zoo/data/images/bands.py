"""Images with any number of channels, such as satellite bands: arrays and TIFF files to float values in [0, 1].

| source | channels |
|---|---|
| .npy, .npz, arrays | the last axis, else the first, whichever has the model's number |
| uint8 tensors | the first axis, else the last |
| TIFF | one page per channel, or samples of a pixel (more than four are read by tifffile) |
| other pictures | their bands, where their number is that of the model (RGBA for four) |

| values | become |
|---|---|
| any, with a ``window`` (centre, width) | ``(x - centre) / width + 1/2``, clipped to [0, 1] |
| uint8 | divided by 255 |
| uint16 | divided by 65535 |
| float in [0, 1] | as they are |
| others without a window | refused: they have no defined intensity range |

Then ``(x - mean) / std`` per channel, with the declared values repeated in turn for further channels.
"""

from __future__ import annotations

import io
import math
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from zoo.data.images.augment import Augment, random_box
from zoo.data.images.scans.dicom import WindowLevel
from zoo.data.images.scans.nifti import ARRAYS, load_array
from zoo.errors import CorruptInputError, DataError, MissingExtraError

Array = npt.NDArray[Any]
PICTURE_CHANNELS = (1, 3)  # numbers of channels that pictures are decoded to, see ``zoo.data.images.decode``
_TIFF = (".tif", ".tiff")
_WHITE = {"uint8": 255.0, "uint16": 65535.0}
_MODES = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "bicubic"}  # torch has no Lanczos


def read_bands(source: Any, channels: int, name: str = "", *, window: WindowLevel | None = None) -> Tensor:
    """Return an image as float32 ``(channels, height, width)`` in [0, 1].

    Raises:
        CorruptInputError: If it cannot be read, or its values have no defined range.
        DataError: If it has another number of channels.
    """
    if isinstance(source, Mapping) and ("bytes" in source or "path" in source):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    is_path = isinstance(source, str | os.PathLike)
    name = repr(os.fspath(source)) if is_path else name or f"an input of type {type(source).__name__}"
    values = _values(source, name, channels)
    tensor = hasattr(source, "numpy")
    return torch.from_numpy(_scaled(_channels_first(values, channels, name, first=tensor), name, window))


def _values(source: Any, name: str, channels: int) -> Array:
    if isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(ARRAYS):
        return load_array(os.fspath(source))
    if not isinstance(source, str | os.PathLike | bytes | PIL.Image.Image):
        return np.asarray(source)
    try:
        if isinstance(source, PIL.Image.Image):
            return _pages(source, name)
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return _pages(image, name)
    except FileNotFoundError as error:
        raise CorruptInputError(f"{name} does not exist (any more)") from error
    except PIL.UnidentifiedImageError as error:
        if isinstance(source, bytes) or str(source).lower().endswith(_TIFF):
            return _by_tifffile(source, name, error)
        raise CorruptInputError(f"{name} is no image with {channels} channels; give .npy, .npz or TIFF") from error
    except (CorruptInputError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise CorruptInputError(f"{name} cannot be decoded: {error}; remove or replace it") from error


def _pages(image: PIL.Image.Image, name: str) -> Array:
    """Return the pages ``(pages, height, width)`` or the bands ``(height, width, bands)`` of a picture."""
    number = getattr(image, "n_frames", 1)
    if number == 1:
        return np.asarray(image)
    if number * image.width * image.height > 2 * (PIL.Image.MAX_IMAGE_PIXELS or math.inf):
        raise CorruptInputError(f"{name} claims {number} pages of {image.width} x {image.height} pixels (a decompression bomb?)")
    pages = []
    for page in range(number):
        image.seek(page)
        pages.append(np.asarray(image))
    shapes = {page.shape for page in pages}
    if len(shapes) > 1 or pages[0].ndim != 2:
        raise CorruptInputError(f"{name} has {number} pages that are not grey images of one size; save one page per channel")
    return np.stack(pages)


def _by_tifffile(source: Any, name: str, cause: Exception) -> Array:
    try:
        import tifffile  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingExtraError(f"{name}: TIFF files of this kind are read by tifffile: pip install tifffile") from error
    try:
        with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)) as file:
            if math.prod(file.series[0].shape) > 8 * (PIL.Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"it claims the shape {file.series[0].shape} (a decompression bomb?)")
            return np.asarray(file.series[0].asarray())
    except Exception as error:  # as above
        raise CorruptInputError(f"{name} cannot be decoded: {error or cause}; remove or replace it") from error


def _channels_first(values: Array, channels: int, name: str, *, first: bool) -> Array:
    values = values[None] if values.ndim == 2 and channels == 1 else values
    if values.ndim == 3 and values.size:
        for axis in (0, -1) if first else (-1, 0):
            if values.shape[axis] == channels:
                return np.moveaxis(values, axis, 0)
    raise DataError(
        f"{name} has shape {values.shape}, and the model takes {channels} channels; give (height, width, {channels}), or build the model "
        "for another number: adapt(…, in_chans=N)"
    )


def _scaled(values: Array, name: str, window: WindowLevel | None) -> Array:
    if values.dtype.kind not in "uif":
        raise CorruptInputError(f"{name} holds {values.dtype} values; an image holds numbers")
    kind = str(values.dtype)
    scaled = np.array(values, dtype=np.float32, order="C")
    if not np.isfinite(scaled).all():
        raise CorruptInputError(f"{name} has values that are not finite; clean or remove it")
    if window is not None:
        return np.asarray(np.clip((scaled - window[0]) / window[1] + 0.5, 0.0, 1.0), dtype=np.float32)
    if kind in _WHITE:
        return np.asarray(scaled / np.float32(_WHITE[kind]))
    low, high = float(scaled.min()), float(scaled.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return scaled
    centre, width = (low + high) / 2, max(high - low, 1.0)
    raise CorruptInputError(
        f"{name} has {kind} values in [{low:g}, {high:g}] and has no defined intensity range; give window=(centre, width) that holds for "
        f"all images, such as window=({centre:g}, {width:g}), or save float values in [0, 1]"
    )


def resize_bands(x: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """Return an image ``(channels, height, width)`` resized with antialiasing, its values in [0, 1]."""
    from torch.nn import functional

    mode = _MODES[interpolation]
    smooth: dict[str, Any] = {} if mode == "nearest" else {"antialias": True, "align_corners": False}
    return functional.interpolate(x[None], (height, width), mode=mode, **smooth)[0].clamp_(0, 1)


def augment_bands(x: Tensor, augment: Augment, rng: random.Random) -> Tensor:
    """Crop at random (not yet resized), flip, and change brightness and contrast of an image of any number of channels.

    Args:
        x: The image, float32 ``(channels, height, width)`` in [0, 1].
        augment: The augmentation: ``scale``, ``ratio``, ``flip`` and ``jitter``.
        rng: Source of the random numbers.

    Returns:
        A part of the image, ``(channels, height of the crop, width of the crop)``, in [0, 1].
    """
    left, upper, right, lower = random_box((x.shape[2], x.shape[1]), augment, rng)
    x = x[:, upper:lower, left:right]
    if augment.flip and rng.random() < augment.flip:
        x = x.flip(2)
    if augment.jitter:
        bright, contrast = (rng.uniform(1 - augment.jitter, 1 + augment.jitter) for _ in range(2))
        mean = x.mean((1, 2), keepdim=True)
        x = (((x - mean) * contrast + mean) * bright).clamp(0, 1)
    return x

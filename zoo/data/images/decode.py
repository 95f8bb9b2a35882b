"""Decoding of images to 8-bit grey or RGB; values without a defined range raise an error and are never clipped.

| encoding | becomes |
|---|---|
| 16-bit grey | divided by 257 and rounded (65535 is 255); inverted where a TIFF says that zero is white |
| 32-bit integer, or float outside [0, 1] | refused: it has no defined intensity range; float in [0, 1] is multiplied by 255 |
| 1-bit | 0 and 255 |
| palette, grey or RGB with transparency | laid on white |
| CMYK, YCCK, YCbCr, HSV | RGB |
| EXIF orientation | upright |
| several frames (GIF, TIFF, WebP, APNG, AVIF) | refused; of a camera's MPO the first frame, the photo itself |
| DICOM | rescaled, windowed and upright in brightness, see ``zoo.data.images.scans.dicom``; several frames are refused |
| .npy, .npz with one array | as an array of pixels: uint8, or float in [0, 1] |
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from zoo.data.images import codecs
from zoo.data.images.scans.dicom import DICOM, WindowLevel, is_dicom, read_dicom
from zoo.data.images.scans.nifti import ARRAYS, IS_VOLUME, VOLUMES, load_array
from zoo.errors import CorruptInputError, DataError, count

_ORIENTATION = 0x0112
_PHOTOMETRIC = 262  # TIFF 6.0, section 8: 0 is WhiteIsZero
# Transpositions to upright, by the EXIF orientation tag (EXIF 2.3, section 4.6.4).
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIGNATURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP"}
_MODES = {1: "L", 3: "RGB"}


def decode(source: Any, channels: int = 3, name: str = "", *, at_least: int = 0, window: WindowLevel | None = None) -> PIL.Image.Image:
    """Decode one image to 8 bits.

    Args:
        source: Path, encoded bytes, PIL image, ``{"bytes": …, "path": …}`` as in Hub datasets, or an array or
            uint8 tensor: uint8, or float in [0, 1], of shape ``(height, width)`` or ``(height, width, channels)``.
        channels: 1 for grey (ITU-R 601 luma of colour images), 3 for RGB (grey is repeated).
        name: Name for messages; a path names itself.
        at_least: If positive, a JPEG may be decoded at a half, a quarter or an eighth of its size, with a short side of
            this many pixels or more. The DCT is scaled, so this is cheaper than decoding and resizing.
        window: Centre and width for a grey DICOM file, in its units after the rescale; None uses the file's own.

    Returns:
        A loaded image of mode ``L`` or ``RGB``, upright.

    Raises:
        CorruptInputError: If it cannot be decoded or its range is undefined.
        DataError: If ``channels`` is neither 1 nor 3.
    """
    if channels not in _MODES:
        raise DataError(f"images are decoded to 1 or 3 channels, not {channels}; others are read by zoo.data.images.bands")
    if isinstance(source, Mapping) and ("bytes" in source or "path" in source):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, str | os.PathLike):
        return _decode_file(os.fspath(source), channels, at_least, window)
    name = name or f"an input of type {type(source).__name__}"
    if isinstance(source, bytes):
        return _decode_stream(io.BytesIO(source), name, channels, at_least, window)
    if not isinstance(source, PIL.Image.Image):
        return _from_array(source, channels, name)
    return _guarded(source, name, channels, 0)


def _decode_file(path: str, channels: int, at_least: int, window: WindowLevel | None) -> PIL.Image.Image:
    name = repr(path)
    if path.lower().endswith(VOLUMES):
        raise CorruptInputError(f"{name} {IS_VOLUME}")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  # opening a pipe would wait for its writer
            raise CorruptInputError(f"{name} is no regular file, but a folder, a pipe or a device; remove it")
        if path.lower().endswith(ARRAYS):
            return _from_array(load_array(path), channels, name)
        with Path(path).open("rb") as stream:
            return _decode_stream(stream, name, channels, at_least, window, dicom=path.lower().endswith(DICOM))
    except FileNotFoundError as error:
        raise CorruptInputError(f"{name} does not exist (any more)") from error
    except PermissionError as error:
        raise CorruptInputError(f"{name} may not be read; change its permissions") from error
    except CorruptInputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with NUL, or one that no file system can hold
        raise CorruptInputError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}; correct the path") from error


def _decode_stream(
    stream: Any, name: str, channels: int, at_least: int, window: WindowLevel | None, *, dicom: bool = False
) -> PIL.Image.Image:
    head = stream.read(132)
    stream.seek(0)
    # Before Pillow, as a DICOM file may start like a TIFF.
    if dicom or is_dicom(head):
        image = read_dicom(stream, window=window, name=name)
        return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])
    suffix = codecs.suffix_of(head)
    if suffix:
        codecs.can_read(suffix)  # registers what reads it
    try:
        image = PIL.Image.open(stream)
    except PIL.UnidentifiedImageError as error:
        stream.seek(0)
        head = stream.read(64)
        remedy = codecs.remedy(codecs.suffix_of(head)) if codecs.suffix_of(head) else "remove or replace it"
        raise CorruptInputError(f"{name} is no image: {_describe(head)}; {remedy}") from error
    except PIL.Image.DecompressionBombError as error:
        raise CorruptInputError(
            f"{name} claims more than {2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)} pixels (a decompression bomb?); shrink or remove it"
        ) from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise CorruptInputError(f"{name} cannot be decoded: {error}; remove or replace it") from error
    return _guarded(image, name, channels, at_least)


def _describe(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, fetch the file itself with `git lfs pull`"
    kind = next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), "")
    if codecs.suffix_of(head):
        return f"it is {codecs.suffix_of(head)[1:].upper()}, which Pillow does not read here"
    if kind:
        return f"it starts like a {kind} file, but its header is damaged"
    text = head.decode("ascii", errors="replace")
    if all(letter.isprintable() or letter.isspace() for letter in text) and "\ufffd" not in text:
        return f"it is text and starts with {text[:24]!r}"
    return f"its first bytes are {head[:8].hex(' ')}, no known format"


def _guarded(image: PIL.Image.Image, name: str, channels: int, at_least: int) -> PIL.Image.Image:
    try:
        return _convert(image, name, channels, at_least)
    except CorruptInputError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise CorruptInputError(f"{name} cannot be decoded: {error}; remove or replace it") from error


def _convert(image: PIL.Image.Image, name: str, channels: int, at_least: int) -> PIL.Image.Image:
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise CorruptInputError(f"{name} has {image.n_frames} frames; save the frame you mean as a file of its own")  # type: ignore[attr-defined]  # checked just above
    if at_least and image.format in ("JPEG", "MPO"):
        image.draft(None, (at_least, at_least))
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1)) if "exif" in image.info or image.format != "JPEG" else None
    image = _eight_bits(image, name, _MODES[channels])
    return image.transpose(turn) if turn is not None else image


def _eight_bits(image: PIL.Image.Image, name: str, mode: str) -> PIL.Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        pixels = np.asarray(image) / 257
        # Pillow inverts WhiteIsZero TIFFs of 8 bits, but not of 16.
        return _grey(255 - pixels if _zero_is_white(image) else pixels, mode)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _wide(image, name, mode)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_white(image, mode)
    if image.mode in ("CMYK", "YCbCr", "HSV", "P"):
        return image.convert("RGB").convert(mode)
    return image.convert(mode)


def _grey(values: Any, mode: str) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.rint(values).astype(np.uint8)).convert(mode)


def _wide(image: PIL.Image.Image, name: str, mode: str) -> PIL.Image.Image:
    pixels = np.asarray(image)
    low, high = pixels.min(), pixels.max()
    if image.mode == "F" and low >= 0 and high <= 1 and not _zero_is_white(image):
        return _grey(pixels * 255.0, mode)
    kind = "float" if image.mode == "F" else "integer"
    raise CorruptInputError(
        f"{name} has 32-bit {kind} pixels in [{low:g}, {high:g}] "
        "and has no defined intensity range; save it as 8 or 16 bits, or as float in [0, 1]"
    )


def _zero_is_white(image: PIL.Image.Image) -> bool:
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _on_white(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    clear = image.convert("RGBA")
    ground = PIL.Image.new("RGB", clear.size, (255, 255, 255))
    ground.paste(clear, mask=clear.getchannel("A"))
    return ground.convert(mode)


def _from_array(source: Any, channels: int, name: str) -> PIL.Image.Image:
    try:
        pixels = np.asarray(source)
    except ValueError as error:  # ragged lists
        raise CorruptInputError(f"{name} is no array: its rows differ in length ({error}); correct or remove it") from error
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4) and hasattr(source, "numpy"):
        pixels = pixels.transpose(1, 2, 0)  # torch tensors have their channels first
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not pixels.size or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        hint = "; for other channels build the model with adapt(…, in_chans=N)" if pixels.ndim == 3 and pixels.size else ""
        expected = "(height, width) or (height, width, 1, 3 or 4 channels)"
        raise CorruptInputError(f"{name} has shape {np.shape(source)}; expected {expected}{hint}")
    try:
        check_range(pixels, name)
    except DataError as error:
        raise CorruptInputError(str(error)) from error
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * 255.0).astype(np.uint8)
    return _eight_bits(PIL.Image.fromarray(np.ascontiguousarray(pixels)), name, _MODES[channels])


def check_range(pixels: Any, source: str) -> None:
    """Check that pixels are uint8 or float in [0, 1]; guessing another range could clip them silently.

    Raises:
        DataError: With the range of the values, or the number of those that are not finite.
    """
    if pixels.dtype == np.uint8 or not pixels.size:
        return
    if pixels.dtype.kind != "f":
        low, high = pixels.min(), pixels.max()
        raise DataError(f"{source}: pixels are {pixels.dtype} in [{low}, {high}]; scale them to float in [0, 1] or convert them to uint8")
    infinite = pixels.size - int(np.isfinite(pixels).sum())
    if infinite:
        raise DataError(f"{source} has {count(infinite, 'value')} that are not finite, such as NaN; clean or remove it")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        scaled = "X / 255" if low >= 0 and 2 < high <= 255 else "(X - X.min()) / (X.max() - X.min())"  # of 8 bits, the same for all images
        raise DataError(f"{source}: float pixels are in [{low:g}, {high:g}], expected [0, 1]; for example X = {scaled}")

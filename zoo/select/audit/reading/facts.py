"""Size, value range, thumbnail and corner statistics of each image or volume, or why it cannot be read, from one decoding."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from zoo.data.images.decode import decode
from zoo.data.images.scans.dicom import WindowLevel
from zoo.data.images.scans.volumes import read_volume
from zoo.data.table import PIXELS, Array, Table
from zoo.data.unreadable_input import Unreadable
from zoo.engine.runtime.cores import usable_cores
from zoo.errors import CorruptInputError, MissingExtraError, ZooError
from zoo.select.audit.reading.headers import dicom_facts, volume_facts
from zoo.select.audit.reading.kept import Arrays, Kept, Report, blockwise

VERSION = 3  # of what is kept
MOST_IMAGES, MOST_VOLUMES = 16, 2  # decoded at once; each thread holds a whole volume
SIDE = 32  # of a thumbnail
GRID = (8, 8, 16)  # of the thumbnail of a volume, which has as many values
TEXT = "U200"
_CORNER = 16  # a corner is this part of the shorter side
_DECODED = 128  # least shorter side in pixels at which a JPEG is decoded
_MAKE, _MODEL = 271, 272  # EXIF tags of a camera
FACTS: Mapping[str, Any] = {
    **dict.fromkeys(("error", "kind", "camera", "patient", "study", "shape", "voxels"), TEXT),
    **dict.fromkeys(("width", "height", "shortest"), "i4"),
    "bytes": "i8",
}


def facts_of(table: Table, kept: Kept, report: Report, window: WindowLevel | None = None) -> Arrays:
    """Return the facts of each image or volume.

    Args:
        table: The rows.
        kept: Where what was read is kept.
        report: Called after each block.
        window: Through which DICOM images are shown; None for their own.

    Returns:
        ``error`` (why a sample cannot be read, else empty), ``kind`` (format and mode, of a volume orientation and type), ``camera`` or
        scanner, ``patient`` and ``study`` of a DICOM header, ``width``, ``height``, ``shortest`` side, ``bytes`` (0 where unknown),
        ``shape`` of a volume, ``voxels`` (a digest of its values), ``range`` ``(n, 4)`` (lowest and highest value, mean, standard
        deviation), ``spacing`` ``(n, 3)`` of a volume in mm, NaN where unknown, ``thumb`` uint8 ``(n, 1024)`` and ``corners`` ``(n, 8)``
        (mean and standard deviation of each corner of an image).
    """
    if table.reads not in PIXELS:
        return {}
    key = f"facts {VERSION} {table.reads}{f' {window}' if window else ''}"
    return blockwise(table, key, partial(_block, window=window), kept, report)


def _block(table: Table, *, window: WindowLevel | None) -> Arrays:
    rows = range(len(table))
    if isinstance(table.inputs, list):  # decoders release the interpreter lock; datasets of the user's own may not be safe in threads
        most = MOST_VOLUMES if table.reads == "volume" else MOST_IMAGES
        with ThreadPoolExecutor(min(usable_cores(), most)) as pool:
            try:
                found = list(pool.map(lambda row: _facts(table, row, window), rows))
            except BaseException:  # such as Ctrl-C: do not wait for the rest
                pool.shutdown(cancel_futures=True)
                raise
    else:
        found = [_facts(table, row, window) for row in rows]
    arrays = {name: np.asarray([one[name] for one in found], dtype=kind) for name, kind in FACTS.items()}
    arrays["range"] = np.asarray([one["range"] for one in found], dtype=np.float32).reshape(-1, 4)
    arrays["spacing"] = np.asarray([one["spacing"] for one in found], dtype=np.float32).reshape(-1, 3)
    arrays["thumb"] = np.asarray([one["thumb"] for one in found], dtype=np.uint8).reshape(-1, SIDE * SIDE)
    arrays["corners"] = np.asarray([one["corners"] for one in found], dtype=np.float32).reshape(-1, 8)
    return arrays


def _facts(table: Table, row: int, window: WindowLevel | None) -> dict[str, Any]:
    plain = {name: "" if kind == TEXT else 0 for name, kind in FACTS.items()}
    facts: dict[str, Any] = plain | {"range": [np.nan] * 4, "spacing": [np.nan] * 3}
    facts |= {"thumb": np.zeros(SIDE * SIDE), "corners": [np.nan] * 8}
    try:
        source = table.inputs[row]
        if isinstance(source, Unreadable):
            raise CorruptInputError(source.reason)
        return facts | (_of_volume(source) if table.reads == "volume" else _of_image(source, window))
    except MissingExtraError:
        raise
    except ZooError as error:
        return facts | {"error": str(error)}
    except Exception as error:  # a dataset of the user's own may raise anything
        return facts | {"error": f"{type(error).__name__}: {error}"}


def _of_image(source: Any, window: WindowLevel | None) -> dict[str, Any]:
    if hasattr(source, "detach") and source.is_floating_point():
        image = _of_tensor(source.detach().cpu().numpy())
    else:
        image = decode(source, at_least=_DECODED, window=window)
    grey = image.convert("L")
    pixels = np.asarray(grey, dtype=np.float32)
    side = max(2, min(pixels.shape) // _CORNER)
    corners = [pixels[rows, columns] for rows in (slice(side), slice(-side, None)) for columns in (slice(side), slice(-side, None))]
    values = np.asarray(image, dtype=np.float32)
    return {
        **_header(source, image),
        "range": [values.min(), values.max(), values.mean(), values.std()],
        "thumb": np.asarray(grey.resize((SIDE, SIDE), PIL.Image.Resampling.BOX)).reshape(-1),
        "corners": [value for corner in corners for value in (corner.mean(), corner.std())],
    }


def _of_tensor(values: Array) -> PIL.Image.Image:
    """Return a ready-made float tensor as a grey image, its range stretched to 0 … 255."""
    if not np.isfinite(values).all():
        raise CorruptInputError("it has values that are not finite")
    flat = values.mean(0) if values.ndim == 3 else values
    spread = float(flat.max() - flat.min()) or 1.0
    return PIL.Image.fromarray(np.rint((flat - flat.min()) * 255 / spread).astype(np.uint8))


def _header(source: Any, image: PIL.Image.Image) -> dict[str, Any]:
    """Return the size, the kind and the camera of an image; of one that Pillow does not open the size as it was decoded."""
    found: dict[str, Any] = {"width": image.width, "height": image.height, "kind": image.mode, "bytes": 0, "camera": ""}
    found["shortest"] = min(image.size)
    if isinstance(source, Mapping):
        source = source["bytes"] if source.get("bytes") is not None else source.get("path")
    with suppress(Exception):  # what cannot be told is left out: the image itself was read
        if isinstance(source, str | os.PathLike):
            found["bytes"] = Path(source).stat().st_size
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with nullcontext(stream) if isinstance(stream, PIL.Image.Image) else PIL.Image.open(stream) as opened:
            exif = opened.getexif()
            camera = [str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)]
            found |= {"width": opened.width, "height": opened.height, "kind": f"{opened.format or ''} {opened.mode}".strip()}
            found["shortest"] = min(opened.size)
            found["camera"] = " ".join(filter(None, camera))[:200]
            return found
    return found | dicom_facts(source)


def _of_volume(source: Any) -> dict[str, Any]:
    import torch

    values, affine = read_volume(source, 0)
    low, high = np.percentile(values, (1, 99))
    scaled = np.clip((values.mean(0) - low) / (float(high - low) or 1.0), 0, 1)
    small = torch.nn.functional.interpolate(torch.from_numpy(np.ascontiguousarray(scaled))[None, None], GRID, mode="area")
    size = Path(source).stat().st_size if isinstance(source, str | os.PathLike) else 0
    return {
        **volume_facts(source, values, affine),
        "width": values.shape[3],
        "height": values.shape[2],
        "shortest": min(values.shape[1:]),
        "shape": "x".join(map(str, values.shape[1:])),
        "voxels": hashlib.sha256(values.tobytes() + repr(values.shape).encode()).hexdigest(),
        "bytes": size,
        "range": [values.min(), values.max(), values.mean(), values.std()],
        "thumb": np.rint(small.numpy().reshape(-1) * 255),
    }

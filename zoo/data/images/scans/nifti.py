"""Volumes from files: NIfTI by nibabel, imported for the first one; .npy and .npz by numpy, without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import CorruptInputError, MissingExtraError, count

Array = npt.NDArray[Any]

VOLUMES = (".nii", ".nii.gz")
ARRAYS = (".npy", ".npz")
IS_VOLUME = "is a volume, and the model reads images; take a backbone that `zoo list --modality volume` shows"
NO_VOLUME = f"is no volume; the model reads {' '.join((*VOLUMES, *ARRAYS))}, and folders of a DICOM series"


def read_nifti(source: Any, channels: int = 1, name: str = "") -> tuple[Array, Array]:
    """Return the values and the affine of a NIfTI file, its axes reordered to left to right, back to front, bottom to top.

    Voxels are permuted and flipped (the nearest of the 48 orientations), not interpolated; the header's scaling is applied.

    Args:
        source: Path, or an image of nibabel.
        channels: Number of channels of the model; a fourth dimension of this length is the channels; 0 for any.
        name: Name for messages; a path names itself.

    Returns:
        float32 ``(channels or 1, depth, height, width)``, and the affine ``(4, 4)`` from its indices to millimetres in RAS+.

    Raises:
        MissingExtraError: If nibabel is not installed.
        CorruptInputError: If the file cannot be read, or has a fourth dimension that is not the model's channels.
    """
    name = name or repr(str(source))
    nibabel = nibabel_for(name)
    try:
        image = nibabel.load(source) if isinstance(source, str | Path) else source
        if len(image.shape) > 4 or (len(image.shape) == 4 and channels and image.shape[3] not in (1, channels)):
            raise CorruptInputError(_wrong_dimensions(name, image.shape, channels))
        image = nibabel.as_closest_canonical(image)
        values = np.asarray(image.dataobj, dtype=np.float32)
    except CorruptInputError:
        raise
    except Exception as error:  # parsers raise anything on hostile bytes
        raise CorruptInputError(f"{name} is no readable NIfTI file: {' '.join(str(error).split())}; remove or replace it") from error
    if values.ndim < 3 or not values.size:
        raise CorruptInputError(f"{name} has shape {image.shape}; a volume has three dimensions")
    values = values[None] if values.ndim == 3 else np.moveaxis(values, 3, 0)
    return np.ascontiguousarray(values), np.asarray(image.affine, dtype=np.float64)


def nibabel_for(name: str) -> Any:
    """Return nibabel, imported to read ``name``.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError(f"{name} is a NIfTI file, which nibabel reads: pip install nibabel") from error
    return nibabel


def _wrong_dimensions(name: str, shape: tuple[int, ...], channels: int) -> str:
    message = f"{name} has shape {shape}, and the model reads volumes of {count(channels, 'channel')}"
    if len(shape) > 4:
        return f"{message}; save one three-dimensional volume"
    return f"{message}; save the one of its {shape[3]} volumes that you mean: nibabel.load(path).slicer[..., K].to_filename(…)"


def load_array(path: str) -> Array:
    """Return the array of an .npy file, or the only array of an .npz file; pickled objects are never loaded.

    Raises:
        CorruptInputError: If it cannot be read, or holds several arrays.
    """
    name = repr(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if len(loaded.files) == 1:
                return np.asarray(loaded[loaded.files[0]])
            arrays = ", ".join(loaded.files)
    except FileNotFoundError as error:
        raise CorruptInputError(f"{name} does not exist (any more)") from error
    except Exception as error:  # numpy and zlib raise anything on hostile bytes, and MemoryError for the size that a header claims
        raise CorruptInputError(f"{name} is no readable array: {error}; remove or replace it") from error
    raise CorruptInputError(f"{name} holds several arrays ({arrays}); a sample is one array per file")

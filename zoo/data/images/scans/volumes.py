"""Volumes of any encoding to normalised tensors, by MONAI's transforms, which are imported at first use.

| step | what happens |
|---|---|
| read | NIfTI by nibabel, folders of a DICOM series, .npy and .npz, arrays, nibabel images; axes reordered to RAS+ if there is an affine |
| space | resampled to the declared millimetres (trilinear), or, without any, resized to the declared size |
| values | the window becomes 0 to 1; without one, mean 0 and standard deviation 1 over the volume |
| augment | in training: flipped left to right, rotated, scaled and shifted a little, brightness and contrast |
| size | cropped or padded around the centre, with the volume's lowest value |
| channels | ``(x - mean) / std``; one channel is repeated for a model of several |
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.images.augment import Augment
from zoo.data.images.scans.nifti import ARRAYS, NO_VOLUME, VOLUMES, Array, load_array, read_nifti
from zoo.data.images.scans.series import read_series
from zoo.declare import Volume
from zoo.errors import CorruptInputError, DataError, MissingExtraError, count

VolumeTransform = Callable[[Any, random.Random], torch.Tensor]

TURN = 0.1  # radians, about 6 degrees
SHIFT = 0.05  # of the size
SCALE = 0.1


def volume_transform(inputs: Volume, augment: Augment | None) -> VolumeTransform:
    """Return the transform of a declared volume; its random numbers come only from the given ``random.Random``.

    Args:
        inputs: Size, spacing, window, mean and std.
        augment: Augmentation in training: ``flip`` is the probability of a flip, left to right, and ``jitter`` twice the
            range of brightness and contrast; None is no augmentation.

    Returns:
        A picklable function of an input and a ``random.Random`` that gives float32 ``(channels, depth, height, width)``.

    Raises:
        MissingExtraError: If MONAI is not installed.
    """
    _monai()
    return VolumePreprocessing(inputs, augment)


def _monai() -> Any:
    try:
        import monai.transforms  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("volumes are resampled and augmented by MONAI: pip install monai") from error
    return monai.transforms


@dataclass(frozen=True)
class VolumePreprocessing:
    """The steps in the table at the top of this module."""

    inputs: Volume
    augment: Augment | None = None

    def __call__(self, source: Any, rng: random.Random) -> torch.Tensor:
        """Return float32 ``(channels, depth, height, width)``; a float tensor passes after a check of shape and finiteness.

        Raises:
            CorruptInputError: If the volume cannot be read, or has values that are not finite.
        """
        if isinstance(source, torch.Tensor) and source.is_floating_point():
            return check_volume(source, self.inputs)
        values, affine = read_volume(source, self.inputs.channels)
        x = self._values(self._spaced(values, affine))
        if self.augment:
            x = _augmented(x, rng, self.augment)
        return self._channels(self._sized(x))

    def _spaced(self, values: Array, affine: Array | None) -> torch.Tensor:
        x = torch.from_numpy(values)
        if self.inputs.spacing is None:
            return _plain(_monai().Resize(self.inputs.size, mode="trilinear")(x))
        if affine is None or np.allclose(np.linalg.norm(affine[:3, :3], axis=0), self.inputs.spacing, rtol=1e-3):
            return x
        return _resampled(x, affine, self.inputs.spacing)  # type: ignore[arg-type]  # a tuple after __post_init__

    def _values(self, x: torch.Tensor) -> torch.Tensor:
        transforms, window = _monai(), self.inputs.window
        if window is None:
            return _plain(transforms.NormalizeIntensity(channel_wise=True)(x))
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
        return _plain(transforms.ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(x))

    def _sized(self, x: torch.Tensor) -> torch.Tensor:
        return _plain(_monai().ResizeWithPadOrCrop(self.inputs.size, value=float(x.min()))(x))

    def _channels(self, x: torch.Tensor) -> torch.Tensor:
        x = x.expand(self.inputs.channels, *x.shape[1:]) if x.shape[0] == 1 else x
        mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (self.inputs.mean, self.inputs.std))
        return (x.float() - mean).div(std).contiguous()


def read_volume(source: Any, channels: int = 1) -> tuple[Array, Array | None]:
    """Read a volume.

    Args:
        source: Path of a NIfTI, .npy or .npz file or of a folder with a DICOM series, a nibabel image, or an array
            ``(depth, height, width)`` or ``(channels, depth, height, width)`` of any number type.
        channels: Number of channels of the model; 0 for any.

    Returns:
        float32 ``(1 or channels, depth, height, width)``, and the affine from indices to millimetres, None if unknown.

    Raises:
        CorruptInputError: If it cannot be read, has another number of channels, or values that are not finite.
    """
    affine: Array | None = None
    name = repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else f"an input of type {type(source).__name__}"
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if path.lower().endswith(ARRAYS):
            values = load_array(path)
        elif path.lower().endswith(VOLUMES):
            values, affine = read_nifti(Path(path), channels, name)
        elif Path(path).is_dir():
            values, affine = read_series(Path(path), name)
        else:
            raise CorruptInputError(f"{name} {NO_VOLUME}")
    elif hasattr(source, "affine") and hasattr(source, "dataobj"):
        values, affine = read_nifti(source, channels, name)
    else:
        values = np.asarray(source)
    return _checked(values, channels, name), affine


def _checked(values: Array, channels: int, name: str) -> Array:
    if values.dtype.kind not in "uifb":
        raise CorruptInputError(f"{name} holds {values.dtype} values; a volume holds numbers")
    shape = values.shape
    values = values[None] if values.ndim == 3 else values
    if values.ndim != 4 or not values.size or (channels and values.shape[0] not in (1, channels)):
        raise CorruptInputError(
            f"{name} has shape {shape}; expected (depth, height, width), or 1 or {count(channels, 'channel')} before these"
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise CorruptInputError(f"{name} has {bad} voxels that are NaN or infinite; replace them, for example by numpy.nan_to_num")
    return values


def check_volume(x: torch.Tensor, inputs: Volume) -> torch.Tensor:
    """Return a prepared volume as float32.

    Raises:
        DataError: If its shape is not the one that the model takes.
        CorruptInputError: If a value is not finite.
    """
    if tuple(x.shape) != inputs.shape:
        raise DataError(f"a float tensor has shape {tuple(x.shape)}; the model takes {inputs.shape}; give an array to have it prepared")
    if bad := int(x.numel() - torch.isfinite(x).sum()):
        raise CorruptInputError(f"a float tensor has {count(bad, 'value')} that are NaN or infinite; clean or remove it")
    return x.float()


def _resampled(x: torch.Tensor, affine: Array, spacing: tuple[float, float, float]) -> torch.Tensor:
    from monai.data.meta_tensor import MetaTensor

    return _plain(_monai().Spacing(pixdim=spacing, mode="bilinear", padding_mode="border")(MetaTensor(x, affine=torch.from_numpy(affine))))


def _augmented(x: torch.Tensor, rng: random.Random, augment: Augment) -> torch.Tensor:
    transforms = _monai()
    spread = float(x.std())
    steps = (
        transforms.RandFlip(prob=augment.flip, spatial_axis=0),
        transforms.RandAffine(
            prob=1.0,
            rotate_range=(TURN,) * 3,
            translate_range=[SHIFT * size for size in x.shape[1:]],
            scale_range=(SCALE,) * 3,
            padding_mode="border",
        ),
        transforms.RandScaleIntensity(factors=augment.jitter / 2, prob=1.0),
        transforms.RandShiftIntensity(offsets=augment.jitter / 2 * spread, prob=1.0),
    )
    for step in steps:
        step.set_random_state(state=np.random.RandomState(rng.getrandbits(32)))
        x = _plain(step(x))
    return x


def _plain(x: Any) -> torch.Tensor:
    """Return a plain tensor, without MONAI's metadata."""
    tensor = x.as_tensor() if hasattr(x, "as_tensor") else x
    return torch.as_tensor(tensor)

"""Image transforms: decode, crop and resize as the backbone declares, equal to torchvision and timm, and normalise."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from PIL.Image import Resampling

from zoo.data.images.augment import Augment, augment_image, erase, random_box
from zoo.data.images.bands import PICTURE_CHANNELS, augment_bands, read_bands, resize_bands
from zoo.data.images.decode import decode
from zoo.declare import Image
from zoo.errors import CorruptInputError, DataError, OptionError

Transform = Callable[[Any, random.Random], torch.Tensor]

_RESAMPLING = {
    "nearest": Resampling.NEAREST,
    "bilinear": Resampling.BILINEAR,
    "bicubic": Resampling.BICUBIC,
    "lanczos": Resampling.LANCZOS,
}


class LazyInput:
    """An input that makes its tensor by itself with the transform of a run, such as a row in which an image is one of several parts."""

    def tensor(self, transform: Any, rng: random.Random) -> torch.Tensor:
        """Return the tensor, of the shape that the network reads.

        Args:
            transform: The transform of the run, a dataclass with the field ``inputs``, which is that of the network.
            rng: Source of the random numbers of this sample in this epoch.
        """
        raise TypeError(f"{type(self).__name__} has no tensor()")


def eval_transform(inputs: Image) -> Transform:
    """Return the evaluation transform of a backbone's declared input.

    The short side is resized to ``floor(size / crop)`` pixels with antialiasing, the centre is cropped, values are divided
    by 255 and normalised: bit-equal to torchvision's and timm's PIL pipelines. A JPEG is therefore decoded at its full size,
    unlike in training.

    Args:
        inputs: Size, mean, std, interpolation and crop.

    Returns:
        A picklable function of an input and a ``random.Random`` (unused) that gives float32 ``(channels, height, width)``.
    """
    return EvalTransform(inputs)


def train_transform(inputs: Image, augment: Augment, *, beside: Sequence[Image] = ()) -> Transform:
    """Return the training transform: random resized crop, flip, jitter, RandAugment, normalisation, random erasing.

    Images of other than 1 or 3 channels: see ``zoo.data.images.bands``.

    A JPEG is decoded at a half, a quarter or an eighth of its size if even the smallest crop need not be enlarged.

    Args:
        inputs: Size, mean, std and interpolation.
        augment: The augmentation; without any, the evaluation transform is returned.
        beside: Further inputs that the same views are made for. Random numbers depend on the size at which an image is decoded, so all
            of them decode at the size that suits the largest.

    Returns:
        A picklable function of an input and a ``random.Random`` that gives float32 ``(channels, height, width)``.

    Raises:
        OptionError: If RandAugment is asked for images of other than 1 or 3 channels.
    """
    if augment.rand_augment and inputs.channels not in PICTURE_CHANNELS:
        raise OptionError(f"rand_augment is for pictures of 1 or 3 channels, and the model takes {inputs.channels}")
    return TrainTransform(inputs, augment, tuple(beside)) if augment.augments_images else EvalTransform(inputs)


@dataclass(frozen=True)
class EvalTransform:
    """Resize, centre crop, normalise."""

    inputs: Image
    normalise: Normalise = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "normalise", Normalise(self.inputs.mean, self.inputs.std))

    def __call__(self, source: Any, rng: random.Random) -> torch.Tensor:
        """Return float32 ``(channels, height, width)``; a float tensor passes after a check of shape and finiteness."""
        inputs = self.inputs
        if isinstance(source, LazyInput):
            return check_tensor(source.tensor(self, rng), inputs)
        if isinstance(source, torch.Tensor) and source.is_floating_point():
            return check_tensor(source, inputs)
        if inputs.channels not in PICTURE_CHANNELS:
            return self._of_bands(read_bands(source, inputs.channels, window=inputs.window), resize_target(inputs))
        return self.normalise(self.cropped(source))

    def cropped(self, source: Any) -> PIL.Image.Image:
        """Return an image of 1 or 3 channels decoded, resized and cropped."""
        inputs, target = self.inputs, resize_target(self.inputs)
        image = decode(source, inputs.channels, window=inputs.window)
        image = image.resize(_resized(image.size, target, squash=inputs.squash), _RESAMPLING[inputs.interpolation])
        left, upper = round((image.width - inputs.width) / 2.0), round((image.height - inputs.height) / 2.0)
        return image.crop((left, upper, left + inputs.width, upper + inputs.height))

    def _of_bands(self, x: torch.Tensor, target: tuple[int, int]) -> torch.Tensor:
        inputs = self.inputs
        width, height = _resized((x.shape[2], x.shape[1]), target, squash=inputs.squash)
        x = resize_bands(x, height, width, inputs.interpolation)
        left, upper = round((width - inputs.width) / 2.0), round((height - inputs.height) / 2.0)
        return self.normalise.values(x[:, upper : upper + inputs.height, left : left + inputs.width].contiguous())


@dataclass(frozen=True)
class TrainTransform:
    """Random resized crop, the other augmentations, normalise."""

    inputs: Image
    augment: Augment
    beside: tuple[Image, ...] = ()
    normalise: Normalise = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "normalise", Normalise(self.inputs.mean, self.inputs.std))

    def __call__(self, source: Any, rng: random.Random) -> torch.Tensor:
        """Return float32 ``(channels, height, width)``; a float tensor passes after a check of shape and finiteness."""
        inputs, augment = self.inputs, self.augment
        if isinstance(source, LazyInput):
            return check_tensor(source.tensor(self, rng), inputs)
        if isinstance(source, torch.Tensor) and source.is_floating_point():
            return check_tensor(source, inputs)
        if inputs.channels not in PICTURE_CHANNELS:
            augmented = augment_bands(read_bands(source, inputs.channels, window=inputs.window), augment, rng)
            x = self.normalise.values(resize_bands(augmented, inputs.height, inputs.width, inputs.interpolation))
            return erase(x, rng) if augment.erase and rng.random() < augment.erase else x
        image = decode(source, inputs.channels, at_least=self._at_least(), window=inputs.window)
        box = random_box(image.size, augment, rng)
        image = image.resize((inputs.width, inputs.height), _RESAMPLING[inputs.interpolation], box=box)
        x = self.normalise(augment_image(image, augment, rng))
        return erase(x, rng) if augment.erase and rng.random() < augment.erase else x

    def _at_least(self) -> int:
        """Short side below which the smallest crop would have to be enlarged, in pixels."""
        narrow = min(self.augment.ratio[0], 1 / self.augment.ratio[1])
        side = max(max(each.height, each.width) for each in (self.inputs, *self.beside))
        return math.ceil(side / math.sqrt(self.augment.scale[0] * narrow))


@dataclass(frozen=True)
class Normalise:
    """From an 8-bit image to ``(x / 255 - mean) / std``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Return float32 ``(channels, height, width)``."""
        return self.pixels(np.array(image))  # a copy: torch needs writable memory

    def pixels(self, values: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return float32 ``(channels, height, width)`` of pixels ``(height, width)`` or ``(height, width, channels)``."""
        pixels = torch.from_numpy(values)
        pixels = pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        return self.values(pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255))

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 values ``(channels, height, width)`` in [0, 1] normalised, in place."""
        return x.sub_(_per_channel(self.mean)).div_(_per_channel(self.std))


@functools.cache
def _per_channel(values: tuple[float, ...]) -> torch.Tensor:
    """Return float32 ``(channels, 1, 1)``, one tensor for all images: to make it takes longer than to normalise a small one."""
    return torch.tensor(values, dtype=torch.float32, device="cpu").view(-1, 1, 1)  # whatever the defaults of the first caller are


def resize_target(inputs: Image) -> tuple[int, int]:
    """Return the height and width in pixels of the evaluation resize: ``floor(size / crop)``, as in timm."""
    return math.floor(inputs.height / inputs.crop), math.floor(inputs.width / inputs.crop)


def _resized(size: tuple[int, int], target: tuple[int, int], *, squash: bool) -> tuple[int, int]:
    """Return width and height of ``target`` (height, width), or the smallest of the image's aspect ratio that cover it."""
    width, height = size
    if squash:
        return target[1], target[0]
    if width * target[0] <= height * target[1]:
        return target[1], max(int(target[1] * height / width), target[0])
    return max(int(target[0] * width / height), target[1]), target[0]


def check_tensor(x: torch.Tensor, inputs: Image) -> torch.Tensor:
    """Return a prepared float tensor as float32.

    Raises:
        DataError: If its shape is not ``(channels, height, width)`` of the declared input.
        CorruptInputError: If a value is not finite; in training it would spoil the statistics of BatchNorm.
    """
    if tuple(x.shape) != inputs.shape:
        raise DataError(
            f"a float tensor has shape {tuple(x.shape)}, the model takes (channels, height, width) = {inputs.shape}; "
            "resize it, pass image_size=, or give images instead"
        )
    check_finite(x)
    return x.to("cpu", torch.float32)  # a dataset of the user's own may hold its tensors on a GPU


def check_finite(x: torch.Tensor) -> None:
    """Check that a float tensor has no NaN and no infinity.

    Raises:
        CorruptInputError: With their number.
    """
    if not torch.isfinite(x).all():
        raise CorruptInputError(f"a float tensor has {int((~torch.isfinite(x)).sum())} values that are not finite; clean or remove it")

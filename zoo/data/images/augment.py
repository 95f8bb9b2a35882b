"""Random augmentation of single images and of batches, every draw from a given ``random.Random``."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL import ImageEnhance
from PIL.Image import Transpose

from zoo.data.seeded_generators import seeded_generators
from zoo.errors import MissingExtraError, OptionError, count, fault_list


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Augmentation of training images. The defaults suit photos of one object; ``Augment.none()`` is no augmentation.

    Attributes:
        scale: Smallest and largest share of the image's area that the random crop keeps, in (0, 1].
        ratio: Smallest and largest width / height of the crop, before it is resized to the input.
        flip: Probability of a horizontal flip; use 0 if left and right differ (hearts, digits, text).
        jitter: Brightness, contrast and saturation are multiplied by a factor in [1 - jitter, 1 + jitter].
        rand_augment: Magnitude of RandAugment (Cubuk et al. 2020), 1 to 30, two operations; 0 is off. Needs torchvision.
        erase: Probability of random erasing (Zhong et al. 2020).
        mixup: Alpha of mixup's Beta distribution (Zhang et al. 2018); 0 is off.
        cutmix: Alpha of CutMix's Beta distribution (Yun et al. 2019); 0 is off. With both, each batch draws one of them.
    """

    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.2
    rand_augment: int = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "ratio"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        chances = [
            (not 0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}; it must be in [0, 1]")
            for name in ("flip", "erase", "jitter")
        ]
        alphas = [(not getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be 0 or more") for name in ("mixup", "cutmix")]
        faults = [
            (len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[-1] <= 1, f"scale is {self.scale}; give (low, high) in (0, 1]"),
            (len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[-1], f"ratio is {self.ratio}; give (low, high), both positive"),
            (not 0 <= self.rand_augment <= 30, f"rand_augment is {self.rand_augment}; its magnitude is 1 to 30, 0 is off"),
        ]
        messages = [message for wrong, message in faults + chances + alphas if wrong]
        if messages:
            raise OptionError(fault_list(f"augmentation has {count(len(messages), 'fault')}", messages))

    @classmethod
    def none(cls) -> Augment:
        """Return no augmentation: training images are prepared like evaluation images."""
        return cls(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0)

    @property
    def augments_images(self) -> bool:
        """Whether single images are augmented (mixup and CutMix augment batches)."""
        return self.scale != (1.0, 1.0) or any((self.flip, self.jitter, self.rand_augment, self.erase))


def random_box(size: tuple[int, int], augment: Augment, rng: random.Random) -> tuple[int, int, int, int]:
    """Draw the crop of Inception (Szegedy et al. 2015): area and shape at random, ten tries, then the largest middle crop.

    Args:
        size: Width and height of the image in pixels.
        augment: The augmentation, for ``scale`` and ``ratio``.
        rng: Source of the random numbers.

    Returns:
        Left, upper, right, lower in pixels.
    """
    width, height = size
    low, high = math.log(augment.ratio[0]), math.log(augment.ratio[1])
    for _ in range(10):
        area = width * height * rng.uniform(*augment.scale)
        shape = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            left, upper = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, upper, left + w, upper + h
    shape = min(max(width / height, augment.ratio[0]), augment.ratio[1])
    w, h = min(width, round(height * shape)), min(height, round(width / shape))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + max(w, 1), upper + max(h, 1)


def augment_image(image: PIL.Image.Image, augment: Augment, rng: random.Random) -> PIL.Image.Image:
    """Flip, jitter and RandAugment an 8-bit image of mode ``L`` or ``RGB``."""
    if augment.flip and rng.random() < augment.flip:
        image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
    if augment.jitter:
        image = _jitter(image, augment.jitter, rng)
    return _rand_augment(image, augment.rand_augment, rng) if augment.rand_augment else image


def _jitter(image: PIL.Image.Image, amount: float, rng: random.Random) -> PIL.Image.Image:
    kinds: list[Any] = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    rng.shuffle(kinds)
    for kind in kinds:
        factor = rng.uniform(1 - amount, 1 + amount)
        if kind is ImageEnhance.Brightness:
            # Equal to ImageEnhance.Brightness, but by a lookup table instead of a blend with a black image.
            table = np.minimum(np.arange(256) * factor + 0.5, 255).astype(np.uint8)  # cut off, as int() does
            image = image.point(table.tolist() * len(image.getbands()))
        elif kind is not ImageEnhance.Color or image.mode == "RGB":
            image = kind(image).enhance(factor)
    return image


def _rand_augment(image: PIL.Image.Image, magnitude: int, rng: random.Random) -> PIL.Image.Image:
    try:
        from torchvision.transforms import v2  # type: ignore[import-untyped]  # ships no types
    except ImportError as error:
        raise MissingExtraError("rand_augment needs torchvision: pip install torchvision") from error
    with seeded_generators(rng):  # torchvision draws from torch's
        return v2.RandAugment(num_ops=2, magnitude=magnitude)(image)  # type: ignore[no-any-return]  # torchvision has no types


def erase(x: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Set a random rectangle of a normalised image to 0, the mean, in place (Zhong et al. 2020).

    Args:
        x: The image, ``(channels, height, width)``.
        rng: Source of the random numbers.

    Returns:
        The same tensor. The rectangle has 2 to 33 % of its area; after ten that do not fit, none is set.
    """
    height, width = x.shape[-2:]
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 0.33)
        shape = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < h < height and 0 < w < width:
            top, left = rng.randint(0, height - h), rng.randint(0, width - w)
            x[..., top : top + h, left : left + w] = 0
            return x
    return x


def mix_batch(x: torch.Tensor, y: torch.Tensor, augment: Augment, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix every sample of a batch with another one, by mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019).

    Args:
        x: Images ``(batch, channels, height, width)``.
        y: One-hot or multi-hot targets ``(batch, classes)``, float, or regression targets ``(batch, values)``.
        augment: The augmentation, for the alphas; with both off, ``x`` and ``y`` are returned unchanged.
        rng: Source of the random numbers.

    Returns:
        New images and soft targets of the same shapes; the inputs are not changed.
    """
    methods = [name for name in ("mixup", "cutmix") if getattr(augment, name) > 0]
    if not methods or len(x) < 2:
        return x, y
    method = rng.choice(methods)
    alpha = getattr(augment, method)
    share = rng.betavariate(alpha, alpha)
    order = list(range(len(x)))
    rng.shuffle(order)
    partners = torch.tensor(order, pin_memory=x.is_cuda).to(x.device, non_blocking=True)
    if method == "mixup":
        x = torch.lerp(x[partners], x, share)
    else:
        x, share = _cut(x, partners, share, rng)
    return x, torch.lerp(y[partners], y, share)


def _cut(x: torch.Tensor, partners: torch.Tensor, share: float, rng: random.Random) -> tuple[torch.Tensor, float]:
    """Paste a box of the partner; return the images and the share of the original that is left after clipping the box."""
    height, width = x.shape[-2:]
    h, w = round(height * math.sqrt(1 - share)), round(width * math.sqrt(1 - share))
    row, column = rng.randrange(height), rng.randrange(width)
    top, bottom = max(row - h // 2, 0), min(row - h // 2 + h, height)
    left, right = max(column - w // 2, 0), min(column - w // 2 + w, width)
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = x[partners][..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)

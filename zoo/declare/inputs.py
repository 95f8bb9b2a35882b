"""Inputs of a backbone: images, texts, volumes."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from zoo.declare.faults import check, is_function
from zoo.errors import checked_fields
from zoo.util.numbers import is_finite, is_whole

OVERFLOWS = ("truncate", "error", "windows")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
MAX_PIXELS = 65_535  # of each side of an input
MAX_CHANNELS = 65_535  # of an input
_PIXELS = "height and width as whole numbers of pixels, or one number for a square"
_VOXELS = "depth, height, width as whole numbers of voxels, or one number for a cube"
_SPACING = "three positive millimetres, or one number for all"
_PER_CHANNEL = "a list with a finite number per channel, such as (0.5, 0.5, 0.5)"
_WINDOW = "(centre, width), the width positive"


@checked_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image input: values in [0, 1] after decoding, then ``(x - mean) / std`` per channel.

    Attributes:
        size: Height and width in pixels; one number means a square.
        mean: Mean per channel, of pictures in [0, 1]; its length is the number of channels.
        std: Standard deviation per channel.
        interpolation: Interpolation of the resize.
        crop: Share of the resized image that the evaluation crop keeps, in (0, 1].
        fixed_size: Whether the backbone runs at ``size`` only, unless built with another ``img_size``.
        window: Centre and width of the values of a grey DICOM file that become 0 to 1, after its rescale (Hounsfield units
            for CT); None uses the file's own.
        ready_made: Whether the model was trained on float tensors outside [0, 1], which are its inputs as they are.
        squash: Whether the resize for evaluation gives both edges their size whatever the aspect ratio, as SigLIP was trained, and of
            that ``crop`` cuts out the centre, as DeiT's processor does; else the image is resized to cover the size, and its centre
            is cut out.
    """

    size: int | tuple[int, int] = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"
    crop: float = 1.0
    fixed_size: bool = False
    window: tuple[float, float] | None = None
    ready_made: bool = False
    squash: bool = False

    def __post_init__(self) -> None:
        if odd := _number_faults(self, {"size": (2, _PIXELS), "mean": (1, _PER_CHANNEL), "std": (1, _PER_CHANNEL), "window": (1, _WINDOW)}):
            check("Image", odd)
        faults = [
            (len(self.size) != 2, f"size is {self.size}; give {_PIXELS}"),  # type: ignore[arg-type]  # a tuple now
            (max(self.size) > MAX_PIXELS, f"size is {self.size}; height and width are at most {MAX_PIXELS} pixels"),  # type: ignore[arg-type]
            (min(self.size) < 1, f"size is {self.size}; height and width must be at least 1 pixel"),  # type: ignore[arg-type]
            *_channel_faults(self.mean, self.std),
            (
                len(self.mean) in (1, 3) and not all(0 <= value <= 1 for value in self.mean),
                f"mean is {self.mean}; pixels are in [0, 1], so divide a mean of pixels in [0, 255] by 255, and the std with it",
            ),
            (not (is_finite(self.crop) and 0 < self.crop <= 1), f"crop is {self.crop!r}; it must be in (0, 1]"),
            (self.interpolation not in INTERPOLATIONS, f"interpolation {self.interpolation!r} is none of {INTERPOLATIONS}"),
            (not _is_window(self.window), f"window is {self.window}; give {_WINDOW}"),
        ]
        check("Image", faults)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.size[0]  # type: ignore[index]  # a tuple after __post_init__

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.size[1]  # type: ignore[index]  # a tuple after __post_init__

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(channels, height, width)``."""
        return (self.channels, self.height, self.width)


@checked_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text input: a mapping of int64 tensors ``(batch, tokens)``, ``input_ids`` and ``attention_mask`` among them.

    Attributes:
        max_length: Most tokens of a sample, including special tokens; longer texts are truncated.
        tokenizer: ``"module:function"``; called with ``files``, returns a ``zoo.data.texts.tokenizers.Tokenizer``.
        files: Location of the tokenizer's files: a folder, or ``repo@revision`` on the Hub.
        overflow: What becomes of longer texts: ``truncate``, ``error`` or ``windows`` (overlapping parts, whose outputs are pooled).
        max_positions: Most tokens that the backbone can take, where ``max_length`` is what its publisher advises; 0 if that is the same.
        prompts: Prefixes that the backbone was trained with, by name, such as ``{"query": "query: "}``.
    """

    max_length: int = 512
    tokenizer: str = ""
    files: str = ""
    overflow: str = "truncate"
    max_positions: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        faults = [
            (self.max_length < 1, f"max_length is {self.max_length}; it must be at least 1 token"),
            (self.overflow not in OVERFLOWS, f"overflow {self.overflow!r} is none of {OVERFLOWS}"),
            (0 < self.max_positions < self.max_length, f"max_positions is {self.max_positions}, less than max_length {self.max_length}"),
            (
                bool(self.tokenizer) and not is_function(self.tokenizer),
                f"tokenizer {self.tokenizer!r} is not of the form 'module:function'",
            ),
        ]
        check("Text", faults)

    @property
    def longest(self) -> int:
        """Most tokens that the backbone can take."""
        return max(self.max_length, self.max_positions)

    def with_length(self, max_length: int) -> Text:
        """Return the input with another maximum, of at most ``longest`` tokens."""
        return dataclasses.replace(self, max_length=max_length, max_positions=self.longest if self.longest > max_length else 0)


@checked_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A volume input, its axes left to right, back to front, bottom to top (RAS+); then ``(x - mean) / std`` per channel.

    Attributes:
        size: Depth, height and width in voxels, along these three axes; one number means a cube.
        spacing: Millimetres per voxel that a volume is resampled to; it is then cropped or padded to ``size`` around its
            centre. None resizes the volume to ``size`` instead, whatever its spacing.
        mean: Mean per channel; its length is the number of channels.
        std: Standard deviation per channel.
        window: Centre and width of the values that become 0 to 1; None standardises each volume by its own mean and
            standard deviation.
        fixed_size: Whether the backbone runs at ``size`` only, unless built with another ``img_size``.
    """

    size: int | tuple[int, int, int] = (96, 96, 96)
    spacing: float | tuple[float, float, float] | None = (1.0, 1.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    window: tuple[float, float] | None = None
    fixed_size: bool = False

    def __post_init__(self) -> None:
        given = {
            "size": (3, _VOXELS),
            "spacing": (3, _SPACING),
            "mean": (1, _PER_CHANNEL),
            "std": (1, _PER_CHANNEL),
            "window": (1, _WINDOW),
        }
        if odd := _number_faults(self, given):
            check("Volume", odd)
        size, spacing = self.size, self.spacing or (1.0, 1.0, 1.0)
        faults = [
            (len(size) != 3 or not 1 <= min(size) <= max(size) <= MAX_PIXELS, f"size is {size}; give {_VOXELS}, at most {MAX_PIXELS}"),  # type: ignore[arg-type]  # a tuple now
            (len(spacing) != 3 or min(spacing) <= 0, f"spacing is {self.spacing}; give {_SPACING}"),  # type: ignore[arg-type]
            *_channel_faults(self.mean, self.std),
            (not _is_window(self.window), f"window is {self.window}; give {_WINDOW}"),
        ]
        check("Volume", faults)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(channels, depth, height, width)``."""
        return (self.channels, *self.size)  # type: ignore[misc]  # a tuple after __post_init__


Inputs: TypeAlias = "Image | Text | Volume"


def _number_faults(declared: Any, wanted: Mapping[str, tuple[int, str]]) -> list[tuple[bool, str]]:
    """Make fields tuples of finite numbers, in place, and return the faults of those that cannot be.

    Args:
        declared: A declaration.
        wanted: For each field how often a single number is repeated (1: a single number is a fault), and what to give.
    """
    faults = []
    for name, (repeat, remedy) in wanted.items():
        value = getattr(declared, name)
        if value is None and name in ("window", "spacing"):
            continue
        listed = (value,) * repeat if repeat > 1 and is_finite(value) else value
        of_numbers = hasattr(listed, "__iter__") and all(map(is_whole if name == "size" else is_finite, listed))
        if of_numbers:
            object.__setattr__(declared, name, tuple(one.item() if hasattr(one, "item") else one for one in listed))
        else:
            faults.append((True, f"{name} is {reprlib.repr(value)}; give {remedy}"))
    return faults


def _channel_faults(mean: Sequence[float], std: Sequence[float]) -> list[tuple[bool, str]]:
    return [
        (len(mean) != len(std), f"mean has {len(mean)} channels, std has {len(std)}"),
        (not mean, "mean is empty; give one value per channel"),
        (len(mean) > MAX_CHANNELS, f"mean has {len(mean)} channels; there are at most {MAX_CHANNELS}"),
        (any(value <= 0 for value in std), f"std is {reprlib.repr(std)}; every value must be positive"),
    ]


def _is_window(window: tuple[float, ...] | None) -> bool:
    return window is None or (len(window) == 2 and window[1] > 0)

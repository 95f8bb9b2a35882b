"""Declarations of a plugin: plain data, without live objects and torch.

A declaration can be listed, printed, compared and tested without importing any model library. Functions are named as
``"module:function"`` and imported when they are called.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from zoo.errors import DeclarationError, count, did_you_mean, fault_list
from zoo.util.digest_forms import SHA256_DIGITS, is_hexadecimal, is_sha256
from zoo.util.numbers import is_finite, is_whole

Layers: TypeAlias = "Mapping[str, str | Sequence[str]] | str"
Layout: TypeAlias = Literal["BCHW", "BHWC", "BCDHW", "BND", "BD"]
Pool: TypeAlias = Literal["avg", "max", "token", "last", "none"]

POOLS: dict[str, tuple[str, ...]] = {
    "BCHW": ("avg", "max"),
    "BHWC": ("avg", "max"),
    "BCDHW": ("avg", "max"),
    "BND": ("token", "avg", "max", "last"),
    "BD": ("none",),
}
# Names of weights: in a folder or a repository, the first of these that exists.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
OVERFLOWS = ("truncate", "error", "windows")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "isc", "unlicense"})

_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.@-]+)+")
MAX_PIXELS = 65_535  # of each side of an input
MAX_CHANNELS = 65_535  # of an input
_PIXELS = "height and width as whole numbers of pixels, or one number for a square"
_VOXELS = "depth, height, width as whole numbers of voxels, or one number for a cube"
_SPACING = "three positive millimetres, or one number for all"
_PER_CHANNEL = "a list with a finite number per channel, such as (0.5, 0.5, 0.5)"
_WINDOW = "(centre, width), the width positive"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@lru_cache(maxsize=1024)
def _is_function(reference: str) -> bool:
    """Return whether ``reference`` has the form ``module:function``; cached, as thousands of specs name the same few."""
    return _FUNCTION.fullmatch(reference) is not None


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
    """

    size: int | tuple[int, int] = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"
    crop: float = 1.0
    fixed_size: bool = False
    window: tuple[float, float] | None = None
    ready_made: bool = False

    def __post_init__(self) -> None:
        if odd := _number_faults(self, {"size": (2, _PIXELS), "mean": (1, _PER_CHANNEL), "std": (1, _PER_CHANNEL), "window": (1, _WINDOW)}):
            _check("Image", odd)
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
        _check("Image", faults)

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
                bool(self.tokenizer) and not _is_function(self.tokenizer),
                f"tokenizer {self.tokenizer!r} is not of the form 'module:function'",
            ),
        ]
        _check("Text", faults)

    @property
    def longest(self) -> int:
        """Most tokens that the backbone can take."""
        return max(self.max_length, self.max_positions)

    def with_length(self, max_length: int) -> Text:
        """Return the input with another maximum, of at most ``longest`` tokens."""
        return dataclasses.replace(self, max_length=max_length, max_positions=self.longest if self.longest > max_length else 0)


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
            _check("Volume", odd)
        size, spacing = self.size, self.spacing or (1.0, 1.0, 1.0)
        faults = [
            (len(size) != 3 or not 1 <= min(size) <= max(size) <= MAX_PIXELS, f"size is {size}; give {_VOXELS}, at most {MAX_PIXELS}"),  # type: ignore[arg-type]  # a tuple now
            (len(spacing) != 3 or min(spacing) <= 0, f"spacing is {self.spacing}; give {_SPACING}"),  # type: ignore[arg-type]
            *_channel_faults(self.mean, self.std),
            (not _is_window(self.window), f"window is {self.window}; give {_WINDOW}"),
        ]
        _check("Volume", faults)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(channels, depth, height, width)``."""
        return (self.channels, *self.size)  # type: ignore[misc]  # a tuple after __post_init__


Inputs: TypeAlias = "Image | Text | Volume"


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """The output of a backbone's forward.

    Attributes:
        dim: Number of channels of a feature.
        layout: Order of the axes: B batch, C or final D channels, H W space, D H W a volume, N tokens.
        pool: Default pooling of the head; unset means ``token`` if ``prefix_tokens`` is above 0, ``none`` for ``BD``, else
            ``avg``.
        prefix_tokens: Number of leading tokens that are not patches (class, register); the first is the class token.
    """

    dim: int
    layout: str = "BCHW"
    pool: str = ""
    prefix_tokens: int = 0

    def __post_init__(self) -> None:
        known = POOLS.get(self.layout, ())
        if not self.pool and known:
            object.__setattr__(self, "pool", "avg" if "avg" in known and not self.prefix_tokens else known[0])
        faults = [
            (not is_whole(self.dim) or self.dim < 1, f"dim is {self.dim!r}; it must be a whole number of at least 1"),
            (not known, f"layout {self.layout!r} is none of {tuple(POOLS)}"),
            (bool(known) and self.pool not in known, f"pool {self.pool!r} does not fit layout {self.layout}: {known}"),
            (
                not is_whole(self.prefix_tokens) or self.prefix_tokens < 0,
                f"prefix_tokens is {self.prefix_tokens!r}; it must be a whole number that is not negative",
            ),
        ]
        _check("Features", faults)


def _url_fault(url: str) -> str:
    """Return why a URL cannot be fetched, or an empty string."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        return "is no URL of the form https://HOST/PATH"
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Location of pretrained weights: a Hub repository, a URL, a file of a Python package, or a local file.

    Attributes:
        repo: Hub repository; ``file`` is then a path inside it.
        revision: Commit, tag or branch of the repository.
        package: Importable package that ships ``file``.
        file: Name or path of a safetensors file, or of a checkpoint of ``torch.save``, which is converted once.
        sha256: Digest of the file, as 64 hexadecimal digits; for the index of a sharded model, that of the listing of all its files.
        sha256_prefix: First digits of the digest, at least 8, where the publisher of a ``url`` tells no more of it.
        converted_sha256: Digest of the safetensors made of a checkpoint, in the same form.
        size: Bytes of the file; 0 if unknown.
        license: SPDX identifier in lower case, or ``unknown``.
        url: URL of a file that is not on the Hub: fetched once over https, and compared with the first download ever after.
    """

    repo: str = ""
    revision: str = ""
    package: str = ""
    file: str = WEIGHT_FILES[0]
    sha256: str = ""
    license: str = "unknown"
    url: str = ""
    size: int = 0
    converted_sha256: str = ""
    sha256_prefix: str = ""

    def __post_init__(self) -> None:
        if self.repo and self.file and not (self.package or self.sha256 or self.sha256_prefix or self.url):
            return  # fast path: every listing makes thousands of these
        url_fault = _url_fault(self.url) if self.url else ""
        places = {"repo": self.repo, "package": self.package, "url": self.url}
        given = [f"{name} {value!r}" for name, value in places.items() if value]
        digests = ("sha256", self.sha256), ("converted_sha256", self.converted_sha256)
        prefix = self.sha256_prefix
        faults = [
            (len(given) > 1, f"{' and '.join(given)} are given; there is one place"),
            *(
                (bool(value) and not is_sha256(value), f"{name} {value!r} is not {SHA256_DIGITS} hexadecimal digits")
                for name, value in digests
            ),
            (
                bool(prefix) and not (8 <= len(prefix) <= SHA256_DIGITS and is_hexadecimal(prefix)),
                f"sha256_prefix {prefix!r} is not 8 to {SHA256_DIGITS} hexadecimal digits",
            ),
            (bool(prefix) and not self.url, "sha256_prefix is given without url; give sha256"),
            (
                bool(self.sha256) and not self.sha256.startswith(prefix),
                f"sha256 {self.sha256!r} does not begin with sha256_prefix {prefix!r}",
            ),
            (not self.file, "file is empty"),
            (self.size < 0, f"size is {self.size}; it is a number of bytes, or 0 if unknown"),
            (bool(url_fault), f"url {self.url!r} {url_fault}"),
        ]
        _check("Weights", faults)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSpec:
    """Declaration of a backbone; every transfer technique uses its ordered layer groups.

    Attributes:
        name: ``source/name``.
        build: ``"module:function"``; called with ``options``, returns an ``nn.Module`` whose forward gives ``features``.
            A builder that can take another number of input channels has a parameter ``in_chans``.
        layers: Layer groups in forward order (see docs/layers.md), or ``"module:function"`` that maps a built module to
            such a mapping.
        inputs: Input of the backbone.
        features: Output of its forward.
        weights: Pretrained weights, or None.
        options: Keyword arguments of ``build``.
        convert: ``"module:function"`` that maps ``(state_dict, module)`` to the module's own keys, or empty.
        resize: ``"module:function"`` that maps ``(state_dict, before, module)``, the tensors of a saved model and the module that they come
            from, built without values, to a module with other options, such as another image size; or empty.
        home: ``"module:function"`` that returns the file layout in which its home library opens a fine-tuned model.
        parameters: Number of parameters of the backbone without its head.
        macs: Multiply-accumulates of one forward at the declared size, in 10^9.
        metrics: Published metrics, such as ``{"imagenet-top1": 80.1}`` in percent.
        description: One sentence.
        base: Backbone that this one was derived or fine-tuned from.
    """

    name: str
    build: str
    layers: Layers
    inputs: Inputs
    features: Features
    weights: Weights | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    convert: str = ""
    resize: str = ""
    home: str = ""
    parameters: int = 0
    macs: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    base: str = ""

    def __post_init__(self) -> None:
        layers = _is_function(self.layers) if isinstance(self.layers, str) else bool(self.layers)
        optional = all(not name or _is_function(name) for name in (self.convert, self.resize, self.home))
        if not (layers and optional and _is_function(self.build) and _NAME.fullmatch(self.name)):
            self._raise_faults()

    def _raise_faults(self) -> None:
        functions = {"build": self.build, "convert": self.convert, "resize": self.resize, "home": self.home}
        if isinstance(self.layers, str):
            functions["layers"] = self.layers
        faults = [
            (not _NAME.fullmatch(self.name), f"name {self.name!r} is not of the form 'source/name'"),
            (not self.layers, "layers is empty"),
        ]
        faults += [
            (not _FUNCTION.fullmatch(value), f"{key} {value!r} is not of the form 'module:function'")
            for key, value in functions.items()
            if value or key == "build"
        ]
        _check(f"backbone {self.name!r}", faults)

    @property
    def source(self) -> str:
        """The part of the name before the first slash."""
        return self.name.partition("/")[0]

    @property
    def modality(self) -> str:
        """``image``, ``text`` or ``volume``."""
        return type(self.inputs).__name__.lower()

    @property
    def license(self) -> str:
        """Licence of the weights, or ``unknown``."""
        return self.weights.license if self.weights else "unknown"

    def replace(self, **changes: Any) -> BackboneSpec:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with ``modality`` and ``license`` added."""
        return dataclasses.asdict(self) | {"modality": self.modality, "license": self.license}


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSpec:
    """Declaration of a task head.

    Attributes:
        name: Name for ``adapt(head=…)``.
        build: ``"module:function"``; called with ``(features, num_classes, **options)``, returns an ``nn.Module`` that
            maps a backbone's features to logits ``(batch, num_classes)``.
        description: One sentence.
        per_token: Whether it returns logits ``(batch, tokens, num_classes)``, for token classification.
    """

    name: str
    build: str
    description: str = ""
    per_token: bool = False

    def __post_init__(self) -> None:
        faults = [
            (not self.name, "name is empty"),
            (not _FUNCTION.fullmatch(self.build), f"build {self.build!r} is not of the form 'module:function'"),
        ]
        _check(f"head {self.name!r}", faults)


def from_fields(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Build a declaration from plain data.

    Raises:
        DeclarationError: If a key is unknown, with the nearest known one, or a value is wrong; prefixed by ``where``.
    """
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [f"{key!r}{did_you_mean(key, known)}" for key in values if key not in known]
    if unknown:
        raise DeclarationError(f"{where}: {kind.__name__} has no field {', '.join(unknown)}; it has: {', '.join(known)}")
    try:
        return kind(**values)
    except (TypeError, DeclarationError) as error:
        raise DeclarationError(f"{where}: {error}") from error


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
            object.__setattr__(declared, name, tuple(listed))
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


def _check(what: str, faults: Sequence[tuple[bool, str]]) -> None:
    messages = [message for wrong, message in faults if wrong]
    if messages:
        raise DeclarationError(fault_list(f"the declaration of {what} has {count(len(messages), 'fault')}", messages))

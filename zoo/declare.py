"""Declarations of a plugin: plain data, without live objects and torch.

A declaration can be listed, printed, compared and tested without importing any model library. Functions are named as
``"module:function"`` and imported when they are called.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from zoo.errors import DeclarationError, did_you_mean, fault_list
from zoo.util.digest_forms import SHA256_DIGITS, is_hexadecimal, is_sha256

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
MAX_PIXELS = 65_535  # of the height and the width of an input
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
        mean: Mean per channel, in [0, 1]; its length is the number of channels.
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
        if isinstance(self.size, int):
            object.__setattr__(self, "size", (self.size, self.size))
        object.__setattr__(self, "window", tuple(self.window) if self.window else None)
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if odd := [name for name in ("size", "mean", "std") if not all(isinstance(value, int | float) for value in getattr(self, name))]:
            raise DeclarationError(f"Image: {', '.join(odd)} must be numbers")
        faults = [
            (max(self.height, self.width) > MAX_PIXELS, f"size is {self.size}; height and width are at most {MAX_PIXELS} pixels"),
            (min(self.height, self.width) < 1, f"size is {self.size}; height and width must be at least 1 pixel"),
            (len(self.mean) != len(self.std), f"mean has {len(self.mean)} channels, std has {len(self.std)}"),
            (not self.mean, "mean is empty; give one value per channel"),
            (any(value <= 0 for value in self.std), f"std is {self.std}; every value must be positive"),
            (not 0 < self.crop <= 1, f"crop is {self.crop}; it must be in (0, 1]"),
            (self.interpolation not in INTERPOLATIONS, f"interpolation {self.interpolation!r} is none of {INTERPOLATIONS}"),
            (not _is_window(self.window), f"window is {self.window}; give (centre, width), the width positive"),
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
        for name in ("size", "spacing"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) * 3 if isinstance(value, int | float) else value and tuple(value))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "window", tuple(self.window) if self.window else None)
        spacing = self.spacing or (1.0, 1.0, 1.0)
        faults = [
            (len(self.size) != 3 or min(self.size) < 1, f"size is {self.size}; give depth, height, width in voxels"),  # type: ignore[arg-type]  # a tuple now
            (len(spacing) != 3 or min(spacing) <= 0, f"spacing is {self.spacing}; give three positive millimetres"),  # type: ignore[arg-type]
            (len(self.mean) != len(self.std), f"mean has {len(self.mean)} channels, std has {len(self.std)}"),
            (not self.mean, "mean is empty; give one value per channel"),
            (any(value <= 0 for value in self.std), f"std is {self.std}; every value must be positive"),
            (not _is_window(self.window), f"window is {self.window}; give (centre, width), the width positive"),
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
        prefix_tokens: Number of leading tokens that are no patches (class, register); the first is the class token.
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
            (self.dim < 1, f"dim is {self.dim}; it must be at least 1"),
            (not known, f"layout {self.layout!r} is none of {tuple(POOLS)}"),
            (bool(known) and self.pool not in known, f"pool {self.pool!r} does not fit layout {self.layout}: {known}"),
            (self.prefix_tokens < 0, f"prefix_tokens is {self.prefix_tokens}; it cannot be negative"),
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


def _is_window(window: tuple[float, ...] | None) -> bool:
    return window is None or (len(window) == 2 and window[1] > 0)


def _check(what: str, faults: Sequence[tuple[bool, str]]) -> None:
    messages = [message for wrong, message in faults if wrong]
    if messages:
        raise DeclarationError(fault_list(f"the declaration of {what} has {len(messages)} fault(s)", messages))

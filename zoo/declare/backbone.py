"""Backbones, their features, and heads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from zoo.declare.faults import FUNCTION, check, is_function
from zoo.declare.inputs import Inputs
from zoo.declare.weights import Weights
from zoo.errors import DeclarationError, did_you_mean
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
PAIR_LOSSES = ("softmax", "sigmoid")
_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.@-]+)+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """The output of a backbone's forward.

    Attributes:
        dim: Number of channels of a feature.
        layout: Order of the axes: B batch, C or final D channels, H W space, D H W a volume, N tokens.
        pool: Default pooling of the head; unset means ``token`` if ``prefix_tokens`` is above 0, ``none`` for ``BD``, else
            ``avg``.
        prefix_tokens: Number of leading tokens that are not patches (class, register); the first is the class token.
        normalize: Whether the vector that the declared pooling gives is scaled to length 1, as sentence encoders are published.
    """

    dim: int
    layout: str = "BCHW"
    pool: str = ""
    prefix_tokens: int = 0
    normalize: bool = False

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
            (not isinstance(self.normalize, bool), f"normalize is {self.normalize!r}; it must be True or False"),
        ]
        check("Features", faults)


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
        pair: The text tower, where this is the image tower of a dual encoder such as CLIP; else None.
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
    pair: Pair | None = None

    def __post_init__(self) -> None:
        layers = is_function(self.layers) if isinstance(self.layers, str) else bool(self.layers)
        optional = all(not name or is_function(name) for name in (self.convert, self.resize, self.home))
        if not (layers and optional and is_function(self.build) and _NAME.fullmatch(self.name)):
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
            (not FUNCTION.fullmatch(value), f"{key} {value!r} is not of the form 'module:function'")
            for key, value in functions.items()
            if value or key == "build"
        ]
        check(f"backbone {self.name!r}", faults)

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
class Pair:
    """The text tower of a dual encoder, and how the image tower gives embeddings in the same space (Radford et al. 2021).

    Both towers are backbones of their own with their own layer groups, and are read from the same weights file.

    Attributes:
        text: Declaration of the text tower, whose features are the embeddings ``(batch, dim)``; without weights.
        options: Build options with which the image tower gives embeddings.
        features: Its features then.
        scale: Factor on the cosines of two embeddings where there are no weights.
        bias: What is added to them then.
        scale_tensor: Tensor of the weights file with the natural logarithm of the factor.
        bias_tensor: Tensor with the addend; empty where the model has none.
        loss: Loss of its pretraining: ``softmax`` over a batch (CLIP), or ``sigmoid`` of each pair (SigLIP, Zhai et al. 2023).
    """

    text: BackboneSpec
    features: Features
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1 / 0.07
    bias: float = 0.0
    scale_tensor: str = "logit_scale"
    bias_tensor: str = ""
    loss: str = "softmax"

    def __post_init__(self) -> None:
        faults = [
            (self.text.modality != "text", f"text is {self.text.name!r}, which reads {self.text.modality}s"),
            (self.text.features.layout != "BD", f"the features of {self.text.name!r} have the layout {self.text.features.layout}, not BD"),
            (
                self.features.layout != "BD" or self.features.dim != self.text.features.dim,
                f"features are {self.features.layout} of {self.features.dim}, and those of the text BD of {self.text.features.dim}",
            ),
            (not (is_finite(self.scale) and self.scale > 0), f"scale is {self.scale!r}; it must be above 0"),
            (self.loss not in PAIR_LOSSES, f"loss {self.loss!r} is none of {', '.join(PAIR_LOSSES)}"),
        ]
        check("Pair", faults)


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
            (not FUNCTION.fullmatch(self.build), f"build {self.build!r} is not of the form 'module:function'"),
        ]
        check(f"head {self.name!r}", faults)


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

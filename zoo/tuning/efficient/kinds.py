"""Kinds of parameter-efficient updates that PEFT computes and that merge into the weights: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

RANKED = frozenset({"rank", "alpha"})


@dataclass(frozen=True)
class Lora:
    """The LoRA of a model, or an update of a related kind.

    Attributes:
        targets: Dotted names of the layers in the backbone, in forward order.
        rank: Rank of the update of each.
        alpha: Numerator of its scale ``alpha / rank``.
        dropout: Dropout rate of the inputs of the update in training.
        kind: One of ``KINDS``; kinds without rank or dropout ignore them.
    """

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    kind: str = "lora"


@dataclass(frozen=True)
class Kind:
    """A kind of update.

    Attributes:
        title: Its name in messages.
        config: PEFT's class of its configuration.
        mark: Start of the names of its parameters in a layer.
        start: Initial values, by the names of the parameters whose change shows that a layer has learned.
        options: Those of rank, alpha and dropout that it has.
        layers: Layers that it has a form for.
        fields: Further fields of the configuration.
        alpha: The configuration's name of alpha.
    """

    title: str
    config: str
    mark: str
    start: Mapping[str, float]
    options: frozenset[str]
    layers: tuple[type[nn.Module], ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    alpha: str = "alpha"

    def settings(self, lora: Lora) -> dict[str, Any]:
        """Return the fields of PEFT's configuration, without the targets."""
        given = {"r": lora.rank, self.alpha: lora.alpha} if "rank" in self.options else {}
        return given | ({"lora_dropout": lora.dropout, "bias": "none"} if "dropout" in self.options else {}) | dict(self.fields)


_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d)
_LORA = {
    "config": "LoraConfig",
    "mark": "lora_",
    "start": {"lora_B": 0.0},
    "options": RANKED | {"dropout"},
    "layers": (*_PLAIN, nn.Conv3d),
    "alpha": "lora_alpha",
}
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "lora": Kind("LoRA", **_LORA),  # type: ignore[arg-type]  # a dict of mixed values; Hu et al. 2022
        "dora": Kind("DoRA", **_LORA, fields={"use_dora": True}),  # type: ignore[arg-type]  # as above; Liu et al. 2024
        "loha": Kind("LoHa", "LoHaConfig", "hada_", {"hada_w2_b": 0.0}, RANKED, _PLAIN),  # Hyeon-Woo et al. 2022
        # Its first factor is whole, or a product whose left matrix starts at zero (Yeh et al. 2024).
        "lokr": Kind("LoKr", "LoKrConfig", "lokr_", {"lokr_w1": 0.0, "lokr_w1_a": 0.0}, RANKED, _PLAIN),
        # Scales of the outputs of every target (Liu et al. 2022, where the targets are keys, values and one layer of each MLP).
        "ia3": Kind(
            "(IA)^3", "IA3Config", "ia3_", {"ia3_l": 1.0}, frozenset(), (nn.Linear, nn.Conv2d, nn.Conv3d), {"feedforward_modules": []}
        ),
    }
)
MARKS = tuple(dict.fromkeys(f".{kind.mark}" for kind in KINDS.values()))


def is_update(name: str) -> bool:
    """Return whether a dotted name is of a parameter of an update of any kind."""
    return any(mark in f".{name}" for mark in MARKS)


def is_scale(name: str) -> bool:
    """Return whether a dotted name is of factors or norms of outputs, which weight decay would pull to zero instead of to the start."""
    return any(mark in f".{name}" for mark in (".ia3_", ".lora_magnitude_vector"))


def takes_layer(kind: str, layer: nn.Module, *, transposed: bool = False) -> bool:
    """Return whether a kind has a form for a layer.

    Args:
        kind: One of ``KINDS``.
        layer: The layer.
        transposed: Whether it is the transposed linear layer of transformers.
    """
    return kind in ("lora", "dora", "ia3") if transposed else isinstance(layer, KINDS[kind].layers)

"""Kinds of parameter-efficient updates: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from torch import nn

from zoo.tuning.blocks import NORMS
from zoo.tuning.efficient.adapters import AFTER, BESIDE
from zoo.tuning.efficient.additions import Addition
from zoo.tuning.efficient.prompts import DEEP, SHALLOW
from zoo.tuning.efficient.rank_budget import RankBudget, first_rank
from zoo.tuning.efficient.ssf import attach_ssf

RANKED = frozenset({"rank", "alpha"})


@dataclass(frozen=True)
class Lora:
    """The LoRA of a model, or an update of a related kind.

    Attributes:
        targets: Dotted names of the layers in the backbone, in forward order; of blocks for kinds that do not merge.
        rank: Rank of the update of each, with ``adalora`` on average at the end.
        alpha: Numerator of its scale ``alpha / rank``.
        dropout: Dropout rate of the inputs of the update in training.
        kind: One of ``KINDS``; kinds without one of the other options ignore it.
        width: Channels between the two matrices of a bottleneck adapter.
        tokens: Learned tokens of a prompt.
    """

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    kind: str = "lora"
    width: int = 16
    tokens: int = 8


class Updated(Protocol):
    """The part of ``TaskModel`` that an update is known from."""

    backbone: nn.Module
    trains: str
    lora: Lora | None


def _plain_rank(rank: int) -> dict[str, int]:
    return {"r": rank}


def _shrinking_rank(rank: int) -> dict[str, int]:
    # ``RankBudget`` has the schedule; PEFT's class refuses a total of no steps.
    return {"target_r": rank, "init_r": first_rank(rank), "total_step": 1}


@dataclass(frozen=True)
class Kind:
    """A kind of update.

    Attributes:
        title: Its name in messages.
        config: PEFT's class of its configuration; empty for zoo's own kinds.
        mark: Start of the names of its parameters in a layer.
        start: Initial values, by the names of the parameters whose change shows that a layer has learned.
        options: Those of ``Lora`` that it has.
        layers: Layers that it has a form for.
        fields: Further fields of the configuration.
        alpha: The configuration's name of alpha.
        rank: Returns the configuration's fields of a rank.
        low_rank: Whether layers whose product with low-rank factors is not defined, such as grouped convolutions, take none.
        attach: Puts an own kind at layers, in place, by their names.
        addition: The blocks and modules of a kind that stays beside the weights, as it cannot be merged.
        budget: Makes what is called at each optimizer step.
    """

    title: str
    config: str
    mark: str
    start: Mapping[str, float]
    options: frozenset[str]
    layers: tuple[type[nn.Module], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    alpha: str = "alpha"
    rank: Callable[[int], Mapping[str, int]] = _plain_rank
    low_rank: bool = True
    attach: Callable[[nn.Module, tuple[str, ...]], None] | None = None
    addition: Addition | None = None
    budget: Callable[..., RankBudget] | None = None

    @property
    def merges(self) -> bool:
        """Whether it can be merged into the weights."""
        return self.addition is None

    def settings(self, lora: Lora) -> dict[str, Any]:
        """Return the fields of PEFT's configuration, without the targets."""
        given = {**self.rank(lora.rank), self.alpha: lora.alpha} if "rank" in self.options else {}
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
_ADALORA = _LORA | {"config": "AdaLoraConfig", "start": {}, "layers": (nn.Linear, nn.Conv2d), "rank": _shrinking_rank, "budget": RankBudget}
_WIDE, _LONG = frozenset({"width"}), frozenset({"tokens"})
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "lora": Kind("LoRA", **_LORA),  # type: ignore[arg-type]  # a dict of mixed values; Hu et al. 2022
        "dora": Kind("DoRA", **_LORA, fields={"use_dora": True}),  # type: ignore[arg-type]  # as above; Liu et al. 2024
        "loha": Kind("LoHa", "LoHaConfig", "hada_", {"hada_w2_b": 0.0}, RANKED, _PLAIN),  # Hyeon-Woo et al. 2022
        # Its first factor is whole, or a product whose left matrix starts at zero (Yeh et al. 2024).
        "lokr": Kind("LoKr", "LoKrConfig", "lokr_", {"lokr_w1": 0.0, "lokr_w1_a": 0.0}, RANKED, _PLAIN),
        "adalora": Kind("AdaLoRA", **_ADALORA),  # type: ignore[arg-type]  # as above; Zhang et al. 2023
        # Scales of the outputs of every target (Liu et al. 2022, where the targets are keys, values and one layer of each MLP).
        "ia3": Kind(
            "(IA)^3", "IA3Config", "ia3_", {"ia3_l": 1.0}, frozenset(), (nn.Linear, nn.Conv2d, nn.Conv3d), {"feedforward_modules": []}
        ),
        "ssf": Kind(  # Lian et al. 2022
            "SSF",
            "",
            "ssf_",
            {"ssf_scale": 1.0, "ssf_shift": 0.0},
            frozenset(),
            (*_PLAIN, nn.Conv3d, *NORMS),
            low_rank=False,
            attach=attach_ssf,
        ),
        "adapter": Kind("bottleneck adapters", "", "zoo_adapter", {}, _WIDE, addition=AFTER),  # Houlsby et al. 2019
        "adaptformer": Kind("AdaptFormer", "", "zoo_adapter", {}, _WIDE, addition=BESIDE),  # Chen et al. 2022
        "prompt": Kind("prompt tokens", "", "zoo_prompt", {}, _LONG, addition=SHALLOW),  # Lester et al. 2021, Jia et al. 2022
        "prefix": Kind("prefix tokens", "", "zoo_prompt", {}, _LONG, addition=DEEP),  # Li and Liang 2021, Jia et al. 2022
    }
)
RANK_COUNT = ".ranknum."  # of AdaLoRA: the rank at the start, a constant that PEFT keeps as a parameter
MARKS = (*dict.fromkeys(f".{kind.mark}" for kind in KINDS.values()), RANK_COUNT)


def is_update(name: str) -> bool:
    """Return whether a dotted name is of a parameter of an update of any kind."""
    return any(mark in f".{name}" for mark in MARKS)


def is_scale(name: str) -> bool:
    """Return whether a dotted name is of factors or norms of outputs, which weight decay would pull to zero instead of to the start."""
    return any(mark in f".{name}" for mark in (".ia3_", ".lora_magnitude_vector", ".ssf_"))


def takes_layer(kind: str, layer: nn.Module, *, transposed: bool = False) -> bool:
    """Return whether a kind has a form for a layer.

    Args:
        kind: One of ``KINDS``.
        layer: The layer.
        transposed: Whether it is the transposed linear layer of transformers.
    """
    return kind in ("lora", "dora", "ia3", "adalora", "ssf") if transposed else isinstance(layer, KINDS[kind].layers)

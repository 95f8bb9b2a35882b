"""Low-rank adaptation (LoRA, Hu et al. 2022) through PEFT: which layers, attaching, and merging."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from zoo.errors import LayerGroupError, MissingExtraError, OptionError, examples, fault_list
from zoo.layers import LayerGroups
from zoo.tuning.targets import lora_targets

log = logging.getLogger("zoo")


@dataclass(frozen=True)
class Lora:
    """What is attached to a model.

    Attributes:
        targets: Dotted names of the layers in the backbone, in forward order.
        rank: Rank of the update of each.
        alpha: Numerator of its scale ``alpha / rank``.
        dropout: Rate at which what enters the update is dropped in training.
    """

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0


class Adapted(Protocol):
    """What is asked of a ``TaskModel`` here."""

    backbone: nn.Module
    groups: LayerGroups
    frozen: int
    trains: str
    lora: Lora | None

    def freeze(self, upto: int | str) -> Any:
        """Freeze the groups from the input on."""


def attach_lora(
    model: Adapted, groups: LayerGroups, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, seed: int = 0
) -> list[str]:
    """Attach LoRA to every layer of some groups that can take it, in place, and let nothing else of the backbone train.

    A layer keeps its values and its place; beside it a pair of matrices of ``rank`` learns the update. The second starts as
    zeros, so the model's outputs are the same until the first step. A linear layer that gives query, key and value at once
    is one target, with one update of its whole output.

    Args:
        model: A ``TaskModel``; its ``trains`` becomes ``lora``.
        groups: The groups to adapt, such as ``model.groups[4:]``.
        rank: Rank of the updates, 1 or more.
        alpha: Numerator of their scale ``alpha / rank``.
        dropout: Rate at which their inputs are dropped in training, in [0, 1).
        seed: Seed of their initial values; torch's own random state is left as it was.

    Returns:
        The dotted names in the backbone of the layers that were chosen, in forward order.

    Raises:
        LayerGroupError: If no layer of the groups can take LoRA, or none of those that are not frozen.
        OptionError: If an option is out of range, or the model has LoRA already.
        MissingExtraError: If PEFT is not installed.
    """
    _check(model, rank, alpha, dropout)
    names = lora_targets(groups)
    attach_to(model, Lora(tuple(names), rank, alpha, dropout), seed=seed)
    return names


def attach_to(model: Adapted, lora: Lora, *, seed: int = 0) -> None:
    """Attach LoRA to the layers that ``lora`` names, in place; see ``attach_lora``."""
    root = torch.nn.ModuleDict({"backbone": model.backbone})  # names as in the TaskModel, and the head out of reach
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Says that it treats the transposed linear layers of transformers as such.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out")
        peft = import_peft()
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(lora_config(lora, exact=_ambiguous(root, lora.targets)), root)
    attached = [name for name, _ in lora_layers(model.backbone)]
    assert sorted(attached) == sorted(lora.targets), f"PEFT chose other layers: {sorted({*attached} ^ {*lora.targets})[:4]}"
    model.lora, model.trains = lora, "lora"
    model.freeze(model.frozen)


def merge_lora(model: Adapted) -> None:
    """Add what LoRA learned to the weights and bring the plain layers back, in place; everything may train again.

    The logits stay as they were in eval mode, up to rounding. The base weights are gone afterwards; save LoRA before, where
    it is wanted by itself.

    Raises:
        LayerGroupError: If the model has no LoRA.
        OptionError: If a merged weight would not be finite.
    """
    layers = dict(lora_layers(model.backbone))
    if not layers:
        raise LayerGroupError("the model has no LoRA to merge; attach it first")
    if unmoved := untrained(model.backbone):
        log.warning("LoRA learned nothing at %d of %d layers (%s): they got no gradient", len(unmoved), len(layers), examples(unmoved))
    for name, layer in layers.items():
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise OptionError(f"LoRA at {name!r} cannot be merged: its weights are not finite; train with a lower lr") from error
    for name, layer in layers.items():
        parent, _, last = name.rpartition(".")
        plain = layer.get_base_layer()
        plain.train(layer.training)
        setattr(model.backbone.get_submodule(parent), last, plain)
    model.lora, model.trains = None, "all"
    model.freeze(model.frozen)


def lora_layers(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers that have LoRA with their dotted names in the backbone."""
    for name, module in backbone.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            yield name, module  # told by its parts, without importing PEFT


def untrained(backbone: nn.Module) -> list[str]:
    """Return the names of the layers whose LoRA is still as it was attached."""
    return [name for name, layer in lora_layers(backbone) if not any(bool(part.weight.any()) for part in layer.lora_B.values())]


def lora_config(lora: Lora, *, exact: bool = False, **options: Any) -> Any:
    """Return PEFT's configuration.

    Args:
        lora: What is attached.
        exact: Whether names must match from the start; by default PEFT also takes a name for the end of a longer one.
        **options: Further fields.
    """
    names = [f"backbone.{name}" for name in lora.targets]
    targets = "|".join(name.replace(".", r"\.") for name in names) if exact else names
    return import_peft().LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, bias="none", **options
    )


def import_peft() -> Any:
    """Return PEFT.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("LoRA needs the package peft: pip install peft, or 'zoo[lora]'") from error
    return peft


def _ambiguous(root: nn.Module, targets: Sequence[str]) -> bool:
    """Tell whether a target's name is also the end of another module's, which PEFT would take as well."""
    ends = tuple(f".backbone.{name}" for name in targets)
    return any(name.endswith(ends) for name, _ in root.named_modules())


def _check(model: Adapted, rank: int, alpha: float, dropout: float) -> None:
    faults = []
    if rank < 1:
        faults.append(f"rank={rank}: it is 1 or more")
    if not alpha > 0:
        faults.append(f"alpha={alpha}: it is above 0")
    if not 0 <= dropout < 1:
        faults.append(f"dropout={dropout}: it is at least 0 and below 1")
    if model.lora:
        faults.append("the model has LoRA already; merge it first: zoo.tuning.merge_lora(model)")
    if faults:
        raise OptionError(fault_list("LoRA cannot be attached:", faults))

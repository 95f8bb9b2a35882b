"""Low-rank adaptation (LoRA, Hu et al. 2022) through PEFT: which layers, attaching, and merging."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from zoo.errors import LayerGroupError, MissingExtraError, OptionError, TrainingError, count, examples, fault_list
from zoo.models.layers import LayerGroups
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


class LoraModel(Protocol):
    """What is asked of a ``TaskModel`` here."""

    backbone: nn.Module
    groups: LayerGroups
    frozen: int
    trains: str
    lora: Lora | None

    def freeze(self, upto: int | str) -> Any:
        """Freeze the groups from the input on."""


def attach_lora(
    model: LoraModel, groups: LayerGroups, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, seed: int = 0
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


def attach_to(model: LoraModel, lora: Lora, *, seed: int = 0) -> None:
    """Attach LoRA to the layers that ``lora`` names, in place; see ``attach_lora``."""
    peft = import_peft()
    root = nn.ModuleDict({"backbone": model.backbone})  # names as in the TaskModel, and the head out of reach
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Says that it treats the transposed linear layers of transformers as such.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out")
        torch.default_generator.manual_seed(seed)
        peft.inject_adapter_in_model(lora_config(model, lora), root)
    attached = dict(lora_layers(model.backbone))
    for layer in attached.values():
        _set_constants(layer)
    assert sorted(attached) == sorted(lora.targets), f"PEFT chose other layers: {sorted({*attached} ^ {*lora.targets})[:4]}"
    model.lora, model.trains = lora, "lora"
    try:
        model.freeze(model.frozen)
    except LayerGroupError:
        detach_lora(model)
        raise


def merge_lora(model: LoraModel) -> None:
    """Add what LoRA learned to the weights and bring the plain layers back, in place; everything may train again.

    The logits stay as they were in eval mode, up to rounding. The base weights are gone afterwards; save LoRA before, where
    it is wanted by itself.

    Raises:
        LayerGroupError: If the model has no LoRA.
        TrainingError: If a value of it is not finite.
    """
    if unmoved := untrained(model.backbone):
        why = "no gradient came there, or the epoch that was kept is from before it trained"
        log.warning("LoRA learned nothing at %s (%s): %s", count(len(unmoved), "layer"), examples(unmoved), why)
    fold_lora(model)


def fold_lora(model: LoraModel) -> None:
    """Merge without a word about what learned nothing; see ``merge_lora``."""
    layers = dict(lora_layers(model.backbone))
    if not layers:
        raise LayerGroupError("the model has no LoRA to merge; attach it first: zoo.tuning.attach_lora(model, model.groups)")
    odd = [name for name, layer in layers.items() if not all(bool(p.isfinite().all()) for p in layer.parameters())]
    if odd:
        raise TrainingError(f"LoRA cannot be merged at {examples(odd)}: its values are not finite; train with a lower lr")
    for layer in layers.values():
        layer.merge(safe_merge=True)
    detach_lora(model)


def detach_lora(model: LoraModel) -> None:
    """Take LoRA away with all it learned, in place, and bring the plain layers back; everything may train again.

    A model without LoRA stays as it is.
    """
    for name, layer in dict(lora_layers(model.backbone)).items():
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


def _set_constants(layer: Any) -> None:
    """Let a layer with LoRA tell its sizes as the plain one does: some networks (DaViT) compute a padding from them."""
    plain = layer.get_base_layer()
    for name in getattr(plain, "__constants__", ()):
        if hasattr(plain, name) and not hasattr(layer, name):
            setattr(layer, name, getattr(plain, name))


def lora_config(model: LoraModel, lora: Lora, **fields: Any) -> Any:
    """Return PEFT's configuration of ``lora`` at a model, with further fields."""
    names = [f"backbone.{name}" for name in lora.targets]
    ends = tuple(f".backbone.{name}" for name in lora.targets)
    # PEFT takes a name also for the end of a longer one; a pattern it takes for the whole.
    longer = any(f"backbone.{name}".endswith(ends) for name, _ in model.backbone.named_modules())
    targets = "|".join(name.replace(".", r"\.") for name in names) if longer else names
    settings = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "bias": "none"}
    return import_peft().LoraConfig(target_modules=targets, **settings, **fields)


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


def _check(model: LoraModel, rank: int, alpha: float, dropout: float) -> None:
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

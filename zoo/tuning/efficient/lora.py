"""Low-rank adaptation (LoRA, Hu et al. 2022) and other parameter-efficient updates: attach, merge, detach."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from zoo.declare import Inputs
from zoo.errors import LayerGroupError, OptionError, TrainingError, count, did_you_mean, examples, fault_list
from zoo.models.layers import LayerGroups
from zoo.tuning.efficient.additions import extended, remove_additions
from zoo.tuning.efficient.kinds import KINDS, Lora
from zoo.tuning.efficient.targets import lora_targets
from zoo.util.extras import require_extra

log = logging.getLogger("zoo")


class LoraModel(Protocol):
    """The part of ``TaskModel`` that LoRA uses."""

    backbone: nn.Module
    groups: LayerGroups
    inputs: Inputs
    frozen: int
    trains: str
    lora: Lora | None

    def freeze(self, upto: int | str) -> Any:
        """Freeze a prefix of the groups."""


def attach_lora(
    model: LoraModel,
    groups: LayerGroups,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    kind: str = "lora",
    width: int = 16,
    tokens: int = 8,
    seed: int = 0,
) -> list[str]:
    """Attach LoRA or its kin to every suitable layer of some groups, in place; nothing else of the backbone then trains.

    A layer keeps its values and its name; a pair of matrices of ``rank`` learns its update. The second starts at zero, so the
    model's outputs do not change before the first step. A fused linear layer of query, key and value is one target. Adapters and
    learned tokens stand beside blocks instead of layers, and cannot be merged; learned tokens change the outputs at once.

    Args:
        model: A ``TaskModel``; its ``trains`` becomes ``kind``.
        groups: The groups to adapt, such as ``model.groups[4:]``.
        rank: Rank of the updates, 1 or more.
        alpha: Numerator of their scale ``alpha / rank``.
        dropout: Dropout rate of their inputs in training, in [0, 1).
        kind: ``lora``, ``dora`` (Liu et al. 2024), ``loha`` (Hyeon-Woo et al. 2022), ``lokr`` (Yeh et al. 2024), ``adalora`` (Zhang et
            al. 2023), ``ia3`` (Liu et al. 2022), ``ssf`` (Lian et al. 2022), ``adapter`` (Houlsby et al. 2019), ``adaptformer`` (Chen et
            al. 2022), ``prompt`` (Lester et al. 2021) or ``prefix`` (Li and Liang 2021). ``loha`` and ``lokr`` have no dropout, those
            from ``ia3`` on neither rank, alpha nor dropout.
        width: Channels in the middle of an ``adapter`` or ``adaptformer``, 1 or more.
        tokens: Tokens of a ``prompt`` or ``prefix``, 1 or more.
        seed: Seed of their initial values; torch's random state is not changed.

    Returns:
        Dotted names of the chosen layers or blocks in the backbone, in forward order.

    Raises:
        LayerGroupError: If no layer of the groups that are not frozen can take it.
        OptionError: If an option is out of range, or the model has LoRA already.
        MissingExtraError: If PEFT is not installed.
    """
    lora = Lora((), rank, alpha, dropout, kind, width, tokens)
    _check(model, lora)
    addition = KINDS[kind].addition
    names = lora_targets(groups, kind) if addition is None else addition.find(groups, model.inputs)
    attach_to(model, replace(lora, targets=tuple(names)), seed=seed)
    return names


def attach_to(model: LoraModel, lora: Lora, *, seed: int = 0) -> None:
    """Attach LoRA to the layers that ``lora`` names, in place; see ``attach_lora``."""
    kind = KINDS[lora.kind]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if kind.addition is not None:
            kind.addition.attach(model.backbone, lora.targets, model.inputs, getattr(lora, kind.addition.size))
        elif kind.attach is not None:
            kind.attach(model.backbone, lora.targets)
        else:
            _inject(model, lora)
    attached = dict(lora_layers(model.backbone))
    for layer in attached.values():
        _set_constants(layer)
    names = [*attached, *(name for name, _ in extended(model.backbone))]
    assert sorted(names) == sorted(lora.targets), f"it is at other layers: {sorted({*names} ^ {*lora.targets})[:4]}"
    model.lora, model.trains = lora, lora.kind
    try:
        model.freeze(model.frozen)
    except LayerGroupError:
        detach_lora(model)
        raise


def _inject(model: LoraModel, lora: Lora) -> None:
    """Replace layers by PEFT's, in place."""
    peft = import_peft()
    root = nn.ModuleDict({"backbone": model.backbone})  # names as in the TaskModel, without the head
    with warnings.catch_warnings():
        # PEFT warns that it handles the transposed linear layers of transformers.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out")
        peft.inject_adapter_in_model(lora_config(model, lora), root)


def merge_lora(model: LoraModel) -> None:
    """Merge LoRA into the weights and restore the plain layers, in place; all parameters may train again.

    The logits in eval mode stay the same up to rounding. The base weights are lost, so save LoRA before if it is wanted
    separately.

    Raises:
        LayerGroupError: If the model has no LoRA, or adapters or learned tokens, which depend on the input.
        TrainingError: If a value of it is not finite.
    """
    if unmoved := untrained(model.backbone):
        why = "no gradient came there, or the epoch that was kept is from before it trained"
        log.warning("%s learned nothing at %s (%s): %s", _title(model), count(len(unmoved), "layer"), examples(unmoved), why)
    fold_lora(model)


def fold_lora(model: LoraModel) -> None:
    """Merge without a warning about layers that got no gradient; see ``merge_lora``."""
    layers = dict(lora_layers(model.backbone))
    if model.lora is not None and not KINDS[model.lora.kind].merges:
        raise LayerGroupError(
            f"{_title(model)} cannot be merged, as no weight does what they do; save the model as it is: model.save(folder)"
        )
    if not layers:
        raise LayerGroupError("the model has no LoRA to merge; attach it first: zoo.tuning.attach_lora(model, model.groups)")
    odd = [name for name, layer in layers.items() if not all(bool(p.isfinite().all()) for p in layer.parameters())]
    if odd:
        raise TrainingError(f"{_title(model)} cannot be merged at {examples(odd)}: its values are not finite; train with a lower lr")
    for layer in layers.values():
        layer.merge(safe_merge=True)
    detach_lora(model)


def detach_lora(model: LoraModel) -> None:
    """Remove LoRA and its values, in place, and restore the plain layers; all parameters may train again.

    A model without LoRA is not changed.
    """
    for name, layer in dict(lora_layers(model.backbone)).items():
        parent, _, last = name.rpartition(".")
        plain = layer.get_base_layer()
        plain.train(layer.training)
        setattr(model.backbone.get_submodule(parent), last, plain)
    if model.lora is not None:
        remove_additions(model.backbone, KINDS[model.lora.kind].mark)
    model.lora = None
    train_all(model)


def train_all(model: LoraModel) -> None:
    """Let every parameter of the groups that are not frozen train, those of an update that stays among them, in place."""
    model.trains = "all"
    model.freeze(model.frozen)


def lora_layers(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers that have LoRA with their dotted names in the backbone."""
    for name, module in backbone.named_modules():
        if hasattr(module, "adapter_layer_names") and hasattr(module, "get_base_layer"):
            yield name, module  # recognised by its attributes, without importing PEFT


def untrained(backbone: nn.Module) -> list[str]:
    """Return the names of the layers whose LoRA still has its initial values."""
    return [name for name, layer in lora_layers(backbone) if not _has_learned(layer)]


def _has_learned(layer: nn.Module) -> bool:
    """Return whether a parameter of the update has another value than its initial one."""
    start = {name: value for kind in KINDS.values() for name, value in kind.start.items()}
    own = ((start.get(name.partition(".")[0]), parameter) for name, parameter in layer.named_parameters())
    return any(value is not None and bool((parameter != value).any()) for value, parameter in own)


def undone(kind: str) -> str:
    """Return how a model gets rid of an update of a kind, for messages."""
    return "merge it first: zoo.tuning.merge_lora(model)" if KINDS[kind].merges else "remove it first: zoo.tuning.detach_lora(model)"


def _title(model: LoraModel) -> str:
    return KINDS[model.lora.kind if model.lora else "lora"].title


def _set_constants(layer: Any) -> None:
    """Copy the sizes of the plain layer to the one with LoRA, as some networks (DaViT) compute a padding from them."""
    plain = layer.get_base_layer()
    for name in getattr(plain, "__constants__", ()):
        if hasattr(plain, name) and not hasattr(layer, name):
            setattr(layer, name, getattr(plain, name))


def lora_config(model: LoraModel, lora: Lora, **fields: Any) -> Any:
    """Return PEFT's configuration of ``lora`` at a model, with further fields."""
    names = [f"backbone.{name}" for name in lora.targets]
    ends = tuple(f".backbone.{name}" for name in lora.targets)
    # PEFT matches names as suffixes, but patterns in full.
    longer = any(f"backbone.{name}".endswith(ends) for name, _ in model.backbone.named_modules())
    targets = "|".join(name.replace(".", r"\.") for name in names) if longer else names
    kind = KINDS[lora.kind]
    return getattr(import_peft(), kind.config)(target_modules=targets, **kind.settings(lora), **fields)


def import_peft() -> Any:
    """Return PEFT.

    Raises:
        MissingExtraError: If it is not installed.
    """
    require_extra("lora", "LoRA")
    import peft

    return peft


def _check(model: LoraModel, lora: Lora) -> None:
    if lora.kind not in KINDS:
        raise OptionError(f"kind={lora.kind!r} is none of {', '.join(KINDS)}{did_you_mean(lora.kind, KINDS)}")
    faults = []
    if lora.rank < 1:
        faults.append(f"rank={lora.rank}: it is 1 or more")
    if not lora.alpha > 0:
        faults.append(f"alpha={lora.alpha}: it is above 0")
    if not 0 <= lora.dropout < 1:
        faults.append(f"dropout={lora.dropout}: it is at least 0 and below 1")
    faults += [f"{name}={getattr(lora, name)}: it is 1 or more" for name in ("width", "tokens") if getattr(lora, name) < 1]
    defaults = Lora(())
    unknown = [name for name in ("rank", "alpha", "dropout", "width", "tokens") if name not in KINDS[lora.kind].options]
    faults += [f"{name}: {KINDS[lora.kind].title} has none" for name in unknown if getattr(lora, name) != getattr(defaults, name)]
    if model.lora:
        faults.append(f"the model has {_title(model)} already; {undone(model.lora.kind)}")
    if faults:
        raise OptionError(fault_list(f"{KINDS[lora.kind].title} cannot be attached:", faults))

"""Checks of whether a method of domain adaptation fits a model and what trains of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.engine.options.epochs import reads_pooled, shortest_frozen_prefix
from zoo.models.heads import MLPHead
from zoo.tasks.find import find_task
from zoo.transfer.domain.alignments import KINDS
from zoo.tuning.statistics import keeps_statistics

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised
    from zoo.models.task_model import TaskModel


def has_units(model: TaskModel) -> bool:
    """Return whether the aligned features are the hidden units of the head, and not the pooled features of the backbone."""
    return isinstance(model.head, MLPHead) and find_task(model.task).exclusive


def aligned_width(model: TaskModel) -> int:
    """Return the width of the aligned features."""
    return model.head.hidden.out_features if isinstance(model.head, MLPHead) and has_units(model) else model.spec.features.dim


def faults_of(method: str, base: Supervised, *, spectral: float) -> list[str]:
    """Return why a method cannot train a model like this; empty if it can.

    Args:
        method: A name of ``KINDS``.
        base: The objective of the labels.
        spectral: Weight of the batch spectral penalty.
    """
    model, kind, faults = base.model, KINDS[method], []
    if find_task(model.task).per_token:
        faults.append(
            f"the task is {find_task(model.task).words}, and domains of words are not aligned here; take a task of one label per sample"
        )
    elif kind.of_classes and not find_task(model.task).exclusive:
        fitting = ", ".join(name for name, one in KINDS.items() if one.make and not one.of_classes)
        faults.append(f"the task is {find_task(model.task).words}, and the method needs one class per sample; take one of: {fitting}")
    if not reads_pooled(model.head):
        faults.append("the head gives no logits of pooled features; take head='linear' or head='mlp'")
    frozen = shortest_frozen_prefix(base.config, model.groups, model.frozen)
    whole = frozen == len(model.groups)
    if (kind.of_features or spectral) and whole and not has_units(model):
        faults.append("the whole backbone is frozen and the head is linear, so no feature can move; take head='mlp', or unfreeze groups")
    if method == "adabn":
        norms = any(keeps_statistics(part) for group in model.groups[frozen:] for _, outer in group.modules() for part in outer.modules())
        if not norms or model.freeze_bn:
            faults.append("no norm with running statistics is in the groups that train; unfreeze some, with freeze_bn=False")
    if spectral and kind.make is None:
        faults.append(f"spectral is added to a method that aligns features, and method is {method!r}")
    if base.penalties and base.penalties.needs_inputs:
        faults.append("delta compares the activations of a pass, and there are two; leave it out")
    return faults

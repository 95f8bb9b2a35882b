"""Checks of the layer groups: order of execution, outputs, and a partition into param groups."""

from __future__ import annotations

import torch
from torch import nn

from zoo.data.dataset import ModelInputs
from zoo.models.layers import LayerGroups
from zoo.testing.subject import Subject
from zoo.tuning import param_groups, taps


def groups_run_in_order(subject: Subject) -> None:
    """The groups partition the module, which ``bind`` checks, and first run in the declared order."""
    order = execution_order(subject.backbone.groups, subject.batch())
    ran = [name for name in subject.backbone.groups.names if name in order]
    assert order == ran, f"they run as {', '.join(order)}; declared is {', '.join(ran)}"


def execution_order(groups: LayerGroups, batch: ModelInputs) -> list[str]:
    """Return the names of the groups in the order in which a leaf module with parameters of each first runs."""
    order: list[str] = []
    handles = []
    for group in groups:

        def note(_module: nn.Module, _args: object, name: str = group.name) -> None:
            if name not in order:
                order.append(name)

        leaves = (leaf for _, outer in group.modules() for leaf in outer.modules() if any(True for _ in leaf.parameters(recurse=False)))
        handles += [leaf.register_forward_pre_hook(note) for leaf in leaves]
    with torch.no_grad():
        groups.model.eval()(batch)
    for handle in handles:
        handle.remove()
    return order


def param_groups_hold_each_parameter_once(subject: Subject) -> None:
    """Every parameter is in one optimizer group, and rates do not fall towards the head."""
    model = subject.model()
    rated = param_groups(model.groups, model.head, lr=1.0, layer_decay=0.5)
    held = [id(parameter) for group in rated for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters()), (
        "not every parameter is in exactly one optimizer group"
    )
    rates = [group["lr"] for group in rated]
    assert rates == sorted(rates), f"learning rates fall towards the head: {rates}"


def taps_give_every_group(subject: Subject) -> None:
    """Every group with modules has an output."""
    groups = subject.backbone.groups
    named = [group.name for group in groups if dict(group.modules()).keys() & set(group.members)]
    with taps(groups, *named) as outputs, torch.no_grad():
        groups.model.eval()(subject.batch())
    silent = [name for name in named if name not in outputs]
    assert not silent, f"these groups never ran: {', '.join(silent)}"

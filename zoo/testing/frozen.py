"""Checks of freezing: a frozen prefix does not change, bit for bit, and everything else trains."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.errors import count, examples
from zoo.models.task_model import TaskModel
from zoo.testing.subject import Subject, pick, tensors
from zoo.tuning import param_groups, taps

log = logging.getLogger("zoo")


def frozen_prefix_stands_still_and_the_rest_moves(subject: Subject) -> None:
    """After two AdamW steps in train mode the prefix is bit-equal, buffers included, and every other parameter moved.

    A parameter without gradient in a model that was never frozen is allowed not to move, but not a whole group of them.
    """
    idle = idle_parameters(subject)
    for k in subject.prefixes():
        model = subject.model().freeze(k)
        before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
        for _ in two_steps(model, subject):
            pass
        after = model.backbone.state_dict()
        moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        frozen = {name for group in model.groups[:k] for name, _ in (*group.named_parameters(), *group.named_buffers())}
        assert not moved & frozen, f"with {k} groups frozen these moved: {examples(sorted(moved & frozen))}"
        held = {id(parameter) for parameter in model.groups[:k].parameters()}  # a tied one belongs to the first of its groups
        free = [name for name, parameter in model.groups[k:].named_parameters() if id(parameter) not in held]
        still = [name for name in free if name not in moved | idle]
        assert not still, f"with {k} groups frozen these did not move: {examples(still)}"


def idle_parameters(subject: Subject) -> set[str]:
    """Return the parameters of the backbone that get no gradient, or only zeros, in a model that was never frozen.

    Raises:
        AssertionError: If that holds for all parameters of a group.
    """
    model = subject.model()
    idle = {name for name, _ in model.groups.named_parameters()}
    for _ in two_steps(model, subject):
        # Zero-initialised branches have gradients from the second step on.
        idle -= {name for name, p in model.groups.named_parameters() if p.grad is not None and bool(p.grad.any())}
    dead = [group.name for group in model.groups if idle.issuperset(name for name, _ in group.named_parameters())]
    dead = [name for name in dead if any(True for _ in model.groups[name].parameters())]
    assert not dead, f"no parameter of these groups ever gets a gradient: {', '.join(dead)}"
    if idle:
        verb = "gets" if len(idle) == 1 else "get"
        log.warning("%s: %s never %s a gradient: %s", subject.name, count(len(idle), "parameter"), verb, examples(sorted(idle)))
    return idle


def two_steps(model: TaskModel, subject: Subject) -> Iterator[None]:
    """Take two AdamW steps in train mode; yield after each, with the gradients still set."""
    optimizer = torch.optim.AdamW(param_groups(model.groups, model.head, lr=0.01, weight_decay=0.1))
    for _ in range(2):
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(subject.batch(4)), torch.tensor([0, 1, 2, 0]))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        yield


def frozen_features_ignore_mode_and_batch_mates(subject: Subject) -> None:
    """Outputs of a frozen prefix in train mode equal those in eval mode bit for bit, for any other samples in the batch."""
    model = subject.model()
    batch = subject.batch(4)
    for k in subject.prefixes():
        tapped = [group.name for group in model.groups[:k] if any(isinstance(m, nn.Module) for _, m in group.modules())]
        if not tapped:
            continue
        name = tapped[-1]
        outputs: list[list[Tensor]] = []
        for mode, x in ((False, batch), (True, batch), (True, pick(batch, [0, 0, 0, 0]))):
            model.freeze(k).train(mode)
            with taps(model.groups, name) as output, torch.no_grad():
                model.backbone(x)
            outputs.append(list(tensors(output[name])))
        equal = all(torch.equal(one, other) for one, other in zip(outputs[0], outputs[1], strict=True))
        assert equal, f"with {k} groups frozen, {name!r} differs between train and eval mode"
        # Some outputs, such as a table of positions, have no axis of samples.
        pairs = [(one, other) for one, other in zip(outputs[1], outputs[2], strict=True) if one.ndim and one.shape[0] == 4]
        same = all(torch.allclose(one[0].float(), other[0].float(), rtol=1e-4, atol=1e-4) for one, other in pairs)
        assert same, f"with {k} groups frozen, the output of {name!r} depends on the other samples of the batch"

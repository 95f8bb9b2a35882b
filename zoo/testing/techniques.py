"""Checks of techniques: LoRA finds its layers, recompute changes no gradient."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from zoo.errors import LayerGroupError, examples
from zoo.models.task_model import TaskModel
from zoo.testing.subject import Subject
from zoo.tuning import lora_targets, recompute

log = logging.getLogger("zoo")


def lora_targets_exist(subject: Subject) -> None:
    """LoRA finds layers, some of which a forward calls, or says why there are none."""
    groups = subject.backbone.groups
    try:
        names = lora_targets(groups)
    except LayerGroupError as error:  # its layers may be of types without LoRA
        log.warning("%s: %s", subject.name, error)
        return
    called: set[str] = set()
    handles = [
        groups.model.get_submodule(name).register_forward_hook(lambda _module, _args, _output, name=name: called.add(name))
        for name in names
    ]
    with torch.no_grad():
        groups.model.eval()(subject.batch())
    for handle in handles:
        handle.remove()
    assert called, f"a forward pass calls none of the layers that LoRA would adapt: {examples(names)}"


def recompute_gives_equal_gradients(subject: Subject) -> None:
    """Recomputing the activations of every block gives equal gradients and statistics."""
    plain, twice = subject.model(), subject.model()
    blocks = recompute(twice.groups)
    before, after = _gradients(plain, subject), _gradients(twice, subject)
    differ = [name for name in before if not _close(before[name], after[name])]
    assert not differ, f"with {len(blocks)} blocks recomputed the gradients of these differ: {examples(differ)}"
    buffers = dict(twice.named_buffers())
    moved = [name for name, buffer in plain.named_buffers() if not torch.allclose(buffer, buffers[name], rtol=1e-4, atol=1e-6)]
    assert not moved, f"with {len(blocks)} blocks recomputed these statistics differ: {examples(moved)}"


def _gradients(model: TaskModel, subject: Subject) -> dict[str, Tensor | None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of dropout
        loss = nn.functional.cross_entropy(model.train()(subject.batch(4)), torch.tensor([0, 1, 2, 0]))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def _close(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    scale = float(one.abs().max())
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * scale + 1e-8)

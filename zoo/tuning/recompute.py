"""Activation checkpointing of the blocks of some groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo.errors import LISTED, LayerGroupError, examples
from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import blocks


def recompute(groups: LayerGroups) -> list[str]:
    """Make the blocks of a slice of groups recompute their activations in the backward pass (Chen et al. 2016), in place.

    Gradients are the same, dropout included, and BatchNorm statistics move once. A block is the largest unit that is called
    as a whole: a member of a group, or each child where the member is a list or a sequence. Names of parameters stay.

    Args:
        groups: The groups that train, such as ``model.groups[model.frozen:]``.

    Returns:
        Dotted names of the blocks.

    Raises:
        LayerGroupError: If the groups have no module with parameters.
    """
    found = blocks(groups)
    if not found:
        raise LayerGroupError(f"the groups {examples(groups.names, LISTED) or '(none)'} have no block to recompute")
    for module in found.values():
        if not isinstance(module, _Recomputed):
            # A subclass, not a patched forward: a deep copy of the model must call its own blocks.
            kind = type(module)
            module.__class__ = type(kind.__name__, (_Recomputed, kind), {"__module__": kind.__module__})
    return list(found)


@contextmanager
def recomputed(groups: LayerGroups) -> Iterator[list[str]]:
    """Apply ``recompute`` while the context is open."""
    kinds = {module: type(module) for module in groups.model.modules()}
    try:
        yield recompute(groups)
    finally:
        for module, kind in kinds.items():
            module.__class__ = kind


class _Recomputed(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        plain = super().forward
        if not torch.is_grad_enabled() or not self.training:
            return plain(*args, **kwargs)
        given, named = _apart(args), _apart(kwargs)  # the second computation must see them as they are now
        return checkpoint(plain, *given, use_reentrant=False, context_fn=self._contexts, **named)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_stand_still(self)


def _apart(value: Any) -> Any:
    """Return the same tensors in lists and mappings of their own; DenseNet appends to the list that its layers read."""
    if type(value) in (list, tuple):
        return type(value)(map(_apart, value))
    return {key: _apart(one) for key, one in value.items()} if type(value) is dict else value


@contextmanager
def _statistics_stand_still(module: nn.Module) -> Iterator[None]:
    """Use copies of the buffers in the second computation, as running statistics must count a batch once."""
    lent = [(inner, name, buffer) for inner in module.modules() for name, buffer in inner._buffers.items() if buffer is not None]
    try:
        # Copies, because writing to a buffer would change tensors that autograd has saved.
        for inner, name, buffer in lent:
            inner._buffers[name] = buffer.clone()
        yield
    finally:
        for inner, name, buffer in lent:
            inner._buffers[name] = buffer

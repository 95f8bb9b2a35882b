"""Taps: the outputs of chosen layer groups during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.hooks import RemovableHandle

from zoo.errors import LayerGroupError, examples
from zoo.models.layers import LayerGroup, LayerGroups
from zoo.tuning.blocks import listen


@contextmanager
def taps(groups: LayerGroups, *names: str) -> Iterator[dict[str, Any]]:
    """Record the outputs of the named groups while the context is open; of all groups if none is named.

    The output of a group is that of its last module to finish. Each forward pass replaces the record; with gradients on it keeps
    the graph.

    Example:
        ``with taps(model.groups, "stage2") as outputs: model(x)`` and then ``outputs["stage2"]``.

    Raises:
        UnknownGroupError: If there is no such group.
        LayerGroupError: If a group holds bare parameters only and thus has no output.
    """
    chosen = [groups[name] for name in names] if names else list(groups)
    outputs: dict[str, Any] = {}
    handles = [handle for group in chosen for handle in _listen(group, outputs)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _listen(group: LayerGroup, outputs: dict[str, Any]) -> list[RemovableHandle]:
    handles = listen(group, lambda output: outputs.update({group.name: output}))
    if not handles:
        raise LayerGroupError(f"layer group {group.name!r} holds bare parameters only ({examples(group.members)}) and has no output to tap")
    return handles

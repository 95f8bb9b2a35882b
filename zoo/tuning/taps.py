"""Taps: the outputs of chosen layer groups during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from zoo.errors import LayerGroupError
from zoo.layers import LayerGroup, LayerGroups


@contextmanager
def taps(groups: LayerGroups, *names: str) -> Iterator[dict[str, Any]]:
    """Record what the named groups put out while the context is open; all groups where none is named.

    The output of a group is what the last of its modules to finish returned. With each forward pass the record is
    renewed; it keeps the graph where gradients are on.

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


def _listen(group: LayerGroup, outputs: dict[str, Any]) -> list[Any]:
    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        outputs[group.name] = output

    # Containers such as ModuleList are never called themselves, so every module inside the members listens; the
    # outermost one that is called finishes last and thus has the last word.
    members = [name for name in group.members if name in dict(group.modules())]
    if not members:
        raise LayerGroupError(
            f"layer group {group.name!r} holds bare parameters only ({', '.join(group.members)}) and has no output to tap"
        )
    inside = (module for name, outer in group.modules() if name in members for module in outer.modules())
    return [module.register_forward_hook(keep) for module in inside]

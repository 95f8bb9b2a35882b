"""Helpers of several techniques: blocks of groups, and hooks on their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from zoo.models.layers import LayerGroup, LayerGroups

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)  # containers whose children are called, and not they themselves


class Tuned(Protocol):
    """The part of ``TaskModel`` that techniques use; the class itself is on a higher floor."""

    head: nn.Module
    groups: LayerGroups
    frozen: int


def blocks(groups: LayerGroups) -> dict[str, nn.Module]:
    """Return the blocks of a slice of groups by dotted name, in forward order.

    A block is the largest unit that is called as a whole: a member of a group, or each child where the member is a list or a
    sequence. Modules without parameters are left out.
    """
    return dict(pair for group in groups for name, module in group.modules() for pair in _blocks(name, module))


def listen(group: LayerGroup, receive: Callable[[Any], None]) -> list[RemovableHandle]:
    """Call ``receive`` with every output of the group's modules; the last call in a forward has the group's output.

    Returns:
        The handles of the hooks; none if the group holds bare parameters only and thus has no output.
    """

    def record(_module: nn.Module, _args: Any, output: Any) -> None:
        receive(output)

    # Containers such as ModuleList are never called, so every module inside the members has a hook. The outermost one that
    # is called finishes last.
    members = [module for name, module in group.modules() if name in group.members]
    return [inner.register_forward_hook(record) for outer in members for inner in outer.modules()]


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating tensor in nested tuples, lists and mappings, such as what a transformer's layer returns."""
    found = (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    return next(found, None)


def _blocks(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, CONTAINERS):
        for key, child in module.named_children():
            yield from _blocks(f"{name}.{key}", child)
    elif any(True for _ in module.parameters()):
        yield name, module

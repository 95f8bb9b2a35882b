"""Parts of a model that several techniques need: modules, blocks of a group, outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from zoo.models.layers import LayerGroup, LayerGroups

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)  # their children are called, they themselves are not


class Tuned(Protocol):
    """What is asked of a ``TaskModel``, which stands a floor above."""

    head: nn.Module
    groups: LayerGroups
    frozen: int


def blocks(groups: LayerGroups) -> dict[str, nn.Module]:
    """Return the blocks of a slice of groups by dotted name, in forward order.

    A block is the largest unit that is called as a whole: a member of a group, or each child where the member is a list or a
    sequence. What holds no parameters is left out.
    """
    return dict(pair for group in groups for name, module in group.modules() for pair in _blocks(name, module))


def listen(group: LayerGroup, keep: Callable[[Any], None]) -> list[RemovableHandle]:
    """Hand every output of the group's modules to ``keep`` until the handles are removed; the last one in a forward is the group's.

    Returns:
        The handles; none where the group holds bare parameters only and thus has no output.
    """

    def record(_module: nn.Module, _args: Any, output: Any) -> None:
        keep(output)

    # Containers such as ModuleList are never called themselves, so every module inside the members listens; the
    # outermost one that is called finishes last and thus has the last word.
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

"""Helpers of several techniques: blocks of groups, and hooks on their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from zoo.models.layers import LayerGroup, LayerGroups

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
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


def residual_blocks(groups: LayerGroups) -> dict[str, nn.Module]:
    """Return the blocks that may have a residual branch by dotted name, in forward order; shapes are not known yet."""
    found = dict(pair for name, block in blocks(groups).items() for pair in _units(name, block))
    # A residual branch mostly has two layers or more; a unit with one is mostly a convolution with its norm.
    return {name: module for name, module in found.items() if _layers(module) > 1} or found


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


def _units(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the block, or the blocks of a stage with its own forward; no single layers, norms or embeddings."""
    children = list(module.children())
    if isinstance(module, NORMS) or not children or any(isinstance(child, nn.Embedding) for child in children):
        return
    lists = list(_lists(name, module))
    inside = [pair for prefix, inner in lists for key, child in inner.named_children() for pair in _units(f"{prefix}.{key}", child)]
    yield from inside or [(name, module)]


def _lists(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost modules that contain only blocks, the module itself included."""
    children = list(module.children())
    alike = isinstance(module, CONTAINERS) or len({type(child) for child in children}) == 1
    if alike and len(children) > 1 and all(_layers(child) > 1 for child in children):
        yield name, module
    else:
        for key, child in module.named_children():
            yield from _lists(f"{name}.{key}", child)


def _layers(module: nn.Module) -> int:
    """Return the number of weight matrices and kernels."""
    return sum(parameter.ndim > 1 for parameter in module.parameters())

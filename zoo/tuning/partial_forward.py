"""Forward passes that start behind the frozen prefix, from stored activations.

The model is not changed. ``capture`` stops a forward at the first module of the boundary group and returns its arguments.
``replay`` runs the full forward, but modules of the frozen prefix return empty tensors of the right shape at once, and the
first module of the boundary group gets the stored arguments. Code between the modules runs on the empty tensors, and its
results are dropped.

This need not be right for every model, so ``open_boundary`` compares both ways bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from zoo.data.dataset import ModelInputs
from zoo.models.layers import LayerGroups
from zoo.tuning.stubs import Outputs, answers, hooked, shape_of


class _Reached(Exception):  # noqa: N818  # control flow, not an error
    """Ends a forward at the boundary."""


class _Mismatch(Exception):  # noqa: N818  # caught in this module
    """A model cannot start at the boundary; the message says why."""


@dataclass
class _Entry:
    """The first call of the boundary group: the module and its arguments."""

    module: nn.Module
    leaves: list[Any]
    tree: Any


@dataclass
class Boundary:
    """The start of the first layer group behind a frozen prefix; made by ``open_boundary``.

    Attributes:
        groups: All groups of the backbone.
        frozen: Length of the frozen prefix.
        stored: Positions of the boundary module's arguments that depend on the prefix, with one row per sample each.
        shared: Tensors that depend on the prefix and not on the sample, by position.
        outputs: Shapes of the outputs of the prefix's modules in the trial, outermost calls only, in their order.
        size: Samples of the trial batch.
        length: Tokens of the trial batch, 0 for other inputs.
    """

    groups: LayerGroups
    frozen: int
    stored: tuple[int, ...] = ()
    shared: dict[int, Tensor] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=list)
    size: int = 0
    length: int = 0

    def capture(self, x: ModelInputs) -> list[Tensor]:
        """Run the prefix without gradients; return one tensor ``(batch, …)`` for each of ``stored``."""
        with torch.no_grad():
            entry = _entered(self.groups, self.frozen, x)
        return [entry.leaves[position].detach() for position in self.stored]

    def replay(self, x: ModelInputs, activations: list[Tensor], *, value: float | None = None) -> Tensor:
        """Return the backbone's output for inputs ``x`` from their stored activations; gradients reach the boundary.

        Modules of the prefix give tensors of ``value``, or uninitialised ones.
        """
        fill = {**dict(zip(self.stored, activations, strict=True)), **self.shared}
        with answers(self.outputs, lambda shape: self._resized(shape, x), value), _enters(self.groups, self.frozen, fill):
            output: Tensor = self.groups.model(x)
        return output

    def _resized(self, shape: torch.Size, x: ModelInputs) -> list[int]:
        """Return a recorded shape for another number of samples, and another number of tokens."""
        size, length = _extent(x)
        extents = list(shape)
        if extents and extents[0] % self.size == 0:
            extents[0] = extents[0] // self.size * size
        # The last axis has the channels.
        return [length if 0 < axis < len(extents) - 1 and extent == self.length else extent for axis, extent in enumerate(extents)]


def open_boundary(groups: LayerGroups, frozen: int, x: ModelInputs) -> Boundary | str:
    """Return the boundary behind the first ``frozen`` groups of a backbone, or why there is none.

    The prefix should be frozen, and the rest in eval mode; modes are not changed. A full forward and ``replay`` must give the
    same bits, for the batch and for a part of it.

    Args:
        groups: Groups of the backbone.
        frozen: Length of the prefix, between 1 and the number of groups less one.
        x: A batch of two samples or more.
    """
    try:
        with torch.no_grad():
            return _tried(groups, frozen, x)
    except _Mismatch as reason:
        return str(reason)
    except Exception as error:  # any error that an empty tensor causes in a model
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def _tried(groups: LayerGroups, frozen: int, x: ModelInputs) -> Boundary:
    entry, outputs = _run_prefix(groups, frozen, x)
    size, length = _extent(x)
    boundary = Boundary(groups, frozen, outputs=outputs, size=size, length=length)
    depends = _depending(boundary, entry, x)
    boundary.stored = tuple(position for position in depends if entry.leaves[position].shape[:1] == (size,))
    boundary.shared = {position: entry.leaves[position].detach() for position in depends if position not in boundary.stored}
    if not boundary.stored:
        raise _Mismatch("nothing that depends on the frozen groups enters the next one")
    stored, shared = [entry.leaves[position] for position in boundary.stored], list(boundary.shared.values())
    if length and (any(length in tensor.shape for tensor in shared) or any(length in tensor.shape[2:] for tensor in stored)):
        raise _Mismatch("what enters the next group depends on the length of the longest text")
    for part in (x, _first(x, size // 2)):
        # Without the pixels, which are not loaded for stored activations: another branch might read them behind the boundary. And with
        # NaN, as memory that was just freed may hold the very values that the prefix gave.
        blank = part if isinstance(part, Mapping) else torch.zeros_like(part)
        plain, again = groups.model(part), boundary.replay(blank, boundary.capture(part), value=math.nan)
        if plain.shape != again.shape or not torch.equal(plain, again):
            raise _Mismatch("the features differ when it is entered in the middle")
    return boundary


def _depending(boundary: Boundary, entry: _Entry, x: ModelInputs) -> list[int]:
    """Return the positions of the arguments that change with the outputs of the prefix."""
    seen = []
    for value in (0.0, 1.0):
        with answers(boundary.outputs, list, value):
            seen.append(_entered(boundary.groups, boundary.frozen, x).leaves)
    return [
        position
        for position, leaf in enumerate(entry.leaves)
        if isinstance(leaf, Tensor) and not (torch.equal(leaf, seen[0][position]) and torch.equal(leaf, seen[1][position]))
    ]


def _run_prefix(groups: LayerGroups, frozen: int, x: ModelInputs) -> tuple[_Entry, Outputs]:
    """Run the prefix; return the arguments of the next group, and the shapes that outermost modules of the prefix returned."""
    outputs: Outputs = []
    depth = [0]

    def before(_module: nn.Module, _args: Any) -> None:
        depth[0] += 1

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        depth[0] -= 1
        if not depth[0]:
            outputs.append((module, tree_map(shape_of, output)))

    with hooked([(module, before, after) for module in _modules(groups[:frozen])]), torch.no_grad():
        entry = _entered(groups, frozen, x)
    return entry, outputs


def _entered(groups: LayerGroups, frozen: int, x: ModelInputs) -> _Entry:
    caught: list[_Entry] = []

    def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
        leaves, tree = tree_flatten((args, kwargs))
        caught.append(_Entry(module, leaves, tree))
        raise _Reached

    handles = [module.register_forward_pre_hook(stop, with_kwargs=True) for module in _modules(groups[frozen:])]
    try:
        groups.model(x)
    except _Reached:
        return caught[0]
    finally:
        for handle in handles:
            handle.remove()
    raise _Mismatch("no module of the groups that train was called")


@contextmanager
def _enters(groups: LayerGroups, frozen: int, fill: Mapping[int, Tensor]) -> Iterator[None]:
    """Replace arguments of the first module called behind the prefix."""
    handles: list[Any] = []

    def give(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        # Removed at once, as some modules compute in another way while they have hooks.
        _remove(handles)
        leaves, tree = tree_flatten((args, kwargs))
        given: tuple[Any, Any] = tree_unflatten([fill.get(position, leaf) for position, leaf in enumerate(leaves)], tree)
        return given

    handles += [module.register_forward_pre_hook(give, with_kwargs=True) for module in _modules(groups[frozen:])]
    try:
        yield
    finally:
        _remove(handles)


def _remove(handles: list[Any]) -> None:
    while handles:
        handles.pop().remove()


def _modules(groups: LayerGroups) -> list[nn.Module]:
    """Return every module inside the groups, each once."""
    found = (inner for group in groups for _, outer in group.modules() for inner in outer.modules())
    return list(dict.fromkeys(found))


def _extent(x: ModelInputs) -> tuple[int, int]:
    """Return the number of samples, and of tokens where the batch is text."""
    if isinstance(x, Mapping):
        ids = x["input_ids"]
        return ids.shape[0], ids.shape[1]
    return x.shape[0], 0


def _first(x: ModelInputs, count: int) -> ModelInputs:
    return {name: tensor[:count] for name, tensor in x.items()} if isinstance(x, Mapping) else x[:count]

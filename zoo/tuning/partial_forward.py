"""Starting a backbone in the middle: what enters a layer group is kept once and fed in again later.

No model is touched for it. ``capture`` stops a forward where the boundary group begins and keeps what its first module was
given. ``replay`` runs the whole forward again, but the modules of the frozen prefix answer at once with empty tensors of the
shape that they would have had, and the first module of the boundary group is given what was kept. Code between the modules
runs on the empty tensors, and its results are thrown away.

Whether that is right for a model is not assumed but tried: ``open_boundary`` compares both ways bit for bit.
"""

from __future__ import annotations

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


class _Reached(Exception):  # noqa: N818  # a signal and not an error
    """Ends a forward at the boundary."""


class _Mismatch(Exception):  # noqa: N818  # ends a try, never leaves this module
    """Says why a model cannot be entered at a boundary."""


@dataclass
class _Entry:
    """The first call of the boundary group: its module and what it was given."""

    module: nn.Module
    leaves: list[Any]
    tree: Any


@dataclass
class Boundary:
    """A way into a backbone at the start of a layer group; made by ``open_boundary``.

    Attributes:
        groups: All groups of the backbone.
        frozen: Length of the prefix that is left out.
        kept: Positions of the boundary module's arguments that depend on the prefix: one tensor per sample each.
        shared: Tensors that depend on the prefix and not on the sample, by position.
        outputs: What each module of the prefix returned when it was tried, outermost calls only, in the order of the calls.
        size: Samples of the batch that it was tried with.
        length: Tokens of that batch, 0 for other inputs.
    """

    groups: LayerGroups
    frozen: int
    kept: tuple[int, ...] = ()
    shared: dict[int, Tensor] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=list)
    size: int = 0
    length: int = 0

    def capture(self, x: ModelInputs) -> list[Tensor]:
        """Run the prefix and return what has to be kept, one tensor ``(batch, …)`` for each of ``kept``; no gradients."""
        with torch.no_grad():
            entry = _entered(self.groups, self.frozen, x)
        return [entry.leaves[position].detach() for position in self.kept]

    def replay(self, x: ModelInputs, stored: list[Tensor]) -> Tensor:
        """Return the backbone's output for inputs ``x`` whose prefix gave ``stored``; gradients flow from the boundary on."""
        fill = {**dict(zip(self.kept, stored, strict=True)), **self.shared}
        with answers(self.outputs, lambda shape: self._resized(shape, x)), _enters(self.groups, self.frozen, fill):
            output: Tensor = self.groups.model(x)
        return output

    def _resized(self, shape: torch.Size, x: ModelInputs) -> list[int]:
        """Return a recorded shape for another number of samples, and another number of tokens."""
        size, length = _extent(x)
        extents = list(shape)
        if extents and extents[0] % self.size == 0:
            extents[0] = extents[0] // self.size * size
        # The last axis is that of the channels.
        return [length if 0 < axis < len(extents) - 1 and extent == self.length else extent for axis, extent in enumerate(extents)]


def open_boundary(groups: LayerGroups, frozen: int, x: ModelInputs) -> Boundary | str:
    """Find the way into a backbone behind its first ``frozen`` groups, or say why there is none.

    The modes of the modules stay as they are; the prefix should be frozen, and what follows in eval mode. Both ways must give
    the same bits, for the batch and for a part of it.

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
    except Exception as error:  # a model may do anything with an empty tensor
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def _tried(groups: LayerGroups, frozen: int, x: ModelInputs) -> Boundary:
    entry, outputs = _run_prefix(groups, frozen, x)
    size, length = _extent(x)
    boundary = Boundary(groups, frozen, outputs=outputs, size=size, length=length)
    depends = _depending(boundary, entry, x)
    boundary.kept = tuple(position for position in depends if entry.leaves[position].shape[:1] == (size,))
    boundary.shared = {position: entry.leaves[position].detach() for position in depends if position not in boundary.kept}
    if not boundary.kept:
        raise _Mismatch("nothing that depends on the frozen groups enters the next one")
    kept, shared = [entry.leaves[position] for position in boundary.kept], list(boundary.shared.values())
    if length and (any(length in tensor.shape for tensor in shared) or any(length in tensor.shape[2:] for tensor in kept)):
        raise _Mismatch("what enters the next group depends on the length of the longest text")
    for part in (x, _first(x, size // 2)):
        plain, again = groups.model(part), boundary.replay(part, boundary.capture(part))
        if plain.shape != again.shape or not torch.equal(plain, again):
            raise _Mismatch("the features differ when it is entered in the middle")
    return boundary


def _depending(boundary: Boundary, entry: _Entry, x: ModelInputs) -> list[int]:
    """Return the positions of the arguments that change when the prefix puts out something else."""
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
    """Run the prefix; return what entered the next group, and what the outermost modules of the prefix returned."""
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
    """Give the first module called behind the prefix what was kept."""
    handles: list[Any] = []

    def give(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        # Off at once: some modules compute in another way while they are watched.
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

"""Layer groups: the modules and parameters of declared names.

``bind(model, layers)`` turns a declaration (see docs/layers.md) into ``LayerGroups``, an immutable sequence of groups in
forward order, or raises one error that lists every fault. Members are looked up by name at each use, so parameters that
appear later (LoRA) land in the right group.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from torch import Tensor, nn

from zoo.declare import Layers
from zoo.errors import LISTED, LayerGroupError, UnknownGroupError, count, did_you_mean, examples, fault_list
from zoo.models.own_names import is_own
from zoo.plugins.loader import load_function
from zoo.util.numbers import is_whole


@dataclass(frozen=True)
class LayerGroup:
    """One group of a backbone: dotted names of submodules, bare parameters and buffers, in forward order.

    Attributes:
        name: Name of the group; part of saved models.
        index: Position, counted from the input.
        members: Declared dotted names, without ``*`` and ``?``.
        strays: Modules without parameters or buffers (dropout, activations) that no group names; they belong to the group
            of the module registered before them, so that a frozen group's dropout is off as well.
    """

    name: str
    index: int
    members: tuple[str, ...]
    strays: tuple[str, ...] = ()
    model: nn.Module = field(repr=False, compare=False, kw_only=True)

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the outermost modules of the group with their dotted names."""
        for name in (*self.members, *self.strays):
            member = _lookup(self.model, name)
            if isinstance(member, nn.Module):
                yield name, member

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of the group with their dotted names in the backbone."""
        for name in self.members:
            member = _lookup(self.model, name)
            if isinstance(member, nn.Module):
                yield from member.named_parameters(prefix=name)
            elif isinstance(member, nn.Parameter):
                yield name, member

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the group."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers of the group with their dotted names in the backbone."""
        for name in self.members:
            member = _lookup(self.model, name)
            if isinstance(member, nn.Module):
                yield from member.named_buffers(prefix=name)
            elif isinstance(member, Tensor) and not isinstance(member, nn.Parameter):
                yield name, member

    def buffers(self) -> Iterator[Tensor]:
        """Yield the buffers of the group."""
        return (buffer for _, buffer in self.named_buffers())


class LayerGroups(Sequence[LayerGroup]):
    """The ordered groups of one backbone, input side first: ``groups[0]``, ``groups["stage2"]``, ``groups[:3]``."""

    def __init__(self, groups: Iterable[LayerGroup], model: nn.Module) -> None:
        self._groups = tuple(groups)
        self.model = model

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups in forward order."""
        return tuple(group.name for group in self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, key: int | str) -> LayerGroup: ...

    @overload
    def __getitem__(self, key: slice) -> LayerGroups: ...

    def __getitem__(self, key: int | str | slice) -> LayerGroup | LayerGroups:
        if isinstance(key, slice):
            return LayerGroups(self._groups[key], self.model)
        return self._groups[self._position(key) if isinstance(key, str) else key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerGroups) and self._groups == other._groups

    def __hash__(self) -> int:
        return hash(self._groups)

    def __repr__(self) -> str:
        return f"LayerGroups({', '.join(self.names)})"

    def upto(self, name: str) -> LayerGroups:
        """Return the groups from the input to ``name``, inclusive."""
        return self[: self._position(name) + 1]

    def prefix_length(self, k: int | str) -> int:
        """Return the length of the frozen prefix ``k``, a number of groups or a group's name (inclusive).

        Raises:
            UnknownGroupError: If there is no such group, or fewer groups than ``k``.
        """
        if isinstance(k, str):
            return self._position(k) + 1
        if not is_whole(k):
            there = examples(self.names, LISTED)
            raise UnknownGroupError(
                f"a frozen prefix is a number of groups, or the name of the last one, not {k!r}; the groups are: {there}"
            )
        if not 0 <= k <= len(self):
            raise UnknownGroupError(
                f"a frozen prefix of {k} groups does not exist: it is 0 (none) to {len(self)} (all: {examples(self.names, LISTED)})"
            )
        return int(k)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every parameter of these groups once; a parameter tied across groups belongs to the first."""
        seen: set[int] = set()
        for group in self._groups:
            for name, parameter in group.named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield name, parameter

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield every parameter of these groups once."""
        return (parameter for _, parameter in self.named_parameters())

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise UnknownGroupError(
                f"there is no layer group {name!r}{did_you_mean(name, self.names)}; the groups are: {examples(self.names, LISTED)}"
            )
        return self.names.index(name)


def bind(model: nn.Module, layers: Layers, *, name: str = "", plugin: str = "") -> LayerGroups:
    """Bind declared layer groups to a model and check that they are a partition of its parameters and buffers.

    Args:
        model: The backbone.
        layers: Group name -> dotted names of submodules or bare parameters in forward order, or ``"module:function"``
            that computes such a mapping from the model. A name that ends in ``*`` is one group per child, one that ends in
            ``?`` may be absent.
        name: Name of the backbone, for messages.
        plugin: Distribution and version of the plugin that declared it, for messages.

    Raises:
        LayerGroupError: Listing every fault: names that do not exist, parameters in two groups or in none, empty groups.
    """
    mapping: Mapping[str, str | Sequence[str]] = load_function(layers)(model) if isinstance(layers, str) else layers
    faults: list[str] = []
    resolved = [pair for group, members in mapping.items() for pair in _expand(model, group, members, faults)]
    faults += _partition_faults(model, resolved)
    if faults:
        owner = " ".join(["backbone", *([repr(name)] if name else []), *([f"(plugin {plugin})"] if plugin else [])])
        hint = "See docs/layers.md" + (f", or run: zoo layers {name}" if name and not is_own(name) else "")
        raise LayerGroupError(fault_list(f"{owner}: the layer groups are not a partition of {type(model).__name__}", faults, hint))
    strays = _strays(model, resolved)
    groups = (LayerGroup(group, i, tuple(members), tuple(strays.get(i, ())), model=model) for i, (group, members) in enumerate(resolved))
    return LayerGroups(groups, model)


def _expand(model: nn.Module, group: str, members: str | Sequence[str], faults: list[str]) -> list[tuple[str, list[str]]]:
    """Resolve ``*`` and ``?`` of one declared group: a list of (group name, plain member names)."""
    names = [members] if isinstance(members, str) else list(members)
    starred = [name for name in names if name.rstrip("?").endswith("*")]
    if len(starred) > 1:
        faults.append(f"{group!r} has {len(starred)} names with '*' ({', '.join(starred)}); give each a group of its own")
        return []
    if not starred:
        present = _present(model, group, names, faults)
        # A group whose names may all be absent, such as a pooler, may itself be absent.
        return [(group, present)] if present or not all(name.endswith("?") for name in names) else []
    at = names.index(starred[0])
    before, after = _present(model, group, names[:at], faults), _present(model, group, names[at + 1 :], faults)
    children = _children(model, group, starred[0], faults)
    if not children:
        return [(group, before + after)] if before + after else []
    parts = [[child] for child in children]
    parts[0][:0] = before
    parts[-1] += after
    return [(f"{group}.{i}", part) for i, part in enumerate(parts)]


def _present(model: nn.Module, group: str, names: Sequence[str], faults: list[str]) -> list[str]:
    """Return the names that exist; required names that do not are added to the faults."""
    present = []
    for name in names:
        plain = name.removesuffix("?")
        if "*" in plain:
            faults.append(f"{group!r} names {name!r}; '*' stands alone at the end, as in 'blocks.*'")
        elif _lookup(model, plain) is not None:
            present.append(plain)
        elif not name.endswith("?"):
            faults.append(f"{group!r} names {plain!r}, which the model does not have{_nearest_member(model, plain)}")
    return present


def _children(model: nn.Module, group: str, starred: str, faults: list[str]) -> list[str]:
    parent = starred.rstrip("?").removesuffix("*").removesuffix(".")
    module = _lookup(model, parent) if parent else model
    if isinstance(module, nn.Module):
        children = [f"{parent}.{name}" if parent else name for name, _ in module.named_children()]
        if not children and not starred.endswith("?"):
            faults.append(f"{group!r} names {starred!r}, but {parent!r} has no children")
        return children
    if not starred.endswith("?"):
        faults.append(f"{group!r} names {starred!r}, which the model does not have{_nearest_member(model, parent)}")
    return []


def _lookup(model: nn.Module, name: str) -> nn.Module | Tensor | None:
    """Return the submodule, parameter or buffer with this dotted name, or None."""
    module: nn.Module | None = model
    *path, last = name.split(".")
    for part in path:
        module = module._modules.get(part) if module is not None else None
    if module is None:
        return None
    for table in (module._modules, module._parameters, module._buffers):
        entry: nn.Module | Tensor | None = table.get(last)
        if entry is not None:
            return entry
    return None


def _nearest_member(model: nn.Module, name: str) -> str:
    known = itertools.chain(model.named_modules(), model.named_parameters(), model.named_buffers())
    return did_you_mean(name, {key for key, _ in known if key and key.count(".") <= name.count(".")})


def _tensor_names(model: nn.Module) -> list[str]:
    parameters = model.named_parameters(remove_duplicate=False)
    return [name for name, _ in itertools.chain(parameters, model.named_buffers(remove_duplicate=False))]


def _partition_faults(model: nn.Module, resolved: Sequence[tuple[str, list[str]]]) -> list[str]:
    faults = [f"{name!r} is declared {times} times" for name, times in Counter(name for name, _ in resolved).items() if times > 1]
    owners: dict[str, list[str]] = {name: [] for name in _tensor_names(model)}
    for group, members in resolved:
        for member in members:
            for name in _tensors_of(model, member):
                owners[name].append(group)
        if not any(_tensors_of(model, member) for member in members):
            faults.append(f"{group!r} is empty: it holds no parameter of the model")
    overlaps: dict[tuple[str, ...], list[str]] = {}
    for name, groups in owners.items():
        if len(groups) > 1:
            overlaps.setdefault(tuple(groups), []).append(name)
    for groups_, names in overlaps.items():
        where = f"twice in {groups_[0]!r}" if len(set(groups_)) == 1 else f"both in {' and in '.join(map(repr, groups_))}"
        faults.append(f"{count(len(names), 'tensor')} {'is' if len(names) == 1 else 'are'} {where}, for example {names[0]}")
    homeless = [name for name, groups in owners.items() if not groups]
    if homeless:
        faults.append(f"{count(len(homeless), 'tensor')} {'is' if len(homeless) == 1 else 'are'} in no group: {examples(homeless)}")
    return faults


def _tensors_of(model: nn.Module, member: str) -> list[str]:
    entry = _lookup(model, member)
    return [f"{member}.{name}" for name in _tensor_names(entry)] if isinstance(entry, nn.Module) else [member]


def _strays(model: nn.Module, resolved: Sequence[tuple[str, list[str]]]) -> dict[int, list[str]]:
    """Return the modules outside every group, which have no tensors, by the group of the module registered before them."""
    owner = {member: index for index, (_, members) in enumerate(resolved) for member in members}
    inner = {prefix for member in owner for prefix in _prefixes(member)}
    strays: dict[int, list[str]] = {}

    def walk(module: nn.Module, prefix: str, last: int) -> int:
        for key, child in module.named_children():
            name = f"{prefix}{key}"
            if name in owner:
                last = owner[name]
            elif name in inner:
                last = walk(child, f"{name}.", last)
            else:
                strays.setdefault(last, []).append(name)
        return last

    walk(model, "", 0)
    return strays


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]

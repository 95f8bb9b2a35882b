"""Layer groups of any timm model: derived from timm's own coarse grouping, or written by hand where that fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from torch import nn

import zoo
from zoo_timm.literals import LITERALS

Groups = dict[str, list[str]]
NUMBERED = re.compile(r"(?:.*\.)?([a-z]+)(\d+)")  # layer1, s1, features.denseblock1
STAGES = ("Stage", "Level", "Layer")  # words in the class names of modules that hold several blocks
MOST_STAGES = 12  # what has more is a row of blocks, however each block is made
UNMATCHED = "no rule of timm matches this name"


def layers(model: nn.Module) -> Mapping[str, str | Sequence[str]]:
    """Return the layer groups of a timm model in forward order, for ``zoo.bind``.

    A family with a literal of its own gets that. For the others, every parameter goes to the group that timm's coarse
    ``group_matcher`` gives it (what it gives to the head joins the last group), and parameter names are lifted to the
    smallest set of module names that says the same.
    """
    family = type(model).__name__
    for key, literal in LITERALS.items():
        name, _, needs = key.partition("+")
        if name == family and (not needs or getattr(model, needs, None) is not None):
            return literal
    return derived(model)


def derived(model: nn.Module) -> Groups:
    """Derive groups from timm's coarse ``group_matcher``; the first is ``stem``, the others ``block.0`` or ``stage1`` and so on."""
    owner = _ordinals(model)
    members: dict[int, list[str]] = {ordinal: [] for ordinal in sorted(set(owner.values()))}
    for name, ordinal in _lifted(model, "", owner):
        members[ordinal].append(name)
    return _named(model, list(members.values()))


class _Names:
    """Stands for a model where timm asks for its named parameters."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def named_parameters(self) -> Iterator[tuple[str, None]]:
        return ((name, None) for name in self.names)


def _ordinals(model: nn.Module) -> dict[str, int]:
    """Map every parameter and buffer to the ordinal of its group."""
    from timm.models import group_parameters

    rules = _rules(model)
    parameters = [name for name, _ in model.named_parameters()]
    names: Any = _Names([*parameters, UNMATCHED])
    owner: dict[str, int] = group_parameters(names, rules, reverse=True)
    _join_leftovers(owner, rules)
    # A buffer, or a second name of a shared parameter, belongs with the parameters beside it.
    for name in _tensors(model):
        if name not in owner:
            owner[name] = _beside(name, owner)
    return owner


def _rules(model: nn.Module) -> Any:
    matcher: Callable[..., Any] | None = getattr(model, "group_matcher", None)
    if matcher is None:
        raise zoo.ZooError(
            f"timm's {type(model).__name__} does not group its layers and zoo-timm has no groups of its own for it; "
            "declare a BackboneSpec with 'layers' for it in a plugin (see docs/write-a-plugin.md)"
        )
    try:
        return matcher(coarse=True)
    except AssertionError:  # some families refuse the coarse grouping
        return matcher(coarse=False)


def _join_leftovers(owner: dict[str, int], rules: Any) -> None:
    """Move what no rule matches, which timm counts to the head, into the last group that has a rule; in place."""
    leftover = owner.pop(UNMATCHED)
    ruled = set(owner.values()) - {leftover}
    if isinstance(rules, Mapping) or rules(UNMATCHED) == float("inf"):
        for name, ordinal in owner.items():
            if ordinal == leftover and ruled:
                owner[name] = max(ruled)


def _beside(name: str, owner: Mapping[str, int]) -> int:
    path = name.rpartition(".")[0]
    while path:
        below = [ordinal for key, ordinal in owner.items() if key.startswith(f"{path}.")]
        if below:
            return min(below)
        path = path.rpartition(".")[0]
    return 0


def _lifted(module: nn.Module, prefix: str, owner: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield the fewest dotted names, with their ordinals, that hold every tensor of ``module``."""
    for key, _ in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
        yield f"{prefix}{key}", owner[f"{prefix}{key}"]
    for key, child in module.named_children():
        ordinals = {owner[f"{prefix}{key}.{name}"] for name in _tensors(child)}
        if len(ordinals) == 1:
            yield f"{prefix}{key}", ordinals.pop()
        elif ordinals:
            yield from _lifted(child, f"{prefix}{key}.", owner)


def _tensors(module: nn.Module) -> list[str]:
    tables = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return [name for name, _ in chain(*tables)]


def _named(model: nn.Module, groups: list[list[str]]) -> Groups:
    """Name the groups: ``stem``, then the numbers that timm itself gives (``stage1``), else ``block.0`` or ``stage.0``."""
    mains = [max(members, key=lambda name: _size(model, name)) for members in groups[1:]]
    numbers = [match[2] for main in mains if (match := NUMBERED.fullmatch(main)) and match[1] != "block"]
    if len(numbers) == len(mains):
        names = [f"stage{number}" for number in numbers]
    else:
        stages = any(_is_stage(model, main) for main in mains) or any(len(members) > 3 for members in groups[1:-1])
        stages = stages and len(mains) <= MOST_STAGES
        names = [f"{'stage' if stages else 'block'}.{i}" for i in range(len(mains))]
    return dict(zip(["stem", *names], groups, strict=True))


def _is_stage(model: nn.Module, name: str) -> bool:
    module = model.get_submodule(name)
    holds_several = isinstance(module, nn.Sequential | nn.ModuleList) or any(word in type(module).__name__ for word in STAGES)
    return holds_several or name.rpartition(".")[0].endswith("stages")


def _size(model: nn.Module, name: str) -> int:
    path, _, last = name.rpartition(".")
    found = getattr(model.get_submodule(path), last)
    tensors = found.parameters() if isinstance(found, nn.Module) else [found]
    return sum(tensor.numel() for tensor in tensors)

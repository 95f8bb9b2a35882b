"""The backbones of one plugin: all names at hand, each spec made at its first use."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

from zoo.declare import BackboneSpec


class SpecList:
    """Specs by position, in the plugin's order, and by name.

    Args:
        names: Name of every spec; one that stands here twice is a fault that the registry reports.
        make: Returns the spec at a position.
    """

    def __init__(self, names: Sequence[str], make: Callable[[int], BackboneSpec]) -> None:
        self.names = names
        self._make = make
        self._made: dict[int, BackboneSpec] = {}

    @classmethod
    def of(cls, specs: Sequence[BackboneSpec]) -> SpecList:
        """Return the list of specs that exist already."""
        return cls([spec.name for spec in specs], specs.__getitem__)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> BackboneSpec:
        if position not in self._made:
            self._made[position] = self._make(position)
        return self._made[position]

    def __iter__(self) -> Iterator[BackboneSpec]:
        return (self[position] for position in range(len(self)))

    def __contains__(self, name: str) -> bool:
        return name in self._last

    def named(self, name: str) -> list[BackboneSpec]:
        """Return the specs of a name: one, none, or several where the plugin lists it more than once."""
        last = self._last.get(name)
        return [] if last is None else [self[position] for position in (*self._earlier.get(name, ()), last)]

    @cached_property
    def _last(self) -> dict[str, int]:
        return dict(zip(self.names, range(len(self)), strict=True))

    @cached_property
    def _earlier(self) -> Mapping[str, list[int]]:
        """Positions of names that are listed again further on."""
        earlier: dict[str, list[int]] = {}
        if len(self._last) < len(self):
            for position, name in enumerate(self.names):
                if self._last[name] != position:
                    earlier.setdefault(name, []).append(position)
        return earlier


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection, which would double the time of making very many specs that all stay alive."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()

"""The content of a pickled file without its code: descriptions of its tensors, and inert records of all other objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.weights.safetensors_header import MAX_TENSORS

MAX_NESTED = 100  # modules within each other


class Record:
    """A pickled object that was not built.

    Attributes:
        path: Dotted name of its class or function.
        state: What the pickle sets as its state, or None.
    """

    path = ""
    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take whatever a constructor is given."""

    def __call__(self, *_: Any, **__: Any) -> Record:
        """Return a record of what a call of the object would give."""
        return type(self)()

    def __setstate__(self, state: Any) -> None:
        """Store the state; none of it becomes an attribute."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item of a mapping."""

    def append(self, item: Any) -> None:
        """Drop an item of a list."""

    def extend(self, items: Any) -> None:
        """Drop items of a list."""

    def add(self, item: Any) -> None:
        """Drop an item of a set."""


class Stored(NamedTuple):
    """A tensor of the file: numbers alone, because the methods of a torch tensor would be at the pickle's disposal.

    Attributes:
        storage: Position of its storage in ``Records.storages``.
        offset: Position of its first value in the storage.
        size: Its shape.
        stride: Its strides.
    """

    storage: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Records(NamedTuple):
    """Content of a pickled file.

    Attributes:
        found: The object, with ``Stored`` for tensors and ``Record`` for what is not a container.
        storages: Values of the storages, each in one dimension.
    """

    found: Any
    storages: list[Tensor]

    def tensor(self, stored: Stored) -> Tensor:
        """Return a tensor.

        Raises:
            RuntimeError: If it does not lie within its storage.
            IndexError: If there is no such storage.
        """
        return torch.as_strided(self.storages[stored.storage], stored.size, stored.stride, stored.offset)


def module_tensors(record: Record) -> dict[str, Stored]:
    """Return the parameters and persistent buffers of a pickled ``nn.Module`` by their dotted names; empty if it is another object.

    Raises:
        ValueError: If its modules contain each other, or have more modules or tensors than ``MAX_TENSORS``.
    """
    found: dict[str, Stored] = {}
    modules = [(record, "", 0)]
    for number, (module, prefix, depth) in enumerate(modules):  # grows meanwhile
        if depth > MAX_NESTED or number > MAX_TENSORS or len(found) > MAX_TENSORS:
            raise ValueError(f"modules nested more than {MAX_NESTED} deep, or more than {MAX_TENSORS} of them or of their tensors")
        state = module.state if isinstance(module.state, Mapping) else {}
        left_out = state.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            skipped = left_out if kind == "_buffers" and isinstance(left_out, set) else ()
            found |= {f"{prefix}{name}": one for name, one in _entries(state, kind) if isinstance(one, Stored) and name not in skipped}
        modules += [(one, f"{prefix}{name}.", depth + 1) for name, one in _entries(state, "_modules") if isinstance(one, Record)]
    return found


def _entries(state: Mapping[Any, Any], key: str) -> list[tuple[str, Any]]:
    held = state.get(key)
    return [(name, value) for name, value in held.items() if isinstance(name, str)] if isinstance(held, Mapping) else []

"""Items of torch datasets, fetched one by one; the errors of a dataset name the item."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

from zoo.data.sources.other_libraries import imported_class
from zoo.errors import CorruptInputError, ZooError

_WHOLE = object()


class Items(Sequence[Any]):
    """One element of each item of a dataset: position 0 of its tuples, or a key of its dicts; without ``part`` the item itself."""

    def __init__(self, dataset: Any, part: Any = _WHOLE, broken: frozenset[int] = frozenset()) -> None:
        self.dataset, self.part = dataset, part
        self.broken = broken  # items that could not be read once, and have no label
        self.whole = part is _WHOLE  # survives pickling, which _WHOLE does not

    def of(self, dataset: Any) -> Items:
        """Return the same element of the items of another dataset."""
        return Items(dataset) if self.whole else Items(dataset, self.part)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        """Return one element.

        Raises:
            CorruptInputError: If the dataset raises or has None there, with the index and the error.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends an iteration
        if index in self.broken:
            raise _is_none(self.dataset, index)
        found = fetch(self.dataset, int(index), (self.part,) if not self.whole else ())
        if found is None:
            raise _is_none(self.dataset, index)
        return found


def _is_none(dataset: Any, index: int) -> CorruptInputError:
    remedy = "on_corrupt='skip' leaves out such images in training, and a Subset of the others does everywhere"
    return CorruptInputError(f"item {index} of the dataset {type(dataset).__name__} is None or cannot be read; {remedy}")


def fetch(dataset: Any, index: int, parts: Sequence[Any] = ()) -> Any:
    """Return an item of a dataset, or the part of it that a path of keys and positions leads to.

    Raises:
        CorruptInputError: If the dataset raises or its item is None, or the part is missing.
    """
    try:
        found = dataset[index]
        if found is None:
            raise _is_none(dataset, index)
        for part in parts:
            found = found[part]
        return found
    except ZooError:
        raise
    except Exception as error:  # a dataset of the user's own may raise anything
        name = type(dataset).__name__
        raise CorruptInputError(f"item {index} of the dataset {name} cannot be read: {type(error).__name__}: {error}") from error


def below_wrapper(dataset: Any, index: int) -> tuple[Any, int] | None:
    """Return the dataset below a ``Subset`` or a ``ConcatDataset``, and the index there; None for other datasets."""
    if type(dataset) is torch_class("Subset"):
        return dataset.dataset, int(dataset.indices[index])
    if type(dataset) is torch_class("ConcatDataset"):
        part = bisect.bisect_right(dataset.cumulative_sizes, index)
        return dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0)
    return None


def column_of_tensors(items: Items) -> Any:
    """Return the tensor that a column of a ``TensorDataset`` is; None for other datasets."""
    known = type(items.dataset) is torch_class("TensorDataset") and not items.whole
    return items.dataset.tensors[items.part] if known else None


def of_each(dataset: Any, get: Callable[[int], Any], *, skip: bool) -> tuple[list[Any], frozenset[int]]:
    """Return a value for each item, and the items that cannot be read: these have the value of another one, and are left out later.

    Raises:
        CorruptInputError: If one cannot be read, unless ``skip``.
    """
    values, broken = list[Any](), set[int]()
    for index in range(len(dataset)):
        try:
            values.append(get(index))
        except CorruptInputError:
            if not skip:
                raise
            values.append(None)
            broken.add(index)
    other = next((value for index, value in enumerate(values) if index not in broken), None)
    return [other if index in broken else value for index, value in enumerate(values)], frozenset(broken)


def plain(value: Any) -> Any:
    """Return a value of Python for one of an array or a tensor."""
    return value.tolist() if hasattr(value, "tolist") else value


def torch_class(name: str) -> Any:
    """Return a class of ``torch.utils.data``, or one of which nothing is an instance if torch is not imported."""
    return imported_class("torch.utils.data", name)

"""Training sources of an objective, and their streams of batches in a phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.engine.loading.order import Indices
from zoo.errors import OptionError

Function = Callable[[Any], Tensor]
"""From inputs to one row of outputs per sample."""


@dataclass(frozen=True)
class Source:
    """Data that an objective trains on.

    Attributes:
        table: The data; unlabelled ones have no targets.
        views: Views of each sample in one step, augmented independently; those after the first are ``Batch.views``.
        temperature: Of several tasks, how evenly they are drawn: a task with n labels as often as ``n ** (1 / temperature)`` says, 1 by
            size and infinity equally.
        in_turn: Of several tasks, whether each batch has samples with the label of one task, the tasks in turn.
    """

    table: Table
    views: int = 1
    temperature: float = 1.0
    in_turn: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.views, int) or self.views < 1:
            raise OptionError(f"views of a Source is {self.views!r}; it must be a whole number of at least 1")
        if not self.temperature >= 1:
            raise OptionError(f"temperature of a Source is {self.temperature!r}; it must be at least 1")
        if (self.temperature != 1 or self.in_turn) and not self.table.parts:
            raise OptionError("temperature and in_turn of a Source are for a table of several tasks, and this one has one")


class BatchSource(Protocol):
    """A loader, or stored activations in its place."""

    @property
    def samples(self) -> Any:
        """The samples of the batches."""

    def batches(self, order: Sequence[Indices], epoch: int = 0) -> Iterable[Batch]:
        """Yield the batches of an order, on the device."""


@dataclass(frozen=True)
class Stream:
    """The batches of one source in one phase.

    Attributes:
        batches: Gives the batches of an order in an epoch.
        lengths: Tokens per sample, by which batches are best grouped, or None.
    """

    batches: Callable[[Sequence[Indices], int], Iterable[Batch]]
    lengths: npt.NDArray[np.int64] | None = None

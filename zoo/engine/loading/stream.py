"""Training sources of an objective, and their streams of batches in a phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.data.images.augment import Augment
from zoo.data.table import Table
from zoo.data.texts.augment import TextAugment
from zoo.engine.loading.order import Indices
from zoo.errors import OptionError

Function = Callable[[Any], Tensor]
"""From inputs to one row of outputs per sample."""


@dataclass(frozen=True)
class View:
    """How a view of each sample is made, in every phase, where it differs from the training images of the run.

    Attributes:
        augment: The augmentation, of texts a ``TextAugment``.
        size: Height and width in pixels; None for the model's.
    """

    augment: Augment | TextAugment
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Source:
    """Data that an objective trains on.

    Attributes:
        table: The data; unlabelled ones have no targets.
        views: Views of each sample in one step, drawn independently: their number, all as the run augments its training images, or a
            ``View`` for each, which are drawn anew in each epoch and never stored. Those after the first are
            ``Batch.views``.
        ratio: Of a source after the first, samples of a batch for each sample of the first source in it.
        temperature: Of several tasks, how evenly they are drawn: a task with n labels as often as ``n ** (1 / temperature)`` says, 1 by
            size and infinity equally.
        in_turn: Of several tasks, whether each batch has samples with the label of one task, the tasks in turn.
    """

    table: Table
    views: int | Sequence[View] = 1
    temperature: float = 1.0
    in_turn: bool = False
    ratio: int = 1

    def __post_init__(self) -> None:
        views = self.views
        if not (views >= 1 if isinstance(views, int) else views and all(isinstance(view, View) for view in views)):
            raise OptionError(f"views of a Source is {views!r}; it must be a whole number of at least 1, or a list of zoo.View")
        if not isinstance(self.ratio, int) or self.ratio < 1:
            raise OptionError(f"ratio of a Source is {self.ratio!r}; it must be a whole number of at least 1")
        if not self.temperature >= 1:
            raise OptionError(f"temperature of a Source is {self.temperature!r}; it must be at least 1")
        if (self.temperature != 1 or self.in_turn) and not self.table.parts:
            raise OptionError("temperature and in_turn of a Source are for a table of several tasks, and this one has one")

    @property
    def number_of_views(self) -> int:
        """Views of each sample."""
        return self.views if isinstance(self.views, int) else len(self.views)

    @property
    def own_views(self) -> Sequence[View]:
        """The views that say how they are made; empty where the run does."""
        return () if isinstance(self.views, int) else self.views


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

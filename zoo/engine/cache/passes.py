"""Passes over all samples of a table without gradients, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from zoo.engine.inference.batched_inference import Outputs, in_batches_that_fit, run_all, run_words
from zoo.engine.loading.stream import BatchSource, Function
from zoo.engine.rundir.run_context import RunContext

T = TypeVar("T")


class Passes:
    """The passes of one run.

    Args:
        context: The conditions of the run.

    Attributes:
        divisor: Factor by which running out of memory has reduced the batch size.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.divisor = 1

    @property
    def batch_size(self) -> int:
        """Samples per forward. Without gradients twice as many fit as in training."""
        return max(1, 2 * -(-self._context.config.samples // self._context.ranks.count) // self.divisor)

    def run(self, forward: Function, source: BatchSource, count: int, title: str, *, view: int = 0, words: bool = False) -> Outputs:
        """Return the outputs of a function for all samples, ``(samples, …)``.

        Args:
            forward: From a batch of inputs to a batch of outputs.
            source: Gives the batches.
            count: Number of samples.
            title: What the progress bar calls the pass.
            view: Number of the augmented view.
            words: Whether the outputs are per word, see ``run_words``.
        """
        self._context.progress.begin(title, count)
        options: dict[str, Any] = {"each": self.after_batch, "ranks": self._context.ranks}
        if words:
            return self.in_batches_that_fit(lambda size: run_words(forward, source, count, size, **options))
        return self.in_batches_that_fit(lambda size: run_all(forward, source, count, size, epoch=view, **options))

    def in_batches_that_fit(self, run: Callable[[int], T]) -> T:
        """Call ``run`` with the batch size; if memory runs out on a single process, again with half of it."""
        return in_batches_that_fit(run, self.batch_size, halved=self._halve if self._context.ranks.count == 1 else None)

    def after_batch(self, done: int) -> None:
        """Show progress after a batch, and raise if a signal came or another rank failed."""
        progress, ranks = self._context.progress, self._context.ranks
        if progress.due:
            progress.step(done)
        with ranks.together() if ranks.lockstep else nullcontext():
            self._context.stop.poll()
        ranks.raise_if_another_rank_failed()

    def _halve(self) -> None:
        self.divisor *= 2

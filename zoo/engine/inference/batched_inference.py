"""Batched inference, sorted by length to save padding; outputs are in the order of the samples."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from zoo.data.texts.token_ids import TextSamples
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.loading.order import ordered_batches
from zoo.engine.loading.stream import BatchSource, Function
from zoo.engine.runtime.oom import is_out_of_memory
from zoo.errors import TrainingError, count
from zoo.tasks.token_classification import IGNORED

log = logging.getLogger("zoo")
T = TypeVar("T")
Outputs: TypeAlias = "npt.NDArray[np.float32]"


def run_all(
    forward: Function,
    loader: BatchSource,
    count: int,
    batch_size: int,
    *,
    each: Callable[[int], None],
    epoch: int = 0,
    ranks: Ranks | None = None,
) -> Outputs:
    """Run ``forward`` over samples 0 … ``count`` - 1 without gradients, and return its outputs ``(count, …)``.

    A sample that its batch leaves out has zeros; if all are left out, the outputs are ``(count, 0)``.

    Args:
        forward: From a batch of inputs to a batch of outputs.
        loader: Gives the batches.
        count: Number of samples, at least 1.
        batch_size: Samples per forward.
        each: Called with the number of samples done after every batch; may raise to stop.
        epoch: Epoch of the random numbers of an augmentation.
        ranks: Processes that share the samples; each gets all outputs.
    """
    result: Outputs | None = None
    done = 0
    ranks = ranks or Ranks()
    order, shared = ranks.share(ordered_batches(count, batch_size, loader.samples.lengths))
    with ranks.together(), torch.no_grad():
        for batch in loader.batches(order, epoch):
            if not batch.indices:  # none of its samples could be read
                continue
            outputs = forward(batch.x).float().cpu().numpy()
            if result is None:
                result = np.zeros((count, *outputs.shape[1:]), dtype=np.float32)
            result[batch.indices] = outputs
            done += len(batch.indices)
            each(done)
    if result is None:
        return np.full((count, 0), np.nan, dtype=np.float32)
    return ranks.fill(result) if shared else result


def in_batches_that_fit(run: Callable[[int], T], size: int, *, halved: Callable[[], None] | None = None) -> T:
    """Run a pass in batches of ``size`` samples, halved each time memory runs out.

    Args:
        run: The pass, given the samples per forward.
        size: Samples per forward.
        halved: Called after each halving; None if the batch size is fixed, because other ranks use the same.

    Raises:
        TrainingError: If it is fixed, or one sample alone does not fit.
    """
    while True:
        try:
            return run(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size == 1 or halved is None:
                remedy = "lower batch_size" if size > 1 else "make the inputs smaller (image_size=, max_length=)"
                raise TrainingError(f"out of memory during inference, in batches of {count(size, 'sample')}; {remedy}") from error
        gc.collect()
        size //= 2
        halved()
        log.warning("out of memory during inference: going on with batches of %s", count(size, "sample"))


def run_words(
    forward: Function, loader: BatchSource, count: int, batch_size: int, *, each: Callable[[int], None], ranks: Ranks | None = None
) -> Outputs:
    """Run ``forward`` over sentences given as words, and return an array of ``count`` arrays ``(words, classes)``.

    A word that was cut off, or that the tokenizer drops, has NaN.
    """
    samples = loader.samples
    assert isinstance(samples, TextSamples)
    result = np.empty(count, dtype=object)
    done = 0
    ranks = ranks or Ranks()
    order, shared = ranks.share(ordered_batches(count, batch_size, samples.lengths))
    with ranks.together(), torch.no_grad():
        for batch in loader.batches(order, 0):
            outputs, first = forward(batch.x).float().cpu().numpy(), batch.y.cpu().numpy() != IGNORED
            for row, index in enumerate(batch.indices):
                logits = np.full((len(samples.table.inputs[index]), outputs.shape[-1]), np.nan, dtype=np.float32)
                logits[samples.words(index)] = outputs[row][first[row]]
                result[index] = logits
            done += len(batch.indices)
            each(done)
    if shared:
        found = {index: logits.tolist() for index, logits in enumerate(result) if logits is not None}
        for part in ranks.gather(found):
            for index, logits in part.items():
                result[int(index)] = np.asarray(logits, dtype=np.float32)
    return result

"""One optimizer step: gradients over micro-batches and ranks that equal those of the whole batch."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NoReturn

import torch
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.engine.cache.activation_cache import cut
from zoo.engine.cache.forward import Forward
from zoo.engine.distributed.gradient_exchange import GradientExchange
from zoo.engine.distributed.ranks import Agreed, Ranks, Status, described
from zoo.engine.objective.objective import Objective
from zoo.engine.optim.nonfinite import Guard, NonFiniteError
from zoo.engine.runtime.oom import is_out_of_memory
from zoo.engine.runtime.rollback import Undo
from zoo.errors import RankError, TrainingError
from zoo.tuning.statistics import is_single_value

log = logging.getLogger("zoo")
Load = Callable[[], Sequence[Mapping[str, Batch]]]
_REMEDY = "freeze more groups (freeze=), train with recipe='lora' or recompute=True, or make the inputs smaller (image_size=, max_length=)"


@dataclasses.dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        number: Its number in the epoch, from 0.
        samples: Samples of the first source in the step, on all ranks.
        forward: Passes through the model.
        asked: Returns the request of this rank after the backward: ``STOP`` after a signal, ``SAVE``, or ``FINE``.
        explain: Makes the error for a loss that is not finite.
    """

    number: int
    samples: int
    forward: Forward
    asked: Callable[[], Status]
    explain: Callable[[NonFiniteError], Exception]


class Stepper:
    """Takes optimizer steps; one that fails changes nothing.

    The loss of a step is the sum over all its samples divided by their weight, for any number of accumulated batches, ranks and
    micro-batches. So a step that runs out of memory is retried with micro-batches of half the size, and its gradients are the
    same up to rounding.

    Args:
        objective: What is minimised.
        optimizer: The optimizer.
        guard: Checks losses and gradients.
        ranks: The processes of the run.
        device: Where the model runs.

    Attributes:
        micro_batches: Micro-batches per batch.
    """

    def __init__(self, objective: Objective, optimizer: torch.optim.Optimizer, guard: Guard, ranks: Ranks, device: torch.device) -> None:
        self.micro_batches = 1
        self._objective, self._optimizer, self._guard, self._ranks = objective, optimizer, guard, ranks
        self._first = next(iter(objective.sources))
        self._undo = Undo(objective.module, device)
        self._exchange = GradientExchange(ranks, ())
        self._share = 1.0  # this rank's share of the step's samples

    def begin(self, micro_batches: int) -> None:
        """Collect the parameters that train; to be called at the start of every epoch, with the model in training mode.

        Args:
            micro_batches: Micro-batches per batch.
        """
        self.micro_batches = micro_batches
        trained = [parameter for parameter in self._objective.module.parameters() if parameter.requires_grad]
        self._exchange = GradientExchange(self._ranks, trained)
        self._undo.look()

    def take(self, load: Load, step: Step) -> tuple[Tensor | float, Status]:
        """Take one step; see ``compute`` and ``update``."""
        result = self.compute(load, step)
        self.update()
        return result

    def compute(self, load: Load, step: Step) -> tuple[Tensor | float, Status]:
        """Compute the gradients of one step; after an error the state is as before.

        Args:
            load: Returns this rank's batches of the step.
            step: The step.

        Returns:
            This rank's share of the step's mean loss, and the strongest request of any rank.

        Raises:
            TrainingError: If one sample alone does not fit into memory.
            RankError: If another rank failed.
        """
        batches, weight = self._load(load)
        self._undo.remember()
        value, verdict = self._backward(batches, weight, step)
        try:
            self._guard.check_gradients(step.number)
        except NonFiniteError as error:
            self._undo.bring_back()
            raise step.explain(error) from error
        if self._guard.deferred:
            self._undo.bring_back_statistics(self._guard.bad)
        self._share = sum(map(self._size, batches)) / step.samples
        return value, verdict

    def update(self) -> None:
        """Update the parameters with the gradients."""
        try:
            self._optimizer.step()
        except Exception as error:
            if is_out_of_memory(error):
                raise TrainingError(f"the optimizer's own values do not fit into memory beside the model; {_REMEDY}") from error
            raise
        self._optimizer.zero_grad(set_to_none=True)
        self._ranks.average(self._undo.statistics, self._share)
        self._objective.after_step()

    def _size(self, batch: Mapping[str, Batch]) -> int:
        return len(batch[self._first].indices)

    def _cut(self, batch: Mapping[str, Batch], part: slice) -> Mapping[str, Batch]:
        """Return a part of a batch, given by its samples of the first source; of other sources, which may have more, the same share."""
        size = self._size(batch)
        parts = {name: (part.start * len(one.indices) // size, part.stop * len(one.indices) // size) for name, one in batch.items()}
        return {name: cut(one, slice(*parts[name])) for name, one in batch.items()}

    def _backward(self, batches: Sequence[Mapping[str, Batch]], weight: Tensor | float, step: Step) -> tuple[Tensor | float, Status]:
        """Compute the gradients of the whole step on every rank, in micro-batches that fit; returns as ``compute`` does."""
        while True:
            caught: Exception | None = None
            verdict: Status | None = None
            value: Tensor | float = 0.0
            self._exchange.begin()
            self._objective.before_step()
            try:
                value = self._gradients(batches, weight, step)
                self._exchange.send_rest()
            except Agreed as other:  # another rank failed and all ranks have agreed; it still expects this rank's buckets
                verdict, caught = other.verdict, other.error
            except Exception as error:
                if isinstance(error, RankError) and not self._ranks.lockstep:
                    raise  # the process group is broken, so no agreement is possible; the error names the cause
                caught = error
                if self._ranks.lockstep:
                    self._give_up(error, step.explain)
            if caught is not None and is_out_of_memory(caught):
                _release(caught)
            if caught is not None or verdict is not None:
                self._exchange.send_zeros()
            self._exchange.send_values(self._guard.flags)
            total_missing: Tensor | float = 0.0
            if verdict is None:
                status = step.asked() if caught is None else _status(caught)
                verdict, total_missing = self._ranks.agree_and_add(status, self._exchange.missing, described(caught) if caught else "")
            if verdict < Status.OUT_OF_MEMORY:
                break
            self._exchange.discard()
            self._undo.bring_back()
            self._guard.forget()
            if verdict == Status.NOT_FINITE:
                raise step.explain(NonFiniteError("loss", step.number)) from caught
            if verdict == Status.FAILED and caught is not None:
                raise caught
            self._halve(batches, caught)
        self._exchange.finish(float(total_missing))
        if self._ranks.lockstep:  # the backward has summed the gradients
            self._ranks.add(self._guard.flags)
        return value, verdict

    def _give_up(self, error: Exception, explain: Callable[[NonFiniteError], Exception]) -> NoReturn:
        """End a sharded step, which cannot be retried as the other ranks are in the middle of it."""
        self._undo.bring_back()
        if isinstance(error, NonFiniteError):
            raise explain(error) from error
        if is_out_of_memory(error):
            raise TrainingError("out of memory, and a sharded run does not go on with smaller micro-batches; lower batch_size") from error
        raise self._ranks.lost(error) or error

    def _load(self, load: Load) -> tuple[Sequence[Mapping[str, Batch]], Tensor | float]:
        """Return this rank's batches, and the weight of the whole step on all ranks."""
        batches: Sequence[Mapping[str, Batch]] = ()
        weight: Tensor | float = 0.0
        caught: Exception | None = None
        try:
            batches = load()
            for batch in batches:
                weight = weight + self._objective.weight(batch)
        except Exception as error:
            caught = error
        status = Status.FINE if caught is None else Status.FAILED  # smaller micro-batches would not help loading
        message = described(caught) if caught else ""
        if self._undo.device.type == "cuda" and self._ranks.count > 1:  # on the device, without waiting for the GPU
            self._ranks.agree(status, message)
            total = torch.zeros((), device=self._undo.device) + weight
            self._ranks.add([total] if caught is None else [])
            weight = total
        else:
            _, weight = self._ranks.agree_and_add(status, weight, message)
        if caught is not None:
            raise caught
        return batches, weight

    def _gradients(self, batches: Sequence[Mapping[str, Batch]], weight: Tensor | float, step: Step) -> Tensor | float:
        objective = self._objective
        value: Tensor | float = 0.0
        copies = 1 if objective.separable else self._ranks.count  # of a loss that every rank computes in full
        pieces = [(batch, part) for batch in batches for part in _slices(self._size(batch), self.micro_batches)]
        for number, (batch, part) in enumerate(pieces, 1):
            piece = batch if part.stop - part.start == self._size(batch) else self._cut(batch, part)
            with step.forward.autocast(), _naming_single_values():
                total = objective.loss(step.forward, piece)
            if not isinstance(total, Tensor) or total.numel() != 1:
                found = f"a tensor of shape {tuple(total.shape)}" if isinstance(total, Tensor) else type(total).__name__
                raise TrainingError(f"loss() of {objective.name!r} returned {found}; it must return the sum over the batch, one number")
            if not total.requires_grad:
                raise TrainingError(
                    f"loss() of {objective.name!r} returned a number without gradient: no parameter that trains takes part in it; "
                    "look for detach(), item() or no_grad(), and for a head without parameters"
                )
            if copies > 1 and step.number == 0:
                self._check_equal(float(total.detach()))
            loss = total / weight
            value = value + self._guard.check_loss(loss if copies == 1 else loss / copies, step.number)
            penalty = objective.penalty(piece)
            if penalty is not None:
                loss = loss + penalty * ((part.stop - part.start) / step.samples)
            with self._exchange.sending() if number == len(pieces) else nullcontext():
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        return value

    def _check_equal(self, loss: float) -> None:
        """Check that a loss of whole batches is the same on all ranks."""
        mean = self._ranks.sum_or_stop(loss) / self._ranks.count
        if abs(loss - mean) > 1e-3 * max(abs(mean), 1e-6):
            raise TrainingError(
                f"loss() of {self._objective.name!r} is {loss:g} on this process and {mean:g} on average; with separable=False it must be "
                "of the rows of all processes: apply the modules, then forward.gather(…) to everything that it needs, labels too"
            )

    def _halve(self, batches: Sequence[Mapping[str, Batch]], caught: Exception | None) -> None:
        """Halve the micro-batches for the retry."""
        self._optimizer.zero_grad(set_to_none=True)
        if not self._objective.separable:
            cause = f"a batch does not fit into memory, and the loss of {self._objective.name} needs it as a whole"
            raise TrainingError(f"{cause}; lower batch_size") from caught
        largest = max(map(self._size, batches), default=1)
        sizes = max(self._ranks.gather(-(-largest // self.micro_batches)))
        if sizes == 1:
            raise TrainingError(f"one sample alone does not fit into memory; {_REMEDY}") from caught
        if self._undo.device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batches *= 2
        norms = "; BatchNorm takes its statistics from the smaller batches" if self._undo.statistics else ""
        log.warning(
            "out of memory: going on with micro-batches of %d samples, as many per step as before%s",
            -(-largest // self.micro_batches),
            norms,
        )


def _slices(size: int, count: int) -> Iterator[slice]:
    step = -(-size // count)
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _release(caught: Exception) -> None:
    """Free the activations that a traceback holds."""
    caught.__traceback__ = None
    gc.collect()


def _status(caught: Exception) -> Status:
    if isinstance(caught, NonFiniteError):
        return Status.NOT_FINITE
    return Status.OUT_OF_MEMORY if is_out_of_memory(caught) else Status.FAILED


@contextmanager
def _naming_single_values() -> Iterator[None]:
    """Tell what a BatchNorm needs, which torch says of its own input only."""
    try:
        yield
    except ValueError as error:
        if not is_single_value(error):
            raise
        raise TrainingError(
            "a batch has one sample, and a BatchNorm that sees one pixel of it has no variance; take a batch_size of 3 or more "
            "(of an odd number of samples, batches of 2 leave one alone), freeze_bn=True, or larger images (image_size=)"
        ) from error

"""Skip updates with NaN or infinite loss or gradients.

On the CPU every loss and every gradient norm is checked before the optimizer steps. On a GPU that would stall the queue at each
step, so the same test stays on the device: a fused optimizer skips its update where ``found_inf`` is set, and the flag is read
every ``EVERY`` steps and at the end of an epoch. Either way no non-finite update is ever made; there only the message may come
late, and it names the step that was first. ``bad`` is for whatever else must not be changed by such a step. An optimizer that
cannot skip its update by itself is checked as on the CPU, also on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from zoo.engine.optim.optimizer import takes_found_inf
from zoo.tuning.shard import gathered

EVERY = 50


class NonFiniteError(Exception):
    """Raised inside the engine; carries what was not finite, and in which step of the epoch."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"the {what} of step {step} is not finite")
        self.what, self.step = what, step


class Guard:
    """Watches the losses and gradients of one run.

    Args:
        optimizer: The optimizer.
        parameters: What it trains.
        device: Where the model runs.
        clip: Largest gradient norm, or None.
        immediate: Raise at once also where that waits for a GPU: for trials that leave no trace.

    Attributes:
        deferred: Whether what was not finite is told by ``check``, later.
        bad: Where it is deferred, whether the last step was not finite, on the device.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        device: torch.device,
        clip: float | None,
        *,
        immediate: bool = False,
    ) -> None:
        self._optimizer, self._parameters, self._clip = optimizer, list(parameters), clip
        self.deferred = device.type == "cuda" and takes_found_inf(optimizer) and not immediate
        self._first = torch.full((), -1, dtype=torch.int64, device=device)
        self._seen = torch.zeros((), device=device)  # above zero once a loss is not finite
        self.bad = torch.zeros((), dtype=torch.bool, device=device)

    @property
    def flags(self) -> list[Tensor]:
        """What this process saw in the losses of a step and has not looked at yet, to be added up over all processes, in place."""
        return [self._seen] if self.deferred else []

    def see_loss(self, loss: Tensor, step: int) -> Tensor | float:
        """Look at one loss, before its backward, and return it in double precision, to be summed up.

        Where the guard is deferred it stays on the GPU; elsewhere it is a number, because not every device has float64.

        Raises:
            NonFiniteError: If it is not finite; where it is deferred, by ``check`` later.
        """
        if self.deferred:
            self._seen += ~torch.isfinite(loss.detach())
            return loss.detach().double()
        value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteError("loss", step)
        return value

    def forget(self) -> None:
        """Take back what was seen of the losses of a step that is taken again."""
        self._seen = torch.zeros_like(self._seen)

    def see_gradients(self, step: int) -> None:
        """Look at the gradients, clip them, and hold the optimizer back where they are not finite.

        Raises:
            NonFiniteError: If they are not finite; where it is deferred, by ``check`` later.
        """
        trained = [parameter for parameter in self._parameters if parameter.grad is not None]
        norm = gathered(get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None]))
        if self.deferred:
            self.bad = (self._seen > 0) | ~torch.isfinite(norm)
            self._first = torch.where(self.bad & (self._first < 0), step, self._first)
            self._optimizer.found_inf = self.bad.float()  # type: ignore[attr-defined]  # read by torch's fused optimizers
            self.forget()
        elif not math.isfinite(norm.item()):
            raise NonFiniteError("gradient", step)
        if self._clip is not None:
            clip_grads_with_norm_(trained, self._clip, norm)

    def check(self) -> None:
        """Read the flag that stayed on the device.

        Raises:
            NonFiniteError: If a loss or gradient was not finite since the last check.
        """
        if self.deferred and (step := int(self._first.item())) >= 0:
            raise NonFiniteError("loss or gradient", step)

"""Skip updates with NaN or infinite loss or gradients.

On the CPU every loss and every gradient norm is checked before the optimizer steps. On a GPU that would stall the queue at each
step, so the same test stays on the device: a fused optimizer skips its update where ``found_inf`` is set, and the flag is read
every ``EVERY`` steps and at the end of an epoch. Either way no non-finite update is ever made; on a GPU only the error
comes late, and it names the first such step. ``bad`` protects other state, such as BatchNorm statistics, from the same step.
Optimizers that cannot skip an update themselves are checked as on the CPU, also on a GPU.
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
    """A loss or gradient of one step is not finite; raised and caught inside the engine."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"the {what} of step {step} is not finite")
        self.what, self.step = what, step


class Guard:
    """Checks the losses and gradients of one run.

    Args:
        optimizer: The optimizer.
        parameters: Its parameters.
        device: Where the model runs.
        clip: Largest gradient norm, or None.
        immediate: Raise at once even if that waits for a GPU; for trials that are rolled back.

    Attributes:
        deferred: Whether errors are raised later, by ``check``.
        bad: If deferred, whether the last step was not finite, on the device.
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
        """Device flags of the losses of a step, to be summed over all ranks in place; empty if not deferred."""
        return [self._seen] if self.deferred else []

    def check_loss(self, loss: Tensor, step: int) -> Tensor | float:
        """Check one loss, before its backward, and return it in double precision.

        If deferred, it stays on the GPU; else it is a number, because not every device has float64.

        Raises:
            NonFiniteError: If it is not finite and the check is not deferred.
        """
        if self.deferred:
            self._seen += ~torch.isfinite(loss.detach())
            return loss.detach().double()
        value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteError("loss", step)
        return value

    def forget(self) -> None:
        """Reset the flags of a step that is retried."""
        self._seen = torch.zeros_like(self._seen)

    def check_gradients(self, step: int) -> None:
        """Check and clip the gradients; a deferred guard makes the optimizer skip the step if they are not finite.

        Raises:
            NonFiniteError: If they are not finite and the check is not deferred.
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
        """Read the flag on the device.

        Raises:
            NonFiniteError: If a loss or gradient was not finite since the last check.
        """
        if self.deferred and (step := int(self._first.item())) >= 0:
            raise NonFiniteError("loss or gradient", step)

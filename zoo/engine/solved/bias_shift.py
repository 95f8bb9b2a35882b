"""A shift of the biases that suits the training samples as they are, after tuning on augmented views of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RIDGE = 1e-3  # of the square of the shift, which a constant over all classes would not change


def bias_shift(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what to add to the biases, ``(outputs,)``: zeros where all logits are equal.

    A tuned network is sure of every training sample, and the loss of its logits says nothing about where the boundary lies between the
    classes. So the loss is that of logits whose standard deviation over samples and outputs is 1; then samples on both sides of a
    boundary pull at it, and on average each class is predicted as often as it occurs.

    Args:
        logits: Of the training samples, ``(samples, outputs)``, on the CPU.
        loss: From logits, float64, to the sum of their losses.
    """
    values = logits.double()
    scale = values.std()
    if not scale > 0:
        return torch.zeros(logits.shape[1])
    values, shift = values / scale, torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([shift], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        found = loss(values + shift) / len(values) + RIDGE * shift.square().sum()
        found.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        return found

    solver.step(closure)  # type: ignore[no-untyped-call]
    return (shift.detach() * scale).float()

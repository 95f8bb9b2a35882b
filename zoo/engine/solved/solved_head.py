"""A linear head solved for its optimum on the pooled features of labelled samples."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from zoo.data.splits.folds import folds_of
from zoo.data.table import Table
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.solved.fitted_layers import ITERATIONS, Rows
from zoo.engine.solved.head_solver import peak_bytes, solve
from zoo.errors import TrainingError, count, examples
from zoo.models.heads import LinearHead, TokenHead

MAX_WORK = 10**10  # samples (or words) x features x outputs; beyond it steps on batches are faster
FAR = 100.0  # times the median length of the features of a sample, which those of damaged or unscaled inputs exceed
MAX_BYTES = 8 * 2**30  # of memory, features included; fixed, so that a run is the same on every machine
SOLVABLE = (LinearHead, TokenHead)
log = logging.getLogger("zoo")


@dataclass(frozen=True)
class SolvedHead:
    """The optimum of a linear head, on the CPU.

    Attributes:
        weight: ``(outputs, dim)``.
        bias: ``(outputs,)``, or None.
        penalty: Weight of the L2 penalty, see ``zoo.engine.solved.head_solver``.
        loss: Sum of the training losses.
        held_out: Logits of each sample by a head that was fitted without it, see ``Solution``; or None.
        converged: Whether the iterations reached the optimum.
        standardized: Whether the penalty is of standardized features, see ``Solution``.
    """

    weight: Tensor
    bias: Tensor | None
    penalty: float
    loss: float
    held_out: Tensor | None = None
    converged: bool = True
    standardized: bool = False

    def of_first(self, ranks: Ranks) -> SolvedHead:
        """Return the optimum that the first rank found; those of others may differ in the last digit. A collective."""
        names = ("penalty", "loss", "converged", "standardized")
        first = ranks.gather({name: getattr(self, name) for name in names})[0]
        bias = None if self.bias is None else ranks.of_first(self.bias)
        return replace(self, weight=ranks.of_first(self.weight), bias=bias, **first)

    @property
    def record(self) -> dict[str, float | bool]:
        """The head's part of its epoch's line in the history."""
        return {"penalty": self.penalty, "converged": self.converged} | ({"standardized": True} if self.standardized else {})

    def copy_to(self, head: nn.Module) -> None:
        """Give a linear head these values, in place."""
        assert isinstance(head, SOLVABLE), "only linear heads are solved"
        with torch.no_grad():
            head.linear.weight.copy_(self.weight)
            if self.bias is not None:
                head.linear.bias.copy_(self.bias)


def is_small_enough(samples: int, dim: int, outputs: int) -> bool:
    """Return whether the head of so many samples (or words), features and outputs is solved; a larger one is trained by steps."""
    return samples * dim * outputs <= MAX_WORK and peak_bytes(samples, dim, outputs) <= MAX_BYTES


def solved_head(
    features: Tensor,
    table: Table,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    outputs: int,
    bias: bool,
    device: torch.device,
    seed: int,
    by_output: Callable[[Tensor, Tensor], Tensor] | None = None,
    held_out: bool = False,
    margin: float = 1.0,
    poll: Callable[[], None],
) -> SolvedHead:
    """Return the optimum of a linear head.

    Args:
        features: Pooled features ``(samples, dim)``, or features of words ``(words, dim)``, on the CPU.
        table: The samples or words, with encoded targets.
        loss: From logits and targets of some samples to the sum of their losses.
        outputs: Outputs of the head.
        bias: Whether it has a bias.
        device: Where ``loss`` computes.
        seed: Seed of the folds that choose the penalty.
        by_output: Likewise to the losses ``(outputs,)`` whose sum that is, where each output has one of its own.
        held_out: Whether logits of held-out samples are wanted, where samples can be held out.
        margin: Standard errors by which the held-out loss of the penalty may exceed the lowest, see ``margin_of``.
        poll: Called now and then; may raise to stop.

    Raises:
        TrainingError: If features are not finite, or no finite optimum was found.
    """
    if bad := (~features.isfinite().all(1)).nonzero().flatten().tolist():
        names = examples([f"{row} ({table.name_of(row)})" for row in bad])
        raise TrainingError(f"the features of {count(len(bad), 'sample')} are not finite: {names}; look at their values and at the weights")
    _warn_of_large_features(features, table)
    targets = torch.as_tensor(table.targets).to(device)

    def of_rows(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Rows], Tensor]:
        return lambda logits, rows: function(logits, targets[torch.from_numpy(rows).to(device)])

    folds = folds_of(table, seed)
    placed = features.to(device) if device.type == "cuda" else features  # other devices may lack float64
    found = solve(
        placed,
        outputs,
        of_rows(loss),
        folds,
        device=device,
        bias=bias,
        by_output=by_output and of_rows(by_output),
        held_out=held_out,
        margin=margin,
        poll=poll,
    )
    if not folds:
        log.info("the head has the penalty %g: no samples could be held out with every class on both sides to choose one", found.penalty)
    if not (math.isfinite(found.loss) and found.weight.isfinite().all()):
        raise TrainingError("the head has no finite optimum on these features; train it with solve_head=False")
    if found.excess > 1:
        log.warning(
            "the head is not at its optimum after %d iterations: its gradient is %.3g times the tolerance. Look for features far larger "
            "than the others, or train it with solve_head=False",
            ITERATIONS,
            found.excess,
        )
    if found.standardized:
        log.info("the head is fitted on standardized features, which lowers its loss on held-out samples")
    bias_values = None if found.bias is None else found.bias.cpu()
    return SolvedHead(found.weight.cpu(), bias_values, found.penalty, found.loss, found.held_out, found.excess <= 1, found.standardized)


def _warn_of_large_features(features: Tensor, table: Table) -> None:
    """Warn of samples whose features are so large that the scale, the penalty and the head follow them alone."""
    lengths = features.norm(dim=1)
    far = (lengths > FAR * lengths.median()).nonzero().flatten().tolist()
    if far and lengths.median() > 0:
        names = examples([f"{row} ({table.name_of(row)})" for row in far])
        line = "the features of %s are more than %g times as large as those of most, and decide the head: %s; look at these inputs"
        log.warning(line, count(len(far), "sample"), FAR, names)

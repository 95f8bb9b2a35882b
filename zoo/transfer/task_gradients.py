"""Gradients of several losses as one: surgery on those of the parameters that the tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from zoo.util.extras import require_extra

# Weightings of torchjd that need no further package, by the name of their method.
SURGERY: Mapping[str, str] = MappingProxyType(
    {
        "pcgrad": "PCGradWeighting",  # Yu et al. 2020
        "mgda": "MGDAWeighting",  # Sener & Koltun 2018
        "imtl-g": "IMTLGWeighting",  # Liu et al. 2021
        "aligned-mtl": "AlignedMTLWeighting",  # Senushkin et al. 2023
    }
)
Weighting = Callable[[Tensor], Tensor]
"""From the Gramian ``(tasks, tasks)`` of their gradients to a weight for each."""


def find_weighting(name: str) -> Weighting:
    """Return a weighting of ``SURGERY``.

    Raises:
        MissingExtraError: If torchjd is not installed.
    """
    require_extra("multitask", f"weighting={name!r}")
    from torchjd import aggregation  # type: ignore[import-not-found,unused-ignore]  # an extra

    found: Weighting = getattr(aggregation, SURGERY[name])()
    return found


def gradients_of(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> list[list[Tensor]]:
    """Return the gradient of each loss by each parameter, zeros where it does not depend on it."""
    found = []
    for number, loss in enumerate(losses, 1):
        each = torch.autograd.grad(loss, parameters, retain_graph=number < len(losses), allow_unused=True)
        found.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, each, strict=True)])
    return found


def gramian(gradients: Tensor) -> Tensor:
    """Return the products ``(tasks, tasks)`` of gradients ``(tasks, values)``, in float64 on the CPU."""
    return (gradients.double() @ gradients.double().T).cpu()


def flat(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return gradients as rows ``(tasks, values)``."""
    return torch.stack([torch.cat([each.reshape(-1) for each in own]) for own in gradients])


def task_weights(products: Tensor, weighting: Weighting, seed: int) -> Tensor:
    """Return the weight of each task's gradient, a function of the Gramian and the seed; the caller's random state is restored.

    Gradients that are not finite have weights of 1: their sum is not finite either, which the guard of the step reports.
    """
    if not bool(products.isfinite().all()):
        return torch.ones(len(products))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return weighting(products).to(torch.float32)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of what is drawn in a step, which differs between steps and between runs of other seeds."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def combined(gradients: Sequence[Sequence[Tensor]], weights: Sequence[Sequence[float]]) -> list[Tensor]:
    """Return the weighted sum of the gradients of several losses for each parameter; ``weights`` has those of each parameter."""
    columns = zip(*gradients, strict=True)
    return [torch.stack([w * g for w, g in zip(own, column, strict=True)]).sum(0) for own, column in zip(weights, columns, strict=True)]


def with_gradients(value: Tensor, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> Tensor:
    """Return a number of this value whose gradient by each parameter is the given one."""
    found = value.detach()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        found = found + ((parameter - parameter.detach()) * gradient).sum()
    return found

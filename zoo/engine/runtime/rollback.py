"""Rollback of a step or a trial: batch statistics, random states, values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.engine.runtime.device import random_state, restore_random_state
from zoo.tuning.statistics import moving_norms, statistics_of


class Undo:
    """Saves and restores what a training forward changes beside gradients: batch statistics and random states.

    Args:
        model: The model.
        device: Where it runs.

    Attributes:
        device: Where the model runs.
        statistics: Statistics of its norms in training mode.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model, self.device = model, device
        self.statistics: list[Tensor] = []
        self._kinds: list[tuple[list[Tensor], Tensor]] = []  # the statistics of one type, and their values end to end
        self._random: list[Tensor] = []
        self._others: tuple[Any, Any] = (None, None)
        self._generator = None if device.type == "cpu" else torch.get_device_module(device)

    def look(self) -> None:
        """Find the norms in training mode; to be called whenever other groups train."""
        self.statistics = statistics_of(moving_norms(self._model))
        kinds = {tensor.dtype for tensor in self.statistics}
        same = [[tensor for tensor in self.statistics if tensor.dtype == kind] for kind in kinds]
        self._kinds = [(tensors, torch.empty_like(_end_to_end(tensors))) for tensors in same]

    def remember(self) -> None:
        """Save the current state."""
        for tensors, values in self._kinds:
            torch.cat([tensor.reshape(-1) for tensor in tensors], out=values)
        self._random = [torch.get_rng_state()]
        self._others = random.getstate(), np.random.get_state(legacy=False)
        if self._generator is not None:
            self._random.append(self._generator.get_rng_state())

    def bring_back(self) -> None:
        """Restore the saved state, in place."""
        for tensors, values in self._kinds:
            _part(values, tensors)
        torch.set_rng_state(self._random[0])
        random.setstate(self._others[0])
        np.random.set_state(self._others[1])
        if self._generator is not None:
            self._generator.set_rng_state(self._random[1])

    def bring_back_statistics(self, bad: Tensor) -> None:
        """Restore the statistics, in place, if ``bad`` is true, without synchronizing with the GPU."""
        for tensors, values in self._kinds:
            _part(torch.where(bad, values, _end_to_end(tensors)), tensors)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer of a model by name, non-persistent buffers included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextmanager
def as_before(model: nn.Module) -> Iterator[None]:
    """Restore at the end, in place, a model's values, gradients, modes and ``requires_grad``, and all random states.

    Its gradients are set aside meanwhile, so that nothing adds to them.
    """
    held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors_of(model).items()}
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    state = random_state()
    for parameter, _, _ in flags:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in tensors_of(model).items():
                tensor.copy_(held[name])
        for parameter, flag, gradient in flags:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        restore_random_state(state)


def _end_to_end(tensors: list[Tensor]) -> Tensor:
    """Return many small tensors as one, because copying each would be a kernel of its own on a GPU."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _part(values: Tensor, tensors: list[Tensor]) -> None:
    """Copy ``values`` into many tensors, in place; the inverse of ``_end_to_end``."""
    parts = torch.split(values, [tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

"""Going back to where a step began, and telling that memory ran out from any other error."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

# What torch's allocators say; a message that merely speaks of memory is not among them.
_CPU = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "could not create a memory object",
    "std::bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a batch was too large for the memory of a GPU or of this process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU)


class Undo:
    """What a forward in training mode moves beside gradients: batch statistics and random states.

    Args:
        model: The model; the statistics that move are those of its norms in training mode.
        device: Where it runs.

    Attributes:
        device: The same.
        statistics: The batch statistics that move.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model, self.device = model, device
        self.statistics: list[Tensor] = []
        self._values: list[Tensor] = []
        self._random: list[Tensor] = []
        self._others: tuple[Any, Any] = (None, None)

    def look(self) -> None:
        """Find the batch statistics that move; to be called when other groups train, for it asks every module."""
        moving = [norm for norm in self._model.modules() if isinstance(norm, _NormBase) and norm.training]
        self.statistics = [buffer for norm in moving for buffer in norm._buffers.values() if buffer is not None]
        self._values = [torch.empty_like(buffer) for buffer in self.statistics]

    def remember(self) -> None:
        """Take the present state."""
        _copy(self._values, self.statistics)
        self._random = [torch.get_rng_state()]
        self._others = random.getstate(), np.random.get_state(legacy=False)
        if self.device.type == "cuda":
            self._random.append(torch.cuda.get_rng_state(self.device))

    def bring_back(self) -> None:
        """Put back what was taken, in place."""
        _copy(self.statistics, self._values)
        torch.set_rng_state(self._random[0])
        random.setstate(self._others[0])
        np.random.set_state(self._others[1])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self._random[1], self.device)


def _copy(to: list[Tensor], values: list[Tensor]) -> None:
    """Copy many small tensors at a time: on a GPU each by itself would be a kernel."""
    kinds = {tensor.dtype for tensor in to}
    for kind in kinds:
        pairs = [(tensor, value) for tensor, value in zip(to, values, strict=True) if tensor.dtype == kind]
        torch._foreach_copy_([tensor for tensor, _ in pairs], [value for _, value in pairs])

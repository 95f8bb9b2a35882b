"""Going back to where a step began, and telling that memory ran out from any other error."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from zoo.engine.device import random_state, restore_random_state

# What torch's allocators say; a message that merely speaks of memory is not among them.
_CPU = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "could not create a memory object",
    "std::bad_alloc",
)
# What the libraries on a GPU say, which ask for memory beside torch's allocator.
_GPU = (
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a batch was too large for the memory of a GPU or of this process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in (*_CPU, *_GPU))


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


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer of a model by its name, those that no file keeps included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextmanager
def as_before(model: nn.Module) -> Iterator[None]:
    """Put back at the end, in place, a model's values, gradients, modes and what trains, and all random states.

    Gradients that it had are set aside, so that none is added to.
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


def _copy(to: list[Tensor], values: list[Tensor]) -> None:
    """Copy many small tensors at a time: on a GPU each by itself would be a kernel."""
    kinds = {tensor.dtype for tensor in to}
    for kind in kinds:
        pairs = [(tensor, value) for tensor, value in zip(to, values, strict=True) if tensor.dtype == kind]
        torch._foreach_copy_([tensor for tensor, _ in pairs], [value for _, value in pairs])

"""Stub outputs of modules, and hooks as a context manager."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

Outputs: TypeAlias = "list[tuple[nn.Module, Any]]"
Resized: TypeAlias = Callable[[torch.Size], "list[int]"]


@dataclass(frozen=True)
class Shape:
    """Shape, dtype and device of a tensor."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def shape_of(value: Any) -> Any:
    """Return the shape, dtype and device of a tensor; anything else unchanged."""
    return Shape(value.shape, value.dtype, value.device) if isinstance(value, Tensor) else value


@contextmanager
def answers(outputs: Outputs, resized: Resized, value: float | None = None) -> Iterator[None]:
    """Make modules return uninitialised tensors, or tensors of ``value``, instead of computing."""
    queues: dict[nn.Module, list[Any]] = {}
    for module, output in outputs:
        queues.setdefault(module, []).append(output)

    def answer(module: nn.Module) -> Callable[..., Any]:
        left = iter(queues[module])
        return lambda *_args, **_kwargs: tree_map(lambda shape: _empty(shape, resized, value), next(left))

    # Some libraries patch the forward of an instance, which is restored too.
    own = {module: module.__dict__["forward"] for module in queues if "forward" in module.__dict__}
    try:
        for module in queues:
            module.forward = answer(module)
        yield
    finally:
        for module in queues:
            module.__dict__.pop("forward", None)
        for module, forward in own.items():
            module.forward = forward


@contextmanager
def hooked(hooks: list[tuple[nn.Module, Any, Any]]) -> Iterator[None]:
    """Install a pre-hook and a hook on each module while the context is open."""
    handles = [module.register_forward_pre_hook(before) for module, before, _ in hooks]
    handles += [module.register_forward_hook(after) for module, _, after in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _empty(shape: Any, resized: Resized, value: float | None) -> Any:
    if not isinstance(shape, Shape):
        return shape
    # Not an expanded tensor, as in-place activations must be able to write to it.
    empty = torch.empty(resized(shape.shape), dtype=shape.dtype, device=shape.device)
    if value is None:
        return empty
    return empty.fill_(value if shape.dtype.is_floating_point or math.isfinite(value) else 1)

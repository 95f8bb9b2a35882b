"""Device, precision, memory format and random state of a run."""

from __future__ import annotations

import atexit
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from zoo.engine.runtime.freed_memory import freed_memory_kept
from zoo.errors import OptionError

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(wanted: str | torch.device = "auto") -> torch.device:
    """Return the device asked for; for ``auto`` the accelerator if there is one, else the CPU.

    Raises:
        OptionError: If this machine has no such device.
    """
    present = (*_accelerators(), "cpu")
    wanted = str(wanted) if isinstance(wanted, torch.device) else wanted
    if wanted == "auto":
        return torch.device(present[0])
    if wanted not in present:
        raise OptionError(f"device {wanted!r} is not available here; it can be: {', '.join(reversed(present))}")
    return torch.device(wanted)


def _accelerators() -> list[str]:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [kind for kind, here in present.items() if here]


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return Accelerate's word for the precision: ``bf16`` on a GPU of Ampere or newer, else ``no`` (float32).

    Raises:
        OptionError: If there is no such precision.
    """
    if wanted not in PRECISIONS:
        raise OptionError(f"there is no precision {wanted!r}; it can be: {', '.join(PRECISIONS)}")
    if wanted == "auto":
        wanted = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if wanted == "bf16" else "no"


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return channels_last for 2-D convolutional networks: tensor cores and oneDNN's depthwise convolutions are faster with it.

    On the CPU it made training 1.1 to 1.7 times faster (docs/benchmarks.md). A network whose only convolution embeds patches gains nothing.
    """
    kernels = [module for module in model.modules() if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1]
    volumetric = any(isinstance(module, nn.Conv3d) for module in model.modules())
    suits = len(kernels) > 1 and not volumetric and device.type in ("cuda", "cpu")
    return torch.channels_last if suits else torch.contiguous_format


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[torch.memory_format]:
    """Move a model to ``device`` while the context is open, in place; its device, modes and layout are restored.

    Raises:
        OptionError: If it has parameters of another type than float32.
    """
    other = {str(parameter.dtype) for parameter in model.parameters() if parameter.is_floating_point()} - {"torch.float32"}
    if other:
        kinds = ", ".join(sorted(other))
        remedy = "call model.float(), and save it again if it is a saved one; precision='bf16' sets the computation"
        raise OptionError(f"the model has parameters of {kinds}; {remedy}")
    home = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    layout, before = memory_format(model, device), _layout(model)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.to(device).to(memory_format=layout)
        with freed_memory_kept() if device.type == "cpu" else nullcontext():
            yield layout
    finally:
        model.to(home).to(memory_format=before)
        for module, training in modes:
            module.training = training


def _layout(model: nn.Module) -> torch.memory_format:
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4 and not parameter.is_contiguous()]
    laid = any(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    return torch.channels_last if laid else torch.contiguous_format


@contextmanager
def searched(device: torch.device, *, fixed: bool) -> Iterator[None]:
    """Enable cuDNN's benchmark mode while the context is open, if inputs have a ``fixed`` size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or (fixed and device.type == "cuda")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, numpy and random while the context is open; the caller's random state is restored."""
    before = random_state()
    try:
        if _accelerators():
            torch.manual_seed(seed)
        else:  # torch would format the stack once for each kind of accelerator, which takes a millisecond
            torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        restore_random_state(before)


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all global random states: torch's as uint8 tensors, Python's and numpy's as plain data.

    A GPU that was not used yet is left out: asking for its state would initialise CUDA in a run on the CPU.
    """
    used = [kind for kind in _accelerators() if kind != "cuda" or torch.cuda.is_initialized()]  # type: ignore[no-untyped-call]
    tensors = {"cpu": torch.get_rng_state(), **{kind: torch.get_device_module(kind).get_rng_state() for kind in used}}
    numbers: Any = np.random.get_state(legacy=False)
    generator = {"key": numbers["state"]["key"].tolist(), "pos": int(numbers["state"]["pos"])}
    plain = {"python": random.getstate(), "numpy": numbers | {"state": generator}}
    return tensors, plain


def restore_random_state(state: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
    """Restore what ``random_state`` returned, also after a round trip through JSON."""
    tensors, plain = state
    torch.set_rng_state(tensors["cpu"])
    for kind in tensors.keys() & _accelerators():
        torch.get_device_module(kind).set_rng_state(tensors[kind])
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    generator = plain["numpy"]["state"]
    key = np.asarray(generator["key"], dtype=np.uint32)
    np.random.set_state(plain["numpy"] | {"state": {"key": key, "pos": generator["pos"]}})


def make_accelerator(wanted_device: str, wanted_precision: str) -> Any:
    """Return Accelerate's ``Accelerator`` for a device and a precision.

    Accelerate keeps both in process-wide state and refuses a second choice. Nothing else here depends on that state, so it is
    replaced.
    """
    from accelerate import Accelerator  # type: ignore[import-untyped]  # ships no types
    from accelerate.state import AcceleratorState, PartialState  # type: ignore[import-untyped]  # ships no types

    device = choose_device(wanted_device)
    precision = choose_precision(wanted_precision, device)
    placed_on = PartialState._shared_state.get("device", device)
    same = placed_on.type == device.type and AcceleratorState._shared_state.get("_mixed_precision", precision) == precision
    if not same:
        AcceleratorState._reset_state(reset_partial_state=True)
    grouped = dist.is_available() and dist.is_initialized()
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
    if not grouped and dist.is_available() and dist.is_initialized():  # Accelerate's, for one process that torchrun has started
        atexit.register(end_process_group)
    return accelerator


def end_process_group() -> None:
    """Destroy the process group, if there is one; NCCL warns of one that is left at the end of the process."""
    if dist.is_initialized():
        dist.destroy_process_group()

"""A pretended GPU: tensors with real values on the CPU that say they are on ``cuda:0``.

The place of each storage is tracked. An operation that mixes devices, a tensor that is turned into an array where it is, and a
tensor that is pinned on the GPU raise as CUDA would. Values are real, so whole fits can be taken through the branches for
CUDA on a machine without one. What no pretence can show: kernels of their own, streams, memory, NCCL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from zoo.engine.preview import preview
from zoo.engine.runtime import device as devices
from zoo.engine.train import fit

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ATEN = torch.ops.aten
# Operations that may read from one device and write to another.
CROSSING = {ATEN._to_copy, ATEN.copy_, ATEN._foreach_copy_, ATEN.lift_fresh, ATEN.set_, ATEN.detach, ATEN.alias, ATEN._pin_memory}
# Operations whose indices may lie on the CPU while the indexed tensor is on the GPU.
INDEXING = {ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_, ATEN._unsafe_index}
# Operations that bring a value to the host, for which a GPU is waited for.
WAITING = {ATEN._local_scalar_dense, ATEN.equal, ATEN.nonzero}


class Places:
    """Which storages pretend to be on the GPU.

    Attributes:
        waits: What a GPU would have been waited for, in order.
    """

    def __init__(self) -> None:
        self._on_gpu: dict[int, StorageWeakRef] = {}
        self.waits: list[str] = []

    def of(self, tensor: Tensor) -> torch.device:
        """Return where a tensor says it is."""
        with torch._C.DisableTorchFunction():
            held = self._on_gpu.get(tensor.untyped_storage()._cdata)
            return CUDA if held is not None and not held.expired() else CPU

    def put(self, value: Any, device: torch.device | str) -> Any:
        """Say of all tensors in a value that they are on a device; return the value."""

        def one(tensor: Any) -> Any:
            if isinstance(tensor, Tensor):
                with torch._C.DisableTorchFunction():
                    storage = tensor.untyped_storage()
                    if torch.device(device).type == "cuda":
                        self._on_gpu[storage._cdata] = StorageWeakRef(storage)
                    else:
                        self._on_gpu.pop(storage._cdata, None)
            return tensor

        return tree_map(one, value)


class Placement(TorchDispatchMode):
    """Below autograd: results are where the inputs are, and inputs on two devices raise."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kinds = self._kinds(func, packet, tensors, args)
        if packet in WAITING and "cuda" in kinds:
            self._places.waits.append(str(packet))
        given = {tensor.untyped_storage()._cdata for tensor in tensors}
        result = func(*args, **kwargs)
        where = self._places.of(tree_leaves(args[0])[0]) if packet in CROSSING and tensors else CUDA if "cuda" in kinds else CPU
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._places.put(leaf, where)
        return result

    def _kinds(self, func: Any, packet: Any, tensors: list[Tensor], args: Any) -> set[str]:
        """Return the devices that decide where the result is.

        Raises:
            RuntimeError: If they are mixed where CUDA does not mix them.
        """
        if packet in INDEXING:
            kinds = {self._places.of(args[0]).type}
            indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            if kinds == {"cpu"} and any(self._places.of(index).type == "cuda" for index in indices):
                raise RuntimeError(f"{func}: indices should be on the same device as the indexed tensor (cpu)")
            return kinds
        # A number on the CPU, a tensor without axes, may meet tensors on the GPU.
        kinds = {self._places.of(tensor).type for tensor in tensors if tensor.ndim or self._places.of(tensor).type == "cuda"}
        if len(kinds) > 1 and packet not in CROSSING:
            found = [(tuple(tensor.shape), self._places.of(tensor).type) for tensor in tensors]
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices ({func}: {found})")
        return kinds


class Questions(TorchFunctionMode):
    """Above autograd: what asks for a device, moves a tensor or makes one on a device."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name, places = dict(kwargs or {}), getattr(func, "__name__", ""), self._places
        if func in (Tensor.device.__get__, Tensor.is_cuda.__get__, Tensor.is_cpu.__get__):  # type: ignore[attr-defined]
            where = places.of(args[0])
            if func == Tensor.device.__get__:  # type: ignore[attr-defined]
                return where
            return where.type == ("cuda" if func == Tensor.is_cuda.__get__ else "cpu")  # type: ignore[attr-defined]
        if func in (Tensor.numpy, Tensor.__array__):
            if places.of(args[0]).type == "cuda":
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
            return func(*args, **kwargs)
        if func == Tensor.__deepcopy__:
            return places.put(func(*args, **kwargs), places.of(args[0]))
        if name == "one_hot":  # made in C++, which asks the tensor itself where it is
            where = places.of(args[0])
            return places.put(func(places.put(args[0].clone(), CPU), *args[1:], **kwargs), where)
        if func == Tensor.pin_memory:
            if places.of(args[0]).type == "cuda":
                raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned")
            return places.put(args[0].clone(), CPU)
        if func in (Tensor.cpu, Tensor.cuda, Tensor.to):
            return self._moved(func, args, kwargs)
        if kwargs.get("device") is not None and name != "autocast":
            device = torch.device(kwargs["device"])
            if device.type == "meta":
                return func(*args, **kwargs)
            kwargs |= {"device": CPU}
            kwargs.pop("pin_memory", None)
            return places.put(func(*args, **kwargs), device)
        kwargs.pop("pin_memory", None)
        return func(*args, **kwargs)

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        tensor, rest = args[0], [part for part in args[1:] if part is not None]
        device = kwargs.pop("device", None)
        if func in (Tensor.cpu, Tensor.cuda):
            device, rest = (CPU if func == Tensor.cpu else CUDA), []
        elif rest and isinstance(rest[0], str | torch.device):
            device, rest = rest[0], rest[1:]
        elif rest and isinstance(rest[0], Tensor):
            device, rest = self._places.of(rest[0]), [rest[0].dtype, *rest[1:]]
        target = self._places.of(tensor) if device is None else torch.device(device)
        if target.type == "meta" or tensor.is_meta:
            return Tensor.to(tensor, target, *rest, **kwargs)
        kwargs.pop("non_blocking", None)
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        rest = [part for part in rest if not isinstance(part, bool)]
        if self._places.of(tensor).type == target.type and not kwargs.get("copy"):
            return Tensor.to(tensor, CPU, *rest, **kwargs)
        if self._places.of(tensor).type == "cuda" and target.type == "cpu":
            self._places.waits.append("device to host")
        moved: Tensor = self._places.put(Tensor.to(tensor, CPU, *rest, **kwargs | {"copy": True}), target)
        return moved


class Accelerator:
    """What the engine uses of Accelerate's, on the pretended device."""

    device = CUDA

    def __init__(self, precision: str) -> None:
        self.mixed_precision = precision

    def autocast(self) -> Any:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.mixed_precision == "bf16")


@contextmanager
def pretended_gpu(*, bf16: bool = True) -> Iterator[Places]:
    """Let ``device="auto"`` find a GPU inside; yield what is tracked.

    Args:
        bf16: Whether it has bf16.
    """
    places, real = Places(), torch.autocast

    class Autocast(real):  # type: ignore[misc, valid-type]  # a class, though torch has it as a function too
        def __init__(self, kind: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if kind == "cuda" else kind, *args, **kwargs)

    def make(wanted: str, precision: str) -> Accelerator:
        return Accelerator(devices.choose_precision(precision, devices.choose_device(wanted)))

    state = torch.zeros(16, dtype=torch.uint8)
    calls = {
        "is_bf16_supported": lambda including_emulation=True: bf16,
        "get_rng_state": lambda *_: state.clone(),
        "set_rng_state": lambda *_: None,
        "is_initialized": lambda: True,
        "synchronize": lambda *_: None,
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
    }
    with ExitStack() as stack:
        for name, call in calls.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, call))
        stack.enter_context(mock.patch.object(devices, "_accelerators", return_value=["cuda"]))
        for module in (devices, fit, preview):
            stack.enter_context(mock.patch.object(module, "make_accelerator", make))
        stack.enter_context(mock.patch.object(torch, "autocast", Autocast))
        stack.enter_context(Placement(places))
        stack.enter_context(Questions(places))
        yield places

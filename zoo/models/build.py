"""Building of backbones on the meta device and loading of weights, without initialising what weights overwrite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.declare import BackboneSpec
from zoo.errors import CoverageError, DeclarationError, count, examples, fault_list
from zoo.plugins.loader import load_function

log = logging.getLogger("zoo")

State = dict[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.")


def build(spec: BackboneSpec, state: Callable[[], State] | None, *, allow_partial: bool = False) -> nn.Module:
    """Build a backbone: with random values if ``state`` is None, else on the meta device, then filled from the state.

    Args:
        spec: The declaration; ``options`` are passed to its builder.
        state: Reads the tensors of the backbone; called after the module is built.
        allow_partial: Whether tensors missing in the state keep random values instead of raising.

    Raises:
        CoverageError: If the state does not fill every parameter and buffer, with the coverage and the first names.
    """
    builder = load_function(spec.build)
    if state is None:
        return _module(builder(**spec.options), spec)
    with on_meta():
        module = _module(builder(**spec.options), spec)
    fitted, faults = fit_state(module, state(), spec)
    if faults and not allow_partial:
        raise CoverageError(_coverage(spec, module, fitted, faults))
    if faults:
        log.warning(_coverage(spec, module, fitted, faults))
        module = _module(builder(**spec.options), spec)
        module.load_state_dict(fitted, strict=False)
    else:
        materialize(module, fitted)
    return module


def fit_state(module: nn.Module, state: State, spec: BackboneSpec) -> tuple[State, list[str]]:
    """Convert a state to the module's keys, channels and dtypes; return it with a fault for each tensor not filled."""
    state = {_unwrapped(key): value for key, value in state.items()}
    if spec.convert:
        state = load_function(spec.convert)(state, module)
    target = module.state_dict()
    fitted: State = {}
    faults: list[str] = []
    for name, tensor in target.items():
        value = state.get(name)
        if value is not None and value.shape != tensor.shape:
            value = _adapt_channels(name, value, tensor, spec)
        if value is not None and tensor.is_floating_point() and not value.is_floating_point():
            faults.append(f"{name} is {value.dtype} in the file and {tensor.dtype} in the model")
        elif value is not None and value.shape == tensor.shape:
            fitted[name] = value.to(tensor.dtype)
        elif name in state:
            faults.append(f"{name} is {tuple(state[name].shape)} in the file and {tuple(tensor.shape)} in the model")
        elif name.endswith("num_batches_tracked"):
            fitted[name] = torch.zeros((), dtype=tensor.dtype)
        else:
            faults.append(f"{name} {tuple(tensor.shape)} is not in the file")
    unused = [key for key in state if key not in target]
    if unused:
        log.info("%s: %s of the weights are not part of the backbone: %s", spec.name, count(len(unused), "tensor"), examples(unused))
    return fitted, faults


def adapt_input(weight: Tensor, channels: int) -> Tensor:
    """Adapt the first layer's weight ``(out, in, …)`` to another number of input channels, keeping its response.

    To one channel the weights are summed; to more they are repeated in turn and scaled by ``in / channels``, so that a grey
    picture repeated over the channels gives the same output (Wightman, timm 2019).

    Returns:
        A tensor ``(out, channels, …)`` of the same dtype.
    """
    before = weight.shape[1]
    if channels < before and channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = [index % before for index in range(channels)]
    return weight[:, repeats] * (before / channels)


def _adapt_channels(name: str, value: Tensor, tensor: Tensor, spec: BackboneSpec) -> Tensor | None:
    """Adapt the input channels if the shapes differ in nothing else; return None for grouped or deeper layers."""
    same_rest = value.ndim == tensor.ndim >= 3 and value.shape[0] == tensor.shape[0] and value.shape[2:] == tensor.shape[2:]
    if not same_rest or tensor.shape[1] != spec.options.get("in_chans"):
        return None
    log.warning("%s: the pretrained %s was adapted from %d to %d input channels", spec.name, name, value.shape[1], tensor.shape[1])
    return adapt_input(value, tensor.shape[1])


def _unwrapped(key: str) -> str:
    for prefix in WRAPPERS:
        key = key.removeprefix(prefix)
    return key


def _module(built: object, spec: BackboneSpec) -> nn.Module:
    if not isinstance(built, nn.Module):
        raise DeclarationError(f"{spec.name}: its builder {spec.build!r} returned {type(built).__name__}, not a torch.nn.Module")
    return built


def _coverage(spec: BackboneSpec, module: nn.Module, fitted: Mapping[str, Tensor], faults: list[str]) -> str:
    filled = sum(not name.endswith("num_batches_tracked") for name in fitted)
    total = filled + len(faults)
    source = f"the file {spec.weights.file!r}" if spec.weights else "the state"
    share = f"{filled} of {total} tensors of {type(module).__name__} ({100 * filled / total:.0f} %)"
    shown = faults[:4] + ([f"… and {len(faults) - 4} more"] if len(faults) > 4 else [])
    remedy = "Is it the file of this architecture and these options? allow_partial=True keeps random values for the rest."
    return fault_list(f"{spec.name}: {source} fills {share}", shown, remedy)


class _SkipInitialisation(TorchFunctionMode):
    """Skips the initialisation of meta tensors, where torch would decompose each draw in Python."""

    SKIPPED = frozenset(
        {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.SKIPPED and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Put every parameter registered inside on the meta device; buffers keep their values.

    Buffers are computed as usual, because those that are not saved (position indices, attention masks) are in no file.
    A parameter registered under two names stays one, so it stays tied.
    """
    register = nn.Module.register_parameter
    # Holds the originals until the end, so that their ids stay unique.
    taken: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            if id(parameter) not in taken:
                taken[id(parameter)] = (parameter, nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad))
            module._parameters[name] = taken[id(parameter)][1]

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]  # for the time of building only
    try:
        with _SkipInitialisation():
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def materialize(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Assign values to the meta tensors of a module without a copy, in place; tied parameters stay tied.

    Raises:
        CoverageError: If a tensor is still on the meta device afterwards.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    module.load_state_dict(state, strict=False, assign=True)
    for tied in names.values():
        first = module.get_parameter(tied[0])
        for name in tied[1:]:
            path, _, last = name.rpartition(".")
            module.get_submodule(path)._parameters[last] = first
    empty = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if empty:
        raise CoverageError(f"{type(module).__name__} still has tensors without values after loading: {examples(empty)}")

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
from zoo.errors import CoverageError, DeclarationError, ZooError, examples
from zoo.models.construct.state_fit import State, fit_state
from zoo.plugins.loader import load_function

log = logging.getLogger("zoo")


def build(
    spec: BackboneSpec,
    state: Callable[[], State] | None,
    *,
    allow_partial: bool = False,
    saved_with: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a backbone: with random values if ``state`` is None, else on the meta device, then filled from the state.

    Args:
        spec: The declaration; ``options`` are passed to its builder.
        state: Reads the tensors of the backbone; called after the module is built.
        allow_partial: Whether tensors missing in the state keep random values instead of raising, and further ones are left out.
        saved_with: The options of the saved model that the state comes from; None for a published file, whose keys are converted.

    Raises:
        CoverageError: See ``fit_state``; or if a saved model cannot be brought to other options.
    """
    builder = load_function(spec.build)
    with trainable_float32():
        if state is None:
            return _module(builder(**spec.options), spec)
        with on_meta():
            module = _module(builder(**spec.options), spec)
        if saved_with is None:
            fitted = fit_state(module, state(), spec, allow_partial=allow_partial)
        else:
            fitted = _fit_saved(module, state(), spec, saved_with, allow_partial=allow_partial)
        if module.state_dict().keys() - fitted.keys():
            module = _module(builder(**spec.options), spec)
            module.load_state_dict(fitted, strict=False)
        else:
            materialize(module, fitted)
    return module


@contextmanager
def trainable_float32() -> Iterator[None]:
    """Make new parameters float32 and trainable, whatever default dtype and inference mode the caller has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(before)


def _fit_saved(module: nn.Module, state: State, spec: BackboneSpec, saved_with: Mapping[str, Any], *, allow_partial: bool) -> State:
    """Return the tensors of a saved model for a module whose options may differ from those that it was saved with."""
    own = spec.replace(convert="")  # its tensors have the module's names
    if saved_with == spec.options:
        return fit_state(module, state, own, allow_partial=allow_partial)
    try:
        if spec.resize:
            with on_meta():
                before = _module(load_function(spec.build)(**saved_with), spec)
            state = _resized(state, before, module, spec)
        return fit_state(module, state, own, allow_partial=allow_partial)
    except (CoverageError, ValueError) as error:
        changed = ", ".join(f"{name}={value}" for name, value in spec.options.items() if saved_with.get(name) != value)
        raise CoverageError(f"{spec.name} was saved with other options and cannot be brought to {changed}: {error}") from error


def _resized(state: State, before: nn.Module, module: nn.Module, spec: BackboneSpec) -> State:
    try:
        resized: State = load_function(spec.resize)(state, before, module)
    except (ZooError, ValueError):
        raise
    except Exception as error:  # of a plugin's function on sizes that a user chose: any
        raise CoverageError(f"{spec.resize} failed with {type(error).__name__}: {error}") from error
    return resized


def _module(built: object, spec: BackboneSpec) -> nn.Module:
    if not isinstance(built, nn.Module):
        raise DeclarationError(f"{spec.name}: its builder {spec.build!r} returned {type(built).__name__}, not a torch.nn.Module")
    return built


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

"""The optimizer of a run, one of torch's or of timm's, by name."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from zoo.engine.optim.optimizer_state import optimizer_tensors
from zoo.engine.options.config import Config
from zoo.errors import OptionError, check_options, did_you_mean
from zoo.models.task_model import TaskModel
from zoo.tuning import param_groups

DEFAULT = "adamw"

# Options that users do not set: those of fit() itself, and those of the implementation.
_OURS = frozenset({"params", "lr", "weight_decay"})
_NOT_MATHS = frozenset({"maximize", "differentiable", "capturable", "foreach", "fused"})

# Optimizers of torch that need another training loop or other param groups.
_NOT_TORCH = {"LBFGS", "SparseAdam", "Muon", "Rprop"}
# Optimizers with a fused version on every GPU and in every supported version of torch.
_FUSED = {"Adam", "AdamW", "SGD"}
# Optimizers of timm that need bitsandbytes or apex, or have random state outside their state_dict.
_NOT_TIMM = ("bnb", "fused", "kron")


def build_optimizer(model: TaskModel, config: Config, device: torch.device, extra: nn.Module | None = None) -> torch.optim.Optimizer:
    """Return the optimizer of a run over all parameters of the model and of further modules; fused on a GPU if possible.

    Frozen parameters are included: torch skips parameters without gradient, so a later phase only flips ``requires_grad``.
    With ``lr="auto"`` the groups hold factors on the rate.

    Raises:
        OptionError: If there is no such optimizer, or it refuses its options.
    """
    lr = 1.0 if config.lr == "auto" else config.lr
    groups = param_groups(model.groups, model.head, lr=lr, layer_decay=config.layer_decay, weight_decay=config.weight_decay, extra=extra)
    # torch has no fused SGD over sharded parameters.
    fused = device.type == "cuda" and not (config.shard and config.optimizer.lower() == "sgd")
    return _make(config.optimizer, config.optimizer_options, groups, fused=fused)


def check_optimizer(name: str, options: Mapping[str, Any]) -> None:
    """Check that an optimizer exists, has the given options and accepts their values.

    It is built over one small parameter and takes one step, because some validate their options only then.

    Raises:
        OptionError: With the nearest name.
    """
    if name == DEFAULT and not options:
        return  # needs no trial
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    optimizer = _make(name, options, [{"params": [parameter], "param_names": ["probe"], "lr": 1e-3, "weight_decay": 0.0}], fused=False)
    try:
        optimizer.step()
        optimizer_tensors(optimizer)
    except Exception as error:
        raise _refused(name, options, error) from error


def optimizer_names() -> list[str]:
    """Return the names of all available optimizers: torch's, and timm's if timm is installed."""
    return sorted({*_torch_optimizers(), *_timm_optimizers()})


def takes_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer skips its update if its ``found_inf`` is set, as torch's fused ones do."""
    fused = all(group.get("fused") for group in optimizer.param_groups)
    return fused and bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _make(name: str, options: Mapping[str, Any], groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
    wanted = name.lower()
    if kind := _torch_optimizers().get(wanted):
        build: Callable[..., torch.optim.Optimizer] = kind
        taken, extra = set(inspect.signature(kind).parameters), {}
        if kind.__name__ in _FUSED:
            extra = {"fused": fused}
    elif wanted in _timm_optimizers():
        build, taken, extra = _from_timm(wanted)
    else:
        raise _unknown(name)
    _check_options(name, options, taken)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return build(groups, lr=groups[-1]["lr"], **extra, **values)
    except Exception as error:
        raise _refused(name, options, error) from error


def _from_timm(name: str) -> tuple[Callable[..., torch.optim.Optimizer], set[str], dict[str, Any]]:
    """Return the constructor of an optimizer of timm, the names of its options, and the arguments that zoo adds (none)."""
    factory = _timm_factory()
    kind = factory.get_optimizer_class(name, bind_defaults=False)
    return functools.partial(factory.create_optimizer_v2, opt=name), set(inspect.signature(kind).parameters), {}


@functools.cache
def _torch_optimizers() -> Mapping[str, type[torch.optim.Optimizer]]:
    found = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)}
    return {name.lower(): kind for name, kind in found.items() if kind is not torch.optim.Optimizer and name not in _NOT_TORCH}


def _timm_factory() -> Any:
    return importlib.import_module("timm.optim")  # mypy does not find names that are not exported explicitly


@functools.cache
def _timm_optimizers() -> frozenset[str]:
    """Return timm's names; called only for names that torch lacks, because importing timm takes seconds."""
    if importlib.util.find_spec("timm") is None:
        return frozenset()
    factory = _timm_factory()
    names = [name for name in factory.list_optimizers() if not name.startswith(_NOT_TIMM)]
    return frozenset(name for name in names if not factory.get_optimizer_info(name).second_order)


def _check_options(name: str, options: Mapping[str, Any], taken: set[str]) -> None:
    ours = sorted(_OURS & set(options))
    if ours:
        raise OptionError(f"optimizer_options has {', '.join(ours)}; give them to the run itself")
    check_options(options, taken - _OURS - _NOT_MATHS, f"optimizer {name!r}")


def _unknown(name: str) -> OptionError:
    timm, torchs = _timm_optimizers(), sorted(_torch_optimizers())
    beside = f"and {len(timm - set(torchs))} of timm's" if timm else "and with timm installed those of timm's factory"
    return OptionError(f"there is no optimizer {name!r}{did_you_mean(name, optimizer_names())}; there are {', '.join(torchs)}, {beside}")


def _refused(name: str, options: Mapping[str, Any], error: Exception) -> OptionError:
    kind = _torch_optimizers().get(name.lower()) or _timm_factory().get_optimizer_class(name.lower(), bind_defaults=False)
    parameters = inspect.signature(kind).parameters
    usual = {option: parameters[option].default for option in options if option in parameters}
    cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"  # a message of its own, or a bug inside
    return OptionError(f"optimizer {name!r} refuses optimizer_options={dict(options)!r} ({cause}); without them it has {usual!r}")

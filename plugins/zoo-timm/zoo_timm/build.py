"""Building timm models as backbones: without a classifier, with options that are checked."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

import zoo
from zoo_timm.catalogue import declared_prefix

# What zoo itself decides, and where the user says it.
TAKEN = {
    "pretrained": "weights are chosen with zoo.get(…, weights=…)",
    "checkpoint_path": "weights are chosen with zoo.get(…, weights=…)",
    "cache_dir": "the Hub's cache is chosen with HF_HOME",
    "num_classes": "the number of classes belongs to the head: adapt(num_classes=…)",
    "global_pool": "pooling belongs to the head: adapt(…, pool=…)",
    "features_only": "inner features are tapped by layer group",
    "pretrained_cfg": "zoo takes the configuration that belongs to the name",
    "pretrained_cfg_overlay": "zoo takes the configuration that belongs to the name",
}
# Options that users expect of any backbone, and what to do where an architecture does not have them.
ABSENT = {
    "img_size": "it takes images of any size: pass image_size to fit()",
    "drop_path_rate": "it has no stochastic depth",
    "drop_rate": "it has no dropout of its own: pass dropout to the head",
    "pad_type": "only the EfficientNet and MobileNet families have it",
    "output_stride": "only convolutional networks whose stages can be dilated have it",
    "bn_eps": "only the EfficientNet and MobileNet families have it",
}


def create(architecture: str, *, in_chans: int | None = None, unpooled: bool = False, **options: Any) -> nn.Module:
    """Build a timm model without its classifier.

    Args:
        architecture: timm's name, with or without a pretrained tag.
        in_chans: Number of input channels, where it differs from the published model's.
        unpooled: Whether its features come before the pooling, as maps or tokens; chosen by the catalogue.
        **options: Further options of the architecture, such as ``drop_path_rate``, ``img_size`` or ``pad_type``.

    Raises:
        zoo.OptionError: If the architecture has no such option, or refuses its value.
    """
    _refuse_taken(architecture, options)
    given = {key: value for key, value in {"in_chans": in_chans, **options}.items() if value is not None}
    fixed: dict[str, Any] = {"num_classes": 0, **({"global_pool": ""} if unpooled else {})}
    try:
        model = _create(architecture, **fixed, **given)
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        if not given:
            raise
        if isinstance(error, TypeError):
            zoo.check_options(given, accepted(architecture, **fixed), f"timm/{architecture}", remedies=ABSENT)
        values = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise zoo.OptionError(f"timm/{architecture} refuses {values}: {str(error).strip() or type(error).__name__}") from error
    if given:
        _refuse_other_tokens(architecture, model, given)
    return model


def _refuse_other_tokens(architecture: str, model: nn.Module, given: Mapping[str, Any]) -> None:
    """Raise where options change the tokens in front of the patches, which pooling leaves out or takes by their declared number."""
    declared, found = declared_prefix(architecture), getattr(model, "num_prefix_tokens", None)
    if declared is None or found is None or found == declared:
        return
    values = ", ".join(f"{name}={value!r}" for name, value in given.items())
    raise zoo.OptionError(
        f"timm/{architecture} with {values} has {found} tokens in front of the patches, not the declared {declared}, by which its features "
        "are pooled; take an architecture that is built so (zoo list 'timm/vit*'), or wrap the network: zoo.wrap(timm.create_model(…), …)"
    )


def _refuse_taken(architecture: str, options: Iterable[str]) -> None:
    taken = [f"{name!r}: {TAKEN[name]}" for name in options if name in TAKEN]
    if taken:
        raise zoo.OptionError(f"timm/{architecture} cannot be given {'; '.join(taken)}")


def _create(architecture: str, **options: Any) -> nn.Module:
    """Call timm, so that buffers, which no file holds, have their values also where parameters are made without any.

    Some models compute buffers on the device of their parameters, or compute with parameters; then all is built on the meta
    device and timm's own means give the buffers their values.
    """
    import timm

    try:
        model: nn.Module = timm.create_model(architecture, pretrained=False, **options)
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise
        with torch.device("meta"):
            model = timm.create_model(architecture, pretrained=False, **options)
    if torch.get_default_device().type != "meta" and any(buffer.is_meta for buffer in model.buffers()):
        restore_buffers(model)
    return model


def restore_buffers(model: nn.Module) -> None:
    """Give the buffers of a model on the meta device their values by timm's own means, in place; parameters stay without."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.zeros_like(buffer, device="cpu")
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
    with _parameters_on_cpu(model):
        for module in model.modules():
            init = getattr(module, "init_non_persistent_buffers", None)
            if init is not None:
                init()


@contextmanager
def _parameters_on_cpu(model: nn.Module) -> Iterator[None]:
    """Let parameters stand on the CPU for a while: buffers are made on their device. Memory that nobody writes costs nothing."""
    tables = [(module, dict(module._parameters)) for module in model.modules()]
    for module, parameters in tables:
        for name, parameter in parameters.items():
            if parameter is not None and parameter.is_meta:
                module._parameters[name] = nn.Parameter(torch.empty_like(parameter, device="cpu"), requires_grad=parameter.requires_grad)
    try:
        yield
    finally:
        for module, parameters in tables:
            module._parameters.update(parameters)


def accepted(architecture: str, **fixed: Any) -> list[str]:
    """Return the names of the options that an architecture takes, as far as its signatures tell."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False, **fixed)
    names: set[str] = set()
    for kind in type(model).__mro__:
        if kind is nn.Module or "__init__" not in vars(kind):
            continue
        parameters = inspect.signature(vars(kind)["__init__"]).parameters
        names |= {name for name, parameter in parameters.items() if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    if hasattr(inspect.getmodule(type(model)), "resolve_bn_args"):
        names |= {"bn_eps", "bn_momentum"}
    return sorted(names - set(TAKEN) - {"self", "cfg", "device", "dtype"})

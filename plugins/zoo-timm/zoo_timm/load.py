"""Bringing published timm checkpoints into the keys and shapes of a built model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import zoo
from zoo_timm.torchvision_keys import family_of, refusal, renamed

log = logging.getLogger("zoo")

Filter = Callable[..., Mapping[str, Tensor]]
_LOCK = threading.Lock()


def convert(state_dict: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return a checkpoint in the module's own keys, without the classifier.

    Where keys or shapes differ, the architecture's own checkpoint filter runs: it renames the keys of the original
    publications and resamples position embeddings to the module's image size. A checkpoint that torchvision wrote is renamed
    first, where both libraries have the same network.

    Args:
        state_dict: Tensors as published.
        module: The model without classifier; its parameters may be without values.

    Raises:
        zoo.ZooError: If torchvision wrote it, of another network; it names the backbone to use instead.
    """
    state = _without_classifier(state_dict, module)
    if _fits(state, module):
        return state
    family = family_of(state_dict)
    published = renamed(state_dict, family, module) if family else state_dict
    filter_fn = checkpoint_filter(module)
    state = _without_classifier(published if filter_fn is None else _filtered(filter_fn, published, module), module)
    if family and not _fits(state, module):
        raise zoo.ZooError(refusal(state_dict, module))
    return adapt_stem(state, module)


def checkpoint_filter(module: nn.Module) -> Filter | None:
    """Return the function with which timm brings published checkpoints of this architecture into its keys."""
    import timm

    caught: list[Filter | None] = []

    def catch(*_: Any, filter_fn: Filter | None = None, **__: Any) -> None:
        caught.append(filter_fn)

    # timm tells its filter only to its own loader, so the loader is stood in for while a model without values is built.
    with _LOCK, mock.patch("timm.models._builder.load_pretrained", catch), torch.device("meta"), _quiet():
        timm.create_model(name_of(module), pretrained=True, num_classes=0)
    return caught[0] if caught else None


def name_of(module: nn.Module) -> str:
    """Return timm's name, with the tag where there is one, of a built model."""
    config: Mapping[str, Any] = module.pretrained_cfg  # type: ignore[assignment]  # timm puts a dict there
    return ".".join(part for part in (config["architecture"], config.get("tag")) if part)


def _filtered(filter_fn: Filter, state_dict: Mapping[str, Tensor], module: nn.Module) -> Mapping[str, Tensor]:
    state = dict(state_dict)
    try:
        return filter_fn(state, module)
    except TypeError:  # a few filters take the state alone
        return filter_fn(state)


def _without_classifier(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    declared = module.pretrained_cfg.get("classifier") or ()  # type: ignore[operator,union-attr]  # timm puts a dict there
    names = (declared,) if isinstance(declared, str) else tuple(declared)
    own = module.state_dict()
    return {key: value for key, value in state.items() if key in own or not any(key.startswith(f"{name}.") for name in names)}


def _fits(state: Mapping[str, Tensor], module: nn.Module) -> bool:
    stems = _stems(module)
    return all(
        (key in state and (state[key].shape == tensor.shape or key in stems)) or key.endswith("num_batches_tracked")
        for key, tensor in module.state_dict().items()
    ) and not any(state[key].shape != module.state_dict()[key].shape and _folded(state[key], module) for key in stems if key in state)


def _stems(module: nn.Module) -> set[str]:
    declared = module.pretrained_cfg.get("first_conv") or ()  # type: ignore[operator,union-attr]  # timm puts a dict there
    return {f"{name}.weight" for name in ((declared,) if isinstance(declared, str) else tuple(declared))}


def _folded(weight: Tensor, module: nn.Module) -> bool:
    """Tell whether a stem sees more channels than the image has, because pixels are folded into channels first."""
    return weight.ndim == 4 and weight.shape[1] > _published_channels(module)


def _published_channels(module: nn.Module) -> int:
    return int(module.pretrained_cfg["input_size"][0])  # type: ignore[index]  # timm puts a dict there


def adapt_stem(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Adapt stems that see folded pixels to the module's input channels; plain stems are left to zoo."""
    from timm.models import adapt_input_conv

    own, given = module.state_dict(), _published_channels(module)
    for key in _stems(module) & state.keys() & own.keys():
        weight, wanted = state[key], own[key]
        if weight.shape == wanted.shape or not _folded(weight, module):
            continue
        channels = wanted.shape[1] * given // weight.shape[1]
        try:
            state[key] = adapt_input_conv(channels, weight, base_chans=given)
        except NotImplementedError:
            continue  # zoo names the tensor that does not fit
        log.warning("the pretrained %s was adapted from %d to %d input channels", key, given, channels)
    return state


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

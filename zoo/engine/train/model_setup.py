"""A model on its device and set up as a configuration trains it, for the duration of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.data.open import Table
from zoo.declare import Image, Text
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import prefix_of, shallowest
from zoo.engine.options.recipe import unfold
from zoo.engine.runtime.device import placed, searched, seeded
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.saved.lora_files import save_lora
from zoo.tuning import Regularizers, attach_lora, detach_lora, merge_lora, recomputed, set_dropout, stochastic_depth


@contextmanager
def prepared(model: TaskModel, train: Table, config: Config, accelerator: Any) -> Iterator[tuple[torch.memory_format, Regularizers | None]]:
    """Bring a model to the device and switch on what a configuration asks for, in place; yield memory format and penalties.

    The model then comes back to where it was, as frozen as it was. Its inputs and the names of its classes stay.

    Raises:
        OptionError: If the model cannot take the size of the inputs, or has LoRA already.
        LayerGroupError: If a phase would train nothing.
    """
    with ExitStack() as stack:
        stack.enter_context(_frozen_as_before(model))
        # What is sharded waits on the CPU, because it need not fit onto one device.
        layout = stack.enter_context(placed(model, torch.device("cpu") if config.shard else accelerator.device))
        stack.enter_context(searched(accelerator.device, fixed=not isinstance(model.inputs, Text)))
        stack.enter_context(seeded(config.seed))
        resize_inputs(model, config.image_size)
        shorten_inputs(model, config.max_length)
        window_inputs(model, config.window)
        # Statistics that were never learned must move.
        model.freeze_bn = config.freeze_bn and model.pretrained
        model.labels = model.labels or train.classes or None
        yield layout, stack.enter_context(switched_on(model, config))


@contextmanager
def _frozen_as_before(model: TaskModel) -> Iterator[None]:
    frozen, freeze_bn = model.frozen, model.freeze_bn
    try:
        yield
    finally:
        model.freeze_bn = freeze_bn
        model.freeze(frozen)


def resize_inputs(model: TaskModel, size: tuple[int, int] | None) -> None:
    """Make the model take images of ``size`` (height, width) from now on, in place.

    Raises:
        OptionError: If the model does not take images, or takes one size only.
    """
    if size is None:
        return
    if not isinstance(model.inputs, Image):
        raise OptionError(f"image_size is for images; backbone {model.spec.name!r} reads {model.spec.modality}")
    if model.inputs.fixed_size and size != (model.inputs.height, model.inputs.width):
        wanted = size[0] if size[0] == size[1] else size
        raise OptionError(
            f"backbone {model.spec.name!r} runs at {model.inputs.height} x {model.inputs.width} pixels only; "
            f"build it for another size: zoo.get({model.spec.name!r}, img_size={wanted})"
        )
    model.inputs = dataclasses.replace(model.inputs, size=size)


def shorten_inputs(model: TaskModel, length: int | None) -> None:
    """Make the model cut texts to ``length`` tokens from now on, in place.

    Raises:
        OptionError: If the model reads no text, or not as much.
    """
    if length is None:
        return
    if not isinstance(model.inputs, Text) or not isinstance(model.spec.inputs, Text):
        raise OptionError(f"max_length is for texts; backbone {model.spec.name!r} reads {model.spec.modality}s")
    if length > model.spec.inputs.max_length:
        raise OptionError(f"max_length is {length}; backbone {model.spec.name!r} takes at most {model.spec.inputs.max_length} tokens")
    model.inputs = dataclasses.replace(model.inputs, max_length=length)


def window_inputs(model: TaskModel, window: tuple[float, float] | None) -> None:
    """Make the model's DICOM images or volumes be shown through a window (centre, width) from now on, in place.

    Raises:
        OptionError: If the model reads texts.
    """
    if window is None:
        return
    if isinstance(model.inputs, Text):
        raise OptionError(f"window is for DICOM images and volumes; backbone {model.spec.name!r} reads texts")
    model.inputs = dataclasses.replace(model.inputs, window=window)


@contextmanager
def switched_on(model: TaskModel, config: Config) -> Iterator[Regularizers | None]:
    """Apply LoRA, then recompute, stochastic depth and dropout, in place; yield the penalties, if there are any.

    All of it is gone when the context closes. LoRA that was not merged by ``switch_off`` then takes what it learned along,
    because that stands in the run's checkpoint.

    Raises:
        OptionError: If the model has LoRA already.
        LayerGroupError: If a phase would train nothing.
    """
    if model.lora:
        raise OptionError("the model has LoRA attached; merge it first: zoo.tuning.merge_lora(model)")
    trained = model.groups[shallowest(config, model.groups, model.frozen) :]
    frozen = model.frozen
    with ExitStack() as stack:
        stack.callback(setattr, model, "trains", model.trains)
        if config.trains == "lora":
            stack.callback(detach_lora, model)
            options = {"rank": config.lora_rank, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
            attach_lora(model, trained, **options, seed=config.seed)  # type: ignore[arg-type]  # numbers of two kinds
        model.trains = config.trains
        for phase in unfold(config.recipe.phases, config.epochs, len(model.groups), 1):
            model.freeze(prefix_of(phase[0], config, model.groups, frozen))  # a phase that selects nothing ends here
        model.freeze(frozen)
        if config.recompute:
            stack.enter_context(recomputed(trained))
        if config.drop_path:
            stack.enter_context(stochastic_depth(model.groups, config.drop_path))
        if config.dropout is not None:
            stack.enter_context(set_dropout(model, config.dropout))
        if config.compile:
            stack.enter_context(compiled(model.backbone))
        weights = {"l2_sp": config.l2_sp, "delta": config.delta, "bss": config.bss}
        yield Regularizers(model, **weights) if any(weights.values()) else None


@contextmanager
def compiled(module: nn.Module) -> Iterator[None]:
    """Compile a module's calls while the context is open, in place; names of parameters and the state stay."""
    # Compiled code is kept per code object, and after eight models of one kind torch would give up compiling.
    torch.compiler.reset()
    module.compile()
    try:
        yield
    finally:
        module._compiled_call_impl = None


def switch_off(model: TaskModel, config: Config, folder: Path | None) -> None:
    """Merge what LoRA learned into the weights, in place; before that, save it by itself where there is a ``folder``."""
    if config.trains != "lora":
        return
    if folder is not None:
        save_lora(model, folder / "lora", overwrite=True)
    merge_lora(model)

"""What a configuration switches on around a model for the time of its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from zoo.engine.options.config import Config
from zoo.engine.options.epochs import prefix_of, shallowest
from zoo.engine.options.recipe import unfold
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.saved.lora_files import save_lora
from zoo.tuning import Regularizers, attach_lora, detach_lora, merge_lora, recomputed, set_dropout, stochastic_depth


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

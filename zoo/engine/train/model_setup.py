"""A model on its device and set up as a configuration trains it, for the duration of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zoo.declare import Text
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import prefix_of, shallowest
from zoo.engine.options.recipe import unfold
from zoo.engine.runtime.device import placed, searched, seeded
from zoo.engine.train.objective import Objective
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.saved.lora_files import save_lora
from zoo.tuning import Regularizers, attach_lora, detach_lora, merge_lora, recomputed, set_dropout, stochastic_depth


@contextmanager
def prepared(model: TaskModel, config: Config, accelerator: Any) -> Iterator[tuple[torch.memory_format, Regularizers | None]]:
    """Bring a model to the device and switch on what a configuration asks for, in place; yield memory format and penalties.

    The model then comes back to where it was, as frozen as it was.

    Raises:
        OptionError: If the model has LoRA already.
        LayerGroupError: If a phase would train nothing.
    """
    with ExitStack() as stack:
        stack.enter_context(_frozen_as_before(model))
        # What is sharded waits on the CPU, because it need not fit onto one device.
        layout = stack.enter_context(placed(model, torch.device("cpu") if config.shard else accelerator.device))
        stack.enter_context(searched(accelerator.device, fixed=not isinstance(model.inputs, Text)))
        stack.enter_context(seeded(config.seed))
        # Statistics that were never learned must move.
        model.freeze_bn = config.freeze_bn and model.pretrained
        yield layout, stack.enter_context(switched_on(model, config))


@contextmanager
def active(objective: Objective, supervised: Objective) -> Iterator[None]:
    """Keep open what must hold while an objective trains, and what holds for the encoded targets that it may have taken over."""
    with ExitStack() as stack:
        stack.enter_context(supervised.active())
        if objective is not supervised:
            stack.enter_context(objective.active())
        yield


@contextmanager
def further_modules(objective: Objective, device: torch.device) -> Iterator[None]:
    """Bring what an objective has beside its model to the device, in place; the frozen modules in eval mode."""
    with ExitStack() as stack:
        if objective.module is not objective.model:
            stack.enter_context(placed(objective.module, device))
        for module in objective.frozen.values():
            stack.enter_context(placed(module, device))
            module.eval()
        yield


@contextmanager
def _frozen_as_before(model: TaskModel) -> Iterator[None]:
    frozen, freeze_bn = model.frozen, model.freeze_bn
    try:
        yield
    finally:
        model.freeze_bn = freeze_bn
        model.freeze(frozen)


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
    """Compile a module's calls while the context is open, in place; names of parameters and the state stay.

    Code is compiled for any number of samples, and of tokens: batches differ by one sample, and those of validation are larger.
    Else the first size would get code of its own, and a resumed run, whose first batch is another one, would compute by other code.
    """
    # Compiled code is kept per code object, and after eight models of one kind torch would give up compiling.
    torch.compiler.reset()
    module.compile()
    module._compiled_call_impl = _for_any_size(module._compiled_call_impl)  # what compile() leaves and a call takes
    try:
        yield
    finally:
        module._compiled_call_impl = None


def _for_any_size(call: Any) -> Callable[..., Any]:
    """Return a compiled call whose code is not that of the first batch's size."""

    def marked(*inputs: Any, **named: Any) -> Any:
        for x in tree_leaves((inputs, named)):
            if isinstance(x, Tensor) and x.ndim:
                pixels = x.is_floating_point()
                torch._dynamo.maybe_mark_dynamic(x, [0] if pixels else list(range(x.ndim)))
        return call(*inputs, **named)

    return marked


def switch_off(model: TaskModel, config: Config, folder: Path | None) -> None:
    """Merge what LoRA learned into the weights, in place; before that, save it by itself where there is a ``folder``."""
    if config.trains != "lora":
        return
    if folder is not None:
        save_lora(model, folder / "lora", overwrite=True)
    merge_lora(model)

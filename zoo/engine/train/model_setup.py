"""Set up a model for the duration of a run: device, LoRA, recompute, dropout, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zoo.declare import Text
from zoo.engine.objective.objective import Objective
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import prefix_of, shortest_frozen_prefix
from zoo.engine.options.recipe import unfold
from zoo.engine.runtime.device import placed, searched, seeded
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.saved.lora_files import save_lora
from zoo.tuning import Regularizers, attach_lora, detach_lora, merge_lora, recomputed, set_dropout, stochastic_depth
from zoo.tuning.efficient.kinds import KINDS
from zoo.tuning.efficient.lora import fold_lora, undone


@contextmanager
def prepared(model: TaskModel, config: Config, accelerator: Any) -> Iterator[tuple[torch.memory_format, Regularizers | None]]:
    """Move a model to the device and apply the techniques of a configuration, in place; yield memory format and penalties.

    Device and frozen prefix are restored when the context closes.

    Raises:
        OptionError: If the model has LoRA already, or was built under ``torch.inference_mode``.
        LayerGroupError: If a phase would train nothing.
    """
    _refuse_inference_tensors(model)
    with ExitStack() as stack:
        stack.enter_context(_frozen_as_before(model))
        # A model to be sharded stays on the CPU, as it need not fit onto one device.
        layout = stack.enter_context(placed(model, torch.device("cpu") if config.shard else accelerator.device))
        stack.enter_context(searched(accelerator.device, fixed=not isinstance(model.inputs, Text)))
        stack.enter_context(seeded(config.seed))
        # Statistics of a model without pretrained weights must move.
        model.freeze_bn = config.freeze_bn and model.pretrained
        yield layout, stack.enter_context(switched_on(model, config))


def _refuse_inference_tensors(model: TaskModel) -> None:
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise OptionError("the network was built under torch.inference_mode, so its parameters cannot be trained; build it outside")


@contextmanager
def active(objective: Objective, supervised: Objective) -> Iterator[None]:
    """Open the contexts of an objective and of the ``Supervised`` whose encoded targets it may use."""
    with ExitStack() as stack:
        stack.enter_context(supervised.active())
        if objective is not supervised:
            stack.enter_context(objective.active())
        yield


@contextmanager
def further_modules(objective: Objective, device: torch.device) -> Iterator[None]:
    """Move further modules of an objective to the device, in place; the frozen ones in eval mode."""
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

    All of it is removed when the context closes, but for adapters and learned tokens that ``switch_off`` has kept. LoRA that
    ``switch_off`` did not merge is dropped, as the run's checkpoint has its values.

    Raises:
        OptionError: If the model has LoRA already, or adapters and is to get an update.
        LayerGroupError: If a phase would train nothing.
    """
    if model.lora and (config.trains in KINDS or KINDS[model.lora.kind].merges):
        raise OptionError(f"the model has {KINDS[model.lora.kind].title} attached; {undone(model.lora.kind)}")
    trained = model.groups[shortest_frozen_prefix(config, model.groups, model.frozen) :]
    frozen = model.frozen
    with ExitStack() as stack:
        stack.callback(setattr, model, "trains", model.trains)
        if config.trains in KINDS:
            stack.callback(_drop_unfinished, model, config)
            options = {"rank": config.lora_rank, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
            options |= {"width": config.adapter_width, "tokens": config.prompt_tokens}
            own: Any = {name: options[name] for name in KINDS[config.trains].options}
            attach_lora(model, trained, **own, kind=config.trains, seed=config.seed)
        model.trains = config.trains
        for phase in unfold(config.recipe, config.epochs, len(model.groups), 1):
            model.freeze(prefix_of(phase[0], config, model.groups, frozen))  # raises for a phase that would train nothing
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


def _drop_unfinished(model: TaskModel, config: Config) -> None:
    """Detach the update of a run that did not come to its end, in place; ``switch_off`` sets ``trains`` at the end."""
    if model.trains == config.trains:
        detach_lora(model)


@contextmanager
def compiled(module: nn.Module) -> Iterator[None]:
    """Compile a module's calls while the context is open, in place; names of parameters and the state stay.

    Code is compiled for any number of samples, and of tokens: batches differ by one sample, and those of validation are larger.
    Else the first size would get code of its own, and a resumed run, whose first batch is another one, would compute by other code.
    """
    # Compiled code is cached per code object, and torch stops compiling after eight models of one type.
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


def switch_off(model: TaskModel, config: Config, folder: Path | None, *, learned: bool = True) -> None:
    """Merge LoRA or its kin into the weights, in place; before that, save it separately if there is a ``folder``.

    Adapters and learned tokens, which cannot be merged, stay in the model.

    Args:
        model: The model.
        config: The resolved configuration.
        folder: Where to save LoRA.
        learned: Whether the kept epoch is one in which LoRA trained; else no layer is reported that has learned nothing.
    """
    if config.trains not in KINDS:
        return
    if folder is not None:
        save_lora(model, folder / "lora", overwrite=True)
    if KINDS[config.trains].merges:
        (merge_lora if learned else fold_lora)(model)
    else:
        model.trains = "all"

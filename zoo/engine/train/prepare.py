"""A model on its device and in the state that a configuration trains it in, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from zoo.data.open import Table
from zoo.declare import Text
from zoo.engine.options.config import Config
from zoo.engine.runtime.device import placed, searched, seeded
from zoo.engine.train.option_checks import resize_inputs, shorten_inputs, window_inputs
from zoo.engine.train.switches import switched_on
from zoo.models.task_model import TaskModel
from zoo.tuning import Regularizers


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

"""Checks of sharded runs, and the sharded copy of a model that trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from zoo.engine.distributed.ranks import Ranks
from zoo.engine.options.config import DECLARED, Config
from zoo.errors import OptionError, fault_list
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tuning.shard import sharded

OPTIMIZERS = ("adamw", "adam", "sgd")  # elementwise updates, which a shard can compute


def check_shardable(model: TaskModel, config: Config, ranks: Ranks, *, supervised: bool = True) -> None:
    """Check that ``shard=True`` applies to the run and that no option needs full parameters.

    Raises:
        OptionError: Naming everything that prevents sharding.
    """
    if not config.shard:
        return
    defaults = {name: field.get_default(call_default_factory=True) for name, field in Config.model_fields.items()}
    changed = {name: getattr(config, name) != defaults[name] for name, option in DECLARED.items() if not option.shards}
    changed |= {
        "lr='auto'": config.lr == "auto",
        "batch_size='auto'": config.batch_size == "auto",
        f"optimizer={config.optimizer!r} (of {', '.join(OPTIMIZERS)})": config.optimizer.lower() not in OPTIMIZERS,
    }
    faults = [f"it does not go with {name}" for name, given in changed.items() if given]
    if not supervised:
        faults.append("it does not go with objective=")
    if ranks.count == 1:
        faults.append("it needs several processes: torchrun, accelerate launch, or zoo train --num-processes")
    if find_task(model.task).standardized:
        faults.append(f"it is not for {model.task}, which scales its head")
    if faults:
        raise OptionError(fault_list("shard=True cannot be used here:", faults, "See docs/several-devices.md"))


def check_batches(smallest: int, ranks: Ranks, *, separable: bool) -> None:
    """Check that every rank has a sample of each batch if every forward has collectives.

    Args:
        smallest: Samples of the smallest batch.
        ranks: The ranks.
        separable: Whether the loss is a sum over samples.

    Raises:
        OptionError: If the smallest batch has fewer samples than there are processes.
    """
    if (ranks.lockstep or not separable) and smallest < ranks.count:
        what = "shard=True" if ranks.lockstep else "a loss of whole batches"
        needs = f"{what} needs a sample for every process in each batch"
        raise ranks.known(OptionError(f"{needs}; the smallest has {smallest}, for {ranks.count} processes"))


@contextmanager
def trained_model(model: TaskModel, config: Config, ranks: Ranks, device: torch.device, *, half: bool) -> Iterator[TaskModel]:
    """Yield the model to train: itself, or a sharded copy whose values are copied back at the end.

    Args:
        model: The model.
        config: The configuration.
        ranks: The ranks.
        device: Device of this rank.
        half: Whether forward passes compute in bf16.
    """
    if not config.shard:
        yield model
        return
    ranks.lockstep = True
    with sharded(model, ranks.count, device, half=half) as copied:
        yield copied

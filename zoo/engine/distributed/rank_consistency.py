"""Checks that all ranks share configuration, data and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.engine.distributed.ranks import Ranks
from zoo.engine.options.config import DECLARED
from zoo.errors import OptionError, fault_list

_FREE = {name for name, option in DECLARED.items() if option.free} - {"device"} | {"platform"}  # may differ between ranks
VALUES = "the model's values"
REMEDY = "Start all of them with the same command, data and environment"


def check_same_setup(record: Mapping[str, Any], model: nn.Module, ranks: Ranks) -> None:
    """Check that all ranks have the same options, data, versions and initial values.

    Args:
        record: The content of run.json.
        model: The model before training.
        ranks: The ranks.

    Raises:
        OptionError: On every rank, naming the differences.
    """
    if ranks.count == 1:
        return
    data = {f"the {name} data": _without_source(table) for name, table in record["data"].items()}
    parts = {f"the {name}": record.get(name) for name in ("objective", "own")}
    mine = record["config"] | record["model"] | record["versions"] | data | parts | {VALUES: fingerprint(model)}
    first, *others = ranks.gather(mine)
    for rank, other in enumerate(others, start=1):
        names = [name for name in first | other if name not in _FREE and first.get(name) != other.get(name)]
        if names:
            faults = [_difference(name, first.get(name), other.get(name), rank) for name in names]
            headline = f"ranks 0 and {rank} of {ranks.count} do not do the same:"
            raise ranks.known(OptionError(fault_list(headline, faults, REMEDY)))


def check_same_modules(module: nn.Module, frozen: Mapping[str, nn.Module], ranks: Ranks) -> None:
    """Check that the objective's modules start from the same values on all ranks.

    Args:
        module: The objective's module.
        frozen: Its frozen modules by name.
        ranks: The ranks.

    Raises:
        OptionError: On every rank, naming the modules.
    """
    if ranks.count == 1 or ranks.lockstep:
        return
    mine = {"its module": fingerprint(module), **{f"frozen {name!r}": fingerprint(part) for name, part in frozen.items()}}
    first, *others = ranks.gather(mine)
    differing = sorted({name for other in others for name in first if other.get(name) != first[name]})
    if differing:
        remedy = "build further modules inside the function that objective= is given, where random values follow from the run's seed"
        raise ranks.known(OptionError(f"objective: {', '.join(differing)} has other values on other ranks; {remedy}"))


def check_same_checkpoint(folder: Path, steps: int | None, ranks: Ranks) -> None:
    """Check that all ranks found the same checkpoint.

    Args:
        folder: The run's folder.
        steps: Optimizer steps of the checkpoint that this rank found, or None.
        ranks: The ranks.

    Raises:
        OptionError: On every rank.
    """
    steps_of = ranks.gather(steps)
    if len(set(steps_of)) > 1:
        faults = [f"rank {rank}: {'none' if taken is None else f'after {taken} steps'}" for rank, taken in enumerate(steps_of)]
        remedy = "The run's folder must be on a file system that all machines share"
        raise ranks.known(OptionError(fault_list(f"the processes found different checkpoints in {str(folder)!r}:", faults, remedy)))


def fingerprint(model: nn.Module) -> str:
    """Return a checksum of a model's values: the sum of their bits as integers."""
    total = 0
    for position, tensor in enumerate(model.state_dict().values(), start=1):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        end = len(content) // 4 * 4
        words = content[:end].view(torch.int32) if content.storage_offset() % 4 == 0 else content[:end]
        total += position * (int(words.sum(dtype=torch.int64)) + int(content[end:].sum(dtype=torch.int64)))
    return f"{total % 2**64:016x}"


def _without_source(table: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a summary without the path of the data, which may differ between machines."""
    return None if table is None else {name: value for name, value in table.items() if name != "source"}


def _difference(name: str, first: Any, other: Any, rank: int) -> str:
    if isinstance(first, Mapping) and isinstance(other, Mapping):
        inner = [key for key in {**first, **other} if first.get(key) != other.get(key)]
        return "; ".join(_difference(f"{name}: {key}", first.get(key), other.get(key), rank) for key in inner)
    if name == VALUES:
        return f"{name} are not equal on ranks 0 and {rank}: give both the same weights, or the same seed"
    if name.endswith("sha256"):
        return f"{name.removesuffix(': sha256')} have other files or labels on rank 0 than on rank {rank}"
    return f"{name} is {first!r} on rank 0 and {other!r} on rank {rank}"

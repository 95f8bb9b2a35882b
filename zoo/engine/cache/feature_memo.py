"""In-process LRU cache of frozen features, for later runs with the same backbone and samples, such as a sweep over heads.

The key covers everything that the values depend on, bit for bit: types, settings and values of the frozen modules, the
declared input, the samples, the view and the batch size. Samples without a cheap identity, such as a user's own dataset, have
no key and are not shared; neither are outputs of modules with hooks or a patched forward.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.data.raw import TEXTUAL
from zoo.data.table import Table, View
from zoo.engine.loading.digests import add_values, file_key
from zoo.engine.loading.loader import Kind
from zoo.engine.loading.sources import summary
from zoo.engine.rundir.run_context import RunContext
from zoo.models.own_names import is_own
from zoo.models.task_model import TaskModel
from zoo.util.process_caches import CACHES

LIMIT = 512 * 2**20  # bytes of all values together


class FeatureMemo:
    """An LRU cache with a limit in bytes.

    Args:
        limit: Bytes of all values together.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, key: str) -> Any:
        """Return the value of a key, or None."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key][0]
        return None

    def put(self, key: str, value: Any, size: int) -> None:
        """Store a value of ``size`` bytes, unless it is larger than the limit or the key is empty."""
        if not key or size > self._limit:
            return
        self._held[key] = value, size
        while sum(each for _, each in self._held.values()) > self._limit:
            self._held.popitem(last=False)


def feature_memo() -> FeatureMemo:
    """Return the memo of this process."""
    return CACHES.get("frozen features", FeatureMemo)


class Keys:
    """Cache keys for the tables of one run.

    Args:
        model: The model of the run.
        context: The conditions of the run.
    """

    def __init__(self, model: TaskModel, context: RunContext) -> None:
        self._model, self._context = model, context
        self._tables: dict[int, str] = {}
        self._prefix = ""

    def model_changed(self) -> None:
        """Recompute the key of the frozen prefix, after it was changed or trained."""
        self._prefix = ""

    def of(self, what: str, table: Table, kind: Kind, view: int, *, batch_size: int) -> str:
        """Return the key of outputs of the frozen prefix; empty if the samples or the prefix have none.

        Args:
            what: Name of the outputs.
            table: The samples.
            kind: How they are loaded, see ``Loaders``.
            view: Number of the augmented view.
            batch_size: Samples per forward.
        """
        if id(table) not in self._tables:  # once per table, as it looks at every file
            self._tables[id(table)] = table_key(table)
        if not (samples := self._tables[id(table)]):
            return ""
        self._prefix = self._prefix or model_key(self._model, self._model.frozen)
        if not self._prefix:
            return ""
        config = self._context.config
        settings = [batch_size, str(self._context.device), self._context.half, config.compile]
        backends: Any = torch.backends  # its types lack some of these
        libraries = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
        settings += [library.fp32_precision for library in libraries]  # older getters raise once these are set
        drawn = [view, config.seed, config.augment] if kind.augmented else []
        return f"{what}/{self._prefix}/{samples}/{settings}/{drawn}"


def model_key(model: TaskModel, frozen: int) -> str:
    """Return a digest of the frozen prefix of a model and its preprocessing; empty if it cannot be identified."""
    spec, pool = model.spec, getattr(model.head, "pool", None)
    if is_own(spec.name):  # a user's own network, whose code has no name
        return ""
    modules = [part for group in model.groups[:frozen] for _, module in group.modules() for part in module.modules()]
    modules += [model.backbone, *(pool.modules() if isinstance(pool, nn.Module) else [])]
    if any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in modules):
        return ""
    digest = hashlib.sha256(repr((spec.build, spec.options, spec.features, model.inputs, model.groups.names[:frozen])).encode())
    digest.update(repr((type(model.head), torch.get_num_threads(), [_settings(part) for part in modules])).encode())
    for group in model.groups[:frozen]:
        add_values(digest, (*group.named_parameters(), *group.named_buffers()))
    return digest.hexdigest()


def _settings(module: nn.Module) -> tuple[str, list[tuple[str, Any]]]:
    """Return the type of a module and its settings, such as the epsilon of a norm."""
    plain = (bool, int, float, str, tuple, type(None))
    settings = [(name, value) for name, value in vars(module).items() if isinstance(value, plain) and name != "training" and name[0] != "_"]
    return f"{type(module).__module__}.{type(module).__qualname__}", settings


def table_key(table: Table) -> str:
    """Return a digest of the samples of a table; empty if they cannot be identified."""
    inputs = table.inputs
    if isinstance(inputs, np.ndarray):
        return hashlib.sha256(repr((inputs.dtype, inputs.shape)).encode() + np.ascontiguousarray(inputs).tobytes()).hexdigest()
    if not isinstance(inputs, list | tuple):
        return ""
    digest = hashlib.sha256(table.reads.encode())
    for item in inputs:
        key = f"{item!r}\0" if table.reads in TEXTUAL else _file_key(item)
        if not key:
            return ""
        digest.update(key.encode())
    return digest.hexdigest()


def _file_key(item: Any) -> str:
    return file_key(item) if isinstance(item, str | os.PathLike) else ""


def content_summary(table: Table | None) -> dict[str, Any] | None:
    """Return the summary of a table and, of arrays, which have no names, a key of their values; None for no table."""
    if table is None:
        return None
    inputs = table.inputs
    if isinstance(inputs, View) and isinstance(inputs.items, np.ndarray):
        chosen: Any = inputs.items[inputs.indices]
        table = replace(table, inputs=chosen)
    return (summary(table) or {}) | {"content": table_key(table) if isinstance(table.inputs, np.ndarray) else ""}

"""A fusion: the models of its parts and a head, which predict, are measured, saved and opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.engine.inference.all_outputs import run_whole
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.loading.stream import Function
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.transfer.fusion.features import AS_SOLVED, NO_WINDOWS, pooled, warn_of_cut_texts
from zoo.transfer.fusion.network import packed_table
from zoo.transfer.fusion.parts import Parts, read_parts
from zoo.transfer.fusion.saved import OF_ONE_KIND, read_fusion, save_fusion
from zoo.transfer.fusion.solved import Block, joined

PASSES = ("batch_size", "workers", "device", "precision", "quiet")  # options of a pass that say nothing of the inputs
Array = npt.NDArray[Any]


@dataclass
class Fusion:
    """A classifier of rows that have images, texts and numbers, any of which may be missing.

    Attributes:
        models: The image and the text model, whose features are used as they are.
        numbers: Columns of numbers.
        task: Name of the task.
        classes: Names of the classes.
        columns: Own names of columns by role.
        root: Folder of the images; None is that of each table.
        blocks: How each part is standardized, by its name.
        weight: Of the head, ``(classes, features + parts)``; the last columns are the learned vectors of missing parts.
        bias: ``(classes,)``.
        options: Of the pass, as for ``TaskModel.embed``.
        how: How the parts are fused, one of ``WAYS``.
        trained: Whether something beside a solved head is trained.
        network: Towers, what fuses them and the head, where that is so; ``weight`` and ``bias`` are then not used.
        tokens: Tokens of a text that the network reads.
        label_columns: Columns that hold the labels, one per class; empty where one column does.
        uncertain: What a label of -1 counts as; None refuses it.
        scores: How well each part alone and the fusion predict rows that they were not fitted on, by the metric ``monitor``.
        monitor: Name of the metric.
        verdict: In one line that tuning was not better than its start, which was kept; empty where it was, or nothing was tuned.
    """

    models: Mapping[str, TaskModel]
    numbers: tuple[str, ...]
    task: str
    classes: tuple[str, ...]
    columns: Mapping[str, str]
    root: str | os.PathLike[str] | None = None
    blocks: Mapping[str, Block] = field(default_factory=dict)
    weight: Tensor = field(default_factory=lambda: torch.zeros(0))
    bias: Tensor = field(default_factory=lambda: torch.zeros(0))
    options: Mapping[str, Any] = field(default_factory=dict)
    how: str = "concatenate"
    trained: bool = False
    network: TaskModel | None = None
    tokens: int = 0
    label_columns: tuple[str, ...] = ()
    uncertain: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    monitor: str = ""
    verdict: str = ""

    def predict(self, data: Any) -> list[Any]:
        """Return the label of each row of a table; for a multi-label task a tuple of labels."""
        return find_task(self.task).decode(self.outputs(self.read(data)), self.classes)

    def predict_proba(self, data: Any) -> Array:
        """Return probabilities ``(rows, classes)``, float32."""
        found = find_task(self.task).probabilities(self.outputs(self.read(data)))
        return np.asarray(found, dtype=np.float32)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Return the metrics of the task on a labelled table."""
        parts = self.read(data, labelled=True)
        return find_task(self.task).metrics(self.outputs(parts).astype(np.float64), np.asarray(parts.labels.targets), self.classes)

    def embed(self, data: Any) -> Array:
        """Return the fused features of each row of a table, ``(rows, dim)``, float32: what the head reads.

        Of a solved head these are the standardized features and numbers beside each other and a column per part that is 1 where it is
        missing; of a network what fuses the parts gives.
        """
        return self.fused_features(self.read(data))

    def fused_features(self, parts: Parts) -> Array:
        """Return the fused features of rows that were read; see ``embed``."""
        if self.network is None:
            return np.asarray(joined(self.features(parts), self.blocks).numpy(), dtype=np.float32)
        return self._passed(parts, self.network.embed_batch)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Save the models in folders below it, and the head beside them; ``zoo.transfer.load_fusion`` opens it.

        Raises:
            OutputExistsError: If the folder exists and is not empty, unless ``overwrite``.
        """
        return save_fusion(self, Path(folder), overwrite=overwrite)

    def read(self, data: Any, *, labelled: bool = False) -> Parts:
        """Return the parts of the rows of a table; see ``read_parts``."""
        given: dict[str, Any] = {"columns": self.columns, "root": self.root, "labelled": labelled, "task": self.task}
        given |= {"label_columns": self.label_columns, "uncertain": self.uncertain}
        return read_parts(data, list(self.models), self.numbers, **given, classes=self.classes)

    def features(self, parts: Parts) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the features of each part, zero where it is missing, and the rows in which it is."""
        found = {name: self.part_features(parts, name) for name in self.models}
        for place, name in enumerate(self.numbers):
            values = np.nan_to_num(parts.numbers[:, place : place + 1]).astype(np.float32)
            found[f"number {name}"] = (torch.from_numpy(values), torch.from_numpy(parts.missing[f"number {name}"]))
        return found

    def part_features(self, parts: Parts, name: str) -> tuple[Tensor, Tensor]:
        """Return the features ``(rows, dim)`` of the images or the texts, zero where one is missing, and the rows in which it is."""
        model, missing = self.models[name], parts.missing[name]
        rows, there = np.zeros((len(missing), model.spec.features.dim), dtype=np.float32), parts.there(name)
        if len(there):
            remedy = NO_WINDOWS if self.trained else AS_SOLVED if len(self.weight) else ""
            rows[~missing] = pooled(model, there, {"quiet": True} | self._options_of(name), remedy=remedy)
        return torch.from_numpy(rows), torch.from_numpy(missing)

    def _options_of(self, kind: str) -> dict[str, Any]:
        """Return the options of the pass through one of the backbones, without those of another kind of input."""
        others = {name for other, names in OF_ONE_KIND.items() if other != kind for name in names}
        return {name: value for name, value in self.options.items() if name not in others}

    def outputs(self, parts: Parts) -> Array:
        """Return the logits ``(rows, classes)``, float32."""
        if self.network is not None:
            return self._passed(parts, self.network)
        return np.asarray((joined(self.features(parts), self.blocks) @ self.weight.T + self.bias).numpy(), dtype=np.float32)

    def _passed(self, parts: Parts, forward: Function) -> Array:
        """Return the outputs of a function of the network for the rows of a table."""
        assert self.network is not None, "only a trained fusion has one"
        if "text" in self.models:
            warn_of_cut_texts(self.models["text"], parts.there("text"), self.tokens)
        given: dict[str, Any] = {"quiet": True} | {name: self.options[name] for name in PASSES if name in self.options}
        return run_whole(self.network, packed_table(self.models, parts, self.tokens), forward, InferenceOptions(**given)).values


def load_fusion(folder: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Fusion:
    """Open a saved fusion.

    Args:
        folder: The folder.
        root: Folder of the images of the tables to come; None is that of each table.

    Raises:
        SavedModelError: If the folder holds none, or it is damaged.
    """
    return Fusion(**read_fusion(Path(folder)), root=root)

"""The files of a saved fusion."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import SavedModelError, count, examples
from zoo.models.task_model import TaskModel
from zoo.saved.config import FUSION
from zoo.saved.load import load
from zoo.saved.save import check_free, save, writing
from zoo.transfer.fusion.network import make_network
from zoo.transfer.fusion.solved import Block
from zoo.util.atomic_write import write_json
from zoo.weights.load import read, write
from zoo.weights.safetensors_header import read_header

RECORD, VALUES = FUSION, "fusion.safetensors"
FORMATS = (1, 2)  # of the record; 2 has a trained network
HEADS = {1: "weight", 2: "head.linear.weight"}  # the tensor of the head, whose second dimension is the width of the fused features
OF_ONE_KIND = {"image": ("image_size", "window"), "text": ("prompt_name", "overflow", "max_length")}  # options that change its features


def save_fusion(fusion: Any, path: Path, *, overwrite: bool) -> Path:
    """Save the models of a fusion in folders below one, and the head beside them.

    Args:
        fusion: A ``Fusion``, whose module imports this one.
        path: The folder.
        overwrite: Whether files there may be replaced.

    Raises:
        OutputExistsError: If the folder exists and is not empty, unless ``overwrite``.
    """
    check_free(path, overwrite=overwrite)
    for name, model in fusion.models.items():
        save(model, path / name, overwrite=overwrite, of_fusion=True)
    tensors = {"weight": fusion.weight, "bias": fusion.bias} if fusion.network is None else _own_tensors(fusion.network)
    tensors |= {f"{name}.{key}": getattr(block, key) for name, block in fusion.blocks.items() for key in ("mean", "scale")}
    fields: dict[str, Any] = {"numbers": list(fusion.numbers), "task": fusion.task, "classes": list(fusion.classes)}
    fields |= {"columns": dict(fusion.columns), "scores": dict(fusion.scores), "monitor": fusion.monitor, "how": fusion.how}
    fields |= {"label_columns": list(fusion.label_columns), "uncertain": fusion.uncertain, "verdict": fusion.verdict}
    fields |= {"limits": {name: block.limit for name, block in fusion.blocks.items() if math.isfinite(block.limit)}}
    if fusion.network is not None:
        mixer: Any = fusion.network.backbone.mixer
        fields |= {"tokens": fusion.tokens, "dropout": mixer.dropout}
    lasting = {name: fusion.options[name] for names in OF_ONE_KIND.values() for name in names if name in fusion.options}
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        write(tensors, path / VALUES)
        write_json(
            path / RECORD, {"format": FORMATS[fusion.network is not None], "models": list(fusion.models), "options": lasting} | fields
        )
    return path


def _own_tensors(network: TaskModel) -> dict[str, Tensor]:
    """Return the tensors of what fuses the parts, and of the head: those that no model of a part has."""
    mixer: Any = network.backbone.mixer
    parts: dict[str, nn.Module] = {"mixer": mixer, "head": network.head}
    return {f"{part}.{key}": value.detach() for part, module in parts.items() for key, value in module.state_dict().items()}


def _network(told: Mapping[str, Any], fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TaskModel:
    """Return the network of a saved fusion."""
    network = make_network(
        fields["models"],
        how=told["how"],
        blocks=fields["blocks"],
        tokens=told["tokens"],
        dropout=told["dropout"],
        task=told["task"],
        classes=told["classes"],
    )
    own = _own_tensors(network)
    if odd := sorted(name for name in own if name not in tensors or tensors[name].shape != own[name].shape):
        raise ValueError(f"{count(len(odd), 'tensor')} of another shape, or missing: {examples(odd)}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
    return network.eval()


@contextmanager
def _undamaged(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the record of a saved fusion; what is missing from it or from the files beside it makes it damaged.

    Raises:
        SavedModelError: If the folder holds none, it is of a later version, or damaged.
    """
    if not (path / RECORD).is_file():
        raise SavedModelError(f"{str(path)!r} is no saved fusion: it has no {RECORD}; give the folder that Fusion.save wrote")
    try:
        told = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if told["format"] not in FORMATS:
            raise SavedModelError(
                f"{str(path)!r} is of format {told['format']!r}, and this zoo reads {' and '.join(map(str, FORMATS))}; update it"
            )
        yield told
    except (KeyError, TypeError, ValueError) as error:
        raise SavedModelError(f"{str(path / RECORD)!r} is damaged ({type(error).__name__}: {error}); save the fusion again") from error


def fusion_record(path: Path) -> dict[str, Any]:
    """Return what a saved fusion is, without loading its models.

    Returns:
        ``models`` (the folders of its image and text models by their part), ``numbers``, ``how``, ``trained``, ``dim`` (width of the fused
        features), ``tokens`` (of a text, of a trained one), ``dropout`` (likewise), ``task``, ``classes``, ``columns``, ``scores``,
        ``monitor`` and ``verdict``.

    Raises:
        SavedModelError: If the folder holds none, or it is damaged.
    """
    with _undamaged(path) as told:
        trained = told["format"] > 1
        dim = read_header(path / VALUES, "")[HEADS[told["format"]]].shape[1]
        known = {name: told[name] for name in ("numbers", "task", "classes", "columns")}
        more = {"tokens": told["tokens"], "dropout": told["dropout"]} if trained else {}
        models = {name: str(path / name) for name in told["models"] if name in OF_ONE_KIND}
        found = {"models": models, "how": told.get("how", "concatenate"), "trained": trained, "dim": dim} | known | more
        return found | {"scores": told.get("scores", {}), "monitor": told.get("monitor", ""), "verdict": told.get("verdict", "")}


def read_fusion(path: Path) -> dict[str, Any]:
    """Return the attributes of a saved fusion.

    Raises:
        SavedModelError: If the folder holds none, or it is damaged.
    """
    with _undamaged(path) as told:
        tensors = read(path / VALUES)
        models = {name: load(path / name) for name in told["models"] if name in OF_ONE_KIND}
        names = [*models, *(f"number {name}" for name in told["numbers"])]
        fields: dict[str, Any] = {
            "task": told["task"],
            "classes": tuple(told["classes"]),
            "columns": told["columns"],
            "options": dict(told["options"]),
        }
        fields |= {"models": models, "numbers": tuple(told["numbers"])}
        limits = {name: float(told.get("limits", {}).get(name, math.inf)) for name in names}  # earlier versions had none
        fields |= {"blocks": {name: Block(tensors[f"{name}.mean"], tensors[f"{name}.scale"], limits[name]) for name in names}}
        fields |= {"scores": told.get("scores", {}), "monitor": told.get("monitor", ""), "how": told.get("how", "concatenate")}
        fields |= {"label_columns": tuple(told.get("label_columns", ())), "uncertain": told.get("uncertain")}
        fields["verdict"] = told.get("verdict", "")
        if told["format"] == 1:
            return fields | {"weight": tensors["weight"], "bias": tensors["bias"]}
        return fields | {"trained": True, "network": _network(told, fields, tensors), "tokens": told["tokens"]}

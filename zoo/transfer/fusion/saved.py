"""The files of a saved fusion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import SavedModelError
from zoo.saved.load import load
from zoo.saved.save import check_free, writing
from zoo.transfer.fusion.solved import Block
from zoo.util.atomic_write import write_json
from zoo.weights.load import read, write

if TYPE_CHECKING:
    from zoo.transfer.fusion.model import Fusion

RECORD, VALUES = "fusion.json", "fusion.safetensors"
FORMAT = 1  # of the record
OF_ONE_KIND = {"image": ("image_size", "window"), "text": ("prompt_name", "overflow")}  # options that change its features


def save_fusion(fusion: Fusion, path: Path, *, overwrite: bool) -> Path:
    """Save the models of a fusion in folders below one, and the head beside them.

    Raises:
        OutputExistsError: If the folder exists and is not empty, unless ``overwrite``.
    """
    check_free(path, overwrite=overwrite)
    for name, model in fusion.models.items():
        model.save(path / name, overwrite=overwrite)
    tensors = {"weight": fusion.weight, "bias": fusion.bias}
    tensors |= {f"{name}.{key}": getattr(block, key) for name, block in fusion.blocks.items() for key in ("mean", "scale")}
    fields = {"numbers": list(fusion.numbers), "task": fusion.task, "classes": list(fusion.classes), "columns": dict(fusion.columns)}
    lasting = {name: fusion.options[name] for names in OF_ONE_KIND.values() for name in names if name in fusion.options}
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        write(tensors, path / VALUES)
        write_json(path / RECORD, {"format": FORMAT, "models": list(fusion.models), "options": lasting} | fields)
    return path


def read_fusion(path: Path) -> dict[str, Any]:
    """Return the attributes of a saved fusion.

    Raises:
        SavedModelError: If the folder holds none, or it is damaged.
    """
    if not (path / RECORD).is_file():
        raise SavedModelError(f"{str(path)!r} is no saved fusion: it has no {RECORD}; give the folder that Fusion.save wrote")
    try:
        told = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise SavedModelError(f"{str(path)!r} is of format {told['format']!r}, and this zoo reads {FORMAT}; update it")
        tensors = read(path / VALUES)
        models = {name: load(path / name) for name in told["models"] if name in OF_ONE_KIND}
        names = [*models, *(f"number {name}" for name in told["numbers"])]
        fields = {"task": told["task"], "classes": tuple(told["classes"]), "columns": told["columns"], "options": dict(told["options"])}
        fields |= {"models": models, "numbers": tuple(told["numbers"]), "weight": tensors["weight"], "bias": tensors["bias"]}
        return fields | {"blocks": {name: Block(tensors[f"{name}.mean"], tensors[f"{name}.scale"]) for name in names}}
    except (KeyError, TypeError, ValueError) as error:
        raise SavedModelError(f"{str(path / RECORD)!r} is damaged ({type(error).__name__}: {error}); save the fusion again") from error

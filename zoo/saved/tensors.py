"""The tensors of a saved model: checked against their digest, and their names in the file and in the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from zoo.errors import SavedModelError
from zoo.saved.config import Config, read_config
from zoo.util.file_digest import file_digest
from zoo.weights.load import read


def read_state(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a saved model by their names in the model.

    Raises:
        SavedModelError: If the folder is not a saved model, or damaged.
    """
    return tensors_of(folder, read_config(folder))


def backbone_state(folder: Path, config: Config) -> dict[str, Tensor]:
    """Return the tensors of the saved model's backbone under its own names."""
    return part_of(tensors_of(folder, config), "backbone")


def tensors_of(folder: Path, config: Config) -> dict[str, Tensor]:
    """Verify the weights file and return its tensors by their names in the model."""
    tensors = read_verified(folder / "model.safetensors", config.zoo.sha256, "saved model")
    named = ((_own_name(key, config.zoo.keys), tensor) for key, tensor in tensors.items())
    return {name: tensor for name, tensor in named if name}


def read_verified(path: Path, sha256: str, what: str, *, weights: bool = True) -> dict[str, Tensor]:
    """Return the tensors of a saved file by their names in the file.

    Args:
        path: The file, in its folder.
        sha256: Its digest when it was saved.
        what: Kind of the folder, for messages, such as ``saved model``.
        weights: Whether tensors that cannot be weights are refused.

    Raises:
        SavedModelError: If there is no such file, or it is another one than was saved.
        WeightsError: If it cannot be read.
    """
    if not path.is_file():
        raise SavedModelError(f"{str(path.parent)!r} has no {path.name}; the {what} is incomplete; copy the folder again")
    if file_digest(path) != sha256:
        raise SavedModelError(
            f"{str(path)!r} is not the file that was saved (its sha256 differs): it is damaged or was replaced; copy the folder again"
        )
    return read(path, str(path.parent), pretrained=weights)


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of ``backbone`` or ``head`` by their names in that part."""
    return {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}


def _own_name(key: str, keys: Mapping[str, str]) -> str | None:
    """Return the name in the model of a tensor in the file, by the longest matching prefix."""
    for ours, theirs in sorted(keys.items(), key=lambda pair: -len(pair[1])):
        if not theirs:
            return f"{ours}.{key}"
        if _inside(key, theirs):
            return ours + key[len(theirs) :]
    return None


def file_name(name: str, keys: Mapping[str, str]) -> str:
    """Return the name of a tensor in the file; the inverse of ``_own_name``."""
    ours = max((prefix for prefix in keys if _inside(name, prefix)), key=len)
    return (keys[ours] + name[len(ours) :]).removeprefix(".")


def _inside(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(prefix + ".")

"""Saving of models: a folder with weights, labels, preprocessing, groups and versions.

Tensors have the names of the backbone's home library, if it can express the model, so that this library opens the folder
too. ``zoo.keys`` in config.json maps our prefixes to those names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.declare import Text
from zoo.errors import DiskFullError, OutputExistsError, OutputPermissionError, SavedModelError
from zoo.models.task_model import TaskModel
from zoo.plugins.loader import describe as describe_error
from zoo.plugins.loader import load_function
from zoo.saved.calibration import write_calibration
from zoo.saved.declaration import root_of
from zoo.saved.metadata import describe, model_card, preprocessor
from zoo.saved.reference_outputs import reference_outputs
from zoo.saved.tensors import file_name
from zoo.tasks.find import find_task
from zoo.tasks.several import SeveralTasks
from zoo.trust.stale_calibration import current_calibration
from zoo.tuning.efficient.kinds import KINDS
from zoo.util.atomic_write import write_json, write_text
from zoo.util.file_digest import file_digest
from zoo.weights.load import write

log = logging.getLogger("zoo")

OWN_KEYS = {"backbone": "backbone", "head": "head"}


def save(model: TaskModel, folder: Path, *, overwrite: bool = False, of_fusion: bool = False) -> Path:
    """Write a model into ``folder``; config.json is written last, so a folder with it is complete.

    Args:
        model: The model.
        folder: The folder.
        overwrite: Whether files there may be replaced.
        of_fusion: Whether the model is a part of a fusion, which opens in zoo only; it is then not logged that the home library of the
            backbone cannot open the folder, and a head that nobody trained is recorded, of which predictions warn.

    Raises:
        OutputExistsError: If the folder holds anything, unless ``overwrite``.
        OutputPermissionError: If it cannot be written.
        SavedModelError: If writing fails, for example on a full disk.
    """
    check_free(folder, overwrite=overwrite)
    if model.lora and KINDS[model.lora.kind].merges:
        remedy = "merge it first, zoo.tuning.merge_lora(model), or save it by itself, zoo.saved.lora_files.save_lora(model, folder)"
        raise SavedModelError(f"the model has LoRA attached; {remedy}")
    keys, home = _home(model, note=not of_fusion)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / "staged.safetensors"
        write({file_name(name, keys): tensor for name, tensor in model.state_dict().items()}, staged)
        config = describe(model, keys=keys, root=root_of(model.spec), sha256=file_digest(staged))
        (folder / "config.json").unlink(missing_ok=True)
        config.zoo.unused_head = of_fusion and model.has_random_head
        config.zoo.reference_outputs = reference_outputs(model)
        config.zoo.calibration = write_calibration(current_calibration(model.calibration, model.head), folder)
        write_text(folder / "preprocessor_config.json", preprocessor(model.inputs) + "\n")
        if isinstance(model.inputs, Text) and model.inputs.files:
            save_tokenizer(model.inputs, folder)
        staged.replace(folder / "model.safetensors")
        write_text(folder / "README.md", model_card(model) + "\n")
        write_json(folder / "config.json", home | config.model_dump())
    return folder


def check_free(folder: Path, *, overwrite: bool | None) -> None:
    """Check that a folder does not exist or is empty, unless ``overwrite``.

    Args:
        folder: The folder.
        overwrite: Whether it may be replaced; None where the caller has no such option, which the error does not propose then.

    Raises:
        OutputExistsError: If it holds anything, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{str(folder)!r} is a file; give the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        remedy = "choose another folder, or remove it" if overwrite is None else "choose another folder or pass overwrite=True"
        raise OutputExistsError(f"{str(folder)!r} exists and is not empty; {remedy}")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert errors of writing a folder to those of zoo.

    Raises:
        OutputPermissionError: If it may not be written.
        SavedModelError: If writing fails for another reason; a ``DiskFullError`` stays one.
    """
    try:
        yield
    except DiskFullError:
        raise
    except PermissionError as error:
        raise OutputPermissionError(f"cannot write into {str(folder)!r}: {error.strerror}; choose a folder of your own") from error
    except OSError as error:
        raise SavedModelError(f"cannot write into {str(folder)!r}: {error.strerror}; make room or choose another folder") from error


def _home(model: TaskModel, *, note: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Return key prefixes and config of the home library; if it cannot express the model, return our own, and with ``note`` log that."""
    if not model.spec.home:
        return OWN_KEYS, {}
    if model.lora:
        log.log(logging.INFO if note else logging.DEBUG, "this model opens in zoo only, as it has %s", KINDS[model.lora.kind].title)
        return OWN_KEYS, {}
    try:
        several = isinstance(find_task(model.task), SeveralTasks)
        layout = "it has several tasks" if several else load_function(model.spec.home)(model)
    except Exception as error:  # a fault of a plugin must not prevent saving
        layout = f"{model.spec.home.partition(':')[0]}: {describe_error(error)}"
    if isinstance(layout, str):
        line = "this model opens in zoo only, and not in the library of its backbone: %s"
        log.log(logging.WARNING if note else logging.DEBUG, line, layout)
        return OWN_KEYS, {}
    return layout["keys"], layout["config"]


def save_tokenizer(inputs: Text, folder: Path) -> None:
    """Write the tokenizer's files beside the weights; a tokenizer that cannot be opened is logged and left out."""
    from zoo.data.texts.tokenizers import open_tokenizer

    try:
        open_tokenizer(inputs).save(folder, inputs.max_length)
    except OSError:
        raise
    except Exception as error:
        log.warning("%s is saved without its tokenizer: %s", folder, describe_error(error))

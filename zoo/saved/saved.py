"""Saved models: a folder with weights, labels, preprocessing, groups and versions.

Tensors have the names of the backbone's home library, if it can express the model, so that this library opens the folder
too. ``zoo.keys`` in config.json maps our prefixes to those names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.declare import BackboneSpec, Text
from zoo.errors import DiskFullError, OptionError, OutputExistsError, OutputPermissionError, SavedModelError, ZooError, examples, fault_list
from zoo.models.backbone import Backbone
from zoo.models.heads import own_head
from zoo.models.layers import LayerGroups
from zoo.models.own_names import OWN_HEAD, is_own
from zoo.models.task_model import TaskModel, build_head
from zoo.plugins.loader import describe as describe_error
from zoo.plugins.loader import load_function
from zoo.registry.registry import default_registry
from zoo.saved.declaration import inputs_of, root_of, spec_of
from zoo.saved.metadata import Config, check_fields, describe, model_card, preprocessor, read_config
from zoo.util.atomic_write import write_json, write_text
from zoo.util.file_digest import file_digest
from zoo.weights.load import read, write

log = logging.getLogger("zoo")

OWN_KEYS = {"backbone": "backbone", "head": "head"}


def save(model: TaskModel, folder: Path, *, overwrite: bool = False) -> Path:
    """Write a model into ``folder``; config.json is written last, so a folder with it is complete.

    Raises:
        OutputExistsError: If the folder holds anything, unless ``overwrite``.
        OutputPermissionError: If it cannot be written.
        SavedModelError: If writing fails, for example on a full disk.
    """
    check_free(folder, overwrite=overwrite)
    if model.lora:
        remedy = "merge it first, zoo.tuning.merge_lora(model), or save it by itself, zoo.saved.lora_files.save_lora(model, folder)"
        raise SavedModelError(f"the model has LoRA attached; {remedy}")
    keys, home = _home(model)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / "staged.safetensors"
        write({_file_name(name, keys): tensor for name, tensor in model.state_dict().items()}, staged)
        config = describe(model, keys=keys, root=root_of(model.spec), sha256=file_digest(staged))
        (folder / "config.json").unlink(missing_ok=True)
        write_text(folder / "preprocessor_config.json", preprocessor(model.inputs) + "\n")
        if isinstance(model.inputs, Text) and model.inputs.files:
            save_tokenizer(model.inputs, folder)
        staged.replace(folder / "model.safetensors")
        write_text(folder / "README.md", model_card(model) + "\n")
        write_json(folder / "config.json", home | config.model_dump())
    return folder


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Check that a folder does not exist or is empty, unless ``overwrite``.

    Raises:
        OutputExistsError: If it holds anything, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{str(folder)!r} is a file; give the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputExistsError(f"{str(folder)!r} exists and is not empty; choose another folder or pass overwrite=True")


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


def load(folder: str | PathLike[str], *, backbone: Backbone | None = None, head: nn.Module | None = None) -> TaskModel:
    """Open a saved model, or separate LoRA files merged into their base, in eval mode.

    Args:
        folder: The folder of a saved model, or of a run.
        backbone: ``zoo.wrap(…)`` of a network like the saved one, if that is your own.
        head: A module like the saved head, if that is your own; values are loaded into it in place.

    Raises:
        SavedModelError: If the folder is no saved model, is damaged, or was made by a plugin that is not installed.
    """
    path = Path(folder)
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        from zoo.saved.lora_files import load_lora

        if backbone is not None or head is not None:
            remedy = "open the run's folder above it, where LoRA is merged"
            raise SavedModelError(f"{str(path)!r} is LoRA by itself, which takes no parts of your own; {remedy}")
        return load_lora(path)
    return open_model(path, read_config(path), backbone=backbone, head=head)


def open_model(path: Path, config: Config, *, backbone: Backbone | None = None, head: nn.Module | None = None) -> TaskModel:
    """Open a saved model whose config.json was read; see ``load``.

    Raises:
        SavedModelError: If a part of the user's own is missing or not wanted, or the folder is damaged or fits no declaration.
        OptionError: If ``backbone`` is no ``Backbone``.
    """
    _refuse_missing_parts(path, config, backbone, head)
    if backbone is not None:
        own = backbone.spec.replace(inputs=inputs_of(path, config, backbone.spec))
        tensors, groups = _tensors(path, config), backbone.fresh()
        _fill(groups.model, _part(tensors, "backbone"), path)
        return _assembled(path, config, own, groups, _part(tensors, "head"), head)
    spec, tensors = spec_of(path, config), _tensors(path, config)
    declared = Backbone(spec, plugin=config.zoo.plugin, state=lambda: _part(tensors, "backbone"))
    return assemble(path, config, declared, _part(tensors, "head"), head)


def _refuse_missing_parts(folder: Path, config: Config, backbone: Backbone | None, head: nn.Module | None) -> None:
    """Check that a user's own parts are given if the model has them, and only then; all faults at once."""
    faults = []
    if backbone is not None and not isinstance(backbone, Backbone):
        raise OptionError(f"backbone is {type(backbone).__name__}; wrap the network: backbone=zoo.wrap(module, inputs=…)")
    if is_own(config.zoo.backbone) and backbone is None:
        faults.append(f"its backbone {config.zoo.backbone!r} is a network of your own: backbone=zoo.wrap(module, …)")
    if not is_own(config.zoo.backbone) and backbone is not None:
        faults.append(f"its backbone is {config.zoo.backbone!r}: leave out backbone=")
    if config.zoo.head == OWN_HEAD and head is None:
        faults.append("its head is a module of your own: head=module")
    if config.zoo.head != OWN_HEAD and head is not None:
        faults.append(f"its head is {config.zoo.head!r}: leave out head=")
    if faults:
        headline = f"{str(folder)!r} cannot be opened by its folder alone:"
        raise SavedModelError(fault_list(headline, faults, "Give what is named to zoo.load"))


def _fill(module: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Load saved values into a user's own network, in place."""
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise SavedModelError(f"the values in {str(folder)!r} are those of another network: {error}") from error


def assemble(
    folder: Path, config: Config, backbone: Backbone, head_state: Mapping[str, Tensor], head: nn.Module | None = None
) -> TaskModel:
    """Build a saved model from the parts of its folder, in eval mode.

    Raises:
        SavedModelError: If its layer groups are others by now, or tensors of the head are missing or do not fit.
    """
    return _assembled(folder, config, backbone.spec, backbone.fresh(), head_state, head)


def _assembled(
    folder: Path, config: Config, spec: BackboneSpec, groups: LayerGroups, head_state: Mapping[str, Tensor], own: nn.Module | None
) -> TaskModel:
    if list(groups.names) != config.zoo.layer_groups:
        then, now = ", ".join(config.zoo.layer_groups), ", ".join(groups.names)
        raise SavedModelError(f"{str(folder)!r} was saved with the layer groups {then}; {spec.name} now has {now}")
    head = own_head(spec.features, own, **config.zoo.head_options) if own is not None else _head(folder, config, spec)
    if absent := [name for name in head.state_dict() if name not in head_state]:
        raise SavedModelError(f"{str(folder)!r} lacks tensors of the head: {examples(absent)}")
    _fill(head, head_state, folder)
    model = TaskModel(
        groups,
        head,
        spec=spec,
        task=config.task,
        num_classes=config.num_classes,
        labels=config.labels,
        head_name=config.zoo.head,
        head_options=config.zoo.head_options,
        plugin=config.zoo.plugin,
    )
    if isinstance(model.inputs, Text) and config.zoo.max_length:
        length = min(config.zoo.max_length, model.inputs.longest)
        model.inputs = replace(model.inputs.with_length(length), overflow=config.zoo.overflow)
    model.thresholds = tuple(config.zoo.thresholds) or None
    check_fields(config, folder)
    return model.eval()


def _head(folder: Path, config: Config, spec: BackboneSpec) -> nn.Module:
    """Build the saved head, without its values."""
    declared = default_registry().head(config.zoo.head)
    try:
        return build_head(declared, spec, config.num_classes, seed=0, options=config.zoo.head_options)
    except ZooError:
        raise
    except Exception as error:  # of the head's constructor on values of a damaged file: any
        where = f"{str(folder / 'config.json')!r}: num_classes={config.num_classes} and zoo.head_options={config.zoo.head_options}"
        raise SavedModelError(f"{where} build no head {config.zoo.head!r} ({describe_error(error)}): the file was changed") from error


def open_backbone(folder: Path) -> Backbone:
    """Return the backbone of a saved model with its groups and preprocessing, to be adapted to another task.

    Raises:
        SavedModelError: If the folder is no saved model, or its backbone is a network of the user's own.
    """
    config = read_config(folder)
    _refuse_own_backbone(folder, config)
    spec = spec_of(folder, config)
    check_fields(config, folder)
    name = "saved/" + re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name)
    return Backbone(
        spec.replace(name=name, base=config.zoo.backbone),
        plugin=config.zoo.plugin,
        state=lambda: backbone_state(folder, config),
    )


def _refuse_own_backbone(folder: Path, config: Config) -> None:
    if is_own(config.zoo.backbone):
        remedy = f"open it with zoo.load({str(folder)!r}, backbone=zoo.wrap(module, …)), and wrap its .backbone for another task"
        raise SavedModelError(f"{str(folder)!r} holds a network of your own, {config.zoo.backbone!r}; {remedy}")


def read_state(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a saved model by their names in the model.

    Raises:
        SavedModelError: If the folder is no saved model, or damaged.
    """
    return _tensors(folder, read_config(folder))


def backbone_state(folder: Path, config: Config) -> dict[str, Tensor]:
    """Return the tensors of the saved model's backbone under its own names."""
    return _part(_tensors(folder, config), "backbone")


def _tensors(folder: Path, config: Config) -> dict[str, Tensor]:
    """Verify the weights file and return its tensors by their names in the model."""
    tensors = read_verified(folder / "model.safetensors", config.zoo.sha256, "saved model")
    named = ((_own_name(key, config.zoo.keys), tensor) for key, tensor in tensors.items())
    return {name: tensor for name, tensor in named if name}


def read_verified(path: Path, sha256: str, what: str) -> dict[str, Tensor]:
    """Return the tensors of a saved file by their names in the file.

    Args:
        path: The file, in its folder.
        sha256: Its digest when it was saved.
        what: Kind of the folder, for messages, such as ``saved model``.

    Raises:
        SavedModelError: If there is no such file, or it is another one than was saved.
        WeightsError: If it cannot be read.
    """
    if not path.is_file():
        raise SavedModelError(f"{str(path.parent)!r} has no {path.name}; the {what} is incomplete")
    if file_digest(path) != sha256:
        raise SavedModelError(f"{str(path)!r} is not the file that was saved (its sha256 differs): it is damaged or was replaced")
    return read(path, str(path.parent))


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
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


def _file_name(name: str, keys: Mapping[str, str]) -> str:
    """Return the name of a tensor in the file; the inverse of ``_own_name``."""
    ours = max((prefix for prefix in keys if _inside(name, prefix)), key=len)
    return (keys[ours] + name[len(ours) :]).removeprefix(".")


def _inside(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(prefix + ".")


def _home(model: TaskModel) -> tuple[dict[str, str], dict[str, Any]]:
    """Return key prefixes and config of the home library; if it cannot express the model, log that and return our own."""
    if not model.spec.home:
        return OWN_KEYS, {}
    try:
        layout = load_function(model.spec.home)(model)
    except Exception as error:  # a fault of a plugin must not prevent saving
        layout = describe_error(error)
    if isinstance(layout, str):
        log.warning("this model opens in zoo only; %s cannot express it: %s", model.spec.home.partition(":")[0], layout)
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

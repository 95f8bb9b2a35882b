"""Opening of saved models: as they were, or their backbone alone for another task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from zoo.declare import BackboneSpec, Text
from zoo.errors import OptionError, SavedModelError, ZooError, checked_arguments, examples, fault_list
from zoo.models.adapt import build_head
from zoo.models.backbone import Backbone
from zoo.models.heads import own_head
from zoo.models.layers import LayerGroups
from zoo.models.own_names import FUSION_IS, HEAD_OF_PART, OWN_HEAD, is_fusion, is_own
from zoo.models.task_model import TaskModel
from zoo.plugins.loader import describe as describe_error
from zoo.registry.lookup import foreign_folder
from zoo.registry.registry import default_registry
from zoo.saved.calibration import read_calibration
from zoo.saved.config import Attached, Config, check_fields, read_config, read_members
from zoo.saved.declaration import inputs_of, spec_of
from zoo.saved.metadata import check_preprocessor
from zoo.saved.reference_outputs import warn_of_changes
from zoo.saved.tensors import backbone_state, part_of, tensors_of
from zoo.tuning import Lora
from zoo.tuning.efficient.kinds import KINDS, is_update
from zoo.tuning.efficient.lora import attach_to, train_all
from zoo.util.atomic_write import is_file


@checked_arguments("zoo.load", "evaluate and predict take device=")
def load(folder: str | PathLike[str], *, backbone: Backbone | None = None, head: nn.Module | None = None) -> TaskModel:
    """Open a saved model, an ensemble, or separate LoRA files merged into their base, in eval mode.

    Args:
        folder: The folder of a saved model, of a run, or of a cross-validation, whose folds are an ensemble.
        backbone: ``zoo.wrap(…)`` of a network like the saved one, if that is your own.
        head: A module like the saved head, if that is your own; values are loaded into it in place.

    Raises:
        SavedModelError: If the folder is not a saved model, is damaged, or was made by a plugin that is not installed.
    """
    path = Path(folder)
    if _is_lora_alone(path):
        from zoo.saved.lora_files import load_lora

        if backbone is not None or head is not None:
            remedy = "open the run's folder above it, where LoRA is merged"
            raise SavedModelError(f"{str(path)!r} is LoRA by itself, which takes no parts of your own; {remedy}")
        return load_lora(path)
    return open_model(path, read_config(path), backbone=backbone, head=head)


def _is_lora_alone(path: Path) -> bool:
    """Return whether a folder holds separate LoRA files, without the model."""
    return any((path / name).is_file() for name in ("adapter_config.json", "zoo.json")) and not (path / "config.json").is_file()


def load_with_update(folder: Path) -> TaskModel | None:
    """Return the model of a folder from which a backbone alone cannot be taken: with adapters or learned tokens, or separate LoRA files.

    Returns:
        The model, LoRA merged; None for any other folder or name.
    """
    if _is_lora_alone(folder):
        return load(folder)
    config = read_config(folder) if is_file(folder / "config.json") and foreign_folder(str(folder)) is None else None
    return None if config is None or config.zoo.update is None else open_model(folder, config)


def open_model(path: Path, config: Config, *, backbone: Backbone | None = None, head: nn.Module | None = None) -> TaskModel:
    """Open a saved model whose config.json was read; see ``load``.

    Raises:
        SavedModelError: If a part of the user's own is missing or not wanted, or the folder is damaged or fits no declaration.
        OptionError: If ``backbone`` is no ``Backbone``.
    """
    if not (path / "config.json").is_file() and read_members(path):
        from zoo.saved.ensemble import load_ensemble

        if backbone is not None or head is not None:
            raise SavedModelError(f"{str(path)!r} is an ensemble, which takes no parts of your own; open its members by themselves")
        return load_ensemble(path)
    _refuse_missing_parts(path, config, backbone, head)
    if backbone is not None:
        own = backbone.spec.replace(inputs=inputs_of(path, config, backbone.spec))
        tensors, groups = tensors_of(path, config), backbone.fresh()
        _fill(groups.model, _plain(tensors, config), path)
        model = _assembled(path, config, own, groups, part_of(tensors, "head"), head)
    else:
        spec, tensors = spec_of(path, config), tensors_of(path, config)
        declared = Backbone(spec, plugin=config.zoo.plugin, state=lambda: _plain(tensors, config))
        model = assemble(path, config, declared, part_of(tensors, "head"), head)
    if config.zoo.update is not None:
        _restore_update(model, config.zoo.update, tensors, path)
    if config.zoo.fields_sha256:  # without it a change is meant
        check_preprocessor(path, model.inputs)
    model.calibration = read_calibration(path, config)
    warn_of_changes(model, config, path)
    return model


def _plain(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return the tensors of the backbone by their names in it, without those of the update that the model was saved with."""
    return part_of(tensors, "backbone") if config.zoo.update is None else without_update(tensors)


def without_update(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the backbone by their names in it, without those of an update."""
    return {name: tensor for name, tensor in part_of(tensors, "backbone").items() if not is_update(name)}


def _restore_update(model: TaskModel, update: Attached, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Attach the update that a model was saved with, and load its values, in place."""
    _attach(model, update)
    wanted, found = ({name for name in names if is_update(name)} for names in (model.state_dict(), tensors))
    if odd := sorted(wanted ^ found):
        raise SavedModelError(f"{str(folder)!r} and the model differ in {examples(odd)}; save it again")
    model.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
    model.eval()


def load_into(model: TaskModel, folder: Path) -> None:
    """Load the values and thresholds of a saved model into one that was built alike, in place, with its adapters or learned tokens.

    Raises:
        SavedModelError: If the folder is not a saved model, or damaged.
    """
    config = read_config(folder)
    if config.zoo.update is not None and model.lora is None:
        _attach(model, config.zoo.update)
    model.load_state_dict(tensors_of(folder, config))
    _take_facts(model, config)


def _take_facts(model: TaskModel, config: Config) -> None:
    """Take over what training left beside the values: thresholds, and on what and how the model was trained."""
    model.thresholds = tuple(config.zoo.thresholds) or None
    model.trained_on = tuple(config.zoo.trained_on)
    model.origins = tuple(config.zoo.origins)
    if config.zoo.unused_head:
        model.note_random_head(HEAD_OF_PART)


def _attach(model: TaskModel, update: Attached) -> None:
    attach_to(model, Lora(**update.model_dump()))
    train_all(model)


def _refuse_missing_parts(folder: Path, config: Config, backbone: Backbone | None, head: nn.Module | None) -> None:
    """Check that a user's own parts are given if the model has them, and only then; all faults at once."""
    faults = []
    if backbone is not None and not isinstance(backbone, Backbone):
        raise OptionError(f"backbone is {type(backbone).__name__}; wrap the network: backbone=zoo.wrap(module, inputs=…)")
    if is_fusion(config.zoo.backbone):
        raise SavedModelError(f"{str(folder)!r} holds {FUSION_IS}")
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
        raise SavedModelError(
            f"the values in {str(folder)!r} are those of another network: {error}; give the network that was saved"
        ) from error


def assemble(
    folder: Path, config: Config, backbone: Backbone, head_state: Mapping[str, Tensor], head: nn.Module | None = None
) -> TaskModel:
    """Build a saved model from the parts of its folder, in eval mode.

    Raises:
        SavedModelError: If its layer groups have changed since it was saved, or tensors of the head are missing or do not fit.
    """
    return _assembled(folder, config, backbone.spec, backbone.fresh(), head_state, head)


def _assembled(
    folder: Path, config: Config, spec: BackboneSpec, groups: LayerGroups, head_state: Mapping[str, Tensor], own: nn.Module | None
) -> TaskModel:
    if list(groups.names) != config.zoo.layer_groups:
        then, now = ", ".join(config.zoo.layer_groups), ", ".join(groups.names)
        raise SavedModelError(
            f"{str(folder)!r} was saved with the layer groups {then}; {spec.name} now has {now}; "
            f"install {config.zoo.plugin}, which saved it"
        )
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
    _take_facts(model, config)
    check_fields(config, folder)
    return model.eval()


def _head(folder: Path, config: Config, spec: BackboneSpec) -> nn.Module:
    """Build the saved head, without its values."""
    declared = default_registry().head(config.zoo.head)
    try:
        return build_head(declared, spec, config.num_classes, seed=0, options=config.zoo.head_options)
    except Exception as error:  # of the head's constructor on values of a damaged file: any
        if isinstance(error, ZooError) and not isinstance(error, OptionError):
            raise
        where = f"{str(folder / 'config.json')!r}: num_classes={config.num_classes} and zoo.head_options={config.zoo.head_options}"
        raise SavedModelError(f"{where} build no head {config.zoo.head!r} ({describe_error(error)}): the file was changed") from error


def open_backbone(folder: Path, *, updated: bool = False) -> Backbone:
    """Return the backbone of a saved model with its groups and preprocessing, to be adapted to another task.

    Args:
        folder: The folder.
        updated: Whether it may have adapters or learned tokens, which the backbone lacks: to describe it, not to adapt it.

    Raises:
        SavedModelError: If the folder is not a saved model, or its backbone is a network of the user's own.
    """
    if not (folder / "config.json").is_file() and (members := read_members(folder)):
        raise SavedModelError(f"{str(folder)!r} is an ensemble of {len(members)} models; take the backbone of one: {str(members[0])!r}")
    config = read_config(folder)
    _refuse_own_backbone(folder, config)
    if config.zoo.update is not None and not updated:
        raise SavedModelError(
            f"the backbone of {str(folder)!r} has {KINDS[config.zoo.update.kind].title}, which other tasks do not take over; open it "
            f"with zoo.load({str(folder)!r}), or adapt {config.base_model!r}, which it was trained on"
        )
    spec = spec_of(folder, config)
    check_fields(config, folder)
    name = "saved/" + re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name)
    return Backbone(
        spec.replace(name=name, base=config.zoo.backbone),
        plugin=config.zoo.plugin,
        state=lambda: backbone_state(folder, config),
        folder=folder,
        origins=config.zoo.origins,
    )


def _refuse_own_backbone(folder: Path, config: Config) -> None:
    if is_fusion(config.zoo.backbone):
        raise SavedModelError(f"{str(folder)!r} holds {FUSION_IS}")
    if is_own(config.zoo.backbone):
        remedy = f"open it with zoo.load({str(folder)!r}, backbone=zoo.wrap(module, …)), and wrap its .backbone for another task"
        raise SavedModelError(f"{str(folder)!r} holds a network of your own, {config.zoo.backbone!r}; {remedy}")

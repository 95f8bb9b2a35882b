"""Attach a head to a new build of a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from zoo.declare import BackboneSpec, HeadSpec
from zoo.errors import OptionError, did_you_mean
from zoo.models.backbone import Backbone
from zoo.models.build_options import with_options
from zoo.models.checks.adapt_arguments import (
    channel_option,
    check_arguments,
    check_head_options,
    check_task,
    check_zero_shot,
    checked_head,
    names_in_order,
    own_pooling,
)
from zoo.models.construct.build import trainable_float32
from zoo.models.construct.seed import seed_modules
from zoo.models.heads import own_head
from zoo.models.own_names import OWN_HEAD
from zoo.models.pairs.prompts import check_names
from zoo.models.pairs.zero_shot import ZERO_SHOT, ZeroShotHead, fill_head, image_tower
from zoo.models.pairs.zero_shot import head_options as filled_options
from zoo.models.task_model import TaskModel
from zoo.plugins.loader import load_function
from zoo.registry.registry import default_registry
from zoo.tasks.find import find_task
from zoo.tasks.several import SeveralTasks
from zoo.tasks.task_specs import tasks_of


def adapt(
    backbone: Backbone,
    num_classes: int | None,
    *,
    task: str,
    head: str | nn.Module,
    in_chans: int | None,
    labels: Sequence[str] | None,
    seed: int,
    head_options: Mapping[str, Any],
) -> TaskModel:
    """Build a new backbone and attach a head; see ``Backbone.adapt``."""
    labels = names_in_order(labels)
    if num_classes is None and labels is not None:
        num_classes = len(labels)
    if num_classes is None:
        hint = "".join(did_you_mean(name, ("num_classes",)) for name in head_options)
        raise OptionError(f"adapt() needs num_classes, the number of classes, labels or targets: adapt(num_classes=2){hint}")
    check_arguments(num_classes, task, in_chans, labels)
    encoder = backbone
    if head == ZERO_SHOT:
        check_zero_shot(backbone.spec, task, in_chans)
        check_names(labels, head_options.get("words"))
        backbone, head_options = image_tower(backbone), filled_options(backbone, head_options)
    kind = find_task(task)
    if isinstance(kind, SeveralTasks) and labels is not None:
        task = kind.sized(labels).name
    options = channel_option(backbone.spec, in_chans)
    pooling, head_options = own_pooling(backbone.spec, task, head_options)
    options |= pooling

    def head_for(spec: BackboneSpec) -> tuple[str, nn.Module]:
        if isinstance(head, str):
            return _declared_head(head, spec, task, num_classes, head_options, seed)
        return _own_head(head, spec, num_classes, head_options)

    spec = with_options(backbone.spec, options)
    made = head_for(spec) if backbone.knows_width else None  # first, as its faults need no build
    with torch.random.fork_rng(devices=[]):
        seed_modules(seed)  # for backbones without pretrained weights
        groups = backbone.fresh(**options)
    spec = with_options(backbone.spec, options)  # with the width that was built
    head_name, module = made or head_for(spec)
    model = TaskModel(
        groups,
        module,
        spec=spec,
        task=task,
        num_classes=num_classes,
        labels=labels,
        head_name=head_name,
        head_options=head_options,
        plugin=backbone.plugin,
        pretrained=backbone.pretrained,
    )
    model.origins = backbone.origins
    if isinstance(module, ZeroShotHead):
        fill_head(module, encoder, labels or (), seed=seed)
    elif head_name != OWN_HEAD:
        model.note_random_head()
    return model


def adapt_tasks(backbone: Backbone, tasks: Mapping[str, Any], **options: Any) -> TaskModel:
    """Build a new backbone and attach the heads of several tasks; see ``Backbone.adapt_tasks``."""
    found, labels = tasks_of(tasks)
    return adapt(backbone, sum(member.outputs for member in found.members), task=found.name, labels=labels, **options)


def _declared_head(
    name: str, spec: BackboneSpec, task: str, num_classes: int, options: Mapping[str, Any], seed: int
) -> tuple[str, nn.Module]:
    """Return the name and the module of a head that a plugin declares; ``linear`` means the task's own."""
    name = find_task(task).head if name == "linear" else name
    declared = default_registry().head(name)
    check_task(spec, declared, task)
    check_head_options(declared, options)
    return name, build_head(declared, spec, num_classes, seed=seed, options=options)


def _own_head(head: nn.Module, spec: BackboneSpec, num_classes: int, options: Mapping[str, Any]) -> tuple[str, nn.Module]:
    """Return the name and a copy of the user's own head."""
    return OWN_HEAD, own_head(spec.features, checked_head(head, spec.features, num_classes, options), **options)


def build_head(head: HeadSpec, spec: BackboneSpec, num_classes: int, *, seed: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a head with values drawn from ``seed``; the caller's random state is restored."""
    with torch.random.fork_rng(devices=[]), trainable_float32():
        seed_modules(seed)
        module = load_function(head.build)(spec.features, num_classes, **options)
    assert isinstance(module, nn.Module), f"head {head.name!r} built {type(module).__name__}, not a torch.nn.Module"
    return module

"""Checks of ``adapt`` before anything is built, and the build options that follow from its arguments."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import nn

from zoo.declare import BackboneSpec, Features, HeadSpec, Image, Text, Volume
from zoo.errors import OptionError, check_options, did_you_mean, examples, fault_list, fault_message
from zoo.models.backbone import Backbone
from zoo.models.build_options import CHANNELS, has_pooler, is_channels
from zoo.models.checks.misplaced import remedies
from zoo.models.pairs.towers import pair_of
from zoo.plugins.loader import load_function
from zoo.tasks.find import find_task, is_task, nearest_task, task_names
from zoo.tasks.several import SeveralTasks
from zoo.util.numbers import is_whole

TEXT_POOLS = ("avg", "token", "max", "last", "pooler")
SYNONYMS = {"mean": "avg", "average": "avg", "cls": "token", "class": "token"}


def check_arguments(num_classes: int, task: str, in_chans: int | None, labels: Sequence[str] | None) -> None:
    """Check the ranges of the arguments of ``adapt``.

    Raises:
        OptionError: Naming every wrong argument and its remedy.
    """
    known, there = task_names(), is_task(task)
    least = find_task(task).least_outputs if there else 1
    wrong_number = not is_whole(num_classes) or num_classes < least
    remedy = "; a single yes-or-no is task='multi-label', a number task='regression'" if num_classes == 1 else ""
    if isinstance(num_classes, list | tuple):
        remedy = "; names of classes are labels=[…]"
    faults = [
        (not there, f"task {task!r}{nearest_task(task)} is none of: {', '.join(known)}"),
        (wrong_number, f"num_classes is {num_classes!r}; {task} needs a whole number of at least {least}{remedy}"),
        (in_chans is not None and not is_channels(in_chans), f"in_chans is {in_chans!r}; {CHANNELS}"),
        (labels is not None and len(labels) != num_classes, f"{len(labels or ())} labels are given for {num_classes} classes"),
        (
            labels is not None and len(set(labels)) != len(labels),
            f"labels has names twice: {examples([name for name, number in Counter(labels or ()).items() if number > 1])}",
        ),
    ]
    messages = [message for wrong, message in faults if wrong]
    if messages:
        raise OptionError(messages[0] if len(messages) == 1 else fault_list("adapt() cannot work with these arguments:", messages))


def names_in_order(labels: Any) -> list[Any] | None:
    """Return the names of classes that ``adapt`` was given, of a list, a tuple or an array, as a list; None for None.

    Raises:
        OptionError: For what has no order, or another one than that of the outputs: a text, a set, a mapping; and for no list at all.
    """
    if labels is None:
        return None
    remedy = "give the names in the order of the outputs, such as labels=['ants', 'bees']"
    if isinstance(labels, Mapping):
        numbered = all(map(is_whole, labels))
        names = [labels[number] for number in sorted(labels)] if numbered else list(labels)
        raise OptionError(f"labels is a mapping; {remedy}, here perhaps labels={names[:4] + ['…'] * (len(names) > 4)}")
    if isinstance(labels, str | bytes | Set) or not hasattr(labels, "__len__") or getattr(labels, "ndim", 1) != 1:
        kind = "one text" if isinstance(labels, str | bytes) else "a set, which has no order" if isinstance(labels, Set) else "no list"
        raise OptionError(f"labels is {examples([repr(labels)])}, {kind}; {remedy}")
    return list(labels.tolist() if hasattr(labels, "tolist") else labels)


def check_task(spec: BackboneSpec, head: HeadSpec, task: str) -> None:
    """Check that a task fits the input and the head.

    Raises:
        OptionError: Naming what fits.
    """
    words = find_task(task).per_token
    if words and not isinstance(spec.inputs, Text):
        raise OptionError(f"task {task!r} labels the words of texts; backbone {spec.name!r} reads {spec.modality}s")
    if words != head.per_token:
        wanted = "for each token; use head='tokens'" if words else "for each sample; use head='linear' or 'mlp'"
        raise OptionError(f"head {head.name!r} does not fit the task {task!r}, which needs logits {wanted}")


def check_zero_shot(spec: BackboneSpec, task: str, in_chans: int | None) -> None:
    """Check that a head can be made of the names of classes.

    Raises:
        OptionError: Naming every fault: a backbone without a text tower, a task without classes, other input channels.
    """
    kind, faults = find_task(task), []
    pair_of(spec, "a zero-shot head")
    if not kind.has_classes or kind.per_token or isinstance(kind, SeveralTasks):
        faults.append(f"the task is {kind.words}, without one set of classes; a zero-shot head is for 'single-label' and 'multi-label'")
    if in_chans is not None and in_chans != getattr(spec.inputs, "channels", in_chans):
        faults.append(
            f"in_chans is {in_chans}: a dual encoder knows images of {getattr(spec.inputs, 'channels', 3)} channels; leave it out"
        )
    if faults:
        raise OptionError(fault_message("a zero-shot head does not fit:", faults))


def check_head_options(head: HeadSpec, options: Mapping[str, Any]) -> None:
    """Check that the head has these options.

    Raises:
        OptionError: With the nearest option for each unknown one.
    """
    parameters = list(inspect.signature(load_function(head.build)).parameters.values())[2:]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        beside = [name for name in inspect.signature(Backbone.adapt).parameters if name not in ("self", "head_options")]
        check_options(
            options, [parameter.name for parameter in parameters], f"head {head.name!r}", beside=beside, remedies=remedies(options)
        )


def checked_head(head: Any, features: Features, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """Return a copy of the user's own head, tried on zeros if it takes pooled features.

    Raises:
        OptionError: If it is not a module, fails, or has another number of outputs.
    """
    if not isinstance(head, nn.Module):
        name = getattr(head, "__name__", type(head).__name__)
        raise OptionError(f"head is {name}; give a name, or a torch.nn.Module (an object, not its class)")
    check_options(options, ["pool", "normalize"], "a head of your own", remedies=remedies(options))
    module = copy.deepcopy(head)
    if options.get("pool") == "none" and features.layout != "BD":
        return module  # the size of a feature map is unknown before a forward
    training = module.training
    try:
        with torch.no_grad():
            shape = tuple(module.eval()(torch.zeros(2, features.dim)).shape)
    except Exception as error:
        raise OptionError(
            f"the head fails on features of shape (2, {features.dim}): {type(error).__name__}: {error}; with pool='none' it is given "
            "the features as they are"
        ) from error
    if shape != (2, num_classes):
        raise OptionError(f"the head gives {shape} for 2 samples; num_classes={num_classes} needs (2, {num_classes})")
    return module.train(training)


def own_pooling(spec: BackboneSpec, task: str, options: Mapping[str, Any]) -> tuple[dict[str, bool], dict[str, Any]]:
    """Return the build option that turns a backbone's own pooling on or off, and the head's options without it.

    Raises:
        OptionError: If there is no such pool, or the backbone does not have it, with those that it can be.
    """
    wanted = options.get("pool", "")
    if isinstance(spec.inputs, Text) and wanted not in ("", *TEXT_POOLS):
        known = TEXT_POOLS if has_pooler(spec) else TEXT_POOLS[:-1]
        near = f" (it is called {SYNONYMS[wanted]!r} here)" if wanted in SYNONYMS else did_you_mean(str(wanted), known)
        raise OptionError(f"there is no pool {wanted!r}{near}; for {spec.name!r} it can be: {', '.join(known)}")
    if wanted == "last" and not isinstance(spec.inputs, Text):
        raise OptionError(f"pool 'last' is the last token of a text, and {spec.name!r} reads {spec.modality}s; use 'avg', 'max' or 'token'")
    left = {key: value for key, value in options.items() if key != "pool" or value != "pooler"}
    if wanted == "pooler" and not has_pooler(spec):
        remedy = "use 'avg', 'max', 'token' or 'last'" if isinstance(spec.inputs, Text) else "use 'avg', 'max' or 'token'"
        raise OptionError(f"pool 'pooler' is the pooling of a backbone's own, and {spec.name!r} has none; {remedy}")
    if wanted == "pooler":
        return ({} if spec.options.get("pooler") else {"pooler": True}), left
    off = bool(spec.options.get("pooler")) and (bool(wanted) or find_task(task).per_token)
    return ({"pooler": False} if off else {}), left


def channel_option(spec: BackboneSpec, in_chans: int | None) -> dict[str, int]:
    """Return the build option for another number of input channels; empty if ``in_chans`` is the declared one.

    Raises:
        OptionError: If the backbone reads texts.
    """
    if in_chans is None:
        return {}
    if not isinstance(spec.inputs, Image | Volume):
        raise OptionError(f"in_chans is for images and volumes; backbone {spec.name!r} reads {spec.modality}")
    return {"in_chans": in_chans} if in_chans != spec.inputs.channels else {}

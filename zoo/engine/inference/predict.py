"""Prediction and embedding of data with a model."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.data.table import Table
from zoo.declare import Text
from zoo.engine.inference.all_outputs import AllOutputs, run_whole
from zoo.engine.inference.decoding.decoder import decoder_of
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.opening import open_inputs
from zoo.engine.loading.stream import Function
from zoo.errors import OptionError, check_options, examples
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.tasks.thresholds import Wanted

log = logging.getLogger("zoo")
_NONE: Mapping[str, str] = MappingProxyType({})
Array: TypeAlias = "npt.NDArray[np.float32]"


def check_given(function: Callable[..., Any], options: Mapping[str, Any], *, called: str = "") -> None:
    """Check that ``evaluate``, ``write_results``, or a function of this module, has these options.

    Args:
        function: The function.
        options: The options that are given to it.
        called: Its name for the user, if it is another one.

    Raises:
        OptionError: With the nearest option.
    """
    known = set(_keywords(function)) | (set() if function is evaluate else {"split", "columns", "root", *_keywords(InferenceOptions)})
    check_options(options, known, f"{called or function.__name__}()")


def _keywords(function: Callable[..., Any]) -> list[str]:
    if function is InferenceOptions:
        return list(InferenceOptions.__dataclass_fields__)
    return [name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]


def predict(
    model: TaskModel,
    inputs: Any,
    *,
    thresholds: Wanted | None = None,
    sets: float | None = None,
    top: int | None = None,
    **options: Any,
) -> list[Any]:
    """Return the prediction for each input, in order; None for one that was skipped.

    A label (its index where the model has no labels), a tuple of the labels above their thresholds, or a number (a tuple where the
    model has several outputs); for token classification a list with the label of each word. ``options`` are those of
    ``predict_proba``.

    Args:
        model: The model.
        inputs: As for ``predict_proba``.
        thresholds: Multi-label: probability above which labels are predicted, one for all, one per label, or by label; None takes
            those of the model.
        sets: How often a prediction set is to hold the truth, such as 0.9: gives, instead of a label, a tuple of the labels that belong
            to the set, the likeliest first; of a regression the two ends of an interval. Needs a model that was calibrated.
        top: How many of the likeliest classes are wanted: gives, instead of a label, a list of pairs of a label and its probability,
            the likeliest first. Not for a regression, for words, or for several tasks.
        **options: As for ``predict_proba``.

    Raises:
        OptionError: If both ``sets`` and ``top`` are given, or one of them does not fit the model.
    """
    if sets is not None and top is not None:
        raise OptionError("sets and top are given, and each gives another kind of prediction; leave one of them out")
    decoder = decoder_of(model, thresholds, sets=sets, top=top)
    found = predict_outputs(model, inputs, model, **options)
    labels: list[Any]
    if top is not None:
        labels = decoder.top_labels(found.values)
    else:
        labels = decoder.decode(found.values) if sets is None else decoder.set_labels(found.values)
    return [None if row in found.errors else label for row, label in enumerate(labels)] if found.errors else labels


def predict_proba(model: TaskModel, inputs: Any, **options: Any) -> Array:
    """Return probabilities ``(n, num_classes)``, float32: softmax, or for multi-label a sigmoid for each label.

    For token classification an array of n arrays ``(words, num_classes)``, NaN for a word beyond the maximum length.

    Args:
        model: The model.
        inputs: Any source that ``zoo.data.open.open_data`` takes: paths, a folder, images, arrays; labels are ignored.
        **options: ``split``, ``columns``, ``root``, ``window``, ``overflow``, ``max_length``, ``image_size``, ``batch_size``,
            ``workers``, ``device``, ``precision``, ``on_error`` (``skip`` gives NaN for what cannot be read) and ``quiet`` as in
            ``evaluate``; ``prompt_name``, the name of a prompt of the backbone that is put before each text.

    Raises:
        OptionError: If the model is a regression.
    """
    if type(find_task(model.task)).probabilities is Task.probabilities:
        raise OptionError(f"the task is {find_task(model.task).words}, which has no probabilities; use predict()")
    return decoder_of(model).probabilities(predict_outputs(model, inputs, model, **options).values)


def embed(model: TaskModel, inputs: Any, **options: Any) -> Array:
    """Return the pooled features ``(n, dim)`` of each input, float32; arguments as in ``predict_proba``.

    Those of the windows of a long text are averaged.
    """
    _warn_without_prompt(model, options.get("prompt_name"))
    return predict_outputs(model, inputs, model.embed_batch, **options).values


def embed_table(model: TaskModel, table: Table, **options: Any) -> Array:
    """Return the pooled features ``(n, dim)`` of a table, for a caller that skips no inputs; options are those of ``InferenceOptions``."""
    _warn_without_prompt(model, options.get("prompt_name"))
    return run_whole(model, table, model.embed_batch, InferenceOptions(**options)).values


def _warn_without_prompt(model: TaskModel, prompt_name: str | None) -> None:
    if isinstance(model.inputs, Text) and model.inputs.prompts and prompt_name is None:
        known = examples([repr(name) for name in model.inputs.prompts])
        log.warning("%s was trained with prompts; prompt_name= puts one before each text: %s", model.spec.name, known)


def ood_score(model: TaskModel, inputs: Any, **options: Any) -> Array:
    """Return how unlike the data of its calibration inputs are to a model, float32 ``(n,)``; arguments as in ``predict_proba``.

    The distance of pooled features to their fifth nearest neighbour among the held-out samples, in units of the distance that 95 % of
    these stay below: above 1 an input is unusual.

    Raises:
        OptionError: If the model is not calibrated, or on too few samples.
    """
    decoder = decoder_of(model, ood=True)
    return decoder.ood_scores(predict_outputs(model, inputs, decoder.forward(model), **options).values)


def predict_outputs(
    model: TaskModel,
    inputs: Any,
    forward: Function,
    *,
    split: str | None = None,
    columns: Mapping[str, str] = _NONE,
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> AllOutputs:
    """Return the outputs of a function of a model for each input, with the errors of those that were skipped.

    Args:
        model: The model.
        inputs: As for ``predict_proba``.
        forward: From a batch of inputs to a batch of outputs.
        split: As for ``predict_proba``.
        columns: As for ``predict_proba``.
        root: As for ``predict_proba``.
        **options: Fields of ``InferenceOptions``; errors of inputs propose ``on_error="skip"``.
    """
    chosen = InferenceOptions(**options)
    table = open_inputs(model, inputs, chosen, split=split, columns=columns, root=root)
    with chosen.naming_skip():
        return run_whole(model, table, forward, chosen)

"""Record of the model, inputs and options of a file of results; a resumed run with other ones is refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from zoo.data.table import Table, names_of
from zoo.declare import Text
from zoo.engine.inference.decoding.decoder import Decoder
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.loading.digests import add_values, file_key
from zoo.engine.runtime.device import choose_device, choose_precision
from zoo.models.task_model import TaskModel
from zoo.util.versions import versions

USED = ("window", "overflow", "image_size", "batch_size", "on_error")


def run_record(model: TaskModel, table: Table, decoder: Decoder, options: InferenceOptions, what: str) -> dict[str, Any]:
    """Return what a result depends on: digests of the model, the inputs and their files, options and versions."""
    where = choose_device(options.device)
    used = {name: value for name, value in asdict(options).items() if name in USED}
    used |= {"device": where.type, "precision": choose_precision(options.precision, where), "thresholds": decoder.thresholds}
    calibration = decoder.calibration
    used |= {"sets": decoder.sets, "ood": decoder.ood, "calibration": calibration and calibration.fields()}
    used |= {} if options.max_length is None else {"max_length": options.max_length}
    used |= {} if decoder.top is None else {"top": decoder.top}
    used["prompt"] = model.inputs.prompts[options.prompt_name] if isinstance(model.inputs, Text) and options.prompt_name else None
    inputs, files, known = _digests(table)
    return {
        "what": what,
        "model": _model_digest(model, decoder),
        "inputs": inputs,
        "files": files,
        "rows": len(table),
        "known": known,
        "options": used,
        "versions": versions(),
    }


def _model_digest(model: TaskModel, decoder: Decoder) -> str:
    described = [model.spec.name, model.task, model.head_name, model.head_options, repr(model.inputs), decoder.names]
    digest = hashlib.sha256(repr(described).encode())
    add_values(digest, model.state_dict().items())
    return digest.hexdigest()


def _digests(table: Table) -> tuple[str, str, bool]:
    """Return digests of the inputs, as names, texts or values, of the state of the files that they name, and whether these tell them apart.

    Of a dataset whose items are decoded as they are needed, only their number is known.
    """
    inputs, files = hashlib.sha256(), hashlib.sha256()
    if not isinstance(table.inputs, list | tuple):
        values = _value(table.inputs)
        inputs.update(values or "\n".join(names_of(table.inputs, range(len(table)))).encode())
        return inputs.hexdigest(), files.hexdigest(), bool(values)
    of_files = table.reads not in ("text", "words")
    for item in table.inputs:
        inputs.update(_value(item) + b"\n")
        if of_files and isinstance(item, str | os.PathLike):
            files.update(file_key(item).encode(errors="surrogatepass") + b"\n")
    return inputs.hexdigest(), files.hexdigest(), True


def _value(item: Any) -> bytes:
    """Return the bytes that make an input; empty for a lazy sequence."""
    if isinstance(item, bytes):
        return item
    if hasattr(item, "__array__"):
        values = np.asarray(item)
        return repr((values.dtype, values.shape)).encode() + np.ascontiguousarray(values).tobytes()
    is_lazy = isinstance(item, Sequence) and not isinstance(item, str | list | tuple)
    return b"" if is_lazy else repr(os.fspath(item) if isinstance(item, os.PathLike) else item).encode(errors="surrogatepass")

"""The run of self-supervised learning before transfer: from unlabelled data and a backbone to a backbone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from zoo.data.open import open_data
from zoo.data.sources.read import kind_of
from zoo.data.table import Table
from zoo.declare import Image
from zoo.engine.options.config import OPTIONS
from zoo.engine.rundir.run_folder import Run, claim_folder, release_folder
from zoo.engine.runtime.launch_env import launched
from zoo.engine.runtime.signals import going_on
from zoo.errors import DataError, InterruptedRunError, OptionError, check_together, count, did_you_mean, fault_list
from zoo.models.backbone import Backbone, configured
from zoo.models.build_options import has_pooler
from zoo.models.find import find_backbone
from zoo.models.task_model import TaskModel
from zoo.models.wrap import WrappedBackbone
from zoo.transfer.method import Method
from zoo.transfer.pretraining.collapse import COLLAPSED
from zoo.transfer.pretraining.dino import Dino
from zoo.transfer.pretraining.mae import MaskedAutoencoder
from zoo.transfer.pretraining.mlm import MaskedLanguage
from zoo.transfer.pretraining.probe import open_probe, probe_accuracy
from zoo.transfer.pretraining.simclr import SimClr
from zoo.util.atomic_write import write_json

METHODS: Mapping[str, type[Method]] = MappingProxyType({"simclr": SimClr, "dino": Dino, "mae": MaskedAutoencoder, "mlm": MaskedLanguage})
LEAST = 100  # samples of a pretraining set
RECORD, RUN = "pretrain.json", "run"
# Stronger than for labels: an easy pair teaches little (Chen et al. 2020). Of their colour changes hue, grey and blur are not there.
VIEWS: Mapping[str, Any] = MappingProxyType({"scale": (0.2, 1.0), "flip": 0.5, "jitter": 0.4})
PROBED = ("image_size", "device", "precision", "workers", "max_length", "overflow", "window", "seed")  # options that a probe shares


@dataclass(frozen=True)
class Pretrained:
    """The result of ``pretrain``.

    Attributes:
        backbone: The backbone with the values that are kept.
        run: The run, whose records have ``feature_std`` and ``effective_rank``.
        probe_before: Accuracy of a linear probe on held-out labelled samples before, in [0, 1]; None without ``probe``.
        probe_after: The same after.
        learned: Whether the new values are kept; False where the probe got worse.
        verdict: What became of it, in one line.
        dir: The folder, which ``zoo.get`` opens.
    """

    backbone: Backbone
    run: Run
    probe_before: float | None
    probe_after: float | None
    learned: bool
    verdict: str
    dir: Path

    @property
    def collapsed(self) -> bool:
        """Whether the features of all samples became nearly the same."""
        return self.run.metrics["feature_std"] < COLLAPSED


def pretrain(
    backbone: Backbone,
    unlabelled: Any,
    method: str | Method = "simclr",
    *,
    probe: Any = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Pretrained:
    """Continue the pretraining of a backbone on unlabelled data, before it is adapted to a task.

    Every record of the run has the collapse meter. With ``probe`` a linear head is solved on labelled data before and after; where it got
    worse, the old values are kept, and the new ones stay in ``out``/run.

    Args:
        backbone: The backbone; it is not changed.
        unlabelled: As for ``zoo.open_data``; labels that it may have are not read.
        method: ``simclr`` or ``dino`` for images, ``mae`` for ViTs, ``mlm`` for texts, or a method with its options, such as
            ``SimClr(temperature=0.1)``.
        probe: Labelled data of one class per sample, as for ``fit``.
        out: A new folder; None takes the next free one below ``runs/``.
        resume: Go on exactly where the run in ``out`` stopped.
        quiet: Show nothing.
        **options: As for ``fit`` (epochs, batch_size, lr, augment, image_size, seed and so on), and those of the method.

    Returns:
        The backbone, the run and the probes.

    Raises:
        OptionError: For an unknown method or option, values out of range, and a method that does not fit the backbone.
        DataError: If there are too few samples, or data cannot be opened.
        OutputExistsError: If ``out`` is not empty, unless it is resumed.
    """
    chosen = method_of(method, options)
    if launched() > 1:
        raise OptionError("pretrain runs in one process; leave --num-processes out")
    if isinstance(chosen, MaskedAutoencoder | MaskedLanguage):
        backbone = _without_pooler(backbone)
    _, table, tables = check_together(
        f"{backbone.spec.name!r} cannot be pretrained like this:",
        lambda: chosen.check_reads(backbone.spec),
        lambda: _opened(backbone, unlabelled),
        lambda: None if probe is None else open_probe(backbone, probe, options.get("seed", 0)),
    )
    model = _features_model(backbone, options.get("seed", 0))
    folder = claim_folder(None if out is None else Path(out), backbone.spec.name, chosen.name, resume=resume, record=RECORD)
    try:
        write_json(folder / RECORD, {"method": chosen.describe(), "samples": len(table)})
        return _run(backbone, model, table, chosen, tables, folder, quiet=quiet, options=options)
    except InterruptedRunError as error:
        raise going_on(error, folder) from error
    finally:
        release_folder(folder, record=RECORD)


def method_of(method: str | Method, options: dict[str, Any]) -> Method:
    """Return a method by its name with its options, which are removed from ``options`` in place.

    Raises:
        OptionError: With the nearest name.
    """
    if isinstance(method, Method) and type(method) in METHODS.values():
        return method
    if not isinstance(method, str) or method not in METHODS:
        near = did_you_mean(method, METHODS) if isinstance(method, str) else ""
        raise OptionError(f"there is no pretraining method {method!r}{near}; they are: {', '.join(METHODS)}")
    own = {name: options.pop(name) for name in list(options) if name in METHODS[method].__dataclass_fields__}
    if unknown := [name for name in options if name not in OPTIONS and name not in ("recipe", "image_size")]:
        known = [*METHODS[method].__dataclass_fields__, *OPTIONS]
        faults = [f"there is no option {name!r}{did_you_mean(name, known)}" for name in unknown]
        raise OptionError(fault_list(f"pretraining by {method!r} cannot run like this:", faults))
    return METHODS[method](**own)


def _without_pooler(backbone: Backbone) -> Backbone:
    """Return a backbone that gives one vector per token, without the pooling of its own that BERT and others have."""
    if isinstance(backbone, WrappedBackbone) or backbone.spec.features.layout != "BD" or not has_pooler(backbone.spec):
        return backbone
    weights = None if backbone.pretrained else False
    return configured(backbone, weights=weights, allow_partial=backbone._allow_partial, options={"pooler": False})


def _features_model(backbone: Backbone, seed: int) -> TaskModel:
    """Return a model whose logits are the pooled features of a new build of a backbone."""
    model = backbone.adapt(backbone.spec.features.dim, task="regression", head=nn.Identity(), seed=seed)
    model.spec = model.spec.replace(home="")  # no other library has such a model
    return model


def _opened(backbone: Backbone, unlabelled: Any) -> Table:
    inputs = backbone.spec.inputs
    channels = inputs.channels if isinstance(inputs, Image) else 3
    if isinstance(unlabelled, str) and unlabelled.strip():
        unlabelled = Path(unlabelled)  # never one text
    table = open_data(unlabelled, labelled=False, reads=kind_of(inputs, "regression"), channels=channels)
    if len(table) < LEAST:
        found = f"{table.source} has {count(len(table), 'sample')}"
        raise DataError(f"{found}, too few to learn features from: pretraining needs at least {LEAST}; fine-tune the backbone as it is")
    unused = np.zeros((len(table), backbone.spec.features.dim), dtype=np.float32)  # a run needs targets; the objective reads none
    return replace(table, targets=unused, splits=None)


def _run(
    backbone: Backbone,
    model: TaskModel,
    table: Table,
    method: Method,
    tables: Any,
    folder: Path,
    *,
    quiet: bool,
    options: Mapping[str, Any],
) -> Pretrained:
    shared = {name: options[name] for name in PROBED if name in options}
    before = None if tables is None else probe_accuracy(backbone, tables, **shared)
    given = dict(options)
    if isinstance(method, SimClr | Dino) and isinstance(model.inputs, Image):
        given.setdefault("augment", dict(VIEWS))
    if isinstance(method, Dino):
        given.setdefault("ema", method.teacher_momentum)  # the moving average is better than the student (Caron et al. 2021)
    begun = (folder / RUN / "run.json").is_file()
    run = model.fit(table, False, objective=method, out=folder / RUN, resume=begun, quiet=quiet, **given)
    new = _with_values(backbone, model)
    after = None if tables is None else probe_accuracy(new, tables, **shared)
    learned = before is None or after is None or after >= before
    kept = new if learned else backbone
    verdict = _verdict(run, before, after, 0 if tables is None else len(tables[1]))
    plain = kept.adapt(1, task="regression")
    plain.inputs = model.inputs
    plain.spec = plain.spec.replace(home="")  # the folder is that of a backbone, whose head other libraries need not open
    plain.save(folder, overwrite=True)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    found = {"probe_before": before, "probe_after": after, "learned": learned, "verdict": verdict, "history": run.history}
    write_json(folder / RECORD, record | found)
    opened = kept if isinstance(backbone, WrappedBackbone) else find_backbone(folder)
    return Pretrained(opened, run, before, after, learned, verdict, folder)


def _with_values(backbone: Backbone, model: TaskModel) -> Backbone:
    """Return a backbone with the values of a model."""
    if isinstance(backbone, WrappedBackbone):
        return WrappedBackbone(backbone.spec, model.backbone, pretrained=True, origins=model.origins)
    return Backbone(
        model.spec.replace(home=backbone.spec.home), plugin=backbone.plugin, state=model.backbone.state_dict, origins=model.origins
    )


def _verdict(run: Run, before: float | None, after: float | None, held: int) -> str:
    meter = f"feature_std {run.metrics['feature_std']:.3f}, effective rank {run.metrics['effective_rank']:.1f}"
    if run.metrics["feature_std"] < COLLAPSED:
        meter = f"the features collapsed ({meter}): lower lr, or take a larger batch_size"
    if before is None or after is None:
        return f"the new values are kept, and no probe judged them (probe=DATA, --probe DATA); {meter}"
    change = f"from {before:.4f} to {after:.4f} on {count(held, 'held-out sample')}"
    if after < before:
        return f"the linear probe got worse, {change}: the old values are kept, the new ones are in {RUN}/; {meter}"
    return f"the linear probe went {change}: the new values are kept; {meter}"

"""``check_data``: look at data before a model is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from zoo.data.folds import with_equal_in_groups
from zoo.data.table import PIXELS, Array, Table, names_of
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag, Stopped, stop_signals
from zoo.errors import InterruptedRunError, MissingExtraError, OptionError, OutputExistsError, check_options, did_you_mean
from zoo.models.backbone import Backbone, find_backbone, get
from zoo.select.audit.classes import class_faults, majority
from zoo.select.audit.drift import drift
from zoo.select.audit.exact import duplicates, equal_numbers, equal_rows, groups
from zoo.select.audit.facts import facts_of
from zoo.select.audit.features import features_of, out_of_fold
from zoo.select.audit.finding import Audit
from zoo.select.audit.kept import Arrays, Kept
from zoo.select.audit.label_noise import wrong_labels
from zoo.select.audit.near import near_duplicates, near_pairs
from zoo.select.audit.sheet import contact_sheet
from zoo.select.audit.shortcuts import fields_of, shortcuts
from zoo.select.audit.sources import Opened, open_for_check
from zoo.select.audit.values import broken, broken_files, figures_of, odd_values
from zoo.tasks.find import find_task
from zoo.util.atomic_write import write_json, write_text

PARTS = ("near-duplicates", "labels", "shortcuts", "drift")  # that can be skipped
DEFAULT = "zoo/glyphnet"  # the backbone for images, which is installed
RECORD, SHEET, CACHE = "check.json", "check.html", "cache"
_NONE: Mapping[str, str | Sequence[str]] = MappingProxyType({})


def check_data(
    train: Any,
    valid: Any = None,
    *,
    task: str = "single-label",
    reads: str | None = None,
    backbone: str | Backbone | bool | None = None,
    columns: Mapping[str, str | Sequence[str]] = _NONE,
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | PathLike[str] | None = None,
    skip: Sequence[str] = (),
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    quiet: bool = False,
    **inference: Any,
) -> Audit:
    """Look for leaks, near duplicates, broken files, odd classes and values, wrong labels, shortcuts and drift in data.

    Args:
        train: A source as ``zoo.data.open.open_data`` takes it; all its splits are looked at.
        valid: Another source, or None.
        task: The task that the labels are for.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` or ``words``; None goes by the backbone, the columns and the files.
        backbone: Name of a backbone, or folder of a saved model, whose features are used; None is ``zoo/glyphnet`` for images and none
            for others; False is none.
        columns: As in ``open_data``.
        label_columns: As in ``open_data``.
        uncertain: As in ``open_data``.
        root: As in ``open_data``.
        skip: Parts to leave out: ``near-duplicates``, ``labels``, ``shortcuts``, ``drift``.
        seed: Seed of folds and samples.
        out: Folder for ``check.json``, ``check.html`` and what a repeated or resumed check need not compute again; None writes nothing.
        quiet: Show no progress.
        **inference: ``batch_size``, ``image_size``, ``device``, ``precision``, ``workers`` and ``window`` of the pass of the backbone.

    Returns:
        What was found.

    Raises:
        OptionError: For options that do not exist or do not fit the data.
        DataError: If the data cannot be opened.
        OutputExistsError: If ``out`` holds something else.
        InterruptedRunError: After Ctrl-C or SIGTERM; the same call with the same ``out`` goes on.
    """
    _check_given(skip, backbone, inference)
    folder = None if out is None else _claimed(Path(out))
    declared = None if not isinstance(backbone, str) or (Path(backbone) / "config.json").is_file() else find_backbone(backbone)
    inputs = declared.spec.inputs if declared is not None else backbone.spec.inputs if isinstance(backbone, Backbone) else None
    options: dict[str, Any] = {"columns": columns, "label_columns": label_columns, "uncertain": uncertain, "root": root}
    data = open_for_check(train, valid, task=task, reads=reads, inputs=inputs, **options)
    with Progress(quiet, "") as progress, stop_signals() as stop:
        checking = _Checking(data, progress, stop, Kept(folder and folder / CACHE), seed, frozenset(skip))
        try:
            audit = checking.run(task, backbone, InferenceOptions(on_error="skip", **inference))
        except Stopped:
            remedy = f"the same command goes on with what is in {str(folder)!r}" if folder else "give out= (--out) to have it go on"
            error = InterruptedRunError(f"stopped by {stop.name}; {remedy}")
            error.exit_code = stop.exit_code
            raise error from None
        if folder is not None:
            write_json(folder / RECORD, audit.to_dict())
            write_text(folder / SHEET, contact_sheet(audit, data.table))
    return audit


def _check_given(skip: Sequence[str], backbone: Any, inference: Mapping[str, Any]) -> None:
    check_options(inference, ("batch_size", "image_size", "device", "precision", "workers", "window"), "check_data()")
    if not (backbone is None or backbone is False or isinstance(backbone, str | Backbone)):
        raise OptionError(f"backbone is {backbone!r}; give a name, a Backbone, False for no features, or None for the usual one")
    if unknown := [f"{name!r}{did_you_mean(name, PARTS)}" for name in skip if name not in PARTS]:
        raise OptionError(f"skip has {', '.join(unknown)}; the parts are: {', '.join(PARTS)}")


def _claimed(folder: Path) -> Path:
    """Return a folder that is empty or holds an earlier check; it is made if need be."""
    held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or held - {RECORD, SHEET, CACHE}:
        raise OutputExistsError(
            f"{str(folder)!r} {'is a file' if folder.is_file() else 'holds other files'}; choose another folder (out, --out)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class _Checking:
    """A check in progress."""

    data: Opened
    progress: Progress
    stop: StopFlag
    kept: Kept
    seed: int
    skip: frozenset[str]

    def run(self, task: str, backbone: Any, options: InferenceOptions) -> Audit:
        table, data = self.data.table, self.data
        audit = Audit(table.source, table.reads, {name: int((data.splits == name).sum()) for name in data.names}, _counts(data))
        audit.left_out |= dict.fromkeys(sorted(self.skip), "it was skipped")
        if len(data.names) < 2:
            audit.left_out["splits"] = (
                "there is one split only, so nothing is compared between splits; give --valid DATA, or a split column"
            )
        self.progress.note(f"{table.source}: looking for equal samples among {len(table)}")
        equal = equal_rows(table)
        audit.add([*duplicates(data, equal), *groups(data), *class_faults(data)])
        audit.figures["majority"] = majority(data)
        facts = facts_of(table, self.kept, self._reporter("reading", len(table))) if table.reads in PIXELS else {}
        errors = broken(table, facts)
        audit.add([*broken_files(table, errors), *odd_values(table, facts, errors)])
        audit.figures["values"] = figures_of(table, facts, errors)
        good = np.setdiff1d(np.arange(len(table)), list(errors))
        self._near(audit, good, facts, equal)
        labelled = good[data.labelled[good]]
        together = with_equal_in_groups(table, equal_numbers(table, equal))
        self._of_labels(audit, together, labelled, facts)
        self._of_features(audit, together, good, labelled, self._model(audit, task, backbone), options)
        rows = sorted({row for finding in audit.findings for each in finding.rows for row in each})
        audit.names = dict(zip(rows, names_of(table.inputs, rows), strict=True))
        return audit

    def _near(self, audit: Audit, good: Array, facts: Arrays, equal: list[list[int]]) -> None:
        if "near-duplicates" in self.skip:
            return
        if self.data.table.reads == "words":
            audit.left_out["near-duplicates"] = "sentences of words are compared for equality only"
            return
        self.progress.note(f"looking for near duplicates among {len(good)} samples")
        twice = {row for rows in equal for row in rows[1:]}
        once = np.asarray([row for row in good if row not in twice], dtype=np.int64)
        pairs = near_pairs(self.data.table, once, facts.get("thumb"), self.data.splits, poll=self.stop.poll)
        audit.figures["near-duplicates"] = {"pairs": len(pairs)}
        audit.add(near_duplicates(self.data, pairs))

    def _of_labels(self, audit: Audit, table: Table, labelled: Array, facts: Arrays) -> None:
        if "shortcuts" in self.skip:
            return
        if not len(labelled):
            audit.left_out["shortcuts"] = "they need labels of one class per sample"
            return
        fields = {name: values[labelled] for name, values in fields_of(self.data, facts).items()}
        findings, audit.figures["shortcuts"] = shortcuts(table.select(labelled), fields, seed=self.seed)
        audit.add(findings)

    def _of_features(self, audit: Audit, table: Table, good: Array, labelled: Array, model: Any, options: InferenceOptions) -> None:
        wanted = [part for part in ("labels", "drift") if part not in self.skip]
        if not wanted or model is None or not len(good):
            return
        report = self._reporter(f"features of {model.spec.name}", len(good))
        found = features_of(model, self.data.table.select(good), options, self.kept, report)
        features = np.full((len(table), found.shape[1]), np.nan, dtype=np.float32)
        features[good] = found
        if "labels" in wanted:
            rows = labelled[np.isfinite(features[labelled]).all(1)]
            if len(np.unique(np.asarray(table.targets)[rows] if len(rows) else rows)) < 2:
                audit.left_out["labels"] = "wrong labels are looked for where there are two classes or more, one per sample"
            else:
                self.progress.note(f"looking for wrong labels among {len(rows)}")
                self._noise(audit, rows, table.select(rows), features[rows])
        if "drift" in wanted and len(self.data.names) > 1:
            findings, audit.figures["drift"] = drift(self.data, table, features, seed=self.seed, poll=self._poll)
            audit.add(findings)

    def _noise(self, audit: Audit, rows: Array, some: Table, features: Array) -> None:
        try:
            probabilities = out_of_fold(features, some, seed=self.seed, poll=self._poll)
            findings, audit.figures["labels"] = wrong_labels(self.data, rows, some, probabilities)
        except MissingExtraError as error:
            audit.left_out["labels"] = str(error)
            return
        audit.add(findings)

    def _model(self, audit: Audit, task: str, backbone: Any) -> Any:
        """Return the model whose features are used, or None, which is said."""
        wanted = [part for part in ("labels", "drift") if part not in self.skip]
        if backbone is None and self.data.table.reads == "image":
            backbone = DEFAULT
        if not wanted:
            return None
        if backbone is None or backbone is False:
            reason = "it needs features: name a backbone that reads these data (backbone=, --backbone)"
            audit.left_out |= dict.fromkeys(wanted, reason)
            return None
        found = backbone if isinstance(backbone, Backbone) else get(backbone)
        return found.adapt(2, task=task if find_task(task).per_token else "single-label")  # the head is never run

    def _poll(self, _done: int = 0) -> None:
        self.stop.poll()

    def _reporter(self, what: str, total: int) -> Callable[[int], None]:
        self.progress.begin(what, total)
        self.progress.note(f"{what}: {total} samples")
        tenth = [0]

        def report(done: int) -> None:
            self.stop.poll()
            if done:
                self.progress.step(done)
            if done * 10 // max(total, 1) > tenth[0] and done < total:
                tenth[0] = done * 10 // total
                self.progress.note(f"{what}: {done} of {total}")

        return report


def _counts(data: Opened) -> dict[str, int]:
    table = data.table
    if table.targets is None or not table.classes:
        return {}
    return replace(table.select(np.flatnonzero(data.labelled)) if data.labelled.any() else table).counts()

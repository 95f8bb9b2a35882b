"""The parts of a check of data, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.data.splits.duplicates import equal_numbers, equal_rows
from zoo.data.splits.folds import with_equal_in_groups
from zoo.data.splits.patients import known_groups
from zoo.data.table import PIXELS, Array, Table, names_of
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag
from zoo.errors import MissingExtraError
from zoo.models.backbone import Backbone
from zoo.models.find import get
from zoo.models.task_model import TaskModel
from zoo.select.audit.findings.classes import class_faults, majority
from zoo.select.audit.findings.drift import drift
from zoo.select.audit.findings.exact import duplicates, equal_volumes, groups, header_patients
from zoo.select.audit.findings.finding import Audit
from zoo.select.audit.findings.label_noise import wrong_labels
from zoo.select.audit.findings.near import near_duplicates, near_pairs
from zoo.select.audit.findings.shortcuts import fields_of, shortcuts
from zoo.select.audit.findings.values import broken, broken_files, figures_of, odd_values
from zoo.select.audit.reading.facts import facts_of
from zoo.select.audit.reading.features import features_of, out_of_fold
from zoo.select.audit.reading.kept import Arrays, Kept
from zoo.select.audit.reading.sources import Opened
from zoo.tasks.find import find_task
from zoo.util.extras import require_extra

DEFAULT = "zoo/glyphnet"  # the backbone for images, which is installed
TWO_CLASSES = "wrong labels are looked for where there are two classes or more, one per sample"


@dataclass
class Checking:
    """A check in progress.

    Attributes:
        data: The data.
        progress: Shows what is done.
        stop: Set by a signal.
        kept: What a repeated check need not compute again.
        seed: Seed of folds and samples.
        skip: Parts to leave out.
    """

    data: Opened
    progress: Progress
    stop: StopFlag
    kept: Kept
    seed: int
    skip: frozenset[str]

    def run(self, task: str, backbone: Any, options: InferenceOptions) -> Audit:
        """Return what was found.

        Args:
            task: The task that the labels are for.
            backbone: A name, a ``Backbone``, False, or None for the usual one.
            options: Of the pass of the backbone.

        Raises:
            Stopped: After a signal.
        """
        table, data = self.data.table, self.data
        audit = Audit(table.source, table.reads, {name: int((data.splits == name).sum()) for name in data.names}, _counts(data))
        audit.left_out |= dict.fromkeys(sorted(self.skip), "it was skipped")
        backbone, parts = self._of_backbone(audit, backbone)
        if len(data.names) < 2:
            audit.left_out["splits"] = (
                "there is one split only, so nothing is compared between splits; give --valid DATA, or a split column"
            )
        self.progress.note(f"{table.source}: looking for equal samples among {len(table)}")
        equal = equal_rows(table)
        facts = facts_of(table, self.kept, self._reporter("reading", len(table)), options.window) if table.reads in PIXELS else {}
        equal = equal_volumes(equal, facts["voxels"]) if table.reads == "volume" else equal
        audit.add([*duplicates(data, equal), *groups(data), *class_faults(data)])
        if table.groups is None and table.reads in PIXELS and not self.data.ungrouped:
            table = self._with_patients(audit, facts)
        audit.figures["majority"] = majority(data)
        errors = broken(table, facts)
        audit.add([*broken_files(table, errors), *odd_values(table, facts, errors)])
        audit.figures["values"] = figures_of(table, facts, errors)
        good = np.setdiff1d(np.arange(len(table)), list(errors))
        self._near(audit, good, facts, equal)
        labelled = good[data.labelled[good]]
        together = with_equal_in_groups(table, equal_numbers(len(table), equal))
        self._of_labels(audit, together, labelled, facts)
        if parts and len(good):
            found = backbone if isinstance(backbone, Backbone) else get(backbone)
            model = found.adapt(2, task=task if find_task(task).per_token else "single-label")  # the head is never run
            self._of_features(audit, together, labelled, features=self._features(model, good, options), parts=parts)
        rows = sorted({row for finding in audit.findings for each in finding.rows for row in each})
        audit.names = dict(zip(rows, names_of(table.inputs, rows), strict=True))
        return audit

    def _with_patients(self, audit: Audit, facts: Arrays) -> Table:
        """Return the rows with the patients of DICOM headers as groups, which no fold of the following parts divides."""
        known = known_groups(facts["patient"].tolist(), facts["study"].tolist())
        audit.add(header_patients(self.data, known, np.char.startswith(facts["kind"], "DICOM")))
        if known.divides:
            self.data = replace(self.data, table=replace(self.data.table, groups=tuple(known.groups())))
        return self.data.table

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

    def _features(self, model: TaskModel, good: Array, options: InferenceOptions) -> Array:
        """Return the features of all rows, NaN for those that cannot be read."""
        report = self._reporter(f"features of {model.spec.name}", len(good))
        found = features_of(model, self.data.table.select(good), options, self.kept, report)
        features = np.full((len(self.data.table), found.shape[1]), np.nan, dtype=np.float32)
        features[good] = found
        return features

    def _of_features(self, audit: Audit, table: Table, labelled: Array, *, features: Array, parts: Sequence[str]) -> None:
        if "labels" in parts:
            rows = labelled[np.isfinite(features[labelled]).all(1)]
            if len(np.unique(np.asarray(table.targets)[rows] if len(rows) else rows)) < 2:
                audit.left_out["labels"] = TWO_CLASSES
            else:
                self.progress.note(f"looking for wrong labels among {len(rows)}")
                self._noise(audit, rows, table.select(rows), features[rows])
        if "drift" in parts:
            findings, audit.figures["drift"] = drift(self.data, table, features, seed=self.seed, poll=self._poll)
            audit.add(findings)

    def _noise(self, audit: Audit, rows: Array, some: Table, features: Array) -> None:
        probabilities = out_of_fold(features, some, seed=self.seed, poll=self._poll)
        findings, audit.figures["labels"] = wrong_labels(self.data, rows, some, probabilities)
        audit.add(findings)

    def _of_backbone(self, audit: Audit, backbone: Any) -> tuple[Any, list[str]]:
        """Return the backbone for features, and the parts that need them; why others cannot run is said before anything is read."""
        parts = [part for part in ("labels", "drift") if part not in self.skip]
        backbone = DEFAULT if backbone is None and self.data.table.reads == "image" else backbone
        if backbone is None or backbone is False:
            audit.left_out |= dict.fromkeys(parts, "it needs features: name a backbone that reads these data (backbone=, --backbone)")
            return None, []
        if "labels" in parts and (reason := self._no_noise()):
            audit.left_out["labels"] = reason
            self.progress.note(f"labels are left out: {reason}")
            parts.remove("labels")
        return backbone, [part for part in parts if part != "drift" or len(self.data.names) > 1]

    def _no_noise(self) -> str:
        """Return why wrong labels cannot be looked for; empty if they can."""
        if not self.data.labelled.any():
            return TWO_CLASSES
        try:
            require_extra("audit", "finding wrong labels")
        except MissingExtraError as error:
            return str(error)
        return ""

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

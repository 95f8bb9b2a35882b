"""Rounds over growing parts of the data, then short fine-tunes of the best, as far as the budget goes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.splits.folds import folds_of
from zoo.data.table import Table
from zoo.engine.runtime.progress import in_time_units
from zoo.engine.runtime.signals import Stopped
from zoo.engine.train.messages import SKIPPED
from zoo.errors import LISTED, CorruptInputError, DataError, DiskFullError, OptionError, ZooError, count, examples, fault_list, owner_prefix
from zoo.models.backbone import Backbone
from zoo.plugins.loader import describe
from zoo.select.ranking.features import Conditions, OutsideError, read_features
from zoo.select.ranking.finetune import FineTuning
from zoo.select.ranking.limits import Excluded, none_left, reason_of
from zoo.select.ranking.opening import Tables, in_parts, together
from zoo.select.ranking.ranking import Ranking, in_order, same_reasons, without_names
from zoo.select.ranking.row import Row, file_of, read_row, write_row
from zoo.select.ranking.scoring import Scorer
from zoo.select.transferability.source_head import source_probabilities
from zoo.tasks.find import find_task
from zoo.util.numbers import interval_text

TUNING_SHARE = 0.5  # of the budget that is left for tuning where all candidates would be read on all samples


class Search:
    """Scores candidates in the folder of a ranking.

    Args:
        candidates: The backbones.
        tables: Samples to rank and train by, and to judge tuning by.
        conditions: What is the same for all candidates.
        folder: The folder.
        metric: The metric of probe and tuning.
        budget: Seconds of all together, or None: every candidate on all samples, and no tuning.
        top: How many candidates may be tuned.
        options: The given options of a run.

    Attributes:
        left_out: Why candidates were not scored, by name.
        excluded: The limits that they were outside of.
    """

    def __init__(
        self,
        candidates: Sequence[Backbone],
        tables: Tables,
        conditions: Conditions,
        *,
        folder: Path,
        metric: str,
        budget: float | None,
        top: int,
        options: dict[str, Any],
    ) -> None:
        self._candidates, self._tables, self._conditions = candidates, tables, conditions
        self._folder, self._metric, self._budget, self._top, self._options = folder, metric, budget, top, options
        self._task = find_task(conditions.task)
        self._lower = metric in self._task.lower_is_better
        self._started = time.monotonic()
        self.left_out: dict[str, str] = {}
        self.excluded: list[Excluded] = []
        self._first: dict[str, str] = {}  # the first candidate with a reason
        self._alike: dict[str, list[str]] = {}  # further ones that were not told of yet, by the first

    def scored(self) -> Ranking:
        """Score the candidates and return them in order.

        Raises:
            OptionError: If none is within the limits.
            ZooError: If all failed, with each reason.
        """
        rows: dict[str, Row] = {}
        alive = self._within(self._candidates)
        train, valid = self._tables
        parts = in_parts(train, valid, seed=self._conditions.config.seed, halving=self._budget is not None)
        for number in range(len(parts)):
            tables = [table for part in parts[: number + 1] for table in part]
            found = self._round(alive, tables, rows)
            rows = {name: row for name, row in rows.items() if name not in self.left_out} | found
            alive = [one for one in alive if one.spec.name in found]
            if not rows:
                raise self._none()
            if number + 1 < len(parts):
                later = sum(len(table) for part in parts[number + 1 :] for table in part)
                alive = self._survivors(alive, rows, later)
        return self._ranking(list(rows.values()))

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return math.inf if self._budget is None else self._budget - (time.monotonic() - self._started)

    def _within(self, candidates: Sequence[Backbone]) -> list[Backbone]:
        """Return the candidates whose declarations are within the limits."""
        alive = []
        for backbone in candidates:
            if outside := self._conditions.limits.of_spec(backbone.spec):
                self._leave_out(backbone.spec.name, reason_of(outside))
                self.excluded += outside
            else:
                alive.append(backbone)
        self._note_alike()
        if not alive:
            raise self._none()
        return alive

    def _round(self, alive: Sequence[Backbone], tables: Sequence[Table], known: Mapping[str, Row]) -> dict[str, Row]:
        """Return the rows of candidates on some samples; without time, those with a row on fewer samples keep that one."""
        pooled = together(tables)
        folds = folds_of(pooled, self._conditions.config.seed)
        if not folds:
            raise DataError(
                f"{pooled.source}: its {count(len(pooled), 'sample')} cannot be divided into folds with every class on both sides; "
                "give two or more samples (or groups) of each class"
            )
        poll, device = self._conditions.stop.poll, self._conditions.accelerator.device
        scorer = Scorer(pooled, self._task, self._metric, folds, device=device, poll=poll)
        rows: dict[str, Row] = {}
        for backbone in alive:
            poll()
            if (rows or known) and self.left <= 0:
                self._out_of_time(backbone.spec.name, known.get(backbone.spec.name))
                continue
            row = self._attempt(backbone, tables, scorer)
            if row is not None:
                rows[row.name] = row
        self._note_alike()
        return rows

    def _out_of_time(self, name: str, row: Row | None) -> None:
        spent = f"the budget of {in_time_units(self._budget or 0.0)} was spent before its turn"
        if row is None:
            self._leave_out(name, spent)
        else:
            self._note(f"{name} is judged by {count(row.samples, 'sample')}: {spent}")

    def _attempt(self, backbone: Backbone, tables: Sequence[Table], scorer: Scorer) -> Row | None:
        """Return the row of a candidate, None where it is left out; faults of the data end all."""
        name = backbone.spec.name
        path = file_of(self._folder, name, sum(map(len, tables)))
        try:
            row = read_row(path)
            if row is None or row.folder != _folder_of(backbone):
                row = self._scored(backbone, tables, scorer)
                write_row(path, row)
            measured = {"max_params": row.parameters, "max_latency_ms": row.latency_ms, "max_memory": row.memory}
            if excluded := self._conditions.limits.of_values(name, measured):  # a row of an earlier call had other limits
                raise OutsideError(excluded)
        except OutsideError as error:
            self.excluded += error.excluded
            self._leave_out(name, str(error))
            return None
        except CorruptInputError as error:
            error.args = (f"{error}; {SKIPPED}",)
            raise
        except (Stopped, DataError, DiskFullError):
            raise
        except Exception as error:  # of a plugin's model, whatever it is; the others go on
            self._leave_out(name, str(error) if isinstance(error, ZooError) else describe(error))
            return None
        score = interval_text(self._metric, row.probe.score, row.probe.low, row.probe.high)
        took = in_time_units(row.seconds)
        self._note(f"{name}: {self._metric} {score} on {row.samples} samples, {row.latency_ms:.1f} ms, {took}")
        return row

    def _scored(self, backbone: Backbone, tables: Sequence[Table], scorer: Scorer) -> Row:
        import torch

        started = time.perf_counter()
        read = read_features(backbone, tables, self._conditions)
        values = torch.cat(list(read.values))
        probe = scorer.probe(values)
        scores = scorer.scores(values, source_probabilities(backbone, values))
        return Row(
            name=backbone.spec.name,
            samples=len(values),
            parameters=read.parameters,
            accuracy=backbone.spec.metrics.get("imagenet-top1"),
            latency_ms=read.latency_ms,
            memory=read.memory,
            throughput=read.throughput,
            seconds=time.perf_counter() - started,
            pass_seconds=read.seconds,
            probe=probe,
            scores=scores,
            folder=_folder_of(backbone),
        )

    def _survivors(self, alive: Sequence[Backbone], rows: dict[str, Row], later: int) -> list[Backbone]:
        """Return the candidates that are read on more samples: all where the budget allows for it, else the better half."""
        cost = sum(later / max(rows[one.spec.name].throughput, 1e-9) for one in alive)
        if cost <= self.left * (1 - TUNING_SHARE):
            return list(alive)
        ordered = [row.name for row in in_order([rows[one.spec.name] for one in alive], lower=self._lower)]
        kept = ordered[: math.ceil(len(ordered) / 2)]
        self._note(f"going on with {count(len(kept), 'candidate')}: {', '.join(kept)}")
        return [one for one in alive if one.spec.name in kept]

    def _ranking(self, rows: Sequence[Row]) -> Ranking:
        ordered = in_order(rows, lower=self._lower)
        seconds = time.monotonic() - self._started
        return Ranking(ordered, self.left_out, self._metric, self._lower, self._folder, seconds)

    def tuned(self, ranking: Ranking) -> Ranking:
        """Return a ranking after short fine-tunes of the best, where time and held-out samples are left for that."""
        train, valid = self._tables
        if self._budget is None or valid is None:
            return ranking
        if self.left <= 0:
            self._note(f"none is fine-tuned: the budget of {in_time_units(self._budget)} is spent")
            return ranking
        backbones = {one.spec.name: one for one in self._candidates}
        tuning = FineTuning(backbones, (train, valid), self._conditions, self._options, self._top, lambda: self.left, self._note)
        return self._ranking(tuning.rows(ranking))

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason = reason.removeprefix(owner_prefix(name))
        first = self._first.setdefault(without_names(name, reason), name)
        if first == name:
            self._note(f"{name} is left out: {reason}")
        else:
            self._alike.setdefault(first, []).append(name)

    def _note_alike(self) -> None:
        """Tell which candidates were left out since the last call for the reason of an earlier one."""
        for first, names in self._alike.items():
            said = f"{len(names)} more are" if len(names) > 1 else "one more is"
            self._note(f"{said} left out for the same reason as {first} ({examples(names, LISTED)})")
        self._alike.clear()

    def _note(self, line: str) -> None:
        self._conditions.progress.note(f"rank: {line}")

    def _none(self) -> ZooError:
        if {one.name for one in self.excluded} == set(self.left_out):
            return none_left(self.excluded, self._conditions.limits, len(self._candidates))
        lines = [f"{examples(names)}: {self.left_out[names[0]]}" for names in same_reasons(self.left_out)]
        return OptionError(fault_list("no candidate can be scored:", lines, "Name others (candidates, --candidates); see: zoo list"))


def _folder_of(backbone: Backbone) -> str:
    return "" if backbone.folder is None else str(backbone.folder.resolve())

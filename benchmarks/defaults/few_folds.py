"""Cross-validation of very few samples: whether it tells if tuning beats its solved head, on the sets that choose the defaults.

Each run of the default (0.75 of the tuned values, ``few.py``) is repeated on the training parts of a cross-validation, and the held-out
samples are predicted by the head alone and by the result. Rules that keep the head or the result by these predictions are then compared
by the accuracy on the test part with those that ask nobody. Of a set with more classes each seed draws two. Folds never divide a patient.
Accuracy is that of at most 300 test samples; seconds are CPU seconds of one thread. Results go to a file as they come, a line each, and a
run that is started again goes on behind them. ``--settings "held out"`` gives instead what ``fit`` does where the monitored metric
is named and no validation data are given, and did with every run: a fifth of the samples is held out, and judges tuning.

Run: python benchmarks/defaults/few_folds.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from few import fitted, read_arguments, scores
from matrix import PLACES, SETS, Samples
from probe import adapted, kept  # also finds the modules of benchmarks/ and sets the environment
from side_by_side import needed

from zoo.data.splits.folds import folds_of
from zoo.data.table import Table
from zoo.engine.options.recipes import FEW_SHARE

HEAD, RESULT = "head", "result"
FOLDS, HELD_OUT = "folds", "held out"
MOST = 300  # test samples that are read
Array = np.ndarray[Any, Any]
Record = Mapping[str, Any]


def predictions(network: str, labels: list[str], train: Samples, held: Samples, data: Path, seed: int) -> Iterator[tuple[str, Array]]:
    """Yield the probabilities ``(samples, classes)`` of other samples by the head alone and by the result."""
    model = adapted(network, Samples(train.inputs, labels), data, seed)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    for name, options in ((HEAD, {"recipe": "linear-probe"}), (RESULT, {"wise_ft": FEW_SHARE})):
        model.load_state_dict(first)
        fitted(model, train, seed, **options)
        yield name, model.predict_proba(list(held.inputs), workers=0)


def log_odds(probabilities: Array, truth: Array) -> Array:
    """Return the logarithm of the true class's probability over that of the best other one, ``(samples,)``."""
    others = probabilities.astype(np.float64)
    rows = np.arange(len(truth))
    own = others[rows, truth]
    others[rows, truth] = -1
    return np.log(np.maximum(own, 1e-9)) - np.log(np.maximum(others.max(1), 1e-9))


def two_classes(name: str, seed: int, data: Path) -> tuple[Samples, Samples]:
    """Return the training and test samples of two classes of a set."""
    parts = SETS[name].load(data)
    classes = np.random.default_rng(seed).permutation(sorted(set(parts[0].labels)))[:2]
    train, test = (part.select(np.flatnonzero(np.isin(part.labels, classes))) for part in parts)
    return train, test.select(np.random.default_rng(5).permutation(len(test))[:MOST])


def place_result(name: str, network: str, size: int, seed: int, setting: str, data: Path) -> dict[str, Any]:
    """Return the record of one draw: accuracy and loss on the test part, and the log odds of held-out samples of the training part."""
    everything, test = two_classes(name, seed, data)
    train = everything.draw(size, seed)
    names = sorted(set(train.labels))
    record = {"set": name, "backbone": network, "size": size, "seed": seed, "samples": len(train), "setting": setting}
    start = time.process_time()
    if setting == HELD_OUT:
        model = adapted(network, train, data, seed)
        with tempfile.TemporaryDirectory() as out:
            run = model.fit(train.table, None, monitor="accuracy", seed=seed, out=f"{out}/run", quiet=True, workers=0)
        found = scores(model.predict_proba(list(test.inputs), workers=0), test, names)
        return record | {HELD_OUT: found, "tuned": run.kept > 1, "seconds": round(time.process_time() - start, 1)}
    for each, probabilities in predictions(network, names, train, test, data, seed):
        record[each] = scores(probabilities, test, names)
    record["seconds"] = round(time.process_time() - start, 1)
    start = time.process_time()
    odds = fold_odds(network, names, train, data, seed)
    return record | {"odds": odds, "folds_seconds": round(time.process_time() - start, 1)}


def fold_odds(network: str, names: list[str], train: Samples, data: Path, seed: int) -> dict[str, list[float]]:
    """Return the log odds of each sample by the head alone and by the result of the folds that held it out."""
    targets = np.array([names.index(label) for label in train.labels])
    groups = None if train.groups is None else tuple(train.groups)
    odds: dict[str, list[float]] = {HEAD: [], RESULT: []}
    for rows, held in folds_of(Table([*range(len(train))], targets, tuple(names), groups=groups), seed):
        for each, found in predictions(network, names, train.select(rows), train.select(held), data, seed):
            odds[each] += [round(float(value), 3) for value in log_odds(found, targets[held])]
    return odds


def results(arguments: argparse.Namespace, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a record per draw that is not done yet."""
    done = {(one["set"], one["backbone"], one["size"], one["seed"], one["setting"]) for one in records}
    for seed in range(arguments.seeds):
        for size in arguments.sizes:
            for name in arguments.sets:
                for network in [each for each in PLACES[name] if each in arguments.backbones]:
                    for setting in arguments.settings:
                        if (name, network, size, seed, setting) not in done:
                            yield place_result(name, network, size, seed, setting, needed(arguments.data))


def _accuracy(odds: Array) -> float:
    return float((odds > 0).mean())


def _loss(odds: Array) -> float:
    """Return the mean log loss, negated; exact for two classes."""
    return -float(np.logaddexp(0, -odds).mean())


def _scaled_loss(odds: Array) -> float:
    """Return the mean log loss, negated, with logits scaled by the factor that suits them best: confidence does not count."""
    return max(_loss(odds * factor) for factor in np.geomspace(1e-3, 1e3, 61))


def _margin(odds: Array) -> float:
    return float(np.tanh(odds / 2).mean())


def _effect(odds: Array) -> float:
    """Return the mean over the standard deviation: whether the sign is sure."""
    return float(odds.mean() / max(odds.std(), 1e-9))


def by(measure: Callable[[Array], float], *, clearly: float = 0.0) -> Callable[[Record], str]:
    """Return the rule that takes the result unless the head is better (by more than ``clearly``) on held-out samples."""

    def chosen(one: Record) -> str:
        head, result = (measure(np.array(one["odds"][each])) for each in (HEAD, RESULT))
        return RESULT if result >= head - clearly - 1e-9 else HEAD

    return chosen


RULES: Mapping[str, Callable[[Record], str]] = {
    "always the head": lambda one: HEAD,
    "always the result": lambda one: RESULT,
    "loss": by(_loss),
    "loss, logits scaled": by(_scaled_loss),
    "margin": by(_margin),
    "mean over deviation": by(_effect),
    "accuracy": by(_accuracy),
    "accuracy, ties to the head": by(_accuracy, clearly=-1e-6),
    "accuracy, head better by two": lambda one: by(_accuracy, clearly=1.5 / max(len(one["odds"][HEAD]), 1))(one),
    "accuracy, result better by two": lambda one: by(_accuracy, clearly=-1.5 / max(len(one["odds"][HEAD]), 1))(one),
    "the better on the test part": lambda one: max((RESULT, HEAD), key=lambda each: one[each]["accuracy"]),
}


def summary(records: list[dict[str, Any]]) -> None:
    """Print the gains over the head of each rule, by the number of samples."""
    print("| samples | rule | runs | mean gain | worst place | worst run | head kept | loss |\n|---|---|---|---|---|---|---|---|")
    draws: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in records:
        place = tuple(one[key] for key in ("set", "backbone", "samples", "seed"))
        draws.setdefault(place, {}).update(one)
    for count in sorted({one["samples"] for one in records}):
        own = [one for place, one in draws.items() if place[2] == count and HEAD in one]
        for name, rule in RULES.items():
            line(f"{count} | {name}", own, rule)
        line(f"{count} | a fifth held out", [one for one in own if HELD_OUT in one], lambda one: HELD_OUT)
        line(f"{count} | the result, of the same", [one for one in own if HELD_OUT in one], lambda one: RESULT)


def line(title: str, records: list[dict[str, Any]], rule: Callable[[Record], str]) -> None:
    """Print the row of a rule."""
    if not records:
        return
    gains = [one[rule(one)]["accuracy"] - one[HEAD]["accuracy"] for one in records]
    places: dict[tuple[str, str], list[float]] = {}
    for one, gain in zip(records, gains, strict=True):
        places.setdefault((one["set"], one["backbone"]), []).append(gain)
    worst = min(map(statistics.mean, places.values()))
    share = statistics.mean(rule(one) == HEAD or (rule(one) == HELD_OUT and not one["tuned"]) for one in records)
    loss = statistics.mean(one[rule(one)]["loss"] for one in records)
    cells = f"{statistics.mean(gains):+.4f} | {worst:+.3f} | {min(gains):+.3f} | {share:.0%} | {loss:.2f}"
    print(f"| {title} | {len(records)} | {cells} |")


def main() -> None:
    arguments = read_arguments(__doc__, sizes=[4, 8, 2], settings=(FOLDS, HELD_OUT), seeds=5, out="defaults-few-folds.jsonl")
    summary(kept(arguments.out, lambda records: results(arguments, records)))


if __name__ == "__main__":
    main()

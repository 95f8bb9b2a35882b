"""Texts with few labels: the defaults with layer decay, training on pairs and the head alone, by all-MiniLM-L6-v2.

``default`` is ``fit(train, False)`` and nothing else; ``, unscaled`` means features that are not scaled to length 1, and ``, tuned`` a
default run behind it that starts from its result. ``--classes`` takes so many of the classes, drawn by the seed. Each run sees the test
part once, at most 600 texts of it, and keeps the last epoch. Seconds are CPU seconds of one thread, of training only. Results go to
a file as they come, a line each, and a run that is started again goes on behind them.

Run: python benchmarks/defaults/texts.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import SETS, SIZES, Samples
from probe import TOKENS, kept  # also finds the modules of benchmarks/ and sets the environment
from sets import text_model
from side_by_side import needed

import zoo

MOST = 600
UNSCALED, TUNED = ", unscaled", ", tuned"
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "layer-decay": {"recipe": "layer-decay"},
    "contrastive": {"objective": zoo.transfer.Contrastive()},
    "linear-probe": {"recipe": "linear-probe"},
}
METHODS = (*OPTIONS, *(name + UNSCALED for name in OPTIONS), "contrastive" + TUNED)
TEXT_SETS = tuple(name for name, entry in SETS.items() if entry.reads == "text")
SIZE = {"8": 8, **SIZES}
PLACE = ("set", "size", "classes", "seed", "method")  # fields that tell a record from the others


def measured(method: str, train: Samples, test: Samples, seed: int) -> tuple[float, float]:
    """Return accuracy and seconds of a method."""
    scaled = {"normalize": False} if method.endswith(UNSCALED) else {}
    labels = sorted(set(train.labels))
    model = zoo.get(text_model()).adapt(len(labels), labels=labels, seed=seed, **scaled)
    model.inputs = dataclasses.replace(model.inputs, max_length=TOKENS)  # type: ignore[type-var]  # texts
    stages = [OPTIONS[method.removesuffix(UNSCALED).removesuffix(TUNED)], *([{}] if method.endswith(TUNED) else [])]
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        for number, options in enumerate(stages):
            model.fit(train.table, False, seed=seed, out=f"{out}/run{number}", quiet=True, workers=0, **options)
    seconds = time.process_time() - start
    return model.evaluate(test.table)["accuracy"], seconds


def of_some_classes(train: Samples, test: Samples, classes: int, seed: int) -> list[Samples]:
    """Return the samples of so many classes, drawn by the seed."""
    drawn = set(np.random.default_rng(100 + seed).permutation(sorted(set(train.labels)))[:classes])
    return [part.select([row for row, label in enumerate(part.labels) if label in drawn]) for part in (train, test)]


def results(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per set, size, seed and method that is not done yet."""
    for seed in range(arguments.seeds):
        for size in arguments.sizes:
            for name in arguments.sets:
                for method in arguments.methods:
                    if (name, size, arguments.classes, seed, method) in done or (SIZE[size] is None and seed):
                        continue
                    everything, test = SETS[name].load(needed(arguments.data))
                    train = everything.draw(SIZE[size], seed)
                    shown = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
                    if arguments.classes is not None:
                        train, shown = of_some_classes(train, shown, arguments.classes, seed)
                    accuracy, seconds = measured(method, train, shown, seed)
                    place = {"set": name, "part": SETS[name].part, "size": size, "classes": arguments.classes, "seed": seed}
                    yield place | {"method": method, "samples": len(train)} | {"accuracy": round(accuracy, 4), "seconds": round(seconds, 1)}


def summary(records: list[dict[str, Any]]) -> None:
    """Print a row per set, size and method: mean and spread over the seeds."""
    print("| set | part | of a class | method | accuracy, mean of seeds | spread | CPU seconds |\n|---|---|---|---|---|---|---|")
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        some = f", {record['classes']} classes" if record.get("classes") else ""
        rows.setdefault((record["set"] + some, record["part"], record["size"], record["method"]), []).append(record)
    for place in sorted(rows, key=lambda place: (place[1], place[0], [*SIZE].index(place[2]), METHODS.index(place[3]))):
        scores, seconds = ([each[key] for each in rows[place]] for key in ("accuracy", "seconds"))
        spread = f"{min(scores):.3f} to {max(scores):.3f}" if len(scores) > 1 else ""
        print(f"| {' | '.join(place)} | {statistics.mean(scores):.3f} | {spread} | {statistics.mean(seconds):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=TEXT_SETS, choices=TEXT_SETS, metavar="SET", help=", ".join(TEXT_SETS))
    parser.add_argument("--sizes", nargs="*", default=("4", "8", "16"), choices=SIZE, help="texts of a class")
    parser.add_argument("--methods", nargs="*", default=("layer-decay", "contrastive"), choices=METHODS, metavar="METHOD")
    parser.add_argument("--classes", type=int, help="number of classes; all if left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("defaults-texts.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    summary(kept(arguments.out, lambda records: results(arguments, {tuple(map(each.get, PLACE)) for each in records})))


if __name__ == "__main__":
    main()

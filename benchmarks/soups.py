"""Soups and ensembles of runs that differ by seed and learning rate, beside the best run alone. Prints a Markdown table.

MobileNetV2-0.35: ants/bees at 96 pixels, 194 photos to train and 50 to choose by, CIFAR-10 at 64 pixels, 300 and 200 images. Three runs
of ``lp-ft`` for four epochs, at its rate, three and ten times that; accuracy on the test split, mean and standard
deviation over ``--seeds`` divisions of the training data.

Run: ZOO_REGISTRY=../shared/data/registry.toml python benchmarks/soups.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from sets import Samples, images

import zoo

SETS = {"ants/bees": (96, 194, 50), "CIFAR-10": (64, 300, 200)}
RATES = (1.0, 3.0, 10.0)
RATE = 3e-3  # of the recipe, for the head; a phase of the backbone has a share of it


def divided(name: str, data: Path, seed: int) -> tuple[Samples, Samples, Samples]:
    """Return the training samples, those that choose, and those of the test split, at most 500."""
    (first, test), (_, trained, choosing) = images(name, data), SETS[name]
    rows = list(range(len(first)))
    random.Random(seed).shuffle(rows)
    parts = (first.iloc[rows[:trained]], first.iloc[rows[trained : trained + choosing]], test.sample(min(500, len(test)), random_state=0))
    train, chosen, held = ((list(part["file_name"]), list(part["label"])) for part in parts)
    return train, chosen, held


def row(name: str, data: Path, seed: int) -> tuple[dict[str, float], float]:
    """Return the accuracy of each way, and the CPU seconds of the runs."""
    train, choosing, test = divided(name, data, seed)
    found: dict[str, float] = {}
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / f"run-{number}" for number in range(len(RATES))]
        how: dict[str, Any] = {"recipe": "lp-ft", "epochs": 4, "image_size": SETS[name][0], "augment": "none", "quiet": True, "workers": 0}
        for number, (rate, out) in enumerate(zip(RATES, runs, strict=True)):
            model = zoo.get("local/mobilenetv2_035").adapt(len(set(train[1])), labels=sorted(set(train[1])), seed=seed)
            model.fit(train, False, out=out, seed=10 * seed + number, lr=rate * RATE, **how)
            found[f"run at {rate:g} times the rate"] = accuracy(model, test)
        seconds = time.process_time() - start
        merged = {
            "soup": zoo.select.soup(runs, choosing, out=Path(folder) / "soup"),
            "uniform soup": zoo.select.soup(runs, choosing, out=Path(folder) / "uniform", uniform=True),
            "ensemble": zoo.select.ensemble(runs, choosing, out=Path(folder) / "ensemble"),
        }
        best = max(merged["soup"].scores, key=lambda run: merged["soup"].scores[run])
        found["the run that is best on the data that choose"] = accuracy(zoo.load(best), test)
        found |= {way: accuracy(one.model, test) for way, one in merged.items()}
    return found, seconds


def accuracy(model: Any, test: Samples) -> float:
    return float(model.evaluate(test, quiet=True)["accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    print("| data | model | accuracy |\n|---|---|---|")
    for name in arguments.sets:
        rows = [row(name, arguments.data, seed) for seed in range(arguments.seeds)]
        print(rows, file=sys.stderr, flush=True)
        for way in rows[0][0]:
            values = [found[way] for found, _ in rows]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            print(f"| {name} | {way} | {statistics.mean(values):.3f}{spread} |", flush=True)


if __name__ == "__main__":
    main()

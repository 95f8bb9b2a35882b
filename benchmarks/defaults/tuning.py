"""Tuning after the solved head, by its number of optimizer steps, batch size and rate, on the sets that choose the defaults.

Each setting is ``SAMPLES:STEPS:RATE``: samples of a batch, optimizer steps rounded to whole epochs, and the rate as a factor on the
head's. ``auto`` samples are those of the default; 0 steps are the solved head alone, ``3e`` are three epochs, and ``2x`` are twice the
epochs of the default. A fourth part, as in ``auto:1x:0.1:0.5``, is the share of the tuned values (``wise_ft``). Accuracy is that of the
test part, at most 600 samples of it; seconds are CPU seconds of one thread. Results go to a file as they come, a line each, and a run
that is started again goes on.

Run: python benchmarks/defaults/tuning.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from matrix import SETS, SIZES, Samples
from probe import adapted, kept
from side_by_side import needed

from zoo.engine.options.recipe import MOST_EPOCHS, Recipe, batch_size_for
from zoo.engine.options.recipes import LEAST_STEPS, RECIPES

MOST = 600  # test samples
SETTINGS = ("32:0:0.03", "32:3e:0.03", "8:300:0.03", "8:300:0.1", "8:500:0.03", "8:500:0.1", "8:500:0.3", "32:300:0.03", "32:300:0.1")
PLACES = (
    "ants/bees,mobilenetv2_035,all",
    "ants/bees,mobilenetv2_100,all",
    "amazon,mobilenetv2_035,16",
    "CIFAR-10,mobilenetv2_035,16",
    "X-rays,mobilenetv2_035,16",
    "digits,resnet20_cifar10,16",
    "TREC,minilm,16",
)


def recipe(steps: str, factor: float, batches: int) -> Recipe:
    """Return the default recipe with so many steps of tuning at this rate, or without tuning."""
    chosen = RECIPES["layer-decay"]
    if steps.endswith("x"):
        epochs = max(1, round(float(steps[:-1]) * max(3, min(MOST_EPOCHS, -(-LEAST_STEPS // batches)))))
    else:
        epochs = int(steps[:-1]) if steps.endswith("e") else round(int(steps) / batches)
    if not epochs:
        return dataclasses.replace(chosen, phases=chosen.phases[:1])
    tune = dataclasses.replace(chosen.phases[1], lr=factor, epochs=epochs, least_steps=0)
    return dataclasses.replace(chosen, phases=(chosen.phases[0], tune))


def accuracy(place: str, setting: str, seed: int, data: Path) -> dict[str, Any]:
    """Return the accuracy and the seconds of a setting."""
    name, backbone, size = place.split(",")
    batch, steps, factor, *mixed = setting.split(":")
    everything, test = SETS[name].load(data)
    test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
    train: Samples = everything.draw(SIZES[size], seed)
    model = adapted(backbone, everything, data, seed)
    samples = batch_size_for(len(train)) if batch == "auto" else int(batch)
    options = {"recipe": recipe(steps, float(factor), -(-len(train) // samples)), "batch_size": samples}
    if mixed:
        options["wise_ft"] = float(mixed[0])
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        model.fit(train.table, False, **options, seed=seed, out=f"{out}/run", quiet=True, workers=0)
    seconds = time.process_time() - start
    return {"samples": len(train), "accuracy": model.evaluate(test.table)["accuracy"], "seconds": round(seconds, 1)}


def results(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per place, seed and setting that is not done yet."""
    for place in arguments.places:
        for seed in range(arguments.seeds):
            for setting in arguments.settings:
                if (place, seed, setting) not in done:
                    found = accuracy(place, setting, seed, needed(arguments.data))
                    yield {"place": place, "seed": seed, "setting": setting, **found}


def summary(records: list[dict[str, Any]]) -> None:
    """Print a row per place and a column per setting: the mean accuracy over the seeds."""
    settings = list(dict.fromkeys(record["setting"] for record in records))
    print(f"| set, backbone, per class | {' | '.join(settings)} |")
    print(f"|---|{'---|' * len(settings)}")
    for place in dict.fromkeys(record["place"] for record in records):
        found = {each: [one["accuracy"] for one in records if (one["place"], one["setting"]) == (place, each)] for each in settings}
        print(f"| {place} | {' | '.join(f'{sum(values) / len(values):.3f}' if values else '' for values in found.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--places", nargs="*", default=list(PLACES), metavar="SET,BACKBONE,SIZE")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), metavar="SAMPLES:STEPS:RATE")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("defaults-tuning.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    logging.getLogger("zoo").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    summary(kept(arguments.out, lambda records: results(arguments, {(each["place"], each["seed"], each["setting"]) for each in records})))


if __name__ == "__main__":
    main()

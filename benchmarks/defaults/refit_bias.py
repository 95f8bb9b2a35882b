"""Biases that are fitted anew after tuning on augmented images, on the sets that choose the defaults.

A run of the default with ``augment="light"`` gives the model as it was tuned, and with its biases fitted anew on the training images as
they are (``refit_bias``). ``head`` is its whole linear head solved anew on the features of these images. Accuracy is that of the test
part, at most 600 samples of it. Results go to a file as they come, a line each, and a run that is started again goes on behind them.

Run: python benchmarks/defaults/refit_bias.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import MOST, PLACES, SETS
from probe import adapted, kept, ours  # also finds the modules of benchmarks/ and sets the environment
from side_by_side import needed

from zoo.engine.solved.bias_shift import bias_shift
from zoo.tasks.find import find_task

CHOOSE = [name for name in SETS if SETS[name].part == "chooses" and SETS[name].reads == "image"]
TUNED, BIASES, HEAD = "tuned", "biases", "head"


def place_result(name: str, network: str, size: int, seed: int, data: Path) -> dict[str, Any]:
    """Return the accuracies of a place."""
    everything, test = SETS[name].load(data)
    test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
    train = everything.draw(size, seed)
    model = adapted(network, train, data, seed)
    with tempfile.TemporaryDirectory() as out:
        model.fit(train.table, False, seed=seed, out=f"{out}/run", quiet=True, workers=0, augment="light", refit_bias=False)
    names = list(model.labels)
    truth, targets = (np.array([names.index(label) for label in part.labels]) for part in (test, train))

    def accuracy() -> float:
        return round(float((model.predict_proba(list(test.inputs), workers=0).argmax(1) == truth).mean()), 4)

    found = {TUNED: accuracy()}
    features, held = (np.asarray(model.embed(list(part.inputs), workers=0), np.float32) for part in (train, test))
    found[HEAD] = round(ours(features, train, held, test, seed)[0], 4)
    with torch.no_grad():
        logits = model.head.linear(torch.from_numpy(features))
    with torch.enable_grad():
        shift = bias_shift(logits, partial(find_task("single-label").loss, targets=torch.from_numpy(targets), weights=None, smoothing=0.0))
    with torch.no_grad():
        model.head.linear.bias += shift
    found[BIASES] = accuracy()
    return {"set": name, "backbone": network, "size": size, "seed": seed, "samples": len(train), **found}


def results(arguments: argparse.Namespace, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a record per place that is not done yet."""
    done = {(one["set"], one["backbone"], one["size"], one["seed"]) for one in records}
    for seed in range(arguments.seeds):
        for size in arguments.sizes:
            for name in arguments.sets:
                for network in [each for each in PLACES[name] if (name, each, size, seed) not in done]:
                    yield place_result(name, network, size, seed, needed(arguments.data))


def summary(records: list[dict[str, Any]]) -> None:
    """Print the change of accuracy over the tuned model, a row per number of samples of a class."""
    print("| images of a class | runs | tuned | biases: mean change | worst | best | head: mean change | worst | best |\n|" + "---|" * 9)
    for size in sorted({one["size"] for one in records}):
        rows = [one for one in records if one["size"] == size]
        cells = [f"{size}", f"{len(rows)}", f"{statistics.mean(one[TUNED] for one in rows):.3f}"]
        for each in (BIASES, HEAD):
            changes = [one[each] - one[TUNED] for one in rows]
            error = statistics.stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else 0.0
            cells += [f"{statistics.mean(changes):+.4f} ± {error:.4f}", f"{min(changes):+.3f}", f"{max(changes):+.3f}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=CHOOSE, choices=CHOOSE, metavar="SET", help=", ".join(CHOOSE))
    parser.add_argument("--sizes", nargs="*", type=int, default=[4, 16], help="images of a class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("defaults-refit-bias.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    logging.getLogger("zoo").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    summary(kept(arguments.out, lambda records: results(arguments, records)))


if __name__ == "__main__":
    main()

"""Augmentation as the solved head judges it, and what the run has with it and without it.

A run of the default is judged by its own draw of augmented views; a second draw, of views and folds, is that of another seed on the same
samples. Accuracy is that of the test part, at most 600 samples of it. Results go to a file as they come, a line each, and a run that is
started again goes on behind them.

Run: python benchmarks/defaults/augmentation.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import MOST, SETS, SIZES, Samples
from probe import adapted, kept  # also finds the modules of benchmarks/ and sets the environment
from side_by_side import needed

from zoo.engine.options.recipe import Recipe
from zoo.engine.options.recipes import RECIPES
from zoo.engine.solved import augmentation_choice
from zoo.engine.solved.augmentation_choice import HeldOutLosses

PLACES = (
    "ants/bees,mobilenetv1_025",
    "X-rays,mobilenetv2_035",
    "CIFAR-10,mobilenetv2_035",
    "amazon,mobilenetv2_035",
    "digits,resnet20_cifar10",
    "digits,glyphnet",
    "CIFAR-100 (20),resnet20_cifar10",
    "MNIST,resnet20_cifar10",
    "MNIST,glyphnet",
    "PneumoniaMNIST,mobilenetv2_035",
    "PneumoniaMNIST,glyphnet",
)
judged: list[HeldOutLosses | None] = []


def record_judgements() -> None:
    """Keep the held-out losses by which runs of this process judge augmentation in ``judged``."""
    real = augmentation_choice.held_out_losses

    def recorded(*args: Any, **options: Any) -> HeldOutLosses | None:
        judged.append(real(*args, **options))
        return judged[-1]

    augmentation_choice.held_out_losses = recorded  # type: ignore[assignment]  # a function of the same arguments


def one_step() -> Recipe:
    """Return the default recipe with a single step of tuning, for a run whose judgement alone is wanted."""
    chosen = RECIPES["layer-decay"]
    return dataclasses.replace(chosen, phases=(chosen.phases[0], dataclasses.replace(chosen.phases[1], steps=1, least_steps=0)))


def place_result(place: str, size: str, draw: int, data: Path) -> dict[str, Any]:
    """Return the changes of the held-out loss in two draws of views, and the accuracies."""
    name, network = place.split(",")
    everything, test = SETS[name].load(data)
    test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
    train: Samples = everything.draw(SIZES[size], draw)

    def accuracy(*, seed: int = draw, **options: Any) -> float:
        model = adapted(network, train, data, draw)
        with tempfile.TemporaryDirectory() as out:
            model.fit(train.table, False, seed=seed, out=f"{out}/run", quiet=True, workers=0, **options)
        return round(float(model.evaluate(test.table)["accuracy"]), 4)

    judged.clear()
    own = accuracy()
    accuracy(seed=draw + 1, recipe=one_step())
    losses = [each for each in judged if each is not None]
    chosen, other = ("light", "none") if losses[0].helps else ("none", "light")
    found = {chosen: own, other: accuracy(augment=other), "head": accuracy(recipe="linear-probe")}
    changes = [round(each.with_views - each.without, 4) for each in losses]
    return {"place": place, "part": SETS[name].part, "size": size, "seed": draw, "changes": changes, "chosen": chosen, **found}


def results(arguments: argparse.Namespace, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a record per place that is not done yet."""
    done = {(one["place"], one["size"], one["seed"]) for one in records}
    for place in arguments.places:
        if (place, arguments.size, arguments.seed) not in done:
            yield place_result(place, arguments.size, arguments.seed, needed(arguments.data))


def summary(records: list[dict[str, Any]]) -> None:
    """Print a row per place; what the run chose is in bold."""
    print("| set | part | backbone | change | light | none | head alone |\n|---|---|---|---|---|---|---|")
    for one in records:
        name, network = one["place"].split(",")
        light, none = (f"**{one[each]:.3f}**" if each == one["chosen"] else f"{one[each]:.3f}" for each in ("light", "none"))
        changes = ", ".join(f"{change:+.3f}" for change in one["changes"])
        print(f"| {name} | {one['part']} | {network} | {changes} | {light} | {none} | {one['head']:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--places", nargs="*", default=list(PLACES), metavar="SET,BACKBONE")
    parser.add_argument("--size", default="16", choices=SIZES, help="samples of a class")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of samples")
    parser.add_argument("--out", type=Path, default=Path("defaults-augmentation.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    logging.getLogger("zoo").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    record_judgements()
    summary(kept(arguments.out, lambda records: results(arguments, records)))


if __name__ == "__main__":
    main()

"""FixMatch and FlexMatch beside the labels alone on small images of three hues. Prints a Markdown table.

An image is one hue with little noise, and its brightness varies. Nine images are labelled, three of each hue, all at the same brightness;
200 are unlabelled and 300 tested, at 0.3 to 1.7 times that brightness. In the ``even`` toy the noise of all hues is alike; in the
``hard`` one the noise of the first hue is four times as strong, so that many of its images look like those of the others.

Run: PYTHONPATH=. python benchmarks/flexmatch_toy.py
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.transfer.pictures import PIXELS, flat
from zoo.transfer import FixMatch, FlexMatch

NOISE = {"even": (0.015, 0.015, 0.015), "hard": (0.06, 0.015, 0.015)}  # standard deviation of each hue
STARTS: dict[str, dict[str, Any]] = {"random head": {"recipe": "full"}, "solved head": {}}
OPTIONS: dict[str, Any] = {"epochs": 24, "batch_size": 9, "lr": 3e-3, "augment": "none", "quiet": True, "workers": 0}
FIXED: dict[str, Any] = {"threshold": 0.8, "ratio": 5, "strength": 0}
METHODS: dict[str, Any] = {
    "labels": None,
    "FixMatch": lambda data: FixMatch(data, **FIXED),
    "`floor=0`": lambda data: FlexMatch(data, **FIXED, floor=0.0),
    "`floor=0.5`": lambda data: FlexMatch(data, **FIXED),
    "`floor=0.5`, `low_start=False`": lambda data: FlexMatch(data, **FIXED, low_start=False),
}


def hues(count: int, seed: int, noise: tuple[float, ...], low: float = 0.3, high: float = 1.7) -> tuple[Any, list[str]]:
    """Return images of three hues whose brightness is ``low`` to ``high`` times the usual."""
    random, targets = np.random.default_rng(seed), np.arange(count) % 3
    colours = 0.4 + 0.1 * np.eye(3)[targets] + np.asarray(noise)[targets, None] * random.normal(size=(count, 3))
    pixels = (colours * random.uniform(low, high, (count, 1)))[:, None, None] + 0.02 * random.normal(size=(count, PIXELS, PIXELS, 3))
    return (255 * pixels.clip(0, 1)).astype(np.uint8), [f"hue {number}" for number in targets]


def accuracy(toy: str, start: str, method: str, seed: int) -> float:
    """Return the accuracy on the test images."""
    noise, first = NOISE[toy], 1000 * seed
    unlabelled, make = hues(200, first + 50, noise)[0], METHODS[method]
    options = OPTIONS | STARTS[start] | ({} if make is None else {"objective": make(unlabelled)})
    model = flat().adapt(3, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        model.fit(hues(9, first, noise, 0.95, 1.05), False, out=Path(folder) / "run", seed=seed, **options)
    return float(model.evaluate(hues(300, first + 99, noise), quiet=True)["accuracy"])


def main() -> None:
    """Print the mean and the standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"| toy, start | {' | '.join(METHODS)} |\n|{'---|' * (len(METHODS) + 1)}")
    for toy in NOISE:
        for start in STARTS:
            found = [[accuracy(toy, start, method, seed) for seed in range(arguments.seeds)] for method in METHODS]
            print(f"| {toy}, {start} | {' | '.join(f'{np.mean(one):.3f} ± {np.std(one, ddof=1):.3f}' for one in found)} |", flush=True)


if __name__ == "__main__":
    main()

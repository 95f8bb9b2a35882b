"""The penalty of the solved head of a regression: of the lowest held-out loss, or the strongest within one standard error of it.

The numbers are the values of digits and, of sets with two classes, 0 and 1. Features are computed once for each set and backbone; beside
ours stands scikit-learn's RidgeCV on standardized features, with 17 penalties. Figures are R2 on at most 600 test samples.

Run: python benchmarks/defaults/regression.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import MOST, PLACES, SETS
from probe import POOL, adapted  # also finds the modules of benchmarks/ and sets the environment
from side_by_side import needed

from zoo.data.table import Table
from zoo.engine.solved.solved_head import solved_head
from zoo.tasks.find import find_task

MARGINS = {"one standard error": 1.0, "half of one": 0.5, "lowest loss": 0.0}
NUMBERS = ("ants/bees", "X-rays", "digits", "SMS spam", "MNIST", "PneumoniaMNIST", "SST-2")
SIZES = (20, 60, 200)
Array = np.ndarray[Any, Any]


def r2(predicted: Array, truth: Array) -> float:
    """Return the coefficient of determination."""
    return 1.0 - float(((predicted - truth) ** 2).mean() / truth.var())


def ours(features: Array, numbers: Array, groups: tuple[str, ...] | None, held: Array, margin: float, seed: int) -> Array:
    """Return what the solved head predicts, in the unit of the numbers."""
    mean, std = numbers.mean(), numbers.std()
    table = Table([*range(len(numbers))], ((numbers - mean) / std)[:, None].astype(np.float32), (), groups=groups)
    options: dict[str, Any] = {"outputs": 1, "bias": True, "device": torch.device("cpu"), "seed": seed, "poll": lambda: None}
    head = solved_head(torch.from_numpy(features), table, find_task("regression").loss, margin=margin, **options)
    assert head.bias is not None, "the head has a bias"
    return np.asarray((held @ head.weight.numpy().T + head.bias.numpy())[:, 0] * std + mean)


def ridge(features: Array, numbers: Array, held: Array) -> Array:
    """Return what RidgeCV predicts."""
    from sklearn.linear_model import RidgeCV  # type: ignore[import-untyped]  # ships no types
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    return np.asarray(make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 5, 17))).fit(features, numbers).predict(held))


def results(name: str, network: str, data: Path, seeds: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the number of samples and R2 by rule, for each size and draw."""
    everything, test = SETS[name].load(needed(data))
    test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
    pool = everything.select(np.sort(np.random.default_rng(6).permutation(len(everything))[:POOL]))
    model, names = adapted(network, pool, data, 0), sorted(set(pool.labels))
    features, held = (np.asarray(model.embed(part.inputs), np.float32) for part in (pool, test))
    numbers, truth = (np.array([float(names.index(label)) for label in part.labels]) for part in (pool, test))
    for size in SIZES:
        for seed in range(seeds):
            rows = np.random.default_rng(seed).permutation(len(pool))[:size]
            groups = None if pool.groups is None else tuple(pool.groups[row] for row in rows)
            given = features[rows], numbers[rows]
            found = {rule: r2(ours(*given, groups, held, margin, seed), truth) for rule, margin in MARGINS.items()}
            yield size, found | {"RidgeCV": r2(ridge(*given, held), truth)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=NUMBERS, choices=NUMBERS, metavar="SET", help=", ".join(NUMBERS))
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    columns = (*MARGINS, "RidgeCV")
    print(f"| set | part | backbone | samples | {' | '.join(columns)} |\n|{'---|' * (4 + len(columns))}")
    for name, network in ((each, network) for each in arguments.sets for network in PLACES[each]):
        found: dict[int, list[dict[str, float]]] = {}
        for size, scores in results(name, network, arguments.data, arguments.seeds):
            found.setdefault(size, []).append(scores)
        for size, draws in found.items():
            cells = " | ".join(f"{statistics.mean(draw[column] for draw in draws):.3f}" for column in columns)
            print(f"| {name} | {SETS[name].part} | {network} | {size} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

"""The penalty of the solved head with unequal classes: of the lowest held-out loss, or the strongest within one standard error of it.

A fifth of the classes, at least one, has many samples and the others have few, drawn by each seed; ``--weighted`` gives the loss the
balanced class weights. Features are computed once for each set and backbone. Figures are of at most 600 test samples, whose classes are
as the set has them. Results go to a file as they come, a line each, and a run that is started again goes on behind them.

Run: python benchmarks/defaults/imbalance.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import MOST, PLACES, SETS, Samples
from probe import POOL, adapted, kept  # also finds the modules of benchmarks/ and sets the environment
from side_by_side import needed

from zoo.data.table import Table
from zoo.engine.solved.solved_head import solved_head
from zoo.tasks.find import find_task

MARGINS = {"one standard error": 1.0, "half of one": 0.5, "lowest loss": 0.0}
SIZES = ((64, 16), (64, 8), (64, 4), (100, 10))  # samples of a common and of a rare class
PLACE = ("set", "backbone", "sizes", "seed", "weighted")  # fields that tell a record from the others
Array = np.ndarray[Any, Any]


def drawn(labels: Array, common: int, rare: int, seed: int) -> Array:
    """Return rows of samples of which a fifth of the classes has ``common`` and each other one ``rare``."""
    rng, classes = np.random.default_rng(seed), labels.max() + 1
    many = set(rng.permutation(classes)[: max(1, classes // 5)])
    rows = [rng.permutation(np.flatnonzero(labels == each))[: common if each in many else rare] for each in range(classes)]
    return np.concatenate(rows)


def balanced_accuracy(chosen: Array, truth: Array) -> float:
    """Return the mean share of right ones over the classes that occur."""
    return float(np.mean([(chosen[truth == each] == each).mean() for each in np.unique(truth)]))


def figures(features: Array, table: Table, held: Array, truth: Array, seed: int, *, weighted: bool) -> dict[str, list[float]]:
    """Return balanced accuracy and accuracy on the test samples, by the margin of the penalty."""
    found, classes = {}, len(table.classes)
    counts = np.bincount(np.asarray(table.targets), minlength=classes)
    weights = torch.tensor(len(table) / classes / counts, dtype=torch.float32) if weighted else None
    options: dict[str, Any] = {"outputs": classes, "bias": True, "device": torch.device("cpu"), "seed": seed, "poll": lambda: None}
    for name, margin in MARGINS.items():
        loss = partial(find_task("single-label").loss, weights=weights, smoothing=0.0)
        head = solved_head(torch.from_numpy(features), table, loss, margin=margin, **options)
        assert head.bias is not None, "the head has a bias"
        chosen = (held @ head.weight.numpy().T + head.bias.numpy()).argmax(1)
        found[name] = [round(value, 4) for value in (balanced_accuracy(chosen, truth), float((chosen == truth).mean()))]
    return found


def results(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per set, backbone, sizes and draw that is not done yet."""
    for name, network in ((each, network) for each in arguments.sets for network in PLACES[each]):
        wanted = [(f"{common} and {rare}", seed) for common, rare in SIZES for seed in range(arguments.seeds)]
        wanted = [place for place in wanted if (name, network, *place, arguments.weighted) not in done]
        if not wanted:
            continue
        everything, test = SETS[name].load(needed(arguments.data))
        test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
        pool = everything.select(np.sort(np.random.default_rng(6).permutation(len(everything))[:POOL]))
        model = adapted(network, pool, arguments.data, 0)
        features, held = (np.asarray(model.embed(part.inputs), np.float32) for part in (pool, test))
        labels, truth = (_numbers(part, sorted(set(pool.labels))) for part in (pool, test))
        for sizes, seed in wanted:
            common, rare = map(int, sizes.split(" and "))
            rows = drawn(labels, common, rare, seed)
            groups = None if pool.groups is None else tuple(pool.groups[row] for row in rows)
            table = Table([*range(len(rows))], labels[rows], tuple(sorted(set(pool.labels))), groups=groups)
            place = {"set": name, "part": SETS[name].part, "backbone": network, "sizes": sizes, "seed": seed}
            place |= {"weighted": arguments.weighted, "classes": len(table.classes)}
            yield place | figures(features[rows], table, held, truth, seed, weighted=arguments.weighted)


def _numbers(samples: Samples, names: list[str]) -> Array:
    """Return the number of each sample's class among the names."""
    return np.array([names.index(label) for label in samples.labels])


def summary(records: list[dict[str, Any]]) -> None:
    """Print a row per set: balanced accuracy of the usual rule, and what others change; then one per part and sizes."""
    usual, *others = MARGINS
    print(f"| set | part | weighted | runs | {usual} | {' | '.join(f'{each}: change | worst | accuracy' for each in others)} |")
    print(f"|{'---|' * (5 + 3 * len(others))}")
    for keys in (("set",), ("sizes",)):
        rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for record in records:
            rows.setdefault((", ".join(record[key] for key in keys), record["part"], str(record["weighted"])), []).append(record)
        for place, found in rows.items():
            cells = [str(len(found)), f"{statistics.mean(one[usual][0] for one in found):.3f}"]
            for each in others:
                changes, accuracy = ([one[each][figure] - one[usual][figure] for one in found] for figure in (0, 1))
                cells += [f"{statistics.mean(changes):+.4f}", f"{min(changes):+.3f}", f"{statistics.mean(accuracy):+.4f}"]
            print(f"| {' | '.join((*place, *cells))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    choosing = [name for name in SETS if SETS[name].part == "chooses"]
    parser.add_argument("--sets", nargs="*", default=choosing, choices=SETS, metavar="SET", help=", ".join(SETS))
    parser.add_argument("--weighted", action="store_true", help="balanced class weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("defaults-imbalance.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    summary(kept(arguments.out, lambda records: results(arguments, {tuple(map(each.get, PLACE)) for each in records})))


if __name__ == "__main__":
    main()

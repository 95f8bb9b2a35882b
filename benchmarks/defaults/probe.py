"""The solved head beside scikit-learn's LogisticRegressionCV on the same features, on every set, backbone and size of the matrix.

Features are computed once for each set and backbone, and the draws are rows of them. Ours is the head that ``linear-probe`` solves,
with its folds. The peer standardizes the features and chooses its penalty by accuracy in five stratified folds, grouped for X-rays;
"live features" is the peer without units whose deviation is below 1e-5 of the typical one, which standardization blows up. Training
samples are at most 1,500, test samples 600. Seconds are CPU seconds of one thread, without the features. Results go to a file as they
come, a line each, and a run that is started again goes on behind them.

Run: python benchmarks/defaults/probe.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from backbones import PIXELS, backbone
from matrix import MOST, PLACES, SETS, SIZES, Samples
from side_by_side import needed

import zoo
from zoo.data.table import Table
from zoo.engine.solved.solved_head import solved_head
from zoo.tasks.find import find_task

TOKENS, POOL = 128, 1500
DEAD = 1e-5  # of the typical deviation
PLACE = ("set", "backbone", "size", "seed")  # fields that tell a record from the others
Array = np.ndarray[Any, Any]


def adapted(name: str, samples: Samples, data: Path, seed: int) -> Any:
    """Return the model of a backbone for the classes of samples, at the size of the matrix."""
    labels = sorted(set(samples.labels))
    model = backbone(name, data).adapt(len(labels), labels=labels, seed=seed)
    shape: dict[str, Any] = {"max_length": TOKENS} if isinstance(model.inputs, zoo.Text) else {"size": PIXELS[name]}
    model.inputs = dataclasses.replace(model.inputs, **shape)
    return model


def ours(features: Array, train: Samples, held: Array, test: Samples, seed: int) -> tuple[float, float]:
    """Return accuracy and seconds of our solved head on features that are there already."""
    names = sorted(set(train.labels))
    groups = None if train.groups is None else tuple(train.groups)
    table = Table([*range(len(train))], np.array([*map(names.index, train.labels)]), tuple(names), groups=groups)
    loss, cpu = find_task("single-label").loss, torch.device("cpu")
    start = time.process_time()
    options: dict[str, Any] = {"outputs": len(names), "bias": True, "device": cpu, "seed": seed, "poll": lambda: None}
    head = solved_head(torch.from_numpy(features), table, loss, **options)
    seconds = time.process_time() - start
    assert head.bias is not None, "the head has a bias"
    chosen = (held @ head.weight.numpy().T + head.bias.numpy()).argmax(1)
    return float(np.mean([names[number] == label for number, label in zip(chosen, test.labels, strict=True)])), seconds


def peer(features: Array, train: Samples, held: Array, test: Samples, seed: int) -> tuple[float, float]:
    """Return accuracy and seconds of LogisticRegressionCV on features that are there already."""
    from sklearn.linear_model import LogisticRegressionCV  # type: ignore[import-untyped]  # ships no types
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    folds = min(5, min(map(train.labels.count, set(train.labels))))  # type: ignore[attr-defined]  # a list
    kind = StratifiedKFold if train.groups is None else StratifiedGroupKFold
    parts = [*kind(folds, shuffle=True, random_state=seed).split(features, train.labels, train.groups)]
    start = time.process_time()
    regression = make_pipeline(StandardScaler(), LogisticRegressionCV(cv=parts, max_iter=500)).fit(features, train.labels)
    return float(regression.score(held, test.labels)), time.process_time() - start


def place_results(name: str, network: str, arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per size and draw of a set and backbone that is not done yet."""
    everything, test = SETS[name].load(needed(arguments.data))
    test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
    pool = everything.select(np.sort(np.random.default_rng(6).permutation(len(everything))[:POOL]))
    smallest = min(map(list(pool.labels).count, set(pool.labels)))
    sizes = [size for size in arguments.sizes if SIZES[size] is None or smallest > SIZES[size]]
    wanted = [(size, seed) for size in sizes for seed in range(1 if SIZES[size] is None else arguments.seeds)]
    wanted = [(size, seed) for size, seed in wanted if (name, network, size, seed) not in done]
    if not wanted:
        return
    model = adapted(network, pool, arguments.data, 0)
    features, held = (np.asarray(model.embed(part.inputs), np.float32) for part in (pool, test))
    numbered = Samples(range(len(pool)), pool.labels, pool.groups)
    for size, seed in wanted:
        train = numbered.draw(SIZES[size], seed)
        own = features[list(train.inputs)]
        mine, theirs = (method(own, train, held, test, seed) for method in (ours, peer))
        deviations = own.std(0, dtype=np.float64)
        live = deviations > DEAD * np.sqrt((deviations**2).mean())
        awake = theirs if live[deviations > 0].all() else peer(own[:, live], train, held[:, live], test, seed)
        place = {"set": name, "part": SETS[name].part, "backbone": network, "size": size, "seed": seed, "samples": len(train)}
        scores = {"ours": mine[0], "peer": theirs[0], "peer_live": awake[0]}
        yield place | scores | {"seconds": round(mine[1], 3), "peer_seconds": round(theirs[1], 3)}


def results(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per set, backbone, size and draw that is not done yet."""
    for name in arguments.sets:
        for network in PLACES[name]:
            yield from place_results(name, network, arguments, done)


def kept(path: Path, results: Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the records of a file and those that ``results`` yields after them, each written as it comes."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    with path.open("a", encoding="utf-8") as file:
        for record in results(records):
            records.append(record)
            print(json.dumps(record), file=file, flush=True)
            print(f"  {record}", file=sys.stderr, flush=True)
    return records


def summary(records: list[dict[str, Any]]) -> None:
    """Print a row per set: means over draws, then over sizes and backbones; and a row per part and size."""
    print("| set | part | rows | ours | LogisticRegressionCV | difference | live features | CPU seconds | of the peer |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        rows.setdefault(tuple(record[key] for key in ("part", "set", "backbone", "size")), []).append(record)
    keys = ("ours", "peer", "peer_live", "seconds", "peer_seconds")
    means = {place: {key: statistics.mean(one[key] for one in found) for key in keys} for place, found in rows.items()}

    def line(title: str, found: list[dict[str, float]]) -> None:
        mine, theirs, live, seconds, peer_seconds = (statistics.mean(one[key] for one in found) for key in keys)
        scores = f"{mine:.4f} | {theirs:.4f} | {mine - theirs:+.4f} | {live:.4f}"
        print(f"| {title} | {len(found)} | {scores} | {seconds:.2f} | {peer_seconds:.2f} |")

    for part, name in dict.fromkeys(place[:2] for place in means):
        line(f"{name} | {part}", [one for place, one in means.items() if place[:2] == (part, name)])
    for part, size in dict.fromkeys((place[0], place[3]) for place in means):
        line(f"{size} of a class | {part}", [one for place, one in means.items() if (place[0], place[3]) == (part, size)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS, metavar="SET", help=", ".join(SETS))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=SIZES, help="samples of a class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("defaults-probe.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    summary(kept(arguments.out, lambda records: results(arguments, {tuple(map(each.get, PLACE)) for each in records})))


if __name__ == "__main__":
    main()

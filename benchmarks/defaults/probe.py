"""The linear probe beside scikit-learn's LogisticRegressionCV on the same features, on every set, backbone and size of the matrix.

Ours is ``fit(recipe="linear-probe")``; the peer standardizes the features of ``embed`` and chooses its penalty by accuracy in five
stratified folds, grouped for X-rays. Seconds are CPU seconds of one thread; ours include the features, the peer's do not. Results
go to a file as they come, a line each, and a run that is started again goes on behind them.

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
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from backbones import IMAGES, PIXELS, TEXTS, backbone
from matrix import SETS, SIZES, Samples
from side_by_side import needed

import zoo

TOKENS = 128
PLACE = ("set", "backbone", "size", "seed")  # fields that tell a record from the others


def adapted(name: str, samples: Samples, data: Path, seed: int) -> Any:
    """Return the model of a backbone for the classes of samples, at the size of the matrix."""
    labels = sorted(set(samples.labels))
    model = backbone(name, data).adapt(len(labels), labels=labels, seed=seed)
    shape: dict[str, Any] = {"max_length": TOKENS} if isinstance(model.inputs, zoo.Text) else {"size": PIXELS[name]}
    model.inputs = dataclasses.replace(model.inputs, **shape)
    return model


def ours(model: Any, train: Samples, test: Samples, seed: int) -> tuple[float, float]:
    """Return accuracy and seconds of our linear probe."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        model.fit(train.table, False, recipe="linear-probe", seed=seed, out=f"{out}/run", quiet=True)
    return model.evaluate(test.table)["accuracy"], time.process_time() - start


def peer(features: np.ndarray[Any, Any], train: Samples, held: np.ndarray[Any, Any], test: Samples, seed: int) -> tuple[float, float]:
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


def results(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per set, backbone, size and seed that is not done yet."""
    for name in arguments.sets:
        entry = SETS[name]
        everything, test = entry.load(needed(arguments.data))
        smallest = min(map(list(everything.labels).count, set(everything.labels)))
        for network in [each for each in arguments.backbones if (each in TEXTS) == (entry.reads == "text")]:
            held = None
            for size in arguments.sizes:
                most = SIZES[size]
                for seed in range(1 if most is None else arguments.seeds):
                    if (name, network, size, seed) in done or (most and smallest <= most):
                        continue
                    train = everything.draw(most, seed)
                    model = adapted(network, everything, arguments.data, seed)
                    held = model.embed(test.inputs) if held is None else held
                    theirs = peer(model.embed(train.inputs), train, held, test, seed)
                    mine = ours(model, train, test, seed)
                    place = {"set": name, "part": entry.part, "backbone": network, "size": size, "seed": seed, "samples": len(train)}
                    yield place | {"ours": mine[0], "peer": theirs[0], "seconds": round(mine[1], 2), "peer_seconds": round(theirs[1], 2)}


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
    """Print a row per set and backbone, means over sizes and seeds, then the difference over each part of the sets."""
    print("| set | part | backbone | runs | ours | LogisticRegressionCV | difference | CPU seconds, with features |")
    print("|---|---|---|---|---|---|---|---|")
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        rows.setdefault((record["set"], record["part"], record["backbone"]), []).append(record)
    for (name, part, network), found in rows.items():
        mine, theirs, seconds = (statistics.mean(each[key] for each in found) for key in ("ours", "peer", "seconds"))
        print(f"| {name} | {part} | {network} | {len(found)} | {mine:.3f} | {theirs:.3f} | {mine - theirs:+.3f} | {seconds:.1f} |")
    for part in ("chooses", "reports"):
        differences = [each["ours"] - each["peer"] for each in records if each["part"] == part]
        if differences:
            print(f"\n{part}: mean difference {statistics.mean(differences):+.4f} over {len(differences)} runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS, metavar="SET", help=", ".join(SETS))
    parser.add_argument("--backbones", nargs="*", default=[*IMAGES, *TEXTS], choices=[*IMAGES, *TEXTS], metavar="NAME")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=SIZES, help="samples of a class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("defaults-probe.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    summary(kept(arguments.out, lambda records: results(arguments, {tuple(map(each.get, PLACE)) for each in records})))


if __name__ == "__main__":
    main()

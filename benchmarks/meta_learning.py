"""Learning to be adapted: features after training by episodes, judged by episodes of classes that were not trained on. A Markdown table.

glyphnet, whose pretraining (letters) says little of photos, trains on the 1,000 images of twenty classes of CIFAR-100, at 28 pixels: not
at all, on their labels (``full``), and by the episodes of ANIL and MAML with the same number of epochs. Then 600 episodes of five of
the ten classes of CIFAR-10, with 1 and 5 samples of a class, 15 queries of a class, and class means of centred features of length one.

Run: python benchmarks/meta_learning.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sets import Samples, few, images
from side_by_side import needed

import zoo
from zoo.transfer import Maml
from zoo.transfer.fewshot.episodes import Draw, scores
from zoo.transfer.fewshot.few_shot import features_of, opened
from zoo.transfer.fewshot.heads import head_named

SHOTS = (1, 5)
METHODS: Mapping[str, dict[str, Any] | None] = {
    "as it is": None,
    "labels": {"recipe": "full"},
    "ANIL": {"objective": Maml()},
    "MAML, last group, first order": {"objective": Maml(adapt_groups=1, order="first", inner_steps=3, tasks=1)},
}


def known_classes(data: Path) -> Samples:
    """Return the training images of the twenty classes of CIFAR-100."""
    folder = needed(data / "images/cifar100_20").resolve()
    table = pd.read_csv(folder / "index.csv")
    table = table[table["split"] == "train"]
    return [str(folder / name) for name in table["file_name"]], list(table["label"])


def accuracies(method: str, seed: int, data: Path, epochs: int) -> tuple[list[float], float]:
    """Return the mean accuracy for each number of shots, and the CPU seconds of training."""
    known = known_classes(data)
    model = zoo.get("zoo/glyphnet").adapt(len(set(known[1])), seed=seed)
    start, options = time.process_time(), METHODS[method]
    if options is not None:
        with tempfile.TemporaryDirectory() as folder:
            how: dict[str, Any] = {"epochs": epochs, "seed": seed, "quiet": True, "workers": 0, "batch_size": 100, "augment": "none"}
            model.fit(known, False, out=Path(folder) / "run", **options, **how)
    seconds = time.process_time() - start
    parts = [few((list(part["file_name"]), list(part["label"])), 50, 0) for part in images("CIFAR-10", data)]
    support = opened(model, parts[0], {}, labelled=True)
    tables = (support, opened(model, parts[1], {}, labelled=True, classes=support.classes))
    features, classes = features_of(model, tables, {}), [np.asarray(table.targets) for table in tables]
    head = head_named("simpleshot", quick=True)
    return [float(np.mean(scores(head, features, classes, Draw(ways=5, shots=shots)))) for shots in SHOTS], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS, metavar="METHOD", help="; ".join(METHODS))
    parser.add_argument("--epochs", type=int, default=12, help="of each training, the solved heads of ANIL and MAML among them")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    print(f"| features | {' | '.join(f'{shots} of a class' for shots in SHOTS)} | CPU seconds |\n|---|---|---|---|")
    for method in arguments.methods:
        runs = [
            accuracies(method, seed, arguments.data, arguments.epochs) for seed in range(1 if METHODS[method] is None else arguments.seeds)
        ]
        print(runs, file=sys.stderr)
        columns = list(zip(*(found for found, _ in runs), strict=True))
        cells = [f"{np.mean(each):.3f}" + (f" ± {np.std(each, ddof=1):.3f}" if len(each) > 1 else "") for each in columns]
        print(f"| {method} | {' | '.join(cells)} | {statistics.mean(seconds for _, seconds in runs):.0f} |", flush=True)


if __name__ == "__main__":
    main()

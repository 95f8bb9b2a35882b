"""Probing and fine-tuning on texts, beside Hugging Face Trainer on the same model, data and epochs. Prints a Markdown table.

The model is all-MiniLM-L6-v2 with its real weights. Of each set the first ``--limit`` shuffled training samples and the first
``--test`` of the held-out ones are taken, the same for both sides. Trainer runs with ordinary settings: learning rate 5e-5,
batches of 16 padded to their longest, full fine-tuning, the last epoch. Ours takes the last epoch too (``valid=False``). Run it with
OMP_NUM_THREADS=1: seconds are CPU seconds of one thread, so that other programs on the machine do not count.

Run: python benchmarks/transfer_texts.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers import fit, trainer_on_texts
from sets import TEXTS, WORDS, Samples, text_model, texts

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

MAX_LENGTH = 128
BATCH = 16


def ours(train: Samples, test: Samples, words: bool, options: dict[str, Any], seed: int) -> tuple[float, float]:
    import zoo

    labels = sorted({tag for row in train[1] for tag in row} if words else set(train[1]))
    model = zoo.get(text_model()).adapt(len(labels), task="token-classification" if words else "single-label", labels=labels, seed=seed)
    metrics, seconds = fit(model, train, test, seed=seed, batch_size=BATCH, max_length=MAX_LENGTH, **options)
    return metrics["f1" if words else "accuracy"], seconds


def peer(train: Samples, test: Samples, words: bool, epochs: int, seed: int) -> tuple[float, float]:
    sizes = {"per_device_train_batch_size": BATCH, "num_train_epochs": epochs}
    return trainer_on_texts(text_model(), train, test, words=words, max_length=MAX_LENGTH, seed=seed, **sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(TEXTS), choices=list(TEXTS))
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| data | method | accuracy (NCBI: entity F1) | CPU seconds of training |\n|---|---|---|---|")
    for name in arguments.sets:
        train, test = texts(name, arguments.data, arguments.limit, arguments.test)
        words = name in WORDS
        methods: dict[str, Callable[[int], tuple[float, float]]] = {
            "zoo, linear-probe": lambda seed: ours(train, test, words, {"recipe": "linear-probe"}, seed),  # noqa: B023
            "zoo, default": lambda seed: ours(train, test, words, {"epochs": arguments.epochs}, seed),  # noqa: B023
            "zoo, full, lr=1e-4": lambda seed: ours(train, test, words, {"recipe": "full", "lr": 1e-4, "epochs": arguments.epochs}, seed),  # noqa: B023
            "Trainer": lambda seed: peer(train, test, words, arguments.epochs, seed),  # noqa: B023
        }
        for method, run in methods.items():
            if "full" in method and not words:
                continue
            results = [run(seed) for seed in range(arguments.seeds)]
            score, seconds = (statistics.mean(column) for column in zip(*results, strict=True))
            print(f"| {name} | {method} | {score:.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""Monitors compared: the metric on few validation samples of unequal classes that keeps the epoch which is best on many others.

Small networks learn noisy digits, of which one class is rare (or, with five classes, one is common). After each epoch the validation
samples, a quarter of the training ones, give each metric; ties go to the lower loss, as in ``fit``. The figures are those of the kept
epochs on the rest of the digits, means over the draws. No model of ours takes part.

Run: python benchmarks/defaults/monitor.py
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # ships no types
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, roc_auc_score  # type: ignore[import-untyped]
from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

EPOCHS, BATCH, NOISE = 25, 16, 0.6
# Training samples of each class; the first class of two is all digits but one.
CASES = {"two classes, 5 % rare": (160, 8), "two classes, 12 % rare": (160, 21), "five classes, 71 % common": (120, 12, 12, 12, 12)}
Arrays = tuple[Any, Any]


def drawn(sizes: tuple[int, ...], seed: int) -> tuple[Arrays, Arrays, Arrays]:
    """Return training, validation and test digits with noise, scaled by the training ones."""
    source = np.random.default_rng(seed)
    pixels, digits = load_digits(return_X_y=True)
    classes = source.permutation(10)[: len(sizes)]
    if len(sizes) == 2:
        labels = (digits == classes[1]).astype(int)
    else:
        labels = np.full(len(digits), -1)
        for number, digit in enumerate(classes):
            labels[digits == digit] = number
    noisy = pixels + NOISE * pixels.std(0) * source.normal(size=pixels.shape)
    parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for number, size in enumerate(sizes):
        rows, held = source.permutation(np.flatnonzero(labels == number)), max(2, size // 4)
        for part, chosen in zip(parts, np.split(rows, [size, size + held]), strict=True):
            part.append(chosen)
    train, valid, test = map(np.concatenate, parts)
    scaler = StandardScaler().fit(noisy[train])
    return tuple((scaler.transform(noisy[rows]), labels[rows]) for rows in (train, valid, test))  # type: ignore[return-value]  # three


def metrics(probabilities: Any, truth: Any) -> dict[str, float]:
    """Return the metrics that may choose, and macro F1."""
    guessed, many = probabilities.argmax(1), probabilities.shape[1] > 2
    return {
        "accuracy": accuracy_score(truth, guessed),
        "balanced_accuracy": balanced_accuracy_score(truth, guessed),
        "auroc": roc_auc_score(truth, probabilities if many else probabilities[:, 1], multi_class="ovr"),
        "loss": log_loss(truth, probabilities, labels=range(probabilities.shape[1])),
        "macro_f1": f1_score(truth, guessed, average="macro"),
    }


def epochs(sizes: tuple[int, ...], seed: int) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Yield the metrics of each epoch on validation and on test samples."""
    (x, y), valid, test = drawn(sizes, seed)
    source = np.random.default_rng(seed)
    network = MLPClassifier((32,), learning_rate_init=3e-3, random_state=seed)
    for _ in range(EPOCHS):
        order = source.permutation(len(y))
        for rows in np.array_split(order, -(-len(order) // BATCH)):
            network.partial_fit(x[rows], y[rows], classes=range(len(sizes)))
        yield metrics(network.predict_proba(valid[0]), valid[1]), metrics(network.predict_proba(test[0]), test[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    shown = ("balanced_accuracy", "auroc", "macro_f1")
    print(f"| training samples | epoch kept by | {' | '.join(shown)} |\n|---|---|---|---|---|")
    for name, sizes in CASES.items():
        runs = [[*epochs(sizes, seed)] for seed in range(arguments.draws)]
        for monitor in ("accuracy", "balanced_accuracy", "auroc"):
            kept = [max(run, key=lambda each: (each[0][monitor], -each[0]["loss"]))[1] for run in runs]
            print(f"| {name} | {monitor} | {' | '.join(f'{np.mean([each[key] for each in kept]):.3f}' for key in shown)} |", flush=True)


if __name__ == "__main__":
    main()

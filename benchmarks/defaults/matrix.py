"""The sets of the matrix, each with its part: half of them choose the defaults, the other half only report.

The parts were fixed before the first number, and are not to be changed: an accuracy is claimed on reporting sets only. Sets whose
training split is small hold out a third of it by a fixed seed; X-rays never share a patient between training and test.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

Part = Literal["chooses", "reports"]


@dataclass(frozen=True)
class Samples:
    """Labelled samples.

    Attributes:
        inputs: Paths, arrays of pixels or texts.
        labels: The class of each.
        groups: The patient of each, or None.
    """

    inputs: Sequence[Any]
    labels: Sequence[str]
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Samples:
        """Return some of the samples, in this order."""
        inputs, labels = [self.inputs[row] for row in rows], [self.labels[row] for row in rows]
        return Samples(inputs, labels, None if self.groups is None else [self.groups[row] for row in rows])

    def draw(self, per_class: int | None, seed: int) -> Samples:
        """Return at most ``per_class`` samples of each class, drawn by a seed; all of them for None."""
        if per_class is None:
            return self
        order = np.random.default_rng(seed).permutation(len(self))
        labels = np.asarray(self.labels)[order]
        return self.select(np.sort(np.concatenate([order[labels == name][:per_class] for name in np.unique(labels)])))

    @property
    def table(self) -> Any:
        """The samples as ``fit`` and ``evaluate`` take them: a table with the group, or a pair."""
        if self.groups is None:
            return self.inputs, self.labels
        return pd.DataFrame({"file_name": self.inputs, "label": self.labels, "group": self.groups})


@dataclass(frozen=True)
class Entry:
    """A set of the matrix.

    Attributes:
        part: Whether it chooses the defaults or only reports.
        reads: ``image`` or ``text``.
        load: From the folder ../shared/data to training and test samples.
    """

    part: Part
    reads: Literal["image", "text"]
    load: Callable[[Path], tuple[Samples, Samples]]


def _index(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "index.csv", dtype=str).rename(columns={"file": "file_name"})
    return table.assign(file_name=[str(folder / name) for name in table["file_name"]])


def _samples(table: pd.DataFrame, group: str = "") -> Samples:
    return Samples([*table["file_name"]], [*table["label"]], [*table[group]] if group else None)


def _by_split(place: str, test: str) -> Callable[[Path], tuple[Samples, Samples]]:
    def load(data: Path) -> tuple[Samples, Samples]:
        table = _index(data / "images" / place)
        return _samples(table[table["split"] == "train"]), _samples(table[table["split"] == test])

    return load


def _office(*domains: str) -> Callable[[Path], tuple[Samples, Samples]]:
    def load(data: Path) -> tuple[Samples, Samples]:
        table = _index(data / "images" / "office_caltech10")
        return _divided(_samples(table[table["domain"].isin(domains)]))

    return load


def _divided(samples: Samples) -> tuple[Samples, Samples]:
    order = np.random.default_rng(0).permutation(len(samples))
    return samples.select(order[len(order) // 3 :]), samples.select(order[: len(order) // 3])


def _x_rays(data: Path) -> tuple[Samples, Samples]:
    table = _index(data / "medical" / "chest_xray_covid")
    table = table[table["label"] != "Covid-19"]  # whose images come from other sources
    held = table["group_fold"] == "0"
    return _samples(table[~held], "patient_id"), _samples(table[held], "patient_id")


def _pneumonia(data: Path) -> tuple[Samples, Samples]:
    held = np.load(data / "medical" / "pneumoniamnist" / "pneumoniamnist.npz")
    first, second = ((held[f"{part}_images"], held[f"{part}_labels"][:, 0].astype(str)) for part in ("train", "test"))
    return Samples(list(first[0][:2000]), list(first[1][:2000])), Samples(list(second[0]), list(second[1]))


def _mnist(data: Path) -> tuple[Samples, Samples]:
    folder = data / "images" / "mnist_test"
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8).astype(str)
    images = pixels.reshape(-1, 28, 28)
    return Samples(list(images[:2000]), list(labels[:2000])), Samples(list(images[5000:6000]), list(labels[5000:6000]))


def _digits(_: Path) -> tuple[Samples, Samples]:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # ships no types

    held = load_digits()
    return _divided(Samples(list((held.images * 15.9).astype(np.uint8)), list(held.target.astype(str))))


def _texts(place: str, test: str) -> Callable[[Path], tuple[Samples, Samples]]:
    def load(data: Path) -> tuple[Samples, Samples]:
        parts = []
        for file, most, seed in (("train.tsv", 1000, 0), (test, 500, 1)):
            table = pd.read_csv(data / "text" / place / file, sep="\t", quoting=3, dtype=str, keep_default_na=False)
            rows = np.random.default_rng(seed).permutation(len(table))[:most]
            parts.append(Samples([*table["text"].iloc[rows]], [*table["label"].iloc[rows]]))
        return parts[0], parts[1]

    return load


SETS = {
    "ants/bees": Entry("chooses", "image", _by_split("hymenoptera", "val")),
    "CIFAR-10": Entry("chooses", "image", _by_split("cifar10", "test")),
    "amazon": Entry("chooses", "image", _office("amazon")),
    "X-rays": Entry("chooses", "image", _x_rays),
    "digits": Entry("chooses", "image", _digits),
    "SMS spam": Entry("chooses", "text", _texts("sms_spam", "test.tsv")),
    "TREC": Entry("chooses", "text", _texts("trec", "test.tsv")),
    "CIFAR-100 (20)": Entry("reports", "image", _by_split("cifar100_20", "test")),
    "caltech": Entry("reports", "image", _office("caltech10")),
    "webcam and dslr": Entry("reports", "image", _office("webcam", "dslr")),
    "MNIST": Entry("reports", "image", _mnist),
    "PneumoniaMNIST": Entry("reports", "image", _pneumonia),
    "SST-2": Entry("reports", "text", _texts("sst2", "dev.tsv")),
    "AG News": Entry("reports", "text", _texts("ag_news_test_subset", "test.tsv")),
}
SIZES = {"4": 4, "16": 16, "64": 64, "all": None}
MOST = 600  # test samples that are read
PLACES: Mapping[str, tuple[str, ...]] = {
    "ants/bees": ("mobilenetv2_100", "mobilenetv1_025"),
    "CIFAR-10": ("mobilenetv2_100", "mobilenetv2_035"),
    "amazon": ("mobilenetv2_100", "mobilenetv2_035"),
    "X-rays": ("mobilenetv2_100", "mobilenetv2_035"),
    "digits": ("glyphnet", "resnet20_cifar10"),
    "SMS spam": ("minilm",),
    "TREC": ("minilm",),
    "CIFAR-100 (20)": ("resnet20_cifar10", "vit_cifar10"),
    "caltech": ("mobilenetv2_100", "mobilenetv2_035"),
    "webcam and dslr": ("mobilenetv2_100", "mobilenetv1_025"),
    "MNIST": ("glyphnet", "resnet20_cifar10"),
    "PneumoniaMNIST": ("mobilenetv2_035", "glyphnet"),
    "SST-2": ("minilm",),
    "AG News": ("minilm",),
}

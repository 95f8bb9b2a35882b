"""Self-supervised and semi-supervised learning with 10 labels per class, the rest unlabelled. Prints a Markdown table.

CIFAR-10 and X-rays (Pneumonia against No_findings) by MobileNetV2-0.35 at 64 pixels, CIFAR-10 by the ResNet-20 from random values, AG News
by all-MiniLM-L6-v2. The unlabelled data are at most ``--most`` samples of the training split. Each number is the accuracy on at most
``--test`` samples of the test split, a mean over ``--seeds`` draws of the labels with its standard deviation: ``probe`` is a linear head
solved on them, ``labels`` the default recipe on the labels alone, ``fixmatch`` and ``flexmatch`` the same beside the unlabelled samples
(of texts with words deleted and swapped in the strong view);
``pretrained-probe`` and ``pretrained`` are the first two after pretraining on these (SimCLR, of texts masked language modelling).

Every run is a line of ``--out`` as soon as it is done, and a second call goes on where the first one stopped.

Run: python benchmarks/few_labels.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent / "defaults"))

import numpy as np
import PIL.Image
import torch
from backbones import CENTRED, CifarResNet, backbone
from probe import kept
from sets import Samples, few, images, texts

import zoo
from zoo.transfer import FixMatch, FlexMatch, Pretrained, pretrain
from zoo.transfer.pretraining.pretrain import VIEWS

LABELS = 10
SEMI = {"fixmatch": FixMatch, "flexmatch": FlexMatch}
METHODS = ("probe", "pretrained-probe", "labels", "pretrained", *SEMI)
PLACE = ("set", "method", "seed")


@dataclass(frozen=True)
class Case:
    """A data set and the backbone for it.

    Attributes:
        data: Name of the data.
        backbone: Name of the backbone; ``random`` is the ResNet-20 from random values.
        pixels: Side of the images; 0 for texts.
        epochs: Of pretraining.
        flip: How often images are flipped; None for what the run takes by itself.
    """

    data: str
    backbone: str
    pixels: int
    epochs: int
    flip: float | None = None

    @property
    def pretraining(self) -> str:
        """The method of pretraining."""
        return "simclr" if self.pixels else "mlm"


SETS = {
    "CIFAR-10": Case("CIFAR-10", "mobilenetv2_035", 64, 3),
    "X-rays": Case("X-rays", "mobilenetv2_035", 64, 3, flip=0.0),
    "AG News": Case("AG News", "minilm", 0, 2),
    "CIFAR-10 from random values": Case("CIFAR-10", "random", 32, 10),
}


@cache
def network(case: Case, data: Path) -> zoo.Backbone:
    """Return the backbone of a case."""
    if case.backbone != "random":
        return backbone(case.backbone, data)
    torch.manual_seed(0)
    return zoo.wrap(CifarResNet(), inputs=zoo.Image(size=32, **CENTRED), pretrained=False, name="resnet20")


@cache
def opened(case: Case, data: Path, most: int, test: int) -> tuple[Samples, Samples]:
    """Return training and test samples with their labels; images as pixels of the side that they are read at, so decoded once."""
    if not case.pixels:
        return texts(case.data, data, most, test)
    parts = images(case.data, data)
    rows = [part.sample(min(count, len(part)), random_state=0) for part, count in zip(parts, (most, test), strict=True)]
    first, second = [([shrunk(file, case.pixels) for file in part["file_name"]], list(part["label"])) for part in rows]
    return first, second


def shrunk(file: str, side: int) -> Any:
    """Return the pixels of an image at a side."""
    with PIL.Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((side, side), PIL.Image.Resampling.BICUBIC))


@cache
def further(case: Case, data: Path, most: int, test: int, folder: Path) -> tuple[Pretrained, float]:
    """Return the result of pretraining on the unlabelled samples, below a folder, and its CPU seconds."""
    start, inputs = time.process_time(), opened(case, data, most, test)[0][0]
    options = sized(case) | flipped(case, VIEWS) | {"epochs": case.epochs, "quiet": True}
    found = pretrain(network(case, data), inputs, case.pretraining, out=Path(tempfile.mkdtemp(dir=folder)) / "more", **options)
    return found, time.process_time() - start


def sized(case: Case) -> dict[str, Any]:
    """Return the size of the images."""
    return {"image_size": case.pixels} if case.pixels else {}


def flipped(case: Case, views: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the augmentation where the case says how often images are flipped: that, with the other fields of ``views``."""
    return {} if case.flip is None else {"augment": {**(views or {}), "flip": case.flip}}


def measured(case: Case, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the accuracy of a run, its CPU seconds without those of pretraining, and what pretraining was."""
    given = (case, arguments.data, arguments.most, arguments.test)
    (train, held), start_from = opened(*given), network(case, arguments.data)
    told: dict[str, Any] = {}
    if method.startswith("pretrained"):
        found, seconds = further(*given, arguments.folder)
        start_from, meter = found.backbone, found.run.metrics
        told = {"feature_std": meter["feature_std"], "effective_rank": meter["effective_rank"], "pretraining_seconds": seconds}
    options: dict[str, Any] = sized(case) | flipped(case)
    if method.endswith("probe"):
        options = sized(case) | {"recipe": "linear-probe", "augment": "none"}
    elif arguments.epochs:
        options["epochs"] = arguments.epochs
    if method in SEMI:
        options["objective"] = SEMI[method](train[0], ratio=arguments.ratio)
    labelled, start = few(train, LABELS, seed), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = start_from.adapt(len(set(train[1])), seed=seed)
        model.fit(labelled, False, out=Path(folder) / "r", quiet=True, seed=seed, **options)
        fitted = time.process_time() - start
        return {"accuracy": model.evaluate(held, quiet=True)["accuracy"], "seconds": fitted} | told


def results(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per seed, set and method that is not done yet."""
    for seed in range(arguments.seeds):
        for name in arguments.sets:
            for method in arguments.methods:
                if (name, method, seed) in done:
                    continue
                yield {"set": name, "method": method, "seed": seed} | measured(SETS[name], method, seed, arguments)


def summary(records: list[dict[str, Any]]) -> None:
    """Print a row per set."""
    print(f"| data, backbone | {' | '.join(METHODS)} | draws |\n|{'---|' * (len(METHODS) + 2)}")
    for name in dict.fromkeys(record["set"] for record in records):
        of_set = [record for record in records if record["set"] == name]
        values = [[record["accuracy"] for record in of_set if record["method"] == method] for method in METHODS]
        print(f"| {name}, {SETS[name].backbone} | {' | '.join(map(mean, values))} | {max(map(len, values))} |")
        seconds = {method: [record["seconds"] for record in of_set if record["method"] == method] for method in METHODS}
        meter = next((record for record in of_set if "feature_std" in record), None)
        told = [f"{method} {np.mean(each):.0f}" for method, each in seconds.items() if each]
        if meter:
            told += [f"pretraining {meter['pretraining_seconds']:.0f} (feature_std {meter['feature_std']:.3f})"]
        print(f"  CPU seconds of {name}: {', '.join(told)}", file=sys.stderr)


def mean(values: list[float]) -> str:
    """Return a mean, with the standard deviation of several values."""
    if not values:
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS, metavar="SET", help="; ".join(SETS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--most", type=int, default=500, help="unlabelled samples")
    parser.add_argument("--test", type=int, default=300, help="test samples")
    parser.add_argument("--ratio", type=int, default=1, help="unlabelled samples of a batch for each labelled one")
    parser.add_argument("--epochs", type=int, help="of a run, but of a probe; else those of the recipe, which are more for few labels")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("few-labels.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = Path(folder)
        summary(kept(arguments.out, lambda records: results(arguments, {tuple(map(each.get, PLACE)) for each in records})))


if __name__ == "__main__":
    main()

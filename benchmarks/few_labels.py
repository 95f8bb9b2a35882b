"""Self-supervised and semi-supervised learning with 10 labels per class, the rest unlabelled. Prints a Markdown table.

CIFAR-10 and X-rays (Pneumonia against No_findings) by MobileNetV2-0.35 at 96 pixels, AG News by all-MiniLM-L6-v2. The unlabelled data
are the training split, at most ``--most`` samples. Each number is the test accuracy, a mean over ``--seeds`` draws of the labels with its
standard deviation: of a linear head that is solved on them, before and after pretraining on the unlabelled data, of the default recipe on
the labels alone, and of the same beside FixMatch and FlexMatch.

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
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent / "defaults"))

import numpy as np
import PIL.Image
import torch
from backbones import backbone
from sets import few, images, texts

import zoo
from zoo.transfer import FixMatch, FlexMatch, pretrain

LABELS, PIXELS = 10, 96
SETS = {"CIFAR-10": "mobilenetv2_035", "X-rays": "mobilenetv2_035", "AG News": "minilm"}
SEMI = {"fixmatch": FixMatch, "flexmatch": FlexMatch}
COLUMNS = ("data, backbone", "probe", "pretraining", "probe after", "feature_std", "fine-tuned", *SEMI, "CPU seconds")
Samples = tuple[list[Any], list[Any]]


def opened(name: str, data: Path, most: int, test: int) -> tuple[Samples, Samples]:
    """Return training and test samples with their labels."""
    if name == "AG News":
        return texts(name, data, most, test)
    parts = images(name, data)
    rows = [part.sample(min(count, len(part)), random_state=0) for part, count in zip(parts, (most, test), strict=True)]
    return tuple(([shrunk(file) for file in part["file_name"]], list(part["label"])) for part in rows)  # type: ignore[return-value]  # of two


def shrunk(file: str) -> Any:
    """Return the pixels of an image at ``PIXELS`` a side, so that X-rays are decoded once."""
    with PIL.Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((PIXELS, PIXELS), PIL.Image.Resampling.BICUBIC))


def accuracies(network: zoo.Backbone, train: Samples, held: Samples, seeds: int, **options: Any) -> list[float]:
    """Return the test accuracies of models that were fitted to few labels."""
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            model = network.adapt(len(set(train[1])), seed=seed)
            model.fit(few(train, LABELS, seed), False, out=Path(folder) / "r", quiet=True, seed=seed, **options)
            found.append(model.evaluate(held, quiet=True)["accuracy"])
    return found


def row(name: str, arguments: argparse.Namespace) -> list[str]:
    """Return the cells of a data set."""
    start, network = time.process_time(), backbone(SETS[name], arguments.data)
    train, held = opened(name, arguments.data, arguments.most, arguments.test)
    is_text = name == "AG News"
    sized: dict[str, Any] = {} if is_text else {"image_size": PIXELS}
    flip: dict[str, Any] = {"flip": 0.0} if name == "X-rays" else {}
    probe = {"recipe": "linear-probe", "augment": "none", **sized}
    cells = [mean(accuracies(network, train, held, arguments.seeds, **probe))]
    method = "mlm" if is_text else "simclr"
    with tempfile.TemporaryDirectory() as folder:
        epochs = max(1, arguments.epochs // 3) if is_text else arguments.epochs
        found = pretrain(network, train[0], method, out=Path(folder) / "more", epochs=epochs, quiet=True, **sized)
        cells += [
            method,
            mean(accuracies(found.backbone, train, held, arguments.seeds, **probe)),
            f"{found.run.metrics['feature_std']:.3f}",
        ]
    cells.append(mean(accuracies(network, train, held, arguments.seeds, **sized, **flip)))
    for kind in () if is_text else SEMI.values():
        objective = kind(train[0], ratio=arguments.ratio)
        cells.append(mean(accuracies(network, train, held, arguments.seeds, objective=objective, **sized, **flip)))
    cells += ["refused"] * (len(COLUMNS) - 2 - len(cells))
    return [f"{name}, {SETS[name]}", *cells, f"{time.process_time() - start:.0f}"]


def mean(values: list[float]) -> str:
    """Return a mean with the standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS, metavar="SET", help="; ".join(SETS))
    parser.add_argument("--most", type=int, default=400, help="unlabelled samples")
    parser.add_argument("--test", type=int, default=300, help="test samples")
    parser.add_argument("--epochs", type=int, default=5, help="of SimCLR; a third of it of masked language modelling")
    parser.add_argument("--ratio", type=int, default=1, help="unlabelled samples of a batch for each labelled one")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name in arguments.sets:
        print(f"| {' | '.join(row(name, arguments))} |", flush=True)


if __name__ == "__main__":
    main()

"""Pretraining on unlabelled data before transfer, with 10 labels per class. Prints a Markdown table.

CIFAR-10 by the ResNet-20 from random values and from those trained on these very classes, with SimCLR, and by a small ViT (patches of 4
pixels, width 128, 6 blocks) from random values, with DINO and with a masked autoencoder; AG News by all-MiniLM-L6-v2 with masked language
modelling. The unlabelled data are the training split, at most ``--most`` samples; each number is the test accuracy of a
linear head that is solved on 10 labelled samples of each class, a mean over ``--seeds`` draws of these with its standard deviation.

Run: python benchmarks/self_supervised.py --data ../shared/data
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

import torch
from backbones import CENTRED, CifarResNet, backbone, vit
from few_labels import LABELS, mean
from sets import few, images, texts

import zoo
from zoo.transfer import pretrain

SETS = {
    "CIFAR-10, resnet20 from random values": "simclr",
    "CIFAR-10, resnet20_cifar10": "simclr",
    "CIFAR-10, ViT from random values, DINO": "dino",
    "CIFAR-10, ViT from random values, MAE": "mae",
    "AG News, minilm": "mlm",
}


def opened(name: str, data: Path, most: int, test: int) -> tuple[zoo.Backbone, list[Any], list[Any]]:
    """Return the backbone, and training and test samples with their labels."""
    if name.startswith("AG"):
        train, held = texts("AG News", data, most, test)
        return backbone("minilm", data), list(train), list(held)
    parts = [
        few((list(part["file_name"]), list(part["label"])), count // 10, 0)
        for part, count in zip(images("CIFAR-10", data), (most, test), strict=True)
    ]
    torch.manual_seed(0)
    if "resnet20_cifar10" in name:
        network = backbone("resnet20_cifar10", data)
    elif "ViT" in name:
        network = vit(None)
    else:
        network = zoo.wrap(CifarResNet(), inputs=zoo.Image(size=32, **CENTRED), pretrained=False, name="resnet20")
    return network, list(parts[0]), list(parts[1])


def accuracies(network: zoo.Backbone, train: list[Any], held: list[Any], seeds: int) -> list[float]:
    """Return the test accuracies of heads on few labels."""
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            model = network.adapt(len(set(train[1])))
            model.fit(
                few((train[0], train[1]), LABELS, seed), False, recipe="linear-probe", augment="none", out=Path(folder) / "r", quiet=True
            )
            found.append(model.evaluate(tuple(held), quiet=True)["accuracy"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS, metavar="SET", help="; ".join(SETS))
    parser.add_argument("--most", type=int, default=1000, help="unlabelled samples")
    parser.add_argument("--test", type=int, default=500, help="test samples")
    parser.add_argument("--epochs", type=int, default=10, help="of images; a third of it of masked language modelling")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    print(
        "| data, backbone | method | before | after | feature_std | effective rank | CPU seconds |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in arguments.sets:
        method = SETS[name]
        network, train, held = opened(name, arguments.data, arguments.most, arguments.test)
        before, start = accuracies(network, train, held, arguments.seeds), time.process_time()
        epochs = arguments.epochs if method != "mlm" else max(1, arguments.epochs // 3)
        with tempfile.TemporaryDirectory() as folder:
            found = pretrain(network, train[0], method, out=Path(folder) / "more", epochs=epochs, quiet=True)
            seconds = time.process_time() - start
            after, meter = accuracies(found.backbone, train, held, arguments.seeds), found.run.metrics
        print(
            f"| {name} | {method} | {mean(before)} | {mean(after)} | "
            f"{meter['feature_std']:.3f} | {meter['effective_rank']:.1f} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

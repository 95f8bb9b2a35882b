"""P10: accuracy of the defaults, nothing tuned, beside Trainer, fastai and a scikit-learn probe; prints a Markdown table.

Images: MobileNetV2 with real ImageNet weights. Texts: all-MiniLM-L6-v2, the first shuffled samples of each set. All methods train
on the full training split, keep the last epoch and see the held-out split once. zoo runs ``fit(train, False)`` and nothing else;
Trainer its defaults (3 epochs, batches of 8, rate 5e-5) under our augmentation; fastai ``fine_tune(5)`` with its own head,
augmentation and rate; the probe is logistic regression on frozen features. Seconds are CPU seconds of one thread, of training
only. With ``--per-class 8`` texts have 8 labels per class, and SetFit and our contrastive objective can be among the methods.

Run: python benchmarks/p10_defaults.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import torch
from peers import fastai_on_images, fit, probe, setfit_on_texts, trainer_on_images, trainer_on_texts
from sets import IMAGES, Samples, few, images, text_model, texts
from side_by_side import needed

import zoo
from zoo.registry.registry import use_registry

PIXELS = {"ants/bees": 160, "X-rays": 160, "CIFAR-10": 96, "amazon to webcam": 160}
TEXT_SETS = ("SMS spam", "TREC", "SST-2", "AG News")
METHODS = ("zoo", "Trainer", "fastai", "probe", "contrastive", "SetFit")
TOKENS = 128
Run = Callable[[int], tuple[float, float]]


def on_images(name: str, arguments: argparse.Namespace) -> dict[str, Run]:
    """Return the methods for one set of images: functions of a seed to accuracy and seconds."""
    train, test = images(name, arguments.data)
    train, test = (part.groupby("label").head(arguments.most) if arguments.most else part for part in (train, test))
    labels, size = sorted(set(train["label"])), PIXELS[name]
    epochs = arguments.peer_epochs

    def model(seed: int) -> zoo.TaskModel:
        adapted = zoo.get("local/mobilenetv2_100").adapt(len(labels), labels=labels, seed=seed)
        assert isinstance(adapted.inputs, zoo.Image)
        adapted.inputs = dataclasses.replace(adapted.inputs, size=size)
        return adapted

    def ours(seed: int) -> tuple[float, float]:
        metrics, seconds = fit(model(seed), train, test, seed=seed, **arguments.options)
        return metrics["accuracy"], seconds

    def peer(seed: int) -> tuple[float, float]:
        metrics, seconds = trainer_on_images(model(seed), train, test, seed=seed, num_train_epochs=epochs or 3)
        return metrics["accuracy"], seconds

    parts = [(list(part["file_name"]), list(part["label"])) for part in (train, test)]
    return {
        "zoo": ours,
        "Trainer": peer,
        "fastai": lambda seed: fastai_on_images(model(seed), train, test, seed=seed, epochs=epochs or 5),
        "probe": lambda seed: probe(model(seed), *parts),
    }


def on_texts(name: str, arguments: argparse.Namespace) -> dict[str, Run]:
    """Return the methods for one set of texts; fastai has no learner for this backbone."""
    everything, test = texts(name, arguments.data, 10**6 if arguments.per_class else arguments.limit, arguments.test)
    labels = sorted(set(everything[1]))

    def train(seed: int) -> Samples:
        return few(everything, arguments.per_class, seed) if arguments.per_class else everything

    def model(seed: int) -> zoo.TaskModel:
        adapted = zoo.get(text_model()).adapt(len(labels), labels=labels, seed=seed)
        assert isinstance(adapted.inputs, zoo.Text)
        adapted.inputs = dataclasses.replace(adapted.inputs, max_length=TOKENS)
        return adapted

    def ours(seed: int, objective: Any = None) -> tuple[float, float]:
        metrics, seconds = fit(model(seed), train(seed), test, seed=seed, objective=objective, **arguments.options)
        return metrics["accuracy"], seconds

    def peer(seed: int) -> tuple[float, float]:
        length = {"num_train_epochs": arguments.peer_epochs or 3}
        return trainer_on_texts(text_model(), train(seed), test, words=False, max_length=TOKENS, seed=seed, **length)

    return {
        "zoo": ours,
        "Trainer": peer,
        "probe": lambda seed: probe(model(seed), train(seed), test),
        "contrastive": lambda seed: ours(seed, zoo.transfer.Contrastive()),
        "SetFit": lambda seed: setfit_on_texts(text_model(), train(seed), test, max_length=TOKENS, seed=seed),
    }


def print_row(name: str, method: str, run: Run, seeds: Sequence[int]) -> None:
    """Run a method for every seed and print its row of the table."""
    results = []
    for seed in seeds:
        results.append(run(seed))
        print(f"  {name}, {method}, seed {seed}: {results[-1][0]:.3f} in {results[-1][1]:.0f} s", file=sys.stderr, flush=True)
    accuracy, seconds = zip(*results, strict=True)
    spread = f"{min(accuracy):.3f} to {max(accuracy):.3f}"
    print(f"| {name} | {method} | {statistics.mean(accuracy):.3f} | {spread} | {statistics.mean(seconds):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = (*IMAGES, *TEXT_SETS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=everything[:-1], choices=everything, metavar="SET", help=", ".join(everything))
    parser.add_argument("--methods", nargs="*", default=METHODS[:-2], choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1000, help="training texts of a set")
    parser.add_argument("--test", type=int, default=500, help="held-out texts of a set")
    parser.add_argument("--per-class", type=int, help="training texts of a class, drawn anew by each seed, in place of --limit")
    parser.add_argument("--peer-epochs", type=int, help="of Trainer and fastai, in place of their 3 and 5")
    parser.add_argument("--most", type=int, help="images of a class, to try the script")
    parser.add_argument("--epochs", type=int, help="of zoo, to try the script")
    arguments = parser.parse_args()
    use_registry(files=[needed(arguments.data) / "registry.toml"])
    arguments.options = {"epochs": arguments.epochs} if arguments.epochs else {}
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    print("| data | method | accuracy, mean of seeds | spread | CPU seconds |\n|---|---|---|---|---|", flush=True)
    for name in arguments.sets:
        methods: dict[str, Any] = on_images(name, arguments) if name in IMAGES else on_texts(name, arguments)
        for method in arguments.methods:
            if method in methods:
                print_row(name, method, methods[method], range(1 if method == "probe" and not arguments.per_class else arguments.seeds))


if __name__ == "__main__":
    main()

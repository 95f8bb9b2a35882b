"""What the tests of several processes let each of them do; run by torchrun as ``-m tests.engine.rank_work FOLDER WORK…``.

Each piece of work is a function of a folder. It returns plain data, which the first process writes as JSON for the test. The
test also runs some of it by itself, as one process alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import zoo
import zoo.builtin
from tests.engine.tiny import images, timeless
from tests.engine.tiny import model as tiny
from tests.toy import toy_spec
from tests.toy_text import ToyTextPlugin
from zoo.adapter import TaskModel
from zoo.backbone import Backbone
from zoo.engine.run import Run
from zoo.registry import Registry, use_registry

WORDS = ("sun", "rain", "cloud", "wind", "snow", "storm", "thunderstorms")


class PlainNet(nn.Module):
    """Convolutions without statistics and without chance: parts of a batch give what the whole gives."""

    def __init__(self, width: int, in_chans: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, stride=2)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(x))
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return x


def plainnet(width: int = 8, in_chans: int = 3) -> PlainNet:
    return PlainNet(width, in_chans)


def plain(classes: int = 3, **options: Any) -> TaskModel:
    torch.manual_seed(0)
    spec = toy_spec("toy/plain", build="tests.engine.rank_work:plainnet", layers={"stem": "conv1", "stage": "blocks.*"})
    return Backbone(spec, weights=False).adapt(classes, **options)


def text(task: str = "single-label", classes: int = 2) -> TaskModel:
    torch.manual_seed(0)
    return zoo.get("toy/text", weights=False, dropout=0.0).adapt(
        classes, task=task, **({"dropout": 0.0} if task == "token-classification" else {})
    )


def sentences(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    source = np.random.default_rng(seed)
    labels = [("cat", "dog")[index % 2] for index in range(count)]
    return [" ".join([*source.choice(WORDS, source.integers(1, 12)), label]) for label in labels], labels


def tagged(count: int, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    source = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(count):
        before, after = (list(source.choice(WORDS, source.integers(1, 5))) for _ in range(2))
        words.append([*before, "grey", "wolf", *after])
        tags.append(["O"] * len(before) + ["B-Animal", "I-Animal"] + ["O"] * len(after))
    return words, tags


def numbers(count: int, seed: int = 0) -> tuple[Any, Any]:
    pixels, names = images(count, seed)
    return pixels, np.asarray([[len(name), index % 5] for index, name in enumerate(names)], dtype=np.float32)


def fit(out: Path, net: TaskModel, *data: Any, **options: Any) -> Run:
    return net.fit(*data, out=out, quiet=True, **({"epochs": 3, "batch_size": 8, "lr": 1e-2, "augment": "none", "workers": 0} | options))


def told(run: Run, net: TaskModel) -> dict[str, Any]:
    """Return what two runs are compared by: losses and metrics, and all values of the model."""
    return {
        "history": timeless(run.history),
        "values": {name: tensor.double().flatten().tolist() for name, tensor in net.state_dict().items()},
    }


PHOTOS = (images(33), images(13, seed=1))
TEXTS = (sentences(33), sentences(13, 1))
WORD_LISTS = (tagged(21), tagged(9, 1))

# The recipes and tasks that one and two processes must train alike: the model, the data, the options.
ALIKE: dict[str, tuple[Callable[[], TaskModel], tuple[Any, Any], dict[str, Any]]] = {
    "full": (plain, PHOTOS, {"recipe": "full"}),
    "layer-decay-accumulated-clipped": (plain, PHOTOS, {"recipe": "layer-decay", "accumulate": 2, "clip_grad": 0.1, "batch_size": 4}),
    "linear-probe": (lambda: tiny(), PHOTOS, {"recipe": "linear-probe"}),
    "linear-probe-views": (lambda: tiny(), PHOTOS, {"recipe": "linear-probe", "augment": "light", "views": 2}),
    "top": (plain, PHOTOS, {"recipe": "top"}),
    "lp-ft": (plain, PHOTOS, {"recipe": "lp-ft", "epochs": 4}),
    "gradual-plateau": (plain, PHOTOS, {"recipe": "gradual", "schedule": "plateau"}),
    "lora": (plain, PHOTOS, {"recipe": "lora"}),
    "ema-average-wise-ft": (plain, PHOTOS, {"recipe": "full", "ema": 0.9, "average": 0.5, "wise_ft": 0.5}),
    "l2-sp": (plain, PHOTOS, {"recipe": "full", "l2_sp": 0.1}),
    "balanced": (plain, PHOTOS, {"recipe": "full", "class_weights": "balanced", "balanced_sampling": True}),
    "one-sample-batches": (plain, (images(7), images(7, seed=1)), {"recipe": "full", "batch_size": 1, "epochs": 2}),
    "regression": (lambda: plain(2, task="regression"), (numbers(21), numbers(9, 1)), {"recipe": "full"}),
    "text": (text, TEXTS, {"recipe": "full"}),
    "text-top": (text, TEXTS, {"recipe": "top"}),
    "text-probe": (text, TEXTS, {"recipe": "linear-probe"}),
    "words": (lambda: text("token-classification", 3), WORD_LISTS, {"recipe": "full"}),
    "words-top": (lambda: text("token-classification", 3), WORD_LISTS, {"recipe": "top"}),
    "lr-auto": (plain, PHOTOS, {"recipe": "full", "lr": "auto"}),
    "batch-auto": (plain, PHOTOS, {"recipe": "full", "batch_size": "auto"}),
}


def alike(out: Path) -> dict[str, Any]:
    """Train everything in ALIKE."""
    found = {}
    for name, (build, data, options) in ALIKE.items():
        net = build()
        found[name] = told(fit(out / name, net, *data, **options), net)
    return found


def uneven(out: Path) -> dict[str, Any]:
    """Validate on numbers of samples that no two processes can share evenly."""
    found = {}
    for count in (101, 7, 1):
        for kind, net, data in (
            ("photos", plain(), (images(12), images(count, seed=1))),
            ("words", text("token-classification", 3), (tagged(12), tagged(count, 1))),
        ):
            run = fit(out / f"{kind}{count}", net, *data, recipe="full", epochs=1, batch_size=4)
            found[f"{kind}{count}"] = run.metrics
    return found


WORK: dict[str, Callable[[Path], dict[str, Any]]] = {"alike": alike, "uneven": uneven}


def main() -> None:
    torch.set_num_threads(1)
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        found = WORK[name](folder / name)
        if os.environ.get("RANK", "0") == "0":
            (folder / f"{name}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

"""Few-shot heads on fixed features: accuracy on episodes with 1, 5 and 10 samples of a class. Prints a Markdown table.

CIFAR-10 by MobileNetV2 (ImageNet) at 96 pixels and by the ResNet-20 that was trained on these very classes, five classes an episode;
ants/bees by MobileNetV2 at 160 pixels, two; questions of TREC by all-MiniLM-L6-v2, all six. Supports are drawn from the training split
and 15 queries of a class from the other one, of which at most ``--most`` samples of a class are read. Features are computed once.

Run: python benchmarks/few_shot.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent / "defaults"))

import numpy as np
import torch
from backbones import backbone
from sets import few, images, texts
from side_by_side import needed

from zoo.transfer.fewshot.episodes import Draw, scores
from zoo.transfer.fewshot.few_shot import features_of, opened
from zoo.transfer.fewshot.heads import HEADS, head_named

SHOTS = (1, 5, 10)
PLACES = {
    "CIFAR-10, mobilenetv2_100": ("CIFAR-10", 96, 5),
    "CIFAR-10, resnet20_cifar10": ("CIFAR-10", 32, 5),
    "ants/bees, mobilenetv2_100": ("ants/bees", 160, 2),
    "TREC, minilm": ("TREC", None, 6),
}
Parts = tuple[list[torch.Tensor], list[Any]]


def features(name: str, data: Path, most: int) -> tuple[Parts, float]:
    """Return features and classes of the two splits, and the CPU seconds that they took."""
    place, pixels, _ = PLACES[name]
    if pixels is None:
        parts = [few(part, most, 0) for part in texts(place, data, 10**6, 10**6)]
    else:
        parts = [(list(part["file_name"]), list(part["label"])) for part in images(place, data)]
        parts = [few(part, most, 0) for part in parts]
    network = backbone(name.partition(", ")[2], data)
    start = time.process_time()
    support = opened(network, parts[0], {}, labelled=True)
    tables = (support, opened(network, parts[1], {}, labelled=True, classes=support.classes))
    found = features_of(network, tables, {} if pixels is None else {"image_size": pixels})
    return (found, [np.asarray(table.targets) for table in tables]), time.process_time() - start


def row(parts: Parts, method: str, ways: int, episodes: int) -> tuple[list[str], float]:
    """Return mean accuracies with their 95 % intervals, one per number of shots, and the CPU seconds of all episodes."""
    start, cells = time.process_time(), []
    head: Callable[..., Any] = head_named(method, quick=True)
    for shots in SHOTS:
        found = scores(head, *parts, Draw(ways=ways, shots=shots, episodes=episodes))
        cells.append(f"{np.mean(found):.3f} ± {1.96 * np.std(found, ddof=1) / len(found) ** 0.5:.3f}")
    return cells, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(PLACES), choices=PLACES, metavar="SET", help="; ".join(PLACES))
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--most", type=int, default=50, help="samples of a class that are read of each split")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    print(f"| data, backbone | method | {' | '.join(f'{shots} of a class' for shots in SHOTS)} | seconds |\n|---|---|---|---|---|---|")
    for name in arguments.sets:
        parts, seconds = features(name, needed(arguments.data), arguments.most)
        print(f"  {name}: features in {seconds:.0f} s", file=sys.stderr, flush=True)
        for method in HEADS:
            cells, seconds = row(parts, method, PLACES[name][2], arguments.episodes)
            print(f"| {name} | {method} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""Three ways of fusing images and texts, beside each part alone, on tables made of real digits and real news.

Each row has an image of a 0 or a 1 (MNIST's test images) and a text of one of two topics (AG News: Sports and Business, the first words
of each), drawn apart from each other. What is to be predicted makes two tables:

    xor       whether they go together (0 with Sports, 1 with Business): neither part alone says anything
    image     the digit: the text is noise

The backbones, zoo/glyphnet and all-MiniLM-L6-v2, stay as they are. Columns: a solved head on the image alone, on the text alone and on
both beside each other (``concatenate``), and the trained ways. Nothing is chosen on the test rows. Seconds are CPU seconds of the
call, passes of the backbones included, for the three solved heads together, gated and cross_attention; run it with OMP_NUM_THREADS=1.

Run: python benchmarks/fusion.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import gzip
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sets import text_model
from side_by_side import needed

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

DIGITS, TOPICS, WORDS = (0, 1), ("Sports", "Business"), 12
TABLES: dict[str, Callable[[int, int], str]] = {
    "xor": lambda digit, topic: "other" if digit ^ topic else "same",
    "image": lambda digit, topic: str(DIGITS[digit]),
}
COLUMNS = ("image", "text", "concatenate", "gated", "cross_attention")


def digits(data: Path, folder: Path) -> list[list[str]]:
    """Write images of each of the two digits into a folder and return their paths."""
    held = needed(data / "images" / "mnist_test")
    pixels = np.frombuffer(gzip.decompress((held / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(gzip.decompress((held / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    found = []
    for digit in DIGITS:
        rows = np.flatnonzero(labels == digit)
        for row in rows:
            Image.fromarray(pixels[row]).save(folder / f"{row}.png")
        found.append([str(folder / f"{row}.png") for row in rows])
    return found


def news(data: Path) -> list[list[str]]:
    """Return the first words of the texts of each of the two topics."""
    folder = needed(data / "text" / "ag_news_test_subset")
    table = pd.concat([pd.read_csv(folder / f"{split}.tsv", sep="\t", quoting=3) for split in ("train", "test")])
    return [[" ".join(text.split()[:WORDS]) for text in table.loc[table["label"] == topic, "text"]] for topic in TOPICS]


def rows(images: list[list[str]], texts: list[list[str]], count: int, seed: int) -> pd.DataFrame:
    """Return rows without labels, no image and no text twice."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2, (count, 2))
    orders = [[iter(random.permutation(len(each)).tolist()) for each in parts] for parts in (images, texts)]
    drawn = [(images[digit][next(orders[0][digit])], texts[topic][next(orders[1][topic])], digit, topic) for digit, topic in bits.tolist()]
    return pd.DataFrame(drawn, columns=["file_name", "text", "digit", "topic"])


def measured(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, tuple[float, float]]:
    """Return the accuracy on the test rows and the CPU seconds, by column; the three solved heads are fitted in one call."""
    import zoo

    given: dict[str, Any] = {"image": "zoo/glyphnet", "text": text_model(), "seed": seed, "quiet": True}
    start = time.process_time()
    solved = zoo.transfer.fuse(train, test, **given).scores  # heads fitted on all training rows; no epoch is chosen on the test rows
    found = {name: (float(solved[name]), time.process_time() - start) for name in COLUMNS[:3]}
    for how in COLUMNS[3:]:
        start = time.process_time()
        fusion = zoo.transfer.fuse(train, how=how, compare=False, **given)
        seconds = time.process_time() - start
        found[how] = (float(fusion.evaluate(test)["accuracy"]), seconds)
    return found


def main() -> None:
    """Print the means over the seeds, and how far the seeds are from them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--test", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print(
        "| table | " + " | ".join(COLUMNS) + " | CPU seconds, solved / gated / cross_attention |\n|---|" + "---|" * (len(COLUMNS) + 1),
        flush=True,
    )
    texts = news(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        images = digits(arguments.data, Path(folder))
        for name, label in TABLES.items():
            runs = []
            for seed in range(arguments.seeds):
                drawn = rows(images, texts, arguments.train + arguments.test, seed)
                drawn["label"] = [label(*bits) for bits in zip(drawn.pop("digit"), drawn.pop("topic"), strict=True)]
                runs.append(measured(drawn[: arguments.train], drawn[arguments.train :].reset_index(drop=True), seed))
            values = np.array([[run[column] for column in COLUMNS] for run in runs])  # (seeds, columns, 2)
            means, half = values[..., 0].mean(0), np.ptp(values[..., 0], axis=0) / 2
            cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(means, half, strict=True)]
            seconds = " / ".join(f"{second:.0f}" for second in values[:, 2:, 1].mean(0))
            print(f"| {name} | " + " | ".join(cells) + f" | {seconds} |", flush=True)


if __name__ == "__main__":
    main()

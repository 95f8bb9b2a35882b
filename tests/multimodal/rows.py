"""Tables of small images, texts and numbers with their classes, and a fusion of the toy backbones on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import zoo
from tests.toy_pair import coloured
from zoo.transfer import Fusion, fuse

LIGHT, WORDS = ("red", "blue"), ("good", "awful")


def photo(folder: Path, colour: int, row: int, seed: int) -> str:
    """Write an image of a colour where it is missing and return its name."""
    file = folder / f"{seed}-{row}-{colour}.png"
    if not file.exists():
        Image.fromarray(coloured([LIGHT[colour]], 1, 1000 * seed + row)[0][0]).save(file)
    return file.name


def bits(folder: Path, count: int, seed: int, *, gaps: float = 0.0) -> pd.DataFrame:
    """Return rows of eight classes: one bit is the colour of the image, one a word of the text, one the sign of a number."""
    random = np.random.default_rng(seed)
    rows = []
    for row, (colour, word, sign) in enumerate(random.integers(0, 2, (count, 3))):
        value: dict[str, Any] = {"file_name": photo(folder, colour, row, seed), "text": f"it is {WORDS[word]} {row % 7}"}
        value |= {"size": random.normal(2 * sign - 1, 0.2) * 1000, "label": f"{colour}{word}{sign}"}
        for name in ("file_name", "text", "size"):
            if random.random() < gaps:
                value[name] = None
        if all(value[name] is None for name in ("file_name", "text", "size")):
            value["text"] = "it is"
        rows.append(value)
    return pd.DataFrame(rows)


def agreement(folder: Path, count: int, seed: int) -> pd.DataFrame:
    """Return rows whose class says whether the colour of the image and the word of the text agree: neither alone knows it."""
    rows: list[dict[str, Any]] = []
    for row in range(count):
        colour, word = row % 2, row // 2 % 2
        rows.append({"file_name": photo(folder, colour, row, seed), "text": f"it is {WORDS[word]} {row % 7}", "size": row % 3})
        rows[-1]["label"] = "yn"[colour ^ word]
    return pd.DataFrame(rows)


def fused(data: pd.DataFrame, folder: Path, how: str = "concatenate", **options: Any) -> Fusion:
    """Return a fusion of the toy backbones, by default without numbers and scores."""
    given: dict[str, Any] = {"image": zoo.get("toy/net", weights=False), "text": zoo.get("toy/text", weights=False)}
    return fuse(data, how=how, root=folder, **(given | {"compare": False, "quiet": True} | options))


def unlike(model: Any) -> str:
    """Say that the home library of a backbone has no such model."""
    return "it is a toy"

"""A folder of images, and the program run on it, for the tests of the commands that choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.engine.tiny import images
from zoo.cli.app import main


def folder_of_images(folder: Path, count: int = 18) -> Path:
    for number, (pixels, name) in enumerate(zip(*images(count), strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(words)
    return int(done.value.code or 0)

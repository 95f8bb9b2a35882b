"""P9: decoding and transforming of one image, against torchvision's pipeline of the same steps on the same files.

Run: python benchmarks/p9_loading.py
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from side_by_side import alternate, report

from zoo.data.images.augment import Augment
from zoo.data.images.transforms import eval_transform, train_transform
from zoo.declare import Image

PHOTOS = Path(__file__).resolve().parents[2] / "shared/data/images/hymenoptera/train"
INPUTS = Image(size=224, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop=0.875)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of JPEG files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = [str(path) for path in sorted(arguments.photos.rglob("*.jpg"))]
    with tempfile.TemporaryDirectory() as folder:
        large = enlarge(paths[:6], Path(folder))
        for title, files in (("the photos as they are", paths), ("12-megapixel photos", large)):
            for what, (ours, theirs) in pipelines().items():
                runs = {"zoo": timed(ours, files), "torchvision": timed(theirs, files)}
                report(f"P9: {what}, {title}, seconds per 1,000 images", alternate(runs, arguments.repeats), ours="zoo")


def enlarge(paths: Sequence[str], folder: Path) -> list[str]:
    """Write the photos at the size of a camera's: 4000 x 3000 pixels."""
    files = []
    for index, path in enumerate(paths):
        files.append(str(folder / f"{index}.jpg"))
        PIL.Image.open(path).convert("RGB").resize((4000, 3000), PIL.Image.Resampling.BICUBIC).save(files[-1], quality=92)
    return files


def pipelines() -> dict[str, tuple[Callable[[str], Any], Callable[[str], Any]]]:
    from torchvision import transforms as tv  # type: ignore[import-untyped]  # ships no types
    from torchvision.datasets.folder import default_loader  # type: ignore[import-untyped]  # ships no types

    mode, normalise = tv.InterpolationMode.BICUBIC, [tv.ToTensor(), tv.Normalize(INPUTS.mean, INPUTS.std)]
    evaluate = tv.Compose([tv.Resize(256, mode), tv.CenterCrop(224), *normalise])
    crop = tv.RandomResizedCrop(224, scale=(0.35, 1.0), interpolation=mode)
    train = tv.Compose([crop, tv.RandomHorizontalFlip(), tv.ColorJitter(0.2, 0.2, 0.2), *normalise])
    ours, ours_train, rng = eval_transform(INPUTS), train_transform(INPUTS, Augment()), random.Random(0)
    return {
        "evaluation": (lambda path: ours(path, rng), lambda path: evaluate(default_loader(path))),
        "training": (lambda path: ours_train(path, rng), lambda path: train(default_loader(path))),
    }


def timed(transform: Callable[[str], Any], paths: Sequence[str]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        for path in paths:
            transform(path)
        return (time.perf_counter() - start) / len(paths) * 1000

    return run


if __name__ == "__main__":
    main()

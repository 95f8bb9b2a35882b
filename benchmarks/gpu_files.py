"""Synthetic photos in JPEG files, and a bare torchvision pipeline that reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader, Dataset


def make_photos(folder: Path, count: int, width: int) -> list[Path]:
    """Write JPEG files of ``width`` by three quarters of it, about as large and as slow to decode as photos; return their paths."""
    rng = np.random.default_rng(0)
    size = (width, width * 3 // 4)
    paths = [folder / f"{index:04}.jpg" for index in range(count)]
    for path in paths:
        if not path.exists():
            coarse = PIL.Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(size, PIL.Image.Resampling.BICUBIC)
            noise = rng.integers(-12, 13, (size[1], size[0], 1))
            PIL.Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


class _Photos(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, table: Mapping[str, Sequence[str]], transform: Any) -> None:
        self.table, self.transform = table, transform

    def __len__(self) -> int:
        return len(self.table["file_name"])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with PIL.Image.open(self.table["file_name"][index]) as image:
            return self.transform(image.convert("RGB")), int(self.table["label"][index])


def jpeg_batches(
    table: Mapping[str, Sequence[str]], batch: int, size: int, device: torch.device, workers: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield augmented batches on the device, channels last, from as many loader processes as the engine uses by default."""
    from torchvision import transforms  # type: ignore[import-untyped]  # ships no types

    from zoo.engine.loading.loader import default_workers

    number = default_workers(device, len(table["label"])) if workers is None else workers
    augment = [
        transforms.RandomResizedCrop(size, scale=(0.35, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.2, 0.2, 0.2),
    ]
    photos = _Photos(table, transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]))
    loader = DataLoader(photos, batch, shuffle=True, num_workers=number, pin_memory=device.type == "cuda")
    for x, y in loader:
        yield x.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last), y.to(device, non_blocking=True)

"""Read a safetensors file without mmap, so that a later truncation of the file cannot kill the process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from zoo.weights.safetensors_header import TensorInfo

THREADS = 4
CHUNK = 8 * 2**20  # bytes
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def copies(header: Mapping[str, TensorInfo]) -> bool:
    """Return whether ``copy_tensors`` supports every dtype of a file, and the system has ``preadv``."""
    return hasattr(os, "preadv") and all(info.dtype in DTYPES for info in header.values())


def copy_tensors(path: Path, header: Mapping[str, TensorInfo]) -> dict[str, Tensor]:
    """Read every tensor of a file whose header was checked, in several threads.

    Most of the time is spent on page faults of new memory, which threads share.

    Raises:
        OSError: If the file cannot be read, or is now shorter than its header says.
    """
    tensors = {name: torch.empty(info.shape, dtype=DTYPES[info.dtype]) for name, info in header.items()}
    with path.open("rb", buffering=0) as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        parts = [part for name, info in header.items() for part in _parts(tensors[name], start + info.begin)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda part: _fill(file.fileno(), *part), parts))
    return tensors


def _parts(tensor: Tensor, begin: int) -> list[tuple[memoryview, int]]:
    if not tensor.numel():
        return []
    room = tensor.reshape(-1).view(torch.uint8).numpy().data
    return [(room[at : at + CHUNK], begin + at) for at in range(0, len(room), CHUNK)]


def _fill(file: int, room: memoryview, begin: int) -> None:
    done = 0
    while done < len(room):
        count = os.preadv(file, [room[done:]], begin + done)
        if not count:
            raise OSError("the file ends before its last tensor")
        done += count

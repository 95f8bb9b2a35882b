"""Reading and writing of safetensors files, the only format that is loaded.

Headers are checked before a file is opened. Only blobs of the Hub cache are mapped: other files may be truncated while in use,
which would kill a process with a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import WeightsError, count, examples, owner_prefix
from zoo.util.atomic_write import room_for
from zoo.weights.copy_read import copies, copy_tensors
from zoo.weights.hub_cache import is_blob
from zoo.weights.safetensors_header import read_header
from zoo.weights.shards import SAFETENSORS_INDEX, read_index

_REMEDY = "fetch it again, or ask its publisher"
MAX_MAGNITUDE = 1e30  # no trained weights are as large; outputs would overflow after a few layers


def read(path: Path, owner: str = "", *, pretrained: bool = True) -> dict[str, Tensor]:
    """Read a safetensors file, or all shards of an index file.

    Args:
        path: The file, as ``locate`` returns it.
        owner: Name of the backbone, for messages.
        pretrained: Whether to refuse tensors that are all zero or huge, which an optimizer state may contain.

    Raises:
        WeightsError: If the file is damaged, or a tensor holds values that cannot be weights.
    """
    state = _read_shards(path, owner) if path.name.endswith(SAFETENSORS_INDEX) else _read_file(path, owner)
    _check_values(state, path, owner, pretrained)
    return state


def write(tensors: Mapping[str, Tensor], out: Path, *, check: Path | None = None) -> None:
    """Write a safetensors file atomically; a link is replaced, and its target not changed.

    Args:
        tensors: Tensors by name; those that share memory are written separately.
        out: The file.
        check: Source of the tensors. If given, the file is read back and checked as by ``read`` before it becomes visible, and
            errors name this source.
    """
    import safetensors.torch

    stage = out.with_name(f".{out.name}.part")
    stage.unlink(missing_ok=True)
    try:
        stage.touch()
        default_mode = stage.stat().st_mode  # safetensors files are readable by the owner only
        with room_for(out, sum(tensor.nbytes for tensor in tensors.values())):
            safetensors.torch.save_file(separate(tensors), stage, metadata={"format": "pt"})
        stage.chmod(default_mode)
        if check:
            _check_values(_read_file(stage, "", shown=check), check, "", pretrained=True)
        stage.replace(out)
    finally:
        stage.unlink(missing_ok=True)


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU, none sharing memory with another, as safetensors requires."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        result[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
        seen.add(plain.untyped_storage().data_ptr())
    return result


def _read_file(path: Path, owner: str, *, shown: Path | None = None) -> dict[str, Tensor]:
    import safetensors.torch

    header = read_header(path, owner, shown=shown)
    try:
        if not is_blob(path) and copies(header):
            return copy_tensors(path, header)
        state: dict[str, Tensor] = safetensors.torch.load_file(path, backend="mmap" if is_blob(path) else "pread")
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        name = repr(str(shown or path))
        raise WeightsError(f"{owner_prefix(owner)}{name} is not a readable safetensors file ({error}); fetch it again") from error
    return state


def _read_shards(path: Path, owner: str) -> dict[str, Tensor]:
    index = read_index(path, owner)
    state: dict[str, Tensor] = {}
    for name, file in index.files(owner).items():
        tensors = _read_file(file, owner)
        index.check(name, tensors, owner)
        state |= tensors
    return state


def _check_values(state: Mapping[str, Tensor], path: Path, owner: str, pretrained: bool) -> None:
    largest = {name: _largest(tensor) for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel()}
    bad = [name for name, value in largest.items() if not value < float("inf")]
    if bad:
        raise WeightsError(
            f"{owner_prefix(owner)}{str(path)!r} has NaN or infinity in {count(len(bad), 'tensor')}: {examples(bad)}; {_REMEDY}"
        )
    huge = [name for name, value in largest.items() if value > MAX_MAGNITUDE]
    if pretrained and huge:
        raise WeightsError(
            f"{owner_prefix(owner)}{str(path)!r} has values above {MAX_MAGNITUDE:g} in {count(len(huge), 'tensor')}: {examples(huge)}; "
            f"{_REMEDY}"
        )
    negative = [name for name, tensor in state.items() if name.endswith("running_var") and name in largest and bool((tensor < 0).any())]
    if pretrained and negative:
        raise WeightsError(
            f"{owner_prefix(owner)}{str(path)!r} has negative variances in {count(len(negative), 'tensor')}: {examples(negative)}; "
            f"{_REMEDY}"
        )
    matrices = [value for name, value in largest.items() if state[name].ndim > 1]
    if pretrained and matrices and not any(matrices):
        raise WeightsError(
            f"{owner_prefix(owner)}all {len(matrices)} weight tensors of {str(path)!r} are zero: it is a placeholder; fetch it again"
        )


def _largest(tensor: Tensor) -> float:
    """Return the largest magnitude, NaN if there is one, in one pass."""
    low, high = torch.aminmax(tensor if tensor.element_size() > 1 else tensor.float())
    return float(torch.maximum(low.abs(), high.abs()))

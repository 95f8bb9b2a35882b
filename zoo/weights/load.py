"""Find, verify and read weights; the only module that does.

Safetensors only, no pickle and no fallback, so no code of a file is run. Headers are checked before the file is opened. Only
blobs of the Hub cache are mapped: other files may be truncated while in use, which would kill a process with a mapping.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from zoo.declare import Weights
from zoo.errors import WeightsError, WeightsNotFoundError, count, did_you_mean, examples
from zoo.util.atomic_write import room_for
from zoo.weights.copy_read import copies, copy_tensors
from zoo.weights.hub import AbsentError, fetch, find_cached
from zoo.weights.hub_cache import check_cached, is_blob, repository_of
from zoo.weights.hub_cache import digest as digest
from zoo.weights.safetensors_header import read_header
from zoo.weights.shards import INDEX, SUFFIX, model_digest, read_index

LARGEST = 1e30  # no trained weights are as large; outputs would overflow after a few layers


def locate(weights: Weights, owner: str) -> Path:
    """Return the local path of a weights file, fetched from the Hub if it is declared there.

    Args:
        weights: The declaration.
        owner: Name of the backbone, for messages.

    Returns:
        A safetensors file, or the index file of a sharded model with all its shards.

    Raises:
        WeightsNotFoundError: If the file is not on disk and cannot be fetched.
        WeightsError: If the file is damaged, or its digest is not the pinned one.
    """
    if weights.repo:
        return _pinned(_from_hub(weights, owner), weights, owner)
    if weights.package:
        path = _in_package(weights.package, weights.file, owner)
    elif weights.url:
        raise WeightsNotFoundError(
            f"{owner}: its weights are published only at {weights.url}, not as safetensors on the Hub; "
            "download them, turn them into safetensors with zoo convert FILE --out FILE.safetensors, and pass weights='FILE' "
            "(whole pickled models, which convert refuses: see docs/plugins/medical.md)"
        )
    else:
        path = Path(weights.file)
    path = local_file(path, owner)
    repository = repository_of(path)
    return _pinned(check_cached(repository, path, owner) if repository else path, weights, owner)


def _in_package(package: str, file: str, owner: str) -> Path:
    """Return a file of an installed package without importing it, as a registry file may name any package."""
    top, *below = package.split(".")
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        raise WeightsNotFoundError(f"{owner}: its weights are in the package {package!r}, which is not installed")
    places = [Path(folder, *below, file) for folder in spec.submodule_search_locations or ()] or [Path(file)]
    return next((path for path in places if path.exists()), places[0])


def local_file(path: Path, owner: str) -> Path:
    """Return the weights file at ``path``; in a folder, its ``model.safetensors`` or the index of its shards.

    Raises:
        WeightsNotFoundError: If there is none, with the nearest existing name.
        WeightsError: If it is not a safetensors file.
    """
    if path.is_dir():
        sharded = not (path / "model.safetensors").exists() and (path / INDEX).exists()
        path = path / (INDEX if sharded else "model.safetensors")
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise WeightsNotFoundError(f"{owner}: there is no weights file {str(path)!r}{did_you_mean(path.name, beside)}")
    if not path.name.endswith((".safetensors", SUFFIX)):
        raise WeightsError(
            f"{owner}: {str(path)!r} is not a safetensors file; pickled checkpoints can run code and are refused: "
            f"turn it into one with zoo convert {path.name} --out {path.stem}.safetensors"
        )
    return path


def read(path: Path, owner: str = "", *, pretrained: bool = True) -> dict[str, Tensor]:
    """Read a safetensors file, or all shards of an index file.

    Args:
        path: The file, as ``locate`` returns it.
        owner: Name of the backbone, for messages.
        pretrained: Whether to refuse tensors that are all zero or huge, which an optimizer state may contain.

    Raises:
        WeightsError: If the file is damaged, or a tensor holds values that cannot be weights.
    """
    state = _read_shards(path, owner) if path.name.endswith(SUFFIX) else _read_file(path, owner)
    _check_values(state, path, owner, pretrained)
    return state


def write(tensors: Mapping[str, Tensor], out: Path, *, check: Path | None = None) -> None:
    """Write a safetensors file atomically; a link is replaced, and its target not changed.

    Args:
        tensors: Tensors by name; those that share memory are written separately.
        out: The file.
        check: Source of the tensors. If given, the file is read back with ``read`` before it becomes visible, and errors
            name this source.
    """
    import safetensors.torch

    stage = out.with_name(f".{out.name}.part")
    stage.unlink(missing_ok=True)
    try:
        stage.touch()
        readable = stage.stat().st_mode  # the default mode here; safetensors files are readable by the owner only
        with room_for(out, sum(tensor.nbytes for tensor in tensors.values())):
            safetensors.torch.save_file(separate(tensors), stage, metadata={"format": "pt"})
        stage.chmod(readable)
        if check:
            _read_back(stage, check)
        stage.replace(out)
    finally:
        stage.unlink(missing_ok=True)


def _read_back(stage: Path, source: Path) -> None:
    try:
        read(stage, str(source))
    except WeightsError as error:
        raise WeightsError(str(error).replace(f"{source}: {str(stage)!r}", repr(str(source)))) from error


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU, none sharing memory with another, as safetensors requires."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        result[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
        seen.add(plain.untyped_storage().data_ptr())
    return result


def _read_file(path: Path, owner: str) -> dict[str, Tensor]:
    import safetensors.torch

    header = read_header(path, owner)
    try:
        if not is_blob(path) and copies(header):
            return copy_tensors(path, header)
        state: dict[str, Tensor] = safetensors.torch.load_file(path, backend="mmap" if is_blob(path) else "pread")
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{owner}: {str(path)!r} is not a readable safetensors file ({error}); fetch it again") from error
    return state


def _read_shards(path: Path, owner: str) -> dict[str, Tensor]:
    index = read_index(path, owner)
    state: dict[str, Tensor] = {}
    for name, file in index.files(owner).items():
        tensors = _read_file(file, owner)
        if wrong := sorted(tensors.keys() ^ index.shards[name]):
            raise WeightsError(f"{owner}: the shard {name!r} and its index {str(path)!r} differ in {examples(wrong)}; fetch both again")
        state |= tensors
    return state


def _check_values(state: Mapping[str, Tensor], path: Path, owner: str, pretrained: bool) -> None:
    largest = {name: _largest(tensor) for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel()}
    bad = [name for name, value in largest.items() if not value < float("inf")]
    if bad:
        raise WeightsError(f"{owner}: {str(path)!r} has NaN or infinity in {count(len(bad), 'tensor')}: {examples(bad)}")
    huge = [name for name, value in largest.items() if value > LARGEST]
    if pretrained and huge:
        raise WeightsError(f"{owner}: {str(path)!r} has values above {LARGEST:g} in {count(len(huge), 'tensor')}: {examples(huge)}")
    matrices = [value for name, value in largest.items() if state[name].ndim > 1]
    if pretrained and matrices and not any(matrices):
        raise WeightsError(f"{owner}: all {len(matrices)} weight tensors of {str(path)!r} are zero: it is a placeholder; fetch it again")


def _largest(tensor: Tensor) -> float:
    """Return the largest magnitude, NaN if there is one, in one pass."""
    low, high = torch.aminmax(tensor if tensor.element_size() > 1 else tensor.float())
    return float(torch.maximum(low.abs(), high.abs()))


def _from_hub(weights: Weights, owner: str) -> Path:
    """Fetch the file, or the index and all shards of a sharded model."""
    try:
        path = fetch(weights.repo, weights.file, weights.revision, owner=owner)
    except WeightsNotFoundError as error:
        if not weights.file.endswith(".safetensors") or weights.file.endswith(SUFFIX):
            raise
        get = fetch if isinstance(error, AbsentError) else find_cached  # no further attempts without network
        try:
            index = get(weights.repo, f"{weights.file}.index.json", weights.revision, owner=owner)
        except WeightsNotFoundError:
            index = None
        if index is None:
            raise
        path = index
    if path.name.endswith(SUFFIX):
        commit = next(parent.name for parent in path.parents if parent.parent.name == "snapshots")
        folder = weights.file.rpartition("/")[0]
        for name in read_index(path, owner).shards:
            fetch(weights.repo, f"{folder}/{name}".lstrip("/"), commit, owner=owner)
    if not path.name.endswith((".safetensors", SUFFIX)):
        raise WeightsError(f"{owner}: {weights.repo}/{weights.file} is not a safetensors file; pickled checkpoints are refused")
    return path


def _pinned(path: Path, weights: Weights, owner: str) -> Path:
    """Check the size and digest of a file against the pinned ones; return its path."""
    size = path.stat().st_size
    if weights.size and not path.name.endswith(SUFFIX) and size != weights.size:
        raise WeightsError(
            f"{owner}: {str(path)!r} has {size} bytes, pinned are {weights.size}; it is cut off or another one: fetch it again"
        )
    if weights.sha256 and (found := model_digest(path, owner)) != weights.sha256:
        raise WeightsError(
            f"{owner}: {str(path)!r} has sha256 {found}, pinned is {weights.sha256}; the file is damaged or another one: fetch it again"
        )
    return path

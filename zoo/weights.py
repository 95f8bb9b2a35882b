"""The one gate for weights: find the file, verify it, read it.

Nothing here executes what a file says: safetensors only, no pickle, no fallback.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from pathlib import Path

import torch
from torch import Tensor

from zoo.declare import Weights
from zoo.errors import WeightsError, WeightsNotFoundError, count, did_you_mean, examples


def locate(weights: Weights, owner: str) -> Path:
    """Return the local path of a weights file, fetching it from the Hub where that is its home.

    Args:
        weights: The declaration.
        owner: Name of the backbone, for messages.

    Raises:
        WeightsNotFoundError: If the file is not on disk and cannot be fetched.
        WeightsError: If the file's digest is not the pinned one.
    """
    if weights.repo:
        path = _fetch(weights, owner)
    elif weights.package:
        path = Path(str(importlib.resources.files(weights.package) / weights.file))
    elif weights.url:
        raise WeightsNotFoundError(
            f"{owner}: its weights are published only at {weights.url}, not as safetensors on the Hub; "
            "download them, save them with safetensors.torch.save_file, and pass weights='FILE'"
        )
    else:
        path = Path(weights.file)
    return _verify(local_file(path, owner), weights.sha256, owner)


def local_file(path: Path, owner: str) -> Path:
    """Return the weights file at ``path``, or the ``model.safetensors`` in it where it is a folder.

    Raises:
        WeightsNotFoundError: If there is none, with the nearest existing name.
        WeightsError: If it is not a safetensors file.
    """
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise WeightsNotFoundError(f"{owner}: there is no weights file {str(path)!r}{did_you_mean(path.name, beside)}")
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{owner}: {str(path)!r} is not a safetensors file; pickled checkpoints can run code and are refused: "
            "load it where you trust it with torch.load(…, weights_only=True) and save it with safetensors.torch.save_file"
        )
    return path


def read(path: Path, owner: str = "") -> dict[str, Tensor]:
    """Map a safetensors file into memory.

    Raises:
        WeightsError: If the file is damaged, or a tensor holds NaN or infinity.
    """
    import safetensors.torch

    try:
        state: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{owner}: {str(path)!r} is not a readable safetensors file ({error}); fetch it again") from error
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not _is_finite(tensor)]
    if bad:
        raise WeightsError(f"{owner}: {str(path)!r} has NaN or infinity in {count(len(bad), 'tensor')}: {examples(bad)}")
    return state


def _is_finite(tensor: Tensor) -> bool:
    # A sum carries every NaN and infinity in one pass without a mask; it may overflow by itself, so only it acquits.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _fetch(weights: Weights, owner: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(weights.repo, weights.file, revision=weights.revision or None))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        where = f"{weights.repo}@{weights.revision or 'main'}/{weights.file}"
        reason = str(error).strip().splitlines()[0]
        raise WeightsNotFoundError(
            f"{owner}: cannot get {where} from the Hub and it is not in the cache ({reason}); "
            "check the network (and HF_HUB_OFFLINE), or pass weights='FILE' or weights=False"
        ) from error


def _verify(path: Path, sha256: str, owner: str) -> Path:
    if sha256 and (found := digest(path)) != sha256:
        raise WeightsError(
            f"{owner}: {str(path)!r} has sha256 {found}, pinned is {sha256}; the file is damaged or another one: fetch it again"
        )
    return path


def digest(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()

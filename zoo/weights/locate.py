"""Location of weights: from a declaration or a path to a verified safetensors file, fetched and converted once.

Checkpoints of ``torch.save`` become safetensors in zoo's own cache before they are read; see ``converted``.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from urllib.parse import urlsplit

from zoo.declare import WEIGHT_FILES, Weights
from zoo.errors import WeightsError, WeightsNotFoundError, examples, owner_prefix
from zoo.util.near_paths import did_you_mean_path
from zoo.weights.cache_errors import cache_errors
from zoo.weights.converted import converted, find_converted
from zoo.weights.hub import NotOnHubError, fetch, find_cached
from zoo.weights.hub_cache import check_cached, repository_of
from zoo.weights.shards import INDEX_SUFFIX, PICKLED_INDEX, SAFETENSORS_INDEX, SHARD, model_digest, read_index
from zoo.weights.urls.download import download, first_download, forget, locked

log = logging.getLogger("zoo")

CHECKPOINTS = (".bin", ".pt", ".pth", ".ckpt", ".tar", ".pkl", PICKLED_INDEX)  # written by torch.save
# Names under which libraries publish the same weights pickled; the second is open_clip's.
_PICKLED = {WEIGHT_FILES[0]: WEIGHT_FILES[2:], "open_clip_model.safetensors": ("open_clip_pytorch_model.bin",)}
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(/|[^/\\])")  # with one slash where a Path was made of it
_OTHER_FORMATS = {
    ".h5": "TensorFlow", ".onnx": "ONNX", ".tflite": "TensorFlow Lite", ".msgpack": "Flax", ".gguf": "GGUF", ".pb": "TensorFlow",
    ".npz": "NumPy", ".npy": "NumPy", ".mlmodel": "Core ML", ".caffemodel": "Caffe", ".pdparams": "PaddlePaddle", ".index": "TensorFlow",
}  # fmt: skip


def locate(weights: Weights, owner: str) -> Path:
    """Return the local path of weights, fetched and converted if need be.

    Args:
        weights: The declaration.
        owner: Name of the backbone, for messages.

    Returns:
        A safetensors file, or the index file of a sharded model with all its shards.

    Raises:
        WeightsNotFoundError: If the file is not on disk and cannot be fetched.
        WeightsError: If the file is damaged, or its digest is not the pinned one.
        OutputPermissionError: If zoo's cache cannot be used.
    """
    with cache_errors(owner):
        if weights.url:
            with locked(weights.url):
                return _converted_url(weights, owner)
        path = fetch_published(weights, owner)
        return path if path.name.endswith((".safetensors", SAFETENSORS_INDEX)) else converted(path, owner, weights.converted_sha256)


def _converted_url(weights: Weights, owner: str) -> Path:
    """Return safetensors of a URL; a checkpoint is removed once it is converted, and forgotten if it cannot be."""
    first = first_download(weights.url) is None
    path = _from_url(weights, owner)
    if path.name.endswith((".safetensors", SAFETENSORS_INDEX)):
        return path
    try:
        made = converted(path, owner, weights.converted_sha256)
    except WeightsError:
        if first:
            forget(weights.url)  # such as one truncated without an error: the next call fetches it again
        raise
    path.unlink(missing_ok=True)  # its digest is recorded, by which the conversion is found
    return made


def fetch_published(weights: Weights, owner: str) -> Path:
    """Return the local path of weights as they are published, fetched if need be; imports no torch.

    Returns:
        A safetensors file, a checkpoint, or the index file of either with all its shards.

    Raises:
        WeightsNotFoundError: If the file is not on disk and cannot be fetched.
        WeightsError: If the file is damaged, or its digest is not the pinned one.
    """
    if weights.url:
        with cache_errors(owner), locked(weights.url):
            return _from_url(weights, owner)
    if weights.repo:
        path = _from_hub(weights, owner)
    else:
        path = _in_package(weights.package, weights.file, owner) if weights.package else Path(weights.file)
        path = local_file(path, owner)
        repository = repository_of(path)
        path = check_cached(repository, path, owner) if repository else path
    return _pinned(path, weights, owner)


def local_file(path: Path, owner: str) -> Path:
    """Return the weights file at ``path``; in a folder, the first of ``WEIGHT_FILES``.

    Raises:
        WeightsNotFoundError: If there is none, with the nearest existing name.
        WeightsError: If it is of a format that is not read.
    """
    folder = path if path.is_dir() else None
    if folder:
        path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), folder / WEIGHT_FILES[0])
    if not path.is_file():
        beside = sorted(entry.name for entry in folder.iterdir()) if folder else []
        listed = f"; the folder has: {examples(beside)}" if beside else did_you_mean_path(path)
        listed += "; weights=False (--weights none) starts from random values" if folder else ""
        raise WeightsNotFoundError(f"{owner_prefix(owner)}there is no weights file {str(path)!r}{listed}")
    check_format(path, owner)
    if SHARD.search(path.name) and (index := sorted(entry.name for entry in path.parent.glob(f"*{INDEX_SUFFIX}"))):
        raise WeightsError(f"{owner_prefix(owner)}{path.name!r} is one of several shards; give {index[0]!r} beside it, or the folder")
    return path


def check_format(path: Path, owner: str) -> None:
    """Raise if the name of a weights file is that of a format which is not read.

    Raises:
        WeightsError: Naming the formats that are.
    """
    if path.name.endswith((".safetensors", SAFETENSORS_INDEX)) or path.name.lower().endswith(CHECKPOINTS):
        return
    other = _OTHER_FORMATS.get(path.suffix.lower())
    what = f"is a file of {other}" if other else "has none of the suffixes of weights"
    raise WeightsError(
        f"{owner_prefix(owner)}{str(path)!r} {what}; read are safetensors and checkpoints of torch.save ({', '.join(CHECKPOINTS)}): "
        "load it in its own library and save its state_dict() with safetensors.torch.save_file"
    )


def _in_package(package: str, file: str, owner: str) -> Path:
    """Return a file of an installed package without importing it, as a registry file may name any package."""
    top, *below = package.split(".")
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        raise WeightsNotFoundError(f"{owner_prefix(owner)}its weights are in the package {package!r}, which is not installed")
    places = [Path(folder, *below, file) for folder in spec.submodule_search_locations or ()] or [Path(file)]
    return next((path for path in places if path.exists()), places[0])


def _from_url(weights: Weights, owner: str) -> Path:
    """Return the cached conversion of a URL's file, or the downloaded file."""
    earlier = first_download(weights.url)
    sha256 = weights.sha256 or (earlier.sha256 if earlier and earlier.sha256.startswith(weights.sha256_prefix) else "")
    made = find_converted(sha256, weights.converted_sha256, owner) if sha256 else None
    if made:
        return made
    log.info("%s: its weights are at %s, licence %s", owner, weights.url, weights.license)
    check_format(Path(urlsplit(weights.url).path), owner)  # before gigabytes are fetched
    return download(weights.url, owner, sha256=weights.sha256, prefix=weights.sha256_prefix, size=weights.size).path


def _from_hub(weights: Weights, owner: str) -> Path:
    """Fetch a file, or the index and all shards of a sharded model; where safetensors are declared and absent, the pickled file."""
    path = _first(weights, file_names(weights), owner)
    folder = weights.file.rpartition("/")[0]
    if path.name.endswith(INDEX_SUFFIX):
        commit = next(parent.name for parent in path.parents if parent.parent.name == "snapshots")
        for shard in read_index(path, owner).shards:
            fetch(weights.repo, f"{folder}/{shard}".lstrip("/"), commit, owner=owner)
    check_format(path, owner)
    return path


def file_names(weights: Weights) -> list[str]:
    """Return the names under which a repository may have weights, in the order in which they are looked for."""
    folder, _, name = weights.file.rpartition("/")
    names = [weights.file]
    if name.endswith(".safetensors"):
        names.append(f"{weights.file}{INDEX_SUFFIX}")
    if name in _PICKLED and not weights.sha256:
        names += [f"{folder}/{other}".lstrip("/") for other in _PICKLED[name]]
    return names


def _first(weights: Weights, names: list[str], owner: str) -> Path:
    """Return the first file that the repository has; without network, the first that is in the cache."""
    missing: WeightsNotFoundError | None = None
    offline = False
    for name in names:
        if offline:
            if path := find_cached(weights.repo, name, weights.revision, owner=owner):
                return path
            continue
        try:
            return fetch(weights.repo, name, weights.revision, owner=owner)
        except WeightsNotFoundError as error:
            offline = not isinstance(error, NotOnHubError)  # no further attempts without network
            missing = error if offline or missing is None else missing
    assert missing is not None, "find_cached follows a failure of fetch"
    if isinstance(missing, NotOnHubError) and len(names) > 2:
        raise WeightsNotFoundError(f"{missing}; nor has it {', '.join(names[1:])}") from missing
    raise missing


def _pinned(path: Path, weights: Weights, owner: str) -> Path:
    """Check the size and digest of a file against the pinned ones; return its path."""
    size = path.stat().st_size
    if weights.size and not path.name.endswith(INDEX_SUFFIX) and size != weights.size:
        raise WeightsError(
            f"{owner_prefix(owner)}{str(path)!r} has {size} bytes, pinned are {weights.size}: it is truncated or another file; "
            f"{_remedy(path)}"
        )
    if weights.sha256 and (found := model_digest(path, owner)) != weights.sha256:
        raise WeightsError(
            f"{owner_prefix(owner)}{str(path)!r} has sha256 {found}, pinned is {weights.sha256}: "
            f"it is damaged or another file; {_remedy(path)}"
        )
    return path


def _remedy(path: Path) -> str:
    """Return the remedy for a file that does not match its pin."""
    if repository_of(path) is None:
        return "replace it by the right one, or correct the pin"
    places = dict.fromkeys((str(path), str(path.resolve())))  # the link of the snapshot, and the blob
    return f"to fetch it again, remove {' and '.join(map(repr, places))}"

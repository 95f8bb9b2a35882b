"""Index files of sharded models; imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from zoo.errors import WeightsError, examples, owner_prefix
from zoo.util.file_digest import file_digest
from zoo.weights.hub_cache import blob_digest, check_cached, is_blob, repository_of, unsafe
from zoo.weights.safetensors_header import MAX_HEADER, MAX_TENSORS

INDEX_SUFFIX = ".index.json"
SHARD = re.compile(r"-\d{5}-of-(?!00001\.)\d{5}\.")  # in the name of one of several shards
SAFETENSORS_INDEX = f".safetensors{INDEX_SUFFIX}"
PICKLED_INDEX = f".bin{INDEX_SUFFIX}"


class Index(NamedTuple):
    """The content of an index file: names of the tensors by shard."""

    path: Path
    shards: dict[str, set[str]]

    def files(self, owner: str) -> dict[str, Path]:
        """Return the shards by name.

        Raises:
            WeightsError: If a shard is missing, or a link leads out of the folder or the cache.
        """
        return {name: _shard(self.path, name, owner) for name in self.shards}

    def check(self, shard: str, names: Iterable[str], owner: str) -> None:
        """Check that a shard holds the tensors that the index says, and no others.

        Raises:
            WeightsError: Naming the tensors that only one of them has.
        """
        if wrong := sorted(set(names) ^ self.shards[shard]):
            raise WeightsError(
                f"{owner_prefix(owner)}the shard {shard!r} and its index {str(self.path)!r} differ in {examples(wrong)}; fetch both again"
            )


def read_index(path: Path, owner: str = "") -> Index:
    """Read an index file.

    Raises:
        WeightsError: If it is damaged, too large, or names a shard outside its folder.
    """
    try:
        if path.stat().st_size > MAX_HEADER:
            raise ValueError(f"it is larger than {MAX_HEADER} bytes")
        table = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise ValueError("weight_map does not map text to text")
        if not 0 < len(table) <= MAX_TENSORS:
            raise ValueError(f"weight_map names {len(table)} tensors")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{owner_prefix(owner)}{str(path)!r} is not the index of a sharded model ({error}); fetch it again") from error
    wrong = [f"{name!r}: {unsafe(name)}" for name in sorted(set(table.values())) if unsafe(name)]
    kind = PICKLED_INDEX if path.name.endswith(PICKLED_INDEX) else SAFETENSORS_INDEX
    suffix = kind.removesuffix(INDEX_SUFFIX)
    wrong += [f"{name!r}: it is no {suffix} file" for name in sorted(set(table.values())) if not name.endswith(suffix)]
    if wrong:
        raise WeightsError(f"{owner_prefix(owner)}{str(path)!r} names shards that are refused: {examples(wrong)}; fetch it again")
    shards: dict[str, set[str]] = {}
    for tensor, name in table.items():
        shards.setdefault(name, set()).add(tensor)
    return Index(path, shards)


def model_digest(path: Path, owner: str = "") -> str:
    """Return the sha256 of a weights file, or of the listing of an index and its shards as ``sha256sum`` prints it."""
    if not path.name.endswith(INDEX_SUFFIX):
        return _digest(path)
    files = {path.name: path} | read_index(path, owner).files(owner)
    return listing_digest({name: _digest(file) for name, file in files.items()})


def listing_digest(digests: dict[str, str]) -> str:
    """Return the sha256 of the lines ``<sha256>  <name>``, sorted by name."""
    listing = "".join(f"{value}  {name}\n" for name, value in sorted(digests.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _digest(path: Path) -> str:
    return blob_digest(path) if is_blob(path) else file_digest(path)


def _shard(index: Path, name: str, owner: str) -> Path:
    path = index.parent.joinpath(*name.split("/"))
    if not path.is_file():
        raise WeightsError(f"{owner_prefix(owner)}{str(index)!r} names the shard {name!r}, which is missing; fetch it again")
    repository = repository_of(index)
    if repository:
        return check_cached(repository, path, owner)
    if index.parent.resolve() not in path.resolve().parents:
        raise WeightsError(
            f"{owner_prefix(owner)}the shard {str(path)!r} leads out of its folder, to {str(path.resolve())!r}; copy the file there"
        )
    return path

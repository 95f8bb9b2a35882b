"""Cache of checkpoints converted to safetensors, keyed by their sha256."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from zoo.declare import WEIGHT_FILES
from zoo.errors import WeightsError, count, examples, owner_prefix
from zoo.util.atomic_write import cache_folder, room_for, write_json, write_text
from zoo.weights.entry_lock import entry_lock
from zoo.weights.safetensors_header import read_header
from zoo.weights.shards import INDEX_SUFFIX, PICKLED_INDEX, model_digest, read_index

log = logging.getLogger("zoo")
VERSION = 1  # of the conversion; another one gives other files
_NAMES = WEIGHT_FILES[:2]


def converted_folder() -> Path:
    """Return the folder of all converted checkpoints."""
    return cache_folder() / "converted"


def find_converted(source_sha256: str, sha256: str, owner: str) -> Path | None:
    """Return the cached conversion of a checkpoint, or None.

    Args:
        source_sha256: Digest of the checkpoint; for shards, that of their listing.
        sha256: Digest that the result must have, or an empty string if none is pinned.
        owner: Name of the backbone, for messages.

    Raises:
        WeightsError: If it is not as it was written, or not as pinned.
    """
    folder = converted_folder() / source_sha256
    path = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        record = json.loads((folder / "conversion.json").read_text(encoding="utf-8"))
        version, written = record["version"], record["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # interrupted before it was complete
    if version != VERSION:
        return None
    found = model_digest(path, owner)
    if found != written:
        raise WeightsError(f"{owner_prefix(owner)}{str(path)!r} was modified after conversion; remove {str(folder)!r} to convert it again")
    if sha256 and found != sha256:
        raise WeightsError(
            f"{owner_prefix(owner)}the safetensors made of the checkpoint {source_sha256[:12]} have sha256 {found}, pinned is {sha256}; "
            "correct converted_sha256, or run zoo lock again"
        )
    return path


def converted(source: Path, owner: str, sha256: str) -> Path:
    """Return safetensors with the tensors of a checkpoint of ``torch.save``; they are made at the first call.

    Args:
        source: The checkpoint, or the index file of its shards.
        owner: Name of the backbone, for messages.
        sha256: Digest that the result must have, or an empty string if none is pinned.

    Returns:
        A safetensors file, or the index file of its shards.

    Raises:
        WeightsError: If the checkpoint is damaged, or holds no tensors.
        DiskFullError: If there is no room in the cache.
    """
    digest = model_digest(source, owner)
    made = find_converted(digest, sha256, owner)
    if made:
        return made
    folder = converted_folder() / digest
    with room_for(folder, source.stat().st_size), entry_lock(folder):  # another process may convert the same file
        made = find_converted(digest, sha256, owner)
        if made is None:
            _convert(source, folder, owner)
            made = find_converted(digest, sha256, owner)
    assert made is not None, "written before its record"
    return made


def _convert(source: Path, folder: Path, owner: str) -> None:
    from zoo.weights.pickled.convert import convert

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log.info("%s: converting %s to safetensors, once, in %s", owner, source.name, folder)
    try:
        if source.name.endswith(INDEX_SUFFIX):
            path, objects = _convert_shards(source, folder, owner)
        else:
            path = folder / _NAMES[0]
            objects = list(convert(source, path).objects)
        record = {"version": VERSION, "source": source.name, "sha256": model_digest(path, owner), "objects": objects}
        write_json(folder / "conversion.json", record)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if objects:
        log.info("%s: %s names %s; only its tensors were read, nothing of it was run", owner, source.name, examples(objects))


def _convert_shards(source: Path, folder: Path, owner: str) -> tuple[Path, list[str]]:
    """Convert each shard, and write the index of the results."""
    from zoo.weights.pickled.convert import convert

    if not source.name.endswith(PICKLED_INDEX):
        raise WeightsError(f"{owner_prefix(owner)}{str(source)!r} is no index of pickled shards, whose name ends with {PICKLED_INDEX}")
    index, names, objects = read_index(source, owner), dict[str, str](), list[str]()
    for number, (name, file) in enumerate(index.files(owner).items(), 1):
        out = folder / f"model-{number:05d}-of-{len(index.shards):05d}.safetensors"
        done = convert(file, out)
        objects += done.objects
        held = read_header(out, owner).keys()
        index.check(name, held, owner)
        names |= dict.fromkeys(held, out.name)
    path = folder / _NAMES[1]
    write_text(path, json.dumps({"weight_map": names}, indent=1) + "\n")
    log.info("%s: converted %s", owner, count(len(index.shards), "shard"))
    return path, objects

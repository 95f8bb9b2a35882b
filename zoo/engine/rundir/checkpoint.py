"""Atomic checkpoints: tensors as safetensors, the rest as JSON, nothing pickled.

A checkpoint is written into a stage directory and every file flushed to disk, the manifest with the digests last. One rename
then makes it visible, and only then are older ones removed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.errors import SavedModelError, WeightsError, fault_list
from zoo.util.atomic_write import room_for
from zoo.util.file_digest import file_digest
from zoo.weights.load import read, separate

log = logging.getLogger("zoo")

SCHEMA = 4  # 3: zoo 0.1.0; 4: the plain data of each part under its name
READABLE = (3, SCHEMA)
KEEP = 2
_STAGE = ".stage-"
_BEFORE = "-before"
_PREFIX = "step-"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: tensors by name and plain data, both by part."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    plain: Mapping[str, Any]


def write_checkpoint(folder: Path, step: int, checkpoint: Checkpoint, *, keep: int = KEEP) -> Path:
    """Write a checkpoint below ``folder`` and remove all but the newest ``keep``.

    Raises:
        DiskFullError: If there is no room for it; older checkpoints are then untouched, as after any other fault.
        OSError: If it cannot be written for another reason.
    """
    stage, final = folder / f"{_STAGE}{step:010d}-{os.getpid()}", folder / f"{_PREFIX}{step:010d}"
    before = stage.with_name(f"{stage.name}{_BEFORE}")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        with room_for(folder, sum(tensor.nbytes for tensors in checkpoint.tensors.values() for tensor in tensors.values())):
            stage.mkdir(parents=True)
            _write_stage(stage, step, checkpoint)
            _clear(before)
            if final.exists():  # of the same step; removed once the new one is visible
                final.rename(before)
            stage.rename(final)
            _clear(before)
    except BaseException:
        _restore(before, final)
        shutil.rmtree(stage, ignore_errors=True)
        raise
    _flush(folder)
    # Newer checkpoints are damaged, and the run has resumed before them: they do not count toward ``keep``.
    for old in [path for path in written(folder) if path.name <= final.name][:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write_stage(stage: Path, step: int, checkpoint: Checkpoint) -> None:
    from safetensors.torch import save_file

    for name, tensors in checkpoint.tensors.items():
        save_file(separate(tensors), stage / f"{name}.safetensors")
    (stage / _STATE).write_text(json.dumps(checkpoint.plain), encoding="utf-8")
    files = {path.name: {"sha256": file_digest(path), "size": path.stat().st_size} for path in sorted(stage.iterdir())}
    manifest = {"schema": SCHEMA, "step": step, "files": files}
    (stage / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*sorted(stage.iterdir()), stage):
        _flush(path)


def read_newest(folder: Path) -> tuple[Checkpoint, Path] | None:
    """Read the newest intact checkpoint below ``folder``; None if there is no checkpoint.

    Damaged ones are logged and skipped.

    Raises:
        SavedModelError: If there are checkpoints and none is intact, or they were written by another version.
    """
    damage: list[str] = []
    for path in reversed(written(folder)):
        faults = _faults(path)
        found: Checkpoint | None = None
        try:
            found = None if faults else _read(path)
        except (WeightsError, OSError, ValueError, KeyError) as error:  # WeightsError: intact, but with values that are not finite
            faults = [str(error)]
        if found is None:
            damage.append(f"{path.name}: {'; '.join(faults)}")
            continue
        if damage:
            log.warning(fault_list(f"going on from {path}, because newer checkpoints are damaged:", damage))
        return found, path
    if damage:
        raise SavedModelError(
            fault_list(f"no checkpoint in {str(folder)!r} is whole:", damage, "Start anew in another folder (out, --out)")
        )
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run that is finished, the oldest first; what cannot be removed stays.

    Each is renamed first, so that a process that ends in the middle leaves no half of a checkpoint.
    """
    for path in written(folder):
        removed = path
        with suppress(OSError):
            removed = path.rename(path.with_name(f"{_STAGE}{path.name}"))
        shutil.rmtree(removed, ignore_errors=True)
    clean_stages(folder)
    with suppress(OSError):  # something of another is in it, or there is none
        folder.rmdir()


def clean_stages(folder: Path) -> None:
    """Remove half-written checkpoints of a killed process, and restore those that it was about to replace."""
    for path in sorted(folder.glob(f"{_STAGE}*")) if folder.is_dir() else ():
        if path.name.endswith(_BEFORE):
            _restore(path, folder / f"{_PREFIX}{path.name.removeprefix(_STAGE).partition('-')[0]}")
        shutil.rmtree(path, ignore_errors=True)


def _restore(before: Path, final: Path) -> None:
    if before.exists() and not final.exists():
        before.rename(final)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def written(folder: Path) -> list[Path]:
    """Return the folders of all checkpoints below ``folder``, damaged ones included, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def _faults(path: Path) -> list[str]:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        schema = manifest["schema"]
        files = {name: (str(entry["sha256"]), int(entry["size"])) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"manifest.json cannot be read ({type(error).__name__})"]
    if schema not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise SavedModelError(f"{str(path)!r} has checkpoint schema {schema!r}; this version of zoo reads {known}")
    missing = [f"{name} is not in its manifest" for name in (_STATE,) if name not in files]
    return missing + [fault for name, entry in files.items() if (fault := _file_fault(path / name, *entry))]


def _file_fault(path: Path, sha256: str, size: int) -> str:
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} has {path.stat().st_size} of {size} bytes"
    return "" if file_digest(path) == sha256 else f"{path.name} has changed (sha256)"


def _read(path: Path) -> Checkpoint:
    tensors = {file.stem: read(file, pretrained=False) for file in path.glob("*.safetensors")}
    found = Checkpoint(tensors, json.loads((path / _STATE).read_text(encoding="utf-8")))
    schema = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["schema"]
    return found if schema == SCHEMA else _of_schema_3(found)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_RUN = ("epoch", "step", "steps", "seen", "seconds", "history", "split", "passes", "loss_sum", "threads")


def _of_schema_3(saved: Checkpoint) -> Checkpoint:
    """Return a checkpoint of zoo 0.1.0, whose plain data are one table, with its plain data by part."""
    old = saved.plain
    plain = {
        "run": {name: old[name] for name in _RUN},
        "best": old["best"],
        "rates": {"found": old["rates"], "plateau": old["plateau"]},
        "random": {"generators": old["rng"], "others": old["others"]},
    }
    return Checkpoint({"random" if name == "rng" else name: tensors for name, tensors in saved.tensors.items()}, plain)

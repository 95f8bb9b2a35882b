"""T1, T3, T14, T15: a run that is killed, damaged or simply long keeps a checkpoint to go on from, and leaves nothing behind."""

from __future__ import annotations

import gc
import json
import logging
import mmap
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import difference, images, model, timeless, values
from tests.faults.fork_run import fork
from zoo.data.open import open_data
from zoo.engine.rundir import checkpoint_writer
from zoo.engine.rundir.checkpoint import SCHEMA, Checkpoint, clean_stages, read_newest, write_checkpoint
from zoo.errors import SavedModelError

OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "quiet": True, "keep_checkpoints": True}
STEPS = 3  # of an epoch


def fit(out: Path, **options: Any) -> Any:
    net = model()
    run = net.fit(open_data(images(24)), open_data(images(12, seed=1)), out=out, **(OPTIONS | options))
    return net, run


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)


def counted(steps: mmap.mmap, out: Path, epochs: int) -> None:
    """Train, and count the forwards of training where the parent sees it."""
    net = model()
    net.backbone.register_forward_hook(lambda module, *_: steps.write_byte(1) if module.training else None)
    net.fit(open_data(images(24)), open_data(images(12, seed=1)), out=out, epochs=epochs, resume=out.exists(), **OPTIONS)


def kill_one(out: Path, log: Path, chance: random.Random, epochs: int) -> tuple[int, bool]:
    """Start or go on with a run, kill it at a random moment, and return the steps it did and whether it was killed."""
    steps = mmap.mmap(-1, 2**16)
    child = fork(lambda: counted(steps, out, epochs), log)
    time.sleep(chance.uniform(0.02, 0.6))
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), log.read_text()
    return steps[:].count(1), status != 0


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=[pytest.mark.sweep, pytest.mark.timeout(900)])])
def test_t1_a_run_that_is_killed_at_any_moment_loses_at_most_the_step_it_is_in(kills: int, tmp_path: Path) -> None:
    epochs, chance, lost = 25 if kills == 5 else 40, random.Random(0), []  # about as long as so many kills last
    expected, _ = fit(tmp_path / "whole", epochs=epochs)
    number, before = 0, 0
    while len(lost) < kills:
        out = tmp_path / f"run-{number}"
        done, killed = kill_one(out, tmp_path / "log", chance, epochs)
        found = read_newest(out / "checkpoint")
        saved = 0 if found is None else int(found[0].plain["run"]["steps"])
        assert saved >= before, "a checkpoint was lost"
        lost.append(before + done - saved)
        before = saved
        if not killed or saved == STEPS * epochs:
            number, before = number + 1, 0
            shutil.rmtree(out)
    assert max(lost) <= 2, lost  # one that was done and not yet written, and one that was counted when it began
    out = tmp_path / f"run-{number}"
    again, _ = fit(out, epochs=epochs, resume=out.exists())
    assert difference(values(again), values(expected)) == 0.0
    assert not [path for path in out.rglob("*") if path.name.startswith(".")], "something half written was left"
    print(f"T1: {kills} kills, lost steps p95 {sorted(lost)[int(0.95 * len(lost))]}")


FILES = ("manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "random.safetensors", "kept.safetensors")
DAMAGE = {
    "deleted": lambda file: file.unlink(),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-3]),
    "emptied": lambda file: file.write_bytes(b""),
    "flipped": lambda file: file.write_bytes(file.read_bytes()[:-5] + bytes([file.read_bytes()[-5] ^ 0x40]) + file.read_bytes()[-4:]),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run that is complete, with the checkpoints of its last two steps."""
    out = tmp_path_factory.mktemp("two") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_writer, "INTERVAL", 0.0)
        net, run = fit(out, epochs=3)
    return out, (values(net), timeless(run.history))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_t3_whatever_is_damaged_the_checkpoint_before_is_taken_and_it_is_told(
    file: str, damage: str, two: tuple[Path, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(two[0] / "checkpoint", tmp_path / "checkpoint")
    DAMAGE[damage](max((tmp_path / "checkpoint").iterdir()) / file)
    with caplog.at_level(logging.WARNING, "zoo"):
        found = read_newest(tmp_path / "checkpoint")
    assert found is not None
    assert found[0].plain["run"]["steps"] == 3 * STEPS - 1
    assert "newer checkpoints are damaged" in caplog.text
    assert "step-0000000009" in caplog.text
    assert file in caplog.text or file == "manifest.json"


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def half_written(folder: Path) -> None:
    folder.rename(folder.with_name(".stage-0000000009-1"))


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def incomplete(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["more.safetensors"] = {"sha256": "0" * 64, "size": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def odd_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"schema": SCHEMA, "files": {"model.safetensors": 3}}))


def other_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def escaping(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"sha256": "0" * 64, "size": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def without_state(folder: Path) -> None:
    """A manifest that agrees with what is there, which is not all."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["state.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "state.json").unlink()


WHOLE = [empty, half_written, a_file, incomplete, odd_manifest, other_manifest, escaping, without_state]


@pytest.mark.parametrize("damage", WHOLE, ids=lambda damage: damage.__name__)
def test_t3_a_run_goes_on_from_the_checkpoint_before_with_the_same_result(
    damage: Any, two: tuple[Path, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(two[0], tmp_path / "run")
    damage(max(path for path in (tmp_path / "run/checkpoint").iterdir()))
    with caplog.at_level(logging.WARNING, "zoo"):
        net, run = fit(tmp_path / "run", epochs=3, resume=True)
    assert (values(net).keys(), difference(values(net), two[1][0])) == (two[1][0].keys(), 0.0)
    assert timeless(run.history) == two[1][1]
    assert "damaged" in caplog.text or damage in (half_written, a_file)
    assert not list((tmp_path / "run/checkpoint").glob(".stage-*"))


def test_t3_with_none_whole_nothing_starts_anew_in_silence(two: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "run")
    for folder in (tmp_path / "run/checkpoint").iterdir():
        (folder / "random.safetensors").unlink()
    with pytest.raises(SavedModelError, match=r"no checkpoint in .* is whole[\s\S]*random.safetensors is missing[\s\S]*Start anew"):
        fit(tmp_path / "run", epochs=3, resume=True)


@pytest.mark.parametrize("end", ['{"epoch": 9, "ph', '{"epoch": 3, "phase": "tune"}\n{"epoch": 3', "\x00\x00", "not json\n"])
def test_t14_a_record_that_was_cut_or_has_more_than_the_checkpoint_is_mended(end: str, two: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "run")
    record = tmp_path / "run/metrics.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    shutil.rmtree(max((tmp_path / "run/checkpoint").iterdir()))
    record.write_text("".join(lines[:-1]) + lines[-1][:20] + end)
    fit(tmp_path / "run", epochs=3, resume=True)
    found = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["epoch"] for line in found] == [1, 2, 3]
    assert timeless(found) == two[1][1]


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> float:
    """Return the memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_t15_a_long_run_that_saves_at_every_step_leaks_nothing(tmp_path: Path) -> None:
    tensors = {"model": {f"layer{index}": torch.zeros(5000) for index in range(20)}}

    def save(step: int) -> None:
        write_checkpoint(tmp_path / "checkpoint", step, Checkpoint(tensors, {"step": step}))

    for step in range(30):
        save(step)
    files, memory = open_files(), resident()
    for step in range(30, 180):
        save(step)
    assert open_files() == files
    assert resident() - memory <= 1.5, "MB per 150 saves of 0.4 MB"
    assert len(list((tmp_path / "checkpoint").iterdir())) == 2
    clean_stages(tmp_path / "checkpoint")
    assert read_newest(tmp_path / "checkpoint") is not None


def test_t15_a_run_leaves_no_open_file_no_temporary_file_and_no_memory(tmp_path: Path) -> None:
    fit(tmp_path / "first", epochs=2, workers=1)
    files, memory, temporary = open_files(), resident(), len(list(Path("/dev/shm").iterdir()))
    fit(tmp_path / "second", epochs=50)
    fit(tmp_path / "third", epochs=2, workers=1)
    assert open_files() == files
    assert resident() - memory <= 20.0, "MB per 150 steps, each epoch saved"
    assert len(list(Path("/dev/shm").iterdir())) <= temporary
    assert not list(tmp_path.rglob(".*"))

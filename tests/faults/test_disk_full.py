"""T4: where there is no room, what was there is intact, and the message has the path, what it takes and what is free."""

from __future__ import annotations

import logging
import resource
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import NAMES, difference, images, model, values
from tests.faults.fake_dist import ROOT
from tests.warm_process import run_warm
from zoo.data.open import open_data
from zoo.engine.cache import tensor_store
from zoo.engine.inference import output_blocks
from zoo.engine.rundir import checkpoint_writer
from zoo.engine.rundir.checkpoint import Checkpoint, read_newest, write_checkpoint
from zoo.engine.rundir.curves import draw_curves
from zoo.engine.rundir.run_folder import write_history
from zoo.errors import DiskFullError, TrainingError
from zoo.util.atomic_write import write_text

FACTS = r"cannot be written \(File too large\): it takes [\d.]+ \w+, and [\d.]+ \w+ are free there; make room"
OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "quiet": True}


@contextmanager
def no_room(limit: int = 512) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def some(step: int, size: int) -> Checkpoint:
    return Checkpoint({"model": {"a": torch.full((size,), float(step))}}, {"step": step})


@pytest.mark.parametrize("size", [1, 4096])  # of which the first is stopped by its JSON
def test_t4_a_checkpoint_without_room_leaves_the_one_before_even_if_only_one_is_kept(size: int, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, some(1, 16), keep=1)
    with no_room(100), pytest.raises(DiskFullError, match=rf"{tmp_path}.*{FACTS}"):
        write_checkpoint(tmp_path, 2, some(2, size), keep=1)
    found = read_newest(tmp_path)
    assert found is not None
    assert found[0].plain == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001"]


def test_t4_a_run_without_room_for_its_checkpoint_goes_on_where_it_was_once_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)
    data = open_data(images(24)), open_data(images(12, seed=1))
    whole = model()
    whole.fit(*data, epochs=3, out=tmp_path / "whole", **OPTIONS)
    real, written = checkpoint_writer.write_checkpoint, []

    def fills_up(*arguments: Any, **options: Any) -> Path:
        written.append(arguments[1])
        with no_room(2**40 if len(written) == 1 else 1000):
            return real(*arguments, **options)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", fills_up)
    with pytest.raises(TrainingError, match=rf"no checkpoint could be written.*checkpoint.*{FACTS}.*intact.*resume=True"):
        model().fit(*data, epochs=3, out=tmp_path / "run", **OPTIONS)
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", real)
    again = model()
    again.fit(*data, epochs=3, out=tmp_path / "run", resume=True, **OPTIONS)
    assert difference(values(again), values(whole)) == 0.0


def test_t4_the_record_of_a_run_is_told_and_not_the_end_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_history(tmp_path, [{"epoch": 1}])
    with no_room(), caplog.at_level(logging.WARNING, "zoo"):
        write_history(tmp_path, [{"epoch": epoch} for epoch in range(100)])
    assert "metrics.jsonl" in caplog.text
    assert "free there" in caplog.text
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("drawn")
def test_t4_curves_without_room_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with no_room(), caplog.at_level(logging.WARNING, "zoo"):
        draw_curves([{"epoch": 1, "phase": "a", "train_loss": 1.0}], tmp_path / "curves.png", monitor="accuracy", kept=1)
    assert "curves.png" in caplog.text
    assert not list(tmp_path.iterdir())


def test_t4_a_run_or_a_result_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    net = model(labels=NAMES)
    with no_room(8), pytest.raises(DiskFullError, match=rf"run\.json'.*{FACTS}"):
        net.fit(images(24), False, out=tmp_path / "run", **OPTIONS)
    with no_room(8), pytest.raises(DiskFullError, match=rf"p\.csv.*{FACTS}"):
        net.predict_to_file(images(4)[0], tmp_path / "p.csv", quiet=True)
    assert not list(tmp_path.iterdir())


def test_t4_a_model_without_room_leaves_the_one_that_was_saved_before(tmp_path: Path) -> None:
    first, second = model(labels=("a", "b", "c")), model(labels=("a", "b", "c"), seed=1)
    first.save(tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    with no_room(), pytest.raises(DiskFullError, match=rf"\.safetensors.*{FACTS}"):
        second.save(tmp_path / "saved", overwrite=True)
    assert (tmp_path / "saved/model.safetensors").read_bytes() == before["model.safetensors"]
    assert {path.name for path in (tmp_path / "saved").iterdir()} == set(before)


def test_t4_a_frozen_part_without_room_is_computed_every_epoch_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = OPTIONS | {"freeze": 1, "epochs": 2, "augment": "none"}
    monkeypatch.setattr(tensor_store, "IN_MEMORY", 0)
    again, whole = model(), model()
    real = tensor_store.os.posix_fallocate

    def full(*arguments: Any) -> None:
        with no_room():
            real(*arguments)

    monkeypatch.setattr(tensor_store.os, "posix_fallocate", full)
    with caplog.at_level(logging.INFO, "zoo"):
        again.fit(images(24), images(12), out=tmp_path / "run", **options)
    assert "computed every epoch" in caplog.text
    whole.fit(images(24), images(12), out=tmp_path / "whole", cache=False, **options)
    assert difference(values(again), values(whole)) == 0.0


def test_t4_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "old")
    with no_room(), pytest.raises(DiskFullError, match=rf"a\.json.*{FACTS}"):
        write_text(tmp_path / "a.json", "x" * 10_000)
    assert (tmp_path / "a.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("limit", [1500, 9000])  # of which the first is reached by a part, the second by the joined file
def test_t4_features_without_room_leave_the_file_before_and_go_on_once_there_is(
    suffix: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_blocks, "ROWS", 64)
    net, out, pixels = model(), tmp_path / f"features.{suffix}", images(200)[0]
    net.embed_to_file(pixels, tmp_path / f"whole.{suffix}", batch_size=8)
    out.write_text("old")
    with no_room(limit), pytest.raises(DiskFullError, match=FACTS) as caught:
        net.embed_to_file(pixels, out, batch_size=8, overwrite=True)
    begun = limit == 9000
    assert ("200 of 200 rows are done" in str(caught.value)) == ("--resume" in str(caught.value)) == begun
    assert "\n" not in str(caught.value)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, *[f"{out.name}.parts"] * begun, f"whole.{suffix}"]
    net.embed_to_file(pixels, out, batch_size=8, overwrite=True, resume=True)
    assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


# On a real file system of 400 kB, in a namespace of its own: a run that trains, is checkpointed, and fills it up.
TINY_DISK = """
    import ctypes, os, sys
    from pathlib import Path
    system, user, group = ctypes.CDLL(None), os.getuid(), os.getgid()
    if system.unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER and CLONE_NEWNS, which a process without threads may
        sys.exit("no namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text)
    if system.mount(b"tmpfs", os.fsencode(sys.argv[1]), b"tmpfs", 0, b"size=400k"):
        sys.exit("no namespace")
    import zoo
    from tests.engine.tiny import images, model
    from tests.undrawn import leave_out_curves
    from zoo.engine.rundir import checkpoint_writer
    checkpoint_writer.INTERVAL = 0.0
    leave_out_curves()
    disk = Path(sys.argv[1])
    net = model()
    real = checkpoint_writer.write_checkpoint
    def fills_up(folder, step, *rest):
        if step > 3:
            (disk / "other").write_bytes(b"0" * (50 * 1024))
            try:
                with open(disk / "more", "wb") as more:
                    while True:
                        more.write(b"0" * 1024)
            except OSError:
                (disk / "other").unlink()
        return real(folder, step, *rest)
    checkpoint_writer.write_checkpoint = fills_up
    options = dict(recipe="full", batch_size=8, epochs=3, out=disk / "run", quiet=True)
    try:
        net.fit(images(24), images(12), **options)
    except zoo.ZooError as error:
        print(type(error).__name__, error)
    (disk / "more").unlink()
    checkpoint_writer.write_checkpoint = real
    run = model().fit(images(24), images(12), resume=True, **options)
    print("epochs", len(run.history), sorted(path.name for path in (disk / "run").iterdir()))
"""


def test_t4_on_a_disk_that_is_really_full_the_run_stops_with_the_cause_and_can_go_on(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    around = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = run_warm(textwrap.dedent(TINY_DISK), [str(tmp_path / "disk")], env=around, cwd=ROOT)
    if done.stderr == "no namespace\n":
        pytest.skip("this system gives no file system of one's own")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "disk").iterdir()), "the run had a disk of its own"
    told, went_on = done.stdout.splitlines()
    assert told.startswith("TrainingError no checkpoint could be written")
    assert "No space left on device): it takes" in told
    assert "kB are free there" in told or "bytes are free there" in told
    assert went_on.startswith("epochs 3")
    assert "model.safetensors" in went_on

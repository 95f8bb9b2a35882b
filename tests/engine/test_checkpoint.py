from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.engine.rundir.checkpoint import Checkpoint, clean_stages, read_newest, remove_checkpoints, write_checkpoint
from zoo.engine.runtime.device import random_state, restore_random_state, seeded
from zoo.util.atomic_write import write_json


def some(step: int) -> Checkpoint:
    tied = torch.full((2, 3), float(step))
    return Checkpoint({"model": {"a": tied, "b": tied, "t": tied.t(), "n": torch.tensor(step)}, "kept": {}}, {"step": step})


def test_what_is_written_is_read_back_tied_and_transposed_tensors_too(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 7, some(7))
    found = read_newest(tmp_path)
    assert found is not None
    read, path = found
    assert path.name == "step-0000000007"
    assert read.plain == {"step": 7}
    assert set(read.tensors) == {"model", "kept"}
    assert all(torch.equal(read.tensors["model"][name], tensor) for name, tensor in some(7).tensors["model"].items())


def test_the_newest_is_read_and_old_ones_go_only_after_it_is_whole(tmp_path: Path) -> None:
    for step in (1, 2, 10, 100):
        write_checkpoint(tmp_path, step, some(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000010", "step-0000000100"]
    found = read_newest(tmp_path)
    assert found is not None
    assert found[0].plain == {"step": 100}


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, some(1), keep=1)
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path, 2, Checkpoint({"model": {}}, {"object": object()}), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001"]
    assert read_newest(tmp_path) is not None


def test_nothing_written_is_nothing_found(tmp_path: Path) -> None:
    assert read_newest(tmp_path / "none") is None


def test_values_that_are_not_finite_count_as_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path, 1, some(1))
    write_checkpoint(tmp_path, 2, Checkpoint({"model": {"a": torch.tensor([float("nan")])}}, {"step": 2}))
    found = read_newest(tmp_path)
    assert found is not None
    assert found[0].plain == {"step": 1}
    assert "NaN" in caplog.text


def test_stale_stages_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, some(1))
    (tmp_path / ".stage-0000000002-99").mkdir()
    (tmp_path / ".stage-0000000002-99/model.safetensors").write_bytes(b"half")
    clean_stages(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001"]


def test_checkpoints_that_are_removed_are_whole_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, some(step))

    def killed(path: Path, *, ignore_errors: bool) -> None:
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("zoo.engine.rundir.checkpoint.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_checkpoints(tmp_path)
    clean_stages(tmp_path)
    found = read_newest(tmp_path)
    assert found is not None
    assert found[0].plain == {"step": 2}
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "run.json", {"a": object()})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}


def test_random_state_survives_json_and_seeding_leaves_no_trace() -> None:
    tensors, plain = random_state()
    state = tensors, json.loads(json.dumps(plain))
    with seeded(5):
        one = torch.rand(4)
    restore_random_state(state)
    first = torch.rand(4)
    restore_random_state(state)
    assert torch.equal(torch.rand(4), first)
    with seeded(5):
        assert torch.equal(torch.rand(4), one)


def test_a_checkpoint_of_the_same_step_is_never_lost_between_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, 3, some(3))
    real = Path.rename

    def failing(self: Path, target: Any) -> Path:
        if self.name.startswith(".stage-") and not self.name.endswith("-before"):
            raise OSError("the disk has gone")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="gone"):
        write_checkpoint(tmp_path, 3, some(4))
    assert read_newest(tmp_path) is not None
    monkeypatch.setattr(Path, "rename", real)
    (tmp_path / "step-0000000003").rename(tmp_path / ".stage-0000000003-7-before")  # as a kill leaves it
    clean_stages(tmp_path)
    assert read_newest(tmp_path) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000003"]


def test_a_damaged_checkpoint_from_before_a_step_back_takes_no_place(tmp_path: Path) -> None:
    for step in (1, 2, 7):
        write_checkpoint(tmp_path, step, some(step))
    (tmp_path / "step-0000000007/manifest.json").write_text("{")
    for step in (3, 4):
        write_checkpoint(tmp_path, step, some(step))
    (tmp_path / "step-0000000004/manifest.json").write_text("{")
    found = read_newest(tmp_path)
    assert found is not None
    assert found[1].name == "step-0000000003"
    write_checkpoint(tmp_path, 8, some(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000007", "step-0000000008"]

"""A run that was stopped anywhere and resumed equals the run that was never stopped, to the last bit."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.tiny import difference, images, model, timeless, values
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.engine.optim.nonfinite import Guard
from zoo.engine.optim.optimizer import build_optimizer
from zoo.engine.rundir import checkpoint, checkpoint_writer
from zoo.engine.rundir.run_folder import Run
from zoo.engine.train import fit as fit_module
from zoo.engine.train import run_parts, trainer
from zoo.engine.train.record import _objective_differences
from zoo.errors import InterruptedRunError, OptionError, OutputExistsError, SavedModelError, TrainingError

OPTIONS: dict[str, Any] = {"recipe": "lp-ft", "epochs": 4, "batch_size": 8, "lr": 1e-2}

pytestmark = pytest.mark.usefixtures("only_reads_of_the_run")


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint at the end of every epoch, however short it was."""
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)


class Tripwire(Sequence[Any]):
    """Inputs that send a signal to this process when an item is looked at for the n-th time."""

    def __init__(self, inputs: Any, reads: int, signum: int = signal.SIGTERM) -> None:
        self.inputs, self.reads, self.signum = inputs, reads, signum

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Any:
        self.reads -= 1
        if self.reads == 0:
            os.kill(os.getpid(), self.signum)
        return self.inputs[index]


def tables(reads: int = 0, where: str = "train", signum: int = signal.SIGTERM) -> tuple[Table, Table]:
    train, valid = open_data(images(24)), open_data(images(12, seed=1))
    if not reads:
        return train, valid
    chosen = train if where == "train" else valid
    tripped = Table(Tripwire(chosen.inputs, reads, signum), chosen.targets, chosen.classes)
    return (tripped, valid) if where == "train" else (train, tripped)


def fit(out: Path, data: Any = None, **options: Any) -> tuple[Any, Run]:
    net = model(head="mlp", hidden=4)
    return net, net.fit(*(data or tables()), out=out, quiet=True, **(OPTIONS | options))


def stop(out: Path, reads: int, where: str = "train", **options: Any) -> InterruptedRunError:
    with pytest.raises(InterruptedRunError) as caught:
        fit(out, tables(reads, where), **options)
    return caught.value


# lp-ft reads 24 + 12 samples for the features of its two probe epochs, then 24 and 12 in each of two tuning epochs.
@pytest.mark.parametrize(
    ("reads", "where"),
    [
        (1, "train"),
        (13, "train"),
        (24, "train"),
        (5, "valid"),
        (26, "train"),
        (36, "train"),
        (48, "train"),
        (14, "valid"),
        (60, "train"),
        (72, "train"),
        (36, "valid"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "mixup": 0.3, "batch_size": 4}], ids=["plain", "accumulated"])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    reads: int, where: str, options: dict[str, Any], whole: Callable[..., Any], tmp_path: Path
) -> None:
    stop(tmp_path, reads, where, **options)
    net, run = fit(tmp_path, resume=True, **options)
    expected, history = whole(options)
    assert difference(values(net), expected) == 0.0
    assert timeless(run.history) == history


@pytest.mark.parametrize("last", [2, 3, 4])
def test_an_interrupt_of_the_users_own_function_is_a_stop_with_a_checkpoint(last: int, whole: Callable[..., Any], tmp_path: Path) -> None:
    seen = list[int]()

    def on_epoch(record: dict[str, Any]) -> None:
        seen.append(record["epoch"])
        if seen == [*range(1, last + 1)]:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="a checkpoint is in"):
        fit(tmp_path, on_epoch=on_epoch)
    net, run = fit(tmp_path, on_epoch=on_epoch, resume=True)
    expected, history = whole({})
    assert seen == [1, 2, 3, 4]
    assert difference(values(net), expected) == 0.0
    assert timeless(run.history) == history


# The tuning epochs only, and the second read of the validation data.
@pytest.mark.parametrize(("reads", "where"), [(5, "train"), (36, "train"), (60, "train"), (14, "valid"), (36, "valid")])
def test_a_resumed_regression_is_bit_equal_to_an_uninterrupted_one(reads: int, where: str, tmp_path: Path) -> None:
    def run(out: Path, data: tuple[Table, Table], **options: Any) -> tuple[Any, Run]:
        net = model(1, head="mlp", hidden=4, task="regression")
        return net, net.fit(*data, out=out, quiet=True, **(OPTIONS | options))

    with pytest.raises(InterruptedRunError):
        run(tmp_path / "cut", measured(reads, where))
    (net, history), (expected, uncut) = run(tmp_path / "cut", measured(), resume=True), run(tmp_path / "whole", measured())
    assert difference(values(net), values(expected)) == 0.0
    assert timeless(history.history) == timeless(uncut.history)


def measured(reads: int = 0, where: str = "train") -> tuple[Table, Table]:
    """The same images with a number far from standard units to each."""
    train, valid = (
        dataclasses.replace(table, targets=(500 + 40 * np.asarray(table.targets)).astype(np.float32), classes=())
        for table in tables(reads, where)
    )
    return train, valid


def test_a_signal_after_the_last_step_is_told_once_the_model_is_saved(
    whole: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*args: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fit_module, "draw_curves", late)
    with pytest.raises(InterruptedRunError, match="complete") as caught:
        fit(tmp_path)
    assert caught.value.exit_code == 143
    monkeypatch.undo()
    assert (tmp_path / "model.safetensors").is_file()
    net, _ = fit(tmp_path, resume=True)
    assert difference(values(net), whole({})[0]) == 0.0


def test_a_stop_does_not_hide_a_step_that_a_gpu_has_not_told_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deferred(Guard):  # what a GPU does; fused AdamW reads found_inf on the CPU as well
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.deferred = True

    def fused(net: Any, config: Any, device: torch.device, extra: Any) -> torch.optim.AdamW:
        groups = build_optimizer(net, config, device).param_groups
        return torch.optim.AdamW([group | {"fused": True} for group in groups], fused=True)

    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 1000.0)
    monkeypatch.setattr(trainer, "Guard", Deferred)
    monkeypatch.setattr(run_parts, "build_optimizer", fused)
    net = model()
    with pytest.raises(TrainingError, match="not finite in epoch 1"):
        net.fit(*tables(24), out=tmp_path, quiet=True, recipe="full", batch_size=8, workers=0, lr=1e30, warmup=0.0)
    assert not (tmp_path / "checkpoint").exists()
    assert all(bool(torch.isfinite(value).all()) for value in values(net).values()), "statistics have seen it"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    made: dict[str, Any] = {}

    def run(options: dict[str, Any]) -> Any:
        key = repr(options)
        if key not in made:
            net, result = fit(tmp_path_factory.mktemp("whole") / "run", **options)
            made[key] = values(net), timeless(result.history)
        return made[key]

    return run


def test_stopping_twice_in_one_epoch_loses_and_repeats_nothing(whole: Callable[..., Any], tmp_path: Path) -> None:
    stop(tmp_path, 26)
    with pytest.raises(InterruptedRunError):
        fit(tmp_path, tables(9), resume=True)
    net, run = fit(tmp_path, resume=True)
    expected, history = whole({})
    assert difference(values(net), expected) == 0.0
    assert timeless(run.history) == history
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]


def test_workers_leave_the_signal_to_the_main_process(whole: Callable[..., Any], tmp_path: Path) -> None:
    timer = threading.Timer(0, lambda: None)
    net = model(head="mlp", hidden=4)
    net.backbone.register_forward_hook(lambda *_: timer.start() if not timer.ident else None)
    timer.function = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(InterruptedRunError):
        net.fit(*tables(), out=tmp_path, quiet=True, workers=2, **OPTIONS)
    net, _ = fit(tmp_path, resume=True, workers=2)
    assert difference(values(net), whole({})[0]) == 0.0


def test_the_message_says_where_the_checkpoint_is_and_how_to_go_on(tmp_path: Path) -> None:
    error = stop(tmp_path, 36)
    assert "SIGTERM" in str(error)
    assert str(tmp_path / "checkpoint") in str(error)
    assert "resume=True" in str(error)
    assert error.exit_code == 143
    with pytest.raises(InterruptedRunError) as caught:
        fit(tmp_path / "other", tables(36, "train", signal.SIGINT))
    assert caught.value.exit_code == 130


def test_signal_handlers_come_back_and_are_left_alone_in_other_threads(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop(tmp_path / "one", 36)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    done: list[Run] = []
    thread = threading.Thread(target=lambda: done.append(fit(tmp_path / "two", epochs=2)[1]))
    thread.start()
    thread.join()
    assert len(done) == 1


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    first, run = fit(tmp_path)
    again, same = fit(tmp_path, resume=True)
    assert difference(values(first), values(again)) == 0.0
    assert same.metrics == run.metrics
    assert same.kept == run.kept
    assert again.origins == first.origins
    assert again.trained_on == first.trained_on


def test_without_resume_a_run_is_never_overwritten(tmp_path: Path) -> None:
    stop(tmp_path, 36)
    with pytest.raises(OutputExistsError, match="resume=True"):
        fit(tmp_path)


def test_a_folder_that_holds_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="no run to resume"):
        fit(tmp_path, resume=True)
    with pytest.raises(OptionError, match="needs out"):
        fit(None, resume=True)  # type: ignore[arg-type]


def test_differences_that_matter_are_refused_by_name(tmp_path: Path) -> None:
    stop(tmp_path, 36)
    with pytest.raises(SavedModelError, match=r"epochs was 4 and is 6[\s\S]*lr was 0.01 and is 0.02"):
        fit(tmp_path, resume=True, lr=0.02, epochs=6)
    more = open_data(images(24)), open_data(images(15, seed=1))
    with pytest.raises(SavedModelError, match="valid data had 12 samples and have 15"):
        fit(tmp_path, more, resume=True)
    swapped = images(24)[0], ["red", "green", "blue"] * 8
    with pytest.raises(SavedModelError, match="other files or labels"):
        fit(tmp_path, (open_data(swapped), tables()[1]), resume=True)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "no manifest", "empty"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    damage: str, whole: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop(tmp_path, 60)
    newest = max((tmp_path / "checkpoint").iterdir())
    hurt(newest, damage)
    with caplog.at_level(logging.WARNING, "zoo"):
        net, run = fit(tmp_path, resume=True)
    assert newest.name in caplog.text
    assert difference(values(net), whole({})[0]) == 0.0
    assert timeless(run.history) == whole({})[1]


def hurt(folder: Path, damage: str) -> None:
    target = folder / "model.safetensors"
    content = target.read_bytes()
    if damage == "missing":
        target.unlink()
    elif damage == "cut":
        target.write_bytes(content[:-7])
    elif damage == "flipped":
        target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        for file in folder.iterdir():
            file.unlink()


def test_with_every_checkpoint_damaged_nothing_restarts_in_silence(tmp_path: Path) -> None:
    stop(tmp_path, 60)
    for folder in (tmp_path / "checkpoint").iterdir():
        hurt(folder, "cut")
    with pytest.raises(SavedModelError, match=r"no checkpoint .* is whole"):
        fit(tmp_path, resume=True)


def test_a_checkpoint_of_another_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    stop(tmp_path, 60)
    manifest = max((tmp_path / "checkpoint").iterdir()) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 99}))
    with pytest.raises(SavedModelError, match=r"schema 99.* reads 3"):
        fit(tmp_path, resume=True)


def test_a_killed_run_goes_on_and_leaves_no_stage_behind(whole: Callable[..., Any], tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        die_in_the_third_checkpoint(tmp_path / "run")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list((tmp_path / "run/checkpoint").glob(".stage-*"))
    net, _ = fit(tmp_path / "run", resume=True)
    assert difference(values(net), whole({})[0]) == 0.0
    assert not list((tmp_path / "run/checkpoint").glob(".stage-*"))


def die_in_the_third_checkpoint(out: Path) -> None:
    real, digests = checkpoint.file_digest, iter(range(100))

    def dying(path: Path) -> str:
        if next(digests) == 11:  # five files each
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path)

    checkpoint.file_digest = dying
    try:
        fit(out)
    finally:
        os._exit(1)  # never back into pytest


def test_short_epochs_write_checkpoints_at_phase_ends_and_long_ones_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    real = checkpoint_writer.write_checkpoint

    def counted(folder: Path, step: int, saved: Any) -> Path:
        written.append(step)
        return real(folder, step, saved)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", counted)
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 1000.0)
    fit(tmp_path / "short", epochs=6)
    assert written == [9, 18]
    stop(tmp_path / "cut", 26)
    assert written[2:] == [6, 7]
    written.clear()
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)
    fit(tmp_path / "long", epochs=6)
    assert sorted(set(written)) == list(range(1, 19))


def test_a_run_without_a_checkpoint_says_that_it_starts_anew(
    whole: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop(tmp_path, 36)
    shutil.rmtree(tmp_path / "checkpoint")
    with caplog.at_level(logging.WARNING, "zoo"):
        net, _ = fit(tmp_path, resume=True)
    assert "starts anew" in caplog.text
    assert difference(values(net), whole({})[0]) == 0.0


def test_the_precision_that_was_used_must_agree_not_its_name(tmp_path: Path) -> None:
    stop(tmp_path, 36, device="cpu")
    told = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(told | {"precision": "bf16"}))  # as if "auto" had meant a GPU
    with pytest.raises(SavedModelError, match="precision was 'bf16' and is 'fp32'"):
        fit(tmp_path, resume=True, device="cpu")
    (tmp_path / "run.json").write_text(json.dumps(told))
    assert fit(tmp_path, resume=True, device="cpu", precision="fp32")[1].kept


def test_checkpoints_hold_no_pickle_and_at_most_two_are_kept(tmp_path: Path) -> None:
    fit(tmp_path, keep_checkpoints=True)
    kept = sorted((tmp_path / "checkpoint").iterdir())
    assert len(kept) == 2
    for file in (file for folder in kept for file in folder.iterdir()):
        assert file.suffix in (".safetensors", ".json")
        assert file.read_bytes()[:1] != b"\x80"


def test_a_resume_at_another_thread_count_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop(tmp_path, 60)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with caplog.at_level(logging.WARNING, "zoo"):
            fit(tmp_path, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert "threads" in caplog.text


def test_an_objective_goes_on_whose_options_had_other_names_in_earlier_versions() -> None:
    before, now = ({"name": "mae", name: 0.75, "decoder_depth": 2} for name in ("hidden_share", "mask_ratio"))
    assert not _objective_differences(before, now)
    assert _objective_differences(before, now | {"mask_ratio": 0.5}) == ["the objective mae.mask_ratio was 0.75 and is 0.5"]
    assert _objective_differences(before | {"name": "own"}, now | {"name": "own"})

"""T8: a loader worker that raises, dies or hangs ends a run with one error that names the sample, and leaves no process behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import difference, images, model, values
from tests.faults.fake_dist import run_python
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.engine.loading import worker_watchdog
from zoo.errors import CorruptInputError, LoaderError, ZooError

CULPRIT = 13
WORKERS = 2


class Faulty(Sequence[Any]):
    """Inputs of which one does something in a loader worker, and nothing elsewhere."""

    def __init__(self, inputs: Any, fault: Callable[[], Any], since: Path | None) -> None:
        self.inputs, self.fault, self.since = inputs, fault, since

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Any:
        if index == CULPRIT and multiprocessing.parent_process() is not None:
            if self.since:
                self.since.touch()
            self.fault()
        return self.inputs[index]


def faulty(fault: Callable[[], Any], since: Path | None = None) -> Table:
    table = open_data(images(24))
    return Table(Faulty(table.inputs, fault, since), table.targets, table.classes, source="the shelf")


def raised() -> None:
    raise KeyError("no such thing")


def signalled(signum: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signum)


# Each with what the message must say, and within how many seconds it must be said.
FAULTS: dict[str, tuple[Callable[[], Any], str, float]] = {
    "raise": (raised, "cannot be read: KeyError: 'no such thing'", 1),
    "SIGKILL": (signalled(signal.SIGKILL), "was ended by SIGKILL", 1),
    "SEGV": (signalled(signal.SIGSEGV), "was ended by SIGSEGV", 6),
    "exit 0": (lambda: os._exit(0), "ended with exit code 0", 6),
    "exit 3": (lambda: os._exit(3), "ended with exit code 3", 6),
    "sys.exit": (lambda: sys.exit(4), "ended with exit code 4", 6),
    "hang": (lambda: time.sleep(600), "no batch came within 2 s", 12),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("recipe", ["full", "linear-probe"])
def test_t8_a_worker_that_fails_is_one_error_with_its_sample(
    kind: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, told, limit = FAULTS[kind]
    monkeypatch.setattr(worker_watchdog, "TIMEOUT", 2.0)
    data = faulty(fault, tmp_path / "since")
    with pytest.raises(ZooError, match=rf"sample {CULPRIT}\b.*the shelf") as caught:
        model().fit(data, valid=False, recipe=recipe, workers=WORKERS, batch_size=4, epochs=1, out=tmp_path / "run", quiet=True)
    took = time.time() - (tmp_path / "since").stat().st_mtime
    assert isinstance(caught.value, CorruptInputError if kind == "raise" else LoaderError)
    assert told in str(caught.value)
    assert kind == "raise" or "workers=0" in str(caught.value)
    assert not multiprocessing.active_children()
    assert took <= limit


def test_t8_what_was_trained_before_a_worker_died_is_in_a_checkpoint_and_can_go_on(tmp_path: Path) -> None:
    table = open_data(images(24))
    options: dict[str, Any] = {"recipe": "full", "batch_size": 4, "valid": False, "quiet": True}
    whole = model()
    whole.fit(table, epochs=3, out=tmp_path / "whole", **options)
    marker = tmp_path / "third"

    def dies_in_the_third_epoch() -> None:
        marker.write_text(marker.read_text() + "x" if marker.exists() else "x")
        if len(marker.read_text()) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(LoaderError):
        model().fit(faulty(dies_in_the_third_epoch), epochs=3, out=tmp_path / "run", workers=WORKERS, **options)
    again = model()
    again.fit(table, epochs=3, out=tmp_path / "run", resume=True, workers=WORKERS, **options)
    assert difference(values(again), values(whole)) == 0.0


def test_t8_a_worker_that_dies_idle_is_found_in_the_next_epoch_and_not_in_the_middle_of_a_step(tmp_path: Path) -> None:
    net, before, killed = model(), {child.pid for child in multiprocessing.active_children()}, []
    of_training: set[Any] = set()

    def kill(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if module.training:
            of_training.update({child.pid for child in multiprocessing.active_children()} - before)
        elif of_training and not killed:  # in validation, while the worker of the training data waits
            killed.extend(of_training)
            os.kill(killed[0], signal.SIGKILL)

    net.backbone.register_forward_hook(kill)
    options: dict[str, Any] = {"recipe": "full", "workers": 1, "batch_size": 8, "epochs": 3, "quiet": True}
    with pytest.raises(LoaderError, match=r"SIGKILL .* between two samples"):
        net.fit(images(24), images(12, seed=1), out=tmp_path / "run", **options)
    assert len(killed) == 1
    assert (tmp_path / "run/metrics.jsonl").read_text().count("\n") == 1


def test_t8_prediction_has_the_same_errors() -> None:
    with pytest.raises(LoaderError, match=f"SIGKILL.* while it loaded sample {CULPRIT} "):
        model().predict(faulty(signalled(signal.SIGKILL)), workers=WORKERS, batch_size=4)


def test_t8_by_default_a_hang_ends_after_five_minutes() -> None:
    assert worker_watchdog.TIMEOUT == 300.0


def test_loader_processes_leave_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    done = run_python(
        """
        import tempfile
        tempfile.tempdir = None  # what the process that was forked had found
        import numpy, zoo
        from tests.undrawn import leave_out_curves
        leave_out_curves()
        model = zoo.get("zoo/glyphnet").adapt(2)
        data = numpy.zeros((16, 32, 32), numpy.uint8), [0, 1] * 8
        for number in range(2):
            model.fit(data, False, recipe="full", epochs=1, batch_size=8, workers=2, quiet=True, out=f"run{number}")
        """,
        cwd=tmp_path,
        warm=True,
        TMPDIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run0", "run1"]


class Bound:
    """An object that, as a tensor on a GPU does, ends another process than its own that finalises it."""

    def __init__(self) -> None:
        self.itself = self  # so that nothing but the garbage collector frees it

    def __del__(self) -> None:
        if multiprocessing.parent_process() is not None:
            os._exit(7)


def test_a_worker_does_not_finalise_garbage_of_the_main_process() -> None:
    table, net = faulty(gc.collect), model()
    gc.disable()
    try:
        Bound()
        assert len(net.predict(table, workers=WORKERS, batch_size=4)) == 24
    finally:
        gc.enable()

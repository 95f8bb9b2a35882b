"""Output of a run: lines that fit a terminal, time left, the kept phase, a short repr; and the end of a run."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import zoo
from tests.engine.test_fit import fit
from tests.engine.tiny import difference, images, model, timeless, values
from zoo.cli.output.stdout import format_metrics, metrics_line
from zoo.engine.options.model_selection import Best
from zoo.engine.rundir.run_folder import Run
from zoo.engine.runtime.progress import Progress, in_time_units, time_left
from zoo.engine.train.finalize import kept_before_tuning
from zoo.errors import InterruptedRunError, SavedModelError

RECORD = {
    "phase": "gradual",
    "epoch": 100,
    "train_loss": 12.3456,
    "loss": 1.2345,
    "balanced_accuracy": 0.9876,
    "samples_per_second": 29290.4,
}


class Bar:
    """The part of rich's bar that lines are printed through."""

    def __init__(self, width: int) -> None:
        self.console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def line(width: int, **options: Any) -> str:
    progress = Progress(False, "balanced_accuracy")
    progress._bar = Bar(width)
    progress.epoch(RECORD, 100, True, **options)
    return str(progress._bar.console.file.getvalue())


def test_lines_fit_the_terminal_and_the_mark_of_the_best_epoch_never_wraps() -> None:
    whole = "gradual  epoch 100/100  train 12.3456  valid 1.2345  balanced_accuracy 0.9876  29290 samples/s  at least 3 min left  best\n"
    assert line(200, left="at least 3 min") == whole
    assert line(108, left="at least 3 min") == whole.replace("  29290 samples/s", "")
    assert line(88, left="at least 3 min") == whole.replace("  29290 samples/s", "").replace("  at least 3 min left", "")
    assert line(73, left="at least 3 min") == "gradual  epoch 100/100  train 12.3456  balanced_accuracy 0.9876  best\n"
    assert "  cached  best" in line(200, cached=True)


def test_the_time_left_counts_epochs_that_compute() -> None:
    assert time_left([50.0, 10.0, 12.0], 20, more=False) == "about 4 min"
    assert time_left([30.0], 2, more=True) == "at least 60.0 s"
    assert time_left([0.01], 20, more=True) == ""
    assert time_left([30.0], 0, more=False) == ""
    assert [in_time_units(seconds) for seconds in (1.44, 600, 7200)] == ["1.4 s", "10 min", "2 hours"]


def test_epochs_on_cached_features_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(images(), images(12, seed=1), recipe="lp-ft", epochs=2, batch_size=8, out=tmp_path / "run")
    lines = [text for text in capsys.readouterr().err.splitlines() if " epoch " in text and "/" in text]
    assert "cached" in lines[0]
    assert "samples/s" not in lines[0]
    assert "samples/s" in lines[1]


def test_a_run_has_a_short_repr(tmp_path: Path) -> None:
    run = fit(model(), tmp_path / "mine", epochs=3)
    assert repr(run) == f"<Run mine: accuracy {run.metrics['accuracy']:.4f}, epoch {run.kept} of 3, in {str(tmp_path / 'mine')!r}>"
    assert repr(Run([{"epoch": 1}], {}, Path("runs/x"), 1, "accuracy")) == "<Run x: epoch 1 of 1, in 'runs/x'>"


def test_intervals_are_printed_beside_their_metric() -> None:
    metrics = {"auroc": 0.91123, "loss": 0.3, "auroc_low": 0.8621, "auroc_high": 0.9494, "own_low": 1.0}
    assert format_metrics(metrics) == {"auroc": "0.911 [0.862, 0.949]", "loss": "0.3000", "own_low": "1.0000"}
    assert metrics_line(metrics) == "auroc 0.911 [0.862, 0.949], loss 0.3000, own_low 1.0000"


def history(*rows: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"epoch": index, "phase": phase, "accuracy": value} for index, (phase, value) in enumerate(rows, 1)]


def test_the_end_says_that_tuning_did_not_improve_on_the_kept_epoch() -> None:
    rows = history(("probe", 0.9), ("probe", 0.96), ("lora", 0.94), ("lora", 0.95))
    told = kept_before_tuning(rows, Best("accuracy", epoch=2))
    assert told == "kept: epoch 2, of phase 'probe', accuracy 0.9600; tuning did not improve on it (best of 'lora': 0.9500)"
    assert "(best of 'lora': 0.9400)" in kept_before_tuning(rows, Best("accuracy", lower=True, epoch=2))
    assert kept_before_tuning(rows, Best("accuracy", epoch=3)) == ""
    assert kept_before_tuning([*rows, *history(("average", 0.97))], Best("accuracy", epoch=4)) == ""
    assert kept_before_tuning(history(("full", 0.9), ("full", 0.8)), Best("accuracy", epoch=1)) == ""


def test_lora_that_did_not_improve_is_told_once_and_without_a_guess(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    # Such a rate spoils what the head has learned.
    model().fit(images(), images(12, seed=1), recipe="lora", lr=1.0, epochs=3, batch_size=8, out=tmp_path / "run")
    told = capsys.readouterr().err
    assert "kept: epoch 1, of phase 'probe'" in told
    assert "tuning did not improve on it (best of 'lora'" in told
    assert "learned nothing" not in caplog.text


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_finished_run_keeps_no_checkpoint_unless_asked_and_is_given_back(tmp_path: Path) -> None:
    net = model()
    run = fit(net, tmp_path / "run", epochs=3)
    assert "checkpoint" not in files(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]["kept"] == run.kept
    again = model(seed=1)
    record = (tmp_path / "run" / "metrics.jsonl").read_text()
    (tmp_path / "run" / "metrics.jsonl").write_text(record[:20])
    same = fit(again, tmp_path / "run", epochs=3, resume=True)
    assert difference(values(net), values(again)) == 0.0
    assert (same.metrics, same.kept, same.monitor, same.history) == (run.metrics, run.kept, run.monitor, run.history)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == record
    with pytest.raises(SavedModelError, match="epochs was 3 and is 4"):
        fit(model(), tmp_path / "run", epochs=4, resume=True)
    fit(model(), tmp_path / "kept", epochs=3, keep_checkpoints=True)
    assert list((tmp_path / "kept" / "checkpoint").glob("step-*"))
    kept = fit(model(seed=1), tmp_path / "kept", epochs=3, resume=True)  # goes on from the checkpoint, which it then removes
    assert timeless(kept.history) == timeless(run.history)
    assert "checkpoint" not in files(tmp_path / "kept")


@pytest.mark.parametrize("options", [{"recipe": "lora"}, {"average": 0.5, "ema": 0.9}, {"wise_ft": 0.5, "recipe": "lp-ft"}])
def test_whatever_made_the_values_a_finished_run_gives_them_back(options: dict[str, Any], tmp_path: Path) -> None:
    net, again = model(), model(seed=1)
    run = fit(net, tmp_path / "run", epochs=4, **options)
    same = fit(again, tmp_path / "run", epochs=4, resume=True, **options)
    assert difference(values(net), values(again)) == 0.0
    assert same.metrics == run.metrics


def test_a_finished_run_with_a_damaged_record_or_model_is_refused(tmp_path: Path) -> None:
    fit(model(), tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(SavedModelError, match=r"no model\.safetensors"):
        fit(model(), tmp_path / "run", resume=True)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"finished": {"kept": 7, "history": []}}))
    with pytest.raises(SavedModelError, match="the record of the finished run in"):
        fit(model(), tmp_path / "run", resume=True)


def test_a_sweep_that_catches_exceptions_ends_with_the_signal(tmp_path: Path) -> None:
    def stop(_record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    begun = []

    def sweep() -> None:
        for lr in (0.1, 0.01):
            begun.append(lr)
            try:
                fit(model(), tmp_path / str(lr), lr=lr, on_epoch=stop)
            except Exception:  # as sweeps do
                continue

    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM") as caught:
        sweep()
    assert begun == [0.1]
    assert caught.value.exit_code == 143
    assert isinstance(caught.value, KeyboardInterrupt)
    assert not isinstance(caught.value, zoo.ZooError)

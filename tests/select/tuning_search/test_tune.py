"""Searches with Optuna on tiny networks."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo.select
from tests.engine.tiny import SAVED, count_samples, difference, images, model, values
from zoo.errors import InterruptedRunError, OptionError, OutputExistsError, SavedModelError
from zoo.select.tuning_search.liveness import UNCOUNTED, WORKER
from zoo.select.tuning_search.picture import _history
from zoo.select.tuning_search.result import TrialResult, Tuning
from zoo.select.tuning_search.study import search_differences

optuna = pytest.importorskip("optuna")
DATA = images(36), images(24, seed=1)
SEARCH = {"lr": "1e-4..1e-1,log", "layer_decay": "0.5..1.0"}


def tuned(out: Path, *data: Any, net: Any = None, **options: Any) -> Any:
    settings = {"trials": 3, "search": SEARCH, "only": list(SEARCH), "epochs": 2, "batch_size": 8, "quiet": True} | options
    return zoo.select.tune(net or model(), *(data or DATA), out=out, **settings)


def study_in(folder: Path) -> Any:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name="zoo", storage=storage)


@pytest.mark.usefixtures("drawn")
@pytest.mark.usefixtures("toys")
def test_the_default_recipe_is_the_first_trial_and_the_best_is_kept_as_a_run(tmp_path: Path) -> None:
    net = model()
    before = values(net)
    found = tuned(tmp_path / "tune", net=net)
    assert difference(values(net), before) == 0.0
    assert [trial.number for trial in found.trials] == [0, 1, 2]
    assert found.trials[0].default
    default = model()
    plain = default.fit(*DATA, epochs=2, batch_size=8, quiet=True, out=tmp_path / "plain")
    assert found.trials[0].value == pytest.approx(plain.metrics["accuracy"])
    complete = [trial.value for trial in found.trials if trial.state == "complete"]
    assert found.best_trial.value == max(complete) >= found.trials[0].value
    best = zoo.load(found.dir / "best")
    assert best.evaluate(DATA[1])["accuracy"] == pytest.approx(found.best_trial.value)
    record = json.loads((found.dir / "best" / "run.json").read_text())
    if not found.best_trial.default:
        assert record["config"]["lr"] == found.best_trial.options["lr"]
    told = json.loads((found.dir / "tune.json").read_text())
    assert told["finished"]
    assert told["verdict"] == found.verdict
    assert (found.dir / "history.png").stat().st_size
    models = {path.parent.name for path in found.dir.glob("trial-*/config.json")}
    assert len(models) <= 1, "the models of other trials are removed"
    more = tuned(tmp_path / "tune", resume=True, trials=4)
    assert [trial.value for trial in more.trials[:3]] == [trial.value for trial in found.trials]
    assert len(more.trials) == 4


def test_the_data_are_warned_of_once_for_all_trials(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuned(tmp_path / "tune", images(9), DATA[1], trials=2, epochs=1, recipe="full")
    assert caplog.text.count("fewer than 5 samples in train") == 1


def test_options_that_do_not_suit_a_recipe_are_told_of_the_default_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zoo")
    tuned(tmp_path / "tune", trials=4, epochs=1, search={"recipe": ["lp-ft", "linear-probe"]}, only=["recipe"])
    told = [entry.getMessage() for entry in caplog.records if "epochs" in entry.getMessage()]
    assert told == ["epochs is 1 and the recipe 'layer-decay' has 2 phases; left out: tune"]
    tuned(tmp_path / "more", trials=3, epochs=2, search={"recipe": ["linear-probe", "full"]}, only=["recipe"])
    assert "has no effect" not in caplog.text


def test_trials_share_what_is_frozen(tmp_path: Path) -> None:
    net = model()
    seen = count_samples(net.backbone.get_submodule("conv1"))
    search = {"label_smoothing": "0.0..0.3"}
    tuned(tmp_path / "tune", net=net, recipe="linear-probe", search=search, only=["label_smoothing"], epochs=None)
    assert seen[0] <= 60 + 3 * SAVED, f"{seen[0]} samples went through the backbone for 3 trials of 60 samples"


def test_a_trial_that_is_behind_is_stopped_after_an_epoch(tmp_path: Path) -> None:
    search = {"lr": [1e-9, 2e-9, 3e-9, 1e-2, 2e-2]}
    found = tuned(tmp_path / "tune", recipe="full", search=search, only=["lr"], trials=12, epochs=6, pruner="median", seed=2)
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.options["lr"] < 1e-8 for trial in pruned)
    assert not any((found.dir / f"trial-{trial.number}").exists() for trial in pruned)
    assert found.best_trial.value > 0.9
    same = [trial for trial in found.trials if trial.note.startswith("the same as")]
    assert all(trial.value is not None for trial in same)


def test_the_legend_of_the_history_has_only_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    trials = tuple(TrialResult(number, state, 0.5, "full", {}, 1.0) for number, state in enumerate(("complete", "pruned")))
    for shown, named in ((trials[:1], False), (trials, True)):
        found = Tuning(shown, None, trials[0], "accuracy", lower=False, dir=tmp_path)  # type: ignore[arg-type]  # the run is not drawn
        _history(found, tmp_path / "history.svg")
        assert ("<!-- pruned -->" in (tmp_path / "history.svg").read_text()) is named


@pytest.mark.usefixtures("toys")
def test_an_interrupted_trial_goes_on_when_the_search_is_resumed(tmp_path: Path) -> None:
    epochs: list[int] = []

    def stopping(record: dict[str, Any]) -> None:
        epochs.append(record["epoch"])
        if len(epochs) == 4:  # in the second trial, after its first epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM in") as stopped:
        tuned(tmp_path / "tune", epochs=3, on_epoch=stopping)
    assert str(stopped.value).endswith(f". Go on with resume=True (--resume) and out={str(tmp_path / 'tune')!r}")
    assert str(stopped.value).count("out=") == 1, "one way to go on, not also that of the trial"
    assert stopped.value.exit_code == 143
    assert epochs == [1, 2, 3, 1]
    with pytest.raises(OutputExistsError, match="resume=True"):
        tuned(tmp_path / "tune", epochs=3)
    found = tuned(tmp_path / "tune", epochs=3, resume=True, on_epoch=stopping, pruner="none")
    assert epochs[4:6] == [2, 3], "the trial goes on after its first epoch"
    assert len(found.trials) == 3
    whole = tuned(tmp_path / "whole", epochs=3, trials=2)
    wanted = {trial.options["lr"]: trial.value for trial in whole.trials}
    assert wanted.items() <= {trial.options["lr"]: trial.value for trial in found.trials}.items(), "as if it had not been stopped"


def test_a_study_of_other_data_another_backbone_or_another_space_is_refused(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    tuned(tmp_path / "one", trials=1, storage=storage)
    with pytest.raises(SavedModelError, match=r"(?s)train data was '36 samples.*space.lr was") as error:
        tuned(tmp_path / "two", images(30), DATA[1], trials=1, storage=storage, resume=True, search={"lr": "1e-3..1e-2,log"}, patience=2)
    assert "  - patience was 0 and is 2\n" in str(error.value)
    assert len(str(error.value)) < 800, "only what differs"
    with pytest.raises(SavedModelError, match=r"head was"):
        tuned(tmp_path / "three", trials=1, storage=storage, resume=True, net=model(head="mlp"))
    with pytest.raises(OutputExistsError, match="name another"):
        tuned(tmp_path / "four", trials=1, storage=storage)
    found = tuned(tmp_path / "elsewhere", trials=2, storage=storage, resume=True)
    assert len(found.trials) == 2
    assert (found.dir / "best" / "config.json").is_file(), "the best of another folder is run again"
    with closing(sqlite3.connect(storage)) as connection:
        assert connection.execute("select count(*) from trials").fetchone() == (2,)


def test_an_option_that_an_earlier_version_did_not_have_counts_as_its_default() -> None:
    options: dict[str, Any] = {"seed": 0, "refit_bias": None, "l2_sp": 0.0}
    before = {"backbone": "toy/net", "options": {"seed": 0, "a-search-before": 1}}
    assert not search_differences(before, {"backbone": "toy/net", "options": options})
    given = options | {"seed": 1, "refit_bias": True, "l2_sp": 0.2}
    found = search_differences(before, {"backbone": "toy/other", "options": given}, moved={"l2_sp"})
    assert found == ["seed was 0 and is 1", "refit_bias was False and is True", "backbone was 'toy/net' and is 'toy/other'"]


def test_a_study_of_another_program_is_left_alone(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    theirs = optuna.create_study(storage=f"sqlite:///{storage}", study_name="zoo", direction="minimize")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=1)
    with pytest.raises(SavedModelError, match=r"the study 'zoo' in .* is none of zoo tune; name another study"):
        tuned(tmp_path / "mine", trials=1, storage=storage, resume=True)
    assert (len(theirs.trials), theirs.user_attrs) == (1, {})


def test_the_trial_of_a_dead_worker_is_marked_as_failed_and_does_not_count(tmp_path: Path) -> None:
    tuned(tmp_path / "tune", trials=1)
    study = study_in(tmp_path / "tune")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    trial = study.ask()
    trial.set_user_attr(WORKER, f"{os.uname().nodename}:{ended.pid}")
    alive = study.ask()
    alive.set_user_attr(WORKER, f"{os.uname().nodename}:{os.getpid()}")
    found = tuned(tmp_path / "tune", trials=3, resume=True)
    states = {one.number: one for one in study_in(tmp_path / "tune").get_trials()}
    assert states[trial.number].state == optuna.trial.TrialState.FAIL
    assert UNCOUNTED in states[trial.number].user_attrs
    assert states[alive.number].state == optuna.trial.TrialState.RUNNING
    assert len([one for one in found.trials if one.state == "complete"]) == 2


def test_a_trial_that_fails_harms_no_other_but_the_default_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.select.tuning_search import trials

    number = iter(range(10))
    real = trials.run_job

    def failing(job: Any, ranks: Any, folder: Path, **more: Any) -> Any:
        if next(number) == 1:
            raise zoo.OptionError("no memory")
        return real(job, ranks, folder, **more)

    monkeypatch.setattr(trials, "run_job", failing)
    found = tuned(tmp_path / "tune")
    assert [trial.state for trial in found.trials].count("failed") == 1
    assert next(trial for trial in found.trials if trial.state == "failed").note == "no memory"
    number = iter([1])
    with pytest.raises(OptionError, match="no memory"):
        tuned(tmp_path / "bad")


def test_bad_arguments_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"(?s)valid=False.*recipe='auto'.*trials is 0"):
        zoo.select.tune(model(), DATA[0], False, recipe="auto", trials=0)
    with pytest.raises(OptionError, match="did you mean 'median'"):
        tuned(tmp_path / "tune", pruner="medain")
    with pytest.raises(OptionError, match="no folder"):
        tuned(tmp_path / "tune", storage=str(tmp_path / "absent" / "study.db"))
    with pytest.raises(OptionError, match="cannot be opened"):
        tuned(tmp_path / "tune", storage="nodb://nowhere/x")
    with pytest.raises(OptionError, match="did you mean 'accuracy'"):
        tuned(tmp_path / "tune", monitor="acuracy")
    assert np.all([not path.exists() for path in (tmp_path / "tune",)])

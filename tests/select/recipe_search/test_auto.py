"""``recipe="auto"`` on tiny networks."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.engine.tiny import difference, images, model, values
from zoo.cli.app import main
from zoo.errors import DataError, InterruptedRunError, OptionError, OwnPartError, SavedModelError

DATA = images(36), images(24, seed=1)


def auto(task_model: Any, out: Path, *data: Any, **options: Any) -> Any:
    settings = {"recipe": "auto", "batch_size": 8, "epochs": 2, "quiet": True} | options
    return task_model.fit(*(data or DATA), out=out, **settings)


def chosen(run: Any) -> str:
    (name,) = [row["name"] for row in run.candidates if row["chosen"]]
    return str(name)


@pytest.mark.usefixtures("drawn")
@pytest.mark.usefixtures("toys")
def test_the_choice_is_a_run_with_its_candidates_and_resumes_without_running_again(tmp_path: Path) -> None:
    net = model()
    run = auto(net, tmp_path / "run")
    told = json.loads((run.dir / "auto.json").read_text())
    names = [row["name"] for row in run.candidates]
    assert names[0] == "probe"
    assert 0 < names.index("layer-decay") < names.index("lora")
    assert all((row["tuned"] is None) == (row["name"] == "probe") for row in run.candidates if row["score"] is not None)
    assert (told["candidates"], told["chosen"]) == (run.candidates, chosen(run))
    assert json.loads((run.dir / "run.json").read_text())["auto"]["chosen"] == chosen(run)
    tried = [row for row in run.candidates if not row["note"]]
    assert len(tried) > 1
    assert all(row["seconds"] > 0 and row["memory"] > 0 and row["low"] <= row["high"] for row in tried)
    probe, whole = (next(row for row in run.candidates if row["name"] == name) for name in ("probe", "layer-decay"))
    assert probe["trained"] < whole["trained"]
    assert (run.dir / "auto.png").stat().st_size
    found = net.evaluate(DATA[1])
    assert {name: found[name] for name in run.metrics} == pytest.approx(run.metrics, abs=1e-6)
    assert difference(values(zoo.load(run.dir)), values(net)) == 0.0
    assert not list((run.dir / "candidates").rglob("*.safetensors"))
    records = {path: path.stat().st_mtime_ns for path in run.dir.rglob("*.json")}
    again = model()
    assert auto(again, run.dir, resume=True).candidates == run.candidates
    assert {path: path.stat().st_mtime_ns for path in run.dir.rglob("*.json")} == records
    assert difference(values(again), values(net)) == 0.0
    with pytest.raises(SavedModelError, match="batch_size was 8 and is 4"):
        auto(model(), run.dir, resume=True, batch_size=4)


def interrupt_third(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the runs that begin, and options with which a signal interrupts the third of them, once."""
    from zoo.select.recipe_search import search

    ran: list[str] = []
    real, armed = search.run_job, [True]

    def counting(job: Any, ranks: Any, folder: Path, **more: Any) -> Any:
        ran.append(folder.name)
        return real(job, ranks, folder, **more)

    def stopping(_truth: Any, _guessed: Any) -> float:  # after each epoch
        if len(ran) == 3 and armed:
            armed.clear()
            signal.raise_signal(signal.SIGINT)
        return 0.0

    monkeypatch.setattr(search, "run_job", counting)
    return ran, {"metrics": {"stopping": stopping}}


def test_an_interrupted_choice_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, options = interrupt_third(monkeypatch)
    with pytest.raises(InterruptedRunError, match=r"a checkpoint is in .*\. Go on with recipe='auto', resume=True") as stopped:
        auto(model(), tmp_path / "run", budget="50s", **options)
    assert str(stopped.value).count("resume=True") == 1  # not of the candidate, which would be a run of its own
    run = auto(model(), tmp_path / "run", resume=True, **options)
    assert [name for name in {*ran} if ran.count(name) > 1] == [ran[2]]  # it goes on from its checkpoint
    assert json.loads((run.dir / "auto.json").read_text())["budget"] == 50.0
    whole = auto(model(), tmp_path / "whole", **options)
    assert [(row["name"], row["score"]) for row in run.candidates] == [(row["name"], row["score"]) for row in whole.candidates]


def test_a_resumed_choice_without_time_left_judges_what_was_tried_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, options = interrupt_third(monkeypatch)
    with pytest.raises(InterruptedRunError):
        auto(model(), tmp_path / "run", budget="50s", **options)
    before = ran[1].partition("-")[0]
    run = auto(model(), tmp_path / "run", budget="0.001s", resume=True, **options)
    assert len(ran) == 3
    assert before in run.choice
    assert [row["name"] for row in run.candidates if row["score"] is not None] == ["probe", before]


def test_a_candidate_that_fails_is_left_out_with_its_reason_and_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.select.recipe_search import search

    real = search.run_job

    def failing(job: Any, ranks: Any, folder: Path, **more: Any) -> Any:
        run = real(job, ranks, folder, **more)
        if "lora" in folder.name:
            raise RuntimeError("sizes must match")
        return run

    monkeypatch.setattr(search, "run_job", failing)
    net = model()
    names = [name for name, _ in net.named_parameters()]
    run = auto(net, tmp_path / "run", epochs=1)
    assert {row["name"]: row["note"] for row in run.candidates if row["note"]} == {"lora": "RuntimeError: sizes must match"}
    assert [name for name, _ in net.named_parameters()] == names


def test_a_budget_shorter_than_the_probe_fits_the_probe_and_says_so(tmp_path: Path) -> None:
    run = auto(model(), tmp_path / "run", budget="0.001s")
    assert [row["name"] for row in run.candidates if row["score"] is not None] == ["probe"]
    assert "the budget is 0.0 s, so nothing else was tried" in run.choice
    assert "the probe alone took" in run.candidates[-1]["note"]


def test_dry_runs_end_with_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.select.recipe_search import search, trial

    now, real = [0.0], trial.preview_job

    def ten_seconds(job: Any) -> Any:
        now[0] += 10.0
        return real(job)

    monkeypatch.setattr(trial, "preview_job", ten_seconds)
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])
    run = auto(model(), tmp_path / "run", budget="15s")
    assert now[0] == 10.0  # the probe's, as another one would end after the budget
    assert all("too little to measure" in row["note"] for row in run.candidates[1:])
    assert run.choice == "the probe is kept: the budget of 15.0 s suffices for nothing else, not even for the shortest run"


def test_the_command_logs_each_message_of_the_choice_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(np.full((8, 8, 3), 40 * index + (label == "b"), np.uint8)).save(tmp_path / "data" / label / f"{index}.png")
    options = ("--recipe", "auto", "--epochs", "1", "--budget", "0.001s", "--quiet", "--image-size", "24", "--out", str(tmp_path / "run"))
    with pytest.raises(SystemExit, match="0"):
        main(["train", "zoo/glyphnet", str(tmp_path / "data"), *options])
    messages = [record.getMessage() for record in caplog.records if record.name == "zoo"]
    assert messages
    assert {message: messages.count(message) for message in messages} == dict.fromkeys(messages, 1)


def test_too_few_samples_to_hold_out_fit_the_probe_on_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = auto(model(), tmp_path / "run", images(3), None)
    assert chosen(run) == "probe"
    assert "no samples could be held out" in run.choice
    assert "no validation samples can be held out" in caplog.text
    with pytest.raises(DataError):
        auto(model(), tmp_path / "bad", tmp_path / "absent", None)


@pytest.mark.usefixtures("toys")
def test_an_own_metric_that_fails_names_the_folder_in_which_the_whole_goes_on(tmp_path: Path) -> None:
    def broken(outputs: Any, targets: Any) -> float:
        raise ValueError("no such axis")

    with pytest.raises(OwnPartError, match="no such axis") as raised:
        auto(model(), tmp_path / "auto", metrics={"mine": broken})
    assert str(raised.value).endswith(f"out={str(tmp_path / 'auto')!r}")
    with pytest.raises(OwnPartError, match="no such axis") as raised:
        zoo.select.cross_validate(
            model(), DATA[0], folds=2, recipe="linear-probe", metrics={"mine": broken}, quiet=True, out=tmp_path / "cv"
        )
    assert "fold-0'" not in str(raised.value)


def test_options_that_contradict_are_refused_together() -> None:
    with pytest.raises(OptionError, match=r"(?s)trains: .*freeze='all'"):
        model().fit(*DATA, recipe="auto", trains="bias", freeze="all")
    with pytest.raises(OptionError, match="objective"):
        model().fit(*DATA, recipe="auto", objective=lambda supervised: supervised)
    with pytest.raises(OptionError, match="no recipe is given; add recipe='auto'"):
        model().fit(*DATA, budget="1min")
    with pytest.raises(OptionError, match="recipe is 'full'; leave one of them out"):
        model().fit(*DATA, budget="1min", recipe="full")
    with pytest.raises(OptionError, match="valid=False"):
        model().fit(DATA[0], False, recipe="auto")
    with pytest.raises(OptionError, match="did you mean 'epochs'"):
        model().fit(*DATA, recipe="auto", epoch=3)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_other_tasks_choose_by_their_own_metric(task: str, tmp_path: Path) -> None:
    pixels, names = images(36)
    numbers = np.asarray([("blue", "green", "red").index(name) for name in names])
    labels = np.eye(3)[numbers].tolist() if task == "multi-label" else numbers.astype(float).tolist()
    run = auto(model(1 if task == "regression" else 3, task=task), tmp_path / "run", (pixels, labels), (pixels, labels))
    assert len(run.candidates) > 1
    assert run.monitor == {"multi-label": "map", "regression": "mae"}[task]
    assert zoo.load(run.dir).task == task


def test_the_command_prints_a_table_that_fits_into_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, names = images(30)
    for number, (image, name) in enumerate(zip(pixels, names, strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "data" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    words = ["train", "zoo/glyphnet", "data", "--recipe", "auto", "--budget", "30s", "--epochs", "2", "--quiet", "--out", "run"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert printed.startswith("candidate")
    assert "probe" in printed
    assert max(map(len, printed.partition("\n\n")[0].splitlines())) <= 80
    for wrong in (["--num-processes", "2"], ["--no-valid"], ["--budget", "soon"]):
        with pytest.raises(SystemExit) as ended:
            main([*words[:-1], "other", *wrong])
        assert ended.value.code != 0
        assert wrong[0].strip("-") in capsys.readouterr().err


def clocked(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[float]:
    """Return a clock that stands still but for dry runs, training, judging and the end, each of which takes so many seconds."""
    from zoo.select.recipe_search import auto, search, trial

    now = [0.0]

    def slow(real: Any, kind: str) -> Any:
        def run(*given: Any, **options: Any) -> Any:
            now[0] += seconds.get(kind, 0.0)
            return real(*given, **options)

        return run

    monkeypatch.setattr(trial, "preview_job", slow(trial.preview_job, "dry_run"))
    monkeypatch.setattr(search, "run_job", slow(search.run_job, "run"))
    monkeypatch.setattr(search, "evaluate", slow(search.evaluate, "judging"))
    monkeypatch.setattr(auto, "draw_candidates", slow(auto.draw_candidates, "end"))
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "budget", "tried"),
    [({"judging": 10.0}, 25, 2), ({"dry_run": 10.0}, 35, 3), ({"dry_run": 4.0, "end": 10.0}, 30, 2)],
)
def test_the_budget_holds_with_what_is_beside_the_training(
    seconds: dict[str, float], budget: int, tried: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clocked(monkeypatch, **seconds)
    run = auto(model(), tmp_path / "run", budget=budget)
    assert now[0] <= budget
    assert len([row for row in run.candidates if row["score"] is not None]) == tried


def test_the_time_before_the_first_run_is_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.select.recipe_search import auto as module

    now, real = clocked(monkeypatch), module.check_auto

    def slow(options: Any) -> None:
        now[0] += 20.0
        real(options)

    monkeypatch.setattr(module, "check_auto", slow)
    assert "the budget is 15.0 s, so nothing else was tried" in auto(model(), tmp_path / "run", budget="15s").choice


@pytest.mark.usefixtures("toys")
def test_a_run_that_takes_longer_than_estimated_is_stopped_with_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.engine.train import trainer

    now, real = clocked(monkeypatch), trainer.Training._epoch

    def slow(self: Any, epoch: Any) -> Any:
        now[0] += 0.0 if epoch.solved else 100.0
        return real(self, epoch)

    monkeypatch.setattr(trainer.Training, "_epoch", slow)
    net = model()
    run = auto(net, tmp_path / "run", budget="90s")
    assert now[0] == 100.0  # one epoch, which was estimated to take no time
    assert [row["name"] for row in run.candidates if row["score"] is not None] == ["probe"]
    assert "its run was stopped, as it took longer than estimated and the budget of 90.0 s was over" in run.candidates[1]["note"]
    assert difference(values(zoo.load(run.dir)), values(net)) == 0.0


def test_the_plan_of_a_choice_says_what_it_would_try_and_take_and_leaves_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.select.recipe_search import search

    monkeypatch.setattr(search, "run_job", lambda *_: pytest.fail("a plan runs nothing"))
    net = model()
    before = values(net)
    told = net.plan(*DATA, recipe="auto", batch_size=8, epochs=8).to_dict()
    assert difference(before, values(net)) == 0.0
    assert (told["samples"], told["valid"], told["budget"], told["given"]) == (36, 24, 60.0, False)
    assert (told["candidates"][0]["name"], told["candidates"][0]["epochs"]) == ("probe", (1,))
    whole = next(one for one in told["candidates"] if one["name"] == "layer-decay")
    assert whole["epochs"] == (3, 5, 8)
    assert 0 < whole["seconds"][0] < whole["seconds"][-1] < told["seconds"]
    assert net.plan(*DATA, recipe="auto", budget="10min", batch_size=8, epochs=2).to_dict()["budget"] == 600.0
    with pytest.raises(OptionError, match=r"budget \(--budget\) is for recipe='auto'"):
        net.plan(*DATA, recipe="top", budget="10min")
    with pytest.raises(OptionError, match="no recipe is given"):
        net.plan(*DATA, budget="10min")
    with pytest.raises(OptionError, match="log_with: a tracker"):
        net.plan(*DATA, recipe="auto", log_with="tensorboard")


def test_the_rounds_of_a_plan_take_what_the_longest_runs_take() -> None:
    from zoo.select.recipe_search.plan import of_rounds

    assert of_rounds([]) == 0.0
    assert of_rounds([(1.0, 2.0, 4.0)]) == 4.0  # one alone runs wholly at once
    assert of_rounds([(1.0, 2.0, 4.0), (2.0, 4.0, 8.0), (3.0, 6.0, 12.0)]) == 6.0 + (6.0 + 4.0) + 12.0

"""The automatic choice: runs of the candidates, a record of what each validator said, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.engine.rank_work import plain
from tests.engine.tiny import difference, values
from tests.transfer.domain.toy import NAMES, SOURCE, TARGET, TEST, VALID, adapted, domain
from tests.transfer.rank_work import small_backbones
from zoo.cli import main
from zoo.engine.train.job import resolve_job
from zoo.errors import CorruptInputError, DataError, InterruptedRunError, OptionError, SavedModelError
from zoo.registry.registry import use_registry
from zoo.transfer import DomainAdaptation, SourceFree, adapt_source_free
from zoo.transfer.domain.choosing.estimates import Estimates
from zoo.transfer.domain.shift import named_differences


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    use_registry(small_backbones())
    yield
    use_registry()


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return adapted(tmp_path_factory.mktemp("auto") / "run", "auto", epochs=16, candidates="dann, mcc")


def test_the_choice_helps_on_the_target_and_is_a_saved_model(chosen: tuple[Any, Any]) -> None:
    net, run = chosen
    assert net.evaluate(TEST)["accuracy"] > 0.85
    assert difference(values(zoo.load(run.dir)), values(net)) == 0.0
    assert "dann is chosen" in run.choice


def test_the_record_says_what_each_validator_thought_and_how_large_the_shift_is(chosen: tuple[Any, Any]) -> None:
    record = json.loads((chosen[1].dir / "run.json").read_text())["adaptation"]
    assert [row["method"] for row in record["candidates"]] == ["source-only", "dann", "mcc"]
    assert all({"accuracy", "infomax", "entropy", "snd", "dev", "votes", "kept"} <= set(row) for row in record["candidates"])
    assert record["shift"]["auroc"] > 0.75


def test_a_finished_choice_is_given_again_and_the_chosen_run_is_that_of_its_method_alone(chosen: tuple[Any, Any], tmp_path: Path) -> None:
    net, run = chosen
    again, found = adapted(run.dir, "auto", epochs=16, candidates="dann, mcc", resume=True)
    assert difference(values(again), values(net)) == 0.0
    assert again.labels == net.labels
    assert again.inputs == net.inputs
    assert found.choice == run.choice
    alone, _ = adapted(tmp_path, "dann", epochs=16)
    assert difference(values(alone), values(net)) == 0.0


def test_a_finished_choice_is_not_given_for_other_options_data_or_candidates(chosen: tuple[Any, Any]) -> None:
    objective = DomainAdaptation(TARGET[0][:40], candidates="mcc")
    with pytest.raises(SavedModelError) as raised:
        plain(2).fit(domain(60, 0), VALID, out=chosen[1].dir, resume=True, quiet=True, objective=objective, lr=0.5)
    wrong = (
        "candidates was 'dann, mcc' and is 'mcc'",
        "lr was 0.01 and is 0.5",
        "the train data had 64 samples and have 60",
        "target data",
    )
    assert all(part in str(raised.value) for part in wrong)


def test_an_interrupted_choice_says_how_the_choice_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        error = InterruptedRunError("stopped")
        error.exit_code = 143
        raise error

    monkeypatch.setattr("zoo.transfer.domain.choosing.comparison.run_job", stopped)
    with pytest.raises(InterruptedRunError, match=r"Go on with resume=True \(--resume\) and out='.*run'") as raised:
        adapted(tmp_path / "run", "auto", candidates="mcc")
    assert raised.value.exit_code == 143


def test_source_only_is_kept_where_the_target_is_like_the_source(tmp_path: Path) -> None:
    net, like = plain(2, head="mlp", hidden=16, dropout=0.0), domain(64, 7)[0]
    how: dict[str, Any] = {"recipe": "full", "epochs": 4, "batch_size": 16, "lr": 1e-2, "augment": "none", "workers": 0, "quiet": True}
    run = net.fit(SOURCE, VALID, out=tmp_path / "run", objective=DomainAdaptation(like, candidates=["coral"]), **how)
    assert "source-only is kept" in run.choice
    assert net.evaluate(domain(64, 8))["accuracy"] > 0.95


def test_a_candidate_that_cannot_train_or_has_no_time_is_left_out_with_the_reason(tmp_path: Path) -> None:
    net = plain(2)
    objective = DomainAdaptation(TARGET[0], candidates="coral,mcc", budget=1e-3)
    run = net.fit(SOURCE, VALID, out=tmp_path / "budget", recipe="linear-probe", epochs=1, quiet=True, objective=objective)
    assert all("left out: it would take about" in row["note"] for row in run.candidates[1:])
    objective = DomainAdaptation(TARGET[0], candidates="coral")
    run = plain(2).fit(SOURCE, VALID, out=tmp_path / "frozen", recipe="linear-probe", epochs=1, quiet=True, objective=objective)
    assert "no feature can move" in run.candidates[1]["note"]


PLAN = (
    "source-only, mcc, dan are trained one after the other by recipe 'lp-ft': "
    "probe, 2 epochs of the head alone; full, 1 epoch of 4 of 4 layer groups and the head"
)


def test_what_is_trained_and_how_long_it_takes_is_told_before_the_first_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objective = DomainAdaptation(TARGET[0], candidates="mcc,dan")
    how: dict[str, Any] = {"recipe": "lp-ft", "epochs": 3, "augment": "none", "workers": 0, "objective": objective}
    plain(2).fit(SOURCE, VALID, out=tmp_path / "run", **how)
    lines = [line.removeprefix("auto: ") for line in capsys.readouterr().err.splitlines() if line.startswith("auto: ")]
    first = lines.index("source-only")
    assert lines[1] == PLAN
    assert lines[2].startswith("all of them would take about ")
    assert first == 3
    assert "s; about " in lines[first + 1]
    assert "left" not in next(line for line in lines if line.startswith("dan: "))  # the last one


def test_estimates_follow_the_runs_and_name_cheaper_ways_where_they_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"source-only": 40.0, "coral": None, "mcc": 100.0}
    phase = SimpleNamespace(name="tune", epochs=2, frozen=0, groups=range(4))
    plans = {name: value and SimpleNamespace(seconds=value, phases=(phase,)) for name, value in seconds.items()}
    monkeypatch.setattr("zoo.transfer.domain.choosing.estimates._plan", lambda name: plans[name])
    job = resolve_job(plain(2), None, None, recipe="full", options={}, objective=None)
    estimates = Estimates(job, lambda name: name, list(seconds))  # type: ignore[arg-type,return-value]
    assert [estimates.of(name) for name in seconds] == [40.0, 100.0, 100.0]
    assert "--budget 5min" in estimates.lines(None)[1]
    assert "--budget" not in estimates.lines(30.0)[1]
    assert "4 min" in estimates.lines(None)[1]
    estimates.add("source-only", 20.0)
    assert estimates.of("mcc") == 50.0
    assert estimates.left(["coral", "mcc"]) == "; about 100.0 s for those that are left"


def test_a_spectral_penalty_is_for_the_candidates_that_align_features_and_not_for_the_baseline(tmp_path: Path) -> None:
    objective = DomainAdaptation(TARGET[0], candidates="coral", spectral=1e-4)
    run = plain(2).fit(SOURCE, VALID, out=tmp_path / "run", recipe="full", epochs=1, quiet=True, keep_checkpoints=True, objective=objective)
    assert [row["seconds"] > 0 for row in run.candidates] == [True, True]
    used = [json.loads((run.dir / row["folder"] / "run.json").read_text())["objective"]["spectral"] for row in run.candidates]
    assert used == [0.0, 1e-4]


def test_what_cannot_be_chosen_is_told_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="valid=False: method 'auto' needs held-out samples"):
        plain(2).fit(SOURCE, False, out=tmp_path, objective=DomainAdaptation(TARGET[0]))
    with pytest.raises(DataError, match="the target is the source"):
        plain(2).fit(SOURCE, VALID, out=tmp_path, quiet=True, objective=DomainAdaptation(SOURCE[0]))
    others = (TARGET[0], ["cat"] * len(TARGET[0]))
    for method in ("auto", "mcc"):
        with pytest.raises(DataError, match=r"no name of the target is a class of the source: cat;.* or give the target without labels"):
            plain(2).fit(SOURCE, VALID, out=tmp_path / "other", quiet=True, objective=DomainAdaptation(others, method=method))
    assert not (tmp_path / "other").exists()
    with pytest.raises(OptionError, match="the task is regression, and the validators need one class"):
        plain(1, task="regression").fit((SOURCE[0], np.arange(64.0)), out=tmp_path, quiet=True, objective=DomainAdaptation(TARGET[0]))


@pytest.mark.parametrize(
    ("options", "labels", "expected"),
    [
        ({"classes": 2}, ["cat", "dog"], "no name of the target is a class of the source: cat, dog"),
        ({"classes": 2}, [0, 1], ""),  # indices of the classes
        ({"classes": 2, "task": "multi-label"}, ["dark|light", "light"], ""),
        ({"classes": 2, "task": "multi-label"}, ["dark|dim", "light"], "the target names 1 class that the source lacks: dim"),
        ({"classes": 1, "task": "regression"}, [0.5, 1.5], ""),
    ],
)
def test_labels_of_the_target_are_compared_as_those_of_the_task(options: dict[str, Any], labels: list[Any], expected: str) -> None:
    classes = () if options.get("task") == "regression" else NAMES
    try:
        found = " ".join(named_differences(plain(**options), classes, (TARGET[0][:2], labels)))
    except DataError as error:
        found = str(error)
    assert found.startswith(expected) if expected else not found


def test_a_model_is_adapted_without_its_source(tmp_path: Path) -> None:
    net = adapted(tmp_path / "source", "source-only", epochs=4)[0]
    classifier = net.head.linear.weight.detach().clone()
    before = net.evaluate(TEST)["accuracy"]
    how: dict[str, Any] = {"recipe": "full", "epochs": 12, "batch_size": 16, "lr": 1e-2, "augment": "none", "workers": 0, "quiet": True}
    adapt_source_free(net, TARGET[0], out=tmp_path / "target", **how)
    assert before < 0.65
    assert net.evaluate(TEST)["accuracy"] > 0.85
    assert (net.head.linear.weight == classifier).all()
    assert net.head.linear.weight.requires_grad


@pytest.mark.parametrize("recipe", ["lp-ft", "gradual"])
def test_a_recipe_with_a_phase_of_the_held_classifier_alone_is_refused_before_anything_trains(recipe: str, tmp_path: Path) -> None:
    net = plain(2)
    net.fit(SOURCE, False, out=tmp_path / "source", recipe="linear-probe", quiet=True)
    with pytest.raises(DataError, match="the target is the source: the model was trained on the data in memory"):
        adapt_source_free(net, SOURCE, out=tmp_path / "source-again", recipe=recipe, quiet=True)
    with pytest.raises(OptionError, match=rf"nothing trains in .* of recipe '{recipe}': the classifier is held; take recipe='full'"):
        adapt_source_free(net, TARGET[0], out=tmp_path / "target", recipe=recipe, quiet=True)


def test_a_new_model_is_not_adapted_without_a_source(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="the head is new; train the model on the source first"):
        adapt_source_free(plain(2), TARGET[0], out=tmp_path, recipe="full", quiet=True)
    with pytest.raises(OptionError, match="pseudo is -1"):
        SourceFree(pseudo=-1)


def test_the_command_prints_the_table_and_leaves_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (pixels, labels) in {"source": domain(20, 0), "target": domain(12, 2, target=True)}.items():
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = tmp_path / name / ("new" if name == "target" and label == NAMES[0] else label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    places = [str(tmp_path / name) for name in ("source", "target")]
    words = [
        "adapt-domain",
        "zoo/glyphnet",
        *places,
        "--candidates",
        "mcc",
        "--recipe",
        "linear-probe",
        "--epochs",
        "1",
        "--weights",
        "none",
    ]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--quiet", "--set", "workers=0", "--out", str(tmp_path / "run")])
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("method", "infomax", "dev", "source-only", "mcc", str(tmp_path / "run")))
    record = json.loads((tmp_path / "run" / "run.json").read_text())["adaptation"]
    assert "the target names 1 class that the source lacks: new (open set)" in record["differences"]
    assert any("dark (partial)" in line for line in record["differences"])


def pngs(folder: Path, found: tuple[Any, list[str]], names: list[str]) -> Path:
    """Write images into subfolders."""
    for row, (pixels, name) in enumerate(zip(found[0], names, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(folder / name / f"{row}.png")
    return folder


@pytest.fixture
def nested(tmp_path: Path) -> tuple[Path, Path]:
    """A source by class, and a target in subfolders of other names with a file that is no image."""
    source, target = domain(24, 0), domain(24, 1, target=True)
    folders = pngs(tmp_path / "source", source, source[1]), pngs(tmp_path / "target", target, ["monday", "friday"] * 12)
    (folders[1] / "monday" / "broken.png").write_text("no image")
    return folders


@pytest.mark.parametrize(
    "objective",
    [
        lambda data: DomainAdaptation(data, method="mcc"),
        lambda data: zoo.transfer.FixMatch(data, strength=0),
        lambda data: zoo.transfer.Distill(plain(classes=len(NAMES)), weight=0, features="stage.2", unlabelled=data),
    ],
)
def test_damaged_samples_of_further_data_are_left_out_where_the_run_says_so(
    objective: Any, nested: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = nested
    options: dict[str, Any] = {"epochs": 2, "recipe": "full", "lr": 1e-3, "workers": 0, "quiet": True}
    with pytest.raises(CorruptInputError, match=r"broken\.png"):
        plain(classes=len(NAMES)).fit(source, objective=objective(target), out=tmp_path / "raise", **options)
    plain(classes=len(NAMES)).fit(source, objective=objective(target), on_corrupt="skip", out=tmp_path / "skip", **options)
    assert "1 sample of 25 (4.0%) cannot be decoded and is left out" in caplog.text


def test_folders_of_unlabelled_samples_are_told_in_one_line_and_a_candidate_names_the_chosen_model(
    nested: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = nested
    out = tmp_path / "run"
    model = plain(classes=len(NAMES))
    choose = DomainAdaptation(target, candidates=["mcc"])
    model.fit(source, objective=choose, recipe="full", epochs=1, lr=1e-3, workers=0, quiet=True, on_corrupt="skip", out=out)
    told = json.loads((out / "run.json").read_text())["adaptation"]["differences"]
    assert [line.partition(";")[0] for line in told if "name" in line] == ["no name of the target is a class of the source: friday, monday"]
    assert caplog.text.count("no name of the target is a class of the source") == 1
    with pytest.raises(SavedModelError, match=r"finished and its model was not kept.*the chosen one is in '.*run'"):
        zoo.load(out / "candidates" / "mcc")


def test_a_tracker_is_refused_with_the_remedy_of_python_as_no_command_has_one(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        plain(2).fit(SOURCE, VALID, out=tmp_path, quiet=True, objective=DomainAdaptation(TARGET[0]), log_with="tensorboard")
    assert "several are made; name a method: DomainAdaptation(target, method='coral')" in str(caught.value)
    assert "zoo train" not in str(caught.value)


def test_the_labels_of_a_target_are_not_warned_of_as_they_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = (TARGET[0], [("?", "dark", "Dark")[row % 3] for row in range(len(TARGET[0]))])
    how: dict[str, Any] = {"recipe": "full", "epochs": 1, "augment": "none", "workers": 0, "quiet": True}
    plain(2).fit(SOURCE, False, out=tmp_path, objective=DomainAdaptation(target, method="coral"), **how)
    assert "differ in case" not in caplog.text
    assert "open set" in caplog.text

"""Tasks are objects: a fifth one comes from outside, in one file, and does all that the built-in ones do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zoo
import zoo.builtin
from tests.engine.tiny import images
from tests.ordinal_task import OrdinalPlugin
from tests.toy import ToyPlugin
from zoo.cli import main
from zoo.errors import AmbiguousNameError, OptionError, SavedModelError
from zoo.registry.registry import Registry, use_registry
from zoo.tasks.find import BUILTIN
from zoo.tasks.task import BUILTIN_NAMES

NAMES = ["blue", "green", "red"]


@pytest.fixture
def ordinal() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyPlugin(), OrdinalPlugin()], files=[]))
    yield
    use_registry()


def model(**options: Any) -> zoo.TaskModel:
    return zoo.get("toy/net", weights=False).adapt(3, task="ordinal", labels=NAMES, seed=1, **options)


@pytest.mark.usefixtures("ordinal")
def test_a_task_from_outside_trains_evaluates_saves_predicts_and_is_planned(tmp_path: Path) -> None:
    net = model()
    plan = net.plan(images(48), images(12, seed=1), epochs=2, batch_size=8)
    assert plan.task == "ordinal"
    run = net.fit(images(48), images(12, seed=1), out=tmp_path / "run", recipe="full", epochs=6, lr=2e-2, batch_size=8, quiet=True)
    assert run.monitor == "mean_step"
    values = [record["mean_step"] for record in run.history]
    assert values[run.kept - 1] == min(values)
    metrics = net.evaluate(images(12, seed=1))
    assert metrics["mean_step"] == pytest.approx(run.metrics["mean_step"])
    loaded = zoo.load(tmp_path / "run")
    assert loaded.task == "ordinal"
    predicted = loaded.predict(images(12, seed=1)[0])
    assert set(predicted) <= set(NAMES)
    found = sum(one == other for one, other in zip(predicted, images(12, seed=1)[1], strict=True)) / 12
    assert found == pytest.approx(metrics["accuracy"])


@pytest.mark.usefixtures("ordinal")
def test_a_task_without_probabilities_or_intervals_says_so() -> None:
    net = model()
    with pytest.raises(OptionError, match="has no probabilities"):
        net.predict_proba(images(3)[0])
    with pytest.raises(OptionError, match="intervals"):
        net.evaluate(images(12), intervals=0.95)
    with pytest.raises(OptionError, match="specificity"):
        net.evaluate(images(12), specificity=0.95)


@pytest.mark.usefixtures("ordinal")
def test_a_saved_model_of_a_task_that_is_not_installed_names_it(tmp_path: Path) -> None:
    model().save(tmp_path / "saved")
    use_registry(Registry(plugins=[zoo.builtin, ToyPlugin()], files=[]))
    with pytest.raises(SavedModelError, match=r"there is no task 'ordinal'.*plugin"):
        zoo.load(tmp_path / "saved")


@pytest.mark.usefixtures("ordinal")
def test_a_misspelt_task_is_told_with_the_nearest_one_those_of_plugins_too() -> None:
    with pytest.raises(OptionError, match=r"did you mean 'ordinal'"):
        zoo.get("toy/net", weights=False).adapt(3, task="ordnal")


def test_a_task_of_two_plugins_is_told() -> None:
    class Other(OrdinalPlugin):
        pass

    use_registry(Registry(plugins=[zoo.builtin, ToyPlugin(), OrdinalPlugin(), Other()], files=[]))
    try:
        with pytest.raises(AmbiguousNameError, match="'ordinal' is given by"):
            zoo.get("toy/net", weights=False).adapt(3, task="ordinal")
    finally:
        use_registry()


def _raises() -> Any:
    raise ZeroDivisionError("no such number")


class Nameless(zoo.Task):
    pass


class Halfway(zoo.Task):
    name, has_classes = "halfway", False


class Copied(Nameless):
    name = "regression"


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (_raises, "zoo_tasks raised ZeroDivisionError"),
        (lambda: [Nameless()], "it has no name"),
        (lambda: [Halfway()], r"no encode\(\); .*no metrics\(\); .*no decode\(\); .*no loss\(\); .*no outputs\(\)"),
        (lambda: [Copied()], "that of a built-in task"),
        (lambda: [Halfway], "1 item that are no Task"),
    ],
)
def test_a_broken_task_is_named_with_its_plugin_and_takes_no_other_down(
    give: Any, told: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        @zoo.hookimpl
        def zoo_tasks(self) -> Any:
            return give()

    use_registry(Registry(plugins=[zoo.builtin, ToyPlugin(), Broken(), OrdinalPlugin()], files=[]))
    try:
        assert zoo.get("toy/net", weights=False).adapt(3, task="ordinal").task == "ordinal"
        assert re.search(f"Broken.*{told}", caplog.text), caplog.text
        with pytest.raises(OptionError, match="did you mean 'regression'"):
            zoo.get("toy/net", weights=False).adapt(3, task="regresion")
    finally:
        use_registry()


def test_the_reserved_names_are_those_of_the_built_in_tasks() -> None:
    assert tuple(BUILTIN) == BUILTIN_NAMES


@pytest.mark.parametrize("name", BUILTIN)
def test_every_monitor_of_a_task_is_one_that_can_be_chosen(name: str) -> None:
    task = BUILTIN[name]
    assert set(task.lower_is_better) <= {*task.monitors, "loss"}
    assert "loss" in task.monitors


def test_no_branch_on_a_tasks_name_is_left() -> None:
    root = Path(zoo.__file__).parent
    found = [
        f"{path.relative_to(root)}:{number}"
        for path in root.rglob("*.py")
        if "tasks" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for name in BUILTIN
        if f'== "{name}"' in line or f'!= "{name}"' in line or (f'("{name}"' in line and " in (" in line)
    ]
    assert not found, found


@pytest.mark.usefixtures("ordinal")
def test_the_command_line_takes_a_task_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for index in range(12):
        for name, value in (("a", 30), ("b", 120), ("c", 220)):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (value, index, 0)).save(tmp_path / "data" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "toy/net",
        "data",
        "--weights",
        "none",
        "--task",
        "ordinal",
        "--recipe",
        "full",
        "--epochs",
        "1",
        "--out",
        "r",
        "--quiet",
    ]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert not stop.value.code, capsys.readouterr().err
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["predict", "r", "data/a/0.png", "--json"])
    assert not stop.value.code
    (row,) = json.loads(capsys.readouterr().out)
    assert row["label"] in ("a", "b", "c")
    assert "probabilities" not in row

"""Each step of a command is taken once: what was resolved, opened or joined is handed on and not found out again."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import zoo
import zoo.builtin
from tests.test_cli import Done, pictures, run  # noqa: F401  # fixtures
from tests.toy_text import ToyTextPlugin
from zoo.cli.arguments import settings
from zoo.cli.commands import training
from zoo.data import open as opening
from zoo.data.sources import read as reading
from zoo.engine.distributed import rendezvous
from zoo.engine.options import resolve as configuration
from zoo.engine.options.recipes import default_recipe
from zoo.models import find
from zoo.plugins import loader
from zoo.registry.registry import Registry, use_registry
from zoo.saved import config

OPTIONS = ("--weights", "none", "--epochs", 1, "--batch-size", 8, "--image-size", 32, "--quiet")
STEPS: dict[str, Any] = {
    "settings merged": settings.merge,
    "configuration resolved": configuration.resolve,
    "data opened": opening.open_train_valid,
    "source read": reading.read,
    "processes joined": rendezvous.join_processes,
    "plugins found": loader.find_plugins,
    "backbone found": find.find_backbone,
    "name resolved": Registry.resolve,
    "saved model read": config.read_config,
}
ONCE = dict.fromkeys(STEPS, 1) | {"saved model read": 0}


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the calls of ``STEPS``, by whatever name a module may have imported them."""
    names = {function.__code__: name for name, function in STEPS.items()}
    found = Counter(dict.fromkeys(STEPS, 0))

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in names:
            found[names[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(before)


def test_a_training_takes_every_step_once(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    with counted() as found:
        done = run("train", "zoo/glyphnet", pictures, "--out", "run", *OPTIONS)
    assert done.code == 0, done.err
    assert found == ONCE


def test_a_training_with_a_source_of_its_own_for_validation_reads_each_once(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    with counted() as found:
        done = run("train", "zoo/glyphnet", pictures / "train", "--valid", pictures / "val", "--out", "run", *OPTIONS)
    assert done.code == 0, done.err
    assert found == ONCE | {"source read": 2}


def test_one_of_several_processes_joins_the_others_once(
    run: Callable[..., Done],  # noqa: F811
    pictures: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "launched", lambda: 2)  # joining still finds one, so that nothing has to be waited for
    with counted() as found:
        done = run("train", "zoo/glyphnet", pictures, "--out", "run", *OPTIONS)
    assert done.code == 0, done.err
    assert found == ONCE


def test_a_plan_takes_every_step_once_and_joins_nobody(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    with counted() as found:
        done = run("plan", "zoo/glyphnet", pictures, "--json", *OPTIONS)
    assert done.code == 0, done.err
    assert found == ONCE | {"processes joined": 0}


def test_a_saved_model_is_found_once_and_so_is_the_backbone_that_it_names(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    assert run("train", "zoo/glyphnet", pictures, "--out", "first", *OPTIONS).code == 0
    with counted() as found:
        done = run("plan", "first", pictures, *OPTIONS)
    assert done.code == 0, done.err
    assert found == ONCE | {"processes joined": 0, "plugins found": 0, "saved model read": 1}


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_a_model_that_is_used_is_read_and_found_once(command: str, run: Callable[..., Done], pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    zoo.get("zoo/glyphnet", weights=False).adapt(2, labels=["dark", "light"]).save(tmp_path / "saved")
    with counted() as found:
        done = run(command, "saved", pictures / "val", "--json")
    assert done.code == 0, done.err
    assert (found["saved model read"], found["name resolved"]) == (1, 1)


def test_fit_and_plan_resolve_and_open_once(pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    model = zoo.get("zoo/glyphnet", weights=False).adapt(2)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 8, "image_size": 32, "quiet": True}
    for call, joined in ((model.plan, 0), (model.fit, 1)):
        with counted() as found:
            call(pictures, out=tmp_path / "run", **options)
        assert (found["configuration resolved"], found["data opened"], found["source read"]) == (1, 1, 1)
        assert found["processes joined"] == joined


def test_what_is_logged_of_the_data_is_told_once_and_after_the_checks(
    run: Callable[..., Done],  # noqa: F811
    pictures: Path,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    loud = [option for option in OPTIONS if option != "--quiet"]
    done = run("train", "zoo/glyphnet", pictures / "train", "--recipe", "gradual", "--out", "run", *loud)
    assert done.code == 0, done.err
    starts, left_out, held_out = caplog.messages
    assert "starts from random values, and the recipe" in starts
    assert "left out" in left_out
    assert "2 of 12 samples (17 %) held out stratified by class, seed 0" in held_out


def test_a_text_model_is_trained_by_the_default_recipe(run: Callable[..., Done], tmp_path: Path) -> None:  # noqa: F811
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    (tmp_path / "texts.csv").write_text(
        "text,label\n" + "".join(f"it is {word} {row},{word}\n" for row in range(8) for word in ("hot", "cold"))
    )
    words = ("toy/text", "texts.csv", "--weights", "none", "--epochs", 2, "--batch-size", 8)
    done = run("train", *words, "--out", "run", "--quiet")
    assert done.code == 0, done.err
    kept = json.loads((tmp_path / "run/run.json").read_text())["config"]["recipe"]
    assert kept == json.loads(json.dumps(asdict(default_recipe("single-label")))) | {"batch_size": 8}
    assert [phase["lr"] for phase in run("plan", *words, "--json").json["phases"]] == [0.0, pytest.approx(3e-4)]


def test_labels_that_may_be_those_of_a_regression_are_told(
    run: Callable[..., Done],  # noqa: F811
    pictures: Path,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As by ``fit``, which opens the data without their classes."""
    files = [
        pictures / split / label / f"{row}.png"
        for split, rows in (("train", 6), ("val", 3))
        for label in ("dark", "light")
        for row in range(rows)
    ]
    rows = [f"{file},{number}" for repeat in range(3) for number, file in enumerate(files, start=10 * repeat)]
    (tmp_path / "numbers.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    done = run("plan", "zoo/glyphnet", "numbers.csv", "--no-valid", *OPTIONS)
    assert done.code == 0, done.err
    assert [text for text in caplog.messages if "is the task 'regression'?" in text] == [
        "'numbers.csv': 54 samples have 38 classes, all of them numbers; is the task 'regression'?"
    ]

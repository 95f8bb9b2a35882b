"""Each step of a command is taken once: what was resolved, opened or joined is handed on and not found out again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import zoo
from tests.test_cli import Done, pictures, run  # noqa: F401  # fixtures
from zoo.cli import settings, training
from zoo.data import open as opening
from zoo.data import read as reading
from zoo.engine.distributed import rendezvous
from zoo.engine.options import config as configuration
from zoo.engine.options.recipes import default_recipe
from zoo.models import backbone
from zoo.plugins import loader
from zoo.registry.registry import Registry
from zoo.tasks.find import task_names

OPTIONS = ("--weights", "none", "--epochs", 1, "--batch-size", 8, "--image-size", 32, "--quiet")
STEPS: dict[str, Any] = {
    "settings merged": settings.merge,
    "configuration resolved": configuration.resolve,
    "data opened": opening.open_train_valid,
    "source read": reading.read,
    "processes joined": rendezvous.join_processes,
    "plugins found": loader.find_plugins,
    "backbone found": backbone.find_backbone,
    "name resolved": Registry.resolve,
}


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
    assert found == dict.fromkeys(STEPS, 1)


def test_a_training_with_a_source_of_its_own_for_validation_reads_each_once(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    with counted() as found:
        done = run("train", "zoo/glyphnet", pictures / "train", "--valid", pictures / "val", "--out", "run", *OPTIONS)
    assert done.code == 0, done.err
    assert found == dict.fromkeys(STEPS, 1) | {"source read": 2}


def test_one_of_several_processes_joins_the_others_once(
    run: Callable[..., Done],  # noqa: F811
    pictures: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "launched", lambda: 2)  # joining still finds one, so that nothing has to be waited for
    with counted() as found:
        done = run("train", "zoo/glyphnet", pictures, "--out", "run", *OPTIONS)
    assert done.code == 0, done.err
    assert found == dict.fromkeys(STEPS, 1)


def test_a_plan_takes_every_step_once_and_joins_nobody(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    with counted() as found:
        done = run("plan", "zoo/glyphnet", pictures, "--json", *OPTIONS)
    assert done.code == 0, done.err
    assert found == dict.fromkeys(STEPS, 1) | {"processes joined": 0}


def test_a_saved_model_is_found_once_and_so_is_the_backbone_that_it_names(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    assert run("train", "zoo/glyphnet", pictures, "--out", "first", *OPTIONS).code == 0
    with counted() as found:
        done = run("plan", "first", pictures, *OPTIONS)
    assert done.code == 0, done.err
    assert (found["backbone found"], found["name resolved"]) == (1, 1)


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


@pytest.mark.parametrize("task", task_names())
def test_options_are_resolved_alike_with_the_default_recipe_of_texts(task: str) -> None:
    """``zoo train`` resolves them before it looks up what the backbone reads."""
    usual, texts = (configuration.resolve(default_recipe(task, text=text), {"lr": 0.1}, task=task) for text in (False, True))
    assert usual.model_copy(update={"recipe": texts.recipe}).to_dict() == texts.to_dict()

"""Very few samples without validation data: the result of the default recipe is a mixture with what tuning began from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.engine.tiny import images, model
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.options.begun import as_begun, option_differences
from zoo.engine.options.recipes import FEW_SAMPLES, FEW_SHARE
from zoo.engine.options.resolve import resolve
from zoo.engine.train.fit import run_job
from zoo.engine.train.job import resolve_job


def glyphs(**options: Any) -> Any:
    return zoo.get("zoo/glyphnet").adapt(3, labels=["blue", "green", "red"], **options)


def share(net: Any, samples: int, valid: Any = False, objective: Any = None, **options: Any) -> float:
    """Return the share of the tuned values for a run of so many samples."""
    recipe = options.pop("recipe", None)
    job = resolve_job(net, None, valid, recipe=recipe, options=options, objective=objective)
    table = Table([*range(samples)], torch.zeros(samples, dtype=torch.int64).numpy(), ("a",))
    return float(job.sized((table, None if valid is False else table)).config.wise_ft)


def test_few_samples_mix_the_tuned_values_with_those_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zoo")
    found, lines = {}, {}
    for name, options in {"head": {"recipe": "linear-probe"}, "tuned": {"wise_ft": 1.0}, "mixed": {}}.items():
        net = glyphs()
        caplog.clear()
        run = net.fit(images(6), False, out=tmp_path / name, quiet=True, epochs=3, augment="none", **options)
        found[name], lines[name] = net.state_dict(), caplog.text
        assert (run.history[-1]["phase"] == "wise-ft") == (name == "mixed")
    assert any(not torch.equal(found["head"][name], value) for name, value in found["tuned"].items())
    for name, value in found["mixed"].items():
        if value.is_floating_point():
            assert torch.allclose(value, torch.lerp(found["head"][name], found["tuned"][name], FEW_SHARE), atol=1e-6), name
    assert "6 training samples are few" in lines["mixed"]
    assert "mixture" not in lines["tuned"] + lines["head"]


def parts(caplog: pytest.LogCaptureFixture, source: Any, **options: Any) -> tuple[int, int, float, bool]:
    """Return the numbers of training and validation samples of a plan, the share of the tuned values, and whether no hold-out is told."""
    caplog.clear()
    told = glyphs().plan(source, epochs=2, **options)
    return told.samples, told.valid, told.wise_ft, "none of" in caplog.text and "zoo cv" in caplog.text


def test_nothing_is_held_out_of_very_few_samples_unless_something_needs_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zoo")
    assert parts(caplog, images(FEW_SAMPLES)) == (FEW_SAMPLES, 0, FEW_SHARE, True)
    assert parts(caplog, images(9), wise_ft=1.0) == (9, 0, 1, True)
    assert parts(caplog, images(FEW_SAMPLES + 1)) == (14, 3, 1, False)
    for needs in (
        {"patience": 3},
        {"monitor": "accuracy"},
        {"schedule": "plateau"},
        {"metrics": {"mine": lambda truth, found: 0.0}},
        {"on_epoch": print},
        {"allow_leak": True},
        {"recipe": "lp-ft"},
    ):
        assert parts(caplog, images(9), **needs) == (6, 3, 1, False), needs
        assert ("of 9 samples are held out, too few to judge tuning by; valid=False" in caplog.text) == ("recipe" not in needs)


def test_splits_of_very_few_samples_are_kept_and_what_compares_still_holds_some_out() -> None:
    table = replace(open_data(images(9)), splits=("train",) * 6 + ("test",) * 3)
    assert (glyphs().plan(table, epochs=2).samples, glyphs().plan(table, epochs=2).valid) == (3, 3)
    train, valid = resolve_job(glyphs(), images(9), None, recipe=None, options={}, objective=None).open_data()
    assert (len(train), len(valid or ())) == (6, 3)  # as for tuning, recipe="auto" and baselines


def test_a_run_of_very_few_samples_is_that_of_all_of_them(tmp_path: Path) -> None:
    nets = glyphs(), glyphs()
    runs = [
        net.fit(images(6), valid, out=tmp_path / str(valid), quiet=True, epochs=2) for net, valid in zip(nets, (None, False), strict=True)
    ]
    assert all(torch.equal(value, nets[1].state_dict()[name]) for name, value in nets[0].state_dict().items())
    assert runs[0].metrics == runs[1].metrics
    records = [json.loads((run.dir / "run.json").read_text()) for run in runs]
    assert (records[0]["config"], records[0]["data"]) == (records[1]["config"], records[1]["data"])
    assert records[0]["data"]["valid"] is None


def test_a_run_that_began_with_a_hold_out_goes_on_with_it(tmp_path: Path) -> None:
    job = resolve_job(glyphs(), images(9), None, recipe=None, options={"epochs": 2}, objective=None, quiet=True)
    run = run_job(job, Ranks(), tmp_path / "run", resume=False)  # as earlier versions did
    assert "accuracy" in run.metrics
    net = glyphs()
    assert net.fit(images(9), epochs=2, out=tmp_path / "run", resume=True, quiet=True).metrics == run.metrics
    assert all(torch.equal(value, job.model.state_dict()[name]) for name, value in net.state_dict().items())


def test_the_plan_says_what_the_result_is_of() -> None:
    told = glyphs().plan(images(6), False, epochs=2)
    assert told.wise_ft == told.to_dict()["wise_ft"] == FEW_SHARE
    assert glyphs().plan(images(FEW_SAMPLES + 1), False, epochs=2).wise_ft == 1


def test_nothing_is_mixed_where_another_choice_was_made_or_nothing_was_measured() -> None:
    assert share(glyphs(), FEW_SAMPLES) == FEW_SHARE
    assert share(glyphs(), FEW_SAMPLES + 1) == 1
    assert share(glyphs(), 6, None) == 1  # validation data judge tuning
    assert share(glyphs(), 6, wise_ft=0.5) == 0.5
    assert share(glyphs(), 6, wise_ft=1.0) == 1
    others = ({"recipe": "full"}, {"recipe": "lp-ft"}, {"epochs": 1}, {"freeze": "all"}, {"objective": lambda supervised: supervised})
    assert [share(glyphs(), 6, **options) for options in others] == [1] * len(others)
    assert share(model(), 6) == 1  # random values are no start to keep to
    assert share(zoo.get("zoo/glyphnet").adapt(3, task="multi-label"), 6) == 1


def test_a_run_goes_on_whether_the_rule_or_an_option_gave_its_share() -> None:
    table = Table([*range(6)], torch.zeros(6, dtype=torch.int64).numpy(), ("a",))
    records = [
        resolve_job(glyphs(), None, False, recipe=None, options=options, objective=None).sized((table, None)).config.to_dict()
        for options in ({}, {"wise_ft": FEW_SHARE}, {"wise_ft": 1.0})
    ]
    assert not option_differences(records[0], records[1])
    assert [line.partition(" ")[0] for line in option_differences(records[0], records[2])] == ["wise_ft"]


def test_a_run_that_began_without_the_rule_goes_on_without_it() -> None:
    config = resolve("layer-decay", {})
    assert as_begun(config, config.to_dict()).mix_few
    before = {name: value for name, value in config.to_dict().items() if name != "mix_few"}
    assert not as_begun(config, before).mix_few
    assert not option_differences(config.to_dict(), before)  # such as a cross-validation of an earlier version

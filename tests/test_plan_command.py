"""The command plan: what it prints, and that it only looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_cli import Done, pictures, run  # noqa: F401  # fixtures
from zoo.engine.options import model_selection

OPTIONS = ("--weights", "none", "--batch-size", 8, "--image-size", 32)


def test_the_table_has_groups_phases_memory_and_time(run: Callable[..., Done], pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    done = run("plan", "zoo/glyphnet", pictures, "--recipe", "top", "--epochs", 3, "--out", "runs/one", *OPTIONS)
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert "12 training samples, 6 for validation, batch size 8" in done.out
    assert ["stem", "0.9k", "probe", "to", "top", "0", "frozen,", "eval"] in lines
    assert ["probe", "0.3k", "0", "0.05", "solved"] in [line[-5:] for line in lines]
    assert ["top", "57.7k", "0.0003", "0.05", "trains"] in lines
    (probe,) = [line for line in lines if line[:3] == ["probe", "1", "0"]]
    assert probe[3:9] == ["4", "of", "4", "solved", "-", "-"]
    (top,) = [line for line in lines if line[:3] == ["top", "2", "4"]]
    assert top[3:9] == ["2", "of", "4", "cosine", "0.0003", "6"]
    assert "top: frozen groups run once per sample; the cached activations take" in done.out
    assert lines[-1][0] == "estimated:"
    assert lines[-1][2] in ("kB", "MB")  # as the table of `zoo train --recipe auto`
    assert not [path for path in tmp_path.rglob("*") if path.name == "runs"]


def test_very_few_samples_are_not_held_out_and_that_is_told(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    words = ("zoo/glyphnet", pictures / "train", "--epochs", 2)
    done = run("plan", *words)
    assert "12 training samples, batch size 8" in done.out
    assert "none of the 12 samples are held out, so nothing is measured; zoo cv" in done.out
    assert "10 training samples, 2 for validation" in run("plan", *words, "--set", "patience=2").out


def test_a_run_of_an_earlier_version_goes_on_with_the_part_that_it_held_out(
    run: Callable[..., Done],  # noqa: F811
    pictures: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("train", "zoo/glyphnet", pictures / "train", "--epochs", 2, "--json", "--quiet", "--out")
    with monkeypatch.context() as earlier:
        earlier.setattr(model_selection, "FEW_SAMPLES", 0)
        begun = run(*words, "before").json["metrics"]
    assert "accuracy" in begun
    assert run(*words, "before", "--resume").json["metrics"] == begun
    assert run(*words, "today").json["metrics"] == {}
    assert run(*words, "compared", "--baselines").json["metrics"].keys() == begun.keys()


def test_one_json_document_has_all_of_it(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    done = run("plan", "zoo/glyphnet", pictures, "--json", "--recipe", "gradual", "--epochs", 2, "--lr", "auto", "--batch-size", "auto")
    told = done.json
    assert (told["lr"], told["batch_size"], told["samples"]) == ("auto", "auto", 12)
    assert [phase["name"] for phase in told["phases"]] == ["probe", "gradual 1/1"]
    assert told["phases"][1]["groups"][0]["lr"] == "auto"
    assert told["memory"] > 0
    assert told["seconds"] > 0


def test_settings_and_faults_are_those_of_train(run: Callable[..., Done], pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    config = tmp_path / "run.toml"
    config.write_text('recipe = "full"\nepochs = 2\nbatch_size = 4\nlabel_smoothing = 0.1\nweights = false\n')
    (phase,) = run("plan", "zoo/glyphnet", pictures, "--json", "--config", config).json["phases"]
    assert (phase["name"], phase["epochs"], phase["steps"]) == ("full", 2, 6)
    for words, facts in (
        (("x", "data", "--epoch", 3), "did you mean '--epochs'"),
        (("zoo/glyphnett", "data"), "did you mean 'zoo/glyphnet'"),
        (("zoo/glyphnet", "data", "--recipe", "lpft"), "did you mean 'lp-ft'"),
        (("zoo/glyphnet", "absent"), "absent"),
    ):
        done = run("plan", *words)
        assert done.code != 0
        assert facts in done.err


def test_the_search_for_a_recipe_is_planned_with_and_without_a_budget(run: Callable[..., Done], pictures: Path) -> None:  # noqa: F811
    words = ("plan", "zoo/glyphnet", pictures, "--recipe", "auto", "--epochs", 3, *OPTIONS)
    done = run(*words)
    assert done.code == 0
    assert "12 training samples, 6 for validation" in done.out
    assert [line.split()[0] for line in done.out.splitlines()[3:5]] == ["probe", "top"]
    assert "budget: 60.0 s, those of the probe and of 4 runs of the default recipe" in " ".join(done.out.split())
    told = run(*words, "--budget", "90s", "--json").json
    assert (told["budget"], told["given"], told["recipe"]) == (90.0, True, "auto")

"""The command ``zoo rank``: its table in 80 columns, its JSON, its errors before torch, and what it does then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.cli import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, shade in (("dark", 40), ("light", 180)):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(shade, shade + 60, (28, 28, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], own_cache: Path) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["rank", *map(str, words)])
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


def test_the_report_fits_80_columns_and_the_best_is_trained(run: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--candidates", "glyphnet", "--quiet", "--out", out, "--then", "train", "--set", "batch_size=8")
    code, printed, _ = run(photos, *words)
    assert code == 0
    report = printed.partition(str(out))[0]
    assert max(map(len, report.splitlines())) <= 80
    assert "zoo/glyphnet is the best" in " ".join(report.split())
    assert (out / "train" / "model.safetensors").is_file()
    assert json.loads((out / "rank.json").read_text(encoding="utf-8"))["best"] == "zoo/glyphnet"


def test_a_saved_model_that_is_the_best_is_trained(run: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path) -> None:
    zoo.get("zoo/glyphnet").adapt(2).save(tmp_path / "mine")
    words = ("--candidates", tmp_path / "mine", "--quiet", "--out", tmp_path / "out", "--then", "train", "--set", "batch_size=8")
    code, printed, _ = run(photos, *words)
    assert code == 0
    assert "saved/mine is the best" in " ".join(printed.split())
    assert zoo.load(tmp_path / "out" / "train").num_classes == 2


def test_an_option_out_of_range_is_told_as_the_rankings_own(run: Callable[..., tuple[int, str, str]], photos: Path) -> None:
    code, _, told = run(photos, "--candidates", "glyphnet", "--image-size", "0", "--set", "monitor=r2", "--set", "lr=1")
    assert code == 2
    assert "recipe" not in told
    assert "zoo rank has no option 'lr'" in told
    code, _, told = run(photos, "--candidates", "glyphnet", "--image-size", "0", "--set", "monitor=r2")
    assert code == 2
    assert "recipe" not in told
    for part in ("a ranking cannot run", "--image-size is 0", "monitor is 'r2'"):
        assert part in told


def test_json_is_one_document_and_a_second_call_needs_another_folder(
    run: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path
) -> None:
    words = (photos, "--candidates", "zoo/glyphnet", "--quiet", "--json", "--out", tmp_path / "out")
    code, printed, _ = run(*words)
    assert code == 0
    document = json.loads(printed)
    assert document["rows"][0]["probe"]["score"] > 0.9
    assert "draws" not in document["rows"][0]["probe"]
    code, _, error = run(*words)
    assert code == 1
    assert "--resume" in error
    code, printed, _ = run(*words, "--resume")
    assert json.loads(printed)["rows"] == document["rows"]


def test_faults_are_told_before_anything_is_built(run: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path) -> None:
    for words, text in (
        ((photos, "--candidates", "glyphnte"), "zoo/glyphnet"),
        ((tmp_path / "photo", "--candidates", "glyphnet"), "photos"),
        ((photos, "--max-memory", "lots"), "'500MB'"),
        ((photos, "--budget", "soon"), "10min"),
        ((photos, "--json", "--then", "train"), "zoo train --json"),
        (
            (photos, "--candidates", "glyphnet", "--max-params", "10", "--out", tmp_path / "x"),
            "--max-params is 10 parameters and excludes 1",
        ),
    ):
        code, _, error = run(*words)
        assert code in (1, 2)
        assert text in error
    assert not (tmp_path / "x").exists()

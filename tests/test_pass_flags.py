"""The flags of a pass over data: where it computes, how it reads, and what it prints."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest

import zoo
from tests.engine.tiny import NAMES, images
from tests.test_docs import run_zoo

PASSES = {
    "eval": ["eval", "model", "data"],
    "calibrate": ["calibrate", "model", "data"],
    "predict": ["predict", "model", "data"],
    "predict --out": ["predict", "model", "data", "--out", "found.csv"],
    "predict -": ["predict", "model", "-"],
    "embed": ["embed", "model", "data", "--json"],
    "soup": ["soup", "model", "other", "--valid", "data", "--out", "made"],
    "ensemble": ["ensemble", "model", "other", "--valid", "data", "--out", "made"],
}


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with two saved models and photos, one of which standard input names."""
    import PIL.Image

    monkeypatch.chdir(tmp_path)
    for number, pixels in enumerate(images(9)[0]):
        Path("data", NAMES[number % 3]).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(f"data/{NAMES[number % 3]}/{number}.png")
    zoo.get("zoo/glyphnet").adapt(3, labels=NAMES).save("model")
    shutil.copytree("model", "other")
    line = str(next(Path("data").glob("*/*.png"))).encode() + b"\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))


@pytest.mark.parametrize("name", PASSES)
def test_the_device_that_is_named_is_the_one_that_is_taken(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run_zoo([*PASSES[name], "--device", "abacus"], capsys)
    assert code == 2, told
    assert "device 'abacus' is not available here; it can be: cpu" in told


@pytest.mark.parametrize("name", PASSES)
def test_a_quiet_pass_prints_its_result_and_no_notes(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list[bool]()
    for module in ("evaluating", "calibrating", "selecting.merge"):
        monkeypatch.setattr(f"zoo.cli.commands.{module}.show_log", lambda: shown.append(True))
    code, told = run_zoo([*PASSES[name], "--device", "cpu", "--workers", "0", "--precision", "fp32", "--quiet"], capsys)
    assert (code, shown) == (0, []), told
    assert told.strip()

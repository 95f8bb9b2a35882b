"""Odd words on the command line: empty names, links to nothing, folders and devices for files, wrong values."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from tests.engine.tiny import NAMES
from tests.test_docs import run_zoo


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    zoo.get("zoo/glyphnet").adapt(3, labels=NAMES).save(folder / "model")
    (folder / "photo é 1.png").write_bytes(b"no picture")
    (folder / "notes.pt").write_text("hello, these are notes")
    (folder / "folder.csv").mkdir()
    (folder / "rows.csv").write_text("file_name,kind\nphoto é 1.png,red\n", encoding="utf-8")
    (folder / "texts.csv").write_text("Text,Label\nfine,good\nawful,bad\n", encoding="utf-8")
    (folder / "link").symlink_to("nowhere")
    return folder


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("predict|model|photo é 1.png|--out|", 2, "--out names no file"),
        ("eval|model|folder.csv|--confusion|", 2, "--confusion names no file"),
        ("convert|notes.pt|--out|", 2, "--out names no file"),
        ("convert|notes.pt|--out|net", 1, "'notes.pt' is refused: it begins with 'hello, these are notes'"),
        ("convert|model/model.safetensors|--out|net", 1, "pass it as --weights FILE"),
        ("convert|link|--out|net", 1, "it is a link to 'nowhere', which does not exist"),
        ("predict|model|link", 1, "it is a link to 'nowhere', which does not exist"),
        ("predict|link|photo é 1.png", 1, "it is a link to 'nowhere', which does not exist"),
        ("lock|zoo/glyphnet|--out|folder.csv", 1, "'folder.csv' is a folder"),
        ("predict|model|photo é 1.png|--image-size|0", 2, "--image-size is 0; it must be at least 1 pixel"),
        ("predict|model|photo é 1.png|--batch-size|0", 2, "--batch-size is 0; it must be at least 1"),
        ("predict|model|photo é 1.png|--on-error|skp", 2, "did you mean 'skip'?"),
        ("list|--image-size|x", 2, "'x' is no whole number"),
        ("data|chek|photo é 1.png", 2, "did you mean 'check'?"),
        ("predict|model|photo*.png", 1, "'photo*.png' is a pattern, which the shell expands where it has no quotes"),
        ("predict|model|photo**.png", 1, "'photo**.png' is a pattern, which the shell expands where it has no quotes"),
        ("eval|model|rows.csv|--columns|label", 2, "--columns 'label' is not of the form ROLE=COLUMN, such as label=kind"),
        ("eval|model|rows.csv|--label-columns|kind", 1, "a column of names is given as --columns label=kind"),
        ("train|zoo/glyphnet|texts.csv|--out|run", 1, "It seems to hold texts, and the model reads files"),
        ("rank|folder.csv|--metric|auroc", 2, "'--metric' (here: --set monitor=NAME)"),
    ],
)
def test_odd_words_are_one_clear_line(
    line: str, code: int, told: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    found, printed = run_zoo(line.split("|"), capsys)
    assert (found, told in printed) == (code, True), printed


def test_a_file_in_the_place_of_the_cache_is_named(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(desk / "notes.pt"))
    code, printed = run_zoo(["cache"], capsys)
    assert (code, "notes.pt' is a file; remove it, or set ZOO_CACHE to a folder" in printed) == (1, True), printed


def test_a_home_folder_is_found_where_the_shell_left_it_to_the_command(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import PIL.Image

    monkeypatch.setenv("HOME", str(tmp_path))
    PIL.Image.new("L", (32, 32)).save(tmp_path / "a b.png")
    code, printed = run_zoo(["embed", "zoo/glyphnet", str(tmp_path / "a b.png"), "--out=~/é/feat ures.npz"], capsys)
    assert (code, (tmp_path / "é" / "feat ures.npz").is_file()) == (0, True), printed
    assert "random values" not in caplog.text, "the head is not used"

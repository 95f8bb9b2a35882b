"""``zoo predict MODEL -``: a process that predicts the lines of its standard input, each as it comes."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zoo
from tests.engine import test_text
from tests.engine.tiny import NAMES, images
from tests.faults.fork_run import ended, fork
from tests.test_docs import run_zoo
from tests.toy_text import ToyTextPlugin
from zoo.cli.app import main
from zoo.registry.registry import Registry, use_registry


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved model, photos, and a file that is none."""
    import PIL.Image

    folder = tmp_path_factory.mktemp("desk")
    for number, pixels in enumerate(images(3)[0]):
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    zoo.get("zoo/glyphnet").adapt(3, labels=NAMES).save(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def there(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)


@pytest.fixture
def texts() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    yield
    use_registry()


def piped(monkeypatch: pytest.MonkeyPatch, lines: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))


def test_a_kept_process_answers_each_line_before_the_next_is_sent(tmp_path: Path) -> None:
    (given, lines), (answers, told) = os.pipe(), os.pipe()

    def serve() -> None:
        for number, end in enumerate((given, told)):
            os.dup2(end, number)
        for end in (given, lines, answers, told):
            os.close(end)
        sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115  # for the life of the process, and a pipe is no line buffer
        try:
            main(["predict", "model", "-", "--json", "--on-error", "skip"])
        finally:
            sys.stdout.flush()

    kept = fork(serve, tmp_path / "log")
    os.close(given)
    os.close(told)
    with os.fdopen(lines, "w") as stdin, os.fdopen(answers) as stdout:
        rows = []
        for path in ("0.png", "none.png", "broken.png", "2.png"):
            print(path, file=stdin, flush=True)
            rows.append(json.loads(stdout.readline()))
        assert os.waitpid(kept, os.WNOHANG) == (0, 0)
        stdin.close()
        assert stdout.read() == ""
    assert ended(kept) == 0, (tmp_path / "log").read_text()
    first, none, broken, last = rows
    expected = zoo.load("model").predict_proba(["0.png", "2.png"])
    for row, path, shares in zip((first, last), ("0.png", "2.png"), expected, strict=True):
        assert list(row) == ["input", "label", "probabilities"]
        assert row["input"] == path
        assert list(row["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
    assert (none["input"], none["label"]) == ("none.png", None)
    assert "does not exist" in none["error"]
    assert broken["input"] == "broken.png"
    assert "broken.png" in broken["error"]


def test_a_line_is_cells_with_tabs_between_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    piped(monkeypatch, b"0.png\r\n\xff.png\n1.png")
    code, told = run_zoo(["predict", "model", "-", "--on-error", "skip"], capsys)
    first, odd, last = [line.split("\t") for line in told.splitlines()]
    (label, other), shares = zoo.load("model").predict(["0.png", "1.png"]), zoo.load("model").predict_proba(["0.png", "1.png"])
    assert (code, first, last) == (0, ["0.png", label, f"{shares[0].max():.3f}"], ["1.png", other, f"{shares[1].max():.3f}"])
    assert odd[0] == "\\xff.png"
    assert odd[1].startswith("error: ")


def test_a_line_that_cannot_be_read_ends_the_stream_unless_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, b"0.png\nbroken.png\n1.png\n")
    code, told = run_zoo(["predict", "model", "-"], capsys)
    first, error = told.splitlines()
    assert code == 1
    assert first.startswith("0.png\t")
    assert error.startswith("error: ")
    assert "broken.png" in error


def test_no_lines_are_no_results(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    piped(monkeypatch, b"")
    assert run_zoo(["predict", "model", "-", "--json"], capsys) == (0, "")


@pytest.mark.usefixtures("texts")
def test_lines_are_texts_where_the_model_reads_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = test_text.model(labels=("cat", "dog"))
    folder, lines = str(model.save(tmp_path / "saved")), ["sun cat", "0.png", "rain dog dog"]
    piped(monkeypatch, "\n".join(lines).encode() + b"\ncaf\xe9\n\n")
    code, told = run_zoo(["predict", folder, "-", "--json", "--on-error", "skip"], capsys)
    *rows, latin, empty = map(json.loads, told.splitlines())
    assert (code, [row["input"] for row in rows]) == (0, lines)
    assert [row["label"] for row in rows] == model.eval().predict(lines)
    assert "line 4 of the standard input is not UTF-8" in latin["error"]
    assert "it is empty" in empty["error"]


def test_a_stream_is_read_whole_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = b"1.png\r\n0.png\nbroken.png\n"
    for words in (["predict", "model", "-"], ["embed", "model", "-"]):
        piped(monkeypatch, lines)
        code, told = run_zoo([*words, "--on-error", "skip", "--out", str(tmp_path / f"{words[0]}.csv")], capsys)
        assert (code, told.splitlines()[-1].partition(": ")[2].split()[-2:]) == (0, ["2", "inputs"])
        with (tmp_path / f"{words[0]}.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert [(row["input"], bool(row["error"])) for row in found] == [("1.png", False), ("0.png", False), ("broken.png", True)]
    piped(monkeypatch, b"1.png\n0.png\n")
    code, told = run_zoo(["embed", "model", "-", "--json"], capsys)
    assert json.loads(told)["inputs"] == ["1.png", "0.png"]
    piped(monkeypatch, b"")
    code, told = run_zoo(["embed", "model", "-", "--json"], capsys)
    assert (code, "the standard input has no line" in told) == (1, True)


def test_a_stream_that_cannot_be_read_is_one_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("predict", "embed"):
        for more, told in ((["0.png"], "others are named beside it"), (["--num-processes", "2"], "leave out --num-processes")):
            code, printed = run_zoo([command, "model", "-", *more, "--out", "all.csv"], capsys)
            assert (code, told in printed) == (2, True), printed
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", None)
            code, printed = run_zoo([command, "model", "-", "--json"], capsys)
            assert (code, "it is closed" in printed) == (2, True), printed
    piped(monkeypatch, b"0.png\n\n")
    code, printed = run_zoo(["predict", "model", "-"], capsys)
    assert (code, "line 2 of the standard input is empty" in printed) == (1, True)
    assert not Path("all.csv").exists()


def test_a_result_goes_to_a_file_and_to_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("-", "/dev/null"):
        code, printed = run_zoo(["predict", "model", "0.png", "--out", place], capsys)
        assert (code, "no file on a disk" in printed) == (2, True), printed
    assert not Path("-.csv").exists()

"""The commands eval, predict and embed with files, inputs that cannot be read, full disks and several processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import zoo
from tests.clean import ROOT
from tests.engine.tiny import NAMES, images
from tests.test_docs import run_zoo
from tests.warm_process import run_warm, run_warm_ranks


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved model for one class, one for several labels, and photos, one of them broken."""
    import PIL.Image

    folder = tmp_path_factory.mktemp("desk")
    for number, pixels in enumerate(images(9)[0]):
        (folder / "data" / NAMES[number % 3]).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(folder / "data" / NAMES[number % 3] / f"{number}.png")
    (folder / "broken").mkdir()
    for path in folder.glob("data/*/*.png"):
        (folder / "broken" / path.name).write_bytes(path.read_bytes())
    (folder / "broken" / "4.png").write_bytes(b"no picture")
    (folder / "labels.csv").write_text("file_name,label\n" + "".join(f"broken/{n}.png,{NAMES[n % 3]}|red\n" for n in range(9) if n != 4))
    zoo.get("zoo/glyphnet").adapt(3, labels=NAMES).save(folder / "model")
    zoo.get("zoo/glyphnet").adapt(3, task="multi-label", labels=NAMES).save(folder / "many")
    return folder


@pytest.fixture(autouse=True)
def there(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


COMMAND = "import sys; from zoo.cli import main; main(sys.argv[1:])"


def process(*words: object) -> subprocess.CompletedProcess[str]:
    return run_warm(COMMAND, [*map(str, words)], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=Path.cwd())


def ranks(count: int, *words: object) -> list[subprocess.CompletedProcess[str]]:
    """Run a command as a launcher does, whose own start is tested with ``--num-processes``."""
    return run_warm_ranks(COMMAND, [*map(str, words)], count, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=Path.cwd())


def test_an_input_that_cannot_be_read_is_a_row_with_its_error_and_exit_code_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    code, told = run_zoo(["predict", "model", "broken"], capsys)
    assert code == 1
    assert "4.png" in told
    code, told = run_zoo(["predict", "model", "broken", "--on-error", "skip", "--out", str(tmp_path / "out.csv")], capsys)
    assert (code, told.strip()) == (0, f"{tmp_path}/out.csv: predictions of 8 inputs")
    assert "1 input of 9 cannot be read and has empty values" in caplog.text
    found = rows(tmp_path / "out.csv")
    assert [row["input"] for row in found if not row["prediction"]] == [row["input"] for row in found if row["error"]] == ["broken/4.png"]
    code, told = run_zoo(["predict", "model", "broken", "--on-error", "skip", "--json"], capsys)
    (bad,) = [row for row in json.loads(told) if row["label"] is None]
    assert (code, bad["input"], bool(bad["error"])) == (0, "broken/4.png", True)
    code, told = run_zoo(["predict", "model", "broken", "--on-error", "skip"], capsys)
    assert len(told.splitlines()) == 10
    code, told = run_zoo(["embed", "model", "broken", "--on-error", "skip", "--json"], capsys)
    assert [row is None for row in json.loads(told)["embeddings"]] == [number == 4 for number in range(9)]


def test_options_that_need_a_file_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run_zoo(["predict", "model", "broken", "--resume", "--num-processes", "2"], capsys)
    assert code == 2
    assert "--resume, --num-processes: give the file to write, --out FILE" in told
    code, told = run_zoo(["predict", "model", "broken", "--out", "a.json"], capsys)
    assert code == 2
    assert ".csv, .parquet" in told


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_the_same_command_after_its_end_says_that_all_is_there(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, "model", "data", "--out", str(tmp_path / "out.csv"), "--resume"]
    what = "predictions" if command == "predict" else "features"
    assert run_zoo(words, capsys) == (0, f"{tmp_path}/out.csv: {what} of 9 inputs\n")
    assert run_zoo(words, capsys) == (0, f"{tmp_path}/out.csv: the {what} of all 9 inputs are there; nothing to do\n")
    code, told = run_zoo([*words[:2], "broken", "--on-error", "skip", *words[3:]], capsys)
    assert code == 1
    assert "the inputs are others than before" in told
    assert "--overwrite" in told
    assert "overwrite=True" not in told


def test_eval_writes_predictions_confusion_and_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [word for name, suffix in (("predictions", "csv"), ("wrong", "parquet"), ("confusion", "png"))
             for word in (f"--{name}", str(tmp_path / f"{name}.{suffix}"))]  # fmt: skip
    code, told = run_zoo(["eval", "model", "data", *files, "--json"], capsys)
    assert code == 0, told
    found = rows(tmp_path / "predictions.csv")
    assert list(found[0]) == ["input", "truth", "prediction", *(f"probability_{name}" for name in NAMES)]
    right = sum(row["truth"] == row["prediction"] for row in found)
    assert json.loads(told)["accuracy"] == pytest.approx(right / 9)
    assert pq.read_table(tmp_path / "wrong.parquet").num_rows == 9 - right
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    code, told = run_zoo(["eval", "model", "data", "--confusion", str(tmp_path / "confusion.csv")], capsys)
    assert code == 0
    assert sum(int(row[row["truth"]]) for row in rows(tmp_path / "confusion.csv")) == right
    code, told = run_zoo(["eval", "model", "data", "--confusion"], capsys)
    assert "truth \\ prediction" in told
    code, told = run_zoo(["eval", "model", "data", "--wrong", str(tmp_path / "wrong.parquet")], capsys)
    assert code == 1
    assert "choose another --wrong, or pass --overwrite" in told


def test_eval_shows_each_label_with_its_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run_zoo(["eval", "many", "labels.csv", "--thresholds", "red=0.000001", "--json"], capsys)
    assert code == 0, told
    labels = json.loads(told)["per_class"]
    assert labels["red"]["threshold"] == 0.000001
    assert (labels["red"]["recall"], labels["red"]["samples"], labels["blue"]["threshold"]) == (1.0, 8, 0.5)
    code, told = run_zoo(["eval", "many", "labels.csv", "--confusion"], capsys)
    assert code == 2
    assert "multi-label" in told


def test_several_processes_write_the_bytes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.csv").write_text("file_name\n" + "".join(f"{Path.cwd()}/broken/{n % 9}.png\n" for n in range(2100)))  # three blocks
    words = ["embed", "model", tmp_path / "list.csv", "--on-error", "skip", "--batch-size", 256]
    one = process(*words, "--out", tmp_path / "one.parquet")
    assert one.returncode == 0, one.stderr
    two = process(*words, "--out", tmp_path / "two.parquet", "--num-processes", 2)
    assert two.returncode == 0, two.stderr
    assert two.stdout == f"{tmp_path}/two.parquet: features of 1867 inputs\n"
    assert two.stderr.count("cannot be read and have empty values") == 1
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert not (tmp_path / "two.parquet.parts").exists()
    (tmp_path / "list.csv").write_text("file_name\n" + "".join(f"{Path.cwd()}/broken/{4 if n == 9 else 0}.png\n" for n in range(1100)))
    stopped = ranks(2, *words[:3], "--out", tmp_path / "three.parquet")
    assert [done.returncode for done in stopped] == [1, 1]
    said = "".join(done.stderr for done in stopped)
    assert said.replace("--on-error", "").count("error") == 1, said
    assert "4.png" in said
    assert "; --on-error skip leaves out" in said


def test_an_evaluation_by_several_processes_is_that_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{Path.cwd()}/broken/{n % 9}.png,{NAMES[n % 3]},p{n % 7}\n" for n in range(300)]
    (tmp_path / "list.csv").write_text("file_name,label,group\n" + "".join(lines))
    files = {"predictions": "csv", "wrong": "parquet", "confusion": "csv"}
    told = {}
    for number in (1, 3):
        words: list[object] = ["eval", "model", tmp_path / "list.csv", "--on-error", "skip", "--batch-size", 32, "--json", "--intervals"]
        words += [word for name, suffix in files.items() for word in (f"--{name}", tmp_path / f"{name}{number}.{suffix}")]
        ended = ranks(number, *words)
        assert [done.returncode for done in ended] == [0] * number, ended
        assert "".join(done.stderr for done in ended).count("33 inputs of 300 cannot be read") == 1
        told[number] = json.loads("".join(done.stdout for done in ended))
    assert told[1] == told[3]
    assert told[1]["skipped"] == 33
    for name, suffix in files.items():
        assert (tmp_path / f"{name}1.{suffix}").read_bytes() == (tmp_path / f"{name}3.{suffix}").read_bytes()
    code, said = run_zoo(["eval", "model", "data", "--num-processes", "0"], capsys)
    assert (code, "--num-processes is 0" in said) == (2, True)


@pytest.mark.sweep
def test_few_or_no_inputs_in_several_processes_and_broken_ones_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("file_name\n" + "".join(f"{Path.cwd()}/broken/{n}.png\n" for n in range(2)))
    done = process("predict", "model", tmp_path / "two.csv", "--out", tmp_path / "out.csv", "--num-processes", 3)
    assert (done.returncode, len(rows(tmp_path / "out.csv"))) == (0, 2), done.stderr
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    before = sorted(path.name for path in tmp_path.iterdir())
    for folder, extra, fact in (("empty", [], "holds no image"), ("bad", ["--on-error", "skip"], "none of its 1 input can be read")):
        for start in ([], ["--num-processes", 2])[: 1 if folder == "empty" else 2]:
            done = process("predict", "model", tmp_path / folder, "--out", tmp_path / "no.csv", *extra, *start)
            assert (done.returncode, done.stderr.count("error:")) == (1, 1), done.stderr
            assert fact in done.stderr
            assert "--resume" not in done.stderr
            assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_standard_output_without_room_is_one_line_of_error() -> None:
    full = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
    done = run_warm(full + COMMAND, ["predict", "model", "data", "--json"], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=Path.cwd())
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")


def test_calibrate_writes_into_the_model_and_predict_and_eval_use_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    import PIL.Image

    for number, pixels in enumerate(images(30, seed=2)[0]):
        (tmp_path / "valid" / NAMES[number % 3]).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(tmp_path / "valid" / NAMES[number % 3] / f"{number}.png")
    model = str(shutil.copytree("model", tmp_path / "model"))
    code, told = run_zoo(["predict", model, "data", "--sets", "0.9"], capsys)
    assert code == 2
    assert "zoo calibrate MODEL DATA" in told
    code, told = run_zoo(["calibrate", model, str(tmp_path / "valid"), "--json"], capsys)
    assert code == 0, told
    done = json.loads(told)
    assert done["samples"] == 30
    assert set(done["before"]) == {"loss", "ece", "brier"}
    code, told = run_zoo(["predict", model, "data", "--sets", "0.9", "--ood", "--json"], capsys)
    found = json.loads(told)
    assert all(row["label"] in row["set"] and row["ood"] > 0 for row in found)
    code, told = run_zoo(["predict", model, "broken", "--sets", "0.9", "--ood", "--on-error", "skip"], capsys)
    lines = [line.split() for line in told.splitlines() if "broken" in line and "4.png" not in line]
    assert code == 0, told
    assert {"set", "ood"} <= set(told.splitlines()[0].split())
    assert len(lines) == 8
    files = ["--selective", str(tmp_path / "risk.csv")]
    code, told = run_zoo(["eval", model, "data", "--metrics", "mcc,top_2", "--per-class", "--json", *files], capsys)
    assert code == 0, told
    document = json.loads(told)
    assert {"mcc", "top_2", "ece", "ece_uncalibrated", "coverage", "set_size"} <= set(document)
    assert set(document["baselines"]) == {"prior", "random"}
    assert set(document["per_class"]) == set(NAMES)
    curve = rows(tmp_path / "risk.csv")
    assert float(curve[-1]["coverage"]) == 1
    assert float(curve[-1]["risk"]) == pytest.approx(1 - document["accuracy"])
    code, told = run_zoo(["calibrate", model, str(tmp_path / "valid")], capsys)  # again, over the first
    assert "calibrated on 30 samples, for prediction sets of up to 0.9677" in told
    again = zoo.load(model)
    assert again.calibration is not None
    assert again.calibration.temperature == pytest.approx(done["temperature"])


def test_a_metric_that_the_task_does_not_have_is_an_error_before_torch_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run_zoo(["eval", "model", "data", "--metrics", "auc,kapa"], capsys)
    assert code == 2
    assert "it is called 'auroc' here" in told
    assert "did you mean 'kappa'" in told
    code, told = run_zoo(["eval", "many", "labels.csv", "--selective", "curve.png"], capsys)
    assert code == 2
    assert "--selective is for one class per sample" in told


def test_a_calibration_that_was_cut_off_leaves_a_model_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.saved import calibration as saved

    net = zoo.get("zoo/glyphnet").adapt(3, labels=NAMES)
    net.calibrate(images(30))
    folder = net.save(tmp_path / "model")
    assert net.calibration is not None
    monkeypatch.setattr(saved, "write", lambda *_: (_ for _ in ()).throw(OSError("cut off")))
    with pytest.raises(OSError, match="cut off"):
        saved.update_calibration(folder, net.calibration, None)
    assert zoo.load(folder).calibration is None


def test_the_likeliest_classes_are_those_of_the_probabilities_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("model", "many"):
        model = zoo.load(folder)
        shares = model.predict_proba("data")
        best = [sorted(zip(row.tolist(), NAMES, strict=True), reverse=True)[:2] for row in shares]
        found = model.predict("data", top=2)
        assert [[label for label, _ in row] for row in found] == [[name for _, name in row] for row in best]
        assert [share for row in found for _, share in row] == pytest.approx([share for row in best for share, _ in row])
        code, told = run_zoo(["predict", folder, "data", "--top", "2", "--json"], capsys)
        row = json.loads(told)[0]
        assert (code, [tuple(one.values()) for one in row["top"]]) == (0, found[0])
        assert "probabilities" not in row
        out = tmp_path / f"{folder}.csv"
        assert run_zoo(["predict", folder, "data", "--top", "2", "--out", str(out)], capsys)[0] == 0
        assert [(one["top_1"], one["top_2"]) for one in rows(out)] == [(first[0], second[0]) for first, second in found]
        assert float(rows(out)[0]["top_2_probability"]) == pytest.approx(found[0][1][1])
        assert not any(name.startswith("probability") for name in rows(out)[0])
        assert run_zoo(["predict", folder, "data", "--out", str(out), "--resume"], capsys)[0] == 1
    (line, header) = reversed(run_zoo(["predict", "model", "data/blue/0.png", "--top", "1"], capsys)[1].splitlines())
    assert header.split() == ["input", "prediction", "top_1"]
    assert line.split()[1] == line.split()[2]
    assert len(model.predict("data", top=7)[0]) == len(NAMES)
    assert run_zoo(["predict", "model", "data", "--top", "4"], capsys)[0] == 0
    assert caplog.text.count("top=4 (--top): the model has 3 classes") == 1
    code, told = run_zoo(["predict", "model", "data", "--top", "0"], capsys)
    assert (code, "--top 0: give a whole number from 1 to 3" in told) == (2, True)
    with pytest.raises(zoo.ZooError, match="the task is regression, which has no likeliest"):
        zoo.get("zoo/glyphnet").adapt(1, task="regression").predict("data", top=1)
    with pytest.raises(zoo.ZooError, match="sets and top"):
        model.predict("data", sets=0.9, top=1)


def test_an_input_that_ends_a_command_names_how_it_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    remedy = "; --on-error skip leaves out what cannot be read"
    Path("names.csv").write_text("file_name,label\ndata/blue/0.png,blue\nnone.png,blue\n")
    Path("empty.csv").write_text("file_name,label\ndata/blue/0.png,blue\n,blue\n")
    for words in (["data/blue/0.png", "broken/4.png"], ["data/blue/0.png", "none.png"], ["names.csv"], ["empty.csv"]):
        code, told = run_zoo(["predict", "model", *words], capsys)
        assert (code, told.count(remedy)) == (1, 1), told
        assert run_zoo(["predict", "model", *words, "--on-error", "skip"], capsys)[0] == 0
    assert run_zoo(["eval", "model", "names.csv"], capsys)[1].count(remedy) == 1
    assert "on-error" not in run_zoo(["train", "zoo/glyphnet", "names.csv", "--no-valid"], capsys)[1]


def test_an_image_with_its_channels_first_is_not_taken_for_three_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    model = zoo.get("zoo/glyphnet").adapt(3, in_chans=3, labels=NAMES)
    assert len(model.predict(np.zeros((3, 20, 24), np.uint8))) == 3
    assert "shape (3, 20, 24) is read as 3 grey images; one image whose channels come first" in caplog.text
    caplog.clear()
    assert len(model.predict(np.zeros((20, 24, 3), np.uint8))) == len(model.predict(torch.zeros(3, 20, 24))) == 1
    assert len(model.predict(np.zeros((4, 20, 24), np.uint8))) == 4
    assert "grey images" not in caplog.text

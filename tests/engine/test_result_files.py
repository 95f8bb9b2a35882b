"""Predictions and features in files: part by part, resumed to equal bytes, with inputs that cannot be read."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow.parquet as pq
import pytest
import torch

from tests.engine.tiny import NAMES, images, model
from zoo.engine.inference import output_blocks
from zoo.engine.output import formats, parts
from zoo.engine.output.finished import prune_finished
from zoo.errors import CorruptInputError, DataError, InterruptedRunError, OptionError, OutputExistsError, SavedModelError
from zoo.models.task_model import TaskModel

WHAT = {"predictions": TaskModel.predict_to_file, "features": TaskModel.embed_to_file}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven photos, in blocks of four."""
    monkeypatch.setattr(output_blocks, "ROWS", 4)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(images(11)[0]):
        PIL.Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def net(**options: Any) -> TaskModel:
    return model(labels=NAMES, **options)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir())


def test_predictions_in_files_are_those_in_memory(photos: Path, tmp_path: Path) -> None:
    shares, labels = net().predict_proba(photos), net().predict(photos)
    done = net().predict_to_file(photos, tmp_path / "a.csv", batch_size=2)
    assert (done.path, len(done.table), done.skipped) == (tmp_path / "a.csv", 11, 0)
    rows = rows_of(tmp_path / "a.csv")
    assert list(rows[0]) == ["input", "prediction", *(f"probability_{name}" for name in NAMES)]
    assert [row["input"] for row in rows] == names(photos)
    assert [row["prediction"] for row in rows] == labels
    assert np.allclose([[float(row[f"probability_{name}"]) for name in NAMES] for row in rows], shares, atol=1e-6)
    net().predict_to_file(photos, tmp_path / "a.parquet", batch_size=2)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == list(rows[0])
    assert [str(value) for value in table["probability_red"].to_numpy()] == [row["probability_red"] for row in rows]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.parquet", "photos"]


def test_a_misspelt_option_of_a_file_is_an_error_of_the_method_that_was_called(photos: Path, tmp_path: Path) -> None:
    for call in (net().predict_to_file, net().embed_to_file):
        with pytest.raises(OptionError, match=rf"{call.__name__}\(\) has no option 'batchsize' \(did you mean 'batch_size'\?\)"):
            call(photos, tmp_path / "a.csv", batchsize=2)


def test_features_in_every_format_are_those_in_memory(photos: Path, tmp_path: Path) -> None:
    expected = net().embed(photos, batch_size=4)
    for suffix in ("npz", "csv", "parquet"):
        net().embed_to_file(photos, tmp_path / f"a.{suffix}", batch_size=4)
    with np.load(tmp_path / "a.npz") as saved:
        assert sorted(saved) == ["features", "inputs"]
        assert np.array_equal(saved["features"], expected)
        assert saved["inputs"].tolist() == names(photos)
    assert np.array_equal(np.stack(pq.read_table(tmp_path / "a.parquet")["features"].to_pylist()).astype(np.float32), expected)
    frame = pd.read_csv(tmp_path / "a.csv", dtype={f"features_{k}": np.float32 for k in range(expected.shape[1])})
    assert np.array_equal(frame.iloc[:, 1:].to_numpy(), expected)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_what_was_cut_off_goes_on_to_the_same_bytes(suffix: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, options = tmp_path / f"out.{suffix}", {"batch_size": 2}
    net().embed_to_file(photos, tmp_path / f"whole.{suffix}", **options)
    real, opened = parts.PartFolder.write, list[Any]()

    def killed(self: Any, block: range, table: Any) -> None:
        if block.start == 4:
            raise KeyboardInterrupt
        opened.append(block.start)
        real(self, block, table)

    monkeypatch.setattr(parts.PartFolder, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        net().embed_to_file(photos, out, **options)
    assert not out.exists()
    with pytest.raises(OutputExistsError, match=r"4 of 11 rows.*cut off.*--resume.*--overwrite"):
        net().embed_to_file(photos, out, **options)
    monkeypatch.setattr(parts.PartFolder, "write", lambda self, block, table: (opened.append(block.start), real(self, block, table)))
    net().embed_to_file(photos, out, resume=True, **options)
    assert opened == [0, 4, 8]
    assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert not (tmp_path / f"out.{suffix}.parts").exists()


def test_another_model_other_inputs_or_options_cannot_go_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out.csv", parts.PartFolder.write

    def once(self: Any, block: range, table: Any) -> None:
        real(self, block, table)
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.PartFolder, "write", once)
    with pytest.raises(KeyboardInterrupt):
        net().predict_to_file(photos, out, batch_size=2)
    monkeypatch.setattr(parts.PartFolder, "write", real)
    (photos / "zz.png").write_bytes((photos / "00.png").read_bytes())
    with pytest.raises(SavedModelError) as caught:
        net(seed=1).predict_to_file(photos, out, batch_size=4, resume=True)
    for fact in ("the model is another one", "the inputs are others", "batch_size was 2 and is 4", "rows was 11 and is 12"):
        assert fact in str(caught.value)
    (photos / "zz.png").unlink()
    state, pixels = (photos / "03.png").stat(), (photos / "03.png").read_bytes()
    (photos / "03.png").write_bytes((photos / "04.png").read_bytes())
    with pytest.raises(SavedModelError, match="files of the inputs have changed since") as caught:
        net().predict_to_file(photos, out, batch_size=2, resume=True)
    assert "inputs are others" not in str(caught.value)
    (photos / "03.png").write_bytes(pixels)
    os.utime(photos / "03.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    turned = net()
    with torch.no_grad():
        turned.head.linear.weight.copy_(turned.head.linear.weight.flip(0))  # the same values in another order
    with pytest.raises(SavedModelError, match="the model is another one"):
        turned.predict_to_file(photos, out, batch_size=2, resume=True)
    net().predict_to_file(photos, out, batch_size=2, resume=True, on_error="skip")
    assert len(rows_of(out)) == 11
    with pytest.raises(OutputExistsError, match="exists"):
        net().predict_to_file(photos, out)
    net(seed=1).predict_to_file(photos, out, overwrite=True)


@pytest.mark.parametrize("what", WHAT)
def test_a_finished_file_that_is_resumed_stays_and_one_of_another_run_is_refused(
    what: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    out, write = tmp_path / "out.csv", WHAT[what]
    (photos / "04.png").write_bytes(b"no picture")
    options = {"batch_size": 2, "on_error": "skip"}
    first = write(net(), photos, out, resume=True, **options)
    assert (first.skipped, first.was_there) == (1, False)
    content, state = out.read_bytes(), out.stat()
    monkeypatch.setattr(TaskModel, "forward", lambda *_: pytest.fail("something is computed"))
    monkeypatch.setattr(TaskModel, "embed_batch", lambda *_: pytest.fail("something is computed"))
    for more in ({}, {"overwrite": True}):
        again = write(net(), photos, out, resume=True, **options, **more)
        assert (again.path, len(again.table), again.skipped, again.was_there) == (out, 11, 1, True)
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (content, state.st_mtime_ns)
    with pytest.raises(OutputExistsError, match="exists"):
        write(net(), photos, out, **options)
    with pytest.raises(SavedModelError, match=r"is finished, and not of this run:\n  - the model is another one") as caught:
        write(net(seed=1), photos, out, resume=True, batch_size=4, on_error="skip")
    assert "batch_size was 2 and is 4" in str(caught.value)
    with pytest.raises(SavedModelError, match="on_error was 'skip' and is 'stop'"):
        write(net(), photos, out, resume=True, batch_size=2)
    (photos / "00.png").write_bytes((photos / "01.png").read_bytes())
    with pytest.raises(SavedModelError, match="files of the inputs have changed"):
        write(net(), photos, out, resume=True, **options)
    monkeypatch.undo()
    monkeypatch.setattr(output_blocks, "ROWS", 4)
    assert not write(net(seed=1), photos, out, resume=True, overwrite=True, **options).was_there


def test_a_finished_file_that_was_changed_or_of_which_nothing_is_known_is_not_taken_for_the_result(
    photos: Path, tmp_path: Path, own_cache: Path
) -> None:
    out = tmp_path / "out.csv"
    net().predict_to_file(photos, out)
    out.write_text(out.read_text() + "more\n")
    with pytest.raises(OutputExistsError, match=r"not known what it was made of.*--overwrite"):
        net().predict_to_file(photos, out, resume=True)
    net().predict_to_file(photos, out, overwrite=True)
    assert net().predict_to_file(photos, out, resume=True).was_there
    prune_finished(time.time() + 1)
    with pytest.raises(OutputExistsError, match="not known"):
        net().predict_to_file(photos, out, resume=True)


def test_what_is_not_in_the_names_cannot_change_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_blocks, "ROWS", 4)
    out, (pixels, _), real = tmp_path / "out.npz", images(11), parts.PartFolder.write

    def once(self: Any, block: range, table: Any) -> None:
        real(self, block, table)
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.PartFolder, "write", once)
    with pytest.raises(KeyboardInterrupt):
        net().embed_to_file(pixels, out, batch_size=2, on_error="skip")
    monkeypatch.setattr(parts.PartFolder, "write", real)
    others = pixels.copy()
    others[7, 3, 3] += 1
    with pytest.raises(SavedModelError, match="the inputs are others"):
        net().embed_to_file(others, out, batch_size=2, on_error="skip", resume=True)
    with pytest.raises(SavedModelError, match="on_error was 'skip' and is 'stop'"):
        net().embed_to_file(pixels, out, batch_size=2, resume=True)
    with pytest.raises(SavedModelError, match="image_size was None and is 24"):
        net().embed_to_file(pixels, out, batch_size=2, on_error="skip", resume=True, image_size=24)
    net().embed_to_file(pixels, out, batch_size=2, on_error="skip", resume=True)
    with np.load(out) as saved:
        assert np.array_equal(saved["features"], net().embed(pixels, batch_size=2))


def test_an_error_before_the_first_part_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    (photos / "00.png").write_bytes(b"no picture")
    for options, error in (({}, CorruptInputError), ({"window": (40.0, 400.0)}, OptionError)):
        with pytest.raises(error) as caught:
            net().predict_to_file(photos, tmp_path / "out.csv", batch_size=2, **options)
        assert "--resume" not in str(caught.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "out.csv.parts").mkdir()  # of a process that was killed before its first part
    (tmp_path / "out.csv.parts" / "parts.json").write_text('{"rows": 11, "options": {}}')
    net().predict_to_file(photos, tmp_path / "out.csv", batch_size=2, on_error="skip")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "out.csv"])


def test_a_name_of_half_characters_is_written_as_escapes(tmp_path: Path) -> None:
    for number, name in enumerate((b"a\xff.png", b"b.png")):
        PIL.Image.fromarray(images(2)[0][number]).save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))  # noqa: PTH118  # bytes
    for suffix in ("csv", "parquet"):
        net().predict_to_file(tmp_path, tmp_path / f"out.{suffix}", overwrite=True)
    assert [Path(row["input"]).name for row in rows_of(tmp_path / "out.csv")] == ["a\\udcff.png", "b.png"]


@pytest.mark.parametrize("file", [None, ""])
def test_an_empty_cell_or_item_in_place_of_a_file_is_skipped(file: str | None, photos: Path) -> None:
    inputs = [str(photos / "00.png"), file, str(photos / "01.png")]
    for source in (inputs, pd.DataFrame({"file_name": inputs}, dtype=object)):
        with pytest.raises(DataError):
            net().predict(source)
        assert [label is None for label in net().predict(source, on_error="skip")] == [False, True, False]


def test_a_signal_stops_between_two_batches_and_says_how_to_go_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parts.PartFolder.write

    def signalled(self: Any, block: range, table: Any) -> None:
        real(self, block, table)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(parts.PartFolder, "write", signalled)
    with pytest.raises(InterruptedRunError, match=r"SIGTERM; 4 of 11 rows are done.*out\.csv\.parts.*--resume") as caught:
        net().predict_to_file(photos, tmp_path / "out.csv", batch_size=2)
    assert caught.value.exit_code == 143


def broken(photos: Path) -> list[str]:
    """Break two of the photos, a whole batch, and name one that does not exist."""
    for name in ("04.png", "05.png"):
        (photos / name).write_bytes((photos / name).read_bytes()[:60])
    return [*names(photos), str(photos / "no.png")]


@pytest.mark.parametrize("workers", [0, 2])
def test_inputs_that_cannot_be_read_are_skipped_where_that_is_asked_for(
    workers: int, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = net().embed(photos, batch_size=2)
    inputs = broken(photos)
    options: dict[str, Any] = {"batch_size": 2, "workers": workers}
    with pytest.raises(DataError, match=r"no\.png"):
        net().predict(inputs, **options)
    with pytest.raises(CorruptInputError, match=r"04\.png"):
        net().predict(inputs[:-1], **options)
    found = net().embed(inputs, on_error="skip", **options)
    assert "3 inputs of 12 cannot be read" in caplog.text
    bad = [4, 5, 11]
    assert np.isnan(found[bad]).all()
    assert np.array_equal(np.delete(found, bad, 0), np.delete(whole, bad[:2], 0))
    labels = net().predict(inputs, on_error="skip", **options)
    assert [row for row, label in enumerate(labels) if label is None] == bad
    for suffix in ("csv", "parquet"):
        done = net().predict_to_file(inputs, tmp_path / f"a.{suffix}", on_error="skip", **options)
        assert done.skipped == 3
    rows = rows_of(tmp_path / "a.csv")
    assert [row["prediction"] or None for row in rows] == labels
    assert [row for row, one in enumerate(rows) if one["error"]] == bad
    assert all(not rows[row]["probability_red"] for row in bad)
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert [row for row, label in enumerate(table["prediction"]) if label is None] == bad
    assert "no.png" in table["error"][11]
    net().embed_to_file(inputs, tmp_path / "a.npz", on_error="skip", **options)
    with np.load(tmp_path / "a.npz") as saved:
        assert np.array_equal(saved["features"], found, equal_nan=True)
        assert [bool(error) for error in saved["errors"]] == [row in bad for row in range(12)]


def test_a_block_without_any_input_that_can_be_read_is_no_obstacle_but_all_are(photos: Path, tmp_path: Path) -> None:
    for number in range(4):
        (photos / f"{number:02}.png").write_bytes(b"no picture")
    for suffix in ("csv", "parquet", "npz"):
        net().embed_to_file(photos, tmp_path / f"a.{suffix}", on_error="skip", batch_size=2)
    assert np.isnan(net().embed(photos, on_error="skip", batch_size=2)).all(1).tolist() == [True] * 4 + [False] * 7
    assert len(rows_of(tmp_path / "a.csv")) == 11
    for path in photos.iterdir():
        path.write_bytes(b"no picture")
    for call in (net().predict, lambda *a, **o: net().predict_to_file(*a, tmp_path / "b.csv", **o)):
        with pytest.raises(DataError, match="none of its 11 inputs can be read"):
            call(photos, on_error="skip")


def test_values_that_are_not_finite_are_skipped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    pixels = [torch.rand(3, 16, 16) for _ in range(3)]
    pixels[1][0, 0, 0] = float("nan")
    found = net().embed(pixels, on_error="skip")
    assert np.isnan(found).all(1).tolist() == [False, True, False]


def test_numbers_labels_and_groups_have_columns_of_their_own(photos: Path, tmp_path: Path) -> None:
    model(2, task="regression").predict_to_file(photos, tmp_path / "numbers.csv")
    assert list(rows_of(tmp_path / "numbers.csv")[0]) == ["input", "prediction_1", "prediction_2"]
    many = model(3, task="multi-label", labels=NAMES)
    many.predict_to_file(photos, tmp_path / "labels.csv", thresholds=0.0001)
    assert {row["prediction"] for row in rows_of(tmp_path / "labels.csv")} == {"|".join(NAMES)}


def test_only_what_can_be_written_is_taken_for_a_file(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"ends with \.json.*\.csv, \.parquet"):
        net().predict_to_file(photos, tmp_path / "a.json")
    with pytest.raises(OptionError, match=r"'batchsize' \(did you mean 'batch_size'\?\)"):
        net().predict_to_file(photos, tmp_path / "a.csv", batchsize=3)
    (tmp_path / "b.csv.parts").mkdir()
    (tmp_path / "b.csv.parts" / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match="in the way"):
        net().predict_to_file(photos, tmp_path / "b.csv", overwrite=True)


def test_a_row_group_of_parquet_is_closed_at_a_size(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "ROWS", 6)
    net().predict_to_file(photos, tmp_path / "a.parquet", batch_size=2)
    groups = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert groups.num_rows == 11
    assert groups.num_row_groups == 3


class Drawn(torch.utils.data.Dataset[tuple[Any, int]]):
    """Samples that nothing tells apart before they are read."""

    def __init__(self, seed: int) -> None:
        self._pixels = images(6, seed=seed)[0]

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return PIL.Image.fromarray(self._pixels[row]), 0


def test_a_file_of_another_dataset_of_equal_length_is_not_taken_for_finished(tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    net().embed_to_file(Drawn(0), out, batch_size=2)
    with pytest.raises(OutputExistsError, match="its samples are known only once they are read"):
        net().embed_to_file(Drawn(1), out, batch_size=2, resume=True)

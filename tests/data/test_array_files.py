"""Data sets in one .npz file, as MedMNIST and Keras write them."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.engine.tiny import model
from zoo.data.open import open_data, open_splits, open_train_valid
from zoo.errors import DataError, OptionError

SIZES = {"train": 14, "val": 4, "test": 6}


def pixels(samples: int, *shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, samples]).integers(0, 256, (samples, *(shape or (16, 16))), dtype=np.uint8)


def medmnist(path: Path, *shape: int, labels: int = 1) -> Path:
    arrays = {}
    for name, size in SIZES.items():
        ones = np.eye(labels)[np.arange(size) % labels] if labels > 1 else (np.arange(size) % 2)[:, None]
        arrays |= {f"{name}_images": pixels(size, *shape), f"{name}_labels": ones.astype(np.uint8)}
    np.savez_compressed(path, **arrays)
    return path


def test_training_on_all_parts_tells_the_rows_of_test(toys: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = medmnist(tmp_path / "a.npz")
    for valid, told in ((False, 1), (None, 0)):
        caplog.clear()
        model(2).plan(path, valid, recipe="linear-probe", workers=0)
        assert caplog.text.count("all splits are trained on, also 6 rows of split 'test'; measure it on other data") == told
    caplog.clear()
    zoo.select.cross_validate(model(2), path, folds=2, recipe="linear-probe", workers=0, out=tmp_path / "cv", quiet=True)
    assert "all splits" not in caplog.text  # it leaves them out


def test_training_takes_the_train_and_val_parts_and_prediction_the_test_part(
    toys: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zoo")
    path, net = medmnist(tmp_path / "a.npz"), model(2)
    run = net.fit(path, recipe="linear-probe", epochs=1, workers=0, out=tmp_path / "run", quiet=True)
    assert net.labels == ("0", "1")
    assert "not used: 6 rows of split 'test'" in caplog.text
    assert run.history
    assert len(net.predict(str(path))) == 6
    assert "its part 'test' is read; split= (--split) names another" in caplog.text
    measured = net.evaluate(path)
    stored = np.load(path)
    assert measured == net.evaluate((stored["test_images"], stored["test_labels"][:, 0]))
    assert len(net.predict(path, split="train")) == 14
    assert len(net.embed(path, split="validation")) == 4
    with pytest.raises(DataError, match=r"no split 'tset' \(did you mean 'test'\?\)"):
        net.predict(path, split="tset")


def test_the_rows_are_those_of_the_arrays(tmp_path: Path) -> None:
    path = medmnist(tmp_path / "a.npz", 16, 16, 3)
    stored = np.load(path)
    train, valid = open_train_valid(path)
    assert valid is not None
    for table, name in ((train, "train"), (valid, "val"), (open_data(path, split="test"), "test")):
        assert np.array_equal(np.stack(list(table.inputs)), stored[f"{name}_images"])
        assert table.targets is not None
        assert table.targets.tolist() == stored[f"{name}_labels"][:, 0].tolist()
    assert isinstance(train.inputs, np.ndarray)  # so that its digest and features are known by content
    assert len(open_data(path)) == 24
    assert [open_splits(path).splits.count(name) for name in ("train", "valid", "test")] == [14, 4, 6]  # type: ignore[union-attr]


def test_a_row_of_numbers_is_several_labels(tmp_path: Path) -> None:
    path = medmnist(tmp_path / "chest.npz", labels=14)
    train, _ = open_train_valid(path, task="multi-label", classes=[f"finding {index}" for index in range(14)])
    assert np.array_equal(train.targets, np.load(path)["train_labels"])
    with pytest.raises(DataError, match="one-hot"):
        open_train_valid(path)


def test_volumes_are_read_for_models_of_volumes_and_refused_for_others(tmp_path: Path) -> None:
    path = medmnist(tmp_path / "organ3d.npz", 7, 7, 7)
    assert open_data(path, reads="volume", split="test").inputs[0].shape == (7, 7, 7)
    with pytest.raises(DataError, match=r"\(14, 7, 7, 7\).*zoo list --modality volume"):
        open_train_valid(path)
    flat = medmnist(tmp_path / "flat.npz")
    with pytest.raises(DataError, match=r"\(14, 16, 16\).*many samples are \(samples, depth, height, width\)"):
        open_train_valid(flat, reads="volume")


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("Xtrain", "ytrain", "Xtest", "ytest"),
        ("images", "labels", "test images", "test labels"),
        ("data-train", "target-train", "data-test", "target-test"),
    ],
)
def test_the_keys_of_others_are_read_and_validation_data_held_out(names: tuple[str, ...], tmp_path: Path) -> None:
    values = (pixels(40), np.arange(40) % 3, pixels(9), np.arange(9) % 3)
    np.savez(tmp_path / "mnist.npz", **dict(zip(names, values, strict=True)))
    train, valid = open_train_valid(tmp_path / "mnist.npz")
    assert (len(train) + len(valid or ()), train.classes) == (40, ("0", "1", "2"))
    assert np.array_equal(np.stack(list(open_data(tmp_path / "mnist.npz", split="test").inputs)), values[2])


def test_images_and_labels_without_parts_are_one_table_with_groups(tmp_path: Path) -> None:
    names = np.array(["cat", "dog"] * 10)
    np.savez(tmp_path / "a.npz", X=pixels(20), y=names, patient_id=np.arange(20) // 4, note=np.array("of 2020"))
    table = open_data(tmp_path / "a.npz")
    assert (table.splits, table.classes, set(table.groups or ())) == (None, ("cat", "dog"), {"0", "1", "2", "3", "4"})
    train, valid = open_train_valid(tmp_path / "a.npz")
    assert not set(train.groups or ()) & set((valid and valid.groups) or ())


def test_other_keys_are_named_by_columns_and_other_parts_by_valid_split(tmp_path: Path) -> None:
    halves = {f"{part}_{what}": value for part in ("source", "target") for what, value in (("scan", pixels(8)), ("kind", np.arange(8) % 2))}
    np.savez(tmp_path / "a.npz", **halves)
    columns = {"image": "scan", "label": "kind"}
    train, valid = open_train_valid(tmp_path / "a.npz", columns=columns, valid_split="target", allow_leak=True)
    assert [len(train), len(valid or ())] == [8, 8]
    with pytest.raises(DataError, match="splits 'source', 'target', none called train"):
        open_train_valid(tmp_path / "a.npz", columns=columns)
    with pytest.raises(OptionError, match=r"'imge'.*did you mean 'image'"):
        open_data(tmp_path / "a.npz", columns={"imge": "scan"})


def test_one_array_is_many_samples_only_if_its_shape_says_so(toys: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", pixels(5))
    np.savez(tmp_path / "one.npz", pixels(1)[0])
    assert [len(model(2).predict(tmp_path / name)) for name in ("many.npz", "one.npz")] == [5, 1]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "other keys": ({"foo": pixels(4), "bar": np.arange(4)}, r"no key that is read as images; its keys: 'foo' \(4, 16, 16\), 'bar' \(4,\)"),
    "no labels": ({"x_train": pixels(4), "x_test": pixels(2)}, r"no key that is read as labels; its keys: 'x_train' \(4, 16, 16\)"),
    "other lengths": ({"x": pixels(4), "y": np.arange(5)}, r"'x' has the shape \(4, 16, 16\) and 'y' \(5,\)"),
    "a mask": ({"image": pixels(1)[0], "label": pixels(1)[0]}, r"'image' has the shape \(16, 16\); many samples are"),
    "masks": ({"image": pixels(4), "label": pixels(4)}, r"a label is needed for each of 4 samples"),
    "objects": ({"x": pixels(2), "y": np.array([{}, None])}, "'y' of .*holds Python objects, which are not read"),
    "two of one": ({"images_train": pixels(2), "train_images": pixels(2)}, "'images_train' and 'train_images' are both read"),
    "wide floats": ({"x": pixels(4) * 1.0, "y": np.arange(4) % 2}, r"'x' of .*float pixels are in \[0, 255\]"),
    "nothing": ({"x": pixels(0), "y": np.arange(0)}, "no samples"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_refused_with_the_file_and_the_keys(name: str, tmp_path: Path) -> None:
    arrays, message = WRONG[name]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        open_data(tmp_path / "a.npz", labelled=True)
    assert "a.npz" in str(caught.value)


def test_a_damaged_file_is_named_with_the_array(tmp_path: Path) -> None:
    whole = medmnist(tmp_path / "a.npz").read_bytes()
    places = zipfile.ZipFile(io.BytesIO(whole)).getinfo("train_images.npy").header_offset + 2000
    (tmp_path / "hole.npz").write_bytes(whole[:places] + b"\0" * 200 + whole[places + 200 :])
    (tmp_path / "cut.npz").write_bytes(whole[:-300])
    (tmp_path / "text.npz").write_text("version https://git-lfs.github.com/spec/v1")
    for name, why in (("hole", "train_images"), ("cut", "zip"), ("text", "zip")):
        with pytest.raises(DataError, match=rf"{name}\.npz' cannot be read: .*{why}.*; fetch"):
            open_train_valid(tmp_path / f"{name}.npz")


def test_a_header_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2, 10**7, 10**9)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", header.getvalue())
        labels = io.BytesIO()
        np.save(labels, np.arange(2))
        file.writestr("y.npy", labels.getvalue())
    with pytest.raises(DataError, match=r"'x' of .*a\.npz'"):
        open_data(tmp_path / "a.npz", labelled=True)


def test_the_published_parts_of_pneumoniamnist_are_read(shared: Path) -> None:
    path = shared / "data/medical/pneumoniamnist/pneumoniamnist.npz"
    train, valid = open_train_valid(path)
    assert (len(train), len(valid or ()), train.counts()) == (4708, 524, {"0": 1214, "1": 3494})
    assert open_data(path, split="test").counts() == {"0": 234, "1": 390}
    assert zoo.open_data is open_data

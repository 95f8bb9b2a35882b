"""Equal samples are found in whatever form they are given, and kept on one side of a hold-out."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from tests.data.make import image
from zoo.data.open import open_data, open_train_valid
from zoo.data.splits.duplicates import content_keys
from zoo.data.splits.folds import cross_validation_folds

LABELS = [row % 2 for row in range(40)]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"{row}.png") for row in range(10)]
    for row, name in enumerate(names):
        image(row).save(name)
    return names


class Drawn(Dataset[Any]):
    """Items that are another image each time, as an augmentation makes them."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return np.random.default_rng().integers(0, 255, (8, 8, 3)).astype(np.uint8), row % 2


def hub(files: list[str]) -> Any:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": [files[row % 10] for row in range(40)], "label": LABELS}, features=features)


def linked(files: list[str]) -> list[str]:
    names = [f"{files[row % 10]}.{row}.png" for row in range(40)]
    for row, name in enumerate(names):
        os.link(files[row % 10], name)
    return names


FORMS = {
    "hub": hub,
    "PIL": lambda files: ([PIL.Image.open(io.BytesIO(Path(files[row % 10]).read_bytes())) for row in range(40)], LABELS),
    "dicts": lambda files: pd.DataFrame({"image": [{"path": files[row % 10], "bytes": None} for row in range(40)], "label": LABELS}),
    "links": lambda files: (linked(files), LABELS),
    "tensor": lambda files: (torch.arange(10).repeat(4).to(torch.uint8)[:, None, None].expand(40, 8, 8), LABELS),
    "tensors": lambda files: TensorDataset(
        torch.arange(10).repeat(4).to(torch.uint8)[:, None, None].expand(40, 8, 8), torch.tensor(LABELS)
    ),
    "subset": lambda files: Subset(Drawn(), [row % 10 for row in range(40)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_equal_samples_are_on_one_side_of_a_hold_out(form: str, files: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train, valid = open_train_valid(FORMS[form](files))
    assert valid is not None
    ours, theirs = content_keys(train, valid)
    assert len({*ours, *theirs}) == 10
    assert not {*ours} & {*theirs}
    assert "30 samples repeat another one" in caplog.text


@pytest.mark.parametrize("form", ["hub", "tensors", "subset"])
def test_equal_samples_of_two_sources_in_memory_are_told(form: str, files: list[str], caplog: pytest.LogCaptureFixture) -> None:
    whole = FORMS[form](files)
    open_train_valid(whole, whole)
    assert "40 of 40 samples in valid are also in train" in caplog.text


def test_other_samples_of_a_dataset_are_not_equal() -> None:
    dataset = Drawn()
    tables = [open_data(Subset(dataset, rows)) for rows in ([0, 1, 2, 3], [4, 5, 6, 7])]
    ours, theirs = content_keys(*tables)
    assert len({*ours, *theirs}) == 8


@pytest.mark.parametrize("given", [False, True])
def test_contradicting_labels_are_told_with_and_without_validation_data(
    given: bool, files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    other = ([image(90), image(91)], ["a", "b"])
    open_train_valid((files[:1] * 2 + files[1:3], ["a", "b", "a", "b"]), other if given else False)
    assert "1 set of equal samples with contradicting labels" in caplog.text


def test_equal_samples_are_told_once_by_a_cross_validation(files: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="zoo")
    table, _ = open_train_valid((files[:1] * 2 + files[1:3] * 2, ["a", "b", "a", "b", "a", "b"]), False)
    assert "side of the split" not in caplog.text, "nothing is divided here"
    cross_validation_folds(table, 2)
    assert caplog.text.count("3 samples repeat another one") == 1
    assert caplog.text.count("1 set of equal samples with contradicting labels") == 1


def test_an_image_that_is_still_open_is_its_file(files: list[str]) -> None:
    with PIL.Image.open(files[0]) as first, PIL.Image.open(files[0]) as second:
        (keys,) = content_keys(open_data(([first, second, files[1]], ["a", "b", "a"])))
    assert keys[0] == keys[1] != keys[2]

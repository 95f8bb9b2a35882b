"""torch datasets whose items are dicts, datasets that raise, and encoded bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.make import image
from tests.engine.tiny import model
from zoo.data.images.codecs import can_read
from zoo.data.images.decode import decode
from zoo.data.open import open_data, open_train_valid
from zoo.errors import CorruptInputError, DataError, OptionError


class Dicts:
    """Items with names of their own."""

    def __init__(self, **keys: str) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {"image": image(index), "label": "ab"[index % 2], "group": f"p{index // 4}", "split": "train" if index < 16 else "val"}
        return {self.keys.get(key, key): value for key, value in item.items()} | {"age": index, "a": (index + 1) % 2, "b": index % 2}


def test_groups_and_splits_of_dicts_are_read() -> None:
    table = open_data(Dicts())
    assert table.groups is not None
    assert table.groups[:5] == ("p0", "p0", "p0", "p0", "p1")
    train, valid = open_train_valid(Dicts())
    assert (len(train), len(valid or ())) == (16, 8)
    whole, held = open_train_valid(Dicts(split="fold"))
    assert not set(whole.groups or ()) & set((held and held.groups) or ())


def test_columns_name_the_keys_of_dicts() -> None:
    keys = {"image": "scan", "label": "kind", "group": "person", "split": "part"}
    roles = {"file_name": "scan", "label": "kind", "group": "person", "split": "part"}
    table = open_data(Dicts(**keys), columns=roles)
    assert (table.classes, len(open_data(Dicts(**keys), columns=roles, split="val"))) == (("a", "b"), 8)
    assert table.groups == open_data(Dicts()).groups
    assert open_data(Dicts(), task="regression", columns={"label": "age"}).targets.tolist() == list(range(24))  # type: ignore[union-attr]
    assert open_data(Dicts(), label_columns=["b", "a"]).classes == ("b", "a")
    for columns, fact in [({"label": "knd"}, r"'knd' \(did you mean 'kind'\?\)"), ({"file_name": "scam"}, "did you mean 'scan'")]:
        with pytest.raises(DataError, match=fact):
            open_data(Dicts(**keys), columns=columns)
    with pytest.raises(OptionError, match="'lable'"):
        open_data(Dicts(), columns={"lable": "kind"})


class Rows:
    """Given dicts as items."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_group_without_id_is_refused_as_in_tables(missing: Any, caplog: pytest.LogCaptureFixture) -> None:
    labels = [{"image": image(0), "label": "a", "group": "p"}, {"image": image(1), "label": "b", "group": missing}]
    with pytest.raises(DataError, match=r"'group' \(group\) is empty in 1 row: row 1"):
        open_data(Rows(*labels))
    guessed = Rows(*({"image": one["image"], "label": one["label"], "patient_id": one["group"]} for one in labels))
    assert open_data(guessed).groups == ("p", "no id, row 1")
    assert "'patient_id' is empty in 1 row of 2" in caplog.text
    assert open_data(Rows({"image": image(0), "label": "a", "group": 7.0})).groups == ("7",)


def test_pairs_of_texts_in_dicts_are_read_whole() -> None:
    pairs = Rows({"text": "one", "text_pair": "two", "image": 3, "label": "a"}, {"text": "x", "text_pair": "y", "image": 4, "label": "b"})
    assert list(open_data(pairs, reads="text").inputs) == [("one", "two"), ("x", "y")]
    named = Rows({"question": "one", "passage": "two", "label": "a"})
    assert list(open_data(named, reads="text", columns={"text_pair": "passage"}).inputs) == [("one", "two")]
    with pytest.raises(DataError, match=r"'text_pair'.*empty in 1 row: row 0"):
        open_data(Rows({"text": "one", "text_pair": None, "label": "a"}), reads="text")
    with pytest.raises(OptionError, match="'text_pair'"):
        open_data(Dicts(), columns={"text_pair": "age"})


def test_label_columns_of_dicts_have_the_checks_of_tables() -> None:
    rows = [{"image": image(0), "a": 1, "b": None}, {"image": image(1), "a": torch.tensor(0), "b": 1.0}]
    targets = open_data(Rows(*rows), task="multi-label", label_columns=["a", "b"]).targets
    assert np.array_equal(targets, [[1, np.nan], [0, 1]], equal_nan=True)  # type: ignore[arg-type]
    for odd in ("x", torch.tensor([1, 0])):
        with pytest.raises(DataError, match=r"column 'b': 1 cell, row 1"):
            open_data(Rows(rows[0], {**rows[1], "b": odd}), task="multi-label", label_columns=["a", "b"])
    with pytest.raises(OptionError, match="twice"):
        open_data(Rows(*rows), task="multi-label", label_columns=["a", "a"])


def test_names_of_files_in_dicts_are_looked_for(tmp_path: Path) -> None:
    image(0).save(tmp_path / "0.png")
    table = open_data(Rows({"image": "0", "label": "a"}), root=tmp_path)
    assert table.inputs == [str(tmp_path / "0.png")]
    with pytest.raises(DataError, match=r"1 file of 1 that does not exist"):
        open_data(Rows({"image": Path("none.png"), "label": "a"}))


def test_an_item_without_the_keys_of_the_first_is_named() -> None:
    class Odd(Dicts):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            return item if index != 5 else {"image": item["image"]}

    with pytest.raises(DataError, match="item 5 of the dataset Odd has no 'label', 'group', 'split'"):
        open_data(Odd())


@pytest.mark.parametrize("at", [0, 7])
@pytest.mark.parametrize("kind", [KeyError, IndexError, ZeroDivisionError])
def test_an_error_of_a_dataset_names_its_item_and_is_chained(at: int, kind: type[Exception]) -> None:
    class Broken:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            if index == at:
                raise kind("gone")
            return image(index), index % 2

    with pytest.raises(CorruptInputError, match=rf"item {at} of the dataset Broken cannot be read: {kind.__name__}: .?gone") as caught:
        open_data(Broken())
    assert isinstance(caught.value.__cause__, kind)


class Pairs:
    """Pairs of image and target, with attributes of any kind."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return image(index), index % 2


@pytest.mark.parametrize(
    "attributes",
    [
        {"tensors": {"x": 1}},
        {"tensors": [1]},
        {"tensors": [image(index) for index in range(6)]},
        {"targets": 5},
        {"targets": np.array(5)},
        {"targets": {"a": 1}},
        {"dataset": "flowers", "indices": 3},
    ],
)
def test_attributes_of_a_dataset_are_not_trusted_for_their_names(attributes: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert open_data(Pairs(**attributes)).targets.tolist() == [0, 1, 0, 1, 0, 1]  # type: ignore[union-attr]
    assert not caplog.records


def test_other_targets_in_an_attribute_are_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    masks = torch.zeros((6, 64, 64))
    assert open_data(Pairs(targets=masks)).targets.tolist() == [0, 1, 0, 1, 0, 1]  # type: ignore[union-attr]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "item 0 has the target 0" in line
    assert len(line) < 1000


@pytest.mark.parametrize("length", [None, 4])
def test_an_iterable_dataset_gets_the_remedy_with_and_without_a_loader(length: int | None) -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter([])

    if length is not None:
        Stream.__len__ = lambda self: length  # type: ignore[attr-defined]
    for data in (Stream(), torch.utils.data.DataLoader(Stream())):
        with pytest.raises(DataError, match=r"dataset Stream has no length or cannot be indexed; .*map-style.*\(inputs, labels\)"):
            open_data(data)


def encoded(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image(3).save(stream, kind)
    return stream.getvalue()


def test_encoded_bytes_are_predicted_alone_and_in_lists() -> None:
    net, data = model(3), encoded()
    expected = net.predict([image(3)])
    for given in (data, bytearray(data), memoryview(data), {"bytes": data, "path": None}, [data], [{"bytes": data}], (data, data)):
        assert net.predict(given)[:1] == expected


def test_what_no_image_is_gets_its_remedy() -> None:
    head = b"\0\0\0\x18ftypheic" + bytes(200)
    if not can_read(".heic"):
        with pytest.raises(CorruptInputError, match=r"it is HEIC.*pip install pillow-heif"):
            decode(head)


@pytest.mark.skipif(not can_read(".avif"), reason="this build of Pillow has no AVIF")
def test_avif_is_read_in_class_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.avif").write_bytes(encoded("AVIF"))
    table = open_data(tmp_path)
    assert table.counts() == {"a": 1, "b": 1}
    assert np.asarray(decode(table.inputs[0])).shape[2] == 3


def test_heic_in_class_folders_is_read_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").mkdir()
    image(0).save(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert len(open_data(tmp_path)) == 1 + can_read(".heic")
    assert can_read(".heic") or "1 .heic file cannot be decoded (pip install pillow-heif" in caplog.text


class Holes(Dicts):
    """Items of which some are None, as dicts or tuples, or raise."""

    def __init__(self, holes: set[int], *, tuples: bool, raises: bool = False) -> None:
        super().__init__()
        self.holes, self.tuples, self.raises = holes, tuples, raises

    def __getitem__(self, index: int) -> Any:
        if index in self.holes and self.raises:
            raise OSError("gone")
        item = super().__getitem__(index)
        return None if index in self.holes else (item["image"], item["label"]) if self.tuples else item


@pytest.mark.parametrize("tuples", [True, False])
@pytest.mark.parametrize("hole", [0, 5])
def test_an_item_that_is_none_is_named_with_the_remedy(tuples: bool, hole: int) -> None:
    with pytest.raises(CorruptInputError, match=rf"item {hole} of the dataset Holes is None .*on_corrupt='skip'.*Subset"):
        open_data(Holes({hole}, tuples=tuples))
    with pytest.raises(CorruptInputError, match="item 23 of the dataset Holes is None"):
        open_data(Holes(set(range(24)), tuples=tuples))


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("tuples", [True, False])
def test_items_that_are_none_or_raise_are_skipped_and_counted(
    tuples: bool, raises: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holes = Holes({0, 5, 21}, tuples=tuples, raises=raises)
    options: dict[str, Any] = {"recipe": "linear-probe", "epochs": 1, "workers": 0, "on_corrupt": "skip", "quiet": True}
    run = model(2).fit(holes, valid=False, max_corrupt=0.2, out=tmp_path / "run", **options)
    assert "3 samples of 24 (12.5%) cannot be decoded and are left out" in caplog.text or not tuples
    assert "are left out" in caplog.text
    assert "item 5 of the dataset Holes" in caplog.text
    assert run.history
    with pytest.raises(DataError, match=r"more than the default allows .2."):
        model(2).fit(holes, valid=False, out=tmp_path / "two", **options)


def test_an_item_that_could_not_be_read_once_is_never_used_with_the_label_of_another() -> None:
    holes = Holes({5}, tuples=True)
    table = open_data(holes, skip_broken=True)
    holes.holes = set()
    assert table.inputs[4] is not None
    with pytest.raises(CorruptInputError, match="item 5"):
        table.inputs[5]

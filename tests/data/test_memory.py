from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from tests.data.make import image, write
from tests.faults.fake_dist import run_python
from zoo.data.images.decode import decode
from zoo.data.open import open_data, open_train_valid
from zoo.errors import DataError, OptionError


def targets(source: Any, **options: Any) -> Any:
    read = open_data(source, **options).targets
    assert read is not None
    return read.tolist()


class Pairs(Dataset[Any]):
    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels
        self.decoded = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        self.decoded += 1
        return image(index), self.labels[index]


def test_arrays_are_images_and_integers_are_class_names() -> None:
    read = open_data((np.zeros((4, 6, 6), np.uint8), np.array([10, 9, 10, 9])))
    assert (read.classes, read.targets.tolist()) == (("9", "10"), [1, 0, 1, 0])  # type: ignore[union-attr]
    assert read.inputs[0].shape == (6, 6)


def test_integers_count_into_named_classes() -> None:
    arrays = (np.zeros((3, 6, 6, 3), np.float32), [0, 1, 1])
    assert targets(arrays, classes=["ant", "bee"]) == [0, 1, 1]
    with pytest.raises(DataError, match="'2': 1 sample"):
        open_data((arrays[0], [0, 1, 2]), classes=["ant", "bee"])


def test_integers_are_names_where_the_classes_are_numbers() -> None:
    assert targets((np.zeros((2, 6, 6), np.uint8), [7, 3]), classes=["7", "3"]) == [0, 1]


@pytest.mark.parametrize(
    ("x", "remedy"),
    [
        (np.full((2, 6, 6), 200.0), r"\[200, 200\], expected \[0, 1\]"),
        (np.full((2, 6, 6), -0.1), r"\[-0.1, -0.1\]"),
        (np.full((2, 6, 6), np.nan), "72 values that are not finite"),
        (np.zeros((2, 6, 6), np.int64), "int64"),
        (np.zeros((2, 6, 6), np.uint16), "uint16"),
        (np.zeros((2, 6, 6), bool), "bool"),
        (np.zeros((2, 3, 6, 6), np.uint8), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((6, 6, 3), np.uint8), "one image"),
        (np.zeros((2, 6), np.uint8), r"shape \(2, 6\)"),
        (np.zeros((2, 6, 6, 5), np.uint8), "channels"),
        (np.zeros((0, 6, 6), np.uint8), "no samples"),
    ],
)
def test_arrays_of_unclear_range_or_shape_are_refused(x: Any, remedy: str) -> None:
    with pytest.raises(DataError, match=remedy):
        open_data((x, [0] * len(x)))


def test_lengths_must_agree() -> None:
    with pytest.raises(DataError, match="2 inputs, but 3 labels"):
        open_data((np.zeros((2, 6, 6), np.uint8), [0, 1, 1]))


def test_rows_of_zero_and_one_are_several_labels() -> None:
    read = open_data((np.zeros((2, 6, 6), np.uint8), np.array([[1, 0, 1], [0, 0, 0]])), task="multi-label", classes=["a", "b", "c"])
    assert read.targets.tolist() == [[1, 0, 1], [0, 0, 0]]  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"3 columns.*2 classes"):
        open_data((np.zeros((1, 6, 6), np.uint8), np.array([[1, 0, 1]])), task="multi-label", classes=["a", "b"])


def test_lists_of_names_are_several_labels() -> None:
    assert targets(([image(0), image(1)], [["dog", "cat"], []]), task="multi-label") == [[1, 1], [0, 0]]


def test_lists_of_numbers_are_regression_targets() -> None:
    assert targets((np.zeros((2, 6, 6), np.uint8), [[1, 2.5], [3, 4]]), task="regression") == [[1, 2.5], [3, 4]]
    with pytest.raises(DataError, match=r"1 label of 2.*'tall'"):
        open_data((np.zeros((2, 6, 6), np.uint8), [1.0, "tall"]), task="regression")
    with pytest.raises(DataError, match=r"1 label of 2.*row 1: inf"):
        open_data((np.zeros((2, 6, 6), np.uint8), [1.0, float("inf")]), task="regression")
    with pytest.raises(DataError, match="1, 2 values per sample"):
        open_data((np.zeros((2, 6, 6), np.uint8), [[1.0], [1.0, 2.0]]), task="regression")


def test_fractions_are_no_class_names() -> None:
    with pytest.raises(DataError, match="task 'regression'"):
        open_data((np.zeros((2, 6, 6), np.uint8), [0.5, 1.0]))


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'multi_label'.*did you mean 'multi-label'"):
        open_data((np.zeros((2, 6, 6), np.uint8), [0, 1]), task="multi_label")


@pytest.mark.parametrize("classes", [[], ["a", "a"]])
def test_classes_must_be_distinct(classes: list[str]) -> None:
    with pytest.raises(DataError, match="distinct"):
        open_data((np.zeros((2, 6, 6), np.uint8), ["a", "a"]), classes=classes)


def test_lists_and_single_inputs_are_for_prediction(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    for source, number in [
        ([path, str(path)], 2),
        ([image(0)], 1),
        (path, 1),
        (image(0), 1),
        ((path, path), 2),
        ([np.zeros((4, 4, 3), np.uint8)], 1),
    ]:
        read = open_data(source, labelled=False)
        assert (len(read), read.targets) == (number, None)


def test_files_in_a_list_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 file of 2 .*nothing\.jpg"):
        open_data([write(tmp_path / "a.png"), tmp_path / "nothing.jpg"])


@pytest.mark.parametrize("source", [{"train": "x"}, 7, {1, 2}, [("a.jpg", 1)], [3]])
def test_other_sources_are_refused_with_what_there_is(source: Any) -> None:
    with pytest.raises(DataError, match="paths"):
        open_data(source)


def test_a_torch_dataset_is_decoded_once_for_its_targets_and_then_on_demand() -> None:
    pairs = Pairs(["x", "y", "x"])
    read = open_data(pairs)
    assert (read.classes, read.counts()) == (("x", "y"), {"x": 2, "y": 1})
    assert pairs.decoded == 4
    assert read.select([2]).inputs[0].tobytes() == image(2).tobytes()


def test_targets_and_classes_that_a_dataset_keeps_cost_few_decodings() -> None:
    pairs = Pairs([1, 0] * 500)
    pairs.targets, pairs.classes = [1, 0] * 500, ["ants", "bees"]  # type: ignore[attr-defined]
    read = open_data(Subset(pairs, range(2, 1000)))
    assert (read.classes, read.targets.tolist()) == (("ants", "bees"), [1, 0] * 499)  # type: ignore[union-attr]
    assert pairs.decoded == 9


def test_what_a_dataset_delivers_is_the_truth_and_not_its_attribute(caplog: pytest.LogCaptureFixture) -> None:
    pairs = Pairs([0, 1] * 10)
    pairs.targets = [1, 0] * 10  # type: ignore[attr-defined]
    for data, expected in ((pairs, [0, 1] * 10), (Subset(pairs, range(1, 20)), [1, *[0, 1] * 9])):
        caplog.clear()
        assert open_data(data).targets.tolist() == expected  # type: ignore[union-attr]
        assert re.search(r"item 0 has the target \d and its attribute says \d", caplog.text)


def test_a_tensor_dataset_gives_its_tensors() -> None:
    data = TensorDataset(torch.rand(3, 1, 4, 4), torch.tensor([0, 2, 0]))
    read = open_data(data)
    assert read.classes == ("0", "2")
    assert torch.equal(read.inputs[1], data.tensors[0][1])


def test_a_dataset_without_length_is_refused() -> None:
    class Endless(Dataset[Any]):
        def __getitem__(self, index: int) -> Any:
            return index

    with pytest.raises(DataError, match="Endless has no length"):
        open_data(Endless())


def hub(labels: list[int], names: list[str]) -> Any:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names), "patient": datasets.Value("string")}
    )
    rows = {
        "image": [image(index) for index in range(len(labels))],
        "label": labels,
        "patient": [f"p{index // 2}" for index in range(len(labels))],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_hub_dataset_keeps_the_order_of_its_classes_and_its_images_encoded() -> None:
    read = open_data(hub([1, 0, 1], ["wasp", "ant"]), columns={"group": "patient"})
    assert (read.classes, read.targets.tolist(), read.groups) == (("wasp", "ant"), [1, 0, 1], ("p0", "p0", "p1"))  # type: ignore[union-attr]
    assert isinstance(read.inputs[0]["bytes"], bytes)


def test_the_keys_of_a_dataset_dict_are_its_splits() -> None:
    import datasets

    both = datasets.DatasetDict({"train": hub([0, 1, 0, 1], ["a", "b"]), "validation": hub([1, 0], ["a", "b"])})
    with pytest.raises(DataError, match="1 group of 1 in valid"):  # both have a patient p0
        open_train_valid(both)
    train, valid = open_train_valid(both, allow_leak=True)
    assert (len(train), len(valid), valid.targets.tolist()) == (4, 2, [1, 0])  # type: ignore[union-attr]


def test_a_row_that_a_hub_dataset_marks_unlabelled_is_refused() -> None:
    with pytest.raises(DataError, match="1 sample of 2"):
        open_data(hub([0, -1], ["a", "b"]))


def test_an_array_is_read_while_torch_is_not_imported(tmp_path: Path) -> None:
    code = """
        import sys
        import numpy as np
        from zoo.data.open import open_data
        print(len(open_data(np.zeros((3, 4, 4), np.uint8))), "torch" in sys.modules)
    """
    assert run_python(code, cwd=tmp_path).stdout.split() == ["3", "False"]


@pytest.mark.parametrize("form", ["torch", "numpy", "arrow"])
def test_a_hub_dataset_is_read_whatever_its_format(form: str) -> None:
    import datasets

    images = [PIL.Image.fromarray(np.full((8, 8, 3), 40 * index, np.uint8)) for index in range(4)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    plain = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 1, 0]}, features=features)
    table = open_data(plain.with_format(form))
    assert table.classes == ("cat", "dog")
    assert table.targets is not None
    assert table.targets.tolist() == [0, 1, 1, 0]
    with pytest.raises(DataError, match=r"set_transform.*augment="):
        open_data(plain.with_transform(lambda batch: batch))


def test_a_list_may_hold_encoded_images(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    table = open_data([content, {"bytes": content, "path": None}, {"path": str(tmp_path / "a.png"), "bytes": None}], labelled=False)
    assert len(table) == 3
    pixels = [np.asarray(decode(item)) for item in table.inputs]
    assert all(np.array_equal(pixels[0], other) for other in pixels)


@pytest.mark.parametrize(("task", "reads"), [("multi-label", "text"), ("token-classification", "words")])
def test_an_unlabelled_value_in_a_list_of_class_labels_is_refused_with_its_row(task: str, reads: str) -> None:
    import datasets

    kind = datasets.Sequence(datasets.ClassLabel(names=["cat", "dog"]))
    inputs = {"text": datasets.Value("string")} if reads == "text" else {"words": datasets.Sequence(datasets.Value("string"))}
    for odd in ([-1], [1, -1]):
        rows = {next(iter(inputs)): [["a"] * 2, ["b"] * len(odd)] if reads == "words" else ["a", "b"], "label": [[0, 1], odd]}
        hub = datasets.Dataset.from_dict(rows, features=datasets.Features(inputs | {"label": kind}))
        with pytest.raises(DataError, match=r"row 1|'b'"):
            open_data(hub, task=task, reads=reads)


def test_a_class_name_of_very_many_digits_is_sorted_as_text() -> None:
    long = "1" * 5000
    assert open_data((np.zeros((3, 6, 6), np.uint8), ["2", "10", long])).classes == ("10", long, "2")


@pytest.mark.parametrize("texts", [["a", ("b", "c"), "d"], ["a", ["b", "c"], "d"]])
def test_single_texts_and_pairs_in_one_source_are_refused_with_the_rows(texts: list[Any]) -> None:
    for source in ((texts, ["x", "y", "x"]), [texts[0], texts[1], texts[0]]):
        with pytest.raises(DataError, match=r"1 of 3 samples are pairs of texts, unlike the others: row 1; give every"):
            open_data(source, reads="text")
    with pytest.raises(DataError, match=r"1 of 3 samples are single texts, unlike the others: row 2"):
        open_data(([("a", "b"), ["c", "d"], "e"], [0, 1, 0]), reads="text")
    assert open_data(texts, reads="text", labelled=False).inputs == ["a", ("b", "c"), "d"]
    assert open_data(([("a", "b"), ["c", "d"]], [0, 1]), reads="text").inputs == [("a", "b"), ("c", "d")]

"""Choice of the reader for any kind of source."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.raw import Indicators, Raw, ReadOptions, TaskLabels, join
from zoo.data.sources import array_files, conll, folders, memory
from zoo.data.sources.cells import is_empty
from zoo.data.sources.image_files import IMAGE_SUFFIXES
from zoo.data.sources.input_checks import refuse_other_kind
from zoo.data.sources.locate import place_files
from zoo.data.sources.other_libraries import as_frame, imported_class, is_saved_dataset, open_saved_dataset, remedy_of_items, remedy_of_type
from zoo.data.sources.tables import frames, table_files
from zoo.data.sources.tables.columns import TEXT_COLUMNS
from zoo.data.sources.tables.table_contents import OTHER_KINDS
from zoo.data.sources.torch_data.datasets import read_torch
from zoo.data.table import SAMPLED_ROWS, Array, Part, Table
from zoo.data.unreadable_input import Unreadable
from zoo.declare import Inputs, Text
from zoo.errors import CorruptInputError, DataError, OptionError, examples
from zoo.tasks.find import find_task

log = logging.getLogger("zoo")
_KINDS = (
    "a folder of images, a CSV, TSV, JSON lines or Parquet file, a DataFrame, a datasets.Dataset, a torch Dataset of (input, target), "
    "(X, y) arrays, or a list of paths, PIL images or arrays"
)

_TEXT_KINDS = "a CSV, TSV or Parquet file, a DataFrame, a datasets.Dataset, (texts, labels), a list of texts, or a torch Dataset"
LONE_TEXT = "the text"  # the source of one text that is given as it is
TABLES = (*table_files.SUFFIXES, *conll.SUFFIXES)


def kind_of(inputs: Inputs, task: str) -> str:
    """Return the kind of a model's inputs, as in ``Table.reads``."""
    if not isinstance(inputs, Text):
        return type(inputs).__name__.lower()
    return "words" if find_task(task).per_token else "text"


def read(source: Any, options: ReadOptions) -> Raw:
    """Read any source; see ``zoo.data.open.open_data``.

    Raises:
        DataError: If it is missing, empty, of an unknown kind, or lacks required labels.
        OptionError: If ``columns`` are given for a source without columns.
    """
    raw = _read(source, options)
    if not options.keep_unreadable:
        refuse_other_kind(raw.inputs, options.reads, raw.source)
    if options.labelled and raw.labels is None:
        pairs = isinstance(source, list) and all(isinstance(item, tuple) and len(item) == 2 for item in source[:SAMPLED_ROWS])
        hint = f"; {remedy_of_items(source)}" if pairs and source else ""
        raise DataError(f"{raw.source} has no labels; give class folders, a label column, or (X, y){hint}")
    if options.root is not None and not (isinstance(raw.inputs, list) and any(isinstance(item, str) for item in raw.inputs)):
        raise OptionError(f"root={os.fspath(options.root)!r} is the folder of files that are named, and {raw.source} names none")
    return replace(raw, labels=None, classes=None) if options.labelled is False else raw


def _read(source: Any, options: ReadOptions) -> Raw:
    source = as_frame(of_loader(source))
    if isinstance(source, str) and not source.strip() and not options.textual:
        raise DataError("the path is an empty text; give a folder or a file, and '.' for the current folder")
    if options.textual and isinstance(source, str) and options.labelled is False and not names_file(source):
        return memory.read_texts([source], None, options, LONE_TEXT)
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.expanduser(source))  # noqa: PTH111  # Path's raises for an unknown user
        if is_saved_dataset(path):
            return replace(_read(open_saved_dataset(path), options), source=repr(str(path)))
        return _read_path(path, options)
    # A DataFrame or a Hub dataset exists only if its library is already imported.
    if isinstance(source, imported_class("pandas", "DataFrame")):
        return frames.read_frame(source, options)
    if isinstance(source, imported_class("datasets", "DatasetDict")):
        return memory.read_hub_dict(source, options)
    if isinstance(source, imported_class("datasets", "Dataset")):
        return memory.read_hub(source, options)
    if options.named and not _is_dataset(source):
        tables = "CSV, TSV, Parquet, DataFrame, datasets.Dataset"
        raise OptionError(f"{options.named} needs a table ({tables}) or a Dataset of dicts, not {type(source).__name__}")
    if isinstance(source, imported_class("pandas", "Series")):
        source = source.tolist()
    return _read_texts(source, options) if options.textual else _read_memory(source, options)


def of_loader(data: Any) -> Any:
    """Return the dataset of a torch ``DataLoader``, whose batches, order and workers are replaced by the run's.

    Raises:
        DataError: If its sampler or its collate function changes the samples.
    """
    loaders = sys.modules.get("torch.utils.data")
    if loaders is None or not isinstance(data, loaders.DataLoader):
        return data
    if isinstance(data.dataset, loaders.IterableDataset):
        return data.dataset
    plain = (loaders.SequentialSampler, loaders.RandomSampler)
    own = [] if isinstance(data.sampler, plain) else [f"sampler {type(data.sampler).__name__}"]
    if data.batch_sampler is not None and type(data.batch_sampler) is not loaders.BatchSampler:
        own.append(f"batch sampler {type(data.batch_sampler).__name__}")
    own += [] if data.collate_fn is loaders.default_collate else [f"collate_fn {getattr(data.collate_fn, '__name__', 'of its own')}"]
    if own:
        remedy = "give its dataset, and balanced_sampling=True or a Subset for the sampler"
        raise DataError(f"a DataLoader with the {' and the '.join(own)} is not read, because the run makes the batches; {remedy}")
    log.info("of the DataLoader its dataset is read; batch size, order and workers are those of the run")
    return data.dataset


def names_file(text: str) -> bool:
    """Return whether a string names a file and is not text to predict: it has a known suffix, and exists or has no blank."""
    if not text.lower().endswith(TABLES):
        return os.sep in text and os.path.isdir(text)  # noqa: PTH112  # Path's raises where a name is too long
    return not any(letter.isspace() for letter in text) or os.path.exists(text)  # noqa: PTH110


def _read_texts(source: Any, options: ReadOptions) -> Raw:
    reads = options.reads
    if isinstance(source, Table):
        return _read_table(source)
    # A tuple of two texts, or of two sentences to label, is a list of inputs; any other tuple of two is (X, y).
    sentences = reads == "words" and options.labelled is False
    if isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str) and not sentences:
        return memory.read_texts(*source, options)
    if isinstance(source, list | tuple | np.ndarray):
        return memory.read_texts(source, None, options, "the list")
    if not _is_dataset(source):
        raise DataError(f"data of type {type(source).__name__} cannot be read; give {_TEXT_KINDS}{remedy_of_type(source)}")
    raw = read_torch(source, options)
    return replace(raw, inputs=memory.read_texts(_fetched(raw.inputs, options), raw.labels, options, raw.source).inputs)


def _fetched(inputs: Sequence[Any], options: ReadOptions) -> list[Any]:
    """Return the texts of a dataset; one that it cannot give may keep its row."""
    found: list[Any] = []
    for row in range(len(inputs)):
        try:
            found.append(inputs[row])
        except CorruptInputError as error:
            if not options.keep_unreadable:
                raise
            found.append(Unreadable(str(error)))
    return found


def _is_dataset(source: Any) -> bool:
    """Return whether an object may be a torch dataset, or a loader with one."""
    known = (Mapping, str, bytes, list, tuple, np.ndarray, Table, imported_class("torch", "Tensor"), imported_class("pandas", "Series"))
    return not isinstance(source, known) and (hasattr(source, "__getitem__") or hasattr(source, "dataset"))


def _read_path(path: Path, options: ReadOptions) -> Raw:
    folders.check_exists(path)
    suffix = path.suffix.lower()
    if options.reads == "words" and _has_word_per_line(path, options):
        return conll.read_conll(path, options.labelled, options.columns)
    if options.reads == "text" and not options.columns:
        conll.refuse_conll(path, TEXT_COLUMNS)
    if suffix in table_files.SUFFIXES and path.is_file():
        return frames.read_table(path, options)
    if options.textual:
        return _read_text_path(path, options)
    if suffix == ".npz" and path.is_file() and not options.label_columns:
        raw = array_files.read_array_file(path, options)
        if raw is not None:
            return raw
    if (options.columns or options.label_columns) and not path.is_dir():
        raise OptionError(
            f"{options.named} needs a table (CSV, TSV, Parquet), but {str(path)!r} is not one; "
            "give one of these files, or leave the option out"
        )
    if path.is_dir():
        return folders.read_folder(path, options)
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return Raw([str(path)], None, source=repr(str(path)))
    known = " ".join((*table_files.SUFFIXES, *IMAGE_SUFFIXES))
    hint = f"; {OTHER_KINDS[suffix]}" if suffix in OTHER_KINDS else ""
    raise DataError(f"{str(path)!r} is neither a folder nor a file of a known kind ({known}){hint}")


def _has_word_per_line(path: Path, options: ReadOptions) -> bool:
    """Return whether a file is in the format of CoNLL; names of columns are those of a table where a file may be one."""
    if not conll.is_conll(path):
        return False
    return path.suffix.lower() not in table_files.SUFFIXES or all(name.lstrip("-").isdigit() for name in options.columns.values())


def _read_text_path(path: Path, options: ReadOptions) -> Raw:
    """Read a folder of texts with a table per split."""
    found = [entry for entry in sorted(path.iterdir()) if entry.suffix.lower() in TABLES] if path.is_dir() else []
    splits = {entry.stem.lower(): entry for entry in found if entry.stem.lower() in folders.SPLITS}
    twice = [entry.name for entry in found if splits.get(entry.stem.lower(), entry) != entry]
    if twice:
        raise DataError(f"{str(path)!r} holds two tables of one split: {examples(twice)} and one more of that name; remove one")
    if not splits:
        known = " ".join(table_files.SUFFIXES if options.reads == "text" else (*table_files.SUFFIXES, *conll.SUFFIXES))
        raise DataError(f"{str(path)!r} holds no texts; give a table ({known}), or a folder with train and valid tables")
    parts = [_read_path(entry, options).with_split(name) for name, entry in splits.items()]
    return join(parts, repr(str(path)))


def _read_memory(source: Any, options: ReadOptions) -> Raw:
    reads = options.reads
    if isinstance(source, Table):
        return _read_table(source)
    if isinstance(source, (imported_class("PIL.Image", "Image"), bytes, bytearray, memoryview)) or _is_encoded(source):
        return Raw([bytes(source) if isinstance(source, bytearray | memoryview) else source], None, source="the image")
    # A tuple of two paths or two images is a list of inputs, any other is (X, y).
    if (
        isinstance(source, tuple)
        and len(source) == 2
        and not isinstance(source[0], (str, bytes, Mapping, os.PathLike, imported_class("PIL.Image", "Image")))
    ):
        raw = memory.read_arrays(*source, reads=reads, channels=options.channels)
        return _placed(raw, options) if isinstance(raw.inputs, list) else raw
    if hasattr(source, "dataobj"):  # one nibabel image
        source = [source]
    if isinstance(source, list | tuple):
        return _read_list(list(source), options)
    if isinstance(source, (np.ndarray, imported_class("torch", "Tensor"))):
        return memory.read_arrays(source, None, "the array", reads=reads, channels=options.channels)
    if not _is_dataset(source):
        raise DataError(f"data of type {type(source).__name__} cannot be read; give {_KINDS}{remedy_of_type(source)}")
    return read_torch(source, options)


_ARRAYS = ("__array_interface__", "__array__", "dataobj")  # attributes of arrays, PIL images and nibabel images


def _is_encoded(item: Any) -> bool:
    """Return whether an item is an encoded image as in Hub datasets."""
    return isinstance(item, Mapping) and bool({"bytes", "path"} & item.keys())


def _read_list(items: Sequence[Any], options: ReadOptions) -> Raw:
    if options.keep_unreadable:
        items = [Unreadable("it is empty") if is_empty(item) else item for item in items]
    raw = memory.read_arrays(items, None, "the list", reads=options.reads)
    odd = sorted(
        {
            type(item).__name__
            for item in raw.inputs
            if not (isinstance(item, str | bytes | Unreadable) or _is_encoded(item) or any(hasattr(item, name) for name in _ARRAYS))
        }
    )
    if odd:
        kinds = "paths, encoded bytes, PIL images, arrays or tensors"
        raise DataError(f"the list holds {examples(odd)}; give {kinds} ({remedy_of_items(raw.inputs)})")
    return _placed(raw, options)


def _placed(raw: Raw, options: ReadOptions) -> Raw:
    """Return a list of inputs whose paths are those of files that exist."""
    inputs = place_files(raw.inputs, raw.source, root=options.root, reads=options.reads, missing_ok=options.keep_unreadable)
    return replace(raw, inputs=inputs)


def _read_table(table: Table) -> Raw:
    """Return a table's rows with class names instead of targets, so that they can be encoded by other classes."""
    labels: Sequence[Any] | None = None
    if table.targets is not None and table.parts:
        labels = _by_task(table.targets, table.parts, table.classes)
    elif table.targets is not None and not table.classes:
        labels = table.targets.tolist()
    elif table.targets is not None and table.targets.dtype == object:
        labels = [[table.classes[target] for target in row] for row in table.targets]
    elif table.targets is not None and table.targets.ndim == 1:
        labels = [table.classes[target] for target in table.targets]
    elif table.targets is not None and table.missing():
        labels = [Indicators(table.classes, tuple(row)) for row in table.targets.tolist()]
    elif table.targets is not None:
        labels = [[name for name, on in zip(table.classes, row, strict=True) if on] for row in table.targets]
    return Raw(table.inputs, labels, table.classes or None, table.groups, table.splits, table.source)


def _by_task(targets: Array, parts: Sequence[Part], classes: Sequence[str]) -> list[TaskLabels]:
    """Return the labels of several tasks from their columns; None where one is missing."""
    columns = []
    for part in parts:
        values = targets[:, part.start : part.stop]
        names = tuple(name[len(part.name) + 1 :] for name in classes[part.start : part.stop])
        column: list[Any] = [None] * len(targets)
        for row in part.known(targets).tolist():
            if part.kind == "class":
                column[row] = names[int(values[row].argmax())]
            elif part.kind == "labels":
                column[row] = Indicators(names, tuple(values[row].tolist()))
            else:
                column[row] = values[row].tolist()
        columns.append(column)
    return [TaskLabels(tuple(part.name for part in parts), row) for row in zip(*columns, strict=True)]

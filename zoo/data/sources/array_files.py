"""Data sets in one .npz file: arrays of images or volumes with their labels, in parts such as train, val and test.

Written so by MedMNIST (Yang et al. 2023: ``train_images``, ``train_labels``, …), Keras (``x_train``, ``y_train``, …) and by
``numpy.savez(path, x=…, y=…)``. Headers and labels are read at once, the images of a part where they are used.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.raw import Chain, Raw, ReadOptions, join
from zoo.data.sources.memory import label_list, read_arrays
from zoo.data.table import Array, View, split_word
from zoo.errors import DataError, check_options, count, examples

log = logging.getLogger("zoo")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "input": ("images", "image", "imgs", "img", "x", "data", "inputs", "input", "volumes", "volume", "pixels"),
    "label": ("labels", "label", "y", "targets", "target"),
    "group": ("groups", "group", "patient_id", "patient", "subject_id", "subject"),
}
_ROLES = ("file_name", "image", "volume", "label", "group")  # of columns=
_SHOWN = 12
_NAMING = "columns={'file_name': KEY, 'label': KEY} (--columns)"
_READ = f"Read are images, x, data with labels, y, target, alone or with a part such as train_images, x_test; {_NAMING} names others"
_JOINED = re.compile(r"^(x|y)(?=train|val|test)|(?<=train|valid)(?=x$|y$)|(?<=test)(?=x$|y$)")


class StoredArray(Sequence[Any]):
    """The images or volumes of one array of a file, read when the first one is used.

    Attributes:
        shape: Shape of the array.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...], options: ReadOptions) -> None:
        self.shape = shape
        self._path, self._key, self._reads, self._channels = path, key, options.reads, options.channels
        self._values: Array | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self.load()[index]

    def load(self) -> Array:
        """Return the array.

        Raises:
            DataError: If it cannot be read, or its shape, type or range are not those of the model's inputs.
        """
        if self._values is None:
            values, source = _array(self._path, self._key), f"{self._key!r} of {str(self._path)!r}"
            read_arrays(values, None, source, reads=self._reads, channels=self._channels)
            self._values = values
        return self._values


def in_memory(inputs: Any) -> Any:
    """Return inputs with the arrays of files read."""
    if isinstance(inputs, StoredArray):
        return inputs.load()
    if isinstance(inputs, View) and isinstance(inputs.items, StoredArray):
        return View(inputs.items.load(), inputs.indices)
    if isinstance(inputs, Chain) and any(isinstance(part, StoredArray) for part in inputs.parts):
        return Chain([in_memory(part) for part in inputs.parts])
    return inputs


def read_array_file(path: Path, options: ReadOptions) -> Raw | None:
    """Read a file with arrays of samples and of labels, or return None for one that holds one image or volume.

    A key is a part (``train``, ``val``, ``test`` or a name of its own, or none) and a usual name of images or labels, in either order;
    ``options.columns`` names other keys, with or without the part.

    Raises:
        DataError: If the file cannot be read, or no key is read as images; with its keys.
        OptionError: If ``columns`` has other roles.
    """
    shapes = _shapes(path)
    if len(shapes) == 1 and not options.columns:
        (shape,) = shapes.values()
        return _joined({"": {"input": next(iter(shapes))}}, path, shapes, options) if _is_stack(shape, options) else None
    check_options(options.columns, _ROLES, "columns=")
    parts = _parts(shapes, options, path)
    known = {name: keys for name, keys in parts.items() if "input" in keys}
    if not known:
        raise DataError(f"{str(path)!r} has no key that is read as {options.reads}s; its keys: {_described(shapes)}. {_READ}")
    if options.labelled and not any("label" in keys for keys in known.values()):
        raise DataError(f"{str(path)!r} has no key that is read as labels; its keys: {_described(shapes)}. {_READ}")
    used = {key for keys in known.values() for key in keys.values()}
    if unused := [repr(key) for key in shapes if key not in used]:
        log.info("%s: not read: %s", path, examples(unused))
    return _joined(known, path, shapes, options)


def _joined(parts: Mapping[str, Mapping[str, str]], path: Path, shapes: Mapping[str, tuple[int, ...]], options: ReadOptions) -> Raw:
    """Return the rows of all parts, with a split for each where there are several or one has a name."""
    raws = {name: _part(keys, path, shapes, options) for name, keys in parts.items()}
    if list(raws) == [""]:
        return raws[""]
    if "" in raws and "train" not in map(split_word, raws):
        raws["train"] = raws.pop("")
    return replace(join([raw.with_split(name or "''") for name, raw in raws.items()], repr(str(path))), bundle=True)


def _part(keys: Mapping[str, str], path: Path, shapes: Mapping[str, tuple[int, ...]], options: ReadOptions) -> Raw:
    shape, source = shapes[keys["input"]], repr(str(path))
    samples = shape[0] if shape else 0
    beside = {role: key for role, key in keys.items() if role == "group" or (role == "label" and options.labelled is not False)}
    least = 4 if options.reads == "volume" else 3
    if len(shape) < least:
        wanted = "(samples, depth, height, width)" if least == 4 else "(samples, height, width), or with channels behind"
        raise DataError(
            f"{source}: {keys['input']!r} has the shape {shape}; many samples are {wanted}, and one is a file without other keys"
        )
    for role, key in beside.items():
        if not shapes[key] or shapes[key][0] != samples or len(shapes[key]) > (2 if role == "label" else 1):
            raise DataError(
                f"{source}: {keys['input']!r} has the shape {shape} and {key!r} {shapes[key]}; a {role} is needed for each of "
                f"{count(samples, 'sample')}: (samples,) or (samples, classes)"
            )
    found = {role: _array(path, key) for role, key in beside.items()}
    # A column of one label per sample, as MedMNIST has it.
    found = {role: values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values for role, values in found.items()}
    labels = label_list(found["label"]) if "label" in found else None
    groups = [str(group) for group in found["group"].tolist()] if "group" in found else None
    return Raw(StoredArray(path, keys["input"], shape, options), labels, groups=groups, source=source)


def _parts(shapes: Iterable[str], options: ReadOptions, path: Path) -> dict[str, dict[str, str]]:
    """Return the keys by part and role.

    Raises:
        DataError: If two keys have the same part and role.
    """
    named = {"input" if role in _ROLES[:3] else role: (name,) for role, name in options.columns.items()}
    if options.header_group:  # arrays have no headers, so it is the name of a key, or none is taken
        named["group"] = (options.header_group,)
    names = {role: named.get(role, usual) for role, usual in _NAMES.items()}
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    for key in shapes:
        role, part = _meaning(key, names)
        if role and (other := parts[part].setdefault(role, key)) != key:
            raise DataError(
                f"{str(path)!r}: {other!r} and {key!r} are both read as the {role}s{f' of {part}' if part else ''}; {_NAMING} names one"
            )
    return {part: keys for part, keys in parts.items() if keys}


def _meaning(key: str, names: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Return the role of a key and its part; two empty texts for one that is not read."""
    plain = _plain(key)
    pairs = [(role, _plain(name)) for role, known in names.items() for name in known]
    # The last word decides: ``image_labels`` are labels, ``target_images`` are images.
    fits = [(role, plain.removesuffix(name).rstrip("_")) for role, name in pairs if f"_{plain}".endswith(f"_{name}")]
    fits += [(role, plain.removeprefix(name).lstrip("_")) for role, name in pairs if plain.startswith(f"{name}_")]
    return fits[0] if fits else ("", "")


def _plain(key: str) -> str:
    """Return a key in small letters, its words divided by underscores: ``trainX``, ``X-train`` and ``xtrain`` have two."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
    return _JOINED.sub(lambda found: f"{found[0]}_", re.sub(r"[^a-z0-9]+", "_", words).strip("_"))


def _is_stack(shape: tuple[int, ...], options: ReadOptions) -> bool:
    """Return whether the only array of a file can only be many samples."""
    if options.reads == "volume":
        return len(shape) == 5 or (len(shape) == 4 and shape[0] not in (1, options.channels))
    pictures = options.channels in (1, 3)
    return len(shape) == 4 or (pictures and len(shape) == 3 and shape[-1] not in (1, 3, 4) and shape[0] not in (1, 3))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of a file, from their headers."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:  # one array
                return {"": ()}
        with zipfile.ZipFile(path) as file:
            return {name.removesuffix(".npy"): _shape(file, name) for name in file.namelist() if name.endswith(".npy")} or {"": ()}
    except Exception as error:  # zipfile, zlib and numpy raise anything on hostile bytes
        raise _unreadable(path, error) from error


def _shape(file: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with file.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape = read(stream)[0]
    return tuple(shape)


def _array(path: Path, key: str) -> Array:
    """Return one array of a file; pickled objects are never loaded."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored[key])
    except Exception as error:  # as above, and MemoryError for the size that a header claims
        raise _unreadable(path, error, key) from error


def _unreadable(path: Path, error: Exception, key: str = "") -> DataError:
    where = f"{key!r} of {str(path)!r}" if key else repr(str(path))
    if "allow_pickle" in str(error):
        return DataError(f"{where} holds Python objects, which are not read; save it as an array of numbers or text")
    if isinstance(error, MemoryError):
        return DataError(f"{where} does not fit into memory: {error}; take a smaller file, or a folder of images")
    return DataError(f"{where} cannot be read: {error}; fetch or write it again")


def _described(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return examples([f"{key!r} {shape}" for key, shape in shapes.items()], _SHOWN)

"""Image folders: class subfolders, splits of class subfolders, or images alone. Names are read, no image is opened."""

from __future__ import annotations

import glob
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zoo.data.raw import Raw, ReadOptions, join
from zoo.data.sources.image_files import IMAGE_SUFFIXES, describe_unread, entries, identity, is_dir, is_image, walk
from zoo.data.sources.tables import frames
from zoo.data.sources.tables.columns import has_labels, names_files
from zoo.data.sources.tables.table_files import parse_file
from zoo.data.splits.patients import near_attribute
from zoo.data.table import SPLIT_WORDS, looks_like_valid, part_of_data, split_word
from zoo.errors import DataError, OptionError, did_you_mean, examples
from zoo.tasks.labels.names import class_order
from zoo.util.near_paths import did_you_mean_path

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face image folders
SPLITS = frozenset(word for words in SPLIT_WORDS.values() for word in words)

log = logging.getLogger("zoo")


def read_folder(folder: Path, options: ReadOptions) -> Raw:
    """Read a folder of class subfolders, of train/ val/ test/ with class subfolders, or of images alone.

    Files at any depth below a class folder belong to it. Hidden files and folders are left out. A ``metadata.csv`` or
    ``metadata.jsonl`` beside the images, as of Hugging Face image folders, is read as their table if it has a column of files, and
    either one of labels or no subfolders beside it.

    Args:
        folder: An existing folder.
        options: Without ``labelled`` all images at any depth are read, without labels.

    Raises:
        DataError: If there is no image.
    """
    if options.labelled is not False:
        _refuse_model(folder)
    subfolders = _subfolders(folder)
    names = {name.lower() for name in subfolders}
    if names and (names <= SPLITS or {split_word(name) for name in names} >= {"train", "valid"}):
        return _read_splits(folder, {name: path for name, path in subfolders.items() if name.lower() in SPLITS}, subfolders, options)
    if options.labelled is not False:
        _refuse_odd_splits(folder, subfolders)
    raw = _read_part(folder, subfolders, options, by_class=options.labelled is not False)
    if not raw.inputs:
        raise _no_image(folder, f", also in its {len(subfolders)} subfolders")
    return raw


def _refuse_model(folder: Path) -> None:
    """Refuse the folder of a run or of a saved model, whose pictures are curves.

    Raises:
        DataError: If it is one.
    """
    if (folder / "run.json").is_file() or all((folder / name).is_file() for name in ("config.json", "model.safetensors")):
        raise DataError(f"{str(folder)!r} is the folder of a run or a saved model, and no data; give an image folder or a table")


def _read_part(folder: Path, subfolders: dict[str, str], options: ReadOptions, *, by_class: bool) -> Raw:
    table = _metadata(folder)
    if table is not None:
        frame = parse_file(table)
        if _is_table(list(map(str, frame.columns)), subfolders, options):
            log.info("%s is read as the table of its folder", table)
            return frames.read_frame(frame, options, source=repr(str(table)), base=table.parent)
        log.info("%s is not read: the table of a folder has a column of files and one of labels; columns= names them", table)
    elif options.tasks and options.label_columns and not options.columns and not options.root:  # names of columns that nobody gave
        first = options.tasks[0]
        raise OptionError(
            f"{str(folder)!r} has no {' or '.join(METADATA)} with the labels of the tasks {', '.join(options.tasks)}; where it has those "
            f"of one task, name the task: {{{first!r}: …}} in Python, {first}=FOLDER on the command line"
        )
    elif options.named or options.root:
        given = " and ".join(filter(None, (options.named, f"root={str(options.root)!r}" if options.root else "")))
        remedy = "write one with a row per image (file_name, label and such columns), or leave the option out"
        if near := near_attribute(str(options.columns.get("group", ""))):
            remedy += f"; of DICOM files an attribute of the headers may be the group{near}"
        raise OptionError(f"{given} needs a table, and {str(folder)!r} has no {' or '.join(METADATA)}; {remedy}")
    if by_class:
        return _read_classes(folder, subfolders)
    unread: Counter[str] = Counter()
    raw = Raw(list(walk(str(folder), unread=unread)), None, source=repr(str(folder)))
    _warn_unread(folder, unread)
    return raw


def _is_table(columns: list[str], subfolders: dict[str, str], options: ReadOptions) -> bool:
    """Return whether metadata with these columns are the table of a folder, for training and prediction alike."""
    if options.named or options.root:
        return True
    return names_files(columns) and (has_labels(columns) or not subfolders)


def _metadata(folder: Path) -> Path | None:
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{str(folder)!r} has {' and '.join(path.name for path in found)}; keep one of them")
    return found[0] if found else None


def _refuse_odd_splits(folder: Path, subfolders: dict[str, str]) -> None:
    """Raise where subfolders are splits by their names or by what they hold, and would be read as classes."""
    remedy = "give both folders: fit(train, valid), --valid; or call them 'train' and 'val'"
    parts = {name: part_of_data(name) for name in subfolders}
    odd = [name for name in subfolders if looks_like_valid(name)]
    if "train" in map(split_word, subfolders) and odd:
        raise DataError(f"{str(folder)!r} has 'train' and {examples(list(map(repr, odd)))}, which look like splits; {remedy}")
    if all(parts.values()) and {"train"} < set(parts.values()):
        raise DataError(f"{str(folder)!r} has {examples(list(map(repr, parts)))}, which look like splits; {remedy}")
    inner = _folders_of_all(subfolders)
    if len(inner) > 1:
        outer, shared = examples(list(map(repr, subfolders))), examples(sorted(map(repr, inner)))
        log.warning("%s: %s are read as classes, and all hold the folders %s; if they are splits, %s", folder, outer, shared, remedy)


def _folders_of_all(subfolders: dict[str, str]) -> frozenset[str]:
    """Return the names of the folders that each of several subfolders has, if all have the same; empty otherwise."""
    paths = list(map(Path, subfolders.values()))
    first = frozenset(_subfolders(paths[0])) if len(paths) > 1 else frozenset()
    return first if first and all(first == frozenset(_subfolders(path)) for path in paths[1:]) else frozenset()


def _no_image(folder: Path, where: str) -> DataError:
    unread: Counter[str] = Counter()
    list(walk(str(folder), unread=unread))
    hint = f"; {describe_unread(unread)}" if unread else f"; looked for {' '.join(IMAGE_SUFFIXES)}{where}"
    return DataError(f"{str(folder)!r} holds no image that can be read{hint}" if unread else f"{str(folder)!r} holds no image{hint}")


def _warn_unread(folder: Path, unread: Counter[str]) -> None:
    if unread:
        log.warning("%s: %s; left out", folder, describe_unread(unread))


def check_exists(path: Path) -> None:
    """Check that a path exists.

    Raises:
        DataError: With the nearest name that exists.
    """
    try:
        if path.exists():
            return
    except OSError as error:  # a name too long, or a folder that may not be entered
        raise DataError(f"{str(path)!r} cannot be opened: {error.strerror}") from error
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    missing = path.absolute().relative_to(parent).parts[0]
    names = [entry.name for entry in parent.iterdir()] if os.access(parent, os.R_OK) else []
    if missing in ("http:", "https:", "s3:", "gs:"):
        raise DataError(f"{missing}//… is a URL, and inputs are not fetched; download the file and give its path, or its bytes")
    pattern = str(path.absolute().relative_to(parent))
    found = glob.iglob(pattern, root_dir=parent, recursive=True)  # noqa: PTH207  # Path.glob refuses "**" within a name
    if any(sign in missing for sign in "*?") and any(found):
        raise DataError(f"{str(path)!r} is a pattern, which the shell expands where it has no quotes; in Python give a list of paths")
    near = did_you_mean_path(parent / missing) if (parent / missing).is_symlink() else did_you_mean(missing, names)
    raise DataError(f"{str(path)!r} does not exist: there is no {missing!r} in {str(parent)!r}{near}")


def _read_splits(folder: Path, splits: dict[str, str], subfolders: dict[str, str], options: ReadOptions) -> Raw:
    left_out = sorted(set(subfolders) - set(splits))
    if left_out:
        log.warning("%s: read as splits %s; not read: %s", folder, ", ".join(splits), examples(left_out))
    parts = []
    for name, path in splits.items():
        parts.append(_read_part(Path(path), _subfolders(Path(path)), options, by_class=True).with_split(name))
    if not any(part.inputs for part in parts):
        raise _no_image(folder, f" in {examples(list(splits))}")
    return join(parts, repr(str(folder)))


def _read_classes(folder: Path, subfolders: dict[str, str]) -> Raw:
    # A link to a parent folder would put the images of all classes into one.
    above = frozenset(map(identity, (folder, *folder.resolve().parents)))
    unread: Counter[str] = Counter()
    images: dict[str, list[str]] = {}
    for name, path in subfolders.items():  # one name may be there in both of Unicode's forms, and blanks around labels are not part of them
        images.setdefault(unicodedata.normalize("NFC", name).strip(), []).extend(walk(path, above, unread=unread))
    listed = entries(str(folder))
    loose = [entry.path for entry in listed if not is_dir(entry) and is_image(entry, unread)]
    _warn_unread(folder, unread)
    _warn_of_reserved(folder, [entry for entry in listed if is_dir(entry) and entry.name.startswith("__")])
    if loose and not any(images.values()):
        return Raw(loose, None, source=repr(str(folder)))
    if loose:
        log.warning("%s: %d images beside the class folders have no label and are not read", folder, len(loose))
    return Raw(
        [path for paths in images.values() for path in paths],
        [name for name, paths in images.items() for _ in paths],
        classes=class_order(set(images)) or None,
        source=repr(str(folder)),
    )


def _warn_of_reserved(folder: Path, reserved: Sequence[os.DirEntry[str]]) -> None:
    """Warn of folders such as ``__MACOSX`` that are not classes, and hold images."""
    counts = {entry.name: sum(1 for _ in walk(entry.path)) for entry in reserved}
    named = [f"{name!r} ({number})" for name, number in counts.items() if number]
    if named:
        log.warning("%s: folders whose names start with __ are no classes; images left out: %s; rename a class", folder, examples(named))


def _subfolders(folder: Path) -> dict[str, str]:
    return {entry.name: entry.path for entry in entries(str(folder)) if is_dir(entry) and not entry.name.startswith("__")}

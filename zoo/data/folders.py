"""Image folders: class subfolders, splits of class subfolders, or images alone. Names are read, no image is opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from zoo.data.dicom import is_dicom
from zoo.data.raw import Raw, join
from zoo.data.table import SPLIT_WORDS, split_word
from zoo.errors import DataError, did_you_mean
from zoo.tasks.labels import class_order

PICTURES = (".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
EXTENSIONS = (*PICTURES, ".dcm", ".dicom", ".nii", ".nii.gz", ".npy", ".npz")
SPLITS = frozenset(word for words in SPLIT_WORDS.values() for word in words)

log = logging.getLogger(__name__)


def read_folder(folder: Path, labelled: bool | None = None) -> Raw:
    """Read a folder of class subfolders, of train/ val/ test/ with class subfolders, or of images alone.

    Files at any depth below a class folder belong to it. Hidden files and folders are left out.

    Args:
        folder: An existing folder.
        labelled: False reads all images at any depth, without labels.

    Raises:
        DataError: If there is no image.
    """
    subfolders = _subfolders(folder)
    names = {name.lower() for name in subfolders}
    if names and (names <= SPLITS or {split_word(name) for name in names} >= {"train", "valid"}):
        return _read_splits(folder, {name: path for name, path in subfolders.items() if name.lower() in SPLITS}, subfolders)
    raw = Raw(list(_images(str(folder))), None, source=repr(str(folder))) if labelled is False else _read_classes(folder, subfolders)
    if not raw.inputs:
        raise DataError(f"{str(folder)!r} holds no image; looked for {' '.join(EXTENSIONS)}, also in its {len(subfolders)} subfolders")
    return raw


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
    raise DataError(f"{str(path)!r} does not exist: there is no {missing!r} in {str(parent)!r}{did_you_mean(missing, names)}")


def _read_splits(folder: Path, splits: dict[str, str], subfolders: dict[str, str]) -> Raw:
    left_out = sorted(set(subfolders) - set(splits))
    if left_out:
        log.warning("%s: read as splits %s; not read: %s", folder, ", ".join(splits), ", ".join(left_out))
    parts = []
    for name, path in splits.items():
        raw = _read_classes(Path(path), _subfolders(Path(path)))
        parts.append(raw.with_split(name))
    if not any(part.inputs for part in parts):
        raise DataError(f"{str(folder)!r} holds no image in {', '.join(splits)}; looked for {' '.join(EXTENSIONS)}")
    return join(parts, repr(str(folder)))


def _read_classes(folder: Path, subfolders: dict[str, str]) -> Raw:
    # A link to a parent folder would put the images of all classes into one.
    above = frozenset(map(_identity, (folder, *folder.resolve().parents)))
    images = {name: list(_images(path, above)) for name, path in subfolders.items()}
    loose = [entry.path for entry in _entries(str(folder)) if _is_image(entry)]
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


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except PermissionError as error:
        raise DataError(f"the folder {folder!r} may not be read; change its permissions") from error


def _subfolders(folder: Path) -> dict[str, str]:
    return {entry.name: entry.path for entry in _entries(str(folder)) if _is_dir(entry) and not entry.name.startswith("__")}


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_image(entry: os.DirEntry[str]) -> bool:
    if entry.name.lower().endswith(EXTENSIONS):
        return _is_file(entry) or (entry.is_symlink() and not Path(entry.path).exists())  # a broken link raises an error later
    # Scanners and archives write DICOM files without a suffix, or with names of numbers and dots.
    ending = entry.name.rpartition(".")[2] if "." in entry.name else ""
    return (not ending or ending.isdigit()) and _is_file(entry) and _starts_as_dicom(entry.path)


def _starts_as_dicom(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def _images(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Yield the images at any depth, sorted by name; links to parent folders are not followed."""
    here = _identity(Path(folder))
    if here in above:
        return
    for entry in _entries(folder):
        if _is_dir(entry):
            yield from _images(entry.path, above | {here})
        elif _is_image(entry):
            yield entry.path

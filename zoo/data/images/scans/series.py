"""A DICOM series as a volume: slices of one folder, sorted by their place in the patient (DICOM PS3.3 C.7.6.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.images.scans.dicom import is_dicom, read_slice
from zoo.data.images.scans.nifti import Array, nibabel_for, read_nifti
from zoo.errors import CorruptInputError, count

EVEN = 0.02  # of the step between slices, by which steps may differ
PARALLEL = 1e-3  # by which the cosines of the orientation of two slices may differ


def read_series(folder: Path, name: str = "") -> tuple[Array, Array]:
    """Return the values and the affine of a DICOM series, its axes reordered to left to right, back to front, bottom to top.

    Values are those after the rescale, Hounsfield units of a CT. Files of the folder that are not DICOM are passed over.

    Args:
        folder: A folder with the slices of one series, one per file.
        name: Name for messages; a folder names itself.

    Returns:
        float32 ``(1, depth, height, width)``, and the affine ``(4, 4)`` from its indices to millimetres in RAS+.

    Raises:
        MissingExtraError: If pydicom or nibabel is not installed.
        CorruptInputError: If there are fewer than two slices, several series, or slices that differ in size, spacing or orientation,
            lack their place, or are not evenly spaced.
    """
    name = name or repr(str(folder))
    slices = [(path, *read_slice(path)) for path in _files(folder)]
    if len(slices) < 2:
        raise CorruptInputError(f"{name} is a folder with {count(len(slices), 'DICOM slice')}; a series has two or more")
    series = sorted({str(header.get("SeriesInstanceUID")) for _, header, _ in slices})
    if len(series) > 1:
        raise CorruptInputError(f"{name} holds {len(series)} DICOM series; a volume is a folder with one: move each into its own")
    shapes = sorted({values.shape for *_, values in slices})
    if len(shapes) > 1:
        sizes = ", ".join(f"{rows} x {columns}" for rows, columns in shapes[:4])
        raise CorruptInputError(f"{name} has slices of {len(shapes)} sizes ({sizes}); remove those that are no part of the volume")
    place = np.asarray([_numbers(path, header, "ImagePositionPatient", 3) for path, header, _ in slices])
    turn = np.asarray([_numbers(path, header, "ImageOrientationPatient", 6) for path, header, _ in slices])
    steps = np.asarray([_numbers(path, header, "PixelSpacing", 2) for path, header, _ in slices])
    step = steps[0]  # between rows, between columns
    if np.abs(steps - step).max() > EVEN * step.min():
        raise CorruptInputError(f"{name} has slices of several pixel spacings; remove those that are no part of the volume")
    if np.abs(turn - turn[0]).max() > PARALLEL:
        raise CorruptInputError(f"{name} has slices that are not parallel; remove those that are no part of the volume, such as a scout")
    right, down = turn[0, :3], turn[0, 3:]
    along = place @ np.cross(right, down)
    order = np.argsort(along, kind="stable")
    _check_even(along[order], [slices[index][0].name for index in order], name)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = right * step[1], down * step[0]
    affine[:3, 2], affine[:3, 3] = (place[order[-1]] - place[order[0]]) / (len(order) - 1), place[order[0]]
    affine[:2] *= -1  # DICOM counts to the left and to the back
    stacked = np.stack([slices[index][2].T for index in order], axis=2).astype(np.float32)
    return read_nifti(nibabel_for(name).Nifti1Image(stacked, affine), 1, name)


def _files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            with path.open("rb") as file:
                found += [path] if is_dicom(file.read(132)) else []
    return found


def _numbers(path: Path, header: Any, entry: str, length: int) -> Array:
    """Return the numbers of an entry, which says where a slice lies.

    Raises:
        CorruptInputError: If it is absent, or not so many finite numbers.
    """
    unknown = "so its place in a volume is unknown; convert the series to NIfTI"
    if entry not in header:
        raise CorruptInputError(f"{str(path)!r} has no {entry}, {unknown}")
    try:
        found = np.asarray([float(value) for value in header.get(entry)])  # pydicom parses it here
    except (TypeError, ValueError, OverflowError) as error:
        raise CorruptInputError(f"{str(path)!r} has in {entry} no {length} numbers ({error}), {unknown}") from error
    if len(found) != length or not np.isfinite(found).all():
        raise CorruptInputError(f"{str(path)!r} has in {entry} no {length} numbers, {unknown}")
    return found


def _check_even(along: Array, names: list[str], name: str) -> None:
    """Raise if slices, in their order, are not evenly spaced."""
    steps = np.diff(along)
    usual = float(np.median(steps))
    if (same := np.flatnonzero(steps <= usual * EVEN)).size:
        first = int(same[0])
        raise CorruptInputError(f"{name} has two slices at one place: {names[first]!r} and {names[first + 1]!r}; remove one")
    if (odd := np.flatnonzero(np.abs(steps - usual) > usual * EVEN)).size:
        first = int(odd[0])
        gap = f"{steps[first]:.4g} mm between {names[first]!r} and {names[first + 1]!r}, elsewhere {usual:.4g} mm"
        raise CorruptInputError(f"{name} has unevenly spaced slices ({gap}); a slice may be absent: copy the series again")

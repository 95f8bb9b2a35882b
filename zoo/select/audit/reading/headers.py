"""Headers of medical files beside their values: scanner, patient, spacing, orientation, type of the values."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.images.scans.dicom import read_header
from zoo.data.images.scans.nifti import VOLUMES, Array
from zoo.data.splits.patients import PATIENT, STUDY

SCANNER = ("Manufacturer", "ManufacturerModelName", "StationName")  # DICOM PS3.3 C.7.5.1
SIDECAR = ("Manufacturer", "ManufacturersModelName", "StationName")  # the same in BIDS (Gorgolewski et al. 2016)
_LONGEST = 200  # characters of an entry


def dicom_facts(source: Any) -> dict[str, str]:
    """Return kind, scanner, patient and study of a DICOM file by its header; nothing of other files, and of what cannot be read.

    Args:
        source: Path of a file, or of a folder whose first DICOM file counts; or an encoded file.
    """
    header = read_header(source, [*SCANNER, PATIENT, STUDY, "Modality", "PhotometricInterpretation"])
    if header is None:
        return {}
    kind = _joined(["DICOM", *(header.get(name) for name in ("Modality", "PhotometricInterpretation"))])
    camera = _joined([header.get(name) for name in SCANNER])
    return {"kind": kind, "camera": camera, "patient": _joined([header.get(PATIENT)]), "study": _joined([header.get(STUDY)])}


def volume_facts(source: Any, values: Array, affine: Array | None) -> dict[str, Any]:
    """Return spacing, kind (orientation and type of the values in the file) and scanner of a volume.

    The scanner is that of the file's sidecar (BIDS), ``scan.json`` beside ``scan.nii.gz``.

    Args:
        source: What the volume was read from.
        values: Its values.
        affine: From its indices to millimetres, or None.
    """
    found: dict[str, Any] = {"kind": str(values.dtype), "spacing": np.full(3, np.nan)}
    if affine is not None:
        found["spacing"] = np.linalg.norm(affine[:3, :3], axis=0)
    if not isinstance(source, str | os.PathLike):
        return found
    path = os.fspath(source)
    ending = next((end for end in VOLUMES[::-1] if path.lower().endswith(end)), "")
    if not ending:
        return found | dicom_facts(path)
    with suppress(Exception):  # the volume itself was read
        import nibabel

        image: Any = nibabel.load(path)
        orientation: Any = nibabel.aff2axcodes
        found["kind"] = f"{''.join(orientation(image.affine))} {image.get_data_dtype()}"
        sidecar = Path(path[: -len(ending)] + ".json")
        entries = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.is_file() else {}
        if isinstance(entries, Mapping):
            found["camera"] = _joined([entries.get(name) for name in SIDECAR])
    return found


def _joined(entries: list[Any]) -> str:
    texts = [" ".join(str(entry).split()) for entry in entries if entry is not None]
    return " ".join(filter(None, texts))[:_LONGEST]

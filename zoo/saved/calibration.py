"""The calibration of a saved model: fields in config.json, arrays in calibration.safetensors beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.errors import SavedModelError, fault_list
from zoo.saved.config import Config, SavedCalibration, read_config
from zoo.saved.tensors import read_verified
from zoo.trust.calibrated import Calibration
from zoo.trust.calibration import tempered_threshold
from zoo.util.atomic_write import write_json
from zoo.util.file_digest import file_digest
from zoo.weights.load import write

NAME = "calibration.safetensors"


def write_calibration(calibration: Calibration | None, folder: Path) -> SavedCalibration | None:
    """Write the arrays of a calibration into a folder that has no config.json yet, and return its fields; None removes the file."""
    if calibration is None:
        (folder / NAME).unlink(missing_ok=True)
        return None
    write({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in calibration.arrays().items()}, folder / NAME)
    return SavedCalibration(**calibration.fields(), sha256=file_digest(folder / NAME))


def read_calibration(folder: Path, config: Config) -> Calibration | None:
    """Return the calibration of a saved model, or None.

    Raises:
        SavedModelError: If its file is missing or damaged, or does not fit the model.
    """
    saved = config.zoo.calibration
    if saved is None:
        return None
    tensors = read_verified(folder / NAME, saved.sha256, "calibration", weights=False)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    if faults := _faults(arrays):
        remedy = "calibrate the model again: zoo calibrate"
        raise SavedModelError(fault_list(f"{str(folder / NAME)!r} is no calibration of this model:", faults, remedy))
    return Calibration.from_saved(saved.model_dump(), arrays)


def _faults(arrays: dict[str, Any]) -> list[str]:
    faults = [f"it lacks {name!r}" for name in ("scores", "weights") if name not in arrays]
    faults += [f"{name!r} is not finite" for name, values in arrays.items() if not np.isfinite(values).all()]
    if not faults and arrays["weights"].shape != arrays["scores"].shape[:1]:
        faults.append("there is not one weight per score")
    if arrays.get("features", np.zeros((1, 1))).ndim != 2:
        faults.append("'features' is not one row per sample")
    return faults


def update_calibration(folder: Path, calibration: Calibration, thresholds: tuple[float, ...] | None) -> None:
    """Replace the calibration of a saved model, and its thresholds, which the temperature moves; nothing else is written.

    Until the new arrays are there config.json names none, so that the model can be opened whenever this is cut off.

    Raises:
        SavedModelError: If the folder is no saved model.
    """
    read_config(folder)
    path = folder / "config.json"
    plain = json.loads(path.read_text(encoding="utf-8"))  # with the keys of the home library
    if plain["zoo"].get("calibration") is not None:
        before = plain["zoo"]["calibration"]["temperature"]
        unscaled = [tempered_threshold(threshold, 1 / before) for threshold in plain["zoo"].get("thresholds", ())]
        plain["zoo"] |= {"calibration": None, "thresholds": unscaled}
        write_json(path, plain)
    saved = write_calibration(calibration, folder)
    assert saved is not None, "there is a calibration"
    plain["zoo"] |= {"calibration": saved.model_dump(), "thresholds": list(thresholds or ())}
    write_json(path, plain)

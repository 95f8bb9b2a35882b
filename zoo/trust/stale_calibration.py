"""Stale calibrations: those of other values of the head than the model has."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from zoo.trust.calibrated import Calibration

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("zoo")


def head_digest(head: nn.Module) -> str:
    """Return a sha256 of the values of a head."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in head.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def current_calibration(calibration: Calibration | None, head: nn.Module) -> Calibration | None:
    """Return a calibration; None, with a warning, if the head has other values by now."""
    if calibration is None or calibration.head == head_digest(head):
        return calibration
    log.warning(
        "the model was calibrated on %s with other values of its head; its calibration is left out: calibrate it again", calibration.source
    )
    return None

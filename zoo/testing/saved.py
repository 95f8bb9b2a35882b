"""Checks of saving: what is written comes back equal."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import zoo
from zoo.testing.subject import Subject


def saved_model_returns(subject: Subject) -> None:
    """A saved model gives equal logits after loading, and is a backbone with the same groups."""
    model = subject.model().eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = model.save(Path(folder) / "saved")
        loaded = zoo.load(path)
        assert torch.equal(model(subject.batch()), loaded(subject.batch())), "logits differ after saving and loading"
        assert zoo.get(path).groups.names == model.groups.names, "groups differ after saving and loading"

"""Checks of saving and loading."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import zoo
from zoo.errors import examples
from zoo.testing.subject import Subject


def saved_model_returns(subject: Subject) -> None:
    """A saved model is loaded bit for bit, gives the same logits, and is a backbone with the same groups."""
    model = subject.model().eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = model.save(Path(folder) / "saved")
        loaded = zoo.load(path)
        before, after = model.state_dict(), loaded.state_dict()
        assert before.keys() == after.keys(), f"saving lost or added: {examples(sorted(before.keys() ^ after.keys()))}"
        changed = [name for name in before if before[name].dtype != after[name].dtype or not torch.equal(before[name], after[name])]
        assert not changed, f"saving changed: {examples(changed)}"
        # Loaded tensors may have another alignment in memory, which changes the last bit of a convolution.
        same = torch.allclose(model(subject.batch()), loaded.eval()(subject.batch()), rtol=1e-5, atol=1e-6)
        assert same, "logits differ after saving and loading"
        assert zoo.get(path).groups.names == model.groups.names, "groups differ after saving and loading"

"""What every dual encoder must take part in, for the tests of plugins: fitting, FLYP, saving and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

import zoo
from zoo.cli import main
from zoo.transfer import Flyp


def takes_part_in_everything(name: str, images: npt.NDArray[Any], folder: Path) -> None:
    """Check that an image tower is probed, tuned and tuned with its text tower, and that each result returns from its folder.

    Args:
        name: Of the dual encoder.
        images: An even number of images.
        folder: Where the runs go.
    """
    encoder, labels = zoo.get(name), ["good", "bad"]
    data, quick = (images, labels * (len(images) // 2)), {"batch_size": 4, "quiet": True}
    runs: dict[str, tuple[zoo.TaskModel, dict[str, Any]]] = {
        "probe": (encoder.adapt(2), {"recipe": "linear-probe"}),
        "lora": (encoder.adapt(2), {"recipe": "lora", "epochs": 2}),
        "flyp": (encoder.zero_shot(labels), {"objective": Flyp(), "epochs": 1}),
    }
    for run, (model, options) in runs.items():
        before = model.predict_proba(images)
        model.fit(data, False, **quick, **options, out=folder / run)
        after = model.predict_proba(images)
        assert not (before == after).all(), run
        assert (zoo.load(folder / run).predict_proba(images) == after).all(), run


def lists_its_layers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that ``zoo layers`` prints the first group of a backbone."""
    with pytest.raises(SystemExit) as left:
        main(["layers", name])
    assert (left.value.code, "stem" in capsys.readouterr().out) == (0, True)

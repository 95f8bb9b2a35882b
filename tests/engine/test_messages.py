from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import zoo
from tests.toy import ToyNet, toy_spec
from zoo.declare import Weights
from zoo.errors import TrainingError
from zoo.models.backbone import Backbone


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.usefixtures("toys")
def test_the_licence_of_the_weights_is_told_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrained: bool) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(ToyNet().state_dict(), path)
    backbone = Backbone(toy_spec(weights=Weights(file=str(path), license="cc-by-nc-4.0")), weights=pretrained)
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    model = backbone.adapt(2)
    model.fit((images, [0, 1] * 4), recipe="linear-probe", epochs=1, batch_size=4, device="cpu", out=tmp_path / "run")
    told = "".join(capsys.readouterr())
    assert ("(licence of the weights: cc-by-nc-4.0)" in told) == pretrained, told


def test_a_batch_of_one_that_a_batch_norm_cannot_train_on_names_the_sizes_that_work(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(4))
    pixels, labels = np.zeros((5, 8, 8, 3), np.uint8), [0, 1, 0, 1, 1]
    model = zoo.wrap(network, inputs=8).adapt(2)
    options = {"recipe": "full", "epochs": 1, "quiet": True}
    with pytest.raises(TrainingError, match=r"one sample.*batch_size of 3 or more.*freeze_bn=True"):
        model.fit((pixels, labels), False, batch_size=2, out=tmp_path / "two", **options)
    model.fit((pixels, labels), False, batch_size=3, out=tmp_path / "three", **options)
    model.fit((pixels, labels), False, batch_size=2, freeze_bn=True, out=tmp_path / "held", **options)


def test_a_resumed_folder_without_a_run_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, told = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8), []
    for _ in range(2):
        with caplog.at_level(logging.INFO, "zoo"):
            model = Backbone(toy_spec(), weights=False).adapt(2)
            model.fit((images, [0, 1] * 4), False, recipe="linear-probe", quiet=True, out=tmp_path / "run", resume=True)
        told.append("there is no run in" in caplog.text)
        caplog.clear()
    assert told == [True, False]

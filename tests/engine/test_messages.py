from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from tests.toy import ToyNet, toy_spec
from zoo.declare import Weights
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
    assert ("(weights: cc-by-nc-4.0)" in told) == pretrained, told

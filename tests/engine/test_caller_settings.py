"""Settings of torch that a caller has made for the whole process or around a call: gradients off, another dtype, inference mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.engine.tiny import NAMES, difference, images, model, values
from zoo.errors import OptionError

OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 1, "batch_size": 8, "lr": 1e-2, "quiet": True}


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_run_trains_where_the_caller_has_gradients_off(off: Callable[[], AbstractContextManager[Any]], tmp_path: Path) -> None:
    plain, other = model(), model()
    plain.fit(images(), out=tmp_path / "plain", **OPTIONS)
    with off():
        built = model()
        built.plan(images(), **OPTIONS)
        other.fit(images(), out=tmp_path / "other", **OPTIONS)
        built.fit(images(), out=tmp_path / "built", **OPTIONS)
    assert difference(values(plain), values(model())) > 0
    assert difference(values(plain), values(other)) == 0
    assert difference(values(plain), values(built)) == 0


def test_a_network_of_ones_own_from_inference_mode_cannot_be_trained_and_that_is_said(tmp_path: Path) -> None:
    with torch.inference_mode():
        own = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
        net = zoo.wrap(own, inputs=zoo.Image(size=16)).adapt(3, labels=NAMES)
    assert len(net.predict(images(3)[0])) == 3
    with pytest.raises(OptionError, match="inference_mode"):
        net.fit(images(), out=tmp_path, **OPTIONS)


@pytest.mark.usefixtures("float64")
def test_a_default_dtype_of_the_caller_changes_neither_predictions_nor_runs(tmp_path: Path) -> None:
    net = zoo.get("zoo/glyphnet").adapt(3, labels=NAMES)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    embedded = net.embed(images(3)[0])
    run = net.fit(images(), out=tmp_path / "run", **OPTIONS)
    found = zoo.load(run.dir).predict_proba(images(3)[0])
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    plain = zoo.get("zoo/glyphnet").adapt(3, labels=NAMES)
    assert np.allclose(plain.embed(images(3)[0]), embedded, atol=1e-5)  # the pixels are scaled in the caller's dtype
    plain.fit(images(), out=tmp_path / "plain", **OPTIONS)
    assert np.allclose(plain.predict_proba(images(3)[0]), found, atol=1e-3)


@pytest.mark.parametrize("call", ["predict", "predict_proba", "embed"])
def test_a_model_in_half_precision_is_refused_with_the_remedy(call: str) -> None:
    net = model(labels=NAMES).bfloat16()
    with pytest.raises(OptionError, match=r"bfloat16.*model\.float\(\)"):
        getattr(net, call)(images(3)[0])
    assert len(getattr(net.float(), call)(images(3)[0])) == 3

"""Tip-Adapter: the published formula, and what it adds to a zero-shot classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import zoo
import zoo.builtin
from tests.select.command_line import run
from tests.toy_pair import COLOURS, PairPlugin, coloured, pair_spec, pretrained
from zoo.errors import OptionError
from zoo.models.backbone import Backbone
from zoo.registry.registry import Registry, use_registry
from zoo.transfer.fewshot.tip_adapter import TipOptions, tip_logits

NAMES = sorted(COLOURS)
SHIFT = (60, -60, 60)
SUPPORT, QUERIES = coloured(NAMES, 40, 21, shift=SHIFT), coloured(NAMES, 200, 12, shift=SHIFT)


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a dual encoder."""
    return pretrained(tmp_path_factory.mktemp("towers") / "model.safetensors")


def test_the_logits_are_those_of_the_published_loop() -> None:
    random = np.random.default_rng(0)
    queries, keys = (functional.normalize(torch.from_numpy(random.normal(size=(count, 4))), dim=1) for count in (3, 5))
    values = functional.one_hot(torch.tensor([0, 1, 1, 2, 0]), 3).double()
    zero_shot = torch.from_numpy(random.normal(size=(3, 3)))
    found = tip_logits(queries, keys, values, zero_shot, TipOptions(alpha=2.0, beta=3.0))
    for row in range(3):
        expected = zero_shot[row].clone()
        for key, value in zip(keys, values, strict=True):
            expected += 2.0 * torch.exp(-3.0 * (1 - queries[row] @ key)) * value
        torch.testing.assert_close(found[row], expected)


def test_a_few_samples_help_a_zero_shot_classifier_and_none_change_nothing(towers: Path) -> None:
    encoder = Backbone(pair_spec(towers))
    zero = encoder.zero_shot(NAMES).evaluate(QUERIES)["accuracy"]

    def accuracy(method: str, **options: float) -> float:
        found = zoo.transfer.few_shot(encoder, SUPPORT, QUERIES, method, **options).accuracy
        assert found is not None
        return found

    assert accuracy("tip-adapter", alpha=0.0) == zero
    assert accuracy("tip-adapter", alpha=20.0, beta=50.0) > zero + 0.03
    assert accuracy("tip-adapter-f", alpha=20.0, beta=20.0) > accuracy("tip-adapter", alpha=20.0, beta=20.0) + 0.01


def test_a_saved_zero_shot_model_is_adapted_too(towers: Path, tmp_path: Path) -> None:
    encoder = Backbone(pair_spec(towers))
    use_registry(Registry(plugins=[zoo.builtin, PairPlugin()], files=[]))
    try:
        encoder.zero_shot(NAMES).save(tmp_path / "zero")
        model = zoo.load(tmp_path / "zero")
    finally:
        use_registry()
    one, other = (zoo.transfer.few_shot(each, SUPPORT, QUERIES, "tip-adapter").probabilities for each in (model, encoder))
    assert np.allclose(one, other, atol=1e-6)
    with pytest.raises(OptionError, match="in this order"):
        zoo.transfer.few_shot(model, coloured(["red", "blue"], 8), QUERIES, "tip-adapter")


def test_what_is_no_dual_encoder_or_no_option_is_told(towers: Path) -> None:
    with pytest.raises(OptionError, match="no text tower"):
        zoo.transfer.few_shot("zoo/glyphnet", SUPPORT, QUERIES, "tip-adapter")
    with pytest.raises(OptionError, match="of Tip-Adapter, and method is 'simpleshot'"):
        zoo.transfer.few_shot("zoo/glyphnet", SUPPORT, QUERIES, "simpleshot", alpha=5)
    with pytest.raises(OptionError, match=r"(?s)alpha is -1.*beta is 0"):
        zoo.transfer.few_shot(Backbone(pair_spec(towers)), SUPPORT, QUERIES, "tip-adapter", alpha=-1, beta=0)
    with pytest.raises(OptionError, match=r"did you mean 'beta'"):
        zoo.transfer.few_shot(Backbone(pair_spec(towers)), SUPPORT, QUERIES, "tip-adapter", betta=0)


def test_the_command_takes_templates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use_registry(Registry(plugins=[zoo.builtin, PairPlugin()], files=[]))
    try:
        for name, (pixels, labels) in {"support": SUPPORT, "queries": QUERIES}.items():
            np.savez(tmp_path / f"{name}.npz", x=pixels, y=np.array(labels))
        files = [str(tmp_path / f"{name}.npz") for name in ("support", "queries")]
        assert run("few-shot", "toy/pair", *files, "--method", "tip-adapter", "--templates", "a {}", "--json") == 0
    finally:
        use_registry()
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == len(QUERIES[1])

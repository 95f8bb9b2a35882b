"""Biases that are fitted anew after tuning on augmented images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import zoo
from tests.engine.test_resume import tables
from tests.engine.tiny import difference, images, model, timeless, values
from zoo.data.table import Table
from zoo.engine.objective import supervised
from zoo.engine.objective.objective import Objective
from zoo.engine.options.begun import as_begun, option_differences
from zoo.engine.options.model_selection import Best
from zoo.engine.options.recipes import REFIT_SAMPLES
from zoo.engine.options.resolve import resolve
from zoo.engine.solved.bias_shift import bias_shift
from zoo.engine.train.job import resolve_job
from zoo.errors import InterruptedRunError, OptionError

AUGMENTED: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 8, "augment": "light", "quiet": True, "refit_bias": True}


def glyphs(**options: Any) -> Any:
    return zoo.get("zoo/glyphnet").adapt(3, labels=["blue", "green", "red"], **options)


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_a_shift_puts_the_boundary_between_the_classes_however_sure_the_logits_are(size: float) -> None:
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    logits = 2 * torch.eye(3)[targets] + torch.linspace(-0.2, 0.2, 24).reshape(8, 3)
    moved = size * (logits + torch.tensor([3.0, 0.0, -1.0]))  # all samples are on the side of the first class
    assert (moved.argmax(1) == 0).all()
    shift = bias_shift(moved, lambda found: cross_entropy(found, targets, reduction="sum"))
    assert ((moved + shift).argmax(1) == targets).all()
    predicted = ((moved + shift).double() / moved.double().std()).softmax(1).mean(0)
    assert torch.allclose(predicted, torch.tensor([0.5, 0.25, 0.25]).double(), atol=5e-3)


def test_logits_that_say_nothing_move_nothing() -> None:
    targets = torch.tensor([0, 1, 1])
    assert not bias_shift(torch.full((3, 2), 1.5), lambda found: cross_entropy(found, targets, reduction="sum")).any()


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, [1.0, 1.0, 1.0]),
        ({"balanced_sampling": True}, [0.5, 1.0, 1.0]),
        ({"class_weights": "balanced"}, [0.5, 1.0, 1.0]),
        ({"class_weights": {"blue": 3.0, "green": 1.0, "red": 2.0}}, [3.0, 1.0, 2.0]),
    ],
)
def test_classes_count_as_they_did_in_training(options: dict[str, Any], weights: list[float]) -> None:
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    logits, net = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), glyphs()
    table = Table([*range(8)], targets.numpy(), ("blue", "green", "red"))
    supervised.Supervised(net, table, None, resolve("layer-decay", options), torch.device("cpu")).refit_bias(logits, table)
    predicted = ((logits + net.head.linear.bias.detach()).double() / logits.double().std()).softmax(1)
    share = torch.tensor(weights).double()[targets, None]
    assert torch.allclose((share * predicted).sum(0), (share * torch.eye(3)[targets]).sum(0), atol=0.05)


def test_only_the_biases_change(tmp_path: Path) -> None:
    nets = model(), model()
    for refits, net in enumerate(nets):
        run = net.fit(images(24), False, out=tmp_path / str(refits), **AUGMENTED | {"refit_bias": bool(refits)})
        assert (run.history[-1]["phase"] == "refit-bias") == bool(refits)
    left, right = map(values, nets)
    assert [name for name in left if not torch.equal(left[name], right[name])] == ["head.linear.bias"]


def test_the_lines_of_all_epochs_have_one_column_of_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(*tables(), out=tmp_path, **AUGMENTED | {"quiet": False})
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch " in line or "after training" in line]
    assert len(lines) == 3
    assert lines[-1].startswith("refit-bias after training")
    assert {line.find("epoch ") for line in lines[:-1]} == {lines[-1].find("after")}


def test_a_run_without_augmented_images_or_with_an_objective_that_cannot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="refit_bias: it follows on training with augmented images, and nothing is augmented"):
        model().fit("nowhere", **AUGMENTED | {"augment": "none"})

    class Plain(Objective):
        def __init__(self, base: supervised.Supervised) -> None:
            super().__init__(base.model, base.sources, base.valid)
            self.loss, self.validate = base.loss, base.validate  # type: ignore[method-assign]  # the same signatures

    with pytest.raises(OptionError, match=r"refit_bias: it has no refit_bias\(\)"):
        model().fit(images(24), False, out=tmp_path, objective=Plain, **AUGMENTED)


def test_validation_data_judge_the_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def harmful(logits: torch.Tensor, _loss: Any) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(0), logits.shape[1]) * 1e4

    monkeypatch.setattr(supervised, "bias_shift", harmful)
    net = model()
    run = net.fit(*tables(), out=tmp_path, **AUGMENTED)
    assert run.history[-1]["phase"] == "refit-bias"
    assert run.kept < len(run.history)
    assert net.head.linear.bias.abs().max() < 100


def test_biases_are_compared_with_the_mixture_that_was_asked_for_and_not_with_what_was_before() -> None:
    best = Best("accuracy")
    assert best.update(1, {"accuracy": 0.9})
    assert best.update(2, {"accuracy": 0.7}, asked=True)
    assert best.update(3, {"accuracy": 0.8})
    assert not best.update(4, {"accuracy": 0.75})
    assert best.epoch == 3


def test_an_interruption_while_the_logits_are_computed_changes_nothing(tmp_path: Path) -> None:
    expected, cut, resumed = model(), model(), model()
    whole = expected.fit(tables()[0], False, out=tmp_path / "whole", **AUGMENTED)
    with pytest.raises(InterruptedRunError):
        cut.fit(tables(24 * 2 + 5)[0], False, out=tmp_path / "cut", **AUGMENTED)
    again = resumed.fit(tables()[0], False, out=tmp_path / "cut", resume=True, **AUGMENTED)
    assert difference(values(resumed), values(expected)) == 0.0
    assert timeless(again.history) == timeless(whole.history)


def refits(net: Any, samples: int, objective: Any = None, **options: Any) -> bool | None:
    """Return whether a run of so many samples fits its biases anew."""
    recipe = options.pop("recipe", None)
    job = resolve_job(net, None, False, recipe=recipe, options=options, objective=objective)
    return job.sized((Table([*range(samples)], np.zeros(samples, np.int64), ("a",)), None)).config.refit_bias


def test_the_rule_is_for_what_was_measured() -> None:
    assert refits(glyphs(), REFIT_SAMPLES) is True
    assert refits(glyphs(), REFIT_SAMPLES + 1) is False
    assert refits(glyphs(), REFIT_SAMPLES + 1, refit_bias=True) is True
    assert refits(glyphs(), 6, refit_bias=False) is False
    others = ({"recipe": "full"}, {"epochs": 1}, {"freeze": "all"}, {"objective": lambda supervised: supervised})
    assert [refits(glyphs(), 6, **options) for options in others] == [False] * len(others)
    assert refits(model(), 6) is False  # random values are not tuned
    assert refits(glyphs(head="mlp"), 6) is False
    assert refits(zoo.get("zoo/glyphnet").adapt(3, task="multi-label"), 6) is False
    assert refits(glyphs(), 6, augment="none") is False, "a record that says it did what it did not do"


def test_a_head_or_task_without_such_biases_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"refit_bias: .* 'mlp' of a single-label task"):
        glyphs(head="mlp").fit("nowhere", refit_bias=True)
    with pytest.raises(OptionError, match=r"refit_bias: .* multi-label task"):
        zoo.get("zoo/glyphnet").adapt(3, task="multi-label").fit("nowhere", refit_bias=True)


def test_a_run_of_an_earlier_version_goes_on_as_it_began() -> None:
    config = resolve("layer-decay", {})
    before = {name: value for name, value in config.to_dict().items() if name != "refit_bias"}
    begun = as_begun(config, before)
    assert begun.refit_bias is False
    assert not option_differences(begun.to_dict(), before)
    assert as_begun(config, config.to_dict()).refit_bias is None
    assert not option_differences(config.to_dict(), before)  # of several runs, each of which decides by its number of samples
    assert option_differences(config.to_dict() | {"refit_bias": True}, before) == ["refit_bias was False and is True"]

"""Whether images are augmented where nobody said so: by what augmented views do to the head on held-out samples."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.engine.tiny import difference, model, values
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.engine.options.resolve import resolve
from zoo.engine.solved.augmentation_choice import MAX_SAMPLES, held_out_losses, views_help, views_to_judge
from zoo.engine.train import train_state
from zoo.errors import InterruptedRunError

CPU = torch.device("cpu")
TOLD = "training images are not augmented"
OPTIONS: dict[str, Any] = {"recipe": "layer-decay", "epochs": 2, "batch_size": 8, "quiet": True}


def sides(count: int = 40) -> tuple[list[Any], list[str]]:
    """Return images whose class is the side that is bright, which a flip turns into the other class."""
    source, pixels, labels = np.random.default_rng(0), [], []
    for index in range(count):
        image = source.integers(0, 40, (16, 16, 3))
        image[:, slice(0, 8) if index % 2 else slice(8, 16)] += 200
        pixels.append(image.astype(np.uint8))
        labels.append(("right", "left")[index % 2])
    return pixels, labels


def judged(features: torch.Tensor, views: list[torch.Tensor], labels: np.ndarray) -> Any:
    table = Table(list(range(len(labels))), labels, ("a", "b"))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits, targets, reduction="sum")

    return held_out_losses(features, views, table, 2, loss, device=CPU, seed=0, poll=lambda: None)


def test_views_that_carry_the_class_help_and_views_that_hide_it_do_not() -> None:
    source, labels = torch.Generator().manual_seed(0), np.arange(40) % 2
    shift = torch.from_numpy(labels)[:, None] * 1.0

    def drawn() -> torch.Tensor:
        return torch.randn(40, 20, generator=source) + shift

    features = drawn()
    better, worse = judged(features, [drawn(), drawn()], labels), judged(features, [drawn() - 2 * shift], labels)
    assert better.with_views < better.without == worse.without < worse.with_views
    assert (better.helps, worse.helps) == (True, False)


def test_nothing_is_judged_without_folds_or_with_many_samples() -> None:
    assert judged(torch.randn(2, 4), [torch.randn(2, 4)], np.arange(2)) is None
    assert [views_to_judge(count) for count in (1, 32, 400, MAX_SAMPLES, MAX_SAMPLES + 1)] == [4, 4, 2, 1, 0]


def test_images_that_a_flip_turns_into_another_class_are_not_augmented(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain, alone, augmented = model(2), model(2), model(2)
    with caplog.at_level(logging.INFO, "zoo"):
        plain.fit(sides(), False, out=tmp_path / "auto", **OPTIONS)
    assert TOLD in caplog.text
    alone.fit(sides(), False, out=tmp_path / "none", augment="none", **OPTIONS)
    assert difference(values(plain), values(alone)) == 0.0, "no augmentation, and nothing else"
    caplog.clear()
    augmented.fit(sides(), False, out=tmp_path / "light", augment="light", **OPTIONS)
    assert TOLD not in caplog.text
    assert difference(values(plain), values(augmented)) > 0.0


def test_a_resumed_run_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, resumed = model(2), model(2)
    whole.fit(sides(), False, out=tmp_path / "whole", **OPTIONS)

    class Tripwire(list[Any]):
        reads = 0

        def __getitem__(self, index: Any) -> Any:
            type(self).reads += 1
            if type(self).reads == 40 * 5 + 20:  # the features of five views, then in the tuning epoch
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    table = open_data(sides())
    monkeypatch.setattr("zoo.data.images.float_tensors.sample_inputs", lambda table, **_: [])
    monkeypatch.setattr("zoo.engine.train.trainer.is_nondeterministic", lambda table: False)
    with pytest.raises(InterruptedRunError):
        model(2).fit(Table(Tripwire(table.inputs), table.targets, table.classes), False, out=tmp_path / "cut", **OPTIONS)
    monkeypatch.setattr("zoo.engine.objective.supervised.Supervised.suits_augmentation", lambda *_, **__: pytest.fail("judged again"))
    resumed.fit(sides(), False, out=tmp_path / "cut", resume=True, **OPTIONS)
    assert difference(values(resumed), values(whole)) == 0.0


def test_only_a_recipe_that_nobody_changed_judges() -> None:
    assert resolve("layer-decay", {}).judge_augment
    assert resolve("layer-decay", {"augment": "auto"}).judge_augment
    for options in ({"augment": "light"}, {"augment": "none"}, {"augment": {"flip": 0.5}}, {"mixup": 0.2}):
        assert not resolve("layer-decay", options).judge_augment
    assert not resolve("linear-probe", {}).judge_augment


def test_checkpoints_of_earlier_versions_augmented() -> None:
    state = train_state.TrainState(train_state.Ranks())
    saved = state.state_dict()
    assert saved.pop("augments")
    state.augments = False
    state.load_state_dict(saved)
    assert state.augments


def test_a_run_says_that_it_augments(caplog: pytest.LogCaptureFixture) -> None:
    given: dict[str, Any] = {"device": torch.device("cpu"), "seed": 0, "poll": lambda: None}
    y = torch.arange(24) % 2
    features = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)) + 2.0 * y[:, None]
    table = Table([*range(24)], y.numpy(), ("a", "b"))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")

    with caplog.at_level(logging.INFO, "zoo"):
        assert views_help(features, lambda count: [features.clone()] * count, table, 2, loss, **given) is not (TOLD in caplog.text)
    assert "training images are" in caplog.text

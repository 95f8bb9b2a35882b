"""Domain adaptation on toy domains: it helps where it should, not without its loss, and mistakes are told before anything trains."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.engine.rank_work import plain
from tests.engine.tiny import count_samples, images, model
from tests.transfer.domain.toy import SOURCE, TARGET, TEST, VALID, adapted, nearer
from zoo.errors import DataError, OptionError
from zoo.transfer import DomainAdaptation
from zoo.transfer.domain.alignments import KINDS
from zoo.util.process_caches import CACHES

SLOWER = (("dan", 8), ("jan", 8), ("cdan", 16), ("cdan-e", 16))


def accuracy(out: Path, method: str, **options: Any) -> float:
    return adapted(out, method, **options)[0].evaluate(TEST)["accuracy"]


@pytest.mark.parametrize(
    ("method", "epochs"), [("coral", 8), ("dann", 16), *(pytest.param(*one, marks=pytest.mark.sweep) for one in SLOWER)]
)
def test_an_alignment_helps_and_without_its_weight_it_does_not(method: str, epochs: int, tmp_path: Path) -> None:
    assert accuracy(tmp_path / "with", method, epochs=epochs) > 0.85
    assert accuracy(tmp_path / "without", method, epochs=epochs, weight=0.0) < 0.65


@pytest.mark.parametrize("method", ["mcc", pytest.param("mdd", marks=pytest.mark.sweep)])
def test_a_method_of_predictions_helps_where_they_start_above_chance_and_without_its_weight_it_does_not(
    method: str, tmp_path: Path
) -> None:
    target, found = nearer(64, 2), {}
    how: dict[str, Any] = {"recipe": "full", "epochs": 12, "batch_size": 16, "lr": 1e-2, "augment": "none", "workers": 0, "quiet": True}
    for name, weight in {"with": None, "without": 0.0}.items():
        net = plain(2, head="mlp", hidden=16, dropout=0.0)
        objective = zoo.transfer.DomainAdaptation(target[0], method=method, weight=weight)
        net.fit(SOURCE, VALID, out=tmp_path / name, objective=objective, **how)
        found[name] = net.evaluate(nearer(64, 3))["accuracy"]
    assert found["with"] > 0.95
    assert found["without"] < 0.85


def test_the_epoch_is_chosen_by_the_target_without_its_labels(tmp_path: Path) -> None:
    _, run = adapted(tmp_path / "infomax", "dann")
    assert run.monitor == "target_infomax"
    assert run.metrics["target_infomax"] == max(line["target_infomax"] for line in run.history)
    assert {"accuracy", "target_entropy"} <= set(run.metrics)
    assert "target_snd" not in run.metrics  # its time grows with the square of the samples
    assert "target_snd" in adapted(tmp_path / "snd", "mcc", epochs=1, validator="snd")[1].metrics


def test_the_warm_start_follows_the_steps_of_the_run(tmp_path: Path) -> None:
    made: list[Any] = []

    def make(base: Any) -> Any:
        made.append(DomainAdaptation(TARGET[0], method="dann", hidden=4)(base))
        return made[0]

    how: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 16, "augment": "none", "quiet": True}
    plain(2).fit(SOURCE, False, out=tmp_path, objective=make, **how)
    assert made[0].total_steps == made[0].state_dict()["steps"] == 8


def test_adabn_takes_the_statistics_of_the_target(tmp_path: Path) -> None:
    nets = {}
    for name in ("source-only", "adabn"):
        nets[name] = model(2)
        objective = DomainAdaptation(TARGET[0], method=name)
        how: dict[str, Any] = {"recipe": "full", "epochs": 8, "augment": "none", "batch_size": 16, "freeze_bn": False, "quiet": True}
        nets[name].fit(SOURCE, VALID, out=tmp_path / name, objective=objective, **how)
    means = {}
    for name, net in nets.items():
        x = torch.stack([net.transform()(image) for image in TARGET[0]])
        own = net.backbone.conv1(x).detach().mean((0, 2, 3))
        means[name] = float((net.backbone.bn1.running_mean - own).abs().max() / own.abs().max())
    assert means["adabn"] < 0.1 < means["source-only"]


def test_a_frozen_prefix_is_computed_once_for_source_and_target(tmp_path: Path) -> None:
    def computed(epochs: int) -> int:
        net = model()
        seen = count_samples(net.backbone.conv1)
        objective = DomainAdaptation(images(18, seed=5)[0] // 2, method="coral")
        how: dict[str, Any] = {"recipe": "top", "augment": "none", "epochs": epochs, "batch_size": 8, "quiet": True}
        net.fit(images(24), images(12, seed=1), out=tmp_path / str(epochs), objective=objective, **how)
        CACHES.clear()
        return seen[0]

    assert computed(3) == computed(6)


def test_labels_of_the_target_change_nothing(tmp_path: Path) -> None:
    found = []
    for labels in (TARGET[1], TARGET[1][::-1], None):
        net = plain(2, head="mlp", hidden=4)
        target = TARGET[0] if labels is None else (TARGET[0], labels)
        how: dict[str, Any] = {"recipe": "linear-probe", "epochs": 2, "quiet": True}
        run = net.fit(SOURCE, VALID, out=tmp_path / str(len(found)), objective=DomainAdaptation(target, method="mcc"), **how)
        found.append([line["train_loss"] for line in run.history])
    assert found[0] == found[1] == found[2]


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(OptionError, match=r"method 'shot' starts from a trained model, without the source: .*adapt_source_free"):
        DomainAdaptation(TARGET[0], method="shot")
    with pytest.raises(
        OptionError, match=r"'corla' \(did you mean 'coral'.*[\s\S]*validator is 'devil'[\s\S]*temperature is 0[\s\S]*threshold is 2"
    ):
        DomainAdaptation(TARGET[0], method="corla", validator="devil", temperature=0, threshold=2)
    with pytest.raises(OptionError, match="no option 'wieght' "):
        DomainAdaptation(TARGET[0], wieght=1)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match=r"budget is for method='auto'"):
        DomainAdaptation(TARGET[0], method="coral", budget="1min")
    with pytest.raises(OptionError, match=r"budget \(--budget\) is 'soon'[\s\S]*candidates is 5; it must be a list of names"):
        DomainAdaptation(TARGET[0], candidates=5, budget="soon")


@pytest.mark.parametrize(
    ("net", "target", "method", "options", "error", "told"),
    [
        (plain, SOURCE, "coral", {}, DataError, "the target is the source: 64 of 64 samples"),
        (plain, TARGET[0][:1], "coral", {}, DataError, "has 1 sample; a domain needs at least 2"),
        (plain, TARGET[0], "dann", {"recipe": "linear-probe"}, OptionError, "no feature can move; take head='mlp'"),
        (plain, TARGET[0], "adabn", {}, OptionError, "no norm with running statistics"),
        (partial(plain, task="regression"), TARGET[0], "mcc", {}, OptionError, "needs one class per sample; take one of: coral, dan, dann"),
        (plain, TARGET[0], "coral", {"delta": 0.1}, OptionError, "delta compares the activations"),
    ],
)
def test_what_cannot_train_is_told_before_anything_trains(
    net: Any, target: Any, method: str, options: dict[str, Any], error: type[Exception], told: str, tmp_path: Path
) -> None:
    made = net(1) if isinstance(net, partial) else net(2)
    data = (SOURCE[0], np.arange(64.0)) if isinstance(net, partial) else SOURCE
    seen = count_samples(made.backbone.conv1)
    with pytest.raises(error, match=told):
        made.fit(data, False, out=tmp_path, objective=DomainAdaptation(target, method=method), quiet=True, **{"recipe": "full"} | options)
    assert seen == [0]


@pytest.mark.parametrize("method", ["coral", "auto"])
def test_a_monitor_is_refused_where_a_validator_of_the_target_chooses_the_epoch(method: str, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"monitor is 'accuracy', and validator='infomax' chooses .*; leave monitor out, or take validator"
    ):
        plain(2).fit(SOURCE, VALID, out=tmp_path, monitor="accuracy", quiet=True, objective=DomainAdaptation(TARGET[0], method=method))


def test_a_given_monitor_chooses_the_epoch_with_the_validator_of_the_source(tmp_path: Path) -> None:
    objective = DomainAdaptation(TARGET[0], method="coral", validator="source")
    run = plain(2).fit(SOURCE, VALID, out=tmp_path, monitor="loss", recipe="full", epochs=1, quiet=True, objective=objective)
    assert run.monitor == "loss"


def test_a_shared_part_of_source_and_target_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mixed = np.concatenate([TARGET[0], SOURCE[0][:3]])
    how: dict[str, Any] = {"recipe": "full", "epochs": 1, "quiet": True, "augment": "none"}
    plain(2).fit(SOURCE, False, out=tmp_path, objective=DomainAdaptation(mixed, method="coral"), **how)
    assert "3 of 67 samples of the target are in the source too" in caplog.text


def test_every_method_of_the_table_takes_a_step(tmp_path: Path) -> None:
    for method in KINDS:
        net = model(2, head="mlp", hidden=4)
        how: dict[str, Any] = {"recipe": "full", "epochs": 1, "quiet": True, "augment": "none", "freeze_bn": False, "batch_size": 32}
        run = net.fit(SOURCE, VALID, out=tmp_path / method, objective=zoo.transfer.DomainAdaptation(TARGET[0], method=method), **how)
        assert np.isfinite(run.history[0]["train_loss"]), method


def tensors(domain: Any) -> Any:
    """Return float tensors in [0, 1], as ``ToTensor`` makes them, without or with labels."""
    if isinstance(domain, tuple):
        return tensors(domain[0]), domain[1]
    return list(torch.from_numpy(domain).permute(0, 3, 1, 2).float() / 255)


@pytest.mark.parametrize("made", ["adaptation", "distillation"])
def test_float_tensors_without_labels_are_read_like_the_images_that_they_come_from(made: str, tmp_path: Path) -> None:
    losses = []
    for name, form in (("images", lambda data: data), ("tensors", tensors)):
        further = form(TARGET[0])
        objective: Any = DomainAdaptation(further, method="coral")
        if made == "distillation":
            objective = zoo.transfer.Distill(plain(2, seed=1), weight=0.0, features="stage.2", unlabelled=further)
        how: dict[str, Any] = {"recipe": "full", "epochs": 1, "batch_size": 16, "augment": "none", "workers": 0, "quiet": True}
        run = plain(2).fit(form(SOURCE), False, out=tmp_path / name, objective=objective, **how)
        losses.append(run.history[0]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)

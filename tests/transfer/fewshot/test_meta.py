"""MAML and ANIL: gradients against formulas, and features from which new classes are learned from two samples each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import zoo
from tests.engine.rank_work import fit
from tests.engine.tiny import difference, values
from tests.transfer.pictures import flat, pictures
from zoo.data.open import open_data
from zoo.engine.objective.supervised import Supervised
from zoo.engine.optim.optimizer import check_optimizer
from zoo.engine.options.resolve import resolve
from zoo.errors import DataError, OptionError
from zoo.transfer import Maml
from zoo.transfer.fewshot.meta import LENGTH, MamlObjective, adapted_head, episode_masks, query_loss


def accuracy(model: Any) -> float:
    """Return the accuracy on classes that were not trained on, from two samples each."""
    found = zoo.transfer.few_shot_episodes(model, pictures(range(20, 30), 20, 5), method="prototypes", ways=5, shots=2, episodes=50)
    return found.accuracy


def meta_trained(out: Path, objective: Callable[[Any], Any], **options: Any) -> Any:
    model = flat().adapt(12, labels=[f"class {number}" for number in range(12)])
    defaults: dict[str, Any] = {"recipe": Maml.recipe, "epochs": 12, "batch_size": 60, "lr": 1e-2, "freeze_bn": False}
    fit(out, model, pictures(range(12), 25, 0), False, objective=objective, **(defaults | options))
    return model


class Shuffled(MamlObjective):
    """The same with classes at random."""

    def loss(self, forward: Any, batch: Any) -> Tensor:
        one = batch["train"]
        shuffled = one.y[torch.randperm(len(one.y), generator=torch.Generator().manual_seed(len(one.y) + int(one.indices[0])))]
        return super().loss(forward, {"train": one._replace(y=shuffled)})


def test_features_learned_by_episodes_tell_new_classes_apart_and_those_of_shuffled_classes_do_not(tmp_path: Path) -> None:
    before = accuracy(flat().adapt(12))
    anil, first = Maml(tasks=2), Maml(adapt_groups=1, order="first", inner_steps=3, tasks=1)
    found = {name: accuracy(meta_trained(tmp_path / name, each)) for name, each in (("anil", anil), ("maml", first))}
    shuffled = accuracy(meta_trained(tmp_path / "shuffled", lambda base: Shuffled(base, anil)))
    assert before < 0.3
    assert shuffled < before + 0.1
    assert all(each > before + 0.25 for each in found.values()), (before, found)


def test_the_first_inner_step_from_zero_is_the_weighted_sum_of_the_support() -> None:
    features, classes = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1, 2, 2])
    support = torch.tensor([1.0, 0, 1, 0, 1, 0])
    found = adapted_head(features, classes, support, Maml(inner_steps=1, inner_lr=0.3), 3)
    rows = torch.cat([LENGTH * functional.normalize(features), torch.ones(6, 1)], 1)
    wanted = 0.3 / 3 * ((functional.one_hot(classes, 3) - 1 / 3) * support[:, None]).T @ rows
    assert torch.allclose(found, wanted, atol=1e-6)


def test_full_order_is_the_derivative_through_the_inner_steps_and_first_order_is_not() -> None:
    classes, support = torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 0, 1, 0])
    begin = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()

    def loss(features: Tensor, order: str) -> Tensor:
        head = adapted_head(features, classes, support.double(), Maml(order=order, inner_steps=3), 2)
        return query_loss(head, features, classes, 1 - support.double())

    assert torch.autograd.gradcheck(lambda each: loss(each, "full"), (begin,))
    slopes = [torch.autograd.grad(loss(begin, order), begin)[0] for order in ("full", "first")]
    assert loss(begin, "full").item() == loss(begin, "first").item()
    assert not torch.allclose(*slopes, rtol=1e-2)
    assert float(slopes[1][0].norm()) == 0.0  # the support reaches the loss through the head alone


def test_inner_steps_leave_the_model_and_the_statistics_of_batch_norm_as_they_are(tmp_path: Path) -> None:
    model = flat().adapt(12, labels=[f"class {number}" for number in range(12)])
    before = values(model)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 60, "lr": 1e-12, "weight_decay": 0.0, "freeze_bn": False}
    data = (pictures(range(12), 10, 0), False)
    fit(tmp_path / "run", model, *data, recipe=Maml.recipe, objective=Maml(adapt_groups=2, inner_steps=2), **options)
    now = values(model)
    assert difference({name: now[name] for name in now if "norm" in name}, {name: before[name] for name in now if "norm" in name}) < 1e-9


def test_episodes_divide_the_samples_of_a_class_and_are_a_function_of_the_batch() -> None:
    classes, indices = torch.tensor([0] * 6 + [1] * 3 + [2]), torch.arange(10)
    support, queries = episode_masks(indices, classes, Maml(shots=2, tasks=5))
    assert support.shape == (5, 10)
    assert support[:, :6].sum(1).tolist() == [2.0] * 5
    assert support[:, 6:9].sum(1).tolist() == [1.0] * 5  # half of three
    assert (support + queries)[:, :9].eq(1).all()
    assert not (support + queries)[:, 9].any()  # alone in its class
    assert len({tuple(row.tolist()) for row in support}) > 1
    again, _ = episode_masks(indices, classes, Maml(shots=2, tasks=5))
    other, _ = episode_masks(indices, classes, Maml(shots=2, tasks=5), seed=1)
    assert not torch.equal(support, other)
    assert torch.equal(support, again)


def test_what_cannot_be_trained_is_refused_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError) as caught:
        Maml(shots=0, order="frist", inner_lr=-1.0)
    assert all(part in str(caught.value) for part in ("shots is 0", "did you mean 'first'", "inner_lr is -1.0"))
    model = flat().adapt(12, labels=[f"class {number}" for number in range(12)])
    data = (pictures(range(12), 4, 0), False)
    with pytest.raises(OptionError, match="adapt_groups is 3, and 'own/flat' has 2"):
        fit(tmp_path / "a", model, *data, objective=Maml(adapt_groups=3))
    with pytest.raises(DataError, match=r"shots is 5, and fewer training samples are there of class 0 \(4\)"):
        fit(tmp_path / "a", model, *data, objective=Maml(shots=5))
    assert not (tmp_path / "a").exists()
    with pytest.raises(OptionError, match="does not end with a solved head"):
        fit(tmp_path / "b", model, *data, objective=Maml(), recipe="full")
    base = Supervised(model, open_data(data[0]), None, resolve(Maml.recipe, {}, check_optimizer=check_optimizer), torch.device("cpu"))
    assert Maml(adapt_groups=1)(base).faults(base.config) == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Maml()(base).faults(base.config) == []
    (told,) = Maml(adapt_groups=1)(base).faults(base.config)
    assert told.startswith("adapt_groups: the inner steps need all inputs in one process")
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(DataError, match="1 sample each"):
        fit(tmp_path / "c", model, pictures(range(12), 1, 0), False, objective=Maml())


def test_a_run_of_an_earlier_version_has_the_shots_of_today() -> None:
    assert Maml().describe()["shots"] == 5
    assert Maml(shots=2).describe()["shots"] == 2

"""Contrastive training: its losses against their formulas, few texts that it helps with, and bad input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engine.rank_work import fit, plain, sentences, text
from tests.engine.tiny import images
from tests.transfer.pictures import flat, pictures
from tests.transfer.rank_work import small_backbones
from zoo.engine.loading.batches import StepBatches
from zoo.errors import DataError, OptionError
from zoo.registry.registry import use_registry
from zoo.transfer import Contrastive
from zoo.transfer.contrastive import ContrastiveObjective, cosine_pairs, supervised_contrastive


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    use_registry(small_backbones())
    yield
    use_registry()


def rows(seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(seed)), torch.tensor([0, 1, 0, 2, 1, 0, 3])


def test_the_supervised_contrastive_loss_is_its_formula_sample_by_sample() -> None:
    features, classes = rows()
    unit = (features / features.norm(dim=1, keepdim=True)).double().numpy()
    losses = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        positives = [p for p in others if classes[p] == classes[i]]
        below = sum(np.exp(unit[i] @ unit[a] / 0.2) for a in others)
        losses += [np.mean([-np.log(np.exp(unit[i] @ unit[p] / 0.2) / below) for p in positives])] if positives else []
    assert len(losses) == 5  # two samples are alone in their class
    assert float(supervised_contrastive(features, classes, 0.2)) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(supervised_contrastive(features[:2], classes[:2], 0.2)) == 0.0


def test_pairs_of_equal_and_of_different_classes_weigh_the_same_in_the_loss_of_cosines() -> None:
    features, classes = rows()
    cosines = torch.cosine_similarity(features[:, None], features[None], dim=2)
    pairs = [(i, j) for i in range(7) for j in range(i)]
    equal = [float((cosines[i, j] - 1) ** 2) for i, j in pairs if classes[i] == classes[j]]
    different = [float(cosines[i, j] ** 2) for i, j in pairs if classes[i] != classes[j]]
    assert float(cosine_pairs(features, classes)) == pytest.approx((np.mean(equal) + np.mean(different)) / 2, rel=1e-5)
    assert float(cosine_pairs(features[:3], torch.tensor([0, 1, 2]))) < float(cosine_pairs(features, classes))


@pytest.mark.parametrize("loss", [cosine_pairs, lambda features, classes: supervised_contrastive(features, classes, 0.1)])
def test_no_sample_alone_in_its_class_and_no_equal_samples_make_a_gradient_that_is_not_finite(loss: Callable[..., Tensor]) -> None:
    features = torch.ones(4, 3).requires_grad_()
    loss(features, torch.tensor([0, 0, 1, 2])).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


CLASSES = [f"class {number}" for number in range(12)]


def accuracy(out: Path, objective: Any, **options: Any) -> float:
    """Return the accuracy on new images after training on ten of each class."""
    model = flat().adapt(12, labels=CLASSES)
    chosen: dict[str, Any] = {"recipe": Contrastive.recipe, "epochs": 30, "batch_size": 60, "lr": 3e-3, "freeze_bn": False}
    fit(out, model, pictures(range(12), 10, 0), False, objective=objective, **(chosen | options))
    return model.evaluate(pictures(range(12), 20, 1))["accuracy"]


class Shuffled(ContrastiveObjective):
    """The same with classes at random."""

    def loss(self, forward: Any, batch: Any) -> Tensor:
        one = batch["train"]
        mixed = one.y[torch.randperm(len(one.y), generator=torch.Generator().manual_seed(int(one.indices[0])))]
        return super().loss(forward, {"train": one._replace(y=mixed)})


def test_pairs_of_ten_images_per_class_find_where_to_look_and_shuffled_pairs_do_not(tmp_path: Path) -> None:
    probe = accuracy(tmp_path / "probe", None, recipe="linear-probe", lr=None, epochs=None)
    found = {each: accuracy(tmp_path / each, Contrastive(pairs=each)) for each in ("supcon", "cosine")}
    shuffled = accuracy(tmp_path / "shuffled", lambda base: Shuffled(base, cosine_pairs))
    assert all(each > probe + 0.3 for each in found.values()), (probe, found, shuffled)
    assert shuffled < probe + 0.1


def test_texts_of_all_lengths_meet_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[frozenset[int]] = []
    drawn = StepBatches.order

    def spy(self: StepBatches, *arguments: Any) -> Any:
        order = drawn(self, *arguments)
        seen.extend(frozenset(batch) for step in order for batch in step)
        return order

    monkeypatch.setattr(StepBatches, "order", spy)
    fit(tmp_path, text(), sentences(32), False, objective=Contrastive(), recipe=None, epochs=6, batch_size=8)
    assert len(set(seen)) == len(seen) > 12  # sorted by length they would be nearly the same in each epoch


def test_without_a_named_recipe_the_run_takes_that_of_the_method(tmp_path: Path) -> None:
    run = fit(tmp_path, plain(), images(33), images(13, seed=1), objective=Contrastive(), recipe=None, epochs=4)
    assert [line["phase"] for line in run.history] == ["probe", "pairs", "pairs", "head"]
    assert "penalty" in run.history[-1]


def test_what_cannot_be_compared_or_solved_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        Contrastive(pairs="supcom", temperature=0)
    assert all(part in str(caught.value) for part in ("did you mean 'supcon'", "temperature is 0"))
    with pytest.raises(OptionError, match="does not end with a solved head"):
        fit(tmp_path / "a", plain(), images(33), False, objective=Contrastive(), recipe="full")
    with pytest.raises(OptionError, match="the head cannot be solved"):
        fit(tmp_path / "b", plain(head="mlp", hidden=4), images(33), False, objective=Contrastive(), recipe=None)
    with pytest.raises(OptionError, match="needs single-label"):
        fit(tmp_path / "c", plain(task="multi-label"), images(33), False, objective=Contrastive(), recipe=None)
    pixels, labels = images(33)
    firsts = [labels.index(each) for each in sorted(set(labels))]
    with pytest.raises(DataError, match="3 classes with at most 1 sample each"):
        fit(tmp_path / "d", plain(), (pixels[firsts], [labels[row] for row in firsts]), False, objective=Contrastive(), recipe=None)

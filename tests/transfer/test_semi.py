"""FixMatch and FlexMatch: their formulas, the views, where they help, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import zoo
from tests.engine.rank_work import fit, plain, sentences, tagged, text
from tests.engine.tiny import images
from tests.toy_tokenizer import open_tokenizer
from tests.transfer.pictures import flat
from tests.transfer.rank_work import small_backbones
from zoo.data.images.augment import Augment
from zoo.data.open import open_data
from zoo.engine.loading.stream import Source, View
from zoo.engine.objective.supervised import Supervised
from zoo.errors import DataError, OptionError
from zoo.models.task_model import TaskModel
from zoo.registry.registry import use_registry
from zoo.transfer import FixMatch, FlexMatch
from zoo.transfer.domain.alignments import pseudo_labels
from zoo.transfer.semi.consistency import UNUSED, class_thresholds, consistency
from zoo.transfer.semi.matching import UNLABELLED, Matching


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    use_registry(small_backbones())
    yield
    use_registry()


def logits(seed: int, count: int = 40) -> Tensor:
    return 3 * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def test_the_consistency_is_the_formula_sample_by_sample() -> None:
    weak, strong = logits(0), logits(1)
    found = consistency(weak, strong, 0.8)
    for row, value in enumerate(found.tolist()):
        probabilities = weak[row].softmax(0)
        label = int(probabilities.argmax())
        expected = -float(strong[row].log_softmax(0)[label]) if probabilities[label] >= 0.8 else 0.0
        assert value == pytest.approx(expected, rel=1e-5)
    assert 0 < int((found > 0).sum()) < len(found)
    weak.requires_grad_()
    strong.requires_grad_()
    consistency(weak, strong, 0.8).sum().backward()  # type: ignore[no-untyped-call]  # torch has no types here
    assert weak.grad is None
    assert strong.grad is not None


def test_a_threshold_per_class_is_that_of_the_predicted_class() -> None:
    weak, strong, thresholds = logits(0), logits(1), torch.tensor([0.0, 0.5, 0.9, 1.1])
    confidence, labels = weak.softmax(1).max(1)
    expected = functional.cross_entropy(strong, labels, reduction="none") * (confidence >= thresholds[labels])
    assert torch.equal(consistency(weak, strong, thresholds), expected)


def test_pseudo_labels_are_the_consistency_of_a_view_with_itself() -> None:
    found = logits(0)
    assert float(pseudo_labels(found, 0.8)) == pytest.approx(float(consistency(found, found, 0.8).mean()))


def by_torchssl(chosen: list[int], classes: int, threshold: float, *, low_start: bool) -> list[float]:
    """Thresholds as in the authors' code (TorchSSL, flexmatch.py), written out."""
    counter = {label: chosen.count(label) for label in set(chosen)}
    if max(counter.values()) == len(chosen) and UNUSED in counter:
        return [0.0] * classes
    largest = max(counter.values()) if low_start else max(count for label, count in counter.items() if label != UNUSED)
    shares = [counter.get(label, 0) / largest for label in range(classes)]
    return [threshold * (share / (2.0 - share)) for share in shares]


@pytest.mark.parametrize("low_start", [True, False])
@pytest.mark.parametrize("chosen", [[-1] * 6, [0, 0, 1, -1, -1, -1, -1], [0, 0, 0, 1, 2, -1, 2], [2, 1, 0, 0, 0, 0]])
def test_the_thresholds_of_classes_are_those_of_the_authors(chosen: list[int], low_start: bool) -> None:
    found = class_thresholds(torch.tensor(chosen), 3, 0.95, low_start=low_start)
    assert found.tolist() == pytest.approx(by_torchssl(chosen, 3, 0.95, low_start=low_start), rel=1e-6)


class Seen(Matching):
    """Remembers the batches that the loss is given."""

    batches: list[Any]

    def loss(self, forward: Any, batch: Any) -> Tensor:
        self.batches.append(batch)
        return super().loss(forward, batch)


def seen(tmp_path: Path, method: FixMatch, net: TaskModel | None = None, data: Any = None, **options: Any) -> list[Any]:
    Seen.batches = []

    def make(base: Supervised) -> Seen:
        made = method(base)
        made.__class__ = Seen
        return made  # type: ignore[return-value]  # it is one now

    fit(tmp_path / "run", net or plain(), data or images(12), False, objective=make, **({"recipe": "full", "epochs": 1} | options))
    return Seen.batches


def test_a_batch_has_a_weak_and_a_strong_view_of_each_unlabelled_sample_in_the_given_ratio(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 16)[:, None, None], (18, 16, 16, 3)).astype(np.uint8)
    batches = seen(tmp_path, FixMatch(smooth, ratio=3, strength=0), batch_size=6)
    plain_view = batches[0]["train"].x  # augment="none"
    assert [len(batch[UNLABELLED].indices) for batch in batches] == [18, 18]
    one, (strong,) = batches[0][UNLABELLED].x, batches[0][UNLABELLED].views
    assert one.shape == strong.shape == (18, *plain_view.shape[1:])
    original = torch.from_numpy(smooth[0] / 255.0).permute(2, 0, 1).float()
    moved = [
        float((view - view.mean()).div(view.std()).sub((original - original.mean()) / original.std()).abs().mean())
        for view in (*one, *strong)
    ]
    assert max(moved[:18]) < 0.3 < np.mean(moved[18:])


def test_views_of_a_source_differ_and_are_the_same_in_a_second_run(tmp_path: Path) -> None:
    once, again = (seen(tmp_path / name, FixMatch(images(18)[0], strength=0), batch_size=6) for name in ("a", "b"))
    for one, other in zip(once, again, strict=True):
        assert torch.equal(one[UNLABELLED].x, other[UNLABELLED].x)
        assert torch.equal(one[UNLABELLED].views[0], other[UNLABELLED].views[0])
        assert not torch.equal(one[UNLABELLED].x, one[UNLABELLED].views[0])


def test_steps_on_a_frozen_backbone_see_the_views_and_not_stored_features(tmp_path: Path) -> None:
    batches = seen(tmp_path, FixMatch(images(18)[0], strength=0), recipe="linear-probe", solve_head=False)
    assert batches[0][UNLABELLED].views[0].ndim == 4


def test_a_step_in_micro_batches_takes_the_same_share_of_every_source() -> None:
    from zoo.engine.train.optimizer_step import Stepper

    stepper = object.__new__(Stepper)
    stepper._first = "train"
    batch = {
        name: zoo.Batch(torch.arange(count), torch.arange(count), list(range(count))) for name, count in (("train", 5), (UNLABELLED, 15))
    }
    parts = [stepper._cut(batch, part) for part in (slice(0, 3), slice(3, 5))]
    assert [[len(part[name].indices) for part in parts] for name in batch] == [[3, 2], [9, 6]]
    assert [row for part in parts for row in part[UNLABELLED].indices] == list(range(15))


def test_a_source_refuses_odd_views_and_ratios() -> None:
    table = open_data(images(6)[0], labelled=False)
    assert Source(table, views=[View(Augment()), View(Augment(), size=(8, 8))]).number_of_views == 2
    for views in (0, [], [3]):
        with pytest.raises(OptionError, match="views of a Source is"):
            Source(table, views=views)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="ratio of a Source is 0"):
        Source(table, ratio=0)


def lit(count: int, seed: int, low: float = 0.3, high: float = 1.7) -> tuple[Any, list[str]]:
    """Return images of three hues under light from ``low`` to ``high``."""
    random, targets = np.random.default_rng(seed), np.arange(count) % 3
    hues = 0.4 + 0.1 * np.eye(3)[targets] + 0.015 * random.normal(size=(count, 3))
    pixels = (hues * random.uniform(low, high, (count, 1)))[:, None, None] + 0.02 * random.normal(size=(count, 6, 6, 3))
    return (255 * pixels.clip(0, 1)).astype(np.uint8), [f"hue {number}" for number in targets]


def accuracy(tmp_path: Path, method: FixMatch, **options: Any) -> float:
    model = flat().adapt(3)
    chosen = {"recipe": "full", "epochs": 40, "batch_size": 9, "lr": 3e-3} | options
    fit(tmp_path, model, lit(9, 0, 0.95, 1.05), False, objective=method, **chosen)
    return model.evaluate(lit(300, 99), quiet=True)["accuracy"]


def test_unlabelled_samples_under_other_light_help_and_nothing_is_gained_without_their_loss(tmp_path: Path) -> None:
    unlabelled = lit(200, 50)[0]
    found = [accuracy(tmp_path / f"{weight}", FixMatch(unlabelled, 0.8, weight, ratio=5, strength=0)) for weight in (1.0, 0.0)]
    assert found[0] > found[1] + 0.08


class ByHand(Matching):
    """Compares its loss on unlabelled samples in every step with FlexMatch written out, which keeps a class of each sample itself."""

    known: dict[int, int]
    used: list[tuple[list[float], int, int]]  # of each step the thresholds, the samples taken, and those of them below ``threshold``

    def loss(self, forward: Any, batch: Any) -> Tensor:
        found, rule = super().loss(forward, batch), self._rule
        one, more = batch["train"], batch[UNLABELLED]
        with torch.no_grad():
            labelled = functional.cross_entropy(forward(one.x), one.y, reduction="sum")
            likely, logs = forward(more.x).softmax(1), forward(more.views[0]).log_softmax(1)
        chosen = [self.known.get(row, UNUSED) for row in range(60)]
        thresholds = [max(rule.floor, each) for each in by_torchssl(chosen, 3, rule.threshold, low_start=rule.low_start)]
        labels, best = likely.argmax(1).tolist(), likely.max(1).values.tolist()
        taken = [row for row, label in enumerate(labels) if best[row] >= thresholds[label]]
        unlabelled = -sum(float(logs[row, labels[row]]) for row in taken) / len(labels)
        assert float(found.detach()) == pytest.approx(float(labelled) + rule.weight * unlabelled * len(one.y), rel=1e-4)
        self.used.append((thresholds, len(taken), sum(best[row] < rule.threshold for row in taken)))
        self.known |= {row: label for row, label, value in zip(more.indices, labels, best, strict=True) if value >= rule.threshold}
        return found


@pytest.mark.parametrize("low_start", [True, False])
def test_every_step_of_flexmatch_is_the_one_written_out_and_takes_samples_that_fixmatch_does_not(low_start: bool, tmp_path: Path) -> None:
    made: list[Any] = []

    def make(base: Supervised) -> Matching:
        made.append(FlexMatch(lit(60, 50)[0], 0.7, 2.0, ratio=2, strength=0, low_start=low_start, floor=0.2)(base))
        made[0].__class__, made[0].known, made[0].used = ByHand, {}, []
        return made[0]  # type: ignore[no-any-return]  # it is a Matching

    model = flat().adapt(3)
    fit(tmp_path / "run", model, lit(9, 0, 0.95, 1.05), False, objective=make, recipe="full", epochs=12, batch_size=9, lr=1e-2)
    thresholds, taken, unsure = zip(*made[0].used, strict=True)
    assert 0 < sum(unsure) < sum(taken)
    assert any(0.2 < value < 0.69 for each in thresholds for value in each)


def test_flexmatch_with_a_floor_at_its_threshold_is_fixmatch_and_with_a_lower_one_is_not(tmp_path: Path) -> None:
    methods: dict[str, Any] = {"fix": FixMatch, "equal": partial(FlexMatch, floor=0.7), "lower": partial(FlexMatch, floor=0.4)}
    found = {}
    for name, method in methods.items():
        model = flat().adapt(3)
        options: dict[str, Any] = {"recipe": "full", "epochs": 3, "batch_size": 9, "lr": 1e-2}
        fit(tmp_path / name, model, lit(9, 0, 0.95, 1.05), False, objective=method(lit(60, 50)[0], 0.7, ratio=2, strength=0), **options)
        found[name] = torch.cat([value.flatten() for value in model.state_dict().values() if value.is_floating_point()])
    assert torch.allclose(found["fix"], found["equal"], atol=1e-6)
    assert not torch.allclose(found["fix"], found["lower"], atol=1e-3)


def test_a_floor_keeps_most_guesses_of_a_random_head_out(tmp_path: Path) -> None:
    unlabelled = lit(200, 50)[0]
    found = [
        accuracy(tmp_path / f"{floor}", FlexMatch(unlabelled, 0.8, ratio=5, strength=0, floor=floor), epochs=24) for floor in (0.0, 0.5)
    ]
    assert found[1] > found[0] + 0.05


def test_the_floor_is_the_least_threshold_and_never_above_that_of_the_best_class() -> None:
    chosen = torch.tensor([0, 0, 0, 0, 1, UNUSED])
    assert class_thresholds(chosen, 3, 0.9, floor=0.5).tolist() == pytest.approx([0.9, 0.5, 0.5])
    assert class_thresholds(chosen, 3, 0.3, floor=0.5).tolist() == pytest.approx([0.3, 0.3, 0.3])
    assert class_thresholds(torch.full((4,), UNUSED), 2, 0.9, floor=0.5).tolist() == [0.5, 0.5]


def test_the_thresholds_of_flexmatch_follow_the_samples_that_were_predicted_surely(tmp_path: Path) -> None:
    made: list[Matching] = []

    def make(base: Supervised) -> Matching:
        made.append(FlexMatch(lit(60, 50)[0], 0.5, strength=0, floor=0.0)(base))  # type: ignore[arg-type]  # it makes a Matching
        return made[0]

    fit(tmp_path / "run", flat().adapt(3), lit(30, 0), False, objective=make, recipe="full", epochs=3)
    chosen = made[0].state_dict()["chosen"]
    assert 0 < int((chosen != UNUSED).sum()) <= 60
    assert torch.equal(torch.as_tensor(made[0]._thresholds(torch.device("cpu"))), class_thresholds(chosen, 3, 0.5))


def test_the_record_says_how_many_pseudo_labels_there_were(tmp_path: Path) -> None:
    for threshold, expected in ((0.0, 1.0), (1.0, 0.0)):
        run = fit(
            tmp_path / f"{threshold}",
            plain(),
            images(12),
            images(6),
            objective=FixMatch(images(18)[0], threshold, strength=0),
            recipe="full",
        )
        assert [line["pseudo_labelled"] for line in run.history] == [expected] * 3


class Full(Matching):
    """Has no memory for its first batch."""

    attempts = 0

    def loss(self, forward: Any, batch: Any) -> Tensor:
        found = super().loss(forward, batch)
        self.attempts += 1
        if self.attempts == 1:
            raise torch.OutOfMemoryError("out of memory")
        return found


def test_every_draw_counts_once_also_in_a_step_that_reads_a_sample_twice_or_is_taken_again(tmp_path: Path) -> None:
    made: list[Matching] = []

    def make(base: Supervised) -> Matching:
        made.append(FixMatch(images(18)[0], 0.0, ratio=3, strength=0)(base))  # type: ignore[arg-type]  # it makes a Matching
        made[0].__class__ = Full
        return made[0]

    fit(tmp_path / "run", plain(), images(12), False, objective=make, recipe="full", epochs=1, batch_size=5)
    assert made[0].attempts == 7  # type: ignore[attr-defined]  # three steps in halves, after the whole of the first failed
    assert made[0].state_dict()["counts"] == [36, 36]  # of 18 samples


def test_of_texts_the_weak_view_is_the_text_and_the_strong_one_lacks_words(tmp_path: Path) -> None:
    labelled, unlabelled = sentences(12), [f"{one} and some more words that say nothing of it" for one in sentences(16, 1)[0]]
    batches = seen(tmp_path, FixMatch(unlabelled, strength=30), net=text(), data=labelled, epochs=2)
    known, whole = ([one["input_ids"] for one in open_tokenizer("").encode(unlabelled, length)] for length in (24, 99))  # 24 are read

    def tokens(x: Any, row: int) -> list[int]:
        return x["input_ids"][row][x["attention_mask"][row].bool()].tolist()  # type: ignore[no-any-return]

    strong: dict[int, list[list[int]]] = {}
    for batch in batches:
        more = batch[UNLABELLED]
        for row, index in enumerate(more.indices):
            assert tokens(more.x, row) == known[index]
            strong.setdefault(index, []).append(tokens(more.views[0], row))
    pairs = [(found, index) for index, each in strong.items() for found in each]
    assert all(set(found) <= set(whole[index]) for found, index in pairs)
    assert sum(found != known[index] for found, index in pairs) > 0.8 * len(pairs)
    assert any(len(each) > 1 and each[0] != each[1] for each in strong.values())  # anew in each epoch


def test_unlabelled_texts_train_a_model(tmp_path: Path) -> None:
    model = text()
    run = fit(tmp_path / "run", model, sentences(12), sentences(12, 2), objective=FlexMatch(sentences(24, 1)[0], 0.5), recipe="full")
    assert 0 < run.history[-1]["pseudo_labelled"] <= 1


def test_what_does_not_fit_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        FlexMatch("x", threshold=2, weight=-1, ratio=0, strength=40)
    assert all(part in str(caught.value) for part in ("threshold is 2", "weight is -1", "ratio is 0", "strength is 40"))
    with pytest.raises(OptionError, match="low_start is 3"):
        FlexMatch("x", low_start=3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"floor is 1\.5"):
        FlexMatch("x", floor=1.5)
    with pytest.raises(OptionError, match=r"(?s)strength is 0.*overflow='windows'"):
        fit(tmp_path / "a", text(), sentences(12), False, objective=FixMatch(sentences(9)[0], strength=0), overflow="windows")
    with pytest.raises(DataError, match="unlabelled='sentences' names no file of texts"):
        fit(tmp_path / "a", text(), sentences(12), False, objective=FixMatch("sentences"))
    with pytest.raises(DataError, match="has pairs of texts, and the training data texts"):
        fit(tmp_path / "a", text(), sentences(12), False, objective=FixMatch([("good film", "bad film")] * 12))
    with pytest.raises(DataError, match="no text of two words between blanks"):
        fit(tmp_path / "e", text(), sentences(12), False, objective=FixMatch(["word"] * 12))
    with pytest.raises(OptionError, match="needs one class per sample"):
        fit(tmp_path / "f", text("token-classification", 3), tagged(12), False, objective=FixMatch(tagged(12)[0]))
    with pytest.raises(OptionError, match="needs one class per sample"):
        fit(tmp_path / "b", plain(task="multi-label"), images(12), False, objective=FixMatch(images(9)[0]))
    with pytest.raises(DataError, match="has 4 samples, and a step of fixmatch reads 16"):
        fit(tmp_path / "c", plain(), images(12), False, objective=FixMatch(images(4)[0], ratio=2, strength=0))
    ready = torch.randn(12, 3, 16, 16)
    with pytest.raises(OptionError, match="float tensors"):
        fit(tmp_path / "d", plain(), (ready, images(12)[1]), False, objective=FixMatch(ready, strength=0))

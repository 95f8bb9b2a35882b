"""Few-shot predictions and episodes on a backbone, from Python and from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
import zoo.builtin
from tests.engine.rank_work import sentences, text
from tests.select.command_line import run
from tests.toy_text import ToyTextPlugin
from zoo.errors import CorruptInputError, DataError, LeakError, OptionError
from zoo.registry.registry import Registry, use_registry
from zoo.transfer.fewshot.episodes import Draw, check_enough, scores
from zoo.transfer.fewshot.heads import head_named


def glyphs(per_class: int, seed: int) -> tuple[Any, list[str]]:
    """Return squares and crosses, slightly shifted, on noise."""
    random, images, labels = np.random.default_rng(seed), [], []
    for index in range(2 * per_class):
        pixels = random.integers(0, 40, (28, 28), dtype=np.uint8)
        top, left = random.integers(2, 8, 2)
        if index % 2:
            pixels[top : top + 16, left + 7 : left + 10] = pixels[top + 7 : top + 10, left : left + 16] = 230
        else:
            pixels[top : top + 16, left : left + 16] = 230
            pixels[top + 3 : top + 13, left + 3 : left + 13] = 20
        images.append(pixels)
        labels.append(("square", "cross")[index % 2])
    return np.stack(images), labels


def test_three_images_of_a_class_are_enough_for_the_shipped_backbone() -> None:
    queries, truth = glyphs(20, 1)
    found = zoo.transfer.few_shot(zoo.get("zoo/glyphnet"), glyphs(3, 0), (queries, truth))
    assert found.accuracy is not None
    assert found.accuracy > 0.9
    assert found.accuracy == np.mean([one == other for one, other in zip(found.predictions, truth, strict=True)])
    assert np.allclose(found.probabilities.sum(1), 1.0, atol=1e-5)
    unlabelled = zoo.transfer.few_shot("zoo/glyphnet", glyphs(3, 0), list(queries))
    assert unlabelled.accuracy is None
    assert unlabelled.predictions == found.predictions


def test_a_model_that_was_trained_gives_its_own_features(toys: Registry) -> None:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    model = text()
    found = zoo.transfer.few_shot(model, sentences(12), sentences(8, 1), "ridge")
    assert found.classes == ("cat", "dog")
    assert np.isfinite(found.probabilities).all()


def test_episodes_are_drawn_by_their_seed_and_have_an_interval_that_shrinks() -> None:
    random = np.random.default_rng(0)
    model, data = zoo.get("zoo/glyphnet"), (random.integers(0, 255, (24, 28, 28), dtype=np.uint8), ["one", "other"] * 12)  # chance
    options: dict[str, Any] = {"shots": 1, "queries": 4, "method": "prototypes"}
    few, again, many = (zoo.transfer.few_shot_episodes(model, data, episodes=number, **options) for number in (10, 10, 200))
    assert few.accuracies == again.accuracies
    assert len(many.accuracies) == 200
    assert many.accuracies[:10] == few.accuracies
    assert 0 < many.half_width < few.half_width
    assert many.half_width == pytest.approx(1.96 * np.std(many.accuracies, ddof=1) / 200**0.5, rel=1e-4)


def test_no_sample_is_in_the_support_and_among_the_queries_of_an_episode() -> None:
    import torch

    rows = torch.arange(40).float()[:, None]  # a sample is known by its feature
    seen: list[set[float]] = []

    def spy(support: Any, targets: Any, count: int) -> Callable[[Any], Any]:
        seen.append(set(support[:, 0].tolist()))
        assert np.bincount(targets).tolist() == [3, 3]

        def asked(queries: Any) -> Any:
            assert not seen[-1] & set(queries[:, 0].tolist())
            assert len(queries) == 2 * 5
            return torch.zeros(len(queries), count)

        return asked

    found = scores(spy, [rows], [np.repeat(np.arange(4), 10)], Draw(ways=2, shots=3, queries=5, episodes=30))
    assert len({frozenset(each) for each in seen}) == 30
    assert found == [0.5] * 30


def test_features_without_a_class_score_as_chance_does() -> None:
    import torch

    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 8))).float()
    found = scores(head_named("simpleshot"), [noise], [np.repeat(np.arange(4), 50)], Draw(shots=5, episodes=200))
    assert np.mean(found) == pytest.approx(0.25, abs=0.03)


def test_too_few_samples_classes_and_queries_are_told_together() -> None:
    with pytest.raises(DataError) as caught:
        check_enough({"ant": 2, "bee": 9, "wasp": 1}, {"ant": 3, "bee": 0}, Draw(ways=4, shots=3))
    text = str(caught.value)
    assert all(part in text for part in ("ant (2)", "wasp (1)", "ways is 4", "3 classes", "no query of bee, wasp"))
    assert "bee (9)" not in text
    with pytest.raises(DataError, match="and a query of the same data"):
        check_enough({"ant": 3, "bee": 9}, None, Draw(shots=3))


def test_bad_numbers_and_data_are_refused() -> None:
    with pytest.raises(OptionError, match=r"(?s)shots is 0.*episodes is 1;") as caught:
        Draw(shots=0, episodes=1, ways=1)
    assert "ways is 1" in str(caught.value)
    images, labels = glyphs(3, 0)
    with pytest.raises(DataError, match="one class, 'square'"):
        zoo.transfer.few_shot("zoo/glyphnet", (images[::2], labels[::2]), glyphs(2, 1))
    with pytest.raises(OptionError, match=r"no option 'batchsize'.*did you mean 'batch_size'"):
        zoo.transfer.few_shot("zoo/glyphnet", (images, labels), glyphs(2, 1), batchsize=3)
    with pytest.raises(DataError, match="triangle"):
        zoo.transfer.few_shot("zoo/glyphnet", (images, labels), (images[:2], ["triangle", "square"]))


def save(folder: Path, data: tuple[Any, list[str]]) -> Path:
    from PIL import Image

    for number, (pixels, label) in enumerate(zip(*data, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def test_the_command_predicts_measures_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    support, query = save(tmp_path / "few", glyphs(4, 0)), save(tmp_path / "more", glyphs(6, 1))
    words = ("few-shot", "zoo/glyphnet", str(support), str(query))
    assert run(*words) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 12 + 2  # a heading, and the accuracy
    assert shown[-1].startswith("accuracy ")
    assert run(*words, "--shots", "2", "--episodes", "20", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ways"] == 2
    assert told["accuracy"] > 0.8
    assert told["half_width"] >= 0
    assert run(*words, "--shots", "5") == 1
    assert "cross (4)" in capsys.readouterr().err
    assert run(*words, "--ways", "2") == 2
    assert "--shots K" in capsys.readouterr().err
    with pytest.raises(LeakError):
        zoo.transfer.few_shot("zoo/glyphnet", support, support)


def test_queries_of_other_names_are_refused_with_a_remedy_that_few_shot_has() -> None:
    queries, _ = glyphs(4, 1)
    with pytest.raises(DataError, match="give queries without labels") as raised:
        zoo.transfer.few_shot("zoo/glyphnet", glyphs(3, 0), (queries, ["monday"] * 8))
    assert "drop" not in str(raised.value)


def test_inputs_that_cannot_be_read_are_not_skipped_as_their_features_would_be_undefined() -> None:
    pixels, names = [np.full((16, 16, 3), 40 * row, np.uint8) for row in range(4)], ["a", "b"] * 2
    backbone = zoo.get("zoo/glyphnet", weights=False)
    calls: list[Callable[..., Any]] = [
        partial(zoo.transfer.few_shot, backbone, (pixels, names), [b"no image"]),
        partial(zoo.transfer.few_shot_episodes, backbone, ([*pixels[:3], b"no image"], names), shots=1),
    ]
    for call in calls:
        with pytest.raises(OptionError, match=r"on_error='skip': few-shot needs all inputs"):
            call(on_error="skip")
        with pytest.raises(CorruptInputError, match="remove or replace it") as told:
            call()
        assert "on_error" not in str(told.value)

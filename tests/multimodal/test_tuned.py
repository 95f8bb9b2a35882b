"""Fine-tuning from a zero-shot head: the contrastive loss of the pretraining, and values between zero-shot and tuned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import zoo.builtin
from tests.engine.tiny import values
from tests.select.command_line import run
from tests.toy_pair import COLOURS, coloured, pair_spec
from zoo.engine.options.recipe import Phase, Recipe
from zoo.errors import OptionError
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.registry.registry import Registry, use_registry
from zoo.select.merging.wise_ft import RECORD
from zoo.transfer import Flyp
from zoo.transfer.flyp import TextSide, products, sigmoid_pairs, softmax_pairs

NAMES = list(COLOURS)
SHIFT = (60, -60, 60)
TRAIN, NEAR, FAR = coloured(NAMES, 100, 11, shift=SHIFT), coloured(NAMES, 200, 12, shift=SHIFT), coloured(NAMES, 200, 13)
OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 5, "lr": 1e-2, "batch_size": 25, "augment": "none", "quiet": True}


def accuracy(model: TaskModel, data: Any) -> float:
    return float(model.evaluate(data)["accuracy"])


@pytest.fixture(scope="module")
def runs(tower_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zero-shot model in ``zero``, tuned on images of another light by its labels in ``tuned`` and by its loss in ``flyp``."""
    folder = tmp_path_factory.mktemp("runs")
    start: Callable[[], TaskModel] = lambda: Backbone(pair_spec(tower_file)).zero_shot(NAMES)  # noqa: E731  # short
    start().save(folder / "zero")
    start().fit(TRAIN, NEAR, **OPTIONS, out=folder / "tuned")
    start().fit(TRAIN, NEAR, **OPTIONS, objective=Flyp(), out=folder / "flyp")
    return folder


def test_the_losses_are_those_of_the_papers() -> None:
    logits, classes = np.random.default_rng(0).normal(size=(4, 4)) * 3, np.array([0, 1, 1, 2])
    rows = [logits[row, row] - np.log(np.exp(logits[row]).sum()) for row in range(4)]
    columns = [logits[row, row] - np.log(np.exp(logits[:, row]).sum()) for row in range(4)]
    assert float(softmax_pairs(torch.from_numpy(logits))) == pytest.approx(-(np.mean(rows) + np.mean(columns)) / 2)
    total = 0.0
    for row in range(4):
        for column in range(4):
            z = 1 if classes[row] == classes[column] else -1
            total += np.log1p(np.exp(-z * logits[row, column])) / 4
    assert float(sigmoid_pairs(torch.from_numpy(logits), torch.from_numpy(classes))) == pytest.approx(total)


def test_the_contrastive_loss_learns_the_data_and_forgets_less_than_that_of_the_labels(runs: Path) -> None:
    zero, tuned, flyp = (zoo.load(runs / name) for name in ("zero", "tuned", "flyp"))
    assert accuracy(flyp, NEAR) > accuracy(zero, NEAR) + 0.08
    assert accuracy(flyp, NEAR) > accuracy(tuned, NEAR) - 0.05
    assert accuracy(flyp, FAR) > accuracy(tuned, FAR)


def test_the_head_is_that_of_the_tuned_texts(tower_file: Path, tmp_path: Path) -> None:
    def trained(name: str, **options: Any) -> Tensor:
        model: Any = Backbone(pair_spec(tower_file)).zero_shot(NAMES)
        model.fit(TRAIN, False, **(OPTIONS | {"epochs": 1}), objective=Flyp(**options), out=tmp_path / name)
        return functional.normalize(model.head.linear.weight.detach(), dim=1)

    start: Any = Backbone(pair_spec(tower_file)).zero_shot(NAMES)
    before = functional.normalize(start.head.linear.weight.detach(), dim=1)
    assert not torch.allclose(trained("both"), before, atol=1e-3)
    torch.testing.assert_close(trained("images", train_text=False), before)  # the text tower stays, so the classes do


def test_only_the_texts_tower_may_train(tower_file: Path, tmp_path: Path) -> None:
    model = Backbone(pair_spec(tower_file)).zero_shot(NAMES)
    before = values(model.backbone)
    recipe = Recipe(name="texts", phases=(Phase(name="texts", frozen="all"),), lr=1e-2)
    model.fit(TRAIN, False, **(OPTIONS | {"recipe": recipe, "epochs": 1}), objective=Flyp(), out=tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in values(model.backbone).items())
    with pytest.raises(OptionError, match="both towers are frozen"):
        model.fit(TRAIN, False, **(OPTIONS | {"recipe": recipe}), objective=Flyp(train_text=False), out=tmp_path / "none")


@pytest.mark.parametrize(("start", "largest"), [(10.0, 100.0), (150.0, 150.0)])
def test_the_scale_stays_below_its_limit_and_can_fall_again(start: float, largest: float) -> None:
    side = TextSide(torch.nn.Linear(2, 2), start, 0.0, trains_bias=False)
    with torch.no_grad():
        side.log_scale.fill_(8.0)
    side.limit()
    assert float(side.scale.detach()) == pytest.approx(largest, rel=1e-5)
    side.scale.backward()  # type: ignore[no-untyped-call]  # torch has no types here
    assert side.log_scale.grad is not None
    assert float(side.log_scale.grad) > 0


def test_products_keep_their_digits_under_autocast() -> None:
    images, texts = (torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        found = products(images, texts)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images @ texts.T)


@pytest.mark.parametrize("option", [{"ema": 0.9}, {"average": 0.5}])
def test_averages_without_the_head_are_refused(option: dict[str, Any], tmp_path: Path) -> None:
    model = Backbone(pair_spec(), weights=False).zero_shot(NAMES)
    with pytest.raises(OptionError, match=rf"{next(iter(option))}=0\..*wise_ft"):
        model.fit(TRAIN, False, **OPTIONS, **option, objective=Flyp(), out=tmp_path / "run")


def test_a_model_of_a_folder_takes_the_texts_tower_of_its_dual_encoder(runs: Path, tower_file: Path, tmp_path: Path) -> None:
    model = zoo.load(runs / "zero")
    with pytest.raises(OptionError, match=r"a model opened from a folder does not hold; .*text='hf/OWNER/MODEL'"):
        model.fit(TRAIN, NEAR, **OPTIONS, objective=Flyp(), out=tmp_path / "run")
    again = zoo.load(runs / "zero")
    again.fit(TRAIN, NEAR, **OPTIONS, objective=Flyp(text=Backbone(pair_spec(tower_file))), out=tmp_path / "run")
    assert np.allclose(again.predict_proba(NEAR[0]), zoo.load(runs / "flyp").predict_proba(NEAR[0]), atol=1e-5)


def test_a_saved_model_finds_the_texts_tower_by_the_weights_it_began_with(runs: Path, tower_file: Path, tmp_path: Path) -> None:
    class Listed:
        @zoo.hookimpl
        def zoo_backbones(self) -> list[Any]:
            spec = pair_spec(tower_file)
            return [spec, spec.pair.text]  # type: ignore[union-attr,list-item]  # a pair

    use_registry(Registry(plugins=[zoo.builtin, Listed()], files=[]))
    found, named = zoo.load(runs / "zero"), zoo.load(runs / "zero")
    found.fit(TRAIN, False, **(OPTIONS | {"epochs": 1}), objective=Flyp(), out=tmp_path / "found")
    named.fit(TRAIN, False, **(OPTIONS | {"epochs": 1}), objective=Flyp(text=Backbone(pair_spec(tower_file))), out=tmp_path / "named")
    assert all(torch.equal(value, values(named)[name]) for name, value in values(found).items())


def test_what_the_contrastive_loss_does_not_fit_is_told_before_anything_trains(tmp_path: Path) -> None:
    backbone = Backbone(pair_spec(), weights=False)

    def fit(model: TaskModel, data: Any = TRAIN, method: Any = None) -> None:
        model.fit(data, False, **OPTIONS, objective=method or Flyp(), out=tmp_path / "run")

    with pytest.raises(OptionError, match=r"needs a zero-shot head, and this model's is 'linear'"):
        fit(backbone.adapt(5, labels=NAMES))
    with pytest.raises(OptionError, match="needs single-label"):
        fit(backbone.zero_shot(NAMES, task="multi-label"))
    with pytest.raises(OptionError, match="no text tower"):
        fit(backbone.zero_shot(NAMES), method=Flyp(text="zoo/glyphnet"))
    with pytest.raises(OptionError, match=r"(?s)text is int.*train_text is 'no'"):
        Flyp(text=3, train_text="no")  # type: ignore[arg-type]


def test_values_in_between_are_better_on_both_kinds_of_images(runs: Path, tmp_path: Path) -> None:
    zero, tuned = zoo.load(runs / "zero"), zoo.load(runs / "tuned")
    assert accuracy(tuned, NEAR) > accuracy(zero, NEAR) + 0.08  # the training helps where it was
    assert accuracy(tuned, FAR) < accuracy(zero, FAR) - 0.08  # and harms elsewhere
    found = zoo.select.wise_ft(runs / "zero", runs / "tuned", NEAR, out=tmp_path / "mixed")
    assert found.scores[1.0] == pytest.approx(accuracy(tuned, NEAR))
    assert found.scores[0.0] == pytest.approx(accuracy(zero, NEAR))
    assert found.scores[found.alpha] == max(found.scores.values())
    mixed = zoo.load(tmp_path / "mixed")
    assert accuracy(mixed, NEAR) >= accuracy(tuned, NEAR)
    assert accuracy(mixed, FAR) > accuracy(tuned, FAR)
    start, end, here = (values(model) for model in (zero, tuned, mixed))
    for name, value in here.items():
        torch.testing.assert_close(value, start[name] + found.alpha * (end[name] - start[name]), rtol=1e-4, atol=1e-6)
    assert set(mixed.trained_on) >= set(tuned.trained_on)


def test_one_alpha_needs_no_data(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.select.wise_ft(runs / "zero", runs / "tuned", out=tmp_path / "half").alpha == 0.5
    words = (str(runs / "zero"), str(runs / "tuned"), "--out", str(tmp_path / "most"), "--json")
    assert run("wise-ft", *words, "--alpha", "0.75") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["alpha"] == json.loads((tmp_path / "most" / RECORD).read_text())["alpha"] == 0.75
    assert run("wise-ft", *words[:-3], "--alpha", "half", "--out", str(tmp_path / "none")) != 0
    assert "--alpha 'half'" in capsys.readouterr().err


def test_what_cannot_be_interpolated_is_told(runs: Path, tower_file: Path, tmp_path: Path) -> None:
    Backbone(pair_spec(tower_file)).zero_shot(["red", "blue"]).save(tmp_path / "two")
    with pytest.raises(OptionError, match=r"num_classes is 2"):
        zoo.select.wise_ft(runs / "zero", tmp_path / "two", out=tmp_path / "none")
    with pytest.raises(OptionError, match=r"alpha is 1\.5"):
        zoo.select.wise_ft(runs / "zero", runs / "tuned", out=tmp_path / "none", alpha=1.5)
    with pytest.raises(OptionError, match="no data that choose"):
        zoo.select.wise_ft(runs / "zero", runs / "tuned", out=tmp_path / "none", alpha=[0.2, 0.4])


def test_the_command_trains_by_the_contrastive_loss_from_the_names_of_the_data(
    tower_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (pixels, labels) in {"data": TRAIN, "near": NEAR}.items():
        np.savez(tmp_path / f"{name}.npz", x=pixels, y=np.array(labels))
    words = ("--weights", str(tower_file), "--head-set", "templates=name", "--objective", "flyp", "--lr", "1e-2", "--epochs", "2")
    words += ("--valid", str(tmp_path / "near.npz"), "--baselines", "--out", str(tmp_path / "run"), "--quiet")
    assert run("train", "toy/pair", str(tmp_path / "data.npz"), *words) == 0
    assert accuracy(zoo.load(tmp_path / "run"), NEAR) > 0.85
    rows = {row["name"]: row["score"] for row in json.loads((tmp_path / "run" / "run.json").read_text())["baselines"]["rows"]}
    assert list(rows) == ["prior", "zero-shot", "linear-probe", "labels-alone", "from-scratch"]
    start = Backbone(pair_spec(tower_file)).zero_shot(NAMES, templates="name")
    assert rows["zero-shot"] == pytest.approx(accuracy(start, NEAR))
    assert "zero-shot" in capsys.readouterr().out


def test_a_damaged_validation_image_that_is_skipped_leaves_the_baselines_of_a_zero_shot_head(tower_file: Path, tmp_path: Path) -> None:
    start = Backbone(pair_spec(tower_file)).zero_shot(NAMES)
    expected = accuracy(start, NEAR)
    damaged = [*NEAR[0], b"no image"], [*NEAR[1], NAMES[0]]
    options = OPTIONS | {"epochs": 1, "on_corrupt": "skip", "max_corrupt": 0.1}
    run = start.fit(TRAIN, damaged, **options, baselines=True, out=tmp_path / "run")
    assert {row["name"]: row["score"] for row in run.baselines}["zero-shot"] == pytest.approx(expected)

"""Runs with penalties, random depth and averages: they do something, and a stopped one goes on bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.test_resume import tables
from tests.engine.tiny import difference, images, model, timeless, values
from zoo.data.open import open_data
from zoo.engine.loading.loader import Loader
from zoo.engine.loading.samples import samples_for
from zoo.engine.options.recipe import Phase, Recipe
from zoo.engine.rundir import checkpoint_writer
from zoo.engine.rundir.run_folder import Run
from zoo.errors import InterruptedRunError, OptionError

OPTIONS: dict[str, Any] = {"recipe": "lp-ft", "epochs": 4, "batch_size": 8, "lr": 1e-2}
ALONE: list[dict[str, Any]] = [
    {"l2_sp": 0.1},
    {"delta": 0.1},
    {"bss": 0.1},
    {"drop_path": 0.5},
    {"dropout": 0.5},
    {"ema": 0.9},
    {"average": 0.5},
    {"wise_ft": 0.5},
]


def name(options: dict[str, Any]) -> str:
    return "-".join(options)


def fit(out: Path, valid: bool = True, **options: Any) -> tuple[Any, Run]:
    net = model(head="mlp", hidden=4)
    return net, net.fit(images(24), images(12, seed=1) if valid else False, out=out, quiet=True, **(OPTIONS | options))


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)


@pytest.mark.parametrize("options", ALONE, ids=name)
def test_each_option_changes_what_is_learned_and_leaves_no_trace_on_the_model(options: dict[str, Any], tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "plain", valid=False)
    net, _ = fit(tmp_path / "with", valid=False, **options)
    assert difference(values(net), values(plain)) > 1e-6
    modules = list(net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert [getattr(module, "p", None) for module in modules] == [getattr(module, "p", None) for module in plain.modules()]


EVERYTHING = {"l2_sp": 0.1, "delta": 0.1, "bss": 0.01, "drop_path": 0.5, "dropout": 0.3, "ema": 0.9}


def test_values_that_no_epoch_ended_with_have_a_record_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = model().fit(
        images(12), images(8, seed=1), recipe="lp-ft", epochs=2, batch_size=4, wise_ft=0.5, solve_head=False, out=tmp_path / "run"
    )
    assert [record["phase"] for record in run.history] == ["probe", "full", "wise-ft"]
    assert run.history[-1]["epoch"] == run.kept == 3
    assert not {"lr", "train_loss", "samples_per_second"} & set(run.history[-1])
    assert "wise-ft  after training  valid" in capsys.readouterr().err


@pytest.mark.parametrize("options", [*ALONE, EVERYTHING, {"average": 0.75, "wise_ft": 0.5, "recompute": True, "drop_path": 0.5}], ids=name)
def test_a_run_resumed_at_the_end_of_an_epoch_equals_an_uninterrupted_one(options: dict[str, Any], tmp_path: Path) -> None:
    expected, whole = fit(tmp_path, keep_checkpoints=True, **options)
    newest = sorted((tmp_path / "checkpoint").glob("step-*"))
    assert len(newest) == 2
    shutil.rmtree(newest[-1])
    net, run = fit(tmp_path, resume=True, **options)
    assert difference(values(net), values(expected)) == 0
    assert timeless(run.history) == timeless(whole.history)


def test_a_strong_pull_to_the_start_keeps_the_backbone_where_it_was(tmp_path: Path) -> None:
    start = {key: value for key, value in values(model(head="mlp", hidden=4)).items() if key.endswith("conv.weight")}
    moved = []
    for weight in (0.0, 10.0):
        options = {"recipe": "full", "weight_decay": 0, "layer_decay": 1, "epochs": 10, "l2_sp": weight}
        net, _ = fit(tmp_path / str(weight), valid=False, **options)
        moved.append(difference({key: values(net)[key] for key in start}, start))
    assert moved[1] < moved[0] / 3


@pytest.mark.parametrize("options", [{"lr": "auto"}, {"batch_size": "auto"}], ids=["rate", "batch"])
@pytest.mark.parametrize("penalty", ["delta", "bss", "l2_sp"])
def test_penalties_count_in_what_is_tried_before_a_phase(options: dict[str, Any], penalty: str, tmp_path: Path) -> None:
    made = model()
    options = {"recipe": "full", "epochs": 2, "batch_size": 8, "quiet": True, penalty: 0.01} | options
    assert made.fit(*tables(), out=tmp_path, **options).history


def test_an_average_is_refreshed_without_a_batch_of_one_sample(tmp_path: Path) -> None:
    data = open_data(images(25)), open_data(images(12, seed=1))
    made = model()
    made.fit(*data, out=tmp_path, recipe="full", epochs=2, batch_size=8, average=0.5, wise_ft=0.7, quiet=True)


def test_statistics_are_refreshed_over_all_classes_also_where_the_data_are_sorted_by_class(tmp_path: Path) -> None:
    pixels, names = images(48)
    order = np.argsort(names, kind="stable")
    data = open_data((pixels[order], [names[index] for index in order]))
    net = model()
    net.fit(data, False, out=tmp_path, recipe="full", epochs=2, batch_size=8, average=0.5, augment="none", quiet=True)
    with torch.no_grad():
        x = next(iter(Loader(samples_for(net.inputs, data), torch.device("cpu")).batches([list(range(48))])))[0]
        whole = net.backbone.conv1(x).var((0, 2, 3))
    assert bool(((net.backbone.bn1.running_var / whole - 1).abs() < 0.25).all()), "each batch was of one class"


def test_a_refresh_takes_smaller_batches_where_training_did(tmp_path: Path) -> None:
    def run(out: Path, most: int, **options: Any) -> Any:
        net = model()

        def scarce(_module: Any, args: Any) -> None:
            if len(args[0]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        net.backbone.conv1.register_forward_pre_hook(scarce)
        net.fit(images(24), images(12, seed=1), out=out, recipe="full", epochs=2, batch_size=8, average=0.5, quiet=True, **options)
        return net

    run(tmp_path / "run", 3)
    run(tmp_path / "statistics", 3, wise_ft=0.5)


def test_what_a_later_phase_freezes_stands_still_in_the_average_too(tmp_path: Path) -> None:
    recipe = Recipe(name="back", phases=(Phase(name="all"), Phase(name="head", frozen="all")), epochs=4, batch_size=8, augment="none")
    options: dict[str, Any] = {"recipe": recipe, "ema": 0.9, "quiet": True}
    made = model()
    history = made.fit(*tables(), out=tmp_path / "whole", **options).history
    metrics = made.evaluate(tables()[1])
    kept = max(history, key=lambda line: (line["accuracy"], -line["loss"]))
    assert metrics["loss"] == pytest.approx(kept["loss"], abs=1e-5), "what is kept is not what was validated"
    cut = model()
    with pytest.raises(InterruptedRunError):
        cut.fit(*tables(12 * 2 + 5, "valid"), out=tmp_path / "cut", **options)
    resumed = model()
    again = resumed.fit(*tables(), out=tmp_path / "cut", resume=True, **options)
    assert difference(values(resumed), values(made)) == 0.0
    assert timeless(again.history) == timeless(history)


@pytest.mark.parametrize(
    "options",
    [{"delta": 0.1, "compile": True}, {"wise_ft": 0.5, "trains": "lora"}, {"mixup": 0.2, "views": 2}],
    ids=["compile", "lora", "views"],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=rf"{next(iter(options))} with (compile|lora|views)"):
        model().fit("nowhere", **options)


def test_the_dropout_of_lora_is_its_own(tmp_path: Path) -> None:
    seen: list[float] = []
    made = model()

    def look(module: Any, _args: Any) -> None:
        seen.extend(layer.p for name, layer in module.named_modules() if "lora_dropout" in name and isinstance(layer, torch.nn.Dropout))

    made.backbone.register_forward_pre_hook(look)
    made.fit(*tables(), out=tmp_path, recipe="lora", epochs=2, dropout=0.3, lora_dropout=0.05, quiet=True, batch_size=8)
    assert set(seen) == {0.05}


@pytest.mark.parametrize("options", [{"wise_ft": 0.5}, {"average": 0.5}, {"average": 0.5, "wise_ft": 0.5}], ids=name)
def test_an_interruption_while_statistics_are_estimated_anew_mixes_nothing_twice(options: dict[str, Any], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 8, "augment": "none", "quiet": True} | options
    expected, cut, resumed = model(), model(), model()
    expected.fit(tables()[0], False, out=tmp_path / "whole", **asked)
    with pytest.raises(InterruptedRunError):
        cut.fit(tables(24 * 2 + 5)[0], False, out=tmp_path / "cut", **asked)
    resumed.fit(tables()[0], False, out=tmp_path / "cut", resume=True, **asked)
    assert difference(values(resumed), values(expected)) == 0.0

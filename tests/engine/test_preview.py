"""A plan tells what a run does and takes, and leaves nothing behind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.engine.tiny import images, model, values
from tests.toy_text import ToyTextPlugin
from zoo.engine.preview.preview import preview
from zoo.engine.preview.report import Preview
from zoo.engine.runtime.memory_profile import footprint, nbytes
from zoo.errors import OptionError, TrainingError
from zoo.models.task_model import TaskModel
from zoo.registry.registry import Registry, use_registry

CPU = torch.device("cpu")
VARIED: list[dict[str, Any]] = [
    {"recipe": "layer-decay"},
    {"recipe": "top", "dropout": 0.3, "drop_path": 0.2},
    {"recipe": "gradual", "views": 2, "epochs": 4},
    {"recipe": "lora"},
    {"recipe": "bitfit", "ema": 0.9, "average": 0.5, "wise_ft": 0.5},
    {"recipe": "full", "l2_sp": 0.1, "delta": 0.1, "bss": 0.01, "mixup": 0.2},
    {"recipe": "full", "optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "recompute": True, "image_size": 24},
]


def everything(one: TaskModel) -> list[Any]:
    """Return all of a model that a plan could change, names and order of its modules included."""
    parameters = [(name, p.detach().clone(), p.requires_grad, p.grad) for name, p in one.named_parameters()]
    buffers = [(name, b.clone(), b.stride()) for name, b in one.named_buffers()]
    modes = [(name, module, module.training) for name, module in one.named_modules()]
    return [parameters, buffers, modes, one.inputs, one.labels, one.frozen, one.trains, one.lora, one.freeze_bn]


def same(left: Any, right: Any) -> bool:
    """Tell whether two states are equal, tensors to the last bit."""
    if isinstance(left, torch.Tensor):
        return left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left is right or left == right


@pytest.mark.parametrize("options", VARIED, ids=lambda options: "-".join(map(str, options)))
def test_model_and_random_state_are_afterwards_what_they_were_bit_for_bit(options: dict[str, Any]) -> None:
    one = model().freeze(1)
    one.backbone.blocks[1].bn.eval()  # type: ignore[union-attr, operator]
    one.head.linear.bias.requires_grad_(False)  # type: ignore[union-attr, operator]
    one.head.linear.weight.grad = torch.ones_like(one.head.linear.weight)  # type: ignore[union-attr, arg-type]
    before = everything(one)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    one.plan(images(), batch_size=8, **options)
    assert same(before, everything(one))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # type: ignore[arg-type]


def test_a_run_after_a_plan_gives_the_bits_of_a_run_without_one(tmp_path: Path) -> None:
    results = []
    for planned in (False, True):
        one = model()
        if planned:
            one.plan(images(), batch_size=8, epochs=2)
        one.fit(images(), batch_size=8, epochs=2, out=tmp_path / str(planned), quiet=True)
        results.append(values(one))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_the_plan_names_the_phases_steps_and_rates_that_the_run_then_has(tmp_path: Path) -> None:
    options = {"recipe": "gradual", "epochs": 7, "batch_size": 4, "schedule": "constant", "warmup": 0.0}
    told = model().plan(images(), **options)
    run = model().fit(images(), out=tmp_path / "run", quiet=True, **options)
    phases = [phase.name for phase in told.phases for _ in range(phase.epochs)]
    rates = [phase.lr for phase in told.phases for _ in range(phase.epochs)]
    assert phases == [record["phase"] for record in run.history]
    assert rates == pytest.approx([record.get("lr", 0.0) for record in run.history])
    assert (told.samples, told.valid) == (19, 5)
    assert [(phase.epochs, phase.steps, phase.schedule) for phase in told.phases] == [(1, 0, "solved")] + [(2, 10, "constant")] * 3
    assert [phase.frozen for phase in told.phases] == [3, 2, 1, 0]


def test_each_group_has_its_parameters_rate_decay_and_mode() -> None:
    probe, tune = preview(model(), images(), recipe="layer-decay", batch_size=8).phases
    assert [group.name for group in tune.groups] == ["stem", "stage.0", "stage.1", "head"]
    assert [group.parameters for group in tune.groups] == [232, 592, 592, 27]
    assert [group.trainable for group in probe.groups] == [0, 0, 0, 27]
    assert [group.trainable for group in tune.groups] == [232, 592, 592, 27]
    assert [group.lr for group in tune.groups] == pytest.approx([3e-4 * 0.75**3, 3e-4 * 0.75**2, 3e-4 * 0.75, 3e-4])
    assert [group.weight_decay for group in tune.groups] == [0.05] * 4
    assert [group.mode for group in probe.groups] == ["frozen, eval"] * 3 + ["solved"]
    assert [group.mode for group in tune.groups] == ["trains"] * 4  # values of no weights: statistics move
    held = model()
    held.pretrained = True
    assert [group.mode for group in preview(held, images(), batch_size=8).phases[1].groups] == ["trains, statistics held"] * 3 + ["trains"]


def test_lora_and_biases_are_told_apart_from_what_they_leave_alone() -> None:
    lora, bitfit = (preview(model(), images(), recipe=recipe, batch_size=8).phases[1].groups for recipe in ("lora", "bitfit"))
    assert [group.mode for group in lora] == ["lora trains"] * 3 + ["trains"]
    assert all(0 < group.trainable < group.parameters for group in lora[:3])
    assert [(group.mode, group.trainable) for group in bitfit] == [("biases train", 8)] * 3 + [("trains", 27)]


def test_what_is_to_be_found_out_is_called_auto_and_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a plan tries nothing out")

    monkeypatch.setattr("zoo.engine.train.auto_tune.AutoTune.find_rate", refuse)
    monkeypatch.setattr("zoo.engine.train.auto_tune.AutoTune.fit_memory", refuse)
    told = model().plan(images(), recipe="layer-decay", lr="auto", batch_size="auto")
    assert (told.lr, told.batch_size) == ("auto", "auto")
    assert [phase.lr for phase in told.phases] == [0.0, "auto"]
    assert [group.lr for group in told.phases[1].groups] == ["auto"] * 4
    assert told.phases[1].groups[0].factor == pytest.approx(0.75**3)


def test_nothing_is_written_and_no_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model().plan(images(), recipe="top", batch_size=8)
    assert not list(tmp_path.iterdir())


def test_options_of_the_folder_have_no_effect_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    told = model().plan(images(), epochs=2, out=tmp_path / "run", quiet=True, resume=True)
    assert not (tmp_path / "run").exists()
    assert told.phases
    with pytest.raises(OptionError, match="did you mean 'epochs'"):
        model().plan(images(), epoch=3)


def test_a_phase_says_what_it_keeps_of_the_frozen_prefix() -> None:
    probe, top = model().plan(images(), recipe="top", batch_size=8).phases
    assert (probe.cached, probe.cache, probe.cache_place, probe.reason) == ("features", 24 * 8 * 4, "memory", "")
    # What leaves the stem: 8 channels of 8 x 8 positions, of training and validation samples alike.
    assert (top.cached, top.cache, top.cache_place, top.reason) == ("activations", 24 * 8 * 8 * 8 * 4, "memory", "")
    views = model().plan(images(), recipe="top", batch_size=8, views=3).phases
    assert [phase.cache for phase in views] == [(3 * 19 + 5) * 8 * 4, (3 * 19 + 5) * 8 * 8 * 8 * 4]


def test_a_prefix_that_cannot_be_kept_has_its_reason() -> None:
    def reasons(**options: Any) -> list[str]:
        phases = model().plan(images(), batch_size=8, **options).phases
        assert all(not phase.cached and not phase.cache for phase in phases[1:])
        return [phase.reason for phase in phases]

    assert reasons(recipe="gradual", epochs=4)[1].startswith("images are augmented anew")
    assert reasons(recipe="top", cache=False) == ["cache is off", "cache is off"]
    assert "cache_gb allows" in reasons(recipe="top", cache_gb=1e-5)[1]
    assert "delta" in reasons(recipe="top", delta=0.1)[1]


def test_a_large_cache_goes_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.engine.preview.dry_run.IN_MEMORY", 10_000)
    monkeypatch.setattr("zoo.engine.preview.preview.IN_MEMORY", 10_000)
    assert [phase.cache_place for phase in model().plan(images(), recipe="top", batch_size=8).phases] == ["memory", "disk"]


@pytest.mark.parametrize("options", [{}, {"trains": "lora"}, {"recompute": True}, {"ema": 0.9}], ids=str)
def test_memory_is_what_the_run_then_takes_within_a_tenth(options: dict[str, Any], tmp_path: Path) -> None:
    data = {"recipe": "full", "augment": "none", "batch_size": 12, "epochs": 1} | options
    told = model().plan(images(), False, **data)
    one = model()
    with footprint(CPU) as taken:
        one.fit(images(), False, out=tmp_path / "run", quiet=True, **data)
    # Convolutions are laid out anew for the run, so that of the model only what is not theirs was there before.
    there = nbytes(p for p in one.parameters() if p.ndim != 4)
    assert told.memory == pytest.approx(taken.peak + there, rel=0.1)


def test_the_best_epoch_and_the_optimizer_of_earlier_phases_count() -> None:
    alone = model().plan(images(), False, recipe="full", batch_size=8, epochs=2).memory
    judged = model().plan((images()[0], images()[1]), images(12), recipe="full", batch_size=8, epochs=2).memory
    assert judged - alone == nbytes(model().state_dict().values())
    probe, full = model().plan(images(), False, recipe="lp-ft", batch_size=8).phases
    assert full.memory > probe.memory


def test_time_grows_with_the_epochs() -> None:
    few, many = (model().plan(images(), recipe="full", batch_size=8, epochs=epochs).seconds for epochs in (1, 1000))
    assert 50 * few < many


@pytest.mark.parametrize("task", ["single-label", "token-classification"])
def test_texts_are_planned_with_their_longest_batches(task: str) -> None:
    def planned(longest: int) -> Preview:
        lengths = [longest if at < 40 else 3 for at in range(96)]
        if task == "single-label":
            data: Any = [" ".join(["rain"] * length) for length in lengths], ["cat", "dog"] * 48
        else:
            data = [["rain"] * length for length in lengths], [["O", "B-Rain", *["O"] * (length - 2)] for length in lengths]
        return one.plan(data, False, recipe="full", batch_size=32)

    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    try:
        one = zoo.get("toy/text", weights=False).adapt(2, task=task)
        before = everything(one)
        assert planned(24).memory > 1.3 * planned(3).memory
        assert same(before, everything(one))
    finally:
        use_registry()


def test_texts_that_are_cut_are_told_of_the_whole_data_only(caplog: pytest.LogCaptureFixture) -> None:
    data = [" ".join(["rain"] * (40 if at < 20 else 3)) for at in range(96)], ["cat", "dog"] * 48
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    try:
        zoo.get("toy/text", weights=False).adapt(2).plan(data, False, recipe="layer-decay", batch_size=32, max_length=16)
    finally:
        use_registry()
    assert [line.partition(" cut")[0].rpartition(": ")[2] for line in caplog.messages if " cut to " in line] == ["20 texts of 96"]


def test_a_loss_that_is_not_finite_ends_it_and_still_leaves_nothing_behind() -> None:
    one = model()
    with torch.no_grad():
        one.head.linear.weight.fill_(torch.nan)  # type: ignore[union-attr, operator]
    before = [tensor.nan_to_num(7.0) for tensor in values(one).values()]
    with pytest.raises(TrainingError, match="not finite in a dry step"):
        one.plan(images(), batch_size=8)
    assert same(before, [tensor.nan_to_num(7.0) for tensor in values(one).values()])


def test_a_plan_is_plain_data() -> None:
    told = model(task="regression", classes=1).plan((images()[0], np.arange(24.0)), recipe="full", batch_size=8)
    assert isinstance(told, Preview)
    plain = told.to_dict()
    assert plain["task"] == "regression"
    assert plain["phases"][0]["groups"][-1]["name"] == "head"
    assert plain["memory"] == max(phase["memory"] for phase in plain["phases"])
    assert plain["seconds"] == pytest.approx(sum(phase["seconds"] for phase in plain["phases"]))


def test_a_footprint_is_the_peak_and_what_stays() -> None:
    kept = []
    with footprint(CPU) as taken:
        kept.append(torch.zeros(1000))
        torch.zeros(5000)
    assert taken.held == 4000
    assert taken.peak == pytest.approx(24000, abs=64)


def test_a_compiled_run_is_foretold_without_what_it_would_not_keep() -> None:
    told = model().plan(images(), recipe="top", batch_size=8, compile=True).phases
    assert told[0].cached  # pooled features, for which nothing is entered
    assert not told[1].cached
    assert "compiled" in told[1].reason

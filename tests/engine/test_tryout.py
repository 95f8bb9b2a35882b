"""Memory that runs out, and what a run finds out by itself: micro-batches and learning rates."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.test_resume import stop, tables
from tests.engine.tiny import difference, model, timeless, values
from zoo.engine.options.recipe import Phase, Recipe
from zoo.errors import InterruptedRunError, OptionError, TrainingError
from zoo.util.process_caches import CACHES

CPU_SAYS = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
FULL: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 8, "lr": 0.01, "augment": "none", "freeze_bn": True}


def net(dropout: float = 0.0) -> Any:
    """A toy model whose norms can hold their statistics."""
    made = model()
    made.pretrained = True
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return made


def limited(made: Any, most: int, error: BaseException) -> list[int]:
    """Let the backbone fail in training on more than so many samples; return the sizes that it was given."""
    seen: list[int] = []

    def look(module: Any, args: Any) -> None:
        if module.training:
            seen.append(len(args[0]))
            if len(args[0]) > most:
                raise error

    made.backbone.blocks[1].register_forward_pre_hook(look)  # the first norm has seen the batch by then
    return seen


def run(made: Any, out: Path, **options: Any) -> Any:
    return made.fit(*tables(), out=out, quiet=True, **(FULL | options))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError(CPU_SAYS)], ids=repr)
def test_t7_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(
    error: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, direct, whole = net(), net(), net()
    seen = limited(small, 3, error)
    with caplog.at_level(logging.WARNING, "zoo"):
        made = run(small, tmp_path / "small")
    assert "micro-batches of 2 samples" in caplog.text
    assert "BatchNorm" not in caplog.text
    assert seen.count(8) == seen.count(4) == 1, "the size was not remembered"
    expected = run(direct, tmp_path / "direct", batch_size=2, accumulate=4)
    assert difference(values(small), values(direct)) <= 1e-6
    assert [line["train_loss"] for line in made.history] == pytest.approx([line["train_loss"] for line in expected.history], abs=1e-5)
    run(whole, tmp_path / "whole")
    assert difference(values(small), values(whole)) <= 1e-5


def test_t7_a_retry_repeats_neither_statistics_nor_random_numbers_nor_averages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"freeze_bn": False, "ema": 0.9, "dropout": 0.5}
    retried, direct = net(), net()
    limited(retried, 4, MemoryError())
    with caplog.at_level(logging.WARNING, "zoo"):
        run(retried, tmp_path / "retried", **options)
    assert "BatchNorm takes its statistics from the smaller batches" in caplog.text
    run(direct, tmp_path / "direct", batch_size=4, accumulate=2, **options)
    assert difference(values(retried), values(direct)) <= 1e-6


def test_t7_the_size_outlives_a_stop(tmp_path: Path) -> None:
    made = net()
    limited(made, 3, MemoryError())
    trip = tables(36)
    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        made.fit(*trip, out=tmp_path, quiet=True, **FULL)
    resumed = net()
    seen = limited(resumed, 3, MemoryError())
    run(resumed, tmp_path, resume=True)
    assert max(seen) == 2


def test_t7_what_is_kept_is_computed_as_before_also_where_a_later_pass_ran_out_of_memory(tmp_path: Path) -> None:
    def train(folder: Path, **options: Any) -> tuple[list[int], int]:
        """Return the sizes of the batches that went through the frozen part, and of the largest that entered behind it in a pass."""
        made, kept, behind, steps = net(), [], [], [0]

        def first(module: Any, args: Any) -> None:
            if "forward" not in vars(module):  # of its own it has one where the network is entered behind it
                kept.append(len(args[0]))
                whole.append(True)

        def tail(module: Any, args: Any) -> None:
            steps[0] += module.training
            if steps[0] == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            if whole or module.training:
                whole.clear()
                return
            if len(args[0]) > 4:
                raise MemoryError
            behind.append(len(args[0]))

        whole: list[bool] = []
        made.backbone.conv1.register_forward_pre_hook(first)
        made.backbone.blocks[1].register_forward_pre_hook(tail)
        made.fit(*tables(), out=folder, quiet=True, recipe="full", freeze="stage.0", augment="none", batch_size=4, epochs=3, **options)
        return kept, max(behind)

    CACHES.clear()
    stop_at = -1
    expected, largest = train(tmp_path / "whole")
    assert largest == 4
    stop_at = 9  # in the second epoch, after a validation
    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        train(tmp_path / "run")
    stop_at = -1
    CACHES.clear()
    assert train(tmp_path / "run", resume=True)[0] == expected
    assert max(expected) == 8


def test_t7_one_sample_that_does_not_fit_and_other_errors_end_the_run(tmp_path: Path) -> None:
    made = net()
    limited(made, 0, MemoryError())
    with pytest.raises(TrainingError, match=r"one sample alone does not fit.*recipe='lora'"):
        run(made, tmp_path / "one")
    made = net()
    limited(made, 3, RuntimeError("my own words: out of memory."))
    with pytest.raises(RuntimeError, match="my own words"):
        run(made, tmp_path / "own")


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_equal_gradients_with_class_weights_and_other_tasks(task: str, tmp_path: Path) -> None:
    from zoo.data.open import open_data

    images = tables()[0].inputs
    labels: Any = ["red", "blue", "blue"] * 8
    targets: Any = {"single-label": labels, "multi-label": [["red"], ["red", "blue"], []] * 8, "regression": [float(i) for i in range(24)]}[
        task
    ]
    classes = 1 if task == "regression" else 2
    nets = [model(classes, task=task) for _ in range(2)]
    for made, most in zip(nets, (3, 99), strict=True):
        made.pretrained = True
        for module in made.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        limited(made, most, MemoryError())
        weights = {} if task == "regression" else {"class_weights": "balanced"}
        made.fit(open_data((images, targets), task=task), False, out=tmp_path / str(most), quiet=True, **(FULL | weights))
    assert difference(values(nets[0]), values(nets[1])) <= 1e-4 * max(1.0, float(values(nets[1])["head.linear.bias"].abs().max()))


def test_batch_size_auto_is_the_recipes_and_finds_out_beforehand_what_fits(tmp_path: Path) -> None:
    recipe = Recipe(name="mine", phases=(Phase(name="all"),), batch_size=8, epochs=2, lr=0.01, freeze_bn=True)
    found, given = net(), net()
    seen = limited(found, 3, MemoryError())
    one = run(found, tmp_path / "auto", recipe=recipe, batch_size="auto")
    assert seen[:3] == [8, 4, 2]
    assert max(seen[3:]) == 2
    assert json.loads((tmp_path / "auto/run.json").read_text())["config"]["batch_size"] == "auto"
    other = run(given, tmp_path / "given", recipe=recipe)
    assert difference(values(found), values(given)) <= 1e-5
    assert [line["epoch"] for line in one.history] == [line["epoch"] for line in other.history]


@pytest.mark.usefixtures("drawn")
def test_a_learning_rate_is_found_for_every_phase_and_drawn(tmp_path: Path) -> None:
    made = model()
    result = made.fit(*tables(), out=tmp_path, recipe="lp-ft", epochs=6, lr="auto", quiet=True, batch_size=8, solve_head=False)
    pictures = sorted(path.name for path in tmp_path.glob("lr-*.png"))
    assert pictures == ["lr-1-probe.png", "lr-2-full.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    rates = {line["phase"]: max(other["lr"] for other in result.history if other["phase"] == line["phase"]) for line in result.history}
    assert all(1e-6 < rate < 10 for rate in rates.values())
    assert result.metrics["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("reads", "where"),
    [pytest.param(60, "train", id="in the range test"), pytest.param(12 + 5, "valid", id="after it", marks=pytest.mark.sweep)],
)
def test_a_run_that_finds_its_rates_resumes_to_the_last_bit(reads: int, where: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": "lp-ft", "epochs": 4, "batch_size": 8, "lr": "auto", "quiet": True}
    whole = model()
    expected = whole.fit(*tables(), out=tmp_path / "whole", **options)
    cut = model()
    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        cut.fit(*tables(reads, where), out=tmp_path / "cut", **options)
    resumed = model()
    history = resumed.fit(*tables(), out=tmp_path / "cut", resume=True, **options)
    assert difference(values(resumed), values(whole)) == 0.0
    assert timeless(history.history) == timeless(expected.history)


def test_a_rate_that_is_neither_number_nor_auto_is_refused() -> None:
    with pytest.raises(OptionError, match=r"lr is 'fast'; it must be 'auto'"):
        model().fit("nowhere", lr="fast")


@pytest.mark.parametrize(
    ("reads", "options"),
    [(36, {"recipe": "top"}), (60, {"recipe": "gradual"}), (60, {"recipe": "bitfit"}), (60, {"schedule": "plateau"})],
    ids=["top", "gradual", "bitfit", "plateau"],
)
def test_every_way_resumes_to_the_last_bit(reads: int, options: dict[str, Any], tmp_path: Path) -> None:
    from tests.engine.test_resume import fit

    options = {"epochs": 6} | options
    whole, expected = fit(tmp_path / "whole", **options)
    stop(tmp_path / "cut", reads, **options)
    resumed, history = fit(tmp_path / "cut", resume=True, **options)
    assert difference(values(resumed), values(whole)) == 0.0
    assert timeless(history.history) == timeless(expected.history)


def test_a_phase_in_steps_ends_within_an_epoch_and_its_schedule_with_it(tmp_path: Path) -> None:
    recipe = Recipe(
        name="short", phases=(Phase(name="some", steps=4), Phase(name="rest", epochs=1)), batch_size=8, schedule="linear", warmup=0.0
    )
    made = model()
    result = made.fit(*tables(), out=tmp_path, recipe=recipe, quiet=True, keep_checkpoints=True)
    assert [(line["phase"], line["epoch"]) for line in result.history] == [("some", 1), ("some", 2), ("rest", 3)]
    newest = max((tmp_path / "checkpoint").iterdir())
    assert json.loads((newest / "state.json").read_text())["run"]["steps"] == 4 + 3
    assert result.history[1]["lr"] == pytest.approx(recipe.lr * 1 / 4)


@pytest.mark.sweep
def test_a_compiled_backbone_trains_to_the_same_values_and_is_plain_again_afterwards(tmp_path: Path) -> None:
    compiled, plain = net(), net()
    run(compiled, tmp_path / "compiled", compile=True)
    run(plain, tmp_path / "plain")
    assert compiled.backbone._compiled_call_impl is None
    assert values(compiled).keys() == values(plain).keys()
    assert difference(values(compiled), values(plain)) <= 1e-4


def test_where_the_loss_falls_no_more_a_later_phase_takes_the_rate_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.engine.train import auto_tune

    real, calls = auto_tune.range_test, []

    def once(*given: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise auto_tune.NoFallError("no fall")
        return real(*given)

    monkeypatch.setattr(auto_tune, "range_test", once)
    result = model().fit(
        *tables(),
        out=tmp_path / "later",
        recipe="lp-ft",
        epochs=2,
        lr="auto",
        quiet=True,
        batch_size=8,
        schedule="constant",
        solve_head=False,
    )
    probe, full = (line["lr"] for line in result.history)
    assert full == pytest.approx(0.03 * probe)
    solved = model().fit(
        *tables(), out=tmp_path / "solved", recipe="lp-ft", epochs=2, lr="auto", quiet=True, batch_size=8, schedule="constant"
    )
    assert solved.history[1]["lr"] == pytest.approx(0.03 * 3e-3)
    with pytest.raises(TrainingError, match="no fall"):
        model().fit(*tables(), out=tmp_path / "first", recipe="full", epochs=1, lr="auto", quiet=True, batch_size=8)


def test_plateau_without_validation_and_an_unknown_optimizer_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"plateau.*no validation data"):
        model().fit(tables()[0], False, out=tmp_path / "a", schedule="plateau", quiet=True)
    with pytest.raises(OptionError, match=r"adamx.*did you mean"):
        model().fit("nowhere", optimizer="adamx", out=tmp_path / "b")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no address space to limit and read here")
def test_t7_memory_that_the_system_refuses_is_told_from_other_errors(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        train_in_little_memory(tmp_path)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    newest = max((tmp_path / "run/checkpoint").iterdir())
    assert json.loads((newest / "state.json").read_text())["run"]["split"] > 1


def train_in_little_memory(folder: Path) -> None:
    """Train with room for a few of 64 large images, and leave the process."""
    code = 1
    try:
        logging.disable(logging.WARNING)
        source = np.random.default_rng(0)
        data = source.integers(0, 255, (64, 512, 512, 3)).astype(np.uint8), ["a", "b"] * 32
        made = model(2)
        made.pretrained = True
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 1200 * 2**20, resource.RLIM_INFINITY))
        options = FULL | {"batch_size": 64, "epochs": 1, "quiet": True, "keep_checkpoints": True}
        made.fit(data, False, out=folder / "run", image_size=512, **options)
        code = 0
    finally:
        os._exit(code)  # never back into pytest


def test_validation_on_kept_features_goes_on_in_smaller_parts(tmp_path: Path) -> None:
    net = model()

    def scarce(_module: Any, args: Any) -> None:
        if not net.head.training and len(args[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = net.head.linear.register_forward_pre_hook(scarce)
    made = net.fit(*tables(), out=tmp_path, quiet=True, recipe="linear-probe", epochs=2, batch_size=2)
    handle.remove()
    assert made.metrics["accuracy"] == net.evaluate(tables()[1])["accuracy"]

"""T9: an exception anywhere in a run ends it as it is, harms nothing, and the run goes on bit for bit once the cause is gone."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import difference, images, model, timeless, values
from zoo.data.images import transforms
from zoo.data.open import open_data
from zoo.engine.objective import supervised
from zoo.engine.options import model_selection
from zoo.engine.rundir import checkpoint_writer
from zoo.engine.rundir.checkpoint import read_newest, write_checkpoint
from zoo.engine.train import fit as fit_module
from zoo.engine.train import trainer
from zoo.errors import CorruptInputError, TrainingError
from zoo.tasks import single_label

OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "epochs": 3, "ema": 0.9, "quiet": True}


class Broken(Exception):  # noqa: N818  # what a plugin or a library may raise
    pass


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)


def fit(out: Path, prepare: Callable[[Any], None] = lambda net: None, **options: Any) -> Any:
    net = model(head="mlp", hidden=4)
    prepare(net)
    run = net.fit(open_data(images(24)), open_data(images(12, seed=1)), out=out, **(OPTIONS | options))
    return net, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    net, run = fit(tmp_path_factory.mktemp("whole") / "run")
    return values(net), timeless(run.history)


def at_call(number: int, real: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """Return a function that raises at its n-th call, and otherwise does what it did."""
    calls = [0]

    def call(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            raise error
        return real(*arguments, **options)

    return call


class Torn(torch.autograd.Function):
    """Raises in its backward."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # one gradient
        raise Broken("backward")


def hooked(which: Callable[[Any], Any], number: int, *, train: bool, torn: bool = False) -> Callable[[Any], None]:
    """Return what makes a module of a model raise in its n-th forward in training, or in evaluation."""

    def prepare(net: Any) -> None:
        which(net).register_forward_hook(partial(hook, [0]))

    def hook(calls: list[int], module: Any, inputs: Any, output: Any) -> Any:
        calls[0] += module.training == train
        if calls[0] != number or module.training != train:
            return None
        if torn:
            return Torn.apply(output)  # type: ignore[no-untyped-call]  # torch has no types here
        raise Broken("forward")

    return prepare


# Modules that raise: in the second of three epochs, each of three steps.
MODULES = {
    "backbone": hooked(lambda net: net.backbone, 5, train=True),
    "a block": hooked(lambda net: net.backbone.blocks[0], 6, train=True),
    "head": hooked(lambda net: net.head, 5, train=True),
    "backward": hooked(lambda net: net.head, 5, train=True, torn=True),
    "backbone in evaluation": hooked(lambda net: net.backbone, 2, train=False),
    "head in evaluation": hooked(lambda net: net.head, 2, train=False),
}
# Functions that raise at their n-th call.
FUNCTIONS: dict[str, tuple[Any, str, int]] = {
    "transform": (transforms.TrainTransform, "__call__", 30),
    "transform in evaluation": (transforms.EvalTransform, "__call__", 15),
    "decoder": (transforms, "decode", 40),
    "metric": (supervised, "compute_metrics", 2),
    "one of the metrics": (single_label, "softmax", 2),
    "best epoch": (model_selection.Best, "update", 2),
    "optimizer": (torch.optim.AdamW, "step", 5),
    "history": (trainer, "write_history", 2),
    "checkpoint": (checkpoint_writer, "write_checkpoint", 2),
    "curves": (fit_module, "draw_curves", 1),
    "saved model": (fit_module, "write_history", 1),
}


@pytest.mark.parametrize("where", MODULES)
def test_t9_a_module_that_raises(where: str, whole: Any, tmp_path: Path) -> None:
    with pytest.raises(Broken):
        fit(tmp_path, MODULES[where])
    goes_on(tmp_path, whole)


@pytest.mark.parametrize("where", FUNCTIONS)
def test_t9_a_function_that_raises(where: str, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, number = FUNCTIONS[where]
    real = getattr(owner, name)
    broken = at_call(number, real, Broken(where))
    # A method must stay one.
    monkeypatch.setattr(owner, name, (lambda *given, **options: broken(*given, **options)) if isinstance(owner, type) else broken)
    with pytest.raises((Broken, CorruptInputError), match=where):
        fit(tmp_path)
    monkeypatch.setattr(owner, name, real)
    goes_on(tmp_path, whole)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no more")])
def test_t9_a_checkpoint_that_fails(error: Exception, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkpoint_writer.write_checkpoint
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", at_call(2, real, error))
    with pytest.raises(TrainingError if isinstance(error, OSError) else MemoryError, match=r"Input/output error.*resume=True|no more"):
        fit(tmp_path)
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", real)
    goes_on(tmp_path, whole)


def goes_on(out: Path, whole: Any) -> None:
    assert not (out / "run.lock").exists()
    found = read_newest(out / "checkpoint")
    assert found is not None
    net, run = fit(out, resume=True)
    assert difference(values(net), whole[0]) == 0.0
    assert timeless(run.history) == whole[1]


class Refusing(logging.Handler):
    """A logger whose backend is down."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            raise Broken("the backend is down")
        except Broken:
            self.handleError(record)


def test_t9_a_logger_whose_backend_is_down_ends_nothing(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = Refusing(logging.DEBUG)
    logging.getLogger("zoo").addHandler(handler)
    try:
        net, _ = fit(tmp_path)
    finally:
        logging.getLogger("zoo").removeHandler(handler)
    assert difference(values(net), whole[0]) == 0.0


@pytest.mark.parametrize("where", MODULES)
def test_t9_the_steps_before_an_exception_are_in_a_checkpoint(
    where: str, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 1000.0)  # none is written within the run, but for the exception
    with pytest.raises(Broken):
        fit(tmp_path, MODULES[where])
    found = read_newest(tmp_path / "checkpoint")
    assert found is not None
    assert found[0].plain["run"]["steps"] == (6 if "evaluation" in where else 5 if where == "a block" else 4)
    goes_on(tmp_path, whole)


def test_t9_a_terminal_that_nobody_reads_any_more_ends_nothing(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    net, _ = fit(tmp_path, quiet=False)
    assert difference(values(net), whole[0]) == 0.0


def test_t9_a_long_epoch_is_saved_within(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    real = write_checkpoint
    for module in [
        module for name, module in sys.modules.items() if name.startswith("zoo.engine.") and hasattr(module, "write_checkpoint")
    ]:
        monkeypatch.setattr(module, "write_checkpoint", lambda folder, step, saved: (written.append(step), real(folder, step, saved))[1])
    net, _ = fit(tmp_path)
    assert sorted(set(written)) == list(range(1, 10))
    assert difference(values(net), whole[0]) == 0.0

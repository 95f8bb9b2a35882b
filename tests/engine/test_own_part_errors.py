"""Functions of the user's own that raise in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.metrics import f1_score, make_scorer

from tests.engine.tiny import difference, images, model, values
from zoo.engine.rundir.checkpoint import written
from zoo.errors import OptionError, OwnPartError, TrainingError, ZooError

pytestmark = pytest.mark.usefixtures("toys")
OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 3, "batch_size": 8, "workers": 0, "quiet": True, "device": "cpu"}


class Failing:
    """A function that raises from its n-th call on, until it is mended."""

    def __init__(self, calls: int, result: Any) -> None:
        self.result, self.state = result, {"left": calls, "mended": 0}  # plain attributes would be compared when the run is resumed

    def __call__(self, *given: Any) -> Any:
        self.state["left"] -= 1
        if self.state["left"] < 0 and not self.state["mended"]:
            raise KeyError("gone")
        return self.result(*given)


def plain_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


# Three steps and one validation an epoch; the loss is also taken of the validation data.
PARTS: dict[str, tuple[str, Failing, str, int]] = {
    "on_epoch": ("on_epoch", Failing(1, lambda record: None), r"on_epoch \(.*Failing", 2),
    "metric": ("metrics", Failing(1, lambda targets, scores: 0.5), "metrics: 'mine'", 2),
    "augmentation": ("augment", Failing(40, lambda image: image), r"sample \d+ of the data in memory: the augmentation Failing", 2),
    "loss": ("loss", Failing(5, plain_loss), r"the loss .*Failing", 2),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_part_and_the_epoch_are_named_and_the_run_goes_on_once_it_is_mended(name: str, tmp_path: Path) -> None:
    option, part, message, epoch = PARTS[name]
    given = {option: {"mine": part} if option == "metrics" else part}
    with pytest.raises(OwnPartError, match=rf"{message}.* failed with KeyError: 'gone'; in epoch {epoch} of 3\. .*resume=True") as caught:
        model().fit(images(24), images(8, seed=1), out=tmp_path / "run", **OPTIONS, **given)
    assert isinstance(caught.value.__cause__, KeyError | OwnPartError)
    assert str(tmp_path / "run") in str(caught.value)
    assert written(tmp_path / "run" / "checkpoint")
    part.state["mended"] = 1
    resumed, whole = model(), model()
    run = resumed.fit(images(24), images(8, seed=1), out=tmp_path / "run", resume=True, **OPTIONS, **given)
    assert [record["epoch"] for record in run.history] == [1, 2, 3]
    whole.fit(images(24), images(8, seed=1), out=tmp_path / "whole", **OPTIONS, **given)
    assert difference(values(resumed), values(whole)) == 0.0


def test_an_augmentation_that_raises_in_a_loader_process_is_named_too(tmp_path: Path) -> None:
    options = OPTIONS | {"workers": 1, "augment": Failing(0, lambda image: image)}
    with pytest.raises(
        OwnPartError, match=r"sample \d+ of the data in memory: the augmentation Failing failed with KeyError: 'gone'; in epoch 1 of 3"
    ):
        model().fit(images(24), images(8, seed=1), out=tmp_path / "run", **options)


def test_a_trial_of_optuna_is_pruned_by_its_own_exception(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")

    def prune(record: dict[str, Any]) -> None:
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        model().fit(images(24), images(8, seed=1), out=tmp_path / "run", on_epoch=prune, **OPTIONS)


def test_a_tracker_that_fails_at_its_start_is_named(tmp_path: Path) -> None:
    from accelerate.tracking import GeneralTracker  # type: ignore[import-untyped]  # no types

    class Broken(GeneralTracker):  # type: ignore[misc]  # untyped
        name, requires_logging_directory, tracker = "mine", False, None

        def __init__(self) -> None:
            super().__init__()

        def store_init_configuration(self, values: Any) -> None:
            raise ConnectionError("no route")

    with pytest.raises(OwnPartError, match="log_with: the start of tracker 'mine' failed with ConnectionError: no route"):
        model().fit(images(24), images(8, seed=1), out=tmp_path / "run", log_with=Broken(), **OPTIONS)


def scorer() -> Any:
    return make_scorer(f1_score)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": {"mine": scorer()}}, r"'mine' is a scorer.*give its function, sklearn\.metrics\.f1_score"),
        ({"metrics": {"mine": torch.nn.L1Loss}}, "'mine' is the class L1Loss"),
        ({"metrics": {" ": f1_score}}, "a name is empty"),
        ({"optimizer": torch.optim.SGD}, "optimizer is the class SGD; .*give a name, such as 'sgd'"),
        (
            {"optimizer": torch.optim.SGD(torch.nn.Linear(1, 1).parameters()), "schedule": print},
            "optimizer is an object of type SGD(.|\n)*schedule is an object of type builtin_function",
        ),
    ],
)
def test_parts_of_a_wrong_kind_are_refused_before_a_run(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        model().fit(images(24), images(8, seed=1), out=tmp_path / "run", **OPTIONS | given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda targets, scores: scores.max(1), r"it returned ndarray of shape \(8,\), and a metric is one number; .*targets \(8,\)"),
        (lambda targets, scores: None, "it returned NoneType, and a metric is one number"),
        (torch.nn.L1Loss(), r"arrays of numpy, targets \(8,\) and then predictions \(8, 3\)"),
    ],
)
def test_a_metric_that_gives_no_number_says_what_it_gave_and_was_given(metric: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(OwnPartError, match=message):
        model().fit(images(24), images(8, seed=1), out=tmp_path / "run", metrics={"mine": metric}, **OPTIONS)


def test_a_metric_may_give_an_array_or_a_tensor_of_one_number(tmp_path: Path) -> None:
    metrics = {"array": lambda targets, scores: np.array([0.25]), "tensor": lambda targets, scores: torch.tensor([[0.5]])}
    run = model().fit(images(24), images(8, seed=1), out=tmp_path / "run", metrics=metrics, **OPTIONS | {"epochs": 1})
    assert (run.metrics["array"], run.metrics["tensor"]) == (0.25, 0.5)


def test_a_loss_that_is_not_finite_or_fails_under_mixup_is_named(tmp_path: Path) -> None:
    def infinite(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return plain_loss(logits, targets) / 0

    def gathered(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return -logits.log_softmax(1).gather(1, targets[:, None])[:, 0]

    with pytest.raises(TrainingError, match=r"a quotient of 0 in your loss .*infinite"):
        model().fit(images(24), False, out=tmp_path / "one", loss=infinite, **OPTIONS)
    with pytest.raises(OwnPartError, match=r"gathered.*with mixup or cutmix its targets are probabilities"):
        model().fit(images(24), False, out=tmp_path / "two", loss=gathered, mixup=0.2, **OPTIONS)


def as_tensor(side: int, scale: float = 1.0) -> Any:
    def augment(image: PIL.Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((side, side)), dtype=np.float32) / 255).permute(2, 0, 1) * scale

    return augment


def test_a_float_tensor_of_another_size_is_resized_as_an_image_is(tmp_path: Path) -> None:
    def as_image(image: PIL.Image.Image) -> PIL.Image.Image:
        return image.resize((20, 20))

    nets = [model() for _ in range(2)]
    for net, augment in zip(nets, (as_image, as_tensor(20)), strict=True):
        net.fit(images(24), False, out=tmp_path / net.__class__.__name__ / str(id(net)), augment=augment, **OPTIONS | {"epochs": 1})
    assert difference(values(nets[0]), values(nets[1])) < 1e-3


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (as_tensor(20, 255.0), r"as_tensor.*values in \[.*not in \[0, 1\]; scale them"),
        (lambda image: np.asarray(image) / np.float32(127.5) - 1, r"<lambda> returned cannot be used: .*float pixels are in \[-"),
        (lambda image: np.zeros((0, 5, 3), np.uint8), r"<lambda> returned cannot be used: .*shape \(0, 5, 3\)"),
        (lambda image: np.full((8, 8, 3), np.nan), r"<lambda> returned cannot be used: .*192 values that are not finite"),
    ],
)
def test_an_augmentation_is_named_with_what_is_wrong_in_its_result(augment: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=message):
        model().fit(images(24), False, out=tmp_path / "run", augment=augment, **OPTIONS)

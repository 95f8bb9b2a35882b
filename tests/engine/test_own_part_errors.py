"""Functions of the user's own that raise in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import difference, images, model, values
from zoo.engine.rundir.checkpoint import written
from zoo.errors import OwnPartError

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
    "augmentation": ("augment", Failing(40, lambda image: image), r"sample \d+ of the arrays: the augmentation Failing", 2),
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
        OwnPartError, match=r"sample \d+ of the arrays: the augmentation Failing failed with KeyError: 'gone'; in epoch 1 of 3"
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

"""Objectives from outside: every one gets resume, ranks, out-of-memory handling, stored activations, averages and a plan."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import zoo
from tests.engine import rank_work
from tests.engine.objectives import Coral, Distilled, Momentum
from tests.engine.tiny import NAMES, count_samples, difference, images, model, values
from tests.faults.fork_run import fork
from zoo import Objective, Supervised
from zoo.data.open import open_data
from zoo.data.texts.augment import TextAugment
from zoo.declare import Image
from zoo.engine.loading.stream import Source, View
from zoo.engine.rundir import checkpoint_writer
from zoo.engine.runtime.memory_profile import footprint, nbytes
from zoo.engine.runtime.rollback import tensors_of
from zoo.errors import OptionError, SavedModelError, TrainingError
from zoo.util.process_caches import CACHES

TARGET = images(18, seed=5)[0] // 2
MAKERS: dict[str, Callable[[Supervised], Objective]] = {
    "distilled": lambda base: Distilled(base, model(seed=7)),
    "coral": lambda base: Coral(base, open_data(TARGET, labelled=False)),
    "momentum": Momentum,
}
OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "quiet": True, "epochs": 3}


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)


def fit(out: Path, name: str, **options: Any) -> Any:
    net = model()
    run = net.fit(open_data(images(24)), open_data(images(12, seed=1)), out=out, objective=MAKERS[name], **(OPTIONS | options))
    return net, run


@pytest.mark.parametrize("name", ["coral", *(pytest.param(name, marks=pytest.mark.sweep) for name in ("distilled", "momentum"))])
def test_a_run_that_is_killed_at_random_and_resumed_equals_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    expected, whole = fit(tmp_path / "whole", name, epochs=6, ema=0.9)
    out, chance, kills = tmp_path / "run", random.Random(0), 0
    for _ in range(15):
        child = fork(lambda: fit(out, name, epochs=6, ema=0.9, resume=out.exists()), tmp_path / "log")
        time.sleep(chance.uniform(0.05, 0.4))
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        kills += status != 0
        if status == 0:
            break
    assert kills >= 1
    net, run = fit(out, name, epochs=6, ema=0.9, resume=True)
    assert difference(values(net), values(expected)) == 0.0
    assert [line["train_loss"] for line in run.history] == [line["train_loss"] for line in whole.history]


def test_further_modules_train_and_the_momentum_copy_follows(tmp_path: Path) -> None:
    made: list[Any] = []

    def make(base: Supervised) -> Objective:
        made.append((Momentum(base), base))
        made.append({name: tensor.clone() for name, tensor in made[0][0].module.state_dict().items()})
        return made[0][0]

    net = model()
    net.fit(open_data(images(24)), open_data(images(12, seed=1)), out=tmp_path, objective=make, **OPTIONS)
    objective, before = made[0][0], made[1]
    after = objective.module.state_dict()
    for part in ("predictor.weight", "copy.backbone.conv1.weight", "model.backbone.conv1.weight"):
        assert not torch.equal(before[part], after[part]), part
    assert objective.moves == 9


@pytest.mark.parametrize(
    "options", [{"recipe": "full", "augment": "none"}, {"recipe": "linear-probe"}, {"recipe": "top", "augment": "none"}]
)
def test_a_frozen_teacher_sees_each_sample_once_where_nothing_is_augmented(options: dict[str, Any], tmp_path: Path) -> None:
    teacher = model(seed=7)
    seen = count_samples(teacher.backbone)
    net = model()
    net.fit(
        open_data(images(24)),
        open_data(images(12, seed=1)),
        out=tmp_path,
        objective=lambda base: Distilled(base, teacher),
        **OPTIONS | options,
    )
    assert seen == [24]


def test_the_teachers_outputs_are_those_of_the_augmented_images_otherwise(tmp_path: Path) -> None:
    teacher = model(seed=7)
    seen = count_samples(teacher.backbone)
    net = model()
    net.fit(open_data(images(24)), False, out=tmp_path, objective=lambda base: Distilled(base, teacher), **OPTIONS | {"augment": "light"})
    assert seen == [3 * 24]


def test_a_frozen_prefix_is_computed_once_for_source_and_target(tmp_path: Path) -> None:
    def computed(epochs: int) -> int:
        net = model()
        seen = count_samples(net.backbone.conv1)
        data = open_data(images(24)), open_data(images(12, seed=1))
        options = OPTIONS | {"recipe": "top", "augment": "none", "epochs": epochs}
        net.fit(*data, out=tmp_path / str(epochs), objective=MAKERS["coral"], **options)
        CACHES.clear()
        return seen[0]

    assert computed(3) == computed(9) < 3 * (24 + 18 + 12)


def test_the_second_source_cycles_and_each_pass_takes_every_sample(tmp_path: Path) -> None:
    rows: list[int] = []

    class Watching(Coral):
        def loss(self, forward: Any, batch: Any) -> torch.Tensor:
            assert len(batch["train"].indices) == len(batch["target"].indices)
            rows.extend(batch["target"].indices)
            return super().loss(forward, batch)

    net = model()
    table = open_data(TARGET, labelled=False)
    net.fit(open_data(images(24)), False, out=tmp_path, objective=lambda base: Watching(base, table), **OPTIONS)
    assert len(rows) == 3 * 24
    for start in range(0, 72, 18):
        assert sorted(rows[start : start + 18]) == list(range(18))


def test_two_views_of_an_image_differ_and_are_of_the_same_image(tmp_path: Path) -> None:
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watching(Momentum):
        def loss(self, forward: Any, batch: Any) -> torch.Tensor:
            pairs.append((batch["train"].x, batch["train"].views[0]))
            return super().loss(forward, batch)

    net = model()
    net.fit(open_data(images(24)), False, out=tmp_path, objective=Watching, **OPTIONS | {"augment": "light"})
    assert all(one.shape == other.shape and not torch.equal(one, other) for one, other in pairs)
    channels = [(one.mean((2, 3)).argmax(1), other.mean((2, 3)).argmax(1)) for one, other in pairs]
    assert all(torch.equal(one, other) for one, other in channels)  # the brightest channel is the class


@pytest.mark.parametrize("name", MAKERS)
def test_a_plan_foretells_the_memory(name: str, tmp_path: Path) -> None:
    train, valid = (open_data(data) for data in (images(24), images(12, seed=1)))
    net = model()
    told = net.plan(train, valid, objective=MAKERS[name], **OPTIONS)
    made: list[Objective] = []

    def make(base: Supervised) -> Objective:
        made.append(MAKERS[name](base))
        return made[0]

    with footprint(torch.device("cpu")) as taken:
        net.fit(train, valid, out=tmp_path, objective=make, **OPTIONS)
    assert told.memory == pytest.approx(taken.peak + nbytes(tensors_of(net).values()), rel=0.15)


@pytest.mark.parametrize("name", ["distilled", "momentum"])
def test_a_separable_step_that_runs_out_of_memory_is_taken_in_parts(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_module: Any, args: Any) -> None:
        if len(args[0]) > 4 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError

    nets = rank_work.plain(), rank_work.plain()  # without BatchNorm, whose statistics would be those of a micro-batch
    for net, out in zip(nets, ("whole", "parts"), strict=True):
        if out == "parts":
            net.backbone.register_forward_pre_hook(refuse)
        net.fit(images(24), False, out=tmp_path / out, objective=MAKERS[name], **OPTIONS | {"augment": "none"})
    assert "going on with micro-batches of 4 samples" in caplog.text
    assert difference(values(nets[0]), values(nets[1])) < 1e-4


def test_a_frozen_teacher_that_runs_out_of_memory_takes_smaller_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_module: Any, args: Any) -> None:
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError

    students = model(), model()
    for net, out in zip(students, ("whole", "parts"), strict=True):
        teacher = model(seed=7)
        if out == "parts":
            teacher.backbone.register_forward_pre_hook(refuse)
        objective = partial(Distilled, teacher=teacher)
        net.fit(images(24), False, out=tmp_path / out, objective=objective, **OPTIONS | {"augment": "light", "epochs": 1})
    assert "out of memory during inference" in caplog.text
    assert difference(values(students[0]), values(students[1])) < 1e-5


def test_a_loss_that_needs_the_whole_batch_is_never_cut(tmp_path: Path) -> None:
    net = model()
    net.backbone.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()) if torch.is_grad_enabled() else None)
    with pytest.raises(TrainingError, match=r"the loss of coral needs it as a whole; lower batch_size"):
        net.fit(images(24), False, out=tmp_path, objective=MAKERS["coral"], **OPTIONS)


def test_another_objective_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    fit(tmp_path, "momentum", epochs=1)
    with pytest.raises(SavedModelError, match="started with objective= and is resumed with no objective="):
        model().fit(images(24), images(12, seed=1), out=tmp_path, resume=True, **OPTIONS | {"epochs": 1})


def test_what_makes_no_objective_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="returned Linear"):
        model().fit(images(24), False, out=tmp_path, objective=lambda base: torch.nn.Linear(1, 1), **OPTIONS)


def test_a_regression_trains_in_standard_units_and_is_saved_in_its_own(tmp_path: Path) -> None:
    pixels, labels = images(24)
    data = pixels, [1000.0 + 100 * NAMES.index(label) for label in labels]
    net = model(1, task="regression")
    run = net.fit(data, data, out=tmp_path, objective=lambda base: Distilled(base, model(seed=7)), **OPTIONS | {"epochs": 8})
    assert run.metrics["mae"] < 100
    assert net.evaluate(data)["mae"] == pytest.approx(run.metrics["mae"], rel=1e-4)
    assert 900 < np.mean(net.predict(pixels)) < 1300


@pytest.mark.parametrize("workers", [0, 2])
def test_a_frozen_teachers_outputs_are_those_of_the_view_that_the_student_sees(workers: int, tmp_path: Path) -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    gaps: list[float] = []

    class Watching(Distilled):
        def __init__(self, base: Supervised) -> None:
            super().__init__(base, model(seed=7))
            self.frozen["mean"] = Mean()

        def loss(self, forward: Any, batch: Any) -> torch.Tensor:
            one = batch["train"]
            if isinstance(one.x, torch.Tensor) and one.x.ndim == 4:
                gaps.append(float((one.frozen["mean"] - one.x.mean((2, 3))).abs().max()))
            return super().loss(forward, batch)

    # Without room for stored activations the fixed views are loaded, and can be looked at.
    options = OPTIONS | {"augment": "light", "views": 3, "freeze": 1, "cache_gb": 0.0, "workers": workers}
    model().fit(images(24), False, out=tmp_path, objective=Watching, **options)
    assert len(gaps) == 9
    assert max(gaps) < 1e-5


def test_two_frozen_teachers_share_what_loader_processes_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Distilled):
        def __init__(self, base: Supervised) -> None:
            super().__init__(base, model(seed=7))
            self.frozen["second"] = self.frozen["teacher"]

    monkeypatch.setattr("zoo.engine.cache.frozen_outputs.FrozenOutputs.fits", lambda *_: False)  # no room, but for the activations
    nets = {workers: model() for workers in (0, 2)}
    for workers, net in nets.items():
        net.fit(
            images(24), False, objective=Two, out=tmp_path / str(workers), **OPTIONS | {"freeze": 1, "augment": "none", "workers": workers}
        )
    assert difference(values(nets[0]), values(nets[2])) == 0.0


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (MAKERS["distilled"], {"mixup": 0.2, "augment": "light"}, "mixup: its frozen modules and further views are not mixed"),
        (MAKERS["coral"], {"l2_sp": 0.1}, r"l2_sp: it has no penalty\(\)"),
        (MAKERS["coral"], {"cutmix": 0.2, "augment": "light"}, r"cutmix: it has no soften\(\)"),
    ],
)
def test_options_that_an_objective_would_ignore_are_refused(make: Any, options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=told):
        model().fit(images(24), False, out=tmp_path, objective=make, **OPTIONS | options)


def test_views_of_another_kind_of_input_than_the_model_reads_are_refused(tmp_path: Path) -> None:
    def viewed(base: Supervised) -> Objective:
        return Objective(base.model, {"train": Source(base.sources["train"].table, views=[View(TextAugment(delete=0.1))])}, {})

    with pytest.raises(OptionError, match=r"source 'train' have TextAugment, and the model reads no texts; give zoo\.View\(Augment"):
        model().fit(images(24), False, out=tmp_path, objective=viewed, **OPTIONS)


def test_a_module_without_the_model_and_an_objective_without_a_source_are_refused(tmp_path: Path) -> None:
    def strange(base: Supervised) -> Objective:
        objective = Objective(base.model, {}, {})
        objective.module = torch.nn.Linear(1, 1)
        return objective

    with pytest.raises(OptionError, match=r"no source[\s\S]*does not hold the model"):
        model().fit(images(24), False, out=tmp_path, objective=strange, **OPTIONS)


class Unfinished(Objective):
    """Its author forgot super().__init__()."""

    def __init__(self, base: Supervised) -> None:
        self.base = base


class PerSample(Objective):
    """Its loss is one value per sample."""

    def __init__(self, base: Supervised) -> None:
        super().__init__(base.model, base.sources, base.valid, monitor=base.monitor)
        self.weight = base.weight  # type: ignore[method-assign]

    def loss(self, forward: Any, batch: Any) -> Any:
        return forward.logits(forward.features(batch["train"].x)).sum(1)


class Words(PerSample):
    """Its metrics are no numbers."""

    def loss(self, forward: Any, batch: Any) -> Any:
        return super().loss(forward, batch).sum()

    def validate(self, outputs: Any) -> Any:
        return ["good"]


class Sum(PerSample):
    """A loss that would do, and attributes that would not."""

    def __init__(self, base: Supervised, **attributes: Any) -> None:
        super().__init__(base)
        self.validate = base.validate  # type: ignore[method-assign]
        for name, value in attributes.items():
            setattr(self, name, value)

    def loss(self, forward: Any, batch: Any) -> Any:
        return super().loss(forward, batch).sum()


class Detached(Sum):
    def loss(self, forward: Any, batch: Any) -> Any:
        return super().loss(forward, batch).detach()


class Mapped(torch.nn.Module):
    """A teacher whose output is no tensor."""

    def forward(self, x: Any) -> Any:
        return {"logits": x}


def without_rows(base: Supervised) -> Objective:
    return Sum(base, frozen={"teacher": torch.nn.Sequential(torch.nn.Flatten(0), torch.nn.Linear(8 * 3 * 16 * 16, 4))})


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (
            lambda base: Sum(base, projector=torch.nn.Linear(8, 4)),
            OptionError,
            "projector has parameters that would neither",
        ),
        (lambda base: Sum(base, frozen={"twin": base.model}), OptionError, "frozen 'twin' shares parameters with what trains"),
        (lambda base: Sum(base, frozen=[torch.nn.Linear(1, 1)]), OptionError, "frozen is list; give a mapping"),
        (
            lambda base: Sum(base, frozen={"teacher": Mapped()}),
            OptionError,
            "frozen 'teacher' of the objective returned dict",
        ),
        (without_rows, OptionError, r"frozen 'teacher' of the objective returned a tensor of shape \(4,\)"),
        (lambda base: Sum(base, seperable=False), OptionError, "seperable has no meaning; did you mean 'separable'"),
        (lambda base: Sum(base, monitor="acuracy"), OptionError, r"returned .*accuracy.*monitor is 'acuracy'.*did you mean 'accuracy'"),
        (Detached, TrainingError, r"returned a number without gradient"),
        ("coral", OptionError, "objective is the name 'coral'.*in Python give an object"),
        (Unfinished, OptionError, r"does not call super\(\).__init__"),
        (PerSample, TrainingError, r"loss\(\) of .* returned a tensor of shape \(8,\); it must return the sum"),
        (Words, OptionError, r"validate\(\) of .* returned \['good'\]; it must return a dict of numbers"),
    ],
)
def test_the_usual_mistakes_in_an_objective_are_named(make: Any, error: type[Exception], told: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=told):
        model().fit(images(24), images(12, seed=1), out=tmp_path, objective=make, **OPTIONS)


class Shrunk(torch.nn.Module):
    """The pixels of images that are read at twice the size in other units, at the size of the student's."""

    inputs = Image(size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3))
    width = 3 * 16 * 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (3, 32, 32)
        scale = [torch.tensor(values).view(3, 1, 1) for values in (self.inputs.std, self.inputs.mean)]
        return torch.nn.functional.avg_pool2d(x * scale[0] + scale[1], 2).flatten(1)


@pytest.mark.parametrize("options", [{"augment": "light"}, {"augment": "none"}, {"augment": "light", "cache_gb": 1e-6}])
def test_a_frozen_module_with_inputs_of_its_own_gets_the_same_views_in_its_own_size(options: dict[str, Any], tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)
    for index in range(12):  # large enough that both sizes would be decoded at scales of their own
        folder = tmp_path / "data" / NAMES[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.stack([np.tile(ramp, (1024, 1)), np.tile(ramp[:, None], (1, 1024)), np.full((1024, 1024), 20 * index)], 2)
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.jpg")
    net, gaps, spreads = model(), list[float](), list[float]()
    scale = [torch.tensor(values).view(3, 1, 1) for values in (net.inputs.std, net.inputs.mean)]  # type: ignore[union-attr]

    class Watching(Sum):
        def loss(self, forward: Any, batch: Any) -> torch.Tensor:
            one = batch["train"]
            seen, wanted = one.x * scale[0] + scale[1], one.frozen["teacher"].view(-1, 3, 16, 16)
            gaps.append(float((seen - wanted).abs().max()))
            spreads.append(float(seen[:, 0].mean((1, 2)).std()))
            return super().loss(forward, batch)

    objective = partial(Watching, frozen={"teacher": Shrunk()})
    net.fit(tmp_path / "data", False, out=tmp_path / "run", objective=objective, **OPTIONS | options)
    assert len(gaps) >= 3
    assert max(gaps) < 0.06
    assert (max(spreads) > 0.02) == (options["augment"] == "light")  # crops that differ


def test_random_numbers_of_the_users_function_change_nothing(tmp_path: Path) -> None:
    nets = [model(), model()]
    for net, function in zip(nets, (None, lambda record: torch.rand(record["epoch"])), strict=True):
        net.fit(images(24), images(12, seed=1), out=tmp_path / str(function is None), on_epoch=function, **OPTIONS)
    assert difference(values(nets[0]), values(nets[1])) == 0.0


def test_a_source_has_at_least_one_view_and_a_loss_with_parameters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="views of a Source is 0"):
        zoo.Source(open_data(images(3)), views=0)
    with pytest.raises(OptionError, match="loss has parameters, which would not train"):
        model().fit(images(24), False, out=tmp_path, loss=torch.nn.Linear(4, 1), **OPTIONS)

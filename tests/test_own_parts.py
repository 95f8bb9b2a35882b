"""What people bring without a plugin: a network, a head, a loss, metrics, an augmentation, a logger, datasets of other forms."""

from __future__ import annotations

import inspect
import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import zoo
from tests.engine.tiny import NAMES, difference, images, model, timeless, values
from zoo.data.open import open_data
from zoo.engine.options.config import OPTIONS
from zoo.engine.options.own_parts import own_metrics
from zoo.errors import DataError, DeclarationError, LayerGroupError, OptionError, SavedModelError
from zoo.tasks.find import BUILTIN

pytestmark = pytest.mark.usefixtures("toys")
FIT: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "epochs": 2, "quiet": True}


class Own(nn.Module):
    """A network that no plugin knows."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) * self.scale


def wrapped(width: int = 6, **options: Any) -> zoo.Backbone:
    torch.manual_seed(0)
    return zoo.wrap(Own(width), inputs=zoo.Image(size=16), **options)


def test_a_network_of_ones_own_trains_saves_and_opens_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = wrapped()
    assert backbone.groups.names == ("first", "second")
    assert (backbone.spec.features.dim, backbone.spec.features.layout) == (6, "BCHW")
    net = backbone.adapt(3)
    run = net.fit(images(24), images(12, seed=1), out=tmp_path / "run", **FIT)
    assert "zoo.load(folder, backbone=zoo.wrap(…))" in caplog.text
    loaded = zoo.load(run.dir, backbone=wrapped())
    assert np.array_equal(loaded.predict_proba(images(6)[0]), net.predict_proba(images(6)[0]))
    assert loaded.labels == NAMES
    with pytest.raises(SavedModelError, match=r"network of your own.*backbone=zoo\.wrap"):
        zoo.load(run.dir)
    with pytest.raises(SavedModelError, match="network of your own"):
        zoo.get(run.dir)
    with pytest.raises(SavedModelError, match="another network"):
        zoo.load(run.dir, backbone=wrapped(8))


def test_adapting_leaves_the_wrapped_module_as_it_is(tmp_path: Path) -> None:
    backbone = wrapped()
    before = values(backbone._module)  # type: ignore[attr-defined]  # of a wrapped one
    backbone.adapt(3).fit(images(24), False, out=tmp_path, **FIT)
    assert difference(before, values(backbone._module)) == 0.0  # type: ignore[attr-defined]


class Low(torch.nn.Module):
    """A network with names like those of LoRA."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_A = torch.nn.Conv2d(3, 2, 1)
        self.lora_B = torch.nn.Conv2d(2, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lora_B(self.lora_A(x))  # type: ignore[no-any-return]  # a tensor


def test_a_network_of_ones_own_may_have_names_like_those_of_lora(tmp_path: Path) -> None:
    def wrapped() -> zoo.Backbone:
        return zoo.wrap(Low(), inputs=zoo.Image(size=8), features=zoo.Features(dim=4, layout="BCHW"))

    model = wrapped().adapt(2).eval()
    again = zoo.load(model.save(tmp_path / "saved"), backbone=wrapped())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(x), model(x))


def test_a_run_of_ones_own_network_is_resumed(tmp_path: Path) -> None:
    whole = wrapped().adapt(3)
    whole.fit(images(24), images(12, seed=1), out=tmp_path, **FIT)
    again = wrapped().adapt(3)
    again.fit(images(24), images(12, seed=1), out=tmp_path, resume=True, **FIT)
    assert difference(values(whole), values(again)) == 0.0


def test_every_recipe_takes_a_wrapped_network(tmp_path: Path) -> None:
    for recipe in ("lp-ft", "gradual", "top", "layer-decay", "linear-probe", "bitfit", "lora"):
        run = wrapped().adapt(3).fit(images(24), images(12, seed=1), out=tmp_path / recipe, **FIT | {"recipe": recipe, "epochs": 3})
        assert sum(record["phase"] != "refit-bias" for record in run.history) == 3


def test_what_cannot_be_wrapped_says_why() -> None:
    with pytest.raises(OptionError, match=r"takes a torch\.nn\.Module, not int"):
        zoo.wrap(3, inputs=16)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=r"fails on a batch of shape \(1, 1, 16, 16\)"):
        zoo.wrap(Own(), inputs=zoo.Image(size=16, mean=(0.5,), std=(0.5,)))
    with pytest.raises(LayerGroupError, match=r"'frist'.*did you mean 'first'") as caught:
        wrapped(layers={"stem": ["scale", "frist"], "top": "second"}).groups  # noqa: B018  # bound when asked for
    assert "zoo layers" not in str(caught.value), "the command knows no networks of one's own"
    with pytest.raises(OptionError, match=r"has no option 'in_chans'"):
        wrapped().adapt(3, in_chans=1)
    with pytest.raises(OptionError, match="no child with parameters"):
        zoo.wrap(nn.Identity(), inputs=16, features=zoo.Features(dim=3, layout="BCHW"))


@pytest.mark.parametrize("options", [{}, {"pool": "max"}, {"pool": "none"}])
def test_a_head_of_ones_own(options: dict[str, str], tmp_path: Path) -> None:
    def head() -> nn.Module:
        torch.manual_seed(1)
        flat = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if options.get("pool") == "none" else []
        return nn.Sequential(*flat, nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))

    net = zoo.get("toy/net", weights=False).adapt(3, head=head(), seed=0, **options)
    run = net.fit(images(24), images(12, seed=1), out=tmp_path / "run", **FIT | {"recipe": "lp-ft"})
    loaded = zoo.load(run.dir, head=head())
    assert np.array_equal(loaded.predict_proba(images(6)[0]), net.predict_proba(images(6)[0]))
    with pytest.raises(SavedModelError, match="head is a module of your own: head=module"):
        zoo.load(run.dir)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (nn.Linear(7, 3), r"fails on features of shape \(2, 8\)"),
        (nn.Linear(8, 4), r"gives \(2, 4\) for 2 samples; num_classes=3 needs \(2, 3\)"),
        (nn.Linear, r"head is Linear; give a name, or a torch\.nn\.Module"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_before_training(head: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        zoo.get("toy/net", weights=False).adapt(3, head=head)


def test_a_head_is_copied_so_that_two_models_do_not_share_it(tmp_path: Path) -> None:
    head = nn.Linear(8, 3)
    before = values(head)
    zoo.get("toy/net", weights=False).adapt(3, head=head).fit(images(24), False, out=tmp_path, **FIT)
    assert difference(before, values(head)) == 0.0


def test_a_single_linear_layer_as_a_head() -> None:
    net = zoo.get("toy/net", weights=False).adapt(2, head=nn.Linear(8, 2))
    assert net(torch.zeros(3, 3, 16, 16)).shape == (3, 2)


def test_the_named_losses_are_those_of_the_field() -> None:
    ops = pytest.importorskip("torchvision.ops")
    logits, classes = torch.randn(7, 4, dtype=torch.float64), torch.arange(7) % 4
    labels = (torch.rand(7, 4) > 0.5).double()
    single, multi, numbers = BUILTIN["single-label"].losses, BUILTIN["multi-label"].losses, BUILTIN["regression"].losses
    p = logits.softmax(1).gather(1, classes[:, None])[:, 0]
    assert torch.allclose(single["focal"](logits, classes), (-((1 - p) ** 2) * p.log()).sum())
    assert torch.allclose(single["poly"](logits, classes), (-p.log() + 1 - p).sum())
    assert torch.allclose(multi["focal"](logits, labels), ops.sigmoid_focal_loss(logits, labels, alpha=-1, gamma=2, reduction="sum"))
    one_hot = functional.one_hot(classes, 4).double()
    assert torch.allclose(single["bce"](logits, classes), functional.binary_cross_entropy_with_logits(logits, one_hot) * 7)
    q = logits.sigmoid()
    shifted = (q - 0.05).clamp(min=0)
    expected = -(labels * q.log() + (1 - labels) * shifted**4 * (1 - shifted).log()).sum()
    assert torch.allclose(multi["asymmetric"](logits, labels), expected)
    targets = torch.randn(7, 4, dtype=torch.float64)
    assert torch.allclose(numbers["huber"](logits, targets), functional.huber_loss(logits, targets, reduction="sum"))


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task in ("single-label", "multi-label", "regression") for name in BUILTIN[task].losses]
)
def test_every_named_loss_trains_and_is_validated_by(task: str, name: str, tmp_path: Path) -> None:
    pixels, labels = images(24)
    data = {
        "single-label": (pixels, labels),
        "multi-label": (pixels, [[int(label == other) for other in NAMES] for label in labels]),
        "regression": (pixels, [float(NAMES.index(label)) for label in labels]),
    }[task]
    net = model(1 if task == "regression" else 3, task=task)
    run = net.fit(data, data, out=tmp_path, loss=name, **FIT | {"epochs": 6})
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    assert "loss" in run.metrics


def test_a_misspelt_loss_and_one_of_another_task_are_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"'focl' \(did you mean 'focal'\?\)"):
        model().fit(images(24), loss="focl", quiet=True)
    with pytest.raises(OptionError, match="where the task is single-label, it is one of: cross-entropy"):
        model().fit(images(24), loss="huber", quiet=True)


def test_a_loss_of_ones_own_is_the_same_as_the_tasks_where_it_is_the_same(tmp_path: Path) -> None:
    def own(logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, reduction="none")

    nets = model(), model()
    runs = [
        net.fit(images(24), images(12, seed=1), out=tmp_path / str(number), **FIT, **options)
        for number, (net, options) in enumerate(zip(nets, ({}, {"loss": own}), strict=True))
    ]
    assert difference(values(nets[0]), values(nets[1])) < 1e-5
    assert runs[1].metrics["loss"] == pytest.approx(runs[0].metrics["loss"], abs=1e-5)
    assert "test_own_parts" in json.loads((runs[1].dir / "run.json").read_text())["own"]["loss"]


def test_a_loss_that_gives_no_value_per_sample_is_told_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"shape \(\) for a batch of 8; give one value per sample"):
        model().fit(images(24), False, out=tmp_path, loss=functional.cross_entropy, **FIT)
    with pytest.raises(OptionError, match="do not depend on the logits"):
        model().fit(images(24), False, out=tmp_path, loss=lambda x, y: functional.cross_entropy(x.detach(), y, reduction="none"), **FIT)
    with pytest.raises(OptionError, match=r"loss is the class CrossEntropyLoss; give an object"):
        model().fit(images(24), False, out=tmp_path, loss=nn.CrossEntropyLoss, **FIT)
    with pytest.raises(OptionError, match="label_smoothing: a loss of your own"):
        model().fit(images(24), False, loss=lambda x, y: x.sum(1), label_smoothing=0.1, quiet=True)


def test_a_run_is_not_resumed_with_a_loss_of_other_settings(tmp_path: Path) -> None:
    def weighted(weight: float) -> Any:
        return lambda x, y: weight * functional.cross_entropy(x, y, reduction="none")

    model().fit(images(24), False, out=tmp_path, loss=weighted(1.0), **FIT)
    model().fit(images(24), False, out=tmp_path, loss=weighted(1.0), resume=True, **FIT)
    with pytest.raises(SavedModelError, match=r"own\.loss was .*\[1\.0\]' and is .*\[2\.0\]'"):
        model().fit(images(24), False, out=tmp_path, loss=weighted(2.0), resume=True, **FIT)


def test_own_metrics_are_scikit_learns_and_choose_the_epoch(tmp_path: Path) -> None:
    from sklearn.metrics import cohen_kappa_score, log_loss, top_k_accuracy_score

    metrics = {
        "kappa": cohen_kappa_score,
        "logloss": log_loss,  # lower is better, as scikit-learn's names of this ending say
        "top2": lambda y, p: top_k_accuracy_score(y, p, k=2, labels=range(3)),
    }
    net = model()
    run = net.fit(images(24), images(12, seed=1), out=tmp_path, metrics=metrics, monitor="logloss", **FIT | {"epochs": 4})
    scores = [record["logloss"] for record in run.history]
    assert run.history[run.kept - 1]["logloss"] == min(scores)
    assert run.metrics["logloss"] == pytest.approx(run.metrics["loss"], abs=1e-5)
    found = net.evaluate(images(12, seed=1), metrics={"kappa": cohen_kappa_score})
    expected = cohen_kappa_score(images(12, seed=1)[1], net.predict(images(12, seed=1)[0]))
    assert found["kappa"] == pytest.approx(expected) == pytest.approx(run.metrics["kappa"])
    assert (tmp_path / "curves.png").is_file()
    assert "kappa" in (tmp_path / "metrics.jsonl").read_text()


def test_names_of_metrics_may_be_joined_by_commas_as_on_the_command_line(tmp_path: Path) -> None:
    net, held_out = model(), images(12, seed=1)
    run = net.fit(images(24), held_out, out=tmp_path, metrics="mcc, kappa", **FIT | {"epochs": 1})
    assert {"mcc", "kappa"} <= set(run.metrics)
    assert {"mcc", "kappa"} <= set(net.evaluate(held_out, metrics="mcc,kappa"))


def test_a_metric_that_is_always_1_is_refused_before_training_with_the_number_of_classes(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    net, data = model(), images(24)
    calls = (
        lambda: net.fit(data, data, metrics=["top_9"], out=tmp_path / "run", **FIT),
        lambda: net.evaluate(data, metrics="mcc,top_9"),
        lambda: zoo.select.cross_validate(net, data, metrics=["top_9"], out=tmp_path / "cv", **FIT),
        lambda: zoo.select.cross_validate(net, data, metric="top_9", out=tmp_path / "cv", **FIT),
        lambda: zoo.select.tune(net, data, metrics="top_9", out=tmp_path / "tune", trials=1, quiet=True),
    )
    for call in calls:
        with pytest.raises(OptionError, match="'top_9' is always 1, as the model has 3 classes"):
            call()
    assert not list(tmp_path.iterdir())


def test_an_own_metric_that_is_undefined_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = model().fit(images(24), images(12, seed=1), out=tmp_path, metrics={"ratio": lambda y, p: float("nan")}, **FIT | {"epochs": 3})
    assert all("ratio" not in record for record in run.history)
    assert sum("'ratio' is nan" in record.getMessage() for record in caplog.records) == 1


def test_faults_of_own_parts_and_of_options_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        model().fit(images(24), False, out=tmp_path, **FIT | {"metrics": {"kappa": 3}, "monitor": "kappa", "loss": "focl", "on_epoch": 1})
    assert all(fact in str(caught.value) for fact in ("'kappa' is 3", "did you mean 'focal'", "on_epoch is 1"))
    assert "monitor" not in str(caught.value)


def test_scikit_learns_metrics_are_given_what_they_mean() -> None:
    from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

    logits, targets = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    p = BUILTIN["single-label"].probabilities(logits)
    assert p is not None
    functions = {"auc": roc_auc_score, "ap": average_precision_score, "brier": brier_score_loss, "f1": f1_score}
    found = own_metrics(functions, BUILTIN["single-label"], logits, targets)
    assert found["auc"] == roc_auc_score(targets, p[:, 1])
    assert found["ap"] == average_precision_score(targets, p[:, 1])
    assert found["brier"] == pytest.approx(brier_score_loss(targets, p[:, 1]))
    assert found["f1"] == f1_score(targets, p.argmax(1))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"metrics": {"accuracy": len}}, "'accuracy' is taken"),
        ({"metrics": {"kappa": 3}}, "'kappa' is 3; give a function"),
        ({"metrics": [len]}, "or a mapping"),
        ({"metrics": {"kappa": len}, "monitor": "kapa"}, r"did you mean 'kappa'"),
        ({"on_epoch": 3}, "on_epoch is 3"),
        ({"log_with": "tensorbord"}, "did you mean 'tensorboard'"),
        ({"metrics": {"kappa": lambda y, p: 1 / 0}}, "'kappa' failed with ZeroDivisionError"),
    ],
)
def test_parts_of_no_use_are_refused(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=told):
        model().fit(images(24), images(12, seed=1), out=tmp_path, **FIT, **options)


def brighten(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(random.uniform(0.5, 1.5))


def noisy(image: Image.Image) -> np.ndarray[Any, Any]:
    return (np.asarray(image) * np.random.uniform(0.5, 1)).astype(np.uint8)


def as_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    return pixels * torch.rand(())


@pytest.mark.parametrize("function", [brighten, noisy, as_tensor])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_augmentation_of_ones_own_draws_by_the_runs_seed(function: Any, workers: int, tmp_path: Path) -> None:
    nets = []
    for number, seed in enumerate((0, 0, 1)):
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        before = random.getstate()
        net = model()
        net.fit(images(24), False, out=tmp_path / str(number), augment=function, seed=seed, workers=workers, **FIT)
        assert random.getstate() == before
        nets.append(net)
    assert difference(values(nets[0]), values(nets[1])) == 0.0
    plain = model()
    plain.fit(images(24), False, out=tmp_path / "plain", augment="none", workers=workers, **FIT)
    assert difference(values(nets[0]), values(plain)) > 0.0


def test_an_augmentation_that_normalises_or_fails_is_named(tmp_path: Path) -> None:
    def normalised(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 64 - 2

    def broken(image: Image.Image) -> Image.Image:
        raise KeyError(image.mode)

    with pytest.raises(DataError, match=r"values in \[-2, .*\], not in \[0, 1\]"):
        model().fit(images(24), False, out=tmp_path, augment=normalised, **FIT)
    with pytest.raises(DataError, match=r"augmentation .*broken failed with KeyError: 'RGB'"):
        model().fit(images(24), False, out=tmp_path, augment=broken, **FIT)


def test_torchvisions_transforms_are_augmentations(tmp_path: Path) -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    chain = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.4), v2.RandomResizedCrop(16)])
    run = model().fit(images(24), images(12, seed=1), out=tmp_path, augment=chain, mixup=0.2, **FIT)
    assert len(run.history) == 2


def test_an_augmentation_is_not_frozen_by_the_cache_of_a_frozen_prefix(tmp_path: Path) -> None:
    seen: list[int] = []

    def watched(image: Image.Image) -> Image.Image:
        seen.append(1)
        return image

    model().fit(images(24), False, out=tmp_path, augment=watched, freeze=1, cache=True, **FIT)
    assert len(seen) == 2 * 24


def test_a_transform_for_a_loop_of_ones_own_is_ours() -> None:
    net = model()
    picture = Image.fromarray(images(1)[0][0])
    assert torch.equal(net.transform()(picture), net.transform(train=True, augment="none")(picture))
    varied = net.transform(train=True, seed=3)
    assert not torch.equal(varied(picture), varied(picture))
    assert torch.equal(net.transform(train=True, seed=3)(picture), net.transform(train=True, seed=3)(picture))
    logits = net.eval()(net.transform()(picture)[None]).softmax(1)
    assert logits.detach().numpy() == pytest.approx(net.predict_proba([picture]), abs=1e-6)


def test_trackers_and_a_function_get_each_line_of_the_history(tmp_path: Path) -> None:
    from accelerate.tracking import GeneralTracker

    class Tracker(GeneralTracker):
        name, requires_logging_directory, tracker = "own", False, None

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[tuple[int, dict[str, Any]]] = []
            self.config: dict[str, Any] = {}
            self.finished = False

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.config = values

        def log(self, values: dict[str, Any], step: int, **_: Any) -> None:
            self.lines.append((step, values))

        def finish(self) -> None:
            self.finished = True

    tracker, records = Tracker(), list[dict[str, Any]]()
    run = model().fit(
        images(24), images(12, seed=1), out=tmp_path, log_with=[tracker], on_epoch=records.append, average=0.5, **FIT | {"epochs": 3}
    )
    assert timeless(records) == timeless(run.history)
    assert [step for step, _ in tracker.lines] == [record["epoch"] for record in run.history]
    assert tracker.lines[0][1]["accuracy"] == run.history[0]["accuracy"]
    assert tracker.config["lr"] == 1e-2
    assert tracker.finished


def test_a_tracker_that_fails_costs_a_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from accelerate.tracking import GeneralTracker

    class Broken(GeneralTracker):
        name, requires_logging_directory, tracker = "broken", False, None

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            pass

        def log(self, values: dict[str, Any], step: int, **_: Any) -> None:
            raise ConnectionError("no network")

    run = model().fit(images(24), images(12, seed=1), out=tmp_path, log_with=Broken(), **FIT)
    assert len(run.history) == 2
    assert "tracker broken failed: ConnectionError: no network" in caplog.text


class Dicts(Dataset[Any]):
    def __init__(self, image: str = "image", label: str = "label") -> None:
        self.keys, (self.pixels, self.names) = (image, label), images(24)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= 24:
            raise IndexError
        return {self.keys[0]: Image.fromarray(self.pixels[index]), "other": 0, self.keys[1]: NAMES.index(self.names[index])}


class Triples(Dicts):
    def __getitem__(self, index: int) -> Any:
        item = super().__getitem__(index)
        return item[self.keys[0]], item[self.keys[1]], {"name": str(index)}


def test_datasets_of_dicts_and_of_longer_tuples_are_read() -> None:
    expected = [NAMES.index(name) for name in images(24)[1]]
    for dataset in (Dicts(), Dicts("pixel_values", "labels"), Triples()):
        table = open_data(dataset)
        assert np.asarray(table.targets).tolist() == expected
        assert table.inputs[3].size == (16, 16)
    with pytest.raises(DataError, match="dicts with the keys 'picture', 'other', 'label'"):
        open_data(Dicts("picture"))


def test_a_data_loader_is_taken_apart_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        table = open_data(DataLoader(Dicts(), batch_size=4, shuffle=True))
    assert len(table) == 24
    assert "of the DataLoader its dataset is read" in caplog.text
    with pytest.raises(DataError, match=r"sampler WeightedRandomSampler is not read.*balanced_sampling=True"):
        open_data(DataLoader(Dicts(), sampler=WeightedRandomSampler([1.0] * 24, 24)))
    with pytest.raises(DataError, match="collate_fn"):
        open_data(DataLoader(Dicts(), collate_fn=lambda items: items))
    pairs = TensorDataset(torch.zeros(4, 3, 16, 16), torch.arange(4))
    assert len(open_data(DataLoader(pairs, batch_size=2))) == 4


def test_fit_names_every_option_so_that_editors_complete_it() -> None:
    parameters = inspect.signature(zoo.TaskModel.fit).parameters
    named = {name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    beside = {"recipe", "budget", "out", "resume", "quiet", "objective", "baselines", "metrics", "log_with", "on_epoch"}
    assert named == {*OPTIONS} | beside
    assert all(parameters[name].annotation is not inspect.Parameter.empty for name in named)
    with pytest.raises(OptionError, match=r"no option 'epoch' \(did you mean 'epochs'\?\)"):
        model().fit(images(24), epoch=3)

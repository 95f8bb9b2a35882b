"""Distillation: its losses against formulas and reference numbers, what it teaches, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import zoo
import zoo.builtin
from tests.clean import ROOT
from tests.engine.rank_work import PLAIN, PlainPlugin, plain, sentences, text
from tests.engine.tiny import NAMES, count_samples, difference, images, model, values
from tests.toy_text import ToyTextPlugin
from tests.transfer.cases import taught, teacher
from zoo import cli
from zoo.data.open import open_data
from zoo.declare import Features, Image
from zoo.engine.options.recipe import Phase, Recipe
from zoo.errors import DataError, OptionError, SavedModelError, UnknownBackboneError
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.registry.registry import Registry, use_registry
from zoo.tasks.find import find_task
from zoo.transfer import Distill
from zoo.transfer.distillation import losses
from zoo.transfer.distillation.classes import shared_classes
from zoo.transfer.distillation.feature_maps import common_grid, feature_map, on_grid, project
from zoo.transfer.distillation.output_file import read_outputs

REFERENCE = ROOT.parent / "shared" / "reference"
OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "quiet": True, "epochs": 2, "augment": "none", "workers": 0}


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin(), PlainPlugin()], files=[]))
    yield
    use_registry()


def fit(out: Path, net: TaskModel, method: Any, train: Any = None, valid: Any = False, **options: Any) -> Any:
    return net.fit(images(24) if train is None else train, valid, out=out, objective=method, **OPTIONS | options)


def main(words: list[str]) -> Any:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    return stop.value.code


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


# ---- Losses


def test_soft_targets_equal_the_reference() -> None:
    if not (REFERENCE / "transfer_case.npz").is_file():
        pytest.skip("the reference numbers are not beside this checkout (../shared/reference)")
    case, told = np.load(REFERENCE / "transfer_case.npz"), json.loads((REFERENCE / "transfer_case.json").read_text())
    student, wanted = (torch.from_numpy(case[name]) for name in ("logits_s", "logits_t"))
    # The number is the divergence itself; the loss has the factor 16, the squared temperature, which keeps gradients alike.
    assert float(losses.soft_targets(student, wanted, 4.0).mean()) == pytest.approx(16 * told["kd_T4"], rel=1e-4)
    plain_kl = nn.functional.kl_div((student / 4).log_softmax(1), (wanted / 4).softmax(1), reduction="batchmean")
    assert float(plain_kl) == pytest.approx(told["kd_T4"], rel=1e-4)


def test_soft_labels_are_soft_targets_of_each_label_and_its_contrary() -> None:
    student, wanted = features(5, 3), features(5, 3, seed=1)
    each = [losses.soft_targets(*(torch.stack([x[:, k], torch.zeros(5)], 1) for x in (student, wanted)), temperature=2.0) for k in range(3)]
    assert torch.allclose(losses.soft_labels(student, wanted, 2.0), torch.stack(each).mean(0), atol=1e-6)


def test_attention_equals_its_formula() -> None:
    one, other = features(4, 3, 2, 5).numpy(), features(4, 6, 2, 5, seed=1).numpy()

    def rows(x: Any) -> Any:
        energy = (x**2).sum(1).reshape(4, -1)
        return energy / np.linalg.norm(energy, axis=1, keepdims=True)

    wanted = ((rows(one) - rows(other)) ** 2).sum(1)
    assert np.allclose(losses.attention_gap(torch.from_numpy(one), torch.from_numpy(other)), wanted, rtol=1e-5)


def test_relations_equal_their_formulas_and_ignore_scale_and_width() -> None:
    one, other = features(5, 3).double(), features(5, 7, seed=1).double()

    def huber(gap: Any) -> float:
        gap = np.abs(gap)
        return float(np.where(gap < 1, gap**2 / 2, gap - 0.5).mean())

    def distances(x: Any) -> Any:
        found = np.linalg.norm(x[:, None] - x[None], axis=2)
        return found / found[found > 0].mean()

    def cosines(x: Any) -> Any:
        gap = x[None] - x[:, None]
        unit = gap / np.maximum(np.linalg.norm(gap, axis=2, keepdims=True), 1e-12)
        return np.einsum("ijd,ikd->ijk", unit, unit)

    assert float(losses.distance_relations(one, other)) == pytest.approx(huber(distances(one.numpy()) - distances(other.numpy())), rel=1e-4)
    assert float(losses.angle_relations(one, other)) == pytest.approx(huber(cosines(one.numpy()) - cosines(other.numpy())), rel=1e-4)
    assert float(losses.distance_relations(one, 3 * one)) < 1e-10
    same = features(4, 3)
    same[1] = same[0]  # two equal samples: their distance is 0, whose root has no gradient
    same.requires_grad_()
    (losses.distance_relations(same, features(4, 3, seed=2)) + losses.angle_relations(same, features(4, 3, seed=2))).backward()
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("relations", [losses.distance_relations, losses.angle_relations])
def test_relations_keep_their_digits_under_autocast_and_far_from_zero(relations: Callable[..., torch.Tensor]) -> None:
    wanted = features(6, 16)
    found = wanted + 0.1 * features(6, 16, seed=1)
    exact = float(relations(found, wanted))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(relations(found + 5, wanted + 5)) == pytest.approx(exact, rel=1e-2)
    assert float(relations(found + 300, wanted + 300)) == pytest.approx(exact, rel=2e-2)


def test_maps_of_tokens_and_of_channels_last_are_those_of_channels_first() -> None:
    x = features(2, 5, 4, 6)
    image = Image(size=(8, 12))
    tokens = torch.cat([features(2, 1, 5), x.flatten(2).transpose(1, 2)], 1)
    declared = dataclasses.replace(PLAIN, features=Features(dim=5, layout="BND", prefix_tokens=1), inputs=image)
    assert torch.equal(feature_map((tokens,), declared, image), x)
    declared = dataclasses.replace(PLAIN, features=Features(dim=5, layout="BHWC"), inputs=image)
    assert torch.equal(feature_map(x.movedim(1, -1), declared, image), x)
    grid = common_grid((4, 6), (2, 8))
    assert grid == (2, 6)
    assert torch.allclose(on_grid(x, grid), x.unflatten(2, (2, 2)).mean(3))
    assert torch.allclose(on_grid(x, common_grid((4, 6), (3,))), x.mean((2, 3)))


# ---- Teachers


def agreement(net: TaskModel, wanted: TaskModel, names: tuple[str, ...] = NAMES) -> float:
    """Return the mean divergence of a student's probabilities from a teacher's on data of its own."""
    pixels = images(60, seed=9)[0]
    assert wanted.labels is not None
    order = [list(wanted.labels).index(name) for name in names]
    found, theirs = net.predict_proba(pixels), wanted.predict_proba(pixels)[:, order]
    theirs /= theirs.sum(1, keepdims=True)
    return float((theirs * np.log(theirs / found)).sum(1).mean())


def mute(pixels: Any) -> tuple[Any, list[str]]:
    """Return images with labels that say nothing."""
    return pixels, [NAMES[index % 3] for index in np.random.default_rng(3).permutation(len(pixels))]


def test_a_student_takes_over_what_the_labels_do_not_say_and_not_with_weight_0(tmp_path: Path) -> None:
    wise = model(seed=7)
    wise.fit(images(60), False, out=tmp_path / "wise", **OPTIONS | {"epochs": 6})
    data, gaps = mute(images(60, seed=2)[0]), {}
    for name, method in {
        "taught": Distill(wise, weight=1.0, temperature=2.0),
        "alone": None,
        "ablated": Distill(wise, weight=0, features="stem", feature_weight=0.0),
    }.items():
        net = plain()
        fit(tmp_path / name, net, method, data, epochs=6)
        gaps[name] = agreement(net, wise)
    assert gaps["taught"] < 0.25 * gaps["alone"]
    assert gaps["ablated"] == pytest.approx(gaps["alone"], rel=1e-4)


@pytest.mark.parametrize("form", ["folder", "npz", "csv", pytest.param("parquet", marks=pytest.mark.sweep)])
def test_a_teacher_on_disk_teaches_what_the_model_does(form: str, tmp_path: Path) -> None:
    wise = plain(labels=("red", "green", "blue"), seed=1)
    with torch.no_grad():
        wise.head.linear.weight.mul_(20)  # type: ignore[operator,union-attr]  # a linear head
    pixels, labels = images(24)
    path = tmp_path / (f"outputs.{form}" if form != "folder" else "saved")
    if form == "folder":
        wise.save(path)
    elif form == "npz":
        np.savez(path, logits=np.log(wise.predict_proba(pixels)), labels=np.array(wise.labels))
    else:
        wise.predict_to_file(pixels, path)
    nets = [plain(), plain()]
    for net, method, out in zip(nets, (Distill(wise), Distill(str(path))), ("model", "disk"), strict=True):
        fit(tmp_path / out, net, method, (pixels, labels))
    assert difference(values(nets[0]), values(nets[1])) < 1e-4


def test_rows_of_a_file_are_found_by_name_and_missing_ones_are_told(tmp_path: Path) -> None:
    import PIL.Image

    for index, (pixels, label) in enumerate(zip(*images(12), strict=True)):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(folder / f"{index}.png")
    wise, data = taught(), tmp_path / "data"
    wise.predict_to_file(data, tmp_path / "teacher.csv")
    head, *lines = (tmp_path / "teacher.csv").read_text().splitlines()
    (tmp_path / "shuffled.csv").write_text("\n".join([head, *reversed(lines)]))
    (tmp_path / "short.csv").write_text("\n".join([head, *lines[2:]]))
    nets = [plain(), plain()]
    for net, path in zip(nets, ("teacher", "shuffled"), strict=True):
        fit(tmp_path / path, net, Distill(tmp_path / f"{path}.csv"), data)
    assert difference(values(nets[0]), values(nets[1])) == 0.0
    with pytest.raises(DataError, match=r"short.csv' has no row for 2 of the 12 samples of .*: '.*png', '.*png'; its rows are named"):
        fit(tmp_path / "short", plain(), Distill(tmp_path / "short.csv"), data)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("broken.npz", b"PK\x03\x04 cut off", "is no whole .npz archive"),
        ("empty.npz", b"", "cannot be read: it is empty"),
        ("array.npz", b"\x93NUMPY\x01\x00", "is no whole .npz archive"),
        ("empty.csv", b"", "cannot be read: it is empty"),
        ("ragged.csv", b"input,probability_a,probability_b\nx,0.5,0.5\ny,0.5\n\n", "has 3 columns, and line 3 has 2, line 4 has 0"),
        ("words.csv", b"input,probability_a\nx,high\n", "cannot be read: could not convert string to float: 'high'"),
    ],
)
def test_a_broken_file_of_a_teacher_is_told_with_its_fault(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_outputs(tmp_path / name, find_task("single-label"))


def test_the_teacher_sees_each_sample_once_and_learns_nothing(tmp_path: Path) -> None:
    wise = taught()
    before, seen = values(wise), count_samples(wise.backbone)
    fit(tmp_path, plain(), Distill(wise, unlabelled=images(9, seed=4)[0]), epochs=3)
    assert seen == [2 + 24 + 9]  # two to find shapes
    assert difference(before, values(wise)) == 0.0


def test_images_without_labels_help_where_few_have_one(tmp_path: Path) -> None:
    wise = model(seed=7)
    wise.fit(images(60), False, out=tmp_path / "wise", **OPTIONS | {"epochs": 6})
    dark, gaps = (images(6, seed=2)[0] // 4, images(6)[1]), []
    for more in (None, images(60, seed=5)[0]):
        net = plain()
        fit(tmp_path / str(more is None), net, Distill(wise, weight=1.0, unlabelled=more), dark, epochs=30)
        gaps.append(agreement(net, wise))
    assert gaps[1] < 0.5 * gaps[0]


def test_labels_of_a_table_given_as_unlabelled_are_not_read(tmp_path: Path) -> None:
    pixels, nets = images(12, seed=4)[0], [plain(), plain()]
    named = open_data((pixels, [f"other {row % 5}" for row in range(12)]))
    for net, more in zip(nets, (pixels, named), strict=True):
        fit(tmp_path / str(more is named), net, Distill(taught(), unlabelled=more), epochs=1)
    assert difference(values(nets[0]), values(nets[1])) == 0.0


def test_features_come_nearer_to_the_teachers_and_without_their_weight_they_do_not(tmp_path: Path) -> None:
    wise, ratios = teacher().eval(), {}
    pixels = open_data(images(30, seed=8)).inputs

    def gap(objective: Any) -> float:
        with torch.no_grad():
            maps = [one.eval().backbone(torch.stack([one.transform()(x) for x in pixels])) for one in (objective.model, wise)]
            own, theirs = (on_grid(x, (8, 8)) for x in maps)
            return float(losses.hint(project(objective.module["projections"][0], own), theirs).mean())

    for weight in (0.0, 30.0):
        made: list[Any] = []

        def make(base: Any, weight: float = weight, made: list[Any] = made) -> Any:
            made.append(Distill(wise, weight=0, features={"stage.2": "stage.1"}, feature_weight=weight)(base))
            made.append(gap(made[0]))
            return made[0]

        fit(tmp_path / str(weight), plain(), make, epochs=20, lr=3e-2)
        ratios[weight] = gap(made[0]) / made[1]
    assert ratios[30.0] < 0.4, f"{ratios}"
    assert ratios[0.0] > 0.7, ratios


# ---- Tokens


class TinyViT(nn.Module):
    """A vision transformer of one block with a class token and a distillation token."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(1, 2, 8) / 4)
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        return self.block(torch.cat([self.tokens.expand(len(x), -1, -1), patches], 1))  # type: ignore[no-any-return]


def tiny_vit() -> TinyViT:
    return TinyViT()


def distilled_vit() -> TaskModel:
    declared = dataclasses.replace(
        PLAIN,
        name="toy/vit",
        build="tests.transfer.test_distill:tiny_vit",
        layers={"stem": ["tokens", "patch"], "block": "block"},
        features=Features(dim=8, layout="BND", pool="token", prefix_tokens=2),
    )
    return Backbone(declared, weights=False).adapt(3, labels=NAMES)


@pytest.mark.parametrize("kind", ["hard", pytest.param("soft", marks=pytest.mark.sweep)])
def test_a_distillation_token_learns_the_teacher_while_the_class_token_learns_labels(kind: str, tmp_path: Path) -> None:
    wise = taught()
    made: list[Any] = []

    def make(base: Any) -> Any:
        made.append(Distill(wise, token=kind, temperature=1.0)(base))
        return made[-1]

    pixels, labels = images(60)
    net = distilled_vit()
    fit(tmp_path, net, make, (pixels, labels), epochs=25)
    assert net.evaluate((pixels, labels))["accuracy"] > 0.9
    x = open_data(pixels, labelled=False)
    with torch.no_grad():
        batch = torch.stack([net.transform()(one) for one in x.inputs])
        found = made[0]._token_head(net.backbone(batch)[:, 1]).argmax(1)
    assert wise.labels is not None
    order = [list(wise.labels).index(name) for name in NAMES]
    theirs = wise.predict_proba(pixels)[:, order].argmax(1)
    assert (found.numpy() == theirs).mean() > 0.8
    assert (theirs == [NAMES.index(label) for label in labels]).mean() < 0.7  # the teacher says something else


# ---- Tasks, texts and numbers


def test_a_teacher_of_texts_reads_them_with_its_own_tokens(tmp_path: Path) -> None:
    wise = text()
    wise.fit(sentences(33), False, out=tmp_path / "wise", **OPTIONS | {"augment": None})
    wise.inputs = dataclasses.replace(wise.inputs, max_length=12)
    net = zoo.get("toy/text", weights=False, depth=1).adapt(2)
    run = fit(tmp_path / "run", net, Distill(wise, features="layer.0:layer.1"), sentences(33), sentences(13, 1), augment=None)
    assert np.isfinite(run.metrics["accuracy"])
    with pytest.raises(OptionError, match=r"attention: layer.0:layer.1 have no places in common \(texts have none\)"):
        fit(tmp_path / "no", net, Distill(wise, attention="layer.0:layer.1"), sentences(33), augment=None)


@pytest.mark.parametrize("task", ["regression", pytest.param("multi-label", marks=pytest.mark.sweep)])
def test_numbers_and_labels_are_taken_over_in_their_own_unit(task: str, tmp_path: Path) -> None:
    pixels, labels = images(60)
    targets: Any = (
        [[1000.0 + 50 * NAMES.index(label), -len(label) / 10] for label in labels]
        if task == "regression"
        else [[label] for label in labels]
    )
    wise = plain(2 if task == "regression" else 3, task=task)
    wise.fit((pixels, targets), False, out=tmp_path / "wise", **OPTIONS | {"epochs": 8})
    rng = np.random.default_rng(0)
    mixed = [targets[index] for index in rng.permutation(len(targets))]
    net, gaps = plain(2 if task == "regression" else 3, task=task), {}
    for name, method in {"taught": Distill(wise, weight=1.0), "alone": None}.items():
        net = plain(2 if task == "regression" else 3, task=task)
        fit(tmp_path / name, net, method, (pixels, mixed), epochs=8)
        found, theirs = (np.asarray(one.predict(pixels) if task == "regression" else one.predict_proba(pixels)) for one in (net, wise))
        gaps[name] = float((np.abs(found - theirs) / (theirs.std(0) + 1e-6)).mean())
    assert gaps["taught"] < 0.5 * gaps["alone"]


# ---- Classes


def test_classes_are_matched_by_name_and_missing_ones_listed() -> None:
    found = shared_classes(("a", "b"), ("c", "b", "a"), 3, partly=False)
    assert (found.student, found.teacher) == ((0, 1), (2, 1))
    with pytest.raises(DataError, match=r"does not know 2 of the student's 4 classes: 'cat', 'dag' \(did you mean 'dog'\?\).*other 2"):
        shared_classes(("a", "b", "cat", "dag"), ("a", "b", "dog"), 3, partly=False)
    assert shared_classes(("a", "b", "cat"), ("b", "a"), 2, partly=True).teacher == (1, 0)
    with pytest.raises(DataError, match="2 outputs without names"):
        shared_classes(("a", "b", "c"), None, 2, partly=True)
    with pytest.raises(DataError, match="does not know 2 of the student's 2 classes"):
        shared_classes(("a", "b"), ("c", "d"), 2, partly=True, least=2)


def test_with_shared_classes_samples_of_others_have_labels_alone(tmp_path: Path) -> None:
    wise = plain(2, labels=("red", "blue"), seed=1)
    with torch.no_grad():
        wise.head.linear.weight.mul_(20)  # type: ignore[operator,union-attr]  # a linear head
    with pytest.raises(DataError, match="does not know 1 of the student's 3 classes: 'green'"):
        fit(tmp_path / "all", plain(), Distill(wise))
    pixels, labels = images(24)
    green = [index for index, label in enumerate(labels) if label == "green"]
    changed = pixels.copy()
    changed[green] = 255 - changed[green]
    nets = [plain(), plain()]
    for net, data in zip(nets, (pixels, changed), strict=True):
        fit(tmp_path / str(data is pixels), net, Distill(wise, weight=1.0, classes="shared"), (data, labels))
    assert difference(values(nets[0]), values(nets[1])) == 0.0  # with weight 1 they teach nothing at all


# ---- Mistakes


def ensemble() -> TaskModel:
    return zoo.Ensemble([plain(labels=NAMES), plain(labels=NAMES)])


@pytest.mark.parametrize(
    ("method", "error", "told"),
    [
        (lambda: Distill(taught, weight=0.5), OptionError, "teacher is function; give a TaskModel"),
        (lambda: Distill("outs.npz"), DataError, "the file 'outs.npz' does not exist; write it with: numpy.savez"),
        (lambda: Distill("outs.csv"), DataError, "the file 'outs.csv' does not exist; write it with: zoo predict"),
        (lambda: Distill("toy/nothing"), UnknownBackboneError, "toy/nothing"),
        (lambda: Distill("toy/plain"), OptionError, "its head has random values: toy/plain is not trained for this task"),
        (lambda: Distill(plain(2, task="regression"), weight=0.3), OptionError, "its head has random values|its task is regression"),
        (lambda: Distill(taught(), features="stagee.1"), OptionError, r"the student has no layer group 'stagee.1' \(did you mean 'stage"),
        (lambda: Distill(taught(), attention="stage.2"), OptionError, "attention: the teacher has no layer group 'stage.2'"),
        (lambda: Distill(taught(), features=[3]), OptionError, r"features is \[3\]; give layer groups as"),
        (lambda: Distill(taught(), token="hard"), OptionError, "toy/plain has no distillation token"),
        (lambda: Distill(text(), weight=0, features="stem:layer.0"), OptionError, "it reads text, and the student image"),
        (lambda: Distill(ensemble(), features="stem"), OptionError, "an ensemble has logits alone"),
    ],
)
def test_what_cannot_be_learned_is_told_before_anything_trains(
    method: Callable[[], Distill], error: type[Exception], told: str, tmp_path: Path
) -> None:
    net = plain()
    before = values(net)
    with pytest.raises(error, match=told):
        fit(tmp_path, net, method())
    assert difference(before, values(net)) == 0.0


def test_pairs_that_never_train_are_named(tmp_path: Path) -> None:
    method = Distill(taught(), features="stem,stage.1,stage.2:stage.1", attention="stem")
    with pytest.raises(OptionError) as caught:
        fit(tmp_path, plain(), method, freeze=3)
    told = str(caught.value)
    assert "features: the student's groups of stem:stem, stage.1:stage.1 never train" in told
    assert "attention: the student's groups of stem:stem never train" in told
    assert "stage.2" not in told


def test_a_head_of_the_labels_is_not_where_a_taught_one_starts_or_ends(tmp_path: Path) -> None:
    probe, all_of_it = Phase(name="probe", frozen="all", solve=True), Phase(name="all")
    ends = Recipe(name="ends", phases=(all_of_it, probe))
    with pytest.raises(OptionError, match="recipe: 'ends' ends with the optimum of the labels, in place of the head taught"):
        fit(tmp_path / "half", plain(), Distill(taught(), weight=0.5), recipe=ends)
    pixels, labels = images(24)
    for name, recipe in (("starts", Recipe(name="starts", phases=(probe, all_of_it))), ("ends", ends)):
        nets = [plain(), plain()]
        for net, own in zip(nets, (labels, labels[1:] + labels[:1]), strict=True):
            fit(tmp_path / f"{name}-{own is labels}", net, Distill(taught(), weight=1.0), (pixels, own), recipe=recipe)
        assert difference(values(nets[0]), values(nets[1])) == 0.0, name  # the labels are left out


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        Distill("x", temperature=0, weight=2, angle_weight=-1, token="hart", classes="shard")
    told = str(caught.value)
    for part in ("temperature is 0", "weight is 2", "angle_weight is -1", "token is 'hart' (did you mean 'hard'?)", "classes is 'shard'"):
        assert part in told
    with pytest.raises(OptionError, match="nothing is learned from the teacher"):
        Distill("x", weight=0)
    with pytest.raises(OptionError, match=r"Distill has no option 'temprature' \(did you mean 'temperature'\?\)"):
        Distill("x", temprature=2)  # type: ignore[call-arg]


# ---- Command line and record


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images, and a saved teacher of them."""
    import PIL.Image

    for split, seed in (("train", 0), ("val", 1)):
        for index, (pixels, label) in enumerate(zip(*images(12, seed), strict=True)):
            folder = tmp_path / split / label
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    plain(labels=NAMES, seed=1).fit("train", False, out="teacher", **OPTIONS | {"epochs": 1})
    return tmp_path


def test_the_command_line_and_a_file_make_the_same_run_and_others_do_not_go_on_with_it(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "toy/plain", "train", "--valid", "val", "--recipe", "full", "--epochs", "1", "--quiet", "--set", "augment=none"]
    chosen = ["--objective", "distill", "--set", "teacher=teacher", "--set", "temperature=2", "--set", "classes=shared"]
    chosen += ["--set", "features=stage.0:stage.1"]
    assert main([*words, *chosen, "--out", "flags"]) == 0
    (desk / "run.toml").write_text(
        'objective = "distill"\naugment = "none"\n[objective_options]\nteacher = "teacher"\ntemperature = 2\nclasses = "shared"\n'
        'features = {"stage.0" = "stage.1"}\n'
    )
    assert main([*words[:-2], "--config", "run.toml", "--out", "file"]) == 0
    one, other = (zoo.load(desk / name) for name in ("flags", "file"))
    assert difference(values(one), values(other)) == 0.0
    record = json.loads((desk / "flags" / "run.json").read_text())["objective"]
    assert (record["name"], record["temperature"], record["classes"]) == ("distill", 2, "shared")
    assert len(record["teacher"]["sha256"][0]) == 64
    capsys.readouterr()
    assert main([*words, *chosen, "--set", "weight=0.9", "--out", "flags", "--resume"]) != 0
    told = capsys.readouterr().err
    assert "the objective distill.weight was 0.5 and is 0.9" in told
    assert "temperature" not in told
    assert main(["plan", *words[1:], *chosen]) == 0
    assert "estimated" in capsys.readouterr().out
    assert main([*words, "--objective", "distil", "--out", "x"]) == 2
    assert main([*words, "--objective", "distill", "--out", "x"]) == 2
    assert "teacher is missing; give --set teacher=VALUE" in capsys.readouterr().err


def test_a_long_list_is_recorded_by_its_digest() -> None:
    short, long = (Distill("x", unlabelled=[f"{index}.png" for index in range(count)]).describe()["unlabelled"] for count in (3, 99))
    assert short == ["0.png", "1.png", "2.png"]
    assert (long["length"], len(long["sha256"])) == (99, 64)


def test_a_changed_teacher_does_not_go_on_with_a_run(desk: Path) -> None:
    fit(desk / "run", plain(), Distill("teacher"), "train")
    plain(labels=NAMES, seed=2).save("teacher", overwrite=True)
    with pytest.raises(SavedModelError, match=r"(?s)cannot go on.*objective distill.teacher.sha256"):
        fit(desk / "run", plain(), Distill("teacher"), "train", resume=True)

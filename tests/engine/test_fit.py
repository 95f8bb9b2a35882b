from __future__ import annotations

import json
import multiprocessing
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.engine.tiny import NAMES, SAVED, count_samples, difference, images, model, timeless, values
from zoo.engine.objective import supervised
from zoo.engine.options.recipe import Phase, Recipe
from zoo.errors import DataError, OptionError, OutputExistsError, TrainingError, UnknownGroupError
from zoo.registry.registry import Registry


def fit(task_model: Any, out: Path, *data: Any, **options: Any) -> Any:
    data = data or (images(24), images(12, seed=1))
    return task_model.fit(*data, out=out, quiet=True, **({"batch_size": 8, "epochs": 2, "recipe": "full"} | options))


def test_a_fit_learns_keeps_its_best_epoch_and_leaves_a_saved_model(tmp_path: Path, toys: Registry) -> None:
    net = model()
    run = fit(net, tmp_path / "run", epochs=12, lr=1e-2, augment="none")
    assert run.metrics["accuracy"] > 0.9
    assert run.metrics["accuracy"] == max(record["accuracy"] for record in run.history)
    assert net.labels == NAMES
    found = net.evaluate(images(12, seed=1))  # which also has the calibration error
    assert {name: found[name] for name in run.metrics} == pytest.approx(run.metrics, abs=1e-6)
    assert zoo.load(run.dir).predict(images(6)[0]) == net.predict(images(6)[0])


@pytest.mark.usefixtures("drawn")
def test_a_run_folder_tells_all_that_was_decided(tmp_path: Path) -> None:
    run = fit(model(), tmp_path / "run")
    told = json.loads((run.dir / "run.json").read_text())
    lines = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    assert lines == run.history
    assert told["config"]["recipe"]["name"] == "full"
    assert told["data"]["train"]["classes"] == dict.fromkeys(NAMES, 8)
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0] or told["versions"]["torch"] == torch.__version__
    assert (told["threads"], told["device"]) == (torch.get_num_threads(), told["device"])
    assert (run.dir / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("recipe", ["linear-probe", "full", "layer-decay", "lp-ft"])
def test_equal_seeds_are_bit_equal_and_others_are_not(recipe: str, tmp_path: Path) -> None:
    nets = [model() for _ in range(3)]
    runs = [fit(net, tmp_path / str(i), recipe=recipe, seed=seed) for i, (net, seed) in enumerate(zip(nets, (0, 0, 1), strict=True))]
    assert difference(values(nets[0]), values(nets[1])) == 0.0
    assert timeless(runs[0].history) == timeless(runs[1].history)
    assert difference(values(nets[0]), values(nets[2])) > 0.0


def test_the_callers_random_state_mode_and_gradients_are_left_as_they_were(tmp_path: Path) -> None:
    net = model().eval()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    fit(net, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[2]
    assert not net.training
    assert net.frozen == 0


def test_the_head_on_cached_features_equals_the_head_on_a_frozen_backbone(tmp_path: Path) -> None:
    nets = [model(head="mlp", hidden=4), model(head="mlp", hidden=4)]
    runs = [
        fit(net, tmp_path / str(cache), recipe="linear-probe", epochs=3, cache=cache)
        for net, cache in zip(nets, (True, False), strict=True)
    ]
    assert difference(values(nets[0]), values(nets[1])) < 1e-6
    for one, other in zip(*(run.history for run in runs), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-6)
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)


def test_a_probe_runs_the_backbone_once_per_sample(tmp_path: Path) -> None:
    net, seen = model(), [0]
    net.backbone.register_forward_hook(lambda _module, args, _output: seen.__setitem__(0, seen[0] + len(args[0])))
    fit(net, tmp_path / "run", recipe="linear-probe", epochs=5)
    assert seen[0] == 24 + 12 + SAVED


def test_a_frozen_prefix_runs_once_and_training_behind_it_is_the_same(tmp_path: Path) -> None:
    nets, runs = [model(), model()], []
    seen = [count_samples(net.backbone.get_submodule("conv1")) for net in nets]
    for net, cache in zip(nets, (True, False), strict=True):
        runs.append(fit(net, tmp_path / str(cache), recipe="full", freeze="stage.0", epochs=4, augment="none", cache=cache))
    assert seen[1] == [4 * (24 + 12) + SAVED]
    assert seen[0][0] <= 24 + 12 + 5 * 4 + SAVED, "beside the trial on four samples, the prefix ran more than once"
    assert difference(values(nets[0]), values(nets[1])) < 1e-5
    for one, other in zip(*(run.history for run in runs), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_a_prefix_that_does_not_fit_is_computed_every_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="zoo")
    fit(model(), tmp_path / "run", recipe="full", freeze="stem", epochs=2, augment="none", cache_gb=1e-6)
    assert "cache_gb allows" in caplog.text


def test_views_are_cached_too(tmp_path: Path) -> None:
    net, seen = model(), [0]
    net.backbone.register_forward_hook(lambda _module, args, _output: seen.__setitem__(0, seen[0] + len(args[0])))
    run = fit(net, tmp_path / "run", recipe="linear-probe", epochs=6, views=3, augment="light")
    assert seen[0] == 3 * 24 + 12 + SAVED
    plain = fit(model(), tmp_path / "plain", recipe="linear-probe", epochs=6)
    assert run.history[-1]["train_loss"] != plain.history[-1]["train_loss"]


@pytest.mark.parametrize(
    "options", [{"recipe": "linear-probe"}, {"recipe": "linear-probe", "augment": "light"}, {"freeze": "stage.1"}, {"freeze": "all"}]
)
def test_a_frozen_backbone_is_bit_equal_afterwards_and_the_head_moved(options: dict[str, Any], tmp_path: Path) -> None:
    net = model()
    before = values(net)
    fit(net, tmp_path / "run", **options)
    after = values(net)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(before["head.linear.weight"], after["head.linear.weight"])


def test_a_prefix_that_the_user_froze_stays_frozen_through_a_fit(tmp_path: Path) -> None:
    net = model().freeze("stem")
    before = values(net)
    fit(net, tmp_path / "run")
    after = values(net)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(("backbone.conv1", "backbone.bn1")) for name in moved)
    assert "backbone.blocks.0.conv.weight" in moved
    assert net.frozen == 1


def test_phases_unfreeze_what_they_say_when_they_say(tmp_path: Path) -> None:
    phases = (Phase(name="head", frozen="all"), Phase(name="top", frozen="stage.0"), Phase(name="rest"))
    moved = []
    for epochs in (1, 2, 3):
        net = model()
        before = values(net)
        fit(net, tmp_path / str(epochs), images(24), False, recipe=Recipe(name="gradual", phases=phases[:epochs], lr=1e-2), epochs=epochs)
        after = values(net)
        moved.append({name for name in before if "conv" in name and not torch.equal(before[name], after[name])})
    assert moved == [
        set(),
        {"backbone.blocks.1.conv.weight"},
        {"backbone.blocks.1.conv.weight", "backbone.blocks.0.conv.weight", "backbone.conv1.weight"},
    ]


def test_without_validation_data_the_last_epoch_is_kept(tmp_path: Path) -> None:
    run = fit(model(), tmp_path / "run", images(), False)
    assert run.metrics == {}
    assert run.kept == 2
    assert "accuracy" not in run.history[-1]


def test_a_phase_without_improvement_ends_early(tmp_path: Path) -> None:
    run = fit(model(), tmp_path / "run", recipe="lp-ft", epochs=20, lr=1e-30, freeze="all", patience=2, solve_head=False)
    phases = [record["phase"] for record in run.history]
    assert phases == ["probe"] * 3 + ["full"] * 2


def test_class_weights_and_balanced_draws_change_what_is_learned(tmp_path: Path) -> None:
    pixels, labels = images(30)
    rows = [i for i, label in enumerate(labels) if label != "red" or i < 4]
    data = pixels[rows], [labels[i] for i in rows]
    losses = [
        fit(model(), tmp_path / str(i), data, images(12, seed=1), **options).history[-1]["train_loss"]
        for i, options in enumerate(
            [{}, {"class_weights": "balanced"}, {"balanced_sampling": True}, {"class_weights": {"blue": 1, "green": 2, "red": 9}}]
        )
    ]
    assert len(set(losses)) == 4


def test_class_weights_must_cover_the_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'gren' is no class \(did you mean 'green'\?\)[\s\S]*'green' has no weight"):
        fit(model(), tmp_path / "run", class_weights={"blue": 1, "gren": 2, "red": 9})


def test_accumulated_batches_equal_one_large_batch_without_batch_statistics(tmp_path: Path) -> None:
    nets = [model(), model()]
    for net, (size, parts) in zip(nets, ((8, 1), (4, 2)), strict=True):
        fit(net, tmp_path / str(size), recipe="linear-probe", batch_size=size, accumulate=parts)
    assert difference(values(nets[0]), values(nets[1])) < 1e-6


@pytest.mark.parametrize(
    "options",
    [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}, {"label_smoothing": 0.2}, {"erase": 1.0}, {"clip_grad": 0.01}],
)
def test_every_switch_changes_the_run_and_keeps_it_deterministic(options: dict[str, Any], tmp_path: Path) -> None:
    plain = fit(model(), tmp_path / "plain").history
    runs = [fit(model(), tmp_path / name, **options).history for name in ("one", "two")]
    assert timeless(runs[0]) == timeless(runs[1])
    assert timeless(runs[0]) != timeless(plain)


def test_loader_workers_do_not_change_a_run(tmp_path: Path) -> None:
    runs = [fit(model(), tmp_path / str(workers), workers=workers).history for workers in (0, 2)]
    assert timeless(runs[0]) == timeless(runs[1])


def test_multi_label_keeps_the_best_mean_average_precision(tmp_path: Path) -> None:
    pixels, names = images(24)
    labels = [[name, "bright"] if i % 2 else [name] for i, name in enumerate(names)]
    net = model(4, task="multi-label")
    run = fit(
        net,
        tmp_path / "run",
        (pixels, labels),
        (pixels, labels),
        epochs=6,
        lr=1e-2,
        class_weights="balanced",
        label_smoothing=0.1,
        mixup=0.1,
    )
    assert run.monitor == "map"
    assert run.metrics["map"] == max(record["map"] for record in run.history)
    assert net.labels == ("blue", "bright", "green", "red")
    assert all(isinstance(row, tuple) and set(row) <= set(net.labels) for row in net.predict(pixels))


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_a_regression_learns_in_any_unit_and_predicts_in_it(unit: float, tmp_path: Path) -> None:
    pixels, names = images(30)
    targets = [unit * (100 + NAMES.index(name)) for name in names]
    net = model(1, task="regression")
    run = fit(net, tmp_path / "run", (pixels, targets), (pixels, targets), epochs=30, lr=2e-2, augment="none")
    assert run.metrics["mae"] < 0.4 * unit
    assert run.metrics["mae"] == min(record["mae"] for record in run.history)
    assert net.evaluate((pixels, targets))["mae"] == pytest.approx(run.metrics["mae"], rel=0.05)
    again = fit(net, tmp_path / "again", (pixels, targets), (pixels, targets), epochs=1, lr=1e-9, augment="none")
    assert again.metrics["mae"] < 1.5 * run.metrics["mae"] + 0.1 * unit


def test_the_number_of_classes_must_agree_and_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 classes \(blue, green, red\)[\s\S]*num_classes=5"):
        fit(model(5), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_frozen_group_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UnknownGroupError, match=r"stagee[\s\S]*did you mean"):
        fit(model(), tmp_path / "run", freeze="stagee.0")


def test_a_rate_that_explodes_stops_with_step_samples_and_remedy_and_harms_nothing(tmp_path: Path) -> None:
    net = model()
    with pytest.raises(TrainingError, match=r"not finite in epoch 1 .*step \d+ of 3, samples \d+ \(row \d+\)[\s\S]*Lower lr"):
        fit(net, tmp_path / "run", lr=1e30, epochs=2, augment="none", warmup=0)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())


def test_inputs_that_are_not_finite_never_reach_the_model(tmp_path: Path) -> None:
    inputs = [torch.zeros(3, 16, 16) for _ in range(12)]
    inputs[5][0, 0, 0] = float("nan")
    net = model(2)
    before = values(net)
    data = inputs, ["a", "b"] * 6
    with pytest.raises(zoo.ZooError, match="finite"):
        fit(net, tmp_path / "run", data, data, batch_size=12)
    assert difference(before, values(net)) == 0.0


def test_an_image_size_is_used_and_travels_with_the_model(tmp_path: Path) -> None:
    net, shapes = model(), set()
    net.backbone.register_forward_hook(lambda _module, args, _output: shapes.add(tuple(args[0].shape[1:])))
    run = fit(net, tmp_path / "run", image_size=(20, 24))
    assert shapes == {(3, 20, 24)}
    assert net.inputs.shape == (3, 20, 24)
    assert json.loads((run.dir / "config.json").read_text())["zoo"]["inputs"]["size"] == [20, 24]


def test_a_backbone_of_fixed_size_says_how_to_build_it_for_another(tmp_path: Path) -> None:
    net = model()
    net.inputs = zoo.Image(size=16, fixed_size=True)
    with pytest.raises(OptionError, match=r"zoo.get\('toy/net', img_size=32\)"):
        fit(net, tmp_path / "run", image_size=32)


def test_an_output_that_holds_something_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="not empty"):
        fit(model(), tmp_path)
    with pytest.raises(OutputExistsError, match="is a file"):
        fit(model(), tmp_path / "kept.txt")
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_without_out_the_next_free_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dirs = [fit(model(), None, epochs=1).dir.as_posix() for _ in range(2)]  # type: ignore[arg-type]
    assert dirs == ["runs/net-full-001", "runs/net-full-002"]


def test_plain_lines_without_a_terminal_and_nothing_when_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(model(), tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    model().fit(images(), images(12, seed=1), recipe="full", epochs=2, batch_size=8, out=tmp_path / "told")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "epoch 1/2" in shown.err
    assert "accuracy" in shown.err


def test_precision_can_change_from_one_fit_to_the_next(tmp_path: Path) -> None:
    runs = [fit(model(), tmp_path / str(i), precision=precision) for i, precision in enumerate(("fp32", "bf16", "fp32"))]
    assert timeless(runs[0].history) == timeless(runs[2].history)
    assert timeless(runs[0].history) != timeless(runs[1].history)
    assert runs[1].history[-1]["train_loss"] == pytest.approx(runs[0].history[-1]["train_loss"], rel=0.1)


@pytest.mark.parametrize("option", [{"class_weights": "balanced"}, {"balanced_sampling": True}, {"label_smoothing": 0.1}])
def test_options_for_classes_are_refused_for_a_regression_before_any_data_are_read(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(option))}: meant for classes"):
        fit(model(1, task="regression"), tmp_path / "run", tmp_path / "no-such-data", **option)
    assert not (tmp_path / "run").exists()


def test_one_of_several_processes_of_an_unknown_launcher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(OptionError, match=r"PMI_SIZE=2.*torchrun"):
        fit(model(), tmp_path / "run")
    monkeypatch.setenv("PMI_SIZE", "1")
    assert fit(model(), tmp_path / "run", epochs=1).kept == 1


def test_the_workers_that_computed_features_are_gone_when_the_head_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, alive = model(), []
    real: Any = type(net.head).logits  # type: ignore[attr-defined]  # heads are plain modules to mypy

    def counting(head: Any, pooled: torch.Tensor) -> Any:
        alive.append(len(multiprocessing.active_children()))
        return real(head, pooled)

    monkeypatch.setattr(type(net.head), "logits", counting)
    fit(net, tmp_path / "run", recipe="linear-probe", workers=2, augment="light", views=2)
    assert alive
    assert set(alive) == {0}


def test_views_are_the_same_where_there_is_no_room_to_keep_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = []
    for limit in (1e-6, 1.0):  # what was kept once would be taken from there
        net = model()
        options: dict[str, Any] = {"freeze": "stem", "views": 3, "augment": "light", "epochs": 4, "cache_gb": limit}
        with caplog.at_level("INFO", "zoo"):
            fit(net, tmp_path / str(limit), recipe="full", **options)
        made.append(values(net))
    assert "cache_gb allows" in caplog.text
    assert difference(*made) < 1e-5


def test_the_limit_of_what_is_kept_is_on_all_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    view = 24 * 8 * 8 * 8 * 4  # bytes of one view of the training samples behind the first group
    with caplog.at_level("INFO", "zoo"):
        fit(model(), tmp_path / "one", recipe="full", freeze="stem", epochs=2, augment="light", views=2, cache_gb=3 * view / 2**30)
        assert "cache_gb allows" not in caplog.text
        fit(model(), tmp_path / "two", recipe="full", freeze="stem", epochs=2, augment="light", views=3, cache_gb=2.5 * view / 2**30)
    assert "cache_gb allows" in caplog.text


def test_a_run_does_not_mind_how_tf32_was_asked_for(tmp_path: Path) -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert fit(model(), tmp_path / "run", recipe="linear-probe", epochs=1).history
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_a_regression_whose_targets_are_not_scaled_has_a_loss_to_choose_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "measure", lambda *_: None)
    pixels = images(24)[0]
    run = fit(model(1, task="regression"), tmp_path, (pixels, np.arange(24.0)), (pixels, np.arange(24.0)), monitor="loss")
    assert run.history[run.kept - 1]["loss"] == pytest.approx(run.metrics["rmse"] ** 2)


def test_a_window_is_for_scans_and_not_for_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for index, name in enumerate(("blue", "red") * 4):
        (tmp_path / "data" / name).mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.full((16, 16, 3), index, np.uint8)).save(tmp_path / "data" / name / f"{index}.png")
    net = model(2)
    with pytest.raises(OptionError, match="window: it is for DICOM files and volumes"):
        net.fit(tmp_path / "data", out=tmp_path / "run", quiet=True, recipe="linear-probe", window=(40, 400))
    with pytest.raises(OptionError, match="window: it is for DICOM"):
        net.evaluate(tmp_path / "data", window=(40, 400))


def test_statistics_that_were_never_learned_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="freeze_bn: it keeps pretrained statistics, and 'toy/net' starts from random values"):
        model().fit(images(), out=tmp_path / "run", quiet=True, recipe="full", freeze_bn=True)


def test_what_fit_itself_is_given_is_checked_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"(?s)resume is 'no'; it must be True or False.*out is 5; it must be the name of a folder"):
        model().fit("nowhere", out=5, resume="no", recipe="full")


def test_a_run_trains_where_gradients_are_off(tmp_path: Path) -> None:
    before = values(net := model())
    with torch.no_grad():
        net.fit(images(12), False, out=tmp_path / "run", recipe="full", epochs=1, batch_size=4, quiet=True)
    assert difference(values(net), before) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_type_is_refused_with_the_remedy(dtype: torch.dtype, tmp_path: Path) -> None:
    net = model().to(dtype)
    for use in (lambda: net.predict(images(2)[0]), lambda: net.fit(images(12), False, out=tmp_path / "run", quiet=True)):
        with pytest.raises(OptionError, match=rf"parameters of {dtype}; call model.float\(\)"):
            use()
    assert len(net.float().predict(images(2)[0])) == 2


def test_a_monitor_without_a_value_on_the_validation_data_is_refused_before_training(tmp_path: Path) -> None:
    pixels, names = images(24)
    one = [index for index, name in enumerate(names) if name == names[0]]
    valid = (pixels[one], [names[index] for index in one])
    with pytest.raises(DataError, match=rf"monitor='auroc' has no value on the validation data; they have {names[0]} \({len(one)}\)"):
        model().fit(images(24), valid, monitor="auroc", out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()

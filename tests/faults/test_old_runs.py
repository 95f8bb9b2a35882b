"""T10, T11, T12: which epoch is kept, what an odd checkpoint is worth, and a saved model in another process."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.engine.tiny import difference, images, model, values
from tests.faults.fake_dist import fake_dist, run_python
from zoo.data.open import open_data
from zoo.engine.objective import supervised
from zoo.engine.options.model_selection import Best
from zoo.engine.rundir import checkpoint, checkpoint_writer
from zoo.errors import OptionError, SavedModelError
from zoo.tasks.find import BUILTIN
from zoo.util.file_digest import file_digest

OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "epochs": 3, "quiet": True}
NAN = math.nan


def fit(out: Path, net: Any = None, **options: Any) -> Any:
    net = net or model()
    return net, net.fit(open_data(images(24)), open_data(images(12, seed=1)), out=out, **(OPTIONS | options))


# The metric and the loss of each epoch, and the epoch that must be kept.
SCRIPTS: dict[str, tuple[str, list[tuple[float | None, float]], int]] = {
    "the first is NaN": ("accuracy", [(NAN, 0.1), (0.1, 9.0), (0.0, 1.0)], 2),
    "all but the last are NaN": ("auroc", [(NAN, NAN), (NAN, NAN), (0.3, NAN)], 3),
    "a tie goes to the lower loss": ("accuracy", [(0.5, 2.0), (0.5, 1.0), (0.5, 3.0)], 2),
    "a full tie goes to the first": ("accuracy", [(0.5, 2.0)] * 3, 1),
    "a loss that is NaN loses the tie": ("accuracy", [(0.5, NAN), (0.5, 3.0), (0.5, NAN)], 2),
    "an epoch lacks the metric": ("auroc", [(None, 0.1), (0.2, 5.0), (None, 0.1)], 2),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_t10_the_epoch_that_is_kept(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, told, expected = SCRIPTS[script]
    epochs, seen = iter(told), []
    net = model()

    def scripted(*_: Any) -> dict[str, float]:
        seen.append(values(net))
        value, loss = next(epochs)
        return {"loss": loss} | ({} if value is None else {monitor: value})

    monkeypatch.setattr(supervised, "compute_metrics", scripted)
    _, run = fit(tmp_path, net, monitor=monitor)
    assert run.kept == expected
    assert difference(values(net), seen[expected - 1]) == 0.0


@pytest.mark.parametrize(("task", "monitor"), [(name, monitor) for name, task in BUILTIN.items() for monitor in task.monitors])
def test_t10_every_metric_knows_which_way_is_better(task: str, monitor: str) -> None:
    best = Best(monitor, monitor in BUILTIN[task].lower_is_better)
    low, high = ({monitor: value, "loss": value if monitor == "loss" else 1.0} for value in (0.2, 0.8))
    best.update(1, high)
    assert best.update(2, low) == (monitor in BUILTIN[task].lower_is_better)
    assert best.update(3, {monitor: NAN}) is False


def test_t10_a_metric_that_does_not_exist_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'acuracy' \(did you mean 'accuracy'\?\)"):
        fit(tmp_path / "run", monitor="acuracy")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("old") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_writer, "INTERVAL", 0.0)
        fit(out, keep_checkpoints=True)
    return out


def edited(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize("schema", [0, 99, "1", None])
def test_t11_a_checkpoint_of_another_schema_is_refused_with_both(schema: Any, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    edited(max((tmp_path / "run/checkpoint").iterdir()) / "manifest.json", lambda manifest: manifest | {"schema": schema})
    with pytest.raises(SavedModelError, match=rf"schema {schema!r}.*reads 3 and {checkpoint.SCHEMA}"):
        fit(tmp_path / "run", resume=True)


OTHERS: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "another head": (lambda: model(head="mlp", hidden=4), {}, "head was 'linear' and is 'mlp'"),
    "another number of classes": (lambda: model(2), {}, "classes"),
    "another optimizer": (model, {"optimizer": "sgd"}, "optimizer was 'adamw' and is 'sgd'"),
    "another recipe": (model, {"recipe": "linear-probe"}, "recipe"),
    "an average that was not": (model, {"ema": 0.9}, "ema was 0.0 and is 0.9"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_t11_a_run_of_another_making_is_refused_by_what_differs(other: str, run: Path, tmp_path: Path) -> None:
    build, options, told = OTHERS[other]
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(zoo.ZooError, match=told):
        fit(tmp_path / "run", build(), resume=True, **options)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"config": 3}', "{"])
def test_t11_a_description_that_was_edited_by_hand_is_refused_by_its_name(text: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/run.json").write_text(text)
    with pytest.raises(SavedModelError, match=r"run\.json"):
        fit(tmp_path / "run", resume=True)


def test_t11_a_state_that_was_edited_by_hand_counts_as_damage(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(run, tmp_path / "run")
    edited(max((tmp_path / "run/checkpoint").iterdir()) / "state.json", lambda state: state | {"epoch": 1})
    with caplog.at_level(logging.WARNING, "zoo"):
        fit(tmp_path / "run", resume=True)
    assert "state.json" in caplog.text


RELOAD = """
    import sys
    import numpy as np
    import zoo
    model = zoo.load(sys.argv[1])
    pictures = np.random.default_rng(0).integers(0, 255, (8, 40, 30, 3)).astype(np.uint8)
    np.save(sys.argv[2], model.predict_proba(pictures))
    print(model.inputs.size, model.labels)
"""


def test_t12_a_saved_run_gives_the_same_answers_in_a_process_without_plugins(tmp_path: Path) -> None:
    net = zoo.get("zoo/glyphnet").adapt(3)
    net.fit(images(12), valid=False, recipe="full", epochs=1, batch_size=6, image_size=24, out=tmp_path / "run", quiet=True)
    pictures = np.random.default_rng(0).integers(0, 255, (8, 40, 30, 3)).astype(np.uint8)
    code = RELOAD.replace("sys.argv[1]", repr(str(tmp_path / "run"))).replace("sys.argv[2]", repr(str(tmp_path / "out.npy")))
    done = run_python(code, ZOO_PLUGINS_ALLOW="none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(24, 24) ('blue', 'green', 'red')")
    assert float(np.abs(np.load(tmp_path / "out.npy") - net.predict_proba(pictures)).max()) <= 1e-6


PLUGIN = """
    import torch, zoo

    def build():
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))

    @zoo.hookimpl
    def zoo_backbones():
        yield zoo.BackboneSpec(
            name="far/net",
            build="zoo_far:build",
            layers={"all": "0"},
            inputs=zoo.Image(size=8),
            features=zoo.Features(dim=4, layout="BCHW"),
        )
"""


def test_t12_without_the_plugin_that_builds_it_a_saved_model_says_what_to_install(tmp_path: Path) -> None:
    site = fake_dist(tmp_path / "site", "zoo-far", PLUGIN)
    save = f"""
        import torch, zoo
        model = zoo.get("far/net", weights=False).adapt(2, labels=("a", "b")).eval()
        model.save({str(tmp_path / "saved")!r})
        torch.manual_seed(0)
        print(model(torch.rand(1, 3, 8, 8)).tolist())
    """
    load = f"""
        import torch, zoo
        try:
            model = zoo.load({str(tmp_path / "saved")!r})
        except zoo.ZooError as error:
            print(error)
        else:
            torch.manual_seed(0)
            print(model(torch.rand(1, 3, 8, 8)).tolist())
    """
    first = run_python(save, site, warm=True, ZOO_CACHE=str(tmp_path / "cache"))
    assert first.returncode == 0, first.stderr
    assert run_python(load, site, warm=True, ZOO_CACHE=str(tmp_path / "cache")).stdout == first.stdout
    without = run_python(load, warm=True, ZOO_CACHE=str(tmp_path / "cache"))
    assert "zoo-far 1.0" in without.stdout, without
    assert file_digest(tmp_path / "saved/model.safetensors")

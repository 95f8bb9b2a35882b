"""Cross-validation on tiny networks."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from sklearn.model_selection import StratifiedKFold

import zoo.select
from tests.engine.tiny import SAVED, count_samples, difference, images, model, values
from tests.toy_text import toy_text_spec
from zoo.errors import CorruptInputError, InterruptedRunError, OptionError, OutputExistsError, SavedModelError
from zoo.models.backbone import Backbone
from zoo.select.crossval.result import read_result
from zoo.util.process_caches import CACHES

DATA = images(40)


def validated(out: Path, net: Any = None, data: Any = DATA, **options: Any) -> Any:
    settings = {"recipe": "linear-probe", "folds": 5, "batch_size": 8, "quiet": True} | options
    return zoo.select.cross_validate(net or model(), data, out=out, **settings)


def predictions(found: Any) -> list[dict[str, str]]:
    return list(csv.DictReader((found.dir / "predictions.csv").read_text().splitlines()))


def noisy() -> Any:
    """Return data that no model fits, so that scores differ between folds."""
    pixels, names = images(40)
    source = np.random.default_rng(3)
    return source.integers(0, 255, pixels.shape).astype(np.uint8), names


def test_the_folds_of_a_probe_take_one_pass_through_the_backbone(tmp_path: Path) -> None:
    net = model()
    before = values(net)
    seen = count_samples(net.backbone.get_submodule("conv1"))
    found = validated(tmp_path / "cv", net, repeats=2)
    assert len(found.folds) == 10
    assert seen[0] <= 40 + 10 * SAVED, f"{seen[0]} samples went through the backbone for 10 folds of 40 samples"
    assert difference(values(net), before) == 0.0
    assert net.labels is None
    assert found.scores["accuracy"].mean > 0.9


def test_a_held_out_file_that_cannot_be_read_names_the_option_of_runs(tmp_path: Path) -> None:
    for number, (pixels, name) in enumerate(zip(*images(15), strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    next((tmp_path / "data").glob("*/0.png")).write_bytes(b"no picture")
    broken = [path.name for path in sorted((tmp_path / "data").glob("*/*.png"))].index("0.png")
    held = np.array([broken, *(row for row in (1, 6, 11) if row != broken)])
    folds = [(np.setdiff1d(np.arange(15), held), held)] * 2
    with pytest.raises(CorruptInputError, match=r"0\.png.*; on_corrupt='skip'") as caught:
        validated(tmp_path / "cv", data=str(tmp_path / "data"), folds=folds, recipe="full", epochs=1)
    assert "on_error" not in str(caught.value)


def test_an_option_without_effect_is_told_once_for_all_folds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zoo")
    validated(tmp_path / "cv", folds=3, epochs=2)
    assert caplog.text.count("epochs=2 has no effect") == 1


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("recipe", ["linear-probe", "top"])
def test_a_fold_is_a_run_with_the_values_that_the_same_rows_give_alone(recipe: str, tmp_path: Path) -> None:
    found = validated(tmp_path / "cv", folds=4, recipe=recipe, epochs=2, augment="none")
    pixels, names = DATA
    splitter = StratifiedKFold(4, shuffle=True, random_state=0)
    train, held = list(splitter.split(pixels, np.asarray([("blue", "green", "red").index(name) for name in names])))[1]
    CACHES.clear()
    net = model()
    net.fit((pixels[train], [names[row] for row in train]), False, recipe=recipe, epochs=2, augment="none", batch_size=8, quiet=True)
    assert difference(values(zoo.load(found.dir / "fold-1")), values(net)) < 1e-4
    measured = net.evaluate((pixels[held], [names[row] for row in held]))
    metrics = found.folds[1].metrics
    assert metrics == pytest.approx({name: measured[name] for name in metrics}, abs=1e-4)


def test_activations_behind_a_frozen_part_are_computed_once_for_all_folds(tmp_path: Path) -> None:
    net = model()
    seen = count_samples(net.backbone.get_submodule("conv1"))
    validated(tmp_path / "cv", net, recipe="top", epochs=2, augment="none", freeze=2)
    # The features of the first phase, the activations of the second, each fold's trials of the boundary and its predictions.
    assert seen[0] <= 40 + 40 + 5 * 16 + 40 + 5 * SAVED


@pytest.mark.usefixtures("drawn")
def test_the_record_has_predictions_of_every_sample_and_scores_that_follow_from_them(tmp_path: Path) -> None:
    found = validated(tmp_path / "cv", data=noisy(), repeats=2)
    rows = predictions(found)
    assert len(rows) == 80
    assert [row["repeat"] for row in rows] == ["0"] * 40 + ["1"] * 40
    assert [row["input"] for row in rows[:40]] == [f"row {number}" for number in range(40)]
    assert [row["truth"] for row in rows[:40]] == noisy()[1]
    assert all(abs(sum(float(row[f"probability_{name}"]) for name in ("blue", "green", "red")) - 1) < 1e-5 for row in rows)
    for fold in found.folds:
        right = [row["truth"] == row["prediction"] for row in rows if int(row["fold"]) == fold.fold]
        assert fold.metrics["accuracy"] == pytest.approx(np.mean(right))
    assert found.metrics["accuracy"] == pytest.approx(np.mean([row["truth"] == row["prediction"] for row in rows]))
    summary = found.scores["accuracy"]
    assert summary.mean == pytest.approx(np.mean(found.values("accuracy")))
    assert summary.low < summary.mean < summary.high
    told = json.loads((found.dir / "cv.json").read_text())
    assert told["result"]["scores"]["accuracy"]["mean"] == pytest.approx(summary.mean)
    assert told["cv"]["division"] == "stratified by class"
    assert read_result(found.dir) == found
    assert (found.dir / "cv.png").stat().st_size
    assert "10 folds" in repr(found)


@pytest.mark.usefixtures("toys")
def test_an_interrupted_cross_validation_goes_on_at_the_unfinished_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.select.crossval import fold_runs

    ran: list[str] = []
    real = fold_runs.run_job

    def stopping(job: Any, ranks: Any, folder: Path, **more: Any) -> Any:
        ran.append(folder.name)
        if len(ran) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(job, ranks, folder, **more)

    options = {"recipe": "full", "epochs": 2, "folds": 4}
    monkeypatch.setattr(fold_runs, "run_job", stopping)
    with pytest.raises(
        InterruptedRunError, match=r"(after fold 2|fold-2).* Go on with resume=True \(--resume\) and out='.*cv'$"
    ) as stopped:
        validated(tmp_path / "cv", **options)
    assert stopped.value.exit_code == 143
    assert str(tmp_path / "cv") in str(stopped.value)
    assert ran == ["fold-0", "fold-1", "fold-2"]
    with pytest.raises(OutputExistsError, match="resume=True"):
        validated(tmp_path / "cv", **options)
    CACHES.clear()
    found = validated(tmp_path / "cv", resume=True, **options)
    assert ran[3:] in (["fold-2", "fold-3"], ["fold-3"])
    CACHES.clear()
    whole = validated(tmp_path / "whole", **options)
    assert [fold.metrics for fold in found.folds] == [fold.metrics for fold in whole.folds]
    assert difference(values(zoo.load(found.dir / "fold-3")), values(zoo.load(whole.dir / "fold-3"))) == 0.0
    number = len(ran)
    assert validated(tmp_path / "cv", resume=True, **options) == found
    assert len(ran) == number, "a finished cross-validation runs nothing"


def test_another_option_data_or_division_is_refused_all_at_once(tmp_path: Path) -> None:
    validated(tmp_path / "cv", folds=2)
    with pytest.raises(SavedModelError, match=r"(?s)batch_size was 8 and is 4.*folds was 2 and is 4\nGive"):
        validated(tmp_path / "cv", folds=4, batch_size=4, resume=True)
    with pytest.raises(SavedModelError, match="samples was 40 and is 36"):
        validated(tmp_path / "cv", folds=2, data=images(36), resume=True)


def test_a_cross_validation_of_an_earlier_version_goes_on_as_it_began(tmp_path: Path) -> None:
    found = validated(tmp_path / "cv", folds=2)
    record = json.loads((found.dir / "cv.json").read_text())
    del record["config"]["refit_bias"], record["result"]["folds"][1:]
    record["result"]["finished"] = False
    (found.dir / "cv.json").write_text(json.dumps(record))
    shutil.rmtree(found.dir / "fold-1")
    assert len(validated(found.dir, folds=2, resume=True).folds) == 2
    for path in ("cv.json", "fold-1/run.json"):
        assert json.loads((found.dir / path).read_text())["config"]["refit_bias"] is False


def test_inner_validation_chooses_the_epoch_and_the_held_out_fold_does_not(tmp_path: Path) -> None:
    found = validated(tmp_path / "cv", folds=2, recipe="full", epochs=2, inner_valid=True, patience=1)
    record = json.loads((found.dir / "fold-0" / "run.json").read_text())
    assert record["data"]["train"]["samples"] + record["data"]["valid"]["samples"] == found.folds[0].train
    outer = validated(tmp_path / "outer", folds=2)
    assert json.loads((outer.dir / "fold-0" / "run.json").read_text())["data"]["valid"] is None
    with pytest.raises(OptionError, match="patience"):
        validated(tmp_path / "bad", folds=2, patience=1)


def test_bad_arguments_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"there is no metric 'acuracy' \(did you mean 'accuracy'\?\)"):
        validated(tmp_path / "cv", metric="acuracy")
    both = zoo.get("zoo/glyphnet", weights=False).adapt_tasks({"kind": ["a", "b"], "size": ["c", "d"]})
    with pytest.raises(OptionError, match=r"metric is 'kind.acuracy' \(did you mean 'kind/accuracy'\?\)"):
        validated(tmp_path / "cv", both, metric="kind.acuracy")
    with pytest.raises(OptionError, match="name the recipe"):
        validated(tmp_path / "cv", recipe="auto")
    with pytest.raises(OptionError, match="adapt"):
        zoo.select.cross_validate("toy/net", DATA)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(OptionError, match="did you mean 'epochs'"):
        validated(tmp_path / "cv", epoch=3)
    assert not (tmp_path / "cv").exists()


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_other_tasks_are_validated_by_their_own_metric(task: str, tmp_path: Path) -> None:
    pixels, names = images(40)
    numbers = np.asarray([("blue", "green", "red").index(name) for name in names])
    labels = np.eye(3, dtype=np.int64)[numbers].tolist() if task == "multi-label" else numbers.astype(np.float64)
    net = model(3 if task == "multi-label" else 1, task=task)
    seen = count_samples(net.backbone.get_submodule("conv1"))
    found = validated(tmp_path / "cv", net, (pixels, labels))
    assert found.metric == ("map" if task == "multi-label" else "mae")
    assert seen[0] <= 40 + 5 * SAVED
    assert not math.isnan(found.scores[found.metric].low)
    assert (found.dir / "predictions.csv").stat().st_size


@pytest.mark.usefixtures("toys")
def test_rows_of_a_test_split_are_left_out_and_groups_come_from_a_column(tmp_path: Path) -> None:
    import pandas as pd

    pixels, names = images(40)
    frame = pd.DataFrame({"image": list(pixels), "label": names, "patient": [f"p{row // 2}" for row in range(40)]})
    frame["split"] = ["test" if row >= 30 else "train" for row in range(40)]
    found = validated(tmp_path / "cv", data=frame, folds=3, group="patient")
    assert sum(fold.held_out for fold in found.folds) == 30
    rows = predictions(found)
    places = {row["group"]: set[str]() for row in rows}
    for row in rows:
        places[row["group"]].add(row["fold"])
    assert all(len(folds) == 1 for folds in places.values())
    with pytest.raises(zoo.ZooError, match=r"'pateint' \(did you mean 'patient'\?\)"):
        validated(tmp_path / "bad", data=frame, group="pateint")


def test_words_are_predicted_out_of_fold(tmp_path: Path) -> None:
    sentences = [[("red", "blue")[row % 2], f"box{row}"] for row in range(12)]
    labels = [[{"red": "R", "blue": "B"}.get(word, "O") for word in words] for words in sentences]
    net = Backbone(toy_text_spec(), weights=False).adapt(3, task="token-classification")
    found = validated(tmp_path / "cv", net, (sentences, labels), folds=3, epochs=1)
    rows = predictions(found)
    assert len(rows) == 24
    assert [row["row"] for row in rows[:4]] == ["0", "0", "1", "1"]

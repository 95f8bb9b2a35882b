"""Ranking of small real backbones: what is computed once, how it resumes, which limits and faults it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
import zoo.builtin
from tests.toy import ToyNet, toy_spec
from zoo.declare import BackboneSpec, Features
from zoo.errors import CorruptInputError, DataError, DiskFullError, InterruptedRunError, OptionError, SavedModelError, UnknownBackboneError
from zoo.registry.registry import Registry, use_registry
from zoo.select.ranking import finetune, search
from zoo.select.ranking.rank import rank
from zoo.select.ranking.ranking import same_reasons

ALL = ["toy/small", "toy/large"]


class Crashing(ToyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a layer of mine is broken")


class Hungry(ToyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def crashing() -> nn.Module:
    return Crashing()


def hungry() -> nn.Module:
    return Hungry()


def large() -> nn.Module:
    return ToyNet(width=16, depth=3)


class Plugin:
    @zoo.hookimpl
    def zoo_backbones(self) -> list[BackboneSpec]:
        here = "tests.select.ranking.test_rank"
        absent = zoo.Weights(file="/nowhere/model.safetensors", license="mit")
        return [
            toy_spec("toy/small", parameters=1400),
            toy_spec("toy/large", build=f"{here}:large", features=Features(dim=16), parameters=7600, metrics={"imagenet-top1": 70.0}),
            toy_spec("toy/crashing", build=f"{here}:crashing"),
            toy_spec("toy/hungry", build=f"{here}:hungry"),
            toy_spec("toy/absent", weights=absent),
            toy_spec("toy/absent-too", weights=absent),
            toy_spec("toy/third", parameters=1400),
        ]


@pytest.fixture(autouse=True)
def registry(own_cache: Path) -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, Plugin()], files=[]))
    yield
    use_registry()


def pictures(samples: int = 60, seed: int = 0, classes: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    x = rng.integers(0, 120, size=(samples, 16, 16, 3))
    x[np.arange(samples), :, :, y] += 60
    return x.astype(np.uint8), y.astype(str)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The pictures as files, which have an identity beyond this process."""
    for number, (x, y) in enumerate(zip(*pictures(), strict=True)):
        (tmp_path / "photos" / f"class {y}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(tmp_path / "photos" / f"class {y}" / f"{number}.png")
    return tmp_path / "photos"


def ranked(tmp_path: Path, data: Any = None, **options: Any) -> Any:
    options = {"candidates": ALL, "quiet": True, "out": tmp_path / "rank"} | options
    return rank(pictures() if data is None else data, **options)


def test_damaged_files_are_left_out_for_all_candidates_on_demand(tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    clean = ranked(tmp_path, photos, out=tmp_path / "clean")
    (photos / "class 0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(CorruptInputError, match=r"broken\.png.*--set on_corrupt=skip\) leaves out a few"):
        ranked(tmp_path, photos, out=tmp_path / "stopped")
    caplog.clear()
    found = ranked(tmp_path, photos, on_corrupt="skip")
    assert [row.samples for row in found.rows] == [60] * len(ALL) == [row.samples for row in clean.rows]
    assert caplog.text.count("cannot be decoded and is left out") == 1


@pytest.mark.usefixtures("drawn")
def test_candidates_are_ordered_with_intervals_costs_and_scores(tmp_path: Path) -> None:
    found = ranked(tmp_path)
    assert sorted(row.name for row in found.rows) == sorted(ALL)
    for row in found.rows:
        assert row.samples == 60
        assert 0 <= row.probe.low <= row.probe.score <= row.probe.high <= 1
        assert set(row.scores) == {"knn", "logme", "h_score", "regularized_h_score", "transrate"}
        assert row.latency_ms > 0
        assert row.memory > 4 * row.parameters
        assert row.throughput > 0
    assert found.rows[0].probe.score > 0.8, "the mean colour tells the class"
    record = json.loads((tmp_path / "rank" / "rank.json").read_text())
    assert record["best"] == found.best.name
    assert record["rows"][1]["difference"]["low"] <= record["rows"][1]["difference"]["high"]
    assert (tmp_path / "rank" / "rank.png").stat().st_size > 1000


def test_features_are_computed_once_for_later_calls_and_runs(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.engine.cache.passes import Passes
    from zoo.util.process_caches import CACHES

    titles: list[str] = []
    run = Passes.run
    monkeypatch.setattr(Passes, "run", lambda self, *args, **more: (titles.append(args[3]), run(self, *args, **more))[1])
    first = ranked(tmp_path, photos)
    assert titles == ["features"] * 4, "training and validation samples of two candidates"
    CACHES.clear()  # as a new process
    titles.clear()
    again = ranked(tmp_path, photos, out=tmp_path / "again")
    assert titles == []
    assert [row.probe.draws for row in again.rows] == [row.probe.draws for row in first.rows]
    CACHES.clear()
    model = zoo.get("toy/small").adapt(3)
    fitted = model.fit(photos, recipe="linear-probe", out=tmp_path / "probe", quiet=True)
    assert titles == [], "a run finds the features that the ranking has computed"
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "empty"))
    CACHES.clear()
    fresh = zoo.get("toy/small").adapt(3)
    assert fresh.fit(photos, recipe="linear-probe", out=tmp_path / "fresh", quiet=True).metrics == fitted.metrics
    assert titles == ["features"] * 2


def test_candidates_of_one_input_size_decode_once_and_their_rows_are_the_same(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.data.images.transforms import EvalTransform
    from zoo.util.process_caches import CACHES

    names: list[str] = []
    cropped = EvalTransform.cropped
    monkeypatch.setattr(EvalTransform, "cropped", lambda self, source: (names.append(str(source)), cropped(self, source))[1])
    together = ranked(tmp_path, photos)
    assert len(names) == len(set(names)) == 60, "each photo once, for two candidates"
    for row in together.rows:
        CACHES.clear()
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / row.name))
        alone = ranked(tmp_path, photos, candidates=row.name, out=tmp_path / row.name / "rank").rows[0]
        assert (alone.probe.draws, alone.scores) == (row.probe.draws, row.scores)


def test_a_damaged_file_is_computed_again(tmp_path: Path, photos: Path, own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    from zoo.util.process_caches import CACHES

    before = ranked(tmp_path, photos, candidates="toy/small")
    for path in (own_cache / "features").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    CACHES.clear()
    after = ranked(tmp_path, photos, candidates="toy/small", out=tmp_path / "again")
    assert "damaged" in caplog.text
    assert after.best.probe.draws == before.best.probe.draws


def test_an_interrupted_ranking_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[str] = []
    score = search.Search._scored

    def counted(self: Any, backbone: Any, *args: Any) -> Any:
        scored.append(backbone.spec.name)
        if len(scored) == 2:
            self._conditions.stop.signum = 2
        return score(self, backbone, *args)

    monkeypatch.setattr(search.Search, "_scored", counted)
    data = pictures()
    with pytest.raises(InterruptedRunError, match="--resume"):
        ranked(tmp_path, data)
    found = ranked(tmp_path, data, resume=True)
    assert scored == ["toy/small", "toy/large", "toy/large"]
    assert [row.probe.draws for row in found.rows] == [row.probe.draws for row in ranked(tmp_path, data, out=tmp_path / "whole").rows]
    with pytest.raises(SavedModelError, match=r"train data: samples was .* and is "):
        ranked(tmp_path, pictures(seed=1, samples=66), resume=True)
    with pytest.raises(SavedModelError, match=r"train data: content was .* and is "):
        ranked(tmp_path, pictures(seed=1), resume=True)
    with pytest.raises(SavedModelError, match="monitor was None and is 'macro_f1'"):
        ranked(tmp_path, data, resume=True, monitor="macro_f1")
    with pytest.raises(OptionError, match="max_latency_ms is 1e-06 ms and excludes 2"):
        ranked(tmp_path, data, resume=True, max_latency_ms=1e-6)


def test_limits_say_what_they_exclude_and_the_nearest(tmp_path: Path) -> None:
    found = ranked(tmp_path, max_params=2000)
    assert [row.name for row in found.rows] == ["toy/small"]
    assert "7,600 parameters" in found.left_out["toy/large"]
    with pytest.raises(OptionError) as error:
        ranked(tmp_path, max_params=1000, out=tmp_path / "none")
    assert "max_params is 1,000 parameters and excludes 2; the nearest is 'toy/small' with 1,400 parameters" in str(error.value)
    assert not (tmp_path / "none").exists()
    with pytest.raises(OptionError, match="max_latency_ms is 1e-06 ms and excludes 2; the nearest is 'toy/"):
        ranked(tmp_path, max_latency_ms=1e-6, out=tmp_path / "none")
    with pytest.raises(OptionError, match="max_memory is 10 bytes and excludes 2"):
        ranked(tmp_path, max_memory="10B", out=tmp_path / "none")
    with pytest.raises(OptionError) as error:
        ranked(tmp_path, license="permisive", max_params=2000, out=tmp_path / "none")
    assert "is permisive and excludes 2, with the licences: unknown (did you mean 'permissive'?)" in str(error.value)
    assert "max_params is 2,000 parameters and excludes 1; the nearest is 'toy/large'" in str(error.value), (
        "each limit counts all it excludes"
    )


def test_all_wrong_arguments_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as error:
        ranked(
            tmp_path, candidates=["toy/smal"], max_params=-1, max_memory="much", budget="soon", top=-1, task="singel-label", image_sizes=16
        )
    for text in ("toy/small", "max_params is -1", "'500MB'", "'90s'", "top (--top) is -1", "'single-label'", "'image_size'"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_params": -1}, "max_params is -1"),
        ({"max_memory": "much"}, "'500MB'"),
        ({"budget": "soon"}, "'90s'"),
        ({"top": -1}, r"top \(--top\) is -1"),
        ({"image_sizes": 16}, "did you mean 'image_size'"),
        ({"task": "token-classification"}, "one per word"),
        ({"candidates": []}, "candidates is empty"),
        ({"resume": 1}, "resume is 1"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        ranked(tmp_path, **options)
    assert not (tmp_path / "rank").exists()


def test_a_name_or_glob_that_matches_nothing_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackboneError) as error:
        ranked(tmp_path, candidates=["toy/smal", "toy/lrge*", "toy/small"])
    assert "toy/small" in str(error.value)
    assert "toy/lrge*" in str(error.value)


def test_candidates_that_crash_run_out_of_memory_or_have_no_weights_are_left_out(tmp_path: Path) -> None:
    found = ranked(tmp_path, candidates=["toy/crashing", "toy/small", "toy/hungry", "toy/absent"], offline=True)
    assert [row.name for row in found.rows] == ["toy/small"]
    assert "a layer of mine is broken" in found.left_out["toy/crashing"]
    assert "memory" in found.left_out["toy/hungry"]
    assert "/nowhere/model.safetensors" in found.left_out["toy/absent"]
    with pytest.raises(OptionError) as error:
        ranked(tmp_path, candidates=["toy/crashing", "toy/absent"], out=tmp_path / "none")
    assert "no candidate can be scored" in str(error.value)
    assert "a layer of mine is broken" in str(error.value)


def test_a_reason_that_candidates_share_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError) as error:
        ranked(tmp_path, candidates=["toy/absent", "toy/absent-too"], quiet=False)
    told = capsys.readouterr().err
    assert "rank: one more is left out for the same reason as toy/absent (toy/absent-too)\n" in told
    for text in (told, str(error.value)):
        assert text.count("/nowhere/model.safetensors") == 1
        assert "toy/absent: toy/absent" not in text
    assert "toy/absent, toy/absent-too: " in str(error.value)


def test_reasons_that_differ_in_the_names_of_weights_are_one() -> None:
    said = {name: f"cannot get {name}.a1@main of {name}.a1" for name in ("timm/net18", "timm/net18d", "timm/net34")}
    said |= {"timm/net18.a1": said["timm/net18"], "toy/other": "no memory"}
    assert same_reasons(said) == [["timm/net18", "timm/net18d", "timm/net34", "timm/net18.a1"], ["toy/other"]]
    assert same_reasons({"runs/.a": "it is damaged", "runs/.b/": "it is slow"}) == [["runs/.a"], ["runs/.b/"]]


def test_data_that_no_candidate_reads_and_too_few_samples_are_errors(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text,label\ngood film,a\nbad film,b\n" * 10)
    with pytest.raises(DataError, match="file_name"):
        ranked(tmp_path, tmp_path / "texts.csv")
    with pytest.raises(DataError, match="nosuch"):
        ranked(tmp_path, tmp_path / "nosuch")
    x, y = pictures(3)
    with pytest.raises(DataError, match="cannot be divided into folds"):
        ranked(tmp_path, (x, y))


def test_regression_and_several_labels_are_ranked(tmp_path: Path) -> None:
    x, y = pictures()
    values = y.astype(float) * 100 + 7
    found = ranked(tmp_path, (x, values), task="regression")
    assert found.metric == "mae"
    assert found.best.probe.score == min(row.probe.score for row in found.rows)
    assert found.best.probe.score < 60, "less than the mean distance of the targets from their mean"
    assert set(found.best.scores) == {"knn", "logme"}
    labels = [["a"] if one == "0" else ["a", "b"] if one == "1" else ["c"] for one in y]
    found = ranked(tmp_path, (x, labels), task="multi-label", out=tmp_path / "several")
    assert found.metric == "map"
    assert found.best.probe.score > 0.8


def test_a_budget_reads_fewer_samples_first_and_tunes_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.select.ranking.opening.LEAST", 30)
    found = ranked(tmp_path, pictures(150), budget="5min", top=2)
    assert [row.samples for row in found.rows] == [150, 150], "the budget allows for all"
    assert all(row.tuned and row.tuned.epochs > 0 for row in found.rows)
    assert found.rows[0].tuned.score >= found.rows[1].tuned.score
    files = sorted(path.name for path in (tmp_path / "rank" / "candidates").iterdir())
    assert len(files) == 6, "three rounds of two candidates"
    assert zoo.load(tmp_path / "rank" / "tuned" / "toy_small").num_classes == 3


def test_a_small_budget_drops_the_worse_half_and_what_has_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zoo.select.ranking.opening.LEAST", 30)
    found = ranked(tmp_path, pictures(150), candidates=[*ALL, "toy/third"], budget=1e-3, quiet=False)
    assert len(found.rows) == 1
    assert found.reason.endswith("the only one that was scored")
    assert "none is fine-tuned: the budget of 0.0 s is spent" in capfd.readouterr().err
    assert "budget" in found.left_out["toy/large"]
    monkeypatch.setattr(search.Search, "left", property(lambda self: 1e-9))
    found = ranked(tmp_path, pictures(150), budget="1h", out=tmp_path / "halved", quiet=False)
    assert "none is fine-tuned: there are no two of the best that 0.0 s suffice for" in capfd.readouterr().err
    assert found.rows[0].samples > found.rows[1].samples
    assert not any(row.tuned for row in found.rows)


class Clock:
    """The time that is left, which is over after so many candidates were scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
        self.scored: list[tuple[str, int]] = []
        score = search.Search._scored

        def counted(this: Any, backbone: Any, tables: Any, scorer: Any) -> Any:
            self.scored.append((backbone.spec.name, sum(map(len, tables))))
            return score(this, backbone, tables, scorer)

        monkeypatch.setattr("zoo.select.ranking.opening.LEAST", 30)
        monkeypatch.setattr(search.Search, "_scored", counted)
        monkeypatch.setattr(search.Search, "left", property(lambda this: 1e9 if len(self.scored) < reads else 0.0))


def test_no_round_reads_a_candidate_when_the_budget_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, reads=0)
    found = ranked(tmp_path, pictures(150), candidates=[*ALL, "toy/third"], budget="1h")
    assert clock.scored == [("toy/small", 30)], "one is needed for a result"
    assert set(found.left_out) == {"toy/large", "toy/third"}


def test_a_candidate_without_time_for_more_samples_keeps_its_row_and_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, reads=4)
    found = ranked(tmp_path, pictures(150), candidates=[*ALL, "toy/third"], budget="1h")
    assert [samples for _, samples in clock.scored] == [30, 30, 30, 60]
    assert {row.name: row.samples for row in found.rows} == {"toy/small": 60, "toy/large": 30, "toy/third": 30}
    assert not found.left_out


def test_a_candidate_that_fails_on_more_samples_is_left_out_and_has_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.select.ranking.opening.LEAST", 30)
    read = search.read_features

    def failing(backbone: Any, tables: Any, conditions: Any) -> Any:
        if backbone.spec.name == "toy/large" and sum(map(len, tables)) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return read(backbone, tables, conditions)

    monkeypatch.setattr(search, "read_features", failing)
    found = ranked(tmp_path, pictures(90), budget="1h", top=0)
    assert [row.name for row in found.rows] == ["toy/small"]
    assert list(found.left_out) == ["toy/large"]


def test_an_error_in_tuning_leaves_the_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finetune.run_job

    def failing(job: Any, ranks: Any, out: Path, **more: Any) -> Any:
        if out.name == "toy_small":
            raise error
        return run(job, ranks, out, **more)

    monkeypatch.setattr(finetune, "run_job", failing)
    monkeypatch.setattr(finetune, "common_length", lambda trials, seconds: 1)
    error: Exception = RuntimeError("a layer of mine is broken")
    data = pictures()
    found = ranked(tmp_path, data, budget="1h", top=2)
    assert {row.name: row.tuned is not None for row in found.rows} == {"toy/small": False, "toy/large": True}
    error = DiskFullError("the disk is full")
    with pytest.raises(DiskFullError):
        ranked(tmp_path, data, budget="1h", top=2, out=tmp_path / "full")
    assert len(json.loads((tmp_path / "full" / "rank.json").read_text())["rows"]) == 2


def test_a_tuning_that_goes_on_has_the_length_with_which_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, fine_tune = pictures(), finetune.fine_tune
    tuned: list[str] = []

    def stopping(trial: Any, name: str, *more: Any) -> Any:
        tuned.append(name)
        if len(tuned) == 2:
            raise InterruptedRunError("stopped")
        return fine_tune(trial, name, *more)

    monkeypatch.setattr(finetune, "fine_tune", stopping)
    monkeypatch.setattr(finetune, "common_length", lambda trials, seconds: 2)
    with pytest.raises(InterruptedRunError, match="--resume"):
        ranked(tmp_path, data, budget="1h", top=2)
    monkeypatch.setattr(finetune, "common_length", lambda trials, seconds: 3)
    found = ranked(tmp_path, data, budget="1h", top=2, resume=True)
    assert [row.tuned.epochs for row in found.rows] == [2, 2]
    assert len(tuned) == 3, "the first is not tuned again"
    (tmp_path / "rank" / "tuning.json").write_text("{")
    with pytest.raises(SavedModelError, match=r"tuning\.json"):
        ranked(tmp_path, data, budget="1h", top=2, resume=True)


def test_saved_models_in_folders_of_one_name_are_two_candidates(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        zoo.get("toy/small").adapt(2, seed=number).save(tmp_path / name / "best")
    folders = [str(tmp_path / name / "best") for name in ("one", "two", "one")]
    found = ranked(tmp_path, candidates=folders)
    assert {row.name: row.folder for row in found.rows} == {"saved/one-best": folders[0], "saved/two-best": folders[1]}
    assert found.rows[0].scores["logme"] != found.rows[1].scores["logme"]
    with pytest.raises(OptionError, match="2 different candidates are called 'toy/small'"):
        ranked(tmp_path, candidates=["toy/small", zoo.get("toy/small", drop_rate=0.1)], out=tmp_path / "none")


def test_a_backbone_of_ones_own_and_a_saved_model_are_candidates(tmp_path: Path) -> None:
    own = zoo.wrap(ToyNet(), inputs=zoo.Image(size=16), layers={"stem": ["conv1", "bn1"], "blocks": "blocks.*"}, features=Features(dim=8))
    zoo.get("toy/small").adapt(2).save(tmp_path / "saved")
    found = ranked(tmp_path, candidates=[own, str(tmp_path / "saved"), "toy/large"])
    assert len(found.rows) == 3
    assert found.agreement, "three candidates have an order"
    assert {"size"} <= {one["score"] for one in found.agreement}

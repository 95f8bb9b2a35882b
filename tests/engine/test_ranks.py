"""Several processes train as one does, and come to every decision together.

Starting processes takes long, so one launch does all the work of this file; see rank_work.py for what it is.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
import zoo.builtin
from tests.conftest import ROOT
from tests.engine import rank_work
from tests.toy_text import ToyTextPlugin
from tests.warm_process import run_warm
from zoo.engine.distributed.rank_consistency import fingerprint
from zoo.engine.distributed.rank_devices import gpu_of_rank
from zoo.engine.distributed.ranks import Ranks
from zoo.errors import InterruptedRunError, OptionError
from zoo.registry.registry import Registry, use_registry

PLAIN = (
    "decisions",
    "gpus",
    "alike",
    "uneven",
    "memory",
    "backward",
    "exchanged",
    "accumulated",
    "full_memory",
    "inseparable",
    "corrupt",
    "different",
    "whole",
    "stopped",
    "handed_on",
    "biases",
    "full_disk",
    "objectives",
)


@pytest.fixture(scope="module")
def _texts() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    yield
    use_registry()


# What ``torchrun --standalone`` does, but for its workers: they are forks, which have torch already.
LAUNCH = """
    import sys
    import sklearn.utils  # which each of the forks would import for the first head that is solved
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    from tests.engine.rank_work import main

    processes = int(sys.argv.pop(1))
    place = {"run_id": "ranks", "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "max_restarts": 0}
    elastic_launch(LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=processes, start_method="fork", **place), main)()
"""


def launch(folder: Path, *work: str, processes: int = 2) -> list[dict[str, Any]]:
    """Run pieces of work with several processes; return what each of them found, by the name of the work."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = run_warm(textwrap.dedent(LAUNCH), [str(processes), str(folder), *work], env=environment, cwd=ROOT, seconds=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return [{name: json.loads((folder / f"{name}-{rank}.json").read_text()) for name in work} for rank in range(processes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path, _texts: None) -> list[dict[str, Any]]:
    """What two processes found, after one process alone has begun a run for them."""
    data = (rank_work.cursed(rank_work.terminate, 2), rank_work.PHOTOS[1])
    with pytest.raises(InterruptedRunError):
        rank_work.fit(folder / "begun", rank_work.plain(), *data, **rank_work.STEPPED)
    return launch(folder, *PLAIN)


@pytest.fixture(scope="module")
def alone(folder: Path, _texts: None) -> dict[str, Any]:
    """The same run, uninterrupted, by one process."""
    return rank_work.whole(folder / "alone")


def gap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference between the losses and metrics of two runs."""
    assert len(one["history"]) == len(other["history"])
    assert [record["phase"] for record in one["history"]] == [record["phase"] for record in other["history"]]
    pairs = [(record[name], same[name]) for record, same in zip(one["history"], other["history"], strict=True) for name in record]
    return max(abs(here - there) for here, there in pairs if isinstance(here, float | int) and here == here)


def value_gap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference between the values that two runs ended with."""
    return max(float(np.abs(np.subtract(one["values"][name], other["values"][name])).max()) for name in one["values"])


@pytest.mark.parametrize("name", rank_work.FEW)
def test_m1_two_processes_have_the_losses_of_one(name: str, two: list[dict[str, Any]], tmp_path: Path) -> None:
    one = rank_work.alike(tmp_path, [name])[name]
    for found in two:
        assert gap(one, found["alike"][name]) <= 1e-5


@pytest.mark.sweep
@pytest.mark.usefixtures("_texts")
def test_m1_two_and_three_processes_have_the_losses_of_one_for_every_recipe_and_task(tmp_path: Path) -> None:
    one = rank_work.all_alike(tmp_path / "one")
    for processes in (2, 3):
        folder = tmp_path / str(processes)
        folder.mkdir()
        for found in launch(folder, "all_alike", processes=processes):
            gaps = {name: gap(one[name], found["all_alike"][name]) for name in one}
            assert max(gaps.values()) <= 1e-5, gaps


def test_m1_every_sample_is_in_one_part_of_a_batch() -> None:
    for count in (1, 2, 3, 5):
        for size in range(1, 12):
            ranks = [Ranks() for _ in range(count)]
            for number, one in enumerate(ranks):
                one.rank, one.count = number, count
            parts = [one.part(range(size)) for one in ranks]
            assert [index for part in parts for index in part] == list(range(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("name", ["photos101", "photos7", "photos1", "words101", "words7", "words1"])
def test_m5_metrics_are_over_exactly_all_samples(name: str, two: list[dict[str, Any]], folder: Path) -> None:
    one = ONE.get("uneven") or ONE.setdefault("uneven", rank_work.uneven(folder / "one"))
    for found in two:
        metrics = found["uneven"][name]
        assert {key: metrics[key] for key in one[name]} == pytest.approx(one[name], abs=1e-6, nan_ok=True)


ONE: dict[str, dict[str, Any]] = {}


@pytest.mark.parametrize(
    ("name", "kinds", "text"),
    [
        ("stopped", ["Stopped", "Stopped"], ""),
        ("stopped-outside", ["Stopped", "Stopped"], ""),
        ("declined", ["OSError", "OSError"], "no room"),
        ("again", ["Stopped", "Stopped"], ""),
        ("failed", ["RankError", "ValueError"], "no such thing"),
        ("failed-outside", ["RankError", "KeyError"], "no such key"),
        ("broken", ["RankError", "CorruptInputError"], "a.png is cut off"),
    ],
)
def test_m4_what_one_process_meets_all_of_them_hear(name: str, kinds: list[str], text: str, two: list[dict[str, Any]]) -> None:
    found = [each["decisions"][name] for each in two]
    assert [each["kind"] for each in found] == kinds
    assert all(text in each["text"] for each in found)
    if kinds[0] == "RankError":
        assert "rank 1 of 2" in found[0]["text"]


def test_m3_a_process_in_the_middle_of_a_long_pass_heeds_another_that_was_told_to_stop(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["decisions"]["heeded"]["kind"] == "Stopped"
        assert found["decisions"]["heeded"]["seconds"] < 5


def test_running_statistics_are_averaged_by_what_each_process_had(two: list[dict[str, Any]]) -> None:
    assert [found["decisions"]["means"] for found in two] == [[[1.25, 5.0], 7]] * 2


def test_each_process_that_is_shown_one_gpu_takes_it_whatever_its_local_rank(two: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(each["gpus"] for each in two):
        assert found["own"] == {"kind": "none", "text": f"rank {rank}"}
        assert found["again"] == found["own"], "after the refusals"
        assert set(found["placed"]) == {0}


def test_processes_that_share_a_gpu_are_refused_on_all_ranks(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["gpus"]["shared"]["kind"] == "OptionError"
        assert "ranks 0, 1 share GPU GPU-0" in found["gpus"]["shared"]["text"]
        assert found["gpus"]["shared"]["text"].count("gpus-per-task") == 1
        assert "cannot find each other" not in found["gpus"]["shared"]["text"]


def test_a_process_without_a_gpu_among_others_is_named_on_all_ranks(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert "rank 0 would train on cuda; rank 1 would train on cpu" in found["gpus"]["mixed"]["text"]
        assert "rank 1: the process with local rank 4 has no GPU, as it sees 0 of them" in found["gpus"]["none"]["text"]
        assert {found["gpus"][name]["kind"] for name in ("mixed", "none")} == {"OptionError"}


@pytest.mark.parametrize(("local", "visible", "index"), [("3", 1, 0), ("3", 4, 3), ("0", 4, 0), (None, 4, 0), (None, 1, 0)])
def test_the_gpu_of_a_rank_is_its_local_rank_or_the_only_one_it_sees(
    local: str | None, visible: int, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    if local is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert gpu_of_rank() == index


def test_a_local_rank_without_a_gpu_is_named_with_what_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(OptionError, match=r"local rank 2 .* 2 of them \(CUDA_VISIBLE_DEVICES=4,5\)"):
        gpu_of_rank()


def test_m4_out_of_memory_on_one_process_halves_the_batches_of_both(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert value_gap(found["memory"], found["whole"]) <= 1e-5
        assert found["memory"]["calls"] > found["whole"]["history"][-1]["epoch"] * 5  # a step in two parts from then on


def test_m4_out_of_memory_in_the_middle_of_a_backward_does_the_same(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert value_gap(found["backward"], found["whole"]) <= 1e-5
        assert found["backward"]["calls"] > found["whole"]["history"][-1]["epoch"] * 5


def test_gradients_are_sent_while_the_backward_computes_others(two: list[dict[str, Any]]) -> None:
    for found in (each["exchanged"] for each in two):
        assert found["equal"], "the sums are those of gradients that are added up after the backward, bit for bit"
        assert found["none"] == [10, 11]  # the layer that nobody used
        assert found["extra"] == 3.0
        assert found["hooks"] == 0
        assert found["again"]
        assert found["sent"][0] == 0, "in the first step the unused layer is waited for"
        assert found["sent"][2] > 0
    assert two[1]["exchanged"]["sent"][1] < two[1]["exchanged"]["sent"][2], "rank 1 failed on its way"


def test_gradients_of_earlier_backwards_and_shared_ones_are_summed(two: list[dict[str, Any]]) -> None:
    assert [found["accumulated"]["gap"] for found in two] == [0.0, 0.0]


def test_m4_out_of_memory_while_gradients_are_sent_halves_the_batches_of_both(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert value_gap(found["full_memory"], found["whole"]) <= 1e-5
        assert found["full_memory"]["calls"] > found["whole"]["history"][-1]["epoch"] * 5


def test_a_failure_in_the_forward_of_a_loss_of_whole_batches_ends_all(two: list[dict[str, Any]]) -> None:
    found = [each["inseparable"] for each in two]
    assert [each["kind"] for each in found] == ["RankError", "ValueError"]
    assert "rank 1 of 2 failed, so all stop: ValueError: the disc is scratched" in found[0]["text"]
    assert max(each["seconds"] for each in found) < 15


@pytest.mark.sweep
def test_three_ranks_sum_gradients_to_the_same_bits_in_every_step(tmp_path: Path) -> None:
    assert all(found["exchanged"]["again"] for found in launch(tmp_path, "exchanged", processes=3))


def test_m4_a_corrupt_sample_on_one_process_ends_all_and_is_named(two: list[dict[str, Any]]) -> None:
    found = [each["corrupt"]["unreadable"] for each in two]
    assert sorted(each["kind"] for each in found) == ["CorruptInputError", "RankError"]
    assert all("sample 5 of the shelf" in each["text"] for each in found)
    assert two[0]["corrupt"]["left"] == []


@pytest.mark.parametrize("where", ["step", "validation"])
def test_m3_a_signal_to_one_process_stops_all_at_the_same_step(where: str, two: list[dict[str, Any]]) -> None:
    stops = [each["stopped"][where]["stop"] for each in two]
    assert [each["kind"] for each in stops] == ["InterruptedRunError"] * 2
    assert stops[0] == stops[1]
    assert "SIGTERM" in stops[0]["text"]
    for found in two:
        assert gap(found["stopped"][where], found["whole"]) == 0.0
        assert value_gap(found["stopped"][where], found["whole"]) == 0.0


def test_m6_two_processes_go_on_with_the_run_of_one(two: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for found in two:
        assert gap(found["handed_on"], alone) <= 1e-5


def test_m6_one_process_goes_on_with_the_run_of_two(two: list[dict[str, Any]], alone: dict[str, Any], folder: Path) -> None:
    assert two[0]["handed_on"]["left"]["kind"] == "InterruptedRunError"
    net = rank_work.plain()
    run = rank_work.fit(folder / "handed_on" / "left", net, *rank_work.PHOTOS, resume=True, **rank_work.STEPPED)
    assert gap(rank_work.told(run, net), alone) <= 1e-5


def test_m7_a_disk_that_fails_the_first_process_ends_all(two: list[dict[str, Any]]) -> None:
    found = [each["full_disk"] for each in two]
    assert [each["kind"] for each in found] == ["TrainingError", "RankError"]
    assert all("checkpoint" in each["text"] for each in found)
    assert max(each["seconds"] for each in found) < 20


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("options", ["lr is 0.01 on rank 0 and 1.01 on rank 1", "epochs is 2 on rank 0 and 3 on rank 1"]),
        ("data", ["train data", "labels"]),
        ("values", ["values", "seed"]),
        ("head", ["values"]),
    ],
)
def test_m8_processes_that_do_not_do_the_same_are_refused(name: str, texts: list[str], two: list[dict[str, Any]]) -> None:
    for each in two:
        found = each["different"][name]
        assert found["kind"] == "OptionError"
        assert all(text in found["text"] for text in texts)


@pytest.mark.usefixtures("_texts")
def test_the_objectives_of_the_tests_train_alike_on_two_processes(two: list[dict[str, Any]], tmp_path: Path) -> None:
    alone = rank_work.objectives(tmp_path)
    for name, expected in alone.items():
        for found in (each["objectives"][name] for each in two):
            assert value_gap(found, expected) < 1e-4, name
            losses = [[line["train_loss"] for line in run["history"]] for run in (found, expected)]
            assert np.allclose(*losses, rtol=1e-4), name


def test_a_fingerprint_changes_with_one_bit_and_with_the_order() -> None:
    net = rank_work.plain()
    before = fingerprint(net)
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] *= 1 + 1e-6
    assert fingerprint(net) != before
    assert fingerprint(rank_work.plain()) == before
    assert fingerprint(torch.nn.Linear(3, 1).half()) != fingerprint(torch.nn.Linear(3, 1).half())


@pytest.mark.sweep
@pytest.mark.usefixtures("_texts")
def test_sharded_processes_have_the_losses_of_one_and_stop_fail_and_go_on_as_others_do(tmp_path: Path) -> None:
    one = rank_work.sharded(tmp_path / "one")
    (tmp_path / "two").mkdir()
    for rank, found in enumerate(each["sharded"] for each in launch(tmp_path / "two", "sharded")):
        assert max(gap(one[name], found[name]) for name in one) <= 1e-5
        assert found["stop"]["kind"] == "InterruptedRunError"
        assert value_gap(found["resumed"], found["uncut"]) == 0.0
        assert (found["refused"]["kind"], found["small"]["kind"]) == ("OptionError", "OptionError")
        assert "ema" in found["refused"]["text"]
        assert "sample for every process" in found["small"]["text"]
        assert found["failed"]["kind"] == ("ValueError" if rank else "RankError")
        assert "the disc is scratched" in found["failed"]["text"]
        assert found["seconds"] < 20


@pytest.mark.sweep
@pytest.mark.usefixtures("_texts")
def test_sharded_processes_in_bf16_gather_in_bf16_and_keep_float32(tmp_path: Path) -> None:
    one = rank_work.narrow(tmp_path / "one")
    (tmp_path / "two").mkdir()
    for found in (each["narrow"] for each in launch(tmp_path / "two", "narrow")):
        for name in one:
            half = "torch.float32" if name == "norms" else "torch.bfloat16"
            assert found[name]["types"] == [half]
            assert found[name]["end"] == ["torch.float32"]
            if name != "norms":  # whose statistics are those of a process
                pairs = zip(one[name]["history"], found[name]["history"], strict=True)
                assert max(abs(here[key] - there[key]) for here, there in pairs for key in ("train_loss", "loss")) <= 0.02


def test_a_single_process_cannot_be_sharded(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="several processes"):
        rank_work.fit(tmp_path / "run", rank_work.plain(), *rank_work.PHOTOS, recipe="full", shard=True)
    assert not (tmp_path / "run").exists()


def test_what_each_process_computes_at_the_end_is_that_of_the_first(two: list[dict[str, Any]]) -> None:
    first, second = (found["biases"] for found in two)
    assert first["biases"] == second["biases"]
    assert first["statistics"]
    assert first["statistics"] == second["statistics"]

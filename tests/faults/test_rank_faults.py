"""M2, M3: one of several processes dies, hangs or is told to stop; all end, say once what happened, and the run can go on."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import load_file

from tests.faults.rank_faults import Ended, Site

TIMEOUT = 20  # of a collective, as the site sets it
REST = 22  # for the processes that are left: 15 seconds of grace, and the ends of busy interpreters


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("ranks"))


def check_end(ended: Ended, seconds: float, *said: str) -> None:
    assert ended.code not in (0, None), ended.text
    assert ended.orphans == []
    assert ended.seconds <= seconds, ended.text
    shown = [line for line in ended.text.splitlines() if line.startswith("error")]
    assert len(shown) == 1, ended.text
    assert all(text in shown[0] for text in said), ended.text


def check_resume(site: Site, out: str) -> None:
    """Go on with a run, and end where one process that was never disturbed ends."""
    ended = site.run("--resume", out=out)
    assert ended.code == 0, ended.text
    if not (site.folder / "sound").exists():
        assert site.run(out="sound", launcher="alone").code == 0
    one, other = (load_file(site.folder / name / "model.safetensors") for name in (out, "sound"))
    assert max(float(abs(one[name] - other[name]).max()) for name in one) <= 1e-5


def test_m2_a_process_that_is_killed_ends_all_and_the_run_goes_on(site: Site) -> None:
    ended = site.run(out="killed", fault="kill 1 3")
    check_end(ended, REST, "rank 1 of 2", "no longer answers")
    assert "rank 1 was ended by SIGKILL" in ended.text
    ended = site.run_warm("--resume", out="killed")
    assert ended.code == 0, ended.text
    assert "going on at epoch 2, after 0 of 4 steps" in ended.text


@pytest.mark.sweep
@pytest.mark.parametrize("launcher", ["zoo", "torchrun"])
@pytest.mark.parametrize(
    ("kind", "seconds", "said"),
    [
        ("kill", REST, "rank 1 of 2 no longer answers"),
        ("raise", REST, "rank 1 of 2 failed, so all stop: ValueError: the disc is scratched"),
        ("hang", TIMEOUT + 30 + REST, "rank 1 of 2 no longer answers"),  # torchrun waits 30 s before it kills
        ("exit", REST, "rank 1 of 2 no longer answers"),
    ],
)
def test_m2_whatever_becomes_of_rank_1_all_end_and_the_run_goes_on(kind: str, seconds: float, said: str, launcher: str, site: Site) -> None:
    out = f"{kind}-{launcher}"
    check_end(site.run(out=out, fault=f"{kind} 1 3", launcher=launcher), seconds, said)
    check_resume(site, out)


@pytest.mark.sweep
def test_m2_the_loss_of_the_first_process_is_told_by_another(site: Site) -> None:
    check_end(site.run(out="first", fault="kill 0 3"), REST, "rank 0")
    check_resume(site, "first")


@pytest.mark.sweep
@pytest.mark.parametrize("launcher", ["zoo", "torchrun"])
def test_m2_a_process_that_does_not_come_is_not_waited_for_longer_than_the_timeout(launcher: str, site: Site) -> None:
    ended = site.run(out=f"slow-{launcher}", fault="slow 1 0", launcher=launcher)
    check_end(ended, TIMEOUT + 30 + REST, "rank 1")
    assert site.run(out=f"slow-{launcher}").code == 0


@pytest.mark.sweep
@pytest.mark.parametrize("stop", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_m3_a_signal_to_the_launcher_stops_all_with_a_checkpoint(stop: str, site: Site) -> None:
    ended = site.run(out=stop, stop=stop)
    assert ended.code == (130 if stop == "SIGINT" else 143), ended.text
    check_end(ended, 120, f"stopped by {stop}")
    assert json.loads((site.folder / stop / "stopped.json").read_text())["signal"] == stop
    check_resume(site, stop)
    assert not (site.folder / stop / "stopped.json").exists()


@pytest.mark.sweep
def test_m3_a_launcher_that_is_killed_leaves_no_process_and_the_run_goes_on(site: Site) -> None:
    ended = site.run(out="orphans", stop="SIGKILL")
    assert ended.code == -9, ended.text
    assert ended.orphans == []
    assert json.loads((site.folder / "orphans/stopped.json").read_text())["signal"] == "SIGTERM"
    check_resume(site, "orphans")


@pytest.mark.sweep
@pytest.mark.parametrize("launcher", ["zoo", "torchrun"])
def test_m3_a_signal_to_one_process_stops_all_with_a_checkpoint(launcher: str, site: Site) -> None:
    out = f"term-{launcher}"
    ended = site.run(out=out, fault="term 1 3", launcher=launcher)
    check_end(ended, REST, "stopped by SIGTERM")
    assert ended.code == (143 if launcher == "zoo" else 1)  # torchrun has one code for all that is not 0
    assert json.loads((site.folder / out / "stopped.json").read_text()) | {"steps": 0} == {
        "signal": "SIGTERM", "exit_code": 143, "epoch": 2, "step": 3, "steps": 0,
    }  # fmt: skip
    check_resume(site, out)


@pytest.mark.sweep
def test_m3_torchrun_passes_its_signal_on_and_the_run_goes_on(site: Site) -> None:
    ended = site.run(out="stopped-torchrun", launcher="torchrun", stop="SIGTERM")
    check_end(ended, 120, "stopped by SIGTERM")
    check_resume(site, "stopped-torchrun")


@pytest.mark.sweep
def test_m4_m7_out_of_memory_and_a_full_disk_on_one_rank_of_the_command_line(site: Site) -> None:
    ended = site.run(out="memory", fault="memory 1 3")
    assert ended.code == 0, ended.text
    assert ended.text.count("out of memory: going on with micro-batches of 2 samples") == 1
    check_end(site.run(out="disk", fault="disk 0 3"), REST, "cannot be written")
    check_resume(site, "disk")


@pytest.mark.sweep
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_other_launchers_train_the_same(launcher: str, site: Site) -> None:
    ended = site.run(out=f"by-{launcher}", launcher=launcher)
    assert ended.code == 0, ended.text
    assert (site.path / "pid-1").is_file()
    assert len([line for line in ended.text.splitlines() if line.startswith("loss ")]) == 1
    check_resume(site, f"by-{launcher}")


def test_mistakes_are_told_once_and_before_there_are_processes(site: Site) -> None:
    ended = site.run("--set", "epoch=3", out="mistake")
    assert ended.code == 2
    assert ended.text.count("did you mean 'epochs'") == 1
    assert ended.seconds < 10
    assert site.run("--num-processes", "0", out="mistake", launcher="alone").code == 2
    assert not (site.folder / "mistake").exists()


@pytest.mark.sweep
def test_two_machines_train_one_model(site: Site) -> None:
    ends = site.run_nodes(out="machines")
    assert [ended.code for ended in ends] == [0, 0], ends
    assert sum(line.startswith("loss ") for ended in ends for line in ended.text.splitlines()) == 1
    check_resume(site, "machines")

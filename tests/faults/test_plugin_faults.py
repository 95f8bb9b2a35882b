"""Rows R2 and R4 to R9 of the table of faults: what plugins can do wrong, and what the rest still does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fake_dist import HEALTHY, fake_dist, run_python, run_zoo
from zoo.cli.probe import probe_all
from zoo.plugins.loader import Plugin

OPEN = """
    import pathlib, time
    pathlib.Path({marker!r}).touch()
    time.sleep({seconds})
    import zoo

    @zoo.hookimpl
    def zoo_backbones():
        return [zoo.BackboneSpec(name="slow/net", build="zoo_slow:build", layers={{"all": "body"}}, inputs=zoo.Image(size=(8, 6)),
            features=zoo.Features(dim=4), options={{"sizes": (1, 2), "deep": {{"a": [1]}}}}, weights=zoo.Weights(repo="a/b"))]

    @zoo.hookimpl
    def zoo_heads():
        return [zoo.HeadSpec(name="slow-head", build="zoo_slow:head")]

    @zoo.hookimpl
    def zoo_find_backbone(name):
        return None
"""
KILLER = "import os\nos._exit(7)\n"


def marks(marker: Path) -> str:
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"


def dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.split("\n"))


def test_r2_a_slow_plugin_costs_nothing_once_it_is_known(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    site = fake_dist(tmp_path / "site", "zoo-slow", OPEN.format(marker=str(marker), seconds=0.5))
    cache = {"ZOO_CACHE": str(tmp_path / "cache")}
    first = run_zoo("list", "slow/*", "--json", paths=[site], **cache)
    assert marker.exists()
    marker.unlink()
    second = run_zoo("list", "slow/*", "--json", paths=[site], **cache)
    assert second.stdout == first.stdout
    for command in (["show", "slow/net"], ["--help"], ["plugins"]):
        assert run_zoo(*command, paths=[site], **cache).returncode == 0
    code = """
        import sys
        from zoo.registry.registry import Registry
        registry = Registry()
        spec = registry.resolve("slow/net").spec
        assert spec.options == {"sizes": (1, 2), "deep": {"a": [1]}} and spec.inputs.size == (8, 6), spec
        assert registry.head("slow-head").build == "zoo_slow:head"
        print(sorted({"torch", "zoo_slow", "packaging"} & set(sys.modules)))
    """
    assert run_python(code, site, **cache).stdout.strip() == "[]"
    assert not marker.exists(), "the module was imported"
    run_python(
        "from zoo.registry.registry import Registry\ntry:\n    Registry().resolve('slow/other')\nexcept LookupError: pass", site, **cache
    )
    assert marker.exists(), "an open family wakes its plugin when it is asked"


@pytest.mark.parametrize("change", ["source", "version", "requirement", "damage", "foreign"])
def test_what_is_remembered_of_a_plugin_is_dropped_when_anything_changes(change: str, tmp_path: Path) -> None:
    marker, site, cache = tmp_path / "marker", tmp_path / "site", tmp_path / "cache"
    source = marks(marker) + dedented(HEALTHY.format(names=["slow/net"], module="zoo_slow"))
    requires = ["zoo-needed>=1"]
    fake_dist(site, "zoo-needed", "", entry_points="")
    fake_dist(site, "zoo-slow", source, requires=requires)
    assert run_zoo("list", "slow/*", paths=[site], ZOO_CACHE=str(cache)).returncode == 0
    (kept,) = cache.glob("plugins/zoo-slow*.json")
    marker.unlink()
    if change == "source":
        fake_dist(site, "zoo-slow", source + "# longer\n", requires=requires)
    elif change == "version":
        for path in site.glob("zoo_slow-*/*"):
            path.unlink()
        next(site.glob("zoo_slow-*")).rmdir()
        fake_dist(site, "zoo-slow", source, version="1.1", requires=requires)
    elif change == "requirement":
        next(site.glob("zoo_needed-*")).rename(site / "zoo_needed-1.5.dist-info")
    elif change == "damage":
        kept.write_text(kept.read_text()[:-20])
    else:
        kept.chmod(0o666)
    assert "slow/net" in run_zoo("list", "slow/*", paths=[site], ZOO_CACHE=str(cache)).stdout
    assert marker.exists(), "an outdated listing was used"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_r3_names_that_differ_in_spelling_only_and_entry_points_of_one_name_are_never_silent(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    fake_dist(tmp_path / "0", "A-b", names=["ab/old"], version="1.0", entry_points="[zoo]\nsame = a_b\n")
    fake_dist(tmp_path / "1", "zoo-other", names=["other/net"], entry_points="[zoo]\nsame = zoo_other\n")
    fake_dist(tmp_path / "2", "a_b", names=["ab/new"], version="2.0", entry_points="[zoo]\nsame = a_b\n")
    done = run_zoo("plugins", "--json", paths=[tmp_path / str(index) for index in order], cwd=tmp_path, ZOO_CACHE=str(tmp_path / "cache"))
    rows = {(row["distribution"], row["version"]): row for row in json.loads(done.stdout)}
    first, second = [("A-b", "1.0"), ("a_b", "2.0")][:: 1 if order[0] == 0 else -1]
    assert (rows[first]["status"], rows[second]["status"]) == ("ok", "disabled")
    assert rows[second]["cause"] == f"{' '.join(first)} comes earlier on the path"
    assert rows["zoo-other", "1.0"]["backbones"] == 1


BREACHES: dict[str, dict[str, Any]] = {
    "an unknown argument": {"source": "import zoo\n@zoo.hookimpl\ndef zoo_backbones(config):\n    return []"},
    "a misspelt hook": {"source": "import zoo\n@zoo.hookimpl\ndef zoo_backbone():\n    return []"},
    "a wrong return type": {"source": "import zoo\n@zoo.hookimpl\ndef zoo_heads():\n    return {'a': 1}"},
    "no plugin at all": {"source": "answer = 42", "entry_points": "[zoo]\nbad = zoo_bad:answer\n"},
    "no METADATA": {"metadata": False, "names": ["bad/net"]},
    "an unreadable RECORD": {"source": "raise OSError('files is None')"},
    "a damaged entry point": {"entry_points": "[zoo]\nbad = not a module\n"},
    "a class": {"source": "class Plugin: pass", "entry_points": "[zoo]\nbad = zoo_bad:Plugin\n"},
}


def test_r4_every_breach_of_contract_is_rejected_and_takes_nothing_down(tmp_path: Path) -> None:
    site = tmp_path / "site"
    fake_dist(site, "zoo-alpha", names=["alpha/net"])
    before = run_zoo("list", "--json", paths=[site]).stdout
    for number, breach in enumerate(BREACHES.values()):
        fake_dist(site, f"zoo-bad{number}", **{key: _numbered(value, number) for key, value in breach.items()})
    assert run_zoo("list", "--json", paths=[site]).stdout == before, "the registry is as it was"
    rows = json.loads(run_zoo("plugins", "--json", paths=[site]).stdout)
    failed = [row for row in rows if row["status"] == "failed" and row["cause"] and "bad" in row["distribution"]]
    assert len(failed) == len(BREACHES) == 8


def _numbered(value: Any, number: int) -> Any:
    return value.replace("zoo_bad", f"zoo_bad{number}") if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("name", "fields", "cause"),
    [
        ("another API", {"api": ["99"]}, "plugin API 99"),
        ("a requirement that is not installed", {"requires": ["zoo-nowhere>=1"]}, "zoo-nowhere>=1, which is not installed"),
        ("a newer zoo", {"requires": ["transfer-zoo>=99"]}, "transfer-zoo>=99, and"),
        ("an older torch", {"requires": ["torch<1", "numpy>=1; extra == 'more'", "nope; python_version < '3'"]}, "torch<1, and"),
    ],
)
def test_r5_what_does_not_fit_is_skipped_with_a_reason_and_not_imported(
    name: str, fields: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    site = fake_dist(tmp_path / "site", "zoo-far", marks(tmp_path / "marker"), **fields)
    rows = json.loads(run_zoo("plugins", "--json", paths=[site]).stdout)
    (row,) = [row for row in rows if row["distribution"] == "zoo-far"]
    assert row["status"] == "failed"
    assert cause in row["cause"], name
    assert "nope" not in row["cause"]
    assert not (tmp_path / "marker").exists()


def test_a_plugin_that_fits_this_api_is_loaded(tmp_path: Path) -> None:
    site = fake_dist(
        tmp_path / "site", "zoo-near", names=["near/net"], api=["1", "2"], requires=["transfer-zoo>=0.1", "torch", "numpy; extra == 'x'"]
    )
    assert "near/net" in run_zoo("list", "near/*", paths=[site]).stdout


@pytest.mark.parametrize("allow", ["none", "another", "the blocked one"])
@pytest.mark.parametrize("origin", ["flag", "environment", "file"])
def test_r6_a_blocked_module_is_never_imported_whatever_is_allowed_or_asked(origin: str, allow: str, tmp_path: Path) -> None:
    marker, config = tmp_path / "marker", tmp_path / "config"
    source = marks(marker) + dedented(HEALTHY.format(names=["marked/net"], module="zoo_marked"))
    site = fake_dist(tmp_path / "site", "zoo-marked", source)
    fake_dist(site, "zoo-other", names=["other/net"])
    words = ["--block", "zoo_marked"] if origin == "flag" else []
    words += {"none": [], "another": ["--allow", "other"], "the blocked one": ["--allow", "marked", "--allow", "other"]}[allow]
    variables = {"XDG_CONFIG_HOME": str(config)} | ({"ZOO_PLUGINS_BLOCK": "Zoo.Marked"} if origin == "environment" else {})
    if origin == "file":
        assert run_zoo("plugins", "disable", "marked", paths=[site], **variables).returncode == 0
    code = f"""
        import json, sys
        from zoo.cli import main
        codes = []
        for line in (["list", "*/*"], ["show", "marked/net"], ["layers", "marked/net"], ["plugins"]):
            try:
                main([*{words!r}, *line])
            except SystemExit as stop:
                codes.append(stop.code)
        from zoo.plugins.loader import load_function
        try:
            load_function("zoo_marked:build")
        except RuntimeError as error:
            codes.append(str(error))
        print(json.dumps([codes, "zoo_marked" in sys.modules]), file=sys.stderr)
    """
    done = run_python(code, site, **variables)
    codes, imported = json.loads(done.stderr.strip().split("\n")[-1])
    assert codes[:4] == [0, 2, 2, 0], done.stderr
    assert "is disabled: blocked" in codes[4]
    assert not imported
    assert not marker.exists()
    assert "other/net" in done.stdout
    assert "marked/net" not in done.stdout


@pytest.mark.parametrize("command", ["disable", "no-plugins", "doctor"])
def test_r7_recovery_works_with_a_plugin_that_ends_the_process(command: str, tmp_path: Path) -> None:
    site = fake_dist(tmp_path / "site", "zoo-killer", KILLER)
    fake_dist(site, "zoo-alpha", names=["alpha/net"])
    around = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "ZOO_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    assert run_zoo("list", paths=[site], **around).returncode == 7, "the fault is real"
    if command == "disable":
        assert run_zoo("plugins", "disable", "killer", paths=[site], **around).returncode == 0
        assert "alpha/net" in run_zoo("list", paths=[site], **around).stdout
        assert run_zoo("plugins", "enable", "zoo-killer", paths=[site], **around).returncode == 0
        assert run_zoo("plugins", "enable", "killer", paths=[site], **around).returncode == 0
        assert run_zoo("list", paths=[site], **around).returncode == 7
    elif command == "no-plugins":
        done = run_zoo("list", "--no-plugins", "--json", paths=[site], **around)
        assert done.returncode == 0
        assert {row["name"].split("/")[0] for row in json.loads(done.stdout)} == {"zoo"}
    else:
        done = run_zoo("plugins", "check", "--json", paths=[site], **around)
        assert done.returncode == 1
        status = {row["name"]: (row["status"], row["cause"]) for row in json.loads(done.stdout)}
        assert status["killer"] == ("died", "rc 7")
        assert status["alpha"] == ("ok", "")
        done = run_python("from zoo.cli import main; main(['doctor'])", site, warm=True, **around)
        assert done.returncode == 1
        assert "zoo-killer 1.0 (plugin 'killer') died: rc 7" in done.stderr


HANGS = {
    "import": "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', '{child}'])\ntime.sleep(600)\n",
    "list": "import time, zoo\n@zoo.hookimpl\ndef zoo_backbones():\n    time.sleep(600)\n    return []\n",
    "build": dedented(HEALTHY.format(names=["stuck/net"], module="zoo_stuck")) + "\ndef build():\n    import time\n    time.sleep(600)\n",
}


# A build that hangs is killed as an import is, after 20 seconds that are waited for.
@pytest.mark.parametrize("where", [pytest.param(where, marks=[pytest.mark.sweep] * (where == "build")) for where in HANGS])
def test_r8_a_plugin_that_hangs_is_named_and_killed_with_its_children(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(pids)!r}).write_text(str(os.getpid())); time.sleep(600)"
    site = fake_dist(tmp_path / "site", "zoo-stuck", HANGS[where].replace("'{child}'", repr(child)))
    fake_dist(site, "zoo-alpha", names=["alpha/net"])
    patience = 20.0 if where == "build" else 3.0  # building imports torch first
    before = time.monotonic()
    monkeypatch.syspath_prepend(str(site))  # which the probe hands on
    plugins = [Plugin("stuck", "zoo-stuck", "1.0"), Plugin("alpha", "zoo-alpha", "1.0")]
    reports = {report.name: report for report in probe_all(plugins, patience, build=where == "build")}
    assert reports["stuck"].status == "hangs"
    assert f"killed after {patience:g} s" in reports["stuck"].cause
    assert reports["stuck"].seconds <= patience + 1
    assert reports["alpha"].backbones == ["alpha/net"], reports["alpha"]
    assert time.monotonic() - before <= patience + 2
    assert pids.exists() == (where == "import")
    deadline = time.monotonic() + 2  # the system takes a moment to end what it was told to kill
    while pids.exists() and is_alive(int(pids.read_text())):
        assert time.monotonic() < deadline, "an orphan runs on"


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that is dead and waits to be collected does not."""
    told = Path(f"/proc/{pid}/stat")
    return told.exists() and told.read_text().rpartition(")")[2].split()[0] != "Z"


MISDEEDS = {
    "plain": {
        "warnings filters": "import warnings\nwarnings.simplefilter('ignore')",
        "the seed of random": "import random\nrandom.seed(0)",
        "sys.path": "import sys\nsys.path.append('elsewhere')",
        "the environment (ZOO_TEST)": "import os\nos.environ['ZOO_TEST'] = '1'",
        "signal handlers": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
    },
    "torch": {  # of one plugin, as each that imports torch is probed twice
        "torch.load": "import torch\ntorch.load = lambda *args, **kwargs: None",
        "the threads of torch": "torch.set_num_threads(3)",
        "the default dtype of torch": "torch.set_default_dtype(torch.float64)",
    },
}


def test_r9_what_a_plugin_changes_for_the_whole_process_is_told(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for kind, codes in MISDEEDS.items():
        healthy = dedented(HEALTHY.format(names=[f"{kind}/net"], module=f"zoo_{kind}"))
        fake_dist(site, f"zoo-{kind}", "\n".join([*codes.values(), healthy]))
    fake_dist(site, "zoo-alpha", names=["alpha/net"])
    done = run_zoo("plugins", "check", "--json", "--timeout", "100", paths=[site], ZOO_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1, done.stderr
    told = {row["name"]: row["changes"] for row in json.loads(done.stdout)}
    for kind, codes in MISDEEDS.items():
        assert [name for name in codes if any(change.startswith(name) for change in told[kind])] == list(codes), told
    assert told["alpha"] == []

"""One broken plugin never takes the others down, and is named with distribution, version and cause."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.faults.fake_dist import fake_dist, run_python, run_zoo
from tests.toy import ToyPlugin, toy_spec
from zoo.errors import AmbiguousNameError, MissingExtraError, PluginError
from zoo.plugins.loader import Plugin, find_plugins, load, load_function
from zoo.plugins.policy import Policy
from zoo.registry.registry import Registry

BROKEN = {
    "an ImportError": ("import zoo_is_not_installed", "zoo_is_not_installed"),
    "a RuntimeError": ("raise RuntimeError('operator torchvision::nms does not exist')", "torchvision::nms"),
    "a SyntaxError": ("def zoo_backbones(:", "SyntaxError"),
    "a SystemExit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "a generator that raises": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_backbones():
            yield zoo.BackboneSpec(
                name="broken/half", build="m:f", layers={"all": "body"}, inputs=zoo.Image(), features=zoo.Features(dim=4)
            )
            raise KeyError("the other half")
        """,
        "the other half",
    ),
    "garbage": ("import zoo\n@zoo.hookimpl\ndef zoo_backbones():\n    return [1, 'two']", "2 items that are no BackboneSpec"),
    "one spec instead of a list": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_backbones():
            return zoo.BackboneSpec(
                name="broken/half", build="m:f", layers={"all": "body"}, inputs=zoo.Image(), features=zoo.Features(dim=4)
            )
        """,
        "it must return an iterable of BackboneSpec",
    ),
    "a text": ("import zoo\n@zoo.hookimpl\ndef zoo_backbones():\n    return 'timm/resnet50'", "must return an iterable"),
    "nothing returned": ("import zoo\n@zoo.hookimpl\ndef zoo_backbones():\n    pass", "returned None"),
    "an unknown argument": ("import zoo\n@zoo.hookimpl\ndef zoo_backbones(config):\n    return []", "config"),
    "a misspelt hook": ("import zoo\n@zoo.hookimpl\ndef zoo_backbone():\n    return []", "did you mean 'zoo_backbones'?"),
    "a forgotten mark": ("def zoo_backbones():\n    return []", "put @zoo.hookimpl above it"),
    "no hook at all": ("answer = 42", "has no hook"),
    "a contradictory declaration": (
        "import zoo\n@zoo.hookimpl\ndef zoo_backbones():\n    return [zoo.BackboneSpec(name='noslash', build='m:f', layers={'a': 'b'},"
        " inputs=zoo.Image(), features=zoo.Features(dim=4))]",
        "noslash",
    ),
}


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    for name in ("zoo-alpha", "zoo-beta", "zoo-gamma"):
        fake_dist(tmp_path / "site", name, names=[f"{name}/net"])
    return tmp_path / "site"


@pytest.mark.parametrize("fault", BROKEN)
def test_healthy_plugins_stay_listed_beside_one_with(fault: str, healthy: Path) -> None:
    source, cause = BROKEN[fault]
    fake_dist(healthy, "zoo-broken", source, version="2.5")
    done = run_python(
        """
        import contextlib, io, json, sys
        from zoo.cli import main
        told = {}
        for line in ("list --json", "plugins --json", "--strict-plugins list", "plugins --json --strict-plugins"):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                try:
                    main(line.split())
                except SystemExit as stop:
                    told[line] = [stop.code, out.getvalue()]
        print(json.dumps(told))
        """,
        healthy,
        cwd=healthy,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["list --json"][0] == 0
    names = {row["name"] for row in json.loads(told["list --json"][1])}
    assert {"zoo-alpha/net", "zoo-beta/net", "zoo-gamma/net"} <= names
    assert not any(name.startswith("broken/") for name in names), "a failed plugin is taken back whole"
    (broken,) = [row for row in json.loads(told["plugins --json"][1]) if row["status"] == "failed"]
    assert (broken["distribution"], broken["version"]) == ("zoo-broken", "2.5")
    assert cause in broken["cause"]
    assert told["--strict-plugins list"] == [1, ""]
    assert told["plugins --json --strict-plugins"] == [1, told["plugins --json"][1]]


def test_a_plugin_without_metadata_is_named_by_its_folder(tmp_path: Path) -> None:
    fake_dist(tmp_path, "zoo-lost", version="0.9", names=["lost/net"], metadata=False)
    (plugin,) = found(tmp_path, "zoo-lost")
    assert (plugin["status"], plugin["distribution"], plugin["version"]) == ("failed", "zoo_lost", "0.9")
    assert "METADATA" in plugin["cause"]


@pytest.mark.parametrize("text", ["", "[zoo]\n", "[console_scripts]\nx = zoo_odd:main\n"])
def test_a_distribution_without_entry_points_for_us_is_no_plugin(text: str, tmp_path: Path) -> None:
    fake_dist(tmp_path, "zoo-odd", entry_points=text)
    assert found(tmp_path, "zoo-odd") == []


@pytest.mark.parametrize("value", ["zoo_odd:answer", "zoo_odd:absent", "zoo_odd:Plugin", "not a module"])
def test_an_entry_point_that_names_no_plugin_fails_alone(value: str, tmp_path: Path) -> None:
    fake_dist(tmp_path, "zoo-odd", "answer = 42\nclass Plugin:\n    pass\n", entry_points=f"[zoo]\nodd = {value}\n")
    (plugin,) = found(tmp_path, "zoo-odd")
    assert plugin["status"] == "failed"
    assert plugin["cause"]


def test_a_distribution_found_twice_on_the_path_counts_once(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        fake_dist(tmp_path / folder, "zoo-twin", names=["twin/net"])
    (plugin,) = found(tmp_path / "one", "zoo-twin", tmp_path / "two")
    assert (plugin["status"], plugin["clashes"]) == ("ok", [])


def test_an_older_copy_later_on_the_path_is_said_and_not_loaded(tmp_path: Path) -> None:
    for folder, version in (("one", "2.0"), ("two", "1.0")):
        fake_dist(tmp_path / folder, "zoo-twin", names=["twin/net"], version=version)
    plugins = found(tmp_path / "one", "zoo-twin", tmp_path / "two")
    assert {row["version"]: row["status"] for row in plugins} == {"2.0": "ok", "1.0": "disabled"}
    assert "2.0" in next(row["cause"] for row in plugins if row["version"] == "1.0")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_clash_names_both_distributions_in_every_order(order: tuple[int, ...], tmp_path: Path) -> None:
    dists = [("zoo-a", ["same/net", "a/only"]), ("zoo-m", ["m/net"]), ("zoo-z", ["same/net"])]
    folders = [fake_dist(tmp_path / name, name, names=names) for name, names in dists]
    done = run_python(
        """
        import json
        from zoo.registry.registry import Registry
        registry = Registry(files=[])
        told = [registry.faults, [entry.spec.name for entry in registry.search("*/*")]]
        for name in ("same/net", "only", "zoo-z:same/net", "zoo-a:same/net"):
            try:
                entry = registry.resolve(name)
                told.append([entry.spec.name, entry.plugin.label])
            except LookupError as error:
                told.append([type(error).__name__, str(error)])
        print(json.dumps(told))
        """,
        *(folders[index] for index in order),
    )
    assert done.returncode == 0, done.stderr
    faults, listed, clash, only, of_z, of_a = json.loads(done.stdout)
    assert faults == ["'same/net' is given by zoo-a 1.0 and by zoo-z 1.0"]
    assert {"m/net", "a/only", "same/net"} <= set(listed)
    assert clash[0] == "AmbiguousNameError"
    assert "zoo-a 1.0" in clash[1]
    assert "zoo-z 1.0" in clash[1]
    assert only == ["a/only", "zoo-a 1.0"]
    assert (of_z, of_a) == (["same/net", "zoo-z 1.0"], ["same/net", "zoo-a 1.0"])


def test_a_clash_makes_strict_plugins_fail(tmp_path: Path) -> None:
    for name in ("zoo-a", "zoo-b"):
        fake_dist(tmp_path, name, names=["same/net"])
    done = run_zoo("list", "--strict-plugins", paths=[tmp_path])
    assert done.returncode == 1
    assert "zoo-a 1.0" in done.stderr
    assert "zoo-b 1.0" in done.stderr
    assert "Traceback" not in done.stderr


def test_blocked_plugins_are_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dist(tmp_path, "zoo-marker", f"open({str(tmp_path / 'marker')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    for arguments in ({"block": ["zoo_marker"]}, {"block": ["marker"]}, {"allow": ["nothing"]}, {"allow": []}):
        (plugin,) = [load(one) for one in find_plugins(Policy.of(**arguments)) if one.distribution == "zoo-marker"]  # type: ignore[arg-type]
        assert plugin.status == "disabled"
        assert plugin.cause
    assert not (tmp_path / "marker").exists()
    assert "zoo_marker" not in sys.modules


def test_ctrl_c_while_a_plugin_loads_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dist(tmp_path, "zoo-stopped", "raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        load(next(one for one in find_plugins() if one.distribution == "zoo-stopped"))


def test_every_misspelt_hook_is_told_at_once() -> None:
    class Misspelt:
        @zoo.hookimpl
        def zoo_backbone(self) -> list[Any]:
            return []

        @zoo.hookimpl
        def zoo_head(self) -> list[Any]:
            return []

        def zoo_find_backbone(self, name: str) -> None:
            return None

    (plugin,) = Registry(plugins=[Misspelt()], files=[]).plugins
    assert all(hook in plugin.cause for hook in ("'zoo_backbones'", "'zoo_heads'", "'zoo_find_backbone' is not marked"))


def test_a_module_with_lazy_attributes_stays_asleep(tmp_path: Path) -> None:
    source = """
        import zoo

        def __getattr__(name):
            import torch
            return torch.nn.Module

        def __dir__():
            return ["zoo_backbones", "Heavy"]

        @zoo.hookimpl
        def zoo_backbones():
            return []
    """
    fake_dist(tmp_path, "zoo-lazy", source)
    code = "import sys; from zoo.registry.registry import Registry; print([p.cause for p in Registry().plugins], 'torch' in sys.modules)"
    done = run_python(code, tmp_path)
    assert done.stdout.rstrip().endswith("False"), done.stdout + done.stderr


def test_an_open_family_is_asked_last_and_one_that_fails_only_counts_if_no_other_knows() -> None:
    asked = []

    class Open:
        @zoo.hookimpl
        def zoo_find_backbone(self, name: str) -> Any:
            asked.append(name)
            return toy_spec(name) if name.startswith("open/") else None

    class Fails:
        @zoo.hookimpl
        def zoo_find_backbone(self, name: str) -> Any:
            raise SystemExit(f"no network for {name}")

    registry = Registry(plugins=[Fails(), Open(), ToyPlugin()], files=[])
    assert registry.resolve("toy/net").spec.name == "toy/net"
    assert asked == []
    entry = registry.resolve("open/any")
    assert (entry.spec.name, entry.plugin.name if entry.plugin else "") == ("open/any", "Open")
    with pytest.raises(PluginError, match=r"Fails.*no network for shut/any"):
        registry.resolve("shut/any")


def test_two_open_families_that_know_a_name_are_an_error() -> None:
    class Open:
        @zoo.hookimpl
        def zoo_find_backbone(self, name: str) -> Any:
            return toy_spec(name)

    plugins = [Plugin(name="open", distribution=f"zoo-{which}", version="1", object=Open()) for which in "ab"]
    with pytest.raises(AmbiguousNameError, match="zoo-a 1 and by zoo-b 1"):
        Registry(plugins=plugins, files=[]).resolve("open/any")


def test_an_open_family_must_return_a_spec() -> None:
    class Open:
        @zoo.hookimpl
        def zoo_find_backbone(self, name: str) -> Any:
            return {"name": name}

    with pytest.raises(PluginError, match="Open returned dict"):
        Registry(plugins=[Open()], files=[]).resolve("open/any")


def test_a_function_is_loaded_by_its_reference() -> None:
    assert load_function("tests.toy:toy_spec") is toy_spec
    with pytest.raises(PluginError, match=r"toy_spce.*did you mean 'toy_spec'"):
        load_function("tests.toy:toy_spce")
    with pytest.raises(MissingExtraError, match="no_such_package"):
        load_function("no_such_package.models:build")


def found(folder: Path, distribution: str, *more: Path) -> list[dict[str, Any]]:
    """The plugins of a distribution, as a program of its own sees them."""
    done = run_zoo("plugins", "--json", paths=[folder, *more], cwd=folder)
    assert done.returncode == 0, done.stderr
    names = {distribution, distribution.replace("-", "_")}
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return [row for row in rows if row["distribution"] in names]

"""Small doors of the command line and of functions: numbers with a unit, misspelt arguments, plugins by name."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.faults.fake_dist import fake_dist, run_zoo
from zoo.cli.arguments.settings import pairs
from zoo.cli.commands.doctor import _folder
from zoo.cli.commands.listing import number
from zoo.errors import OptionError, RegistryFileError
from zoo.plugins import policy
from zoo.plugins.compat import misfit
from zoo.plugins.entry_points import Found, installed
from zoo.select.tuning_search.dimensions import parse


@pytest.mark.parametrize(("text", "value"), [("30M", 30e6), ("30m", 30e6), ("500k", 5e5), ("1.5B", 1.5e9), ("30e6", 30e6), ("12", 12.0)])
def test_a_number_of_parameters_may_have_a_unit(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "M", "30X", "many"])
def test_what_is_no_number_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 30e6, 30M or 500k"):
        number(text)


def test_a_misspelt_argument_of_a_function_is_told_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'weights'"):
        zoo.get("zoo/glyphnet", wieghts=False)
    with pytest.raises(OptionError, match="did you mean 'head'"):
        zoo.get("zoo/glyphnet", weights=False).adapt(2, hed="mlp")
    model = zoo.get("zoo/glyphnet", weights=False).adapt(2)
    with pytest.raises(OptionError, match="did you mean 'recipe'"):
        model.fit("nowhere", recip="full")


def test_a_name_that_no_plugin_has_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    site = fake_dist(tmp_path / "site", "zoo-alpha", names=["alpha/net"])
    for words in (
        ["list", "--block", "alhpa"],
        ["--allow", "alhpa", "list"],
        ["plugins", "disable", "alhpa"],
        ["plugins", "check", "alhpa"],
    ):
        done = run_zoo(*words, paths=[site], XDG_CONFIG_HOME=str(tmp_path))
        assert done.returncode == 2, words
        assert "did you mean 'alpha'" in done.stderr, words
    done = run_zoo("plugins", "chek", paths=[site])
    assert done.returncode == 2
    assert "did you mean 'check'" in done.stderr


def test_the_users_file_is_written_whole_and_read_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = policy.switch("zoo-b", on=False)
    policy.switch("zoo-a", on=False)
    policy.switch("Zoo_B", on=True)
    assert policy.read_user_file() == {"disable": ["zoo-a"]}
    path.write_text('allow = ["c"]\n')
    policy.switch("d", on=True)
    assert policy.read_user_file() == {"disable": [], "allow": ["c", "d"]}
    for text, fact in (("disabel = []", "did you mean 'disable'"), ("disable = 'x'", "list of names"), ("disable = [", "cannot be read")):
        path.write_text(text)
        with pytest.raises(RegistryFileError, match=fact):
            policy.current_policy()
    assert [entry.name for entry in path.parent.iterdir()] == ["plugins.toml"]


def test_doctor_imports_no_plugin_while_the_users_file_cannot_be_read(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    site = fake_dist(tmp_path / "site", "zoo-marked", f"open({str(marker)!r}, 'w').close()")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "plugins.toml").write_text("disable = [")
    done = run_zoo("doctor", "--json", paths=[site], XDG_CONFIG_HOME=str(tmp_path), ZOO_CACHE=str(tmp_path), HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "plugins.toml cannot be read" in done.stderr
    assert not marker.exists()


def test_the_doctor_survives_a_folder_that_cannot_even_be_looked_for(tmp_path: Path) -> None:
    assert _folder("index of plugins", tmp_path / ("x" * 300) / "plugins")["fault"] == ""


@pytest.mark.parametrize("origin", ["file", pytest.param("environment", marks=pytest.mark.sweep)])
def test_a_misspelt_name_that_blocks_nothing_is_told(origin: str, tmp_path: Path) -> None:
    site = fake_dist(tmp_path / "site", "zoo-alpha", names=["alpha/net"])
    around = {"XDG_CONFIG_HOME": str(tmp_path), "ZOO_CACHE": str(tmp_path), "HF_HOME": str(tmp_path)}
    if origin == "file":
        (tmp_path / "zoo").mkdir()
        (tmp_path / "zoo" / "plugins.toml").write_text('disable = ["alhpa", "zoo-alpha"]')
    else:
        around["ZOO_PLUGINS_BLOCK"] = "alhpa zoo-alpha"
    done = run_zoo("list", "zoo/*", paths=[site], **around)
    assert done.returncode == 0, done.stderr
    assert "'alhpa' (did you mean 'alpha'?): blocked by" in done.stderr
    assert done.stderr.count("blocked by") == 1
    done = run_zoo("doctor", paths=[site], **around)
    assert done.returncode == 1
    assert "'alhpa' (did you mean 'alpha'?): blocked by" in done.stderr


def test_an_empty_list_of_allowed_plugins_in_the_environment_allows_none(tmp_path: Path) -> None:
    site = fake_dist(tmp_path / "site", "zoo-alpha", names=["alpha/net"])
    assert "alpha/net" not in run_zoo("list", paths=[site], ZOO_PLUGINS_ALLOW="").stdout
    assert "alpha/net" in run_zoo("list", paths=[site], ZOO_PLUGINS_BLOCK="").stdout


def test_what_is_required_is_found_however_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in (("made-in-place", "made_in_place.egg-info"), ("made-long-ago", "made_long_ago-2.0-py3.11.egg-info")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")

    class Nowhere(importlib.metadata.Distribution):
        """A distribution of a finder that has no folders and lists nothing."""

        def read_text(self, filename: str) -> str | None:
            return "Metadata-Version: 2.1\nName: made-elsewhere\nVersion: 2.0\n" if filename == "METADATA" else None

        def locate_file(self, path: Any) -> Any:
            raise FileNotFoundError(path)

    class Finder:
        @staticmethod
        def find_spec(*_: object) -> None:
            return None

        @staticmethod
        def find_distributions(context: Any) -> list[importlib.metadata.Distribution]:
            return [Nowhere()] if context.name == "made-elsewhere" else []

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    versions = installed("zoo").versions
    found = Found("zoo-x", "x", "x", "1.0", requires=("made-in-place>=2", "made-long-ago>=2", "made-elsewhere>=2"))
    assert misfit(found, versions) == ""
    assert "made-elsewhere>=3, and 2.0 is installed" in misfit(found._replace(requires=("made-elsewhere>=3",)), versions)
    assert "zoo-absent, which is not installed" in misfit(found._replace(requires=("zoo-absent",)), versions)
    assert "zoo>=0.1, which is not installed; zoo is another project there: require transfer-zoo" in misfit(
        found._replace(requires=("zoo>=0.1",)), versions | {"zoo": ""}
    )


@pytest.mark.parametrize(("word", "value"), [("True", True), ("False", False), ("true", True), ("0.5", 0.5), ("Falsehood", "Falsehood")])
def test_truth_values_may_be_written_as_the_messages_write_them(word: str, value: Any) -> None:
    assert pairs([f"freeze_bn={word}"], "--set") == {"freeze_bn": value}


def test_choices_of_a_search_may_be_truth_values_as_python_writes_them() -> None:
    assert parse("True|False|none") == parse("true|false|none")

"""Small doors of the command line and of functions: numbers with a unit, misspelt arguments, plugins by name."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

import zoo
from tests.faults.fake_dist import fake_dist, run_zoo
from zoo import policy
from zoo.cli.doctor import _folder
from zoo.cli.listing import number
from zoo.errors import OptionError, RegistryFileError


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

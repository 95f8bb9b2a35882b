"""The wheels hold all they need and work in an environment that has never seen the source."""

from __future__ import annotations

import email
import functools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.clean import CORE, PROJECTS, Environment, build_wheel, make_environment

CONTENTS = {
    CORE: ["zoo/py.typed", "zoo/registry.toml", "zoo/builtin/glyphnet.safetensors"],
    "zoo-timm": ["zoo_timm/py.typed", "zoo_timm/catalogue.json"],
    "zoo-hf": ["zoo_hf/py.typed", "zoo_hf/catalogue.json"],
    "zoo-torchvision": ["zoo_torchvision/py.typed", "zoo_torchvision/catalogue.json"],
}


@pytest.fixture(scope="module")
def wheel_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("wheels")
    return functools.cache(lambda name: build_wheel(PROJECTS[name], folder))


@pytest.fixture(scope="module")
def core_only(wheel_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("core") / "venv", [wheel_of(CORE)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six grey images in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for label, value in (("dark", 40), ("light", 200)):
        (folder / label).mkdir()
        for number in range(6):
            Image.new("L", (32, 32), value + number).save(folder / label / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_holds_its_data_its_types_and_its_licence_and_no_tests(wheel_of: Callable[[str], Path], name: str) -> None:
    with zipfile.ZipFile(wheel_of(name)) as wheel:
        names = wheel.namelist()
    missing = [path for path in CONTENTS.get(name, []) if path not in names]
    assert not missing, f"{wheel_of(name).name} lacks {missing}"
    assert any(path.endswith("dist-info/licenses/LICENSE") for path in names)
    assert not [path for path in names if "tests/" in path or path.endswith("toy.py")]


@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_asks_for_nothing_that_an_index_does_not_have(wheel_of: Callable[[str], Path], name: str) -> None:
    with zipfile.ZipFile(wheel_of(name)) as wheel:
        (metadata,) = (path for path in wheel.namelist() if path.endswith("dist-info/METADATA"))
        requirements = email.message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist") or []
    assert requirements
    assert not [requirement for requirement in requirements if " @ " in requirement]


def test_the_core_alone_lists_shows_and_trains(core_only: Environment, photos: Path, tmp_path: Path) -> None:
    listed = json.loads(core_only.run("zoo", "list", "--json", cwd=tmp_path).stdout)
    assert {entry["name"].split("/")[0] for entry in listed} == {"zoo"}
    plugins = json.loads(core_only.run("zoo", "plugins", "--json", cwd=tmp_path).stdout)
    assert [(plugin["distribution"], plugin["status"]) for plugin in plugins] == [(CORE, "ok")]
    assert "zoo/glyphnet" in core_only.run("zoo", "show", "zoo/glyphnet", cwd=tmp_path).stdout
    core_only.run_warm(
        "from zoo.cli import main; main(sys.argv[1:])",
        "train",
        "zoo/glyphnet",
        str(photos),
        "--valid",
        str(photos),
        "--epochs",
        "2",
        "--set",
        "allow_leak=true",
        "--out",
        "out",
        cwd=tmp_path,
    )
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_core_is_imported_from_its_wheel(core_only: Environment, tmp_path: Path) -> None:
    where = core_only.run("python", "-c", "import zoo; print(zoo.__file__)", cwd=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(core_only.folder)


def test_a_name_of_a_plugin_that_is_not_installed_says_what_to_install(core_only: Environment, tmp_path: Path) -> None:
    done = core_only.run("zoo", "show", "timm/resnet18", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "pip install ./plugins/zoo-timm" in " ".join((done.stdout + done.stderr).split())


def test_all_wheels_together_list_every_plugin_as_healthy(wheel_of: Callable[[str], Path], tmp_path: Path) -> None:
    environment = make_environment(tmp_path / "venv", map(wheel_of, PROJECTS))
    plugins = json.loads(environment.run("zoo", "plugins", "--json", cwd=tmp_path).stdout)
    assert {plugin["distribution"] for plugin in plugins} == set(PROJECTS)
    assert {plugin["status"] for plugin in plugins} == {"ok"}

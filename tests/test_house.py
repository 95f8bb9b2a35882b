"""The things around the code: the commands, the requirements, the version, the licence."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import zoo
from tests.clean import CORE, PROJECTS, ROOT
from zoo.util.extras import MODULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The distribution that a module comes in, where the two names differ.
DISTRIBUTIONS = {"zoo": CORE, "PIL": "pillow", "huggingface_hub": "huggingface-hub", "sklearn": "scikit-learn"}
# Modules that are imported only where they are installed, or come with a plugin: the code says what to install.
OPTIONAL = {"torchvision", "pytest", "tifffile", "pillow_heif", "pillow_avif"} | {one for extra in MODULES.values() for one in extra}
# What a plugin requires for others: the core, which says what to install where it is absent, or the library that it wraps.
FOR_THE_CORE = {"zoo-hf": {"seqeval"}, "zoo-medical": {"monai", "nibabel", "pydicom"}}
FOR_THE_LIBRARY = {"zoo-hf": {"protobuf", "sentencepiece", "tokenizers"}, "zoo-medical": {"einops"}}


def project(name: str) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((PROJECTS[name] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def requirements(name: str) -> dict[str, Requirement]:
    found = [Requirement(text) for text in project(name)["dependencies"]]  # type: ignore[attr-defined]  # a list of strings
    return {requirement.name: requirement for requirement in found}


def imported(folder: Path) -> set[str]:
    """The distributions that the code of a package imports, at the top or inside a function."""
    modules: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    return {DISTRIBUTIONS.get(module, module) for module in modules - set(sys.stdlib_module_names) - OPTIONAL}


@pytest.mark.parametrize("name", PROJECTS)
def test_what_a_distribution_requires_is_what_its_code_imports(name: str) -> None:
    package = "zoo" if name == CORE else name.replace("-", "_")
    guests = set().union(*FOR_THE_CORE.values())
    used = imported(PROJECTS[name] / package) - {DISTRIBUTIONS.get(package, package)} - (guests if name == CORE else set())
    used |= FOR_THE_CORE.get(name, set()) | FOR_THE_LIBRARY.get(name, set())
    assert used == set(requirements(name)) - OPTIONAL, f"imported: {sorted(used)}"


@pytest.mark.parametrize("name", PROJECTS)
def test_requirements_have_lower_bounds_only(name: str) -> None:
    operators = {specifier.operator for requirement in requirements(name).values() for specifier in requirement.specifier}
    assert operators <= {">="}


def pins() -> dict[str, set[str]]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found: dict[str, set[str]] = {}
    for requirement in parsed:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{requirement} is not one tested version"
        found.setdefault(requirement.name, set()).add(specifier.version)
    return found


@pytest.mark.parametrize("name", PROJECTS)
def test_every_requirement_has_a_tested_version_that_its_bound_allows(name: str) -> None:
    tested = pins()
    extras = [Requirement(text) for extra in MODULES for text in project(CORE)["optional-dependencies"][extra]]  # type: ignore[index]
    for requirement in (*requirements(name).values(), *extras):
        if requirement.name not in PROJECTS:
            assert requirement.name in tested, f"{requirement.name} is not in constraints.txt; run: make constraints"
            assert all(requirement.specifier.contains(version) for version in tested[requirement.name])


def test_all_distributions_have_one_version_and_the_changelog_tells_it() -> None:
    assert {project(name)["version"] for name in PROJECTS} == {zoo.__version__}
    assert f"\n## {zoo.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_there_is_an_extra_for_every_plugin_and_one_for_all() -> None:
    extras: dict[str, list[str]] = dict(project(CORE)["optional-dependencies"])  # type: ignore[call-overload]  # a table of lists
    plugins = sorted(set(PROJECTS) - {CORE})
    assert extras.pop("all") == [f"{CORE}[{','.join(MODULES)}]", *plugins]
    libraries = {extra: tuple(Requirement(text).name for text in extras.pop(extra)) for extra in MODULES}
    assert libraries == MODULES
    assert extras == {name.removeprefix("zoo-"): [name] for name in plugins}


def test_the_environment_of_development_has_every_extra() -> None:
    script = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    assert f'--editable ".[{",".join(MODULES)}]"' in script


@pytest.mark.parametrize("name", PROJECTS)
def test_the_licence_travels_with_every_distribution(name: str) -> None:
    text = (PROJECTS[name] / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def make(*words: str) -> str:
    return subprocess.run(["make", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_help_lists_every_action() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (actions,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert re.findall(r"^  make (\S+) ", make("help"), re.MULTILINE) == actions.split()


@needs_make
def test_the_environment_is_set_up_again_when_a_requirement_changes_and_only_then(tmp_path: Path) -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "scripts/setup.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    stamp = tmp_path / ".venv" / ".ready"
    stamp.parent.mkdir()
    stamp.touch()

    def sets_up() -> bool:
        command = ["make", "--dry-run", "setup"]
        return "setup.sh" in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout

    assert not sets_up()
    later = stamp.stat().st_mtime + 60
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert sets_up()


@needs_make
@pytest.mark.parametrize("end", ["lowest", "newest"])
def test_both_ends_of_the_supported_versions_run_tests_that_exist(end: str) -> None:
    commands = make("--dry-run", f"test-{end}")
    files = re.findall(r"\S+/test_\w+\.py", commands)
    assert f"setup.sh {end}" in commands
    assert {file.split("/")[1] for file in files} >= set(PROJECTS) - {CORE}
    assert not [file for file in files if not (ROOT / file).is_file()]


def test_setting_up_with_an_old_python_says_what_is_needed(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(
        f"#!/bin/sh\nshift\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 9); exec(sys.argv[1])' \"$1\"\n", encoding="utf-8"
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["sh", "scripts/setup.sh"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "needs Python 3.10 or newer" in done.stderr


def test_the_ci_script_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)

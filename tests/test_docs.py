"""The documentation runs: every Python block, every command, and the tutorial that grows a plugin, from top to bottom.

Fenced blocks are read as follows: ``python`` runs, all blocks of a page in one namespace; ``python file=NAME`` (or toml) is
written to that file; ``console`` runs each line after ``$``, and where lines of output are shown they must appear, with
``…`` standing for anything; ``console fails`` must end with an error;
``console shown`` is not run, but its commands must be right; ``python shown``, which needs weights from the network, must compile.
"""

from __future__ import annotations

import doctest
import inspect
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import zoo
from scripts.make_options_page import made
from tests.clean import CORE, PROJECTS, ROOT, Environment, build_wheel, make_environment
from zoo import errors, hookspecs
from zoo.engine.options.augment_options import AUGMENT_FIELDS
from zoo.engine.options.config import DECLARED, OPTIONS
from zoo.engine.options.recipes import RECIPES
from zoo.engine.options.reference import short_help
from zoo.registry.registry import use_registry

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]
COLORS = {"ants": (150, 60, 40), "bees": (220, 190, 60)}


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def file(self) -> str:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Command(NamedTuple):
    block: Block
    words: list[str]
    output: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\S+)?([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        language, words, body = found.groups()
        yield Block(page, text[: found.start(3)].count("\n") + 1, language or "", tuple(words.split()), body)


def commands(block: Block) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block.text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield Command(block, shlex.split(line, comments=True), output)


def all_commands() -> list[Command]:
    return [command for page in PAGES for block in blocks(page) if block.language == "console" for command in commands(block)]


def identifier(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_tutorial(page: Path) -> bool:
    return any(command.words[0] == "pip" and "-e" in command.words for block in blocks(page) for command in commands(block))


def runs(page: Path) -> bool:
    return any(block.language in ("python", "console") and "shown" not in block.words for block in blocks(page))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with small image folders, as the pages assume it; a registry that a page sets is forgotten after it."""
    rng = random.Random(0)
    for split, number in (("train", 8), ("val", 4), ("test", 4)):
        for label, color in COLORS.items():
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for i in range(number):
                shade = tuple(value + rng.randrange(-30, 30) for value in color)
                Image.new("RGB", (48, 40), shade).save(folder / f"{i}.jpg")
    Image.new("RGB", (64, 64), COLORS["bees"]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for name in ("ZOO_REGISTRY", "ZOO_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield tmp_path
    use_registry()


def execute(block: Block, namespace: dict[str, Any]) -> None:
    """Run a Python block so that a traceback names the line of the page."""
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    exec(code, namespace)


def write(block: Block, folder: Path) -> None:
    file = folder / block.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text, encoding="utf-8")


def check_output(command: Command, output: str) -> None:
    """Compare shown with printed lines; ``…`` on a line of its own stands for any lines, inside a line for any text."""
    if command.output.strip():
        want, got = (" ".join(text.split()) for text in (command.output, output))
        checker = doctest.OutputChecker()
        assert checker.check_output(want.replace("…", "..."), got, doctest.ELLIPSIS), (
            f"{command.block.place} shows\n{want}\nbut it printed\n{got}"
        )


def run_zoo(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command line in this process, which has torch in memory already."""
    from zoo.cli import main

    capsys.readouterr()
    code = 0
    try:
        code = int(main(words) or 0)
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.fixture
def families_as_before() -> Iterator[None]:
    """An example registers a family of models, for its process."""
    families = pytest.importorskip("zoo_hf.declared_families").FAMILIES
    before = dict(families)
    yield
    families.clear()
    families.update(before)


@pytest.mark.usefixtures("families_as_before")
@pytest.mark.parametrize("page", [page for page in PAGES if page.exists() and runs(page) and not is_tutorial(page)], ids=identifier)
def test_every_example_of_the_page_runs(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.file:
            write(block, desk)
        elif block.language == "python" and "shown" in block.words:
            compile(block.text, block.place, "exec")
        elif block.language == "python":
            execute(block, namespace)
        elif block.language == "console" and "shown" not in block.words:
            for command in commands(block):
                if command.words[0] == "zoo":
                    code, output = run_zoo(command.words[1:], capsys)
                    assert (code != 0) == ("fails" in block.words), f"{block.place}: {command.words} ended with {code}:\n{output}"
                    check_output(command, output)


# A dozen processes that import torch; test_third_party.py takes the same steps with plugins of its own in every run of the tests.
@pytest.mark.sweep
@pytest.mark.parametrize("page", [page for page in PAGES if page.exists() and is_tutorial(page)], ids=identifier)
def test_the_tutorial_works_from_nothing(page: Path, desk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tutorial")
    environment = make_environment(folder / "venv", [build_wheel(PROJECTS[CORE], folder)])
    for block in blocks(page):
        if block.file:
            write(block, desk)
        elif block.language == "console" and "shown" not in block.words:
            for command in commands(block):
                follow(command, environment, desk)


def follow(command: Command, environment: Environment, desk: Path) -> None:
    if command.words[:2] == ["pip", "install"]:
        environment.install(*command.words[2:])
        return
    done = environment.run(*command.words, cwd=desk, check=False)
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == ("fails" in command.block.words), f"{command.block.place} ended with {done.returncode}:\n{output}"
    assert "Traceback" not in output, output
    check_output(command, output)


NOT_RUN = [c for c in all_commands() if c.words[0] == "zoo" and ("shown" in c.block.words or is_tutorial(c.block.page))]


@pytest.mark.parametrize("command", NOT_RUN, ids=lambda c: " ".join(c.words))
def test_a_command_that_is_only_shown_or_of_a_tutorial_can_be_parsed(command: Command) -> None:
    from zoo.cli.app import build_parser

    build_parser(command.words[1:]).parse(command.words[1:])


def test_every_make_target_and_extra_that_is_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for command in all_commands():
        if command.words[0] == "make":
            targets = [word for word in command.words[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), f"{command.block.place}: {command.words}"
        for extra in re.findall(r"zoo\[([\w,-]+)\]", " ".join(command.words)):
            assert all(f"\n{name} = [" in project for name in extra.split(",")), f"{command.block.place}: {command.words}"


def test_the_readme_opens_with_three_lines_then_the_two_commands_then_python_then_the_command_line() -> None:
    languages = [(block.language, block.text.strip().splitlines()) for block in blocks(ROOT / "README.md")]
    assert [language for language, _ in languages[:4]] == ["python", "console", "python", "console"]
    assert [line for line in languages[0][1] if "model" in line] == languages[0][1][2:]  # three lines after the import
    assert languages[1][1] == ["$ make demo", "$ make test"]


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return (target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target)


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_every_link_of_the_page_leads_somewhere(page: Path) -> None:
    dead = [target for target in links(page) if not (page.parent / target).exists()]
    assert not dead, f"{identifier(page)} links to {dead}"


KINDS = (errors.ZooError, errors.InterruptedRunError)
ERRORS = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, KINDS)}


@pytest.mark.parametrize("name", sorted(set(ERRORS) - {"ZooError"}))
def test_every_error_class_stands_on_the_errors_page_with_its_parent_and_exit_code(name: str) -> None:
    rows = re.findall(rf"^\| `{name}` \| `(\w+)` \| (\d+) \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    kind = ERRORS[name]
    builtin = next(parent for parent in kind.__mro__ if parent.__module__ == "builtins")
    assert rows == [(builtin.__name__, str(kind.exit_code))]


def test_the_errors_page_names_no_class_that_does_not_exist() -> None:
    named = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) == set(ERRORS) - {"ZooError"}


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    hooks = {name: function for name, function in vars(hookspecs).items() if name.startswith("zoo_")}
    assert re.findall(r"^## `(\w+)`", text, re.MULTILINE) == list(hooks)
    for name, function in hooks.items():
        assert f"\n{name}{str(inspect.signature(function)).replace(chr(39), '')}\n" in text


def test_every_option_of_a_run_stands_in_the_reference() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert not [name for name in (*OPTIONS, *AUGMENT_FIELDS, *RECIPES) if f"`{name}`" not in page]


@pytest.mark.parametrize("name", ["options.md", "recipes.md", "metrics.md"])
def test_the_tables_of_the_options_and_recipes_are_those_of_their_declarations(name: str) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert made(page) == page, "run: python scripts/make_options_page.py"
    assert "<!-- end of " in page


def test_what_dir_names_is_public_and_there() -> None:
    names = [name for name in dir(zoo) if not name.startswith("__")]
    assert all(hasattr(zoo, name) for name in names)
    assert {"BackboneSpec", "get", "list_backbones", "load", "hookimpl", "testing", "tuning", "Phase"} <= set(names)
    assert not {"Any", "TYPE_CHECKING", "annotations", "declare", "errors", "engine", "models", "ModuleType"} & set(names)
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("command", ["convert", "lock", "download", "cache"])
def test_the_commands_on_weights_stand_on_the_page_on_weights(command: str) -> None:
    assert f"`zoo {command}" in (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")


def test_every_flag_and_its_help_come_from_the_declarations(capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.cli import main

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, option in DECLARED.items():
        if option.flag:
            assert f"--{name.replace('_', '-')}" in text
            assert short_help(name).replace("%%", "%") in text

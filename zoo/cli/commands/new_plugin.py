"""The command ``new-plugin``: a plugin package that works and passes its own test."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from zoo.cli.arguments.parser import Commands
from zoo.cli.output.stdout import Output
from zoo.errors import OptionError, OutputExistsError
from zoo.hookspecs import API_VERSION

TEMPLATES = Path(__file__).with_name("new_plugin_files")
FILES = {
    "pyproject.toml": "pyproject.toml.in",
    "README.md": "README.md.in",
    "@MODULE@/__init__.py": "module.py.in",
    "@MODULE@/models.py": "models.py.in",
    "@MODULE@/py.typed": "",
    "tests/test_@MODULE@.py": "test.py.in",
    ".github/workflows/test.yml": "workflow.yml.in",
}


def register(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("new-plugin", help="write a plugin that works: module, pyproject.toml, test, README, workflow")
    command.add_argument("name", metavar="NAME", help="name of the distribution, such as zoo-acme or acme")
    command.add_argument("--dir", type=Path, metavar="DIR", help="folder to write; by default one of that name here")
    command.set_defaults(run=new_plugin)


def new_plugin(options: argparse.Namespace, out: Output) -> None:
    """Write the package and print the next steps.

    Raises:
        OptionError: If the name is not a valid name of a distribution.
        OutputExistsError: If the folder exists and is not empty.
    """
    folder = write_plugin(options.name, options.dir)
    print(f"{folder} holds a plugin that works. Next:")
    print(f"  pip install -e {folder}\n  python -m pytest {folder}\n  zoo list '{short_name(options.name)}/*'")


def write_plugin(distribution: str, folder: Path | None = None) -> Path:
    """Write the package ``distribution`` into ``folder`` and return the folder."""
    short = short_name(distribution)
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", short) or "--" in short:
        raise OptionError(
            f"{distribution!r} cannot be the name of a distribution; use lower-case letters, digits and dashes, such as zoo-acme"
        )
    folder = folder or Path(f"zoo-{short}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{str(folder)!r} exists and is not empty; choose another --dir")
    words = {"API": str(API_VERSION), "SHORT": short, "DISTRIBUTION": f"zoo-{short}", "MODULE": f"zoo_{short.replace('-', '_')}"}
    for name, template in FILES.items():
        target = folder / _filled(name, words)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (TEMPLATES / template).read_text(encoding="utf-8") if template else ""
        target.write_text(_filled(text, words), encoding="utf-8")
    return folder


def short_name(name: str) -> str:
    """Return the name without the prefix ``zoo-``, the source of the backbones' names."""
    return name.removeprefix("zoo-").replace("_", "-")


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text

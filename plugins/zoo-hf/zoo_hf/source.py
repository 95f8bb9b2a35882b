"""Local folders and Hub repositories of models; their small files are read as data, their weights are only named."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo

LIMIT = 10_000_000  # bytes; what is larger is not a configuration


@dataclass(frozen=True)
class Folder:
    """A local folder."""

    path: Path

    @property
    def files(self) -> str:
        """Where ``open_tokenizer`` finds the tokenizer's files."""
        return str(self.path)

    def find(self, file: str) -> Path | None:
        """Return the path of a file, or None where there is none.

        Raises:
            zoo.ZooError: If it lies outside the folder, by its name or by a link.
        """
        if "\0" in file:
            return None
        folder, path = self.path.resolve(), self.path / file
        inside = folder in path.resolve().parents or _in_cache(folder, path)
        if not inside or ".." in Path(file).parts:
            raise zoo.ZooError(f"{str(self.path)!r}: {file!r} leads out of the folder, to {str(path.resolve())!r}; copy the file there")
        return path if path.is_file() else None

    def weights(self, below: str, license: str) -> zoo.Weights:
        """Return the declaration of the weights; whether the folder has any is asked when they are needed."""
        for name in zoo.WEIGHT_FILES:
            self.find(below + name)  # raises for a link that leads out of the folder
        return zoo.Weights(file=str(self.path / below), license=license)


def _in_cache(folder: Path, path: Path) -> bool:
    """Tell whether a link in a snapshot of a Hub's cache leads to a blob of its repository."""
    places = [place for place in (folder, *folder.parents) if place.parent.name == "snapshots"]
    return any(place.parent.parent / "blobs" == path.resolve().parent for place in places)


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub at a revision; empty means its main branch."""

    repo: str
    revision: str = ""

    @property
    def files(self) -> str:
        """Where ``open_tokenizer`` finds the tokenizer's files."""
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    def find(self, file: str) -> Path | None:
        """Return the path of a file in the cache, or None where the repository has none.

        Raises:
            zoo.ZooError: If neither is known: a guess would silently give another preparation of the inputs.
        """
        return zoo.fetch(self.repo, file, self.revision, owner=f"hf/{self.files}", missing_ok=True)

    def weights(self, below: str, license: str) -> zoo.Weights:
        """Return the declaration of the weights; whether they exist is asked when they are needed."""
        return zoo.Weights(repo=self.repo, revision=self.revision, file=below + zoo.WEIGHT_FILES[0], license=license)


Source = Folder | Repository


def read_json(source: Source, file: str) -> Any:
    """Return the content of a JSON file, or None where there is none.

    Raises:
        zoo.ZooError: If it is too large or no JSON.
    """
    path = source.find(file)
    if path is None:
        return None
    if path.stat().st_size > LIMIT:
        raise zoo.ZooError(f"{source.files}: {file} is larger than {LIMIT} bytes: it is no configuration")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise zoo.ZooError(f"{source.files}: {file} is no JSON ({error}); fetch it again") from error


def read_table(source: Source, file: str) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object; an empty one where there is no file.

    Raises:
        zoo.ZooError: If it holds something else.
    """
    told = read_json(source, file)
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise zoo.ZooError(f"{source.files}: {file} holds {type(told).__name__}, not an object")
    return told


def license_of(source: Source) -> str:
    """Return the licence that the front matter of README.md states, in lower case, or ``unknown``."""
    try:
        path = source.find("README.md")
    except FileNotFoundError:  # not in the cache, and no network: nothing but the licence is unknown then
        path = None
    text = path.read_text(encoding="utf-8", errors="replace")[:LIMIT] if path else ""
    front = re.match(r"\s*---\s*\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license:[ \t]*['\"]?([A-Za-z0-9][\w.+-]*)", front[1], re.MULTILINE) if front else None
    return stated[1].lower() if stated else "unknown"

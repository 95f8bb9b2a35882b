"""Reader of ``registry.toml``: aliases, derived backbones, pins and sources; raises all faults of all files at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.declare import BackboneSpec, Image, Text, Volume, Weights, from_fields
from zoo.declare.digest_forms import COMMIT_DIGITS, SHA256_DIGITS, is_commit, is_sha256
from zoo.errors import DeclarationError, RegistryFileError, count, did_you_mean, fault_list
from zoo.util.atomic_write import config_folder
from zoo.util.toml_files import read_toml

_PINNED = (("revision", is_commit, COMMIT_DIGITS), ("sha256", is_sha256, SHA256_DIGITS))
_BACKBONE_KEYS = ("base", "weights", "options", "inputs", "description")
# A registry file must not name code, such as the function that opens a tokenizer: it may be in the current directory.
_INPUT_KEYS = sorted({f.name for kind in (Image, Text, Volume) for f in dataclasses.fields(kind)} - {"tokenizer"})


@dataclass(frozen=True)
class Source:
    """The distribution that provides backbones ``<source>/…``, and the extra that installs it, if any."""

    distribution: str
    extra: str = ""


@dataclass(frozen=True)
class Derived:
    """One backbone derived from another, as its file declares it."""

    name: str
    base: str
    file: Path
    weights: Weights | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    def apply(self, base: BackboneSpec) -> BackboneSpec:
        """Return the spec of this backbone.

        Raises:
            RegistryFileError: If the inputs do not fit the base.
        """
        where = f"{self.file}: backbone {self.name!r}"
        kind = type(base.inputs)
        given = {f.name: getattr(base.inputs, f.name) for f in dataclasses.fields(kind)}
        try:
            inputs = from_fields(kind, given | dict(self.inputs), where)
            spec = base.replace(name=self.name, base=base.name, inputs=inputs, options={**base.options, **self.options})
        except DeclarationError as error:
            raise RegistryFileError(str(error)) from error
        if self.weights:  # published metrics are of the base's weights
            spec = spec.replace(weights=self.weights, metrics={})
        return spec.replace(description=self.description) if self.description else spec


@dataclass
class RegistryData:
    """The merged content of the files; later files override earlier ones."""

    aliases: dict[str, str] = field(default_factory=dict)
    backbones: dict[str, Derived] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    pins: dict[str, Weights] = field(default_factory=dict)


def user_file() -> Path:
    """Return the user's own registry file."""
    return config_folder() / "registry.toml"


def default_files(extra: Iterable[str | os.PathLike[str]] = ()) -> list[Path]:
    """Return the files to merge, in order: shipped, the user's, the project's, ``ZOO_REGISTRY``, then ``extra``.

    Raises:
        RegistryFileError: If a file that was named explicitly does not exist.
    """
    package = Path(__file__).resolve().parents[1]
    shipped = [path for path in (package / "registry.toml", package.parent / "registry.toml") if path.is_file()][:1]
    implicit = [user_file(), Path("registry.toml")]
    named = [(_expanded(name), "ZOO_REGISTRY") for name in os.environ.get("ZOO_REGISTRY", "").split(os.pathsep) if name]
    named += [(_expanded(path), "--registry") for path in extra]
    absent = [f"{origin} names {str(path)!r}, which is no file" for path, origin in named if not path.is_file()]
    if absent:
        raise RegistryFileError("; ".join(absent))
    return [*shipped, *(path for path in implicit if path.is_file()), *(path for path, _ in named)]


def _expanded(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path's method raises if there is no such user


def read_files(files: Sequence[Path]) -> RegistryData:
    """Read and merge registry files; a file named twice is read once, at its last place.

    Raises:
        RegistryFileError: Listing every fault of every file.
    """
    data, faults = RegistryData(), list[str]()
    paths = [Path(path).resolve() for path in files]
    for position, path in enumerate(paths):
        if path not in paths[position + 1 :]:
            faults += [f"{path}: {fault}" for fault in _Reader(path, data).read()]
    if faults:
        raise RegistryFileError(fault_list(f"the registry files have {count(len(faults), 'fault')}", faults))
    return data


class _Reader:
    """Reads one file into ``data`` and collects its faults."""

    def __init__(self, path: Path, data: RegistryData) -> None:
        self.path = path
        self.data = data
        self.faults: list[str] = []

    def read(self) -> list[str]:
        try:
            document = read_toml(self.path)
        except (OSError, ValueError) as error:
            return [f"cannot be read: {error}"]
        self._only(document, ("aliases", "backbones", "pins", "sources"), "the file")
        for name, target in self._table(document, "aliases").items():
            if self._text(target, f"alias {name!r}"):
                self.data.aliases[name] = target
        for name in self._table(document, "sources"):
            self._source(name, self._table(document["sources"], name))
        for name in self._table(document, "backbones"):
            self._backbone(name, self._table(document["backbones"], name))
        for name in self._table(document, "pins"):
            self._pin(name, self._table(document["pins"], name))
        return self.faults

    def _source(self, name: str, table: Mapping[str, Any]) -> None:
        where, before = f"source {name!r}", len(self.faults)
        self._only(table, ("distribution", "extra"), where)
        self._text(table.get("distribution"), f"{where}: distribution")
        if "extra" in table:
            self._text(table["extra"], f"{where}: extra")
        if len(self.faults) == before:
            self.data.sources[name] = Source(**table)

    def _backbone(self, name: str, table: Mapping[str, Any]) -> None:
        where, before = f"backbone {name!r}", len(self.faults)
        self._only(table, _BACKBONE_KEYS, where)
        if "/" not in name:
            self.faults.append(f"{where}: the name is not of the form 'source/name'; write [backbones.\"local/{name}\"]")
        self._text(table.get("base"), f"{where}: base")
        if "description" in table:
            self._text(table["description"], f"{where}: description")
        inputs = self._table(table, "inputs", where)
        self._only(inputs, _INPUT_KEYS, f"{where}: inputs")
        options = self._table(table, "options", where)
        weights = self._weights(self._table(table, "weights", where), where) if "weights" in table else None
        if len(self.faults) == before:
            fields = {key: table[key] for key in ("base", "description") if key in table}
            self.data.backbones[name] = Derived(name=name, file=self.path, weights=weights, options=options, inputs=inputs, **fields)

    def _pin(self, name: str, table: Mapping[str, Any]) -> None:
        where, before = f"pin {name!r}", len(self.faults)
        if "/" not in name:
            self.faults.append(f"{where}: the name is not a full id 'source/name'; see the first line of: zoo show {name}")
        for key, fits, digits in _PINNED[1:] if "url" in table else _PINNED:
            if not fits(str(table.get(key))):
                self.faults.append(f"{where}: {key} is {table.get(key)!r}; it must be {digits} hexadecimal digits")
        place = "url" if "url" in table else "repo"
        self._text(table.get(place), f"{where}: {place}")
        weights = self._weights(table, where) if len(self.faults) == before else None
        if weights:
            self.data.pins[name] = weights

    def _weights(self, table: Mapping[str, Any], where: str) -> Weights | None:
        """Return the weights; a local file is relative to the file that names it."""
        elsewhere = any(table.get(key) for key in ("repo", "package", "url"))
        local = "file" in table and not elsewhere
        try:
            if local and isinstance(table["file"], str):
                table = {**table, "file": str(self.path.parent / _expanded(table["file"]))}
            wrong = [key for key, value in table.items() if not isinstance(value, str) and key != "size"]
            if wrong:
                raise DeclarationError(f"{where}: weights: {', '.join(wrong)} must be text")
            if type(table.get("size", 0)) is not int:
                raise DeclarationError(f"{where}: weights: size must be a number of bytes")
            if not local and not elsewhere:
                raise DeclarationError(f"{where}: weights: give file, or repo and file, or package and file, or url")
            return from_fields(Weights, table, f"{where}: weights")  # type: ignore[no-any-return]  # the type of its argument
        except DeclarationError as error:
            self.faults.append(str(error))
            return None

    def _only(self, table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in table:
            if key not in known:
                near = did_you_mean(key, known)
                self.faults.append(f"{where} has no key {key!r}" + (near or f"; it can have: {', '.join(known)}"))

    def _table(self, parent: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
        value = parent.get(key, {})
        if isinstance(value, dict):
            return value
        self.faults.append(f"{where + ': ' if where else ''}{key!r} is {value!r}; it must be a table")
        return {}

    def _text(self, value: object, what: str) -> bool:
        if isinstance(value, str) and value:
            return True
        self.faults.append(f"{what} is missing" if value is None else f"{what} is {value!r}; it must be text")
        return False

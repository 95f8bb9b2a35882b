"""Lookup of backbones by name: alias, derived backbone, exact id, short name, then open families of plugins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

from zoo.declare import BackboneSpec, Text, Weights
from zoo.errors import LISTED, AmbiguousNameError, PluginError, RegistryFileError, UnknownBackboneError, ZooError, examples
from zoo.plugins.hook_results import Contribution
from zoo.plugins.loader import Plugin, describe
from zoo.registry.registry_files import Derived, RegistryData
from zoo.util.atomic_write import is_file
from zoo.util.versions import how_to_install

# Files that make a folder a model of another library without a config.json of transformers: of sentence-transformers, of open_clip.
WITHOUT_CONFIG = ("modules.json", "open_clip_config.json")


class Entry(NamedTuple):
    """A spec, the plugin that builds it, and the registry file that derived it, if any.

    ``declared`` are the weights before a registry file pinned them.
    """

    spec: BackboneSpec
    plugin: Plugin | None = None
    file: Path | None = None
    declared: Weights | None = None

    @property
    def origin(self) -> str:
        """Plugin with version, or the file, for messages."""
        return str(self.file or (self.plugin and self.plugin.label) or "unknown")


def pinned(entry: Entry, pins: Mapping[str, Weights]) -> Entry:
    """Return the entry with weights pinned by a registry file; pins of another repository or URL are ignored.

    A tokenizer of the same repository is pinned to the same commit.
    """
    pin, weights = pins.get(entry.spec.name), entry.spec.weights
    if pin is None or weights is None or (weights.repo, weights.url) != (pin.repo, pin.url):
        return entry
    license = weights.license if pin.license == "unknown" else pin.license
    spec = entry.spec.replace(weights=replace(pin, license=license))
    if pin.repo and isinstance(spec.inputs, Text) and spec.inputs.files.partition("@")[0] == pin.repo:
        spec = spec.replace(inputs=replace(spec.inputs, files=f"{pin.repo}@{pin.revision}"))
    return entry._replace(spec=spec, declared=weights)


class Miss(NamedTuple):
    """A name that was not found, and the aliases and derived backbones that led to it."""

    name: str
    trail: tuple[str, ...] = ()


class Lookup:
    """Finds backbones of plugins and registry files by name; of a plugin's listing it reads what it returns."""

    def __init__(self, contributions: Sequence[Contribution], files: RegistryData) -> None:
        self._contributions = contributions
        self._files = files

    def given(self, name: str) -> list[Entry]:
        """Return the entries of the plugins under an id; more than one is a clash."""
        owners = [one for one in self._contributions if name in one.backbones]
        return [pinned(Entry(spec, one.plugin), self._files.pins) for one in owners for spec in one.backbones.named(name)]

    def given_names(self) -> Iterator[str]:
        """Yield the ids of the plugins, once per entry."""
        return chain.from_iterable(one.backbones.names for one in self._contributions)

    def find(self, name: str, *, ask: bool, trail: tuple[str, ...] = ()) -> Entry | Miss:
        """Return the entry of a name, or the miss at the end of its trail.

        Args:
            name: Alias, id, ``distribution:id``, the part of an id after its source, or a folder of another library.
            ask: Whether to ask open families too, which may import a model library.
            trail: Names that led to this one.

        Raises:
            AmbiguousNameError: If more than one plugin gives the id, or a short name fits several ids.
            RegistryFileError: If aliases and bases lead in a circle, or a derived backbone does not fit its base.
            UnknownBackboneError: If no plugin reads the folder.
        """
        if name in trail:
            raise RegistryFileError(f"the registry files lead in a circle: {' -> '.join((*trail, name))}")
        if name in self._files.aliases and "/" in name and any(name in one.backbones for one in self._contributions):
            remedy = f'choose another alias, or derive the backbone anew under its name: [backbones."{name}"]'
            raise RegistryFileError(f"the alias {name!r} of a registry file would hide the backbone of that name; {remedy}")
        if name in self._files.aliases:
            return self.find(self._files.aliases[name], ask=ask, trail=(*trail, name))
        if name in self._files.backbones:
            return self._derive(self._files.backbones[name], ask, trail)
        exact = self._exact(name)
        if exact:
            return exact
        full = [one for one in self._short.get(name, ()) if one not in trail]
        if len(full) > 1:
            raise self._ambiguous_short(name, full)
        if full:
            return self.find(full[0], ask=ask, trail=(*trail, name))
        folder = foreign_folder(name) if ask else None
        if folder:
            return self._ask(str(folder)) or _unread(folder)
        return (self._ask(name) if ask and "/" in name else None) or Miss(name, trail)

    def _exact(self, name: str) -> Entry | None:
        distribution, _, full = name.rpartition(":")
        given = self.given(full)
        if distribution:
            given = [entry for entry in given if entry.plugin and entry.plugin.distribution == distribution]
        if len(given) > 1:
            raise _ambiguous(full, given)
        return given[0] if given else None

    def _derive(self, derived: Derived, ask: bool, trail: tuple[str, ...]) -> Entry | Miss:
        if derived.base != derived.name:
            base = self.find(derived.base, ask=ask, trail=(*trail, derived.name))
        else:  # a file may override a plugin's backbone under the same id
            base = self._exact(derived.name) or (self._ask(derived.name) if ask else None) or Miss(derived.base, trail)
        if isinstance(base, Miss):
            return base
        return pinned(Entry(derived.apply(base.spec), base.plugin, derived.file), self._files.pins)

    def _ask(self, name: str) -> Entry | None:
        """Ask the open families of every plugin; a failure is raised only if no other plugin knows the name."""
        found, failures = list[Entry](), list[tuple[Plugin, BaseException]]()
        for contribution in self._contributions:
            try:
                spec = contribution.find(name)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too, as in all calls of plugins
                failures.append((contribution.plugin, error))
                continue
            found += [pinned(Entry(spec, contribution.plugin), self._files.pins)] if spec else []
        if len(found) > 1:
            raise _ambiguous(name, found)
        if found or not failures:
            return found[0] if found else None
        plugin, cause = failures[0]
        if isinstance(cause, ZooError):
            raise cause
        raise PluginError(f"plugin {plugin.label} failed while it looked for {name!r}: {describe(cause)}") from cause

    @cached_property
    def _short(self) -> Mapping[str, list[str]]:
        """Ids by the part after their source."""
        short: dict[str, list[str]] = {}
        for name in sorted({*self.given_names(), *self._files.backbones}):
            short.setdefault(name.partition("/")[2], []).append(name)
        return short

    def _ambiguous_short(self, name: str, full: Sequence[str]) -> AmbiguousNameError:
        candidates = []
        for one in full:
            derived = self._files.backbones.get(one)
            candidates.append(f"{one} ({derived.file if derived else origins(self.given(one))})")
        return AmbiguousNameError(
            f"{name!r} is the short name of {len(candidates)} backbones; give the full id: {examples(candidates, LISTED)}"
        )


def foreign_folder(name: str) -> Path | None:
    """Return the absolute path of a folder with a model of another library, or None.

    Its config.json has a ``model_type`` and is not one of ours, or it has the modules.json of sentence-transformers or the
    open_clip_config.json of open_clip.
    """
    folder = Path(name)
    if any(is_file(folder / file) for file in WITHOUT_CONFIG):
        return folder.resolve()
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return folder.resolve() if isinstance(config, dict) and "model_type" in config and "zoo" not in config else None


def _unread(folder: Path) -> NoReturn:
    raise UnknownBackboneError(
        f"{str(folder)!r} holds a model of another library, and no installed plugin reads it; "
        f"for those of transformers: {how_to_install('zoo-hf')}"
    )


def origins(entries: Sequence[Entry]) -> str:
    """Return the plugins of some entries, in an order that does not depend on ``sys.path``."""
    return " and by ".join(sorted(entry.origin for entry in entries))


def _ambiguous(name: str, entries: Sequence[Entry]) -> AmbiguousNameError:
    ways = sorted({f"{entry.plugin.distribution}:{name}" for entry in entries if entry.plugin and entry.plugin.distribution})
    remedy = f"; uninstall all but one, or say which: {', '.join(ways)}" if len(ways) > 1 else ""
    return AmbiguousNameError(f"{name!r} is given by {origins(entries)}{remedy}")

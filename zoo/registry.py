"""From names to specs: aliases, exact ids, unambiguous short names, open families, search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from zoo.contributions import collect
from zoo.declare import BackboneSpec, HeadSpec
from zoo.errors import AmbiguousNameError, OptionError, PluginError, RegistryFileError, ZooError, check_options, did_you_mean
from zoo.misses import Miss, ambiguous, ambiguous_short, origins, source_provider, unknown_backbone
from zoo.plugins import Plugin, as_plugin, describe, load_plugins
from zoo.registry_files import Derived, default_files, read_files
from zoo.search import check_filters, glob_matcher, passes


class Entry(NamedTuple):
    """A spec and its provenance: the plugin whose code builds it, and the registry file that derived it, if one did."""

    spec: BackboneSpec
    plugin: Plugin | None = None
    file: Path | None = None

    @property
    def origin(self) -> str:
        """Plugin with version, or the file, as messages name it."""
        return str(self.file or (self.plugin and self.plugin.label) or "unknown")


class Registry:
    """All backbones and heads of a set of plugins and registry files.

    Args:
        plugins: Plugins, or plain objects with hooks; None loads the installed ones.
        files: Registry files, later ones win; None means the shipped one, the user's, the project's and ``ZOO_REGISTRY``.

    Raises:
        RegistryFileError: If a file has faults. A plugin's faults never raise here: see ``faults``.
    """

    def __init__(self, plugins: Sequence[Plugin | object] | None = None, files: Sequence[Path] | None = None) -> None:
        loaded = load_plugins() if plugins is None else [as_plugin(thing) for thing in plugins]
        self._contributions = [collect(plugin) for plugin in loaded]
        self._files = read_files(default_files() if files is None else files)
        self.aliases: dict[str, str] = self._files.aliases
        self.sources = self._files.sources
        self.plugins: list[Plugin] = [contribution.plugin for contribution in self._contributions]
        self._given: dict[str, list[Entry]] = {}
        for contribution in self._contributions:
            for spec in contribution.backbones:
                self._given.setdefault(spec.name, []).append(Entry(spec, contribution.plugin))
        self._listed = {name: sorted(entries, key=lambda entry: entry.origin) for name, entries in self._given.items()}
        # Derived backbones whose base no plugin lists: known by name, looked up when used, so that listing stays cheap.
        self.pending: list[str] = []
        self._list_derived()

    @cached_property
    def clashes(self) -> dict[str, list[Entry]]:
        """Ids that more than one plugin gives, unless a registry file decides what they mean."""
        return {name: entries for name, entries in self._listed.items() if len(entries) > 1}

    @property
    def faults(self) -> list[str]:
        """What is wrong with the plugins: one line per failed plugin and per clash."""
        broken = [plugin for plugin in self.plugins if plugin.status == "failed"]
        failed = [f"{plugin.label} (plugin {plugin.name!r}) failed to load: {plugin.cause}" for plugin in broken]
        clashes = [f"{name!r} is given by {origins(entries)}" for name, entries in self.clashes.items()]
        heads = [f"head {name!r} is given by {_labels(owners)}" for name, owners in self._head_owners.items() if len(owners) > 1]
        return failed + clashes + heads

    def names(self) -> list[str]:
        """Return every id, sorted, with those of derived backbones whose base is looked up only when they are used."""
        return sorted({*self._listed, *self.pending})

    def derives(self, name: str) -> bool:
        """Return whether a registry file derives this id."""
        return name in self._files.backbones

    def search(
        self,
        pattern: str = "*",
        *,
        modality: str | None = None,
        max_params: float | None = None,
        license: str | None = None,
        image_size: int | None = None,
        source: str | None = None,
        pretrained: bool | None = None,
    ) -> list[Entry]:
        """Return the backbones that match a glob and pass every filter, sorted by id.

        Args:
            pattern: Glob over the whole id, or over the part after the source.
            modality: ``image``, ``text`` or ``volume``.
            max_params: Most parameters of the backbone without head; a spec that does not tell them is left out.
            license: SPDX identifier of the weights, or ``permissive``.
            image_size: Exact height of the input, in pixels.
            source: First part of the id.
            pretrained: Whether weights come with it.

        Raises:
            UnknownBackboneError: If the glob matches nothing.
            OptionError: If a modality, licence or source is one that no backbone has.
        """
        filters: dict[str, Any] = {"modality": modality, "max_params": max_params, "license": license, "image_size": image_size}
        filters |= {"source": source, "pretrained": pretrained}
        entries = [entry for name in sorted(self._listed) for entry in self._listed[name]]
        check_filters(filters, [entry.spec for entry in entries], lambda source: source_provider(self, source))
        if pattern != "*":
            entries = self._matching(pattern, entries)
        asked = {key: value for key, value in filters.items() if value is not None}
        return [entry for entry in entries if passes(entry.spec, asked)] if asked else entries

    def resolve(self, name: str) -> Entry:
        """Return the backbone that a name means.

        Tried in order: alias, exact id (or ``distribution:id``), one unambiguous match of the part after the source, then
        the open families of the plugins.

        Raises:
            UnknownBackboneError: With the nearest names, or the plugin that would have it.
            AmbiguousNameError: If more than one plugin gives the id, or a short name fits several ids.
            PluginError: If a plugin failed while it looked for the name.
        """
        found = self._lookup(name, self._ask)
        if isinstance(found, Miss):
            raise unknown_backbone(self, found)
        return found

    def heads(self) -> dict[str, HeadSpec]:
        """Return the heads by name."""
        return {head.name: head for contribution in self._contributions for head in contribution.heads}

    def head(self, name: str) -> HeadSpec:
        """Return one head.

        Raises:
            OptionError: If there is none of this name.
            AmbiguousNameError: If more than one plugin gives it.
        """
        heads, owners = self.heads(), self._head_owners.get(name, [])
        if not owners:
            raise OptionError(f"no head {name!r}{did_you_mean(name, heads)}; there are: {', '.join(sorted(heads)) or 'none'}")
        if len(owners) > 1:
            raise AmbiguousNameError(f"head {name!r} is given by {_labels(owners)}; uninstall all but one")
        return heads[name]

    @cached_property
    def _head_owners(self) -> dict[str, list[Plugin]]:
        owners: dict[str, list[Plugin]] = {}
        for contribution in self._contributions:
            for head in contribution.heads:
                owners.setdefault(head.name, []).append(contribution.plugin)
        return owners

    @cached_property
    def _short(self) -> dict[str, list[str]]:
        """Ids by the part after their source."""
        short: dict[str, list[str]] = {}
        for name in self.names():
            short.setdefault(name.partition("/")[2], []).append(name)
        return short

    def _list_derived(self) -> None:
        found = {}
        for name, derived in self._files.backbones.items():
            try:
                found[name] = self._derive(derived, lambda _: None, ())
            except (AmbiguousNameError, RegistryFileError) as error:  # told when the backbone is used
                found[name] = Miss(str(error))
        for name, entry in found.items():
            self._listed.pop(name, None)
            if isinstance(entry, Entry):
                self._listed[name] = [entry]
            else:
                self.pending.append(name)

    def _matching(self, pattern: str, entries: Iterable[Entry]) -> list[Entry]:
        matches = glob_matcher(pattern)
        found = [entry for entry in entries if matches(entry.spec.name)]
        if found:
            return found
        if pattern in self.pending:
            return [self.resolve(pattern)]
        entry = self._lookup(pattern, lambda _: None)  # an alias, but no open family: a search imports no model library
        if isinstance(entry, Miss):
            raise unknown_backbone(self, entry)
        return [entry]

    def _lookup(self, name: str, ask: Callable[[str], Entry | None], trail: tuple[str, ...] = ()) -> Entry | Miss:
        if name in trail:
            raise RegistryFileError(f"the registry files lead in a circle: {' -> '.join((*trail, name))}")
        if name in self.aliases:
            return self._lookup(self.aliases[name], ask, (*trail, name))
        if name in self._files.backbones:
            return self._derive(self._files.backbones[name], ask, trail)
        distribution, _, rest = name.rpartition(":")
        given = self._given.get(rest, [])
        if distribution:
            given = [entry for entry in given if entry.plugin and entry.plugin.distribution == distribution]
        if len(given) > 1:
            raise ambiguous(rest, given)
        if given:
            return given[0]
        full = self._short.get(name, []) if not trail else []
        if len(full) > 1:
            raise ambiguous_short(name, [entry for one in full for entry in self._listed.get(one, [])])
        if full:
            return self._lookup(full[0], ask, (*trail, name))
        return (ask(name) if "/" in name else None) or Miss(name, trail)

    def _derive(self, derived: Derived, ask: Callable[[str], Entry | None], trail: tuple[str, ...]) -> Entry | Miss:
        if derived.base != derived.name:
            base = self._lookup(derived.base, ask, (*trail, derived.name))
        else:  # a file may change a plugin's own backbone under its own id
            given = self._given.get(derived.name, [])
            if len(given) > 1:
                raise ambiguous(derived.name, given)
            base = given[0] if given else ask(derived.base) or Miss(derived.base, trail)
        return Entry(derived.apply(base.spec), base.plugin, derived.file) if isinstance(base, Entry) else base

    def _ask(self, name: str) -> Entry | None:
        """Ask the open families of every plugin; one that fails only matters when no other knows the name."""
        found, failures = list[Entry](), list[tuple[Plugin, BaseException]]()
        for contribution in self._contributions:
            try:
                spec = contribution.find(name)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too, as everywhere a plugin is called
                failures.append((contribution.plugin, error))
                continue
            found += [Entry(spec, contribution.plugin)] if spec else []
        if len(found) > 1:
            raise ambiguous(name, found)
        if found or not failures:
            return found[0] if found else None
        plugin, cause = failures[0]
        if isinstance(cause, ZooError):
            raise cause
        raise PluginError(f"plugin {plugin.label} failed while it looked for {name!r}: {describe(cause)}") from cause


_default: list[Registry] = []


def default_registry() -> Registry:
    """Return the process-wide registry, built at its first use."""
    if not _default:
        _default.append(Registry())
    return _default[0]


def use_registry(registry: Registry | None = None, *, files: Iterable[Path | str] = ()) -> None:
    """Replace the process-wide registry, or have it built again with further registry files, which win over the others."""
    files = list(files)
    _default[:] = [registry or Registry(files=default_files(files))] if registry or files else []


def list_backbones(pattern: str = "*", **filters: Any) -> list[str]:
    """Return the ids that match a glob and pass the filters of ``Registry.search``; imports no model library.

    Raises:
        UnknownBackboneError: If the glob matches nothing.
        OptionError: If a filter does not exist, or has a value that no backbone has.
    """
    check_options(filters, ("modality", "max_params", "license", "image_size", "source", "pretrained"), "list_backbones")
    return list(dict.fromkeys(entry.spec.name for entry in default_registry().search(pattern, **filters)))


def _labels(plugins: Iterable[Plugin]) -> str:
    return " and by ".join(sorted(plugin.label for plugin in plugins))

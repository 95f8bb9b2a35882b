"""All backbones and heads of a set of plugins and registry files: names, search, resolution."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.declare import HeadSpec
from zoo.errors import AmbiguousNameError, OptionError, PluginError, RegistryFileError, check_options, did_you_mean
from zoo.plugins.hook_results import collect_all
from zoo.plugins.loader import Plugin, as_plugin, find_plugins
from zoo.plugins.policy import Policy, current_policy
from zoo.plugins.spec_list import gc_paused
from zoo.registry.lookup import Entry as Entry
from zoo.registry.lookup import Lookup, Miss, origins
from zoo.registry.registry_files import default_files, read_files
from zoo.registry.search import FILTERS, SEARCHED, check_filters, is_glob, name_matcher, passes, sort_key, spec_matcher
from zoo.registry.unknown_name import Known, source_provider, unknown_backbone
from zoo.tasks.task import Task

log = logging.getLogger("zoo")


class Registry:
    """All backbones and heads of a set of plugins and registry files.

    Args:
        plugins: Plugins, or plain objects with hooks; None loads the installed ones.
        files: Registry files, later ones override; None means the shipped one, the user's, the project's and ``ZOO_REGISTRY``.
        policy: Which installed plugins may be imported; None means that of the environment and the user's file.

    Attributes:
        plugins: Every plugin found, also those that failed or are disabled.
        aliases: Short names and the ids they mean.

    Raises:
        RegistryFileError: If a file has faults. Faults of plugins are in ``faults``.
    """

    def __init__(
        self, plugins: Sequence[Plugin | object] | None = None, files: Sequence[Path] | None = None, policy: Policy | None = None
    ) -> None:
        found = _installed(policy or current_policy()) if plugins is None else [as_plugin(thing) for thing in plugins]
        self._contributions = collect_all(found)
        self._files = read_files(default_files() if files is None else files)
        self.plugins: list[Plugin] = [contribution.plugin for contribution in self._contributions]
        self.aliases: dict[str, str] = self._files.aliases
        self._lookup = Lookup(self._contributions, self._files)

    @cached_property
    def clashes(self) -> dict[str, list[Entry]]:
        """Ids that more than one plugin gives, unless a registry file defines them."""
        numbers = Counter(self._lookup.given_names())
        return {name: self._entries(name) for name, number in numbers.items() if number > 1 and name not in self._files.backbones}

    @property
    def pending(self) -> list[str]:
        """Ids of derived backbones whose base no plugin lists; they are looked up on use, so that listing imports no model library."""
        return [name for name, entry in self._derived.items() if isinstance(entry, Miss)]

    @property
    def faults(self) -> list[str]:
        """Faults of the plugins, one line per failed plugin and per clash."""
        broken = [plugin for plugin in self.plugins if plugin.status == "failed"]
        failed = [f"{plugin.label} (plugin {plugin.name!r}) failed to load: {plugin.cause}" for plugin in broken]
        clashes = [f"{name!r} is given by {origins(entries)}" for name, entries in self.clashes.items()]
        heads = [f"head {name!r} is given by {_labels(owners)}" for name, owners in self._head_owners.items() if len(owners) > 1]
        return failed + clashes + heads

    def names(self) -> list[str]:
        """Return every id, sorted, those of ``pending`` backbones included."""
        return sorted(dict.fromkeys([*self._lookup.given_names(), *self._files.backbones]))  # a dict keeps the order, which is fast to sort

    def listed(self, pattern: str = "*") -> list[str]:
        """Return the ids that a pattern of ``search`` matches, sorted, without those of ``pending`` backbones; reads no declaration."""
        matches, pending = name_matcher(pattern), set(self.pending)
        return [name for name in self.names() if name not in pending and (pattern == "*" or matches(name))]

    def given_by(self, plugin: Plugin) -> tuple[int, int]:
        """Return the numbers of backbones and heads of a plugin."""
        mine = [contribution for contribution in self._contributions if contribution.plugin is plugin]
        return sum(len(one.backbones) for one in mine), sum(len(one.heads) for one in mine)

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
        max_gmacs: float | None = None,
        sort: str = "name",
    ) -> list[Entry]:
        """Return the backbones that match a pattern and pass every filter; imports no model library.

        Args:
            pattern: A glob over the whole id or over the part after the source; or words that the id, the plugin, the family, the
                description, the data of pretraining or the modality has, in any case, with or without hyphens.
            modality: ``image``, ``text`` or ``volume``.
            max_params: Most parameters of the backbone without head; specs without this number are left out.
            license: SPDX identifier of the weights, or ``permissive``.
            image_size: Exact height of the input, in pixels.
            source: First part of the id.
            pretrained: Whether weights come with it.
            max_gmacs: Most 10^9 multiply-accumulates of one forward; specs without this number are left out.
            sort: ``name``; ``params`` or ``gmacs``, smallest first; ``accuracy`` on ImageNet or ``size`` of the image, largest first.

        Raises:
            UnknownBackboneError: If the pattern matches nothing.
            OptionError: If a modality, licence or source is one that no backbone has.
        """
        order = sort_key(sort)
        filters: dict[str, Any] = {"modality": modality, "max_params": max_params, "license": license, "image_size": image_size}
        filters |= {"source": source, "pretrained": pretrained, "max_gmacs": max_gmacs}
        filters = {key: value for key, value in filters.items() if value is not None}
        if filters:
            check_filters(filters, self._values, lambda source: source_provider(source, self._known))
        with gc_paused():
            entries = [entry for entry in self._matching(pattern, source) if passes(entry.spec, filters)]
        return entries if sort == "name" else sorted(entries, key=lambda entry: order(entry.spec))

    def resolve(self, name: str) -> Entry:
        """Return the backbone of a name.

        Tried in order: alias, exact id (or ``distribution:id``), one unambiguous match of the part after the source, then
        the open families of the plugins.

        Raises:
            UnknownBackboneError: With the nearest names, or the plugin that would have it.
            AmbiguousNameError: If more than one plugin gives the id, or a short name fits several ids.
            PluginError: If a plugin failed while it looked for the name.
        """
        return self._found(self._lookup.find(name, ask=True))

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

    def task_names(self) -> list[str]:
        """Return the names of the tasks that plugins bring."""
        return sorted(self._tasks)

    def task(self, name: str) -> Task | None:
        """Return one task of a plugin, or None.

        Raises:
            AmbiguousNameError: If more than one plugin gives it.
        """
        found = self._tasks.get(name, [])
        if len(found) > 1:
            raise AmbiguousNameError(f"task {name!r} is given by {_labels([plugin for plugin, _ in found])}; uninstall all but one")
        return found[0][1] if found else None

    @cached_property
    def _tasks(self) -> dict[str, list[tuple[Plugin, Task]]]:
        found: dict[str, list[tuple[Plugin, Task]]] = {}
        for contribution in self._contributions:
            try:
                tasks = contribution.tasks()
            except PluginError as error:  # the tasks of other plugins stay
                log.warning("%s", error)
                continue
            for task in tasks:
                found.setdefault(task.name, []).append((contribution.plugin, task))
        return found

    @cached_property
    def _head_owners(self) -> dict[str, list[Plugin]]:
        owners: dict[str, list[Plugin]] = {}
        for contribution in self._contributions:
            for head in contribution.heads:
                owners.setdefault(head.name, []).append(contribution.plugin)
        return owners

    @property
    def _known(self) -> Known:
        return Known(self.plugins, self._files.sources, self.aliases, self._files.backbones.keys(), self.names())

    @cached_property
    def _derived(self) -> dict[str, Entry | Miss]:
        """Backbones of registry files; those whose base no plugin lists are misses."""
        found: dict[str, Entry | Miss] = {}
        for name in self._files.backbones:
            try:
                found[name] = self._lookup.find(name, ask=False)
            except (AmbiguousNameError, RegistryFileError):  # raised when the backbone is used, not when it is listed
                found[name] = Miss(name)
        return found

    def _entries(self, name: str) -> list[Entry]:
        """Return the entries of a listed id; there are several if it clashes."""
        derived = self._derived.get(name)
        found = [derived] if isinstance(derived, Entry) else self._lookup.given(name)
        return found if len(found) == 1 else sorted(found, key=lambda entry: entry.origin)

    def _matching(self, pattern: str, source: str | None) -> list[Entry]:
        names = self.listed()
        found = list(self._matched(pattern, [name for name in names if source is None or name.partition("/")[0] == source]))
        if found or pattern == "*" or (source is not None and any(self._matched(pattern, names))):
            return found
        # An alias matches by its own name; open families are asked only for backbones that a file names.
        entry = self._lookup.find(pattern, ask=pattern in self.pending)
        if isinstance(entry, Miss):
            raise unknown_backbone(entry, self._known, "" if is_glob(pattern) else f" in its {SEARCHED}")
        return [entry]

    def _matched(self, pattern: str, names: Iterable[str]) -> Iterator[Entry]:
        """Yield the entries of the names that a pattern matches; of plain words also those whose declaration has them."""
        matches, described = name_matcher(pattern), spec_matcher(pattern)
        for name in names:
            if pattern == "*" or matches(name):
                yield from self._entries(name)
            elif described:
                yield from (one for one in self._entries(name) if described(one.spec, one.plugin.distribution if one.plugin else ""))

    def _values(self, key: str) -> set[str]:
        """Return the values of a filter that listed backbones have."""
        names = self.listed()
        if key == "source":
            return {name.partition("/")[0] for name in names}
        return {getattr(entry.spec, key) for name in names for entry in self._entries(name)}

    def _found(self, entry: Entry | Miss) -> Entry:
        if isinstance(entry, Miss):
            raise unknown_backbone(entry, self._known)
        return entry


@dataclass
class _InUse:
    """The registry of this process, and what it is built of; all of it is replaced by ``use_registry``."""

    registry: Registry | None = None
    files: tuple[Path | str, ...] = ()
    policy: Policy | None = None


_in_use = _InUse()


def default_registry() -> Registry:
    """Return the process-wide registry, built at its first use."""
    if _in_use.registry is None:
        _in_use.registry = Registry(files=default_files(_in_use.files), policy=current_plugin_policy())
    return _in_use.registry


def use_registry(registry: Registry | None = None, *, files: Iterable[Path | str] = (), policy: Policy | None = None) -> None:
    """Replace the process-wide registry; without one it is rebuilt on next use, with ``files`` overriding the usual ones.

    Args:
        registry: The registry to use.
        files: Registry files that override the usual ones.
        policy: Which plugins may be imported; None means that of the environment and the user's file.
    """
    _in_use.registry, _in_use.files, _in_use.policy = registry, tuple(files), policy


def current_plugin_policy() -> Policy:
    """Return the plugin policy of the process-wide registry."""
    return _in_use.policy or current_policy()


def list_backbones(pattern: str = "*", **filters: Any) -> list[str]:
    """Return the ids that match a pattern and pass the filters of ``Registry.search``; imports no model library.

    Raises:
        UnknownBackboneError: If the pattern matches nothing.
        OptionError: If a filter does not exist, or has a value that no backbone has.
    """
    check_options(filters, FILTERS, "list_backbones")
    registry = default_registry()
    names = registry.listed(pattern) if is_glob(pattern) and not filters else []
    return names or list(dict.fromkeys(entry.spec.name for entry in registry.search(pattern, **filters)))


def _installed(policy: Policy) -> list[Plugin]:
    found = find_plugins(policy)
    for warning in policy.unmatched([plugin.found for plugin in found if plugin.found]):
        log.warning(warning)
    return found


def _labels(plugins: Iterable[Plugin]) -> str:
    return " and by ".join(sorted(plugin.label for plugin in plugins))

"""The error for an unknown backbone: the plugin that would provide it, or the nearest names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

from zoo.errors import UnknownBackboneError, did_you_mean, examples, nearest
from zoo.plugins.entry_points import normalized
from zoo.plugins.loader import Plugin
from zoo.registry.local_names import local_reason
from zoo.registry.lookup import Miss
from zoo.registry.registry_files import Source
from zoo.util.versions import how_to_install

HUB_SOURCE = "hf"  # its backbones are called after repositories of the Hub
HUB_ADDRESS = re.compile(r"https?://(www\.)?(huggingface\.co|hf\.co)/", re.IGNORECASE)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
SHORTEST = 4  # letters of a word for which names that begin with it are suggested
_SIGNS = str.maketrans("/._: ", "-----")


class Known(NamedTuple):
    """Names and plugins for the message of a miss."""

    plugins: Sequence[Plugin]
    sources: Mapping[str, Source]
    aliases: Mapping[str, str]
    derived: Collection[str]
    names: Sequence[str]


def unknown_backbone(miss: Miss, known: Known, searched: str = "") -> UnknownBackboneError:
    """Return the error for a name, or a pattern, that was not found.

    Args:
        miss: The name.
        known: Names and plugins.
        searched: Where a pattern was looked for, such as `` in its name or description``, if more than the ids were.
    """
    chain, source = _chain(miss, known), miss.name.partition("/")[0]
    provider = source_provider(source, known) if "/" in miss.name else ""
    if provider:
        return UnknownBackboneError(f"{chain}, which {provider}" if chain else f"no backbone {miss.name!r}: {source}/… {provider}")
    local = "" if miss.trail else local_reason(miss.name, _sources(known))
    if local:
        return UnknownBackboneError(f"no backbone {miss.name!r}: {local}")
    absent = _absent_aliases(miss.name, known)
    if absent:
        return UnknownBackboneError(f"no backbone {miss.name!r}: {absent}")
    near = [name for name in nearest_names(miss.name, known) if name not in miss.trail]
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else "zoo list shows every name"
    remedy = _hub_name(miss.name, known) or remedy
    message = (
        f"{chain}, which nothing provides ({remedy})"
        if chain
        else f"no backbone has {miss.name!r}{searched} ({remedy})"
        if searched
        else f"no backbone {miss.name!r} ({remedy})"
    )
    failed = [f"{plugin.label} ({plugin.cause})" for plugin in known.plugins if plugin.status == "failed"]
    message += f"; it may belong to a plugin that failed to load: {examples(failed)}" if failed else ""
    off = [f"zoo plugins enable {plugin.name}" for plugin in known.plugins if plugin.status == "disabled"]
    return UnknownBackboneError(f"{message}; or to a plugin that is switched off: {examples(off)}" if off else message)


def source_provider(source: str, known: Known) -> str:
    """Return which absent, disabled or failed plugin provides a source; an empty string where it is loaded or not known."""
    provider = known.sources.get(source)
    if provider is None:
        return ""
    plugins = [plugin for plugin in known.plugins if normalized(plugin.distribution) == normalized(provider.distribution)]
    if any(plugin.status == "ok" for plugin in plugins):
        return ""
    comes = f"comes with the plugin {provider.distribution}"
    if plugins:
        plugin = plugins[0]
        return f"{comes}; {plugin.label} {'failed to load' if plugin.status == 'failed' else 'is disabled'}: {plugin.cause}"
    return f"{comes}; it is not installed" + (f": {how_to_install(provider.distribution)}" if provider.extra else "")


def nearest_names(name: str, known: Known, limit: int = 3) -> list[str]:
    """Return the aliases and ids most similar to a name, best first.

    Those that differ in case or in the signs between their words come first, then those that go on where the name ends.
    """
    ids, words = [*known.aliases, *known.names], _words(name)
    alike = [full for full in ids if words and words in _words(full)]
    same = [full for full in alike if words in (_words(full), _words(full.partition("/")[2]))]
    begin = [full for full in alike if _begins(full, words)] if len(words) >= SHORTEST else []
    if "/" in name:
        found = nearest(name, ids, limit)
    else:  # a short name is compared with the part after the source
        short = {full.partition("/")[2]: full for full in reversed(known.names)} | {alias: alias for alias in known.aliases}
        found = [short[near] for near in nearest(name, short, limit)]
    return list(dict.fromkeys([*same, *sorted(begin, key=len)[: limit - 1], *found]))[:limit]


def _words(name: str) -> str:
    """Return a name in lower case with one sign between its words, whatever they are joined by."""
    return name.lower().translate(_SIGNS)


def _begins(full: str, words: str) -> bool:
    """Return whether an alias, or the part of an id after its source or its owner, begins with some words."""
    rest = full.partition("/")[2]
    return any(_words(part).startswith(words) for part in (full, rest, rest.rpartition("/")[2]) if part)


def _hub_name(name: str, known: Known) -> str:
    """Return what to type for a repository of the Hub; empty for a name that is none, or whose first part is nearly a source."""
    address = HUB_ADDRESS.match(name)
    repo = name[address.end() :].strip("/") if address else name
    source = repo.partition("/")[0]
    sources = _sources(known)
    ours = not address and (source in sources or did_you_mean(source, sources))
    if ours or HUB_SOURCE not in known.sources or not REPOSITORY.fullmatch(repo):
        return ""
    provider = source_provider(HUB_SOURCE, known)
    return f"for the repository of the Hub, type '{HUB_SOURCE}/{repo}'" + (f", which {provider}" if provider else "")


def _sources(known: Known) -> set[str]:
    """Return the first parts of the ids of backbones, those of plugins that are not installed included."""
    return {*known.sources, *(full.partition("/")[0] for full in known.names)}


def _absent_aliases(glob: str, known: Known) -> str:
    """Return which plugin provides the backbones whose aliases a glob matches; an empty string where none does."""
    matched = [alias for alias in known.aliases if fnmatchcase(alias, glob)]
    providers = [source_provider(known.aliases[alias].partition("/")[0], known) for alias in matched]
    return f"it matches {examples(matched)}, which {providers[0]}".replace("which comes", "which come") if any(providers) else ""


def _chain(miss: Miss, known: Known) -> str:
    """Return ``'resnet50' is timm/resnet50.a1_in1k`` for a miss behind an alias or a derived backbone."""
    steps = [*miss.trail, miss.name]
    links = [f"{'is derived from' if name in known.derived else 'is'} {target}" for name, target in pairwise(steps)]
    return f"{steps[0]!r} {', which '.join(links)}" if links else ""

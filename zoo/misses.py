"""Word the errors of names that nothing, or more than one thing, answers to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from zoo.discovery import normalized
from zoo.errors import AmbiguousNameError, UnknownBackboneError, examples, nearest

if TYPE_CHECKING:
    from zoo.registry import Entry, Registry


class Miss(NamedTuple):
    """A name that was not found, with the aliases and derived backbones that led to it."""

    name: str
    trail: tuple[str, ...] = ()


def unknown_backbone(registry: Registry, miss: Miss) -> UnknownBackboneError:
    """Return the error for a miss: who would have the name, else the nearest names."""
    story, source = _story(registry, miss), miss.name.partition("/")[0]
    provider = source_provider(registry, source) if "/" in miss.name else ""
    if provider:
        return UnknownBackboneError(f"{story}, which {provider}" if story else f"no backbone {miss.name!r}: {source}/… {provider}")
    near = [name for name in nearest_names(miss.name, registry) if name not in miss.trail]
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else "zoo list shows every name"
    parts = [f"{story}, which nothing provides ({remedy})" if story else f"no backbone {miss.name!r} ({remedy})"]
    failed = [f"{plugin.label} ({plugin.cause})" for plugin in registry.plugins if plugin.status == "failed"]
    if failed:
        parts.append(f"it may belong to a plugin that failed to load: {examples(failed)}")
    return UnknownBackboneError("; ".join(parts))


def source_provider(registry: Registry, source: str) -> str:
    """Say which absent, disabled or failed plugin provides a source; an empty string where it is loaded or not known."""
    known = registry.sources.get(source)
    if known is None:
        return ""
    plugins = [plugin for plugin in registry.plugins if normalized(plugin.distribution) == normalized(known.distribution)]
    if any(plugin.status == "ok" for plugin in plugins):
        return ""
    comes = f"comes with the plugin {known.distribution}"
    if plugins:
        plugin = plugins[0]
        why = "failed to load" if plugin.status == "failed" else "is disabled"
        return f"{comes}; {plugin.label} {why}: {plugin.cause}"
    remedy = f": pip install 'zoo[{known.extra}]'" if known.extra else ""
    return f"{comes}; it is not installed{remedy}"


def ambiguous(name: str, entries: Sequence[Entry]) -> AmbiguousNameError:
    """Return the error for an id that more than one plugin gives."""
    ways = sorted({f"{entry.plugin.distribution}:{name}" for entry in entries if entry.plugin and entry.plugin.distribution})
    remedy = f"; uninstall all but one, or say which: {', '.join(ways)}" if len(ways) > 1 else ""
    return AmbiguousNameError(f"{name!r} is given by {origins(entries)}{remedy}")


def ambiguous_short(name: str, entries: Iterable[Entry]) -> AmbiguousNameError:
    """Return the error for a short name that fits more than one id."""
    told = [f"{entry.spec.name} ({entry.origin})" for entry in entries]
    return AmbiguousNameError(f"{name!r} is the short name of {len(told)} backbones; give the full id: {', '.join(told)}")


def origins(entries: Iterable[Entry]) -> str:
    """Return the plugins of some entries, in an order that does not depend on ``sys.path``."""
    return " and by ".join(sorted(entry.origin for entry in entries))


def nearest_names(name: str, registry: Registry, limit: int = 3) -> list[str]:
    """Return the aliases, ids and short names most similar to a name; a name that differs in case alone comes first."""
    ids = [*registry.aliases, *registry.names()]
    short = {full.partition("/")[2]: full for full in reversed(ids) if "/" in full}
    same = [full for full in ids if name.lower() in (full.lower(), full.partition("/")[2].lower())]
    pool = ids if "/" in name else [*registry.aliases, *short]
    found = [short.get(near, near) if near not in registry.aliases else near for near in nearest(name, pool, limit)]
    return list(dict.fromkeys([*same, *found]))[:limit]


def _story(registry: Registry, miss: Miss) -> str:
    """Return ``'resnet50' is timm/resnet50.a1_in1k`` for a miss behind an alias or a derived backbone."""
    steps = [*miss.trail, miss.name]
    told = [f"{'is derived from' if registry.derives(name) else 'is'} {target}" for name, target in pairwise(steps)]
    return f"{steps[0]!r} {', which '.join(told)}" if told else ""

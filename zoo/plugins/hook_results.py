"""Hook results of plugins: each plugin is validated by pluggy and called alone; one fault rejects all its results.

A plugin with a cached listing is not imported until its open family is asked for a name that no plugin lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import pluggy

from zoo import hookspecs
from zoo.declare import BackboneSpec, HeadSpec
from zoo.errors import PluginError, count, did_you_mean
from zoo.plugins import listing_cache
from zoo.plugins.compat import misfit
from zoo.plugins.listing_file import Listed
from zoo.plugins.loader import Plugin, describe, load
from zoo.plugins.spec_list import SpecList, gc_paused
from zoo.tasks.task import Task, faults_of_task

T = TypeVar("T")
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("zoo_"))


class Contribution(NamedTuple):
    """The hook results of a plugin; both lists are empty unless the plugin is ``ok``."""

    plugin: Plugin
    backbones: SpecList
    heads: list[HeadSpec]
    hooks: Callable[[], Any] | None = None
    offers: tuple[str, ...] = ()

    def tasks(self) -> list[Task]:
        """Return the tasks of this plugin; imports it.

        Raises:
            PluginError: If it cannot be imported, raises, or returns anything but complete tasks.
        """
        if not (self.hooks and "zoo_tasks" in self.offers):
            return []
        try:
            tasks = _call(self.hooks().zoo_tasks, Task)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end the process
            cause = str(error) if isinstance(error, PluginError) else f"zoo_tasks raised {describe(error)}"
            raise PluginError(f"{self.plugin.label}: {cause}") from error
        faults = [f"task {type(task).__name__}: {fault}" for task in tasks for fault in faults_of_task(task)]
        if faults:
            raise PluginError(f"{self.plugin.label}: {'; '.join(faults)}")
        return tasks

    def find(self, name: str) -> BackboneSpec | None:
        """Return the spec of a name in the plugin's open family, or None.

        Raises:
            PluginError: If it cannot be imported, or returns anything but a spec or None. Errors of the plugin
                itself are not caught.
        """
        found = self.hooks().zoo_find_backbone(name=name) if self.hooks and "zoo_find_backbone" in self.offers else None
        if found is None or isinstance(found, BackboneSpec):
            return found
        raise PluginError(f"zoo_find_backbone of {self.plugin.label} returned {_kind(found)}; it must return a BackboneSpec or None")


def collect(plugin: Plugin, *, fresh: bool = False) -> Contribution:
    """Return a plugin's listing from the listing cache, or import it, validate and call its hooks.

    Args:
        plugin: A plugin that was found; it is imported only if it is not in the cache.
        fresh: Whether to import it in any case.
    """
    if plugin.status != "ok":
        return _empty(plugin)
    known = None if fresh or plugin.object is not None else listing_cache.recall(plugin)
    if known:
        return Contribution(plugin, known.backbones, known.heads, lambda: _imported_hooks(plugin), known.hooks)
    fault = misfit(plugin.found, plugin.versions) if plugin.found else ""
    loaded = plugin.failed(fault) if fault else load(plugin)
    return _called(loaded) if loaded.status == "ok" else _empty(loaded)


def _called(plugin: Plugin) -> Contribution:
    """Validate and call the hooks of an imported plugin."""
    try:
        hooks = _bind(plugin.object)
        backbones, heads = SpecList.of(_call(hooks.zoo_backbones, BackboneSpec)), _call(hooks.zoo_heads, HeadSpec)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the process
        cause = str(error) if isinstance(error, PluginError) else describe(error)
        return _empty(plugin.failed(cause))
    offers = tuple(name for name in HOOKS if getattr(hooks, name).get_hookimpls())
    listing_cache.remember(plugin, Listed(backbones, heads, offers))
    return Contribution(plugin, backbones, heads, lambda: hooks, offers)


def _empty(plugin: Plugin) -> Contribution:
    return Contribution(plugin, SpecList.of(()), [])


def _imported_hooks(plugin: Plugin) -> Any:
    """Import a plugin whose listing came from the listing cache, and return its hooks."""
    loaded = load(plugin)
    if loaded.status != "ok":
        listing_cache.forget(plugin)
        raise PluginError(f"{plugin.label} (plugin {plugin.name!r}) failed to load: {loaded.cause}")
    return _bind(loaded.object)


def collect_all(plugins: Iterable[Plugin]) -> list[Contribution]:
    """Collect the listings of all plugins; a fault of one does not affect others."""
    with gc_paused():
        return [collect(plugin) for plugin in plugins]


def _bind(thing: object) -> Any:
    """Return callers for the hooks of one plugin, which has its own plugin manager."""
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(hookspecs)
    if inspect.isclass(thing):
        raise PluginError(f"the entry point names the class {thing.__name__!r}; name a module or an instance")
    marked, faults = {}, []
    for name, value in _members(thing):
        marks = manager.parse_hookimpl_opts(SimpleNamespace(**{name: value}), name)
        hook = (marks and marks.get("specname")) or name
        if marks is not None and hook not in HOOKS:
            faults.append(f"{hook!r} is no hook{did_you_mean(hook, HOOKS)}")
        elif marks is not None:
            marked[name] = value
        elif name in HOOKS and inspect.isroutine(value) and not hasattr(value, "zoo_spec"):
            faults.append(f"{name!r} is not marked; put @zoo.hookimpl above it")
    if not marked and not faults:
        faults.append(f"{_kind(thing)} has no hook; mark {', '.join(HOOKS[:-1])} or {HOOKS[-1]} with @zoo.hookimpl")
    if faults:
        raise PluginError("; ".join(faults))
    try:
        # Only marked functions, because reading all attributes of a module would load lazy ones, such as model libraries.
        manager.register(SimpleNamespace(**marked))
    except pluggy.PluginValidationError as error:
        raise PluginError("; ".join(line for line in str(error).splitlines() if line and not line.startswith("Plugin "))) from error
    return manager.hook


def _members(thing: object) -> Iterator[tuple[str, Any]]:
    names: Iterable[str] = list(vars(thing)) if inspect.ismodule(thing) else (n for n in dir(thing) if not n.startswith("__"))
    for name in names:
        if inspect.isroutine(inspect.getattr_static(thing, name, None)) or name in HOOKS:
            yield name, getattr(thing, name)


def _call(hook: Any, kind: type[T]) -> list[T]:
    """Call one hook of one plugin and check its results."""
    results = hook()
    if len(results) < len([one for one in hook.get_hookimpls() if not (one.wrapper or one.hookwrapper)]):
        raise PluginError(f"{hook.name} returned None; return a list, or use yield")
    return [item for result in results for item in _checked(result, kind, hook.name)]


def _checked(result: object, kind: type[T], hook: str) -> list[T]:
    if not isinstance(result, Iterable) or isinstance(result, str | bytes | Mapping):
        raise PluginError(f"{hook} returned {_kind(result)}; it must return an iterable of {kind.__name__}")
    items = list(result)
    wrong = [(position, item) for position, item in enumerate(items) if not isinstance(item, kind)]
    if wrong:
        position, item = wrong[0]
        number = count(len(wrong), "item")
        raise PluginError(f"{hook} gave {number} that are no {kind.__name__}, the first at position {position}: {_kind(item)}")
    return items


def _kind(thing: object) -> str:
    return f"{type(thing).__name__} {getattr(thing, '__name__', None) or repr(thing)[:60]}"

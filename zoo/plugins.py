"""Our own entry-point loader: one plugin at a time, isolated, provenance kept.

pluggy's loader ends with the first plugin that fails, and does not say which distribution it came from.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from zoo.discovery import Found, find_entry_points, normalized
from zoo.errors import MissingExtraError, PluginError, ZooError, did_you_mean

GROUP = "zoo"


@dataclass(frozen=True)
class Plugin:
    """One plugin and where it came from.

    Attributes:
        name: Name of its entry point.
        distribution: Installed distribution that declares it; empty for a plain object given in a test.
        version: Version of the distribution.
        module: Module, or ``module:object``, that holds the hooks.
        status: ``ok``, ``failed`` or ``disabled``.
        cause: Why it failed or is disabled.
        object: What holds the hooks, or None.
    """

    name: str
    distribution: str = ""
    version: str = ""
    module: str = ""
    status: str = "ok"
    cause: str = ""
    object: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Distribution and version, as messages name the plugin."""
        return f"{self.distribution} {self.version}".strip() or self.name

    def failed(self, cause: str) -> Plugin:
        """Return this plugin as one that failed."""
        return replace(self, status="failed", cause=cause, object=None)


def load_plugins(block: Collection[str] = (), allow: Collection[str] | None = None) -> list[Plugin]:
    """Load every installed plugin; one that fails is returned as failed and harms no other.

    Args:
        block: Entry points or distributions whose module is never imported.
        allow: The only entry points or distributions that are imported; None means all.

    Returns:
        Plugins sorted by distribution, so the order of ``sys.path`` changes nothing.
    """
    blocked = {normalized(name) for name in block}
    allowed = None if allow is None else {normalized(name) for name in allow}
    return [_load(found, blocked, allowed) for found in find_entry_points(GROUP)]


def as_plugin(thing: object) -> Plugin:
    """Wrap an object that has hooks, such as a class in a test, as a plugin."""
    if isinstance(thing, Plugin):
        return thing
    kind = thing if inspect.ismodule(thing) else type(thing)
    return Plugin(name=kind.__name__, module=getattr(thing, "__module__", "") or kind.__name__, object=thing)


def load_function(reference: str) -> Callable[..., Any]:
    """Return the function that ``"module:function"`` names.

    Raises:
        MissingExtraError: If the module needs a package that is not installed.
        PluginError: If the module fails to import or has no such function.
    """
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ZooError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{reference!r} cannot be loaded: {error}; install the package that provides {error.name!r}") from error
    except Exception as error:
        raise PluginError(f"{reference!r} cannot be loaded: {describe(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise PluginError(f"{reference!r} names no function of module {module_name!r}{did_you_mean(name, vars(module))}")
    return function  # type: ignore[no-any-return]  # whatever the plugin put there


def describe(error: BaseException) -> str:
    """Return class and message of an error on one line, with the file and line that raised it."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    told = isinstance(error, ZooError | SyntaxError) or not frames or frames[-1].filename == __file__
    place = "" if told else f" ({Path(frames[-1].filename).parent.name}/{Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def _load(found: Found, blocked: Collection[str], allowed: Collection[str] | None) -> Plugin:
    plugin = Plugin(name=found.name, distribution=found.distribution, version=found.version, module=found.value)
    names = {normalized(found.name), normalized(found.distribution)}
    if names & set(blocked):
        return replace(plugin, status="disabled", cause="blocked by name")
    if allowed is not None and not names & set(allowed):
        return replace(plugin, status="disabled", cause="not among the allowed plugins")
    if found.shadowed:
        return replace(plugin, status="disabled", cause=found.shadowed)
    if found.fault:
        return plugin.failed(found.fault)
    try:
        return replace(plugin, object=EntryPoint(found.name, found.value, GROUP).load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the program that lists it
        return plugin.failed(describe(error))

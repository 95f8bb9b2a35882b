"""Plugin loader that isolates failures and records where each plugin comes from.

pluggy's own loader stops at the first plugin that fails, without naming its distribution. Here plugins are found, checked by
their metadata, and imported only on use.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from zoo.errors import MissingExtraError, PluginError, ZooError, did_you_mean
from zoo.plugins.compat import required_versions
from zoo.plugins.entry_points import Found, installed, normalized
from zoo.plugins.policy import Policy

GROUP = "zoo"
MOVED = {"zoo.heads": "zoo.models.heads"}  # names in files and plugins of earlier versions


@dataclass(frozen=True)
class Plugin:
    """One plugin and its provenance.

    Attributes:
        name: Name of its entry point.
        distribution: Installed distribution that declares it; empty for a plain object given in a test.
        version: Version of the distribution.
        module: Module, or ``module:object``, that holds the hooks.
        status: ``ok``, ``failed`` or ``disabled``.
        cause: Why it failed or is disabled.
        object: The object with the hooks; None before ``load`` has imported it.
        found: Its entry point; None for a plain object.
        versions: Installed version of each of its requirements.
    """

    name: str
    distribution: str = ""
    version: str = ""
    module: str = ""
    status: str = "ok"
    cause: str = ""
    object: Any = field(default=None, repr=False, compare=False)
    found: Found | None = field(default=None, repr=False, compare=False)
    versions: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}".strip() or self.name

    def answers_to(self, names: Collection[str]) -> bool:
        """Return whether the name of its entry point or distribution is among some names."""
        return bool({normalized(self.name), normalized(self.distribution)} & set(map(normalized, names)))

    def failed(self, cause: str) -> Plugin:
        """Return this plugin as one that failed."""
        return replace(self, status="failed", cause=cause, object=None)


def find_plugins(policy: Policy | None = None) -> list[Plugin]:
    """Return every installed plugin without importing any; disabled and incompatible ones are marked.

    Args:
        policy: Which plugins may be imported; None means all.

    Returns:
        Plugins sorted by distribution, independent of ``sys.path``.
    """
    points, versions = installed(GROUP)
    plugins = [_judge(found, policy or Policy(), versions) for found in points]
    usable = {_module(plugin) for plugin in plugins if plugin.status == "ok"}
    _refused.clear()
    _refused.update({_module(plugin): plugin for plugin in plugins if plugin.status == "disabled" and _module(plugin) not in usable})
    return plugins


def load(plugin: Plugin) -> Plugin:
    """Import a plugin; one that fails is returned as failed."""
    if plugin.status != "ok" or plugin.object is not None or plugin.found is None:
        return plugin
    try:
        return replace(plugin, object=EntryPoint(plugin.found.name, plugin.found.value, GROUP).load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the program that lists it
        return plugin.failed(describe(error))


def as_plugin(thing: object) -> Plugin:
    """Return an object with hooks, such as a class in a test, as a plugin."""
    if isinstance(thing, Plugin):
        return thing
    kind = thing if inspect.ismodule(thing) else type(thing)
    return Plugin(name=kind.__name__, module=getattr(thing, "__module__", "") or kind.__name__, object=thing)


def load_function(reference: str) -> Callable[..., Any]:
    """Return the function that ``"module:function"`` names.

    Raises:
        MissingExtraError: If the module needs a package that is not installed.
        PluginError: If the module belongs to a disabled plugin, fails to import or has no such function.
    """
    module_name, _, name = reference.partition(":")
    module_name = MOVED.get(module_name, module_name)
    _refuse_disabled(module_name, reference)
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
    return function  # type: ignore[no-any-return]  # any callable of the plugin


def describe(error: BaseException) -> str:
    """Return class and message of an error on one line, with the file and line that raised it."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    clear = isinstance(error, ZooError | SyntaxError) or not frames or frames[-1].filename == __file__
    place = "" if clear else f" ({Path(frames[-1].filename).parent.name}/{Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


_refused: dict[str, Plugin] = {}  # modules of disabled plugins, which specs of other plugins must not import either


def _refuse_disabled(module: str, reference: str) -> None:
    for name, plugin in _refused.items():
        if module == name or module.startswith(f"{name}."):
            raise PluginError(f"{reference!r} is not imported: {plugin.label} (plugin {plugin.name!r}) is disabled: {plugin.cause}")


def _module(plugin: Plugin) -> str:
    return plugin.module.partition(":")[0].strip()


def _judge(found: Found, policy: Policy, versions: Mapping[str, str]) -> Plugin:
    needs = required_versions(found, versions)
    plugin = Plugin(found.name, found.distribution, found.version, found.value, found=found, versions=needs)
    if disabled := policy.refusal(found) or found.shadowed:
        return replace(plugin, status="disabled", cause=disabled)
    return plugin.failed(found.fault) if found.fault else plugin

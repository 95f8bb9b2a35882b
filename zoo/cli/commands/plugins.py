"""The command ``plugins``: show, check, disable and enable. Only show imports plugins into this process."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.output.stdout import Output, table
from zoo.errors import OptionError, PluginError, count, did_you_mean, fault_list

ACTIONS = ("show", "check", "disable", "enable")
TIMEOUT = 30.0


def register(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("plugins", help="show the plugins that were found; check, disable or enable them")
    command.add_argument("action", nargs="?", default="show", metavar="ACTION", help="show (default), check, disable or enable")
    command.add_argument("names", nargs="*", metavar="NAME", help="plugins or distributions, as `zoo plugins` shows them")
    command.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds that checking a plugin may take")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=plugins)


def plugins(options: argparse.Namespace, out: Output) -> None:
    """Run one of the actions."""
    if options.action not in ACTIONS:
        raise OptionError(
            f"zoo plugins has no action {options.action!r}{did_you_mean(options.action, ACTIONS)}; it has: {', '.join(ACTIONS)}"
        )
    if options.action == "show":
        if options.names:
            raise OptionError("zoo plugins show takes no names; it shows all")
        show(options, out)
    elif options.action == "check":
        check(options, out)
    else:
        switch(options)


def show(options: argparse.Namespace, out: Output) -> None:
    """Print every plugin with distribution, version, status and cause."""
    from zoo.registry.registry import default_registry

    registry = default_registry()
    rows = []
    for plugin in registry.plugins:
        backbones, heads = registry.given_by(plugin)
        about = {key: getattr(plugin, key) for key in ("name", "distribution", "version", "module", "status", "cause")}
        clashes = [name for name, entries in registry.clashes.items() if any(entry.plugin is plugin for entry in entries)]
        rows.append(about | {"backbones": backbones, "heads": heads, "clashes": clashes})
    if options.json:
        out.json(rows)
        return
    print(_table(rows))
    disabled = [
        f"{plugin.label} (plugin {plugin.name!r}) is disabled: {plugin.cause}" for plugin in registry.plugins if plugin.status == "disabled"
    ]
    print("".join(f"\n{line}" for line in [*registry.faults, *disabled]), end="\n" if registry.faults or disabled else "")


def check(options: argparse.Namespace, out: Output) -> None:
    """Import each plugin in a process of its own and print the result.

    Raises:
        PluginError: If any plugin has a fault.
    """
    from zoo.cli.probe import probe_all
    from zoo.plugins.loader import find_plugins
    from zoo.plugins.policy import unknown_names
    from zoo.registry.registry import current_plugin_policy

    found = find_plugins(current_plugin_policy())
    unknown = unknown_names(options.names, [plugin.found for plugin in found if plugin.found])
    if unknown:
        raise OptionError(f"no plugin is called {', '.join(unknown)}; one of your own is found once it is installed: pip install -e FOLDER")
    chosen = [plugin for plugin in found if not options.names or plugin.answers_to(options.names)]
    reports = probe_all(chosen, options.timeout)
    if options.json:
        out.json([vars(report) for report in reports])
    else:
        print(_table([vars(report) | {"backbones": len(report.backbones), "heads": len(report.heads)} for report in reports]))
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        raise PluginError(
            fault_list(f"the plugins have {count(len(faults), 'fault')}", faults, "To go on without one: zoo plugins disable NAME")
        )


def switch(options: argparse.Namespace) -> None:
    """Disable or enable plugins in the user's file; none is imported.

    Raises:
        OptionError: If no name is given, or there is no such plugin.
    """
    from zoo.plugins import policy
    from zoo.plugins.entry_points import installed, normalized
    from zoo.plugins.loader import GROUP

    on = options.action == "enable"
    points = installed(GROUP).points
    listed = {normalized(name) for name in policy.read_user_file()["disable"]}
    # A disabled plugin that is no longer installed can still be enabled.
    unknown = policy.unknown_names([name for name in options.names if not (on and normalized(name) in listed)], points)
    if unknown or not options.names:
        fault = f"no plugin is called {', '.join(unknown)}" if unknown else f"zoo plugins {options.action} needs a name"
        known = ", ".join(sorted({point.name for point in points}))
        raise OptionError(f"{fault}; the plugins are: {known}")
    for name in options.names:
        path = policy.switch(name, on=on)
        print(f"{name} is {'enabled' if on else 'disabled'} in {path}")
    left = {point.name: policy.current_policy().refusal(point) for point in points if on}
    names = {normalized(name) for name in options.names}
    for point in points:
        if left.get(point.name) and names & {normalized(point.name), normalized(point.distribution)}:
            print(f"but {point.name} is still {left[point.name]}")


def _table(rows: list[dict[str, Any]]) -> str:
    keys = ("distribution", "version", "name", "status", "backbones", "heads")
    return table(([row[key] for key in keys] for row in rows), [key.replace("name", "plugin") for key in keys], right=(4, 5))

"""The command ``doctor``: a report on installed plugins and packages, torch, caches, disk space and saved models."""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.output.stdout import Output
from zoo.errors import PluginError, ZooError, count, fault_list
from zoo.util.numbers import in_units

TIMEOUT, BUILD_TIMEOUT = 30.0, 180.0  # seconds; building imports torch and a model library
LEAST_SPACE = 1e9  # bytes: less than the weights of most backbones
TORCH = """
import json, pathlib, sys
import torch
report = {"torch": torch.__version__, "cuda": torch.version.cuda or "", "threads": torch.get_num_threads(), "devices": []}
if torch.cuda.is_available():
    report["devices"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
elif torch.backends.mps.is_available():
    report["devices"] = ["mps"]
pathlib.Path(sys.argv[1]).write_text(json.dumps(report))
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser(
        "doctor", help="check plugins, torch, caches and disk, and saved models that are named; without these it imports no plugin itself"
    )
    command.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="saved models that must predict as when they were saved")
    text = f"seconds after which a plugin's process is killed: {TIMEOUT:g} by default, {BUILD_TIMEOUT:g} with --build"
    command.add_argument("--timeout", type=float, metavar="S", help=text)
    command.add_argument("--build", action="store_true", help="also build the first backbone of each plugin, without its weights")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=doctor)


def doctor(options: argparse.Namespace, out: Output) -> None:
    """Print the report.

    Raises:
        PluginError: If there are faults.
    """
    given = options.timeout
    report = examine(
        given if given is not None else BUILD_TIMEOUT if options.build else TIMEOUT, build=options.build, models=options.models
    )
    if options.json:
        out.json(report)
    else:
        print(describe(report))
    if report["faults"]:
        raise PluginError(fault_list(f"the doctor found {count(len(report['faults']), 'fault')}", report["faults"]))


def examine(timeout: float, *, build: bool, models: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the report as plain data, with one line per fault."""
    from zoo.cli.probe import probe_all, run_child

    plugins, faults = _plugins()
    probes = probe_all(plugins, timeout, build=build)
    torch = run_child(TORCH, [], max(timeout, 120.0))
    folders = [_folder(what, path) for what, path in _folders().items()]
    faults += [fault for probe in probes for fault in probe.faults]
    faults += [f"torch {torch['status']}: {torch['cause']}"] if "status" in torch else []
    faults += [f"{row['what']} {row['path']}: {row['fault']}" for row in folders if row["fault"]]
    faults += _clashes(probes) + _registry_files()
    saved = [row for path in models for row in _saved_model(path)]
    faults += [f"{row['path']}: {row['fault']}" for row in saved if row["fault"]]
    return {
        "zoo": _zoo_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "torch": torch,
        "plugins": [vars(probe) for probe in probes],
        "folders": folders,
        "models": saved,
        "faults": faults,
    }


def describe(report: dict[str, Any]) -> str:
    """Return the report as text."""
    from zoo.cli.commands.plugins import _table

    torch, rows = report["torch"], report["plugins"]
    lines = [f"zoo {report['zoo']}, Python {report['python']}, {report['platform']}"]
    lines.append(", ".join(f"{name} {version}" for name, version in report["packages"].items()))
    if "torch" in torch:
        lines.append(f"devices: {', '.join(torch['devices']) or 'cpu only'}; torch uses {count(torch['threads'], 'thread')}")
    lines += ["", _table([row | {"backbones": len(row["backbones"]), "heads": len(row["heads"])} for row in rows]), ""]
    lines += [f"{row['what']}: {row['path']}, {row['free'] / 1e9:.0f} GB free" for row in report["folders"]]
    lines += [f"{row['path']}: {row['state']}" for row in report["models"] if not row["fault"]]
    return "\n".join(lines if report["faults"] else [*lines, "", "nothing is wrong"])


def _plugins() -> tuple[list[Any], list[str]]:
    """Return the plugins, the incompatible ones marked as failed, and the faults of the policy."""
    from zoo.plugins.compat import misfit
    from zoo.plugins.loader import find_plugins
    from zoo.plugins.policy import Policy
    from zoo.registry.registry import current_plugin_policy

    faults = []
    try:
        policy = current_plugin_policy()
    except ZooError as error:
        # The disabled plugins are unknown, so none is imported.
        faults, policy = [str(error)], Policy.of(allow=[], origin="while the file cannot be read")
    plugins = []
    for plugin in find_plugins(policy):
        fault = misfit(plugin.found, plugin.versions) if plugin.found and plugin.status == "ok" else ""
        plugins.append(plugin.failed(fault) if fault else plugin)
    return plugins, faults + policy.unmatched([plugin.found for plugin in plugins if plugin.found])


def _clashes(probes: list[Any]) -> list[str]:
    owners: dict[str, list[str]] = {}
    for probe in probes:
        for name in probe.backbones:
            owners.setdefault(name, []).append(f"{probe.distribution} {probe.version}")
    return [f"{name!r} is given by {' and by '.join(sorted(given))}" for name, given in owners.items() if len(given) > 1]


def _registry_files() -> list[str]:
    from zoo.registry.registry_files import default_files, read_files

    try:
        read_files(default_files())
    except ZooError as error:
        return [str(error)]
    return []


def _folders() -> dict[str, Path]:
    from huggingface_hub import constants

    from zoo.plugins.policy import user_file
    from zoo.util.atomic_write import cache_folder

    return {"index of plugins": cache_folder(), "cache of the Hub": Path(constants.HF_HUB_CACHE), "settings": user_file().parent}


def _folder(what: str, path: Path) -> dict[str, Any]:
    """Return the free space of a folder, or of its nearest parent that exists, and a fault if it cannot be written."""
    there = next(place for place in (path, *path.absolute().parents) if os.path.exists(place))  # noqa: PTH110  # Path's may raise up to Python 3.11
    free = shutil.disk_usage(there).free
    fault = "" if os.access(there, os.W_OK | os.X_OK) and there.is_dir() else "it cannot be written"
    if not fault and free < LEAST_SPACE and what != "settings":
        fault = f"only {in_units(free)} are free"
    return {"what": what, "path": str(path), "free": free, "fault": fault}


def _saved_model(path: Path) -> list[dict[str, Any]]:
    """Return whether a saved model, or each member of an ensemble, predicts as when it was saved, else a fault."""
    from zoo.saved.config import read_config, read_members
    from zoo.saved.load import load
    from zoo.saved.reference_outputs import TOLERANCE, difference

    row: dict[str, Any] = {"path": str(path), "difference": None, "state": "", "fault": ""}
    try:
        if members := read_members(path):
            return [found for member in members for found in _saved_model(member)]
        model = load(path)
        saved = read_config(path).zoo.reference_outputs if (path / "config.json").is_file() else []  # LoRA by itself has none
        row["difference"] = apart = difference(model, saved)
    except ZooError as error:
        return [row | {"fault": str(error)}]
    if apart is None:
        return [row | {"state": "it opens; there are no outputs to compare: it was saved without, or its outputs are random"}]
    if math.isinf(apart):
        return [row | {"difference": None, "fault": "it gives no finite outputs for a fixed input any more, or another number of them"}]
    if apart > TOLERANCE:
        return [row | {"fault": f"its outputs for a fixed input differ by {apart:.2g} from those when it was saved"}]
    return [row | {"state": f"predicts as when it was saved (largest difference of an output {apart:.1g})"}]


def _versions() -> dict[str, str]:
    from zoo.util.versions import versions

    return {name: version for name, version in versions().items() if name not in ("python", "zoo")}


def _zoo_version() -> str:
    return str(sys.modules["zoo"].__version__)

"""Import of one plugin in a process of its own, isolated from crashes and hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.plugins.loader import Plugin
from zoo.util.subprocess_python import environment, python

CHILD = "import sys; from zoo.cli.probe import child; child(*sys.argv[1:])"
AT_ONCE = 4


@dataclass
class Report:
    """Result of probing one plugin.

    Attributes:
        name: Name of its entry point.
        distribution: Its distribution.
        version: Version of the distribution.
        status: ``ok``, ``failed``, ``died``, ``hangs`` or ``disabled``.
        cause: Why it is not ``ok``.
        backbones: Names of its backbones.
        heads: Names of its heads.
        changes: Process-wide changes by its import or its hooks, including an import of torch.
        seconds: Duration of the process.
    """

    name: str
    distribution: str
    version: str
    status: str = "ok"
    cause: str = ""
    backbones: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """One line for its status and one for its process-wide changes, if they are faults."""
        title = f"{self.distribution} {self.version} (plugin {self.name!r})"
        faults = [f"{title} {self.status}: {self.cause}"] if self.status in ("failed", "died", "hangs") else []
        return faults + ([f"{title} changes for the whole process: {'; '.join(self.changes)}"] if self.changes else [])


def probe_all(plugins: Sequence[Plugin], timeout: float, *, build: bool = False) -> list[Report]:
    """Probe plugins concurrently, each in a process of its own.

    Args:
        plugins: Plugins from ``find_plugins``.
        timeout: Seconds after which a process and its children are killed.
        build: Whether the first backbone of each plugin is also built, without its weights.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda plugin: probe(plugin, timeout, build=build), plugins))


def probe(plugin: Plugin, timeout: float, *, build: bool = False) -> Report:
    """Probe one plugin; see ``probe_all``."""
    report = Report(plugin.name, plugin.distribution, plugin.version, plugin.status, plugin.cause)
    if plugin.status != "ok":
        return report
    start = time.monotonic()
    arguments = [plugin.distribution, plugin.name, "build" if build else ""]
    document = run_child(CHILD, [*arguments, ""], timeout)
    if document.get("torch"):
        # The import of torch changes state itself: probe again with torch imported first.
        again = run_child(CHILD, [*arguments, "torch"], max(timeout, 60.0))
        document["changes"] = ["it imports torch, which makes every listing slow", *again.get("changes", [])]
    document.pop("torch", None)
    for key, value in document.items():
        setattr(report, key, value)
    report.seconds = round(time.monotonic() - start, 2)
    return report


def run_child(code: str, arguments: Sequence[str], timeout: float) -> dict[str, Any]:
    """Run Python code that writes a JSON document to the file that its first argument names.

    Returns:
        The document, or ``status`` and ``cause`` if the process died or was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, printed = Path(folder) / "result.json", Path(folder) / "printed"
        with printed.open("w") as stream:
            # In a session of its own, so that its children can be killed with it.
            process = subprocess.Popen(
                [*python(code), str(result), *arguments],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code_ = process.wait(timeout)
            except subprocess.TimeoutExpired:
                return {"status": "hangs", "cause": f"killed after {timeout:g} s; if the machine is slow, give it longer with --timeout"}
            finally:
                _kill(process)
        if result.is_file():
            document: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return document
        last = printed.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        how = f"rc {code_}" if code_ >= 0 else f"signal {signal.Signals(-code_).name}"
        return {"status": "died", "cause": "; ".join([how, *last])}


def child(result: str, distribution: str, name: str, build: str, preload: str) -> None:
    """Probe one plugin in this process, write the report to the file ``result``, and end the process."""
    import numpy  # noqa: F401  # before the snapshot, so that its changes do not count as the plugin's

    from zoo.cli.state import changed, snapshot
    from zoo.plugins.hook_results import collect
    from zoo.plugins.loader import find_plugins

    if preload:
        __import__(preload)
    (plugin,) = [one for one in find_plugins() if (one.distribution, one.name, one.status) == (distribution, name, "ok")]
    before = snapshot()
    collected = collect(plugin, fresh=True)
    document = {
        "status": collected.plugin.status,
        "cause": collected.plugin.cause,
        "backbones": list(collected.backbones.names),
        "heads": [head.name for head in collected.heads],
        "changes": changed(before, snapshot()),
        "torch": "torch" in sys.modules and not preload,
    }
    if build and collected.backbones.names:
        document |= _built(collected.backbones.names[0], collected.plugin)
    Path(result).write_text(json.dumps(document), encoding="utf-8")
    os._exit(0)  # threads of the plugin must not keep the process alive


def _built(name: str, plugin: Plugin) -> dict[str, str]:
    """Build a backbone without its weights."""
    from zoo.models.find import get
    from zoo.plugins.loader import describe
    from zoo.registry.registry import Registry, use_registry

    try:
        use_registry(Registry(plugins=[plugin], files=[]))
        get(name, weights=False).build()
    except Exception as error:  # plugins may raise anything
        return {"status": "failed", "cause": f"{name} cannot be built: {describe(error)}"}
    return {}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what still runs in its session."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()

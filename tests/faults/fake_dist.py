"""Distributions that exist only on a path: a dist-info folder and a module, as an installer would leave them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tests.warm_process import run_warm

ROOT = Path(__file__).resolve().parents[2]

HEALTHY = """
    import zoo

    @zoo.hookimpl
    def zoo_backbones():
        for name in {names}:
            yield zoo.BackboneSpec(
                name=name, build="{module}:build", layers={{"all": "body"}}, inputs=zoo.Image(size=8), features=zoo.Features(dim=4)
            )
"""


def fake_dist(
    folder: Path,
    name: str,
    source: str | None = None,
    *,
    version: str = "1.0",
    names: Sequence[str] = (),
    entry_points: str | None = None,
    metadata: bool = True,
    requires: Sequence[str] = (),
    api: Sequence[str] = (),
) -> Path:
    """Write a distribution below ``folder`` and return the folder.

    Args:
        folder: A folder to put on the path.
        name: Name of the distribution; its module has underscores instead of dashes.
        source: Text of the module; None writes a healthy plugin that lists ``names``.
        version: Version of the distribution.
        names: Ids that the healthy plugin lists.
        entry_points: Text of entry_points.txt; None names the module in group ``zoo``.
        metadata: Whether METADATA is written.
        requires: Its Requires-Dist lines.
        api: Versions of the plugin API that it names.
    """
    module = name.replace("-", "_").lower()
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    if metadata:
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
    point = f"[zoo]\n{name.removeprefix('zoo-')} = {module}\n" if entry_points is None else entry_points
    if api:
        point += "[zoo.api]\n" + "".join(f"{one} = {module}\n" for one in api)
    (info / "entry_points.txt").write_text(point)
    text = HEALTHY.format(names=list(names), module=module) if source is None else source
    (folder / f"{module}.py").write_text(textwrap.dedent(text))
    return folder


def run_python(
    code: str, *paths: Path, cwd: Path | None = None, warm: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program with ``paths`` in front of the path, away from the user's own registry files; a ``warm`` one has torch already."""
    code = textwrap.dedent(code)
    if warm:
        return run_warm(code, [], env=_around(paths, environment), cwd=cwd or ROOT)
    return _run([sys.executable, "-c", code], paths, cwd, environment)


def run_zoo(*arguments: str, paths: Sequence[Path] = (), cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the same way."""
    return _run([sys.executable, "-m", "zoo.cli", *arguments], paths, cwd, environment)


def _run(command: list[str], paths: Sequence[Path], cwd: Path | None, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    around = _around(paths, environment)
    return subprocess.run(command, capture_output=True, text=True, env=around, cwd=cwd or ROOT, timeout=120, check=False)


def _around(paths: Sequence[Path], environment: dict[str, str]) -> dict[str, str]:
    around = {key: value for key, value in os.environ.items() if not key.startswith(("ZOO_", "XDG_"))}
    return around | {"PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])), "OMP_NUM_THREADS": "1", "HOME": "/nonexistent", **environment}

"""Environments as a user has them: zoo comes from its wheels, while the heavy dependencies are borrowed from the running one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.warm_process import run_warm

ROOT = Path(__file__).resolve().parents[1]
CORE = "transfer-zoo"
PROJECTS = {CORE: ROOT} | {path.parent.name: path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))}


def build_wheel(project: Path, folder: Path) -> Path:
    """Build with the backend of the running environment, so no index is asked."""
    before = set(folder.glob("*.whl"))
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=project)
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment; ``run`` runs a command of it, and ``run_warm`` Python that has torch already."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def install(self, *what: str | Path) -> None:
        """Install without dependencies and without an index."""
        run(
            [
                sys.executable,
                "-m",
                "uv",
                "pip",
                "install",
                "--python",
                self.python,
                "--offline",
                "--no-deps",
                "--no-build-isolation",
                *map(str, what),
            ]
        )

    def run(self, *command: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(command, cwd=cwd, env=self._variables(), check=check)

    def run_warm(self, code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run code with the path of this environment, zoo and its plugins included, by a fork that has torch already."""
        path = json.loads(self.run("python", "-c", "import json, sys; print(json.dumps(sys.path))", cwd=cwd).stdout)
        there = f"import sys\nsys.path[:], sys.executable = {path!r}, {self.python!r}\n"
        done = run_warm(there + code, arguments, env=self._variables(), cwd=cwd)
        assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def _variables(self) -> dict[str, str]:
        variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "ZOO_REGISTRY")}
        return variables | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "160", "HF_HUB_OFFLINE": "1"}


def make_environment(folder: Path, wheels: Iterable[Path]) -> Environment:
    """Make an environment in ``folder`` with these wheels; everything but zoo and its plugins is borrowed."""
    environment = Environment(folder)
    run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(folder)])
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    _borrow(borrowed)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    environment.install(*wheels)
    return environment


def _borrow(folder: Path) -> None:
    """Link every installed package but our own; path files of editable installs stay behind."""
    ours = tuple(re.sub(r"[-_.]+", "_", name) for name in PROJECTS)
    for source in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(source).iterdir():
            stem = re.split(r"[-.]", entry.name)[0]
            if stem not in ours and entry.suffix != ".pth" and not entry.name.startswith("__"):
                (folder / entry.name).symlink_to(entry)


def run(command: Iterable[str], *, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command; where it fails, fail with all that it printed."""
    command = list(command)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0 or not check, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done  # type: ignore[no-any-return]

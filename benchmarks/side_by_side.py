"""Alternating runs of zoo and its peers, with the ratios of medians; absolute times mean little on a shared machine.

Imports neither torch nor zoo, so that processes that are measured import them themselves.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def alternate(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call each run once per round, in turn; each returns its measure in seconds."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name, run in runs.items():
            measured[name].append(run())
            print(f"  round {turn + 1}/{repeats}  {name:<24} {measured[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return measured


def report(title: str, measured: Mapping[str, Sequence[float]], ours: str, unit: str = "s") -> dict[str, Any]:
    """Print and return medians, spread, and our median over each peer's."""
    print(f"\n{title}")
    base = statistics.median(measured[ours])
    rows = {}
    for name, values in measured.items():
        median, spread = statistics.median(values), max(values) - min(values)
        rows[name] = {"median": median, "min": min(values), "max": max(values), "ours_over_this": base / median}
        print(f"  {name:<28} {median:9.3f} {unit}  (spread {spread:.3f})   ours / this = {base / median:.3f}")
    return rows


def timed_process(code: str, *arguments: str) -> float:
    """Run Python code in a fresh process and return its wall time in seconds."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
    )
    return time.perf_counter() - start


def process_result(code: str, *arguments: str) -> dict[str, float]:
    """Run Python code in a fresh process and return the JSON object that it prints last."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nthe process above ended with {done.returncode}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def function_result(function: str, *arguments: object) -> dict[str, float]:
    """Call ``module:function`` of this folder in a fresh process, with its arguments as text, and return its result, a mapping."""
    module, _, name = function.partition(":")
    code = f"import json, sys; from {module} import {name}; print(json.dumps({name}(*sys.argv[1:])))"
    return process_result(code, *map(str, arguments))


def environment() -> dict[str, str]:
    """Return the caller's environment, offline, with this folder on the Python path."""
    places = [str(HERE), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(filter(None, places))}


def needed(path: Path) -> Path:
    """Return a path of the real data, or exit with a message if it is missing."""
    if not path.exists():
        raise SystemExit(f"{path} is missing; give --data the folder of real data and weights, which is ../shared/data by default")
    return path


class Clock:
    """Wall and CPU seconds after every optimizer step of this process, in any training loop.

    Args:
        wait: Called before the clock is read after the steps ``at``, such as ``torch.cuda.synchronize``.
        at: Numbers of steps, from 1.
    """

    def __init__(self, wait: Callable[[], None] | None = None, at: Collection[int] = ()) -> None:
        self._wait, self._at = wait, at
        self.wall: list[float] = [time.perf_counter()]
        self.cpu: list[float] = [time.process_time()]

    def __enter__(self) -> Clock:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self._handle = register_optimizer_step_post_hook(self._tick)
        return self

    def __exit__(self, *_error: object) -> None:
        self._handle.remove()

    def _tick(self, *_step: object) -> None:
        if self._wait and len(self.wall) in self._at:
            self._wait()
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


def resident(key: str = "VmRSS") -> int:
    """Return bytes of this process's memory: ``VmRSS`` now, ``VmHWM`` at the peak since ``forget_peak``. Linux only."""
    match = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert match, f"/proc/self/status has no {key}"
    return int(match[1]) * 1024


def forget_peak() -> None:
    """Reset the peak of this process's memory to its current memory."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")

"""Run us and a peer alternately and print the ratio of medians; absolute times mean little on a shared machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def alternate(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call each run once per round, in turn; each returns its own measure, in seconds."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name, run in runs.items():
            measured[name].append(run())
            print(f"  round {turn + 1}/{repeats}  {name:<24} {measured[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return measured


def report(title: str, measured: Mapping[str, Sequence[float]], ours: str, unit: str = "s") -> dict[str, Any]:
    """Print medians, spread, and each peer's median over ours; return them for further use."""
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


def told_by_process(code: str, *arguments: str) -> dict[str, float]:
    """Run Python code in a fresh process and return the JSON object that it prints last."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, env=environment())
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def environment() -> dict[str, str]:
    """The caller's environment, offline."""
    return {**os.environ, "HF_HUB_OFFLINE": "1"}

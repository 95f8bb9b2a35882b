"""P7: samples per second of full fine-tuning on a GPU, our engine beside a hand-tuned bare loop; bf16, channels_last, AdamW.

Needs torch, torchvision and the dependencies of zoo, which may run from a checkout without being installed. A row that fails or
lacks a package shows the error, and the others go on. Nothing is downloaded: the networks have random values. In the first table
both loops use one batch that is already on the device, so that only the loops are compared. In the second they read JPEG files,
decoded and augmented by loader processes; waiting is the share of the first table's rate that is lost. Utilisation is the
arithmetic of forward and backward, counted by torch, over the GPU's peak for dense bf16.

Run: python benchmarks/gpu.py --out gpu.json
     python benchmarks/gpu.py --device cpu --tiny      (every path, on tiny shapes, in two or three minutes)
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from gpu_files import jpeg_batches, make_photos
from gpu_loops import CASES, Bench
from side_by_side import HERE


def use_this_checkout() -> None:
    """Make zoo and its plugins importable if they are not installed."""
    try:
        importlib.metadata.distribution("transfer-zoo")
        return
    except importlib.metadata.PackageNotFoundError:
        sys.path[:0] = [str(HERE.parent), *map(str, HERE.parent.glob("plugins/zoo-*"))]
    import zoo.builtin
    from zoo.registry.registry import Registry, use_registry

    plugins: list[Any] = [zoo.builtin]
    try:
        import zoo_timm

        plugins.append(zoo_timm)
    except ImportError:
        print("timm is not installed: its row is left out", file=sys.stderr)
    use_registry(Registry(plugins=plugins, files=[]))


def row(title: str, runs: dict[str, Callable[[], dict[str, float]]], repeats: int) -> dict[str, Any]:
    """Call the runs in turn and return medians; a run that fails is reported and not called again."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    fault: dict[str, str] = {}
    for turn in range(repeats):
        for name in [name for name in runs if name not in fault]:
            try:
                measured[name].append(runs[name]())
                print(
                    f"  {title:<28} {name:<5} {turn + 1}/{repeats}  {measured[name][-1]['rate']:.1f} samples/s", file=sys.stderr, flush=True
                )
            except Exception as error:
                fault[name] = f"{type(error).__name__}: {str(error).strip() or '(no message)'}".splitlines()[0]
                print(f"  {title:<28} {name:<5} skipped: {fault[name]}", file=sys.stderr, flush=True)
                if not isinstance(error, ImportError | LookupError | ValueError):
                    traceback.print_exc()
    rows: dict[str, Any] = {"row": title}
    for name, results in measured.items():
        if results:
            rows[name] = {key: statistics.median(each[key] for each in results) for key in results[0]}
            rows[name] |= {"rates": [each["rate"] for each in results]}
        else:
            rows[name] = {"skipped": fault.get(name, "not run")}
    return rows


def rate(result: dict[str, Any], side: str) -> float | None:
    """Return samples per second of one side of a row, None if it was skipped."""
    value: float | None = result.get(side, {}).get("rate")
    return value


def show(result: dict[str, Any]) -> dict[str, Any]:
    bare, ours = rate(result, "bare"), rate(result, "ours")
    sides = [f"{value:.1f}" if value else f"skipped ({result[side]['skipped']})" for side, value in (("bare", bare), ("ours", ours))]
    ratio = f"{ours / bare:.3f}" if ours and bare else ""
    used = f"{result['utilisation']:.1%}" if result.get("utilisation") else ""
    waits = f"{result['waiting']:.1%}" if result.get("waiting") is not None else ""
    print(f"| {result['row']} | {' | '.join(sides)} | {ratio} | {used} | {waits} |", flush=True)
    return result


def measure(bench: Bench, name: str, compiled: bool) -> dict[str, Any]:
    case = CASES[name]
    title = f"{name}{', compiled' if compiled else ''}"
    result = row(title, {"bare": lambda: bench.bare(case, compiled), "ours": lambda: bench.ours(case, compiled)}, bench.repeats)
    best = rate(result, "ours") or rate(result, "bare")
    if best:
        result["gflop_per_sample"] = bench.flops(case) / 1e9
        result["utilisation"] = best * result["gflop_per_sample"] / (bench.peak * 1e3) if bench.peak else None
    return result


def measure_files(bench: Bench, folder: Path, resident: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """Measure ResNet-50 on JPEG files, beside its row on a resident batch, for long enough that the loaders' full queues do not count."""
    case, bench = CASES["ResNet-50"], copy(bench)
    bench.warmup, bench.steps = 3 * bench.warmup, 3 * bench.steps
    batch, size = bench.shape(case)
    paths = make_photos(folder, *((8, 64) if bench.tiny else (512, 500)))
    count = batch * (bench.warmup + bench.steps)
    table = {"file_name": [str(paths[i % len(paths)]) for i in range(count)], "label": [str(i % 2) for i in range(count)]}

    def bare() -> dict[str, float]:
        return bench.bare(case, compiled, lambda: jpeg_batches(table, batch, size, bench.device, bench.workers))

    def ours() -> dict[str, float]:
        import pandas as pd

        return bench.ours(case, compiled, pd.DataFrame(table))

    result = row(f"JPEG files, ResNet-50{', compiled' if compiled else ''}", {"bare": bare, "ours": ours}, bench.repeats)
    before, after = rate(resident, "ours"), rate(result, "ours")
    result["waiting"] = max(0.0, 1 - after / before) if before and after else None
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="tiny networks and batches, to try every path")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--compiled", nargs="*", default=["no", "yes"], choices=["no", "yes"])
    parser.add_argument("--no-files", action="store_true", help="leave out the rows that read JPEG files")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=10, help="steps before, in which kernels are chosen and compiled")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, help="loader processes of both sides; the engine's own choice by default")
    parser.add_argument("--out", type=Path, help="a JSON file for all figures")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; to try the script: --device cpu --tiny")
    use_this_checkout()
    bench = Bench(arguments)
    figures: dict[str, Any] = {"device": bench.name, "peak_tflops": bench.peak, "torch": torch.__version__, "rows": []}
    print(
        f"{bench.name}, torch {torch.__version__}, bf16; batches: {', '.join(f'{n} {bench.shape(CASES[n])[0]}' for n in arguments.cases)}"
    )
    print("\n| full fine-tuning | bare, samples/s | ours, samples/s | ours / bare | utilisation | waiting for data |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for compiled in (word == "yes" for word in arguments.compiled):
            for name in arguments.cases:
                figures["rows"].append(show(measure(bench, name, compiled)))
                if name == "ResNet-50" and not arguments.no_files:
                    figures["rows"].append(show(measure_files(bench, Path(folder), figures["rows"][-1], compiled)))
                if arguments.out:
                    arguments.out.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

"""P6: peak memory of full fine-tuning, of LoRA and of recompute, beside the estimate of ``zoo plan``.

Each run is a process of its own. The first figure is the peak up to the last optimizer step, above the memory before the model
was built: weights, gradients, optimizer states, activations. A run of a smaller network comes first, so that every library is
imported; the peak of the full run, with its checkpoint and saved model, is shown beside. On the CPU it is resident memory
with an allocator that returns freed memory, on a GPU torch's allocated memory. Networks and inputs are random.

Run: python benchmarks/p6_memory.py
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
from typing import Any, NamedTuple

from side_by_side import Clock, forget_peak, function_result, resident


class Case(NamedTuple):
    """A network, the side of its pictures in pixels or 0 for texts of 128 tokens, and a smaller network of its family."""

    network: str
    pixels: int
    small: str
    changes: dict[str, Any]


CASES = {
    "resnet50": Case("timm/resnet50", 160, "timm/resnet18", {}),
    "vit": Case("timm/vit_small_patch16_224", 224, "timm/vit_tiny_patch16_224", {"depth": 1}),
    "bert": Case("bench/bert_small", 0, "bench/bert_small", {"layers": 1}),
}
VARIANTS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"trains": "lora"}, "recompute": {"recompute": True}}
STEPS = 3
MIB = 2**20


def planned(model: Any, data: Any, options: dict[str, Any]) -> float | None:
    """Return the bytes that ``zoo plan`` estimates for a run, None if this version of zoo has no such estimate."""
    if importlib.util.find_spec("zoo.engine.preview.preview") is None:
        return None
    preview = importlib.import_module("zoo.engine.preview.preview").preview
    return float(preview(model, data, False, **options).memory)


def measure(name: str, variant: str, batch: str, device: str) -> dict[str, float]:
    """Return the peaks of one run and its estimate, in bytes; runs in a process of its own."""
    import torch
    from networks import Pictures, task_model, texts

    torch.set_num_threads(1)
    cuda, case, count = device == "cuda", CASES[name], STEPS * int(batch)
    few, data = [Pictures(size, case.pixels) if case.pixels else texts(size) for size in (4, count)]
    options = _options(case, int(batch), device) | VARIANTS[variant]
    _fit(task_model(case.small, **case.changes), few, options | {"batch_size": 2})
    before = torch.cuda.memory_allocated() if cuda else resident()
    torch.cuda.reset_peak_memory_stats() if cuda else forget_peak()

    def peak() -> float:
        return float(torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")) - before

    marks: list[float] = []
    with Clock(lambda: marks.append(peak()), at=(STEPS,)):
        _fit(task_model(case.network), data, options)
    peaks = {"steps": marks[0], "run": peak()}
    estimate = planned(task_model(case.network), data, options)  # last, so that its dry steps do not count as the run's
    return peaks | ({} if estimate is None else {"planned": estimate})


def _options(case: Case, batch: int, device: str) -> dict[str, Any]:
    own = {"image_size": case.pixels} if case.pixels else {"max_length": 128}
    return own | {"recipe": "full", "epochs": 1, "batch_size": batch, "augment": "none", "device": device, "workers": 0}


def _fit(model: Any, data: Any, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as out:
        model.fit(data, False, out=f"{out}/run", quiet=True, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument(
        "--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS)
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    # glibc returns freed blocks at once only from this size on.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    print("| network | what trains | peak of the steps, MiB | spread | of full | peak of the run, MiB | plan said, MiB | peak over plan |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.cases:
        full = 0.0
        for variant in arguments.variants:
            results = []
            for turn in range(arguments.repeats):
                results.append(function_result("p6_memory:measure", name, variant, arguments.batch, arguments.device))
                print(
                    f"  {name}, {variant} {turn + 1}/{arguments.repeats}: {results[-1]['steps'] / MIB:.0f} MiB", file=sys.stderr, flush=True
                )
            full = line(name, variant, results, full)


def line(name: str, variant: str, results: list[dict[str, float]], full: float) -> float:
    """Print a line of the table; return the peak of full fine-tuning."""
    peaks = [each["steps"] / MIB for each in results]
    peak, run = statistics.median(peaks), statistics.median(each["run"] / MIB for each in results)
    full = peak if variant == "full" else full
    plan = results[0]["planned"] / MIB if "planned" in results[0] else None
    ratios = [
        f"{peak / full:.2f}" if full else "",
        f"{run:.0f}",
        f"{plan:.0f}" if plan else "no estimate",
        f"{peak / plan:.2f}" if plan else "",
    ]
    print(f"| {name} | {variant} | {peak:.0f} | {max(peaks) - min(peaks):.0f} | {' | '.join(ratios)} |", flush=True)
    return full


if __name__ == "__main__":
    main()

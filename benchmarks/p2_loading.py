"""P2: loading of a backbone from local weights with a new head, against timm; time and peak memory.

Run: python benchmarks/p2_loading.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from side_by_side import alternate, process_result, report

MODELS = ("resnet50", "convnext_tiny", "vit_base_patch16_224")
MAKE = """
import sys, timm, torch
from safetensors.torch import save_file
save_file(timm.create_model(sys.argv[1]).state_dict(), sys.argv[2])
print("{}")
"""
MEASURE = """
import json, os, sys, time
import timm, torch, safetensors.torch
from side_by_side import forget_peak, resident
{imports}
name, path = sys.argv[1:3]
with open(path, "rb") as file:  # both find the file in the page cache
    while file.read(1 << 24): pass
forget_peak()
before = resident()
start = time.perf_counter()
{body}
seconds = time.perf_counter() - start
assert not any(p.is_meta for p in model.parameters())
print(json.dumps({{"seconds": seconds, "peak": (resident("VmHWM") - before) / os.path.getsize(path)}}))
"""
OURS = MEASURE.format(
    imports="import zoo.models.task_model, zoo_timm.build; from zoo.registry.registry import default_registry; default_registry()",
    body="model = zoo.get('timm/' + name, weights=path).adapt(10)",
)
PEER = MEASURE.format(imports="", body="model = timm.create_model(name, checkpoint_path=path); model.reset_classifier(10)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            path = str(Path(folder) / f"{name}.safetensors")
            process_result(MAKE, name, path)
            peaks: dict[str, list[float]] = {"zoo": [], "timm": []}

            def run(code: str, who: str, name: str = name, path: str = path, peaks: dict[str, list[float]] = peaks) -> float:
                result = process_result(code, name, path)
                peaks[who].append(result["peak"])
                return result["seconds"]

            measured = alternate({"zoo": lambda: run(OURS, "zoo"), "timm": lambda: run(PEER, "timm")}, arguments.repeats)
            report(f"P2: {name}", measured, ours="zoo")
            print(f"  peak memory above the start, as a multiple of the file: zoo {max(peaks['zoo']):.2f}, timm {max(peaks['timm']):.2f}")


if __name__ == "__main__":
    main()

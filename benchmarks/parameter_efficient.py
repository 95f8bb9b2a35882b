"""Kinds of parameter-efficient updates beside the probe and full fine-tuning, on real photos and questions. Prints a Markdown table.

ants/bees: MobileNetV2-0.35 at 96 pixels, 244 photos. TREC: all-MiniLM-L6-v2 with 400 questions, 500 to test. Every recipe has its own
defaults but for the number of epochs; the last epoch is kept, and images are not augmented. Each run is a process of its own with one
thread, or with --together all runs are one process, which saves the imports: the parameters of the backbone that train, the peak of
resident memory above that before the run (with --together, where runs share freed memory, what the plan expects), CPU time of the
run, and accuracy on the held-out samples. A kind that does not fit the backbone is refused before it trains, which the table says.

Run: ZOO_REGISTRY=../shared/data/registry.toml python benchmarks/parameter_efficient.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from sets import Samples, images, text_model, texts
from side_by_side import forget_peak, function_result, resident

RECIPES = (
    "linear-probe",
    "lp-ft",
    "bitfit",
    "lora",
    "dora",
    "loha",
    "lokr",
    "adalora",
    "ia3",
    "ssf",
    "adapter",
    "adaptformer",
    "prompt",
    "prefix",
)
SETS = ("ants/bees", "TREC")
MIB = 2**20


def samples(name: str, data: Path) -> tuple[Samples, Samples]:
    if name == "TREC":
        return texts(name, data, 400, 500)
    train, test = images(name, data)
    return (list(train["file_name"]), list(train["label"])), (list(test["file_name"]), list(test["label"]))


def measure(name: str, recipe: str, data: str, epochs: str, seed: str) -> dict[str, float]:
    """Return the figures of one run; runs in a process of its own."""
    import torch

    import zoo

    torch.set_num_threads(1)
    train, test = samples(name, Path(data))
    made = zoo.get(text_model() if name == "TREC" else "local/mobilenetv2_035")
    model = made.adapt(len(set(train[1])), labels=sorted(set(train[1])), seed=int(seed))
    own: dict[str, Any] = {"max_length": 32} if name == "TREC" else {"image_size": 96, "augment": "none"}
    own |= {} if recipe == "linear-probe" else {"epochs": int(epochs)}
    try:
        plan = model.plan(train, False, recipe=recipe, seed=int(seed), **own)
    except zoo.ZooError as error:
        return {"refused": type(error).__name__}  # type: ignore[dict-item]  # instead of figures
    trainable = sum(group.trainable for group in plan.phases[-1].groups if group.name != "head")
    before, start = resident(), time.process_time()
    forget_peak()
    with tempfile.TemporaryDirectory() as out:
        model.fit(train, False, recipe=recipe, seed=int(seed), out=f"{out}/run", quiet=True, workers=0, **own)
    seconds, peak = time.process_time() - start, resident("VmHWM") - before
    accuracy = float(model.evaluate(test)["accuracy"])
    return {"trainable": trainable, "expected": plan.memory / MIB, "memory": peak / MIB, "seconds": seconds, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--together", action="store_true")
    arguments = parser.parse_args()
    # glibc returns freed blocks at once only from this size on, and reads this when a process starts.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    if arguments.together and not allocator.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | allocator)
    os.environ |= allocator
    print("| data | recipe | trains in the backbone | memory, MiB | CPU time, s | accuracy |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in arguments.sets:
        for recipe in arguments.recipes:
            given = (name, recipe, arguments.data.resolve(), arguments.epochs)
            run = measure if arguments.together else partial(function_result, "parameter_efficient:measure")
            found = [run(*map(str, (*given, seed))) for seed in range(arguments.seeds)]
            if "refused" in found[0]:
                print(f"| {name} | `{recipe}` | refused ({found[0]['refused']}) | | | |", flush=True)
                continue
            mean = {key: statistics.mean(one[key] for one in found) for key in found[0]}
            memory = mean["expected" if arguments.together else "memory"]
            sizes = f"{mean['trainable']:,.0f} | {memory:.0f} | {mean['seconds']:.1f} | {mean['accuracy']:.3f}"
            print(f"| {name} | `{recipe}` | {sizes} |", flush=True)


if __name__ == "__main__":
    main()

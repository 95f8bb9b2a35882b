"""Fine-tuning and features on a CPU with freed memory kept in the process, beside glibc's own way of giving it back.

CPU seconds and the peak of the resident memory of ``fit`` (every layer, batches of 32, three epochs over 64 random images) and CPU seconds
of ``embed`` over 256 images, one thread, a fresh process each. The other side runs with ``GLIBC_TUNABLES`` set to a value that is the
default anyway, for zoo leaves an allocator alone that the environment tunes.

Run: python benchmarks/freed_memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time

from side_by_side import function_result, resident

SIDES = {"kept": "", "given back": "glibc.malloc.tcache_count=7"}
NETWORKS = ("mobilenetv2_100", "resnet18", "resnet50", "vit_small_patch16_224")


def run(network: str, pixels: str) -> dict[str, float]:
    """Train and compute features in this process."""
    import numpy as np
    import torch

    import zoo

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (int(pixels), int(pixels), 3), dtype=np.uint8) for _ in range(64)]
    model = zoo.get(f"timm/{network}", weights=False).adapt(2, labels=["a", "b"])
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        options = {"recipe": "full", "epochs": 3, "batch_size": 32, "image_size": int(pixels), "augment": "none"}
        model.fit((images, ["a", "b"] * 32), False, out=f"{folder}/run", quiet=True, **options)
        trained, peak = time.process_time() - start, resident("VmHWM")
    start = time.process_time()
    model.embed(images * 4, image_size=int(pixels))
    return {"fit": trained, "embed": time.process_time() - start, "peak": peak / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, metavar="NAME", help="of timm")
    parser.add_argument("--pixels", nargs="*", type=int, default=(160, 224))
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    for network in arguments.networks:
        for pixels in arguments.pixels if not network.startswith("vit") else (224,):
            found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for _ in range(arguments.repeats):
                for side, tunables in SIDES.items():
                    os.environ["GLIBC_TUNABLES"] = tunables
                    found[side].append(function_result("freed_memory:run", network, pixels))
            medians = {side: {what: statistics.median(one[what] for one in rounds) for what in rounds[0]} for side, rounds in found.items()}
            ratios = {what: round(medians["kept"][what] / value, 3) for what, value in medians["given back"].items()}
            print(f"{network}, {pixels} pixels: kept over given back {json.dumps(ratios)}; rounds {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()

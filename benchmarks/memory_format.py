"""Speed-up of convolutional networks on a CPU in the memory format channels_last.

CPU seconds of one forward in eval mode and of one forward and backward in training mode, random values and pixels, the best
of three.

Run: python benchmarks/memory_format.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import timm
import torch

NETWORKS = {
    "mobilenetv2_100": 32,
    "mobilenetv3_large_100": 16,
    "efficientnet_b0": 16,
    "resnet18": 16,
    "resnet50": 8,
    "convnext_tiny": 8,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, batch in NETWORKS.items():
        usual, last = (measured(name, batch, arguments, layout) for layout in (torch.contiguous_format, torch.channels_last))
        print(f"{name:<24} eval {usual[0] / last[0]:.2f}   training {usual[1] / last[1]:.2f}", flush=True)


def measured(name: str, batch: int, arguments: argparse.Namespace, layout: torch.memory_format) -> tuple[float, float]:
    """Return the seconds of a forward and of a training step."""
    network = timm.create_model(name, num_classes=5).to(memory_format=layout)
    x = torch.randn(batch, 3, arguments.pixels, arguments.pixels).contiguous(memory_format=layout)

    def step() -> None:
        network.zero_grad()
        network(x).sum().backward()

    network.eval()
    with torch.inference_mode():
        forward = best(lambda: network(x), arguments.repeats)
    network.train()
    return forward, best(step, arguments.repeats)


def best(run: Callable[[], object], repeats: int) -> float:
    """Return the CPU seconds of the fastest of some runs after a first one."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()

"""Time of an epoch of each method of domain adaptation, over that of the passes that it needs: one of the source, one of the target.

MobileNetV2 at width 0.35 with random values, all groups train, in batches of 32 random images. The plain passes are those of an
objective whose loss of the target is the sum of its logits times zero. Epochs of all methods alternate, so that a busy machine slows
all alike, and the fastest of each counts. Prints a Markdown table.

Run: python benchmarks/domain_cost.py
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zoo
from zoo import Batch, Objective, Source, Supervised
from zoo.data.table import Table
from zoo.transfer import DomainAdaptation
from zoo.transfer.domain.alignments import KINDS

CLASSES, BATCH = 10, 32


class TwoPasses(Objective):
    """The labels of the source, and a pass of the target that changes nothing."""

    name, separable = "two passes", False

    def __init__(self, base: Supervised, target: Table) -> None:
        super().__init__(base.model, base.sources | {"target": Source(target)}, {})
        self.weight, self.base = base.weight, base  # type: ignore[method-assign]

    def loss(self, forward: Any, batch: Mapping[str, Batch]) -> torch.Tensor:
        return self.base.label_loss(forward(batch["train"].x), batch["train"].y) + 0.0 * forward(batch["target"].x).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=[name for name, kind in KINDS.items() if kind.make or name == "adabn"])
    arguments = parser.parse_args()
    logging.getLogger("zoo").setLevel(logging.ERROR)
    random = np.random.default_rng(0)
    source, target = (random.integers(0, 255, (arguments.samples, arguments.size, arguments.size, 3), dtype=np.uint8) for _ in range(2))
    labels = [str(number % CLASSES) for number in range(arguments.samples)]
    table = zoo.open_data(target, labelled=False)
    makers: dict[str, Any] = {"two passes": lambda base: TwoPasses(base, table)}
    makers |= {name: DomainAdaptation(table, method=name) for name in arguments.methods}
    how: dict[str, Any] = {"recipe": "full", "epochs": 1, "augment": "none", "batch_size": BATCH, "workers": 0, "quiet": True}
    how |= {"image_size": arguments.size, "freeze_bn": False}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    with tempfile.TemporaryDirectory() as out:
        for number in range(arguments.rounds):
            for name, make in makers.items():
                model = zoo.get("timm/mobilenetv2_035", weights=False).adapt(CLASSES)
                run = model.fit((source, labels), False, objective=Timed(make, seconds[name]), out=Path(out) / f"{name}-{number}", **how)
                assert len(run.history) == 1
    plain = min(seconds["two passes"])
    print("| method | ms a step | over the plain passes |\n|---|---|---|")
    for name, found in seconds.items():
        print(f"| {name} | {min(found) * 1000:.0f} | {min(found) / plain:.2f} |")


class Timed:
    """An objective whose steps are timed, from the end of one to that of the next.

    Args:
        make: Makes the objective.
        seconds: Gets the time of each step but the first.
    """

    def __init__(self, make: Any, seconds: list[float]) -> None:
        self._make, self._seconds = make, seconds

    def __call__(self, base: Supervised) -> Objective:
        objective: Objective = self._make(base)
        after, ends = objective.after_step, []

        def after_step() -> None:
            after()
            ends.append(time.process_time())
            self._seconds.extend([ends[-1] - ends[-2]] if len(ends) > 1 else [])

        objective.after_step = after_step  # type: ignore[method-assign]
        return objective


if __name__ == "__main__":
    main()

"""Accuracy of the defaults on real images, mean over seeds; nothing is tuned to a data set. Prints a Markdown table.

ants/bees: 244 training photos, 153 for validation. X-rays: Pneumonia against No_findings, folds 1 to 4 for training, fold 0
for validation, no patient in both. The backbone is MobileNetV2 with real ImageNet weights; scratch is the same network
with random values and the recipe ``full``. A longer form of the default is shown beside it.

Run: python benchmarks/transfer_images.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sets import images
from side_by_side import needed

import zoo
from zoo import Phase, Recipe
from zoo.registry.registry import use_registry

LONG = Recipe(
    name="long",
    phases=(Phase(name="probe", frozen="all", augment=False), Phase(name="tune", lr=0.03)),
    lr=3e-3, layer_decay=0.75, epochs=20, freeze_bn=True,
)  # fmt: skip
ROWS: tuple[tuple[str, dict[str, Any], bool | None], ...] = (
    ("linear probe", {"recipe": "linear-probe"}, None),
    ("default (layer-decay)", {}, None),
    ("layer-decay, 10 and 10 epochs", {"recipe": LONG}, None),
    ("from scratch", {"recipe": "full"}, False),
)


SETS = ("ants/bees", "X-rays")


def one(name: str, size: int, fit: dict[str, Any], weights: bool | None, seed: int, data: Path) -> tuple[float, float, float]:
    """Return accuracy, AUROC and seconds of one run."""
    train, valid = images(name, data)
    model = zoo.get("local/mobilenetv2_100", weights=weights).adapt(2, seed=seed)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        run = model.fit(train, valid, image_size=size, seed=seed, out=Path(out) / "run", quiet=True, **fit)
    return run.metrics["accuracy"], run.metrics["auroc"], time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--sizes", nargs="*", type=int, default=[224, 160])
    parser.add_argument("--rows", nargs="*", default=[row[0] for row in ROWS])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    use_registry(files=[needed(arguments.data) / "registry.toml"])
    print("| data | pixels | method | accuracy (mean of seeds) | spread | AUROC | seconds per run |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.sets:
        for size in arguments.sizes:
            for title, fit, weights in (row for row in ROWS if row[0] in arguments.rows):
                results = [one(name, size, fit, weights, seed, arguments.data) for seed in range(arguments.seeds)]
                accuracy, auroc, seconds = (list(column) for column in zip(*results, strict=True))
                spread = f"{min(accuracy):.3f} to {max(accuracy):.3f}"
                mean, area, cost = statistics.mean(accuracy), statistics.mean(auroc), statistics.mean(seconds)
                print(f"| {name} | {size} | {title} | {mean:.3f} | {spread} | {area:.3f} | {cost:.0f} |", flush=True)


if __name__ == "__main__":
    main()

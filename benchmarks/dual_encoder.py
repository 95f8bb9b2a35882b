"""Zero-shot, fine-tuned, FLYP, WiSE-FT and Tip-Adapter on a tiny dual encoder of colours.

No pretrained dual encoder is at hand, so both towers are trained first, on noisy images of five colours and their names. Then the light
of the images changes: the training data have it, and half of the test data.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import zoo
import zoo.builtin
from tests.toy_pair import COLOURS, PairPlugin, coloured, pair_spec, pretrained
from zoo.models.backbone import Backbone
from zoo.registry.registry import Registry, use_registry

NAMES, SHIFT, SEEDS = sorted(COLOURS), (60, -60, 60), 3
OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 5, "lr": 1e-2, "batch_size": 25, "augment": "none", "quiet": True}
FLYP = zoo.transfer.Flyp


def measured(folder: Path, seed: int) -> dict[str, tuple[float, float]]:
    """Return the accuracy in the light of the training data and in that of the pretraining, by method."""
    file = pretrained(folder / "towers.safetensors", seed=seed)
    train, valid, near = (coloured(NAMES, 100 * count, 1000 * seed + place, shift=SHIFT) for place, count in ((11, 1), (12, 1), (13, 4)))
    far, found = coloured(NAMES, 400, 1000 * seed + 14), dict[str, tuple[float, float]]()

    def start() -> zoo.TaskModel:
        return Backbone(pair_spec(file)).zero_shot(NAMES)

    def note(name: str, model: zoo.TaskModel) -> None:
        found[name] = (float(model.evaluate(near)["accuracy"]), float(model.evaluate(far)["accuracy"]))

    start().save(folder / "zero")
    note("zero-shot", start())
    for name, objective in (("labels", None), ("flyp", FLYP())):
        model = start()
        model.fit(train, valid, **OPTIONS, seed=seed, objective=objective, out=folder / name)
        note(name, model)
        note(f"{name}, WiSE-FT", zoo.select.wise_ft(folder / "zero", folder / name, valid, out=folder / f"{name}-mixed").model)
        note(f"{name}, alpha 0.5", zoo.select.wise_ft(folder / "zero", folder / name, out=folder / f"{name}-half").model)
    few = coloured(NAMES, 40, 1000 * seed + 15, shift=SHIFT)
    for method in ("tip-adapter", "tip-adapter-f", "simpleshot"):
        both = [zoo.transfer.few_shot(Backbone(pair_spec(file)), few, data, method).accuracy or 0.0 for data in (near, far)]
        found[f"{method}, 8 of a class"] = (both[0], both[1])
    return found


def main() -> None:
    """Print the means and standard deviations over the seeds."""
    use_registry(Registry(plugins=[zoo.builtin, PairPlugin()], files=[]))
    rows = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(Path(folder), seed))
    print("| method | the new light | the old light |\n|---|---|---|")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        print(f"| {name} | " + " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), values.std(0), strict=True)) + " |")


if __name__ == "__main__":
    main()

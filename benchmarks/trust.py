"""Calibration error, coverage of prediction sets and scores of outliers on real images: python benchmarks/trust.py --data DIR.

DIR holds medical/pneumoniamnist/pneumoniamnist.npz, images/hymenoptera and images/office_caltech10/webcam; for the photos a
registry with a backbone (--backbone) is needed. Each model is calibrated on one part, and measured on another.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from zoo.tasks.scores import area

LEVELS = (0.8, 0.9, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", help="backbone for the photos; without one they are left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        x_rays(options.data, Path(folder))
        if options.backbone:
            photos(options.data, options.backbone, Path(folder))


def x_rays(data: Path, folder: Path) -> None:
    held = np.load(data / "medical" / "pneumoniamnist" / "pneumoniamnist.npz")
    parts = {
        name: (held[f"{name}_images"], [("normal", "pneumonia")[k] for k in held[f"{name}_labels"].ravel()])
        for name in ("train", "val", "test")
    }
    model = zoo.get("zoo/glyphnet").adapt(2, labels=("normal", "pneumonia"))
    model.fit(parts["train"], parts["val"], out=folder / "x-rays", quiet=True)
    # The test part has other shares of the classes than the others; its halves have the same.
    order = np.random.default_rng(0).permutation(len(parts["test"][1]))
    halves = [tuple_of(parts["test"], order[start::2]) for start in (0, 1)]
    turned = parts["test"][0][:, ::-1]
    show("X-rays, calibrated on val", model, parts["val"], parts["test"], {"upside down": turned})
    show("X-rays, calibrated on half of test", model, halves[0], halves[1], {"upside down": turned})


def photos(data: Path, name: str, folder: Path) -> None:
    root = data / "images" / "hymenoptera"
    files = sorted((root / "val").rglob("*.jpg"))
    halves = [([str(path) for path in files[start::2]], [path.parent.name for path in files[start::2]]) for start in (0, 1)]
    model = zoo.get(name).adapt(2)
    model.fit(root / "train", recipe="linear-probe", image_size=160, out=folder / "photos", quiet=True)
    others = sorted(str(path) for path in (data / "images" / "office_caltech10" / "webcam").rglob("*.jpg"))
    show("ants and bees, calibrated on half of val", model, halves[0], halves[1], {"office things": others})


def tuple_of(part: tuple[Any, list[str]], rows: Any) -> tuple[Any, list[str]]:
    return part[0][rows], [part[1][row] for row in rows]


def show(title: str, model: Any, valid: Any, test: Any, others: dict[str, Any]) -> None:
    found = model.calibrate(valid)
    measured = model.evaluate(test)
    print(f"\n{title}: {found.samples} samples, temperature {found.temperature:.2f}; {len(test[1])} test samples")
    print(f"  accuracy {measured['accuracy']:.3f}, ece {measured['ece_uncalibrated']:.3f} -> {measured['ece']:.3f}")
    for level in LEVELS:
        sets = model.evaluate(test, sets=level)
        print(f"  sets of {level}: coverage {sets['coverage']:.3f}, size {sets['set_size']:.2f}")
    curve = model.evaluate(test).selective()
    half = int(np.searchsorted(curve["coverage"], 0.5))
    print(f"  error {curve['risk'][-1]:.3f} of all, {curve['risk'][half]:.3f} of the surest half")
    usual = model.ood_score(test[0])
    for name, inputs in others.items():
        odd = model.ood_score(inputs)
        value = area(np.r_[usual, odd], np.arange(len(usual) + len(odd)) >= len(usual))
        print(f"  {name}: AUROC {value:.3f}; above 1: {np.mean(odd > 1):.3f}, of test samples {np.mean(usual > 1):.3f}")


if __name__ == "__main__":
    main()

"""Demo: transfer GlyphNet, trained on letters, to handwritten digits with ten images per class.

It uses public functions only.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from zoo.builtin.demo_report import Ticker, draw, show
from zoo.engine.rundir.curves import drawn
from zoo.errors import OptionError, OutputExistsError, OutputPermissionError

BACKBONE = "zoo/glyphnet"
PER_CLASS = 10


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table.

    Attributes:
        name: Name in the table.
        pretrained: Whether it starts from the pretrained weights.
        recipe: Recipe of ``fit``.
        epochs: Passes over the training images.
        options: Further options of ``fit``.
    """

    name: str
    pretrained: bool
    recipe: str
    epochs: int
    options: dict[str, Any] = field(default_factory=dict)


# Each method has its best rate of those tried; training from scratch also label smoothing, which helps only there. No row
# augments; docs/builtin.md has the effect of random crops.
METHODS = (
    Method(name="linear probe", pretrained=True, recipe="linear-probe", epochs=20, options={"lr": 2e-2}),
    Method(name="fine-tuned", pretrained=True, recipe="layer-decay", epochs=45, options={"lr": 1e-2, "augment": "none"}),
    Method(
        name="from scratch", pretrained=False, recipe="full", epochs=40, options={"lr": 2e-2, "label_smoothing": 0.1, "augment": "none"}
    ),
)


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 scanned digits (Alpaydin and Kaynak 1998), 8 x 8 pixels, as uint8 arrays with labels.

    Attributes:
        test: The last 899, the same for every seed and method.
        valid: Ten per class of the first half, the same for every seed and method, to choose the epoch.
        pool: The rest of the first half, from which a seed draws the training images.
    """

    test: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    pool: tuple[np.ndarray, np.ndarray]


def load_digits() -> Digits:
    """Return the digits with their fixed split, without download."""
    from sklearn.datasets import load_digits as load  # type: ignore[import-untyped]  # ships no types

    found = load()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)  # 17 grey levels, 0 is paper
    labels = found.target.astype(np.int64)
    half = len(labels) // 2
    first = (images[:half], labels[:half])
    valid, pool = split_per_class(first, seed=0)
    return Digits(test=(images[half:], labels[half:]), valid=valid, pool=pool)


def split_per_class(
    data: tuple[np.ndarray, np.ndarray], seed: int, per_class: int = PER_CLASS
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Draw ``per_class`` samples of each class without replacement; return them and the rest, each in their order."""
    images, labels = data
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in np.unique(labels)]
    drawn = np.zeros(len(labels), dtype=bool)
    drawn[np.concatenate(chosen)] = True
    return (images[drawn], labels[drawn]), (images[~drawn], labels[~drawn])


def run_demo(out: str | Path | None = None, quiet: bool = False, seeds: int = 3, *, methods: Sequence[Method] = METHODS) -> dict[str, Any]:
    """Transfer GlyphNet to digits, beside the same network from scratch; print a table and save it with the learning curves.

    Args:
        out: Folder for ``demo.json``, ``demo.png`` and the runs; None takes ``runs/demo``, or the next free number.
        quiet: Print nothing.
        seeds: Number of repetitions; a seed determines the training images and all random numbers.
        methods: Rows of the table.

    Returns:
        ``rows`` (per method: the mean, spread and every value of the test accuracy, and the learning curves), ``seconds``,
        ``out``, and the data of training and test.

    Raises:
        OutputExistsError: If ``out`` exists and is not empty.
        OptionError: If ``seeds`` is not positive.
    """
    if seeds < 1:
        raise OptionError(f"seeds is {seeds}; the demo needs at least 1")
    folder, started, digits = claim(out), time.monotonic(), load_digits()
    rows = []
    with Ticker(len(methods) * seeds, quiet=quiet) as ticker, one_thread():
        for method in methods:
            begun, runs = time.monotonic(), []
            for seed in range(seeds):
                ticker.begin(f"{method.name}, seed {seed}")
                runs.append(_repeat(method, seed, digits, folder))
                ticker.done(f"test accuracy {runs[-1]['accuracy']:.3f}")
            rows.append(_row(method, runs, time.monotonic() - begun))
    report = {
        "backbone": BACKBONE,
        "train_images_per_class": PER_CLASS,
        "test_images": len(digits.test[1]),
        "valid_images": len(digits.valid[1]),
        "seeds": seeds,
        "rows": rows,
        "seconds": round(time.monotonic() - started, 1),
        "out": str(folder),
    }
    (folder / "demo.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    drawn(lambda path: draw(report, path), folder / "demo.png")
    if not quiet:
        show(report)
    return report


def claim(out: str | Path | None) -> Path:
    """Make the folder of the demo: ``out``, or the first free one of ``runs/demo``, ``runs/demo-2`` and so on.

    Raises:
        OutputExistsError: If ``out`` exists and is not an empty folder.
        OutputPermissionError: If it cannot be made.
    """
    if out is None:
        names = ("demo" if number == 1 else f"demo-{number}" for number in itertools.count(1))
        folder = next(Path("runs") / name for name in names if not (Path("runs") / name).exists())
    else:
        folder = Path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputExistsError(f"{str(folder)!r} exists and is not an empty folder; choose another (--out)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputPermissionError(f"{str(folder)!r} cannot be made: {error.strerror}; choose a folder of your own (--out)") from error
    return folder


def _repeat(method: Method, seed: int, digits: Digits, folder: Path) -> dict[str, Any]:
    """Train one model and test it once."""
    train, _ = split_per_class(digits.pool, seed)
    backbone = zoo.get(BACKBONE, weights=None if method.pretrained else False)
    model = backbone.adapt(10, seed=seed)
    out = folder / f"{method.name.replace(' ', '-')}-seed{seed}"
    run = model.fit(
        train, digits.valid, recipe=method.recipe, epochs=method.epochs, batch_size=20, seed=seed, out=out, quiet=True, **method.options
    )
    curve = [record["accuracy"] for record in run.history]
    return {"accuracy": model.evaluate(digits.test)["accuracy"], "curve": curve, "kept": run.kept}


def _row(method: Method, runs: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Summarise the repetitions of one method; the spread is the sample standard deviation."""
    values = [run["accuracy"] for run in runs]
    return {
        **asdict(method),
        "mean": statistics.fmean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else 0.0,
        "accuracies": values,
        "curves": [run["curve"] for run in runs],
        "kept": [run["kept"] for run in runs],
        "seconds": round(seconds, 1),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block.

    The results then do not depend on the number of cores. So small a network gains nothing from more threads, and would wait for
    them on a busy machine.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

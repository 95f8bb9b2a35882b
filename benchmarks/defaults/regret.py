"""Regret of the defaults: the accuracy of the best method less ours, over the sets, backbones and sizes of the matrix.

Ours is ``fit(train, False)`` and nothing else; ``linear-probe`` is its solved head. The peers have the same backbone, pixels and
samples: LogisticRegressionCV on frozen features, Trainer for 3 and 10 epochs with batches of 8 and 32 at its rate of 5e-5 under our
augmentation, fastai's ``fine_tune(5)`` with its own head and augmentation (backbones of three channels), and SetFit where a class has at
most 16 texts. ``--autogluon PYTHON`` adds AutoGluon's multimodal predictor with all of its own settings, run by the interpreter of
another environment (``autogluon_run.py`` says why), where timm or transformers know the backbone by name. ``--methods auto`` adds
``recipe="auto"``, which costs about five runs, and ``--methods contrastive`` our objective of pairs. All but the former keep the last
epoch. Of two classes the AUROC of ours, of the probe and of Trainer on images is recorded as well; ``--figure auroc`` prints its table.
With all samples the seeds differ in training only. Each sees the test part once, at most 600 samples of it. Seconds are CPU seconds
of one thread, of training only; those of LogisticRegressionCV are without the features. Results go to a file as they come, a line each,
and a run that is started again goes on behind them, so the hours can be divided.

Run: python benchmarks/defaults/regret.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import MOST, PLACES, SETS, SIZES, Entry, Samples
from probe import adapted, kept, peer  # also finds the modules of benchmarks/ and sets the environment
from regret_tables import print_tables
from side_by_side import needed

import zoo

TOKENS = 128
OURS, PROBE, AUTO, PAIRS, REGRESSION = "zoo", "linear-probe", "auto", "contrastive", "LogisticRegressionCV"
TRAINER = {f"Trainer, {epochs} epochs of {batch}": (epochs, batch) for epochs in (3, 10) for batch in (8, 32)}
AUTOGLUON = "AutoGluon"
METHODS = (OURS, PROBE, AUTO, PAIRS, REGRESSION, *TRAINER, "fastai", "SetFit", AUTOGLUON)
USUAL = tuple(each for each in METHODS if each not in (AUTO, PAIRS))
TIMM = ("mobilenetv2_100", "mobilenetv2_035")  # what AutoGluon can open of the backbones of images
FIGURES = ("accuracy", "auroc")
Method = Callable[[], tuple[dict[str, float], float]]


class Cell:
    """One set, backbone, size and seed: the samples, and each method on them."""

    def __init__(self, entry: Entry, network: str, size: str, seed: int, data: Path, autogluon: Path | None = None) -> None:
        everything, test = entry.load(data)
        self.test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
        self.train = everything.draw(SIZES[size], seed)
        self.entry, self.network, self.size, self.seed, self.data = entry, network, size, seed, data
        self.interpreter = autogluon

    def model(self) -> Any:
        """Return a new model; its classes are those of the training samples."""
        return adapted(self.network, self.train, self.data, self.seed)

    def methods(self) -> dict[str, Method]:
        """Return the methods that fit this cell."""
        methods: dict[str, Method] = {OURS: self.ours, PROBE: lambda: self.ours(recipe="linear-probe"), REGRESSION: self.regression}
        methods[AUTO] = lambda: self.ours(None, recipe="auto")
        methods[PAIRS] = lambda: self.ours(objective=zoo.transfer.Contrastive())
        methods |= {name: lambda epochs=epochs, batch=batch: self.trainer(epochs, batch) for name, (epochs, batch) in TRAINER.items()}
        if self.interpreter is not None and (self.entry.reads == "text" or self.network in TIMM):
            methods[AUTOGLUON] = self.autogluon
        if self.entry.reads == "image":  # fastai reads images as three channels
            return methods | ({} if self.network == "glyphnet" else {"fastai": self.fastai})
        return methods | ({"SetFit": self.setfit} if self.size in ("4", "16") else {})

    def texts(self) -> list[tuple[list[Any], list[str]]]:
        """Return training and test samples as pairs of inputs and labels."""
        return [(list(part.inputs), list(part.labels)) for part in (self.train, self.test)]

    def ours(self, valid: Any = False, **options: Any) -> tuple[dict[str, float], float]:
        model = self.model()
        start = time.process_time()
        with tempfile.TemporaryDirectory() as out:
            model.fit(self.train.table, valid, seed=self.seed, out=f"{out}/run", quiet=True, workers=0, **options)
        seconds = time.process_time() - start
        return _figures(model.evaluate(self.test.table)), seconds

    def regression(self) -> tuple[dict[str, float], float]:
        model = self.model()
        return _accuracy(*peer(model.embed(self.train.inputs), self.train, model.embed(self.test.inputs), self.test, self.seed))

    def trainer(self, epochs: int, batch: int) -> tuple[dict[str, float], float]:
        from peers import trainer_on_images, trainer_on_texts

        options: dict[str, Any] = {"seed": self.seed, "num_train_epochs": epochs, "per_device_train_batch_size": batch}
        if self.entry.reads == "image":
            metrics, seconds = trainer_on_images(self.model(), _plain(self.train), _plain(self.test), **options)
            return _figures(metrics), seconds
        from sets import text_model

        return _accuracy(*trainer_on_texts(text_model(), *self.texts(), words=False, max_length=TOKENS, **options))

    def fastai(self) -> tuple[dict[str, float], float]:
        from peers import fastai_on_images

        with tempfile.TemporaryDirectory() as folder:
            train, test = (_plain(_as_files(part, Path(folder) / name)) for name, part in (("train", self.train), ("test", self.test)))
            return _accuracy(*fastai_on_images(self.model(), train, test, seed=self.seed, epochs=5))

    def setfit(self) -> tuple[dict[str, float], float]:
        from peers import setfit_on_texts
        from sets import text_model

        return _accuracy(*setfit_on_texts(text_model(), *self.texts(), max_length=TOKENS, seed=self.seed))

    def autogluon(self) -> tuple[dict[str, float], float]:
        script, clean = (
            Path(__file__).with_name("autogluon_run.py"),
            {name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, part in (("train", self.train), ("test", self.test)):
                held = part if self.entry.reads == "text" else _as_files(part, folder / name)
                _table(held).to_csv(folder / f"{name}.csv", index=False)
            if self.entry.reads == "text":
                from sets import text_model

                (folder / "checkpoint").symlink_to(text_model())
            else:
                _as_timm(self.model(), self.network, folder / "checkpoint")
            command = [str(self.interpreter), str(script), place, self.entry.reads, str(self.seed)]
            found = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
        if found.returncode:
            raise RuntimeError(found.stderr.strip()[-200:])
        result = json.loads(found.stdout.splitlines()[-1])
        return _accuracy(result["accuracy"], result["seconds"])


def _figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return those of the metrics that are recorded."""
    return {name: metrics[name] for name in FIGURES if name in metrics}


def _accuracy(accuracy: float, seconds: float) -> tuple[dict[str, float], float]:
    """Return what a peer reached that gives its accuracy alone."""
    return {"accuracy": accuracy}, seconds


def _table(samples: Samples) -> Any:
    """Return a table of inputs and labels as AutoGluon's run reads it."""
    import pandas as pd

    return pd.DataFrame({"input": list(samples.inputs), "label": list(samples.labels)})


def _as_timm(model: Any, name: str, folder: Path) -> None:
    """Write the backbone of a model in the layout that AutoGluon reads: timm's names, size and normalization."""
    import timm  # type: ignore[import-untyped]  # ships no types

    folder.mkdir()
    network = timm.create_model(name, num_classes=0)
    network.load_state_dict(model.backbone.state_dict(), strict=True)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    shown = {"mean": model.inputs.mean, "std": model.inputs.std, "input_size": (3, *model.inputs.size)}
    config = {"architecture": name, "num_features": network.num_features, "pretrained_cfg": shown}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _plain(samples: Samples) -> Any:
    """Return a table with the inputs and the labels only."""
    import pandas as pd

    return pd.DataFrame({"file_name": list(samples.inputs), "label": list(samples.labels)})


def _as_files(samples: Samples, folder: Path) -> Samples:
    """Return the samples with arrays written as PNG files; fastai reads paths."""
    from PIL import Image

    if isinstance(samples.inputs[0], str):
        return Samples([str(Path(path).resolve()) for path in samples.inputs], samples.labels)
    folder.mkdir()
    paths = [folder / f"{row}.png" for row in range(len(samples))]
    for pixels, path in zip(samples.inputs, paths, strict=True):
        Image.fromarray(pixels).save(path)
    return Samples([*map(str, paths)], samples.labels)


def results(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield a record per cell and method that is not done yet; a method that fails has the reason in place of an accuracy."""
    for seed in range(arguments.seeds):
        for size in arguments.sizes:
            for name in arguments.sets:
                entry = SETS[name]
                for network in [each for each in PLACES[name] if each in arguments.backbones]:
                    place = {"set": name, "part": entry.part, "backbone": network, "size": size, "seed": seed}
                    wanted = [each for each in arguments.methods if (*place.values(), each) not in done]
                    if not wanted:
                        continue
                    cell = Cell(entry, network, size, seed, needed(arguments.data), arguments.autogluon)
                    methods = cell.methods()
                    for each in [each for each in wanted if each in methods]:
                        record = place | {"method": each, "samples": len(cell.train)}
                        try:
                            figures, seconds = methods[each]()
                        except ModuleNotFoundError as error:  # to be measured when it is installed
                            print(f"  {each} is left out: {error}", file=sys.stderr)
                        except Exception as error:  # one method that fails must not end the hours of the others
                            yield record | {"error": f"{type(error).__name__}: {error}"[:300]}
                        else:
                            yield record | {name: round(value, 4) for name, value in figures.items()} | {"seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS, metavar="SET", help=", ".join(SETS))
    known = sorted({each for networks in PLACES.values() for each in networks})
    parser.add_argument("--backbones", nargs="*", default=known, choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--methods", nargs="*", default=USUAL, choices=METHODS, metavar="METHOD", help="; ".join(METHODS))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=SIZES, help="samples of a class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--autogluon", type=Path, metavar="PYTHON", help="interpreter of an environment that has autogluon.multimodal")
    parser.add_argument("--figure", default="accuracy", choices=FIGURES, help="what the table shows")
    parser.add_argument("--out", type=Path, default=Path("defaults-regret.jsonl"), help="file of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    keys = ("set", "part", "backbone", "size", "seed", "method")
    records = kept(arguments.out, lambda records: results(arguments, {tuple(each[key] for key in keys) for each in records}))
    print_tables(records, OURS, METHODS, arguments.figure)


if __name__ == "__main__":
    main()

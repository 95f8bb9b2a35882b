"""Tuning with 4 and 8 samples of a class, on the sets that choose the defaults: what keeps it from spoiling the solved head.

A run of the default gives several results: its solved head, the tuned model, and mixtures of their values (``mixed 0.5``; WiSE-FT,
Wortsman et al. 2022) or of their probabilities (``averaged``). Other settings are runs of their own: a third of the rate, a third of
the epochs, and a head whose penalty is at most 10 or 1; nothing is mixed there. Accuracy and mean loss are those of the test part, at
most 600 samples of it; seconds are CPU seconds of one thread. Results go to a file as they come, a line each, and a run that is started
again goes on behind them.

Run: python benchmarks/defaults/few.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import MOST, PLACES, SETS, Samples
from probe import adapted, kept  # also finds the modules of benchmarks/ and sets the environment
from side_by_side import needed
from tuning import recipe

from zoo.engine.options.recipe import batch_size_for
from zoo.engine.solved import penalties

HEAD, TUNED, AVERAGED = "head alone", "tuned", "averaged"
SHARES = (0.25, 0.5, 0.75)  # of the tuned values
OTHERS = {"rate 0.03": ("1x", 0.03), "a third": ("0.33x", 0.1)}  # epochs and rate
CAPPED = {"penalty 10": 10.0, "penalty 1": 1.0}  # the strongest that the head may take
SETTINGS = (TUNED, *OTHERS, *CAPPED)
Values = dict[str, torch.Tensor]


def scores(probabilities: np.ndarray[Any, Any], test: Samples, names: list[str]) -> dict[str, float]:
    """Return accuracy and mean loss of probabilities ``(samples, classes)``."""
    truth = np.array([names.index(label) for label in test.labels])
    losses = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-9))
    return {"accuracy": round(float((probabilities.argmax(1) == truth).mean()), 4), "loss": round(float(losses.mean()), 4)}


@contextmanager
def strongest_penalty(cap: float) -> Iterator[None]:
    """Let heads take no stronger penalty while the context is open."""
    options = penalties.held_out.__kwdefaults__
    assert options is not None, "the penalties are a default"
    before = options["tried"]
    options["tried"] = tuple(penalty for penalty in before if penalty <= cap)
    try:
        yield
    finally:
        options["tried"] = before


class Lines(logging.Handler):
    """Collects what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def fitted(model: Any, train: Samples, seed: int, **options: Any) -> tuple[float, bool, float]:
    """Fit a model in place and return the CPU seconds, whether images were augmented, and the penalty of the head."""
    handler, log = Lines(), logging.getLogger("zoo")
    log.addHandler(handler)
    start = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as out:
            run = model.fit(train.table, False, seed=seed, out=f"{out}/run", quiet=True, workers=0, **options)
    finally:
        log.removeHandler(handler)
    seconds = time.process_time() - start
    return round(seconds, 2), not any("are not augmented" in line for line in handler.lines), run.history[0]["penalty"]


def own_results(model: Any, train: Samples, test: Samples, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what one run of the default has: its head, the tuned model and the mixtures of both."""
    names, values = list(model.labels), dict[str, Values]()
    outputs: dict[str, np.ndarray[Any, Any]] = {}

    def result(name: str) -> dict[str, Any]:
        outputs[name] = model.predict_proba(list(test.inputs), workers=0)
        return {"setting": name, **scores(outputs[name], test, names)}

    first = {name: value.clone() for name, value in model.state_dict().items()}
    for name, options in ((HEAD, {"recipe": "linear-probe"}), (TUNED, {"wise_ft": 1.0})):
        model.load_state_dict(first)
        seconds, augmented, penalty = fitted(model, train, seed, **options)
        values[name] = {key: value.clone() for key, value in model.state_dict().items()}
        yield result(name) | {"seconds": seconds, "augmented": augmented, "penalty": penalty}
    for share in SHARES:
        head, tuned = values[HEAD], values[TUNED]
        model.load_state_dict(
            {key: torch.lerp(head[key], tuned[key], share) if tuned[key].is_floating_point() else tuned[key] for key in tuned}
        )
        yield result(f"mixed {share}")
    yield {"setting": AVERAGED, **scores((outputs[HEAD] + outputs[TUNED]) / 2, test, names)}


def place_results(name: str, network: str, size: int, seed: int, settings: list[str], data: Path) -> Iterator[dict[str, Any]]:
    """Yield a record per setting of a place."""
    everything, test = SETS[name].load(data)
    test = test.select(np.random.default_rng(5).permutation(len(test))[:MOST])
    train = everything.draw(size, seed)
    place = {"set": name, "backbone": network, "size": size, "seed": seed, "samples": len(train)}
    if TUNED in settings:
        for result in own_results(adapted(network, train, data, seed), train, test, seed):
            yield place | result
    for setting in [each for each in settings if each != TUNED]:
        model = adapted(network, train, data, seed)
        steps, factor = OTHERS.get(setting, ("1x", 0.1))
        samples = batch_size_for(len(train))
        options = {"recipe": recipe(steps, factor, -(-len(train) // samples)), "batch_size": samples}
        with strongest_penalty(CAPPED.get(setting, math.inf)):
            seconds, augmented, penalty = fitted(model, train, seed, **options)
        found = scores(model.predict_proba(list(test.inputs), workers=0), test, list(model.labels))
        yield place | {"setting": setting, **found, "seconds": seconds, "augmented": augmented, "penalty": penalty}


def results(arguments: argparse.Namespace, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a record per place and setting that is not done yet."""
    done = {(one["set"], one["backbone"], one["size"], one["seed"], one["setting"]) for one in records}
    for size in arguments.sizes:
        for seed in range(arguments.seeds):
            for name in arguments.sets:
                for network in [each for each in PLACES[name] if each in arguments.backbones]:
                    wanted = [each for each in arguments.settings if (name, network, size, seed, each) not in done]
                    yield from place_results(name, network, size, seed, wanted, needed(arguments.data))


def summary(records: list[dict[str, Any]]) -> None:
    """Print the gains in accuracy over the head: a row per place, the mean over its draws; then a row per number of samples."""
    settings = [each for each in dict.fromkeys(one["setting"] for one in records) if each != HEAD]
    draws: dict[tuple[Any, ...], dict[str, dict[int, dict[str, Any]]]] = {}
    for one in records:
        found = draws.setdefault((one["set"], one["backbone"], one["samples"]), {})
        found.setdefault(one["setting"], {})[one["seed"]] = one
    gains = {
        (place, each): [one["accuracy"] - found[HEAD][seed]["accuracy"] for seed, one in found[each].items() if seed in found[HEAD]]
        for place, found in draws.items()
        for each in settings
        if each in found
    }
    print(f"| set | backbone | samples | {HEAD} | {' | '.join(settings)} |\n|{'---|' * (len(settings) + 4)}")
    for place, found in draws.items():
        head = statistics.mean(one["accuracy"] for one in found[HEAD].values())
        cells = [f"{statistics.mean(gains[place, each]):+.3f}" if (place, each) in gains else "" for each in settings]
        print(f"| {' | '.join(map(str, place))} | {head:.3f} | {' | '.join(cells)} |")
    print("\n| samples | setting | runs | mean gain | worst place | worst run | loss |\n|---|---|---|---|---|---|---|")
    for count in sorted({place[2] for place in draws}):
        for each in (HEAD, *settings):
            own = [values for (place, name), values in gains.items() if (place[2], name) == (count, each)] or [[0.0]]
            losses = [one["loss"] for place, found in draws.items() if place[2] == count for one in found.get(each, {}).values()]
            means = [statistics.mean(values) for values in own]
            if losses:
                worst = f"{min(means):+.3f} | {min(map(min, own)):+.3f}"
                print(f"| {count} | {each} | {len(losses)} | {statistics.mean(means):+.4f} | {worst} | {statistics.mean(losses):.3f} |")


def read_arguments(usage: str | None, *, sizes: list[int], settings: Sequence[str], seeds: int, out: str) -> argparse.Namespace:
    """Return the arguments of a measurement on the sets that choose, with these defaults, and quiet the library."""
    choosing = [name for name in SETS if SETS[name].part == "chooses"]
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=choosing, choices=choosing, metavar="SET")
    known = sorted({each for name in choosing for each in PLACES[name]})
    parser.add_argument("--backbones", nargs="*", default=known, choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--sizes", nargs="*", type=int, default=sizes, help="samples of a class")
    parser.add_argument("--settings", nargs="*", default=list(settings), choices=settings, metavar="SETTING")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, default=Path(out), help="file of the results")
    logging.getLogger("zoo").setLevel(logging.INFO)
    logging.getLogger("zoo").propagate = False
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments(__doc__, sizes=[4, 8], settings=SETTINGS, seeds=3, out="defaults-few.jsonl")
    summary(kept(arguments.out, lambda records: results(arguments, records)))


if __name__ == "__main__":
    main()

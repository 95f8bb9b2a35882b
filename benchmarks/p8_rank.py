"""P8: what a ranking costs beside the bare feature passes, and its order beside that of fine-tuning.

The candidates are the real networks of ../shared/data, with glyphnet; with ``--twenty`` twenty small networks of timm at 96 pixels
(``--pixels``), with random values, as a cost does not depend on values. Cost: CPU seconds of ``zoo.select.rank`` beside those of one pass
of every candidate over the same samples (``model.embed``), each in a fresh process with an empty cache; models are built in both.
Order (``--order``): all six networks, each at the size that the matrix of the defaults gives it (the ViT has no other than 32 pixels), are
fine-tuned with the defaults on the training split; Kendall's tau of the ranking's order, and of the others beside it, with the order of
accuracy on the test split, with 95 % intervals over draws of the test samples.

Run: python benchmarks/p8_rank.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import HERE, alternate, function_result, needed, report

SIZES = {"ants/bees": 160, "CIFAR-10": 96, "X-rays": 96, "amazon to webcam": 96}
NETWORKS = ("mobilenetv2_100", "mobilenetv2_035", "mobilenetv1_025", "resnet20_cifar10", "glyphnet")  # the ViT has one size, 32 pixels

SMALL = (
    *("resnet10t", "resnet14t", "resnet18", "mobilenetv2_050", "mobilenetv2_100", "mobilenetv2_140", "mobilenetv3_small_050"),
    *("mobilenetv3_small_075", "mobilenetv3_small_100", "mobilenetv3_large_100", "lcnet_050", "lcnet_075", "lcnet_100", "mnasnet_small"),
    *("efficientnet_lite0", "regnetx_002", "regnety_002", "tinynet_d", "semnasnet_075", "ghostnet_100"),
)
TWENTY = tuple(f"timm/{name}" for name in SMALL)


def _start(data: str) -> Any:
    """Import what a measured process needs, and return the function that gives a backbone."""
    sys.path.insert(0, str(HERE / "defaults"))
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import torch
    from backbones import backbone

    torch.set_num_threads(1)
    import zoo

    return lambda name: zoo.get(name, weights=False) if name in TWENTY else backbone(name, Path(data))


def _chosen(networks: str) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Return the networks and the image size of each set; ``networks`` is ``real``, or the pixels of the twenty."""
    return (NETWORKS, SIZES) if networks == "real" else (TWENTY, dict.fromkeys(SIZES, int(networks)))


def _samples(name: str, data: str, most: int) -> tuple[Any, Any]:
    from sets import images

    train, test = images(name, Path(data))
    if most:
        train, test = (part.groupby("label").head(most) for part in (train, test))
    return train, test


def ranking(name: str, data: str, most: str, networks: str) -> dict[str, float]:
    """Rank all networks on the training split; seconds of CPU."""
    find, (names, sizes) = _start(data), _chosen(networks)
    import zoo

    train, _ = _samples(name, data, int(most))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZOO_CACHE"] = folder
        start = time.process_time()
        candidates = [find(one) for one in names]
        zoo.select.rank(train, False, candidates=candidates, image_size=sizes[name], out=Path(folder) / "rank", quiet=True)
        return {"seconds": time.process_time() - start}


def passes(name: str, data: str, most: str, networks: str) -> dict[str, float]:
    """Compute the features of all networks for the training split; seconds of CPU."""
    find, (names, sizes) = _start(data), _chosen(networks)
    train, _ = _samples(name, data, int(most))
    start = time.process_time()
    for one in names:
        find(one).adapt(2).embed(list(train["file_name"]), image_size=sizes[name], batch_size=32)
    return {"seconds": time.process_time() - start}


def order(name: str, data: Path, most: int) -> None:
    """Print the order of the ranking and of fine-tuning for one set, and tau of every score."""
    find = _start(str(data))
    from backbones import PIXELS

    import zoo
    from zoo.select.ranking.agreement import agreement

    train, test = _samples(name, str(data), most)
    networks = [find(one) for one in PIXELS]
    for network, size in zip(networks, PIXELS.values(), strict=True):
        network.spec = network.spec.replace(inputs=replace(network.spec.inputs, size=size))
    with tempfile.TemporaryDirectory() as folder:
        found = zoo.select.rank(train, False, candidates=networks, out=Path(folder) / "rank", quiet=True)
        rows = {row.name: row for row in found.rows}
        tuned = {}
        for network in networks:
            model = network.adapt(train["label"].nunique(), labels=sorted(train["label"].unique()))
            model.fit(train, False, out=Path(folder) / network.spec.name.replace("/", "-"), quiet=True)
            evaluation = model.evaluate(test)
            right = np.asarray(evaluation.outputs).argmax(1) == np.asarray([model.labels.index(one) for one in test["label"]])
            tuned[network.spec.name] = right
            print(f"  {name}, {network.spec.name}: probe {rows[network.spec.name].probe.score:.3f}, tuned {right.mean():.3f}", flush=True)
    names = list(tuned)
    drawn = np.random.default_rng(0).integers(0, len(test), (1000, len(test)))
    draws = np.array([tuned[one][drawn].mean(1) for one in names])
    reference, sizes = np.array([tuned[one].mean() for one in names]), np.array([float(rows[one].parameters) for one in names])
    scores = {"probe": [rows[one].probe.score for one in names], "size": list(sizes)}
    scores |= {score: [rows[one].scores.get(score, np.nan) for one in names] for score in rows[names[0]].scores}
    for score, values in scores.items():
        tau = agreement(np.array(values), reference, sizes, draws)
        if not tau.pairs:
            continue
        alike = f"{tau.tau_like_size:.2f} ({tau.pairs_like_size} of {tau.pairs} pairs)"
        print(
            f"| {name} | {score} | {tau.tau:.2f} [{tau.low:.2f}, {tau.high:.2f}] | {alike} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SIZES), choices=SIZES, metavar="SET", help=", ".join(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--together", action="store_true", help="start the ranking and the passes at once: for a machine with other work")
    parser.add_argument("--order", action="store_true", help="fine-tune all candidates, and compare the orders")
    parser.add_argument("--twenty", action="store_true", help="rank twenty networks of timm with random values")
    parser.add_argument("--pixels", type=int, default=96, help="of the twenty")
    parser.add_argument("--most", type=int, default=0, help="images of a class, to try the script")
    arguments = parser.parse_args()
    data = needed(arguments.data).resolve()
    if arguments.order:
        print("| data | order by | tau with fine-tuning | tau, like size |\n|---|---|---|---|", flush=True)
    networks = str(arguments.pixels) if arguments.twenty else "real"
    for name in arguments.sets:
        if arguments.order:
            order(name, data, arguments.most)
            continue
        given = (name, data, arguments.most, networks)
        runs = {
            "zoo rank": lambda given=given: function_result("p8_rank:ranking", *given)["seconds"],  # type: ignore[misc]
            "feature passes": lambda given=given: function_result("p8_rank:passes", *given)["seconds"],  # type: ignore[misc]
        }
        if arguments.together:
            ratios = [_together(runs) for _ in range(arguments.repeats)]
            print(f"P8: {name}: {', '.join(f'{ours:.1f} / {bare:.1f} s = {ours / bare:.3f}' for ours, bare in ratios)}", flush=True)
            continue
        print(json.dumps(report(f"P8: {name}", alternate(runs, arguments.repeats), ours="zoo rank")))


def _together(runs: Mapping[str, Callable[[], float]]) -> list[float]:
    """Return the measures of all runs, started at once, so that other programs slow down all of them alike."""
    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(lambda run: run(), runs.values()))


if __name__ == "__main__":
    main()

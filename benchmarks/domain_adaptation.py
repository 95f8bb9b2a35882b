"""Accuracy on a target domain without its labels: source only, each method, the automatic choice and the best method by hindsight.

Office-Caltech: MobileNetV2 at width 0.35 with real ImageNet weights, at 128 pixels. Digits: scikit-learn's 1,797 digits to the first
2,000 of MNIST, with the built-in glyphnet. Texts: news of AG News by one agency to those by another, whose names are left out, with all-
MiniLM-L6-v2; their classes are not equally frequent. The backbone is frozen, so its features are computed once for source and target, and
a hidden layer of 128 units is adapted. A fifth of the source is held out; with --samples the source has only so many photos. Accuracy is
that on all samples of the target, which are also what is adapted to. Prints Markdown tables, mean and standard deviation over seeds.

With --tuned the backbone trains for six epochs at 96 pixels, for what needs that: AdaBN and SHOT, which is given the model of the
source alone, beside the source alone, CORAL and MCC under the same settings.

Run: python benchmarks/domain_adaptation.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sets import text_model
from side_by_side import needed

import zoo
from zoo.registry.registry import use_registry
from zoo.transfer import DomainAdaptation, adapt_source_free
from zoo.transfer.domain.alignments import KINDS
from zoo.transfer.domain.choosing.comparison import DEFAULT

OFFICE = ("amazon to webcam", "webcam to amazon", "amazon to caltech10", "caltech10 to dslr", "dslr to amazon", "webcam to dslr")
PAIRS = (*OFFICE, "digits to MNIST", "Reuters to AP")
TUNED = ("source-only", "adabn", "coral", "mcc", "shot")
METHODS = tuple(name for name in KINDS if name != "adabn")  # a frozen backbone has no statistics to adapt


def office(domain: str, data: Path) -> pd.DataFrame:
    """Return the photos of a domain, with labels."""
    folder = needed(data / "images/office_caltech10").resolve()
    table = pd.read_csv(folder / "index.csv")
    table = table[table["domain"] == domain]
    return pd.DataFrame({"file_name": [str(folder / name) for name in table["file"]], "label": table["label"]}).reset_index(drop=True)


def some(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return so many photos, as evenly over the classes as there are; all where ``count`` is 0."""
    shuffled = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    order = shuffled.assign(place=shuffled.groupby("label").cumcount()).sort_values("place", kind="stable")
    return order.drop(columns="place").iloc[:count].reset_index(drop=True) if 0 < count < len(table) else table


def digits(data: Path) -> tuple[Any, Any]:
    """Return scikit-learn's digits at 32 pixels, and the first 2,000 of MNIST."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    small = [Image.fromarray((image * 15.9).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC) for image in found.images]
    folder = needed(data / "images/mnist_test")
    pixels, labels = (read_idx(next(iter(sorted(folder.glob(f"*{kind}*"))))) for kind in ("images", "labels"))
    source = np.stack([np.asarray(image) for image in small]), [str(label) for label in found.target]
    return source, (pixels[:2000], [str(label) for label in labels[:2000]])


def news(agency: str, data: Path) -> pd.DataFrame:
    """Return the news of an agency with their labels, without its name."""
    files = [needed(data / "text/ag_news_test_subset" / name) for name in ("train.tsv", "test.tsv")]
    table = pd.concat([pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE) for file in files])
    table = table[table["text"].str.contains(rf"\({agency}\)")].drop_duplicates("text")
    names = rf"\({agency}\)|\b{agency} -"
    return table.assign(text=table["text"].str.replace(names, " ", regex=True).str.split().str.join(" ")).reset_index(drop=True)


def read_idx(path: Path) -> np.ndarray[Any, Any]:
    """Return the array in an IDX file."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(tuple(map(int, shape)))


def one(
    pair: str, seed: int, data: Path, methods: Sequence[str] = METHODS, samples: int = 0
) -> tuple[dict[str, float], dict[str, Any], float]:
    """Return the accuracies by method, the record of the choice and the seconds of the choice."""
    if pair == "digits to MNIST":
        (source, target), name, size = digits(data), "zoo/glyphnet", None
    elif pair == "Reuters to AP":
        (source, target), name, size = (news("Reuters", data), news("AP", data)), text_model(), None
    else:
        source, target = (office(domain, data) for domain in pair.split(" to "))
        source, name, size = some(source, samples, seed), "local/mobilenetv2_035", 128
    unlabelled = target[0] if isinstance(target, tuple) else target.drop(columns="label")
    classes = len(set(source[1] if isinstance(source, tuple) else source["label"]))

    def model() -> Any:
        return zoo.get(name).adapt(classes, head="mlp", hidden=128, dropout=0.2, seed=seed)

    how: dict[str, Any] = {"recipe": "linear-probe", "epochs": 20, "lr": 3e-3, "seed": seed, "quiet": True, "workers": 0}
    how |= {"batch_size": 16 if samples else 64, **({} if size is None else {"image_size": size})}
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as out:
        net, start = model(), time.perf_counter()
        run = net.fit(source, out=Path(out) / "auto", objective=DomainAdaptation(unlabelled), keep_checkpoints=True, **how)
        seconds = time.perf_counter() - start
        features, truth = torch.from_numpy(net.embed(unlabelled)), np.asarray(target[1] if isinstance(target, tuple) else target["label"])
        found["auto"] = accuracy(net, features, truth)
        record = json.loads((run.dir / "run.json").read_text())["adaptation"]
        for method in methods:
            if method in DEFAULT:
                folder = run.dir / "candidates" / method
            else:
                folder = Path(out) / method
                model().fit(source, out=folder, objective=DomainAdaptation(unlabelled, method=method), **how)
            found[method] = accuracy(zoo.load(folder), features, truth)
    return found, record, seconds


def tuned(pair: str, seed: int, data: Path) -> dict[str, float]:
    """Return the accuracies of a pair of Office by method, where the backbone trains."""
    source, target = (office(domain, data) for domain in pair.split(" to "))
    unlabelled = target.drop(columns="label")
    how: dict[str, Any] = {"seed": seed, "quiet": True, "workers": 0, "image_size": 96}
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as out:
        for method in TUNED:
            if method == "shot":
                model = zoo.load(Path(out) / "source-only")
                adapt_source_free(model, unlabelled, recipe="full", epochs=4, out=Path(out) / method, **how)
            else:
                model = zoo.get("local/mobilenetv2_035").adapt(len(set(source["label"])), seed=seed)
                objective = DomainAdaptation(unlabelled, method=method)
                model.fit(source, out=Path(out) / method, objective=objective, recipe="full", epochs=6, freeze_bn=False, **how)
            found[method] = model.evaluate(target, quiet=True)["accuracy"]
            print(pair, seed, method, found[method], file=sys.stderr, flush=True)
    return found


def accuracy(model: Any, features: torch.Tensor, truth: np.ndarray[Any, Any]) -> float:
    """Return the accuracy on features of the frozen backbone, which are the same for every method."""
    with torch.no_grad():
        predicted = model.eval().pooled_logits(features).argmax(1).numpy()
    return float((np.asarray(model.labels)[predicted] == truth.astype(str)).mean())


def spread(values: list[float]) -> str:
    """Return mean and standard deviation as a cell of a table."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuned", action="store_true", help="train the backbone, for AdaBN and SHOT; pairs of Office only")
    parser.add_argument("--samples", type=int, default=0, help="photos of the source, evenly over the classes; 0: all")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--records", type=Path, help="a file for the records of the choices, as JSON lines")
    arguments = parser.parse_args()
    use_registry(files=[needed(arguments.data) / "registry.toml"])
    if arguments.tuned:
        print("| pair |", " | ".join(TUNED), "|")
        print("|---|" + "---|" * len(TUNED))
        for pair in [each for each in arguments.pairs if each in OFFICE]:
            rows = [tuned(pair, seed, arguments.data) for seed in range(arguments.seeds)]
            print(f"| {pair} |", " | ".join(spread([row[name] for row in rows]) for name in TUNED), "|", flush=True)
        return
    methods = arguments.methods
    print("| pair |", " | ".join([*methods, "auto", "oracle"]), "| chosen | A-distance | auto, s |")
    print("|---|" + "---|" * (len(methods) + 5))
    for pair in arguments.pairs:
        runs = [one(pair, seed, arguments.data, methods, arguments.samples) for seed in range(arguments.seeds)]
        cells = [[found[name] for found, _, _ in runs] for name in (*methods, "auto")]
        cells.append([max(found[name] for name in methods) for found, _, _ in runs])
        shown = [spread(cell) for cell in cells]
        chosen = [next(row["method"] for row in record["candidates"] if row["chosen"]) for _, record, _ in runs]
        apart = statistics.mean(record["shift"]["a_distance"] for _, record, _ in runs)
        seconds = statistics.mean(seconds for _, _, seconds in runs)
        print(f"| {pair} |", " | ".join(shown), f"| {', '.join(chosen)} | {apart:.2f} | {seconds:.0f} |", flush=True)
        if arguments.records:
            with arguments.records.open("a") as file:
                for found, record, _ in runs:
                    file.write(json.dumps({"pair": pair, "accuracies": found, **record}) + "\n")


if __name__ == "__main__":
    main()

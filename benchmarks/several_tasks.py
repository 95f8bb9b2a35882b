"""Several tasks in one model beside a model for each: two Office domains (kind and domain), and SMS spam with TREC. Prints Markdown.

Images: half of the photographs of amazon and webcam train, the others are the test; each has both labels. The backbone is MobileNetV1 at a
quarter of the width. Texts: ``--limit`` samples of each set train, ``--test`` of each are the test; each has one label. The backbone is
all-MiniLM-L6-v2. All runs take the last epoch (``valid=False``). Seconds are CPU seconds of training, of a model for each task those of
both. The methods of gradient surgery need torchjd.

Run: OMP_NUM_THREADS=1 python benchmarks/several_tasks.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent / "defaults"))

from backbones import backbone
from sets import texts

from zoo.transfer import MultiTask

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

Labels = dict[str, list[Any]]
Data = tuple[list[Any], Labels]


def photographs(data: Path) -> tuple[Data, Data]:
    """Return the photographs of two domains with their kind and their domain, half of them to train."""
    import pandas as pd

    folder = data / "images" / "office_caltech10"
    table = pd.read_csv(folder / "index.csv")
    table = table[table["domain"].isin(["amazon", "webcam"])]
    half = table.groupby(["domain", "label"]).sample(frac=0.5, random_state=0).index
    parts = (table.loc[half], table.drop(half))
    return tuple(  # type: ignore[return-value]  # of two
        ([str(folder / name) for name in part["file"]], {"kind": part["label"].tolist(), "domain": part["domain"].tolist()})
        for part in parts
    )


def messages(data: Path, limit: int, test: int) -> tuple[Data, Data]:
    """Return texts of two sets, each with the label of one."""
    found: list[Data] = []
    sets = [texts("SMS spam", data, limit, test), texts("TREC", data, limit, test)]
    for part in range(2):
        (spam, of_spam), (questions, of_questions) = sets[0][part], sets[1][part]
        none: list[Any] = [None]
        found.append(([*spam, *questions], {"spam": of_spam + none * len(questions), "question": none * len(spam) + of_questions}))
    return found[0], found[1]


def of_task(data: Data, task: str) -> tuple[list[Any], list[Any]]:
    rows = [row for row, label in enumerate(data[1][task]) if label is not None]
    return [data[0][row] for row in rows], [data[1][task][row] for row in rows]


def measured(model: Any, train: Any, test: Any, options: dict[str, Any]) -> tuple[dict[str, float], float]:
    with tempfile.TemporaryDirectory() as out:
        start = time.process_time()
        model.fit(train, False, out=f"{out}/run", quiet=True, **options)
        seconds = time.process_time() - start
    return dict(model.evaluate(test)), seconds


def compare(title: str, make: Callable[[], Any], train: Data, test: Data, *, options: dict[str, Any], seeds: int) -> None:
    names = list(train[1])
    classes = {name: sorted({label for label in train[1][name] + test[1][name] if label is not None}) for name in names}
    methods: dict[str, Any] = {
        "one model, fixed weights": MultiTask(),
        "one model, uncertainty": MultiTask(weighting="uncertainty"),
    }
    if any(None in column for column in train[1].values()):
        methods["one model, round robin"] = MultiTask(sampling="round-robin")
    if find_spec("torchjd"):
        methods["one model, PCGrad"] = MultiTask(weighting="pcgrad")
    for recipe in ("linear-probe", "top"):
        given = options | {"recipe": recipe} | ({"epochs": 4} if recipe == "top" else {})
        rows: dict[str, list[list[float]]] = {}
        for seed in range(seeds):
            alone, total = [], 0.0
            for name in names:
                model = make().adapt(len(classes[name]), labels=classes[name], seed=seed)
                found, seconds = measured(model, of_task(train, name), of_task(test, name), given | {"seed": seed})
                alone.append(found["accuracy"])
                total += seconds
            rows.setdefault("a model for each", []).append([*alone, total])
            for method, objective in list(methods.items())[: 1 if recipe == "linear-probe" else None]:
                model = make().adapt_tasks(classes, seed=seed)
                found, seconds = measured(model, train, test, given | {"seed": seed, "objective": objective})
                rows.setdefault(method, []).append([*(found[f"{name}/accuracy"] for name in names), seconds])
        for method, values in rows.items():
            mean, spread = np.mean(values, 0), np.std(values, 0)
            cells = " | ".join(f"{one:.3f} ± {other:.3f}" for one, other in zip(mean[:-1], spread[:-1], strict=True))
            print(f"| {title} | {recipe} | {method} | {cells} | {mean[-1]:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=["images", "texts"], choices=["images", "texts"])
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| data | recipe | method | first task | second task | CPU seconds |\n|---|---|---|---|---|---|")
    if "images" in arguments.sets:
        train, test = photographs(arguments.data)
        make = lambda: backbone("mobilenetv1_025", arguments.data)  # noqa: E731
        compare("kind, domain", make, train, test, options={}, seeds=arguments.seeds)
    if "texts" in arguments.sets:
        train, test = messages(arguments.data, arguments.limit, arguments.test)
        make = lambda: backbone("minilm", arguments.data)  # noqa: E731
        compare("spam, question", make, train, test, options={"batch_size": 16, "max_length": 64}, seeds=arguments.seeds)


if __name__ == "__main__":
    main()

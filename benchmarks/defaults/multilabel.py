"""Several labels of a text: our solved probe beside one-vs-rest LogisticRegressionCV, and thresholds beside one half.

The texts are those of AG News, which only reports, or of TREC, which chooses; the labels are its classes and several topics, each by the
words that name it, so that a text has one label to several, and most topics are rare. The peer standardizes the features of
all-MiniLM-L6-v2 and chooses a penalty for each label in five folds. Nothing is validated: our thresholds come from the training data.

Run: python benchmarks/defaults/multilabel.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch
from matrix import SETS, Samples
from sets import text_model
from side_by_side import needed

import zoo

TOKENS = 64
TOPICS = {
    "Iraq": r"iraq|baghdad|fallujah",
    "oil": r"\b(?:oil|crude|opec)\b",
    "software": r"microsoft|software|linux|windows",
    "election": r"election|\bvote|ballot|campaign",
    "Olympics": r"olympic|athens|gold medal",
    "stocks": r"\bstocks?\b|shares|dow jones|nasdaq",
    "court": r"\bcourt|lawsuit|\bsued?\b|\bjudge",
    "space": r"nasa|\bspace|planet|saturn|orbit",
}
QUESTIONS = {
    "who": r"\bwho\b",
    "number": r"how (?:many|much|long|far|old|tall)",
    "place": r"\b(?:city|country|state|capital)\b",
    "year": r"\b(?:year|when|date)\b",
    "work": r"\b(?:film|movie|book|novel|song|play)\b",
    "company": r"\b(?:company|product|brand|invent)",
}
Rows = tuple[list[str], Any]


def news(data: Path, file: str, most: int, seed: int) -> tuple[Rows, list[str]]:
    """Return some texts of AG News with their labels, float32 ``(texts, labels)``, and the names of the labels."""
    table = pd.read_csv(data / "text" / "ag_news_test_subset" / file, sep="\t", quoting=3, dtype=str, keep_default_na=False)
    table = table.iloc[np.random.default_rng(seed).permutation(len(table))[:most]]
    return labelled(table["text"], table["label"], TOPICS)


def questions(part: Samples, most: int, seed: int) -> tuple[Rows, list[str]]:
    """Return some questions of TREC likewise."""
    rows = part.select(np.random.default_rng(seed).permutation(len(part))[:most])
    return labelled(pd.Series(rows.inputs), pd.Series(rows.labels), QUESTIONS)


def labelled(texts: pd.Series, classes: pd.Series, topics: dict[str, str]) -> tuple[Rows, list[str]]:
    """Return texts with their classes and topics as labels."""
    columns = {name: classes == name for name in sorted(set(classes))}
    columns |= {name: texts.str.contains(re.compile(pattern, re.IGNORECASE)) for name, pattern in topics.items()}
    return ([*texts], np.stack([*columns.values()], 1).astype(np.float32)), [*columns]


def ours(train: Rows, test: Rows, labels: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Return mAP, macro F1 with our thresholds and with one half, and CPU seconds, features included."""
    model = zoo.get(text_model()).adapt(len(labels), task="multi-label", labels=labels, seed=0)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        model.fit(train, False, seed=0, out=f"{out}/run", quiet=True, max_length=TOKENS, **options)
    seconds = time.process_time() - start
    probabilities = np.clip(model.predict_proba(test[0]).astype(np.float64), 1e-9, 1 - 1e-9)
    logits = np.log(probabilities) - np.log1p(-probabilities)
    return scores(logits, test[1], model.thresholds) | {"seconds": seconds}


def peers(train: Rows, test: Rows) -> dict[str, dict[str, Any]]:
    """Return the same of scikit-learn's one-vs-rest regression for two ways to choose the penalty; seconds are without features."""
    from sklearn.linear_model import LogisticRegressionCV  # type: ignore[import-untyped]  # ships no types
    from sklearn.multiclass import OneVsRestClassifier  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    model = zoo.get(text_model()).adapt(2, seed=0)
    model.inputs = model.inputs.with_length(TOKENS)
    features, held = model.embed(train[0]), model.embed(test[0])
    found = {}
    for scoring in ("neg_log_loss", "average_precision"):
        start = time.process_time()
        regression = OneVsRestClassifier(make_pipeline(StandardScaler(), LogisticRegressionCV(cv=5, max_iter=500, scoring=scoring)))
        regression.fit(features, train[1])
        seconds = time.process_time() - start
        found[f"one-vs-rest LogisticRegressionCV, by {scoring}"] = scores(regression.decision_function(held), test[1], None) | {
            "seconds": seconds
        }
    return found


def scores(logits: Any, truth: Any, thresholds: tuple[float, ...] | None) -> dict[str, Any]:
    """Return mAP, and macro F1 with thresholds and at one half, by scikit-learn."""
    from sklearn.metrics import average_precision_score, f1_score  # type: ignore[import-untyped]

    cuts = None if thresholds is None else np.log(thresholds) - np.log1p(-np.array(thresholds))
    return {
        "map": average_precision_score(truth, logits, average="macro"),
        "f1": None if cuts is None else f1_score(truth, logits > cuts, average="macro", zero_division=0),
        "f1_half": f1_score(truth, logits > 0, average="macro", zero_division=0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", default="AG News", choices=["AG News", "TREC"])
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--methods", nargs="*", default=["linear-probe", "default", "peers"], choices=["linear-probe", "default", "peers"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    data = needed(arguments.data)
    if arguments.texts == "TREC":
        parts = SETS["TREC"].load(data)
        (train, labels), (test, _) = (
            questions(part, most, seed) for part, most, seed in zip(parts, (arguments.limit, arguments.test), (0, 5), strict=True)
        )
    else:
        (train, labels), (test, _) = (
            news(data, file, most, seed) for file, most, seed in (("train.tsv", arguments.limit, 0), ("test.tsv", arguments.test, 1))
        )
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in zip(labels, train[1].mean(0), strict=True))
    print(f"{len(train[0])} texts, {len(test[0])} of test; {shares}\n")
    print("| method | mAP | macro F1, our thresholds | macro F1 at 0.5 | CPU seconds |\n|---|---|---|---|---|")
    for method in arguments.methods:
        options = {"recipe": "linear-probe"} if method == "linear-probe" else {}
        found = peers(train, test) if method == "peers" else {f"zoo, {method}": ours(train, test, labels, options)}
        for name, row in found.items():
            chosen = "" if row["f1"] is None else f"{row['f1']:.3f}"
            print(f"| {name} | {row['map']:.3f} | {chosen} | {row['f1_half']:.3f} | {row['seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    main()

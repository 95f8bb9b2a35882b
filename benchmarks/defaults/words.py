"""Token classification on NCBI disease with all-MiniLM-L6-v2: the solved head beside scikit-learn's, and recipes beside each other.

``probe`` compares ``fit(recipe="linear-probe")`` with LogisticRegressionCV (five folds grouped by sentence, standardized) on the same
word features, by accuracy of words. ``choose`` fits recipes on four fifths of the training sentences and scores entity F1 on the
rest; ``report`` fits on all of them and scores the test sentences. Nothing is validated and the last epoch is kept.

Run: python benchmarks/defaults/words.py report --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from peers import fit
from sets import Samples, text_model, texts

import zoo
from zoo import Phase, Recipe

NAME, TOKENS = "NCBI disease", 128


def two_phases(lr: float, *, layer_decay: float = 1.0, epochs: int = 8) -> dict[str, Any]:
    """Return the options of a solved head, then everything at ``lr``."""
    phases = (Phase(name="probe", frozen="all", solve=True), Phase(name="tune", epochs=epochs, lr=1.0))
    return {"recipe": Recipe(name="words", phases=phases, lr=lr, layer_decay=layer_decay)}


def recipes(epochs: int) -> dict[str, dict[str, Any]]:
    """Return the options of each recipe by its name; ``epochs`` are those in which everything trains."""
    full = {f"full, {rate:g}": {"recipe": "full", "lr": rate, "epochs": epochs} for rate in (1e-4, 2e-4, 3e-4)}
    flat = {f"probe, then {rate:g}": two_phases(rate, epochs=epochs) for rate in (1e-4, 2e-4, 3e-4, 5e-4, 1e-3)}
    decayed = {f"probe, then {rate:g}, decay 0.75": two_phases(rate, layer_decay=0.75, epochs=epochs) for rate in (3e-4, 1e-3)}
    return {**full, **flat, **decayed}


def tagger(train: Samples, seed: int) -> Any:
    """Return a model for the tags of a training set."""
    labels = sorted({tag for row in train[1] for tag in row})
    return zoo.get(text_model()).adapt(len(labels), task="token-classification", labels=labels, seed=seed)


def probe(train: Samples, test: Samples) -> None:
    """Print accuracies of words of our probe and of scikit-learn's on the same features."""
    from sklearn.linear_model import LogisticRegressionCV  # type: ignore[import-untyped]  # ships no types
    from sklearn.model_selection import GroupKFold  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    model = tagger(train, 0)
    metrics, seconds = fit(model, train, test, seed=0, recipe="linear-probe", max_length=TOKENS)
    features, held = word_features(train), word_features(test)
    tags, truth = (np.concatenate([np.asarray(row) for row in part[1]]) for part in (train, test))
    sentences = np.repeat(np.arange(len(train[1])), [*map(len, train[1])])
    known, seen = np.isfinite(features).all(1), np.isfinite(held).all(1)
    folds = [*GroupKFold(5, shuffle=True, random_state=0).split(features[known], tags[known], sentences[known])]
    peer = make_pipeline(StandardScaler(), LogisticRegressionCV(cv=folds, max_iter=500, scoring="neg_log_loss"))
    peer.fit(features[known], tags[known])
    guessed = np.full(len(truth), "O", dtype=object)
    guessed[seen] = peer.predict(held[seen])
    print(f"LogisticRegressionCV: accuracy {np.mean(guessed == truth):.4f}")
    print(f"zoo, linear-probe: accuracy {metrics['accuracy']:.4f}, F1 {metrics['f1']:.3f}, {seconds:.0f} CPU seconds with features")


def word_features(samples: Samples) -> Any:
    """Return the features ``(words, dim)`` of the first piece of each word, by transformers alone; NaN for a word that is cut off."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(text_model(), trust_remote_code=False)
    network = AutoModel.from_pretrained(text_model(), trust_remote_code=False).eval()
    found = []
    for sentence in samples[0]:
        encoded = tokenizer([sentence], is_split_into_words=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        with torch.no_grad():
            tokens = network(**encoded).last_hidden_state[0].numpy()
        rows = np.full((len(sentence), tokens.shape[1]), np.nan, dtype=np.float32)
        for place, word in reversed([*enumerate(encoded.word_ids(0))]):  # the first piece is written last
            if word is not None:
                rows[word] = tokens[place]
        found.append(rows)
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("probe", "choose", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, default=700)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", nargs="*", default=["full, 0.0001", "probe, then 0.0003"], help="names, as the table prints them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    train, test = texts(NAME, arguments.data, arguments.limit, arguments.test)
    if arguments.what == "probe":
        return probe(train, test)
    if arguments.what == "choose":
        cut = len(train[0]) * 4 // 5
        train, test = (train[0][:cut], train[1][:cut]), (train[0][cut:], train[1][cut:])
    print("| recipe | batch | F1 of each seed | mean | CPU seconds |\n|---|---|---|---|---|")
    for name, options in recipes(arguments.epochs).items():
        if name not in arguments.recipes:
            continue
        for batch in arguments.batches:
            runs = [
                fit(tagger(train, seed), train, test, seed=seed, batch_size=batch, max_length=TOKENS, **options)
                for seed in range(arguments.seeds)
            ]
            scores = [metrics["f1"] for metrics, _ in runs]
            seconds = statistics.mean(each for _, each in runs)
            listed = ", ".join(f"{score:.3f}" for score in scores)
            print(f"| {name} | {batch} | {listed} | {statistics.mean(scores):.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()

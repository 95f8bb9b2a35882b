"""Token classification on NCBI disease with all-MiniLM-L6-v2: the solved head beside scikit-learn's, and recipes beside each other.

``probe`` compares ``fit(recipe="linear-probe")`` with LogisticRegressionCV (five folds grouped by sentence, standardized) on the same
word features, by accuracy of words. ``choose`` scores entity F1 on other sentences of the training file, ``report`` on those of the test
file. Nothing is validated and the last epoch is kept. ``Trainer`` is that of transformers: batches of 8, a rate of 5e-5, as many epochs.

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
from peers import fit, trainer_on_texts
from sets import Samples, text_model, texts

import zoo
from zoo import Phase, Recipe

NAME, TOKENS, TRAINER = "NCBI disease", 128, "Trainer"


RATES = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3)


def two_phases(lr: float, *, layer_decay: float = 1.0, **length: int) -> dict[str, Any]:
    """Return the options of a solved head, then everything at ``lr``."""
    phases = (Phase(name="probe", frozen="all", solve=True), Phase(name="tune", **length))
    return {"recipe": Recipe(name="words", phases=phases, lr=lr, layer_decay=layer_decay)}


def recipes(epochs: int) -> dict[str, dict[str, Any]]:
    """Return the options of each recipe by its name; ``epochs`` are those in which everything trains, but for ``default``."""
    full = {f"full, {rate:g}": {"recipe": "full", "lr": rate, "epochs": epochs} for rate in RATES}
    flat = {f"probe, then {rate:g}": two_phases(rate, epochs=epochs) for rate in RATES}
    decayed = {
        f"probe, then {rate:g}, decay {by:g}": two_phases(rate, layer_decay=by, epochs=epochs) for rate in RATES for by in (0.75, 0.9)
    }
    return {"default": {}, "default, of these epochs": {"epochs": epochs + 1}, **full, **flat, **decayed}


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
    parser.add_argument("--batches", type=int, nargs="*", default=[8])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="*", default=["default", "full, 0.0001", TRAINER], help="names, as the table prints them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    if arguments.what == "choose":
        both, _ = texts(NAME, arguments.data, arguments.limit + arguments.test, 1)
        train, test = ((both[0][part], both[1][part]) for part in (slice(arguments.limit), slice(arguments.limit, None)))
    else:
        train, test = texts(NAME, arguments.data, arguments.limit, arguments.test)
    if arguments.what == "probe":
        return probe(train, test)
    known = recipes(arguments.epochs)
    if unknown := {*arguments.recipes} - {*known, TRAINER}:
        parser.error(f"there is no recipe {', '.join(sorted(unknown))}; they are: {'; '.join([*known, TRAINER])}")
    print("| recipe | batch | F1 of each seed | mean | CPU seconds |\n|---|---|---|---|---|")
    for name in arguments.recipes:
        for batch in [8] if name == TRAINER else arguments.batches:
            runs = [
                score(name, known.get(name, {}), train, test, batch=batch, epochs=arguments.epochs, seed=seed) for seed in arguments.seeds
            ]
            scores, seconds = zip(*runs, strict=True)
            listed = ", ".join(f"{each:.3f}" for each in scores)
            print(f"| {name} | {batch} | {listed} | {statistics.mean(scores):.3f} | {statistics.mean(seconds):.0f} |", flush=True)


def score(name: str, options: dict[str, Any], train: Samples, test: Samples, *, batch: int, epochs: int, seed: int) -> tuple[float, float]:
    """Return entity F1 and CPU seconds of one run."""
    if name == TRAINER:
        sizes = {"per_device_train_batch_size": batch, "num_train_epochs": epochs}
        return trainer_on_texts(text_model(), train, test, words=True, max_length=TOKENS, seed=seed, **sizes)
    metrics, seconds = fit(tagger(train, seed), train, test, seed=seed, batch_size=batch, max_length=TOKENS, **options)
    return metrics["f1"], seconds


if __name__ == "__main__":
    main()

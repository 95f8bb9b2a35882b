"""Our engine and its peers, each with its own defaults: Hugging Face Trainer, fastai, scikit-learn, SetFit.

Each peer is imported only when it runs. Seconds are CPU seconds of training only.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class ForTrainer(nn.Module):
    """A network with Trainer's interface: it returns loss and logits. Pixels are ``pixel_values``, inputs of texts unchanged."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, labels: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        logits = self.network(inputs.get("pixel_values", inputs))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def collate(rows: Sequence[tuple[Any, int]]) -> dict[str, Tensor]:
    """Return a batch of samples ``(input, label)`` of one shape, inputs being pixels or mappings of token ids."""
    inputs, labels = zip(*rows, strict=True)
    if isinstance(inputs[0], Mapping):
        batch = {name: torch.stack([torch.as_tensor(each[name]) for each in inputs]) for name in inputs[0]}
    else:
        batch = {"pixel_values": torch.stack(inputs)}
    return batch | {"labels": torch.tensor(labels)}


def train_by_trainer(network: Any, data: Any, collator: Any = collate, **arguments: Any) -> Any:
    """Train in place by Trainer on the CPU, silently, and return it; ``arguments`` are those of TrainingArguments."""
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # has no annotations
    quiet: dict[str, Any] = {"save_strategy": "no", "logging_strategy": "no", "report_to": [], "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as out:
        settings = transformers.TrainingArguments(
            out, use_cpu=True, remove_unused_columns=False, dataloader_pin_memory=False, **quiet, **arguments
        )
        loop = transformers.Trainer(network, settings, train_dataset=data, data_collator=collator)
        loop.remove_callback(transformers.PrinterCallback)
        loop.train()
    return loop


class Pairs(Dataset[tuple[Any, int]]):
    """Samples ``(input, label)`` in memory."""

    def __init__(self, inputs: Sequence[Any], labels: Sequence[int]) -> None:
        self.inputs, self.targets = inputs, list(labels)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.inputs[index], self.targets[index]


def fit(model: Any, train: Any, test: Any, **options: Any) -> tuple[dict[str, float], float]:
    """Fine-tune by our engine without validation, with the last epoch like the peers; return metrics on ``test`` and seconds."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        model.fit(train, False, out=f"{out}/run", quiet=True, **options)
    seconds = time.process_time() - start
    return model.evaluate(test), seconds


class Photos(Dataset[tuple[Tensor, int]]):
    """Photos of a table, decoded at each access by one of our transforms, with their labels as numbers."""

    def __init__(self, table: Any, labels: Sequence[str], transform: Any) -> None:
        self.paths, self.targets = list(table["file_name"]), [labels.index(label) for label in table["label"]]
        self.transform, self.rng = transform, random.Random(0)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.paths[index], self.rng), self.targets[index]


def trainer_on_images(model: Any, train: Any, test: Any, *, seed: int, **arguments: Any) -> tuple[dict[str, float], float]:
    """Fine-tune a model of ours by Trainer with our augmentation; return metrics on ``test`` and seconds."""
    import transformers

    from zoo.data.images.augment import Augment
    from zoo.data.images.transforms import train_transform

    transformers.set_seed(seed)
    photos = Photos(train, model.labels, train_transform(model.inputs, Augment()))
    start = time.process_time()
    train_by_trainer(ForTrainer(model), photos, seed=seed, **arguments)
    seconds = time.process_time() - start
    return model.evaluate(test), seconds


def fastai_on_images(model: Any, train: Any, test: Any, *, seed: int, epochs: int) -> tuple[float, float]:
    """Fine-tune the backbone of a model of ours with fastai's head by ``fine_tune``; return accuracy and seconds."""
    import pandas as pd
    from fastai.learner import Learner  # type: ignore[import-untyped]  # ships no types
    from fastai.losses import CrossEntropyLossFlat  # type: ignore[import-untyped]  # ships no types
    from fastai.torch_core import apply_init, params, set_seed  # type: ignore[import-untyped]  # ships no types
    from fastai.vision import all as vision  # type: ignore[import-untyped]  # ships no types

    set_seed(seed)
    inputs, features = model.inputs, model.spec.features
    table = pd.concat([train.assign(held=False), test.assign(held=True)])
    shown = vision.Normalize.from_stats(inputs.mean, inputs.std, cuda=False)
    data = vision.ImageDataLoaders.from_df(
        table, path="/", fn_col="file_name", label_col="label", valid_col="held", item_tfms=vision.Resize(inputs.size),
        batch_tfms=[*vision.aug_transforms(), shown], num_workers=0, device=torch.device("cpu"),
    )  # fmt: skip
    head = vision.create_head(features.dim, model.num_classes)
    apply_init(head, nn.init.kaiming_normal_)
    network = nn.Sequential(model.backbone, head)
    learner = Learner(data, network, loss_func=CrossEntropyLossFlat(), splitter=lambda model: [params(model[0]), params(model[1])])
    validate, learner._do_epoch_validate = learner._do_epoch_validate, lambda *_, **__: None  # the others do not validate either
    with learner.no_bar(), learner.no_logging():
        start = time.process_time()
        learner.fine_tune(epochs)
        seconds = time.process_time() - start
        learner._do_epoch_validate = validate
        guessed, truth = learner.get_preds(ds_idx=1)
    return float((guessed.argmax(1) == truth).float().mean()), seconds


def probe(model: Any, train: tuple[Any, Any], test: tuple[Any, Any]) -> tuple[float, float]:
    """Fit scikit-learn's logistic regression to frozen features; return accuracy and seconds, including the features."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # ships no types

    start = time.process_time()
    regression = LogisticRegression(max_iter=1000).fit(model.embed(train[0]), train[1])
    seconds = time.process_time() - start
    return float(regression.score(model.embed(test[0]), test[1])), seconds


def trainer_on_texts(
    folder: str, train: Any, test: Any, *, words: bool, max_length: int, seed: int, **arguments: Any
) -> tuple[float, float]:
    """Fine-tune a saved transformers model by Trainer; return accuracy, for words F1 by entity, and seconds."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # has no annotations
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    labels = sorted({tag for row in train[1] for tag in row} if words else set(train[1]))
    place = {label: index for index, label in enumerate(labels)}

    def encode(inputs: list[Any], targets: list[Any]) -> list[dict[str, Any]]:
        encoded = tokenizer(inputs, truncation=True, max_length=max_length, is_split_into_words=words)
        rows = []
        for index, ids in enumerate(encoded["input_ids"]):
            target: Any = (
                place.get(targets[index], 0) if not words else _aligned(encoded.word_ids(index), [place[t] for t in targets[index]])
            )
            rows.append({"input_ids": ids, "attention_mask": encoded["attention_mask"][index], "labels": target})
        return rows

    kind = transformers.AutoModelForTokenClassification if words else transformers.AutoModelForSequenceClassification
    transformers.set_seed(seed)
    model = kind.from_pretrained(folder, num_labels=len(labels), trust_remote_code=False)
    collator = transformers.DataCollatorForTokenClassification(tokenizer) if words else transformers.DataCollatorWithPadding(tokenizer)
    start = time.process_time()
    loop = train_by_trainer(model, encode(*train), collator, seed=seed, **arguments)
    seconds = time.process_time() - start
    encoded = encode(*test)
    guessed = loop.predict(encoded).predictions.argmax(-1)
    if not words:
        return float(np.mean([labels[k] == label for k, label in zip(guessed, test[1], strict=True)])), seconds
    from seqeval.metrics import f1_score  # type: ignore[import-untyped]  # ships no types

    rows = []
    for row, (sample, truth) in enumerate(zip(encoded, test[1], strict=True)):
        tags = [labels[guessed[row][at]] for at, target in enumerate(sample["labels"]) if target != -100]
        rows.append(tags + ["O"] * (len(truth) - len(tags)))
    return float(f1_score(test[1], rows)), seconds


def setfit_on_texts(folder: str, train: Any, test: Any, *, max_length: int, seed: int) -> tuple[float, float]:
    """Train a saved transformers model by SetFit (Tunstall et al. 2022) with its defaults; return accuracy and seconds."""
    import setfit  # type: ignore[import-not-found]  # is no dependency of the benchmarks: pip install setfit
    from datasets import Dataset as Rows  # type: ignore[import-untyped]  # ships no types

    torch.manual_seed(seed)
    labels = sorted(set(train[1]))
    model = setfit.SetFitModel.from_pretrained(folder, max_seq_length=max_length)
    rows = Rows.from_dict({"text": train[0], "label": [labels.index(label) for label in train[1]]})
    with tempfile.TemporaryDirectory() as out:
        settings = setfit.TrainingArguments(output_dir=out, seed=seed, report_to="none", save_strategy="no", show_progress_bar=False)
        start = time.process_time()
        setfit.Trainer(model=model, args=settings, train_dataset=rows).train()
        seconds = time.process_time() - start
    guessed = model.predict(test[0], show_progress_bar=False)
    return float(np.mean([labels[int(k)] == label for k, label in zip(guessed, test[1], strict=True)])), seconds


def _aligned(words: list[int | None], targets: list[int]) -> list[int]:
    return [-100 if word is None or word == before else targets[word] for word, before in zip(words, [None, *words], strict=False)]

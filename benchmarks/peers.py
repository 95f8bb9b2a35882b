"""The peers, each with its own defaults where nothing else is asked for: Hugging Face Trainer, fastai, a scikit-learn probe."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class ForTrainer(nn.Module):
    """A network as Trainer wants it: its loss beside its logits. Pixels come as ``pixel_values``, the inputs of texts as they are."""

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

    transformers.logging.set_verbosity_error()
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": [], "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as out:
        told = transformers.TrainingArguments(
            out, use_cpu=True, remove_unused_columns=False, dataloader_pin_memory=False, **quiet, **arguments
        )
        loop = transformers.Trainer(network, told, train_dataset=data, data_collator=collator)
        loop.remove_callback(transformers.PrinterCallback)
        loop.train()
    return loop


class Pairs(Dataset[tuple[Any, int]]):
    """Samples ``(input, label)`` that are in memory."""

    def __init__(self, inputs: Sequence[Any], labels: Sequence[int]) -> None:
        self.inputs, self.targets = inputs, list(labels)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.inputs[index], self.targets[index]

"""Task models for the tests of LoRA and of bias-only training, and a few steps of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from tests.engine.tiny import images

BERT = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def resnet(_folder: Path) -> zoo.TaskModel:
    pytest.importorskip("zoo_timm")
    # At random values timm's last norm of a block is zero, and nothing in the block gets a gradient.
    return zoo.get("timm/test_resnet", weights=False, zero_init_last=False).adapt(3)


def vit(_folder: Path) -> zoo.TaskModel:
    pytest.importorskip("zoo_timm")
    return zoo.get("timm/test_vit", weights=False).adapt(3)


def convnext(_folder: Path) -> zoo.TaskModel:
    """A backbone that has a ``head`` of its own, with a norm in it."""
    pytest.importorskip("zoo_timm")
    return zoo.get("timm/test_convnext", weights=False).adapt(3)


def bert(folder: Path) -> zoo.TaskModel:
    pytest.importorskip("zoo_hf")
    path = folder / "tiny-bert"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 40, **BERT}))
    return zoo.get(path, weights=False).adapt(3)


FAMILIES: dict[str, Callable[[Path], zoo.TaskModel]] = {"cnn": resnet, "vit": vit, "convnext": convnext, "bert": bert}


def toy(**options: Any) -> zoo.TaskModel:
    return zoo.get("toy/net", weights=False, **options).adapt(3)


def batch(model: zoo.TaskModel, size: int = 4) -> Any:
    generator = torch.Generator().manual_seed(0)
    if model.spec.modality == "text":
        ids = torch.randint(5, 50, (size, 9), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return torch.randn(size, *model.inputs.shape, generator=generator)


def steps(model: zoo.TaskModel, number: int = 2, lr: float = 0.01) -> zoo.TaskModel:
    """Train a little on one batch and return the model, in eval mode."""
    x = batch(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    model.train()
    for _ in range(number):
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def snapshot(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def moved(model: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in snapshot(model).items() if not torch.equal(tensor, before[name])}


def interrupted(folder: Path, **options: Any) -> tuple[zoo.TaskModel, zoo.TaskModel]:
    """Return the model of a whole run, and that of one in ``cut`` which was stopped after the second epoch and resumed."""
    data = images(), images(12, seed=1)

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole, again = toy(), toy()
    whole.fit(*data, out=folder / "whole", **options)
    with pytest.raises((KeyboardInterrupt, zoo.ZooError)):
        toy().fit(*data, out=folder / "cut", on_epoch=stop, **options)
    again.fit(*data, out=folder / "cut", resume=True, **options)
    return whole, again

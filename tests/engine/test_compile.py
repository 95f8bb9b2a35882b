"""Compiled backbones: how often code is compiled, and that a resumed run computes by the same code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import zoo.builtin
from tests.engine.rank_work import STEPPED, cursed, fit, plain, sentences, terminate, text
from tests.engine.tiny import difference, images, values
from tests.toy_text import ToyTextPlugin
from zoo.errors import InterruptedRunError
from zoo.registry.registry import Registry, use_registry

UNEVEN = (images(33), images(13, seed=1))  # batches of 7 and 6 samples; those of validation have 13


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the graphs that are compiled, by torch's tracer and without its slow code generator."""
    found: list[str] = []

    def backend(graph: torch.fx.GraphModule, example: Any) -> Callable[..., Any]:
        found.append(graph.code)
        return graph.forward  # type: ignore[no-any-return]

    def compiles(module: nn.Module) -> None:
        module._compiled_call_impl = torch.compile(module._call_impl, backend=backend)

    monkeypatch.setattr(nn.Module, "compile", compiles)
    return found


@pytest.mark.parametrize(("net", "data"), [(plain, UNEVEN), (text, (sentences(33), sentences(13, 1)))], ids=["photos", "texts"])
def test_uneven_batches_compile_once_for_training_and_once_for_validation(
    net: Callable[..., Any], data: Any, graphs: list[str], tmp_path: Path
) -> None:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    try:
        fit(tmp_path / "run", net(), *data, **STEPPED, compile=True, **({} if net is plain else {"augment": None}))
    finally:
        use_registry()
    assert len(graphs) == 2


def test_a_resumed_run_computes_by_the_code_that_an_uninterrupted_one_has(graphs: list[str], tmp_path: Path) -> None:
    whole, again = plain(), plain()
    fit(tmp_path / "whole", whole, *UNEVEN, **STEPPED, compile=True)
    with pytest.raises(InterruptedRunError):
        fit(tmp_path / "cut", plain(), cursed(terminate, 2), UNEVEN[1], **STEPPED, compile=True)
    begun = len(graphs)
    fit(tmp_path / "cut", again, *UNEVEN, resume=True, **STEPPED, compile=True)
    assert graphs[begun:] == graphs[:2]
    assert difference(values(again), values(whole)) == 0.0

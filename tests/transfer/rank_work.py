"""The cases on several processes, each of which calls ``main`` with a folder, and ``swept`` for the further ones, as its arguments."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

import zoo
import zoo.builtin
from tests.engine.rank_work import PlainPlugin, fit, told
from tests.toy_pair import PairPlugin
from tests.toy_text import ToyTextPlugin
from tests.transfer.cases import CASES, SWEPT, TWO_TOKENS, Case
from tests.undrawn import leave_out_curves
from zoo.models.task_model import TaskModel
from zoo.registry.registry import Registry, use_registry


class TwoTokensPlugin:
    """A plugin as an object, so that a saved model with a token for the teacher can be opened."""

    @zoo.hookimpl
    def zoo_backbones(self) -> list[zoo.BackboneSpec]:
        return [TWO_TOKENS]


def trained(case: Case, out: Path, *, train: Any = None, **options: Any) -> tuple[TaskModel, dict[str, Any]]:
    """Fit a case, and return its model and what two runs are compared by."""
    net = case.model()
    data = (case.data[0] if train is None else train, case.data[1])
    run = fit(out, net, *data, objective=case.make(), **({"recipe": "full", "epochs": 2} | case.options | options))
    return net, told(run, net)


def small_backbones() -> Registry:
    """Return the backbones that the cases are made of."""
    return Registry(plugins=[zoo.builtin, ToyTextPlugin(), PlainPlugin(), PairPlugin(), TwoTokensPlugin()], files=[])


def main() -> None:
    torch.set_num_threads(1)
    leave_out_curves()
    use_registry(small_backbones())
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    cases = {name: case for name, case in (SWEPT if sys.argv[2:] == ["swept"] else CASES).items() if case.ranks}
    found = {name: trained(case, folder / name)[1] for name, case in cases.items()}
    (folder / f"{rank}.json").write_text(json.dumps(found))

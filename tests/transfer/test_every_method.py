"""What the engine promises, held for each method: exact resume, ranks that equal one process, a saved model that predicts the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.clean import ROOT
from tests.engine.rank_work import Culprit, terminate
from tests.engine.tiny import difference, values
from tests.transfer.cases import CASES, SWEPT, Case
from tests.transfer.rank_work import small_backbones, trained
from tests.warm_process import run_warm_ranks
from zoo.data.open import open_data
from zoo.data.splits.duplicates import equal_rows
from zoo.engine.options.config import OPTIONS
from zoo.errors import InterruptedRunError, OptionError
from zoo.registry.registry import use_registry
from zoo.transfer.domain.alignments import KINDS
from zoo.transfer.method import Method
from zoo.transfer.names import METHODS, make_method

ALL: dict[str, Case] = {**CASES, **SWEPT}
EACH = [*CASES, *(pytest.param(name, marks=pytest.mark.sweep) for name in SWEPT)]


def test_every_method_has_a_case() -> None:
    made = [case.make() for case in ALL.values()]
    exported = [each for each in map(partial(getattr, zoo.transfer), dir(zoo.transfer)) if isinstance(each, type)]
    methods = {each for each in exported if issubclass(each, Method) and each is not Method}
    assert methods == {type(one) for one in made if isinstance(one, Method)}
    on_ranks = {type(case.make()) for case in CASES.values() if case.ranks}  # none is skipped or left to the sweep
    assert {getattr(zoo.transfer, name) for name in METHODS.values()} <= on_ranks
    assert {one.method for one in made if isinstance(one, zoo.transfer.DomainAdaptation)} == {*KINDS}


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    use_registry(small_backbones())
    yield
    use_registry()


class Alone(dict[str, Any]):
    """The runs of one process, by the name of the case, each when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> Any:
        self[name] = trained(ALL[name], self._folder / name)
        return self[name]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("name", EACH)
def test_a_run_that_is_interrupted_and_resumed_equals_the_uninterrupted_one(name: str, alone: Alone, tmp_path: Path) -> None:
    case, (expected, told) = ALL[name], alone[name]
    model = case.model()
    table = open_data(case.data[0], task=model.task, classes=model.labels, reads=model.spec.modality)
    if equal_rows(table):  # whose folds keep copies together, which they cannot see behind other inputs
        expected, told = trained(case, tmp_path / "whole", train=replace(table, inputs=Culprit(table.inputs, -1, terminate)))
    for reads in (2, 3):  # in the first epoch and in the second; an input that is stored is read once
        whole = replace(table, inputs=Culprit(table.inputs, 5, terminate, reads))
        try:
            trained(case, tmp_path / "run", train=whole, resume=(tmp_path / "run" / "run.json").exists())
        except InterruptedRunError:
            continue
    net, found = trained(case, tmp_path / "run", train=replace(table, inputs=Culprit(table.inputs, -1, terminate)), resume=True)
    assert difference(values(net), values(expected)) == 0.0
    assert [line["train_loss"] for line in found["history"]] == [line["train_loss"] for line in told["history"]]


@pytest.mark.parametrize("cases", ["usual", pytest.param("swept", marks=pytest.mark.sweep)])
def test_two_processes_train_what_one_trains(cases: str, alone: Alone, tmp_path: Path) -> None:
    code = "from tests.transfer.rank_work import main; main()"
    for done in run_warm_ranks(code, [str(tmp_path), cases], 2, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT):
        assert done.returncode == 0, done.stderr[-4000:]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for name in (name for name, case in (SWEPT if cases == "swept" else CASES).items() if case.ranks):
            expected = alone[name][1]
            losses = [[line["train_loss"] for line in run["history"]] for run in (found[name], expected)]
            assert np.allclose(*losses, rtol=1e-4, atol=1e-6), name
            gaps = [np.abs(np.subtract(found[name]["values"][key], value)).max() for key, value in expected["values"].items()]
            assert max(gaps) < 1e-4, name
            taken = [[line.get("pseudo_labelled") for line in run["history"]] for run in (found[name], expected)]
            assert taken[0] == taken[1], name


@pytest.mark.parametrize("name", EACH)
def test_a_saved_model_predicts_the_same(name: str, alone: Alone, tmp_path: Path) -> None:
    net, inputs = alone[name][0], ALL[name].data[1][0]
    net.save(tmp_path / "saved")
    assert np.array_equal(zoo.load(tmp_path / "saved").predict_proba(inputs), net.predict_proba(inputs))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_name_and_no_option_of_a_run(name: str) -> None:
    kind = getattr(zoo.transfer, METHODS[name])
    assert issubclass(kind, Method)
    assert kind.name == name
    assert not set(kind.__dataclass_fields__) & set(OPTIONS)
    with pytest.raises(OptionError, match="there is no option 'temprature_of_nothing'"):
        make_method(name, {"temprature_of_nothing": 1})


def test_an_unknown_objective_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match="there is no objective 'distil'"):
        make_method("distil", {})

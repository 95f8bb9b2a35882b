"""The formulas beside reference numbers, and what they are for any input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.clean import ROOT
from zoo.transfer.domain.distances import bsp, coral, jmmd, mcc, mdd, mk_mmd
from zoo.transfer.domain.reversal import grl_coefficient, reverse

REFERENCE = ROOT.parent / "shared" / "reference"


@pytest.fixture(scope="module")
def case() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if not (REFERENCE / "transfer_case.npz").exists():
        pytest.skip("the reference numbers are not beside this checkout")
    with np.load(REFERENCE / "transfer_case.npz") as arrays:
        inputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return inputs, json.loads((REFERENCE / "transfer_case.json").read_text())


def test_the_distances_agree_with_the_reference_numbers(case: tuple[dict[str, torch.Tensor], dict[str, Any]]) -> None:
    inputs, expected = case
    source, target, own, other = (inputs[name] for name in ("f_s", "f_t", "logits_s", "logits_t"))
    found = {
        "coral": coral(source, target),
        "mk_mmd": mk_mmd(source, target),
        "mk_mmd_linear": mk_mmd(source, target, linear=True),
        "jmmd": jmmd(source, target, own.softmax(1), other.softmax(1)),
        "bsp": bsp(source, target),
        "mcc_T2.5": mcc(other, 2.5),
        "mdd_margin4": mdd(own, own.flip(0), other, other.flip(0), margin=4.0),
    }
    for name, value in found.items():
        assert float(value) == pytest.approx(expected[name], rel=1e-4), name


def test_the_warm_start_agrees_with_the_reference_numbers(case: tuple[dict[str, torch.Tensor], dict[str, Any]]) -> None:
    found = [grl_coefficient(step, 1000) for step in (0, 100, 250, 500, 1000)]
    assert found == pytest.approx(case[1]["grl_coefficient_at_0_100_250_500_1000_of_1000"], rel=1e-4)


def test_a_reversed_gradient_has_the_other_sign_and_the_strength() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    (reverse(rows, 0.25) * 2).sum().backward()
    assert torch.equal(rows.grad, torch.full((2, 3), -0.5))


@pytest.mark.parametrize("distance", [coral, mk_mmd])
def test_a_distance_grows_with_the_shift_and_its_gradient_closes_it(distance: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    source, noise = torch.randn(64, 8, generator=generator), torch.randn(64, 8, generator=generator)
    near, far = (distance(source, noise + shift) for shift in (0.1, 2.0))
    assert far > near
    moved = (noise + 2.0).requires_grad_()
    distance(source, moved).backward()
    assert (moved.grad.mean(0) > 0).all()  # descending moves the target back


def test_covariances_of_few_rows_are_compared_as_those_of_many() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(6, 40, generator=generator), 2 * torch.randn(9, 40, generator=generator) + 1
    means = (source.mean(0) - target.mean(0)).square().mean()
    direct = means + (torch.cov(source.T) - torch.cov(target.T)).square().mean()
    assert float(coral(source, target)) == pytest.approx(float(direct), rel=1e-5)


def test_confusion_is_small_for_sure_and_large_for_unsure_predictions() -> None:
    sure, unsure = torch.eye(4).repeat(5, 1) * 100, torch.zeros(20, 4)
    assert float(mcc(sure)) < 1e-4
    assert float(mcc(unsure)) == pytest.approx(0.75)


def test_features_that_are_all_equal_have_a_finite_discrepancy_and_gradient() -> None:
    rows = torch.ones(4, 3, requires_grad=True)
    found = mk_mmd(rows, rows)
    found.backward()
    assert found.item() == pytest.approx(2 / 3)
    assert torch.isfinite(rows.grad).all()

"""Few-shot heads: what their papers define, held against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import OptionError
from zoo.transfer.fewshot.heads import HEADS, SCALE, head_named, quick_logistic, ridge, simpleshot


def clusters(shots: int, *, shift: float = 0.0, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features around one direction for each of four classes, of lengths up to ``spread`` apart, beside a common ``shift``."""
    random, dim = np.random.default_rng(seed), 16
    centres = 3 * np.random.default_rng(7).normal(size=(4, dim)) / dim**0.5
    targets = np.repeat(np.arange(4), shots)
    rows = centres[targets] + random.normal(size=(len(targets), dim)) * 0.5
    rows *= spread ** random.uniform(-0.5, 0.5, (len(rows), 1))
    rows[:, 0] += shift
    return torch.from_numpy(rows).float(), torch.from_numpy(targets)


@pytest.mark.parametrize("method", HEADS)
@pytest.mark.parametrize("shots", [1, 5])
def test_every_method_knows_the_classes_of_new_samples(method: str, shots: int) -> None:
    support, (queries, truth) = clusters(shots), clusters(25, seed=1)
    logits = head_named(method)(*support, 4)(queries)
    assert logits.shape == (100, 4)
    assert float((logits.argmax(1) == truth).float().mean()) > 0.8  # 0.25 by chance


def test_prototypes_choose_as_scikit_learns_nearest_centroid_does() -> None:
    from sklearn.neighbors import NearestCentroid

    (support, targets), (queries, _) = clusters(3), clusters(25, seed=1)
    wanted = NearestCentroid().fit(support.numpy(), targets.numpy()).predict(queries.numpy())
    assert np.array_equal(head_named("prototypes")(support, targets, 4)(queries).argmax(1).numpy(), wanted)


def test_centring_helps_simpleshot_where_all_features_share_a_direction() -> None:
    (support, targets), (queries, truth) = clusters(5, shift=60.0, spread=100.0), clusters(100, shift=60.0, spread=100.0, seed=1)
    found = simpleshot(support, targets, 4)(queries).argmax(1)
    other = HEADS["centroid"](support, targets, 4)(queries).argmax(1)  # the same without the centre
    right, wrong = (float((each == truth).float().mean()) for each in (found, other))
    assert right > 0.85
    assert wrong < right - 0.1
    assert torch.equal(simpleshot(support + 5.0, targets, 4)(queries + 5.0).argmax(1), found)  # the centre is taken off


def test_ridge_takes_the_penalty_with_the_lowest_leave_one_out_error_of_scikit_learn() -> None:
    from sklearn.linear_model import RidgeCV

    from zoo.transfer.fewshot.heads import PENALTIES

    (support, targets), (queries, _) = clusters(5), clusters(10, seed=1)
    rows, onehot = support.double().numpy(), functional.one_hot(targets, 4).double().numpy()
    centred = rows - rows.mean(0)
    penalties = PENALTIES * (centred**2).sum() / len(rows)
    peer = RidgeCV(penalties, scoring="neg_mean_squared_error").fit(rows, onehot)
    wanted = SCALE * peer.predict(queries.double().numpy())
    assert np.allclose(ridge(support, targets, 4)(queries).numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_a_trained_layer_of_cosines_lowers_its_loss_below_that_of_the_class_means() -> None:
    support, targets = clusters(5)
    losses = [float(functional.cross_entropy(HEADS[name](support, targets, 4)(support), targets)) for name in ("centroid", "baseline++")]
    assert losses[1] < 0.8 * losses[0]


def test_the_logistic_head_of_episodes_has_a_fixed_penalty_and_decides_nearly_alike() -> None:
    (support, targets), (queries, _) = clusters(5), clusters(25, seed=1)
    assert head_named("logistic", quick=True) is quick_logistic
    both = [head(support, targets, 4)(queries).argmax(1) for head in (head_named("logistic"), quick_logistic)]
    assert float((both[0] == both[1]).float().mean()) > 0.9


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"'simpelshot'.*did you mean 'simpleshot'"):
        head_named("simpelshot")

from __future__ import annotations

import numpy as np
import pytest

from zoo.engine.loading.order import balancing_weights, epoch_order, even_batches, ordered_batches
from zoo.engine.optim.lr_schedule import rate
from zoo.engine.options.model_selection import Best, resolve_monitor
from zoo.errors import OptionError
from zoo.tasks.find import BUILTIN


def test_the_order_is_a_permutation_that_seed_and_epoch_decide() -> None:
    assert sorted(epoch_order(50, 0, 3)) == list(range(50))
    assert epoch_order(50, 0, 3).tolist() == epoch_order(50, 0, 3).tolist()
    assert epoch_order(50, 0, 3).tolist() != epoch_order(50, 0, 4).tolist()
    assert epoch_order(50, 0, 3).tolist() != epoch_order(50, 1, 3).tolist()


@pytest.mark.parametrize(("count", "size"), [(33, 32), (1, 8), (64, 32), (245, 32), (7, 2)])
def test_batches_are_even_and_drop_nothing(count: int, size: int) -> None:
    batches = even_batches(np.arange(count), size)
    sizes = [len(batch) for batch in batches]
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_evaluation_goes_in_order() -> None:
    assert ordered_batches(5, 2) == [[0, 1], [2, 3], [4]]


def test_balanced_draws_see_every_class_equally_often() -> None:
    targets = np.array([0] * 90 + [1] * 10)
    drawn = targets[epoch_order(4000, 0, 0, np.resize(balancing_weights(targets), 100).repeat(40)) // 40]
    assert abs((drawn == 1).mean() - 0.5) < 0.05


def test_multi_label_draws_favour_rare_labels() -> None:
    weights = balancing_weights(np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=np.float32))
    assert weights[2] == 1.0
    assert weights[0] == pytest.approx(1 / 3)


def test_the_rate_rises_then_falls_and_is_never_zero() -> None:
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == rates[10] == 1.0
    assert min(rates) > 0


def test_nan_is_never_best_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    best = Best("accuracy")
    assert not best.update(1, {"accuracy": float("nan"), "loss": 0.1})
    assert "accuracy has no value on the validation data" in caplog.text
    assert best.update(2, {"accuracy": 0.0, "loss": 9.0})
    assert not best.update(3, {"loss": 0.1})
    assert best.epoch == 2


def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch() -> None:
    best = Best("accuracy")
    best.update(1, {"accuracy": 0.9, "loss": 0.5})
    assert best.update(2, {"accuracy": 0.9, "loss": 0.4})
    assert not best.update(3, {"accuracy": 0.9, "loss": 0.4})
    assert (best.epoch, best.waited) == (2, 1)


def test_an_error_is_best_when_low() -> None:
    best = Best("mae", lower=True)
    best.update(1, {"mae": 2.0})
    assert best.update(2, {"mae": 1.0})
    assert not best.update(3, {"mae": 1.5})


def test_a_monitor_that_the_task_lacks_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"'acuracy' \(did you mean 'accuracy'\?\)"):
        resolve_monitor("acuracy", BUILTIN["single-label"])

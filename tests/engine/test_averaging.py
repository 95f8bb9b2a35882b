"""Averages of values: their formulas against torch's own, exactness of what comes back, and refreshed statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from tests.engine.tiny import difference, values
from tests.engine.tiny import model as make_model
from zoo.engine.optim.weight_averaging import Average, Ema, interpolate, refresh_statistics
from zoo.errors import SavedModelError


def train(model: nn.Module, seed: int) -> None:
    """Move every value, buffers too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.train()(batch(seed))


def batch(seed: int, size: int = 4) -> Tensor:
    return torch.randn(size, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_the_moving_average_follows_its_formula_with_a_decay_that_warms_up() -> None:
    model = make_model()
    ema, expected = Ema(model, 0.3), {name: value.double() for name, value in values(model).items()}
    for step in range(1, 6):
        train(model, step)
        ema.update()
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in values(model).items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double() if value.is_floating_point() else value.double()
    with ema.swapped(model):
        assert difference(values(model), expected) < 1e-5


def test_after_the_warm_up_it_is_the_average_that_torch_keeps() -> None:
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    model = make_model()
    ema = Ema(model, 0.9)
    ema.updates = 1000
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)  # the first call copies
    for step in range(3):
        train(model, step)
        ema.update()
        theirs.update_parameters(model)
    with ema.swapped(model):
        ours = {name: value for name, value in values(model).items() if value.is_floating_point()}
        assert difference(ours, {name: theirs.module.state_dict()[name] for name in ours}) < 1e-6


def test_the_equal_average_is_torchs_and_after_one_update_the_model_itself() -> None:
    model = make_model()
    average, theirs = Average(model), AveragedModel(model, use_buffers=True)
    for step in range(4):
        train(model, step)
        average.update()
        theirs.update_parameters(model)
        own = values(model)
        with average.swapped(model):
            assert step or difference(values(model), own) == 0
    with average.swapped(model):
        ours = {name: value for name, value in values(model).items() if value.is_floating_point()}
        assert difference(ours, {name: theirs.module.state_dict()[name] for name in ours}) < 1e-6


@pytest.mark.parametrize("kind", [lambda model: Ema(model, 0.5), Average], ids=["ema", "average"])
def test_the_models_own_values_come_back_bit_for_bit_and_counters_are_not_averaged(kind) -> None:  # type: ignore[no-untyped-def]
    model = make_model()
    average = kind(model)
    for step in range(3):
        train(model, step)
        average.update()
    own, tensors = values(model), {name: tensor.clone() for name, tensor in average.state_dict().items()}
    with average.swapped(model):
        averaged = values(model)
    assert difference(averaged, own) > 0.05
    assert averaged["backbone.bn1.num_batches_tracked"] == 3
    assert difference(values(model), own) == 0
    with pytest.raises(KeyError), average.swapped(model):
        raise KeyError
    assert difference(values(model), own) == 0
    assert all(torch.equal(tensor, average.state_dict()[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("kind", [lambda model: Ema(model, 0.5), Average], ids=["ema", "average"])
def test_a_restored_average_goes_on_bit_for_bit(kind) -> None:  # type: ignore[no-untyped-def]
    model = make_model()
    average = kind(model)
    train(model, 1)
    average.update()
    saved = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    resumed = kind(make_model(seed=9))
    resumed._model = model
    resumed.load_state_dict(saved)
    train(model, 2)
    average.update()
    resumed.update()
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in average.state_dict().items())


def test_frozen_values_do_not_drift() -> None:
    model = make_model()
    ema, average = Ema(model, 0.999), Average(model)
    for _ in range(50):
        ema.update()
        average.update()
    for one in (ema, average):
        own = values(model)
        with one.swapped(model):
            assert difference(values(model), own) == 0


def test_small_steps_of_a_model_in_half_precision_are_not_lost() -> None:
    model = make_model().bfloat16()
    ema = Ema(model, 0.9999)
    ema.updates = 10**6
    start = model.head.linear.bias.detach().float().clone()
    with torch.no_grad():
        model.head.linear.bias.add_(1)
    for _ in range(100):
        ema.update()
    moved = ema.state_dict()["value.head.linear.bias"] - start
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.9999**100), rtol=1e-3, atol=0)
    with ema.swapped(model):
        assert model.head.linear.bias.dtype == torch.bfloat16


def test_tied_tensors_stay_tied() -> None:
    model = make_model()
    model.backbone.blocks[1].conv.weight = model.backbone.blocks[0].conv.weight
    ema = Ema(model, 0.5)
    train(model, 1)
    ema.update()
    with ema.swapped(model):
        assert model.backbone.blocks[1].conv.weight is model.backbone.blocks[0].conv.weight
        assert torch.equal(model.backbone.blocks[0].conv.weight, ema.state_dict()["value.backbone.blocks.1.conv.weight"])


def test_interpolation_goes_from_the_start_to_the_tuned_values() -> None:
    model = make_model()
    start = values(model)
    train(model, 1)
    tuned = values(model)
    for share in (1.0, 0.25, 0.0):
        twin = copy.deepcopy(model)
        interpolate(twin, start, share)
        for name, value in values(twin).items():
            if not value.is_floating_point():
                assert torch.equal(value, tuned[name])
            elif share in (0.0, 1.0):
                assert torch.equal(value, (tuned if share else start)[name])
            else:
                torch.testing.assert_close(value, start[name] + share * (tuned[name] - start[name]))


def test_values_of_another_network_are_refused() -> None:
    model, start = make_model(), values(make_model(classes=4))
    with pytest.raises(SavedModelError, match=r"head\.linear\.weight"):
        interpolate(model, start, 0.5)
    with pytest.raises(SavedModelError, match=r"head\.linear\.weight"):
        Ema(model, 0.5).load_state_dict(Ema(make_model(classes=4), 0.5).state_dict())


def test_refreshed_statistics_are_those_of_torch() -> None:
    ours = make_model()
    train(ours, 1)
    theirs = copy.deepcopy(ours)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batches = [batch(step) for step in range(5)]
    theirs.train()
    update_bn(batches, theirs)
    ours.eval()
    assert refresh_statistics(ours, batches) == 3
    buffers = {name: value for name, value in values(ours).items() if "running" in name}
    assert difference(buffers, {name: values(theirs)[name] for name in buffers}) < 1e-5
    assert not ours.training
    assert ours.backbone.bn1.momentum == 0.1


def test_each_sample_weighs_the_same_whatever_the_size_of_its_batch() -> None:
    model = make_model()
    batches = [batch(0, 6), batch(1, 2)]
    refresh_statistics(model, batches)
    expected = model.backbone.conv1(torch.cat(batches)).mean((0, 2, 3))
    torch.testing.assert_close(model.backbone.bn1.running_mean, expected, rtol=1e-4, atol=1e-5)


def test_still_statistics_are_left_alone_and_cost_no_batch() -> None:
    model = make_model()
    train(model, 1)
    model.freeze(2)
    before = values(model)
    assert refresh_statistics(model, [batch(0)]) == 1
    changed = {name for name, value in values(model).items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in changed} == {"backbone.blocks.1.bn"}
    model.freeze_bn = True

    def never() -> Iterator[Tensor]:
        raise AssertionError("a batch was asked for")
        yield

    assert refresh_statistics(model, never()) == 0


def test_an_interrupted_or_empty_refresh_leaves_the_statistics_as_they_were() -> None:
    model = make_model()
    train(model, 1)
    before = values(model)

    def broken() -> Iterator[Tensor]:
        yield batch(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh_statistics(model, broken())
    assert refresh_statistics(model, []) == 0
    assert difference(values(model), before) == 0
    assert model.backbone.bn1.momentum == 0.1
    assert model.training

"""L2-SP, DELTA and BSS: their formulas, what counts in them, and that they change nothing else."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.engine.tiny import model as make_model
from tests.engine.tiny import values
from tests.toy_text import toy_text_spec
from zoo.errors import LayerGroupError, OptionError, SavedModelError
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.tuning import Regularizers, recompute, taps
from zoo.tuning.penalties import smallest_singular_values, squared_distance

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def moved(model: nn.Module) -> Any:
    """Change every value a little, as training does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def penalty(regularizers: Regularizers, model: nn.Module, x: Any = X) -> torch.Tensor:
    told = maybe_penalty(regularizers, model, x)
    assert told is not None
    return told


def amount(told: torch.Tensor) -> float:
    return float(told.detach())


def maybe_penalty(regularizers: Regularizers, model: nn.Module, x: Any = X) -> torch.Tensor | None:
    with regularizers.watching():
        torch.manual_seed(5)  # of dropout
        model.train()(x)
        return regularizers.penalty(x)


def still_model() -> TaskModel:
    """A model whose training forward is its evaluation forward."""
    model = make_model()
    model.freeze_bn = True
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def text_model(task: str = "single-label", head: str = "linear") -> TaskModel:
    torch.manual_seed(0)
    return Backbone(toy_text_spec(), weights=False).adapt(3, task=task, head=head)


def text_batch(padding: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.arange(3, 15).reshape(2, 6)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    filler = torch.zeros(2, padding, dtype=torch.int64)
    return {"input_ids": torch.cat([ids * mask, filler], 1), "attention_mask": torch.cat([mask, filler], 1)}


def test_bss_is_the_published_number(shared: Path) -> None:
    features = torch.from_numpy(np.load(shared / "reference" / "transfer_case.npz")["f_s"])
    published = json.loads((shared / "reference" / "transfer_case.json").read_text())["bss_k1"]
    assert amount(smallest_singular_values(features)) == pytest.approx(published, rel=1e-5)


def test_bss_lifts_the_smallest_singular_value_and_no_other() -> None:
    features = torch.randn(6, 9, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(features.detach(), full_matrices=False)
    smallest_singular_values(features).backward()
    torch.testing.assert_close(features.grad, 2 * s[-1] * torch.outer(u[:, -1], v[-1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_squared_distance_and_its_gradient_are_those_of_the_plain_formula(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    now, start = ([torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 4), (5,), ())] for _ in range(2))
    told = []
    for compute in (squared_distance, lambda a, b: sum((x.float() - y.float()).square().sum() for x, y in zip(a, b, strict=True))):
        values = [value.clone().requires_grad_() for value in now]
        distance = compute(values, start)
        (3 * distance).backward()
        told.append([distance.detach(), *(value.grad for value in values)])
    assert told[0][0].dtype == torch.float32
    for ours, plain in zip(*told, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)


def test_l2_sp_is_half_the_squared_distance_to_the_start_and_half_the_squared_norm_of_the_head() -> None:
    model = make_model()
    start = copy.deepcopy(model.backbone)
    regularizers = Regularizers(model, l2_sp=0.5)
    told = penalty(regularizers, moved(model))
    pairs = zip(model.backbone.parameters(), start.parameters(), strict=True)
    distance = sum(amount((now - then).square().sum()) for now, then in pairs)
    norm = sum(float(parameter.detach().square().sum()) for parameter in model.head.parameters())
    assert amount(told) == pytest.approx(0.5 * (distance + norm) / 2, rel=1e-5)


def test_the_gradient_of_l2_sp_points_away_from_the_start() -> None:
    model = make_model()
    start = values(model)
    regularizers = Regularizers(model, l2_sp=0.5)
    penalty(regularizers, moved(model)).backward()
    now = model.backbone.conv1.weight
    torch.testing.assert_close(now.grad, 0.5 * (now.detach() - start["backbone.conv1.weight"]))
    torch.testing.assert_close(model.head.linear.weight.grad, 0.5 * model.head.linear.weight.detach())


def test_delta_is_the_mean_squared_distance_of_the_groups_outputs_to_those_of_the_start() -> None:
    model = make_model()
    start = copy.deepcopy(model).eval()
    regularizers = Regularizers(model, delta=2.0)
    assert regularizers.needs_inputs
    told = penalty(regularizers, moved(model))
    torch.manual_seed(5)
    with taps(model.groups) as now, taps(start.groups) as before, torch.no_grad():
        model(X), start(X)
    expected = sum(float((now[name] - before[name]).square().mean()) for name in model.groups.names)
    assert amount(told) == pytest.approx(2 * expected, rel=1e-5)


def test_delta_trains_toward_the_features_of_the_start() -> None:
    model = still_model()
    regularizers = Regularizers(model, delta=1.0)
    moved(model)
    optimizer = torch.optim.Adam(model.backbone.parameters(), lr=0.01)
    told = []
    for _ in range(20):
        loss = penalty(regularizers, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(amount(loss))
    assert told[-1] < told[0] / 4


def test_an_unchanged_network_without_dropout_and_with_still_statistics_has_no_distance() -> None:
    model = still_model()
    assert amount(penalty(Regularizers(model, delta=1.0), model)) == 0
    told = penalty(Regularizers(model, l2_sp=2.0), model)
    assert amount(told) == pytest.approx(sum(float(p.detach().square().sum()) for p in model.head.parameters()))


def test_bss_takes_the_pooled_features_of_the_training_batch() -> None:
    model = make_model()
    told = penalty(Regularizers(model, bss=0.1), model)
    torch.manual_seed(5)
    pooled = model.embed_batch(X)
    assert amount(told) == pytest.approx(0.1 * amount(torch.linalg.svdvals(pooled)[-1] ** 2), rel=1e-4)


def test_bss_takes_the_tokens_that_are_not_padding_where_each_is_classified() -> None:
    model = text_model("token-classification")
    told = penalty(Regularizers(model, bss=1.0), model, text_batch())
    torch.manual_seed(5)
    features = model.backbone(text_batch())[text_batch()["attention_mask"].bool()]
    assert features.shape == (10, 16)
    assert amount(told) == pytest.approx(amount(torch.linalg.svdvals(features)[-1] ** 2), rel=1e-3)


def test_bss_leaves_a_single_sample_alone() -> None:
    model = make_model()
    assert maybe_penalty(Regularizers(model, bss=1.0), model, X[:1]) is None


def test_delta_does_not_depend_on_padding() -> None:
    model = text_model()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.MultiheadAttention):
            module.p = module.dropout = 0.0  # type: ignore[assignment]
    regularizers = Regularizers(model, delta=1.0)
    moved(model)
    short, long = (amount(penalty(regularizers, model, text_batch(padding))) for padding in (0, 5))
    assert short > 0
    assert long == pytest.approx(short, rel=1e-5)


def test_the_weighted_penalties_add_up() -> None:
    model = make_model()
    alone = [Regularizers(model, **one) for one in ({"l2_sp": 0.3}, {"delta": 0.2}, {"bss": 0.1})]
    together = Regularizers(model, l2_sp=0.3, delta=0.2, bss=0.1)
    moved(model)
    assert amount(penalty(together, model)) == pytest.approx(sum(amount(penalty(one, model)) for one in alone), rel=1e-5)


@pytest.mark.parametrize("frozen", [1, 2])
def test_frozen_groups_are_left_out_of_every_sum(frozen: int) -> None:
    model = make_model()
    regularizers = Regularizers(model, l2_sp=2.0)
    features = Regularizers(model, delta=1.0)
    start = values(model.backbone)
    moved(model).freeze(frozen)
    trained = {name for group in model.groups[frozen:] for name, _ in group.named_parameters()}
    now = values(model.backbone)
    distance = sum(float((now[name] - start[name]).square().sum()) for name in trained)
    norm = sum(float(parameter.detach().square().sum()) for parameter in model.head.parameters())
    assert amount(penalty(regularizers, model)) == pytest.approx(distance + norm, rel=1e-5)
    penalty(regularizers, model).backward()
    penalty(features, model).backward()
    assert all(parameter.grad is None for parameter in model.groups[:frozen].parameters())


def test_nothing_applies_where_the_whole_backbone_is_frozen() -> None:
    model = make_model()
    regularizers = Regularizers(model, l2_sp=1.0, delta=1.0, bss=1.0)
    model.freeze(len(model.groups))
    assert maybe_penalty(regularizers, model) is None
    assert maybe_penalty(Regularizers(make_model()), make_model()) is None


def test_parameters_that_do_not_train_have_no_penalty() -> None:
    model = make_model()
    regularizers = Regularizers(model, l2_sp=2.0)
    start = values(model)
    moved(model)
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad_(name.endswith("bn1.bias"))
    for parameter in model.head.parameters():
        parameter.requires_grad_(False)
    expected = (model.backbone.bn1.bias - start["backbone.bn1.bias"]).detach().square().sum()
    assert amount(penalty(regularizers, model)) == pytest.approx(float(expected))


def test_a_forward_without_gradients_is_not_taken_for_a_training_forward() -> None:
    model = make_model()
    regularizers = Regularizers(model, bss=1.0)
    with regularizers.watching():
        model.train()(X)
        model.eval()
        with torch.no_grad():
            model(X)
        assert regularizers.penalty(X) is None


def test_the_network_of_the_start_runs_in_the_precision_of_the_training_forward() -> None:
    model = make_model()
    regularizers = Regularizers(model, delta=1.0, bss=1.0)
    assert regularizers._before is not None
    seen: list[torch.dtype] = []
    regularizers._before.model.conv1.register_forward_hook(lambda _module, _args, output: seen.append(output.dtype))
    with regularizers.watching():
        with torch.autocast("cpu", torch.bfloat16):
            model.train()(X)
        told = regularizers.penalty(X)
    penalty(regularizers, model)
    assert told is not None
    assert told.dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32]


def test_features_that_are_not_finite_reach_the_gradients_instead_of_an_error_of_the_decomposition() -> None:
    model = make_model()
    with torch.no_grad():
        model.backbone.blocks[1].bn.bias[0] = math.inf
    told = penalty(Regularizers(model, bss=1.0), model)
    assert not math.isfinite(amount(told))
    told.backward()
    assert not all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


def test_a_forward_that_ended_in_an_error_leaves_nothing_to_the_next() -> None:
    model = make_model()
    regularizers = Regularizers(model, delta=1.0, bss=1.0)
    with regularizers.watching():
        model.train()(X)
        with pytest.raises(RuntimeError), torch.no_grad():
            model.head(torch.zeros(1, 5, 2, 2))
        with torch.no_grad():
            model(X)
        assert not regularizers._outputs
        assert regularizers._pooled is None


def test_a_batch_counts_once() -> None:
    model = make_model()
    bss, delta = Regularizers(model, bss=1.0), Regularizers(model, delta=1.0)
    with bss.watching(), delta.watching():
        model.train()(X)
        assert bss.penalty(X) is not None
        assert bss.penalty(X) is None
        assert delta.penalty(X) is not None
        with pytest.raises(LayerGroupError, match="no training forward"):
            delta.penalty(X)


def test_recomputed_blocks_give_the_same_penalty_and_gradients_and_leave_nothing_behind() -> None:
    plain = make_model()
    twice = copy.deepcopy(plain)
    gradients = []
    for model in (plain, twice):
        regularizers = Regularizers(model, delta=1.0, bss=0.1)
        moved(model)
        if model is twice:
            recompute(model.groups)
        with regularizers.watching():
            torch.manual_seed(5)
            logits = model.train()(X)
            told = regularizers.penalty(X)
            assert told is not None
            (logits.sum() + told).backward()
            assert not regularizers._outputs
        gradients.append([told.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(map(torch.equal, *gradients))


def test_watching_and_the_penalty_change_neither_random_numbers_nor_statistics() -> None:
    plain, watched = make_model(), make_model()
    torch.manual_seed(5)
    expected = [plain.train()(X), torch.rand(3)]
    regularizers = Regularizers(watched, l2_sp=1.0, delta=1.0, bss=1.0)
    torch.manual_seed(5)
    with regularizers.watching():
        logits = watched.train()(X)
        regularizers.penalty(X)
    assert torch.equal(logits, expected[0])
    assert torch.equal(torch.rand(3), expected[1])
    assert all(map(torch.equal, plain.state_dict().values(), watched.state_dict().values()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in watched.modules())


@pytest.mark.parametrize("weights", [{"l2_sp": 1.0}, {"delta": 1.0}, {"l2_sp": 1.0, "delta": 1.0, "bss": 1.0}])
def test_a_resumed_run_has_the_same_start(weights: Mapping[str, float]) -> None:
    model = make_model()
    first = Regularizers(model, **weights)
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    second = Regularizers(moved(model), **weights)
    assert amount(penalty(second, model)) != amount(penalty(first, model))
    second.load_state_dict(state)
    assert torch.equal(penalty(second, model), penalty(first, model))
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in state.items())


def test_the_start_of_another_network_is_refused() -> None:
    state = Regularizers(make_model(), l2_sp=1.0).state_dict()
    with pytest.raises(SavedModelError, match="blocks"):
        Regularizers(text_model(), l2_sp=1.0).load_state_dict(state)
    with pytest.raises(SavedModelError, match=r"conv1\.weight"):
        Regularizers(make_model(), l2_sp=1.0).load_state_dict(state | {"conv1.weight": torch.zeros(1)})


def test_the_start_is_kept_once_and_only_where_it_is_needed() -> None:
    assert not Regularizers(make_model(), bss=1.0).state_dict()
    both = Regularizers(make_model(), l2_sp=1.0, delta=1.0)
    assert both._start["conv1.weight"].data_ptr() == both.state_dict()["conv1.weight"].data_ptr()


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_out_of_range_are_refused_all_at_once(weight: float) -> None:
    with pytest.raises(OptionError, match=r"(?s)l2_sp.*bss"):
        Regularizers(make_model(), l2_sp=weight, bss=weight)

"""AdaLoRA's ranks fall to their mean along the schedule, by PEFT's importance, and a run resumes with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo
from tests.engine.tiny import images
from tests.tuning.adapted import batch, interrupted, toy
from zoo.errors import OptionError
from zoo.tuning import attach_lora, lora_targets
from zoo.tuning.efficient.lora import lora_layers
from zoo.tuning.efficient.rank_budget import ORTHOGONAL, RankBudget, first_rank
from zoo.tuning.efficient.step_hooks import step_hooks

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("toys")
STEPS = 20


def attached(rank: int = 2) -> zoo.TaskModel:
    model = toy()
    model.freeze_bn = True
    attach_lora(model, model.groups, rank=rank, kind="adalora")
    return model.train()


def ranks(model: zoo.TaskModel) -> list[int]:
    return [int(layer.lora_E["default"].count_nonzero()) for _, layer in lora_layers(model.backbone)]


def gradients(model: zoo.TaskModel) -> None:
    x = batch(model)
    model.zero_grad()
    (model(x) - torch.arange(3.0)).square().sum().backward()


def test_ranks_begin_at_half_as_much_again_and_end_at_their_mean() -> None:
    model = attached()
    budget = step_hooks(model, STEPS)["rank-budget"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    counts = []
    for _ in range(STEPS):
        gradients(model)
        budget.before_step()
        optimizer.step()
        budget.after_step()
        counts.append(sum(ranks(model)))
    layers = len(ranks(model))
    assert counts[0] == first_rank(2) * layers == 3 * layers
    assert counts == sorted(counts, reverse=True)
    assert counts[STEPS // 2 :] == [2 * layers] * (STEPS - STEPS // 2)
    assert isinstance(budget, RankBudget)
    assert sum(map(sum, budget.kept.values())) == 2 * layers


def test_importance_and_choice_are_those_of_peft() -> None:
    from peft.tuners.adalora.layer import RankAllocator

    model = attached()
    config = peft.AdaLoraConfig(target_r=2, init_r=3, total_step=STEPS, tinit=2, tfinal=10, deltaT=1)
    theirs = RankAllocator(model.backbone, config, "default")
    ours = RankBudget(model.backbone, 2, STEPS)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(1, 11):
        gradients(model)
        optimizer.step()
        theirs.update_ipt(model.backbone)
        ours.after_step()
        for name, value in theirs.exp_avg_ipt.items():
            assert torch.equal(ours._sensitivity[name.removesuffix(".default")], value)
        if step > 2:
            kept = theirs.mask_to_budget(model.backbone, theirs.budget_schedule(step)[0])
            assert ranks(model) == [sum(keeps) for keeps in kept.values()]
    assert {f"{name}.lora_E.default": keeps for name, keeps in ours.kept.items()} == kept


def test_the_penalty_is_the_gradient_of_the_distance_to_orthogonal_factors() -> None:
    model = attached()
    gradients(model)
    before = {name: p.grad.clone() for name, p in model.backbone.named_parameters() if p.grad is not None}
    step_hooks(model, STEPS)["rank-budget"].before_step()
    added = {name: p.grad - before[name] for name, p in model.backbone.named_parameters() if p.grad is not None}
    matrices = {name: p for name, p in model.backbone.named_parameters() if ".lora_A." in name or ".lora_B." in name}
    odd = [(p @ p.T if ".lora_A." in name else p.T @ p) - torch.eye(3) for name, p in matrices.items()]
    penalty = ORTHOGONAL * torch.stack([each.norm() for each in odd]).mean()
    for (name, _), gradient in zip(matrices.items(), torch.autograd.grad(penalty, [*matrices.values()]), strict=True):
        assert torch.allclose(added[name], gradient, atol=1e-6)


def test_a_run_stopped_in_the_middle_of_the_schedule_resumes_exactly_with_its_ranks(tmp_path: Path) -> None:
    options = {"recipe": "adalora", "lora_rank": 2, "lr": 0.05, "epochs": 5, "batch_size": 4, "quiet": True}
    whole, again = interrupted(tmp_path, **options)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_a_run_ends_with_the_mean_rank_and_a_range_test_leaves_the_budget_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = toy()
    run = model.fit(
        images(), False, recipe="adalora", lora_rank=2, lr="auto", epochs=4, batch_size=4, quiet=True, out=tmp_path / "run", freeze=1
    )
    saved = load_file(run.dir / "lora" / "adapter_model.safetensors")
    left = [int(tensor.count_nonzero()) for name, tensor in saved.items() if name.endswith("lora_E")]
    assert len(left) == len(lora_targets(toy().groups[1:], "adalora"))
    assert sum(left) == 2 * len(left)


def test_sharding_is_refused_with_the_reason() -> None:
    with pytest.raises(OptionError, match="shard with adalora: ranks are chosen among whole matrices"):
        toy().fit(images(), False, recipe="adalora", shard=True, quiet=True)

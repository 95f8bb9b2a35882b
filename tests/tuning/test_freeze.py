import pytest
import torch

from tests.toy import TOY_LAYERS, ToyNet
from zoo.models.layers import bind
from zoo.tuning import apply_eval, freeze_prefix


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("k", range(4))
def test_a_frozen_prefix_is_bit_equal_after_two_steps_and_the_rest_moves(k: int) -> None:
    torch.manual_seed(0)
    model = ToyNet()
    groups = bind(model, TOY_LAYERS)
    freeze_prefix(groups, k)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    before = snapshot(model)
    for _ in range(2):
        model.train()
        apply_eval(groups, k)
        loss = model(torch.randn(4, 3, 8, 8)).square().sum()
        if loss.requires_grad:
            loss.backward()
            optimizer.step()
    moved = {name for name, tensor in snapshot(model).items() if not torch.equal(tensor, before[name])}
    frozen = {f"{name}" for group in groups[:k] for name, _ in (*group.named_parameters(), *group.named_buffers())}
    assert not moved & frozen
    assert moved == before.keys() - frozen


@pytest.mark.parametrize("k", range(1, 4))
def test_frozen_features_are_those_of_eval_mode_and_independent_of_batch_mates(k: int) -> None:
    torch.manual_seed(0)
    model = ToyNet(drop_rate=0.5)
    groups = bind(model, TOY_LAYERS)
    seen: list[torch.Tensor] = []
    last = model.bn1 if k == 1 else model.blocks[k - 2]
    last.register_forward_hook(lambda _module, _args, output: seen.append(output))
    x = torch.randn(4, 3, 8, 8)
    model.eval()(x)
    model.train()
    apply_eval(groups, k)
    model(x)
    model(x[:1])
    assert torch.equal(seen[0], seen[1])
    assert torch.allclose(seen[0][:1], seen[2], atol=1e-6)


def test_freezing_drops_gradients_so_that_a_running_optimizer_skips_them() -> None:
    model = ToyNet()
    groups = bind(model, TOY_LAYERS)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    freeze_prefix(groups, 2)
    assert all(parameter.grad is None for parameter in groups[:2].parameters())
    assert all(parameter.grad is not None for parameter in groups[2:].parameters())


def test_unfreezing_undoes_freezing() -> None:
    model = ToyNet()
    groups = bind(model, TOY_LAYERS)
    freeze_prefix(groups, 3)
    freeze_prefix(groups, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())

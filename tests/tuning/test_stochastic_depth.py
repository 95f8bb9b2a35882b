"""Blocks left out at random: the formula per sample, which blocks, and that nothing else moves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.toy import TOY_LAYERS, ToyNet
from tests.toy_text import ToyText
from zoo.errors import LayerGroupError, OptionError
from zoo.models.layers import LayerGroups, bind
from zoo.tuning import recompute, stochastic_depth

X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(depth: int = 2) -> tuple[ToyNet, LayerGroups]:
    torch.manual_seed(0)
    model = ToyNet(depth=depth, drop_rate=0.0)
    return model, bind(model, TOY_LAYERS)


def calls(model: nn.Module, name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What a module is given and what leaves it, as later hooks change it."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.get_submodule(name).register_forward_hook(lambda _module, args, output: seen.append((args[0], output)))
    return seen


def test_a_sample_either_skips_a_block_or_gets_its_branch_divided_by_the_chance_to_run() -> None:
    model, groups = net(depth=4)
    plain = calls(model, "blocks.1")  # sees the output before it is changed
    with stochastic_depth(groups, 0.8), torch.no_grad():
        changed = calls(model, "blocks.1")
        model.train()(X)
    (x, y), (_, mixed) = plain[0], changed[0]
    p = 0.8 * 2 / 4
    skipped = [torch.equal(one, two) for one, two in zip(mixed, x, strict=True)]
    ran = [torch.allclose(one, two) for one, two in zip(mixed, x + (y - x) / (1 - p), strict=True)]
    assert all(a != b for a, b in zip(skipped, ran, strict=True))
    assert 0 < sum(skipped) < len(X)


def test_the_chance_rises_linearly_to_the_last_block_and_the_mean_is_that_of_the_whole_network() -> None:
    model, groups = net(depth=4)
    x = torch.randn(1, 3, 8, 8).expand(4000, -1, -1, -1)
    seen = [calls(model, f"blocks.{i}") for i in range(4)]
    with stochastic_depth(groups, 0.6), torch.no_grad():
        mixed = [calls(model, f"blocks.{i}") for i in range(4)]
        model.train()(x)
    for number, (before, after) in enumerate(zip(seen, mixed, strict=True), 1):
        skipped = (after[0][1] == before[0][0]).flatten(1).all(1).float().mean()
        assert float(skipped) == pytest.approx(0.6 * number / 4, abs=0.03)
        gap = (after[0][1] - before[0][0]).mean(0) - (before[0][1] - before[0][0]).mean(0)
        assert float(gap.abs().max()) < 0.15 * float((before[0][1] - before[0][0]).abs().max())


def test_evaluation_frozen_blocks_and_what_follows_the_context_are_left_alone() -> None:
    model, groups = net()
    model.train()
    for block in model.blocks:
        block.eval()
    expected = model(X)
    with stochastic_depth(groups, 0.9):
        assert torch.equal(model(X), expected)
        trained = model.train()(X)
        assert not torch.equal(trained, model.train()(X))
    assert torch.equal(model.train()(X), model.train()(X))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_seed_fixes_what_is_skipped_and_torchs_generator_is_the_only_one_used() -> None:
    model, groups = net()
    outputs = []
    with stochastic_depth(groups, 0.5):
        for _ in range(2):
            torch.manual_seed(3)
            outputs.append(model.train()(X))
    assert torch.equal(*outputs)


def test_recomputed_blocks_give_the_same_gradients() -> None:
    plain, _ = net()
    twice = copy.deepcopy(plain)
    recompute(bind(twice, TOY_LAYERS))
    gradients = []
    for model in (plain, twice):
        torch.manual_seed(1)
        with stochastic_depth(bind(model, TOY_LAYERS), 0.5):
            model.train()(X).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *gradients))


def test_a_skipped_block_gets_no_gradient() -> None:
    model, groups = net()
    with stochastic_depth(groups, 0.999):
        torch.manual_seed(0)
        model.train()(X[:4]).sum().backward()
    assert float(model.blocks[1].conv.weight.grad.abs().max()) == 0
    assert float(model.conv1.weight.grad.abs().max()) > 0


def test_the_layers_of_a_transformer_are_blocks_and_its_embeddings_are_not() -> None:
    torch.manual_seed(0)
    model = ToyText(8, 2, False, 0.0)
    groups = bind(model, {"embeddings": "embeddings", "layer": "layers.*"})
    x = {"input_ids": torch.arange(3, 15).reshape(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.int64)}
    with stochastic_depth(groups, 0.5) as names:
        assert names == ["layers.0", "layers.1"]
        assert not torch.equal(model.train()(x), model.eval()(x))


class Embeddings(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(9, width), nn.LayerNorm(width)


def test_embeddings_do_not_count_among_the_blocks() -> None:
    model = nn.ModuleDict({"embeddings": Embeddings(4), "layers": nn.ModuleList(Block(4) for _ in range(2))})
    with stochastic_depth(bind(model, {"embeddings": "embeddings", "layer": "layers.*"}), 0.5) as names:
        assert names == ["layers.0", "layers.1"]


class Block(nn.Module):
    """Two layers beside a shortcut, behind one another in a list, as the residual blocks of transformers' ResNet are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(*(nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)) for _ in range(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x)


class Stage(nn.Module):
    """A stage that is one module with its own forward, as ConvNeXt and Swin have them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, width, 2, stride=2)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        for block in self.blocks:
            x = block(x)
        return x


class Numbered(nn.Module):
    """A stage whose only children are its blocks, as RegNet has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.b1, self.b2 = Block(width), Block(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b2(self.b1(x))


def test_the_blocks_inside_an_opaque_stage_are_found_and_not_the_layers_inside_them() -> None:
    model = nn.Sequential(Stage(4), Numbered(4))
    with stochastic_depth(bind(model, {"one": "0", "two": "1"}), 0.5) as names:
        assert names == ["0.blocks.0", "0.blocks.1", "1.b1", "1.b2"]


class Wrapped(nn.Module):
    """A block that takes its input by name and returns a tuple, or changes the shape."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.inner = nn.Linear(4, out)

    def forward(self, *, hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.inner(hidden), None


class ByName(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Wrapped(width) for width in widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x, _ = layer(hidden=x)
        return x


def test_inputs_by_name_and_tuples_are_understood() -> None:
    model = ByName(4, 4)
    x = torch.randn(8, 4)
    with stochastic_depth(bind(model, {"layer": "layers.*"}), 0.999):
        torch.manual_seed(0)
        seen = calls_by_name(model.layers[1])
        y = model.train()(x)
    assert torch.equal(y, seen[0])


def calls_by_name(module: nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    module.register_forward_pre_hook(lambda _module, _args, kwargs: seen.append(kwargs["hidden"]), with_kwargs=True)
    return seen


def test_skipping_nothing_is_an_error() -> None:
    with pytest.raises(LayerGroupError, match=r"\(none\) have no block"), stochastic_depth(net()[1][:0], 0.5):
        pass
    with pytest.raises(LayerGroupError, match="stem have no block"), stochastic_depth(net()[1][:1], 0.5):
        pass
    model = ByName(5)
    with pytest.raises(LayerGroupError, match="the shape that it is given"), stochastic_depth(bind(model, {"layer": "layers.*"}), 0.5):
        model.train()(torch.zeros(2, 4))
    assert not model._forward_hooks


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(OptionError, match="drop_path"), stochastic_depth(net()[1], rate):
        pass

"""SSF, bottleneck adapters and learned tokens: where they stand, what trains, how they are saved, and what refuses them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from tests.clean import ROOT
from tests.engine.tiny import images
from tests.select.command_line import run
from tests.tuning.adapted import FAMILIES, batch, interrupted, moved, snapshot, steps, toy
from tests.warm_process import run_warm
from zoo.errors import LayerGroupError, OptionError, SavedModelError
from zoo.registry.registry import use_registry
from zoo.saved.lora_files import save_lora
from zoo.tuning import attach_lora, detach_lora, lora_targets, merge_lora, param_groups, untrained
from zoo.tuning.efficient.kinds import KINDS, is_update
from zoo.tuning.efficient.prompts import _padded
from zoo.tuning.partial_forward import Boundary, open_boundary

pytestmark = pytest.mark.usefixtures("toys")

PLACES = {
    ("cnn", "adapter"): "layer1.0",
    ("vit", "adapter"): "blocks.0",
    ("vit", "adaptformer"): "blocks.0.mlp",
    ("vit", "prompt"): "blocks.0",
    ("vit", "prefix"): "blocks.0",
    ("convnext", "adaptformer"): "stages.0.blocks.0.mlp",
    ("bert", "adapter"): "encoder.layer.0",
    ("bert", "prompt"): "encoder.layer.0",
    ("bert", "prefix"): "encoder.layer.0",
}
REFUSED = [("cnn", "adaptformer"), ("cnn", "prompt"), ("cnn", "prefix"), ("convnext", "prompt"), ("bert", "adaptformer")]


def made(family: str, folder: Path) -> zoo.TaskModel:
    use_registry()  # with the installed plugins
    model = FAMILIES[family](folder)
    model.freeze_bn = True
    return model


@pytest.mark.parametrize(("family", "kind"), PLACES)
def test_what_cannot_be_merged_trains_alone_and_is_saved_whole_and_by_itself(family: str, kind: str, tmp_path: Path) -> None:
    model = made(family, tmp_path)
    plain, modules, x = snapshot(model), [type(module) for module in model.modules()], batch(model)
    start = model.eval()(x)
    names = attach_lora(model, model.groups, kind=kind)
    assert names[0] == PLACES[family, kind]
    changes = not torch.allclose(model(x), start, atol=1e-6)
    assert changes == (kind in ("prompt", "prefix"))
    before = snapshot(model)
    trained = steps(model, 3, lr=0.05)(x)
    moves = moved(model, before)
    assert {name for name in moves if not name.startswith("head.")} == {name for name in before if is_update(name)}
    assert not torch.allclose(trained, start, atol=1e-3)
    with pytest.raises(LayerGroupError, match=r"cannot be merged.*model\.save"):
        merge_lora(model)
    small, whole = save_lora(model, tmp_path / "small"), model.save(tmp_path / "whole")
    assert (small / "adapter_model.safetensors").stat().st_size < (whole / "model.safetensors").stat().st_size / 2
    for folder in (small, whole):
        again = zoo.load(folder)
        assert torch.allclose(again(x), trained, atol=1e-6)
        assert again.lora == model.lora
    detach_lora(model)
    assert [type(module) for module in model.modules()] == modules
    assert not moved(model.backbone, {name.removeprefix("backbone."): tensor for name, tensor in plain.items()})


def test_learned_tokens_start_as_large_as_those_that_they_stand_beside(tmp_path: Path) -> None:
    model, entered = made("bert", tmp_path), list[torch.Tensor]()
    blocks = [model.backbone.get_submodule(f"encoder.layer.{number}") for number in range(2)]
    with torch.no_grad():
        blocks[0].output.LayerNorm.weight.fill_(5.0)  # type: ignore[union-attr, operator]  # of transformers
    for block in blocks:
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    model.eval()(batch(model))
    attach_lora(model, model.groups, kind="prefix", tokens=40)
    for block, beside in zip(blocks, entered, strict=False):
        assert float(block.zoo_prompt.detach().std()) == pytest.approx(float(beside.detach().std()), rel=0.3)  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_a_decoder_whose_tokens_do_not_see_those_behind_them_is_refused(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("zoo_hf")
    use_registry()
    sizes = {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "bos_token_id": 1, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    model = zoo.get(tmp_path, weights=False).adapt(2)
    modules = [type(module) for module in model.modules()]
    with pytest.raises(LayerGroupError, match="do not attend to those behind them"):
        attach_lora(model, model.groups, kind=kind)
    assert [type(module) for module in model.modules()] == modules


@pytest.mark.parametrize(("family", "kind"), REFUSED)
def test_a_network_that_a_kind_does_not_fit_is_refused_with_one_that_fits_and_stays_as_it_was(
    family: str, kind: str, tmp_path: Path
) -> None:
    model = made(family, tmp_path)
    before = [(name, type(module)) for name, module in model.named_modules()]
    with pytest.raises(LayerGroupError, match=r"recipe='(lora|adapter)'"):
        attach_lora(model, model.groups, kind=kind)
    assert [(name, type(module)) for name, module in model.named_modules()] == before
    assert (model.lora, model.trains) == (None, "all")


@pytest.mark.parametrize("family", FAMILIES)
def test_scales_and_shifts_change_nothing_at_first_and_merge_exactly(family: str, tmp_path: Path) -> None:
    model = made(family, tmp_path)
    plain, keys, x = snapshot(model), [*model.state_dict()], batch(model)
    start = model.eval()(x)
    names = attach_lora(model, model.groups, kind="ssf")
    assert any(isinstance(plain_layer(model, name), nn.modules.batchnorm._NormBase | nn.LayerNorm) for name in names)
    assert torch.allclose(model(x), start, atol=1e-6)
    trained = steps(model, 3, lr=0.05)(x)
    assert not torch.allclose(trained, start, atol=1e-3)
    assert not untrained(model.backbone)
    folder = save_lora(model, tmp_path / "small")
    merge_lora(model)
    assert torch.allclose(model(x), trained, atol=1e-5)
    assert [*model.state_dict()] == keys
    assert all(name.endswith(("weight", "bias")) for name in moved(model, plain))
    assert torch.allclose(zoo.load(folder)(x), trained, atol=1e-5)


def plain_layer(model: zoo.TaskModel, name: str) -> nn.Module:
    return model.backbone.get_submodule(name).get_base_layer()  # type: ignore[operator]


class Activated(nn.BatchNorm2d):
    """A norm with its activation, as timm has."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


def test_a_norm_with_its_own_activation_and_a_depthwise_convolution_merge_exactly_too() -> None:
    net = nn.ModuleDict({"all": nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), Activated(8))}).eval()
    model = toy()
    model.groups = zoo.bind(net, {"all": "all"})
    model.backbone = net
    assert attach_lora(model, model.groups, kind="ssf") == ["all.0", "all.1"]
    with torch.no_grad():
        for parameter in model.groups.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(2, 4, 6, 6)
    before = net["all"](x)
    merge_lora(model)
    assert torch.allclose(net["all"](x), before, atol=1e-5)


@pytest.mark.parametrize("kind", ["ssf", "adapter"])
def test_a_run_of_it_resumes_exactly_and_is_counted_by_the_plan(kind: str, tmp_path: Path) -> None:
    options = {"recipe": kind, "lr": 0.05, "epochs": 3, "batch_size": 8, "quiet": True}
    plan = toy().plan(images(), images(12, seed=1), **{key: value for key, value in options.items() if key != "quiet"})
    counted = sum(group.trainable for group in plan.phases[-1].groups if group.name != "head")
    model = toy()
    attach_lora(model, model.groups, kind=kind)
    assert counted == sum(parameter.numel() for name, parameter in model.backbone.named_parameters() if is_update(name)) > 0
    whole, again = interrupted(tmp_path, **options)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert (again.lora is None) == KINDS[kind].merges
    finished = toy()
    finished.fit(images(), images(12, seed=1), out=tmp_path / "cut", resume=True, **options)
    assert torch.equal(finished.eval()(batch(whole)), again.eval()(batch(whole)))
    for folder in (tmp_path / "cut", tmp_path / "cut" / "lora"):
        assert torch.allclose(zoo.load(folder)(batch(whole)), again.eval()(batch(whole)), atol=1e-5)


def test_a_text_model_with_prefix_tokens_predicts_the_same_for_padded_batches_and_in_another_process(tmp_path: Path) -> None:
    model = made("bert", tmp_path)
    attach_lora(model, model.groups, kind="prefix", tokens=3)
    steps(model, 2, lr=0.05)
    x = batch(model)
    longer = {name: nn.functional.pad(tensor, (0, 4)) for name, tensor in x.items()}
    assert torch.allclose(model(longer), model(x), atol=1e-5)
    folder = model.save(tmp_path / "saved")
    torch.save((x, model(x)), tmp_path / "expected.pt")
    code = (
        "import sys, torch, zoo; x, y = torch.load(sys.argv[2]); "
        "assert torch.allclose(zoo.load(sys.argv[1])(x), y, atol=1e-6); print('equal')"
    )
    done = run_warm(code, [str(folder), str(tmp_path / "expected.pt")], env=os.environ, cwd=ROOT)
    assert done.stdout.strip() == "equal", done.stderr


def test_masks_let_everything_attend_to_learned_tokens_and_these_to_what_others_may() -> None:
    added = torch.tensor([[0.0, -9.0], [0.0, -9.0]])[None, None]
    assert torch.equal(_padded(added, 2, 1), torch.tensor([[0.0, -9.0, 0.0]]).expand(1, 1, 3, 3))
    marked = torch.tensor([[1, 0]])
    assert torch.equal(_padded(marked, 2, 2), torch.tensor([[1, 0, 1, 1]]))
    assert _padded(added, 5, 1) is added


def test_a_frozen_prefix_keeps_no_tokens_that_train(tmp_path: Path) -> None:
    model = made("vit", tmp_path)
    model.freeze(2)
    names = attach_lora(model, model.groups[2:], kind="prompt")
    before = snapshot(model)
    assert moved(steps(model), before) >= {f"backbone.{names[0]}.zoo_prompt"}
    start = model.groups.names.index(model.groups[2].name)
    assert start == 2
    assert names[0].startswith(model.groups[2].members[0].rpartition(".")[0])


def test_a_saved_model_with_adapters_is_no_backbone_for_another_task_and_takes_no_second_update(tmp_path: Path) -> None:
    model = toy()
    attach_lora(model, model.groups, kind="adapter", width=2)
    folder = model.save(tmp_path / "saved")
    with pytest.raises(SavedModelError, match="bottleneck adapters, which other tasks do not take over"):
        zoo.get(folder)
    again = zoo.load(folder)
    with pytest.raises(OptionError, match=r"detach_lora\(model\)"):
        again.fit(images(), False, recipe="lora", quiet=True, out=tmp_path / "run")
    again.fit(images(), False, recipe="full", epochs=1, quiet=True, out=tmp_path / "run")
    assert torch.allclose(zoo.load(tmp_path / "run")(batch(again)), again.eval()(batch(again)), atol=1e-6)


def test_options_of_another_kind_are_refused_and_factors_are_not_decayed() -> None:
    with pytest.raises(OptionError, match=r"rank: bottleneck adapters has none|rank: .* has none") as told:
        attach_lora(toy(), toy().groups, kind="adapter", rank=4, tokens=3, width=0)
    assert str(told.value).count("\n  - ") == 3
    with pytest.raises(OptionError, match="adapter_width: trains='ssf' has no such option"):
        toy().fit(images(), False, recipe="ssf", adapter_width=4, quiet=True)
    with pytest.raises(OptionError, match="stands beside blocks"):
        lora_targets(toy().groups, "adapter")
    model = toy()
    attach_lora(model, model.groups, kind="ssf")
    decayed = [
        name
        for part in param_groups(model.groups, model.head, lr=1.0, weight_decay=0.1)
        if part["weight_decay"]
        for name in part["param_names"]
    ]
    assert not [name for name in decayed if is_update(name)]


def test_tokens_of_the_first_block_that_trains_are_added_behind_the_stored_activations(tmp_path: Path) -> None:
    model = made("vit", tmp_path)
    model.freeze(2)
    (first, *_) = attach_lora(model, model.groups[2:], kind="prefix")
    x = batch(model.eval())
    boundary = open_boundary(model.groups, 2, x)
    assert isinstance(boundary, Boundary), boundary
    stored = boundary.capture(x)
    model.backbone.get_parameter(f"{first}.zoo_prompt").data.mul_(50)
    output = boundary.replay(x, stored)
    assert torch.allclose(output, model.backbone(x), atol=1e-6)
    output.square().sum().backward()
    assert model.backbone.get_parameter(f"{first}.zoo_prompt").grad.any()


def test_ssf_beside_statistics_that_move_is_opened_by_itself(tmp_path: Path) -> None:
    model = toy()
    model.freeze_bn = False
    attach_lora(model, model.groups, kind="ssf")
    steps(model, 3)
    x = batch(model)
    assert torch.allclose(zoo.load(save_lora(model, tmp_path / "small"))(x), model.eval()(x), atol=1e-5)


def test_show_says_what_a_saved_model_has_beside_its_backbone_and_its_own_files_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy()
    attach_lora(model, model.groups, kind="adapter", width=2)
    folder = model.save(tmp_path / "saved")
    assert run("show", str(folder)) == 0
    assert "adapter, which stays with this task" in capsys.readouterr().out
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "zoo.json").write_text("{}")
    assert run("predict", str(tmp_path / "alone"), str(tmp_path)) == 1
    assert "which zoo.load opens in Python; give the folder of the run above it" in capsys.readouterr().err


class SequenceBlock(nn.Module):
    """A residual block whose MLP is a plain sequence, as in open_clip and torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(self.norm(x))


class Gate(nn.Sequential):
    """The gate of squeeze-and-excitation, which is a sequence of two linear layers too."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Sigmoid())


class GatedBlock(SequenceBlock):
    """The block with a gate behind its MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.mlp(self.norm(x))
        return x + found * self.gate(found.mean(1, keepdim=True))


class SequenceNet(nn.Module):
    """Two such blocks, one with a gate, and a projection that looks like an MLP and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 8, 8), nn.ModuleList([SequenceBlock(), GatedBlock()])
        self.proj = nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.proj(tokens)  # type: ignore[no-any-return]  # of a module


def test_a_bottleneck_stands_beside_an_mlp_that_is_a_sequence_of_layers() -> None:
    layers = {"stem": ["stem"], "block": ["blocks.*"], "proj": ["proj"]}
    model = zoo.wrap(SequenceNet(), inputs=zoo.Image(size=16), layers=layers, features=zoo.Features(dim=8, layout="BND")).adapt(2)
    mlp, x = model.backbone.get_submodule("blocks.0.mlp"), torch.randn(3, 4, 8)
    before = mlp(x)
    assert attach_lora(model, model.groups, kind="adaptformer", width=4) == ["blocks.0.mlp", "blocks.1.mlp"]
    adapter = mlp.zoo_adapter
    assert torch.equal(mlp(x), before)
    with torch.no_grad():
        adapter.up.weight.normal_()  # type: ignore[union-attr, operator]  # of a module
    torch.testing.assert_close(mlp(x), before + adapter(x))  # type: ignore[operator]  # likewise
    detach_lora(model)
    assert type(mlp) is nn.Sequential
    assert torch.equal(mlp(x), before)

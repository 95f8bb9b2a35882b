"""LoRA sits at layers chosen by exact name, trains alone, and merges into equal logits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from tests.tuning.adapted import FAMILIES, batch, moved, snapshot, steps, toy, vit
from zoo.errors import LayerGroupError, MissingExtraError, OptionError, TrainingError
from zoo.tuning import attach_lora, detach_lora, lora_targets, merge_lora, untrained

pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("toys")

FAMILY = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def model(family: str, tmp_path: Path) -> zoo.TaskModel:
    from zoo.registry.registry import use_registry

    use_registry()  # with the installed plugins
    return FAMILIES[family](tmp_path)


@FAMILY
def test_attaching_changes_no_logit_and_leaves_the_groups_a_partition(model: zoo.TaskModel) -> None:
    x, groups = batch(model), model.groups
    before, owners = model.eval()(x), {name: group.name for group in groups for name, _ in group.modules()}
    names = attach_lora(model, groups, rank=2)
    assert torch.allclose(model(x), before, atol=1e-6)
    assert zoo.bind(model.backbone, model.spec.layers).names == groups.names
    held = {name: group.name for group in groups for name, _ in group.named_parameters() if ".lora_" in name}
    assert len(held) == 2 * len(names)
    for name, group in held.items():
        assert any(name.startswith(member) and owners[member] == group for member in owners)


@FAMILY
def test_two_steps_move_lora_and_the_head_and_no_weight_of_the_backbone(model: zoo.TaskModel) -> None:
    names = attach_lora(model, model.groups, rank=2)
    model.freeze_bn = True
    before = snapshot(model)
    steps(model)
    still = [name for name, parameter in model.backbone.named_parameters() if parameter.grad is not None and ".lora_" not in name]
    assert not still
    moves = moved(model, before)
    assert moves == {name for name in before if name.startswith("head.") or ".lora_" in name}
    assert len(moves) == 2 * len(names) + len(list(model.head.parameters()))
    assert not untrained(model.backbone)


@FAMILY
def test_merging_keeps_the_logits_and_brings_the_plain_modules_back(model: zoo.TaskModel) -> None:
    modules = [(name, type(module)) for name, module in model.named_modules()]
    plain = snapshot(model)
    names = attach_lora(model, model.groups, rank=2)
    model.freeze_bn = True
    x = batch(model)
    trained = steps(model, lr=0.05)(x)
    merge_lora(model)
    assert torch.allclose(model(x), trained, atol=1e-5)
    assert [(name, type(module)) for name, module in model.named_modules()] == modules
    changed = moved(model, plain)
    assert {name for name in changed if name.startswith("backbone.")} == {f"backbone.{name}.weight" for name in names}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (model.lora, model.trains) == (None, "all")


def test_a_frozen_prefix_freezes_its_lora_as_well() -> None:
    model = toy()
    attach_lora(model, model.groups, rank=2)
    model.freeze("stage.0")
    before = snapshot(model)
    names = moved(steps(model), before)
    assert {name for name in names if ".lora_" in name} == {f"backbone.blocks.1.conv.lora_{side}.default.weight" for side in "AB"}
    model.freeze(len(model.groups))
    before = snapshot(model)
    assert {name.partition(".")[0] for name in moved(steps(model), before)} == {"head"}


def test_lora_sits_in_the_groups_that_were_asked_for_only() -> None:
    model = toy()
    assert attach_lora(model, model.groups[1:2]) == ["blocks.0.conv"]
    with pytest.raises(LayerGroupError, match=r"trains='lora' selects no parameter of the groups stage\.1"):
        model.freeze("stage.0")
    assert model.frozen == 0


def test_lora_in_frozen_groups_only_is_refused_and_leaves_the_model_as_it_was() -> None:
    model = toy().freeze(1)
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(LayerGroupError, match="selects no parameter"):
        attach_lora(model, model.groups[:1])
    assert [name for name, _ in model.named_modules()] == names
    assert (model.lora, model.trains, model.frozen) == (None, "all", 1)


def test_values_come_from_the_seed_and_the_random_state_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        model = toy()
        attach_lora(model, model.groups, rank=2, seed=seed)
        drawn.append(dict(model.named_parameters())["backbone.conv1.lora_A.default.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_layer_that_gives_query_key_and_value_is_one_target(tmp_path: Path) -> None:
    from zoo.registry.registry import use_registry

    use_registry()
    model = vit(tmp_path)
    assert [name for name in attach_lora(model, model.groups[1:2], rank=2) if "attn" in name] == [
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
    ]
    update = model.backbone.get_submodule("blocks.0.attn.qkv").lora_B["default"].weight
    assert update.shape == (3 * model.backbone.embed_dim, 2)
    steps(model)
    assert all(part.any() for part in update.chunk(3))  # query, key and value alike


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.pad(x, [self.conv.kernel_size[0] // 2] * 4))


def test_a_network_that_asks_a_layer_for_its_sizes_gets_them() -> None:
    model = toy()
    model.groups = zoo.bind(Padded(), {"all": "conv"})
    model.backbone = model.groups.model
    before = model.eval()(batch(model))
    attach_lora(model, model.groups)
    assert torch.allclose(model(batch(model)), before, atol=1e-6)


def test_detaching_takes_lora_away_with_what_it_learned() -> None:
    model = toy()
    model.freeze_bn = True
    plain, x = snapshot(model.backbone), batch(model)
    attach_lora(model, model.groups, rank=2)
    steps(model)
    detach_lora(model)
    assert not moved(model.backbone, plain)
    assert snapshot(model.backbone).keys() == plain.keys()
    assert model(x).requires_grad
    detach_lora(model)


def test_dropout_of_lora_is_off_in_eval_mode_and_in_frozen_groups() -> None:
    model = toy(drop_rate=0.0)
    attach_lora(model, model.groups, rank=2, dropout=0.5)
    model.freeze_bn = True
    x = batch(model)
    steps(model, lr=0.1)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))
    model.freeze(len(model.groups))
    assert torch.equal(model.train()(x), model(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.Linear(4, 4)])
        self.attention = nn.MultiheadAttention(4, 2)


LAYERS = {"stem": "depthwise", "block": "blocks.*", "attention": "attention"}


def groups() -> zoo.LayerGroups:
    with torch.device("meta"):
        return zoo.bind(Net(), LAYERS)


def test_targets_are_linear_layers_and_ungrouped_convolutions_by_exact_name() -> None:
    assert lora_targets(groups()) == ["blocks.0.0", "blocks.1"]
    assert lora_targets(groups()[2:3]) == ["blocks.1"]


def test_a_slice_without_a_target_is_an_error_that_names_what_was_refused() -> None:
    with pytest.raises(LayerGroupError, match=r"stem can take LoRA: grouped convolutions take none \(depthwise\)"):
        lora_targets(groups()[:1])
    with pytest.raises(LayerGroupError, match=r"attention can take LoRA: what reads .* \(attention\)"):
        lora_targets(groups()[3:])
    with pytest.raises(LayerGroupError, match=r"\(none\)"):
        lora_targets(groups()[:0])


class OwnConv(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), None)


class Biased(nn.Module):
    """As the attention of BEiT in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.q_bias = nn.Linear(4, 12, bias=False), nn.Parameter(torch.zeros(4))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.out.weight = self.embedding.weight


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: nn.Conv2d(4, 4, 3, dilation=2), "dilated"),
        (lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), "padding with other than zeros"),
        (lambda: nn.Conv3d(4, 4, 1, stride=2), "one voxel take none, as PEFT cannot merge"),
        (lambda: OwnConv(4, 4, 3), "a computation of their own"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "a computation of their own"),
        (Biased, "without calling it"),
        (Tied, "used in two places"),
        (lambda: nn.TransformerEncoderLayer(4, 2, 8), "without calling them"),
    ],
)
def test_layers_that_lora_would_get_wrong_are_refused(layer: object, why: str) -> None:
    net = nn.ModuleDict({"all": layer()})  # type: ignore[operator]
    with pytest.raises(LayerGroupError, match=why):
        lora_targets(zoo.bind(net, {"all": "all"}))


def test_the_transposed_linear_layers_of_transformers_are_targets() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    net = nn.ModuleDict({"fc": pytorch_utils.Conv1D(8, 4)})
    assert lora_targets(zoo.bind(net, {"all": "fc"})) == ["fc"]


class Nested(nn.Module):
    """A backbone in which a name is the end of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.backbone = nn.ModuleDict({"fc": nn.Linear(4, 4)})


def test_a_name_that_is_the_end_of_another_one_is_not_mixed_up_with_it() -> None:
    model = toy()
    model.groups = zoo.bind(Nested(), {"first": "fc", "second": "backbone"})
    model.backbone = model.groups.model
    assert attach_lora(model, model.groups[:1]) == ["fc"]
    assert type(model.backbone.backbone["fc"]) is nn.Linear


def test_all_faults_of_the_options_are_told_at_once() -> None:
    model = toy()
    attach_lora(model, model.groups)
    with pytest.raises(OptionError) as error:
        attach_lora(model, model.groups, rank=0, alpha=0.0, dropout=1.0)
    assert str(error.value).count("\n  - ") == 4
    assert "rank=0" in str(error.value)
    assert "has LoRA already" in str(error.value)


def test_merging_without_lora_or_with_broken_values_is_an_error_that_changes_nothing() -> None:
    model = toy()
    with pytest.raises(LayerGroupError, match="attach it first"):
        merge_lora(model)
    attach_lora(model, model.groups)
    with torch.no_grad():
        model.backbone.conv1.lora_A["default"].weight[0] = float("nan")
    with pytest.raises(TrainingError, match="conv1"):
        merge_lora(model)
    assert model.lora is not None


def test_layers_that_learned_nothing_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model = toy()
    attach_lora(model, model.groups)
    model.freeze("stage.0")
    steps(model)
    merge_lora(model)
    assert "2 layers (conv1, blocks.0.conv)" in caplog.text


def test_without_peft_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    model = toy()
    with pytest.raises(MissingExtraError, match=r"pip install peft"):
        attach_lora(model, model.groups)
    assert model.lora is None


def test_a_model_with_lora_is_not_saved_as_a_plain_one(tmp_path: Path) -> None:
    model = toy()
    attach_lora(model, model.groups)
    with pytest.raises(zoo.ZooError, match="merge it first"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()

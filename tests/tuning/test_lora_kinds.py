"""DoRA, LoHa, LoKr, AdaLoRA and (IA)^3 start where the model is, train alone, merge, resume and reopen, on every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from tests.engine.tiny import images
from tests.tuning.adapted import FAMILIES, batch, interrupted, moved, snapshot, steps, toy
from zoo.errors import LayerGroupError, OptionError
from zoo.registry.registry import use_registry
from zoo.saved.lora_files import save_lora
from zoo.tuning import attach_lora, detach_lora, lora_targets, merge_lora, param_groups, untrained
from zoo.tuning.efficient.kinds import KINDS, is_update

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("toys")

KIND = pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if name != "lora" and kind.config])
STARTING = pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if name != "lora" and kind.config and kind.start])
FAMILY = pytest.mark.parametrize("family", FAMILIES)


def sized(kind: str) -> dict[str, int]:
    return {"rank": 2} if "rank" in KINDS[kind].options else {}


@KIND
@FAMILY
def test_it_changes_nothing_at_first_then_trains_alone_and_merges(family: str, kind: str, tmp_path: Path) -> None:
    use_registry()  # with the installed plugins
    model = FAMILIES[family](tmp_path)
    model.freeze_bn = True
    modules, x = [(name, type(module)) for name, module in model.named_modules()], batch(model)
    plain, start = snapshot(model), model.eval()(x)
    names = attach_lora(model, model.groups, kind=kind, **sized(kind))
    assert names == lora_targets(FAMILIES[family](tmp_path).groups, kind)
    assert torch.allclose(model(x), start, atol=1e-5)
    before = snapshot(model)
    trained = steps(model, 3, lr=0.02)(x)
    assert not torch.allclose(trained, start, atol=1e-3)
    moves = moved(model, before)
    assert all(name.startswith("head.") or is_update(name) for name in moves)
    assert {name.removeprefix("backbone.").partition(f".{KINDS[kind].mark}")[0] for name in moves if is_update(name)} == {*names}
    assert not untrained(model.backbone)
    folder = save_lora(model, tmp_path / "update")
    merge_lora(model)
    assert torch.allclose(model(x), trained, atol=1e-4)
    assert [(name, type(module)) for name, module in model.named_modules()] == modules
    touched = {f"backbone.{name}.{part}" for name in names for part in ("weight", "bias")}
    changed = {name for name in moved(model, plain) if name.startswith("backbone.")}
    assert {f"backbone.{name}.weight" for name in names} <= changed <= touched
    assert torch.allclose(zoo.load(folder)(x), trained, atol=1e-4)
    opened = peft.PeftModel.from_pretrained(FAMILIES[family](tmp_path), folder).eval()
    assert torch.allclose(opened(x), trained, atol=1e-5)


@STARTING
def test_layers_without_a_change_are_named_and_detaching_brings_the_values_back(kind: str) -> None:
    model = toy()
    model.freeze_bn = True
    plain = snapshot(model.backbone)
    names = attach_lora(model, model.groups, kind=kind, **sized(kind))
    assert untrained(model.backbone) == names
    model.freeze("stage.0")
    steps(model)
    assert untrained(model.backbone) == names[:2]
    detach_lora(model)
    assert not moved(model.backbone, plain)


@KIND
def test_a_run_of_it_resumes_exactly_and_leaves_a_plain_model(kind: str, tmp_path: Path) -> None:
    options = {"recipe": kind, "lr": 0.05, "epochs": 3, "batch_size": 8, "quiet": True}
    whole, again = interrupted(tmp_path, **options)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    x = batch(whole)
    assert torch.equal(zoo.load(tmp_path / "cut")(x), again.eval()(x))
    assert torch.allclose(zoo.load(tmp_path / "cut" / "lora")(x), again(x), atol=1e-5)
    assert (again.lora, again.trains) == (None, "all")


@pytest.mark.parametrize(("kind", "mark", "others"), [("ia3", "ia3_l", 0), ("dora", "magnitude", 6)])
def test_factors_and_norms_of_outputs_are_not_decayed(kind: str, mark: str, others: int) -> None:
    model = toy()
    attach_lora(model, model.groups, kind=kind)
    parts = [part for part in param_groups(model.groups, model.head, lr=1e-3, weight_decay=0.1) if part["group"] != "head"]
    decayed, kept = (
        [name for part in parts if bool(part["weight_decay"]) is decay for name in part["param_names"] if is_update(name)]
        for decay in (True, False)
    )
    assert len(decayed) == others
    assert len(kept) == 3
    assert all(mark in name for name in kept)


def test_a_layer_that_a_kind_has_no_form_for_is_refused_with_what_has_one() -> None:
    groups = zoo.bind(nn.ModuleDict({"conv": nn.Conv3d(2, 2, 3)}), {"all": "conv"})
    assert lora_targets(groups, "dora") == ["conv"]
    for kind in ("loha", "lokr"):
        with pytest.raises(LayerGroupError, match=rf"{KINDS[kind].title} has no form for Conv3d, and recipe='lora' has \(conv\)"):
            lora_targets(groups, kind)


def test_options_that_a_kind_has_not_are_refused_with_the_rest() -> None:
    with pytest.raises(OptionError) as told:
        attach_lora(toy(), toy().groups, kind="ia3", rank=4, alpha=0.0, dropout=0.1)
    assert str(told.value).count("\n  - ") == 4
    with pytest.raises(OptionError, match=r"kind='ai3' is none of .*did you mean 'ia3'"):
        attach_lora(toy(), toy().groups, kind="ai3")
    with pytest.raises(OptionError, match=r"lora_rank: trains='ia3' has no such option; take recipe='lora' or"):
        toy().fit(images(), False, recipe="ia3", lora_rank=4, quiet=True)

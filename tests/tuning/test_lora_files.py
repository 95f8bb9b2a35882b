"""LoRA saved by itself opens in PEFT on the base model and in zoo alone, with equal logits, and on no other model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

import zoo
from tests.engine.tiny import images
from tests.tuning.adapted import FAMILIES, batch, moved, snapshot, steps, toy
from zoo.errors import LayerGroupError, OutputExistsError, SavedModelError, WeightsNotFoundError
from zoo.registry.registry import Registry, use_registry
from zoo.saved.lora_files import save_lora
from zoo.tuning import attach_lora, merge_lora

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("toys")


def trained(model: zoo.TaskModel) -> zoo.TaskModel:
    attach_lora(model, model.groups, rank=2, alpha=6.0, dropout=0.1)
    return steps(model, 3, lr=0.02)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("freeze_bn", [False, True])
def test_peft_and_zoo_open_it_with_equal_logits(family: str, freeze_bn: bool, tmp_path: Path) -> None:
    use_registry()  # with the installed plugins
    model = FAMILIES[family](tmp_path)
    model.freeze_bn = freeze_bn
    start = model.eval()(batch(model))
    logits = trained(model)(batch(model))
    assert not torch.allclose(logits, start, atol=1e-3)
    folder = save_lora(model, tmp_path / "lora")
    opened = peft.PeftModel.from_pretrained(FAMILIES[family](tmp_path), folder).eval()
    assert torch.allclose(opened(batch(model)), logits, atol=1e-6)
    loaded = zoo.load(folder)
    assert torch.allclose(loaded(batch(model)), logits, atol=1e-5)
    assert (loaded.lora, loaded.training, loaded.groups.names) == (None, False, model.groups.names)
    merge_lora(model)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_folder_is_small_and_holds_no_pickle(tmp_path: Path) -> None:
    model = trained(toy())
    folder = save_lora(model, tmp_path / "lora")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors", "zoo.json"]
    assert "holds LoRA and the head, not the backbone" in (folder / "README.md").read_text()
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    assert "base_model.model.backbone.conv1.lora_A.weight" in tensors
    assert "base_model.model.head.linear.weight" in tensors
    assert "base_model.model.backbone.bn1.running_mean" in tensors
    assert not [name for name in tensors if name.endswith("conv1.weight")]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 2, 6.0, 0.1)
    assert config["target_modules"] == ["backbone.blocks.0.conv", "backbone.blocks.1.conv", "backbone.conv1"]
    assert config["modules_to_save"][0] == "head"


def test_norms_that_stood_still_are_not_saved(tmp_path: Path) -> None:
    model = toy()
    model.freeze_bn = True
    folder = save_lora(trained(model), tmp_path / "lora")
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 3 * 2 + 2


@pytest.mark.parametrize("options", [{"in_chans": 1}, {"head": "mlp", "hidden": 8}, {"pool": "max"}])
def test_other_heads_and_inputs_come_back(options: dict[str, object], tmp_path: Path) -> None:
    model = trained(zoo.get("toy/net", weights=False).adapt(2, labels=["ant", "bee"], **options))
    loaded = zoo.load(save_lora(model, tmp_path / "lora"))
    assert torch.allclose(loaded(batch(model)), model(batch(model)), atol=1e-5)
    assert (loaded.labels, loaded.inputs, loaded.head_name) == (model.labels, model.inputs, model.head_name)


def test_a_text_model_comes_back_with_its_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("zoo_hf")
    from tests.tuning.adapted import bert

    use_registry()
    bert(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (tmp_path / "tiny-bert" / "vocab.txt").write_text("\n".join(words))
    model = trained(bert(tmp_path))
    model.labels = ("no", "so", "yes")
    folder = save_lora(model, tmp_path / "lora")
    shutil.rmtree(tmp_path / "tiny-bert")
    loaded = zoo.load(folder)
    assert (loaded.predict_proba(["good film", "bad"]) == zoo.load(folder).predict_proba(["good film", "bad"])).all()
    assert Path(loaded.inputs.files) == folder.resolve()


def test_lora_on_a_saved_model_finds_it_again_and_refuses_another_one(tmp_path: Path) -> None:
    base = steps(toy()).save(tmp_path / "base")
    model = trained(zoo.get(base).adapt(2))
    folder = save_lora(model, tmp_path / "lora")
    assert torch.allclose(zoo.load(folder)(batch(model)), model(batch(model)), atol=1e-5)
    steps(toy(), 1).save(base, overwrite=True)
    with pytest.raises(SavedModelError, match=r"trained on other base weights than .*base"):
        zoo.load(folder)
    shutil.rmtree(base)
    with pytest.raises(WeightsNotFoundError):
        zoo.load(folder)


def test_lora_on_a_weights_file_finds_it_again(tmp_path: Path) -> None:
    safetensors.torch.save_file(steps(toy()).backbone.state_dict(), tmp_path / "mine.safetensors")
    model = trained(zoo.get("toy/net", weights=tmp_path / "mine.safetensors").adapt(2))
    folder = save_lora(model, tmp_path / "lora")
    assert torch.allclose(zoo.load(folder)(batch(model)), model(batch(model)), atol=1e-5)


def test_lora_on_values_that_nothing_gives_again_is_refused(tmp_path: Path) -> None:
    model = steps(toy())
    folder = save_lora(trained(model), tmp_path / "lora")
    with pytest.raises(SavedModelError, match=r"random initialisation with seed 0 .*PeftModel"):
        zoo.load(folder)


def test_damage_is_told_by_name(tmp_path: Path) -> None:
    folder = save_lora(trained(toy()), tmp_path / "lora")
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SavedModelError, match=r"adapter_model\.safetensors.*sha256 differs"):
        zoo.load(folder)
    file.unlink()
    with pytest.raises(SavedModelError, match=r"has no adapter_model\.safetensors"):
        zoo.load(folder)
    (folder / "zoo.json").write_text('{"lora": {"rank": 0}}')
    with pytest.raises(SavedModelError, match=r"zoo\.json"):
        zoo.load(folder)
    (folder / "zoo.json").unlink()
    with pytest.raises(SavedModelError, match=r"without zoo\.json.*PeftModel"):
        zoo.load(folder)


def test_nothing_is_overwritten_unasked_and_there_must_be_lora(tmp_path: Path, toys: Registry) -> None:
    with pytest.raises(LayerGroupError, match="no LoRA to save"):
        save_lora(toy(), tmp_path / "lora")
    model = trained(toy())
    folder = save_lora(model, tmp_path / "lora")
    with pytest.raises(OutputExistsError):
        save_lora(model, folder)
    assert save_lora(steps(model), folder, overwrite=True) == folder
    assert torch.allclose(zoo.load(folder)(batch(model)), model(batch(model)), atol=1e-5)


def test_a_run_leaves_the_merged_model_and_lora_by_itself(tmp_path: Path) -> None:
    model = toy()
    options = {"lora_rank": 2, "lora_alpha": 4.0, "lr": 0.05, "epochs": 3, "ema": 0.5}
    run = model.fit(images(), images(12, seed=1), recipe="lora", out=tmp_path / "run", quiet=True, **options)
    merged, alone = zoo.load(run.dir), zoo.load(run.dir / "lora")
    assert torch.allclose(alone(batch(model)), merged(batch(model)), atol=1e-5)
    assert torch.equal(model.eval()(batch(model)), merged(batch(model)))
    opened = peft.PeftModel.from_pretrained(toy(), run.dir / "lora").eval()
    assert torch.allclose(opened(batch(model)), merged(batch(model)), atol=1e-5)
    assert (opened.peft_config["default"].r, opened.peft_config["default"].lora_alpha) == (2, 4.0)
    assert (model.lora, model.trains) == (None, "all")


def test_a_run_of_biases_moves_no_weight(tmp_path: Path) -> None:
    model = toy()
    before = snapshot(model.backbone)
    model.fit(images(), False, recipe="bitfit", lr=0.05, epochs=3, out=tmp_path / "run", quiet=True)
    names = {name for name in moved(model.backbone, before) if "running" not in name}
    assert names == {"bn1.bias", "blocks.0.bn.bias", "blocks.1.bn.bias"}

"""Families that nobody declared, and families that others declare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo_hf
from safetensors.torch import load_file, save_file
from tiny import BERT, ONE_FILE, PLAIN, batch, one_file, words
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from zoo_hf import declared_families
from zoo_hf.family import NORM

import zoo
from tests.warm_process import run_warm
from zoo.testing import check_backbone

GEMMA = {**BERT, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
SMALL: dict[str, dict[str, Any]] = {
    "bert-generation": BERT,
    "bloom": {"vocab_size": 60, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "gemma2": GEMMA,
    "ibert": BERT,
    "mixtral": {**GEMMA, "num_local_experts": 4},
}
IMAGES: dict[str, dict[str, Any]] = {
    "data2vec-vision": {**PLAIN, "use_relative_position_bias": True},
    "vit_msn": PLAIN,
}


def made(kind: str, path: Path, auto: Any = AutoModel, **changes: Any) -> Path:
    """Write a tiny model of a family that the plugin does not declare."""
    folder = path / f"tiny-{kind}"
    torch.manual_seed(0)
    auto.from_config(AutoConfig.for_model(kind, **{**SMALL.get(kind, {} if changes else BERT), **changes})).save_pretrained(folder)
    words(folder)
    if kind in ONE_FILE:
        one_file(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.sweep) for kind in SMALL])
def test_a_model_that_transformers_knows_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    assert check_backbone(str(made(kind, tmp_path))) >= 10


@pytest.mark.parametrize("kind", SMALL)
def test_its_features_are_those_of_the_home_library(kind: str, tmp_path: Path) -> None:
    path, given = made(kind, tmp_path), batch()
    with torch.no_grad():
        told = AutoModel.from_pretrained(path).eval()(**given).last_hidden_state
    backbone = zoo.get(path)
    assert backbone.groups.names == ("embeddings", "layer.0", "layer.1")
    assert torch.equal(backbone.features(given), told)
    assert backbone.spec.features.pool == "avg"


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.sweep) for kind in IMAGES])
def test_a_model_of_images_that_transformers_knows_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    assert check_backbone(str(made(kind, tmp_path, **IMAGES[kind]))) >= 10


@pytest.mark.parametrize("kind", IMAGES)
def test_features_of_images_are_those_of_the_home_library(kind: str, tmp_path: Path) -> None:
    path, x = made(kind, tmp_path, **IMAGES[kind]), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        told = AutoModel.from_pretrained(path).eval()(x).last_hidden_state
    backbone = zoo.get(path)
    assert backbone.groups.names == ("embeddings", "layer.0", "layer.1")
    assert torch.equal(backbone.features(x), told)
    assert backbone.spec.features == zoo.Features(dim=16, layout="BND", prefix_tokens=1)
    assert backbone.features(torch.randn(1, 3, 48, 48)).shape == (1, 37, 16)


def test_a_head_is_left_out_and_a_further_tensor_is_named(tmp_path: Path) -> None:
    path = made("gemma2", tmp_path, AutoModelForCausalLM)
    assert zoo.get(path).build()
    save_file({**load_file(path / "model.safetensors"), "model.layers.0.adapter.weight": torch.ones(4)}, path / "model.safetensors")
    with pytest.raises(zoo.ZooError, match=r"layers\.0\.adapter\.weight"):
        zoo.get(path).build()


def test_a_saved_model_returns_without_its_folder(tmp_path: Path) -> None:
    model = zoo.get(made("gemma2", tmp_path)).adapt(2).eval()
    loaded = zoo.load(model.save(tmp_path / "saved"))
    with torch.no_grad():
        assert torch.equal(loaded(batch()), model(batch()))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bart", "encoder with a decoder"),
        ("blip", "several models"),
        ("wav2vec2", "reads input_values"),
        ("poolformer", "tells no hidden_size"),
        ("donut-swin", "one vector per patch"),
        ("xlstm", "no attention mask"),
        ("bertt", "did you mean 'bert'?"),
        ("new-thing", "none that transformers"),
    ],
)
def test_what_the_rule_cannot_take_is_refused_with_the_reason(kind: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(zoo.ZooError) as caught:
        zoo.get(tmp_path)
    assert reason in str(caught.value)
    assert "zoo_hf.register" in str(caught.value) or "xlm-roberta" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("biogpt", BERT, "dropout outside its layers"),
        ("chinese_clip_vision_model", PLAIN, "post_layernorm changes nothing"),
        ("flaubert", {"vocab_size": 60, "emb_dim": 16, "n_layers": 2, "n_heads": 2}, "4 lists of layers"),
        ("nystromformer", {**BERT, "num_landmarks": 64}, "padding changes"),
        ("openai-gpt", {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2}, "share the module"),
    ],
)
def test_what_cannot_be_proved_is_refused_when_it_is_built(kind: str, config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **config}))
    with pytest.raises(zoo.ZooError, match=reason):
        zoo.get(tmp_path, weights=False).build()


def test_dropout_outside_the_modules_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "biogpt", **BERT}))
    assert zoo.get(tmp_path, weights=False, hidden_dropout_prob=0.0).build()


def test_a_family_of_ones_own_is_a_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared_families, "FAMILIES", dict(declared_families.FAMILIES))
    head = zoo_hf.Home(head="linear", keys={"head.linear": "classifier"}, pool="pooler")
    layers = {"embeddings": "embeddings", "layer": "encoder.layer.*", "pooler": "pooler?"}
    own = zoo_hf.Family(layers=layers, pooler="default", sequence=head)
    zoo_hf.register("roc_bert", own)
    zoo_hf.register("roc_bert", own)  # the same again is no fault: a module may be imported anew
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roc_bert", **BERT}))
    backbone = zoo.get(tmp_path, weights=False)
    assert backbone.groups.names == ("embeddings", "layer.0", "layer.1", "pooler")
    assert own.names == NORM
    with pytest.raises(zoo.ZooError, match="already"):
        zoo_hf.register("roberta", own)
    with pytest.raises(zoo.ZooError, match=r"zoo_hf\.Family"):
        zoo_hf.register("other", {"layers": layers})  # type: ignore[arg-type]  # the mistake that is tested


def test_a_family_without_a_model_in_transformers_is_refused_when_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared_families, "FAMILIES", dict(declared_families.FAMILIES))
    zoo_hf.register("acme", declared_families.FAMILIES["bert"])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "acme", **BERT}))
    with pytest.raises(zoo.OptionError, match="'acme' that AutoModel could open"):
        zoo.get(tmp_path, weights=False).build()


PACKAGE = """
from zoo_hf import Family
FAMILIES = {"roc_bert": Family(layers={"first": "embeddings", "layer": "encoder.layer.*", "pooler": "pooler?"}, pooler="default")}
"""


def test_an_installed_package_adds_families_and_a_faulty_one_harms_none(tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(PACKAGE)
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo_hf.families]\nacme = acme:FAMILIES\nbroken = acme:NOTHING\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "roc_bert", **BERT}))
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); "
        f"sys.path.insert(0, {str(tmp_path)!r}); import zoo, zoo_hf; assert 'acme' not in sys.modules; "
        f"print(zoo.get({str(tmp_path / 'model')!r}, weights=False).groups.names); print(zoo.get('hf/roc_bert').spec.name)"
    )
    done = run_warm(code, [], env=os.environ, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "('first', 'layer.0', 'layer.1', 'pooler')" in done.stdout
    assert "acme (acme:NOTHING)" in done.stderr


def test_importing_the_plugin_imports_no_model_library() -> None:
    code = "import sys, zoo_hf; zoo_hf.Family; zoo_hf.Home; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

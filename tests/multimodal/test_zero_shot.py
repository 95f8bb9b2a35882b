"""Zero-shot heads from the names of classes: right before any training, saved as any model, and refused where no text can be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import zoo
from tests.select.command_line import run
from tests.toy_pair import COLOURS, TEMPLATES, coloured, pair_spec
from zoo.errors import CoverageError, DeclarationError, OptionError
from zoo.models.backbone import Backbone
from zoo.models.pairs.prompts import TEMPLATES as SETS
from zoo.models.pairs.zero_shot import class_embeddings, tokens_of
from zoo.plugins.listing_file import Listed, decode, encode
from zoo.plugins.spec_list import SpecList

NAMES = list(COLOURS)


def test_the_names_of_classes_are_enough(encoder: Backbone) -> None:
    model = encoder.zero_shot(NAMES, TEMPLATES)
    assert model.evaluate(coloured(NAMES, 100, 7))["accuracy"] > 0.9
    assert not model.has_random_head
    # With the words exchanged the same images are taken for the other class, so it is the texts that decide.
    swapped = encoder.zero_shot({"red": "green", "green": "red"}, TEMPLATES)
    assert swapped.evaluate(coloured(["red", "green"], 60, 7))["accuracy"] < 0.1


def test_a_class_is_the_normalised_mean_of_its_normalised_texts_at_the_published_scale(encoder: Backbone, tower_file: Path) -> None:
    model: Any = encoder.zero_shot(["red", "blue"], TEMPLATES[:2])
    text = encoder.with_spec(encoder.spec.pair.text.replace(weights=encoder.spec.weights))  # type: ignore[union-attr]  # a pair
    tower = text.build().eval()
    rows = []
    with torch.no_grad():
        for name in ("red", "blue"):
            each = [functional.normalize(tower(tokens_of(text.spec.inputs, [one.replace("{}", name)])), dim=1)[0] for one in TEMPLATES[:2]]  # type: ignore[arg-type]
            rows.append(functional.normalize((each[0] + each[1]) / 2, dim=0))
    scale = load_file(tower_file)["logit_scale"].exp()
    torch.testing.assert_close(model.head.linear.weight.detach(), scale * torch.stack(rows))
    x = torch.randn(3, 3, 16, 16)
    model.eval()
    with torch.no_grad():
        cosines = functional.normalize(model.backbone(x), dim=1) @ torch.stack(rows).T
        torch.testing.assert_close(model(x), scale * cosines)


def test_many_texts_are_embedded_in_parts(encoder: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, prompts = encoder.with_spec(encoder.spec.pair.text), [[f"{name} {number}" for number in range(5)] for name in NAMES]  # type: ignore[union-attr]
    module, inputs = tower.build().eval(), tower.spec.inputs
    with torch.no_grad():
        whole = class_embeddings(module, inputs, prompts)  # type: ignore[arg-type]  # a text
        monkeypatch.setattr("zoo.models.pairs.zero_shot._CHUNK", 3)
        torch.testing.assert_close(class_embeddings(module, inputs, prompts), whole)  # type: ignore[arg-type]


def test_a_saved_model_predicts_the_same_and_trains_on(encoder: Backbone, tmp_path: Path) -> None:
    model = encoder.zero_shot(NAMES, "openai", task="single-label")
    model.save(tmp_path / "zero")
    pixels, labels = coloured(NAMES, 40, 3)
    again = zoo.load(tmp_path / "zero")
    assert np.array_equal(again.predict_proba(pixels), model.predict_proba(pixels))
    assert again.head_options["templates"] == list(SETS["openai"])
    start = again.head.linear.weight.detach().clone()  # type: ignore[union-attr,operator]
    again.fit((pixels, labels), False, recipe="full", epochs=1, lr=1e-3, batch_size=20, out=tmp_path / "run", quiet=True)
    moved = (again.head.linear.weight.detach() - start).abs().max()  # type: ignore[union-attr,operator]
    assert 0 < moved < 0.1  # it goes on from the texts, not from new values


def test_the_sigmoid_of_pairs_makes_probabilities_of_each_class(tmp_path: Path) -> None:
    backbone = Backbone(pair_spec(name="toy/sigmoid-pair", sigmoid=True), weights=False)
    model: Any = backbone.zero_shot(["red", "blue"], task="multi-label").eval()
    assert model.head.linear.bias.tolist() == [-10.0, -10.0]
    torch.testing.assert_close(model.head.linear.weight.norm(dim=1), torch.full((2,), 10.0))
    model.save(tmp_path / "saved")
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))


def test_both_towers_have_layer_groups_and_values_of_their_own(encoder: Backbone) -> None:
    assert zoo.get("toy/pair", weights=False, tower="text").groups.names == ("embeddings", "layer.0")
    assert zoo.get("toy/pair", weights=False, tower="image").groups.names == ("stem", "block.0", "block.1")
    assert zoo.get("toy/pair", weights=False, tower="image").spec.features.dim == 8
    assert zoo.get("toy/pair", weights=False).spec.features.dim == 16
    same = [encoder.zero_shot(NAMES).state_dict() for _ in range(2)]
    assert all(torch.equal(value, same[1][name]) for name, value in same[0].items())


def test_a_declared_pair_is_listed_as_it_is() -> None:
    spec = pair_spec("some/file.safetensors", sigmoid=True)
    listed = decode(encode(Listed(SpecList.of([spec]), [], ()), ["key"]).encode(), ["key"])
    assert listed is not None
    assert listed.backbones[0] == spec
    assert json.loads(json.dumps(spec.to_dict()))["pair"]["text"]["name"] == "toy/pair-text"


@pytest.mark.parametrize(
    ("classes", "templates", "facts"),
    [
        (["0", "1", "cat"], None, ["2 classes without a name: '0', '1'", "words={'0'"]),
        ({"cat": " ", "dog": "dog"}, None, ["the words of 'cat' are ' '"]),
        (["cat", "dog"], ["a photo", "{} and {}", "a {}."], ["2 templates of 3 without one {}", "'a photo'", "'{} and {}'"]),
        (["cat", "dog"], [], ["there is no template"]),
        (["cat", "dog"], "opanai", ["did you mean 'openai'"]),
        (["cat"], None, ["num_classes is 1"]),
        (["cat", "cat"], None, ["labels has names twice: cat"]),
    ],
)
def test_classes_and_templates_that_make_no_texts_are_refused(classes: Any, templates: Any, facts: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        Backbone(pair_spec(), weights=False).zero_shot(classes, templates)
    assert all(fact in str(caught.value) for fact in facts), caught.value


def test_what_a_zero_shot_head_does_not_fit_is_told_before_anything_is_built(encoder: Backbone, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no text tower"):
        zoo.get("zoo/glyphnet").adapt(2, head="zero-shot", labels=["a", "b"])
    with pytest.raises(OptionError, match=r"there are none; give labels"):
        encoder.adapt(2, head="zero-shot")
    with pytest.raises(OptionError, match=r"(?s)the task is regression, without one set of classes.*in_chans is 1"):
        encoder.adapt(2, "regression", "zero-shot", in_chans=1, labels=["a", "b"])
    with pytest.raises(OptionError, match="pools by itself"):
        encoder.adapt(2, head="zero-shot", labels=["a", "b"], pool="avg")
    encoder.zero_shot(["red", "blue"]).save(tmp_path / "saved")
    with pytest.raises(OptionError, match="a saved model keeps one tower alone"):
        zoo.get(tmp_path / "saved").zero_shot(["red", "blue"])


def test_weights_without_their_scale_are_refused(tower_file: Path, tmp_path: Path) -> None:
    state = load_file(tower_file)
    del state["logit_scale"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(CoverageError, match="'logit_scale'"):
        Backbone(pair_spec(tmp_path / "other.safetensors")).zero_shot(["red", "blue"])


def test_a_pair_that_contradicts_itself_is_refused() -> None:
    good = pair_spec().pair
    assert good is not None
    with pytest.raises(DeclarationError, match=r"(?s)reads images.*scale is 0.*'hinge' is none"):
        zoo.Pair(text=pair_spec(), features=zoo.Features(dim=16, layout="BD"), scale=0, loss="hinge")
    with pytest.raises(DeclarationError, match="BD of 9, and those of the text BD of 8"):
        zoo.Pair(text=good.text, features=zoo.Features(dim=9, layout="BD"))


def test_the_command_saves_a_model_that_others_use(tower_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--classes", "red,0=blue,green", "--templates", "the colour {}", "--templates", "{}", "--weights", str(tower_file))
    assert run("zero-shot", "toy/pair", *words, "--out", str(tmp_path / "zero"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["prompts"]["0"] == ["the colour blue", "blue"]
    np.savez(tmp_path / "data.npz", x=coloured(["red", "blue", "green"], 30)[0], y=np.array(["red", "0", "green"] * 10))
    assert run("eval", str(tmp_path / "zero"), str(tmp_path / "data.npz"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.9
    assert run("zero-shot", "zoo/glyphnet", "--classes", "red,blue", "--out", str(tmp_path / "none")) == 2
    assert "no text tower" in capsys.readouterr().err

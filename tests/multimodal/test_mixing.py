"""Gated and cross-attention fusion: they see how parts go together, are trained, tuned, resumed and saved as one network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

import zoo
from tests.multimodal import rows
from tests.multimodal.rows import agreement
from tests.select.command_line import run
from tests.toy_pair import pair_spec
from zoo.data.texts.tokenizers import open_tokenizer
from zoo.declare import Text
from zoo.engine.inference.all_outputs import run_whole
from zoo.engine.options.recipe import Phase, Recipe
from zoo.errors import DataError, OptionError, SavedModelError
from zoo.transfer import Fusion, fuse, load_fusion
from zoo.transfer.fusion.mixing import with_dropped_parts
from zoo.transfer.fusion.network import packed_table
from zoo.transfer.fusion.solved import Block
from zoo.transfer.fusion.training import hint_of
from zoo.weights.load import read

COUNT, TRAIN, TEST = 64, 1, 2
HARMFUL = Recipe(
    name="fusion",
    phases=(Phase(name="fusion", frozen=-1, epochs=8, augment=False), Phase(name="tune", epochs=1, lr=1e5)),
    lr=3e-3,
    augment="none",
)


def fused(
    data: pd.DataFrame, folder: Path, how: str, *, epochs: int = 0, size: int = 16, out: Path | None = None, **options: Any
) -> Fusion:
    training = {"epochs": epochs, "batch_size": size, "resume": out is not None and out.exists()} | ({"out": out} if out else {})
    return rows.fused(data, folder, how, **({"compare": how == "gated"} | ({"training": training} if epochs else {}) | options))


def values(fusion: Fusion) -> dict[str, torch.Tensor]:
    assert fusion.network is not None
    return {name: value.clone() for name, value in fusion.network.state_dict().items()}


def test_what_only_the_combination_tells_is_seen_by_gates_and_by_cross_attention(folder: Path) -> None:
    train, test = agreement(folder, COUNT, TRAIN), agreement(folder, 40, TEST)
    linear = fused(train, folder, "concatenate")
    assert linear.evaluate(test)["accuracy"] < 0.65
    gated = fused(train, folder, "gated", epochs=14, size=8)
    for fusion in (gated, fused(train, folder, "cross_attention", epochs=14, size=8)):
        assert fusion.evaluate(test)["accuracy"] > 0.9
    assert gated.scores["gated"] > max(gated.scores[name] for name in ("image", "text", "concatenate")) + 0.25
    assert [*gated.scores] == ["image", "text", "concatenate", "gated"]


@pytest.mark.parametrize(("how", "tune"), [("gated", "all"), ("cross_attention", "top"), ("concatenate", "top")])
def test_the_groups_that_are_asked_for_train_and_a_saved_fusion_predicts_the_same(
    how: str, tune: str, folder: Path, tmp_path: Path
) -> None:
    train = agreement(folder, 32, TRAIN)
    if how == "concatenate":  # of which tuning finds more than a linear head
        train = train.assign(label=["ab"[row % 2] for row in range(len(train))])
    image = zoo.get("toy/net", weights=False).adapt(2)
    torch.nn.init.ones_(image.head.linear.weight)  # type: ignore[union-attr, arg-type]  # of a module
    before = {name: value.clone() for name, value in image.backbone.state_dict().items()}
    fusion = fused(train, folder, how, tune=tune, epochs=2, image=image, numbers=["size"])
    assert all(torch.equal(value, before[name]) for name, value in image.backbone.state_dict().items())  # the given model stays
    tuned = fusion.models["image"].backbone.state_dict()
    moved = {name.rpartition(".")[0] for name, value in tuned.items() if not torch.equal(value, before[name]) and "bn" not in name}
    last = {"blocks.1.conv"}
    assert moved == ({"conv1", "blocks.0.conv", *last} if tune == "all" else last)
    assert [*fusion.scores][3:] == (["concatenate", "gated, all tuned"] if how == "gated" else [])
    assert [origin.step for origin in fusion.models["image"].origins] == ["random", "fit"]
    assert fusion.models["image"].has_random_head, "its own head is of the features before"
    assert not image.has_random_head
    again = load_fusion(fusion.save(tmp_path / "saved"), root=folder)
    gaps = train.assign(text=[None, *train["text"][1:]], size=[*train["size"][:-1], None])
    assert np.allclose(again.predict_proba(gaps), fusion.predict_proba(gaps), atol=1e-6)
    assert (again.scores, again.how, again.monitor) == (fusion.scores, how, fusion.monitor)
    record = tmp_path / "saved" / "fusion.json"
    record.write_text(record.read_text().replace(f'"how": "{how}"', '"how": "gated"' if how != "gated" else '"how": "concatenate"'))
    with pytest.raises(SavedModelError, match=r"is damaged .*of another shape, or missing"):
        load_fusion(tmp_path / "saved")


def test_a_run_that_was_killed_goes_on_to_the_same_values(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = agreement(folder, 32, TRAIN)
    whole = fused(train, folder, "gated", tune="all", epochs=4, out=tmp_path / "whole")
    from zoo.engine.train.trainer import Training

    epochs, real = [], Training._epoch

    def dying(self: Any, *args: Any) -> Any:
        epochs.append(args)
        if len(epochs) == 4:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Training, "_epoch", dying)
    with pytest.raises((KeyboardInterrupt, zoo.ZooError)):
        fused(train, folder, "gated", tune="all", epochs=4, out=tmp_path / "killed")
    monkeypatch.setattr(Training, "_epoch", real)
    again = fused(train, folder, "gated", tune="all", epochs=4, out=tmp_path / "killed")
    assert all(torch.equal(value, values(whole)[name]) for name, value in values(again).items())


def test_what_fuses_frozen_towers_trains_on_stored_activations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    real = torch.nn.Conv2d._conv_forward

    def counted(self: torch.nn.Conv2d, x: torch.Tensor, *args: Any) -> torch.Tensor:
        rows.append(len(x) if self.in_channels == 3 else 0)
        return real(self, x, *args)

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", counted)
    fused(agreement(folder, 32, TRAIN), folder, "cross_attention", epochs=6)
    assert sum(rows) < 5 * 32  # for the scores, for what is stored, and in trials, and not in each epoch


def test_dropout_takes_one_part_and_never_the_last() -> None:
    missing = torch.tensor([[False, False, False], [True, True, False], [False, True, False]]).repeat(500, 1)
    dropped = with_dropped_parts(missing, 0.5)
    assert bool((dropped | ~missing).all())  # what was missing still is
    assert not bool(dropped.all(1).any())
    more = (dropped & ~missing).sum(1).reshape(-1, 3)
    assert int(more.max()) == 1
    assert 0.4 < float(more[:, 0].float().mean()) < 0.6
    assert float(more[:, 1].float().sum()) == 0
    assert bool((dropped & ~missing)[::3].float().mean(0).gt(0.1).all())  # each part now and then
    assert torch.equal(with_dropped_parts(missing, 0.0), missing)


def test_missing_parts_leave_what_the_others_say(folder: Path) -> None:
    rows = agreement(folder, COUNT, TRAIN)
    colours = rows.assign(label=["ab"[row % 2] for row in range(COUNT)])  # the image alone knows it
    fusion = fused(colours, folder, "gated", epochs=6, dropout=0.3)
    assert fusion.evaluate(colours.assign(text=None))["accuracy"] > 0.9
    without = fusion.predict_proba(colours.assign(file_name=None))
    assert np.ptp(without[:, 0]) < 0.7  # nothing of the image is left
    assert fusion.evaluate(colours.assign(file_name=None))["accuracy"] < 0.7


def test_parts_are_compared_on_the_rows_of_validation(folder: Path) -> None:
    train, valid = agreement(folder, 32, TRAIN), agreement(folder, 24, TEST)
    by_word = [frame.assign(label=["uv"[row // 2 % 2] for row in range(len(frame))]) for frame in (train, valid)]
    fusion = fuse(by_word[0], by_word[1], image="toy/net", text="toy/text", numbers=["size"], root=folder, quiet=True)
    assert fusion.scores["text"] > 0.9 > 0.75 > fusion.scores["image"]
    assert fusion.scores["concatenate"] == pytest.approx(fusion.evaluate(by_word[1])["accuracy"])
    assert [*fusion.scores] == ["image", "text", "numbers", "concatenate"]


def test_a_head_that_is_tuned_on_was_solved_without_the_rows_that_judge_it(folder: Path) -> None:
    random = np.random.default_rng(0)
    noise = pd.DataFrame(random.normal(size=(40, 60)), columns=[f"n{column}" for column in range(60)])
    rows = agreement(folder, 40, TRAIN).drop(columns="text").join(noise).assign(label=random.permutation(list("ab" * 20)))
    training = {"epochs": 1, "lr": 1e-9}
    fusion = fuse(rows, image="toy/net", numbers=list(noise), root=folder, tune="top", training=training, dropout=0.0, quiet=True)
    assert fusion.scores["concatenate, top tuned"] < 0.8  # nothing can be learned


def test_a_longer_text_than_those_of_the_training_is_cut_before_its_last_token(folder: Path) -> None:
    rows = agreement(folder, 32, TRAIN)
    fusion = fused(rows, folder, "gated", epochs=1, compare=False)
    longer = rows.assign(text=[f"{text} and more of it" for text in rows["text"]])
    packed = packed_table(fusion.models, fusion.read(longer, labelled=True), fusion.tokens).inputs
    encoded = open_tokenizer(cast(Text, fusion.models["text"].inputs)).encode([*longer["text"]], fusion.tokens)
    assert packed._texts[:, 0].tolist() == [one["input_ids"] for one in encoded]


def test_what_cannot_be_trained_is_told_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(OptionError, match=r"(?s)'gatd' \(did you mean 'gated'\?\).*tune is 'most'.*'epoch' \(did you mean 'epochs'\?\)"):
        fuse("none.csv", image="toy/net", text="toy/text", how="gatd", tune="most", training={"epoch": 3})
    with pytest.raises(OptionError, match=r"(?s)no training; give tune=.*resume needs out"):
        fuse("none.csv", image="toy/net", text="toy/text", training={"resume": True})
    with pytest.raises(OptionError, match="image_size: for frozen features and a solved head only"):
        fuse("none.csv", image="toy/net", text="toy/text", how="gated", image_size=8)
    rows = agreement(folder, 16, TRAIN)
    with pytest.raises(DataError, match=r"'text': every cell is empty"):
        fused(rows.assign(text=None), folder, "gated", epochs=1)


def test_the_command_trains_a_fusion_and_shows_each_part(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agreement(folder, 32, TRAIN).to_csv(folder / "train.csv", index=False)
    words = ("--image", "toy/net", "--text", "toy/text", "--how", "gated", "--set", "epochs=1", "--out", str(tmp_path / "saved"))
    assert run("fuse", str(folder / "train.csv"), *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [*told["scores"]] == ["image", "text", "concatenate", "gated"]
    assert load_fusion(tmp_path / "saved").how == "gated"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"training": {"epochs": "three"}}, "epochs is 'three'"),
        ({"training": {"lr": -1, "patience": -2}}, r"(?s)lr .*patience"),
        ({"training": {"trains": "lora"}}, r"'trains' \(name what trains of the backbones: tune="),
        ({"training": {"recipe": "lora"}}, "recipe 'lora' trains lora; give tune='lora'"),
        ({"training": {"resume": 1, "out": "run"}}, "resume is 1; it must be True or False"),
        ({"training": {"max_length": 16}}, r"'max_length' \(texts are read up to"),
        ({"tune": "lora"}, "tune is 'lora' with how='gated'.*take how='concatenate', or fit each backbone alone with recipe='lora'"),
        ({"tune": "prompt"}, "tune is 'prompt', which stays beside .*fit the backbone alone with recipe='prompt'"),
        ({"batch_size": "many"}, "batch_size is 'many'"),
        ({"batch_sise": 8}, r"'batch_sise' \(did you mean 'batch_size'\?\)"),
    ],
)
def test_values_of_options_are_checked_before_anything_is_read(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        fuse("none.csv", **({"image": "toy/net", "text": "toy/text", "how": "gated"} | options))


@pytest.mark.parametrize("how", ["concatenate", "gated"])
def test_tuning_that_makes_held_out_rows_worse_leaves_the_start(
    how: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[Any] = []

    def predicted(*given: Any, **options: Any) -> Any:
        devices.append(given[-1].device)
        return run_whole(*given, **options)

    monkeypatch.setattr("zoo.transfer.fusion.training.run_whole", predicted)
    train = agreement(folder, 32, TRAIN)
    train["label"] = ["ab"[row % 2] for row in range(len(train))]
    torch.manual_seed(3)
    image = zoo.get("toy/net", weights=False).adapt(2)
    before = {name: value.clone() for name, value in image.backbone.state_dict().items()}
    harmful: dict[str, Any] = {"epochs": 3, "lr": 100.0, "device": "cpu"} if how == "concatenate" else {"recipe": HARMFUL}
    harmful["out"] = tmp_path / "run"
    with caplog.at_level("WARNING", "zoo"):
        fusion = fused(train, folder, how, tune="all", image=image, training=harmful, compare=True)
    assert all(torch.equal(value, before[name]) for name, value in fusion.models["image"].backbone.state_dict().items())
    test = agreement(folder, 40, TEST)
    test["label"] = ["ab"[row % 2] for row in range(len(test))]
    assert fusion.evaluate(test)["accuracy"] > 0.9
    told = {"concatenate": "kept: the start, .* tune='all' did not improve on it", "gated": "kept: epoch .*, of phase 'fusion'"}
    assert caplog.text.count("did not improve on it") == 1
    assert load_fusion(fusion.save(tmp_path / "saved")).verdict == fusion.verdict != ""
    assert fusion.models["image"].origins == image.origins
    assert [*fusion.scores][2:] == (["concatenate", "concatenate, all tuned"] if how == "concatenate" else ["concatenate", "gated"])
    assert devices == (["cpu", "cpu"] if how == "concatenate" else []), "the start is measured where the training runs"
    assert re.search(told[how], caplog.text)
    written = read(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(written[name], value) for name, value in values(fusion).items()), "the folder of the run has what is kept"
    again = fused(train, folder, how, tune="all", image=image, training=harmful | {"resume": True}, compare=True)
    assert (again.verdict, again.scores) == (fusion.verdict, fusion.scores)
    assert np.array_equal(again.predict_proba(test), fusion.predict_proba(test))


def test_features_that_hardly_differ_are_named_with_what_to_do() -> None:
    plain, random = Block(torch.ones(8), torch.tensor(1.0)), Block(torch.ones(8), torch.tensor(1e-3))
    number = Block(torch.ones(1), torch.tensor(1e-3))  # of large values, such as a year
    assert hint_of({"image": plain, "number year": number}) == ""
    assert "the text backbone by 0.035 % of their size" in hint_of({"image": plain, "text": random})


def test_low_rank_updates_train_in_both_towers_and_are_merged(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    rows = agreement(folder, 24, TRAIN)
    text = pair_spec().pair.text.name  # type: ignore[union-attr]  # a pair, whose text tower has a linear layer that can take one
    models = {part: zoo.get(name, weights=False).adapt(2) for part, name in (("image", "toy/net"), ("text", text))}
    fusion = fused(rows, folder, "concatenate", tune="lora", epochs=1, **models, training={"epochs": 1, "lora_rank": 2})
    moved = {
        f"{part}: {name}"
        for part, model in fusion.models.items()
        for name, value in model.backbone.state_dict().items()
        if not torch.equal(value, models[part].backbone.state_dict()[name]) and "bn" not in name
    }
    assert moved == {"image: blocks.0.conv.weight", "image: blocks.1.conv.weight", "image: conv1.weight", "text: projection.weight"}
    again = load_fusion(fusion.save(tmp_path / "saved"), root=folder)
    assert np.allclose(again.predict_proba(rows), fusion.predict_proba(rows), atol=1e-6)


def test_texts_that_are_cut_are_told_with_their_count_and_what_to_do(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = agreement(folder, 24, TRAIN)
    long = rows.assign(text=["good " * 200 if row < 3 else text for row, text in enumerate(rows["text"])])
    with caplog.at_level("WARNING", "zoo"):
        fused(long, folder, "gated", epochs=1, compare=False)
    assert caplog.text.count("3 texts of 24 cut to") == 1
    assert "overflow='windows'" in caplog.text
    fusion = fused(rows, folder, "gated", epochs=1, compare=False)
    caplog.clear()
    fusion.predict(rows)
    assert not caplog.text
    fusion.predict(rows.assign(text=[f"{text} and more of it" for text in rows["text"]]))
    assert caplog.text.count(f"24 texts of 24 cut to {fusion.tokens} tokens") == 1
    assert "train on texts as long as these" in caplog.text


def test_a_model_with_an_update_is_merged_into_a_copy_or_kept_beside_its_weights(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    rows = agreement(folder, 24, TRAIN)
    merged, beside = (zoo.get("toy/net", weights=False).adapt(2) for _ in range(2))
    zoo.tuning.attach_lora(merged, merged.groups, rank=2)
    zoo.tuning.attach_lora(beside, beside.groups, kind="adapter", width=2)
    for model in (merged, beside):
        with torch.no_grad():
            for name, value in model.backbone.named_parameters():
                if "lora_B" in name or "zoo_adapter" in name:
                    value.normal_()
    saved = beside.save(tmp_path / "beside")
    images = [folder / name for name in rows["file_name"]]
    for image, wanted in ((merged, merged), (saved, beside)):
        fusion = fused(rows, folder, "concatenate", image=image, numbers=["size"])
        assert np.allclose(fusion.models["image"].embed(images), wanted.embed(images), atol=1e-5)
        again = load_fusion(fusion.save(tmp_path / f"fusion-{wanted.lora.kind}"), root=folder)  # type: ignore[union-attr]  # it is attached
        assert np.allclose(again.predict_proba(rows), fusion.predict_proba(rows), atol=1e-6)
    with pytest.raises(OptionError, match="image has bottleneck adapters, beside which tune='lora' cannot train"):
        fused(rows, folder, "concatenate", image=saved, tune="lora", epochs=1)

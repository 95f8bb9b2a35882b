"""Late fusion of images, texts and numbers of one table: each part counts, any may be missing, and what cannot be read is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import zoo
from tests.multimodal import rows
from tests.multimodal.rows import bits
from tests.select.command_line import run
from zoo.errors import DataError, OptionError, SavedModelError
from zoo.transfer import Fusion, fuse, load_fusion


def fused(data: pd.DataFrame, folder: Path, **options: Any) -> Fusion:
    return rows.fused(data, folder, **({"numbers": ["size"]} | options))


def test_every_part_adds_what_the_others_do_not_know(folder: Path) -> None:
    train, test = bits(folder, 80, 1), bits(folder, 60, 2)
    fusion = fused(train, folder, compare=True)
    assert fusion.evaluate(test)["accuracy"] > 0.9
    assert fusion.scores["concatenate"] > 0.85
    assert all(fusion.scores[name] < 0.45 for name in ("image", "text", "numbers"))  # each bit that is unknown halves what is right


def test_rows_with_missing_parts_keep_what_the_others_say(folder: Path) -> None:
    train = bits(folder, 160, 3, gaps=0.15)
    fusion, test = fused(train, folder), bits(folder, 80, 4)
    found = fusion.predict(test.assign(text=None))
    truth = test["label"].tolist()
    assert np.mean([one[0] == label[0] and one[2] == label[2] for one, label in zip(found, truth, strict=True)]) > 0.85
    assert fusion.evaluate(test)["accuracy"] > 0.85


def test_dropout_teaches_what_a_missing_part_means(folder: Path) -> None:
    train, test = bits(folder, 40, 1), bits(folder, 20, 2)
    never, often = fused(train, folder, dropout=0.0), fused(train, folder, dropout=0.5)
    assert float(never.weight[:, -3:].abs().max()) == 0.0  # no row of training has a gap
    assert float(often.weight[:, -3:].abs().max()) > 0.0
    again = fused(train, folder, dropout=0.5)
    assert np.array_equal(again.predict_proba(test), often.predict_proba(test))


def test_a_saved_fusion_predicts_the_same_from_a_file(folder: Path, tmp_path: Path) -> None:
    train, test = bits(folder, 60, 1), bits(folder, 20, 2, gaps=0.2)
    test.to_csv(folder / "test.csv", index=False)
    fusion = fused(train, folder)
    again = load_fusion(fusion.save(tmp_path / "saved"))
    assert np.allclose(again.predict_proba(folder / "test.csv"), fusion.predict_proba(folder / "test.csv"), rtol=1e-4, atol=1e-6)
    assert again.predict(folder / "test.csv") == fusion.predict(test)
    record = tmp_path / "saved" / "fusion.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 3'))
    with pytest.raises(SavedModelError, match="is of format 3, and this zoo reads 1 and 2"):
        load_fusion(tmp_path / "saved")
    record.write_text("{}")
    with pytest.raises(SavedModelError, match=r"is damaged"):
        load_fusion(tmp_path / "saved")
    with pytest.raises(SavedModelError, match="is no saved fusion"):
        load_fusion(tmp_path)


@pytest.mark.parametrize("how", ["concatenate", "gated"])
def test_a_number_that_hardly_varies_does_not_decide_about_a_row_alone(how: str, folder: Path, tmp_path: Path) -> None:
    train, test = bits(folder, 24, 1).assign(same=36.6), bits(folder, 12, 2)
    train.loc[0, "same"] += 1e-3
    fusion = fused(train, folder, how=how, numbers=["same"], training={"epochs": 1} if how == "gated" else None)
    usual, warm, odd = (fusion.outputs(fusion.read(test.assign(same=value))) for value in (36.6, 40.0, 1e9))
    assert np.array_equal(warm, odd)
    assert np.abs(odd - usual).max() < 5 * np.abs(usual).max()
    again = load_fusion(fusion.save(tmp_path / "saved"), root=folder)
    assert np.allclose(again.outputs(again.read(test.assign(same=40.0))), warm, atol=1e-5)


def test_options_that_change_features_are_those_of_one_backbone_and_are_saved(folder: Path, tmp_path: Path) -> None:
    train, test = bits(folder, 60, 1), bits(folder, 20, 2)
    fusion = fused(train, folder, image_size=8, overflow="windows")
    again = load_fusion(fusion.save(tmp_path / "saved"), root=folder)
    assert again.options == {"image_size": 8, "overflow": "windows"}
    assert np.allclose(again.predict_proba(test), fusion.predict_proba(test), rtol=1e-4, atol=1e-6)
    assert not np.allclose(fused(train, folder).predict_proba(test), fusion.predict_proba(test), atol=1e-3)


def test_a_number_may_be_called_as_a_part_is(folder: Path) -> None:
    train = bits(folder, 40, 1, gaps=0.3).rename(columns={"size": "image"})
    assert fused(train, folder, numbers=["image"]).evaluate(train)["accuracy"] > 0.5
    with pytest.raises(OptionError, match=r"(?s)numbers names 'size' twice.*on_error"):
        fused(train, folder, numbers=["size", "size"], on_error="skip")


def test_the_command_fuses_saves_and_measures(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("train", 1), ("held", 2)):
        bits(folder, 40, seed).rename(columns={"text": "caption"}).to_csv(folder / f"{name}.csv", index=False)
    words = (
        "--image",
        "toy/net",
        "--text",
        "toy/text",
        "--numbers",
        "size",
        "--columns",
        "text=caption",
        "--test",
        str(folder / "held.csv"),
    )
    assert run("fuse", str(folder / "train.csv"), *words, "--out", str(tmp_path / "saved"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["accuracy"] == pytest.approx(load_fusion(tmp_path / "saved").evaluate(folder / "held.csv")["accuracy"])
    trained = ("fuse", str(folder / "train.csv"), *words, "--how", "gated", "--set", "epochs=1")
    for name, more in (("loud", ()), ("quiet", ("--quiet",))):
        assert run(*trained, *more, "--out", str(tmp_path / name)) == 0
        assert ("epoch 1/1" in capsys.readouterr().err) == (name == "loud")
    assert run("fuse", str(folder / "train.csv"), "--text", "toy/text", "--out", str(tmp_path / "none")) == 2
    assert "one part only" in capsys.readouterr().err


def test_several_labels_are_fused_too(folder: Path) -> None:
    train = bits(folder, 96, 1)
    names = train["label"].map(
        lambda bits: "|".join(name for name, bit in zip(("blue", "awful", "large"), bits, strict=True) if bit == "1")
    )
    fusion = fused(train.assign(label=names), folder, task="multi-label")
    assert set(fusion.classes) == {"blue", "awful", "large"}
    first = fusion.predict(train)[:40]
    assert np.mean([set(found) == {*filter(None, label.split("|"))} for found, label in zip(first, names[:40], strict=True)]) > 0.9


def test_labels_in_columns_of_their_own_are_read_again_when_measured(folder: Path, tmp_path: Path) -> None:
    train = bits(folder, 48, 1)
    for place, name in enumerate(("blue", "awful", "large")):
        train[name] = [int(label[place]) for label in train["label"]]
    train.loc[3, "awful"] = -1
    train = train.drop(columns="label")
    with pytest.raises(
        DataError, match=r"label_columns=\['blue', 'awful', 'large'\], on the command line --label-columns blue,awful,large"
    ):
        fused(train[train["awful"] >= 0], folder, task="multi-label")
    columns = ["blue", "awful", "large"]
    with pytest.raises(DataError, match="--uncertain mask"):
        fused(train, folder, task="multi-label", label_columns=columns)
    train.to_csv(folder / "wide.csv", index=False)
    words = ("--image", "toy/net", "--text", "toy/text", "--numbers", "size", "--task", "multi-label")
    wide = ("--label-columns", ",".join(columns), "--uncertain", "mask", "--out", str(tmp_path / "saved"))
    assert run("fuse", str(folder / "wide.csv"), *words, *wide) == 0
    fusion = load_fusion(tmp_path / "saved")
    assert fusion.classes == tuple(columns)
    assert fusion.evaluate(folder / "wide.csv")["macro_f1"] > 0.9
    assert run("eval", str(tmp_path / "saved"), str(folder / "wide.csv")) == 0


def test_a_part_with_a_head_that_was_trained_predicts_without_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = bits(folder, 12, 1)
    images = [str(folder / name) for name in train["file_name"]]
    model = zoo.get("toy/net", weights=False).adapt(2, labels=["red", "blue"])
    model.fit((images, ["red", "blue"] * 6), False, recipe="linear-probe", out=tmp_path / "run", quiet=True)
    fused(train, folder, image=model).save(tmp_path / "saved")
    part = zoo.load(tmp_path / "saved" / "image")
    caplog.clear()
    assert part.predict(images) == model.predict(images)
    assert "predictions mean nothing" not in caplog.text


def test_a_label_that_no_class_has_is_told_without_options_that_fusion_lacks(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = bits(folder, 24, 1)
    fused(train.assign(label=["unknown", *train["label"][1:]]), folder)
    assert "1 class is written like a missing label" in caplog.text
    assert "drop_other_classes" not in caplog.text
    fusion = fused(train, folder)
    with pytest.raises(DataError, match=r"(?s)outside the .* leave these rows out of the table") as told:
        fusion.evaluate(train.assign(label=["odd", *train["label"][1:]]))
    assert "--" not in str(told.value)


def test_a_label_is_no_number_to_predict_it_from(folder: Path) -> None:
    train = bits(folder, 12, 1).assign(large=[0, 1] * 6, kind=[0, 1] * 6)
    with pytest.raises(OptionError, match="numbers names 'large', which the labels are read from"):
        fused(train, folder, task="multi-label", label_columns=["kind", "large"], numbers=["large"])
    with pytest.raises(OptionError, match="numbers names 'label', which"):
        fused(train.assign(label=train["large"]), folder, numbers=["label"])
    with pytest.raises(OptionError, match="numbers names 'kind', which"):
        fused(train, folder, numbers=["size", "kind"], columns={"label": "kind"})
    with pytest.raises(OptionError, match="label_columns is 'large'; give a list of columns"):
        fused(train, folder, task="multi-label", label_columns="large")


def test_what_cannot_be_fused_is_told_before_anything_is_computed(folder: Path) -> None:
    train = bits(folder, 12, 1)
    with pytest.raises(OptionError, match=r"(?s)one part only.*reads texts; give a backbone of images.*'regression' is none.*dropout is 2"):
        fuse(train, image="toy/text", task="regression", dropout=2)
    with pytest.raises(OptionError, match=r"no image= and no text="):
        fuse(train, numbers=["size"])
    with pytest.raises(OptionError, match="fusion reads one table"):
        fused([1, 2], folder)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(DataError, match=r"'text': every cell is empty"):
        fused(train.assign(text=None), folder)
    with pytest.raises(DataError, match=r"(?s)no column 'sice' \(did you mean 'size'\?\).*2 cells of 'text' are no number|12 cells"):
        fused(train, folder, numbers=["sice", "text"])
    with pytest.raises(DataError, match=r"1 file of 12 that does not exist: .*gone\.png"):
        fused(train.assign(file_name=[*train["file_name"][:3], "gone.png", *train["file_name"][4:]]), folder)
    with pytest.raises(DataError, match=r"rows of 2 splits \('test', 'train'\)"):
        fused(train.assign(split=["train", "test"] * 6), folder)
    with pytest.raises(OptionError, match="columns names 'text', and no backbone reads it"):
        fused(train, folder, text=None, columns={"text": "caption"})
    empty = train.copy()
    empty.loc[5, ["file_name", "text", "size"]] = None
    with pytest.raises(DataError, match=r"1 row of 12 has none of image, text, number size: row 5"):
        fused(empty, folder)

"""The commands on a saved fusion: new rows are predicted and measured, and nothing that it does not take is ignored."""

from __future__ import annotations

import json
import logging
import signal
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.multimodal.rows import bits, fused
from tests.select.command_line import run
from tests.toy_pair import pair_spec
from zoo.engine.runtime.scratch import scratch_folder
from zoo.engine.runtime.signals import StopFlag, interrupted
from zoo.errors import OptionError, SavedModelError
from zoo.models.backbone import Backbone
from zoo.transfer import load_fusion


def test_the_commands_predict_and_eval_read_a_fusion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    train, test = bits(tmp_path, 40, 1), bits(tmp_path, 12, 2, gaps=0.3)
    test.to_csv(tmp_path / "test.csv", index=False)
    fusion = fused(train, tmp_path, numbers=["size"])
    saved, rows = str(fusion.save(tmp_path / "saved")), str(tmp_path / "test.csv")
    assert run("predict", saved, rows, "--json") == 0
    told, shares = json.loads(capsys.readouterr().out), fusion.predict_proba(test)
    assert [row["label"] for row in told] == fusion.predict(test)
    assert np.allclose([list(row["probabilities"].values()) for row in told], shares, atol=1e-6)
    assert run("predict", saved, rows, "--out", str(tmp_path / "out.csv")) == 0
    found = pd.read_csv(tmp_path / "out.csv", dtype={"prediction": str})
    assert found["prediction"].tolist() == fusion.predict(test)
    assert np.allclose(found[[f"probability_{name}" for name in fusion.classes]], shares, atol=1e-6)
    expected = [text if pd.isna(file) else file for file, text in zip(test["file_name"], test["text"], strict=True)]
    assert all(name.endswith(end) for name, end in zip(found["input"], expected, strict=True) if isinstance(end, str))
    capsys.readouterr()
    assert run("eval", saved, rows, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(fusion.evaluate(test)["accuracy"])
    assert run("predict", saved, rows, "--sets", "0.9", "--image-size", "8", "--top", "0") == 2
    assert "--top, --sets, --image-size: " in capsys.readouterr().err
    assert "predictions mean nothing" not in caplog.text
    assert run("predict", str(tmp_path / "saved" / "text"), "it is good") == 0
    assert "it is a part of a fusion, whose own head is not used there, so predictions mean nothing" in caplog.text
    test.rename(columns={"text": "Sentence", "file_name": "image"}).to_csv(tmp_path / "renamed.csv", index=False)  # as other commands read
    capsys.readouterr()
    assert run("eval", saved, str(tmp_path / "renamed.csv"), "--root", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(fusion.evaluate(test)["accuracy"])
    test.drop(columns="text").to_csv(tmp_path / "less.csv", index=False)
    assert run("predict", saved, str(tmp_path / "less.csv")) == 1
    assert "no column 'text' for the text backbone" in capsys.readouterr().err
    with pytest.raises(SavedModelError, match=r"is a fusion of .*load_fusion"):
        zoo.load(saved)


def test_a_folder_that_is_taken_and_a_missing_table_are_told_before_anything_is_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bits(tmp_path, 12, 1).to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    words = ("fuse", str(tmp_path / "train.csv"), "--image", "toy/none", "--text", "toy/text")
    assert run(*words, "--out", str(tmp_path / "full")) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run(*words, "--test", str(tmp_path / "trian.csv"), "--out", str(tmp_path / "new")) == 1
    assert "did you mean 'train.csv'" in capsys.readouterr().err


def test_a_training_leaves_a_run_that_says_what_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = bits(tmp_path, 16, 1)  # of some classes it has one row, which is not held out
    with caplog.at_level(logging.WARNING, "zoo"):
        fused(train, tmp_path, "gated", numbers=["size"], training={"epochs": 1, "out": tmp_path / "run", "quiet": True})
    assert "zoo.wrap" not in caplog.text
    with pytest.raises(SavedModelError, match=r"holds the network of a fusion; zoo\.transfer.load_fusion"):
        zoo.load(tmp_path / "run")
    with pytest.raises(OptionError, match=r"'seed' \(give it to fuse\(\) itself"):
        fused(train, tmp_path, "gated", numbers=["size"], training={"seed": 1})
    with pytest.raises(OptionError, match=r"no option 'txt' \(did you mean 'text'\?\)"):
        fused(train, tmp_path, numbers=["size"], columns={"txt": "text"})


def test_a_training_without_a_folder_names_none_that_is_gone_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"epochs": 1, "batch_size": 8, "quiet": False}
    fused(bits(tmp_path, 16, 1), tmp_path, "gated", numbers=["size"], training=options | {"out": tmp_path / "run"})
    assert f"into {tmp_path / 'run'}" in capsys.readouterr().err
    fused(bits(tmp_path, 16, 1), tmp_path, "gated", numbers=["size"], training=options)
    told = capsys.readouterr().err
    assert "training samples" in told
    assert tempfile.gettempdir() not in told.replace(str(tmp_path), "")

    with scratch_folder() as folder:
        flag = StopFlag()
        flag.signum = signal.SIGINT
        error = interrupted(flag, folder / "run", "epoch 1")
        assert str(folder) not in str(error)
    assert "Nothing of the training is kept" in str(error)
    assert "--set out=DIR" in str(error)


def test_of_a_dual_encoder_the_texts_take_its_text_tower(tmp_path: Path) -> None:
    clip = Backbone(pair_spec(), weights=False)
    fusion = fused(bits(tmp_path, 16, 1), tmp_path, numbers=["size"], text=clip)
    assert fusion.models["text"].spec.modality == "text"


def test_embed_gives_the_fused_features_and_show_says_what_a_fusion_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = bits(tmp_path, 24, 1)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    rows, solved = str(tmp_path / "rows.csv"), fused(frame, tmp_path, numbers=["size"], compare=True)
    trained = fused(frame, tmp_path, "gated", numbers=["size"], training={"epochs": 1})
    dims = [model.spec.features.dim for model in solved.models.values()]
    for name, fusion, width in (("solved", solved, sum(dims) + 1 + 3), ("trained", trained, 64)):
        folder, features = str(fusion.save(tmp_path / name)), fusion.embed(frame)
        assert features.shape == (24, width)
        capsys.readouterr()
        assert run("embed", folder, rows, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["dim"], len(told["inputs"])) == (width, 24)
        assert np.allclose(told["embeddings"], features, atol=1e-5)
        assert run("show", folder, "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["dim"], shown["how"], shown["trained"]) == (width, fusion.how, name == "trained")
        assert shown["backbones"] == {"image": "toy/net", "text": "toy/text"}
    weights = solved.weight.numpy() @ solved.embed(frame).T
    assert np.allclose(weights.T + solved.bias.numpy(), solved.outputs(solved.read(frame)), atol=1e-4)  # what the head reads
    assert run("embed", str(tmp_path / "solved"), rows, "--out", str(tmp_path / "out.npz")) == 0
    with np.load(tmp_path / "out.npz") as file:
        assert np.allclose(file["features"], solved.embed(frame), atol=1e-5)
    capsys.readouterr()
    assert run("show", str(tmp_path / "trained")) == 0
    page = capsys.readouterr().out
    assert all(word in page for word in ("toy/net", "toy/text", "size", "gated, trained", "64 wide", "single-label, 8 classes"))
    assert "a classifier of rows with an image, a text and 1 number, any of which may be missing" in page
    assert run("show", str(tmp_path / "solved")) == 0
    assert "concatenate 0." in capsys.readouterr().out
    assert run("embed", str(tmp_path / "solved"), rows, "--out", str(tmp_path / "o.npz"), "--prompt-name", "query") == 2
    assert "--prompt-name: " in capsys.readouterr().err


def test_each_tower_takes_weights_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = bits(tmp_path, 16, 1)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    torch.manual_seed(5)
    net = zoo.get("toy/net", weights=False).build()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    words = ("fuse", str(tmp_path / "rows.csv"), "--image", "toy/net", "--numbers", "size")
    assert run(*words, "--image-weights", str(tmp_path / "net.safetensors"), "--out", str(tmp_path / "saved")) == 0
    saved = load_fusion(tmp_path / "saved").models["image"].backbone.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in net.state_dict().items())
    assert run(*words, "--image-weights", "none", "--out", str(tmp_path / "random")) == 0
    capsys.readouterr()
    assert run(*words, "--text-weights", "none", "--out", str(tmp_path / "odd")) == 2
    assert "--text-weights none: there is no --text" in capsys.readouterr().err
    assert run(*words, "--image-weights", str(tmp_path / "nte.safetensors"), "--out", str(tmp_path / "odd")) == 1
    assert "did you mean" in capsys.readouterr().err


def test_the_parts_of_a_saved_fusion_say_nothing_of_their_libraries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fusion = fused(bits(tmp_path, 16, 1), tmp_path, numbers=["size"])
    model = fusion.models["image"]
    model.spec = model.spec.replace(home="tests.multimodal.rows:unlike")
    with caplog.at_level("INFO", "zoo"):
        model.save(tmp_path / "alone")
        assert "opens in zoo only" in caplog.text
        caplog.clear()
        fusion.save(tmp_path / "saved")
    assert not caplog.text


def test_remedies_are_options_of_the_command_and_a_file_is_called_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    frame = bits(tmp_path, 16, 1)
    frame["text"] += " and more" * 200
    frame.to_csv(tmp_path / "rows.csv", index=False)
    rows = str(tmp_path / "rows.csv")
    words = ("fuse", rows, "--image", "toy/net", "--image-weights", "none", "--text", "toy/text", "--text-weights", "none")
    assert run(*words, "--columns", "label=lable", "--out", str(tmp_path / "odd")) == 1
    assert f"'{rows}' has no column 'lable'" in capsys.readouterr().err
    assert run(*words, "--out", str(tmp_path / "cut")) == 0
    assert f"'{rows}': 16 texts of 16 cut" in caplog.text
    assert "overflow='windows' reads them whole" in caplog.text
    caplog.clear()
    assert run(*words, "--overflow", "windows", "--out", str(tmp_path / "whole")) == 0
    assert "texts of 16 cut" not in caplog.text
    assert run("eval", str(tmp_path / "cut"), rows) == 0
    assert "the head was solved on texts cut like that" in caplog.text  # zoo eval of a fusion takes no --overflow
    assert run(*words, "--valid", rows, "--out", str(tmp_path / "leaked")) == 0
    assert "16 of 16 samples in valid are also in train" in caplog.text


@pytest.mark.parametrize("below", ["", "run"])
def test_the_run_and_the_result_have_a_folder_each(below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bits(tmp_path, 12, 1).to_csv(tmp_path / "rows.csv", index=False)
    words = ("fuse", str(tmp_path / "rows.csv"), "--image", "toy/net", "--text", "toy/text", "--how", "gated")
    out = tmp_path / "new"
    assert run(*words, "--set", f"out={out / below}", "--out", str(out)) == 2
    assert "give each its own" in capsys.readouterr().err
    assert not out.exists()


def test_a_fusion_is_no_backbone_and_says_so(tmp_path: Path) -> None:
    saved = fused(bits(tmp_path, 16, 1), tmp_path, numbers=["size"]).save(tmp_path / "saved")
    with pytest.raises(SavedModelError, match="is a fusion of images, texts or numbers"):
        zoo.get(saved)

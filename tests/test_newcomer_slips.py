"""Slips of people who come from timm, Trainer and fastai: each is named, with what is meant here."""

from __future__ import annotations

import copy
import enum
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import zoo
import zoo.cli
from tests.engine.tiny import NAMES, images
from tests.test_docs import run_zoo
from zoo.data.open import open_train_valid
from zoo.errors import DataError, OptionError, UnknownBackboneError, WeightsError, WeightsNotFoundError
from zoo.models.checks.misplaced import RENAMED


def test_options_of_other_libraries_are_named_as_they_are_here() -> None:
    model = zoo.get("zoo/glyphnet").adapt(3)
    with pytest.raises(OptionError) as error:
        model.fit(images(9), False, learning_rate=1e-3, num_train_epochs=2, bs=4)
    for line in ("'learning_rate' here: it is lr", "'num_train_epochs' here: it is epochs", "'bs' here: it is batch_size"):
        assert line in str(error.value)


def test_every_name_that_is_proposed_is_an_option() -> None:
    from zoo.engine.options.config import OPTIONS

    assert set(RENAMED.values()) <= {*OPTIONS, "valid", "out", "resume", "quiet", "log_with", "on_epoch"}
    assert not set(RENAMED) & set(OPTIONS)


def test_adapt_without_classes_and_wrap_without_inputs_name_the_argument() -> None:
    with pytest.raises(OptionError, match="needs num_classes"):
        zoo.get("zoo/glyphnet").adapt()
    with pytest.raises(OptionError, match="did you mean 'num_classes'"):
        zoo.get("zoo/glyphnet").adapt(num_clases=2)
    with pytest.raises(OptionError, match="needs inputs"):
        zoo.wrap(nn.Conv2d(3, 4, 1))


def test_a_head_that_nobody_trained_is_named_when_it_predicts(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    model = zoo.get("zoo/glyphnet").adapt(3, labels=NAMES)
    assert model.to(torch.float64).to(torch.float32).has_random_head
    assert copy.deepcopy(model).has_random_head
    model.predict(list(images(3)[0]))
    model.evaluate(images(9))
    assert caplog.text.count("random values of adapt()") == 2
    caplog.clear()
    model.embed(list(images(3)[0]))
    model.save(tmp_path / "model")
    zoo.load(tmp_path / "model").predict(list(images(3)[0]))
    model.load_state_dict(model.state_dict())
    model.predict(list(images(3)[0]))
    assert "random values" not in caplog.text


def test_a_trained_head_and_one_of_your_own_are_not_random(tmp_path: Path) -> None:
    model = zoo.get("zoo/glyphnet").adapt(3, labels=NAMES)
    model.fit(images(9), False, out=tmp_path / "run", quiet=True, recipe="linear-probe")
    assert not model.has_random_head
    dim = zoo.get("zoo/glyphnet").spec.features.dim
    assert not zoo.get("zoo/glyphnet").adapt(3, head=nn.Linear(dim, 3)).has_random_head


class Classifier(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stem(x).mean((2, 3)))


def test_a_classifier_left_on_a_wrapped_network_is_named(caplog: pytest.LogCaptureFixture) -> None:
    zoo.wrap(Classifier(10), inputs=zoo.Image(size=16))
    assert "outputs of its classifier 'fc'" in caplog.text
    caplog.clear()
    bare = Classifier(10)
    bare.fc = nn.Identity()  # type: ignore[assignment]
    zoo.wrap(bare, inputs=zoo.Image(size=16))
    assert not caplog.text


def test_lists_of_classes_in_a_single_label_column_are_named(caplog: pytest.LogCaptureFixture) -> None:
    pixels = list(np.zeros((8, 8, 8, 3), np.uint8))
    open_train_valid((pixels, ["ants", "bees", "ants|red", "bees|red|big"] * 2), False)
    assert "'ants|red'" not in caplog.text or "multi-label" in caplog.text
    open_train_valid((pixels, ["ants", "bees", "ants|red", "bees|red|big"] * 2))
    assert "task='multi-label'" in caplog.text
    caplog.clear()
    open_train_valid((pixels, ["black, large", "white, small"] * 4))  # names with a comma
    assert "multi-label" not in caplog.text


def test_measuring_the_training_split_with_others_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import PIL.Image

    model = zoo.get("zoo/glyphnet").adapt(3, labels=NAMES)
    model.save(tmp_path / "model")
    for number, pixels in enumerate(images(18)[0]):
        folder = tmp_path / "data" / ("train" if number < 12 else "val") / NAMES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    code, told = run_zoo(["eval", str(tmp_path / "model"), str(tmp_path / "data")], capsys)
    assert code == 0
    assert "all 18 samples are measured, those of the training split too: train (12), val (6); split='val'" in caplog.text
    assert "samples" in told
    assert "18" in told
    caplog.clear()
    code, told = run_zoo(["eval", str(tmp_path / "model"), str(tmp_path / "data"), "--split", "val"], capsys)
    assert not caplog.text
    assert "6" in told


def test_words_of_the_command_line_that_are_not_known_come_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        zoo.cli.main(["train", "zoo/glyphnet", "photos/train", "photos/val"])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert "validation data are given as --valid DATA" in err
    assert len(err.splitlines()) == 2
    with pytest.raises(SystemExit):
        zoo.cli.main(["train", "zoo/glyphnet", "photos", "--learning-rate", "1e-3", "--on-error", "skip"])
    err = capsys.readouterr().err
    assert "(here: --lr)" in err
    assert "--set on_corrupt=" in err


def test_one_shard_of_several_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match="one of several shards; give 'model"):
        zoo.get("zoo/glyphnet", weights=tmp_path / "model-00001-of-00002.safetensors")


def test_a_checkpoint_under_an_unknown_key_comes_with_the_whole_command(tmp_path: Path) -> None:
    from zoo.weights.pickled.convert import read_checkpoint

    torch.save({"net": {"a": torch.zeros(1)}}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=rf"zoo convert {tmp_path}/net\.pth --key net --out FILE"):
        read_checkpoint(tmp_path / "net.pth")


def test_messages_about_weights_name_paths_with_their_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from zoo.weights.pickled.convert import read_checkpoint

    folder = tmp_path / "my checkpoints"
    folder.mkdir()
    values = {"a": torch.zeros(1)}
    torch.save({"model_state_dict": values, "ema": values}, folder / "net.pth")
    read_checkpoint(folder / "net.pth")
    assert f"{folder}/net.pth: the entry 'model_state_dict' is taken" in caplog.text
    assert f"zoo convert '{folder}/net.pth' --key ema --out FILE" in caplog.text
    with pytest.raises(WeightsNotFoundError, match=rf"did you mean '{folder}/net\.pth'"):
        read_checkpoint(folder / "nte.pth")
    with pytest.raises(WeightsNotFoundError, match=rf"did you mean '{folder}/net\.pth'"):
        zoo.get("zoo/glyphnet", weights=folder / "nett.pth")
    with pytest.raises(WeightsNotFoundError, match=r"is a folder; give a checkpoint in it; it has: net\.pth"):
        read_checkpoint(folder)


def test_paths_on_this_machine_are_not_sent_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    zoo.get("zoo/glyphnet").adapt(2, labels=["a", "b"]).save("runs/ants")
    Path("runs/net.pth").touch()
    for words, told in (
        (["download", "runs/ants"], "holds a saved model, whose weights lie in it"),
        (["lock", "runs/ants"], "holds a saved model, whose weights lie in it"),
        (["download", "runs/net.pth"], "it is a file; a file of weights is given as --weights FILE"),
        (["show", "gone/net.pth"], "there is no such file"),
        (["cv", "runs/antz", "photos"], "no folder of this name that holds a model (did you mean 'runs/ants'?)"),
    ):
        code, printed = run_zoo(words, capsys)
        assert code == 2
        assert told in printed
        assert "Hub" not in printed
    with pytest.raises(UnknownBackboneError, match="for the repository of the Hub, type 'hf/owner/net'"):
        zoo.get("owner/net")


def test_a_url_among_inputs_is_named_as_one() -> None:
    with pytest.raises(DataError, match="is a URL, and inputs are not fetched"):
        zoo.get("zoo/glyphnet").adapt(3).predict("https://example.org/a.jpg")


class ResNet18_Weights(enum.Enum):  # noqa: N801 - as torchvision names it
    IMAGENET1K_V1 = "https://HOST/resnet18-f37072fd.pth"


GLYPHNET = zoo.get("zoo/glyphnet", weights=False)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"a": torch.zeros(1)}, r"type dict; save it, safetensors\.torch\.save_file\(STATE"),
        (OrderedDict(a=torch.zeros(1)), r"type OrderedDict; save it"),
        (nn.Linear(1, 1), r"type Linear; save it, .*MODULE\.state_dict\(\)"),
        (GLYPHNET, "type Backbone; a backbone is adapted as it is"),
        (ResNet18_Weights.IMAGENET1K_V1, r"zoo\.get\('torchvision/resnet18\.imagenet1k_v1'\)"),
        (zoo.Weights(file="own.safetensors"), r"give weights='own\.safetensors'"),
        (zoo.Weights(repo="owner/net"), r"zoo\.get\('hf/owner/net'\)"),
        (io.BytesIO(b"a"), "type BytesIO; give the path"),
        ([], "type list; give weights='FILE'"),
        (b"net.pth", "type bytes; give weights='FILE'"),
        (0, "type int; .*weights=False for random values"),
    ],
)
def test_weights_of_an_unknown_type_are_refused_with_what_to_give(given: object, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        zoo.get("zoo/glyphnet", weights=given)  # type: ignore[arg-type]


def test_a_bool_of_numpy_is_read_as_one() -> None:
    assert not zoo.get("zoo/glyphnet", weights=np.bool_(False)).pretrained  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("none", r"weights=False \(--weights none\)"),
        ("False", "weights=False"),
        ("imagenet", "taken without weights="),
        ("IMAGENET1K_V1", r"zoo\.get\('torchvision/NAME\.imagenet1k_v1'\)"),
        ("ResNet18_Weights.DEFAULT", r"zoo\.get\('torchvision/resnet18'\)"),
        ("DEFAULT", "taken without weights=|takes the declared ones"),
        ("timm/resnet18.a1_in1k", r"given as the name, zoo\.get\('timm/resnet18\.a1_in1k'\)"),
        ("", "weights is empty"),
    ],
)
def test_words_that_other_libraries_take_for_weights_come_with_what_is_meant(word: str, told: str) -> None:
    with pytest.raises(WeightsNotFoundError, match=told):
        zoo.get("zoo/glyphnet", weights=word)


@pytest.mark.parametrize("flag", ["--label-columns", "--classes"])
def test_values_with_blanks_between_them_are_told_to_be_joined_by_commas(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = run_zoo(["train", "zoo/glyphnet", "x.csv", flag, "cat", "dog", "ship", "--out", "runs/x"], capsys)
    assert code == 2
    assert f"{flag} cat,dog,ship" in printed
    assert "--valid" not in printed


def test_days_may_be_written_with_their_unit(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert run_zoo(["cache", "--prune", "30d"], capsys)[0] == 0
    code, printed = run_zoo(["cache", "--prune", "month"], capsys)
    assert code == 2
    assert "'month' is no number of days, such as 30" in printed


def test_a_download_of_several_names_begins_after_all_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = run_zoo(["download", "zoo/glyphnet", "nothing-of-this-name"], capsys)
    assert code == 2
    assert "no backbone 'nothing-of-this-name'" in printed
    assert "licence" not in printed
    for command in ("download", "lock"):
        code, printed = run_zoo([command, "zoo/glyphnett", "nothing-of-this-name", "zoo/glyphnet", "nothing-of-this-name"], capsys)
        assert code == 2
        assert "2 of 4 names cannot be used, and nothing was fetched:" in printed
        assert "no backbone 'zoo/glyphnett' (did you mean 'zoo/glyphnet'?)" in printed
        assert printed.count("no backbone 'nothing-of-this-name'") == 1
        assert "licence" not in printed


def test_a_large_pickle_of_arrays_comes_with_a_way_to_save_it(tmp_path: Path) -> None:
    from zoo.weights.pickled.convert import read_checkpoint

    torch.save({"a": np.zeros(2_200_000)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"save them with safetensors\.numpy\.save_file"):
        read_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("module", "name", "told"),
    [
        (zoo, "list_backbone", "did you mean 'list_backbones'"),
        (zoo, "cross_validate", "it is zoo.select.cross_validate"),
        (zoo.select, "tunes", "did you mean 'tune'"),
        (zoo.transfer, "fixmatch", "did you mean 'FixMatch'"),
        (zoo.transfer, "load", "it is zoo.load"),
    ],
)
def test_a_mistyped_name_of_a_module_names_the_nearest_one(module: Any, name: str, told: str) -> None:
    with pytest.raises(AttributeError, match=told):
        getattr(module, name)


def test_the_name_of_a_backbone_in_place_of_a_run_is_told_as_such(tmp_path: Path) -> None:
    calls = (
        lambda: zoo.load("zoo/glyphnet"),
        lambda: zoo.select.compare("zoo/glyphnet", "other"),
        lambda: zoo.select.soup(["zoo/glyphnet", "other"], images(3), out=tmp_path / "out"),
        lambda: zoo.select.wise_ft("zoo/glyphnet", "other", out=tmp_path / "out"),
    )
    for call in calls:
        with pytest.raises(zoo.ZooError, match=r"'zoo/glyphnet' is a pretrained backbone, .*zoo.get\('zoo/glyphnet'\).*zoo train"):
            call()
    with pytest.raises(zoo.ZooError, match="there is no folder 'zoo/glyphnett'"):
        zoo.load("zoo/glyphnett")


def test_two_numbers_are_typed_with_a_comma(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import PIL.Image

    for number, pixels in enumerate(images(12)[0]):
        (tmp_path / "data" / NAMES[number % 2]).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(tmp_path / "data" / NAMES[number % 2] / f"{number}.png")
    words = ["zoo/glyphnet", str(tmp_path / "data"), "--recipe", "linear-probe", "--image-size", "24,32"]
    assert run_zoo(["train", *words, "--quiet", "--out", str(tmp_path / "run")], capsys)[0] == 0
    assert zoo.load(tmp_path / "run").inputs.size == (24, 32)
    for size, fault in (("24x32", "'24x32' is no number of pixels"), ("1,2,3", "'1,2,3' has 3 numbers")):
        code, told = run_zoo(["eval", "run", "data", "--image-size", size], capsys)
        assert code == 2
        assert fault in told
        assert "height and width such as 224,320" in told
    code, told = run_zoo(["plan", *words, "--set", "window=40"], capsys)
    assert code == 2
    assert "must be two numbers (centre, width)" in told


def test_a_window_reads_as_typed_and_a_wrong_number_is_named() -> None:
    from zoo.engine.options.recipes import resolve_recipe
    from zoo.engine.options.resolve import resolve

    assert resolve("linear-probe", {"window": "40, 400"}).window == (40, 400)
    with pytest.raises(OptionError, match="is 'x'"):
        resolve("linear-probe", {"window": "40,x"})
    with pytest.raises(OptionError, match="did you mean 'auto'"):
        resolve_recipe("autos")

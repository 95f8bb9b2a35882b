"""Pretraining before transfer: what is kept, resumed, refused, and where it helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.engine.rank_work import Culprit, sentences, terminate
from tests.engine.tiny import images
from tests.transfer.pictures import flat, pictures
from tests.transfer.rank_work import small_backbones
from zoo.cli.app import main
from zoo.data.open import open_data
from zoo.errors import DataError, InterruptedRunError, OptionError
from zoo.models.backbone import Backbone
from zoo.registry.registry import use_registry
from zoo.transfer import Dino, MaskedAutoencoder, Pretrained, SimClr, pretrain
from zoo.transfer.pretraining import pretrain as module
from zoo.transfer.pretraining import probe
from zoo.transfer.pretraining.dino import Crops


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    use_registry(small_backbones())
    yield
    use_registry()


UNLABELLED = list(images(100, seed=3)[0])
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 25, "workers": 0, "quiet": True}


def toy() -> Backbone:
    return zoo.get("toy/plain", weights=False)


def values(backbone: Backbone) -> dict[str, torch.Tensor]:
    return backbone.fresh().model.state_dict()


def distance(one: Backbone, other: Backbone) -> float:
    first, second = values(one), values(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_the_result_is_a_backbone_that_its_folder_opens_and_every_record_has_the_meter(tmp_path: Path) -> None:
    found = toy().pretrain(UNLABELLED, out=tmp_path / "more", **SHORT)
    record = json.loads((tmp_path / "more" / "pretrain.json").read_text())
    assert all({"feature_std", "effective_rank", "train_loss"} <= line.keys() for line in record["history"])
    assert record["history"][-1]["steps"] == 8
    assert record["method"]["name"] == "simclr"
    again = zoo.get(tmp_path / "more")
    assert distance(found, again) == 0.0
    assert again.pretrained
    assert distance(again, toy()) > 0
    model = again.adapt(3)
    assert model.embed(UNLABELLED[:2]).shape == (2, 8)


def test_no_warning_tells_how_to_open_the_models_that_are_made_on_the_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = toy()
    backbone.spec = backbone.spec.replace(home="tests.transfer.test_pretrain:no_home")
    found = pretrain(backbone, UNLABELLED, probe=images(60, seed=5), out=tmp_path / "more", **SHORT)
    assert "opens in zoo only" not in caplog.text
    assert "code of your own parts" not in caplog.text
    assert found.backbone.fresh() is not None


def no_home(model: Any) -> str:
    return "no other library has toys"


def test_an_interrupted_pretraining_goes_on_exactly(tmp_path: Path) -> None:
    expected = pretrain(toy(), UNLABELLED, out=tmp_path / "whole", **SHORT).backbone
    table = open_data(UNLABELLED, labelled=False)
    cut = replace(table, inputs=Culprit(table.inputs, 5, terminate, 3))
    with pytest.raises(InterruptedRunError, match=r"Go on with resume=True \(--resume\) and out='[^']*cut'$"):
        pretrain(toy(), cut, out=tmp_path / "cut", **SHORT)
    found = pretrain(toy(), replace(table, inputs=Culprit(table.inputs, -1, terminate)), out=tmp_path / "cut", resume=True, **SHORT)
    assert distance(found.backbone, expected) == 0.0


@pytest.mark.parametrize(("after", "learned"), [(0.4, False), (0.7, True)])
def test_where_the_probe_got_worse_the_old_values_are_kept_and_the_result_says_so(
    after: float, learned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter((0.5, after))
    monkeypatch.setattr(module, "probe_accuracy", lambda *_, **__: next(found))
    backbone = zoo.get(toy().adapt(3, seed=4).save(tmp_path / "old"))
    got = pretrain(backbone, UNLABELLED, probe=images(60, seed=5), out=tmp_path / "new", **SHORT)
    assert (got.probe_before, got.probe_after, got.learned) == (0.5, after, learned)
    assert (distance(zoo.get(tmp_path / "new"), backbone) == 0.0) is not learned
    assert ("got worse, from 0.5000 to 0.4000 on" in got.verdict) is not learned
    assert json.loads((tmp_path / "new" / "pretrain.json").read_text())["learned"] is learned


def pretrained(out: Path, method: Any, **options: Any) -> Pretrained:
    """Pretrain on views of pictures whose class lies in their lower half, by an augmentation that draws the upper half anew."""
    pixels = list(pictures(range(8), 13, 2)[0])
    rng = np.random.default_rng(0)

    def redrawn(image: Any) -> Any:
        array = np.array(image)
        array[:3] = rng.integers(0, 256, array[:3].shape)
        return Image.fromarray(array)

    chosen: dict[str, Any] = {"augment": redrawn, "epochs": 6, "batch_size": 26, "lr": 1e-2, "workers": 0, "quiet": True}
    return pretrain(flat(), pixels, method, probe=pictures(range(8), 10, 0), out=out, **(chosen | options))


def gain(found: Pretrained) -> float:
    assert found.probe_before is not None
    assert found.probe_after is not None
    return found.probe_after - found.probe_before


def test_views_that_redraw_what_does_not_matter_help_the_probe(tmp_path: Path) -> None:
    assert gain(pretrained(tmp_path / "simclr", SimClr(temperature=0.2))) > 0.3


@pytest.mark.sweep
def test_views_help_no_probe_where_the_temperature_makes_all_images_alike(tmp_path: Path) -> None:
    assert gain(pretrained(tmp_path / "blind", SimClr(temperature=1e6))) < 0.2


def tinted(count: int, seed: int) -> tuple[Any, list[str]]:
    """Return images of eight tints under strong noise of single pixels, of which crops keep the tint alone."""
    random, targets = np.random.default_rng(seed), np.arange(count) % 8
    tints = 0.05 * np.random.default_rng(3).normal(size=(8, 3))[targets]
    pixels = 0.5 + tints[:, None, None] + 0.2 * random.normal(size=(count, 6, 6, 3))
    return (255 * pixels.clip(0, 1)).astype(np.uint8), [f"tint {number}" for number in targets]


class Uncentred(Crops):
    """DINO whose centre stays zero."""

    def after_step(self) -> None:
        super().after_step()
        self.teacher.center.zero_()


def perplexities(kind: type[Crops], out: Path) -> tuple[float, float]:
    """Return how many of 16 prototypes the teacher uses for all images, and how many for one, after training."""
    made: list[Any] = []

    def make(base: Any) -> Any:
        made.append(Dino(local_views=1, prototypes=16, hidden=32, bottleneck=8, teacher_momentum=0.9, center_momentum=0.8)(base))
        made[0].__class__ = kind
        return made[0]

    data = tinted(96, 0)
    options: dict[str, Any] = {"recipe": "full", "epochs": 20, "batch_size": 48, "lr": 1e-2, "augment": {"flip": 0, "jitter": 0}}
    flat().adapt(8).fit(data, False, objective=make, workers=0, quiet=True, out=out, **options)
    teacher = made[0].teacher
    pixels = torch.from_numpy(data[0]).permute(0, 3, 1, 2) / 127.5 - 1
    shares = ((teacher(pixels) - teacher.center) / 0.04).softmax(1)
    return tuple(float(torch.special.entr(each).sum(-1).mean().exp()) for each in (shares.mean(0), shares))  # type: ignore[return-value]


def test_the_centre_keeps_the_outputs_apart_that_are_one_prototype_without_it(tmp_path: Path) -> None:
    used, each = perplexities(Crops, tmp_path / "centred")
    assert used > 4
    assert each < 0.7 * used
    assert perplexities(Uncentred, tmp_path / "not")[0] < 1.1


def test_the_centre_follows_the_outputs_for_all_batches_of_a_step(tmp_path: Path) -> None:
    made: list[Any] = []

    def make(base: Any) -> Any:
        made.append(Dino(local_views=0, prototypes=4, hidden=4, bottleneck=4, center_momentum=0.5)(base))
        return made[0]

    flat().adapt(8).fit(tinted(16, 0), False, objective=make, recipe="full", epochs=1, batch_size=16, workers=0, quiet=True, out=tmp_path)
    made[0].teacher.center.zero_()
    made[0]._taught = {(0, 1): (torch.full((4,), 6.0), 2), (2, 3, 4): (torch.full((4,), 4.0), 3)}
    made[0].after_step()
    assert made[0].teacher.center.tolist() == pytest.approx([1.0] * 4)  # half of (6 + 4) / 5
    made[0].after_step()  # what a step has taken over counts once
    assert made[0].teacher.center.tolist() == pytest.approx([1.0] * 4)


def tiled(count: int) -> list[Any]:
    """Return images of one pattern in all patches, of which any patch tells the others."""
    patterns = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    return [np.tile(patterns[number % 3], (4, 4, 1)) for number in range(count)]


def reconstruction(pixels: list[Any], out: Path) -> float:
    options: dict[str, Any] = {"epochs": 4, "batch_size": 20, "lr": 2e-2, "augment": "none", "workers": 0, "quiet": True}
    method = MaskedAutoencoder(mask_ratio=0.5, decoder_width=32, decoder_depth=1)
    run = pretrain(zoo.get("toy/tokens", weights=False), pixels, method, out=out, **options).run
    return float(run.history[-1]["train_loss"])


def test_hidden_patches_are_reconstructed_where_the_others_tell_them_and_not_from_noise(tmp_path: Path) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), dtype=np.uint8))
    assert reconstruction(tiled(100), tmp_path / "tiled") < 0.5  # 1 is the error of the mean of each patch
    assert reconstruction(noise, tmp_path / "noise") > 0.9


def test_texts_learn_to_predict_hidden_words(tmp_path: Path) -> None:
    backbone = zoo.get("toy/text", weights=False, dropout=0.0)
    found = pretrain(backbone, sentences(120)[0], "mlm", out=tmp_path / "mlm", **(SHORT | {"epochs": 8, "lr": 1e-2, "mask_ratio": 0.3}))
    losses = [line["train_loss"] for line in found.run.history]
    assert losses[-1] < losses[0] - 1
    assert distance(zoo.get(tmp_path / "mlm"), found.backbone) == 0.0


def test_the_command_prints_the_verdict_and_train_takes_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, pixels in enumerate(UNLABELLED):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    words = ("pretrain", "toy/plain", tmp_path, "--weights", "none", "--out", tmp_path / "more", "--epochs", "1")
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--batch-size", "50", "--set", "temperature=0.2"])
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    verdict, folder = printed.out.splitlines()
    assert "no probe judged them" in verdict
    assert folder == str(tmp_path / "more")
    assert "no probe judged them" not in printed.err  # it is told once
    assert json.loads((tmp_path / "more" / "pretrain.json").read_text())["method"]["temperature"] == 0.2
    assert zoo.get(tmp_path / "more").pretrained


def test_what_cannot_be_pretrained_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'simcrl' \(did you mean 'simclr'\?\); they are: simclr, dino, mae, mlm"):
        toy().pretrain(UNLABELLED, "simcrl")
    with pytest.raises(OptionError, match=r"MAE: it is no plain ViT, .* layout BCHW .*; take another method: 'simclr' or 'dino'"):
        toy().pretrain(UNLABELLED, "mae", out=tmp_path / "d", **SHORT)
    with pytest.raises(OptionError, match=r"images of 18 x 18 pixels are no whole patches of 4; take image_size=16"):
        zoo.get("toy/tokens", weights=False).pretrain(UNLABELLED, "mae", image_size=18, out=tmp_path / "g", **SHORT)
    with pytest.raises(OptionError, match="augment is a function, and DINO makes its crops itself"):
        toy().pretrain(UNLABELLED, "dino", augment=lambda image: image, out=tmp_path / "h", **SHORT)
    with pytest.raises(OptionError, match=r"mae is for images and volumes, .* reads texts; take method='mlm'"):
        zoo.get("toy/text", weights=False).pretrain(sentences(120)[0], "mae", out=tmp_path / "e", **SHORT)
    with pytest.raises(OptionError, match=r"dino is for images, .* reads texts; take method='mlm'"):
        zoo.get("toy/text", weights=False).pretrain(sentences(120)[0], "dino", out=tmp_path / "f", **SHORT)
    with pytest.raises(OptionError, match=r"no option 'temprature' \(did you mean 'temperature'"):
        toy().pretrain(UNLABELLED, temprature=0.2)
    with pytest.raises(DataError, match=r"has 20 samples, too few .* at least 100"):
        toy().pretrain(UNLABELLED[:20])
    with pytest.raises(DataError, match="holds no texts; give a table"):
        pretrain(zoo.get("toy/text", weights=False), str(tmp_path), "mlm", out=tmp_path / "i", **SHORT)
    with pytest.raises(OptionError, match="both views of an image are equal"):
        toy().pretrain(UNLABELLED, out=tmp_path / "a", augment="none", **SHORT)
    with pytest.raises(OptionError, match=r"(?s)mlm is for texts, .* reads images; take method='simclr'.*20 samples, too few"):
        toy().pretrain(UNLABELLED[:20], "mlm", out=tmp_path / "b", **SHORT)
    with pytest.raises(OptionError, match=r"simclr is for images and volumes, .* take method='mlm'"):
        zoo.get("toy/text", weights=False).pretrain(sentences(120)[0], out=tmp_path / "c", **SHORT)


def test_the_probe_solves_a_head_and_leaves_the_backbone_as_it_is(tmp_path: Path) -> None:
    backbone = zoo.get(toy().adapt(3).save(tmp_path / "old"))
    before = values(backbone)
    tables = probe.open_probe(backbone, images(60, seed=5), 0)
    assert 0.5 < probe.probe_accuracy(backbone, tables, workers=0) <= 1
    assert all(torch.equal(value, before[name]) for name, value in values(backbone).items())

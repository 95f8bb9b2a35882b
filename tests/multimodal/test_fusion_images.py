"""Augmentation of the images of a fusion: of these alone, by the words and the rule of other runs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.multimodal.rows import agreement, bits, fused
from zoo.data.dataset import Samples
from zoo.data.images.augment import Augment
from zoo.data.images.transforms import eval_transform, train_transform
from zoo.engine.solved import augmentation_choice
from zoo.errors import OptionError
from zoo.transfer import Fusion, fuse
from zoo.transfer.fusion.network import packed_table

TUNED: dict[str, Any] = {"numbers": ["size"], "tune": "all"}


def tuned(folder: Path, out: Path | None = None, tune: str = "all", **training: Any) -> Fusion:
    given = {"epochs": 1, "batch_size": 16} | training | ({"out": out} if out else {})
    return fused(bits(folder, 24, 1), folder, numbers=["size"], tune=tune, training=given)


def recorded(out: Path) -> Any:
    """Return the augmentation of a run, None where its last phase has none."""
    config = json.loads((out / "run.json").read_text())["config"]
    return config["augment"] if config["recipe"]["phases"][-1]["augment"] else None


def test_images_are_augmented_and_all_else_of_a_row_stays(folder: Path) -> None:
    frame = bits(folder, 24, 1)
    fusion = fused(frame, folder, "gated", numbers=["size"], training={"epochs": 1})
    parts = fusion.read(frame, labelled=True)
    network, image, table = fusion.network, fusion.models["image"], packed_table(fusion.models, parts, fusion.tokens)
    assert network is not None
    augment = Augment()
    plain, augmented = Samples(table, eval_transform(network.inputs)), Samples(table, train_transform(network.inputs, augment), seed=5)  # type: ignore[arg-type]
    packing = network.backbone.towers.packing  # type: ignore[union-attr]
    for row in (0, 7):
        before, (first, *_), (second, *_) = plain.at(0, row), augmented.at(0, row), augmented.at(1, row)
        one, two, three = (packing.unpack(x[None]) for x in (before[0], first, second))  # type: ignore[operator]
        assert all(torch.equal(one[place], other[place]) for other in (two, three) for place in (0, 1))
        assert all(torch.equal(values, other[2]["text"][name]) for other in (two, three) for name, values in one[2]["text"].items())
        pixels = [each[2]["image"][0] for each in (one, two, three)]
        assert not torch.allclose(pixels[0], pixels[1])
        assert not torch.allclose(pixels[1], pixels[2])  # anew in each epoch
        alone = train_transform(image.inputs, augment)(parts.inputs["image"][row], random.Random(f"5/0/{row}"))  # type: ignore[arg-type]
        assert torch.equal(pixels[1], alone)  # as a run of the image backbone alone would
        assert augmented.at(0, row)[1] == before[1]


def test_an_augmentation_of_the_users_own_sees_the_images_in_training_only(folder: Path) -> None:
    seen: list[Any] = []

    def noted(image: Any) -> Any:
        seen.append(image.size)
        return image

    fusion = tuned(folder, augment=noted)
    held = 24 - len(seen)
    assert 0 < held < 12  # each training row once, those of validation never
    fusion.predict(bits(folder, 24, 1))
    assert len(seen) + held == 24


def test_where_whole_towers_train_the_usual_rule_decides(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Any] = []

    def said(helps: bool) -> None:
        def judge(features: Any, views_of: Any, *_: Any, **__: Any) -> bool:
            judged.append((features, views_of(1)[0]))
            return helps

        monkeypatch.setattr("zoo.transfer.fusion.augmentation.views_help", judge)

    said(True)
    tuned(folder, tmp_path / "yes")
    said(False)
    tuned(folder, tmp_path / "no")
    assert (recorded(tmp_path / "yes"), recorded(tmp_path / "no"), len(judged)) == ({}, None, 2)
    features, views = (np.asarray(values) for values in judged[0])
    width = zoo.get("toy/net", weights=False).spec.features.dim
    assert not np.allclose(features[:, :width], views[:, :width])
    assert np.array_equal(features[:, width:], views[:, width:])  # the texts, the numbers, what is missing
    tuned(folder, tmp_path / "top", tune="top")
    tuned(folder, tmp_path / "asked", tune="top", augment="light")
    tuned(folder, tmp_path / "none", augment="none")
    assert len(judged) == 2  # nothing to judge where the answer is given, or nothing of the kind trains
    assert [recorded(tmp_path / name) for name in ("top", "asked", "none")] == [None, {}, None]


def test_strong_augmentation_mixes_no_rows(folder: Path, tmp_path: Path) -> None:
    tuned(folder, tmp_path / "run", augment="strong")
    assert recorded(tmp_path / "run") == {"rand_augment": 9, "erase": 0.25}


def test_the_rule_runs_on_real_views(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, judged = augmentation_choice.held_out_losses, list[Any]()
    monkeypatch.setattr(augmentation_choice, "held_out_losses", lambda *a, **b: (judged.append(real(*a, **b)), judged[-1])[1])
    frame = agreement(folder, 24, 2).assign(label=["ab"[row % 2] for row in range(24)])  # the colour, which no crop or flip changes
    fused(frame, folder, tune="all", training={"epochs": 1, "out": tmp_path / "run"})
    assert len(judged) == 1
    assert judged[0].without != judged[0].with_views
    assert recorded(tmp_path / "run") == ({} if judged[0].helps else None)


def test_an_augmentation_that_does_not_fit_is_refused_before_anything_is_read() -> None:
    def refused(**training: Any) -> pytest.ExceptionInfo[OptionError]:
        with pytest.raises(OptionError) as error:
            fuse("none.csv", **({"image": "toy/net", "text": "toy/text"} | TUNED | {"training": training}))
        return error

    assert "'mixup' (it would mix the texts" in str(refused(mixup=0.2).value)
    assert "mixup would mix the texts" in str(refused(augment={"mixup": 0.2}).value)
    assert "'lihgt' (did you mean 'light'?)" in str(refused(augment="lihgt").value)
    with pytest.raises(OptionError, match=r"augment: it is for images, and there is no image="):
        fuse("none.csv", text="toy/text", **TUNED, training={"augment": "light"})
    with pytest.raises(OptionError, match=r"a solved head and no training"):
        fuse("none.csv", image="toy/net", text="toy/text", training={"augment": "light"})

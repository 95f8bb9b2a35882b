"""What a check finds by measuring: near duplicates, wrong labels, shortcuts, drift; and the canary of random labels."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

import zoo
from tests.select.audit.test_exact import of, picture
from zoo.data.open import open_train_valid
from zoo.data.table import Table
from zoo.errors import LeakError
from zoo.select.audit import check_data
from zoo.select.audit.findings.label_noise import wrong_labels
from zoo.select.audit.findings.near import nearest_pairs, unit_rows
from zoo.select.audit.findings.shortcuts import auroc
from zoo.select.audit.reading.features import out_of_fold
from zoo.select.audit.reading.sources import Opened


def jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return Image.open(io.BytesIO(stream.getvalue()))


VARIANTS = {
    "JPEG": jpeg,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.02),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "smaller": lambda image: image.resize((96, 80), Image.Resampling.BICUBIC),
    "cut": lambda image: image.crop((2, 3, image.width - 2, image.height - 1)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_near_duplicate_in_another_split_is_found_and_others_are_not(name: str) -> None:
    big = [picture(number).resize((192, 160), Image.Resampling.BICUBIC) for number in range(30)]
    train, valid = big[:20], [*big[20:], VARIANTS[name](big[7])]
    audit = check_data((train, [0, 1] * 10), (valid, [0, 1] * 5 + [1]), skip=("labels", "drift", "shortcuts"), quiet=True)
    assert [finding.rows for finding in of(audit, "near-duplicates")] == [((7, 30),)]
    assert not of(audit, "duplicates")


def test_neighbours_found_in_blocks_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_rows(np.random.default_rng(0).normal(size=(50, 6)))
    whole = vectors @ vectors.T
    np.fill_diagonal(whole, -1)
    near = [(row, int(other)) for row in range(50) for other in np.argsort(-whole[row])[:2] if whole[row, other] > 0.5]
    wanted = {(min(pair), max(pair)) for pair in near}
    monkeypatch.setattr("zoo.select.audit.findings.near.BLOCK", 7)
    found = nearest_pairs([vectors], np.zeros(50), least=0.5, most=2, poll=lambda: None)
    assert {pair[:2] for pair in found} == wanted


def test_a_burst_of_like_images_in_two_splits_is_found_across_them() -> None:
    source = np.random.default_rng(0)
    scene = source.normal(size=64)
    burst = unit_rows(np.stack([scene + 0.1 * source.normal(size=64) for _ in range(10)]))
    for row in range(1, 5):  # within a split even more alike
        burst[row] = unit_rows((burst[0] + 0.01 * burst[row])[None])[0]
        burst[row + 5] = unit_rows((burst[5] + 0.01 * burst[row + 5])[None])[0]
    splits = np.repeat(["train", "valid"], 5)
    found = nearest_pairs([burst], splits, least=0.9, poll=lambda: None)
    assert {one for one, other, _ in found if splits[one] != splits[other]} == set(range(5))


def test_texts_that_differ_by_a_word_or_by_punctuation_are_near_duplicates() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(200)]
    texts = [" ".join(rng.sample(words, 12)) for _ in range(40)]
    frame = pd.DataFrame({"text": texts, "label": ["a", "b"] * 20, "split": ["train"] * 30 + ["test"] * 10})
    frame.loc[35, "text"] = texts[3].upper().replace(" ", "-") + "!"
    frame.loc[36, "text"] = " ".join([*texts[4].split()[:5], "otherwise", *texts[4].split()[6:]])
    audit = check_data(frame, quiet=True)
    assert audit.reads == "text"
    assert [finding.rows for finding in of(audit, "near-duplicates", "leak")] == [((3, 35),)]
    assert [finding.rows for finding in of(audit, "near-duplicates", "warning")] == [((4, 36),)]
    assert set(audit.left_out) == {"labels", "drift"}


def digits() -> tuple[Any, Any]:
    found = load_digits()
    return (found.images * 15).astype(np.uint8), found.target


def test_planted_wrong_labels_come_first() -> None:
    pytest.importorskip("cleanlab")
    pixels, labels = digits()
    pixels, labels = pixels[:600], labels[:600].copy()
    rng = np.random.default_rng(0)
    planted = rng.choice(600, 30, replace=False)
    labels[planted] = (labels[planted] + rng.integers(1, 10, 30)) % 10
    audit = check_data((pixels, labels), skip=("near-duplicates", "shortcuts"), quiet=True)
    (finding,) = of(audit, "labels")
    first = {row for (row,) in finding.rows[:30]}
    assert len(first & set(planted.tolist())) >= 24
    assert audit.figures["labels"]["probe_accuracy"] > 0.8
    assert finding.level == "warning"


def test_a_probe_that_doubts_a_third_of_the_labels_warns_of_none() -> None:
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    table = Table(list(range(100)), np.arange(100) % 2, ("a", "b"))
    probabilities = rng.dirichlet((2, 2), 100)
    right = probabilities.argmax(1) == table.targets
    probabilities[np.flatnonzero(~right)[::3]] = probabilities[np.flatnonzero(~right)[::3], ::-1]  # two of three are right then
    (finding,), figures = wrong_labels(Opened(table, {}), np.arange(100), table, probabilities)
    assert figures["suspects"] > 20
    assert finding.level == "note"


@pytest.mark.parametrize(("share", "known"), [(0.5, 0.5), (0.9, 0.88), (0.5, 0.62)])
def test_a_probe_that_is_hardly_better_than_the_most_frequent_class_doubts_no_label(share: float, known: float) -> None:
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    targets = np.asarray(np.arange(200) >= 200 * share, dtype=np.int64)
    guessed = np.where(rng.permutation(200) < 200 * known, targets, 1 - targets)
    probabilities = np.where(np.eye(2)[guessed] > 0, 0.8, 0.2)
    table = Table(list(range(200)), targets, ("a", "b"))
    (finding,), figures = wrong_labels(Opened(table, {}), np.arange(200), table, probabilities)
    assert (finding.level, finding.rows, figures["suspects"]) == ("note", (), 0)
    assert f"right on {known:.0%} of the samples, always naming the most frequent class on {share:.0%}" in finding.message


def test_labels_that_nothing_could_be_held_out_to_judge_are_not_told_as_a_weak_probe() -> None:
    table = Table(list(range(4)), np.arange(4), tuple("abcd"))
    (finding,), figures = wrong_labels(Opened(table, {}), np.arange(4), table, np.full((4, 4), np.nan))
    assert "no sample can be held out" in finding.message
    assert (figures["samples"], figures["probe_accuracy"], figures["suspects"]) == (0, None, 0)


def test_without_cleanlab_the_part_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cleanlab", None)
    monkeypatch.setattr("zoo.select.audit.checking.features_of", lambda *args: pytest.fail("features are computed in vain"))
    pixels, labels = digits()
    audit = check_data((pixels[:60], labels[:60]), skip=("near-duplicates", "shortcuts"), quiet=True)
    assert "pip install cleanlab (the extra 'audit')" in audit.left_out["labels"]


def test_probabilities_of_a_row_do_not_depend_on_its_own_values_or_label() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(40, 5)).astype(np.float32), np.arange(40) % 2
    table = Table(list(range(40)), targets, ("a", "b"), groups=tuple(str(row) for row in range(40)))
    before = out_of_fold(features, table, seed=0, poll=lambda _: None)
    changed = features.copy()
    changed[3] *= 1000
    after = out_of_fold(changed, table, seed=0, poll=lambda _: None)
    from zoo.data.splits.folds import folds_of

    (held,) = (held for _, held in folds_of(table, 0) if 3 in held)
    others = np.setdiff1d(held, [3])
    np.testing.assert_array_equal(before[others], after[others])  # scaled by the statistics of the other folds only


@pytest.mark.parametrize("planted", ["corner", "column", "size", "camera"])
def test_a_planted_shortcut_is_flagged(planted: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        label = number % 2
        image = picture(number)
        if planted == "corner":
            image.paste((255, 255, 255) if label else (0, 0, 0), (0, 0, 4, 4))
        if planted == "size" and label:
            image = image.resize((56, 46))
        exif = Image.Exif()
        exif[271] = "Acme" if planted == "camera" and label else "Other"
        image.save(tmp_path / f"{number}.png", exif=exif)
        scanner = label if planted == "column" and rng.random() < 0.9 else int(rng.integers(0, 2))
        rows.append((f"{number}.png", "ab"[label], f"s{scanner}"))
    pd.DataFrame(rows, columns=["file_name", "label", "scanner"]).to_csv(tmp_path / "table.csv", index=False)
    audit = check_data(tmp_path / "table.csv", skip=("near-duplicates", "labels", "drift"), quiet=True)
    (finding,) = of(audit, "shortcuts")
    name = {"corner": "corner pixels", "column": "column 'scanner'", "size": "image size", "camera": "camera"}[planted]
    assert name in finding.message
    assert audit.figures["shortcuts"][name] > 0.85
    others = set(audit.figures["shortcuts"]) - {name, "file size", "aspect", "all together", "corner pixels"}
    assert all(audit.figures["shortcuts"][other] < 0.7 for other in others)


def test_an_id_of_a_patient_is_no_shortcut_when_patients_stay_together() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 3)
    labels = np.asarray(rng.integers(0, 2, 40))[patients]
    frame = pd.DataFrame({"image": [np.asarray(picture(row)) for row in range(120)], "label": labels, "group": patients, "visit": patients})
    audit = check_data(frame, skip=("near-duplicates", "labels", "drift"), quiet=True)
    assert audit.figures["shortcuts"]["column 'visit'"] < 0.75


def test_equal_samples_stay_together_where_a_shortcut_is_looked_for() -> None:
    rng = np.random.default_rng(0)
    pictures = np.repeat(np.arange(40), 3)
    labels = np.asarray(rng.integers(0, 2, 40))[pictures]
    images = [np.asarray(picture(int(number))) for number in pictures]
    skip = ("near-duplicates", "labels", "drift")
    for groups in ({}, {"group": np.arange(120)}):  # without groups, and with such as do not keep equal samples together
        frame = pd.DataFrame({"image": images, "label": labels, "visit": pictures, **groups})
        assert check_data(frame, skip=skip, quiet=True).figures["shortcuts"]["column 'visit'"] < 0.75


def test_equal_samples_stay_together_where_drift_is_looked_for() -> None:
    pixels, labels = digits()
    sides = [(np.repeat(pixels[start : start + 24], 5, axis=0), np.repeat(labels[start : start + 24], 5)) for start in (0, 24)]
    audit = check_data(*sides, skip=("near-duplicates", "labels", "shortcuts"), quiet=True)
    assert audit.figures["drift"]["valid"]["auroc"] < 0.7
    assert not of(audit, "drift")


def test_the_area_is_the_mean_over_the_classes_that_some_samples_have_and_some_lack() -> None:
    targets = np.asarray([0, 0, 1, 1])
    scores = np.asarray([[3.0, 0.0, 9.0], [1.0, 0.0, 9.0], [2.0, 1.0, 9.0], [0.0, 1.0, 9.0]])
    assert auroc(scores, targets) == pytest.approx((0.75 + 1) / 2)
    assert auroc(scores[:2], targets[:2]) == 0.5


def test_drift_is_told_where_there_is_some_only() -> None:
    pixels, labels = digits()
    order = np.random.default_rng(0).permutation(len(pixels))[:400]
    pixels, labels = pixels[order], labels[order]
    skip = ("near-duplicates", "labels", "shortcuts")
    alike = check_data((pixels[:200], labels[:200]), (pixels[200:], labels[200:]), skip=skip, quiet=True)
    apart = check_data((pixels[:200], labels[:200]), (255 - pixels[200:], labels[200:]), skip=skip, quiet=True)
    assert not of(alike, "drift")
    assert "tells valid from it" in of(apart, "drift")[0].message
    assert apart.figures["drift"]["valid"]["auroc"] > 0.95
    assert 0.4 < alike.figures["drift"]["valid"]["auroc"] < 0.6


def test_random_labels_are_not_learnt_but_through_a_leak(tmp_path: Path) -> None:
    # The canary: every patient has four nearly equal pictures and a random label. Held-out patients must be at chance.
    pixels, _ = digits()
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(120), 4)
    noise = rng.integers(-8, 9, (480, 8, 8))
    pictures = list(np.clip(pixels[patients].astype(int) + noise, 0, 255).astype(np.uint8))
    labels = np.asarray(["a", "b"])[rng.integers(0, 2, 120)[patients]]
    table = Table(pictures, (labels == "b").astype(np.int64), ("a", "b"), groups=tuple(map(str, patients)))

    def score(train: Table, valid: Table) -> float:
        fresh = zoo.get("zoo/glyphnet").adapt(2, labels=("a", "b"))
        how: dict[str, Any] = {"recipe": "linear-probe", "epochs": 1, "out": tmp_path / "run", "quiet": True}
        fresh.fit(train, valid, **how)
        return float(fresh.evaluate(valid)["accuracy"])

    train, valid = open_train_valid(table, seed=1)
    assert valid is not None
    independent = len(set(valid.groups or ()))
    assert score(train, valid) <= 0.5 + 3 * (0.25 / independent) ** 0.5
    order = rng.permutation(480)
    cut = (table.select(order[:360]), table.select(order[360:]))
    with pytest.raises(LeakError, match="also have samples in train"):
        open_train_valid(*cut)
    assert len(open_train_valid(*(replace(part, groups=None) for part in cut))) == 2

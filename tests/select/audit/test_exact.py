"""What a check finds by equality: duplicates, groups, ids, classes, broken files; its record, sheet and exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.engine.tiny import images, model
from tests.faults.fork_run import ended, fork
from tests.test_docs import run_zoo
from zoo.cli.app import main
from zoo.data.open import open_data, open_train_valid
from zoo.data.splits.leaks import find_leak
from zoo.engine.rundir.run_folder import claim_own_folder, release_folder
from zoo.errors import DataError, LeakError, OptionError, OutputExistsError, OutputPermissionError, RunLockedError
from zoo.select.audit import check_data
from zoo.select.audit.findings.finding import Audit, Finding
from zoo.select.audit.sheet import SHOWN
from zoo.util.process_caches import CACHES

FAST = ("near-duplicates", "labels", "shortcuts", "drift")


def picture(seed: int) -> Image.Image:
    """Return a picture that is like no other one: a few smooth blobs."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((48, 40), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train and test folders of two classes, without a fault."""
    for split, number in (("train", 8), ("test", 4)):
        for label in ("ants", "bees"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for i in range(number):
                picture(1000 * (label == "bees") + 100 * (split == "test") + i).save(tmp_path / "data" / split / label / f"{i}.png")
    return tmp_path / "data"


def of(audit: Audit, check: str, level: str = "") -> list[Finding]:
    return [finding for finding in audit.findings if finding.check == check and level in ("", finding.level)]


def test_a_source_without_groups_beside_one_with_them_is_told() -> None:
    frame = pd.DataFrame({"image": [np.asarray(picture(row)) for row in range(20)], "label": list("ab") * 10, "group": list("cdef") * 5})
    skip = ("near-duplicates", "labels", "drift", "shortcuts")
    audit = check_data(frame[:12], frame[12:].drop(columns="group"), skip=skip, quiet=True)
    assert [finding.message for finding in of(audit, "groups")] == ["8 samples without a group; each is one of its own"]


def test_clean_data_have_no_finding(folder: Path) -> None:
    audit = check_data(folder, skip=("labels", "drift", "shortcuts"), quiet=True)
    assert not audit.findings
    assert check_data(folder, backbone="none", skip=("near-duplicates",), quiet=True).figures.get("labels") is None
    assert audit.splits == {"train": 16, "test": 8}
    assert audit.classes == {"ants": 12, "bees": 12}
    assert audit.figures["majority"] == {"train": 0.5, "test": 0.5}


def test_planted_duplicates_are_found_and_nothing_else(folder: Path) -> None:
    planted = []
    for number in range(3):
        source, copy = folder / "train" / "ants" / f"{number}.png", folder / "test" / "ants" / f"copy{number}.png"
        copy.write_bytes(source.read_bytes())
        planted.append({str(source), str(copy)})
    (folder / "train" / "bees" / "again.png").write_bytes((folder / "train" / "ants" / "5.png").read_bytes())
    audit = check_data(folder, skip=FAST, quiet=True)
    (leak,), (against,) = of(audit, "duplicates", "leak"), of(audit, "duplicates", "warning")
    found = [set(samples) for samples in audit.to_dict()["findings"][0]["samples"]]
    assert sorted(map(sorted, found)) == sorted(map(sorted, planted))
    assert leak.count == 3
    assert against.captions == ("ants and bees",)
    assert "contradicting labels" in against.message


def test_groups_of_two_splits_and_spellings_of_an_id_are_found(tmp_path: Path) -> None:
    rows = []
    groups = [("007", "train"), ("7 ", "val"), ("8", "train"), ("9", "test"), ("Ann", "train"), ("ann", "test")]
    for number, (group, split) in enumerate(groups):
        picture(number).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", "ab"[number % 2], split, group))
    pd.DataFrame(rows, columns=["file_name", "label", "split", "patient_id"]).to_csv(tmp_path / "table.csv", index=False)
    audit = check_data(tmp_path / "table.csv", skip=FAST, quiet=True)
    leaks = of(audit, "groups", "leak")
    assert [finding.rows for finding in leaks] == [((0, 1),), ((4, 5),)]
    assert "'007'" in leaks[0].message
    assert "train and in valid" in leaks[0].message
    assert "'007' and '7" in of(audit, "groups", "warning")[0].message


def test_a_missing_group_column_names_the_nearest(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "table.csv").write_text("file_name,label,patient_id\n0.png,a,1\n")
    with pytest.raises(DataError, match=r"no column 'patient_ids' \(did you mean 'patient_id'\?\)"):
        check_data(tmp_path / "table.csv", columns={"group": "patient_ids"}, quiet=True)


def test_classes_that_are_empty_rare_new_absent_or_alike_are_told(tmp_path: Path) -> None:
    labels = [("train", "a")] * 6 + [("train", "b")] * 2 + [("train", "B")] * 6 + [("val", "a")] * 3 + [("val", "new")] + [("val", None)]
    pixels = [np.asarray(picture(number)) for number in range(len(labels))]
    frame = pd.DataFrame({"image": pixels, "label": [label for _, label in labels], "split": [split for split, _ in labels]})
    told = "\n".join(finding.message for finding in of(check_data(frame, skip=FAST, quiet=True), "classes"))
    assert "1 sample without a label: valid (1)" in told
    assert "1 class with fewer than 5 samples in train: 'b' (2)" in told
    assert "1 class in valid and not in train: 'new' (1)" in told
    assert "2 classes of train without samples in valid" in told
    assert "'B' and 'b'" in told


def test_a_split_of_one_class_is_told_and_is_not_fatal() -> None:
    pixels, labels = images(12)
    audit = check_data((pixels, labels), (pixels[:1] // 2, labels[:1]), quiet=True, skip=("labels",))
    assert any("1 class only in valid" in finding.message for finding in of(audit, "classes"))


def test_broken_files_are_listed_and_the_others_are_checked(folder: Path) -> None:
    (folder / "train" / "ants" / "0.png").write_bytes(b"no picture")
    (folder / "train" / "bees" / "1.png").write_bytes(b"")
    Image.new("RGB", (48, 40), (9, 9, 9)).save(folder / "train" / "bees" / "flat.png")
    Image.new("RGB", (48, 8), (0, 90, 9)).save(folder / "train" / "bees" / "low.png")
    audit = check_data(folder, skip=("labels", "drift"), quiet=True)
    (broken,) = of(audit, "files")
    assert (broken.count, len(broken.captions)) == (2, 2)
    values = "\n".join(finding.message for finding in of(audit, "values", "warning"))
    assert "2 samples of a single value" in values or "1 sample of a single value" in values
    assert "1 image with a side under 16 pixels" in values


def test_files_that_a_table_names_and_that_do_not_exist_are_listed(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "table.csv").write_text("file_name,label\n0.png,a\nabsent.png,b\n")
    (broken,) = of(check_data(tmp_path / "table.csv", skip=FAST, quiet=True), "files")
    assert broken.rows == ((1,),)


def test_the_record_and_the_sheet_are_written_and_the_sheet_needs_nothing_else(folder: Path, tmp_path: Path) -> None:
    (folder / "test" / "ants" / "<b>.png").write_bytes((folder / "train" / "ants" / "0.png").read_bytes())
    audit = check_data(folder, skip=("labels", "drift"), out=tmp_path / "out", quiet=True)
    page = (tmp_path / "out" / "check.html").read_text()
    assert json.loads((tmp_path / "out" / "check.json").read_text()) == json.loads(json.dumps(audit.to_dict()))
    assert page.count("data:image/jpeg;base64,") >= 2
    assert "<b>" not in page
    assert not [part for part in ("http://", "https://", "<script", "<link") if part in page]
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(OutputExistsError, match="holds other files"):
        check_data(folder, out=tmp_path / "out", quiet=True)


def test_a_folder_that_cannot_be_written_or_is_in_use_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputPermissionError, match="choose a folder of your own"):
        check_data(folder, out=tmp_path / "file" / "out", quiet=True)
    claim_own_folder(tmp_path / "busy", ())
    with pytest.raises(RunLockedError, match="in use by another run"):
        check_data(folder, out=tmp_path / "busy", quiet=True)
    release_folder(tmp_path / "busy")
    assert not (tmp_path / "busy").exists()


def test_a_listing_that_is_cut_says_how_many_more_there_are(tmp_path: Path) -> None:
    images = [np.full((20, 20, 3), number % 7, np.uint8) for number in range(210)]
    skip = ("near-duplicates", "labels", "drift", "shortcuts")
    audit = check_data((images, list("ab") * 105), skip=skip, out=tmp_path / "out", quiet=True)
    finding = next(one for one in of(audit, "values") if "single value" in one.message)
    assert (finding.count, len(finding.rows), finding.more) == (210, 200, 10)
    assert f"{SHOWN} of 210 are shown; the first 200 are in check.json" in (tmp_path / "out" / "check.html").read_text()


def test_a_repeated_check_reads_nothing_again_and_finds_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check_data(folder, out=tmp_path / "out", quiet=True, skip=("labels",))
    CACHES.clear()
    monkeypatch.setattr("zoo.select.audit.reading.facts._facts", None)
    monkeypatch.setattr("zoo.select.audit.reading.features.run_blocks", None)
    assert check_data(folder, out=tmp_path / "out", quiet=True, skip=("labels",)).to_dict() == first.to_dict()


def test_exit_codes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = run_zoo(["data", "check", "data", "--skip", "labels,drift,shortcuts"], capsys)
    assert (code, "clean     nothing was found" in told, "looking for near duplicates" in told) == (0, True, True)
    (folder / "test" / "ants" / "copy.png").write_bytes((folder / "train" / "ants" / "0.png").read_bytes())
    code, told = run_zoo(["data", "check", "data", "--skip", ",".join(FAST), "--quiet"], capsys)
    assert (code, "copy.png" in told, "looking for" in told) == (3, True, False)
    code, told = run_zoo(["data", "check", "data", "--json", "--quiet", "--skip", "label"], capsys)
    assert (code, "did you mean 'labels'" in told) == (2, True)
    code, told = run_zoo(["data", "check", "dat"], capsys)
    assert (code, "did you mean 'data'" in told) == (1, True)


def test_json_is_one_document(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["data", "check", str(folder), "--json", "--out", str(tmp_path / "out"), "--skip", ",".join(FAST)])
    assert (stop.value.code, json.loads(capsys.readouterr().out)["leak"]) == (0, False)


def test_a_kind_that_the_backbone_does_not_read_is_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match="the data are texts, and the backbone reads images"):
        check_data(folder, reads="text", backbone="zoo/glyphnet", quiet=True)
    with pytest.raises(OptionError, match="did you mean 'image'"):
        check_data(folder, reads="images", quiet=True)


def test_training_refuses_the_leak_and_the_record_of_a_run_that_may_go_on_has_it(folder: Path, tmp_path: Path) -> None:
    (folder / "test" / "ants" / "copy.png").write_bytes((folder / "train" / "ants" / "0.png").read_bytes())
    given = (str(folder / "train"), str(folder / "test"))
    with pytest.raises(LeakError, match="allow_leak=True") as caught:
        model(2).fit(*given, out=tmp_path / "refused", quiet=True)
    assert caught.value.exit_code == 3
    model(2).fit(*given, recipe="linear-probe", epochs=1, allow_leak=True, out=tmp_path / "run", quiet=True)
    leak = json.loads((tmp_path / "run" / "run.json").read_text())["data"]["valid"]["leak"]
    assert (leak["samples"], leak["groups"]) == (1, 0)
    assert "copy.png" in leak["examples"][0]


def test_a_run_without_a_leak_has_none_in_its_record(folder: Path) -> None:
    train, valid = open_train_valid(str(folder / "train"), str(folder / "test"))
    assert valid is not None
    assert (valid.leak, find_leak(train, valid)) == (None, None)
    assert open_data(folder / "train").leak is None


def test_an_interrupted_check_ends_with_130_and_goes_on(folder: Path, tmp_path: Path) -> None:
    first = folder / "train" / "ants" / "more.bmp"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)).save(first)
    bitmap = first.read_bytes()
    for number in range(1500):
        first.with_name(f"more{number}.bmp").write_bytes(bitmap[:-4] + number.to_bytes(4, "big"))
    words = ["data", "check", str(folder), "--out", str(tmp_path / "out"), "--skip", "labels,drift,shortcuts"]

    def check() -> None:
        sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115  # for the life of the process
        main(words)

    log = tmp_path / "log"
    child = fork(check, log)
    while not (log.exists() and "reading: 512" in log.read_text()):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), log.read_text()
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    code, rest = ended(child), log.read_text()
    assert code == 130, rest
    assert "the same command goes on" in rest
    assert not (tmp_path / "out" / "check.json").exists()
    assert list((tmp_path / "out" / "cache").glob("*.npz"))


def test_sentences_of_tagged_words_name_their_task(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("Ann\tB-PER\nsings\tO\n\nBob\tB-PER\n" * 3)
    with pytest.raises(OptionError, match=r"sentences of tagged words, .* pass task='token-classification'"):
        check_data(path, quiet=True)
    assert check_data(path, task="token-classification", quiet=True).splits == {"train": 4}

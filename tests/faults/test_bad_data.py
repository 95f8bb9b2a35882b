"""D1 and D9: files that cannot be read are named or skipped, exactly those each time; odd sizes and names have defined results."""

from __future__ import annotations

import json
import os
import signal
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.engine.tiny import difference, images, model, values
from zoo.data.open import open_data
from zoo.engine.loading.order import even_batches
from zoo.errors import CorruptInputError, DataError, InterruptedRunError, ZooError

COLOURS = ("blue", "green", "red")
OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 50, "quiet": True, "image_size": 16}


def folder(where: Path, per_class: int = 6, size: int = 16, classes: tuple[str, ...] = COLOURS) -> Path:
    source = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (where / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = source.integers(0, 100, (size, size, 3)).astype(np.uint8)
            pixels[:, :, label % 3] += 100
            Image.fromarray(pixels).save(where / name / f"{index:03d}.png")
    return where


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is not the picture you are looking for")


def checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 12] ^= 0xFF
    path.write_bytes(content)


def bomb(path: Path) -> None:
    """A PNG of 65535 x 65535 pixels in a few bytes."""
    head = b"IHDR" + (65535).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    chunks = [head, b"IDAT" + zlib.compress(b"\0" * 1000), b"IEND"]
    packed = [(len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def is_gone(path: Path) -> None:
    """What a file without permission is to everybody, root as well."""
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


FAULTS = [truncated, empty, text, checksum, bomb, is_gone]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_d1_a_file_that_cannot_be_read_stops_with_its_path_and_index(fault: Any, workers: int, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", per_class=4)
    table = open_data(data)
    fault(data / "green/002.png")
    with pytest.raises(ZooError, match=r"green/002\.png") as caught:
        model().fit(table, valid=False, out=tmp_path / "run", workers=workers, **OPTIONS)
    assert isinstance(caught.value, CorruptInputError)
    assert "sample 6 of" in str(caught.value)
    assert "on_corrupt='skip'" in str(caught.value)


def test_d1_all_files_that_cannot_be_read_are_counted_and_named_after_the_first(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", per_class=4)
    table = open_data(data)
    for name in ("green/001", "green/002", "red/003"):
        truncated(data / f"{name}.png")
    with pytest.raises(CorruptInputError) as caught:
        model().fit(table, valid=False, out=tmp_path / "run", workers=0, **OPTIONS)
    told = str(caught.value)
    assert f"; 3 of {len(table)} samples cannot be read: " in told
    assert all(f"{name}.png" in told for name in ("green/001", "green/002", "red/003"))


def test_d1_a_reason_that_all_files_share_is_told_once(tmp_path: Path) -> None:
    rows = [str(tmp_path / f"{number}.nii.gz") for number in range(6)]
    for row in rows:
        Path(row).touch()
    rows.append(str(next(folder(tmp_path / "data", per_class=1).rglob("*.png"))))  # without which they would be refused at once
    with pytest.raises(CorruptInputError) as caught:
        model().fit((rows, ["red", "green", "blue"] * 2 + ["red"]), valid=False, out=tmp_path / "run", workers=0, **OPTIONS)
    told = str(caught.value).split("6 of 7 samples cannot be read: ")[1]
    assert "3.nii.gz', … (2 more); each is a volume" in told
    assert told.count("is a volume") == 1


def test_d1_of_500_files_exactly_the_five_that_are_corrupt_are_skipped_and_again_on_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = folder(tmp_path / "data", per_class=250, size=8, classes=COLOURS[:2])
    bad = ["blue/003.png", "blue/101.png", "green/000.png", "green/200.png", "green/249.png"]
    for fault, name in zip(FAULTS, bad, strict=False):
        fault(data / name)
    valid = folder(tmp_path / "valid", per_class=4, classes=COLOURS[:2])
    options = OPTIONS | {"on_corrupt": "skip", "max_corrupt": 0.01, "image_size": 8}
    whole = model(2)
    whole.fit(data, valid, out=tmp_path / "whole", **options)
    told = json.loads((tmp_path / "whole/run.json").read_text())["data"]["train"]
    assert told["samples"] == 495
    assert all(name in caplog.text for name in bad[:4])
    assert caplog.text.count("5 samples of 500 (1.0%)") == 1
    net = model(2)
    net.backbone.register_forward_hook(stop_after(7))
    with pytest.raises(InterruptedRunError):
        net.fit(data, valid, out=tmp_path / "cut", workers=2, **options)
    again = model(2)
    again.fit(data, valid, out=tmp_path / "cut", resume=True, workers=2, **options)
    assert difference(values(again), values(whole)) == 0.0
    with pytest.raises(DataError, match="more than max_corrupt"):
        model(2).fit(data, valid, out=tmp_path / "strict", **(options | {"max_corrupt": 0.005}))


def stop_after(forwards: int) -> Any:
    seen = iter(range(10**6))

    def hook(*_: Any) -> None:
        if next(seen) == forwards:
            os.kill(os.getpid(), signal.SIGTERM)

    return hook


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: (path / "red").mkdir(parents=True)], ids=["empty", "no images"])
def test_d9_a_folder_without_images_is_refused(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "data")
    with pytest.raises(DataError):
        model().fit(tmp_path / "data", out=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_d9_one_image_cannot_be_trained_on_but_predicted(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", per_class=1, classes=COLOURS[:1])
    with pytest.raises(ZooError):
        model(2).fit(data, out=tmp_path / "run", **OPTIONS)
    assert len(model().predict(data / "blue/000.png")) == 1


@pytest.mark.parametrize("count", [9, 17, 25])
def test_d9_no_batch_is_left_with_one_sample_for_batch_norm(count: int, tmp_path: Path) -> None:
    batches = even_batches(list(range(count)), 8)
    assert min(map(len, batches)) > 1
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    run = model().fit(images(count), valid=False, out=tmp_path / "run", **(OPTIONS | {"batch_size": 8}))
    assert all(np.isfinite(record["train_loss"]) for record in run.history)


def test_d9_batches_of_one_sample_end_in_a_result_or_one_typed_error(tmp_path: Path) -> None:
    run = model().fit(images(6), valid=False, out=tmp_path / "run", **(OPTIONS | {"batch_size": 1}))
    assert all(np.isfinite(record["train_loss"]) for record in run.history)


def test_d9_names_of_any_characters_are_read_and_told(tmp_path: Path) -> None:
    data = folder(tmp_path / "d\u00e4ta \U0001f431", per_class=4)
    odd = data / "red/new\nline 'quote' \u4e2d.png"
    (data / "red/000.png").rename(odd)
    assert model().fit(data, valid=False, out=tmp_path / "run", **OPTIONS).history
    odd.write_bytes(b"")
    with pytest.raises(CorruptInputError, match="quote"):
        model().fit(data, valid=False, out=tmp_path / "again", **OPTIONS)


def test_d9_a_loop_of_links_ends(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", per_class=4)
    (data / "red/loop").symlink_to(data)
    (data / "blue/self.png").symlink_to(data / "blue/self.png")
    (data / "green/up").symlink_to("..")
    assert open_data(data).counts() == dict.fromkeys(COLOURS, 4) | {"blue": 5}  # as a link to nothing: told when it is read
    with pytest.raises(CorruptInputError, match=r"self\.png"):
        model().fit(data, valid=False, out=tmp_path / "run", **OPTIONS)


def test_d9_no_rows_are_refused_everywhere() -> None:
    nothing = np.zeros((0, 16, 16, 3), dtype=np.uint8)
    for call in (lambda: model().fit((nothing, [])), lambda: model().predict(nothing), lambda: model().evaluate((nothing, []))):
        with pytest.raises(DataError):
            call()

"""Decoding against plain numpy: right within 1/255, or refused."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from tests.data.make import image, photo
from zoo.data.images.decode import decode
from zoo.errors import CorruptInputError, DataError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (10, 12), dtype=np.uint16)


def encoded(picture: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def error_to(source: Any, reference: Any, channels: int = 3) -> float:
    """Largest absolute error against a reference in [0, 1], in grey levels."""
    got = np.asarray(decode(source, channels), dtype=np.float64)
    assert got.shape == np.shape(reference)
    return float(np.abs(got - 255 * np.asarray(reference, dtype=np.float64)).max())


def repeat(grey: Any) -> Any:
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def png16_rgb(pixels: Any) -> bytes:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels: Any, photometric: int) -> bytes:
    """A baseline TIFF of one strip (TIFF 6.0)."""
    height, width = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    tags = {256: width, 257: height, 258: pixels.dtype.itemsize * 8, 259: 1, 262: photometric, 277: 1, 278: height, 279: len(data)}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_257(kind: str) -> None:
    source = encoded(PIL.Image.fromarray(DEEP), kind)
    assert error_to(source, DEEP / 65535, 1) <= 0.5
    assert error_to(source, repeat(DEEP / 65535)) <= 0.5


def test_sixteen_bit_colour_is_scaled() -> None:
    deep = RNG.integers(0, 65536, (10, 12, 3), dtype=np.uint16)
    assert error_to(png16_rgb(deep), deep / 65535) <= 1


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_inverted(depth: Any) -> None:
    top = np.iinfo(depth).max
    pixels = RNG.integers(0, top, (10, 12), endpoint=True).astype(depth)
    assert error_to(tiff(pixels, 1), pixels / top, 1) <= 0.5
    assert error_to(tiff(pixels, 0), 1 - pixels / top, 1) <= 0.5


@pytest.mark.parametrize("pixels", [DEEP.astype(np.int32), np.linspace(0, 255, 120, dtype=np.float32).reshape(10, 12)])
def test_wide_pixels_of_unclear_range_are_refused(pixels: Any) -> None:
    with pytest.raises(CorruptInputError, match=r"32-bit .* in \[\d.*\] and has no defined intensity range"):
        decode(encoded(PIL.Image.fromarray(pixels), "TIFF"), 1)


def test_float_pixels_between_0_and_1_are_taken() -> None:
    pixels = RNG.random((10, 12), dtype=np.float32)
    assert error_to(encoded(PIL.Image.fromarray(pixels), "TIFF"), pixels, 1) <= 0.5


def test_one_bit_is_black_and_white() -> None:
    bits = RNG.random((10, 12)) < 0.5
    assert error_to(encoded(PIL.Image.fromarray(bits)), bits, 1) == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_a_palette_is_looked_up(kind: str) -> None:
    indices = RNG.integers(0, 8, (10, 12), dtype=np.uint8)
    colours = RNG.integers(0, 256, (8, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(indices).convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    assert error_to(encoded(picture, kind), colours[indices] / 255) == 0


def test_transparent_palette_entries_are_laid_on_white() -> None:
    indices = RNG.integers(0, 4, (10, 12), dtype=np.uint8)
    colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    picture = PIL.Image.new("P", (12, 10))
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    alpha = np.array([0, 255, 100, 255]) / 255
    reference = colours[indices] / 255 * alpha[indices][..., None] + 1 - alpha[indices][..., None]
    source = encoded(picture, "PNG", transparency=bytes([0, 255, 100, 255]))
    assert error_to(source, reference) <= 1


def test_alpha_is_laid_on_white() -> None:
    pixels = RNG.integers(0, 256, (10, 12, 4), dtype=np.uint8)
    alpha = pixels[..., 3:] / 255
    reference = pixels[..., :3] / 255 * alpha + 1 - alpha
    assert error_to(encoded(PIL.Image.fromarray(pixels)), reference) <= 1
    assert error_to(pixels, reference) <= 1
    grey = PIL.Image.merge("LA", [PIL.Image.fromarray(pixels[..., band].copy()) for band in (0, 3)])
    assert error_to(encoded(grey), reference[..., 0], 1) <= 1


def test_a_transparent_colour_is_laid_on_white() -> None:
    pixels = COLOUR.copy()
    pixels[0, 0] = (1, 2, 3)
    reference = pixels / 255
    reference[0, 0] = 1
    assert error_to(encoded(PIL.Image.fromarray(pixels), "PNG", transparency=(1, 2, 3)), reference) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_ends_upright(orientation: int) -> None:
    upright = COLOUR
    # How a camera stores the picture so that the tag turns it upright (EXIF 2.3, section 4.6.4).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture = PIL.Image.fromarray(np.ascontiguousarray(stored))
    assert error_to(encoded(picture, "PNG", exif=exif), upright / 255) == 0
    assert error_to(encoded(picture, "TIFF", exif=exif), upright / 255) == 0
    smooth = encoded(PIL.Image.fromarray(np.ascontiguousarray(stored)), "JPEG", quality=100, subsampling=0, exif=exif)
    assert decode(smooth).size == (12, 10)
    assert np.abs(np.asarray(decode(smooth), dtype=int) - upright).mean() < 4


def test_cmyk_is_converted() -> None:
    pixels = RNG.integers(0, 256, (10, 12, 4), dtype=np.uint8)
    reference = (1 - pixels[..., :3] / 255) * (1 - pixels[..., 3:] / 255)
    assert (
        error_to(
            encoded(PIL.Image.frombytes("CMYK", (12, 10), pixels.tobytes()), "TIFF"),
            reference,
        )
        <= 1
    )


def test_a_cmyk_jpeg_looks_like_its_rgb_original() -> None:
    picture = photo((64, 48))
    source = encoded(picture.convert("CMYK"), "JPEG", quality=98, subsampling=0)
    assert PIL.Image.open(io.BytesIO(source)).mode == "CMYK"
    assert np.abs(np.asarray(decode(source), dtype=int) - np.asarray(picture)).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_several_frames_are_refused(kind: str) -> None:
    source = encoded(image(0), kind, save_all=True, append_images=[image(1), image(2)])
    with pytest.raises(CorruptInputError, match="has 3 frames; save the frame you mean"):
        decode(source)
    decode(encoded(image(0), kind, save_all=True))


def test_of_a_cameras_mpo_the_photo_is_taken() -> None:
    source = encoded(photo((32, 24)), "MPO", save_all=True, append_images=[photo((16, 12))])
    assert decode(source).size == (32, 24)


def test_grey_is_repeated_and_colour_becomes_luma() -> None:
    grey = COLOUR[..., 0]
    assert error_to(encoded(PIL.Image.fromarray(grey)), repeat(grey / 255)) == 0
    luma = COLOUR @ np.array([0.299, 0.587, 0.114]) / 255
    assert error_to(encoded(PIL.Image.fromarray(COLOUR)), luma, 1) <= 1


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_float_arrays_are_scaled(kind: Any) -> None:
    pixels = RNG.random((10, 12, 3)).astype(kind)
    assert error_to(pixels, pixels.astype(np.float64)) <= 0.6


def test_bytes_arrays_and_tensors_are_the_same_picture() -> None:
    expected = COLOUR.tobytes()
    for source in (
        COLOUR,
        torch.from_numpy(COLOUR),
        torch.from_numpy(COLOUR).permute(2, 0, 1),
        {"bytes": encoded(PIL.Image.fromarray(COLOUR)), "path": None},
    ):
        assert decode(source).tobytes() == expected


@pytest.mark.parametrize(
    "source",
    [np.full((4, 4), 2.0), np.zeros((4, 4), np.int32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)],
)
def test_arrays_that_are_no_picture_are_refused(source: Any) -> None:
    with pytest.raises(CorruptInputError, match="an input of type ndarray"):
        decode(source)


def test_two_channels_are_no_option() -> None:
    with pytest.raises(DataError, match="1 or 3 channels, not 2"):
        decode(COLOUR, 2)


FAULTS = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello world\n" * 20, "it is text and starts with 'hello world"),
    "html": (b"<!DOCTYPE html><html>", "starts with '<!DOCTYPE html>"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    "noise": (bytes(range(128, 255)), "80 81 82"),
    "cut_jpeg": (encoded(photo((64, 48)), "JPEG")[:-200], "truncated"),
    "cut_png": (encoded(photo((64, 48)))[:-200], "cannot be decoded"),
    "bad_crc": (
        encoded(photo((64, 48)))[:20] + b"\x01" + encoded(photo((64, 48)))[21:],
        "starts like a PNG file, but its header is damaged",
    ),
    "bad_data": (encoded(photo((64, 48)))[:60] + b"\0" * 40 + encoded(photo((64, 48)))[100:], "cannot be decoded"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at_least", [0, 1])
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, fault: str, at_least: int) -> None:
    content, cause = FAULTS[fault]
    path = tmp_path / f"{fault}.jpg"
    path.write_bytes(content)
    with pytest.raises(CorruptInputError) as caught:
        decode(path, at_least=at_least)
    assert f"{fault}.jpg" in str(caught.value)
    assert cause in str(caught.value)


def test_a_file_that_is_gone_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(CorruptInputError, match=path.name):
            decode(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encoded(image(0)))
    path.chmod(0)
    with pytest.raises(CorruptInputError, match=r"locked\.png.*permissions"):
        decode(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    chunk += struct.pack(">I", 4) + b"IDAT"
    with pytest.raises(CorruptInputError, match="decompression bomb"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk)


def test_damaged_bytes_raise_nothing_else_than_a_typed_error() -> None:
    rng = np.random.default_rng(1)
    sources = [encoded(photo((24, 18)), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]
    refused = 0
    for _ in range(40):
        for source in sources:
            damaged = bytearray(source)
            for place in rng.integers(0, len(damaged), 6):
                damaged[place] = rng.integers(256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which does not matter here
                try:
                    assert decode(bytes(damaged)).mode == "RGB"
                except CorruptInputError:
                    refused += 1
    assert 20 < refused < 280


@pytest.mark.parametrize("at_least", [30, 100, 101, 199, 200, 400, 401])
def test_a_jpeg_is_decoded_small_but_never_smaller_than_asked(at_least: int) -> None:
    source = encoded(photo((1200, 800)), "JPEG", quality=95)
    small = decode(source, at_least=at_least)
    assert at_least <= min(small.size)
    assert min(small.size) < 2 * at_least or min(small.size) in (100, 800)
    reference = np.asarray(decode(source).resize(small.size, PIL.Image.Resampling.BOX), dtype=int)
    assert np.abs(np.asarray(small, dtype=int) - reference).mean() < 1.5


def test_real_photos_and_x_rays_decode_like_pillow(shared: Path) -> None:
    paths = [
        *sorted((shared / "data/images/known_photos").glob("*.[jp]*")),
        *sorted((shared / "data/medical/chest_xray_covid/Pneumonia").iterdir())[:5],
    ]
    for path in paths:
        with PIL.Image.open(path) as picture:
            if picture.mode in ("RGB", "L"):
                assert decode(path).tobytes() == picture.convert("RGB").tobytes()

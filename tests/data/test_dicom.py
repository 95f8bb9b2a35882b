"""DICOM files against pydicom's own tables and windows: right within 1/255, or refused with the reason."""

from __future__ import annotations

import builtins
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.data.images.decode import decode
from zoo.data.images.scans.dicom import read_dicom
from zoo.data.images.transforms import eval_transform
from zoo.declare import Image
from zoo.errors import CorruptInputError, MissingExtraError

pydicom = pytest.importorskip("pydicom")
RNG = np.random.default_rng(0)
REFUSED = {"CT_small.dcm": "no window", "JPEG2000.dcm": "no window", "JPEG-lossy.dcm": "JPEG Extended .* cannot be decoded"}


@pytest.fixture(scope="session")
def files(shared: Path) -> list[Path]:
    found = sorted(path for path in (shared / "data/medical/dicom").rglob("*") if path.is_file() and path.suffix != ".md")
    assert len(found) == 43
    return found


def made(pixels: Any, photometric: str = "MONOCHROME2", **tags: Any) -> Any:
    """A DICOM dataset in memory."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SamplesPerPixel = 3 if photometric in ("RGB", "YBR_FULL") else 1
    data.Rows, data.Columns = pixels.shape[-3:-1] if data.SamplesPerPixel == 3 else pixels.shape[-2:]
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PhotometricInterpretation, data.PlanarConfiguration, data.PixelData = photometric, 0, pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def encoded(data: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def error_to(source: Any, reference: Any, **options: Any) -> float:
    """Largest absolute error against a reference in [0, 1], in grey levels."""
    got = np.asarray(decode(source, 1 if np.ndim(reference) == 2 else 3, **options), dtype=np.float64)
    assert got.shape == np.shape(reference)
    return float(np.abs(got - 255 * np.asarray(reference, dtype=np.float64)).max())


def by_pydicom(path: Path) -> Any:
    """What pydicom's own functions make of a file, in [0, 1]."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    data = pydicom.dcmread(path)
    photometric = data.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        return apply_color_lut(data.pixel_array, data) / 65535
    if not photometric.startswith("MONOCHROME"):
        return data.pixel_array / 255
    low, high = np.array([0, 2**data.BitsStored - 1]) - data.PixelRepresentation * 2 ** (data.BitsStored - 1)
    ends = np.array([low, high]) * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    values = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data)
    share = (values - ends[0]) / (ends[1] - ends[0])
    return 1 - share if photometric == "MONOCHROME1" else share


def test_every_real_file_equals_pydicom_or_is_refused_with_the_reason(files: list[Path]) -> None:
    errors = {}
    for path in files:
        if path.name in REFUSED:
            with pytest.raises(CorruptInputError, match=REFUSED[path.name]):
                decode(path, 1)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = by_pydicom(path)
        errors[path] = error_to(path, reference)
    assert len(errors) == 40
    assert max(errors.values()) <= 0.51


def test_a_file_without_a_window_takes_the_one_that_is_asked_for(files: list[Path]) -> None:
    path = next(path for path in files if path.name == "CT_small.dcm")
    hounsfield = pydicom.dcmread(path).pixel_array.astype(float) - 1024
    reference = np.clip((hounsfield - (40 - 0.5)) / (400 - 1) + 0.5, 0, 1)
    assert error_to(path, reference, window=(40, 400)) <= 0.51
    x = eval_transform(Image(size=128, mean=(0.5,), std=(0.5,), window=(40, 400)))(str(path), None)  # type: ignore[arg-type]
    assert np.abs(x[0].numpy() * 0.5 + 0.5 - reference).max() <= 0.51 / 255


def test_the_window_of_the_file_gives_way_to_the_one_that_is_asked_for() -> None:
    pixels = RNG.integers(-1000, 1000, (6, 7)).astype(np.int16)
    source = encoded(made(pixels, WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=-24))
    for centre, width in ((40, 400), (-600, 1500)):
        reference = np.clip((pixels - 24 - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
        assert error_to(source, reference, window=None if centre == 40 else (centre, width)) <= 0.51


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions_and_several_windows_are_as_in_pydicom(function: str, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 4096, (9, 8)).astype(np.uint16)
    data = made(pixels, BitsStored=12, HighBit=11, WindowCenter=[1000, 50], WindowWidth=[1500, 10], VOILUTFunction=function)
    path = tmp_path / "file"
    path.write_bytes(encoded(data))
    assert error_to(path, by_pydicom(path)) <= 0.51


def test_monochrome1_is_inverted_and_unsigned_values_without_a_window_use_all_stored_bits() -> None:
    pixels = RNG.integers(0, 4096, (9, 8)).astype(np.uint16)
    for photometric, reference in (("MONOCHROME2", pixels / 4095), ("MONOCHROME1", 1 - pixels / 4095)):
        assert error_to(encoded(made(pixels, photometric, BitsStored=12, HighBit=11)), reference) <= 0.51


def test_a_voi_table_comes_before_a_window() -> None:
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 16], (256 * np.arange(255, -1, -1)).astype("<u2").tobytes()
    pixels = RNG.integers(0, 256, (9, 8)).astype(np.uint8)
    source = encoded(made(pixels, VOILUTSequence=[table], WindowCenter=3, WindowWidth=2))
    assert error_to(source, 256 * (255.0 - pixels) / 65535) <= 0.51


def test_colours_are_rgb_also_where_they_are_stored_as_ybr() -> None:
    import PIL.Image

    pixels = RNG.integers(0, 256, (9, 8, 3)).astype(np.uint8)
    assert error_to(encoded(made(pixels, "RGB")), pixels / 255) == 0
    stored = np.asarray(PIL.Image.fromarray(pixels).convert("YCbCr"))
    assert error_to(encoded(made(stored, "YBR_FULL")), pixels / 255) <= 3  # the rounding of YCbCr to 8 bits


def test_several_frames_are_refused_with_their_number_and_one_can_be_chosen() -> None:
    pixels = RNG.integers(0, 256, (3, 9, 8)).astype(np.uint8)
    source = encoded(made(pixels, NumberOfFrames=3))
    with pytest.raises(CorruptInputError, match=r"has 3 frames; .*frame=K"):
        decode(source, 1, "scan.dcm")
    for frame in range(3):
        assert np.array_equal(read_dicom(io.BytesIO(source), frame=frame), pixels[frame])
    with pytest.raises(CorruptInputError, match="no frame 3; it has 3"):
        read_dicom(io.BytesIO(source), frame=3)


def test_an_enhanced_file_has_its_window_and_rescale_per_frame() -> None:
    from pydicom.dataset import Dataset

    def group(centre: float, intercept: float) -> Any:
        frame, window, rescale = Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 101
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, intercept, "HU"
        frame.FrameVOILUTSequence, frame.PixelValueTransformationSequence = [window], [rescale]
        return frame

    pixels = RNG.integers(0, 256, (2, 9, 8)).astype(np.uint8)
    source = encoded(made(pixels, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=[group(50, -10), group(90, 5)]))
    for frame, (centre, intercept) in enumerate([(50, -10), (90, 5)]):
        reference = np.clip((pixels[frame] * 1.0 + intercept - (centre - 0.5)) / 100 + 0.5, 0, 1)
        assert np.abs(np.asarray(read_dicom(io.BytesIO(source), frame=frame)) - 255 * reference).max() <= 0.51


def test_an_encoding_that_nothing_decodes_names_the_package(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    path = next(path for path in files if path.name == "examples_jpeg2k.dcm")
    with pytest.raises(CorruptInputError, match=r"JPEG 2000 .*no installed package decodes it: pip install pylibjpeg pylibjpeg-openjpeg"):
        decode(path)


def test_without_pydicom_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pydicom"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    source, real = encoded(made(np.zeros((4, 4), dtype=np.uint8))), builtins.__import__
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(MissingExtraError, match="pip install pydicom"):
        decode(source, 1)


@pytest.mark.parametrize("length", [132, 140, 300, -700])
def test_a_damaged_file_is_refused(length: int) -> None:
    whole = encoded(made(np.zeros((40, 40), dtype=np.uint8)))
    with pytest.raises(CorruptInputError):
        decode(whole[:length], 1, "scan.dcm")


def test_a_file_without_a_preamble_is_read_by_its_name_and_one_without_pixels_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.dcm"
    path.write_bytes(encoded(made(np.full((4, 4), 7, dtype=np.uint8)))[132:])
    path.with_name("text.dcm").write_text("no scan at all")
    with pytest.raises(CorruptInputError, match="no DICOM file"):
        decode(path.with_name("text.dcm"))
    assert np.asarray(decode(path, 1)).max() in (7,)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "has a rescale slope of 0, which makes all values equal; correct or remove it"),
        ({"WindowCenter": 40, "WindowWidth": 0}, r"has a window of width 0, and it must be above 0; give window=\(centre, width\)"),
        ({"WindowCenter": 40, "WindowWidth": -400}, "has a window of width -400"),
    ],
)
def test_a_slope_or_a_window_that_leaves_no_values_is_refused(tags: dict[str, Any], words: str) -> None:
    source = encoded(made(RNG.integers(0, 4096, (4, 4)).astype(np.uint16), **tags))
    with pytest.raises(CorruptInputError, match=words):
        decode(source, name="scan")

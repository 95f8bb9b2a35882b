"""DICOM files as 8-bit images: rescale, window, inversion and palette as in the standard (DICOM PS3.3 C.11, C.7.6.3).

pydicom reads the files and is imported for the first one.
"""

from __future__ import annotations

import importlib.util
import io
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from zoo.errors import CorruptInputError, MissingExtraError

Array = npt.NDArray[Any]
WindowLevel = tuple[float, float]  # centre and width, in the units of the file after its rescale

DICOM = (".dcm", ".dicom")  # endings; many files have none
_GREY = ("MONOCHROME1", "MONOCHROME2")
_FRAME_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_DECODERS = {
    "1.2.840.10008.1.2.4.5": "pylibjpeg pylibjpeg-libjpeg",  # JPEG, JPEG lossless
    "1.2.840.10008.1.2.4.7": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.8": "pylibjpeg pylibjpeg-libjpeg",  # JPEG-LS
    "1.2.840.10008.1.2.4.9": "pylibjpeg pylibjpeg-openjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.2": "pylibjpeg pylibjpeg-openjpeg",  # HTJ2K
}
# Warning filters are process-wide, and samples may be checked in threads.
_quiet = threading.Lock()


def is_dicom(head: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of a DICOM file (DICOM PS3.10, section 7.1)."""
    return head[128:132] == b"DICM"


def read_dicom(
    source: str | Path | IO[bytes], *, window: WindowLevel | None = None, frame: int | None = None, name: str = ""
) -> PIL.Image.Image:
    """Return one frame of a DICOM file as 8 bits: mode ``L`` for grey, ``RGB`` for colour and palettes.

    Grey values are rescaled (slope and intercept, or modality table), then windowed to 0 … 255: by ``window``, else by the
    file's first VOI table or window with its own function; a file without one, of unsigned values, by all values that its
    bits can store. MONOCHROME1 is inverted, so more is always brighter.

    Args:
        source: Path or open binary file.
        window: Centre and width in the file's units after the rescale, such as Hounsfield units (linear, C.11.2.1.2.1).
        frame: Index of the frame, from 0.
        name: Name for messages; a path names itself.

    Raises:
        MissingExtraError: If pydicom is not installed.
        CorruptInputError: If the file cannot be decoded, has several frames and none is chosen, or does not define white.
    """
    name = name or repr(str(source))
    pydicom = _pydicom(name)
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns about every value that violates the standard
        try:
            dataset = pydicom.dcmread(source, force=True)
        except Exception as error:  # parsers raise anything on hostile bytes
            raise CorruptInputError(f"{name} is no readable DICOM file: {error}; remove or replace it") from error
        pixels, colour = _decoded(dataset, _chosen(dataset, frame, name), name)
        if colour == "PALETTE COLOR":
            return _coloured(_tools().apply_color_lut(pixels, dataset), 16)
        if colour not in _GREY:
            return _coloured(pixels, int(dataset.BitsStored))
        grey = _windowed(pixels, _with_frame_macros(dataset, frame or 0), window, name)
    return PIL.Image.fromarray(255 - grey if colour == "MONOCHROME1" else grey)


def read_slice(path: Path) -> tuple[Any, Array]:
    """Return the header of a grey DICOM file of one frame, and its values after the rescale ``(rows, columns)``.

    Raises:
        MissingExtraError: If pydicom is not installed.
        CorruptInputError: If the file cannot be decoded, has several frames, or colours.
    """
    name = repr(str(path))
    pydicom = _pydicom(name)
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
        except Exception as error:  # parsers raise anything on hostile bytes
            raise CorruptInputError(f"{name} is no readable DICOM file: {error}; remove or replace it") from error
        pixels, colour = _decoded(dataset, _chosen(dataset, None, name), name)
        if colour not in _GREY:
            raise CorruptInputError(f"{name} is {colour}; a volume is made of grey slices")
        return dataset, np.asarray(_tools().apply_modality_lut(pixels, _with_frame_macros(dataset, 0)))


def read_header(source: str | Path | bytes, names: Sequence[str]) -> dict[str, str] | None:
    """Return entries of the header of a DICOM file as text, without those that it lacks; the pixels are not read.

    Args:
        source: Path of a file, or of a folder whose first DICOM file counts; or an encoded file.
        names: The entries by their keywords (DICOM PS3.6), such as ``PatientID``. Reading stops behind the last of them.

    Returns:
        The entries by name; None for other files, for what cannot be read, and without pydicom.
    """
    try:
        import pydicom.filereader
        from pydicom.datadict import tag_for_keyword

        if isinstance(source, str | Path) and Path(source).is_dir():
            source = next(path for path in sorted(Path(source).iterdir()) if path.is_file() and _starts_as_dicom(path))
        tags = [tag for name in names if (tag := tag_for_keyword(name)) is not None]
        plain = isinstance(source, str | Path) and str(source).lower().endswith(DICOM)  # which may lack the preamble
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            if not (is_dicom(file.read(132)) or plain):
                return None
            file.seek(0)
            last = max(tags)
            with _quiet, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.filereader.read_partial(file, lambda tag, *_: tag > last, specific_tags=tags, force=True)
                entries = {name: header.get(name) for name in names}
    except Exception:  # parsers raise anything on hostile bytes; the pixels are refused where they are read
        return None
    texts = {name: " ".join(str(entry).split()) for name, entry in entries.items() if entry is not None}
    return {name: text for name, text in texts.items() if text}


def can_read_headers() -> bool:
    """Return whether pydicom is installed."""
    return importlib.util.find_spec("pydicom") is not None


def _starts_as_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return is_dicom(file.read(132))


def _pydicom(name: str) -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise MissingExtraError(f"{name} is a DICOM file, which pydicom reads: pip install pydicom") from error
    return pydicom


def _tools() -> Any:
    import pydicom.pixels

    return pydicom.pixels


def _chosen(dataset: Any, frame: int | None, name: str) -> int:
    if "Rows" not in dataset or not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        if "SOPClassUID" in dataset and "Rows" in dataset and str(dataset.SOPClassUID.name).endswith("Image Storage"):
            raise CorruptInputError(f"{name} is cut off: it ends before its pixels; copy it again or remove it")
        kind = "no DICOM file" if "SOPClassUID" not in dataset else f"a DICOM file without pixels ({dataset.SOPClassUID.name})"
        raise CorruptInputError(f"{name} is {kind}; remove it")
    total = int(dataset.get("NumberOfFrames") or 1)
    if frame is None and total > 1:
        raise CorruptInputError(
            f"{name} has {total} frames; pass the one you mean as an image, "
            "zoo.data.images.scans.dicom.read_dicom(path, frame=K), or save it as a file"
        )
    if frame is not None and not 0 <= frame < total:
        raise CorruptInputError(f"{name} has no frame {frame}; it has {total}, counted from 0")
    return frame or 0


def _decoded(dataset: Any, frame: int, name: str) -> tuple[Array, str]:
    """Return the stored values of one frame, colours as RGB, and their photometric interpretation."""
    syntax: Any = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", _IMPLICIT_LITTLE_ENDIAN)
    try:
        decoder = _tools().get_decoder(syntax)
        available = decoder.is_available
    except NotImplementedError as error:
        raise CorruptInputError(
            f"{name} is encoded as {getattr(syntax, 'name', syntax)}, which pydicom does not decode; convert it"
        ) from error
    if not available:
        package = next((value for key, value in _DECODERS.items() if str(syntax).startswith(key)), "pylibjpeg")
        raise CorruptInputError(f"{name} is encoded as {syntax.name}, and no installed package decodes it: pip install {package}")
    try:
        if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
            _assume_syntax(dataset)
        pixels, described = decoder.as_array(dataset, index=frame)
    except Exception as error:  # decoders raise anything on hostile bytes
        reason = " ".join(str(error).split())
        if _is_cut_off(dataset):
            raise CorruptInputError(f"{name} is cut off: its pixels end early ({reason}); copy it again or remove it") from error
        raise CorruptInputError(f"{name} ({getattr(syntax, 'name', syntax)}) cannot be decoded: {reason}; convert or remove it") from error
    return pixels, str(described["photometric_interpretation"])


def _is_cut_off(dataset: Any) -> bool:
    """Return whether a file without compression has fewer bytes of pixels than its size says."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if "PixelData" not in dataset or (syntax is not None and syntax.is_encapsulated):
        return False
    bits = int(dataset.get("BitsAllocated") or 8) * int(dataset.get("SamplesPerPixel") or 1) * int(dataset.get("NumberOfFrames") or 1)
    return len(dataset.PixelData) < int(dataset.Rows) * int(dataset.Columns) * bits // 8


def _assume_syntax(dataset: Any) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _with_frame_macros(dataset: Any, frame: int) -> Any:
    """Return the dataset with the rescale and window that an enhanced file has per frame, or shared by all frames."""
    groups = [*dataset.get("SharedFunctionalGroupsSequence", []), *dataset.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1]]
    items = [item for group in groups for macro in _FRAME_MACROS for item in group.get(macro, [])]
    if items:
        dataset = dataset.copy()
        for item in items:
            dataset.update(item)
    return dataset


def _windowed(stored: Array, dataset: Any, window: WindowLevel | None, name: str) -> Array:
    """Return grey values in 0 … 255, uint8."""
    tools = _tools()
    if "ModalityLUTSequence" not in dataset and dataset.get("RescaleSlope") is not None and float(dataset.RescaleSlope) == 0:
        raise CorruptInputError(f"{name} has a rescale slope of 0, which makes all values equal; correct or remove it")
    values = np.asarray(tools.apply_modality_lut(stored, dataset))
    if window is None and "VOILUTSequence" in dataset and values.dtype.kind in "ui":
        table = np.asarray(tools.apply_voi(values, dataset), dtype=np.float64)
        top = 2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return _rounded(table / top)
    function = "LINEAR"
    if window is None:
        window, function = _own_window(dataset, name), str(dataset.get("VOILUTFunction") or "LINEAR")
    if window is not None:
        return _rounded(_voi(values.astype(np.float64), *window, function))
    low, high = _stored_range(dataset, values, name)
    ends = np.asarray(tools.apply_modality_lut(np.array([low, high]), dataset), dtype=np.float64)
    return _rounded((values - ends.min()) / (ends.max() - ends.min()))


def _own_window(dataset: Any, name: str) -> WindowLevel | None:
    numbers = []
    for key in ("WindowCenter", "WindowWidth"):
        value = dataset.get(key)
        value = value[0] if value is not None and not isinstance(value, str) and hasattr(value, "__len__") and len(value) else value
        if value is None or value == "" or (hasattr(value, "__len__") and not len(value)):
            return None
        numbers.append(float(value))
    if not numbers[1] > 0:
        raise CorruptInputError(
            f"{name} has a window of width {numbers[1]:g}, and it must be above 0; give window=(centre, width) (--window), or remove it"
        )
    return numbers[0], numbers[1]


def _voi(values: Array, centre: float, width: float, function: str) -> Array:
    """Map values to 0 … 1 as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 define it."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500))))
    if function == "LINEAR_EXACT" or width <= 1:
        return np.asarray((values - centre) / width + 0.5)
    return np.asarray((values - (centre - 0.5)) / (width - 1) + 0.5)


def _stored_range(dataset: Any, values: Array, name: str) -> tuple[int, int]:
    """Return the lowest and highest value that the bits can store; raise for signed values and floats, whose range is far too wide."""
    if dataset.get("PixelRepresentation") != 0:
        raise CorruptInputError(
            f"{name} has no window, so its values in [{values.min():g}, {values.max():g}] have no defined intensity range; "
            "give window=(centre, width) (--window C,W), or declare zoo.Image(window=…)"
        )
    return 0, 2 ** int(dataset.BitsStored) - 1


def _rounded(share: Array) -> Array:
    return np.asarray(np.rint(255 * np.clip(share, 0, 1)), dtype=np.uint8)


def _coloured(colour: Array, bits: int) -> PIL.Image.Image:
    pixels = colour if colour.dtype == np.uint8 else _rounded(colour / (2.0**bits - 1))
    return PIL.Image.fromarray(np.ascontiguousarray(pixels))

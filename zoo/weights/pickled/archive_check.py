"""Checks of the zip archive of a torch checkpoint before torch opens it: its names, its sizes, and the CRC of each member."""

from __future__ import annotations

import zipfile
from pathlib import Path

from zoo.errors import WeightsError

MAX_GROWTH = 4  # uncompressed bytes per byte of the file; torch.save stores without compression
_CHUNK = 8 * 2**20  # bytes


def check_archive(source: Path) -> None:
    """Check an archive of ``torch.save``; reads all of it once, as torch does not compare the CRCs.

    Raises:
        WeightsError: If it is damaged, or no archive of ``torch.save``.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            _check_entries(entries, source)
            # Without torch.serialization.set_crc32_options(True) none was computed, and all are zero.
            for entry in entries if any(entry.CRC for entry in entries) else ():
                with archive.open(entry) as member:
                    while member.read(_CHUNK):
                        pass
    except WeightsError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{str(source)!r} is a damaged archive: {error}; fetch it again") from error


def _check_entries(entries: list[zipfile.ZipInfo], source: Path) -> None:
    unpacked, size = sum(entry.file_size for entry in entries), source.stat().st_size
    names = [entry.filename for entry in entries]
    if unpacked > MAX_GROWTH * size:
        raise WeightsError(
            f"{str(source)!r} would unpack from {size} to {unpacked} bytes: it is not a checkpoint; save it again with torch.save"
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{str(source)!r} is a TorchScript archive, which holds a program; save the tensors alone on a machine where it is trusted: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'state.pth')"
        )
    if any(entry.compress_type or entry.flag_bits & 1 for entry in entries):
        raise WeightsError(f"{str(source)!r} is compressed or encrypted; torch.save writes neither; save it again with torch.save")
    if len(set(names)) < len(names) or any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise WeightsError(f"{str(source)!r} has doubled or unsafe names in its archive; save it again with torch.save")

"""Image formats that Pillow reads in some builds only, or with a plugin."""

from __future__ import annotations

import functools
import importlib.util

HEIC = (".heic", ".heif")
OPTIONAL = (".avif", *HEIC)
# What an ISO base media file (ISO/IEC 14496-12) may be by its brand.
_BRANDS = {b"avif": ".avif", b"avis": ".avif", b"heic": ".heic", b"heix": ".heic", b"mif1": ".heic", b"msf1": ".heic", b"hevc": ".heic"}
# Pictures that are not read at all.
UNREAD = (".arw", ".cr2", ".dng", ".eps", ".ico", ".jxl", ".nef", ".psd", ".svg", ".tga")


@functools.cache
def can_read(suffix: str) -> bool:
    """Return whether images with this suffix can be decoded here; the plugin that Pillow needs is registered."""
    if suffix in HEIC:
        if importlib.util.find_spec("pillow_heif") is None:
            return False
        import pillow_heif  # type: ignore[import-not-found,unused-ignore]

        pillow_heif.register_heif_opener()
        return True
    if suffix == ".avif":
        from PIL import features

        if "avif" in features.modules and features.check("avif"):
            return True
        if importlib.util.find_spec("pillow_avif") is None:
            return False
        import pillow_avif  # type: ignore[import-not-found,unused-ignore]  # noqa: F401  # registers itself

        return True
    return suffix not in UNREAD


def remedy(suffix: str) -> str:
    """Return the remedy for a suffix that cannot be decoded."""
    if suffix in HEIC:
        return "pip install pillow-heif, or save them as JPEG or PNG"
    if suffix == ".avif":
        return "pip install 'pillow>=11.3' or pillow-avif-plugin, or save them as JPEG or PNG"
    return "save them as JPEG or PNG"


def suffix_of(head: bytes) -> str:
    """Return ``.avif`` or ``.heic`` for the first bytes of such a file, else nothing."""
    return _BRANDS.get(head[8:12], "") if head[4:8] == b"ftyp" else ""

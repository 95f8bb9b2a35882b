"""The forms that digests and commits have as text, in lower-case hexadecimal digits."""

from __future__ import annotations

import re

SHA256_DIGITS, COMMIT_DIGITS = 64, 40
_HEXADECIMAL = re.compile(r"[0-9a-f]+")


def is_sha256(text: str) -> bool:
    """Return whether a text is a whole sha256."""
    return len(text) == SHA256_DIGITS and is_hexadecimal(text)


def is_commit(text: str) -> bool:
    """Return whether a text is the full name of a commit of git."""
    return len(text) == COMMIT_DIGITS and is_hexadecimal(text)


def is_hexadecimal(text: str) -> bool:
    """Return whether a text is one or more hexadecimal digits in lower case."""
    return _HEXADECIMAL.fullmatch(text) is not None

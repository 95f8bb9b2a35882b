"""Names of classes that are one but for their spelling."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,4})?")


def looks_alike(names: Sequence[str]) -> list[list[str]]:
    """Return the names that are equal but for case, blanks, invisible letters, width and the spelling of a number, as 1e3 and 1000."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[one_spelling(name)].append(name)
    return [alike for alike in found.values() if len(alike) > 1]


def one_spelling(name: str) -> str:
    """Return a name in the one spelling that all names have which look alike."""
    shown = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) not in ("Cf", "Cc"))
    text = " ".join(shown.casefold().split())
    return _of_number(Decimal(text)) if _NUMBER.fullmatch(text) else text


def _of_number(number: Decimal) -> str:
    """Return a number in one spelling, to its last digit, unlike a float."""
    sign, digits, exponent = number.as_tuple()
    written = "".join(map(str, digits)).lstrip("0")
    kept = written.rstrip("0")
    return f"{'-' * sign}{kept}e{int(exponent) + len(written) - len(kept)}" if kept else "0"

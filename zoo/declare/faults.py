"""Checks that all declarations share: all faults of one are told at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from zoo.errors import DeclarationError, count, fault_list

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@lru_cache(maxsize=1024)
def is_function(reference: str) -> bool:
    """Return whether ``reference`` has the form ``module:function``; cached, as thousands of specs name the same few."""
    return FUNCTION.fullmatch(reference) is not None


def check(what: str, faults: Sequence[tuple[bool, str]]) -> None:
    """Check a declaration.

    Args:
        what: The declaration, for the message.
        faults: Whether something is wrong, and what to say then.

    Raises:
        DeclarationError: With all faults.
    """
    messages = [message for wrong, message in faults if wrong]
    if messages:
        raise DeclarationError(fault_list(f"the declaration of {what} has {count(len(messages), 'fault')}", messages))

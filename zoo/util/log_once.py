"""Log messages that repeat."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("zoo")


@contextmanager
def each_message_once() -> Iterator[None]:
    """Log each message of the library once, where the same data are opened with the same options again and again."""
    seen: dict[str, logging.LogRecord] = {}

    def is_new(entry: logging.LogRecord) -> bool:
        return seen.setdefault(entry.getMessage(), entry) is entry  # one that was held back and is shown later comes twice

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)

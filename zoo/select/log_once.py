"""A filter for repeated log messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("zoo")


@contextmanager
def each_message_once() -> Iterator[None]:
    """Log each message of the library once while the context is open, in which the same data may be opened many times."""
    seen: dict[str, logging.LogRecord] = {}

    def is_new(entry: logging.LogRecord) -> bool:
        return seen.setdefault(entry.getMessage(), entry) is entry  # a deferred record passes the filter twice

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)

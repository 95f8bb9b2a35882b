"""Errors of a cache folder that cannot be used, with the variable that names another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import OutputPermissionError, ZooError, owner_prefix
from zoo.util.atomic_write import cache_folder


@contextmanager
def cache_errors(owner: str) -> Iterator[None]:
    """Raise one error with its remedy where zoo's cache cannot be written, is a file, or has a folder in the place of a file.

    Args:
        owner: Name of the backbone, for messages.

    Raises:
        OutputPermissionError: For an error of the system on a path in the cache.
    """
    try:
        yield
    except ZooError:
        raise
    except OSError as error:
        cache, place = cache_folder(), error.filename2 or error.filename
        if not isinstance(place, str) or not Path(place).is_relative_to(cache):
            raise
        raise OutputPermissionError(
            f"{owner_prefix(owner)}zoo's cache {str(cache)!r} cannot be used ({error.strerror}: {place!r}); remove what is in the way, "
            "or set ZOO_CACHE to a folder that you may write to"
        ) from error

"""One process speaks for all: what several of them would say is shown once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from zoo.engine.runtime.launch_env import launched, rank
from zoo.errors import RankError, ZooError

PATIENCE = 5.0  # seconds that the others wait for the first process to speak


@contextmanager
def one_voice(*, debug: bool) -> Iterator[None]:
    """Let the first process show an error, and another one only what the first does not know of.

    Raises:
        SystemExit: In place of an error that was shown, with its exit code.
    """
    if launched() == 1:
        yield
        return
    if rank():
        logging.getLogger("zoo").setLevel(logging.ERROR)
    try:
        yield
    except ZooError as error:
        if debug:
            raise
        _speak(error)
        raise SystemExit(error.exit_code) from None


def _speak(error: ZooError) -> None:
    from zoo.engine.distributed.heartbeat import announce, announced

    if not rank():
        print(f"error: {error}", file=sys.stderr, flush=True)
        announce(str(error))
        return
    text = announced(PATIENCE)
    # A RankError only tells of another one's failure.
    if not (text and (isinstance(error, RankError) or str(error) in text)):
        announce(str(error))
        print(f"error on rank {rank()}: {error}", file=sys.stderr, flush=True)

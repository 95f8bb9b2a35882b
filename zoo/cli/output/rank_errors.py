"""Errors and logs of several ranks on the terminal, each shown once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from zoo.cli.output.wording import as_typed
from zoo.engine.runtime.launch_env import launched, rank
from zoo.errors import InterruptedRunError, RankError, ZooError

PATIENCE = 5.0  # seconds that the other ranks wait for rank 0 to show its error


@contextmanager
def errors_once(*, debug: bool) -> Iterator[None]:
    """Show an error of all ranks once, from rank 0; other ranks show only errors that rank 0 did not.

    Raises:
        SystemExit: In place of a shown error, with its exit code.
    """
    if launched() == 1:
        yield
        return
    if rank():
        logging.getLogger("zoo").setLevel(logging.ERROR)
    try:
        yield
    except (ZooError, InterruptedRunError) as error:
        if debug:
            raise
        _show(error)
        raise SystemExit(error.exit_code) from None


def _show(error: ZooError | InterruptedRunError) -> None:
    from zoo.engine.distributed.heartbeat import announce, announced

    if not rank():
        print(f"error: {as_typed(str(error))}", file=sys.stderr, flush=True)
        announce(str(error))
        return
    text = announced(PATIENCE)
    # A RankError only reports the failure of another rank.
    if not (text and (isinstance(error, RankError) or str(error) in text)):
        announce(str(error))
        print(f"error on rank {rank()}: {as_typed(str(error))}", file=sys.stderr, flush=True)

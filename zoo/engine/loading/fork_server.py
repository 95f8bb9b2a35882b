"""Block signals in multiprocessing's fork server, which imports this module at its start."""

from __future__ import annotations

import os
import signal

_STOPPING = {signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP}
_BEFORE = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, _BEFORE))

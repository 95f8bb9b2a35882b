"""Signals in the fork server of multiprocessing; imported by it for its effect, before it starts the first process."""

from __future__ import annotations

import os
import signal

_STOPPING = {getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)}
_BEFORE = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, _BEFORE))

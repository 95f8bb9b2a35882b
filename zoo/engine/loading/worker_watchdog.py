"""Data loader that raises one error, naming the sample, if a worker process dies or hangs."""

from __future__ import annotations

import math
import os
import signal
from multiprocessing.connection import wait
from multiprocessing.util import get_temp_dir
from typing import Any, NoReturn

import torch
from torch.utils.data import DataLoader, Dataset, _utils, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from zoo.engine.loading.start_method import FORK, MAIN_GUARD
from zoo.engine.loading.workers import inherited_garbage_kept, starting_workers
from zoo.errors import LoaderError, examples

TIMEOUT = 300.0  # seconds that one batch may take
LOOK = 0.25  # seconds between checks of the workers
PATIENCE = 1.0  # seconds to wait for a dying worker
HINTS = {
    "SIGKILL": " (which the system sends when memory runs out)",
    "SIGBUS": " (which the system sends when shared memory is full; a container needs more of it, such as docker run --shm-size=8g)",
}
_IDLE, _NOT_BEGUN = -1, -2
_REMEDY = "workers=0 loads in the main process; a run goes on with resume=True (--resume)"


class Watched(Dataset[Any]):
    """A dataset that records the sample that each worker is loading.

    Attributes:
        busy: Index of the sample per worker, int64 in shared memory, -1 while it is idle, -2 before its first.
    """

    def __init__(self, samples: Any, workers: int) -> None:
        """Wrap ``samples`` for ``workers`` processes."""
        self.samples = samples
        self.busy = torch.full((workers,), _NOT_BEGUN, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # torch has no types

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        """Return a sample; ``busy`` has its index meanwhile."""
        worker = get_worker_info()
        assert worker is not None, "to be called in a worker"
        self.busy[worker.id] = index
        sample = self.samples[index]
        self.busy[worker.id] = _IDLE
        return sample


class WatchedLoader(DataLoader[Any]):
    """A ``DataLoader`` that detects a dead worker within a second, and one that hangs."""

    def close(self) -> None:
        """End persistent workers, if there are any."""
        if isinstance(self._iterator, _Iterator):
            self._iterator.end()
        self._iterator = None

    def _get_iterator(self) -> Any:
        if not self.num_workers:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        method = self.multiprocessing_context.get_start_method()
        get_temp_dir()  # of this process, which removes it at its end; a worker that is ended would leave one of its own
        try:
            with starting_workers(method), inherited_garbage_kept(method):
                return _Iterator(self)
        except Exception as error:  # of pickling, or of a process that has ended before it took what it was sent
            if method == FORK:
                raise
            what = f"loader processes, which start by {method!r}, cannot be started ({type(error).__name__}: {error})"
            raise LoaderError(f"{what}; look for what they printed; {MAIN_GUARD}; {_REMEDY}") from error


class _Iterator(_MultiProcessingDataLoaderIter):
    """Checks its workers several times a second while it waits for them.

    torch raises from its SIGCHLD handler when a worker dies, at any point of the main thread, such as in the middle of writing
    a checkpoint. So these workers are removed from its handler, and batches that they have loaded are still used.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._main, self._method = os.getpid(), loader.multiprocessing_context.get_start_method()
        watched: Any = loader.dataset
        self._watched = watched
        self._watched.busy.fill_(_NOT_BEGUN)
        super().__init__(loader)
        if hasattr(self, "_pin_memory_thread"):  # it fails on data of a dead worker, which _give_up tells
            self._pin_memory_thread._invoke_excepthook = lambda _: None  # type: ignore[attr-defined]  # of this thread alone
        self._patience = TIMEOUT
        if self._worker_pids_set:
            _utils.signal_handling._remove_worker_pids(id(self))  # type: ignore[attr-defined]  # a private function of torch
            self._worker_pids_set = False

    def _try_get_data(self, timeout: float = 0.0) -> tuple[bool, Any]:
        for _ in range(math.ceil(self._patience / LOOK)):
            try:
                done, data = super()._try_get_data(LOOK)  # type: ignore[no-untyped-call]  # torch has no types here
            except Exception as error:
                self._give_up(self._cause(error), error)
            if done:
                return True, data
        self._give_up(f"no batch came within {self._patience:g} s: {self._at_work()}", None)

    def _get_data(self) -> Any:
        try:
            return super()._get_data()  # type: ignore[no-untyped-call]  # torch has no types here
        except LoaderError:
            raise
        except RuntimeError as error:  # the pin-memory thread failed on data of a dead worker
            self._give_up(self._cause(error), error)

    def _next_data(self) -> Any:
        try:
            return super()._next_data()  # type: ignore[no-untyped-call]  # torch has no types here
        except (StopIteration, LoaderError):
            raise
        except Exception:  # raised in a worker; the traceback would keep all workers alive
            self.end()
            raise

    def _cause(self, error: Exception) -> str:
        # Reading the data of a dying worker may fail a moment before its end can be seen.
        wait([worker.sentinel for worker in self._workers], timeout=PATIENCE)
        for worker in self._workers:
            if wait([worker.sentinel], timeout=0):  # the exit code follows a moment later
                worker.join(PATIENCE)
        ended = [(number, worker) for number, worker in enumerate(self._workers) if not worker.is_alive()]
        if not ended:
            return f"the loader processes no longer answer ({type(error).__name__}: {error})"
        return "; ".join(f"a loader process {_end(worker.exitcode)} {self._place(number)}" for number, worker in ended)

    def _place(self, number: int) -> str:
        index = int(self._watched.busy[number])
        if index == _NOT_BEGUN:
            imports = f" (it printed why; it imports the main script: {MAIN_GUARD})" if self._method != FORK else ""
            return f"before its first sample{imports}"
        return "between two samples" if index == _IDLE else f"while it loaded {self._name(index)}"

    def _at_work(self) -> str:
        names = [self._name(index) for index in self._watched.busy.tolist() if index >= 0]
        return f"the loader processes are busy with {examples(names)}" if names else "the loader processes are idle"

    def _name(self, index: int) -> str:
        table = self._watched.samples.table
        return f"sample {index} ({table.name_of(index)}) of {table.source}"

    def end(self) -> None:
        """Kill all workers, including unresponsive ones.

        torch would ask them to end through queues, which are closed already during garbage collection, and wait 5 s for each.
        They hold nothing that needs an orderly end.
        """
        if self._shutdown or os.getpid() != self._main:  # in a worker, which has copies of the parent's iterators
            return
        self._shutdown = True
        # The pin-memory thread first, as it would print a traceback for data of a killed worker.
        if hasattr(self, "_pin_memory_thread"):
            self._pin_memory_thread_done_event.set()
            self._worker_result_queue.put((None, None))  # wakes it
            self._pin_memory_thread.join(PATIENCE)
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join(PATIENCE)
        for queue in (self._worker_result_queue, *self._index_queues):
            queue.cancel_join_thread()
            queue.close()

    def _shutdown_workers(self) -> None:  # called by torch at the end of a pass and of the iterator
        if _utils is not None and not _utils.python_exit_status:  # at interpreter exit multiprocessing ends them
            self.end()

    def _give_up(self, what: str, error: Exception | None) -> NoReturn:
        self.end()
        raise LoaderError(f"{what}; {_REMEDY}") from error


def _end(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was ended by {name}{HINTS.get(name, '')}"

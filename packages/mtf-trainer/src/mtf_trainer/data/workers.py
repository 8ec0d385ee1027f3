"""Loader workers: private copies of loaders, what workers do with signals, waiting that can be interrupted, the end."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data import _utils as loader_utils

from mtf_trainer.data.source import DataWaitInterrupted

__all__ = ["WorkerSetup", "end_iteration", "is_plain", "private_copy"]

_POLL_S = 0.1
_PATIENCE_S = 1.0
_PR_SET_PDEATHSIG = 1
# Whatever a scheduler, a launcher or a terminal may send to every process of a job as a notice.
_NOTICES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGXCPU")
_NEVER = ("SIGCHLD", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGKILL", "SIGSTOP", "SIGPIPE")

_open_iterators: weakref.WeakSet[Any] = weakref.WeakSet()
_workers: weakref.WeakSet[Any] = weakref.WeakSet()


def _ignored_signals() -> tuple[int, ...]:
    """The usual notices, and every signal that this process has a handler for: it may have been chosen as one."""
    names = [name for name in _NOTICES if name in signal.Signals.__members__]
    handled = [
        each.name
        for each in signal.valid_signals()
        if isinstance(each, signal.Signals) and callable(signal.getsignal(each)) and each.name not in _NEVER
    ]
    return tuple(sorted({int(signal.Signals[name]) for name in names + handled}))


class WorkerSetup:
    """The first thing that a worker does; then comes the user's `worker_init_fn`."""

    def __init__(self, user_init: Callable[[int], Any] | None, ignored: tuple[int, ...]) -> None:
        self._user_init = user_init
        self._ignored = ignored
        # The kernel's notice comes when the thread that started the worker ends: only the main one lasts.
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._by_kernel = in_main_thread and sys.platform == "linux"

    def __call__(self, worker: int) -> None:
        """Set up worker number `worker`."""
        for number in self._ignored:
            signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._ignored)
        _die_with_parent(by_kernel=self._by_kernel)
        info = get_worker_info()
        if info is not None:
            # Its fields are read-only, but users' functions have to find their dataset there, not our wrapper.
            wrapper: Any = info.dataset
            object.__setattr__(info, "dataset", wrapper.dataset)
        if self._user_init is not None:
            self._user_init(worker)


def _die_with_parent(*, by_kernel: bool) -> None:
    """See to it that this process is killed when the training process ends, also in the middle of a fetch."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if by_kernel and os.getppid() == parent.pid:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent.pid:  # it went before the request was made
            os._exit(1)
    else:  # a fork server lies between, or the system has no such request
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def _held_back(signals: tuple[int, ...]) -> Iterator[None]:
    """Signals wait while workers start: a worker inherits this, and is not hit before it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _has_own_iterators(loader: Any) -> bool:
    return type(loader)._get_iterator is not DataLoader._get_iterator


def is_plain(loader: Any) -> bool:
    """Whether a private copy of a loader over a map-style dataset iterates as torch's own loader does."""
    return _has_own_iterators(loader) or type(loader).__iter__ is DataLoader.__iter__


def private_copy(loader: Any, *, should_stop: Callable[[], bool], **changes: Any) -> Any:
    """A copy of a loader that shares nothing that changes with it, and whose workers are well-behaved.

    Args:
        loader: the user's `DataLoader`, left as it is.
        should_stop: polled while waiting for workers.
        changes: attributes that differ in the copy; its dataset is a wrapper with the user's as `dataset`.
    """
    map_style = not isinstance(loader.dataset, IterableDataset)
    # Iterators of another make keep positions of their own, which requests by position have no use for.
    made: Any = object.__new__(DataLoader if map_style and _has_own_iterators(loader) else type(loader))
    context = {"_DataLoader__multiprocessing_context": loader.multiprocessing_context}
    # A DataLoader refuses most assignments after its construction.
    made.__dict__.update(loader.__dict__, _iterator=None, generator=torch.Generator(), **context, **changes)
    if made.num_workers > 0:
        this = weakref.ref(made)
        user_init = loader.worker_init_fn

        def get_iterator() -> Any:
            copy: Any = this()
            ignored = _ignored_signals()
            copy.__dict__["worker_init_fn"] = WorkerSetup(user_init, ignored)
            with _held_back(ignored):
                iterator = type(copy)._get_iterator(copy)
            _make_interruptible(iterator, should_stop)
            _make_endable(iterator)
            copy.__dict__["_built"] = weakref.ref(iterator)
            return iterator

        made.__dict__["_get_iterator"] = get_iterator
    return made


def end_iteration(copy: Any) -> None:
    """End the workers of a private copy, whatever their iterator is wrapped in."""
    built = copy.__dict__.pop("_built", None)
    if built is not None and (iterator := built()) is not None:
        _end_workers(iterator)
    copy.__dict__["_iterator"] = None


def _make_interruptible(iterator: Any, should_stop: Callable[[], bool]) -> None:
    """Wait for workers in short slices; without the private method that does the waiting, nothing is polled."""
    wait = getattr(type(iterator), "_try_get_data", None)
    if wait is None:
        return
    this = weakref.ref(iterator)

    def wait_in_slices(timeout: float = loader_utils.MP_STATUS_CHECK_INTERVAL) -> tuple[bool, Any]:
        deadline = time.monotonic() + timeout
        while True:
            try:
                arrived, data = wait(this(), max(0.0, min(_POLL_S, deadline - time.monotonic())))
            except RuntimeError:
                if should_stop():  # what ended a worker may be what asks to stop
                    raise DataWaitInterrupted("a stop was requested, and a loader worker ended") from None
                raise
            if arrived:
                return True, data
            if should_stop():
                raise DataWaitInterrupted("a stop was requested while waiting for a batch")
            if time.monotonic() >= deadline:
                return False, None

    iterator._try_get_data = wait_in_slices


def _make_endable(iterator: Any) -> None:
    """Whoever terminates a worker sends SIGTERM, which it ignores."""
    _open_iterators.add(iterator)
    for worker in getattr(iterator, "_workers", ()):
        worker.terminate = worker.kill
        _workers.add(worker)


def _end_workers(iterator: Any) -> None:
    """End an iterator's workers: politely at first, then by force, since they ignore SIGTERM."""
    workers = [worker for worker in getattr(iterator, "_workers", ()) if worker.is_alive()]
    if workers and hasattr(iterator, "_workers_done_event") and not getattr(iterator, "_shutdown", False):
        iterator._workers_done_event.set()
        for queue in iterator._index_queues:
            queue.put(None)
        deadline = time.monotonic() + _PATIENCE_S
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
    left = [worker for worker in workers if worker.is_alive()]
    if left:
        # Otherwise torch reports them as lost.
        _remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
        for worker in left:
            worker.kill()
            worker.join()
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
    _open_iterators.discard(iterator)


@atexit.register
def _end_all() -> None:
    """Before multiprocessing waits for its children: a worker in the middle of a fetch would be waited for."""
    for iterator in list(_open_iterators):
        _end_workers(iterator)
    for worker in [each for each in _workers if each.is_alive()]:
        worker.kill()

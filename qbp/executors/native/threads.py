"""A standing pool of threads for kernels that release the interpreter lock: microseconds to start, none to create."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

__all__ = ["run_on_threads"]


class _Task:
    """A function that several threads run at once; workers that come too late do nothing."""

    def __init__(self, function: Callable[[Any], None], job: Any, helpers: int):
        self.function, self.job = function, job
        self.helpers = helpers
        self.open = [None] * helpers  # list.pop is atomic
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()

    def claim(self) -> bool:
        try:
            self.open.pop()
        except IndexError:
            return False
        return True

    def help(self) -> None:
        if self.claim():
            try:
                self.function(self.job)
                self.done.put(None)
            except BaseException as error:  # handed to the caller
                self.done.put(error)


_tasks: SimpleQueue[_Task] = SimpleQueue()
_workers = 0
_lock = threading.Lock()


def _work(tasks: SimpleQueue[_Task]) -> None:
    while True:
        tasks.get().help()


def _after_fork() -> None:
    """A forked process has none of its parent's threads."""
    global _tasks, _workers, _lock
    _tasks, _workers, _lock = SimpleQueue(), 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run_on_threads(function: Callable[[Any], None], job: Any, n_threads: int) -> None:
    """Run ``function(job)`` on this thread and up to ``n_threads - 1`` others at once, until all that began are done.

    The function finds its share of the work itself and returns when nothing is left.
    """
    global _workers
    if n_threads <= 1:
        function(job)
        return
    with _lock:
        while _workers < n_threads - 1:
            threading.Thread(target=_work, args=(_tasks,), name="qbp", daemon=True).start()
            _workers += 1
    task = _Task(function, job, n_threads - 1)
    for _ in range(task.helpers):
        _tasks.put(task)
    try:
        function(job)
    finally:
        late = 0
        while task.claim():
            late += 1
        errors = [task.done.get() for _ in range(task.helpers - late)]
    for error in errors:
        if error is not None:
            raise error

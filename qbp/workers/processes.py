"""Processes of this machine, of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

import torch

from qbp.errors import ArgumentError

__all__ = ["MOST_DEATHS", "in_processes"]

MOST_DEATHS = 3
"""So many workers may die over one argument: a killed one is bad luck, three are its own doing."""

Run = Callable[[Any], Any]


@contextmanager
def in_processes(run: Run, workers: int) -> Iterator[Callable[[Sequence[Any]], Iterator[tuple[int, Any]]]]:
    """Open so many processes, which start when there is work for them; see `qbp.workers.pool`."""
    slots: dict[int, ProcessPoolExecutor] = {}
    with_script: list[bool] = []

    def slot(number: int) -> ProcessPoolExecutor:
        if number not in slots:
            context = _Context() if with_script[0] else _ContextWithoutScript()
            slots[number] = ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(run,))
        return slots[number]

    def each(arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        if workers == 1 or len(arguments) < 2:
            yield from ((k, run(argument)) for k, argument in enumerate(arguments))
            return
        with_script[:] = with_script or [_needs_script(run)]
        waiting, free = deque(range(len(arguments))), deque(range(min(workers, len(arguments))))
        running: dict[Future[Any], tuple[int, int]] = {}
        deaths: Counter[int] = Counter()
        while waiting or running:
            while waiting and free:
                number, k = free.popleft(), waiting.popleft()
                with _one_thread():
                    running[slot(number).submit(_in_worker, arguments[k])] = number, k
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, k = running.pop(future)
                free.append(number)
                try:
                    result = future.result()
                except BrokenProcessPool as error:
                    slots.pop(number).shutdown(wait=False)
                    deaths[k] += 1
                    if deaths[k] == MOST_DEATHS:
                        raise _died() from error
                    waiting.appendleft(k)
                else:
                    yield k, result

    try:
        yield each
    except BaseException:
        for one in slots.values():
            _kill(one)
        raise
    else:
        for one in slots.values():
            one.shutdown()


def _died() -> ArgumentError:
    return ArgumentError(
        "Argument `workers` must be smaller, since a process ended by itself, as where memory runs out. If the models "
        "are functions of this script, put the call under `if __name__ == '__main__':`"
    )


def _needs_script(run: Run) -> bool:
    """Whether what is run can be had only by running the caller's script again, up to its `__main__` guard."""
    try:
        return b"__main__" in pickle.dumps(run)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(
            "Argument `workers` must be 1 here, since other processes cannot be given what is run (give functions of a "
            f"module, or functools.partial of them, not lambdas): {error}"
        ) from error


# ---- processes -----------------------------------------------------------------------------------------------------

_run: Run | None = None  # of a worker, which gets it once rather than with every argument


class _Process(SpawnProcess):
    """A process that Ctrl-C does not reach: the one that started it ends it."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        block = getattr(signal, "pthread_sigmask", None)  # a new process inherits what is blocked
        before = block(signal.SIG_BLOCK, {signal.SIGINT}) if block else None
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            if block:
                block(signal.SIG_SETMASK, before)


class _ProcessWithoutScript(_Process):
    """One that does not run the caller's script again, which then needs no `__main__` guard."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return _Process._Popen(process_obj)
        finally:
            sys.modules["__main__"] = script


class _Context(SpawnContext):
    Process = _Process


class _ContextWithoutScript(SpawnContext):
    Process = _ProcessWithoutScript


def _kill(pool: ProcessPoolExecutor) -> None:
    """End a worker at once: what it has not finished is not there, and is run again another time."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.kill()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes start with one thread each: more of them would only wait for each other."""
    single = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    before = {name: os.environ.get(name) for name in single}
    os.environ.update(single)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _start(run: Run) -> None:
    global _run
    _run = run
    torch.set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End with the process that started this one: killed, it cannot say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_worker(argument: Any) -> Any:
    assert _run is not None
    return _run(argument)

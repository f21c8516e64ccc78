"""Many independent runs on the machine's cores, kept one by one: none that is finished runs twice."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from qbp.errors import ArgumentError, check_count
from qbp.storage.atomic import write_atomic

__all__ = ["sweep"]

LOG, LOCKS = "log.jsonl", "locks"

Cell = dict[str, Any]
Run = Callable[[Any], Cell]
Progress = Callable[[int, int, float], object]


def sweep(
    cells: Mapping[Path, Any],
    run: Run,
    directory: str | Path | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Cell]:
    """Run every cell that is not there yet.

    A finished cell is a JSON file, and beside it a .npz with its arrays; both are written atomically, the JSON last. A
    cell is locked while it runs, so that several sweeps in one directory share the work. `log.jsonl` says when each
    cell began and ended, and in which process.

    Args:
        cells: what `run` is called with, by the path of the cell below the directory.
        run: returns plain data, and NumPy arrays under `arrays`. With several workers it must pickle.
        directory: where finished cells are kept; None keeps them in memory only.
        workers: processes; 1 runs here.
        progress: called with (cells finished, cells in all, seconds that are left to go) after each.

    Returns:
        The cells in their order, without their arrays where they are on disk.

    Raises:
        ArgumentError: a number is wrong, or `run` does not pickle where it must.

    Example:
        >>> sweep({Path("a.json"): 2, Path("b.json"): 3}, lambda x: {"square": x * x})
        [{'square': 4}, {'square': 9}]
    """
    check_count("workers", workers)
    folder = None if directory is None else Path(directory)
    done = {path: cell for path in cells if folder is not None and (cell := _read(folder / path)) is not None}
    waiting = [path for path in cells if path not in done]
    began, before = time.monotonic(), len(done)

    def finished(path: Path, cell: Cell) -> None:
        done[path] = cell
        if progress is not None:
            each = (time.monotonic() - began) / (len(done) - before)
            progress(len(done), len(cells), each * (len(cells) - len(done)))

    if workers == 1 or len(waiting) < 2:
        for path in waiting:
            finished(path, _one(run, cells[path], path, folder))
    else:
        with _pool(min(workers, len(waiting)), run, _needs_script(run)) as pool:
            try:
                futures = {pool.submit(_in_worker, cells[path], path, folder): path for path in waiting}
                for future in as_completed(futures):
                    finished(futures[future], future.result())
            except BrokenProcessPool as error:
                raise ArgumentError(
                    "Argument `workers` must be smaller, since a process ended by itself, as where memory runs out. If "
                    "the models are functions of this script, put the call under `if __name__ == '__main__':`"
                ) from error
            except BaseException:
                _kill(pool)
                raise
    return [done[path] for path in cells]


def _needs_script(run: Run) -> bool:
    """Whether what is run can be had only by running the caller's script again, up to its `__main__` guard."""
    try:
        return b"__main__" in pickle.dumps(run)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(
            "Argument `workers` must be 1 here, since other processes cannot be given what is run (give functions of a "
            f"module, or functools.partial of them, not lambdas): {error}"
        ) from error


def _one(run: Run, argument: Any, path: Path, folder: Path | None) -> Cell:
    if folder is None:
        return run(argument)
    with _locked(folder, path):
        if (there := _read(folder / path)) is not None:  # another sweep was quicker
            return there
        _log(folder, path, "began")
        cell = run(argument)
        arrays = cell.pop("arrays", None)
        if arrays:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            write_atomic((folder / path).with_suffix(".npz"), buffer.getvalue())
        write_atomic(folder / path, (json.dumps(cell) + "\n").encode())
        _log(folder, path, "ended")
        return cell


def _read(path: Path) -> Cell | None:
    try:
        cell: Cell = json.loads(path.read_text(encoding="utf-8"))
        return cell
    except FileNotFoundError:
        return None


def _log(folder: Path, path: Path, event: str) -> None:
    line = json.dumps({"cell": path.as_posix(), "event": event, "process": os.getpid(), "time": time.time()}) + "\n"
    with open(folder / LOG, "ab", buffering=0) as file:  # one write at the end: processes do not mix their lines
        file.write(line.encode())


@contextlib.contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    """Hold a cell's lock, which the system releases when a process dies."""
    from filelock import FileLock

    (folder / LOCKS).mkdir(parents=True, exist_ok=True)
    file = folder / LOCKS / f"{hashlib.sha256(path.as_posix().encode()).hexdigest()[:20]}.lock"
    with FileLock(file):
        yield
        file.unlink(missing_ok=True)  # the cell is there: whoever waits, or comes later, finds it


# ---- in other processes --------------------------------------------------------------------------------------------

_run: Run | None = None  # of a worker, which gets it once rather than with every cell


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
    """End the workers at once: what a cell has not finished is not there, and is run again another time."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.kill()


@contextlib.contextmanager
def _pool(workers: int, run: Run, with_script: bool) -> Iterator[ProcessPoolExecutor]:
    """Start processes of one thread each: more of them would only wait for each other."""
    single = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    before = {name: os.environ.get(name) for name in single}
    os.environ.update(single)
    try:
        context = _Context() if with_script else _ContextWithoutScript()
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(run,)) as pool:
            yield pool
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


def _in_worker(argument: Any, path: Path, folder: Path | None) -> Cell:
    assert _run is not None
    return _one(_run, argument, path, folder)

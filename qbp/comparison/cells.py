"""Many independent runs by any executor, kept one by one: none that is finished runs twice."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qbp.storage.atomic import write_atomic
from qbp.workers import Each, pool

__all__ = ["Go", "locked", "opened", "sweep"]

LOG, LOCKS = "log.jsonl", "locks"

Result = dict[str, Any]
Run = Callable[[Any], Any]
Together = Callable[[Any], Hashable]
Progress = Callable[[int, int, float], object]
Go = Callable[[Mapping[Path, Any]], list[Result]]


def sweep(
    cells: Mapping[Path, Any],
    run: Run,
    directory: str | Path | None = None,
    *,
    together: Together | None = None,
    workers: int = 1,
    executor: str = "processes",
    progress: Progress | None = None,
) -> list[Result]:
    """Run every cell that is not there yet.

    A finished cell is a JSON file, and beside it a .npz with its arrays; both are written atomically, the JSON last. A
    cell is locked while it runs in a process, so that several sweeps in one directory share the work. `log.jsonl` says
    when each cell began and ended, and in which process.

    Args:
        cells: what `run` is called with, by the path of the cell below the directory.
        run: returns plain data, and NumPy arrays under `arrays`. With several workers it must pickle.
        together: a function of what `run` would be called with: cells with equal values are one call, for which `run`
            takes and returns a list. Where only some of them are there, all run again, so that the others are the same
            as if nothing had happened; those that are there stay.
        directory: where finished cells are kept; None keeps them in memory only.
        workers: processes; 1 runs here.
        executor: who runs them, as in `qbp.workers.pool`.
        progress: called with (cells finished, cells in all, seconds that are left to go) after each.

    Returns:
        The cells in their order, without their arrays where they are on disk.

    Raises:
        ArgumentError: a number is wrong, or `run` does not pickle where it must.

    Example:
        >>> sweep({Path("a.json"): 2, Path("b.json"): 3}, lambda x: {"square": x * x})
        [{'square': 4}, {'square': 9}]
    """
    with opened(run, directory, together=together, workers=workers, executor=executor, progress=progress) as go:
        return go(cells)


@contextlib.contextmanager
def opened(
    run: Run,
    directory: str | Path | None = None,
    *,
    together: Together | None = None,
    workers: int = 1,
    executor: str = "processes",
    progress: Progress | None = None,
) -> Iterator[Go]:
    """Open workers for several sweeps of the same function, one after the other; the arguments are those of `sweep`."""
    folder = None if directory is None else Path(directory)
    is_here = executor == "processes"  # other machines do not see the folder: what they find is kept from here
    every = run if together is not None else _OneByOne(run)
    with pool(_Keeping(every, folder) if is_here else _Elsewhere(every), executor, workers) as each:
        yield lambda cells: _sweep(cells, together, each, folder, is_here, progress)


def _sweep(
    cells: Mapping[Path, Any],
    together: Together | None,
    each: Each,
    folder: Path | None,
    is_here: bool,
    progress: Progress | None,
) -> list[Result]:
    done = {path: result for path in cells if folder is not None and (result := _read(folder / path)) is not None}
    groups: dict[Hashable, list[tuple[Path, Any]]] = {}
    for path, argument in cells.items():
        groups.setdefault(path if together is None else together(argument), []).append((path, argument))
    waiting = [group for group in groups.values() if any(path not in done for path, _ in group)]
    began, before = time.monotonic(), len(done)
    for k, results in each(waiting):
        for (path, _), result in zip(waiting[k], results, strict=True):
            if path in done:
                continue
            done[path] = result if is_here or folder is None else _kept(folder, path, result)
            if progress is not None:
                seconds = (time.monotonic() - began) / (len(done) - before)
                progress(len(done), len(cells), seconds * (len(cells) - len(done)))
    return [done[path] for path in cells]


@dataclass(frozen=True)
class _OneByOne:
    """Runs cells that are independent."""

    run: Run

    def __call__(self, arguments: list[Any]) -> list[Result]:
        return [self.run(argument) for argument in arguments]


@dataclass(frozen=True)
class _Keeping:
    """Runs cells, and writes them where they run."""

    run: Run
    folder: Path | None

    def __call__(self, given: list[tuple[Path, Any]]) -> list[Result]:
        paths, arguments = [path for path, _ in given], [argument for _, argument in given]
        if self.folder is None:
            results: list[Result] = self.run(arguments)
            return results
        with contextlib.ExitStack() as locks:
            for path in sorted(paths):
                locks.enter_context(locked(self.folder, path))
            there = [_read(self.folder / path) for path in paths]
            if all(result is not None for result in there):  # another sweep was quicker
                return [result for result in there if result is not None]
            for path, result in zip(paths, there, strict=True):
                if result is None:
                    _log(self.folder, path, "began")
            triples = zip(paths, there, self.run(arguments), strict=True)
            return [_write(self.folder, path, new) if old is None else old for path, old, new in triples]


@dataclass(frozen=True)
class _Elsewhere:
    """Runs cells that are written by somebody else."""

    run: Run

    def __call__(self, given: list[tuple[Path, Any]]) -> list[Result]:
        results: list[Result] = self.run([argument for _, argument in given])
        return results


def _kept(folder: Path, path: Path, result: Result) -> Result:
    """Keep a cell that another machine has run."""
    with locked(folder, path):
        there = _read(folder / path)
        return _write(folder, path, result) if there is None else there


def _write(folder: Path, path: Path, result: Result) -> Result:
    arrays = result.pop("arrays", None)
    if arrays:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomic((folder / path).with_suffix(".npz"), buffer.getvalue())
    write_atomic(folder / path, (json.dumps(result) + "\n").encode())
    _log(folder, path, "ended")
    return result


def _read(path: Path) -> Result | None:
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        return result
    except FileNotFoundError:
        return None


def _log(folder: Path, path: Path, event: str) -> None:
    line = json.dumps({"cell": path.as_posix(), "event": event, "process": os.getpid(), "time": time.time()}) + "\n"
    with open(folder / LOG, "ab", buffering=0) as file:  # one write at the end: processes do not mix their lines
        file.write(line.encode())


@contextlib.contextmanager
def locked(folder: Path, path: Path) -> Iterator[None]:
    """Hold a cell's lock, which the system releases when a process dies."""
    from filelock import FileLock

    (folder / LOCKS).mkdir(parents=True, exist_ok=True)
    file = folder / LOCKS / f"{hashlib.sha256(path.as_posix().encode()).hexdigest()[:20]}.lock"
    with FileLock(file):
        yield
        file.unlink(missing_ok=True)  # the cell is there: whoever waits, or comes later, finds it

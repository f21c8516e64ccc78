"""The ledger of a run's jobs: what was sent, for what work, under which tag, and what came back.

`jobs.jsonl` is written ahead of everything: a line is on the disk before the next thing happens. Lines are only ever
added, so a kill at any moment loses nothing but a line that was being written, whose deed had not begun. Each line
carries a checksum over all lines up to it, so that a file that was emptied, cut or changed is noticed.
Results lie beside it, in `results/FINGERPRINT.npz`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from qbp.errors import ConfigError, JobError, check_count, check_positive
from qbp.jobs.cost import Cost
from qbp.storage.atomic import write_atomic

__all__ = ["JOBS", "Entry", "Ledger", "read_ledger"]

JOBS = "jobs.jsonl"
RESULTS = "results"
VERSION = 2
STATES = ("INTENDED", "SUBMITTED", "DONE", "FAILED")
START = b'{"event": "'


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of one work.

    Attributes:
        work: its fingerprint.
        backend: as in "ibm:ibm_torino".
        tag: what its jobs carry, and no job of other work.
        circuits, shots, estimate: as planned; shots of all circuits together, estimate in quantum seconds.
        at: when it was begun, in UTC.
        state: "INTENDED" (perhaps sent), "SUBMITTED", "DONE" or "FAILED".
        job: id of its job, once known.
        seconds: what the service charged for that job.
        reason: why it failed.
        spent: quantum seconds of other jobs of this work: of failed ones, and of duplicates that the client made.
        dead: ids of those other jobs.

    Raises:
        ArgumentError: an amount is no number, negative, or not finite.
        ValueError: the work is no fingerprint, or the state none of those.
    """

    work: str
    backend: str
    tag: str
    circuits: int
    shots: int
    estimate: float
    at: str
    state: str = "INTENDED"
    job: str | None = None
    seconds: float = 0.0
    reason: str = ""
    spent: float = 0.0
    dead: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("circuits", "shots"):
            check_count(name, getattr(self, name), least=0)
        for name in ("estimate", "seconds", "spent"):
            check_positive(name, getattr(self, name), zero=True)
        if re.fullmatch("[0-9a-f]{16,128}", self.work) is None:  # it becomes the name of a file
            raise ValueError(f"{self.work!r} is no fingerprint")
        if self.state not in STATES:
            raise ValueError(f"{self.state!r} is no state")

    @property
    def cost(self) -> Cost:
        """What it has cost; as long as its job is not done, what it is estimated to."""
        jobs = len(self.dead) + (self.state != "FAILED")
        own = {"DONE": self.seconds, "FAILED": 0.0}.get(self.state, self.estimate)
        return Cost(jobs, self.circuits, self.shots, own + self.spent)

    def after(self, event: dict[str, Any]) -> Entry:
        """The entry after one more line of the ledger."""
        kind, job = event["event"], event.get("job")
        if kind == "submitted":
            return replace(self, state="SUBMITTED", job=job)
        if kind == "done":
            return replace(self, state="DONE", job=job, seconds=event["seconds"])
        if kind == "again":
            return replace(self, state="INTENDED", job=None, reason="")
        if kind not in ("failed", "duplicate"):
            raise ValueError(f"{kind!r} is no event")
        check_positive("seconds", event["seconds"], zero=True)
        lost = replace(self, spent=self.spent + event["seconds"], dead=(*self.dead, job) if job else self.dead)
        return lost if kind == "duplicate" else replace(lost, state="FAILED", job=None, reason=event["reason"])


class Ledger:
    """The ledger in a directory, opened to be written by this process alone, from as many threads as it has.

    Args:
        directory: made if it is not there.

    Attributes:
        mutex: held by a thread that reads and writes more than one thing.
        unsure: works of which there may be jobs that nobody has heard of.
        is_earlier: whether a version of qbp wrote it that named works by another rule, so that a work may be there
            under a name that it does not have today.

    Raises:
        JobError: another process has it open.
        ConfigError: it is damaged, or was emptied.
    """

    def __init__(self, directory: str | Path):
        from filelock import FileLock, Timeout

        self.directory = Path(directory)
        (self.directory / RESULTS).mkdir(parents=True, exist_ok=True)
        self.mutex = threading.RLock()
        self.unsure: set[str] = set()
        self._claims: dict[str, threading.Lock] = {}
        self._process = os.getpid()
        self._lock = FileLock(self.directory / f"{JOBS}.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JobError(f"The jobs in {self.directory} are in the hands of another process") from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> None:
        self._path = self.directory / JOBS
        results = {path.stem for path in (self.directory / RESULTS).glob("*.npz")}
        if not self._path.exists():
            if results:
                raise ConfigError(f"The ledger {self._path} is gone, and results of its jobs are there: put it back")
            write_atomic(self._path, _header())
        self.name, self.entries, self._sum, version, size = _read(self._path)
        self.is_earlier = version < VERSION
        if self.is_earlier and not self.entries:  # nothing was sent: it may as well begin today
            write_atomic(self._path, _header())
            self.name, self.entries, self._sum, version, size = _read(self._path)
            self.is_earlier = False
        lost = results - self.entries.keys()
        if lost:
            raise ConfigError(f"The ledger {self._path} is damaged: it does not know the results {min(lost)} beside it")
        os.truncate(self._path, size)  # a line that was cut off by a kill
        self._file = open(self._path, "ab")  # noqa: SIM115 - open as long as the ledger is

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()
        self._lock.release()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def check_process(self) -> None:
        """Raise `JobError` in a process that was forked from the one that opened the ledger."""
        if os.getpid() != self._process:
            raise JobError(
                f"The jobs in {self.directory} are in the hands of another process, which this one came from"
            )

    def check_new(self) -> None:
        """Raise `JobError` where a work that is not in the ledger may be there under another name."""
        if self.is_earlier:
            raise JobError(
                f"The ledger {self._path} was begun by an earlier version of qbp, which named works otherwise: this "
                f"one may be among its {len(self.entries)}, and would be paid for twice. Nothing was sent: finish the "
                "run with that version, or start in another directory"
            )

    def claim(self, work: str) -> threading.Lock:
        """What the one thread holds that deals with a work."""
        with self.mutex:
            return self._claims.setdefault(work, threading.Lock())

    @property
    def spent(self) -> Cost:
        """What all jobs have cost so far; of those that are not done, what they are estimated to."""
        with self.mutex:
            return sum((entry.cost for entry in self.entries.values()), Cost())

    def spent_on(self, backend: str) -> Cost:
        """The same of one kind of backend: what was rehearsed on "fake:torino" is not paid for on "ibm:ibm_torino"."""
        kind = backend.partition(":")[0]
        with self.mutex:
            costs = [entry.cost for entry in self.entries.values() if entry.backend.partition(":")[0] == kind]
        return sum(costs, Cost())

    def intend(self, work: str, backend: str, circuits: int, shots: int, estimate: float) -> Entry:
        """Note that a job will be sent for this work, under a tag that nothing else has."""
        tag = f"qbp.{self.name}.{work[:32]}"
        line = {"work": work, "backend": backend, "tag": tag, "circuits": circuits, "shots": shots}
        line |= {"estimate": estimate, "at": _now()}
        entry = Entry(**line)  # type: ignore[arg-type]
        with self.mutex:
            self._write({"event": "intended", **line})
            self.entries[work] = entry
        return entry

    def note(self, event: str, work: str, **details: Any) -> Entry:
        """Add a line about a work, and return what is known of it then."""
        line = {"event": event, "work": work, "at": _now(), **details}
        with self.mutex:
            entry = self.entries[work].after(line)
            self._write(line)
            self.entries[work] = entry
        return entry

    def save(self, work: str, values: np.ndarray, stds: np.ndarray) -> None:
        """Keep the results of a work, with their checksum."""
        content = io.BytesIO()
        np.savez(content, values=values, stds=stds, sha256=np.array(_checksum(work, values, stds)))
        write_atomic(self.directory / RESULTS / f"{work}.npz", content.getvalue())

    def load(self, work: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Values and standard errors of a work; None if they are not there, or not as they were saved."""
        try:
            with np.load(self.directory / RESULTS / f"{work}.npz", allow_pickle=False) as arrays:
                values, stds, checksum = arrays["values"], arrays["stds"], str(arrays["sha256"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, NotImplementedError):
            return None
        return (values, stds) if checksum == _checksum(work, values, stds) else None

    def _write(self, event: dict[str, Any]) -> None:
        self.check_process()
        line, self._sum = _line(event, self._sum)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())


def read_ledger(directory: str | Path) -> tuple[str, dict[str, Entry]]:
    """The name of a ledger and its entries by fingerprint, oldest first; it may be open elsewhere.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    return _read(Path(directory) / JOBS)[:2]


def _read(path: Path) -> tuple[str, dict[str, Entry], str, int, int]:
    """Name, entries, checksum, version, and the bytes of whole lines; the rest is a line that a kill cut off."""
    entries: dict[str, Entry] = {}
    name, checksum, version, number = "", "", 0, 0
    try:
        content = path.read_bytes()
        *lines, rest = content.split(b"\n")
        if not lines:
            raise ValueError("its first line was cut" if rest else "it was emptied")
        if not rest.startswith(START[: len(rest)]) and rest.strip(b"\0"):
            raise ValueError("it ends in what is no line of a ledger")
        for number, line in enumerate(lines, start=1):
            event = json.loads(line)
            told = event.pop("sum", None)
            checksum = _line(event, checksum)[1]
            if number == 1:
                name, version = event["name"], event["version"]
                if event["event"] != "ledger" or version not in (1, VERSION):
                    raise ValueError("it is no ledger that this version reads")
            elif event["event"] == "intended":
                entry = Entry(**{key: value for key, value in event.items() if key != "event"})
                if entry.work in entries:
                    raise ValueError("a work was begun twice")
                entries[entry.work] = entry
            else:
                entries[event["work"]] = entries[event["work"]].after(event)
            if version > 1 and told != checksum:
                raise ValueError("it or a line before it was changed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        at = f", line {number}" if number else ""
        said = str(error) if isinstance(error, ValueError | OSError) else repr(error)
        raise ConfigError(
            f"Cannot read the ledger of jobs {path}{at}: {said}. It is left as it is: put back the file as it was, or "
            "start in another directory, which pays for its jobs again"
        ) from error
    return name, entries, checksum, version, len(content) - len(rest)


def _header() -> bytes:
    """The first line of a new ledger."""
    return _line({"event": "ledger", "version": VERSION, "name": secrets.token_hex(4)}, "")[0]


def _line(event: dict[str, Any], before: str) -> tuple[bytes, str]:
    """The line of an event, and its checksum over all lines, `before` being that of the line before."""
    text = json.dumps(event)
    checksum = hashlib.sha256((before + text).encode()).hexdigest()[:16]
    return f'{text[:-1]}, "sum": "{checksum}"}}\n'.encode(), checksum


def _checksum(work: str, values: np.ndarray, stds: np.ndarray) -> str:
    """Of what a work gave, and of which work it was."""
    digest = hashlib.sha256(work.encode())
    for array in (values, stds):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

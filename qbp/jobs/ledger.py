"""The ledger of a run's jobs: what was sent, for what work, under which tag, and what came back.

`jobs.jsonl` is written ahead of everything: a line is on the disk before the next thing happens. Lines are only ever
added, so a kill at any moment loses nothing but a line that was being written, whose deed had not begun.
Results lie beside it, in `results/FINGERPRINT.npz`.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from qbp.errors import ConfigError, JobError
from qbp.jobs.cost import Cost
from qbp.storage.atomic import write_atomic

__all__ = ["JOBS", "Entry", "Ledger", "read_ledger"]

JOBS = "jobs.jsonl"
RESULTS = "results"
VERSION = 1


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
        assert kind in ("failed", "duplicate"), kind
        lost = replace(self, spent=self.spent + event["seconds"], dead=(*self.dead, job) if job else self.dead)
        return lost if kind == "duplicate" else replace(lost, state="FAILED", job=None, reason=event["reason"])


class Ledger:
    """The ledger in a directory, opened to be written by this process alone.

    Args:
        directory: made if it is not there.

    Raises:
        JobError: another process has it open.
        ConfigError: it is damaged.
    """

    def __init__(self, directory: str | Path):
        from filelock import FileLock, Timeout

        self.directory = Path(directory)
        (self.directory / RESULTS).mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.directory / f"{JOBS}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JobError(f"The jobs in {self.directory} are in the hands of another process") from None
        self._path = self.directory / JOBS
        if self._path.exists():
            content = self._path.read_bytes()
            os.truncate(self._path, content.rfind(b"\n") + 1)  # a line that was cut off by a kill
        self._file = open(self._path, "ab")  # noqa: SIM115 - open as long as the ledger is
        if self._file.tell() == 0:
            self._write({"event": "ledger", "version": VERSION, "name": secrets.token_hex(4)})
            _sync_directory(self.directory)
        self.name, self.entries = read_ledger(self.directory)

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()
        self._lock.release()

    @property
    def spent(self) -> Cost:
        """What all jobs have cost so far; of those that are not done, what they are estimated to."""
        return sum((entry.cost for entry in self.entries.values()), Cost())

    def intend(self, work: str, backend: str, circuits: int, shots: int, estimate: float) -> Entry:
        """Note that a job will be sent for this work, under a tag that nothing else has."""
        tag = f"qbp.{self.name}.{work[:32]}"
        line = {"work": work, "backend": backend, "tag": tag, "circuits": circuits, "shots": shots}
        line |= {"estimate": estimate, "at": _now()}
        entry = Entry(**line)  # type: ignore[arg-type]
        self._write({"event": "intended", **line})
        self.entries[work] = entry
        return entry

    def note(self, event: str, work: str, **details: Any) -> Entry:
        """Add a line about a work, and return what is known of it then."""
        line = {"event": event, "work": work, "at": _now(), **details}
        self._write(line)
        self.entries[work] = self.entries[work].after(line)
        return self.entries[work]

    def save(self, work: str, **arrays: np.ndarray) -> None:
        """Keep the results of a work."""
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        write_atomic(self.directory / RESULTS / f"{work}.npz", content.getvalue())

    def load(self, work: str) -> dict[str, np.ndarray] | None:
        """The results of a work; None if they are not there, or damaged."""
        try:
            with np.load(self.directory / RESULTS / f"{work}.npz", allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, BadZipFile):
            return None

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_ledger(directory: str | Path) -> tuple[str, dict[str, Entry]]:
    """The name of a ledger and its entries by fingerprint, oldest first; it may be open elsewhere.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = Path(directory) / JOBS
    name, entries = "", {}
    try:
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            event = json.loads(line)
            kind = event["event"]
            if kind == "ledger":
                name = event["name"]
                assert event["version"] == VERSION
            elif kind == "intended":
                del event["event"]
                entries[event["work"]] = Entry(**event)
            else:
                entries[event["work"]] = entries[event["work"]].after(event)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ConfigError(f"Cannot read the jobs in {path}: {error!r}") from error
    return name, entries


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _sync_directory(directory: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # elsewhere directories are not opened
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

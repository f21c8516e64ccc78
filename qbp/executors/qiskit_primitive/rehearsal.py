"""A rehearsal: a device's fake twin behind the device's own `Primitive`, with jobs that wait and can be cancelled.

Jobs are small files, so that another process finds them as it would find those of a service. Who fetches a job's
results runs it; before that it was looked at once and found waiting.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qbp.errors import JobError
from qbp.jobs.jobs import Results, Work
from qbp.storage.atomic import write_atomic

__all__ = ["Rehearsal"]


class Rehearsal:
    """Jobs on this machine that are sent, found, billed and cancelled like those of a quantum computer.

    Args:
        engine: what answers: it has a `name`, the `backend` that circuits are transpiled for, a `bill`, what it
            `ignores`, and `run`, from a work to its results.
        directory: where the jobs are kept.
    """

    paid = False

    def __init__(self, engine: Any, directory: Path):
        self.engine, self.directory = engine, directory
        self.name, self.backend, self.ignores = engine.name, engine.backend, engine.ignores
        self.calibration, self.noise, self.size = engine.calibration, engine.noise, engine.size

    def bill(self, payload: Any, n_circuits: int) -> tuple[int, int, float]:
        """Circuits that a job would execute, shots of each, and quantum seconds."""
        bill: tuple[int, int, float] = self.engine.bill(payload, n_circuits)
        return bill

    def submit(self, work: Work, tags: Sequence[str]) -> str:
        """Keep a job; returns its id."""
        tag = tags[0] if tags else secrets.token_hex(8)
        job_id = f"{_id(tag)}-{len(self.find(tag))}"
        self._write(job_id, {"tags": list(tags), "status": "QUEUED", "looks": 0, "seconds": work.seconds})
        return job_id

    def find(self, tag: str) -> list[str]:
        """Ids of all jobs that carry the tag, oldest first."""
        ids: list[str] = []
        while self._path(f"{_id(tag)}-{len(ids)}").exists():
            ids.append(f"{_id(tag)}-{len(ids)}")
        return ids

    def status(self, job_id: str) -> str:
        """ "QUEUED" at the first look, then "DONE"; or "CANCELLED"."""
        job = self._read(job_id)
        if job["status"] != "QUEUED":
            return str(job["status"])
        job["looks"] += 1
        if job["looks"] > 1:
            job["status"] = "DONE"
        self._write(job_id, job)
        return str(job["status"])

    def fetch(self, job_id: str, work: Work) -> Results:
        """The outputs of a job: the same ones in every process."""
        seed = int(hashlib.sha256(job_id.encode()).hexdigest()[:8], 16)
        payload = work.payload if work.payload.seed is None else replace(work.payload, seed=seed)
        results: Results = self.engine.run(replace(work, payload=payload))
        return results

    def reason(self, job_id: str) -> str:
        """Why a job failed."""
        return ""

    def cancel(self, job_id: str) -> None:
        """Cancel a job that waits."""
        job = self._read(job_id)
        if job["status"] == "QUEUED":
            self._write(job_id, job | {"status": "CANCELLED"})

    def usage(self, job_id: str) -> float:
        """Quantum seconds that the device would have taken, by the formula."""
        job = self._read(job_id)
        return float(job["seconds"]) if job["status"] == "DONE" else 0.0

    def transient(self, error: Exception) -> bool:
        """Nothing here passes by itself."""
        return False

    def open(self, mode: str, max_time: float | None = None) -> None:
        """As of a device; jobs here stand for themselves."""

    def close(self) -> None:
        """As of a device."""

    def _path(self, job_id: str) -> Path:
        return self.directory / f"{job_id}.json"

    def _read(self, job_id: str) -> dict[str, Any]:
        try:
            job: dict[str, Any] = json.loads(self._path(job_id).read_text(encoding="utf-8"))
            return job
        except (OSError, ValueError) as error:
            raise JobError(f"There is no job {job_id} of {self.name} in {self.directory}: {error}") from error

    def _write(self, job_id: str, job: dict[str, Any]) -> None:
        write_atomic(self._path(job_id), json.dumps(job).encode())


def _id(tag: str) -> str:
    return "rehearsal-" + hashlib.sha256(tag.encode()).hexdigest()[:16]

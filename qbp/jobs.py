"""Jobs on quantum computers: what one is, and how it is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qbp.errors import ArgumentError, JobError

__all__ = ["FINAL", "Primitive", "Results", "Runner", "Work", "run_unrecorded"]

FINAL = ("DONE", "CANCELLED", "ERROR")
"""The states that a job does not leave."""


@dataclass(frozen=True)
class Work:
    """One job to be: one PUB, whose parameter sets are the rows of `values`.

    Attributes:
        fingerprint: sha256 over all that the results depend on: the circuit's ops, the bytes of the values,
            observables, shots, options and backend. Equal work has equal fingerprints, in every process.
        values: (S, K) in radians.
        payload: what the primitive wants besides: transpiled circuit, observables, options.
        n_circuits: how many circuits the device executes: sets times groups of commuting observables.
        shots: of each circuit.
        seconds: estimate of the quantum seconds that it costs.
    """

    fingerprint: str
    values: np.ndarray
    payload: Any
    n_circuits: int
    shots: int
    seconds: float


@dataclass(frozen=True)
class Results:
    """What a job returned: expectation values and their standard errors, both (S, M)."""

    values: np.ndarray
    stds: np.ndarray


class Primitive(Protocol):
    """A thin adapter over a client: each call does one thing, and raises what the client raises."""

    name: str
    """What a user writes to get it: "ibm:ibm_torino", "fake:manila", "aer", "qiskit"."""
    paid: bool
    """Whether running costs quantum time."""

    def submit(self, work: Work, tags: Sequence[str]) -> str:
        """Send a job that carries the tags; returns its id."""
        ...

    def find(self, tag: str) -> list[str]:
        """Ids of all jobs that carry the tag, oldest first."""
        ...

    def status(self, job_id: str) -> str:
        """ "QUEUED", "RUNNING", "DONE", "CANCELLED" or "ERROR"."""
        ...

    def fetch(self, job_id: str, work: Work) -> Results:
        """The outputs of a job that is DONE."""
        ...

    def cancel(self, job_id: str) -> None:
        """Ask that a job be cancelled."""
        ...

    def usage(self, job_id: str) -> float:
        """Quantum seconds that the service charges for the job."""
        ...

    def transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later."""
        ...


Runner = Callable[[Primitive, Work], Results]
"""How an executor gets the results of a work from a primitive: `run_unrecorded`, or one that keeps a ledger."""


def run_unrecorded(primitive: Primitive, work: Work) -> Results:
    """Run a job that costs nothing, and wait for it.

    Raises:
        ArgumentError: the primitive costs quantum time; such jobs need a ledger and a budget.
        JobError: the job failed.
    """
    if primitive.paid:
        raise ArgumentError(
            f"Backend {primitive.name!r} costs quantum time: run the model there with "
            f"`qbp.on_backend(model, {primitive.name!r}, shots=..., budget=..., run_dir=...)`, which loses no job"
        )
    job_id = primitive.submit(work, ())
    while (status := primitive.status(job_id)) not in FINAL:
        time.sleep(0.01)
    if status != "DONE":
        raise JobError(f"Job {job_id} on {primitive.name} ended as {status}")
    return primitive.fetch(job_id, work)

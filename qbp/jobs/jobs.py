"""Jobs on quantum computers: what one is, and how it is run so that none is lost and none is paid for twice."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from qbp.errors import ArgumentError, JobError, PendingError, ServiceError
from qbp.jobs.cost import Budget, Cost
from qbp.jobs.ledger import Entry, Ledger
from qbp.jobs.retry import Patience, cause, plain

__all__ = ["FINAL", "Jobs", "Primitive", "Results", "Runner", "Work", "run_unrecorded"]

T = TypeVar("T")

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
        n_circuits: how many circuits the device executes: sets times groups of commuting observables, times what
            mitigation makes of each.
        shots: of each of them.
        seconds: estimate of the quantum seconds that it costs.
    """

    fingerprint: str
    values: np.ndarray
    payload: Any
    n_circuits: int
    shots: int
    seconds: float

    @property
    def cost(self) -> Cost:
        """What it is estimated to cost."""
        return Cost(1, self.n_circuits, self.n_circuits * self.shots, self.seconds)


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
        """The outputs of a job that is DONE; a JobError where they are not what the work asked for."""
        ...

    def reason(self, job_id: str) -> str:
        """Why a job failed, in the service's words."""
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


_LEDGERS: WeakValueDictionary[Path, Ledger] = WeakValueDictionary()  # a directory has one in a process
_OPENING = threading.Lock()
_INHERITED: list[Any] = []  # by a forked process, which must not let go of them: the lock is its parent's


def _forget_ledgers() -> None:
    """In a forked process: what is asked for there is opened anew, and refused as in any other process."""
    global _OPENING
    _INHERITED.extend(list(_LEDGERS.values()))
    _LEDGERS.clear()
    _OPENING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_ledgers)


class Jobs:
    """Runs jobs so that none is lost and none is paid for twice: a `Runner` with a ledger and a budget.

    The ledger says that a job will be sent before it is, under a tag of its own; its id follows as soon as it is
    known, its results before they are used. After a kill at any moment the same work finds its job again, by id or by
    tag, and work that is done costs nothing. What the client sent twice by itself is found by tag; all but one of
    them are cancelled, and their cost is booked. Any number of threads may ask: one deals with a work, others wait.

    Args:
        directory: of the ledger.
        budget: what all jobs of the ledger may cost; None for no limit.
        wait: whether to wait for results; without, a call raises `PendingError` until they are there.
        patience: how long to wait for the service.

    Raises:
        JobError: another process has the ledger open.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        budget: Budget | Cost | float | None = None,
        wait: bool = True,
        patience: Patience | None = None,
    ):
        path = Path(directory).resolve()
        with _OPENING:
            ledger = _LEDGERS.get(path)
            if ledger is None or ledger.closed:
                ledger = _LEDGERS[path] = Ledger(path)
        self.ledger = ledger
        self.budget = Budget() if budget is None else Budget.of(budget)
        self.wait, self.patience = wait, patience or Patience()
        self._sent: deque[float] = deque(maxlen=self.patience.rate)
        self._turn = threading.Lock()

    def __call__(self, primitive: Primitive, work: Work) -> Results:
        """The results of a work, from the ledger or from a job.

        Raises:
            BudgetError: the job would exceed the budget; it was not sent.
            PendingError: the job is not done, and shall not be waited for.
            JobError: the job failed, or the service cannot be used now.
        """
        self.ledger.check_process()
        with self.ledger.claim(work.fingerprint):
            entry = self.ledger.entries.get(work.fingerprint)
            if entry is not None and entry.state == "DONE" and (kept := self._kept(work)) is not None:
                return kept
            if entry is not None and entry.state in ("INTENDED", "SUBMITTED"):  # by another process, or before an error
                self.ledger.unsure.add(entry.work)
                entry = self._adopt(primitive, entry)
            if entry is None or entry.state == "FAILED":
                entry = self._begin(primitive, work, entry)
            if entry.job is None:
                entry = self._send(primitive, work, entry)
            return self._collect(primitive, work, entry)

    def _kept(self, work: Work) -> Results | None:
        arrays = self.ledger.load(work.fingerprint)
        if arrays is None:
            return None  # damaged, and read again: that costs nothing
        results = Results(*arrays)
        return None if complaint(results, work) else results

    def _begin(self, primitive: Primitive, work: Work, failed: Entry | None) -> Entry:
        if not np.isfinite(work.values).all():
            raise ArgumentError("Argument `values` must be finite, but holds nan or infinity")
        if failed is None and primitive.paid:
            self.ledger.check_new()
        with self.ledger.mutex:  # what other threads are about to send is in the ledger, or not yet in the budget
            self.budget.check(work.cost, self.ledger.spent_on(primitive.name))
            if failed is not None:
                return self.ledger.note("again", work.fingerprint)
            cost = work.cost
            return self.ledger.intend(work.fingerprint, primitive.name, cost.circuits, cost.shots, cost.seconds)

    def cancel(self, primitive: Primitive, work: str) -> str:
        """Cancel the job of a work, if it has one that has not ended; returns the state of the entry then."""
        self.ledger.check_process()
        entry = self.ledger.entries[work]
        if entry.state == "INTENDED":
            entry = self._adopt(primitive, entry)
        job = entry.job
        if entry.state != "SUBMITTED" or job is None:
            return entry.state
        with suppress(Exception):  # it may have ended by now
            self.patience.once(partial(primitive.cancel, job))
        if (status := self._status(primitive, job)) != "CANCELLED":
            return f"{entry.state}, {status}"
        seconds = self._charged(primitive, job, entry, status)
        with self.ledger.mutex:  # a thread that waits for it may have noted it
            entry = self.ledger.entries[work]
            if entry.job == job and entry.state == "SUBMITTED":
                entry = self.ledger.note("failed", work, job=job, seconds=seconds, reason="cancelled")
        return entry.state

    # ---- sending -----------------------------------------------------------------------------------------------------

    def _send(self, primitive: Primitive, work: Work, entry: Entry) -> Entry:
        """Submit until there is one job."""
        if entry.work in self.ledger.unsure:
            time.sleep(self.patience.settle)  # a job that was sent a moment ago may not show up yet
        pauses = self.patience.pauses()
        while True:
            if entry.work in self.ledger.unsure and (adopted := self._adopt(primitive, entry)).job is not None:
                return adopted
            self._take_turn()
            try:
                job = self.patience.once(lambda: primitive.submit(work, (entry.tag,)))
            except Exception as error:
                self.ledger.unsure.add(entry.work)
                pause = next(pauses, None)
                if pause is None or not _passes(primitive, error):
                    if (adopted := self._adopt(primitive, entry)).job is not None:
                        return adopted
                    raise ServiceError(f"A job could not be sent to {primitive.name}: {plain(error)}") from cause(error)
                time.sleep(pause)
            else:
                return self._adopt(primitive, self.ledger.note("submitted", entry.work, job=job))

    def _take_turn(self) -> None:
        """Wait until another submission is within the service's rate."""
        with self._turn:
            if len(self._sent) == self._sent.maxlen:
                time.sleep(max(0.0, self._sent[0] + 60.0 - time.monotonic()))
            self._sent.append(time.monotonic())

    def _adopt(self, primitive: Primitive, entry: Entry) -> Entry:
        """Make one of the jobs that carry the entry's tag the entry's job, and cancel the others.

        A client repeats a submission whose answer it takes for lost, so that there may be several.
        """
        ids = self._ask(primitive, lambda: primitive.find(entry.tag), "looking for jobs")
        ids = [job for job in ids if job not in entry.dead]
        if entry.job is not None and entry.job not in ids:
            ids.append(entry.job)
        if len(ids) > 1:
            states = {job: self._status(primitive, job) for job in ids}
            order = ("DONE", "RUNNING", "QUEUED", "CANCELLED", "ERROR")
            ids.sort(key=lambda job: (order.index(states[job]), job != entry.job))
        if ids and ids[0] != entry.job:
            entry = self.ledger.note("submitted", entry.work, job=ids[0])
        for job in ids[1:]:
            if states[job] not in FINAL:
                with suppress(Exception):  # it may have ended by now: what it cost is booked all the same
                    self.patience.once(partial(primitive.cancel, job))
            seconds = self._charged(primitive, job, entry, self._status(primitive, job))
            entry = self.ledger.note("duplicate", entry.work, job=job, seconds=seconds)
        return entry

    # ---- waiting and collecting --------------------------------------------------------------------------------------

    def _collect(self, primitive: Primitive, work: Work, entry: Entry) -> Results:
        assert entry.job is not None
        status = self._follow(primitive, entry.job)
        if entry.work in self.ledger.unsure:  # a submission that hung may have arrived late
            entry = self._adopt(primitive, entry)
            self.ledger.unsure.discard(entry.work)
        job = entry.job
        assert job is not None
        problem = f"it ended as {status}"
        if status == "DONE":
            results, problem = self._kept(work), ""  # where only the note of it was lost
            if results is None:
                results, problem = self._fetch(primitive, job, work)
            if results is not None:
                self.ledger.save(work.fingerprint, results.values, results.stds)
                self.ledger.note("done", entry.work, job=job, seconds=self._charged(primitive, job, entry, status))
                return results
        elif status == "ERROR":
            problem = self._reason(primitive, job)
        seconds = self._charged(primitive, job, entry, status)
        with self.ledger.mutex:
            if self.ledger.entries[entry.work].job == job:  # else it was noted when it was cancelled
                self.ledger.note("failed", entry.work, job=job, seconds=seconds, reason=problem)
        raise JobError(
            f"Job {job} on {primitive.name} failed: {problem}. All other results are kept; resumed, the run sends this "
            "work once more"
        )

    def _follow(self, primitive: Primitive, job: str) -> str:
        """Look at a job again and again until it has ended; its last status."""
        began, polls = time.monotonic(), self.patience.polls()
        while (status := self._status(primitive, job)) not in FINAL:
            if not self.wait:
                raise PendingError(f"Job {job} on {primitive.name} is {status}")
            if self.patience.deadline is not None and time.monotonic() - began > self.patience.deadline:
                raise PendingError(
                    f"Job {job} on {primitive.name} is still {status} after {self.patience.deadline:g} seconds; "
                    "resume the run later"
                )
            time.sleep(next(polls))
        return status

    def _fetch(self, primitive: Primitive, job: str, work: Work) -> tuple[Results | None, str]:
        """The results of a job that is done, and what is wrong with them if they are none."""
        problem = ""
        for _ in range(3):  # what was spoilt on its way is not spoilt the next time
            try:
                results = self._ask(primitive, lambda: primitive.fetch(job, work), "fetching results")
                problem = complaint(results, work)
            except ServiceError:
                raise
            except JobError as error:
                problem = str(error)
            if not problem:
                return results, ""
            time.sleep(min(1.0, self.patience.pause))
        return None, problem

    def _reason(self, primitive: Primitive, job: str) -> str:
        try:
            return plain(self._ask(primitive, lambda: primitive.reason(job), "asking for the reason"))
        except JobError as error:
            return str(error)

    def _charged(self, primitive: Primitive, job: str, entry: Entry, status: str) -> float:
        """Quantum seconds of a job; the estimate where the service does not say (yet)."""
        try:
            seconds = self._ask(primitive, lambda: primitive.usage(job), "reading the usage")
        except JobError:
            seconds = math.nan
        is_final = math.isfinite(seconds) and (seconds > 0 or status in ("CANCELLED", "ERROR"))
        return float(seconds) if is_final else entry.estimate

    def _status(self, primitive: Primitive, job: str) -> str:
        return self._ask(primitive, lambda: primitive.status(job), f"looking at job {job}")

    def _ask(self, primitive: Primitive, call: Callable[[], T], what: str) -> T:
        return self.patience.ask(call, partial(_passes, primitive), f"{primitive.name}, {what}")


def complaint(results: Any, work: Work) -> str:
    """What is wrong with results, or nothing."""
    if not isinstance(results, Results):
        return f"the results are a {type(results).__name__}"
    for name, array in (("values", results.values), ("errors", results.stds)):
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            return f"the {name} are no numbers"
        if array.ndim != 2 or len(array) != len(work.values) or array.shape != results.values.shape:
            return f"the {name} must have shape ({len(work.values)}, M), but have {array.shape}"
        if not np.isfinite(array).all():
            return f"the {name} hold nan or infinity"
    return ""


def _passes(primitive: Primitive, error: Exception) -> bool:
    return isinstance(error, TimeoutError) or primitive.transient(error)

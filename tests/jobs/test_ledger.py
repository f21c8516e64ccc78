"""A ledger that was emptied, cut or changed is an error, never a new one; results are as they were saved, or gone."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from ibm_direct import work_for

from qbp.errors import ArgumentError, BudgetError, ConfigError, JobError
from qbp.jobs.cost import Budget, Cost
from qbp.jobs.jobs import Jobs, Results
from qbp.jobs.ledger import Ledger, read_ledger
from qbp.jobs.retry import AT_ONCE

VALUES = np.array([[0.1, 0.2], [1.0, -2.0]])


class Counting:
    """A primitive that answers at once, and counts what it is sent."""

    name, paid = "ibm:counting", True

    def __init__(self):
        self.sent, self.lock = [], threading.Lock()

    def submit(self, work, tags):
        with self.lock:
            self.sent.append((work.fingerprint, tags[0]))
            return str(len(self.sent))

    def find(self, tag):
        return [str(i + 1) for i, (_, sent) in enumerate(self.sent) if sent == tag]

    def status(self, job):
        return "DONE"

    def fetch(self, job, work):
        return Results(work.values.copy(), np.zeros_like(work.values))

    def usage(self, job):
        return 3.0

    def transient(self, error):
        return False


def used(directory):
    """A ledger with a job; the primitive that took it."""
    primitive, jobs = Counting(), Jobs(directory, patience=AT_ONCE)
    jobs(primitive, work_for(VALUES))
    jobs.ledger.close()
    return primitive


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


DAMAGES = {
    "emptied": lambda p: p.write_bytes(b""),
    "garbage": lambda p: p.write_bytes(b"garbage without newline"),
    "zeros": lambda p: p.write_bytes(b"\0" * 100),
    "deleted": lambda p: p.unlink(),
    "first line cut": lambda p: p.write_bytes(lines(p)[0][:20]),
    "only the first line": lambda p: p.write_bytes(lines(p)[0]),
    "a line lost": lambda p: p.write_bytes(b"".join(lines(p)[:1] + lines(p)[2:])),
    "a line twice": lambda p: p.write_bytes(b"".join(lines(p)[:2] + lines(p)[1:])),
    "a number changed": lambda p: p.write_bytes(p.read_bytes().replace(b'"seconds": 3.0', b'"seconds": 0.0')),
    "not a number": lambda p: p.write_bytes(p.read_bytes().replace(b'"seconds": 3.0', b'"seconds": NaN')),
    "negative": lambda p: p.write_bytes(p.read_bytes().replace(b'"seconds": 3.0', b'"seconds": -3.0')),
    "text": lambda p: p.write_bytes(p.read_bytes().replace(b'"seconds": 3.0', b'"seconds": "3"')),
    "garbage at the end": lambda p: p.write_bytes(p.read_bytes() + b"what is this"),
    "another path": lambda p: p.write_bytes(p.read_bytes().replace(b'"work": "', b'"work": "../../')),
    "no object": lambda p: p.write_bytes(p.read_bytes() + b"[]\n"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_no_new_one(tmp_path, damage):
    primitive, path = used(tmp_path), tmp_path / "jobs.jsonl"
    DAMAGES[damage](path)
    before = path.read_bytes() if path.exists() else None
    for _ in range(2):  # it is left as it is
        with pytest.raises(ConfigError, match=r"jobs\.jsonl"):
            Jobs(tmp_path, patience=AT_ONCE)(primitive, work_for(VALUES))
    assert len(primitive.sent) == 1 and before == (path.read_bytes() if path.exists() else None)


def as_version_1(directory):
    """Make its ledger one of the version before checksums, which named works by another rule too."""
    path = directory / "jobs.jsonl"
    events = [json.loads(line) for line in lines(path)]
    events[0]["version"] = 1
    path.write_text("".join(json.dumps({k: v for k, v in e.items() if k != "sum"}) + "\n" for e in events))


def test_ledgers_before_checksums_give_what_they_have(tmp_path):
    used(tmp_path)
    as_version_1(tmp_path)
    primitive = Counting()
    results = Jobs(tmp_path, patience=AT_ONCE)(primitive, work_for(VALUES))
    np.testing.assert_array_equal(results.values, VALUES)
    assert not primitive.sent and len(read_ledger(tmp_path)[1]) == 1


@pytest.mark.parametrize("event", ["intended", "submitted", "done"])
def test_a_work_may_be_in_an_earlier_ledger_under_another_name(tmp_path, event):
    primitive = used(tmp_path)
    path = tmp_path / "jobs.jsonl"
    upto = next(i for i, line in enumerate(lines(path)) if json.loads(line)["event"] == event)
    path.write_bytes(b"".join(lines(path)[: upto + 1]))
    as_version_1(tmp_path)
    before = path.read_bytes()
    for _ in range(2):
        jobs = Jobs(tmp_path, patience=AT_ONCE)
        with pytest.raises(JobError, match=r"may be among its 1, and would be paid for twice\. Nothing was sent"):
            jobs(primitive, work_for(VALUES + 1))
        jobs.ledger.close()
    assert len(primitive.sent) == 1 and path.read_bytes() == before


def test_an_earlier_ledger_is_open_to_what_costs_nothing(tmp_path):
    primitive = used(tmp_path)
    as_version_1(tmp_path)
    primitive.paid = False
    Jobs(tmp_path, patience=AT_ONCE)(primitive, work_for(VALUES + 1))
    assert len(primitive.sent) == 2


def test_an_earlier_ledger_without_jobs_begins_anew(tmp_path):
    Ledger(tmp_path).close()
    as_version_1(tmp_path)
    for shift in (0, 1):
        jobs, primitive = Jobs(tmp_path, patience=AT_ONCE), Counting()
        jobs(primitive, work_for(VALUES + shift))
        jobs.ledger.close()
        assert len(primitive.sent) == 1


@pytest.mark.parametrize("name", ["values", "stds"])
def test_results_that_were_changed_are_fetched_again(tmp_path, name):
    primitive, work = used(tmp_path), work_for(VALUES)
    (path,) = (tmp_path / "results").glob("*.npz")
    with np.load(path) as kept:
        arrays = dict(kept)
    np.savez(path, **arrays | {name: arrays[name] + 1})
    np.testing.assert_array_equal(Jobs(tmp_path, patience=AT_ONCE)(primitive, work).values, VALUES)
    assert len(primitive.sent) == 1


def test_results_of_another_work_are_none(tmp_path):
    primitive, jobs = Counting(), Jobs(tmp_path, patience=AT_ONCE)
    for values in (VALUES, VALUES + 1):
        jobs(primitive, work_for(values))
    a, b = (tmp_path / "results" / f"{work_for(v).fingerprint}.npz" for v in (VALUES, VALUES + 1))
    b.write_bytes(a.read_bytes())
    np.testing.assert_array_equal(jobs(primitive, work_for(VALUES + 1)).values, VALUES + 1)


def test_threads_share_a_ledger(tmp_path):
    """Eight threads, two runners, three works: each is sent once, and the budget is kept."""
    primitive, said = Counting(), []
    works = [work_for(VALUES + k) for k in range(3)]
    limit = Budget(seconds=1000)
    runners = [Jobs(tmp_path, budget=limit, patience=AT_ONCE) for _ in range(2)]
    assert runners[0].ledger is runners[1].ledger

    def call(k):
        for i in range(6):
            work = works[(k + i) % 3]
            said.append(np.array_equal(runners[k % 2](primitive, work).values, work.values))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert said == [True] * 48 and len(primitive.sent) == 3
    assert runners[0].ledger.spent == Cost(3, 6, 600, 9.0)
    _, entries = read_ledger(tmp_path)
    assert len(entries) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_another_one(tmp_path):
    """It is refused, by what it inherited and anew, and its end leaves its parent the ledger."""
    primitive, jobs = Counting(), Jobs(tmp_path, patience=AT_ONCE)
    jobs(primitive, work_for(VALUES))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            refused = 0
            for runner in (lambda: jobs, lambda: Jobs(tmp_path, patience=AT_ONCE)):
                try:
                    runner()(primitive, work_for(VALUES + 1))
                except JobError as error:
                    refused += "in the hands of another process" in str(error)
            code = 0 if refused == 2 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    jobs(primitive, work_for(VALUES + 1))
    assert len(primitive.sent) == 2 and len(read_ledger(tmp_path)[1]) == 2


@pytest.mark.parametrize("wrong", [float("nan"), -1.0, "5", float("inf"), True, None])
def test_amounts_that_are_none_are_refused(wrong):
    if wrong is not None:
        with pytest.raises(ArgumentError, match="`rate`"):
            Budget(rate=wrong)
        with pytest.raises(ArgumentError, match="`rate`"):
            Cost(1).at(wrong)
    for name in ("jobs", "circuits", "shots"):
        with pytest.raises(ArgumentError, match=name):
            Cost(**{name: wrong})
    if isinstance(wrong, float | str):
        for name in ("seconds", "price"):
            with pytest.raises(ArgumentError, match=name):
                Cost(**{name: wrong})
    if wrong != float("inf"):
        with pytest.raises(ArgumentError):
            Budget.of(wrong)
        with pytest.raises(ArgumentError, match="seconds"):
            Budget(seconds=wrong)


def test_a_rehearsal_does_not_use_up_the_budget_of_the_device(tmp_path):
    fake, real = Counting(), Counting()
    fake.name = "fake:counting"
    jobs = Jobs(tmp_path, budget=4.0, patience=AT_ONCE)
    jobs(fake, work_for(VALUES))
    jobs(real, work_for(VALUES + 1))
    with pytest.raises(BudgetError):
        jobs(real, work_for(VALUES + 2))
    assert jobs.ledger.spent_on("ibm:x").jobs == 1 and jobs.ledger.spent.jobs == 2


def test_a_new_ledger_is_whole_at_once(tmp_path):
    ledger = Ledger(tmp_path)
    assert lines(tmp_path / "jobs.jsonl")[0].endswith(b"\n")
    ledger.close()

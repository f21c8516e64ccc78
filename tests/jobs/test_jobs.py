"""No job is lost, none is paid for twice: the ledger, with the genuine client against the loopback server."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ibm_direct import Direct, exact, work_for
from ibm_server import IBMServer

from qbp.errors import BudgetError, JobError, PendingError, ServiceError
from qbp.jobs.cost import Budget, Cost
from qbp.jobs.jobs import Jobs
from qbp.jobs.ledger import Ledger, read_ledger
from qbp.jobs.retry import Patience

QUICK = Patience(answer=20.0, tries=5, pause=0.05, poll=0.05, settle=0.2, rate=1000)
VALUES = np.array([[0.1, 0.2], [1.0, -2.0], [0.3, 0.3]])


@pytest.fixture(scope="module")
def server():
    with IBMServer(engine="exact", seed=3, plan="premium") as ibm, ibm.client_environment():
        yield ibm


@pytest.fixture
def direct(ibm):
    """A primitive whose API calls do not pass the proxy: a connection that drops is not repeated."""
    return Direct(url_resolver=ibm.url_resolver)


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path, patience=QUICK)


def books(ibm):
    assert ibm.wait_idle()
    stats = ibm.stats()
    return stats["jobs"]["accepted"], len(stats["paid_twice"]), len(stats["paid_but_unread"])


def test_work_is_done_once(jobs, direct, ibm, tmp_path):
    work = work_for(VALUES)
    first = jobs(direct, work)
    np.testing.assert_allclose(first.values, exact(VALUES), atol=1e-12)
    again = jobs(direct, work_for(VALUES))
    np.testing.assert_array_equal(again.values, first.values)
    np.testing.assert_array_equal(again.stds, first.stds)
    jobs(direct, work_for(VALUES + 1))
    assert books(ibm) == (2, 0, 0)
    _, entries = read_ledger(tmp_path)
    assert [entry.state for entry in entries.values()] == ["DONE", "DONE"]
    assert jobs.ledger.spent == Cost(2, 6, 600, pytest.approx(ibm.stats()["quantum_seconds"]))


def test_the_intent_is_on_disk_before_the_job_exists(jobs, direct, ibm, tmp_path, monkeypatch):
    seen = []
    submit = direct.submit

    def looking(work, tags):
        lines = [json.loads(line) for line in (tmp_path / "jobs.jsonl").read_text().splitlines()]
        seen.append((lines[-1]["event"], lines[-1]["tag"], ibm.stats()["jobs"]["accepted"]))
        return submit(work, tags)

    monkeypatch.setattr(direct, "submit", looking)
    jobs(direct, work_for(VALUES))
    assert seen == [("intended", next(iter(jobs.ledger.entries.values())).tag, 0)]
    assert list(ibm.stats()["by_tag"]) == [seen[0][1]]


def test_a_lost_id_is_found_by_tag(jobs, direct, ibm):
    ibm.set_faults({"route": "jobs.submit", "action": "drop", "phase": "after"})
    np.testing.assert_allclose(jobs(direct, work_for(VALUES)).values, exact(VALUES), atol=1e-12)
    assert ibm.stats()["id_not_delivered"] == ibm.stats()["jobs"]["ids"]
    assert books(ibm) == (1, 0, 0)


def test_duplicates_that_the_client_makes_are_cancelled_and_booked(jobs, direct, ibm):
    ibm.set_faults(
        {"action": "job", "outcome": "completed", "hold": True, "queue_seconds": 9, "times": 2},
        {"route": "jobs.submit", "status": 504, "phase": "after"},
    )
    jobs(direct, work_for(VALUES))
    (entry,) = jobs.ledger.entries.values()
    assert books(ibm) == (2, 0, 0) and ibm.stats()["jobs"]["by_status"] == {"Completed": 1, "Cancelled": 1}
    assert len(entry.dead) == 1 and entry.spent == 0


def test_duplicates_are_noticed_even_after_a_kill_before_the_look_up(jobs, direct, ibm, tmp_path, monkeypatch):
    ibm.set_faults(
        {"action": "job", "outcome": "completed", "hold": True, "queue_seconds": 9, "times": 2},
        {"route": "jobs.submit", "status": 504, "phase": "after"},
    )

    def interrupted(tag):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(direct, "find", interrupted)
        jobs(direct, work_for(VALUES))
    assert [entry.state for entry in jobs.ledger.entries.values()] == ["SUBMITTED"]
    jobs(direct, work_for(VALUES))
    assert books(ibm) == (2, 0, 0) and ibm.stats()["jobs"]["by_status"] == {"Completed": 1, "Cancelled": 1}


def test_duplicates_that_ran_are_booked_as_spent(jobs, direct, ibm, monkeypatch):
    ibm.set_faults({"route": "jobs.submit", "status": 504, "phase": "after"})
    find = direct.find
    monkeypatch.setattr(direct, "find", lambda tag: find(tag) if ibm.wait_idle() else [])  # looked for when both ran
    jobs(direct, work_for(VALUES))
    assert books(ibm)[:2] == (2, 1)  # nobody could have prevented it: the client repeated the job while it ran
    (entry,) = jobs.ledger.entries.values()
    assert jobs.ledger.spent.seconds == pytest.approx(ibm.stats()["quantum_seconds"]) and jobs.ledger.spent.jobs == 2
    assert len(entry.dead) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"route": "jobs.submit", "status": 429, "times": 2},
        {"route": "jobs.list", "status": 429, "times": 2},
        {"route": "jobs.get", "action": "drop", "times": 2},
        {"route": "jobs.results", "action": "corrupt", "times": 2},
        {"route": "jobs.results", "action": "truncate", "times": 2},
        {"route": "jobs.metrics", "status": 429, "times": 2},
    ],
    ids=lambda fault: "-".join(str(v) for v in list(fault.values())[:2]),
)
def test_what_passes_is_tried_again(jobs, direct, ibm, fault):
    ibm.set_faults(fault)
    np.testing.assert_allclose(jobs(direct, work_for(VALUES)).values, exact(VALUES), atol=1e-12)
    assert books(ibm) == (1, 0, 0) and ibm.stats()["faults_fired"]


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "ran_too_long", "nan", "empty"])
def test_a_failed_job_stops_and_is_sent_again_when_resumed(jobs, direct, ibm, outcome):
    jobs(direct, work_for(VALUES))
    ibm.set_faults({"action": "job", "outcome": outcome})
    with pytest.raises(JobError, match=r"failed: .*resumed"):
        jobs(direct, work_for(VALUES + 1))
    assert [entry.state for entry in jobs.ledger.entries.values()] == ["DONE", "FAILED"]
    assert jobs.ledger.spent.seconds == pytest.approx(ibm.stats()["quantum_seconds"])
    np.testing.assert_allclose(jobs(direct, work_for(VALUES + 1)).values, exact(VALUES + 1), atol=1e-12)
    assert jobs.ledger.spent.seconds == pytest.approx(ibm.stats()["quantum_seconds"])
    assert ibm.stats()["jobs"]["accepted"] == 3


def test_an_expired_token_stops_and_loses_nothing(jobs, direct, ibm):
    ibm.set_faults({"route": "jobs.results", "action": "revoke"})
    with pytest.raises(ServiceError, match="ibm:fake_manila"):
        jobs(direct, work_for(VALUES))
    assert [entry.state for entry in jobs.ledger.entries.values()] == ["SUBMITTED"]
    jobs(Direct(url_resolver=ibm.url_resolver), work_for(VALUES))
    assert books(ibm) == (1, 0, 0)


def test_a_hanging_socket_is_not_waited_for(tmp_path, direct, ibm):
    jobs = Jobs(tmp_path, patience=Patience(answer=1.0, tries=4, pause=0.05, poll=0.05, rate=1000))
    ibm.set_faults({"route": "jobs.get", "action": "hang", "seconds": 8.0, "times": 1})
    jobs(direct, work_for(VALUES))
    assert books(ibm) == (1, 0, 0)


def test_a_deadline_and_no_waiting(tmp_path, direct, ibm):
    ibm.set_faults({"action": "job", "outcome": "completed", "queue_seconds": 1.0})
    with pytest.raises(PendingError, match="is QUEUED"):
        Jobs(tmp_path, wait=False, patience=QUICK)(direct, work_for(VALUES))
    late = Patience(answer=20, tries=3, pause=0.05, poll=0.05, deadline=0.1)
    with pytest.raises(PendingError, match=r"still QUEUED after 0\.1 seconds"):
        Jobs(tmp_path, patience=late)(direct, work_for(VALUES))
    Jobs(tmp_path, patience=QUICK)(direct, work_for(VALUES))
    assert books(ibm) == (1, 0, 0)


def test_a_budget_refuses_before_anything_is_sent(tmp_path, direct, ibm):
    jobs = Jobs(tmp_path, budget=Budget(seconds=4.5), patience=QUICK)
    jobs(direct, work_for(VALUES))
    jobs(direct, work_for(VALUES + 1))
    with pytest.raises(BudgetError, match=r"needs 2\.105 quantum seconds on top of 4\.21, and the budget is 4\.5"):
        jobs(direct, work_for(VALUES + 2))
    jobs(direct, work_for(VALUES))  # what is done costs nothing
    assert books(ibm) == (2, 0, 0)
    Jobs(tmp_path, budget=Budget(seconds=6.5), patience=QUICK)(direct, work_for(VALUES + 2))
    assert books(ibm) == (3, 0, 0)


def test_the_running_total_is_what_the_service_charged(tmp_path, direct, ibm):
    jobs = Jobs(tmp_path, budget=Budget(seconds=5.0), patience=QUICK)
    work = work_for(VALUES)
    cheap = type(work)(work.fingerprint, work.values, None, work.n_circuits, work.shots, seconds=0.5)
    jobs(direct, cheap)
    assert jobs.ledger.spent.seconds == pytest.approx(2.105)


def test_submissions_keep_to_the_rate(tmp_path, direct, monkeypatch):
    naps, now = [], [1000.0]
    jobs = Jobs(tmp_path, patience=Patience(rate=2, poll=0.01))
    monkeypatch.setattr("qbp.jobs.jobs.time.sleep", lambda s: (naps.append(s), now.__setitem__(0, now[0] + s)))
    monkeypatch.setattr("qbp.jobs.jobs.time.monotonic", lambda: now[0])
    for _ in range(5):
        jobs._take_turn()
        now[0] += 10.0
    assert [nap for nap in naps if nap] == [40.0, 40.0]


# ---- the ledger on disk ----------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_dropped(tmp_path, direct, ibm):
    Jobs(tmp_path, patience=QUICK)(direct, work_for(VALUES))
    path = tmp_path / "jobs.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "intended", "wor')
    ledger = Ledger(tmp_path)
    assert path.read_bytes() == whole and len(ledger.entries) == 1
    ledger.close()


def test_damaged_results_are_read_again_not_paid_again(tmp_path, direct, ibm):
    first = Jobs(tmp_path, patience=QUICK)(direct, work_for(VALUES))
    (kept,) = (tmp_path / "results").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    again = Jobs(tmp_path, patience=QUICK)(direct, work_for(VALUES))
    np.testing.assert_array_equal(again.values, first.values)
    assert books(ibm) == (1, 0, 0)


def test_one_process_at_a_time(tmp_path):
    import subprocess
    import sys

    ledger = Ledger(tmp_path)
    code = f"from qbp.jobs.ledger import Ledger; Ledger({str(tmp_path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode and "in the hands of another process" in other.stderr
    ledger.close()
    subprocess.run([sys.executable, "-c", code], check=True)

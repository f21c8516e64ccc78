"""Threads, processes and a fork on one run directory, with the genuine client against the loopback server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import qbp
from qbp import hardware
from qbp.errors import JobError, PendingError
from qbp.jobs.jobs import Jobs
from qbp.jobs.retry import Patience

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")
from ibm_server import IBMServer

QUICK = Patience(answer=60.0, tries=5, pause=0.05, poll=0.05, settle=0.3, rate=1000)
HERE = Path(__file__).parent

# What the other process runs: it comes while the first one has the directory, and works there when that one is done.
OTHER = """
import sys, time
sys.path[:0] = [{here!r}, {tests!r}]
from test_shared_directory import JobError, model, outputs
while True:
    try:
        there = model({directory!r})
        break
    except JobError as error:
        assert "in the hands of another process" in str(error)
        print("refused", flush=True)
        time.sleep(0.2)
print([outputs(there, k) for k in range(6)], flush=True)
"""


def model(directory, **more):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, seed=0).double()
    return hardware.on_backend(
        layer, "ibm:fake_manila", shots=32, budget=1000, run_dir=directory, patience=QUICK, **more
    )


def outputs(there, k):
    """Of work number `k`."""
    with torch.no_grad():
        return there(torch.tensor([[0.1, 0.2], [0.3, float(k)]], dtype=torch.float64)).tolist()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_work_is_paid_twice(tmp_path):
    with IBMServer(backends=["fake_manila"], engine="shots", seed=2, plan="premium", queue_seconds=0.5) as ibm:
        with ibm.client_environment():
            models = [model(tmp_path) for _ in range(2)]
            code = OTHER.format(here=str(HERE), tests=str(HERE.parent), directory=str(tmp_path))
            other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            try:
                seen = in_threads(ibm, models)
                assert other.stdout.readline() == "refused\n"
                with pytest.raises(PendingError):  # sent, and not waited for: the other process finds it
                    outputs(model(tmp_path, wait=False), 4)
                Jobs(tmp_path / "jobs").ledger.close()
                *refusals, last = other.communicate(timeout=120)[0].splitlines()
            finally:
                other.kill()
        assert other.returncode == 0 and set(refusals) <= {"refused"}
        assert all(results == seen[k][0] for k in range(4) for results in seen[k])
        assert json.loads(last)[:4] == [seen[k][0] for k in range(4)]
        assert ibm.wait_idle() and ibm.stats()["jobs"]["accepted"] == 6
        assert ibm.stats()["paid_twice"] == ibm.stats()["paid_but_unread"] == []


def in_threads(ibm, models):
    """What eight threads got, work by work: each asks for four in an order of its own. A fork asks meanwhile."""
    seen = {k: [] for k in range(4)}

    def ask(number):
        for k in range(4):
            work = (number + k) % 4
            seen[work].append(outputs(models[number % 2], work))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    while not ibm.stats()["jobs"]["accepted"]:
        time.sleep(0.05)
    assert refused_in_a_fork(models[0])
    for thread in threads:
        thread.join()
    assert all(len(results) == 8 for results in seen.values())
    return seen


def refused_in_a_fork(there):
    """Whether a process that is forked now is refused what its parent has."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    code = 1
    signal.alarm(30)  # it must not hang
    try:
        outputs(there, 5)
    except JobError as error:
        code = 0 if "in the hands of another process" in str(error) else 2
    finally:
        os._exit(code)

"""Train on the loopback server, be killed at a chosen point, resume: the program that `test_killed_jobs.py` runs.

``python killed_training.py CONTROL_URL DIRECTORY REPEATS SEED EPOCHS POINT...`` prints a line of JSON for each repeat.
Every training is a process of its own, forked when everything is imported, and killed by SIGKILL. The server is told
over its control routes what to spoil, so that one repeat knows nothing of another.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import traceback
import urllib.request
import warnings
from pathlib import Path

import torch
from torch import nn

import qbp
from qbp import hardware
from qbp.errors import JobError
from qbp.executors.qiskit_primitive.client import IBM
from qbp.jobs.ledger import Ledger
from qbp.jobs.retry import Patience

warnings.simplefilter("ignore")
torch.set_num_threads(1)
POINTS = ("before submit", "after submit", "while queued", "after result")
STEPS = 2  # an epoch
STOPPED = 3
QUICK = Patience(answer=30.0, tries=6, pause=0.1, poll=0.05, settle=0.3, rate=1000)

# A job and its repetition wait until somebody has looked for them by tag, who then has time to cancel one of them.
HELD = {"action": "job", "outcome": "completed", "hold": True, "queue_seconds": 60.0, "times": 2}
FAULTS = [
    [{"route": "jobs.submit", "status": 500}],
    [{"route": "jobs.submit", "status": 429}],
    [HELD, {"route": "jobs.submit", "action": "drop", "phase": "after"}],
    [HELD, {"route": "jobs.submit", "status": 504, "phase": "after"}],
    [{"action": "job", "outcome": "failed"}],
    [{"route": "jobs.*", "action": "revoke"}],
    [{"route": "jobs.get", "status": 429}],
    [{"route": "jobs.results", "action": "truncate"}],
    [{"route": "jobs.list", "action": "drop"}],
    [{"action": "job", "outcome": "completed", "queue_seconds": 1.5}],
]


def control(url, path, body=None):
    """What the server's control routes answer, past all proxies."""
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"{url}/__control__{path}", data=data)) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def train(directory, epochs):
    """Epochs of two steps, a job each; returns a hash of the weights."""
    torch.manual_seed(0)  # only of the first epoch's first attempt: afterwards the checkpoint's weights count
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), layer, nn.Linear(2, 2))
    x = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
    rows = qbp.data.Dataset(x, torch.tensor([0, 1, 0, 1, 0, 1]))
    moved = hardware.on_backend(model, "ibm:fake_manila", shots=64, budget=1000, run_dir=directory, patience=QUICK)
    qbp.fit(moved, rows, epochs=epochs, batch_size=3, seed=5, run_dir=directory, resume=True)
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in moved.parameters())).hexdigest()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def plant(point, at, late):
    """Be killed at a point of the job number `at`; `late` says at which of the two sides of a written result."""
    count, seen = 0, set()

    def reached(fires=True):
        nonlocal count
        count += fires
        return fires and count == at

    submit, status, note = IBM.submit, IBM.status, Ledger.note
    if point == "before submit":
        IBM.submit = lambda self, work, tags: die() if reached() else submit(self, work, tags)
    elif point == "after submit":

        def submit_and_die(self, work, tags):
            job = submit(self, work, tags)
            if reached():
                die()
            return job

        IBM.submit = submit_and_die
    elif point == "while queued":

        def status_or_die(self, job):
            answer, new = status(self, job), job not in seen
            seen.add(job)
            if reached(new):
                die()
            return answer

        IBM.status = status_or_die
    elif point == "after result":

        def note_and_die(self, event, work, **details):
            hit = reached(event == "done")
            if hit and not late:
                die()
            entry = note(self, event, work, **details)
            if hit:
                die()
            return entry

        Ledger.note = note_and_die


def attempt(directory, epochs, point=None, at=1, late=False):
    """Run the training in a process of its own; returns (how it ended, what it wrote)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            plant(point, at, late)
            os.write(writer, train(directory, epochs).encode())
            code = 0
        except JobError as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
            code = STOPPED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return (-signal.SIGKILL if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)), said


def repeat(url, directory, epochs, point, number, seed):
    """One training that is killed once, with faults, and resumed until it ends."""
    rng = random.Random(f"{seed} {point} {number}")
    control(url, "/reset", {})
    faults = []
    for group in rng.sample(FAULTS, 2):
        skip = rng.randrange(STEPS * epochs - 1)  # of a group together
        faults += [rule | {"skip": skip} for rule in group]
    control(url, "/faults", faults)
    ends, said = [], ""
    while 0 not in ends and len(ends) < 8:
        kill = (point, rng.randint(1, STEPS * epochs), rng.random() < 0.5) if not ends else (None,)
        end, said = attempt(directory, epochs, *kill)
        ends.append(end)
    books = control(url, "/stats")
    ledger = Ledger(directory / "jobs")
    spent, works = ledger.spent, len(ledger.entries)
    ledger.close()
    return {
        "point": point,
        "ends": ends,
        "weights": said,
        "works": works,
        "by_status": books["jobs"]["by_status"],
        "paid_twice": books["paid_twice"],
        "paid_but_unread": books["paid_but_unread"],
        "charged": books["quantum_seconds"],
        "booked": spent.seconds,
        "fired": [(rule["route"], rule["action"], rule["status"]) for rule in books["faults_fired"]],
    }


def main(url, directory, repeats, seed, epochs, *points):
    epochs = int(epochs)
    control(url, "/reset", {})
    end, weights = attempt(Path(directory, "undisturbed"), epochs)
    print(json.dumps({"point": None, "ends": [end], "weights": weights}), flush=True)
    for point in points:
        for number in range(int(repeats)):
            folder = Path(directory, f"{point.replace(' ', '-')}-{number}")
            print(json.dumps(repeat(url, folder, epochs, point, number, seed)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

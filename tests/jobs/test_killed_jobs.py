"""Killed by SIGKILL at any point while all else goes wrong: the same weights, and no job lost or paid for twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ibm_server import IBMServer
from killed_training import POINTS, STEPS

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server():
    """Equal work has equal samples, so that runs can be compared bit by bit; a job waits a little before it runs."""
    with IBMServer(engine="shots", seed=4, seed_by="work", plan="premium", queue_seconds=0.2) as ibm:
        yield ibm


def kill_and_resume(server, directory, repeats, seed, epochs, *points):
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    environment = {**os.environ, **server.environment(), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    program = str(HERE / "killed_training.py")
    command = [sys.executable, program, server.url, str(directory), str(repeats), seed, str(epochs), *points]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    undisturbed, *rows = map(json.loads, done.stdout.splitlines())
    assert undisturbed["ends"] == [0] and len(rows) == repeats * len(points)
    for row in rows:
        assert row["ends"][0] in (-9, 3) and row["ends"][-1] == 0, (row, done.stderr)
        assert row["weights"] == undisturbed["weights"], row
        assert row["works"] == STEPS * epochs == row["by_status"]["Completed"], row
        assert row["paid_twice"] == [] and row["paid_but_unread"] == [], row
        assert row["booked"] == pytest.approx(row["charged"]), row
    return rows


def test_killed_once_at_every_point(server, tmp_path):
    rows = kill_and_resume(server, tmp_path, 1, "default", 1, *POINTS)
    assert all(row["fired"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_twenty_times(server, tmp_path, point):
    rows = kill_and_resume(server, tmp_path, 20, "slow", 2, point)
    assert sum(-9 in row["ends"] for row in rows) >= 15 and any(3 in row["ends"] for row in rows)
    print(point, json.dumps([(row["ends"], row["by_status"], row["fired"]) for row in rows]))

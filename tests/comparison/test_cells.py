"""Sweeps: killed at any moment, the same table comes out, and no finished cell runs twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from qbp.comparison.cells import LOG, sweep
from qbp.errors import ArgumentError

ROOT = Path(__file__).parents[2]
SLEEPER = """
import sys, time
from pathlib import Path
from qbp.comparison.cells import sweep

def run(k):
    time.sleep(0.05)
    return {"row": {"k": k, "square": k * k}}

if __name__ == "__main__":
    cells = {Path("cells", f"{k}.json"): k for k in range(int(sys.argv[2]))}
    sweep(cells, run, sys.argv[1], workers=int(sys.argv[3]))
"""


def events(directory: Path) -> list[dict]:
    log = directory / LOG
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def finished(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*.json") if path.parent != directory}


def kill_and_go_on(command: list[str], directory: Path, kills: int, total: int) -> None:
    """Start a sweep, kill -9 it, start it again; assert that nothing finished was begun again."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for kill in range(kills):
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
        goal = (kill + 1) * total // (kills + 1)
        while process.poll() is None and len(finished(directory)) < goal:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        there, seen = finished(directory), len(events(directory))
        assert len(there) < total
        before = {path: (directory / path).stat().st_mtime_ns for path in there}
        # Its workers notice; whatever they finish meanwhile is finished.
        subprocess.run([sys.executable, "-c", "import time; time.sleep(2)"], check=True)
        began = {e["cell"] for e in events(directory)[seen:] if e["event"] == "began"}
        assert not began & there
        assert all((directory / path).stat().st_mtime_ns == when for path, when in before.items())
    before = {path: (directory / path).stat().st_mtime_ns for path in finished(directory)}
    seen = len(events(directory))
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert not {e["cell"] for e in events(directory)[seen:]} & set(before)
    assert all((directory / path).stat().st_mtime_ns == when for path, when in before.items())
    ended = Counter(e["cell"] for e in events(directory) if e["event"] == "ended")
    assert len(finished(directory)) == total and max(ended.values()) == 1


def test_cells_are_kept_and_not_run_again(tmp_path):
    ran = []

    def run(k):
        ran.append(k)
        return {"row": {"k": k}, "arrays": {"y": np.arange(k)}}

    cells = {Path("a", f"{k}.json"): k for k in range(4)}
    seen = []
    first = sweep(cells, run, tmp_path, progress=lambda *state: seen.append(state[:2]))
    (tmp_path / "a" / "2.json").unlink()
    assert sweep(cells, run, tmp_path) == first == [{"row": {"k": k}} for k in range(4)]
    assert ran == [0, 1, 2, 3, 2] and seen == [(k, 4) for k in (1, 2, 3, 4)]
    assert np.load(tmp_path / "a" / "3.npz")["y"].tolist() == [0, 1, 2]


def test_an_error_leaves_what_was_finished(tmp_path):
    def run(k):
        if k == 2:
            raise ValueError("two")
        return {"row": k}

    cells = {Path(f"c/{k}.json"): k for k in range(4)}
    with pytest.raises(ValueError, match="two"):
        sweep(cells, run, tmp_path)
    assert finished(tmp_path) == {"c/0.json", "c/1.json"}
    with pytest.raises(ArgumentError, match="workers"):
        sweep(cells, run, tmp_path, workers=0)
    with pytest.raises(ArgumentError, match="cannot be given what is run"):
        sweep(cells, run, tmp_path, workers=2)


def test_killed_once(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    command = [sys.executable, str(script), str(tmp_path / "kept"), "30", "1"]
    kill_and_go_on(command, tmp_path / "kept", kills=1, total=30)


def test_workers_end_with_their_parent(tmp_path):
    script, kept = tmp_path / "sleeper.py", tmp_path / "kept"
    script.write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script), str(kept), "2000", "2"], env=environment)
    while len({e["process"] for e in events(kept)}) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    workers = {e["process"] for e in events(kept)}
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.slow
def test_a_comparison_killed_three_times_is_the_undisturbed_one(tmp_path):
    """A grid of 112 cells: 7 seeds of a hybrid model, its 9 controls and 6 classifiers."""
    from qbp.comparison.comparing import load_comparison

    def command(folder):
        options = ["seeds=7", "budget=1", "train.epochs=2", "data.moons.n_samples=80"]
        sets = [word for option in options for word in ("--set", option)]
        where = ["--runs-dir", str(tmp_path / folder), "--workers", "2", "--quiet"]
        return [sys.executable, "-m", "qbp", "compare", "moons", *sets, *where]

    kill_and_go_on(command("killed"), tmp_path / "killed" / "moons", kills=3, total=112)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole"), env=environment, cwd=ROOT, check=True)
    killed, whole = (load_comparison(tmp_path / folder / "moons") for folder in ("killed", "whole"))
    timed = ("train_seconds", "tune_seconds")

    def table(comparison):
        return [{key: value for key, value in row.items() if key not in timed} for row in comparison.rows]

    assert len(whole.rows) == 112 and table(killed) == table(whole) and killed.verdicts == whole.verdicts
    for row in whole.rows:
        one, two = (comparison.predictions("moons", row["model"], row["seed"]) for comparison in (killed, whole))
        assert all(np.array_equal(one[key], two[key]) for key in two)


def test_cells_that_run_together_are_kept_one_by_one(tmp_path):
    ran = []

    def run(arguments):
        ran.append(arguments)
        return [{"row": k, "arrays": {"y": np.arange(k)}} for k in arguments]

    cells = {Path("a", f"{k}.json"): k for k in range(5)}
    seen = []
    options = {"together": lambda k: k % 2, "progress": lambda *state: seen.append(state[:2])}
    first = sweep(cells, run, tmp_path, **options)
    assert ran == [[0, 2, 4], [1, 3]] and seen == [(k, 5) for k in (1, 2, 3, 4, 5)]
    assert first == [{"row": k} for k in range(5)]
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in cells}
    (tmp_path / "a" / "2.json").unlink()
    assert sweep(cells, run, tmp_path, **options) == first
    assert ran[2:] == [[0, 2, 4]]  # as before, so that the last bits are; only one of them is written
    after = {path: (tmp_path / path).stat().st_mtime_ns for path in cells}
    assert [path.stem for path in cells if before[path] != after[path]] == ["2"]
    assert [e["cell"] for e in events(tmp_path) if e["event"] == "began"].count("a/0.json") == 1
    assert sweep(cells, run, tmp_path, **options) == first and len(ran) == 3


SCRIPT = """
import math, time
from functools import partial
from pathlib import Path
from qbp.comparison.cells import sweep
print("script", flush=True)
{model}
cells = {{Path("cells", f"{{k}}.json"): {{"k": k}} for k in range(6)}}
done = sweep(cells, {run}, workers=2)
print([cell["k"] for cell in done], flush=True)
"""


def test_a_plain_script_without_a_guard_runs_once(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(SCRIPT.format(model="", run="dict"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["script", "[0, 1, 2, 3, 4, 5]", ""] and done.stderr == ""


@pytest.mark.slow
def test_functions_of_such_a_script_need_the_guard_and_the_error_says_so(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(SCRIPT.format(model="def model(cell): return cell", run="model"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("put the call under `if __name__ == '__main__':`")


def test_ctrl_c_is_quiet_and_quick(tmp_path):
    script, kept = tmp_path / "sleeper.py", tmp_path / "kept"
    script.write_text(SLEEPER.replace("time.sleep(0.05)", "time.sleep(300)"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(kept), "8", "2"]
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests that run in the background may ignore it
    process = subprocess.Popen(command, preexec_fn=heeds, **options)
    while len({e["process"] for e in events(kept)}) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes of the group get it
    _, said = process.communicate(timeout=60)
    assert said.count("Traceback") == 1 and said.rstrip().endswith("KeyboardInterrupt")  # the script's own
    assert not any(Path(f"/proc/{e['process']}").exists() for e in events(kept))

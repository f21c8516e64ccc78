"""qbp beside its peers: ratios of medians of whole training steps, in one interleaved run.

    python benchmarks/speed.py                                             the peers of this environment
    python benchmarks/speed.py --peers all --workloads all --envs DIR      all, each in an environment of its own
    python benchmarks/speed.py --peers pennylane_jax --workloads W4        a part: its rows replace those of the result
    python benchmarks/speed.py --sweeps --envs DIR                         the fastest against qubits and batch
    python benchmarks/speed.py --plot                                      pictures of both results, and a table

Every peer's outputs and gradients are compared with qbp's before anything is timed; one that differs is not timed.
Peers take turns (qbp, A, qbp, B, ...), so that a machine that changes its speed changes it for all, and the ratio of
a peer is to the turns of qbp right before its own, whose median is `qbp_ms`. `first_s` is building, compiling and the
first step; it counts nowhere else. What is not done within `--timeout` is recorded as too slow, and not tried again for
larger workloads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import asdict
from math import log
from pathlib import Path
from statistics import fmean, median

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE / "peers"))
from workload import SWEEPS, WORKLOADS, Workload  # noqa: E402

QBP = "qbp_layer"
PEERS: dict[str, list[str]] = {
    QBP: [],
    "default_qubit_backprop": [],
    "lightning_adjoint": [],
    "pennylane_jax": ["pennylane==0.45.1", "jax==0.10.2"],
    "tensorcircuit_jax": ["tensorcircuit-ng==1.10.0", "jax==0.10.2"],
    "flagquantum_module": ["flagquantum==0.3.1", "torch==2.13.0"],
    "torchquantum_module": ["torchquantum-ng==0.2.0", "torch==2.13.0"],
    "deepquantum_circuit": ["deepquantum==4.5.0", "torch==2.13.0"],
    "pyqtorch_circuit": ["pyqtorch==1.7.8", "torch==2.13.0"],
    "qulacs_gradient": ["qulacs==0.6.14"],
    "scaluq_batched": ["scaluq==0.2.0"],
    "qiskit_estimator_qnn": ["qiskit-machine-learning==0.9.1", "qiskit==2.6.2", "torch==2.13.0"],
}
"""Each peer, a file of peers/, and the requirements of its environment; none where it runs in qbp's own.

A CPU build of torch is enough for all of them (outside Linux that is what PyPI has; there, from PyTorch's own index).
"""


class Worker:
    """One peer in a process of its own; qbp from the checkout at `root`."""

    def __init__(self, peer: str, python: str, threads: int, root: Path = HERE.parent):
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE / "peers")}
        if not PEERS[peer]:
            env["PYTHONPATH"] += os.pathsep + str(root)
        command = [python, str(HERE / "peers" / "workload.py"), peer]
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.stderr}
        self.process = subprocess.Popen(command, env=env, text=True, **pipes)

    def ask(self, timeout: float, **request: object) -> dict:
        """Its answer, or an "error": it is killed after `timeout` seconds."""
        late = threading.Event()
        timer = threading.Timer(timeout, lambda: (late.set(), self.process.kill()))
        timer.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        timer.cancel()
        if line:
            return json.loads(line)
        if late.is_set():
            return {"error": f"too slow: not done after {timeout:.0f} s"}
        self.stderr.seek(0)
        tail = " | ".join(self.stderr.read().strip().splitlines()[-3:])
        return {"error": f"the process died with exit code {self.process.wait()}: {tail}"[:300]}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.stderr.close()


def environment(peer: str, envs: Path) -> str:
    """The Python of the peer's environment, made if it is not there."""
    if not PEERS[peer]:
        return sys.executable
    python, installed = envs / peer / "bin" / "python", envs / peer / "requirements.txt"
    wanted = "\n".join(["numpy==2.4.6", *PEERS[peer], ""])
    if not installed.exists() or installed.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", envs / peer], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted.split()], check=True)
        installed.write_text(wanted)
    return str(python)


def measure(workload: Workload, workers: dict[str, Worker], rows: dict[str, dict], args: argparse.Namespace) -> None:
    """Check and time one workload; what is found goes into `rows`."""
    want = None
    with tempfile.TemporaryDirectory() as folder:
        for peer, worker in workers.items():
            path = f"{folder}/{peer}.npz"
            rows[peer] |= worker.ask(args.timeout, do="build", workload=asdict(workload), to=path)
            if "error" not in rows[peer]:
                got = dict(np.load(path))
                want = want or got
                rows[peer]["difference"] = difference = max(_difference(got[k], want[k]) for k in want)
                if difference > 2e-3:
                    rows[peer]["error"] = f"differs from {QBP} by {difference:.1e} of the largest value"
            if "error" in rows[peer]:
                worker.close()
    times: dict[str, list[float]] = {peer: [] for peer in workers}
    beside: dict[str, list[float]] = {peer: [] for peer in workers}
    for _ in range(args.rounds):
        for peer in workers:
            if peer != QBP and sum(times[peer]) > args.limit:
                continue
            for turn in dict.fromkeys([QBP, peer]):
                if "error" not in rows[peer] and "error" not in rows[turn]:
                    answer = workers[turn].ask(args.timeout, do="time", seconds=args.seconds, steps=1000)
                    seconds = answer.pop("times", [])
                    times[turn] += seconds
                    beside[peer] += seconds if turn == QBP else []
                    rows[turn] |= answer
    for peer, row in rows.items():
        if "error" not in row:
            row |= {"median_ms": 1e3 * median(times[peer]), "min_ms": 1e3 * min(times[peer]), "steps": len(times[peer])}
            if beside[peer]:
                row["qbp_ms"] = 1e3 * median(beside[peer])
                row["ratio"] = row["median_ms"] / row["qbp_ms"]


def _difference(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got.reshape(want.shape) - want).max() / max(1.0, np.abs(want).max()))


def run(workloads: list[Workload], peers: list[str], args: argparse.Namespace) -> None:
    """Measure all, and after each workload put what was found in the place of the result's older rows."""
    pythons = {peer: environment(peer, args.envs) for peer in peers}
    rows: dict[tuple[str, str], dict] = {}
    if args.out.exists():
        rows = {(row["name"], row["peer"]): row for row in json.loads(args.out.read_text())["rows"]}
    for workload in workloads:
        new: dict[str, dict] = {peer: asdict(workload) | {"peer": peer} for peer in peers}
        workers = {}
        for peer in peers:
            smaller = None if args.again else _too_slow(peer, workload, rows.values())
            if smaller:
                new[peer]["error"] = f"not tried: too slow already for {smaller}"
            else:
                workers[peer] = Worker(peer, pythons[peer], args.threads)
        try:
            measure(workload, workers, new, args)
        finally:
            for worker in workers.values():
                worker.close()
        for peer, row in new.items():
            text = row.get("error") or f"{row['median_ms']:12.3f} ms {row.get('ratio', 1):10.1f} x"
            print(f"{workload.name:20} {peer:24} {text}", flush=True)
            rows[workload.name, peer] = row
        every = list(WORKLOADS | SWEEPS)
        ordered = [rows[key] for key in sorted(rows, key=lambda key: (every.index(key[0]), list(PEERS).index(key[1])))]
        machine = {"processor": _processor(), "threads": args.threads, "python": platform.python_version()}
        args.out.parent.mkdir(exist_ok=True)
        args.out.with_suffix(".tmp").write_text(json.dumps({"machine": machine, "rows": ordered}, indent=1) + "\n")
        os.replace(args.out.with_suffix(".tmp"), args.out)


def _too_slow(peer: str, workload: Workload, rows: Iterable[dict]) -> str | None:
    """The name of a smaller workload of the same kind for which the peer was too slow."""
    for row in rows:
        if row["peer"] == peer and row["mode"] == workload.mode and row.get("error", "").startswith("too slow"):
            smaller = (WORKLOADS | SWEEPS)[row["name"]]
            if smaller.name != workload.name and smaller.cost() <= workload.cost():
                return smaller.name
    return None


def fastest(rows: list[dict], count: int) -> list[str]:
    """The peers with the smallest mean ratio (geometric) over the training steps that they all did."""
    steps = [row for row in rows if row["mode"] == "step" and row["peer"] != QBP]
    logs = {row["peer"]: [] for row in steps}
    for row in steps:
        if "ratio" in row:
            logs[row["peer"]].append(log(row["ratio"]))
    most = max(map(len, logs.values()))
    return sorted((peer for peer in logs if len(logs[peer]) == most), key=lambda peer: fmean(logs[peer]))[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = [peer for peer, requirements in PEERS.items() if not requirements]
    parser.add_argument("--peers", nargs="+", choices=["all", *PEERS], help="default: those of this environment")
    parser.add_argument("--workloads", nargs="+", default=["W1", "W2", "W3"], choices=["all", *WORKLOADS, *SWEEPS])
    parser.add_argument("--sweeps", action="store_true", help="default peers: the four fastest of results/speed.json")
    parser.add_argument("--plot", action="store_true", help="draw results/*.json and end")
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()) / "qbp-peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a peer's turn in a round, at least one step")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a peer takes no further turns")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds for the first step, and for any other turn"
    )
    parser.add_argument("--again", action="store_true", help="also what was too slow for a smaller workload")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="default: results/speed.json, or results/sweeps.json")
    args = parser.parse_args()
    if args.plot:
        from plot import plot, table

        print(table(json.loads((RESULTS / "speed.json").read_text())["rows"]))
        return plot(RESULTS)
    peers, names = args.peers or here, args.workloads
    if args.sweeps:
        names = list(SWEEPS)
        peers = args.peers or fastest(json.loads((RESULTS / "speed.json").read_text())["rows"], 4)
    elif names == ["all"]:
        names = list(WORKLOADS)
    args.out = args.out or RESULTS / ("sweeps.json" if args.sweeps else "speed.json")
    peers = [QBP, *(peer for peer in (PEERS if peers == ["all"] else peers) if peer != QBP)]
    workloads = [(WORKLOADS | SWEEPS)[name] for name in names]
    run(sorted(workloads, key=Workload.cost), peers, args)  # what is too slow is found out early


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()

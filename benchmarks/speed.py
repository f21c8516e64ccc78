"""qbp beside its peers: ratios of medians of whole training steps, in one interleaved run.

    python benchmarks/speed.py                                   the peers of this environment
    python benchmarks/speed.py --peers all --envs /tmp/envs      every peer, each in an environment of its own

Every peer's outputs and gradients are compared with qbp's before anything is timed; one that differs is not timed.
Peers take turns (qbp, A, qbp, B, ...), so that a machine that changes its speed changes it for all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from workload import WORKLOADS, Workload, to_json  # noqa: E402

PEERS: dict[str, list[str]] = {
    "qbp_layer": [],
    "default_qubit_backprop": [],
    "lightning_adjoint": [],
}
"""Each peer, a file of peers/, and the requirements of its environment; none where it runs in qbp's own."""


class Worker:
    """One peer in a process of its own."""

    def __init__(self, peer: str, python: str, threads: int):
        self.peer = peer
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE / "peers")}
        if not PEERS[peer]:
            env["PYTHONPATH"] += os.pathsep + str(HERE.parent)
        command = [python, str(HERE / "peers" / "workload.py"), peer]
        self.process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self, **request: object) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process died"}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def environment(peer: str, envs: Path) -> str:
    """The Python of the peer's environment, made if it is not there."""
    if not PEERS[peer]:
        return sys.executable
    python = envs / peer / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", envs / peer], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "numpy", *PEERS[peer]], check=True)
    return str(python)


def measure(workload: Workload, peers: list[str], pythons: dict[str, str], args: argparse.Namespace) -> list[dict]:
    """One row for each peer."""
    rows: dict[str, dict] = {}
    workers: dict[str, Worker] = {}
    want = None
    with tempfile.TemporaryDirectory() as folder:
        for peer in peers:
            worker = Worker(peer, pythons[peer], args.threads)
            path = f"{folder}/{peer}.npz"
            answer = worker.ask(do="build", workload=to_json(workload), to=path)
            rows[peer] = {"workload": workload.name, "peer": peer, **answer}
            if "error" not in answer:
                got = dict(np.load(path))
                want = want or got
                error = max(float(np.abs(got[k] - want[k]).max() / max(1.0, np.abs(want[k]).max())) for k in want)
                rows[peer]["difference"] = error
                if error > 2e-3:
                    rows[peer]["error"] = f"differs from {peers[0]} by {error:.1e} of the largest value"
            if "error" in rows[peer]:
                worker.close()
                print(f"{workload.name:20} {peer:22} not timed: {rows[peer]['error']}", flush=True)
            else:
                workers[peer] = worker
    times: dict[str, list[float]] = {peer: [] for peer in workers}
    for _ in range(args.rounds):
        for peer in workers:
            for turn in [peers[0], peer] if peer != peers[0] else [peer]:
                times[turn] += workers[turn].ask(do="time", seconds=args.seconds, steps=200)["times"]
    for worker in workers.values():
        worker.close()
    for peer in workers:
        rows[peer] |= {"median_ms": 1e3 * median(times[peer]), "min_ms": 1e3 * min(times[peer])}
        rows[peer] |= {"steps": len(times[peer]), "ratio": rows[peer]["median_ms"] / rows[peers[0]]["median_ms"]}
        r = rows[peer]
        print(f"{workload.name:20} {peer:22} {r['median_ms']:12.3f} ms {r['ratio']:10.1f} x", flush=True)
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = [peer for peer, requirements in PEERS.items() if not requirements]
    parser.add_argument("--peers", nargs="+", default=here, help=f"'all', or of {', '.join(PEERS)}")
    parser.add_argument("--workloads", nargs="+", default=["W1", "W2", "W3"], choices=list(WORKLOADS))
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()) / "qbp-peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a peer's turn in a round, at least one step")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed.json")
    args = parser.parse_args()
    peers = list(PEERS) if args.peers == ["all"] else ["qbp_layer", *(p for p in args.peers if p != "qbp_layer")]
    pythons = {peer: environment(peer, args.envs) for peer in peers}
    rows = [row for name in args.workloads for row in measure(WORKLOADS[name], peers, pythons, args)]
    machine = {"processor": _processor(), "threads": args.threads, "python": platform.python_version()}
    args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()

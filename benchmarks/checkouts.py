"""Two checkouts of qbp in turn: whether a change made training steps slower, workload by workload.

    git worktree add /tmp/before HEAD~5
    python benchmarks/checkouts.py /tmp/before .

Each round starts a new process of either checkout, which takes turns of a second with the other: so both meet the same
moods of the machine. A round's ratio is that of the medians of all its steps; reported are the median over rounds and
its bootstrap interval (95 %). Outputs and gradients of both are compared first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
from speed import QBP, RESULTS, WORKLOADS, Worker, _difference, _processor
from workload import Workload


def round_of(workload: Workload, roots: list[Path], turns: int, seconds: float, threads: int) -> list[float]:
    """Median milliseconds of a step of each checkout, new processes taking turns."""
    workers = [Worker(QBP, sys.executable, threads, root) for root in roots]
    try:
        with tempfile.TemporaryDirectory() as folder:
            arrays = []
            for k, worker in enumerate(workers):
                path = f"{folder}/{k}.npz"
                if error := worker.ask(300, do="build", workload=asdict(workload), to=path).get("error"):
                    raise SystemExit(f"{roots[k]}: {error}")
                arrays.append(dict(np.load(path)))
            for key, before in arrays[0].items():
                if _difference(arrays[1][key], before) > 1e-4:
                    raise SystemExit(f"{workload.name}: the two checkouts differ in {key!r}")
        times: list[list[float]] = [[], []]
        for turn in range(2 * turns):
            k = (turn + turn // 2) % 2  # A B B A ...
            times[k] += workers[k].ask(300, do="time", seconds=seconds, steps=100_000)["times"]
        return [1e3 * median(own) for own in times]
    finally:
        for worker in workers:
            worker.close()


def interval(ratios: list[float]) -> tuple[float, float]:
    """Bootstrap interval of the median, 95 %."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def commit(root: Path) -> str:
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--workloads", nargs="+", default=["W1", "W2", "W3", "W4"], choices=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=4, help="of each checkout in a round")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS / "checkouts.json")
    args = parser.parse_args()
    roots = [args.before.resolve(), args.after.resolve()]
    rows = []
    for name in args.workloads:
        rounds = [round_of(WORKLOADS[name], roots, args.turns, args.seconds, args.threads) for _ in range(args.rounds)]
        ratios = [after / before for before, after in rounds]
        low, high = interval(ratios)
        row = {"name": name, "before_ms": median(r[0] for r in rounds), "after_ms": median(r[1] for r in rounds)}
        rows.append(row | {"ratio": median(ratios), "low": low, "high": high, "ratios": ratios})
        print(
            "{name}: {before_ms:.4f} ms -> {after_ms:.4f} ms, {ratio:.3f} x ({low:.3f} to {high:.3f})".format(
                **rows[-1]
            )
        )
    machine = {"processor": _processor(), "threads": args.threads}
    content = {"before": commit(roots[0]), "after": commit(roots[1]), "machine": machine, "rows": rows}
    args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

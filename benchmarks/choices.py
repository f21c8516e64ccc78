"""What qbp chooses by itself, measured: the native engine's layout, and the native engine rather than lightning.qubit.

    python benchmarks/choices.py layouts [--threads 2] [--qubits 6 8 ...] [--batches 1 2 ...]
    python benchmarks/choices.py backends [--threads 2] [--qubits 1 2 ...] [--batches 1 ...] [--limit 2]

Both sides take turns; figures are medians. `layouts` compares lanes that are samples with lanes that are amplitudes,
forward and backward, and tells how much slower than the better one the rule's choice is
(`qbp.executors.native.lanes_are_amplitudes`). `backends` compares whole calls of two executors, of outputs alone and
with gradients (adjoint on both), strongly entangling layers, Z on every wire; what takes lightning.qubit longer than
`--limit` seconds is not tried with larger batches.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of one side that spin would slow the other down

import numpy as np
import torch
from engine import strongly_entangling

from qbp.circuit.angles import Angles
from qbp.executors import backend, native

RESULTS = Path(__file__).parent / "results"
N_LAYERS = 3


def case(n_qubits: int, batch: int, dtype: torch.dtype) -> tuple:
    """Program, angles, gradient of the outputs."""
    torch.manual_seed(0)
    program = strongly_entangling(n_qubits, N_LAYERS)
    angles = Angles(torch.randn(batch, n_qubits, dtype=dtype), torch.randn(program.n_angles - n_qubits, dtype=dtype))
    return program, angles, torch.randn(batch, program.n_outputs, dtype=dtype)


def step(executor, program, angles, grad) -> None:
    _, saved = executor.forward(program, angles)
    executor.vjp(program, angles, None, saved, grad)


def medians(calls: list[Callable[[], None]], seconds: float) -> list[float]:
    """Milliseconds of each call, in turns, after a first turn that does not count."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for call, own in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            own.append(1e3 * (time.perf_counter() - begin))
    return [median(own) for own in times]


def layouts(args: argparse.Namespace) -> list[dict]:
    rule, rows = native.lanes_are_amplitudes, []
    executor = native.Native()
    for dtype in (torch.float32, torch.float64):
        for n in args.qubits or range(6, 19, 2):
            for batch in args.batches or (1, 2, 4, 8, 12, 16, 17, 24, 32, 64):
                if batch << n > 2**20:
                    continue
                one = case(n, batch, dtype)
                chosen = rule(n, batch, np.dtype(str(dtype)[6:]))

                def run(alone: bool, one: tuple = one) -> None:
                    native.lanes_are_amplitudes = lambda *_: alone
                    step(executor, *one)

                by_samples, by_amplitudes = medians([lambda: run(False), lambda: run(True)], 0.2)
                native.lanes_are_amplitudes = rule
                lost = (by_amplitudes if chosen else by_samples) / min(by_samples, by_amplitudes) - 1
                rows.append({"dtype": str(dtype)[6:], "qubits": n, "batch": batch, "samples_ms": by_samples})
                rows[-1] |= {
                    "amplitudes_ms": by_amplitudes,
                    "rule": "amplitudes" if chosen else "samples",
                    "lost": lost,
                }
                print(*(f"{v:.3f}" if isinstance(v, float) else v for v in rows[-1].values()), flush=True)
    return rows


def backends(args: argparse.Namespace) -> list[dict]:
    rows = []
    mine, other = backend("native"), backend("lightning.qubit")
    for n in args.qubits or (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24):
        for batch in args.batches or (1, 16, 256, 4096):
            program, angles, grad = case(n, batch, torch.float64)
            begin = time.perf_counter()
            outputs = other(program, angles)
            torch.testing.assert_close(mine(program, angles), outputs, rtol=0, atol=1e-10)
            if time.perf_counter() - begin > args.limit and batch > 1:
                break
            row = {"qubits": n, "batch": batch}
            for what, calls in {
                "forward": [lambda: mine(program, angles), lambda: other(program, angles)],  # noqa: B023
                "step": [lambda: step(mine, program, angles, grad), lambda: step(other, program, angles, grad)],  # noqa: B023
            }.items():
                row[f"{what}_native_ms"], row[f"{what}_lightning_ms"] = milliseconds = medians(calls, 0.2)
                row[f"{what}_ratio"] = milliseconds[1] / milliseconds[0]
            rows.append(row)
            print(*(f"{v:.3f}" if isinstance(v, float) else v for v in row.values()), flush=True)
            if row["step_lightning_ms"] > 1e3 * args.limit:
                break
    print("lightning.qubit takes at least", min(r["forward_ratio"] for r in rows), "times as long for outputs,")
    print(min(r["step_ratio"] for r in rows), "times for a step")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["layouts", "backends"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--qubits", type=int, nargs="*")
    parser.add_argument("--batches", type=int, nargs="*")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = layouts(args) if args.what == "layouts" else backends(args)
    path = RESULTS / f"{args.what}.json"
    path.with_suffix(".tmp").write_text(json.dumps({"threads": args.threads, "rows": rows}, indent=1) + "\n")
    os.replace(path.with_suffix(".tmp"), path)


if __name__ == "__main__":
    main()

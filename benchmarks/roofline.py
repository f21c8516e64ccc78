"""How much of the processor the native engine uses: its GFLOP/s and GB/s beside a plain multiply-add loop in cache.

    python benchmarks/roofline.py [--threads 1 2] [--dtypes float32 float64] [--seconds 1.0] [W1 W2 ...]

The work of a step (outputs, then the gradients of inputs and weights) is counted from the compiled plan: the arithmetic
and the loads and stores of the kernels on state vectors, nothing else (no angles, no Python), so the rates are lower
bounds. Beside it, in turns, run loops ``a = a * b + c`` over an array that stays in the first-level cache (16 KiB, as a
block of the engine does) or in the second (1 MiB), and over registers only; one loop on every thread.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from engine import cases
from numba import njit

from qbp.executors.native import Native
from qbp.executors.native.kernels.simd import hsum, lanes_of, load, n_lanes, splat, store
from qbp.executors.native.plan import Plan, compile_program
from qbp.executors.native.schedule import DIAGONAL, SWEEP, TWO

LOOPS = {"registers": 0, "first level": 2**14, "second level": 2**20}
"""Bytes that each loop goes over."""


class Work(NamedTuple):
    """Floating point operations, and numbers loaded and stored, for one sample."""

    flops: float
    moved: float


def work(plan: Plan) -> tuple[Work, Work]:
    """Of the outputs and of the gradients; for every amplitude as the kernels do it (a multiply-add is two)."""
    tables, size, log_span = plan.tables, 1 << plan.n_qubits, (plan.n_span - 1).bit_length()
    hadamard = np.array([log_span, log_span * 2 / 3])  # three dimensions a pass
    forward, backward = np.zeros(2), np.zeros(2)
    for kind, _, first, last in tables.items[:, :4]:
        if kind >= TWO:
            forward += 8, 4
            backward += 24, 8
        elif kind in (DIAGONAL, SWEEP):
            forward += 6, 4
            backward += np.array([15, 9]) + (hadamard if last > first else 0)
        else:
            forward += 6, 4
            backward += 16, 8
    if len(tables.start):  # doubling: twice the amplitudes of all but the last bit
        forward += 12 * (1 - 1 / size), 6 * (1 - 1 / size)
        backward += 44 * (1 - 1 / size), 12 * (1 - 1 / size)
    if len(tables.diagonal):
        forward += np.array([4, 3]) + hadamard
        backward += hadamard
    backward += 4, 7
    forward += len(tables.others) * np.array([2, 2])
    backward += len(tables.others) * np.array([4, 6])
    return Work(*(forward * size)), Work(*(backward * size))


@njit(nogil=True, fastmath=True)
def _in_registers(a, b, c, times):
    b, c = splat(b), splat(c)
    s = t = u = v = w = x = y = z = load(a, 0)
    for _ in range(times):
        s, t, u, v = s * b + c, t * b + c, u * b + c, v * b + c
        w, x, y, z = w * b + c, x * b + c, y * b + c, z * b + c
    return hsum(s + t + u + v + w + x + y + z)


@njit(nogil=True, fastmath=True)
def _in_memory(a, b, c, times):
    width = n_lanes(a)
    b, c = splat(b), splat(c)
    for _ in range(times):
        for i in range(0, len(a), 4 * width):
            store(a, i, load(a, i) * b + c)
            store(a, i + width, load(a, i + width) * b + c)
            store(a, i + 2 * width, load(a, i + 2 * width) * b + c)
            store(a, i + 3 * width, load(a, i + 3 * width) * b + c)


def loop(size: int, dtype: np.dtype, threads: int) -> Callable[[], tuple[float, float]]:
    """A function that runs one of `LOOPS` on every thread and returns its (flops, bytes) a second."""
    half, width = dtype.type(0.5), lanes_of(dtype)
    count = size // dtype.itemsize
    arrays = [torch.ones(count or width, dtype=getattr(torch, dtype.name)).numpy() for _ in range(threads)]
    times = 10**7 // (count // width or 8)  # about 5 ms
    function = _in_memory if count else _in_registers
    function(arrays[0], half, half, 1)

    def run() -> tuple[float, float]:
        others = [threading.Thread(target=function, args=(a, half, half, times)) for a in arrays[1:]]
        begin = time.perf_counter()
        for thread in others:
            thread.start()
        function(arrays[0], half, half, times)
        for thread in others:
            thread.join()
        rate = threads * times * (count or 8 * width) / (time.perf_counter() - begin)
        return 2 * rate, 2 * rate * dtype.itemsize * (count > 0)

    return run


def measure(name: str, dtype: str, threads: int, seconds: float) -> dict:
    """The best rates of a workload and of the loops beside it."""
    torch.set_num_threads(threads)
    program, angles, grad = cases([name], getattr(torch, dtype))[name]
    n_batched, width = angles.batched.shape[1], lanes_of(np.dtype(dtype))
    lanes = -(-len(grad) // width) * width
    parts = work(compile_program(program, n_batched))
    native = Native()
    loops = {what: loop(size, np.dtype(dtype), threads) for what, size in LOOPS.items()}
    best = {"forward": np.inf, "step": np.inf}
    rates = dict.fromkeys(loops, (0.0, 0.0))

    def step() -> None:
        _, saved = native.forward(program, angles)
        native.vjp(program, angles, None, saved, grad, (True, True, False))

    end = time.perf_counter() + seconds
    while time.perf_counter() < end or best["step"] == np.inf:
        for what, call in (("forward", lambda: native(program, angles)), ("step", step)):
            for _ in range(5):
                begin = time.perf_counter()
                call()
                best[what] = min(best[what], time.perf_counter() - begin)
        for what, run in loops.items():
            rates[what] = max(rates[what], run())
    row = {"workload": name, "dtype": dtype, "threads": threads, "loops": {}}
    for what, (flops, moved) in (("forward", parts[0]), ("step", np.add(*parts))):
        row[what] = {
            "ms": 1e3 * best[what],
            "gflops": flops * lanes / best[what] / 1e9,
            "gbytes": moved * lanes * np.dtype(dtype).itemsize / best[what] / 1e9,
        }
    for what, (flops, moved) in rates.items():
        row["loops"][what] = {"gflops": flops / 1e9, "gbytes": moved / 1e9}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["W1", "W2", "W3", "W4"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "roofline.json")
    args = parser.parse_args()
    heads = "".join(f"{head:>16}" for head in ("forward", "step", *LOOPS))
    print(f"{'GFLOP/s, GB/s':14}{heads}  step / first level")
    rows = []
    for dtype in args.dtypes:
        for threads in args.threads:
            for name in args.names:
                row = measure(name, dtype, threads, args.seconds)
                rows.append(row)
                loops = [row["forward"], row["step"], *row["loops"].values()]
                figures = "".join(f"{one['gflops']:10.1f}{one['gbytes']:6.0f}" for one in loops)
                share = row["step"]["gflops"] / row["loops"]["first level"]["gflops"]
                print(f"{name} {dtype} x{threads}{figures} {share:19.0%}", flush=True)
    args.out.parent.mkdir(exist_ok=True)
    args.out.with_suffix(".tmp").write_text(json.dumps(rows, indent=1) + "\n")
    os.replace(args.out.with_suffix(".tmp"), args.out)


if __name__ == "__main__":
    main()

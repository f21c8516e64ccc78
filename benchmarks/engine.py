"""What the native engine does: milliseconds and GFLOP/s of the forward pass alone, and of forward and backward.

    python benchmarks/engine.py [--threads 1] [--seconds 1.0] [--dtypes float32 float64] [--cpu] [W1 W2 ...]

Angle embedding and strongly entangling layers, Z on every wire (W7: re-uploading). The table shows minimum and median.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Op, Program, gate_ops
from qbp.executors.native import Native
from qbp.executors.native.plan import compile_program
from qbp.executors.native.schedule import DIAGONAL, SWEEP, TWO

WORKLOADS = {  # qubits, layers, batch
    "W1": (4, 2, 32),
    "W2": (8, 4, 64),
    "W3": (10, 5, 128),
    "W4": (12, 6, 128),
    "W5": (16, 6, 16),
    "W6": (20, 4, 1),
}


def strongly_entangling(n_qubits: int, n_layers: int) -> Program:
    """RX encodings, then layers of Rot and CNOT rings of growing range (PennyLane's StronglyEntanglingLayers)."""
    ops: list[Op] = []
    for w in range(n_qubits):
        ops += gate_ops(GATES["RX"], (w,), [w])
    k = n_qubits
    for layer in range(n_layers):
        for w in range(n_qubits):
            ops += gate_ops(GATES["Rot"], (w,), [k, k + 1, k + 2])
            k += 3
        if n_qubits > 1:
            reach = layer % (n_qubits - 1) + 1
            for w in range(n_qubits):
                ops += gate_ops(GATES["CNOT"], (w, (w + reach) % n_qubits), [])
    return Program(n_qubits, tuple(ops), tuple(Expval.word("Z", w) for w in range(n_qubits)), k)


def reuploading(n_qubits: int, n_blocks: int) -> Program:
    """Blocks of RX encodings of the same kind of input, Rot and a CNOT ring."""
    ops: list[Op] = []
    k = n_qubits * n_blocks
    for block in range(n_blocks):
        for w in range(n_qubits):
            ops += gate_ops(GATES["RX"], (w,), [block * n_qubits + w])
        for w in range(n_qubits):
            ops += gate_ops(GATES["Rot"], (w,), [k, k + 1, k + 2])
            k += 3
        for w in range(n_qubits):
            ops += gate_ops(GATES["CNOT"], (w, (w + 1) % n_qubits), [])
    return Program(n_qubits, tuple(ops), tuple(Expval.word("Z", w) for w in range(n_qubits)), k)


def cases(names: list[str], dtype: torch.dtype) -> dict[str, tuple[Program, Angles, torch.Tensor]]:
    torch.manual_seed(0)
    by_name = {}
    for name in names:
        if name == "W7":
            program, batch, n_batched = reuploading(6, 8), 64, 48
        else:
            n, layers, batch = WORKLOADS[name]
            program, n_batched = strongly_entangling(n, layers), n
        angles = Angles(
            torch.randn(batch, n_batched, dtype=dtype), torch.randn(program.n_angles - n_batched, dtype=dtype)
        )
        by_name[name] = program, angles, torch.randn(batch, program.n_outputs, dtype=dtype)
    return by_name


def flops(program: Program, n_batched: int) -> tuple[int, int]:
    """Additions and multiplications that one sample takes, forward and backward, as the kernels do them."""
    plan = compile_program(program, n_batched)
    size = 2**plan.n_qubits
    forward, backward = 24 * size, 54 * size  # product state and measurement, and back
    for kind in plan.tables.items[:, 0]:
        if kind >= TWO:  # two rotations of pairs, divided by the cosine
            forward, backward = forward + 8 * size, backward + 24 * size
        elif kind in (DIAGONAL, SWEEP):
            span = plan.n_span.bit_length() - 1
            forward, backward = forward + 6 * size, backward + (15 + span) * size
        else:
            forward, backward = forward + 6 * size, backward + 16 * size
    return forward, backward


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["W1", "W2", "W3", "W4", "W7"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each workload and dtype")
    parser.add_argument("--dtypes", nargs="*", default=["float32", "float64"])
    parser.add_argument("--cpu", action="store_true", help="processor time instead of wall time")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    native = Native()
    # On a busy machine processor time is the fairer measure of one thread.
    clock = time.thread_time if args.cpu else time.perf_counter
    print(
        f"{args.threads} thread(s)  forward: ms, median, GFLOP/s  with backward: ms, median, GFLOP/s  backward/forward"
    )
    for dtype in args.dtypes:
        for name, (program, angles, grad) in cases(args.names, getattr(torch, dtype)).items():
            forward, both = [], []

            def step() -> None:
                _, saved = native.forward(program, angles)  # noqa: B023
                native.vjp(program, angles, None, saved, grad, (True, True, False))  # noqa: B023

            native(program, angles)
            step()
            end = time.perf_counter() + args.seconds
            while time.perf_counter() < end or len(both) < 3:
                for record, call in ((forward, lambda: native(program, angles)), (both, step)):  # noqa: B023
                    begin = clock()
                    call()
                    record.append(1e3 * (clock() - begin))
            counts = [len(grad) * count / 1e6 for count in flops(program, angles.batched.shape[1])]
            print(
                f"{name} {dtype:8} {min(forward):9.4f} {median(forward):9.4f} {counts[0] / min(forward):6.1f}"
                f"{min(both):14.4f} {median(both):9.4f} {sum(counts) / min(both):6.1f}"
                f"{min(both) / min(forward) - 1:16.2f}"
            )


if __name__ == "__main__":
    main()

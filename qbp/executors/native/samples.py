"""Batches, a register of samples after the other (`kernels`): what its kernels need besides a plan."""

from __future__ import annotations

import numpy as np

from qbp.executors.native import kernels
from qbp.executors.native.lanes import LANES
from qbp.executors.native.memory import buffer
from qbp.executors.native.plan import Plan
from qbp.executors.native.threads import run_on_threads

__all__ = ["backward", "empty_common", "forward", "norm"]

Arrays = tuple[np.ndarray, ...]


def empty_common(plan: Plan, dtype: np.dtype) -> Arrays:
    """Numbers and flip, to be written by the forward kernel."""
    n_numbers = 2 + 3 * plan.n_arguments + plan.n_items + (2 * plan.n_phases << plan.n_qubits)
    return np.empty(n_numbers, dtype), np.empty(2, np.int64)


def norm(common: Arrays) -> float:
    """The factor that final states were left without: cosines (`passes.prepare`)."""
    return float(common[0][0])


def forward(plan: Plan, inputs: Arrays, out: np.ndarray, states: np.ndarray | None, n_threads: int) -> Arrays:
    """Outputs of a batch, and final states if they are to be kept; see `kernels.forward`.

    Returns:
        What samples share: numbers and flip.
    """
    batched, shared, amplitudes = inputs
    dtype, width = out.dtype, LANES[out.dtype]
    n_work = plan.work(2) * width
    n_state = 0 if states is not None else 2 * width << plan.n_qubits
    next_chunk = np.zeros(2, np.int64)
    common = empty_common(plan, dtype)
    unused = [common]

    def run() -> None:
        try:
            mine = unused.pop()
        except IndexError:  # threads find the same numbers, each for itself
            mine = empty_common(plan, dtype)
        work = buffer(n_work + n_state, dtype)
        final = work[n_work:] if states is None else states
        kernels.forward(
            *(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, *mine, shared, batched, amplitudes),
            *(out, final, states is not None, work),
        )

    run_on_threads(run, min(n_threads, -(-len(batched) // width)))
    return common


def backward(plan: Plan, common: Arrays, inputs: Arrays, grads: Arrays, states: np.ndarray, n_threads: int) -> None:
    """Gradients of a batch; see `kernels.backward`."""
    batched, width = inputs[0], LANES[states.dtype]
    n_work = (plan.work(3) + (4 << plan.n_qubits)) * width
    next_chunk = np.zeros(2, np.int64)

    def run() -> None:
        work = buffer(n_work, states.dtype)
        kernels.backward(*(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, *common, batched, *grads, states, work))

    run_on_threads(run, min(n_threads, -(-len(batched) // width)))

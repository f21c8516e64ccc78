"""Batches, a register of samples after the other (`kernels`): what its kernels need besides a plan."""

from __future__ import annotations

import numpy as np

from qbp.executors.native import kernels
from qbp.executors.native.lanes import lanes_of
from qbp.executors.native.memory import buffer
from qbp.executors.native.passes import prepare as prepare_shared
from qbp.executors.native.plan import Plan
from qbp.executors.native.threads import run_on_threads

__all__ = ["backward", "forward", "norm", "prepare"]

Arrays = tuple[np.ndarray, ...]


def prepare(plan: Plan, shared: np.ndarray) -> Arrays:
    """What all samples share; see `passes.prepare`."""
    dtype = shared.dtype
    common = (
        np.empty((plan.n_arguments, 3), dtype),
        np.empty(plan.n_items, dtype),
        np.empty((plan.n_phases, 2, 1 << plan.n_qubits), dtype),
        np.empty(2, dtype),
        np.empty(2, np.int64),
    )
    prepare_shared(plan.arrays, plan.n_batched, shared, *common)
    return common


def norm(common: Arrays) -> float:
    """The factor that final states were left without: cosines (`passes.prepare`)."""
    return float(common[3][0])


def forward(
    plan: Plan, common: Arrays, inputs: Arrays, out: np.ndarray, states: np.ndarray | None, n_threads: int
) -> None:
    """Outputs of a batch, and final states if they are to be kept; see `kernels.forward`."""
    batched, _, amplitudes = inputs
    width = lanes_of(batched.dtype)
    n_work = plan.work(2) * width
    n_state = 0 if states is not None else 2 * width << plan.n_qubits
    next_chunk = np.zeros(1, np.int64)

    def run() -> None:
        work = buffer(n_work + n_state, batched.dtype)
        final = work[n_work:] if states is None else states
        kernels.forward(
            *(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, common, batched, amplitudes),
            *(out, final, states is not None, work),
        )

    run_on_threads(run, min(n_threads, -(-len(batched) // width)))


def backward(plan: Plan, common: Arrays, inputs: Arrays, grads: Arrays, states: np.ndarray, n_threads: int) -> None:
    """Gradients of a batch; see `kernels.backward`."""
    batched, _, _ = inputs
    width = lanes_of(batched.dtype)
    n_work = (plan.work(3) + (4 << plan.n_qubits)) * width
    next_chunk = np.zeros(1, np.int64)

    def run() -> None:
        work = buffer(n_work, batched.dtype)
        kernels.backward(
            *(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, common, batched, *grads, states, work),
        )

    run_on_threads(run, min(n_threads, -(-len(batched) // width)))

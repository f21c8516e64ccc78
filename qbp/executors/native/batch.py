"""Batches, a register of samples after the other (`kernels.batch`): what its kernels need besides a plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from qbp.executors.native.kernels import batch as kernels
from qbp.executors.native.kernels.simd import LANES
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
    common = empty_common(plan, out.dtype)
    job = plan, np.zeros(1, np.int64), [common], inputs, out, states
    run_on_threads(_forward, job, min(n_threads, -(-len(out) // LANES[out.dtype])))
    return common


def _forward(job: tuple[Any, ...]) -> None:
    """The work of one thread."""
    plan, next_chunk, unused, (batched, shared, amplitudes), out, states = job
    dtype, width, keep = out.dtype, LANES[out.dtype], states is not None
    try:
        numbers, flip = unused.pop()
    except IndexError:  # threads find the same numbers, each for itself
        numbers, flip = empty_common(plan, dtype)
    n_work = plan.work(2) * width
    work = buffer(n_work if keep else n_work + (2 * width << plan.n_qubits), dtype)
    final = states if keep else work[n_work:]
    kernels.forward(
        next_chunk,
        plan.n_qubits,
        plan.n_span,
        plan.arrays,
        numbers,
        flip,
        shared,
        batched,
        amplitudes,
        out,
        final,
        keep,
        work,
    )


def backward(plan: Plan, common: Arrays, inputs: Arrays, grads: Arrays, states: np.ndarray, n_threads: int) -> None:
    """Gradients of a batch; see `kernels.backward`."""
    job = plan, np.zeros(2, np.int64), common, inputs[0], grads, states
    run_on_threads(_backward, job, min(n_threads, -(-len(inputs[0]) // LANES[states.dtype])))


def _backward(job: tuple[Any, ...]) -> None:
    """The work of one thread."""
    plan, next_chunk, (numbers, flip), batched, (grad, g_batched, g_shared, total, g_amps), states = job
    work = buffer((plan.work(3) + (4 << plan.n_qubits)) * LANES[states.dtype], states.dtype)
    kernels.backward(
        next_chunk,
        plan.n_qubits,
        plan.n_span,
        plan.arrays,
        numbers,
        flip,
        batched,
        grad,
        g_batched,
        g_shared,
        total,
        g_amps,
        states,
        work,
    )

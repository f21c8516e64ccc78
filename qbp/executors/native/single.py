"""One state after the other (`kernels.single`): what these need besides a plan, and how threads share the work."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import accumulate, pairwise

import numpy as np

from qbp.executors.native.kernels import single as kernels
from qbp.executors.native.kernels.conventions import Common, Parts
from qbp.executors.native.memory import buffer, empty
from qbp.executors.native.plan import Plan
from qbp.executors.native.threads import run_on_threads

__all__ = ["add_up", "backward", "empty_common", "forward", "n_tasks"]

MAX_TASKS = 64
"""Tasks of a stage; the same for any number of threads, since sums are over tasks."""

COSETS_A_TASK = 8

Arrays = tuple[np.ndarray, ...]


def n_tasks(plan: Plan) -> int:
    """How many tasks a stage has."""
    return max(1, min(MAX_TASKS, plan.n_cosets // COSETS_A_TASK))


def empty_common(plan: Plan, dtype: np.dtype) -> Arrays:
    """Nothing: what samples share is computed with each of them."""
    return ()


def forward(plan: Plan, inputs: Arrays, out: np.ndarray, states: np.ndarray | None, n_threads: int) -> Arrays:
    """Outputs of a batch, and final states if they are to be kept; see `kernels.forward`.

    Returns:
        `empty_common`.
    """
    dtype = inputs[0].dtype

    def run(alone: bool, next_row: np.ndarray, counters: np.ndarray, state: np.ndarray, team: tuple) -> None:
        kernels.forward(
            *(next_row, counters, alone, n_tasks(plan), plan.n_qubits, plan.n_span, plan.arrays, inputs, out),
            *(state if states is None else states, states is not None, *team, _scratch(plan, dtype)),
        )

    _run(run, plan, dtype, len(out), n_threads, 4 + len(plan.tables.blocks), 0 if states is not None else 2)
    return ()


def backward(plan: Plan, common: Arrays, inputs: Arrays, grads: Arrays, states: np.ndarray, n_threads: int) -> None:
    """Gradients of a batch; see `kernels.backward`."""
    dtype = states.dtype
    grad, g_batched, g_shared, total, g_amps = grads

    def run(alone: bool, next_row: np.ndarray, counters: np.ndarray, state: np.ndarray, team: tuple) -> None:
        kernels.backward(
            *(next_row, counters, alone, n_tasks(plan), plan.n_qubits, plan.n_span, plan.arrays, inputs),
            *((grad, g_batched, g_shared, g_amps), states, state, *team, _scratch(plan, dtype)),
        )

    stages = 4 + len(plan.tables.others) + len(plan.tables.blocks)
    _run(run, plan, dtype, len(grad), n_threads, stages, 4)
    add_up(g_shared, total)


def add_up(parts: np.ndarray, total: np.ndarray) -> None:
    """Sum over chunks (C, K) into (K,), in their order; denormal numbers are zeros, as where a kernel adds up."""
    total[:] = reduce(np.add, parts)
    total[np.abs(total) < np.finfo(total.dtype).tiny] *= 0


def _run(run: Callable, plan: Plan, dtype: np.dtype, n_rows: int, n_threads: int, n_stages: int, n_parts: int) -> None:
    """A kernel on threads: each takes samples of its own where there are many, else all share every sample."""
    next_row = np.zeros(1, np.int64)
    n_numbers = n_parts << plan.n_qubits
    n_threads = min(n_threads, n_rows * n_tasks(plan))
    if n_threads == 1 or n_tasks(plan) == 1 or n_rows >= 2 * n_threads:

        def work(_: None) -> None:
            counters = np.zeros((1, n_stages, 2), np.int64)
            run(True, next_row, counters, buffer(n_numbers, dtype), _team(plan, dtype, n_parts == 4))

    else:
        counters, team = np.zeros((n_rows, n_stages, 2), np.int64), _team(plan, dtype, n_parts == 4)
        state = buffer(n_numbers, dtype)

        def work(_: None) -> None:
            run(False, next_row, counters, state, team)

    run_on_threads(work, None, n_threads)


def _team(plan: Plan, dtype: np.dtype, back: bool) -> tuple[Parts, Common]:
    """What all threads share that work on one sample."""
    W, n_args, tasks = 1 << plan.bits, plan.n_arguments, n_tasks(plan)
    has_start = len(plan.tables.start) > 0
    n_low = (plan.n_qubits - plan.bits) // 2
    n_high = plan.n_qubits - plan.bits - n_low
    registers = (
        *(2 * n_args, W, 4 * plan.n_qubits, 4 * W + 4, 4 << n_low if has_start else 0, 4 << n_high if has_start else 0),
        tasks * (len(plan.tables.diagonal) + len(plan.tables.others)),
        (tasks + 1) * n_args if back else 0,
        tasks * (2 << n_low) if back and has_start else 0,
    )
    flat = empty(sum(registers) * W, dtype)
    T, signs, M, lane, low, high, Y, E, sums = (
        flat[a * W : b * W] for a, b in pairwise(accumulate(registers, initial=0))
    )
    angles = np.empty(plan.program.n_angles)
    common = Common(
        table=np.empty((n_args, 3), dtype),
        factors=np.empty(plan.n_items, dtype),
        phases=np.empty((0, 2, 1), dtype),  # all phases are in sweeps
        norms=np.empty(2, dtype),
        flip=np.empty(2, np.int64),
    )
    return Parts(T, signs, M, lane, low, high, angles, Y, E, sums), common


def _scratch(plan: Plan, dtype: np.dtype) -> np.ndarray:
    return empty(2 * plan.n_span << plan.bits, dtype)

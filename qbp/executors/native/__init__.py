"""The native executor: circuits compiled to passes over vector registers, forward and backward."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.angles import Angles
from qbp.errors import ArgumentError, check_shape
from qbp.executors import Gradients
from qbp.executors.native import kernels
from qbp.executors.native.frame import Plan, compile_program
from qbp.executors.native.lanes import ALIGN, lanes_of
from qbp.program import Program

__all__ = ["Native"]

SAVE_LIMIT = 2**30
"""Final states up to this many bytes are kept from the forward pass for the backward pass; beyond, they are computed again."""

_PLANS: OrderedDict[Program, Plan] = OrderedDict()
_RECENT: dict[int, tuple[Program, Plan]] = {}  # by id, since hashing a program costs as much as running it
_MAX_PLANS = 128
_LOCK = threading.Lock()
_LOCAL = threading.local()


class Native:
    """Exact expectation values, probabilities and their adjoint gradients, on the CPU, in the dtype of the angles.

    Memory: ``2 * 2^N * B`` numbers for the final states while training (at most `SAVE_LIMIT` bytes), and 5 to 6 states
    of one register of samples for each thread.
    """

    name = "native"
    exact = True
    shots = None

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        """Outputs (B, M), of the dtype and device of the angles."""
        return _run(program, angles, amplitudes, keep=False)[0]

    def forward(
        self, program: Program, angles: Angles, amplitudes: Tensor | None = None
    ) -> tuple[Tensor, np.ndarray | None]:
        """Outputs (B, M), and the final states for `vjp` (None if they would be too large to keep)."""
        return _run(program, angles, amplitudes, keep=True)

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)`` by the adjoint method (arXiv 2009.02823); see `AdjointExecutor`."""
        plan = _plan(program)
        batched, shared, amps = _arguments(plan, angles, amplitudes)
        n_samples, n_batched = batched.shape
        check_shape("grad", grad.shape, (n_samples, plan.n_outputs))
        dtype, width = batched.dtype, lanes_of(batched.dtype)
        n_chunks = -(-n_samples // width)
        g_batched, g_shared = np.empty_like(batched), np.empty((n_chunks, len(shared)), dtype)
        g_amps = np.empty(amps.shape if needs[2] else (0, 0, 0), dtype)
        table = _trig(plan, n_batched, shared)
        tables = plan.tables
        out = _numpy(grad, dtype)
        if saved is None:
            saved = _run(program, angles, amplitudes, keep=True)[1]

        size = width << plan.n_qubits
        n_work = 5 * size + (plan.n_outputs + 3 * len(tables.turns) + 7 * len(tables.runs)) * width
        work = _work(n_work, dtype)
        kernels.backward(
            *(0, n_chunks, plan.n_qubits, plan.n_start, tables, table, batched, out, saved, work),
            *(g_batched, g_shared, g_amps),
        )
        device = angles.batched.device
        return Gradients(
            torch.from_numpy(g_batched).to(device) if needs[0] else None,
            torch.from_numpy(g_shared.sum(0, np.float64).astype(dtype)).to(device) if needs[1] else None,
            _amplitude_gradient(g_amps, amplitudes) if needs[2] and amplitudes is not None else None,
        )


def _run(
    program: Program, angles: Angles, amplitudes: Tensor | None, keep: bool
) -> tuple[Tensor, np.ndarray | None]:
    plan = _plan(program)
    batched, shared, amps = _arguments(plan, angles, amplitudes)
    dtype, width = batched.dtype, lanes_of(batched.dtype)
    n_samples, n_batched = batched.shape
    n_chunks = -(-n_samples // width)
    out = np.empty((n_samples, plan.n_outputs), dtype)
    table = _trig(plan, n_batched, shared)
    tables = plan.tables
    size = width << plan.n_qubits
    work = _work(size + (plan.n_outputs + 2 * len(tables.turns) + 4 * len(tables.runs)) * width, dtype)
    states = _aligned(2 * size * (n_chunks if keep else 1), dtype)
    kernels.forward(
        0, n_chunks, plan.n_qubits, plan.n_start, tables, table, batched, amps, out, states, keep, work
    )
    return torch.from_numpy(out).to(angles.batched.device), states if keep else None


def _plan(program: Program) -> Plan:
    """The compiled program, from the cache where it is there."""
    recent = _RECENT.get(id(program))
    if recent is not None and recent[0] is program:
        return recent[1]
    with _LOCK:
        plan = _PLANS.get(program)
        if plan is None:
            plan = _PLANS[program] = compile_program(program)
            if len(_PLANS) > _MAX_PLANS:
                _PLANS.popitem(last=False)
        _PLANS.move_to_end(program)
        if len(_RECENT) >= _MAX_PLANS:
            _RECENT.clear()
        _RECENT[id(program)] = program, plan
    return plan


def _arguments(
    plan: Plan, angles: Angles, amplitudes: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batched (B, Kb) and shared (Ks,) angles and amplitudes (B, 2^N, 1 or 2) as arrays, checked."""
    dtype = _DTYPES.get(angles.batched.dtype)
    if dtype is None:
        raise ArgumentError(f"Argument `angles` must be float32 or float64, but is {angles.batched.dtype}")
    batched, shared = _numpy(angles.batched, dtype), _numpy(angles.shared, dtype)
    if batched.ndim != 2 or shared.ndim != 1 or batched.shape[1] + len(shared) != plan.n_angles:
        raise ArgumentError(
            f"Argument `angles` must hold {plan.n_angles} angles, (B, Kb) batched and (Ks,) shared ones, "
            f"but has {tuple(batched.shape)} and {tuple(shared.shape)}"
        )
    if (amplitudes is not None) != plan.amplitudes:
        must = "be given" if plan.amplitudes else "be None"
        raise ArgumentError(f"Argument `amplitudes` must {must} for this program")
    if amplitudes is None:
        return batched, shared, np.empty((0, 0, 0), dtype)
    check_shape("amplitudes", amplitudes.shape, (len(batched), 2**plan.n_qubits))
    parts = torch.view_as_real(amplitudes.resolve_conj()) if amplitudes.is_complex() else amplitudes[..., None]
    return batched, shared, _numpy(parts, dtype)


_DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


def _numpy(tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    """The tensor's numbers as a contiguous array on the CPU, without a copy where it already is one."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype)


def _trig(plan: Plan, n_batched: int, shared: np.ndarray) -> np.ndarray:
    table = np.empty((len(plan.tables.turns), 2), shared.dtype)
    kernels.trig(plan.tables.turns, plan.tables.affine, n_batched, shared, table)
    return table


def _aligned(n: int, dtype: np.dtype) -> np.ndarray:
    """An array that starts at a cache line."""
    raw = np.empty(n * dtype.itemsize + ALIGN, np.uint8)
    skip = -raw.ctypes.data % ALIGN
    return raw[skip : skip + n * dtype.itemsize].view(dtype)


def _work(n: int, dtype: np.dtype) -> np.ndarray:
    """This thread's buffer, grown where it is too small."""
    buffer = getattr(_LOCAL, dtype.name, None)
    if buffer is None or len(buffer) < n:
        buffer = _aligned(n, dtype)
        setattr(_LOCAL, dtype.name, buffer)
    return buffer


def _amplitude_gradient(gradient: np.ndarray, amplitudes: Tensor) -> Tensor:
    result = torch.from_numpy(gradient)
    result = torch.view_as_complex(result) if amplitudes.is_complex() else result[..., 0]
    return result.to(amplitudes)

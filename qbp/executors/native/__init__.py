"""The native executor: circuits compiled to passes over vector registers, forward and backward."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qbp.angles import Angles
from qbp.errors import ArgumentError, check_shape
from qbp.executors import Gradients
from qbp.executors.native import kernels, states
from qbp.executors.native.lanes import lanes_of
from qbp.executors.native.memory import MAX_BUFFER, buffer, empty, memory
from qbp.executors.native.passes import prepare
from qbp.executors.native.plan import Plan, compile_program
from qbp.executors.native.threads import run_on_threads
from qbp.program import Program

__all__ = ["Native"]

SAVE_LIMIT = 2**30
"""Final states up to this many bytes are kept for the backward pass; beyond, they are computed again."""

THREADS_FROM = 100_000
"""Registers of amplitudes times items of a call from which on several threads are worth it (0.2 ms)."""

_MAX_PLANS = 128
_PLANS: OrderedDict[tuple[Program, int, int], Plan] = OrderedDict()
_RECENT: dict[tuple[int, int, int], tuple[Program, Plan]] = {}  # by id: hashing a program takes as long as running it
_LOCK = threading.Lock()
_DTYPES: dict[torch.dtype, np.dtype] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_TORCH = {dtype: name for name, dtype in _DTYPES.items()}
_WIDTHS = {dtype: lanes_of(dtype) for dtype in _TORCH}
_NO_AMPLITUDES = {dtype: np.empty((0, 0, 0), dtype) for dtype in _DTYPES.values()}


class Saved(NamedTuple):
    """What the forward pass leaves to the backward pass: what all samples share, and the final states (or none)."""

    common: tuple[np.ndarray, ...]
    states: np.ndarray


class Native:
    """Exact expectation values, probabilities and their adjoint gradients, on the CPU, in the dtype of the angles.

    Memory: ``2 * 2^N * B`` numbers for the final states while training (at most `SAVE_LIMIT` bytes), and for each
    thread ``4 * 2^N`` numbers for as many samples as a vector register holds (16 float32 with AVX-512).
    """

    name = "native"
    exact = True
    shots = None

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        """Outputs (B, M), of the dtype and device of the angles."""
        return _forward(_Call(program, angles, amplitudes), keep=False)[0]

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Tensor, Saved]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        return _forward(_Call(program, angles, amplitudes), keep=True)

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
        call = _Call(program, angles, amplitudes)
        check_shape("grad", grad.shape, (len(call.batched), program.n_outputs))
        return _backward(call, saved, _numpy(grad, call.dtype), needs)


class _Call:
    """The arguments of one call, checked, as arrays: batched (B, Kb), shared (Ks,), amplitudes (B, 2^N, 1 or 2)."""

    def __init__(self, program: Program, angles: Angles, amplitudes: Tensor | None):
        dtype = _DTYPES.get(angles.batched.dtype)
        if dtype is None:
            raise ArgumentError(f"Argument `angles` must be float32 or float64, but is {angles.batched.dtype}")
        batched, shared = _numpy(angles.batched, dtype), _numpy(angles.shared, dtype)
        if batched.ndim != 2 or shared.ndim != 1 or batched.shape[1] + len(shared) != program.n_angles:
            raise ArgumentError(
                f"Argument `angles` must hold {program.n_angles} angles, (B, Kb) batched and (Ks,) shared ones, "
                f"but has {batched.shape} and {shared.shape}"
            )
        if (amplitudes is not None) != program.amplitudes:
            must = "be given" if program.amplitudes else "be None"
            raise ArgumentError(f"Argument `amplitudes` must {must} for this program")
        self.amplitudes = amplitudes
        self.parts = _NO_AMPLITUDES[dtype]
        if amplitudes is not None:
            check_shape("amplitudes", amplitudes.shape, (len(batched), 2**program.n_qubits))
            complex_ = amplitudes.is_complex()
            self.parts = _numpy(
                torch.view_as_real(amplitudes.resolve_conj()) if complex_ else amplitudes[..., None], dtype
            )
        self.batched, self.shared, self.dtype, self.device = batched, shared, dtype, angles.batched.device
        width = _WIDTHS[dtype]
        self.alone = _one_state_each(program.n_qubits, len(batched), width)
        self.plan = _plan(program, 0, width.bit_length() - 1) if self.alone else _plan(program, batched.shape[1], 0)
        self.width = 1 if self.alone else width  # samples in a chunk
        self.n_chunks = -(-len(batched) // self.width)
        self.state = 2 * self.width << program.n_qubits  # numbers in the states of one chunk

    @property
    def inputs(self) -> states.Inputs:
        return self.batched, self.shared, self.parts

    def tensor(self, array: np.ndarray) -> Tensor:
        """The array as a tensor on the device of the angles."""
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.to(self.device)

    def n_threads(self, n_states: int) -> int:
        """How many threads to use, each of which needs so many states of one chunk."""
        registers = (self.n_chunks << self.plan.n_qubits - self.plan.bits) * (8 + self.plan.n_items)
        most = self.n_chunks * states.n_tasks(self.plan) if self.alone else self.n_chunks
        n_threads = min(torch.get_num_threads(), most) if registers >= THREADS_FROM else 1
        one = n_states * self.state * self.dtype.itemsize
        if one > MAX_BUFFER:
            there = memory() - (self.plan.n_phases * self.dtype.itemsize << self.plan.n_qubits + 1)
            if one > there:
                raise ArgumentError(
                    f"A state of {self.plan.n_qubits} qubits takes {one / 2**30:.1f} GiB here ({self.width} samples "
                    f"at once), but there are {max(there, 0) / 2**30:.1f} GiB"
                )
            n_threads = max(1, min(n_threads, there // (2 * one)))
        return n_threads


def _one_state_each(n_qubits: int, n_samples: int, width: int) -> bool:
    """Whether lanes are amplitudes rather than samples."""
    n_bits = width.bit_length() - 1
    if n_qubits < n_bits + 2:
        return False
    return FORCE if FORCE is not None else n_samples < width // 2


FORCE: bool | None = None


def _forward(call: _Call, keep: bool) -> tuple[Tensor, Saved]:
    plan, dtype = call.plan, call.dtype
    out = np.empty((len(call.batched), plan.n_outputs), dtype)
    keep = keep and call.n_chunks * call.state * dtype.itemsize <= SAVE_LIMIT
    kept = empty(call.n_chunks * call.state if keep else 0, dtype)
    if call.alone:
        states.forward(plan, call.inputs, out, kept if keep else None, call.n_threads(1))
        return call.tensor(out), Saved((), kept)
    common = _prepare(plan, call.shared)
    n_work = plan.work(2) * call.width
    next_chunk = np.zeros(1, np.int64)

    def run() -> None:
        work = buffer(n_work + (0 if keep else call.state), dtype)
        kernels.forward(
            *(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, common, call.batched, call.parts),
            *(out, kept if keep else work[n_work:], keep, work),
        )

    run_on_threads(run, call.n_threads(1))
    return call.tensor(out), Saved(common, kept)


def _backward(call: _Call, saved: Saved, grad: np.ndarray, needs: tuple[bool, bool, bool]) -> Gradients:
    plan, dtype = call.plan, call.dtype
    g_batched, g_shared = np.empty_like(call.batched), np.empty((call.n_chunks, len(call.shared)), dtype)
    g_amps = np.empty_like(call.parts) if needs[2] else _NO_AMPLITUDES[dtype]
    if call.alone:
        kept = saved.states if len(saved.states) else None
        states.backward(plan, call.inputs, (grad, g_batched, g_shared, g_amps), kept, call.n_threads(2))
        return _gradients(call, g_batched, g_shared, g_amps, needs)
    n_work = plan.work(3) * call.width + 2 * call.state
    next_chunk = np.zeros(1, np.int64)

    def run() -> None:
        kernels.backward(
            *(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, saved.common, call.batched, call.parts),
            *(grad, saved.states, buffer(n_work, dtype), g_batched, g_shared, g_amps),
        )

    run_on_threads(run, call.n_threads(2))
    return _gradients(call, g_batched, g_shared, g_amps, needs)


def _gradients(
    call: _Call, g_batched: np.ndarray, g_shared: np.ndarray, g_amps: np.ndarray, needs: tuple[bool, bool, bool]
) -> Gradients:
    return Gradients(
        call.tensor(g_batched) if needs[0] else None,
        call.tensor(g_shared.sum(0, np.float64).astype(call.dtype)) if needs[1] else None,
        _amplitude_gradient(g_amps, call.amplitudes) if needs[2] and call.amplitudes is not None else None,
    )


def _prepare(plan: Plan, shared: np.ndarray) -> tuple[np.ndarray, ...]:
    """What all samples share; see `passes.prepare`."""
    dtype = shared.dtype
    common = (
        np.empty((plan.n_arguments, 3), dtype),
        np.empty(plan.n_items, dtype),
        np.empty((plan.n_phases, 2, 1 << plan.n_qubits), dtype),
        np.empty(2, dtype),
        np.empty(2, np.int64),
    )
    prepare(plan.arrays, plan.n_batched, shared, *common)
    return common


def _amplitude_gradient(gradient: np.ndarray, amplitudes: Tensor) -> Tensor:
    result = torch.from_numpy(gradient)
    return (torch.view_as_complex(result) if amplitudes.is_complex() else result[..., 0]).to(amplitudes)


def _plan(program: Program, n_batched: int, bits: int) -> Plan:
    """The compiled program, from the cache where it is there."""
    recent = _RECENT.get((id(program), n_batched, bits))
    if recent is not None and recent[0] is program:
        return recent[1]
    key = program, n_batched, bits
    with _LOCK:
        plan = _PLANS.get(key)
        if plan is None:
            plan = _PLANS[key] = compile_program(program, n_batched, bits)
            if len(_PLANS) > _MAX_PLANS:
                _PLANS.popitem(last=False)
        _PLANS.move_to_end(key)
        if len(_RECENT) >= _MAX_PLANS:
            _RECENT.clear()
        _RECENT[id(program), n_batched, bits] = program, plan
    return plan


def _numpy(tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    """The tensor's numbers as a contiguous array on the CPU, without a copy where it already is one."""
    array = tensor.detach().cpu().numpy()
    return array if array.dtype == dtype and array.flags.c_contiguous else np.ascontiguousarray(array, dtype)

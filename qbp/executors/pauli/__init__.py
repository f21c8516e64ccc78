"""The Pauli executor: noise exactly, by the expectation values of all Pauli words, with adjoint gradients."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.errors import ArgumentError, check_choice, check_shape
from qbp.executors import Capabilities, Gradients, Results
from qbp.executors.native.arguments import DTYPES, NO_AMPLITUDES, Arguments, as_array, check_angles
from qbp.executors.native.kernels.simd import LANES
from qbp.executors.native.memory import buffer, empty
from qbp.executors.native.threads import run_on_threads
from qbp.executors.pauli.apart import taken_apart
from qbp.executors.pauli.kernels import words
from qbp.executors.pauli.passes import in_front
from qbp.executors.pauli.plan import Plan, compile_program
from qbp.limits import check_memory, physical_memory

__all__ = ["WAYS", "Pauli"]

WAYS = ("auto", "samples", "words")
"""How a program is run: with samples in lanes, forward; or words in lanes, back to the data; see `Pauli.way`."""

SAVE_LIMIT = 2**30
"""Bytes of states that are kept for the way back; beyond, they are computed again."""

SAMPLED = ". That is exact noise; backend='trajectories' samples it, in the memory of as many samples without noise"
"""What errors add where exact noise does not fit."""

THREADS_FROM = 100_000
"""Registers that a call moves from which on several threads are worth it (0.2 ms)."""

CHUNKS_OF_TASK = 16
"""Registers of samples whose gradients of the coefficients are added up by one thread."""

_MAX_PLANS = 128
_PLANS: OrderedDict[tuple[Any, ...], Plan] = OrderedDict()
_SIZES: dict[tuple[Any, ...], _Size] = {}
_LOCK = threading.Lock()
_NOTHING = {dtype: np.empty(0, dtype) for dtype in DTYPES.values()}


class Saved(NamedTuple):
    """What the forward pass leaves to the backward pass: the call, states and copies, and coefficients of words."""

    call: _Call
    states: np.ndarray
    kept: np.ndarray
    coefficients: np.ndarray | None


class Pauli:
    """Exact outputs of circuits with noise, and their adjoint gradients, on the CPU, in the dtype of the angles.

    The state of a sample is its 4^N expectation values of Pauli words; see docs/noise_engine.md.

    Args:
        way: "samples", "words", or "auto", which is the faster one (`Pauli.way`).
    """

    name = "pauli"
    shots = None
    capabilities = Capabilities(adjoint=True, any_shape=True, channels=True)

    def __init__(self, way: str = "auto"):
        check_choice("way", way, WAYS)
        self._way = way

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles."""
        return self._forward(program, angles, amplitudes, keep=False)[0]

    def has_adjoint(self, program: Program) -> bool:
        """It has the adjoint rule for every program."""
        return True

    def way(self, program: Program, n_batched: int, n_samples: int, dtype: torch.dtype = torch.float32) -> str:
        """How a program is run: "samples" or "words"; of a wide one that is taken apart, its first part.

        Args:
            program: the program.
            n_batched: how many angles, the first, differ between samples.
            n_samples: B.
            dtype: of the angles.
        """
        return _way(self._way, taken_apart(program)[0][0], n_batched, n_samples, LANES[DTYPES[dtype]])

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        return self._forward(program, angles, amplitudes, keep=True)

    def _forward(
        self, program: Program, angles: Angles, amplitudes: Tensor | None, keep: bool
    ) -> tuple[Results, list[Saved]]:
        parts = taken_apart(program)
        runs = [_forward(_Call(self._way, part, angles, amplitudes), keep) for part, _ in parts]
        saved = [some for _, some in runs]
        if len(parts) == 1:
            return runs[0][0], saved
        values = angles.batched.new_zeros(angles.n_samples, program.n_outputs)
        for (_, outputs), (results, _) in zip(parts, runs, strict=True):
            values[:, list(outputs)] += results.values
        return Results(values), saved

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)``; see `AdjointExecutor`."""
        shape = (angles.n_samples, program.n_outputs)
        if tuple(grad.shape) != shape:
            check_shape("grad", grad.shape, shape)
        if len(saved) == 1:
            return _vjp(saved[0], grad, needs)
        parts = zip(taken_apart(program), saved, strict=True)
        each = [_vjp(some, grad[:, list(outputs)], needs) for (_, outputs), some in parts]
        batched, shared, *_ = zip(*each, strict=True)
        return Gradients(sum(batched) if needs[0] else None, sum(shared) if needs[1] else None)


def _vjp(saved: Saved, grad: Tensor, needs: tuple[bool, bool, bool]) -> Gradients:
    """The gradients of one part."""
    call = saved.call
    array = as_array(grad, call.dtype)
    gradients = _samples_back if saved.coefficients is None else _words_back
    g_batched, g_shared, g_amps = gradients(saved, array, needs[2])
    return Gradients(
        call.tensor(g_batched) if needs[0] else None,
        call.tensor(g_shared.reshape(call.shape)) if needs[1] else None,
        call.amplitude_gradient(g_amps) if needs[2] else None,
    )


def _way(asked: str, program: Program, n_batched: int, n_samples: int, width: int) -> str:
    """By a measured rule (`benchmarks/noise_speed.py`): words are carried back where the data stand in front, and there
    are fewer registers of outputs than of samples."""
    front = in_front(program, n_batched)
    if asked == "words" and not front:
        raise ArgumentError(
            "Argument `way` must be 'samples' or 'auto' where data enters behind the start of a circuit"
        )
    if asked != "auto":
        return asked
    return "words" if front and -(-program.n_outputs // width) < -(-n_samples // width) else "samples"


class _Size(NamedTuple):
    """What the sizes of a call decide.

    Attributes:
        by_words: whether words are carried back.
        n_chunks: registers of samples.
        n_states, n_kept: states that are kept for the way back, and copies of each.
        keeps: whether they are, or are computed again.
    """

    plan: Plan
    by_words: bool
    n_chunks: int
    n_states: int
    n_kept: int
    keeps: bool
    n_threads: int


def _size(way: str, program: Program, batched: np.ndarray, shared: np.ndarray) -> _Size:
    """See `_Size`; also checks that there is memory, before anything is made."""
    n_samples, dtype, width = len(batched), batched.dtype, LANES[batched.dtype]
    check_angles(program, batched, shared)
    by_words = _way(way, program, batched.shape[1], n_samples, width) == "words"
    plan = _plan(program, batched.shape[1], dtype, by_words)
    n_chunks = -(-n_samples // width)
    n_states, n_kept = (-(-plan.n_outputs // width), plan.n_kept_back) if by_words else (n_chunks, plan.n_kept)
    size = 4**plan.n_qubits
    each = size * width * dtype.itemsize
    keeps = by_words or n_states * (1 + n_kept) * each <= SAVE_LIMIT
    held = (n_states if keeps else 1) * (1 + n_kept)
    most = physical_memory()
    what = f"{plan.n_qubits} qubits with noise and a batch of {n_samples} in {dtype}"
    check_memory(what, (3 + held) * each, most=most, instead=SAMPLED)
    n_threads = max(1, min(torch.get_num_threads(), (most - held * each) // (3 * each)))
    moved = n_chunks * (2 * plan.n_products * plan.n_outputs if by_words else size * (4 + plan.n_passes))
    n_threads = n_threads if moved >= THREADS_FROM else 1
    return _Size(plan, by_words, n_chunks, n_states, n_kept, keeps, n_threads)


class _Call(Arguments):
    """A call, and what its sizes decide."""

    def __init__(self, way: str, program: Program, angles: Angles, amplitudes: Tensor | None):
        super().__init__(program, angles, amplitudes)
        rules = torch.get_num_threads(), THREADS_FROM, SAVE_LIMIT  # whoever sets another one gets it
        key = program, way, self.dtype, self.batched.shape, self.shared.shape, rules
        size = _SIZES.get(key)
        if size is None:
            if len(_SIZES) >= _MAX_PLANS:
                _SIZES.clear()
            size = _SIZES[key] = _size(way, program, self.batched, self.shared)
        self.plan, self.by_words, self.n_chunks, self.n_states, self.n_kept, self.keeps, self.n_threads = size
        self.width, self.size = LANES[self.dtype], 4**self.plan.n_qubits

    def states(self, keep: bool) -> tuple[np.ndarray, np.ndarray]:
        """Memory for the states and the copies of them that the way back needs."""
        if not keep:
            return _NOTHING[self.dtype], _NOTHING[self.dtype]
        each = self.size * self.width
        return empty(self.n_states * each, self.dtype), empty(self.n_states * self.n_kept * each, self.dtype)


def _forward(call: _Call, keep: bool) -> tuple[Results, Saved]:
    plan, dtype = call.plan, call.dtype
    out = np.empty((len(call.batched), plan.n_outputs), dtype)
    states, kept = call.states(keep and call.keeps)
    coefficients = None
    if call.by_words:
        coefficients = np.empty((plan.n_products, plan.n_outputs), dtype)
        kept = kept if keep else call.states(True)[1]
        job = call, np.zeros(1, np.int64), coefficients, out, states, kept
        if call.n_threads == 1:
            _contract(job, first=True)
        else:
            _contract((call, np.full(1, call.n_chunks), *job[2:]), first=True)  # with nothing left to contract
            run_on_threads(_contract, job, call.n_threads)
    else:
        _on_threads(_run, call, out, states, kept)
    return Results(call.tensor(out)), Saved(call, states, kept, coefficients)


def _on_threads(function: Any, call: _Call, *arguments: Any) -> None:
    job = call, np.zeros(1, np.int64), *arguments
    run_on_threads(function, job, min(call.n_threads, max(1, call.n_chunks)))


def _run(job: tuple[Any, ...]) -> None:
    call, next_chunk, out, states, kept = job
    plan = call.plan
    work = buffer(plan.work(call.size, plan.n_runs) * call.width, call.dtype)
    words.forward(
        *(next_chunk, plan.arrays, plan.n_qubits, plan.n_runs, plan.n_scratch, call.batched, call.shared, call.parts),
        *(out, states, kept, work),
    )


def _contract(job: tuple[Any, ...], first: bool = False) -> None:
    call, next_chunk, coefficients, out, states, kept = job
    plan = call.plan
    work = buffer(plan.work(call.size if first else plan.n_products, plan.n_runs) * call.width, call.dtype)
    words.contract(
        *(next_chunk, first, plan.arrays, plan.n_qubits, plan.n_runs, plan.n_scratch, call.batched),
        *(call.shared, coefficients, out, states, kept, work),
    )


def _samples_back(saved: Saved, grad: np.ndarray, of_amplitudes: bool) -> tuple[np.ndarray, ...]:
    call = saved.call
    g_batched, g_shared = np.empty_like(call.batched), np.empty((call.n_chunks, len(call.shared)))
    g_amps = np.empty_like(call.parts) if of_amplitudes else NO_AMPLITUDES[call.dtype]
    _on_threads(_back, call, grad, saved.states, saved.kept, g_batched, g_shared, g_amps)
    return g_batched, g_shared.sum(0).astype(call.dtype), g_amps


def _back(job: tuple[Any, ...]) -> None:
    call, next_chunk, grad, states, kept, g_batched, g_shared, g_amps = job
    plan = call.plan
    again = 0 if call.keeps else plan.n_kept * call.size
    n_work = (plan.work(call.size, plan.n_runs) + again) * call.width
    work = buffer(n_work, call.dtype)[:n_work]
    words.backward(
        *(next_chunk, plan.arrays, plan.n_qubits, plan.n_runs, plan.n_scratch, plan.n_kept, call.batched, call.shared),
        *(call.parts, grad, states, kept, work, g_batched, g_shared, g_amps),
    )


def _words_back(saved: Saved, grad: np.ndarray, of_amplitudes: bool) -> tuple[np.ndarray, ...]:
    call, coefficients = saved.call, saved.coefficients
    assert coefficients is not None
    dtype = call.dtype
    n_tasks = max(1, -(-call.n_chunks // CHUNKS_OF_TASK))
    g_batched, g_shared = np.empty_like(call.batched), np.empty((call.n_chunks + 1, len(call.shared)))
    g_coefficients, total = np.empty((n_tasks, *coefficients.shape), dtype), np.empty(len(call.shared), dtype)
    job = saved, np.zeros(1, np.int64), grad, g_coefficients, g_batched, g_shared, total
    if call.n_threads > 1:
        run_on_threads(_contract_back, job, call.n_threads)
    _contract_back(job, last=True)
    return g_batched, total, NO_AMPLITUDES[dtype]


def _contract_back(job: tuple[Any, ...], last: bool = False) -> None:
    saved, next_task, grad, *gradients = job
    call, coefficients, plan = saved.call, saved.coefficients, saved.call.plan
    n_work = (plan.work(call.size if last else plan.n_products, plan.n_runs) + coefficients.size) * call.width
    work = buffer(n_work, call.dtype)[:n_work]
    words.contract_back(
        *(next_task, last, plan.arrays, plan.n_qubits, plan.n_runs, plan.n_scratch, CHUNKS_OF_TASK, call.batched),
        *(call.shared, coefficients, grad, saved.states, saved.kept, work, *gradients),
    )


def _plan(program: Program, n_batched: int, dtype: np.dtype, by_words: bool) -> Plan:
    """The compiled program, from the cache where it is there."""
    key = program, n_batched, dtype, by_words
    with _LOCK:
        plan = _PLANS.get(key)
        if plan is None:
            narrow = program.narrowed()
            n_bytes = 4 * dtype.itemsize * LANES[dtype]
            what = f"{narrow.n_qubits} qubits with noise"
            check_memory(what, n_bytes, 2 * narrow.n_qubits, instead=SAMPLED)
            plan = _PLANS[key] = compile_program(narrow, n_batched, dtype, by_words=by_words)
            if len(_PLANS) > _MAX_PLANS:
                _PLANS.popitem(last=False)
        _PLANS.move_to_end(key)
    return plan

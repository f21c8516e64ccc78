"""The native executor: circuits compiled to passes over vector registers, forward and backward."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Program
from qbp.errors import check_shape
from qbp.executors import Capabilities, Gradients, Results
from qbp.executors.native import batch, single
from qbp.executors.native.arguments import NO_AMPLITUDES, Arguments, as_array, check_angles
from qbp.executors.native.kernels.jit import wait_for_compiler
from qbp.executors.native.kernels.simd import LANES
from qbp.executors.native.memory import empty
from qbp.executors.native.plan import Plan, compile_program
from qbp.executors.native.ways import way_of
from qbp.executors.native.windows import NARROW, Windows
from qbp.limits import check_memory, physical_memory

if TYPE_CHECKING:
    from qbp.executors.pauli import Pauli
    from qbp.executors.propagation import PauliPropagation

__all__ = ["Native", "compile_backward", "lanes_are_amplitudes"]

SAVE_LIMIT = 2**30
"""Final states up to this many bytes are kept for the backward pass; beyond, they are computed again, part by part."""

THREADS_FROM = 100_000
"""Registers of amplitudes times items of a call from which on several threads are worth it (0.2 ms)."""

CHUNK_LIMIT = 2**24
"""Bytes of psi and lambda of a register of samples that are more than caches hold."""

_MAX_PLANS = 128
_PLANS: OrderedDict[tuple[Program, int, int], Plan] = OrderedDict()
_SIZES: dict[tuple[Any, ...], _Size] = {}
_LOCK = threading.Lock()


class Saved(NamedTuple):
    """What the forward pass leaves to the backward pass: the call, what all samples share, and the final states (or
    none)."""

    call: _Call
    common: tuple[np.ndarray, ...]
    states: np.ndarray | None


class Native:
    """Exact expectation values, probabilities and their adjoint gradients, on the CPU, in the dtype of the angles.

    Either a vector register holds one amplitude of as many samples as it has lanes, or some amplitudes of one sample:
    see `lanes_are_amplitudes`. Memory: ``2 * 2^N * B`` numbers for the final states while training (at most
    `SAVE_LIMIT` bytes), and for each thread ``4 * 2^N`` for each of the samples that it has at work.
    Circuits with noise go to `qbp.executors.pauli`, wide and shallow ones to `windows`: see `engine`.
    """

    name = "native"
    shots = None
    capabilities = Capabilities(
        adjoint=True,
        any_shape=True,  # autograd need not flatten weights
        channels=True,
        engines=True,
    )

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles."""
        engine = self.engine(program)
        if engine is not self:
            return engine(program, angles, amplitudes)
        return _forward(_Call(program, angles, amplitudes), keep=False)[0]

    def engine(self, program: Program) -> Any:
        """What runs a program: this engine, or the one for noise, or the one for circuits whose outputs see little."""
        if program.n_qubits <= NARROW and not program.is_noisy:
            return self
        way = way_of(program)
        if way == "windows":
            return Windows(self)
        return self if way == "native" else _noisy() if way == "pauli" else _by_words()

    def has_adjoint(self, program: Program) -> bool:
        """It has the adjoint rule for every program."""
        return True

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        engine = self.engine(program)
        if engine is not self:
            return engine.forward(program, angles, amplitudes)
        call = _Call(program, angles, amplitudes)
        return _forward(call, keep=call.n_chunks * call.chunk_bytes <= SAVE_LIMIT)

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
        if not isinstance(saved, Saved):
            return self.engine(program).vjp(program, angles, amplitudes, saved, grad, needs)
        array, shape = as_array(grad, saved.call.dtype), (len(saved.call.batched), program.n_outputs)
        if array.shape != shape:
            check_shape("grad", array.shape, shape)
        return _backward(saved, array, needs)

    def frame_states(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        """The final states (B, 2^N), complex, in a basis that all samples of one call share.

        That is: without the circuit's Clifford gates (`frame`), and wherever the kernels put the amplitudes. So
        overlaps between samples are those of the states themselves; amplitudes, and overlaps between calls, are not.
        """
        everything = tuple(Expval.word(p, w) for w in range(program.n_qubits) for p in "XZ")  # no rotation is left out
        call = _Call(replace(program, measurements=everything), angles, amplitudes, of_samples=True)
        saved = _forward(call, keep=True)[1]
        assert saved.states is not None
        size = 1 << program.n_qubits
        lanes = saved.states.reshape(call.n_chunks, size, 2, call.width).transpose(0, 3, 1, 2)
        states = np.ascontiguousarray(lanes).reshape(-1, size, 2)[: len(call.batched)]
        states *= batch.norm(saved.common)
        return call.tensor(states.view(np.result_type(call.dtype, np.complex64))[..., 0])


@cache
def _noisy() -> Pauli:
    """What runs circuits with noise."""
    from qbp.executors.pauli import Pauli

    return Pauli()


@cache
def _by_words() -> PauliPropagation:
    """What carries words back: as many as there are, which was asked before."""
    from qbp.executors.propagation import PauliPropagation

    return PauliPropagation(max_words=None)


def lanes_are_amplitudes(n_qubits: int, n_samples: int, dtype: np.dtype) -> bool:
    """Whether the lanes of a register are some amplitudes of one sample, rather than one of each of several samples.

    By a measured rule (`benchmarks/choices.py`): a sample alone takes at most ``(1.5 + 5 * 2^(-3 (n - 4) / 4)) / W`` as
    long as a chunk of W samples, with n the qubits that are not lanes. It may take a quarter more where there are few
    chunks and much to do: threads can only share the work on one state. A chunk that no cache holds is slower. How many
    threads there are does not count, since the two layouts round differently.
    """
    width = LANES[dtype]
    free = n_qubits - (width.bit_length() - 1)
    if free < 6:
        return False
    if 4 * width * dtype.itemsize << n_qubits >= CHUNK_LIMIT:
        return True
    alone = (1.5 + 5 * 2 ** (-0.75 * (free - 4))) / width
    chunks = -(-n_samples // width)
    return n_samples * alone < chunks * (1.25 if chunks < 4 and n_samples << free >= 2**14 else 1)


class _Size(NamedTuple):
    """What the sizes of a call decide.

    Attributes:
        layout: the module `batch` or `single`.
        width: samples in a chunk.
        chunk_bytes: of psi.
    """

    plan: Plan
    layout: Any
    width: int
    n_chunks: int
    chunk_bytes: int
    n_threads: int


def _size(program: Program, batched: np.ndarray, shared: np.ndarray, parts: np.ndarray, of_samples: bool) -> _Size:
    """See `_Size`; also checks the sizes, and that there is memory for them, before anything is made."""
    check_angles(program, batched, shared)
    n_samples, n_qubits, lanes = len(batched), program.n_qubits, LANES[batched.dtype]
    most, what = physical_memory(), f"{n_qubits} qubits and a batch of {n_samples} in {batched.dtype}"
    check_memory(what, 6 * batched.itemsize, n_qubits, most)  # a state, and two at work: all that follows fits numbers
    alone = not of_samples and lanes_are_amplitudes(n_qubits, n_samples, batched.dtype)
    width = 1 if alone else lanes
    n_chunks, chunk_bytes = -(-n_samples // width), 2 * width * batched.itemsize << n_qubits
    fixed = 2 * program.n_outputs * n_samples * batched.itemsize + 2 * parts.nbytes
    fixed += min(n_chunks * chunk_bytes, max(SAVE_LIMIT, chunk_bytes))
    each = 2 * chunk_bytes + width * program.n_outputs * batched.itemsize  # of a thread
    check_memory(f"{program.n_outputs} outputs of {what}", fixed + each, most=most)
    plan = _plan(program, 0, lanes.bit_length() - 1) if alone else _plan(program, batched.shape[1], 0)
    n_threads = max(1, min(torch.get_num_threads(), (most - fixed) // (2 * each)))
    if (n_chunks * chunk_bytes >> 7) * (8 + plan.n_items) < THREADS_FROM:
        n_threads = 1
    return _Size(plan, single if alone else batch, width, n_chunks, chunk_bytes, n_threads)


class _Call(Arguments):
    """A call, and what its sizes decide."""

    def __init__(self, program: Program, angles: Angles, amplitudes: Tensor | None, of_samples: bool = False):
        super().__init__(program, angles, amplitudes)
        batched, shared, parts = self.inputs = self.batched, self.shared, self.parts
        rules = torch.get_num_threads(), THREADS_FROM, lanes_are_amplitudes  # whoever sets another one gets it
        key = program, batched.itemsize, batched.shape, shared.shape, parts.shape, of_samples, rules
        size = _SIZES.get(key)
        if size is None:
            if len(_SIZES) >= _MAX_PLANS:
                _SIZES.clear()
            size = _SIZES[key] = _size(program, batched, shared, parts, of_samples)
        self.plan, self.layout, self.width, self.n_chunks, self.chunk_bytes, self.n_threads = size


def _forward(call: _Call, keep: bool) -> tuple[Results, Saved]:
    out = np.empty((len(call.batched), call.plan.n_outputs), call.dtype)
    final = empty(call.n_chunks * call.chunk_bytes // call.dtype.itemsize, call.dtype) if keep else None
    common = call.layout.forward(call.plan, call.inputs, out, final, call.n_threads)
    return Results(call.tensor(out)), Saved(call, common, final)


def _backward(saved: Saved, grad: np.ndarray, needs: tuple[bool, bool, bool]) -> Gradients:
    call = saved.call
    plan, dtype, width, n_samples = call.plan, call.dtype, call.width, len(call.batched)
    g_batched, g_shared = np.empty_like(call.batched), np.empty((call.n_chunks, len(call.shared)))
    total = np.zeros(len(call.shared), dtype)  # as it is without a sample
    g_amps = np.empty_like(call.parts) if needs[2] else NO_AMPLITUDES[dtype]

    wait_for_compiler()
    if saved.states is not None:
        grads = grad, g_batched, g_shared, total, g_amps
        call.layout.backward(plan, saved.common, call.inputs, grads, saved.states, call.n_threads)
    else:
        step = width * max(1, SAVE_LIMIT // call.chunk_bytes)
        final = empty(min(step // width, call.n_chunks) * call.chunk_bytes // dtype.itemsize, dtype)
        for first in range(0, n_samples, step):
            rows = slice(first, min(first + step, n_samples))
            chunks = slice(first // width, -(-rows.stop // width))
            inputs = call.batched[rows], call.shared, call.parts[rows]
            grads = grad[rows], g_batched[rows], g_shared[chunks], total, g_amps[rows]
            out = np.empty((rows.stop - first, plan.n_outputs), dtype)
            call.layout.forward(plan, inputs, out, final, call.n_threads)
            call.layout.backward(plan, saved.common, inputs, grads, final, call.n_threads)
        single.add_up(g_shared, total)
    return Gradients(
        call.tensor(g_batched) if needs[0] else None,
        call.tensor(total.reshape(call.shape)) if needs[1] else None,
        call.amplitude_gradient(g_amps) if needs[2] else None,
    )


def compile_backward(module: str, dtype: str) -> None:
    """Compile the backward kernel of `kernels.batch` or `kernels.single` without the forward one; leave it on disk."""
    n_qubits = 1 if module == "batch" else 10
    nothing = Angles(*(torch.zeros(shape, dtype=getattr(torch, dtype)) for shape in ((1, 0), (0,))))
    call = _Call(Program(n_qubits, (), (Expval.word("Z", 0),), 0), nothing, None)
    states = np.zeros(call.n_chunks * call.chunk_bytes // call.dtype.itemsize, call.dtype)
    common = call.layout.empty_common(call.plan, call.dtype)
    _backward(Saved(call, common, states), np.zeros((1, 1), call.dtype), (True, True, False))


def _plan(program: Program, n_batched: int, bits: int) -> Plan:
    """The compiled program, from the cache where it is there."""
    key = program, n_batched, bits
    with _LOCK:
        plan = _PLANS.get(key)
        if plan is None:
            plan = _PLANS[key] = compile_program(program, n_batched, bits)
            if len(_PLANS) > _MAX_PLANS:
                _PLANS.popitem(last=False)
        _PLANS.move_to_end(key)
    return plan

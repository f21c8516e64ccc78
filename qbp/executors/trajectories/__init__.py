"""Trajectories: noise sampled, for circuits too wide to carry it exactly, on the native engine, with adjoint gradients.

Each sample runs several times, each time with random errors, all at once in the lanes of the native kernels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.circuit.readout import confused
from qbp.errors import ArgumentError, check_shape
from qbp.executors import Capabilities, Draws, Gradients, Results
from qbp.executors.native.arguments import NO_AMPLITUDES, Arguments, as_array, check_angles
from qbp.executors.native.kernels.simd import LANES
from qbp.executors.native.memory import buffer, given_back, lent
from qbp.executors.native.threads import run_on_threads
from qbp.executors.trajectories.draws import Lanes, draw
from qbp.executors.trajectories.frame import Noisy, noisy
from qbp.executors.trajectories.kernels import lanes as lane_kernels
from qbp.limits import check_memory, physical_memory

__all__ = ["Trajectories"]

N_TRAJECTORIES = 16

SAVE_LIMIT = 2**30
"""Final states up to this many bytes are kept for the backward pass; beyond, they are computed again, part by part."""

MOST_WEIGHT = 30.0
"""By how much signed weights may make standard errors larger than Pauli errors alone would."""


class Trajectories:
    """Unbiased outputs of circuits with noise, with standard errors, and adjoint gradients, on the CPU.

    See docs/noise_engine.md. Memory: as of `qbp.executors.native.Native` for `n_trajectories` times as many samples.

    Args:
        n_trajectories: how often each sample is run: with random errors, but once without any where that is likely, and
            has its probability for its weight.
        seed: of the random errors.
        generator: what they are drawn from in the place of a seed; None for torch's global random state.

    Raises:
        ArgumentError: if there are fewer than 3 trajectories, or both a seed and a generator.

    Example:
        >>> import qbp
        >>> noise = qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.01}})
        >>> layer = qbp.QuantumLayer("basic_entangler", n_qubits=12, n_layers=2, noise=noise, backend="trajectories:64")
        >>> layer(torch.zeros(3, 12)).shape, layer.last_stds.shape
        (torch.Size([3, 12]), torch.Size([3, 12]))
    """

    shots = None
    capabilities = Capabilities(exact=False, adjoint=True, standard_errors=True, channels=True)

    def __init__(
        self,
        n_trajectories: int = N_TRAJECTORIES,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ):
        if not isinstance(n_trajectories, int) or isinstance(n_trajectories, bool) or n_trajectories < 3:
            raise ArgumentError(f"Argument `n_trajectories` must be an integer from 3 on, but is {n_trajectories!r}")
        if seed is not None and generator is not None:
            raise ArgumentError("Give `seed` or `generator`, not both")
        self.n_trajectories = n_trajectories
        self.generator = torch.Generator().manual_seed(seed) if seed is not None else generator
        self.name = "trajectories" + (f":{n_trajectories}" if n_trajectories != N_TRAJECTORIES else "")

    def has_adjoint(self, program: Program) -> bool:
        """It has the adjoint rule for every program."""
        return True

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles, and their standard errors."""
        return self._run(program, angles, amplitudes, keep=False)[0]

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M) and their standard errors, and what `vjp` wants to find again."""
        return self._run(program, angles, amplitudes, keep=True)

    def _run(
        self, program: Program, angles: Angles, amplitudes: Tensor | None, keep: bool
    ) -> tuple[Results, _Job | None]:
        call = _Call(program, angles, amplitudes)
        seed = int(torch.randint(2**62, (), generator=self.generator))
        lanes = draw(call.noisy.errors, len(call.batched), self.n_trajectories, seed, call.dtype)
        _check_memory(call, lanes)
        job = _Job(call, lanes)
        measured = job.forward(keep)
        outputs = call.outputs(measured, lanes.signs)
        each = lanes.weights[:, None] * outputs
        job.control(measured, outputs)
        if job.reference is not None:  # what is left where a lane's norm is its only difference is 0
            each -= (lanes.weights * job.norms)[:, None] * job.reference[lanes.rows]
        drawn = lanes.counts[:, None] * each  # 0 of those without errors
        n_rows = len(call.batched)
        means = _by_rows(lanes, drawn, n_rows) / lanes.n
        squares = _by_rows(lanes, drawn * each, n_rows) / lanes.n
        stds = np.sqrt(np.maximum(squares - means**2, 0) / (lanes.n - 1))
        if job.reference is not None:
            values = means + job.reference
        else:
            values = _by_rows(lanes, lanes.shares[:, None] * outputs, n_rows)
        constants = call.noisy.outputs.constants
        values += constants * (call.parts**2).sum((1, 2))[:, None] if call.parts.size else constants
        results = Results(call.tensor(values.astype(call.dtype)), call.tensor(stds.astype(call.dtype)))
        return results, job if keep else None

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)`` of the trajectories that `forward` drew; see `AdjointExecutor`."""
        call, lanes = saved.call, saved.lanes
        array, shape = as_array(grad, call.dtype), (len(call.batched), program.n_outputs)
        if array.shape != shape:
            check_shape("grad", array.shape, shape)
        of_lanes = array[lanes.rows] * lanes.shares[:, None]
        if saved.reference is not None:
            of_lanes[lanes.counts == 0] = array
        of_words = call.outputs_back(of_lanes, lanes.signs)
        if saved.reference is not None:
            seen = (array * saved.reference).sum(1)[lanes.rows]
            of_words[:, call.noisy.outputs.n_words - 1] = np.where(lanes.counts > 0, -lanes.shares * seen, 0)
        each, g_amps = saved.backward(of_words, needs[2])
        if saved.reference is not None:
            drawn = lanes.counts > 0
            each[drawn] -= (lanes.shares * saved.norms)[drawn, None] * each[~drawn][lanes.rows[drawn]]
        g_batched, g_shared = each[:, : call.batched.shape[1]], each[:, call.batched.shape[1] :]
        draws = Draws(call.tensor(each), torch.from_numpy(lanes.rows), torch.from_numpy(lanes.counts), lanes.n)

        def summed(values: np.ndarray) -> np.ndarray:
            return _by_rows(lanes, values, shape[0]).astype(call.dtype)

        g_parts = summed(g_amps) if needs[2] else NO_AMPLITUDES[call.dtype]
        if needs[2] and call.parts.size:
            g_parts += (2 * array @ call.noisy.outputs.constants).astype(call.dtype)[:, None, None] * call.parts
        of_shared = g_shared.sum(0, dtype=np.float64).astype(call.dtype).reshape(call.shape)
        return Gradients(
            call.tensor(summed(g_batched)) if needs[0] else None,
            call.tensor(of_shared) if needs[1] else None,
            call.amplitude_gradient(g_parts) if needs[2] else None,
            (draws,),
        )


def _by_rows(lanes: Lanes, values: np.ndarray, n_rows: int) -> np.ndarray:
    """Sums over the lanes of each row, in their order, in float64."""
    order = np.argsort(lanes.rows, kind="stable")
    total = np.zeros((n_rows, *values.shape[1:]))
    if len(order):
        begins = np.flatnonzero(np.diff(lanes.rows[order], prepend=-1))
        total[lanes.rows[order[begins]]] = np.add.reduceat(values[order].astype(float), begins, axis=0)
    return total


@lru_cache(maxsize=64)
def _narrowed(program: Program) -> Program:
    """Without the wires that nothing sees."""
    return program.narrowed()


class _Call(Arguments):
    """A call, and its program compiled."""

    def __init__(self, program: Program, angles: Angles, amplitudes: Tensor | None):
        super().__init__(program, angles, amplitudes)
        check_angles(program, self.batched, self.shared)
        self.program = program
        narrow = _narrowed(program)
        what = f"{narrow.n_qubits} qubits with noise as trajectories in {self.dtype}"
        check_memory(what, 6 * self.dtype.itemsize * LANES[self.dtype], narrow.n_qubits)
        self.noisy: Noisy = noisy(narrow, self.batched.shape[1])
        weight = self.noisy.errors.weight
        if weight > MOST_WEIGHT:
            raise ArgumentError(
                "Argument `backend` must be exact for this noise ('pauli'): as trajectories its standard errors would "
                f"be {weight:.3g} times those of Pauli errors, since what it is besides is too strong or too frequent; "
                f"as Pauli errors alone it would be wrong by up to {min(2.0, self.noisy.errors.twirled):.2g}"
            )

    def outputs(self, measured: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """Outputs (L, M) of what was measured (L, words and probabilities), without constants."""
        how = self.noisy.outputs
        n_words, n_marks = len(how.columns), self.noisy.n_marks
        values = np.zeros((len(measured), len(how.constants)))
        if n_words:
            terms = signs[:, n_marks : n_marks + n_words] * how.coefficients * measured[:, :n_words]
            begins = np.flatnonzero(np.diff(how.columns, prepend=-1))
            values[:, how.columns[begins]] = np.add.reduceat(terms, begins, axis=1)
        for first, size, outcomes in self._outcomes(signs):
            at = how.n_words + first[1]
            values[:, first[0] : first[0] + size] = np.take_along_axis(measured[:, at : at + size], outcomes, 1)
        return confused(self.program, values) if how.probs else values

    def outputs_back(self, grad: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """From gradients of outputs (L, M) to those of what was measured."""
        how = self.noisy.outputs
        n_words, n_marks = len(how.columns), self.noisy.n_marks
        grad = confused(self.program, grad, back=True) if how.probs else grad
        result = np.zeros((len(grad), self.noisy.plan.n_outputs), self.dtype)
        if n_words:
            of_words = signs[:, n_marks : n_marks + n_words]
            result[:, :n_words] = of_words * how.coefficients * grad[:, how.columns]
        for first, size, outcomes in self._outcomes(signs):
            at = how.n_words + first[1]
            result[:, at : at + size] = np.take_along_axis(grad[:, first[0] : first[0] + size], outcomes, 1)
        return result

    def _outcomes(self, signs: np.ndarray) -> list[tuple[tuple[int, int], int, np.ndarray]]:
        """Of probabilities: their first column in the outputs and among those measured, how many they are, and which
        outcome (L, size) each of them was measured as."""
        rows, bit, at = [], self.noisy.n_marks + self.noisy.outputs.n_words, 0
        for column, n_wires in self.noisy.outputs.probs:
            flipped = signs[:, bit : bit + n_wires] < 0
            mask = flipped @ (1 << np.arange(n_wires)[::-1])
            rows.append(((column, at), 1 << n_wires, np.arange(1 << n_wires) ^ mask[:, None]))
            bit, at = bit + n_wires, at + (1 << n_wires)
        return rows


def _check_memory(call: _Call, lanes: Lanes) -> None:
    """Raise `ArgumentError` if the trajectories do not fit."""
    chunk = 2 * LANES[call.dtype] * call.dtype.itemsize << call.noisy.plan.n_qubits
    n_lanes, n_angles = len(lanes.rows), call.noisy.plan.program.n_angles
    numbers = n_lanes * (2 * call.noisy.plan.n_outputs + n_angles + 2 * int(np.prod(call.parts.shape[1:])))
    what = f"{call.noisy.plan.n_qubits} qubits with noise and {n_lanes} trajectories in {call.dtype}"
    check_memory(what, 4 * chunk + 2 * numbers * call.dtype.itemsize)


class _Job:
    """The lanes of one call on the kernels."""

    def __init__(self, call: _Call, lanes: Lanes):
        self.call, self.lanes = call, lanes
        plan, width = call.noisy.plan, LANES[call.dtype]
        self.width, self.n_chunks = width, -(-len(lanes.rows) // width)
        self.chunk = 2 * width << plan.n_qubits
        self.kept: tuple[Any, ...] | None = None
        self.reference: np.ndarray | None = None
        self.norms = np.ones(0)
        most = physical_memory()
        self.n_threads = max(1, min(torch.get_num_threads(), most // (4 * self.chunk * call.dtype.itemsize)))

    def control(self, measured: np.ndarray, outputs: np.ndarray) -> None:
        """Where trajectories differ in their norms, whose mean is known: the norms (L,), and the outputs without errors
        (B, M), so many of which are taken from each trajectory."""
        how, alone = self.call.noisy.outputs, self.lanes.counts == 0
        if how.n_words > len(how.columns) and alone.any():
            self.norms, self.reference = measured[:, how.n_words - 1].astype(float), outputs[alone]

    def forward(self, keep: bool) -> np.ndarray:
        """What is measured in each lane (L, words and probabilities)."""
        out = np.empty((len(self.lanes.rows), self.call.noisy.plan.n_outputs), self.call.dtype)
        n_bytes = (self.n_chunks + self.lanes.n_kept) * self.chunk * self.call.dtype.itemsize
        keep = keep and n_bytes <= SAVE_LIMIT
        kept = self._forward(self.lanes, out, keep)
        self.kept = kept if keep else None
        return out

    def backward(self, grad: np.ndarray, of_amplitudes: bool) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of all angles of each lane (L, K), and of its amplitudes."""
        call, lanes = self.call, self.lanes
        n_lanes = len(lanes.rows)
        gradients = np.empty((call.noisy.plan.program.n_angles, n_lanes), call.dtype)
        g_amps = np.empty((n_lanes, *call.parts.shape[1:]), call.dtype) if of_amplitudes else NO_AMPLITUDES[call.dtype]
        if self.kept is not None:
            self._backward(lanes, grad, gradients, g_amps, self.kept)
            self.kept = None  # whoever goes back a second time runs forward a second time
            return np.ascontiguousarray(gradients.T), g_amps
        per_chunk = (1 + lanes.n_kept / max(1, self.n_chunks)) * self.chunk * call.dtype.itemsize
        step = max(1, int(SAVE_LIMIT // per_chunk))
        for first in range(0, self.n_chunks, step):
            last = min(first + step, self.n_chunks)
            some, part = slice(first * self.width, last * self.width), lanes.part(first, last, self.width)
            kept = self._forward(part, np.empty((len(part.rows), grad.shape[1]), call.dtype), True)
            of_part = np.empty((len(gradients), len(part.rows)), call.dtype)
            self._backward(part, grad[some], of_part, g_amps[some], kept)
            gradients[:, some] = of_part
        return np.ascontiguousarray(gradients.T), g_amps

    def _arguments(self, lanes: Lanes) -> tuple[np.ndarray, ...]:
        """Batched angles, amplitudes and signs of lanes."""
        call = self.call
        signs = np.ascontiguousarray(lanes.signs.T[call.noisy.plan.marks])
        amplitudes = call.parts[lanes.rows] if call.parts.size else call.parts
        return call.batched[lanes.rows], amplitudes, signs

    def _forward(self, lanes: Lanes, out: np.ndarray, keep: bool) -> tuple[Any, ...]:
        call = self.call
        plan, dtype, n_chunks = call.noisy.plan, call.dtype, -(-len(lanes.rows) // self.width)
        n_states = n_chunks * self.chunk if keep else 0
        memory = lent(n_states + (lanes.n_kept * self.chunk if keep else 0), dtype)
        states, kept = memory[:n_states], memory[n_states:]
        batched, amplitudes, signs = self._arguments(lanes)
        common = _empty_common(plan, dtype)
        unused, next_chunk = [common], np.zeros(1, np.int64)
        n_work = (plan.work(2) + 3) * self.width

        def work(_: None) -> None:
            try:
                mine = unused.pop()
            except IndexError:  # threads find the same numbers, each for itself
                mine = _empty_common(plan, dtype)
            scratch = buffer(n_work + (0 if keep else self.chunk), dtype)
            lane_kernels.forward(
                *(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, *mine, call.shared, batched, amplitudes, signs),
                *(lanes.events_at, lanes.event_rows, lanes.event_numbers, out),
                *(states if keep else scratch[n_work:], keep, kept, scratch),
            )

        run_on_threads(work, None, min(self.n_threads, max(1, n_chunks)))
        return common, batched, signs, memory

    def _backward(
        self, lanes: Lanes, grad: np.ndarray, gradients: np.ndarray, g_amps: np.ndarray, saved: tuple[Any, ...]
    ) -> None:
        plan, dtype = self.call.noisy.plan, self.call.dtype
        common, batched, signs, memory = saved
        n_states = -(-len(lanes.rows) // self.width) * self.chunk
        states, kept = memory[:n_states], memory[n_states:]
        next_chunk = np.zeros(1, np.int64)

        def work(_: None) -> None:
            scratch = buffer((plan.work(3) + 3) * self.width + 2 * self.chunk, dtype)
            lane_kernels.backward(
                *(next_chunk, plan.n_qubits, plan.n_span, plan.arrays, *common, batched, signs),
                *(lanes.events_at, lanes.event_rows, lanes.event_numbers),
                *(grad, gradients, g_amps, states, kept, scratch),
            )

        run_on_threads(work, None, min(self.n_threads, max(1, -(-len(lanes.rows) // self.width))))
        given_back(memory)


def _empty_common(plan: Any, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    from qbp.executors.native.batch import empty_common

    numbers, flip = empty_common(plan, dtype)
    return numbers, flip

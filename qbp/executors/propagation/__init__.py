"""The executor `pauli-propagation`: measured words carried back through the circuit, whatever its number of qubits."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.errors import ArgumentError, check_choice, check_count, check_positive, check_shape
from qbp.executors import Capabilities, Gradients, Results
from qbp.executors.native.arguments import Arguments, as_array, check_angles
from qbp.executors.native.kernels.simd import LANES
from qbp.executors.native.memory import buffer, empty
from qbp.executors.native.threads import run_on_threads
from qbp.executors.propagation.error import measured_error, norms_of
from qbp.executors.propagation.kernels import values
from qbp.executors.propagation.kernels.conventions import KEEP_ALL, Cut, Graph
from qbp.executors.propagation.unrolling import Unrolled, unrolled
from qbp.executors.propagation.words import Prepared, Words, count_steps, count_words, prepared, turns_of, words_of
from qbp.limits import check_memory, physical_memory

__all__ = ["MAX_WORDS", "PauliPropagation"]

MAX_WORDS = 1_000_000
"""Values of words that a circuit may have, unless `max_words` says otherwise."""

SAVE_LIMIT = 2**30
"""Bytes of values that are kept for the way back; beyond, they are computed again."""

THREADS_FROM = 20_000
"""Registers of values of a call from which on several threads are worth it."""

MEASURE_EVERY = 50
"""Training steps after which the error of a cut is measured again."""

CHUNKS_OF_TASK = 16
"""Registers of samples whose gradients are added up by one thread."""

_OPTIONS: dict[str, Any] = {"max_words": int, "min_coefficient": float, "max_sines": int, "max_weight": int}
_MAX_WORDS_KEPT = 32
_WORDS: OrderedDict[tuple[Any, ...], Words] = OrderedDict()
_LOCK = threading.Lock()


class _Measured(NamedTuple):
    """The error of outputs of norm 1, the shared angles at which it was measured, and how many calls with others there
    were since."""

    at: bytes
    age: int
    error: float


class Saved(NamedTuple):
    """What the forward pass leaves to the backward pass: the call, what outputs have of each node, values of words."""

    call: _Call
    shares: np.ndarray
    coefficients: np.ndarray
    states: np.ndarray


class PauliPropagation:
    """Expectation values of Pauli words, carried back from the measurement, and their adjoint gradients.

    The cost is that of the words that an output becomes, whatever the number of qubits: few where circuits are shallow.
    Behind the last angle that differs between samples it is done once for each call, whatever the batch; see
    docs/width.md. Circuits that start from amplitudes are refused, and probabilities of more than six wires.

    With one of the three cuts outputs are approximate, and gradients those of the approximation. How far they may be
    off is measured (`Results.truncation`): when outputs are wanted, for the angles that they have; while training at
    first and again every `MEASURE_EVERY` steps.

    Args:
        max_words: values of words that a circuit may have; one with more is refused before it runs. None: any number.
        min_coefficient: words with a smaller coefficient are left out where they arise; cosines and sines of angles
            that differ between samples count as 1 for it.
        max_sines: those with more factors sin of an angle are left out (arXiv 2308.09109).
        max_weight: those with letters on more wires, in the circuit as it is written (arXiv 2409.01706).

    Example:
        >>> import qbp
        >>> layer = qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=1, backend="pauli-propagation")
        >>> layer(torch.zeros(2, 4)).shape
        torch.Size([2, 4])
    """

    shots = None

    def __init__(
        self,
        *,
        max_words: int | None = MAX_WORDS,
        min_coefficient: float = 0.0,
        max_sines: int | None = None,
        max_weight: int | None = None,
    ):
        if max_words is not None:
            check_count("max_words", max_words)
        check_positive("min_coefficient", min_coefficient, zero=True)
        cuts = {"max_sines": max_sines, "max_weight": max_weight}
        for name, value in cuts.items():
            if value is not None:
                check_count(name, value, least=0)
        self._max_words = sys.maxsize if max_words is None else max_words
        weight, sines = (-1 if value is None else int(value) for value in (max_weight, max_sines))
        self._cut = Cut(float(min_coefficient), weight, sines, False)
        self._cuts = self._cut != KEEP_ALL
        said = {"min_coefficient": min_coefficient or None} | cuts | {"max_words": max_words}
        told = [f"{k}={v}" for k, v in said.items() if v is not None and (k, v) != ("max_words", MAX_WORDS)]
        self.name = "pauli-propagation" + (":" + ",".join(told) if told else "")
        self._measured: OrderedDict[tuple[Program, int], _Measured] = OrderedDict()

    @staticmethod
    def named(options: str) -> PauliPropagation:
        """The executor that a name stands for, as in "pauli-propagation:max_weight=6,min_coefficient=1e-4".

        Raises:
            ArgumentError: it has no such option, or the option cannot have this value.
        """
        values: dict[str, Any] = {}
        for option in options.split(",") if options else []:
            key, _, value = option.partition("=")
            check_choice("backend", key, _OPTIONS)
            try:
                values[key] = _OPTIONS[key](value)
            except ValueError:
                raise ArgumentError(f"Argument `backend` must give `{key}` a number, but has {option!r}") from None
        return PauliPropagation(**values)

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return Capabilities(exact=not self._cuts, adjoint=True, any_shape=True, channels=True, truncation=self._cuts)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles."""
        results, saved = _forward(self._call(program, angles, amplitudes), keep=False)
        return self._with_error(program, results, saved, 1)

    def has_adjoint(self, program: Program) -> bool:
        """It has the adjoint rule for every program."""
        return True

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        results, saved = _forward(self._call(program, angles, amplitudes), keep=True)
        return self._with_error(program, results, saved, MEASURE_EVERY), saved

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
        check_shape("grad", grad.shape, (angles.n_samples, program.n_outputs))
        batched, shared = _backward(saved, as_array(grad, saved.call.dtype))
        call = saved.call
        return Gradients(
            call.tensor(batched) if needs[0] else None,
            call.tensor(shared.astype(call.dtype).reshape(call.shape)) if needs[1] else None,
        )

    def words(self, program: Program, n_batched: int, shared: np.ndarray | None = None) -> Words:
        """The words of a program.

        Args:
            program: the program.
            n_batched: Kb, how many of its angles, the first, differ between samples.
            shared: (Ks,) the others, by which words are cut where `min_coefficient` is given.

        Raises:
            ArgumentError: there are more than `max_words`.
        """
        source, turns, at = self._prepared(program), None, b""
        if self._cut.coefficient > 0 and shared is not None:
            turns, at = turns_of(source, shared.astype(np.float64), n_batched), shared.tobytes()
        key = program, n_batched, self._cut, self._max_words, at
        return _cached(key, lambda: words_of(source, n_batched, self._cut, self._max_words, turns))

    def count(self, program: Program, limit: int) -> list[int | None]:
        """For each output the most Pauli words that it becomes at a time; None where they are more than a limit.

        Args:
            program: the program.
            limit: words at which counting stops.
        """
        source = self._prepared(program)
        words = [count_words(source, root, self._cut, limit) for root in range(len(source.measured.roots))]
        counts: list[int | None] = [0] * program.n_outputs
        for output, root in zip(source.measured.outputs, source.measured.sources, strict=True):
            so_far, more = counts[output], words[root]
            counts[output] = None if so_far is None or more is None else so_far + more
        return counts

    @staticmethod
    def fits(program: Program, most: int) -> bool:
        """Whether the words of all outputs become others in at most so many steps, none of them left out."""
        try:
            source = prepared(program, False)
        except ArgumentError:  # probabilities of many wires
            return False
        for root in range(len(source.measured.roots)):
            steps = count_steps(source, root, most)
            if steps is None:
                return False
            most -= steps
        return True

    def unrolled(self, program: Program, angles: Angles) -> tuple[Unrolled, Tensor | None]:
        """Outputs as sums of products of cosines and sines of samples' angles, with the shared ones as they are; and
        how far they may be off, (B, M), or None."""
        results, saved = _forward(self._call(program, angles, None), keep=False)
        results = self._with_error(program, results, saved, 1)
        return unrolled(saved.call.source, saved.call.words, saved.coefficients), results.truncation

    def _prepared(self, program: Program) -> Prepared:
        return prepared(program, self._cut.weight >= 0)

    def _call(self, program: Program, angles: Angles, amplitudes: Tensor | None) -> _Call:
        call = _Call(program, angles, amplitudes)
        call.plan(self._prepared(program), self.words(program, call.batched.shape[1], call.shared))
        return call

    def _with_error(self, program: Program, results: Results, saved: Saved, every: int) -> Results:
        """The results with how far they may be off, measured again after so many calls with other angles."""
        if not self._cuts:
            return results
        call = saved.call
        key, at = (program, call.batched.shape[1]), call.shared.tobytes()
        with _LOCK:
            last = self._measured.get(key)
        if last is None or (last.at != at and last.age + 1 >= every):
            inputs = call.batched, call.shared, saved.coefficients
            last = _Measured(at, 0, measured_error(call.source, call.words, self._cut, *inputs))
        elif last.at != at:
            last = last._replace(age=last.age + 1)
        with _LOCK:
            self._measured[key] = last
            if len(self._measured) > _MAX_WORDS_KEPT:
                self._measured.popitem(last=False)
        norms = torch.from_numpy(norms_of(call.source)).to(results.values)
        return results._replace(truncation=torch.minimum(last.error * norms, norms + results.values.abs()))


def _cached(key: tuple[Any, ...], make: Any) -> Words:
    with _LOCK:
        words = _WORDS.get(key)
        if words is None:
            words = _WORDS[key] = make()
            if len(_WORDS) > _MAX_WORDS_KEPT:
                _WORDS.popitem(last=False)
        _WORDS.move_to_end(key)
    return words


class _Call(Arguments):
    """A call, its words, and what their sizes decide.

    Attributes:
        graph: that of samples, of the numbers' dtype.
        n_work: numbers that a thread works with, forward and backward.
        keeps: whether values are kept for the way back.
    """

    source: Prepared
    words: Words
    graph: Graph

    def __init__(self, program: Program, angles: Angles, amplitudes: Tensor | None):
        super().__init__(program, angles, amplitudes)
        check_angles(program, self.batched, self.shared)
        self.n_outputs, self.what = program.n_outputs, f"{program.n_qubits} qubits and a batch of {len(self.batched)}"

    def plan(self, source: Prepared, words: Words) -> None:
        """Take the words; also checks that there is memory, before anything is made."""
        self.source, self.words, self.graph = source, words, words.cast(self.dtype)
        width, n_values = LANES[self.dtype], 2 + len(words.graph.first)
        self.n_chunks = -(-len(self.batched) // width)
        self.n_tasks = -(-self.n_chunks // CHUNKS_OF_TASK)
        self.n_work = width * (3 * len(source.angles) + len(words.linear.begin) + 2 * n_values)
        n_states = self.n_chunks * width * n_values
        self.keeps = n_states * self.dtype.itemsize <= SAVE_LIMIT
        self.n_states = n_states if self.keeps else 0
        most = physical_memory()
        fixed = self.n_states * self.dtype.itemsize + 8 * self.n_tasks * len(words.linear.at) + 80 * words.n_words
        each = self.n_work * self.dtype.itemsize
        check_memory(f"{words.n_words:,} words of {self.what}", fixed + each, most=most)
        n_threads = max(1, min(torch.get_num_threads(), (most - fixed) // (2 * each), self.n_chunks))
        self.n_threads = n_threads if self.n_chunks * (n_values + len(words.linear.at)) >= THREADS_FROM else 1
        self.turns = turns_of(source, self.shared.astype(np.float64), self.batched.shape[1])

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """What the kernels read of the angles."""
        return self.source.angles, self.source.scales, self.batched, self.shared

    def on_threads(self, function: Any, *arguments: Any) -> None:
        run_on_threads(function, (self, np.zeros(1, np.int64), *arguments), self.n_threads)


def _forward(call: _Call, keep: bool) -> tuple[Results, Saved]:
    words = call.words
    shares = np.zeros(1 + len(words.factors) + len(words.shared.first))
    np.add.at(shares, words.seeds, words.weights)
    values.scatter(words.shared, *call.turns, shares)
    coefficients = (words.factors * shares[1 : 1 + len(words.factors)]).astype(call.dtype)
    out = np.empty((len(call.batched), call.n_outputs), call.dtype)
    states = empty(call.n_states if keep else 0, call.dtype)
    call.on_threads(_run, coefficients, out, states)
    return Results(call.tensor(out)), Saved(call, shares, coefficients, states)


def _run(job: tuple[Any, ...]) -> None:
    call, next_chunk, coefficients, out, states = job
    work = buffer(call.n_work, call.dtype)
    linear = call.words.linear
    values.forward(next_chunk, call.graph, linear, coefficients, *call.tables, out, states, len(states) > 0, work)


def _backward(saved: Saved, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    call, words = saved.call, saved.call.words
    n_entries = len(words.factors)
    g_batched, g_shared = np.empty_like(call.batched), np.empty((call.n_tasks, len(call.shared)))
    g_coefficients = np.empty((call.n_tasks, n_entries))
    call.on_threads(_back, saved, grad, g_batched, g_shared, g_coefficients)
    reached = np.zeros(len(saved.shares))
    reached[1 : 1 + n_entries] = words.factors * g_coefficients.sum(0)
    values.gather(words.shared, *call.turns, reached)
    of_turns = np.zeros(len(call.source.angles))
    values.gradients(words.shared, *call.turns, reached, saved.shares, of_turns)
    total, n_batched = g_shared.sum(0), call.batched.shape[1]
    shared = call.source.angles >= n_batched
    np.add.at(total, call.source.angles[shared] - n_batched, (call.source.scales[:, 0] * of_turns)[shared])
    return g_batched, total


def _back(job: tuple[Any, ...]) -> None:
    call, next_task, saved, grad, *gradients = job
    work = buffer(call.n_work, call.dtype)
    values.backward(
        *(next_task, call.graph, call.words.linear, saved.coefficients, *call.tables, grad, saved.states),
        *(len(saved.states) > 0, CHUNKS_OF_TASK, work, *gradients),
    )

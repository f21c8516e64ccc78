"""A program as passes over the expectation values of all Pauli words, in tables for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qbp.circuit.program import Probs, Program
from qbp.circuit.readout import confusion, read
from qbp.executors.pauli.kernels.conventions import IS_FIXED, ONE, PAIR, WORD, Tables
from qbp.executors.pauli.letters import pairs, rotation, shifted
from qbp.executors.pauli.passes import Pass, Step, gathered, loss_of, seen, with_data_alone

__all__ = ["Plan", "compile_program"]

LOSS = {np.dtype(np.float32): 16.0, np.dtype(np.float64): 1e4}
"""By how much rounding errors may grow as noise is taken back, before a copy is kept."""

TINY = 1e-14


@dataclass(frozen=True)
class Plan:
    """A compiled program.

    Attributes:
        tables: for the kernels.
        arrays: the same as the kernels take it.
        n_qubits, n_outputs, n_batched, n_runs, n_scratch: sizes.
        n_kept, n_kept_back: copies that are kept for the way back, of samples and of words.
        n_products: F, how many words hold the data, where words are carried back to it.
    """

    tables: Tables
    arrays: tuple[np.ndarray, ...]
    n_qubits: int
    n_outputs: int
    n_batched: int
    n_runs: int
    n_scratch: int
    n_kept: int
    n_kept_back: int
    n_products: int

    @property
    def n_steps(self) -> int:
        return len(self.tables.steps)

    @property
    def n_passes(self) -> int:
        return len(self.tables.passes)

    def work(self, size: int, n_runs: int) -> int:
        """Registers that a kernel works with, for states of so many words."""
        return 2 * size + 14 * self.n_steps + 21 * n_runs + 12 + 3 * self.n_qubits + self.n_batched + self.n_scratch


def compile_program(program: Program, n_batched: int, dtype: np.dtype, *, by_words: bool = False) -> Plan:
    """The passes of a program.

    Args:
        program: the program.
        n_batched: how many angles, the first, differ between samples.
        dtype: of the numbers.
        by_words: whether words are to be carried back to the data.
    """
    first, passes = gathered(program)
    if by_words:
        first, passes = with_data_alone(first, passes, n_batched)
    starts = [] if program.amplitudes else [steps or [Step(IS_FIXED, fixed=np.eye(4))] for steps in first]
    return _tables(program, passes, starts, n_batched, dtype, by_words)


def _tables(
    program: Program, passes: list[Pass], starts: list[list[Step]], n_batched: int, dtype: np.dtype, by_words: bool
) -> Plan:
    n = program.n_qubits
    steps: list[Step] = []
    fixed: list[np.ndarray] = []
    rows: list[list[int]] = []
    ints = _Integers()
    numbers: list[float] = []
    start_rows = []
    for some in starts:
        start_rows.append((len(steps), len(steps) + len(some)))
        steps += some
    forward, back = _kept(passes, dtype)
    terms, weights = _measured(program)
    some_groups = seen(passes, terms[:, 1], n)
    n_runs = widest = 0
    for k, one in enumerate(passes):
        first, of, count = len(steps), len(numbers), 0
        steps += one.steps
        shifts = [2 * (n - 1 - w) for w in one.wires]
        if one.kind == ONE:
            at = ints.add(shifts)
        elif one.kind == PAIR:
            at = _pair(one, shifts, ints, numbers)
        elif one.kind == WORD:
            turned = _offsets(shifts)[pairs(one.word)]
            at, count = ints.add([*sorted(shifts), *turned.ravel()]), len(turned)
        else:
            at = _map(one, shifts, ints, numbers)
            widest = max(widest, 4 ** len(one.wires))
        differs = any(0 <= step.angle < n_batched for step in one.steps)
        groups = some_groups[k]
        n_groups, of_groups = (-1, 0) if groups is None else (len(groups), ints.add(groups))
        sizes = first, len(steps), n_runs, forward[k], back[k], len(one.wires), differs, of_groups, n_groups
        rows.append([one.kind, at, count, of, *map(int, sizes)])
        n_runs += one.kind in (ONE, WORD)
    table = []
    for step in steps:
        table.append((step.axis, step.angle, len(fixed)))
        if step.fixed is not None:
            fixed.append(step.fixed)
    maps = np.array(fixed).reshape(-1, 4, 4)
    undone = [np.linalg.inv(m[1:, 1:]) if loss_of(m) < np.inf else np.zeros((3, 3)) for m in maps]
    letters = _letters(starts) if by_words else np.tile(np.array([3, 1, 2, 3], np.int64), (n, 1))
    order = _order(letters) if by_words else np.zeros(0, np.int64)
    bits = np.arange(2**n) if program.amplitudes else np.zeros(1, np.int64)
    spread = sum((bits >> b & 1) << 2 * b for b in range(n))
    tables = Tables(
        np.array(table, np.int64).reshape(-1, 3),
        np.array([(step.scale, step.offset) for step in steps], np.float64).reshape(-1, 2),
        np.ascontiguousarray(maps[:, 1:].reshape(-1, 12).astype(dtype)),
        np.array(undone).reshape(-1, 9).astype(dtype),
        np.array(rows, np.int64).reshape(-1, 13),
        np.concatenate([np.zeros(0, np.int64), *ints.tables]),
        np.array(numbers, dtype),
        np.array(start_rows, np.int64).reshape(-1, 2),
        letters,
        terms,
        weights.astype(dtype),
        order,
        np.asarray(spread, np.int64),
    )
    scratch = max(widest, program.n_outputs, 6 * 2**n if program.amplitudes else 1)
    n_kept, n_kept_back = (max(kept) + 1 if kept else 0 for kept in (forward, back))
    return Plan(
        tables,
        tables.packed(),
        n,
        program.n_outputs,
        n_batched,
        n_runs,
        scratch,
        n_kept,
        n_kept_back,
        len(order),
    )


def _kept(passes: list[Pass], dtype: np.dtype) -> tuple[list[int], list[int]]:
    """For each pass the copy that is kept because of it, or -1: of V before it, and of U after it."""

    def kept(ordered: list[Pass]) -> list[int]:
        places, loss, n = [], 1.0, 0
        for one in ordered:  # in the order in which they are undone
            loss *= one.loss()
            if loss > LOSS[dtype]:
                places.append(n)
                loss, n = 1.0, n + 1
            else:
                places.append(-1)
        return places

    return kept(passes[::-1])[::-1], kept(passes)


class _Integers:
    """Tables of integers, one after the other; equal ones are kept once."""

    def __init__(self) -> None:
        self.tables: list[np.ndarray] = []
        self._places: dict[bytes, int] = {}
        self._end = 0

    def add(self, values: Any) -> int:
        """Where a table begins."""
        table = np.asarray(values, np.int64)
        key = table.tobytes()
        if key not in self._places:
            self._places[key] = self._end
            self.tables.append(table)
            self._end += len(table)
        return self._places[key]


def _offsets(shifts: list[int]) -> np.ndarray:
    """Where the words of some wires lie, from the bits at which their digits begin."""
    offsets = np.zeros(1, np.int64)
    for shift in shifts:
        offsets = (offsets[:, None] + (np.arange(4) << shift)).ravel()
    return offsets


def _pair(one: Pass, shifts: list[int], ints: _Integers, numbers: list[float]) -> int:
    assert one.matrix is not None
    parts = shifted(one.matrix)
    assert parts is not None
    with np.errstate(divide="ignore"):
        undone = np.where(np.abs(parts.factor) > TINY, 1 / parts.factor, 0.0)
    numbers += [*parts.factor, *parts.t, *parts.s, *undone]
    return ints.add([*shifts, *_offsets(shifts)[parts.source]])


def _map(one: Pass, shifts: list[int], ints: _Integers, numbers: list[float]) -> int:
    assert one.matrix is not None
    both = [one.matrix]
    if loss_of(one.matrix) < np.inf:
        both.append(np.linalg.inv(one.matrix))
    entries = [np.argwhere(np.abs(matrix) > 1e-15) for matrix in both]
    for matrix, places in zip(both, entries, strict=True):
        numbers += matrix[tuple(places.T)].tolist()
    counts = [len(entries[0]), len(entries[1]) if len(both) > 1 else 0]
    return ints.add(np.concatenate([counts, sorted(shifts), _offsets(shifts), *(e.ravel() for e in entries)]))


def _measured(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """What is measured, readout errors included: terms (T, 2) of an output and a word, and their weights (T,)."""
    n = program.n_qubits
    terms: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    output = 0
    for plain, m in zip(program.measurements, read(program), strict=True):
        if isinstance(plain, Probs):
            wires = plain.wires
            size = 2 ** len(wires)
            walsh = np.array([[1, 1], [1, -1]]) / 2
            matrix = confusion(program, wires)
            cube = matrix.reshape(size, *[2] * len(wires))
            for axis in range(len(wires)):
                cube = np.moveaxis(np.tensordot(cube, walsh, (1 + axis, 0)), -1, 1 + axis)
            words = np.zeros(size, np.int64)
            for k, w in enumerate(wires):
                words += (np.arange(size) >> len(wires) - 1 - k & 1) * (3 << 2 * (n - 1 - w))
            terms.append(np.stack([np.repeat(output + np.arange(size), size), np.tile(words, size)], 1))
            weights.append(cube.reshape(-1))
            output += size
        else:
            assert not isinstance(m, Probs)
            for coefficient, word, wires in m.terms:
                code = sum("IXYZ".index(letter) << 2 * (n - 1 - w) for letter, w in zip(word, wires, strict=True))
                terms.append(np.array([[output, code]]))
                weights.append(np.array([coefficient]))
            output += 1
    return np.ascontiguousarray(np.concatenate(terms).astype(np.int64)), np.concatenate(weights)


def _letters(starts: list[list[Step]]) -> np.ndarray:
    """How many letters, and which, besides I, can have an expectation value on each wire before the first pass, (N, 4);
    found at angles that are nothing special."""
    angles = np.random.default_rng(0).uniform(0.3, 1.2, (3, max((len(steps) for steps in starts), default=0)))
    rows = []
    for steps in starts:
        seen = np.zeros(4, bool)
        for turns in angles:
            state = np.array([1.0, 0, 0, 1])
            for step, turn in zip(steps, turns, strict=False):
                fixed = step.fixed
                angle = turn if step.angle >= 0 else step.offset
                state = (rotation("XYZ"[step.axis], angle) if fixed is None else fixed) @ state
            seen |= np.abs(state) > TINY
        letters = [k for k in (1, 2, 3) if seen[k]]
        rows.append([len(letters), *letters, *[0] * (3 - len(letters))])
    return np.array(rows, np.int64).reshape(-1, 4)


def _order(some_letters: np.ndarray) -> np.ndarray:
    """The words with no other letters, in the order in which `words._product` writes them."""
    order = np.zeros(1, np.int64)
    for k, row in enumerate(some_letters[::-1]):
        order = np.concatenate([order + (int(letter) << 2 * k) for letter in (0, *row[1 : 1 + row[0]])])
    return order

"""Steps as the arrays that kernels read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qbp.circuit.pauli import Word
from qbp.executors.propagation.kernels.conventions import Tables
from qbp.executors.propagation.steps import Step
from qbp.limits import check_memory

__all__ = ["as_words", "n_parts", "tables_of", "words_in"]

_BITS = 2**64 - 1


def n_parts(n_qubits: int) -> int:
    """P: integers of 64 bits for a mask."""
    return -(-n_qubits // 64)


def as_words(words: Sequence[Word], parts: int) -> np.ndarray:
    """Words (n, 2P) without their phases."""
    rows = [[mask >> 64 * p & _BITS for mask in (word.x, word.z) for p in range(parts)] for word in words]
    return np.array(rows, np.uint64).reshape(len(words), 2 * parts).view(np.int64)


def words_in(array: np.ndarray) -> list[Word]:
    """The words, of sign +, that an array (n, 2P) holds."""
    parts = array.shape[1] // 2
    rows = array.view(np.uint64).tolist()
    masks = ([sum(part << 64 * p for p, part in enumerate(half)) for half in (r[:parts], r[parts:])] for r in rows)
    return [Word.hermitian(x, z) for x, z in masks]


def tables_of(
    steps: Sequence[Step], n_qubits: int, weights: bool
) -> tuple[Tables, tuple[tuple[int, float, float], ...]]:
    """The tables of steps, and the (angle, scale, offset) of the rows 1, 2, ... of the table of cosines.

    Args:
        steps: in order of time.
        n_qubits: N.
        weights: whether letters are to be counted.
    """
    parts = n_parts(n_qubits)
    tests: list[Word] = []
    test_at, row_at, entry_at, angles = [0], [], [0], []
    touched: list[bool] = []
    entries: list[Word] = []
    coefficients: list[float] = []
    sines: list[int] = []
    numbers: dict[tuple[int, float, float], int] = {}
    snapshots: dict[int, int] = {}  # by identity: steps between the same Clifford gates share theirs
    kept: list[np.ndarray] = []
    letters_at: list[int] = []
    settled, moved = np.zeros((len(steps) + 1, parts), np.int64), 0
    for s, step in enumerate(steps):
        settled[s] = as_words([Word(step.moves & ~moved, 0)], parts)[0, :parts]
        moved |= step.moves
        tests += step.tests
        test_at.append(len(tests))
        row_at.append(len(touched))
        for row in step.rows:
            touched.append(row is not None)
            for entry in row or ():
                word = entry.word
                entries.append(Word(word.x, word.z & moved, word.phase))  # elsewhere Z is 1, as |0> has it
                coefficients.append(entry.coefficient)
                sines.append(entry.sine)
            entry_at.append(len(entries))
        angles.append(0 if step.angle is None else numbers.setdefault(step.angle, 1 + len(numbers)))
        if weights and id(step.letters) not in snapshots:
            snapshots[id(step.letters)] = len(kept)
            check_memory("The letters of so many words", (len(kept) + 1) * 32.0 * n_qubits * parts)
            kept.append(as_words(step.letters, parts))
        letters_at.append(snapshots.get(id(step.letters), 0))
    settled[len(steps)] = as_words([Word(~moved & (1 << n_qubits) - 1, 0)], parts)[0, :parts]
    tables = Tables(
        as_words(tests, parts),
        np.array(test_at),
        np.array(row_at, np.int64),
        np.array(touched, np.bool_),
        np.array(entry_at),
        as_words(entries, parts),
        np.array([word.phase for word in entries], np.int64),
        np.array(coefficients, np.float64),
        np.array(sines, np.int64),
        np.array(angles, np.int64),
        settled,
        np.array(kept, np.int64).reshape(len(kept), 2 * n_qubits if kept else 0, 2 * parts),
        np.array(letters_at, np.int64),
    )
    return tables, tuple(numbers)

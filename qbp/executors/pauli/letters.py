"""Maps of Pauli letters, as matrices on words: rotations, Clifford gates, and what two-wire passes can do of them.

Words are numbers of base 4 with the digits I, X, Y, Z, so that the product of two is their exclusive or, up to a phase.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from qbp.circuit.gates import GATES

__all__ = ["Shifted", "clifford", "of_wires", "pairs", "rotation", "shifted"]

CODES = {"I": 0, "X": 1, "Y": 2, "Z": 3}
TINY = 1e-14


@cache
def pairs(word: str) -> np.ndarray:
    """The pairs (Q, Q') that a rotation by t about a word P turns, ``Q -> cos t Q + sin t Q'`` with ``Q' = -i P Q``."""
    codes = [CODES[letter] for letter in word]
    words = np.arange(4 ** len(codes))
    phase, partner = np.zeros(len(words), np.int64), np.zeros(len(words), np.int64)  # P Q = i^phase Q'
    for k, code in enumerate(codes):
        digit = words >> 2 * (len(codes) - 1 - k) & 3
        phase += np.where((digit == 0) | (digit == code), 0, np.where((digit - code) % 3 == 1, 1, 3))
        partner = partner << 2 | digit ^ code
    plus = phase % 4 == 1  # the others, with 3, are their partners
    return np.stack([words[plus], partner[plus]], 1)


def rotation(word: str, angle: float) -> np.ndarray:
    """The matrix (4^k, 4^k) of a rotation, as ``v -> R v`` on expectation values of words."""
    matrix = np.eye(4 ** len(word))
    cos, sin = np.cos(angle), np.sin(angle)
    q, partner = pairs(word).T
    matrix[q, q] = matrix[partner, partner] = cos
    matrix[partner, q], matrix[q, partner] = sin, -sin
    return matrix


@cache
def clifford(name: str) -> np.ndarray:
    """The signed permutation of words by a Clifford gate."""
    gate = GATES[name]
    matrix = np.eye(4**gate.n_wires)
    for step in gate.steps:
        matrix = of_wires(rotation(step.pauli, step.offset), step.wires, tuple(range(gate.n_wires))) @ matrix
    return np.round(matrix)


def of_wires(matrix: np.ndarray, wires: tuple[int, ...], among: tuple[int, ...]) -> np.ndarray:
    """A matrix on the words of some wires as one on those of more wires, in another order."""
    rest = [w for w in among if w not in wires]
    whole = np.kron(matrix, np.eye(4 ** len(rest))).reshape([4] * (2 * len(among)))
    place = [[*wires, *rest].index(w) for w in among]
    return whole.transpose([*place, *(len(among) + p for p in place)]).reshape(4 ** len(among), -1)


class Shifted(NamedTuple):
    """What a pass on two wires can do at once: ``w[ab] = factor[ab] v[source[ab]]``, then ``w[aZ] += t[a] w[aI]``, then
    ``w[Zb] += s[b] w[Ib]``."""

    source: np.ndarray
    factor: np.ndarray
    t: np.ndarray
    s: np.ndarray

    def matrix(self) -> np.ndarray:
        """It as a matrix (16, 16)."""
        matrix = np.zeros((16, 16))
        matrix[np.arange(16), self.source] = self.factor
        for a in range(4):
            matrix[4 * a + 3] += self.t[a] * matrix[4 * a]
        for b in range(4):
            matrix[12 + b] += self.s[b] * matrix[b]
        return matrix


def shifted(matrix: np.ndarray) -> Shifted | None:
    """The parts of a map of two wires' words, where it has that form."""
    rows: np.ndarray = matrix.copy()
    t, s = np.zeros(4), np.zeros(4)
    plain = np.abs(rows) > TINY
    for b in range(3):  # Zb takes from Ib, which is plain for b < 3
        _take(rows, plain, 12 + b, b, s, b)
    for a in range(3):
        _take(rows, plain, 4 * a + 3, 4 * a, t, a)
    # ZZ: factor + t[Z] w[ZI] + s[Z] (w[IZ] + t[I] w[II])
    full_iz = rows[3] + t[0] * rows[0]
    others = [np.abs(rows[k]) > TINY for k in (3, 12)]
    if others[0].sum() == 1:
        s[3] = rows[15, others[0].argmax()] / rows[3, others[0].argmax()]
    rows[15] -= s[3] * full_iz
    if others[1].sum() == 1:
        t[3] = rows[15, others[1].argmax()] / rows[12, others[1].argmax()]
    rows[15] -= t[3] * rows[12]
    rows[np.abs(rows) < TINY] = 0
    if ((rows != 0).sum(1) > 1).any():
        return None
    source = np.abs(rows).argmax(1)
    empty = ~(rows != 0).any(1)
    unused = [k for k in range(16) if k not in source[~empty]]
    if len(unused) != empty.sum():
        return None  # two words from one
    source[empty] = unused
    result = Shifted(source, rows[np.arange(16), source], t, s)
    return result if np.abs(result.matrix() - matrix).max() < 1e-13 else None


def _take(rows: np.ndarray, plain: np.ndarray, row: int, other: int, shifts: np.ndarray, k: int) -> None:
    """What a row has of another one's only entry, as a shift."""
    if plain[other].sum() == 1:
        column = int(plain[other].argmax())
        shifts[k] = rows[row, column] / rows[other, column]
        rows[row] -= shifts[k] * rows[other]

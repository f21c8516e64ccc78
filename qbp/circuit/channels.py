"""Noise as data: channels on one or two wires as small sparse maps of Pauli letters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from qbp.errors import ArgumentError, CircuitError

__all__ = ["Channel"]

LETTERS = "IXYZ"
PAULI = (np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1]))
TOLERANCE = 1e-9  # of trace preservation: Kraus operators of a file have about nine digits


@dataclass(frozen=True)
class Channel:
    """What noise does to the state of `wires`: a map of density matrices that keeps the trace.

    It is given in the basis of Pauli words, where it is real and mostly zeros (the Pauli transfer matrix
    ``R[P, Q] = Tr(P E(Q)) / 2^k``): an expectation value <P> after it is ``sum_Q R[P, Q] <Q>`` before it.

    Attributes:
        name: PennyLane's name of it ("AmplitudeDamping"), or "QubitChannel"; for the reader, it decides nothing.
        wires: one wire or more; the first is the most significant digit of a word's number.
        transfer: entries ``(P, Q, R[P, Q])`` in ascending order, zeros left out; a word of k letters is a number of
            base 4 with the digits I, X, Y, Z.
    """

    name: str
    wires: tuple[int, ...]
    transfer: tuple[tuple[int, int, float], ...]

    @staticmethod
    def of_matrix(name: str, wires: tuple[int, ...], matrix: np.ndarray) -> Channel:
        """The channel with a Pauli transfer matrix (4^k, 4^k).

        Raises:
            ArgumentError: if it does not fit the wires, is not finite, or does not keep the trace.
        """
        size = 4 ** len(wires)
        if matrix.shape != (size, size):
            raise ArgumentError(f"Argument `matrix` of {name} must have shape {(size, size)}, but has {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ArgumentError(f"Argument `matrix` of {name} must be finite")
        if np.abs(matrix[0] - np.eye(1, size)[0]).max() > TOLERANCE:
            raise ArgumentError(f"Argument `matrix` of {name} must keep the trace: its first row must be 1, 0, ..., 0")
        rows, columns = np.nonzero(np.abs(matrix) > 1e-15)
        entries = zip(rows.tolist(), columns.tolist(), matrix[rows, columns].tolist(), strict=True)
        return Channel(name, wires, tuple(entries))

    def matrix(self) -> np.ndarray:
        """The Pauli transfer matrix (4^k, 4^k)."""
        size = 4 ** len(self.wires)
        matrix = np.zeros((size, size))
        for row, column, value in self.transfer:
            matrix[row, column] = value
        return matrix

    def kraus(self) -> list[np.ndarray]:
        """Kraus operators (2^k, 2^k) of it, at most 4^k: the eigenvectors of its Choi matrix.

        Raises:
            CircuitError: if it is not completely positive, so that there are none.
        """
        n_wires, size = len(self.wires), 2 ** len(self.wires)
        words = [
            reduce(np.kron, (PAULI[index >> 2 * k & 3] for k in reversed(range(n_wires)))) for index in range(size**2)
        ]
        choi = np.zeros((size**2, size**2), complex)  # sum_ij |i><j| (x) E(|i><j|)
        for row, column, value in self.transfer:
            choi += value / size * np.kron(words[column].T, words[row])
        weights, vectors = np.linalg.eigh(choi)
        if weights[0] < -TOLERANCE * size:
            raise CircuitError(f"{self.name} is no channel: its Choi matrix has the eigenvalue {weights[0]:.3g}")
        parts = zip(weights, vectors.T, strict=True)
        return [np.sqrt(w) * vector.reshape(size, size).T for w, vector in parts if w > 1e-14]

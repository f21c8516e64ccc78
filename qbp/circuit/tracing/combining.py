"""What a circuit has to measure for outputs that are more than expectation values; see `qbp.circuit.combination`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import Tensor

from qbp.circuit.combination import Entry
from qbp.circuit.pauli import Word
from qbp.circuit.program import Expval, Measurement, Probs
from qbp.errors import CircuitError

__all__ = ["Combining", "Term"]

Term = tuple[Tensor | float, str, tuple[int, ...]]
"""A coefficient, which may be traced, and a Pauli word with its wires."""

MOST_TERMS = 64
"""Pauli words of an observable whose square is written out, in up to half the square of so many."""


class Combining:
    """Collects outputs, and what is measured for them.

    Args:
        n_qubits: of the circuit.

    Attributes:
        plain: the measurements, where each output is one of them.
        is_plain: whether that is so.
        has_variances: whether one is a variance.
        coefficients: the traced coefficients.
    """

    def __init__(self, n_qubits: int):
        self.n_qubits = n_qubits
        self.plain: list[Measurement] = []
        self.is_plain = True
        self.has_variances = False
        self.coefficients: list[Tensor] = []
        self._columns: dict[Measurement, int] = {}
        self._n_values = self.n_outputs = 0
        self._entries: list[Entry] = []

    def keep(self, measured: Measurement) -> None:
        """Outputs that are measured as they are."""
        self.plain.append(measured)
        first = self._column(measured)
        for k in range(_width(measured)):
            self._entries.append(Entry(self.n_outputs, False, first + k, 1.0))
            self.n_outputs += 1

    def mean(self, terms: Sequence[Term]) -> None:
        """The expectation value of a sum of Pauli words, some of whose coefficients are traced."""
        self.is_plain = False
        self._sum({(word, wires): c for c, word, wires in terms}, squared=False)
        self.n_outputs += 1

    def variance(self, terms: Sequence[Term]) -> None:
        """``<O^2> - <O>^2`` of a sum of Pauli words."""
        self.is_plain = False
        self.has_variances = True
        self._sum(self._square(terms), squared=False)
        self._sum({(word, wires): c for c, word, wires in terms}, squared=True)
        self.n_outputs += 1

    def finish(self) -> tuple[tuple[Measurement, ...], tuple[Entry, ...]]:
        """The measurements, each one once, and the entries of a `Combination`."""
        return tuple(self._columns) or (Expval(((1.0, "", ()),)),), tuple(self._entries)

    def _sum(self, words: Mapping[tuple[str, tuple[int, ...]], Tensor | float], squared: bool) -> None:
        fixed = tuple((c, *word) for word, c in words.items() if not isinstance(c, Tensor) and word[0])
        if fixed:
            self._entries.append(Entry(self.n_outputs, squared, self._column(Expval(fixed)), 1.0))
        for word, c in words.items():
            value = self._column(Expval(((1.0, *word),))) if word[0] and isinstance(c, Tensor) else None
            if isinstance(c, Tensor):
                self._entries.append(Entry(self.n_outputs, squared, value, None, len(self.coefficients)))
                self.coefficients.append(c)
            elif not word[0]:
                self._entries.append(Entry(self.n_outputs, squared, None, c))

    def _square(self, terms: Sequence[Term]) -> dict[tuple[str, tuple[int, ...]], Tensor | float]:
        """The square of a sum of Pauli words: what does not commute cancels."""
        if len(terms) > MOST_TERMS:
            raise CircuitError(f"The variance of a sum of more than {MOST_TERMS} Pauli words is not written out")
        square: dict[tuple[str, tuple[int, ...]], Tensor | float] = {}
        for c, _, _ in terms:
            square["", ()] = square.get(("", ()), 0.0) + c * c
        words = [(c, Word.of(letters, wires, self.n_qubits)) for c, letters, wires in terms]
        for (c, a), (d, b) in combinations(words, 2):
            if not a.anticommutes(b):
                product = a.times(b)
                letters = self._letters(product)
                square[letters] = square.get(letters, 0.0) + 2 * product.sign * (c * d)
        return square

    def _letters(self, word: Word) -> tuple[str, tuple[int, ...]]:
        letters = {}
        for wire in range(self.n_qubits):
            bit = 1 << (self.n_qubits - 1 - wire)
            x, z = bool(word.x & bit), bool(word.z & bit)
            if x or z:
                letters[wire] = "Y" if x and z else "X" if x else "Z"
        return "".join(letters.values()), tuple(letters)

    def _column(self, measured: Measurement) -> int:
        """Where its values stand."""
        if measured not in self._columns:
            self._columns[measured] = self._n_values
            self._n_values += _width(measured)
        return self._columns[measured]


def _width(measured: Measurement) -> int:
    return 2 ** len(measured.wires) if isinstance(measured, Probs) else 1

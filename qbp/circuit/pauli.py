"""Pauli words as bit masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Word", "bits"]


class Word(NamedTuple):
    """``i^phase X^x Z^z``: a Pauli word as bit masks; the bit of wire w of n is ``1 << (n - 1 - w)``.

    One of sign + has as its phase the number of its Y's, ``Y = i X Z``: ``P|j> = i^n_y (-1)^parity(j & z) |j ^ x>``.
    """

    x: int
    z: int
    phase: int = 0

    @staticmethod
    def of(letters: str, wires: Iterable[int], n_qubits: int) -> Word:
        """The word of these letters on these wires, of sign +."""
        x = z = 0
        for letter, wire in zip(letters, wires, strict=True):
            bit = 1 << (n_qubits - 1 - wire)
            x |= bit if letter in "XY" else 0
            z |= bit if letter in "ZY" else 0
        return Word.hermitian(x, z)

    @staticmethod
    def hermitian(x: int, z: int) -> Word:
        """The word with these masks, of sign +."""
        return Word(x, z, (x & z).bit_count() % 4)

    @property
    def n_y(self) -> int:
        """How many of its letters are Y."""
        return (self.x & self.z).bit_count()

    @property
    def sign(self) -> int:
        """+1 or -1, for a word that is Hermitian."""
        return 1 - (self.phase - self.n_y) % 4

    def times(self, other: Word, phase: int = 0) -> Word:
        """``i^phase self other``."""
        swapped = 2 * (self.z & other.x).bit_count()
        return Word(self.x ^ other.x, self.z ^ other.z, (self.phase + other.phase + swapped + phase) % 4)

    def anticommutes(self, other: Word) -> bool:
        return bool(((self.x & other.z).bit_count() + (self.z & other.x).bit_count()) & 1)


def bits(mask: int) -> Iterator[int]:
    """The single bits of a mask, the lowest first."""
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit

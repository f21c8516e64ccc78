"""From rotations to what the kernels run: levels of passes, and blocks of passes that stay in the first-level cache.

1. Levels: rotations that are diagonal (no x-mask) and that are not, in turn, each in the earliest level that it
   commutes to. The diagonal ones of a level that all samples share are one multiplication by phases; every other word
   is one pass over pairs of amplitudes (i, i ^ x).
2. Blocks: consecutive passes whose x-masks span few dimensions act within the cosets of that span, each a few
   registers that stay in the first-level cache while all passes of the block run.

A register holds one amplitude of W samples, or W amplitudes of one sample: those whose indices differ in the lowest
`bits` bits. The index of an amplitude without those bits is its register's; where that lies in memory is its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from qbp.circuit.frame import Turn
from qbp.circuit.pauli import Word
from qbp.executors.native.kernels.conventions import (
    DIAGONAL,
    EVENT,
    FLIPS,
    IMAGINARY,
    PHASE,
    REAL,
    SWEEP,
    TWO,
    WITHIN,
)

__all__ = [
    "SPAN",
    "Block",
    "Item",
    "Pass",
    "blocks",
    "cosets",
    "placed",
    "span_of",
]

SPAN = 6
"""Dimensions of a block: 2^6 registers of each part of psi and lambda are 16 KiB."""

SWEEP_FROM = 5
"""Diagonal words of a level from which on those that differ between samples are done in one sweep."""

MAX_UNDIVIDED = 32
"""Passes divided by the cosine in a row: the state grows by at most 2^16."""


# ---- where amplitudes lie ------------------------------------------------------------------------------------------


def place(x: int) -> int:
    """Where register x lies: its lowest four bits are summed with all higher groups of four.

    Registers whose indices differ in high bits only would else compete for the same few lines of the cache. The map is
    linear, so x-masks go through it, too, and it is its own inverse.
    """
    low, rest = x, x >> 4
    while rest:
        low ^= rest & 15
        rest >>= 4
    return low


def placed_z(z: int, n_bits: int) -> int:
    """The z-mask of the same signs in terms of places: ``parity(place(i) & placed_z(z)) = parity(i & z)``."""
    return z ^ sum((z & 15) << shift for shift in range(4, n_bits, 4)) & (1 << n_bits) - 1


def placed(word: Word, n_qubits: int, bits: int) -> Word:
    """A word in terms of places; its lowest `bits` bits, those of the lanes, stay where they are."""
    lanes = (1 << bits) - 1
    x, z = place(word.x >> bits) << bits, placed_z(word.z >> bits, n_qubits - bits) << bits
    return Word(x | word.x & lanes, z | word.z & lanes, word.phase)


# ---- levels --------------------------------------------------------------------------------------------------------


@dataclass
class Pass:
    """One word and all rotations about it that can be done together."""

    word: Word
    turns: list[Turn] = field(default_factory=list)


def _levels(turns: list[Turn]) -> list[list[Pass]]:
    """Passes in order: even levels hold diagonal words, which all commute, odd levels the others, in order."""
    levels: list[list[Pass]] = []
    xs, zs, at = (np.zeros(len(turns), np.int64) for _ in range(3))
    for k, turn in enumerate(turns):
        x, z, _ = turn.word
        blocked = (np.bitwise_count(xs[:k] & z) + np.bitwise_count(zs[:k] & x)) & 1
        last = int(at[:k][blocked == 1].max(initial=0 if x else -1))
        level = last + (last % 2 == int(x == 0))
        while len(levels) <= level:
            levels.append([])
        for earlier in reversed(levels[level]):
            if earlier.word == turn.word and earlier.turns[0].mark == turn.mark:
                earlier.turns.append(turn)
                break
            if earlier.word.anticommutes(turn.word):
                levels[level].append(Pass(turn.word, [turn]))
                break
        else:
            levels[level].append(Pass(turn.word, [turn]))
        xs[k], zs[k], at[k] = x, z, level
    return levels


# ---- blocks --------------------------------------------------------------------------------------------------------


@dataclass
class Item:
    """What a block does at a time: one pass, two passes, or many diagonal words of a level.

    Those are multiplied with a table of phases (DIAGONAL) where all samples share their angles. Else the phases are
    computed as they are needed (SWEEP): where angles differ between samples, or each state is computed alone.

    Passes whose rotation all samples share are run divided by the cosine of their half angle (`passes.prepare`).
    """

    kind: int
    passes: list[Pass]


@dataclass
class Block:
    """Items that run one after the other within every coset of a span."""

    items: list[Item] = field(default_factory=list)
    span: dict[int, int] = field(default_factory=dict)  # highest bit: reduced vector


def _shared(one: Pass, n_batched: int) -> bool:
    """Whether all samples share the angle of a pass."""
    return all(not 0 <= turn.angle < n_batched for turn in one.turns)


def _items(turns: list[Turn], n_batched: int, bits: int) -> Iterator[Item]:
    undivided = 0  # passes since the last item that can make up for the cosines
    for number, passes in enumerate(_levels(turns)):
        level = [one for one in passes if not one.turns[0].event]
        if number % 2:
            for one in passes:
                if one.turns[0].event:
                    yield Item(EVENT, [one])
                    continue
                kind = REAL if (one.word.x & one.word.z).bit_count() & 1 else IMAGINARY
                yield Item(kind if one.word.x >> bits else WITHIN + kind, [one])
                undivided += _shared(one, n_batched)
                if undivided == MAX_UNDIVIDED:
                    undivided = 0
                    yield Item(SWEEP if bits else DIAGONAL, [])
        else:
            shared = [one for one in level if _shared(one, n_batched)]
            differ = [one for one in level if not _shared(one, n_batched)]
            swept = bits > 0 or len(differ) >= SWEEP_FROM
            if len(differ) >= SWEEP_FROM:
                shared, differ = level, []
            if len(shared) > 1:
                undivided = 0
                yield Item(SWEEP if swept else DIAGONAL, shared)
            for one in differ + (shared if len(shared) == 1 else []):
                yield Item(PHASE, [one])
            yield from (Item(EVENT, [one]) for one in passes if one.turns[0].event)


def _paired(items: list[Item], n_batched: int, bits: int) -> list[Item]:
    """With every two neighbours done at once that are shared by all samples and act on different pairs."""
    result: list[Item] = []
    for item in items:
        last = result[-1] if result else None
        if (
            last is not None
            and {item.kind, last.kind} <= {REAL, IMAGINARY}
            and item.passes[0].word.x >> bits != last.passes[0].word.x >> bits
            and _shared(item.passes[0], n_batched)
            and _shared(last.passes[0], n_batched)
        ):
            result[-1] = Item(TWO + last.kind + 2 * item.kind, last.passes + item.passes)
        else:
            result.append(item)
    return result


def _reduced(vector: int, span: dict[int, int]) -> int:
    """What is left of a vector modulo a span."""
    for high in sorted(span, reverse=True):
        if vector & high:
            vector ^= span[high]
    return vector


def _extend(span: dict[int, int], vector: int) -> None:
    """Add a vector to a span in reduced echelon form."""
    vector = _reduced(vector, span)
    if vector:
        high = 1 << vector.bit_length() - 1
        for other in span:
            if span[other] & high:
                span[other] ^= vector
        span[high] = vector


def blocks(turns: list[Turn], n_batched: int, n_qubits: int, bits: int) -> list[Block]:
    """The blocks of a circuit in order of time; their spans are of registers.

    Args:
        turns: rotations, with words in terms of places.
        n_batched: how many angles, the first, differ between samples.
        bits: of an amplitude's index, that tell the lanes of a register apart.
    """
    dimension = min(SPAN, n_qubits - bits)
    whole = [Block()]
    for item in _items(turns, n_batched, bits):
        x = item.passes[0].word.x >> bits if item.passes and item.kind != EVENT else 0
        apart = any(EVENT in (item.kind, last.kind) for last in whole[-1].items[-1:])
        if apart or (len(whole[-1].span) == dimension and _reduced(x, whole[-1].span)):
            whole.append(Block())
        _extend(whole[-1].span, x)
        whole[-1].items.append(item)
    for block in whole:
        for b in range(n_qubits - bits):
            if len(block.span) < dimension:
                _extend(block.span, 1 << b)
        block.items = _paired(block.items, n_batched, bits)
    return whole


def span_of(basis: list[int]) -> list[int]:
    """All sums of basis vectors, the first vector the least significant."""
    span = [0]
    for vector in basis:
        span += [s ^ vector for s in span]
    return span


def cosets(span: dict[int, int], words: list[Word], n_lo: int) -> tuple[list[int], list[int]]:
    """Tables (lo, hi) that list the pairs (i, i ^ x), or quadruples with two words, of a span: ``hi[j] ^ lo[k]`` is one
    of each.

    ``parity(i & z)``, the sign of i, is the same for all of lo; hi carries it as its bit `FLIPS`, for each word.
    """

    def signs(vector: int) -> int:
        return sum(flip for flip, word in zip(FLIPS, words, strict=False) if (vector & word.z).bit_count() & 1)

    seen: dict[int, int] = {}
    fixes: dict[int, tuple[int, int]] = {}  # highest of the signs: signs, vector

    def fixed(vector: int) -> tuple[int, int]:
        """The vector with as few signs as possible."""
        left = signs(vector)
        for high in sorted(fixes, reverse=True):
            if left & high:
                left, vector = left ^ fixes[high][0], vector ^ fixes[high][1]
        return left, vector

    even: list[int] = []
    odd: list[int] = []
    for own, vector in [(True, word.x) for word in words] + [(False, v) for v in sorted(span.values())]:
        if _reduced(vector, seen):
            _extend(seen, vector)
            left, vector = fixed(vector)
            if left:
                fixes[1 << left.bit_length() - 1] = left, vector
            if not own:
                (odd if left else even).append(vector | left)
    return span_of(even[:n_lo]), span_of(even[n_lo:] + odd)

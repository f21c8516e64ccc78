"""The compiler of the native engine: from a program to Pauli rotations in a Clifford frame, merged into few passes.

A circuit is ``U = C V`` with a Clifford ``C`` that is never run and a product ``V`` of Pauli rotations: moving a rotation
about ``P`` to the front of the Clifford gates before it turns ``P`` into ``C^dagger P C``, and measuring ``O`` after the
Clifford gates is measuring ``C^dagger O C`` before them (arXiv 1808.02892, section on Pauli-based computation).

1. `_walk`: the words of all rotations and measurements in the frame. Rotations of one qubit that commute with all
   others before them make up the product state that the circuit starts from.
2. `_visible`: without the rotations that no measurement can see.
3. `_merge`: rotations whose words generate one su(2) on the same pairs of amplitudes become one pass.
4. `compile_program`: everything as flat arrays, for the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from qbp.program import Clifford, Probs, Program, pauli_mask

__all__ = ["Frame", "Plan", "Tables", "Turn", "Word", "compile_program"]

X, Y, Z = range(3)
SIGN = 1 << 31  # of a table's index word: the sign of a pair


class Word(NamedTuple):
    """``i^phase X^x Z^z``: a Pauli word as bit masks (wire 0 is the most significant bit)."""

    x: int
    z: int
    phase: int = 0

    @staticmethod
    def hermitian(x: int, z: int) -> Word:
        """The word itself, of sign +: every Y is ``i X Z``."""
        return Word(x, z, (x & z).bit_count() % 4)

    @property
    def sign(self) -> int:
        """+1 or -1, for a word that is Hermitian."""
        return 1 - (self.phase - (self.x & self.z).bit_count()) % 4

    def times(self, other: Word, phase: int = 0) -> Word:
        """``i^phase self other``."""
        swapped = 2 * (self.z & other.x).bit_count()
        return Word(self.x ^ other.x, self.z ^ other.z, (self.phase + other.phase + swapped + phase) % 4)

    def anticommutes(self, other: Word) -> bool:
        return bool(((self.x & other.z).bit_count() + (self.z & other.x).bit_count()) & 1)


class Frame:
    """The Clifford gates so far, as the images ``C^dagger Q C`` of all one-qubit X and Z."""

    def __init__(self, n_qubits: int):
        self.images = {(1 << b, 0): Word(1 << b, 0) for b in range(n_qubits)}
        self.images |= {(0, 1 << b): Word(0, 1 << b) for b in range(n_qubits)}

    def pull(self, x: int, z: int) -> Word:
        """``C^dagger P C`` of the word P with masks x and z."""
        image = Word(0, 0, (x & z).bit_count() % 4)
        for bit in _bits(x):
            image = image.times(self.images[bit, 0])
        for bit in _bits(z):
            image = image.times(self.images[0, bit])
        return image

    def turn(self, x: int, z: int, quarters: int) -> None:
        """Append the rotation by ``quarters * pi/2`` about a word: ``Q -> exp(i t R) Q`` where Q anticommutes with R."""
        turned = self.pull(x, z)
        moved = [(bit, 0) for bit in _bits(z)] + [(0, bit) for bit in _bits(x)]
        for key in moved if quarters % 4 else ():
            image = self.images[key]
            self.images[key] = image._replace(phase=(image.phase + 2) % 4) if quarters % 4 == 2 else turned.times(image, quarters)


def _bits(mask: int) -> Iterable[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit


@dataclass(frozen=True)
class Turn:
    """A rotation about `word` by ``scale * angles[angle] + offset``; `angle` -1 is a fixed one."""

    word: Word
    angle: int
    scale: float
    offset: float


@dataclass
class Run:
    """Rotations that act on the same pairs of amplitudes (i, i ^ x): one SU(2) matrix for each pair.

    Up to the sign ``(-1)^parity(i & wx)`` of the pair of i, the words are the X, Y and Z of its two amplitudes: z-masks wx
    of the X-like and wy of the Y-like word, and the Z-like word wz without x-mask; -1 while unknown.
    """

    x: int = 0
    wx: int = -1
    wy: int = -1
    wz: int = -1
    turns: list[tuple[int, Turn]] = field(default_factory=list)  # axis and rotation

    @property
    def words(self) -> list[Word]:
        known = [Word(self.x, w) for w in (self.wx, self.wy) if w >= 0]
        return known + ([Word(0, self.wz)] if self.wz >= 0 else [])

    def joined(self, turn: Turn) -> Run | None:
        """This run with one more rotation, or None if it does not fit."""
        word = turn.word
        new = replace(self, turns=self.turns)
        if word.x == 0:
            axis = Z
            if self.x and not (self.x & word.z).bit_count() & 1:
                return None
            new.wz = word.z
        else:
            axis = Y if (word.x & word.z).bit_count() & 1 else X
            if self.x and self.x != word.x:
                return None
            if not self.x and self.wz >= 0 and not (word.x & self.wz).bit_count() & 1:
                return None
            new.x = word.x
            if axis == X:
                new.wx = word.z
            else:
                new.wy = word.z
        if new.x:  # any two words give the third
            if new.wx >= 0 and new.wy >= 0 and new.wz < 0:
                new.wz = new.wx ^ new.wy
            elif new.wz >= 0 and new.wx >= 0 and new.wy < 0:
                new.wy = new.wx ^ new.wz
            elif new.wz >= 0 and new.wy >= 0 and new.wx < 0:
                new.wx = new.wy ^ new.wz
        for mine, its in ((self.wx, new.wx), (self.wy, new.wy), (self.wz, new.wz)):
            if mine >= 0 and mine != its:
                return None
        if new.x and new.wx >= 0 and new.wy >= 0 and new.wz != new.wx ^ new.wy:
            return None
        new.turns = [*self.turns, (axis, turn)]
        return new


def _quarters(angle: float) -> int | None:
    """How many quarter turns, or None where it is not a whole number of them."""
    turns = angle / (math.pi / 2)
    return round(turns) if abs(turns - round(turns)) < 1e-12 else None


def _walk(program: Program) -> tuple[list[list[Turn]], list[Turn], Frame]:
    """The rotations in the Clifford frame: those of the product start for each bit, and the others, in order."""
    frame = Frame(program.n_qubits)
    start: list[list[Turn]] = [[] for _ in range(program.n_qubits)]
    turns: list[Turn] = []

    def starts(word: Word) -> bool:
        """Whether a rotation can be part of the product start."""
        one_qubit = (word.x | word.z).bit_count() == 1 and not program.amplitudes
        return one_qubit and not any(word.anticommutes(turn.word) for turn in reversed(turns))

    for op in program.ops:
        # A Clifford gate of several wires keeps the words simple only as a whole, so none of its parts starts.
        whole = isinstance(op, Clifford) and len(op.wires) > 1
        for rotation in replace(program, ops=(op,)).rotations():
            mask = program.mask(rotation)
            image = frame.pull(mask.x, mask.z)
            angle = -1 if rotation.angle is None else rotation.angle
            scale = image.sign * rotation.scale if angle >= 0 else 0.0
            turn = Turn(Word.hermitian(image.x, image.z), angle, scale, image.sign * rotation.offset)
            if not image.x | image.z:
                continue
            quarters = _quarters(rotation.offset) if angle < 0 else None
            if not whole and starts(image):
                start[(image.x | image.z).bit_length() - 1].append(turn)
            elif quarters is not None:
                frame.turn(mask.x, mask.z, quarters)
            else:
                turns.append(turn)
    return start, turns, frame


def _diagonalise(words: list[Word], chosen: Iterable[int]) -> list[Word]:
    """Words about which to turn by pi/2 so that the chosen, commuting words of the list have no x-mask; changes the list."""
    about = []
    for k in chosen:
        word = words[k]
        if word.x:
            low = word.x & -word.x
            product = word.times(Word(0, low))
            turned = Word.hermitian(product.x, product.z)
            about.append(turned)
            for j, other in enumerate(words):
                if other.anticommutes(turned):
                    words[j] = turned.times(other, 3)  # V Q V^dagger = -i R Q
    return about


def _visible(turns: list[Turn], measured: Iterable[Word]) -> list[Turn]:
    """The rotations without those that commute with all that comes after them."""
    later = list(measured)
    xs = np.zeros(len(turns) + len(later), np.int64)
    zs = np.zeros_like(xs)
    for k, word in enumerate(later):
        xs[k], zs[k] = word.x, word.z
    kept: list[Turn] = []
    n = len(later)
    for turn in reversed(turns):
        x, z = turn.word.x, turn.word.z
        if ((np.bitwise_count(xs[:n] & z) + np.bitwise_count(zs[:n] & x)) & 1).any():
            kept.append(turn)
            xs[n], zs[n] = x, z
            n += 1
    return kept[::-1]


def _merge(turns: list[Turn]) -> list[Run]:
    """Passes: every rotation joins the latest run that it fits and can be moved to."""
    runs: list[Run] = []
    for turn in turns:
        for k in range(len(runs) - 1, -1, -1):
            joined = runs[k].joined(turn)
            if joined is not None:
                runs[k] = joined
                break
            if any(turn.word.anticommutes(word) for word in runs[k].words):
                runs.append(Run().joined(turn))
                break
        else:
            runs.append(Run().joined(turn))
    return runs


# ---- flat arrays -----------------------------------------------------------------------------------------------------

MATRIX, REAL, IMAGINARY, PHASE = range(4)  # kinds of passes


class _Pairs:
    """Tables that list pairs of amplitudes: ``i = hi[p >> k] ^ lo[p & (2^k - 1)]`` runs over all i with an even
    ``parity(i & even)``, the sign bit of hi is ``parity(i & sign)``, which is the same for all of lo."""

    def __init__(self, n_qubits: int):
        self.n = n_qubits
        self.words: list[int] = []
        self.known: dict[tuple[int, int], tuple[int, int, int, int]] = {}

    def table(self, even: int, sign: int) -> tuple[int, int, int, int]:
        """Where lo starts, its length, where hi starts, its length."""
        if (even, sign) not in self.known:
            top = 1 << even.bit_length() >> 1
            basis = [1 << b for b in range(self.n) if 1 << b != top]
            basis = [b ^ top if b & even else b for b in basis]
            odd = [k for k, b in enumerate(basis) if (b & sign).bit_count() & 1]
            if odd:  # keep the last vector with a sign, and put it last
                last = basis[odd[-1]]
                basis = [b ^ last if k in odd else b for k, b in enumerate(basis) if k != odd[-1]] + [last]
            k = max(0, min(len(basis) - 1, max(5, len(basis) // 2)))
            lo, hi = _span(basis[:k]), _span(basis[k:])
            if odd:
                hi = [h | SIGN if j >= len(hi) // 2 else h for j, h in enumerate(hi)]
            at = len(self.words)
            self.words += lo + hi
            self.known[even, sign] = at, len(lo), at + len(lo), len(hi)
        return self.known[even, sign]


def _span(basis: list[int]) -> list[int]:
    """All sums of basis vectors, the first vector the least significant."""
    span = [0]
    for vector in basis:
        span += [s ^ vector for s in span]
    return span


class Tables(NamedTuple):
    """A compiled program as arrays.

    Attributes:
        runs: (R, 8) kind, x, first and last rotation, lo, its length, hi, its length. The first N (none with amplitudes
            given) are the product start, bit 0 first.
        turns: (E, 2) axis, angle (-1: fixed).
        affine: (E, 2) scale and offset of the angle.
        pairs: the index tables of runs and terms.
        diagonal: (D, 2) output, z-mask of the measured words without x-mask.
        others: (T, 7) output, x, axis, lo, its length, hi, its length of the rest.
        weights: (D + T,) coefficients of both.
        probs: (Q, 5) first output, lo, its length, hi, its length: ``hi[i >> k] ^ lo[i & (2^k - 1)]`` is the outcome.
    """

    runs: np.ndarray
    turns: np.ndarray
    affine: np.ndarray
    pairs: np.ndarray
    diagonal: np.ndarray
    others: np.ndarray
    weights: np.ndarray
    probs: np.ndarray


@dataclass(frozen=True)
class Plan:
    """A compiled program: `tables` for the kernels, and what Python wants to know about it."""

    n_qubits: int
    n_outputs: int
    n_angles: int
    n_start: int
    amplitudes: bool
    runs: tuple[Run, ...]
    tables: Tables


def compile_program(program: Program) -> Plan:
    """The passes and measurements of a program."""
    n = program.n_qubits
    start, turns, frame = _walk(program)

    measured: list[Word] = []
    targets: list[tuple[int, float]] = []  # output and coefficient of each measured word; output -1 for probabilities
    wires_at: list[tuple[int, int, int]] = []  # first output, first word, number of words of probabilities
    column = 0
    for measurement in program.measurements:
        if isinstance(measurement, Probs):
            wires_at.append((column, len(measured), len(measurement.wires)))
            masks = [pauli_mask("Z", (w,), n) for w in measurement.wires]
            targets += [(-1, 1.0)] * len(masks)
            column += 2 ** len(masks)
        else:
            masks = [pauli_mask(word, wires, n) for _, word, wires in measurement.terms]
            targets += [(column, coefficient) for coefficient, _, _ in measurement.terms]
            column += 1
        measured += [frame.pull(mask.x, mask.z) for mask in masks]
    for word in _diagonalise(measured, [k for k, (out, _) in enumerate(targets) if out < 0]):
        turns.append(Turn(word, -1, 0.0, math.pi / 2))

    runs = _merge(_visible(turns, measured))
    first = [] if program.amplitudes else [_start_run(bit, turns_of) for bit, turns_of in enumerate(start)]
    pairs = _Pairs(n)
    run_rows, turn_rows, affine = [], [], []
    for run in [*first, *runs]:
        kind, x, even, sign, signs = _layout(run)
        run_rows.append((kind, x, len(turn_rows), len(turn_rows) + len(run.turns), *pairs.table(even, sign)))
        for (axis, turn), by in zip(run.turns, signs, strict=True):
            turn_rows.append((axis, turn.angle))
            affine.append((by * turn.scale, by * turn.offset))

    diagonal, others, weights = [], [], []
    for word, (out, coefficient) in zip(measured, targets, strict=True):
        if out >= 0 and not word.x:
            diagonal.append((out, word.z))
            weights.append(coefficient * word.sign)
    for word, (out, coefficient) in zip(measured, targets, strict=True):
        if out >= 0 and word.x:
            run = Run().joined(Turn(Word.hermitian(word.x, word.z), -1, 0.0, 0.0))
            _, x, even, sign, (by,) = _layout(run)
            others.append((out, x, run.turns[0][0], *pairs.table(even, sign)))
            weights.append(coefficient * word.sign * by)

    probs = []
    for column, at, size in wires_at:
        words = measured[at : at + size]
        image = [sum(1 << (size - 1 - k) for k, w in enumerate(words) if w.z >> b & 1) for b in range(n)]
        flips = sum(1 << (size - 1 - k) for k, w in enumerate(words) if w.sign < 0)
        lo, hi = _span(image[: n // 2]), [h ^ flips for h in _span(image[n // 2 :])]
        probs.append((column, len(pairs.words), len(lo), len(pairs.words) + len(lo), len(hi)))
        pairs.words += lo + hi

    tables = Tables(
        np.array(run_rows, np.int64).reshape(-1, 8),
        np.array(turn_rows, np.int64).reshape(-1, 2),
        np.array(affine, np.float64).reshape(-1, 2),
        np.array(pairs.words, np.int64),
        np.array(diagonal, np.int64).reshape(-1, 2),
        np.array(others, np.int64).reshape(-1, 7),
        np.array(weights, np.float64),
        np.array(probs, np.int64).reshape(-1, 5),
    )
    return Plan(n, program.n_outputs, program.n_angles, len(first), program.amplitudes, tuple(runs), tables)


def _start_run(bit: int, turns: list[Turn]) -> Run:
    """The rotations of one qubit that has met no other: an ordinary run on the pairs of its bit."""
    run = Run(1 << bit, 0, 1 << bit, 1 << bit)
    for turn in turns:
        run = run.joined(turn)
    return run


def _layout(run: Run) -> tuple[int, int, int, int, list[int]]:
    """Kind of pass, x, masks of the pairs' even parity and sign, and the sign of every rotation's word in its pair."""
    axes = {axis for axis, _ in run.turns}
    if not run.x:
        # Lone phases: pairs of amplitudes that differ in the highest bit of the word.
        return PHASE, 1 << run.wz.bit_length() >> 1, run.wz, 0, [1] * len(run.turns)
    even = run.wz if run.wz >= 0 else 1 << run.x.bit_length() >> 1
    sign = run.wx if run.wx >= 0 else run.wy ^ even
    signs = []
    for axis, turn in run.turns:
        power = (turn.word.x & turn.word.z).bit_count() % 4  # <i|P|i ^ x> = i^power (-1)^parity
        signs.append(1 if axis == Z or power < 2 else -1)
    kind = {frozenset({X}): IMAGINARY, frozenset({Y}): REAL}.get(frozenset(axes), MATRIX)
    return kind, run.x, even, sign, signs

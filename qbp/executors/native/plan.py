"""A program as flat arrays of integers, as the kernels want it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qbp.circuit.frame import Measured, Rotations, Turn, in_frame
from qbp.circuit.pauli import Word
from qbp.circuit.program import Program
from qbp.executors.native.kernels.conventions import DIAGONAL, EVENT, IN_SWEEP, SWEEP, Tables
from qbp.executors.native.schedule import SPAN, Block, Item, Pass, blocks, cosets, placed, span_of

__all__ = ["Plan", "compile_frame", "compile_program", "sign_of"]

Row = tuple[int, ...]
N_COLUMNS = {"arguments": 5, "start": 2, "blocks": 4, "items": 12, "words": 3, "diagonal": 2, "others": 8, "probs": 3}


@dataclass(frozen=True)
class Plan:
    """A compiled program.

    Attributes:
        tables: for the kernels.
        arrays: the same as the kernels take it.
        n_batched: Kb.
        n_outputs, n_items, n_arguments, n_phases: M, Q, A and F, as in `Tables` and `Common`.
        n_span: number of registers in a coset of a block.
        bits: of an amplitude's index, that tell the lanes of a register apart; 0 where lanes are samples.
        marks: (A,) of the rotations of each argument (`qbp.circuit.frame.Turn`).
    """

    program: Program
    tables: Tables
    arrays: tuple[np.ndarray, ...]
    n_qubits: int
    n_batched: int
    n_outputs: int
    n_items: int
    n_arguments: int
    n_phases: int
    n_span: int
    bits: int
    marks: np.ndarray

    @property
    def n_cosets(self) -> int:
        """Cosets of a block."""
        return (1 << self.n_qubits - self.bits) // self.n_span

    def work(self, per_argument: int) -> int:
        """Registers of scratch that a kernel needs besides states."""
        return 2 * self.n_span + self.n_outputs + 4 * self.n_qubits + per_argument * self.n_arguments


class _Builder:
    """Collects the rows of the tables."""

    def __init__(self, n_qubits: int, n_batched: int, bits: int):
        self.n, self.n_batched, self.bits, self.n_phases = n_qubits, n_batched, bits, 0
        self.arguments: list[Row] = []
        self.marks: list[int] = []
        self.terms: list[int] = []
        self.offsets: list[float] = []
        self.scales: list[float] = []
        self.coefficients: list[float] = []
        self.start: list[Row] = []
        self.blocks: list[Row] = []
        self.items: list[Row] = []
        self.words: list[Row] = []
        self.places: list[int] = []
        self.diagonal: list[Row] = []
        self.others: list[Row] = []
        self.probs: list[Row] = []
        self._known: dict[tuple[int, ...], int] = {}

    def argument(self, turns: list[Turn], sign: int, axis: int = 0, z: int = 0) -> int:
        """A new argument, the sum of the angles of some rotations about one word."""
        first = len(self.terms)
        self.offsets.append(sum(sign * turn.offset / 2 for turn in turns))
        for turn in turns:
            if turn.angle >= 0:
                self.terms.append(turn.angle)
                self.scales.append(sign * turn.scale / 2)
        differ = turns[0].event or any(angle < self.n_batched for angle in self.terms[first:])
        self.marks.append(turns[0].mark)
        self.arguments.append((first, len(self.terms), int(differ), axis, z & (1 << self.bits) - 1))
        return len(self.arguments) - 1

    def table(self, places: list[int]) -> tuple[int, int]:
        """Where a table of places starts, and its length; equal ones are kept once."""
        key = tuple(places)
        if key not in self._known:
            self._known[key] = len(self.places)
            self.places += places
        return self._known[key], len(places)

    def add_start(self, rotations: Rotations) -> None:
        for turns in rotations.start:
            rows = [self.argument([turn], 1, _axis(turn.word)) for turn in turns]
            self.start.append((rows[0], rows[-1] + 1) if rows else (0, 0))

    def add_block(self, block: Block) -> None:
        first = len(self.items)
        basis = sorted(block.span.values())
        for item in block.items:
            if item.kind in (DIAGONAL, SWEEP):
                self.add_phases(item, basis)
            elif item.kind == EVENT:
                self.add_event(item.passes[0])
            else:
                self.add_passes(item, block.span)
        units = [1 << b for b in range(self.n - self.bits) if 1 << b not in block.span]
        cosets_at, span_at = self.table(span_of(units))[0], self.table(span_of(basis))[0]
        self.blocks.append((first, len(self.items), cosets_at, span_at))

    def add_phases(self, item: Item, basis: list[int]) -> None:
        first = len(self.words)
        for one in item.passes:
            z = one.word.z
            local = sum(1 << k for k, vector in enumerate(basis) if (vector & z >> self.bits).bit_count() & 1)
            axis = IN_SWEEP if item.kind == SWEEP else 0
            self.words.append((z, local, self.argument(one.turns, sign_of(one.word), axis, z)))
        self.items.append((item.kind, self.n_phases, first, len(self.words), *[0] * 8))
        self.n_phases += item.kind == DIAGONAL

    def add_passes(self, item: Item, span: dict[int, int]) -> None:
        rows = [self.argument(one.turns, sign_of(one.word), z=one.word.z) for one in item.passes]
        words = [one.word for one in item.passes]
        lo, hi = (self.table(table) for table in cosets(span, self.of_registers(*words), self.n))
        (x_1, z_1, _), (x_2, z_2, _) = words[0], words[-1]
        crossed = (x_2 & z_1).bit_count() % 2 + 2 * ((x_1 & z_2).bit_count() % 2)
        self.items.append((item.kind, x_1, z_1, rows[0], x_2, z_2, rows[-1], *lo, *hi, crossed))

    def add_event(self, one: Pass) -> None:
        (x, z, _), n_registers = one.word, self.n - self.bits
        everything = {1 << b: 1 << b for b in range(n_registers)}
        row = self.argument(one.turns, 1)
        lo, hi = (self.table(t) for t in cosets(everything, self.of_registers(one.word), max(5, n_registers // 2)))
        self.items.append((EVENT, x, z, row, 0, 0, 0, *lo, *hi, (x & z).bit_count() & 1))

    def of_registers(self, *words: Word) -> list[Word]:
        """Words without the bits of the lanes."""
        return [Word(word.x >> self.bits, word.z >> self.bits) for word in words]

    def add_measured(self, measured: Measured) -> None:
        n_registers = self.n - self.bits
        everything = {1 << b: 1 << b for b in range(n_registers)}
        for out, coefficient, word in sorted(measured.terms, key=lambda term: term[2].x != 0):
            x, z, _ = placed(word, self.n, self.bits)
            self.coefficients.append(coefficient * sign_of(word))
            if x:
                imaginary = (x & z).bit_count() & 1
                n_lo = max(5, n_registers // 2)
                lo, hi = (self.table(t) for t in cosets(everything, self.of_registers(Word(x, z)), n_lo))
                self.others.append((out, x, z, imaginary, *lo, *hi))
            else:
                self.diagonal.append((out, z))
        for out, words in measured.probs:
            signs = list(enumerate(reversed(words)))  # the last word is the lowest bit of the outcome
            image = [sum(1 << k for k, w in signs if placed(w, self.n, self.bits).z >> b & 1) for b in range(self.n)]
            flips = sum(1 << k for k, w in signs if sign_of(w) < 0)
            low, high = span_of(image[: self.n // 2]), [h ^ flips for h in span_of(image[self.n // 2 :])]
            self.probs.append((out, self.table(low)[0], self.table(high)[0]))

    def tables(self) -> Tables:
        rows = {
            name: np.array(getattr(self, name), np.int64).reshape(-1, n_columns)
            for name, n_columns in N_COLUMNS.items()
        }
        numbers = {name: np.array(getattr(self, name), np.float64) for name in ("offsets", "scales", "coefficients")}
        return Tables(terms=np.array(self.terms, np.int64), places=np.array(self.places, np.int32), **numbers, **rows)


def compile_program(program: Program, n_batched: int, bits: int = 0) -> Plan:
    """The passes and measurements of a program.

    Args:
        n_batched: how many angles, the first, differ between the samples in a register.
        bits: of an amplitude's index, that tell the lanes of a register apart; 0 where lanes are samples.
    """
    return compile_frame(program, *in_frame(program), n_batched, bits)


def compile_frame(program: Program, rotations: Rotations, measured: Measured, n_batched: int, bits: int = 0) -> Plan:
    """The same of a program that is in its frame."""
    n = program.n_qubits
    builder = _Builder(n, n_batched, bits)
    if not program.amplitudes:
        builder.add_start(rotations)
    turns = [replace(turn, word=placed(turn.word, n, bits)) for turn in rotations.turns]
    for block in blocks(turns, n_batched, n, bits):
        builder.add_block(block)
    builder.add_measured(measured)
    tables, marks = builder.tables(), np.array(builder.marks, np.int64)
    sizes = program.n_outputs, len(tables.items), len(tables.arguments), builder.n_phases, 1 << min(SPAN, n - bits)
    return Plan(program, tables, tables.packed(), n, n_batched, *sizes, bits, marks)


def sign_of(word: Word) -> int:
    """The sign of ``<i| P |i ^ x>`` for even parity of i & z, which is 1, or -i with an odd number of Y."""
    return 1 if word.phase < 2 else -1


def _axis(word: Word) -> int:
    """0, 1, 2 for X, Y, Z, of a word of one qubit."""
    return 2 if not word.x else 1 if word.z else 0

"""A program as steps that words are carried back through, and the words that it measures, without Clifford gates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from itertools import product
from operator import or_
from typing import NamedTuple

import numpy as np

from qbp.circuit.frame import Frame
from qbp.circuit.gates import GATES
from qbp.circuit.pauli import Word
from qbp.circuit.program import Channel, Clifford, Expval, Probs, Program, Rotation
from qbp.circuit.readout import confusion, read
from qbp.errors import ArgumentError

__all__ = ["MOST_WIRES", "Entry", "Measured", "Step", "measured_words", "steps_of"]

MOST_WIRES = 6
"""Wires whose probabilities are measured: n of them are 2^n words."""


class Entry(NamedTuple):
    """One word of the sum that a word becomes: `coefficient` times the product of `word`, with its phase, and it."""

    word: Word
    coefficient: float
    sine: bool = False


class Step(NamedTuple):
    """What a rotation or a channel does to words that are carried back through it.

    Attributes:
        tests: words; which of them a word anticommutes with, the first being the lowest bit, is its row.
        rows: what words of each row become; None where they stay as they are. Of a rotation by an angle the first
            entry is times its cosine, the second times its sine.
        angle: (angle, scale, offset) of a rotation by ``scale * angles[angle] + offset``; None where all is fixed.
        letters: images of X and Z of each wire, by which letters in the circuit as it is written are told; empty where
            they are not wanted.
    """

    tests: tuple[Word, ...]
    rows: tuple[tuple[Entry, ...] | None, ...]
    angle: tuple[int, float, float] | None
    letters: tuple[Word, ...]

    @property
    def moves(self) -> int:
        """The mask of the qubits on which it can see a Z, or move an X."""
        return reduce(or_, (test.x for test in self.tests), 0)


class Measured(NamedTuple):
    """What is measured.

    Attributes:
        roots: sums of words, (coefficient, word with its sign in it), each of which is carried back by itself.
        outputs, sources, weights: output ``outputs[k]`` has ``weights[k]`` times root ``sources[k]``.
    """

    roots: tuple[tuple[tuple[float, Word], ...], ...]
    outputs: np.ndarray
    sources: np.ndarray
    weights: np.ndarray


def steps_of(program: Program, letters: bool) -> tuple[tuple[Step, ...], Frame]:
    """The steps of a program in order of time, and the Clifford gates of all of it, by which measured words go.

    Args:
        program: the program.
        letters: whether steps are to have theirs.
    """
    frame, steps = Frame(program.n_qubits), []
    now: tuple[Word, ...] | None = None  # the letters between the same Clifford gates are one tuple
    for op in program.ops:
        for rotation in [op] if isinstance(op, Channel) else _rotations(op):
            if isinstance(rotation, Rotation):
                before = program.word(rotation)
                quarters = rotation.offset / (math.pi / 2)
                if rotation.angle is None and abs(quarters - round(quarters)) < 1e-12:
                    frame.turn(before, round(quarters))
                    now = None
                    continue
            now = now or (_letters(frame) if letters else ())
            if isinstance(rotation, Channel):
                steps.append(_noise(rotation, frame, program.n_qubits, now))
            elif rotation.pauli:
                steps.append(_turn(rotation, frame.pull(before), now))
    return tuple(steps), frame


def measured_words(program: Program, frame: Frame) -> Measured:
    """The words that a program measures, readout errors included.

    Raises:
        ArgumentError: probabilities of more than `MOST_WIRES` wires.
    """
    roots: list[tuple[tuple[float, Word], ...]] = []
    parts: list[tuple[int, int, float]] = []
    output = 0

    def image(letters: str, wires: tuple[int, ...]) -> Word:
        return frame.pull(Word.of(letters, wires, program.n_qubits))

    for m in read(program):
        if isinstance(m, Expval):
            parts.append((output, len(roots), 1.0))
            roots.append(tuple((c, image(word, wires)) for c, word, wires in m.terms))
            output += 1
            continue
        n = len(m.wires)
        if n > MOST_WIRES:
            raise ArgumentError(
                f"Argument `backend` must be one that keeps the state for the probabilities of {n} wires, since they "
                f"are {2**n} words; 'pauli-propagation' has those of at most {MOST_WIRES}"
            )
        words, weights = _probabilities(program, m)
        for source, wires in enumerate(words):
            roots.append(((1.0, image("Z" * len(wires), wires)),))
            parts += [(output + o, len(roots) - 1, float(weights[o, source])) for o in range(2**n)]
        output += 2**n
    columns = list(zip(*parts, strict=True))
    return Measured(tuple(roots), np.array(columns[0]), np.array(columns[1]), np.array(columns[2]))


def _probabilities(program: Program, measured: Probs) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """On which of its wires the words of probabilities have a Z, and the weights (outcomes, words)."""
    chosen = list(product((0, 1), repeat=len(measured.wires)))
    signs = np.array([[(-1) ** sum(a * b for a, b in zip(o, s, strict=True)) for s in chosen] for o in chosen])
    weights = confusion(program, measured.wires) @ signs / len(chosen)
    return [tuple(w for w, on in zip(measured.wires, s, strict=True) if on) for s in chosen], weights


def _rotations(op: Rotation | Clifford) -> Iterator[Rotation]:
    if isinstance(op, Rotation):
        yield op
    else:
        for step in GATES[op.name].steps:
            yield Rotation(step.pauli, tuple(op.wires[w] for w in step.wires), None, offset=step.offset)


def _letters(frame: Frame) -> tuple[Word, ...]:
    """The images of X and Z of every wire, the lowest bit first."""
    n = len(frame.images) // 2
    return tuple(image for b in range(n) for image in (frame.images[1 << b, 0], frame.images[0, 1 << b]))


def _turn(rotation: Rotation, image: Word, letters: tuple[Word, ...]) -> Step:
    """``U^dagger Q U = cos t Q + sin t i P Q`` for a word Q that anticommutes with P (arXiv 2505.21606, eq. 5)."""
    times_i, stays = Word(image.x, image.z, (image.phase + 1) % 4), Word(0, 0)
    if rotation.angle is not None:
        row = Entry(stays, 1.0), Entry(times_i, 1.0, True)
        return Step((image,), (None, row), (rotation.angle, rotation.scale, rotation.offset), letters)
    fixed = Entry(stays, math.cos(rotation.offset)), Entry(times_i, math.sin(rotation.offset), True)
    return Step((image,), (None, fixed), None, letters)


def _noise(channel: Channel, frame: Frame, n_qubits: int, letters: tuple[Word, ...]) -> Step:
    """A channel: letters P on its wires become ``sum_Q R[P, Q] Q``."""
    k = len(channel.wires)
    tests = [frame.pull(Word.of(letter, (w,), n_qubits)) for w in channel.wires for letter in "ZX"]
    rows: list[list[Entry]] = [[] for _ in range(4**k)]
    for of, to, value in channel.transfer:
        code = 0
        pair: list[tuple[str, tuple[int, ...]]] = [("", ()), ("", ())]
        for j, wire in enumerate(channel.wires):
            digits = [number >> 2 * (k - 1 - j) & 3 for number in (of, to)]
            code |= ((digits[0] in (1, 2)) | (digits[0] in (2, 3)) << 1) << 2 * j
            pair = [(s + "IXYZ"[d], (*on, wire)) if d else (s, on) for (s, on), d in zip(pair, digits, strict=True)]
        before, after = (Word.of(s, on, n_qubits) for s, on in pair)
        times = Word.hermitian(before.x ^ after.x, before.z ^ after.z)
        image = frame.pull(times)
        turns = times.times(before).phase - after.phase  # times before = i^turns after
        rows[code].append(Entry(Word(image.x, image.z, (image.phase - turns) % 4), value))
    stays = [Entry(Word(0, 0), 1.0)]
    some = [None if row == stays else tuple(row) for row in rows]
    return Step(tuple(tests), (None, *some[1:]), None, letters)  # no letters there: as it is, since the trace is kept

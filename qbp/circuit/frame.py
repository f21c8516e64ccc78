"""The Clifford frame, which makes Clifford gates free.

A circuit is ``U = C V`` with a Clifford ``C`` that is never run and a product ``V`` of Pauli rotations: a rotation
about ``P`` after Clifford gates is one about ``C^dagger P C`` before them, and so is a measurement (arXiv 1808.02892).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from qbp.circuit.gates import GATES
from qbp.circuit.pauli import Word, bits
from qbp.circuit.program import Channel, Clifford, Probs, Program

__all__ = ["Frame", "Measured", "Rotations", "Turn", "in_frame", "walked"]


class Frame:
    """The Clifford gates so far, as the images ``C^dagger Q C`` of all one-qubit X and Z."""

    def __init__(self, n_qubits: int):
        self.images = {(1 << b, 0): Word(1 << b, 0) for b in range(n_qubits)}
        self.images |= {(0, 1 << b): Word(0, 1 << b) for b in range(n_qubits)}

    def pull(self, word: Word) -> Word:
        """``C^dagger P C`` of a word P."""
        image = Word(0, 0, word.phase)
        for bit in bits(word.x):
            image = image.times(self.images[bit, 0])
        for bit in bits(word.z):
            image = image.times(self.images[0, bit])
        return image

    def turn(self, about: Word, quarters: int) -> None:
        """Append the rotation by ``t = quarters * pi/2`` about R: ``Q -> exp(i t R) Q`` where Q anticommutes with R."""
        turned = self.pull(about)
        for key in [(bit, 0) for bit in bits(about.z)] + [(0, bit) for bit in bits(about.x)]:
            image = self.images[key]
            odd = quarters % 2  # exp(i t R) is 1, i R, -1, -i R
            self.images[key] = (turned if odd else Word(0, 0)).times(image, quarters % 4)


@dataclass(frozen=True)
class Turn:
    """A rotation about `word` (of sign +) by ``scale * angles[angle] + offset``; `angle` -1 is a fixed one.

    Where errors come in between, `mark` tells apart the rotations whose signs they flip differently, and `event` is a
    place where noise other than Pauli errors may act (`qbp.executors.trajectories`).
    """

    word: Word
    angle: int
    scale: float
    offset: float
    mark: int = 0
    event: bool = False


class Rotations(NamedTuple):
    """A circuit without Clifford gates.

    Attributes:
        start: for every bit the rotations of that bit alone that come before all else: they make a product state.
        turns: the other rotations, in order of time.
    """

    start: list[list[Turn]]
    turns: list[Turn]


class Measured(NamedTuple):
    """What is measured, in the frame.

    Attributes:
        terms: output, coefficient and word of every term of the expectation values.
        probs: first output and the words, without x-mask, whose signs are the bits of the outcome.
    """

    terms: list[tuple[int, float, Word]]
    probs: list[tuple[int, list[Word]]]


def in_frame(program: Program) -> tuple[Rotations, Measured]:
    """The rotations and measurements of a program with all Clifford gates conjugated away."""
    rotations, measured = walked(program)
    words = [word for _, _, word in measured.terms] + [word for _, words in measured.probs for word in words]
    return Rotations(rotations.start, _visible(rotations.turns, words)), measured


def walked(
    program: Program, at_channel: Callable[[Channel, Frame, Rotations], None] | None = None
) -> tuple[Rotations, Measured]:
    """The same with all rotations, also those that nothing sees.

    Args:
        program: the program.
        at_channel: called at each channel with the frame there and the rotations so far, to which it may add.
    """
    frame = Frame(program.n_qubits)
    start: list[list[Turn]] = [[] for _ in range(program.n_qubits)]
    turns: list[Turn] = []

    def starts(word: Word) -> bool:
        """Whether a rotation can be part of the product state."""
        one_qubit = (word.x | word.z).bit_count() == 1 and not program.amplitudes
        return one_qubit and not any(word.anticommutes(turn.word) for turn in reversed(turns))

    gates = program
    if at_channel is not None:
        gates = replace(program, ops=tuple(op for op in program.ops if not isinstance(op, Channel)))
    rotations = gates.rotations()
    for op in program.ops:
        if at_channel is not None and isinstance(op, Channel):
            at_channel(op, frame, Rotations(start, turns))
            continue
        parts = len(GATES[op.name].steps) if isinstance(op, Clifford) else 1
        # The parts of a Clifford gate of several wires keep the words simple only together, so none of them starts.
        whole = isinstance(op, Clifford) and len(op.wires) > 1
        for rotation in islice(rotations, parts):
            before = program.word(rotation)
            image = frame.pull(before)
            word = Word.hermitian(image.x, image.z)
            if rotation.angle is None:
                turn = Turn(word, -1, 0.0, image.sign * rotation.offset)
            else:
                turn = Turn(word, rotation.angle, image.sign * rotation.scale, image.sign * rotation.offset)
            quarters = rotation.offset / (math.pi / 2)
            if not whole and starts(word):
                start[(word.x | word.z).bit_length() - 1].append(turn)
            elif rotation.angle is None and abs(quarters - round(quarters)) < 1e-12:
                frame.turn(before, round(quarters))
            elif word.x | word.z:
                turns.append(turn)
    measured, undo = _measured(program, frame)
    return Rotations(start, turns + undo), measured


def _measured(program: Program, frame: Frame) -> tuple[Measured, list[Turn]]:
    """The measured words, and fixed rotations to append that take the x-masks from the words of probabilities."""
    terms: list[tuple[int, float, Word]] = []
    probs: list[tuple[int, list[Word]]] = []
    column = 0

    def image(letters: str, wires: tuple[int, ...]) -> Word:
        return frame.pull(Word.of(letters, wires, program.n_qubits))

    for measurement in program.measurements:
        if isinstance(measurement, Probs):
            probs.append((column, [image("Z", (w,)) for w in measurement.wires]))
            column += 2 ** len(measurement.wires)
        else:
            terms += [(column, coefficient, image(word, wires)) for coefficient, word, wires in measurement.terms]
            column += 1

    undo: list[Turn] = []

    def turned(word: Word) -> Word:
        """``V P V^dagger = -i R P`` with V the last appended quarter turn, about R."""
        about = undo[-1].word
        return about.times(word, 3) if about.anticommutes(word) else word

    for _, words in probs:
        for k in range(len(words)):
            if words[k].x:
                # About i P Z_b for a bit b of x: P becomes Z_b, and what commutes with P and Z_b stays as it is.
                product = words[k].times(Word(0, words[k].x & -words[k].x))
                undo.append(Turn(Word.hermitian(product.x, product.z), -1, 0.0, math.pi / 2))
                for _, others in probs:
                    others[:] = map(turned, others)
                terms = [(out, coefficient, turned(word)) for out, coefficient, word in terms]
    return Measured(terms, probs), undo


def _visible(turns: list[Turn], measured: Iterable[Word]) -> list[Turn]:
    """The rotations without those that commute with all that comes after them: no measurement can see them."""
    later = list(measured)
    widest = max((word.x | word.z for word in (*later, *(turn.word for turn in turns))), default=0)
    n_parts = -(-max(1, widest.bit_length()) // 63)  # a mask of more than 63 qubits takes several integers
    xs = np.zeros((n_parts, len(turns) + len(later)), np.int64)
    zs = np.zeros_like(xs)
    for k, word in enumerate(later):
        xs[:, k], zs[:, k] = _parts(word.x, n_parts), _parts(word.z, n_parts)
    kept: list[Turn] = []
    n = len(later)
    for turn in reversed(turns):
        x, z = _parts(turn.word.x, n_parts), _parts(turn.word.z, n_parts)
        crossings = np.bitwise_count(xs[:, :n] & z[:, None]) + np.bitwise_count(zs[:, :n] & x[:, None])
        if (crossings.sum(0, dtype=np.int64) & 1).any():
            kept.append(turn)
            xs[:, n], zs[:, n] = x, z
            n += 1
    return kept[::-1]


def _parts(mask: int, n_parts: int) -> np.ndarray:
    """A mask as integers of 63 bits, the lowest first."""
    return np.array([mask >> 63 * k & 2**63 - 1 for k in range(n_parts)], np.int64)

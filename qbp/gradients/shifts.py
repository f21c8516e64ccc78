"""Shift rules: which shifts of an angle make its derivative, and which angles move together."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache, reduce
from itertools import product
from typing import NamedTuple

import torch

from qbp.circuit.frame import Frame
from qbp.circuit.pauli import Word
from qbp.circuit.program import Program, Rotation
from qbp.errors import GradientError

__all__ = ["Shift", "frequencies", "moving_together", "shift_rule", "shift_terms"]


class Shift(NamedTuple):
    """An execution with one angle shifted, and what its outputs f say about derivatives.

    Attributes:
        angle: the number of the angle.
        by: the shift in radians.
        slopes: pairs ``(k, coefficient)``: ``df/dt_k`` is the sum of ``coefficient * f`` over executions.
    """

    angle: int
    by: float
    slopes: tuple[tuple[int, float], ...]


@lru_cache(maxsize=4096)
def frequencies(rotations: tuple[Rotation, ...]) -> tuple[float, ...]:
    """The positive frequencies with which expectation values vary with the angle that turns commuting `rotations`.

    They are the differences of the eigenvalues of the generator ``sum_r scale_r P_r / 2`` (arXiv 2107.12390,
    section 2).
    """
    n = 1 + max(w for r in rotations for w in r.wires)
    words = [Word.of(r.pauli, r.wires, n) for r in rotations]
    if any(a.anticommutes(b) for i, a in enumerate(words) for b in words[:i]):
        raise GradientError("An angle turns rotations that do not commute: there is no shift rule for it")
    # Independent words take every combination of signs, their products the product of those signs.
    basis: list[tuple[int, int]] = []  # (symplectic vector reduced, which generators it is a product of)
    combos: list[tuple[int, int]] = []  # for each rotation: generators, sign bit
    generators: list[int] = []
    for i, word in enumerate(words):
        vector, made_of = word.x << n | word.z, 0
        for reduced, parts in basis:
            if vector ^ reduced < vector:
                vector, made_of = vector ^ reduced, made_of ^ parts
        if vector:
            made_of ^= 1 << len(generators)
            basis = sorted([*basis, (vector, made_of)], reverse=True)
            combos.append((1 << len(generators), 0))
            generators.append(i)
        else:
            combos.append((made_of, _product_sign([words[generators[g]] for g in _bits(made_of)], word)))
    values = set()
    for signs in product((0, 1), repeat=len(generators)):
        bits = sum(s << g for g, s in enumerate(signs))
        value = sum(
            r.scale / 2 * (-1) ** ((combo & bits).bit_count() + sign)
            for r, (combo, sign) in zip(rotations, combos, strict=True)
        )
        values.add(round(value, 12))
    return tuple(sorted({round(a - b, 10) for a in values for b in values if a - b > 1e-9}))


def _bits(mask: int) -> list[int]:
    return [b for b in range(mask.bit_length()) if mask >> b & 1]


def _product_sign(factors: list[Word], target: Word) -> int:
    """0 if the product of commuting Pauli words is +target, 1 if it is -target."""
    product = reduce(Word.times, factors, Word(0, 0))
    return int(product != target)


@lru_cache(maxsize=4096)
def shift_rule(rotations: tuple[Rotation, ...]) -> tuple[tuple[float, float], ...]:
    """Pairs ``(coefficient, shift)`` with ``df/dt = sum coefficient * f(t + shift)``, exact.

    One frequency w gives the two-term rule ``w/2 [f(t + pi/2w) - f(t - pi/2w)]`` (arXiv 1811.11184), R frequencies 2R
    terms (arXiv 2107.12390, equation 18, solved for the frequencies at hand).
    """
    omegas = frequencies(rotations)
    if not omegas:
        return ()
    r = len(omegas)
    shifts = [(2 * mu + 1) * math.pi / (2 * r * omegas[0]) for mu in range(r)]
    matrix = torch.tensor([[2 * math.sin(w * s) for s in shifts] for w in omegas], dtype=torch.float64)
    if torch.linalg.cond(matrix) > 1e8:
        shifts = [math.pi * (mu + 1) / ((r + 1) * omegas[-1]) for mu in range(r)]
        matrix = torch.tensor([[2 * math.sin(w * s) for s in shifts] for w in omegas], dtype=torch.float64)
    coefficients = torch.linalg.solve(matrix, torch.tensor(omegas, dtype=torch.float64)).tolist()
    return tuple(term for c, s in zip(coefficients, shifts, strict=True) for term in ((c, s), (-c, -s)))


def shift_terms(program: Program, wanted: tuple[bool, ...]) -> list[Shift]:
    """The executions that the shift rules need for the angles that are wanted (K,); angles that move together share
    theirs."""
    rotations, terms = program.angle_rotations(), []
    for group in moving_together(program):
        members = [(k, scale) for k, scale in group if wanted[k]]
        if members:
            first, unit = members[0]
            for coefficient, shift in shift_rule(rotations[first]):
                slopes = tuple((k, coefficient * scale / unit) for k, scale in members)
                terms.append(Shift(first, shift, slopes))
    return terms


@lru_cache(maxsize=256)
def moving_together(program: Program) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Groups of angles, with factors, that a circuit depends on only by ``sum factor * angle``; as RX(x) RX(w).

    Without its Clifford gates (`qbp.circuit.pauli`) a circuit has rotations only. Angles that turn the same words, with
    nothing between them that does not commute with these, are one angle. Each angle is in one group, but those that
    turn nothing. With noise, which need not commute with anything, each is alone.
    """
    if program.is_noisy:
        turning = (k for k, rotations in enumerate(program.angle_rotations()) if any(r.scale for r in rotations))
        return tuple(((k, 1.0),) for k in turning)
    turns = _turns(program)
    places: dict[int, list[int]] = defaultdict(list)
    for place, (_, angle, scale) in enumerate(turns):
        if angle is not None and scale:
            places[angle].append(place)
    groups: list[list[tuple[int, float]]] = []
    latest: dict[tuple[object, ...], int] = {}  # the group of the last angle that turned these words
    for angle in sorted(places, key=lambda k: places[k][-1]):
        words = sorted((turns[p][0], turns[p][2]) for p in places[angle])
        unit = words[0][1]
        key = tuple((word.x, word.z, round(scale / unit, 12)) for word, scale in words)
        at = latest.get(key)
        if at is not None:
            before = groups[at][-1][0]
            between = range(min(places[before][0], places[angle][0]), places[angle][-1])
            own = {*places[before], *places[angle]}
            if not any(turns[p][0].anticommutes(word) for p in between if p not in own for word, _ in words):
                groups[at].append((angle, unit))
                continue
        latest[key] = len(groups)
        groups.append([(angle, unit)])
    return tuple(map(tuple, groups))


def _turns(program: Program) -> list[tuple[Word, int | None, float]]:
    """The rotations without Clifford gates, in order of time: word of sign +, angle (None: a fixed one), scale."""
    frame, turns = Frame(program.n_qubits), []
    for rotation in program.rotations():
        quarters = rotation.offset / (math.pi / 2)
        if rotation.angle is None and abs(quarters - round(quarters)) < 1e-12:
            frame.turn(program.word(rotation), round(quarters))
            continue
        image = frame.pull(program.word(rotation))
        turns.append((Word.hermitian(image.x, image.z), rotation.angle, image.sign * rotation.scale))
    return turns

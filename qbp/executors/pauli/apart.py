"""Wide, shallow circuits with noise taken apart: each measured word sees few wires, and is a small circuit of its own.

A word is carried back through the circuit as the letters that it may have on each wire. What leaves all of them as they
are is left out: gates and noise elsewhere, and rotations and Clifford gates that commute with them, as a CNOT with a Z
on its control; of noise on two wires what it does to one is left where the other has no letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from qbp.circuit.channels import Channel
from qbp.circuit.gates import GATES
from qbp.circuit.program import Clifford, Expval, Measurement, Op, Probs, Program, Rotation
from qbp.executors.pauli.letters import clifford

__all__ = ["WHOLE", "seen_at_most", "taken_apart"]

WHOLE = 6
"""Wires of a circuit that is never taken apart: going through it once is sooner done than through several."""

NONE, EVERY = 0b0001, 0b1111
"""Sets of letters as bits: I alone, and all of I, X, Y, Z."""

Part = tuple[Program, tuple[int, ...]]
"""A program, and which output each of its outputs is added to."""


@lru_cache(maxsize=128)
def taken_apart(program: Program) -> tuple[Part, ...]:
    """Programs of fewer wires, whose outputs add up to those of the program; one part where that costs less.

    Words that see the same wires stay together. Angles keep their numbers.
    """
    whole = ((program, tuple(range(program.n_outputs))),)
    n_seen = len(program.seen_wires())
    if program.amplitudes or n_seen <= WHOLE:
        return whole
    groups: dict[tuple[int, ...], list[tuple[int, Measurement]]] = {}
    for output, one in _single(program):
        groups.setdefault(_cone(program, [one])[1], []).append((output, one))
    parts = [part for wires, members in groups.items() for part in _parts(program, wires, members)]
    widths = [len(part.seen_wires()) for part, _ in parts]
    if len(parts) == 1:
        return tuple(parts) if widths[0] < n_seen else whole
    if 2 * sum(4.0 ** (width - n_seen) for width in widths) > 1:
        return whole
    return tuple(parts)


def seen_at_most(program: Program) -> int:
    """How many wires the widest part has."""
    return max(len(part.seen_wires()) for part, _ in taken_apart(program))


def _single(program: Program) -> Iterator[tuple[int, Measurement]]:
    """Each term of the measurements, and probabilities, with the output it adds to, or the first."""
    output = 0
    for m in program.measurements:
        if isinstance(m, Probs):
            yield output, m
            output += 2 ** len(m.wires)
        else:
            yield from ((output, Expval((term,))) for term in m.terms)
            output += 1


def _parts(program: Program, wires: tuple[int, ...], members: list[tuple[int, Measurement]]) -> Iterator[Part]:
    """What sees the same wires as one program, unless together they see more."""
    ops, together = _cone(program, [m for _, m in members])
    if together != wires:
        for member in members:
            yield _part(program, _cone(program, [member[1]])[0], [member])
    else:
        yield _part(program, ops, members)


def _part(program: Program, ops: list[Op], members: list[tuple[int, Measurement]]) -> Part:
    measurements: dict[tuple[int, bool], Measurement] = {}
    for output, m in members:
        before = measurements.get((output, isinstance(m, Probs)))
        if isinstance(before, Expval) and isinstance(m, Expval):
            m = Expval(before.terms + m.terms)
        measurements[output, isinstance(m, Probs)] = m
    outputs: list[int] = []
    for (first, _), m in measurements.items():
        outputs += range(first, first + (2 ** len(m.wires) if isinstance(m, Probs) else 1))
    return replace(program, ops=tuple(ops), measurements=tuple(measurements.values())).narrowed(), tuple(outputs)


def _cone(program: Program, measurements: Iterable[Measurement]) -> tuple[list[Op], tuple[int, ...]]:
    """The ops that measurements see, and the wires where these act or something is measured, sorted."""
    letters: dict[int, int] = {}
    for m in measurements:
        for _, word, on in [(1.0, "Z" * len(m.wires), m.wires)] if isinstance(m, Probs) else m.terms:
            for letter, w in zip(word, on, strict=True):
                letters[w] = letters.get(w, NONE) | _bit(letter)
    wires, ops = set(letters), list[Op]()
    for op in reversed(program.ops):
        if letters.keys().isdisjoint(op.wires):
            continue
        seen = _seen(op, tuple(letters.get(w, NONE) for w in op.wires))
        if seen is None:
            continue
        before, kept = seen
        ops.append(kept)
        wires.update(kept.wires)
        for w, those in zip(op.wires, before, strict=True):
            letters[w] = those
            if those == NONE:
                del letters[w]
    return ops[::-1], tuple(sorted(wires))


def _seen(op: Op, after: tuple[int, ...]) -> tuple[tuple[int, ...], Op] | None:
    """The letters before an op on its wires, and what of it is seen; None where it changes nothing."""
    if isinstance(op, Rotation):
        if not any(those & ~(NONE | _bit(letter)) for letter, those in zip(op.pauli, after, strict=True)):
            return None
        return tuple(those | _times(letter, those) for letter, those in zip(op.pauli, after, strict=True)), op
    if len(op.wires) > 2 or (isinstance(op, Clifford) and GATES[op.name].n_wires > 2):
        return (EVERY,) * len(op.wires), op
    before, same = _back(op.name, op.transfer if isinstance(op, Channel) else None, after)
    if same:
        return None
    idle = [k for k, (x, y) in enumerate(zip(before, after, strict=True)) if x == y == NONE]
    if isinstance(op, Channel) and idle and len(op.wires) == 2:
        k = 1 - idle[0]
        cube = op.matrix().reshape(4, 4, 4, 4)
        op = Channel.of_matrix(op.name, (op.wires[k],), cube[:, 0, :, 0] if k == 0 else cube[0, :, 0, :])
    return before, op


@lru_cache(maxsize=4096)
def _back(
    name: str, transfer: tuple[tuple[int, int, float], ...] | None, after: tuple[int, ...]
) -> tuple[tuple[int, ...], bool]:
    """The letters before a Clifford gate or noise on one or two wires, and whether it leaves them all as they are."""
    size = 4 ** len(after)
    if transfer is None:
        matrix = clifford(name)
    else:
        matrix = Channel(name, tuple(range(len(after))), transfer).matrix()
    digits = [np.arange(size) >> 2 * (len(after) - 1 - k) & 3 for k in range(len(after))]
    rows = np.all([1 << digit & those for digit, those in zip(digits, after, strict=True)], axis=0)
    columns = np.nonzero((np.abs(matrix[rows]) > 1e-15).any(0))[0]
    before = tuple(int(np.bitwise_or.reduce(1 << digit[columns], initial=NONE)) for digit in digits)
    return before, bool((matrix[rows] == np.eye(size)[rows]).all())


def _bit(letter: str) -> int:
    return 1 << "IXYZ".index(letter)


def _times(letter: str, those: int) -> int:
    """The letters that a letter makes of some."""
    code = "IXYZ".index(letter)
    return sum(1 << (k ^ code) for k in range(4) if those >> k & 1)

"""A program as passes over the expectation values of all Pauli words: which ops are done in one sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from qbp.circuit.gates import GATES
from qbp.circuit.program import Channel, Clifford, Op, Program
from qbp.executors.pauli.kernels.conventions import IS_FIXED, IS_WORD, MAP, ONE, PAIR, WORD
from qbp.executors.pauli.letters import clifford, of_wires, rotation, shifted

__all__ = ["Pass", "Step", "gathered", "in_front", "loss_of", "seen", "with_data_alone"]


class Step(NamedTuple):
    """A part of a run on one wire: a rotation about an axis (0, 1, 2), or a fixed map (4, 4)."""

    axis: int
    angle: int = -1
    scale: float = 0.0
    offset: float = 0.0
    fixed: np.ndarray | None = None


@dataclass
class Pass:
    """What is done in one sweep: a run of steps on one wire (ONE), a map of two wires or more (PAIR, MAP), or one
    rotation about a word (WORD)."""

    kind: int
    wires: tuple[int, ...]
    steps: list[Step]
    word: str = ""
    matrix: np.ndarray | None = None

    def loss(self) -> float:
        """By how much undoing it makes errors grow, at most; infinite where nothing undoes it."""
        if self.kind == WORD:
            return 1.0
        maps = [self.matrix] if self.matrix is not None else [step.fixed for step in self.steps]
        return float(np.prod([loss_of(matrix) for matrix in maps if matrix is not None]))


def loss_of(matrix: np.ndarray) -> float:
    """By how much undoing a map makes errors grow, at most."""
    values = np.linalg.svd(matrix[1:, 1:], compute_uv=False)  # the shift is taken away before
    return float(1 / values[-1]) if values[-1] > 1e-12 else np.inf


def gathered(program: Program) -> tuple[list[list[Step]], list[Pass]]:
    """What comes first on each wire, and the passes after it, in order of time."""
    builder = _Builder(program)
    for op in program.ops:
        builder.add(op)
    for w in range(program.n_qubits):
        builder.flush(w)
    return builder.start, builder.passes


@lru_cache(maxsize=128)
def in_front(program: Program, n_batched: int) -> bool:
    """Whether angles of samples, the first `n_batched`, turn nothing but what comes before the first pass."""
    _, passes = gathered(program.narrowed())
    return not program.amplitudes and not any(0 <= s.angle < n_batched for one in passes for s in one.steps)


def with_data_alone(start: list[list[Step]], passes: list[Pass], n_batched: int) -> tuple[list[list[Step]], list[Pass]]:
    """The same with starts that end with the last angle of samples on each wire, so that few letters hold the data."""
    short, rests = [], []
    for wire, steps in enumerate(start):
        end = max((k + 1 for k, step in enumerate(steps) if 0 <= step.angle < n_batched), default=0)
        short.append(steps[:end])
        if steps[end:]:
            rests.append(Pass(ONE, (wire,), steps[end:]))
    return short, [*rests, *passes]


class _Builder:
    """Gathers ops in passes: one-wire ops wait on their wire until something else comes there."""

    def __init__(self, program: Program):
        n = program.n_qubits
        self.program = program
        self.passes: list[Pass] = []
        self.waiting: list[list[Step]] = [[] for _ in range(n)]
        self.start: list[list[Step]] = [[] for _ in range(n)]
        self.started = [program.amplitudes] * n
        self.last: list[Pass | None] = [None] * n

    def add(self, op: Op) -> None:
        if not op.wires:
            return
        if isinstance(op, Channel):
            self.add_map(op.matrix(), op.wires)
        elif isinstance(op, Clifford):
            if GATES[op.name].n_wires <= 2:
                self.add_map(clifford(op.name), op.wires)
            else:
                for rotation_ in replace(self.program, ops=(op,)).rotations():
                    self.add(rotation_)
        elif len(op.wires) > 1:
            for w in op.wires:
                self.flush(w)
            step = Step(IS_WORD, -1 if op.angle is None else op.angle, op.scale, op.offset)
            self.append(Pass(WORD, op.wires, [step], op.pauli))
        elif op.angle is None:
            self.add_map(rotation(op.pauli, op.offset), op.wires)
        else:
            self.waiting[op.wires[0]].append(Step("XYZ".index(op.pauli), op.angle, op.scale, op.offset))

    def add_map(self, matrix: np.ndarray, wires: tuple[int, ...]) -> None:
        order = tuple(sorted(wires))
        matrix = of_wires(matrix, wires, order)
        if self._joined(matrix, order):
            return
        if len(order) == 1:
            steps = self.waiting[order[0]]
            if steps and steps[-1].fixed is not None:
                matrix = matrix @ steps.pop().fixed
            steps.append(Step(IS_FIXED, fixed=matrix))
            return
        if len(order) == 2:
            matrix = self._with_waiting(matrix, order)
        for w in order:
            self.flush(w)
        kind = PAIR if len(order) == 2 and shifted(matrix) is not None else MAP
        self.append(Pass(kind, order, [], matrix=matrix))

    def _joined(self, matrix: np.ndarray, wires: tuple[int, ...]) -> bool:
        """Whether the map became part of the pass on two wires that was the last on its own."""
        last = self.last[wires[0]]
        if last is None or last.matrix is None or len(last.wires) != 2 or not set(wires) <= set(last.wires):
            return False
        if any(self.last[w] is not last or self.waiting[w] for w in wires):
            return False
        joined = of_wires(matrix, wires, last.wires) @ last.matrix
        if last.kind == PAIR and shifted(joined) is None:
            return False
        last.matrix = joined
        return True

    def _with_waiting(self, matrix: np.ndarray, wires: tuple[int, ...]) -> np.ndarray:
        """The map after fixed maps that wait on its wires, where a pass can do both."""
        for k, w in enumerate(wires):
            steps = self.waiting[w]
            if self.started[w] and len(steps) == 1 and (fixed := steps[0].fixed) is not None:
                both = matrix @ of_wires(fixed, (k,), (0, 1))
                if shifted(both) is not None:
                    matrix = both
                    steps.clear()
        return matrix

    def flush(self, wire: int) -> None:
        """What waits on a wire becomes a pass, or its start."""
        steps, self.waiting[wire] = self.waiting[wire], []
        if not self.started[wire]:
            self.start[wire], self.started[wire] = steps, True
        elif steps:
            self.append(Pass(ONE, (wire,), steps))

    def append(self, one: Pass) -> None:
        self.passes.append(one)
        for w in one.wires:
            self.last[w] = one


def seen(passes: list[Pass], measured: np.ndarray, n_qubits: int) -> list[np.ndarray | None]:
    """For each pass the groups of words that outputs can see; None where these are all.

    A group is of the words that differ in the letters of the pass's wires only; its number has the letters of the other
    wires as its digits. Only I on these wires is left alone by all that keeps the trace.
    """
    words = np.zeros(4**n_qubits, bool)
    words[measured] = True
    cube, groups = words.reshape([4] * n_qubits), list[np.ndarray | None]()
    for one in reversed(passes):
        moved = np.moveaxis(cube, one.wires, range(-len(one.wires), 0))
        rows = moved.reshape(-1, 4 ** len(one.wires))
        seen = np.asarray(rows[:, 1:].any(1))
        groups.append(None if seen.all() else np.nonzero(seen)[0])
        rows = np.logical_or(rows, seen[:, None])
        cube = np.moveaxis(rows.reshape([4] * n_qubits), range(-len(one.wires), 0), one.wires)
    return groups[::-1]

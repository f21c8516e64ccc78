"""Windows: of every measured word only the part of the circuit that it sees, on as few qubits as that touches.

An output of a shallow circuit depends on few qubits, however many there are: gates that share no wire with the word
carried back to them, or commute with all that it becomes, cannot change it. So a wide circuit is many small ones, which
the native engine runs; those of one shape differ by their angles alone, and are one program.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial, reduce
from itertools import chain
from operator import or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.frame import Turn, in_frame
from qbp.circuit.pauli import Word, bits
from qbp.circuit.program import Expval, Measurement, Op, Probs, Program, Rotation
from qbp.errors import ArgumentError
from qbp.executors import Capabilities, Gradients, Results
from qbp.executors.native.threads import run_on_threads

__all__ = ["Windowed", "Windows", "windowed", "windows_of"]

NARROW = 12
"""Qubits of circuits that are never taken apart: their whole state is quicker."""

WIDEST = 28
"""Qubits of a window, beyond which no machine has the memory."""

THREADS_FROM = 1_000_000
"""Amplitudes times rotations of a window's batch from which on several threads are worth it: below, they wait for the
interpreter."""


class Shape(NamedTuple):
    """Windows that differ by their angles alone.

    Attributes:
        program: the small circuit; its batched angles come first, as ever.
        batched: (n, Kb) for each window which batched angles of the whole circuit its own are.
        shared: (n, Ks) likewise.
        outputs: (n,) the first output of the whole circuit that it adds to.
        weights: (n,) the coefficient with which it does.
    """

    program: Program
    batched: Tensor
    shared: Tensor
    outputs: Tensor
    weights: Tensor

    @property
    def cost(self) -> float:
        """Amplitudes times rotations of a sample of one window."""
        return (1 + len(self.program.ops)) * 2.0**self.program.n_qubits

    def n_threads(self, n_samples: int) -> int:
        """How many threads run the windows."""
        return torch.get_num_threads() if n_samples * self.cost >= THREADS_FROM else 1

    @property
    def columns(self) -> Tensor:
        """(n m,) the outputs of the whole circuit that those of the windows add to."""
        return (self.outputs[:, None] + torch.arange(self.program.n_outputs)).reshape(-1)


class Windowed(NamedTuple):
    """A program as windows.

    Attributes:
        shapes: its windows.
        constants: (M,) what is added to the outputs: terms that see no rotation.
    """

    shapes: tuple[Shape, ...]
    constants: Tensor

    @property
    def n_windows(self) -> int:
        return sum(len(shape.outputs) for shape in self.shapes)

    @property
    def n_qubits(self) -> int:
        """Those of the widest window."""
        return max((shape.program.n_qubits for shape in self.shapes), default=0)

    @property
    def cost(self) -> float:
        """Amplitudes times rotations of a sample."""
        return sum(len(shape.outputs) * shape.cost for shape in self.shapes)


class Saved(NamedTuple):
    """What the forward pass leaves of the windows of a shape: the angles of each, and what the engine left."""

    angles: Sequence[Angles]
    states: Sequence[Any]


class Windows:
    """Exact outputs of wide, shallow circuits, and their adjoint gradients: every window on an engine for small ones.

    A circuit that starts from amplitudes runs there as it is. Memory: that of the engine for the windows, all together
    while training.

    Args:
        engine: what runs the windows, `qbp.executors.native.Native`.
    """

    name = "windows"
    shots = None
    capabilities = Capabilities(adjoint=True, any_shape=True)

    def __init__(self, engine: Any):
        self._engine = engine

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), of the dtype and device of the angles."""
        if program.amplitudes:
            return self._engine(program, angles, amplitudes)
        return self._run(program, angles, amplitudes, keep=False)[0]

    def has_adjoint(self, program: Program) -> bool:
        """It has the adjoint rule for every program."""
        return True

    def forward(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> tuple[Results, Any]:
        """Outputs (B, M), and what `vjp` wants to find again."""
        if program.amplitudes:
            return self._engine.forward(program, angles, amplitudes)
        return self._run(program, angles, amplitudes, keep=True)

    def _run(
        self, program: Program, angles: Angles, amplitudes: Tensor | None, keep: bool
    ) -> tuple[Results, list[Saved]]:
        batched, shared = angles.batched.detach(), angles.shared.detach().reshape(-1)
        if batched.ndim != 2 or batched.shape[1] + len(shared) != program.n_angles:
            raise ArgumentError(
                f"Argument `angles` must hold {program.n_angles} angles, (B, Kb) batched and (Ks,) shared ones, "
                f"but has {tuple(batched.shape)} and {tuple(shared.shape)}"
            )
        if amplitudes is not None:
            raise ArgumentError("Argument `amplitudes` must be None for this program")
        windows = windows_of(program, batched.shape[1])
        values = windows.constants.to(batched).expand(len(batched), -1).clone()
        run = self._engine.forward if keep else self._engine
        saved: list[Saved] = []
        for shape in windows.shapes:
            of_batched, of_shared = batched.T[shape.batched].transpose(1, 2).contiguous(), shared[shape.shared]
            own = list(map(Angles, of_batched.unbind(), of_shared.unbind()))
            runs = _on_threads(shape.n_threads(len(batched)), partial(run, shape.program), own)
            if keep:
                saved.append(Saved(own, [state for _, state in runs]))
                runs = [results for results, _ in runs]
            weighted = (
                torch.stack([results.values for results in runs], 1) * shape.weights.to(batched)[:, None]
            )  # (B, n, m)
            values.index_add_(1, shape.columns.to(values.device), weighted.flatten(1))
        return Results(values), saved

    def vjp(
        self,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        saved: Any,
        grad: Tensor,
        needs: tuple[bool, bool, bool] = (True, True, True),
    ) -> Gradients:
        """Gradients of ``sum(grad * outputs)``; see `AdjointExecutor`."""
        if program.amplitudes:
            return self._engine.vjp(program, angles, amplitudes, saved, grad, needs)
        batched, shared = torch.zeros_like(angles.batched), torch.zeros_like(angles.shared).reshape(-1)
        windows = windows_of(program, batched.shape[1])
        for shape, (own, states) in zip(windows.shapes, saved, strict=True):
            n, m = len(own), shape.program.n_outputs
            grads = grad[:, shape.columns.to(grad.device)].reshape(len(grad), n, m) * shape.weights.to(grad)[:, None]
            grads = grads.transpose(0, 1).contiguous()  # (n, B, m)
            back = partial(self._engine.vjp, shape.program, needs=(needs[0], needs[1], False))
            each = _on_threads(shape.n_threads(len(grad)), back, own, [None] * n, states, list(grads))
            if needs[0]:
                columns = torch.stack([g.batched for g in each], 1).flatten(1)  # (B, n Kb)
                batched.index_add_(1, shape.batched.reshape(-1).to(batched.device), columns)
            if needs[1]:
                rows = torch.stack([g.shared for g in each]).reshape(-1)
                shared.index_add_(0, shape.shared.reshape(-1).to(shared.device), rows)
        return Gradients(batched if needs[0] else None, shared.view_as(angles.shared) if needs[1] else None)


def _on_threads(n_threads: int, function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """``list(map(function, *columns))``, on several threads."""
    rows = list(zip(*columns, strict=True))
    results: list[Any] = [None] * len(rows)
    left = deque(enumerate(rows))

    def work(_: Any) -> None:
        while True:
            try:
                k, row = left.popleft()
            except IndexError:
                return
            results[k] = function(*row)

    run_on_threads(work, None, min(len(rows), n_threads))
    return results


# ---- finding them ----------------------------------------------------------------------------------------------------

Window = tuple[int, float, Program | None, list[int]]
"""The first output that it adds to, with which coefficient, its program (None where its word is 1 always), and which
angles of the whole circuit those of the program are."""


@lru_cache(maxsize=64)
def windows_of(program: Program, n_batched: int) -> Windowed:
    """The windows of a program that starts from |0...0>.

    Args:
        program: the program.
        n_batched: Kb, how many of its angles, the first, differ between samples.
    """
    windows = windowed(program, n_batched, most=program.n_qubits)
    assert windows is not None
    return windows


def windowed(program: Program, n_batched: int = 0, *, most: int) -> Windowed | None:
    """The windows; None if one has more than `most` qubits."""
    kinds: dict[tuple[Program, int], list[tuple[list[int], int, float]]] = {}
    constants = torch.zeros(program.n_outputs, dtype=torch.float64)
    for output, weight, small, angles in chain(_words(program, n_batched, most), _probs(program, n_batched)):
        if small is None:
            constants[output] += weight
        elif small.n_qubits > most:
            return None
        else:
            own = sum(k < n_batched for k in angles)
            kinds.setdefault((small, own), []).append((angles, output, weight))
    return Windowed(tuple(_shape(small, own, rows, n_batched) for (small, own), rows in kinds.items()), constants)


def _shape(program: Program, own: int, rows: Sequence[tuple[list[int], int, float]], n_batched: int) -> Shape:
    """Windows of one program, whose first `own` angles are batched."""
    angles = torch.tensor([angles for angles, _, _ in rows], dtype=torch.int64).reshape(len(rows), -1)
    return Shape(
        program,
        angles[:, :own],
        angles[:, own:] - n_batched,
        torch.tensor([output for _, output, _ in rows]),
        torch.tensor([weight for _, _, weight in rows], dtype=torch.float64),
    )


def _columns(program: Program) -> Iterator[tuple[int, Measurement]]:
    """The measurements, each with its first output."""
    output = 0
    for measurement in program.measurements:
        yield output, measurement
        output += 2 ** len(measurement.wires) if isinstance(measurement, Probs) else 1


def _words(program: Program, n_batched: int, most: int) -> Iterator[Window]:
    """The windows of measured words: in the frame without Clifford gates, the rotations that do not commute with all
    that comes after them, on the qubits where those act that are not left in |0>."""
    columns = [(output, m) for output, m in _columns(program) if isinstance(m, Expval)]
    if not columns:
        return
    rotations, measured = in_frame(replace(program, measurements=tuple(m for _, m in columns)).narrowed())
    every = [turn for turns in rotations.start for turn in turns] + rotations.turns
    for column, coefficient, word in measured.terms:
        kept = _seen(word, every, most)
        moving = reduce(or_, (turn.word.x for turn in kept), word.x)
        on = {bit: wire for wire, bit in enumerate(reversed(list(bits(moving))))}  # elsewhere Z is 1, as |0> has it
        ops: list[Op] = []
        for turn in kept:
            letters, wires = _letters(turn.word, on)
            if turn.angle < 0:
                ops.append(Rotation(letters, wires, None, offset=turn.offset))
            else:
                ops.append(Rotation(letters, wires, turn.angle, turn.scale, turn.offset))
        output, weight = columns[column][0], coefficient * word.sign
        if moving:
            yield output, weight, *_numbered(len(on), ops, Expval(((1.0, *_letters(word, on)),)), n_batched)
        else:
            yield output, weight, None, []


def _seen(word: Word, turns: Sequence[Turn], most: int) -> list[Turn]:
    """The rotations that a word measured after them sees, in their order; those found until they act on more than
    `most` qubits."""
    kept: list[Turn] = []
    words = [word]
    support, moving = word.x | word.z, word.x
    for turn in reversed(turns):
        if moving.bit_count() > most:
            break
        mask = turn.word.x | turn.word.z
        if mask & support and any(turn.word.anticommutes(other) for other in words):
            kept.append(turn)
            words.append(turn.word)
            support, moving = support | mask, moving | turn.word.x
    return kept[::-1]


def _probs(program: Program, n_batched: int) -> Iterator[Window]:
    """The windows of probabilities: their light cones."""
    for output, measured in _columns(program):
        if isinstance(measured, Probs):
            cone = replace(program, measurements=(measured,)).narrowed()
            yield output, 1.0, *_numbered(cone.n_qubits, cone.ops, cone.measurements[0], n_batched)


def _numbered(n_qubits: int, ops: Sequence[Op], measurement: Measurement, n_batched: int) -> tuple[Program, list[int]]:
    """A program with its angles numbered in the order in which they come, batched ones first; and which they were."""
    order = list(dict.fromkeys(op.angle for op in ops if isinstance(op, Rotation) and op.angle is not None))
    angles = sorted(order, key=lambda k: k >= n_batched)  # else as they come
    new = {old: k for k, old in enumerate(angles)}
    numbered = tuple(
        replace(op, angle=new[op.angle]) if isinstance(op, Rotation) and op.angle is not None else op for op in ops
    )
    return Program(n_qubits, numbered, (measurement,), len(angles)), angles


def _letters(word: Word, at: Mapping[int, int]) -> tuple[str, tuple[int, ...]]:
    """A word's letters on the wires of a window, by the bits that the window has."""
    letters = {at[bit]: "ZXY"[bool(word.x & bit) * (1 + bool(word.z & bit))] for bit in at if (word.x | word.z) & bit}
    wires = sorted(letters)
    return "".join(letters[w] for w in wires), tuple(wires)

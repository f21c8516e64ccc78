"""Rotations back into the gates that they came from, for people and for other packages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qbp.circuit.gates import GATES, Gate, Step
from qbp.circuit.program import Op, Rotation

__all__ = ["GateCall", "Turn", "gate_calls"]

_CLOSE = 1e-12
_SINGLE = {"X": "RX", "Y": "RY", "Z": "RZ", "XX": "IsingXX", "YY": "IsingYY", "ZZ": "IsingZZ", "ZX": "RZX"}


class Turn(NamedTuple):
    """A gate's parameter: ``scale * angles[angle] + offset`` radians; the fixed `offset` where `angle` is None."""

    angle: int | None
    scale: float
    offset: float


class GateCall(NamedTuple):
    """A gate by its name in `GATES`, or a rotation about a Pauli word ("PauliRot").

    Attributes:
        name: of the gate.
        wires: that it acts on.
        params: its parameters.
        word: of a rotation that no gate of the table is, else "".
        ops: what it is made of.
    """

    name: str
    wires: tuple[int, ...]
    params: tuple[Turn, ...]
    word: str
    ops: tuple[Op, ...]


def gate_calls(ops: Sequence[Op]) -> Iterator[GateCall]:
    """The gates of a program's ops, in their order; a channel's name is its own.

    Example:
        >>> from qbp.circuit.program import Rotation
        >>> ops = Rotation("X", (1,), 0, 0.5), Rotation("ZX", (0, 1), 0, -0.5)
        >>> [(call.name, call.wires, call.params) for call in gate_calls(ops)]
        [('CRX', (0, 1), (Turn(angle=0, scale=1.0, offset=0.0),))]
    """
    k = 0
    while k < len(ops):
        call = next((match for gate in _COMPOSED if (match := _matched(gate, ops, k))), None) or _alone(ops[k])
        yield call
        k += len(call.ops)


def _alone(op: Op) -> GateCall:
    if not isinstance(op, Rotation):
        return GateCall(op.name, op.wires, (), "", (op,))
    turn = (Turn(None, 1.0, op.offset) if op.angle is None else Turn(op.angle, op.scale, op.offset),)
    wires = op.wires
    if op.pauli == "XZ":
        return GateCall("RZX", wires[::-1], turn, "", (op,))
    name = _SINGLE.get(op.pauli, "PauliRot")
    return GateCall(name, wires, turn, op.pauli if name == "PauliRot" else "", (op,))


def _commute(gate: Gate) -> bool:
    """Whether its rotations may stand in any order: an even number of differing letters on shared wires."""
    return all(_differing(a, b) % 2 == 0 for k, a in enumerate(gate.steps) for b in gate.steps[:k])


def _differing(a: Step, b: Step) -> int:
    letters = dict(zip(b.wires, b.pauli, strict=True))
    return sum(letters.get(wire, letter) != letter for letter, wire in zip(a.pauli, a.wires, strict=True))


_COMPOSED = tuple(
    sorted(
        (gate for gate in GATES.values() if len(gate.steps) > 1 and gate.n_params <= 1 and not gate.is_clifford),
        key=lambda gate: -len(gate.steps),
    )
)
"""Gates of several rotations, the longest first."""

_ANY_ORDER = {gate.name for gate in _COMPOSED if _commute(gate)}


def _matched(gate: Gate, ops: Sequence[Op], k: int) -> GateCall | None:
    """The gate, where the next ops are its rotations, in their order or, where they commute, the other way round."""
    part = tuple(ops[k : k + len(gate.steps)])
    if len(part) < len(gate.steps) or not _alike(part):
        return None
    orders = [gate.steps, gate.steps[::-1]] if gate.name in _ANY_ORDER else [gate.steps]
    for steps in orders:
        wires: dict[int, int] = {}
        turns: list[Turn] = []
        if all(_is_step(step, op, wires, turns) for step, op in zip(steps, part, strict=True)):
            return GateCall(gate.name, tuple(wires[w] for w in range(gate.n_wires)), tuple(turns[:1]), "", part)
    return None


def _alike(part: Sequence[Op]) -> bool:
    """Whether they may be one gate: rotations by one angle, or by none."""
    angles = {op.angle if isinstance(op, Rotation) else "no rotation" for op in part}
    return len(angles) == 1 and "no rotation" not in angles


def _is_step(step: Step, op: Op, wires: dict[int, int], turns: list[Turn]) -> bool:
    """Whether a rotation is the gate's step, given the wires and the parameter that others told."""
    if not isinstance(op, Rotation) or op.pauli != step.pauli:
        return False
    for own, wire in zip(step.wires, op.wires, strict=True):
        if wires.setdefault(own, wire) != wire:
            return False
    if len(set(wires.values())) < len(wires):
        return False
    if step.param is None:
        return op.angle is None and abs(op.offset - step.offset) < _CLOSE
    scale = 1.0 if op.angle is None else op.scale / step.scale
    turns.append(Turn(op.angle, scale, (op.offset - step.offset) / step.scale))
    first = turns[0]
    return abs(scale - first.scale) < _CLOSE and abs(turns[-1].offset - first.offset) < _CLOSE

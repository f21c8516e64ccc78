"""A quantum circuit as a function of a flat vector of angles: Pauli rotations, Clifford gates and measurements.

Pure data: frozen, hashable (a program is the cache key of compiled kernels and of transpiled circuits), without torch.
Wire 0 is the most significant bit of a basis state's index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any

from qbp.circuit.channels import Channel
from qbp.circuit.gates import GATES, Gate
from qbp.circuit.pauli import Word
from qbp.errors import ArgumentError, CircuitError
from qbp.limits import check_memory

__all__ = [
    "Channel",
    "Clifford",
    "Expval",
    "Op",
    "Probs",
    "Program",
    "Rotation",
    "gate_ops",
    "inverse_ops",
    "wires_of",
]


@dataclass(frozen=True)
class Rotation:
    """``exp(-i t P / 2)`` with the Pauli word `pauli` on `wires` and ``t = scale * angles[angle] + offset`` radians.

    `angle` None means the fixed angle `offset`. One angle may turn several rotations: they stand together and commute
    (a controlled phase is three such rotations), so that its shift rule is the one of the gate they make up.
    """

    pauli: str
    wires: tuple[int, ...]
    angle: int | None
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Clifford:
    """A Clifford gate by its name in `qbp.circuit.gates.GATES`."""

    name: str
    wires: tuple[int, ...]


Op = Rotation | Clifford | Channel


@dataclass(frozen=True)
class Expval:
    """The expectation value of a weighted sum of Pauli words: terms ``(coefficient, word, wires)``; one output.

    The empty word is the identity.
    """

    terms: tuple[tuple[float, str, tuple[int, ...]], ...]

    @staticmethod
    def word(pauli: str, *wires: int) -> Expval:
        """The expectation value of one Pauli word, as in ``Expval.word("ZX", 0, 3)``."""
        return Expval(((1.0, pauli, wires),))


@dataclass(frozen=True)
class Probs:
    """The probabilities of the outcomes of measuring `wires`; ``2 ** len(wires)`` outputs, the first wire most
    significant."""

    wires: tuple[int, ...]


Measurement = Expval | Probs

# How to undo the Clifford gates that are not their own inverse.
_UNDO: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "S": (("Adjoint(S)", (0,)),),
    "Adjoint(S)": (("S", (0,)),),
    "SX": (("Adjoint(SX)", (0,)),),
    "Adjoint(SX)": (("SX", (0,)),),
    "ISWAP": (("ISWAP", (0, 1)), ("PauliZ", (0,)), ("PauliZ", (1,))),
}


@dataclass(frozen=True)
class Program:
    """A circuit over `n_qubits` wires, its ops in order of time, and what is measured at its end.

    Attributes:
        n_qubits: N.
        ops: rotations, Clifford gates and channels in order of time.
        measurements: what is measured; the outputs of all of them, in order, are the M outputs.
        n_angles: K, the length of the vector of angles.
        amplitudes: whether the circuit starts from amplitudes given at run time, (B, 2^N), rather than from |0...0>.
        readout: ``(wire, p(1|0), p(0|1))`` for the wires that are read wrongly: the probability of reading 1 where the
            outcome is 0, and 0 where it is 1, whatever Pauli letter is measured there.
    """

    n_qubits: int
    ops: tuple[Op, ...]
    measurements: tuple[Measurement, ...]
    n_angles: int
    amplitudes: bool = False
    readout: tuple[tuple[int, float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.n_qubits < 1:
            raise ArgumentError(f"Argument `n_qubits` must be at least 1, but is {self.n_qubits}")
        for op in self.ops:
            self._check_wires(op.wires, op)
            if isinstance(op, Clifford):
                if op.name not in GATES or not GATES[op.name].is_clifford:
                    raise CircuitError(f"{op.name!r} is not the name of a Clifford gate")
                if len(op.wires) != GATES[op.name].n_wires:
                    raise CircuitError(f"{op.name} acts on {GATES[op.name].n_wires} wires, but has {op.wires}")
            elif isinstance(op, Rotation):
                self._check_word(op.pauli, op.wires, op)
                if op.angle is not None and not 0 <= op.angle < self.n_angles:
                    raise CircuitError(f"{op} names angle {op.angle}, but there are {self.n_angles}")
        read = [wire for wire, _, _ in self.readout]
        self._check_wires(tuple(read), "readout errors")
        for wire, *errors in self.readout:
            if not all(0 <= p <= 1 for p in errors):
                raise CircuitError(f"Readout errors must be probabilities, but those of wire {wire} are {errors}")
        if not self.measurements:
            raise CircuitError("A circuit must measure something: give at least one observable")
        for measurement in self.measurements:
            if isinstance(measurement, Probs):
                if not measurement.wires:
                    raise CircuitError("Probabilities need at least one wire")
                self._check_wires(measurement.wires, measurement)
                if len(measurement.wires) > 24:  # 2^24 outputs fit anywhere
                    check_memory(f"The probabilities of {len(measurement.wires)} qubits", 4, len(measurement.wires))
            else:
                if not measurement.terms:
                    raise CircuitError("An observable needs at least one term")
                for _, word, wires in measurement.terms:
                    self._check_wires(wires, measurement)
                    self._check_word(word, wires, measurement)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Found once: programs are the keys of caches, and this takes as long as running a small one."""
        return hash((self.n_qubits, self.ops, self.measurements, self.n_angles, self.amplitudes, self.readout))

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # nothing of it changes, and caches find the same object without looking into it

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}  # of this process only

    def _check_wires(self, wires: tuple[int, ...], what: object) -> None:
        if len(set(wires)) != len(wires) or any(not 0 <= w < self.n_qubits for w in wires):
            raise CircuitError(f"The wires of {what} must be different and below {self.n_qubits}")

    def _check_word(self, word: str, wires: tuple[int, ...], what: object) -> None:
        if len(word) != len(wires) or set(word) - set("XYZ"):
            raise CircuitError(f"The Pauli word of {what} must have one of X, Y, Z for each wire")

    @cached_property
    def n_outputs(self) -> int:
        """M: one for each expectation value, 2^wires for probabilities."""
        return sum(1 if isinstance(m, Expval) else 2 ** len(m.wires) for m in self.measurements)

    @cached_property
    def is_noisy(self) -> bool:
        """Whether it has channels or readout errors."""
        return bool(self.readout) or any(isinstance(op, Channel) for op in self.ops)

    def rotations(self) -> Iterator[Rotation]:
        """The ops with Clifford gates spelt out as rotations by multiples of pi/2: all that a simulator needs.

        Raises:
            CircuitError: if the program has channels.
        """
        for op in self.ops:
            if isinstance(op, Rotation):
                yield op
            elif isinstance(op, Channel):
                raise CircuitError(f"{op.name} is noise, which no sequence of rotations makes")
            else:
                yield from (
                    Rotation(step.pauli, tuple(op.wires[w] for w in step.wires), None, offset=step.offset)
                    for step in GATES[op.name].steps
                )

    def word(self, op: Rotation) -> Word:
        return Word.of(op.pauli, op.wires, self.n_qubits)

    def angle_rotations(self) -> tuple[tuple[Rotation, ...], ...]:
        """For every angle the rotations that it turns."""
        groups: list[list[Rotation]] = [[] for _ in range(self.n_angles)]
        for op in self.ops:
            if isinstance(op, Rotation) and op.angle is not None:
                groups[op.angle].append(op)
        return tuple(map(tuple, groups))

    # ---- pure edits ----------------------------------------------------------------------------------------------

    def drop_ops(self, drop: Callable[[Op], bool] | Iterable[int]) -> tuple[Program, tuple[int, ...]]:
        """The program without some ops, and which angles it kept, in order (the rest are no longer angles).

        Args:
            drop: positions in `ops`, or a function that says whether an op goes.
        """
        if callable(drop):
            kept_ops = [op for op in self.ops if not drop(op)]
        else:
            positions = set(drop)
            kept_ops = [op for i, op in enumerate(self.ops) if i not in positions]
        kept = sorted({op.angle for op in kept_ops if isinstance(op, Rotation) and op.angle is not None})
        new_index = {old: new for new, old in enumerate(kept)}
        ops = tuple(
            replace(op, angle=new_index[op.angle]) if isinstance(op, Rotation) and op.angle is not None else op
            for op in kept_ops
        )
        return replace(self, ops=ops, n_angles=len(kept)), tuple(kept)

    def lightcone(self) -> tuple[Program, tuple[int, ...]]:
        """The program without the ops that no measurement can see (as `drop_ops`): those that share no wire with what
        comes after them on the way to a measurement."""
        seen, _ = self._cone()
        return self.drop_ops(set(range(len(self.ops))).difference(seen))

    def narrowed(self) -> Program:
        """The program without the ops and the wires that no measurement can see; angles keep their numbers."""
        if self.amplitudes:
            return self
        seen, wires = self._cone()
        if len(wires) == self.n_qubits:
            return self
        place = {wire: k for k, wire in enumerate(wires or [0])}  # one is left for an identity alone

        def moved(on: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(place[w] for w in on)

        return replace(
            self,
            n_qubits=len(place),
            ops=tuple(replace(self.ops[i], wires=moved(self.ops[i].wires)) for i in seen),
            measurements=tuple(
                Probs(moved(m.wires))
                if isinstance(m, Probs)
                else Expval(tuple((c, word, moved(on)) for c, word, on in m.terms))
                for m in self.measurements
            ),
            readout=tuple((place[wire], ones, zeros) for wire, ones, zeros in self.readout if wire in place),
        )

    def seen_wires(self) -> tuple[int, ...]:
        """The wires of its light cone, sorted."""
        return tuple(self._cone()[1])

    def _cone(self) -> tuple[list[int], list[int]]:
        """The positions of the ops of the light cone, and its wires, both sorted."""
        wires = set(wires_of(self.measurements))
        seen = []
        for i in reversed(range(len(self.ops))):
            if not wires.isdisjoint(self.ops[i].wires):
                wires.update(self.ops[i].wires)
                seen.append(i)
        return seen[::-1], sorted(wires)

    def inverse(self) -> Program:
        """The program whose ops undo this one's; a CircuitError where it has channels."""
        return replace(self, ops=inverse_ops(self.ops))

    def counts(self) -> dict[str, int]:
        """How many ops of each kind: rotations by their word ("RX", "RZZ"), Clifford gates by their name."""
        return dict(Counter(f"R{op.pauli}" if isinstance(op, Rotation) else op.name for op in self.ops))


def wires_of(measurements: Iterable[Measurement]) -> tuple[int, ...]:
    """The wires that the measurements look at, sorted."""
    wires: set[int] = set()
    for m in measurements:
        wires.update(m.wires if isinstance(m, Probs) else (w for _, _, ws in m.terms for w in ws))
    return tuple(sorted(wires))


def inverse_ops(ops: Iterable[Op]) -> tuple[Op, ...]:
    """The ops that undo `ops`; a CircuitError where one is a channel."""
    undone: list[Op] = []
    for op in reversed(tuple(ops)):
        if isinstance(op, Channel):
            raise CircuitError(f"{op.name} is noise, which nothing undoes")
        if isinstance(op, Rotation):
            undone.append(replace(op, scale=-op.scale, offset=-op.offset))
        else:
            undo = _UNDO.get(op.name, ((op.name, tuple(range(len(op.wires)))),))
            undone += [Clifford(name, tuple(op.wires[w] for w in wires)) for name, wires in undo]
    return tuple(undone)


def gate_ops(gate: Gate, wires: tuple[int, ...], angles: Iterable[int | float]) -> tuple[Op, ...]:
    """The ops of one gate call.

    Args:
        gate: a row of the gate table.
        wires: the wires it acts on.
        angles: for each parameter the index of its angle (an int), or its fixed value in radians (a float).
    """
    params = tuple(angles)
    if len(params) != gate.n_params or len(wires) != gate.n_wires:
        raise CircuitError(
            f"Gate {gate.name} takes {gate.n_params} parameters and {gate.n_wires} wires, "
            f"but has {len(params)} and {len(wires)}"
        )
    if gate.is_clifford:
        return () if not gate.steps else (Clifford(gate.name, tuple(wires)),)
    ops: list[Op] = []
    for step in gate.steps:
        on = tuple(wires[w] for w in step.wires)
        value = None if step.param is None else params[step.param]
        if value is None:
            ops.append(Rotation(step.pauli, on, None, offset=step.offset))
        elif isinstance(value, Integral):  # an int of NumPy too
            ops.append(Rotation(step.pauli, on, int(value), step.scale, step.offset))
        else:
            ops.append(Rotation(step.pauli, on, None, offset=step.scale * value + step.offset))
    return tuple(ops)

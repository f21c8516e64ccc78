"""The gate table: one row per gate, and the only place where a gate is named.

Every gate is a product of Pauli rotations ``exp(-i t P / 2)``, up to a global phase, whose angles ``t`` are affine in
one parameter of the gate: ``t = scale * parameter + offset`` (radians). A gate without parameters whose offsets are all
multiples of pi/2 is a Clifford gate. Everything else that qbp needs to know follows from the rows: matrices, shift
rules (the frequencies of a parameter), adjoint gradients, the conjugation of Pauli words by Clifford gates.

Wire 0 of a gate is its first wire (the control, where there is one) and the most significant bit of its matrix.
Steps are in order of time: the first is applied first. Steps of one parameter stand together and commute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["GATES", "PENNYLANE", "QASM", "Gate", "Step", "qiskit_name"]

PI = math.pi


@dataclass(frozen=True)
class Step:
    """One Pauli rotation of a gate: the word `pauli` on `wires` by ``scale * params[param] + offset`` radians."""

    pauli: str
    wires: tuple[int, ...]
    param: int | None = None
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Gate:
    """One row of the table.

    Attributes:
        name: PennyLane's name of the gate, which is qbp's too.
        n_wires: number of wires.
        n_params: number of parameters.
        steps: its Pauli rotations in order of time.
        qasm: name in OpenQASM 3's ``stdgates.inc`` and in Qiskit ("" where it has none).
        aliases: further PennyLane names of the same gate.
        qiskit: Qiskit's name of the gate where it differs from `qasm`.
    """

    name: str
    n_wires: int
    n_params: int
    steps: tuple[Step, ...]
    qasm: str = ""
    aliases: tuple[str, ...] = field(default=())
    qiskit: str = ""

    @cached_property
    def is_clifford(self) -> bool:
        """Whether the gate maps Pauli words to Pauli words."""
        quarter_turns = (step.offset / (PI / 2) for step in self.steps)
        return self.n_params == 0 and all(abs(turn - round(turn)) < 1e-12 for turn in quarter_turns)


def _turn(pauli: str, *wires: int, by: float) -> Step:
    return Step(pauli, wires or tuple(range(len(pauli))), offset=by)


def _rotate(pauli: str, *wires: int, param: int = 0, scale: float = 1.0) -> Step:
    return Step(pauli, wires or tuple(range(len(pauli))), param=param, scale=scale)


def _controlled_phase(pauli: str, *, param: int | None = None, by: float = 1.0) -> tuple[Step, ...]:
    """Steps of ``exp(i t (1 - P_0)(1 - P_1)... / 2^n)`` with ``t = by * parameter``, or ``t = by`` without parameter.

    Expanding the product gives a rotation for every subset of the wires, with sign (-1)^(size + 1).
    """
    n = len(pauli)
    subsets = sorted((s for s in range(1, 2**n)), key=lambda s: (s.bit_count(), s))
    steps = []
    for subset in subsets:
        wires = tuple(w for w in range(n) if subset >> w & 1)
        word = "".join(pauli[w] for w in wires)
        amount = by * (-1) ** (len(wires) + 1) / 2 ** (n - 1)
        steps.append(
            Step(word, wires, offset=amount) if param is None else Step(word, wires, param=param, scale=amount)
        )
    return tuple(steps)


def _controlled_rotation(pauli: str, param: int = 0) -> tuple[Step, Step]:
    return (_rotate(pauli, 1, param=param, scale=0.5), _rotate("Z" + pauli, 0, 1, param=param, scale=-0.5))


_ROWS = (
    # Clifford gates
    Gate("Identity", 1, 0, (), "id", ("I",)),
    Gate("PauliX", 1, 0, (_turn("X", by=PI),), "x", ("X",)),
    Gate("PauliY", 1, 0, (_turn("Y", by=PI),), "y", ("Y",)),
    Gate("PauliZ", 1, 0, (_turn("Z", by=PI),), "z", ("Z",)),
    Gate("Hadamard", 1, 0, (_turn("Y", by=-PI / 2), _turn("Z", by=PI)), "h", ("H",)),
    Gate("S", 1, 0, (_turn("Z", by=PI / 2),), "s"),
    Gate("Adjoint(S)", 1, 0, (_turn("Z", by=-PI / 2),), "sdg"),
    Gate("SX", 1, 0, (_turn("X", by=PI / 2),), "sx"),
    Gate("Adjoint(SX)", 1, 0, (_turn("X", by=-PI / 2),), "", qiskit="sxdg"),
    Gate("CNOT", 2, 0, _controlled_phase("ZX", by=PI), "cx"),
    Gate("CY", 2, 0, _controlled_phase("ZY", by=PI), "cy"),
    Gate("CZ", 2, 0, _controlled_phase("ZZ", by=PI), "cz"),
    Gate("SWAP", 2, 0, tuple(_turn(p, by=-PI / 2) for p in ("XX", "YY", "ZZ")), "swap"),
    Gate("ISWAP", 2, 0, tuple(_turn(p, by=-PI / 2) for p in ("XX", "YY")), "", qiskit="iswap"),
    # PennyLane's ECR has its first wire where Qiskit's has its first qubit.
    Gate("ECR", 2, 0, (_turn("ZX", by=PI / 2), _turn("X", 0, by=PI)), "", qiskit="ecr"),
    # fixed gates that are not Clifford gates
    Gate("T", 1, 0, (_turn("Z", by=PI / 4),), "t"),
    Gate("Adjoint(T)", 1, 0, (_turn("Z", by=-PI / 4),), "tdg"),
    Gate(
        "CH",
        2,
        0,
        (_turn("Y", 1, by=-PI / 4), *_controlled_phase("ZZ", by=PI), _turn("Y", 1, by=PI / 4)),
        "ch",
    ),
    Gate("Toffoli", 3, 0, _controlled_phase("ZZX", by=PI), "ccx"),
    Gate("CCZ", 3, 0, _controlled_phase("ZZZ", by=PI), "", qiskit="ccz"),
    Gate(
        "CSWAP",
        3,
        0,
        (
            *(
                _turn(*args, by=by)
                for word in ("XX", "YY", "ZZ")
                for args, by in (((word, 1, 2), -PI / 4), (("Z" + word, 0, 1, 2), PI / 4))
            ),
            _turn("Z", 0, by=-PI / 4),
        ),
        "cswap",
    ),
    # one wire
    Gate("RX", 1, 1, (_rotate("X"),), "rx"),
    Gate("RY", 1, 1, (_rotate("Y"),), "ry"),
    Gate("RZ", 1, 1, (_rotate("Z"),), "rz"),
    Gate("PhaseShift", 1, 1, (_rotate("Z"),), "p", ("U1",)),
    Gate("U2", 1, 2, (_rotate("Z", param=1), _turn("Y", by=PI / 2), _rotate("Z", param=0)), "u2"),
    Gate("U3", 1, 3, (_rotate("Z", param=2), _rotate("Y", param=0), _rotate("Z", param=1)), "u3", qiskit="u"),
    Gate("Rot", 1, 3, (_rotate("Z", param=0), _rotate("Y", param=1), _rotate("Z", param=2))),
    # two wires
    Gate("IsingXX", 2, 1, (_rotate("XX"),), "", qiskit="rxx"),
    Gate("IsingYY", 2, 1, (_rotate("YY"),), "", qiskit="ryy"),
    Gate("IsingZZ", 2, 1, (_rotate("ZZ"),), "", qiskit="rzz"),
    Gate("RZX", 2, 1, (_rotate("ZX"),), "", qiskit="rzx"),
    Gate("IsingXY", 2, 1, tuple(_rotate(p, scale=-0.5) for p in ("XX", "YY"))),
    Gate("SingleExcitation", 2, 1, (_rotate("XY", scale=-0.5), _rotate("YX", scale=0.5))),
    Gate("CRX", 2, 1, _controlled_rotation("X"), "crx"),
    Gate("CRY", 2, 1, _controlled_rotation("Y"), "cry"),
    Gate("CRZ", 2, 1, _controlled_rotation("Z"), "crz"),
    Gate("ControlledPhaseShift", 2, 1, _controlled_phase("ZZ", param=0), "cp", ("CPhase",)),
    Gate(
        "CRot",
        2,
        3,
        (*_controlled_rotation("Z", 0), *_controlled_rotation("Y", 1), *_controlled_rotation("Z", 2)),
    ),
    # Qiskit's controlled U carries the phase that makes U differ from a Rot: half of phi and lambda, and gamma, on
    # the control.
    Gate(
        "CU",
        2,
        4,
        (
            _rotate("Z", 0, param=2, scale=0.5),
            *_controlled_rotation("Z", 2),
            *_controlled_rotation("Y", 0),
            *_controlled_rotation("Z", 1),
            _rotate("Z", 0, param=1, scale=0.5),
            _rotate("Z", 0, param=3),
        ),
        "cu",
    ),
)

GATES: dict[str, Gate] = {row.name: row for row in _ROWS}
"""Every gate by its name, PennyLane's."""

PENNYLANE: dict[str, Gate] = GATES | {alias: row for row in _ROWS for alias in row.aliases}
"""The same with PennyLane's further names."""

QASM: dict[str, Gate] = {row.qasm: row for row in _ROWS if row.qasm}
"""The gates of OpenQASM 3's ``stdgates.inc`` by their name there."""


def qiskit_name(gate: Gate) -> str:
    """Qiskit's name of the gate, "" where Qiskit has no such gate."""
    return gate.qiskit or gate.qasm

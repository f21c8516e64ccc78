"""Programs to test with: `NASTY`, known traps written by hand, and `random_program`, everything in between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.program import Clifford, Expval, Measurement, Op, Probs, Program, Rotation, gate_ops

__all__ = ["NASTY", "random_amplitudes", "random_angles", "random_program"]

PI = math.pi


def _of(
    n_qubits: int,
    calls: Iterable[Rotation | tuple[Any, ...]],
    *measurements: Measurement,
    n_angles: int = 0,
    amplitudes: bool = False,
) -> Program:
    """A program from rotations and gate calls ``(name, wires, *params)``; a parameter is an index or a fixed value."""
    ops: list[Op] = []
    for call in calls:
        ops += [call] if isinstance(call, Rotation) else gate_ops(GATES[call[0]], call[1], call[2:])
    return Program(n_qubits, tuple(ops), measurements, n_angles, amplitudes)


_word = Expval.word
_CLIFFORDS = [gate for gate in GATES.values() if gate.is_clifford]
_FIXED = [gate for gate in GATES.values() if not gate.is_clifford and not gate.n_params]
_SPREAD = [("RX", (0,), 0.4), ("RY", (1,), 1.1), ("RX", (2,), -0.7), ("CNOT", (0, 2)), ("RY", (0,), 2.0)]
"""A state without any symmetry on three wires."""

NASTY: dict[str, Program] = {
    "no ops": _of(1, [], _word("Z", 0)),
    "no angles": _of(2, [("RX", (0,), 0.3), ("Hadamard", (1,)), ("RY", (1,), 2.1)], _word("Z", 1), _word("XX", 0, 1)),
    "one wire": _of(1, [("RX", (0,), 0), ("RZ", (0,), 1)], *(_word(p, 0) for p in "ZXY"), n_angles=2),
    "X on wire 0 only": _of(3, [("PauliX", (0,))], *(_word("Z", w) for w in range(3)), Probs((0, 1, 2))),
    "X on the last wire only": _of(4, [("PauliX", (3,))], *(_word("Z", w) for w in range(4)), Probs((3, 0))),
    "rotation of wire 1 only": _of(4, [("RY", (1,), 0)], *(_word("Z", w) for w in range(4)), n_angles=1),
    "probabilities in another order": _of(3, [*_SPREAD, ("RY", (1,), 0)], Probs((2, 0)), Probs((1, 2, 0)), n_angles=1),
    "asymmetric": _of(
        3,
        [("RX", (0,), 0), ("CNOT", (0, 1)), ("RY", (1,), 1), ("CY", (2, 0)), ("RZ", (2,), 2), ("S", (0,))],
        *(_word("Y", 1), _word("XZ", 2, 0), Expval(((0.3, "ZXY", (2, 0, 1)), (-1.7, "Z", (2,))))),
        n_angles=3,
    ),
    "both orders of two wires": _of(
        3,
        [*_SPREAD, ("CRX", (0, 2), 0), ("CRX", (2, 0), 1), ("ECR", (2, 1)), ("CNOT", (1, 0)), ("ISWAP", (2, 0))],
        *(_word("Z", 0), _word("YX", 2, 1)),
        n_angles=2,
    ),
    "controlled rotations": _of(
        2,
        [
            *(("Hadamard", (0,)), ("RY", (1,), 0.4), ("CRX", (0, 1), 0), ("CRY", (1, 0), 1), ("CRZ", (0, 1), 2)),
            *(("ControlledPhaseShift", (0, 1), 3), ("CRot", (1, 0), 4, 5, 6), ("CU", (0, 1), 7, 8, 9, 10)),
        ],
        *(_word("X", 0), _word("YZ", 0, 1)),
        n_angles=11,
    ),
    "excitations": _of(
        3,
        [*_SPREAD, ("SingleExcitation", (2, 0), 0), ("IsingXY", (0, 1), 1)],
        _word("Z", 0),
        _word("XY", 0, 2),
        n_angles=2,
    ),
    "one angle for eight words": _of(  # DoubleExcitation
        4,
        [("PauliX", (0,)), ("RX", (1,), 2.5), ("RY", (3,), 0.6)]
        + [
            Rotation(word, (0, 1, 2, 3), 0, sign / 8)
            for word, sign in zip(
                ("XXXY", "XXYX", "XYXX", "YXXX", "XYYY", "YXYY", "YYXY", "YYYX"),
                (1, 1, -1, -1, -1, -1, 1, 1),
                strict=True,
            )
        ],
        *(_word("Z", 0), _word("ZX", 3, 2)),
        n_angles=1,
    ),
    "one angle, unequal scales": _of(
        2,
        [
            *(("Hadamard", (0,)), ("Hadamard", (1,)), Rotation("Z", (0,), 0, 1.0, 0.2)),
            *(Rotation("ZZ", (0, 1), 0, -0.5), Rotation("Z", (1,), 0, 2.0, PI / 2)),
        ],
        *(_word("X", 0), _word("Y", 1), _word("XY", 1, 0)),
        n_angles=1,
    ),
    "negative scale and offset": _of(1, [Rotation("Y", (0,), 0, -1.0, 0.7)], _word("Z", 0), _word("X", 0), n_angles=1),
    "every Clifford gate": _of(
        3,
        [("RY", (2,), 0), *_SPREAD, *((g.name, (2, 0, 1)[: g.n_wires]) for g in _CLIFFORDS)],
        _word("Z", 0),
        _word("YZ", 1, 2),
        n_angles=1,
    ),
    "Clifford gates only": _of(
        3,
        [("Hadamard", (0,)), ("CNOT", (0, 2)), ("S", (2,)), ("SX", (1,))],
        _word("XY", 0, 2),
        _word("Y", 1),
        _word("Z", 0),
    ),
    "every fixed gate": _of(
        3, [*_SPREAD, *((g.name, (1, 2, 0)[: g.n_wires]) for g in _FIXED)], Probs((0, 1, 2)), _word("XYZ", 0, 1, 2)
    ),
    "commutes with what is measured": _of(2, [("RZ", (0,), 0), ("IsingZZ", (0, 1), 1)], _word("Z", 0), n_angles=2),
    "ends in Hadamards": _of(
        2,
        [("RY", (0,), 0), ("CZ", (0, 1)), ("RX", (1,), 1), ("Hadamard", (0,)), ("Hadamard", (1,))],
        *(_word("Z", 0), _word("Z", 1), Probs((1, 0))),
        n_angles=2,
    ),
    "identity measured": _of(
        2, [("RX", (0,), 0)], Expval(((2.5, "", ()),)), Expval(((1.0, "", ()), (-0.5, "Z", (0,)))), n_angles=1
    ),
    "repeated and cancelling terms": _of(
        2,
        [("RX", (0,), 0), ("RY", (1,), 1)],
        Expval(((1.0, "Z", (0,)), (-0.25, "Z", (0,)), (0.0, "X", (1,)))),
        Expval(((1.0, "Y", (0,)), (-1.0, "Y", (0,)))),
        n_angles=2,
    ),
    "angles that turn nothing": _of(2, [("RY", (1,), 1)], _word("Z", 1), _word("X", 1), n_angles=3),
    "angles in reverse order": _of(
        3,
        [("RY", (w,), 2 - w) for w in range(3)] + [("CNOT", (0, 1))],
        *(_word("Z", w) for w in range(3)),
        n_angles=3,
    ),
    "words of all wires": _of(
        5,
        [Rotation("XYZXY", (3, 0, 4, 1, 2), 0), Rotation("ZZXYX", (0, 1, 2, 3, 4), 1), Rotation("YX", (4, 0), 2)],
        *(_word("ZYXZY", 4, 3, 2, 1, 0), _word("X", 4), _word("Z", 2)),
        n_angles=3,
    ),
    "unused wires": _of(5, [("RX", (3,), 0), ("CRY", (3, 1), 1)], _word("Z", 1), _word("ZX", 0, 3), n_angles=2),
    "seven wires": _of(
        7,
        [(name, (w,), 7 * layer + w) for layer, name in enumerate(("RY", "RX")) for w in range(7)]
        + [("CNOT", (w, (w + 2) % 7)) for w in range(7)]
        + [("RX", (6,), 0.8)],
        *(_word("Z", w) for w in range(7)),
        Probs((6, 0)),
        n_angles=14,
    ),
    "amplitudes only": _of(2, [], Probs((0, 1)), _word("Y", 1), amplitudes=True),
    "amplitudes": _of(
        3,
        [("RY", (2,), 0), ("CNOT", (2, 0)), ("RX", (0,), 1)],
        _word("Z", 0),
        _word("YX", 2, 1),
        n_angles=2,
        amplitudes=True,
    ),
}
"""Programs on which executors, gradient rules and edits are known to go wrong, by what is special about them."""


def random_program(
    rng: np.random.Generator,
    *,
    n_qubits: tuple[int, int] = (1, 5),
    n_ops: tuple[int, int] = (0, 20),
    n_angles: tuple[int, int] = (0, 12),
    gates: Iterable[str] | None = None,
    amplitudes: bool = False,
    measurements: Sequence[Measurement] | None = None,
) -> Program:
    """A random program made to be nasty.

    Gates of all kinds, in which a parameter is an angle or fixed (often at a multiple of pi/2); rotations
    about Pauli words of any length, with scales and offsets; one angle for several commuting words; angles that
    turn nothing; unused wires; circuits that end in Hadamard gates; weighted sums of words, identities,
    probabilities of wires in any order.

    Args:
        rng: the source of randomness; equal states give equal programs.
        n_qubits, n_ops, n_angles: smallest and largest number of wires, of gate calls and of angles.
        gates: names in `qbp.circuit.gates.GATES` to draw from; all of them by default.
        amplitudes: whether the program starts from amplitudes.
        measurements: what is measured, instead of something random.
    """

    def between(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    n = between(*n_qubits)
    wires = [int(w) for w in rng.permutation(n)]
    live = wires[: max(1, n - (rng.random() < 0.3))]  # sometimes one wire stays unused
    rows = [GATES[name] for name in (GATES if gates is None else gates) if GATES[name].n_wires <= len(live)]
    least, most = n_angles
    n_all = between(least, most)
    unused = [int(k) for k in rng.permutation(n_all)]

    def some_wires(k: int) -> tuple[int, ...]:
        return tuple(int(w) for w in rng.choice(live, k, replace=False))

    def word(k: int) -> str:
        return "".join(rng.choice(list("XYZ"), k))

    def value() -> int | float:
        if unused and rng.random() < 0.8:
            return unused.pop()
        return float(rng.choice([PI / 2 * between(-4, 4), rng.uniform(-7, 7), 1e-9]))

    ops: list[Op] = []
    for _ in range(between(*n_ops)):
        kind = rng.random()
        if rows and (kind < 0.7 or gates is not None):
            gate = rows[between(0, len(rows) - 1)]
            ops += gate_ops(gate, some_wires(gate.n_wires), [value() for _ in range(gate.n_params)])
        elif gates is None:
            k = between(1, len(live))
            # Words that differ on two wires commute.
            words, on, turn = [word(k)], some_wires(k), value()
            if kind > 0.9 and k > 1:
                others = [rng.choice(list("XYZ".replace(letter, ""))) for letter in words[0][:2]]
                words.append("".join(others) + words[0][2:])
            for pauli in words:
                scale, offset = float(rng.choice([1, 1, -1, 0.5, 2])), float(rng.choice([0, 0, PI / 2, 0.3]))
                if isinstance(turn, int):
                    ops.append(Rotation(pauli, on, turn, scale, offset))
                else:
                    ops.append(Rotation(pauli, on, None, offset=turn))
    if rng.random() < 0.4:
        ops += [Clifford("Hadamard", (w,)) for w in live]

    def measurement() -> Measurement:
        def term() -> tuple[float, str, tuple[int, ...]]:
            k = between(0, n)
            return float(rng.normal()), word(k), tuple(int(w) for w in rng.permutation(n)[:k])

        kind = rng.random()
        if kind < 0.2:
            return Probs(tuple(int(w) for w in rng.permutation(n)[: between(1, n)]))
        if kind < 0.5:
            return Expval.word("Z", between(0, n - 1))
        return Expval(tuple(term() for _ in range(between(1, 3))))

    measured = measurements or [measurement() for _ in range(between(1, 3))]
    program = Program(n, tuple(ops), tuple(measured), n_all, amplitudes)
    # Sometimes angles that turn nothing stay.
    return program.drop_ops(())[0] if least == 0 and rng.random() < 0.7 else program


def random_angles(
    rng: np.random.Generator,
    program: Program,
    n_samples: int,
    *,
    n_batched: int,
    dtype: torch.dtype = torch.float64,
) -> Angles:
    """Random angles of a batch, some of them at multiples of pi/2 or beyond one turn.

    Args:
        program: the program they are for.
        n_samples: B.
        n_batched: Kb, how many of the program's angles differ between samples.
    """
    values = rng.normal(scale=2.0, size=(n_samples + 1, program.n_angles))
    special = rng.choice([0.0, PI / 2, -PI, 2 * PI, 9.0], size=values.shape)
    full = torch.tensor(np.where(rng.random(values.shape) < 0.2, special, values), dtype=dtype)
    return Angles(full[:n_samples, :n_batched].clone(), full[n_samples, n_batched:].clone())


def random_amplitudes(
    rng: np.random.Generator, program: Program, n_samples: int, *, dtype: torch.dtype = torch.complex128
) -> torch.Tensor | None:
    """Random states of norm 1 for a program that starts from amplitudes, (B, 2^N), real or complex; None for others."""
    if not program.amplitudes:
        return None
    psi = rng.normal(size=(n_samples, 2**program.n_qubits)) + 0j
    if dtype.is_complex:
        psi += 1j * rng.normal(size=psi.shape)
    psi /= np.linalg.norm(psi, axis=1, keepdims=True)
    return torch.tensor(psi if dtype.is_complex else psi.real, dtype=dtype)

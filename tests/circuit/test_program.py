"""Programs: their errors, and edits that keep the function (or change it as they say)."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.pauli import Word
from qbp.circuit.program import (
    Clifford,
    Expval,
    Probs,
    Program,
    Rotation,
    gate_ops,
    inverse_ops,
    wires_of,
)
from qbp.errors import ArgumentError, CircuitError
from qbp.executors.dense import Dense
from qbp.testing import NASTY, random_amplitudes, random_angles, random_program, reference_outputs

Z0 = Expval.word("Z", 0)
dense = Dense()


def programs(n: int, **options: object) -> list[Program]:
    rng = np.random.default_rng(1)
    return [*NASTY.values(), *(random_program(rng, **options) for _ in range(n))]


def run(program: Program, full: torch.Tensor, amplitudes: torch.Tensor | None = None) -> torch.Tensor:
    return dense(program, Angles.of(full), amplitudes).values


# ---- what a program refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (), (Z0,), 0), "`n_qubits` must be at least 1, but is 0"),
        ((1, (), (), 0), "must measure something"),
        ((1, (), (Expval(()),), 0), "at least one term"),
        ((1, (), (Probs(()),), 0), "at least one wire"),
        ((2, (), (Probs((0, 0)),), 0), "must be different and below 2"),
        ((2, (), (Expval.word("Z", 2),), 0), "must be different and below 2"),
        ((2, (), (Expval.word("Z", -1),), 0), "must be different and below 2"),
        ((2, (), (Expval.word("ZI", 0, 1),), 0), "one of X, Y, Z for each wire"),
        ((2, (), (Expval.word("ZZ", 0),), 0), "one of X, Y, Z for each wire"),
        ((2, (Rotation("XX", (1, 1), 0),), (Z0,), 1), "must be different and below 2"),
        ((2, (Rotation("X", (2,), 0),), (Z0,), 1), "must be different and below 2"),
        ((2, (Rotation("x", (0,), 0),), (Z0,), 1), "one of X, Y, Z for each wire"),
        ((2, (Rotation("X", (0,), 1),), (Z0,), 1), "names angle 1, but there are 1"),
        ((2, (Rotation("X", (0,), -1),), (Z0,), 1), "names angle -1"),
        ((2, (Clifford("T", (0,)),), (Z0,), 0), "'T' is not the name of a Clifford gate"),
        ((2, (Clifford("Nonsense", (0,)),), (Z0,), 0), "not the name of a Clifford gate"),
        ((2, (Clifford("CNOT", (0,)),), (Z0,), 0), "CNOT acts on 2 wires"),
        ((2, (Clifford("CNOT", (0, 2)),), (Z0,), 0), "must be different and below 2"),
    ],
)
def test_errors(arguments: tuple, message: str):
    with pytest.raises((ArgumentError, CircuitError), match=message):
        Program(*arguments)


def test_gate_ops_errors():
    with pytest.raises(CircuitError, match="Gate CRX takes 1 parameters and 2 wires, but has 1 and 1"):
        gate_ops(GATES["CRX"], (0,), [0])
    with pytest.raises(CircuitError, match="Gate Rot takes 3 parameters and 1 wires, but has 2 and 1"):
        gate_ops(GATES["Rot"], (0,), [0, 1.0])


# ---- what a program is -----------------------------------------------------------------------------------------------


def test_is_a_key():
    for program in programs(10):
        for twin in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
            assert twin == program and hash(twin) == hash(program)
        assert program != replace(program, n_angles=program.n_angles + 1)
        assert {program: 1}[replace(program)] == 1


def test_gate_ops_tells_angles_from_values():
    assert gate_ops(GATES["RX"], (2,), [3]) == (Rotation("X", (2,), 3),)
    assert gate_ops(GATES["RX"], (2,), [np.int64(3)]) == (Rotation("X", (2,), 3),)
    assert gate_ops(GATES["RX"], (2,), [3.0]) == (Rotation("X", (2,), None, offset=3.0),)
    assert gate_ops(GATES["CRZ"], (4, 1), [0]) == (Rotation("Z", (1,), 0, 0.5), Rotation("ZZ", (4, 1), 0, -0.5))
    assert gate_ops(GATES["CNOT"], (1, 0), []) == (Clifford("CNOT", (1, 0)),)
    assert gate_ops(GATES["Identity"], (1,), []) == ()
    assert gate_ops(GATES["T"], (1,), []) == (Rotation("Z", (1,), None, offset=np.pi / 4),)


def test_outputs_wires_counts_and_groups():
    program = Program(
        4,
        (Rotation("X", (0,), 1), Rotation("ZZ", (0, 2), 0, 0.5), Rotation("ZZ", (2, 1), 0), Clifford("S", (3,))),
        (Z0, Probs((3, 1)), Expval(((1.0, "", ()), (2.0, "XY", (0, 1))))),
        3,
    )
    assert program.n_outputs == 1 + 4 + 1
    assert wires_of(program.measurements) == (0, 1, 3)
    assert program.counts() == {"RX": 1, "RZZ": 2, "S": 1}
    assert program.angle_rotations() == ((program.ops[1], program.ops[2]), (program.ops[0],), ())


def test_pauli_masks(rng: np.random.Generator):
    """Masks act as their definition says, and commute where the matrices do."""
    from qbp.testing.reference import _word

    n, words = 3, []
    for _ in range(20):
        wires = tuple(int(w) for w in rng.permutation(n)[: rng.integers(0, n + 1)])
        letters = "".join(rng.choice(list("XYZ"), len(wires)))
        word, matrix = Word.of(letters, wires, n), _word(letters, wires, n)
        for j in range(2**n):
            column = np.zeros(2**n, dtype=complex)
            column[j ^ word.x] = 1j**word.n_y * (-1) ** (j & word.z).bit_count()
            assert np.allclose(matrix[:, j], column)
        words.append((word, matrix))
    for a, A in words:
        for b, B in words:
            assert a.anticommutes(b) != np.allclose(A @ B, B @ A)


# ---- edits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["positions", "function"])
def test_drop_ops_is_the_program_at_angle_zero(by: str, rng: np.random.Generator):
    """Without the rotations of some angles a program is itself with those angles (and offsets) at zero."""
    for program in programs(40):
        gone = set(np.flatnonzero(rng.random(program.n_angles) < 0.4).tolist())
        ops = tuple(
            replace(op, offset=0.0) if isinstance(op, Rotation) and op.angle is not None else op for op in program.ops
        )
        program = replace(program, ops=ops)

        def goes(op: object, gone: set[int] = gone) -> bool:
            return isinstance(op, Rotation) and op.angle in gone

        positions = [i for i, op in enumerate(ops) if goes(op)]
        smaller, kept = program.drop_ops(goes if by == "function" else positions)
        assert list(kept) == sorted(set(kept)) and gone.isdisjoint(kept) and smaller.n_angles == len(kept)
        assert len(smaller.ops) == len(ops) - len(positions)
        full = random_angles(rng, program, 3, n_batched=program.n_angles).batched
        full[:, list(gone)] = 0.0
        amplitudes = random_amplitudes(rng, program, 3)
        torch.testing.assert_close(run(smaller, full[:, list(kept)], amplitudes), run(program, full, amplitudes))


def test_drop_ops_forgets_angles_that_turn_nothing():
    smaller, kept = NASTY["angles that turn nothing"].drop_ops(())
    assert kept == (1,) and smaller.n_angles == 1 and smaller.ops[0].angle == 0


def test_drop_ops_keeps_an_angle_as_long_as_it_turns_something():
    program = NASTY["one angle for eight words"]
    smaller, kept = program.drop_ops([len(program.ops) - 1])
    assert kept == (0,) and len(smaller.ops) == len(program.ops) - 1


def test_lightcone_keeps_the_outputs(rng: np.random.Generator):
    dropped = 0
    for program in programs(60, n_ops=(0, 8)):
        smaller, kept = program.lightcone()
        dropped += len(program.ops) - len(smaller.ops)
        full = random_angles(rng, program, 3, n_batched=program.n_angles).batched
        amplitudes = random_amplitudes(rng, program, 3)
        torch.testing.assert_close(run(smaller, full[:, list(kept)], amplitudes), run(program, full, amplitudes))
    assert dropped > 20


def test_lightcone_drops_what_nobody_sees():
    ops = (
        Rotation("X", (0,), 0),
        Clifford("CNOT", (1, 2)),
        Rotation("ZZ", (0, 1), 1),
        Rotation("X", (1,), 2),
        Rotation("Y", (2,), 3),
        Rotation("Y", (0,), 4),
    )
    smaller, kept = Program(3, ops, (Expval.word("Z", 0),), 5).lightcone()
    assert smaller.ops == (ops[0], ops[1], Rotation("ZZ", (0, 1), 1), Rotation("Y", (0,), 2)) and kept == (0, 1, 4)
    assert Program(3, ops, (Expval(((2.0, "", ()),)),), 5).lightcone()[0].ops == ()


def test_inverse_undoes(rng: np.random.Generator):
    for program in programs(40):
        program = replace(program, amplitudes=True)
        there_and_back = replace(program, ops=program.ops + program.inverse().ops)
        assert there_and_back.ops == program.ops + inverse_ops(program.ops)
        full = random_angles(rng, program, 3, n_batched=program.n_angles).batched
        amplitudes = random_amplitudes(rng, program, 3)
        still = run(replace(program, ops=()), full, amplitudes)
        torch.testing.assert_close(run(there_and_back, full, amplitudes), still)


@pytest.mark.parametrize("gate", [g for g in GATES.values() if g.is_clifford and g.steps], ids=lambda g: g.name)
def test_every_clifford_gate_has_an_inverse(gate):
    """On all Pauli words, by a route of its own: the dense matrices of the reference."""
    wires = (2, 0)[: gate.n_wires]
    words = tuple(Expval.word(word, *on) for word, on in (("X", (0,)), ("Z", (0,)), ("Y", (2,)), ("XZ", (0, 2))))
    program = Program(3, (Clifford(gate.name, wires),), words, 0, amplitudes=True)
    back = program.inverse()
    assert all(isinstance(op, Clifford) for op in back.ops)
    amplitudes = random_amplitudes(np.random.default_rng(0), program, 2)
    there_and_back = reference_outputs(replace(program, ops=program.ops + back.ops), np.zeros((2, 0)), amplitudes)
    np.testing.assert_allclose(
        there_and_back, reference_outputs(replace(program, ops=()), np.zeros((2, 0)), amplitudes), atol=1e-12
    )

"""Rows of noise against PennyLane's Kraus operators, and circuits that hold them against PennyLane's mixed states."""

from __future__ import annotations

import itertools

import numpy as np
import pennylane as qml
import pytest
import torch
from density import circuit_outputs

from qbp import trace
from qbp.circuit.channels import Channel
from qbp.circuit.noise_rows import ROWS, of_kraus, pauli_error
from qbp.errors import ArgumentError, CircuitError

RNG = np.random.default_rng(7)
STRENGTHS = {
    **{
        name: [(0.0,), (1.0,), *((p,) for p in RNG.uniform(size=6))]
        for name in ("DepolarizingChannel", "BitFlip", "PhaseFlip", "AmplitudeDamping", "PhaseDamping")
    },
    "GeneralizedAmplitudeDamping": [(0.0, 1.0), (1.0, 0.3), *map(tuple, RNG.uniform(size=(6, 2)))],
    "ResetError": [(0.0, 1.0), (0.4, 0.6), *map(tuple, RNG.uniform(size=(6, 2)) / 2)],
    "ThermalRelaxationError": [
        (0.1, 1.0, 2.0, 0.0),
        *((pe, t1, share * t1, tg) for pe, t1, share, tg in RNG.uniform((0, 0.1, 0.1, 0), (1, 2, 2, 3), (8, 4))),
    ],
}


def kraus(n_wires: int, n_operators: int, seed: int = 0) -> list[np.ndarray]:
    """Random Kraus operators."""
    rng = np.random.default_rng(seed)
    size = 2**n_wires
    block = rng.normal(size=(2, n_operators * size, size))
    return list(np.linalg.qr(block[0] + 1j * block[1])[0].reshape(n_operators, size, size))


def transfer(operators: list[np.ndarray]) -> np.ndarray:
    """The Pauli transfer matrix, entry by entry."""
    k = int(np.log2(len(operators[0])))
    words = [
        qml.matrix(qml.pauli.string_to_pauli_word("".join(w)), range(k)) for w in itertools.product("IXYZ", repeat=k)
    ]
    return np.array(
        [[sum(np.trace(p @ e @ q @ e.conj().T) for e in operators).real / 2**k for q in words] for p in words]
    )


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_pennylanes(name: str):
    for strengths in STRENGTHS[name]:
        operators = getattr(qml, name)(*strengths, wires=0).kraus_matrices()
        atol = 2e-7 if 1.0 in strengths else 1e-12  # PennyLane's square roots are of 1e-14 rather than of 0
        np.testing.assert_allclose(ROWS[name](*strengths), transfer(operators), atol=atol)


@pytest.mark.parametrize("word", ["X", "Y", "Z", "XY", "ZZ", "IY", "YXZ"])
def test_pauli_errors(word: str):
    operators = qml.PauliError(word, 0.37, wires=range(len(word))).kraus_matrices()
    np.testing.assert_allclose(pauli_error(word, 0.37), transfer(operators), atol=1e-12)


@pytest.mark.parametrize(("n_wires", "n_operators"), [(1, 1), (1, 3), (2, 1), (2, 5)])
def test_any_kraus_operators(n_wires: int, n_operators: int):
    operators = kraus(n_wires, n_operators)
    np.testing.assert_allclose(of_kraus(operators), transfer(operators), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "strengths"),
    [
        ("BitFlip", (1.1,)),
        ("AmplitudeDamping", (-0.1,)),
        ("ResetError", (0.6, 0.6)),
        ("ThermalRelaxationError", (0.1, 1.0, 2.1, 1.0)),
        ("DepolarizingChannel", (float("nan"),)),
    ],
)
def test_impossible_strengths(name: str, strengths: tuple[float, ...]):
    with pytest.raises(ArgumentError, match="must be"):
        ROWS[name](*strengths)


def test_what_keeps_no_trace_is_no_channel():
    with pytest.raises(ArgumentError, match="must keep the trace"):
        Channel.of_matrix("QubitChannel", (0,), of_kraus([np.diag([1.0, 0.5])]))


# ---- inside of PennyLane functions -----------------------------------------------------------------------------------

WIRES = 3
SHAPES = {"w": (2, 3)}


def circuit_with(noise) -> object:
    """A function in which `noise` stands between gates that make every part of it seen."""

    def function(inputs, w):
        for k in range(WIRES):
            qml.RX(inputs[..., k], wires=k)
        qml.Rot(*w[0], wires=1)
        qml.CNOT(wires=[0, 1])
        qml.CRX(w[0, 0], wires=[1, 2])
        noise()
        qml.CRY(w[1, 0], wires=[2, 0])
        qml.RY(w[1, 1], wires=1)
        qml.RX(w[1, 2], wires=2)  # default.mixed turns about Z in single precision
        return (
            qml.expval(qml.X(0) @ qml.Y(2)),
            qml.expval(qml.Z(1) + 0.3 * qml.Y(0)),
            qml.expval(qml.Z(2)),
            qml.probs(wires=[2, 1]),
        )

    return function


OPERATORS = {n: kraus(n, 3) for n in (1, 2)}
NOISE = {
    "depolarizing": lambda: qml.DepolarizingChannel(0.2, wires=1),
    "flips": lambda: (qml.BitFlip(0.1, wires=0), qml.PhaseFlip(0.3, wires=2)),
    "damping": lambda: (qml.AmplitudeDamping(0.3, wires=1), qml.PhaseDamping(0.2, wires=0)),
    "generalized damping": lambda: qml.GeneralizedAmplitudeDamping(0.3, 0.2, wires=2),
    "relaxation": lambda: qml.ThermalRelaxationError(0.1, 1.0, 1.4, 0.5, wires=0),
    "reset": lambda: qml.ResetError(0.3, 0.2, wires=1),
    "one word": lambda: qml.PauliError("Y", 0.3, wires=1),
    "two words": lambda: qml.PauliError("XZ", 0.3, wires=[2, 0]),
    "a long word": lambda: qml.PauliError("XYZ", 0.3, wires=[2, 0, 1]),
    "a word with holes": lambda: qml.PauliError("IYI", 0.3, wires=[2, 0, 1]),
    "Kraus, one wire": lambda: qml.QubitChannel(OPERATORS[1], wires=2),
    "Kraus, two wires": lambda: qml.QubitChannel(OPERATORS[2], wires=[2, 0]),
    "Kraus of torch": lambda: qml.QubitChannel([torch.as_tensor(k) for k in OPERATORS[2]], wires=[0, 1]),
    "a strength of torch": lambda: qml.AmplitudeDamping(torch.tensor(0.3, dtype=torch.float64), wires=1),
}


@pytest.mark.parametrize("name", NOISE)
def test_traced_circuits_are_the_qnodes(name: str):
    function = circuit_with(NOISE[name])
    qnode = qml.QNode(function, qml.device("default.mixed", wires=WIRES))
    circuit = trace(function, SHAPES, n_inputs=3)
    assert circuit.program.is_noisy
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    w = torch.randn(2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = torch.stack([torch.hstack([part.reshape(-1) for part in qnode(row, w)]) for row in x])
    outputs = circuit_outputs(circuit, x, w.reshape(-1))
    assert torch.allclose(outputs, expected, atol=1e-10, rtol=0)
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    for ours, theirs in zip(
        *(torch.autograd.grad((o * weight).sum(), (x, w)) for o in (outputs, expected)), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)


def test_noise_that_does_nothing_is_left_out():
    function = circuit_with(lambda: (qml.BitFlip(0.0, wires=1), qml.PauliError("III", 0.3, wires=[0, 1, 2])))
    assert not trace(function, SHAPES, n_inputs=3).program.is_noisy


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (lambda: qml.QubitChannel(kraus(3, 2), wires=[0, 1, 2]), "QubitChannel on 3 wires"),
        (lambda: qml.adjoint(qml.BitFlip(0.1, wires=0)), "BitFlip"),
        (lambda: qml.ctrl(qml.BitFlip(0.1, wires=0), 1), "BitFlip"),
    ],
)
def test_what_is_no_channel_of_a_program(noise, message: str):
    with pytest.raises(CircuitError, match=message):
        trace(circuit_with(noise), SHAPES, n_inputs=3)


def test_strengths_are_numbers():
    def function(inputs, p):
        qml.RX(inputs[0], wires=0)
        qml.AmplitudeDamping(torch.sigmoid(p), wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match="strength of AmplitudeDamping must be a number, but depends on"):
        trace(function, {"p": ()}, n_inputs=1)

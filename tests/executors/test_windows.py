"""Windows: the parts of wide circuits that outputs see, against the whole state and against finite differences."""

from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Measurement, Op, Probs, Program, Rotation, gate_ops
from qbp.errors import ArgumentError
from qbp.executors.native import Native
from qbp.executors.native.windows import Windows, pay_off, windows_of
from qbp.testing import check_executor

ONE = ("RX", "RY", "RZ", "Hadamard", "S", "T", "PhaseShift", "SX")
TWO = ("CNOT", "CZ", "CRX", "CRY", "IsingXX", "IsingZZ", "SingleExcitation", "SWAP", "ControlledPhaseShift", "ISWAP")


def local_program(rng: np.random.Generator, n_qubits: int, depth: int) -> Program:
    """Gates on neighbours, angles that several gates share, observables of one to three qubits, some probabilities."""
    ops: list[Op] = []
    n_angles = 0

    def params(count: int) -> list[int | float]:
        nonlocal n_angles
        values: list[int | float] = []
        for _ in range(count):
            if n_angles and rng.random() < 0.2:
                values.append(float(rng.normal()))
            else:
                values.append(n_angles)
                n_angles += 1
        return values

    for layer in range(depth):
        for wire in range(n_qubits):
            gate = GATES[str(rng.choice(ONE))]
            ops += gate_ops(gate, (wire,), params(gate.n_params))
        for wire in range(layer % 2, n_qubits - 1, 2):
            gate = GATES[str(rng.choice(TWO))]
            on = (wire, wire + 1) if rng.random() < 0.5 else (wire + 1, wire)
            ops += gate_ops(gate, on, params(gate.n_params))
    if n_angles > 1:  # one angle for two rotations far apart
        ops.append(Rotation("X", (0,), n_angles - 1, -0.7, 0.3))
    measured: list[Measurement] = []
    for _ in range(4):
        terms = []
        for _ in range(int(rng.integers(1, 4))):
            first, size = int(rng.integers(n_qubits)), int(rng.integers(0, 4))
            wires = tuple(range(first, min(n_qubits, first + size)))
            terms.append((float(rng.normal()), "".join(rng.choice(list("XYZ"), len(wires))), wires))
        measured.append(Expval(tuple(terms)))
    first = int(rng.integers(n_qubits - 1))
    measured.insert(2, Probs((first + 1, first)))
    return Program(n_qubits, tuple(ops), tuple(measured), n_angles)


def compare(seed: int) -> None:
    """Outputs and gradients of a random local program against those of the whole state."""
    rng = np.random.default_rng(seed)
    program = local_program(rng, int(rng.integers(2, 15)), int(rng.integers(1, 5)))
    n_samples, n_batched = int(rng.integers(1, 12)), int(rng.integers(0, program.n_angles + 1))
    angles = Angles(
        torch.from_numpy(rng.normal(size=(n_samples, n_batched))),
        torch.from_numpy(rng.normal(size=program.n_angles - n_batched)),
    )
    grad = torch.from_numpy(rng.normal(size=(n_samples, program.n_outputs)))
    engines = Native(), Windows(Native())
    (want, saved), (got, parts) = (engine.forward(program, angles) for engine in engines)
    torch.testing.assert_close(got.values, want.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(engines[1](program, angles).values, want.values, rtol=0, atol=1e-12)
    expected = engines[0].vjp(program, angles, None, saved, grad)
    gradients = engines[1].vjp(program, angles, None, parts, grad)
    torch.testing.assert_close(gradients.batched, expected.batched, rtol=0, atol=1e-11)
    torch.testing.assert_close(gradients.shared, expected.shared, rtol=0, atol=1e-11)


def test_conformance():
    check_executor(Windows(Native()), n_programs=20)


@pytest.mark.parametrize("seed", range(20))
def test_windows_equal_the_whole_state(seed: int):
    compare(seed)


@pytest.mark.slow
def test_300_windows_equal_the_whole_state():
    for seed in range(100, 400):
        compare(seed)


def chain(n_qubits: int, n_layers: int, entangler: str = "CZ") -> qbp.QuantumLayer:
    """A chain of neighbours: an output sees at most 2 L + 1 qubits."""

    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(n_qubits), rotation="Y")
        for layer in range(n_layers):
            for wire in range(n_qubits - 1):
                getattr(qml, entangler)([wire, wire + 1])
            for wire in range(n_qubits):
                qml.RY(weights[layer, wire, 0], wires=wire)
                qml.RZ(weights[layer, wire, 1], wires=wire)
        return [qml.expval(qml.Z(wire)) for wire in range(n_qubits)]

    return qbp.QuantumLayer(circuit, {"weights": (n_layers, n_qubits, 2)}, n_inputs=n_qubits, seed=0)


def test_a_chain_sees_neighbours_only():
    program = chain(40, 2).circuit.program
    windowed = windows_of(program, 40)
    assert windowed.n_windows == 40
    assert windowed.n_qubits == 5
    assert [len(shape.outputs) for shape in windowed.shapes] == [1, 1, 36, 1, 1]


def test_a_wide_layer_trains():
    """Sixty qubits, against finite differences."""
    layer = chain(60, 2).double()
    assert layer.backend == "windows"
    x = torch.rand(2, 60, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(60, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (layer(x) @ weights).sum()

    loss().backward()
    for tensor, place in ((x, (1, 37)), (x, (0, 0)), (layer.weights, (0, 33, 0)), (layer.weights, (1, 59, 0))):
        values = []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                tensor[place] += step
                values.append(float(loss()))
                tensor[place] -= step
        assert float(tensor.grad[place]) == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_the_rule():
    assert pay_off(chain(16, 2).circuit.program)
    assert not pay_off(chain(6, 2).circuit.program)  # narrow
    ring = qbp.QuantumLayer("strongly_entangling", n_qubits=14, n_layers=4)
    assert not pay_off(ring.circuit.program)  # every output sees everything
    assert ring.backend == "native"


def test_what_no_way_can_do_says_so():
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=45, n_layers=4)
    with pytest.raises(ArgumentError, match="45 qubits and a batch of 1"):
        layer(torch.zeros(1, layer.n_inputs))

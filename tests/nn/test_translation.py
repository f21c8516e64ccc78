"""A layer in PennyLane's, Qiskit's and OpenQASM's words gives what the layer gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit.quantum_info import DensityMatrix, Statevector

import qbp
from qbp.circuit.angles import AngleMap, Terms
from qbp.circuit.channels import Channel
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Probs, Program, gate_ops
from qbp.circuit.recognition import gate_calls
from qbp.circuit.tracing import Circuit
from qbp.errors import ArgumentError, CircuitError
from qbp.testing.programs import NASTY, random_program

I, P = 3, 4  # inputs and weights  # noqa: E741


def layer_of(program: Program, seed: int) -> qbp.QuantumLayer:
    """A layer of a program whose angles are random affine functions of inputs and weights."""
    rng = np.random.default_rng(seed)
    n_batched = int(rng.integers(0, program.n_angles + 1))

    def terms(n, n_source, offset=True):
        rows = rng.integers(-1, 2, (n, n_source)) * rng.choice([1.0, 2.0, np.pi, 0.37], (n, n_source))
        return Terms.of_jacobian(torch.tensor(rows), torch.tensor(rng.choice([0, np.pi / 2, 0.3], n) * offset))

    parts = terms(n_batched, I), terms(n_batched, P, False), terms(program.n_angles - n_batched, P)
    shapes = {"a": (2,), "b": (1, 2)} if seed % 2 else {"b": (2, 2)}
    circuit = Circuit(program, AngleMap(I, P, *parts), shapes, is_scalar=program.n_outputs == 1 and bool(seed % 2))
    return qbp.QuantumLayer(circuit, seed=seed).double()


def with_weights(layer, flat):
    """A layer, read back, with the weights of another one."""
    layer = layer.double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(flat.reshape(weight.shape))
    return layer


def by_qiskit(exported, row):
    """Outputs of one row, computed by Qiskit."""
    values = dict(zip(exported.input_params, row.tolist(), strict=True))
    values |= dict(zip(exported.weight_params, exported.weights, strict=True))
    bound = exported.circuit.assign_parameters(values)
    noisy = any(step.operation.name not in bound.count_ops() or step.operation.name == "kraus" for step in bound.data)
    state = DensityMatrix(bound) if noisy else Statevector(bound)
    return torch.tensor([complex(state.expectation_value(o)).real for o in exported.observables], dtype=torch.float64)


def assert_translated(layer, tmp_path, qasm=True):
    x = torch.randn(3, layer.n_inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    want = layer(x).detach()
    flat = layer.flat_weights(x).detach()
    theirs = layer.to_pennylane()
    torch.testing.assert_close(theirs(x), want, atol=1e-9, rtol=0)
    torch.testing.assert_close(theirs(x[0]), want[0], atol=1e-9, rtol=0)
    assert [*theirs.state_dict()] == [*layer.state_dict()]
    exported, rows = layer.to_qiskit(), want.reshape(3, -1)
    torch.testing.assert_close(torch.stack([by_qiskit(exported, row) for row in x[:2]]), rows[:2], atol=1e-9, rtol=0)
    options = {"input_params": exported.input_params, "weight_params": exported.weight_params}
    again = with_weights(qbp.QuantumLayer(exported.circuit, observables=exported.observables, **options), flat)
    torch.testing.assert_close(again(x), rows, atol=1e-9, rtol=0)
    for bound in (False, True) if qasm else ():
        (tmp_path / "layer.qasm").write_text(layer.to_qasm(bound=bound))
        again = qbp.QuantumLayer(tmp_path / "layer.qasm")
        assert sum(p.numel() for p in again.parameters()) == (0 if bound else len(flat))
        torch.testing.assert_close(with_weights(again, flat)(x), rows, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [name for name, program in NASTY.items() if not program.amplitudes])
def test_nasty_programs(name, tmp_path):
    if NASTY[name].n_qubits < 6:
        assert_translated(layer_of(NASTY[name], len(name)), tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed, tmp_path):
    program = random_program(np.random.default_rng(seed))
    if program.amplitudes:
        program = replace(program, amplitudes=False)
    assert_translated(layer_of(program, seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 120))
def test_many_random_programs(seed, tmp_path):
    test_random_programs(seed, tmp_path)


@pytest.mark.parametrize("name", [*qbp.circuit.ansatz.ANSATZE])
def test_families(name, tmp_path):
    assert_translated(qbp.QuantumLayer(name, n_qubits=4 if name != "xor" else 2, n_layers=1).double(), tmp_path)


def curved(inputs, weights):
    qml.RX(torch.arctan(inputs[0] * weights[0]) + inputs[1], wires=0)
    qml.CRY((torch.pi - inputs[0]) * (torch.pi - inputs[1]), wires=[0, 1])
    qml.RZ(torch.sin(weights).sum() / (1 + inputs[2] ** 2), wires=1)
    qml.ctrl(qml.RX, 0)(weights.roll(1)[0] ** 3 - weights.mean(), wires=2)
    qml.MultiRZ(torch.tanh(weights.reshape(2, 2) @ torch.stack([inputs[0], 2 * weights[1]]))[1], wires=[0, 1, 2])
    qml.RY(torch.exp(-torch.sqrt(inputs[1] ** 2 + 0.1)), wires=2)
    qml.PauliRot(torch.sigmoid(torch.cat([inputs, weights])).sum() * 0.3, "XYZ", wires=[2, 0, 1])
    qml.RX(torch.log(2 + torch.cos(weights[3])), wires=1)
    return [qml.expval(qml.Z(0) @ qml.Y(2) - 2 * qml.X(1)), qml.probs(wires=[2, 1])]


def test_angles_that_are_curved_functions(tmp_path):
    layer = qbp.QuantumLayer(curved, {"weights": 4}, n_inputs=3, seed=1).double()
    assert_translated(layer, tmp_path)
    x = torch.randn(2, 3, dtype=torch.float64)
    theirs = layer.to_pennylane()
    for each in (layer, theirs):
        each(x).pow(2).sum().backward()
    torch.testing.assert_close(theirs.weights.grad, layer.weights.grad, atol=1e-9, rtol=0)


def test_functions_that_cannot_be_said():
    def circuit(inputs, w):
        qml.RX(torch.erf(inputs[0] * w), wires=0)
        return qml.expval(qml.Z(0))

    layer = qbp.QuantumLayer(circuit, {"w": ()})
    for write in (layer.to_qasm, layer.to_qiskit):
        with pytest.raises(CircuitError, match=r"erf.*use sin, cos"):
            write()
    x = torch.randn(3, 1)
    torch.testing.assert_close(layer.to_pennylane()(x), layer(x), atol=1e-6, rtol=0)


def noisy_program(readout=(), probs=False):
    from qbp.circuit.channels import PAULI

    gamma = 0.3
    kraus = [np.diag([1, np.sqrt(1 - gamma)]), np.array([[0, np.sqrt(gamma)], [0, 0]])]
    matrix = np.array(
        [[sum(np.trace(a @ k @ b @ k.conj().T).real for k in kraus) / 2 for b in PAULI] for a in PAULI]
    )  # fmt: skip
    damping = Channel.of_matrix("AmplitudeDamping", (1,), matrix)
    two = Channel.of_matrix("QubitChannel", (2, 0), np.diag([1.0, *np.linspace(0.9, 0.95, 3), *[0.9] * 12]))
    ops = (
        *gate_ops(GATES["RY"], (1,), (0,)),
        damping,
        *gate_ops(GATES["CRX"], (1, 2), (1,)),
        two,
        *gate_ops(GATES["CNOT"], (2, 0), ()),
    )
    measured = (Probs((2, 0)),) if probs else (Expval.word("X", 2), Expval(((0.5, "ZY", (0, 1)), (1.0, "", ()))))
    return Program(3, ops, (*measured, Expval.word("Z", 1)), 2, readout=readout)


@pytest.mark.parametrize("readout", [(), ((0, 0.1, 0.02), (1, 0.05, 0.0))])
@pytest.mark.parametrize("probs", [False, True])
def test_noise_goes_where_it_can(readout, probs, tmp_path):
    layer = layer_of(noisy_program(readout, probs), 3)
    assert_translated(layer, tmp_path, qasm=False)
    with pytest.raises(CircuitError, match="has channels, which OpenQASM 3 cannot say"):
        layer.to_qasm()


def test_what_cannot_be_written():
    program = noisy_program(((2, 0.1, 0.0),), probs=True)
    mixed = replace(program, measurements=(*program.measurements, Expval.word("X", 2)))
    for write in ("to_pennylane", "to_qiskit"):
        with pytest.raises(CircuitError, match="beside those of X and Y"):
            getattr(layer_of(mixed, 2), write)()
    wide = qbp.QuantumLayer(
        "basic_entangler", n_qubits=9, n_layers=1, observables=Probs(tuple(range(9)))
    )  # fmt: skip
    with pytest.raises(CircuitError, match="Probabilities of 9 wires"):
        wide.to_qiskit()
    assert "probs(0, 1" in wide.to_qasm()
    noisy = qbp.QuantumLayer("xor", n_qubits=2, n_layers=1, noise="fake:manila")
    for write in (noisy.to_pennylane, noisy.to_qiskit, noisy.to_qasm):
        with pytest.raises(ArgumentError, match=r"fake:manila.*set_backend"):
            write()


def embedded(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True, pad_with=0.0)
    qml.RY(w, wires=0)
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1))]


def test_amplitudes_go_to_pennylane_alone():
    layer, x = qbp.QuantumLayer(embedded, {"w": ()}, n_inputs=3).double(), torch.randn(4, 3, dtype=torch.float64)
    theirs = layer.to_pennylane()
    torch.testing.assert_close(theirs(x), layer(x), atol=1e-9, rtol=0)
    torch.testing.assert_close(theirs(x[0]), layer(x[0]), atol=1e-9, rtol=0)
    for write in (layer.to_qasm, layer.to_qiskit):
        with pytest.raises(CircuitError, match="amplitudes that are data"):
            write()


def test_pruned_and_unpickled_layers_have_no_source_left(tmp_path):
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=2, n_layers=2)
    circuit = layer.circuit.drop_ops([4, 5])
    layer.set_circuit(circuit, dict(layer.qnode_weights))
    assert layer.qnode is None
    assert_translated(layer.double(), tmp_path)


def test_shots_and_training_go_along():
    layer = qbp.QuantumLayer("xor", n_qubits=2, n_layers=1, shots=17).eval()
    theirs = layer.to_pennylane()
    assert theirs.qnode.shots.total_shots == 17 and not theirs.training


@pytest.mark.parametrize(
    "gate",
    [g for g in GATES.values() if len(g.steps) > 1 and g.n_params < 2 and not g.is_clifford],
    ids=lambda g: g.name,
)
@pytest.mark.parametrize("reverse", [False, True])
def test_gates_are_recognised(gate, reverse):
    wires = (2, 0, 1)[: gate.n_wires]
    ops = gate_ops(gate, wires, (0,) * gate.n_params)
    around = gate_ops(GATES["RY"], (0,), (0.2,))
    calls = list(gate_calls((*around, *(ops[::-1] if reverse else ops), *around)))
    names = [call.name for call in calls]
    if not reverse or gate.name != "CH":
        assert names[1:-1] == [gate.name] and sorted(calls[1].wires) == sorted(wires)
    assert tuple(op for call in calls for op in call.ops) == (*around, *(ops[::-1] if reverse else ops), *around)

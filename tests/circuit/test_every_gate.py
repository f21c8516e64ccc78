"""Every gate of PennyLane and every standard gate of Qiskit, as it is, undone, to powers and under controls, on wires
in no order, against PennyLane's and Qiskit's own simulation."""

from __future__ import annotations

import warnings

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import SparsePauliOp, Statevector

from qbp import QuantumLayer

N, WIRES = 4, [2, 0, 3, 1]
X = torch.tensor([[0.3, -0.7, 1.2, 0.5]], dtype=torch.float64)
W = torch.tensor([0.9, 0.4, 1.7], dtype=torch.float64)

PARAMETERS = {
    **dict.fromkeys(
        ["X", "Y", "Z", "H", "S", "T", "SX", "CNOT", "CY", "CZ", "CH", "SWAP", "ISWAP", "SISWAP", "ECR"], 0
    ),
    **dict.fromkeys(["Toffoli", "CCZ", "CSWAP", "QubitCarry", "QubitSum"], 0),
    **dict.fromkeys(["RX", "RY", "RZ", "PhaseShift", "U1", "IsingXX", "IsingYY", "IsingZZ", "IsingXY", "PSWAP"], 1),
    **dict.fromkeys(
        ["CPhaseShift00", "CPhaseShift01", "CPhaseShift10", "CRX", "CRY", "CRZ", "ControlledPhaseShift"], 1
    ),
    **dict.fromkeys(["SingleExcitation", "SingleExcitationMinus", "SingleExcitationPlus", "FermionicSWAP"], 1),
    **dict.fromkeys(["DoubleExcitation", "DoubleExcitationMinus", "DoubleExcitationPlus", "OrbitalRotation"], 1),
    **{"U2": 2, "Rot": 3, "U3": 3, "CRot": 3},
}
WRAPPED = {
    "as it is": lambda op, rest: op(),
    "undone": lambda op, rest: qml.adjoint(op()),
    "undone twice": lambda op, rest: qml.adjoint(qml.adjoint(op())),
    "squared": lambda op, rest: qml.pow(op(), 2),
    "to -1": lambda op, rest: qml.pow(op(), -1),
    "under a control": lambda op, rest: qml.ctrl(op(), control=rest[:1]),
    "under all controls, open": lambda op, rest: qml.ctrl(op(), control=rest, control_values=[0] * len(rest)),
    "undone under a control": lambda op, rest: qml.ctrl(qml.adjoint(op()), control=rest[:1]),
    "a control undone": lambda op, rest: qml.adjoint(qml.ctrl(op(), control=rest[:1])),
}


def some(names, step):
    """All, of which those between are slow."""
    return [n if k % step == 0 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(names)]


def around(gate, n_params, on, wrap, rest):
    def circuit(inputs, w):
        for k in range(N):
            qml.U3(0.3 + 0.2 * k, 0.1 * k, 0.5, wires=k)
        qml.RY(inputs[0] * w[0], wires=1)
        params = [w[0] * inputs[1], inputs[0] + w[1], w[2]][:n_params]
        wrap(lambda: gate(*params, wires=on), rest)
        for k in range(N):
            qml.RX(0.4 + 0.3 * k, wires=k)
            qml.CRY(1.1, wires=[k, (k + 1) % N])
        return [qml.expval(qml.Z(k)) for k in range(N)]

    return circuit


@pytest.mark.parametrize("name", some(PARAMETERS, 9))
def test_pennylane(name):
    gate, n_params = getattr(qml, name), PARAMETERS[name]
    on = WIRES[: gate.num_wires]
    rest = [w for w in WIRES if w not in on]
    checked = 0
    for wrap in WRAPPED.values():
        circuit = around(gate, n_params, on, wrap, rest)
        qnode = qml.QNode(circuit, qml.device("default.qubit", wires=N))
        w, x = W.clone().requires_grad_(), X.clone().requires_grad_()
        try:
            want = torch.stack(qnode(x[0], w))
        except Exception:  # what PennyLane cannot run itself, as a control on no wire
            continue
        layer = QuantumLayer(qnode, {"w": 3}, {"w": W}, n_inputs=N).double()
        with torch.no_grad():
            layer.w.copy_(W)
        got = layer(x)[0]
        assert layer.backend == "native"
        torch.testing.assert_close(got, want, atol=1e-7, rtol=0)
        factors = torch.linspace(0.5, 1.5, N, dtype=torch.float64)
        expected = torch.autograd.grad((want * factors).sum(), [x, w])
        own = torch.autograd.grad((got * factors).sum(), [x, layer.w])
        for a, b in zip(own, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        checked += 1
    assert checked >= 4


A, B = Parameter("a"), Parameter("b")
ANGLES = [A * B, 0.3 - B, B, 2 * B - A]
STANDARD = {n: g for n, g in get_standard_gate_name_mapping().items() if n not in ("measure", "reset", "delay")}
CHANGED = {
    "as it is": lambda gate: gate,
    "undone": lambda gate: gate.inverse(),
    "undone by annotation": lambda gate: gate.inverse(annotated=True),
    "squared by annotation": lambda gate: gate.power(2, annotated=True),
    "under a control": lambda gate: gate.control(1),
    "under an open control by annotation": lambda gate: gate.control(1, ctrl_state=0, annotated=True),
}


@pytest.mark.parametrize("name", some(STANDARD, 9))
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
def test_qiskit(name):
    standard = STANDARD[name]
    n_params, checked = len(standard.params), 0
    for change in CHANGED.values():
        circuit = QuantumCircuit(N)
        for k in range(N):
            circuit.u(0.3 + 0.2 * k, 0.1 * k, 0.5, k)
        circuit.rx(A, 0)
        circuit.ry(B, 1)
        try:
            gate = change(type(standard)(*ANGLES[:n_params]) if n_params else standard)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                circuit.append(gate, WIRES[: gate.num_qubits])
        except Exception:  # what Qiskit cannot make itself
            continue
        if circuit.num_qubits < gate.num_qubits:
            continue
        for k in range(N):
            circuit.rx(0.4 + 0.3 * k, k)
            circuit.cry(1.1, k, (k + 1) % N)
        layer = QuantumLayer(circuit, input_params=[A], weight_params=[B], seed=0).double()
        assert layer.backend == "native"
        values = {A: 0.7, B: layer.weight.item()}
        state = Statevector(circuit.assign_parameters(values))
        want = [state.expectation_value(SparsePauliOp.from_sparse_list([("Z", [k], 1)], N)).real for k in range(N)]
        np.testing.assert_allclose(layer(torch.tensor([[0.7]], dtype=torch.float64))[0].detach(), want, atol=1e-9)
        checked += 1
    assert checked >= 2

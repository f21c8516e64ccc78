"""Circuit families on the couplings of a device."""

from __future__ import annotations

import pennylane as qml
import pytest
import torch
from qiskit.transpiler import CouplingMap

import qbp
from qbp.circuit.ansatz import COUPLED
from qbp.circuit.couplings import edges_of, size_of
from qbp.errors import ArgumentError

STAR = [(0, 2), (2, 0), (1, 2), (2, 3), (5, 3)]


def test_edges_come_once_and_join_the_first_wires():
    for couplings in (STAR, CouplingMap(STAR), tuple(map(list, STAR))):
        assert edges_of(couplings, 4) == [(0, 2), (1, 2), (2, 3)]
        assert size_of(couplings) == 6
    assert edges_of(None, 3) == [(0, 1), (1, 2)] and edges_of(None, 1) == []


def coupled(family: str, inputs: torch.Tensor, weights: torch.Tensor) -> None:
    """The families in PennyLane's words."""
    edges, wires = [(0, 2), (1, 2), (2, 3)], range(4)
    if family != "reuploading":
        qml.AngleEmbedding(inputs, wires, rotation="X" if family == "basic_entangler" else "Y")
    for k, layer in enumerate(weights):
        if family == "basic_entangler":
            for wire in wires:
                qml.RX(layer[wire], wire)
        if family != "reuploading" or k:
            for edge in edges:
                (qml.CNOT if family == "basic_entangler" else qml.CZ)(edge)
        for wire in wires:
            if family == "hardware_efficient":
                qml.RZ(layer[wire, 0], wire)
                qml.RY(layer[wire, 1], wire)
            elif family == "reuploading":
                qml.RX(layer[wire, 0] * inputs[wire] + layer[wire, 1], wire)
                qml.RY(layer[wire, 2], wire)


@pytest.mark.parametrize("family", COUPLED)
def test_families_follow_the_couplings(family: str):
    layer = qbp.QuantumLayer(family, n_qubits=4, n_layers=2, coupling_map=STAR, seed=0).double()

    @qml.qnode(qml.device("default.qubit"), interface="torch")
    def circuit(inputs: torch.Tensor, weights: torch.Tensor):
        coupled(family, inputs, weights)
        return [qml.expval(qml.Z(wire)) for wire in range(4)]

    x = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.stack(circuit(x, layer.weights)), atol=1e-12, rtol=0)


def test_a_devices_couplings_need_no_swap():
    pytest.importorskip("qiskit_aer")
    layer = qbp.QuantumLayer("hardware_efficient", n_layers=2, coupling_map="fake:kolkata", seed=0)
    assert layer.n_inputs == 27
    on_device = qbp.on_backend(torch.nn.Sequential(layer), "fake:kolkata", shots=100)[0]
    circuit = on_device.executor.compiled(layer.circuit.program).circuit
    assert circuit.count_ops()["cx"] == 2 * 28  # the edges of a 27-qubit Falcon
    by_twin = qbp.QuantumLayer("hardware_efficient", n_layers=2, coupling_map="ibm:ibm_kolkata", seed=0)
    assert by_twin.circuit.program == layer.circuit.program


@pytest.mark.parametrize(
    "coupling_map", [[], [(0, 0)], [(0, 1, 2)], [(0, -1)], [(0, "a")], [(7, 8)], 5, "torino", "ibm:ibm_nowhere"]
)
def test_what_is_no_coupling_map(coupling_map: object):
    with pytest.raises(ArgumentError, match="`coupling_map`"):
        qbp.QuantumLayer("hardware_efficient", n_qubits=4, n_layers=1, coupling_map=coupling_map)


def test_families_without_a_choice_refuse_couplings():
    for source in ("qcnn", "iris", lambda inputs: qml.expval(qml.Z(0))):
        with pytest.raises(ArgumentError, match="`coupling_map` must be None but for"):
            qbp.QuantumLayer(source, n_qubits=4, n_layers=1, coupling_map=STAR)

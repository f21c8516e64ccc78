"""What a QNode is taken for: PennyLane's class, subclasses, wrapped ones, and gradient transforms of it."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import pennylane as qml
import torch
from pennylane.qnn import TorchLayer

import qbp
from qbp import QuantumLayer

SHAPES = {"w": (2,)}


def angles(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.RY(w[0], wires=0)
    qml.CNOT(wires=[0, 1])
    qml.RX(w[1], wires=1)
    return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))


def test_a_layer_made_from_a_qnode_is_a_torchlayer(tmp_path):
    """PennyLane's functions ask for the class, and say of the layer what they say of PennyLane's."""
    qnode = qml.QNode(angles, qml.device("default.qubit", wires=2))
    ours, theirs = QuantumLayer(qnode, SHAPES), TorchLayer(qnode, SHAPES)
    x = torch.rand(5, 2)
    copies = [ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
    torch.save(ours, tmp_path / "layer.pt")
    copies.append(torch.load(tmp_path / "layer.pt", weights_only=False))
    for layer in copies:
        assert isinstance(layer, TorchLayer) and isinstance(layer, QuantumLayer)
        mine, other = qml.specs(layer)(x), qml.specs(theirs)(x)
        assert mine["resources"] == other["resources"] and mine["num_device_wires"] == other["num_device_wires"] == 2
        assert mine["device_name"] == other["device_name"] and mine["shots"] == other["shots"]
        assert torch.equal(layer(x), ours(x))
        assert repr(layer) == repr(QuantumLayer(angles, SHAPES, n_inputs=2))
    assert type(ours) is type(copies[1]) is type(QuantumLayer(qnode, SHAPES))
    assert not isinstance(QuantumLayer("basic_entangler", n_qubits=2, n_layers=1), TorchLayer)


def test_a_layer_made_from_a_qnode_is_kept_in_a_model_file(tmp_path):
    layer = QuantumLayer(qml.QNode(angles, qml.device("default.qubit", wires=2)), SHAPES, n_inputs=2)
    model = torch.nn.Sequential(layer, torch.nn.Linear(2, 1))
    qbp.save_model(model, tmp_path / "model.json")
    x = torch.rand(3, 2)
    assert torch.equal(qbp.load_model(tmp_path / "model.json")(x), model(x))


class Pair(NamedTuple):
    values: tuple[float, ...]


PAIR = Pair((0.5,))


def test_a_tuple_with_a_field_of_the_name_of_a_method():
    def circuit(inputs, w):
        qml.RX(inputs[..., 0], wires=0)
        qml.RY(w + PAIR.values[0], wires=0)
        return qml.expval(qml.Z(0))

    layer = QuantumLayer(circuit, {"w": ()}, n_inputs=1)
    assert torch.allclose(layer(torch.zeros(1, 1)), torch.cos(layer.w + 0.5), atol=1e-6)

"""What a QNode is taken for: PennyLane's class, subclasses, wrapped ones, and gradient transforms of it."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from typing import NamedTuple

import pennylane as qml
import pytest
import torch
from pennylane.qnn import TorchLayer

import qbp
from qbp import QuantumLayer
from qbp.errors import ArgumentError

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


def turned(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.RY(w[0], wires=0)
    qml.CRX(w[1], wires=[0, 1])
    return qml.expval(qml.X(0)), qml.expval(qml.Z(0) @ qml.Y(1))


class LoudDevice(type(qml.device("default.qubit", wires=1))):
    """A device of a user's own."""


class OwnQNode(qml.QNode):
    """A QNode of a user's own: whatever it returns is doubled."""

    def __call__(self, *args, **kwargs):
        return tuple(2 * result for result in super().__call__(*args, **kwargs))


def partly(inputs, w, factor):
    return angles(inputs * factor, w)


def doubled(qnode):
    @functools.wraps(qnode)
    def call(*args, **kwargs):
        return tuple(2 * result for result in qnode(*args, **kwargs))

    return call


def on_qubits(function, kind=qml.QNode, on=None, **options):
    return kind(function, on or qml.device("default.qubit", wires=2), **options)


RUN_BY_THEMSELVES = {
    "a device of a subclass": lambda: on_qubits(angles, on=LoudDevice(wires=2)),
    "a QNode of a subclass": lambda: on_qubits(angles, OwnQNode),
    "functools.partial": lambda: functools.partial(on_qubits(partly), factor=0.5),
    "functools.wraps": lambda: doubled(on_qubits(angles)),
    "partial of wraps": lambda: functools.partial(doubled(on_qubits(partly)), factor=0.5),
    "a gradient transform as rule": lambda: on_qubits(angles, diff_method=qml.gradients.param_shift),
    "another, as a rule": lambda: on_qubits(angles, diff_method=qml.gradients.finite_diff),
    "finite differences of a step": lambda: on_qubits(angles, diff_method="finite-diff", gradient_kwargs={"h": 1e-5}),
    "a transform into several circuits": lambda: qml.transforms.split_non_commuting(on_qubits(turned)),
}


@pytest.mark.parametrize("name", RUN_BY_THEMSELVES)
def test_what_is_more_than_its_circuit_runs_itself_with_its_values_and_gradients(name):
    source = RUN_BY_THEMSELVES[name]()
    layer = QuantumLayer(source, SHAPES).double()
    assert layer.executor is None and layer.backend.startswith("qnode on")
    x = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    theirs = torch.stack([torch.stack(list(source(inputs=row, w=layer.w))) for row in x])
    ours = layer(x)
    assert torch.allclose(ours, theirs, atol=1e-8)
    weights = torch.linspace(-1, 2, 6, dtype=torch.float64).reshape(3, 2)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), (x, layer.w)),
        torch.autograd.grad((theirs * weights).sum(), (x, layer.w)),
        strict=True,
    ):
        assert torch.allclose(mine, other, atol=1e-6) and mine.abs().max() > 1e-3


@pytest.mark.parametrize("before", ["native", "itself"])
@pytest.mark.parametrize("after", ["native", "itself"])
def test_another_qnode_in_a_built_layer(before, after):
    """Outputs, gradients and backend are those of the new QNode; the weights stay."""

    def other(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(2), rotation="Y")
        qml.RX(w[1], wires=0)
        return qml.expval(qml.X(0)), qml.expval(qml.Y(0))

    kinds = {"native": qml.QNode, "itself": OwnQNode}
    layer = QuantumLayer(on_qubits(angles, kinds[before]), SHAPES).double()
    x, weights = torch.rand(3, 2, dtype=torch.float64), layer.w.detach().clone()
    layer(x)
    new = on_qubits(other, kinds[after])
    layer.qnode = new
    assert layer.qnode is new and torch.equal(layer.w, weights)
    assert (layer.backend == "native") == (after == "native")
    theirs = torch.stack([torch.stack(list(new(inputs=row, w=layer.w))) for row in x])
    assert torch.allclose(layer(x), theirs, atol=1e-8)
    mine, other_gradient = (torch.autograd.grad(y.sum(), layer.w)[0] for y in (layer(x), theirs))
    assert torch.allclose(mine, other_gradient, atol=1e-8)


def test_reprs_are_of_one_line():
    """A circuit, a data set and a history say what they are, not all that they hold."""
    train, _ = qbp.data.load("iris")
    history = qbp.History(tuple({"epoch": i, "loss": 1 / (i + 1)} for i in range(1, 10)))
    assert repr(qbp.trace(angles, SHAPES, n_inputs=2)) == (
        "Circuit(2 qubits, 2 inputs, 2 weights, 2 outputs: 3 RX, 1 RY, 1 CNOT)"
    )
    assert repr(train) == f"Dataset('iris', {len(train)} rows, 4 features, 3 classes)"
    assert repr(history) == "History(9 epochs: loss=0.1)"
    assert repr(qbp.History(())) == "History(0 epochs)"


BITS = {
    "BasisEmbedding": (lambda x: qml.BasisEmbedding(x[:3], wires=range(3)), (0, 1, 2)),
    "BasisState of some": (lambda x: qml.BasisState(torch.stack([x[2], 1 - x[0]]), wires=[0, 2]), (0, 2)),
    "rounded by the user": (lambda x: qml.BasisEmbedding((x[:3] > 0.5).long(), wires=range(3)), ()),
}


@pytest.mark.parametrize("name", BITS)
def test_inputs_that_are_no_bits_are_refused_as_pennylane_does(name, tmp_path):
    embed, bits = BITS[name]

    def circuit(inputs, weights):
        embed(inputs)
        qml.RX(inputs[3], wires=0)
        qml.BasicEntanglerLayers(weights, wires=range(3))
        return [qml.expval(qml.Z(k)) for k in range(3)]

    node = qml.QNode(circuit, qml.device("default.qubit", wires=3))
    layer = QuantumLayer(node, {"weights": (1, 3)}, n_inputs=4)
    assert layer.backend == "native" and layer.circuit.bits == bits
    rows = torch.tensor([[1.0, 0, 1, 0.3], [0, 1, 0, 0.7]])
    want = torch.stack([torch.stack(node(row, layer.weights)) for row in rows])
    torch.testing.assert_close(layer(rows), want.float(), atol=1e-6, rtol=0)
    qbp.save_model(torch.nn.Sequential(layer), tmp_path / "model.safetensors")
    loaded = qbp.load_model(tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded(rows), layer(rows))
    for module in (layer, loaded):
        for k in bits:
            for value in (0.5, 2.0, math.nan):
                wrong = rows.clone()
                wrong[1, k] = value
                with pytest.raises(ArgumentError, match=rf"must be 0 or 1 in column {k}, .* but row 1 has"):
                    module(wrong)

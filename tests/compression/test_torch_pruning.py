"""Torch-Pruning with the quantum layer as a layer of its own."""

from __future__ import annotations

import copy

import pennylane as qml
import pytest
import torch
from torch import nn

import qbp
from qbp.compression.torch_pruning import drop_outputs, torch_pruning_options
from qbp.errors import ArgumentError

tp = pytest.importorskip("torch_pruning")


class Residual(nn.Module):
    """No `Sequential`: two ways from the first layer to the sum, and a quantum layer after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.way, self.angles = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.quantum = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2, seed=0)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.stem(x))
        return self.head(self.quantum(torch.tanh(self.angles(h + torch.relu(self.way(h))))))


def pruned(model: nn.Module, options: dict) -> nn.Module:
    torch.manual_seed(0)
    importance = tp.importance.GroupMagnitudeImportance()
    small = copy.deepcopy(model)
    tp.pruner.BasePruner(small, torch.zeros(1, 8), importance, pruning_ratio=0.5, **options(small)).step()
    return small


def test_it_prunes_up_to_the_quantum_layer_and_across_a_residual():
    torch.manual_seed(0)
    model = Residual()
    small = pruned(model, torch_pruning_options)
    assert (small.stem.out_features, small.way.out_features, small.angles.in_features) == (3, 3, 3)
    assert small.angles.out_features == small.quantum.n_inputs == 2
    assert small.quantum.circuit.program.n_angles == model.quantum.circuit.program.n_angles - 2
    x = torch.randn(5, 8)
    small(x).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    assert small.quantum.weights.shape == model.quantum.weights.shape  # as unregistered it would not be


def test_unregistered_the_layer_is_left_wrong():
    """Why it has to be registered."""
    torch.manual_seed(0)
    try:
        small = pruned(Residual(), lambda model: {"ignored_layers": [model.head]})
        ok = small.angles.out_features == small.quantum.n_inputs and small(torch.randn(5, 8)).shape == (5, 2)
    except Exception:
        ok = False
    assert not ok


def test_a_channel_goes_from_what_is_measured_to_what_reads_it():
    torch.manual_seed(0)
    model = qbp.hybrid(8, 2, n_qubits=4, n_layers=1, seed=0)
    graph = tp.DependencyGraph()
    options = torch_pruning_options(model)
    graph.build_dependency(model, torch.zeros(1, 8), customized_pruners=options["customized_pruners"])
    pruner = options["customized_pruners"][qbp.QuantumLayer]
    graph.get_pruning_group(model[2], pruner.prune_out_channels, idxs=[1, 3]).prune()
    assert model[2].n_outputs == model[3].in_features == 2 and model(torch.randn(3, 8)).shape == (3, 2)


def test_what_is_not_measured_is_not_run():
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=1, seed=0).double()
    small = copy.deepcopy(layer)
    drop_outputs(small, [2, 3])
    x = torch.randn(9, 4, dtype=torch.float64)
    assert (small(x) - layer(x)[:, :2]).abs().max() < 1e-12
    with pytest.raises(ArgumentError, match="`outputs`"):
        drop_outputs(small, [0, 1])

    def probabilities(inputs):
        qml.AngleEmbedding(inputs, wires=range(2))
        return qml.probs(wires=[0])

    with pytest.raises(ArgumentError, match="`layer`"):
        drop_outputs(qbp.QuantumLayer(probabilities, {}, n_inputs=2), [0])


def test_every_head_keeps_its_outputs():
    """Also one that was registered before what it reads."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(6, 2), nn.Linear(6, 3)
            self.stem, self.middle = nn.Linear(8, 6), nn.Linear(6, 6)

        def forward(self, x):
            h = torch.tanh(self.middle(torch.tanh(self.stem(x))))
            return torch.sigmoid(self.left(h)), self.right(h)

    model = Heads()
    assert {id(layer) for layer in torch_pruning_options(model)["ignored_layers"]} == {id(model.left), id(model.right)}
    small = pruned(model, torch_pruning_options)
    assert [y.shape for y in small(torch.zeros(1, 8))] == [(1, 2), (1, 3)] and small.stem.out_features == 3

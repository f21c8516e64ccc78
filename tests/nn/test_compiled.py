"""Layers inside `torch.compile`."""

from __future__ import annotations

import copy

import pennylane as qml
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from qbp import QuantumLayer
from qbp.nn import compiled as module


@pytest.fixture(autouse=True)
def anew():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def hybrid(**options) -> nn.Sequential:
    layer = QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, seed=0, **options)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), layer, nn.Linear(3, 2)).double()


def gradients(function, model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    outputs = function(x)
    loss = (outputs * torch.arange(1, outputs.numel() + 1).view_as(outputs)).sum()
    return [outputs, *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_model_is_one_graph_with_equal_outputs_and_gradients(backend):
    model = hybrid()
    fast = torch.compile(model, backend=backend, fullgraph=True)
    for n_rows in (5, 2):  # another batch size has another graph, or one of any size
        x = torch.rand(n_rows, 2, dtype=torch.float64)
        for ours, theirs in zip(gradients(fast, model, x), gradients(model, model, x), strict=True):
            torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        model[2].weights += 1
        torch.testing.assert_close(fast(x), model(x))
    assert not counters["graph_break"]


def test_dynamo_counts_no_break():
    model, x = hybrid(), torch.rand(5, 2, dtype=torch.float64)
    explained = torch._dynamo.explain(lambda x: model[3](model[2](torch.tanh(model[0](x)))))(x)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@pytest.mark.parametrize("options", [{"shots": 50}, {"backend": "dense"}])
def test_what_may_not_run_again_is_one_break(options):
    model, x = hybrid(**options), torch.rand(5, 2, dtype=torch.float64)
    explained = torch._dynamo.explain(lambda x: model[3](model[2](torch.tanh(model[0](x)))))(x)
    assert (explained.graph_count, explained.graph_break_count) == (2, 1)


def test_a_forward_pass_that_is_no_longer_kept_runs_again(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 1)
    model, x = hybrid(), torch.rand(5, 2, dtype=torch.float64)
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)
    first, _, _ = fast(x), fast(x + 1), fast(x + 2)
    expected = gradients(model, model, x)[1:]
    weights = torch.arange(1, first.numel() + 1).view_as(first)
    for ours, theirs in zip(
        torch.autograd.grad((first * weights).sum(), list(model.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_inputs_copies_and_functions_in_one_graph():
    """A layer called twice, a copy with its own circuit, a PennyLane function of one output, and rows of any shape."""

    def circuit(inputs, first, second):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.RX(first, wires=0)
        qml.CRY(2 * second[0], wires=[0, 1])
        return qml.expval(qml.Z(1))

    scalar = QuantumLayer(circuit, {"first": 1, "second": (1,)}, n_inputs=2).double()
    layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1).double()
    other = copy.deepcopy(layer)
    other.weights.data += 1
    assert other._number != layer._number
    model = nn.ModuleList([scalar, layer, other])

    def function(x):
        return scalar(layer(x) + 2 * other(layer(x + 1)))

    x = torch.rand(3, 4, 2, dtype=torch.float64, requires_grad=True)
    fast = torch.compile(function, backend="aot_eager", fullgraph=True)
    for ours, theirs in zip(gradients(fast, model, x), gradients(function, model, x), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(fast(x).sum(), x), torch.autograd.grad(function(x).sum(), x))


def test_lanes_of_vmap():
    layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1).double()
    fast = torch.compile(torch.vmap(layer), backend="aot_eager", fullgraph=True)
    x = torch.rand(3, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(fast(x), layer(x))

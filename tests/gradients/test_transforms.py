"""Quantum layers under the transforms of `torch.func`, beside the same circuits made of torch's own operations."""

from __future__ import annotations

from collections.abc import Callable

import pennylane as qml
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

import qbp
from qbp import QuantumLayer
from qbp.errors import GradientError


def reuploading(inputs, weights):
    for layer in weights:
        for wire in range(3):
            qml.RX(inputs[wire] * layer[wire, 0] + layer[wire, 1], wires=wire)
            qml.RY(layer[wire, 2], wires=wire)
        qml.CNOT([0, 1])
        qml.CNOT([1, 2])
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Y(2))]


def embedding(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.StronglyEntanglingLayers(weights, wires=range(3))
    return [qml.expval(qml.Z(0)), qml.probs(wires=[0, 2])]


def amplitudes(inputs, weights):
    qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return [qml.expval(qml.Z(wire)) for wire in range(2)]


def scalar(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.StronglyEntanglingLayers(weights, wires=range(3))
    return qml.expval(qml.Z(0))


CIRCUITS = {reuploading: (2, 3, 3), embedding: (1, 3, 3), amplitudes: (1, 2, 3), scalar: (1, 3, 3)}


def layers(circuit: Callable[..., object], method: str) -> tuple[QuantumLayer, QuantumLayer]:
    shapes, n_inputs = {"weights": CIRCUITS[circuit]}, 4 if circuit is amplitudes else 3
    own = QuantumLayer(circuit, shapes, seed=0, n_inputs=n_inputs, diff_method=method)
    reference = QuantumLayer(circuit, shapes, seed=0, n_inputs=n_inputs, backend="dense", diff_method="backprop")
    return own.double(), reference.double()


def function(layer: QuantumLayer) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda weights, x: functional_call(layer, {"weights": weights}, (x,))


def loss(layer: QuantumLayer) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda weights, x: function(layer)(weights, x).sin().sum()


TRANSFORMS: dict[str, Callable[..., Tensor]] = {
    "vmap over samples": lambda f, w, x: vmap(f)(x[0]),
    "vmap over batches": lambda f, w, x: vmap(f, in_dims=1, out_dims=1)(x),
    "vmap over weights": lambda f, w, x: vmap(function(f), (0, None))(w, x[0]),
    "vmap over both": lambda f, w, x: vmap(function(f))(w, x),
    "vmap of vmap": lambda f, w, x: vmap(lambda w: vmap(lambda x: function(f)(w, x))(x[0]))(w),
    "grad of weights": lambda f, w, x: grad(loss(f))(w[0], x[0]),
    "grad of inputs": lambda f, w, x: grad(loss(f), 1)(w[0], x[0]),
    "gradients by sample": lambda f, w, x: vmap(grad(loss(f)), (None, 0))(w[0], x[0]),
    "gradients by model": lambda f, w, x: vmap(grad(loss(f)), (0, None))(w, x[0]),
    "jacrev": lambda f, w, x: jacrev(function(f))(w[0], x[0]),
    "jacrev by model": lambda f, w, x: vmap(jacrev(function(f), 1), (0, None))(w, x[0, 0]),
    "jacfwd": lambda f, w, x: jacfwd(function(f))(w[0], x[0]),
    "jvp of inputs": lambda f, w, x: jvp(f, (x[0],), (x[1],))[1],
    "vjp outside": lambda f, w, x: vjp(f, x[0])[1](f(x[0]).detach())[0],
    "hessian of inputs": lambda f, w, x: hessian(lambda x: loss(f)(w[0], x))(x[0, 0]),
    "hessian of weights": lambda f, w, x: hessian(lambda w: loss(f)(w, x[0, :2]))(w[0]),
    "jacrev of jacrev": lambda f, w, x: jacrev(jacrev(lambda x: f(x).sum()))(x[0, 0]),
    "grad of grad": lambda f, w, x: grad(lambda x: grad(loss(f), 1)(w[0], x).sin().sum())(x[0]),
    "autograd of vmap": lambda f, w, x: torch.autograd.grad(vmap(f)(x[0]).sin().sum(), f.weights)[0],
}


@pytest.mark.parametrize("method", ["adjoint", "parameter-shift"])
@pytest.mark.parametrize("circuit", CIRCUITS, ids=lambda circuit: circuit.__name__)
def test_transforms(circuit: Callable[..., object], method: str):
    own, reference = layers(circuit, method)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(3, *CIRCUITS[circuit], dtype=torch.float64, generator=generator)
    x = torch.randn(3, 3, own.n_inputs, dtype=torch.float64, generator=generator)
    for name, transform in TRANSFORMS.items():
        expected = transform(reference, weights, x)
        torch.testing.assert_close(transform(own, weights, x), expected, atol=1e-9, rtol=0, msg=name)


def test_transforms_on_other_engines():
    """Windows, and words under noise: what `vmap` gives is what a loop gives."""
    noise = qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.05, "AmplitudeDamping": 0.1}})
    for layer in (
        QuantumLayer("hardware_efficient", n_qubits=30, n_layers=1, seed=0).double(),
        QuantumLayer("reuploading", n_qubits=3, n_layers=2, noise=noise, seed=0).double(),
    ):
        weights = torch.randn(2, *layer.weights.shape, dtype=torch.float64)
        x = torch.randn(2, 3, layer.n_inputs, dtype=torch.float64)
        together = vmap(grad(loss(layer)))(weights, x)
        each = [grad(loss(layer))(w, rows) for w, rows in zip(weights, x, strict=True)]
        torch.testing.assert_close(together, torch.stack(each), atol=1e-9, rtol=0)


def test_an_ensemble_of_models_trains_as_each_alone():
    models = [qbp.hybrid(4, 2, n_qubits=3, n_layers=1, seed=seed).double() for seed in range(3)]
    state, _ = stack_module_state(models)
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1])

    def each(state: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(models[0], state, (x,)), y)

    gradients = vmap(grad(each))(state)
    for k, model in enumerate(models):
        nn.functional.cross_entropy(model(x), y).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("coefficients", [[1.0, 0.3, -2.0], None], ids=["weighted", "sum"])
def test_forward_mode_within_forward_mode(coefficients: list[float] | None):
    shape = {"n_qubits": 3, "n_layers": 2, "seed": 0}
    own = QuantumLayer("strongly_entangling", **shape).double()
    reference = QuantumLayer("strongly_entangling", **shape, backend="dense", diff_method="backprop").double()
    x = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)

    def loss_of(layer: QuantumLayer) -> Callable[[Tensor], Tensor]:
        return lambda v: layer(v).sum() if coefficients is None else layer(v) @ torch.tensor(coefficients).double()

    right = torch.autograd.functional.hessian(loss_of(reference), x)
    third = jacrev(jacrev(jacrev(loss_of(reference))))(x)
    f = loss_of(own)
    for way in (hessian(f), jacfwd(jacfwd(f)), jacfwd(jacrev(f)), jacrev(jacfwd(f)), jacrev(jacrev(f))):
        torch.testing.assert_close(way(x), right)
    for way in (jacfwd(jacfwd(jacfwd(f))), jacfwd(jacrev(jacfwd(f))), jacfwd(jacfwd(jacrev(f)))):
        torch.testing.assert_close(way(x), third)
    e, d = torch.eye(3, dtype=torch.float64)[:2]
    twice = jvp(lambda v: jvp(f, (v,), (e,))[1], (x,), (d,))[1]
    torch.testing.assert_close(twice, right[0, 1])


def test_rules_with_a_memory_have_no_second_derivatives():
    layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, diff_method="gradient-pruning", seed=0)
    with pytest.raises(GradientError, match="second derivatives"):
        jacrev(jacrev(lambda x: layer(x).sum()))(torch.zeros(2))

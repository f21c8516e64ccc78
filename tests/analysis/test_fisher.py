"""Jacobians, Fisher information and variances of gradients, against autograd through `Dense` and against PennyLane."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pennylane as qml
import pytest
import torch

from qbp.analysis import fisher as information
from qbp.analysis.fisher import angle_jacobian, gradient_variance, jacobian, quantum_fisher
from qbp.circuit.angles import Angles
from qbp.errors import ArgumentError, CircuitError
from qbp.executors.dense import Dense
from qbp.executors.native import Native
from qbp.nn.layer import QuantumLayer
from qbp.testing import NASTY, random_amplitudes, random_angles, random_program


def nasty(inputs, weights):
    """Weights shared, scaled, controlled, in functions and multiplied by inputs; one that does nothing."""
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.T(0)
    qml.Rot(*weights[:3], wires=1)
    qml.CRX(2 * weights[0], wires=[0, 2])
    qml.CNOT([1, 2])
    qml.IsingXY(inputs[0] * weights[3], wires=[2, 1])
    qml.RY(torch.sin(weights[1]) * weights[2], wires=2)
    qml.Hadamard(1)
    qml.CRot(*weights[1:4], wires=[2, 0])
    qml.RZ(weights[0] - 1.5, wires=2)
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Y(2) - 0.5 * qml.Z(1)), qml.probs(wires=[2])]


def embedded(inputs, weights):
    qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
    qml.RX(weights[0], wires=0)
    qml.CRY(weights[1], wires=[0, 2])
    qml.RZ(weights[2], wires=2)
    return qml.expval(qml.Y(2)), qml.expval(qml.Z(0))


LAYERS = {
    "nasty": (lambda: QuantumLayer(nasty, {"weights": 5}, seed=1), 3),
    "amplitudes": (lambda: QuantumLayer(embedded, {"weights": 3}, seed=2), 4),
    "strongly_entangling": (lambda: QuantumLayer("strongly_entangling", n_qubits=3, n_layers=2, seed=3), 3),
    "no weights": (lambda: QuantumLayer(lambda inputs: [qml.RX(inputs[0], 0), qml.expval(qml.Z(0))][1], {}), 1),
}


def case(name, batch=3):
    make, n_inputs = LAYERS[name]
    x = torch.randn(batch, n_inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = make()
    return layer, x, layer.circuit_for(n_inputs), layer.flat_weights(x).detach()


@pytest.mark.parametrize("name", LAYERS)
def test_jacobian_is_that_of_autograd(name):
    layer, x, circuit, weights = case(name)

    def outputs(w):
        return Dense()(circuit.program, circuit.angle_map(x, w), circuit.angle_map.amplitudes(x, w)).values

    slopes = jacobian(layer, x)
    torch.testing.assert_close(slopes, torch.func.jacrev(outputs)(weights), rtol=0, atol=1e-12)
    assert slopes.dtype == torch.float64 and not slopes.requires_grad
    others = torch.full_like(weights, 0.3)
    torch.testing.assert_close(
        jacobian(layer, x.float(), others), torch.func.jacrev(outputs)(others), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", LAYERS)
def test_fisher_information_is_that_of_autograd(name):
    layer, x, circuit, weights = case(name)

    def state(w):
        amplitudes = circuit.angle_map.amplitudes(x, w)
        return torch.view_as_real(Dense().state(circuit.program, circuit.angle_map(x, w), amplitudes))

    psi = torch.view_as_complex(state(weights))
    parts = torch.func.jacrev(state)(weights)  # (B, 2^N, 2, P)
    slopes = torch.complex(parts[:, :, 0], parts[:, :, 1])
    overlap = (slopes.conj() * psi[:, :, None]).sum(1)
    want = 4 * (slopes.mH @ slopes - overlap[:, :, None] * overlap[:, None].conj()).real
    information = quantum_fisher(layer, x)
    torch.testing.assert_close(information, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(information, information.mT, rtol=0, atol=1e-13)
    assert not len(weights) or torch.linalg.eigvalsh(information).min() > -1e-12


def test_fisher_information_is_four_times_pennylanes_metric_tensor():
    device = qml.device("default.qubit", wires=4)

    @qml.qnode(device)
    def circuit(weights):
        qml.AngleEmbedding(inputs, wires=range(3))
        qml.StronglyEntanglingLayers(weights, wires=range(3))
        return qml.expval(qml.Z(0))

    layer = QuantumLayer("strongly_entangling", n_qubits=3, n_layers=2, seed=0)
    weights = next(layer.parameters()).detach().double()
    inputs = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)
    want = qml.metric_tensor(circuit, approx=None)(weights.clone().requires_grad_()).reshape(18, 18)
    torch.testing.assert_close(quantum_fisher(layer, inputs[None])[0], 4 * want.detach(), rtol=0, atol=1e-10)


def test_large_batches_are_run_in_parts(monkeypatch):
    layer, x, *_ = case("nasty", batch=5)
    whole = jacobian(layer, x), quantum_fisher(layer, x)
    monkeypatch.setattr(information, "MAX_NUMBERS", 1)
    torch.testing.assert_close((jacobian(layer, x), quantum_fisher(layer, x)), whole, rtol=0, atol=0)


@pytest.mark.parametrize("output", [None, 0, 1])
def test_variance_of_gradients_is_that_of_sampling_by_autograd(output):
    layer, x, *_ = case("nasty", batch=2)
    generator = torch.Generator().manual_seed(7)
    dense = QuantumLayer(nasty, {"weights": 5}, backend="dense").double()
    slopes = torch.zeros(20, 2, 4, 5, dtype=torch.float64)
    for i in range(20):
        dense.weights.data = torch.rand(5, generator=generator, dtype=torch.float64) * 2 * math.pi
        y = dense(x)
        for b, m in np.ndindex(2, 4):
            slopes[i, b, m] = torch.autograd.grad(y[b, m], dense.weights, retain_graph=True)[0]
    want = slopes.var(0).mean(0)
    before = layer.weights.detach().clone()
    variance = gradient_variance(layer, x, n_samples=20, seed=7, output=output)
    torch.testing.assert_close(variance, want.amax(0) if output is None else want[output], rtol=1e-9, atol=1e-12)
    assert torch.equal(layer.weights, before) and layer.weights.grad is None


def test_gradients_of_a_global_observable_vanish_with_the_number_of_qubits():
    """RX on every wire and a product of all Z: the variance of one derivative is 2^-N, for N = 2 is 1/4."""

    def product(inputs, weights):
        qml.AngleEmbedding(weights, wires=range(n))
        return qml.expval(qml.prod(*(qml.Z(w) for w in range(n))))

    for n in (2, 5):
        layer = QuantumLayer(product, {"weights": n}, n_inputs=0)
        variance = gradient_variance(layer, torch.zeros(1, 0), n_samples=20000, seed=0)
        torch.testing.assert_close(variance, torch.full((n,), 0.5**n, dtype=torch.float64), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", NASTY)
def test_states_are_those_of_dense_up_to_one_unitary(name):
    """All overlaps are the same, whatever is measured."""
    program, rng = NASTY[name], np.random.default_rng(0)
    for n_batched in (program.n_angles, 0, program.n_angles // 2):
        for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
            angles = random_angles(rng, program, 19, n_batched=n_batched, dtype=dtype)
            amplitudes = random_amplitudes(rng, program, 19, dtype=dtype.to_complex())
            mine = Native().frame_states(program, angles, amplitudes)
            true = Dense().state(program, angles, amplitudes)
            assert mine.shape == true.shape and mine.dtype == true.dtype
            torch.testing.assert_close(mine.conj() @ mine.T, true.conj() @ true.T, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 11])
def test_states_of_larger_programs(n_samples):
    """However few samples there are: angles beyond half a turn must not move them apart."""
    rng = np.random.default_rng(1)
    for n_qubits in (6, 9, 10):
        program = random_program(rng, n_qubits=(n_qubits, n_qubits), n_ops=(40, 60), n_angles=(30, 40))
        angles = random_angles(rng, program, n_samples, n_batched=20)
        mine, true = Native().frame_states(program, angles), Dense().state(program, angles)
        torch.testing.assert_close(mine.conj() @ mine.T, true.conj() @ true.T, rtol=0, atol=1e-12)


def test_jacobian_of_angles():
    rng = np.random.default_rng(2)
    for _ in range(10):
        program = random_program(rng, amplitudes=bool(rng.integers(2)))
        angles = random_angles(rng, program, 3, n_batched=program.n_angles // 2)
        amplitudes = random_amplitudes(rng, program, 3)
        rows = [
            torch.func.jacrev(partial(one_sample, program, None if amplitudes is None else amplitudes[b : b + 1]))(full)
            for b, full in enumerate(angles.full())
        ]
        torch.testing.assert_close(angle_jacobian(program, angles, amplitudes), torch.stack(rows), rtol=0, atol=1e-11)


def one_sample(program, amplitudes, angles):
    return Dense()(program, Angles.of(angles[None]), amplitudes).values[0]


def test_errors_come_before_any_work():
    layer, x, *_ = case("strongly_entangling")
    for wrong in (x[0], "x", x[:, :2]):
        with pytest.raises(ArgumentError, match="shape"):
            jacobian(layer, wrong)
    with pytest.raises(ArgumentError, match=r"`weights` must have shape \(18,\), but has \(4,\)"):
        quantum_fisher(layer, x, torch.zeros(4))
    with pytest.raises(ArgumentError, match="n_samples"):
        gradient_variance(layer, x, n_samples=1)
    with pytest.raises(ArgumentError, match="output"):
        gradient_variance(layer, x, output=3)

    def prepared(inputs, weights):
        qml.AmplitudeEmbedding(torch.cat([inputs, weights]), wires=[0], normalize=True)
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match="amplitudes"):
        jacobian(QuantumLayer(prepared, {"weights": (1,)}), torch.ones(2, 1))

    @qml.qnode(qml.device("default.mixed", wires=1))
    def noisy(inputs, weights):
        qml.RX(inputs[..., 0] + weights[0], wires=0)
        qml.DepolarizingChannel(0.1, wires=0)
        return qml.purity(0)

    with pytest.raises(CircuitError, match="runs itself"):
        jacobian(QuantumLayer(noisy, {"weights": 2}, n_inputs=1), torch.ones(2, 1))

"""Controls: each is what its name says, of the right size; and what models cost."""

from __future__ import annotations

import math

import numpy as np
import pennylane as qml
import pytest
import torch
from scipy import stats
from torch import nn

import qbp
from qbp.comparison import timing
from qbp.comparison.controls import CONTROLS, LAYER_CONTROLS, Removed, Sine, controls_of, uploads
from qbp.comparison.estimators import CLASSIFIERS, classifier, kept_numbers
from qbp.errors import ArgumentError
from qbp.nn.models import hybrid, mlp, n_parameters, renew
from qbp.nn.resources import resources
from qbp.training.options import Training

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return hybrid(6, 2, n_qubits=3, n_layers=2, seed=0)


def test_every_control_is_there_and_maps_alike(model):
    controls = controls_of(model, 6, 2)
    assert list(controls) == list(CONTROLS)
    for name, control in controls.items():
        assert renew(control, 1)(X).shape == (5, 2), name


@pytest.mark.parametrize(
    ("n_inputs", "n_outputs", "qubits", "layers"), [(8, 2, 4, 2), (4, 3, 4, 1), (30, 2, 6, 3), (64, 10, 5, 2)]
)
def test_matched_controls_match_within_5_percent(n_inputs, n_outputs, qubits, layers):
    subject = hybrid(n_inputs, n_outputs, n_qubits=qubits, n_layers=layers, seed=0)
    ours, controls = resources(subject, n_inputs), controls_of(subject, n_inputs, n_outputs)
    assert resources(controls["matched_parameters"], n_inputs)["n_parameters"] == pytest.approx(
        ours["n_parameters"], rel=0.05
    )
    assert resources(controls["matched_compute"], n_inputs)["multiply_adds"] == pytest.approx(
        ours["multiply_adds"], rel=0.05
    )


def test_frozen_trains_everything_but_the_circuit(model):
    frozen = controls_of(model, 6, 2)["frozen"]
    assert n_parameters(model) - n_parameters(frozen) == 18 and not frozen[2].weights.requires_grad
    assert model[2].weights.requires_grad  # the subject is left as it was
    other = renew(frozen, 5)
    before = other[2].weights.clone()
    other(X).sum().backward()
    assert other[2].weights.grad is None and torch.equal(before, other[2].weights) and other[0].weight.grad is not None


def test_separable_has_no_entanglement(model):
    """Each output depends on its own input alone, and the entangled circuit's outputs do not."""
    separable = controls_of(model, 6, 2)["separable"][2]
    assert resources(nn.Sequential(separable), 3)["two_qubit_gates"] == 0

    def dependence(layer):
        return torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], torch.tensor([0.3, 0.7, -0.4])).abs()

    off = ~torch.eye(3, dtype=torch.bool)
    assert dependence(separable)[off].max() < 1e-6 < dependence(separable).diagonal().min()
    assert dependence(model[2])[off].max() > 1e-2


def test_noise_has_the_range_of_the_outputs_and_nothing_of_the_input():
    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(3))
        qml.BasicEntanglerLayers(weights, wires=range(3))
        return [qml.expval(2 * qml.Z(0) + 0.5 * qml.I(0)), qml.expval(qml.Z(1) @ qml.Z(2)), qml.probs(wires=[0, 1])]

    noise = CONTROLS["noise"](qbp.QuantumLayer(circuit, {"weights": (1, 3)}), 3, 6)
    assert noise.ranges == ((-1.5, 2.5), (-1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    x = torch.randn(4000, 3, dtype=torch.float64, requires_grad=True)
    low, high = torch.tensor(noise.ranges).T
    outputs = noise(x)
    assert outputs.dtype == x.dtype and not torch.equal(outputs, noise(x))  # drawn anew
    for k in range(6):
        test = stats.kstest(outputs[:, k].detach(), stats.uniform(low[k], high[k] - low[k]).cdf)
        assert test.pvalue > 1e-4
    correlations = np.corrcoef(torch.cat([x, outputs], 1).detach().T)[:3, 3:]
    assert abs(correlations).max() < 5 / math.sqrt(4000)
    outputs.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    noise.eval()
    assert torch.equal(noise(x), noise(x + 1)) and torch.equal(noise(x)[:10], noise(x[:10]))
    assert not torch.equal(noise(x), renew(noise, 3).eval()(x)) and not torch.equal(noise(x)[0], noise(x)[1])


def test_random_fourier_features_approximate_the_kernel_and_are_read_linearly(rng):
    x, y = rng.normal(size=(200, 3)), rng.integers(2, size=200)
    fitted = classifier("random_fourier", 5, {"gamma": 0.3, "n_components": 4_000, "C": 10.0}).fit(x, y)
    scaler, sampler, linear = (step for _, step in fitted.steps)
    z = scaler.transform(x)
    features = math.sqrt(2 / 4_000) * np.cos(z @ sampler.random_weights_ + sampler.random_offset_)
    kernel = np.exp(-0.3 * ((z[:, None] - z[None]) ** 2).sum(2))
    assert np.abs(features @ features.T - kernel).max() < 0.1
    np.testing.assert_allclose(fitted.decision_function(x), features @ linear.coef_[0] + linear.intercept_[0])
    assert kept_numbers(fitted) == (3 * 4_000 + 4_000 + 4_000 + 1, 4 * 4_000)
    assert stats.kstest(sampler.random_weights_.ravel() / math.sqrt(0.6), "norm").pvalue > 1e-4
    again = classifier("random_fourier", 5, {"gamma": 0.3, "n_components": 4_000, "C": 10.0}).fit(x, y)
    assert np.array_equal(fitted.decision_function(x), again.decision_function(x))


def test_as_many_epochs_as_fit_into_the_time_of_the_subject(monkeypatch, tmp_path):
    """The seconds are planted: a hybrid's epoch takes as long as so many of the network's."""
    train, _ = qbp.data.load("moons", n_samples=80)
    slow = {"ratio": 1.0}

    def seconds(model, rows, training):
        assert len(rows) == 60 and training.early_stopping is None
        return 1e-3 * (slow["ratio"] if any(isinstance(m, qbp.QuantumLayer) for m in model.modules()) else 1.0)

    monkeypatch.setattr(timing, "seconds_of", seconds)
    subjects, training = {"hybrid": hybrid(2, 2, n_qubits=2, n_layers=1)}, Training(early_stopping=2)
    for ratio, times in ((0.2, 1), (1.3, 1), (1.5, 2), (7.0, 8), (33.0, 32), (1e4, 32)):
        slow["ratio"] = ratio
        assert timing.times_of(subjects, {"moons": train}, training, None) == {"moons": {"hybrid": times}}
    slow["ratio"] = 4.0
    measured = timing.times_of(subjects, {"moons": train}, training, tmp_path)
    slow["ratio"] = 16.0
    assert timing.times_of(subjects, {"moons": train}, training, tmp_path) == measured == {"moons": {"hybrid": 4}}


def test_seconds_of_an_epoch_are_measured():
    train, _ = qbp.data.load("moons", n_samples=80)
    assert timing.seconds_of(mlp(2, 4, 2), train, Training(epochs=2)) > 0


def test_sine_is_what_a_circuit_without_entanglers_is():
    """H, RY(x), RY(theta), <Z> = -sin(x + theta): the layer with W = 1 and phase theta + pi."""

    def circuit(inputs, weights):
        for wire in range(3):
            qml.Hadamard(wire)
            qml.RY(inputs[wire], wire)
            qml.RY(weights[wire], wire)
        return [qml.expval(qml.Z(wire)) for wire in range(3)]

    layer, sine, x = qbp.QuantumLayer(circuit, {"weights": (3,)}, seed=0), Sine(3, 3), X[:, :3]
    with torch.no_grad():
        sine.linear.weight.copy_(torch.eye(3))
        sine.phases.copy_(layer.weights[None] + math.pi)
    assert torch.allclose(layer(x), sine(x), atol=1e-6)


def test_sine_has_the_degree_of_the_circuit():
    assert uploads(hybrid(2, 2, n_qubits=2, n_layers=3, seed=0)[2]) == 1
    again = hybrid(2, 2, circuit="reuploading", n_qubits=2, n_layers=3, seed=0)
    assert uploads(again[2]) == 3
    sine = controls_of(again, 2, 2)["layer_sine"][2]
    assert sine.phases.shape == (3, 2)
    x = torch.linspace(-3, 3, 7)[:, None].expand(7, 2)
    w, b, a = sine.linear.weight, sine.phases, sine.amplitudes
    by_hand = sum(a[k] * torch.sin((k + 1) * (x @ w.T) + b[k]) for k in range(3))
    assert torch.allclose(sine(x), by_hand, atol=1e-6)


def test_removed():
    x = X[:, :4]
    assert torch.equal(Removed(4, 4)(x), x)
    down, up = Removed(4, 2), Removed(4, 6)
    assert torch.allclose(down.projection @ down.projection.T, torch.eye(2), atol=1e-5)
    assert torch.allclose(up.projection.T @ up.projection, torch.eye(4), atol=1e-5)
    assert n_parameters(nn.Sequential(down, up)) == 0


def test_renew_is_a_function_of_the_seed(model):
    def weights(seed):
        return torch.cat([p.detach().flatten() for p in renew(model, seed).parameters()])

    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))
    same = renew(controls_of(model, 6, 2)["layer_tanh"], 3)
    assert torch.equal(same[0].weight, renew(model, 3)[0].weight)  # what a control shares with its subject begins alike


def test_renew_keeps_the_layer_s_own_distribution_and_refuses_what_it_cannot_draw():
    layer = qbp.QuantumLayer(
        "strongly_entangling", n_qubits=2, n_layers=1, init_method=lambda t: nn.init.normal_(t, std=1e-3)
    )
    assert renew(nn.Sequential(layer), 0)[0].weights.abs().max() < 0.01

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ArgumentError, match="reset_parameters"):
        renew(nn.Sequential(Own()), 0)


def test_resources(model):
    counts = resources(model, 6, batch_size=32)
    # 3 encodings and 6 RZ RY RZ: 21 rotations of 8 amplitudes, 3 outputs; 6 CNOTs; dense 6 x 3 and 3 x 2.
    assert counts["n_gates"] == 27 and counts["two_qubit_gates"] == 6
    assert counts["multiply_adds"] == 8 * (4 * 21 + 2 * 3) + 18 + 6
    assert counts["circuits_per_step"] == 32 * (1 + 2 * 21)
    alone = nn.Sequential(model[2], nn.Linear(3, 2))  # raw data want no gradient, and cost no circuits
    assert resources(alone, 3, batch_size=32)["circuits_per_step"] == 32 * (1 + 2 * 18)
    assert resources(mlp(6, 4, 2), 6) == {
        "n_parameters": 38,
        "n_gates": 0,
        "two_qubit_gates": 0,
        "circuits_per_step": 0,
        "multiply_adds": 32,
    }


def test_a_model_without_a_circuit_has_no_controls_in_its_place():
    assert set(controls_of(mlp(6, 8, 2), 6, 2)) == set(CONTROLS) - set(LAYER_CONTROLS)


def test_all_classifiers_try_equally_many_configurations():
    grids = {name: grid for name, grid in CLASSIFIERS.items() if name != "majority"}
    assert {len(grid) for grid in grids.values()} == {12} and CLASSIFIERS["majority"] == ({},)
    assert all(len({repr(options) for options in grid}) == 12 for grid in grids.values())


def test_controls_stand_wherever_a_circuit_is_used():
    """The same layer in two places, and read by name: one stand-in for both."""
    layer, head = qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, seed=0), nn.Linear(3, 2)
    model = nn.Sequential(nn.Linear(6, 3), layer, nn.Tanh(), nn.Sequential(layer), head)
    model.kept = [layer]
    for name in LAYER_CONTROLS:
        control = controls_of(model, 6, 2)[name]
        assert control[1] is control[3][0] is control.kept[0], name
        assert isinstance(control[1], qbp.QuantumLayer) == (name in ("frozen", "separable"))
        assert renew(control, 1)(X).shape == (5, 2)


def test_weights_that_two_circuits_share_stay_shared():
    a, b = (qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1) for _ in range(2))
    b.weights = a.weights
    for name in ("frozen", "separable"):
        control = CONTROLS[name](nn.Sequential(a, b), 3, 3)
        assert control[0].weights is control[1].weights and control[0].weights is not a.weights


def test_controls_of_a_bare_expectation_value_have_its_shape():
    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.BasicEntanglerLayers(weights, wires=range(2))
        return qml.expval(qml.Z(0))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = qbp.QuantumLayer(circuit, {"weights": (1, 2)}, n_inputs=2)

        def forward(self, x):
            return torch.stack([self.layer(x[:, :2]), self.layer(x[:, 2:4])], 1)

    for name in LAYER_CONTROLS:
        assert CONTROLS[name](Model(), 6, 2)(X).shape == (5, 2), name

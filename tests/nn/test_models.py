"""Models: shapes, seeds, and the classical twin's size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qbp.errors import ArgumentError
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import ACTIVATIONS, BoundedAngle, hybrid, matched_mlp, mlp, n_parameters


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_what_it_says(activation: str) -> None:
    model = mlp(3, 5, 4, 2, activation=activation, seed=0)
    first, act, second, act_too, last = model
    assert type(act) is type(act_too) is ACTIVATIONS[activation]
    x = torch.randn(7, 3)
    expected = last(act(second(act(first(x)))))
    assert model(x).shape == (7, 2) and torch.equal(model(x), expected)


def test_mlp_without_hidden_layers_is_linear() -> None:
    model = mlp(3, 2)
    assert len(model) == 1 and isinstance(model[0], nn.Linear)


@pytest.mark.parametrize("build", [lambda seed: mlp(4, 3, 2, seed=seed), lambda seed: hybrid(4, 2, seed=seed)])
def test_seed_makes_the_weights_and_leaves_the_global_state(build) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again, other = build(1), build(1), build(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(one), weights(again)) and not torch.equal(weights(one), weights(other))
    assert not torch.equal(weights(build(None)), weights(build(None)))  # drawn from the global state
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, "`hidden_and_out` must end with the number of outputs"),
        ((0, 2), {}, "`n_inputs` must be a positive integer, but is 0"),
        ((3, 2.5), {}, "`hidden_and_out` must be a positive integer, but is 2.5"),
        ((3, 2), {"activation": "step"}, "`activation` must be one of 'tanh'"),
    ],
)
def test_bad_mlp(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mlp(*arguments, **options)


def test_bounded_angle() -> None:
    layer = BoundedAngle(0.7)
    x = torch.tensor([-1e6, -0.3, 0.0, 2.0, 1e6], dtype=torch.float64, requires_grad=True)
    assert torch.allclose(layer(x), 0.7 * torch.tanh(x))
    assert layer(x).abs().max() <= 0.7
    assert torch.autograd.gradcheck(layer, x)
    assert "scale=0.7" in repr(layer)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ArgumentError, match="`scale` must be a positive angle"):
            BoundedAngle(scale)


def test_n_parameters_counts_what_trains_once() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(3, 2))
    assert n_parameters(model) == 12 + 8
    for parameter in shared.parameters():
        parameter.requires_grad_(False)
    assert n_parameters(model) == 8


@pytest.mark.parametrize("target", [70, 100, 301, 1000, 3174])
@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(2, 2), (8, 2), (16, 1), (16, 10)])
def test_twin_is_within_5_percent(target: int, n_inputs: int, n_outputs: int) -> None:
    model = nn.Linear(target - 1, 1)
    twin = matched_mlp(model, n_inputs, n_outputs, seed=0)
    assert abs(n_parameters(twin) - target) <= 0.05 * target
    assert twin(torch.zeros(3, n_inputs)).shape == (3, n_outputs)


def test_twin_prefers_shallow_and_exact() -> None:
    exact = mlp(8, 8, 2)
    assert [layer.out_features for layer in matched_mlp(exact, 8, 2) if isinstance(layer, nn.Linear)] == [8, 2]
    deep = matched_mlp(nn.Linear(69, 1), 16, 2)  # no single hidden layer comes near 70
    hidden = [layer.out_features for layer in deep if isinstance(layer, nn.Linear)][:-1]
    assert len(hidden) == 2 and min(hidden) > 1
    with pytest.raises(ArgumentError, match=r"has 20 parameters, and no MLP from 16 inputs .* nearest: 37"):
        matched_mlp(nn.Linear(19, 1), 16, 10)
    with pytest.raises(ArgumentError, match="`tolerance` must be at least 0 and below 1"):
        matched_mlp(exact, 8, 2, tolerance=5)


def test_twin_is_not_squeezed_through_one_neuron() -> None:
    """16 parameters from 3 inputs to 2 outputs: within 5 % there are only bottlenecks of one neuron."""
    for target, n_inputs, n_outputs in ((16, 3, 2), (30, 4, 3), (25, 2, 2)):
        twin = matched_mlp(nn.Linear(target - 1, 1), n_inputs, n_outputs)
        hidden = [layer.out_features for layer in twin if isinstance(layer, nn.Linear)][:-1]
        assert min(hidden) > 1 and 0.95 * target <= n_parameters(twin) <= 1.5 * target
    tiny = matched_mlp(mlp(8, 1, 2), 8, 2)  # nothing wider is near it
    assert n_parameters(tiny) == n_parameters(mlp(8, 1, 2))


def test_hybrid_is_dressed() -> None:
    model = hybrid(8, 3, n_qubits=3, n_layers=2, scale=1.0, seed=0)
    encoder, bound, layer, head = model
    assert isinstance(layer, QuantumLayer) and bound.scale == 1.0
    assert (encoder.in_features, encoder.out_features, head.in_features, head.out_features) == (8, 3, 3, 3)
    assert n_parameters(layer) == 2 * 3 * 3
    x = torch.randn(5, 8)
    outputs = model(x)
    assert outputs.shape == (5, 3) and torch.equal(outputs, head(layer(torch.tanh(encoder(x)))))
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert layer(torch.randn(4, 3)).abs().max() <= 1 + 1e-6  # expectation values of Z


def test_hybrid_passes_its_options_on() -> None:
    model = hybrid(4, 2, n_qubits=2, n_layers=1, backend="dense", diff_method="parameter-shift", seed=0)
    assert model[2].backend == "dense" and model[2].diff_method == "parameter-shift"
    with pytest.raises(ArgumentError, match="`n_outputs` must be a positive integer"):
        hybrid(4, 0)


def test_hybrid_and_its_twin_have_one_size() -> None:
    model = hybrid(8, 2, seed=0)
    assert abs(n_parameters(matched_mlp(model, 8, 2)) - n_parameters(model)) <= 0.05 * n_parameters(model)


def test_a_hybrid_without_an_encoder_takes_features_as_angles() -> None:
    model = hybrid(3, 2, n_qubits=3, n_layers=1, encoder=False, seed=0)
    layer, head = model
    x = torch.randn(4, 3)
    assert isinstance(layer, QuantumLayer) and torch.equal(model(x), head(layer(x)))
    with pytest.raises(ArgumentError, match="`n_inputs` must be 3, as the circuit has, without an encoder, but is 5"):
        hybrid(5, 2, n_qubits=3, encoder=False)

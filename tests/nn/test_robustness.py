"""Normalised and quantised outputs, and zero-noise extrapolation."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import qbp
from qbp.errors import ArgumentError, ConfigError
from qbp.nn.robustness import Normalized, Quantized, extrapolated, fluctuating


def test_normalized_outputs_do_not_feel_a_scale_and_a_shift():
    x = torch.randn(20, 3, dtype=torch.float64)
    for module in (Normalized(3, eps=1e-12), Normalized(3, eps=1e-12).eval()):
        y = module(x)
        torch.testing.assert_close(y, module(0.3 * x - 0.2), atol=1e-9, rtol=0)
        torch.testing.assert_close(y.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
        torch.testing.assert_close(y.var(0, correction=0), torch.ones(3, dtype=torch.float64))


def test_quantized_outputs():
    module = Quantized(levels=3, low=-1, high=1)
    x = torch.tensor([-1.4, -0.6, 0.2, 0.9], requires_grad=True)
    y = module(x)
    assert y.tolist() == [-1.0, -1.0, 0.0, 1.0]
    assert torch.autograd.grad(y.sum(), x, retain_graph=True)[0].tolist() == [0.0, 1.0, 1.0, 1.0]
    torch.testing.assert_close(module.distance, torch.tensor((0.16 + 0.04 + 0.01) / 4))
    slopes = torch.autograd.grad(module.distance, x)[0]
    torch.testing.assert_close(slopes, torch.tensor([0.0, 0.2, 0.1, -0.05]))
    assert copy.deepcopy(module).distance is None and module.distance is not None
    for options in ({"levels": 1}, {"low": 1.0, "high": 1.0}, {"high": float("inf")}):
        with pytest.raises(ArgumentError):
            Quantized(**options)


def layer(noise: object, **options: object) -> qbp.QuantumLayer:
    return qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, noise=noise, seed=1, **options).double()


def test_extrapolation_is_richardsons():
    """Twice and three times the noise is each error twice and three times, and the parabola through all at 0."""
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    p = 0.002
    errors = []
    for times in (1, 2, 3):
        strength = [0.75 * (1 - (1 - 4 * p / 3) ** times), 1 - (1 - p) ** times]
        model = {"CNOT": {"DepolarizingChannel": strength[0]}, "RY": {"AmplitudeDamping": strength[1]}}
        errors.append(layer(qbp.NoiseModel.of(model)))
    by_hand = 3 * errors[0](x) - 3 * errors[1](x) + errors[2](x)
    mended = extrapolated(errors[0])
    assert mended.noise == errors[0].noise and mended.diff_method == "adjoint"
    torch.testing.assert_close(mended(x), by_hand, atol=1e-12, rtol=0)
    mine, other = (torch.autograd.grad(y.sum(), x)[0] for y in (mended(x), by_hand))
    torch.testing.assert_close(mine, other, atol=1e-12, rtol=0)
    ideal = layer(None)(x)
    assert (mended(x) - ideal).abs().max() < 0.01 * (errors[0](x) - ideal).abs().max()


def test_extrapolation_on_a_device(tmp_path: Path):
    pytest.importorskip("qiskit_aer")
    x = torch.randn(4, 3, dtype=torch.float64)
    noisy, ideal = layer("fake:manila"), layer(None)
    mended = extrapolated(noisy, (1, 2))
    # readout errors stay
    assert (mended(x) - ideal(x)).abs().mean() < 0.9 * (noisy(x) - ideal(x)).abs().mean()
    model = nn.Sequential(mended, Normalized(3), Quantized(), nn.Linear(3, 2)).double()
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters()) and mended.noise == "fake:manila"
    with pytest.raises(ConfigError, match="extrapolat"):
        qbp.save_model(model, tmp_path / "model.safetensors")
    model[0] = noisy
    qbp.save_model(model, tmp_path / "model.safetensors")
    loaded = qbp.load_model(tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded(x), model(x), atol=0, rtol=0)
    assert loaded[2].levels == 5 and loaded[1].num_features == 3


@pytest.mark.parametrize("factors", [(1,), (1, 1), (0, 1), (1, 2.5)])
def test_factors(factors: tuple[float, ...]):
    with pytest.raises(ArgumentError, match="factors"):
        extrapolated(layer(qbp.NoiseModel.of({"CNOT": {"BitFlip": 0.1}})), factors)


def test_only_noise_is_extrapolated():
    for options in ({"noise": None}, {"noise": qbp.NoiseModel.of({"CNOT": {"BitFlip": 0.1}}), "shots": 100}):
        with pytest.raises(ArgumentError, match="must have `noise`"):
            extrapolated(layer(**options))


def test_noise_fluctuates_in_training_only():
    strengths = (0.0, 0.1, 0.4)
    days = [qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": p}}) for p in strengths]
    model = nn.Sequential(layer(None))
    x = torch.randn(2, 3, dtype=torch.float64)
    each = [layer(day)(x) for day in days]
    ideal, before = model(x), model[0].executor
    torch.manual_seed(0)
    with fluctuating(model, days):
        seen = []
        for _ in range(20):
            outputs = model(x)
            seen.append(next(k for k, expected in enumerate(each) if torch.allclose(outputs, expected, atol=1e-12)))
            assert torch.autograd.grad(outputs.sum(), model[0].weights)[0].abs().sum() > 0
        assert set(seen) == {0, 1, 2}
        assert torch.equal(model.eval()(x), ideal)
    assert model[0].executor is before and not model[0]._forward_pre_hooks
    with pytest.raises(ArgumentError, match="`noises`"), fluctuating(model, []):
        pass
    with pytest.raises(ArgumentError, match="`model`"), fluctuating(nn.Linear(1, 1), days):
        pass


@pytest.mark.slow
def test_training_under_fluctuating_noise_is_repeatable():
    days = [qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": p}}) for p in (0.01, 0.2)]
    train, _ = qbp.data.load("xor")
    losses = []
    for _ in range(2):
        with fluctuating(qbp.hybrid(2, 2, n_qubits=2, n_layers=1, seed=0), [*days, None]) as model:
            losses.append(qbp.fit(model, train, epochs=2, seed=3).column("loss"))
    assert losses[0] == losses[1]

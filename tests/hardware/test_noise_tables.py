"""Error bars of metrics, and one model on several backends."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import qbp
from qbp.data import Dataset
from qbp.errors import ArgumentError
from qbp.hardware.noise_tables import error_bars, noise_table

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")


def rows(n=24, seed=0):
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 2
    return Dataset(x, (x.sum(1) > 2).long())


def small(seed=1, **options):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, seed=seed, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(layer, nn.Linear(2, 2))


def test_error_bars_are_the_spread_of_repeated_evaluations():
    data, model = rows(40), small()
    qbp.fit(model, data, epochs=15, lr=0.1)
    scores = []
    for seed in range(60):
        sampled = small(seed, backend="qiskit", shots=30)
        sampled.load_state_dict(model.state_dict())
        scores.append(qbp.evaluate(sampled, data))
    noisy = small(backend="qiskit", shots=30)
    noisy.load_state_dict(model.state_dict())
    bars = [error_bars(noisy, data, seed=s) for s in range(10)]
    for name in ("loss", "accuracy"):
        spread = torch.tensor([row[name] for row in scores]).std()
        told = torch.tensor([stds[name] for _, stds in bars]).square().mean().sqrt()
        assert 0.7 < told / spread < 1.4, name


def test_exact_models_have_no_error_bars():
    metrics, stds = error_bars(small(), rows())
    plain = qbp.evaluate(small(), rows())
    assert metrics == {name: plain[name] for name in ("loss", "accuracy")} and stds == {"loss": 0, "accuracy": 0}


def test_no_circuit_runs_again(monkeypatch):
    model = small(backend="qiskit", shots=100)
    calls, run = [], model[0].executor.primitive.submit
    monkeypatch.setattr(model[0].executor.primitive, "submit", lambda *a: calls.append(a) or run(*a))
    error_bars(model, rows(), batch_size=12)
    assert len(calls) == 2 and "forward" not in vars(model[0])


def test_the_table():
    data, model = rows(), small()
    table = noise_table(model, data, shots=200, others={"again": qbp.on_backend(model, "native")}, batch_size=10)
    exact, shots, noise, both, again = table.rows
    assert exact.distance == again.distance == 0 and exact.stds["loss"] == noise.stds["loss"] == 0
    assert exact.metrics["loss"] == pytest.approx(qbp.evaluate(model, data)["loss"])
    assert 0.01 < shots.distance < 1 / 200**0.5 and both.distance > noise.distance > 0.003
    assert shots.stds["loss"] > 0 and both.stds["loss"] > 0
    assert [row.name for row in table.rows] == ["exact", "200 shots", "fake:manila", "fake:manila, 200 shots", "again"]
    text = str(table).splitlines()
    assert text[0].split() == ["backend", "loss", "accuracy", "distance", "seconds", "quantum", "seconds"]
    assert len(text) == 6 and "+-" in text[2] and "+-" not in text[1]
    assert str(noise_table(model, data, shots=200, batch_size=10)["200 shots"].metrics) == str(shots.metrics)


def test_a_regression():
    data = Dataset(rows().x, rows().x.sin())
    row = noise_table(small(), data, shots=100)["100 shots"]
    assert set(row.metrics) == {"loss", "mse", "mae", "r2"} and row.stds["mse"] > 0


def test_other_outputs_are_refused():
    other = nn.Sequential(nn.Linear(2, 3), qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1), nn.Linear(3, 2))
    with pytest.raises(ArgumentError, match="'other', whose quantum layers have other outputs"):
        noise_table(small(), rows(), others={"other": other})


def test_fine_tuning_under_noise():
    """The one-line recipe: the loss under noise falls, and the model without noise stays as it was."""
    data, model = rows(), small()
    qbp.fit(model, data, epochs=10, lr=0.05)
    before = copy.deepcopy(model.state_dict())
    cold = qbp.evaluate(qbp.on_backend(model, "fake:yorktown"), data)["loss"]
    qbp.fit(noisy := qbp.on_backend(model, "fake:yorktown"), data, epochs=3, lr=0.05)
    assert qbp.evaluate(noisy, data)["loss"] < cold
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))

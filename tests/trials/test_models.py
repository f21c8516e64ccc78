"""Models of papers against PennyLane, and against what their papers say of them."""

from __future__ import annotations

import math

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import nn

import qbp
from qbp.data.families import disc
from qbp.errors import ArgumentError
from qbp.nn.models import n_parameters, renew
from qbp.trials.models import PUBLISHED, build_published

SHAPES = {"dressed": (3, 2), "mari": (2, 2), "reuploaded_qubit": (2, 2), "hqcnn": (30, 2)}


def layer_of(model: nn.Module) -> qbp.QuantumLayer:
    (layer,) = (m for m in model.modules() if isinstance(m, qbp.QuantumLayer))
    return layer


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("entangled", [True, False])
def test_the_dressed_circuit_is_pennylanes(n: int, entangled: bool, rng: np.random.Generator):
    model = renew(build_published("dressed", n, 2, {"layers": 2, "entangled": entangled}), 0).double()
    layer = layer_of(model)
    weights = layer.qnode_weights["weights"].detach().numpy().reshape(2, n)

    @qml.qnode(qml.device("default.qubit"))
    def circuit(x: np.ndarray):
        for k in range(n):
            qml.Hadamard(k)
            qml.RY(x[k], k)
        for row in weights:
            for k in range(n):
                qml.RY(row[k], k)
            for k in range(n if n > 2 else 1) if entangled else ():
                qml.CNOT([k, (k + 1) % n])
        return [qml.expval(qml.Z(k)) for k in range(n)]

    x = rng.normal(size=n)
    assert layer(torch.tensor(x)[None])[0].detach().numpy() == pytest.approx(np.array(circuit(x)), abs=1e-12)
    ends = [m.weight.detach().numpy() for m in model.modules() if isinstance(m, nn.Linear)]
    by_hand = ends[1] @ np.array(circuit(math.pi / 2 * np.tanh(ends[0] @ x)))
    assert model(torch.tensor(x)[None])[0].detach().numpy() == pytest.approx(by_hand, abs=1e-12)
    assert n_parameters(model) == n**2 + 2 * n + 2 * n


def test_maris_circuit_is_pennylanes(rng: np.random.Generator):
    layer = layer_of(renew(build_published("mari", 2, 2, {"init": "scaled"}), 0).double())
    weights = layer.qnode_weights["weights"].detach().numpy().reshape(5, 5)

    @qml.qnode(qml.device("default.qubit"))
    def circuit(x: np.ndarray):
        for k in range(5):
            qml.Hadamard(k)
            qml.RY(x[k], k)
        for row in weights:
            for pair in ((0, 1), (2, 3), (1, 2), (3, 4)):
                qml.CNOT(pair)
            for k in range(5):
                qml.RY(row[k], k)
        return [qml.expval(qml.Z(k)) for k in range(5)]

    x = rng.normal(size=5)
    assert layer(torch.tensor(x)[None])[0].detach().numpy() == pytest.approx(np.array(circuit(x)), abs=1e-12)


def test_maris_networks_begin_as_published_or_scaled():
    sizes = {"circuit": 52, "tanh": 57, "sine": 57}
    for middle, size in sizes.items():
        published, scaled = (
            renew(build_published("mari", 2, 2, {"middle": middle, "init": init}), 0)
            for init in ("published", "scaled")
        )
        assert n_parameters(published) == n_parameters(scaled) == size
        small = torch.cat([p.detach().flatten() for p in published.parameters()])
        assert 0.0007 < small.std() < 0.0013 and small.abs().max() < 0.005
        assert float(scaled[0].weight.detach().std()) > 0.2 and not scaled[0].bias.detach().any()


@pytest.mark.parametrize("layers", [1, 3])
def test_a_reuploaded_qubit_is_a_product_of_rotations(layers: int, rng: np.random.Generator):
    """<Z> of R_z(b) R_y(a) R_z(c), by matrices of two by two."""
    layer = layer_of(renew(build_published("reuploaded_qubit", 2, 2, {"layers": layers}), 0).double())
    weights = layer.qnode_weights["weights"].detach().numpy().reshape(layers, 5)

    def rz(t: float) -> np.ndarray:
        return np.diag([np.exp(-0.5j * t), np.exp(0.5j * t)])

    def ry(t: float) -> np.ndarray:
        return np.array([[np.cos(t / 2), -np.sin(t / 2)], [np.sin(t / 2), np.cos(t / 2)]])

    x = rng.normal(size=2)
    state = np.array([1.0, 0.0], dtype=complex)
    for row in weights:
        a, b, c = row[0] + row[3] * x[0], row[1] + row[4] * x[1], row[2]
        state = rz(c) @ ry(a) @ rz(b) @ state
    z = abs(state[0]) ** 2 - abs(state[1]) ** 2
    assert layer(torch.tensor(x)[None]).item() == pytest.approx(z, abs=1e-12)


def test_the_hybrid_has_441_parameters():
    assert n_parameters(build_published("hqcnn", 30, 2, {})) == 441


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_model_trains_with_others(name: str):
    """Several seeds as one ensemble, from other weights each."""
    n_inputs, n_outputs = SHAPES[name]
    model = build_published(name, n_inputs, n_outputs, {})
    data = torch.randn(20, n_inputs), torch.arange(20) % 2
    histories = qbp.fit(model, data, epochs=1, batch_size=10, seeds=3)
    assert {history.together for history in histories} == {3}
    assert len({history.column("loss")[0] for history in histories}) == 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError, match="did you mean `dressed`"):
        build_published("dresed", 2, 2, {})
    with pytest.raises(ArgumentError, match="did you mean `layers`"):
        build_published("dressed", 2, 2, {"layer": 1})
    with pytest.raises(ArgumentError, match="did you mean `scaled`"):
        build_published("mari", 2, 2, {"init": "scale"})
    with pytest.raises(ArgumentError, match="three features"):
        build_published("reuploaded_qubit", 4, 2, {})
    with pytest.raises(ArgumentError, match="two classes"):
        build_published("hqcnn", 30, 3, {})


def test_the_disc_halves_its_square():
    raw = disc(20_000, seed=1)
    radius = np.sqrt((raw.x**2).sum(1))
    assert abs(raw.y.mean() - 0.5) < 0.02 and np.abs(raw.x).max() <= 1
    assert radius[raw.y == 1].max() < math.sqrt(2 / math.pi) <= radius[raw.y == 0].min()

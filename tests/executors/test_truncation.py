"""Words that are cut: the error that is told, and gradients of what is left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from local_circuits import chain

import qbp
from qbp.errors import ArgumentError
from qbp.executors import backend
from qbp.executors.propagation import PauliPropagation

CUTS = (
    "min_coefficient=1e-2",
    "min_coefficient=1e-3",
    "max_sines=6",
    "max_weight=4",
    "min_coefficient=3e-3,max_weight=3",
    "min_coefficient=1e-4",
)


def random_layer(seed: int) -> tuple[qbp.QuantumLayer, torch.Tensor]:
    """A layer of one of three families with weights of some size, in float64, and rows for it."""
    rng = np.random.default_rng(seed)
    n_qubits, n_layers = int(rng.integers(6, 13)), int(rng.integers(3, 6))
    family = ("strongly_entangling", "basic_entangler", "chain")[seed % 3]
    if family == "chain":
        layer = chain(n_qubits, n_layers).double()
    else:
        layer = qbp.QuantumLayer(family, n_qubits=n_qubits, n_layers=n_layers).double()
    scale = rng.choice([0.1, 0.3, 1.0, 3.0])
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.from_numpy(rng.normal(scale=scale, size=tuple(weight.shape))))
    return layer, torch.from_numpy(rng.normal(size=(16, layer.n_inputs)))


def holds(seed: int) -> bool | None:
    """Whether no output of a random layer with a cut is further off than is told; None where it is refused."""
    layer, x = random_layer(seed)
    with torch.no_grad():
        want = layer(x)
        layer.set_backend(f"pauli-propagation:{CUTS[seed % len(CUTS)]}")
        try:
            errors = (layer(x) - want).abs()
        except ArgumentError as error:
            assert "`max_words` must be above" in str(error)
            return None
    assert layer.last_stds is None
    return bool((errors <= layer.last_truncation).all())


def test_the_error_is_told():
    assert [holds(seed) for seed in (1, 2, 5, 7, 14, 19, 35, 40)].count(False) <= 1


@pytest.mark.slow
def test_the_error_is_told_of_95_in_100():
    answers = (told for told in map(holds, range(1000, 2000)) if told is not None)
    assert sum(next(answers) for _ in range(100)) >= 95


def test_the_error_of_a_fine_cut_is_told_nearly():
    """What the cut keeps, chance keeps too: it adds nothing to what is told."""
    layer = chain(24, 5).double()
    with torch.no_grad():
        layer.weights.copy_(0.3 * torch.randn(layer.weights.shape, generator=torch.Generator().manual_seed(0)))
        x = torch.randn(4, 24, generator=torch.Generator().manual_seed(1)).double()
        layer.set_backend("windows")
        want = layer(x)
        layer.set_backend("pauli-propagation:min_coefficient=3e-5")
        off = (layer(x) - want).abs().max()
    assert off <= layer.last_truncation.max() < 10 * off and layer.last_truncation.max() < 1e-3


@pytest.mark.parametrize("cut", [{"max_weight": 2}, {"max_sines": 5}, {"min_coefficient": 0.02}])
def test_gradients_are_those_of_what_is_left(cut: dict[str, float]):
    layer = chain(6, 3).double()
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    exact = layer(x).detach()
    layer.set_backend(PauliPropagation(**cut))
    grad = torch.randn(3, 6, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (layer(x) * grad).sum()

    assert (layer(x) - exact).abs().max() > 1e-3
    loss().backward()
    for tensor, place in ((x, (1, 3)), (layer.weights, (0, 2, 0)), (layer.weights, (1, 5, 1))):
        losses = []
        with torch.no_grad():
            for step in (1e-6, -1e-6):
                tensor[place] += step
                losses.append(float(loss().detach()))
                tensor[place] -= step
        assert float(tensor.grad[place]) == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-7)


def test_a_row_does_not_depend_on_the_others():
    layer = chain(6, 4)
    layer.set_backend("pauli-propagation:min_coefficient=0.01")
    x = torch.randn(9, 6)
    with torch.no_grad():
        assert torch.equal(layer(x)[4:5], layer(x[4:5]))


def test_weights_are_letters_of_the_circuit_as_it_is_written():
    """A word on all wires behind a ring of CNOTs is one letter before it."""
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=6, n_layers=1, observables=["ZZZZZZ", "ZIIIII"])
    x, exact = torch.randn(2, 6), qbp.QuantumLayer.forward
    want = exact(layer, x)
    layer.set_backend("pauli-propagation:max_weight=5")
    torch.testing.assert_close(layer(x)[:, 1], want[:, 1])  # 5 letters in front of the ring
    layer.set_backend("pauli-propagation:max_weight=4")
    assert not layer(x)[:, 1].any()
    torch.testing.assert_close(layer(x)[:, 0], want[:, 0])


def test_nothing_cut_is_exact():
    executor = PauliPropagation()
    assert executor.capabilities.exact and not executor.capabilities.truncation
    assert PauliPropagation(max_weight=3).capabilities.truncation
    layer = chain(5, 2)
    layer.set_backend(executor)
    layer(torch.zeros(1, 5))
    assert layer.last_truncation is None


def test_it_is_said_wherever_a_number_is_shown(tmp_path):
    name = "pauli-propagation:min_coefficient=0.05"
    model = qbp.hybrid(5, 2, n_qubits=5, n_layers=3, backend=name)
    layer = next(module for module in model.modules() if isinstance(module, qbp.QuantumLayer))
    assert name in repr(layer) and name in layer.describe()
    data = qbp.data.Dataset(torch.randn(8, 5), torch.arange(8) % 2)
    told = qbp.evaluate(model, data)["truncation"]
    assert told == float(layer.last_truncation.max()) > 0
    layer.set_backend("native")
    assert "truncation" not in qbp.evaluate(model, data)
    layer.set_backend(name)
    qbp.save_model(model, tmp_path / "model.safetensors")
    loaded = qbp.load_model(tmp_path / "model.safetensors")
    assert next(m.backend for m in loaded.modules() if isinstance(m, qbp.QuantumLayer)) == name


def test_while_training_it_is_measured_now_and_then(monkeypatch: pytest.MonkeyPatch):
    calls = []
    measured = qbp.executors.propagation.measured_error
    monkeypatch.setattr(qbp.executors.propagation, "measured_error", lambda *a: calls.append(1) or measured(*a))
    layer = chain(5, 3)
    layer.set_backend("pauli-propagation:min_coefficient=0.05")
    optimizer = torch.optim.SGD(layer.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        layer(torch.ones(2, 5)).sum().backward()
        optimizer.step()
    assert len(calls) == 2
    with torch.no_grad():
        layer(torch.ones(2, 5))
        layer(torch.ones(2, 5))
    assert len(calls) == 3


def test_names_with_options():
    executor = backend("pauli-propagation:max_weight=6,min_coefficient=1e-4,max_words=50")
    assert executor.name == "pauli-propagation:min_coefficient=0.0001,max_weight=6,max_words=50"
    assert backend(executor.name).name == executor.name
    with pytest.raises(ArgumentError, match="must be one of 'max_words', 'min_coefficient'"):
        backend("pauli-propagation:weight=6")
    with pytest.raises(ArgumentError, match="`max_weight` a number, but has 'max_weight=six'"):
        backend("pauli-propagation:max_weight=six")
    with pytest.raises(ArgumentError, match="`min_coefficient` must be a number of at least 0"):
        PauliPropagation(min_coefficient=-1)

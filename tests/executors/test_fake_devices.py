"""Jobs of fake devices: drawn from the exact distribution, which is Aer's."""

from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch

import qbp
from qbp import QuantumLayer
from qbp.circuit.program import Expval, Probs
from qbp.errors import ArgumentError
from qbp.executors import backend, name_of
from qbp.executors.noisy_device import OnDevice
from qbp.executors.propagation import PauliPropagation
from qbp.executors.qiskit_primitive import QiskitPrimitive, fake_devices
from qbp.executors.qiskit_primitive.fake_devices import fake_device
from qbp.executors.qiskit_primitive.local import Aer

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")

MEASURED = [Expval.word("XY", 0, 2), Expval(((0.5, "ZZ", (0, 1)), (-0.3, "Y", (2,)), (0.2, "", ()))), Probs((2, 0))]


def compiled_on(name: str, n_qubits: int = 3, observables: list | None = None):
    """A device, a circuit that was transpiled for it, its angles (8, K), and Aer with the device's noise."""
    device = fake_device(name)
    layer = QuantumLayer("strongly_entangling", n_qubits=n_qubits, n_layers=2, observables=observables, seed=0)
    compiled = QiskitPrimitive(device).compiled(layer.circuit.program)
    values = np.random.default_rng(1).normal(size=(8, layer.circuit.program.n_angles))
    return device, compiled, values[:, list(compiled.angles)], Aer(device.backend)


@pytest.mark.parametrize(
    ("name", "n_qubits"),
    [("manila", 3), *(pytest.param(n, 4, marks=pytest.mark.slow) for n in ("london", "jakarta", "torino"))],
)
@pytest.mark.parametrize("same", [0, 4])
def test_distributions_are_aers(name: str, n_qubits: int, same: int):
    """Where all angles differ between sets, and where most of them are the same."""
    device, compiled, values, aer = compiled_on(name, n_qubits, MEASURED if n_qubits == 3 else None)
    if same:
        values[:, same:] = values[0, same:]
    distributions = device.outcomes(compiled, values)
    for ours, theirs in zip(distributions, aer.outcomes(compiled, values), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert len(distributions) == len(compiled.groups) == (2 if n_qubits == 3 else 1)


def test_samples_are_those_of_aers_own_shots():
    """A chi-square test of two samples for every circuit, Aer's drawn shot by shot with its readout errors."""
    from scipy.stats import chi2

    device, compiled, values, aer = compiled_on("manila", observables=MEASURED)
    shots, statistic, degrees = 20_000, 0.0, 0
    rng = np.random.default_rng(3)
    theirs = aer._aer(compiled, compiled.measured, values, "automatic", shots, 5)
    for p, group in zip(device.outcomes(compiled, values), theirs, strict=True):
        for row, data in zip(p, group, strict=True):
            mine, other = rng.multinomial(shots, row / row.sum()), np.zeros(len(row))
            for key, n in data["counts"].items():
                other[int(key, 16)] = n
            both = (mine + other) > 10
            statistic += ((mine - other) ** 2 / (mine + other))[both].sum()
            degrees += int(both.sum()) - 1
    assert 0.001 < chi2.sf(statistic, degrees) < 0.999


def test_rehearsals_run_nothing_on_aer(monkeypatch, tmp_path):
    model = torch.nn.Sequential(QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, seed=0), torch.nn.Linear(3, 2))
    data = qbp.data.Dataset(torch.randn(6, 3), torch.tensor([0, 1] * 3))
    monkeypatch.setattr(Aer, "outcomes", lambda *a: pytest.fail("Aer ran"))
    outputs = []
    for where in ("a", "b"):
        moved = qbp.on_backend(model, "fake:manila", shots=4000, budget=1000.0, run_dir=tmp_path / where)
        outputs.append(moved[0](data.x))
        qbp.fit(moved, data, epochs=1, batch_size=3)
    exact = qbp.on_backend(model, "fake:manila")[0](data.x)
    assert ((outputs[0] - exact).abs() < 5 * moved[0].last_stds.max()).all()
    assert len(list((tmp_path / "a" / "jobs" / "rehearsal").iterdir())) == 3


def test_many_qubits_are_aers(monkeypatch):
    device, compiled, values, _ = compiled_on("manila")
    expected = device.outcomes(compiled, values)
    monkeypatch.setattr(fake_devices, "MOST_QUBITS", 2)
    monkeypatch.setattr("qbp.executors.pauli.Pauli", lambda: pytest.fail("it ran"))
    for ours, theirs in zip(expected, device.outcomes(compiled, values), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_outputs_that_see_few_of_many_qubits(monkeypatch):
    monkeypatch.setattr(fake_devices, "MOST_QUBITS", 4)

    def circuit(inputs, w):
        for k in range(7):
            qml.RX(inputs[k], wires=k)
            qml.RY(w[k], wires=k)
        for on in ([0, 1], [5, 6], [3, 5]):
            qml.CNOT(on)
        return [qml.expval(qml.Z(k)) for k in range(7)]

    ours, theirs = (
        QuantumLayer(circuit, {"w": (7,)}, n_inputs=7, seed=0, backend=where).double()
        for where in ("fake:jakarta", QiskitPrimitive(Aer(fake_device("jakarta").backend)))
    )
    assert ours.diff_method == "adjoint"
    x = torch.randn(2, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-9, rtol=0)
    monkeypatch.setattr(fake_devices, "MAX_DENSITY_QUBITS", 5)
    wide = QuantumLayer("strongly_entangling", n_qubits=7, n_layers=2, backend="fake:jakarta")
    with pytest.raises(ArgumentError, match="7 noisy qubits of 'fake:jakarta', whose outputs see up to 7"):
        wide(x.float())


def test_circuits_of_many_qubits_run_by_words():
    options = {"n_layers": 2, "noise": "fake:kolkata", "seed": 0}
    narrow = qbp.QuantumLayer("hardware_efficient", n_qubits=6, **options).double()
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    expected = narrow(x)
    gradients = torch.autograd.grad(expected.sum(), (x, narrow.weights))
    by_words = OnDevice(backend("fake:kolkata"), PauliPropagation())
    narrow.set_backend(by_words)
    torch.testing.assert_close(narrow(x), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(narrow(x).sum(), (x, narrow.weights)), gradients, atol=1e-12, rtol=0)
    wide = qbp.QuantumLayer("hardware_efficient", coupling_map="fake:kolkata", **options).double()
    ((part, _),) = wide.executor.engine.circuit(wide.circuit.program).parts
    assert name_of(backend("native"), part) == "pauli-propagation"
    rows = torch.randn(2, 27, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(wide(rows)[:, 5].sum(), rows)
    with torch.no_grad():
        step = torch.zeros(2, 27, dtype=torch.float64)
        step[1, 5] = 1e-4
        change = (wide(rows + step) - wide(rows - step))[1, 5] / 2e-4
    assert float(slope[1, 5]) == pytest.approx(float(change), abs=1e-7) != 0

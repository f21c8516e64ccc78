"""Circuits without quantum code: classical twins, their export, their spectra, and what circuits take."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pennylane as qml
import pytest
import torch
from local_circuits import chain

import qbp
from qbp.circuit.program import Probs
from qbp.errors import ArgumentError
from qbp.nn.classical import ClassicalTwin
from qbp.nn.simulability import Simulability


def reuploading(inputs, weights):
    """Data three times, with scales and an offset; a word, a sum and probabilities."""
    for layer in range(3):
        qml.AngleEmbedding(0.5 * inputs, wires=range(3), rotation="Y")
        qml.RX(2 * inputs[layer] + weights[layer, 0], wires=layer)
        for wire in range(3):
            qml.Rot(*weights[layer], wires=wire)
            qml.CNOT([wire, (wire + 1) % 3])
    return qml.expval(qml.X(0) @ qml.Y(2)), qml.expval(0.3 * qml.Z(1) - qml.Z(0)), qml.probs(wires=[2, 0])


def noisy(inputs, weights):
    for wire in range(3):
        qml.RX(inputs[wire], wires=wire)
        qml.AmplitudeDamping(0.1, wires=wire)
        qml.RY(weights[wire], wires=wire)
    qml.CNOT([0, 1])
    qml.DepolarizingChannel(0.05, wires=1)
    return [qml.expval(qml.Z(wire)) for wire in range(3)]


def layers() -> dict[str, qbp.QuantumLayer]:
    """Five layers with trained weights, of float64."""
    by_name = {
        "digits": qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=3, seed=0),
        "wide": chain(40, 2),
        "re-uploading": qbp.QuantumLayer(reuploading, {"weights": (3, 3)}, n_inputs=3, seed=0),
        "noisy": qbp.QuantumLayer(noisy, {"weights": 3}, n_inputs=3, seed=0),
        "measured": qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=2, observables=["XZI", Probs((2, 0))]),
    }
    for layer in by_name.values():
        layer.double()
        x = torch.randn(16, layer.n_inputs, dtype=torch.float64)
        optimizer = torch.optim.Adam(layer.parameters(), 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (layer(x).mean(1) - x.sum(1).sign()).square().mean().backward()
            optimizer.step()
    return by_name


def test_twins_are_equal():
    for name, layer in layers().items():
        twin = layer.to_classical()
        x = torch.randn(50, layer.n_inputs, dtype=torch.float64, requires_grad=True)
        difference = (twin(x) - layer(x)).abs().max()
        assert difference < 1e-12, (name, difference)
        assert not any(isinstance(module, qbp.QuantumLayer) for module in twin.modules())
        weights = torch.randn(layer.n_outputs, dtype=torch.float64)
        ours, theirs = (torch.autograd.grad((f(x) @ weights).sum(), x)[0] for f in (twin, layer))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
        assert not twin.truncation.any()
        assert twin(x[0]).shape == layer(x[0]).shape and twin(x[None]).shape == layer(x[None]).shape
        narrow = layer.float().to_classical()
        assert narrow(x.float()).dtype is torch.float32
        assert (narrow(x.float()) - twin(x)).abs().max() < 2e-5


def test_a_bare_expectation_value():
    def circuit(inputs):
        qml.RX(inputs[0], wires=0)
        return qml.expval(qml.Z(0))

    layer = qbp.QuantumLayer(circuit, {})
    x = torch.randn(5, 1)
    assert layer.to_classical()(x).shape == (5,)
    torch.testing.assert_close(layer.to_classical()(x), x[:, 0].cos())


def test_the_state_is_all_of_it(tmp_path):
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=2, seed=0)
    twin, x = layer.to_classical(), torch.randn(4, 3)
    torch.save(twin.state_dict(), tmp_path / "twin.pt")
    loaded = ClassicalTwin(torch.load(tmp_path / "twin.pt", weights_only=True))
    assert torch.equal(loaded(x), twin(x))
    loaded.load_state_dict(twin.state_dict())
    with pytest.raises(ArgumentError, match="must have 'slopes'"):
        ClassicalTwin({})


def test_words_left_out_have_a_measured_error():
    layer, x = chain(8, 4), torch.randn(30, 8)
    with pytest.raises(ArgumentError, match="`x` must be rows"):
        layer.to_classical(min_coefficient=0.01)
    twin, exact = layer.to_classical(x, min_coefficient=0.01), layer.to_classical()
    assert twin.n_words < exact.n_words
    errors = (twin(x) - layer(x)).abs()
    assert (errors <= twin.truncation).all() and errors.max() > 1e-4


def test_what_has_no_twin():
    deep = qbp.QuantumLayer("strongly_entangling", n_qubits=12, n_layers=4)
    with pytest.raises(ArgumentError, match="`max_words` must be above 1,000"):
        deep.to_classical(max_words=1000)
    with pytest.raises(ArgumentError, match="without the noise"):
        qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise=qbp.NoiseModel()).to_classical()

    def squares(inputs, weights):
        qml.RX(inputs[0] ** 2, wires=0)
        qml.RY(weights, wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(ArgumentError, match="affine in the inputs"):
        qbp.QuantumLayer(squares, {"weights": ()}, n_inputs=1).to_classical()


def test_spectra():
    for name, some in (("digits", (0, 3)), ("re-uploading", (1,)), ("noisy", (0, 1, 2))):
        layer = layers()[name]
        x = torch.randn(20, layer.n_inputs, dtype=torch.float64)
        twin = layer.to_classical()
        for output in some:
            total = torch.zeros(20, dtype=torch.complex128)
            for frequency, coefficient in twin.spectrum(output).items():
                turns = sum((f * x[:, i] for i, f in frequency), torch.zeros(20, dtype=torch.float64))
                total += coefficient * torch.exp(1j * turns)
            assert total.imag.abs().max() < 1e-12
            torch.testing.assert_close(total.real, layer(x)[:, output].detach(), rtol=0, atol=1e-12)
    with pytest.raises(ArgumentError, match="`most` must be at least"):
        twin.spectrum(0, most=2)
    with pytest.raises(ArgumentError, match=r"`output` must be an integer of 0 to 2, but is 7"):
        twin.spectrum(7)


def test_torch_export():
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2, seed=0)
    twin, x = layer.to_classical(), torch.randn(6, 4)
    exported = torch.export.export(twin, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.testing.assert_close(exported.module()(x[:3]), twin(x[:3]), rtol=0, atol=0)


WITHOUT_QBP = """
import sys, numpy as np, onnxruntime
for name in sys.argv[1:]:
    session = onnxruntime.InferenceSession(name + ".onnx")
    rows = np.load(name + ".npz")
    outputs = session.run(None, {session.get_inputs()[0].name: rows["x"]})[0]
    print(np.abs(outputs - rows["y"]).max())
assert not [m for m in sys.modules if m.split(".")[0] in ("qbp", "torch", "pennylane", "qiskit")]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_without_qbp(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    names = []
    for name, layer in layers().items():
        x = torch.randn(7, layer.n_inputs)
        with torch.no_grad():
            y = layer(x.double())
        path = str(tmp_path / name)
        shapes = ({0: torch.export.Dim("rows")},)
        torch.onnx.export(layer.float().to_classical(), (x,), path + ".onnx", dynamo=True, dynamic_shapes=shapes)
        np.savez(path + ".npz", x=x[:5].numpy(), y=y[:5].numpy())
        names.append(path)
    run = subprocess.run([sys.executable, "-c", WITHOUT_QBP, *names], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert max(map(float, run.stdout.split())) < 1e-6, run.stdout


# ---- what a circuit takes --------------------------------------------------------------------------------------------


def test_simulability():
    simulability = chain(20, 2).simulability()
    assert [output.qubits for output in simulability.outputs] == [3, 4] + 16 * [5] + [4, 3]
    assert max(output.words for output in simulability.outputs) == 20
    assert 0 < simulability.words < simulability.state and 0 < simulability.windows < simulability.state
    assert simulability.device == pytest.approx(4096 * 0.35e-3) == simulability.outputs[3].device
    assert all(output.seconds > 0 for output in simulability.outputs)
    assert simulability.outputs[3] == simulability.outputs[4] and simulability.without is None
    assert Simulability.from_json(json.loads(json.dumps(simulability.to_json()))) == simulability
    text = str(simulability)
    assert "at most 5 of 20 qubits and become at most 20 Pauli words" in text
    assert "by words" in text and "on a device with 4,096 shots" in text


def test_more_words_than_the_limit():
    simulability = qbp.QuantumLayer("strongly_entangling", n_qubits=10, n_layers=3).simulability(limit=500)
    assert all((output.qubits, output.words, output.seconds) == (10, None, None) for output in simulability.outputs)
    assert simulability.words is None and simulability.state > 0
    assert "more than 500 Pauli words" in str(simulability) and "(not by words)" in str(simulability)
    with pytest.raises(ArgumentError, match="`limit` must be a positive integer"):
        chain(3, 1).simulability(limit=0)


def test_noise_is_counted_too():
    layer = qbp.QuantumLayer(noisy, {"weights": 3}, n_inputs=3)
    simulability = layer.simulability()
    assert (
        [output.qubits for output in simulability.outputs] == [2, 2, 1]
        and simulability.words > 0
        and simulability.state > 0
    )


def test_noise_that_is_left_out_is_said():
    noise = qbp.NoiseModel.of({}, readout=0.02)
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise=noise)
    simulability = layer.simulability()
    assert str(simulability).startswith(
        "Without the noise of the layer's noise model, outputs see at most 2 of 2 qubits"
    )
    assert str(replace(simulability, without="fake:manila")).startswith("Without the noise of fake:manila, outputs see")


def test_each_output_is_told_by_its_own_measurement():
    """One with words in two bases takes two circuits on a device; of probabilities each outcome takes them all."""
    layer = qbp.QuantumLayer(
        "basic_entangler", n_qubits=3, n_layers=1, observables=[qml.X(0) + qml.Z(0), qml.Z(2), qml.Z(0)]
    )
    simulability = layer.simulability(shots=1000)
    assert [round(output.device / 0.35, 6) for output in simulability.outputs] == [2, 1, 1]
    assert simulability.device == pytest.approx(2 * 0.35)

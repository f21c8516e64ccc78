"""Models as files: what is read back is what was written, and nothing in a file is run."""

from __future__ import annotations

import json

import pennylane as qml
import pytest
import torch
from torch import nn

import qbp
from qbp.compression.pruning import prune
from qbp.errors import ConfigError
from qbp.nn.saving import load_model, save_model
from qbp.storage.container import load_state, save_state


def circuit_of_everything(inputs, weights, phases):
    """Amplitudes, angles that are no straight line, a Pauli word, and both kinds of measurement."""
    qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
    qml.RX(torch.sin(weights[0]) * 2, wires=0)
    qml.CNOT([0, 1])
    qml.RY(torch.where(weights[1] > 0, weights[1] ** 2, torch.exp(weights[0])), wires=1)
    qml.PauliRot(phases[0] + inputs[1] * phases[1], "XY", wires=[0, 1])
    return qml.expval(0.5 * qml.Z(0) + qml.X(0) @ qml.Y(1)), qml.probs(wires=[1])


def models():
    for family in ("strongly_entangling", "zz_map", "reuploading", "qcnn"):
        yield family, qbp.hybrid(4, 2, circuit=family, n_qubits=4, n_layers=2, seed=0).double()
    layer = qbp.QuantumLayer(circuit_of_everything, {"weights": (2,), "phases": (2,)}, n_inputs=4, seed=0)
    yield "everything", nn.Sequential(nn.Sequential(nn.Linear(4, 4, bias=False), nn.ELU(0.3)), layer).double()
    yield "classical", nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2), nn.GELU("tanh"))


MODELS = list(models())


@pytest.mark.parametrize(("name", "model"), MODELS, ids=[name for name, _ in MODELS])
def test_what_is_read_is_what_was_written(name, model, tmp_path):
    x = torch.randn(5, 4, dtype=next(model.parameters()).dtype)
    model.eval()
    next(iter(model.parameters())).requires_grad_(False)
    pruned = [] if name == "classical" else [prune(model, by="random", amount=0.4, what=("run", "entangler"))]
    for one in (model, *pruned):
        save_model(one, tmp_path / "model.safetensors")
        again = load_model(tmp_path / "model.safetensors").eval()
        assert torch.equal(again(x), one(x)) and type(again) is type(one)
        assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in one.parameters()]
        assert again.state_dict().keys() == one.state_dict().keys()
        layers = [m.describe() for m in one.modules() if isinstance(m, qbp.QuantumLayer)]
        assert [m.describe() for m in again.modules() if isinstance(m, qbp.QuantumLayer)] == layers


def test_backend_rule_and_shots(tmp_path):
    save_model(qbp.hybrid(4, 2, shots=50, diff_method="parameter-shift"), tmp_path / "m")
    layer = load_model(tmp_path / "m")[2]
    assert (layer.executor.shots, layer.diff_method, layer.backend) == (50, "parameter-shift", "native")
    assert load_model(tmp_path / "m", backend="dense")[2].backend == "dense"


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Conv2d"):
        save_model(nn.Sequential(nn.Conv2d(1, 1, 1)), tmp_path / "m")
    with pytest.raises(ConfigError, match="Cannot read"):
        load_model(tmp_path / "missing")
    save_state(tmp_path / "m", {"epoch": 1})
    with pytest.raises(ConfigError, match="not a model"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("target", ["from_file.default", "mul_.Tensor", "system", "set_.source_Tensor", "__class__"])
def test_a_file_names_no_other_code(tmp_path, target):
    """Only operations that compute a tensor of tensors and numbers."""
    layer = qbp.QuantumLayer(circuit_of_everything, {"weights": (2,), "phases": (2,)}, n_inputs=4)
    save_model(layer, tmp_path / "m")
    state = load_state(tmp_path / "m")
    circuit = state["model"]["circuit"]
    text = json.dumps(circuit["shared_graph"])
    assert '"sin.default"' in text
    circuit["shared_graph"] = json.loads(text.replace('"sin.default"', json.dumps(target)))
    save_state(tmp_path / "m", state)
    with pytest.raises(ConfigError, match="cannot hold"):
        load_model(tmp_path / "m")

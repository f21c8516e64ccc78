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
    with pytest.raises(ConfigError, match="Conv3d"):
        save_model(nn.Sequential(nn.Conv3d(1, 1, 1)), tmp_path / "m")
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


# ---- modules and weights in several places ---------------------------------------------------------------------------


def shared_models():
    act, linear, block = nn.ReLU(), nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    norm, layer = nn.BatchNorm1d(3), qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, seed=0)
    yield "an activation", nn.Sequential(nn.Linear(3, 5), act, nn.Linear(5, 3), act, nn.Linear(3, 2))
    yield "a linear layer", nn.Sequential(linear, nn.Tanh(), linear, nn.Linear(3, 2))
    yield "a quantum layer", nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(3, 2))
    yield "a block, and a part of it", nn.Sequential(block, block, nn.Sequential(nn.Sequential(block[0]), norm), norm)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    tied[2].weight = tied[3].weight = tied[0].weight
    tied[2].bias.requires_grad_(False)
    yield "tied weights", tied
    two = [qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, seed=k) for k in range(2)]
    two[1].weights = two[0].weights
    yield "tied weights of circuits", nn.Sequential(two[0], nn.Linear(3, 3), two[1])


SHARED = list(shared_models())


@pytest.mark.parametrize(("name", "model"), SHARED, ids=[name for name, _ in SHARED])
def test_what_is_shared_stays_shared(name, model, tmp_path):
    model(torch.randn(8, 3))  # running means that are not the first ones
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    x = torch.randn(5, 3)
    assert torch.equal(again.eval()(x), model.eval()(x))
    for each in ("named_modules", "named_parameters", "named_buffers"):
        places = [
            [list(dict.fromkeys(id(thing) for _, thing in named)).index(id(thing)) for _, thing in named]
            for named in (list(getattr(m, each)(remove_duplicate=False)) for m in (model, again))
        ]
        assert places[0] == places[1] and (each == "named_buffers" or len(set(places[0])) <= len(places[0]))
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    one, other = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, again))
    for m, optimizer in ((model, one), (again, other)):
        m(x).square().sum().backward()
        optimizer.step()
    assert torch.allclose(again(x), model(x), atol=1e-6)


class OwnLayer(qbp.QuantumLayer):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class OwnRule:
    name = "mine"

    def plan(self, *_, **__): ...
    def end_step(self): ...
    def after_backward(self): ...
    def begin(self, steps=None): ...
    def state(self): ...
    def load_state(self, state): ...


def refused():
    layer = {"n_qubits": 2, "n_layers": 1}
    yield "0.1 is a OwnLayer", nn.Sequential(nn.Sequential(nn.Tanh(), OwnLayer("basic_entangler", **layer)))
    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda module, args, output: output + 1)
    yield "hooks, but 1, a Linear, has some", nn.Sequential(nn.Tanh(), hooked)
    masked = nn.utils.prune.l1_unstructured(nn.Linear(2, 2), "weight", 0.5)
    yield "hooks, but 0, a Linear", nn.Sequential(masked)
    patched = nn.Tanh()
    patched.forward = lambda x: x
    yield "`forward` of its own, but 0", nn.Sequential(patched)
    parametrized = nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))
    yield "0.parametrizations.weight.0 is a _Orthogonal", nn.Sequential(parametrized)
    views = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    views[1].weight = nn.Parameter(views[0].weight)
    yield "0.weight and 1.weight share memory", views
    own = qbp.QuantumLayer("basic_entangler", **layer, diff_method=OwnRule())
    yield "rule of your own, but 0 has 'mine'", nn.Sequential(own)


REFUSED = list(refused())


@pytest.mark.parametrize(("message", "model"), REFUSED, ids=[message for message, _ in REFUSED])
def test_what_would_be_lost_is_refused_by_name(message, model, tmp_path):
    with pytest.raises(ConfigError, match=message):
        save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_options_of_a_rule(tmp_path):
    rule = qbp.gradients.stateful.GradientPruning(0.25, accumulate=2, prune=3, by="top")
    save_model(qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, diff_method=rule), tmp_path / "m")
    again = load_model(tmp_path / "m").rule
    assert type(again) is type(rule) and repr(again) == repr(rule)


def test_loading_draws_no_random_numbers(tmp_path):
    save_model(qbp.hybrid(4, 2, seed=0), tmp_path / "m")
    before = torch.get_rng_state()
    load_model(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before)


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_that_gives_other_outputs_is_noticed(dtype, tmp_path):
    model = qbp.hybrid(4, 2, seed=0).to(dtype)
    save_model(model, tmp_path / "m")
    state = load_state(tmp_path / "m")
    x, outputs = state["rows"]["inputs"], state["rows"]["outputs"]
    assert torch.allclose(outputs[0], model(x), atol=0.05 if dtype is torch.bfloat16 else 1e-5)
    load_model(tmp_path / "m")
    off = {torch.float32: 1e-3, torch.float64: 1e-7, torch.bfloat16: 0.5}[dtype]
    state["weights"]["3.bias"] = state["weights"]["3.bias"] + off
    save_state(tmp_path / "m", state)
    with pytest.raises(ConfigError, match="gives other outputs than it did when it was saved"):
        load_model(tmp_path / "m")


def test_rows_are_none_of_the_users_and_run_on_no_device(tmp_path, monkeypatch):
    """Whatever the backend is, the dense executor computes them; a model that takes no such rows has none."""

    class Device:
        name, exact, shots = "device", True, None

        def __call__(self, program, angles, amplitudes=None):
            raise AssertionError("asked")

    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=Device())
    save_model(nn.Sequential(layer, nn.Linear(2, 2)), tmp_path / "m")
    state = load_state(tmp_path / "m")
    assert state["rows"]["inputs"].shape == (3, 2)
    assert load_model(tmp_path / "m", backend=Device())[0].backend == "device"
    save_model(nn.Sequential(nn.Unflatten(1, (7, 5, 43)), nn.Linear(2, 3)), tmp_path / "m")
    assert load_state(tmp_path / "m")["rows"] is None and load_model(tmp_path / "m")
    save_model(nn.Sequential(qbp.QuantumLayer("basic_entangler", n_qubits=18, n_layers=1)), tmp_path / "m")
    assert load_state(tmp_path / "m")["rows"]["outputs"] is None and load_model(tmp_path / "m")


def test_files_of_the_version_before(tmp_path):
    model = qbp.hybrid(4, 2, seed=0)
    save_model(model, tmp_path / "m")
    state = {key: value for key, value in load_state(tmp_path / "m").items() if key not in ("ties", "rows")}
    save_state(tmp_path / "m", state | {"version": 1})
    assert torch.equal(load_model(tmp_path / "m")(torch.ones(1, 4)), model(torch.ones(1, 4)))

"""How tensors flow: what reads what, seen by running models whose forward is no chain."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import qbp
from qbp.errors import ArgumentError
from qbp.nn.copying import copied
from qbp.nn.flow import exact_copy, flow_of, guessed_rows, replaced, whole_modules


class Skip(nn.Module):
    """An inner layer is read by the next one and by a skip; a weight is read by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 3))
        self.act, self.head = nn.Tanh(), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.net[:2](x))
        penalty = self.head.weight.square().sum()
        return self.head(self.act(self.net[2](h)) + h) + 0 * penalty


def test_readers_of_an_inner_layer() -> None:
    flow = flow_of(Skip(), torch.randn(3, 4))
    (inner,) = flow.calls("net.0")
    assert [step.name for step in flow.readers(inner.gives[0])] == ["net.1"]
    first, second = flow.calls("act")
    assert [step.name for step in flow.readers(first.gives[0])] == ["net.2", None]
    assert flow.read_outside == {"head"} and flow.inputs == inner.reads
    assert set(flow.last((nn.Linear,))) == {"head"} and flow.shapes[second.gives[0]] == (3, 3)


def test_what_is_done_in_place_and_what_is_only_asked() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.a(x)
            if h.ndim != 2 or len(h) != len(x):
                raise ValueError
            before = h
            h.mul_(2)  # what is read afterwards is another value
            return self.b(h) + before[:, :2]

    flow = flow_of(Model(), torch.randn(3, 2))
    (step,) = flow.readers(flow.calls("a")[0].gives[0])
    assert step.name is None and len(flow.readers(step.gives[0])) == 2


def test_no_circuit_runs_and_nothing_is_left_behind() -> None:
    class Never:
        name, exact, shots = "never", True, None

        def __call__(self, program, angles, amplitudes=None):
            raise AssertionError("a circuit ran")

        def __deepcopy__(self, memo):
            raise AssertionError("an executor was copied")

    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=Never())
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), layer, nn.Linear(2, 1))
    before, state = copy.deepcopy(model[1].state_dict()), torch.get_rng_state()
    for training in (True, False):
        assert len(flow_of(model, torch.randn(3, 3, generator=torch.Generator()), training=training).steps) == 5
    assert guessed_rows(model).shape == (3, 3)
    assert all(torch.equal(before[key], value) for key, value in model[1].state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and not any(m._forward_hooks for m in model.modules())
    expected = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
    expected.load_state_dict(layer.state_dict())
    x = torch.rand(4, 2)
    assert torch.equal(exact_copy(model)[3](x), expected(x))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2)), (36,)),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 2)), (3, 6, 6)),
        (nn.Sequential(nn.Conv1d(2, 2, 3), nn.Flatten(), nn.Linear(8, 2)), (2, 6)),
        (qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1), (3,)),
        (nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2)), (5,)),
    ],
    ids=["unflatten", "conv2d", "conv1d", "quantum", "batchnorm"],
)
def test_rows_are_guessed(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert guessed_rows(model).shape[1:] == shape


def test_rows_that_cannot_be_guessed() -> None:
    assert guessed_rows(nn.Embedding(3, 2)) is None


def test_what_is_replaced_is_replaced_wherever_it_is_used() -> None:
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
    model = nn.Sequential(layer, nn.Tanh(), nn.Sequential(layer))
    model.kept = [layer]  # not registered, but perhaps called
    calls = []
    changed = replaced(model, lambda layer: calls.append(layer) or nn.Linear(2, 2))
    assert len(calls) == 1 and calls[0] is not layer
    assert changed[0] is changed[2][0] is changed.kept[0] and type(changed[0]) is nn.Linear
    assert type(replaced(layer, lambda layer: nn.Linear(2, 2))) is nn.Linear and model[0] is layer


def test_whole_modules() -> None:
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("plain", "tied", "hooked", "masked", "own", "storage")})
    model["tied_too"], model["storage_too"] = nn.Linear(2, 2), nn.Linear(2, 2)
    model["tied_too"].weight = model["tied"].weight
    model["storage_too"].weight = nn.Parameter(model["storage"].weight.data)
    model["hooked"].register_forward_hook(lambda module, x, y: 2 * y)
    prune.random_unstructured(model["masked"], "weight", 0.5)
    model["own"].forward = lambda x: x
    model["parametrized"] = parametrizations.weight_norm(nn.Linear(2, 2))
    assert whole_modules(model) & set(dict(model.named_children())) == {"plain"}


def test_a_model_with_computed_weights_can_be_copied() -> None:
    model = nn.Linear(2, 2)
    prune.random_unstructured(model, "weight", 0.5)
    x = torch.randn(3, 2)
    y = model(x)
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    assert torch.equal(copied(model)(x), y)


class Keeps(nn.Module):
    """It keeps what it computed, to look at it later, and reads a computed tensor of another model."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(2, 2), []
        self.other = {"scale": nn.Linear(2, 2).weight * 2}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.linear(x) * self.other["scale"].mean())
        return self.seen[-1]


def test_a_model_that_keeps_what_it_computed_can_be_copied() -> None:
    model = nn.Sequential(Keeps(), Keeps())
    y = model(torch.ones(3, 2))
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    other = copied(model)
    assert torch.equal(other(torch.ones(3, 2)), y)
    assert other[1].seen[0] is not y and not other[1].seen[0].requires_grad and len(model[1].seen) == 1


def test_what_cannot_be_copied_is_said() -> None:
    model = nn.Linear(2, 2)
    model.file = (k for k in range(3))
    with pytest.raises(ArgumentError, match="cannot be copied: cannot pickle 'generator'"):
        copied(model)

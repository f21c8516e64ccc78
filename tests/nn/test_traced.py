"""Modules of anybody's class as files: what torch.fx traces of them gives the same, trains the same, or is refused."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

import qbp
from qbp.errors import ConfigError
from qbp.nn.flow import tensors_in
from qbp.nn.traced import ATTRIBUTES, METHODS, TracedModule, functions
from qbp.storage.container import load_state, save_state


def circuit() -> qbp.QuantumLayer:
    return qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, seed=0)


class Named(nn.Module):
    """A dict of modules, used several times."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"a": nn.Linear(3, 3), "circuit": circuit()})
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        a, layer = self.parts["a"], self.parts["circuit"]
        return self.head(layer(torch.tanh(a(x))) + layer(x) + a(a(x)))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 1), nn.Sequential(circuit(), nn.Linear(3, 2))

    def forward(self, x):
        x = functional.relu(self.body(x))
        return {"one": self.one(x), "two": (self.two(x), x)}


class OtherInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.circuit = nn.Linear(3, 3), circuit()

    def forward(self, x):
        x = functional.dropout(self.body(x), 0.5, self.training)
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        return self.circuit(x)


class OwnTensors(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), 2.0))
        self.list = nn.ParameterList([nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))])
        self.register_buffer("shift", torch.arange(3.0))
        self.register_buffer("unsaved", torch.ones(3), persistent=False)
        self.circuit, self.mask = circuit(), torch.tensor([1.0, 0.0, 1.0])

    def forward(self, x):
        y = self.circuit(x * self.scale + self.shift) * self.mask * (self.scale * self.scale) + self.unsaved
        return y * self.list[0] + self.list[1]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.queries, self.keys, self.circuit = nn.Linear(3, 3), nn.Linear(3, 3), circuit()

    def forward(self, x):
        weights = torch.softmax(self.queries(x) @ self.keys(x).transpose(-2, -1) / 3**0.5, -1)
        return self.circuit(torch.einsum("ij,jk->ik", weights, x).clamp(-math.pi, math.pi))


class Adds(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, skip=None, scale=2.0):
        y = self.linear(x) * scale
        return y if skip is None else y + skip


class CallsByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.circuit = Adds(), Adds(), circuit()

    def forward(self, x):
        return self.circuit(self.two(self.one(x, skip=x)))


class TiedAcross(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3), circuit(), circuit()
        self.b.weight, self.two.weights = self.a.weight, self.one.weights

    def forward(self, x):
        return self.two(self.b(self.one(self.a(x)))) + functional.linear(x, self.a.weight.t())


class Looped(nn.Module):
    """A circuit in a loop, a block twice, and a module that nothing calls."""

    def __init__(self):
        super().__init__()
        self.circuit, self.steps, self.unused = circuit(), nn.ModuleList(nn.Linear(3, 3) for _ in range(3)), Adds()
        self.block = nn.Sequential(self.circuit, nn.Tanh())
        self.again = nn.Sequential(self.block, self.block)

    def forward(self, x):
        for step in self.steps:
            x = x + self.circuit(step(x))
        x = x.reshape(x.shape[0], 3)
        return torch.cat([x[:, :1], self.again(x)[..., 1:]], dim=1).mean(-1, keepdim=True).expand(-1, 2)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class OwnLinear(nn.Linear): ...


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.attention = nn.LSTM(3, 3, batch_first=True), nn.MultiheadAttention(3, 1, batch_first=True)
        self.circuit, self.norm = circuit(), nn.LayerNorm(3)

    def forward(self, x):
        y, _ = self.lstm(x.unsqueeze(1))
        y, _ = self.attention(y, y, y)
        return functional.log_softmax(self.circuit(self.norm(y[:, -1])), dim=1)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.head, self.circuit = nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Linear(8, 3), circuit()

    def forward(self, x):
        return self.circuit(self.head(self.pool(functional.relu(self.conv(x))).flatten(1)))


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), circuit())


SAVED = {
    **{
        kind.__name__: kind
        for kind in (Named, TwoHeads, OtherInTraining, OwnTensors, Attention, Adds, CallsByName, TiedAcross, Looped)
    },
    "Residual": lambda: nn.Sequential(nn.Linear(3, 3), Residual(nn.Linear(3, 3), circuit())),
    "OwnLinear": lambda: nn.Sequential(OwnLinear(3, 3), circuit()),
    "weight_norm": weight_normed,
    "Recurrent": Recurrent,
    "Images": Images,
}


@pytest.mark.parametrize("name", SAVED)
def test_what_is_read_computes_and_trains_the_same(name, tmp_path):
    torch.manual_seed(0)
    model = SAVED[name]()
    before, attributes = copy.deepcopy(model.state_dict()), set(vars(model))
    qbp.save_model(model, tmp_path / "m")
    assert model.training and set(vars(model)) == attributes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    again = qbp.load_model(tmp_path / "m")
    assert again.state_dict().keys() == model.state_dict().keys()
    assert len(list(again.parameters())) == len(list(model.parameters()))  # ties stay
    qbp.save_model(again, tmp_path / "twice")
    for other in (again, pickle.loads(pickle.dumps(again)), qbp.load_model(tmp_path / "twice")):
        x = torch.randn(5, 1, 6, 6) if name == "Images" else torch.randn(5, 3)
        for training in (False, True):
            gradients = []
            for each in (model.train(training), other.train(training)):
                torch.manual_seed(1)
                each.zero_grad()
                outputs = each(x)
                sum(t.square().sum() for t in tensors_in(outputs)).backward()
                gradients.append((outputs, {key: p.grad for key, p in each.named_parameters()}))
            (expected, wanted), (outputs, got) = gradients
            assert type(expected) is type(outputs)
            for a, b in zip(tensors_in(expected), tensors_in(outputs), strict=True):
                assert torch.allclose(a, b, atol=1e-6)
            assert wanted.keys() == got.keys()
            for key, gradient in wanted.items():
                assert (gradient is None) is (got[key] is None)
                assert gradient is None or torch.allclose(gradient, got[key], atol=1e-5), key


def test_a_read_model_is_pruned_and_taught(tmp_path):
    qbp.save_model(Looped(), tmp_path / "m")
    model = qbp.load_model(tmp_path / "m").eval()
    x = torch.randn(6, 3)
    assert torch.allclose(qbp.prune(model, by="exact")(x), model(x), atol=1e-5)
    data = qbp.data.Dataset(x, torch.arange(6) % 2)
    student = qbp.distill(model, qbp.mlp(3, 2, 2, seed=0), data, epochs=1, logit_norm=True)
    assert student(x).shape == (6, 2)


class OfValues(Adds):
    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else x


class Drawn(Adds):
    def forward(self, x):
        return self.linear(x) * torch.rand(3)


class InAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(3, 3)]

    def forward(self, x):
        return self.layers[0](x)


class Counting(Adds):
    n = 0

    def forward(self, x):
        self.n += 1
        return self.linear(x) * self.n


class Aliased(Adds):
    def forward(self, x):
        y = before = self.linear(x)
        y += 1
        return before


class Averaging(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.linear, self.in_place = nn.Linear(3, 3), in_place
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        if self.training and self.in_place:
            self.mean.mul_(0.9)
        elif self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.linear(x)


class TwoInputs(Adds):
    def forward(self, x, y):
        return self.linear(x) + y


class CallsInTwoWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.adds = Adds()

    def forward(self, x):
        return self.adds(self.adds(x, skip=x))


class OwnCircuit(qbp.QuantumLayer):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Inverting(Adds):
    def forward(self, x):
        return torch.linalg.inv(self.linear(x))


REFUSED = {
    "a OfValues, which cannot be traced": OfValues,
    "a Drawn, which does something else each time": Drawn,
    "a InAList, which reads a parameter that none of its modules has": InAList,
    "a Counting, which does something else each time": Counting,
    "gives other outputs in evaluation": Aliased,
    "a Averaging, which uses 'mul_'": lambda: Averaging(in_place=True),
    "a Averaging, which changes its mean": lambda: Averaging(in_place=False),
    "a TwoInputs, which cannot be traced": TwoInputs,
    "a CallsInTwoWays, which calls adds in two ways": CallsInTwoWays,
    "the model is a OwnCircuit": lambda: OwnCircuit("basic_entangler", n_qubits=2, n_layers=1),
    "which uses 'linalg_inv'": Inverting,
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_steps_cannot_say_is_refused_by_name(message, tmp_path):
    model = REFUSED[message]()
    with pytest.raises(ConfigError, match=message):
        qbp.save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert not hasattr(model, "n") or model.n == 0


# ---- files of strangers ----------------------------------------------------------------------------------------------


def test_the_tables_hold_nothing_that_acts():
    assert not {name for name in METHODS | ATTRIBUTES if name.endswith("_") or name.startswith("__")}
    telling = "item tolist numpy data_ptr backward register_hook share_memory_ apply_ map_ set_ cuda real data"
    assert not METHODS & set(telling.split())
    for name in METHODS:
        assert callable(getattr(torch.Tensor, name, None)), name
    for name, function in functions().items():
        assert name.split(".")[0] in ("torch", "functional", "operator") and callable(function)
        assert not name.endswith("_") or name in ("operator.and_", "operator.or_"), name
    assert not {
        f"torch.{name}" for name in ("load", "save", "from_file", "compile", "manual_seed", "zeros", "empty")
    } & set(functions())


X = {"step": 0}
STEPS = {
    "a method that reads a file": [["method", "numpy", {"tuple": [X]}, []]],
    "a dunder": [["attribute", "__class__", {"tuple": [X]}, []]],
    "data": [["attribute", "data", {"tuple": [X]}, []]],
    "a function of the system": [["function", "os.system", {"tuple": ["id"]}, []]],
    "torch.load": [["function", "torch.load", {"tuple": ["x"]}, []]],
    "in place": [["method", "mul_", {"tuple": [X, 2]}, []]],
    "into a weight": [["function", "torch.sin", {"tuple": [X]}, [["out", X]]]],
    "a step to come": [["function", "torch.sin", {"tuple": [{"step": 5}]}, []]],
    "no arguments": [["function", "torch.sin", {"tuple": []}, []]],
    "a module of a module": [["module", "linear.forward", {"tuple": [X]}, []]],
    "an attribute as a parameter": [["tensor", "__dict__", {"tuple": []}, []]],
    "text": [["method", "to", {"tuple": [X, "__import__('os')"]}, []]],
    "terabytes": [["method", "new_zeros", {"tuple": [X, 10**6, 10**6]}, []]],
    "terabytes in doubles": [["function", "torch.cat", {"tuple": [[{"step": k}] * 2]}, []] for k in range(60)],
    "a list of terabytes": [["function", "operator.mul", {"tuple": [[1], 10**12]}, []]],
    "an integer of digits": [["function", "operator.pow", {"tuple": [10, 10**9]}, []]],
    "an integer squared often": [["function", "operator.mul", {"tuple": [2**62, 2**62]}, []]],
    "a thousand axes": [["method", "view", {"tuple": [X, [1] * 1000]}, []]],
    "itself": [["module", "", {"tuple": [X]}, []]],
    "an output first": [["output", "", {"tuple": [X]}, []]],
    "a step that is none": [["exec", "1", {"tuple": [X]}, []]],
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_a_stranger(name, tmp_path):
    qbp.save_model(Adds(), tmp_path / "m")
    state = load_state(tmp_path / "m")
    steps = STEPS[name]
    last = ["output", "", {"tuple": [{"step": len(steps)}]}, []]
    state["model"]["evaluating"] = [state["model"]["evaluating"][0], *steps, last]
    save_state(tmp_path / "m", state)
    with pytest.raises(ConfigError):
        qbp.load_model(tmp_path / "m")


def test_rows_of_a_stranger(tmp_path):
    """Steps are never taken without having been tried on a few rows."""
    qbp.save_model(Adds(), tmp_path / "m")
    state = load_state(tmp_path / "m")
    for rows in (None, {"inputs": torch.zeros(3, 7), "outputs": None}, {"inputs": torch.zeros(9, 3), "outputs": None}):
        save_state(tmp_path / "m", state | {"rows": rows})
        with pytest.raises(ConfigError):
            qbp.load_model(tmp_path / "m")


def test_a_traced_module_says_what_it_takes():
    qbp_module = TracedModule((), ())
    with pytest.raises(TypeError, match="takes the arguments"):
        qbp_module(torch.zeros(1))

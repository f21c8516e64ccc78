"""Models begun anew: equal to those just built, whatever torch's modules hold, and no global state touched."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import qbp
from qbp.errors import ArgumentError
from qbp.nn.seeding import renew, seeded

ARGUMENTS = {
    "AdaptiveLogSoftmaxWithLoss": (8, 10, [4]),
    "Bilinear": (3, 4, 2),
    "Embedding": (5, 3),
    "EmbeddingBag": (5, 3),
    "GroupNorm": (2, 4),
    "LayerNorm": (4,),
    "Linear": (3, 4),
    "MultiheadAttention": (4, 2),
    "PReLU": (),
    "RMSNorm": (4,),
    "Transformer": (4, 2, 1, 1, 8),
    "TransformerDecoderLayer": (4, 2, 8),
    "TransformerEncoderLayer": (4, 2, 8),
    **dict.fromkeys(("GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"), (3, 4)),
    **{f"BatchNorm{d}d": (3,) for d in (1, 2, 3)},
    **{f"InstanceNorm{d}d": (3, 1e-5, 0.1, True, True) for d in (1, 2, 3)},
    **{f"Conv{t}{d}d": (2, 3, 2) for d in (1, 2, 3) for t in ("", "Transpose")},
    "SyncBatchNorm": (3,),
}
ABSTRACT = {"RNNBase", "RNNCellBase", "Module"}


def build(name: str) -> nn.Module:
    return getattr(nn, name)(*ARGUMENTS[name])


def test_every_module_of_torch_with_weights_is_in_the_table():
    """Lazy ones become another when they are first called."""
    kinds = {n: c for n, c in vars(nn).items() if inspect.isclass(c) and issubclass(c, nn.Module)}
    own = {n for n, c in kinds.items() if hasattr(c, "reset_parameters") or hasattr(c, "_reset_parameters")}
    assert {n for n in own if not n.startswith("Lazy")} - ABSTRACT <= set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_renewed_model_is_one_just_built(name: str):
    with seeded(7):
        fresh = build(name)
    model = build(name)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(3)
    again = renew(model, 7)
    if name == "AdaptiveLogSoftmaxWithLoss":  # its `reset_parameters` draws what is drawn already once more
        assert not any(
            torch.equal(p, q) or (p > 2.5).any() for p, q in zip(again.parameters(), model.parameters(), strict=True)
        )
        return
    assert again.state_dict().keys() == fresh.state_dict().keys()
    for key, value in again.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key


def test_a_model_of_many_modules_is_one_just_built():
    def build(seed: int) -> nn.Module:
        with seeded(seed):
            block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
            layer = qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=1)
            return nn.Sequential(block, nn.Tanh(), block, layer, nn.Linear(4, 3))

    model = build(0)
    model(torch.randn(8, 4)).sum().backward()
    again, fresh = renew(model, 5), build(5)
    assert again[0] is again[2]
    for key, value in again.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key


def test_tied_weights_stay_tied_and_are_those_of_the_first():
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    again = renew(model, 3)
    assert again[1].weight is again[0].weight and model[1].weight is model[0].weight
    with seeded(3):
        assert torch.equal(again[0].weight, nn.Embedding(4, 4).weight)


class Replaces(nn.Module):
    """Makes new parameters when it is reset."""

    def __init__(self):
        super().__init__()
        self.reset_parameters()

    def reset_parameters(self):
        self.weight = nn.Parameter(torch.rand(3))


def test_a_tie_outlives_a_reset_that_makes_new_parameters():
    model = nn.Sequential(Replaces(), Replaces())
    model[1].weight = model[0].weight
    again = renew(model, 0)
    assert again[0].weight is again[1].weight and not again[0].weight.isnan().any()


def test_parametrized_weights_are_drawn_anew():
    for parametrized in (parametrizations.weight_norm, parametrizations.orthogonal):
        model = nn.Sequential(parametrized(nn.Linear(3, 3)), nn.Linear(3, 2))
        assert parametrize.is_parametrized(model[0])
        one, same, other = renew(model, 3), renew(model, 3), renew(model, 4)
        assert torch.equal(one[0].weight, same[0].weight)
        assert not torch.allclose(one[0].weight, other[0].weight) and not one[0].weight.isnan().any()
        assert not torch.allclose(one[0].weight, model[0].weight)


class Own(nn.Module):
    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor, persistent=name != "cached")


class Resets(Own):
    def reset_parameters(self):
        pass


def test_what_cannot_be_reset_is_refused_by_name():
    inside = {
        "keeps weight": Own(weight=nn.Parameter(torch.ones(2))),
        "keeps mean": Own(mean=torch.zeros(2)),
        "keeps count": Own(count=torch.zeros((), dtype=torch.int64)),
        "keeps w": Resets(w=nn.Parameter(torch.ones(2))),
        "keeps 0": nn.ParameterList([torch.ones(2)]),
        "keeps _u, _v": parametrizations.spectral_norm(nn.Linear(2, 2)),
    }
    for message, module in inside.items():
        with pytest.raises(ArgumentError, match=message) as caught:
            renew(nn.Sequential(nn.Tanh(), nn.Sequential(module)), 0)
        assert "'1.0" in str(caught.value)
    with pytest.raises(ArgumentError, match="keeps weight_g, weight_v"):
        renew(nn.utils.weight_norm(nn.Linear(2, 2)), 0)  # torch alone cannot copy it


def test_constants_stay():
    for module in (Own(cached=torch.ones(2)), Resets(scale=torch.ones(2)), nn.CrossEntropyLoss(torch.ones(2))):
        again = renew(nn.Sequential(module, nn.Linear(2, 2)), 0)
        assert all(torch.equal(b, torch.ones(2)) for b in again.buffers())


def test_a_rule_forgets_and_random_numbers_begin_anew():
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, shots=5, seed=1, diff_method="gradient-pruning")
    layer(torch.zeros(2, 2)).sum().backward()
    assert layer.rule.step
    again = renew(layer, 4)
    assert again.rule.step == 0 and layer.rule.step
    assert torch.equal(again.rng_state, torch.Generator().manual_seed(4).get_state())


def test_random_numbers_by_seed_touch_no_global_state(monkeypatch):
    called = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", called.append)
    torch.default_generator.manual_seed(11)
    before = torch.get_rng_state()
    model = qbp.hybrid(2, 3, n_qubits=2, n_layers=1, seed=0)
    qbp.mlp(2, 2, 2, seed=0)
    renew(model, 0)
    train, _ = qbp.data.load("iris", seed=0, features=2)
    qbp.fit(model, train, epochs=1, seed=0)
    assert not called and torch.equal(torch.get_rng_state(), before)


def test_there_is_one_place_that_seeds():
    """`torch.manual_seed` reseeds every GPU, and `fork_rng` by itself copies the state of every one."""
    for path in Path(qbp.__file__).parent.rglob("*.py"):
        if path.name == "seeding.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert not name.endswith("fork_rng") and name not in (
                "torch.manual_seed",
                "torch.random.manual_seed",
                "torch.default_generator.manual_seed",
            ), path

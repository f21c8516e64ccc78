"""Pruning really removes: smaller programs and matrices, fewer executions, and the outputs of the masked model."""

from __future__ import annotations

import copy

import pennylane as qml
import pytest
import torch
from torch import nn

import qbp
from qbp.circuit.angles import Angles
from qbp.compression.groups import groups_of
from qbp.compression.pruning import SCHEDULES, masked, prune, remove
from qbp.compression.scores import score
from qbp.errors import ArgumentError, CircuitError
from qbp.executors.dense import Dense

TRAIN, _ = qbp.data.load("mnist", classes=(3, 6), features=8, seed=0)
TRAIN = TRAIN.subset(range(40))
X = torch.randn(7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def pick(model, what, share, seed=0):
    groups = groups_of(model, what)
    order = torch.argsort(score(model, groups, by="random", seed=seed)).tolist()
    chosen = [groups[g] for g in order[: round(share * len(groups))]]
    first = next((group for group in chosen if group.kind == "neuron"), None)
    return [group for group in chosen if group != first]  # one neuron stays


@pytest.mark.parametrize(
    "family", ["strongly_entangling", "hardware_efficient", "basic_entangler", "zz_map", "iqp", "reuploading", "qcnn"]
)
@pytest.mark.parametrize("what", ["both", ("run", "entangler", "encoding")])
def test_what_is_left_computes_what_the_masked_model_does(family, what):
    model = qbp.hybrid(8, 2, circuit=family, n_qubits=4, n_layers=2, seed=0).double()
    for share in (0.4, 1.0):
        groups = pick(model, what, share)
        small = copy.deepcopy(model)
        remove(small, groups)
        assert (small(X) - masked(model, groups)(X)).abs().max() < 1e-12
        assert small[2].circuit.program.n_angles < model[2].circuit.program.n_angles
        assert len(small[2].circuit.program.ops) < len(model[2].circuit.program.ops)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu"])
def test_neurons_of_a_classical_network(activation):
    """With a sigmoid a neuron whose sum is 0 still gives 1/2, which goes into the next bias."""
    model = qbp.mlp(8, 10, 6, 2, activation=activation, seed=0).double()
    groups = pick(model, "neurons", 0.5)
    small = copy.deepcopy(model)
    remove(small, groups)
    assert (small(X) - masked(model, groups)(X)).abs().max() < 1e-12
    assert sum(layer.out_features for layer in (small[0], small[2])) == 16 - len(groups)
    assert small[2].weight.shape == (small[2].out_features, small[0].out_features)


def test_a_neuron_that_feeds_an_angle_through_a_sigmoid():
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, seed=0)
    model = nn.Sequential(nn.Linear(8, 3), nn.Sigmoid(), layer, nn.Linear(3, 2)).double()
    groups = groups_of(model, "neurons")[1:2]
    small = copy.deepcopy(model)
    remove(small, groups)
    assert (small(X) - masked(model, groups)(X)).abs().max() < 1e-12
    assert small[2].n_inputs == 2 and small[2].circuit.program.n_angles == model[2].circuit.program.n_angles - 1


def test_gates_of_a_bare_layer_and_of_amplitudes():
    def circuit(inputs, weights):
        qml.AmplitudeEmbedding(inputs, wires=range(3), normalize=True)
        qml.StronglyEntanglingLayers(weights, wires=range(3))
        return qml.probs(wires=[0, 2])

    layer = qbp.QuantumLayer(circuit, {"weights": (2, 3, 3)}, n_inputs=8, seed=0).double()
    groups = pick(layer, "gates", 0.5)
    small = copy.deepcopy(layer)
    remove(small, groups)
    assert (small(X) - masked(layer, groups)(X)).abs().max() < 1e-12
    assert small.weights.shape[0] < 18


def test_a_weight_shared_by_gates_goes_with_the_last_of_them():
    def circuit(inputs, weights):
        for wire in range(3):
            qml.RX(inputs[wire], wires=wire)
            qml.RY(2 * weights[0] + 0.1, wires=wire)
            qml.RZ(torch.sin(weights[1]), wires=wire)
            qml.RX(weights[2], wires=wire)
        return [qml.expval(qml.Z(wire)) for wire in range(3)]

    layer = qbp.QuantumLayer(circuit, {"weights": (3,)}, n_inputs=3, seed=0).double()
    x = X[:, :3]
    turned = [g for g in groups_of(layer, "rotation") if layer.circuit.program.ops[g.index[0]].pauli == "Y"]
    for count, left in ((2, 3), (3, 2)):
        small = copy.deepcopy(layer)
        remove(small, turned[:count])
        assert small.weights.shape == (left,)
        assert (small(x) - masked(layer, turned[:count])(x)).abs().max() < 1e-12
    turned = [g for g in groups_of(layer, "rotation") if layer.circuit.program.ops[g.index[0]].pauli == "Z"]
    remove(layer, turned)
    assert layer.weights.shape == (2,)  # also where the weight's way to the angle is no straight line


# ---- what a user pays for --------------------------------------------------------------------------------------------


class Counting(Dense):
    """The dense executor, which counts the parameter sets that it runs."""

    name = "counting"

    def __init__(self) -> None:
        self.sets = 0

    def __call__(self, program, angles, amplitudes=None):
        self.sets += Angles.of(angles).n_samples
        return super().__call__(program, angles, amplitudes)

    def __deepcopy__(self, memo):
        return Counting()


def executed(model: nn.Module, x: torch.Tensor) -> int:
    """Parameter sets that one training step of the model runs."""
    counter = model[2].executor
    counter.sets = 0
    model(x).sum().backward()
    return counter.sets


def test_each_rotation_less_is_two_executions_less():
    model = qbp.hybrid(8, 2, backend=Counting(), diff_method="parameter-shift", n_qubits=3, n_layers=2, seed=0).double()
    n_angles = model[2].circuit.program.n_angles
    assert executed(model, X) == len(X) * (1 + 2 * n_angles)
    rotations = groups_of(model, "rotation")
    for k in (1, 4):
        small = copy.deepcopy(model)
        remove(small, rotations[:k])
        assert executed(small, X) == len(X) * (1 + 2 * n_angles - 2 * k)
    small = copy.deepcopy(model)
    remove(small, groups_of(model, "neuron")[:1])  # the encoding angle that it feeds
    assert executed(small, X) == len(X) * (1 + 2 * n_angles - 2)


# ---- a pruned layer is an ordinary layer -----------------------------------------------------------------------------


def test_state_dict_copies_training_and_checkpoints(tmp_path):
    model = qbp.hybrid(8, 2, seed=0)
    small = prune(model, TRAIN, amount=0.5)
    layer = small[2]
    assert type(layer) is qbp.QuantumLayer and list(layer.state_dict()) == ["weights"]
    assert layer.weights.numel() < model[2].weights.numel() and layer.weights.dtype == torch.float32
    assert layer.describe() != model[2].describe() and "shot" not in repr(layer)
    twin = copy.deepcopy(small)
    with torch.no_grad():
        twin[2].weights.zero_()
    twin.load_state_dict(small.state_dict())
    assert torch.equal(twin(TRAIN.x), small(TRAIN.x))
    qbp.fit(small, TRAIN, epochs=2, run_dir=tmp_path)
    assert qbp.load_checkpoint(twin, tmp_path) == 2 and torch.equal(twin(TRAIN.x), small(TRAIN.x))
    with pytest.raises(qbp.QbpError, match="fit"):
        qbp.load_checkpoint(model, tmp_path)


def test_backend_rule_and_shots_stay():
    model = qbp.hybrid(8, 2, shots=100, diff_method="spsa", seed=0)
    small = prune(model, amount=0.5, by="random")
    assert (small[2].executor.shots, small[2].diff_method) == (100, "spsa")
    assert torch.equal(small(TRAIN.x), prune(model, amount=0.5, by="random")(TRAIN.x))  # with its random numbers


def test_frozen_weights_stay_frozen():
    model = qbp.hybrid(8, 2, seed=0)
    model[2].weights.requires_grad_(False)
    model[0].weight.requires_grad_(False)
    small = prune(model, TRAIN, amount=0.5)
    assert not small[2].weights.requires_grad and not small[0].weight.requires_grad and small[3].weight.requires_grad


# ---- amounts and schedules -------------------------------------------------------------------------------------------


def test_amounts():
    model = qbp.hybrid(8, 2, seed=0)
    before = {kind: len(groups_of(model, kind)) for kind in ("neuron", "rotation", "entangler")}
    small = prune(model, amount={"entangler": 1.0}, by="random")
    assert not groups_of(small, "entangler") and len(groups_of(small, "neuron")) == before["neuron"]
    small = prune(model, amount=0.25, what="neurons", by="l1")
    assert len(groups_of(small, "neuron")) == 3 and len(groups_of(small, "entangler")) == before["entangler"]
    small = prune(model, amount=1.0, by="random")  # everything but one neuron
    assert len(groups_of(small, "neuron")) == 1 and not groups_of(small, "gates")
    assert [op.wires for op in small[2].circuit.program.ops] and small(TRAIN.x).shape == (40, 2)


def test_a_schedule_ends_at_the_amount():
    for name, share in SCHEDULES.items():
        assert share(0.7, 5, 5) == pytest.approx(0.7), name
        shares = [share(0.7, step, 5) for step in range(1, 6)]
        assert shares == sorted(shares)
    model = qbp.mlp(8, 40, 2, seed=0)
    seen = []
    prune(
        model,
        amount=0.5,
        by="l2",
        what="neurons",
        schedule="iterative",
        steps=3,
        finetune=lambda small: seen.append(small[0].out_features),
    )
    assert seen == [32, 25, 20]


def test_fine_tuning_trains_and_is_seeded():
    model = qbp.hybrid(8, 2, seed=0)
    settings = {"amount": 0.4, "schedule": "cubic", "steps": 2, "finetune": {"epochs": 2, "lr": 0.02}, "seed": 1}
    a, b = (prune(model, TRAIN, **settings) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a[3].bias, model[3].bias)


def test_rewinding_starts_again_from_the_first_weights():
    model = qbp.hybrid(8, 2, seed=0)
    first = copy.deepcopy(model)
    qbp.fit(model, TRAIN, epochs=2)
    ticket = prune(model, TRAIN, amount=0.5, schedule="iterative", steps=2, rewind=first)
    assert torch.equal(ticket[3].bias, first[3].bias)
    values = set(first[2].weights.flatten().tolist())
    assert set(ticket[2].weights.flatten().tolist()) < values and len(ticket[2].weights) < len(values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amount": 1.5}, "`amount`"),
        ({"amount": {"gates": 0.5}}, "`what`"),
        ({"by": "magnitude"}, "`by`"),
        ({"schedule": "linear"}, "`schedule`"),
        ({"steps": 3}, "`steps`"),
        ({"finetune": {"epochs": 1}, "by": "l1", "data": None}, "`data`"),
        ({"finetune": {"epoch": 1}}, "`finetune` must hold arguments of qbp.fit, but has epoch"),
        ({"rewind": qbp.hybrid(8, 2, n_layers=1)}, "`rewind`"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    data = arguments.pop("data", TRAIN)
    with pytest.raises(ArgumentError, match=message):
        prune(qbp.hybrid(8, 2, seed=0), data, **arguments)


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(ArgumentError, match="has none"):
        prune(nn.Linear(3, 2), by="random")

    @qml.qnode(qml.device("default.mixed", wires=1))
    def noisy(inputs, weights):
        qml.RX(inputs[0], wires=0)
        qml.RY(weights[0], wires=0)
        qml.BitFlip(0.1, wires=0)
        return qml.purity(0)

    with pytest.raises(CircuitError, match="runs itself"):
        prune(qbp.QuantumLayer(noisy, {"weights": (1,)}, n_inputs=1), by="random")


# ---- modules that stand in several places, and forwards that are no chain --------------------------------------------


class Inner(nn.Module):
    """The inner layer of a Sequential is read by a skip connection too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 2), nn.Tanh(), nn.Linear(2, 2))
        self.layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, seed=0)
        with torch.no_grad():
            self.net[2].weight[:, 0] = 0  # the next layer does not read neuron 0, the skip does

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.net[:2](x)
        return self.layer(self.net[2](inner)) + inner


class Written(nn.Module):
    """A chain that no `Sequential` tells, of functions of torch; two heads read the circuit."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 4), nn.Linear(4, 3)  # registered in another order than called
        self.heads = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
        self.layer = qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, seed=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = 0.5 + torch.sigmoid(self.first(x))
        angles = nn.functional.dropout(torch.pi * torch.tanh(self.second(hidden)), 0.2, self.training)
        outputs = self.layer(angles)
        return self.heads[0](outputs) + torch.tanh(self.heads[1](outputs))


def shared_models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    linear, block = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    layer, act = qbp.QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, seed=0), nn.Tanh()
    first, last = nn.Linear(8, 3), nn.Linear(3, 2)
    tied = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 2))
    tied[3].weight = tied[1].weight
    return {
        "activation": nn.Sequential(first, act, linear, act, layer, last),
        "linear": nn.Sequential(first, nn.Tanh(), linear, act, linear, layer, last),
        "layer": nn.Sequential(first, layer, act, layer, last),
        "block": nn.Sequential(first, block, block, layer, last),
        "tied": nn.Sequential(*tied[:4], layer, tied[4]),
        "inner": Inner(),
        "written": Written(),
    }


@pytest.mark.parametrize("name", shared_models())
@pytest.mark.parametrize("by", ["taylor", "fisher", "l1", "exact"])
def test_shared_modules_and_other_forwards(name, by):
    model = shared_models()[name].double()
    small = prune(model, TRAIN, amount=0.5, by=by)
    assert small(X).shape == model(X).shape
    assert sum(p.numel() for p in small.parameters()) <= sum(p.numel() for p in model.parameters())
    if by == "exact":
        assert (small.eval()(X) - model.eval()(X)).abs().max() < 1e-9
    else:
        assert qbp.nn.n_parameters(small) < qbp.nn.n_parameters(model)


def test_removed_is_masked_wherever_a_layer_is_used():
    for name, model in shared_models().items():
        model = model.double().eval()
        groups = groups_of(model)
        for group in groups[:: max(1, len(groups) // 4)]:
            small = copy.deepcopy(model)
            remove(small, [group])
            assert (small(X) - masked(model, [group])(X)).abs().max() < 1e-12, (name, group)


def test_neurons_of_a_forward_that_is_written_out():
    model = Written().double().eval()
    groups = groups_of(model, "neurons")
    assert {group.owner for group in groups} == {"first", "second"}
    small = prune(model, TRAIN, amount=0.5, what="neurons", by="l2")
    assert small.first.out_features + small.second.out_features == 7 - round(3.5)
    assert small.layer.n_inputs == small.second.out_features


def test_what_others_read_or_share_is_left_alone():
    owners = {name: {group.owner for group in groups_of(model)} for name, model in shared_models().items()}
    assert owners["inner"] == {"layer", "net.2"} and "1" not in owners["tied"] and "3" not in owners["tied"]
    assert "2" not in owners["linear"] and "0" not in owners["linear"] and "0" not in owners["layer"]
    a, b = (qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1) for _ in range(2))
    b.weights = a.weights
    both = nn.Sequential(a, b)
    with pytest.raises(ArgumentError, match=r"none in its layers \('0', '1'\): .* tied"):
        prune(both, by="random")
    small = prune(both, by="exact")
    assert small[0].weights is small[1].weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_in_every_dtype(dtype):
    model = qbp.hybrid(8, 2, seed=0).to(dtype)
    for group in groups_of(model, ("neuron", "rotation", "entangler", "encoding")):
        small = copy.deepcopy(model)
        remove(small, [group])
        outputs = masked(model, [group])(X.to(dtype))
        assert outputs.dtype is dtype and (outputs - small(X.to(dtype))).abs().max() < 1e-5


def test_rows_of_several_calls_are_scored_one_by_one():
    """A layer that gets other rows than the model: the sum of its two calls' derivatives."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=1, seed=0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.layer(torch.cat([x[:, :4], x[:, 4:]])).chunk(2)
            return left[:, :2] * right[:, 2:]

    model = Twice().double()
    groups = groups_of(model, "rotation")
    scores = score(model, groups, TRAIN, by="taylor")
    with torch.no_grad():
        model.layer.weights -= 2 * torch.pi * torch.round(model.layer.weights / (2 * torch.pi))
    nn.functional.cross_entropy(model(TRAIN.x.double()), TRAIN.y).backward()
    assert torch.allclose(scores, (model.layer.weights.grad * model.layer.weights).abs().flatten(), atol=1e-12)
    assert score(model, groups, TRAIN, by="fisher").shape == scores.shape


def test_a_wrong_removal_is_noticed(monkeypatch):
    def wrong(linear, chain, rows):
        with torch.no_grad():
            linear.weight[sorted(rows)] += 1

    from qbp.compression import pruning

    monkeypatch.setattr(pruning, "_remove_neurons", wrong)
    with pytest.raises(ArgumentError, match="cannot be pruned at '0': the smaller model gives outputs that differ"):
        prune(qbp.mlp(8, 6, 2, seed=0), by="random", what="neurons")


def test_a_model_on_a_device_is_not_run_there():
    class Never(Dense):
        name = "never"

        def __call__(self, program, angles, amplitudes=None):
            raise AssertionError("a circuit ran")

    model = qbp.hybrid(8, 2, backend=Never(), diff_method="parameter-shift", seed=0)
    for by in ("taylor", "l2", "exact"):
        small = prune(model, TRAIN, what=("neuron", "encoding"), by=by)
        assert small[2].backend == "never"


def test_a_model_whose_copies_compute_with_its_own_parts_is_refused():
    """Its `forward` holds the model: a smaller copy would still run what was to be pruned."""
    inner = qbp.hybrid(8, 2, n_qubits=2, n_layers=1, seed=0)

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

    class Method(Holder):
        def forward(self, x):
            return self.inner(x)

    closure = Holder()
    closure.forward = lambda x: inner(x)
    for options in ({"by": "exact"}, {"by": "taylor"}, {"by": "random", "what": "gates"}):
        with pytest.raises(ArgumentError, match="holds a Sequential of the model itself"):
            prune(closure, TRAIN, **options)
        assert prune(Method(), TRAIN, **options)(TRAIN.x).shape == (40, 2)

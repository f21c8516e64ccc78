"""Groups and their scores: planted cases, periodicity, and each score against its definition."""

from __future__ import annotations

import math

import pennylane as qml
import pytest
import torch
from torch import nn

import qbp
from qbp.compression.groups import Group, groups_of, neuron_chains
from qbp.compression.pruning import masked
from qbp.compression.scores import SCORES, score, sensitivities
from qbp.errors import ArgumentError

TRAIN, _ = qbp.data.load("mnist", classes=(3, 6), features=8, seed=0)
TRAIN = TRAIN.subset(range(40))


def planted_circuit(inputs, weights):
    """Wires 0 and 1 are measured. The rotation by weights[2] commutes into the measurement, and wires 2 and 3 with
    their entangler never reach it."""
    qml.AngleEmbedding(inputs, wires=range(4))
    for wire in range(4):
        qml.RY(weights[wire], wires=wire)
    qml.CNOT([0, 1])
    qml.IsingZZ(weights[5], wires=[2, 3])
    qml.RZ(weights[4], wires=0)
    return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]


def planted_model() -> nn.Sequential:
    torch.manual_seed(3)
    layer = qbp.QuantumLayer(planted_circuit, {"weights": (6,)}, n_inputs=4, seed=1)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), layer, nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4], model[2].weight[:, 4] = 0, 0, 0  # a dead neuron
    return model


def first(model: nn.Module, kind: str, by: str) -> list[Group]:
    """The groups of that kind that the score puts first: those that it cannot tell from 0."""
    groups = groups_of(model, kind)
    scores = score(model, groups, TRAIN, by=by)
    return [group for group, value in zip(groups, scores.tolist(), strict=True) if value < 1e-14]


@pytest.mark.parametrize("by", ["l1", "l2", "identity", "taylor", "fisher"])
def test_a_dead_neuron_comes_first(by):
    model = planted_model()
    dead = [group for group in first(model, "neuron", by) if group.owner == "0"]
    assert dead == [Group("neuron", "0", (4,))]


@pytest.mark.parametrize("by", ["taylor", "fisher"])
def test_a_rotation_that_no_measurement_sees_comes_first(by):
    model = planted_model()
    ops = model[4].circuit.program.ops
    words = {(ops[g.index[0]].pauli, *ops[g.index[0]].wires) for g in first(model, "rotation", by)}
    assert words == {("Z", 0), ("Y", 2), ("Y", 3)}


@pytest.mark.parametrize("by", ["l1", "l2", "identity"])
def test_a_rotation_by_whole_turns_comes_first(by):
    model = planted_model()
    with torch.no_grad():
        model[4].weights[1] = 4 * math.pi
    ops = model[4].circuit.program.ops
    groups = groups_of(model, "rotation")
    best = groups[int(score(model, groups, by=by).argmin())]
    assert (ops[best.index[0]].pauli, ops[best.index[0]].wires) == ("Y", (1,))


@pytest.mark.parametrize("by", ["taylor", "fisher"])
def test_an_entangler_outside_the_light_cone_comes_first(by):
    model = planted_model()
    (group,) = first(model, "entangler", by)
    assert model[4].circuit.program.ops[group.index[0]].wires == (2, 3)


@pytest.mark.parametrize("by", ["taylor", "fisher"])
def test_a_neuron_that_feeds_an_unseen_angle_comes_first(by):
    model = planted_model()
    dead = {group.index for group in first(model, "neuron", by) if group.owner == "2"}
    assert dead == {(2,), (3,)}


# ---- the distance to the identity ------------------------------------------------------------------------------------


def of_one_gate(gate, *params, n_wires=1) -> nn.Module:
    def circuit(inputs, weights):
        qml.RY(inputs[0], wires=0)
        gate(*weights, wires=list(range(n_wires)))
        return qml.expval(qml.X(0))

    layer = qbp.QuantumLayer(circuit, {"weights": (len(params),)}, n_inputs=1)
    with torch.no_grad():
        layer.weights.copy_(torch.tensor(params))
    return layer.double()


@pytest.mark.parametrize(
    ("gate", "params", "n_wires", "distance"),
    [
        (qml.RX, (2 * math.pi,), 1, 0.0),  # -1, a global phase
        (qml.RX, (math.pi,), 1, 1.0),
        (qml.CRX, (2 * math.pi,), 2, 1.0),  # controlled, the phase is Z on the control
        (qml.CRX, (4 * math.pi,), 2, 0.0),
        (qml.CRZ, (2 * math.pi,), 2, 1.0),
        (qml.CRot, (1.1, 0.0, -1.1), 2, 0.0),
        (qml.CRot, (1.1, 4 * math.pi, -1.1), 2, 0.0),
        (qml.ControlledPhaseShift, (2 * math.pi,), 2, 0.0),
        (qml.ControlledPhaseShift, (math.pi,), 2, 0.5),
        (qml.IsingZZ, (2 * math.pi,), 2, 0.0),
        (qml.U3, (0.0, 1.3, -1.3), 1, 0.0),
        (qml.U3, (0.0, 1.3, 2 * math.pi - 1.3), 1, 0.0),
        (qml.U3, (0.5, 1.3, -1.3), 1, 1 - math.cos(0.25)),
    ],
)
def test_distance_to_the_identity(gate, params, n_wires, distance):
    layer = of_one_gate(gate, *params, n_wires=n_wires)
    (group,) = groups_of(layer, ["run"] if n_wires == 1 else ["entangler"])
    assert float(score(layer, [group], by="identity")) == pytest.approx(distance, abs=1e-7)


def test_the_distance_is_that_of_the_gates_matrix():
    """Against PennyLane's matrices, at random angles."""
    for gate, n_params, n_wires in [(qml.CRX, 1, 2), (qml.CRot, 3, 2), (qml.U3, 3, 1), (qml.IsingXY, 1, 2)]:
        params = (torch.rand(n_params) * 12).tolist()
        layer = of_one_gate(gate, *params, n_wires=n_wires)
        (group,) = groups_of(layer, ["run"] if n_wires == 1 else ["entangler"])
        matrix = qml.matrix(gate(*params, wires=list(range(n_wires))))
        expected = 1 - abs(matrix.trace()) / 2**n_wires
        assert float(score(layer, [group], by="identity")) == pytest.approx(expected, abs=1e-6)


# ---- each score against its definition -------------------------------------------------------------------------------


def test_taylor_of_a_neuron_is_gradient_times_weight():
    model = planted_model()
    groups = groups_of(model, "neuron")
    scores = score(model, groups, TRAIN, by="taylor")
    nn.functional.cross_entropy(model(TRAIN.x.double()), TRAIN.y).backward()
    for group, value in zip(groups, scores.tolist(), strict=True):
        linear, row = model.get_submodule(group.owner), group.index[0]
        product = (linear.weight.grad * linear.weight)[row].sum() + (linear.bias.grad * linear.bias)[row]
        assert value == pytest.approx(abs(product.item()), abs=1e-12)


def test_taylor_of_a_rotation_is_gradient_times_angle():
    model = planted_model()
    with torch.no_grad():
        model[4].weights -= 2 * math.pi * torch.round(model[4].weights / (2 * math.pi))
    groups = groups_of(model, "rotation")
    scores = score(model, groups, TRAIN, by="taylor")
    nn.functional.cross_entropy(model(TRAIN.x.double()), TRAIN.y).backward()
    product = (model[4].weights.grad * model[4].weights).abs()[:5]
    assert torch.allclose(scores, product, atol=1e-12)


def test_fisher_is_the_mean_square_over_samples():
    model = planted_model()
    groups = groups_of(model)
    each = [sensitivities(model, groups, TRAIN.subset([row]))[0] for row in range(len(TRAIN))]
    alone = [sensitivities_of_one(model, TRAIN, row, groups) for row in range(3)]
    assert torch.allclose(torch.stack(each[:3]), torch.stack(alone), atol=1e-8)
    assert torch.allclose(score(model, groups, TRAIN, by="fisher"), torch.stack(each).square().mean(0), atol=1e-14)


def sensitivities_of_one(model, data, row, groups):
    """The loss with the group at 1 and close to it, by central differences."""
    from qbp.compression.scores import with_gates

    x, y, step = data.x[row : row + 1].double(), data.y[row : row + 1], 1e-5
    slopes = []
    for g in range(len(groups)):
        values = []
        for sign in (1, -1):
            gates = torch.ones(1, len(groups), dtype=torch.float64)
            gates[0, g] += sign * step
            values.append(nn.functional.cross_entropy(with_gates(model, groups, gates)(x), y))
        slopes.append((values[0] - values[1]) / (2 * step))
    return torch.stack(slopes).detach()


def test_scores_leave_the_model_alone():
    model = planted_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for by in SCORES:
        score(model, groups_of(model), TRAIN, by=by)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters()) and model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_random_scores_follow_the_seed():
    model = planted_model()
    groups = groups_of(model)
    a, b, c = (score(model, groups, by="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_kinds():
    model = qbp.hybrid(8, 2, n_qubits=3, n_layers=1, seed=0)
    count = {kind: len(groups_of(model, kind)) for kind in ("neuron", "rotation", "encoding", "run", "entangler")}
    assert count == {"neuron": 3, "rotation": 9, "encoding": 3, "run": 3, "entangler": 3}
    assert len(groups_of(model, "both")) == 15 and len(groups_of(model, "gates")) == 12


def test_what_acts_on_the_same_wires_is_one_entangler():
    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(3))
        qml.IsingXX(weights[0], wires=[0, 1])
        qml.CNOT([1, 2])
        qml.CNOT([0, 1])
        qml.CRot(*weights[1:4], wires=[0, 1])
        qml.RX(weights[4], wires=2)
        qml.IsingZZ(weights[5], wires=[1, 0])
        return qml.expval(qml.Z(0))

    layer = qbp.QuantumLayer(circuit, {"weights": (6,)}, n_inputs=3)
    wires = [{layer.circuit.program.ops[p].wires for p in group.index} for group in groups_of(layer, "entangler")]
    assert len(wires) == 3 and len(groups_of(layer, "entangler")[2].index) == 8


def test_neurons_lead_through_nested_sequentials_only():
    inner = nn.Sequential(nn.Tanh(), nn.Dropout(0.1), nn.Linear(5, 3))
    model = nn.Sequential(nn.Linear(4, 5), inner, nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert {name: chain.name for name, chain in neuron_chains(model).items()} == {"0": "1.2"}
    assert not groups_of(nn.Linear(2, 2), "neurons")


@pytest.mark.parametrize("what", ["gate", ("run", "rotation"), ["neuron", "neurons"]])
def test_unknown_or_overlapping_kinds_are_refused(what):
    with pytest.raises(ArgumentError, match="`what`"):
        groups_of(planted_model(), what)


def test_scores_that_need_data_say_so():
    model = planted_model()
    with pytest.raises(ArgumentError, match="`data`"):
        score(model, groups_of(model), by="taylor")
    with pytest.raises(ArgumentError, match="`data`"):
        score(model, groups_of(model, "encoding"), by="l1")
    with pytest.raises(ArgumentError, match="`by`"):
        score(model, groups_of(model), by="magnitude")


def test_a_masked_neuron_has_masks_of_torch():
    model = masked(planted_model(), [Group("neuron", "0", (1,))])
    assert float(model[0].weight_mask[1].sum()) == 0 and float(model[0].weight_mask.sum()) == 5 * 8

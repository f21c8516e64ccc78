"""Outputs that are made of what a circuit measures: variances, and observables whose coefficients train. The values are
PennyLane's on default.qubit, by backpropagation, or those of matrices."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pennylane as qml
import pytest
import torch
from pennylane.ops.op_math import CompositeOp
from torch import nn

import qbp
from qbp import QuantumLayer
from qbp.analysis.fisher import jacobian
from qbp.circuit import stored
from qbp.compression.groups import groups_of
from qbp.errors import ArgumentError, CircuitError, ConfigError
from qbp.nn.resources import count
from qbp.nn.stacking import Stack

PAULIS = (qml.X, qml.Y, qml.Z)
SHAPES = {"w": (2, 3), "c": 4}


def word(rng, wires):
    on = rng.permutation(wires)[: rng.integers(1, wires + 1)]
    return qml.prod(*(PAULIS[rng.integers(3)](int(w)) for w in on))


def random_function(seed, wires=3):
    """A function of random gates, which returns a random choice of what is measured: seen as its own source for both
    packages, it has to be the same at each call."""

    def function(inputs, w, c):
        rng = np.random.default_rng(seed)
        for row in w:
            for k in range(wires):
                (qml.RX, qml.RY)[rng.integers(2)](inputs[k] * rng.choice([1.0, 0.5, 2.0]), wires=k)
                (qml.RX, qml.RY, qml.RZ)[rng.integers(3)](row[k] + c[0] * rng.integers(2), wires=k)
            qml.CNOT([int(k) for k in rng.permutation(wires)[:2]])
            qml.IsingXY(row[0], wires=[0, 2])
        numbers = [c[1], c[2] * 2 - 1, torch.sin(c[3]) * inputs[0], inputs[1], 0.7, c[1] * c[2]]
        chosen = []
        for kind in rng.permutation(7)[: rng.integers(2, 5)]:
            order, on = rng.permutation(6)[: rng.integers(1, 5)], sorted(int(k) for k in rng.permutation(wires)[:2])
            some = [numbers[k] for k in order]
            matrix = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
            matrix = torch.tensor(matrix + matrix.conj().T)
            if kind == 0:
                chosen.append((qml.expval, qml.sum(*(number * word(rng, wires) for number in some))))
            elif kind == 1:
                chosen.append((qml.expval, qml.dot(some, [word(rng, wires) for _ in some])))
            elif kind == 2:
                chosen.append((qml.var, word(rng, wires)))
            elif kind == 3:
                chosen += [(measure, qml.Hermitian(matrix, wires=on)) for measure in (qml.var, qml.expval)]
            elif kind == 4:
                chosen.append((qml.var, qml.Projector([0, 1], wires=on)))
            elif kind == 5:
                chosen += [
                    (lambda on: qml.probs(wires=on), on),
                    (qml.var, 0.5 * word(rng, wires) + 1.5 * word(rng, wires)),
                ]
            else:
                chosen += [(qml.expval, word(rng, wires)) for _ in range(2)]
        measured = [measure(what) for measure, what in chosen]
        return tuple(measured)

    return function


def flat(result):
    parts = result if isinstance(result, list | tuple) else [result]
    return torch.hstack([part.reshape(-1) for part in parts])


def rows_of(function, x, weights, wires=3):
    # PennyLane keeps eigenvectors of sums by a hash that Z(0) @ X(1) and X(1) @ Z(0) share, though their wires differ.
    CompositeOp._eigs.clear()
    qnode = qml.QNode(function, qml.device("default.qubit", wires=wires), diff_method="backprop")
    return torch.stack([flat(qnode(row, **weights)) for row in x]).double()


def layer_of(function, seed=0, **options):
    shapes = options.pop("shapes", SHAPES)
    qnode = qml.QNode(function, qml.device("default.qubit", wires=3))
    layer = QuantumLayer(qnode, shapes, n_inputs=3, seed=seed, **options).double()
    return layer, {name: weight.detach().clone().requires_grad_() for name, weight in layer.qnode_weights.items()}


def assert_same_gradients(layer, x, want, weights, inputs, atol=1e-8):
    got = layer(x)
    torch.testing.assert_close(got, want, atol=atol, rtol=0)
    factors = torch.linspace(0.5, 1.5, want.numel(), dtype=torch.float64).reshape(want.shape)
    expected = torch.autograd.grad((want.square() * factors).sum(), [*weights.values(), inputs], allow_unused=True)
    own = [*layer.parameters(), x]
    gradients = torch.autograd.grad((got.square() * factors).sum(), own, allow_unused=True)
    for leaf, a, b in zip(own, gradients, expected, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        torch.testing.assert_close(a, b, atol=100 * atol, rtol=1e-6)


@pytest.mark.parametrize("seed", [s if s < 25 else pytest.param(s, marks=pytest.mark.slow) for s in range(300)])
def test_random_programs(seed):
    function = random_function(seed)
    layer, weights = layer_of(function, seed)
    assert layer.backend == "native" and layer.diff_method == "adjoint"
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    inputs = x.detach().clone().requires_grad_()
    want = rows_of(function, inputs, weights)
    assert layer.n_outputs == want.shape[1]
    assert_same_gradients(layer, x, want, weights, inputs)


WORDS = [qml.Z(0), qml.X(1) @ qml.Z(2), qml.I(1), qml.Y(2)]


def both(inputs, w, c):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(w, wires=range(3))
    return (
        qml.expval(qml.Hamiltonian([c[0], c[1], inputs[0] * c[2], 0.5], WORDS)),
        qml.var(qml.Z(0) @ qml.Z(1)),
        qml.var(2.0 * qml.Z(0) + qml.X(1) + qml.Y(0)),
        qml.probs(wires=[2]),
    )


X = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)


@pytest.mark.parametrize("backend", ["native", "dense", "lightning.qubit", "pauli"])
@pytest.mark.parametrize("rule", ["best", "parameter-shift", "finite-diff"])
def test_every_backend_and_rule(backend, rule):
    layer, weights = layer_of(both)
    layer.set_backend(backend, diff_method=rule)
    inputs, x = X.clone().requires_grad_(), X.clone().requires_grad_()
    atol = 1e-6 if rule == "finite-diff" else 1e-8
    assert_same_gradients(layer, x, rows_of(both, inputs, weights), weights, inputs, atol)


def test_second_derivatives():
    layer, weights = layer_of(both)

    def own(x, *values):
        return torch.func.functional_call(layer, dict(zip(weights, values, strict=True)), (x[None],)).square().sum()

    def theirs(x, *values):
        return rows_of(both, x[None], dict(zip(weights, values, strict=True))).square().sum()

    arguments = (X[0], *(weight.detach() for weight in weights.values()))
    own, theirs = (torch.autograd.functional.hessian(function, arguments) for function in (own, theirs))
    for mine, other in zip(own, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b.to(a), atol=1e-7, rtol=0)


def test_transforms_of_torch():
    for rule in ("adjoint", "backprop"):
        layer, weights = layer_of(both, diff_method=rule)
        want = torch.autograd.functional.jacobian(lambda x, w=weights: rows_of(both, x[None], w)[0], X[0])
        for derive in (torch.func.jacrev, torch.func.jacfwd):
            torch.testing.assert_close(derive(layer)(X[0]), want, atol=1e-8, rtol=0)
        each = torch.vmap(torch.func.jacrev(layer))(X)
        torch.testing.assert_close(each[0], want, atol=1e-8, rtol=0)


def test_shapes_and_dtypes():
    layer, weights = layer_of(both)
    want = rows_of(both, X, weights)
    assert layer(X[0]).shape == (5,) and layer(X[None, None]).shape == (1, 1, 3, 5)
    assert layer(X[:0]).shape == (0, 5) and layer(X[:0].requires_grad_()).sum().backward() is None
    for kind, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        got = layer(X.to(kind))
        assert got.dtype is kind
        torch.testing.assert_close(got.double(), want, atol=atol, rtol=0.01)
    fresh = layer_of(both)[0].float()
    with torch.inference_mode():
        fresh(X.float())
    fresh(X.float()).sum().backward()  # what the first call keeps is no tensor of inference mode
    assert fresh.c.grad.abs().sum() > 0


def test_a_bare_variance_and_what_is_bare():
    def function(inputs, w, c):
        qml.AngleEmbedding(inputs, wires=range(3))
        qml.BasicEntanglerLayers(w, wires=range(3))
        return qml.var(qml.Z(1)) if kind == "variance" else qml.expval(c[0] * qml.Z(1))

    for kind in ("variance", "trained"):  # noqa: B007  the function reads it
        layer, weights = layer_of(function)
        assert layer(X).shape == (3,) and layer(X[0]).shape == ()
        torch.testing.assert_close(layer(X), rows_of(function, X, weights)[:, 0], atol=1e-9, rtol=0)


def test_the_drop_in_of_torchlayer():
    qnode = qml.QNode(both, qml.device("default.qubit", wires=3))
    theirs, own = qml.qnn.TorchLayer(qnode, SHAPES), qbp.TorchLayer(qnode, SHAPES)
    own.load_state_dict(theirs.state_dict())
    got = own(X.float())
    assert own.backend == "native" and got.dtype == torch.float32 and isinstance(own, qml.qnn.TorchLayer)
    want = torch.stack([flat(qnode(row, **theirs.qnode_weights)) for row in X.float()])
    torch.testing.assert_close(got, want.float(), atol=1e-6, rtol=0)


def test_a_function_for_a_batch():
    def function(inputs, w, c):
        for k in range(3):
            qml.RX(inputs[:, k], wires=k)
        qml.BasicEntanglerLayers(w, wires=range(3))
        return qml.expval(c[0] * qml.Z(0) + c[1] * qml.X(1)), qml.var(qml.Z(2))

    qnode = qml.QNode(function, qml.device("default.qubit", wires=3))
    layer = QuantumLayer(qnode, SHAPES, n_inputs=3, seed=0).double()
    want = torch.stack(qnode(X, **dict(layer.qnode_weights)), 1)
    assert layer.backend == "native"
    torch.testing.assert_close(layer(X), want, atol=1e-9, rtol=0)


def test_noise():
    """Of the circuit, of the device that reads it, and of the layer."""

    def function(inputs, w, c):
        qml.AngleEmbedding(inputs, wires=range(3))
        for row in w:
            qml.BasicEntanglerLayers(row[None], wires=range(3))
            qml.AmplitudeDamping(0.2, wires=0)
            qml.DepolarizingChannel(0.1, wires=2)
        return qml.expval(c[0] * qml.Z(0) + c[1] * qml.X(1)), qml.var(qml.Z(0) @ qml.Y(2))

    qnode = qml.QNode(function, qml.device("default.mixed", wires=3))
    layer = QuantumLayer(qnode, SHAPES, n_inputs=3, seed=0).double()
    assert layer.backend == "pauli"
    want = torch.stack([flat(qnode(row, **layer.qnode_weights)) for row in X]).double()
    torch.testing.assert_close(layer(X), want, atol=1e-8, rtol=0)
    misread = qml.device("default.mixed", wires=3, readout_prob=0.1)
    layer = QuantumLayer(qml.QNode(trained, misread), SHAPES, n_inputs=3, seed=0).double()
    assert layer.backend == "pauli"
    numbers = torch.tensor(layer.c.tolist(), dtype=torch.float64)
    reference = QuantumLayer(
        qml.QNode(lambda inputs, w: trained(inputs, w, numbers), misread), {"w": (2, 3)}, n_inputs=3
    )
    reference.load_state_dict({"w": layer.w.detach()})
    torch.testing.assert_close(layer(X), reference.double()(X), atol=1e-7, rtol=0)
    assert QuantumLayer(qml.QNode(function, misread), SHAPES, n_inputs=3).backend.startswith("qnode")
    noise = qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.1}})
    layer, weights = layer_of(both, noise=noise)
    values = layer.traced.combination.n_outputs, layer(X)
    assert values[0] == 5 and (values[1] - rows_of(both, X, weights)).abs().max() > 0.01
    density = qml.QNode(both, qml.device("default.mixed", wires=3))
    noisy = qml.add_noise(density, qml.NoiseModel({qml.noise.op_eq(qml.CNOT): depolarized}))
    want = torch.stack([flat(noisy(row, **weights)) for row in X]).double()
    torch.testing.assert_close(values[1], want, atol=1e-8, rtol=0)


def depolarized(op, **kwargs):
    for wire in op.wires:
        qml.DepolarizingChannel(0.1, wires=wire)


def trained(inputs, w, c):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(w, wires=range(3))
    return qml.expval(c[0] * qml.Z(0) + c[1] * qml.X(1) @ qml.X(2) + c[2] * qml.I(0))


def test_shots_of_a_sum_are_unbiased_and_its_errors_told():
    layer, weights = layer_of(trained, backend="native", shots=200)
    rows = X[:1].expand(2000, 3).clone()
    rows[:, 0] += torch.linspace(0, 1e-9, 2000)  # equal rows may be executed once
    with torch.no_grad():
        got = layer(rows)
    want, spread = rows_of(trained, X[:1], weights)[0, 0], float(got.std())
    assert abs(float(got.mean() - want)) < 4 * spread / 2000**0.5 and spread > 0.05
    if layer.last_stds is not None:
        assert float(layer.last_stds.min()) > 0.5 * spread


def test_a_variance_never_comes_of_samples_unsaid():
    layer, _ = layer_of(both)
    for backend in ("native", "aer", "trajectories:8"):
        shots = None if "trajectories" in backend else 100
        with pytest.raises(CircuitError, match="variance needs exact"):
            layer.set_backend(backend, shots=shots)
    with pytest.raises(CircuitError, match="variance needs exact"):
        QuantumLayer(both, SHAPES, n_inputs=3, shots=100)
    with pytest.raises(CircuitError, match="variance needs exact"):
        qbp.on_backend(layer, "fake:manila", shots=100)
    assert layer.backend == "native"
    sampled = qml.set_shots(qml.QNode(both, qml.device("default.qubit", wires=3)), 50)
    assert QuantumLayer(sampled, SHAPES, n_inputs=3).backend == "qnode on default.qubit"
    trained_alone, _ = layer_of(trained)
    trained_alone.set_backend("native", shots=100)
    assert trained_alone.executor.capabilities.shots == 100


def test_observables_that_replace_what_is_measured():
    circuit = qbp.trace(both, SHAPES, n_inputs=3, observables=["ZII", "IIX"])
    assert circuit.combination is None and circuit.n_outputs == 2
    layer = QuantumLayer(both, SHAPES, n_inputs=3, observables=["ZII"]).double()
    assert layer.circuit.n_outputs == 1 and layer(X).shape == (3, 1)


def test_files_copies_and_pickles(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), layer_of(both)[0], nn.Linear(5, 2)).double()
    want = model(X)
    qbp.save_model(model, tmp_path / "model.qbp")
    for other in (qbp.load_model(tmp_path / "model.qbp"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(X), want, atol=0, rtol=0)
        assert other[1].describe() == model[1].describe()
        other(X).sum().backward()
        model.zero_grad()
        model(X).sum().backward()
        torch.testing.assert_close(other[1].c.grad, model[1].c.grad)
        with torch.no_grad():
            other[1].c.add_(1)
        assert not torch.equal(other(X), model(X))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("entries", []),
        ("entries", [[1, False, 0, 1.0, None]]),
        ("entries", [[0, False, 99, 1.0, None]]),
        ("entries", [[0, False, 0, None, 99]]),
        ("entries", [[0, False, 0, None, None]]),
        ("entries", [[0, "yes", 0, 1.0, None]]),
        ("entries", [[0, False, 0, float("nan"), None]]),
        ("inputs", None),
    ],
)
def test_files_that_are_damaged(key, value):
    data = stored.to_data(layer_of(both)[0].traced)
    data["combination"][key] = value
    with pytest.raises(ConfigError):
        stored.from_data(data)


def test_other_words_are_refused_by_name():
    layer, _ = layer_of(both)
    for translated in (layer.to_pennylane, layer.to_qiskit, layer.to_qasm, lambda: layer.circuit):
        with pytest.raises(CircuitError, match="made of what its circuit measures"):
            translated()
    with pytest.raises(CircuitError, match="made of what its circuit measures"):
        jacobian(layer, X)


def test_pruning_leaves_it_alone():
    layer, _ = layer_of(both)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3), layer, nn.Linear(5, 2)).double()
    assert {group.owner for group in groups_of(model)} == {"0"}
    for options in ({"by": "exact"}, {"by": "l1", "amount": 0.5}):
        small = qbp.prune(model, **options)
        assert set(small[3].state_dict()) == {"w", "c"}
        small[3].load_state_dict(layer.state_dict())
        torch.testing.assert_close(small[3](X), layer(X), atol=0, rtol=0)


def test_costs_and_pictures():
    model = nn.Sequential(nn.Linear(3, 3), layer_of(both)[0].float(), nn.Linear(5, 2))
    cost = count(model, batch_size=4)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.circuits == 4 * (1 + 2 * 6)  # of inputs and first weights, which turn about the same words, one shift
    assert "RX" in qbp.draw(model[1])
    assert "5 outputs" in repr(model[1]) and "5 outputs" in repr(model[1].traced)


def test_a_plan_is_what_is_counted():
    layer, _ = layer_of(trained)
    data = qbp.data.Dataset(X.float(), torch.tensor([0, 1, 0]), ("a", "b"))
    model = nn.Sequential(layer, nn.Unflatten(0, (-1, 1)), nn.Linear(1, 2)).float()
    bill = qbp.plan(model, data, backend="aer", shots=100)
    moved = qbp.on_backend(model, "aer", shots=100)
    moved(data.x)
    assert bill.shots == bill.circuits * 100 and bill.circuits > 0


def test_several_layers_at_once():
    layers = [layer_of(both, seed)[0] for seed in range(3)]
    rows = torch.stack([X + 0.1 * k for k in range(3)])
    want = torch.stack([layer(x) for layer, x in zip(layers, rows, strict=True)])
    copies = copy.deepcopy(layers)
    stack = Stack(copies, [[list(each.parameters())] for each in copies], [torch.Generator() for _ in copies])
    torch.testing.assert_close(stack(rows), want, atol=1e-12, rtol=0)
    stack.backward(stack(rows).square().sum())
    want.square().sum().backward()
    each = [torch.cat([p.grad.reshape(-1) for p in layer.parameters()]) for layer in layers]
    torch.testing.assert_close(stack.gradients[0], torch.stack(each), atol=1e-10, rtol=0)


def test_another_circuit_when_what_it_reads_changes():
    scale = [1.0]

    def function(inputs, w, c):
        qml.AngleEmbedding(inputs, wires=range(3))
        return qml.expval(scale[0] * c[0] * qml.Z(0)), qml.var(scale[0] * qml.Z(1))

    layer, _ = layer_of(function)
    before = layer(X)
    scale[0] = 2.0
    torch.testing.assert_close(layer(X), before * torch.tensor([2.0, 4.0]), atol=1e-12, rtol=0)


def test_what_cannot_be_combined_runs_itself():
    outside = torch.tensor(0.5, requires_grad=True)

    def matrix(inputs, w, c):
        qml.AngleEmbedding(inputs, wires=range(3))
        return qml.var(qml.Hermitian(torch.stack([torch.stack([c[0], c[1]]), torch.stack([c[1], c[2]])]), 0))

    def trained_outside(inputs, w, c):
        qml.AngleEmbedding(inputs, wires=range(3))
        return qml.expval(outside * qml.Z(0))

    for function in (matrix, trained_outside):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer, weights = layer_of(function)
        assert layer.backend.startswith("qnode")
        torch.testing.assert_close(layer(X), rows_of(function, X, weights)[:, 0], atol=1e-8, rtol=0)


def test_lists_within_a_list_are_refused():
    def function(inputs, w, c):
        qml.AngleEmbedding(inputs, wires=range(3))
        return [[qml.expval(qml.Z(k)), qml.expval(qml.X(k))] for k in range(2)]

    with pytest.raises(ArgumentError, match="one flat list"):
        QuantumLayer(qml.QNode(function, qml.device("default.qubit", wires=3)), SHAPES, n_inputs=3)


def test_numbers_in_a_list_are_copied_as_torch_copies_them():
    """`torch.tensor` of weights has their values and none of their gradients."""

    def function(inputs, w, c):
        angles = torch.tensor([c[0], 2 * inputs[0], 1.0])
        for k in range(3):
            qml.RX(angles[k] * c[1], wires=k)
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer, weights = layer_of(function)
        x, inputs = X.clone().requires_grad_(), X.clone().requires_grad_()
        assert layer.backend == "native"
        assert_same_gradients(layer, x, rows_of(function, inputs, weights), weights, inputs)

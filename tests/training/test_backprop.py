"""Every equation of `qbp.training.backprop` against torch's autograd, torch.optim and torch.optim.lr_scheduler."""

from __future__ import annotations

import copy
import doctest
import functools
import math

import numpy as np
import pytest
import torch

from qbp.errors import QbpError
from qbp.training import backprop
from qbp.training.backprop import (
    ACTIVATIONS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    Dense,
    Network,
    Quantum,
    learning_rate_sweep,
    random_dense,
    train,
    two_qubit_circuit,
)

XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([[0.0], [1.0], [1.0], [0.0]])

TORCH_ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softmax": lambda z: torch.softmax(z, dim=1),
    "tanh": torch.tanh,
}
TORCH_LOSSES = {  # functions of the last layer's a, by torch's own sigmoid and softmax
    "squared_error": torch.nn.functional.mse_loss,
    "binary_cross_entropy": torch.nn.functional.binary_cross_entropy,
    "cross_entropy": lambda a, y: -(y * a.log()).sum(dim=1).mean(),
}
LAST_AND_LOSS = [(name, "squared_error") for name in ACTIVATIONS] + [
    (last, loss) for loss, (last, _) in LOSSES.items() if last
]


def torch_circuit(angles):
    """`two_qubit_circuit` once more, by the state vector and 4 x 4 matrices, differentiable."""
    cnot = torch.eye(4, dtype=torch.float64)[[0, 1, 3, 2]]
    c, s = torch.cos(angles / 2), torch.sin(angles / 2)
    ry = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)  # (S, 4, 2, 2)
    both = torch.einsum("sij,skl->sikjl", ry[:, 0], ry[:, 1]).reshape(-1, 4, 4)
    after = torch.einsum("sij,skl->sikjl", ry[:, 2], ry[:, 3]).reshape(-1, 4, 4)
    p = (after @ cnot @ both)[:, :, 0] ** 2
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    return p @ z


def make(rng, hidden, last, loss, depth, *, quantum=False):
    """A random network 3 - 4 - .. - 2, or 3 - 2 - quantum - 2."""
    if quantum:
        circuit = Quantum(two_qubit_circuit, rng.uniform(-3, 3, 2), n_inputs=2)
        layers = [random_dense(3, 2, hidden, rng), circuit, random_dense(2, 2, last, rng)]
    else:
        sizes = [3, *[4] * (depth - 1), 2]
        names = [hidden] * (depth - 1) + [last]
        layers = [random_dense(i, o, f, rng) for i, o, f in zip(sizes[:-1], sizes[1:], names, strict=True)]
    for layer in layers:
        if isinstance(layer, Dense):
            layer.b[...] = rng.normal(size=len(layer.b))
    return Network(layers, loss), rng.normal(size=(5, 3)), rng.uniform(size=(5, 2))


def by_torch(network, x, y):
    """J, z, a, delta and gradients of the network by torch's autograd, in NumPy."""
    x, y = torch.tensor(x, requires_grad=True), torch.tensor(y)
    parameters = {name: torch.tensor(value, requires_grad=True) for name, value in network.parameters().items()}
    z, a = {}, {0: x}
    for i, layer in enumerate(network.layers, 1):
        if isinstance(layer, Quantum):
            weights = parameters[f"weights{i}"].expand(len(x), -1)
            z[i] = torch_circuit(torch.cat([a[i - 1], weights], dim=1))
        else:
            z[i] = torch.nn.functional.linear(a[i - 1], parameters[f"W{i}"], parameters[f"b{i}"])
        z[i].retain_grad()
        a[i] = TORCH_ACTIVATIONS[layer.activation](z[i])
    loss = TORCH_LOSSES[network.loss](a[len(z)], y)
    loss.backward()
    values = {"loss": loss.detach(), "x": x.grad} | {name: value.grad for name, value in parameters.items()}
    values |= {f"z[{i}]": value.detach() for i, value in z.items()}
    values |= {f"a[{i}]": value.detach() for i, value in a.items()}
    values |= {f"delta[{i}]": value.grad for i, value in z.items()}
    return {name: value.numpy() for name, value in values.items()}


def by_hand(network, x, y):
    z, a = network.forward(x)
    loss, delta, gradients = network.backward(z, a, y)
    values = {"loss": loss} | gradients | {f"z[{i}]": value for i, value in z.items()}
    return values | {f"a[{i}]": v for i, v in a.items()} | {f"delta[{i}]": v for i, v in delta.items()}


def largest_difference(network, x, y):
    ours, theirs = by_hand(network, x, y), by_torch(network, x, y)
    assert ours.keys() == theirs.keys()
    assert all(np.shape(ours[name]) == theirs[name].shape for name in ours)
    return max(np.abs(ours[name] - theirs[name]).max() for name in ours)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("last", "loss"), LAST_AND_LOSS)
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_dense_networks_equal_torch(hidden, last, loss, depth):
    assert largest_difference(*make(np.random.default_rng(depth), hidden, last, loss, depth)) < 1e-12


@pytest.mark.parametrize(("last", "loss"), LAST_AND_LOSS)
def test_hybrid_networks_equal_torch(last, loss):
    assert largest_difference(*make(np.random.default_rng(1), "tanh", last, loss, 0, quantum=True)) < 1e-12


@pytest.mark.parametrize(("last", "loss"), LAST_AND_LOSS)
@pytest.mark.parametrize("quantum", [False, True])
def test_gradients_equal_finite_differences(last, loss, quantum):
    network, x, y = make(np.random.default_rng(2), "tanh", last, loss, 2, quantum=quantum)
    _, _, gradients = network.backward(*network.forward(x), y)
    arrays = network.parameters() | {"x": x}
    assert gradients.keys() == arrays.keys()
    for name, array in arrays.items():
        for index in np.ndindex(array.shape):
            values, old = [], array[index]
            for step in (1e-5, -1e-5):
                array[index] = old + step
                values.append(network.loss_and_delta(*network.forward(x), y)[0])
            array[index] = old
            assert gradients[name][index] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8), name


PLANTED = {
    "tanh' without its square": (ACTIVATIONS, "tanh", (np.tanh, lambda a, grad: grad * (1 - a))),
    "softmax' by its diagonal alone": (
        ACTIVATIONS,
        "softmax",
        (ACTIVATIONS["softmax"][0], lambda a, grad: grad * a * (1 - a)),
    ),
    "a sum for the mean": (
        LOSSES,
        "squared_error",
        (None, lambda a, y: (np.mean((a - y) ** 2), 2 * (a - y))),
    ),
    "the sign of the loss": (
        LOSSES,
        "binary_cross_entropy",
        ("sigmoid", lambda z, y: tuple(-v for v in backprop._binary_cross_entropy(z, y))),
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_noticed(fault, monkeypatch):
    table, name, wrong = PLANTED[fault]
    monkeypatch.setitem(table, name, wrong)
    worst = [
        largest_difference(*make(np.random.default_rng(2), hidden, last, loss, 2))
        for hidden in ("tanh", "softmax")
        for last, loss in LAST_AND_LOSS
    ]
    assert max(worst) > 1e-3


def test_the_batch_gradient_is_the_mean_of_the_samples():
    network, x, y = make(np.random.default_rng(3), "tanh", "sigmoid", "binary_cross_entropy", 0, quantum=True)
    whole = by_hand(network, x, y)
    single = [by_hand(network, x[[i]], y[[i]]) for i in range(len(x))]
    for name in ("loss", *network.parameters()):
        np.testing.assert_allclose(whole[name], np.mean([s[name] for s in single], axis=0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(whole["a[3]"], np.concatenate([s["a[3]"] for s in single]), rtol=0, atol=1e-15)


# -- the losses -------------------------------------------------------------------------------------------


def one_output(loss, z):
    """A network whose last layer has the given z, whatever the input."""
    return Network([Dense(np.zeros((len(z), 1)), z, LOSSES[loss][0] or "identity")], loss)


@pytest.mark.parametrize(
    ("loss", "good", "bad", "y"),
    [
        ("squared_error", [0.9], [0.1], [[1.0]]),
        ("binary_cross_entropy", [4.0], [-4.0], [[1.0]]),
        ("binary_cross_entropy", [-4.0], [4.0], [[0.0]]),
        ("cross_entropy", [4.0, -4.0], [-4.0, 4.0], [[1.0, 0.0]]),
    ],
)
def test_a_confident_right_prediction_costs_less_than_a_confident_wrong_one(loss, good, bad, y):
    x = [[0.0]]
    right, wrong = one_output(loss, good), one_output(loss, bad)
    low, high = (n.loss_and_delta(*n.forward(x), y)[0] for n in (right, wrong))
    assert 0 <= low < 0.1 < 0.5 < high
    train(wrong, x, y, "sgd", lr=0.1, epochs=50)  # and descent leads to the lower one
    assert wrong.loss_and_delta(*wrong.forward(x), y)[0] < high


def test_cross_entropies_are_stable_where_the_chain_rule_is_not():
    z = np.array([-1000.0, -40.0, 0.0, 40.0, 1000.0])
    for target in (0.0, 1.0):
        y = np.full((1, 5), target)
        network = one_output("binary_cross_entropy", z)
        loss, delta = network.loss_and_delta(*network.forward([[0.0]]), y)
        logits = torch.tensor(z[None], requires_grad=True)
        theirs = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y))
        theirs.backward()
        assert loss == pytest.approx(theirs.item(), rel=1e-14)
        np.testing.assert_allclose(delta, logits.grad.numpy(), rtol=1e-12, atol=1e-300)
    network = one_output("cross_entropy", z)
    for label in range(5):
        loss, delta = network.loss_and_delta(*network.forward([[0.0]]), np.eye(5)[[label]])
        theirs = torch.nn.functional.cross_entropy(torch.tensor(z[None]), torch.tensor([label]))
        assert loss == pytest.approx(theirs.item(), rel=1e-14)
        assert np.isfinite(delta).all()


def test_the_combined_deltas_are_the_chain_rule():
    rng = np.random.default_rng(4)
    z, y = rng.normal(size=(6, 3)), rng.dirichlet(np.ones(3), size=6)
    for loss, of_a in {
        "binary_cross_entropy": lambda a: (a - y) / (a * (1 - a)) / y.size,
        "cross_entropy": lambda a: -y / a / len(y),
    }.items():
        activation, combined = LOSSES[loss]
        function, pullback = ACTIVATIONS[activation]
        np.testing.assert_allclose(combined(z, y)[1], pullback(function(z), of_a(function(z))), rtol=0, atol=1e-14)


# -- the quantum layer ------------------------------------------------------------------------------------


def test_the_circuit_is_the_one_it_says():
    angles = np.random.default_rng(5).uniform(-4, 4, (50, 4))
    np.testing.assert_allclose(two_qubit_circuit(angles), torch_circuit(torch.tensor(angles)), rtol=0, atol=1e-14)


def test_the_circuit_is_the_one_pennylane_runs():
    qml = pytest.importorskip("pennylane")

    @qml.qnode(qml.device("default.qubit", wires=2))
    def circuit(angles):
        for i in (0, 1):
            qml.RY(angles[..., i], wires=i)
        qml.CNOT(wires=[0, 1])
        for i in (0, 1):
            qml.RY(angles[..., 2 + i], wires=i)
        return [qml.expval(qml.PauliZ(i)) for i in (0, 1)]

    angles = np.random.default_rng(6).uniform(-4, 4, (10, 4))
    np.testing.assert_allclose(two_qubit_circuit(angles), np.stack(circuit(angles), axis=1), rtol=0, atol=1e-14)


def test_the_shift_rule_is_the_exact_jacobian():
    rng = np.random.default_rng(7)
    x, weights = rng.uniform(-4, 4, (6, 2)), rng.uniform(-4, 4, 2)
    ours = Quantum(two_qubit_circuit, weights, n_inputs=2).jacobian(x)
    assert ours.shape == (6, 2, 4)
    angles = torch.tensor(np.hstack([x, np.tile(weights, (6, 1))]))
    whole = torch.autograd.functional.jacobian(torch_circuit, angles)  # (B, M, B, K)
    np.testing.assert_allclose(ours, torch.einsum("bmbk->bmk", whole).numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("n_inputs", [0, 1, 4])
def test_any_split_into_inputs_and_weights(n_inputs):
    rng = np.random.default_rng(8)
    angles, delta = rng.uniform(-4, 4, 4), rng.normal(size=(3, 2))
    x = np.tile(angles[:n_inputs], (3, 1))
    gradients, grad_x = Quantum(two_qubit_circuit, angles[n_inputs:], n_inputs).backward(x, delta)
    t = torch.tensor(np.tile(angles, (3, 1)), requires_grad=True)
    torch_circuit(t).backward(torch.tensor(delta))
    np.testing.assert_allclose(grad_x, t.grad[:, :n_inputs], rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradients["weights"], t.grad[:, n_inputs:].sum(dim=0), rtol=0, atol=1e-14)


def test_one_call_of_the_function_for_a_whole_batch():
    calls = []
    layer = Quantum(lambda angles: calls.append(angles.shape) or two_qubit_circuit(angles), [0.1, 0.2], n_inputs=2)
    x = np.zeros((7, 2))
    layer.forward(x)
    layer.backward(x, np.ones((7, 2)))
    assert calls == [(7, 4), (2 * 4 * 7, 4)]


# -- optimisers and learning rates ------------------------------------------------------------------------

TORCH_OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": functools.partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
}
TORCH_SCHEDULES = {
    "step": lambda o, epochs: torch.optim.lr_scheduler.StepLR(o, step_size=30, gamma=0.1),
    "exponential": lambda o, epochs: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.99),
    "cosine": lambda o, epochs: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=epochs),
    "inverse_time": lambda o, epochs: torch.optim.lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + 0.01 * e)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_equal_torch_step_by_step(name):
    rng = np.random.default_rng(9)
    w, state = rng.normal(size=(4, 3)), ()
    theirs = torch.tensor(w, requires_grad=True)
    optimizer = TORCH_OPTIMIZERS[name]([theirs], lr=0.05)
    for _ in range(100):
        g = rng.normal(size=w.shape) * 10 ** rng.uniform(-6, 2)
        w, state = OPTIMIZERS[name](w, g, state, 0.05)
        theirs.grad = torch.tensor(g)
        optimizer.step()
        np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("step", "options", "twin", "twin_options"),
    [
        (backprop.momentum, {"momentum": 0.5}, torch.optim.SGD, {"momentum": 0.5}),
        (backprop.rmsprop, {"alpha": 0.8}, torch.optim.RMSprop, {"alpha": 0.8}),
        (backprop.adam, {"betas": (0.7, 0.95)}, torch.optim.Adam, {"betas": (0.7, 0.95)}),
    ],
)
def test_optimizer_options_equal_torch(step, options, twin, twin_options):
    rng = np.random.default_rng(10)
    w, state = rng.normal(size=3), ()
    theirs = torch.tensor(w, requires_grad=True)
    optimizer = twin([theirs], lr=0.1, **twin_options)
    for _ in range(30):
        g = rng.normal(size=3)
        w, state = step(w, g, state, 0.1, **options)
        theirs.grad = torch.tensor(g)
        optimizer.step()
    np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_equals_a_torch_loop(name, schedule):
    network, x, y = make(np.random.default_rng(11), "tanh", "sigmoid", "binary_cross_entropy", 2)
    theirs = {k: torch.tensor(v, requires_grad=True) for k, v in network.parameters().items()}
    epochs, optimizer = 65, TORCH_OPTIMIZERS[name](theirs.values(), lr=0.02)
    scheduler = TORCH_SCHEDULES[schedule](optimizer, epochs) if schedule else None
    losses = []
    for epoch in range(epochs + 1):
        hidden = torch.tanh(torch.tensor(x) @ theirs["W1"].T + theirs["b1"])
        z = hidden @ theirs["W2"].T + theirs["b2"]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, torch.tensor(y))
        losses.append(loss.item())
        if epoch < epochs:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if scheduler:
                scheduler.step()
    curve = train(network, x, y, name, 0.02, epochs, schedule)
    np.testing.assert_allclose(curve, losses, rtol=0, atol=1e-10)
    for key, value in network.parameters().items():
        np.testing.assert_allclose(value, theirs[key].detach().numpy(), rtol=0, atol=1e-10)
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_torch(name):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler = TORCH_SCHEDULES[name](optimizer, 100)
    for epoch in range(100):
        assert SCHEDULES[name](0.3, epoch, 100) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_schedule_options_and_own_schedules():
    assert backprop.step_decay(1.0, 20, 99, step_size=10, gamma=0.5) == 0.25
    assert backprop.exponential_decay(1.0, 3, 99, gamma=0.5) == 0.125
    assert backprop.cosine_decay(1.0, 50, 100, lr_min=0.2) == pytest.approx(0.6)
    assert backprop.inverse_time_decay(1.0, 4, 99, rate=0.25) == 0.5
    asked = []
    network = Network([Dense([[0.0]], [0.0])], "squared_error")
    train(network, [[1.0]], [[1.0]], "sgd", 0.25, 3, lambda *now: asked.append(now) or 0.1)
    assert asked == [(0.25, 0, 3), (0.25, 1, 3), (0.25, 2, 3)]


def test_the_sweep_finds_the_rates_that_are_too_small_and_too_large():
    rng = np.random.default_rng(12)
    x = rng.normal(size=(20, 3))
    y = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.3
    network = Network([Dense(np.zeros((1, 3)), [0.0])], "squared_error")
    final = learning_rate_sweep(network, x, y, "sgd", [1e-4, 0.1, 1e8], epochs=60)
    assert final[1] < 0.01 < 1 < final[0] < final[2] == math.inf
    assert not network.layers[0].W.any()  # as it was
    assert final[1] == train(network, x, y, "sgd", 0.1, 60)[-1]


def test_the_callers_arrays_stay_as_they_are():
    W, b, weights = np.ones((2, 2)), np.zeros(2), np.ones(2)
    x, y = XOR_X.copy(), np.hstack([XOR_Y, XOR_Y])
    network = Network([Dense(W, b), Quantum(two_qubit_circuit, weights, 2)], "squared_error")
    before = copy.deepcopy((W, b, weights, x))
    train(network, x, y, "adam", 0.1, 3)
    assert all(np.array_equal(old, new) for old, new in zip(before, (W, b, weights, x), strict=True))
    assert not np.array_equal(network.parameters()["weights2"], weights)


# -- XOR --------------------------------------------------------------------------------------------------


def accuracy(network):
    _, a = network.forward(XOR_X)
    return np.mean((a[len(network.layers)] > 0.5) == XOR_Y)


def test_one_hidden_layer_learns_xor():
    solved = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        layers = [random_dense(2, 3, "sigmoid", rng), random_dense(3, 1, "sigmoid", rng)]
        network = Network(layers, "binary_cross_entropy")
        train(network, XOR_X, XOR_Y, "momentum", lr=0.3, epochs=1000)
        solved += accuracy(network) == 1
    assert solved >= 38


def test_a_hybrid_network_learns_xor():
    solved = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        circuit = Quantum(two_qubit_circuit, rng.uniform(-np.pi, np.pi, 2), n_inputs=2)
        layers = [random_dense(2, 2, "identity", rng), circuit, random_dense(2, 1, "sigmoid", rng)]
        network = Network(layers, "binary_cross_entropy")
        train(network, XOR_X, XOR_Y, "adam", lr=0.1, epochs=300)
        solved += accuracy(network) == 1
    assert solved >= 19


def test_one_neuron_cannot_learn_xor():
    rng = np.random.default_rng(13)
    w, b = rng.normal(size=(20000, 2)), rng.normal(size=(20000, 1))
    answers = w @ XOR_X.T + b > 0  # (20000, 4)
    assert len({tuple(row) for row in answers}) == 14  # of 16: all but XOR and its negation
    assert (answers == XOR_Y.T.astype(bool)).mean(axis=1).max() == 0.75
    neuron = Network([Dense(w[:1], b[0], "sigmoid")], "binary_cross_entropy")
    curve = train(neuron, XOR_X, XOR_Y, "momentum", lr=0.5, epochs=2000)
    assert curve[-1] == pytest.approx(math.log(2), abs=1e-9)  # the minimum: 1/2 for every input
    assert curve.min() > math.log(2) - 1e-12


# -- arguments --------------------------------------------------------------------------------------------


def xor_run(**changes):
    network = Network([Dense(np.ones((1, 2)), [0.0], "sigmoid")], "binary_cross_entropy")
    arguments = {"x": XOR_X, "y": XOR_Y, "optimizer": "sgd", "lr": 0.1, "epochs": 1, "schedule": None}
    return train(network, **(arguments | changes))


WRONG = {
    "Argument `W` must have shape (M, I), but has (2,)": lambda: Dense([1.0, 2.0], [0.0]),
    "Argument `b` must have shape (1,), but has (2,)": lambda: Dense([[1.0, 2.0]], [0.0, 0.0]),
    "Argument `W` must be an array of numbers": lambda: Dense([["a"]], [0.0]),
    "Argument `b` must hold finite numbers": lambda: Dense([[1.0]], [math.nan]),
    "Argument `activation` must be one of 'identity', 'relu'": lambda: Dense([[1.0]], [0.0], "gelu"),
    "Argument `function` must be callable": lambda: Quantum(None, [0.0], 1),
    "Argument `n_inputs` must be an integer of at least 0, but is -1": lambda: Quantum(two_qubit_circuit, [0.0], -1),
    "Argument `weights` must have shape (P,), but has (1, 1)": lambda: Quantum(two_qubit_circuit, [[0.0]], 1),
    "Argument `function(angles)` must have shape (3, M), but has (3,)": lambda: Quantum(
        lambda t: t[:, 0], [0.0], 1
    ).forward(np.zeros((3, 1))),
    "Argument `angles` must have shape (S, 4), but has (1, 3)": lambda: two_qubit_circuit(np.zeros((1, 3))),
    "Argument `layers` must be Dense and Quantum layers, but is []": lambda: Network([], "squared_error"),
    "Argument `layers` must be Dense and Quantum layers, but is [1]": lambda: Network([1], "squared_error"),
    "Argument `loss` must be one of": lambda: Network([Dense([[1.0]], [0.0])], "hinge"),
    "Argument `loss` 'binary_cross_entropy' needs 'sigmoid' last, but that is 'tanh'": lambda: Network(
        [Dense([[1.0]], [0.0], "tanh")], "binary_cross_entropy"
    ),
    "Argument `x` must have shape (B, 2), but has (4,)": lambda: xor_run(x=XOR_Y[:, 0]),
    "Argument `y` must have shape (4, 1), but has (4,)": lambda: xor_run(y=XOR_Y[:, 0]),
    "Argument `y` must be in [0, 1] for binary_cross_entropy": lambda: xor_run(y=2 * XOR_Y - 1),
    "Argument `a[1]` must have shape (B, 3), but has (1, 1)": lambda: Network(
        [Dense([[1.0]], [0.0]), Dense([[1.0, 1.0, 1.0]], [0.0])], "squared_error"
    ).forward([[1.0]]),
    "Argument `optimizer` must be one of 'sgd'": lambda: xor_run(optimizer="lbfgs"),
    "Argument `lr` must be a positive number, but is -0.1": lambda: xor_run(lr=-0.1),
    "Argument `lr` must be a positive number, but is nan": lambda: xor_run(lr=math.nan),
    "Argument `epochs` must be a positive integer, but is 0": lambda: xor_run(epochs=0),
    "Argument `schedule` must be one of 'step'": lambda: xor_run(schedule="linear"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_named(message):
    with pytest.raises(QbpError) as caught:
        WRONG[message]()
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_examples():
    failed, attempted = doctest.testmod(backprop)
    assert attempted > 0 and failed == 0

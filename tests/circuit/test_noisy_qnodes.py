"""QNodes with transforms and noise models are traced as what their device gets."""

from __future__ import annotations

import functools

import numpy as np
import pennylane as qml
import pytest
import torch
from density import circuit_outputs

from qbp import QuantumLayer, trace
from qbp.errors import CircuitError

N = 3
SHAPES = {"w": (1, N, 3)}
NOISE = qml.NoiseModel(
    {
        qml.noise.op_in([qml.RX, qml.CNOT, "Rot"]): qml.noise.partial_wires(qml.DepolarizingChannel, 0.1),
        qml.noise.op_eq(qml.CRY): lambda op, **data: [qml.AmplitudeDamping(data["g"], wires=w) for w in op.wires],
    },
    g=0.2,
)
FROM_BOTH = {qml.noise.meas_eq(qml.expval) | qml.noise.meas_eq(qml.probs): lambda m, **_: qml.PhaseFlip(0.2, wires=1)}

OF_EACH = {
    qml.noise.meas_eq(qml.expval): lambda m, **_: [
        each for wire in m.wires for each in (qml.AmplitudeDamping(0.2, wires=wire), qml.BitFlip(0.1, wires=wire))
    ]
}


def gates(inputs, w):
    for k in range(N):
        qml.RX(inputs[..., k], wires=k)
    qml.StronglyEntanglingLayers(w, wires=range(N))
    qml.CRY(w[0, 0, 0], wires=[0, 2])


def function(inputs, w):
    gates(inputs, w)
    return qml.expval(qml.X(0) @ qml.Y(2)), qml.probs(wires=[1]), qml.expval(qml.Z(1) + 0.3 * qml.Y(0))


def measured(inputs, w):
    """Measurements in the middle that condition gates, and resets."""
    for k in range(N):
        qml.RX(inputs[..., k], wires=k)
    qml.Rot(*w[0, 0], wires=1)
    qml.CNOT([0, 1])
    first = qml.measure(0)
    qml.cond(first, qml.RY)(w[0, 1, 0], wires=1)
    qml.CRX(w[0, 2, 0], wires=[1, 2])
    second = qml.measure(1, reset=True)
    qml.cond(second & first, qml.RX)(w[0, 1, 1], wires=2)
    qml.RY(w[0, 2, 2], wires=1)
    return qml.expval(qml.X(1) @ qml.Y(2)), qml.probs(wires=[1]), qml.expval(second), qml.expval(first | second)


def measured_once(inputs, w):
    qml.Rot(inputs[..., 0], *w[0, 0, :2], wires=1)
    qml.CNOT([1, 0])
    bit = qml.measure(1)
    qml.Hadamard(1)
    qml.RX(inputs[..., 1] + inputs[..., 2], wires=2)
    qml.cond(~bit, qml.Hadamard)(wires=2)
    return qml.expval(qml.Y(2)), qml.expval(bit), qml.expval(qml.Z(0))


def mixed(wires: int = N):
    return qml.device("default.mixed", wires=wires)


def on(device, circuit=function, **options):
    return qml.QNode(circuit, device, **options)


def add(qnode, *maps, level=None, **data):
    options = {} if level is None else {"level": level}
    return qml.add_noise(qnode, qml.NoiseModel(*maps, **data) if maps else NOISE, **options)


QNODES = {
    "a noise model": lambda: add(on(mixed())),
    "a noise model of the device": lambda: on(add(mixed())),
    "a noise model after the device's decompositions": lambda: add(on(mixed()), level="device"),
    "noise before measurements": lambda: add(on(mixed()), {}, FROM_BOTH),
    "noise of each measurement": lambda: add(on(mixed()), {}, OF_EACH),
    "noise of gates and of each measurement": lambda: add(on(mixed()), NOISE.model_map, OF_EACH, g=0.1),
    "noise at the end": lambda: qml.noise.insert(on(mixed()), qml.AmplitudeDamping, 0.1, position="end"),
    "noise everywhere": lambda: qml.noise.insert(on(mixed()), qml.PhaseDamping, 0.1, position="all"),
    "noise everywhere on the device": lambda: on(qml.noise.insert(mixed(), qml.PhaseDamping, 0.1, position="all")),
    "folded": lambda: qml.noise.fold_global(on(add(mixed())), 3),
    "compiled": lambda: qml.compile(on(mixed())),
    "two transforms": lambda: qml.transforms.merge_rotations(qml.transforms.cancel_inverses(on(mixed()))),
    "by shifts": lambda: add(on(mixed(), diff_method="parameter-shift")),
    "measured in the middle": lambda: on(qml.device("default.qubit"), measured),
    "measured in the middle, with noise": lambda: add(on(mixed(4), measured_once)),
}


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, N, dtype=torch.float64, generator=generator, requires_grad=True)
    return x, torch.randn(SHAPES["w"], dtype=torch.float64, generator=generator, requires_grad=True)


def outputs_of(qnode, x, w):
    return torch.stack([torch.hstack([part.reshape(-1) for part in qnode(row, w)]) for row in x])


def assert_same(ours, theirs, leaves, atol=1e-10):
    assert torch.allclose(ours, theirs, atol=atol, rtol=0)
    weight = torch.linspace(-1, 2, ours.numel(), dtype=torch.float64).reshape(ours.shape)
    for mine, other in zip(*(torch.autograd.grad((o * weight).sum(), leaves) for o in (ours, theirs)), strict=True):
        assert torch.allclose(mine, other, atol=atol, rtol=0)


@pytest.mark.parametrize("name", QNODES)
def test_what_the_device_gets_is_traced(name: str):
    qnode = QNODES[name]()
    circuit = trace(qnode, SHAPES, n_inputs=N)
    in_observables = name == "noise of each measurement"
    assert circuit.program.is_noisy == (("noise" in name and not in_observables) or name in ("folded", "by shifts"))
    x, w = data()
    atol = 1e-6 if name == "measured in the middle, with noise" else 1e-10  # default.mixed rounds controlled gates
    assert_same(circuit_outputs(circuit, x, w.reshape(-1)), outputs_of(qnode, x, w), (x, w), atol)


@pytest.mark.parametrize("observable", ["words", "sums"])
def test_readout_errors_of_the_device(observable: str):
    def circuit(inputs, w):
        gates(inputs, w)
        if observable == "sums":
            return qml.expval(qml.Z(1) + 0.3 * qml.Y(0) @ qml.X(2)), qml.expval(qml.Hamiltonian([0.3], [qml.X(1)]))
        return qml.expval(qml.X(0) @ qml.Y(2)), qml.probs(wires=[2, 1]), qml.expval(2.0 * qml.Z(0))

    device = qml.device("default.mixed", wires=N, readout_prob=0.07)
    ours = trace(on(device, circuit), SHAPES, n_inputs=N)
    assert ours.program.readout == ((0, 0.07, 0.07), (1, 0.07, 0.07), (2, 0.07, 0.07))
    # PennyLane 0.45 takes the probability for a list of channels, and fails
    device.readout_err = [functools.partial(qml.BitFlip, 0.07)]
    x, w = data()
    assert_same(circuit_outputs(ours, x, w.reshape(-1)), outputs_of(on(device, circuit), x, w), (x, w))


def test_what_the_device_does_not_read_wire_by_wire():
    def circuit(inputs, w):
        gates(inputs, w)
        return qml.expval(qml.Hermitian(np.diag([1.0, 2.0]), wires=0))

    with pytest.raises(CircuitError, match="wire by wire"):
        trace(on(qml.device("default.mixed", wires=N, readout_prob=0.1), circuit), SHAPES, n_inputs=N)


SPLITS = {
    "several circuits": lambda: qml.transforms.split_non_commuting(on(mixed())),
    "extrapolation": lambda: qml.noise.mitigate_with_zne(
        on(add(mixed()), lambda inputs, w: function(inputs, w)[0]),
        [1, 3],
        qml.noise.fold_global,
        qml.noise.poly_extrapolate,
        extrapolate_kwargs={"order": 1},
    ),
    "probabilities with noise of their own": lambda: add(
        on(mixed()), {}, {qml.noise.meas_eq(qml.probs): qml.noise.partial_wires(qml.BitFlip, 0.1)}
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_what_is_more_than_one_circuit_is_not_traced(name: str):
    with pytest.raises(CircuitError, match=r"transforms|noise of a measurement"):
        trace(SPLITS[name](), SHAPES, n_inputs=N)
    assert QuantumLayer(SPLITS[name](), SHAPES).backend.startswith("qnode on")


def test_noise_that_changes_is_traced_anew():
    strength = [0.1]
    model = qml.NoiseModel({qml.noise.op_eq("Rot"): lambda op, **_: qml.BitFlip(strength[0], wires=op.wires[0])})
    layer = QuantumLayer(qml.add_noise(on(mixed()), model), SHAPES, n_inputs=N, seed=0).double()
    x, _ = data()
    with torch.no_grad():
        for strength[0] in (0.1, 0.4):
            assert torch.allclose(layer(x), outputs_of(layer.qnode, x, layer.w), atol=1e-10)


def test_noise_that_is_drawn_is_not_traced():
    model = qml.NoiseModel({qml.noise.op_eq("Rot"): lambda op, **_: qml.BitFlip(np.random.rand(), wires=op.wires[0])})
    with pytest.warns(UserWarning, match="runs by itself"):
        layer = QuantumLayer(qml.add_noise(on(mixed()), model), SHAPES, n_inputs=N)
    assert layer.backend.startswith("qnode on")


@pytest.mark.parametrize(("name", "method"), [("lightning.qubit", "best"), ("default.qubit", "adjoint")])
def test_a_device_that_takes_gates_apart_before_its_transforms_runs_itself(name, method):
    """Which gates, goes by what wants a gradient: noise after each gate is then more noise than the circuit says."""

    def circuit(inputs, weights):
        qml.RY(inputs[0], wires=0)
        qml.Rot(*weights, wires=0)
        qml.CNOT([0, 1])
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))

    device = qml.noise.insert(qml.device(name, wires=2), qml.RX, 0.3, position="all")
    qnode = qml.QNode(circuit, device, diff_method=method)
    weights = torch.tensor([0.4, 0.9, -0.3], dtype=torch.float64)
    layer = QuantumLayer(qnode, {"weights": 3}, init_method={"weights": weights}).double()
    x = torch.tensor([[0.7], [-0.2]], dtype=torch.float64)
    leaf = weights.clone().requires_grad_()
    want = torch.stack([torch.stack(qnode(inputs=row, weights=leaf)) for row in x]).detach()
    torch.testing.assert_close(layer(x), want.to(x), atol=1e-6, rtol=0)

"""`QuantumLayer` in the place of `pennylane.qnn.TorchLayer`: the same QNode in both gives the same numbers."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pennylane as qml
import pytest
import torch
from pennylane.qnn import TorchLayer
from torch import nn

from qbp import QuantumLayer
from qbp.errors import ArgumentError, CircuitError, GradientError

pytestmark = [
    pytest.mark.filterwarnings("ignore::pennylane.exceptions.PennyLaneDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Using qp.probs with a Hermitian:UserWarning"),
]

N = 4
WIRES = range(N)


def device(name="default.qubit", wires=WIRES, **options):
    return qml.device(name, wires=wires, **options)


def assert_same(function, shapes, x, *, on=None, atol=1e-10, backend=None, **qnode_options):
    """Both layers of one QNode, with the same weights: outputs, and gradients of inputs and weights."""
    qnode = qml.QNode(function, on or device(), **qnode_options)
    theirs, ours = TorchLayer(qnode, shapes).double(), QuantumLayer(qnode, shapes, n_inputs=x.shape[-1]).double()
    assert backend in (None, ours.backend)
    ours.load_state_dict(theirs.state_dict())
    answers = []
    for layer in (theirs, ours):
        leaf = x.detach().clone().requires_grad_()
        y = layer(leaf)
        weight = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).cos().reshape(y.shape)
        leaves = [leaf, *layer.parameters()]
        answers.append([y, *torch.autograd.grad((y * weight).sum(), leaves, allow_unused=True, materialize_grads=True)])
    for name, want, got in zip(["outputs", "inputs", *theirs.state_dict()], *answers, strict=True):
        torch.testing.assert_close(got, want, atol=atol, rtol=0, msg=lambda m, name=name: f"{name}: {m}")
    return ours


# ---- random QNodes -------------------------------------------------------------------------------------------------

GATES = {  # wires and parameters
    **dict.fromkeys(["RX", "RY", "RZ", "PhaseShift"], (1, 1)),
    **{"U2": (1, 2), "U3": (1, 3), "Rot": (1, 3), "CRot": (2, 3), "MultiRZ": (3, 1), "PauliRot": (3, 1)},
    **dict.fromkeys(["IsingXX", "IsingYY", "IsingZZ", "SingleExcitation", "CRX", "CRY", "CRZ"], (2, 1)),
    **dict.fromkeys(["ControlledPhaseShift", "PSWAP", "FermionicSWAP", "SingleExcitationMinus"], (2, 1)),
    **dict.fromkeys(["DoubleExcitation", "OrbitalRotation"], (4, 1)),
    **dict.fromkeys(["Hadamard", "S", "T", "SX", "PauliY"], (1, 0)),
    **dict.fromkeys(["CNOT", "CY", "CZ", "CH", "SWAP", "ISWAP", "ECR", "SISWAP"], (2, 0)),
    **dict.fromkeys(["Toffoli", "CSWAP", "CCZ"], (3, 0)),
}
UNDER_CONTROL = ["RX", "RY", "RZ", "PhaseShift", "U2", "U3", "Rot", "MultiRZ", "IsingYY", "CRot", "Hadamard", "SWAP"]


def random_angle(rng):
    """A function of (inputs, weights); features on the last axis."""
    i, j = (int(k) for k in rng.integers(3, size=2))
    a = float(rng.normal())
    return [
        lambda x, w: x[..., i],
        lambda x, w: w["w"][j],
        lambda x, w: a * w["w"][j] + w["s"],
        lambda x, w: a * x[..., i] - w["w"][j],
        lambda x, w: x[..., i] * w["m"][j % 2, i],
        lambda x, w: torch.sin(x[..., i]) * x[..., j],
        lambda x, w: (math.pi - x[..., i]) * (math.pi - x[..., j]),
        lambda x, w: torch.exp(w["m"][j % 2, i]),
        lambda x, w: a,
    ][rng.integers(9)]


def random_block(rng):
    """A function of (inputs, weights) that queues a gate, now and then a template."""
    kind = rng.choice(["gate", "adjoint", "ctrl", "template"], p=[0.6, 0.15, 0.15, 0.1])
    if kind == "template":
        return [
            lambda x, w: qml.AngleEmbedding(x, wires=[2, 0, 3], rotation="Y"),
            lambda x, w: qml.IQPEmbedding(x, wires=[3, 1, 0], n_repeats=2),
            lambda x, w: qml.BasicEntanglerLayers(w["m"], wires=[1, 2, 3], rotation=qml.RZ),
            lambda x, w: qml.StronglyEntanglingLayers(w["m"].T.reshape(1, 2, 3), wires=[3, 0]),
            lambda x, w: qml.adjoint(qml.SimplifiedTwoDesign)(w["w"], w["m"][:, :2].reshape(1, 2, 2), wires=[0, 1, 2]),
            lambda x, w: qml.QAOAEmbedding(x[..., :2], w["m"][:1], wires=[1, 3]),
            lambda x, w: qml.ApproxTimeEvolution(0.5 * qml.X(0) @ qml.Y(2) - qml.Z(0), w["s"] * x[..., 0], 2),
            lambda x, w: qml.QFT(wires=[2, 3, 0]),
        ][rng.integers(8)]
    name = str(rng.choice(UNDER_CONTROL if kind == "ctrl" else list(GATES)))
    n_wires, n_params = GATES[name]
    angles = [random_angle(rng) for _ in range(n_params)]
    word = "".join(rng.choice(list("IXYZ"), size=3))
    order = [int(w) for w in rng.permutation(N)]
    values = [bool(b) for b in rng.integers(2, size=N - n_wires)][:2]

    def queue(x, w):
        make = getattr(qml, name)
        make = {"adjoint": qml.adjoint, "ctrl": lambda f: qml.ctrl(f, order[n_wires:][:2], values)}.get(
            kind, lambda f: f
        )(make)
        same_shape = 0 * x[..., 0] if n_params > 1 else 0  # PennyLane's matrices fail on numbers beside batches
        make(*(a(x, w) + same_shape for a in angles), *([word] if name == "PauliRot" else []), wires=order[:n_wires])

    return queue


def random_measurement(rng):
    words = ["".join(rng.choice(list("IXYZ"), size=N)) for _ in range(2)]
    first, second = (qml.pauli.string_to_pauli_word(word) for word in words)
    subset = [int(w) for w in rng.permutation(N)[: rng.integers(1, N)]]
    matrix = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
    return [
        lambda: qml.expval(first),
        lambda: qml.expval(qml.Hamiltonian([0.7, -1.3], [first, second])),
        lambda: qml.expval(2 * first + qml.I(0)),
        lambda: qml.probs(wires=subset),
        lambda: qml.expval(qml.Hermitian(matrix + matrix.conj().T, wires=[3, 1])),
        lambda: qml.expval(qml.Projector([1, 0], wires=[2, 0])),
    ][rng.integers(6)]


def random_function(rng):
    blocks = [random_block(rng) for _ in range(rng.integers(4, 10))]
    measured = [random_measurement(rng) for _ in range(rng.integers(1, 4))]
    start = rng.integers(4)

    def function(inputs, w, s, m):
        weights = {"w": w, "s": s, "m": m}
        if start == 0:
            qml.AmplitudeEmbedding(inputs, wires=[1, 3], pad_with=0.3)
        for wire in WIRES if start == 1 else []:
            qml.Hadamard(wire)
        for block in blocks:
            block(inputs, weights)
        qml.RY(inputs[..., 1], wires=2)  # TorchLayer fails on circuits that ignore their inputs
        return [m() for m in measured] if len(measured) > 1 or start > 1 else measured[0]()

    return function


SHAPES = {"w": 3, "s": 1, "m": [2, 3]}


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(s, marks=pytest.mark.slow) for s in range(10, 60))])
def test_twenty_random_qnodes(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        assert_same(random_function(rng), SHAPES, torch.randn(2, 3, dtype=torch.float64), backend="native")


# ---- how a function may be written ---------------------------------------------------------------------------------


def rotations(angles, w):
    for wire, angle in enumerate(angles):
        qml.RX(angle, wires=wire)
        qml.RY(w[wire], wires=wire)
    qml.CNOT([0, 1])
    qml.CNOT([1, 2])
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Y(2))]


SPELLINGS = {
    "inputs[i]": lambda x: [x[i] for i in range(3)],
    "inputs[..., i]": lambda x: [x[..., i] for i in range(3)],
    "inputs[:, i]": lambda x: [x[:, i] for i in range(3)],
    "the last axis first": lambda x: list(x.movedim(-1, 0)),
    "unbind": lambda x: x.unbind(dim=-1),
    "unbind the second axis": lambda x: x.unbind(dim=1),
    "the shape of a batch": lambda x: [x.reshape(x.shape[0], -1)[:, i] for i in range(x.shape[1])],
    "unpacked": lambda x: [*x] if x.ndim == 1 else [*x.T],
    "einsum": lambda x: [torch.einsum("...i,i->...", x, torch.eye(3).to(x)[i]) for i in range(3)],
}


class Own(qml.QNode):
    """A QNode of a user's own, of which nobody knows what it does."""


@pytest.mark.parametrize("ran_by", ["native", "the QNode itself"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_functions_of_one_sample_and_of_a_batch_are_right_for_every_batch_size(spelling, ran_by):
    def function(inputs, w):
        return rotations(SPELLINGS[spelling](inputs), w)

    qnode = qml.QNode(function, device())
    if ran_by != "native":
        qnode = Own(function, device())
    layer = QuantumLayer(qnode, {"w": 3}).double()
    assert (layer.backend == "native") == (ran_by == "native")
    single = qml.QNode(lambda x, w: rotations(list(x), w), device())
    for batch in [1, 2, 3, 4] + [32] * (ran_by == "native"):
        x = torch.randn(batch, 3, dtype=torch.float64)
        want = torch.stack([torch.stack(single(row, layer.w)) for row in x])
        torch.testing.assert_close(layer(x), want, atol=1e-10, rtol=0)


@pytest.mark.parametrize("branch", [lambda x: x.sum() > 0, lambda x: x[0] > 0, lambda x: x[..., 1].item() > 0])
def test_a_qnode_that_branches_on_its_data_is_right_for_every_row(branch):
    @qml.qnode(device())
    def circuit(inputs, w):
        (qml.RX if branch(inputs) else qml.RY)(inputs[0], wires=0)
        qml.RX(w, wires=0)
        return qml.expval(qml.Z(0))

    layer = QuantumLayer(circuit, {"w": 1}).double()
    for n_inputs in (2, 3, 5):
        x = torch.randn(6, n_inputs, dtype=torch.float64)
        torch.testing.assert_close(layer(x), torch.stack([circuit(row, layer.w) for row in x]))


def test_a_noisy_qnode_runs_a_batch_at_once():
    calls = []

    @qml.qnode(device("default.mixed"))
    def circuit(inputs, w):
        calls.append(inputs.shape)
        qml.RX(inputs[..., 0] * w, wires=0)
        qml.PhaseDamping(0.1, wires=0)
        return qml.purity(0), qml.probs(wires=0)

    layer = QuantumLayer(circuit, {"w": 1})
    layer(torch.randn(7, 3))
    calls.clear()
    assert layer(torch.randn(2, 4, 3)).shape == (2, 4, 3)
    assert calls == [(8, 3)]


@pytest.mark.parametrize("answer", ["expval", "probs", "list"])
def test_a_circuit_that_ignores_its_inputs_gives_a_row_for_each_sample(answer):
    def circuit(inputs, w):
        qml.RX(w, wires=0)
        bare = qml.expval(qml.Z(0)) if answer == "expval" else qml.probs(wires=[0, 1])
        return [bare, qml.expval(qml.Y(0))] if answer == "list" else bare

    for qnode in (qml.QNode(circuit, device()), qml.transforms.merge_rotations(qml.QNode(circuit, device()))):
        y = QuantumLayer(qnode, {"w": 1})(torch.randn(5, 2))
        assert y.shape == {"expval": (5,), "probs": (5, 4), "list": (5, 5)}[answer]
        assert (y == y[0]).all()


def test_a_tuple_of_measurements_is_a_row_of_outputs():
    """As in PennyLane's documentation, where a linear layer follows; its 0.45 stacks them along a new first axis."""

    def circuit(inputs, w):
        return tuple(rotations(inputs, w))

    layer = QuantumLayer(qml.QNode(circuit, device()), {"w": 3})
    assert nn.Sequential(layer, nn.Linear(2, 1))(torch.randn(5, 3)).shape == (5, 1)


def test_leading_dimensions():
    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(3))
        qml.RX(w, wires=0)
        return qml.probs(wires=[0, 2])

    for shape in [(3,), (1, 3), (2, 5, 3), (2, 1, 2, 3)]:
        x = torch.randn(shape, dtype=torch.float64)
        assert assert_same(circuit, {"w": 1}, x)(inputs=x).shape == (*shape[:-1], 4)


# ---- templates -----------------------------------------------------------------------------------------------------


def z_everywhere():
    return [qml.expval(qml.Z(w)) for w in WIRES]


def embedded(embedding, **options):
    def circuit(inputs, w):
        embedding(inputs, wires=WIRES, **options)
        qml.StronglyEntanglingLayers(w, wires=WIRES)
        return z_everywhere()

    return circuit, {"w": qml.StronglyEntanglingLayers.shape(2, N)}


def layered(template, *names, **options):
    def circuit(inputs, **weights):
        qml.AngleEmbedding(inputs, wires=WIRES)
        template(*(weights[name] for name in names), wires=WIRES, **options)
        return z_everywhere()

    return circuit


def reuploading(inputs, w, scale):
    for layer in w:
        qml.AngleEmbedding(scale * inputs, wires=WIRES, rotation="Z")
        qml.BasicEntanglerLayers(layer[None], wires=WIRES, rotation=qml.RY)
    return qml.expval(qml.Z(0) @ qml.Z(3))


def qaoa(inputs, w):
    qml.QAOAEmbedding(inputs, w, wires=WIRES, local_field="X")
    return z_everywhere()


TEMPLATES = {
    "AngleEmbedding X": (*embedded(qml.AngleEmbedding), 4),
    "AngleEmbedding Y, fewer features": (*embedded(qml.AngleEmbedding, rotation="Y"), 2),
    "IQPEmbedding": (*embedded(qml.IQPEmbedding, n_repeats=2), 4),
    "AmplitudeEmbedding normalize": (*embedded(qml.AmplitudeEmbedding, normalize=True), 16),
    "AmplitudeEmbedding pad_with": (*embedded(qml.AmplitudeEmbedding, pad_with=0.5, normalize=True), 11),
    "BasicEntanglerLayers": (layered(qml.BasicEntanglerLayers, "w"), {"w": (3, N)}, 4),
    "SimplifiedTwoDesign": (layered(qml.SimplifiedTwoDesign, "first", "w"), {"w": (2, 3, 2), "first": N}, 4),
    "RandomLayers": (layered(qml.RandomLayers, "w", seed=7), {"w": (2, 5)}, 4),
    "ParticleConservingU2": (
        layered(qml.ParticleConservingU2, "w", init_state=np.array([1, 0, 1, 0])),
        {"w": (1, 7)},
        4,
    ),
    "QAOAEmbedding": (qaoa, {"w": (2, 8)}, 4),
    "re-uploading": (reuploading, {"w": (3, N), "scale": 1}, 4),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates(name):
    circuit, shapes, n_inputs = TEMPLATES[name]
    assert_same(circuit, shapes, torch.rand(3, n_inputs, dtype=torch.float64) + 0.1, backend="native")


def test_evolutions():
    """PennyLane's own matrices of them are good to 1e-10 only."""

    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(3), rotation="Y")
        qml.evolve(0.5 * qml.X(0) @ qml.Y(2) - qml.Z(1), w * inputs[..., 0])
        qml.adjoint(qml.evolve(qml.X(0) @ qml.X(1) + 2 * qml.Z(1) @ qml.Z(0) - 3 * qml.I(2), w))
        qml.exp(qml.Y(0) @ qml.Z(2), 0.4j)
        return [qml.expval(qml.X(0)), qml.probs(wires=[1, 2])]

    assert_same(circuit, {"w": 1}, torch.randn(2, 3, dtype=torch.float64), atol=1e-8, backend="native")


@pytest.mark.parametrize("n_controls", [1, 2, 3])
@pytest.mark.parametrize(
    "name", ["RX", "PhaseShift", "U2", "U3", "Rot", "IsingXY", "SingleExcitation", "PauliRot", "GlobalPhase"]
)
def test_gates_under_controls(name, n_controls, rng):
    """A global phase of the gate counts under its controls."""
    values = [bool(v) for v in rng.integers(2, size=n_controls)]
    n_params = 1 if name in ("PauliRot", "GlobalPhase") else getattr(qml, name).num_params

    def circuit(inputs, w):
        for wire in range(5):
            qml.RX(inputs[..., 0] + wire, wires=wire)
        targets = [3, 4][: 1 if n_params > 1 or name in ("RX", "PhaseShift") else 2]
        if name == "GlobalPhase":
            gate = qml.adjoint(qml.ctrl(qml.GlobalPhase(w[0]), range(n_controls), values))
        elif name == "PauliRot":
            gate = qml.ctrl(qml.adjoint(qml.PauliRot(w[0], "YX", wires=targets)), range(n_controls), values)
        else:
            gate = qml.ctrl(getattr(qml, name)(*w[:n_params], wires=targets), range(n_controls), values)
        assert gate is not None
        qml.Rot(w[0], w[1], w[2], wires=0)
        return [qml.expval(qml.X(0) @ qml.Y(1)), qml.probs(wires=[0, 3, 4])]

    assert_same(circuit, {"w": 3}, torch.randn(2, 1, dtype=torch.float64), on=device(wires=5), backend="native")


# ---- devices, noise, shots, transforms -----------------------------------------------------------------------------


def entangled(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3), rotation="Y")
    qml.StronglyEntanglingLayers(w, wires=range(3))
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Z(2)), qml.probs(wires=[2])]


def noisy(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.DepolarizingChannel(0.1, wires=0)
    qml.CRX(w[0], wires=[0, 1])
    qml.AmplitudeDamping(0.2, wires=1)
    qml.RY(w[1], wires=1)
    return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1)), qml.probs(wires=[1, 0])]


def measured(inputs, w):
    qml.RX(inputs[..., 0] + w[0], wires=0)
    bit = qml.measure(0)
    qml.cond(bit, qml.RY)(inputs[..., 1] * w[1], wires=1)
    return [qml.expval(qml.X(1)), qml.expval(bit)]


def unusual(inputs, w):
    qml.RX(inputs[..., 0] + w[0], wires=0)
    qml.RY(inputs[..., 1] * w[1], wires=1)
    qml.CNOT([0, 1])
    return [qml.var(qml.Z(1)), qml.purity(wires=0), qml.probs(op=qml.Hadamard(1))]


ENTANGLED = {"w": (2, 3, 3)}


@pytest.mark.parametrize(
    ("function", "shapes", "name", "options", "backend"),
    [
        (entangled, ENTANGLED, "default.qubit", {"diff_method": "parameter-shift"}, "native"),
        (entangled, ENTANGLED, "default.qubit", {"diff_method": "hadamard"}, "native"),
        (entangled, ENTANGLED, "default.qubit", {"diff_method": "backprop", "interface": "auto"}, "native"),
        (entangled, ENTANGLED, "reference.qubit", {"diff_method": "parameter-shift"}, "native"),
        (entangled, ENTANGLED, "lightning.qubit", {"diff_method": "parameter-shift"}, "native"),
        (entangled, ENTANGLED, "default.mixed", {}, "native"),
        (noisy, {"w": 2}, "default.mixed", {}, "pauli"),
        (noisy, {"w": 2}, "default.mixed", {"diff_method": "parameter-shift"}, "pauli"),
        (measured, {"w": 2}, "default.qubit", {}, "native"),
        (unusual, {"w": 2}, "default.qubit", {}, "qnode on default.qubit"),
    ],
)
def test_devices_and_rules_of_a_qnode(function, shapes, name, options, backend):
    n_inputs = 3 if function is entangled else 2
    by_shifts = "diff_method" in options and options["diff_method"] != "backprop"  # TorchLayer shifts no batches
    x = torch.randn([n_inputs] if by_shifts else [3, n_inputs], dtype=torch.float64)
    atol = 1e-6 if name == "lightning.qubit" else 1e-10  # PennyLane's torch interface rounds what it differentiates
    layer = assert_same(function, shapes, x, on=device(name), backend=backend, atol=atol, **options)
    kept = backend.startswith("qnode") or options.get("diff_method") == "parameter-shift"
    assert layer.diff_method == options.get("diff_method", "best") or not kept


def test_the_backend_may_be_named():
    qnode = qml.QNode(entangled, device("default.mixed"))
    layers = [
        QuantumLayer(qnode, ENTANGLED, seed=1, backend=b)
        for b in ("native", "dense", "lightning.qubit", "default.mixed")
    ]
    x = torch.randn(4, 3, dtype=torch.float64)
    for layer in layers:
        torch.testing.assert_close(layer(x), layers[0](x), atol=1e-12, rtol=0)
    assert [layer.backend for layer in layers] == ["native", "dense", "lightning.qubit", "default.mixed"]
    with pytest.raises(ArgumentError, match="DepolarizingChannel"):
        QuantumLayer(qml.QNode(noisy, device("default.mixed")), {"w": 2}, backend="dense")


def test_wires_with_names_in_the_order_of_the_device():
    def circuit(inputs, w):
        qml.RX(inputs[..., 0], wires="b")
        qml.RY(w, wires=-1)
        qml.RY(0.4, wires="a")  # default.mixed has no gradient of probabilities that are 0
        qml.CNOT(["b", "a"])
        return [qml.probs(), qml.expval(qml.Z("a") @ qml.X(-1)), qml.probs(wires=[-1, "b"])]

    x = torch.randn(3, 1, dtype=torch.float64)
    for wires in (["a", -1, "b"], ["b", "a", -1, "unused"], None):
        for name in ("default.qubit", "default.mixed"):
            assert_same(circuit, {"w": 1}, x, on=device(name, wires=wires))


@pytest.mark.parametrize("use", [[7, 3], [1, 0, 2], [0, 2], [2, 1]])
def test_wires_of_a_device_without_wires(use):
    def circuit(inputs, w):
        qml.RX(inputs[..., 0], wires=use[0])
        for wire in use[1:]:
            qml.CRY(w, wires=[use[0], wire])
        return [qml.probs(), qml.expval(qml.Z(5))] if 7 in use else qml.probs()

    assert_same(circuit, {"w": 1}, torch.randn(3, 1, dtype=torch.float64), on=qml.device("default.qubit"))


@pytest.mark.parametrize(
    "transform",
    [
        qml.transforms.merge_rotations,
        lambda qnode: qml.transforms.cancel_inverses(qml.transforms.commute_controlled(qnode)),
        lambda qnode: qml.add_noise(
            qnode, qml.NoiseModel({qml.noise.op_eq(qml.RY): qml.noise.partial_wires(qml.BitFlip, 0.2)})
        ),
    ],
    ids=["merge_rotations", "two", "add_noise"],
)
def test_transforms_of_a_qnode_are_kept(transform):
    def circuit(inputs, w):
        for wire in range(2):
            qml.RX(inputs[..., wire], wires=wire)
            qml.RY(w[wire], wires=wire)
        qml.CNOT([0, 1])
        return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]

    plain = qml.QNode(circuit, device("default.mixed", wires=2))
    theirs, ours = TorchLayer(transform(plain), {"w": 2}).double(), QuantumLayer(transform(plain), {"w": 2}).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).sum().backward()
    theirs(x).sum().backward()
    torch.testing.assert_close(ours.w.grad, theirs.w.grad)


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit", "default.mixed"])
def test_shots_of_a_qnode_have_their_statistics(name):
    shots, x = 400, torch.tensor([[0.4, -1.0, 2.0]], dtype=torch.float64).expand(40, 3)
    qnode = qml.set_shots(qml.QNode(entangled, device(name)), shots)
    sampled, exact = QuantumLayer(qnode, ENTANGLED).double(), QuantumLayer(qml.QNode(entangled, device()), ENTANGLED)
    exact.load_state_dict(sampled.state_dict())
    assert (sampled.backend, sampled.executor.shots, sampled.diff_method) == (name, shots, "parameter-shift")
    draws, want = sampled(x).detach(), exact(x)[0].detach()
    variance = torch.cat([1 - want[:2] ** 2, want[2:] * (1 - want[2:])]) / shots
    assert ((draws.mean(0) - want).abs() < 5 * (variance / len(x)).sqrt()).all()
    assert ((draws.var(0) / variance - 1).abs() < 1).all()
    gradients = []
    for layer in (sampled, exact) if name == "default.qubit" else ():
        layer(x).pow(2)[:, :2].sum().backward()
        gradients.append(layer.w.grad.double() / len(x))
    assert all(((gradient - gradients[0]).abs() < 0.1).all() for gradient in gradients)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3)])
def test_several_numbers_of_shots_give_one_answer_each(shape):
    qnode = qml.set_shots(qml.QNode(entangled, device()), [10, 50, 10])
    layer = QuantumLayer(qnode, ENTANGLED)
    y = layer(torch.randn(shape))
    assert y.shape == (3, *shape[:-1], 4) == TorchLayer(qnode, ENTANGLED)(torch.randn(shape)).shape
    assert set((y[0, ..., 0] * 5).round(decimals=3).flatten().tolist()) <= {float(k) for k in range(-5, 6)}
    y.sum().backward()
    assert layer.w.grad.any()


# ---- as a module ---------------------------------------------------------------------------------------------------


def many(inputs, b, a, scalar, one):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.RX(b[0, 0] + scalar, wires=0)
    qml.CRY(b[0, 1] * a[2], wires=[0, 1])
    qml.RZ(one[0], wires=1)
    return [qml.expval(qml.X(0)), qml.expval(qml.Y(1))]


MANY = {"b": [1, 2], "a": 3, "scalar": 1, "one": (1,)}


def test_state_dicts_go_both_ways(tmp_path):
    qnode = qml.QNode(many, device())
    theirs, ours = (
        nn.Sequential(nn.Linear(3, 2), make(qnode, MANY), nn.Linear(2, 2)) for make in (TorchLayer, QuantumLayer)
    )
    want = [(name, tensor.shape, tensor.dtype) for name, tensor in theirs.state_dict().items()]
    assert [(name, tensor.shape, tensor.dtype) for name, tensor in ours.state_dict().items()] == want
    assert [n for n, _ in ours[1].named_parameters()] == list(MANY)
    x = torch.randn(4, 3)
    for first, second in ((theirs, ours), (ours, theirs)):
        nn.init.normal_(first[1].b)
        torch.save(first.state_dict(), tmp_path / "model.pt")
        second.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True), strict=True)
        torch.testing.assert_close(second(x), first(x), atol=1e-6, rtol=0)
    assert len(list(ours[1].buffers())) == 0


@pytest.mark.parametrize(
    "init_method",
    [
        None,
        nn.init.normal_,
        {"b": torch.ones(1, 2), "a": nn.init.zeros_, "scalar": torch.tensor(0.3), "one": nn.init.uniform_},
    ],
    ids=["default", "function", "dictionary"],
)
def test_initial_weights_are_those_of_torchlayer(init_method):
    weights = []
    for make in (TorchLayer, QuantumLayer):
        torch.manual_seed(11)
        weights.append(make(qml.QNode(many, device()), MANY, init_method).state_dict())
    for name in MANY:
        assert torch.equal(weights[0][name], weights[1][name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_training_step_is_torchlayers(dtype):
    torch.manual_seed(0)
    qnode = qml.QNode(many, device())
    models = [
        nn.Sequential(nn.Linear(3, 2), make(qnode, MANY), nn.Linear(2, 1)).to(dtype)
        for make in (TorchLayer, QuantumLayer)
    ]
    models[1].load_state_dict(models[0].state_dict())
    x, y = torch.randn(8, 3, dtype=dtype), torch.randn(8, 1, dtype=dtype)
    for model in models:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    atol = 1e-4 if dtype == torch.float32 else 1e-9
    for (name, want), got in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        if name != "1.a":  # two of its three numbers do nothing
            torch.testing.assert_close(got, want, atol=atol, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_second_derivatives_are_torchlayers():
    qnode = qml.QNode(many, device())
    theirs, ours = TorchLayer(qnode, MANY).double(), QuantumLayer(qnode, MANY).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 2, dtype=torch.float64)
    want, got = (torch.autograd.functional.hessian(lambda x, m=m: m(x).pow(2).sum(), x) for m in (theirs, ours))
    torch.testing.assert_close(got, want, atol=1e-10, rtol=0)


@pytest.mark.parametrize("function", [many, noisy], ids=["native", "the QNode itself"])
def test_copies(function):
    shapes = MANY if function is many else {"w": 2}
    layer = QuantumLayer(qml.QNode(function, device("default.qubit" if function is many else "default.mixed")), shapes)
    x = torch.randn(3, 2)
    y = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        torch.testing.assert_close(other(x), y)
        other(x).sum().backward()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    parametrized = torch.nn.utils.parametrizations.weight_norm(copy.deepcopy(layer), next(iter(shapes)), dim=None)
    torch.testing.assert_close(parametrized(x), layer(x), atol=1e-5, rtol=0)


def test_what_cannot_be_pickled_says_so():
    def local(inputs, w):
        return noisy(inputs, w)

    layer = pickle.loads(pickle.dumps(QuantumLayer(qml.QNode(local, device("default.mixed")), {"w": 2})))
    with pytest.raises(CircuitError, match="pickled"):
        layer(torch.zeros(1, 2))


def test_the_qnode_shows_through():
    qnode = qml.QNode(many, device(), interface="torch")
    layer = QuantumLayer(qnode, MANY)
    assert layer.qnode is qnode
    assert (
        repr(layer)
        == str(layer)
        == ("QuantumLayer(4 qubits, 2 outputs, 7 weights, backend='native', diff_method='adjoint')")
    )
    assert layer.shots == qnode.shots and not hasattr(layer, "diff_options")
    assert QuantumLayer(qnode, MANY, shots=7).shots.total_shots == 7  # of what runs, not of the QNode
    assert QuantumLayer("xor", n_qubits=2, n_layers=1, shots=7).shots == 7
    assert layer.input_arg == "inputs" and list(layer.qnode_weights) == list(MANY)
    x = torch.randn(2, 2)
    tape = qml.workflow.construct_tape(layer)(x)
    assert len(tape.trainable_params) == 3
    assert "RX" in qml.draw(layer)(x)
    assert qml.specs(layer.qnode)(x, **layer.qnode_weights)["resources"].gate_types["CRY"] == 1
    layer.qnode_weights["a"] = torch.zeros(3)
    assert isinstance(layer.a, nn.Parameter) and not layer.a.any()
    with pytest.raises(AttributeError, match="nothing_of_the_sort"):
        _ = layer.nothing_of_the_sort


def test_the_name_of_the_inputs_is_the_one_of_its_time():
    def circuit(x, w):
        qml.RX(x[..., 0], wires=0)
        qml.RY(w, wires=0)
        return qml.expval(qml.Z(0))

    QuantumLayer.set_input_argument("x")
    try:
        layers = [
            QuantumLayer(circuit, {"w": 1}),
            QuantumLayer(qml.transforms.merge_rotations(qml.QNode(circuit, device())), {"w": 1}),
        ]
    finally:
        QuantumLayer.set_input_argument()
    assert [layer(torch.zeros(2, 3)).shape for layer in layers] == [(2,), (2,)]
    with pytest.raises(TypeError, match="inputs"):
        QuantumLayer(circuit, {"w": 1})


def test_names_of_weights():
    def circuit(inputs, device, interface):
        qml.RX(inputs[..., 0] + device, wires=0)
        qml.RY(interface, wires=0)
        return qml.expval(qml.Z(0))

    assert_same(circuit, {"device": np.int64(1), "interface": ()}, torch.randn(2, 1, dtype=torch.float64))

    def taken(inputs, training):
        return qml.expval(qml.Z(0))

    with pytest.raises(ArgumentError, match="'training'"):
        QuantumLayer(qml.QNode(taken, device()), {"training": 1})


@pytest.mark.parametrize(
    "name", ["backend", "executor", "func", "circuit", "rule", "n_inputs", "qnode", "forward", "train", "weight"]
)
def test_a_weight_may_have_the_name_of_a_property(name):
    layers = []
    for make in (QuantumLayer, lambda *args: QuantumLayer(*args, diff_method="parameter-shift")):
        space = {"qml": qml}
        exec(f"def f(inputs, {name}):\n qml.RX(inputs[..., 0] * {name}[1], 0)\n return qml.expval(qml.Z(0))", space)
        layers.append(make(qml.QNode(space["f"], device()), {name: (2,)}))
    first, second = layers
    assert [n for n, _ in first.named_parameters()] == [name] == list(first.qnode_weights)
    second.load_state_dict(first.state_dict())
    first.qnode_weights[name] = first.qnode_weights[name].detach().clone()
    x = torch.randn(3, 1)
    second(x)
    for layer in (second, copy.deepcopy(first), pickle.loads(pickle.dumps(second.double())).float()):
        torch.testing.assert_close(layer(x), torch.cos(x[:, 0] * first.qnode_weights[name][1]))
        layer(x).sum().backward()
        assert layer.qnode_weights[name].grad[1] != 0
    second.reset_parameters()
    assert (second.backend, "native") == (first.backend, repr(first).split("'")[1])


# ---- what is refused, and when -------------------------------------------------------------------------------------


def returning(what):
    def circuit(inputs, w):
        qml.RX(inputs[..., 0] * w, wires=0)
        return what()

    return circuit


def outside(inputs, w):
    qml.RX(w, wires=7)
    return qml.expval(qml.Z(0))


def too_far(inputs, w):
    qml.RX(w[5], wires=0)
    return qml.expval(qml.Z(0))


def broadcast(inputs, w):
    qml.RX(w, wires=0)
    return qml.expval(qml.Z(0))


def numeric(inputs, w):
    qml.RX(np.sin(inputs.numpy()[..., 0]), wires=0)
    qml.RY(w, wires=0)
    return qml.expval(qml.Z(0))


@pytest.mark.parametrize(
    ("function", "shape", "error", "text"),
    [
        (returning(lambda: {"a": qml.expval(qml.Z(0))}), 1, ArgumentError, "return"),
        (returning(lambda: [[qml.expval(qml.Z(0))]]), 1, ArgumentError, "return"),
        (returning(list), 1, ArgumentError, "return"),
        (outside, 1, ArgumentError, "wire 7"),
        (too_far, 2, ArgumentError, "n_inputs.*index 5"),
        (broadcast, 3, ArgumentError, "one number for each sample"),
    ],
)
def test_mistakes_are_named_when_the_layer_is_built(function, shape, error, text):
    with pytest.raises(error, match=text):
        QuantumLayer(qml.QNode(function, device()), {"w": shape})


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (numeric, "NumPy"),
        (returning(lambda: qml.purity(wires=0)), "purity"),
        (returning(lambda: qml.probs(op=qml.Hermitian(np.array([[1, 1], [1, -1]]), 0))), "Z basis"),
        (returning(lambda: qml.probs(op=qml.Hadamard(0))), "Z basis"),
    ],
)
def test_what_only_the_qnode_can_run_is_refused_to_functions_and_to_rules(function, text):
    with pytest.raises(CircuitError, match=text):
        QuantumLayer(function, {"w": 1})
    qnode = qml.QNode(function, device())
    with pytest.raises(CircuitError, match=text):
        QuantumLayer(qnode, {"w": 1}, backend="native")
    with pytest.raises(ArgumentError, match="on the QNode"):
        QuantumLayer(qnode, {"w": 1}, diff_method="parameter-shift")
    x = torch.randn(3, 2)
    y = QuantumLayer(qnode, {"w": 1}, seed=0)(x)
    assert y.shape[0] == 3 or y.shape == (3,)


@pytest.mark.parametrize("interface", ["jax", "autograd", "numpy"])
def test_interfaces(interface):
    with pytest.raises(ValueError, match="interface"):
        QuantumLayer(qml.QNode(many, device(), interface=interface), MANY)


def test_a_rule_that_is_not_to_be_had_is_refused_when_the_layer_is_built():
    with pytest.raises(GradientError, match="adjoint"):
        QuantumLayer(qml.QNode(entangled, device()), ENTANGLED, backend="default.mixed", diff_method="adjoint")
    with pytest.raises(GradientError, match="adjoint"):
        QuantumLayer(qml.set_shots(qml.QNode(many, device()), 10), MANY, diff_method="adjoint")


def test_inputs_that_are_refused():
    layer = QuantumLayer(qml.QNode(many, device(wires=2)), MANY)
    with pytest.raises(ArgumentError, match="real"):
        layer(torch.zeros(2, 2, dtype=torch.complex64))
    with pytest.raises(ArgumentError, match="does not take 3 inputs"):
        layer(torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match=r"\(\.\.\., 2\), but has \(\.\.\., 1\)"):
        QuantumLayer(qml.QNode(many, device(wires=2)), MANY, n_inputs=2)(torch.zeros(2, 1))


@pytest.mark.parametrize("options", [{}, {"normalize": True}, {"normalize": True, "pad_with": 0.3}], ids=str)
def test_complex_states_as_inputs(options):
    def circuit(inputs, w):
        qml.AmplitudeEmbedding(inputs, wires=range(2), **options)
        qml.StronglyEntanglingLayers(w, wires=range(2))
        return [qml.expval(qml.Y(0) @ qml.X(1)), qml.expval(qml.Y(1))]

    qnode = qml.QNode(circuit, device(wires=2))
    layer = QuantumLayer(qnode, {"w": (2, 2, 3)}, n_inputs=4 - bool(options.get("pad_with"))).double()
    x = torch.randn(5, layer.n_inputs, dtype=torch.complex128)  # PennyLane's own gradient of unit rows is without norm
    x = (nn.functional.normalize(x, dim=1) * (2 if options else 1)).requires_grad_()
    answers = []
    for y in (layer(x), torch.stack([torch.stack(qnode(row, layer.w)) for row in x])):
        answers.append([y, *torch.autograd.grad(y.pow(2).sum(), [x, layer.w])])
    torch.testing.assert_close(answers[0], answers[1], atol=1e-9, rtol=0)
    assert layer.backend == "native"


@pytest.mark.parametrize("transform", [torch.func.jacrev, lambda f: torch.func.grad(lambda v: f(v).sum()), torch.vmap])
def test_a_first_call_inside_a_transform(transform):
    first, later = (QuantumLayer(many, MANY, diff_method="backprop", seed=0) for _ in range(2))
    x = torch.randn(4, 2)
    later(x)
    torch.testing.assert_close(transform(first)(x), transform(later)(x))

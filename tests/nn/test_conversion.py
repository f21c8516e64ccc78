"""`qbp.convert`, `qbp.TorchLayer` and `qbp.TorchConnector`: what PennyLane's and Qiskit's layers give, qbp's give."""

from __future__ import annotations

import copy
import importlib.metadata
import itertools
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pennylane as qml
import pytest
import torch
from pennylane.qnn import TorchLayer
from qiskit import ClassicalRegister, QuantumCircuit, transpile
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.gradients import SPSAEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler
from torch import nn

import qbp
from qbp.errors import ArgumentError, CircuitError

pytestmark = [
    pytest.mark.filterwarnings("ignore::pennylane.exceptions.PennyLaneDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor:UserWarning"),
]


def function(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(0) @ qml.Y(1))]


SHAPES = {"weights": (2, 2, 3)}


def torchlayer(circuit=function, name="default.qubit", shapes=SHAPES, **options):
    return TorchLayer(qml.QNode(circuit, qml.device(name, wires=2), **options), shapes)


def same(model, other, x, atol=1e-6):
    """Outputs and gradients of inputs and parameters."""
    answers = []
    for each in (model, other):
        leaf = x.detach().clone().requires_grad_()
        y = each(leaf)
        weight = torch.linspace(-1, 2, y.numel()).cos().reshape(y.shape).to(y)
        leaves = [leaf, *(p for p in each.parameters() if p.requires_grad)]
        answers.append([y, *torch.autograd.grad((y * weight).sum(), leaves, allow_unused=True)])
    for want, got in zip(*answers, strict=True):
        torch.testing.assert_close(got, want, atol=atol, rtol=0)


def qubits(n, reps=1):
    """Data and weights of a Qiskit circuit."""
    x = zz_feature_map(n, reps=1) if n > 1 else z_feature_map(n, reps=1)
    ansatz = real_amplitudes(n, reps=reps)
    circuit = QuantumCircuit(n)
    circuit.compose(x, inplace=True)
    circuit.compose(ansatz, inplace=True)
    return {"circuit": circuit, "input_params": list(x.parameters), "weight_params": list(ansatz.parameters)}


# ---- convert: PennyLane ----------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Layers that are shared, kept in a list, tied by a weight, frozen, hooked."""

    def __init__(self, name="default.qubit"):
        super().__init__()
        self.first = torchlayer(name=name)
        self.again, self.listed = self.first, [self.first]
        self.tied = torchlayer(name=name)
        self.tied.weights = self.first.weights
        self.tied.qnode_weights["weights"] = self.first.weights
        self.frozen = torchlayer(name=name).requires_grad_(False)
        self.frozen.note = "as it was"
        self.linear = nn.Linear(2, 2)
        self.first.register_forward_hook(lambda module, args, output: 2 * output)
        self.frozen.register_forward_pre_hook(self.halved)
        self.frozen.eval()
        self.seen = 0

    def halved(self, module, args):
        self.seen += 1
        return (args[0] / 2,)

    def forward(self, x):
        return self.linear(self.listed[0](self.again(x)) + self.tied(x) * self.frozen(x))


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit"])
def test_a_model_keeps_all_but_its_speed(name):
    model, x = Net(name), torch.randn(5, 2)
    model(x)  # lightning's devices cannot be copied from now on
    faster = qbp.convert(model)
    assert type(model.first) is TorchLayer and isinstance(faster.first, qbp.QuantumLayer)
    assert faster.first is faster.again is faster.listed[0] and faster.tied.weights is faster.first.weights
    assert not faster.frozen.weights.requires_grad and faster.frozen.note == "as it was"
    assert (faster.training, faster.frozen.training) == (True, False)
    assert {m.backend for m in faster.modules() if isinstance(m, qbp.QuantumLayer)} == {"native"}
    assert [*faster.state_dict()] == [*model.state_dict()]
    for mine, theirs in zip(faster.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()
    if name == "default.qubit":
        same(model, faster, x, atol=1e-5)
    before = model.seen, faster.seen
    faster(x)
    assert (model.seen, faster.seen) == (before[0], before[1] + 1)  # the copy's hooks are the copy's
    again = qbp.convert(faster)
    assert torch.equal(again(x), faster(x))


def test_in_place_an_optimizer_goes_on():
    model, x = nn.Sequential(nn.Linear(3, 2), torchlayer()), torch.randn(4, 3)
    want, weights = model(x), model[1].weights
    handle = model[1].register_forward_hook(lambda module, args, output: output + 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert qbp.convert(model, inplace=True) is model and isinstance(model[1], qbp.QuantumLayer)
    torch.testing.assert_close(model(x), want + 1, atol=1e-6, rtol=0)
    handle.remove()
    torch.testing.assert_close(model(x), want, atol=1e-6, rtol=0)
    model(x).sum().backward()
    before = weights.detach().clone()
    optimizer.step()
    assert model[1].weights is weights and not torch.equal(weights, before)
    alone = torchlayer()
    assert isinstance(qbp.convert(alone, inplace=True), qbp.QuantumLayer)


def per_sample(inputs, w):
    for wire in range(2):
        qml.RY(inputs[wire] * w[wire], wires=wire)
    qml.CNOT([0, 1])
    return qml.probs(wires=[1, 0])


def for_batches(x, w):
    qml.RY(x[:, 0] * w, wires=0)
    qml.IsingXX(x[:, 1], wires=[0, 1])
    return qml.expval(qml.Z(1))


def amplitudes(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=range(2))
    qml.RY(w, wires=0)
    return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]


def damped(inputs, w):
    qml.RX(inputs[..., 0], wires=0)
    qml.AmplitudeDamping(0.2, wires=0)
    qml.RY(w, wires=0)
    return [qml.expval(qml.Z(0))]


@pytest.mark.parametrize(
    ("circuit", "shape", "name", "n_inputs"),
    [
        (per_sample, 2, "default.qubit", 2),
        (for_batches, 1, "default.qubit", 2),
        (amplitudes, 1, "default.qubit", 4),
        (damped, 1, "default.mixed", 1),
    ],
)
def test_functions_of_every_kind(circuit, shape, name, n_inputs):
    TorchLayer.set_input_argument("x" if circuit is for_batches else "inputs")
    try:
        layer = torchlayer(circuit, name, {"w": shape}).double()
        faster = qbp.convert(layer)
        x = nn.functional.normalize(torch.randn(4, n_inputs, dtype=torch.float64))
        rows = x if circuit is not for_batches else x[:, None]
        want = torch.stack([layer(row).reshape(-1) for row in rows])
    finally:
        TorchLayer.set_input_argument("inputs")
    assert faster.backend in ("native", "pauli") and qbp.QuantumLayer._input_arg == "inputs"
    torch.testing.assert_close(faster(x).reshape(want.shape), want, atol=1e-9, rtol=0)


def test_what_samples_keeps_its_device_and_what_runs_itself_does():
    def purity(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.StronglyEntanglingLayers(weights, wires=range(2))
        return qml.purity(0)

    sampled = TorchLayer(qml.set_shots(qml.QNode(function, qml.device("default.qubit")), 50), SHAPES)
    model = qbp.convert(nn.Sequential(sampled, torchlayer(purity)))
    assert (model[0].backend, model[0].executor.shots) == ("default.qubit", 50)
    assert model[1].executor is None and model[1](torch.randn(3, 2)).shape == (3,)


class Doubled(TorchLayer):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Renamed(TorchLayer):
    """Has nothing of its own that matters."""


def two_values(inputs, weights):
    return tuple(function(inputs, weights))


def test_what_cannot_be_converted_stays_and_is_named():
    qnode = torchlayer().qnode
    model = nn.ModuleDict(
        {
            "doubled": Doubled(qnode, SHAPES),
            "renamed": Renamed(qnode, SHAPES),
            "tuple": torchlayer(two_values),
            "parametrized": nn.utils.parametrizations.weight_norm(torchlayer(), "weights"),
            "replaced": torchlayer(),
        }
    )
    model["replaced"].weights = nn.Parameter(torch.zeros(2, 2, 3))
    with pytest.warns(UserWarning, match="stay as they are") as told:
        faster = qbp.convert(model)
    (text,) = [str(w.message) for w in told if "stay" in str(w.message)]
    assert re.findall(r"'(\w+)' \(", text) == ["doubled", "tuple", "parametrized", "replaced"], text
    assert isinstance(faster["renamed"], qbp.QuantumLayer) and type(faster["doubled"]) is Doubled
    for part in ("forward of its own", "return a list", "parametrizations", "was replaced"):
        assert part in text


def test_other_outputs_are_noticed():
    class Odd(type(torchlayer().qnode)):
        def __call__(self, *args, **kwargs):
            return [1.001 * part for part in super().__call__(*args, **kwargs)]

    layer = torchlayer()
    faster = qbp.convert(layer)
    layer.qnode = Odd(function, qml.device("default.qubit"))
    from qbp.nn.conversion import _compare

    with pytest.raises(CircuitError, match="outputs differ by"):
        _compare(layer, faster)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), lambda x: x, None])
def test_nothing_to_convert(model):
    with pytest.raises(ArgumentError, match="Argument `model`"):
        qbp.convert(model)


def test_converting_leaves_random_numbers_alone():
    model = nn.Sequential(torchlayer())
    torch.manual_seed(3)
    want = torch.rand(3)
    torch.manual_seed(3)
    qbp.convert(model)
    assert torch.equal(torch.rand(3), want)


def test_a_converted_model_is_a_file(tmp_path):
    connector = TorchConnector(EstimatorQNN(**qubits(2), observables=[SparsePauliOp("ZI"), SparsePauliOp("XX")]))
    model = qbp.convert(nn.Sequential(nn.Linear(3, 2), torchlayer(), connector))
    qbp.save_model(model, tmp_path / "model.safetensors")
    x = torch.randn(4, 3)
    torch.testing.assert_close(qbp.load_model(tmp_path / "model.safetensors")(x), model(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))
    assert [*pickle.loads(pickle.dumps(model[2])).state_dict()] == ["weight", "_weights"]


def by_index(inputs, weights):
    for wire in range(2):
        qml.RY(inputs[wire], wires=wire)
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return [qml.expval(qml.Z(wire)) for wire in range(2)]


def test_what_users_of_torchlayer_suffer_from():
    """Shift rules behind a layer that trains, rows by index in batches of any size, copies after calls on lightning."""
    shifted = nn.Sequential(nn.Linear(2, 2), torchlayer(diff_method="parameter-shift"))
    with pytest.raises(NotImplementedError):
        shifted(torch.randn(3, 2)).sum().backward()
    faster = qbp.convert(shifted)
    assert faster[1].diff_method == "parameter-shift"
    faster(torch.randn(3, 2)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in faster.parameters())
    rows = torch.randn(5, 2)
    layer = torchlayer(by_index)
    want = torch.stack([layer(row) for row in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faster = qbp.convert(layer)
    for n in (1, 2, 3, 5):
        torch.testing.assert_close(faster(rows[:n]), want[:n], atol=1e-6, rtol=0)
    compiled = torchlayer(name="lightning.qubit")
    compiled(rows)
    with pytest.raises((TypeError, NotImplementedError, RuntimeError)):
        copy.deepcopy(compiled)
    faster = qbp.convert(compiled)
    faster(rows)
    for other in (copy.deepcopy(faster), pickle.loads(pickle.dumps(faster))):
        torch.testing.assert_close(other(rows), compiled(rows), atol=1e-6, rtol=0)


def test_a_layer_in_front_of_a_connector_trains():
    model = nn.Sequential(nn.Linear(2, 2), TorchConnector(EstimatorQNN(**qubits(2))))
    model(torch.randn(3, 2)).sum().backward()
    assert model[0].weight.grad is None
    faster = qbp.convert(model)
    faster(torch.randn(3, 2)).sum().backward()
    assert faster[0].weight.grad.any()


# ---- convert: Qiskit -------------------------------------------------------------------------------------------------


def parity(outcome):
    return f"{outcome:b}".count("1") % 2


OBSERVABLES = {
    "default": None,
    "one": SparsePauliOp("ZX"),
    "several": [SparsePauliOp(["ZI", "IY", "II"], [0.5, -2, 1]), SparsePauliOp("XX")],
}


@pytest.mark.parametrize("observables", OBSERVABLES.values(), ids=OBSERVABLES)
def test_estimators(observables):
    network = EstimatorQNN(**qubits(2), observables=observables, input_gradients=True)
    model = nn.Sequential(nn.Linear(3, 2), TorchConnector(network), nn.Flatten())
    faster = qbp.convert(model)
    assert faster[1].backend == "native" and faster[1].neural_network.num_inputs == 2
    same(model, faster, torch.randn(5, 3), atol=1e-5)
    x = torch.randn(2, 3, 2)
    torch.testing.assert_close(faster[1](x), model[1](x), atol=1e-6, rtol=0)
    torch.testing.assert_close(faster[1](x[0, 0]), model[1](x[0, 0]), atol=1e-6, rtol=0)


INTERPRETATIONS = {
    "outcomes": {},
    "parity": {"interpret": parity, "output_shape": 2},
    "rest of three": {"interpret": lambda outcome: outcome % 3, "output_shape": 3},
    "with an empty one": {"interpret": lambda outcome: min(outcome, 1), "output_shape": 5},
    "pairs": {"interpret": lambda outcome: (outcome % 2, outcome // 4), "output_shape": (2, 2)},
}


@pytest.mark.parametrize("sparse", [False, pytest.param(True, marks=pytest.mark.slow)])  # `sparse` compiles
@pytest.mark.parametrize("options", INTERPRETATIONS.values(), ids=INTERPRETATIONS)
def test_samplers(options, sparse):
    network = SamplerQNN(**qubits(3), **options, sparse=sparse, input_gradients=True)
    connector = TorchConnector(network, sparse=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faster = qbp.convert(connector)
    x = torch.randn(4, 3)
    if sparse or (isinstance(network.output_shape, tuple) and len(network.output_shape) > 1):
        torch.testing.assert_close(faster(x), connector(x), atol=1e-6, rtol=0)
    else:
        same(connector, faster, x, atol=1e-5)
    if options.get("interpret") is parity:  # of however many qubits: the identity and one word
        assert [len(m.terms) for m in faster.circuit.program.measurements] == [2, 2]


@pytest.mark.slow
def test_sparse_outputs_are_dense():
    connector = TorchConnector(SamplerQNN(**qubits(2), sparse=True))
    faster, x = qbp.convert(connector), torch.randn(3, 2)
    assert connector(x).is_sparse and not faster(x).is_sparse and not faster.sparse
    torch.testing.assert_close(faster(x), connector(x).to_dense().float(), atol=1e-6, rtol=0)


def measured_in_part():
    parts = qubits(3)
    circuit = parts["circuit"]
    circuit.add_register(ClassicalRegister(2, "meas"))
    circuit.measure([2, 0], [0, 1])
    return parts


def test_bits_of_ones_own():
    network = SamplerQNN(**measured_in_part(), interpret=lambda outcome: outcome, output_shape=4)
    same(
        TorchConnector(network), qbp.convert(TorchConnector(network, np.zeros(6))), torch.zeros(2, 3)
    ) if False else None
    connector = TorchConnector(network)
    torch.testing.assert_close(qbp.convert(connector)(torch.ones(2, 3)), connector(torch.ones(2, 3)), atol=1e-6, rtol=0)


def test_an_original_whose_batches_are_wrong_is_told_of():
    """Qiskit counts all rows together where the register of bits has a name of its own."""
    parts = qubits(2)
    parts["circuit"].add_register(ClassicalRegister(2, "mine"))
    parts["circuit"].measure([0, 1], [1, 0])
    connector, x = TorchConnector(SamplerQNN(**parts)), torch.randn(3, 2)
    with pytest.warns(UserWarning, match="not those of its rows"):
        faster = qbp.convert(connector)
    rows = torch.cat([connector(row[None]) for row in x])
    assert not torch.allclose(connector(x), rows)
    torch.testing.assert_close(faster(x), rows, atol=1e-6, rtol=0)


def test_circuits_that_are_laid_out_on_a_device():
    parts = qubits(2)
    parts["circuit"] = transpile(
        parts["circuit"], coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], basis_gates=["rz", "sx", "x", "cx"],
        initial_layout=[3, 2], optimization_level=1, seed_transpiler=0,
    )  # fmt: skip
    observables = [SparsePauliOp(word).apply_layout(parts["circuit"].layout) for word in ("IZ", "XI")]
    estimator = TorchConnector(EstimatorQNN(**parts, observables=observables))
    x = torch.randn(3, 2)
    faster = qbp.convert(estimator)
    torch.testing.assert_close(faster(x), estimator(x), atol=1e-6, rtol=0)
    assert faster.circuit.n_qubits == 2
    sampler = TorchConnector(SamplerQNN(**parts))
    torch.testing.assert_close(qbp.convert(sampler)(x), sampler(x), atol=1e-6, rtol=0)


def no_data(n=2):
    circuit = real_amplitudes(n, reps=1)
    return EstimatorQNN(circuit=circuit, input_params=[], weight_params=circuit.parameters)


def test_circuits_without_data_or_weights():
    connector = TorchConnector(no_data())
    faster = qbp.convert(connector)
    torch.testing.assert_close(faster(), connector(), atol=1e-6, rtol=0)
    faster().sum().backward()
    assert faster.weight.grad is not None
    x = ParameterVector("x", 1)
    circuit = QuantumCircuit(1)
    circuit.ry(x[0], 0)
    fixed = TorchConnector(EstimatorQNN(circuit=circuit, input_params=x))
    other = qbp.convert(fixed)
    assert [*other.state_dict()] == [*fixed.state_dict()] == ["weight", "_weights"]
    torch.testing.assert_close(other(torch.ones(2, 1)), fixed(torch.ones(2, 1)), atol=1e-6, rtol=0)
    layer = qbp.QuantumLayer(circuit.assign_parameters([0.3]))
    assert layer().shape == (1,)


def test_primitives_that_are_not_exact_are_kept():
    noisy = EstimatorQNN(**qubits(2), estimator=StatevectorEstimator(seed=np.random.default_rng(1)))
    sampled = SamplerQNN(**qubits(2), sampler=QMLSampler(shots=200))
    exact = EstimatorQNN(**qubits(2), estimator=StatevectorEstimator(), default_precision=0.0)
    model = qbp.convert(nn.ModuleList(TorchConnector(n) for n in (noisy, sampled, exact)))
    assert model[2].backend == "native" and model[0].executor.shots == 4096 and model[1].executor.shots == 200
    x = torch.randn(2, 2)
    for layer in model:
        want = qbp.QuantumLayer(layer.circuit, init_method={"weight": layer.weight.detach()})(x)
        torch.testing.assert_close(layer(x), want, atol=0.2, rtol=0)
    assert not torch.equal(model[0](x), model[0](x))


def test_a_stochastic_gradient_stays_one():
    network = EstimatorQNN(**qubits(2), gradient=SPSAEstimatorGradient(QMLEstimator(), 0.01))
    assert qbp.TorchConnector(network).diff_method == "spsa"


# ---- the drop-in names -----------------------------------------------------------------------------------------------


class Tripled(EstimatorQNN):
    def _forward(self, input_data, weights):
        return 3 * super()._forward(input_data, weights)


def test_networks_of_other_kinds_are_refused_by_name():
    with pytest.raises(QiskitMachineLearningError, match="_forward of its own"):
        qbp.TorchConnector(Tripled(**qubits(2)))
    with pytest.raises(ArgumentError, match="Linear"):
        qbp.TorchConnector(nn.Linear(1, 1))
    model = nn.Sequential(TorchConnector(Tripled(**qubits(2))))
    with pytest.warns(UserWarning, match="'0' .*_forward of its own"):
        assert type(qbp.convert(model)[0]) is TorchConnector
    with pytest.raises(QiskitMachineLearningError, match="sparse"):
        qbp.TorchConnector(EstimatorQNN(**qubits(2)), sparse=True)
    far = SamplerQNN(**qubits(2), interpret=lambda outcome: outcome, output_shape=2)
    with pytest.raises(CircuitError, match="interpret"):
        qbp.TorchConnector(far)


def test_connectors_as_qiskits():
    network = EstimatorQNN(**qubits(2))
    for initial in (None, np.arange(4) / 4, torch.arange(4.0)):
        torch.manual_seed(2)
        theirs = TorchConnector(network, initial)
        torch.manual_seed(2)
        ours = qbp.TorchConnector(neural_network=network, initial_weights=initial)
        assert torch.equal(ours.weight, theirs.weight) and ours.weight is ours._weights
        assert [(n, p.dtype) for n, p in ours.named_parameters()] == [
            (n, p.dtype) for n, p in theirs.named_parameters()
        ]
    x = torch.randn(3, 2)
    torch.testing.assert_close(ours(input_data=x), theirs(input_data=x), atol=1e-7, rtol=0)
    assert ours(x.double()).dtype == torch.float64 and ours(x.half()).dtype == torch.float16
    for wrong in (torch.zeros(2, 3), torch.tensor(1.0), [0.1, 0.2], torch.zeros(0)):
        with pytest.raises(QiskitMachineLearningError, match=r"`input_data` must have shape \(\.\.\., 2\)"):
            ours(wrong)


@pytest.mark.parametrize("nested", [False, True])
def test_state_dicts_of_connectors_go_both_ways(tmp_path, nested):
    network, x = EstimatorQNN(**qubits(2)), torch.randn(3, 2)

    def model(kind):
        layer = kind(network)
        return nn.Sequential(layer, nn.Linear(1, 1)) if nested else layer

    def plain(network):
        return qbp.QuantumLayer(
            network.circuit, observables=network.observables[0],
            input_params=network.input_params, weight_params=network.weight_params,
        )  # fmt: skip

    theirs = model(TorchConnector)
    for kind in (qbp.TorchConnector, plain):
        ours = model(kind)
        torch.save(theirs.state_dict(), tmp_path / "weights.pt")
        ours.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)
    mine = model(qbp.TorchConnector)
    theirs.load_state_dict(mine.state_dict())
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-6, rtol=0)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        qbp.QuantumLayer("xor", n_qubits=2, n_layers=1).load_state_dict(qbp.TorchConnector(network).state_dict())


def test_torchlayers_as_pennylanes():
    qnode = torchlayer().qnode
    torch.manual_seed(2)
    theirs = TorchLayer(qnode, SHAPES)
    torch.manual_seed(2)
    ours = qbp.TorchLayer(qnode=qnode, weight_shapes=SHAPES)
    assert isinstance(ours, TorchLayer) and repr(ours) == repr(theirs)
    assert torch.equal(ours.weights, theirs.weights)
    x = torch.randn(3, 2)
    same(theirs, ours, x, atol=1e-6)
    curvatures = [torch.autograd.functional.hessian(lambda x, m=m: m(x).pow(2).sum(), x) for m in (theirs, ours)]
    torch.testing.assert_close(curvatures[1], curvatures[0], atol=1e-5, rtol=0)
    jacobians = [torch.func.jacrev(ours)(x), torch.autograd.functional.jacobian(theirs, x)]
    torch.testing.assert_close(*jacobians, atol=1e-5, rtol=0)
    ours.qnode = torchlayer(two_values).qnode
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), copy.copy(ours)):
        torch.testing.assert_close(other(x), ours(x))
        assert type(other) is type(ours)
    assert ours(x.to(torch.int64)).dtype == torch.float32 and "Quantum" in repr(pickle.loads(pickle.dumps(ours)))


def rooms(distribution):
    return Path(str(importlib.metadata.distribution(distribution).locate_file("")))


@pytest.mark.slow
def test_pennylanes_own_tests(tmp_path):
    """Those that the package brings, with the class exchanged; two run for no interface of torch's."""
    tests = rooms("pennylane") / "tests"
    if not (tests / "qnn" / "test_qnn_torch.py").exists():
        pytest.skip("this build of PennyLane brings no tests")
    (tmp_path / "qnn").mkdir()
    for name in ("conftest.py", "qnn/conftest.py", "qnn/test_qnn_torch.py"):
        text = (
            (tests / name)
            .read_text()
            .replace("from pennylane.qnn.torch import TorchLayer", "from qbp import TorchLayer")
        )
        (tmp_path / name).write_text(text.replace("= qp.qnn.TorchLayer(", "= TorchLayer("))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    torch\n    all_interfaces\n")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:logging", "-p", "no:pytest_rng", "-W", "ignore"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(tmp_path / "qnn")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(qbp.__file__).parent.parent)},
    )
    assert re.search(r"10[4-9] passed, 2 skipped", run.stdout), run.stdout[-3000:]


@pytest.mark.slow
def test_products_of_options_as_qiskits_own_tests_have_them():
    """The grid of Qiskit Machine Learning's test of connectors: qubits, sparse connector, sparse network, parity."""
    for n, sparse_connector, sparse_network, interpret in itertools.product(
        (1, 2), (True, False), (True, False), (parity, None)
    ):
        shape = {"interpret": interpret, "output_shape": 2} if interpret else {}
        network = SamplerQNN(**qubits(n), sparse=sparse_network, **shape)
        if sparse_connector and not sparse_network:
            with pytest.raises(QiskitMachineLearningError):
                qbp.TorchConnector(network, sparse=sparse_connector)
            continue
        model, x = qbp.TorchConnector(network, sparse=sparse_connector), torch.rand(2, n)
        weights = model.weight.detach().numpy()
        want, (_, gradient) = network.forward(x.numpy(), weights), network.backward(x.numpy(), weights)
        want, gradient = (part.todense() if sparse_network else part for part in (want, gradient))
        np.testing.assert_almost_equal(model(x).detach().numpy(), want)
        model(x)[:, 0].sum().backward()
        np.testing.assert_almost_equal(model.weight.grad.numpy(), gradient[:, 0].sum(0), decimal=6)


def test_the_error_of_cuts_is_told_in_double_precision_too():
    """float32 rows are rounded after the circuit: what the executor says of its outputs reaches the layer."""

    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(6))
        qml.StronglyEntanglingLayers(weights, wires=range(6))
        return [qml.expval(qml.Z(wire)) for wire in range(6)]

    node = qml.QNode(circuit, qml.device("default.qubit", wires=6))
    layer, x = qbp.TorchLayer(node, {"weights": (3, 6, 3)}), torch.randn(4, 6)
    exact = layer(x).detach()
    layer.set_backend("pauli-propagation:min_coefficient=0.05")
    off = (layer(x) - exact).abs()
    told = layer.last_truncation
    assert told is not None and told.shape == off.shape and bool((off <= told).all()) and off.max() > 1e-3

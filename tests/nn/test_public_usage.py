"""What people do with TorchLayer and TorchConnector in public code and bug reports, with a quantum layer in their
place; the values are PennyLane's, row by row, or Qiskit's."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit import AncillaRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Gate, Parameter, ParameterVector
from qiskit.circuit.library import (
    XGate,
    efficient_su2,
    n_local,
    pauli_feature_map,
    qaoa_ansatz,
    real_amplitudes,
    z_feature_map,
    zz_feature_map,
)
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector
from torch import nn

import qbp
from qbp import QuantumLayer
from qbp.circuit.program import Probs
from qbp.errors import ArgumentError


def circuit(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return [qml.expval(qml.Z(k)) for k in range(2)]


SHAPES = {"weights": (3, 2, 3)}


def qnode(**options):
    return qml.QNode(circuit, qml.device(options.pop("device", "default.qubit"), wires=2), **options)


def by_rows(x, weights):
    return torch.stack([torch.stack(qnode()(row, weights)) for row in x.reshape(-1, 2)]).reshape(x.shape)


def assert_right(layer, x):
    torch.testing.assert_close(layer(x).double(), by_rows(x.double(), layer.weights.double()), atol=1e-5, rtol=0)


X = torch.linspace(-1, 1, 10).reshape(5, 2)

USES = {}


def use(function):
    USES[function.__name__] = function
    return function


@use
def a_batch_of_one_and_no_batch():
    layer = QuantumLayer(qnode(), SHAPES)
    for x in (X, X[:1], X[0]):
        assert_right(layer, x)


@use
def sequences_with_leading_axes():
    layer = QuantumLayer(qnode(), SHAPES)
    assert_right(layer, torch.randn(2, 3, 4, 2))
    assert layer(torch.zeros(0, 2)).shape == (0, 2)


@use
def inputs_that_are_no_contiguous_memory():
    layer = QuantumLayer(qnode(), SHAPES)
    assert_right(layer, torch.randn(2, 6).T)
    assert_right(layer, torch.randn(6, 4)[:, ::2])
    assert_right(layer, torch.randn(1, 2).expand(4, 2))


@use
def integers_booleans_and_halves():
    layer = QuantumLayer(qnode(), SHAPES)
    assert_right(layer, torch.tensor([[0, 1], [2, 3]]))
    assert_right(layer, torch.tensor([[True, False]]))
    assert layer(X.bfloat16()).dtype == torch.bfloat16


@use
def doubles_into_a_float_layer():
    layer = QuantumLayer(qnode(), SHAPES)
    assert layer(X.double()).dtype == torch.float64
    model = nn.Sequential(nn.Linear(2, 2), layer, nn.Linear(2, 1)).double()
    model(X.double()).sum().backward()
    assert layer.weights.grad.dtype == torch.float64


@use
def chunks_of_features_to_two_layers():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (QuantumLayer(qnode(), SHAPES) for _ in range(2))

        def forward(self, x):
            a, b = torch.split(x, 2, dim=1)
            return torch.cat([self.first(a), self.second(b)], dim=1)

    model, x = Two(), torch.randn(3, 4)
    want = torch.cat([by_rows(x[:, :2], model.first.weights), by_rows(x[:, 2:], model.second.weights)], 1)
    torch.testing.assert_close(model(x).double(), want.double(), atol=1e-5, rtol=0)
    assert set(model.state_dict()) == {"first.weights", "second.weights"}


@use
def a_list_of_layers_as_patches():
    generators = nn.ModuleList(QuantumLayer(qnode(), SHAPES) for _ in range(3))
    outputs = torch.cat([generator(X) for generator in generators], 1)
    assert outputs.shape == (5, 6)
    outputs.sum().backward()
    assert all(g.weights.grad.abs().sum() > 0 for g in generators)


@use
def one_layer_at_every_step_of_a_recurrence():
    layer, cell = QuantumLayer(qnode(), SHAPES), nn.Linear(4, 2)
    hidden = torch.zeros(5, 2)
    for _ in range(4):
        hidden = layer(cell(torch.cat([X, hidden], 1)))
    hidden.sum().backward()
    assert cell.weight.grad.abs().sum() > 0 and layer.weights.grad.abs().sum() > 0


@use
def deepcopy_and_pickle_after_use():
    for device in ("default.qubit", "lightning.qubit"):
        layer = QuantumLayer(qnode(device=device), SHAPES)
        layer(X).sum().backward()
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(other(X), layer(X))
            with torch.no_grad():
                other.weights.zero_()
            assert not torch.equal(other(X), layer(X))


@use
def torch_save_of_model_and_of_state():
    model = nn.Sequential(nn.Linear(2, 2), QuantumLayer(qnode(), SHAPES))
    file, state = io.BytesIO(), io.BytesIO()
    torch.save(model, file)
    torch.save(model.state_dict(), state)
    file.seek(0), state.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(X), model(X))
    other = nn.Sequential(nn.Linear(2, 2), QuantumLayer(qnode(), SHAPES))
    other.load_state_dict(torch.load(state))
    assert torch.equal(other(X), model(X))


@use
def state_of_a_torchlayer():
    theirs = qml.qnn.TorchLayer(qnode(), SHAPES)
    layer = QuantumLayer(qnode(), SHAPES)
    layer.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(layer(X).double(), theirs(X).double(), atol=1e-5, rtol=0)


@use
def a_seed_before_building():
    torch.manual_seed(3)
    first = QuantumLayer(qnode(), SHAPES).weights.clone()
    torch.manual_seed(3)
    assert torch.equal(qml.qnn.TorchLayer(qnode(), SHAPES).weights, first)


@use
def initial_values_by_name():
    start = torch.full((3, 2, 3), 0.3)
    assert torch.equal(QuantumLayer(qnode(), SHAPES, {"weights": start}).weights, start)
    assert QuantumLayer(qnode(), SHAPES, init_method=nn.init.zeros_).weights.abs().sum() == 0


@use
def sizes_as_integers():
    def one(inputs, a, b):
        qml.RX(inputs[0] * a, wires=0)
        qml.RY(b[0] + b[1], wires=0)
        return qml.expval(qml.Z(0))

    layer = QuantumLayer(one, {"a": 1, "b": 2})
    assert layer.a.shape == () and layer.b.shape == (2,) and layer(X[:, :1]).shape == (5,)


@use
def frozen_quantum_weights():
    layer = QuantumLayer(qnode(), SHAPES).requires_grad_(False)
    model = nn.Sequential(nn.Linear(2, 2), layer)
    model(X).sum().backward()
    assert layer.weights.grad is None and model[0].weight.grad.abs().sum() > 0


@use
def groups_of_learning_rates_and_clipping():
    model = nn.Sequential(nn.Linear(2, 2), QuantumLayer(qnode(), SHAPES), nn.Linear(2, 1))
    optimizer = torch.optim.Adam([{"params": model[1].parameters(), "lr": 0.1}, {"params": model[0].parameters()}])
    before = model[1].weights.clone()
    model(X).square().mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    assert 0.05 < (model[1].weights - before).abs().max() <= 0.11


@use
def lbfgs():
    layer = QuantumLayer(qnode(), SHAPES, seed=0)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=5)

    def closure():
        optimizer.zero_grad()
        loss = layer(X).square().sum()
        loss.backward()
        return loss

    start = optimizer.step(closure)
    assert closure() < start


@use
def data_parallel_on_the_cpu():
    layer = QuantumLayer(qnode(), SHAPES)
    assert torch.equal(nn.DataParallel(layer)(X), layer(X))


@use
def several_models_by_vmap():
    layers = [QuantumLayer(qnode(), SHAPES, diff_method="backprop") for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(layers)

    def call(state):
        return torch.func.functional_call(layers[0], state, (X,))

    together = torch.vmap(call)(stacked)
    torch.testing.assert_close(together, torch.stack([layer(X) for layer in layers]), atol=1e-5, rtol=0)


@use
def jacobians_and_hessians():
    layer = QuantumLayer(qnode(), SHAPES, diff_method="backprop").double()
    x = X[0].double()
    own = torch.func.jacrev(layer)(x)
    theirs = torch.autograd.functional.jacobian(lambda v: torch.stack(qnode()(v, layer.weights)), x)
    torch.testing.assert_close(own, theirs.double(), atol=1e-6, rtol=0)
    native = QuantumLayer(qnode(), SHAPES).double()
    native.load_state_dict(layer.state_dict())
    second = torch.autograd.functional.hessian(lambda v: native(v).sum(), x)
    expected = torch.autograd.functional.hessian(lambda v: sum(qnode()(v, layer.weights)), x)
    torch.testing.assert_close(second, expected.double(), atol=1e-6, rtol=0)


@use
def physics_loss_with_derivatives_of_the_inputs():
    layer = QuantumLayer(qnode(), SHAPES).double()
    x = X.double().requires_grad_()
    (slope,) = torch.autograd.grad(layer(x)[:, 0].sum(), x, create_graph=True)
    (own,) = torch.autograd.grad((slope[:, 0] - 1).square().sum(), layer.weights)
    weights = layer.weights.detach().clone().requires_grad_()
    theirs = by_rows(x, weights)
    (slope,) = torch.autograd.grad(theirs[:, 0].sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad((slope[:, 0] - 1).square().sum(), weights)
    torch.testing.assert_close(own, expected, atol=1e-6, rtol=0)


@use
def hooks_and_weight_norm():
    layer = QuantumLayer(qnode(), SHAPES)
    seen = []
    layer.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    nn.utils.parametrizations.weight_norm(layer, "weights")
    layer(X).sum().backward()
    assert seen == [(5, 2)]


@use
def eval_no_grad_and_inference_mode():
    layer = QuantumLayer(qnode(), SHAPES).eval()
    with torch.no_grad():
        first = layer(X)
    with torch.inference_mode():
        second = layer(X)
    assert not first.requires_grad and torch.equal(first, second)


@use
def behind_dropout_and_batch_norm():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Tanh(), QuantumLayer(qnode(), SHAPES))
    model(X).sum().backward()
    assert model[0].weight.grad is not None
    model.eval()
    assert torch.equal(model(X), model(X))


@use
def a_data_argument_of_another_name():
    def circuit(x, weights):
        qml.AngleEmbedding(x, wires=range(2))
        qml.StronglyEntanglingLayers(weights, wires=range(2))
        return [qml.expval(qml.Z(k)) for k in range(2)]

    class Layer(QuantumLayer):
        _input_arg = "x"

    assert_right(Layer(circuit, SHAPES), X)


@use
def a_method_as_circuit():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.depth = 2
            self.layer = QuantumLayer(
                qml.QNode(self.circuit, qml.device("default.qubit", wires=2)), {"weights": (3, 2)}
            )

        def circuit(self, inputs, weights):
            for row in weights[: self.depth]:
                qml.AngleEmbedding(inputs, wires=range(2))
                qml.BasicEntanglerLayers(row[None], wires=range(2))
            return qml.expval(qml.Z(0))

        def forward(self, x):
            return self.layer(x)

    model = Model()
    want = torch.stack([model.layer.qnode(row, model.layer.weights) for row in X])
    torch.testing.assert_close(model(X).double(), want.double(), atol=1e-5, rtol=0)
    model.depth = 3
    want = torch.stack([model.layer.qnode(row, model.layer.weights) for row in X])
    torch.testing.assert_close(model(X).double(), want.double(), atol=1e-5, rtol=0)


@use
def shots_in_a_list():
    sampled = qml.set_shots(qnode(), (10, 10, 20))
    assert QuantumLayer(sampled, SHAPES)(X).shape == (3, 5, 2)


@use
def shots_of_the_decorator():
    layer = QuantumLayer(qml.set_shots(qnode(), 4000), SHAPES)
    assert layer.shots.total_shots == 4000
    assert 0 < (layer(X) - by_rows(X, layer.weights)).abs().max() < 0.12
    layer(X).sum().backward()


@use
def density_matrix_as_output():
    def circuit(inputs, weights):
        qml.RX(inputs[0], wires=0)
        qml.RY(weights[0], wires=1)
        qml.CNOT([0, 1])
        return qml.density_matrix(wires=0)

    node = qml.QNode(circuit, qml.device("default.qubit", wires=2))
    layer = QuantumLayer(node, {"weights": 2})
    assert layer.backend == "qnode on default.qubit"


@use
def drawn_and_counted():
    layer = QuantumLayer(qnode(), SHAPES)
    assert "StronglyEntanglingLayers" in qml.draw(layer)(X[0])
    assert qml.specs(layer)(X[0])["resources"].num_gates > 0


@use
def clipped_by_hand_and_multiplied_in_place():
    layer = QuantumLayer(qnode(), SHAPES)
    with torch.no_grad():
        layer.weights.mul_(0.1).clamp_(-0.2, 0.2)
    assert_right(layer, X)
    layer.weights.data = torch.zeros(3, 2, 3)
    assert_right(layer, X)
    layer.weights = nn.Parameter(torch.ones(3, 2, 3))
    assert_right(layer, X)


@use
def on_the_meta_device_and_back():
    layer = QuantumLayer(qnode(), SHAPES).to("cpu", torch.float64).cpu().float()
    assert layer.weights.dtype == torch.float32
    assert_right(layer, X)


@use
def the_wrong_number_of_inputs():
    layer = QuantumLayer(qnode(), SHAPES)
    with pytest.raises((ArgumentError, RuntimeError, ValueError)):
        layer(torch.zeros(5, 3))


@use
def nan_and_infinite_inputs():
    layer = QuantumLayer(qnode(), SHAPES)
    outputs = layer(torch.tensor([[math.nan, 0.0], [0.1, 0.2]]))
    assert outputs[0].isnan().any() and not outputs[1].isnan().any()


@use
def large_angles():
    layer = QuantumLayer(qnode(), SHAPES).double()
    assert_right(layer, torch.tensor([[1e3, -4e2], [2 * math.pi, 4 * math.pi]], dtype=torch.float64))


@use
def compiled():
    layer = QuantumLayer(qnode(), SHAPES)
    model = nn.Sequential(nn.Linear(2, 2), layer)
    fast = torch.compile(model, backend="eager")
    torch.testing.assert_close(fast(X), model(X))
    fast(X).sum().backward()


@use
def traced_by_jit():
    """With torch's own check, and as a function of inputs and weights rather than of the outputs of the trace."""
    for options in ({}, {"backend": "lightning.qubit"}, {"diff_method": "backprop"}):
        layer = QuantumLayer(circuit, SHAPES, **options)
        model = nn.Sequential(nn.Linear(2, 2), layer)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                traced = torch.jit.trace(model, X)
            torch.testing.assert_close(traced(X + 1), model(X + 1))
        with torch.no_grad():
            layer.weights.add_(0.3)
        torch.testing.assert_close(traced(X), model(X))
        traced(X).sum().backward()
        own = layer.weights.grad.clone()
        layer.zero_grad()
        model(X).sum().backward()
        torch.testing.assert_close(own, layer.weights.grad)


@use
def an_average_of_models():
    layer = QuantumLayer(qnode(), SHAPES)
    average = torch.optim.swa_utils.AveragedModel(layer)
    average.update_parameters(layer)
    assert torch.equal(average(X), layer(X))


@use
def a_ledger_of_gradients_by_sample():
    layer = QuantumLayer(qnode(), SHAPES, diff_method="backprop")
    state = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(state, x):
        return torch.func.functional_call(layer, state, (x[None],)).sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(state, X)["weights"]
    layer(X).sum().backward()
    torch.testing.assert_close(each.sum(0), layer.weights.grad, atol=1e-5, rtol=0)


@use
def accumulated_and_checkpointed():
    layer = QuantumLayer(qnode(), SHAPES)
    layer(X).sum().backward()
    whole = layer.weights.grad.clone()
    layer.zero_grad()
    for row in X:
        layer(row[None]).sum().backward()
    torch.testing.assert_close(layer.weights.grad, whole, atol=1e-5, rtol=0)
    layer.zero_grad()
    x = X.clone().requires_grad_()
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).sum().backward()
    torch.testing.assert_close(layer.weights.grad, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", [n if k % 3 == 0 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(USES)]
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_uses(name):
    USES[name]()


# ---- Qiskit ----------------------------------------------------------------------------------------------------------

x, w = ParameterVector("x", 3), ParameterVector("w", 6)


def composed(feature_map, ansatz):
    circuit = QuantumCircuit(feature_map.num_qubits)
    circuit.compose(feature_map, inplace=True)
    circuit.compose(ansatz, inplace=True)
    return circuit, list(feature_map.parameters), list(ansatz.parameters)


def by_hand():
    circuit = QuantumCircuit(3)
    for k in range(3):
        circuit.ry(x[k], k)
        circuit.rz(x[k] ** 2, k)
    circuit.barrier()
    for k in range(6):
        circuit.ry(w[k], k % 3)
        circuit.cx(k % 3, (k + 1) % 3)
    return circuit, list(x), list(w)


def reuploaded():
    circuit = QuantumCircuit(1)
    for k in range(3):
        circuit.u(x[0] * w[2 * k], x[1] + w[2 * k + 1], x[2], 0)
    return circuit, list(x), list(w)


def instruction():
    inner, inputs, weights = composed(z_feature_map(2, reps=1), real_amplitudes(2, reps=1))
    outer = QuantumCircuit(3)
    outer.append(inner.to_instruction(), [2, 0])
    outer.cx(2, 1)
    return outer, inputs, weights


def convolution(weights, n):
    circuit = QuantumCircuit(n)
    for k in range(n - 1):
        circuit.rz(-np.pi / 2, k + 1)
        circuit.cx(k + 1, k)
        circuit.rz(weights[0], k)
        circuit.ry(weights[1], k + 1)
        circuit.cx(k, k + 1)
        circuit.ry(weights[2], k + 1)
    return circuit


def convolutional():
    circuit = z_feature_map(3, reps=1)
    inputs = list(circuit.parameters)
    circuit.compose(convolution(w[:3], 3), inplace=True)
    circuit.compose(convolution(w[3:], 2).to_gate(label="pool"), [0, 2], inplace=True)
    return circuit, inputs, list(w)


def one_angle():
    theta, circuit = Parameter("θ"), QuantumCircuit(1)
    circuit.h(0)
    circuit.ry(theta, 0)
    circuit.measure_all()
    return circuit, [theta], []


def transpiled():
    circuit, inputs, weights = composed(zz_feature_map(2), real_amplitudes(2, reps=1))
    return transpile(circuit, basis_gates=["rz", "sx", "x", "cx"], optimization_level=2), inputs, weights


def bound_in_part():
    circuit, inputs, weights = by_hand()
    return circuit.assign_parameters({w[0]: 0.3, w[1]: 2 * w[2]}), inputs, weights[2:]


def weights_in_front():
    circuit, weights, inputs = composed(real_amplitudes(2, reps=1), zz_feature_map(2, reps=1))
    return circuit, inputs, weights


class Own(Gate):
    """A gate with nothing but a definition."""

    def __init__(self, first, second):
        super().__init__("own", 2, [first, second])

    def _define(self):
        self.definition = QuantumCircuit(2)
        self.definition.rx(self.params[0], 0)
        self.definition.cz(0, 1)
        self.definition.ry(self.params[1], 1)


def own_gates():
    first, second, ancilla = QuantumRegister(1, "a"), QuantumRegister(1, "b"), AncillaRegister(1, "c")
    circuit = QuantumCircuit(first, second, ancilla)
    circuit.append(Own(x[0], w[0]), [1, 0])
    circuit.append(Own(w[1], x[1]).inverse(), [first[0], ancilla[0]])
    circuit.append(Own(x[2], w[0]).control(1, ctrl_state=0), [ancilla[0], second[0], first[0]])
    circuit.append(XGate().power(0.3), [1])
    return circuit, list(x), list(w[:2])


QISKIT = {
    "ZZFeatureMap and RealAmplitudes": lambda: composed(zz_feature_map(2), real_amplitudes(2, reps=1)),
    "four features, full entanglement": lambda: composed(
        zz_feature_map(4, reps=1), real_amplitudes(4, reps=2, entanglement="full")
    ),
    "PauliFeatureMap and EfficientSU2": lambda: composed(
        pauli_feature_map(3, paulis=["Z", "YX"], reps=1), efficient_su2(3, reps=1, entanglement="sca")
    ),
    "ZFeatureMap and a two-local circuit": lambda: composed(
        z_feature_map(3, reps=2), n_local(3, ["rx", "rz"], "cz", entanglement="circular", reps=2)
    ),
    "QAOA as an ansatz": lambda: composed(
        z_feature_map(3, reps=1), qaoa_ansatz(SparsePauliOp(["ZZI", "IZZ", "ZIZ"], [1, 0.5, 2]), reps=2).decompose()
    ),
    "by hand with squares": by_hand,
    "one qubit, data again and again": reuploaded,
    "as one instruction on other qubits": instruction,
    "convolution and pooling": convolutional,
    "one angle, measured": one_angle,
    "transpiled": transpiled,
    "weights in front of the data": weights_in_front,
    "bound in part": bound_in_part,
    "gates of one's own, registers": own_gates,
}


@pytest.mark.parametrize(
    "name", [n if k % 3 == 0 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(QISKIT)]
)
@pytest.mark.parametrize("measured", ["Z of all", "one sum", "probabilities"])
def test_qiskit(name, measured):
    circuit, inputs, weights = QISKIT[name]()
    n = circuit.num_qubits
    operators = {
        "Z of all": [SparsePauliOp.from_sparse_list([("Z", [k], 1)], n) for k in range(n)],
        "one sum": [SparsePauliOp.from_sparse_list([("Z", [0], 0.5), ("X", [n - 1], -1), ("Y" * n, range(n), 2)], n)],
        "probabilities": Probs(tuple(range(n))[::-1]),
    }[measured]
    layer = QuantumLayer(circuit, observables=operators, input_params=inputs, weight_params=weights or None).double()
    assert (layer.backend, layer.diff_method) == ("native", "adjoint")
    rows = torch.linspace(0.2, 1.1, 2 * len(inputs), dtype=torch.float64).reshape(2, -1)

    def value(row, weight):
        bound = circuit.remove_final_measurements(inplace=False).assign_parameters(
            dict(zip([*inputs, *weights], [*row, *weight], strict=True))
        )
        state = Statevector(bound)
        if measured == "probabilities":
            return state.probabilities()
        return np.array([state.expectation_value(o).real for o in operators])

    start = layer.weight.tolist() if weights else []
    want = np.stack([value(row, start) for row in rows.tolist()])
    outputs = layer(rows.requires_grad_())
    np.testing.assert_allclose(outputs.detach(), want, atol=1e-9)
    outputs.sum(0)[0].backward()
    step = 1e-5
    for k in range(len(inputs)):
        ends = [value([v + s * step * (j == k) for j, v in enumerate(rows[1].tolist())], start)[0] for s in (1, -1)]
        assert abs(rows.grad[1, k].item() - (ends[0] - ends[1]) / (2 * step)) < 1e-6
    for k in range(len(weights)):
        ends = [
            sum(value(r, [v + s * step * (j == k) for j, v in enumerate(start)])[0] for r in rows.tolist())
            for s in (1, -1)
        ]
        assert abs(layer.weight.grad[k].item() - (ends[0] - ends[1]) / (2 * step)) < 1e-6


def test_the_default_observable_of_an_estimatorqnn_is_given_by_name():
    circuit, inputs, weights = QISKIT["by hand with squares"]()
    layer = QuantumLayer(circuit, observables=Operator.from_label("ZZZ"), input_params=inputs, weight_params=weights)
    assert layer(torch.zeros(4, 3)).shape == (4, 1)
    assert qbp.trace(circuit, observables="ZZZ", input_params=inputs, weight_params=weights).program.n_outputs == 1

"""The layer inside torch models: gradients by every executor and rule, what it costs, copies, dtypes, errors."""

from __future__ import annotations

import copy
import math
import multiprocessing
import pickle

import pennylane as qml
import pytest
import torch
from torch import nn

from qbp import _moved
from qbp.circuit.angles import Angles
from qbp.errors import ArgumentError, CircuitError, GradientError
from qbp.executors import Capabilities
from qbp.executors.dense import Dense
from qbp.nn.layer import QuantumLayer
from qbp.testing import gradcheck


def nasty(inputs, weights):
    """Products of inputs and weights, shared, scaled and controlled parameters, inputs after entanglers."""
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.Rot(*weights[:3], wires=1)
    qml.CRX(2 * weights[0], wires=[0, 2])
    qml.IsingXY(inputs[0] * weights[3], wires=[2, 1])
    qml.ControlledPhaseShift(weights[3] - inputs[2], wires=[1, 0])
    qml.CRot(*weights[1:], wires=[2, 0])
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Y(2) - 0.5 * qml.Z(1))]


def hybrid(backend="auto", diff_method="best", source=nasty, shapes=None, **options):
    layer = QuantumLayer(source, shapes or {"weights": 4}, backend=backend, diff_method=diff_method, **options)
    layer(torch.zeros(1, 3))
    return nn.Sequential(nn.Linear(2, 3), layer, nn.Linear(layer.n_outputs, 2))


def torch_gradcheck(model, x, **options):
    """torch's own check, for the inputs and for every parameter."""
    names, parameters = zip(*model.named_parameters(), strict=True)

    def outputs(x, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    tensors = (x.requires_grad_(), *(p.detach().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(outputs, tensors, **options)


EXECUTORS = ["native", "dense", "default.qubit", "lightning.qubit"]


@pytest.mark.parametrize("batch", [1, 7, 32])
@pytest.mark.parametrize("diff_method", ["adjoint", "backprop", "parameter-shift", "finite-diff"])
@pytest.mark.parametrize("backend", EXECUTORS)
def test_gradients_between_linear_layers(backend, diff_method, batch):
    if (diff_method == "backprop") != (backend == "dense") and diff_method in ("backprop", "adjoint"):
        with pytest.raises(GradientError, match=diff_method):
            QuantumLayer(nasty, {"weights": 4}, backend=backend, diff_method=diff_method)
        return
    model = hybrid(backend, diff_method)
    assert model[1].diff_method == diff_method and model[1].backend == backend
    x = torch.randn(batch, 2, dtype=torch.float64)
    torch_gradcheck(model.double(), x, fast_mode=batch > 1)


@pytest.mark.parametrize("diff_method", ["adjoint", "parameter-shift"])
@pytest.mark.parametrize("backend", ["native", "dense", "default.qubit"])
def test_second_derivatives(backend, diff_method):
    if backend != "native" and diff_method == "adjoint":
        pytest.skip("the same code as native's, at PennyLane's speed")
    layer = QuantumLayer(nasty, {"weights": 4}, backend=backend, diff_method=diff_method).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def outputs(x, weights):
        return torch.func.functional_call(layer, {"weights": weights}, (x,))

    weights = layer.weights.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(outputs, (x, weights), fast_mode=True)


def test_amplitudes_train_through():
    def circuit(inputs, weights):
        qml.AmplitudeEmbedding(inputs, wires=[2, 0, 1], pad_with=0.1)
        qml.StronglyEntanglingLayers(weights, wires=range(3))
        return qml.probs(wires=[1, 2])

    x = torch.rand(5, 2, dtype=torch.float64)
    answers = []
    for backend, rule in [("native", "adjoint"), ("dense", "backprop"), ("native", "parameter-shift")]:
        layer = QuantumLayer(circuit, {"weights": (1, 3, 3)}, n_inputs=6, backend=backend, diff_method=rule, seed=1)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 6), layer, nn.Linear(4, 1)).double()
        torch_gradcheck(model, x, fast_mode=True)
        answers.append(model(x))
    torch.testing.assert_close(answers[0], answers[1])
    torch.testing.assert_close(answers[0], answers[2])


def test_rows_that_are_no_amplitudes_are_refused():
    def circuit(inputs, weights):
        qml.AmplitudeEmbedding(inputs, wires=range(2))
        qml.RX(weights, wires=0)
        return qml.expval(qml.Z(0))

    layer = QuantumLayer(circuit, {"weights": 1})
    assert layer(torch.full((2, 4), 0.5)).shape == (2,)
    with pytest.raises(ArgumentError, match=r"norm 1 .* row 1 has norm 2"):
        layer(torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]]))


class Counting(Dense):
    """Counts circuits; without adjoint rule, so that shifts are what trains."""

    name = "counting"
    capabilities = Capabilities()  # not differentiable, as Dense is

    def __init__(self):
        self.calls = []

    def __call__(self, program, angles, amplitudes=None):
        self.calls.append(angles.n_samples)
        return super().__call__(program, angles, amplitudes)


def test_inputs_are_shifted_exactly_when_they_want_a_gradient():
    executor = Counting()
    layer = QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, backend=executor, diff_method="parameter-shift")
    x = torch.randn(8, 3)
    executor.calls.clear()
    layer(x).sum().backward()
    assert executor.calls == [8, 8 * 2 * 9], "raw data costs no shifted circuits"
    executor.calls.clear()
    layer(x.requires_grad_()).sum().backward()
    assert executor.calls == [8, 8 * 2 * (9 + 3)]
    executor.calls.clear()
    with torch.no_grad():
        layer(x)
    assert executor.calls == [8]
    executor.calls.clear()
    layer.weights.requires_grad_(False)
    layer(x).sum().backward()
    assert executor.calls == [8, 8 * 2 * 3], "frozen weights cost nothing"


@pytest.mark.parametrize("diff_method", ["best", "parameter-shift", "finite-diff", "spsa"])
def test_the_classical_layer_in_front_always_trains(diff_method):
    model = hybrid(diff_method=diff_method)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.randn(7, 2)).pow(2).sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("backend", EXECUTORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_in_is_dtype_out(backend, dtype):
    layer = QuantumLayer(nasty, {"weights": 4}, backend=backend)
    x = torch.randn(3, 3, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert layer.weights.grad.dtype == torch.float32
    assert layer(torch.ones(2, 3, dtype=torch.int64)).dtype == torch.float32
    assert layer(torch.ones(2, 3, dtype=torch.float16)).dtype == torch.float16


@pytest.mark.parametrize("backend", EXECUTORS)
def test_equal_rows_give_equal_bits(backend):
    layer = QuantumLayer(nasty, {"weights": 4}, backend=backend)
    x = torch.randn(1, 3).expand(37, 3)
    y = layer(x)
    assert (y == y[0]).all()
    torch.testing.assert_close(layer(x[:1])[0], y[0])


def test_leading_dimensions_and_empty_batches():
    layer = QuantumLayer(nasty, {"weights": 4})
    x = torch.randn(2, 5, 3)
    assert torch.equal(layer(x), layer(x.reshape(10, 3)).reshape(2, 5, 2))
    assert layer(x[0, 0]).shape == (2,)
    empty = layer(torch.empty(0, 3, requires_grad=True))
    assert empty.shape == (0, 2)
    empty.sum().backward()


def test_a_circuit_that_ignores_its_inputs_gives_a_row_for_each_sample():
    def circuit(inputs, weights):
        qml.RX(weights, wires=0)
        return [qml.expval(qml.Z(0))]

    layer = QuantumLayer(circuit, {"weights": 1})
    y = layer(torch.randn(5, 4))
    assert y.shape == (5, 1)
    y.sum().backward()
    torch.testing.assert_close(layer.weights.grad, -5 * torch.sin(layer.weights.detach()))


def _answer(layer, x, queue):
    torch.set_num_threads(1)
    queue.put(layer(x).detach().tolist())


@pytest.mark.parametrize("backend", EXECUTORS)
def test_copies_pickles_and_other_processes(backend, tmp_path):
    layer = QuantumLayer(nasty, {"weights": 4}, backend=backend, seed=3)
    x = torch.randn(4, 3)
    y = layer(x)
    y.sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), y)
        other(x).sum().backward()
        with torch.no_grad():
            other.weights.add_(1.0)
        assert torch.equal(layer(x), y), "a copy shares no weights"
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    fresh = QuantumLayer(nasty, {"weights": 4}, backend=backend)
    fresh.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert torch.equal(fresh(x), y)


def test_a_layer_works_in_a_spawned_process():
    layer = QuantumLayer(lambda inputs, w: [qml.RX(inputs[0] * w, 0), qml.expval(qml.Z(0))][1], {"w": 1})
    x = torch.randn(4, 1)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_answer, args=(layer, x, queue))
    process.start()
    answer = queue.get(timeout=120)
    process.join()
    torch.testing.assert_close(torch.tensor(answer), layer(x).detach())


def test_one_seed_drives_weights_and_samples():
    def answer(seed):
        layer = QuantumLayer(nasty, {"weights": 4}, shots=50, seed=seed)
        model = nn.Sequential(layer)
        y = model(torch.ones(3, 3))
        y.sum().backward()
        return torch.cat([y.detach().flatten(), layer.weights.detach(), layer.weights.grad])

    state = torch.get_rng_state()
    assert torch.equal(answer(1), answer(1))
    assert not torch.equal(answer(1), answer(2))
    assert torch.equal(torch.get_rng_state(), state), "a seeded layer leaves torch's random state alone"


def test_the_random_state_can_be_kept():
    layer = QuantumLayer(nasty, {"weights": 4}, diff_method="spsa", seed=5)
    state = layer.rng_state.clone()

    def gradient():
        layer.zero_grad()
        layer(torch.ones(3, 3)).sum().backward()
        return layer.weights.grad.clone()

    first, second = gradient(), gradient()
    assert not torch.equal(first, second)
    layer.rng_state = state
    assert torch.equal(gradient(), first)


def test_shots_have_the_spread_they_must():
    layer = QuantumLayer("strongly_entangling", n_qubits=2, n_layers=1, shots=400, seed=0)
    exact = QuantumLayer("strongly_entangling", n_qubits=2, n_layers=1)
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2)
    draws = torch.stack([layer(x) for _ in range(100)])[:, 0]
    want = exact(x)[0]
    sigma = ((1 - want**2) / 400).sqrt()
    assert ((draws.mean(0) - want).abs() < 5 * sigma / 10).all()
    assert ((draws.std(0) / sigma - 1).abs() < 0.4).all()
    assert layer.diff_method == "parameter-shift"


def test_a_qnode_keeps_its_device_shots_and_rule():
    def circuit(inputs, w):
        qml.RX(inputs[0], wires="a")
        qml.RY(w, wires="b")
        qml.CNOT(["a", "b"])
        return [qml.expval(qml.Z("b")), qml.expval(qml.Z("a"))]

    def layer_on(device, shots=None, **options):
        qnode = qml.set_shots(qml.QNode(circuit, device, **options), shots)
        return QuantumLayer(qnode, {"w": 1})

    wires = ["b", "a"]
    assert layer_on(qml.device("default.qubit", wires=wires)).backend == "native"
    assert layer_on(qml.device("lightning.qubit", wires=wires), diff_method="adjoint").backend == "native"
    ruled = layer_on(qml.device("default.qubit", wires=wires), diff_method="parameter-shift")
    assert (ruled.backend, ruled.diff_method) == ("native", "parameter-shift")
    sampled = layer_on(qml.device("default.qubit", wires=wires), shots=10)
    assert sampled.backend == "default.qubit" and sampled.executor.shots == 10
    assert set((sampled(torch.ones(1, 1)) * 10).round(decimals=4).flatten().tolist()) <= {*map(float, range(-10, 11))}
    mixed = layer_on(qml.device("default.mixed", wires=wires))
    assert mixed.backend == "native", "without channels it is an exact simulator"
    x = torch.tensor([[0.3], [1.2]])
    exact = layer_on(qml.device("default.qubit", wires=wires))
    exact.load_state_dict(mixed.state_dict())
    torch.testing.assert_close(mixed(x), exact(x))
    torch.testing.assert_close(exact(x)[:, 1], torch.cos(x[:, 0]))


def test_noise_in_the_circuit_is_native():
    @qml.qnode(qml.device("default.mixed", wires=1))
    def circuit(inputs, w):
        qml.RX(inputs[0] * w, wires=0)
        qml.DepolarizingChannel(0.3, wires=0)
        return [qml.expval(qml.Z(0))]

    layer = QuantumLayer(circuit, {"w": 1})
    assert layer.backend == "pauli"
    model = nn.Sequential(nn.Linear(2, 1), layer).double()
    x = torch.randn(3, 2, dtype=torch.float64)
    angle = (model[0](x) * layer.w).detach()
    torch.testing.assert_close(model(x), (1 - 4 * 0.3 / 3) * torch.cos(angle))
    gradcheck(model, x)
    with pytest.raises(ArgumentError, match="DepolarizingChannel"):
        QuantumLayer(circuit, {"w": 1}, backend="dense")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"source": None}, ArgumentError, "source"),
        ({"source": 3}, ArgumentError, "source"),
        ({"source": "no_such_family", "n_qubits": 2, "n_layers": 1}, ArgumentError, "strongly_entangling"),
        ({"source": "strongly_entangling"}, ArgumentError, "n_qubits"),
        ({"source": nasty, "weight_shapes": {"weights": 4}, "diff_method": "newton"}, ArgumentError, "adjoint"),
        ({"source": nasty, "weight_shapes": {"weights": 4}, "backend": "nowhere"}, ArgumentError, "nowhere"),
        ({"source": nasty, "weight_shapes": {"weights": 4}, "backend": "no.module:Thing"}, ArgumentError, "no.module"),
        ({"source": nasty, "weight_shapes": {"weights": 4}, "shots": 0}, ArgumentError, "shots"),
        ({"source": nasty, "weight_shapes": {"wights": 4}}, ArgumentError, "wights"),
        (
            {"source": nasty, "weight_shapes": {"weights": 4}, "diff_method": "adjoint", "shots": 9},
            GradientError,
            "adj",
        ),
        (
            {"source": nasty, "weight_shapes": {"weights": 4}, "init_method": {"weights": torch.ones(3)}},
            ArgumentError,
            "init",
        ),
    ],
)
def test_bad_arguments_are_named_when_the_layer_is_built(arguments, error, text):
    with pytest.raises(error, match=text):
        QuantumLayer(**arguments)


def test_a_structure_that_depends_on_data_is_refused_in_plain_words():
    def branch(inputs, w):
        qml.RX(w, wires=0)
        if inputs[0] > 0:
            qml.RY(inputs[0], wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match="depends on the values"):
        QuantumLayer(branch, {"w": 1}, n_inputs=1)


def test_bad_inputs_are_named():
    layer = QuantumLayer("basic_entangler", n_qubits=3, n_layers=1)
    with pytest.raises(ArgumentError, match=r"must have shape \(..., 3\), but has \(..., 4\)"):
        layer(torch.zeros(2, 4))
    with pytest.raises(ArgumentError, match="list"):
        layer([[0.0, 0.0, 0.0]])
    with pytest.raises(ArgumentError, match=r"shape \(\)"):
        layer(torch.tensor(1.0))


def test_an_executor_from_outside_is_a_backend():
    layer = QuantumLayer(nasty, {"weights": 4}, backend=Counting())
    assert layer.diff_method == "parameter-shift"
    reference = QuantumLayer(nasty, {"weights": 4}, backend="dense")
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3)
    torch.testing.assert_close(layer(x), reference(x))


def test_what_a_layer_says_of_itself():
    layer = QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2)
    assert "4 qubits" in repr(layer) and "24 weights" in repr(layer) and "adjoint" in repr(layer)
    assert (layer.n_inputs, layer.n_outputs, layer.backend) == (4, 4, "native")
    assert layer.circuit.program.n_angles == 28
    weights = layer.weights.detach().clone()
    layer.reset_parameters()
    assert (
        not torch.equal(weights, layer.weights) and (layer.weights >= 0).all() and (layer.weights <= 2 * math.pi).all()
    )


def test_gradients_do_not_pile_up_over_retained_graphs():
    layer = QuantumLayer(nasty, {"weights": 4})
    y = layer(torch.randn(3, 3)).sum()
    first = torch.autograd.grad(y, layer.weights, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(y, layer.weights)[0])


def test_angles_are_what_the_circuit_says():
    layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
    angles = layer.circuit.angle_map(torch.tensor([[0.1, 0.2]]), torch.tensor([0.3, 0.4]))
    assert isinstance(angles, Angles)
    torch.testing.assert_close(angles.full(), torch.tensor([[0.1, 0.2, 0.3, 0.4]]))


def test_a_mistake_in_the_function_is_told_as_it_is():
    def typo(inputs, w):
        qml.RX(inputs[0] * v, wires=0)  # noqa: F821
        return qml.expval(qml.Z(0))

    with pytest.raises(ArgumentError, match="NameError: name 'v' is not defined"):
        QuantumLayer(typo, {"w": 1})

    def scalar(inputs, w):
        qml.RX(inputs[0] * w[0], wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(ArgumentError, match="weight_shapes"):
        QuantumLayer(scalar, {"w": 1})


def test_finite_differences_of_samples_are_refused():
    with pytest.raises(GradientError, match="noise of the shots"):
        QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, diff_method="finite-diff", shots=100)


def test_a_qnodes_shots_stay_with_another_backend():
    @qml.set_shots(7)
    @qml.qnode(qml.device("default.qubit", wires=1))
    def circuit(inputs, w):
        qml.RX(inputs[0] * w, wires=0)
        return qml.expval(qml.Z(0))

    assert QuantumLayer(circuit, {"w": 1}, backend="native").executor.shots == 7
    assert QuantumLayer(circuit, {"w": 1}, backend=Counting()).executor.shots is None


def test_a_layer_describes_what_it_computes():
    def layer_of(gate, **options):
        def circuit(inputs, w):
            gate(inputs[0] * w, wires=0)
            return qml.expval(qml.X(0))

        return QuantumLayer(circuit, {"w": 1}, **options).describe()

    assert layer_of(qml.RX) == layer_of(qml.RX, seed=3)
    others = [layer_of(qml.RY), layer_of(qml.RX, shots=5), layer_of(qml.RX, diff_method="spsa")]
    assert len({layer_of(qml.RX), *others}) == 4


def test_pickles_of_the_old_house_open():
    """torch.save(model) of qbp 0.1.0 names modules that have moved since."""
    layer = QuantumLayer("strongly_entangling", n_qubits=2, n_layers=1, seed=0)
    pickled = pickle.dumps(layer, protocol=0)
    for old, new in _moved.MOVED.items():
        pickled = pickled.replace(new.encode(), old.encode())
    assert b"qbp.layer" in pickled and b"qbp.nn" not in pickled
    x = torch.rand(3, 2)
    torch.testing.assert_close(pickle.loads(pickled)(x), layer(x))


def test_exported_models():
    """torch.export keeps the operations of the dense backend; what a simulator gives is no constant of the model."""
    from torch.fx.experimental.proxy_tensor import make_fx

    layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
    model, x = torch.nn.Sequential(torch.nn.Linear(2, 2), layer), torch.rand(3, 2)
    for record in (lambda: torch.export.export(model, (x,)), lambda: make_fx(model)(x)):
        with pytest.raises(CircuitError, match='set_backend\\("dense"\\)'):
            record()
    layer.set_backend("dense")
    for graph in (torch.export.export(model, (x,), strict=False).module(), make_fx(model)(x)):
        torch.testing.assert_close(graph(x + 1), model(x + 1))


@pytest.mark.parametrize("options", [{}, {"backend": "dense"}, {"backend": "default.qubit"}, {"shots": 100_000}])
def test_compiled_models(options):
    """torch.compile leaves the circuit as it is, whatever it runs on."""
    layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, seed=0, **options)
    model = nn.Sequential(nn.Linear(2, 2), layer)
    compiled = torch.compile(model, backend="eager")
    x = torch.rand(4, 2)
    gradients = []
    for each in (model, compiled):
        outputs = each(x)
        gradients.append(torch.autograd.grad(outputs.square().sum(), list(model.parameters())))
        close = 0.02 if "shots" in options else 1e-6
        assert torch.allclose(outputs, model(x), atol=close)
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=10 * close)

"""Devices, simulators and primitives that a user made, as backends: they run themselves, with all that is theirs."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import BackendEstimatorV2, BackendSamplerV2, StatevectorEstimator, StatevectorSampler
from qiskit.providers.basic_provider import BasicSimulator
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import DensityMatrix, SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, amplitude_damping_error, depolarizing_error
from qiskit_aer.primitives import EstimatorV2 as AerEstimator
from qiskit_aer.primitives import SamplerV2 as AerSampler
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

import qbp
from qbp import QuantumLayer
from qbp.errors import ArgumentError, CircuitError, ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:Setting shots on device")

X, W = ParameterVector("x", 2), ParameterVector("w", 2)
ROWS = torch.tensor([[0.3, 0.7], [1.1, -0.4]], dtype=torch.float64)
FLIPS = np.array([[0.9, 0.1], [0.2, 0.8]])  # (true, read)


def circuit():
    circuit = QuantumCircuit(2)
    circuit.rx(X[0], 0)
    circuit.rx(X[1], 1)
    circuit.cx(0, 1)
    circuit.rx(W[0], 0)
    circuit.rz(W[1], 1)
    circuit.rx(0.4, 1)
    return circuit


def noise_model():
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.05, 1), ["rx"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 2), ["cx"])
    model.add_quantum_error(amplitude_damping_error(0.2), ["rx"], [1])  # the default error of this qubit gives way
    model.add_readout_error(ReadoutError(FLIPS), [1])
    return model


def layer_on(backend, **options):
    return QuantumLayer(circuit(), input_params=X, weight_params=W, seed=0, backend=backend, **options).double()


def with_noise(layer):
    """Z of both qubits with the noise of `noise_model`, by Kraus operators on density matrices."""
    rows = []
    for x in ROWS.tolist():
        a, b = layer.weight.tolist()
        rho = DensityMatrix.from_label("00")
        local = {0: depolarizing_error(0.05, 1), 1: amplitude_damping_error(0.2)}
        for name, on, angle in (
            *(("rx", [k], x[k]) for k in (0, 1)),
            *(("cx", [0, 1], None), ("rx", [0], a), ("rz", [1], b), ("rx", [1], 0.4)),
        ):
            gate = QuantumCircuit(len(on))
            getattr(gate, name)(*([] if angle is None else [angle]), *range(len(on)))
            rho = rho.evolve(gate, on)
            if name != "rz":
                rho = rho.evolve((depolarizing_error(0.1, 2) if name == "cx" else local[on[0]]).to_quantumchannel(), on)
        p = rho.probabilities([1]) @ FLIPS
        rows.append([rho.expectation_value(SparsePauliOp("IZ")).real, p[0] - p[1]])
    return torch.tensor(rows, dtype=torch.float64)


def noisy(**options):
    return AerSimulator(noise_model=noise_model(), **options)


EXACT = {
    "Aer": AerSimulator,
    "Aer by matrix product states": lambda: AerSimulator(method="matrix_product_state"),
    "StatevectorEstimator": StatevectorEstimator,
    "Aer's estimator": AerEstimator,
    "lightning": lambda: qml.device("lightning.qubit", wires=3),
    "a device without wires": lambda: qml.device("default.qubit"),
    "wires with names": lambda: qml.device("default.mixed", wires=["b", "a"]),
}


@pytest.mark.parametrize("name", EXACT)
def test_noiseless_objects_are_exact(name):
    layer, native = layer_on(EXACT[name]()), layer_on("native")
    assert layer.shots is None and layer.executor.capabilities.exact and layer.backend.endswith("(object)")
    torch.testing.assert_close(layer(ROWS), native(ROWS), atol=1e-7, rtol=0)
    for each in (layer, native):
        each(ROWS).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, native.weight.grad, atol=1e-6, rtol=0)


NOISY = {
    "Aer": noisy,
    "Aer by density matrices": lambda: noisy(method="density_matrix"),
}


@pytest.mark.parametrize("name", NOISY)
def test_a_simulator_with_a_noise_model_is_exact_by_density_matrices(name):
    layer = layer_on(NOISY[name]())
    assert layer.backend.endswith("with a noise model (object)") and layer.backend in repr(layer)
    assert layer.shots is None and not layer.executor.capabilities.exact
    torch.testing.assert_close(layer(ROWS), with_noise(layer), atol=1e-9, rtol=0)
    layer(ROWS).sum().backward()
    gradient, step = [], 1e-5
    for k in range(2):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                layer.weight[k] += sign * step
            ends.append(layer(ROWS).sum().item())
            with torch.no_grad():
                layer.weight[k] -= sign * step
        gradient.append((ends[0] - ends[1]) / (2 * step))
    torch.testing.assert_close(layer.weight.grad, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0)


SAMPLED = {
    "Aer with shots": (lambda: noisy(shots=4000, seed_simulator=3), 4000),
    "Aer by trajectories": (lambda: noisy(method="statevector", seed_simulator=3), 1024),
    "shots of the layer": (lambda: noisy(seed_simulator=3), 3000),
    "Aer's sampler": (lambda: AerSampler.from_backend(noisy(), default_shots=3000, seed=1), 3000),
    "BackendSamplerV2": (lambda: BackendSamplerV2(backend=noisy(seed_simulator=1)), 1024),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_shots_and_seeds_are_the_users(name):
    make, shots = SAMPLED[name]
    layer = layer_on(make(), shots=3000 if name == "shots of the layer" else None)
    assert layer.shots == shots
    outputs = layer(ROWS)
    off = (outputs - with_noise(layer)).abs() / layer.last_stds
    assert 0.01 < off.max() < 5
    torch.testing.assert_close(layer_on(make(), shots=shots)(ROWS), outputs)  # by its seed


def test_estimators_keep_their_precision():
    layer = layer_on(BackendEstimatorV2(backend=noisy(seed_simulator=1)))
    outputs = layer(ROWS)
    assert 0.005 < layer.last_stds.max() < 0.02  # 1/64
    assert ((outputs - with_noise(layer)).abs() < 5 * layer.last_stds).all()
    assert layer.backend == "BackendEstimatorV2 on aer_simulator with a noise model (object)"
    coarse = layer_on(BackendEstimatorV2(backend=noisy(seed_simulator=1)), shots=100)
    coarse(ROWS)
    assert 0.05 < coarse.last_stds.max() <= 0.11


@pytest.mark.parametrize("make", [FakeManilaV2, lambda: AerSimulator.from_backend(FakeManilaV2())])
def test_a_device_and_its_simulator_have_the_noise_of_the_device(make):
    """Against Aer's own run of the whole device, without leaving qubits out or numbering them anew."""
    backend = make()
    layer = layer_on(backend)
    layer(ROWS)
    (compiled,) = layer.executor._compiled.values()
    model = NoiseModel.from_backend(FakeManilaV2())
    values = layer.circuit.angle_map(ROWS, layer.flat_weights(ROWS)).full().detach().numpy()
    rows = []
    for row in values:
        bound = compiled.circuit.assign_parameters(row[list(compiled.angles)])
        bound.save_density_matrix()
        rho = AerSimulator(method="density_matrix", noise_model=model).run(bound).result().data()["density_matrix"]
        read = [rho.probabilities([q]) @ model._local_readout_errors[q,].probabilities for q in compiled.layout]
        rows.append([p[0] - p[1] for p in read])
    torch.testing.assert_close(layer(ROWS), torch.tensor(rows, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("make", [lambda: GenericBackendV2(3, seed=1, noise_info=False), BasicSimulator])
def test_other_backends(make):
    layer = layer_on(make())
    off = (layer(ROWS) - layer_on("native")(ROWS)).abs()
    stds = torch.zeros(()) if layer.last_stds is None else layer.last_stds
    assert (off <= 5 * stds + 1e-9).all() and layer.backend.endswith("(object)")


def test_probabilities_by_samplers_not_by_estimators():
    probs = qbp.circuit.program.Probs((1, 0))
    layer = layer_on(StatevectorSampler(default_shots=4000, seed=2), observables=probs)
    off = (layer(ROWS) - layer_on("native", observables=probs)(ROWS)).abs()
    assert (off <= 5 * layer.last_stds + 1e-9).all()
    with pytest.raises(CircuitError, match=r"StatevectorEstimator .* gives no probabilities"):
        layer_on(StatevectorEstimator(), observables=probs)(ROWS)


def twice(inputs, weights):
    qml.AngleEmbedding(inputs, wires=["a", "b"])
    qml.CNOT(["a", "b"])
    qml.BasicEntanglerLayers(weights, wires=["b", "a"])
    return [qml.expval(qml.Z("a")), qml.expval(qml.X("b"))]


def test_a_pennylane_device_keeps_its_noise():
    def device():
        flips = qml.noise.partial_wires(qml.BitFlip, 0.1)
        return qml.add_noise(
            qml.device("default.mixed", wires=["b", "a"]), qml.NoiseModel({qml.noise.op_eq("CNOT"): flips})
        )

    def two_wires(inputs, weights):
        for k in range(2):
            qml.RX(inputs[k], wires=k)
        qml.CNOT([0, 1])
        qml.RY(weights[0], wires=1)
        qml.CNOT([1, 0])
        return [qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Z(0))]

    layer = QuantumLayer(two_wires, {"weights": 2}, backend=device()).double()
    assert layer.backend == "default.mixed (object)"
    weight = layer.weights.detach()
    noisy_there = qml.QNode(
        lambda x: two_wires(x, weight),
        qml.add_noise(
            qml.device("default.mixed", wires=2),
            qml.NoiseModel({qml.noise.op_eq("CNOT"): qml.noise.partial_wires(qml.BitFlip, 0.1)}),
        ),
    )
    want = torch.stack([torch.stack(noisy_there(row)) for row in ROWS])
    torch.testing.assert_close(layer(ROWS), want, atol=1e-9, rtol=0)


def test_a_pennylane_device_keeps_its_shots_and_seed():
    def device():
        return qml.device("default.qubit", wires=2, shots=500, seed=3)

    layer = layer_on(device())
    assert layer.shots == 500
    outputs = layer(ROWS)
    torch.testing.assert_close(layer_on(device())(ROWS), outputs)
    assert 0 < (outputs - layer_on("native")(ROWS)).abs().max() < 5 / 500**0.5
    with pytest.raises(ArgumentError, match="one number of shots"):
        layer_on(qml.device("default.qubit", wires=2, shots=(10, 20)))


@pytest.mark.parametrize("shots", [None, 10])
def test_a_circuit_that_does_not_fit_is_refused(shots):
    with pytest.raises(CircuitError, match=r"2 qubits does not fit on .*, which has 1"):
        layer_on(qml.device("default.qubit", wires=["a"]), shots=shots)(ROWS)
    with pytest.raises(CircuitError, match=r"2 qubits does not fit on .*, which has 1"):
        layer_on(GenericBackendV2(1, basis_gates=["rz", "sx", "x"]), shots=shots)(ROWS)


def test_layers_on_objects_are_copied_and_sent_and_moved():
    layer = layer_on(noisy())
    want = layer(ROWS)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(ROWS), want)
    moved = layer_on("native")
    moved.set_backend(noisy())
    torch.testing.assert_close(moved(ROWS), want)


def test_a_file_does_not_make_something_plain_of_an_object(tmp_path):
    path = tmp_path / "model.safetensors"
    qbp.save_model(torch.nn.Sequential(layer_on(noisy())), path)
    with pytest.raises(ConfigError, match="object of its user's"):
        qbp.load_model(path)
    loaded = qbp.load_model(path, backend=noisy())
    torch.testing.assert_close(loaded(ROWS), layer_on(noisy())(ROWS))


def test_quantum_computers_run_by_name():
    class IBMBackend(FakeManilaV2):
        pass

    with pytest.raises(ArgumentError, match="ibm:fake_manila"):
        layer_on(IBMBackend())
    with pytest.raises(ArgumentError, match="ibm:fake_manila"):
        layer_on(BackendSamplerV2(backend=IBMBackend()))


@pytest.mark.parametrize("thing", [3, object(), AerSimulator])
def test_what_is_no_backend_is_refused(thing):
    with pytest.raises(ArgumentError, match="Argument `backend` must be a name, a PennyLane device"):
        layer_on(thing)


def z_and_purity(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.BasicEntanglerLayers(weights, wires=range(2))
    return qml.expval(qml.Z(0)), qml.purity(wires=[0])


def z(inputs, weights):
    return z_and_purity(inputs, weights)[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda device: QuantumLayer(z, {"weights": (1, 2)}, backend=device),
        lambda device: QuantumLayer(qml.QNode(z, device), {"weights": (1, 2)}, backend=device),
        lambda device: QuantumLayer(qml.QNode(z_and_purity, device), {"weights": (1, 2)}),
    ],
)
def test_compiled_devices_are_pickled_after_use(make):
    layer, x = make(qml.device("lightning.qubit", wires=2)), torch.rand(3, 2)
    layer(x).sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x)) and other.backend == layer.backend

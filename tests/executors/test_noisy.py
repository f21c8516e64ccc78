"""Circuits with the noise of devices and noise models against Aer's density matrices."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pennylane as qml
import pytest
import torch

import qbp
from qbp import GateError, NoiseModel, QuantumLayer
from qbp.circuit.angles import Angles
from qbp.circuit.channels import Channel
from qbp.circuit.noise_rows import ROWS
from qbp.circuit.program import Expval, Probs
from qbp.circuit.stored_noise import noise_from_data, noise_to_data
from qbp.errors import ArgumentError, ConfigError
from qbp.executors import backend, name_of
from qbp.executors.native import ways
from qbp.executors.qiskit_primitive import QiskitPrimitive
from qbp.executors.qiskit_primitive.fake_devices import fake_device
from qbp.executors.qiskit_primitive.local import Aer

aer = pytest.importorskip("qiskit_aer")

MEASURED = (
    Expval.word("XY", 0, 2),
    Expval(((0.5, "ZZ", (0, 1)), (0.2, "", ()), (-0.3, "Y", (2,)))),
    Probs((2, 0)),
    Expval.word("Z", 1),
)


def layers(backend: str, n_qubits: int = 3, n_layers: int = 1):
    """The same layer on the exact engine, and as jobs on Aer."""
    for where in (backend, QiskitPrimitive(Aer(fake_device(backend[5:]).backend))):
        layer = QuantumLayer(
            "strongly_entangling",
            n_qubits=n_qubits,
            n_layers=n_layers,
            observables=[*MEASURED] if n_qubits == 3 else None,
            backend=where,
            seed=1,
        )
        yield layer.double()


def assert_like_aer(backend: str, n_qubits: int = 3, atol: float = 1e-9) -> None:
    ours, theirs = layers(backend, n_qubits)
    assert (ours.diff_method, theirs.diff_method) == ("adjoint", "parameter-shift")
    assert ours.noise == ours.backend == backend
    x = torch.randn(2, n_qubits, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs, gradients = [], []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        outputs.append(layer(leaf))
        weight = torch.linspace(-1, 2, outputs[-1].numel(), dtype=torch.float64).reshape(outputs[-1].shape)
        gradients.append(torch.autograd.grad((outputs[-1] * weight).sum(), [leaf, *layer.parameters()]))
    torch.testing.assert_close(*outputs, atol=atol, rtol=0)
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, atol=atol, rtol=0)


def test_a_device_like_aer():
    assert_like_aer("fake:manila")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yorktown", "quito", "jakarta", "nairobi", "kolkata", "hanoi", "montreal", "torino"])
@pytest.mark.parametrize("n_qubits", [3, 5])
def test_devices_like_aer(name: str, n_qubits: int):
    """Of 5, 7, 27 and 133 qubits."""
    # Aer leaves Paulis of tiny probability out: errors of these are off by up to 3e-9 from their `SuperOp`
    assert_like_aer(f"fake:{name}", n_qubits, 1e-8 if name in ("hanoi", "montreal") else 1e-9)


@pytest.mark.parametrize("name", ["manila", pytest.param("yorktown", marks=pytest.mark.slow)])
def test_the_whole_noise_model_of_a_device(name: str):
    """By Qiskit alone: Aer's model of the whole device, and its readout errors."""
    executor = qbp.backend(f"fake:{name}")
    layer = QuantumLayer("basic_entangler", n_qubits=3, n_layers=2, backend=executor, seed=2).double()
    x = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    device = executor.primitive.backend
    model = aer.noise.NoiseModel.from_backend(device)
    compiled = executor.compiled(layer.circuit.program)
    angles = layer.circuit.angle_map(x, layer.flat_weights(x)).full()[0].detach().numpy()
    used = [angles[k] for k in compiled.angles]
    circuit = compiled.circuit.assign_parameters(used)
    circuit.save_probabilities(list(compiled.layout), label="p")
    simulator = aer.AerSimulator(method="density_matrix", noise_model=model)
    p = simulator.run(circuit).result().data()["p"].reshape(2, 2, 2)  # the last wire first
    for axis, wire in enumerate(reversed(range(3))):
        table = np.asarray(model._local_readout_errors[(compiled.layout[wire],)].probabilities)
        p = np.moveaxis(np.tensordot(p, table, (axis, 0)), -1, axis)
    signs = np.array([1.0, -1.0])
    expected = [np.tensordot(signs, np.moveaxis(p, 2 - w, 0), 1).sum() for w in range(3)]
    np.testing.assert_allclose(layer(x).detach().numpy()[0], expected, atol=1e-9)


# ---- noise models ----------------------------------------------------------------------------------------------------


def of_aer():
    from qiskit_aer.noise import NoiseModel as Aers
    from qiskit_aer.noise import ReadoutError, amplitude_damping_error, depolarizing_error, reset_error

    model = Aers()
    model.add_all_qubit_quantum_error(depolarizing_error(0.02, 1), ["sx", "x", "ry", "id"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.05, 2), ["cz"])
    both = amplitude_damping_error(0.1).tensor(amplitude_damping_error(0.3))
    model.add_quantum_error(both, "cz", [0, 1], warnings=False)
    model.add_quantum_error(reset_error(0.1, 0.2), "rz", [2])
    model.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.05, 0.95]]))
    model.add_readout_error(ReadoutError([[0.8, 0.2], [0.3, 0.7]]), [1], warnings=False)
    return model


def test_a_noise_model_of_aer():
    """Against Aer's density matrix of the circuit in the model's gates, outputs that need no turns."""
    from qiskit import transpile

    from qbp.executors.qiskit_primitive.circuit import circuit_of, used_angles

    model = of_aer()
    layer = QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, noise=model, seed=0).double()
    x = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    program = layer.circuit.program
    angles = layer.circuit.angle_map(x, layer.flat_weights(x)).full()[0].detach().numpy()
    circuit = circuit_of(program).assign_parameters([angles[k] for k in used_angles(program)])
    gates = ["rz", "sx", "x", "cx", "cz", "ry"]
    circuit = transpile(circuit, basis_gates=gates, optimization_level=0)
    circuit.save_probabilities(label="p")
    simulator = aer.AerSimulator(method="density_matrix", noise_model=model)
    p = simulator.run(circuit).result().data()["p"].reshape(2, 2, 2)
    tables = [[[0.9, 0.1], [0.05, 0.95]], [[0.8, 0.2], [0.3, 0.7]], [[0.9, 0.1], [0.05, 0.95]]]
    for wire, table in enumerate(tables):
        p = np.moveaxis(np.tensordot(p, np.array(table), (2 - wire, 0)), -1, 2 - wire)
    expected = [np.tensordot([1.0, -1.0], np.moveaxis(p, 2 - w, 0), 1).sum() for w in range(3)]
    np.testing.assert_allclose(layer(x).detach().numpy()[0], expected, atol=1e-9)


def test_noise_models_of_aer_that_are_refused():
    from qiskit_aer.noise import NoiseModel as Aers
    from qiskit_aer.noise import ReadoutError, depolarizing_error

    for make, message in (
        (lambda m: m.add_all_qubit_quantum_error(depolarizing_error(0.1, 3), ["ccx"]), "at most 2 qubits|ccx"),
        (lambda m: m.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["mine"]), "'mine'"),
        (lambda m: m.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["measure"]), "'measure'"),
        (lambda m: m.add_readout_error(ReadoutError(np.eye(4)[::-1].tolist()), [0, 1]), "one by one"),
    ):
        model = Aers()
        make(model)
        with pytest.raises(ArgumentError, match=message):
            QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise=model)


def model_of_every_kind() -> NoiseModel:
    relaxation = Channel.of_matrix("ThermalRelaxationError", (1,), ROWS["ThermalRelaxationError"](0.1, 1.0, 1.5, 0.1))
    flip = Channel.of_matrix("BitFlip", (0,), ROWS["BitFlip"](0.1))
    return NoiseModel(
        (GateError("cx", (relaxation, flip), (0, 1)), GateError("CNOT", (flip,)), GateError("RY", (flip,))),
        ((1, 0.1, 0.2), (None, 0.0, 0.05)),
        ("cz",),
    )


def test_noise_models_are_plain_data():
    model = model_of_every_kind()
    assert [error.gate for error in model.errors] == ["CNOT", "CNOT", "RY"]
    assert model.gates == ("RZ", "SX", "PauliX", "CNOT", "CZ", "RY")
    data = json.loads(json.dumps(noise_to_data(model)))
    assert noise_from_data(data) == model and hash(noise_from_data(data)) == hash(model)
    assert [c.wires for c in model.after("CNOT", (0, 1))] == [(1,), (0,)]
    assert [c.wires for c in model.after("CNOT", (1, 0))] == [(1,)] and model.after("RZ", (0,)) == ()
    assert model.reading((0, 1)) == ((0, 0.0, 0.05), (1, 0.1, 0.2))
    for spoilt in ({"gate": "nothing"}, {"wires": [0]}, {"channels": [{"channel": "a", "wires": [5], "transfer": []}]}):
        with pytest.raises((ArgumentError, ConfigError)):
            noise_from_data(data | {"errors": [data["errors"][0] | spoilt]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoiseModel((GateError("CRX", ()),)), "'CRX'"),
        (lambda: NoiseModel((GateError("cx", ()), GateError("CNOT", ()))), "one entry"),
        (lambda: NoiseModel(readout=((0, 1.2, 0.0),)), "probabilities"),
        (lambda: GateError("SX", (Channel.of_matrix("BitFlip", (1,), ROWS["BitFlip"](0.1)),)), "its wires"),
        (lambda: GateError("CNOT", (), (0,)), "2 wires"),
        (lambda: NoiseModel.of({"SX": {"Nothing": 0.1}}), "'Nothing'"),
        (lambda: QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise="ibm:torino"), "noise"),
        (lambda: QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise="fake:manila", backend="aer"), "auto"),
    ],
)
def test_what_is_no_noise_model(make, message: str):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_noise_after_gates_is_pennylanes():
    """A circuit of RX and CNOT needs no other gate: the same as the same noise in PennyLane."""
    noise = NoiseModel.of({"RX": {"AmplitudeDamping": 0.1}, "CNOT": {"DepolarizingChannel": 0.05, "PhaseFlip": 0.02}})

    @qml.qnode(qml.device("default.mixed", wires=3))
    def circuit(inputs, weights):
        for k in range(3):
            qml.RX(inputs[k], wires=k)
            qml.AmplitudeDamping(0.1, wires=k)
        for layer in weights:
            for k in range(3):
                qml.RX(layer[k], wires=k)
                qml.AmplitudeDamping(0.1, wires=k)
            for k in range(3):
                on = [k, (k + 1) % 3]
                qml.CNOT(wires=on)
                for w in on:
                    qml.DepolarizingChannel(0.05, wires=w)
                    qml.PhaseFlip(0.02, wires=w)
        return [qml.expval(qml.Z(k)) for k in range(3)]

    layer = QuantumLayer("basic_entangler", n_qubits=3, n_layers=2, noise=noise, seed=3).double()
    (weight,) = layer.parameters()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([torch.stack(circuit(row, weight)) for row in x])
    ours = layer(x)
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)
    for mine, other in zip(
        *(torch.autograd.grad(y.square().sum(), (x, weight)) for y in (ours, expected)), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-10, rtol=0)


# ---- layers ----------------------------------------------------------------------------------------------------------


def entangled(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.Rot(*w[0], wires=0)
    qml.CNOT(wires=[0, 1])
    qml.Rot(*w[1], wires=1)
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1))]


MODEL = qml.NoiseModel({qml.noise.op_in(["Rot", "CNOT"]): lambda op, **_: qml.AmplitudeDamping(0.2, op.wires[0])})


@pytest.mark.parametrize("kind", ["function", "QNode"])
def test_noise_models_of_pennylane(kind: str):
    source = entangled if kind == "function" else qml.QNode(entangled, qml.device("default.qubit"))
    layer = QuantumLayer(source, {"w": (2, 3)}, noise=MODEL, n_inputs=2, seed=0).double()
    assert layer.noise is MODEL and layer.circuit.program.counts()["AmplitudeDamping"] == 3
    qnode = qml.add_noise(qml.QNode(entangled, qml.device("default.mixed", wires=2)), MODEL)
    x = torch.randn(3, 2, dtype=torch.float64)
    expected = torch.stack([torch.stack(qnode(row, layer.w)) for row in x])
    torch.testing.assert_close(layer(x), expected, atol=1e-10, rtol=0)


def test_noise_models_of_pennylane_see_the_rotations_of_other_circuits():
    model = qml.NoiseModel({qml.noise.op_eq("CNOT"): qml.noise.partial_wires(qml.DepolarizingChannel, 0.1)})
    layer = QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, noise=model)
    assert layer.circuit.program.counts()["DepolarizingChannel"] == 6


def test_noise_is_saved(tmp_path):
    x = torch.randn(3, 3)
    for noise in (model_of_every_kind(), "fake:manila"):
        layer = QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, noise=noise, seed=0)
        assert layer.noise == noise
        model = torch.nn.Sequential(layer)
        qbp.save_model(model, tmp_path / "model.safetensors")
        loaded = qbp.load_model(tmp_path / "model.safetensors")
        assert loaded[0].noise == noise and torch.equal(loaded(x), model(x))
        assert qbp.on_backend(model, "native")[0].noise is None


def test_noise_on_many_wires_goes_by_few_words(monkeypatch):
    """As narrow circuits do when wide ones are said to begin at three wires; and one that needs it."""
    noise = qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.05, "AmplitudeDamping": 0.1}}, readout=0.03)
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=5, n_layers=2, noise=noise, seed=0).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    expected = layer(x)
    gradients = torch.autograd.grad(expected.sum(), (x, layer.weights))
    ((program, _),) = layer.executor.circuit(layer.circuit.program).parts
    native = backend("native")
    assert name_of(native, program) == "pauli"
    ways.way_of.cache_clear()
    monkeypatch.setattr(ways, "MOST_SEEN", 3)
    assert name_of(native, program) == "pauli-propagation"
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(layer(x).sum(), (x, layer.weights)), gradients, atol=1e-12, rtol=0)
    monkeypatch.undo()
    ways.way_of.cache_clear()
    ring = qbp.QuantumLayer("basic_entangler", n_qubits=16, n_layers=1, noise=noise, seed=0).double()
    rows = torch.randn(2, 16, dtype=torch.float64)
    sampled = qbp.QuantumLayer(
        "basic_entangler", n_qubits=16, n_layers=1, noise=noise, backend="trajectories:64", seed=0
    ).double()
    with torch.no_grad():
        difference = (ring(rows) - sampled(rows)).abs()
    assert (difference < 5 * sampled.last_stds + 1e-6).all()


def test_shots_under_noise():
    noise = NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.1}}, readout=0.05)
    exact = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise=noise, seed=0)
    sampled = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise=noise, shots=100_000, seed=0)
    x = torch.tensor([[0.4, 1.0]])
    assert sampled.shots == 100_000 and sampled.noise == noise
    assert (sampled(x) - exact(x)).abs().max() < 5 * sampled.last_stds.max()


def test_a_circuit_from_amplitudes_under_noise():
    circuit = qbp.trace(
        lambda inputs, w: (
            qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True),
            qml.RX(w[0], wires=0),
            qml.CNOT([0, 1]),
            qml.expval(qml.Z(1)),
        )[-1],
        {"w": (2,)},
        n_inputs=4,
    )
    noise = NoiseModel.of({"CNOT": {"BitFlip": 0.1}})
    noisy, ideal = (QuantumLayer(circuit, noise=n, seed=0).double() for n in (noise, None))
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(noisy(x), 0.8 * ideal(x), atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(layer(x).sum(), x)[0] for layer in (noisy, ideal))
    mine, other = gradients
    torch.testing.assert_close(mine, 0.8 * other, atol=1e-12, rtol=0)


def test_many_batched_and_shared_angles_in_one_gate():
    """Angles of data and weights that the transpiler adds up in one gate keep their gradients."""
    program = replace(qbp.trace("basic_entangler", n_qubits=2, n_layers=1).program)
    executor, reference = qbp.backend("fake:manila"), QiskitPrimitive(Aer(fake_device("manila").backend))
    generator = torch.Generator().manual_seed(0)
    for n_batched in (0, 1, program.n_angles):
        angles = Angles(
            torch.randn(3, n_batched, dtype=torch.float64, generator=generator),
            torch.randn(program.n_angles - n_batched, dtype=torch.float64, generator=generator),
        )
        results, saved = executor.forward(program, angles)
        torch.testing.assert_close(results.values, reference(program, angles).values, atol=1e-9, rtol=0)
        grad = torch.randn(results.values.shape, dtype=torch.float64, generator=generator)
        got = executor.vjp(program, angles, None, saved, grad)
        for part, given in zip((got.batched, got.shared), angles, strict=True):
            assert part.shape == given.shape
        step = 1e-5
        for k in range(program.n_angles):
            full = angles.full()
            moved = [full.clone() for _ in range(2)]
            moved[0][:, k] += step
            moved[1][:, k] -= step
            none = torch.zeros(0, dtype=torch.float64)
            up, down = (executor(program, Angles(m, none)).values for m in moved)
            slope = ((up - down) / (2 * step) * grad).sum(1)
            mine = got.batched[:, k] if k < n_batched else got.shared[k - n_batched]
            torch.testing.assert_close(mine, slope if k < n_batched else slope.sum(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_a_noise_model_of_aer_around_the_gates_of_a_qiskit_circuit(seed: int):
    """Gate by gate what `AerSimulator(noise_model=...)` makes of the circuit, some angles of which are weights."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_aer.noise import NoiseModel as Aers
    from qiskit_aer.noise import amplitude_damping_error, depolarizing_error, phase_damping_error, reset_error

    rng, n = np.random.default_rng(seed), 4
    weights, circuit, model = ParameterVector("w", 8), QuantumCircuit(n), Aers()
    for k in range(32):
        on = rng.permutation(n)[:2].tolist()
        angle = weights[k // 4] if k % 4 == 0 else float(rng.normal())
        circuit.ry(angle, on[0]) if k % 8 == 0 else circuit.rz(angle, on[1])
        name = str(rng.choice(["sx", "h", "x", "s", "cx", "cz", "rzz"]))
        two = name in ("cx", "cz", "rzz")
        getattr(circuit, name)(*([0.3] if name == "rzz" else []), *(on if two else on[:1]))
    for name in ("rz", "ry", "sx", "h", "x", "s"):
        error = depolarizing_error(0.02 * rng.random(), 1).compose(amplitude_damping_error(0.05 * rng.random()))
        model.add_all_qubit_quantum_error(error, [name])
    for name in ("cx", "cz", "rzz"):
        model.add_all_qubit_quantum_error(depolarizing_error(0.05 * rng.random(), 2), [name])
        error = reset_error(0.1).tensor(phase_damping_error(0.2))
        model.add_quantum_error(error, name, [1, 2], warnings=False)
    layer = QuantumLayer(circuit, noise=model, weight_params=list(weights), seed=seed).double()
    bound = circuit.assign_parameters(dict(zip(weights, layer.weight.tolist(), strict=True)))
    for wire in range(n):
        word = SparsePauliOp.from_sparse_list([("Z", [wire], 1)], n)
        bound.save_expectation_value(word, range(n), label=str(wire))
    data = aer.AerSimulator(method="density_matrix", noise_model=model).run(bound).result().data()
    outputs = layer(torch.zeros(1, 0, dtype=torch.float64)).detach().numpy()[0]
    np.testing.assert_allclose(outputs, [data[str(wire)] for wire in range(n)], atol=1e-9)


def test_layers_with_other_noise_compute_something_else():
    models = [NoiseModel.of({"CNOT": {"BitFlip": p}}) for p in (0.1, 0.2)]
    layers = [QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, noise=noise) for noise in (*models, models[0])]
    assert layers[0].describe() == layers[2].describe() != layers[1].describe()
    assert layers[0](torch.zeros(0, 2)).shape == (0, 2)


# ---- noise in Qiskit circuits ----------------------------------------------------------------------------------------


def test_noise_instructions_of_a_qiskit_circuit():
    """Aer's errors, Kraus operators and resets stand in the circuit; against Aer."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector
    from qiskit.quantum_info import Kraus, SparsePauliOp, SuperOp
    from qiskit_aer.noise import amplitude_damping_error, depolarizing_error

    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(3)
    for k in range(2):
        circuit.ry(x[k], k)
    circuit.append(depolarizing_error(0.1, 2).to_instruction(), [2, 0])
    circuit.cx(0, 1)
    both = amplitude_damping_error(0.1).tensor(amplitude_damping_error(0.4))
    circuit.append(Kraus(both).to_instruction(), [1, 2])
    circuit.rx(w[0], 2)
    circuit.cx(1, 2)
    circuit.reset(1)
    circuit.rx(w[1], 1)
    circuit.append(SuperOp(amplitude_damping_error(0.2)).to_instruction(), [2])
    circuit.rzz(w[2], 0, 1)
    circuit.rx(0.4, 0)
    words = ["ZII", "XIY", "IZZ"]
    layer = QuantumLayer(circuit, observables=words, input_params=x, weight_params=w, seed=0).double()
    assert layer.circuit.program.is_noisy and layer.diff_method == "adjoint"
    inputs = torch.tensor([[0.7, -1.1]], dtype=torch.float64)
    values = {**dict(zip(x, inputs[0].tolist(), strict=True)), **dict(zip(w, layer.weight.tolist(), strict=True))}
    bound = circuit.assign_parameters(values)
    for word in words:
        bound.save_expectation_value(SparsePauliOp(word[::-1]), range(3), label=word)
    data = aer.AerSimulator(method="density_matrix").run(bound).result().data()
    np.testing.assert_allclose(layer(inputs).detach().numpy()[0], [data[word] for word in words], atol=1e-9)


def test_channels_on_many_qubits_of_a_qiskit_circuit_are_refused():
    from qiskit import QuantumCircuit
    from qiskit_aer.noise import depolarizing_error

    circuit = QuantumCircuit(3)
    circuit.append(depolarizing_error(0.1, 3).to_instruction(), range(3))
    with pytest.raises(qbp.errors.CircuitError, match="3 qubits"):
        QuantumLayer(circuit)

"""Programs on Qiskit: the same numbers as everywhere else, in one piece of work for each step."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Clifford, Expval, Probs, Program, Rotation
from qbp.errors import ArgumentError, CircuitError, GradientError, MissingPackageError
from qbp.executors import backend
from qbp.executors.dense import Dense
from qbp.executors.qiskit_primitive import Options, QiskitPrimitive, fake_devices, isa, local
from qbp.executors.qiskit_primitive.outcomes import Outcomes, outputs_of
from qbp.executors.qiskit_primitive.preparation import preparation_angles, prepared
from qbp.executors.sampled import measurement_groups
from qbp.jobs.jobs import run_unrecorded
from qbp.testing import NASTY, check_executor, random_angles

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")

X = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(8, 4)


def noise_free(device: str) -> QiskitPrimitive:
    return QiskitPrimitive(fake_devices.fake_device(device, noise=False))


EXACT: dict[str, Callable[[], QiskitPrimitive]] = {
    "qiskit": lambda: backend("qiskit"),
    "aer": lambda: backend("aer"),
    "manila": lambda: noise_free("manila"),
    "sherbrooke": lambda: noise_free("sherbrooke"),
}


class Recorder:
    """A runner that notes the work and runs it."""

    def __init__(self):
        self.works = []

    def __call__(self, primitive, work):
        self.works.append(work)
        return run_unrecorded(primitive, work)


def recorded(name: str = "qiskit", **options):
    executor = backend(name, **options)
    executor.runner, executor.one_job = Recorder(), True
    return executor, executor.runner.works


def family(executor, **options):
    return qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=2, backend=executor, seed=0, **options)


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qiskit", "aer"])
@pytest.mark.parametrize("shots", [None, 400])
def test_conformance(name: str, shots: int | None):
    check_executor(backend(name, shots=shots), n_programs=10, batch_sizes=(3,))


@pytest.mark.parametrize("device", ["manila", "sherbrooke"])
def test_without_noise_the_transpiled_circuit_gives_the_same(device: str):
    """On 5 and on 127 qubits: layout, basis gates, observables and order of the wires."""
    executor = noise_free(device)
    size = executor.primitive.backend.num_qubits
    check_executor(executor, atol=1e-9, n_programs=10, batch_sizes=(3,), accepts=lambda p: p.n_qubits <= size)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_conformance_in_full(name: str):
    executor = EXACT[name]()
    size = getattr(executor.primitive.backend, "num_qubits", 99)
    atol = 1e-9 if executor.primitive.backend is None else 1e-8  # a transpiler drops fixed angles of 1e-9
    check_executor(executor, atol=atol, n_programs=100, accepts=lambda p: p.n_qubits <= size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qiskit", "aer"])
def test_conformance_with_shots_in_full(name: str):
    check_executor(backend(name, shots=1000), n_programs=100)


@pytest.mark.parametrize("name", [*EXACT, "noisy"])
def test_x_on_a_wire_flips_that_output_only(name: str):
    executor = backend("fake:manila") if name == "noisy" else EXACT[name]()
    z = tuple(Expval.word("Z", w) for w in range(5))
    for wire in range(5):
        program = Program(5, (Clifford("PauliX", (wire,)),), (*z, Probs((wire,))), 0)
        outputs = executor(program, Angles.of(torch.zeros(1, 0, dtype=torch.float64))).values[0]
        want = torch.ones(5, dtype=torch.float64)
        want[wire] = -1
        if name == "noisy":
            assert torch.equal(outputs[:5].sign(), want) and outputs[6] > 0.8
        else:
            torch.testing.assert_close(
                outputs, torch.cat([want, torch.tensor([0.0, 1.0]).double()]), atol=1e-12, rtol=0
            )


def test_statevectors_are_those_of_qiskits_estimator(rng):
    """The second answer from Qiskit itself, one parameter set after the other."""
    from qiskit.primitives import StatevectorEstimator

    for name in ("both orders of two wires", "one angle for eight words", "every fixed gate"):
        program = NASTY[name]
        program = Program(
            program.n_qubits,
            program.ops,
            tuple(m for m in program.measurements if isinstance(m, Expval)),
            program.n_angles,
        )
        angles = random_angles(rng, program, 3, n_batched=program.n_angles)
        executor = backend("qiskit")
        compiled = executor.compiled(program)
        values = angles.batched.numpy()[:, list(compiled.angles)]
        pub = (compiled.circuit, [[op] for op in compiled.observables], values if values.size else None)
        want = StatevectorEstimator().run([pub], precision=0).result()[0].data.evs.T
        np.testing.assert_allclose(
            executor(program, angles).values.numpy(), np.broadcast_to(want, (3, want.shape[1])), atol=1e-12
        )


@pytest.mark.parametrize("is_complex", [False, True])
def test_prepared_states(rng, is_complex: bool):
    for n in (1, 2, 4):
        psi = rng.normal(size=(4, 2**n)) + (1j * rng.normal(size=(4, 2**n)) if is_complex else 0)
        psi[0, 1:] = 0
        psi[1, : 2 ** (n - 1)] = 0
        psi /= np.linalg.norm(psi, axis=1, keepdims=True)
        words = [Expval.word("".join(rng.choice(list("XYZ"), n)), *rng.permutation(n).tolist()) for _ in range(8)]
        program = Program(n, (), (*words, Probs(tuple(range(n)))), 0, amplitudes=True)
        want = Dense()(program, Angles.of(torch.zeros(4, 0, dtype=torch.float64)), torch.tensor(psi)).values
        got = Dense()(prepared(program, is_complex), Angles.of(torch.tensor(preparation_angles(psi)))).values
        torch.testing.assert_close(got, want, atol=1e-12, rtol=0)


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*EXACT, "noisy"])
def test_gradcheck_through_torch(name: str):
    """Noise does not spoil the shift rule: its channels do not depend on the angles."""
    executor = backend("fake:manila") if name == "noisy" else EXACT[name]()
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=executor, seed=0).double()
    assert layer.diff_method == ("adjoint" if name == "noisy" else "parameter-shift")
    x = X[:2, :2].clone().requires_grad_()
    weights = layer.weights.detach().clone().requires_grad_()
    run = lambda x, w: torch.func.functional_call(layer, {"weights": w}, (x,))  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, weights), atol=1e-6)


@pytest.mark.parametrize("rule", ["parameter-shift", "finite-diff"])
@pytest.mark.parametrize("name", EXACT)
def test_gradients_are_natives(name: str, rule: str):
    circuit = qbp.trace("zz_map", n_qubits=3, n_layers=1)  # angles that are products of inputs
    results = []
    for where in (EXACT[name](), "native"):
        layer = qbp.QuantumLayer(circuit, backend=where, diff_method=rule, seed=0).double()
        x = X[:3, :3].clone().requires_grad_()
        (layer(x) * X[:3, :3].cos()).sum().backward()
        results.append(torch.cat([x.grad.flatten(), *(p.grad.flatten() for p in layer.parameters())]))
    torch.testing.assert_close(results[0], results[1], atol=1e-6 if rule == "finite-diff" else 1e-9, rtol=0)


def test_gradients_of_amplitudes_are_natives():
    import pennylane as qml

    def circuit(inputs, weights):
        qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
        qml.BasicEntanglerLayers(weights, wires=range(2))
        return [qml.expval(qml.Z(0)), qml.expval(qml.X(1))]

    results = []
    executor, works = recorded()
    for where in (executor, "native"):
        layer = qbp.QuantumLayer(circuit, {"weights": (1, 2)}, backend=where, seed=0).double()
        x = X[:3].clone().requires_grad_()
        y = layer(x)
        y.sum().backward()
        results.append(torch.cat([y.detach().flatten(), x.grad.flatten(), layer.weights.grad.flatten()]))
    torch.testing.assert_close(results[0], results[1], atol=1e-9, rtol=0)
    assert len(works) == 1 and len(executor._compiled) == 1, "a batch of states is one circuit in one job"


def test_second_derivatives():
    results = []
    for where in ("qiskit", "native"):
        layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=where, seed=0).double()
        x = X[:2, :2].clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        results.append(torch.autograd.grad((slope**2).sum(), [x, layer.weights]))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=1e-9, rtol=0)


def test_noisy_gradients_are_natives_within_their_error_bars():
    """Over 40 seeds: unbiased, and spread as `last_grad_stds` says."""
    exact = family("native").double()
    exact(X).sum().backward()
    outputs, gradients, told = [], [], []
    for seed in range(40):
        layer = qbp.QuantumLayer(
            "basic_entangler", n_qubits=4, n_layers=2, backend="aer", shots=256, seed=seed
        ).double()
        layer.load_state_dict(exact.state_dict())
        y = layer(X)
        y.sum().backward()
        outputs.append((y.detach() - exact(X).detach()) / layer.last_stds)
        gradients.append(layer.weights.grad.flatten())
        told.append(layer.last_grad_stds)
    z = torch.stack(outputs)
    assert abs(z.mean()) < 5 / z.numel() ** 0.5 and 0.9 < z.std() < 1.1
    grads, stds = torch.stack(gradients), torch.stack(told).square().mean(0).sqrt()
    assert ((grads.mean(0) - exact.weights.grad.flatten()).abs() < 5 * stds / 40**0.5).all()
    ratio = (grads.std(0) / stds).square().mean().sqrt()  # outputs of a circuit are correlated, which is not counted
    assert 0.8 < ratio < 1.25


# ---- one job a step --------------------------------------------------------------------------------------------------


def test_a_step_is_one_job_with_exactly_the_sets_it_needs():
    executor, works = recorded()
    layer = family(executor)
    layer(X).sum().backward()
    assert [len(w.values) for w in works] == [8 * (1 + 2 * 8)]
    assert works[0].n_circuits == 136, "Z of all wires is read from the same shots"
    layer(X.clone().requires_grad_()).sum().backward()
    assert [len(w.values) for w in works] == [136, 136], "RX(x) RX(w): one shift serves both"
    with torch.no_grad():
        layer(X)
    assert len(works[2].values) == 8
    frozen = family(executor)
    frozen.weights.requires_grad_(False)
    frozen(X)
    assert len(works[3].values) == 8
    spsa = family(executor, diff_method="spsa")
    spsa(X).sum().backward()
    assert len(works[4].values) == 8 * 3 and len(works) == 5


def test_a_classical_layer_in_front_trains():
    executor, works = recorded()
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), family(executor), torch.nn.Linear(4, 2)).double()
    model(X).sum().backward()
    assert len(works) == 1 and all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_equal_sets_run_once():
    executor, works = recorded()
    layer = family(executor)
    outputs = layer(X[[0, 1, 0, 0]])
    assert len(works[0].values) == 2 * 17
    assert torch.equal(outputs[0], outputs[2]) and torch.equal(outputs[0], outputs[3])
    program = Program(2, (Rotation("X", (0,), 0), Rotation("X", (1,), 1)), (Expval.word("Z", 0),), 2)
    values = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(executor(program, Angles.of(values)).values, values[:, :1].cos())
    assert works[1].values.tolist() == [[0.1]], "what no measurement sees is not sent"


def test_spsa_replays_its_own_signs():
    """Equal seeds give equal estimates, and their mean is the gradient."""

    def estimate(seed):
        layer = qbp.QuantumLayer(
            "basic_entangler", n_qubits=2, n_layers=1, backend="qiskit", diff_method="spsa", seed=seed
        )
        with torch.no_grad():
            layer.weights.fill_(0.3)
        layer.double()(X[:1, :2]).sum().backward()
        return layer.weights.grad.flatten()

    assert torch.equal(estimate(1), estimate(1))
    exact = qbp.QuantumLayer(
        "basic_entangler", n_qubits=2, n_layers=1, init_method=lambda w: torch.nn.init.constant_(w, 0.3)
    )
    exact.double()(X[:1, :2]).sum().backward()
    estimates = torch.stack([estimate(seed) for seed in range(60)])
    sigma = estimates.std(0) / 60**0.5
    assert ((estimates.mean(0) - exact.weights.grad.flatten()).abs() < 5 * sigma + 0.01).all()


def test_nothing_but_identities_is_no_job():
    executor, works = recorded()
    program = Program(1, (Rotation("X", (0,), 0),), (Expval(((2.5, "", ()),)),), 1)
    assert executor(program, Angles.of(torch.ones(3, 1))).values.tolist() == [[2.5]] * 3 and not works


@pytest.mark.parametrize("name", ["qiskit", "aer", "fake:manila"])
def test_splitting_changes_no_bit(name: str):
    whole, works = recorded(name)
    split, parts = recorded(name, options=Options(max_executions=50))
    results = []
    for executor in (whole, split):
        layer = family(executor).double()
        layer(X).sum().backward()
        results.append(layer.weights.grad)
    assert [len(w.values) for w in works] == [136] and [len(w.values) for w in parts] == [50, 50, 36]
    assert torch.equal(*results)
    assert len({w.fingerprint for w in parts}) == 3


def test_parts_do_not_err_alike():
    executor = backend("qiskit", shots=100, options=Options(max_executions=100))
    program = Program(1, (Rotation("X", (0,), 0),), (Expval.word("Z", 0),), 1)
    outputs = executor(program, Angles.of(torch.linspace(1.5, 1.501, 20, dtype=torch.float64)[:, None])).values
    assert len(outputs.unique()) > 8


def test_fingerprints_tell_work_apart():
    def fingerprint(x=X, shots=100, name="aer", **options):
        executor, works = recorded(name, shots=shots, options=Options(**options))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            family(executor)(x)
        return works[0].fingerprint

    same = fingerprint()
    assert same == fingerprint() and len(same) == 64
    others = [
        fingerprint(X + 1e-7),
        fingerprint(shots=101),
        fingerprint(name="qiskit"),
        fingerprint(resilience_level=1),
    ]
    assert len({same, *others}) == 5


# ---- transpiled once -------------------------------------------------------------------------------------------------


def test_a_run_transpiles_once_and_keeps_its_layout(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(isa, "transpile", lambda *a, real=isa.transpile: calls.append(a) or real(*a))
    models = []
    monkeypatch.setattr(local, "_noise_model", lambda *a, real=local._noise_model: models.append(a) or real(*a))
    executor = QiskitPrimitive(local.Aer(fake_devices.fake_device("manila").backend, name="mine"), directory=tmp_path)
    executor.runner, executor.one_job = Recorder(), True
    data = qbp.data.Dataset(X.float(), torch.tensor([0, 1] * 4))
    model = torch.nn.Sequential(family(executor), torch.nn.Linear(4, 2))
    qbp.fit(model, data, epochs=2, batch_size=4)
    qbp.evaluate(model, data)
    works = executor.runner.works
    assert len(calls) == 1 and len(models) == 1 and len(works) == 5
    assert len({w.payload.compiled.layout for w in works}) == 1

    again = QiskitPrimitive(local.Aer(fake_devices.fake_device("manila").backend, name="mine"), directory=tmp_path)
    resumed = copy.deepcopy(model)
    resumed[0]._executor = again
    assert torch.equal(resumed(X.float()), model(X.float())) and len(calls) == 1, "the circuit is read from disk"
    assert again.compiled(model[0].circuit.program).layout == works[0].payload.compiled.layout
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".qpy"


def test_a_wide_device_simulates_and_sends_only_what_is_used():
    executor = backend("fake:sherbrooke")
    compiled = executor.compiled(family("native").circuit.program)
    assert compiled.circuit.num_qubits == 127 and len(compiled.active) <= 6
    assert compiled.n_groups == 1 and len(compiled.angles) == 12


def test_too_small_a_device():
    with pytest.raises(CircuitError, match="6 qubits does not fit on fake_manila, which has 5"):
        qbp.QuantumLayer("basic_entangler", n_qubits=6, n_layers=1, backend="fake:manila")(torch.zeros(1, 6))


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_that_of_the_backend():
    """Against Aer's own way: the full noise model, counts, readout errors."""
    from qiskit_aer import AerSimulator

    executor = backend("fake:manila")
    z = (*(Expval.word("Z", w) for w in range(3)), Expval.word("XX", 0, 1), Probs((2, 0)))
    program = Program(3, NASTY["asymmetric"].ops, z, 3)
    angles = Angles.of(torch.tensor([[0.4, 1.1, -0.3]], dtype=torch.float64))
    got = executor(program, angles).values[0]
    compiled, shots = executor.compiled(program), 200_000
    simulator = AerSimulator.from_backend(executor.primitive.backend)
    counts = [
        simulator.run(c.assign_parameters([0.4, 1.1, -0.3]), shots=shots, seed_simulator=1, enable_truncation=False)
        .result()
        .data(0)["counts"]
        for c in compiled.measured
    ]
    values, stds = outputs_of(compiled.groups, [Outcomes.of_counts([c], shots) for c in counts], 1, 8, shots)
    assert (np.abs(got.numpy() - values[0]) < 5 * stds[0]).all()
    ideal = Dense()(program, angles).values[0]
    assert (got - ideal).abs().max() > 0.02 and not executor.capabilities.exact


def test_more_noisy_qubits_than_a_density_matrix_holds(monkeypatch):
    want = backend("fake:manila")(NASTY["asymmetric"], Angles.of(torch.ones(1, 3))).values
    monkeypatch.setattr(fake_devices, "MOST_QUBITS", 2)
    on_aer = backend("fake:manila")(NASTY["asymmetric"], Angles.of(torch.ones(1, 3))).values
    torch.testing.assert_close(on_aer, want, atol=1e-9, rtol=0)
    monkeypatch.setattr(local, "MAX_DENSITY_QUBITS", 2)
    with pytest.raises(ArgumentError, match="`shots` must be given for a circuit on 3 noisy qubits"):
        backend("fake:manila")(NASTY["asymmetric"], Angles.of(torch.ones(1, 3)))
    executor = backend("fake:manila", shots=20_000, generator=torch.Generator().manual_seed(0))
    got = executor(NASTY["asymmetric"], Angles.of(torch.ones(1, 3)))
    assert ((got.values - want).abs() < 5 * got.stds).all() and got.stds.max() < 0.02


@pytest.mark.parametrize("name", ["qiskit", "aer", "fake:manila"])
def test_seeds(name: str):
    def run(seed):
        layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=name, shots=50, seed=seed)
        with torch.no_grad():
            layer.weights.fill_(0.5)
        y = layer(X[:3, :2])
        y.sum().backward()
        return torch.cat([y.detach().flatten(), layer.weights.grad.flatten()])

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_error_bars_count_covariances():
    """In a Bell state the two wires always agree: Z0 - Z1 is certain, Z0 + Z1 twice as uncertain as one of them."""
    bell = (Clifford("Hadamard", (0,)), Clifford("CNOT", (0, 1)))
    sums = tuple(Expval(((1.0, "Z", (0,)), (sign, "Z", (1,)))) for sign in (1.0, -1.0))
    executor = backend("qiskit", shots=10_000)
    results = executor(
        Program(2, bell, (*sums, Expval.word("Z", 0), Expval(((1.0, "Z", (0,)), (1.0, "X", (1,))))), 0),
        Angles.of(torch.zeros(1, 0)),
    )
    torch.testing.assert_close(results.stds[0], torch.tensor([0.02, 0.0, 0.01, 0.0141]), atol=2e-4, rtol=0)


def test_outcomes_of_a_group(rng):
    program = Program(3, (), (Expval.word("ZZ", 0, 2), Expval.word("Z", 1), Probs((2, 0))), 0)
    p = rng.dirichlet(np.ones(8), size=2)
    values, _ = outputs_of(measurement_groups(program), [Outcomes.of_probabilities(p)], 2, 6, None)
    bits = np.array([[k >> 2 & 1, k >> 1 & 1, k & 1] for k in range(8)])
    want = [p @ (-1.0) ** (bits[:, 0] + bits[:, 2]), p @ (-1.0) ** bits[:, 1]]
    want += [p @ ((bits[:, 2] == a) & (bits[:, 0] == b)) for a in (0, 1) for b in (0, 1)]
    np.testing.assert_allclose(values, np.array(want).T, atol=1e-12)


# ---- options, errors, copies -----------------------------------------------------------------------------------------


def test_options_are_checked():
    for bad in ({"resilience_level": 3}, {"precision": 0}, {"zne_noise_factors": (0.5, 1)}, {"max_executions": 0}):
        with pytest.raises(ArgumentError, match=next(iter(bad))):
            Options(**bad)
    assert backend("aer", options=Options(precision=0.05)).shots == 400
    with pytest.raises(ArgumentError, match="`shots` must be None"):
        backend("aer", shots=10, options=Options(precision=0.05))
    with pytest.raises(ArgumentError, match="where options of theirs are given, but is 'native'"):
        backend("native", options=Options())


def test_what_is_ignored_is_said():
    with pytest.warns(UserWarning, match="'fake:manila' ignores resilience_level, dynamical_decoupling$"):
        backend("fake:manila", options=Options(resilience_level=1, dynamical_decoupling="XY4", optimization_level=1))
    with pytest.warns(UserWarning, match="'aer' ignores optimization_level"):
        backend("aer", options=Options(optimization_level=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend("fake:manila", options=Options(optimization_level=1))


def test_names():
    with pytest.raises(ArgumentError, match=r"'fake:' and one of .*manila, .*but is 'fake:nowhere'"):
        backend("fake:nowhere")
    assert backend("fake:FakeManilaV2").primitive is backend("fake:manila").primitive
    with pytest.raises(GradientError, match="finite-diff"):
        family("fake:manila", diff_method="finite-diff")
    with pytest.raises(GradientError, match="adjoint"):
        family("aer", diff_method="adjoint")


def test_a_missing_package_says_what_to_install():
    """And Qiskit alone is enough for "qiskit"."""
    code = """
import sys
sys.modules["qiskit_aer"] = sys.modules["qiskit_ibm_runtime"] = None
import qbp, torch
print(qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend="qiskit")(torch.zeros(1, 2)).shape)
for name in ("aer", "fake:manila", "ibm:ibm_torino"):
    try:
        qbp.backend(name)
    except qbp.QbpError as error:
        print(type(error).__name__, error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "torch.Size([1, 2])" in out
    for name, package in (("aer", "aer"), ("fake:manila", "ibm_runtime"), ("ibm:ibm_torino", "ibm_runtime")):
        assert f"{MissingPackageError.__name__} Backend '{name}' needs qiskit_{package}: pip install 'qbp[ibm]'" in out


@pytest.mark.parametrize("name", ["qiskit", "aer", "fake:manila"])
def test_copies(name: str, tmp_path):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=name, seed=0)
    want = layer(X[:3, :2]).detach()
    torch.save(layer, tmp_path / "layer.pt")
    for other in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(tmp_path / "layer.pt", weights_only=False),
    ):
        assert torch.equal(other(X[:3, :2]), want) and other.backend == name

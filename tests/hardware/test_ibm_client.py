"""IBM's quantum computers through the genuine client, against the loopback server: what is sent, what comes back."""

from __future__ import annotations

import copy
import logging
import pickle
import time
import traceback
import warnings

import numpy as np
import pytest
import torch

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Probs, Program
from qbp.errors import ArgumentError, CircuitError
from qbp.executors.dense import Dense
from qbp.executors.qiskit_primitive import Options, QiskitPrimitive, client, fake_devices
from qbp.executors.qiskit_primitive.client import IBM, UnreadableError
from qbp.jobs.jobs import FINAL
from qbp.jobs.retry import Patience
from qbp.testing import NASTY, random_amplitudes, random_angles

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")
from ibm_server import IBMServer

logging.getLogger("qiskit_ibm_runtime").setLevel(logging.ERROR)
CLIENT_SIDE = client._version() >= (0, 50)
X = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(8, 4)


@pytest.fixture(scope="module")
def server():
    with IBMServer(backends=["fake_manila"], seed=11, engine="exact", plan="premium") as ibm, ibm.client_environment():
        yield ibm


@pytest.fixture(scope="module")
def service(server):
    """One service for most tests: making one takes longer than they do."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    return QiskitRuntimeService()


@pytest.fixture
def ibm(ibm, service, monkeypatch):
    monkeypatch.setattr(IBM, "service", service)
    return ibm


@pytest.fixture
def bare(server):
    """The server for what makes its own service."""
    server.reset()
    yield server
    server.reset()


class Runner:
    """Submits, waits, fetches; notes the works and their jobs."""

    def __init__(self, tags=("a-tag",)):
        self.tags, self.works, self.ids = tags, [], []

    def __call__(self, primitive, work):
        self.works.append(work)
        self.ids.append(primitive.submit(work, self.tags))
        while (status := primitive.status(self.ids[-1])) not in FINAL:
            time.sleep(0.02)
        assert status == "DONE", primitive.reason(self.ids[-1])
        return primitive.fetch(self.ids[-1], work)


def executor(shots=1024, **options):
    primitive = QiskitPrimitive(IBM("fake_manila"), shots=shots, options=Options(**options), runner=Runner())
    return primitive


def step(where, x=X):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=2, backend=where, seed=0).double()
    layer(x).sum().backward()
    return layer


def test_a_step_is_one_job_with_one_pub(ibm):
    """PennyLane's `qiskit.remote` sends 136 jobs for it, Qiskit Machine Learning 2 with 516 PUBs."""
    runs = executor()
    layer = step(runs)
    books = ibm.stats()
    assert (books["jobs"]["accepted"], books["pubs"], books["circuits"], books["executions"]) == (1, 1, 136, 136 * 1024)
    assert books["quantum_seconds"] == pytest.approx(runs.runner.works[0].seconds)
    sent = [entry["bytes_in"] for entry in ibm.log() if entry["route"] == "jobs.submit"]
    assert len(sent) == 1 and sent[0] < (20_000 if CLIENT_SIDE else 4_000)
    native = step("native")
    sigma = layer.last_grad_stds
    assert ((layer.weights.grad - native.weights.grad).flatten().abs() < 5 * sigma).all() and sigma.max() < 0.2
    step(runs, X.clone().requires_grad_())
    assert ibm.stats()["circuits"] == 136 + 136
    with torch.no_grad():
        layer(X)
    assert ibm.stats()["circuits"] == 136 + 136 + 8
    assert ibm.stats()["paid_twice"] == [] and ibm.stats()["paid_but_unread"] == []
    assert len({w.payload.compiled.layout for w in runs.runner.works}) == 1 == len(runs._compiled)


@pytest.mark.parametrize(
    "name",
    [
        "asymmetric",
        "probabilities in another order",
        "identity measured",
        "amplitudes",
        "no angles",
        "words of all wires",
    ],
)
def test_results_are_those_of_the_program(ibm, rng, name: str):
    """Expectation values by the estimator, probabilities by the sampler."""
    program, runs = NASTY[name], executor(shots=4000)
    angles = random_angles(rng, program, 3, n_batched=program.n_angles)
    amplitudes = random_amplitudes(rng, program, 3)
    got = runs(program, angles, amplitudes)
    assert ibm.stats()["jobs"]["accepted"] == 1
    norms = [sum(abs(c) for c, _, _ in m.terms) if isinstance(m, Expval) else 1 for m in program.measurements]
    assert (got.values - Dense()(program, angles, amplitudes).values).abs().max() < 5 * max(norms) / 4000**0.5
    assert got.stds.shape == got.values.shape and got.stds.max() <= 1.05 * max(norms) / 4000**0.5
    assert ibm.stats()["executions"] == sum(w.n_circuits for w in runs.runner.works) * 4000


def test_both_kinds_of_measurements_are_one_job(ibm):
    program = Program(2, NASTY["one wire"].ops, (Expval.word("Z", 0), Expval.word("X", 0), Probs((1, 0))), 2)
    angles, runs = Angles.of(torch.tensor([[0.4, 1.0], [1.4, -1.0]], dtype=torch.float64)), executor(shots=4000)
    got = runs(program, angles)
    assert (got.values - Dense()(program, angles).values).abs().max() < 5 / 4000**0.5
    books = ibm.stats()
    assert (books["jobs"]["accepted"], books["circuits"]) == (1, runs.runner.works[0].n_circuits == 2 * 2 and 4)


def test_splitting_keeps_the_order(ibm):
    runs = executor(max_executions=50 * 1024)
    layer = step(runs)
    assert [len(w.values) for w in runs.runner.works] == [50, 50, 36] and ibm.stats()["jobs"]["accepted"] == 3
    with torch.no_grad():
        layer(X)
    want = step("native").weights.grad.flatten()
    assert ((layer.weights.grad.flatten() - want).abs() < 5 * layer.last_grad_stds).all()


def test_jobs_are_found_by_tag_and_told_their_usage(ibm):
    runs = executor()
    step(runs)
    assert runs.primitive.find("a-tag") == runs.runner.ids and runs.primitive.find("another") == []
    assert runs.primitive.usage(runs.runner.ids[0]) == pytest.approx(50.7424)


def test_another_process_fetches_the_same(bare):
    """By id alone: with a new service, and the work made again from the same model."""
    runs = executor()
    step(runs)
    job, work = runs.runner.ids[0], runs.runner.works[0]
    again = QiskitPrimitive(IBM("fake_manila"), shots=1024)
    (same,) = again.works(again.compiled(work.payload.compiled.program), work.values)
    assert same.fingerprint == work.fingerprint
    for a, b in zip(
        *(vars(p.fetch(job, w)).values() for p, w in ((runs.primitive, work), (again.primitive, same))), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_options_reach_the_service(ibm):
    settings = client._settings(
        Options(resilience_level=1, measure_twirling=True, dynamical_decoupling="XY4", zne_noise_factors=(1, 3)), False
    )
    assert settings == {
        "twirling": {"enable_measure": True},
        "dynamical_decoupling": {"enable": True, "sequence_type": "XY4"},
        "resilience_level": 1,
        "resilience": {"zne_mitigation": True, "zne": {"noise_factors": [1, 3]}},
    }
    client._primitive(False)(mode=IBM("fake_manila").backend, options=settings)  # the client knows them all
    assert client._settings(Options(), False) == {"resilience_level": 0} and client._settings(Options(), True) == {}


@pytest.mark.parametrize("options", [{}, {"resilience_level": 1}, {"resilience_level": 2}])
def test_the_estimate_is_what_the_service_charges(ibm, options):
    runs = executor(shots=256, **options)
    with torch.no_grad():
        qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=2, backend=runs, seed=0)(X)
    charged, estimate = ibm.stats()["quantum_seconds"], runs.runner.works[0].seconds
    assert charged == pytest.approx(estimate)


def test_probabilities_ignore_mitigation_and_say_so(ibm):
    with pytest.warns(UserWarning, match="A circuit that measures probabilities ignores resilience_level"):
        executor(resilience_level=1).compiled(NASTY["probabilities in another order"])


# ---- what is refused before it costs ---------------------------------------------------------------------------------


def test_what_the_device_would_refuse_is_not_sent(ibm):
    runs = executor()
    other = QiskitPrimitive(fake_devices.fake_device("sherbrooke", noise=False)).compiled(NASTY["asymmetric"])
    (work,) = runs.works(other, np.zeros((1, 3)))
    with pytest.raises(CircuitError, match=r"The device has no .* on qubits"):
        runs.primitive.submit(work, ())
    mine = runs.compiled(NASTY["asymmetric"])
    (work,) = runs.works(mine, np.array([[0.0, np.nan, 0.0]]))
    with pytest.raises(ArgumentError, match="finite"):
        runs.primitive.submit(work, ())
    assert ibm.stats()["jobs"]["accepted"] == 0


def test_without_a_ledger_nothing_paid_runs(ibm):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend="ibm:fake_manila")
    assert layer.backend == "ibm:fake_manila" and layer.executor.shots == 1024
    with pytest.raises(ArgumentError, match="costs quantum time"):
        layer(torch.zeros(1, 2))
    assert ibm.stats()["jobs"]["accepted"] == 0


def test_an_unknown_device(bare):
    with pytest.raises(ArgumentError, match="'ibm:' and one of fake_manila, but is 'ibm:nowhere'"):
        _ = IBM("nowhere").backend
    with pytest.raises(ArgumentError, match="must name the device"):
        IBM("")


# ---- accounts --------------------------------------------------------------------------------------------------------


def test_no_account(monkeypatch, tmp_path):
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "QISKIT_IBM_CHANNEL", "QISKIT_IBM_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        "qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "none")
    )
    with pytest.raises(ArgumentError, match="save_account"):
        _ = IBM("fake_manila").backend


def test_a_token_is_in_no_error_repr_or_pickle(monkeypatch):
    secret = "s3cret-" + "k" * 37
    with IBMServer(backends=["fake_manila"], api_keys=["another"]) as ibm, ibm.client_environment():
        monkeypatch.setenv("QISKIT_IBM_TOKEN", secret)
        primitive = IBM("fake_manila")
        with pytest.raises(ArgumentError) as caught:
            _ = primitive.backend
        told = "".join(traceback.format_exception(caught.value))
        assert not primitive.transient(caught.value)
    with IBMServer(backends=["fake_manila"], api_keys=[secret]) as ibm, ibm.client_environment():
        monkeypatch.setenv("QISKIT_IBM_TOKEN", secret)
        runs = executor()
        assert runs.primitive.backend.name == "fake_manila"
        layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=runs)
        runs.compiled(layer.circuit.program)
        everything = told + repr(runs.primitive) + repr(runs) + repr(layer) + layer.describe()
    assert secret not in everything
    stored = pickle.dumps(runs)
    assert secret.encode() not in stored and pickle.loads(stored).primitive.name == "ibm:fake_manila"
    assert copy.deepcopy(layer).executor is runs


# ---- faults ----------------------------------------------------------------------------------------------------------


def work_of(runs):
    return runs.works(runs.compiled(NASTY["asymmetric"]), np.ones((2, 3)))[0]


def done(primitive, work):
    job = primitive.submit(work, ("t",))
    while primitive.status(job) not in FINAL:
        time.sleep(0.02)
    return job


@pytest.mark.parametrize("outcome", ["empty"] if CLIENT_SIDE else ["empty", "nan"])
def test_what_is_no_result_is_not_taken_for_one(ibm, outcome: str):
    runs = executor()
    work = work_of(runs)
    ibm.add_fault(action="job", outcome=outcome)
    job = done(runs.primitive, work)
    with pytest.raises(UnreadableError, match=f"{job} on ibm:fake_manila returned") as caught:
        runs.primitive.fetch(job, work)
    assert runs.primitive.transient(caught.value)


def test_another_jobs_result_is_refused(ibm):
    runs = executor()
    job = done(runs.primitive, work_of(runs))
    (other,) = runs.works(runs.compiled(NASTY["asymmetric"]), np.ones((3, 3)))
    with pytest.raises(UnreadableError, match="no result of this work"):
        runs.primitive.fetch(job, other)


@pytest.mark.parametrize(
    ("fault", "passes"),
    [
        ({"status": 429}, True),
        ({"status": 400, "code": 1352, "message": "no"}, False),
        ({"status": 409}, False),
        ({"action": "truncate", "phase": "after"}, True),
        ({"action": "corrupt", "phase": "after"}, True),
    ],
)
def test_which_errors_pass(ibm, fault, passes):
    runs = executor()
    work = work_of(runs)
    ibm.add_fault(route="jobs.submit", **fault)
    with pytest.raises(Exception) as caught:
        runs.primitive.submit(work, ())
    assert runs.primitive.transient(caught.value) is passes
    runs.primitive.submit(work, ())


def test_a_failed_job_does_not_pass(ibm):
    runs = executor()
    work = work_of(runs)
    ibm.add_fault(action="job", outcome="failed", reason="it broke", reason_code=1517)
    job = done(runs.primitive, work)
    assert runs.primitive.status(job) == "ERROR" and "it broke" in runs.primitive.reason(job)
    with pytest.raises(Exception) as caught:
        runs.primitive.fetch(job, work)
    assert not runs.primitive.transient(caught.value)


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_batches_and_sessions(ibm, mode: str):
    """Opened on request only; when the service closes one, the next job stands for itself."""
    runs = executor()
    work = work_of(runs)
    done(runs.primitive, work)
    assert not any("sessions" in entry["route"] for entry in ibm.log())
    runs.primitive.open(mode, 60)
    done(runs.primitive, work)
    session = runs.primitive._mode
    assert session.session_id and session.status() != "Closed"
    session.close()
    done(runs.primitive, work)
    assert runs.primitive._mode is None and ibm.stats()["jobs"]["accepted"] == 3
    runs.primitive.open(mode)
    opened = runs.primitive._mode
    runs.primitive.close()
    runs.primitive.close()
    assert opened.status() in ("Closed", "In progress, not accepting new jobs")


def test_nothing_here_warns_of_what_is_deprecated(ibm):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(EstimatorV2|SamplerV2) class is deprecated")
        step(executor())


# last, since it ends the tokens of all


def test_a_token_that_expires_is_renewed(bare):
    runs = executor()
    work = work_of(runs)
    bare.revoke_tokens()
    with pytest.raises(Exception) as caught:
        runs.primitive.submit(work, ())
    assert runs.primitive.transient(caught.value)
    assert done(runs.primitive, work)


@pytest.mark.parametrize(
    "route", ["search.instances", "backends.list", "backends.configuration", "backends.properties"]
)
@pytest.mark.parametrize("action", ["corrupt", "truncate"])
def test_answers_while_connecting_that_are_no_json_are_asked_for_again(bare, tmp_path, route, action):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, seed=0).double()
    patience = Patience(answer=30.0, tries=5, pause=0.05, poll=0.05, settle=0.2, rate=1000)
    bare.set_faults({"route": route, "action": action, "times": 2})
    moved = qbp.on_backend(layer, "ibm:fake_manila", shots=16, budget=9, run_dir=tmp_path, patience=patience)
    with torch.no_grad():
        assert moved(X[:2, :2]).shape == (2, 2)
    assert bare.stats()["faults_fired"] and bare.stats()["jobs"]["by_status"] == {"Completed": 1}
    assert bare.stats()["paid_twice"] == []

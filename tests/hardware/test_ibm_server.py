"""The loopback double of the IBM Quantum Platform, with the genuine client, of any version since 0.45."""

import json
import logging
import os
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import qiskit_ibm_runtime
from ibm_server import Fault, IBMServer, Instance
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import Batch, EstimatorV2, QiskitRuntimeService, SamplerV2, Session
from qiskit_ibm_runtime.api.exceptions import RequestsApiError

logging.getLogger("qiskit_ibm_runtime").setLevel(logging.ERROR)
VERSION = tuple(int(x) for x in qiskit_ibm_runtime.__version__.split(".")[:2])
pytestmark = pytest.mark.filterwarnings("ignore")
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope="module")
def server():
    with IBMServer(seed=11, engine="exact", plan="premium") as ibm, ibm.client_environment():
        yield ibm


@pytest.fixture
def backend(ibm):
    """A fresh service on the short path: API calls go straight to the double, IAM through the proxy."""
    return QiskitRuntimeService(url_resolver=ibm.url_resolver).backend("fake_manila")


def ansatz():
    theta = ParameterVector("t", 3)
    circuit = QuantumCircuit(3)
    for i in range(3):
        circuit.ry(theta[i], i)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.rx(theta[0], 2)
    return circuit


def isa(backend, circuit):
    return generate_preset_pass_manager(1, backend=backend, seed_transpiler=3).run(circuit)


def submit(backend, value=0.1, tags=None, shots=None, level=0, mode=None, **options):
    circuit = isa(backend, ansatz())
    observable = SparsePauliOp("IIZ").apply_layout(circuit.layout)
    estimator = EstimatorV2(mode=mode or backend)
    estimator.options.resilience_level = level
    if tags:
        estimator.options.environment.job_tags = tags
    for name, option in options.items():
        setattr(estimator.options, name, option)
    return estimator.run([(circuit, observable, [[value, 0.2, 0.3]])], precision=None if shots is None else shots**-0.5)


# ------------------------------------------------------------------------------------------------
def test_default_urls_and_environment_only(ibm):
    """No argument at all: default URL, default resolver, TLS on; nothing is patched."""
    service = QiskitRuntimeService()
    assert service.active_account()["url"] == "https://cloud.ibm.com"
    assert service.active_account()["verify"] is True
    assert [b.name for b in service.backends()] == ["fake_manila"]
    assert service.instances()[0]["plan"] == "premium"
    hosts = {e["host"] for e in ibm.log()}
    assert "iam.cloud.ibm.com" in hosts and "quantum.cloud.ibm.com" in hosts
    assert ibm.stats()["requests"]["auth"].keys() == {"bearer"}


@pytest.mark.slow
def test_instance_by_name_and_unknown_crn(ibm):
    assert QiskitRuntimeService(instance="test-premium").active_instance() == ibm.crn
    with pytest.raises(Exception, match="does not have access"):
        QiskitRuntimeService(instance=ibm.crn.replace("1111", "9999"))


def test_nothing_is_forwarded(ibm):
    import requests

    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://example.org/", timeout=5)
    assert requests.get("http://example.org/", timeout=5).status_code == 403


def test_estimator_broadcasting_is_exact(backend, ibm):
    circuit = ansatz()
    wide = isa(backend, circuit)
    observables = [SparsePauliOp("IIZ"), SparsePauliOp(["ZZI", "XIX"], [0.5, -1.5])]
    values = np.random.default_rng(0).uniform(-3, 3, (4, 7, 3))  # [batch, shifts, parameters]
    mapped = [[[o.apply_layout(wide.layout)]] for o in observables]
    estimator = EstimatorV2(mode=backend, options={"resilience_level": 0})
    data = estimator.run([(wide, mapped, values)], precision=0.05).result()[0].data
    want = [
        [
            [Statevector(circuit.assign_parameters(values[i, j])).expectation_value(o).real for j in range(7)]
            for i in range(4)
        ]
        for o in observables
    ]
    np.testing.assert_allclose(data.evs, want, atol=1e-12)
    stats = ibm.stats()
    # 28 parameter sets x 2 measurement bases (IIZ and ZZI share one), 400 shots each
    assert (stats["jobs"]["accepted"], stats["pubs"], stats["circuits"]) == (1, 1, 56)
    assert stats["executions"] == 56 * 400
    assert stats["quantum_seconds"] == pytest.approx(2 + 0.00035 * 56 * 400)


@pytest.mark.slow
def test_cost_of_the_default_mitigation(backend, ibm):
    """Resilience level 1 is the default of the service and costs a calibration in every job."""
    plain, default, zne = (submit(backend, shots=1000, level=k).usage_estimation["quantum_seconds"] for k in (0, 1, 2))
    assert plain == pytest.approx(2.35)
    assert default == pytest.approx(2.35 + 0.00035 * 32768)
    assert zne == pytest.approx(2 + 0.00035 * (32768 + 3000))


@pytest.mark.slow
def test_sampler(backend, ibm):
    circuit = ansatz()
    circuit.measure_all()
    values = np.zeros((2, 3))
    values[1, 0] = np.pi
    result = SamplerV2(mode=backend).run([(isa(backend, circuit), values)], shots=128).result()
    assert result[0].data.meas.shape == (2,)
    assert result[0].data.meas[0].get_counts() == {"000": 128}
    assert set(result[0].data.meas[1].get_counts()) <= {"011", "111"}
    assert ibm.stats()["shots"] == 256


@pytest.mark.slow
def test_statistics_of_the_shots_engine():
    with IBMServer(seed=3, engine="shots") as ibm, ibm.client_environment():
        backend = QiskitRuntimeService().backend("fake_manila")
        wide = isa(backend, ansatz())
        observable = SparsePauliOp("IIZ").apply_layout(wide.layout)
        values = np.tile([1.1, 0.0, 0.0], (400, 1))
        data = EstimatorV2(mode=backend).run([(wide, observable, values)], precision=0.1).result()[0].data
        assert data.evs.mean() == pytest.approx(np.cos(1.1), abs=0.02)
        assert data.evs.std() == pytest.approx(np.sin(1.1) / 10, rel=0.15)
        assert data.stds.mean() == pytest.approx(np.sin(1.1) / 10, rel=0.01)


@pytest.mark.slow
def test_noisy_engine_is_biased():
    with IBMServer(seed=3, engine="noisy") as ibm, ibm.client_environment():
        backend = QiskitRuntimeService().backend("fake_manila")
        job = submit(backend, value=0.0, shots=4096)
        assert 0.8 < float(job.result()[0].data.evs[0]) < 0.975  # cos(0)=1 without noise; Rx(0)


@pytest.mark.slow
def test_samples_differ_from_job_to_job_or_depend_on_the_work_only():
    for seed_by in ("number", "work"):
        with IBMServer(seed=5, seed_by=seed_by) as ibm, ibm.client_environment():
            backend = QiskitRuntimeService().backend("fake_manila")
            first, second, other = (submit(backend, value, shots=100) for value in (1.0, 1.0, 1.1))
            evs = [float(job.result()[0].data.evs[0]) for job in (first, second, other)]
            assert (evs[0] == evs[1]) == (seed_by == "work") and evs[0] != evs[2]


@pytest.mark.slow
def test_same_seed_same_numbers():
    seen = []
    for _ in range(2):
        with IBMServer(seed=5, engine="shots") as ibm, ibm.client_environment():
            backend = QiskitRuntimeService().backend("fake_manila")
            seen.append((float(submit(backend, shots=100).result()[0].data.evs[0]), ibm.stats()["jobs"]["ids"]))
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_retrieve_by_id_and_by_tag(backend, ibm):
    job = submit(backend, tags=["run-7", "step-3"])
    first = job.result()[0].data.evs
    service = QiskitRuntimeService(url_resolver=ibm.url_resolver)
    again = service.job(job.job_id())
    np.testing.assert_array_equal(again.result()[0].data.evs, first)
    assert [j.job_id() for j in service.jobs(job_tags=["run-7", "step-3"])] == [job.job_id()]
    assert service.jobs(job_tags=["run-8"]) == []
    assert again.tags == ["run-7", "step-3"]
    assert again.update_tags(["seen"]) == ["seen"]
    with pytest.raises(Exception, match="Job not found"):
        service.job("d0000000000000000000")


@pytest.mark.slow
def test_inputs_come_back(backend):
    job = submit(backend)
    assert job.inputs["pubs"][0][2].shape == (1, 3)


@pytest.mark.slow
def test_status_usage_metrics(backend, ibm):
    job = submit(backend, shots=1000)
    job.result()
    assert job.status() == "DONE" and job.done() and job.in_final_state()
    assert job.usage() == pytest.approx(2.35)
    assert job.usage_estimation["quantum_seconds"] == pytest.approx(2.35)
    assert job.metrics()["timestamps"]["finished"]
    assert backend.service.usage()["usage_consumed_seconds"] == pytest.approx(2.35)


@pytest.mark.slow
def test_queue_then_cancel(backend, ibm):
    ibm.set_faults({"action": "job", "outcome": "completed", "queue_seconds": 30})
    job = submit(backend)
    assert job.status() == "QUEUED"
    job.cancel()
    assert job.status() == "CANCELLED"
    with pytest.raises(qiskit_ibm_runtime.RuntimeInvalidStateError):
        job.cancel()
    assert ibm.stats()["quantum_seconds"] == 0


@pytest.mark.slow
def test_batch_and_session(backend, ibm):
    with Batch(backend=backend) as batch:
        jobs = [submit(backend, value=0.1 * k, mode=batch) for k in range(3)]
        [j.result() for j in jobs]
    assert batch.status() == "Closed"
    assert batch.usage() == pytest.approx(sum(j.usage() for j in jobs))
    with pytest.raises(Exception, match="The session is closed"):
        submit(backend, mode=batch)
    with Session(backend=backend, max_time=60) as session:
        submit(backend, mode=session).result()
        assert session.details()["mode"] == "dedicated"
    assert ibm.stats()["sessions"] == {"batch": 1, "dedicated": 1}


@pytest.mark.slow
def test_open_plan_refuses_sessions_and_stops_at_its_limit():
    with IBMServer(plan="open", usage_limit=5.0, engine="exact") as ibm, ibm.client_environment():
        backend = QiskitRuntimeService().backend("fake_manila")
        with pytest.raises(Exception, match="1352"):
            Session(backend=backend)
        submit(backend).result()
        submit(backend).result()
        with pytest.raises(Exception, match="Usage exceeds instance limit"):
            submit(backend)
        assert ibm.stats()["jobs"]["accepted"] == 2


@pytest.mark.slow
def test_rate_limit():
    with IBMServer(rate_limit=(2, 60), engine="exact") as ibm, ibm.client_environment():
        backend = QiskitRuntimeService().backend("fake_manila")
        submit(backend), submit(backend)
        with pytest.raises(Exception, match="429"):
            submit(backend)


def test_not_isa_fails_as_a_job(backend, ibm):
    """The client checks this too; send it raw to see the server's own check."""
    from qiskit_ibm_runtime import RuntimeEncoder

    circuit = QuantumCircuit(5)
    circuit.h(0)
    body = json.loads(
        json.dumps(
            {
                "program_id": "estimator",
                "backend": "fake_manila",
                "params": {"pubs": [(circuit, {"IIIIZ": 1.0}, np.zeros((0,)), 0.1)], "version": 2},
            },
            cls=RuntimeEncoder,
        )
    )
    client = backend.service._get_api_client()
    answer = client._api.session.post("/jobs", json=body).json()
    job = backend.service.job(answer["id"])
    with pytest.raises(qiskit_ibm_runtime.RuntimeJobFailureError, match="1517"):
        job.result()
    assert ibm.stats()["quantum_seconds"] == 2  # a refused job is not free


# ------------------------------------------------------------------------------------------------
# faults
# ------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_5xx_before_is_retried_by_the_client(backend, ibm):
    ibm.set_faults({"route": "jobs.submit", "status": 502, "times": 2})
    submit(backend).result()
    stats = ibm.stats()
    assert stats["requests"]["by_route"]["jobs.submit"] == 3 and stats["jobs"]["accepted"] == 1


def test_5xx_after_acceptance_is_paid_twice(backend, ibm):
    """The hazard a ledger has to find: the client repeats the POST by itself."""
    ibm.set_faults({"route": "jobs.submit", "status": 504, "phase": "after"})
    job = submit(backend, tags=["once"])
    job.result()
    ibm.wait_idle()
    stats = ibm.stats()
    assert stats["jobs"]["accepted"] == 2
    assert len(stats["paid_twice"]) == 1 and stats["by_tag"]["once"] == stats["paid_twice"][0]
    assert stats["paid_but_unread"] == stats["id_not_delivered"] != [job.job_id()]


def test_drop_after_acceptance_loses_the_id_but_not_the_tag(backend, ibm):
    ibm.set_faults({"route": "jobs.submit", "action": "drop", "phase": "after"})
    with pytest.raises(qiskit_ibm_runtime.IBMRuntimeError):
        submit(backend, tags=["lost-and-found"])
    ibm.wait_idle()
    stats = ibm.stats()
    assert stats["jobs"]["accepted"] == 1 and len(stats["id_not_delivered"]) == 1
    jobs = backend.service.jobs(job_tags=["lost-and-found"])
    assert len(jobs) == 1
    jobs[0].result()
    assert ibm.stats()["paid_but_unread"] == []


def test_drop_behind_a_proxy_is_repeated(ibm):
    """Same fault on the proxied path: urllib3 calls it a proxy error and repeats the POST."""
    backend = QiskitRuntimeService().backend("fake_manila")
    ibm.set_faults({"route": "jobs.submit", "action": "drop", "phase": "after"})
    submit(backend)
    ibm.wait_idle()
    assert ibm.stats()["jobs"]["accepted"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("times,ok", [(5, True), (6, False)])
def test_result_fetch_failing_n_times(backend, ibm, times, ok, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda s, real=time.sleep: real(min(s, 0.01)))
    ibm.set_faults({"route": "jobs.results", "status": 503, "times": times})
    job = submit(backend)
    if not ok:
        with pytest.raises(RequestsApiError):
            job.result()
        assert ibm.stats()["paid_but_unread"] == [job.job_id()]
    job.result()
    assert ibm.stats()["paid_but_unread"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "outcome,error,billed",
    [
        ("failed", "RuntimeJobFailureError", False),
        ("cancelled", "RuntimeInvalidStateError", False),
        ("ran_too_long", "RuntimeJobMaxTimeoutError", True),
    ],
)
def test_job_outcomes(backend, ibm, outcome, error, billed):
    ibm.set_faults({"action": "job", "outcome": outcome})
    with pytest.raises(getattr(qiskit_ibm_runtime, error)):
        submit(backend).result()
    assert (ibm.stats()["quantum_seconds"] > 0) == billed


@pytest.mark.slow
def test_max_execution_time_is_honoured(backend, ibm):
    job = submit(backend, shots=100_000, max_execution_time=3)  # 2 + 35 s estimated
    with pytest.raises(qiskit_ibm_runtime.RuntimeJobMaxTimeoutError):
        job.result()
    assert ibm.stats()["quantum_seconds"] == 3


@pytest.mark.slow
def test_nan_empty_corrupt_truncated(backend, ibm):
    ibm.set_faults(
        {"action": "job", "outcome": "nan"},
        {"action": "job", "outcome": "empty"},
        {"route": "jobs.results", "action": "corrupt", "skip": 2},
        {"route": "jobs.results", "action": "truncate", "skip": 2},
    )
    assert np.isnan(submit(backend).result()[0].data.evs).all()
    assert submit(backend).result() is None  # the client does not complain
    assert isinstance(submit(backend).result(), str)  # nor here
    with pytest.raises(RequestsApiError):
        submit(backend).result()


@pytest.mark.slow
def test_stuck_job_times_out(backend, ibm):
    ibm.set_faults({"action": "job", "outcome": "stuck"})
    with pytest.raises(qiskit_ibm_runtime.RuntimeJobTimeoutError):
        submit(backend).result(timeout=0.3)


@pytest.mark.slow
def test_hang_is_not_bounded_by_the_timeout_of_result(backend, ibm):
    job = submit(backend)
    ibm.set_faults({"route": "jobs.get", "action": "hang", "seconds": 1.0})
    begun = time.time()
    job.result(timeout=0.1)
    assert time.time() - begun >= 1.0


@pytest.mark.slow
def test_revoked_token(backend, ibm):
    ibm.revoke_tokens()
    with pytest.raises(qiskit_ibm_runtime.IBMNotAuthorizedError):
        submit(backend)
    fresh = QiskitRuntimeService(url_resolver=ibm.url_resolver).backend("fake_manila")
    submit(fresh).result()


@pytest.mark.slow
def test_short_lived_tokens_are_renewed():
    with IBMServer(token_ttl=11, engine="exact") as ibm, ibm.client_environment():
        backend = QiskitRuntimeService(url_resolver=ibm.url_resolver).backend("fake_manila")
        time.sleep(1.2)  # the client renews 10 s before the end
        submit(backend).result()
        assert ibm.stats()["requests"]["by_route"]["iam.token"] >= 3
        assert ibm.stats()["requests"]["auth"].keys() == {"bearer"}


@pytest.mark.slow
def test_wrong_api_key():
    with (
        IBMServer(api_keys=["right"]) as ibm,
        ibm.client_environment(),
        pytest.raises(Exception, match="valid API token"),
    ):
        QiskitRuntimeService(token="wrong", instance=ibm.crn)


@pytest.mark.slow
def test_two_instances():
    both = [Instance("a", "open"), Instance("b", "premium", guid="22222222-2222-4333-8444-555555555555")]
    with IBMServer(instances=both, engine="exact") as ibm, ibm.client_environment():
        service = QiskitRuntimeService(instance="b", url_resolver=ibm.url_resolver)
        submit(service.backend("fake_manila")).result()
        assert ibm.stats()["consumed_seconds"]["a"] == 0 < ibm.stats()["consumed_seconds"]["b"]


def test_fault_rules_are_checked():
    with pytest.raises(ValueError, match="unknown fault key"):
        Fault.parse({"rout": "jobs.submit"})
    with pytest.raises(ValueError, match="unknown fault action"):
        Fault.parse({"action": "explode"})
    with pytest.raises(ValueError, match="engine must be one of"):
        IBMServer(engine="magic")


@pytest.mark.slow
def test_equal_work_has_equal_fingerprint_across_processes(backend, ibm):
    code = (
        "import sys; sys.path.insert(0, %r); import hardware.test_ibm_server as t;"
        "from qiskit_ibm_runtime import QiskitRuntimeService as S;"
        "t.submit(S().backend('fake_manila'), value=%s).result()"
    )
    for value in ("0.25", "0.25", "0.5"):
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code % (HERE, value)],
            check=True,
            env=dict(os.environ, QISKIT_IBM_RUNTIME_LOG_LEVEL="ERROR"),
        )
    digests = [j["digest"] for j in ibm.jobs()]
    assert digests[0] == digests[1] != digests[2]
    assert len(ibm.stats()["paid_twice"]) == 1


@pytest.mark.slow
def test_command_line(tmp_path):
    ready = tmp_path / "ready.json"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ibm_server",
            "--port",
            "0",
            "--seed",
            "1",
            "--engine",
            "exact",
            "--ready-file",
            str(ready),
            "--max-seconds",
            "60",
            "--log",
            str(tmp_path / "log.jsonl"),
            "--faults",
            json.dumps([{"route": "backends.status", "status": 404}]),
        ],
        stdout=subprocess.DEVNULL,
        cwd=HERE,
    )
    try:
        for _ in range(300):
            if ready.exists():
                break
            time.sleep(0.1)
        info = json.loads(ready.read_text())
        code = (
            "from qiskit_ibm_runtime import QiskitRuntimeService as S; b=S().backend('fake_manila');"
            "\ntry: b.status()\nexcept Exception as e: print('first', type(e).__name__)\n"
            "print(b.status().status_msg)"
        )
        out = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, **info["env"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert out.split() == ["first", "RequestsApiError", "active"]

        def control(path, data=None, method=None):
            request = urllib.request.Request(info["url"] + "/__control__" + path, data=data, method=method)
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                text = answer.read()
                return json.loads(text) if text else None

        assert control("/health")["ok"]
        assert control("/stats")["requests"]["by_route"]["backends.status"] == 2
        assert control("/faults", b'[{"route": "*", "action": "delay", "seconds": 0}]')[0]["route"] == "*"
        control("/reset", b"")
        assert control("/stats")["requests"]["total"] == 0
        control("/shutdown", b"")
        assert process.wait(60) == 0
        assert (tmp_path / "log.jsonl").read_text().count("\n") >= 6
    finally:
        if process.poll() is None:
            process.terminate()


# ------------------------------------------------------------------------------------------------
# newer clients
# ------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(VERSION < (0, 49), reason="needs the SDK environment variables of runtime 0.49")
def test_direct_mode_without_proxy():
    with IBMServer(engine="exact") as ibm, ibm.client_environment(direct=True):
        service = QiskitRuntimeService(token="x", instance=ibm.crn, url_resolver=ibm.url_resolver)
        submit(service.backend("fake_manila")).result()
        assert {e["host"] for e in ibm.log()} == {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.skipif(VERSION < (0, 48), reason="client-side primitives arrived with runtime 0.48")
@pytest.mark.parametrize("level", [0, 1])
def test_client_side_estimator(level):
    from qiskit_ibm_runtime.executor_estimator import Estimator

    with IBMServer(engine="shots", seed=2) as ibm, ibm.client_environment():
        backend = QiskitRuntimeService(url_resolver=ibm.url_resolver).backend("fake_manila")
        circuit = ansatz()
        wide = isa(backend, circuit)
        observable = SparsePauliOp("IIZ")
        values = np.random.default_rng(0).uniform(-3, 3, (3, 2, 3))
        estimator = Estimator(mode=backend)
        estimator.options.resilience_level = level
        job = estimator.run([(wide, observable.apply_layout(wide.layout), values)], precision=0.02)
        data = job.result()[0].data
        want = [
            [Statevector(circuit.assign_parameters(v)).expectation_value(observable).real for v in row]
            for row in values
        ]
        np.testing.assert_allclose(data.evs, want, atol=0.1)
        assert ibm.stats()["jobs"]["by_program"] == {"executor": 1}


@pytest.mark.slow
@pytest.mark.skipif(VERSION < (0, 48), reason="client-side primitives arrived with runtime 0.48")
def test_client_side_sampler_and_dry_run():
    from qiskit_ibm_runtime.executor_estimator import Estimator
    from qiskit_ibm_runtime.executor_sampler import Sampler

    with IBMServer(engine="shots", seed=2) as ibm, ibm.client_environment():
        backend = QiskitRuntimeService(url_resolver=ibm.url_resolver).backend("fake_manila")
        circuit = ansatz().assign_parameters([0, 0, 0])
        wide = isa(backend, circuit)
        if VERSION >= (0, 50):
            job = Estimator(mode=backend).run([(wide, SparsePauliOp("IIZ").apply_layout(wide.layout))], dry_run=True)
            job.result()
            assert job.usage_estimation["quantum_seconds"] > 2
            assert ibm.stats()["quantum_seconds"] == 0
        circuit.measure_all()
        counts = Sampler(mode=backend).run([isa(backend, circuit)], shots=64).result()[0]
        assert counts.data.meas.get_counts() == {"000": 64}

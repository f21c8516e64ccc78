"""Devices unlike the others, at the loopback server: fractional gates, circuits that no simulation reaches."""

from __future__ import annotations

import pytest
import torch

import qbp
from qbp.errors import JobError
from qbp.executors.qiskit_primitive import Options
from qbp.jobs.retry import Patience

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")
from ibm_server import IBMServer

QUICK = Patience(answer=60.0, tries=5, pause=0.05, poll=0.05, settle=0.2, rate=1000)


@pytest.fixture(scope="module")
def server():
    names = ["fake_fez", "fake_fractional"]
    with IBMServer(backends=names, engine="exact", seed=5, plan="premium") as ibm, ibm.client_environment():
        yield ibm


def on_device(name, layer, directory, **options):
    return qbp.on_backend(
        layer,
        name,
        shots=4096,
        budget=1000,
        run_dir=directory,
        patience=QUICK,
        options=Options(optimization_level=1, **options),
    )


def test_fractional_gates_give_the_same_outputs(ibm, tmp_path):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, seed=0).double()
    x = torch.tensor([[0.1, 0.2], [1.0, -0.4]], dtype=torch.float64)
    moved = on_device("ibm:fake_fractional", layer, tmp_path, fractional_gates=True)
    with torch.no_grad():
        outputs, wanted = moved(x), layer(x)
    assert (outputs - wanted).abs().max() < 5 * 4096**-0.5  # the client samples
    (compiled,) = moved.executor._compiled.values()
    assert "rx" in compiled.circuit.count_ops() and ibm.stats()["jobs"]["by_status"] == {"Completed": 1}


def test_a_device_without_fractional_gates_says_so(ibm, tmp_path):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, seed=0)
    with pytest.raises(JobError, match="'fake_fez' does not support fractional gates"):
        on_device("ibm:fake_fez", layer, tmp_path, fractional_gates=True)
    assert ibm.stats()["jobs"]["accepted"] == 0


def test_a_circuit_that_is_too_wide_for_the_service_fails_with_its_code(ibm, tmp_path):
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=26, n_layers=4, seed=0)
    with pytest.raises(JobError, match=r"failed: .*1010"), torch.no_grad():
        on_device("ibm:fake_fez", layer, tmp_path)(torch.zeros(1, 26))
    assert ibm.stats()["jobs"]["by_status"] == {"Failed": 1} and ibm.stats()["paid_twice"] == []

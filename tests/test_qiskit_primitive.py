"""Programs on Qiskit: the same numbers as everywhere else, in one piece of work for each step."""

from __future__ import annotations

import pytest

from qbp.executors import backend
from qbp.executors.qiskit_primitive import QiskitPrimitive, local
from qbp.testing import check_executor


@pytest.mark.parametrize("name", ["qiskit", "aer"])
@pytest.mark.parametrize("shots", [None, 400])
def test_conformance(name: str, shots: int | None):
    check_executor(backend(name, shots=shots), n_programs=10, batch_sizes=(3,))


@pytest.mark.parametrize("device", ["manila", "sherbrooke"])
def test_without_noise_the_transpiled_circuit_gives_the_same(device: str):
    """On 5 and on 127 qubits: layout, basis gates, observables and order of the wires."""
    executor = QiskitPrimitive(local.fake(device, noise=False))
    size = executor.primitive.backend.num_qubits
    check_executor(executor, atol=1e-9, n_programs=10, batch_sizes=(3,), accepts=lambda p: p.n_qubits <= size)

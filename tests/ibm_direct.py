"""A primitive as thin as can be over the genuine client, for the tests of `qbp.jobs.jobs`."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings

import numpy as np

from qbp.errors import JobError
from qbp.jobs.jobs import Results, Work

logging.getLogger("qiskit_ibm_runtime").setLevel(logging.ERROR)


class Direct:
    """One backend of the account that the environment names; circuits are `work_for`'s."""

    paid = True

    def __init__(self, name="fake_manila", url_resolver=None):
        from qiskit_ibm_runtime import QiskitRuntimeService

        self.name, self.service = f"ibm:{name}", QiskitRuntimeService(url_resolver=url_resolver)
        self.backend = self.service.backend(name)

    def submit(self, work, tags):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from qiskit_ibm_runtime import EstimatorV2

            estimator = EstimatorV2(mode=self.backend)
            estimator.options.resilience_level = 0
            estimator.options.environment.job_tags = list(tags)
            circuit, observable = self.circuit()
            return estimator.run([(circuit, observable, work.values)], precision=work.shots**-0.5).job_id()

    def circuit(self):
        from qiskit import QuantumCircuit
        from qiskit.circuit import ParameterVector
        from qiskit.quantum_info import SparsePauliOp
        from qiskit.transpiler import generate_preset_pass_manager

        circuit, t = QuantumCircuit(2), ParameterVector("t", 2)
        circuit.ry(t[0], 0)
        circuit.cx(0, 1)
        circuit.ry(t[1], 1)
        isa = generate_preset_pass_manager(1, backend=self.backend, seed_transpiler=0).run(circuit)
        return isa, SparsePauliOp("ZI").apply_layout(isa.layout)

    def find(self, tag):
        return [job.job_id() for job in self.service.jobs(job_tags=[tag], limit=None, descending=False)]

    def status(self, job_id):
        return str(self.service.job(job_id).status())

    def fetch(self, job_id, work):
        result = self.service.job(job_id).result()
        if result is None or isinstance(result, str):
            raise JobError(f"the client returned {result!r}")
        data = result[0].data
        return Results(np.asarray(data.evs)[:, None], np.asarray(data.stds)[:, None])

    def reason(self, job_id):
        return self.service.job(job_id).error_message() or ""

    def cancel(self, job_id):
        self.service.job(job_id).cancel()

    def usage(self, job_id):
        return float(self.service.job(job_id).metrics()["usage"]["qpu_charge_time_seconds"])

    def transient(self, error):
        return not re.search(r"\b(400|401|409)\b|not authorized", str(error))


def work_for(values, shots=100):
    """The work of these parameter sets (S, 2)."""
    values = np.ascontiguousarray(values, dtype=float)
    fingerprint = hashlib.sha256(values.tobytes() + bytes(shots)).hexdigest()
    return Work(fingerprint, values, None, len(values), shots, 2 + 0.35e-3 * len(values) * shots)


def exact(values):
    """The expectation value of `Direct`'s circuit, (S, 1)."""
    a, b = np.asarray(values).T
    return (np.cos(b) * np.cos(a))[:, None]

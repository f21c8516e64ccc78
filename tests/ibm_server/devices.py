"""Backends: fake ones of qiskit-ibm-runtime, served under any name, and what their jobs cost."""

from __future__ import annotations

import copy
import re


class Device:
    """A fake backend of ``qiskit_ibm_runtime.fake_provider`` served under a name of our choice.

    Every device has a hidden twin called ``mock_...``: the target of the ``dry_run=True`` of newer
    clients. Jobs sent there are metered but not billed, and return random numbers.
    """

    def __init__(self, spec: str):
        fake_name, _, served = spec.partition(":")
        from qiskit_ibm_runtime import fake_provider

        by_name = {}
        for attribute in dir(fake_provider):
            cls = getattr(fake_provider, attribute)
            if isinstance(cls, type) and getattr(cls, "backend_name", None) and cls.conf_filename:
                by_name[cls.backend_name] = cls
        if fake_name not in by_name:
            raise ValueError(f"no fake backend called {fake_name!r}; known: {sorted(by_name)}")
        self.fake = by_name[fake_name]()
        self.name = served or fake_name
        self.configuration = self.fake._load_json(self.fake.conf_filename)
        self.configuration["backend_name"] = self.name
        self.configuration["simulator"] = False
        self.properties = self.fake._load_json(self.fake.props_filename)
        self.properties["backend_name"] = self.name
        self.operational = True
        self.status_message = "active"
        self.mock = False
        self._target = None
        self._noisy = None

    def twin(self) -> Device:
        """The mock counterpart, named the way the client expects it."""
        other = copy.copy(self)
        other.mock = True
        other.name = re.sub(r"^[^_]+", "mock", self.name)
        other.configuration = {**self.configuration, "backend_name": other.name}
        other.properties = {**self.properties, "backend_name": other.name}
        return other

    @property
    def num_qubits(self) -> int:
        return self.configuration["n_qubits"]

    @property
    def target(self):
        if self._target is None:
            self._target = self.fake.target
        return self._target

    def noisy_simulator(self):
        if self._noisy is None:
            from qiskit_aer import AerSimulator

            self._noisy = AerSimulator.from_backend(self.fake, max_parallel_threads=1)
        return self._noisy

    def listing(self, queue: int) -> dict:
        processor = self.configuration.get("processor_type") or {}
        return {
            "name": self.name,
            "qubits": self.num_qubits,
            "is_simulator": False,
            "class": "mock" if self.mock else "qpu",
            "processor_type": processor,
            "clops": {"type": "hardware", "value": self.configuration.get("clops_h")},
            "queue_length": queue,
            "status": {
                "name": "online" if self.operational else "offline",
                "reason": "available" if self.operational else "unavailable",
            },
        }


class JobFailure(Exception):
    """The program itself refused or failed; carries the service's reason code."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class Meter:
    """Counts circuits and executions, and what they cost.

    executions = circuits generated after broadcasting a PUB (qubit-wise commuting observables share
    one circuit) x shots x noise factors, plus ``trex`` executions for a server-side estimator job with
    measurement mitigation (the default, resilience level 1).  usage = 2 s per job + 0.35 ms per
    execution, IBM's quick formula; a job refused for its contents (code 15xx) costs the 2 s.  All
    constants can be set.  Published job lists of Heron devices suggest 2 s + 0.26 ms per execution and
    about 9 s for the measurement mitigation of one estimator job, hence ``trex`` = 32 x 1024.
    """

    def __init__(self, overhead: float, per_execution: float, trex: int = 32 * 1024):
        self.overhead, self.per_execution, self.trex = overhead, per_execution, trex
        self._groups: dict[frozenset, int] = {}

    def seconds(self, executions: int) -> float:
        return self.overhead + self.per_execution * executions

    def measurement_bases(self, paulis: frozenset) -> int:
        if paulis not in self._groups:
            from qiskit.quantum_info import PauliList

            rest = [p for p in paulis if set(p) - {"I"}]
            self._groups[paulis] = len(PauliList(sorted(rest)).group_commuting(qubit_wise=True)) if rest else 1
        return self._groups[paulis]

    def estimator_circuits(self, parameters, observables) -> int:
        import numpy as np

        shape = parameters.shape[:-1]
        sets = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
        which, ops = np.broadcast_arrays(sets, observables)
        wanted: dict[int, set] = {}
        for i, op in zip(which.ravel(), ops.ravel(), strict=True):
            wanted.setdefault(int(i), set()).update(op)
        return sum(self.measurement_bases(frozenset(p)) for p in wanted.values())

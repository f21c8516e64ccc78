"""Simulators, backends and primitives of Qiskit's that a user made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qbp.errors import ArgumentError, CircuitError
from qbp.executors.qiskit_primitive.fake_devices import FakeDevice
from qbp.executors.qiskit_primitive.isa import Compiled
from qbp.executors.qiskit_primitive.local import Aer, Local
from qbp.executors.qiskit_primitive.options import MITIGATION
from qbp.executors.qiskit_primitive.outcomes import Outcomes, outputs_of
from qbp.jobs.jobs import Results, Work

__all__ = ["primitive_of"]

_AER_SHOTS = 1024  # of a simulator for which nobody said how many


def primitive_of(thing: Any) -> Any:
    """What runs jobs on a user's `BackendV2`, estimator or sampler.

    Raises:
        ArgumentError: it would send jobs to one of IBM's computers without a ledger.
    """
    from qiskit.primitives import BackendSamplerV2
    from qiskit.primitives.base import BaseEstimatorV2, BaseSamplerV2

    backend = thing
    if isinstance(thing, BaseEstimatorV2 | BaseSamplerV2):
        backend = getattr(thing, "_backend", None)
    if type(backend).__name__ == "IBMBackend":
        raise ArgumentError(
            f"Argument `backend` must name a quantum computer, since its jobs are kept in a ledger and within a budget "
            f"(backend='ibm:{backend.name}', or `on_backend`), but is {thing!r}"
        )
    if isinstance(thing, BaseEstimatorV2):
        return Estimator(thing, backend)
    if isinstance(thing, BaseSamplerV2):
        return Sampler(thing, backend)
    if type(thing).__name__ == "AerSimulator":
        return Simulator(thing)
    if type(thing).__module__.startswith(("qiskit_ibm_runtime.fake_provider.", "qiskit.providers.fake_provider.")):
        return Fake(thing)
    return Sampler(BackendSamplerV2(backend=thing), thing)


class Fake(FakeDevice):
    """A fake backend, with the noise of its own target."""

    default_shots: int | None = None

    def __init__(self, backend: Any):
        super().__init__(backend, name=f"{backend.name} (object)")

    def __reduce__(self) -> Any:
        return Fake, (self.backend,)


class Simulator(Aer):
    """An `AerSimulator` with its own noise model, method, shots and seed.

    Without shots it is exact: a simulator with noise then calculates density matrices, which "automatic" may do; one
    whose method cannot, and one that was given shots, samples.

    Attributes:
        default_shots: how often circuits are sampled where the layer does not say; None for not at all.
    """

    def __init__(self, simulator: Any):
        Local.__init__(self)
        options = simulator.options
        self.backend, self.model, self.ignores = simulator, options.noise_model, MITIGATION
        self.noise = self.model is not None and not self.model.is_ideal()
        self.name = f"{simulator.name}{' with a noise model' if self.noise else ''} (object)"
        self.method = options.method or "automatic"
        unsaid = options.shots in (None, _AER_SHOTS)
        exact = self._is_exact()
        self.default_shots: int | None = None if exact and unsaid else options.shots or _AER_SHOTS
        self._parts: dict[tuple[int, ...], Any] = {}

    def __reduce__(self) -> Any:
        return Simulator, (self.backend,)

    def _is_exact(self) -> bool:
        """Whether expectation values come without sampling."""
        if not self.noise:
            return True
        several = any(len(qubits) > 1 for qubits in self.model._local_readout_errors)
        return self.method in ("automatic", "density_matrix") and not several and _can_be_moved(self.model)

    def run(self, work: Work) -> Results:
        """The outputs."""
        if work.payload.shots is None:
            if not self._is_exact():
                raise ArgumentError(f"Argument `shots` must be given for {self.name}: its noise is only sampled")
            return super().run(work)
        compiled, shots = work.payload.compiled, work.payload.shots
        results = self._aer(compiled, compiled.measured, work.values, self.method, shots, work.payload.seed)
        counts = [Outcomes.of_counts([data["counts"] for data in group], shots) for group in results]
        return Results(*outputs_of(compiled.groups, counts, len(work.values), compiled.program.n_outputs, shots))

    def _simulator(self, compiled: Compiled, method: str) -> tuple[Any, tuple[int, ...] | None, dict[str, Any]]:
        own = self.backend.options.seed_simulator
        options: dict[str, Any] = {} if own is None else {"seed_simulator": own}
        if self.noise and method == "density_matrix":
            options["method"] = method
        if not self.noise:
            return self.backend, compiled.active, options
        if not _can_be_moved(self.model):
            return self.backend, None, options
        return self.backend, compiled.active, options | {"noise_model": self._noise(compiled.active)[0]}

    def _noise(self, active: tuple[int, ...]) -> tuple[Any, dict[int, np.ndarray]]:
        if active not in self._parts:
            self._parts[active] = _moved(self.model, active)
        return self._parts[active]


def _can_be_moved(model: Any) -> bool:
    """Whether its errors are those of gates and readout alone; relaxation while a qubit waits is one of delays, which
    circuits here have none of."""
    return all(type(step).__name__ == "RelaxationNoisePass" for step in model._custom_noise_passes)


def _moved(model: Any, qubits: Sequence[int]) -> tuple[Any, dict[int, np.ndarray]]:
    """A noise model on some of its qubits, numbered as they are given here; and for each qubit with readout errors the
    probabilities of what is read (true, read)."""
    from qiskit_aer.noise import NoiseModel

    at = {q: i for i, q in enumerate(qubits)}
    part, flips = NoiseModel(basis_gates=model.basis_gates), {}
    for name, error in model._default_quantum_errors.items():
        part.add_all_qubit_quantum_error(error, name)
    for name, errors in model._local_quantum_errors.items():
        for on, error in errors.items():
            if set(on) <= set(at):
                part.add_quantum_error(error, name, [at[q] for q in on])
    for qubit in qubits:
        readout = model._local_readout_errors.get((qubit,), model._default_readout_error)
        if readout is not None:
            part.add_readout_error(readout, [at[qubit]])
            flips[qubit] = np.asarray(readout.probabilities)
    return part, flips


class Estimator(Local):
    """An estimator of version 2: Qiskit's `StatevectorEstimator` and `BackendEstimatorV2`, Aer's, or another."""

    def __init__(self, estimator: Any, backend: Any):
        super().__init__()
        self.estimator, self.backend = estimator, backend
        self.name = _name(estimator, backend)
        self.ignores = MITIGATION
        self.default_shots: int | None = None
        options = getattr(estimator, "options", None)
        precision = getattr(estimator, "default_precision", getattr(options, "default_precision", None))
        self.noise = precision != 0.0 or _has_noise(backend)

    def __reduce__(self) -> Any:
        return Estimator, (self.estimator, self.backend)

    def run(self, work: Work) -> Results:
        """The outputs."""
        compiled, shots = work.payload.compiled, work.payload.shots
        if compiled.measures_probs:
            raise CircuitError(f"{self.name} gives no probabilities: use a sampler, or a simulator")
        pub = (compiled.circuit, [[op] for op in compiled.observables], work.values)
        job = self.estimator.run([pub], precision=None if shots is None else 1 / math.sqrt(shots))
        data = job.result()[0].data
        return Results(*(np.asarray(array, dtype=float).T.reshape(len(work.values), -1) for array in _errors(data)))


def _errors(data: Any) -> tuple[Any, Any]:
    return data.evs, getattr(data, "stds", np.zeros_like(data.evs))


class Sampler(Local):
    """A sampler of version 2, or a backend that answers with counts."""

    noise = True

    def __init__(self, sampler: Any, backend: Any):
        super().__init__()
        self.sampler, self.backend, self.ignores = sampler, backend, MITIGATION
        self.name = _name(sampler, backend)
        said = getattr(sampler, "default_shots", None) or getattr(
            getattr(sampler, "options", None), "default_shots", None
        )
        self.default_shots: int | None = said if isinstance(said, int) else _AER_SHOTS

    def __reduce__(self) -> Any:
        return Sampler, (self.sampler, self.backend)

    def run(self, work: Work) -> Results:
        """The outputs."""
        compiled, shots = work.payload.compiled, work.payload.shots
        pubs = [(circuit, work.values) for circuit in compiled.measured]
        outcomes = []
        for result in self.sampler.run(pubs, shots=shots).result():
            bits = result.data.meas
            counts = [bits.get_int_counts(k) for k in range(len(work.values))]
            outcomes.append(Outcomes.of_counts([{hex(key): n for key, n in c.items()} for c in counts], shots))
        return Results(*outputs_of(compiled.groups, outcomes, len(work.values), compiled.program.n_outputs, shots))


def _name(primitive: Any, backend: Any) -> str:
    where = "" if backend is None else f" on {backend.name}{' with a noise model' if _has_noise(backend) else ''}"
    return f"{type(primitive).__name__}{where} (object)"


def _has_noise(backend: Any) -> bool:
    model = getattr(getattr(backend, "options", None), "noise_model", None)
    return model is not None and not model.is_ideal()

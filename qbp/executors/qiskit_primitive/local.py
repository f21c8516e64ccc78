"""Qiskit on this machine: exact state vectors, Aer, and Aer with the noise of a fake backend."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from qbp.circuit.program import Expval
from qbp.errors import ArgumentError, JobError, MissingPackageError
from qbp.executors.qiskit_primitive.billing import bill
from qbp.executors.qiskit_primitive.circuit import observables
from qbp.executors.qiskit_primitive.isa import Compiled
from qbp.executors.qiskit_primitive.options import MITIGATION, TRANSPILING
from qbp.executors.qiskit_primitive.outcomes import Outcomes, outputs_of
from qbp.jobs.jobs import Results, Work
from qbp.limits import check_memory

__all__ = ["Aer", "Local", "Statevector", "aer_data", "require"]

MAX_DENSITY_QUBITS = 12
"""Most qubits of exact noisy simulation: a density matrix of 256 MiB."""

MAX_ELEMENTS = 2**22
"""Complex numbers in one block of state vectors (64 MiB)."""


def require(module: str, backend: str) -> Any:
    """The module, or an error that says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"Backend {backend!r} needs {module.split('.')[0]}: pip install 'qbp[ibm]' ({error})"
        ) from error


class Local:
    """A primitive that runs a job when it is submitted."""

    paid = False
    noise = False
    size: int | None = None
    backend: Any = None
    calibration = ""
    ignores: tuple[str, ...] = (*MITIGATION, *TRANSPILING)

    def __init__(self) -> None:
        self._results: dict[str, Results] = {}

    def run(self, work: Work) -> Results:
        """The outputs."""
        raise NotImplementedError

    def bill(self, payload: Any, n_circuits: int) -> tuple[int, int, float]:
        """Circuits that a job executes, shots of each, and quantum seconds."""
        return n_circuits, payload.shots or 0, 0.0

    def submit(self, work: Work, tags: Sequence[str]) -> str:
        job_id = f"{len(self._results)}"
        self._results[job_id] = self.run(work)
        return job_id

    def find(self, tag: str) -> list[str]:
        return []

    def status(self, job_id: str) -> str:
        return "DONE"

    def fetch(self, job_id: str, work: Work) -> Results:
        return self._results.pop(job_id)

    def cancel(self, job_id: str) -> None: ...

    def usage(self, job_id: str) -> float:
        return 0.0

    def transient(self, error: Exception) -> bool:
        return False


class Statevector(Local):
    """Exact state vectors from Qiskit's own gates and operators, all parameter sets at once; needs Qiskit alone."""

    name = "qiskit"

    def run(self, work: Work) -> Results:
        """The outputs."""
        compiled, shots = work.payload.compiled, work.payload.shots
        n_qubits = compiled.program.n_qubits
        check_memory(
            f"State vectors of {n_qubits} qubits", 4 * 16, n_qubits
        )  # complex, and three while it is worked on
        rows = max(1, MAX_ELEMENTS >> n_qubits)
        blocks = [work.values[i : i + rows] for i in range(0, len(work.values), rows)]
        if shots is None and not compiled.measures_probs:
            values = np.concatenate([self._expvals(compiled, block) for block in blocks])
            return Results(values, np.zeros_like(values))
        outcomes = [
            np.concatenate([_probabilities(_states(circuit, block), group.wires) for block in blocks])
            for group, circuit in zip(compiled.groups, compiled.rotated, strict=True)
        ]
        return _results(work, outcomes)

    def _expvals(self, compiled: Compiled, values: np.ndarray) -> np.ndarray:
        psi = _states(compiled.circuit, values)
        return np.stack(
            [(psi.conj() * (op.to_matrix(sparse=True) @ psi.T).T).sum(1).real for op in compiled.observables], 1
        )


def _results(work: Work, probabilities: list[np.ndarray]) -> Results:
    """Outputs from each group's probabilities, sampled where there are shots."""
    compiled, shots = work.payload.compiled, work.payload.shots
    if shots is not None:
        rng = np.random.default_rng(work.payload.seed)
        probabilities = [p.clip(0) / p.clip(0).sum(1, keepdims=True) for p in probabilities]
        probabilities = [rng.multinomial(shots, p) / shots for p in probabilities]
    outcomes = [Outcomes.of_probabilities(p) for p in probabilities]
    return Results(*outputs_of(compiled.groups, outcomes, len(work.values), compiled.program.n_outputs, shots))


def _states(circuit: Any, values: np.ndarray) -> np.ndarray:
    """Final states (S, 2^n) in Qiskit's order of basis states."""
    from qiskit.circuit import ParameterExpression
    from qiskit.quantum_info import Operator

    n, n_sets = circuit.num_qubits, len(values)
    psi = np.zeros((n_sets, *[2] * n), dtype=complex)
    psi.reshape(n_sets, -1)[:, 0] = 1
    parameters = list(circuit.parameters)
    for instruction in circuit.data:
        gate = instruction.operation
        axes = [n - circuit.find_bit(q).index for q in reversed(instruction.qubits)]
        if any(isinstance(p, ParameterExpression) for p in gate.params):
            (turn,) = gate.params  # rotations have one
            (parameter,) = turn.parameters
            column = values[:, parameters.index(parameter)]
            distinct, which = np.unique(column, return_inverse=True)
            matrices = np.stack([type(gate)(float(turn.bind({parameter: float(v)}))).to_matrix() for v in distinct])[
                which
            ]
        else:
            matrices = Operator(gate).data[None]
        moved = np.moveaxis(psi, axes, range(n + 1 - len(axes), n + 1))
        turned = (matrices[:, None] @ moved.reshape(n_sets, -1, matrices.shape[1], 1))[..., 0]
        psi = np.moveaxis(turned.reshape(moved.shape), range(n + 1 - len(axes), n + 1), axes)
    return psi.reshape(n_sets, -1)


def _probabilities(psi: np.ndarray, wires: Sequence[int]) -> np.ndarray:
    """Of the outcomes of some qubits, the first one most significant, (S, 2^wires)."""
    n = psi.shape[1].bit_length() - 1
    p = (psi.real**2 + psi.imag**2).reshape(-1, *[2] * n)
    kept = [n - w for w in wires]
    rest = [axis for axis in range(1, n + 1) if axis not in kept]
    return p.transpose(0, *kept, *rest).reshape(len(p), 2 ** len(wires), -1).sum(2)


class Aer(Local):
    """Qiskit Aer, on the target and with the noise of a device where one is given.

    Args:
        backend: a `BackendV2` whose target the circuits are transpiled for, such as a fake backend; None for any gates
            between any qubits.
        noise: whether the gates and the readout have the errors that the backend's target tells.
        name: as in ``backend="fake:manila"``.
    """

    def __init__(self, backend: Any = None, *, noise: bool = True, name: str = "aer"):
        super().__init__()
        require("qiskit_aer", name)
        self.name, self.backend, self.noise = name, backend, noise and backend is not None
        if backend is not None:
            self.ignores = MITIGATION
        self._noises: dict[tuple[int, ...], tuple[Any, dict[int, np.ndarray]]] = {}

    def __reduce__(self) -> Any:
        return Aer, (self.backend,), {"name": self.name, "noise": self.noise}

    def bill(self, payload: Any, n_circuits: int) -> tuple[int, int, float]:
        """As of a job on the device itself."""
        return super().bill(payload, n_circuits) if self.backend is None else bill(payload, n_circuits)

    def run(self, work: Work) -> Results:
        """The outputs."""
        compiled, shots = work.payload.compiled, work.payload.shots
        if shots is None and not self.noise:
            values = self._exact(compiled, work.values)
            return Results(values, np.zeros_like(values))
        n_active = len(compiled.active)
        if n_active <= MAX_DENSITY_QUBITS:  # a tenth of the time that Aer takes to draw the shots itself
            return _results(work, self.outcomes(compiled, work.values))
        if shots is None:
            raise ArgumentError(
                f"Argument `shots` must be given for a circuit on {n_active} noisy qubits: "
                f"without sampling the limit is {MAX_DENSITY_QUBITS}"
            )
        results = self._aer(compiled, compiled.measured, work.values, "automatic", shots, work.payload.seed)
        counts = [Outcomes.of_counts([data["counts"] for data in group], shots) for group in results]
        return Results(*outputs_of(compiled.groups, counts, len(work.values), compiled.program.n_outputs, shots))

    def _exact(self, compiled: Compiled, values: np.ndarray) -> np.ndarray:
        """Expectation values and probabilities of the final state vector."""
        import_module("qiskit_aer.library")  # gives circuits their save instructions

        circuit, expvals = compiled.circuit.copy(), iter(observables(compiled.program))
        names = [f"m{i}" for i in range(len(compiled.program.measurements))]
        for name, measurement in zip(names, compiled.program.measurements, strict=True):
            if isinstance(measurement, Expval):
                circuit.save_expectation_value(next(expvals), list(compiled.layout), label=name)
            else:
                circuit.save_probabilities([compiled.layout[w] for w in reversed(measurement.wires)], label=name)
        (results,) = self._aer(compiled, [circuit], values, "statevector")
        return np.array([np.concatenate([np.atleast_1d(data[name]) for name in names]) for data in results])

    def outcomes(self, compiled: Compiled, values: np.ndarray) -> list[np.ndarray]:
        """For each group the probabilities of what is read, (S, 2^wires): of the final state, after readout errors."""
        import_module("qiskit_aer.library")
        circuits = []
        for group, rotated in zip(compiled.groups, compiled.rotated, strict=True):
            circuit = rotated.copy()
            circuit.save_probabilities([compiled.layout[w] for w in reversed(group.wires)], label="p")
            circuits.append(circuit)
        flips = self._noise(compiled.active)[1] if self.noise else {}
        results = self._aer(compiled, circuits, values, "density_matrix" if self.noise else "statevector")
        outcomes = []
        for group, result in zip(compiled.groups, results, strict=True):
            p = np.array([data["p"] for data in result]).reshape(len(result), *[2] * len(group.wires))
            for axis, wire in enumerate(group.wires, start=1):
                flip = flips.get(compiled.layout[wire])
                if flip is not None:  # (true, read)
                    p = np.moveaxis(np.moveaxis(p, axis, -1) @ flip, -1, axis)
            outcomes.append(p.reshape(len(result), -1))
        return outcomes

    def _aer(
        self,
        compiled: Compiled,
        circuits: Sequence[Any],
        values: np.ndarray,
        method: str,
        shots: int = 1,
        seed: int | None = None,
    ) -> list[list[dict[str, Any]]]:
        """The data of each set, for each circuit; all in one run."""
        simulator, active, options = self._simulator(compiled, method)
        return aer_data(
            simulator, compiled, circuits, values, active, {"shots": shots, "seed_simulator": seed} | options
        )

    def _simulator(self, compiled: Compiled, method: str) -> tuple[Any, tuple[int, ...] | None, dict[str, Any]]:
        """Aer's simulator, the qubits that it simulates (None: all), and options of the run."""
        from qiskit_aer import AerSimulator

        model = self._noise(compiled.active)[0] if self.noise else None
        return AerSimulator(method=method, noise_model=model), compiled.active, {}

    def _noise(self, active: tuple[int, ...]) -> tuple[Any, dict[int, np.ndarray]]:
        """The noise model, and for each qubit with readout errors the probability of what is read (true, read)."""
        if active not in self._noises:
            self._noises[active] = _noise_model(self.backend.target, active)
        return self._noises[active]


def aer_data(
    simulator: Any,
    compiled: Compiled,
    circuits: Sequence[Any],
    values: np.ndarray,
    active: tuple[int, ...] | None,
    options: dict[str, Any],
) -> list[list[dict[str, Any]]]:
    """What Aer saves of each set, for each circuit; all in one run.

    Args:
        simulator: an `AerSimulator`.
        compiled: what the circuits are made of.
        circuits: with the parameters of its circuit.
        values: (S, k).
        active: the qubits that are simulated, in the order in which they are numbered then; None for all.
        options: of the run.
    """
    columns = {p: values[:, k].tolist() for k, p in enumerate(compiled.circuit.parameters)}
    result = simulator.run(
        [circuit if active is None else _compact(circuit, active) for circuit in circuits],
        parameter_binds=[columns] * len(circuits) if columns else None,
        max_parallel_experiments=0,  # as many as there are cores
        enable_truncation=False,  # it drops gates before a qubit that is read, where another qubit is not
        **options,
    ).result()
    if not result.success:
        raise JobError(f"Aer could not run the circuits: {result.status}")
    data = [r.data.to_dict() for r in result.results]
    return [data[i * len(values) : (i + 1) * len(values)] for i in range(len(circuits))]


def _compact(circuit: Any, active: Sequence[int]) -> Any:
    """The circuit on its active qubits alone."""
    from qiskit import QuantumCircuit

    at = {circuit.qubits[q]: i for i, q in enumerate(active)}
    small = QuantumCircuit(len(active), name=circuit.name)
    for register in circuit.cregs:
        small.add_register(register)
    for i in circuit.data:
        small.append(i.operation, [at[q] for q in i.qubits], i.clbits)
    return small


def _noise_model(target: Any, qubits: Sequence[int]) -> tuple[Any, dict[int, np.ndarray]]:
    """What `NoiseModel.from_backend` gives, of some qubits only and numbered as they are given here: all 127 of a
    device take seconds to build, and seconds more in every run."""
    from qiskit.transpiler import Target
    from qiskit_aer.noise import NoiseModel
    from qiskit_aer.noise.device import basic_device_gate_errors, basic_device_readout_errors

    part = Target(num_qubits=target.num_qubits, dt=target.dt, qubit_properties=target.qubit_properties)
    for name in target.operation_names:
        kept = {on: p for on, p in (target[name] or {}).items() if on is not None and set(on) <= set(qubits)}
        if kept:
            part.add_instruction(target.operation_from_name(name), kept, name=name)
    at = {q: i for i, q in enumerate(qubits)}
    model, flips = NoiseModel(basis_gates=list(target.operation_names)), {}
    for on, error in basic_device_readout_errors(target=part):
        flips[on[0]] = np.asarray(error.probabilities)
        model.add_readout_error(error, [at[q] for q in on])
    for name, on, error in basic_device_gate_errors(target=part):
        model.add_quantum_error(error, name, [at[q] for q in on])
    return model, flips

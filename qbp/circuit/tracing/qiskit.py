"""Qiskit circuits as circuits of qbp; qubit k is wire k."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from qbp.circuit.program import Expval, Measurement
from qbp.circuit.tracing.circuit import Circuit, Recorder, build, sparse_word, z_on_every_wire
from qbp.circuit.tracing.exponentials import Term, record_exponential
from qbp.circuit.tracing.qiskit_angles import QiskitAngles
from qbp.circuit.tracing.qiskit_channels import channel_of
from qbp.circuit.tracing.qiskit_gates import definition_of, row_of
from qbp.errors import ArgumentError, CircuitError

__all__ = ["InstructionError", "is_qiskit", "operators", "trace_qiskit"]

_MAX_STEPS = 500_000
_MAX_DEPTH = 100


def is_qiskit(source: Any) -> bool:
    """Whether the source is a Qiskit circuit, without importing Qiskit."""
    return any(c.__module__.startswith("qiskit.") and c.__name__ == "QuantumCircuit" for c in type(source).__mro__)


def operators(observable: Any, n_qubits: int) -> list[Expval]:
    """Any of Qiskit's operators as expectation values; a `PauliList` holds several.

    Raises:
        CircuitError: if it is not Hermitian, or has free parameters.
        ArgumentError: if it is of another number of qubits than the circuit.
    """
    from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp

    if isinstance(observable, PauliList):
        return [expval for pauli in observable for expval in operators(pauli, n_qubits)]
    size = getattr(observable, "num_qubits", None)
    if size != n_qubits:
        raise ArgumentError(f"Argument `observables` has {observable} of {size} qubits, but the circuit has {n_qubits}")
    if isinstance(observable, SparseObservable):
        observable = SparsePauliOp.from_sparse_observable(observable)
    elif isinstance(observable, Pauli):
        observable = SparsePauliOp(observable)
    elif not isinstance(observable, SparsePauliOp):
        observable = SparsePauliOp.from_operator(observable)
    terms = []
    for letters, qubits, coefficient in observable.to_sparse_list():
        if getattr(coefficient, "parameters", None) or abs(complex(coefficient).imag) > 1e-12:
            raise CircuitError(f"An observable must have real numbers as coefficients, but has {coefficient}")
        terms.append((complex(coefficient).real, *sparse_word(dict(zip(qubits, letters, strict=True)))))
    return [Expval(tuple(terms))]


def trace_qiskit(circuit: Any, input_params: Any, weight_params: Any) -> Circuit:
    """The circuit of a Qiskit circuit with its parameters named as data or weights; see `qbp.trace`."""
    inputs = [] if input_params is None else list(input_params)
    weights = [] if weight_params is None else list(weight_params)
    _check_parameters(circuit, inputs, weights)

    def record(recorder: Recorder, x: Tensor, w: dict[str, Tensor]) -> tuple[int, tuple[Measurement, ...], bool]:
        values = dict(zip(inputs, x, strict=True))
        values |= dict(zip(weights, w["weight"] if weights else (), strict=True))
        _Walk(recorder, QiskitAngles(values)).whole(circuit)
        return circuit.num_qubits, z_on_every_wire(circuit.num_qubits), False

    return build(record, len(inputs), {"weight": (len(weights),)} if weights else {})


def _check_parameters(circuit: Any, inputs: list[Any], weights: list[Any]) -> None:
    given = [*inputs, *weights]
    known = set(circuit.parameters)
    missing = known - set(given)
    for fault, culprits in (
        ("lack parameters of the circuit", [p for p in circuit.parameters if p in missing]),
        ("name what is no parameter of the circuit", [p for p in given if p not in known]),
        ("name parameters more than once", [p for k, p in enumerate(given) if p in given[:k]]),
    ):
        if culprits:
            names = ", ".join(str(getattr(p, "name", repr(p))) for p in culprits)
            raise ArgumentError(f"Arguments `input_params` and `weight_params` {fault}: {names}")


class InstructionError(CircuitError):
    """The instruction `index` of a circuit cannot be expressed."""

    def __init__(self, message: str, index: int):
        super().__init__(message)
        self.index = index


class _Walk:
    """Goes through a circuit, and through the definitions of what is no gate of the table."""

    def __init__(self, recorder: Recorder, angle: QiskitAngles):
        self.recorder, self.angle = recorder, angle
        self.steps = self.depth = 0
        self.touched: set[int] = set()
        self.measured: set[int] = set()

    def whole(self, circuit: Any) -> None:
        """Record a circuit on wires of the same numbers."""
        for index, instruction in enumerate(circuit.data):
            try:
                self.instruction(circuit, instruction, range(circuit.num_qubits))
            except CircuitError as error:
                raise InstructionError(str(error), index) from error

    def circuit(self, circuit: Any, wires: Sequence[int]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise CircuitError(f"The circuit's gates are defined by one another more than {_MAX_DEPTH} floors deep")
        for instruction in circuit.data:
            self.instruction(circuit, instruction, wires)
        self.depth -= 1

    def instruction(self, circuit: Any, instruction: Any, wires: Sequence[int]) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise CircuitError(f"The circuit has more than {_MAX_STEPS} gates")
        self.operation(instruction.operation, tuple(wires[circuit.find_bit(q).index] for q in instruction.qubits))

    def operation(self, operation: Any, wires: tuple[int, ...]) -> None:
        from qiskit.circuit import BoxOp, Delay, ForLoopOp, Measure, Reset
        from qiskit.circuit.library import GlobalPhaseGate, HamiltonianGate
        from qiskit.quantum_info import SparsePauliOp

        if getattr(operation, "_directive", False) or isinstance(operation, Delay | GlobalPhaseGate):
            return  # barriers, what simulators save, ...
        if isinstance(operation, Measure):  # left out at the end
            self.measured.update(wires)
            return
        if not self.measured.isdisjoint(wires):
            raise CircuitError(f"The circuit measures qubit {min(self.measured & {*wires})} and then goes on to use it")
        if isinstance(operation, Reset) and self.touched.isdisjoint(wires):
            return  # in |0> already
        if isinstance(operation, BoxOp | ForLoopOp):
            if isinstance(operation, ForLoopOp) and len(operation.params[0]) * len(operation.params[2]) > _MAX_STEPS:
                raise CircuitError(f"The circuit has more than {_MAX_STEPS} gates")
            for body in _bodies(operation):
                self.circuit(body, wires)
            return
        channel = channel_of(operation, wires)
        row = row_of(operation)
        if channel is not None:
            self.touched.update(wires)
            self.recorder.channel(channel)
        elif row is not None:
            self.touched.update(wires)
            self.recorder.gate(row, wires, [self.angle(p) for p in operation.params])
        elif _is_exact_evolution(operation):
            self.touched.update(wires)
            terms, time = _evolution_terms(operation.operator, wires), self.angle(operation.time)
            record_exponential(self.recorder, terms, time, name="Qiskit's PauliEvolutionGate")
        elif isinstance(operation, HamiltonianGate):
            self.touched.update(wires)
            matrix, time = operation.params
            terms = _evolution_terms(SparsePauliOp.from_operator(matrix), wires)
            record_exponential(self.recorder, terms, self.angle(time), name="Qiskit's HamiltonianGate")
        else:
            self.circuit(definition_of(operation), wires)


def _is_exact_evolution(operation: Any) -> bool:
    """Whether it is a `PauliEvolutionGate` for which no product formula but Qiskit's default was chosen: then it is
    ``exp(-i t H)``, as Qiskit's `Statevector` and `StatevectorEstimator` have it."""
    from qiskit.circuit.library import PauliEvolutionGate
    from qiskit.synthesis import LieTrotter, MatrixExponential

    if not isinstance(operation, PauliEvolutionGate):
        return False
    synthesis = operation.synthesis
    return isinstance(synthesis, MatrixExponential) or (type(synthesis) is LieTrotter and synthesis.reps == 1)


def _bodies(operation: Any) -> Iterator[Any]:
    """The circuits that a box or a loop runs, one after the other."""
    if hasattr(operation, "body"):
        yield operation.body
        return
    steps, counter, body = operation.params
    for step in steps:
        yield body if counter is None else body.assign_parameters({counter: step})


def _evolution_terms(operator: Any, wires: tuple[int, ...]) -> list[Term]:
    """The Pauli words of an operator, or of the sum of several."""
    terms: dict[tuple[str, tuple[int, ...]], float] = {}
    for part in operator if isinstance(operator, list) else [operator]:
        (expval,) = operators(part, len(wires))
        for coefficient, word, on in expval.terms:
            key = sparse_word(dict(zip([wires[w] for w in on], word, strict=True)))
            terms[key] = terms.get(key, 0.0) + coefficient
    return [(word, on, coefficient) for (word, on), coefficient in terms.items()]

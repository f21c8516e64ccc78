"""Qiskit circuits as circuits of qbp; qubit k is wire k."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from torch import Tensor

from qbp.circuit.program import Expval, Measurement
from qbp.circuit.tracing.circuit import Circuit, Recorder, build, sparse_word, z_on_every_wire
from qbp.circuit.tracing.exponentials import Term, record_exponential
from qbp.circuit.tracing.qiskit_angles import QiskitAngles
from qbp.circuit.tracing.qiskit_channels import channel_of
from qbp.circuit.tracing.qiskit_conditions import bits_of, holds
from qbp.circuit.tracing.qiskit_gates import definition_of, row_of
from qbp.errors import ArgumentError, CircuitError

__all__ = ["InstructionError", "is_qiskit", "operators", "trace_qiskit"]

_MAX_BITS = 6
"""Bits that a condition may ask for: there is a gate for each of their values for which it holds."""

_Values = dict[Any, int]
"""Wires and the outcomes that they must have had."""

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
    parameters = set(circuit.parameters)
    missing = parameters - set(given)
    for fault, culprits in (
        ("lack parameters of the circuit", [p for p in circuit.parameters if p in missing]),
        ("name what is no parameter of the circuit", [p for p in given if p not in parameters]),
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
        self.results: dict[Any, int] = {}  # which wire's outcome a classical bit has

    def whole(self, circuit: Any) -> None:
        """Record a circuit on wires of the same numbers."""
        for index, instruction in enumerate(circuit.data):
            try:
                self.instruction(circuit, instruction, range(circuit.num_qubits), circuit.clbits)
            except CircuitError as error:
                raise InstructionError(str(error), index) from error

    def circuit(self, circuit: Any, wires: Sequence[int], bits: Sequence[Any] = ()) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise CircuitError(f"The circuit's gates are defined by one another more than {_MAX_DEPTH} floors deep")
        for instruction in circuit.data:
            self.instruction(circuit, instruction, wires, bits)
        self.depth -= 1

    def instruction(self, circuit: Any, instruction: Any, wires: Sequence[int], bits: Sequence[Any]) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise CircuitError(f"The circuit has more than {_MAX_STEPS} gates")
        on = tuple(wires[circuit.find_bit(q).index] for q in instruction.qubits)
        outer = dict(zip(circuit.clbits, bits, strict=False))
        if instruction.operation.name == "if_else":
            self.conditional(instruction, on, outer, {})
        else:
            self.operation(instruction.operation, on, tuple(outer.get(bit, bit) for bit in instruction.clbits))

    def conditional(self, instruction: Any, wires: tuple[int, ...], bits: dict[Any, Any], controls: _Values) -> None:
        """What an `IfElseOp` does, as gates that the measured wires control: as good as long as these are left alone.

        Args:
            instruction: with it.
            wires: that it acts on.
            bits: the circuit's classical bits as those of the whole circuit.
            controls: wires that already control it, and their values.
        """
        operation = instruction.operation
        asked = bits_of(operation.condition)
        sources = {bit: self.results.get(bits.get(bit, bit)) for bit in asked}
        if len(asked) > _MAX_BITS or None in sources.values():
            raise CircuitError(
                f"Qiskit's 'if_else' must ask for up to {_MAX_BITS} bits of qubits that were measured before, and left "
                "alone since"
            )
        for outcome in product((0, 1), repeat=len(asked)):
            values, together = dict(zip(asked, outcome, strict=True)), dict(controls)
            if any(together.setdefault(sources[bit], value) != value for bit, value in values.items()):
                continue  # two bits of one wire, or what has been asked for before
            branch = 0 if holds(operation.condition, values) else 1
            for body in operation.blocks[branch : branch + 1]:
                outer = (bits.get(bit, bit) for bit in instruction.clbits)
                inside = dict(zip(body.clbits, outer, strict=True))
                for one in body.data:
                    on = tuple(wires[body.find_bit(q).index] for q in one.qubits)
                    self.controlled(one, on, inside, together)

    def controlled(self, instruction: Any, wires: tuple[int, ...], bits: dict[Any, Any], controls: _Values) -> None:
        """A gate where wires that were measured had these outcomes."""
        from qiskit.circuit import Gate

        operation = instruction.operation
        if getattr(operation, "_directive", False) or operation.name in ("delay", "global_phase"):
            return
        if operation.name == "if_else":
            self.conditional(instruction, wires, bits, controls)
            return
        if not isinstance(operation, Gate):
            raise CircuitError(f"Qiskit's 'if_else' must hold gates alone, but holds {operation.name!r}")
        if not self.measured.isdisjoint(wires):
            raise CircuitError(f"The circuit measures qubit {min(self.measured & {*wires})} and then goes on to use it")
        state = sum(value << k for k, value in enumerate(controls.values()))
        self.recorder.classical.update(controls)
        self.measured -= controls.keys()
        try:
            self.operation(operation.control(len(controls), ctrl_state=state), (*controls, *wires))
        finally:
            self.measured |= controls.keys()

    def operation(self, operation: Any, wires: tuple[int, ...], bits: tuple[Any, ...] = ()) -> None:
        from qiskit.circuit import BoxOp, Delay, ForLoopOp, Measure, Reset
        from qiskit.circuit.library import GlobalPhaseGate, HamiltonianGate
        from qiskit.quantum_info import SparsePauliOp

        if getattr(operation, "_directive", False) or isinstance(operation, Delay | GlobalPhaseGate):
            return  # barriers, what simulators save, ...
        if isinstance(operation, Measure):  # left out at the end
            self.measured.update(wires)
            self.results.update(zip(bits, wires, strict=False))
            return
        if isinstance(operation, Reset):
            self.measured -= {*wires}
            self.recorder.classical -= {*wires}
            self.results = {bit: wire for bit, wire in self.results.items() if wire not in wires}
        if not self.measured.isdisjoint(wires):
            raise CircuitError(f"The circuit measures qubit {min(self.measured & {*wires})} and then goes on to use it")
        if isinstance(operation, Reset) and self.touched.isdisjoint(wires):
            return  # in |0> already
        if isinstance(operation, BoxOp | ForLoopOp):
            if isinstance(operation, ForLoopOp) and len(operation.params[0]) * len(operation.params[2]) > _MAX_STEPS:
                raise CircuitError(f"The circuit has more than {_MAX_STEPS} gates")
            for body in _bodies(operation):
                self.circuit(body, wires, bits)
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
            self.circuit(definition_of(operation), wires, bits)


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

"""Qiskit circuits as circuits of qbp; qubit k is wire k."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.gates import GATES, Gate, qiskit_name
from qbp.circuit.program import Expval, Measurement
from qbp.circuit.tracing.circuit import Circuit, Recorder, build, sparse_word, z_on_every_wire
from qbp.errors import ArgumentError, CircuitError

__all__ = ["is_qiskit", "operators", "trace_qiskit"]


def is_qiskit(source: Any) -> bool:
    """Whether the source is a Qiskit circuit, without importing Qiskit."""
    return any(c.__module__.startswith("qiskit.") and c.__name__ == "QuantumCircuit" for c in type(source).__mro__)


_QISKIT: dict[str, Gate] = {qiskit_name(row): row for row in GATES.values() if qiskit_name(row)}
_QISKIT |= {
    "u1": GATES["PhaseShift"],
    "cu1": GATES["ControlledPhaseShift"],
    "u3": GATES["U3"],
    "cnot": GATES["CNOT"],
}


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
    circuit = circuit.remove_final_measurements(inplace=False)
    inputs = [] if input_params is None else list(input_params)
    weights = [] if weight_params is None else list(weight_params)
    _check_parameters(circuit, inputs, weights)

    def record(recorder: Recorder, x: Tensor, w: dict[str, Tensor]) -> tuple[int, tuple[Measurement, ...], bool]:
        values = dict(zip([p.name for p in inputs], x, strict=True))
        values |= dict(zip([p.name for p in weights], w["weight"] if weights else (), strict=True))
        _record(recorder, circuit, tuple(range(circuit.num_qubits)), values)
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


def _record(recorder: Recorder, circuit: Any, wires: tuple[int, ...], values: Mapping[str, Tensor]) -> None:
    for instruction in circuit.data:
        operation = instruction.operation
        on = tuple(wires[circuit.find_bit(q).index] for q in instruction.qubits)
        if operation.name in ("barrier", "global_phase", "delay"):
            continue
        row = _row(operation)
        if row is not None:
            recorder.gate(row, on, [_value(p, values) for p in operation.params])
        else:
            _record(recorder, _definition(operation), on, values)


def _row(operation: Any) -> Gate | None:
    """The gate's row in qbp's table. Names alone decide nothing: a user's gate may be called "rx" too."""
    standard = operation.base_class.__module__.startswith("qiskit.circuit.library.standard_gates.")
    ones = 2 ** getattr(operation, "num_ctrl_qubits", 0) - 1
    return _QISKIT.get(operation.name) if standard and getattr(operation, "ctrl_state", ones) == ones else None


def _definition(operation: Any) -> Any:
    """The circuit that an operation stands for."""
    if operation.name not in ("measure", "reset") and not hasattr(operation, "blocks"):
        if operation.definition is not None:
            return operation.definition
        if hasattr(operation, "to_matrix"):
            from qiskit.circuit.library import UnitaryGate

            return UnitaryGate(operation.to_matrix()).definition
    raise CircuitError(f"Qiskit's {operation.name!r} is not a unitary gate with a definition")


def _value(parameter: Any, values: Mapping[str, Tensor]) -> Any:
    if not hasattr(parameter, "parameters") or not parameter.parameters:
        return float(parameter)
    expression = parameter.sympify()
    if expression is NotImplemented:  # Qiskit's answer to 2**x
        raise CircuitError(f"Qiskit cannot take the angle {parameter} apart")
    return _evaluate(expression, values)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "sign")},
    **{"Abs": torch.abs, "conjugate": lambda value: value},
}


def _evaluate(expression: Any, values: Mapping[str, Tensor]) -> Any:
    """A sympy expression on tensors."""
    if expression.is_Symbol:
        if expression.name not in values:  # Qiskit loses an assignment when it inverts a controlled gate
            raise CircuitError(f"A gate inside of the circuit has the parameter {expression.name!r}, the circuit not")
        return values[expression.name]
    if expression.is_number:
        return float(expression)
    parts = [_evaluate(arg, values) for arg in expression.args]
    kind = type(expression).__name__
    if kind == "Add":
        return sum(parts[1:], start=parts[0])
    if kind == "Mul":
        return math.prod(parts[1:], start=parts[0])
    if kind == "Pow":
        return parts[0] ** parts[1]
    if kind in _FUNCTIONS:
        return _FUNCTIONS[kind](*parts)
    raise CircuitError(f"Function {kind} in the angle {expression} is not known to qbp")

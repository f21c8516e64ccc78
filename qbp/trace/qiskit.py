"""Qiskit circuits as circuits of qbp; qubit k is wire k."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qbp.errors import ArgumentError, CircuitError
from qbp.gates import GATES, Gate, qiskit_name
from qbp.program import Expval, Measurement
from qbp.trace.circuit import Circuit, Recorder, build, sparse_word, z_on_every_wire

__all__ = ["is_qiskit", "sparse_pauli_op", "trace_qiskit"]


def is_qiskit(source: Any) -> bool:
    return any(c.__module__.startswith("qiskit.") and c.__name__ == "QuantumCircuit" for c in type(source).__mro__)


_QISKIT: dict[str, Gate] = {qiskit_name(row): row for row in GATES.values() if qiskit_name(row)}
_QISKIT |= {
    "u1": GATES["PhaseShift"],
    "cu1": GATES["ControlledPhaseShift"],
    "u3": GATES["U3"],
    "cnot": GATES["CNOT"],
}


def sparse_pauli_op(operator: Any) -> Expval:
    terms = []
    for letters, qubits, coefficient in operator.to_sparse_list():
        if abs(complex(coefficient).imag) > 1e-12:
            raise CircuitError(f"An observable must have real coefficients, but has {coefficient}")
        terms.append((float(complex(coefficient).real), *sparse_word(dict(zip(qubits, letters, strict=True)))))
    return Expval(tuple(terms))


def trace_qiskit(circuit: Any, input_params: Any, weight_params: Any) -> Circuit:
    circuit = circuit.remove_final_measurements(inplace=False)
    inputs = [] if input_params is None else list(input_params)
    weights = [] if weight_params is None else list(weight_params)
    both = set(inputs) & set(weights)
    missing = [p for p in circuit.parameters if p not in set(inputs) | set(weights)]
    if both or missing:
        culprit = sorted(map(str, both or missing))
        raise ArgumentError(
            f"Every parameter of the circuit must be in `input_params` or in `weight_params`, and in one only: "
            f"{culprit}"
        )

    def record(recorder: Recorder, x: Tensor, w: dict[str, Tensor]) -> tuple[int, tuple[Measurement, ...], bool]:
        values = dict(zip([p.name for p in inputs], x, strict=True))
        values |= dict(zip([p.name for p in weights], w["weight"] if weights else (), strict=True))
        _record(recorder, circuit, tuple(range(circuit.num_qubits)), values)
        return circuit.num_qubits, z_on_every_wire(circuit.num_qubits), False

    return build(record, len(inputs), {"weight": (len(weights),)} if weights else {})


def _record(recorder: Recorder, circuit: Any, wires: tuple[int, ...], values: Mapping[str, Tensor]) -> None:
    for instruction in circuit.data:
        operation = instruction.operation
        on = tuple(wires[circuit.find_bit(q).index] for q in instruction.qubits)
        plain = getattr(operation, "ctrl_state", None) in (
            None,
            2 ** getattr(operation, "num_ctrl_qubits", 0) - 1,
        )
        if operation.name in ("barrier", "global_phase", "delay"):
            continue
        if operation.name in _QISKIT and plain:
            recorder.gate(_QISKIT[operation.name], on, [_value(p, values) for p in operation.params])
        elif operation.name in ("measure", "reset") or hasattr(operation, "blocks") or operation.definition is None:
            raise CircuitError(f"Qiskit's {operation.name!r} is not a unitary gate with a definition")
        else:
            _record(recorder, operation.definition, on, values)


def _value(parameter: Any, values: Mapping[str, Tensor]) -> Any:
    if not hasattr(parameter, "parameters") or not parameter.parameters:
        return float(parameter)
    return _evaluate(parameter.sympify(), values)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "sign")},
    **{"Abs": torch.abs, "conjugate": lambda value: value},
}


def _evaluate(expression: Any, values: Mapping[str, Tensor]) -> Any:
    """A sympy expression on tensors."""
    if expression.is_Symbol:
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

"""Qiskit's gates, and constant matrices: rows of qbp's table, or else the circuits that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qbp.circuit.gates import GATES, Gate, qiskit_name
from qbp.circuit.tracing.circuit import Recorder
from qbp.errors import CircuitError

__all__ = ["MAX_MATRIX_WIRES", "definition_of", "record_constant", "record_unitary", "row_of"]

MAX_MATRIX_WIRES = 5
"""Matrices on more wires would become thousands of gates."""

_QISKIT: dict[str, Gate] = {qiskit_name(row): row for row in GATES.values() if qiskit_name(row)}
_QISKIT |= {
    "u1": GATES["PhaseShift"],
    "cu1": GATES["ControlledPhaseShift"],
    "u3": GATES["U3"],
    "cnot": GATES["CNOT"],
}


def record_constant(recorder: Recorder, circuit: Any, wires: Sequence[int]) -> None:
    """Record a circuit without parameters; its qubit k is ``wires[k]``."""
    for instruction in circuit.data:
        on = tuple(wires[circuit.find_bit(q).index] for q in instruction.qubits)
        row = row_of(instruction.operation)
        if row is not None:
            recorder.gate(row, on, [float(p) for p in instruction.operation.params])
        else:
            record_constant(recorder, definition_of(instruction.operation), on)


def record_unitary(recorder: Recorder, matrix: np.ndarray, wires: Sequence[int], name: str = "") -> None:
    """Record a constant unitary matrix, up to a global phase, by Qiskit's decomposition; the first of `wires` is the
    most significant bit of its index.

    Raises:
        CircuitError: if it is not unitary, or acts on more than `MAX_MATRIX_WIRES` wires.
    """
    if len(wires) > MAX_MATRIX_WIRES:
        raise CircuitError(
            f"{name or 'A matrix'} acts on {len(wires)} wires: matrices on at most {MAX_MATRIX_WIRES} are taken apart"
        )
    if not np.allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-6):
        raise CircuitError(f"{name or 'A matrix'} is not unitary")
    from qiskit.circuit.library import UnitaryGate

    left, _, right = np.linalg.svd(matrix)  # the nearest unitary: float32 is too coarse for Qiskit
    record_constant(recorder, UnitaryGate(left @ right).definition, tuple(wires)[::-1])


def row_of(operation: Any) -> Gate | None:
    """The gate's row in qbp's table. Names alone decide nothing: a user's gate may be called "rx" too."""
    kind = getattr(operation, "base_class", type(operation))
    standard = kind.__module__.startswith("qiskit.circuit.library.standard_gates.")
    ones = 2 ** getattr(operation, "num_ctrl_qubits", 0) - 1
    return _QISKIT.get(operation.name) if standard and getattr(operation, "ctrl_state", ones) == ones else None


def definition_of(operation: Any) -> Any:
    """The circuit that an operation stands for."""
    from qiskit.exceptions import QiskitError

    if not hasattr(operation, "blocks"):
        try:
            definition = _definition(operation)
        except (QiskitError, TypeError) as error:  # Qiskit needs the values of parameters
            raise CircuitError(f"Qiskit's {operation.name!r} cannot be taken apart: {str(error)[:200]}") from error
        if definition is not None:
            return definition
    raise CircuitError(f"Qiskit's {operation.name!r} is not a unitary gate with a definition")


def _definition(operation: Any) -> Any:
    if hasattr(operation, "modifiers"):
        return _annotated(operation)
    if hasattr(operation, "to_circuit"):  # a Clifford
        return operation.to_circuit()
    if operation.definition is not None:
        return operation.definition
    matrix = _matrix(operation)
    if matrix is None:
        return None
    from qiskit.circuit.library import UnitaryGate

    return UnitaryGate(matrix).definition


def _matrix(operation: Any) -> Any:
    """The matrix of an operation without definition, None where it has none (as an opaque gate)."""
    from qiskit.exceptions import QiskitError

    try:
        return operation.to_matrix()
    except (AttributeError, QiskitError):
        return None


def _annotated(operation: Any) -> Any:
    """The circuit of an `AnnotatedOperation`, one modifier after the other."""
    from qiskit import QuantumCircuit

    gate = operation.base_op
    if hasattr(gate, "modifiers"):
        gate = _annotated(gate).to_gate()
    elif hasattr(gate, "to_circuit"):
        gate = gate.to_circuit().to_gate()
    for modifier in operation.modifiers:
        if hasattr(modifier, "num_ctrl_qubits"):
            gate = gate.control(modifier.num_ctrl_qubits, ctrl_state=modifier.ctrl_state, annotated=False)
        elif hasattr(modifier, "power"):
            gate = _power(gate, modifier.power)
        else:
            gate = gate.inverse()
    circuit = QuantumCircuit(gate.num_qubits)
    circuit.append(gate, range(gate.num_qubits))
    return circuit


def _power(gate: Any, exponent: float) -> Any:
    """A gate to a power, also where Qiskit would need the values of its parameters."""
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import GlobalPhaseGate
    from qiskit.exceptions import QiskitError

    try:
        return gate.power(exponent, annotated=False)
    except (QiskitError, TypeError):
        if exponent != int(exponent):
            if isinstance(gate, GlobalPhaseGate):
                return GlobalPhaseGate(exponent * gate.params[0])
            if not hasattr(gate, "base_gate"):
                raise
            power = _power(gate.base_gate, exponent)
            return power.control(gate.num_ctrl_qubits, ctrl_state=gate.ctrl_state, annotated=False)
        circuit = QuantumCircuit(gate.num_qubits)
        for _ in range(abs(int(exponent))):
            circuit.append(gate if exponent > 0 else gate.inverse(), range(gate.num_qubits))
        return circuit.to_gate()

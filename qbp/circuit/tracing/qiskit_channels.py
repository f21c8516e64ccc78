"""Noise in Qiskit circuits, resets included: channels as those of qbp."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from qbp.circuit.channels import Channel
from qbp.circuit.noise_rows import of_kraus
from qbp.errors import ArgumentError, CircuitError

__all__ = ["channel_of", "channel_of_error"]

WIDEST = 2
"""Wires of a channel."""

RESET = np.zeros((4, 4))
RESET[0, 0] = RESET[3, 0] = 1.0  # whatever it was, 1 for I and for Z


def channel_of(operation: Any, wires: tuple[int, ...]) -> Channel | None:
    """An instruction that is noise, as a channel on these wires; None for any other.

    Raises:
        CircuitError: if it acts on too many wires, or does not keep the trace.
    """
    from qiskit.circuit import Reset

    error = getattr(operation, "_quantum_error", None)
    if not isinstance(operation, Reset) and error is None and operation.name not in ("kraus", "superop"):
        return None
    if len(wires) > WIDEST:
        raise CircuitError(f"Qiskit's {operation.name!r} acts on {len(wires)} qubits, but channels on at most {WIDEST}")
    on = tuple(reversed(wires))  # Qiskit's last qubit is the most significant
    try:
        if isinstance(operation, Reset):
            return Channel.of_matrix("Reset", on, RESET)
        if error is not None:
            return channel_of_error(operation.name, error, on)
        if operation.name == "kraus":
            return Channel.of_matrix("QubitChannel", on, of_kraus([np.asarray(k) for k in operation.params]))
        from qiskit.quantum_info import PTM, SuperOp

        return Channel.of_matrix("QubitChannel", on, PTM(SuperOp(np.asarray(operation.params[0]))).data.real)
    except ArgumentError as error_:
        raise CircuitError(f"Qiskit's {operation.name!r} is no channel: {error_}") from error_


def channel_of_error(name: str, error: Any, wires: tuple[int, ...]) -> Channel:
    """Aer's `QuantumError` on wires, its last qubit first.

    Raises:
        ArgumentError: if it acts on too many qubits.
    """
    if error.num_qubits > WIDEST:
        raise ArgumentError(
            f"A noise model must have errors on at most {WIDEST} qubits, but that of {name!r} has {error.num_qubits}"
        )
    parts = zip(error.circuits, error.probabilities, strict=True)
    return Channel.of_matrix(f"QuantumError({name})", wires, sum(p * _transfer_of(circuit) for circuit, p in parts))


def _transfer_of(circuit: Any) -> np.ndarray:
    """The Pauli transfer matrix (4^k, 4^k) of a small circuit, its last qubit first: devices have thousands of them, of
    which Qiskit's `SuperOp` would take seconds."""
    k = circuit.num_qubits
    matrix = np.eye(4**k).reshape([4] * k + [4**k])
    for instruction in circuit.data:
        axes = [k - 1 - circuit.find_bit(q).index for q in reversed(instruction.qubits)]
        m = len(axes)
        part = _transfer(instruction.operation).reshape([4] * (2 * m))
        matrix = np.moveaxis(np.tensordot(part, matrix, (range(m, 2 * m), axes)), range(m), axes)
    return matrix.reshape(4**k, 4**k)


def _transfer(operation: Any) -> np.ndarray:
    """The same of one instruction."""
    name = operation.name
    if name in ("id", "x", "y", "z", "pauli"):
        label = operation.params[0] if name == "pauli" else "I" if name == "id" else name.upper()
        signs = [[1.0 if "I" in (a, b) or a == b else -1.0 for b in "IXYZ"] for a in label]
        return np.diag(reduce(np.kron, (np.array(row) for row in signs)))
    if name == "reset":
        return RESET
    if name == "kraus":
        return of_kraus([np.asarray(k) for k in operation.params])
    from qiskit.quantum_info import PTM, SuperOp

    matrix: np.ndarray = PTM(SuperOp(operation)).data.real
    return matrix

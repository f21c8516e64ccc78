"""Expectation values by pauli-prop (Qiskit's, in Rust), for width.py; run by a Python that has it.

    python pauli_prop_values.py CIRCUIT.npz ATOL

The file has `angles` (B, layers, N, 2) and `data` (B, N), in radians. For every line of the standard input the values
of the next row are computed, Z of every qubit; a line of JSON says the seconds and the values.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from pauli_prop.propagation import (
    circuit_to_rotation_gates,
    evolve_through_cliffords,
    propagate_through_rotation_gates,
)
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

MAX_TERMS = 100_000


def circuit(data: np.ndarray, angles: np.ndarray) -> QuantumCircuit:
    """Data in RY; then CZ on neighbours, RY and RZ on every qubit, for each layer."""
    n_qubits = len(data)
    quantum_circuit = QuantumCircuit(n_qubits)
    for wire in range(n_qubits):
        quantum_circuit.ry(data[wire], wire)
    for layer in angles:
        for wire in range(n_qubits - 1):
            quantum_circuit.cz(wire, wire + 1)
        for wire in range(n_qubits):
            quantum_circuit.ry(layer[wire, 0], wire)
            quantum_circuit.rz(layer[wire, 1], wire)
    return quantum_circuit


def values(quantum_circuit: QuantumCircuit, atol: float) -> list[float]:
    """Z of every qubit: Clifford gates are moved to the front once, then each word is carried back."""
    n_qubits = quantum_circuit.num_qubits
    clifford, rest = evolve_through_cliffords(quantum_circuit)
    gates, expectations = circuit_to_rotation_gates(rest), []
    for wire in range(n_qubits):
        word = SparsePauliOp.from_sparse_list([("Z", [wire], 1.0)], n_qubits)
        carried, _ = propagate_through_rotation_gates(word, gates, MAX_TERMS, atol, "h")
        paulis = carried.paulis.evolve(clifford, frame="h")
        signs = (-1.0) ** (paulis.phase // 2)
        expectations.append(float(np.real(carried.coeffs * signs)[~paulis.x.any(1)].sum()))
    return expectations


def main() -> None:
    file, atol = np.load(sys.argv[1]), float(sys.argv[2])
    for row, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        expectations = values(circuit(file["data"][row], file["angles"]), atol)
        print(json.dumps({"seconds": time.perf_counter() - start, "values": expectations}), flush=True)


if __name__ == "__main__":
    main()

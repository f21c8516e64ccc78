"""Programs as Qiskit circuits. Here, and nowhere else, wires become Qiskit's qubits: wire k is qubit k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qbp.circuit.gates import GATES, qiskit_name
from qbp.circuit.program import Channel, Clifford, Expval, Op, Program, Rotation
from qbp.errors import CircuitError

__all__ = ["append", "circuit_of", "constants", "observables", "used_angles"]


def used_angles(program: Program) -> tuple[int, ...]:
    """The angles that turn something."""
    return tuple(sorted({op.angle for op in program.ops if isinstance(op, Rotation) and op.angle is not None}))


def circuit_of(program: Program) -> Any:
    """The program's ops as a `QuantumCircuit` with one parameter for each used angle, in their order."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector

    used = used_angles(program)
    parameters = dict(zip(used, ParameterVector("p", len(used)), strict=True))
    circuit = QuantumCircuit(program.n_qubits)
    for op in program.ops:
        append(circuit, op, parameters, range(program.n_qubits))
    return circuit.decompose(gates_to_decompose=["PauliEvolution", "iswap"])


def append(circuit: Any, op: Op, parameters: Any, qubits: Sequence[int]) -> None:
    """Append one op; `qubits[w]` is the circuit's qubit of wire w."""
    from qiskit.circuit.library import PauliEvolutionGate, get_standard_gate_name_mapping
    from qiskit.quantum_info import Pauli

    on = [qubits[w] for w in op.wires]
    if isinstance(op, Clifford):
        circuit.append(get_standard_gate_name_mapping()[qiskit_name(GATES[op.name])], on)
        return
    if isinstance(op, Channel):
        raise CircuitError(f"{op.name} is noise, which no gate makes: a quantum computer brings its own")
    turn: Any = op.offset
    if op.angle is not None:
        turn = parameters[op.angle] if op.scale == 1 else op.scale * parameters[op.angle]
        turn = turn + op.offset if op.offset else turn
    if op.pauli in ("X", "Y", "Z", "XX", "YY", "ZZ", "ZX"):
        getattr(circuit, f"r{op.pauli.lower()}")(turn, *on)
    elif op.pauli == "XZ":
        circuit.rzx(turn, *reversed(on))
    else:
        circuit.append(PauliEvolutionGate(Pauli(op.pauli[::-1]), time=turn / 2), on)


def observables(program: Program) -> list[Any]:
    """The expectation values' observables as `SparsePauliOp`s without their identities (see `constants`); some may
    have no term left."""
    from qiskit.quantum_info import SparsePauliOp

    result = []
    for measurement in program.measurements:
        if isinstance(measurement, Expval):
            terms = [(word, wires, c) for c, word, wires in measurement.terms if word and c]
            result.append(SparsePauliOp.from_sparse_list(terms, num_qubits=program.n_qubits).simplify())
    return result


def constants(program: Program) -> np.ndarray:
    """What the identities add to each output, (M,)."""
    columns: list[float] = []
    for m in program.measurements:
        if isinstance(m, Expval):
            columns.append(sum(c for c, word, _ in m.terms if not word))
        else:
            columns += [0.0] * 2 ** len(m.wires)
    return np.array(columns)

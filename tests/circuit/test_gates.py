"""Every row of the gate table against PennyLane's and Qiskit's matrices."""

from __future__ import annotations

import math
import re
from functools import reduce
from itertools import product
from pathlib import Path

import numpy as np
import pennylane as qml
import pytest
import qiskit
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.circuit.library.standard_gates import U2Gate

from qbp.circuit.gates import GATES, PENNYLANE, QASM, Gate, qiskit_name
from qbp.circuit.pauli import Word

NOT_IN_PENNYLANE = {"RZX", "CU"}
NOT_IN_QISKIT = {"Rot", "CRot", "IsingXY", "SingleExcitation"}
QISKIT = get_standard_gate_name_mapping() | {"u2": U2Gate(0, 0)}

# What the steps are multiplied to here shares nothing with the executors.
PAULI = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}


def word_matrix(word: str, wires: tuple[int, ...], n: int) -> np.ndarray:
    letters = dict(zip(wires, word, strict=True))
    return reduce(np.kron, [PAULI[letters.get(w, "I")] for w in range(n)])


def matrix(gate: Gate, params: np.ndarray) -> np.ndarray:
    """The product of the gate's rotations."""
    result = np.eye(2**gate.n_wires, dtype=complex)
    for step in gate.steps:
        t = step.offset + (0 if step.param is None else step.scale * params[step.param])
        word = word_matrix(step.pauli, step.wires, gate.n_wires)
        result = (math.cos(t / 2) * np.eye(len(word)) - 1j * math.sin(t / 2) * word) @ result
    return result


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two unitary matrices after the best global phase."""
    phase = np.vdot(b, a)
    return float(abs(a - b * phase / abs(phase)).max()) if abs(phase) > 1e-9 else 1.0


def pennylane_matrix(name: str, params: np.ndarray, n_wires: int) -> np.ndarray:
    wires = list(range(n_wires))
    if name.startswith("Adjoint("):
        op = qml.adjoint(getattr(qml, name[8:-1]))(*params, wires=wires)
    else:
        op = getattr(qml, name)(*params, wires=wires)
    return np.asarray(qml.matrix(op, wire_order=wires))


def qiskit_matrix(name: str, params: np.ndarray) -> np.ndarray:
    """Qiskit's matrix with the first qubit as the most significant bit."""
    gate = QISKIT[name].base_class(*params) if len(params) else QISKIT[name]
    n = gate.num_qubits
    back = list(reversed(range(n)))
    return gate.to_matrix().reshape([2] * (2 * n)).transpose([*back, *(n + b for b in back)]).reshape(2**n, -1)


def test_distance_sees_what_it_should():
    assert distance(PAULI["X"] * 1j, PAULI["X"]) < 1e-12
    assert distance(np.diag([1, 1j]), np.diag([1, -1j])) > 0.5


@pytest.mark.parametrize("name", sorted(set(PENNYLANE) - NOT_IN_PENNYLANE))
def test_pennylane(name: str, rng: np.random.Generator):
    gate = PENNYLANE[name]
    for _ in range(3):
        params = rng.uniform(-7, 7, gate.n_params)
        assert distance(matrix(gate, params), pennylane_matrix(name, params, gate.n_wires)) < 1e-12


def test_what_pennylane_lacks():
    assert {name for name in PENNYLANE if not hasattr(qml, name.removeprefix("Adjoint(").removesuffix(")"))} == (
        NOT_IN_PENNYLANE
    )


@pytest.mark.parametrize("gate", [g for g in GATES.values() if qiskit_name(g)], ids=lambda g: g.name)
def test_qiskit(gate: Gate, rng: np.random.Generator):
    for _ in range(3):
        params = rng.uniform(-7, 7, gate.n_params)
        assert distance(matrix(gate, params), qiskit_matrix(qiskit_name(gate), params)) < 1e-12


def test_what_qiskit_lacks():
    assert {g.name for g in GATES.values() if not qiskit_name(g)} == NOT_IN_QISKIT


@pytest.mark.parametrize("gate", GATES.values(), ids=lambda g: g.name)
def test_pennylane_aliases_and_names_are_unique(gate: Gate):
    assert GATES[gate.name] is gate
    for alias in gate.aliases:
        assert alias not in GATES and PENNYLANE[alias] is gate


def test_qasm_names():
    """They are gates of stdgates.inc, whose text in Qiskit says how many parameters and qubits each has."""
    text = (Path(qiskit.__file__).parent / "qasm" / "libs" / "stdgates.inc").read_text()
    defined = {
        name: (len(params.split(",")) if params else 0, len(qubits.split(",")))
        for name, params, qubits in re.findall(r"^gate\s+(\w+)\s*(?:\(([^)]*)\))?\s*([\w, ]+?)\s*\{", text, re.M)
    }
    assert {name: (g.n_params, g.n_wires) for name, g in QASM.items()}.items() <= defined.items()
    missing = set(defined) - set(QASM)
    assert missing <= {"CX", "phase", "cphase", "u1"}, f"gates of stdgates.inc that qbp lacks: {missing}"


@pytest.mark.parametrize("gate", GATES.values(), ids=lambda g: g.name)
def test_steps_of_one_parameter_stand_together_and_commute(gate: Gate):
    for param in range(gate.n_params):
        positions = [i for i, step in enumerate(gate.steps) if step.param == param]
        assert positions == list(range(positions[0], positions[0] + len(positions))), "not together, or not there"
        words = [Word.of(gate.steps[i].pauli, gate.steps[i].wires, gate.n_wires) for i in positions]
        assert not any(a.anticommutes(b) for a in words for b in words)


@pytest.mark.parametrize("gate", GATES.values(), ids=lambda g: g.name)
def test_is_clifford(gate: Gate, rng: np.random.Generator):
    """A Clifford gate maps every Pauli word to a Pauli word, up to a sign; a gate that does not is none."""
    unitary = matrix(gate, rng.uniform(0.3, 1.2, gate.n_params))
    n = gate.n_wires

    matrices = [word_matrix("".join(word), tuple(range(n)), n) for word in product("IXYZ", repeat=n)]

    def is_word(m: np.ndarray) -> bool:
        return max(abs(np.trace(m @ word)) for word in matrices) > 2**n - 1e-9

    maps_words = all(is_word(unitary @ word @ unitary.conj().T) for word in matrices)
    assert gate.is_clifford == maps_words

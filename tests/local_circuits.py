"""Circuits of gates on neighbours, at random and in layers, of any width."""

from __future__ import annotations

import numpy as np
import pennylane as qml

import qbp
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Measurement, Op, Probs, Program, Rotation, gate_ops
from qbp.executors.native import Native

ONE = ("RX", "RY", "RZ", "Hadamard", "S", "T", "PhaseShift", "SX")
TWO = ("CNOT", "CZ", "CRX", "CRY", "IsingXX", "IsingZZ", "SingleExcitation", "SWAP", "ControlledPhaseShift", "ISWAP")


class WholeState(Native):
    """The native engine, which never takes a circuit apart or its words back."""

    def engine(self, program: Program) -> Native:
        return self


def local_program(rng: np.random.Generator, n_qubits: int, depth: int) -> Program:
    """Gates on neighbours, angles that several gates share, observables of one to three qubits, some probabilities."""
    ops: list[Op] = []
    n_angles = 0

    def params(count: int) -> list[int | float]:
        nonlocal n_angles
        values: list[int | float] = []
        for _ in range(count):
            if n_angles and rng.random() < 0.2:
                values.append(float(rng.normal()))
            else:
                values.append(n_angles)
                n_angles += 1
        return values

    for layer in range(depth):
        for wire in range(n_qubits):
            gate = GATES[str(rng.choice(ONE))]
            ops += gate_ops(gate, (wire,), params(gate.n_params))
        for wire in range(layer % 2, n_qubits - 1, 2):
            gate = GATES[str(rng.choice(TWO))]
            on = (wire, wire + 1) if rng.random() < 0.5 else (wire + 1, wire)
            ops += gate_ops(gate, on, params(gate.n_params))
    if n_angles > 1:  # one angle for two rotations far apart
        ops.append(Rotation("X", (0,), n_angles - 1, -0.7, 0.3))
    measured: list[Measurement] = []
    for _ in range(4):
        terms = []
        for _ in range(int(rng.integers(1, 4))):
            first, size = int(rng.integers(n_qubits)), int(rng.integers(0, 4))
            wires = tuple(range(first, min(n_qubits, first + size)))
            terms.append((float(rng.normal()), "".join(rng.choice(list("XYZ"), len(wires))), wires))
        measured.append(Expval(tuple(terms)))
    first = int(rng.integers(n_qubits - 1))
    measured.insert(2, Probs((first + 1, first)))
    return Program(n_qubits, tuple(ops), tuple(measured), n_angles)


def chain(n_qubits: int, n_layers: int, entangler: str = "CZ") -> qbp.QuantumLayer:
    """A chain of neighbours: an output sees at most 2 L + 1 qubits."""

    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(n_qubits), rotation="Y")
        for layer in range(n_layers):
            for wire in range(n_qubits - 1):
                getattr(qml, entangler)([wire, wire + 1])
            for wire in range(n_qubits):
                qml.RY(weights[layer, wire, 0], wires=wire)
                qml.RZ(weights[layer, wire, 1], wires=wire)
        return [qml.expval(qml.Z(wire)) for wire in range(n_qubits)]

    return qbp.QuantumLayer(circuit, {"weights": (n_layers, n_qubits, 2)}, n_inputs=n_qubits, seed=0)

"""Measurements in the middle of Qiskit circuits whose results condition later gates, against branch by branch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.circuit.classical import expr
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector

from qbp import QuantumLayer
from qbp.circuit.tracing.qiskit_conditions import holds
from qbp.errors import CircuitError

FLIP = Operator(np.array([[0, 1], [1, 0]]))


def expectations(circuit: QuantumCircuit, observables: list[str]) -> list[float]:
    """Every outcome of every measurement as a branch of its own."""

    def walk(part, branches, qubits, clbits):
        for one in part.data:
            on, name, moved = [qubits[q] for q in one.qubits], one.operation.name, []
            for psi, bits in branches:
                if name == "barrier":
                    moved.append((psi, bits))
                elif name in ("measure", "reset"):
                    for value in (0, 1):
                        half = psi.evolve(Operator(np.diag([1 - value, value])), on)
                        if name == "measure":
                            moved.append((half, bits | {clbits[one.clbits[0]]: value}))
                        else:
                            moved.append((half.evolve(FLIP, on) if value else half, bits))
                elif name == "if_else":
                    first = 0 if holds(one.operation.condition, {k: bits[v] for k, v in clbits.items()}) else 1
                    inside = [(psi, bits)]
                    for body in one.operation.blocks[first : first + 1]:
                        bits_of_body = dict(zip(body.clbits, (clbits[c] for c in one.clbits), strict=True))
                        inside = walk(body, inside, dict(zip(body.qubits, on, strict=True)), bits_of_body)
                    moved += inside
                else:
                    moved.append((psi.evolve(one.operation, on), bits))
            branches = moved
        return branches

    start = [(Statevector.from_label("0" * circuit.num_qubits), dict.fromkeys(circuit.clbits, 0))]
    qubits = {q: k for k, q in enumerate(circuit.qubits)}
    ends = walk(circuit, start, qubits, {c: c for c in circuit.clbits})
    matrices = [SparsePauliOp(o).to_matrix() for o in observables]
    return [sum((psi.data.conj() @ matrix @ psi.data).real for psi, _ in ends) for matrix in matrices]


def teleported():
    circuit = QuantumCircuit(3, 2)
    circuit.ry(0.7, 0)
    circuit.rz(0.3, 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure([0, 1], [0, 1])
    with circuit.if_test((circuit.clbits[1], 1)):
        circuit.x(2)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.z(2)
    return circuit


def register_with_else():
    bits, qubits = ClassicalRegister(2, "c"), QuantumRegister(3, "q")
    circuit = QuantumCircuit(qubits, bits)
    circuit.ry(0.9, 0)
    circuit.ry(1.3, 1)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    with circuit.if_test((bits, 2)) as otherwise:
        circuit.ry(0.4, 2)
        circuit.rz(0.3, 2)
    with otherwise:
        circuit.rx(1.1, 2)
        with circuit.if_test((bits[0], 1)):
            circuit.h(2)
    circuit.barrier()
    circuit.rx(0.2, 2)
    return circuit


def expressions():
    circuit = QuantumCircuit(4, 3)
    for k in range(3):
        circuit.ry(0.5 + k, k)
    circuit.cx(0, 1)
    circuit.measure([0, 1, 2], [0, 1, 2])
    a, b, c = circuit.clbits
    with circuit.if_test(expr.logic_and(a, expr.logic_not(c))):
        circuit.u(0.3, 0.4, 0.5, 3)
    with circuit.if_test(expr.bit_xor(a, b)) as otherwise:
        circuit.ry(0.6, 3)
    with otherwise:
        circuit.p(0.7, 3)
        circuit.sx(3)
    circuit.reset(2)
    circuit.ry(0.3, 2)
    circuit.cx(2, 3)
    return circuit


@pytest.mark.parametrize("make", [teleported, register_with_else, expressions])
def test_conditions_are_controls(make):
    circuit = make()
    n, rng = circuit.num_qubits, random.Random(0)
    words = ["".join(rng.choice("IXYZ") for _ in range(n)) for _ in range(12)] + ["Z" * n, "X" * n]
    outputs = QuantumLayer(circuit, observables=[SparsePauliOp(word) for word in words]).double()(
        torch.zeros(1, 0, dtype=torch.float64)
    )
    np.testing.assert_allclose(outputs.detach()[0], expectations(circuit, words), atol=1e-12)


def test_gradients_of_conditioned_gates():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2, 1)
    circuit.ry(a, 0)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.rx(b, 1)
    observables = [SparsePauliOp("ZI"), SparsePauliOp("IX")]
    layer = QuantumLayer(circuit, input_params=[a], weight_params=[b], observables=observables, seed=0).double()
    x = torch.tensor([[0.8]], dtype=torch.float64, requires_grad=True)
    outputs = layer(x)
    one, weight = (1 - x.cos()) / 2, layer.weight
    expected = torch.cat([1 - one + one * weight.cos(), 0 * x], 1)
    torch.testing.assert_close(outputs, expected)
    for mine, other in zip(*(torch.autograd.grad(y.sum(), (x, weight)) for y in (outputs, expected)), strict=True):
        torch.testing.assert_close(mine, other)


def used_before():
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    circuit.reset(0)
    with circuit.if_test((0, 1)):
        circuit.x(1)
    return circuit


def on_the_measured_qubit():
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.x(0)
    return circuit


def measured_inside():
    circuit = QuantumCircuit(2, 2)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.measure(1, 1)
    return circuit


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (used_before, "'if_else' must ask for .* left alone since"),
        (on_the_measured_qubit, "measures qubit 0 and then goes on to use it"),
        (measured_inside, "must hold gates alone, but holds 'measure'"),
    ],
)
def test_what_controls_cannot_do(make, text):
    with pytest.raises(CircuitError, match=text):
        QuantumLayer(make())

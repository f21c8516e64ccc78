"""A layer as a Qiskit circuit with its observables."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from qbp.circuit.formulas import formulas
from qbp.circuit.gates import GATES, qiskit_name
from qbp.circuit.program import Channel
from qbp.circuit.qasm.expression import FUNCTIONS, Expression
from qbp.circuit.recognition import GateCall, gate_calls
from qbp.circuit.tracing import Circuit
from qbp.executors.qiskit_primitive.circuit import append
from qbp.nn.translation.qasm_text import value_of
from qbp.nn.translation.words import expvals, flat_weights, names, refuse_amplitudes, without_readout

__all__ = ["QiskitCircuit", "qiskit_circuit"]


class QiskitCircuit(NamedTuple):
    """A layer in Qiskit's words.

    Attributes:
        circuit: a `QuantumCircuit`; qubit k is wire k. Noise of the circuit is in it, as channels.
        observables: a `SparsePauliOp` for each output.
        input_params, weight_params: its parameters that are data (I,) and weights (P,), in order.
        weights: the weights' values (P,).
    """

    circuit: Any
    observables: list[Any]
    input_params: list[Any]
    weight_params: list[Any]
    weights: list[float]


def qiskit_circuit(layer: Any, circuit: Circuit) -> QiskitCircuit:
    """The circuit of a layer."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector
    from qiskit.quantum_info import SparsePauliOp

    refuse_amplitudes(circuit, "Qiskit")
    program = without_readout(circuit.program)
    x, w = names(circuit)
    inputs, weights = list(ParameterVector("x", len(x))), list(ParameterVector("w", len(w)))
    values = {str(name): parameter for name, parameter in zip([*x, *w], [*inputs, *weights], strict=True)}
    angles = formulas(circuit.angle_map, x, w)
    turns = [angle.evaluate(values, _function) for angle in angles]
    quantum_circuit = QuantumCircuit(program.n_qubits)
    for call in gate_calls(program.ops):
        _append(quantum_circuit, call, angles, turns, values)
    unused = [p for p in (*inputs, *weights) if p not in quantum_circuit.parameters]
    quantum_circuit.global_phase += sum(unused)  # without effect, but all are parameters of the circuit
    measured = [expval for m in program.measurements for expval in expvals(m)]
    terms = [[(word, wires, c) for c, word, wires in expval.terms] for expval in measured]
    observables = [SparsePauliOp.from_sparse_list(part, num_qubits=program.n_qubits) for part in terms]
    return QiskitCircuit(quantum_circuit, observables, inputs, weights, flat_weights(layer))


def _append(target: Any, call: GateCall, angles: list[Expression], turns: list[Any], values: dict[str, Any]) -> None:
    """One gate, by its own name where Qiskit has it."""
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.quantum_info import Kraus

    (first, *more) = call.ops
    if isinstance(first, Channel):
        # Qiskit's first qubit is the least significant one of a matrix
        target.append(Kraus(first.kraus()).to_instruction(), first.wires[::-1])
    elif more and qiskit_name(GATES[call.name]):
        kind = get_standard_gate_name_mapping()[qiskit_name(GATES[call.name])].base_class
        target.append(kind(*(value_of(turn, angles).evaluate(values, _function) for turn in call.params)), call.wires)
    else:
        for op in call.ops:
            append(target, op, turns, range(target.num_qubits))


def _function(name: str, value: Any) -> Any:
    """A function of a number or of Qiskit's expression of parameters."""
    if isinstance(value, float):
        return getattr(math, FUNCTIONS[name])(value)
    return value**0.5 if name == "sqrt" else getattr(value, name)()

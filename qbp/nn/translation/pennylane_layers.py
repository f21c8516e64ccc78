"""A layer as PennyLane's own `TorchLayer`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qbp.circuit.gates import GATES
from qbp.circuit.program import Program
from qbp.circuit.recognition import GateCall, Turn, gate_calls
from qbp.circuit.tracing import Circuit
from qbp.executors.pennylane_device import measurements, operation
from qbp.executors.qiskit_primitive.circuit import used_angles
from qbp.nn.translation.words import without_readout

__all__ = ["pennylane_layer"]


def pennylane_layer(layer: Any, circuit: Circuit) -> Any:
    """The `TorchLayer` of a layer's circuit, with copies of its weights."""
    import pennylane as qml

    program = without_readout(circuit.program)
    noisy = program.is_noisy
    device = qml.device("default.mixed" if noisy else "default.qubit", wires=program.n_qubits)
    qnode = qml.QNode(_function(circuit, program), device, interface="torch")
    if layer.shots is not None:
        qnode = qml.set_shots(qnode, layer.shots)
    weights = {name: weight.detach().clone() for name, weight in layer.qnode_weights.items()}
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    torch_layer = qml.qnn.TorchLayer(qnode, shapes, weights)
    return torch_layer.train(layer.training)


def _function(circuit: Circuit, program: Program) -> Any:
    """The circuit as a function of one sample or of a batch."""
    calls, wires = list(gate_calls(program.ops)), range(program.n_qubits)
    reads_data = program.amplitudes or any(k < circuit.angle_map.n_batched for k in used_angles(program))

    def qbp_circuit(inputs: Tensor, **weights: Tensor) -> Any:
        import pennylane as qml

        x = torch.as_tensor(inputs)
        rows = x.reshape(-1, x.shape[-1])
        flat = [torch.as_tensor(weights[name]).reshape(-1) for name in circuit.weight_shapes]
        w = torch.cat(flat).to(rows.real) if flat else rows.real.new_empty(0)
        angles = circuit.angle_map(rows.real, w)
        states = circuit.angle_map.amplitudes(rows, w)
        batched = angles.batched[0] if x.ndim == 1 else angles.batched.T
        columns = (*batched, *angles.shared)
        if states is not None:
            qml.StatePrep(states[0] if x.ndim == 1 else states, wires=wires, validate_norm=False)
        elif x.ndim > 1 and not reads_data:
            qml.RZ(rows.real.new_zeros(len(rows)), wires=0)  # without effect, but then there is an output for each row
        for call in calls:
            _apply(call, columns, wires)
        measured = measurements(program, wires)
        return measured[0] if circuit.is_scalar else measured

    return qbp_circuit


def _apply(call: GateCall, columns: Any, wires: range) -> None:
    """One gate, by its own name where it is one of several rotations."""
    import pennylane as qml

    if call.name in GATES and len(call.ops) > 1 and call.name != "IsingXY":  # whose matrix takes no batch in torch
        getattr(qml, call.name)(*(_value(turn, columns) for turn in call.params), wires=call.wires)
    else:
        for op in call.ops:
            operation(op, columns, wires)


def _value(turn: Turn, columns: Any) -> Any:
    return turn.offset if turn.angle is None else turn.scale * columns[turn.angle] + turn.offset

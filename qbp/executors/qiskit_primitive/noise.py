"""Circuits with the noise of a device: transpiled as for a job, every gate followed by its error, as programs again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from qbp.circuit.channels import Channel
from qbp.circuit.gates import GATES, qiskit_name
from qbp.circuit.noise_model import WRITTEN, GateError, NoiseModel
from qbp.circuit.program import Expval, Op, Probs, Program, gate_ops
from qbp.circuit.tracing.qiskit_channels import channel_of_error
from qbp.circuit.tracing.qiskit_gates import row_of
from qbp.errors import ArgumentError, CircuitError
from qbp.executors.qiskit_primitive.circuit import append, circuit_of, constants, used_angles
from qbp.executors.qiskit_primitive.isa import Compiled
from qbp.executors.sampled import Group, measurement_groups

__all__ = ["NoisyCircuit", "device_noise", "noise_of_aer", "noisy_circuit", "noisy_device_circuit"]


@dataclass(frozen=True)
class NoisyCircuit:
    """What a program becomes: programs of gates with errors, one for each group that is measured together.

    Attributes:
        parts: for each group its program, and which output each of its outputs is added to.
        scale: (K', K), what the angles of the parts are made of: ``scale @ angles + offset``.
        offset: (K',).
        constants: what identities add to the outputs, (M,).
    """

    parts: tuple[tuple[Program, tuple[int, ...]], ...]
    scale: np.ndarray
    offset: np.ndarray
    constants: np.ndarray

    @cached_property
    def n_seen(self) -> int:
        """The most wires that an output sees."""
        from qbp.executors.pauli.apart import seen_at_most  # not loaded where nothing is noisy

        return max((seen_at_most(part) for part, _ in self.parts), default=0)


def noisy_device_circuit(
    compiled: Compiled, noise: NoiseModel, active: Sequence[int], *, joint: bool = False
) -> NoisyCircuit:
    """A circuit that was transpiled for a device.

    Args:
        compiled: the circuit.
        noise: of the device, by its qubits.
        active: the qubits that are kept; their numbers in this order become the wires.
        joint: whether a part gives the probabilities of all that its group reads, in place of outputs.
    """
    at = {qubit: wire for wire, qubit in enumerate(active)}
    layout = [at[qubit] for qubit in compiled.layout]
    local = NoiseModel(
        tuple(
            replace(error, wires=None if error.wires is None else tuple(at[w] for w in error.wires))
            for error in noise.errors
            if error.wires is None or set(error.wires) <= set(at)
        ),
        tuple((None if w is None else at[w], p, q) for w, p, q in noise.readout if w is None or w in at),
    )
    wires = [at.get(qubit, -1) for qubit in range(compiled.circuit.num_qubits)]
    return _noisy(compiled.program, compiled.groups, compiled.rotated, layout, local, wires, len(active), joint)


def noisy_circuit(program: Program, noise: NoiseModel) -> NoisyCircuit:
    """A circuit written in the gates of a noise model; wire k stays wire k."""
    from qiskit import QuantumCircuit, transpile

    options = {"basis_gates": [qiskit_name(GATES[name]) for name in noise.gates], "optimization_level": 0}
    bare = replace(program, amplitudes=False)
    circuit = transpile(circuit_of(bare), **options)
    rotated = []
    for group in measurement_groups(program):
        turns = QuantumCircuit(program.n_qubits)
        for op in group.turns:
            append(turns, op, {}, range(program.n_qubits))
        rotated.append(circuit.compose(transpile(turns, **options)))
    wires = range(program.n_qubits)
    return _noisy(program, measurement_groups(program), rotated, wires, noise, wires, program.n_qubits)


def _noisy(
    program: Program,
    groups: Sequence[Group],
    circuits: Sequence[Any],
    layout: Sequence[int],
    noise: NoiseModel,
    wires: Sequence[int],
    n_wires: int,
    joint: bool = False,
) -> NoisyCircuit:
    """Programs of Qiskit circuits whose parameters are the used angles of a program.

    Args:
        layout: the wire on which each of the program's wires ends.
        wires: the wire of each of the circuits' qubits.
        n_wires: how many there are.
        joint: as in `noisy_device_circuit`.
    """
    used = used_angles(program)
    rows: list[np.ndarray] = []
    parts = []
    for group, circuit in zip(groups, circuits, strict=True):
        angles = _Angles(circuit, used, program.n_angles)
        ops: list[Op] = []
        for instruction in circuit.data:
            if instruction.operation.name == "barrier":
                continue
            on = tuple(wires[circuit.find_bit(q).index] for q in instruction.qubits)
            row = row_of(instruction.operation)
            if row is None:
                raise CircuitError(f"A device's gate {instruction.operation.name!r} is not in qbp's table")
            ops += gate_ops(row, on, [angles(p) for p in instruction.operation.params])
            ops += noise.after(row.name, on)
        rows = angles.rows if len(angles.rows) >= len(rows) else rows
        measured, columns = _measured(group, layout)
        if joint:
            measured, columns = (Probs(tuple(layout[w] for w in group.wires)),), ()
        reading = noise.reading([layout[w] for w in group.wires])
        amplitudes = program.amplitudes
        parts.append((Program(n_wires, tuple(ops), measured, len(angles.rows), amplitudes, reading), columns))
    table = np.array(rows).reshape(len(rows), program.n_angles + 1)
    aligned = tuple((replace(part, n_angles=len(rows)), columns) for part, columns in parts)
    return NoisyCircuit(aligned, table[:, :-1], table[:, -1], constants(program))


class _Angles:
    """Reads the angles of one circuit, which are affine functions of a program's.

    Attributes:
        rows: (K', K + 1), the factors of the program's angles in each angle that was read, and what is added.
    """

    def __init__(self, circuit: Any, used: Sequence[int], n_angles: int):
        self.columns = {parameter: used[parameter.index] for parameter in circuit.parameters}
        self.n_angles, self.rows = n_angles, list[np.ndarray]()

    def __call__(self, expression: Any) -> int | float:
        """The number of a further angle, or the value where it is constant."""
        parameters = sorted(getattr(expression, "parameters", ()), key=lambda p: self.columns[p])
        if not parameters:
            return float(expression)
        value = self._value(expression, dict.fromkeys(parameters, 0.0))
        row = np.zeros(self.n_angles + 1)
        row[-1] = value
        for parameter in parameters:
            point = dict.fromkeys(parameters, 0.0) | {parameter: 1.0}
            row[self.columns[parameter]] = self._value(expression, point) - value
        odd = {parameter: 0.37 + 0.61 * k for k, parameter in enumerate(parameters)}
        expected = value + sum(row[self.columns[p]] * v for p, v in odd.items())
        if abs(self._value(expression, odd) - expected) > 1e-9:
            raise CircuitError(f"The transpiled circuit has the angle {expression}, which is no sum of angles")
        self.rows.append(row)
        return len(self.rows) - 1

    @staticmethod
    def _value(expression: Any, values: dict[Any, float]) -> float:
        return float(expression.bind(values))


def _measured(group: Group, layout: Sequence[int]) -> tuple[tuple[Expval | Probs, ...], tuple[int, ...]]:
    """What is read of a group, and which output each of it is."""
    wires = [layout[w] for w in group.wires]
    terms: dict[int, list[tuple[float, str, tuple[int, ...]]]] = {}
    for column, coefficient, at in group.words:
        terms.setdefault(column, []).append((coefficient, "Z" * len(at), tuple(wires[i] for i in at)))
    measured: list[Expval | Probs] = [Expval(tuple(of_column)) for of_column in terms.values()]
    columns = list(terms)
    for first, at in group.probs:
        measured.append(Probs(tuple(wires[i] for i in at)))
        columns += range(first, first + 2 ** len(at))
    return tuple(measured), tuple(columns)


# ---- noise models of Qiskit ------------------------------------------------------------------------------------------

_NO_GATES = ("id", "reset", "delay", "measure")
"""What no program holds: errors of these change nothing."""


def device_noise(target: Any, qubits: Sequence[int]) -> NoiseModel:
    """The noise of some qubits of a device, as `qiskit_aer.noise.NoiseModel.from_backend` makes it of its target."""
    from qiskit.transpiler import Target
    from qiskit_aer.noise.device import basic_device_gate_errors, basic_device_readout_errors

    part = Target(num_qubits=target.num_qubits, dt=target.dt, qubit_properties=target.qubit_properties)
    for name in target.operation_names:
        kept = {on: p for on, p in (target[name] or {}).items() if on is not None and set(on) <= set(qubits)}
        if kept:
            part.add_instruction(target.operation_from_name(name), kept, name=name)
    readout = tuple((on[0], *_flips(error)) for on, error in basic_device_readout_errors(target=part))
    errors = basic_device_gate_errors(target=part)
    return NoiseModel(
        tuple(GateError(name, _channels(name, e), tuple(on)) for name, on, e in errors if name not in _NO_GATES),
        readout,
    )


def noise_of_aer(model: Any) -> NoiseModel:
    """A `qiskit_aer.noise.NoiseModel` as plain data.

    Raises:
        ArgumentError: if an error acts on more than two qubits, or follows what circuits are never written in.
    """
    errors: list[tuple[str, Any, Any]] = [(name, None, e) for name, e in model._default_quantum_errors.items()]
    errors += [
        (name, tuple(on), e) for name, of_name in model._local_quantum_errors.items() for on, e in of_name.items()
    ]
    readout = [(None, model._default_readout_error)] if model._default_readout_error is not None else []
    for on, error in model._local_readout_errors.items():
        if len(on) > 1:
            raise ArgumentError(f"A noise model must read qubits one by one, but reads {tuple(on)} together")
        readout.append((on[0], error))
    if any(name == "measure" for name, _, _ in errors):
        raise ArgumentError("A noise model must have readout errors rather than quantum errors of 'measure'")
    return NoiseModel(
        tuple(GateError(name, _channels(name, e), on) for name, on, e in errors if name not in _NO_GATES),
        tuple((on, *_flips(error)) for on, error in readout),
        tuple(name for name in model.basis_gates if name in WRITTEN),
    )


def _flips(error: Any) -> tuple[float, float]:
    """p(1|0) and p(0|1)."""
    table = np.asarray(error.probabilities)
    return float(table[0, 1]), float(table[1, 0])


def _channels(name: str, error: Any) -> tuple[Channel, ...]:
    """A `QuantumError` after a gate, whose first qubit is that of the gate, as a channel; none where it is ideal."""
    if error.ideal():
        return ()
    return (channel_of_error(name, error, tuple(reversed(range(error.num_qubits)))),)

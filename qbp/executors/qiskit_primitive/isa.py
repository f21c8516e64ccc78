"""Transpiling: once for each program and device, with parameters kept, so that all circuits of a run use one layout."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qbp.circuit.program import Program
from qbp.errors import CircuitError
from qbp.executors.qiskit_primitive.circuit import append, circuit_of, observables, used_angles
from qbp.executors.qiskit_primitive.options import Options
from qbp.executors.sampled import Group, measurement_groups
from qbp.storage.atomic import write_atomic

__all__ = ["Compiled", "compile_program", "transpile"]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program as a device takes it; each is itself alone, so that others may note what they make of it.

    Attributes:
        program: the program, without amplitudes.
        circuit: its circuit, transpiled where a device asks for that.
        layout: at the end of the circuit, the circuit's qubit that each wire is on.
        backend: the device it was transpiled for, or None.
    """

    program: Program
    circuit: Any
    layout: tuple[int, ...]
    backend: Any

    @cached_property
    def angles(self) -> tuple[int, ...]:
        """For each of the circuit's parameters, in their order, the program's angle."""
        used = used_angles(self.program)
        return tuple(used[parameter.index] for parameter in self.circuit.parameters)

    @cached_property
    def active(self) -> tuple[int, ...]:
        """The qubits that the circuit uses."""
        used = {self.circuit.find_bit(q).index for i in self.circuit.data for q in i.qubits} | set(self.layout)
        return tuple(sorted(used))

    @cached_property
    def observables(self) -> list[Any]:
        """The expectation values' observables on the circuit's qubits."""
        return [op.apply_layout(list(self.layout), self.circuit.num_qubits) for op in observables(self.program)]

    @property
    def groups(self) -> tuple[Group, ...]:
        """What can be measured together."""
        return measurement_groups(self.program)

    @cached_property
    def n_groups(self) -> int:
        """How many circuits a parameter set needs: one for all observables that commute wire by wire."""
        if self.measures_probs:
            return len(self.groups)
        from qiskit.quantum_info import PauliList

        words = {label for op in observables(self.program) for label in op.paulis.to_labels() if set(label) != {"I"}}
        return len(PauliList(sorted(words)).group_commuting(qubit_wise=True)) if words else 0

    @cached_property
    def measures_probs(self) -> bool:
        """Whether something else than expectation values is measured, so that it takes a sampler."""
        return len(observables(self.program)) < len(self.program.measurements)

    @cached_property
    def rotated(self) -> list[Any]:
        """For each group the circuit, turned to the basis of the group's words."""
        from qiskit import QuantumCircuit
        from qiskit.transpiler import PassManager
        from qiskit.transpiler.passes import Optimize1qGatesDecomposition

        circuits = []
        for group in self.groups:
            turns = QuantumCircuit(self.circuit.num_qubits)
            for op in group.turns:
                append(turns, op, {}, self.layout)
            if self.backend is not None:
                turns = PassManager([Optimize1qGatesDecomposition(target=self.backend.target)]).run(turns)
            circuits.append(self.circuit.compose(turns))
        return circuits

    @cached_property
    def measured(self) -> list[Any]:
        """The same, measuring the group's wires into the register `meas`, whose first bit is the last wire."""
        from qiskit.circuit import ClassicalRegister

        circuits = []
        for group, rotated in zip(self.groups, self.rotated, strict=True):
            circuit, register = rotated.copy(), ClassicalRegister(len(group.wires), "meas")
            circuit.add_register(register)
            circuit.measure([self.layout[w] for w in reversed(group.wires)], register)
            circuits.append(circuit)
        return circuits


def compile_program(program: Program, backend: Any, options: Options, directory: Path | None = None) -> Compiled:
    """The program for a device; for a simulator of any circuit (`backend` None) without transpiling.

    Args:
        program: the program.
        backend: a Qiskit `BackendV2`, or None.
        options: the transpiler's level and seed.
        directory: where the transpiled circuit is kept as QPY, so that a run that is resumed goes on with it, even
            if the device was calibrated anew.
    """
    if backend is None:
        return Compiled(program, circuit_of(program), tuple(range(program.n_qubits)), None)
    if backend.num_qubits is not None and program.n_qubits > backend.num_qubits:
        raise CircuitError(
            f"A circuit of {program.n_qubits} qubits does not fit on {backend.name}, which has {backend.num_qubits}"
        )
    layout = options.initial_layout
    if layout is not None and (len(layout) != program.n_qubits or max(layout) >= backend.num_qubits):
        raise CircuitError(
            f"Argument `initial_layout` must name one of the {backend.num_qubits} qubits of {backend.name} for each of "
            f"{program.n_qubits} wires, but is {layout!r}"
        )
    chosen = [(name, getattr(options, name)) for name in options.changed(("initial_layout", "fractional_gates"))]
    key = repr((program, backend.name, options.optimization_level, options.seed_transpiler, *chosen))
    path = None if directory is None else directory / f"circuit-{hashlib.sha256(key.encode()).hexdigest()[:16]}.qpy"
    if path is not None and path.exists():
        circuit = _load(path)
    else:
        circuit = transpile(circuit_of(program), backend, options, layout)
        if path is not None:
            _save(circuit, path)
    moved = range(program.n_qubits) if circuit.layout is None else circuit.layout.final_index_layout()
    return Compiled(program, circuit, tuple(moved), backend)


def transpile(circuit: Any, backend: Any, options: Options, initial_layout: Sequence[int] | None = None) -> Any:
    """Qiskit's preset pass manager, seeded; with `initial_layout` each qubit starts where that says."""
    from qiskit.transpiler import generate_preset_pass_manager

    manager = generate_preset_pass_manager(
        optimization_level=options.optimization_level,
        backend=backend,
        seed_transpiler=options.seed_transpiler,
        initial_layout=None if initial_layout is None else list(initial_layout),
    )
    return manager.run(circuit)


def _save(circuit: Any, path: Path) -> None:
    from qiskit import qpy

    buffer = io.BytesIO()
    qpy.dump(circuit, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def _load(path: Path) -> Any:
    from qiskit import qpy

    with path.open("rb") as file:
        return qpy.load(file)[0]

"""What a circuit costs on a device once it is transpiled for it, and pruning by that cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qbp import executors
from qbp.circuit.edit import affine_angles, drop_ops
from qbp.circuit.program import Program
from qbp.compression.groups import Group, prunable
from qbp.compression.simplify import simplify_layer
from qbp.data import Dataset
from qbp.errors import ArgumentError
from qbp.executors import Executor
from qbp.executors.qiskit_primitive import QiskitPrimitive
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer
from qbp.nn.shrink import flat_values, shrink
from qbp.training.metrics import evaluate, main_metric

__all__ = ["GateCounts", "gate_counts", "saved_gates", "snap"]


@dataclass(frozen=True)
class GateCounts:
    """Gates of a circuit on a device.

    Attributes:
        one_qubit: gates of one qubit, but for RZ, which devices do without time and without error.
        two_qubit: gates of two qubits.
        depth: longest chain of gates, RZ left out.
        layout: the device's qubit that each wire starts on.
    """

    one_qubit: int
    two_qubit: int
    depth: int
    layout: tuple[int, ...]


def gate_counts(program: Program, backend: str | Executor, *, layout: Sequence[int] | None = None) -> GateCounts:
    """Transpile a program and count its gates; weights and inputs stay parameters.

    Args:
        program: the program; ops that no measurement sees do not count.
        backend: a device, as in "fake:quito" or "ibm:NAME", with its options (level 3 and seed 0 by default).
        layout: the device's qubit for each wire, where the transpiler shall not choose.

    Raises:
        ArgumentError: the backend is no device.

    Example:
        >>> import qbp
        >>> layer = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)
        >>> gate_counts(layer.circuit.program, "fake:quito").two_qubit
        1
    """
    executor = _device(backend)
    if layout is None:
        circuit = executor.compiled(program).circuit
    else:
        from qbp.executors.qiskit_primitive.circuit import circuit_of
        from qbp.executors.qiskit_primitive.isa import transpile

        bare = circuit_of(program.lightcone()[0])
        circuit = transpile(bare, executor.primitive.backend, executor.options, layout)
    counted = [i for i in circuit.data if i.operation.name not in ("rz", "barrier", "measure", "id", "delay")]
    sizes = [len(i.qubits) for i in counted]
    places = circuit.layout.initial_index_layout(filter_ancillas=True) if circuit.layout else range(program.n_qubits)
    depth = circuit.depth(lambda i: i.operation.name not in ("rz", "barrier", "measure", "id", "delay"))
    return GateCounts(sizes.count(1), sizes.count(2), depth, tuple(places))


def _device(backend: str | Executor) -> Any:
    executor: Any = executors.backend(backend) if isinstance(backend, str) else backend
    if not isinstance(executor, QiskitPrimitive):
        raise ArgumentError(
            "Argument `backend` must be a device that circuits are transpiled for, as 'fake:quito' or 'ibm:NAME', "
            f"but is {getattr(executor, 'name', backend)!r}"
        )
    return executor


def saved_gates(model: nn.Module, groups: Sequence[Group], backend: str | Executor) -> Tensor:
    """How many two-qubit gates a device is spared by removing each group alone, the layout held fixed.

    Args:
        model: the model.
        groups: of `qbp.compression.groups.groups_of`.
        backend: the device.

    Returns:
        (len(groups),), float64; 0 for neurons.
    """
    executor = _device(backend)
    before: dict[str, GateCounts] = {}
    saved = []
    for group in groups:
        module = model.get_submodule(group.owner)
        if not isinstance(module, QuantumLayer):
            saved.append(0.0)
            continue
        circuit = module.circuit
        if group.owner not in before:
            before[group.owner] = gate_counts(circuit.program, executor)
        layout = before[group.owner].layout
        after = gate_counts(drop_ops(circuit, group.index).program, executor, layout=layout)
        saved.append(float(before[group.owner].two_qubit - after.two_qubit))
    return torch.tensor(saved, dtype=torch.float64)


def snap(
    model: nn.Module, data: Dataset, *, backend: str | Executor, within: float = math.pi / 8, max_drop: float = 0.0
) -> nn.Module:
    """Fix angles that are near multiples of pi/2 there, where that spares a device gates and costs no accuracy.

    A rotation by a multiple of pi/2 is a Clifford gate: it needs no shift circuits, merges with its neighbours
    (`qbp.compression.simplify`), and the transpiler can cancel it. Angles are tried one after the other, the nearest
    first, and each is kept only if the transpiled circuit has fewer gates (of two qubits, else of one).

    Args:
        model: the model; it stays as it is.
        data: on which the accuracy is measured.
        backend: the device, as in "fake:quito".
        within: largest change of an angle, in radians.
        max_drop: how much accuracy may be lost altogether, as a share.

    Returns:
        A copy with fewer weights.
    """
    executor, best = _device(backend), copied(model)
    floor = _quality(model, data) - max_drop
    for name in sorted(prunable(model, data.x)[1]):
        tried: set[tuple[float, ...]] = set()
        while True:
            layer = best.get_submodule(name)
            assert isinstance(layer, QuantumLayer)
            cost, weights = _cost(layer, executor), flat_values(layer).tolist()
            for p, value in _near_quarters(layer, within):
                key = (round(value, 6), round(weights[p], 6))
                if key in tried:
                    continue
                tried.add(key)
                trial = copied(best)
                changed = trial.get_submodule(name)
                assert isinstance(changed, QuantumLayer)
                shrink(changed, weights={p: value})
                simplify_layer(changed)
                if _cost(changed, executor) < cost and _quality(trial, data) >= floor:
                    best = trial
                    break
            else:
                break
    return best


def _cost(layer: QuantumLayer, executor: Any) -> tuple[int, int]:
    counts = gate_counts(layer.circuit.program, executor)
    return counts.two_qubit, counts.one_qubit


def _quality(model: nn.Module, data: Dataset) -> float:
    result = evaluate(model, data)
    return float(result[main_metric(result)])


def _near_quarters(layer: QuantumLayer, within: float) -> list[tuple[int, float]]:
    """The weights that alone decide an angle near a multiple of pi/2, with the value for it; nearest first."""
    circuit = layer.circuit
    weights = flat_values(layer)
    _, slopes, offsets = affine_angles(circuit.angle_map)
    candidates = []
    for slope, offset in zip(slopes, offsets.tolist(), strict=True):
        sources = torch.nonzero(slope).flatten().tolist()
        alone = len(sources) == 1 and sources[0] >= circuit.n_inputs
        if alone and int((slopes[:, sources[0]] != 0).sum()) == 1:
            p, factor = sources[0] - circuit.n_inputs, float(slope[sources[0]])
            angle = factor * float(weights[p]) + offset
            nearest = round(angle / (math.pi / 2)) * math.pi / 2
            if abs(angle - nearest) <= within:
                candidates.append((abs(angle - nearest), p, (nearest - offset) / factor))
    return [(p, value) for _, p, value in sorted(candidates)]

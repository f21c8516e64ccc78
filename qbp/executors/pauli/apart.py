"""Wide, shallow circuits with noise taken apart: each output sees few wires, and is a small circuit of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from qbp.circuit.program import Expval, Program
from qbp.executors.pauli.passes import narrowed

__all__ = ["WHOLE", "taken_apart"]

WHOLE = 6
"""Wires of a circuit that is never taken apart: going through it once is sooner done than through several."""


@lru_cache(maxsize=128)
def taken_apart(program: Program) -> tuple[tuple[Program, tuple[int, ...]], ...]:
    """Programs of fewer wires, and which outputs each of them gives; one part where that costs less.

    Every measurement sees the wires of its light cone; those that see the same ones stay together. Angles keep their
    numbers.
    """
    whole = ((program, tuple(range(program.n_outputs))),)
    if program.amplitudes or narrowed(program).n_qubits <= WHOLE:
        return whole
    groups: dict[tuple[object, ...], tuple[list, list[int]]] = {}
    output = 0
    for m in program.measurements:
        width = 1 if isinstance(m, Expval) else 2 ** len(m.wires)
        near = set(m.wires) if not isinstance(m, Expval) else {w for _, _, wires in m.terms for w in wires}
        for op in reversed(program.ops):
            if not near.isdisjoint(op.wires):
                near.update(op.wires)
        measurements, outputs = groups.setdefault(tuple(sorted(near)), ([], []))
        measurements.append(m)
        outputs += range(output, output + width)
        output += width
    cost = sum(4 ** len(wires) for wires in groups)
    if len(groups) == 1 or 2 * cost > 4 ** narrowed(program).n_qubits:
        return whole
    return tuple(
        (narrowed(replace(program, measurements=tuple(measurements))), tuple(outputs))
        for measurements, outputs in groups.values()
    )

"""Wide, shallow circuits with noise taken apart: each output sees few wires, and is a small circuit of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from qbp.circuit.program import Expval, Measurement, Program

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
    n_seen = len(program.seen_wires())
    if program.amplitudes or n_seen <= WHOLE:
        return whole
    groups: dict[tuple[int, ...], tuple[list[Measurement], list[int]]] = {}
    output = 0
    for m in program.measurements:
        wires = replace(program, measurements=(m,)).seen_wires()
        measurements, outputs = groups.setdefault(wires, ([], []))
        measurements.append(m)
        width = 1 if isinstance(m, Expval) else 2 ** len(m.wires)
        outputs += range(output, output + width)
        output += width
    if len(groups) == 1 or 2 * sum(4 ** len(wires) for wires in groups) > 4**n_seen:
        return whole
    return tuple(
        (replace(program, measurements=tuple(measurements)).narrowed(), tuple(outputs))
        for measurements, outputs in groups.values()
    )

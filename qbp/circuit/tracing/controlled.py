"""Gates under any number of controls, as Pauli rotations: what has no row in the gate table and cannot be decomposed
without the values of its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from qbp.circuit.gates import PENNYLANE, Gate, Step

__all__ = ["controlled", "exact_steps"]

# By the parameters t: exp(i t / 2), which the rotations of these gates leave out. Under controls it matters.
_PHASES = {"PhaseShift": (0,), "U2": (0, 1), "U3": (1, 2)}


def exact_steps(name: str) -> tuple[Step, ...] | None:
    """The Pauli rotations of a gate with parameters, its global phase included as rotations about the empty word.

    None for a gate without parameters or without row.
    """
    if name == "GlobalPhase":  # exp(-i t)
        return (Step("", (), param=0, scale=2.0),)
    gate = PENNYLANE.get(name)
    if gate is None or not gate.n_params:
        return None
    steps = []
    for step in gate.steps:
        steps.append(step)
        if step.param in _PHASES.get(gate.name, ()):
            steps.append(Step("", (), param=step.param, scale=-1.0))
    return tuple(steps)


def controlled(steps: Sequence[Step], n_wires: int, values: Sequence[bool]) -> Gate:
    """The gate of `steps` on `n_wires`, done where the control wires, which come first, are in the state `values`.

    ``exp(-i t C P / 2)`` with the projector ``C = prod_c (1 -+ Z_c) / 2`` is a product of commuting rotations, one for
    each subset of the controls: by ``t / 2^n`` about Z on the subset times P, with a minus sign for each control of the
    subset whose value is 1.
    """
    n = len(values)
    result = []
    for step in steps:
        for subset in range(2**n):
            on = tuple(c for c in range(n) if subset >> c & 1)
            factor = math.prod(-1 if values[c] else 1 for c in on) / 2**n
            word, wires = "Z" * len(on) + step.pauli, (*on, *(n + w for w in step.wires))
            if word:  # the empty word is a global phase of the whole
                scaled = replace(step, scale=step.scale * factor, offset=step.offset * factor)
                result.append(replace(scaled, pauli=word, wires=wires))
    n_params = 1 + max(step.param for step in steps if step.param is not None)
    return Gate(f"{n} controls", n + n_wires, n_params, tuple(result))

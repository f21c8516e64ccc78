"""What translations share: names of inputs and weights, readout errors as channels, outcomes as observables."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch

from qbp.circuit.channels import Channel
from qbp.circuit.program import Expval, Measurement, Probs, Program
from qbp.circuit.qasm.expression import Expression
from qbp.circuit.readout import read
from qbp.circuit.tracing import Circuit
from qbp.errors import CircuitError

__all__ = ["expvals", "flat_weights", "names", "refuse_amplitudes", "without_readout"]

MOST_WIRES = 8
"""Wires whose outcomes' probabilities are written as observables: 4^n Pauli words."""


def names(circuit: Circuit) -> tuple[list[Expression], list[Expression]]:
    """Variables x_0, ... for the inputs and w_0, ... for the weights."""
    sizes = circuit.angle_map.n_inputs, circuit.angle_map.n_weights
    x, w = ([Expression.variable(f"{letter}_{k}") for k in range(n)] for letter, n in zip("xw", sizes, strict=True))
    return x, w


def flat_weights(layer: Any) -> list[float]:
    """The values of the weights (P,)."""
    values: list[float] = layer.flat_weights(torch.empty(0, dtype=torch.float64)).detach().tolist()
    return values


def refuse_amplitudes(circuit: Circuit, language: str) -> None:
    """Raise where the circuit starts from data."""
    if circuit.program.amplitudes:
        raise CircuitError(f"This circuit starts from amplitudes that are data, which no circuit of {language} can")


def without_readout(program: Program) -> Program:
    """The program with its readout errors in its observables; for probabilities, as channels in front of them.

    Raises:
        CircuitError: probabilities are read wrongly on wires where X or Y is measured, too.
    """
    misread = {wire for wire, _, _ in program.readout}
    if not any(isinstance(m, Probs) and misread & {*m.wires} for m in program.measurements):
        return replace(program, measurements=read(program), readout=())
    for m in program.measurements:
        words = () if isinstance(m, Probs) else m.terms
        for _, word, wires in words:
            if any(wire in misread and letter != "Z" for letter, wire in zip(word, wires, strict=True)):
                raise CircuitError("Readout errors of probabilities cannot be written beside those of X and Y words")
    flips = (_flip(wire, ones, zeros) for wire, ones, zeros in program.readout)
    return replace(program, ops=(*program.ops, *flips), readout=())


def _flip(wire: int, ones: float, zeros: float) -> Channel:
    """What reads 1 for 0 and 0 for 1 so often, and forgets the phase."""
    matrix = np.diag([1.0, 0.0, 0.0, 1 - ones - zeros])
    matrix[3, 0] = zeros - ones
    return Channel.of_matrix("QubitChannel", (wire,), matrix)


def expvals(measurement: Measurement) -> list[Expval]:
    """Expectation values for each output: the probability of an outcome is that of its projector."""
    if isinstance(measurement, Expval):
        return [measurement]
    wires = measurement.wires
    if len(wires) > MOST_WIRES:
        raise CircuitError(
            f"Probabilities of {len(wires)} wires are too many observables: up to {MOST_WIRES} wires are written"
        )
    subsets = list(product((0, 1), repeat=len(wires)))
    on = [tuple(w for w, bit in zip(wires, subset, strict=True) if bit) for subset in subsets]
    signs = [
        [(-1.0) ** sum(a * b for a, b in zip(outcome, subset, strict=True)) for subset in subsets]
        for outcome in subsets
    ]
    size = len(subsets)
    return [
        Expval(tuple((sign / size, "Z" * len(w), w) for sign, w in zip(row, on, strict=True)))
        for row in signs
    ]  # fmt: skip

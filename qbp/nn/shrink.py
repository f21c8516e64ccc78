"""Rotations of a layer fixed at constant angles, and its weights made fewer with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qbp.circuit.edit import Sums, drop_ops, remake, split, used
from qbp.circuit.program import Op
from qbp.nn.layer import QuantumLayer

__all__ = ["flat_values", "shrink"]


def shrink(
    layer: QuantumLayer,
    ops: Sequence[Op] | None = None,
    *,
    sums: Sums | None = None,
    inputs: Mapping[int, float] | None = None,
    weights: Mapping[int, float] | None = None,
) -> None:
    """Make a layer smaller, in place: `remake` its circuit, drop what no measurement can see and the weights that
    nothing depends on any more. The others keep their values.

    Raises:
        CircuitError: the layer is a QNode that runs itself.
    """
    circuit = layer.circuit
    circuit = remake(circuit, circuit.program.ops if ops is None else ops, sums=sums, inputs=inputs, weights=weights)
    circuit = drop_ops(circuit, ())
    values = flat_values(layer)
    values = values[[p for p in range(len(values)) if p not in (weights or {})]]
    unused = dict.fromkeys(set(range(len(values))) - used(circuit)[1], 0.0)
    if unused:
        circuit = remake(circuit, circuit.program.ops, weights=unused)
        values = values[[p for p in range(len(values)) if p not in unused]]
    layer.set_circuit(circuit, split(circuit, values))


def flat_values(layer: QuantumLayer) -> Tensor:
    """All weights (P,) of a layer, in float64 and outside of autograd; `split` gives them back their shapes."""
    return layer.flat_weights(torch.zeros(0, dtype=torch.float64)).detach()

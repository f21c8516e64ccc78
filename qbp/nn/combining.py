"""Layers whose outputs are made of what their circuits measure; see `qbp.circuit.combination`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qbp.circuit.combination import Combination
from qbp.circuit.tracing import Circuit
from qbp.errors import CircuitError
from qbp.executors import capabilities_of
from qbp.gradients.autograd import ErrorBars

__all__ = ["check_exact", "combined", "whole"]


def check_exact(executor: Any, circuit: Circuit) -> None:
    """Raise `CircuitError` where a variance would be computed of values that are sampled: too small on average."""
    combination = circuit.combination
    if combination is not None and combination.has_squares and _samples(executor):
        raise CircuitError(
            f"A variance needs exact expectation values, and {executor.name!r} samples them: it would be too small on "
            "average. Let a QNode with shots run itself, or measure the observable and its square"
        )


def _samples(executor: Any) -> bool:
    """Whether outputs are means of random numbers; one that is not exact may have noise, or cut words."""
    able = capabilities_of(executor)
    is_simulator = able.exact or able.truncation or (able.adjoint and not able.standard_errors)
    return not is_simulator or able.shots is not None


def whole(circuit: Circuit) -> Circuit:
    """A circuit that is all that its layer computes."""
    if circuit.combination is not None:
        raise CircuitError(
            "The outputs of this layer are made of what its circuit measures (a variance, or an observable whose "
            "coefficients train): the circuit alone is not what it computes. It is `layer.traced`"
        )
    return circuit


def combined(combination: Combination, values: Tensor, inputs: Tensor, weights: Tensor, errors: ErrorBars) -> Tensor:
    """The outputs (B, M) of measured values (B, W), inputs (B, I) and weights (P,).

    The errors of the values become those of the outputs, at most; those of gradients are not known.
    """
    errors.source, inputs = None, inputs.real if inputs.is_complex() else inputs
    for name in ("stds", "truncation"):
        error = getattr(errors, name)
        if error is not None:
            with torch.no_grad():
                setattr(errors, name, combination.errors(values, error.to(values), inputs, weights))
    return combination(values, inputs, weights)

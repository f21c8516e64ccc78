"""The classical twin of a trained model: its circuits as plain torch, exact or with words left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qbp.errors import ArgumentError, QbpError
from qbp.nn.classical import ClassicalTwin
from qbp.nn.copying import copied
from qbp.nn.flow import exact_copy
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import spared

__all__ = ["TWIN", "has_twin", "truncation_of", "twin_of"]

TWIN = "classical_twin"

MOST_WORDS = 1_000_000
"""Values of words that each circuit may have, as `max_words` counts them; where there are more, words are left out."""

MOST_VALUES = 50_000
"""Those of them that a twin computes of each row."""

CUTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"min_coefficient": 1e-3},
    {"min_coefficient": 3e-3},
    {"min_coefficient": 1e-2},
    {"min_coefficient": 3e-2},
    {"min_coefficient": 1e-1},
    {"max_sines": 4},
    {"max_sines": 2},
    {"max_sines": 0},
)
"""Which words are left out, as few as will do."""

ROWS = 64
"""Rows on which the error of what is left out is measured."""


def twin_of(model: nn.Module, x: Tensor) -> nn.Module:
    """The model with each quantum layer as the plain torch module that computes the same.

    Args:
        model: trained, (B, I) -> (B, n_classes).
        x: (B, I) rows that it was trained on; on some the error of what is left out is measured.

    Raises:
        QbpError: a circuit has no twin: it starts from amplitudes, has the noise of a device or angles that are no
            affine functions of its inputs, or runs itself.
    """
    layers = _layers(model)
    inputs: list[Tensor] = []

    def rows_of(k: int) -> Tensor:
        if not inputs:
            inputs.extend(_inputs(model, x[:ROWS]))
        return inputs[k]

    twins = {id(layer): _twin(layer, partial(rows_of, k)) for k, layer in enumerate(layers)}
    twin: nn.Module = copied(model, twins)
    return twin


def _layers(model: nn.Module) -> list[QuantumLayer]:
    return [module for module in model.modules() if isinstance(module, QuantumLayer)]


def _inputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What each quantum layer is given, (B, I), where the model is given `x`; no device is asked."""
    exact = exact_copy(model)
    seen: list[list[Tensor]] = [[] for _ in _layers(exact)]
    for layer, own in zip(_layers(exact), seen, strict=True):
        layer.register_forward_pre_hook(lambda _, given, own=own: own.append(given[0].reshape(-1, given[0].shape[-1])))
    with torch.no_grad(), spared(exact):
        exact(x)
    return [torch.cat(own)[:ROWS] if own else x.new_zeros(1, 0) for own in seen]


def _twin(layer: QuantumLayer, rows: Callable[[], Tensor]) -> ClassicalTwin:
    first: QbpError | None = None
    for cut in CUTS:
        try:
            twin = layer.to_classical(rows() if cut else None, max_words=MOST_WORDS, **cut)
        except ArgumentError as error:
            first = first or error
            continue
        if twin.n_words <= MOST_VALUES:
            return twin
    raise first or ArgumentError(f"A classical twin has at most {MOST_VALUES:,} values a row")


def has_twin(model: nn.Module, n_inputs: int) -> bool:
    """Whether a model has circuits, each with a twin."""
    if not _layers(model):
        return False
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    try:
        twin_of(model, like.new_full((2, n_inputs), max(1, n_inputs) ** -0.5))
    except QbpError:
        return False
    return True


def truncation_of(model: nn.Module) -> float:
    """How far an output of a twin's circuits may be off; 0 where all are exact."""
    errors = [float(m.truncation.max()) for m in model.modules() if isinstance(m, ClassicalTwin)]
    return max(errors, default=0.0)

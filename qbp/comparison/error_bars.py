"""What the errors of a circuit's outputs make of a score: those of shots, and those of what was left out.

They are not alike. Shots err at random, anew for each row and seed: what they put into a score is part of its spread
over seeds already, which every test and interval counts; to add it again would count it twice. What a simulation leaves
out (`qbp.executors.Results.truncation`) errs the same way each time, and no mean makes it smaller: by that every
interval has to be widened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbp.nn.replay import Call, Record, redrawn, replayed
from qbp.nn.seeding import seeded

__all__ = ["ErrorBars", "error_bars", "over_seeds"]

REPEATS = 50
"""How often outputs are drawn again."""


class ErrorBars(NamedTuple):
    """Of a score.

    Attributes:
        error: its standard error by the shots of the outputs; 0 where they are exact.
        bias: how far what was left out may have moved it; 0 where nothing was.
    """

    error: float = 0.0
    bias: float = 0.0


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> ErrorBars:
    """Of a model's seeds the root mean square of the errors of its scores, and the mean of what may have moved them.

    Args:
        rows: of a comparison, with `score_error` and `score_bias`.
    """
    errors = [(row.get("score_error") or 0.0) ** 2 for row in rows]
    biases = [row.get("score_bias") or 0.0 for row in rows]
    return ErrorBars(float(np.sqrt(np.mean(errors))), float(np.mean(biases)))


def error_bars(
    model: nn.Module,
    records: Sequence[Record],
    y: Tensor,
    outputs: Callable[[], Tensor],
    score: Callable[[Tensor], float | None],
    seed: int,
) -> ErrorBars:
    """What a score would be with other outputs of the circuits, of which none runs again.

    The error is the standard deviation of the score where the circuits' outputs are drawn again with their standard
    errors. For the bias each output of each row is moved by the whole of its error, to where that row's loss rises, and
    to where it falls: the larger of both changes of the score. That is the worst there can be where a linear layer
    follows and there are two classes or one target, and its first order elsewhere. Where one circuit feeds another,
    only what the latter's own outputs do is seen.

    Args:
        model: in evaluation mode.
        records: of `qbp.nn.replay.recorded`, of the rows that are scored.
        y: their labels (n,) or targets (n, T).
        outputs: runs the model on these rows: (n, M).
        score: of such outputs; None where there is none.
        seed: of the draws.
    """
    calls = [call for record in records for call in record]
    error = bias = 0.0
    if any(call.stds is not None and bool(call.stds.any()) for call in calls):
        with seeded(seed, model):
            draws = [_with(model, records, redrawn, outputs, score) for _ in range(REPEATS)]
        scores = [value for value in draws if value is not None]
        error = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    if any(call.truncation is not None and bool(call.truncation.any()) for call in calls):
        told = _with(model, records, lambda call: call.outputs, outputs, score)
        slopes = _slopes(model, records, y, outputs)
        moved = [_with(model, records, _Moved(slopes, sign), outputs, score) for sign in (-1, 1)]
        bias = max((abs(value - told) for value in moved if value is not None and told is not None), default=0.0)
    return ErrorBars(error, bias)


def _with(
    model: nn.Module,
    records: Sequence[Record],
    change: Callable[[Call], Tensor],
    outputs: Callable[[], Tensor],
    score: Callable[[Tensor], float | None],
) -> float | None:
    with torch.no_grad(), replayed(model, records, change):
        return score(outputs())


def _slopes(model: nn.Module, records: Sequence[Record], y: Tensor, outputs: Callable[[], Tensor]) -> dict[int, Tensor]:
    """How each call's outputs raise the loss of their rows, by the call's id."""
    leaves: dict[int, Tensor] = {}

    def leaf(call: Call) -> Tensor:
        leaves[id(call)] = call.outputs.clone().requires_grad_(True)
        return leaves[id(call)]

    with torch.enable_grad(), replayed(model, records, leaf):
        given = outputs()
        loss = (
            F.mse_loss(given, y.to(given), reduction="sum")
            if y.is_floating_point()
            else F.cross_entropy(given, y.to(given.device), reduction="sum")
        )
        slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, slopes, strict=True))


class _Moved:
    """The outputs of a call, moved by the whole of their error along a slope or against it."""

    def __init__(self, slopes: dict[int, Tensor], sign: int) -> None:
        self.slopes, self.sign = slopes, sign

    def __call__(self, call: Call) -> Tensor:
        if call.truncation is None:
            return call.outputs
        reach = call.truncation.reshape(call.outputs.shape).to(call.outputs)
        return call.outputs + self.sign * reach * self.slopes[id(call)].sign()

"""What forbids a verdict, or has to be said beside it: leaks, rivals that are none, classes that drown the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qbp.comparison.error_bars import over_seeds
from qbp.comparison.scores import amount

__all__ = ["Gates", "gates_of", "share_known"]

Row = dict[str, Any]

LEAK = 0.05
"""Share of test rows that are also training rows from which nothing is decided."""

CONVERGED = 0.5
"""Share of a rival's trainings that have to have converged, for it to be beaten."""

IMBALANCE = 0.8
"""Share of the most frequent class from which accuracy alone says little."""

SAME = 2e-7
"""Standard deviations of a feature, beside the rounding of single precision, within which two rows hold the same."""

LARGE = 20.0
"""A feature's mean or standard deviation beyond which a model that does not scale it cannot be expected to learn."""


@dataclass(frozen=True)
class Gates:
    """Of one data set.

    Attributes:
        leak: why nothing at all can be decided, or None.
        weak: for each model why beating it shows nothing.
        notes: for each subject what its summaries have to say besides.
    """

    leak: str | None
    weak: Mapping[str, str]
    notes: Mapping[str, Sequence[str]]


def share_known(train: np.ndarray, test: np.ndarray) -> float:
    """The share of the rows of `test` (n, ...) that are rows of `train` (m, ...) too, but for rounding.

    Both are laid along one line, on which rows that are the same are neighbours.
    """
    train_rows = np.unique(train.reshape(len(train), -1).astype(np.float64), axis=0)
    rows = test.reshape(len(test), -1).astype(np.float64)
    scale = SAME * train.reshape(len(train), -1).std(0) + 1e-30
    rounding = 2 * float(np.finfo(np.float32).eps)
    same = scale + rounding * abs(rows)
    direction = np.random.default_rng(0).standard_normal(rows.shape[1]) / same.max(0)
    line = train_rows @ direction
    order = np.argsort(line)
    width = 2.0 * abs(direction * same.max(0)).sum()
    n_shared = 0
    ordered, places = line[order], rows @ direction
    lows, highs = np.searchsorted(ordered, places - width), np.searchsorted(ordered, places + width)
    for row, near, low, high in zip(rows, same, lows, highs, strict=True):
        n_shared += bool((abs(train_rows[order[low:high]] - row) <= near).all(1).any())
    return n_shared / len(rows)


def gates_of(rows: Sequence[Row], metric: str, twins: Sequence[Row] = ()) -> Gates:
    """Look for what the scores of one data set do not show.

    Args:
        rows: of all models and seeds, trained on all rows.
        metric: the score that is compared.
        twins: of the subjects' classical twins.

    Returns:
        The gates and notes.
    """
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    overlap = float(np.mean([row["overlap"] for row in rows]))
    shared = f"{overlap:.0%} of the test rows are also training rows" if overlap >= 0.005 else None
    weak = {model: why for model, own in by_model.items() if (why := _weakness(own))}
    notes: dict[str, list[str]] = {}
    for model, own in by_model.items():
        if own[0]["role"] == "subject":
            of_twin = _twin([row for row in twins if row["subject"] == model])
            said = [shared, _imbalance(own, metric), _scale(model, own), _unconverged(model, own)]
            said += [*_errors(model, own, metric), of_twin]
            notes[model] = [note for note in said if note]
    return Gates(shared if overlap >= LEAK else None, weak, notes)


def _weakness(rows: Sequence[Row]) -> str | None:
    role = rows[0]["role"]
    converged = sum(row["converged"] for row in rows)
    if role != "noise" and converged < CONVERGED * len(rows):  # a placebo has nowhere to converge to
        return f"only {converged} of {len(rows)} trainings of {role} had converged: train longer"
    if role == "matched_parameters" and rows[0].get("narrowest") == 1:
        return f"{role} has a layer of one neuron, as a model of so few parameters has no better twin"
    return None


def _unconverged(model: str, rows: Sequence[Row]) -> str | None:
    converged = sum(row["converged"] for row in rows)
    if converged == len(rows):
        return None
    return f"{len(rows) - converged} of {len(rows)} trainings of {model} had not converged"


def _imbalance(rows: Sequence[Row], metric: str) -> str | None:
    if metric != "accuracy":
        return None
    counts = np.sum([np.sum(json.loads(row["confusion"]), 1) for row in rows], 0)
    share = float(counts.max() / counts.sum())
    if share < IMBALANCE:
        return None
    return f"{share:.0%} of the test rows are of one class, so that accuracy says little: compare by balanced_accuracy"


def _scale(model: str, rows: Sequence[Row]) -> str | None:
    scale = max(row.get("feature_scale") or 0.0 for row in rows)
    if scale <= LARGE:
        return None
    return f"{model} was given its data as they are, as large as {scale:.3g}, its rivals scaled ones: scale the data"


def _errors(model: str, rows: Sequence[Row], metric: str) -> Iterator[str]:
    """What the errors of the outputs of circuits are in the scores of a model."""
    error, bias = over_seeds(rows)
    if error:
        yield f"shots put a standard error of {amount(error, metric)} into each score of {model}, part of its spread"
    if bias:
        yield (
            f"what the simulation of its circuits leaves out may have moved the scores of {model} by up to "
            f"{amount(bias, metric)}, by which intervals are widened"
        )


def _twin(rows: Sequence[Row]) -> str | None:
    if not rows:
        return None
    total = sum(row["n_test"] for row in rows)
    same = round(sum(row["n_test"] * row["same_labels"] for row in rows))
    off = max(row["truncation"] for row in rows)
    how = "exact" if off == 0 else f"words left out, outputs off by up to {off:.2g}"
    labels = "all" if same == total else f"{same} of"
    what = "the same label" if rows[0].get("accuracy") is not None else "the same value"
    return f"its classical twin, plain torch without quantum code ({how}), gives {what} on {labels} {total} rows"

"""Scores: how good predictions are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from qbp.training.metrics import calibration_error

__all__ = ["SCORES", "scores_of"]


def _accuracy(y: np.ndarray, predicted: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    return float(np.mean(y == predicted))


def _balanced(y: np.ndarray, predicted: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    from sklearn.metrics import recall_score

    return float(recall_score(y, predicted, average="macro", labels=np.unique(y)))


def _f1(y: np.ndarray, predicted: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(y, predicted, average="macro", zero_division=0))


def _auc(y: np.ndarray, predicted: np.ndarray, decision: np.ndarray, n_classes: int) -> float | None:
    from sklearn.metrics import roc_auc_score

    if len(np.unique(y)) != n_classes:
        return None
    if n_classes == 2:
        return float(roc_auc_score(y, decision[:, 1] if decision.ndim == 2 else decision))
    # by class, as what a support vector machine returns is no probability
    return float(roc_auc_score(np.eye(n_classes)[y], decision, average="macro"))


# name -> (labels, predicted labels, what ranks the rows, number of classes) -> score
SCORES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], float | None]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced,
    "f1": _f1,
    "auc": _auc,
}


def scores_of(
    y: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, decision: np.ndarray, n_classes: int
) -> dict[str, Any]:
    """The scores of a row."""
    from sklearn import metrics

    labels = list(range(n_classes))
    scores = {name: score(y, predicted, decision, n_classes) for name, score in SCORES.items()}
    losses: dict[str, float | None] = dict.fromkeys(("log_loss", "brier", "ece"))
    if probabilities is not None:
        losses["log_loss"] = float(metrics.log_loss(y, probabilities, labels=labels))
        losses["brier"] = float(((probabilities - np.eye(n_classes)[y]) ** 2).sum(1).mean())
        losses["ece"] = calibration_error(y, probabilities)
    auc = scores.pop("auc")
    confusion = metrics.confusion_matrix(y, predicted, labels=labels)
    return {**scores, **losses, "auc": auc, "confusion": json.dumps(confusion.tolist())}

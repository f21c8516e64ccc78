"""Scores: how good predictions are, and what is wrong in a table of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qbp.training.metrics import calibration_error

__all__ = [
    "ERRORS",
    "METRICS",
    "SCORES",
    "TARGET_METRICS",
    "amount",
    "check_scores",
    "default_metric",
    "region",
    "scores_of",
    "sign_of",
]

LABEL_METRICS = ("accuracy", "balanced_accuracy", "f1", "auc")
TARGET_METRICS = ("r2", "rmse", "mae")
METRICS = (*LABEL_METRICS, *TARGET_METRICS)
ERRORS = ("rmse", "mae")
"""Metrics of which less is better."""


def sign_of(metric: str) -> int:
    """By what a metric is multiplied for more to be better: -1 for an error, 1 for the others."""
    return -1 if metric in ERRORS else 1


def amount(size: float, metric: str) -> str:
    """Write the size of a difference of scores: in points, of an error as it is.

    Example:
        >>> amount(0.021, "accuracy"), amount(0.021, "rmse")
        ('2.1 points', '0.021')
    """
    return f"{size:.3g}" if metric in ERRORS else f"{100 * size:.1f} points"


def region(rope: float, metric: str) -> str:
    """Write the half width of the region of practical equivalence.

    Example:
        >>> region(0.01, "accuracy"), region(0.01, "rmse")
        ('1 point(s)', '0.01')
    """
    return f"{rope:g}" if metric in ERRORS else f"{100 * rope:g} point(s)"


def default_metric(n_classes: int | None) -> str:
    """What models are compared by where nothing is said: accuracy of labels, r2 of targets."""
    return "accuracy" if n_classes else "r2"


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


def _r2(y: np.ndarray, predicted: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    from sklearn.metrics import r2_score

    return float(r2_score(y, predicted))


def _rmse(y: np.ndarray, predicted: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(y, predicted))


def _mae(y: np.ndarray, predicted: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(y, predicted))


# Of labels: name -> (labels, predicted labels, what ranks the rows, number of classes) -> score; of
# targets (n, T): (targets, predictions, the same, 0) -> score, the mean over columns.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], float | None]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced,
    "f1": _f1,
    "auc": _auc,
    "r2": _r2,
    "rmse": _rmse,
    "mae": _mae,
}


def scores_of(
    y: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, decision: np.ndarray, n_classes: int
) -> dict[str, Any]:
    """The scores of a row: those of labels, or of targets where there are no classes."""
    from sklearn import metrics

    names = LABEL_METRICS if n_classes else TARGET_METRICS
    scores = {name: SCORES[name](y, predicted, decision, n_classes) for name in names}
    if not n_classes:
        return scores
    labels = list(range(n_classes))
    losses: dict[str, float | None] = dict.fromkeys(("log_loss", "brier", "ece"))
    if probabilities is not None:
        losses["log_loss"] = float(metrics.log_loss(y, probabilities, labels=labels))
        losses["brier"] = float(((probabilities - np.eye(n_classes)[y]) ** 2).sum(1).mean())
        losses["ece"] = calibration_error(y, probabilities)
    auc = scores.pop("auc")
    confusion = metrics.confusion_matrix(y, predicted, labels=labels)
    return {**scores, **losses, "auc": auc, "confusion": json.dumps(confusion.tolist())}


def check_scores(
    test: Sequence[float],
    n_test: int,
    *,
    train: Sequence[float] | None = None,
    n_train: int | None = None,
    digits: int = 12,
) -> list[str]:
    """Say what gives accuracies away that are not what they are called.

    An accuracy on `n_test` rows is a whole number of them. Test accuracies that no number of test rows gives, but some
    number of train rows, or that equal the train accuracies seed by seed below 1, were taken on the train part.

    Args:
        test: (n,) accuracies, seed by seed.
        n_test: rows of the test part.
        train, n_train: the same of the train part, where known.
        digits: decimals that the accuracies are given with.

    Returns:
        What is wrong, a sentence each; empty where nothing is.

    Example:
        >>> check_scores([0.85, 0.9], 60)
        []
        >>> check_scores([0.9916667], 60, n_train=240, digits=7)
        ['0.9916667 is no share of 60 rows, but one of 240: it was taken on the train part']
    """

    def is_share(value: float, n: int) -> bool:
        return abs(value * n - round(value * n)) <= n * 10.0**-digits

    wrong = []
    for value in dict.fromkeys(test):
        if not is_share(value, n_test):
            of_train = n_train is not None and is_share(value, n_train)
            said = f", but one of {n_train}: it was taken on the train part" if of_train else ""
            wrong.append(f"{value:.{digits}g} is no share of {n_test} rows{said}")
    close = 2 * 10.0**-digits
    if train is not None and len(train) == len(test) and min(test) < 1 and np.allclose(train, test, rtol=0, atol=close):
        wrong.append(f"all {len(test)} test accuracies are the train accuracies")
    return wrong

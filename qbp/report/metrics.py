"""How scores and their differences are written."""

from __future__ import annotations

import math

from qbp.comparison.scores import ERRORS, TARGET_METRICS
from qbp.report import parts
from qbp.report.document import number, percent

__all__ = ["gain", "limits", "region", "score", "scores_beside", "tick", "tick_of_gain", "unit"]

BESIDE = {"balanced_accuracy": "balanced", "f1": "F1", "log_loss": "log loss", "ece": "ECE"}
TITLES = {"r2": "R2", "rmse": "RMSE", "mae": "MAE"}


def score(value: float | None, metric: str) -> str:
    """Write a score: shares as percent, those of targets as they are.

    Example:
        >>> score(0.913, "accuracy"), score(0.4721, "r2")
        ('91.3 %', '0.472')
    """
    if metric in TARGET_METRICS:
        return "-" if value is None else f"{value:.3f}"
    return percent(value)


def gain(difference: float, metric: str) -> str:
    """Write a difference, positive where it is for the better: in points, of an error as it is.

    Example:
        >>> gain(0.021, "r2"), gain(0.021, "rmse")
        ('+2.1', '+0.021')
    """
    return f"{difference + 0.0:+.3g}" if metric in ERRORS else parts.points(difference)


def unit(metric: str) -> str:
    """What `gain` is in."""
    return f"{TITLES[metric]} lower by" if metric in ERRORS else "points"


def region(rope: float, metric: str) -> str:
    """Write the half width of the region of practical equivalence."""
    return f"{rope:g}" if metric in ERRORS else parts.within(rope)


def tick(value: float, metric: str) -> str:
    """Write a round score at an axis."""
    return number(round(value, 8)) if metric in TARGET_METRICS else parts.whole_percent(value)


def tick_of_gain(value: float, metric: str) -> str:
    """Write a round difference at an axis."""
    return f"{round(value, 8) + 0.0:+g}" if metric in ERRORS else parts.whole_points(value)


def limits(metric: str) -> tuple[float, float]:
    """Between what a metric can lie.

    Example:
        >>> limits("r2"), limits("accuracy")
        ((-inf, 1.0), (0.0, 1.0))
    """
    return -math.inf if metric == "r2" else 0.0, math.inf if metric in ERRORS else 1.0


def scores_beside(metric: str) -> dict[str, str]:
    """The columns of other scores that stand beside the one that is compared, with their titles."""
    return {key: title for key, title in TITLES.items() if key != metric} if metric in TARGET_METRICS else BESIDE

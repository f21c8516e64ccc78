"""Over many data sets, and over many sizes of one: who is ahead, and how much it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qbp.comparison.statistics import holm
from qbp.errors import ArgumentError

__all__ = ["expected_best", "over_datasets", "rank", "sample_complexity"]


def rank(scores: Mapping[str, Sequence[float]], alpha: float = 0.05) -> dict[str, Any]:
    """Rank models over data sets: Friedman's test, and Nemenyi's critical difference (Demsar, JMLR 7, 1, 2006).

    Two models differ where their mean ranks lie further apart than ``q sqrt(k (k + 1) / 6 N)``.

    Args:
        scores: for each model its scores (N,) on the same data sets, larger is better.
        alpha: level of the tests.

    Returns:
        `models` from best to worst, their `mean_ranks`, `critical_difference`, Friedman's `statistic` and `p`, and `n`.

    Raises:
        ArgumentError: fewer than three models or two data sets.

    Example:
        >>> ranks = rank({"a": [0.9, 0.8, 0.9], "b": [0.8, 0.7, 0.8], "c": [0.7, 0.6, 0.7]})
        >>> ranks["models"], ranks["mean_ranks"]
        (['a', 'b', 'c'], [1.0, 2.0, 3.0])
    """
    from scipy import stats

    names, table = list(scores), np.array(list(scores.values()), dtype=np.float64)
    if table.ndim != 2 or len(names) < 3 or table.shape[1] < 2:
        raise ArgumentError(
            f"Argument `scores` must be of 3 models or more on 2 data sets or more, but is {table.shape}"
        )
    k, n = table.shape
    mean_ranks = stats.rankdata(-table, axis=0).mean(1)
    q = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    statistic, p = stats.friedmanchisquare(*table) if np.ptp(table, axis=0).any() else (0.0, 1.0)
    order = np.argsort(mean_ranks, kind="stable")
    return {
        "models": [names[i] for i in order],
        "mean_ranks": [float(mean_ranks[i]) for i in order],
        "critical_difference": q * math.sqrt(k * (k + 1) / (6 * n)),
        "statistic": float(statistic),
        "p": float(p),
        "n": n,
    }


def sample_complexity(
    scores: Mapping[int, Sequence[float]], target: float, alpha: float = 0.05
) -> dict[str, float | None]:
    """Return how many rows a model needs to train on, for a mean score of `target`.

    Args:
        scores: for each number of rows the scores (n,), seed by seed.
        target: the score to reach.
        alpha: level of the interval, which comes from resampling the seeds (percentile bootstrap).

    Returns:
        `n_needed`, the smallest number with that mean, `low` and `high`; None where no number reaches it.

    Example:
        >>> sample_complexity({16: [0.6, 0.7, 0.6], 64: [0.8, 0.9, 0.9], 256: [0.9, 0.9, 0.9]}, target=0.8)
        {'n_needed': 64.0, 'low': 64.0, 'high': 64.0}
    """
    from scipy import stats

    sizes = sorted(scores)
    table = np.array([scores[size] for size in sizes], dtype=np.float64)  # (sizes, seeds)

    def needed(seeds: np.ndarray) -> float:
        reached = np.flatnonzero(table[:, seeds].mean(1) >= target - 1e-12)
        return float(sizes[reached[0]]) if len(reached) else 2.0 * sizes[-1]  # more than there are

    seeds = np.arange(table.shape[1])
    sizes_needed = [needed(seeds)]
    if len(seeds) > 1:
        options: dict[str, Any] = {"vectorized": False, "method": "percentile", "n_resamples": 999, "rng": 0}
        interval = stats.bootstrap((seeds,), needed, confidence_level=1 - alpha, **options).confidence_interval
        sizes_needed += [interval.low, interval.high]
    else:
        sizes_needed *= 3
    reached = [float(value) if value <= sizes[-1] else None for value in sizes_needed]
    return dict(zip(("n_needed", "low", "high"), reached, strict=True))


def over_datasets(scores: Mapping[str, Sequence[float]], subject: str, rivals: Sequence[str]) -> list[dict[str, Any]]:
    """Compare a model with others over data sets: Wilcoxon's signed-rank test, as Demsar advises (JMLR 7, 1, 2006).

    Data sets without a difference are split between both sides (Pratt, JASA 54, 655, 1959).

    Args:
        scores: for each model its scores (N,) on the same data sets, larger is better.
        subject: the model.
        rivals: the others.

    Returns:
        For each rival `subject`, `rival`, `n` (data sets), `difference` (median), `wins`, `p` and `p_adjusted` (Holm).

    Example:
        >>> scores = {"a": [0.91, 0.82, 0.93, 0.84, 0.95, 0.86], "b": [0.9, 0.8, 0.9, 0.8, 0.9, 0.8]}
        >>> over_datasets(scores, "a", ["b"])[0]["p"]
        0.03125
    """
    from scipy import stats

    rows: list[dict[str, Any]] = []
    for rival in rivals:
        d = np.asarray(scores[subject], dtype=np.float64) - np.asarray(scores[rival], dtype=np.float64)
        p = float(stats.wilcoxon(d, zero_method="pratt").pvalue) if d.any() else 1.0
        wins = float((np.sign(d) + 1).mean() / 2)
        about = {"subject": subject, "rival": rival, "n": len(d), "difference": float(np.median(d))}
        rows.append({**about, "wins": wins, "p": p})
    adjusted = holm([row["p"] for row in rows])
    return [{**row, "p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]


def expected_best(scores: Sequence[float]) -> list[float]:
    """Return the best score to be expected of 1, 2... n configurations that are drawn from n that were tried.

    ``sum_i v_(i) ((i / n)^k - ((i - 1) / n)^k)``: Dodge et al., arXiv 1909.03004, equation 7.

    Args:
        scores: (n,) validation scores of the configurations, larger is better.

    Returns:
        (n,) expectations; the first is the mean.

    Example:
        >>> expected_best([0.5, 0.9])
        [0.7, 0.8]
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(values)
    below = np.arange(n + 1) / n
    return [float(values @ np.diff(below**k)) for k in range(1, n + 1)]

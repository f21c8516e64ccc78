"""How many seeds a comparison needs, told from a few: planned before the run, for a difference that would matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qbp.comparison.controls import model_behind
from qbp.comparison.statistics import FEWEST_PAIRS, smallest
from qbp.comparison.twins import TWIN
from qbp.errors import ArgumentError, check_positive, check_share

if TYPE_CHECKING:
    from qbp.comparison.comparing import Comparison

__all__ = ["plan", "seeds_needed"]

MOST_SEEDS = 2**14
N_DEVIATIONS = 200
"""Standard deviations that a pilot leaves possible over which the power is averaged."""

_BEYOND = 35.0  # a noncentrality at which a test surely rejects, and scipy's distribution overflows


def seeds_needed(
    pilot: Sequence[float],
    difference: float,
    *,
    test_share: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Return how many seeds find a true difference with a given probability.

    A pilot of few seeds tells the standard deviation badly: taken as it is, five seeds make a plan that reaches 0.68
    where 0.8 was wanted. So the power is averaged over the standard deviations that the pilot leaves possible, ``s
    sqrt((m - 1) / chi^2_(m - 1))`` (its fiducial distribution; the "assurance" of O'Hagan et al., Pharmaceutical
    Statistics 4, 187, 2005), which simulation confirms (`tests/comparison/test_power.py`).

    Args:
        pilot: (m,) paired differences, seed by seed, m >= 3.
        difference: the true mean difference to find, in the unit of the pilot.
        test_share: n_test / n_train where seeds are splits of one data set, tested with the variance of Nadeau and
            Bengio; None for new data in each.
        alpha: level of the two-sided test.
        power: probability to find it.

    Returns:
        The smallest number of seeds, at least 6; None where no number of splits of the same data would do.

    Raises:
        ArgumentError: an argument is wrong.

    Example:
        >>> seeds_needed([0.01, 0.03, -0.01, 0.02, 0.0], difference=0.02)
        10
    """
    from scipy import stats

    d = np.asarray(pilot, dtype=np.float64)
    if d.ndim != 1 or len(d) < 3 or not np.isfinite(d).all():
        raise ArgumentError(f"Argument `pilot` must be 3 finite differences or more, but is of shape {d.shape}")
    check_positive("difference", difference)
    check_share("alpha", alpha)
    check_share("power", power)
    deviation = float(d.std(ddof=1))
    if deviation <= 1e-12:
        return FEWEST_PAIRS
    quantiles = (np.arange(N_DEVIATIONS) + 0.5) / N_DEVIATIONS
    effects = difference / (deviation * np.sqrt((len(d) - 1) / stats.chi2.ppf(quantiles, len(d) - 1)))

    def reached(n: int) -> bool:
        shift = effects / math.sqrt(1 / n + (test_share or 0.0))
        threshold = stats.t.ppf(1 - alpha / 2, n - 1)
        chances = stats.nct.sf(threshold, n - 1, np.minimum(shift, _BEYOND))
        return bool(np.where(shift < _BEYOND, chances, 1.0).mean() >= power)

    return smallest(reached, FEWEST_PAIRS, MOST_SEEDS)


def plan(pilot: Comparison, difference: float, *, power: float = 0.8, workers: int = 1) -> list[dict[str, Any]]:
    """Plan a comparison from a small one: seeds and hours to find a difference from each control.

    Args:
        pilot: a finished comparison, of five seeds or so, with the models, data and training that are planned.
        difference: what would matter, in the unit of the metric.
        power: probability to find it where it is there.
        workers: processes.

    Returns:
        For each data set, subject and control `dataset`, `subject`, `control`, `difference` (the pilot's mean),
        `deviation` (of the differences), `seeds` (None where no number would do) and `hours` (of all models).

    Raises:
        ArgumentError: the pilot is not finished, or has a test set of the user's own, where rows are the pairs.
    """
    alpha = (pilot.config or {}).get("alpha", 0.05)
    metric = (pilot.config or {}).get("metric", "accuracy")
    rows = [row for row in pilot.verdicts if row["control"] not in ("circuit", "all", TWIN)]
    if not rows:
        raise ArgumentError("Argument `pilot` must be a finished comparison, but has no verdicts")
    if any(row["test"].startswith("McNemar") for row in rows):
        raise ArgumentError(
            "Argument `pilot` must draw or split its data anew for each seed: on a test set of your own each row is a "
            "pair, and more seeds find nothing more"
        )
    n_seeds = len({row["seed"] for row in pilot.rows})
    seconds = sum((row["train_seconds"] or 0) + (row["tune_seconds"] or 0) for row in pilot.rows) / n_seeds
    models = set(pilot.column("model"))
    plans: list[dict[str, Any]] = []
    for row in rows:
        ours, theirs = (
            _scores(pilot, row["dataset"], name, metric)
            for name in (row["subject"], model_behind(row["control"], row["subject"], models))
        )
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        beyond = difference - (row.get("bias") or 0.0)  # what the simulation of circuits leaves out hides the rest
        seeds = None
        if beyond > 0:
            seeds = seeds_needed(differences, beyond, test_share=row["test_share"], alpha=alpha, power=power)
        about = {key: row[key] for key in ("dataset", "subject", "control", "difference", "deviation")}
        plans.append({**about, "seeds": seeds, "hours": None if seeds is None else seeds * seconds / workers / 3600})
    return plans


def _scores(pilot: Comparison, dataset: str, model: str, metric: str) -> list[float]:
    """Scores seed by seed, trained on all rows."""
    rows = [row for row in pilot.rows if row["dataset"] == dataset and row["model"] == model]
    full = max(row["n_train"] for row in rows)
    return [row[metric] for row in sorted(rows, key=lambda row: row["seed"]) if row["n_train"] == full]

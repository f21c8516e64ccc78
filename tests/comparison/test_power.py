"""Planned numbers of seeds: against the exact power, against simulated comparisons, and from a pilot on disk."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qbp.comparison.power import plan, seeds_needed
from qbp.comparison.statistics import paired, verdict
from qbp.errors import ArgumentError

TRUE = 0.03  # a difference, with a standard deviation of as much


def pilot_of(deviation: float, m: int = 5) -> np.ndarray:
    """A pilot of m differences with a given standard deviation."""
    d = np.arange(m) - (m - 1) / 2
    return d / d.std(ddof=1) * deviation


def exact_power(n: int, effect: float) -> float:
    """Of the two-sided t-test for pairs, the side that counts."""
    threshold = stats.t.ppf(0.975, n - 1)
    return float(stats.nct.sf(threshold, n - 1, effect * np.sqrt(n)))


@pytest.mark.parametrize(("effect", "m", "power"), [(0.5, 5, 0.8), (0.5, 10, 0.8), (0.3, 5, 0.9)])
def test_plans_from_all_pilots_reach_the_power_together(effect: float, m: int, power: float):
    """Pilots at 25 quantiles of the deviation that m seeds show; a plan that takes it as it is falls short."""
    quantiles = (np.arange(25) + 0.5) / 25
    seen = np.sqrt(stats.chi2.ppf(quantiles, m - 1) / (m - 1))
    reached = [exact_power(seeds_needed(pilot_of(s, m), effect, power=power), effect) for s in seen]
    assert np.mean(reached) == pytest.approx(power, abs=0.05)
    if m == 5:
        from statsmodels.stats.power import TTestPower

        plain = [TTestPower().solve_power(effect / s, power=power, alpha=0.05) for s in seen]
        assert np.mean([exact_power(max(2, int(np.ceil(n))), effect) for n in plain]) < power - 0.07


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_1000_planned_comparisons_find_the_planned_difference(spread: float):
    rng, beaten = np.random.default_rng(0), 0
    for _ in range(1000):
        n = seeds_needed(TRUE + spread * TRUE * rng.normal(size=5), TRUE)
        a, b = TRUE + spread * TRUE * rng.normal(size=n), np.zeros(n)
        beaten += verdict(paired(a, b))[0] == "BEATS"
    assert beaten / 1000 == pytest.approx(0.8, abs=0.05)


def test_more_is_needed_for_less_and_splits_of_the_same_data_may_never_do():
    pilot = pilot_of(0.03)
    needed = [seeds_needed(pilot, difference) for difference in (0.06, 0.03, 0.01)]
    assert needed == sorted(needed) and needed[0] >= 6
    assert seeds_needed(pilot, 0.03, test_share=0.25) is None
    assert seeds_needed(np.full(5, 0.02), 0.01) == 6
    with pytest.raises(ArgumentError, match="`pilot` must be 3 finite"):
        seeds_needed([0.1, 0.2], 0.01)
    with pytest.raises(ArgumentError, match="`difference`"):
        seeds_needed(pilot, 0.0)


class Pilot:
    """A comparison in memory: two subjects and a control of all, five seeds; 3.6 seconds a seed."""

    def __init__(self, test: str = "paired t-test"):
        self.config = {"alpha": 0.05, "metric": "accuracy"}
        self.scores = {"a": [0.9, 0.92, 0.91, 0.95, 0.9], "a/frozen": [0.8] * 5, "svm_rbf": [0.9, 0.9, 0.9, 0.93, 0.92]}
        self.rows = [
            {"dataset": "moons", "model": name, "seed": k, "n_train": 50, "accuracy": score, "train_seconds": 0.2}
            | {"tune_seconds": 1.0}
            for name, scores in self.scores.items()
            for k, score in enumerate(scores)
        ]
        about = {"dataset": "moons", "subject": "a", "difference": 0.0, "deviation": 0.0, "test_share": None}
        self.verdicts = [{**about, "control": c, "test": test} for c in ("frozen", "svm_rbf", "all", "circuit")]

    def column(self, name: str) -> list:
        return [row[name] for row in self.rows]


def test_a_plan_takes_each_control_by_its_own_scores():
    rows = plan(Pilot(), 0.02, workers=2)
    assert [row["control"] for row in rows] == ["frozen", "svm_rbf"]
    scores = Pilot().scores
    for row, name in zip(rows, ("a/frozen", "svm_rbf"), strict=True):
        assert row["seeds"] == seeds_needed(np.subtract(scores["a"], scores[name]), 0.02)
        assert row["hours"] == pytest.approx(row["seeds"] * 3.6 / 2 / 3600)
    with pytest.raises(ArgumentError, match="draw or split its data anew"):
        plan(Pilot("McNemar's test on rows"), 0.02)

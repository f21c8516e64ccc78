"""Ranks over data sets, and what more rows and more configurations bring: against other packages and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qbp.comparison.ranks import expected_best, over_datasets, rank, sample_complexity
from qbp.errors import ArgumentError
from qbp.training.metrics import calibration_error


def test_ranks():
    rng = np.random.default_rng(0)
    means = np.array([0.9, 0.85, 0.8, 0.8, 0.7])
    table = means[:, None] + 0.02 * rng.normal(size=(5, 10))
    ranks = rank({name: row for name, row in zip("abcde", table, strict=True)})
    assert ranks["models"][0] == "a" and ranks["models"][-1] == "e" and ranks["p"] < 1e-4
    assert sum(ranks["mean_ranks"]) == pytest.approx(5 * 6 / 2)
    assert ranks["critical_difference"] == pytest.approx(1.929, abs=5e-4)  # k = 5, N = 10: q = 2.728 in Demsar's table
    with pytest.raises(ArgumentError):
        rank({"a": [0.1, 0.2], "b": [0.1, 0.2]})


def test_sample_complexity():
    scores = {16: [0.5, 0.6, 0.5, 0.6], 64: [0.7, 0.9, 0.7, 0.9], 256: [0.9, 0.9, 0.95, 0.9]}
    needs = sample_complexity(scores, 0.8)
    assert (needs["n_needed"], needs["low"], needs["high"]) == (64, 64, 256)
    assert sample_complexity(scores, 0.99)["n_needed"] is None


@pytest.mark.parametrize("cases", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_over_datasets_is_wilcoxon_with_holm(cases: int, monkeypatch):
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels' Holm collects garbage each time
    rng = np.random.default_rng(1)
    for k in range(cases):
        n = (5, 8, 20)[k % 3]
        scores = {name: np.round(rng.normal(0.8, 0.1, n), 1 + k % 2) for name in "abcd"}
        rows = over_datasets(scores, "a", ["b", "c", "d"])
        for row in rows:
            d = scores["a"] - scores[row["rival"]]
            assert row["p"] == (pytest.approx(stats.wilcoxon(d, zero_method="pratt").pvalue) if d.any() else 1.0)
            assert row["difference"] == pytest.approx(np.median(d)) and row["n"] == n
        assert [row["p_adjusted"] for row in rows] == pytest.approx(
            multipletests([row["p"] for row in rows], method="holm")[1]
        )


def test_ranks_are_those_of_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    rng = np.random.default_rng(2)
    for k in range(300):
        models, n = 3 + k % 4, (5, 10, 20)[k % 3]
        table = rng.normal(0.8, 0.05, (models, n)) + 0.03 * np.arange(models)[:, None]
        ranks = rank({str(i): row for i, row in enumerate(table)})
        p = posthocs.posthoc_nemenyi_friedman(table.T).to_numpy()
        for i, one in enumerate(ranks["models"]):
            for j, two in enumerate(ranks["models"][:i]):
                apart = abs(ranks["mean_ranks"][i] - ranks["mean_ranks"][j])
                assert (apart > ranks["critical_difference"]) == (p[int(one), int(two)] < 0.05)


def test_the_calibration_error_bin_by_bin():
    """Against the definition, a loop over bins; and calibrated answers have little of it."""
    rng = np.random.default_rng(4)
    for k in range(300):
        n, classes = int(rng.integers(1, 80)), 2 + k % 3
        p = rng.dirichlet(np.ones(classes), n)
        y = rng.integers(0, classes, n)
        want = 0.0
        for m in range(15):
            inside = (p.max(1) > m / 15) & (p.max(1) <= (m + 1) / 15)
            if inside.any():
                want += inside.sum() / n * abs((p.argmax(1) == y)[inside].mean() - p.max(1)[inside].mean())
        assert calibration_error(y, p) == pytest.approx(want)
    sure = rng.uniform(0.5, 1.0, 20_000)
    right = rng.random(20_000) < sure
    assert calibration_error(np.where(right, 0, 1), np.stack([sure, 1 - sure], 1)) < 0.02
    assert calibration_error(np.where(right, 0, 1), np.stack([0 * sure + 1, 0 * sure], 1)) == pytest.approx(
        0.25, abs=0.01
    )


def test_the_expected_best_of_drawn_configurations():
    rng = np.random.default_rng(3)
    values = rng.normal(0.8, 0.1, 6)
    expected = expected_best(values)
    assert expected[0] == pytest.approx(values.mean()) and sorted(expected) == expected and expected[-1] <= values.max()
    for k in (2, 5):
        drawn = rng.choice(values, (200_000, k)).max(1)
        assert expected[k - 1] == pytest.approx(drawn.mean(), abs=5 * drawn.std() / 200_000**0.5)

"""Statistics: against textbook figures and other packages, false alarms by simulation, and the rule of the verdict."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from qbp.comparison.scores import check_scores
from qbp.comparison.statistics import holm, mcnemar, paired, verdict
from qbp.errors import ArgumentError

RNG = np.random.default_rng(7)
A = 0.9 + 0.03 * RNG.normal(size=8)
B = A - 0.012 + 0.01 * RNG.normal(size=8)


def test_paired_on_fresh_data_is_the_t_test_with_sign_flips():
    from scipy import stats

    difference, d = paired(A, B), A - B
    t = d.mean() / (d.std(ddof=1) / math.sqrt(8))
    assert difference.p == pytest.approx(2 * stats.t.sf(abs(t), 7)) == pytest.approx(stats.ttest_rel(A, B).pvalue)
    reach = stats.t.ppf(0.975, 7) * d.std(ddof=1) / math.sqrt(8)
    assert (difference.low, difference.high) == pytest.approx((d.mean() - reach, d.mean() + reach))
    flips = [abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-12 for signs in product((-1, 1), repeat=8)]  # all 256 of them
    assert difference.p_sign_flip == pytest.approx(np.mean(flips))
    assert difference.effect == pytest.approx(d.mean() / d.std(ddof=1)) and difference.wins == np.mean(d > 0)


def test_paired_on_splits_of_one_data_set_is_nadeau_and_bengio():
    from scipy import stats

    difference, d = paired(A, B, test_share=0.25), A - B
    t = d.mean() / math.sqrt(d.var(ddof=1) * (1 / 8 + 0.25))  # their equation for the corrected variance
    assert difference.p == pytest.approx(2 * stats.t.sf(abs(t), 7)) and difference.p_sign_flip is None
    assert difference.p > paired(A, B).p and difference.high - difference.low > paired(A, B).high - paired(A, B).low
    # The limit of no test rows at all is the ordinary test; equivalence agrees with statsmodels' there.
    plain, limit = paired(A, B, rope=0.03), paired(A, B, rope=0.03, test_share=0.0)
    assert limit.p == pytest.approx(plain.p) and limit.p_equivalent == pytest.approx(plain.p_equivalent)


@pytest.mark.parametrize("n", [5, 6, 8, 10])
def test_attainable_p(n: int):
    """5 pairs .0625, 6 .031, 8 .0078, 10 .002: what always winning by different amounts comes to."""
    b = np.full(n, 0.5)
    difference = paired(b + np.linspace(0.1, 0.2, n), b)
    assert difference.attainable == 2.0 ** (1 - n) == difference.p_sign_flip


def test_differences_without_spread():
    same = paired([0.9] * 6, [0.9] * 6)
    assert (same.mean, same.p, same.wins, same.effect) == (0.0, 1.0, 0.5, None)
    assert verdict(same, 1.0)[0] == "TIES"
    ahead = paired([0.9] * 6, [0.8] * 6)
    assert ahead.p == 2**-5 and verdict(ahead, ahead.p)[0] == "BEATS"


def test_pairs_needed():
    from statsmodels.stats.power import TTestPower

    difference = paired(A, B, rope=0.02)
    wanted = TTestPower().solve_power(0.02 / (A - B).std(ddof=1), power=0.8, alpha=0.05)
    assert difference.n_needed == math.ceil(wanted)
    assert paired(A, B, rope=0.0001, test_share=1.0).n_needed is None  # splits of little data never tell


def test_holm():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02]) and holm([]) == []


@pytest.mark.parametrize("bad", [([0.1], [0.2]), ([0.1, 0.2], [0.2]), ([0.1, np.nan], [0.2, 0.3])])
def test_refused(bad):
    with pytest.raises(ArgumentError, match="`a` and `b`"):
        paired(*bad)


# ---- the rule ------------------------------------------------------------------------------------------------------


def difference(mean: float, sd: float, n: int = 10):
    noise = np.array([(-1) ** k * (1 + k // 2) for k in range(n)], dtype=float)
    noise -= noise.mean()
    return paired(0.5 + mean + noise / noise.std(ddof=1) * sd, np.full(n, 0.5))


@pytest.mark.parametrize(
    ("mean", "sd", "n", "saturated", "word", "said"),
    [
        (0.05, 0.01, 10, None, "BEATS", "better"),
        (-0.05, 0.01, 10, None, "LOSES", "worse"),
        (0.05, 0.01, 10, "a linear model is as good", "INCONCLUSIVE", "but a linear model"),
        (-0.05, 0.01, 10, "a linear model is as good", "LOSES", "worse"),
        (0.002, 0.004, 10, None, "TIES", "within 1 point"),
        (0.02, 0.1, 10, None, "INCONCLUSIVE", "pairs would show"),
        (0.05, 0.01, 5, None, "INCONCLUSIVE", "cannot give a p below 0.0625"),
    ],
)
def test_verdicts(mean, sd, n, saturated, word, said):
    measured = difference(mean, sd, n)
    got, sentence = verdict(measured, measured.p, saturated=saturated)
    assert got == word and said in sentence, sentence


def test_a_correction_for_many_comparisons_can_take_a_verdict_back():
    measured = difference(0.012, 0.015)
    assert (
        verdict(measured, measured.p)[0] == "BEATS"
        and verdict(measured, min(1.0, 14 * measured.p))[0] == "INCONCLUSIVE"
    )


def beats(pairs, **options) -> float:
    words = []
    for a, b in pairs:
        difference = paired(a, b, **options)
        words.append(verdict(difference, difference.p)[0])
    return words.count("BEATS") / len(words)


def test_identical_models_beat_each_other_in_at_most_5_percent_of_fresh_draws():
    """200 comparisons of 10 pairs; sd over draws .05, over initial weights .017, 60 rows to test (as measured on the
    hidden manifold of 10 dimensions)."""
    rng = np.random.default_rng(1)

    def scores(draw):
        return rng.binomial(60, np.clip(0.85 + draw + 0.017 * rng.normal(size=10), 0, 1)) / 60

    draws = 0.05 * rng.normal(size=(200, 10))
    assert beats([(scores(draw), scores(draw)) for draw in draws]) <= 0.05


def test_identical_models_beat_each_other_in_at_most_5_percent_of_splits_of_one_data_set():
    """Two learners that are equally good over all data, as each sees its own half of exchangeable columns; on one data
    set one of them is luckier, in all splits. The ordinary t takes that for skill."""
    rng = np.random.default_rng(2)
    pairs = [splits_of_one_data_set(rng) for _ in range(200)]
    assert beats(pairs, test_share=0.25) <= 0.05
    assert beats(pairs) > 0.08  # the planted fault: with the test for fresh draws the same scores give false alarms


def splits_of_one_data_set(rng, n=150, columns=6):
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 2 * columns)) + 0.35 * (2 * y[:, None] - 1)
    scores = np.empty((2, 10))
    for k in range(10):
        rows = rng.permutation(n)
        train, test = rows[: n * 4 // 5], rows[n * 4 // 5 :]
        for side, part in enumerate((x[:, :columns], x[:, columns:])):
            centres = np.stack([part[train][y[train] == label].mean(0) for label in (0, 1)])
            nearest = np.linalg.norm(part[test][:, None] - centres, axis=2).argmin(1)
            scores[side, k] = np.mean(nearest == y[test])
    return scores


@pytest.mark.parametrize("cases", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_random_cases_equal_scipy_and_statsmodels(cases: int, monkeypatch):
    """Pairs of score lists, three sizes: p, intervals, equivalence, Holm."""
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels' Holm collects garbage each time
    from scipy import stats
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

    rng = np.random.default_rng(5)
    for k in range(cases):
        n = (6, 10, 25)[k % 3]
        a = rng.normal(0.8, 0.05, n)
        b = a - rng.normal(0.01, 0.02, n) * rng.choice([0.2, 1.0, 3.0])
        difference, d = paired(a, b), a - b
        about = DescrStatsW(d)
        assert (difference.low, difference.high) == pytest.approx(about.tconfint_mean())
        assert difference.p == pytest.approx(about.ttest_mean()[1])
        assert difference.p_equivalent == pytest.approx(ttost_paired(a, b, -0.01, 0.01)[0])
        assert (difference.mean, difference.deviation) == pytest.approx((d.mean(), d.std(ddof=1)))
        if k % 10 == 0:
            bca = stats.bootstrap((d,), np.mean, method="BCa", n_resamples=20_000, rng=k).confidence_interval
            assert (difference.low_bca, difference.high_bca) == pytest.approx(
                (bca.low, bca.high), abs=0.12 * difference.deviation
            )
        p = rng.random(rng.integers(1, 15)) ** 3
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert paired(a, b, test_share=0.2).low_bca is None  # splits are not independent


def test_a_real_difference_is_seen():
    rng = np.random.default_rng(3)
    draws = 0.05 * rng.normal(size=(50, 10))
    pairs = [(0.85 + d + 0.01 * rng.normal(size=10), 0.80 + d + 0.01 * rng.normal(size=10)) for d in draws]
    assert beats(pairs) > 0.95


# ---- scores that are not what they are called ----------------------------------------------------------------------


def test_check_scores():
    assert check_scores([0.85, 0.9, 1.0], 60, n_train=240) == []
    assert check_scores([0.81667, 0.98333], 60, n_train=240, digits=5) == []
    (said,) = check_scores([0.9875], 60, n_train=240)
    assert "no share of 60 rows" in said and "train part" in said
    assert "train accuracies" in check_scores([0.85, 0.9], 60, train=[0.85, 0.9])[0]
    assert check_scores([1.0, 1.0], 60, train=[1.0, 1.0]) == []  # all right on both says nothing


def test_mcnemar_is_the_exact_binomial_test_and_several_seeds_flip_signs():
    from scipy import stats

    rng = np.random.default_rng(3)
    a, b = (rng.random(200) < 0.8).astype(float), (rng.random(200) < 0.7).astype(float)
    difference = mcnemar(a, b)
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    assert difference.p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert difference.mean == pytest.approx((only_a - only_b) / 200) and difference.n == 200
    # the same by hand, from the two-sided sum of binomial probabilities
    k, n = min(only_a, only_b), only_a + only_b
    assert difference.p == pytest.approx(min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n), abs=1e-9)
    mixed = mcnemar((3 * a + rng.random(200)) / 4, (3 * b + rng.random(200)) / 4)
    assert mixed.p == pytest.approx(difference.p, abs=0.02)
    assert mcnemar(a, a).p == 1.0 and mcnemar(a, a).p_equivalent == 0.0


def test_mcnemar_finds_no_difference_where_there_is_none():
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(200):
        rows = rng.random((2, 5, 60)) < 0.5 + 0.4 * rng.random(60)  # two models of one skill, five seeds
        rejected += mcnemar(*rows.mean(1)).p < 0.05
    assert rejected < 20

"""Rulings against cases that were worked out by hand, and against scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qbp.trials.claim import Claim
from qbp.trials.ruling import answer, rule_on, signed_rank_interval

SOURCE = {"authors": "A", "title": "T", "arxiv": "1", "where": "table 1", "read": "abstract"}


def claim(figures: list[dict[str, Any]], **more: Any) -> Claim:
    return Claim.model_validate(
        {"name": "c", "title": "t", "source": SOURCE, "claimed": "x", "figures": figures} | more
    )


def rows(dataset: str = "d", share: float | None = None, **arms: list[float]) -> list[dict[str, Any]]:
    return [
        {"dataset": dataset, "arm": arm, "seed": seed, "accuracy": score, "test_share": share, "two_qubit_gates": 2}
        for arm, scores in arms.items()
        for seed, score in enumerate(scores)
    ]


# mean 0.9, standard deviation 0.0158113883
NINETY = [0.88, 0.89, 0.9, 0.91, 0.92]


@pytest.mark.parametrize(
    ("figure", "word"),
    [
        # two pooled standard errors: 2 sqrt(0.00025 / 5 + 0.02^2 / 4) = 0.02449
        ({"value": 0.924, "deviation": 0.02, "n": 4}, "REPRODUCED"),
        ({"value": 0.925, "deviation": 0.02, "n": 4}, "NOT REPRODUCED"),
        ({"value": 0.925, "deviation": 0.02, "n": 4, "rule": {"kind": "equal", "tolerance": 0.001}}, "REPRODUCED"),
        # an interval of 0.0392 is a standard error of 0.01: the same as above
        ({"value": 0.924, "low": 0.9044, "high": 0.9436}, "REPRODUCED"),
        ({"value": 0.925, "low": 0.9054, "high": 0.9446}, "NOT REPRODUCED"),
        # one seed: within 0.88 to 0.92
        ({"value": 0.92, "n": 1}, "REPRODUCED"),
        ({"value": 0.921, "n": 1}, "NOT REPRODUCED"),
        # t(4) = 2.776, standard error 0.00707: 0.88037 to 0.91963
        ({"rule": {"kind": "greater", "size": 0.88}}, "REPRODUCED"),
        ({"rule": {"kind": "greater", "size": 0.881}}, "UNDECIDED"),
        ({"rule": {"kind": "greater", "size": 0.92}}, "NOT REPRODUCED"),
    ],
)
def test_one_arm(figure: dict[str, Any], word: str):
    ruling = rule_on(claim([{"arm": "a", **figure}], rule={"kind": "equal"}), rows(a=NINETY))
    assert ruling.word == word, ruling.sentence
    assert ruling.figures[0]["ours"] == pytest.approx(0.9) and ruling.figures[0]["n"] == 5


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        # differences 0.01 to 0.05, mean 0.03: 0.01037 to 0.04963
        ({"kind": "greater"}, "REPRODUCED"),
        ({"kind": "greater", "size": 0.02}, "UNDECIDED"),
        ({"kind": "greater", "size": 0.05}, "NOT REPRODUCED"),
        ({"kind": "not_worse", "margin": 0.0}, "REPRODUCED"),
    ],
)
def test_two_arms(rule: dict[str, Any], word: str):
    theirs = [0.87, 0.87, 0.87, 0.87, 0.87]
    assert rule_on(claim([{"arm": "a", "than": "b", "rule": rule}]), rows(a=NINETY, b=theirs)).word == word
    opposite = {"REPRODUCED": "NOT REPRODUCED", "UNDECIDED": "NOT REPRODUCED", "NOT REPRODUCED": "NOT REPRODUCED"}
    ruling = rule_on(claim([{"arm": "b", "than": "a", "rule": rule}]), rows(a=NINETY, b=theirs))
    assert ruling.word == opposite[word]


def test_a_margin_in_the_interval_decides_nothing():
    ours = [0.88, 0.86, 0.9, 0.84, 0.87]  # differences -0.02 to 0.03
    ruling = rule_on(
        claim([{"arm": "a", "than": "b", "rule": {"kind": "not_worse", "margin": 0.01}}]), rows(a=ours, b=[0.87] * 5)
    )
    assert ruling.word == "UNDECIDED"


def test_no_difference_that_matters_is_no_lead():
    ours = [0.87, 0.871, 0.869, 0.8705, 0.8695]
    ruling = rule_on(claim([{"arm": "a", "than": "b", "rule": {"kind": "greater"}}]), rows(a=ours, b=[0.87] * 5))
    assert ruling.word == "NOT REPRODUCED" and "matters" in ruling.sentence


def test_splits_of_the_same_data_have_the_wider_interval():
    """Nadeau and Bengio: the standard error times sqrt(1 + n_test / n_train * n)."""
    figure = {"arm": "a", "than": "b", "rule": {"kind": "greater"}}
    plain, shared = (
        rule_on(claim([figure]), rows(share=share, a=NINETY, b=[0.87] * 5)).figures[0] for share in (None, 0.25)
    )
    ratio = (shared["high"] - shared["low"]) / (plain["high"] - plain["low"])
    assert ratio == pytest.approx(math.sqrt(1 + 0.25 * 5))
    assert plain["word"] == "REPRODUCED" and shared["word"] == "REPRODUCED"


def test_all_figures_have_to_come_out():
    figures = [{"arm": "a", "value": 0.9, "n": 1}, {"arm": "a", "value": 0.5, "n": 1}]
    ruling = rule_on(claim(figures, rule={"kind": "equal"}), rows(a=NINETY))
    assert ruling.word == "NOT REPRODUCED" and "1 of 2 figures" in ruling.sentence and "0.5" in ruling.sentence


def test_few_seeds_decide_nothing():
    ruling = rule_on(claim([{"arm": "a", "value": 0.9, "n": 1}], rule={"kind": "equal"}), rows(a=NINETY[:4]))
    assert ruling.word == "UNDECIDED" and "too few" in ruling.sentence


def test_over_data_sets_by_signed_ranks():
    """Six data sets on which one is ahead: the only interval above 0 that six can give."""
    every = [row for k in range(6) for row in rows(f"d{k}", a=[0.9 + 0.01 * k] * 5, b=[0.88] * 5)]
    ruling = rule_on(claim([{"arm": "a", "than": "b", "rule": {"kind": "greater"}}]), every)
    assert ruling.word == "REPRODUCED"
    assert (ruling.figures[0]["low"], ruling.figures[0]["high"]) == pytest.approx((0.02, 0.07))
    assert rule_on(claim([{"arm": "a", "than": "b", "rule": {"kind": "greater"}}]), every[:50]).word == "UNDECIDED"


@pytest.mark.parametrize("n", [6, 8, 15])
def test_the_interval_is_that_of_wilcoxons_test(n: int):
    """What it holds is what scipy's exact test does not reject."""
    rng = np.random.default_rng(n)
    for _ in range(20):
        values = rng.normal(0.3, 1.0, n)
        low, high = signed_rank_interval(list(values))
        for point in rng.uniform(values.min() - 0.1, values.max() + 0.1, 15):
            p = stats.wilcoxon(values - point, method="exact").pvalue
            assert (p > 0.05) == (low < point < high)


# ---- the controls ----------------------------------------------------------------------------------------------------

UP = [0.90, 0.91, 0.93, 0.90, 0.92, 0.91, 0.93, 0.92]
DOWN = [0.80, 0.80, 0.82, 0.81, 0.80, 0.81, 0.82, 0.80]
NEAR = [0.901, 0.909, 0.931, 0.899, 0.921, 0.909, 0.930, 0.921]


@pytest.mark.parametrize(
    ("b", "c", "word", "names"),
    [
        (DOWN, DOWN, "YES", ["All 2 controls"]),
        (DOWN, NEAR, "NO", ["c (as good)"]),
        (NEAR, DOWN, "NO", ["b (as good)"]),
        (DOWN, [0.95, 0.97, 0.96, 0.95, 0.99, 0.97, 0.97, 0.96], "NO", ["c (better)"]),
        (DOWN, [0.85, 0.95, 0.87, 0.96, 0.86, 0.95, 0.88, 0.94], "UNDECIDED", ["Not surely beaten: c"]),
    ],
)
def test_the_answer_of_the_controls(b: list[float], c: list[float], word: str, names: list[str]):
    tried = claim([{"arm": "a", "rule": {"kind": "greater"}}], primary="a/b", controls=["c"])
    verdict = answer(tried, rows(a=UP, b=b, c=c))
    assert verdict.word == word and all(name in verdict.sentence for name in names), verdict.sentence
    assert [row["primary"] for row in verdict.verdicts] == [True, False]


def test_smaller_may_be_better():
    tried = claim([{"arm": "a", "rule": {"kind": "greater"}}], primary="a/b", better="smaller")
    assert answer(tried, rows(a=DOWN, b=UP)).word == "YES" and answer(tried, rows(a=UP, b=DOWN)).word == "NO"


def test_without_a_primary_comparison_nothing_was_asked():
    assert answer(claim([{"arm": "a", "rule": {"kind": "greater"}}]), rows(a=UP)).word == "NOT ASKED"


def test_data_sets_that_do_not_agree():
    tried = claim([{"arm": "a", "rule": {"kind": "greater"}}], primary="a/b")
    verdict = answer(tried, rows("one", a=UP, b=DOWN) + rows("two", a=UP, b=NEAR))
    assert verdict.word == "MIXED" and "On one YES" in verdict.sentence and "On two NO" in verdict.sentence


def test_the_answer_over_many_data_sets():
    tried = claim([{"arm": "a", "rule": {"kind": "greater"}}], primary="a/b", controls=["c"])
    every = [row for k in range(7) for row in rows(f"d{k}", a=UP, b=DOWN, c=[x - 0.02 - 0.01 * k for x in UP])]
    assert answer(tried, every).word == "YES"
    tied = [row for k in range(7) for row in rows(f"d{k}", a=UP, b=DOWN, c=[x + 0.001 * (k - 3) for x in UP])]
    verdict = answer(tried, tied)
    assert verdict.word == "NO" and "c (as good)" in verdict.sentence

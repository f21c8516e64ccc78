"""What models came to on one data set, how two of them differ, and whether such data can show an advantage at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from qbp.comparison.error_bars import ErrorBars
from qbp.comparison.estimators import TRIVIAL
from qbp.comparison.scores import TARGET_METRICS, region, sign_of
from qbp.comparison.statistics import Difference, mcnemar, paired

__all__ = ["Rules", "Scored", "difference_of", "nothing_shown"]

Row = dict[str, Any]
LINEAR = ("linear_model", "logistic_regression", "ridge")


class Rules(NamedTuple):
    """By what is judged; see `judge`."""

    metric: str
    rope: float
    alpha: float
    primary: str | None


class Scored(NamedTuple):
    """What the models came to on one data set, trained on all rows.

    Attributes:
        dataset: its name.
        scores: by model and seed, larger is better.
        about: a row of each model.
        bars: for each model what errors of outputs are in its scores.
        right: by model how right each test row is, where that part is the same for all seeds.
        test_share: n_test / n_train of splits of the same data, else None.
    """

    dataset: str
    scores: Mapping[str, Mapping[int, float]]
    about: Mapping[str, Row]
    bars: Mapping[str, ErrorBars]
    right: Mapping[str, Any] | None
    test_share: float | None

    @property
    def subjects(self) -> list[str]:
        return [model for model, row in self.about.items() if row["role"] == "subject"]

    @property
    def means(self) -> dict[str, float]:
        return {model: float(np.mean(list(seeds.values()))) for model, seeds in self.scores.items()}

    def control(self, model: str) -> str:
        """What a model is called where it is compared with: another subject by its name, a control by its role."""
        role: str = self.about[model]["role"]
        return model if role == "subject" else role


def difference_of(scored: Scored, one: str, other: str, bias: float, rules: Rules) -> Difference:
    """Return one model minus another, over seeds or over test rows; what both scores may be off by is `bias`."""
    how: dict[str, Any] = {"rope": rules.rope, "alpha": rules.alpha, "bias": bias}
    if scored.right is None:
        ours, theirs = (list(scored.scores[model].values()) for model in (one, other))
        difference, n_seeds = paired(ours, theirs, test_share=scored.test_share, **how), None
    else:
        difference, n_seeds = mcnemar(scored.right[one], scored.right[other], **how), len(scored.scores[one])
        if rules.metric in TARGET_METRICS:
            difference = replace(difference, test="sign-flip test on rows")
    share = _error_share(scored.bars[one].error, scored.bars[other].error, difference, n_seeds)
    return replace(difference, error_share=share)


def _error_share(one: float, other: float, difference: Difference, n_seeds: int | None) -> float | None:
    """The share of the variance of a mean difference that the random errors of both scores make.

    Args:
        one, other: standard errors of a seed's scores.
        difference: of seeds, or of rows.
        n_seeds: how many are averaged where rows are the pairs, else None.
    """
    of_errors = (one**2 + other**2) / (n_seeds or difference.n)
    if not of_errors or not difference.deviation:
        return None
    return min(1.0, of_errors / (difference.deviation**2 / difference.n))


def nothing_shown(scored: Scored, rules: Rules, exact: bool = False) -> str | None:
    """Return why the data cannot show an advantage: a linear model, the most frequent class or the mean is as good as
    the best model, or no model is surely better than a linear one; `exact` as if no score were off (`Scored.bars`)."""
    metric, means = rules.metric, scored.means
    best = max(means, key=lambda model: means[model])
    linear = max((model for model in means if scored.about[model]["role"] in LINEAR), key=lambda model: means[model])
    constant = next(name for name in TRIVIAL if name in means)
    for model, what in ((linear, scored.about[linear]["role"]), (constant, f"{TRIVIAL[constant]} alone")):
        if means[best] - means[model] <= rules.rope + 1e-12:
            return (
                f"these data cannot show an advantage, as {what} ({metric} {_told(means[model], metric)}) is within "
                f"{region(rules.rope, metric)} of the best model ({scored.about[best]['role']}, "
                f"{_told(means[best], metric)})"
            )
    if _is_beaten(scored, linear, rules, exact):
        return None
    return (
        f"these data do not show that they need more than a linear model: none is surely better than "
        f"{scored.about[linear]['role']} ({metric} {_told(means[linear], metric)})"
    )


def _is_beaten(scored: Scored, linear: str, rules: Rules, exact: bool) -> bool:
    """Whether a subject is surely better than a linear model, or any other one is: the best of many is ahead by chance,
    hence Bonferroni's correction for these."""
    means, subjects = scored.means, scored.subjects
    others = [m for m in means if m not in subjects and scored.about[m]["role"] not in (*LINEAR, *TRIVIAL)]
    levels = dict.fromkeys(subjects, rules.alpha) | dict.fromkeys(others, rules.alpha / max(len(others), 1))
    ahead = [model for model in levels if means[model] - means[linear] > rules.rope + 1e-12]
    biases = {model: 0.0 if exact else scored.bars[model].bias + scored.bars[linear].bias for model in ahead}
    return any(difference_of(scored, model, linear, biases[model], rules).p <= levels[model] for model in ahead)


def _told(score: float, metric: str) -> str:
    return f"{sign_of(metric) * score:.3f}"

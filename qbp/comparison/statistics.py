"""Paired differences between two models, and the word for them: BEATS, TIES, LOSES or INCONCLUSIVE.

The rule, in this order: fewer than 6 pairs are INCONCLUSIVE. A difference that lies within the region of practical
equivalence (two one-sided tests) TIES. One that Holm's correction leaves below alpha BEATS or LOSES (the one that was
fixed beforehand as primary is not corrected); but where no model is surely better than a linear one, nothing BEATS:
such data cannot show it. All else is INCONCLUSIVE.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qbp.comparison.scores import ERRORS, region
from qbp.errors import ArgumentError, MissingPackageError

__all__ = ["FEWEST_PAIRS", "Difference", "corrected", "holm", "mcnemar", "paired", "smallest", "verdict"]

VERDICTS = ("BEATS", "TIES", "LOSES", "INCONCLUSIVE")
MOST_PAIRS = 2**20
FEWEST_PAIRS = 6  # the first number with which a sign-flip test can fall below 0.05


@dataclass(frozen=True)
class Difference:
    """Mean of `a - b` over pairs, and what is known of it.

    Attributes:
        n: pairs.
        mean: of the differences.
        deviation: their standard deviation.
        low, high: the interval at level 1 - alpha.
        low_bca, high_bca: the same by bootstrap, bias-corrected and accelerated (Efron, JASA 82, 171, 1987), which
            assumes no distribution; None for splits of the same data, which are not independent.
        p: two-sided, that there is no difference.
        p_sign_flip: the same from the sign-flip test, which assumes no distribution; None for splits of the same data.
        p_equivalent: that the difference is not within the region of practical equivalence.
        attainable: the smallest p that so many pairs can give.
        effect: mean by standard deviation of the differences (Cohen's d of pairs); None where that is 0.
        wins: share of pairs with a > b; ties count half.
        n_needed: pairs to see a difference as large as the region with 80 % power; None where no number would do.
        test: the name of the test.
        test_share: n_test / n_train of splits of the same data, else None.
        bias: how far the mean may be off for a reason that is the same in every pair. The intervals reach so much
            further at both ends, and the tests ask for a difference beyond it, whichever way it goes.
        error_share: share of the variance of the differences that the shots of circuits make, as far as that is known.
    """

    n: int
    mean: float
    deviation: float
    low: float
    high: float
    low_bca: float | None
    high_bca: float | None
    p: float
    p_sign_flip: float | None
    p_equivalent: float
    attainable: float
    effect: float | None
    wins: float
    n_needed: int | None
    test: str
    test_share: float | None = None
    bias: float = 0.0
    error_share: float | None = None

    def to_row(self) -> dict[str, Any]:
        """The columns of a table of verdicts, where `mean` is called `difference`."""
        row = asdict(self)
        row["difference"] = row.pop("mean")
        return row


def paired(
    a: Sequence[float],
    b: Sequence[float],
    *,
    test_share: float | None = None,
    rope: float = 0.01,
    alpha: float = 0.05,
    bias: float = 0.0,
) -> Difference:
    """Compare two models on the same seeds.

    Scores on new data for each seed are independent: p and the interval come from Student's t for pairs, and the
    sign-flip test (exact up to 14 pairs) has to agree. Splits of one and the same data share rows, which makes both
    reject one true null hypothesis in four; there p comes from the corrected resampled t of Nadeau and Bengio (Machine
    Learning 52, 239, 2003), whose variance is ``s^2 (1/n + n_test/n_train)``.

    Args:
        a, b: (n,) scores, pair by pair; larger is better.
        test_share: n_test / n_train of splits of one data set; None for new data in each pair.
        rope: half the width of the region of practical equivalence.
        alpha: level of the tests.
        bias: how far the mean may be off, the same way in every pair; see `Difference`.

    Returns:
        The difference.

    Raises:
        ArgumentError: fewer than two pairs, or scores that are not finite.

    Example:
        >>> difference = paired([0.92, 0.94, 0.91, 0.95, 0.93, 0.92], [0.90, 0.91, 0.90, 0.91, 0.90, 0.90])
        >>> round(difference.mean, 3), round(difference.p, 4), difference.p_sign_flip, difference.attainable
        (0.025, 0.0021, 0.03125, 0.03125)
    """
    from scipy import stats

    one, two = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1 or len(one) < 2 or not np.isfinite([one, two]).all():
        raise ArgumentError(
            f"Arguments `a` and `b` must be finite and of shape (n,), n >= 2, but are {one.shape} and {two.shape}"
        )
    d, n = one - two, len(one)
    mean, deviation = float(d.mean()), float(d.std(ddof=1))
    attainable = 2.0 ** (1 - n)
    wins = float((np.sign(d) + 1).mean() / 2)
    if deviation <= 1e-12:  # the same difference each time: no t, and the signs say all
        p = 1.0 if abs(mean) <= bias + 1e-12 else attainable
        inside = 0.0 if abs(mean) + bias < rope else 1.0
        return Difference(
            n=n,
            mean=mean,
            deviation=0.0,
            low=mean - bias,
            high=mean + bias,
            low_bca=mean - bias,
            high_bca=mean + bias,
            p=p,
            p_sign_flip=p,
            p_equivalent=inside,
            attainable=attainable,
            effect=None,
            wins=wins,
            n_needed=n,
            test="sign-flip test",
            test_share=test_share,
            bias=bias,
        )
    flipped = None
    need_statsmodels()
    inner, outer = _shifts(mean, bias)
    if test_share is None:
        from statsmodels.stats.weightstats import ttost_paired

        interval = stats.ttest_rel(one, two).confidence_interval(1 - alpha)
        low, high, p = float(interval.low), float(interval.high), float(stats.ttest_rel(one - inner, two).pvalue)
        options: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 2**14, "rng": 0}
        flipped = float(stats.permutation_test((d - inner,), np.mean, **options).pvalue)
        inside, test = float(ttost_paired(one + outer, two, -rope, rope)[0]), "paired t-test"
    else:
        error = deviation * math.sqrt(1 / n + test_share)
        t = stats.t(n - 1)
        reach = float(t.ppf(1 - alpha / 2)) * error
        low, high, p = mean - reach, mean + reach, 2 * float(t.sf(abs(mean - inner) / error))
        inside, test = float(t.sf((rope - abs(mean + outer)) / error)), "corrected resampled t-test"
    low_bca, high_bca = (None, None) if test_share is not None else _bca(d, alpha)
    return Difference(
        n=n,
        mean=mean,
        deviation=deviation,
        low=low - bias,
        high=high + bias,
        low_bca=None if low_bca is None else low_bca - bias,
        high_bca=None if high_bca is None else high_bca + bias,
        p=p,
        p_sign_flip=flipped,
        p_equivalent=inside,
        attainable=attainable,
        effect=mean / deviation,
        wins=wins,
        n_needed=_pairs_needed((rope - bias) / deviation, test_share or 0.0, alpha),
        test=test,
        test_share=test_share,
        bias=bias,
    )


def _shifts(mean: float, bias: float) -> tuple[float, float]:
    """What is taken from differences for the least that there may be of them, and added to them for the most."""
    return math.copysign(min(bias, abs(mean)), mean), math.copysign(bias, mean)


def mcnemar(
    a: Sequence[float], b: Sequence[float], *, rope: float = 0.01, alpha: float = 0.05, bias: float = 0.0
) -> Difference:
    """Compare two models on the rows of one test set (McNemar, Psychometrika 12, 153, 1947).

    With one seed only the rows count on which one model is right and the other wrong: the test is exact. With several
    seeds a row's difference is that of the shares of seeds that are right, and its sign is flipped: the same test.

    Args:
        a, b: (n,) for each row whether the model is right: 0 or 1, a mean over seeds, or that times a row's weight; of
            a regression whatever the score is the mean of, larger where it is better.
        rope: half the width of the region of practical equivalence.
        alpha: level of the tests.
        bias: how far the mean may be off; see `Difference`.

    Returns:
        The difference; its pairs are rows.

    Raises:
        ArgumentError: fewer than two rows.

    Example:
        >>> difference = mcnemar([1] * 9 + [0] * 21, [0] * 8 + [1] * 2 + [0] * 20)
        >>> round(difference.mean, 3), round(difference.p, 4)
        (0.233, 0.0391)
    """
    from scipy import stats

    one, two = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1 or len(one) < 2:
        raise ArgumentError(f"Arguments `a` and `b` must be of shape (n,), n >= 2, but are {one.shape} and {two.shape}")
    d = one - two
    n, mean, deviation = len(d), float(d.mean()), float(d.std(ddof=1))
    inner, outer = _shifts(mean, bias)
    discordant = d[np.abs(d) > 1e-12]
    attainable = 2.0 ** (1 - max(1, len(discordant)))
    if not len(discordant):
        p = 1.0
    elif np.ptp(np.abs(discordant)) < 1e-12:  # all weigh the same
        p = float(stats.binomtest(int((discordant > 0).sum()), len(discordant)).pvalue)
    else:
        p = _flipped(discordant)
    if bias:
        p = 1.0 if abs(mean) <= bias else max(p, _flipped(d - inner))
    error, t = deviation / math.sqrt(n), stats.t(n - 1)
    reach = float(t.ppf(1 - alpha / 2)) * error
    low_bca, high_bca = _bca(d, alpha) if deviation else (mean, mean)
    return Difference(
        n=n,
        mean=mean,
        deviation=deviation,
        low=mean - reach - bias,
        high=mean + reach + bias,
        low_bca=None if low_bca is None else low_bca - bias,
        high_bca=None if high_bca is None else high_bca + bias,
        p=p,
        p_sign_flip=None,
        p_equivalent=float(t.sf((rope - abs(mean + outer)) / error)) if error else float(abs(mean) + bias >= rope),
        attainable=attainable,
        effect=mean / deviation if deviation else None,
        wins=float((np.sign(d) + 1).mean() / 2),
        n_needed=_pairs_needed((rope - bias) / deviation, 0.0, alpha) if deviation else n,
        test="McNemar's test on rows",
        bias=bias,
    )


def _bca(d: np.ndarray, alpha: float) -> tuple[float | None, float | None]:
    """The interval of the mean of differences (n,), or None where too few of them differ."""
    from scipy import stats

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a jackknife without spread: the interval is not a number
        options: dict[str, Any] = {"method": "BCa", "n_resamples": 4999, "batch": 500, "rng": 0}
        interval = stats.bootstrap((d,), np.mean, confidence_level=1 - alpha, **options).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _flipped(d: np.ndarray, n_flips: int = 10_000) -> float:
    """How often differences (n,) whose signs are drawn anew have as large a sum."""
    rng, reached, part = np.random.default_rng(0), 0, max(1, 10**6 // len(d))
    for first in range(0, n_flips, part):
        signs = rng.integers(2, size=(min(part, n_flips - first), len(d)), dtype=np.int8) * 2.0 - 1
        reached += int((np.abs(signs @ d) >= abs(d.sum()) - 1e-9).sum())
    return (reached + 1) / (n_flips + 1)


def _pairs_needed(effect: float, test_share: float, alpha: float, power: float = 0.8) -> int | None:
    from statsmodels.stats.power import TTestPower

    if effect <= 0:
        return None

    def reached(n: int) -> bool:
        independent = 1 / (1 / n + test_share)
        sure = effect * math.sqrt(independent) > 8  # where scipy's noncentral t overflows
        return sure or bool(TTestPower().power(effect, independent, alpha, df=n - 1) >= power)

    return smallest(reached, 2, MOST_PAIRS)


def smallest(reached: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the smallest number from `low` to `high` that reaches, as all beyond it do; None where none does."""
    if not reached(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return low


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, Scandinavian Journal of Statistics 6, 65, 1979).

    Example:
        >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    need_statsmodels()
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(p, method="holm")[1]] if len(p) else []


def corrected(p: Mapping[str, float], primary: str | None = None) -> dict[str, float]:
    """Correct p-values for their number, all but that of the primary comparison, which was fixed beforehand.

    Example:
        >>> corrected({"tanh": 0.01, "sine": 0.02, "removed": 0.03}, primary="removed")
        {'tanh': 0.02, 'sine': 0.02, 'removed': 0.03}
    """
    others = [name for name in p if name != primary]
    return {**p, **dict(zip(others, holm([p[name] for name in others]), strict=True))}


def verdict(
    difference: Difference,
    p_adjusted: float | None = None,
    *,
    rope: float = 0.01,
    alpha: float = 0.05,
    saturated: str | None = None,
    metric: str = "accuracy",
) -> tuple[str, str]:
    """Apply the rule at the top of this module.

    Args:
        difference: of `paired`.
        p_adjusted: its p, corrected for the number of comparisons; None where it needs no correction.
        rope: half the width of the region of practical equivalence.
        alpha: level of the tests.
        saturated: why these data cannot show an advantage; None where they can.
        metric: what is compared: shares and r2 are told in points, errors as they are.

    Returns:
        The word, and what decided it.
    """
    if metric in ERRORS:
        points = f"{metric} lower by {difference.mean:.3g} [{difference.low:.3g}, {difference.high:.3g}]"
    else:
        points = f"{100 * difference.mean:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    corrected = "" if p_adjusted is None else f", {p_adjusted:.3g} by Holm"
    p = difference.p if p_adjusted is None else p_adjusted
    tested = f"{difference.test}, p = {difference.p:.3g}{corrected}, {difference.n} pairs"
    if difference.n < FEWEST_PAIRS:
        return "INCONCLUSIVE", (
            f"{points}: {difference.n} pairs cannot give a p below {difference.attainable:.4g}; "
            f"at least {FEWEST_PAIRS} seeds are needed."
        )
    if difference.p_equivalent < alpha:
        return "TIES", f"{points}: within {region(rope, metric)} (equivalence, p = {difference.p_equivalent:.2g})."
    flips = difference.p_sign_flip is None or difference.p_sign_flip <= alpha
    if p <= alpha and flips and difference.mean < 0:
        return "LOSES", f"{points}: worse ({tested})."
    if p <= alpha and flips and saturated:
        return "INCONCLUSIVE", f"{points}: better ({tested}), but {saturated}."
    if p <= alpha and flips:
        return "BEATS", f"{points}: better ({tested})."
    more = "no number of splits of these data" if difference.n_needed is None else f"{difference.n_needed} pairs"
    return "INCONCLUSIVE", f"{points}: not decided ({tested}); {more} would show {region(rope, metric)}."


def need_statsmodels() -> None:
    """Raise `MissingPackageError` where statsmodels is not installed."""
    try:
        import statsmodels  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("Comparisons need statsmodels: pip install 'qbp[compare]'") from error

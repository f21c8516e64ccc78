"""From the rows of a trial to what is ruled: is the figure reproduced, and what do the controls say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qbp.comparison.comparing import Comparison
from qbp.comparison.controls import LAYER_CONTROLS, model_behind
from qbp.comparison.ranks import over_datasets
from qbp.comparison.statistics import Difference, corrected, paired, verdict
from qbp.errors import ArgumentError
from qbp.trials.cell import Row
from qbp.trials.claim import FEWEST_SEEDS, Claim, Figure, Rule, split_primary

__all__ = ["Answer", "Ruling", "answer", "rule_on", "signed_rank_interval"]

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "REPRODUCED", "NOT REPRODUCED", "UNDECIDED"
YES, NO, MIXED, NOT_ASKED = "YES", "NO", "MIXED", "NOT ASKED"


@dataclass(frozen=True)
class Ruling:
    """What becomes of the published figures.

    Attributes:
        word: REPRODUCED where all are, NOT REPRODUCED where one is not, else UNDECIDED.
        sentence: what decided it.
        figures: of each figure `says`, `dataset`, `arm`, `than`, `metric`, `rule`, `published` (in words), `value`,
            `ours`, `deviation`, `n` (seeds, or data sets), `low`, `high`, `word` and `sentence`.
    """

    word: str
    sentence: str
    figures: tuple[Row, ...]


@dataclass(frozen=True)
class Answer:
    """Whether the quantum part does it.

    Attributes:
        word: YES, NO, MIXED (one on some data sets, another on others), UNDECIDED or NOT ASKED.
        sentence: what decided it, with the names of controls that tie or win.
        verdicts: a row for each control: `dataset`, `control`, `difference`, `low`, `high`, `p`, `p_adjusted`,
            `primary`, `verdict`, `sentence`.
    """

    word: str
    sentence: str
    verdicts: tuple[Row, ...] = ()


# ---- the figures -----------------------------------------------------------------------------------------------------


class _Ours(NamedTuple):
    """What a figure is in our trial.

    Attributes:
        values: of seeds, or of data sets.
        mean, deviation: of them.
        low, high: the interval.
        share: n_test / n_train where seeds split the same data, else None.
    """

    values: list[float]
    mean: float
    deviation: float
    low: float
    high: float
    share: float | None


def rule_on(claim: Claim, rows: Sequence[Row]) -> Ruling:
    """Rule on every figure of a claim.

    Args:
        claim: the claim.
        rows: of its trial: `dataset`, `arm`, `seed`, the metrics, and `test_share` where seeds split the same data.

    Returns:
        The ruling.

    Raises:
        ArgumentError: rows of an arm, or a metric, are missing.
    """
    figures = tuple(_figure(claim, figure, rows) for figure in claim.figures)
    words = [figure["word"] for figure in figures]
    word = next((each for each in (NOT_REPRODUCED, UNDECIDED) if each in words), REPRODUCED)
    deciding = [figure for figure in figures if figure["word"] == word]
    counted = "" if len(figures) == 1 else f"{words.count(REPRODUCED)} of {len(figures)} figures are reproduced. "
    return Ruling(word, counted + deciding[0]["sentence"], figures)


def _figure(claim: Claim, figure: Figure, rows: Sequence[Row]) -> Row:
    rule = figure.rule or claim.rule
    assert rule is not None  # `load` has seen to it
    metric = figure.metric or claim.metric
    datasets = [figure.dataset] if figure.dataset else list(dict.fromkeys(row["dataset"] for row in rows))
    tables = [_scores(rows, dataset, figure, metric) for dataset in datasets]
    shares = {row.get("test_share") for row in rows if row["dataset"] in datasets}
    share = shares.pop() if len(shares) == 1 else None
    if len(datasets) > 1 and figure.than is not None and rule.kind != "equal":
        values, what = [float(np.mean(list(table.values()))) for table in tables], "data sets"
        low, high = signed_rank_interval(values, claim.alpha)
    else:
        values, what = [float(np.mean(seed)) for seed in zip(*(t.values() for t in tables), strict=True)], "seeds"
        low, high = _interval(values, share, claim)
    n = len(values)
    deviation = float(np.std(values, ddof=1)) if n > 1 else 0.0
    ours = _Ours(values, float(np.mean(values)), deviation, low, high, share)
    decide = {"equal": _equal, "greater": _greater, "not_worse": _not_worse}[rule.kind]
    word, why = decide(rule, figure, ours, claim)
    if n < FEWEST_SEEDS:
        word, why = UNDECIDED, f"{n} {what} are too few to tell"
    name = _name(figure, metric)
    spread = f"{_said(ours.mean)} ± {_said(deviation)} ({n} {what})"
    return {
        "says": figure.says,
        "dataset": figure.dataset,
        "arm": figure.arm,
        "than": figure.than,
        "metric": metric,
        "rule": rule.model_dump(mode="json"),
        "published": _published(figure),
        "value": figure.value,
        "ours": ours.mean,
        "deviation": deviation,
        "n": n,
        "over": what,
        "low": low,
        "high": high,
        "word": word,
        "sentence": f"{name}: published {_published(figure)}, ours {spread}: {why}.",
    }


def _scores(rows: Sequence[Row], dataset: str, figure: Figure, metric: str) -> dict[int, float]:
    """The metric of a figure by seed: of its arm, or the difference from the other one."""
    every: list[dict[int, float]] = []
    for arm in (figure.arm, figure.than):
        if arm is None:
            continue
        own = [row for row in rows if row["dataset"] == dataset and row["arm"] == arm]
        if not own or any(row.get(metric) is None for row in own):
            raise ArgumentError(f"Rows of arm {arm!r} on {dataset!r} must have a column {metric!r}")
        every.append({row["seed"]: float(row[metric]) for row in sorted(own, key=lambda row: row["seed"])})
    if len(every) == 1:
        return every[0]
    if every[0].keys() != every[1].keys():
        raise ArgumentError(f"Arms {figure.arm!r} and {figure.than!r} must have the same seeds on {dataset!r}")
    return {seed: score - every[1][seed] for seed, score in every[0].items()}


def _interval(values: Sequence[float], share: float | None, claim: Claim) -> tuple[float, float]:
    """Student's interval of a mean over seeds; of splits of the same data with the variance of Nadeau and Bengio."""
    if len(values) < 2:
        return -math.inf, math.inf
    interval = paired(values, [0.0] * len(values), test_share=share, rope=claim.rope, alpha=claim.alpha)
    return interval.low, interval.high


def _equal(rule: Rule, figure: Figure, ours: _Ours, claim: Claim) -> tuple[str, str]:
    assert figure.value is not None
    gap = abs(ours.mean - figure.value)
    if figure.deviation is None and figure.low is None:  # of one seed: it should be among ours
        low, high = min(ours.values) - rule.tolerance, max(ours.values) + rule.tolerance
        inside = low <= figure.value <= high
        return _word(inside), f"one published seed {'within' if inside else 'outside'} {_said(low)} to {_said(high)}"
    if figure.deviation is not None:
        theirs = figure.deviation**2 / (figure.n or 1)
    else:
        assert figure.low is not None and figure.high is not None
        theirs = ((figure.high - figure.low) / (2 * 1.96)) ** 2
    own = ours.deviation**2 * (1 / len(ours.values) + (ours.share or 0.0))
    allowed = 2 * math.sqrt(own + theirs) + rule.tolerance
    inside = gap <= allowed
    return _word(inside), f"{_said(gap)} apart, {'not more' if inside else 'more'} than the {_said(allowed)} allowed"


def _greater(rule: Rule, figure: Figure, ours: _Ours, claim: Claim) -> tuple[str, str]:
    low, high, size = ours.low, ours.high, rule.size
    interval = f"[{_said(low)}, {_said(high)}]"
    if low > size:
        return REPRODUCED, f"the interval {interval} is above {_said(size)}"
    if high <= size:
        return NOT_REPRODUCED, f"the interval {interval} is not above {_said(size)}"
    if figure.than is not None and max(abs(low), abs(high)) < claim.rope:
        return NOT_REPRODUCED, f"the interval {interval} holds no difference that matters (± {_said(claim.rope)})"
    return UNDECIDED, f"{_said(size)} is in the interval {interval}"


def _not_worse(rule: Rule, figure: Figure, ours: _Ours, claim: Claim) -> tuple[str, str]:
    low, high, least = ours.low, ours.high, -rule.margin
    interval = f"[{_said(low)}, {_said(high)}]"
    if low > least:
        return REPRODUCED, f"the interval {interval} is above {_said(least)}: not worse by more than the margin"
    if high < least:
        return NOT_REPRODUCED, f"the interval {interval} is below {_said(least)}: worse by more than the margin"
    return UNDECIDED, f"{_said(least)} is in the interval {interval}"


def _word(inside: bool) -> str:
    return REPRODUCED if inside else NOT_REPRODUCED


def _name(figure: Figure, metric: str) -> str:
    what = figure.arm if figure.than is None else f"{figure.arm} minus {figure.than}"
    return f"{metric} of {what}" + (f" on {figure.dataset}" if figure.dataset else "")


def _published(figure: Figure) -> str:
    if figure.value is None:
        return "a direction" if figure.than else "a bound"
    said = _said(figure.value)
    if figure.deviation is not None:
        said += f" ± {_said(figure.deviation)}"
    elif figure.low is not None and figure.high is not None:
        said += f" [{_said(figure.low)}, {_said(figure.high)}]"
    return said + {None: "", 1: " (1 seed)"}.get(figure.n, f" ({figure.n} seeds)")


def _said(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ("∞" if value > 0 else "-∞")


def signed_rank_interval(values: Sequence[float], alpha: float = 0.05) -> tuple[float, float]:
    """The interval of a pseudo-median that belongs to Wilcoxon's signed-rank test: of Walsh averages, exact.

    Args:
        values: (n,) of n data sets.
        alpha: 1 minus its level.

    Returns:
        Both ends; infinite where so few values can tell nothing at this level (below six at 0.05).

    Example:
        >>> signed_rank_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        (1.0, 6.0)
        >>> signed_rank_interval([1.0, 2.0, 3.0])
        (-inf, inf)
    """
    n = len(values)
    ways = np.zeros(n * (n + 1) // 2 + 1)  # subsets of the ranks 1..n by their sum
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[:-rank].copy()
    below = np.cumsum(ways) / 2.0**n
    cut = int((below <= alpha / 2).sum())  # sums that are as rare as alpha / 2 allows: 0 to cut - 1
    if not cut:
        return -math.inf, math.inf
    x = np.asarray(values, dtype=np.float64)
    walsh = np.sort((x[:, None] + x)[np.triu_indices(n)] / 2)
    return float(walsh[cut - 1]), float(walsh[-cut])


# ---- the controls ----------------------------------------------------------------------------------------------------


def answer(claim: Claim, rows: Sequence[Row], comparison: Comparison | None = None) -> Answer:
    """Say whether the quantum part does it: where the primary comparison and every control in its place are beaten.

    Each of them is beaten at the full level (intersection-union); what ties or wins is named, and to lose to one of
    many, p is corrected by Holm. Over six data sets or more, Wilcoxon's signed-rank test over their means decides.

    Args:
        claim: the claim.
        rows: of its trial.
        comparison: behind the rows, where the protocol is a comparison.

    Returns:
        The answer.
    """
    if claim.primary is None:
        return Answer(NOT_ASKED, "No primary comparison was fixed: the claim is not about what the quantum part does.")
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    subject, control = split_primary(claim.primary, arms)
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    if comparison is not None:
        entangles = any(row["two_qubit_gates"] for row in rows if row["arm"] == subject)
        places = {*LAYER_CONTROLS, *claim.controls} - (set() if entangles else {"separable"})  # which is the subject
        verdicts = [
            {**row, "primary": bool(row["primary"])}
            for row in comparison.verdicts
            if row["subject"] == subject and (row["control"] in places or row["primary"])
        ]
    else:
        verdicts = [v for name in datasets for v in _verdicts(claim, rows, name, subject, control)]
    if len(datasets) >= 6:
        arm_of = {row["control"]: model_behind(row["control"], subject, arms) for row in verdicts}
        over = _over(claim, rows, datasets, subject, arm_of, control)
        word, sentence = _answer(over)
        return Answer(word, f"Over {len(datasets)} data sets: {sentence}", tuple([*verdicts, *over]))
    answers = {name: _answer([row for row in verdicts if row["dataset"] == name]) for name in datasets}
    words = {word for word, _ in answers.values()}
    if len(answers) == 1:
        return Answer(*answers[datasets[0]], tuple(verdicts))
    sentence = " ".join(f"On {name} {word}: {said}" for name, (word, said) in answers.items())
    return Answer(words.pop() if len(words) == 1 else MIXED, sentence, tuple(verdicts))


def _verdicts(claim: Claim, rows: Sequence[Row], dataset: str, subject: str, primary: str) -> list[Row]:
    """Of one data set: the subject against each control, by the statistics of `qbp.comparison`."""
    sign = 1.0 if claim.better == "larger" else -1.0
    share = next((row.get("test_share") for row in rows if row["dataset"] == dataset), None)
    differences: dict[str, Difference] = {}
    for control in dict.fromkeys((primary, *claim.controls)):
        figure = Figure(arm=subject, than=control)
        scores = [sign * d for d in _scores(rows, dataset, figure, claim.metric).values()]
        zeros = [0.0] * len(scores)
        differences[control] = paired(scores, zeros, test_share=share, rope=claim.rope, alpha=claim.alpha)
    adjusted = corrected({control: difference.p for control, difference in differences.items()}, primary)
    table: list[Row] = []
    for control, difference in differences.items():
        p = adjusted[control]
        options: dict[str, Any] = {"rope": claim.rope, "alpha": claim.alpha}
        alone, among = verdict(difference, **options)[0], verdict(difference, p, **options)[0]
        word = alone if alone != "LOSES" else among  # to beat each needs no correction
        about = {"dataset": dataset, "subject": subject, "control": control, **difference.to_row(), "p_adjusted": p}
        said = f"{_said(difference.mean)} [{_said(difference.low)}, {_said(difference.high)}], p = {difference.p:.3g}"
        table.append({**about, "primary": control == primary, "verdict": word, "sentence": f"{control}: {said}"})
    return table


def _over(
    claim: Claim,
    rows: Sequence[Row],
    datasets: Sequence[str],
    subject: str,
    arm_of: Mapping[str, str],
    primary: str,
) -> list[Row]:
    """The subject against each control over data sets."""
    sign = 1.0 if claim.better == "larger" else -1.0
    means = {
        arm: [sign * float(np.mean(_of(rows, name, arm, claim.metric))) for name in datasets]
        for arm in (subject, *arm_of.values())
    }
    tests = dict(zip(arm_of, over_datasets(means, subject, list(arm_of.values())), strict=True))
    first = next((control for control, arm in arm_of.items() if arm == primary), None)
    adjusted = corrected({control: test["p"] for control, test in tests.items()}, first)
    table: list[Row] = []
    for control, test in tests.items():
        p, median = test["p"], test["difference"]
        d = [a - b for a, b in zip(means[subject], means[arm_of[control]], strict=True)]
        low, high = signed_rank_interval(d, claim.alpha)
        tight = signed_rank_interval(d, 2 * claim.alpha)  # two one-sided tests
        if max(map(abs, tight)) < claim.rope:
            word = "TIES"
        elif median < 0 and adjusted[control] <= claim.alpha:
            word = "LOSES"
        else:
            word = "BEATS" if median > 0 and p <= claim.alpha else "INCONCLUSIVE"
        said = f"{control}: {_said(median)} [{_said(low)}, {_said(high)}], p = {p:.3g} by Wilcoxon's test"
        about = {"dataset": "all", "subject": subject, "control": control, "n": len(d), "difference": median}
        about |= {"low": low, "high": high, "p": p, "p_adjusted": adjusted[control], "primary": control == first}
        table.append({**about, "verdict": word, "sentence": said})
    return table


def _of(rows: Sequence[Row], dataset: str, arm: str, metric: str) -> list[float]:
    return [float(row[metric]) for row in rows if row["dataset"] == dataset and row["arm"] == arm]


def _answer(verdicts: Sequence[Row]) -> tuple[str, str]:
    """The answer of one data set, or over all."""
    stops = [row for row in verdicts if row["verdict"] in ("TIES", "LOSES")]
    if stops:
        names = ", ".join(f"{row['control']} ({'as good' if row['verdict'] == 'TIES' else 'better'})" for row in stops)
        worst = min(stops, key=lambda row: row["difference"])
        return NO, f"What does as well without it: {names}. {worst['sentence'].rstrip('.')}."
    unsure = [row for row in verdicts if row["verdict"] != "BEATS"]
    if unsure:
        ahead = ", ".join(row["control"] for row in unsure if row["difference"] < 0)
        behind = ", ".join(row["control"] for row in unsure if row["difference"] >= 0)
        parts = [f"Ahead, though not surely: {ahead}."] * bool(ahead) + [f"Not surely beaten: {behind}."] * bool(behind)
        worst = min(unsure, key=lambda row: row["difference"])
        return UNDECIDED, f"{' '.join(parts)} {worst['sentence'].rstrip('.')}."
    least = min(verdicts, key=lambda row: row["difference"])
    return YES, f"All {len(verdicts)} controls in its place are beaten; nearest: {least['sentence'].rstrip('.')}."

"""From the rows of a comparison to its verdicts; a control that is missing stops it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from qbp.comparison.controls import CONTROLS, LAYER_CONTROLS
from qbp.comparison.error_bars import over_seeds
from qbp.comparison.estimators import ESTIMATORS, estimators_for
from qbp.comparison.gates import Gates, gates_of
from qbp.comparison.ranks import over_datasets, rank, sample_complexity
from qbp.comparison.scored import Rules, Scored, difference_of, nothing_shown
from qbp.comparison.scores import METRICS, TARGET_METRICS, amount, check_scores, sign_of
from qbp.comparison.statistics import Difference, corrected, paired, verdict
from qbp.comparison.twins import TWIN
from qbp.errors import ArgumentError, check_choice

__all__ = ["METRICS", "IncompleteError", "check_primary", "judge", "rivals_of"]

Row = dict[str, Any]
MOSTLY = 0.5
"""Share of the variance of a difference from which shots are named as what keeps it from being decided."""


Said = tuple[str, str]
"""The word of a verdict, and what decided it."""


class IncompleteError(ArgumentError):
    """A comparison lacks a control, or seeds of one."""


def judge(
    rows: Sequence[Row],
    *,
    metric: str = "accuracy",
    rope: float = 0.01,
    alpha: float = 0.05,
    fresh: Mapping[str, bool] | None = None,
    right: Mapping[str, Mapping[str, Any]] | None = None,
    primary: str | None = None,
) -> tuple[tuple[Row, ...], Row | None, tuple[Row, ...]]:
    """Compare every subject with all its controls, and with the other subjects.

    Holm's correction is over all comparisons on a data set but the primary one. To beat all of several controls each
    has to be beaten at the level alpha, without a correction (intersection-union test: Berger, Technometrics 24, 295,
    1982).

    Args:
        rows: of `qbp.comparison.comparing.Comparison`.
        metric: the score that is compared, one of `METRICS`. Differences are positive where the subject is better, of
            errors, too.
        rope: half the width of the region of practical equivalence.
        alpha: level of the tests.
        fresh: for each data set whether every seed drew new data; otherwise the seeds are splits of the same data.
        right: for each data set whose test part is the same for all seeds, by model, how right each test row is.
        primary: "SUBJECT/CONTROL", the comparison that was fixed beforehand, or None.

    Returns:
        `verdicts`, `ranks` and `sample_complexity` of a `Comparison`.

    Raises:
        IncompleteError: a subject lacks a control, or a model lacks seeds that another one has.
    """
    rules = Rules(metric, rope, alpha, primary)
    verdicts: list[Row] = []
    complexity: list[Row] = []
    table: dict[str, list[float]] = {}
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    for name in names:
        here = [row for row in rows if row["dataset"] == name]
        sizes = sorted({row["n_train"] for row in here})
        complexity += _complexity(name, here, sizes, metric, alpha)
        full = [row for row in here if row["n_train"] == sizes[-1]]
        twins = [row for row in full if row["role"] == TWIN]
        full = [row for row in full if row["role"] != TWIN]  # what is the subject itself has no say
        scores, about = _by_model(name, full, metric)
        _check_controls(name, about, full, metric)
        test_share = None if (fresh or {}).get(name) else full[0]["n_test"] / full[0]["n_train"]
        bars = {model: over_seeds([row for row in full if row["model"] == model]) for model in scores}
        scored = Scored(name, scores, about, bars, (right or {}).get(name), test_share)
        verdicts += _verdicts(scored, gates_of(full, metric, twins), rules) + _twins(scored, twins, rules)
        for model, mean in scored.means.items():
            table.setdefault(model, []).append(mean)
    everywhere = {model: means for model, means in table.items() if len(means) == len(names)}
    if len(names) < 2 or len(everywhere) < 3:
        return tuple(verdicts), None, tuple(complexity)
    subjects = dict.fromkeys(row["model"] for row in rows if row["role"] == "subject")
    pairs = [
        row
        for subject in subjects
        if subject in everywhere
        for row in over_datasets(everywhere, subject, rivals_of(subject, everywhere))
    ]
    return tuple(verdicts), {**rank(everywhere, alpha), "pairs": pairs}, tuple(complexity)


def rivals_of(subject: str, models: Iterable[str]) -> list[str]:
    """Return what a subject is compared with: its own controls, those of all, and the other subjects; not its twin,
    which is itself."""
    own = (subject, f"{subject}/{TWIN}")
    return [model for model in models if model not in own and model.partition("/")[0] in (subject, model)]


def check_primary(primary: str | None, subjects: Iterable[str], models: Collection[str]) -> None:
    """Raise `ArgumentError` unless the primary comparison is None or one of a subject with one of its rivals."""
    if primary is not None:
        pairs = [f"{s}/{model.removeprefix(f'{s}/')}" for s in subjects for model in rivals_of(s, models)]
        check_choice("primary", primary, pairs)


def _by_model(name: str, rows: Sequence[Row], metric: str) -> tuple[dict[str, dict[int, float]], dict[str, Row]]:
    """Scores by model and seed (errors with a minus: larger is better), and one row of each model; every model must
    have the same seeds and splits."""
    scores: dict[str, dict[int, float]] = {}
    splits: dict[int, str] = {}
    about: dict[str, Row] = {}
    for row in rows:
        if splits.setdefault(row["seed"], row["split"]) != row["split"]:
            raise IncompleteError(f"Data set {name!r}: models of seed {row['seed']} have different splits")
        if metric not in TARGET_METRICS and (wrong := check_scores([row["accuracy"]], row["n_test"])):
            raise ArgumentError(f"Data set {name!r}, model {row['model']!r}, seed {row['seed']}: {wrong[0]}")
        scores.setdefault(row["model"], {})[row["seed"]] = sign_of(metric) * row[metric]
        about.setdefault(row["model"], row)
    for model, seeds in scores.items():
        if lacking := sorted(set(splits) - set(seeds)):
            raise IncompleteError(f"Data set {name!r}: model {model!r} lacks seeds {', '.join(map(str, lacking))}")
    return {model: dict(sorted(seeds.items())) for model, seeds in scores.items()}, about


def _check_controls(name: str, about: Mapping[str, Row], rows: Sequence[Row], metric: str) -> None:
    subjects = [model for model, row in about.items() if row["role"] == "subject"]
    if not subjects:
        raise IncompleteError(f"Data set {name!r}: there is no subject to compare")
    for subject in subjects:
        has_circuit = about[subject]["circuits_per_step"] > 0
        own = [control for control in CONTROLS if has_circuit or control not in LAYER_CONTROLS]
        present = {row["role"] for row in rows if row["subject"] in (subject, "")}
        if lacking := [
            control for control in (*own, *estimators_for(metric not in TARGET_METRICS)) if control not in present
        ]:
            raise IncompleteError(
                f"Data set {name!r}: {subject!r} cannot be judged without its control(s) {', '.join(lacking)}"
            )


def _verdicts(scored: Scored, gates: Gates, rules: Rules) -> list[Row]:
    """Every subject against each of its rivals, and against several at once."""
    pairs = {
        f"{subject}/{scored.control(model)}": (subject, model)
        for subject in scored.subjects
        for model in rivals_of(subject, scored.about)
    }
    saturated = nothing_shown(scored, rules)
    biases = {name: scored.bars[a].bias + scored.bars[b].bias for name, (a, b) in pairs.items()}
    exact = None
    if any(biases.values()):
        doubts = _doubts(scored, gates, nothing_shown(scored, rules, exact=True))
        exact = _judged(scored, pairs, dict.fromkeys(pairs, 0.0), doubts, rules)
    doubts = _doubts(scored, gates, saturated)
    rows: list[tuple[Row, Said]] = []  # with what would be said of each alone
    for name, (difference, p, alone, among) in _judged(scored, pairs, biases, doubts, rules).items():
        subject, model = pairs[name]
        control = scored.control(model)
        more = _errors(difference, among[0], None if exact is None else exact[name].among[0], rules.metric)
        alone, among = (_said(subject, control, word, why + more, gates.leak) for word, why in (alone, among))
        row = _row(scored.dataset, subject, control, difference, p, among, name == rules.primary)
        rows.append((row, alone))
    summaries = []
    for subject in scored.subjects:
        against = [(row, alone) for row, alone in rows if row["subject"] == subject]
        groups = {"circuit": LAYER_CONTROLS.keys(), "all": CONTROLS.keys() | ESTIMATORS.keys()}
        for group, controls in groups.items():
            if members := [(row, alone) for row, alone in against if row["control"] in controls]:
                notes = [*([saturated] if saturated else []), *gates.notes[subject]]
                summaries.append(_summary(scored.dataset, subject, group, members, notes))
    return [*(row for row, _ in rows), *summaries]


def _doubts(scored: Scored, gates: Gates, saturated: str | None) -> dict[str, str | None]:
    """Why to beat a model shows nothing."""
    return {model: saturated or gates.weak.get(model) for model in scored.about}


class _Judged(NamedTuple):
    """A pair: its difference, its p among all pairs, and what is said of it alone and among them."""

    difference: Difference
    p: float
    alone: Said
    among: Said


def _judged(
    scored: Scored,
    pairs: Mapping[str, tuple[str, str]],
    biases: Mapping[str, float],
    doubts: Mapping[str, str | None],
    rules: Rules,
) -> dict[str, _Judged]:
    """Judge each pair, by name: `biases` move its difference, `doubts` say why to beat a model shows nothing."""
    differences = {name: difference_of(scored, *pair, biases[name], rules) for name, pair in pairs.items()}
    p = corrected({name: difference.p for name, difference in differences.items()}, rules.primary)
    judged = {}
    for name, difference in differences.items():
        options: dict[str, Any] = {"rope": rules.rope, "alpha": rules.alpha, "metric": rules.metric}
        options["saturated"] = doubts[pairs[name][1]]
        alone = verdict(difference, **options)
        among = alone if name == rules.primary else verdict(difference, p[name], **options)
        judged[name] = _Judged(difference, p[name], alone, among)
    return judged


def _errors(difference: Difference, word: str, exact: str | None, metric: str) -> str:
    """What a verdict owes to the errors of outputs."""
    if exact is not None and exact != word:
        off = amount(difference.bias, metric)
        return f" Without what the simulation of circuits leaves out (up to {off}) it would be {exact}."
    share = difference.error_share or 0.0
    if word == "INCONCLUSIVE" and share >= MOSTLY:
        return f" {share:.0%} of the variance of the difference is that of shots: more of them would narrow it."
    return ""


def _twins(scored: Scored, twins: Sequence[Row], rules: Rules) -> list[Row]:
    """Each subject beside its classical twin: no comparison among the others, as it is the same trained model."""
    rows = []
    how: dict[str, Any] = {"rope": rules.rope, "alpha": rules.alpha}
    for subject in dict.fromkeys(row["subject"] for row in twins):
        own = {row["seed"]: sign_of(rules.metric) * row[rules.metric] for row in twins if row["subject"] == subject}
        ours = [scored.scores[subject][seed] for seed in own]
        difference = paired(ours, list(own.values()), test_share=scored.test_share, **how)
        said = _said(subject, TWIN, *verdict(difference, metric=rules.metric, **how))
        rows.append(_row(scored.dataset, subject, TWIN, difference, difference.p, said))
    return rows


def _row(
    dataset: str,
    subject: str,
    control: str,
    difference: Difference,
    p_adjusted: float,
    said: Said,
    primary: bool = False,
) -> Row:
    return {
        "dataset": dataset,
        "subject": subject,
        "control": control,
        **difference.to_row(),
        "p_adjusted": p_adjusted,
        "primary": primary,
        "verdict": said[0],
        "decided_by": control,
        "sentence": said[1],
    }


def _said(subject: str, control: str, word: str, sentence: str, leak: str | None = None) -> Said:
    """The word of a verdict and its sentence; nothing is decided where test rows were seen in training."""
    if leak and word != "INCONCLUSIVE":
        word, sentence = "INCONCLUSIVE", f"{sentence.rstrip('.')}, but {leak}."
    return word, f"{_says(subject, word, control)}: {sentence}"


def _says(subject: str, word: str, control: str) -> str:
    if word == "INCONCLUSIVE":
        return f"{subject} against {control} is {word}"
    return f"{subject} {word} to {control}" if word == "LOSES" else f"{subject} {word} {control}"


def _summary(name: str, subject: str, group: str, members: Sequence[tuple[Row, Said]], notes: Sequence[str]) -> Row:
    """The verdict against several controls: it BEATS them if it beats each, for which no p is corrected; one that it
    loses to decides, and as any of them might, there p is."""
    lost = any(row["verdict"] == "LOSES" for row, _ in members)
    said = [(row["verdict"], row["sentence"]) if lost or alone[0] == "LOSES" else alone for row, alone in members]
    words = [word for word, _ in said]
    if lost:
        word = "LOSES"
    elif set(words) == {"BEATS"}:
        word = "BEATS"
    elif "INCONCLUSIVE" in words:
        word = "INCONCLUSIVE"
    else:
        word = "TIES"
    of_word = [(row, sentence) for (row, _), (each, sentence) in zip(members, said, strict=True) if each == word]
    deciding, why = min(of_word, key=lambda pair: pair[0]["difference"])
    what = "its circuit's replacements" if group == "circuit" else "its controls"
    counts = ", ".join(f"{words.count(each)} {each}" for each in sorted(set(words)))
    if word == "BEATS" and len(members) > 1:
        counts += "; to beat all of them, each at the full level, needs no correction"
    sentence = f"{_says(subject, word, what)} on {name} ({counts}). Decided by {deciding['control']}: {why}"
    if notes:
        sentence += f" Note: {'; '.join(notes)}."
    return {**deciding, "control": group, "primary": False, "verdict": word, "sentence": sentence}


def _complexity(name: str, rows: Sequence[Row], sizes: Sequence[int], metric: str, alpha: float) -> list[Row]:
    if len(sizes) < 2:
        return []
    scores: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["model"], {}).setdefault(row["n_train"], []).append(sign_of(metric) * row[metric])
    best = max(float(np.mean(values)) for by_size in scores.values() for values in by_size.values())
    target = 0.95 * best if best > 0 else best / 0.95
    about = {"dataset": name, "target": sign_of(metric) * target}
    return [
        {**about, "model": model, **sample_complexity(by_size, target, alpha)}
        for model, by_size in scores.items()
        if len({len(values) for values in by_size.values()}) == 1
    ]

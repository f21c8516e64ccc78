"""The sections of a comparison's page on one data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from qbp.comparison.comparing import Comparison
from qbp.comparison.scores import TARGET_METRICS, sign_of
from qbp.comparison.twins import TWIN
from qbp.report import charts, metrics, parts
from qbp.report.costs import costs, tuning
from qbp.report.document import (
    Badge,
    Block,
    Cell,
    Column,
    Details,
    Dot,
    Grid,
    Heading,
    Section,
    Strong,
    Table,
    number,
)

__all__ = ["TITLES", "dataset_sections"]

# The ladder from no circuit to the whole one, and what each rung is.
LADDER = {
    "noise": "noise instead",
    "removed": "circuit removed",
    "layer_linear": "linear layer instead",
    "layer_tanh": "tanh layer instead",
    "layer_sine": "sine layer instead",
    "frozen": "circuit frozen at random",
    "separable": "entanglers removed",
    "subject": "the whole model",
}
TITLES = {
    **{role: title for role, title in LADDER.items() if role != "subject"},
    "matched_parameters": "MLP, as many parameters",
    "matched_compute": "MLP, as many multiply-adds",
    "matched_time": "MLP, as much time",
    "linear_model": "linear model",
    "logistic_regression": "logistic regression",
    "ridge": "ridge regression",
    "svm_rbf": "SVM, RBF kernel",
    "random_fourier": "random Fourier features",
    "random_forest": "random forest",
    "gradient_boosting": "gradient boosting",
    "multilayer_perceptron": "MLP, scikit-learn",
    "majority": "the most frequent class",
    "mean": "the mean of the targets",
    "classical_twin": "the trained circuit as plain torch",
    "identical": "the same model again",
    "circuit": "all that can take the circuit's place",
}
QUANTUM = ("frozen", "separable")  # rungs that still have a circuit


@dataclass(frozen=True)
class Model:
    """What the seeds of a model came to on one data set, with all rows to train on."""

    name: str
    rows: tuple[Mapping[str, Any], ...]

    @property
    def role(self) -> str:
        return str(self.rows[0]["role"])

    @property
    def title(self) -> str:
        return self.name if self.role == "subject" else TITLES.get(self.role, self.name)

    def mean(self, column: str) -> float | None:
        values = [row[column] for row in self.rows if row.get(column) is not None]
        return fmean(values) if values else None

    def interval(self, metric: str) -> tuple[float, float, float]:
        """Mean of a score, and Student's 95 % interval over seeds, as far as it lies within what the score can be."""
        mean, low, high = interval([row[metric] for row in self.rows])
        lowest, highest = metrics.limits(metric)
        return mean, max(low, lowest), min(high, highest)


def _models(comparison: Comparison, dataset: str) -> list[Model]:
    rows = [row for row in comparison.rows if row["dataset"] == dataset]
    largest = max(row["n_train"] for row in rows)
    full = [row for row in rows if row["n_train"] == largest]
    names = dict.fromkeys(row["model"] for row in full)
    return [Model(name, tuple(row for row in full if row["model"] == name)) for name in names]


def dataset_sections(
    comparison: Comparison, name: str, metric: str, config: Mapping[str, Any], *, alone: bool
) -> list[Section]:
    """Tell what a comparison found on one data set: a section for each topic, or one with all where it is not alone."""
    models = _models(comparison, name)
    verdicts = [
        row for row in comparison.verdicts if row["dataset"] == name and row["control"] not in ("all", "circuit")
    ]
    topics = {
        "Scores": _scores(models, metric),
        "Against each control": _forests(verdicts, metric, config),
        "What does the circuit do?": _ladders(models, metric),
        "What it costs": (*costs(models, metric), *tuning(models, metric)),
        "Training and data": _curves(comparison, name, models, metric),
        "What was taken for what": _confusions(models, metric),
    }
    parts_of = {title: tuple(blocks) for title, blocks in topics.items()}
    if alone:
        return [Section(_anchor(title), title, blocks) for title, blocks in parts_of.items()]
    together = [block for title, blocks in parts_of.items() if blocks for block in (Heading(title), *blocks)]
    return [Section(_anchor(f"data {name}"), name, tuple(together))]


def _anchor(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def _scores(models: Sequence[Model], metric: str) -> Iterator[Block]:
    intervals = {model.name: model.interval(metric) for model in models}
    sign, beside = sign_of(metric), metrics.scores_beside(metric)
    ordered = sorted(models, key=lambda model: -sign * intervals[model.name][0])
    best = next((model for model in ordered if not _is_quantum(model)), None)
    rows = []
    for model in ordered:
        mean, low, high = intervals[model.name]
        ends = [metrics.score(end, metric).removesuffix(" %") for end in (low, high)]
        said = f"{metrics.score(mean, metric)} [{ends[0]}, {ends[1]}]"
        converged = sum(bool(row["converged"]) for row in model.rows)
        title: Cell = Strong(model.title) if model.role == "subject" else model.title
        rows.append(
            (
                title,
                Dot(mean, low, high, series=0 if model.role == "subject" else 3),
                Strong(said) if model is best else said,
                *(number(model.mean(column)) for column in beside),
                number(round(model.mean("n_parameters") or 0)),
                f"{converged} of {len(model.rows)}",
            )
        )
    columns = (
        Column("model", "text"),
        Column(metric.replace("_", " "), "dots"),
        Column("mean [95 %]"),
        *(Column(title) for title in beside.values()),
        Column("parameters"),
        Column("converged"),
    )
    scale = parts.scale_of([x for row in intervals.values() for x in row], label=partial(metrics.tick, metric=metric))
    first = models[0].rows
    note = (
        f"{len(first)} seeds, {first[0]['n_train']} rows to train on, {first[0]['n_test']} to test. Intervals: "
        "Student's t over seeds. "
        + (
            ""
            if metric in TARGET_METRICS
            else "Balanced: mean accuracy over classes. ECE: how far confidence is from accuracy. "
        )
        + "Bold: the best model without a circuit."
    )
    yield Table("Scores on held-out rows, best first", columns, tuple(rows), note, scale)


def _is_quantum(model: Model) -> bool:
    return any(row["circuits_per_step"] for row in model.rows) or model.role in ("subject", TWIN)


def _forests(verdicts: Sequence[Mapping[str, Any]], metric: str, config: Mapping[str, Any]) -> Iterator[Block]:
    rope = config.get("rope", 0.01)
    for subject in dict.fromkeys(row["subject"] for row in verdicts):
        order = list(TITLES)
        own = [row for row in verdicts if row["subject"] == subject]
        own.sort(key=lambda row: order.index(row["control"]) if row["control"] in order else -1)
        rows: list[tuple[Cell, ...]] = []
        for row in own:
            title = TITLES.get(row["control"], row["control"])
            colour = {"BEATS": 2, "LOSES": 1}.get(row["verdict"], 3)
            points = [metrics.gain(row[key], metric) for key in ("difference", "low", "high")]
            said = f"{points[0]} [{points[1]}, {points[2]}]"
            dot = Dot(row["difference"], row["low"], row["high"], colour)
            p = number(row["p_adjusted"], 2) + (" *" if row.get("primary") else "")
            rows.append((title, Badge(row["verdict"]), dot, said, p, _effect(row["effect"])))
        columns = (
            Column("control", "text"),
            Column("verdict", "lead"),
            Column(f"{subject} minus control" if sign_of(metric) > 0 else f"control minus {subject}", "dots"),
            Column(f"{metrics.unit(metric)} [95 %]"),
            Column("p (Holm)"),
            Column("effect"),
        )
        values = [row[key] for row in own for key in ("difference", "low", "high")]
        scale = parts.scale_of(values, label=partial(metrics.tick_of_gain, metric=metric), line=0.0, band=(-rope, rope))
        note = (
            f"Right of the line {subject} is better. Shaded: differences of up to {metrics.region(rope, metric)}, "
            f"which do not matter. {own[0]['n']} pairs, of which a sign-flip test could make no p below "
            f"{number(own[0].get('attainable'), 2)}. Effect: mean by standard deviation of the differences."
        )
        if any(row.get("primary") for row in own):
            note += " *: fixed beforehand as the primary comparison, so not corrected."
        yield Table(
            f"Difference in {metric.replace('_', ' ')} of {subject} and each control", columns, tuple(rows), note, scale
        )


def _ladders(models: Sequence[Model], metric: str) -> Iterator[Block]:
    for subject in (model for model in models if model.role == "subject"):
        own = {m.role: m for m in models if m is subject or m.rows[0]["subject"] == subject.name}
        rungs = [(role, own[role]) for role in LADDER if role in own]
        if len(rungs) < 3:
            continue
        intervals = {role: model.interval(metric) for role, model in rungs}
        whole = intervals["subject"][0]
        rows = []
        for role, model in rungs:
            mean, low, high = intervals[role]
            title: Cell = Strong(LADDER[role]) if role == "subject" else LADDER[role]
            less = "" if role == "subject" else metrics.gain(sign_of(metric) * (mean - whole), metric)
            parameters = number(round(model.mean("n_parameters") or 0))
            dot = Dot(mean, low, high, series=0 if role == "subject" else 3)
            rows.append((title, dot, metrics.score(mean, metric), less or "-", parameters))
        columns = (
            Column("what is there", "text"),
            Column(metric.replace("_", " "), "dots"),
            Column("mean"),
            Column(f"{metrics.unit(metric)}, from the whole"),
            Column("parameters"),
        )
        scale = parts.scale_of(
            [x for row in intervals.values() for x in row], label=partial(metrics.tick, metric=metric), line=whole
        )
        gains = (
            sign_of(metric) * (mean - whole)
            for role, (mean, _, _) in intervals.items()
            if role not in ("subject", *QUANTUM)
        )
        note = (
            "The line is the whole model. Whatever stands on it without a trained, entangling circuit does the same "
            f"without one. The best rung without a circuit: {metrics.unit(metric)} {metrics.gain(max(gains), metric)}."
        )
        yield Table(f"From no circuit to all of {subject.name}", columns, tuple(rows), note, scale)


def _effect(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def _curves(comparison: Comparison, dataset: str, models: Sequence[Model], metric: str) -> Iterator[Block]:
    full = max(row["n_train"] for row in comparison.rows if row["dataset"] == dataset)
    shown = [m for m in models if m.role in ("subject", "separable", "layer_sine", "matched_parameters", "removed")]
    figures = []
    curves = [row for row in comparison.curves if row["dataset"] == dataset and row["n_train"] == full]
    for key in ("loss", "r2" if metric in TARGET_METRICS else "accuracy"):
        points: dict[str, list[tuple[float, float, float, float]]] = {}
        for model in shown:
            by_epoch: dict[int, list[float]] = {}
            for row in curves:
                if row["model"] == model.name and row.get(key) is not None:
                    by_epoch.setdefault(row["epoch"], []).append(row[key])
            if by_epoch:
                means = [(float(epoch), *interval(values)) for epoch, values in sorted(by_epoch.items())]
                points[model.title] = means
        if points:
            ends = ", ".join(f"{name} {line[-1][1]:.3g}" for name, line in points.items())
            caption = f"Training {key} by epoch; bands: 95 % intervals over seeds."
            figures.append(charts.learning(points, "epoch", key, caption, f"{caption} At the end: {ends}."))
    sizes = sorted({row["n_train"] for row in comparison.rows if row["dataset"] == dataset})
    name = metric.replace("_", " ")
    if len(sizes) > 1:
        points = {}
        picked = [*shown, *(m for m in models if m.role in ("svm_rbf", "logistic_regression"))]
        for model in picked[:6]:
            by_size = [
                (size, comparison.column(metric, dataset=dataset, model=model.name, n_train=size)) for size in sizes
            ]
            means = [(float(size), *interval(values)) for size, values in by_size if values]
            points[model.title] = means
        caption = f"{name.capitalize()} against rows to train on; bands: 95 % intervals over seeds."
        figures.append(charts.learning(points, "rows to train on", name, caption, caption, ticks=sizes))
    if figures:
        yield Grid(tuple(figures))
    needs = [row for row in comparison.sample_complexity if row["dataset"] == dataset]
    if needs:
        titles = {model.name: model.title for model in models}
        needed: tuple[tuple[Cell, ...], ...] = tuple(
            (titles.get(row["model"]) or row["model"], number(row["n_needed"]), number(row["low"]), number(row["high"]))
            for row in sorted(needs, key=lambda row: row["n_needed"] or float("inf"))
        )
        columns = (Column("model", "text"), Column("rows needed"), Column("from"), Column("to"))
        target = metrics.score(needs[0].get("target"), metric)
        best = f"{name} within 5 % of the lowest" if sign_of(metric) < 0 else f"95 % of the best {name}"
        caption = f"Rows to train on for {best}, which is {target}; - is more than there are"
        yield Details("How many rows each model needs", (Table(caption, columns, needed),))


def _confusions(models: Sequence[Model], metric: str) -> Iterator[Block]:
    if metric in TARGET_METRICS:
        return
    subjects = [model for model in models if model.role == "subject"]
    classical = [model for model in models if not _is_quantum(model)]
    best = sorted(classical, key=lambda model: -(model.mean(metric) or 0))[:1]
    tables = []
    for model in [*subjects, *best]:
        counts = [json.loads(row["confusion"]) for row in model.rows]
        total = [[sum(c[i][j] for c in counts) for j in range(len(counts[0]))] for i in range(len(counts[0]))]
        classes = [str(k) for k in range(len(total))]
        tables.append(parts.confusion(f"{model.title}, all seeds", total, classes))
    yield Grid(tuple(tables))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and Student's 95 % interval of it.

    Example:
        >>> [round(x, 3) for x in interval([0.8, 0.9, 1.0])]
        [0.9, 0.652, 1.148]
    """
    from scipy import stats

    mean = fmean(values)
    if len(values) < 2 or max(values) == min(values):
        return mean, mean, mean
    limits = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return mean, float(limits.low), float(limits.high)

"""What the models of a comparison cost, and what more tuning would bring them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from qbp.comparison.ranks import expected_best
from qbp.comparison.scores import sign_of
from qbp.report import charts, metrics
from qbp.report.document import Block, Cell, Column, Details, Grid, Table, number

if TYPE_CHECKING:
    from qbp.report.dataset import Model

__all__ = ["costs", "tuning"]

COSTS = {
    "n_parameters": "trained parameters",
    "quantum_seconds": "seconds on a quantum device, for training",
    "multiply_adds": "multiply-adds of one row forward, the circuit simulated",
    "train_seconds": "seconds of training on this machine",
}


def costs(models: Sequence[Model], metric: str) -> Iterator[Block]:
    """Tell what each model costs: its score against each cost, and all costs in a table."""
    figures = []
    name = metric.replace("_", " ")
    ordered = sorted(models, key=lambda model: model.role != "subject")
    subjects = [model.title for model in models if model.role == "subject"]
    for column, title in COSTS.items():
        points = {}
        for model in ordered:
            cost = model.mean(column)
            if cost:
                points[model.title] = [(cost, *model.interval(metric))]
        if len(points) < 2 or not any(subject in points for subject in subjects):
            continue
        alt = f"{name} against {title}: " + "; ".join(
            f"{key} {metrics.score(rows[0][1], metric)} at {number(rows[0][0])}" for key, rows in points.items()
        )
        caption = f"{name.capitalize()} against {title}."
        named = _named(points, subjects, sign_of(metric))
        if len(named) > len(subjects):
            caption += f" Named: {', '.join(subjects)}, the best, and the cheapest that is as good as {subjects[0]}."
        figures.append(charts.scatter(points, named, title, name, caption, f"{alt}."))
    if figures:
        yield Grid(tuple(figures))
    columns = (
        Column("model", "text"),
        Column("parameters"),
        Column("gates"),
        Column("two-qubit gates"),
        Column("circuits a step"),
        Column("quantum seconds"),
        Column("multiply-adds a row"),
        Column("training, s"),
        Column("tuning, s"),
    )
    keys = ("n_parameters", "n_gates", "two_qubit_gates", "circuits_per_step", "quantum_seconds", "multiply_adds")
    rows = tuple(
        (
            model.title,
            *(number(round(model.mean(key) or 0) or None) for key in keys),
            _seconds(model.mean("train_seconds")),
            _seconds(model.mean("tune_seconds")),
        )
        for model in ordered
    )
    note = (
        "Quantum seconds: training by the parameter-shift rule with 1,000 shots of 250 microseconds for each circuit."
    )
    yield Table("What each model costs, mean over seeds", columns, rows, note)


def tuning(models: Sequence[Model], metric: str) -> Iterator[Block]:
    """What trying more configurations brings each model, by their scores on held-out folds."""
    rows: list[tuple[Cell, ...]] = []
    for model in models:
        tried = [json.loads(row["tried"]) for row in model.rows if row.get("tried")]
        cv_scores = [[score for score in scores if score is not None] for scores in tried]
        if cv_scores and all(cv_scores):
            sign = sign_of(metric)
            best = [expected_best([sign * score for score in scores]) for scores in cv_scores]
            shortest = min(map(len, best))
            means = [sign * fmean(seed[k] for seed in best) for k in range(shortest)]
            rows.append((model.title, *(metrics.score(mean, metric) for mean in means)))
    most = max(map(len, rows), default=0) - 1
    if most > 1:
        columns = (Column("model", "text"), *(Column(f"of {k + 1}") for k in range(most)))
        filled = tuple((*row, *["-"] * (most + 1 - len(row))) for row in rows)
        caption = f"{metric.replace('_', ' ').capitalize()} on held-out folds, expected of the best of k configurations"
        note = "Of those that were tried (arXiv 1909.03004); a model that gains much from more was tuned too little."
        yield Details("What more tuning would bring", (Table(caption, columns, filled, note),))


def _named(points: charts.Points, subjects: Sequence[str], sign: int) -> list[str]:
    """The subjects, the best model, and the cheapest that is as good as the first subject."""
    places = {name: (rows[0][0], sign * rows[0][1]) for name, rows in points.items()}
    best = max(places, key=lambda name: places[name][1])
    goal = min(places[subject][1] for subject in subjects if subject in places)
    cheapest = min((name for name in places if places[name][1] >= goal), key=lambda name: places[name][0])
    return list(dict.fromkeys([*(s for s in subjects if s in places), best, cheapest]))


def _seconds(value: float | None) -> str:
    return number(None if value is None or value < 1e-3 else value)

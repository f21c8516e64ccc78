"""The sections of a comparison's page on one data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from qbp.compare import Comparison
from qbp.page import charts, parts
from qbp.page.document import Badge, Block, Cell, Column, Dot, Grid, Section, Strong, Table, number, percent

__all__ = ["TITLES", "dataset_sections"]

# The ladder from no circuit to the whole one, and what each rung is.
LADDER = {
    "removed": "circuit removed",
    "layer_linear": "a linear layer in its place",
    "layer_tanh": "a tanh layer in its place",
    "layer_sine": "a sine layer in its place",
    "frozen": "circuit frozen at random",
    "separable": "entanglers removed",
    "subject": "the whole model",
}
TITLES = {
    **{role: f"{role}: {title}" for role, title in LADDER.items() if role != "subject"},
    "matched_parameters": "MLP with as many parameters",
    "matched_compute": "MLP with as many multiply-adds",
    "linear_model": "linear model",
    "logistic_regression": "logistic regression",
    "svm_rbf": "SVM, RBF kernel",
    "random_forest": "random forest",
    "gradient_boosting": "gradient boosting",
    "multilayer_perceptron": "MLP of scikit-learn",
    "circuit": "all that can take the circuit's place",
}
QUANTUM = ("frozen", "separable")  # rungs that still have a circuit
COSTS = {
    "n_parameters": "trained parameters",
    "quantum_seconds": "seconds on a quantum device, for training",
    "multiply_adds": "multiply-adds of one row forward, the circuit simulated",
    "train_seconds": "seconds of training on this machine",
}


@dataclass(frozen=True)
class Model:
    """What the seeds of a model came to on one data set, with all rows to train on."""

    name: str
    role: str
    rows: tuple[Mapping[str, Any], ...]

    @property
    def title(self) -> str:
        return self.name if self.role == "subject" else TITLES.get(self.role, self.name)

    def mean(self, column: str) -> float | None:
        values = [row[column] for row in self.rows if row[column] is not None]
        return fmean(values) if values else None

    def interval(self, column: str) -> tuple[float, float, float]:
        """Mean and the 95 % interval of Student's t over seeds."""
        return interval([row[column] for row in self.rows])


def _models(found: Comparison, dataset: str) -> list[Model]:
    rows = [row for row in found.rows if row["dataset"] == dataset]
    largest = max(row["n_train"] for row in rows)
    full = [row for row in rows if row["n_train"] == largest]
    names = dict.fromkeys(row["model"] for row in full)
    made = [Model(name, "", tuple(row for row in full if row["model"] == name)) for name in names]
    return [Model(model.name, model.rows[0]["role"], model.rows) for model in made]


def dataset_sections(
    found: Comparison, name: str, metric: str, config: Mapping[str, Any], suffix: str
) -> Iterator[Section]:
    models = _models(found, name)
    verdicts = [row for row in found.verdicts if row["dataset"] == name and row["control"] not in ("all", "circuit")]
    anchor = "".join(c if c.isalnum() else "-" for c in name)
    yield Section(f"scores-{anchor}", f"Scores{suffix}", tuple(_scores(models, metric)))
    yield Section(
        f"differences-{anchor}", f"Against each control{suffix}", tuple(_forests(verdicts, metric, config, models))
    )
    yield Section(f"ladder-{anchor}", f"What does the circuit do?{suffix}", tuple(_ladders(models, metric)))
    yield Section(f"cost-{anchor}", f"What it costs{suffix}", tuple(_costs(models, metric)))
    yield Section(f"training-{anchor}", f"Training and data{suffix}", tuple(_curves(found, name, models, metric)))
    yield Section(f"confusion-{anchor}", f"What was taken for what{suffix}", tuple(_confusions(models, metric)))


def _scores(models: Sequence[Model], metric: str) -> Iterator[Block]:
    found = {model.name: model.interval(metric) for model in models}
    best = max((model for model in models if not _is_quantum(model)), key=lambda m: found[m.name][0], default=None)
    ordered = sorted(models, key=lambda model: -found[model.name][0])
    rows = []
    for model in ordered:
        mean, low, high = found[model.name]
        said = f"{percent(mean)} [{percent(low)}, {percent(high)}]"
        others = [number(model.mean(c)) for c in ("balanced_accuracy", "f1", "log_loss")]
        unconverged = sum(not row["converged"] for row in model.rows)
        title: Cell = Strong(model.title) if model.role == "subject" else model.title
        rows.append(
            (
                title,
                Dot(mean, low, high, series=0 if model.role == "subject" else 3),
                Strong(said) if model is best else said,
                *others,
                number(round(model.mean("n_parameters") or 0)),
                f"{unconverged} of {len(model.rows)}" if unconverged else "all",
            )
        )
    columns = (
        Column("model", "text"),
        Column(metric.replace("_", " "), "dots"),
        Column("mean [95 % interval]"),
        Column("balanced accuracy"),
        Column("F1"),
        Column("log loss"),
        Column("parameters"),
        Column("converged"),
    )
    scale = parts.scale_of([x for row in found.values() for x in row], label=parts.whole_percent)
    first = models[0].rows
    note = (
        f"{len(first)} seeds, {first[0]['n_train']} rows to train on, {first[0]['n_test']} to test. Intervals: "
        "Student's t over seeds. Bold: the best model without a circuit."
    )
    yield Table("Scores on held-out rows, best first", columns, tuple(rows), note, scale)


def _is_quantum(model: Model) -> bool:
    return any(row["circuits_per_step"] for row in model.rows) or model.role == "subject"


def _forests(
    verdicts: Sequence[Mapping[str, Any]], metric: str, config: Mapping[str, Any], models: Sequence[Model]
) -> Iterator[Block]:
    rope = config.get("rope", 0.01)
    roles = {model.name: model.role for model in models}
    for subject in dict.fromkeys(row["subject"] for row in verdicts):
        own = [row for row in verdicts if row["subject"] == subject]
        rows: list[tuple[Cell, ...]] = []
        for row in own:
            role = roles.get(row["control"], row["control"].rpartition("/")[2])
            title = row["control"] if role == "subject" else TITLES.get(role, row["control"])
            colour = {"BEATS": 2, "LOSES": 1}.get(row["verdict"], 3)
            points = [parts.points(row[key]) for key in ("difference", "low", "high")]
            said = f"{points[0]} [{points[1]}, {points[2]}]"
            dot = Dot(row["difference"], row["low"], row["high"], colour)
            rows.append(
                (title, Badge(row["verdict"]), dot, said, number(row["p_adjusted"], 2), number(row["effect"], 2))
            )
        columns = (
            Column("control", "text"),
            Column("verdict", "lead"),
            Column(f"{subject} minus control", "dots"),
            Column("points [95 % interval]"),
            Column("p (Holm)"),
            Column("effect"),
        )
        values = [row[key] for row in own for key in ("difference", "low", "high")]
        scale = parts.scale_of(values, label=parts.points, line=0.0, band=(-rope, rope))
        note = (
            f"Right of the line {subject} is better. Shaded: differences of up to {100 * rope:g} point(s), which do "
            f"not matter. {own[0]['n']} pairs; the smallest p that so many can give: {number(own[0].get('attainable'), 2)}. "
            "Effect: mean by standard deviation of the differences."
        )
        yield Table(
            f"Difference in {metric.replace('_', ' ')} of {subject} and each control", columns, tuple(rows), note, scale
        )


def _ladders(models: Sequence[Model], metric: str) -> Iterator[Block]:
    for subject in (model for model in models if model.role == "subject"):
        own = {m.role: m for m in models if m is subject or m.rows[0]["subject"] == subject.name}
        rungs = [(role, own[role]) for role in LADDER if role in own]
        if len(rungs) < 3:
            continue
        found = {role: model.interval(metric) for role, model in rungs}
        whole = found["subject"][0]
        rows = []
        for role, model in rungs:
            mean, low, high = found[role]
            title: Cell = Strong(LADDER[role]) if role == "subject" else LADDER[role]
            less = "" if role == "subject" else f"{parts.points(mean - whole)}"
            parameters = number(round(model.mean("n_parameters") or 0))
            dot = Dot(mean, low, high, series=0 if role == "subject" else 3)
            rows.append((title, dot, percent(mean), less or "-", parameters))
        columns = (
            Column("what is there", "text"),
            Column(metric.replace("_", " "), "dots"),
            Column("mean"),
            Column("points from the whole"),
            Column("parameters"),
        )
        scale = parts.scale_of([x for row in found.values() for x in row], label=parts.whole_percent, line=whole)
        classical = max(mean for role, (mean, _, _) in found.items() if role != "subject" and role not in QUANTUM)
        note = (
            "The line is the whole model. Whatever stands on it without a trained, entangling circuit does the same "
            f"without one. The best rung without a circuit is {parts.points(classical - whole)} points from it."
        )
        yield Table(f"From no circuit to all of {subject.name}", columns, tuple(rows), note, scale)


def _costs(models: Sequence[Model], metric: str) -> Iterator[Block]:
    figures = []
    name = metric.replace("_", " ")
    ordered = sorted(models, key=lambda model: model.role != "subject")
    for column, title in COSTS.items():
        points = {}
        for model in ordered:
            cost = model.mean(column)
            if cost:
                points[model.name.rpartition("/")[2]] = [(cost, *model.interval(metric))]
        if len(points) < 2:
            continue
        alt = f"{name} against {title}: " + "; ".join(
            f"{key} {percent(rows[0][1])} at {number(rows[0][0])}" for key, rows in points.items()
        )
        figures.append(charts.scatter(points, title, name, f"{name.capitalize()} against {title}.", f"{alt}."))
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
            *(number(_round(model.mean(key))) for key in keys),
            number(model.mean("train_seconds")),
            number(model.mean("tune_seconds")),
        )
        for model in ordered
    )
    note = (
        "Quantum seconds: training by the parameter-shift rule with 1,000 shots of 250 microseconds for each circuit."
    )
    yield Table("What each model costs, mean over seeds", columns, rows, note)


def _round(value: float | None) -> float | int | None:
    return round(value) if value is not None and value == round(value) else value


def _curves(found: Comparison, dataset: str, models: Sequence[Model], metric: str) -> Iterator[Block]:
    full = max(row["n_train"] for row in found.rows if row["dataset"] == dataset)
    shown = [m for m in models if m.role in ("subject", "separable", "layer_sine", "matched_parameters", "removed")]
    figures = []
    curves = [row for row in found.curves if row["dataset"] == dataset and row["n_train"] == full]
    for key in ("loss", "accuracy"):
        points: dict[str, list[tuple[float, float, float, float]]] = {}
        for model in shown:
            by_epoch: dict[int, list[float]] = {}
            for row in curves:
                if row["model"] == model.name and row.get(key) is not None:
                    by_epoch.setdefault(row["epoch"], []).append(row[key])
            if by_epoch:
                means = [(float(epoch), *interval(values)) for epoch, values in sorted(by_epoch.items())]
                points[model.name.rpartition("/")[2]] = means
        if points:
            ends = ", ".join(f"{name} {line[-1][1]:.3g}" for name, line in points.items())
            caption = f"Training {key} by epoch; bands: 95 % intervals over seeds."
            figures.append(charts.learning(points, "epoch", key, caption, f"{caption} At the end: {ends}."))
    sizes = sorted({row["n_train"] for row in found.rows if row["dataset"] == dataset})
    name = metric.replace("_", " ")
    if len(sizes) > 1:
        points = {}
        picked = [*shown, *(m for m in models if m.role in ("svm_rbf", "logistic_regression"))]
        for model in picked[:6]:
            by_size = [(size, found.column(metric, dataset=dataset, model=model.name, n_train=size)) for size in sizes]
            means = [(float(size), *interval(values)) for size, values in by_size if values]
            points[model.name.rpartition("/")[2]] = means
        caption = f"{name.capitalize()} against rows to train on; bands: 95 % intervals over seeds."
        figures.append(charts.learning(points, "rows to train on", name, caption, caption, log=True))
    if figures:
        yield Grid(tuple(figures))
    needs = [row for row in found.sample_complexity if row["dataset"] == dataset]
    if needs:
        titles = {model.name: model.title for model in models}
        rows = tuple(
            (titles.get(row["model"], row["model"]), number(row["n_needed"]), number(row["low"]), number(row["high"]))
            for row in sorted(needs, key=lambda row: row["n_needed"] or float("inf"))
        )
        columns = (Column("model", "text"), Column("rows needed"), Column("from"), Column("to"))
        target = percent(needs[0].get("target"))
        yield Table(f"Rows to train on for 95 % of the best {name} ({target}); - is more than there are", columns, rows)


def _confusions(models: Sequence[Model], metric: str) -> Iterator[Block]:
    subjects = [model for model in models if model.role == "subject"]
    classical = [model for model in models if not _is_quantum(model)]
    best = sorted(classical, key=lambda model: -(model.mean(metric) or 0))[:1]
    tables = []
    for model in [*subjects, *best]:
        counts = [json.loads(row["confusion"]) for row in model.rows]
        total = [[sum(c[i][j] for c in counts) for j in range(len(counts[0]))] for i in range(len(counts[0]))]
        classes = [str(k) for k in range(len(total))]
        tables.append(parts.confusion(f"{model.title}, all seeds together", total, classes))
    yield Grid(tuple(tables))


def interval(self, column: str) -> tuple[float, float, float]:
    """Mean and the 95 % interval of Student's t over seeds."""
    return interval([row[column] for row in self.rows])


def comparison_document(directory: str | Path | Comparison) -> Document:
    """Tell what a comparison came to.

    Args:
        directory: where `qbp compare` wrote it, or a comparison in memory.

    Returns:
        The page.

    Raises:
        ConfigError: it is no comparison.
    """
    found = directory if isinstance(directory, Comparison) else load_comparison(directory)
    config = dict(found.config or {})
    metric = config.get("metric", "accuracy")
    datasets = list(dict.fromkeys(row["dataset"] for row in found.rows))
    sections: list[Section] = []
    for name in datasets:
        sections += _dataset(found, name, metric, config, f": {name}" if len(datasets) > 1 else "")
    if found.ranks:
        sections.append(Section("ranks", "Ranks over all data sets", tuple(_ranks(found.ranks))))
    if found.directory is not None:
        sections += parts.tables_of(found.directory)
    sections.append(Section("circuit", "The circuits", tuple(_circuits(found))))
    sections.append(Section("method", "Method", (Paragraph(_method(found, config, metric)),)))
    sections.append(Section("provenance", "Run it again", tuple(_provenance(found, config))))
    subjects = list(dict.fromkeys(row["model"] for row in found.rows if row["role"] == "subject"))
    facts = {
        "data sets": str(len(datasets)),
        "models": str(len({row["model"] for row in found.rows})),
        "seeds": str(len({row["seed"] for row in found.rows})),
        "trainings kept": str(len(found.rows)),
        "configurations tried for each model": str(config.get("budget", "-")),
    }
    return Document(
        title=f"Does the quantum part of {' and '.join(subjects)} do anything?",
        subtitle=f"A comparison with controls on {', '.join(datasets)}",
        verdicts=tuple(_verdicts(found)) or (_unfinished(found),),
        facts=tuple(facts.items()),
        sections=tuple(section for section in sections if section.blocks),
    )


# ---- the verdicts ----------------------------------------------------------------------------------------------------


def _verdicts(found: Comparison) -> Iterator[Verdict]:
    for row in found.verdicts:
        if row["control"] not in ("all", "circuit"):
            continue
        control = str(row.get("decided_by") or "its controls")
        control = TITLES.get(control.rpartition("/")[2], control)
        heading = PLAIN[row["verdict"]].format(subject=row["subject"], control=control)
        about = f"{row['subject']} on {row['dataset']}"
        if row["control"] == "circuit":
            about += ", against all that can take the circuit's place"
        yield Verdict(row["verdict"], about, heading, row["sentence"])


def _unfinished(found: Comparison) -> Verdict:
    return Verdict(
        "INCONCLUSIVE",
        "not finished",
        "The comparison is not finished: nothing can be said yet.",
        f"{len(found.rows)} cells are there. Go on with the command below.",
    )


# ---- a data set ------------------------------------------------------------------------------------------------------


def _models(found: Comparison, dataset: str) -> list[Model]:
    rows = [row for row in found.rows if row["dataset"] == dataset]
    largest = max(row["n_train"] for row in rows)
    full = [row for row in rows if row["n_train"] == largest]
    names = dict.fromkeys(row["model"] for row in full)
    made = [Model(name, "", tuple(row for row in full if row["model"] == name)) for name in names]
    return [Model(model.name, model.rows[0]["role"], model.rows) for model in made]


def dataset_sections(
    found: Comparison, name: str, metric: str, config: Mapping[str, Any], suffix: str
) -> Iterator[Section]:
    models = _models(found, name)
    verdicts = [row for row in found.verdicts if row["dataset"] == name and row["control"] not in ("all", "circuit")]
    anchor = "".join(c if c.isalnum() else "-" for c in name)
    yield Section(f"scores-{anchor}", f"Scores{suffix}", tuple(_scores(models, metric)))
    yield Section(
        f"differences-{anchor}", f"Against each control{suffix}", tuple(_forests(verdicts, metric, config, models))
    )
    yield Section(f"ladder-{anchor}", f"What does the circuit do?{suffix}", tuple(_ladders(models, metric)))
    yield Section(f"cost-{anchor}", f"What it costs{suffix}", tuple(_costs(models, metric)))
    yield Section(f"training-{anchor}", f"Training and data{suffix}", tuple(_curves(found, name, models, metric)))
    yield Section(f"confusion-{anchor}", f"What was taken for what{suffix}", tuple(_confusions(models, metric)))


def _scores(models: Sequence[Model], metric: str) -> Iterator[Block]:
    found = {model.name: model.interval(metric) for model in models}
    best = max((model for model in models if not _is_quantum(model)), key=lambda m: found[m.name][0], default=None)
    ordered = sorted(models, key=lambda model: -found[model.name][0])
    rows = []
    for model in ordered:
        mean, low, high = found[model.name]
        said = f"{percent(mean)} [{percent(low)}, {percent(high)}]"
        others = [number(model.mean(c)) for c in ("balanced_accuracy", "f1", "log_loss")]
        unconverged = sum(not row["converged"] for row in model.rows)
        title: Cell = Strong(model.title) if model.role == "subject" else model.title
        rows.append(
            (
                title,
                Dot(mean, low, high, series=0 if model.role == "subject" else 3),
                Strong(said) if model is best else said,
                *others,
                number(round(model.mean("n_parameters") or 0)),
                f"{unconverged} of {len(model.rows)}" if unconverged else "all",
            )
        )
    columns = (
        Column("model", "text"),
        Column(metric.replace("_", " "), "dots"),
        Column("mean [95 % interval]"),
        Column("balanced accuracy"),
        Column("F1"),
        Column("log loss"),
        Column("parameters"),
        Column("converged"),
    )
    scale = parts.scale_of([x for row in found.values() for x in row], label=parts.whole_percent)
    first = models[0].rows
    note = (
        f"{len(first)} seeds, {first[0]['n_train']} rows to train on, {first[0]['n_test']} to test. Intervals: "
        "Student's t over seeds. Bold: the best model without a circuit."
    )
    yield Table("Scores on held-out rows, best first", columns, tuple(rows), note, scale)


def _is_quantum(model: Model) -> bool:
    return any(row["circuits_per_step"] for row in model.rows) or model.role == "subject"


def _forests(
    verdicts: Sequence[Mapping[str, Any]], metric: str, config: Mapping[str, Any], models: Sequence[Model]
) -> Iterator[Block]:
    rope = config.get("rope", 0.01)
    roles = {model.name: model.role for model in models}
    for subject in dict.fromkeys(row["subject"] for row in verdicts):
        own = [row for row in verdicts if row["subject"] == subject]
        rows: list[tuple[Cell, ...]] = []
        for row in own:
            role = roles.get(row["control"], row["control"].rpartition("/")[2])
            title = row["control"] if role == "subject" else TITLES.get(role, row["control"])
            colour = {"BEATS": 2, "LOSES": 1}.get(row["verdict"], 3)
            points = [parts.points(row[key]) for key in ("difference", "low", "high")]
            said = f"{points[0]} [{points[1]}, {points[2]}]"
            dot = Dot(row["difference"], row["low"], row["high"], colour)
            rows.append(
                (title, Badge(row["verdict"]), dot, said, number(row["p_adjusted"], 2), number(row["effect"], 2))
            )
        columns = (
            Column("control", "text"),
            Column("verdict", "lead"),
            Column(f"{subject} minus control", "dots"),
            Column("points [95 % interval]"),
            Column("p (Holm)"),
            Column("effect"),
        )
        values = [row[key] for row in own for key in ("difference", "low", "high")]
        scale = parts.scale_of(values, label=parts.points, line=0.0, band=(-rope, rope))
        note = (
            f"Right of the line {subject} is better. Shaded: differences of up to {100 * rope:g} point(s), which do "
            f"not matter. {own[0]['n']} pairs; the smallest p that so many can give: {number(own[0].get('attainable'), 2)}. "
            "Effect: mean by standard deviation of the differences."
        )
        yield Table(
            f"Difference in {metric.replace('_', ' ')} of {subject} and each control", columns, tuple(rows), note, scale
        )


def _ladders(models: Sequence[Model], metric: str) -> Iterator[Block]:
    for subject in (model for model in models if model.role == "subject"):
        own = {m.role: m for m in models if m is subject or m.rows[0]["subject"] == subject.name}
        rungs = [(role, own[role]) for role in LADDER if role in own]
        if len(rungs) < 3:
            continue
        found = {role: model.interval(metric) for role, model in rungs}
        whole = found["subject"][0]
        rows = []
        for role, model in rungs:
            mean, low, high = found[role]
            title: Cell = Strong(LADDER[role]) if role == "subject" else LADDER[role]
            less = "" if role == "subject" else f"{parts.points(mean - whole)}"
            parameters = number(round(model.mean("n_parameters") or 0))
            dot = Dot(mean, low, high, series=0 if role == "subject" else 3)
            rows.append((title, dot, percent(mean), less or "-", parameters))
        columns = (
            Column("what is there", "text"),
            Column(metric.replace("_", " "), "dots"),
            Column("mean"),
            Column("points from the whole"),
            Column("parameters"),
        )
        scale = parts.scale_of([x for row in found.values() for x in row], label=parts.whole_percent, line=whole)
        classical = max(mean for role, (mean, _, _) in found.items() if role != "subject" and role not in QUANTUM)
        note = (
            "The line is the whole model. Whatever stands on it without a trained, entangling circuit does the same "
            f"without one. The best rung without a circuit is {parts.points(classical - whole)} points from it."
        )
        yield Table(f"From no circuit to all of {subject.name}", columns, tuple(rows), note, scale)


QUANTUM = ("frozen", "separable")


def _costs(models: Sequence[Model], metric: str) -> Iterator[Block]:
    figures = []
    name = metric.replace("_", " ")
    ordered = sorted(models, key=lambda model: model.role != "subject")
    for column, title in COSTS.items():
        points = {}
        for model in ordered:
            cost = model.mean(column)
            if cost:
                points[model.name.rpartition("/")[2]] = [(cost, *model.interval(metric))]
        if len(points) < 2:
            continue
        alt = f"{name} against {title}: " + "; ".join(
            f"{key} {percent(rows[0][1])} at {number(rows[0][0])}" for key, rows in points.items()
        )
        figures.append(charts.scatter(points, title, name, f"{name.capitalize()} against {title}.", f"{alt}."))
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
            *(number(_round(model.mean(key))) for key in keys),
            number(model.mean("train_seconds")),
            number(model.mean("tune_seconds")),
        )
        for model in ordered
    )
    note = (
        "Quantum seconds: training by the parameter-shift rule with 1,000 shots of 250 microseconds for each circuit."
    )
    yield Table("What each model costs, mean over seeds", columns, rows, note)


def _round(value: float | None) -> float | int | None:
    return round(value) if value is not None and value == round(value) else value


def _curves(found: Comparison, dataset: str, models: Sequence[Model], metric: str) -> Iterator[Block]:
    full = max(row["n_train"] for row in found.rows if row["dataset"] == dataset)
    shown = [m for m in models if m.role in ("subject", "separable", "layer_sine", "matched_parameters", "removed")]
    figures = []
    curves = [row for row in found.curves if row["dataset"] == dataset and row["n_train"] == full]
    for key in ("loss", "accuracy"):
        points: dict[str, list[tuple[float, float, float, float]]] = {}
        for model in shown:
            by_epoch: dict[int, list[float]] = {}
            for row in curves:
                if row["model"] == model.name and row.get(key) is not None:
                    by_epoch.setdefault(row["epoch"], []).append(row[key])
            if by_epoch:
                means = [(float(epoch), *interval(values)) for epoch, values in sorted(by_epoch.items())]
                points[model.name.rpartition("/")[2]] = means
        if points:
            ends = ", ".join(f"{name} {line[-1][1]:.3g}" for name, line in points.items())
            caption = f"Training {key} by epoch; bands: 95 % intervals over seeds."
            figures.append(charts.learning(points, "epoch", key, caption, f"{caption} At the end: {ends}."))
    sizes = sorted({row["n_train"] for row in found.rows if row["dataset"] == dataset})
    name = metric.replace("_", " ")
    if len(sizes) > 1:
        points = {}
        picked = [*shown, *(m for m in models if m.role in ("svm_rbf", "logistic_regression"))]
        for model in picked[:6]:
            by_size = [(size, found.column(metric, dataset=dataset, model=model.name, n_train=size)) for size in sizes]
            means = [(float(size), *interval(values)) for size, values in by_size if values]
            points[model.name.rpartition("/")[2]] = means
        caption = f"{name.capitalize()} against rows to train on; bands: 95 % intervals over seeds."
        figures.append(charts.learning(points, "rows to train on", name, caption, caption, log=True))
    if figures:
        yield Grid(tuple(figures))
    needs = [row for row in found.sample_complexity if row["dataset"] == dataset]
    if needs:
        titles = {model.name: model.title for model in models}
        rows = tuple(
            (titles.get(row["model"], row["model"]), number(row["n_needed"]), number(row["low"]), number(row["high"]))
            for row in sorted(needs, key=lambda row: row["n_needed"] or float("inf"))
        )
        columns = (Column("model", "text"), Column("rows needed"), Column("from"), Column("to"))
        target = percent(needs[0].get("target"))
        yield Table(f"Rows to train on for 95 % of the best {name} ({target}); - is more than there are", columns, rows)


def _confusions(models: Sequence[Model], metric: str) -> Iterator[Block]:
    subjects = [model for model in models if model.role == "subject"]
    classical = [model for model in models if not _is_quantum(model)]
    best = sorted(classical, key=lambda model: -(model.mean(metric) or 0))[:1]
    tables = []
    for model in [*subjects, *best]:
        counts = [json.loads(row["confusion"]) for row in model.rows]
        total = [[sum(c[i][j] for c in counts) for j in range(len(counts[0]))] for i in range(len(counts[0]))]
        classes = [str(k) for k in range(len(total))]
        tables.append(parts.confusion(f"{model.title}, all seeds together", total, classes))
    yield Grid(tuple(tables))


# ---- all together ----------------------------------------------------------------------------------------------------


def _ranks(ranks: Mapping[str, Any]) -> Iterator[Block]:
    names = [name.rpartition("/")[2] if "/" in name else name for name in ranks["models"]]
    distance = ranks["critical_difference"]
    caption = (
        f"Mean ranks over {ranks['n']} data sets, best at the left. Bars join models that Nemenyi's test cannot part "
        f"(Friedman's test: p = {number(ranks['p'], 2)})."
    )
    order = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(names, ranks["mean_ranks"], strict=True))
    yield charts.ranks(names, ranks["mean_ranks"], distance, caption, f"Mean ranks: {order}. {caption}")


def _circuits(found: Comparison) -> Iterator[Block]:
    return iter(())


def _method(found: Comparison, config: Mapping[str, Any], metric: str) -> str:
    seeds = len({row["seed"] for row in found.rows})
    tests = sorted({row["test"] for row in found.verdicts if row.get("test")})
    alpha, rope = config.get("alpha", 0.05), config.get("rope", 0.01)
    return (
        f"Every one of {seeds} seeds fixed the split (or the draw) of the data, the initial weights and the order of the "
        f"rows for all models alike; scalers and projections were fitted on the train part. Each model tried "
        f"{config.get('budget', 'the same number of')} configurations by {config.get('folds', 'the same')}-fold "
        f"cross-validation on the train part, and met the test part once. Differences in {metric.replace('_', ' ')} are "
        f"paired by seed ({', '.join(tests) or 'no test yet'}), p-values corrected by Holm, at the level {alpha}. A "
        f"difference within {100 * rope:g} point(s) (two one-sided tests) TIES; one that is significant BEATS or LOSES; "
        "where a linear model is as good as the best one nothing BEATS; all else is INCONCLUSIVE."
    )


def _provenance(found: Comparison, config: Mapping[str, Any]) -> Iterator[Block]:
    if found.directory is not None:
        yield Code("Command", f"qbp compare {found.directory}/comparison.yaml")
    splits = {
        f"{row['dataset']}, seed {row['seed']}": row["split"][:16]
        for row in found.rows
        if row["role"] == "subject" and row["split"]
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()
    yield Grid((Code("comparison.yaml", text), parts.pairs("Versions and machine", dict(found.versions or {}))))
    yield parts.pairs("Splits: data set and seed, with the beginning of the SHA-256 of their rows", splits)


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
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return mean, float(found.low), float(found.high)

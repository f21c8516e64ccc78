"""The page of a run of `qbp run`: what pruning and distillation did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qbp.nn.saving import load_model
from qbp.report import charts, parts
from qbp.report.document import (
    Block,
    Cell,
    Column,
    Document,
    Dot,
    Grid,
    Heading,
    Section,
    Table,
    Verdict,
    number,
    percent,
)
from qbp.report.simulability import WITHOUT, simulability_blocks, simulability_of
from qbp.runs.folder import read_config, run_folder
from qbp.runs.run import load_data, threads
from qbp.runs.stages import MODEL
from qbp.training.metrics import main_metric

__all__ = ["stages_document"]

SIZES = {
    "parameters": "parameters",
    "rotations": "rotations",
    "two_qubit_gates": "two-qubit gates",
    "circuits": "circuits",
}
WORDS = {"train": "trained", "prune": "pruned", "distill": "distilled", "scratch": "the student, from labels alone"}


def stages_document(directory: str | Path) -> Document:
    """Tell what the stages of a run came to.

    Args:
        directory: the run's, of `qbp run`.

    Returns:
        The page.

    Raises:
        ConfigError: there is no finished run.
    """
    folder = Path(directory)
    config, result = read_config(folder, trust=True), run_folder(folder).result()
    with threads(config.threads):
        split = load_data(config)
    about = result["data"]
    circuits: list[Block] = []
    without: list[Block] = []
    for name in result["stages"]:
        model = load_model(folder / name / MODEL, backend="auto")
        for layer in parts.quantum_layers(model):
            circuits += [Heading(_title(name)), *parts.circuit_blocks(layer)]
        if told := simulability_of(folder, name, model):
            without += [Heading(_title(name)), *simulability_blocks(told)]
    sections = (
        Section("stages", "Size and score", tuple(_stages(result))),
        Section("circuit", "The circuits", tuple(circuits)),
        Section("simulability", WITHOUT, tuple(without)),
        *parts.tables_of(folder),
        Section("provenance", "Run it again", tuple(parts.provenance(folder, "run", config, split))),
    )
    stages = result["stages"]
    return Document(
        title=result["name"],
        subtitle=f"A smaller model for {about['name']}: {about['train']} rows to train, {about['test']} to test",
        verdicts=tuple(_verdicts(result)),
        facts=tuple((_title(name), f"{row['parameters']} parameters") for name, row in stages.items()),
        sections=tuple(section for section in sections if section.blocks),
    )


def _title(stage: str) -> str:
    word = stage.partition("-")[2]
    return WORDS.get(word, word)


def _metric(result: dict[str, Any]) -> str:
    return main_metric(next(iter(result["stages"].values())))


def _verdicts(result: dict[str, Any]) -> Iterator[Verdict]:
    """What every stage changed against the trained model; one seed says no more than that."""
    (_, first), *others = result["stages"].items()
    metric, n = _metric(result), result["data"]["test"]
    for name, row in others:
        smaller = ", ".join(
            f"{percent(1 - row[key] / first[key], 0)} fewer {word}"
            for key, word in SIZES.items()
            if first[key] and row[key] < first[key]
        )
        if metric == "accuracy":
            more = round((row[metric] - first[metric]) * n)
            change = (
                f"{abs(more)} of {n} test rows {'more' if more > 0 else 'fewer'} right" if more else "as many right"
            )
        else:
            change = f"r2 {number(row[metric])} after {number(first[metric])}"
        heading = f"{_title(name).capitalize()}: {change}."
        sentence = f"{(smaller or 'no smaller').capitalize()} than the trained model. Other seeds may differ."
        yield Verdict("ONE SEED", f"{_title(name)}, beside the trained model", heading, sentence)


def _stages(result: dict[str, Any]) -> Iterator[Block]:
    metric, n = _metric(result), result["data"]["test"]
    drawn = metric == "accuracy"
    stages = result["stages"]
    intervals = {name: parts.wilson(round(row[metric] * n), n) for name, row in stages.items() if drawn}
    rows: list[tuple[Cell, ...]] = []
    for name, row in stages.items():
        said = number(row[metric])
        dots: list[Cell] = []
        if drawn:
            low, high = intervals[name]
            said = f"{percent(row[metric])} [{100 * low:.1f}, {100 * high:.1f}]"
            dots = [Dot(row[metric], low, high)]
        rows.append((f"{name}: {_title(name)}", *dots, said, number(row["loss"]), *(number(row[key]) for key in SIZES)))
    columns = [Column("stage", "text"), *([Column("test accuracy", "dots")] if drawn else [])]
    columns += [Column(f"{metric} [95 %]" if drawn else metric), Column("test loss"), *map(Column, SIZES.values())]
    scale = (
        parts.scale_of([x for pair in intervals.values() for x in pair], label=parts.whole_percent) if drawn else None
    )
    note = "Circuits: those of a training step by the parameter-shift rule, for each sample."
    yield Table("Stage by stage, on held-out rows", tuple(columns), tuple(rows), note, scale)
    if drawn and len(stages) > 1:
        figures = []
        for key, word in SIZES.items():
            points = {
                _title(name): [(row[key], row[metric], *intervals[name])] for name, row in stages.items() if row[key]
            }
            if len({rows[0][0] for rows in points.values()}) > 1:
                caption = f"Accuracy against {word}, with 95 % intervals."
                alt = caption + " " + "; ".join(f"{k} {percent(p[0][1])} at {p[0][0]}" for k, p in points.items()) + "."
                figures.append(charts.scatter(points, list(points), word, "test accuracy", caption, alt))
        yield Grid(tuple(figures))

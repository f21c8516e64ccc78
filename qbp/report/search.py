"""The page of a sweep: the config that was chosen, what it was chosen from, and what better ones cost."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qbp.report import charts, parts
from qbp.report.document import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Dot,
    Grid,
    Paragraph,
    Section,
    Strong,
    Table,
    number,
    percent,
)
from qbp.runs.config import Config, dump, load
from qbp.runs.folder import CONFIG
from qbp.runs.run import restore, threads
from qbp.runs.search.sweeping import BEST, SweepResult, load_sweep
from qbp.runs.search.sweeping import CONFIG as SWEEP
from qbp.storage.folder import VERSIONS, RunFolder
from qbp.training.metrics import main_metric

__all__ = ["sweep_document"]

COSTS = {"two_qubit_gates": "two-qubit gates", "quantum_seconds": "seconds on a quantum device, for training"}


def sweep_document(directory: str | Path) -> Document:
    """Tell what a sweep came to.

    Args:
        directory: where `qbp sweep` wrote it.

    Returns:
        The page.

    Raises:
        ConfigError: it is no sweep, or not finished.
    """
    folder = Path(directory)
    result = load_sweep(folder)
    config = load(folder / SWEEP, trust=True)
    with threads(config.threads):
        _, model, (train, test) = restore(folder / BEST, trust=True)
    circuits = [block for layer in parts.quantum_layers(model) for block in parts.circuit_blocks(layer)]
    sections = [
        Section("chosen", "The chosen config", tuple(_chosen(result))),
        Section("mattered", "What mattered", tuple(_mattered(result))),
        Section("pareto", "What more costs", tuple(_pareto(result))),
        Section("trials", "All trials", tuple(_trials(result))),
        Section("circuit", "The circuit", tuple(circuits)),
        Section("method", "Method", (Paragraph(_method(result, config)),)),
        Section("provenance", "Run it again", tuple(_provenance(result, config, (train.hash(), test.hash())))),
    ]
    return Document(
        title=config.name,
        subtitle=f"A search of {len(result.rows)} trials for the best {_words(result.metric)} on {test.name}",
        verdicts=(),
        facts=tuple(_facts(result).items()),
        sections=tuple(section for section in sections if section.blocks),
    )


def _words(name: str) -> str:
    return name.replace("val_", "validation ").replace("_", " ")


def _score(result: SweepResult, value: float | None) -> str:
    return percent(value) if result.metric.endswith("accuracy") else number(value)


def _facts(result: SweepResult) -> dict[str, str]:
    metric = main_metric(result.test)
    states = [row["state"] for row in result.rows]
    test = result.test[metric]
    return {
        f"test {metric} of the chosen config": percent(test) if metric == "accuracy" else number(test),
        _words(result.metric): _score(result, result.best["score"]),
        "its two-qubit gates": number(result.best["two_qubit_gates"]),
        **{f"trials {state}": str(states.count(state)) for state in ("complete", "pruned", "failed")},
    }


def _value(value: Any) -> str:
    if value is None or isinstance(value, str | bool | list | dict):
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return number(value)


def _chosen(result: SweepResult) -> Iterator[Block]:
    values = {key: _value(value) for key, value in result.best["values"].items()}
    yield Paragraph(
        f"Trial {result.best['number']} has the best {_words(result.metric)}, {_score(result, result.best['score'])}. "
        "Its config was trained once more as a run, and only then the test part was looked at. A best of many is "
        "flattered by its validation score: the test score is not."
    )
    yield parts.pairs("Its values", values)


def _mattered(result: SweepResult) -> Iterator[Block]:
    if not result.importance:
        return
    ordered = sorted(result.importance.items(), key=lambda item: -item[1])
    rows = tuple((key, Dot(share, 0.0, share), percent(share, 0)) for key, share in ordered)
    columns = (Column("key", "text"), Column("importance", "dots"), Column("share"))
    scale = parts.scale_of([0.0, *result.importance.values()], label=parts.whole_percent)
    note = (
        "The share of the spread of scores of all complete trials that a key explains by itself and with others "
        "(functional analysis of variance by random forests). Few trials make it rough."
    )
    yield Table(f"What explains {_words(result.metric)}", columns, rows, note, scale)


def _pareto(result: SweepResult) -> Iterator[Block]:
    complete = [row for row in result.rows if row["state"] == "complete"]
    figures = []
    for cost, title in COSTS.items():
        front = result.pareto[cost]
        if len({row[cost] for row in complete}) < 2 or not all(row[cost] > 0 for row in complete):
            continue
        points = {str(row["number"]): [(row[cost], *(row["score"],) * 3)] for row in complete}
        named = [str(k) for k in dict.fromkeys([result.best["number"], *front])]
        name = _words(result.metric)
        said = "; ".join(
            f"trial {k} {_score(result, result.rows[k]['score'])} at {number(result.rows[k][cost])}" for k in front
        )
        caption = f"{name.capitalize()} against {title}, a point for each complete trial."
        figures.append(charts.scatter(points, named, title, name, caption, f"{caption} Best for their cost: {said}."))
    if figures:
        yield Grid(tuple(figures))
    for cost, title in COSTS.items():
        columns = (Column("trial", "text"), Column(_words(result.metric)), Column(title), *_key_columns(result))
        rows = tuple(_row(result, k, number(result.rows[k][cost])) for k in result.pareto[cost])
        note = "Trials that no other is as good as for less; the cheapest first. Bold: the chosen one."
        yield Table(f"The best for their {title}", columns, rows, note)


def _key_columns(result: SweepResult) -> tuple[Column, ...]:
    keys = result.best["values"]
    return tuple(Column(key, "text" if isinstance(value, str) else "number") for key, value in keys.items())


def _row(result: SweepResult, k: int, *between: str) -> tuple[Cell, ...]:
    row = result.rows[k]
    name: Cell = Strong(str(k)) if k == result.best["number"] else str(k)
    return (name, _score(result, row["score"]), *between, *(_value(value) for value in row["values"].values()))


def _trials(result: SweepResult) -> Iterator[Block]:
    sign = -1 if result.mode == "max" else 1
    order = {"complete": 0, "pruned": 1, "failed": 2}
    ranked = sorted(result.rows, key=lambda row: (order[row["state"]], sign * (row["score"] or 0.0), row["number"]))
    columns = (
        Column("trial", "text"),
        Column(_words(result.metric)),
        Column("state", "text"),
        Column("epochs"),
        Column("parameters"),
        Column("two-qubit gates"),
        Column("quantum seconds"),
        *_key_columns(result),
    )
    keys = ("epochs", "n_parameters", "two_qubit_gates", "quantum_seconds")
    rows = tuple(_row(result, r["number"], r["state"], *(number(r[key]) for key in keys)) for r in ranked)
    yield Table("All trials, best first", columns, rows, "Pruned ones with the score that they had then.")
    errors = {str(row["number"]): row["error"] for row in ranked if row["error"]}
    if errors:
        yield parts.pairs("Why trials failed", errors)


def _method(result: SweepResult, config: Config) -> str:
    sweep = config.sweep
    assert sweep is not None
    pruned = (
        f"A trial ended where its best was behind the median of the rounds before it, after {sweep.warmup_epochs} "
        "epochs or more."
        if sweep.pruner
        else "No trial ended early."
    )
    return (
        f"{sweep.trials} configs were drawn by Optuna ({sweep.sampler}) in rounds of {sweep.parallel}, each knowing "
        "the rounds before it, and trained on the train part less its share for validation "
        f"({config.train.validation:g}), on which {_words(result.metric)} was measured after every epoch. {pruned} The "
        "score is that of the weights that training ended with, in mean over seeds; of equal scores the fewest "
        "two-qubit gates win. Quantum seconds: what training would take on a device, by the parameter-shift rule with "
        "1,000 shots of 250 microseconds a circuit. Only the chosen config met the test part, after the search."
    )


def _provenance(result: SweepResult, config: Config, hashes: Sequence[str]) -> Iterator[Block]:
    folder = result.directory
    yield Paragraph("The same versions, seed and machine give the same trials, by any executor.")
    files = {"sweep": folder / SWEEP, "train": folder / BEST / CONFIG}
    commands = (shlex.join(("qbp", command, str(file), "--name", "again")) for command, file in files.items())
    yield Code("Commands", "\n".join(commands))
    versions = RunFolder(folder).load(VERSIONS)
    rows = dict(zip(("train rows, SHA-256", "test rows, SHA-256"), hashes, strict=True))
    yield Grid(
        (
            Code(SWEEP, dump(config).rstrip()),
            parts.pairs("Versions, machine, data", {**versions, "optuna": result.optuna, **rows}),
        )
    )

"""The page of one training run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qbp.analysis.diagnosis import Finding
from qbp.data import Dataset
from qbp.report import charts, parts
from qbp.report.document import Block, Column, Document, Dot, Grid, Section, Strong, Table, Verdict, number, percent
from qbp.report.plots.run import draw_diagnosis
from qbp.report.simulability import WITHOUT, simulability_blocks, simulability_of
from qbp.runs.folder import TWIN, read_config, run_folder, simulated
from qbp.runs.run import DIAGNOSIS, build, diagnose, load_data, threads, verdict
from qbp.training.checkpoint import METRICS, History
from qbp.training.fitting import load_checkpoint
from qbp.training.metrics import main_metric

__all__ = ["run_document"]


def run_document(directory: str | Path, findings: tuple[Finding, ...] | None = None) -> Document:
    """Tell what a training run came to.

    Args:
        directory: the run's.
        findings: its diagnosis; None for the one that is kept there, or a new one.

    Returns:
        The page.

    Raises:
        ConfigError: there is no finished run.
    """
    folder = Path(directory)
    config, result = simulated(read_config(folder, trust=True)), run_folder(folder).result()
    with threads(config.threads):
        split = load_data(config)
        model = next(iter(build(config, split[0]).values()))
        load_checkpoint(model, folder, best=config.train.early_stopping is not None)
    diagnosis = _findings(folder) if findings is None else findings
    about = result["data"]
    sections = [
        Section("scores", "Scores", tuple(_scores(result))),
        Section("training", "Training", (_training(folder, result),)),
        Section("confusion", "What was taken for what", tuple(_confusion(result, split[1]))),
        Section("circuit", "The circuit", tuple(_circuits(model))),
        Section("simulability", WITHOUT, tuple(simulability_blocks(simulability_of(folder, "hybrid", model)))),
        *parts.tables_of(folder),
        Section("diagnosis", "Diagnosis", parts.diagnosis(diagnosis)),
        Section("provenance", "Run it again", tuple(parts.provenance(folder, "train", config, split))),
    ]
    return Document(
        title=result["name"],
        subtitle=f"A training run on {about['name']}: {about['train']} rows to train, {about['test']} to test",
        verdicts=_verdict(result),
        facts=tuple(_facts(result, model)),
        sections=tuple(section for section in sections if section.blocks),
    )


def _findings(folder: Path) -> tuple[Finding, ...]:
    try:
        kept = json.loads((folder / DIAGNOSIS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        findings = diagnose(folder)
        draw_diagnosis(folder)
        return findings
    return tuple(Finding.from_json(finding) for finding in kept["findings"])


def _metric(result: dict[str, Any]) -> str:
    return main_metric(next(iter(result["models"].values())))


def _verdict(result: dict[str, Any]) -> tuple[Verdict, ...]:
    said = verdict(result)
    if said is None:
        return ()
    metric, scores = _metric(result), result["models"]
    helped = scores["hybrid"][metric] > scores[TWIN][metric]
    heading = (
        "The hybrid model is ahead of its classical twin, in one run."
        if helped
        else "The quantum layer did not help: the classical twin is as good or better."
    )
    sentence = said if helped else "One seed; others may differ, and `qbp compare` tries them."
    return (Verdict("INCONCLUSIVE" if helped else "TIES", "one seed, beside a classical twin", heading, sentence),)


def _facts(result: dict[str, Any], model: torch.nn.Module) -> Iterator[tuple[str, str]]:
    metric = _metric(result)
    for name, score in result["models"].items():
        value = percent(score[metric]) if metric == "accuracy" else number(score[metric])
        yield f"{name}, test {metric}", value
    for layer in parts.quantum_layers(model):
        yield "qubits", str(layer.traced.n_qubits)
        yield "two-qubit gates", str(sum(len(op.wires) == 2 for op in layer.traced.program.ops))
    yield "seed", str(result["seed"])


def _scores(result: dict[str, Any]) -> Iterator[Block]:
    metric, n = _metric(result), result["data"]["test"]
    best = max(score[metric] for score in result["models"].values())
    columns = [Column("model", "text")]
    drawn = metric == "accuracy"
    intervals = {name: parts.wilson(round(score[metric] * n), n) for name, score in result["models"].items() if drawn}
    columns += [Column("95 % interval", "dots")] * drawn
    columns += [Column(f"test {metric}"), Column("test loss"), Column("parameters"), Column("epochs")]
    columns += [Column("seconds of training")]
    rows = []
    for k, (name, score) in enumerate(result["models"].items()):
        value = score[metric]
        said = percent(value) if drawn else number(value)
        if drawn:
            low, high = intervals[name]
            said += f" [{percent(low)}, {percent(high)}]"
        row = [name, *([Dot(value, *intervals[name], series=k)] if drawn else [])]
        row += [Strong(said) if value == best else said, number(score["loss"]), number(score["parameters"])]
        rows.append((*row, number(score["epochs"]), number(score["seconds"])))
    scale = (
        parts.scale_of([x for pair in intervals.values() for x in pair], label=parts.whole_percent) if drawn else None
    )
    note = f"Intervals: Wilson's, of {n} test rows; they say nothing about other seeds." if drawn else ""
    yield Table("Scores on held-out rows", tuple(columns), tuple(rows), note, scale)


def _training(folder: Path, result: dict[str, Any]) -> Block:
    histories = {
        name: History.from_jsonl((folder / TWIN if name == TWIN else folder) / METRICS) for name in result["models"]
    }
    metric = _metric(result)
    validated = f"val_{metric}" in next(iter(histories.values())).rows[0]
    how = "Solid: validation; dotted: training." if validated else "On the training data, while the weights move."
    captions = {"loss": f"Loss by epoch. {how}", metric: f"{metric.capitalize()} by epoch. {how}"}
    return Grid(tuple(charts.curves(histories, key, caption) for key, caption in captions.items()))


def _confusion(result: dict[str, Any], test: Dataset) -> Iterator[Block]:
    tables = tuple(
        parts.confusion(f"{name}, test rows", score["confusion"], test.classes)
        for name, score in result["models"].items()
        if "confusion" in score
    )
    if tables:
        yield Grid(tables)


def _circuits(model: torch.nn.Module) -> Iterator[Block]:
    for layer in parts.quantum_layers(model):
        yield from parts.circuit_blocks(layer)

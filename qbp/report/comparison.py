"""The page of a comparison: the verdict, and everything that it follows from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from qbp import data
from qbp.analysis.diagnosis import diagnose
from qbp.comparison.comparing import Comparison, load_comparison
from qbp.nn import models
from qbp.report import charts, metrics, parts
from qbp.report.dataset import TITLES, dataset_sections
from qbp.report.document import (
    Badge,
    Block,
    Code,
    Column,
    Document,
    Grid,
    Heading,
    Paragraph,
    Section,
    Table,
    Verdict,
    number,
)
from qbp.report.simulability import WITHOUT, simulability_blocks

__all__ = ["comparison_document"]

SCOPES = {
    "circuit": "against what can take the circuit's place",
    "all": "against every control",
}
PLAIN = {
    "BEATS": "The quantum part helps: {subject} beats them all.",
    "TIES": "The quantum part does not help. As good: {control}.",
    "LOSES": "The quantum part does not help. Better: {control}.",
    "INCONCLUSIVE": "It is not shown that the quantum part helps. Not surely beaten: {control}.",
    "AHEAD": "It is not shown that the quantum part helps. Ahead of it, though not surely: {control}.",
}


def comparison_document(directory: str | Path | Comparison) -> Document:
    """Tell what a comparison came to.

    Args:
        directory: where `qbp compare` wrote it, or a comparison in memory.

    Returns:
        The page.

    Raises:
        ConfigError: it is no comparison.
    """
    comparison = directory if isinstance(directory, Comparison) else load_comparison(directory)
    config = dict(comparison.config or {})
    metric = config.get("metric", "accuracy")
    datasets = list(dict.fromkeys(row["dataset"] for row in comparison.rows))
    sections: list[Section] = []
    if len(datasets) > 1:
        sections.append(Section("verdicts", "Verdicts", tuple(_by_dataset(comparison, datasets))))
    for name in datasets:
        sections += dataset_sections(comparison, name, metric, config, alone=len(datasets) == 1)
    if comparison.ranks:
        sections.append(Section("ranks", "Ranks over all data sets", tuple(_ranks(comparison.ranks, metric))))
    if comparison.directory is not None:
        sections += parts.tables_of(comparison.directory)
    sections.append(Section("circuit", "The circuits", tuple(_circuits(config))))
    sections.append(Section("simulability", WITHOUT, tuple(_simulability(comparison))))
    sections.append(Section("diagnosis", "Diagnosis", tuple(_diagnosis(config))))
    sections.append(Section("method", "Method", (Paragraph(_method(comparison, config, metric)),)))
    sections.append(Section("provenance", "Run it again", tuple(_provenance(comparison, config))))
    subjects = list(dict.fromkeys(row["model"] for row in comparison.rows if row["role"] == "subject"))
    facts = {
        "data sets": str(len(datasets)),
        "models": str(len({row["model"] for row in comparison.rows})),
        "seeds": str(len({row["seed"] for row in comparison.rows})),
        "trainings kept": str(len(comparison.rows)),
        "configurations tried for each model": str(config.get("budget", "-")),
    }
    return Document(
        title=f"Does the quantum part of {' and '.join(subjects)} do anything?",
        subtitle=f"A comparison with controls on {', '.join(datasets)}",
        verdicts=tuple(_verdicts(comparison)) or (_unfinished(comparison),),
        facts=tuple(facts.items()),
        sections=tuple(section for section in sections if section.blocks),
    )


# ---- the verdicts ----------------------------------------------------------------------------------------------------


def _verdicts(comparison: Comparison) -> Iterator[Verdict]:
    """Of one data set the verdict on the circuit and the one against everything; of several one card each way."""
    for subject in dict.fromkeys(row["subject"] for row in comparison.verdicts):
        for scope, against in SCOPES.items():
            own = [row for row in comparison.verdicts if row["subject"] == subject and row["control"] == scope]
            if len(own) == 1:
                (row,) = own
                is_behind = row["verdict"] == "INCONCLUSIVE" and row["difference"] < 0
                heading = PLAIN["AHEAD" if is_behind else row["verdict"]].format(
                    subject=subject, control=_title(row["decided_by"])
                )
                yield Verdict(row["verdict"], f"{subject} on {row['dataset']}, {against}", heading, row["sentence"])
            elif own:
                words = Counter(row["verdict"] for row in own)
                word = next(iter(words)) if len(words) == 1 else "MIXED"
                counts = ", ".join(f"{word} on {count}" for word, count in words.items())
                heading = f"The quantum part is shown to help on {words['BEATS']} of {len(own)} data sets."
                yield Verdict(word, f"{subject}, {against}", heading, f"{counts}. What decided each is below.")


def _title(control: str) -> str:
    return TITLES.get(control.rpartition("/")[2], control)


def _by_dataset(comparison: Comparison, datasets: list[str]) -> Iterator[Block]:
    for subject in dict.fromkeys(row["subject"] for row in comparison.verdicts):
        for scope, against in SCOPES.items():
            own = {r["dataset"]: r for r in comparison.verdicts if r["subject"] == subject and r["control"] == scope}
            rows = tuple((d, Badge(own[d]["verdict"]), own[d]["sentence"]) for d in datasets if d in own)
            if rows:
                columns = (Column("data set", "text"), Column("verdict", "lead"), Column("what decided it", "text"))
                yield Table(f"{subject} {against}", columns, rows)


def _unfinished(comparison: Comparison) -> Verdict:
    return Verdict(
        "INCONCLUSIVE",
        "not finished",
        "The comparison is not finished: nothing can be said yet.",
        f"{len(comparison.rows)} cells are there. Go on with the command below.",
    )


# ---- all together ----------------------------------------------------------------------------------------------------


def _ranks(ranks: Mapping[str, Any], metric: str) -> Iterator[Block]:
    names = [name.rpartition("/")[2] if "/" in name else name for name in ranks["models"]]
    distance = ranks["critical_difference"]
    caption = (
        f"Mean ranks over {ranks['n']} data sets, best at the left. Bars join models that Nemenyi's test cannot part "
        f"(Friedman's test: p = {number(ranks['p'], 2)})."
    )
    order = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(names, ranks["mean_ranks"], strict=True))
    yield charts.ranks(names, ranks["mean_ranks"], distance, caption, f"Mean ranks: {order}. {caption}")
    columns = (
        Column("model", "text"),
        Column("against", "text"),
        Column(f"median difference, {metrics.unit(metric)}"),
        Column("data sets won"),
        Column("p"),
        Column("p (Holm)"),
    )
    rows = tuple(
        (
            row["subject"],
            _title(row["rival"]),
            metrics.gain(row["difference"], metric),
            f"{row['wins'] * row['n']:g} of {row['n']}",
            number(row["p"], 2),
            number(row["p_adjusted"], 2),
        )
        for row in ranks.get("pairs", ())
    )
    if rows:
        yield Table("Over data sets: Wilcoxon's signed-rank test of their means; ties count half", columns, rows)


def _hybrids(config: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The subjects with a circuit, built anew from what the config says of them, for two inputs and outputs."""
    hybrids: dict[str, nn.Module] = {}
    for name, about in dict(config.get("subjects") or {}).items():
        if about.get("kind") == "hybrid":
            n_inputs = 2 if about.get("encoder", True) else about["n_qubits"]
            options = {key: value for key, value in about.items() if key != "kind"}
            hybrids[name] = models.hybrid(n_inputs, 2, seed=0, **options)
    return hybrids


def _circuits(config: Mapping[str, Any]) -> Iterator[Block]:
    hybrids = _hybrids(config)
    for name, model in hybrids.items():
        if len(hybrids) > 1:
            yield Heading(name)
        for layer in parts.quantum_layers(model):
            yield from parts.circuit_blocks(layer)


def _simulability(comparison: Comparison) -> Iterator[Block]:
    told = {name: circuits for name, circuits in (comparison.simulability or {}).items() if circuits}
    for name, circuits in told.items():
        if len(told) > 1:
            yield Heading(name)
        yield from simulability_blocks(circuits)


def _diagnosis(config: Mapping[str, Any]) -> Iterator[Block]:
    """Of every subject as it is before training, on the data of the first seed."""
    for (name, about), (dataset, recipe) in product(
        dict(config.get("subjects") or {}).items(), dict(config.get("data") or {}).items()
    ):
        if about.get("kind") != "hybrid" or not isinstance(recipe, Mapping) or "name" not in recipe:
            continue
        train, _ = data.load(**{**recipe, "seed": config["seeds"][0]})
        options = {key: value for key, value in about.items() if key != "kind"}
        model = models.hybrid(train.x.shape[1], train.n_outputs, seed=config["seeds"][0], **options)
        yield Heading(f"{name} on {dataset}, before training")
        yield from parts.diagnosis(diagnose(model, train, seed=config["seeds"][0]))


def _method(comparison: Comparison, config: Mapping[str, Any], metric: str) -> str:
    seeds = len({row["seed"] for row in comparison.rows})
    tests = sorted({row["test"] for row in comparison.verdicts if row.get("test")})
    alpha, rope = config.get("alpha", 0.05), config.get("rope", 0.01)
    primary = f" but that of {config['primary']}, fixed beforehand" if config.get("primary") else ""
    return (
        f"Every one of {seeds} seeds fixed the split (or the draw) of the data, the initial weights and the order of "
        f"the rows for all models alike; scalers and projections were fitted on the train part. Each model tried "
        f"{config.get('budget', 'the same number of')} configurations by {config.get('folds', 'the same')}-fold "
        f"cross-validation on the train part, and met the test part once. Differences in {metric.replace('_', ' ')} "
        f"are paired by seed ({', '.join(tests) or 'no test yet'}), p-values corrected by Holm{primary}, at "
        f"the level {alpha}; to beat all of several controls takes no correction, as each has to be beaten. "
        f"A difference within {metrics.region(rope, metric)} (two one-sided tests) TIES; one that is significant "
        "BEATS or LOSES; where a linear model is as good as the best one nothing BEATS; all else is INCONCLUSIVE."
    )


def _provenance(comparison: Comparison, config: Mapping[str, Any]) -> Iterator[Block]:
    if comparison.directory is not None:
        yield Code("Command", f"qbp compare {config.get('name', 'CONFIG.yaml')}")
    splits = {
        f"{row['dataset']}, seed {row['seed']}": row["split"][:16]
        for row in comparison.rows
        if row["role"] == "subject" and row["split"]
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()
    yield Grid((Code("comparison.yaml", text), parts.pairs("Versions and machine", dict(comparison.versions or {}))))
    yield parts.pairs("Splits: data set and seed, with the beginning of the SHA-256 of their rows", splits)

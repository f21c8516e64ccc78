"""The page of a comparison: the verdict, and everything that it follows from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from qbp.compare import Comparison, load_comparison
from qbp.page import charts, parts
from qbp.page.dataset import TITLES, dataset_sections
from qbp.page.document import Block, Code, Document, Grid, Paragraph, Section, Verdict, number

__all__ = ["comparison_document"]

PLAIN = {
    "BEATS": "The quantum part helps: {subject} beats every control.",
    "TIES": "The quantum part did not help: {subject} and {control} are as good as each other.",
    "LOSES": "The quantum part did not help: {subject} is worse than {control}.",
    "INCONCLUSIVE": "Not shown that the quantum part helps: {control} is not clearly worse than {subject}.",
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
    found = directory if isinstance(directory, Comparison) else load_comparison(directory)
    config = dict(found.config or {})
    metric = config.get("metric", "accuracy")
    datasets = list(dict.fromkeys(row["dataset"] for row in found.rows))
    sections: list[Section] = []
    for name in datasets:
        sections += dataset_sections(found, name, metric, config, f": {name}" if len(datasets) > 1 else "")
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
        f"Every one of {seeds} seeds fixed the split (or the draw) of the data, the initial weights and the order of "
        f"the rows for all models alike; scalers and projections were fitted on the train part. Each model tried "
        f"{config.get('budget', 'the same number of')} configurations by {config.get('folds', 'the same')}-fold "
        f"cross-validation on the train part, and met the test part once. Differences in {metric.replace('_', ' ')} "
        f"are paired by seed ({', '.join(tests) or 'no test yet'}), p-values corrected by Holm, at the level {alpha}. A "
        f"difference within {100 * rope:g} point(s) (two one-sided tests) TIES; one that is significant BEATS or "
        "LOSES; where a linear model is as good as the best one nothing BEATS; all else is INCONCLUSIVE."
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

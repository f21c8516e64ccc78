"""The table of many trials, as a page and as files: a row for each, and what decided it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qbp.report.document import Badge, Block, Column, Document, Heading, Link, Paragraph, Section, Table, number
from qbp.report.html import to_html
from qbp.report.trial import source_of
from qbp.storage.atomic import write_atomic
from qbp.trials.trial import Trial

__all__ = ["TABLE", "table_document", "table_row", "write_table"]

TABLE = (
    "claim",
    "title",
    "source",
    "published",
    "ours",
    "figures",
    "quantum_part",
    "decided_by",
    "minutes",
    "sha256",
    "quick",
)
"""Columns of `trials.csv`."""


def table_document(trials: Sequence[Trial], beside: bool = True) -> Document:
    """Tell what several trials came to, a row for each.

    Args:
        trials: the trials.
        beside: whether their pages are in their directories beside this one, or else `NAME.html` beside it.

    Returns:
        The page.
    """
    words = [trial.ruling.word for trial in trials]
    answers = [trial.answer.word for trial in trials]
    columns = (
        Column("claim", "text"),
        Column("its figures", "lead"),
        Column("the quantum part", "lead"),
        Column("source", "text"),
        Column("published, and ours", "text"),
        Column("minutes"),
    )
    rows = tuple(
        (
            Link(trial.claim["title"], f"{row['claim']}/report.html" if beside else f"{row['claim']}.html"),
            Badge(row["figures"]),
            Badge(row["quantum_part"]),
            row["source"],
            f"{row['published']}; ours {row['ours']}",
            number(row["minutes"]),
        )
        for trial, row in zip(trials, map(table_row, trials), strict=True)
    )
    reasons: list[Block] = []
    for trial in trials:
        reasons.append(Heading(f"{trial.claim['title']}: {trial.ruling.word}, {trial.answer.word}"))
        reasons += [Paragraph(f"Its figures. {trial.ruling.sentence}")]
        reasons += [Paragraph(f"The quantum part. {trial.answer.sentence}")]
    minutes = sum(trial.seconds for trial in trials) / 60
    return Document(
        title="Claims on trial",
        subtitle="Published results of quantum machine learning, measured again with controls",
        verdicts=(),
        facts=(
            ("claims", str(len(trials))),
            ("reproduced", str(words.count("REPRODUCED"))),
            ("not reproduced", str(words.count("NOT REPRODUCED"))),
            ("undecided", str(words.count("UNDECIDED"))),
            ("the quantum part does it", str(answers.count("YES"))),
            ("it does not", str(answers.count("NO"))),
            ("minutes of measuring", number(round(minutes, 1))),
        ),
        sections=(
            Section("trials", "All trials", (Table("Each has a page of its own", columns, rows),)),
            Section("reasons", "What decided each", tuple(reasons)),
        ),
    )


def table_row(trial: Trial) -> dict[str, Any]:
    """A trial as a row, with the keys of `TABLE`: its figure is the first one, or the one that decided."""
    figure = next(each for each in trial.ruling.figures if each["word"] == trial.ruling.word)
    what = figure["arm"] if figure["than"] is None else f"{figure['arm']} - {figure['than']}"
    return {
        "claim": trial.directory.name,
        "title": trial.claim["title"],
        "source": source_of(trial.claim),
        "published": f"{what}: {figure['published']}",
        "ours": f"{number(figure['ours'], 4)} ± {number(figure['deviation'], 2)}",
        "figures": trial.ruling.word,
        "quantum_part": trial.answer.word,
        "decided_by": f"{trial.ruling.sentence} Controls: {trial.answer.sentence}",
        "minutes": round(trial.seconds / 60, 1),
        "sha256": trial.sha256,
        "quick": bool(trial.left_out),
    }


def write_table(directory: str | Path, trials: Sequence[Trial]) -> Path:
    """Write the table of several trials: `trials.csv`, `trials.json` and the page `trials.html`, which it returns."""
    path = Path(directory)
    rows = [table_row(trial) for trial in trials]
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLE, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path / "trials.csv", text.getvalue().encode())
    write_atomic(path / "trials.json", (json.dumps(rows, indent=1) + "\n").encode())
    write_atomic(path / "trials.html", to_html(table_document(trials)).encode())
    return path / "trials.html"

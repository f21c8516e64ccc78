"""The page of a trial: what was claimed, what came out, and what decided it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from qbp.comparison.comparing import load_comparison
from qbp.comparison.twins import TWIN
from qbp.report import parts
from qbp.report.dataset import TITLES
from qbp.report.document import (
    Badge,
    Block,
    Cell,
    Code,
    Column,
    Details,
    Document,
    Dot,
    Grid,
    Paragraph,
    Section,
    Strong,
    Table,
    Verdict,
    number,
)
from qbp.report.html import to_html
from qbp.storage.atomic import write_atomic
from qbp.trials.trial import COMPARISON, Trial, load_trial

__all__ = ["source_of", "trial_document", "write_page"]

FIGURES = {
    "REPRODUCED": "The published figure comes out again.",
    "NOT REPRODUCED": "The published figure does not come out again.",
    "UNDECIDED": "Whether the published figure comes out again is not decided.",
}
ANSWERS = {
    "YES": "The quantum part does it: what stands in its place does worse.",
    "NO": "The quantum part is not what does it.",
    "MIXED": "Whether the quantum part does it depends on the data.",
    "UNDECIDED": "Whether the quantum part does it is not decided.",
    "NOT ASKED": "What the quantum part does was not the question.",
}
"""What the words of a ruling and of an answer mean."""


def trial_document(directory: str | Path) -> Document:
    """Tell what a trial came to.

    Args:
        directory: where `qbp trial` wrote it.

    Returns:
        The page.

    Raises:
        ConfigError: it is no finished trial.
    """
    trial = load_trial(directory)
    claim = trial.claim
    ruled, said = trial.ruling, trial.answer
    verdicts = (
        Verdict(ruled.word, "the published figure", FIGURES[ruled.word], ruled.sentence),
        Verdict(said.word, "the controls", ANSWERS[said.word], said.sentence),
    )
    sections = [
        Section("claim", "The claim", tuple(_claim(trial))),
        Section("figures", "Published and measured", tuple(_figures(trial))),
        Section("controls", "Against its controls", tuple(_forest(trial))),
        Section("arms", "All arms", tuple(_arms(trial))),
        Section("deviations", "What differs from the paper", tuple(_deviations(trial))),
        Section("method", "What was fixed beforehand", tuple(_fixed(trial))),
        Section("provenance", "Run it again", tuple(_provenance(trial))),
    ]
    seeds = claim["seeds"]
    facts = {
        "seeds": str(seeds if isinstance(seeds, int) else len(seeds)),
        "data sets": str(len({arm["dataset"] for arm in trial.arms})),
        "arms": str(len({arm["arm"] for arm in trial.arms})),
        "minutes of measuring": number(round(trial.seconds / 60, 1)),
        "fixed beforehand, SHA-256": trial.sha256[:12],
    }
    kind = "A quick trial of a claim" if trial.left_out else "A claim on trial"
    return Document(
        title=claim["title"],
        subtitle=f"{kind}: {source_of(claim)}",
        verdicts=verdicts,
        facts=tuple(facts.items()),
        sections=tuple(section for section in sections if section.blocks),
    )


def source_of(claim: Mapping[str, Any]) -> str:
    """Cite the paper of a claim in a few words."""
    source = claim["source"]
    where = f"arXiv {source['arxiv']}" if source["arxiv"] else f"doi {source['doi']}" if source["doi"] else ""
    return ", ".join(part for part in (source["authors"], where) if part)


def _claim(trial: Trial) -> Iterator[Block]:
    source = trial.claim["source"]
    yield Paragraph(trial.claim["claimed"])
    read = {"full text": "its text", "abstract": "its abstract only", "released code": "its released code"}
    about = {
        "paper": source["title"],
        "authors": source["authors"],
        "arXiv": source["arxiv"],
        "doi": source["doi"],
        "figures from": source["where"],
        "read for this trial": read[source["read"]],
    }
    yield parts.pairs("Where it comes from", {key: value for key, value in about.items() if value})


def _figures(trial: Trial) -> Iterator[Block]:
    rows = []
    for figure in trial.ruling.figures:
        what = figure["says"] or f"{figure['metric'].replace('_', ' ')} of {_arm(figure['arm'])}"
        if figure["than"] is not None:
            what = figure["says"] or f"{_arm(figure['arm'])} minus {_arm(figure['than'])}"
        where = figure["dataset"] or "all"
        ours = f"{number(figure['ours'], 4)} ± {number(figure['deviation'], 2)} ({figure['n']} {figure['over']})"
        rows.append((what, Badge(figure["word"]), where, figure["published"], ours, figure["sentence"]))
    columns = (
        Column("figure", "text"),
        Column("ruled", "lead"),
        Column("data", "text"),
        Column("published", "text"),
        Column("ours", "text"),
        Column("what decided it", "text"),
    )
    yield Table("Every figure by the rule that was fixed beforehand", columns, tuple(rows))
    yield from _drawn(trial)


def _drawn(trial: Trial) -> Iterator[Block]:
    """Published and measured values on one scale, where there are any of one kind."""
    pairs = list(zip(trial.claim["figures"], trial.ruling.figures, strict=True))
    pairs = [(said, ours) for said, ours in pairs if said["value"] is not None and said["than"] is None]
    if not pairs or len({ours["metric"] for _, ours in pairs}) > 1:
        return
    rows: list[tuple[Cell, ...]] = []
    dots: list[Dot] = []
    for said, ours in pairs:
        name = _arm(said["arm"]) + (f", {said['dataset']}" if said["dataset"] else "")
        reach = 1.96 * (said["deviation"] or 0.0) / (said["n"] or 1) ** 0.5
        low, high = ((said[end] if said[end] is not None else said["value"] + reach * sign) for end, sign in ENDS)
        dots += [Dot(said["value"], low, high, 1), Dot(ours["ours"], ours["low"], ours["high"])]
        rows.append((name, "published", dots[-2], number(said["value"], 4)))
        rows.append((name, "ours", dots[-1], number(ours["ours"], 4)))
    metric = pairs[0][1]["metric"].replace("_", " ")
    scale = parts.scale_of([end for dot in dots for end in (dot.value, dot.low, dot.high)])
    columns = (Column("arm", "text"), Column("", "lead"), Column(metric, "dots"), Column("mean"))
    note = "Lines are 95 % intervals of the mean; a published figure of one seed has none."
    yield Table("Side by side", columns, tuple(rows), note, scale)


ENDS = (("low", -1), ("high", 1))


def _forest(trial: Trial) -> Iterator[Block]:
    verdicts = [row for row in trial.answer.verdicts if row["low"] is not None]
    if not verdicts:
        return
    sign = "larger" if trial.claim["better"] == "larger" else "smaller"
    yield Paragraph(
        f"Differences in {trial.claim['metric'].replace('_', ' ')} (the {sign} is the better one; right of the line "
        "the subject is ahead), with their intervals; the shaded band is what does not matter. The primary comparison "
        "was fixed beforehand; to beat all takes no correction, as each has to be beaten."
    )
    subject = verdicts[0]["subject"]
    for dataset in dict.fromkeys(row["dataset"] for row in verdicts):
        place = "Over all data sets" if dataset == "all" else dataset
        own = [row for row in verdicts if row["dataset"] == dataset]
        yield _differences(f"{place}: {subject} minus what stands in its place", own, trial.claim["rope"])
    others = _others(trial, subject, {row["control"] for row in verdicts})
    tables = tuple(
        _differences(f"{dataset}: {subject} minus all others", rows, trial.claim["rope"])
        for dataset, rows in others.items()
    )
    if tables:
        yield Details("Against all other models, which decide nothing here", tables)


def _others(trial: Trial, subject: str, controls: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Of a comparison: by data set the verdicts on models that are not in the circuit's place."""
    folder = trial.directory / COMPARISON
    others: dict[str, list[dict[str, Any]]] = {}
    for row in load_comparison(folder).verdicts if folder.is_dir() else ():
        if row["subject"] == subject and row["control"] not in {*controls, "circuit", "all", TWIN}:
            others.setdefault(row["dataset"], []).append({**row, "primary": False})
    return others


def _differences(caption: str, rows: Sequence[Mapping[str, Any]], rope: float) -> Table:
    """A forest of differences, the smallest first."""
    values = [row[key] for row in rows for key in ("low", "high", "difference")]
    columns = (
        Column("control", "text"),
        Column("verdict", "lead"),
        Column("difference", "dots"),
        Column("with its interval", "text"),
        Column("p"),
    )
    cells = tuple(
        (
            _arm(row["control"]) + (" (primary)" if row["primary"] else ""),
            Badge(row["verdict"]),
            Dot(row["difference"], row["low"], row["high"]),
            f"{row['difference']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]",
            number(row["p"], 2),
        )
        for row in sorted(rows, key=lambda row: row["difference"])
    )
    return Table(caption, columns, cells, scale=parts.scale_of(values, line=0.0, band=(-rope, rope)))


KNOWN = ("dataset", "arm", "n", "mean", "deviation", "converged")


def _arms(trial: Trial) -> Iterator[Block]:
    metric = trial.claim["metric"].replace("_", " ")
    for dataset in dict.fromkeys(arm["dataset"] for arm in trial.arms):
        own = [arm for arm in trial.arms if arm["dataset"] == dataset]
        sign = -1 if trial.claim["better"] == "larger" else 1
        own.sort(key=lambda arm: sign * arm["mean"] if arm["mean"] is not None else 1e300)
        extra = [key for key in dict.fromkeys(k for arm in own for k in arm) if key not in KNOWN]
        extra = [key for key in extra if any((arm.get(key) or 0) > 1e-3 for arm in own)]
        columns = (
            Column("arm", "text"),
            Column(metric),
            Column("seeds"),
            *(Column(key.removeprefix("n_").replace("_", " ")) for key in extra),
            Column("converged"),
        )
        rows = tuple(
            (
                _arm(arm["arm"]),
                Strong(f"{number(arm['mean'], 4)} ± {number(arm['deviation'], 2)}"),
                str(arm["n"]),
                *(number(arm.get(key)) for key in extra),
                arm["converged"] or "-",
            )
            for arm in own
        )
        yield Table(f"{dataset}, from best to worst", columns, rows)


def _arm(name: str) -> str:
    subject, _, control = name.rpartition("/")
    title = TITLES.get(control, control)
    return f"{subject}: {title}" if subject else title


def _deviations(trial: Trial) -> Iterator[Block]:
    for sentence in trial.claim["deviations"]:
        yield Paragraph(sentence)
    if trial.left_out:
        yield Paragraph("This was a quick trial. Otherwise than in the whole one: " + "; ".join(trial.left_out) + ".")


def _fixed(trial: Trial) -> Iterator[Block]:
    yield Paragraph(
        f"The SHA-256 of what was fixed before anything was measured is {trial.sha256}: data, models, training, seeds, "
        "figures, rules, the primary comparison and the controls, with every default filled in."
    )
    fixed = json.loads((trial.directory / "claim.json").read_text(encoding="utf-8"))
    yield Code("what was hashed", yaml.safe_dump(fixed, sort_keys=False, allow_unicode=True).rstrip())


def _provenance(trial: Trial) -> Iterator[Block]:
    quick = " --quick" if trial.left_out else ""
    command = f"qbp trial {trial.claim['name']}{quick}"
    cite = f"qbp {trial.versions.get('qbp', '')}, trial of {source_of(trial.claim)}, claim {trial.sha256[:12]}"
    yield Grid((Code("Command", command), Code("How to cite it", cite)))
    yield parts.pairs("Versions and machine", dict(trial.versions))


def write_page(directory: str | Path) -> Path:
    """Write the page of a trial, `report.html` in its directory."""
    path = Path(directory) / "report.html"
    write_atomic(path, to_html(trial_document(directory)).encode())
    return path

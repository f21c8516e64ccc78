"""A document as one HTML file without network or script, for light and dark, wide and narrow, and for print."""

from __future__ import annotations

import itertools
import re
from html import escape
from pathlib import Path

import qbp
from qbp.report.document import (
    FIGURE,
    Badge,
    Block,
    Cell,
    Code,
    Details,
    Document,
    Dot,
    Figure,
    Grid,
    Heading,
    Heat,
    Paragraph,
    Scale,
    Section,
    Strong,
    Table,
    Verdict,
    number,
)

__all__ = ["to_html"]

STYLE = Path(__file__).with_name("style.css")
MARKS = {"BEATS": "▲", "TIES": "＝", "LOSES": "▼", "INCONCLUSIVE": "?", "passed": "✓", "failed": "✗", "warns": "!"}


def to_html(document: Document) -> str:
    """Write a document as HTML."""
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in document.sections)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in document.facts)
    numbers = itertools.count(1)
    main = re.sub(
        "<svg.*?</svg>",
        lambda drawing: drawing[0].replace(FIGURE, f"f{next(numbers)}"),
        "".join(map(_section, document.sections)),
        flags=re.DOTALL,
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(document.title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<p class="kicker">{escape(document.subtitle)}</p>
<h1>{escape(document.title)}</h1>
{"".join(map(_verdict, document.verdicts))}
<dl class="facts">{facts}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="content">
{main}
</main>
<footer><p>Written by qbp {escape(qbp.__version__)}. This file needs nothing else: no network, no script.</p></footer>
</body>
</html>
"""


def _verdict(verdict: Verdict) -> str:
    return (
        f'<section class="verdict {_kind(verdict.word)}" aria-label="Verdict: {escape(verdict.about, quote=True)}">'
        f'<p class="word">{_badge(verdict.word)} <span>{escape(verdict.about)}</span></p>'
        f'<p class="heading">{escape(verdict.heading)}</p><p>{escape(verdict.sentence)}</p></section>'
    )


def _section(section: Section) -> str:
    title = f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>'
    blocks = "".join(map(_block, section.blocks))
    return f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">{title}{blocks}</section>\n'


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h3>{escape(block.text)}</h3>\n"
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>\n"
    if isinstance(block, Code):
        label = escape(block.label)
        return (
            f'<figure class="code"><figcaption>{label}</figcaption>'
            f'<pre tabindex="0" role="region" aria-label="{label}"><code>{escape(block.text)}</code></pre></figure>\n'
        )
    if isinstance(block, Figure):
        return _figure(block)
    if isinstance(block, Grid):
        inside = "".join(f"<div>{_block(each)}</div>" for each in block.blocks)
        return f'<div class="grid">{inside}</div>\n'
    if isinstance(block, Details):
        inside = "".join(map(_block, block.blocks))
        return f"<details><summary>{escape(block.summary)}</summary>{inside}</details>\n"
    return _table(block)


def _figure(figure: Figure) -> str:
    kind = ' class="wide" tabindex="0" role="group"' if figure.wide else ""
    return f"<figure{kind}>{figure.svg}<figcaption>{escape(figure.caption)}</figcaption></figure>\n"


def _table(table: Table) -> str:
    drawn = any(column.kind == "dots" for column in table.columns)
    heads = "".join(f'<th scope="col" class="{c.kind}">{escape(c.name)}</th>' for c in table.columns)
    rows = "".join(_row(table, row) for row in table.rows)
    axis = ""
    if drawn and table.scale is not None:
        cells = "".join(_axis(table.scale) if c.kind == "dots" else "<td></td>" for c in table.columns)
        axis = f'<tfoot aria-hidden="true"><tr>{cells}</tr></tfoot>'
    label = escape(table.caption, quote=True)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    stacked = drawn or any(column.kind == "lead" for column in table.columns)
    kind = (
        "stacked" if stacked else "matrix" if any(isinstance(c, Heat) for row in table.rows for c in row) else "plain"
    )
    return (
        f'<div class="table {kind}" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<caption>{escape(table.caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody>{axis}</table></div>{note}\n"
    )


def _row(table: Table, row: tuple[Cell, ...]) -> str:
    first = f'<th scope="row" class="{table.columns[0].kind}">{_cell(row[0], table.scale)}</th>'
    rest = [
        f'<td class="{column.kind}" data-name="{escape(column.name, quote=True)}"{_shade(cell)}>'
        f"{_cell(cell, table.scale)}</td>"
        for column, cell in zip(table.columns[1:], row[1:], strict=True)
    ]
    return f"<tr>{first}{''.join(rest)}</tr>"


def _shade(cell: Cell) -> str:
    return f' style="--share: {100 * cell.share:.0f}%"' if isinstance(cell, Heat) else ""


def _cell(cell: Cell, scale: Scale | None) -> str:
    if isinstance(cell, str):
        return escape(cell)
    if isinstance(cell, Badge):
        return _badge(cell.word)
    if isinstance(cell, Strong):
        return f"<strong>{escape(cell.text)}</strong>"
    if isinstance(cell, Heat):
        return f'<span class="heat">{escape(cell.text)}</span>'
    return _dot(cell, scale) if scale is not None else escape(number(cell.value))


def _badge(word: str) -> str:
    mark = f'<span aria-hidden="true">{MARKS[word]}</span> ' if word in MARKS else ""
    return f'<span class="badge {_kind(word)}">{mark}{escape(word)}</span>'


def _kind(word: str) -> str:
    """A word as the style sheet calls it."""
    return word.lower().replace(" ", "-")


def _dot(dot: Dot, scale: Scale) -> str:
    """A point and its interval: lines only, which keep their width however wide the cell is."""

    def at(value: float) -> float:
        return round(100 * (min(max(value, scale.low), scale.high) - scale.low) / (scale.high - scale.low), 2)

    parts = []
    if scale.band is not None:
        low, high = map(at, scale.band)
        parts.append(f'<rect class="band" x="{low}" y="0" width="{round(high - low, 2)}" height="10"/>')
    parts += [f'<path class="tick" d="M{at(tick)} 0V10"/>' for tick, _ in scale.ticks]
    if scale.line is not None:
        parts.append(f'<path class="line" d="M{at(scale.line)} 0V10"/>')
    parts.append(f'<path class="interval s{dot.series}" d="M{at(dot.low)} 5H{at(dot.high)}"/>')
    parts.append(f'<path class="point s{dot.series}" d="M{at(dot.value)} 5h0"/>')
    alt = f"{number(dot.value)}, from {number(dot.low)} to {number(dot.high)}"
    inside = "".join(parts)
    return f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{alt}">{inside}</svg>'


def _axis(scale: Scale) -> str:
    labels = "".join(
        f'<span style="left: {100 * (tick - scale.low) / (scale.high - scale.low):.2f}%">{escape(label)}</span>'
        for tick, label in scale.ticks
    )
    return f'<td class="dots"><div class="axis">{labels}</div></td>'

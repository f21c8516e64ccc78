"""What a page says, before it is HTML, Markdown or LaTeX: sections of paragraphs, tables, figures and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "FIGURE",
    "Badge",
    "Block",
    "Cell",
    "Code",
    "Column",
    "Details",
    "Document",
    "Dot",
    "Figure",
    "Grid",
    "Heading",
    "Heat",
    "Link",
    "Paragraph",
    "Scale",
    "Section",
    "Strong",
    "Table",
    "Verdict",
    "number",
    "percent",
]

FIGURE = "figure-number"  # in the identifiers of a drawing: the page puts a number there, so that no two are the same


@dataclass(frozen=True)
class Strong:
    """A cell to look at first."""

    text: str


@dataclass(frozen=True)
class Badge:
    """A verdict's word: BEATS, TIES, LOSES or INCONCLUSIVE; of a check "passed", "failed" or "warns"."""

    word: str


@dataclass(frozen=True)
class Link:
    """A cell that leads to a file beside the page."""

    text: str
    target: str


@dataclass(frozen=True)
class Dot:
    """A number with its interval, drawn on the scale of its table; `series` is the number of its colour."""

    value: float
    low: float
    high: float
    series: int = 0


@dataclass(frozen=True)
class Heat:
    """A cell shaded by `share`, between 0 and 1."""

    text: str
    share: float


Cell = str | Strong | Badge | Link | Dot | Heat


@dataclass(frozen=True)
class Scale:
    """What the dots of a table are drawn on: its ends, the ticks with their labels, a line, and a shaded band."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    line: float | None = None
    band: tuple[float, float] | None = None


@dataclass(frozen=True)
class Column:
    """A column; of `kind` "text", "lead" (text that a narrow page puts beside the row's name), "number", or "dots",
    which are drawn, and left out where there are no pictures."""

    name: str
    kind: str = "number"


@dataclass(frozen=True)
class Table:
    """A table with its caption. The first column names the row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    scale: Scale | None = None


@dataclass(frozen=True)
class Figure:
    """An SVG drawing: `caption` is read by everybody, `alt` says what a reader who cannot see it misses."""

    svg: str
    caption: str
    alt: str
    wide: bool = False


@dataclass(frozen=True)
class Paragraph:
    """Words."""

    text: str


@dataclass(frozen=True)
class Heading:
    """The title of a part of a section."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text to be copied as it is."""

    label: str
    text: str


@dataclass(frozen=True)
class Grid:
    """Figures, tables or code side by side, where there is room."""

    blocks: tuple[Figure | Table | Code, ...]


@dataclass(frozen=True)
class Details:
    """What most readers may skip."""

    summary: str
    blocks: tuple[Block, ...]


Block = Heading | Table | Figure | Grid | Paragraph | Code | Details


@dataclass(frozen=True)
class Section:
    """A part of the page, with the name of its link."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Verdict:
    """What was found, in a word, in plain words, and what decided it."""

    word: str
    about: str
    heading: str
    sentence: str


@dataclass(frozen=True)
class Document:
    """A page: `facts` are its few numbers at the top, by name."""

    title: str
    subtitle: str
    verdicts: tuple[Verdict, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def number(value: float | None, digits: int = 3) -> str:
    """Write a number for a table; "-" where there is none, thousands apart.

    Example:
        >>> number(0.12345), number(1234567.0), number(None), number(12), number(2.5e-7)
        ('0.123', '1,234,567', '-', '12', '2.5e-07')
    """
    if value is None or value != value:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as percent.

    Example:
        >>> percent(0.992), percent(None)
        ('99.2 %', '-')
    """
    return "-" if value is None or value != value else f"{100 * value:.{digits}f} %"


def texts(row: Sequence[Cell]) -> list[str]:
    """Return the words of a row's cells, a dot's as its number."""
    return [_text(cell) for cell in row]


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Badge):
        return cell.word
    return number(cell.value) if isinstance(cell, Dot) else cell.text

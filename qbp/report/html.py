"""A document as one HTML file without network or script, for light and dark, wide and narrow, and for print."""

from __future__ import annotations

import itertools
from pathlib import Path

from markupsafe import Markup

import qbp
from qbp.report.document import FIGURE, Document
from qbp.report.templating import render

__all__ = ["to_html"]

STYLE = Path(__file__).with_name("style.css")
MARKS = {"BEATS": "▲", "TIES": "=", "LOSES": "▼", "INCONCLUSIVE": "?", "passed": "✓", "failed": "✗", "warns": "!"}
MARKS |= {"REPRODUCED": "✓", "NOT REPRODUCED": "✗", "UNDECIDED": "?", "YES": "▲", "NO": "▼", "MIXED": "◆"}


def to_html(document: Document) -> str:
    """Write a document as HTML."""
    numbers = itertools.count(1)

    def drawn(svg: str) -> Markup:
        return Markup(svg.replace(FIGURE, f"f{next(numbers)}"))

    style = STYLE.read_text(encoding="utf-8")
    return render("page.html", page=document, style=style, marks=MARKS, drawn=drawn, version=qbp.__version__)

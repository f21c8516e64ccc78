"""Templates: what is written into them is escaped, so that no name and no label can be markup."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from qbp.report.document import Heat, Scale, Table, number

__all__ = ["render"]


def render(template: str, **values: Any) -> str:
    """Fill in a template of the folder `templates`."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("qbp.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=False,
    )
    environment.filters |= {
        "number": number,
        "place": _place,
        "layout": _layout,
        "type_name": _type_name,
        "coded": _coded,
    }
    return environment


def _type_name(value: object) -> str:
    return type(value).__name__


def _coded(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _place(value: float, scale: Scale) -> float:
    """Where a value lies on a scale, from 0 to 100."""
    return round(100 * (min(max(value, scale.low), scale.high) - scale.low) / (scale.high - scale.low), 2)


def _layout(table: Table) -> str:
    """How the style sheet lays a table out."""
    if any(column.kind in ("dots", "lead") for column in table.columns):
        return "stacked"
    return "matrix" if any(isinstance(cell, Heat) for row in table.rows for cell in row) else "plain"

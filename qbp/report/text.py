"""A document as Markdown or as LaTeX: its words and its tables, for papers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from qbp.report.document import Block, Cell, Code, Details, Document, Grid, Heading, Paragraph, Strong, Table, texts

__all__ = ["latex", "markdown"]


def markdown(document: Document) -> str:
    """Write a document as Markdown (GitHub's tables)."""
    lines = [f"# {document.title}", ""]
    for verdict in document.verdicts:
        lines += [f"**{verdict.word}** ({verdict.about}). {verdict.heading} {verdict.sentence}", ""]
    for section in document.sections:
        lines += [f"## {section.title}", ""]
        for block in _flat(section.blocks):
            lines += _markdown(block)
    return "\n".join(lines).rstrip() + "\n"


def latex(document: Document) -> str:
    """Write the tables of a document as LaTeX (package booktabs), each in a table of its own."""
    tables = [
        (section.anchor, block)
        for section in document.sections
        for block in _flat(section.blocks)
        if isinstance(block, Table)
    ]
    parts = ["% \\usepackage{booktabs}"]
    for verdict in document.verdicts:
        parts.append(f"% {verdict.word} ({verdict.about}): {verdict.heading} {verdict.sentence}")
    for k, (anchor, table) in enumerate(tables):
        parts.append(_latex(table, f"{anchor}-{k}"))
    return "\n\n".join(parts) + "\n"


def _flat(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Details | Grid):
            yield from _flat(block.blocks)
        else:
            yield block


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Heading):
        return [f"### {_escape_markdown(block.text)}", ""]
    if isinstance(block, Paragraph):
        return [_escape_markdown(block.text), ""]
    if isinstance(block, Code):
        return [f"{block.label}:", "", "```", block.text, "```", ""]
    if isinstance(block, Table):
        heads, rows = _cells(block, _escape_markdown, "**{}**")
        rules = ["---:" if column.kind == "number" else "---" for column in block.columns if column.kind != "dots"]
        lines = [f"**{_escape_markdown(block.caption)}**", ""]
        lines += [f"| {' | '.join(row)} |" for row in (heads, rules, *rows)]
        return [*lines, "", *([_escape_markdown(block.note), ""] if block.note else [])]
    return []  # a figure


def _latex(table: Table, label: str) -> str:
    heads, rows = _cells(table, _escape_latex, r"\textbf{{{}}}")
    kinds = "".join("r" if column.kind == "number" else "l" for column in table.columns if column.kind != "dots")
    note = f" {_escape_latex(table.note)}" if table.note else ""
    body = "\n".join("  " + " & ".join(row) + r" \\" for row in rows)
    return (
        f"\\begin{{table}}\n  \\centering\n  \\caption{{{_escape_latex(table.caption)}.{note}}}\n"
        f"  \\label{{tab:{label}}}\n  \\begin{{tabular}}{{{kinds}}}\n  \\toprule\n  {' & '.join(heads)} \\\\\n"
        f"  \\midrule\n{body}\n  \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}"
    )


def _cells(table: Table, escape: Callable[[str], str], strong: str) -> tuple[list[str], list[list[str]]]:
    kept = [k for k, column in enumerate(table.columns) if column.kind != "dots"]

    def write(cell: Cell, text: str) -> str:
        return strong.format(escape(text)) if isinstance(cell, Strong) else escape(text)

    rows = [[write(row[k], texts(row)[k]) for k in kept] for row in table.rows]
    return [escape(table.columns[k].name) for k in kept], rows


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text).replace("\n", " ")


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
}


def _escape_latex(text: str) -> str:
    plain = re.sub(r"[&%$#_{}\\~^±†]", lambda match: SPECIAL.get(match[0], "\\" + match[0]), text)
    return plain.replace("\n", " ")

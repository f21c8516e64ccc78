"""`qbp report` and `diagnose`: what a run or a comparison came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qbp.cli.console import TrustOption, out, table

__all__ = ["diagnose", "report"]


def report(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="What `qbp train`, `compare` or `sweep` wrote.")],
    output: Annotated[Path | None, typer.Option(help="The file; default report.html in the directory.")] = None,
    format: Annotated[str, typer.Option(help="html (everything), md or tex (words and tables, for papers).")] = "html",
) -> None:
    """Write the page of a run, a comparison or a sweep: one file, the outcome first, that needs no network."""
    from qbp.report import write

    out().print(f"Written: {write(directory, output, format=format)}", markup=False)


def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, as in runs/digits.")],
    trust: TrustOption = False,
) -> None:
    """Say why a model does not learn: each number with its threshold, advice and a picture."""
    from qbp.report.plots.run import draw_diagnosis
    from qbp.runs.run import DIAGNOSIS
    from qbp.runs.run import diagnose as diagnose_run

    findings = diagnose_run(run, trust=trust)
    draw_diagnosis(run)
    rows = table(str(run), "finding", "what", "value", "warns", "")
    for finding in findings:
        numbers = f"{finding.value:.3g}", finding.limit, "warns" if finding.warns else "fine"
        rows.add_row(finding.code, finding.title, *numbers)
    console = out()
    console.print(rows)
    warnings = [finding for finding in findings if finding.warns]
    for finding in warnings:
        console.print(f"{finding.code}: {finding.says}", markup=False)
    if not warnings:
        console.print("Nothing is wrong that this diagnosis knows of.")
    console.print(f"Saved in {run}: {DIAGNOSIS}, diagnosis.png", markup=False)

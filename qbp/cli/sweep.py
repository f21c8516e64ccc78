"""`qbp sweep`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qbp.cli.console import (
    Bar,
    ConfigArgument,
    ExecutorOption,
    QuietOption,
    SetOption,
    TrustOption,
    WorkersOption,
    err,
    load_config,
    out,
    overrides_of,
    table,
)

if TYPE_CHECKING:
    from qbp.runs.search import SweepResult

__all__ = ["sweep"]

MOST_ROWS = 10


def sweep(
    config: ConfigArgument,
    overrides: SetOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep; by default the config's.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where sweeps are kept.")] = Path("runs"),
    workers: WorkersOption = None,
    executor: ExecutorOption = "processes",
    quiet: QuietOption = False,
    trust: TrustOption = False,
) -> None:
    """Search the best values of a config's keys by validation; the best one then meets the test part, once.

    Stopped or killed, it goes on where it was.
    """
    chosen = load_config(config, overrides_of(overrides, name), trust)
    folder = runs_dir / chosen.name
    from qbp.runs.search import sweep as search

    try:
        with Bar(quiet) as progress:
            how: dict[str, Any] = {"workers": workers or os.cpu_count() or 1, "executor": executor}
            result = search(chosen, folder, progress=progress, trust=trust, **how)
    except KeyboardInterrupt:
        err().print("Interrupted. The same command goes on from here.", markup=False)
        raise typer.Exit(130) from None
    console = out()
    console.print(_trials(result, chosen.name))
    if result.importance:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in result.importance.items())
        console.print(f"What mattered: {shares}", markup=False)
    console.print(_said(result), markup=False)
    console.print(f"Saved in {folder}; its model: {folder / 'best'}", markup=False)


def _trials(result: SweepResult, name: str) -> Table:
    """The best trials, with the chosen one first."""
    sign = -1 if result.mode == "max" else 1
    complete = [row for row in result.rows if row["state"] == "complete"]
    ordered = sorted(complete, key=lambda row: (row is not result.best, sign * row["score"]))
    states = [row["state"] for row in result.rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    keys = list(result.best["values"])
    shown = table(f"{name}: {counts}", "trial", result.metric, "two-qubit gates", *keys)
    for row in ordered[:MOST_ROWS]:
        values = (_written(value) for value in row["values"].values())
        shown.add_row(str(row["number"]), f"{row['score']:.4f}", str(row["two_qubit_gates"]), *values)
    return shown


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "null" if value is None else str(value)


def _said(result: SweepResult) -> str:
    from qbp.training.metrics import main_metric

    metric = main_metric(result.test)
    return (
        f"Trial {result.best['number']} was chosen by {result.metric}; on the test part, which it met once, its "
        f"{metric} is {result.test[metric]:.4f}."
    )

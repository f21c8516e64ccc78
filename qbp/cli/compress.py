"""`qbp run` and `distill`: smaller models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qbp.cli.console import ConfigArgument, SetOption, err, load_config, out, table

__all__ = ["distill", "run"]

NameOption = Annotated[str | None, typer.Option(help="Name of the run; by default the config's.")]
RunsOption = Annotated[Path, typer.Option(help="Where runs are kept.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run of that name.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def run(
    config: ConfigArgument,
    overrides: SetOption = None,
    name: NameOption = None,
    runs_dir: RunsOption = Path("runs"),
    resume: ResumeOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train, prune and distil as the config says, and print how large and how good the model of each stage is."""
    chosen = load_config(config, [*(overrides or []), *([f"name={name}"] if name is not None else [])])
    from qbp import pipeline

    folder = runs_dir / chosen.name
    _show("stages", folder, lambda: pipeline.run(chosen, folder, resume=resume, progress=not quiet))


def distill(
    config: ConfigArgument,
    teacher: Annotated[list[str], typer.Option(help="Directory of a run, or a model file. Repeatable.")],
    overrides: SetOption = None,
    name: NameOption = None,
    runs_dir: RunsOption = Path("runs"),
    resume: ResumeOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the config's model on what finished models say; settings as in --set distill.temperature=2."""
    chosen = load_config(config, [*(overrides or []), *([f"name={name}"] if name is not None else [])])
    from qbp import pipeline

    folder = runs_dir / chosen.name
    _show("models", folder, lambda: pipeline.teach(chosen, teacher, folder, resume=resume, progress=not quiet))


def _show(what: str, folder: Path, work: Callable[[], dict[str, Any]]) -> None:
    try:
        result = work()
    except KeyboardInterrupt:
        err().print(f"Interrupted. The same command with --resume goes on with {folder}", markup=False)
        raise typer.Exit(130) from None
    out().print(_sizes(result, what))
    out().print(f"Saved in {folder}", markup=False)


def _sizes(result: dict[str, Any], what: str) -> Table:
    about, scores = result["data"], result[what]
    counts = {"parameters": "weights", "rotations": "rotations", "two_qubit_gates": "2-qubit", "circuits": "circuits"}
    metrics = ("accuracy", "loss") if "accuracy" in next(iter(scores.values())) else ("r2", "mae", "loss")
    title = f"{result['name']}: {about['name']}, {about['train']} rows to train, {about['test']} to test"
    rows = table(title, what[:-1], *counts.values(), *metrics)
    for name, score in scores.items():
        rows.add_row(name, *(str(score[count]) for count in counts), *(f"{score[metric]:.4f}" for metric in metrics))
    return rows

"""`qbp init` and `summary`: a config to begin with, and a run in a few lines."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from qbp.cli.console import TrustOption, in_shell, out, table

__all__ = ["init", "summary"]

TEMPLATES = Path(__file__).parents[1] / "configs" / "init"


class Kind(StrEnum):
    """What a config is for."""

    TRAIN = "train"
    COMPARE = "compare"
    SWEEP = "sweep"
    SUBMIT = "submit"


def init(
    kind: Annotated[Kind, typer.Argument(help="What for.")] = Kind.TRAIN,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="The file; by default KIND.yaml.")] = None,
    data: Annotated[Path | None, typer.Option(help="A table of your own, its last column the one to predict.")] = None,
) -> None:
    """Write a config with comments that runs as it is, to begin with."""
    from qbp.errors import ConfigError
    from qbp.runs.config import run_name
    from qbp.storage.atomic import write_atomic

    path = output or Path(f"{kind.value}.yaml")
    if path.exists():
        raise ConfigError(f"{path} is already there: give another name (`--out`)")
    text = (TEMPLATES / f"{kind.value}.yaml").read_text(encoding="utf-8")
    text = text.replace("NAME.yaml", in_shell(path)).replace("runs/NAME", f"runs/{run_name(path)}")
    if data is not None:
        text = _with_data(text, data, path)
    write_atomic(path, text.encode())
    device = ("--backend", "fake:manila", "--shots", 200) if kind is Kind.SUBMIT else ()
    command = in_shell("qbp", kind.value, path, *device)
    out().print(f"Written: {path}. Next: {command}", markup=False)


def _with_data(text: str, data: Path, path: Path) -> str:
    """The template with a table of the user's own, which is read so that its faults are told at once."""
    import json
    import os
    import textwrap

    from qbp.data import load
    from qbp.runs.config import run_name

    train, test = load(data)
    name = Path(os.path.relpath(os.path.abspath(data), os.path.abspath(path.parent))).as_posix()
    said = f"{train.summary().removeprefix(f'{train.name}: ')} to train, {len(test)} to test"
    lines = textwrap.wrap(said, 100, initial_indent="# ", subsequent_indent="# ", max_lines=6)
    above = "".join(f"{line}\n" for line in lines)
    text = re.sub(r"^data:\n(?=  \w+:.*\n    name:|  name:)", lambda _: f"{above}data:\n", text, flags=re.MULTILINE)
    text = re.sub(r"(?m)^  moons:", f"  {run_name(data)}:".ljust(len("  moons:")), text)
    text = re.sub(r"(?m)^( +name:).*$", lambda match: f"{match[1]} {json.dumps(name)}", text, count=1)
    return re.sub(r"(?m)^ +(n_samples|classes):.*\n", "", text)


def summary(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, or a model file.")],
    trust: TrustOption = False,
) -> None:
    """Say what a run is: its data, its model layer by layer, its training, and what came of it."""
    from qbp.data import preprocessing_of
    from qbp.nn.summaries import COLUMNS, rows_of_model
    from qbp.runs.run import opened

    model, _ = opened(run, trust)
    console = out()
    if (data := preprocessing_of(model)) is not None:
        task = f"{data.target} in {len(data.classes)} classes" if data.classes else f"{data.target}, a regression"
        console.print(f"{run}: {task} by {len(data.columns)} columns", markup=False)
        if data.classes:
            console.print(f"classes: {', '.join(data.classes)}", markup=False)
    rows = table("model", *COLUMNS)
    for row in rows_of_model(model):
        rows.add_row(*row)
    console.print(rows)
    if run.is_dir():
        _results(run)


def _results(run: Path) -> None:
    """What a run's training came to, as far as it has come."""
    from qbp.runs.folder import read_config
    from qbp.storage.folder import RunFolder
    from qbp.training.metrics import metrics_of

    config, folder = read_config(run, trust=True), RunFolder(run)
    how = config.train
    out().print(
        f"data {Path(config.data.name).name}, seed {config.seed}, {how.epochs} epochs at most, lr {how.lr:g}, "
        f"{how.optimizer}, batches of {how.batch_size}",
        markup=False,
    )
    if not folder.is_finished:
        out().print("Not finished: `qbp train ... --resume` goes on.", markup=False)
        return
    scores: dict[str, dict[str, Any]] = folder.result()["models"]
    metrics = metrics_of(next(iter(scores.values())))
    rows = table("held-out data", "model", "parameters", "epochs", *metrics)
    for name, score in scores.items():
        numbers = (f"{score[metric]:.4f}" for metric in metrics)
        rows.add_row(name, str(score["parameters"]), str(score.get("epochs", "-")), *numbers)
    out().print(rows)

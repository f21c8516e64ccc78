"""The command line: `qbp train`, `evaluate`, `lr`, `circuits`, `info`. Each imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qbp.errors import QbpError

if TYPE_CHECKING:
    from qbp.config import Config
    from qbp.listing import Listing

__all__ = ["app", "main"]

app = typer.Typer(
    name="qbp",
    help="Variational quantum circuits as differentiable layers inside PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a config that comes with qbp: digits, xor.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config, as in train.lr=0.02. Repeatable."),
]


@app.command()
def train(
    config: ConfigArgument,
    overrides: SetOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the config's.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run of that name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train a model and its classical twin, and print how both do on held-out data."""
    chosen = _config(config, [*(overrides or []), *([f"name={name}"] if name is not None else [])])
    folder = runs_dir / chosen.name
    from qbp import runs

    try:
        result = runs.train(chosen, folder, resume=resume, progress=not quiet)
    except KeyboardInterrupt:
        again = f"qbp train {folder / runs.CONFIG} --resume"
        if runs_dir != Path("runs"):
            again += f" --runs-dir {runs_dir}"
        _err().print(f"Interrupted. Go on with: {again}", markup=False)
        raise typer.Exit(130) from None
    console = _out()
    console.print(_scores(result))
    if (said := runs.verdict(result)) is not None:
        console.print(said, markup=False)
    console.print(f"Saved in {folder}", markup=False)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, as in runs/digits.")],
    backend: Annotated[str | None, typer.Option(help="Where the circuit runs, instead of the run's own.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Sample each circuit so many times.")] = None,
) -> None:
    """Evaluate the model of a run on its held-out data, on any backend."""
    from qbp import runs

    result = runs.evaluate(run, backend=backend, shots=shots)
    elsewhere = [f"backend {backend}"] * (backend is not None) + [f"{shots} shots"] * (shots is not None)
    title = ", ".join([str(run), *elsewhere])
    table = _table(title, "model", "epoch", *(f"test {metric}" for metric in _metrics(result)))
    table.add_row(result["model"], str(result["epoch"]), *(f"{result[key]:.4f}" for key in _metrics(result)))
    _out().print(table)


@app.command()
def lr(
    config: ConfigArgument,
    overrides: SetOption = None,
    output: Annotated[Path | None, typer.Option(help="The picture (.png, .svg, .pdf); default NAME-lr.png.")] = None,
) -> None:
    """Find a learning rate: raise it step by step, and see where the loss falls fastest."""
    chosen = _config(config, overrides or [])
    from qbp import report, runs
    from qbp.train import lr_range_test

    with runs.threads(chosen.threads):
        train_data, _ = runs.load_data(chosen)
        name, model = next(iter(runs.build(chosen, train_data).items()))
        settings = chosen.train.model_dump(include={"optimizer", "batch_size", "loss"})
        found = lr_range_test(model, train_data, seed=chosen.seed, **settings)
    path = report.learning_rate(found, output or Path(f"{chosen.name}-lr.png"))
    _out().print(f"Suggested for the {name} model: train.lr={found.suggestion:.2g} (curve in {path})", markup=False)


@app.command()
def circuits(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Draw this one: a name or a .qasm file.")] = None,
) -> None:
    """List the circuits that come with qbp, or draw one."""
    from qbp import qasm

    if name is None:
        table = _table(str(qasm.circuits_dir()), "name", "title", "qubits", "inputs", "weights", "gates", "outputs")
        for each in qasm.available():
            table.add_row(each, *_counts(qasm.load(each)))
        _out().print(table)
        return
    from qbp.drawing import draw
    from qbp.listing import format_observables

    listing = qasm.load(name)
    title, *counts = _counts(listing)
    said = [f"{count} {what}" for count, what in zip(counts, ("qubits", "inputs", "weights", "gates"), strict=False)]
    lines = [title, listing.reference, ", ".join(said), f"observables: {format_observables(listing.measurements)}"]
    _out().print("\n".join([*filter(None, lines), "", draw(listing)]), markup=False, highlight=False)


@app.command()
def info() -> None:
    """Print versions, processor, threads, engine and backends: what a bug report needs."""
    from importlib.metadata import entry_points

    import numpy as np
    import torch

    from qbp import runs
    from qbp.executors.native import kernels, lanes

    width = [f"{lanes.lanes_of(np.dtype(name))} x {name}" for name in ("float32", "float64")]
    devices = sorted({point.name for point in entry_points(group="pennylane.plugins")})
    about = {
        **runs.versions(),
        "torch threads": torch.get_num_threads(),
        "native engine": f"{' or '.join(width)} in a register",
        "compiled kernels": kernels.forward.stats.cache_path,
        "backends": "auto, native, dense, package.module:Thing, and PennyLane's devices: " + ", ".join(devices),
    }
    for key, value in about.items():
        _out().print(f"{key:<17} {'-' if value is None else value}", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a user got wrong is one line and exit code 2, not a traceback."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="qbp")
    except (QbpError, OSError) as error:
        _err().print(f"Error: {error}", markup=False)
        sys.exit(2)


def _config(config: str, overrides: Sequence[str]) -> Config:
    from qbp import config as configs

    return configs.load(config, overrides)


def _counts(listing: Listing) -> tuple[str, ...]:
    counts = listing.n_qubits, len(listing.inputs), len(listing.weights), len(listing.calls), len(listing.measurements)
    return (listing.title, *map(str, counts))


def _scores(result: dict[str, Any]) -> Table:
    about, scores = result["data"], result["models"]
    metrics = _metrics(next(iter(scores.values())))
    title = f"{result['name']}: {about['name']}, {about['train']} rows to train, {about['test']} to test"
    table = _table(title, "model", "parameters", "epochs", "seconds", *(f"test {metric}" for metric in metrics))
    for name, score in scores.items():
        counts = str(score["parameters"]), str(score["epochs"]), f"{score['seconds']:.1f}"
        table.add_row(name, *counts, *(f"{score[metric]:.4f}" for metric in metrics))
    return table


def _metrics(score: dict[str, Any]) -> tuple[str, ...]:
    return ("accuracy", "loss") if "accuracy" in score else ("r2", "mae", "loss")


def _table(title: str | None, *columns: str) -> Table:
    table = Table(title=escape(title) if title else None, title_justify="left", show_header=any(columns))
    for k, column in enumerate(columns):
        words = k == 0 or column == "title"
        table.add_column(column, justify="left" if words else "right", no_wrap=k == 0)
    return table


def _out() -> Console:
    return Console(soft_wrap=True)


def _err() -> Console:
    return Console(stderr=True, soft_wrap=True)

"""`qbp train`, `evaluate`, `predict`, `noise` and `lr`."""

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
    NameOption,
    QuietOption,
    ResumeOption,
    RunsOption,
    SetOption,
    TrustOption,
    err,
    in_shell,
    load_config,
    out,
    overrides_of,
)
from qbp.cli.console import table as formatted

if TYPE_CHECKING:
    from qbp.runs.config import Config
    from qbp.training.prediction import Prediction

__all__ = ["evaluate", "lr", "noise", "predict", "train"]

MOST_ROWS = 20


def train(
    config: ConfigArgument,
    overrides: SetOption = None,
    name: NameOption = None,
    runs_dir: RunsOption = Path("runs"),
    resume: ResumeOption = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="A run for each of so many seeds, and their mean.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes for `--seeds`; default one a core.")] = None,
    executor: ExecutorOption = "processes",
    quiet: QuietOption = False,
    trust: TrustOption = False,
) -> None:
    """Train a model and its classical twin, and print how both do on held-out data."""
    chosen = load_config(config, overrides_of(overrides, name), trust)
    folder = runs_dir / chosen.name
    if seeds is not None:
        how: dict[str, Any] = {"resume": resume, "workers": workers or os.cpu_count() or 1, "executor": executor}
        _train_seeds(chosen, folder, seeds, quiet, how)
        return
    from qbp.report.plots.run import draw_run
    from qbp.runs.folder import CONFIG
    from qbp.runs.run import train as train_run
    from qbp.runs.run import verdict

    try:
        result = train_run(chosen, folder, resume=resume, progress=not quiet)
    except KeyboardInterrupt:
        elsewhere = [] if runs_dir == Path("runs") else ["--runs-dir", runs_dir]
        again = in_shell("qbp", "train", folder / CONFIG, "--resume", *elsewhere)
        err().print(f"Interrupted. Go on with: {again}", markup=False)
        raise typer.Exit(130) from None
    draw_run(folder)
    console = out()
    console.print(_scores(result))
    if (said := verdict(result)) is not None:
        console.print(said, markup=False)
    for model, score in result["models"].items():
        for sentence in score.get("diagnosis", ()):
            console.print(f"The {model} model did not learn. {sentence}", markup=False)
    console.print(f"Saved in {folder}", markup=False)


def _train_seeds(config: Config, folder: Path, seeds: int, quiet: bool, how: dict[str, Any]) -> None:
    from qbp.runs.seeds import train_seeds
    from qbp.training.metrics import metrics_of

    try:
        with Bar(quiet) as move:
            result = train_seeds(config, folder, seeds, progress=move, **how)
    except KeyboardInterrupt:
        err().print("Interrupted. The same command with --resume goes on from here.", markup=False)
        raise typer.Exit(130) from None
    metrics = metrics_of(next(iter(result["models"].values())))
    shown = formatted(
        f"{config.name}: {len(result['seeds'])} seeds", "model", *(f"test {metric}" for metric in metrics)
    )
    for model, scores in result["models"].items():
        shown.add_row(model, *(_mean(scores[metric]) for metric in metrics))
    out().print(shown)
    out().print(f"Saved in {folder}: a run for each seed. What a difference is worth: qbp compare", markup=False)


def _mean(score: dict[str, Any]) -> str:
    return f"{score['mean']:.4f}" + ("" if score["std"] is None else f" ± {score['std']:.4f}")


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, as in runs/digits.")],
    backend: Annotated[str | None, typer.Option(help="Where the circuit runs, instead of the run's own.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Sample each circuit so many times.")] = None,
    trust: TrustOption = False,
) -> None:
    """Evaluate the model of a run on its held-out data, on any backend."""
    from qbp.runs.run import evaluate as evaluate_run
    from qbp.training.metrics import metrics_of

    result = evaluate_run(run, backend=backend, shots=shots, trust=trust)
    elsewhere = [f"backend {backend}"] * (backend is not None) + [f"{shots} shots"] * (shots is not None)
    title = ", ".join([str(run), *elsewhere])
    metrics = metrics_of(result)
    rows = formatted(title, "model", "epoch", *(f"test {metric}" for metric in metrics))
    rows.add_row(result["model"], str(result["epoch"]), *(f"{result[metric]:.4f}" for metric in metrics))
    out().print(rows)


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, or a model file.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A .csv, .parquet, .npy or .npz file of new rows.")],
    output: Annotated[Path | None, typer.Option("--out", "-o", help="Write all of it to this CSV file.")] = None,
    trust: TrustOption = False,
) -> None:
    """Predict labels with their probabilities, or values, for the rows of a table.

    The table has the columns of the run's own, in any order; others, as the target, are left out.
    """
    from qbp.runs.run import opened, threads
    from qbp.training.prediction import prediction

    model, count = opened(run, trust)
    with threads(count):
        said = prediction(model, table)
    if output is not None:
        from qbp.storage.atomic import write_table

        names, rows = _predicted(said)
        write_table(output, names, rows)
        out().print(f"Written: {output} ({len(rows)} rows)", markup=False)
        return
    shown = formatted(f"{run}: {table}", "row", said.preprocessing.target, *(("probability",) * bool(said.classes)))
    for k, value in enumerate(said.values[:MOST_ROWS]):
        likely = () if said.probabilities is None else (f"{said.probabilities[k].max():.4f}",)
        shown.add_row(str(k + 1), _written(value), *likely)
    out().print(shown)
    if len(said.values) > MOST_ROWS:
        left = len(said.values) - MOST_ROWS
        out().print(f"and {left} rows more: `--out FILE` writes all of them, with all probabilities", markup=False)


def _predicted(said: Prediction) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of columns and rows of a file of predictions."""
    target, probabilities = said.preprocessing.target, said.probabilities
    columns = {target: said.values} if said.values.ndim == 1 else {}
    if said.values.ndim > 1:
        columns = {f"{target}{k}": said.values[:, k] for k in range(said.values.shape[1])}
    if probabilities is not None:
        columns |= {f"p({name})": probabilities[:, k] for k, name in enumerate(said.classes)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
    return list(columns), rows


def _written(value: Any) -> str:
    """A label or a value, or several, as a table shows it."""
    if getattr(value, "ndim", 0):
        return ", ".join(map(_written, value))
    return f"{value:.6g}" if value.dtype.kind == "f" else str(value)


def noise(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, as in runs/digits.")],
    device: Annotated[str, typer.Option(help="A fake backend, whose noise is taken.")] = "fake:manila",
    shots: Annotated[int, typer.Option(min=1, help="Sample each circuit so many times.")] = 1000,
    trust: TrustOption = False,
) -> None:
    """Evaluate the model of a run without noise, with shots, with a device's noise, and with both.

    The table is kept in the run, where `qbp report` finds it.
    """
    from qbp.hardware.noise_tables import noise_table
    from qbp.runs.run import restore, threads
    from qbp.storage.atomic import write_table

    config, model, (_, test) = restore(run, trust)
    with threads(config.threads):
        result = noise_table(model, test, device=device, shots=shots, seed=config.seed)
    rows = result.to_rows()
    write_table(run / "noise.csv", rows[0], rows)
    out().print(str(result), markup=False, highlight=False)


def lr(
    config: ConfigArgument,
    overrides: SetOption = None,
    output: Annotated[Path | None, typer.Option(help="The picture (.png, .svg, .pdf); default NAME-lr.png.")] = None,
    trust: TrustOption = False,
) -> None:
    """Find a learning rate: raise it step by step, and see where the loss falls fastest."""
    chosen = load_config(config, overrides or [], trust)
    from qbp.report.plots.training import learning_rate
    from qbp.runs.run import build, load_data, threads
    from qbp.training.learning_rate import lr_range_test

    with threads(chosen.threads):
        train_data, _ = load_data(chosen)
        name, model = next(iter(build(chosen, train_data).items()))
        how = chosen.train
        options: dict[str, Any] = {"optimizer": how.optimizer, "batch_size": how.batch_size, "loss": how.loss}
        curve = lr_range_test(model, train_data, seed=chosen.seed, **options)
    path = learning_rate(curve, output or Path(f"{chosen.name}-lr.png"))
    out().print(f"Suggested for the {name} model: train.lr={curve.suggestion:.2g} (curve in {path})", markup=False)


def _scores(result: dict[str, Any]) -> Table:
    from qbp.training.metrics import metrics_of

    about, scores = result["data"], result["models"]
    metrics = metrics_of(next(iter(scores.values())))
    title = f"{result['name']}: {about['name']}, {about['train']} rows to train, {about['test']} to test"
    rows = formatted(title, "model", "parameters", "epochs", "seconds", *(f"test {metric}" for metric in metrics))
    for name, score in scores.items():
        counts = str(score["parameters"]), str(score["epochs"]), f"{score['seconds']:.1f}"
        rows.add_row(name, *counts, *(f"{score[metric]:.4f}" for metric in metrics))
    return rows

"""`qbp run`, `prune` and `distill`: smaller models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qbp.cli.console import (
    ConfigArgument,
    NameOption,
    QuietOption,
    ResumeOption,
    RunsOption,
    SetOption,
    TrustOption,
    err,
    load_config,
    out,
    overrides_of,
    table,
)

__all__ = ["distill", "prune", "run"]


def run(
    config: ConfigArgument,
    overrides: SetOption = None,
    name: NameOption = None,
    runs_dir: RunsOption = Path("runs"),
    resume: ResumeOption = False,
    quiet: QuietOption = False,
    trust: TrustOption = False,
) -> None:
    """Train, prune and distil as the config says, and print how large and how good the model of each stage is."""
    chosen = load_config(config, overrides_of(overrides, name), trust)
    from qbp.runs.stages import run as run_stages

    folder = runs_dir / chosen.name
    _show("stages", folder, lambda: run_stages(chosen, folder, resume=resume, progress=not quiet, trust=trust))


def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, as in runs/digits.")],
    amount: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the groups of each kind to remove.")] = 0.5,
    by: Annotated[str, typer.Option(help="l1, l2, identity, taylor, fisher, random; or exact.")] = "fisher",
    what: Annotated[str, typer.Option(help="neurons, gates or both; or one kind, as entangler.")] = "both",
    schedule: Annotated[str, typer.Option(help="one-shot, iterative or cubic.")] = "one-shot",
    steps: Annotated[int | None, typer.Option(min=1, help="Rounds of the schedule.")] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Fine-tuning after each round, with the run's settings.")] = 5,
    backend: Annotated[str | None, typer.Option(help="A device to spare two-qubit gates, as fake:quito.")] = None,
    seed: Annotated[int, typer.Option(help="Of random choice and fine-tuning.")] = 0,
    trust: TrustOption = False,
) -> None:
    """Prune the model of a run, and print what that saves and costs beside pruning as much at random.

    The table is kept in the run, where `qbp report` finds it.
    """
    from dataclasses import replace

    from qbp.compression.experiment import cost_of, quality_of
    from qbp.compression.pruning import prune as pruned_by
    from qbp.nn.layer import QuantumLayer
    from qbp.nn.saving import save_model
    from qbp.report.plots.compression import circuits
    from qbp.runs.run import restore, threads
    from qbp.storage.atomic import write_table

    config, model, (train, test) = restore(run, trust)
    options: dict[str, Any] = {"amount": amount, "what": what, "schedule": schedule, "steps": steps, "seed": seed}
    if epochs:
        options["finetune"] = replace(config.train, epochs=epochs, early_stopping=None, validation=None)
    with threads(config.threads):
        models = {"full": model, "pruned": pruned_by(model, train, by=by, backend=backend, **options)}
        if by not in ("random", "exact"):
            models["random"] = pruned_by(model, train, by="random", **options)
        figures = {
            name: cost_of(each, backend=backend, x=test.x[:1]) | quality_of(each, test, shots=None)
            for name, each in models.items()
        }
    save_model(models["pruned"], run / "pruned.safetensors")
    written = [{"model": name, **row} for name, row in figures.items()]
    write_table(run / "compression.csv", written[0], written)
    layers = {name: [m for m in each.modules() if isinstance(m, QuantumLayer)] for name, each in models.items()}
    if layers["pruned"]:
        drawn = {name: layers[name][0].circuit.program for name in ("full", "pruned")}
        circuits(drawn, run / "pruned.png")
    device = {"device_two_qubit": f"2-qubit on {backend}"} if backend is not None else {}
    counts = {"parameters": "weights", "live": "live", "rotations": "rotations", "two_qubit": "2-qubit", **device}
    score = "accuracy" if test.n_classes else "r2"
    counts |= {"circuits": "circuits a step", "ideal": score}
    if "with_noise" in figures["full"]:
        counts |= {"ideal": f"{score}, no noise", "with_noise": f"{score}, its noise"}
    rows = table(f"{run}: {by}", "model", *counts.values())
    for name, row in figures.items():
        rows.add_row(name, *(f"{row[key]:.4f}" if key in ("ideal", "with_noise") else str(row[key]) for key in counts))
    out().print(rows)
    out().print(f"Saved in {run / 'pruned.safetensors'}", markup=False)


def distill(
    config: ConfigArgument,
    teacher: Annotated[list[str], typer.Option(help="Directory of a run, or a model file. Repeatable.")],
    overrides: SetOption = None,
    name: NameOption = None,
    runs_dir: RunsOption = Path("runs"),
    resume: ResumeOption = False,
    quiet: QuietOption = False,
    trust: TrustOption = False,
) -> None:
    """Train the config's model on what finished models say; settings as in --set distill.temperature=2."""
    chosen = load_config(config, overrides_of(overrides, name), trust)
    from qbp.runs.stages import teach

    folder = runs_dir / chosen.name
    _show("models", folder, lambda: teach(chosen, teacher, folder, resume=resume, progress=not quiet, trust=trust))


def _show(what: str, folder: Path, work: Callable[[], dict[str, Any]]) -> None:
    try:
        result = work()
    except KeyboardInterrupt:
        err().print(f"Interrupted. The same command with --resume goes on with {folder}", markup=False)
        raise typer.Exit(130) from None
    out().print(_sizes(result, what))
    if "3-scratch" in result[what]:
        out().print(_what_the_teacher_did(result[what]), markup=False)
    out().print(f"Saved in {folder}", markup=False)


def _what_the_teacher_did(stages: dict[str, Any]) -> str:
    from qbp.training.metrics import main_metric

    taught, alone = stages["3-distill"], stages["3-scratch"]
    metric = main_metric(taught)
    verb = "helped" if taught[metric] > alone[metric] else "did not help"
    return f"The teacher {verb}: {metric} {taught[metric]:.4f} with it, {alone[metric]:.4f} without (one seed)"


def _sizes(result: dict[str, Any], what: str) -> Table:
    from qbp.training.metrics import metrics_of

    about, scores = result["data"], result[what]
    counts = {"parameters": "weights", "rotations": "rotations", "two_qubit_gates": "2-qubit", "circuits": "circuits"}
    metrics = metrics_of(next(iter(scores.values())))
    title = f"{result['name']}: {about['name']}, {about['train']} rows to train, {about['test']} to test"
    rows = table(title, what[:-1], *counts.values(), *metrics)
    for name, score in scores.items():
        rows.add_row(name, *(str(score[count]) for count in counts), *(f"{score[metric]:.4f}" for metric in metrics))
    return rows

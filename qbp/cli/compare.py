"""`qbp compare`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qbp.cli.console import (
    Bar,
    ExecutorOption,
    QuietOption,
    SetOption,
    TrustOption,
    WorkersOption,
    err,
    out,
    overrides_of,
    table,
    time_left,
)

if TYPE_CHECKING:
    from qbp.comparison.comparing import Comparison
    from qbp.runs.config import Compare

__all__ = ["compare"]

CompareArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, also one of `qbp train`, or a config that comes with qbp: moons, digits, xor.",
    ),
]


def compare(
    config: CompareArgument,
    overrides: SetOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the comparison; by default the config's.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where comparisons are kept.")] = Path("runs"),
    workers: WorkersOption = None,
    executor: ExecutorOption = "processes",
    aa: Annotated[
        bool, typer.Option("--aa", help="Also compare each model with itself: neither may beat the other.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Train cell by cell, not many small models together; slower.")
    ] = False,
    plan: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Plan it instead: from five seeds, those needed for a difference of so much, as 0.02, and hours.",
        ),
    ] = None,
    quiet: QuietOption = False,
    trust: TrustOption = False,
) -> None:
    """Compare models with all their controls over seeds. Stopped or killed, it goes on where it was."""
    from qbp.comparison.comparing import compare as compare_models
    from qbp.runs.config import Compare, load
    from qbp.runs.run import model_of

    chosen = load(config, overrides_of(overrides, name), kind=Compare, trust=trust)
    folder = runs_dir / (chosen.name if plan is None else f"{chosen.name}-pilot")
    options = chosen.model_dump(exclude={"name", "data", "models", "train"})
    if plan is not None:
        options["seeds"] = _other_seeds(options["seeds"])
    try:
        with Bar(quiet, time_left) as progress:
            comparison = compare_models(
                {key: partial(model_of, model) for key, model in chosen.models.items()},
                data={key: data.model_dump() for key, data in chosen.data.items()},
                training=chosen.train,
                aa=aa,
                exact=exact,
                directory=folder,
                workers=workers or os.cpu_count() or 1,
                executor=executor,
                progress=progress,
                about={"name": chosen.name, "subjects": _subjects(chosen)},
                **options,
            )
    except KeyboardInterrupt:
        err().print("Interrupted. The same command goes on from here.", markup=False)
        raise typer.Exit(130) from None
    if plan is not None:
        _print_plan(comparison, plan, workers or os.cpu_count() or 1)
    else:
        _print(comparison)
    out().print(f"Saved in {folder}", markup=False)
    wrong = [
        row for row in comparison.verdicts if row["control"] == "identical" and row["verdict"] in ("BEATS", "LOSES")
    ]
    for row in wrong:
        err().print(f"A/A check failed: two identical models differ. {row['sentence']}", markup=False)
    if wrong:
        raise typer.Exit(1)


def _other_seeds(seeds: Any) -> list[int]:
    """Five seeds that the comparison itself does not use."""
    first = seeds if isinstance(seeds, int) else max(seeds) + 1
    return list(range(first, first + 5))


def _print_plan(comparison: Comparison, difference: float, workers: int) -> None:
    """For each control the seeds that find the difference, and for each subject those that beat every control."""
    from qbp.comparison.power import plan

    config = comparison.config or {}
    metric, primary = config["metric"], config.get("primary")
    rows = plan(comparison, difference, workers=workers)
    for dataset, subject in dict.fromkeys((row["dataset"], row["subject"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["subject"]) == (dataset, subject)]
        title = f"{dataset}: seeds to find {difference:g} of {metric} in 8 of 10 comparisons, from a pilot of 5"
        shown = table(title, f"{subject} minus", "pilot", "deviation", "seeds", "hours")
        for row in own:
            figures = ("never", "-") if row["seeds"] is None else (str(row["seeds"]), f"{row['hours']:.2g}")
            shown.add_row(row["control"], f"{row['difference']:+.3f}", f"{row['deviation']:.3f}", *figures)
        out().print(shown)
        most = max(own, key=lambda row: row["seeds"] or float("inf"))
        if most["seeds"] is None:
            said = f"no number of splits of these data would do against {most['control']}"
        else:
            said = f"{most['seeds']} seeds, {most['hours']:.2g} hours with {workers} process(es), for {most['control']}"
        out().print(f"To find it against every control: {said}.", markup=False)
    for row in rows:
        if primary == f"{row['subject']}/{row['control']}" and row["seeds"] is not None:
            said = f"{row['seeds']} seeds, {row['hours']:.2g} hours"
            out().print(f"{primary} is the primary comparison: {said} on {row['dataset']}.", markup=False)


def _subjects(config: Compare) -> dict[str, Any]:
    return {name: model.model_dump(mode="json") for name, model in config.models.items()}


def _print(comparison: Comparison) -> None:
    from qbp.nn.simulability import Simulability

    most = max(row["together"] or 1 for row in comparison.rows)
    if most > 1:
        out().print(f"Up to {most} small models trained together; --exact trains each by itself.", markup=False)
    for dataset in dict.fromkeys(comparison.column("dataset")):
        out().print(_scores(comparison, dataset))
        for row in comparison.verdicts:
            if row["dataset"] == dataset and row["control"] in ("circuit", "all"):
                out().print(row["sentence"], markup=False)
    for subject, circuits in (comparison.simulability or {}).items():
        for told in circuits:
            out().print(f"{subject}: {Simulability.from_json(told)}", markup=False)


def _scores(comparison: Comparison, dataset: str) -> Table:
    """A row for each model, from best to worst, with the verdict of each subject against it."""
    import numpy as np

    from qbp.comparison.scores import sign_of

    metric = (comparison.config or {})["metric"]
    largest = max(comparison.column("n_train", dataset=dataset))
    models: dict[str, list[dict[str, Any]]] = {}
    for row in comparison.rows:
        if row["dataset"] == dataset and row["n_train"] == largest:
            models.setdefault(row["model"], []).append(row)
    subjects = [rows[0]["subject"] for rows in models.values() if rows[0]["role"] == "subject"]
    words = {
        (row["subject"], row["control"]): row["verdict"] for row in comparison.verdicts if row["dataset"] == dataset
    }
    scores = {model: np.array([row[metric] for row in rows]) for model, rows in models.items()}
    seeds, n_test = len(scores[subjects[0]]), models[subjects[0]][0]["n_test"]
    title = f"{dataset}: {largest} rows to train, {n_test} to test, {seeds} seeds"
    shown = table(title, "model", metric, "parameters", "converged", *subjects)
    for model in sorted(scores, key=lambda each: -sign_of(metric) * scores[each].mean()):
        rows, first = models[model], models[model][0]
        control = model if first["role"] == "subject" else first["role"]
        shown.add_row(
            model,
            f"{scores[model].mean():.3f} ± {scores[model].std(ddof=1):.3f}",
            f"{np.mean([row['n_parameters'] for row in rows]):.0f}",
            f"{sum(row['converged'] for row in rows)}/{len(rows)}",
            *(words.get((s, control), "") if first["subject"] in (s, "", model) else "" for s in subjects),
        )
    return shown

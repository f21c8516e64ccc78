"""`qbp trial`: claims of papers, measured again and ruled on."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbp.cli.console import Bar, ExecutorOption, QuietOption, TrustOption, WorkersOption, err, out, table, time_left
from qbp.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from qbp.trials.trial import Trial

__all__ = ["trial"]


def trial(
    claim: Annotated[
        str | None, typer.Argument(metavar="[CLAIM]", help="A claim that comes with qbp (see --list), or a YAML file.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Try every claim that comes with qbp.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Name the claims that come with qbp.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Try it small: what is left out is said, and little can be decided.")
    ] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where trials are kept.")] = Path("runs/trials"),
    workers: WorkersOption = None,
    executor: ExecutorOption = "processes",
    quiet: QuietOption = False,
    trust: TrustOption = False,
) -> None:
    """Try a paper's claim: is its figure reproduced, and do controls do as well? Stopped or killed, it goes on."""
    from qbp.report.trial import write_page
    from qbp.report.trials import write_table
    from qbp.trials.claim import left_out, load, packaged
    from qbp.trials.trial import try_claim

    if listed:
        _list(packaged())
        return
    if everything == (claim is not None):
        raise ArgumentError("Give the name of a claim, or --all for every one; --list names them")
    names: Sequence[str] = packaged() if everything else (str(claim),)
    began, trials, wrong = time.monotonic(), [], []
    for name in names:
        chosen = load(name, quick=quick, trust=trust)
        folder = runs_dir / (f"{chosen.name}-quick" if quick else chosen.name)
        less = left_out(name, trust) if quick else []
        if everything:
            err().print(f"{chosen.name}: {chosen.title}", markup=False)
        how: dict[str, Any] = {"workers": workers or os.cpu_count() or 1, "executor": executor}
        try:
            with Bar(quiet, time_left) as progress:
                tried = try_claim(chosen, folder, left_out=less, progress=progress, **how)
        except KeyboardInterrupt:
            err().print("Interrupted. The same command goes on from here.", markup=False)
            raise typer.Exit(130) from None
        except ConfigError as error:
            if not everything:
                raise
            wrong.append(name)
            err().print(f"{name}: {error}", markup=False)
            continue
        write_page(folder)
        trials.append(tried)
        if not everything:
            _print(tried)
    if everything:
        _print_all(trials)
        out().print(f"Saved in {write_table(runs_dir, trials)}", markup=False)
    seconds = sum(tried.seconds for tried in trials)
    out().print(
        f"Total time: {_clock(time.monotonic() - began)} now, {_clock(seconds)} of measuring in all.", markup=False
    )
    if wrong:
        raise typer.Exit(1)


def _list(names: Sequence[str]) -> None:
    from qbp.trials.claim import load

    shown = table(None, "claim", "title", "source", "protocol")
    for name in names:
        claim = load(name)
        shown.add_row(name, claim.title, claim.source.arxiv or claim.source.doi or "", claim.protocol)
    out().print(shown)


def _print(trial: Trial) -> None:
    console = out()
    if trial.left_out:
        console.print(f"A quick trial. Otherwise than in the whole one: {'; '.join(trial.left_out)}.", markup=False)
    console.print(f"{trial.ruling.word}: {trial.ruling.sentence}", markup=False)
    shown = table(None, "figure", "published", "ours", "ruled")
    for figure in trial.ruling.figures:
        what = figure["arm"] if figure["than"] is None else f"{figure['arm']} - {figure['than']}"
        where = f", {figure['dataset']}" if figure["dataset"] else ""
        value = "-" if figure["value"] is None else f"{figure['value']:.4g}"
        shown.add_row(what + where, value, f"{figure['ours']:.4g} ± {figure['deviation']:.2g}", figure["word"])
    console.print(shown)
    console.print(f"Does the quantum part do it? {trial.answer.word}: {trial.answer.sentence}", markup=False)
    console.print(f"Saved in {trial.directory}: report.html, trial.json, rows.json", markup=False)


def _print_all(trials: Sequence[Trial]) -> None:
    shown = table("Claims on trial", "claim", "figures", "quantum part", "time")
    for trial in trials:
        shown.add_row(trial.directory.name, trial.ruling.word, trial.answer.word, _clock(trial.seconds))
    out().print(shown)


def _clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d} min"

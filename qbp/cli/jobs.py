"""`qbp submit`, `collect` and `jobs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbp.cli.console import RunsOption, SetOption, TrustOption, err, in_shell, out, table

if TYPE_CHECKING:
    from qbp.runs.submission import Submission

__all__ = ["collect", "jobs", "submit"]


def submit(
    source: Annotated[
        str, typer.Argument(metavar="CONFIG|RUN", help="A config to train, or a run whose model is evaluated.")
    ],
    backend: Annotated[str, typer.Option(help="Where: ibm:NAME, or fake:NAME and aer, which cost nothing.")],
    shots: Annotated[
        int | None, typer.Option(min=1, help="Of each circuit; by default the config's, else 1024.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Train a run's model further, so many epochs.")] = None,
    budget: Annotated[float | None, typer.Option(help="Most quantum seconds; by default those of the plan.")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="What a quantum second costs.")] = None,
    resilience_level: Annotated[int, typer.Option(min=0, max=2, help="Mitigation; 1 and 2 cost more.")] = 0,
    dynamical_decoupling: Annotated[str | None, typer.Option(help="XX, XpXm or XY4.")] = None,
    measure_twirling: Annotated[bool, typer.Option("--measure-twirling", help="Twirl measurements.")] = False,
    fractional_gates: Annotated[bool, typer.Option("--fractional-gates", help="RX and RZZ of any angle.")] = False,
    private: Annotated[
        bool, typer.Option("--private", help="The service shows circuits and results to nobody.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The service checks the jobs, and runs none.")] = False,
    mode: Annotated[str, typer.Option(help="job, batch or session.")] = "job",
    overrides: SetOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the submission; by default the backend's.")] = None,
    runs_dir: RunsOption = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Send an evaluation's jobs, and collect later.")] = False,
    trust: TrustOption = False,
) -> None:
    """Run a model on a quantum computer: print what it costs, ask, send, and wait."""
    from qbp.errors import ArgumentError, check_choice
    from qbp.executors.qiskit_primitive.options import Options
    from qbp.jobs.cost import Budget
    from qbp.runs import submission as submissions

    check_choice("mode", mode, submissions.MODES)
    options = Options(
        resilience_level=resilience_level,
        dynamical_decoupling=dynamical_decoupling,
        measure_twirling=measure_twirling,
        fractional_gates=fractional_gates,
        private=private,
        dry_run=dry_run,
    )
    asked: dict[str, Any] = {"shots": shots, "epochs": epochs, "rate": rate, "mode": mode, "options": options}
    job = submissions.submission(
        source,
        backend,
        overrides=tuple(overrides or ()),
        name=name,
        runs_dir=runs_dir,
        budget=budget,
        trust=trust,
        **asked,
    )
    if no_wait and job.epochs:
        raise ArgumentError("`--no-wait` is for an evaluation: each step of a training waits for the one before it")
    cost, kind = job.plan(), backend.partition(":")[0]
    console = out()
    most = " at most" if cost.at_most else ""
    rows = table(f"{source} on {backend}{most}", "jobs", "circuits", "shots", "quantum seconds", "price")
    price = "-" if cost.price is None else f"{cost.price:,.2f}"
    rows.add_row(f"{cost.jobs:,}", f"{cost.circuits:,}", f"{cost.shots:,}", f"{cost.seconds:,.1f}", price)
    console.print(rows)
    if kind in ("ibm", "fake"):  # a rehearsal keeps to its budget too
        from dataclasses import replace

        if job.budget is not None:
            Budget(seconds=job.budget).check(cost)
        job = replace(job, budget=job.budget or round(1.1 * cost.seconds + 1, 1))  # not exact to the second
    if kind == "ibm":
        if cost.jobs > 5:
            console.print(f"The service takes 5 jobs a minute: this takes {cost.jobs / 5:,.0f} minutes at least.")
        if not yes:
            if not sys.stdin.isatty():
                err().print("Nothing was sent: confirm with --yes.")
                raise typer.Exit(2)
            typer.confirm("Send?", abort=True)
    job.write()
    _finish(job, no_wait)


def collect(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where `qbp submit` said it keeps the submission.")],
    budget: Annotated[float | None, typer.Option(help="Most quantum seconds from now on, all jobs together.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Say what is done, and do not wait for the rest.")] = False,
    trust: TrustOption = False,
) -> None:
    """Fetch the results of a submission, and go on with one that was interrupted."""
    from dataclasses import replace

    from qbp.runs import submission as submissions

    job = submissions.read(directory, trust)
    if budget is not None:
        job = replace(job, budget=budget)
    _finish(job, no_wait and not job.epochs)


def jobs(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A submission, a run, or all runs.")] = Path(
        "runs"
    ),
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel those that have not ended.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with every submission that is not finished.")] = False,
    trust: TrustOption = False,
) -> None:
    """List the jobs that were sent: their state, and what they cost."""
    from qbp.jobs.cost import Cost
    from qbp.jobs.ledger import JOBS, read_ledger
    from qbp.runs import submission as submissions

    ledgers = sorted(path.parent for path in directory.rglob(JOBS))
    console = out()
    if not ledgers:
        console.print(f"No job was sent from {directory}.", markup=False)
        return
    if cancel:
        for ledger in ledgers:
            _cancel(ledger)
    paid, rehearsed = Cost(), Cost()
    for ledger in ledgers:
        rows = table(str(ledger.parent), "job", "backend", "state", "circuits", "quantum seconds")
        for entry in read_ledger(ledger)[1].values():
            cost = entry.cost
            if entry.backend.startswith("fake:"):
                rehearsed += cost
            else:
                paid += cost
            state = f"{entry.state}: {entry.reason}" if entry.reason else entry.state
            ended = entry.state in ("DONE", "FAILED")
            seconds = f"{'' if ended else '~'}{cost.seconds:.1f}"
            rows.add_row(entry.job or "?", entry.backend, state, f"{entry.circuits:,}", seconds)
        console.print(rows)
    if rehearsed.jobs:
        console.print(f"Rehearsed, for nothing: {rehearsed}", markup=False)
    if paid.jobs or not rehearsed.jobs:
        console.print(f"Altogether: {paid}", markup=False)
    if resume:
        for path in sorted(directory.rglob(submissions.SUBMISSION)):
            _finish(submissions.read(path.parent, trust))


def _cancel(ledger: Path) -> None:
    from qbp.executors import backend
    from qbp.hardware.transfer import recorded
    from qbp.jobs.jobs import Jobs

    runner = Jobs(ledger)
    primitives: dict[str, Any] = {}
    for work, entry in list(runner.ledger.entries.items()):
        if entry.state in ("INTENDED", "SUBMITTED"):
            if entry.backend not in primitives:
                primitive = backend(entry.backend).primitive  # type: ignore[attr-defined]
                primitives[entry.backend] = recorded(primitive, ledger)
            runner.cancel(primitives[entry.backend], work)


def _finish(job: Submission, no_wait: bool = False) -> None:
    from qbp.errors import JobError
    from qbp.training.metrics import metrics_of

    try:
        if no_wait and (pending := job.send()):
            out().print(
                f"{pending} jobs are not done. Their results: {in_shell('qbp', 'collect', job.directory)}", markup=False
            )
            return
        result = job.collect(progress=sys.stderr.isatty())
    except JobError as error:
        err().print(f"Stopped: {error}", markup=False)
        err().print(f"Go on with: {in_shell('qbp', 'collect', job.directory)}", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err().print(
            f"Interrupted; no job is lost. Go on with: {in_shell('qbp', 'collect', job.directory)}", markup=False
        )
        raise typer.Exit(130) from None
    metrics = metrics_of(result)
    rows = table(str(job.directory), "backend", *(f"test {key}" for key in metrics), "jobs", "quantum seconds")
    cost = result["cost"]
    rows.add_row(job.backend, *(f"{result[key]:.4f}" for key in metrics), f"{cost['jobs']}", f"{cost['seconds']:.1f}")
    out().print(rows)
    out().print(f"Saved in {job.directory}", markup=False)

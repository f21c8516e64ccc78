"""The command line: a module for each topic, whose commands import what they need when they run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from qbp._version import __version__
from qbp.cli import about, compare, compress, jobs, report, start, sweep, train, trial
from qbp.cli.console import err, out
from qbp.errors import QbpError

__all__ = ["app", "main"]


def _print_version(asked: bool) -> None:
    if asked:
        out().print(f"qbp {__version__}", markup=False, highlight=False)
        raise typer.Exit


app = typer.Typer(
    name="qbp",
    help="Variational quantum circuits as differentiable layers inside PyTorch models.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Variational quantum circuits as differentiable layers inside PyTorch models."""


for _command in (
    start.init,
    train.train,
    train.evaluate,
    train.predict,
    train.noise,
    train.lr,
    compare.compare,
    trial.trial,
    sweep.sweep,
    start.summary,
    report.report,
    report.diagnose,
    compress.run,
    compress.prune,
    compress.distill,
    jobs.submit,
    jobs.collect,
    jobs.jobs,
    about.circuits,
    about.info,
):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a user got wrong is one line and exit code 2, Ctrl-C one and 130."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="qbp")
    except (QbpError, OSError) as error:
        err().print(f"Error: {error}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:  # before or after a command; those that can go on say so themselves
        err().print("Interrupted.", markup=False)
        sys.exit(130)

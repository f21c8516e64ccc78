"""The command line: a module for each topic, whose commands import what they need when they run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from qbp.cli import about, compare, compress, jobs, report, train
from qbp.cli.console import err
from qbp.errors import QbpError

__all__ = ["app", "main"]

app = typer.Typer(
    name="qbp",
    help="Variational quantum circuits as differentiable layers inside PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (
    train.train,
    train.evaluate,
    train.predict,
    train.noise,
    train.lr,
    compare.compare,
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
    """Run the command line; what a user got wrong is one line and exit code 2, not a traceback."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="qbp")
    except (QbpError, OSError) as error:
        err().print(f"Error: {error}", markup=False)
        sys.exit(2)

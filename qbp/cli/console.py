"""What all commands share: consoles, tables, and the config argument."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from qbp.runs.config import Config

__all__ = [
    "Bar",
    "ConfigArgument",
    "ExecutorOption",
    "NameOption",
    "QuietOption",
    "ResumeOption",
    "RunsOption",
    "SetOption",
    "TrustOption",
    "WorkersOption",
    "err",
    "in_shell",
    "load_config",
    "out",
    "overrides_of",
    "table",
    "time_left",
]

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or a config that comes with qbp: digits, smaller, xor.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config, as in train.lr=0.02. Repeatable."),
]

NameOption = Annotated[str | None, typer.Option(help="Name of the run; by default the config's.")]
RunsOption = Annotated[Path, typer.Option(help="Where runs are kept.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run of that name.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; by default one for each core.")]
ExecutorOption = Annotated[
    str, typer.Option(metavar="NAME", help="Who trains: processes, ray or ray:ADDRESS (a cluster; needs qbp[ray]).")
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Let files name backends that are imported, or that use your account.")
]


def overrides_of(options: Sequence[str] | None, name: str | None) -> list[str]:
    """What a command's `--set` and `--name` change in its config."""
    return [*(options or []), *([] if name is None else [f"name={name}"])]


def load_config(config: str, overrides: Sequence[str], trust: bool = False) -> Config:
    """The config of a command's arguments."""
    from qbp.runs.config import load

    return load(config, overrides, trust=trust)


def in_shell(*words: object) -> str:
    """A command that can be copied, whatever is in the names of files."""
    return shlex.join(str(word) for word in words)


WORDS = ("title", "kind", "what")
"""Columns of words."""


class Rows(Table):
    """A table that becomes a list, a block of lines for each row, where it would be squeezed."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [self._width(column) for column in self.columns]
        spare = options.max_width - sum(widths) - 3 * len(widths) - 1
        if spare >= 0:
            for column, width in zip(self.columns, widths, strict=True):
                more = min(spare, max(map(cell_len, (str(column.header), *map(str, column.cells)))) - width)
                column.width = width + max(0, more)
                spare -= max(0, more)
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text.from_markup(str(self.title), style="italic")
        names = [str(column.header) for column in self.columns]
        for row in zip(*(map(str, column.cells) for column in self.columns), strict=True):
            yield Text(row[0], style="bold")
            yield from (Text(f"  {name}: {cell}".rstrip(" :")) for name, cell in zip(names[1:], row[1:], strict=True))

    @staticmethod
    def _width(column: Column) -> int:
        """In which no number and no word of a column is broken."""
        cells = [str(cell) for cell in column.cells]
        whole = max(map(cell_len, cells), default=0)
        if whole > SHORT and not column.no_wrap:
            whole = max(SHORT, *(cell_len(word) for cell in cells for word in cell.split()))
        return max(whole, *map(cell_len, str(column.header).split()), 1)


SHORT = 14
"""Cells no longer than that stay on one line."""


def table(title: str | None, *columns: str) -> Table:
    """An empty table; its first column keeps its words on one line."""
    rows = Rows(title=escape(title) if title else None, title_justify="left", show_header=any(columns))
    for k, column in enumerate(columns):
        words = k == 0 or column in WORDS
        rows.add_column(column, justify="left" if words else "right", no_wrap=k == 0)
    return rows


def out() -> Console:
    """Where results go."""
    return Console(soft_wrap=True)


def err() -> Console:
    """Where errors go."""
    return Console(stderr=True, soft_wrap=True)


def best_so_far(score: float | None) -> str:
    """What a bar over runs says beside it."""
    return "" if score is None else f"best {score:.4f}"


def time_left(seconds: float) -> str:
    """What a bar over cells says beside it."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} left"


class Bar:
    """A bar over runs or cells; without one where it is not wanted.

    Args:
        quiet: whether it is not wanted.
        says: what stands beside it, of the number that comes with each run.
    """

    def __init__(self, quiet: bool, says: Callable[[Any], str] = best_so_far) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.bar, self.says = Progress(*columns, console=err(), disable=quiet), says

    def __enter__(self) -> Any:
        self.bar.start()
        self.task = self.bar.add_task("", total=None)
        return self.move

    def move(self, done: int, total: int, number: float | None) -> None:
        self.bar.update(self.task, completed=done, total=total, description=self.says(number))

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

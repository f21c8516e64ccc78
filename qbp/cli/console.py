"""What all commands share: consoles, tables, and the config argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from qbp.runs.config import Config

__all__ = ["ConfigArgument", "SetOption", "TrustOption", "err", "load_config", "out", "table"]

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or a config that comes with qbp: digits, smaller, xor.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config, as in train.lr=0.02. Repeatable."),
]


TrustOption = Annotated[
    bool, typer.Option("--trust", help="Let files name backends that are imported, or that use your account.")
]


def load_config(config: str, overrides: Sequence[str], trust: bool = False) -> Config:
    """The config of a command's arguments."""
    from qbp.runs.config import load

    return load(config, overrides, trust=trust)


def table(title: str | None, *columns: str) -> Table:
    """An empty table; its first column keeps its words on one line."""
    made = Table(title=escape(title) if title else None, title_justify="left", show_header=any(columns))
    for k, column in enumerate(columns):
        words = k == 0 or column == "title"
        made.add_column(column, justify="left" if words else "right", no_wrap=k == 0)
    return made


def out() -> Console:
    """Where results go."""
    return Console(soft_wrap=True)


def err() -> Console:
    """Where errors go."""
    return Console(stderr=True, soft_wrap=True)

"""What a protocol of trials is made of."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

from qbp.runs.schema import Section

__all__ = ["Arm", "Cell", "Row", "Together", "TrialProtocol"]

Row = dict[str, Any]
Arm = str


class Cell(NamedTuple):
    """One measurement of a trial: an arm, which is a model or a way to train one, on a data set, by a seed."""

    dataset: str
    arm: Arm
    seed: int


class TrialProtocol(Protocol):
    """A module of `qbp.trials.protocols`.

    `Options` is what a claim's `options` may say. Arms of one seed are paired, so what is random in a cell and is not
    its arm's own, such as the data, has to follow from the seed alone.
    """

    Options: type[Section]

    @staticmethod
    def cells(options: Any, seeds: Sequence[int]) -> list[Cell]:
        """Return every cell, for each seed the same data sets and arms."""

    @staticmethod
    def train(options: Any, cell: Cell) -> Row:
        """Measure one cell.

        Returns:
            Plain values by column: the claim's metrics in their natural units and, where they mean something,
            `n_parameters`, `two_qubit_gates`, `train_seconds`, `converged`, and `test_share` (n_test / n_train) where
            seeds split the same data. Columns of a cell are not needed; in a process of its own, it must pickle.
        """


class Together(TrialProtocol, Protocol):
    """A protocol whose cells can be measured several at once."""

    @staticmethod
    def together(options: Any, cell: Cell) -> Hashable:
        """Return what cells that are measured at once have in common; it must not depend on which are there."""

    @staticmethod
    def train_together(options: Any, cells: Sequence[Cell]) -> list[Row]:
        """Measure several cells, as `train` does each."""

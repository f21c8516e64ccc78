"""The honest comparison: what a grid of models, controls and seeds came to, on disk and in memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from qbp.errors import ArgumentError, ConfigError
from qbp.files import write_atomic

__all__ = ["COLUMNS", "Comparison", "load_comparison", "save_tables"]

CONFIG, VERSIONS, TABLE, VERDICTS, CELLS = "comparison.yaml", "versions.json", "rows", "verdicts.json", "cells"

# The columns of a row, in order, with their type: one row for each cell (data set, model, seed, rows to train on).
COLUMNS: dict[str, type] = {
    "dataset": str,
    "split": str,  # SHA-256 of the train part and the test part
    "seed": int,  # of the split, the initial weights and the order of the rows, for every model
    "model": str,  # "hybrid"; a control of it is "hybrid/frozen"; a control of all is "svm_rbf"
    "subject": str,  # the model that it is a control of, or it itself; "" for a control of all
    "role": str,  # "subject", or the name of the control
    "n_train": int,
    "n_test": int,
    "accuracy": float,
    "balanced_accuracy": float,
    "f1": float,  # mean over classes
    "log_loss": float,  # None where the model gives no probabilities
    "brier": float,  # likewise; mean over rows of the squared error of the probabilities, summed over classes
    "auc": float,  # one against the rest, mean over classes
    "confusion": str,  # JSON: counts, row = true class, column = predicted class
    "cv_accuracy": float,  # of the configuration chosen, mean over folds of the train part
    "train_seconds": float,  # of the last fit, with the configuration chosen
    "tune_seconds": float,
    "n_parameters": int,  # that training changes; of scikit-learn's models the numbers that they keep
    "n_gates": int,
    "two_qubit_gates": int,
    "circuits_per_step": int,  # by the parameter-shift rule, for one batch
    "multiply_adds": int,  # of one row forward, the circuit simulated
    "quantum_seconds": float,  # that training would take on a device: 1,000 shots of 250 microseconds a circuit
    "epochs": int,
    "converged": bool,
    "hyperparameters": str,  # JSON: the configuration chosen
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. Every table follows from the rows.

    Attributes:
        rows: a row for each finished cell, with the keys of `COLUMNS`.
        verdicts: for each data set, subject and control the keys `dataset`, `subject`, `control`, `n` (pairs),
            `difference` (mean of subject minus control, in accuracy), `low` and `high` (its interval), `p`,
            `p_adjusted` (Holm), `effect` (mean by standard deviation), `wins` (share of pairs, ties count half),
            `test`, `verdict` (BEATS, TIES, LOSES or INCONCLUSIVE) and `sentence`. Control "all" is the verdict on the
            subject, its `decided_by` the control that decided it.
        ranks: over several data sets `models`, `mean_ranks`, `critical_difference`, `statistic`, `p`, `n`; or None.
        sample_complexity: for each data set and model `n_needed` for 95 % of the best score, with `low` and `high`.
        curves: a row for each epoch of each cell: `dataset`, `model`, `seed`, `n_train`, `epoch`, `loss`, ...
        config: what was compared, with every default filled in.
        versions: of Python, qbp and the packages that results depend on.
        directory: where the cells are; None for a comparison in memory.
    """

    rows: tuple[Row, ...]
    verdicts: tuple[Row, ...] = ()
    ranks: Row | None = None
    sample_complexity: tuple[Row, ...] = ()
    curves: tuple[Row, ...] = ()
    config: Mapping[str, Any] | None = None
    versions: Mapping[str, Any] | None = None
    directory: Path | None = None

    def column(self, name: str, **where: Any) -> list[Any]:
        """Return a column of the rows, of those that have the values `where`."""
        return [row[name] for row in self.rows if all(row[key] == value for key, value in where.items())]

    def predictions(self, dataset: str, model: str, seed: int, n_train: int | None = None) -> dict[str, np.ndarray]:
        """Return what a model said of the test part.

        Args:
            dataset, model, seed: which cell.
            n_train: rows to train on, for a cell of a learning curve; None for all.

        Returns:
            `y` (n_test,) labels, `predicted` (n_test,), and `probabilities` (n_test, n_classes) where there are any.

        Raises:
            ArgumentError: the comparison is in memory only, or has no such cell.
        """
        if self.directory is None:
            raise ArgumentError("Predictions are on disk: compare with a `directory`")
        path = (self.directory / cell_path(dataset, model, seed, n_train)).with_suffix(".npz")
        if not path.is_file():
            raise ArgumentError(f"There is no cell {path}")
        with np.load(path, allow_pickle=False) as file:
            return dict(file)


def cell_path(dataset: str, model: str, seed: int, n_train: int | None = None) -> Path:
    """Return the path of a cell's JSON below the directory of a comparison."""
    name = f"{seed}.json" if n_train is None else f"{seed}-n{n_train}.json"
    return Path(CELLS, dataset, model.replace("/", "+"), name)


def save_tables(comparison: Comparison, directory: str | Path) -> None:
    """Write rows (CSV, and Parquet where pyarrow is there) and verdicts, each atomically."""
    folder = Path(directory)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(comparison.rows)
    write_atomic(folder / f"{TABLE}.csv", text.getvalue().encode())
    found = {
        "verdicts": comparison.verdicts,
        "ranks": comparison.ranks,
        "sample_complexity": comparison.sample_complexity,
    }
    write_atomic(folder / VERDICTS, (json.dumps(found, indent=1) + "\n").encode())
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(comparison.rows), schema=schema), sink)
    write_atomic(folder / f"{TABLE}.parquet", sink.getvalue())


def load_comparison(path: str | Path) -> Comparison:
    """Read a comparison from its directory, finished or not (then the cells that are there, without verdicts).

    Args:
        path: the directory that `qbp compare` wrote.

    Returns:
        The comparison.

    Raises:
        ConfigError: it is no such directory, or a file in it is damaged.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is no directory of `qbp compare`: it has no {CONFIG}")
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / CELLS).rglob("*.json"))]
        versions = _json(folder / VERSIONS, {})
        found = _json(folder / VERDICTS, {})
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the comparison in {folder}: {error}") from error
    return Comparison(
        rows=sorted_rows([cell["row"] for cell in cells]),
        verdicts=tuple(found.get("verdicts", ())),
        ranks=found.get("ranks"),
        sample_complexity=tuple(found.get("sample_complexity", ())),
        curves=tuple(row for cell in cells for row in curve_rows(cell)),
        config=config,
        versions=versions,
        directory=folder,
    )


def sorted_rows(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return rows in the order of the table: data set, rows to train on, model, seed."""
    return tuple(sorted(rows, key=lambda row: (row["dataset"], row["n_train"], row["model"], row["seed"])))


def curve_rows(cell: Mapping[str, Any]) -> list[Row]:
    """Return the epochs of a cell as tidy rows."""
    about = {key: cell["row"][key] for key in ("dataset", "model", "seed", "n_train")}
    return [about | epoch for epoch in cell["curve"]]


def _json(path: Path, missing: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else missing

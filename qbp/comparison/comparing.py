"""The honest comparison: models, their controls and seeds; what they came to, on disk and in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from qbp.comparison.cell import Protocol
from qbp.comparison.cells import Progress, sweep
from qbp.comparison.columns import COLUMNS
from qbp.comparison.grid import (
    CELLS,
    Cell,
    Grid,
    Source,
    Subject,
    build,
    cell_path,
    check_classes,
    check_names,
    check_sizes,
    fingerprints,
    model_names,
    right_rows,
    sources_of,
    split_hash,
    wide,
)
from qbp.comparison.scores import METRICS, default_metric
from qbp.comparison.statistics import need_statsmodels
from qbp.comparison.timing import times_of
from qbp.comparison.twins import TWIN
from qbp.comparison.verdicts import check_primary, judge
from qbp.data import Dataset
from qbp.errors import ArgumentError, ConfigError, check_choice, check_seed, check_share, suggests_names
from qbp.nn.resources import simulabilities
from qbp.storage.atomic import write_atomic, write_table
from qbp.storage.folder import VERSIONS, RunFolder
from qbp.storage.markup import read_yaml
from qbp.storage.provenance import versions
from qbp.training.options import Training, training_of
from qbp.workers import check_executor

__all__ = ["COLUMNS", "Comparison", "compare", "load_comparison", "save_tables"]

CONFIG, SPLITS = "comparison.yaml", "splits.json"
TABLE, VERDICTS = "rows", "verdicts.json"
FEWEST_SEEDS = 5

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. Every table follows from the rows.

    Attributes:
        rows: a row for each finished cell, with the keys of `COLUMNS`.
        verdicts: for each data set, subject and control the keys `dataset`, `subject`, `control`, `n` (pairs),
            `difference` (mean of subject minus control, in the metric; of errors control minus subject), `low` and
            `high` (its interval), `p`,
            `p_adjusted` (Holm; p itself where `primary` is True), `effect` (mean by standard deviation), `wins` (share
            of pairs, ties count half),
            the rest of `qbp.comparison.statistics.Difference`, `verdict` (BEATS, TIES, LOSES or INCONCLUSIVE) and
            `sentence`. Control "circuit" is the verdict against all that can take the circuit's place, "all" the one
            against every control; `decided_by` names the control that decided it.
        ranks: over several data sets `models`, `mean_ranks`, `critical_difference`, `statistic`, `p`, `n`, and `pairs`:
            each subject against each of its rivals by Wilcoxon's test; or None.
        sample_complexity: for each data set and model `n_needed` for 95 % of the best score, with `low` and `high`.
        curves: a row for each epoch of each cell: `dataset`, `model`, `seed`, `n_train`, `epoch`, `loss`, ...
        config: what was compared, with every default filled in.
        versions: of Python, qbp and the packages that results depend on.
        directory: where the cells are; None for a comparison in memory.
        simulability: for each subject, and each of its circuits that it can be told of, what that takes on this
            computer and on a device, as of `qbp.nn.simulability.Simulability.to_json`.
    """

    rows: tuple[Row, ...]
    verdicts: tuple[Row, ...] = ()
    ranks: Row | None = None
    sample_complexity: tuple[Row, ...] = ()
    curves: tuple[Row, ...] = ()
    config: Mapping[str, Any] | None = None
    versions: Mapping[str, Any] | None = None
    directory: Path | None = None
    simulability: Mapping[str, Sequence[Row]] | None = None

    def column(self, name: str, **where: Any) -> list[Any]:
        """Return a column of the rows, of those that have the values `where`."""
        return [row[name] for row in self.rows if all(row[key] == value for key, value in where.items())]

    def verdict(self, subject: str, dataset: str | None = None, control: str = "all") -> Row:
        """Return one verdict; `dataset` None where there is one only."""
        for row in self.verdicts:
            if row["subject"] == subject and row["control"] == control and dataset in (None, row["dataset"]):
                return row
        raise ArgumentError(f"There is no verdict on {subject!r} against {control!r}")

    def predictions(self, dataset: str, model: str, seed: int, n_train: int | None = None) -> dict[str, np.ndarray]:
        """Return what a model said of the test part.

        Args:
            dataset, model, seed: which cell.
            n_train: rows to train on, for a cell of a learning curve; None for all.

        Returns:
            `y` (n_test,) labels, `predicted` (n_test,), and `probabilities` (n_test, n_classes) where there are any; or
            `y` (n_test, T) targets and `predicted` (n_test, T).

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


def save_tables(comparison: Comparison, directory: str | Path) -> None:
    """Write rows (CSV, and Parquet where pyarrow is there) and verdicts, each atomically."""
    folder = Path(directory)
    write_table(folder / f"{TABLE}.csv", COLUMNS, comparison.rows)
    verdicts = {
        "verdicts": comparison.verdicts,
        "ranks": comparison.ranks,
        "sample_complexity": comparison.sample_complexity,
        "simulability": comparison.simulability,
    }
    write_atomic(folder / VERDICTS, (json.dumps(verdicts, indent=1) + "\n").encode())
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
        config = read_yaml((folder / CONFIG).read_text(encoding="utf-8"), str(folder / CONFIG))[1]
        cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / CELLS).rglob("*.json"))]
        versions = _json(folder / VERSIONS, {})
        tables = _json(folder / VERDICTS, {})
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the comparison in {folder}: {error}") from error
    return Comparison(
        rows=sorted_rows([cell["row"] for cell in cells]),
        verdicts=tuple(tables.get("verdicts", ())),
        ranks=tables.get("ranks"),
        sample_complexity=tuple(tables.get("sample_complexity", ())),
        curves=curve_rows(cells),
        config=config,
        versions=versions,
        directory=folder,
        simulability=tables.get("simulability"),
    )


def sorted_rows(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return rows with all columns, in the order of the table: data set, rows to train on, model, seed."""
    return tuple(sorted((dict.fromkeys(COLUMNS) | row for row in rows), key=_place))


def curve_rows(cells: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    """Return the epochs of all cells as tidy rows, in the order of the table."""
    about = ("dataset", "model", "seed", "n_train")
    ordered = sorted(cells, key=lambda cell: _place(cell["row"]))
    return tuple({key: cell["row"][key] for key in about} | epoch for cell in ordered for epoch in cell["curve"])


def _place(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("dataset", "n_train", "model", "seed"))


def _json(path: Path, missing: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else missing


# ---- running one ---------------------------------------------------------------------------------------------------


@suggests_names
def compare(
    models: Mapping[str, Subject],
    train: Dataset | None = None,
    test: Dataset | None = None,
    *,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] = 10,
    training: Training | Mapping[str, Any] | None = None,
    budget: int = 4,
    folds: int = 3,
    sizes: Sequence[int] = (),
    metric: str | None = None,
    rope: float = 0.01,
    alpha: float = 0.05,
    primary: str | None = None,
    aa: bool = False,
    exact: bool = False,
    directory: str | Path | None = None,
    workers: int = 1,
    executor: str = "processes",
    progress: Progress | None = None,
    about: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare models with their controls, which are always there, and say in a word what comes of it.

    Every seed fixes the split (or the draw), the initial weights and the order of the rows for all models, which are
    trained from nothing: weights that a model has are not used. Each tries `budget` configurations by cross-validation
    on its train part. The controls: a hybrid model's circuit frozen, without entanglers, removed, replaced by linear,
    tanh and sine layers or by noise; networks matched in parameters, multiply-adds and time of training; a linear
    model; logistic regression, support vector machine, random Fourier features, random forest, gradient boosting and
    multi-layer perceptron of scikit-learn. Beside them
    stands the classical twin of the trained model where its circuits have one: it decides nothing, but says whether the
    same labels are had without quantum code.

    Args:
        models: the subjects by name: modules (B, I) -> (B, n_classes), or (B, T) for targets, or functions of
            (n_inputs, n_outputs) such as `qbp.hybrid`.
        train, test: data with labels or targets. Those of `qbp.data.load` are loaded anew for each seed; other
            parts stay as they are for every seed, and the models are compared on each of your test rows (McNemar; of
            targets a sign-flip test).
        data: in place of these, for each data set by name the arguments of `qbp.data.load`.
        seeds: how many (0, 1...), or which; at least 5.
        training: how models are trained, as in `qbp.fit`; or its options, as in {"epochs": 30}.
        budget: configurations for every model, at most 12; 1 trains without tuning.
        folds: of the cross-validation.
        sizes: numbers of rows to train on besides all of them, for learning curves.
        metric: the score to compare: accuracy (None), balanced_accuracy, f1 or auc of labels; r2 (None), rmse or mae of
            targets.
        rope: difference that does not matter, in the unit of `metric`.
        alpha: level of the tests.
        primary: the one comparison that is fixed beforehand, "SUBJECT/CONTROL" as in "hybrid/matched_parameters": its p
            is taken as it is, and only those of the others are corrected for their number.
        aa: also train each subject twice with other random numbers: neither may beat the other.
        exact: train every model by itself. Otherwise the seeds, configurations and folds of a small model train
            together, several times faster; a step is the same but for its last bits. `together` of a row says how many.
        directory: where finished cells are kept; a comparison that was killed goes on from there.
        workers: processes.
        executor: who trains: "processes" of this machine, or "ray" or "ray:ADDRESS", a Ray cluster, whose machines have
            qbp and the files of the data at the same place. The rows of the table are the same.
        progress: called with (cells finished, cells in all, seconds left) after each.
        about: what else to keep in the config.

    Returns:
        The comparison.

    Raises:
        ArgumentError: an argument is wrong, or a control cannot be built; before anything is trained.
        ConfigError: `directory` holds another comparison.
        MissingPackageError: statsmodels is not there.

    Example:
        >>> import qbp
        >>> comparison = qbp.compare({"hybrid": qbp.hybrid}, *qbp.data.load("moons"), seeds=10)  # doctest: +SKIP
        >>> comparison.verdict("hybrid")["verdict"]  # doctest: +SKIP
        'INCONCLUSIVE'
    """
    need_statsmodels()  # before hours of training, not after them
    check_executor(executor)
    sources = sources_of(train, test, data)
    numbers = _check(models, sources, seeds, metric, rope, alpha)
    folder = None if directory is None else Path(directory)
    splits: dict[str, dict[int, str]] = {}
    names: dict[str, tuple[str, ...]] = {}
    structures: dict[str, dict[str, str]] = {}
    shape: tuple[int, int] | None = None
    alone: set[tuple[str, str]] = set()
    trains: dict[str, Dataset] = {}
    for name, source in sources.items():
        parts = {seed: source.split(seed) for seed in numbers}
        first = trains[name] = parts[numbers[0]][0]
        shape = shape or (first.x.shape[1], first.n_outputs)
        metric = metric or default_metric(first.n_classes)
        check_classes(name, source, [train for train, _ in parts.values()], metric)
        check_sizes(sizes, first)
        splits[name] = {seed: split_hash(*pair) for seed, pair in parts.items()}
        names[name] = model_names(models, first, aa)
        structures[name] = fingerprints(models, first)
        alone |= {(name, subject) for subject in wide(models, first)}
    assert metric is not None and shape is not None
    protocol = Protocol(training_of(training, {}), budget, folds, metric)
    check_primary(primary, models, dict.fromkeys(model for own in names.values() for model in own))
    config = {
        "models": structures,
        "data": {name: _plain(source) for name, source in sources.items()},
        "seeds": numbers,
        "training": protocol.training.describe()[0],
        "budget": budget,
        "folds": folds,
        "sizes": list(sizes),
        "metric": metric,
        "rope": rope,
        "alpha": alpha,
        **({} if primary is None else {"primary": primary}),
        "aa": aa,
        **(about or {}),
    }
    if folder is not None:
        _claim(folder, config, splits)
    cells = [
        Cell(name, model, seed, size)
        for seed in numbers
        for name in sources
        for size in (None, *sizes)
        for model in names[name]
        if size is None or not model.endswith(f"/{TWIN}")
    ]
    times = times_of(models, trains, protocol.training, folder)
    grid = Grid(sources, models, protocol, splits, exact, frozenset(alone), times)
    how: dict[str, Any] = {"workers": workers, "executor": executor, "progress": progress, "together": grid.together}
    done = sweep({cell_path(*cell): cell for cell in cells}, grid, folder, **how)
    rows = sorted_rows([cell["row"] for cell in done])
    fresh = {name: source.fresh for name, source in sources.items()}
    right = right_rows(
        cells, done, folder, metric, {name for name, source in sources.items() if source.parts is not None}
    )
    options: dict[str, Any] = {"metric": metric, "rope": rope, "alpha": alpha, "primary": primary}
    verdicts, ranks, complexity = judge(rows, fresh=fresh, right=right, **options)
    told = {} if folder is None else _json(folder / VERDICTS, {}).get("simulability") or {}
    told = {name: told.get(name) or simulabilities(build(model, *shape)) for name, model in models.items()}
    comparison = Comparison(rows, verdicts, ranks, complexity, curve_rows(done), config, versions(), folder, told)
    if folder is not None:
        save_tables(comparison, folder)
    return comparison


def _check(
    models: Mapping[str, Subject],
    sources: Mapping[str, Source],
    seeds: int | Sequence[int],
    metric: str | None,
    rope: float,
    alpha: float,
) -> list[int]:
    """Refuse what cannot be compared; return the seeds."""
    if not models:
        raise ArgumentError("Argument `models` must name a model to compare, but is empty")
    check_names(list(models), "models")
    check_names(list(sources), "data")
    check_choice("metric", metric or METRICS[0], METRICS)
    check_share("rope", rope)
    check_share("alpha", alpha)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    for number in numbers:
        check_seed("seeds", number)
    if len(set(numbers)) < max(FEWEST_SEEDS, len(numbers)):
        raise ArgumentError(
            f"Argument `seeds` must be {FEWEST_SEEDS} different ones or more, but is {seeds!r}: one seed is one draw"
        )
    return numbers


def _plain(source: Source) -> Any:
    """What a config can say of a source: its recipe, or that rows were given."""
    if source.recipe is None or not isinstance(source.recipe["name"], str):
        return "rows of the caller's own"
    return {key: list(v) if isinstance(v, tuple) else v for key, v in source.recipe.items() if key != "seed"}


def _claim(path: Path, config: Mapping[str, Any], splits: Mapping[str, Mapping[int, str]]) -> None:
    """Claim the directory for a new comparison, or check that it holds this one, on the same splits."""
    folder = RunFolder(path, CONFIG, "comparison")
    folder.claim(config, resume=True)
    frozen = json.loads(json.dumps(splits))
    kept = folder.load(SPLITS, missing=frozen)
    if changed := [name for name in {**kept, **frozen} if kept.get(name) != frozen.get(name)]:
        raise ConfigError(
            f"{path} holds a comparison with another split of {', '.join(changed)}: take another directory"
        )
    folder.write(SPLITS, frozen)

"""Sweeps: many configs of a config, the best of them by validation, and its one look at the test part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qbp.comparison.cells import opened
from qbp.errors import ArgumentError, ConfigError, check_choice, did_you_mean
from qbp.runs import run as runs
from qbp.runs.config import Config, Sweep, changed, load
from qbp.runs.folder import plain
from qbp.runs.search.space import check_space
from qbp.runs.search.study import COSTS, ask, importance, need_optuna, write_journal
from qbp.runs.search.trial import Given, Trials
from qbp.storage.atomic import write_table
from qbp.storage.folder import RunFolder
from qbp.training.options import mode_of
from qbp.workers import check_executor

__all__ = ["BEST", "CONFIG", "SweepResult", "load_sweep", "sweep"]

CONFIG, JOURNAL, TABLE, BEST = "sweep.yaml", "study.journal", "trials.csv", "best"
TRIALS = "trials"

Row = dict[str, Any]
Progress = Callable[[int, int, float | None], object]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        rows: a row for each trial: `number`, `state` (complete, pruned or failed), `score` (of the weights that it
            ended with; mean over seeds), `epochs`, `n_parameters`, `two_qubit_gates`, `quantum_seconds` (that its
            training would take on a device), `values` (by dotted key), `scores` (of every epoch), `error`, `seconds`.
        metric, mode: the column of validation by which trials were judged, and whether "max" or "min" of it is best.
        best: the row of the chosen trial.
        importance: by key the share of the spread of scores that it explains.
        pareto: by cost, "two_qubit_gates" and "quantum_seconds", the numbers of the trials that none is as good as for
            less, the cheapest first.
        test: what `qbp.evaluate` says of the chosen config on the test part.
        optuna: its version.
        directory: where all of it is; the run of the chosen config in `best`.
    """

    rows: tuple[Row, ...]
    metric: str
    mode: str
    best: Row
    importance: Mapping[str, float]
    pareto: Mapping[str, Sequence[int]]
    test: Mapping[str, Any]
    optuna: str
    directory: Path = field(compare=False)

    def column(self, name: str) -> list[Any]:
        """Return a column of the rows, or the values of a key of the config."""
        check_choice("name", name, [*self.rows[0], *self.rows[0]["values"]])
        return [row[name] if name in row else row["values"][name] for row in self.rows]


def sweep(
    config: str | Path | Config,
    directory: str | Path,
    *,
    workers: int = 1,
    executor: str = "processes",
    progress: Progress | None = None,
    trust: bool = False,
    **options: Any,
) -> SweepResult:
    """Search the best values of any keys of a config, by validation alone.

    Trials train on the train part, as the config says, and are judged by the rows of it that are held out for
    validation; the chosen config is then trained once more, as `qbp train` would, and meets the test part. Trials come
    to the same on any executor and any number of workers, and after a kill: the same call goes on with those that are
    finished, and runs again those that were running.

    Args:
        config: a config with a section `sweep`, or any config of `qbp train` with `search=` here: a path, a name of one
            that comes with qbp, or a `Config`.
        directory: where to; the same directory goes on with the sweep in it.
        workers: processes.
        executor: who runs the trials: "processes" of this machine, or "ray" or "ray:ADDRESS", a Ray cluster, whose
            machines have qbp and the data file at the same place.
        progress: called with (trials that are over, trials in all, the best score) after each few.
        trust: whether the config may name a backend that has to be imported; see `qbp.runs.config.load`.
        options: keys of the section `sweep`, in place of those of the config: `search`, `trials`, ...

    Returns:
        The trials, the best of them, and what it is on the test part.

    Raises:
        ArgumentError: the executor is unknown, or nothing was trained.
        ConfigError: the config is wrong, or the directory holds another sweep.
        MissingPackageError: Optuna, or Ray, is not installed.

    Example:
        >>> import qbp
        >>> search = {"train.lr": {"low": 0.001, "high": 0.1, "log": True}, "model.n_layers": [1, 2, 3]}
        >>> result = qbp.sweep("digits", "runs/digits-sweep", search=search, trials=8)  # doctest: +SKIP
        >>> result.best["values"], result.test["accuracy"]  # doctest: +SKIP
    """
    need_optuna()
    check_executor(executor)
    chosen = _checked(config if isinstance(config, Config) else load(config, trust=trust), options)
    folder = RunFolder(Path(directory), CONFIG, "sweep", read=lambda file: plain(load(file, trust=True), file.parent))
    trials = _trials(chosen)
    folder.claim(plain(chosen, folder.path), resume=True)
    with _alone(folder.path):
        if not folder.is_finished:
            rows = _search(trials, folder.path, workers, executor, progress)
            folder.finish(_finished(trials, rows, folder.path))
    return load_sweep(folder.path)


def load_sweep(directory: str | Path) -> SweepResult:
    """Read a finished sweep from its directory.

    Raises:
        ConfigError: it is none, or not finished.
    """
    folder = RunFolder(Path(directory), CONFIG, "sweep")
    if not (folder.path / CONFIG).is_file():
        raise ConfigError(f"{folder.path} is no directory of `qbp sweep`: it has no {CONFIG}")
    if not folder.is_finished:
        raise ConfigError(f"The sweep in {folder.path} is not finished: the same `qbp sweep` goes on with it")
    result = folder.result()
    rows = tuple(folder.load(_path(number).as_posix()) for number in range(result["trials"]))
    about = {key: result[key] for key in ("metric", "mode", "importance", "pareto", "test", "optuna")}
    return SweepResult(rows, best=rows[result["best"]], directory=folder.path, **about)


# ---- what is asked for ---------------------------------------------------------------------------------------------


def _checked(config: Config, options: Mapping[str, Any]) -> Config:
    """The config with the options in its section `sweep`; refused where it cannot be searched."""
    section = {} if config.sweep is None else config.sweep.model_dump(mode="json")
    for name in options:
        check_choice("options", name, Sweep.model_fields)
    if config.sweep is None and "search" not in options:
        raise ConfigError(
            f"Config {config.name} must have a section `sweep` that says what is searched, as in "
            "`sweep: {search: {train.lr: {low: 0.001, high: 0.1, log: true}}}`"
        )
    config = changed(config, {"sweep": section | dict(options)})
    if config.prune is not None or config.distill is not None:
        raise ConfigError(f"Config {config.name} has `prune` or `distill`: a sweep trains only, take them out")
    if config.train.validation is None:
        raise ConfigError(
            f"Config {config.name} must have `train.validation`, the share of the train part by which trials are "
            "judged, as 0.2"
        )
    assert config.sweep is not None
    check_space(config, config.sweep)
    return config


def _trials(config: Config) -> Trials:
    """What runs trials, of a config whose data and model are there."""
    sweep = config.sweep
    assert sweep is not None
    base = config.model_copy(update={"sweep": None, "twin": False})
    train, _ = runs.load_data(base)
    runs.build(base, train)
    kinds = ("accuracy",) if train.n_classes else ("r2", "mae")
    metric = sweep.metric or f"val_{kinds[0]}"
    if metric not in (metrics := [f"val_{kind}" for kind in ("loss", *kinds)]):
        raise ConfigError(
            f"Key `sweep.metric` must be one of {', '.join(metrics)}, but is {metric}{did_you_mean(metric, metrics)}"
        )
    seeds = range(config.seed, config.seed + sweep.seeds) if isinstance(sweep.seeds, int) else sweep.seeds
    return Trials(base, sweep, metric, mode_of(metric, sweep.mode), tuple(seeds))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / "sweep.lock", timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(f"Another process is at the sweep in {folder}") from error


# ---- trials --------------------------------------------------------------------------------------------------------


def _path(number: int) -> Path:
    return Path(TRIALS, f"{number:04}.json")


def _search(trials: Trials, folder: Path, workers: int, executor: str, progress: Progress | None) -> list[Row]:
    """Run all trials, round by round: those of a round know the rounds before it."""
    how, rows = trials.sweep, list[Row]()
    with opened(trials, folder, workers=workers, executor=executor) as go:
        while len(rows) < how.trials:
            numbers = range(len(rows), min(len(rows) + how.parallel, how.trials))
            given = ask(how, trials.mode, trials.config.seed, rows, len(numbers))
            before = tuple(rows)
            cells = {_path(k): Given(k, values, before) for k, values in zip(numbers, given, strict=True)}
            rows += go(cells)
            if all(row["state"] == "failed" for row in rows):
                raise ArgumentError(f"No trial could be trained. The first said: {rows[0]['error']}")
            write_journal(folder / JOURNAL, trials.config.name, how, trials.mode, rows)
            _write_table(folder, rows)
            if progress is not None:
                best = best_of(rows, trials.mode)
                progress(len(rows), how.trials, None if best is None else best["score"])
    return rows


def _complete(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["state"] == "complete"]


def best_of(rows: Sequence[Row], mode: str) -> Row | None:
    """Return the trial with the best score; of equals the one with the fewest two-qubit gates, then parameters."""
    sign = -1 if mode == "max" else 1
    ranked = sorted(_complete(rows), key=lambda r: (sign * r["score"], r["two_qubit_gates"], r["n_parameters"]))
    return ranked[0] if ranked else None


def pareto_of(rows: Sequence[Row], cost: str, mode: str) -> list[int]:
    """Return the numbers of the trials that none is as good as for less, or better for as much; the cheapest first.

    Example:
        >>> rows = [{"number": k, "state": "complete", "score": s, "gates": g}
        ...         for k, (s, g) in enumerate([(0.9, 8), (0.8, 2), (0.9, 6), (0.7, 4)])]
        >>> pareto_of(rows, "gates", "max")
        [1, 2]
    """
    sign = -1 if mode == "max" else 1
    front: list[Row] = []
    for row in sorted(_complete(rows), key=lambda r: (r[cost], sign * r["score"], r["number"])):
        if not front or sign * row["score"] < sign * front[-1]["score"]:
            front.append(row)
    return [row["number"] for row in front]


def _write_table(folder: Path, rows: Sequence[Row]) -> None:
    keys = list(rows[0]["values"])
    columns = ["number", "state", "score", "epochs", *COSTS, *keys, "error", "seconds"]
    flat = [row | row["values"] for row in rows]
    write_table(folder / TABLE, columns, [{name: row[name] for name in columns} for row in flat])


def _finished(trials: Trials, rows: Sequence[Row], folder: Path) -> Row:
    """Train the best config as a run of its own, and evaluate it on the test part: only now, and only this one."""
    best = best_of(rows, trials.mode)
    if best is None:
        raise ArgumentError("No trial was trained to its end: let there be more (`sweep.trials`)")
    config = changed(trials.config, {**best["values"], "name": f"{trials.config.name}-{BEST}"})
    result = runs.train(config, folder / BEST, resume=True)
    ((_, test),) = result["models"].items()
    return {
        "name": trials.config.name,
        "metric": trials.metric,
        "mode": trials.mode,
        "trials": len(rows),
        "best": best["number"],
        "importance": importance(trials.sweep, trials.mode, rows),
        "pareto": {cost: pareto_of(rows, cost, trials.mode) for cost in ("two_qubit_gates", "quantum_seconds")},
        "test": test,
        "optuna": need_optuna().__version__,
    }

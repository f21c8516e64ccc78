"""A run for each of many seeds, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from qbp.errors import ArgumentError, check_seed
from qbp.runs.config import Config
from qbp.runs.folder import CONFIG, TWIN, claim, plain
from qbp.runs.run import build, check_trains, load_data, tracking, train
from qbp.storage.atomic import write_atomic, write_table
from qbp.storage.folder import RESULT, RunFolder
from qbp.training.checkpoint import METRICS, History
from qbp.training.metrics import metrics_of
from qbp.workers import check_executor, pool

__all__ = ["train_seeds"]

SEEDS, TABLE = "seeds.yaml", "seeds.csv"

Progress = Callable[[int, int, float | None], object]


def train_seeds(
    config: Config,
    directory: str | Path,
    seeds: int | Sequence[int],
    *,
    resume: bool = False,
    workers: int = 1,
    executor: str = "processes",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train what a config says once for each seed, of split, initial weights and order of the rows.

    Each is a run as that of `qbp.runs.run.train`, in `seed-K` of the directory, which also holds `seeds.yaml`,
    `seeds.csv` (a row for each model and seed) and `result.json`. Resumed, runs that are finished stay, those that were
    running run again.

    Args:
        config: the config.
        directory: where to.
        seeds: how many, from the config's `seed` on, or which.
        resume: go on with what is in the directory, if there is something.
        workers: processes.
        executor: who trains: "processes" of this machine, or "ray" or "ray:ADDRESS", a Ray cluster.
        progress: called with (runs that are over, runs in all, None) after each.

    Returns:
        What `result.json` holds: `name`, `seeds`, and by name of the model for each metric its `mean`, its standard
        deviation `std` over seeds (None of one), and `values`.

    Raises:
        ArgumentError: `seeds` are no seeds.
        ConfigError: the directory is taken, or holds other runs.
    """
    numbers = list(range(config.seed, config.seed + seeds)) if isinstance(seeds, int) else list(seeds)
    for number in numbers:
        check_seed("seeds", number)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ArgumentError(f"Argument `seeds` must be how many seeds, or different ones, but is {seeds!r}")
    check_executor(executor)
    check_trains(config)
    tracking(config, Path(directory), "")
    build(config, load_data(config)[0])  # what cannot be trained claims no directory
    folder = RunFolder(Path(directory), SEEDS, "set of runs")
    folder.claim({"seeds": numbers, **plain(config, folder.path)}, resume=resume)
    configs = {number: config.model_copy(update={"seed": number}) for number in numbers}
    runs = {number: folder.path / f"seed-{number}" for number in numbers}
    waiting = [number for number in numbers if not (runs[number] / RESULT).exists()]
    with pool(_Run(config), executor, workers) as each:
        for k, files in each(waiting):
            number = waiting[k]
            _keep(configs[number], runs[number], files)
            if progress is not None:
                progress(sum((run / RESULT).exists() for run in runs.values()), len(runs), None)
    results = {number: RunFolder(run).result()["models"] for number, run in runs.items()}
    first = next(iter(results.values()))
    columns = ("parameters", "epochs", "seconds", *metrics_of(next(iter(first.values()))))
    rows = [
        {"model": name, "seed": number, **{key: models[name][key] for key in columns}}
        for name in first
        for number, models in results.items()
    ]
    write_table(folder.path / TABLE, ("model", "seed", *columns), rows)
    scores = {
        name: {key: _spread([row[key] for row in rows if row["model"] == name]) for key in columns} for name in first
    }
    folder.finish({"name": config.name, "seeds": numbers, "models": scores})
    return folder.result()


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None, "values": values}


@dataclass(frozen=True)
class _Run:
    """Trains with a seed, in a folder of its own, whose files it returns: on any machine."""

    config: Config

    def __call__(self, seed: int) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "run")
            train(self.config.model_copy(update={"seed": seed, "tracking": (), "copy_data": False}), folder)
            return {
                path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
            }


def _keep(config: Config, folder: Path, files: dict[str, bytes]) -> None:
    """Write what a run has written elsewhere, its result last."""
    claim(folder, config, resume=True)
    for name in sorted(set(files) - {CONFIG, RESULT}):
        write_atomic(folder / name, files[name])
    write_atomic(folder / RESULT, files[RESULT])
    for name, scores in RunFolder(folder).result()["models"].items():
        rows = History.from_jsonl((folder / TWIN if name == TWIN else folder) / METRICS).rows
        for watch in tracking(config, folder, name):
            for row in rows:
                watch.on_epoch_end(row)
            watch.finish({f"test_{key}": value for key, value in scores.items()}, len(rows))

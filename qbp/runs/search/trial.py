"""One trial of a sweep: train a config on the train part, and score it on rows of that which were held out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from torch import nn

from qbp.comparison.cell import quantum_seconds
from qbp.data import Dataset
from qbp.errors import QbpError
from qbp.nn.resources import resources
from qbp.runs.config import Config, Sweep, changed
from qbp.runs.run import build, load_data, threads
from qbp.runs.search.study import judge
from qbp.training.fitting import fit

__all__ = ["Given", "Trials"]

Row = dict[str, Any]


class Given(NamedTuple):
    """A trial that is to run: its number, its values by dotted key, and the trials that it is pruned by."""

    number: int
    values: Mapping[str, Any]
    before: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Trials:
    """Runs any trial, in any process, with nothing but what it is given.

    Attributes:
        config: the one whose keys change, without `sweep`.
        sweep: how trials are judged.
        metric, mode: by what they are judged.
        seeds: of weights and of the order of the rows.
    """

    config: Config
    sweep: Sweep
    metric: str
    mode: str
    seeds: tuple[int, ...]

    def __call__(self, given: Given) -> Row:
        began = time.perf_counter()
        row: Row = {
            "number": given.number,
            "state": "failed",
            "score": None,
            "epochs": 0,
            **dict.fromkeys(("n_parameters", "two_qubit_gates", "quantum_seconds")),
            "values": dict(given.values),
            "scores": [],
            "error": None,
        }
        try:
            config = changed(self.config, given.values)
            with threads(config.threads):
                row |= self._trained(config, given)
        except QbpError as error:  # of these values together: others may do
            row["error"] = str(error)
        return row | {"seconds": time.perf_counter() - began}

    def _trained(self, config: Config, given: Given) -> Row:
        train, _ = load_data(config)  # whose other part no trial looks at
        is_to_end = judge(self.sweep, self.mode, given.before)
        scores: list[float] = []
        finals: list[float] = []
        row: Row = {}
        pruned: list[bool] = []

        def watch(epoch: Row, model: nn.Module) -> bool:
            scores.append(epoch[self.metric])
            pruned[:] = [is_to_end(epoch[self.metric], len(scores) - 1)]
            return pruned[0]

        for seed in self.seeds:
            ((_, model),) = build(config.model_copy(update={"twin": False, "seed": seed}), train).items()
            row = row or _costs(model, config, train)
            history = fit(model, train, config.train, seed=seed, callbacks=[watch])
            kept = history.best if config.train.early_stopping is not None else history.last
            finals.append(kept[self.metric])
            if pruned[0]:
                break
        state = "pruned" if pruned[0] else "complete"
        seen = len(scores) * _rows_to_train(config, train)
        seconds = quantum_seconds(row.pop("circuits_per_step"), config.train.batch_size, seen)
        about = {"state": state, "score": fmean(finals), "epochs": len(scores), "quantum_seconds": seconds}
        return {**row, **about, "scores": scores}


def _costs(model: nn.Module, config: Config, train: Dataset) -> Row:
    counts = resources(model, train.x.shape[1], config.train.batch_size)
    return {key: counts[key] for key in ("n_parameters", "two_qubit_gates", "circuits_per_step")}


def _rows_to_train(config: Config, train: Dataset) -> int:
    return round(len(train) * (1 - config.train.validation))

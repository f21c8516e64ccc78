"""A claim is tried: measured by its protocol, cell by cell on disk, and ruled on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qbp.comparison.cells import LOG, Progress, sweep
from qbp.comparison.columns import COLUMNS
from qbp.comparison.statistics import need_statsmodels
from qbp.errors import ConfigError
from qbp.storage.atomic import write_atomic
from qbp.storage.folder import VERSIONS, RunFolder
from qbp.trials.cell import Cell, Row
from qbp.trials.claim import Claim
from qbp.trials.protocols import PROTOCOLS
from qbp.trials.protocols.comparison import compare, rows_of
from qbp.trials.ruling import Answer, Ruling, answer, rule_on

__all__ = ["Trial", "load_trial", "try_claim"]

CONFIG, ROWS, TRIAL = "claim.json", "rows.json", "trial.json"
COMPARISON, CELLS = "comparison", "cells"


@dataclass(frozen=True)
class Trial:
    """A claim that was tried.

    Attributes:
        claim: what is said of it, as plain data.
        sha256: of what was fixed beforehand.
        left_out: what a quick trial does otherwise; empty for a whole one.
        ruling: on the figure.
        answer: of the controls.
        arms: for each data set and arm the mean and deviation of the metric, and what it costs.
        seconds: while something was measured, over all processes.
        versions: of Python, qbp and the packages that results depend on.
        directory: where it is.
    """

    claim: Mapping[str, Any]
    sha256: str
    left_out: tuple[str, ...]
    ruling: Ruling
    answer: Answer
    arms: tuple[Row, ...]
    seconds: float
    versions: Mapping[str, Any]
    directory: Path


def try_claim(
    claim: Claim,
    directory: str | Path,
    *,
    left_out: Sequence[str] = (),
    workers: int = 1,
    executor: str = "processes",
    progress: Progress | None = None,
) -> Trial:
    """Try a claim; what was stopped goes on where it was.

    Args:
        claim: of `qbp.trials.claim.load`.
        directory: of this trial.
        left_out: what a quick trial does otherwise, to be said on its page.
        workers, executor, progress: as in `qbp.compare`.

    Returns:
        The trial, which is also in `trial.json`.

    Raises:
        ConfigError: the directory holds the trial of another claim, or of one that was fixed otherwise.
        ArgumentError: a metric is no column of the protocol's rows.
    """
    need_statsmodels()
    path = Path(directory)
    RunFolder(path, CONFIG, "trial", again="take another directory", read=_read_json).claim(claim.fixed, resume=True)
    protocol, options = PROTOCOLS[claim.protocol], claim.protocol_options
    how: dict[str, Any] = {"workers": workers, "executor": executor, "progress": progress}
    began, comparison = time.monotonic(), None
    if claim.protocol == COMPARISON:
        rules: dict[str, Any] = {
            "metric": claim.metric,
            "primary": claim.primary,
            "rope": claim.rope,
            "alpha": claim.alpha,
        }
        comparison = compare(options, claim.numbers, path / COMPARISON, **rules, **how)
        rows, log = rows_of(comparison), path / COMPARISON / LOG
    else:
        rows, log = _measured(protocol, options, claim.numbers, path, how), path / LOG
    write_atomic(path / ROWS, (json.dumps(rows) + "\n").encode())
    trial = Trial(
        claim=claim.model_dump(mode="json"),
        sha256=claim.sha256,
        left_out=tuple(left_out),
        ruling=rule_on(claim, rows),
        answer=answer(claim, rows, comparison),
        arms=tuple(_arms(claim, rows)),
        seconds=_busy(log) or time.monotonic() - began,
        versions=json.loads((path / VERSIONS).read_text(encoding="utf-8")),
        directory=path,
    )
    plain = asdict(trial) | {"directory": None}
    write_atomic(path / TRIAL, (json.dumps(_finite(plain), indent=1) + "\n").encode())
    return trial


def load_trial(directory: str | Path) -> Trial:
    """Read a finished trial.

    Raises:
        ConfigError: there is none, or its file is damaged.
    """
    path = Path(directory)
    try:
        plain = json.loads((path / TRIAL).read_text(encoding="utf-8"))
        ruling, answer = plain["ruling"], plain["answer"]
        return Trial(
            **plain
            | {
                "left_out": tuple(plain["left_out"]),
                "ruling": Ruling(ruling["word"], ruling["sentence"], tuple(ruling["figures"])),
                "answer": Answer(answer["word"], answer["sentence"], tuple(answer["verdicts"])),
                "arms": tuple(plain["arms"]),
                "directory": path,
            }
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{path} is no finished trial: {error}") from error


def _measured(protocol: Any, options: Any, seeds: Sequence[int], path: Path, how: Mapping[str, Any]) -> list[Row]:
    """Measure every cell that is not there yet."""
    cells: list[Cell] = protocol.cells(options, seeds)
    paths = {Path(CELLS, _safe(c.dataset), _safe(c.arm), f"{c.seed}.json"): c for c in cells}
    if hasattr(protocol, "train_together"):
        run, together = partial(protocol.train_together, options), partial(protocol.together, options)
        done = sweep(paths, run, path, together=together, **how)
    else:
        done = sweep(paths, partial(protocol.train, options), path, **how)
    return [cell._asdict() | row for cell, row in zip(cells, done, strict=True)]


def _safe(name: str) -> str:
    """A name as that of a folder."""
    return name.replace("/", "+")


COSTS = ("n_parameters", "two_qubit_gates", "multiply_adds", "train_seconds", "tune_seconds")


def _arms(claim: Claim, rows: Sequence[Row]) -> list[Row]:
    """For each data set and arm the metric's mean and deviation, what it costs, and how many trainings converged."""
    import numpy as np

    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["arm"]), []).append(row)
    arms = []
    for (dataset, arm), own in groups.items():
        scores = [row[claim.metric] for row in own if row.get(claim.metric) is not None]
        about: Row = {"dataset": dataset, "arm": arm, "n": len(own), "mean": float(np.mean(scores)) if scores else None}
        about["deviation"] = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
        for key in COSTS:
            values = [row[key] for row in own if row.get(key) is not None]
            about[key] = float(np.mean(values)) if values else None
        said = [row["converged"] for row in own if row.get("converged") is not None]
        about["converged"] = f"{sum(said)}/{len(said)}" if said else None
        others = {key for row in own for key in row} - {*COLUMNS, *COSTS, "arm", "test_share", claim.metric}
        for key in sorted(others):  # what a protocol measures besides
            values = [row[key] for row in own if isinstance(row.get(key), int | float)]
            if values:
                about[key] = float(np.mean(values))
        arms.append(about)
    return arms


def _busy(log: Path) -> float:
    """Seconds in which at least one cell was being measured, of every time that the trial was run."""
    if not log.is_file():
        return 0.0
    began: dict[str, float] = {}
    spans: list[tuple[float, float]] = []
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "began":
            began[event["cell"]] = event["time"]
        elif event["cell"] in began:
            spans.append((began.pop(event["cell"]), event["time"]))
    total, last = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total


def _finite(value: Any) -> Any:
    """Plain data without numbers that JSON has no word for: None in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content

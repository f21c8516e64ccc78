"""Cells of a comparison: tune a model on the train part alone, fit it, and score it once on the test part."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from qbp.comparison.controls import configurations
from qbp.comparison.error_bars import ErrorBars, error_bars
from qbp.comparison.estimators import LARGEST_BUDGET, classifier, estimators_for, kept_numbers, regressor
from qbp.comparison.scores import SCORES, scores_of, sign_of
from qbp.comparison.twins import truncation_of, twin_of
from qbp.data import Dataset
from qbp.errors import ArgumentError, check_count
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import renew
from qbp.nn.replay import Record, recorded
from qbp.nn.resources import resources
from qbp.training.checkpoint import History
from qbp.training.ensemble import train_together
from qbp.training.loop import train as train_alone
from qbp.training.members import DivergenceError, Member
from qbp.training.metrics import place
from qbp.training.options import Training, training_of

__all__ = ["Job", "Protocol", "quantum_seconds", "run_job", "run_jobs"]

SAME = 0.01
"""Standard deviations of a target within which two predictions of it are the same."""

SECONDS_A_CIRCUIT = 1000 * 250e-6
"""What a circuit is taken to cost on a device: 1,000 shots, one every 250 microseconds."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """What is the same for every model of a comparison.

    Attributes:
        training: how the models are trained that are torch's.
        budget: configurations that every model may try, at most `qbp.comparison.estimators.LARGEST_BUDGET`.
        folds: parts of the train part, on each of which every configuration is scored once.
        metric: the score by which a configuration is chosen, the one that is compared.
    """

    training: Training = field(default_factory=Training)
    budget: int = 4
    folds: int = 3
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        check_count("budget", self.budget, 1, LARGEST_BUDGET)
        check_count("folds", self.folds, 2, 20)


class Job(NamedTuple):
    """What is done in a cell: a model is tuned, fitted and scored.

    Attributes:
        model: (B, I) -> (B, n_classes), or (B, T) for targets, whose weights are drawn anew; or a key of
            `qbp.comparison.estimators.ESTIMATORS`.
        train, test: the data.
        seed: of folds, initial weights, order of the rows and whatever else is random.
        scaled: whether the features are standardised first, by the train part.
        as_twin: whether the classical twin of the trained model is scored in its place (`qbp.comparison.twins`).
    """

    model: nn.Module | str
    train: Dataset
    test: Dataset
    seed: int
    scaled: bool = False
    as_twin: bool = False


def run_job(
    model: nn.Module | str, train: Dataset, test: Dataset, seed: int, protocol: Protocol, *, scaled: bool = False
) -> dict[str, Any]:
    """Do one job by itself; see `Job` and `run_jobs`."""
    return run_jobs([Job(model, train, test, seed, scaled)], protocol, exact=True)[0]


def run_jobs(jobs: Sequence[Job], protocol: Protocol, exact: bool = False) -> list[dict[str, Any]]:
    """Tune, fit and score one model for several seeds.

    Every configuration is scored by cross-validation on the train part (folds drawn by the seed, those of
    labels stratified); the best one, the first of equals, is fitted to all of it. The test part is looked at once.

    Args:
        jobs: with one and the same model.
        protocol: what is the same for all models.
        exact: whether each training is by itself; otherwise those of all jobs, configurations and folds go together,
            which changes no more than the last bits of a step.

    Returns:
        For each job `row` (the scores and costs of `qbp.comparison.columns.COLUMNS`), `curve` (a row for each epoch),
        and `arrays` (`y`, `predicted`, `probabilities`).
    """
    model = jobs[0].model
    scales = [_scale(job.train) for job in jobs]
    jobs = [_standardised(job) if job.scaled else job for job in jobs]
    data, sign = jobs[0].train, sign_of(protocol.metric)
    grid = estimators_for(data.n_classes)[model] if isinstance(model, str) else configurations(protocol.training)
    grid = grid[: protocol.budget]
    if not isinstance(model, str):
        _warm_up(model, jobs[0].train)
    began = time.perf_counter()
    scores = _cross_validate(jobs, grid, protocol, exact) if len(grid) > 1 else None
    orders = [
        [0] if scores is None else sorted(range(len(grid)), key=lambda k: -scores[j][k]) for j in range(len(jobs))
    ]
    tuned = time.perf_counter()
    chosen = _fit_first(jobs, grid, orders, protocol, exact)
    trained = time.perf_counter()
    cells = []
    for j, (job, (best, fitted)) in enumerate(zip(jobs, chosen, strict=True)):
        of_twin: Row = {"truncation": None, "same_labels": None}
        if job.as_twin:
            labels, fitted = _predict(fitted, job.test)[0], replace(fitted, model=twin_of(fitted.model, job.train.x))
            of_twin["truncation"] = truncation_of(fitted.model)
        predicted, probabilities, decision, bars = _predict_with_errors(fitted, job, protocol.metric)
        if job.as_twin:
            of_twin["same_labels"] = _same(labels, predicted, job.train)
        y, history = job.test.y.numpy(), fitted.history
        row = {
            **scores_of(y, predicted, probabilities, decision, job.test.n_classes or 0),
            "score_error": bars.error,
            "score_bias": bars.bias,
            "cv_score": None if scores is None else sign * scores[j][best],
            "train_seconds": (trained - tuned) / len(jobs),
            "tune_seconds": (tuned - began) / len(jobs),
            **_costs(fitted, job.train, grid[best]),
            "epochs": len(history.rows) if history is not None else None,
            "converged": fitted.converged,
            "together": history.together if history is not None else 1,
            "feature_scale": scales[j],
            "hyperparameters": json.dumps(grid[best]),
            "tried": None if scores is None else json.dumps([sign * s if np.isfinite(s) else None for s in scores[j]]),
            **of_twin,
        }
        arrays = {"y": y, "predicted": predicted}
        if probabilities is not None:
            arrays["probabilities"] = probabilities
        cells.append({"row": row, "curve": list(history.rows) if history is not None else [], "arrays": arrays})
    return cells


def _scale(train: Dataset) -> float:
    """The largest mean or standard deviation of a column, of features and targets."""
    columns = [train.x.double()] + ([] if train.n_classes else [train.y.double()])
    return max(float(torch.maximum(x.mean(0).abs(), x.std(0)).max()) for x in columns)


def _same(one: np.ndarray, other: np.ndarray, train: Dataset) -> float:
    """The share of rows of which two models say the same: the label, or the targets but for a hundredth of a standard
    deviation."""
    if train.n_classes:
        return float(np.mean(one == other))
    return float(np.mean((abs(one - other) <= SAME * train.y.double().std(0).numpy()).all(1)))


@dataclass(frozen=True)
class _Fitted:
    """A trained model of either kind."""

    model: Any
    converged: bool
    history: History | None = None


class _Task(NamedTuple):
    """A training."""

    options: Mapping[str, Any]
    train: Dataset
    seed: int


def _fit_all(
    model: nn.Module | str, tasks: Sequence[_Task], protocol: Protocol, exact: bool
) -> list[_Fitted | DivergenceError]:
    """Train a model for each task; in place of those that diverge their errors."""
    if isinstance(model, str):
        return [_estimator(model, task) for task in tasks]
    members = [
        Member.new(renew(model, seed), train, training_of(protocol.training, options), seed)
        for options, train, seed in tasks
    ]
    if not exact:
        errors, _ = train_together(members)
    else:
        errors = [_error_of(member) for member in members]
    return [
        _Fitted(member.model, _has_converged(member.history().column("loss")), member.history())
        if error is None
        else error
        for member, error in zip(members, errors, strict=True)
    ]


def _error_of(member: Member) -> DivergenceError | None:
    """Train one; its error where it diverges."""
    try:
        train_alone(member)
    except DivergenceError as error:
        return error
    return None


def _estimator(name: str, task: _Task) -> _Fitted:
    from sklearn.exceptions import ConvergenceWarning

    y = task.train.y.numpy()
    if task.train.n_classes:
        estimator = classifier(name, task.seed, task.options)
    else:
        estimator = regressor(name, task.seed, task.options, y.shape[1])
        y = y if y.shape[1] > 1 else y[:, 0]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        estimator.fit(task.train.x.numpy(), y)
    return _Fitted(estimator, not any(issubclass(each.category, ConvergenceWarning) for each in said))


def _fit_first(
    jobs: Sequence[Job],
    grid: Sequence[Mapping[str, Any]],
    orders: Sequence[Sequence[int]],
    protocol: Protocol,
    exact: bool,
) -> list[tuple[int, _Fitted]]:
    """Fit each job's best configuration; where its loss is not finite on all rows, the next one."""
    chosen: dict[int, tuple[int, _Fitted]] = {}
    for rank in range(len(grid)):
        left = [j for j in range(len(jobs)) if j not in chosen]
        tasks = [_Task(grid[orders[j][rank]], jobs[j].train, jobs[j].seed) for j in left]
        for j, fitted in zip(left, _fit_all(jobs[0].model, tasks, protocol, exact) if left else (), strict=True):
            if isinstance(fitted, _Fitted):
                chosen[j] = orders[j][rank], fitted
            elif rank == len(orders[j]) - 1:
                raise fitted
    return [chosen[j] for j in range(len(jobs))]


def _has_converged(losses: list[float]) -> bool:
    """Whether the last fifth of the epochs lowered the loss by less than 5 % of all it was lowered, or not at all."""
    fifth = max(1, len(losses) // 5)
    if len(losses) < 2 * fifth + 1:
        return False
    last, before = float(np.mean(losses[-fifth:])), float(np.mean(losses[-2 * fifth : -fifth]))
    return before - last <= 0.05 * max(losses[0] - last, 0.0) + 1e-3


def _cross_validate(
    jobs: Sequence[Job], grid: Sequence[Mapping[str, Any]], protocol: Protocol, exact: bool
) -> list[list[float]]:
    """The mean score of each configuration over the folds, for each job, larger is better (an error is negative); minus
    infinity where one diverged."""
    tasks: list[_Task] = []
    places: list[tuple[int, int, Dataset]] = []
    for j, job in enumerate(jobs):
        folds = _folds(job, protocol)
        for k, options in enumerate(grid):
            for inside, outside in folds:
                tasks.append(_Task(options, inside, job.seed))
                places.append((j, k, outside))
    scores: list[list[list[float]]] = [[[] for _ in grid] for _ in jobs]
    for (j, k, held_out), fitted in zip(places, _fit_all(jobs[0].model, tasks, protocol, exact), strict=True):
        score = None if isinstance(fitted, DivergenceError) else _score(protocol.metric, fitted, held_out)
        scores[j][k].append(-np.inf if score is None else sign_of(protocol.metric) * score)
    return [[float(np.mean(of_folds)) for of_folds in of_job] for of_job in scores]


def _folds(job: Job, protocol: Protocol) -> list[tuple[Dataset, Dataset]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    rows, labels = np.arange(len(job.train)), job.train.y.numpy()
    fewest = int(np.bincount(labels).min()) if job.train.n_classes else len(rows)
    if fewest < 2:
        raise ArgumentError("Argument `train` must have two rows of every class, to tune on one and score on the other")
    kind = StratifiedKFold if job.train.n_classes else KFold
    folds = kind(min(protocol.folds, fewest), shuffle=True, random_state=job.seed)
    return [(job.train.subset(inside), job.train.subset(outside)) for inside, outside in folds.split(rows, labels)]


def _score(metric: str, fitted: _Fitted, held_out: Dataset) -> float | None:
    """One score; None where a fold without a class has no area under a curve."""
    y, (predicted, _, decision) = held_out.y.numpy(), _predict(fitted, held_out)
    return SCORES[metric](y, predicted, decision, held_out.n_classes or 0)


def _predict(fitted: _Fitted, data: Dataset) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return labels, probabilities where there are any, and what ranks the rows: (n, n_classes), or (n,) for two; of
    targets the predictions (n, T), None, and the predictions."""
    if isinstance(fitted.model, nn.Module):
        with torch.no_grad():
            return _said(_outputs(fitted.model, data), data)
    rows = data.x.numpy()
    predicted = fitted.model.predict(rows)
    if not data.n_classes:
        predicted = predicted.reshape(len(rows), -1).astype(np.float64)
        return predicted, None, predicted
    if hasattr(fitted.model, "predict_proba"):
        probabilities = fitted.model.predict_proba(rows)
        return predicted, probabilities, probabilities
    return predicted, None, fitted.model.decision_function(rows)


def _outputs(model: nn.Module, data: Dataset) -> torch.Tensor:
    x, _ = place(model, data)
    model.eval()
    return torch.cat([model(part) for part in x.split(1024)])


def _said(outputs: torch.Tensor, data: Dataset) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """What outputs of a network say; see `_predict`."""
    outputs = outputs.detach().double()
    if not data.n_classes:
        return outputs.cpu().numpy(), None, outputs.cpu().numpy()
    probabilities = outputs.softmax(1).cpu().numpy()
    return probabilities.argmax(1), probabilities, probabilities


def _predict_with_errors(
    fitted: _Fitted, job: Job, metric: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, ErrorBars]:
    """`_predict` of the test part, and what the errors of the circuits' outputs make of the score."""
    model, test = fitted.model, job.test
    if not isinstance(model, nn.Module):
        return *_predict(fitted, test), ErrorBars()
    records: list[Record]
    with recorded(model) as records:
        predictions = _predict(fitted, test)

    def score(outputs: torch.Tensor) -> float | None:
        predicted, _, decision = _said(outputs, test)
        return SCORES[metric](test.y.numpy(), predicted, decision, test.n_classes or 0)

    return *predictions, error_bars(model, records, test.y, lambda: _outputs(model, test), score, job.seed)


def _costs(fitted: _Fitted, train: Dataset, options: Mapping[str, Any]) -> Row:
    if isinstance(fitted.model, nn.Module):
        counts = resources(fitted.model, train.x.shape[1], options["batch_size"])
        epochs = len(fitted.history.rows) if fitted.history is not None else 0
        seconds = quantum_seconds(counts["circuits_per_step"], options["batch_size"], epochs * len(train))
        return {**counts, "narrowest": _narrowest(fitted.model), "quantum_seconds": seconds}
    none = dict.fromkeys(("n_gates", "two_qubit_gates", "circuits_per_step"), 0)
    size, multiply_adds = kept_numbers(fitted.model)
    return {"n_parameters": size, **none, "multiply_adds": multiply_adds, "narrowest": None, "quantum_seconds": 0.0}


def quantum_seconds(circuits_per_step: int, batch_size: int, n_rows: int) -> float:
    """Return the seconds that training would take on a device that has seen so many rows, in all epochs together."""
    return n_rows * circuits_per_step / batch_size * SECONDS_A_CIRCUIT


def _narrowest(model: nn.Module) -> int | None:
    """The fewest neurons of a hidden layer of a network of dense layers."""
    widths = [module.out_features for module in model.modules() if isinstance(module, nn.Linear)][:-1]
    return min(widths, default=None)


def _standardised(job: Job) -> Job:
    x = job.train.x.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    deviation[deviation <= 1e-9 * mean.abs()] = 1.0  # a constant has rounding only
    deviation[deviation == 0] = 1.0
    parts = [replace(part, x=((part.x.double() - mean) / deviation).to(part.x)) for part in (job.train, job.test)]
    return job._replace(train=parts[0], test=parts[1])


def _warm_up(model: nn.Module, train: Dataset) -> None:
    """Take a step with a copy, so that compiling kernels does not count as training."""
    if any(isinstance(module, QuantumLayer) for module in model.modules()):
        copied = renew(model, 0)
        x, _ = place(copied, train)
        copied(x[:2]).sum().backward()

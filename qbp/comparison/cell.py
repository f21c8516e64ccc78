"""One cell of a comparison: tune a model on the train part alone, fit it, and score it once on the test part."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from qbp.comparison.controls import CLASSIFIERS, LARGEST_BUDGET, classifier, configurations
from qbp.comparison.twins import truncation_of, twin_of
from qbp.data import Dataset
from qbp.errors import ArgumentError, check_count
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import renew
from qbp.nn.resources import resources
from qbp.training.fitting import DivergenceError, History, fit
from qbp.training.metrics import place
from qbp.training.options import Training

__all__ = ["Protocol", "quantum_seconds", "trial"]

SECONDS_A_CIRCUIT = 1000 * 250e-6
"""What a circuit is taken to cost on a device: 1,000 shots, one every 250 microseconds."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """What is the same for every model of a comparison.

    Attributes:
        training: how the models are trained that are torch's.
        budget: configurations that every model may try, at most `qbp.comparison.controls.LARGEST_BUDGET`.
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


def trial(
    model: nn.Module | str,
    train: Dataset,
    test: Dataset,
    seed: int,
    protocol: Protocol,
    *,
    scaled: bool = False,
    as_twin: bool = False,
) -> dict[str, Any]:
    """Tune, fit and score a model.

    Every configuration is scored by cross-validation on the train part (stratified folds, drawn by `seed`); the best
    one, the first of equals, is fitted to all of it. The test part is looked at once.

    Args:
        model: a model (B, I) -> (B, n_classes), whose weights are drawn anew, or a key of
            `qbp.comparison.controls.CLASSIFIERS`.
        train, test: the data.
        seed: of folds, initial weights, order of the rows and whatever else is random.
        protocol: what is the same for all.
        scaled: whether the features are standardised first, by the train part.
        as_twin: whether the classical twin of the trained model is scored in its place (`qbp.comparison.twins`).

    Returns:
        `row` (the scores and costs of `qbp.comparison.comparing.COLUMNS`), `curve` (a row for each epoch), and
        `arrays` (`y`, `predicted`, `probabilities`).
    """
    feature_scale = float(torch.maximum(train.x.double().mean(0).abs(), train.x.double().std(0)).max())
    if scaled:
        train, test = _standardised(train, test)
    grid = CLASSIFIERS[model] if isinstance(model, str) else configurations(protocol.training)
    grid = grid[: protocol.budget]
    if not isinstance(model, str):
        _warm_up(model, train)
    began = time.perf_counter()
    tried = grid if len(grid) > 1 else ()
    scores = [_cross_validate(model, options, train, seed, protocol) for options in tried]
    order = sorted(range(len(grid)), key=lambda k: -scores[k]) if scores else [0]
    tuned = time.perf_counter()
    best, fitted = _fit_first(model, grid, order, train, seed, protocol)
    trained = time.perf_counter()
    of_twin: Row = {"truncation": None, "same_labels": None}
    if as_twin:
        labels, fitted = _predict(fitted, test)[0], replace(fitted, model=twin_of(fitted.model, train.x))
        of_twin["truncation"] = truncation_of(fitted.model)
    predicted, probabilities, decision = _predict(fitted, test)
    if as_twin:
        of_twin["same_labels"] = float(np.mean(labels == predicted))
    y = test.y.numpy()
    row = {
        **_scores(y, predicted, probabilities, decision, test.n_classes or 0),
        "cv_score": scores[best] if scores else None,
        "train_seconds": trained - tuned,
        "tune_seconds": tuned - began,
        **_costs(fitted, train, grid[best]),
        "epochs": len(fitted.history.rows) if fitted.history is not None else None,
        "converged": fitted.converged,
        "feature_scale": feature_scale,
        "hyperparameters": json.dumps(grid[best]),
        **of_twin,
    }
    arrays = {"y": y, "predicted": predicted}
    if probabilities is not None:
        arrays["probabilities"] = probabilities
    return {"row": row, "curve": list(fitted.history.rows) if fitted.history is not None else [], "arrays": arrays}


@dataclass(frozen=True)
class _Fitted:
    """A trained model of either kind."""

    model: Any
    converged: bool
    history: History | None = None


def _fit(model: nn.Module | str, options: Mapping[str, Any], train: Dataset, seed: int, protocol: Protocol) -> _Fitted:
    if isinstance(model, str):
        from sklearn.exceptions import ConvergenceWarning

        made = classifier(model, seed, options)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made.fit(train.x.numpy(), train.y.numpy())
        return _Fitted(made, not any(issubclass(each.category, ConvergenceWarning) for each in said))
    fresh = renew(model, seed)
    history = fit(fresh, train, protocol.training, seed=seed, **options)
    return _Fitted(fresh, _has_converged(history.column("loss")), history)


def _fit_first(
    model: nn.Module | str,
    grid: Sequence[Mapping[str, Any]],
    order: Sequence[int],
    train: Dataset,
    seed: int,
    protocol: Protocol,
) -> tuple[int, _Fitted]:
    """Fit the best configuration; where its loss is not finite on all rows, the next one."""
    *before, last = order
    for k in before:
        try:
            return k, _fit(model, grid[k], train, seed, protocol)
        except DivergenceError:
            continue
    return last, _fit(model, grid[last], train, seed, protocol)


def _has_converged(losses: list[float]) -> bool:
    """Whether the last fifth of the epochs lowered the loss by less than 5 % of all it was lowered, or not at all."""
    fifth = max(1, len(losses) // 5)
    if len(losses) < 2 * fifth + 1:
        return False
    last, before = float(np.mean(losses[-fifth:])), float(np.mean(losses[-2 * fifth : -fifth]))
    return before - last <= 0.05 * max(losses[0] - last, 0.0) + 1e-3


def _cross_validate(
    model: nn.Module | str, options: Mapping[str, Any], train: Dataset, seed: int, protocol: Protocol
) -> float:
    from sklearn.model_selection import StratifiedKFold

    rows, labels = np.arange(len(train)), train.y.numpy()
    fewest = int(np.bincount(labels).min())
    if fewest < 2:
        raise ArgumentError("Argument `train` must have two rows of every class, to tune on one and score on the other")
    folds = StratifiedKFold(min(protocol.folds, fewest), shuffle=True, random_state=seed)
    scores = []
    for inside, outside in folds.split(rows, labels):
        try:
            fitted = _fit(model, options, train.subset(inside), seed, protocol)
        except DivergenceError:
            return -np.inf
        held_out = train.subset(outside)
        score = _scores(held_out.y.numpy(), *_predict(fitted, held_out), train.n_classes or 0)[protocol.metric]
        if score is None:  # a fold without a class has no area under a curve
            return -np.inf
        scores.append(score)
    return float(np.mean(scores))


def _predict(fitted: _Fitted, data: Dataset) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return labels, probabilities where there are any, and what ranks the rows: (n, n_classes), or (n,) for two."""
    if isinstance(fitted.model, nn.Module):
        x, _ = place(fitted.model, data)
        with torch.no_grad():
            fitted.model.eval()
            outputs = torch.cat([fitted.model(part) for part in x.split(1024)]).double()
        probabilities = outputs.softmax(1).cpu().numpy()
        return probabilities.argmax(1), probabilities, probabilities
    rows = data.x.numpy()
    predicted = fitted.model.predict(rows)
    if hasattr(fitted.model, "predict_proba"):
        probabilities = fitted.model.predict_proba(rows)
        return predicted, probabilities, probabilities
    return predicted, None, fitted.model.decision_function(rows)


def _scores(
    y: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, decision: np.ndarray, n_classes: int
) -> Row:
    from sklearn import metrics

    labels = list(range(n_classes))
    ranking = decision[:, 1] if n_classes == 2 and decision.ndim == 2 else decision
    has_all = len(np.unique(y)) == n_classes
    if n_classes == 2:
        auc = metrics.roc_auc_score(y, ranking) if has_all else None
    else:  # by class, as what a support vector machine returns is no probability
        one_hot = np.eye(n_classes)[y]
        auc = metrics.roc_auc_score(one_hot, ranking, average="macro") if has_all else None
    losses: dict[str, float | None] = {"log_loss": None, "brier": None}
    if probabilities is not None:
        losses["log_loss"] = float(metrics.log_loss(y, probabilities, labels=labels))
        losses["brier"] = float(((probabilities - np.eye(n_classes)[y]) ** 2).sum(1).mean())
    return {
        "accuracy": float(metrics.accuracy_score(y, predicted)),
        "balanced_accuracy": float(metrics.recall_score(y, predicted, average="macro", labels=np.unique(y))),
        "f1": float(metrics.f1_score(y, predicted, average="macro", zero_division=0)),
        **losses,
        "auc": None if auc is None else float(auc),
        "confusion": json.dumps(metrics.confusion_matrix(y, predicted, labels=labels).tolist()),
    }


def _costs(fitted: _Fitted, train: Dataset, options: Mapping[str, Any]) -> Row:
    if isinstance(fitted.model, nn.Module):
        counts = resources(fitted.model, train.x.shape[1], options["batch_size"])
        epochs = len(fitted.history.rows) if fitted.history is not None else 0
        seconds = quantum_seconds(counts["circuits_per_step"], options["batch_size"], epochs * len(train))
        return {**counts, "narrowest": _narrowest(fitted.model), "quantum_seconds": seconds}
    none = dict.fromkeys(("n_gates", "two_qubit_gates", "circuits_per_step"), 0)
    size, multiply_adds = _kept(fitted.model[-1])
    return {"n_parameters": size, **none, "multiply_adds": multiply_adds, "narrowest": None, "quantum_seconds": 0.0}


def quantum_seconds(circuits_per_step: int, batch_size: int, n_rows: int) -> float:
    """Return the seconds that training would take on a device that has seen so many rows, in all epochs together."""
    return n_rows * circuits_per_step / batch_size * SECONDS_A_CIRCUIT


def _kept(model: Any) -> tuple[int, int]:
    """Numbers that a classifier of scikit-learn keeps, and its multiply-adds for a row (trees compare instead)."""
    if hasattr(model, "coefs_"):
        matrices = sum(w.size for w in model.coefs_)
        return matrices + sum(b.size for b in model.intercepts_), matrices
    if hasattr(model, "support_vectors_"):
        kept = model.support_vectors_.size + model.dual_coef_.size
        return kept + model.intercept_.size, kept
    if hasattr(model, "coef_"):
        return model.coef_.size + model.intercept_.size, model.coef_.size
    if not hasattr(model, "estimators_"):  # the most frequent class
        return 1, 0
    trees = np.ravel(np.asarray(model.estimators_, dtype=object))
    return sum(3 * tree.tree_.node_count for tree in trees), 0  # feature, threshold and value of each node


def _narrowest(model: nn.Module) -> int | None:
    """The fewest neurons of a hidden layer of a network of dense layers."""
    widths = [module.out_features for module in model.modules() if isinstance(module, nn.Linear)][:-1]
    return min(widths, default=None)


def _standardised(train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    x = train.x.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    deviation[deviation <= 1e-9 * mean.abs()] = 1.0  # a constant has rounding only
    deviation[deviation == 0] = 1.0
    return tuple(replace(part, x=((part.x.double() - mean) / deviation).to(part.x)) for part in (train, test))  # type: ignore[return-value]


def _warm_up(model: nn.Module, train: Dataset) -> None:
    """Take a step with a copy, so that compiling kernels does not count as training."""
    if any(isinstance(module, QuantumLayer) for module in model.modules()):
        copied = renew(model, 0)
        x, _ = place(copied, train)
        copied(x[:2]).sum().backward()

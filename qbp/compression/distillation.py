"""Distillation: train a small model, the student, on what one or several larger ones, the teachers, say."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbp.compression.distillation_losses import LOSSES, Lesson, Term, activations_of, listening, recall, regressor_of
from qbp.data import Dataset
from qbp.data.conversion import described
from qbp.data.preprocessing import attach
from qbp.errors import ArgumentError, check_choice, check_positive, check_share, suggests_names
from qbp.nn.copying import copied
from qbp.nn.flow import flow_of
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded
from qbp.training.checkpoint import Row, check_new
from qbp.training.fitting import fit
from qbp.training.metrics import check_data, objective, place
from qbp.training.options import Training, training_of, with_options

__all__ = ["LOSSES", "distill"]

BOUNDED = (QuantumLayer, nn.Tanh, nn.Sigmoid, nn.Softmax)


@suggests_names
@with_options
def distill(
    teacher: nn.Module | Sequence[nn.Module],
    student: nn.Module,
    data: Dataset,
    training: Training | Mapping[str, Any] | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 0.5,
    method: str | Mapping[str, float] = "kd",
    layers: tuple[str, str] | Mapping[str, tuple[str, str]] | None = None,
    logit_norm: bool = False,
    seed: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool | Callable[[Row], object] = False,
    **options: Any,
) -> nn.Module:
    """Train a copy of `student` on labels and on what the teachers say: ``alpha * loss + (1 - alpha) * term``.

    With `method` "kd" that is ``alpha CE + (1 - alpha) T^2 KL(softmax(z_t / T) || softmax(z_s / T))`` (arXiv
    1503.02531). Teacher and student are any modules, classical or hybrid. Every teacher runs once over the data, in
    evaluation mode and without gradients; what it says is kept beside the rows, and in `run_dir`, so that a run that
    goes on does not ask (or pay) it again. `fit` does the training: all it promises (resuming bit-equal, seeds,
    `DivergenceError`) holds here.

    Args:
        teacher: a trained model, or several: the term is then the mean over them, which for "kd" has the gradient of
            the mean of their probabilities.
        student: the model to train; it is not changed.
        data: rows and labels (or targets).
        training: how the student is trained, as in `fit`; validation is measured by the labels alone.
        temperature: T of "kd".
        alpha: the share of the labels, 0 to 1.
        method: a key of `LOSSES`, or weights by key, as in ``{"kd": 1.0, "relational": 10.0}``.
            "kd" and "logits" (mean squared error; also for regressions) compare outputs; "hints" (FitNets, arXiv
            1412.6550: behind a linear map that is trained too) and "attention" compare the `layers` that are named;
            "relational" ("distance", "angle") and "fidelity" ("amplitude_fidelity"), how alike rows are as quantum
            states, compare outputs, "expectation" the first quantum layers, unless `layers` are named.
        layers: (path in the student, path in the teacher), as of `named_modules`; or such a pair for each method. Such
            a module must be called once for each batch.
        logit_norm: standardise logits before softening.
        seed, progress: as in `fit`.
        run_dir: where metrics and checkpoint go; the same call with `resume` returns the student of a finished run.
        resume: go on from the checkpoint in `run_dir`, if there is one.
        options: options of `Training`, in place of those of `training`, as in ``distill(..., epochs=5)``.

    Returns:
        The trained copy.

    Raises:
        ArgumentError: an argument is wrong, or teacher, student and data do not fit.
        ConfigError, DivergenceError: as `fit`.

    Warns:
        UserWarning: the logits of a teacher, or of a student that ends in expectation values, span less than T:
            softened probabilities are then nearly uniform and say little.

    Example:
        >>> import qbp
        >>> train, test = qbp.data.load("iris")
        >>> teacher = qbp.mlp(4, 16, 3, seed=0)
        >>> history = qbp.fit(teacher, train, epochs=30)
        >>> student = distill(teacher, qbp.mlp(4, 3, 3, seed=1), train, epochs=30, lr=0.03)
        >>> qbp.evaluate(student, test)["accuracy"] > 0.9
        True
    """
    training = training_of(training, options)
    teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher)
    if not teachers or not all(isinstance(each, nn.Module) for each in teachers):
        raise ArgumentError(f"Argument `teacher` must be a model or several, but is {teacher!r}")
    check_share("alpha", alpha, zero=True, one=True)
    check_positive("temperature", temperature)
    for model in (*teachers, student):
        check_data(model, data)
    if run_dir is not None:
        check_new(Path(run_dir), resume)
    weights = _weights(method, data)
    student = copied(student)  # the caller's stays as it is
    own = {name: _path(student, name, "student", layers) for name in weights}
    asked = [{name: _path(each, name, "teacher", layers) for name in weights} for each in teachers]
    few = data.subset(range(min(2, len(data))))
    probe = activations_of(student, few, {"", *own.values()}, seed)
    hard = objective(data, training.loss)
    hard(probe[""], place(student, few)[1])  # refuses a student that does not fit
    wants_scale = "kd" in weights and not logit_norm and alpha < 1
    if wants_scale and _is_bounded(student, place(student, few)[0]):  # no training makes such logits larger
        _warn_if_flat("student", probe[""], temperature)
    say = recall(teachers, [{"", *theirs.values()} for theirs in asked], data, seed, run_dir)
    for said in say if wants_scale else ():
        _warn_if_flat("teacher", said[""], temperature)
    with seeded(seed, student):  # of the initial weights of regressors
        terms, columns = _terms(weights, own, asked, say, probe, data)
    lesson = Lesson(student, terms, data.x.shape[1], alpha, temperature, logit_norm)
    if isinstance(validation := training.validation, Dataset):
        check_data(student, validation, "validation")
        width = columns.shape[1] - data.x.shape[1]
        validation = replace(validation, x=F.pad(validation.x, (0, width)), feature_names=())
    rows = replace(data, x=columns, feature_names=(), preprocessing=described(data))
    training = replace(training, validation=validation, loss=partial(lesson.loss, hard=hard))
    with listening(student, {"", *own.values()}, lesson.hear):
        fit(lesson, rows, training, seed=seed, run_dir=run_dir, resume=resume, progress=progress)
    attach(student, described(data))
    return student


def _terms(
    weights: Mapping[str, float],
    own: Mapping[str, str],
    asked: Sequence[Mapping[str, str]],
    say: Sequence[Mapping[str, Tensor]],
    probe: Mapping[str, Tensor],
    data: Dataset,
) -> tuple[list[tuple[Term, nn.Module]], Tensor]:
    """A term for each method and teacher, with its regressor; and the data with what teachers say in further columns.

    Args:
        weights: by method.
        own, asked: by method the path in the student, and in each teacher.
        say, probe: by path what each teacher says, and what the student does of a few rows.
        data: the rows.
    """
    terms, columns, start = [], [data.x], data.x.shape[1]
    for theirs, said in zip(asked, say, strict=True):
        for name, path in theirs.items():
            _check_shapes(name, probe[own[name]].shape[1:], said[path].shape[1:])
            columns.append(said[path].flatten(1).to(data.x))
            term = Term(name, weights[name] / len(asked), own[name], start, tuple(said[path].shape[1:]))
            terms.append((term, regressor_of(term, probe[own[name]]).to(probe[""])))
            start += term.width
    return terms, torch.cat(columns, 1)


def _is_bounded(model: nn.Module, x: Tensor) -> bool:
    """Whether what the model gives comes straight from a module with bounded outputs."""
    flow = flow_of(model, x)
    last = [step for step in flow.steps if not {*step.gives}.isdisjoint(flow.outputs)]
    return any(isinstance(step.what, BOUNDED) for step in last)


def _weights(method: str | Mapping[str, float], data: Dataset) -> dict[str, float]:
    weights = dict(method) if isinstance(method, Mapping) else {method: 1.0}
    for name, weight in weights.items():
        check_choice("method", name, LOSSES)
        if isinstance(weight, bool) or not 0 < weight < math.inf:
            raise ArgumentError(f"Argument `method` must give {name!r} a positive weight, but gives {weight!r}")
    if not weights:
        raise ArgumentError("Argument `method` must name at least one loss, but is empty")
    if "kd" in weights and data.n_classes is None:
        raise ArgumentError("Argument `method` must be another than 'kd' for a regression, as 'logits'")
    return weights


def _path(model: nn.Module, name: str, role: str, layers: Any) -> str:
    """The layer that a method compares, as a path in `model`; "" is the model itself."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if name in ("kd", "logits"):
        return ""
    pair = layers.get(name) if isinstance(layers, Mapping) else layers
    if pair is not None:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ArgumentError(f"Argument `layers` must be (student's path, teacher's path), but is {pair!r}")
        path: str = pair[0 if role == "student" else 1]
        check_choice(f"layers` for the `{role}", path, modules)
        return path
    if name in ("hints", "attention"):
        raise ArgumentError(
            f"Argument `layers` must name the layers that {name!r} compares (in the {role}: "
            f"{', '.join(filter(None, modules))}), but is None"
        )
    if name != "expectation":
        return ""
    paths = [path for path, module in modules.items() if isinstance(module, QuantumLayer)]
    if not paths:
        raise ArgumentError(f"Argument `{role}` must have a quantum layer for 'expectation', or name one in `layers`")
    return paths[0]


def _check_shapes(name: str, student: torch.Size, teacher: torch.Size) -> None:
    if name == "kd" and {*student, *teacher} == {1, 2}:
        return  # one logit is that of class 1 against 0
    width = name in ("kd", "logits", "expectation") or (name == "attention" and len(student) == 1)
    if (width and student != teacher) or (name == "attention" and student[1:] != teacher[1:]):
        raise ArgumentError(
            f"Argument `method` = {name!r} compares activations of one shape, but the student's is "
            f"(B, {', '.join(map(str, student))}) and the teacher's (B, {', '.join(map(str, teacher))})"
        )


def _warn_if_flat(role: str, logits: Tensor, temperature: float) -> None:
    spans = F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits
    span = float((spans.amax(1) - spans.amin(1)).mean())
    if span < temperature:
        warnings.warn(
            f"The {role}'s logits span {span:.2g} in the mean, less than the temperature {temperature:.3g}: softened "
            "probabilities are nearly uniform and say little. Expectation values lie in [-1, 1]: end the model with "
            "a linear layer, lower `temperature`, or set `logit_norm=True`",
            stacklevel=4,
        )

"""Data sets, split and scaled without a leak from test to train. Nothing is downloaded."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qbp.data import families, raw
from qbp.data.dataset import Dataset
from qbp.data.files import SUFFIXES, read
from qbp.data.preprocessing import PCA, Pooling, Preprocessing, Scaling, Step
from qbp.data.raw import Column, Raw, numbered
from qbp.data.tables import check_rows_of_classes
from qbp.errors import (
    ArgumentError,
    check_choice,
    check_count,
    check_positive,
    check_seed,
    check_share,
    is_finite,
    suggests_names,
)
from qbp.limits import check_memory

__all__ = ["DATASETS", "REDUCTIONS", "SCALES", "load", "split"]

SCALES = ("standard", "angle", None)
REDUCTIONS = ("pca", "pool")
_Pair = tuple[np.ndarray, np.ndarray]


DATASETS: dict[str, Callable[..., Raw]] = {
    "xor": raw.xor,
    "parity": raw.parity,
    "moons": raw.moons,
    "circles": raw.circles,
    "iris": raw.iris,
    "wine": raw.wine,
    "breast_cancer": raw.breast_cancer,
    "digits": raw.digits,
    "diabetes": raw.diabetes,
    "mnist": raw.mnist,
    "linearly_separable": families.linearly_separable,
    "hidden_manifold": families.hidden_manifold,
    "two_curves": families.two_curves,
    "hyperplanes": families.hyperplanes,
    "bars_and_stripes": families.bars_and_stripes,
    "spirals": families.spirals,
    "disc": families.disc,
    "spiral_arms": families.spiral_arms,
}


@suggests_names
def load(
    name: Any,
    *,
    classes: Iterable[str | int] | None = None,
    features: int | None = None,
    reduce: str = "pca",
    n_samples: int | None = None,
    noise: float | None = None,
    test_size: float = 0.25,
    scale: str | None = "standard",
    target: str | int | None = None,
    options: Mapping[str, float] | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
) -> tuple[Dataset, Dataset]:
    """Load a data set, split it, and scale both parts by what the train part says.

    The order is: choose classes, draw `n_samples`, split (stratified), reduce, scale. Means, components and
    ranges are fitted on train only. Columns that are not pixels are standardised before a PCA.

    Args:
        name: a key of `DATASETS`, or data of your own: a .csv, .parquet, .npy or .npz file, a pair (x, y) of arrays or
            of a DataFrame and a Series, or a scikit-learn Bunch. Text columns become columns of 0 and 1; a target of
            text or whole numbers makes classes, one of other numbers a regression.
        classes: the labels to keep, by name or number; they become 0..k-1 in this order. None keeps all.
        features: number of columns after `reduce` (for "parity": the bits). None keeps all columns.
        reduce: "pca" (principal components), or "pool" (images: average pooling to k x k = `features` pixels;
            windows overlap where k does not divide the side).
        n_samples: rows before the split: how many to make (moons, circles) or to draw, stratified.
        noise: of moons, circles and others that are made: its standard deviation (spirals: its spread).
        test_size: share of the rows for test, above 0 and below 1. Truth tables: train = test = all rows.
        scale: "standard" (mean 0, standard deviation 1: for a model that begins with a classical layer),
            "angle" (train's smallest value to 0, its largest to pi, test clipped to [0, pi]: for a model that
            begins with a circuit, as cos is one-to-one there), or None. Pixels share one scale, other columns
            have one each. Targets of a regression are standardised unless `scale` is None.
        target: the column to predict of a file of your own, by name or position; None for the last one.
        options: what else a function of `DATASETS` takes, as in {"degree": 7} for "two_curves".
        seed: of everything random here.
        preprocessing: what to prepare the rows with, fitted earlier (`Dataset.preprocessing`); None fits it on train.

    Returns:
        (train, test), features float32. Both have the same `preprocessing`, which says what was done to the rows.

    Raises:
        ArgumentError: an argument does not fit the data set; the message says what would.

    Example:
        >>> train, test = load("mnist", classes=(3, 5), features=8, seed=0)
        >>> tuple(train.x.shape), tuple(test.x.shape), train.classes
        ((750, 8), (250, 8), ('3', '5'))
    """
    own = _is_own(name)
    if not own:
        check_choice("name", name, DATASETS)
    check_choice("reduce", reduce, REDUCTIONS)
    check_choice("scale", scale, SCALES)
    check_share("test_size", test_size)
    check_seed("seed", seed)
    for option, count in (("features", features), ("n_samples", n_samples)):
        if count is not None:
            check_count(option, count)
    if noise is not None:
        check_positive("noise", noise, zero=True)

    # A function of DATASETS takes what it can make by itself; the rest is done here.
    takes = () if own else inspect.signature(DATASETS[name]).parameters
    given = {"features": features, "n_samples": n_samples, "noise": noise, "seed": seed}
    made_of = {key: value for key, value in given.items() if key in takes and value is not None}
    for key in options or ():
        check_choice("options", key, [each for each in takes if each not in given])
    if noise is not None and "noise" not in takes:
        raise ArgumentError(f"Argument `noise` must be None for data set {name!r}, but is {noise}")
    if target is not None and not own:
        raise ArgumentError(f"Argument `target` must be None for data set {name!r}, but is {target!r}")
    if not own:
        _check_size({**made_of, **(options or {})})
    raw = read(name, target) if own else DATASETS[name](**made_of, **(options or {}))
    classes = None if classes is None else tuple(classes)
    raw = raw if classes is None else _choose(raw, classes)
    if n_samples is not None and "n_samples" not in takes:
        raw = _draw(raw, n_samples, seed)

    if own and raw.classes:
        check_rows_of_classes(raw)
    if raw.table:
        rows = np.arange(len(raw.x))
        train, test = rows, rows
    else:
        train, test = _split(raw.y, test_size, seed, "test_size")
    reduced = features if "features" not in takes else None
    fitted = _fitted(raw, train, reduced, reduce, scale) if preprocessing is None else preprocessing
    columns = raw.feature_names or numbered("x", raw.x.shape[1])
    if reduced is not None:
        columns = numbered("pool" if reduce == "pool" else "pc", reduced)
    recipe = {
        "name": str(name) if isinstance(name, Path) else name,
        "classes": classes,
        "features": features,
        "reduce": reduce,
        "n_samples": n_samples,
        "noise": noise,
        "test_size": test_size,
        "scale": scale,
        "target": target,
        "options": options,
        "seed": seed,
    }
    label = name if not own else Path(name).stem if isinstance(name, (str, Path)) else "data"
    about: dict[str, Any] = {"name": label, "n_classes": len(raw.classes) or None, "classes": raw.classes}
    about |= {"feature_names": columns, "recipe": recipe, "target": raw.target, "preprocessing": fitted}
    first, second = (_prepared(raw, rows, fitted, about) for rows in (train, test))
    return first, second


def _prepared(raw: Raw, rows: np.ndarray, fitted: Preprocessing, about: Mapping[str, Any]) -> Dataset:
    x, y = raw.x[rows].astype(np.float64), raw.y[rows]
    for step in fitted.steps:
        x = step(x)
    if fitted.scale is not None:
        y = fitted.scale(y)
    kind = torch.int64 if raw.classes else torch.float32
    return Dataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=kind), **about)


def _is_own(name: Any) -> bool:
    return not isinstance(name, str) or name.endswith(tuple(SUFFIXES))


def split(data: Dataset, test_size: float, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split rows in two, at random and with the same share of every class.

    Args:
        data: the rows.
        test_size: share of the second part, above 0 and below 1.
        seed: of the draw.

    Returns:
        (first, second), without a row in common.

    Raises:
        ArgumentError: too few rows for that share.
    """
    check_share("test_size", test_size)
    check_seed("seed", seed)
    first, second = _split(data.y.cpu().numpy(), test_size, seed, "test_size")
    return data.subset(first), data.subset(second)


def _split(y: np.ndarray, size: float | int, seed: int, argument: str) -> _Pair:
    from sklearn.model_selection import train_test_split

    labels = y if y.ndim == 1 else None
    try:
        first, second = train_test_split(np.arange(len(y)), test_size=size, random_state=seed, stratify=labels)
    except ValueError as error:
        raise ArgumentError(f"Argument `{argument}` must leave rows of every class on both sides: {error}") from error
    return first, second


def _draw(raw: Raw, n_samples: int, seed: int) -> Raw:
    if raw.table:
        raise ArgumentError(f"Argument `n_samples` must be None for a truth table, but is {n_samples}")
    if n_samples > len(raw.x):
        raise ArgumentError(f"Argument `n_samples` must be at most {len(raw.x)}, but is {n_samples}")
    if n_samples == len(raw.x):
        return raw
    rows = _split(raw.y, n_samples, seed, "n_samples")[1]
    return raw._replace(x=raw.x[rows], y=raw.y[rows])


def _choose(raw: Raw, classes: Iterable[str | int]) -> Raw:
    if not raw.classes:
        raise ArgumentError("Argument `classes` must be None for a regression")
    numbers = []
    for label in classes:
        if str(label) not in raw.classes and not (isinstance(label, int) and 0 <= label < len(raw.classes)):
            raise ArgumentError(f"Argument `classes` must name some of {', '.join(raw.classes)}, but has {label!r}")
        numbers.append(raw.classes.index(str(label)) if str(label) in raw.classes else int(label))
    if len(numbers) < 2 or len(set(numbers)) < len(numbers):
        raise ArgumentError(f"Argument `classes` must be two or more different labels, but is {classes!r}")
    remap = np.full(len(raw.classes), -1)
    remap[numbers] = np.arange(len(numbers))
    keep = remap[raw.y] >= 0
    return raw._replace(x=raw.x[keep], y=remap[raw.y[keep]], classes=tuple(raw.classes[k] for k in numbers))


def _pooling(raw: Raw, features: int) -> Pooling:
    side = math.isqrt(features)
    if raw.image is None:
        raise ArgumentError("Argument `reduce` must be 'pca' for data that are not images, but is 'pool'")
    if side * side != features or side > min(raw.image):
        raise ArgumentError(f"Argument `features` must be a square <= {min(raw.image) ** 2}, but is {features}")
    return Pooling(raw.image, side)


def _fitted(raw: Raw, train: np.ndarray, features: int | None, reduce: str, scale: str | None) -> Preprocessing:
    """What is done to the rows, as the train part says it."""
    steps: list[Step] = []
    x, pixels = raw.x[train].astype(np.float64), raw.image is not None

    def add(step: Step) -> None:
        nonlocal x
        x = step(x)
        steps.append(step)

    if features is not None and reduce == "pool":
        add(_pooling(raw, features))
    elif features is not None:
        if not pixels:
            add(Scaling.standard(x))
        add(PCA.fit(x, features))
        pixels = False
    if scale is not None:
        add((Scaling.angle if scale == "angle" else Scaling.standard)(x, together=pixels))
    columns = raw.columns or tuple(map(Column, raw.feature_names or numbered("x", raw.x.shape[1])))
    kind = "i" if raw.classes and all(name.lstrip("-").isdigit() for name in raw.classes) else "U"
    kind = raw.kind if raw.columns else kind
    targets = None if raw.classes or scale is None else Scaling.standard(raw.y[train])
    outputs = len(raw.classes) or raw.y.shape[1]
    return Preprocessing(columns, tuple(steps), raw.target, raw.classes, kind, targets, outputs)


def _check_size(options: Mapping[str, Any]) -> None:
    """Refuse sizes of data that are made, where they do not fit, with room for what is at work."""
    for key, value in options.items():
        if isinstance(value, int) and not is_finite(value):
            raise ArgumentError(f"Argument `{key}` must be a number, but is an integer of {value.bit_length()} bits")
    n, columns = options.get("n_samples", 300), options.get("features", 20)
    check_memory(f"{n:.4g} rows of {columns:.4g} columns", 64 * n * columns)
    for key in ("degree", "dimension", "planes"):
        if key in options:
            value = int(options[key]) if isinstance(options[key], float) and options[key].is_integer() else options[key]
            check_count(key, value)
            check_memory(f"Data of `{key}` {value:.4g}", 64 * value * max(n, columns, value))

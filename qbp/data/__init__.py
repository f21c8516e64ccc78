"""Data sets, split and scaled without a leak from test to train. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.data import families, raw
from qbp.data.files import SUFFIXES, read
from qbp.data.raw import Raw, numbered
from qbp.data.tables import check_rows_of_classes
from qbp.errors import ArgumentError, check_choice, check_count, check_positive, check_seed, check_share
from qbp.limits import check_memory

__all__ = ["DATASETS", "Dataset", "Raw", "load", "split"]

SCALES = ("standard", "angle", None)
REDUCTIONS = ("pca", "pool")
_Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows of features with their labels or targets.

    Args:
        x: features (n, I), floating point and finite.
        y: labels (n,) int64 in 0..n_classes-1, or targets (n, T) floating point.
        name: what the data is called in reports.
        n_classes: number of classes, None for regression. Taken from the labels when left out.
        classes: the names of the labels.
        feature_names: the names of the columns of `x`.
        recipe: the arguments of `load` that it was made with, None for other data.
        target: what the labels or targets are called.

    Raises:
        ArgumentError: a shape, a dtype or a label does not fit.

    Example:
        >>> import torch
        >>> data = Dataset(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 1]))
        >>> len(data), data.n_classes, data.subset([0, 2]).y.tolist()
        (3, 2, [0, 1])
    """

    x: Tensor
    y: Tensor
    name: str = "data"
    n_classes: int | None = None
    classes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None
    target: str = "label"

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.ndim != 2 or not x.is_floating_point() or not len(x):
            raise ArgumentError(f"Argument `x` must be floating point of shape (n, I), but is {_describe(x)}")
        _check_finite("x", x)
        if y.dtype == torch.int64 and y.shape == (len(x),):
            count = int(y.max()) + 1 if self.n_classes is None else self.n_classes
            if int(y.min()) < 0 or int(y.max()) >= count:
                raise ArgumentError(f"Argument `y` must hold labels 0..{count - 1}, but has {y.min()}..{y.max()}")
            object.__setattr__(self, "n_classes", count)
            object.__setattr__(self, "classes", self.classes or tuple(map(str, range(count))))
        elif not (y.is_floating_point() and y.ndim == 2 and len(y) == len(x) and self.n_classes is None):
            raise ArgumentError(
                f"Argument `y` must be int64 labels of shape ({len(x)},), or floating point targets of shape "
                f"({len(x)}, T) without `n_classes`, but is {_describe(y)}"
            )
        if y.is_floating_point():
            _check_finite("y", y)
        object.__setattr__(self, "feature_names", self.feature_names or numbered("x", x.shape[1]))
        for what, have, want in (
            ("classes", len(self.classes), self.n_classes or 0),
            ("feature_names", len(self.feature_names), x.shape[1]),
        ):
            if have != want:
                raise ArgumentError(f"Argument `{what}` must have {want} names, but has {have}")

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} rows, {self.x.shape[1]} features, {self.n_classes or 'no'} classes)"

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, indices: Sequence[int] | np.ndarray | Tensor) -> Dataset:
        """Return the rows at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return Dataset(
            self.x[rows],
            self.y[rows],
            self.name,
            self.n_classes,
            self.classes,
            self.feature_names,
            target=self.target,
        )

    def summary(self) -> str:
        """Return in a sentence what is to be learned from what.

        Example:
            >>> Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]), "coins", classes=("tail", "head")).summary()
            'coins: a classification of `label` in 2 classes (tail 1, head 2) by 2 columns (x0, x1), 3 rows'
        """
        if self.n_classes is None:
            task = (
                f"a regression of `{self.target}` ({self.y.shape[1]} column(s), {self.y.min():.3g}..{self.y.max():.3g})"
            )
        else:
            counts = torch.bincount(self.y, minlength=self.n_classes).tolist()
            rows = [f"{name} {count}" for name, count in zip(self.classes, counts, strict=True)]
            task = f"a classification of `{self.target}` in {self.n_classes} classes ({_first(rows, 10)})"
        columns = f"{self.x.shape[1]} columns ({_first(self.feature_names, 6)})"
        return f"{self.name}: {task} by {columns}, {len(self)} rows"

    def hash(self) -> str:
        """Return the SHA-256 of the features and targets (values, shapes and dtypes; not the names)."""
        digest = hashlib.sha256()
        for part in (self.x, self.y):
            digest.update(_describe(part).encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


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
}


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
) -> tuple[Dataset, Dataset]:
    """Load a data set, split it, and scale both parts by what the train part says.

    The order is: choose classes, draw `n_samples`, split (stratified), reduce, scale. Means, components and
    ranges are fitted on train only. Columns that are not pixels are standardised before a PCA.

    Args:
        name: a key of `DATASETS`, or data of your own: a .csv, .parquet, .npy or .npz file, a pair of arrays (x, y), or
            a scikit-learn Bunch. Text columns become columns of 0 and 1; a target of text or whole numbers makes
            classes, one of other numbers a regression.
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

    Returns:
        (train, test), features float32.

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
    x_train, x_test = raw.x[train].astype(np.float64), raw.x[test].astype(np.float64)
    y_train, y_test = raw.y[train], raw.y[test]
    columns, pixels = raw.feature_names or numbered("x", raw.x.shape[1]), raw.image is not None

    if features is not None and "features" not in takes:
        if reduce == "pool":
            x_train, x_test = _pool(raw, x_train, features), _pool(raw, x_test, features)
            columns = numbered("pool", features)
        else:
            x_train, x_test = _pca(x_train, x_test, features, pixels)
            columns, pixels = numbered("pc", features), False
    if scale is not None:
        x_train, x_test = (_angle if scale == "angle" else _standardise)(x_train, x_test, together=pixels)
        if not raw.classes:
            y_train, y_test = _standardise(y_train, y_test)
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
    about = (label, len(raw.classes) or None, raw.classes, columns, recipe, raw.target)
    kind = torch.int64 if raw.classes else torch.float32
    return (
        Dataset(torch.tensor(x_train, dtype=torch.float32), torch.tensor(y_train, dtype=kind), *about),
        Dataset(torch.tensor(x_test, dtype=torch.float32), torch.tensor(y_test, dtype=kind), *about),
    )


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


def _pool(raw: Raw, x: np.ndarray, features: int) -> np.ndarray:
    side = math.isqrt(features)
    if raw.image is None:
        raise ArgumentError("Argument `reduce` must be 'pca' for data that are not images, but is 'pool'")
    if side * side != features or side > min(raw.image):
        raise ArgumentError(f"Argument `features` must be a square <= {min(raw.image) ** 2}, but is {features}")
    images = torch.from_numpy(x).reshape(len(x), 1, *raw.image)
    return torch.nn.functional.adaptive_avg_pool2d(images, side).reshape(len(x), features).numpy()


def _pca(train: np.ndarray, test: np.ndarray, features: int, pixels: bool) -> _Pair:
    from sklearn.decomposition import PCA

    if features > min(train.shape):
        raise ArgumentError(f"Argument `features` must be at most {min(train.shape)} here, but is {features}")
    if not pixels:
        train, test = _standardise(train, test)
    pca = PCA(features, svd_solver="covariance_eigh").fit(train)
    return pca.transform(train), pca.transform(test)


def _standardise(train: np.ndarray, test: np.ndarray, together: bool = False) -> _Pair:
    axis = None if together else 0
    mean, deviation = train.mean(axis), train.std(axis)
    deviation = np.where(deviation > 1e-9 * np.abs(mean), deviation, 1.0)  # a constant has rounding only
    return (train - mean) / deviation, (test - mean) / deviation


def _angle(train: np.ndarray, test: np.ndarray, together: bool = False) -> _Pair:
    axis = None if together else 0
    low, span = train.min(axis), np.ptp(train, axis)
    span = np.where(span > 0, span, 1.0)
    return math.pi * np.clip((train - low) / span, 0, 1), math.pi * np.clip((test - low) / span, 0, 1)


def _check_size(options: Mapping[str, Any]) -> None:
    """Refuse sizes of data that are made, where they do not fit, with room for what is at work."""
    n, columns = options.get("n_samples", 300), options.get("features", 20)
    check_memory(f"{n:.4g} rows of {columns:.4g} columns", 64 * n * columns)
    for key in ("degree", "dimension", "planes"):
        if key in options:
            value = int(options[key]) if isinstance(options[key], float) and options[key].is_integer() else options[key]
            check_count(key, value)
            check_memory(f"Data of `{key}` {value:.4g}", 64 * value * max(n, columns, value))


def _check_finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        row, column = (~torch.isfinite(values)).nonzero()[0].tolist()
        value, place = values[row, column].item(), f"row {row + 1}, column {column + 1}"
        raise ArgumentError(f"Argument `{name}` must be finite, but holds {value} in {place}")


def _first(words: Sequence[str], most: int) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")


def _describe(tensor: Any) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"

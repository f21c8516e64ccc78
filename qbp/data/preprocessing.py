"""What is done to a table before a model sees it, fitted on the training part once and kept as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbp.data.cells import listed, numbers_or_words
from qbp.data.frames import array_of, column_of, spell, table_of, tensor_of
from qbp.data.inputs import Input, check_inputs, pack
from qbp.data.raw import Column, numbered
from qbp.data.tables import encode, names_of
from qbp.errors import ArgumentError, ConfigError, did_you_mean

__all__ = ["PCA", "Pooling", "Preprocessing", "Scaling", "attach", "preprocessing_of"]


@dataclass(frozen=True, eq=False)
class Scaling:
    """``(x - offset) / span``; with `to_angle` cut to 0..1, and times pi.

    Args:
        offset, span: of every column (I,), or one for all, ().
        to_angle: whether angles come of it, in radians.
    """

    offset: np.ndarray
    span: np.ndarray
    to_angle: bool = False

    @classmethod
    def standard(cls, x: np.ndarray, together: bool = False) -> Scaling:
        """To mean 0 and standard deviation 1."""
        axis = None if together else 0
        mean, deviation = np.asarray(x.mean(axis)), np.asarray(x.std(axis))
        return cls(mean, np.where(deviation > 1e-9 * np.abs(mean), deviation, 1.0))  # a constant has rounding only

    @classmethod
    def angle(cls, x: np.ndarray, together: bool = False) -> Scaling:
        """The smallest value to 0, the largest to pi."""
        axis = None if together else 0
        span = np.asarray(np.ptp(x, axis))
        return cls(np.asarray(x.min(axis)), np.where(span > 0, span, 1.0), to_angle=True)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        scaled = (x - self.offset) / self.span
        return math.pi * np.clip(scaled, 0, 1) if self.to_angle else scaled


@dataclass(frozen=True, eq=False)
class PCA:
    """Principal components: ``(x - mean) components^T``.

    Args:
        mean: (I,).
        components: (features, I).
    """

    mean: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, features: int) -> PCA:
        """Of the rows (n, I)."""
        from sklearn.decomposition import PCA as Components
        from threadpoolctl import threadpool_limits

        if features > min(x.shape):
            raise ArgumentError(f"Argument `features` must be at most {min(x.shape)} here, but is {features}")
        with threadpool_limits(1, "blas"):  # the last bits of a product depend on how many share it
            fitted = Components(features, svd_solver="covariance_eigh").fit(x)
        return cls(fitted.mean_, fitted.components_)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        # No matrix product: its last bits depend on how many rows there are, and a row has one answer.
        return np.einsum("ni,ki->nk", x - self.mean, self.components)


@dataclass(frozen=True, eq=False)
class Pooling:
    """Average pooling of images to `side` x `side` pixels.

    Args:
        image: height and width of the images.
        side: of what comes of it.
    """

    image: tuple[int, int]
    side: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(x).reshape(len(x), 1, *self.image)
        return torch.nn.functional.adaptive_avg_pool2d(images, self.side).reshape(len(x), self.side**2).numpy()


Step = Scaling | PCA | Pooling


@dataclass(frozen=True, eq=False, repr=False)
class Preprocessing:
    """What becomes of the rows of a table, or of an array, before a model sees them, and what its outputs mean.

    A `Dataset` of `qbp.data.load` has one, `qbp.fit` gives it to the model, and `qbp.save_model`, runs and checkpoints
    keep it: `qbp.predict` takes rows as they are in the user's file.

    Attributes:
        columns: the columns of the table; none where rows are arrays of more than one axis, or of no fixed width.
        steps: what is done after words have become columns of 0 and 1, one after the other.
        target: what is predicted.
        classes: the names of the classes; none for a regression.
        kind: of these names, as in `Raw`.
        scale: of the targets of a regression, standardised by the training part; None where they are as they were.
        n_outputs: classes, labels, or targets of a regression.
        multilabel: the names of labels of which a row may have several.
        inputs: where a model takes several, what they are; a row then has them side by side.

    Example:
        >>> import qbp
        >>> train, test = qbp.data.load("iris", features=2)
        >>> train.preprocessing
        Preprocessing(4 columns -> scale -> pca -> scale -> 2 features; label: setosa, versicolor, virginica)
        >>> train.preprocessing.transform([[5.1, 3.5, 1.4, 0.2]]).shape
        torch.Size([1, 2])
    """

    columns: tuple[Column, ...] = ()
    steps: tuple[Step, ...] = ()
    target: str = "label"
    classes: tuple[str, ...] = ()
    kind: str = "i"
    scale: Scaling | None = None
    n_outputs: int = 1
    multilabel: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()

    def __repr__(self) -> str:
        names = {Scaling: "scale", PCA: "pca", Pooling: "pool"}
        steps = [f"{len(self.columns)} columns", *(names[type(step)] for step in self.steps)]
        said = listed(self.classes, 6) if self.classes else f"{self.n_outputs} number(s)"
        return f"Preprocessing({' -> '.join(steps)} -> {self.n_features} features; {self.target}: {said})"

    @property
    def n_features(self) -> int:
        """Columns of what the model sees; 0 where that is not fixed."""
        if not self.columns:
            return 0
        return int(self._through(np.zeros((1, len(names_of(self.columns))))).shape[1])

    def transform(self, x: Any) -> Tensor:
        """Make rows ready for the model.

        Args:
            x: a table with named columns in any order (a DataFrame, or a mapping of columns), or an array, a tensor or
                a list of rows with the columns in the order in which they were.

        Returns:
            Features (n, I): float32, but those of an array of float64 that is taken as it is.

        Raises:
            ArgumentError: a column is missing; a value is missing, or of another kind than in training.
        """
        if self.inputs:
            packed, inputs = pack(x)
            check_inputs(inputs, self.inputs)
            return packed
        columns = table_of(x)
        if columns is not None:
            if not self.columns:
                raise ArgumentError("Argument `x` must be an array, as the model was trained on, but is a table")
            return torch.from_numpy(self._through(encode(columns, self.columns))).to(torch.float32)
        rows = array_of("x", x)
        if not self.columns:
            return tensor_of("x", rows)
        if rows.ndim != 2 or rows.shape[1] != len(self.columns) or not len(rows):
            raise ArgumentError(
                f"Argument `x` must have shape (n, {len(self.columns)}), the columns "
                f"{listed([column.name for column in self.columns], 6)} as they were before they were prepared, but "
                f"has {rows.shape}"
            )
        if not self.steps and not any(column.levels for column in self.columns) and rows.dtype.kind in "biuf":
            return tensor_of("x", rows)
        by_name = {column.name: column_of(rows[:, k]) for k, column in enumerate(self.columns)}
        return torch.from_numpy(self._through(encode(by_name, self.columns))).to(torch.float32)

    def labels(self, y: Any) -> Tensor:
        """Return the numbers of classes (n,), or the scaled targets (n, T), of labels or targets as they are in a file.

        Raises:
            ArgumentError: a class is unknown, or there is no number.
        """
        values = array_of("y", y)
        if self.multilabel:
            return several_labels(values, len(values), len(self.multilabel))
        if not self.classes:
            if values.dtype.kind not in "biuf":
                values = numbers_or_words(self.target, values.reshape(-1).tolist())[0]
            targets = values.astype(np.float64).reshape(len(values), -1)
            return torch.from_numpy(targets if self.scale is None else self.scale(targets))
        numbers = {name: k for k, name in enumerate(self.classes)}
        spelled = [spell(value) for value in values.reshape(-1).tolist()]
        if unknown := [k for k, name in enumerate(spelled) if name not in numbers]:
            raise ArgumentError(
                f"Column {self.target!r} must hold one of {listed(self.classes)}, the classes that the model was "
                f"trained on, but row {unknown[0] + 1} holds {spelled[unknown[0]][:40]!r}"
                f"{did_you_mean(spelled[unknown[0]], self.classes)}"
            )
        return torch.tensor([numbers[name] for name in spelled])

    def names(self, numbers: np.ndarray) -> np.ndarray:
        """Return the labels of the numbers of classes, of the kind of which they were."""
        if self.kind == "b":
            return np.array([name in ("1", "True") for name in self.classes])[numbers]
        if self.kind in ("i", "f"):
            kept: Any = np.int64 if self.kind == "i" else np.float64
            return np.array([kept(name) for name in self.classes], dtype=kept)[numbers]
        return np.array(self.classes)[numbers]

    def values(self, outputs: np.ndarray) -> np.ndarray:
        """Return targets in their own units, (n,) of one and (n, T) of several, of what a model gives (n, T)."""
        values = outputs if self.scale is None else outputs * self.scale.span + self.scale.offset
        return values[:, 0] if values.shape[1] == 1 else values

    def _through(self, x: np.ndarray) -> np.ndarray:
        for step in self.steps:
            x = step(x)
        return x

    def to_state(self) -> dict[str, Any]:
        """Return it as plain data and tensors, for `qbp.storage.container`."""
        steps = []
        for step in (*self.steps, *(() if self.scale is None else (self.scale,))):
            kept = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in vars(step).items()}
            steps.append({"step": type(step).__name__} | kept)
        columns = [list(column) if column[1:] != Column("")[1:] else column.name for column in self.columns]
        inputs = [[each.name, list(each.shape), each.is_integer] for each in self.inputs]
        plain = {"columns": columns, "steps": steps, "scale": self.scale is not None, "inputs": inputs}
        return vars(self) | plain

    def _check(self) -> None:
        """Raise where sizes do not fit each other."""
        width = len(names_of(self.columns))
        for step in self.steps:
            sizes = {Scaling: lambda s: (s.offset, s.span), PCA: lambda s: (s.mean, s.components[0])}
            for array in sizes.get(type(step), lambda s: ())(step):
                if array.shape not in ((), (width,)):
                    raise ValueError(f"{width} columns, but {array.shape}")
            width = step(np.zeros((1, width))).shape[1]
        is_whole = all(len(names) in (0, self.n_outputs) for names in (self.classes, self.multilabel))
        if self.kind not in ("i", "f", "b", "U") or not is_whole:
            raise ValueError("classes")
        self.names(np.arange(len(self.classes)))
        if self.values(np.zeros((2, self.n_outputs))).shape not in ((2,), (2, self.n_outputs)):
            raise ValueError("targets")

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_state` gave.

        Raises:
            ConfigError: it is something else.
        """
        try:
            columns = tuple(_column_of(each) for each in state["columns"])
            steps: list[Any] = [_step_of(each) for each in state["steps"]]
            classes = tuple(str(name) for name in state["classes"])
            scale: Scaling | None = steps.pop() if state["scale"] else None
            kind, outputs = str(state["kind"]), int(state["n_outputs"])
            several = tuple(str(name) for name in state.get("multilabel", ()))  # which 0.1.0 did not know
            inputs = tuple(
                Input(str(name), tuple(map(int, shape)), bool(whole)) for name, shape, whole in state.get("inputs", ())
            )
            parsed = cls(columns, tuple(steps), str(state["target"]), classes, kind, scale, outputs, several, inputs)
            parsed._check()
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            raise ConfigError(f"The preprocessing of the model is damaged ({str(error)[:100]})") from error
        return parsed


def _column_of(state: Any) -> Column:
    if isinstance(state, str):
        return Column(state)
    name, levels, per_cent, commas = state
    return Column(str(name), tuple(map(str, levels)), bool(per_cent), str(commas))


def _step_of(state: Mapping[str, Any]) -> Step:
    kinds: dict[str, Any] = {"Scaling": Scaling, "PCA": PCA, "Pooling": Pooling}
    options = {key: value.double().numpy() if isinstance(value, Tensor) else value for key, value in state.items()}
    kind = kinds[str(options.pop("step"))]
    if kind is Pooling:
        height, width = options["image"]
        return Pooling((int(height), int(width)), int(options["side"]))
    step: Step = kind(**options)
    return step


def several_labels(y: np.ndarray, n: int, count: int) -> Tensor:
    """Labels (n, count) of which a row may have several: true where it has one.

    Raises:
        ArgumentError: they are something else than 0 and 1.
    """
    if y.shape != (n, count) or y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise ArgumentError(
            f"Argument `y` must be 0 or 1 for each of {count} labels in each of {n} rows, but is {y.dtype} of shape "
            f"{y.shape}" + ("" if y.shape != (n, count) else ", and holds other values")
        )
    return torch.from_numpy(y.astype(np.bool_))


# ---- of a model ------------------------------------------------------------------------------------------------------


def attach(model: nn.Module, preprocessing: Preprocessing | None) -> None:
    """Let a model know what its rows were before it saw them: `copy.deepcopy`, pickle and `qbp.save_model` keep it."""
    if preprocessing is not None:
        model._qbp_preprocessing = preprocessing  # type: ignore[assignment]


def preprocessing_of(model: nn.Module) -> Preprocessing | None:
    """Return what `attach` gave a model, as `qbp.fit` does; None where nothing was given."""
    preprocessing = vars(model).get("_qbp_preprocessing")
    return preprocessing if isinstance(preprocessing, Preprocessing) else None


def plain(feature_names: Sequence[str], classes: Sequence[str], n_outputs: int, target: str) -> Preprocessing:
    """Return that of rows that a model sees as they are."""
    kind = "i" if tuple(classes) == numbered("", len(classes)) else "U"
    return Preprocessing(tuple(map(Column, feature_names)), (), target, tuple(classes), kind, None, n_outputs)

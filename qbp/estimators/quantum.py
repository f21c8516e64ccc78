"""A classifier and a regressor with a quantum layer, by scikit-learn's rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from qbp.data import Dataset
from qbp.errors import ArgumentError, suggests_names
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import hybrid
from qbp.nn.seeding import seeded
from qbp.training.fitting import fit
from qbp.training.metrics import outputs_of

__all__ = ["QuantumClassifier", "QuantumRegressor"]

_TRAINING = ("epochs", "lr", "quantum_lr", "optimizer", "batch_size", "schedule", "validation", "early_stopping")


@dataclass(eq=False, repr=False)
class _Quantum(BaseEstimator):
    """What both have in common; fields are the parameters, as scikit-learn reads them from `__init__`."""

    circuit: Any = "strongly_entangling"
    _: KW_ONLY
    n_qubits: int = 4
    n_layers: int = 2
    weight_shapes: Mapping[str, Any] | None = None
    hybrid: bool = True
    backend: Any = "auto"
    noise: Any = None
    diff_method: Any = "best"
    shots: int | None = None
    epochs: int = 100
    lr: float = 0.05
    quantum_lr: float | None = None
    optimizer: Any = "adam"
    batch_size: int = 200
    schedule: Any = None
    validation: float | None = None
    early_stopping: int | None = None
    training: Mapping[str, Any] | None = None
    random_state: Any = None

    def _more(self) -> dict[str, Any]:
        """Options of training of one kind of estimator."""
        return {}

    def _train(self, x: NDArray[Any], y: Tensor, classes: tuple[str, ...], sample_weight: Any) -> None:
        seed = self.random_state
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            seed = check_random_state(seed).randint(2**31 - 1)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, x, dtype=np.float64)
        rows = Dataset(torch.tensor(x), y, n_classes=len(classes) or None, classes=classes, target="y")
        names = getattr(self, "feature_names_in_", None)
        if names is not None:
            rows = Dataset(rows.x, y, "data", rows.n_classes, classes, tuple(map(str, names)), target="y")
        model = self._model(x.shape[1], rows.n_outputs, int(seed)).double()
        options = {name: getattr(self, name) for name in _TRAINING} | self._more() | dict(self.training or {})
        self.history_ = fit(model, rows, seed=int(seed), sample_weight=sample_weight, **options)
        self.model_ = model
        self.n_iter_ = len(self.history_.rows)

    def _model(self, n_inputs: int, n_outputs: int, seed: int) -> nn.Module:
        how: dict[str, Any] = {name: getattr(self, name) for name in ("backend", "noise", "diff_method", "shots")}
        sizes: dict[str, Any] = {"n_qubits": self.n_qubits, "n_layers": self.n_layers}
        if self.hybrid:
            shapes = self.weight_shapes
            return hybrid(n_inputs, n_outputs, circuit=self.circuit, weight_shapes=shapes, seed=seed, **sizes, **how)
        is_family = isinstance(self.circuit, str) and not self.circuit.endswith(".qasm")
        with seeded(seed):
            layer = QuantumLayer(self.circuit, self.weight_shapes, seed=seed, **(sizes if is_family else {}), **how)
            if layer.n_inputs not in (None, n_inputs):
                raise ArgumentError(
                    f"Argument `X` must have {layer.n_inputs} columns, the inputs of the circuit, but has {n_inputs}: "
                    "reduce it (sklearn.decomposition.PCA), or let `hybrid` be True"
                )
            if layer.n_outputs is None or layer.traced.is_scalar:
                raise ArgumentError("Argument `circuit` must return a list of outputs known in advance")
            return nn.Sequential(layer, nn.Linear(layer.n_outputs, n_outputs))

    def _outputs(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        return outputs_of(self.model_, torch.tensor(x)).numpy()


@suggests_names
@dataclass(eq=False, repr=False, kw_only=True)
class QuantumClassifier(ClassifierMixin, _Quantum):
    """A classifier: linear layer, bounded angles, circuit, linear layer (arXiv 1912.08278); cross entropy.

    Args:
        circuit: a family of `qbp.circuit.ansatz`, a `.qasm` file, a function, a QNode, or another source for
            `QuantumLayer`.
        n_qubits: qubits of a family (a source that has its own qubits keeps them).
        n_layers: layers of a family.
        weight_shapes: of a function or a QNode, as in `QuantumLayer`.
        hybrid: whether a linear layer in front makes the circuit's angles of the features; without it the features are
            the angles, in radians, and there must be as many as the circuit has inputs. A linear layer behind the
            circuit there is always.
        backend, noise, diff_method, shots: as in `QuantumLayer`.
        epochs, lr, quantum_lr, optimizer, batch_size, schedule, validation, early_stopping: as in `qbp.Training`.
        training: further options of `qbp.Training` by name, as in ``{"ema_decay": 0.99}``.
        random_state: of initial weights, order of rows and shots: an integer, a generator or None.
        class_weight: weights by label, "balanced", or None.

    Attributes:
        classes_: the labels.
        model_: the trained `torch.nn.Module`, in double precision.
        history_: the metrics of its epochs, as of `qbp.fit`.
        n_iter_: how many epochs there were.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> X, y = load_iris(return_X_y=True)
        >>> model = make_pipeline(StandardScaler(), QuantumClassifier(n_qubits=3, n_layers=1, random_state=0))
        >>> model.fit(X, y).score(X, y) > 0.9
        True
    """

    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train anew on rows X (n, I) and labels y (n,), which count as `sample_weight` (n,) says."""
        x, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ArgumentError(f"Argument `y` must have two classes or more, but has one class: {self.classes_[0]!r}")
        self._train(x, torch.tensor(numbers.reshape(-1)), tuple(map(str, self.classes_)), sample_weight)
        return self

    def _more(self) -> dict[str, Any]:
        weights = self.class_weight
        if isinstance(weights, Mapping):
            if unknown := [label for label in weights if label not in self.classes_]:
                raise ArgumentError(f"Argument `class_weight` must have labels of `y` as keys, but has {unknown[0]!r}")
            weights = [float(weights.get(label, 1.0)) for label in self.classes_.tolist()]
        return {"class_weight": weights}

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probabilities (n, classes), in the order of `classes_`."""
        outputs = self._outputs(X)
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        probabilities: NDArray[Any] = shifted / shifted.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the labels (n,)."""
        numbers = self._outputs(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[numbers]
        return labels


@suggests_names
class QuantumRegressor(RegressorMixin, _Quantum):
    """A regressor: linear layer, bounded angles, circuit, linear layer (arXiv 1912.08278); squared error.

    Targets are standardised inside, so their units do not matter. The arguments are those of `QuantumClassifier`, but
    for `class_weight`.

    Attributes:
        model_: the trained `torch.nn.Module`, in double precision, for standardised targets.
        history_: the metrics of its epochs, as of `qbp.fit`.
        n_iter_: how many epochs there were.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(80, 2))
        >>> QuantumRegressor(n_qubits=2, random_state=0).fit(X, np.sin(X[:, 0])).score(X, np.sin(X[:, 0])) > 0.9
        True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train anew on rows X (n, I) and targets y (n,), which count as `sample_weight` (n,) says."""
        x, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        targets = column_or_1d(y, warn=True).astype(np.float64)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, x, dtype=np.float64)
        self._mean = float(np.average(targets, weights=weights))
        spread = math.sqrt(np.average((targets - self._mean) ** 2, weights=weights))
        self._spread = spread if spread > 1e-12 * abs(self._mean) else 1.0
        self._train(x, torch.tensor((targets - self._mean) / self._spread)[:, None], (), weights)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the values (n,), in the units of the targets."""
        return self._outputs(X)[:, 0] * self._spread + self._mean

"""What anybody would try first: scikit-learn's models, each with twelve configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = [
    "CLASSIFIERS",
    "ESTIMATORS",
    "LARGEST_BUDGET",
    "REGRESSORS",
    "TRIVIAL",
    "classifier",
    "estimators_for",
    "kept_numbers",
    "regressor",
]

# name -> twelve configurations, the likeliest first: a budget of n takes the first n of every model.
CLASSIFIERS: dict[str, tuple[dict[str, Any], ...]] = {
    "majority": ({},),  # always the most frequent class, which leaves nothing to tune
    "logistic_regression": tuple(
        {"C": c} for c in (1.0, 10.0, 0.1, 100.0, 0.01, 1000.0, 0.001, 1e4, 3.0, 0.3, 30.0, 0.03)
    ),
    "svm_rbf": (
        {"C": 10.0, "gamma": "scale"},
        {"C": 1.0, "gamma": "scale"},
        {"C": 100.0, "gamma": 1.0},
        {"C": 100.0, "gamma": 0.1},
        {"C": 10.0, "gamma": 0.01},
        {"C": 100.0, "gamma": "scale"},
        {"C": 1.0, "gamma": 1.0},
        {"C": 10.0, "gamma": 10.0},
        {"C": 1000.0, "gamma": 0.01},
        {"C": 0.1, "gamma": "scale"},
        {"C": 1000.0, "gamma": 0.1},
        {"C": 1.0, "gamma": 0.01},
    ),
    "random_fourier": tuple(
        {"gamma": gamma, "n_components": n, "C": c}
        for gamma, n, c in (
            ("scale", 200, 10.0),
            ("scale", 200, 1.0),
            ("scale", 500, 100.0),
            (1.0, 500, 10.0),
            (0.1, 200, 10.0),
            (0.01, 200, 100.0),
            ("scale", 500, 1000.0),
            (1.0, 500, 100.0),
            (0.1, 500, 100.0),
            (10.0, 500, 10.0),
            (0.01, 500, 1000.0),
            (1.0, 200, 1.0),
        )
    ),
    "random_forest": tuple(
        {"min_samples_leaf": leaf, "max_features": share, "max_depth": depth}
        for depth, leaf, share in (
            (None, 1, "sqrt"),
            (None, 1, None),
            (None, 4, "sqrt"),
            (4, 1, "sqrt"),
            (None, 2, "sqrt"),
            (None, 4, None),
            (None, 2, None),
            (8, 1, "sqrt"),
            (4, 1, None),
            (8, 1, None),
            (None, 8, "sqrt"),
            (2, 1, "sqrt"),
        )
    ),
    "gradient_boosting": tuple(
        {"learning_rate": rate, "max_depth": depth}
        for rate, depth in (
            (0.1, 3),
            (0.3, 3),
            (0.1, 1),
            (0.1, 5),
            (0.03, 3),
            (0.3, 1),
            (0.3, 5),
            (0.03, 5),
            (1.0, 1),
            (0.03, 1),
            (1.0, 3),
            (0.1, 8),
        )
    ),
    "multilayer_perceptron": tuple(
        {"hidden_layer_sizes": sizes, "learning_rate_init": rate, "alpha": alpha}
        for rate, sizes, alpha in (
            (0.01, (100,), 1e-4),
            (0.001, (100,), 1e-4),
            (0.01, (50, 50), 1e-4),
            (0.01, (100,), 1e-2),
            (0.001, (50, 50), 1e-4),
            (0.1, (100,), 1e-4),
            (0.01, (50, 50), 1e-2),
            (0.001, (100,), 1e-2),
            (0.1, (50, 50), 1e-4),
            (0.01, (16,), 1e-4),
            (0.001, (50, 50), 1e-2),
            (0.01, (100, 100), 1e-3),
        )
    ),
}
REGRESSORS: dict[str, tuple[dict[str, Any], ...]] = {
    "mean": ({},),  # always the mean of the targets
    "ridge": tuple(
        {"alpha": alpha} for alpha in (1.0, 10.0, 0.1, 100.0, 0.01, 1000.0, 0.001, 1e4, 3.0, 30.0, 0.3, 300.0)
    ),
    "svm_rbf": tuple(
        {"C": c, "gamma": gamma, "epsilon": epsilon}
        for c, gamma, epsilon in (
            (1.0, "scale", 0.1),
            (10.0, "scale", 0.1),
            (10.0, 0.01, 0.1),
            (100.0, 0.01, 0.1),
            (1.0, 0.1, 0.01),
            (100.0, 0.1, 0.01),
            (0.1, "scale", 0.1),
            (10.0, 1.0, 0.01),
            (100.0, "scale", 0.01),
            (1.0, 0.01, 0.3),
            (1000.0, 0.001, 0.1),
            (1000.0, 0.01, 0.01),
        )
    ),
    "random_fourier": tuple(
        {key: options[key] for key in ("gamma", "n_components")} | {"alpha": 1 / options["C"]}
        for options in CLASSIFIERS["random_fourier"]
    ),
    "random_forest": tuple(
        {"min_samples_leaf": leaf, "max_features": share, "max_depth": depth}
        for depth, leaf, share in (
            (None, 1, None),
            (None, 1, "sqrt"),
            (None, 4, None),
            (None, 4, "sqrt"),
            (4, 1, None),
            (None, 2, None),
            (None, 2, "sqrt"),
            (8, 1, None),
            (4, 1, "sqrt"),
            (8, 1, "sqrt"),
            (None, 8, None),
            (2, 1, None),
        )
    ),
    "gradient_boosting": CLASSIFIERS["gradient_boosting"],
    "multilayer_perceptron": CLASSIFIERS["multilayer_perceptron"],
}
ESTIMATORS = CLASSIFIERS | REGRESSORS
"""All of them: what a name that is no subject's must not be."""

TRIVIAL = {"majority": "the most frequent class", "mean": "the mean of the targets"}
"""Those that learn nothing of the rows, and what they answer."""

LARGEST_BUDGET = min(len(grid) for grid in ESTIMATORS.values() if len(grid) > 1)


def estimators_for(n_classes: int | None) -> dict[str, tuple[dict[str, Any], ...]]:
    """Return the models for data of so many classes, or of targets where there are none."""
    return CLASSIFIERS if n_classes else REGRESSORS


def classifier(name: str, seed: int, options: Mapping[str, Any]) -> Any:
    """Build one of scikit-learn's classifiers, behind a scaler that is fitted on what it trains on.

    "random_fourier" is logistic regression on random Fourier features ``cos(W x + b)`` with W drawn from a normal
    distribution (Rahimi and Recht, NIPS 20, 2007): such features of its inputs are what stands in for many a
    variational model (arXiv 2206.11740).
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    makers: dict[str, Callable[[], Any]] = {
        "majority": lambda: DummyClassifier(strategy="most_frequent"),
        "logistic_regression": lambda: LogisticRegression(max_iter=5000),
        "svm_rbf": SVC,
        "random_fourier": lambda: LogisticRegression(max_iter=5000),
        "random_forest": lambda: RandomForestClassifier(random_state=seed),
        "gradient_boosting": lambda: GradientBoostingClassifier(random_state=seed),
        "multilayer_perceptron": lambda: MLPClassifier(max_iter=1000, random_state=seed),
    }
    left = dict(options)
    steps = [StandardScaler(), *_features(name, seed, left)]
    return make_pipeline(*steps, makers[name]().set_params(**left))


def regressor(name: str, seed: int, options: Mapping[str, Any], n_targets: int = 1) -> Any:
    """Build one of scikit-learn's regressors, behind scalers of features and targets, fitted on what it trains on.

    Those that know one target only are one for each.
    """
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.dummy import DummyRegressor
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    makers: dict[str, Callable[[], Any]] = {
        "mean": DummyRegressor,
        "ridge": Ridge,
        "svm_rbf": SVR,
        "random_fourier": Ridge,
        "random_forest": lambda: RandomForestRegressor(random_state=seed),
        "gradient_boosting": lambda: GradientBoostingRegressor(random_state=seed),
        "multilayer_perceptron": lambda: MLPRegressor(max_iter=1000, random_state=seed),
    }
    left = dict(options)
    steps = [StandardScaler(), *_features(name, seed, left)]
    last = makers[name]().set_params(**left)
    if n_targets > 1 and name in ("svm_rbf", "gradient_boosting"):
        last = MultiOutputRegressor(last)
    return TransformedTargetRegressor(make_pipeline(*steps, last), transformer=StandardScaler())


def _features(name: str, seed: int, options: dict[str, Any]) -> list[Any]:
    """What stands before the model, with its own options taken out of `options`."""
    if name != "random_fourier":
        return []
    from sklearn.kernel_approximation import RBFSampler

    own = {key: options.pop(key) for key in ("gamma", "n_components")}
    return [RBFSampler(**own, random_state=seed)]


def kept_numbers(model: Any) -> tuple[int, int]:
    """Numbers that a fitted model keeps behind its scalers, and its multiply-adds for a row (trees compare instead)."""
    pipeline = getattr(model, "regressor_", model)
    sizes = [_kept(step) for _, step in pipeline.steps[1:]]
    return sum(kept for kept, _ in sizes), sum(multiply_adds for _, multiply_adds in sizes)


def _kept(model: Any) -> tuple[int, int]:
    if hasattr(model, "random_weights_"):
        return model.random_weights_.size + model.random_offset_.size, model.random_weights_.size
    if hasattr(model, "coefs_"):
        matrices = sum(w.size for w in model.coefs_)
        return matrices + sum(b.size for b in model.intercepts_), matrices
    if hasattr(model, "support_vectors_"):
        kept = model.support_vectors_.size + model.dual_coef_.size
        return kept + model.intercept_.size, kept
    if hasattr(model, "coef_"):
        return model.coef_.size + np.size(model.intercept_), model.coef_.size
    if not hasattr(model, "estimators_"):  # the most frequent class, the mean
        return 1, 0
    trees = np.ravel(np.asarray(model.estimators_, dtype=object))
    if not hasattr(trees[0], "tree_"):  # a model for each target
        sizes = [_kept(each) for each in trees]
        return sum(kept for kept, _ in sizes), sum(multiply_adds for _, multiply_adds in sizes)
    return sum(3 * tree.tree_.node_count for tree in trees), 0  # feature, threshold and value of each node

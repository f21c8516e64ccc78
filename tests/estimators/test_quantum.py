"""The estimators do what scikit-learn asks of one: its own checks, pipelines, searches, clones, pickles, weights."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import qbp
from qbp import QuantumClassifier, QuantumRegressor
from qbp.errors import ArgumentError

X, Y = load_iris(return_X_y=True)
QUICK: dict[str, Any] = {"n_qubits": 2, "n_layers": 1, "epochs": 15, "random_state": 0}


@pytest.mark.parametrize("kind", [QuantumClassifier, QuantumRegressor])
def test_scikit_learns_checks(kind: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = check_estimator(kind())
    assert {row["status"] for row in checks} <= {"passed", "skipped"} and len(checks) > 50
    assert [row["check_name"] for row in checks if row["status"] == "skipped"] == ["check_array_api_input"]


def test_a_pipeline_goes_through_a_search() -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("pca", PCA(2)), ("model", QuantumClassifier(**QUICK))])
    grid = {"model__n_layers": [1, 2], "model__lr": [0.01, 0.2], "pca__n_components": [2]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, Y)
    assert search.best_params_["model__lr"] == 0.2 and search.best_score_ > 0.85
    assert search.predict(X).shape == (150,) and search.predict_proba(X).sum(1) == pytest.approx(1)


def test_it_is_the_model_of_fit() -> None:
    """One estimator is one call of `qbp.fit`, in double precision."""
    one = QuantumClassifier(**QUICK, lr=0.03, batch_size=32, schedule="cosine", quantum_lr=0.1).fit(X, Y)
    model = qbp.hybrid(4, 3, n_qubits=2, n_layers=1, seed=0).double()
    options: dict[str, Any] = {"epochs": 15, "lr": 0.03, "batch_size": 32, "schedule": "cosine", "quantum_lr": 0.1}
    qbp.fit(model, (X, Y), **options)
    assert np.array_equal(one.predict(X), qbp.predict(model, X))
    assert np.allclose(one.predict_proba(X), qbp.predict(model, X, probabilities=True), rtol=0, atol=1e-14)
    assert one.n_iter_ == 15 and one.history_.model is one.model_


def test_clones_parameters_and_pickles() -> None:
    one = QuantumClassifier(**QUICK, class_weight="balanced").fit(X, Y)
    other = clone(one).set_params(epochs=3)
    assert other.get_params()["class_weight"] == "balanced" and not hasattr(other, "model_")
    assert other.fit(X, Y).n_iter_ == 3
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        one.set_params(epoch=3)
    with pytest.raises(NotFittedError):
        QuantumClassifier().predict(X)
    again = pickle.loads(pickle.dumps(one))
    assert np.array_equal(again.predict_proba(X), one.predict_proba(X))


def test_labels_are_those_that_were_given() -> None:
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    one = QuantumClassifier(**QUICK, lr=0.1, batch_size=25).fit(frame, names)
    assert one.classes_.tolist() == ["setosa", "versicolor", "virginica"] and one.score(frame, names) > 0.6
    assert one.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert set(qbp.predict(one.model_, frame[["d", "c", "b", "a"]])) <= set(names)  # the model alone knows them, too
    assert np.array_equal(qbp.predict(one.model_, frame), one.predict(frame))


def test_weights_count() -> None:
    counts = np.arange(150) % 3
    options: dict[str, Any] = {**QUICK, "batch_size": 1000}
    weighted = QuantumClassifier(**options).fit(X, Y, sample_weight=counts)
    repeated = QuantumClassifier(**options).fit(np.repeat(X, counts, 0), np.repeat(Y, counts))
    assert np.allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=0, atol=1e-9)
    by_class = QuantumClassifier(**options, class_weight={0: 5.0, 2: 0.0}).fit(X, Y)
    by_row = QuantumClassifier(**options).fit(X, Y, sample_weight=np.array([5.0, 1.0, 0.0])[Y])
    assert np.allclose(by_class.predict_proba(X), by_row.predict_proba(X), rtol=0, atol=1e-9)
    with pytest.raises(ArgumentError, match="`class_weight` must have labels of `y` as keys, but has 7"):
        QuantumClassifier(**options, class_weight={7: 1.0}).fit(X, Y)


def test_it_stops_early() -> None:
    one = QuantumClassifier(**{**QUICK, "epochs": 400}, lr=0.3, validation=0.3, early_stopping=5).fit(X, Y)
    assert one.n_iter_ < 400 and one.n_iter_ == one.history_.best["epoch"] + 5
    more = QuantumClassifier(**QUICK, training={"ema_decay": 0.9, "monitor": "accuracy"}).fit(X, Y)
    assert more.history_.monitor == "accuracy"


def circuit(inputs: Any, weights: Any) -> Any:
    import pennylane as qml

    qml.AngleEmbedding(inputs, wires=range(2))
    qml.BasicEntanglerLayers(weights, wires=range(2))
    return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]


@pytest.mark.parametrize(
    "options",
    [
        {"circuit": "hardware_efficient"},
        {"circuit": "iqp", "n_qubits": 3},
        {"circuit": circuit, "weight_shapes": {"weights": (2, 2)}},
        {"circuit": "basic_entangler", "noise": qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.05}})},
        {"circuit": "basic_entangler", "shots": 200, "epochs": 3},
        {"circuit": "basic_entangler", "hybrid": False},
        {"circuit": circuit, "weight_shapes": {"weights": (2, 2)}, "hybrid": False},
    ],
    ids=lambda options: ",".join([getattr(options["circuit"], "__name__", options["circuit"]), *list(options)[1:]]),
)
def test_any_circuit(options: dict[str, Any]) -> None:
    pipeline = make_pipeline(
        StandardScaler(), PCA(2), QuantumClassifier(**{**QUICK, "lr": 0.1, "batch_size": 50, **options})
    )
    losses = pipeline.fit(X, Y)[-1].history_.column("loss")
    assert losses[-1] < 0.9 * losses[0]
    again = clone(pipeline).fit(X, Y)
    assert (
        np.array_equal(again.predict_proba(X), pickle.loads(pickle.dumps(again)).predict_proba(X)) or "shots" in options
    )


def test_features_that_are_no_angles_are_told() -> None:
    with pytest.raises(ArgumentError, match="`X` must have 2 columns, the inputs of the circuit, but has 4"):
        QuantumClassifier(**QUICK, hybrid=False).fit(X, Y)


def test_regressions_need_no_units() -> None:
    x = np.random.default_rng(0).normal(size=(80, 2))
    y = 5000 + 300 * np.sin(x[:, 0])
    one = QuantumRegressor(n_qubits=2, n_layers=1, random_state=0).fit(x, y)
    assert one.score(x, y) > 0.95
    other = QuantumRegressor(n_qubits=2, n_layers=1, random_state=0).fit(x, y / 1e6 - 3)
    assert np.allclose(other.predict(x), one.predict(x) / 1e6 - 3, atol=1e-9)
    assert QuantumRegressor(**QUICK).fit(x, np.full(80, 3.0)).predict(x) == pytest.approx(3.0, abs=1.0)


def test_others_build_on_it() -> None:
    assert cross_val_score(QuantumClassifier(**QUICK, lr=0.1), X, Y, cv=3).mean() > 0.6
    bag = BaggingClassifier(QuantumClassifier(**QUICK, lr=0.1), n_estimators=2, random_state=0).fit(X, Y)
    assert bag.score(X, Y) > 0.6


def test_qbp_waits_for_no_scikit_learn() -> None:
    code = (
        "import sys, qbp\nassert 'sklearn' not in sys.modules\nqbp.QuantumClassifier\nassert 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(qbp.__file__).parents[1])

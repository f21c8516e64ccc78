"""Comparisons on data with targets: scores, controls, which way errors count, what is refused, the page."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

import qbp
from qbp.comparison.cell import Protocol, run_job
from qbp.comparison.comparing import compare
from qbp.comparison.controls import CONTROLS, LAYER_CONTROLS
from qbp.comparison.estimators import REGRESSORS, kept_numbers, regressor
from qbp.comparison.scores import ERRORS, TARGET_METRICS, scores_of
from qbp.comparison.verdicts import judge
from qbp.data import Dataset
from qbp.errors import ArgumentError
from qbp.report import text
from qbp.report.comparison import comparison_document
from qbp.training.options import Training

HYBRID = partial(qbp.hybrid, n_qubits=2, n_layers=1, seed=0)


def test_scores_of_targets_equal_numpy_s_on_300_random_cases(rng):
    from sklearn.metrics import mean_squared_error

    for _ in range(300):
        shape = int(rng.integers(2, 60)), int(rng.integers(1, 4))
        y = rng.normal(size=shape) * 10.0 ** rng.integers(-2, 3)
        predicted = y + rng.normal(size=shape) * rng.exponential()
        scores = scores_of(y, predicted, None, predicted, 0)
        squares = ((y - predicted) ** 2).sum(0)
        assert scores["r2"] == pytest.approx(np.mean(1 - squares / ((y - y.mean(0)) ** 2).sum(0)), abs=1e-9)
        assert scores["rmse"] == pytest.approx(np.mean(np.sqrt(squares / len(y))))
        assert scores["mae"] == pytest.approx(np.mean(abs(y - predicted)))
        columns = mean_squared_error(y, predicted, multioutput="raw_values")
        assert scores["rmse"] == pytest.approx(np.mean(np.sqrt(columns)))


def test_all_regressors_try_equally_many_configurations_and_fit_any_number_of_targets(rng):
    assert {len(grid) for name, grid in REGRESSORS.items() if name != "mean"} == {12}
    assert all(len({repr(options) for options in grid}) == len(grid) for grid in REGRESSORS.values())
    x = rng.normal(size=(60, 3))
    for n_targets in (1, 2):
        y = 100 + 50 * np.stack([x[:, 0] * x[:, 1], x[:, 2]], 1)[:, :n_targets]
        for name, grid in REGRESSORS.items():
            fitted = regressor(name, 0, grid[0], n_targets).fit(x, y if n_targets > 1 else y[:, 0])
            error = np.sqrt(np.mean((fitted.predict(x).reshape(y.shape) - y) ** 2))
            assert (error < 0.9 * y.std()) == (name != "mean" and (name, n_targets) != ("ridge", 1)), name
            assert kept_numbers(fitted)[0] >= 1


def row_of(seed, role, error):
    return {
        "dataset": "d",
        "split": str(seed),
        "seed": seed,
        "model": "q" if role == "subject" else role if role in REGRESSORS else f"q/{role}",
        "subject": "" if role in REGRESSORS else "q",
        "role": role,
        "n_train": 240,
        "n_test": 80,
        "overlap": 0.0,
        "accuracy": None,
        "confusion": None,
        "r2": 1 - error**2,
        "rmse": error,
        "mae": 0.8 * error,
        "circuits_per_step": 3,
        "converged": True,
        "narrowest": 5,
        "feature_scale": 1.0,
    }


def rows_of(ours, theirs, linear=0.9):
    rng = np.random.default_rng(0)
    level = {"subject": ours, "linear_model": linear, "ridge": linear, "mean": 1.0}
    return [
        row_of(seed, role, level.get(role, theirs) + 0.01 * rng.random())
        for seed in range(10)
        for role in ("subject", *CONTROLS, *REGRESSORS)
    ]


@pytest.mark.parametrize("metric", TARGET_METRICS)
def test_less_error_is_better(metric):
    """A subject with half of everybody's error BEATS them by every metric, one with twice their error LOSES."""
    words = {}
    for ours, theirs in ((0.3, 0.6), (0.6, 0.3)):
        verdicts, ranks, _ = judge(rows_of(ours, theirs), fresh={"d": True}, metric=metric)
        words[ours] = {row["control"]: row for row in verdicts}
        assert ranks is None
    won, lost = words[0.3]["svm_rbf"], words[0.6]["svm_rbf"]
    assert won["verdict"] == words[0.3]["all"]["verdict"] == "BEATS" and won["difference"] > 0 and won["wins"] == 1
    assert lost["verdict"] == words[0.6]["all"]["verdict"] == "LOSES" and lost["difference"] < 0
    means = [np.mean([r[metric] for r in rows_of(0.3, 0.6) if r["role"] == role]) for role in ("subject", "svm_rbf")]
    assert won["difference"] == pytest.approx((means[1] - means[0]) * (1 if metric in ERRORS else -1))
    said = f"{metric} lower by 0." if metric in ERRORS else "points ["
    assert said in won["sentence"] and said in words[0.3]["all"]["sentence"]


def test_data_that_cannot_show_an_advantage():
    """Where a linear model, or the mean alone, is as good as the best."""
    for level, said in ((0.295, "(rmse 0.2"), (0.9, None)):
        verdicts = judge(rows_of(0.3, 0.6, level), fresh={"d": True}, metric="rmse")[0]
        (row,) = (row for row in verdicts if row["control"] == "all")
        assert (row["verdict"] == "BEATS") == (said is None)
        assert said is None or (said in row["sentence"] and "cannot show an advantage" in row["sentence"])
    rows = [row | {"rmse": 1.005} if row["role"] != "mean" else row for row in rows_of(1.0, 1.0, 1.5)]
    verdicts = judge(rows, fresh={"d": True}, metric="rmse")[0]
    assert all(row["verdict"] != "BEATS" for row in verdicts)


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    options = {"seeds": 5, "budget": 2, "folds": 2, "training": {"epochs": 3, "lr": 0.05}, "metric": "rmse"}
    data = {"diabetes": {"name": "diabetes", "n_samples": 120, "features": 4}}
    folder = tmp_path_factory.mktemp("compare") / "diabetes"
    return compare({"hybrid": HYBRID}, data=data, directory=folder, **options)


def test_every_control_ran_and_every_score_follows_from_the_predictions(diabetes):
    roles = {row["role"] for row in diabetes.rows}
    assert roles == {"subject", "classical_twin", *CONTROLS, *REGRESSORS}
    for row in diabetes.rows:
        kept = diabetes.predictions("diabetes", row["model"], row["seed"])
        y, predicted = kept["y"], kept["predicted"]
        assert y.shape == predicted.shape == (30, 1)
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean((y - predicted) ** 2)), rel=1e-5)
        assert row["r2"] == pytest.approx(1 - np.mean((y - predicted) ** 2) / y.var(), rel=1e-4, abs=1e-6)
        assert row["accuracy"] is None and row["confusion"] is None
        if row["tried"] is not None:  # errors: the smallest is chosen
            assert row["cv_score"] == min(json.loads(row["tried"])) > 0
    mean = diabetes.column("rmse", role="mean")
    assert np.mean(diabetes.column("rmse", role="ridge")) < np.mean(mean)
    ours, twin = (diabetes.column("rmse", role=role) for role in ("subject", "classical_twin"))
    assert twin == pytest.approx(ours, abs=1e-5)
    assert "gives the same value on all 150 rows" in diabetes.verdict("hybrid")["sentence"]


def test_its_differences_are_those_of_scipy(diabetes):
    ours = np.array(diabetes.column("rmse", role="subject"))
    for row in diabetes.verdicts:
        if row["control"] in ("circuit", "all", "classical_twin"):
            continue
        theirs = np.array(diabetes.column("rmse", role=row["control"]))
        assert row["difference"] == pytest.approx(np.mean(theirs - ours))
        t = np.mean(theirs - ours) / (np.std(theirs - ours, ddof=1) * np.sqrt(1 / 5 + 1 / 3))
        assert row["p"] == pytest.approx(2 * stats.t(4).sf(abs(t)))


def test_the_rows_needed_for_an_error_within_5_percent_of_the_lowest():
    small = [row | {"n_train": 60, "rmse": 2 * row["rmse"]} for row in rows_of(0.3, 0.6)]
    needed = judge([*rows_of(0.3, 0.6), *small], fresh={"d": True}, metric="rmse")[2]
    best = np.mean([row["rmse"] for row in rows_of(0.3, 0.6) if row["role"] == "subject"])
    assert [row["target"] for row in needed] == pytest.approx([best / 0.95] * len(needed))
    assert {row["model"]: row["n_needed"] for row in needed}["q"] == 240
    assert all(row["n_needed"] is None for row in needed if row["model"] != "q")


def test_its_page(diabetes):
    page = text.markdown(comparison_document(diabetes))
    for said in ("the mean of the targets", "ridge regression", "RMSE lower by", "| R2 |", "random Fourier features"):
        assert said in page, said
    assert "balanced" not in page and "What was taken for what" not in page


def test_rows_of_one_s_own_are_compared_one_by_one():
    x = torch.randn(90, 2, generator=torch.Generator().manual_seed(1))
    data = Dataset(x, torch.stack([x[:, 0] * x[:, 1], x[:, 0]], 1), "mine")
    options = {"seeds": 5, "budget": 1, "training": {"epochs": 2}}
    for metric in ("r2", "mae"):
        parts = data.subset(range(60)), data.subset(range(60, 90))
        comparison = compare({"mlp": qbp.mlp(2, 6, 2, seed=0)}, *parts, metric=metric, **options)
        assert {row["test"] for row in comparison.verdicts} == {"sign-flip test on rows"}
        assert not set(LAYER_CONTROLS) & {row["role"] for row in comparison.rows}
        for row in comparison.verdicts:
            if row["control"] not in ("circuit", "all"):
                ours, theirs = (np.mean(comparison.column(metric, role=role)) for role in ("subject", row["control"]))
                gain = theirs - ours if metric == "mae" else ours - theirs
                assert row["difference"] == pytest.approx(gain) and row["n"] == 30
    with pytest.raises(ArgumentError, match="one of r2, mae for a test set of your own, but is 'rmse'"):
        compare({"mlp": qbp.mlp(2, 6, 2)}, *parts, metric="rmse", **options)


def test_folds_of_targets_need_no_classes():
    train, test = qbp.data.load("diabetes", n_samples=60)
    row = run_job("ridge", train, test, 0, Protocol(Training(), budget=12, folds=4, metric="mae"))["row"]
    assert len(json.loads(row["tried"])) == 12 and row["cv_score"] == min(json.loads(row["tried"]))


@pytest.mark.parametrize(
    ("data", "metric", "said"),
    [
        ({"name": "diabetes"}, "accuracy", "one of r2, rmse, mae for the targets of data set 'd', but is 'accuracy'"),
        ({"name": "moons"}, "rmse", "one of accuracy, balanced_accuracy, f1, auc for the labels of data set 'd'"),
    ],
)
def test_a_metric_of_other_data_is_refused(data, metric, said):
    with pytest.raises(ArgumentError, match=said):
        compare({"hybrid": HYBRID}, data={"d": data}, metric=metric)


def test_data_of_both_kinds_and_rows_of_several_labels_are_refused():
    with pytest.raises(ArgumentError, match="for the targets of data set 'b', but is 'accuracy'"):
        compare({"hybrid": HYBRID}, data={"a": {"name": "moons"}, "b": {"name": "diabetes"}})
    several = Dataset(torch.randn(20, 2), torch.rand(20, 3) > 0.5, "several")
    with pytest.raises(ArgumentError, match="'several' must have one label a row, or targets"):
        compare({"hybrid": HYBRID}, several.subset(range(10)), several.subset(range(10, 20)))

"""What forbids a verdict: each gate planted in a comparison that would BEAT everything without it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import qbp
from qbp.comparison.cell import Protocol, run_job
from qbp.comparison.controls import CONTROLS
from qbp.comparison.estimators import CLASSIFIERS
from qbp.comparison.gates import gates_of, share_known
from qbp.comparison.statistics import holm
from qbp.comparison.verdicts import check_primary, judge
from qbp.data import Dataset
from qbp.errors import ArgumentError
from qbp.training.options import Training


def planted(change=lambda row: {}, ours=78, theirs=60, shares=(50, 50)):
    """Rows of ten seeds in which the subject "q" has `ours` of 80 test rows right, and every control `theirs`."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(10):
        for role in ("subject", *CONTROLS, *CLASSIFIERS):
            right = (ours if role == "subject" else theirs) - int(rng.integers(3))
            first = round(80 * shares[0] / 100)
            row = {
                "dataset": "d",
                "split": str(seed),
                "seed": seed,
                "model": "q" if role == "subject" else role if role in CLASSIFIERS else f"q/{role}",
                "subject": "" if role in CLASSIFIERS else "q",
                "role": role,
                "n_train": 240,
                "n_test": 80,
                "overlap": 0.0,
                "accuracy": right / 80,
                "balanced_accuracy": right / 80,
                "circuits_per_step": 3,
                "converged": True,
                "narrowest": 5,
                "feature_scale": 1.0,
                "confusion": json.dumps([[first, 0], [80 - right, right - first]]),
            }
            rows.append(row | change(row))
    return rows


def verdict_of(rows, control="all", **options):
    verdicts, _, _ = judge(rows, fresh={"d": True}, **options)
    return next(row for row in verdicts if row["control"] == control)


def test_without_a_gate_it_beats_them_all_and_has_nothing_to_note():
    verdict = verdict_of(planted())
    assert verdict["verdict"] == "BEATS" and "Note" not in verdict["sentence"]


def test_a_leak_decides_nothing_either_way():
    for ours, theirs in ((78, 60), (60, 78), (70, 70)):
        verdict = verdict_of(planted(lambda row: {"overlap": 0.5}, ours, theirs))
        assert (
            verdict["verdict"] == "INCONCLUSIVE"
            and "50% of the test rows are also training rows" in verdict["sentence"]
        )
    verdict = verdict_of(planted(lambda row: {"overlap": 0.03}))
    assert verdict["verdict"] == "BEATS" and "Note: 3% of the test rows are also training rows" in verdict["sentence"]


def test_rows_that_rounding_keeps_apart_are_the_same(rng):
    train = (rng.normal(size=(300, 3)) * [1, 5, 0.1] + [0, 100, 0]).astype(np.float32)
    new = (rng.normal(size=(80, 3)) * [1, 5, 0.1] + [0, 100, 0]).astype(np.float32)
    leaked = new.copy()
    leaked[:20] = train[100:120]
    assert (share_known(train, new), share_known(train, leaked)) == (0.0, 0.25)
    leaked[:20] = (leaked[:20] / np.float32(3)) * np.float32(3) + np.float32(1e-9)
    assert not (leaked[:20] == train[100:120]).all() and share_known(train, leaked) == 0.25
    assert share_known(train, leaked + np.float32(0.001)) == 0.0
    bits = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert share_known(bits, bits) == 1.0 and share_known(bits[:1], -bits[:1]) == 1.0  # a negative zero, too
    assert share_known(rng.random((50, 2, 2)), np.zeros((4, 2, 2))) == 0.0


@pytest.mark.parametrize("role", ["matched_parameters", "svm_rbf", "layer_sine"])
def test_a_rival_that_had_not_converged_is_not_beaten(role):
    rows = planted(lambda row: {"converged": row["role"] != role or row["seed"] < 4})
    verdict = verdict_of(rows, role)
    assert verdict["verdict"] == "INCONCLUSIVE"
    assert f"only 4 of 10 trainings of {role} had converged" in verdict["sentence"]
    assert verdict_of(rows)["verdict"] == "INCONCLUSIVE" and verdict_of(rows, "removed")["verdict"] == "BEATS"
    fast = planted(lambda row: {"converged": row["role"] != role}, 60, 78)
    assert verdict_of(fast, role)["verdict"] == "LOSES"  # training it longer would not help the subject


def test_a_subject_that_had_not_converged_is_noted():
    verdict = verdict_of(planted(lambda row: {"converged": row["role"] != "subject"}, 60, 78))
    assert verdict["verdict"] == "LOSES" and "10 of 10 trainings of q had not converged" in verdict["sentence"]


def test_a_twin_of_one_neuron_is_none():
    verdict = verdict_of(planted(lambda row: {"narrowest": 1}), "matched_parameters")
    assert verdict["verdict"] == "INCONCLUSIVE" and "a layer of one neuron" in verdict["sentence"]


def test_the_most_frequent_class_and_its_share():
    verdict = verdict_of(planted(lambda row: {"accuracy": 78 / 80} if row["role"] == "majority" else {}))
    assert verdict["verdict"] != "BEATS" and "most frequent class" in verdict["sentence"]
    rows = planted(shares=(95, 5), theirs=77, ours=79)
    assert "95% of the test rows are of one class" in verdict_of(rows)["sentence"]
    assert "of one class" not in verdict_of(rows, metric="balanced_accuracy")["sentence"]


def test_features_in_other_units_are_noted():
    assert "scale the data" in verdict_of(planted(lambda row: {"feature_scale": 5000.0}))["sentence"]


def test_the_gates_see_what_cells_write():
    """Real cells: an unscaled table, rows that repeat, 95:5 classes, a rival trained for one epoch."""
    x = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 1.6).long()
    data = Dataset(1000 * x + 5000, y, "units")
    train, test = data.subset(range(90)), data.subset(range(60, 120))
    protocol = Protocol(Training(epochs=30, lr=0.05), budget=1)
    plain = run_job(torch.nn.Linear(3, 2), train, test, 0, protocol)
    scaled = run_job(torch.nn.Linear(3, 2), train, test, 0, protocol, scaled=True)
    majority = run_job("majority", train, test, 0, protocol)["row"]
    assert (
        5000 < plain["row"]["feature_scale"] < 6500 and scaled["row"]["feature_scale"] == plain["row"]["feature_scale"]
    )
    assert majority["accuracy"] == float((test.y == 0).double().mean()) and majority["balanced_accuracy"] == 0.5
    assert scaled["row"]["log_loss"] < 0.3 < plain["row"]["log_loss"]
    about = {"model": "q", "role": "subject", "overlap": 0.5}
    notes = gates_of([plain["row"] | about], "accuracy").notes["q"]
    assert any("scale the data" in note for note in notes) and any("of one class" in note for note in notes)


def test_tuning_goes_by_the_metric_that_is_compared():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(200, 2)), dtype=torch.float32)
    y = torch.tensor((x[:, 0].numpy() + 0.7 * rng.normal(size=200) > 1.9).astype(np.int64))
    data = Dataset(x, y)
    rows = {
        metric: run_job("logistic_regression", data, data, 0, Protocol(budget=4, metric=metric))["row"]
        for metric in ("accuracy", "balanced_accuracy")
    }
    assert rows["balanced_accuracy"]["cv_score"] < 0.9 < rows["accuracy"]["cv_score"]


def test_a_class_without_rows_is_named_before_anything_is_trained():
    x, y = torch.randn(80, 3), torch.arange(80) % 2
    data = Dataset(x, y, "absent", 3, ("a", "b", "c"))
    with pytest.raises(ArgumentError, match="class 'c' must have rows to train on"):
        qbp.compare({"h": qbp.hybrid}, data.subset(range(60)), data.subset(range(60, 80)), seeds=6)
    two = Dataset(x, y, "two")
    with pytest.raises(ArgumentError, match="columns and classes of `train`"):
        qbp.compare({"h": qbp.hybrid}, two, Dataset(x[:, :2], y, "two"), seeds=6)
    with pytest.raises(ArgumentError, match="`metric` must be one of accuracy, balanced_accuracy"):
        qbp.compare({"h": qbp.hybrid}, two.subset(range(60)), two.subset(range(60, 80)), seeds=6, metric="auc")


def near_linear(svm=0):
    """The subject and linear models alike, up to noise of which the subject had more luck; trees are far behind."""
    noise = [4, -3, 5, -2, 4, -3, 4, -2, 3, -3]
    rows = planted(ours=72, theirs=60)
    for row in rows:
        if row["role"] in ("linear_model", "logistic_regression"):
            right = round(80 * row["accuracy"]) + 11 - noise[row["seed"]]
        else:
            right = round(80 * row["accuracy"]) + (svm if row["role"] == "svm_rbf" else 0)
        row["accuracy"] = row["balanced_accuracy"] = right / 80
    return rows


def test_nothing_is_beaten_while_no_model_is_surely_better_than_a_linear_one():
    lucky = judge(near_linear(), fresh={"d": True})[0]
    assert not [row["control"] for row in lucky if row["verdict"] == "BEATS"]
    verdict = verdict_of(near_linear(), "random_forest")
    assert verdict["p_adjusted"] < 1e-6 and "none is surely better than" in verdict["sentence"]
    needed = judge(near_linear(svm=18), fresh={"d": True})[0]  # another model shows that there is more to learn
    assert "BEATS" in {row["verdict"] for row in needed if row["control"] == "random_forest"}
    assert "BEATS" not in {
        row["verdict"] for row in needed if row["control"] in ("linear_model", "logistic_regression")
    }


# ---- many comparisons, one of them fixed beforehand ------------------------------------------------------------------


def barely(sign=1):
    """Every control is beaten by little: p of each is below 0.05, and above it once corrected for their number."""
    rows, differences = planted(), [1, 2, -1, 2, 0, 2, 1, 0, 2, 1]
    for row in rows:
        right = 60 - (0 if row["role"] == "subject" else sign * differences[row["seed"]])
        row["accuracy"] = row["balanced_accuracy"] = right / 80
    return rows


def test_to_beat_all_controls_needs_no_correction_but_to_lose_to_one_does():
    rows = barely()
    verdicts, _, _ = judge(rows, fresh={"d": True}, rope=0.001)
    own = [row for row in verdicts if row["control"] not in ("all", "circuit")]
    assert all(row["p"] < 0.05 for row in own) and any(row["verdict"] == "INCONCLUSIVE" for row in own)
    verdict = verdict_of(rows, rope=0.001)
    assert verdict["verdict"] == "BEATS" and "each at the full level, needs no correction" in verdict["sentence"]
    assert verdict_of(barely(-1), rope=0.001)["verdict"] == "INCONCLUSIVE"


def test_the_primary_comparison_is_not_corrected_and_does_not_count_for_the_others():
    rows = barely()
    plain, _, _ = judge(rows, fresh={"d": True}, rope=0.001)
    fixed, _, _ = judge(rows, fresh={"d": True}, rope=0.001, primary="q/matched_parameters")
    by_name = {row["control"]: row for row in fixed}
    one = by_name["matched_parameters"]
    assert one["p_adjusted"] == one["p"] and one["primary"] and one["verdict"] == "BEATS"
    assert "by Holm" not in one["sentence"] and "by Holm" in by_name["svm_rbf"]["sentence"]
    own = [row for row in plain if row["control"] not in ("all", "circuit")]
    rest = [row for row in own if row["control"] != "matched_parameters"]
    assert [by_name[row["control"]]["p_adjusted"] for row in rest] == pytest.approx(holm([row["p"] for row in rest]))
    assert sum(row["primary"] for row in fixed) == 1


def test_the_primary_comparison_must_be_one():
    models = ["a", "a/frozen", "a/classical_twin", "b", "b/frozen", "svm_rbf"]
    for name in ("a/frozen", "a/b", "b/svm_rbf", None):
        check_primary(name, ["a", "b"], models)
    for name in ("a/a", "svm_rbf/a", "a/matched", "a/b/frozen", "frozen", "a/classical_twin"):
        with pytest.raises(ArgumentError, match="`primary` must be one of 'a/frozen', 'a/b'"):
            check_primary(name, ["a", "b"], models)

"""What shots, and what a simulation leaves out, make of scores, intervals and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import qbp
from qbp.comparison.cell import Protocol, run_job
from qbp.comparison.error_bars import error_bars
from qbp.comparison.statistics import mcnemar, paired
from qbp.nn.replay import recorded
from qbp.training.options import Training
from tests.comparison.test_gates import planted, verdict_of

X = torch.rand(60, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
Y = (X[:, 0] * X[:, 1] > 0).long()


def model_on(backend, shots=None, seed=0):
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=2, backend=backend, shots=shots, seed=seed)
    model = nn.Sequential(layer, nn.Linear(3, 2))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 4 - 2)
    return model.eval()


def accuracy(outputs):
    return float((outputs.argmax(1) == Y).double().mean())


def bars_of(model, seed=0, change=None, score=accuracy, y=Y):
    with torch.no_grad(), recorded(model) as records:
        model(X)
    if change is not None:
        records = [[change(call) for call in record] for record in records]
    return error_bars(model, records, y, lambda: model(X), score, seed)


def test_the_error_is_the_spread_of_repeated_evaluations():
    model = model_on("auto", shots=40)
    with torch.no_grad():
        again = [accuracy(model(X)) for _ in range(200)]
    told = np.sqrt(np.mean([bars_of(model, seed).error ** 2 for seed in range(10)]))
    assert 0.75 < told / np.std(again) < 1.35 and np.std(again) > 0.01


def test_exact_circuits_have_no_errors_and_no_circuit_runs_again(monkeypatch):
    assert bars_of(model_on("auto")) == (0.0, 0.0)
    model, runs = model_on("auto", shots=40), []
    run = type(model[0]).forward
    monkeypatch.setattr(type(model[0]), "forward", lambda self, x: runs.append(len(x)) or run(self, x))
    assert bars_of(model).error > 0
    assert runs == [60] and "forward" not in vars(model[0])


def test_the_bias_is_the_worst_that_outputs_within_their_error_can_do(rng):
    """Independently: behind a linear layer a row's margin moves by sum |w_1 - w_0| t at most."""
    model = model_on("auto")
    reach = torch.from_numpy(rng.exponential(0.1, size=(60, 3)))
    bars = bars_of(model, change=lambda call: call._replace(truncation=reach))
    with torch.no_grad():
        outputs = model(X)
        weight = model[1].weight[1] - model[1].weight[0]
    margin = (outputs[:, 1] - outputs[:, 0]) * (2 * Y - 1)
    shift = reach.float() @ weight.abs()
    told = accuracy(outputs)
    low, high = float((margin > shift).double().mean()), float((margin > -shift).double().mean())
    assert bars.bias == pytest.approx(max(told - low, high - told)) and bars.bias > 0.02 and bars.error == 0
    for _ in range(200):  # nothing that is drawn within the errors is worse
        signs = torch.from_numpy(rng.uniform(-1, 1, size=(60, 3)))
        moved = outputs + (signs * reach).float() @ model[1].weight.detach().T
        assert abs(accuracy(moved) - told) <= bars.bias + 1e-12


def test_the_bias_of_errors_of_a_regression(rng):
    layer = model_on("auto")[0]
    model, y = nn.Sequential(layer, nn.Linear(3, 1)), torch.randn(60, 1, generator=torch.Generator().manual_seed(1))
    reach = torch.full((60, 3), 0.05)

    def rmse(outputs):
        return float((outputs - y).square().mean().sqrt())

    bars = bars_of(model, change=lambda call: call._replace(truncation=reach), score=rmse, y=y)
    with torch.no_grad():
        off = (model(X) - y).abs()
        shift = 0.05 * model[1].weight.abs().sum()
    worst = float((off + shift).square().mean().sqrt())
    assert bars.bias == pytest.approx(worst - float(off.square().mean().sqrt()), rel=1e-4)


def test_a_truncated_simulation_is_no_further_off_than_it_says():
    exact, worst = accuracy(model_on("auto")(X)), 0.0
    for cut in ("max_sines=1", "max_sines=2", "max_sines=3"):
        model = model_on(f"pauli-propagation:{cut}")
        bars, told = bars_of(model), accuracy(model(X))
        assert abs(told - exact) <= bars.bias
        worst = max(worst, abs(told - exact))
    assert worst > 0


def test_rows_of_cells_tell_the_errors():
    train, test = qbp.data.load("moons", n_samples=80, test_size=0.5)
    for shots in (None, 20):
        model = qbp.hybrid(2, 2, n_qubits=2, n_layers=1, shots=shots, seed=0)
        row = run_job(model, train, test, 0, Protocol(Training(epochs=2), budget=1))["row"]
        assert (row["score_error"] > 0) == (shots is not None) and row["score_bias"] == 0
    row = run_job("svm_rbf", train, test, 0, Protocol(budget=1))["row"]
    assert (row["score_error"], row["score_bias"]) == (0.0, 0.0)


# ---- in tests and intervals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_tests_and_intervals_with_a_bias_equal_scipy_s(rng, cases):
    for _ in range(cases):
        n, bias = int(rng.integers(6, 30)), float(rng.exponential(0.02))
        a, b = rng.normal(0.8, 0.05, n), rng.normal(0.8, 0.05, n) + rng.normal(0, 0.05)
        plain, difference = paired(a, b), paired(a, b, bias=bias)
        d = a - b
        mean, error = d.mean(), stats.sem(d)
        assert (difference.low, difference.high) == pytest.approx((plain.low - bias, plain.high + bias))
        assert (difference.low_bca, difference.high_bca) == pytest.approx((plain.low_bca - bias, plain.high_bca + bias))
        nearest = np.sign(mean) * min(abs(mean), bias)  # the least difference that there may be
        assert difference.p == pytest.approx(stats.ttest_1samp(d, nearest).pvalue) and difference.p >= plain.p - 1e-12
        least, most = mean - bias, mean + bias
        sides = stats.t(n - 1).sf((0.01 + least) / error), stats.t(n - 1).cdf((most - 0.01) / error)
        assert difference.p_equivalent == pytest.approx(max(sides))
        split, wide = paired(a, b, test_share=0.3), paired(a, b, test_share=0.3, bias=bias)
        assert wide.low == pytest.approx(split.low - bias) and wide.p >= split.p
        t = (abs(mean) - min(abs(mean), bias)) / (d.std(ddof=1) * np.sqrt(1 / n + 0.3))
        assert wide.p == pytest.approx(2 * stats.t(n - 1).sf(t))
    same = paired([0.9] * 8, [0.8] * 8, bias=0.2)
    assert (same.p, same.p_equivalent) == (1.0, 1.0) and (same.low, same.high) == pytest.approx((-0.1, 0.3))


def test_rows_with_a_bias():
    a, b = [1] * 9 + [0] * 21, [0] * 8 + [1] * 2 + [0] * 20
    plain, difference, hidden = mcnemar(a, b), mcnemar(a, b, bias=0.05), mcnemar(a, b, bias=0.3)
    assert difference.low == pytest.approx(plain.low - 0.05) and difference.p_equivalent >= plain.p_equivalent
    assert difference.p >= plain.p and hidden.p == 1.0


def test_coverage(rng):
    """2,000 comparisons of ten seeds: shots are in the spread already, what is left out is not."""
    n, truth, bias = 10, 0.03, 0.02
    counts = dict.fromkeys(("shots", "left out", "left out, not widened"), 0)
    for k in range(2000):
        d = truth + rng.normal(0, 0.02, n) + rng.normal(0, 0.03, n)  # seeds, and shots
        reach = stats.t(n - 1).ppf(0.975) * stats.sem(d)
        counts["shots"] += abs(d.mean() - truth) <= reach
        moved = d + rng.choice([-bias, bias])  # the same in every seed
        counts["left out, not widened"] += abs(moved.mean() - truth) <= stats.t(n - 1).ppf(0.975) * stats.sem(moved)
        counts["left out"] += abs(moved.mean() - truth) <= stats.t(n - 1).ppf(0.975) * stats.sem(moved) + bias
        if k < 50:
            difference = paired(moved, np.zeros(n), bias=bias)
            assert (difference.low, difference.high) == pytest.approx(
                (moved.mean() - reach - bias, moved.mean() + reach + bias)
            )
    shares = {name: count / 2000 for name, count in counts.items()}
    assert abs(shares["shots"] - 0.95) < 0.015
    assert shares["left out"] >= 0.95 and shares["left out, not widened"] < 0.85


def test_equal_models_with_a_bias_differ_in_at_most_5_percent(rng):
    """The worst case: the whole bias in one direction."""
    p = [paired(0.02 + rng.normal(0, 0.02, 10), np.zeros(10), bias=0.02).p for _ in range(600)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


# ---- in verdicts ---------------------------------------------------------------------------------------------------


def test_a_verdict_that_depends_on_what_is_left_out_says_so():
    assert verdict_of(planted())["verdict"] == "BEATS"
    small = verdict_of(planted(lambda row: {"score_bias": 0.01 * (row["role"] == "subject")}))
    assert small["verdict"] == "BEATS" and "by up to 1.0 points, by which intervals are widened" in small["sentence"]
    rows = planted(lambda row: {"score_bias": 0.5 * (row["role"] == "subject")})
    verdict, one = verdict_of(rows), verdict_of(rows, "svm_rbf")
    assert verdict["verdict"] == one["verdict"] == "INCONCLUSIVE" and one["bias"] == 0.5
    assert "Without what the simulation of circuits leaves out (up to 50.0 points) it would be BEATS" in one["sentence"]
    plain = verdict_of(planted(), "svm_rbf")
    assert (one["low"], one["high"]) == pytest.approx((plain["low"] - 0.5, plain["high"] + 0.5))


def test_what_may_be_left_out_may_be_the_lead_over_a_linear_model():
    """5 points ahead of linear models and perhaps 10 points off: then the data may need nothing else."""

    def change(row):
        near = row["role"] in ("linear_model", "logistic_regression")
        off = {"score_bias": 0.1 * (row["role"] == "subject")}
        return off | ({key: row[key] + 13 / 80 for key in ("accuracy", "balanced_accuracy")} if near else {})

    row = verdict_of(planted(change), "random_forest")
    assert row["difference"] > 0.2 and row["p_adjusted"] < 1e-6 and row["verdict"] == "INCONCLUSIVE"
    assert "none is surely better than" in row["sentence"]
    assert "Without what the simulation of circuits leaves out (up to 10.0 points) it would be BEATS" in row["sentence"]


def test_shots_are_named_and_widen_nothing():
    rows = planted(lambda row: {"score_error": 0.02 * (row["role"] == "subject")}, ours=61, theirs=60)
    one, plain = verdict_of(rows, "svm_rbf"), verdict_of(planted(ours=61, theirs=60), "svm_rbf")
    keys = ("low", "high", "p", "verdict")
    assert [one[key] for key in keys] == [plain[key] for key in keys] and one["verdict"] == "INCONCLUSIVE"
    assert one["error_share"] == pytest.approx(min(1.0, 0.02**2 / one["deviation"] ** 2))
    assert "of the variance of the difference is that of shots" in one["sentence"]
    assert "shots put a standard error of 2.0 points into each score of q" in verdict_of(rows)["sentence"]
    assert plain["error_share"] is None

"""`qbp.compare`: a small one for real, what it refuses, and that what it writes can be read again."""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np
import pytest
import torch

import qbp
from qbp.comparison.cell import Job, Protocol, run_job, run_jobs
from qbp.comparison.comparing import COLUMNS, Comparison, compare, load_comparison, save_tables
from qbp.comparison.controls import CONTROLS, LAYER_CONTROLS, Sine
from qbp.comparison.estimators import CLASSIFIERS
from qbp.comparison.grid import Cell, Grid, cell_path
from qbp.comparison.twins import MOST_WORDS, TWIN, has_twin, truncation_of, twin_of
from qbp.comparison.verdicts import IncompleteError, judge
from qbp.data import Dataset
from qbp.errors import ArgumentError, ConfigError, MissingPackageError
from qbp.training.options import Training

HYBRID = partial(qbp.hybrid, n_qubits=2, n_layers=1, seed=0)
LINEAR = {"linear": {"name": "linearly_separable", "features": 2, "n_samples": 160, "test_size": 0.5}}


def row(**values: object) -> dict[str, object]:
    empty = {str: "", int: 0, float: 0.5, bool: True}
    return {name: empty[kind] for name, kind in COLUMNS.items()} | values


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "comparison.yaml").write_text("name: small\nseeds: [0, 1]\n")
    for seed in (1, 0):
        own = row(dataset="moons", model="hybrid/frozen", seed=seed, n_train=90, log_loss=None)
        cell = {"row": own, "curve": [{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.6}]}
        path = tmp_path / cell_path("moons", "hybrid/frozen", seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cell))
        np.savez(path.with_suffix(".npz"), y=np.array([0, 1]), predicted=np.array([seed, 1]))
    return tmp_path


def test_a_half_finished_comparison_loads(directory):
    comparison = load_comparison(directory)
    assert comparison.config == {"name": "small", "seeds": [0, 1]} and comparison.verdicts == ()
    assert comparison.column("seed") == [0, 1] and comparison.column("accuracy", seed=1) == [0.5]
    assert [(c["seed"], c["epoch"]) for c in comparison.curves] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert comparison.predictions("moons", "hybrid/frozen", 1)["predicted"].tolist() == [1, 1]
    with pytest.raises(ArgumentError, match="no cell"):
        comparison.predictions("moons", "hybrid", 1)


def test_tables(directory):
    import pandas
    from pyarrow import parquet

    comparison = load_comparison(directory)
    full = Comparison(comparison.rows, ({"verdict": "TIES"},), {"n": 3}, ({"n_needed": 32},), config=comparison.config)
    save_tables(full, directory)
    again = load_comparison(directory)
    assert (again.rows, again.verdicts, again.ranks) == (full.rows, full.verdicts, full.ranks)
    assert again.sample_complexity == full.sample_complexity
    csv = pandas.read_csv(directory / "rows.csv")
    assert list(csv.columns) == list(COLUMNS) and csv["log_loss"].isna().all()
    assert parquet.read_table(directory / "rows.parquet").to_pylist() == list(comparison.rows)


def test_damaged(tmp_path, directory):
    with pytest.raises(ConfigError, match=r"no comparison\.yaml"):
        load_comparison(tmp_path / "nowhere")
    (directory / "verdicts.json").write_text("{")
    with pytest.raises(ConfigError, match="Cannot read"):
        load_comparison(directory)


# ---- a small one, on data from a linear rule -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "linear"
    options = {"seeds": 6, "budget": 1, "training": {"epochs": 15, "lr": 0.05}, "aa": True, "directory": folder}
    return compare({"hybrid": HYBRID}, data=LINEAR, **options), options


def test_all_controls_ran_on_the_same_splits(linear):
    comparison, _ = linear
    roles = {"subject", "identical", TWIN, *CONTROLS, *CLASSIFIERS}
    assert {row["role"] for row in comparison.rows} == roles and len(comparison.rows) == 6 * len(roles)
    splits = {(row["seed"], row["split"]) for row in comparison.rows}
    assert len(splits) == 6 == len({split for _, split in splits})
    assert {row["n_train"] for row in comparison.rows} == {80} and {row["overlap"] for row in comparison.rows} == {0.0}
    assert list(comparison.rows[0]) == list(COLUMNS)


def test_the_classical_twin_is_the_trained_model_without_its_circuit(linear):
    """It is told beside the verdict, and takes no part in it."""
    comparison, _ = linear
    ours, twins = ([row for row in comparison.rows if row["role"] == role] for role in ("subject", TWIN))
    for one, two in zip(ours, twins, strict=True):
        assert two["accuracy"] == one["accuracy"] and two["log_loss"] == pytest.approx(one["log_loss"], abs=1e-5)
        assert (two["truncation"], two["same_labels"]) == (0.0, 1.0)
        assert two["circuits_per_step"] == 0 < one["circuits_per_step"] and one["same_labels"] is None
    told = comparison.verdict("hybrid", control=TWIN)
    assert (told["verdict"], told["difference"]) == ("TIES", 0.0)
    without = judge([row for row in comparison.rows if row["role"] != TWIN], fresh={"linear": True})[0]
    words = {
        (row["control"], row["verdict"], row["p_adjusted"]) for row in comparison.verdicts if row["control"] != TWIN
    }
    assert words == {(row["control"], row["verdict"], row["p_adjusted"]) for row in without}
    for scope in ("circuit", "all"):
        row = comparison.verdict("hybrid", control=scope)
        assert row["decided_by"] != TWIN
        assert "plain torch without quantum code (exact), gives the same label on all 480 rows" in row["sentence"]


def test_what_circuits_take_is_kept(linear):
    comparison, options = linear
    (told,) = comparison.simulability["hybrid"]
    assert [output["qubits"] for output in told["outputs"]] == [1, 2] and told["state"] > 0 and told["words"] > 0
    assert load_comparison(options["directory"]).simulability == comparison.simulability


def test_parameters_match_within_5_percent(linear):
    comparison, _ = linear
    (ours,) = set(comparison.column("n_parameters", role="subject"))
    (matched,) = set(comparison.column("n_parameters", role="matched_parameters"))
    assert matched == pytest.approx(ours, rel=0.05)


def test_nothing_beats_anything_on_data_from_a_linear_rule(linear):
    comparison, _ = linear
    assert "BEATS" not in {row["verdict"] for row in comparison.verdicts}
    assert "cannot show an advantage" in comparison.verdict("hybrid")["sentence"]


def test_identical_models_do_not_beat_each_other(linear):
    comparison, _ = linear
    assert comparison.verdict("hybrid", control="identical")["verdict"] in ("TIES", "INCONCLUSIVE")
    ours, same = (comparison.column("accuracy", role=role) for role in ("subject", "identical"))
    assert ours != same or len(set(ours)) == 1  # other random numbers


def test_it_can_be_read_again_and_every_table_follows_from_the_rows(linear):
    comparison, options = linear
    again = load_comparison(options["directory"])
    assert (again.rows, again.verdicts, again.curves) == (comparison.rows, comparison.verdicts, comparison.curves)
    verdicts, ranks, complexity = judge(again.rows, fresh={"linear": True})
    assert (verdicts, ranks, complexity) == (comparison.verdicts, comparison.ranks, comparison.sample_complexity)
    for row in again.rows:
        kept = again.predictions("linear", row["model"], row["seed"])
        assert np.mean(kept["y"] == kept["predicted"]) == pytest.approx(row["accuracy"])
        confusion = np.array(json.loads(row["confusion"]))
        assert confusion.trace() / confusion.sum() == pytest.approx(row["accuracy"])
    times = json.loads((options["directory"] / "times.json").read_text())["linear"]["hybrid"]
    epochs = {row["role"]: row["epochs"] for row in again.rows if row["epochs"] is not None}
    assert epochs == dict.fromkeys(epochs, 15) | {"matched_time": 15 * times}
    assert len(again.curves) == 6 * sum(epochs.values())


def test_it_goes_on_where_it_was_but_not_with_another(linear):
    comparison, options = linear
    rows, began = comparison.rows, (options["directory"] / "log.jsonl").read_text()
    assert compare({"hybrid": HYBRID}, data=LINEAR, **options).rows == rows
    assert (options["directory"] / "log.jsonl").read_text() == began
    with pytest.raises(ConfigError, match=r"another config \(there / here\): rope"):
        compare({"hybrid": HYBRID}, data=LINEAR, rope=0.02, **options)
    with pytest.raises(ConfigError, match=r"another config \(there / here\): models"):
        compare({"hybrid": partial(HYBRID, n_layers=2)}, data=LINEAR, **options)


@pytest.mark.parametrize("role", [*CONTROLS, *CLASSIFIERS])
def test_without_a_control_it_raises(linear, role):
    rows = [row for row in linear[0].rows if row["role"] != role]
    with pytest.raises(IncompleteError, match=f"without its control.* {role}"):
        judge(rows)


def test_rows_that_do_not_belong_together_raise(linear):
    rows = [dict(row) for row in linear[0].rows]
    with pytest.raises(IncompleteError, match="lacks seeds 3"):
        judge([row for row in rows if (row["role"], row["seed"]) != ("frozen", 3)])
    moved = [row | {"split": "another"} if row["role"] == "removed" else row for row in rows]
    with pytest.raises(IncompleteError, match="different splits"):
        judge(moved)
    wrong = [row | {"accuracy": 0.987} if row["role"] == "subject" else row for row in rows]
    with pytest.raises(ArgumentError, match="no share of 80 rows"):
        judge(wrong)


def test_a_real_advantage_is_called_one(linear):
    """The plant: a subject that is better than everything, on data that no linear model learns."""
    rng = np.random.default_rng(0)
    rows = []
    for row in linear[0].rows:
        right = 78 - rng.integers(2) if row["role"] == "subject" else 60 - rng.integers(4)
        rows.append(row | {"accuracy": right / 80, "converged": True})
    verdicts, _, _ = judge(rows, fresh={"linear": True})
    words = {row["control"]: row["verdict"] for row in verdicts}
    assert words["all"] == words["circuit"] == words["frozen"] == words["svm_rbf"] == "BEATS"
    worse = [row | {"accuracy": 79 / 80} if row["role"] == "svm_rbf" else row for row in rows]
    verdicts, _, _ = judge(worse, fresh={"linear": True})
    words = {row["control"]: row["verdict"] for row in verdicts}
    assert words["circuit"] == "BEATS" and words["all"] != "BEATS"


# ---- cells, learning curves, rows of one's own ---------------------------------------------------------------------


def test_a_cell_tunes_on_the_train_part_alone():
    train, test = qbp.data.load("moons", n_samples=120, noise=0.2, test_size=0.5)
    protocol = Protocol(Training(epochs=3), budget=3, folds=3)
    cell = run_job("logistic_regression", train, test, 1, protocol)
    shuffled = Dataset(test.x, 1 - test.y, test.name)
    other = run_job("logistic_regression", train, shuffled, 1, protocol)
    for key in ("hyperparameters", "cv_score", "n_parameters"):
        assert cell["row"][key] == other["row"][key]  # whatever the test part says
    assert cell["row"]["accuracy"] == pytest.approx(1 - other["row"]["accuracy"])
    tried = json.loads(cell["row"]["tried"])
    assert len(tried) == 3 and cell["row"]["cv_score"] == max(tried)
    assert json.loads(cell["row"]["hyperparameters"])["C"] in (1.0, 10.0, 0.1)


def test_scores_follow_from_the_probabilities():
    train, test = qbp.data.load("iris", test_size=0.5)
    cell = run_job(torch.nn.Linear(4, 3), train, test, 0, Protocol(Training(epochs=10, lr=0.1), budget=2))
    row, arrays = cell["row"], cell["arrays"]
    correct = arrays["probabilities"].argmax(1) == arrays["y"]
    assert row["accuracy"] == correct.mean() and len(cell["curve"]) == 10
    picked = np.clip(arrays["probabilities"][np.arange(75), arrays["y"]], 1e-15, 1)
    assert row["log_loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_a_configuration_that_diverges_is_passed_over(monkeypatch, exact):
    from qbp.training import loop, members

    def row(member, *scores):
        if member.state.training.lr > 0.05:
            raise members.DivergenceError("not finite")
        return whole(member, *scores)

    whole = members.Member.row
    monkeypatch.setattr(members.Member, "row", row)
    assert loop.Member is members.Member
    job = Job(torch.nn.Linear(4, 3), *qbp.data.load("iris", test_size=0.5), 0)
    cells = run_jobs([job] * 2, Protocol(Training(epochs=2, lr=0.06), budget=4), exact)
    assert [json.loads(each["row"]["hyperparameters"])["lr"] for each in cells] == pytest.approx([0.02] * 2)
    with pytest.raises(members.DivergenceError):
        run_jobs([job], Protocol(Training(epochs=2, lr=0.06), budget=2), exact)


def test_a_test_set_of_one_s_own_is_kept_and_compared_row_by_row():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
    data = Dataset(x, (x[:, 0] * x[:, 1] > 0).long(), "mine")
    options = {"seeds": 5, "budget": 1, "training": {"epochs": 1}, "sizes": (20,)}
    mlp = qbp.mlp(2, 6, 2, seed=0)
    comparison = compare({"mlp": mlp}, data.subset(range(40)), data.subset(range(40, 60)), **options)
    assert {row["test"] for row in comparison.verdicts} == {"McNemar's test on rows"}
    assert {row["n"] for row in comparison.verdicts} == {20}  # test rows
    for row in comparison.verdicts:
        if row["control"] not in ("circuit", "all"):
            control = row["control"] if row["control"] in CLASSIFIERS else f"mlp/{row['control']}"
            ours, theirs = (np.mean(comparison.column("accuracy", model=m, n_train=40)) for m in ("mlp", control))
            assert row["difference"] == pytest.approx(ours - theirs)
    assert not set(LAYER_CONTROLS) & {row["role"] for row in comparison.rows}
    assert {row["n_train"] for row in comparison.rows} == {20, 40} and len(set(comparison.column("split"))) == 1
    assert {row["model"] for row in comparison.sample_complexity} == set(comparison.column("model"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": 4}, "5 different ones"),
        ({"seeds": [1, 1, 2, 3, 4]}, "5 different ones"),
        ({"models": {}}, "is empty"),
        ({"models": {"svm_rbf": HYBRID}}, "none a control's"),
        ({"models": {"a/b": HYBRID}}, "must have names"),
        ({"budget": 13}, "1 to 12"),
        ({"metric": "log_loss"}, "must be one of"),
        ({"sizes": (500,)}, "4 to 79 rows"),
        ({"data": None}, "as `train` and `test`, or as `data`"),
        ({"models": {"tiny": lambda n_inputs, n_outputs: torch.nn.Linear(2, 2, bias=False)}}, "no MLP"),
    ],
)
def test_refused_before_anything_is_trained(change, said):
    with pytest.raises(ArgumentError, match=said):
        compare(**({"models": {"hybrid": HYBRID}, "data": LINEAR} | change))


def test_without_statsmodels_it_says_so_before_anything_is_trained(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(MissingPackageError, match=r"qbp\[compare\]"):
        compare({"hybrid": HYBRID}, data=LINEAR)


# ---- classical twins -------------------------------------------------------------------------------------------------


def test_a_twin_with_too_many_words_is_cut_and_says_how_far_it_is_off(monkeypatch):
    monkeypatch.setattr("qbp.comparison.twins.MOST_WORDS", 150)
    model = qbp.hybrid(3, 2, n_qubits=4, n_layers=3, seed=0)
    x = torch.randn(40, 3)
    twin = twin_of(model, x)
    layer = qbp.QuantumLayer
    assert MOST_WORDS > 150 and not any(isinstance(module, layer) for module in twin.modules())
    inside = model[:2](x)
    off = (model[2](inside) - twin[2](inside)).abs().max()
    assert 0 < off <= truncation_of(twin) and twin[2].n_words <= 150
    torch.testing.assert_close(twin[3](twin[2](inside)), twin(x))


def test_a_twin_of_layers_that_follow_each_other_and_are_shared():
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, seed=0)
    model = torch.nn.Sequential(layer, torch.nn.Tanh(), layer, torch.nn.Linear(3, 2))
    x = torch.randn(5, 3)
    twin = twin_of(model, x)
    assert twin[0] is twin[2] and truncation_of(twin) == 0
    torch.testing.assert_close(twin(x), model(x))


def test_models_without_a_twin():
    assert has_twin(qbp.hybrid(3, 2, n_qubits=2, n_layers=1), 3)
    assert not has_twin(torch.nn.Linear(3, 2), 3)
    noisy = qbp.hybrid(3, 2, n_qubits=2, n_layers=1, noise=qbp.NoiseModel.of({"CNOT": {"DepolarizingChannel": 0.1}}))
    assert not has_twin(noisy, 3)


# ---- together ----------------------------------------------------------------------------------------------------


def test_cells_together_are_as_cells_one_by_one():
    """Scores, choices and curves of several seeds, configurations and folds, in float64."""
    parts = [qbp.data.load("moons", n_samples=90, test_size=0.5, seed=seed) for seed in range(3)]
    protocol = Protocol(Training(epochs=4, validation=0.2), budget=8, folds=2)  # of two batch sizes
    hybrid = qbp.hybrid(2, 2, n_qubits=2, n_layers=1, seed=0).double()
    for model in (hybrid, Sine(2, 2, 2).double(), CONTROLS["noise"](hybrid, 2, 2)):
        jobs = [Job(model, *part, seed) for seed, part in enumerate(parts)]
        together, apart = run_jobs(jobs, protocol), run_jobs(jobs, protocol, exact=True)
        assert [each["row"]["together"] for each in apart] == [1, 1, 1]
        assert sum(each["row"]["together"] > 1 for each in together) >= 2
        timed = {"train_seconds", "tune_seconds", "together"}
        for one, other in zip(together, apart, strict=True):
            for key in one["row"].keys() - timed:
                same = one["row"][key], other["row"][key]
                assert same[0] == (pytest.approx(same[1], abs=1e-9) if isinstance(same[1], float) else same[1]), key
            assert [row["loss"] for row in one["curve"]] == pytest.approx([row["loss"] for row in other["curve"]])
            assert np.array_equal(one["arrays"]["predicted"], other["arrays"]["predicted"])


def test_who_trains_with_whom_does_not_depend_on_who_is_there():
    grid = Grid(
        {},
        {},
        Protocol(budget=12, folds=3),
        {"moons": dict.fromkeys(range(10), "")},
        alone=frozenset({("moons", "wide")}),
    )
    cells = [Cell("moons", "hybrid/frozen", seed, None) for seed in range(10)]
    keys = [grid.together(cell) for cell in cells]
    assert [keys.index(key) for key in keys] == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]  # 128 // 36 seeds
    assert keys[0] != grid.together(cells[0]._replace(n_train=10)) != grid.together(cells[0]._replace(model="hybrid"))
    for alone in (cells[0]._replace(model="svm_rbf"), cells[0]._replace(model="wide/frozen")):
        assert grid.together(alone) == alone
    assert Grid({}, {}, Protocol(), {}, exact=True).together(cells[0]) == cells[0]


@pytest.mark.slow
def test_no_verdict_is_another_one_by_one(tmp_path, monkeypatch):
    """The comparison that comes with qbp, shortened."""
    monkeypatch.setattr("qbp.comparison.comparing.times_of", lambda *_: {"moons": {"hybrid": 8}})
    from qbp.runs.config import Compare, load

    chosen = load("moons", ["seeds=6"], kind=Compare)
    options = {
        "data": {key: data.model_dump() for key, data in chosen.data.items()},
        "training": {"epochs": 40},
        "budget": 3,
        "seeds": 6,
        "workers": 2,
    }
    together, exact = (
        qbp.compare({"hybrid": qbp.hybrid}, exact=exact, directory=tmp_path / str(exact), **options)
        for exact in (False, True)
    )
    assert set(exact.column("together")) == {1} and max(together.column("together")) == 6
    words = [{(row["subject"], row["control"]): row["verdict"] for row in f.verdicts} for f in (together, exact)]
    assert words[0] == words[1]
    assert np.abs(np.subtract(together.column("accuracy"), exact.column("accuracy"))).max() <= 0.01

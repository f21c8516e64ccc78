"""Sweeps: by validation alone, the same on any workers and after a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qbp
from qbp.cli import main
from qbp.errors import ArgumentError, ConfigError, MissingPackageError
from qbp.runs import config as configs
from qbp.runs import run as runs
from qbp.runs.search.space import labels_of, number_of
from qbp.runs.search.sweeping import pareto_of

ROOT = Path(__file__).parents[2]
SWEEP = """
data: {name: moons, n_samples: 120, noise: 0.2}
model: {kind: mlp, hidden: [4]}
train: {epochs: 12, validation: 0.3}
sweep:
  search:
    train.lr: {low: 0.0001, high: 0.3, log: true}
    model.hidden: [[2], [8]]
    train.batch_size: {low: 8, high: 32, step: 8}
  trials: 16
  warmup_epochs: 3
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "moons.yaml"
    path.write_text(SWEEP)
    return path


def table(directory: Path) -> list[dict[str, str]]:
    """The rows of a sweep, but for the seconds that they took."""
    with open(directory / "trials.csv", newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


# ---- what needs no Optuna ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.search.train.lr=[]", "`sweep.search.train.lr` must have different choices"),
        ("sweep.search.train.lr=[1, 1]", "`sweep.search.train.lr` must have different choices"),
        ("sweep.search.train.lr={low: 1, high: 0.1}", "must have a `low` below `high`"),
        ("sweep.search.train.lr={low: 0, high: 1, log: true}", "above 0, with `log`"),
        ("sweep.search.train.lr={low: 1}", "must be a list of choices, or have `low` and `high`"),
        ("sweep.search.train.lr={low: 1, high: x}", "must have numbers as `low`, `high` and `step`"),
        ("sweep.search.train.epochs={low: 1, high: 9, step: .inf}", "must have numbers as `low`, `high` and `step`"),
        ("sweep.search.train.lr={low: 1, high: 9, log: true, step: 2}", "true only without a `step`"),
        ("sweep.sampler=tpee", "did you mean `tpe`"),
        ("sweep.trails=3", "did you mean `trials`"),
        ("sweep.seeds=0", "must be how many seeds"),
    ],
)
def test_what_is_no_search_is_told_with_its_line(config: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load(config, [override])


def test_overrides_are_searched_too(config: Path) -> None:
    sweep = configs.load(config, ["sweep.search.train.lr=[0.1, 0.2]", "sweep.search.seed={low: 0, high: 1e3}"]).sweep
    assert sweep is not None and sweep.search["train.lr"] == (0.1, 0.2)
    assert sweep.search["seed"] == {"low": 0.0, "high": 1000.0, "log": False}
    assert sweep.search["train.batch_size"] == {"low": 8, "high": 32, "step": 8, "log": False}


def test_backends_that_are_searched_need_trust(config: Path) -> None:
    override = "model={kind: hybrid, n_qubits: 2}"
    text = config.read_text().replace("model.hidden: [[2], [8]]", 'model.backend: [auto, "os:system"]')
    config.write_text(text)
    with pytest.raises(ConfigError, match="trust"):
        configs.load(config, [override])
    configs.load(config, [override], trust=True)


def test_a_sweep_is_no_run(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use `qbp sweep`"):
        runs.train(configs.load(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_optuna_the_error_says_what_helps(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'qbp\[search\]'"):
        qbp.sweep(config, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_labels_are_one_for_each_choice() -> None:
    choices = ("1", 1, 1.0, True, None, [8], {"kind": "mlp"})
    assert len(set(labels_of(choices))) == len(choices)
    assert [number_of(choices, json.loads(json.dumps(choice))) for choice in choices] == list(range(len(choices)))


def test_pareto_is_what_comparing_all_pairs_says(rng: Any) -> None:
    for mode, sign in (("max", 1), ("min", -1)):
        rows = [
            {"number": k, "state": "complete", "score": float(rng.integers(6)), "gates": int(rng.integers(5))}
            for k in range(40)
        ]
        front = pareto_of(rows, "gates", mode)
        better = [
            any(
                sign * (o["score"] - r["score"]) >= 0
                and o["gates"] <= r["gates"]
                and (o["score"], o["gates"]) != (r["score"], r["gates"])
                for o in rows
            )
            for r in rows
        ]
        undominated = {(r["gates"], r["score"]) for r, is_worse in zip(rows, better, strict=True) if not is_worse}
        assert [(rows[k]["gates"], rows[k]["score"]) for k in front] == sorted(undominated)


# ---- with Optuna ---------------------------------------------------------------------------------------------------


@pytest.fixture
def optuna() -> Any:
    return pytest.importorskip("optuna")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.search.train.lrr=[1]", "`sweep.search.train.lrr` cannot be tried.*did you mean `lr`"),
        ("sweep.search.train.lr=[1, -1]", "must be greater than 0"),
        ("sweep.search.seed=[1, 2]", "must have the same rows"),
        ("sweep.search.data.n_samples=[50, 60]", "must have the same rows"),
        ("sweep.search.model=[{kind: mlp}]", "overlap"),
        ("train.validation=null", "`train.validation`"),
        ("sweep.metric=val_r2", "must be one of val_loss, val_accuracy"),
        ("prune={}", "a sweep trains only"),
        ("data.name=none.csv", "none.csv"),
    ],
)
def test_what_cannot_be_searched_claims_no_directory(
    optuna: Any, config: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises((ConfigError, ArgumentError), match=message):
        qbp.sweep(configs.load(config, [override]), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_sweep_from_config_to_page(
    optuna: Any, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", str(config), "-q", "--workers", "1", "--set", "sweep.metric=val_loss"]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr().out
    assert not stopped.value.code and "was chosen by val_loss; on the test part, which it met once" in said
    folder = tmp_path / "runs" / "moons"
    rows = table(folder)
    states = Counter(row["state"] for row in rows)
    assert len(rows) == 16 and states["pruned"] >= 2 and states["complete"] >= 6
    assert all(int(row["epochs"]) == 12 for row in rows if row["state"] == "complete")
    assert all(3 < int(row["epochs"]) < 12 for row in rows if row["state"] == "pruned")
    best = min((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["score"]))
    result = json.loads((folder / "result.json").read_text())
    assert float(rows[result["best"]]["score"]) == float(best["score"])
    # The chosen config is a run as any other: its last epoch has the score of the trial, bit by bit.
    run = (
        runs.read_config(folder / "best") if hasattr(runs, "read_config") else configs.load(folder / "best/config.yaml")
    )
    history = qbp.History.from_jsonl(folder / "best" / "metrics.jsonl")
    assert history.last["val_loss"] == float(best["score"]) and run.sweep is None
    assert runs.evaluate(folder / "best")["accuracy"] == result["test"]["accuracy"]
    # Optuna reads the journal.
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    study = optuna.load_study(study_name="moons", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 16 and study.best_value == float(best["score"])
    shares = result["importance"]
    assert set(shares) == {"train.lr", "model.hidden", "train.batch_size"} and sum(shares.values()) == pytest.approx(1)
    with pytest.raises(SystemExit):
        main(["report", str(folder)])
    page = (folder / "report.html").read_text()
    assert "All trials, best first" in page and "What explains validation loss" in page and "pruned" in page
    # Again it trains nothing.
    before = (folder / "log.jsonl").read_text()
    with pytest.raises(SystemExit):
        main(arguments)
    assert (folder / "log.jsonl").read_text() == before
    with pytest.raises(ConfigError, match=r"another config .*sweep.trials: 16 / 3"):
        qbp.sweep(configs.load(config, ["sweep.metric=val_loss", "sweep.trials=3"]), folder)


@pytest.mark.slow
def test_trials_never_see_the_test_part(
    optuna: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = qbp.sweep(config, tmp_path / "true", trials=6)
    load_data = runs.load_data

    def spoiled(*arguments: Any, **options: Any) -> Any:
        train, test = load_data(*arguments, **options)
        return train, replace(test, y=1 - test.y, x=test.x[torch.randperm(len(test))])

    evaluations: list[int] = []
    evaluate = runs.evaluate_model
    monkeypatch.setattr(runs, "load_data", spoiled)
    monkeypatch.setattr("qbp.runs.search.trial.load_data", spoiled)
    monkeypatch.setattr(runs, "evaluate_model", lambda *a, **o: evaluations.append(1) or evaluate(*a, **o))
    other = qbp.sweep(config, tmp_path / "spoiled", trials=6)
    assert table(tmp_path / "true") == table(tmp_path / "spoiled") and result.best["number"] == other.best["number"]
    assert result.test["accuracy"] != other.test["accuracy"] and len(evaluations) == 1


@pytest.mark.slow
def test_seeds_failures_and_metrics(optuna: Any, config: Path, tmp_path: Path) -> None:
    search = {"train.lr": [0.02, 1e38], "train.optimizer": ["sgd", "adam"]}
    options = {"search": search, "trials": 6, "seeds": 3, "metric": "val_loss", "pruner": None, "sampler": "random"}
    result = qbp.sweep(config, tmp_path / "sweep", **options)
    failed = [row for row in result.rows if row["state"] == "failed"]
    assert failed and all(row["values"]["train.lr"] == 1e38 and "not finite" in row["error"] for row in failed)
    assert result.mode == "min" and result.best["score"] == min(
        r["score"] for r in result.rows if r["state"] == "complete"
    )
    # By hand, what the best trial is.
    chosen = configs.changed(configs.load(config), result.best["values"])
    train, _ = runs.load_data(chosen)
    ends = []
    for seed in range(3):
        model = qbp.mlp(2, 4, 2, seed=seed)
        ends.append(qbp.fit(model, train, chosen.train, seed=seed).last["val_loss"])
    assert result.best["score"] == pytest.approx(sum(ends) / 3, rel=1e-12)
    with pytest.raises(ArgumentError, match="No trial could be trained"):
        qbp.sweep(config, tmp_path / "none", search={"train.lr": [1e38, 2e38]}, trials=4)


@pytest.mark.slow
def test_a_searched_model_may_be_of_another_kind(optuna: Any, config: Path, tmp_path: Path) -> None:
    models = [{"kind": "mlp", "hidden": [3]}, {"kind": "hybrid", "n_qubits": 2, "n_layers": 1}]
    search = {"model": models, "train.lr": {"low": 0.01, "high": 0.1, "log": True}}
    result = qbp.sweep(config, tmp_path / "sweep", search=search, trials=6, pruner=None)
    gates = {row["values"]["model"]["kind"]: row["two_qubit_gates"] for row in result.rows}
    assert gates == {"mlp": 0, "hybrid": 2}
    assert qbp.predict(tmp_path / "sweep" / "best", [[0.1, 0.2]]).shape == (1,)


@pytest.mark.slow
def test_processes_and_kills_come_to_the_same(optuna: Any, config: Path, tmp_path: Path) -> None:
    qbp.sweep(config, tmp_path / "whole")
    command = [sys.executable, "-m", "qbp", "sweep", str(config), "-q", "--runs-dir", str(tmp_path / "killed")]
    command += ["--workers", "2", "--name", "moons"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    folder = tmp_path / "killed" / "moons"
    for goal in (2, 9):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob("trials/*.json"))) < goal:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(2)  # its workers notice
    done = {path.name for path in folder.glob("trials/*.json")}
    seen = len((folder / "log.jsonl").read_text().splitlines())
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()[seen:]]
    assert not {Path(event["cell"]).name for event in events} & done
    assert table(folder) == table(tmp_path / "whole")
    one, two = (json.loads((path / "result.json").read_text()) for path in (folder, tmp_path / "whole"))
    assert {key: one[key] for key in one if key not in ("name", "test")} == {
        key: two[key] for key in two if key not in ("name", "test")
    }
    assert one["test"]["loss"] == two["test"]["loss"]


@pytest.mark.slow
def test_the_written_config_runs(
    optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["init", "sweep"], ["sweep", "sweep.yaml", "-q", "--workers", "1"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert not stopped.value.code
    assert "What mattered" in capsys.readouterr().out

"""Trackers get every epoch once; what fails in them fails nothing else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import qbp
from qbp.errors import ArgumentError, ConfigError, MissingPackageError
from qbp.runs import config as configs
from qbp.runs import run as runs
from qbp.training import tracking
from qbp.training.tracking import Tracking

QUICK = ["train.epochs=4"]


class Broken:
    """Fails after two rows."""

    def __init__(self, *arguments: Any) -> None:
        self.rows: list[int] = []

    def log(self, values: Any, step: int) -> None:
        self.rows.append(step)
        if len(self.rows) > 2:
            raise OSError("no answer from https://me:secret@host/x")

    def close(self, is_finished: bool) -> None:
        raise AssertionError("it was left alone")


def test_a_tracker_that_fails_warns_once_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Broken)
    monkeypatch.setattr(tracking, "need", lambda name: None)
    chosen = configs.load("xor", [*QUICK, "tracking=tensorboard"])
    with pytest.warns(UserWarning, match="tensorboard does not track this run any more") as said:
        tracked = runs.train(chosen, tmp_path / "tracked")
    ours = [str(each.message) for each in said if "track" in str(each.message)]
    assert len(ours) == len(tracked["models"]) and not any("secret" in each for each in ours)
    plain = runs.train(configs.load("xor", QUICK), tmp_path / "plain")
    for name, scores in plain["models"].items():
        assert {**tracked["models"][name], "seconds": 0} == {**scores, "seconds": 0}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_told_before_anything_is_trained(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'qbp\[tracking\]'"):
        runs.train(configs.load("xor", [*QUICK, f"tracking={name}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"must be one of tensorboard, mlflow.*did you mean `mlflow`"):
        configs.load("xor", ["tracking=mlflo"])
    with pytest.raises(ArgumentError, match="names"):
        Tracking([], "runs/x")
    assert configs.load("xor", ["tracking=null"]).tracking == ()


@pytest.mark.slow
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = configs.load("xor", [*QUICK, "tracking=tensorboard"])
    runs.train(chosen, tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "run" / "twin"):
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        seen = [(event.step, event.value) for event in events.Scalars("loss")]
        assert [step for step, _ in seen] == [1, 2, 3, 4]
        assert [value for _, value in seen] == pytest.approx([row["loss"] for row in rows], rel=1e-6)
        assert len(events.Scalars("test_accuracy")) == 1


@pytest.mark.slow
def test_mlflow_reads_what_was_written_also_of_a_run_that_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    from mlflow import MlflowClient

    train, _ = qbp.data.load("moons", n_samples=60, seed=0)
    for epochs in (2, 5):  # the second goes on with the first
        watch = Tracking("mlflow", tmp_path / "runs" / "moons", params={"train.lr": 0.1})
        model = qbp.mlp(2, 4, 2, seed=0)
        options: dict[str, Any] = {"run_dir": tmp_path / "runs" / "moons", "resume": epochs == 5, "epochs": epochs}
        history = qbp.fit(model, train, callbacks=[watch], **options)
        watch.finish({"test_accuracy": 0.5}, step=epochs)
    assert "MLFLOW_DISABLE_TELEMETRY" not in os.environ
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("qbp").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "moons" and run.data.params == {"train.lr": "0.1"}
    seen = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in seen] == list(enumerate(history.column("loss"), 1))


@pytest.mark.slow
def test_a_server_that_is_not_there_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.warns(UserWarning, match="mlflow does not track this run any more") as said:
        result = runs.train(configs.load("xor", [*QUICK, "tracking=mlflow", "twin=false"]), tmp_path / "run")
    assert result["models"]["hybrid"]["epochs"] == 4
    assert not any("secret" in str(each.message) for each in said)

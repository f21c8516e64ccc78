"""The same on a Ray cluster of two machines as in processes, also when one of them is lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qbp
from qbp.comparison import comparing
from qbp.comparison.cells import sweep as run_cells
from qbp.errors import ArgumentError
from qbp.runs import config as configs
from qbp.runs.seeds import train_seeds
from qbp.workers import pool

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines with one processor each, as far as Ray can tell, and a head without any."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        ray_cluster.add_node(num_cpus=1)
    yield ray_cluster
    ray.shutdown()
    ray_cluster.shutdown()


def lose(cluster: Any, number: int = 1) -> None:
    """End a machine as if its plug was pulled: its raylet is killed, and Ray ends what depends on it."""
    node = list(cluster.worker_nodes)[number - 1]
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


def when(condition: Callable[[], bool], then: Callable[[], object]) -> threading.Thread:
    """Do something, once, as soon as a condition holds."""

    def wait() -> None:
        end = time.monotonic() + 300
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def slowly(folder: str, k: int) -> dict[str, Any]:
    Path(folder, f"{k}-{os.getpid()}").touch()
    time.sleep(1.0)
    return {"square": k * k, "threads": torch.get_num_threads(), "arrays": {"y": np.arange(k)}}


def ending(folder: str, k: int) -> int:
    Path(folder, f"{k}-{os.getpid()}").touch()
    os._exit(1)


def failing(k: int) -> int:
    raise KeyError("one")


def test_a_machine_that_is_lost_costs_its_cell_only(cluster: Any, tmp_path: Path) -> None:
    began, kept = tmp_path / "began", tmp_path / "kept"
    began.mkdir()
    run = partial(slowly, str(began))
    cells = {Path("cells", f"{k}.json"): k for k in range(10)}
    loss = when(lambda: len(list(kept.glob("cells/*.json"))) >= 3, lambda: lose(cluster))
    done = run_cells(cells, run, kept, executor=f"ray:{cluster.address}")
    loss.join()
    assert done == [{"square": k * k, "threads": 1} for k in range(10)]
    assert np.load(kept / "cells" / "9.npz")["y"].tolist() == list(range(9))
    runs = [path.name.split("-")[0] for path in began.iterdir()]
    assert set(runs) == set(map(str, range(10))) and 10 <= len(runs) <= 12  # it had one, and one prefetched at most
    assert len({path.name.split("-")[1] for path in began.iterdir()}) >= 2  # both machines worked
    assert run_cells(cells, run, kept, executor=f"ray:{cluster.address}") == done  # nothing runs again
    assert len(list(began.iterdir())) == len(runs)


def test_errors_are_as_of_processes(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="one"), pool(failing, f"ray:{cluster.address}") as each:
        dict(each([1, 2]))
    assert not ray.is_initialized()
    with (
        pytest.raises(ArgumentError, match="ended by themselves 3 times"),
        pool(partial(ending, str(tmp_path)), f"ray:{cluster.address}") as each,
    ):
        dict(each([1]))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    began = time.monotonic()
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "nonsense"):
        with (
            pytest.raises(ArgumentError, match="Argument `executor` must name a Ray cluster"),
            pool(abs, f"ray:{address}"),
        ):
            pass
    assert time.monotonic() - began < 60


TIMED = ("train_seconds", "tune_seconds")


def rows_of(comparison: qbp.Comparison) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMED} for row in comparison.rows]


def test_the_same_comparison(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two processes, on two machines, and on two of which one is lost in the middle."""
    monkeypatch.setattr(comparing, "times_of", lambda *_: {"moons": {"hybrid": 2}})  # not what a clock says
    models = {"hybrid": partial(qbp.hybrid, n_qubits=2, n_layers=1)}
    options: dict[str, Any] = {"seeds": 5, "budget": 1, "training": qbp.Training(epochs=2)}
    options["data"] = {"moons": {"name": "moons", "n_samples": 60}}
    one = qbp.compare(models, directory=tmp_path / "processes", workers=2, **options)
    two = qbp.compare(models, directory=tmp_path / "ray", executor=f"ray:{cluster.address}", **options)

    def count() -> int:
        return len(list((tmp_path / "lost").rglob("cells/*/*/*.json")))

    left: list[int] = []
    loss = when(lambda: count() >= 10, lambda: left.append(count()) or lose(cluster))
    three = qbp.compare(models, directory=tmp_path / "lost", executor=f"ray:{cluster.address}", **options)
    loss.join()
    assert left[0] < len(one.rows) == 5 * len({row["model"] for row in one.rows}) > 50
    for other in (two, three):
        assert rows_of(other) == rows_of(one) and other.verdicts == one.verdicts
        for row in one.rows:
            pair = [comparison.predictions("moons", row["model"], row["seed"]) for comparison in (one, other)]
            assert all(np.array_equal(pair[0][key], pair[1][key]) for key in pair[0])


def test_the_same_sweep(cluster: Any, tmp_path: Path) -> None:
    """By one process, by two, on two machines, and on two of which one is lost in the middle."""
    pytest.importorskip("optuna")
    config = configs.load("digits", ["train.epochs=8", "data.n_samples=200", "model.n_qubits=2"])
    search = {
        "train.lr": {"low": 0.0001, "high": 0.3, "log": True},
        "model.n_layers": {"low": 1, "high": 2},
        "train.optimizer": ["sgd", "adam"],
    }
    options: dict[str, Any] = {"search": search, "trials": 16, "warmup_epochs": 2, "metric": "val_loss"}

    def table(name: str) -> list[dict[str, str]]:
        with open(tmp_path / name / "trials.csv", newline="", encoding="utf-8") as file:
            return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]

    qbp.sweep(config, tmp_path / "one", **options)
    qbp.sweep(config, tmp_path / "two", workers=2, **options)
    qbp.sweep(config, tmp_path / "ray", executor=f"ray:{cluster.address}", **options)
    loss = when(lambda: len(list((tmp_path / "lost").glob("trials/*.json"))) >= 6, lambda: lose(cluster))
    qbp.sweep(config, tmp_path / "lost", executor=f"ray:{cluster.address}", **options)
    loss.join()
    assert table("one") == table("two") == table("ray") == table("lost")
    assert "pruned" in {row["state"] for row in table("one")}
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two", "ray", "lost")]
    assert all(
        {**each, "test": each["test"]["loss"]} == {**results[0], "test": results[0]["test"]["loss"]} for each in results
    )


def test_the_same_seeds(cluster: Any, tmp_path: Path) -> None:
    config = configs.load("xor", ["train.epochs=5"])
    here = train_seeds(config, tmp_path / "here", 3)
    there = train_seeds(config, tmp_path / "there", 3, executor=f"ray:{cluster.address}")
    for name, scores in here["models"].items():
        assert {**scores, "seconds": None} == {**there["models"][name], "seconds": None}
    for k in range(3):
        pair = [tmp_path / name / f"seed-{k}" / "checkpoint.safetensors" for name in ("here", "there")]
        assert pair[0].read_bytes() == pair[1].read_bytes()

"""Runs on disk: what a directory holds, and that a kill at any moment changes nothing but the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from qbp.errors import ArgumentError, ConfigError
from qbp.nn.models import n_parameters
from qbp.report.plots.run import draw_run
from qbp.runs import config as configs
from qbp.runs import run as runs
from qbp.runs.folder import run_folder
from qbp.storage.container import load_state
from qbp.storage.provenance import versions
from qbp.training.checkpoint import History

HYBRID = """\
data: {name: iris, classes: [0, 2]}
model: {kind: hybrid, n_qubits: 2, n_layers: 1}
train: {epochs: 2, lr: 0.05, batch_size: 16, validation: 0.25}
"""
MLP = "data: {name: moons, n_samples: 60}\nmodel: {kind: mlp, hidden: [4]}\ntrain: {epochs: 2, lr: 0.05}\n"
REGRESSION = "data: {name: diabetes, features: 4}\nmodel: {kind: mlp}\ntrain: {epochs: 3}\n"


def config_of(text: str, folder: Path, *overrides: str) -> configs.Config:
    path = folder / "config-under-test.yaml"
    path.write_text(text)
    return configs.load(path, ["name=small", *overrides])


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def bits(folder: Path) -> dict[str, Any]:
    """Whatever of a run must not depend on when it was killed."""
    state = load_state(folder / "checkpoint.safetensors")
    rows = [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in History.from_jsonl(folder / "metrics.jsonl").rows
    ]
    return {"rows": rows, "model": {key: tensor.tolist() for key, tensor in state["model"].items()}}


def test_a_hybrid_run_holds_what_it_should(tmp_path: Path) -> None:
    config = config_of(HYBRID, tmp_path)
    result = runs.train(config, tmp_path / "runs" / "small")
    folder = tmp_path / "runs" / "small"
    assert not [name for name in files(folder) if name.endswith(".png")]
    draw_run(folder)
    of_each = {"metrics.jsonl", "checkpoint.safetensors", "confusion.png"}
    assert files(folder) == of_each | {f"twin/{name}" for name in of_each} | {
        "config.yaml",
        "versions.json",
        "result.json",
        "training.png",
    }
    assert configs.load(folder / "config.yaml") == config
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["data"] == {"name": "iris", "train": 75, "test": 25}
    assert list(result["models"]) == ["hybrid", "twin"]
    hybrid, twin = result["models"]["hybrid"], result["models"]["twin"]
    assert hybrid["parameters"] == 4 * 2 + 2 + 6 + 2 * 2 + 2
    assert abs(twin["parameters"] - hybrid["parameters"]) <= 0.05 * hybrid["parameters"]
    for score in (hybrid, twin):
        assert score["epochs"] == 2
        assert score["seconds"] > 0
        confusion = torch.tensor(score["confusion"])
        assert confusion.sum() == 25
        assert score["accuracy"] == pytest.approx(confusion.trace().item() / 25)
    assert bits(folder)["model"].keys() != bits(folder / "twin")["model"].keys()


def test_versions_name_what_a_result_depends_on(tmp_path: Path) -> None:
    runs.train(config_of(MLP, tmp_path), tmp_path / "small")
    versions = json.loads((tmp_path / "small" / "versions.json").read_text())
    assert versions["torch"] == torch.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"qbp", "numpy", "pennylane", "qiskit", "numba", "platform", "processor", "processors", "commit"} <= set(
        versions
    )


def test_the_commit_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert versions()["commit"] is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert versions()["commit"] == head
    (tmp_path / "file").write_text("2")
    assert versions()["commit"] == f"{head}-dirty"


def test_the_same_config_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    torch.manual_seed(1)
    runs.train(config_of(HYBRID, tmp_path), tmp_path / "one")
    torch.manual_seed(2)  # the config's seed is the only one that counts
    runs.train(config_of(HYBRID, tmp_path), tmp_path / "two")
    runs.train(config_of(HYBRID, tmp_path, "seed=1"), tmp_path / "three")
    for part in ("", "twin"):
        assert bits(tmp_path / "one" / part) == bits(tmp_path / "two" / part)
        assert bits(tmp_path / "one" / part) != bits(tmp_path / "three" / part)


def test_a_run_uses_the_threads_of_its_config_and_puts_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    fit, before = runs.fit, torch.get_num_threads()
    monkeypatch.setattr(runs, "fit", lambda *a, **k: (used.append(torch.get_num_threads()), fit(*a, **k))[1])
    runs.train(config_of(MLP, tmp_path, "threads=2"), tmp_path / "two")
    runs.train(config_of(MLP, tmp_path), tmp_path / "one")
    assert used == [2, 1]
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError), runs.threads(before + 1):
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_a_directory_that_is_taken_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    config = config_of(MLP, tmp_path)
    runs.train(config, tmp_path / "small")
    before = {name: (tmp_path / "small" / name).read_bytes() for name in files(tmp_path / "small")}
    with pytest.raises(ConfigError, match=r"already there: go on with it \(`--resume`\), or .* name \(`--name`\)"):
        runs.train(config, tmp_path / "small")
    with pytest.raises(ConfigError, match=r"another config \(there / here\): train.lr: 0.05 / 0.1"):
        runs.train(config_of(MLP, tmp_path, "train.lr=0.1"), tmp_path / "small", resume=True)
    assert before == {name: (tmp_path / "small" / name).read_bytes() for name in files(tmp_path / "small")}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"already there|is no run to resume: it has thesis\.tex"):
            runs.train(config, tmp_path / "other", resume=resume)
    assert files(tmp_path / "other") == {"thesis.tex"}


def test_a_finished_run_resumes_to_its_result_without_training(tmp_path: Path) -> None:
    config = config_of(MLP, tmp_path)
    first = runs.train(config, tmp_path / "small")
    checkpoint = (tmp_path / "small" / "checkpoint.safetensors").stat().st_mtime_ns
    assert runs.train(config, tmp_path / "small", resume=True) == first
    assert (tmp_path / "small" / "checkpoint.safetensors").stat().st_mtime_ns == checkpoint


# One process that trains once, so that everything is imported and compiled, and then forks: for each moment at which
# the disk changes, a child is killed there and another one resumes.
KILLER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from qbp.runs import config as configs, run as runs

config, folder = configs.load(sys.argv[1], ["name=small"]), Path(sys.argv[2])
runs.train(config, folder / "whole")

def child(work):
    if (pid := os.fork()) == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def killed_at(moment, where):
    passed = 0
    def watched(function):
        def call(*args, **kwargs):
            nonlocal passed
            passed += 1
            if passed == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    os.replace, os.mkdir = map(watched, (os.replace, os.mkdir))
    runs.train(config, where)

for moment in range(1, 1000):
    where = folder / f"killed-{moment}"
    code = child(lambda: killed_at(moment, where))
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
    assert child(lambda: runs.train(config, where, resume=True)) == 0, moment
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path: Path) -> None:
    config_of(HYBRID, tmp_path)
    arguments = [str(tmp_path / "config-under-test.yaml"), str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    whole, *killed = sorted((tmp_path / "runs").iterdir(), reverse=True)
    assert len(killed) > 12
    for folder in killed:
        assert files(folder) == files(whole), folder
        for part in ("", "twin"):
            assert bits(folder / part) == bits(whole / part), folder
        for model, score in run_folder(whole).result()["models"].items():
            resumed = run_folder(folder).result()["models"][model]
            assert {**resumed, "seconds": 0} == {**score, "seconds": 0}, folder


def test_evaluate_gives_the_numbers_of_the_result(tmp_path: Path) -> None:
    result = runs.train(config_of(HYBRID, tmp_path), tmp_path / "small")
    recorded = result["models"]["hybrid"]
    again = runs.evaluate(tmp_path / "small")
    assert (again["model"], again["epoch"]) == ("hybrid", 2)
    assert {key: again[key] for key in ("accuracy", "loss", "confusion")} == {
        key: recorded[key] for key in ("accuracy", "loss", "confusion")
    }
    elsewhere = runs.evaluate(tmp_path / "small", backend="default.qubit")
    assert elsewhere["loss"] == pytest.approx(recorded["loss"], abs=1e-6)
    sampled = runs.evaluate(tmp_path / "small", backend="default.qubit", shots=20)
    assert sampled["loss"] != pytest.approx(recorded["loss"], abs=1e-6)
    assert sampled["loss"] == pytest.approx(recorded["loss"], abs=0.2)


def test_evaluate_takes_the_best_weights_where_early_stopping_did(tmp_path: Path) -> None:
    config = config_of(MLP, tmp_path, "train.early_stopping=2", "train.epochs=60", "train.lr=1", "train.validation=0.3")
    result = runs.train(config, tmp_path / "small")
    again = runs.evaluate(tmp_path / "small")
    assert again["epoch"] == result["models"]["mlp"]["epochs"] - 2 < 58
    assert again["loss"] == result["models"]["mlp"]["loss"]


def test_evaluate_refuses_what_is_no_run_or_has_no_circuit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no run of `qbp train`: it has no config\.yaml"):
        runs.evaluate(tmp_path)
    runs.train(config_of(MLP, tmp_path), tmp_path / "small")
    with pytest.raises(ConfigError, match="has no circuit: it takes neither a backend nor shots"):
        runs.evaluate(tmp_path / "small", shots=10)
    (tmp_path / "small" / "checkpoint.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"Cannot read checkpoint .*checkpoint\.safetensors"):
        runs.evaluate(tmp_path / "small")


def test_a_regression_run(tmp_path: Path) -> None:
    result = runs.train(config_of(REGRESSION, tmp_path), tmp_path / "small")
    draw_run(tmp_path / "small")
    assert {"r2", "mae", "loss"} <= set(result["models"]["mlp"])
    assert "confusion.png" not in files(tmp_path / "small") and "training.png" in files(tmp_path / "small")
    assert runs.verdict(result) is None


def test_one_output_for_two_classes(tmp_path: Path) -> None:
    config = config_of(MLP, tmp_path, "train.loss=bce")
    train, _ = runs.load_data(config)
    assert n_parameters(runs.build(config, train)["mlp"]) == 4 * 3 + 5
    assert runs.train(config, tmp_path / "small")["models"]["mlp"]["accuracy"] > 0.3


def test_no_twin_where_none_is_wanted_and_an_error_where_none_fits(tmp_path: Path) -> None:
    config = config_of(HYBRID, tmp_path, "twin=false")
    train, _ = runs.load_data(config)
    assert list(runs.build(config, train)) == ["hybrid"]
    with pytest.raises(ArgumentError, match="no MLP"):
        runs.build(config_of(HYBRID, tmp_path, "data.features=1", "model.circuit=xor_2q", "model.n_qubits=1"), train)


def scores(metric: str, hybrid: float, twin: float) -> dict[str, Any]:
    return {"data": {"test": 250}, "models": {"hybrid": {metric: hybrid}, "twin": {metric: twin}}}


@pytest.mark.parametrize(
    ("result", "start"),
    [
        (
            scores("accuracy", 0.98, 0.98),
            "The classical twin is as good or better: in this run the quantum layer does not",
        ),
        (
            scores("accuracy", 0.97, 0.98),
            "The classical twin is as good or better: in this run the quantum layer does not",
        ),
        (
            scores("accuracy", 0.984, 0.98),
            "The hybrid model has 1 of 250 test rows more right than its classical twin.",
        ),
        (scores("r2", 0.5, 0.4), "The hybrid model has a larger r2 (0.500 against 0.400) than its classical twin."),
        (scores("r2", 0.4, 0.5), "The classical twin is as good or better"),
    ],
)
def test_the_verdict_says_which_is_better_and_never_that_it_is_proof(result: dict[str, Any], start: str) -> None:
    said = runs.verdict(result)
    assert said is not None
    assert said.startswith(start)
    assert "seed" in said

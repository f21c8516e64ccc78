"""Train, prune, distil as one run: what it leaves, and that a kill changes nothing but the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qbp
from qbp.errors import ArgumentError, ConfigError
from qbp.nn.resources import size
from qbp.runs import config as configs
from qbp.runs import run as runs
from qbp.runs import stages as pipeline
from qbp.runs.folder import run_folder
from qbp.runs.stages import MODEL

SMALL = """\
data: {name: iris}
model: {kind: hybrid, n_qubits: 3, n_layers: 2}
train: {epochs: 2, lr: 0.05}
prune: {amount: 0.4, what: gates, schedule: iterative, steps: 2, finetune: {epochs: 1, lr: 0.02}}
distill:
  student: {kind: hybrid, n_qubits: 2, n_layers: 1}
  temperature: 2.0
  train: {epochs: 3, lr: 0.05}
"""
STAGES = ["1-train", "2-prune", "3-distill", "3-scratch"]


def config_of(folder: Path, *overrides: str, text: str = SMALL) -> configs.Config:
    path = folder / "config-under-test.yaml"
    path.write_text(text)
    return configs.load(path, ["name=small", *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.run(config_of(folder), folder / "run")
    return folder / "run"


def test_every_stage_leaves_its_model_and_is_measured(finished: Path) -> None:
    result = run_folder(finished).result()
    _, test = runs.load_data(configs.load(finished / "config.yaml"))
    assert list(result["stages"]) == STAGES
    for name, scores in result["stages"].items():
        model = qbp.load_model(finished / name / MODEL)
        assert json.loads((finished / name / "result.json").read_text()) == scores
        assert scores == {**scores, **size(model), **qbp.evaluate(model, test)}
    trained, pruned, distilled, scratch = result["stages"].values()
    for what in ("parameters", "rotations", "two_qubit_gates", "circuits"):
        assert distilled[what] < pruned[what] < trained[what] and distilled[what] == scratch[what]
    gone = trained["rotations"] - pruned["rotations"]  # two circuits each, and those of angles that now move together
    assert 0 < gone <= (trained["circuits"] - pruned["circuits"]) / 2
    assert distilled["loss"] != scratch["loss"]


def test_stages_are_those_of_the_functions(finished: Path) -> None:
    """The same by hand, from the functions of the library."""
    config = configs.load(finished / "config.yaml")
    train, _ = runs.load_data(config)
    model = qbp.hybrid(4, 3, n_qubits=3, n_layers=2, seed=0)
    qbp.fit(model, train, epochs=2, lr=0.05)
    student = qbp.hybrid(4, 3, n_qubits=2, n_layers=1, seed=0)
    with pytest.warns(UserWarning, match="The teacher's logits span"):
        taught = qbp.distill(model, student, train, temperature=2.0, epochs=3, lr=0.05)
    for name, mine in (("1-train", model), ("3-distill", taught)):
        kept = qbp.load_model(finished / name / MODEL)
        assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), mine.parameters(), strict=True))
    loaded = qbp.hybrid(4, 3, n_qubits=2, n_layers=1, seed=5)
    assert qbp.load_checkpoint(loaded, finished / "3-distill") == 3
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), taught.parameters(), strict=True))


def test_a_finished_run_is_not_done_again_and_not_overwritten(finished: Path, tmp_path: Path) -> None:
    config = configs.load(finished / "config.yaml")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert pipeline.run(config, finished, resume=True) == run_folder(finished).result()
    with pytest.raises(ConfigError, match="already there"):
        pipeline.run(config, finished)
    with pytest.raises(ConfigError, match=r"another config .*distill.temperature: 2.0 / 3.0"):
        pipeline.run(config_of(tmp_path, "distill.temperature=3"), finished, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_the_pruned_model_is_taught_where_there_is_no_student(tmp_path: Path) -> None:
    result = pipeline.run(config_of(tmp_path, "distill.student=null", "train.epochs=1"), tmp_path / "run")
    assert list(result["stages"]) == STAGES[:3]
    trained, pruned, distilled = result["stages"].values()
    assert distilled["rotations"] == pruned["rotations"] < trained["rotations"]
    assert distilled["loss"] != pruned["loss"]


# For some of the moments at which the disk changes, a child is killed there by signal 9 and another one resumes.
KILLER = """
import os, signal, sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
from qbp.runs import config as configs, stages as pipeline

config, folder = configs.load(sys.argv[1], ["name=small"]), Path(sys.argv[2])
pipeline.run(config, folder / "whole")

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
    pipeline.run(config, where)

for moment in range(2, 1000, 5):
    where = folder / f"killed-{moment}"
    code = child(lambda: killed_at(moment, where))
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
    assert child(lambda: pipeline.run(config, where, resume=True)) == 0, moment
"""


@pytest.mark.slow  # the same for one stage: tests/training/test_fitting.py and test_runs.py
def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    config_of(tmp_path)
    arguments = [str(tmp_path / "config-under-test.yaml"), str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    whole, *killed = sorted((tmp_path / "runs").iterdir(), reverse=True)
    assert whole.name == "whole" and len(killed) > 6
    for folder in killed:
        assert run_folder(folder).result() == run_folder(whole).result(), folder
        for stage in STAGES:
            assert (folder / stage / MODEL).read_bytes() == (whole / stage / MODEL).read_bytes(), folder


# ---- teachers that are there already ---------------------------------------------------------------------------------


def test_finished_models_teach(finished: Path, tmp_path: Path) -> None:
    text = "data: {name: iris}\nmodel: {kind: mlp, hidden: [4]}\ntrain: {epochs: 3, lr: 0.03}\n"
    runs.train(config_of(tmp_path, text=text), tmp_path / "mlp")
    config = config_of(tmp_path, "distill.temperature=1.5", "model.hidden=[2]", text=text)
    teachers = [tmp_path / "mlp", finished / "2-prune" / MODEL]
    result = pipeline.teach(config, teachers, tmp_path / "taught")
    assert list(result["models"]) == ["student", "teacher 1", "teacher 2"]
    assert result["models"]["teacher 1"]["loss"] == runs.evaluate(tmp_path / "mlp")["loss"]
    assert result["models"]["teacher 2"] == run_folder(finished).result()["stages"]["2-prune"]
    assert runs.evaluate(tmp_path / "taught")["loss"] == result["models"]["student"]["loss"]
    assert pipeline.teach(config, teachers, tmp_path / "taught", resume=True) == result
    with pytest.raises(ConfigError, match="no run of `qbp train`"):
        pipeline.teach(config, [tmp_path / "nobody"], tmp_path / "other")
    with pytest.raises(ConfigError, match="at least one teacher"):
        pipeline.teach(config, [], tmp_path / "other")
    assert not (tmp_path / "other").exists()


# ---- configs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prune.amout=0.5", "key `prune.amout` is unknown .*did you mean `amount`"),
        ("prune.by=size", "key `prune.by` must be one of .*taylor.*exact, but is size"),
        ("prune.finetune.epoch=3", "key `prune.finetune.epoch` is unknown .*did you mean `epochs`"),
        ("distill.method=fitnets", "key `distill.method` must be one of kd, logits, hints"),
        ("distill.alpha=2", "key `distill.alpha` must be less than or equal to 1, but is 2"),
        ("distill.student.n_qubit=3", "key `distill.student.n_qubit` is unknown .*did you mean `n_qubits`"),
        ("distill.student.kind=cnn", "key `distill.student.kind` must be one of hybrid, mlp, but is cnn"),
    ],
)
def test_mistakes_in_a_config_are_named(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path, override)


def test_mistakes_in_a_config_have_their_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 7: key `distill.temperature` must be greater than 0, but is -1"):
        config_of(tmp_path, text=SMALL.replace("temperature: 2.0", "temperature: -1"))


def test_what_is_no_pipeline_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must have `prune` or `distill`"):
        pipeline.run(config_of(tmp_path, "prune=null", "distill=null"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"must have `distill\.student`, or `prune`"):
        pipeline.run(config_of(tmp_path, "prune=null", "distill.student=null"), tmp_path / "run")
    with pytest.raises(ConfigError, match="use `qbp run`"):
        runs.train(config_of(tmp_path), tmp_path / "run")
    with pytest.raises(ArgumentError, match=r"xor_2q|inputs"):
        pipeline.run(config_of(tmp_path, "distill.student.circuit=nobody"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_of_a_pipeline_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    (tmp_path / "again.yaml").write_text(configs.dump(config))
    assert configs.load(tmp_path / "again.yaml") == config

"""The command line as a user meets it: what is printed, what is written, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from qbp.circuit import qasm
from qbp.cli import main
from qbp.training.checkpoint import History

SMALL = """\
data: {name: iris, classes: [0, 2]}
model: {kind: hybrid, n_qubits: 2, n_layers: 1}
train: {epochs: 2, lr: 0.05, batch_size: 16}
"""
MLP = "--set=model={kind: mlp, hidden: [3]}"


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def qbp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a directory that holds `small.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("small.yaml").write_text(SMALL)

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capsys.readouterr()
        return Done(int(stopped.value.code or 0), said.out, said.err)

    return run


def losses(folder: str | Path) -> list[float]:
    return History.from_jsonl(Path(folder) / "metrics.jsonl").column("loss")


def test_help_names_every_command(qbp: Run) -> None:
    done = qbp("--help")
    assert done.code == 0
    for command in ("train", "evaluate", "lr", "circuits", "info"):
        assert f" {command} " in done.out


def test_train_prints_both_models_side_by_side_and_says_what_the_twin_says(qbp: Run) -> None:
    done = qbp("train", "small.yaml", "--quiet")
    assert done.code == 0
    assert done.err == ""
    result = json.loads(Path("runs/small/result.json").read_text())["models"]
    lines = {line.split()[1]: line for line in done.out.splitlines() if line.startswith("│")}
    for name in ("hybrid", "twin"):
        assert str(result[name]["parameters"]) in lines[name]
        assert f"{result[name]['accuracy']:.4f}" in lines[name]
    worse = result["twin"]["accuracy"] >= result["hybrid"]["accuracy"]
    assert ("the quantum layer does not help" in done.out) == worse
    assert "iris, 75 rows to train, 25 to test" in done.out
    assert done.out.rstrip().endswith("Saved in runs/small")


def test_overrides_name_and_runs_dir(qbp: Run) -> None:
    done = qbp(
        "train", "small.yaml", MLP, "--set", "train.epochs=3", "--name", "mine", "--runs-dir", "else/where", "-q"
    )
    assert done.code == 0
    assert len(losses("else/where/mine")) == 3
    assert "name: mine\n" in Path("else/where/mine/config.yaml").read_text()
    assert "twin" not in done.out
    assert not Path("runs").exists()


def test_progress_is_shown_unless_quiet(qbp: Run) -> None:
    shown = qbp("train", "small.yaml", MLP).out
    assert "mlp: 23 parameters" in shown
    assert "epoch 2/2" in shown
    assert "epoch 2/2" not in qbp("train", "small.yaml", MLP, "-q", "--name=other").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "digit"], "Config 'digit' is neither a file nor one of digits, "),
        (["train", "small.yaml", "--set", "train.epoch=3"], "key `train.epoch` is unknown"),
        (["train", "small.yaml", "--name", "../up"], "key `name` must match pattern"),
        (["train", "small.yaml", "--set", "data.classes=[0, 7]"], "`classes` must name some of setosa"),
        (["train", "small.yaml", "--set", "model.circuit=strngly"], "strongly_entangling"),
        (["train", "small.yaml", "--set", "model.backend=no.such"], "no.such"),
        (["evaluate", "runs/none"], "runs/none is no run of `qbp train`"),
        (["lr", "nothing.yaml"], "Config 'nothing.yaml' is neither a file"),
        (["circuits", "no_such"], "no_such"),
    ],
)
def test_what_a_user_got_wrong_is_one_line_and_exit_code_2(qbp: Run, arguments: list[str], words: str) -> None:
    done = qbp(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert words in done.err
    assert done.err.count("\n") == 1


def test_a_wrong_config_file_is_named_with_its_line(qbp: Run) -> None:
    Path("wrong.yaml").write_text(SMALL + "twim: false\n")
    assert "Error: wrong.yaml, line 4: key `twim` is unknown" in qbp("train", "wrong.yaml").err


@pytest.mark.parametrize(
    "arguments", [["train"], ["no-such"], ["evaluate", "runs/x", "--shots", "0"], ["train", "--no"]]
)
def test_wrong_usage_is_exit_code_2(qbp: Run, arguments: list[str]) -> None:
    done = qbp(*arguments)
    assert done.code == 2
    assert "Usage: qbp" in done.err


def test_a_taken_name_is_refused_and_resume_prints_the_result_again(qbp: Run) -> None:
    first = qbp("train", "small.yaml", "-q")
    again = qbp("train", "small.yaml", "-q")
    assert again.code == 2
    assert "--resume" in again.err
    assert "--name" in again.err
    assert qbp("train", "small.yaml", "-q", "--resume") == first
    assert qbp("train", "runs/small/config.yaml", "-q", "--resume") == first
    changed = qbp("train", "small.yaml", "-q", "--resume", "--set", "seed=1")
    assert changed.code == 2
    assert "seed: 0 / 1" in changed.err


@pytest.mark.parametrize(("where", "said"), [("typer.main.get_command", "Interrupted.\n"), ("qbp.cli.about.out", "")])
def test_ctrl_c_is_no_traceback_while_the_command_is_sought_and_where_nothing_goes_on(
    qbp: Run, monkeypatch: pytest.MonkeyPatch, where: str, said: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    assert qbp("info") == (130, "", said)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_that_command_ends_with_the_same_losses(qbp: Run) -> None:
    options = ["--set", "train.epochs=1500", "--set", "twin=false"]
    command = [sys.executable, "-m", "qbp", "train", "small.yaml", *options, "-q", "--runs-dir", "kept"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    deaf = signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a test run in the background ignores it, and so would the child
    try:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, deaf)
    with process:
        rows = Path("kept/small/metrics.jsonl")
        while process.poll() is None and not (rows.exists() and rows.read_text().count("\n") > 2):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    (said,) = err.splitlines()
    assert said == "Interrupted. Go on with: qbp train kept/small/config.yaml --resume --runs-dir kept"
    assert 2 < len(losses("kept/small")) < 1500
    assert qbp(*said.partition("qbp ")[2].split(), "-q").code == 0
    assert qbp("train", "small.yaml", *options, "-q", "--name", "whole").code == 0
    assert losses("kept/small") == losses("runs/whole")


def test_evaluate_reloads_a_run_on_other_backends(qbp: Run) -> None:
    qbp("train", "small.yaml", "-q", "--set", "twin=false")
    score = json.loads(Path("runs/small/result.json").read_text())["models"]["hybrid"]
    done = qbp("evaluate", "runs/small")
    assert done.code == 0
    assert f"{score['accuracy']:.4f}" in done.out
    assert f"{score['loss']:.4f}" in done.out
    assert f"{score['loss']:.4f}" in qbp("evaluate", "runs/small", "--backend", "dense").out
    sampled = qbp("evaluate", "runs/small", "--shots", "50")
    assert sampled.code == 0
    assert "50 shots" in sampled.out
    wrong = qbp("evaluate", "runs/small", "--backend", "no.such")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)


def test_noise_shows_a_run_under_noise_and_its_page_too(qbp: Run) -> None:
    assert qbp("train", "small.yaml", "-q", "--set", "twin=false").code == 0
    done = qbp("noise", "runs/small", "--shots=50")
    assert done.code == 0, done.err
    kept = Path("runs/small/noise.csv").read_text()
    assert all(name in done.out and name in kept for name in ("exact", "50 shots", "fake:manila", "accuracy"))
    Path("runs/small/diagnosis.json").write_text('{"findings": []}')  # it takes longer than all else
    assert qbp("report", "runs/small").code == 0
    assert "fake:manila" in Path("runs/small/report.html").read_text()


def test_lr_suggests_a_rate_and_draws_the_curve(qbp: Run) -> None:
    done = qbp("lr", "small.yaml", MLP)
    assert done.code == 0
    rate = float(done.out.partition("train.lr=")[2].split()[0])
    assert 1e-5 <= rate <= 1
    assert Path("small-lr.png").stat().st_size > 5000
    assert qbp("lr", "small.yaml", MLP, "--output", "curve.svg").code == 0
    assert "<svg" in Path("curve.svg").read_text()
    assert qbp("lr", "small.yaml", MLP, "--output", "curve.xyz").code == 2


def test_circuits_lists_every_file_with_its_size(qbp: Run) -> None:
    done = qbp("circuits")
    assert done.code == 0
    rows = {line.split()[1]: line.split() for line in done.out.splitlines() if line.startswith("│")}
    assert list(rows) == qasm.available()
    for name, row in rows.items():
        listing = qasm.load(name)
        counts = [listing.n_qubits, len(listing.inputs), len(listing.weights), len(listing.calls)]
        assert [int(cell) for cell in row if cell.isdigit()][-5:-1] == counts


def test_circuits_draws_one_by_name_or_file(qbp: Run) -> None:
    name = qasm.available()[0]
    done = qbp("circuits", name)
    assert done.code == 0
    for wire in range(qasm.load(name).n_qubits):
        assert f"q{wire}: ─" in done.out
    assert qbp("circuits", str(qasm.find(name))).out == done.out


def test_info_names_versions_engine_and_backends(qbp: Run) -> None:
    import torch

    done = qbp("info")
    assert done.code == 0
    said = {line.split("  ")[0]: line for line in done.out.splitlines()}
    assert said["torch"].split()[-1] == torch.__version__
    assert "float32" in said["native engine"]
    for backend in ("native", "dense", "default.qubit", "lightning.qubit"):
        assert backend in said["backends"]


def test_python_m_qbp_is_qbp() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qbp", "train"], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Usage: qbp train" in done.stderr


# ---- smaller models --------------------------------------------------------------------------------------------------


def test_run_prints_every_stage_and_distill_every_model(qbp: Run) -> None:
    stages = ("--set=prune={amount: 0.5, what: gates}", "--set=distill={student: {kind: mlp, hidden: [3]}}")
    done = qbp("run", "small.yaml", "-q", *stages)
    assert done.code == 0, done.err
    assert "small: iris, 75 rows to train, 25 to test" in done.out and "Saved in runs/small" in done.out
    assert all(name in done.out for name in ("1-train", "2-prune", "3-distill", "3-scratch", "circuits"))
    scores = json.loads(Path("runs/small/result.json").read_text())["stages"]
    helped = scores["3-distill"]["accuracy"] > scores["3-scratch"]["accuracy"]
    assert f"The teacher {'helped' if helped else 'did not help'}: accuracy" in done.out
    refused = qbp("run", "small.yaml", "-q", *stages)
    assert refused.code == 2 and "already there" in refused.err
    assert qbp("run", "small.yaml", "-q", *stages, "--resume").out == done.out
    taught = qbp("distill", "small.yaml", MLP, "--teacher=runs/small/1-train/model.safetensors", "-q", "--name=taught")
    assert taught.code == 0, taught.err
    assert "student" in taught.out and "teacher 1" in taught.out
    assert qbp("evaluate", "runs/taught").code == 0
    assert qbp("run", "small.yaml", "-q", "--name=other").code == 2


# ---- comparisons -----------------------------------------------------------------------------------------------------

COMPARED = """\
seeds: 5
data: {moons: {name: moons, n_samples: 40}}
models:
  small: {kind: hybrid, n_qubits: 2, n_layers: 1}
  mlp: {kind: mlp, hidden: [4]}
train: {epochs: 1}
budget: 1
"""


def test_compare_prints_every_control_and_goes_on(qbp: Run) -> None:
    Path("two.yaml").write_text(COMPARED)
    done = qbp("compare", "two.yaml", "--workers", "1", "--aa")
    assert done.code == 0, done.err
    for words in ("moons: 30 rows to train, 10 to test, 5 seeds", "small/frozen", "mlp/matched_parameters", "svm_rbf"):
        assert words in done.out
    assert "small/identical" in done.out and "small against its controls is INCONCLUSIVE" in done.out
    assert done.out.count("INCONCLUSIVE") > 20 and "135/135" in done.err
    log = Path("runs/two/log.jsonl").read_text()
    again = qbp("compare", "two.yaml", "--workers", "1", "--aa", "--quiet")
    assert again.out == done.out and Path("runs/two/log.jsonl").read_text() == log
    other = qbp("compare", "two.yaml", "--set", "rope=0.02", "--aa", "-q")
    assert other.code == 2 and "another config (there / here): rope: 0.01 / 0.02" in other.err


def test_a_comparison_is_planned_from_a_pilot_of_other_seeds(qbp: Run) -> None:
    Path("two.yaml").write_text(COMPARED.replace("  mlp: {kind: mlp, hidden: [4]}\n", ""))
    done = qbp("compare", "two.yaml", "--workers", "1", "--quiet", "--plan", "0.05", "--set=primary=small/frozen")
    assert done.code == 0, done.err
    assert "seeds to find 0.05 of accuracy" in done.out and "To find it against every control: " in done.out
    assert "small/frozen is the primary comparison: " in done.out
    assert {path.name for path in Path("runs/two-pilot/cells/moons/svm_rbf").glob("*.json")} == {
        f"{seed}.json" for seed in range(5, 10)
    }
    assert not Path("runs/two").exists()
    assert qbp("compare", "two.yaml", "--plan", "0").code == 2
    wrong = qbp("compare", "two.yaml", "--set=primary=small/frosen")
    assert wrong.code == 2 and "did you mean `small/frozen`?" in wrong.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("data: {moons: {nam: moons}}", "key `data.moons.nam` is unknown"),
        ("models: {small: {kind: hybrid, n_qubit: 2}}", "key `models.small.n_qubit` is unknown"),
        ("models: {small: {kind: hybrd}}", "must be one of hybrid, mlp"),
        ("seeds: 4", "key `seeds` must be 5 or more, or a list of as many different ones, but is 4"),
        ("seeds: [1, 1, 2, 3, 4]", "key `seeds` must be 5 or more"),
        ("budgt: 2", "did you mean `budget`?"),
    ],
)
def test_a_wrong_comparison_is_told_by_key_and_line(qbp: Run, line: str, said: str) -> None:
    key = line.partition(":")[0]
    kept = [text for text in COMPARED.splitlines() if not text.startswith(key)]
    kept = [text for text in kept if key != "models" or not text.startswith("  ")]
    Path("wrong.yaml").write_text("\n".join([*kept, line]))
    done = qbp("compare", "wrong.yaml")
    assert done.code == 2 and said in done.err and "wrong.yaml, line" in done.err


def test_prune_prints_what_it_saves_beside_random_choice(qbp: Run) -> None:
    assert qbp("train", "small.yaml", "-q").code == 0
    done = qbp("prune", "runs/small", "--what=gates", "--amount=0.5", "--epochs=1")
    assert done.code == 0, done.err
    assert all(name in done.out for name in ("full", "pruned", "random", "circuits a step", "accuracy"))
    assert Path("runs/small/pruned.safetensors").exists() and Path("runs/small/pruned.png").exists()
    assert "pruned,random" in ",".join(
        row.split(",")[0] for row in Path("runs/small/compression.csv").read_text().splitlines()
    )
    done = qbp("prune", "runs/small", "--by=exact")
    assert done.code == 0 and "random" not in done.out
    assert qbp("prune", "runs/small", "--by=magnitude").code == 2

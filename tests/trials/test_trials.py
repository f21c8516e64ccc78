"""Trials from file to page: a protocol that is stopped goes on, and a comparison that is killed does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from qbp.cli import app
from qbp.errors import ArgumentError, ConfigError
from qbp.report.trial import trial_document
from qbp.runs.schema import Number, Section
from qbp.trials.cell import Cell
from qbp.trials.claim import load, packaged
from qbp.trials.protocols import PROTOCOLS
from qbp.trials.trial import load_trial, try_claim

SOURCE = {"authors": "A, B", "title": "T", "arxiv": "1234.56789", "where": "table 1", "read": "abstract"}
RUNNER = CliRunner()


class Options(Section):
    """What the protocol of these tests takes."""

    lead: Number = 0.1


def cells(options: Options, seeds: Any) -> list[Cell]:
    return [Cell("data", arm, seed) for seed in seeds for arm in ("quantum", "classical", "frozen/part")]


TRAINED: list[Cell] = []
STOP: list[int] = []


def train(options: Options, cell: Cell) -> dict[str, Any]:
    if STOP and len(TRAINED) == STOP[0]:
        raise KeyboardInterrupt
    TRAINED.append(cell)
    ahead = options.lead if cell.arm == "quantum" else 0.0
    wobble = 0.003 * ((cell.seed * 7 + len(cell.arm)) % 5)
    return {"score": 0.8 + ahead + wobble, "n_parameters": 10, "converged": True, "bits": 3}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A claim by a protocol of its own."""
    protocol = SimpleNamespace(Options=Options, cells=cells, train=train)
    monkeypatch.setitem(PROTOCOLS, "planted", protocol)
    TRAINED.clear()
    STOP.clear()
    claim = {
        "title": "A planted lead",
        "source": SOURCE,
        "claimed": "The quantum one is ahead.",
        "protocol": "planted",
        "metric": "score",
        "seeds": 8,
        "primary": "quantum/classical",
        "controls": ["frozen/part"],
        "figures": [
            {"arm": "quantum", "than": "classical", "rule": {"kind": "greater"}},
            {"arm": "quantum", "value": 0.9, "deviation": 0.01, "n": 5, "rule": {"kind": "equal"}},
        ],
        "quick": {"seeds": 6},
        "deviations": ["Nothing is as in the paper."],
    }
    path = tmp_path / "planted_lead.yaml"
    path.write_text(yaml.safe_dump(claim))
    return path


def test_a_claim_of_ones_own_is_tried_and_goes_on(planted: Path, tmp_path: Path):
    """Stopped at its eleventh cell by Ctrl-C, it runs the other fourteen, and comes to the same."""
    run = ["trial", str(planted), "--runs-dir", str(tmp_path / "runs"), "--workers", "1", "-q"]
    STOP.append(10)
    stopped = RUNNER.invoke(app, run)
    assert stopped.exit_code == 130 and "goes on from here" in stopped.output
    STOP.clear()
    done = RUNNER.invoke(app, run)
    assert done.exit_code == 0, done.output
    assert len(TRAINED) == 24 and len(set(TRAINED)) == 24
    assert "REPRODUCED: 2 of 2 figures" in done.output and "Does the quantum part do it? YES" in done.output
    assert "Total time" in done.output
    assert max(len(line) for line in done.output.splitlines() if line[:1] in "┌│├└") <= 80
    folder = tmp_path / "runs" / "planted_lead"
    trial = load_trial(folder)
    assert trial.ruling.word == "REPRODUCED" and trial.answer.word == "YES"
    assert {arm["arm"]: arm["bits"] for arm in trial.arms} == {"quantum": 3, "classical": 3, "frozen/part": 3}
    assert trial.sha256 == load(planted).sha256
    page = (folder / "report.html").read_text()
    for words in ("REPRODUCED", "YES", "frozen/part", trial.sha256, "Nothing is as in the paper.", "1234.56789"):
        assert words in page, words
    assert RUNNER.invoke(app, run).exit_code == 0 and len(TRAINED) == 24  # nothing runs twice


def test_another_claim_does_not_go_on_in_its_place(planted: Path, tmp_path: Path):
    try_claim(load(planted), tmp_path / "run")
    changed = yaml.safe_load(planted.read_text())
    planted.write_text(yaml.safe_dump(changed | {"title": "Other words"}))
    assert try_claim(load(planted), tmp_path / "run").claim["title"] == "Other words"
    planted.write_text(yaml.safe_dump(changed | {"rope": 0.05}))
    with pytest.raises(ConfigError, match=r"rope: 0\.01 / 0\.05"):
        try_claim(load(planted), tmp_path / "run")


def test_a_quick_trial_says_what_it_left_out(planted: Path, tmp_path: Path):
    done = RUNNER.invoke(app, ["trial", str(planted), "--quick", "--runs-dir", str(tmp_path), "--workers", "1", "-q"])
    assert done.exit_code == 0 and "seeds: 8 / 6" in done.output
    assert "seeds: 8 / 6" in (tmp_path / "planted_lead-quick" / "report.html").read_text()
    assert load_trial(tmp_path / "planted_lead-quick").left_out == ("seeds: 8 / 6",)


def test_a_metric_that_nobody_measures(planted: Path, tmp_path: Path):
    planted.write_text(yaml.safe_dump(yaml.safe_load(planted.read_text()) | {"metric": "scores"}))
    with pytest.raises(ArgumentError, match="must have a column 'scores'"):
        try_claim(load(planted), tmp_path / "run")


def test_all_claims_make_a_table(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("qbp.trials.claim.CLAIMS", planted.parent)
    done = RUNNER.invoke(app, ["trial", "--all", "--runs-dir", str(tmp_path / "runs"), "--workers", "1", "-q"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads((tmp_path / "runs" / "trials.json").read_text())
    assert row["claim"] == "planted_lead" and row["figures"] == "REPRODUCED" and row["quantum_part"] == "YES"
    page = (tmp_path / "runs" / "trials.html").read_text()
    assert 'href="planted_lead/report.html"' in page and "quantum minus classical" in page
    assert (tmp_path / "runs" / "trials.csv").read_text().startswith("claim,title,source,published")


def test_what_cannot_be_tried():
    assert RUNNER.invoke(app, ["trial"]).exception is not None
    assert RUNNER.invoke(app, ["trial", "xor", "--all"]).exception is not None
    listed = RUNNER.invoke(app, ["trial", "--list"])
    assert all(name in listed.output for name in packaged())


OWN = {
    "title": "Moons",
    "source": SOURCE,
    "claimed": "A hybrid is ahead.",
    "seeds": 6,
    "primary": "hybrid/frozen",
    "figures": [{"arm": "logistic_regression", "than": "majority", "rule": {"kind": "greater"}}],
    "options": {
        "data": {"moons": {"name": "moons", "n_samples": 60}},
        "models": {"hybrid": {"kind": "hybrid", "n_qubits": 2, "n_layers": 1}},
        "train": {"epochs": 3, "lr": 0.05},
    },
}


@pytest.mark.slow
def test_a_comparison_that_was_killed_goes_on(tmp_path: Path):
    """Killed hard after its first cells; none of those runs again, and the page is there."""
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(OWN))
    code = "import sys; from qbp.cli import main; main(sys.argv[1:])"
    run = [sys.executable, "-c", code, "trial", str(path), "--runs-dir", str(tmp_path), "--workers", "1", "-q"]
    first = subprocess.Popen(run)
    cells = tmp_path / "own" / "comparison" / "cells"
    while first.poll() is None and len(list(cells.rglob("*.json"))) < 12:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    there = {file: file.stat().st_mtime_ns for file in cells.rglob("*.json")}
    assert len(there) >= 12 and not (tmp_path / "own" / "trial.json").exists()
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(file.stat().st_mtime_ns == when for file, when in there.items())
    document = trial_document(tmp_path / "own")
    assert document.verdicts[0].word == "REPRODUCED"
    assert "classical_twin" not in [row["control"] for row in load_trial(tmp_path / "own").answer.verdicts]
    assert "Does the quantum part do it?" in done.stdout


@pytest.mark.slow
def test_a_packaged_claim_runs_quick(tmp_path: Path):
    done = RUNNER.invoke(app, ["trial", "abbas_iris", "--quick", "--runs-dir", str(tmp_path), "-q"])
    assert done.exit_code == 0 and "A quick trial" in done.output, done.output
    assert (tmp_path / "abbas_iris-quick" / "report.html").is_file()

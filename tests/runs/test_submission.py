"""`qbp submit`, `collect` and `jobs`, and whole models, against the loopback server with the genuine client."""

from __future__ import annotations

import json
import os
import shutil
import traceback

import numpy as np
import pytest
import torch
from ibm_server import IBMServer
from torch import nn

from qbp import data, hardware
from qbp.circuit.program import Rotation
from qbp.cli import main
from qbp.errors import ArgumentError, BudgetError, ServiceError
from qbp.jobs.ledger import read_ledger
from qbp.jobs.retry import Patience
from qbp.nn.layer import QuantumLayer
from qbp.runs import config
from qbp.runs import run as runs
from qbp.training.fitting import evaluate, fit

TOKEN = "plantedPLANTED0123456789plantedPLANTED0123456"
QUICK = Patience(answer=30.0, tries=5, pause=0.05, poll=0.05, settle=0.2, rate=1000)
SMALL = ["model.n_qubits=2", "model.n_layers=1", "data.n_samples=24", "train.epochs=1", "train.batch_size=8"]


@pytest.fixture(scope="module")
def server():
    with IBMServer(engine="exact", seed=3, seed_by="work", plan="premium") as ibm, ibm.client_environment():
        os.environ["QISKIT_IBM_TOKEN"] = TOKEN
        yield ibm


@pytest.fixture
def ibm(ibm, monkeypatch):
    """The server, with impatient clients."""
    for name in ("answer", "tries", "pause", "poll", "settle", "rate"):
        monkeypatch.setattr(Patience, name, getattr(QUICK, name))
    monkeypatch.setattr(Patience.__init__, "__defaults__", tuple(vars(QUICK).values()))
    return ibm


def qbp(*arguments):
    """Run the command line; the exit code."""
    with pytest.raises(SystemExit) as done:
        main(list(map(str, arguments)))
    return done.value.code or 0


def hybrid():
    """Batch 8 of 8 features through 4 qubits with 8 weights."""
    torch.manual_seed(0)
    layer = QuantumLayer("basic_entangler", n_qubits=4, n_layers=2)
    return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), layer, nn.Linear(4, 2))


def rows(n, n_features):
    x = torch.rand(n, n_features, generator=torch.Generator().manual_seed(1))
    return data.Dataset(x, torch.arange(n) % 2)


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), QuantumLayer("basic_entangler", n_qubits=2, n_layers=1), nn.Linear(2, 2))


def counted(ibm):
    stats = ibm.stats()
    return stats["jobs"]["accepted"], stats["circuits"], stats["shots"], stats["quantum_seconds"]


def apart(ops):
    """How many rotations are left where those of one axis that follow each other on a wire are one."""
    last, number = {}, 0
    for op in ops:
        same = isinstance(op, Rotation) and last.get(op.wires) == op.pauli
        number += isinstance(op, Rotation) and not same
        last |= dict.fromkeys([(wire,) for wire in op.wires], op.pauli if isinstance(op, Rotation) else None)
    return number


# ---- whole models ----------------------------------------------------------------------------------------------------


def test_a_training_step_is_one_job_with_one_pub(ibm, tmp_path):
    raw = nn.Sequential(QuantumLayer("basic_entangler", n_qubits=4, n_layers=2), nn.Linear(4, 2))
    moved = hardware.on_backend(raw, "ibm:fake_manila", shots=1024, budget=100, run_dir=tmp_path / "raw")
    moved(rows(8, 4).x).sum().backward()
    stats = ibm.stats()
    assert (stats["jobs"]["accepted"], stats["pubs"], stats["circuits"]) == (1, 1, 8 * (1 + 2 * 8))
    ibm.reset()
    moved = hardware.on_backend(hybrid(), "ibm:fake_manila", shots=1024, budget=100, run_dir=tmp_path / "hybrid")
    moved(rows(8, 8).x).sum().backward()
    stats = ibm.stats()
    # 12 angles have gradients, 4 inputs and 8 weights; but each input's RX stands right before the RX of a weight of
    # the first layer, so that shifting either gives the same circuit: as many pairs of shifts as RX that stay apart
    assert apart(moved[2].circuit.program.ops) == 8 < moved[2].circuit.program.n_angles == 12
    assert (stats["jobs"]["accepted"], stats["pubs"], stats["circuits"]) == (1, 1, 8 * (1 + 2 * 8))
    assert all(parameter.grad is not None for parameter in moved.parameters())
    assert "sessions.create" not in stats["requests"]["by_route"]


def test_the_plan_is_what_the_server_counts(ibm, tmp_path):
    settings = {"epochs": 2, "batch_size": 4, "validation": 0.2, "seed": 2}
    planned = hardware.plan(tiny(), rows(13, 2), backend="ibm:fake_manila", shots=32, **settings)
    assert counted(ibm) == (0, 0, 0, 0)
    moved = hardware.on_backend(tiny(), "ibm:fake_manila", shots=32, budget=planned, run_dir=tmp_path)
    fit(moved, rows(13, 2), **settings)
    assert counted(ibm) == (planned.jobs, planned.circuits, planned.shots, pytest.approx(planned.seconds))
    assert hardware.spent(moved) == planned.__class__(
        planned.jobs, planned.circuits, planned.shots, pytest.approx(planned.seconds)
    )


def test_a_budget_that_ends_leaves_a_checkpoint_that_resumes(ibm, tmp_path):
    settings = {"epochs": 2, "batch_size": 4, "seed": 2}
    where = {"backend": "ibm:fake_manila", "shots": 32}
    planned = hardware.plan(tiny(), rows(8, 2), **where, **settings)
    whole = hardware.on_backend(tiny(), budget=planned, run_dir=tmp_path / "whole", **where)
    fit(whole, rows(8, 2), **settings)
    ibm.reset()
    seconds = planned.seconds * 2.5 / 4
    stopped = hardware.on_backend(tiny(), budget=seconds, run_dir=tmp_path / "run", **where)
    with pytest.raises(BudgetError, match="on top of"):
        fit(stopped, rows(8, 2), run_dir=tmp_path / "run", **settings)
    assert counted(ibm)[0] == 2 and counted(ibm)[3] <= seconds
    again = tiny()
    with torch.no_grad():  # the checkpoint's weights count, not the new model's
        for parameter in again.parameters():
            parameter.zero_()
    resumed = hardware.on_backend(again, budget=planned, run_dir=tmp_path / "run", **where)
    fit(resumed, rows(8, 2), run_dir=tmp_path / "run", resume=True, **settings)
    assert counted(ibm)[0] == 4 and ibm.stats()["paid_twice"] == []
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_budget_below_one_job_sends_nothing(ibm, tmp_path):
    moved = hardware.on_backend(tiny(), "ibm:fake_manila", shots=32, budget=1.0, run_dir=tmp_path)
    with pytest.raises(BudgetError, match="and the budget is 1"):
        evaluate(moved, rows(5, 2))
    assert counted(ibm)[0] == 0


@pytest.mark.parametrize("missing", ["budget", "run_dir"])
def test_what_costs_needs_a_budget_and_a_directory(ibm, tmp_path, missing):
    given = {"budget": 10, "run_dir": tmp_path}
    del given[missing]
    with pytest.raises(ArgumentError, match=f"`{missing}` must be given for 'ibm:fake_manila'"):
        hardware.on_backend(tiny(), "ibm:fake_manila", **given)
    layer = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend="ibm:fake_manila", shots=10)
    with pytest.raises(ArgumentError, match=r"costs quantum time: run the model there with `qbp\.on_backend"):
        layer(torch.zeros(1, 2))
    assert counted(ibm)[0] == 0


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_sessions_are_closed_whatever_happens(ibm, tmp_path, mode):
    moved = hardware.on_backend(tiny(), "ibm:fake_manila", shots=16, budget=100, run_dir=tmp_path)
    with pytest.raises(RuntimeError, match="of the user"), hardware.session(moved, mode):
        evaluate(moved, rows(4, 2))
        raise RuntimeError("of the user")
    sessions = list(ibm.service_state.sessions.values())
    assert [s.mode for s in sessions] == [{"batch": "batch", "session": "dedicated"}[mode]]
    assert sessions[0].closed and ibm.jobs()[0]["session_id"] == sessions[0].id
    evaluate(moved, rows(5, 2))
    assert ibm.jobs()[-1]["session_id"] is None  # jobs for themselves again


def test_a_session_that_the_service_closed_costs_no_step(ibm, tmp_path):
    moved = hardware.on_backend(tiny(), "ibm:fake_manila", shots=16, budget=100, run_dir=tmp_path)
    with hardware.session(moved, "session"):
        evaluate(moved, rows(4, 2))
        (record,) = ibm.service_state.sessions.values()
        ibm.service_state.close_session(record, cancel=True)
        evaluate(moved, rows(5, 2))
    assert [job["session_id"] for job in ibm.jobs()] == [record.id, None]
    assert ibm.stats()["jobs"]["by_status"] == {"Completed": 2}


def test_an_instance_out_of_time_stops_the_run(tmp_path):
    with IBMServer(engine="exact", plan="open", usage_limit=3.0) as ibm, ibm.client_environment():
        moved = hardware.on_backend(tiny(), "ibm:fake_manila", shots=16, budget=100, run_dir=tmp_path)
        evaluate(moved, rows(4, 2))
        evaluate(moved, rows(5, 2))
        with pytest.raises(ServiceError, match="Usage exceeds instance limit"):
            evaluate(moved, rows(6, 2))
        with pytest.raises(ServiceError, match=r"gives no session: .*1352"), hardware.session(moved, "session"):
            pass


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "digits"
    runs.train(config.load("digits", [*SMALL, "twin=false"]), folder)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A trained run."""
    return shutil.copytree(trained, tmp_path / "runs" / "digits")


def everything_written(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_nothing_paid_is_sent_without_yes(ibm, run, capsys):
    assert qbp("submit", run, "--backend", "ibm:fake_manila", "--shots", 50) == 2
    said = capsys.readouterr()
    assert "Nothing was sent: confirm with --yes." in said.err and "quantum seconds" in said.out
    assert qbp("submit", run, "--backend", "ibm:fake_manila", "--shots", 50, "--yes", "--budget", 1) == 2
    assert "and the budget is 1" in capsys.readouterr().err
    assert counted(ibm)[0] == 0 and not (run / "hardware").exists()


def test_an_evaluation_is_submitted_and_collected(ibm, run, capsys):
    ibm.set_faults({"action": "job", "outcome": "completed", "queue_seconds": 2.0})
    submitted = ("submit", run, "--backend", "ibm:fake_manila", "--shots", 50, "--yes", "--no-wait", "--rate", 1.6)
    assert qbp(*submitted) == 0
    said = capsys.readouterr().out
    assert "1 jobs are not done" in said and counted(ibm)[0] == 1
    folder = run / "hardware" / "fake_manila"
    assert qbp("jobs", run) == 0 and "SUBMITTED" in capsys.readouterr().out
    assert qbp("collect", folder) == 0
    assert "test accuracy" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text())
    assert result["accuracy"] == pytest.approx(runs.evaluate(run)["accuracy"], abs=0.4)
    assert result["cost"] == {
        "jobs": 1,
        "circuits": ibm.stats()["circuits"],
        "shots": ibm.stats()["shots"],
        "seconds": pytest.approx(ibm.stats()["quantum_seconds"]),
        "price": pytest.approx(1.6 * ibm.stats()["quantum_seconds"]),
    }
    assert qbp("collect", folder) == 0 and qbp("jobs", run) == 0
    assert "DONE" in capsys.readouterr().out and counted(ibm)[0] == 1


def test_a_training_stops_and_goes_on(ibm, tmp_path, capsys):
    ibm.set_faults({"action": "job", "outcome": "failed", "skip": 1, "reason": "out of order"})
    changes = [part for change in SMALL for part in ("--set", change)]
    where = ("--runs-dir", tmp_path, "--backend", "ibm:fake_manila", "--shots", 20)
    assert qbp("submit", "digits", *where, *changes, "--yes") == 1
    said = capsys.readouterr()
    folder = tmp_path / "digits-fake_manila"
    assert "out of order" in said.err and f"Go on with: qbp collect {folder}" in said.err.replace("\n", "")
    assert qbp("jobs", tmp_path) == 0 and "FAILED" in capsys.readouterr().out
    assert qbp("jobs", tmp_path, "--resume") == 0
    assert (folder / "result.json").exists() and (folder / "checkpoint.safetensors").exists()
    done = sum(entry.state == "DONE" for entry in read_ledger(folder / "jobs")[1].values())
    assert ibm.stats()["jobs"]["by_status"] == {"Completed": done, "Failed": 1}
    assert ibm.stats()["paid_twice"] == []


def test_jobs_are_cancelled(ibm, run, capsys):
    ibm.set_faults({"action": "job", "outcome": "stuck"})
    assert qbp("submit", run, "--backend", "ibm:fake_manila", "--shots", 50, "--yes", "--no-wait") == 0
    capsys.readouterr()
    assert qbp("jobs", run, "--cancel") == 0
    assert "FAILED: cancelled" in capsys.readouterr().out and ibm.stats()["jobs"]["by_status"] == {"Cancelled": 1}


def test_what_costs_nothing_asks_nothing(tmp_path, run, capsys):
    assert qbp("submit", run, "--backend", "aer", "--shots", 50) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert qbp("submit", run, "--backend", "aer", "--shots", 60) == 2
    assert "holds a submission of another config" in capsys.readouterr().err.replace("\n", " ")


def test_a_rehearsal_is_submitted_and_collected(run, capsys):
    """All that a paid evaluation goes through, for nothing: no account, no question."""
    rehearsed = ("submit", run, "--backend", "fake:manila", "--shots", 50, "--no-wait")
    assert qbp(*rehearsed) == 0
    folder = run / "hardware" / "manila"
    said = " ".join(capsys.readouterr().out.split())
    assert "1 jobs are not done" in said and "quantum seconds" in said and not (folder / "result.json").exists()
    assert qbp("jobs", run) == 0
    said = capsys.readouterr().out
    assert "SUBMITTED" in said and "Rehearsed, for nothing: 1 job" in said and "Altogether" not in said
    assert qbp("collect", folder) == 0 and "test accuracy" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text())
    assert result["accuracy"] == pytest.approx(runs.evaluate(run)["accuracy"], abs=0.4)
    (entry,) = read_ledger(folder / "jobs")[1].values()
    assert (entry.state, entry.backend) == ("DONE", "fake:manila")
    assert (result["cost"]["jobs"], result["cost"]["circuits"]) == (1, entry.circuits)
    assert result["cost"]["seconds"] == entry.seconds == entry.estimate > 2


def test_a_rehearsal_is_cancelled_and_goes_on(run, capsys):
    assert qbp("submit", run, "--backend", "fake:manila", "--shots", 50, "--no-wait", "--name", "mine") == 0
    folder = run / "hardware" / "mine"
    capsys.readouterr()
    assert qbp("jobs", folder, "--cancel") == 0 and "FAILED: cancelled" in capsys.readouterr().out
    assert not (folder / "result.json").exists()
    assert qbp("collect", folder) == 0
    (entry,) = read_ledger(folder / "jobs")[1].values()
    assert entry.state == "DONE" and len(entry.dead) == 1 and entry.spent == 0


@pytest.mark.parametrize("name", ["../../x", "..", ".", "/x", "a/b", "a\\b"])
def test_no_name_leaves_the_directory(tmp_path, run, capsys, name):
    """Neither a submission's, nor a config's, nor a backend's label."""
    inside = tmp_path / "deep" / "runs"
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        (run, "--backend", "aer", "--name", name),
        ("digits", "--backend", "aer", "--runs-dir", inside, "--name", name),
        ("digits", "--backend", "aer", "--runs-dir", inside, "--set", f"name={json.dumps(name)}"),
        (run, "--backend", f"fake:{name}"),
    ):
        assert qbp("submit", *arguments) == 2, arguments
        assert "ame" in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before


def test_a_token_is_never_written_or_said(ibm, run, capsys, caplog):
    ibm.set_faults(
        {"route": "jobs.results", "status": 401, "code": 1200, "message": f"Bearer {TOKEN} is wrong", "times": -1}
    )
    assert qbp("submit", run, "--backend", "ibm:fake_manila", "--shots", 50, "--yes") == 1
    moved = hardware.on_backend(tiny(), "ibm:fake_manila", shots=10, budget=100, run_dir=run.parent)
    with pytest.raises(ServiceError) as raised:
        evaluate(moved, rows(2, 2))
    assert TOKEN not in "".join(traceback.format_exception(raised.value)) and "***" in str(raised.value)
    ibm.set_faults({"action": "job", "outcome": "failed", "reason": f"apikey {TOKEN}", "times": -1})
    assert qbp("submit", run, "--backend", "ibm:fake_manila", "--shots", 60, "--yes", "--name", "other") == 1
    said = capsys.readouterr()
    assert "***" in said.err  # the planted one was there to be said
    for text in (said.out, said.err, everything_written(run.parent).decode(errors="replace")):
        assert TOKEN not in text


def test_refusals(tmp_path, run, capsys):
    for arguments, message in (
        (("submit", run, "--backend", "aer", "--mode", "hour"), "must be one of 'job', 'batch', 'session'"),
        (("submit", run, "--backend", "aer", "--set", "seed=1"), "a run has its own"),
        (("submit", run, "--backend", "aer", "--epochs", 1, "--no-wait"), "is for an evaluation"),
        (("submit", "digits", "--backend", "aer", "--set", "model={kind: mlp}"), "has no circuit"),
        (("collect", tmp_path), "is no submission"),
    ):
        assert qbp(*arguments) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert qbp("jobs", tmp_path) == 0 and "No job was sent" in capsys.readouterr().out


def test_stds_are_kept_with_the_results(ibm, tmp_path):
    moved = hardware.on_backend(tiny(), "ibm:fake_manila", shots=100, budget=100, run_dir=tmp_path)
    evaluate(moved, rows(4, 2))
    (path,) = (tmp_path / "jobs" / "results").glob("*.npz")
    with np.load(path) as kept:
        assert kept["values"].shape == kept["stds"].shape == (4, 2) and (kept["stds"] > 0).any()

"""What is planned is what the loopback server counts, or more where the plan says "at most"; rehearsals too."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

import qbp
from qbp import hardware
from qbp.circuit.program import Expval, Probs, Program
from qbp.data import Dataset
from qbp.errors import ArgumentError, BudgetError, CircuitError, PendingError
from qbp.executors.qiskit_primitive import Options, Payload
from qbp.executors.qiskit_primitive.client import _sampled
from qbp.executors.qiskit_primitive.isa import compile_program
from qbp.executors.qiskit_primitive.outcomes import Outcomes
from qbp.jobs.jobs import Work
from qbp.jobs.ledger import read_ledger
from qbp.jobs.retry import Patience

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")
from ibm_server import IBMServer

logging.getLogger("qiskit_ibm_runtime").setLevel(logging.ERROR)
QUICK = Patience(answer=30.0, tries=5, pause=0.05, poll=0.02, settle=0.05, rate=1000)


@pytest.fixture(scope="module")
def server():
    names = ["fake_manila", "fake_torino"]
    with IBMServer(backends=names, engine="exact", seed=5, plan="premium") as ibm, ibm.client_environment():
        yield ibm


def circuit(n=2, **more):
    return qbp.QuantumLayer("basic_entangler", n_qubits=n, n_layers=1, **more)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = circuit(), circuit()

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], 1)


class Threshold(nn.Module):
    def forward(self, x):
        return (x > 0.5).to(x)


class Steep(nn.Linear):
    """What Tanh makes a number of steps of."""

    def __init__(self):
        super().__init__(2, 2)

    def forward(self, x):
        return 30 * super().forward(x)


def frozen(layer):
    return layer.requires_grad_(False)


class Calls(nn.Module):
    """A module with a circuit and a linear layer, whose forward is any function of the two and of its inputs."""

    def __init__(self, forward, n=2):
        super().__init__()
        self.circuit, self.linear, self.function = circuit(n), nn.Linear(2, 2), forward

    def forward(self, x):
        return self.function(self.circuit, self.linear, x)


def looped(layer, linear, x):
    for _ in range(3):
        x = x + layer(linear(x))
    return x


def without_gradient(layer, linear, x):
    with torch.no_grad():
        y = layer(x)
    return linear(y)


def alike(layer, linear, x):
    """Two linear functions that are the same only at first."""
    return layer(x @ linear.weight) + layer(x @ linear.weight.T)


def symmetric():
    model = Calls(alike)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[1.0, 0.5], [0.5, 2.0]]))
    return model


# As MODELS, on rows with many zeros and ones: jobs may be equal that are not the same call.
CALLED = {
    "the same twice": (lambda: Calls(lambda q, linear, x: q(x) + 2 * q(x)), True, True),
    "another order of columns": (lambda: Calls(lambda q, linear, x: linear(x) + q(x.flip(1)) + q(x)), True, True),
    "scaled": (lambda: Calls(lambda q, linear, x: q(x) + q(2 * x) + q(3 * x)), True, True),
    "column by column": (lambda: Calls(lambda q, linear, x: torch.cat([q(x[:, :1]), q(x[:, 1:])], 1), 1), True, True),
    "columns as rows": (lambda: Calls(lambda q, linear, x: q(x.reshape(-1, 1)).reshape(x.shape), 1), True, True),
    "in a loop": (lambda: Calls(looped), False, False),
    "no gradient": (lambda: Calls(without_gradient), True, True),
    "sums": (lambda: Calls(lambda q, linear, x: q(linear(x).sum(1, keepdim=True)), 1), True, True),
    "sums of columns": (lambda: Calls(lambda q, linear, x: q((linear.weight[0] * x).relu()[:, :1]), 1), True, False),
    "alike at first": (symmetric, True, False),
    "without gradient": (lambda: Calls(lambda q, linear, x: linear(x) + 0 * q(x)), True, False),
    "in training only": (lambda: Calls(lambda q, linear, x: q(x) + (q(x + 1) if linear.training else 0)), True, True),
    "two alike": (lambda: nn.Sequential(nn.Identity(), TwoHeads()), True, True),
}


# Each a model, and whether its bill is exact: in an evaluation, in training.
MODELS = {
    "raw": (lambda: nn.Sequential(circuit()), True, True),
    "dressed": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh(), circuit(), nn.Linear(2, 2)), True, True),
    "two in a row": (lambda: nn.Sequential(circuit(), circuit()), False, False),
    "two with a layer between": (
        lambda: nn.Sequential(nn.Linear(2, 2), circuit(), nn.Linear(2, 2), circuit()),
        False,
        False,
    ),
    "ReLU": (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), circuit()), True, False),
    "frozen ReLU": (lambda: nn.Sequential(frozen(nn.Linear(2, 2)), nn.ReLU(), circuit()), True, True),
    "threshold": (lambda: nn.Sequential(Threshold(), circuit()), True, True),
    "threshold of weights": (lambda: nn.Sequential(nn.Linear(2, 2), Threshold(), circuit()), True, False),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.5), circuit()), True, False),
    "batch normalisation": (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), circuit()), True, True),
    "two heads": (TwoHeads, True, True),
    "threshold of results": (lambda: nn.Sequential(circuit(), Threshold(), circuit()), False, False),
    "spsa": (lambda: nn.Sequential(circuit(diff_method="spsa"), nn.Linear(2, 2)), True, True),
    "frozen circuit on the data": (lambda: nn.Sequential(frozen(circuit()), nn.Linear(2, 2)), True, True),
    "LayerNorm of two": (lambda: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), circuit()), True, False),
    "steep": (lambda: nn.Sequential(Steep(), nn.Tanh(), circuit()), True, False),
    "frozen circuit": (lambda: nn.Sequential(nn.Linear(2, 2), frozen(circuit()), nn.Linear(2, 2)), True, True),
}


def rows(n=9, equal=False):
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(3))
    x[1::3] = x[0] if equal else x[1::3]
    return Dataset(x, torch.rand(n, 4, generator=torch.Generator().manual_seed(4)))


def data_for(model, equal=False):
    with torch.no_grad():
        n_outputs = model.eval()(rows().x).shape[1]
    model.train()
    data = rows(equal=equal)
    return Dataset(data.x, data.y[:, :n_outputs])


def compare(ibm, planned, exact):
    books = ibm.stats()
    counted = (books["jobs"]["accepted"], books["circuits"], books["shots"], books["quantum_seconds"])
    bound = (planned.jobs, planned.circuits, planned.shots, planned.seconds)
    assert planned.at_most is not exact and str(planned).startswith("at most") is not exact
    if exact:
        assert counted == pytest.approx(bound)
    else:
        assert all(a <= b * (1 + 1e-9) for a, b in zip(counted, bound, strict=True)), (counted, bound)
    assert books["paid_twice"] == []


@pytest.mark.parametrize("name", MODELS)
def test_the_bill_is_what_is_counted(ibm, tmp_path, name):
    make, exact_evaluation, exact_training = MODELS[name]
    torch.manual_seed(0)
    model = make()
    data = data_for(model, equal=name in ("raw", "two in a row"))
    where = {"backend": "ibm:fake_manila", "shots": 20}
    planned = hardware.plan(model, data, **where)
    assert ibm.stats()["requests"]["total"] == 0  # no account is needed
    moved = hardware.on_backend(model, **where, budget=planned, run_dir=tmp_path / "test", patience=QUICK)
    qbp.evaluate(moved, data)
    compare(ibm, planned, exact_evaluation)
    ibm.reset()
    settings = {"epochs": 2, "batch_size": 4, "seed": 1}
    planned = hardware.plan(model, data, **where, **settings)
    moved = hardware.on_backend(model, **where, budget=planned, run_dir=tmp_path / "train", patience=QUICK)
    qbp.fit(moved, data, **settings)
    compare(ibm, planned, exact_training)


QUICK_ONES = ("the same twice", "column by column", "no gradient", "alike at first", "without gradient")


@pytest.mark.parametrize("name", [n if n in QUICK_ONES else pytest.param(n, marks=pytest.mark.slow) for n in CALLED])
def test_equal_jobs_are_one(ibm, tmp_path, name):
    make, exact_evaluation, exact_training = CALLED[name]
    torch.manual_seed(0)
    model = make()
    x = rows().x.round()
    with torch.no_grad():
        data = Dataset(x, model.eval()(x))
    where = {"backend": "ibm:fake_manila", "shots": 20}
    planned = hardware.plan(model, data, **where)
    qbp.evaluate(hardware.on_backend(model, **where, budget=planned, run_dir=tmp_path / "test", patience=QUICK), data)
    compare(ibm, planned, exact_evaluation)
    for batch_size in (1, 4):
        ibm.reset()
        settings = {"epochs": 2, "batch_size": batch_size, "seed": 1}
        planned = hardware.plan(model, data, **where, **settings)
        run = tmp_path / f"train-{batch_size}"
        qbp.fit(hardware.on_backend(model, **where, budget=planned, run_dir=run, patience=QUICK), data, **settings)
        compare(ibm, planned, exact_training)


@pytest.mark.parametrize(
    "options",
    [
        Options(measure_twirling=True),
        Options(gate_twirling=True, num_randomizations=3),
        Options(measure_twirling=True, shots_per_randomization=7),
        Options(resilience_level=1, rep_delay=0.0004),
        Options(zne_noise_factors=(1, 3), zne_amplifier="gate_folding_front", zne_extrapolator=("linear", "fallback")),
        Options(initial_layout=(3, 2), dynamical_decoupling="XY4", private=True),
        Options(dry_run=True),
    ],
    ids=lambda options: "-".join(options.changed()),
)
def test_options_reach_the_service_and_the_bill(ibm, tmp_path, options):
    model, data = nn.Sequential(circuit()), rows()
    data = Dataset(data.x, data.y[:, :2])
    where = {"backend": "ibm:fake_manila", "shots": 20, "options": options}
    planned = hardware.plan(model, data, **where)
    moved = hardware.on_backend(model, **where, budget=1000, run_dir=tmp_path, patience=QUICK)
    qbp.evaluate(moved, data)
    books = ibm.stats()
    assert (planned.jobs, planned.circuits, planned.shots) == (
        books["jobs"]["accepted"],
        books["circuits"],
        books["shots"],
    )
    slower = planned.shots * max(0, (options.rep_delay or 0) - 250e-6)  # the server's formula knows no delay
    assert planned.seconds == pytest.approx(books["quantum_seconds"] + slower)
    assert hardware.spent(moved).seconds == pytest.approx(books["quantum_seconds"])
    (job,) = ibm.service_state.jobs.values()
    assert job.cost == (5 if options.dry_run else int(np.ceil(1.5 * planned.seconds + 5)))
    assert job.private is options.private and job.backend == ("mock_manila" if options.dry_run else "fake_manila")
    sent = str(job.params.get("options"))
    assert ("0.0004" in sent) is (options.rep_delay is not None)
    if options.initial_layout is not None:
        (compiled,) = moved[0].executor._compiled.values()
        assert set(compiled.layout) == {2, 3}
    again = hardware.on_backend(model, **where, budget=1000, run_dir=tmp_path, patience=QUICK)
    qbp.evaluate(again, data)  # private results are read once: here they are in the ledger
    assert ibm.stats()["jobs"]["accepted"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"fractional_gates": True, "gate_twirling": True},
        {"fractional_gates": True, "resilience_level": 2},
        {"zne_extrapolator": "linear"},
        {"zne_noise_factors": (1, 3), "zne_amplifier": "prayer"},
        {"zne_noise_factors": (1, float("nan"))},
        {"rep_delay": float("nan")},
        {"rep_delay": -1.0},
        {"num_randomizations": 0},
        {"initial_layout": (1, 1)},
        {"precision": float("nan")},
        {"max_executions": 0.5},
    ],
)
def test_options_that_are_none(wrong):
    with pytest.raises(ArgumentError):
        Options(**wrong)


def test_a_device_of_133_qubits(ibm, tmp_path):
    """Idle wires are dropped; the outputs are those of the circuit."""
    model, data = nn.Sequential(circuit(4)), Dataset(torch.rand(3, 4), torch.rand(3, 4))
    moved = hardware.on_backend(model, "ibm:fake_torino", shots=2000, budget=100, run_dir=tmp_path, patience=QUICK)
    with torch.no_grad():
        assert (moved(data.x) - model(data.x)).abs().max() < 5 / 2000**0.5
    with pytest.raises(CircuitError, match="6 qubits does not fit on 'ibm:fake_manila', which has 5"):
        wide = Dataset(torch.rand(2, 6), torch.rand(2, 6))
        hardware.plan(nn.Sequential(circuit(6)), wide, backend="ibm:fake_manila", shots=10)


def test_forty_touched_wires(ibm, tmp_path):
    model, x = nn.Sequential(circuit(40)), torch.rand(2, 40, generator=torch.Generator().manual_seed(0))
    moved = hardware.on_backend(model, "ibm:fake_torino", shots=500, budget=100, run_dir=tmp_path, patience=QUICK)
    with torch.no_grad():
        got = moved(x)
        angles = torch.cumprod(torch.cos(x + model[0].weights.detach().reshape(1, 40)), 1)
    # <Z_k> behind a ring of CNOTs: wire k > 0 holds the parity of the wires up to k, wire 0 that of all others
    assert (got[:, 1:] - angles[:, 1:]).abs().max() < 5 / 500**0.5


# ---- rehearsals ------------------------------------------------------------------------------------------------------


def test_a_rehearsal_keeps_ledger_and_budget(tmp_path):
    model, data = nn.Sequential(circuit()), rows()
    data = Dataset(data.x, data.y[:, :2])
    where = {"backend": "fake:manila", "shots": 50}
    planned = hardware.plan(model, data, **where)
    assert planned.seconds > 2 and hardware.plan(model, data, backend="ibm:ibm_manila", shots=50) == planned
    moved = hardware.on_backend(model, **where, budget=planned, run_dir=tmp_path)
    first = qbp.evaluate(moved, data)
    assert hardware.spent(moved) == planned
    assert [e.state for e in read_ledger(tmp_path / "jobs")[1].values()] == ["DONE"]
    assert qbp.evaluate(moved, data) == first and hardware.spent(moved) == planned
    with pytest.raises(BudgetError):
        moved(data.x + 1)
    with pytest.raises(ArgumentError, match="run_dir"):
        hardware.on_backend(model, **where, budget=1)


def test_a_rehearsal_waits_and_is_sent_ahead(tmp_path):
    model, data = nn.Sequential(circuit()), rows()
    data = Dataset(data.x, data.y[:, :2])
    later = hardware.on_backend(model, "fake:manila", shots=50, run_dir=tmp_path, wait=False)
    assert hardware.send(later, data) == 1
    assert hardware.send(later, data) == 0  # looked at again, it is done
    qbp.evaluate(later, data)
    other = hardware.on_backend(model, "fake:manila", shots=50, run_dir=tmp_path, wait=False)
    with pytest.raises(PendingError), torch.no_grad():
        other(data.x + 1)


def test_a_fake_layer_runs_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = circuit(backend="fake:manila", shots=50)
    with torch.no_grad():
        assert layer(rows().x).shape == (9, 2)
    assert not list(tmp_path.iterdir())


# ---- more than 64 wires ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 62, 63, 64, 65, 72, 127])
def test_samples_of_any_number_of_wires(n, rng):
    from types import SimpleNamespace as Part

    from qiskit.primitives.containers import BitArray

    program = Program(n, (), (*(Expval.word("Z", w) for w in range(n)), Probs((0, n - 1))), 0)
    compiled = compile_program(program, None, Options())
    read = rng.random((1, 100, n)) < 0.3
    pubs = [Part(data=Part(meas=BitArray.from_bool_array(read, order="big"))) for _ in compiled.groups]
    results = _sampled(compiled, pubs, Work("", np.zeros((1, 0)), Payload(compiled, Options(), 100, 0), 1, 100, 1.0))
    np.testing.assert_allclose(results.values[0, :n], 1 - 2 * read[0].mean(0), atol=1e-12)
    pairs = 2 * read[0, :, 0] + read[0, :, n - 1]
    np.testing.assert_allclose(results.values[0, n:], np.bincount(pairs, minlength=4) / 100, atol=1e-12)


def test_counts_of_any_number_of_wires():
    read = Outcomes.of_counts([{hex(2**70 + 1): 3, "0x0": 1}], 4)
    assert [read.bit(k).tolist() for k in (0, 1, 70, 90)] == [[1, 0], [0, 0], [1, 0], [0, 0]]

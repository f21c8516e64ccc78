"""A model moved to another backend, and the plan of what it costs there: counted on local primitives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qbp import data, hardware
from qbp.errors import ArgumentError, BudgetError
from qbp.executors.noisy_device import NoisyDevice
from qbp.jobs.cost import Budget, Cost
from qbp.jobs.jobs import run_unrecorded
from qbp.nn import models
from qbp.nn.layer import QuantumLayer
from qbp.training.fitting import evaluate, fit


class Spy:
    """A runner that runs, and counts."""

    def __init__(self):
        self.cost = Cost()

    def __call__(self, primitive, work):
        self.cost += Cost(1, work.n_circuits, work.n_circuits * work.shots, work.seconds)
        return run_unrecorded(primitive, work)


def spied(model, **where):
    """A copy on a backend, and the spy on its jobs."""
    moved, spy = hardware.on_backend(model, **where), Spy()
    for layer in moved.modules():
        if isinstance(layer, QuantumLayer):
            layer.executor.runner = spy
    return moved, spy


def small(raw=False, **options):
    layer = QuantumLayer("basic_entangler", n_qubits=3, n_layers=1, seed=0, **options)
    front = () if raw else (nn.Linear(3, 3), nn.Tanh())
    torch.manual_seed(1)
    return nn.Sequential(*front, layer, nn.Linear(3, 2))


def rows(n, distinct=True, seed=0):
    x = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed))
    return data.Dataset(x if distinct else (x > 0.5).float(), torch.arange(n) % 2)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("method", ["best", "spsa"])
def test_the_plan_of_training_is_what_training_takes(raw, distinct, method):
    model, train = small(raw, diff_method=method), rows(21, distinct)
    settings = {"epochs": 2, "batch_size": 8, "validation": 0.25, "seed": 3}
    planned = hardware.plan(model, train, backend="aer", shots=50, **settings)
    moved, spy = spied(model, backend="aer", shots=50)
    fit(moved, train, **settings)
    assert planned == spy.cost and planned.jobs == 2 * (2 + 1)
    if not distinct:  # equal rows of a batch are one circuit
        assert planned.circuits < hardware.plan(model, rows(21), backend="aer", shots=50, **settings).circuits


def test_the_plan_of_an_evaluation():
    model, test = small(), rows(10)
    planned = hardware.plan(model, test, backend="aer", shots=50, batch_size=4, rate=2.0)
    moved, spy = spied(model, backend="aer", shots=50)
    evaluate(moved, test, batch_size=4)
    assert planned == spy.cost.at(2.0) and planned == Cost(3, 10, 500, 0.0, 0.0)


def test_a_hybrid_step_is_one_job():
    model = nn.Sequential(nn.Linear(8, 4), QuantumLayer("basic_entangler", n_qubits=4, n_layers=2), nn.Linear(4, 2))
    x = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    train = data.Dataset(x, torch.arange(8) % 2)
    planned = hardware.plan(model, train, backend="aer", shots=10, epochs=1, batch_size=8)
    assert (planned.jobs, planned.circuits) == (1, 8 * (1 + 2 * 8))  # the inputs' shifts are those of the first weights


def test_planning_leaves_everything_as_it_was():
    model, train = small(), rows(12)
    before, random = [p.clone() for p in model.parameters()], torch.get_rng_state()
    hardware.plan(model, train, backend="aer", shots=10, epochs=2)
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(model.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), random) and model[2].backend == "native"


def test_a_moved_model_has_the_same_weights_and_outputs():
    model, x = small().double(), rows(6).x.double()
    moved = hardware.on_backend(model, "qiskit")
    torch.testing.assert_close(moved(x), model(x), rtol=0, atol=1e-12)
    assert (moved[2].backend, moved[2].diff_method) == ("qiskit", "parameter-shift")
    assert (model[2].backend, model[2].diff_method) == ("native", "adjoint")
    with torch.no_grad():
        moved[3].bias += 1
    assert not torch.equal(moved[3].bias, model[3].bias)
    back = hardware.on_backend(moved, "native")
    assert (back[2].backend, back[2].diff_method) == ("native", "parameter-shift")


def test_layers_share_one_primitive():
    model = nn.Sequential(*(QuantumLayer("basic_entangler", n_qubits=2, n_layers=1) for _ in range(2)))
    moved = hardware.on_backend(model, "aer", shots=5)
    assert moved[0].executor.primitive is moved[1].executor.primitive
    assert moved[0].executor is not moved[1].executor
    planned = hardware.plan(model, data.Dataset(torch.rand(4, 2), torch.rand(4, 2)), backend="aer", shots=5)
    assert planned.jobs == 2


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, d: hardware.on_backend(models.mlp(3, 2, seed=0), "aer"), "must hold a QuantumLayer"),
        (lambda m, d: hardware.on_backend("digits", "aer"), "must be a torch.nn.Module, but is a str"),
        (lambda m, d: hardware.plan(m, d, backend="native"), "must be one that takes jobs, but is 'native'"),
        (lambda m, d: hardware.plan(m, d, backend="aer", epochs=0), "`epochs` must be a positive integer"),
        (lambda m, d: hardware.session(m, "hour").__enter__(), "`mode` must be one of 'batch', 'session'"),
        (lambda m, d: hardware.session(hardware.on_backend(m, "aer")).__enter__(), "must run on a quantum computer"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(small(), rows(4))


def test_costs_add_up():
    step = Cost(1, 10, 1000, 2.5).at(2.0)
    assert 3 * step == step + step + step == Cost(3, 30, 3000, 7.5, 15.0)
    assert str(step) == "1 jobs, 10 circuits, 1,000 shots, 2.5 quantum seconds, price 5.00"


@pytest.mark.parametrize(
    "budget, spent, message",
    [
        (Budget(seconds=3), Cost(), None),
        (Budget.of(3), Cost(1, 1, 1, 0.5), None),
        (Budget.of(Cost(1, 10, 1000, 2.5)), Cost(), None),
        (Budget.of(2), Cost(), r"needs 2\.5 quantum seconds, and the budget is 2$"),
        (Budget(seconds=3), Cost(1, 1, 1, 1.0), r"needs 2\.5 quantum seconds on top of 1, and the budget is 3"),
        (Budget(jobs=4), Cost(4), "needs 1 jobs on top of 4, and the budget is 4"),
        (Budget(price=4, rate=2.0), Cost(), "needs 5 in money, and the budget is 4"),
    ],
)
def test_budgets(budget, spent, message):
    cost = Cost(1, 10, 1000, 2.5)
    if message is None:
        budget.check(cost, spent)
    else:
        with pytest.raises(BudgetError, match=message):
            budget.check(cost, spent)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"price": 5.0}, {"rate": -1.0}, {"jobs": -3}])
def test_budgets_that_are_none(wrong):
    with pytest.raises(ArgumentError, match="must"):
        Budget(**wrong)
    with pytest.raises(ArgumentError, match="`budget` must be quantum seconds"):
        Budget.of("a lot")


def test_a_rule_with_a_memory_goes_along_where_it_works():
    pruning = hardware.on_backend(small(diff_method="gradient-pruning"), "aer", shots=5)
    assert pruning[2].diff_method == pruning[2].rule.name == "gradient-pruning"
    shots = QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, diff_method="gcans", shots=20)
    moved = hardware.on_backend(nn.Sequential(shots), "aer", shots=5)
    assert (moved[0].diff_method, moved[0].rule) == ("parameter-shift", None)
    moved(torch.zeros(2, 2)).sum().backward()


def test_every_layer_of_a_model_is_as_exact_as_the_first():
    pytest.importorskip("qiskit_aer")
    options = {"n_qubits": 2, "n_layers": 1}
    model = nn.Sequential(*(QuantumLayer("basic_entangler", seed=k, **options) for k in range(3))).double()
    moved = hardware.on_backend(model, "fake:manila")
    assert [(type(layer.executor), layer.diff_method) for layer in moved] == 3 * [(NoisyDevice, "adjoint")]
    noisy = (QuantumLayer("basic_entangler", seed=k, noise="fake:manila", **options) for k in range(3))
    x = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(moved(x), nn.Sequential(*noisy).double()(x), atol=1e-12, rtol=0)

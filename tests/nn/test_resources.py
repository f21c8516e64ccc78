"""The one counter, held to an executor that counts what it is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qbp
from qbp.circuit.angles import AngleMap, Angles, Terms
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Program, gate_ops
from qbp.circuit.tracing import Circuit
from qbp.compression.experiment import cost_of
from qbp.errors import ArgumentError
from qbp.executors.dense import Dense
from qbp.nn.resources import count, resources, size


class Spy(Dense):
    """The dense executor, which counts parameter sets, and the gates of the circuits that it is given."""

    name = "spy"

    def __init__(self):
        self.sets, self.programs = 0, {}

    def __call__(self, program, angles, amplitudes=None):
        self.sets += Angles.of(angles).n_samples
        self.programs[program] = [len(op.wires) for op in program.ops]
        return super().__call__(program, angles, amplitudes)


def step(model: nn.Module, x: torch.Tensor, spy: Spy) -> int:
    spy.sets = 0
    outputs = model(x)
    trains = [part for part in (outputs if isinstance(outputs, tuple) else (outputs,)) if part.requires_grad]
    if trains:
        sum(part.sum() for part in trains).backward()
    return spy.sets


def circuit_of(name: str) -> Circuit:
    """One gate of the table, its parameters the inputs and then the weights; encoding and measurement that see it."""
    gate = GATES[name]
    n, k = gate.n_wires, gate.n_params
    angles = range(k)
    ops = (*gate_ops(GATES["Hadamard"], (0,), ()), *gate_ops(gate, tuple(range(n)), angles))
    program = Program(n, ops, (Expval.word("X" * n, *range(n)), Expval.word("Z", n - 1)), k)
    n_inputs = (k + 1) // 2

    def one_each(count: int) -> Terms:
        return Terms(tuple((i,) for i in range(count)), ((1.0,),) * count, (0.0,) * count)

    nothing = Terms(((0,),) * n_inputs, ((0.0,),) * n_inputs, (0.0,) * n_inputs)
    angle_map = AngleMap(n_inputs, k - n_inputs, one_each(n_inputs), nothing, one_each(k - n_inputs))
    return Circuit(program, angle_map, {"weights": (k - n_inputs,)} if k > n_inputs else {})


@pytest.mark.parametrize("name", [name for name, gate in GATES.items() if gate.n_params])
@pytest.mark.parametrize("method", ["parameter-shift", "finite-diff", "spsa"])
def test_every_gate_by_every_counter(name, method):
    spy = Spy()
    circuit = circuit_of(name)
    layer = qbp.QuantumLayer(circuit, backend=spy, diff_method=method)
    for model, x in (
        (nn.Sequential(nn.Linear(3, circuit.n_inputs), layer), torch.randn(4, 3)),
        (nn.Sequential(layer, nn.Linear(2, 1)), torch.randn(4, circuit.n_inputs)),
    ):
        executed = step(model, x, spy)
        counts = count(model, batch_size=4)
        assert counts.circuits == executed
        assert resources(model, x.shape[1], 4)["circuits_per_step"] == executed
        assert cost_of(model, batch_size=4)["circuits"] == executed and size(model)["circuits"] * 4 == executed
        (wires,) = spy.programs.values()
        assert (counts.one_qubit_gates, counts.two_qubit_gates) == (wires.count(1), len(wires) - wires.count(1))
        assert (
            resources(model, x.shape[1])["two_qubit_gates"] == size(model)["two_qubit_gates"] == counts.two_qubit_gates
        )
        assert cost_of(model)["two_qubit"] == counts.two_qubit_gates
        assert cost_of(model)["multiply_adds"] == resources(model, x.shape[1])["multiply_adds"] == counts.multiply_adds


class Any(nn.Module):
    """A model whose modules are registered in another order than they are called in."""

    def __init__(self, spy, forward):
        super().__init__()
        self.q = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=spy, diff_method="parameter-shift")
        self.unused = qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1, backend=spy)
        self.enc, self.out, self.how = nn.Linear(3, 2), nn.Linear(2, 1), forward

    def forward(self, x):
        return self.how(self, x)


FORWARDS = {
    "registered first": lambda m, x: m.q(m.enc(x)),
    "raw data": lambda m, x: m.out(m.q(x[:, :2])),
    "tanh of raw data": lambda m, x: m.q(torch.tanh(x[:, :2])),
    "called twice": lambda m, x: m.q(torch.tanh(m.q(x[:, :2]))),
    "both ways": lambda m, x: m.q(m.enc(x)) + m.q(x[:, :2]),
    "skip": lambda m, x: m.enc(x) + m.q(m.enc(x)),
    "two heads": lambda m, x: (m.out(m.q(x[:, :2])), m.enc(x)),
    "detached": lambda m, x: m.q(m.enc(x).detach()),
    "a sequence": lambda m, x: m.q(torch.stack([m.enc(x), x[:, :2], x[:, 1:]], 1)),
    "no gradient comes back": lambda m, x: m.enc(x) + m.q(x[:, :2]).detach(),
}


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("frozen", [(), ("enc",), ("q",)])
def test_autograd_says_what_is_fed(name, frozen):
    spy = Spy()
    model = Any(spy, FORWARDS[name])
    for part in frozen:
        getattr(model, part).requires_grad_(False)
    x = torch.randn(5, 3)
    executed = step(model, x, spy)
    assert count(model, x, batch_size=5).circuits == executed == cost_of(model, x=x, batch_size=5)["circuits"]


def test_a_plan_asks_for_as_many():
    """Different rows: equal ones are one circuit there."""
    pytest.importorskip("qiskit")
    data, _ = qbp.data.load("iris", seed=0)
    data = data.subset(range(4))
    model = nn.Sequential(nn.Linear(4, 2), qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1), nn.Linear(2, 3))
    bill = qbp.plan(model, data, backend="aer", shots=100, epochs=1, batch_size=4)
    assert bill.circuits == count(model, data.x, batch_size=4).circuits


def test_rules_that_remember():
    spy = Spy()
    for rule in ("guided-spsa", "gradient-pruning"):
        layer = qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=2, backend=spy, diff_method=rule)
        model = nn.Sequential(nn.Linear(3, 3), layer)
        asked = count(model, batch_size=6).circuits
        assert layer.rule.step == 0 and asked == step(model, torch.randn(6, 3), spy)


def test_the_model_stays_as_it_is():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), qbp.hybrid(2, 2, n_qubits=2, n_layers=1))
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    count(model)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and model.training
    assert all(p.grad is None for p in model.parameters()) and torch.equal(torch.get_rng_state(), random)


def test_rows_are_asked_for_where_none_are_found():
    class Words(nn.Module):
        def forward(self, x):
            raise RuntimeError("no such rows")

    with pytest.raises(ArgumentError, match="`x` must be rows"):
        count(Words())


@pytest.mark.slow
def test_wide_circuits_cost_what_the_way_that_runs_them_does():
    """Outputs that see three qubits cost small circuits, or words, whatever the whole state would take."""
    layer = qbp.QuantumLayer("hardware_efficient", n_qubits=127, n_layers=1, seed=0)
    counts = count(nn.Sequential(layer, nn.Linear(127, 2)), torch.zeros(1, 127))
    assert 127 * 2 < counts.multiply_adds - 2 * 127 < 127 * 2**3 * 4 * 20
    narrow, wide = (
        count(qbp.QuantumLayer("hardware_efficient", n_qubits=n, n_layers=2), torch.zeros(1, n)) for n in (80, 160)
    )
    assert 1.8 < wide.multiply_adds / narrow.multiply_adds < 2.3
    twin = layer.to_classical()
    assert count(twin, torch.zeros(1, 127)).multiply_adds >= 2 * twin.n_words


def test_multiply_adds_are_counted_once_for_a_row():
    """Not again for each shifted circuit of a step."""
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=3, n_layers=1)
    assert count(layer, torch.zeros(1, 3)).multiply_adds == 8 * (4 * 6 + 2 * 3)

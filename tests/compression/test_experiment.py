"""Rows about smaller models: counted against what is executed, measured against the same calls by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import qbp
from qbp.circuit.angles import Angles
from qbp.compression.device_cost import gate_counts, saved_gates, snap
from qbp.compression.experiment import CONTROLS, compression, cost_of, quality_of, summary
from qbp.compression.groups import groups_of
from qbp.errors import ArgumentError
from qbp.executors.dense import Dense
from qbp.report.plots.compression import circuits, pareto

pytest.importorskip("qiskit_ibm_runtime")

TRAIN, TEST = qbp.data.load("mnist", classes=(3, 6), features=8, test_size=0.8, seed=0)
TEST = TEST.subset(range(60))
DEVICE = "fake:quito"


class Counting(Dense):
    """The dense executor, which counts the parameter sets that it runs."""

    name = "counting"
    sets = 0

    def __call__(self, program, angles, amplitudes=None):
        Counting.sets += Angles.of(angles).n_samples
        return super().__call__(program, angles, amplitudes)


@pytest.mark.parametrize("in_front", [True, False])
def test_circuits_of_a_training_step_are_those_executed(in_front):
    """Raw data need no gradient, so their angles are not shifted."""
    layer = qbp.QuantumLayer(
        "strongly_entangling", n_qubits=3, n_layers=1, backend=Counting(), diff_method="parameter-shift"
    )
    model = nn.Sequential(*([nn.Linear(3, 3)] if in_front else []), layer, nn.Linear(3, 2))
    Counting.sets = 0
    model(torch.randn(5, 3)).sum().backward()
    assert cost_of(model, batch_size=5)["circuits"] == Counting.sets == 5 * (1 + 2 * (12 if in_front else 9))


def test_costs():
    model = qbp.hybrid(8, 2, n_qubits=4, n_layers=3, seed=0)
    row = cost_of(model, backend=DEVICE)
    assert (row["parameters"], row["live"], row["rotations"]) == (36 + 36 + 10, 28 + 36 + 10, 40)
    assert (row["one_qubit"], row["two_qubit"], row["multiply_adds"]) == (40, 12, 8 * 4 + 4 * 2 + 16 * (4 * 40 + 2 * 4))
    assert row["bytes"] == 4 * row["parameters"] and (row["device"], row["seed_transpiler"], row["level"]) == (
        "fake:quito",
        0,
        3,
    )
    assert row["device_two_qubit"] >= 12 and row["device_depth"] > 0
    small = cost_of(qbp.prune(model, by="exact"), backend=DEVICE)
    for key in ("parameters", "rotations", "two_qubit", "device_two_qubit", "circuits", "bytes"):
        assert small[key] < row[key], key
    assert small["live"] == small["parameters"] == 28 + 36 + 10
    assert cost_of(qbp.mlp(8, 5, 2))["circuits"] == 0


def test_quality():
    model = qbp.hybrid(8, 2, n_qubits=2, n_layers=1, seed=0)
    qbp.fit(model, TRAIN, epochs=3, lr=0.05)
    row = quality_of(model, TEST, shots=200, backend=DEVICE, rows=20)
    assert row["ideal"] == qbp.evaluate(model, TEST)["accuracy"]
    assert all(0 <= row[key] <= 1 for key in ("with_shots", "with_noise"))
    assert quality_of(qbp.mlp(8, 2), TEST).keys() == {"ideal"}


def test_a_comparison_has_its_controls(tmp_path):
    rows = compression(
        lambda seed: qbp.hybrid(8, 2, n_qubits=3, n_layers=2, seed=seed),
        TRAIN,
        TEST,
        training={"epochs": 3, "lr": 0.03},
        pruning={"amount": {"entangler": 0.5}, "by": "fisher", "finetune": {"epochs": 1}},
        seeds=2,
        shots=None,
        backend=None,
    )
    assert [row["model"] for row in rows] == [*CONTROLS, *CONTROLS]
    statistics = summary(rows)
    gates = {name: statistics[name]["two_qubit"][0] for name in CONTROLS}
    assert gates == {"full": 6, "pruned": 3, "random": 3, "everything": 0, "scratch": 3}
    assert statistics["full"]["ideal"][0] == pytest.approx(sum(r["ideal"] for r in rows if r["model"] == "full") / 2)
    for suffix in ("png", "svg"):
        assert pareto(rows, tmp_path / f"pareto.{suffix}").stat().st_size > 1000
    with pytest.raises(ArgumentError, match="device_two_qubit"):
        pareto(rows, tmp_path / "pareto.png", cost="device_two_qubit")


def test_circuits_are_drawn(tmp_path):
    model = qbp.hybrid(8, 2, n_layers=3, seed=0)
    programs = {"before": model[2].circuit.program, "after": qbp.prune(model, by="exact")[2].circuit.program}
    svg = circuits(programs, tmp_path / "circuits.svg").read_text()
    assert svg.count("<!-- before -->") == svg.count("<!-- after -->") == 1
    assert svg.count("<!-- ● -->") == 12 + 8  # the CNOTs before and after
    with pytest.raises(ArgumentError, match="`programs`"):
        circuits({}, tmp_path / "circuits.svg")


# ---- the device ------------------------------------------------------------------------------------------------------


def test_gates_saved_with_the_layout_fixed():
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2, seed=0)
    groups = groups_of(layer, "gates")
    saved = saved_gates(layer, groups, DEVICE)
    full = gate_counts(layer.circuit.program, DEVICE)
    again = gate_counts(layer.circuit.program, DEVICE, layout=full.layout)
    assert again == full
    for group, value in zip(groups, saved.tolist(), strict=True):
        if group.kind == "entangler":
            ops = [op for p, op in enumerate(layer.circuit.program.ops) if p not in group.index]
            without = layer.circuit.program.__class__(
                4, tuple(ops), layer.circuit.program.measurements, layer.circuit.program.n_angles
            )
            assert value == full.two_qubit - gate_counts(without, DEVICE, layout=full.layout).two_qubit
    assert float(saved.max()) >= 1


def test_pruning_for_a_device_spares_it_more():
    model = qbp.hybrid(8, 2, n_qubits=4, n_layers=3, seed=0)
    few = qbp.prune(model, TRAIN, amount={"entangler": 0.3}, by="fisher", backend=DEVICE)
    plain = qbp.prune(model, TRAIN, amount={"entangler": 0.3}, by="fisher")
    count = [gate_counts(m[2].circuit.program, DEVICE).two_qubit for m in (few, plain, model)]
    assert count[0] <= count[1] < count[2]
    with pytest.raises(ArgumentError, match="`backend`"):
        qbp.prune(model, TRAIN, amount={"entangler": 0.3}, backend="native")


def test_angles_snap_where_that_spares_gates_and_no_accuracy():
    model = qbp.hybrid(8, 2, n_qubits=2, n_layers=2, seed=0)
    qbp.fit(model, TRAIN, epochs=4, lr=0.03)
    before = copy.deepcopy(model.state_dict())
    small = snap(model, TRAIN, backend=DEVICE, within=0.5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert qbp.evaluate(small, TRAIN)["accuracy"] >= qbp.evaluate(model, TRAIN)["accuracy"]
    one, two = (cost_of(m, backend=DEVICE) for m in (small, model))
    assert (one["device_two_qubit"], one["device_one_qubit"]) < (two["device_two_qubit"], two["device_one_qubit"])
    assert one["parameters"] < two["parameters"]

"""A whole chip at the loopback server: circuits wider than any simulator of states, sampled exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qbp
from qbp.executors.qiskit_primitive import Options
from qbp.executors.qiskit_primitive.fake_devices import twin_of
from qbp.executors.qiskit_primitive.isa import Compiled, compile_program
from qbp.jobs.retry import Patience

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")
from ibm_server import IBMServer
from ibm_server.circuits import measured_early

QUICK = Patience(answer=600.0, tries=5, pause=0.05, poll=0.2, settle=0.2, rate=1000)
ROWS, SHOTS = 4, 128


@pytest.fixture(scope="module")
def server():
    with IBMServer(backends=["fake_sherbrooke"], engine="exact", seed=5) as ibm, ibm.client_environment():
        yield ibm


def chip(**options) -> qbp.QuantumLayer:
    layer = qbp.QuantumLayer("hardware_efficient", n_layers=2, coupling_map="fake:sherbrooke", seed=0, **options)
    assert layer.circuit.n_qubits == 127
    return layer


def transpiled(layer: qbp.QuantumLayer) -> Compiled:
    return compile_program(layer.circuit.program, twin_of("ibm_sherbrooke"), Options(optimization_level=1))


def random_circuit(rng: np.random.Generator, n_wires: int, n_gates: int):
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(n_wires, n_wires)
    for _ in range(n_gates):
        first = int(rng.integers(n_wires - 1))
        circuit.u(*rng.uniform(0, 6, 3), first)
        circuit.cx(first, first + 1) if rng.random() < 0.5 else circuit.cp(rng.uniform(0, 6), first + 1, first)
    return circuit


@pytest.mark.parametrize("seed", range(4))
def test_measuring_early_changes_no_outcome(seed: int):
    """Of random circuits, all wires measured or some, against their exact probabilities."""
    from qiskit.quantum_info import Statevector
    from qiskit_aer import AerSimulator
    from scipy.stats import chi2

    rng = np.random.default_rng(seed)
    circuit, shots = random_circuit(rng, 6, 8), 20_000
    measured = rng.permutation(6)[: 6 if seed % 2 else 4].tolist()
    want = Statevector(circuit.decompose()).probabilities_dict(measured)
    for place, wire in enumerate(measured):
        circuit.measure(wire, place)
    small = measured_early(circuit)
    assert small.num_qubits <= 6 and small.count_ops()["measure"] == len(measured)
    counts = AerSimulator(seed_simulator=seed, max_parallel_threads=1).run(small, shots=shots).result().get_counts()
    seen = {key[::-1][: len(measured)][::-1]: n for key, n in counts.items()}
    expected = np.array([shots * p for p in want.values()])
    got = np.array([seen.get(key, 0) for key in want])
    assert got.sum() == shots
    large = expected > 5
    statistic = ((got - expected)[large] ** 2 / expected[large]).sum()
    assert chi2.sf(statistic, large.sum()) > 1e-4


def test_a_shallow_circuit_of_a_whole_chip_needs_few_wires():
    circuit = transpiled(chip()).circuit.copy()
    circuit.measure_all()
    small = measured_early(circuit)
    assert circuit.num_qubits == 127 and small.num_qubits <= 16
    assert small.count_ops()["measure"] == 127 and small.parameters == circuit.parameters
    before, after = circuit.count_ops(), small.count_ops()
    assert after.pop("reset") == 127 and before.pop("barrier") and after == before


def pairs(layer: qbp.QuantumLayer) -> list[str]:
    """Z of each wire, and ZZ of coupled ones: what shots say of single wires, and of how wires go together."""
    edges = [op.wires for op in layer.circuit.program.ops if len(op.wires) == 2][:144]
    return ["".join("Z" if wire in on else "I" for wire in range(127)) for on in [*((w,) for w in range(127)), *edges]]


@pytest.mark.slow
def test_a_batch_of_127_qubits_is_planned_and_run(ibm: IBMServer, tmp_path: Path):
    from scipy.stats import chi2

    layer = chip(observables=pairs(chip()))
    rows: Tensor = torch.rand(ROWS, 127, generator=torch.Generator().manual_seed(1)) * 2
    model = nn.Sequential(layer, nn.Linear(271, 2))
    data = qbp.data.Dataset(rows, torch.arange(ROWS) % 2)
    cost = qbp.plan(model, data, backend="ibm:fake_sherbrooke", shots=SHOTS)
    assert (cost.jobs, cost.circuits, cost.shots) == (1, ROWS, ROWS * SHOTS)
    options = Options(optimization_level=1)
    moved = qbp.on_backend(
        model, "ibm:fake_sherbrooke", shots=SHOTS, budget=cost, run_dir=tmp_path, patience=QUICK, options=options
    )
    with torch.no_grad():
        exact, got, outputs = layer(rows), moved[0](rows), moved(rows)  # the second call reads what the first has paid
        assert torch.equal(outputs, model[1](got))
    books = ibm.stats()
    assert books["jobs"]["by_status"] == {"Completed": 1} and books["paid_twice"] == []
    assert (books["circuits"], books["shots"]) == (ROWS, ROWS * SHOTS)
    variance = (1 - exact.double() ** 2).clamp(min=1e-3) / SHOTS
    statistic = float(((got - exact).double() ** 2 / variance).sum())
    assert 1e-4 < chi2.sf(statistic, exact.numel()) < 1 - 1e-4

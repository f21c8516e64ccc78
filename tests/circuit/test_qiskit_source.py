"""Qiskit circuits as layers: Qiskit's own `Statevector` is the reference, qubit k of Qiskit is wire k of qbp."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit, QuantumRegister, synthesis
from qiskit.circuit import (
    AnnotatedOperation,
    ControlModifier,
    InverseModifier,
    Parameter,
    ParameterVector,
    PowerModifier,
    library,
)
from qiskit.quantum_info import (
    Operator,
    Pauli,
    PauliList,
    SparseObservable,
    SparsePauliOp,
    Statevector,
    random_clifford,
)

from qbp import QuantumLayer
from qbp.circuit.program import Probs
from qbp.errors import ArgumentError, CircuitError

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of Qiskit's Statevector

A, B, C = (Parameter(name) for name in ("x10", "x2", "a0"))  # in no order that names have


def z_words(n_qubits):
    return [SparsePauliOp.from_sparse_list([("Z", [k], 1.0)], n_qubits) for k in range(n_qubits)]


def expected(circuit, parameters, rows, observables):
    """Expectation values (B, M) by Qiskit; `rows` hold the values of `parameters`."""
    states = [Statevector(circuit.assign_parameters(dict(zip(parameters, row, strict=True)))) for row in rows]
    return torch.tensor(
        [[state.expectation_value(o).real for o in observables] for state in states], dtype=torch.float64
    )


def assert_qiskits(circuit, inputs, weights, observables=None, measured=None, batch=2):
    """The layer of a circuit gives Qiskit's numbers; `measured`: the observables as the layer takes them."""
    inputs, weights = list(inputs), list(weights)
    layer = QuantumLayer(
        circuit, input_params=inputs, weight_params=weights, observables=observables if measured is None else measured
    ).double()
    x = torch.empty(batch, len(inputs), dtype=torch.float64).uniform_(-2, 2)
    weight = [layer.weight.detach().expand(batch, -1)] if weights else []
    rows = torch.cat([x, *weight], dim=1).tolist()
    want = expected(circuit, inputs + weights, rows, observables or z_words(circuit.num_qubits))
    torch.testing.assert_close(layer(x), want, atol=1e-10, rtol=0)
    return layer


def prepared(n_qubits=3):
    """A circuit that starts where no symmetry hides a mistake."""
    circuit = QuantumCircuit(n_qubits)
    for qubit in range(n_qubits):
        circuit.u(0.3 + 0.2 * qubit, 0.1 * qubit, 0.5, qubit)
    return circuit


def finished(circuit):
    """Followed by rotations, so that every gate is seen in the expectation values of Z."""
    for qubit in range(circuit.num_qubits):
        circuit.rx(0.4 + 0.3 * qubit, qubit)
        circuit.cry(1.1, qubit, (qubit + 1) % circuit.num_qubits) if circuit.num_qubits > 1 else None
    return circuit


# ---- random circuits -----------------------------------------------------------------------------------------------

NAMES = ["x10", "x2", "θ[1]", "θ[0]", "a", "pi", "E", "I", "lambda", "x[2]", "σ_z", "b c", "x'", "w10", "w9", "sin"]


def random_angle(rng, parameters):
    p, q = (parameters[k] for k in rng.integers(len(parameters), size=2))
    a = float(rng.normal())
    return [p, a * p, p + q, p * q, (math.pi - p) * (math.pi - q), p.sin() * q, p**2 - q / 3, (p / 5).arctan(), a][
        rng.integers(9)
    ]


GATES = {  # a standard gate by the name of `QuantumCircuit`'s method: parameters, qubits
    **dict.fromkeys(["rx", "ry", "rz", "p"], (1, 1)),
    **{"u": (3, 1), "r": (2, 1), "cu": (4, 2)},
    **dict.fromkeys(["crx", "cry", "crz", "cp", "rxx", "ryy", "rzz", "rzx"], (1, 2)),
    **dict.fromkeys(["h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg", "id"], (0, 1)),
    **dict.fromkeys(["cx", "cy", "cz", "ch", "cs", "csdg", "csx", "swap", "iswap", "ecr", "dcx"], (0, 2)),
    **dict.fromkeys(["ccx", "ccz", "cswap", "rccx"], (0, 3)),
}
OPEN = ["cx", "cy", "cz", "ch", "crx", "cry", "crz", "cp", "cu", "ccx", "ccz", "cswap", "csx"]


def random_circuit(rng):
    """A circuit, and its parameters split into inputs and weights in an order of no meaning."""
    n_qubits = int(rng.integers(3, 5))
    parameters = [Parameter(str(name)) for name in rng.permutation(NAMES)[:5]]
    circuit = QuantumCircuit(n_qubits)
    for qubit in range(n_qubits):
        circuit.h(qubit)
    for _ in range(rng.integers(5, 15)):
        kind = rng.choice(["gate", "open", "nested", "evolution", "inverse"], p=[0.6, 0.15, 0.1, 0.1, 0.05])
        qubits = [int(q) for q in rng.permutation(n_qubits)]
        if kind == "evolution":
            operator = SparsePauliOp("".join(rng.choice(list("IXYZ"), size=2)), float(rng.normal()))
            circuit.append(library.PauliEvolutionGate(operator, time=random_angle(rng, parameters)), qubits[:2])
            continue
        name = str(rng.choice(OPEN if kind == "open" else list(GATES)))
        n_params, n_on = GATES[name]
        angles = [random_angle(rng, parameters) for _ in range(n_params)]
        into = (
            circuit if kind in ("gate", "open") else QuantumCircuit(n_qubits, name=str(rng.choice(["rx", "cx", "sub"])))
        )
        options = {"ctrl_state": 0} if kind == "open" else {}
        getattr(into, name)(*angles, *qubits[:n_on], **options)
        if into is not circuit:
            into.cx(0, 1)
            gate = into.to_gate()
            circuit.append(gate.inverse() if kind == "inverse" else gate, qubits)
    for parameter, qubit in zip(parameters, [0, 1, 2, 0, 1], strict=True):
        circuit.ry(parameter, qubit)
    order = [parameters[k] for k in rng.permutation(5)]
    cut = int(rng.integers(1, 5))
    return circuit, order[:cut], order[cut:]


def random_observable(rng, n_qubits):
    words = ["".join(rng.choice(list("IXYZ"), size=n_qubits)) for _ in range(rng.integers(1, 4))]
    return SparsePauliOp(words, rng.normal(size=len(words)))


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(s, marks=pytest.mark.slow) for s in range(10, 60))])
def test_twenty_random_circuits(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        circuit, inputs, weights = random_circuit(rng)
        observables = [random_observable(rng, circuit.num_qubits) for _ in range(2)]
        assert_qiskits(circuit, inputs, weights, observables)


# ---- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [*NAMES, "π", "N", "S", "Q", "beta", "oo", "1", "x+y", "x*2", "$\\alpha$", "-", "__import__('os')"]
)
def test_names_of_parameters_mean_nothing(name):
    named, other = Parameter(name), Parameter("other")
    circuit = prepared(2)
    circuit.rx(2 * named + other, 0)
    circuit.ry(named * other, 1)
    circuit.cx(0, 1)
    circuit.rz(named, 1)
    circuit.rx(other / 3 - named**2, 1)
    assert_qiskits(circuit, [named], [other])
    assert_qiskits(circuit, [other], [named])


FUNCTIONS = {
    "sin": lambda p, q: p.sin() * q,
    "cos": lambda p, q: (p * q).cos(),
    "tan": lambda p, q: (p / 5).tan() - q,
    "arcsin": lambda p, q: (p / 7).arcsin() + (q / 7).arccos() * p.arctan(),
    "exp and log": lambda p, q: (p / 3).exp() * (q * q + 1).log(),
    "abs and sign": lambda p, q: abs(p) * q.sign(),
    "conjugate": lambda p, q: p.conjugate() - q,
    "powers": lambda p, q: p**3 - (q * q) ** 0.5 + (p + 9) ** -1,
    "zz feature map": lambda p, q: 2 * (np.pi - p) * (np.pi - q),
    "polynomial": lambda p, q: p**2 * q**3 - p * q + 1,
    "reversed": lambda p, q: 1 - p / (q + 7) - 3 / (p + 9),
    "constant": lambda p, q: p - p + 0.3 + 0 * q,
    "power of a number": lambda p, q: 2**p - 3 ** (p * q),
    "quotients of quotients": lambda p, q: (p / (q + 7)) ** 2 / (3 / (p + 9)) - 2 / (q + 9) ** 2,
    "one parameter of two": lambda p, q: 0 * p + 1 * q + 0.0 * p,
    "one parameter left": lambda p, q: p - p + q,
    "one parameter of a quotient": lambda p, q: (p * q) / (q * 1.0),
    "signs": lambda p, q: -(p**2) + (-q) ** 2 - (-p - -q),
    "every digit": lambda p, q: 0.1234567890123456 * p + np.float64(1 / 3) * q,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_parameters(name):
    circuit = prepared(2)
    circuit.rx(FUNCTIONS[name](A, B), 0)
    circuit.ry(FUNCTIONS[name](B, A), 1)
    circuit.cx(0, 1)
    circuit.rx(A, 0)
    circuit.ry(B, 1)
    assert_qiskits(circuit, [B], [A])


def test_the_order_of_parameters_is_the_callers():
    x, w = ParameterVector("x", 12), ParameterVector("θ", 12)
    circuit = QuantumCircuit(2)
    for k in range(12):
        circuit.ry(x[k] * (k + 1) / 5, k % 2)
        circuit.rx(w[11 - k], (k + 1) % 2)
        circuit.cx(k % 2, (k + 1) % 2)
    assert [p.name for p in circuit.parameters[:3]] == ["x[0]", "x[1]", "x[2]"]
    assert_qiskits(circuit, x, w)
    assert_qiskits(circuit, list(x)[::-1], [w[k] for k in np.random.permutation(12)])
    assert_qiskits(circuit, [*w], [*x])


@pytest.mark.parametrize(
    ("inputs", "weights", "text"),
    [
        ([A], [], "lack parameters of the circuit: x2"),
        (None, [A], "lack parameters of the circuit: x2"),
        ([A, B], [B], "more than once: x2"),
        ([A, A], [B], "more than once: x10"),
        ([A, Parameter("x10")], [B], "no parameter of the circuit: x10"),
        (["x10"], [A, B], "no parameter of the circuit: 'x10'"),
    ],
)
def test_faults_of_parameters_are_named(inputs, weights, text):
    circuit = QuantumCircuit(1)
    circuit.rx(A * B, 0)
    with pytest.raises(ArgumentError, match=text):
        QuantumLayer(circuit, input_params=inputs, weight_params=weights)


def test_circuits_without_inputs_or_without_weights():
    circuit = prepared(2)
    circuit.rxx(A * B, 0, 1)
    assert list(assert_qiskits(circuit, [A, B], []).parameters()) == []
    layer = assert_qiskits(circuit, [], [A, B])
    layer(torch.zeros(3, 0)).sum().backward()
    assert layer.weight.grad.any()


# ---- circuits ------------------------------------------------------------------------------------------------------

FEATURE_MAPS = {
    "zz": lambda: library.zz_feature_map(3, reps=2),
    "zz linear": lambda: library.zz_feature_map(3, reps=1, entanglement="linear"),
    "z": lambda: library.z_feature_map(3),
    "pauli": lambda: library.pauli_feature_map(3, paulis=["Z", "YY", "ZXZ"]),
    "custom": lambda: library.zz_feature_map(2, data_map_func=lambda x: np.prod([1 - v for v in x])),
}
ANSATZE = {
    "real_amplitudes": lambda n: library.real_amplitudes(n, reps=2),
    "efficient_su2": lambda n: library.efficient_su2(n, reps=1, entanglement="circular"),
    "n_local": lambda n: library.n_local(n, ["ry", "rz"], "crx", reps=1),
    "excitation_preserving": lambda n: library.excitation_preserving(n, reps=1),
}


@pytest.mark.parametrize("ansatz", ANSATZE)
@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
def test_feature_maps_and_ansatze(feature_map, ansatz):
    first = FEATURE_MAPS[feature_map]()
    second = ANSATZE[ansatz](first.num_qubits)
    assert_qiskits(first.compose(second), first.parameters, second.parameters)
    assert_qiskits(second.compose(first), first.parameters, second.parameters)


def subset_gate(make, *qubits):
    return lambda circuit: circuit.append(make(), qubits)


SPECIAL = {
    "u1, u2, u3": lambda c: [
        c.append(g, [k]) for k, g in enumerate([library.U1Gate(A), library.U2Gate(A, B), library.U3Gate(A, B, 0.1)])
    ],
    "cu3": subset_gate(lambda: library.CU3Gate(A, B, 0.7), 2, 1),
    "xx minus yy": subset_gate(lambda: library.XXMinusYYGate(A, B), 2, 0),
    "xx plus yy": subset_gate(lambda: library.XXPlusYYGate(A, B), 0, 2),
    "mcp": lambda c: c.mcp(A, [2, 0], 1),
    "mcrx": lambda c: c.mcrx(A, [0, 1], 2),
    "mcx": lambda c: c.mcx([0, 2], 1, ctrl_state=1),
    "controls by state": subset_gate(lambda: library.RXGate(A).control(2, ctrl_state=1), 2, 0, 1),
    "annotated": subset_gate(lambda: library.UGate(A, B, 0.4).control(1, annotated=True), 2, 0),
    "inverse": subset_gate(lambda: library.CUGate(A, B, 0.2, 0.3).inverse(), 2, 0),
    "power": subset_gate(lambda: library.SXGate().power(0.3), 0),
    "inverse iswap": subset_gate(lambda: library.iSwapGate().inverse(), 2, 0),
    "inverse ecr": subset_gate(lambda: library.ECRGate().inverse(), 0, 2),
    "unitary": lambda c: c.unitary(np.roll(np.diag([1, 1j, -1, 1]), 1, axis=0), [2, 0]),
    "diagonal": subset_gate(lambda: library.DiagonalGate(list(np.exp(1j * np.arange(4)))), 0, 2),
    "permutation": subset_gate(lambda: library.PermutationGate([2, 0, 1]), 0, 1, 2),
    "qft": subset_gate(lambda: library.QFTGate(3), 2, 0, 1),
    "pauli": lambda c: c.pauli("XYZ", [1, 0, 2]),
    "controlled pauli": subset_gate(lambda: library.PauliGate("XY").control(1), 2, 0, 1),
    "evolution": subset_gate(
        lambda: library.PauliEvolutionGate(SparsePauliOp(["XX", "ZZ", "II"], [0.7, -2, 1]), time=A), 0, 2
    ),
    "controlled evolution": subset_gate(
        lambda: library.PauliEvolutionGate(SparsePauliOp("ZX", 0.7), time=A * B).control(), 2, 0, 1
    ),
    "linear function": subset_gate(lambda: library.LinearFunction(np.array([[1, 1], [0, 1]])), 2, 0),
    "prepared state": lambda c: c.append(library.StatePreparation([0.6, 0, 0.8j, 0]).inverse(), [0, 2]),
    "global phases": lambda c: (setattr(c, "global_phase", A), c.append(library.GlobalPhaseGate(B).control(2), [2, 0])),
    "annotated inverse, power and control": lambda c: c.append(
        AnnotatedOperation(
            library.U3Gate(0.4, 0.2, 0.9), [InverseModifier(), PowerModifier(1.7), ControlModifier(1, 0)]
        ),
        [2, 1],
    ),
    "annotated evolution": lambda c: c.append(
        AnnotatedOperation(library.RZZGate(A), [InverseModifier(), ControlModifier(1)]), [2, 1, 0]
    ),
    "clifford": lambda c: c.append(random_clifford(3, seed=2), [2, 0, 1]),
    "controlled clifford": lambda c: c.append(
        AnnotatedOperation(random_clifford(2, seed=3), [ControlModifier(1)]), [2, 0, 1]
    ),
    "annotated powers of gates with parameters": lambda c: [
        c.append(AnnotatedOperation(library.CRXGate(A * B), [PowerModifier(0.5)]), [2, 0]),
        c.append(AnnotatedOperation(library.UGate(A, B, 0.3), [PowerModifier(-2), ControlModifier(1, 0)]), [1, 2]),
        c.append(AnnotatedOperation(library.CUGate(A, B, 0.3, 0.2), [PowerModifier(3)]), [0, 1]),
        c.append(AnnotatedOperation(library.GlobalPhaseGate(A), [PowerModifier(0.5), ControlModifier(1)]), [0]),
    ],
    "Hamiltonian": subset_gate(
        lambda: library.HamiltonianGate(
            np.array([[1, 0.5j, 0, 0.2], [-0.5j, 2, 0, 0], [0, 0, 1, 0], [0.2, 0, 0, 3]]), A
        ),
        2,
        0,
    ),
    "barriers and delays": lambda c: (c.barrier(), c.delay(3, 0), c.id(1)),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_gates(name):
    circuit = prepared()
    SPECIAL[name](circuit)
    circuit.ry(A, 0)
    circuit.rx(B, 1)
    assert_qiskits(finished(circuit), [A], [B])


EVOLUTIONS = {
    "one wire": SparsePauliOp(["X", "Z", "I"], [0.4, -1.1, 0.3]),
    "two wires": SparsePauliOp(["XX", "ZI", "IZ"], [0.9, 0.7, 0.2]),
    "three wires": SparsePauliOp(["XYZ", "ZII", "IXX", "ZZZ"], [0.7, 2, -0.6, 0.1]),
    "a group that commutes with another": SparsePauliOp(["XII", "ZII", "IZZ", "IXX"], [0.7, 2, -0.6, 0.8]),
    "several operators": [SparsePauliOp(["XY"]), SparsePauliOp(["ZI"], [0.7]), SparsePauliOp(["XY"], [0.2])],
}


@pytest.mark.parametrize("name", EVOLUTIONS)
@pytest.mark.parametrize("change", ["as it is", "inverse", "control", "power", "in a gate"])
def test_an_evolution_of_words_that_do_not_commute_is_exact(name, change):
    """As in Qiskit's `Statevector`, whatever the time depends on; gradients by its finite differences."""
    evolution = library.PauliEvolutionGate(EVOLUTIONS[name], time=A * B + A)
    inner = QuantumCircuit(evolution.num_qubits)
    inner.append(evolution, range(evolution.num_qubits))
    gate = {
        "as it is": lambda: evolution,
        "inverse": evolution.inverse,
        "control": lambda: evolution.control(1, ctrl_state=0),
        "power": lambda: evolution.power(0.3),
        "in a gate": inner.to_gate,
    }[change]()
    if isinstance(EVOLUTIONS[name], list) and change == "control":
        pytest.skip("Qiskit itself controls one operator only")
    circuit = prepared(4)
    circuit.append(gate, [2, 0, 1, 3][: gate.num_qubits])
    layer = assert_qiskits(finished(circuit), [A], [B])
    x = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    with torch.no_grad():
        torch.testing.assert_close(
            gradient, (layer(x + 1e-5) - layer(x - 1e-5)).sum()[None, None] / 2e-5, atol=1e-7, rtol=0
        )


@pytest.mark.parametrize("formula", [synthesis.LieTrotter(reps=3), synthesis.SuzukiTrotter(order=2, reps=2)])
def test_a_product_formula_that_was_chosen_is_followed(formula):
    operator = SparsePauliOp(["XYZ", "ZII", "IIX"], [0.7, 2, 0.5])
    evolution = library.PauliEvolutionGate(operator, time=A, synthesis=formula)
    circuit, written_out = prepared(), prepared()
    circuit.append(evolution, [2, 0, 1])
    written_out.compose(evolution.definition, [2, 0, 1], inplace=True)
    layers = [QuantumLayer(finished(c), input_params=[A]) for c in (circuit, written_out)]
    x = torch.randn(3, 1, dtype=torch.float64)
    torch.testing.assert_close(layers[0](x), layers[1](x), atol=1e-12, rtol=0)
    assert_qiskits(finished(written_out), [A], [])


def test_an_evolution_too_wide_to_be_exact_is_refused():
    operator = SparsePauliOp.from_sparse_list(
        [("ZZ", [k, k + 1], 1.0) for k in range(6)] + [("X", [k], 0.5) for k in range(7)], 7
    )
    circuit = QuantumCircuit(7)
    circuit.append(library.PauliEvolutionGate(operator, time=A), range(7))
    with pytest.raises(CircuitError, match=r"7 wires.*decompose"):
        QuantumLayer(circuit, input_params=[A])
    QuantumLayer(circuit.decompose(), input_params=[A])


@pytest.mark.parametrize(
    "name", ["rx", "cx", "h", "swap", "measure_x", "p", "barrier", "delay", "global_phase", "measure", "reset", "box"]
)
def test_a_gate_is_known_by_its_kind_and_not_by_its_name(name):
    inner = QuantumCircuit(2, name=name)
    inner.crx(A, 1, 0)
    inner.ry(B, 1)
    circuit = prepared()
    circuit.append(inner.to_gate(), [2, 0])
    circuit.append(inner.to_instruction(), [0, 1])
    assert_qiskits(finished(circuit), [A], [B])


def test_circuits_in_circuits():
    angle = Parameter("θ")
    inner = QuantumCircuit(2)
    inner.crx(2 * angle, 1, 0)
    inner.rz(angle, 1)
    middle = prepared()
    middle.append(inner.to_gate().control(1, ctrl_state=0), [0, 1, 2])
    middle = middle.assign_parameters({angle: A - C})
    middle.append(inner.assign_parameters({angle: A * B}).to_gate(), [2, 1])
    middle.compose(inner.assign_parameters({angle: C}), [0, 2], inplace=True)
    outer = QuantumCircuit(QuantumRegister(1, "ancilla"), QuantumRegister(3, "q"))
    outer.append(middle.to_gate(), [3, 0, 2])
    outer.append(middle.to_instruction(), [1, 2, 3])
    outer.append(inner.assign_parameters({angle: A**2}).to_gate().inverse(), [2, 0])
    outer.ry(C, 1)
    assert_qiskits(finished(outer), [C, A], [B])


def test_a_reset_or_an_initialisation_at_the_start():
    circuit = QuantumCircuit(3)
    circuit.reset(range(3))
    circuit.initialize([0.6, 0, 0, 0.8j], [0, 2])
    circuit.initialize(1, 1)
    circuit.ry(A, 1)
    written_out = QuantumCircuit(3)
    written_out.prepare_state([0.6, 0, 0, 0.8j], [0, 2])
    written_out.x(1)
    written_out.ry(A, 1)
    x = torch.randn(2, 1, dtype=torch.float64)
    layer = QuantumLayer(finished(circuit), input_params=[A])
    torch.testing.assert_close(
        layer(x), expected(finished(written_out), [A], x.tolist(), z_words(3)), atol=1e-10, rtol=0
    )


def test_boxes_and_loops_are_unrolled():
    circuit, written_out = prepared(), prepared()
    with circuit.box():
        circuit.rx(A, 2)
        circuit.cx(2, 0)
        with circuit.for_loop(range(3)) as k:
            circuit.ry(k * A / 5, 1)
            circuit.cx(1, 2)
    written_out.rx(A, 2)
    written_out.cx(2, 0)
    for k in range(3):
        written_out.ry(k * A / 5, 1)
        written_out.cx(1, 2)
    x = torch.randn(2, 1, dtype=torch.float64)
    layer = QuantumLayer(finished(circuit), input_params=[A])
    torch.testing.assert_close(
        layer(x), expected(finished(written_out), [A], x.tolist(), z_words(3)), atol=1e-10, rtol=0
    )


def test_expressions_that_qiskit_misreads_are_read_otherwise_or_refused(monkeypatch):
    """Whichever of the two readings is wrong, the other one is taken; none is trusted without Qiskit's binding."""
    from qbp.circuit.tracing import qiskit_angles

    circuit = prepared(2)
    circuit.rx(A * B + 1, 0)
    for name in ("_by_sympy", "_by_replay"):
        with monkeypatch.context() as patch:
            patch.setattr(qiskit_angles, name, lambda expression, values: next(iter(values.values())))
            assert_qiskits(finished(circuit), [A], [B])
    monkeypatch.setattr(qiskit_angles, "_by_sympy", lambda expression, values: 0.5)
    monkeypatch.setattr(qiskit_angles, "_by_replay", lambda expression, values: 0.5)
    with pytest.raises(CircuitError, match="Qiskit's own binding"):
        QuantumLayer(circuit, input_params=[A], weight_params=[B])


def test_measurements_at_the_end_are_left_out():
    circuit = prepared(2)
    circuit.ry(A, 0)
    with_measurements = circuit.copy()
    with_measurements.measure_all()
    x = torch.randn(2, 1)
    assert torch.equal(*(QuantumLayer(c, input_params=[A])(x) for c in (circuit, with_measurements)))


def conditional():
    circuit = QuantumCircuit(2, 1)
    with circuit.if_test((0, 1)):
        circuit.x(1)
    return circuit


def repeated():
    circuit = QuantumCircuit(1, 1)
    with circuit.while_loop((circuit.clbits[0], 0)):
        circuit.rx(0.1, 0)
    return circuit


def rotated_by_a_vector():
    circuit = QuantumCircuit(1)
    circuit.append(library.RVGate(A, 0.3, 0.2), [0])
    return circuit


def lost_assignment():
    angle, inner, circuit = Parameter("θ"), QuantumCircuit(1), QuantumCircuit(2)
    inner.rx(angle, 0)
    inner.h(0)
    circuit.append(inner.to_gate().control(1), [0, 1])
    return circuit.assign_parameters({angle: A}).inverse()


def test_a_circuit_initialised_in_the_middle():
    """What was there is forgotten, also by qubits that are entangled with it."""
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.ry(0.3, 1)
    circuit.initialize([0, 1], 0)
    layer = QuantumLayer(circuit, observables=["ZI", "IZ", "IX", "ZX"])
    torch.testing.assert_close(layer(torch.zeros(1, 0)), torch.tensor([[-1.0, 0, 0, 0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lost_assignment, "'θ'"),
        (conditional, "if_else"),
        (repeated, "while_loop"),
        (rotated_by_a_vector, "'rv' cannot be taken apart"),
    ],
)
def test_what_is_no_unitary_circuit_is_refused(make, text):
    circuit = make()
    with pytest.raises(CircuitError, match=text):
        QuantumLayer(circuit, input_params=list(circuit.parameters))


# ---- observables, and the layer ------------------------------------------------------------------------------------


def ordinary():
    circuit = prepared(2)
    circuit.ry(A, 0)
    circuit.cx(0, 1)
    circuit.rx(B, 1)
    return circuit


OBSERVABLES = {
    "SparsePauliOp": (SparsePauliOp(["ZI", "XY", "II"], [0.5, -1, 2]),) * 2,
    "several": ([SparsePauliOp("ZI"), SparsePauliOp("IZ"), Pauli("XY")],) * 2,
    "Pauli": (Pauli("ZX"), [Pauli("ZX")]),
    "Pauli with a sign": (Pauli("-ZX"), [SparsePauliOp("ZX", -1)]),
    "PauliList": (PauliList(["ZX", "-YY"]), [SparsePauliOp("ZX"), SparsePauliOp("YY", -1)]),
    "Operator": (Operator(np.diag([1, 2, 3, 4])), [Operator(np.diag([1, 2, 3, 4]))]),
    "projectors": (SparseObservable.from_list([("+0", 1.5), ("XZ", 2)]), None),
    "word of letters, letter k for wire k": ("ZX", [SparsePauliOp("XZ")]),
}


@pytest.mark.parametrize("name", OBSERVABLES)
def test_observables(name):
    measured, reference = OBSERVABLES[name]
    if reference is None:
        reference = [SparsePauliOp.from_sparse_observable(measured)]
    reference = reference if isinstance(reference, list) else [reference]
    layer = assert_qiskits(ordinary(), [A], [B], reference, measured)
    assert layer.n_outputs == len(reference)


@pytest.mark.parametrize(
    ("observables", "error", "text"),
    [
        (SparsePauliOp("ZIX"), ArgumentError, "of 3 qubits, but the circuit has 2"),
        (SparsePauliOp("Z"), ArgumentError, "of 1 qubits, but the circuit has 2"),
        (SparsePauliOp("ZX", 1j), CircuitError, "real"),
        (Pauli("iZX"), CircuitError, "real"),
        (SparsePauliOp("ZX", np.array([A])), CircuitError, "x10"),
        ("ZXZ", ArgumentError, "'ZXZ'"),
        ("ZQ", ArgumentError, "'ZQ'"),
        ([], CircuitError, "at least one observable"),
        (3, ArgumentError, "3"),
    ],
)
def test_observables_that_are_refused(observables, error, text):
    with pytest.raises(error, match=text):
        QuantumLayer(ordinary(), input_params=[A], weight_params=[B], observables=observables)


def test_probabilities_have_wire_0_first():
    layer = QuantumLayer(ordinary(), input_params=[A], weight_params=[B], observables=Probs((0, 1)), seed=1).double()
    x = torch.tensor([[0.7]], dtype=torch.float64)
    bound = ordinary().assign_parameters({A: 0.7, B: layer.weight.item()})
    want = Statevector(bound).probabilities([1, 0])  # Qiskit's first qubit is the last bit
    torch.testing.assert_close(layer(x)[0], torch.from_numpy(want), atol=1e-12, rtol=0)


def test_it_trains_where_estimatorqnn_did():
    """The arguments of ``EstimatorQNN``, the one parameter `weight` of ``TorchConnector``, and gradients by adjoint."""
    first, second = library.zz_feature_map(2), library.real_amplitudes(2, reps=1)
    layer = QuantumLayer(
        first.compose(second),
        observables=[SparsePauliOp("ZZ"), SparsePauliOp(["XI", "IX"], [0.5, 0.5])],
        input_params=first.parameters,
        weight_params=second.parameters,
        init_method={"weight": torch.linspace(-1, 1, 4)},
    )
    assert [(n, tuple(p.shape)) for n, p in layer.named_parameters()] == [("weight", (4,))]
    assert (layer.n_inputs, layer.n_outputs, layer.backend, layer.diff_method) == (2, 2, "native", "adjoint")
    torch.testing.assert_close(layer.weight.detach(), torch.linspace(-1, 1, 4))
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), layer, torch.nn.Linear(2, 1)).double()
    x = torch.randn(5, 3, dtype=torch.float64)

    def outputs(x, weight):
        return torch.func.functional_call(model, {"1.weight": weight}, (x,))

    arguments = (x.requires_grad_(), layer.weight.detach().requires_grad_())
    assert torch.autograd.gradcheck(outputs, arguments)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))


def test_a_parameter_in_many_places_has_one_gradient():
    circuit = prepared()
    circuit.rx(A, 0)
    circuit.crz(A * B, 0, 1)
    circuit.cp(-2 * A, 1, 2)
    circuit.append(library.PauliEvolutionGate(SparsePauliOp("XYZ"), time=A**2), [0, 1, 2])
    answers = []
    for diff_method, backend in (("adjoint", "native"), ("parameter-shift", "native"), ("backprop", "dense")):
        layer = QuantumLayer(
            finished(circuit.copy()),
            input_params=[A],
            weight_params=[B],
            backend=backend,
            diff_method=diff_method,
            seed=0,
        ).double()
        x = torch.tensor([[0.3], [1.2]], dtype=torch.float64, requires_grad=True)
        answers.append(torch.autograd.grad(layer(x).pow(2).sum(), [x, layer.weight]))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], atol=1e-10, rtol=0)

"""OpenQASM 3 text as layers: random files, against the same circuit built in Qiskit and run by its `Statevector`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp, Statevector

from qbp import QuantumLayer
from qbp.errors import ArgumentError, CircuitError

GATES = {  # of stdgates.inc: parameters, qubits, and Qiskit's method where it has another name
    **dict.fromkeys(["rx", "ry", "rz", "p", "u1", "phase"], (1, 1)),
    **{"u2": (2, 1), "u3": (3, 1), "U": (3, 1), "cu": (4, 2)},
    **dict.fromkeys(["crx", "cry", "crz", "cp", "cphase"], (1, 2)),
    **dict.fromkeys(["h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "id"], (0, 1)),
    **dict.fromkeys(["cx", "CX", "cy", "cz", "ch", "swap"], (0, 2)),
    **dict.fromkeys(["ccx", "cswap"], (0, 3)),
}
QISKIT = {"u1": "p", "phase": "p", "u3": "u", "U": "u", "cphase": "cp", "CX": "cx"}
PYTHON = {**vars(math), "arcsin": math.asin, "arctan": math.atan}


def random_expression(rng, names, depth=2):
    """Text that means the same to OpenQASM 3 and to Python."""
    if depth == 0 or rng.random() < 0.25:
        number = f"{rng.normal():.{rng.integers(1, 15)}f}"
        return [str(rng.choice(names)), str(rng.choice(names)), "pi", f"({number})", "2", "0.5"][rng.integers(6)]
    a, b = (random_expression(rng, names, depth - 1) for _ in range(2))
    return [
        f"{a} + {b}",
        f"{a}*{b}",
        f"({a} - {b})",
        f"-({a})",
        f"({a}) / (2 + ({b})**2)",
        f"sin({a}) * cos({b})",
        f"(pi - {a}) * (pi - {b})",
        f"sqrt(1 + ({a})**2)",
        f"exp(sin({a}))",
        f"arctan({a})",
        f"log(2 + cos({a}))",
    ][rng.integers(11)]


def random_file(rng):
    """OpenQASM 3 text, the names of inputs and of weights in the order of their numbers, and Qiskit's circuit."""
    n = int(rng.integers(3, 5))
    names = [str(name) for name in rng.permutation(["x_10", "x_2", "x_0", "w_10", "w_9", "w_1"])]
    words = ["".join(rng.choice(list("IXYZ"), size=n)) for _ in range(2)]
    factors = ["*".join(f"{letter}{wire}" for wire, letter in enumerate(w) if letter != "I") or "I" for w in words]
    text = f'// observables: {factors[0]}, 0.5*{factors[1]} - 2*Z0\nOPENQASM 3.0;\ninclude "stdgates.inc";\n'
    text += "".join(f"input float[64] {name};\n" for name in names) + f"qubit[{n}] q; // qubits\n"
    calls = []
    for k in range(rng.integers(8, 20) + n):
        name = "h" if k < n else str(rng.choice(list(GATES)))
        n_params, n_wires = GATES[name]
        wires = [k] if k < n else [int(w) for w in rng.permutation(n)[:n_wires]]
        params = [random_expression(rng, names) for _ in range(n_params)]
        arguments = f"({', '.join(params)})" if params else ""
        text += f"{name}{arguments} {', '.join(f'q[{w}]' for w in wires)};" + str(rng.choice(["\n", " ", "\n\n"]))
        calls.append((QISKIT.get(name, name), params, wires))

    def circuit(values):
        circuit = QuantumCircuit(n)
        for name, params, wires in calls:
            if name == "u2":
                name, params = "u", ["pi / 2", *params]
            getattr(circuit, name)(*(eval(p, dict(PYTHON), values) for p in params), *wires)
        return circuit

    z = SparsePauliOp("I" * (n - 1) + "Z")
    observables = [SparsePauliOp(words[0][::-1]), 0.5 * SparsePauliOp(words[1][::-1]) - 2 * z]
    return text, ["x_0", "x_2", "x_10"], ["w_1", "w_9", "w_10"], circuit, observables


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(s, marks=pytest.mark.slow) for s in range(10, 60))])
def test_twenty_random_files(seed, tmp_path):
    rng = np.random.default_rng(seed)
    for k in range(20):
        text, inputs, weights, circuit, observables = random_file(rng)
        path = tmp_path / f"{k}.qasm"
        path.write_text(text)
        layer = QuantumLayer(path).double()
        x = torch.empty(2, len(inputs), dtype=torch.float64).uniform_(-2, 2)
        for row, got in zip(x.tolist(), layer(x), strict=True):
            values = dict(zip(inputs + weights, [*row, *layer.weights.tolist()], strict=True))
            state = Statevector(circuit(values))
            want = torch.tensor([state.expectation_value(o).real for o in observables], dtype=torch.float64)
            torch.testing.assert_close(got, want, atol=1e-10, rtol=0, msg=lambda m, text=text: f"{m}\n{text}")


def test_a_file_is_a_layer_by_path_and_by_name():
    layer = QuantumLayer("strongly_entangling_4q_2l")
    assert (layer.n_inputs, layer.n_outputs, tuple(layer.weights.shape)) == (4, 4, (2, 4, 3))
    same = QuantumLayer("strongly_entangling_4q_2l.qasm")
    family = QuantumLayer("strongly_entangling", n_qubits=4, n_layers=2)
    x = torch.randn(3, 4)
    for other in (same, family):
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x), layer(x))
    with pytest.raises(ArgumentError, match=r"\(\.\.\., 4\), but has \(\.\.\., 3\)"):
        layer(torch.zeros(1, 3))


def test_mistakes_in_a_file_have_a_place(tmp_path):
    path = tmp_path / "wrong.qasm"
    path.write_text('OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nrx(0.1) q[0];\nfoo q[1];\n')
    with pytest.raises(CircuitError, match=r"wrong\.qasm, line 5.*foo"):
        QuantumLayer(path)
    with pytest.raises(ArgumentError, match="nowhere"):
        QuantumLayer("nowhere.qasm")

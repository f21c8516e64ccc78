"""OpenQASM files of other tools, against Qiskit's `Statevector`; hostile and damaged ones end soon and cleanly."""

from __future__ import annotations

import math
import time

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit import QuantumCircuit, qasm2, qasm3
from qiskit.circuit import Parameter, ParameterVector, library
from qiskit.quantum_info import DensityMatrix, SparsePauliOp, Statevector

import qbp
from qbp.circuit.qasm import qiskit_reader
from qbp.errors import ArgumentError, CircuitError, MissingPackageError, QbpError


def reset_z_values(circuit):
    """<Z> of each wire, by Qiskit's density matrices."""
    state = DensityMatrix(circuit)
    z = [SparsePauliOp.from_sparse_list([("Z", [w], 1)], circuit.num_qubits) for w in range(circuit.num_qubits)]
    return torch.tensor([state.expectation_value(each).real for each in z], dtype=torch.float64)


def z_values(circuit):
    state = Statevector(circuit.remove_final_measurements(inplace=False))
    n = circuit.num_qubits
    return torch.tensor(
        [state.expectation_value(SparsePauliOp("I" * (n - 1 - k) + "Z" + "I" * k)).real for k in range(n)]
    )


def written(tmp_path, text):
    path = tmp_path / "c.qasm"
    path.write_text(text)
    return path


def constant(path):
    return qbp.QuantumLayer(path)(torch.zeros(1, 0, dtype=torch.float64))[0]


def ordinary():
    x, w = ParameterVector("x", 12), ParameterVector("θ", 11)
    circuit = QuantumCircuit(3, 3)
    for k in range(12):
        circuit.ry(x[k] * (k + 1) / 5, k % 3)
        circuit.cx(k % 3, (k + 1) % 3)
    for k in range(11):
        circuit.rx(w[k] * (k + 1) / 7 - x[0], (k + 1) % 3)
        circuit.rzz(w[k] / 3, k % 3, (k + 2) % 3)
    circuit.sxdg(0)
    circuit.append(library.XXPlusYYGate(w[3], 0.2), [2, 0])
    circuit.mcp(0.4, [0, 1], 2)
    circuit.measure(range(3), range(3))
    return circuit, list(x), list(w)


def test_parameters_that_qiskit_exported_are_bound_by_their_numbers(tmp_path):
    circuit, x, w = ordinary()
    layer = qbp.QuantumLayer(written(tmp_path, qasm3.dumps(circuit))).double()
    assert (layer.n_inputs, tuple(layer.weight.shape)) == (12, (11,))
    rows = torch.randn(2, 12, dtype=torch.float64)
    for row, got in zip(rows.tolist(), layer(rows), strict=True):
        bound = circuit.assign_parameters(dict(zip(x + w, [*row, *layer.weight.tolist()], strict=True)))
        torch.testing.assert_close(got, z_values(bound), atol=1e-10, rtol=0)


def test_parameters_by_the_names_that_are_given(tmp_path):
    a, b, c = (Parameter(name) for name in "abc")
    circuit = QuantumCircuit(2)
    circuit.ry(a, 0)
    circuit.rzz(b, 0, 1)
    circuit.ry(c * a, 1)
    path = written(tmp_path, qasm3.dumps(circuit))
    assert qbp.trace(path).n_inputs == 0 and qbp.trace(path).weight_shapes == {"weight": (3,)}
    layer = qbp.QuantumLayer(path, input_params=["c", "a"], weight_params=["b"]).double()
    x = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    bound = circuit.assign_parameters({c: 0.3, a: 0.7, b: layer.weight.item()})
    torch.testing.assert_close(layer(x)[0], z_values(bound), atol=1e-12, rtol=0)
    with pytest.raises(ArgumentError, match="name 'd', but the file's parameters are a, b, c"):
        qbp.QuantumLayer(path, input_params=["d"])
    with pytest.raises(ArgumentError, match="lack parameters of the circuit: b"):
        qbp.QuantumLayer(path, input_params=["c", "a"])
    own = qbp.trace("xor_2q", input_params=["x_1", "x_0"])
    swapped = own.angle_map(torch.tensor([[1.0, 2.0]]), torch.zeros(4)).full()
    torch.testing.assert_close(
        swapped, qbp.trace("xor_2q").angle_map(torch.tensor([[2.0, 1.0]]), torch.zeros(4)).full()
    )
    with pytest.raises(ArgumentError, match="`weight_params` must name w_0, w_1, w_2, w_3"):
        qbp.trace("xor_2q", weight_params=["w_0"])


def random_circuit(rng):
    n = int(rng.integers(2, 5))
    circuit = QuantumCircuit(n, n)
    names = ["h", "s", "tdg", "sx", "sxdg", "cx", "cz", "ch", "swap", "ccx", "cswap", "rx", "rz", "p", "u", "crx", "cp",
             "rzz", "rxx", "cu", "iswap", "ecr", "csx", "dcx", "rccx", "r", "ryy", "rzx"]  # fmt: skip
    sizes = {"ccx": 3, "cswap": 3, "rccx": 3}
    sizes |= dict.fromkeys(
        ["cx", "cz", "ch", "swap", "crx", "cp", "rzz", "rxx", "cu", "iswap", "ecr", "csx", "dcx", "ryy", "rzx"], 2
    )
    n_params = {"u": 3, "cu": 4, "r": 2} | dict.fromkeys(["rx", "rz", "p", "crx", "cp", "rzz", "rxx", "ryy", "rzx"], 1)
    for _ in range(25):
        name = str(rng.choice(names))
        if sizes.get(name, 1) <= n:
            angles = [float(v) for v in rng.normal(size=n_params.get(name, 0))]
            getattr(circuit, name)(*angles, *map(int, rng.permutation(n)[: sizes.get(name, 1)]))
    if rng.random() < 0.5:
        circuit.barrier()
        circuit.measure(range(n), range(n))
    return circuit


@pytest.mark.parametrize("dumps", [qasm2.dumps, qasm3.dumps])
@pytest.mark.parametrize("seed", range(8))
def test_what_qiskit_exports(dumps, seed, tmp_path):
    circuit = random_circuit(np.random.default_rng(seed))
    torch.testing.assert_close(constant(written(tmp_path, dumps(circuit))), z_values(circuit), atol=1e-10, rtol=0)


def test_what_pennylane_exports(tmp_path):
    def circuit():
        qml.StronglyEntanglingLayers(torch.linspace(0.1, 2.4, 18).reshape(2, 3, 3).numpy(), wires=range(3))
        qml.CRot(0.1, 0.2, 0.3, wires=[2, 0])
        qml.Toffoli(wires=[1, 2, 0])
        return [qml.expval(qml.Z(k)) for k in range(3)]

    node = qml.QNode(circuit, qml.device("default.qubit", wires=3))
    path = written(tmp_path, qml.to_openqasm(node)())
    torch.testing.assert_close(constant(path), torch.tensor([float(v) for v in node()]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        'OPENQASM 2.0; include "qelib1.inc"; qreg a[1]; qreg b[2]; creg c[2]; h a; ry(1) b; cx a,b[1]; measure b -> c;',
        "include \"qelib1.inc\"; qreg q[2]; gate g(t) x,y { ry(t/2) x; cx x,y; u3(t,-t,sin(t)) y; } g(0.4) q[1],q[0];",
        'OPENQASM 2.0; qreg q[2]; U(0.3,0.2,0.1) q[0]; CX q[0],q[1]; reset q[1];',
        'OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; qubit r; ry(0.3) r; h q; cx q, r; ctrl @ x r, q[0];',
        'OPENQASM 3; include "stdgates.inc"; qubit[2] q; reset q; inv @ s q[0]; pow(0.5) @ x q[1]; cx q[1], q[0];',
    ],
)  # fmt: skip
def test_registers_definitions_and_modifiers(text, tmp_path):
    path = written(tmp_path, text)
    read = qiskit_reader.read(text if text.startswith("OPENQASM") else "OPENQASM 2.0; " + text, "-")
    while read.data[0].operation.name == "reset":
        read.data.pop(0)
    expected = reset_z_values(read) if "reset" in read.count_ops() else z_values(read)  # one in the middle is noise
    torch.testing.assert_close(constant(path), expected, atol=1e-10, rtol=0)


HEAD_2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\ncreg c[3];\n'
HEAD_3 = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[3] q;\nbit[3] c;\n'
REFUSED = {
    "unknown gate": (HEAD_2 + "h q[0];\nfoo q[1];", "line 6, column 1: 'foo' is not defined"),
    "index": (HEAD_2 + "h q[7];", "line 5, column"),
    "no end": (HEAD_2 + "h q[0]", "line 5"),
    "measured and used": (HEAD_2 + "h q;\nmeasure q[0] -> c[0];\nx q[1];\nx q[0];", "line 8, `x q[0];`: .*qubit 0"),
    "condition": (HEAD_2 + "h q;\nif(c==1) x q[0];", "line 6, `if\\(c==1\\) x q[0];`: .*'if_else'"),
    "opaque": (HEAD_2 + "opaque magic a;\nmagic q[1];", "line 6, `magic q[1];`: .*'magic'"),
    "condition in 3": (HEAD_3 + "c[0] = measure q[0];\nif (c[1] == true) { x q[1]; }", "'if_else'"),
    "loop in 3": (HEAD_3 + "while (true) { x q[0]; }", "line 4, column 1: found `bit`.*line 5, column 8: conditions"),
    "unknown gate in 3": (HEAD_3 + "foo q[1];", "line 5, column 1: gate 'foo' is not defined"),
    "syntax of 3": (HEAD_3 + "h q[1;", "line 5, column 6"),
    "nothing": ("", "line 1, column 1: found `end of file`"),
    "junk": ("%PDF-1.4 \x00\x01", "line 1, column 1"),
    "another version": ("OPENQASM 5.0;\nqubit q", "found `5.0`"),
}


def test_conditions_on_measured_bits(tmp_path):
    text = "ry(0.7) q[0];\nc[0] = measure q[0];\nif (c[0] == true) { x q[1]; }"
    cos = torch.tensor(0.7).double().cos()
    torch.testing.assert_close(
        constant(written(tmp_path, HEAD_3 + text)), torch.stack([cos, cos, torch.ones_like(cos)])
    )


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_have_a_place(name, tmp_path):
    text, message = REFUSED[name]
    with pytest.raises(CircuitError, match=r"c\.qasm.*" + message.replace("[", r"\[")):
        qbp.trace(written(tmp_path, text))


def test_the_package_that_is_needed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "qiskit_qasm3_import", None)
    with pytest.raises(MissingPackageError, match=r"line 3.*column 1.*pip install qiskit-qasm3-import"):
        qbp.trace(written(tmp_path, 'OPENQASM 3.0;\ninclude "stdgates.inc";\ngate g a { h a; } qubit q; g q;'))


# ---- hostile and damaged files ---------------------------------------------------------------------------------------


def many(call, n):
    return (call + "\n") * n


def floors(ground, body, n):
    gates = [f"gate g{k + 1} a {{ {body.format(k)} }}" for k in range(n)]
    return f"gate g0 a {{ {ground} }} {' '.join(gates)} g{n} q[0];"


HOSTILE = {
    "a register of 2 10^9": 'OPENQASM 2.0; qreg q[2000000000];',
    "many registers": "OPENQASM 2.0;" + "".join(f"qreg q{k}[20000];" for k in range(1000)),
    "bits": "OPENQASM 2.0; qreg q[1]; creg c[1000000000];",
    "a register in 3": "OPENQASM 3.0; qubit[2000000000] q;",
    "bits in 3": HEAD_3 + "bit[1000000000] d; h q[0];",
    "10^6 gates": HEAD_2 + many("cx q[0],q[1];", 1_000_000),
    "10^6 gates in 3": HEAD_3.replace("bit[3] c;", "") + many("h q[0];", 1_000_000),
    "400,000 gates": HEAD_2 + "h q[0];" * 400_000,
    "a billion gates": 'OPENQASM 2.0; include "qelib1.inc"; qreg q[20000];' + "h q;" * 50_000,
    "parentheses": HEAD_2 + f"rx({'(' * 10**5}1{')' * 10**5}) q[0];",
    "parentheses in 3": HEAD_3 + f"rx({'(' * 10**4}1{')' * 10**4}) q[0];",
    "braces in 3": HEAD_3 + "{" * 10**5,
    "powers": HEAD_2 + f"rx({'2^' * 10**5}1) q[0];",
    "signs": HEAD_2 + f"rx({'-' * 10**6}1) q[0];",
    "signs in 3": HEAD_3 + f"rx({'-' * 10**4}1) q[0];",
    "towers": HEAD_2 + "rx(9^9^9^9^9) q[0];",
    "towers in 3": HEAD_3 + "rx(9**9**9**9**9) q[0];",
    "doubling": HEAD_2 + floors("h a;", "g{0} a; g{0} a;", 60),
    "doubling of nothing": HEAD_2 + floors("", "g{0} a; g{0} a;", 60),
    "doubling in 3": HEAD_3 + floors("h a;", "g{0} a; g{0} a;", 60),
    "floors": HEAD_2 + floors("h a;", "g{0} a;", 1500),
    "definitions": HEAD_2 + "".join(f"gate g{k} a {{ }}" for k in range(10**5)),
    "a gate of itself": HEAD_2 + "gate g a { g a; } g q[0];",
    "a gate of itself in 3": HEAD_3 + "gate g a { g a; } g q[0];",
    "a password": 'OPENQASM 2.0; include "/etc/passwd"; qreg q[1];',
    "a password in 3": 'OPENQASM 3.0; include "/etc/passwd"; qubit q;',
    "itself": 'OPENQASM 2.0; include "c.qasm"; qreg q[1];',
    "a number": HEAD_2 + f"rx({'9' * 10**5}) q[0];",
    "powers of gates in 3": HEAD_3 + "pow(1000000000) @ x q[0]; pow(1e300) @ sx q[1]; ctrl(1000000) @ x q[0], q[1];",
    "a delay in 3": HEAD_3 + "for int i in [0:1000000000] { for int j in [0:1000000000] { h q[0]; } }",
    "an unclosed comment": "/*" * 10**6,
    "quotes": '"' * 10**6,
    "semicolons": HEAD_2 + ";" * 10**5,
    "no newline": "OPENQASM 2.0" + " " * 10**6,
    "a comment with colons": "//" + "order:" * 10**5,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_ends_soon_and_cleanly(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, HOSTILE[name])
    qiskit_reader._read_2("OPENQASM 2.0; qreg q[1];")  # imports are no part of it
    start = time.perf_counter()
    try:
        qbp.trace(path)
    except QbpError as error:
        assert "c.qasm" in str(error) and len(str(error)) < 1000
    else:
        assert name in ("semicolons", "powers of gates in 3")
    assert time.perf_counter() - start < 10  # never a hang; a second or two on a quiet machine


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.qasm"
    with path.open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(CircuitError, match="1000000000 bytes"):
        qbp.trace(path)
    path.write_bytes(b"\xff\xfeOPENQASM")
    with pytest.raises(CircuitError, match="UTF-8"):
        qbp.trace(path)


SEEDS = (
    f"{HEAD_2}gate g(t) a, b {{ cx a, b; rz(t / 2 + sin(t)) b; }}\nh q;\ng(pi / 3) q[0], q[2];\nmeasure q -> c;\n",
    f"{HEAD_3}gate g(t) a, b {{ cx a, b; rz(t / 2) b; }}\nh q;\ng(pi / 3) q[0], q[2];\nctrl @ x q[0], q[1];\n"
    "c = measure q;\n",
    f"{HEAD_3.partition('bit[3]')[0]}input float[64] x_0;\ninput float[64] w_0;\nrx(2 * sin(x_0) - w_0) q[0];\n",
    f"{HEAD_3}input float[64] _x_0_;\ninput float[64] b;\ngate r(p0) a {{ rx(p0) a; }}\nr(b * _x_0_) q[0];\n",
)
JUNK = [
    *"[](){};,*/-+.^@#$%!\"'\\ \n\0",
    *(
        "qreg ",
        "gate ",
        "1e999",
        "99999999999",
        "q",
        "c",
        "pi",
        "if",
        "measure ",
        "->",
        "reset ",
        "include ",
        "//",
        "/*",
    ),
    *("ctrl @ ", "pow(0.5) @ ", "input ", "é", "π", "U", "CX", "e", "0", "while ", "def "),
]


def mutated(rng):
    text = SEEDS[rng.integers(len(SEEDS))]
    for _ in range(int(rng.integers(1, 3))):
        a, b = sorted(int(k) for k in rng.integers(0, len(text) + 1, size=2))
        b = min(b, a + int(rng.integers(1, 12)))
        match rng.integers(4):
            case 0:
                text = text[:a] + text[b:]
            case 1:
                text = text[:a] + str(rng.choice(JUNK)) + text[a:]
            case 2:
                text = text[:a] + text[a:b] * int(rng.integers(2, 40)) + text[b:]
            case _:
                text = text[:a] + str(rng.choice(JUNK)) + text[b:]
    return text


@pytest.mark.parametrize("n", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_text_is_read_or_refused(n, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    n_read = 0
    for _ in range(n):
        text = mutated(rng)
        path = tmp_path / "c.qasm"
        path.write_text(text, encoding="utf-8", newline="")
        start = time.perf_counter()
        try:
            circuit = qbp.trace(path)
        except QbpError as error:
            assert "c.qasm" in str(error) or "parameter" in str(error), f"{error}\n{text}"
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{text}") from error
        else:
            n_read += 1
            assert circuit.n_qubits >= 1 and all(
                math.isfinite(op.offset) for op in circuit.program.ops if hasattr(op, "offset")
            )
        assert time.perf_counter() - start < 10, text
    assert n_read  # some are harmless


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "c.qasm"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEAD_2}x q[0];\n".encode())
    assert qbp.trace(path).n_qubits == 3


def test_a_gate_is_what_the_file_says_it_is(tmp_path):
    """Not what Qiskit has under its name: readers take gates for its own, and control them by their names."""
    text = (
        "OPENQASM 2.0;\ngate h a { U(0.3,0,0) a; }\ngate rzz(t) a,b { CX a,b; U(0,0,2*t) b; CX a,b; }\n"
        "qreg q[2];\nh q[0];\nU(pi/2,0,0) q[1];\nrzz(0.4) q[0],q[1];\nU(pi/2,0,0) q[1];\n"
    )
    expected = QuantumCircuit(2)
    expected.ry(0.3, 0)
    expected.ry(np.pi / 2, 1)
    expected.rzz(0.8, 0, 1)
    expected.ry(np.pi / 2, 1)
    check(tmp_path, text, expected)

    text = (
        'OPENQASM 3.0;\ninclude "stdgates.inc";\ngate iswap(x) a, b { rx(x) a; cx a, b; ry(0.4) b; }\n'
        "qubit[3] q;\nry(0.9) q[0];\nh q[2];\nctrl @ iswap(0.3) q[2], q[0], q[1];\nh q[2];\n"
    )
    expected = QuantumCircuit(3)
    expected.ry(0.9, 0)
    expected.h(2)
    expected.crx(0.3, 2, 0)
    expected.ccx(2, 0, 1)
    expected.cry(0.4, 2, 1)
    expected.h(2)
    check(tmp_path, text, expected)


@pytest.mark.parametrize("head", ['OPENQASM 2.0;\ninclude "qelib1.inc";\n', 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'])
def test_a_file_without_qubits_is_named(head, tmp_path):
    with pytest.raises(CircuitError, match=r"c\.qasm.* declares no qubits"):
        qbp.trace(written(tmp_path, head))


def test_controls_see_the_phases_of_openqasm_3(tmp_path):
    """U(a, b, c) there is exp(i a / 2) times Qiskit's, u2 and u3 are exp(-i (b + c) / 2) times Qiskit's."""
    text = (
        'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nh q[0];\nrx(0.3) q[1];\n'
        "ctrl @ U(0.3, 0.7, 0.9) q[0], q[1];\nctrl @ u3(0.5, 0.2, 0.4) q[0], q[1];\n"
        "negctrl @ u2(0.2, 0.5) q[0], q[1];\nh q[0];\n"
    )
    expected = QuantumCircuit(2)
    expected.h(0)
    expected.rx(0.3, 1)
    expected.cu(0.3, 0.7, 0.9, 0.15, 0, 1)
    expected.cu(0.5, 0.2, 0.4, -0.3, 0, 1)
    expected.x(0)
    expected.cu(np.pi / 2, 0.2, 0.5, -0.35, 0, 1)
    expected.x(0)
    expected.h(0)
    check(tmp_path, text, expected)


def check(tmp_path, text, expected):
    layer = qbp.QuantumLayer(written(tmp_path, text)).double()
    got = layer(torch.zeros(1, 0, dtype=torch.float64))[0]
    torch.testing.assert_close(got, z_values(expected), atol=1e-12, rtol=0)

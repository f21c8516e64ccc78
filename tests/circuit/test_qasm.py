"""OpenQASM 3 files: expressions, reader, writer, and Qiskit's reader on the same text."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qbp.circuit import qasm
from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Probs, Program, gate_ops
from qbp.circuit.qasm import expression, listing
from qbp.circuit.qasm import reader as qasm_reader
from qbp.circuit.qasm import text_drawing as drawing
from qbp.circuit.qasm.expression import PI, Expression
from qbp.circuit.qasm.listing import Call, Listing, format_observables, parse_observables
from qbp.errors import ArgumentError, CircuitError
from qbp.executors.dense import Dense

X, W = Expression.variable("x_0"), Expression.variable("w_0")
HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
START = HEAD + "input float[64] x_0;\ninput float[64] w_0;\nqubit[3] q;\n"


def outputs(circuit: Listing, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What the dense executor measures at these inputs and weights."""
    values = dict(zip(circuit.inputs, inputs, strict=True)) | dict(zip(circuit.weights, weights.flatten(), strict=True))
    angles: list[float] = []
    ops = []
    for call in circuit.calls:
        params = [float(p.evaluate(values)) for p in call.params]
        ops += gate_ops(GATES[call.name], call.wires, range(len(angles), len(angles) + len(params)))
        angles += params
    program = Program(circuit.n_qubits, tuple(ops), circuit.measurements, len(angles))
    return Dense()(program, Angles.of(torch.tensor([angles], dtype=torch.float64))).values[0].numpy()


# ---- expressions -------------------------------------------------------------------------------------

numbers = st.integers(-9, 9) | st.floats(-1e3, 1e3, allow_nan=False)
leaves = st.sampled_from([X, W, PI, Expression("constant", ("tau",))]) | numbers.map(Expression.of)


def grow(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def build(op: str, left: Expression, right: Expression) -> Expression:
        try:
            if op == "neg":
                return -left
            if op in expression.BINARY:
                return expression.BINARY[op][1](left, right)
            return Expression.call(op, left)
        except ArgumentError:  # a number divided by zero, the logarithm of a negative number...
            return left

    return st.builds(build, st.sampled_from(["neg", *expression.BINARY, *expression.FUNCTIONS]), children, children)


@settings(max_examples=400, deadline=None)
@given(st.recursive(leaves, grow, max_leaves=25))
def test_an_expression_reads_back_as_the_same_tree(tree):
    circuit = Listing(1, ("x_0",), ("w_0",), (Call("RX", (0,), (tree,)),), (Expval.word("Z", 0),))
    assert qasm.loads(qasm.dumps(circuit)).calls[0].params == (tree,)


@settings(max_examples=200, deadline=None)
@given(st.recursive(leaves, grow, max_leaves=12), st.floats(0.1, 2), st.floats(0.1, 2))
def test_the_text_of_an_expression_means_to_python_what_the_tree_does(tree, x, w):
    """OpenQASM 3's operators bind like Python's, so that Python is a second reader of the same text."""
    names = {"pi": math.pi, "tau": math.tau, "arcsin": math.asin, "arccos": math.acos, "arctan": math.atan}
    try:
        expected = eval(str(tree), {**vars(math), **names, "x_0": x, "w_0": w})
    except (ArithmeticError, ValueError, TypeError):  # TypeError: the sine of a complex number
        return
    if isinstance(expected, complex):
        with pytest.raises(ArgumentError, match="no real value"):
            tree.evaluate({"x_0": x, "w_0": w})
    else:
        np.testing.assert_allclose(tree.evaluate({"x_0": x, "w_0": w}), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (2 * (PI - X) * (PI - W), "2 * (pi - x_0) * (pi - w_0)"),
        (X - (W - 1), "x_0 - (w_0 - 1)"),
        (X / (W * 2), "x_0 / (w_0 * 2)"),
        (-(X**2), "-x_0 ** 2"),
        ((-X) ** 2, "(-x_0) ** 2"),
        (X ** (W**2), "x_0 ** w_0 ** 2"),
        ((X**W) ** 2, "(x_0 ** w_0) ** 2"),
        (X**-W, "x_0 ** -w_0"),
        (1 - X, "1 - x_0"),
        (2 / X, "2 / x_0"),
        (2**X, "2 ** x_0"),
        (-3 * X, "-3 * x_0"),
        (X - -2, "x_0 - -2"),
        (-(-X), "-(-x_0)"),  # noqa: B002
        (np.float64(0.5) * X, "0.5 * x_0"),
        (np.int64(2) + X, "2 + x_0"),
        (Expression.call("arcsin", X / 2), "arcsin(x_0 / 2)"),
        (Expression.of(1) / 2 * X, "0.5 * x_0"),
        (-PI / 2, "-pi / 2"),
    ],
)
def test_text_has_the_fewest_parentheses(tree, text):
    assert str(tree) == text
    assert repr(tree) == f"Expression({text!r})"


def test_an_expression_evaluates_on_floats_numpy_and_torch():
    tree = Expression.call("sin", X) * Expression.call("exp", -W) / 3 + PI**2 - Expression.call("sqrt", W)
    x, w = np.linspace(0.1, 1, 5), np.linspace(2, 3, 5)
    expected = np.sin(x) * np.exp(-w) / 3 + np.pi**2 - np.sqrt(w)
    np.testing.assert_allclose(tree.evaluate({"x_0": x, "w_0": w}), expected, rtol=1e-14)
    at = {"x_0": torch.tensor(x, requires_grad=True), "w_0": torch.tensor(w)}
    value = tree.evaluate(at)
    np.testing.assert_allclose(value.detach(), expected, rtol=1e-14)
    (gradient,) = torch.autograd.grad(value.sum(), at["x_0"])
    np.testing.assert_allclose(gradient, np.cos(x) * np.exp(-w) / 3, rtol=1e-14)
    single = tree.evaluate({"x_0": float(x[0]), "w_0": float(w[0])})
    assert type(single) is float and single == pytest.approx(expected[0], rel=1e-14)
    assert type(Expression.of(2).evaluate({})) is float  # an int would be the index of an angle
    for name in expression.FUNCTIONS:
        call = Expression.call(name, X)
        expected = call.evaluate({"x_0": 0.5})
        for half in (np.float64(0.5), torch.tensor(0.5, dtype=torch.float64)):
            assert float(call.evaluate({"x_0": half})) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Expression.of("x_0"),
        lambda: Expression.of(True),
        lambda: Expression.of(1j),
        lambda: Expression.of(math.inf),
        lambda: Expression.of(10**400),
        lambda: Expression.of(1) / 0,
        lambda: Expression.of(-1) ** 0.5,
        lambda: Expression.call("sinh", X),
        lambda: Expression.call("log", -1),
    ],
)
def test_what_is_no_expression_is_refused(make):
    with pytest.raises(ArgumentError):
        make()
    with pytest.raises(TypeError):
        X + "1"


# ---- listings ----------------------------------------------------------------------------------------


def random_listing(rng: np.random.Generator, gates: list[str]) -> Listing:
    """Anything the format holds: names whose order is not that of their declarations, nasty letters, every gate."""
    endings = ["_10", "_2", "_1", "_0", "", "_π", "__", "1", "_Ω3", "rz", "eight", "_if"]
    inputs = ["x" + e for e in rng.permutation(endings)[: rng.integers(0, 5)] if e]
    weights = ["w" + e for e in rng.permutation(endings)[: rng.integers(0, 7)]]
    n = int(rng.integers(1, 6))
    wires = [int(w) for w in rng.permutation(n)]

    def tree(depth: int) -> Expression:
        names = inputs + weights
        if depth == 0 or rng.random() < 0.3:
            leaf = [PI, Expression.of(int(rng.integers(0, 5))), Expression.of(rng.normal())]
            leaf += [Expression.variable(str(rng.choice(names)))] if names else []
            return leaf[rng.integers(0, len(leaf))]
        pick = rng.integers(0, 6)
        if pick < 4:
            return expression.BINARY["+-*"[rng.integers(0, 3)]][1](tree(depth - 1), tree(depth - 1))
        return -tree(depth - 1) if pick == 4 else Expression.call("sin", tree(depth - 1))

    calls = []
    for _ in range(rng.integers(0, 15)):
        gate = GATES[str(rng.choice(gates))]
        if gate.n_wires <= n:
            on = tuple(int(w) for w in rng.permutation(n)[: gate.n_wires])
            calls.append(Call(gate.name, on, tuple(tree(3) for _ in range(gate.n_params))))
    some = wires[: rng.integers(1, n + 1)]
    word = "".join(rng.choice(list("XYZ"), len(some)))
    measured = [
        Expval.word(word, *some),
        Expval(((float(rng.normal()), word, tuple(some)), (-1.0, "", ()), (1e-7, "Y", (wires[0],)))),
        Probs(tuple(some)),
    ]
    shape = (len(weights),) if rng.random() < 0.5 else (1, len(weights), 1)
    title = str(rng.choice(["", "A title: with, // marks; and π"]))
    return Listing(
        n, tuple(inputs), tuple(weights), tuple(calls), tuple(measured[: rng.integers(1, 4)]), title, "arXiv 1", shape
    )


@pytest.mark.parametrize("seed", range(100))
def test_round_trip(seed):
    rng = np.random.default_rng(seed)
    circuit = random_listing(rng, [name for name, gate in GATES.items() if gate.qasm])
    text = qasm.dumps(circuit)
    again = qasm.loads(text)
    assert again == circuit and hash(again) == hash(circuit)
    assert qasm.dumps(again) == text
    assert pickle.loads(pickle.dumps(circuit)) == circuit


@pytest.mark.parametrize("seed", range(40))
def test_gates_that_stdgates_lacks_are_written_as_gates_that_it_has(seed):
    rng = np.random.default_rng(seed)
    circuit = random_listing(rng, [name for name, gate in GATES.items() if not gate.qasm])
    spread = tuple(Call("U3", (w,), tuple(rng.normal(size=3))) for w in range(circuit.n_qubits))
    everything = (Probs(tuple(range(circuit.n_qubits))),)
    circuit = replace(circuit, calls=spread + circuit.calls + spread, measurements=everything)
    again = qasm.loads(qasm.dumps(circuit))
    assert {GATES[call.name].qasm for call in again.calls} <= {"h", "s", "sdg", "cx", "rx", "ry", "rz", "u3"}
    at = rng.normal(size=len(circuit.inputs)), rng.normal(size=len(circuit.weights))
    np.testing.assert_allclose(outputs(again, *at), outputs(circuit, *at), atol=1e-12)


@pytest.mark.parametrize("name", [name for name, gate in GATES.items() if not gate.qasm])
def test_each_gate_that_stdgates_lacks(name):
    """On its own, in its own wires' order, and with pi written as pi."""
    gate = GATES[name]
    wires = tuple(range(gate.n_wires))[::-1]
    params = tuple(Expression.variable(f"w_{k}") for k in range(gate.n_params))
    spread = tuple(Call("U3", (w,), (0.3 + w, 0.7, 1.1 - w)) for w in wires)
    names = tuple(map(str, params))
    circuit = Listing(len(wires), (), names, (*spread, Call(name, wires, params), *spread), (Probs(wires),))
    at = np.zeros(0), np.linspace(0.4, 1.5, gate.n_params)
    text = qasm.dumps(circuit)
    np.testing.assert_allclose(outputs(qasm.loads(text), *at), outputs(circuit, *at), atol=1e-13)
    assert "1.57" not in text and "3.14" not in text


def test_everything_is_bound_by_its_number():
    names = [f"x_{k}" for k in sorted(range(12), key=str)] + ["w_b", "w_10", "w_9", "x_a", "w_a"]
    text = HEAD + "".join(f"input float[64] {name};" for name in names) + "qubit[1] q;"
    circuit = qasm.loads(text)
    assert circuit.inputs == (*(f"x_{k}" for k in range(12)), "x_a")
    assert circuit.weights == ("w_b", "w_9", "w_10", "w_a")
    other = qasm.loads("// order: w_a, x_10, w_b, x_2\n" + HEAD + "".join(
        f"input float[64] {name};" for name in ("x_2", "x_10", "w_b", "w_a")
    ) + "qubit[1] q;")  # fmt: skip
    assert other.inputs == ("x_10", "x_2") and other.weights == ("w_a", "w_b")
    assert "// order: x_10, x_2, w_a, w_b\n" in qasm.dumps(other) and "order" not in qasm.dumps(circuit)
    with pytest.raises(CircuitError, match="every input and weight once"):
        qasm.loads("// order: x_1\n" + HEAD + "input float[64] x_0; qubit[1] q;")


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["x[10]", "x[9]", "θ[1]", "θ[0]"], ["x[9]", "x[10]", "θ[0]", "θ[1]"]),
        (["_x_10_", "_x_9_", "b", "a"], ["_x_9_", "_x_10_", "b", "a"]),
        (["x2", "y", "x1", "x"], ["x", "x1", "x2", "y"]),
        (["x_01", "x_1", "x_0"], ["x_0", "x_01", "x_1"]),
    ],
)
def test_the_order_of_numbers(names, ordered):
    assert listing.in_order_of_numbers(names) == ordered


def test_other_spellings_and_what_is_skipped():
    body = """
    /* a comment
       of two lines */ U(1, 2.0, 3e0) q[0]; u1(π) q[1]; phase(.5) q[2]; // a remark: h q[0];
    CX q[0], q[1]; cphase(ℇ) q[1] , q[2]; barrier; barrier q; barrier q[0], q[2];
    id q[0]; sx q[1]; rx(pow(x_0, 2)) q[0];
    """
    circuit = qasm.loads(START + body)
    names = ["U3", "PhaseShift", "PhaseShift", "CNOT", "ControlledPhaseShift", "Identity", "SX", "RX"]
    assert [call.name for call in circuit.calls] == names
    assert [param.evaluate({}) for param in circuit.calls[0].params] == [1, 2, 3]
    assert circuit.calls[1].params == (PI,) and circuit.calls[-1].params == (X**2,)
    assert circuit.measurements == tuple(Expval.word("Z", wire) for wire in range(3))
    assert circuit.weight_shape == (1,)


def test_observables():
    text = "Z0, X1*Y0, -0.5*Z0 + 2e-3*X2*Z1 - Y0 + 0.25*I, probs(2, 0), 2*3*I1*Z2"
    measured = parse_observables(text)
    assert measured == (
        Expval.word("Z", 0),
        Expval.word("XY", 1, 0),
        Expval(((-0.5, "Z", (0,)), (2e-3, "XZ", (2, 1)), (-1.0, "Y", (0,)), (0.25, "", ()))),
        Probs((2, 0)),
        Expval(((6.0, "Z", (2,)),)),
    )
    assert parse_observables(format_observables(measured)) == measured
    for bad in ("", "Z", "Z0,", "A0", "Z0 X1", "0.5", "probs()", "probs(0", "Z0**2", "Z0 + ", "1e400*Z0", "+-Z0"):
        with pytest.raises(CircuitError, match="observable"):
            parse_observables(bad)


# ---- what is refused ---------------------------------------------------------------------------------

REFUSED = [  # what follows three qubits, x_0 and w_0 on line 6; column, token and a part of the reason
    ("if (w_0 > 1) x q[0];", 1, "if", "a flat circuit may hold only"),
    ("for int i in [0:2] { h q[i]; }", 1, "for", "a flat circuit may hold only"),
    ("while (true) {}", 1, "while", "a flat circuit may hold only"),
    ("measure q[0];", 1, "measure", "a flat circuit may hold only"),
    ("reset q[0];", 1, "reset", "a flat circuit may hold only"),
    ("gate foo a { h a; }", 1, "gate", "a flat circuit may hold only"),
    ("def f(qubit a) {}", 1, "def", "a flat circuit may hold only"),
    ("bit[3] c;", 1, "bit", "a flat circuit may hold only"),
    ("c = measure q;", 1, "c", "a flat circuit may hold only"),
    ("array[float[64], 2] a;", 1, "array", "a flat circuit may hold only"),
    ("const float[64] a = 1.0;", 1, "const", "a flat circuit may hold only"),
    ("let a = q[0];", 1, "let", "a flat circuit may hold only"),
    ("ctrl @ x q[0], q[1];", 1, "ctrl", "a flat circuit may hold only"),
    ("gphase(pi);", 1, "gphase", "a flat circuit may hold only"),
    ("qreg r[2];", 1, "qreg", "a flat circuit may hold only"),
    ("#pragma x", 1, "#", "a flat circuit may hold only"),
    ("}", 1, "}", "a flat circuit may hold only"),
    ("OPENQASM 3.0;", 1, "OPENQASM", "a flat circuit may hold only"),
    ("/* no end", 1, "/", "a flat circuit may hold only"),
    ("qubit[2] r;", 1, "qubit", "one register"),
    ("rxx(w_0) q[0], q[1];", 1, "rxx", "a gate must be one of id, x,"),
    ("myGate q[0];", 1, "myGate", "a gate must be one of id, x,"),
    ("h q;", 4, ";", "`q[0]`"),
    ("h r[0];", 3, "r", "a qubit like `q[0]`"),
    ("h $0;", 3, "$", "a qubit like `q[0]`"),
    ("h q[3];", 5, "3", "from 0 to 2"),
    ("h q[-1];", 5, "-", "from 0 to 2"),
    ("h q[w_0];", 5, "w_0", "from 0 to 2"),
    ("h q[0:1];", 6, ":", "one by one"),
    ("h q[0]", 7, "end of file", "`;`"),
    ("h q[0], q[1];", 1, "h", "1 qubits, but has 0 and 2"),
    ("cx q[1], q[1];", 1, "cx", "must be different"),
    ("rx q[0];", 1, "rx", "1 parameters"),
    ("rx(1, 2) q[0];", 1, "rx", "1 parameters"),
    ("rx() q[0];", 1, "rx", "1 parameters"),
    ("rx(x_1) q[0];", 4, "x_1", "a declared input or weight"),
    ("rx(sinh(x_0)) q[0];", 4, "sinh", "a declared input or weight"),
    ("rx(2 x_0) q[0];", 6, "x_0", "an operator"),
    ("rx(2 * ) q[0];", 8, ")", "a declared input or weight"),
    ("rx((x_0) q[0];", 10, "q", "an operator, `,` or `)`"),
    ("rx((x_0 q[0];", 9, "q", "an operator or `)`"),
    ("rx(sin x_0) q[0];", 8, "x_0", "`(` of the function sin"),
    ("rx(pow(x_0)) q[0];", 11, ")", "`,`"),
    ("rx(x_0 % 2) q[0];", 8, "%", "an operator"),
    ("rx(1 / 2 * pi) q[0];", 6, "/", "write 1.0"),
    ("rx(2 - 2.0 / 0) q[0];", 4, "2", "no finite real value"),
    ("rx(1e999) q[0];", 4, "1e999", "finite"),
    ("rx(x_0 ** 1 ** 999 ** 999) q[0];", 4, "x_0", "no finite real value"),
    ("rx(" + "9" * 5000 + ") q[0];", 4, "9" * 80, "finite"),
    ("rx(" + "(" * 900 + "x_0" + ")" * 900 + ") q[0];", 154, "(", "at most 150"),
    ("rx(" + "-" * 900 + "x_0) q[0];", 154, "-", "at most 150"),
    ("rx(x_0" + "+x_0" * 900 + ") q[0];", 607, "+", "at most 150"),
    ("input float[64] x_0;", 17, "x_0", "declared already"),
    ("input float[64] x;", 17, "x", "x_0 (data)"),
    ("input float[64] while;", 17, "while", "x_0 (data)"),
    ("input float[64] theta;", 17, "theta", "x_0 (data)"),
    ("input float[64] x_٣;", 17, "x_٣", "x_0 (data)"),
    ("input float[32] x_1;", 13, "32", "`float[64]`"),
    ("input angle x_1;", 7, "angle", "`float[64]`"),
    ("input array[float[64], 2] x_1;", 7, "array", "`float[64]`"),
    ("output float[64] x_1;", 1, "output", "a flat circuit may hold only"),
    ("// observables: Z3", 1, "// observables: Z3", "below 3"),
    ("// observables: Z0*Z0", 1, "// observables: Z0*Z0", "must be different"),
    ("// observables: Q0", 1, "// observables: Q0", "'Q0' must be like Z0"),
    ("// weight_shape: 2, 3", 1, "// weight_shape: 2, 3", "whose product is 1"),
    ("// weight_shape: one", 1, "// weight_shape: one", "whole numbers"),
    ("// observable: Z0", 1, "// observable: Z0", "the header has `observables:`"),
    ("// Weight-shape: 1", 1, "// Weight-shape: 1", "the header has `weight_shape:`"),
    ("h q[0]; // title: a\n// title: b", None, "// title: b", "given once"),
]


@pytest.mark.parametrize(("text", "column", "token", "reason"), REFUSED, ids=[text[:30] for text, *_ in REFUSED])
def test_what_is_not_in_the_subset_is_refused_by_name(text, column, token, reason):
    where = "line 6, " if column else "line 7, "
    with pytest.raises(CircuitError) as error:
        qasm.loads(START + text, filename="a.qasm")
    message = str(error.value)
    assert message.startswith(f"a.qasm, {where}column {column or 1}: found `{token}`, but ") and reason in message
    assert message.count("found") == 1 and len(message) < 400


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("", "line 1, column 1: found `end of file`", "`OPENQASM 3.0;`"),
        ("OPENQASM 2.0;", "line 1, column 10: found `2.0`", "3.0"),
        ("qubit[2] q;", "line 1, column 1: found `qubit`", "`OPENQASM 3.0;`"),
        ("OPENQASM 3.0;\nqubit[2] q;", "line 2, column 1: found `qubit`", '`include "stdgates.inc";`'),
        ('OPENQASM 3.0;\ninclude "qelib1.inc";', 'line 2, column 9: found `"qelib1.inc"`', "stdgates"),
        (HEAD, "line 3, column 1: found `end of file`", "declare its qubits"),
        (HEAD + "h q[0];", "line 3, column 3: found `q`", "declared before"),
        (HEAD + "rx(1) q[0];", "line 3, column 7: found `q`", "declared before"),
        (HEAD + "qubit q;", "line 3, column 7: found `q`", "`qubit[2] q;`"),
        (HEAD + "qubit[0] q;", "line 3, column 7: found `0`", "from 1 to 1000"),
        (HEAD + "qubit[99999999999999999999] q;", "line 3, column 7", "from 1 to 1000"),
        (HEAD + "qubit[2] sin;", "line 3, column 10: found `sin`", "mean nothing else"),
        (HEAD + "input float w_q;\nqubit[2] w_q;", "line 4, column 10: found `w_q`", "mean nothing else"),
        (HEAD + "qubit[2] w_q;\ninput float w_q;", "line 4, column 13: found `w_q`", "mean nothing else"),
        (HEAD + "input float[64] x_1;\r\nqubit[2] q;\r\n\th q[2];", "line 5, column 6: found `2`", "from 0 to 1"),
    ],
)
def test_a_file_must_begin_as_it_should(text, where, reason):
    with pytest.raises(CircuitError) as error:
        qasm.loads(text)
    message = str(error.value)
    assert where in message and reason in message.split("but ", 1)[1]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_text_is_read_or_refused_and_never_crashes(data):
    text = START + "rx(2 * sin(x_0) ** -w_0 / 3) q[0]; cx q[0], q[2];\n// observables: 0.5*Z0 - X1, probs(0)\n"
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 6)))
    junk = data.draw(st.text('q[]();,*/-+.0129ewx_π \n"@$', max_size=6))
    try:
        circuit = qasm.loads(text[:start] + junk + text[end:])
    except CircuitError as error:
        assert "line" in str(error)
    else:
        assert qasm.loads(qasm.dumps(circuit)) == circuit


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": ("y_0",)}, "identifier"),
        ({"weights": ("x_0",)}, "identifier"),
        ({"inputs": ("x_0", "x_0")}, "different"),
        ({"weights": ("w-0",)}, "identifier"),
        ({"calls": (Call("RX", (0,), (W,)),)}, "neither an input nor a weight"),
        ({"calls": (Call("RX", (1,), (X,)),)}, "below 1"),
        ({"calls": (Call("RX", (0,)),)}, "takes 1 parameters"),
        ({"calls": (Call("rx", (0,), (X,)),)}, "must be one of"),
        ({"measurements": ()}, "measure something"),
        ({"measurements": (Expval(()),)}, "at least one term"),
        ({"measurements": (Probs((1,)),)}, "below 1"),
        ({"weight_shape": (3,)}, "must hold 0 weights"),
        ({"n_qubits": 0}, "at least 1"),
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(change, reason):
    good = {"n_qubits": 1, "inputs": ("x_0",), "weights": (), "calls": (), "measurements": (Probs((0,)),)}
    Listing(**good)
    with pytest.raises((CircuitError, ArgumentError), match=reason):
        Listing(**(good | change))


# ---- files -------------------------------------------------------------------------------------------


def test_files_are_found_by_name_and_by_path(tmp_path: Path, monkeypatch):
    assert "xor_2q" in qasm.available() and qasm.circuits_dir().is_dir()
    shipped = qasm.circuits_dir() / "xor_2q.qasm"
    mine = tmp_path / "mine.qasm"
    mine.write_text(START + "rx(x_0) q[0];")
    monkeypatch.chdir(tmp_path)
    for name in ("xor_2q", "xor_2q.qasm", "circuits/xor_2q.qasm", str(shipped), shipped):
        assert qasm.find(name) == shipped
    assert qasm.load(mine) == qasm.load("mine.qasm") == qasm.loads(mine.read_text())
    for name in ("no_such", "elsewhere/xor_2q", tmp_path):
        with pytest.raises(ArgumentError, match="xor_2q"):
            qasm.find(name)
    mine.write_bytes(b"\xff\xfe")
    with pytest.raises(CircuitError, match="UTF-8"):
        qasm.load(mine)
    mine.write_text("OPENQASM 3.0;\n\n  nonsense")
    with pytest.raises(CircuitError, match=r"mine\.qasm, line 3, column 3: found `nonsense`"):
        qasm.load(mine)


def test_drawing():
    body = "h q[0]; cx q[2], q[0]; crz(w_0) q[0], q[1]; rx(2 * (pi - x_0) * w_0) q[2]; ccx q[0], q[2], q[1];"
    circuit = qasm.loads(START + body)
    assert drawing.draw(circuit).split("\n") == [
        "q0: ─H─╭X─╭●──────────╭●─",
        "q1: ───│──╰RZ(w_0)────├X─",
        "q2: ───╰●─RX(x_0,w_0)─╰●─",
    ]
    blocks = drawing.draw(circuit, width=20).split("\n\n")
    assert blocks == [
        "q0: ─H─╭X─\nq1: ───│──\nq2: ───╰●─",
        "q0: ─╭●──────────╭●─\nq1: ─╰RZ(w_0)────├X─\nq2: ─RX(x_0,w_0)─╰●─",
    ]
    with pytest.raises(ArgumentError, match="width"):
        drawing.draw(circuit, width=3)
    for name, gate in GATES.items():  # every gate can be drawn
        params = (0.5,) * gate.n_params
        lone = Listing(gate.n_wires, (), (), (Call(name, tuple(range(gate.n_wires)), params),), (Probs((0,)),))
        lines = drawing.draw(lone).split("\n")
        assert len(lines) == gate.n_wires and len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("module", [drawing, expression, listing, qasm, qasm_reader])
def test_examples_in_docstrings(module):
    import doctest

    assert doctest.testmod(module).failed == 0


# ---- Qiskit reads the same text ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_qiskit_reads_what_is_written(seed):
    pytest.importorskip("qiskit_qasm3_import")
    from qiskit import qasm3
    from qiskit.quantum_info import Statevector

    rng = np.random.default_rng(seed)
    drawn = random_listing(rng, list(GATES))
    n = drawn.n_qubits
    spread = tuple(Call("U3", (w,), tuple(rng.normal(size=3))) for w in range(n))
    calls = tuple(c for c in drawn.calls if "sin" not in str(c.params))  # Qiskit's reader has no functions
    circuit = Listing(n, drawn.inputs, drawn.weights, spread + calls + spread, (Probs(tuple(range(n))),))
    x, w = rng.normal(size=len(drawn.inputs)), rng.normal(size=len(drawn.weights))
    read = qasm3.loads(qasm.dumps(circuit))
    values = dict(zip(drawn.inputs + drawn.weights, [*x, *w], strict=True))
    used = {p.name for p in read.parameters}
    bound = read.assign_parameters({name: value for name, value in values.items() if name in used})
    probabilities = Statevector(bound).probabilities(range(n)[::-1])  # Qiskit's q[0] is the least significant bit
    np.testing.assert_allclose(outputs(circuit, x, w), probabilities, atol=1e-10)

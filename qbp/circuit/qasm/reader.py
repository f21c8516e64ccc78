"""Reads the flat subset of OpenQASM 3 that `writer` describes; whatever else a file holds is refused by name.

Qiskit's own reader needs further packages, PennyLane's knows neither ``include`` nor functions; neither binds
inputs by the numbers in their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from qbp.circuit.gates import QASM, Gate
from qbp.circuit.program import Expval, Measurement, Program
from qbp.circuit.qasm.expression import BINARY, CONSTANTS, FUNCTIONS, Expression
from qbp.circuit.qasm.listing import Call, Listing, check_call, in_order_of_numbers, is_data_name, parse_observables
from qbp.errors import ArgumentError, CircuitError

__all__ = ["loads"]

_SPELLINGS: dict[str, Gate] = QASM | {
    "CX": QASM["cx"],
    "U": QASM["u3"],
    "u1": QASM["p"],
    "phase": QASM["p"],
    "cphase": QASM["cp"],
}
_CONSTANT_NAMES = {name: name for name in CONSTANTS} | {"π": "pi", "τ": "tau", "ℇ": "euler"}
_HEADER = ("title", "reference", "observables", "weight_shape", "order")
_KEYWORDS = {"box", "def", "delay", "end", "for", "gphase", "if", "let", "measure", "reset", "switch", "while"}
_STATEMENTS = "`input float[64] NAME;`, `qubit[N] NAME;`, calls of gates in stdgates.inc and `barrier`"
_RESERVED = {*_SPELLINGS, *_CONSTANT_NAMES, *FUNCTIONS, "pow", "input", "qubit", "float", "barrier", "include"}
_MAX_OPERATORS = 150  # deeper trees would meet Python's limit of recursion
_MAX_QUBITS = 1000
_MAX_CHARACTERS = 1_500_000  # some 50,000 gates

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<number>(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[^\W\d]\w*)
      | (?P<string>"[^"\n]*")
      | (?P<symbol>\*\*|.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    column: int


def loads(text: str, filename: str = "<string>") -> Listing:
    """Read a circuit from OpenQASM 3 text.

    Args:
        text: the file's content.
        filename: what error messages call it.

    Raises:
        CircuitError: naming line, column and token of what is not in the subset, and what may stand there.

    Example:
        >>> text = 'OPENQASM 3.0; include "stdgates.inc"; input float[64] x_0; qubit[1] q; rx(2 * x_0) q[0];'
        >>> loads(text).calls[0].params
        (Expression('2 * x_0'),)
    """
    return _Reader(text, filename).listing()


class _Reader:
    """Reads one statement after the other; every `fail` names the token that it looks at."""

    def __init__(self, text: str, filename: str):
        self.filename = filename
        if len(text) > _MAX_CHARACTERS:
            raise CircuitError(f"{filename} has {len(text)} characters; at most {_MAX_CHARACTERS} are read")
        self.header: dict[str, tuple[str, _Token]] = {}
        self.tokens = list(self._scan(text))
        self.position = 0
        self.names: dict[str, list[str]] = {"x": [], "w": []}
        self.register, self.n_qubits, self.operators = "", 0, 0

    def _scan(self, text: str) -> Iterator[_Token]:
        line, start = 1, 0
        for match in _TOKEN.finditer(text):
            token = _Token(match.lastgroup or "", match.group(), line, match.start() - start + 1)
            if token.kind != "space":
                yield token
            elif token.text.startswith("//"):
                key, colon, value = token.text[2:].partition(":")
                if colon:
                    self._head(key.strip(), value.strip(), token)
            if "\n" in token.text:
                line, start = line + token.text.count("\n"), match.start() + token.text.rindex("\n") + 1
        yield _Token("end", "end of file", line, len(text) - start + 1)

    def _head(self, key: str, value: str, token: _Token) -> None:
        """A line of the header; any other comment with a colon is free, but one that nearly is one is a slip."""
        if key in self.header:
            self.fail(f"`{key}:` must be given once", token)
        if key in _HEADER:
            self.header[key] = value, token
        elif meant := get_close_matches(key.lower(), _HEADER, 1, 0.8):
            self.fail(f"the header has `{meant[0]}:`", token)

    def fail(self, expected: str, token: _Token | None = None) -> NoReturn:
        token = token or self.tokens[self.position]
        where = f"{self.filename}, line {token.line}, column {token.column}"
        raise CircuitError(f"{where}: found `{token.text[:80]}`, but {expected}")

    @property
    def text(self) -> str:
        return self.tokens[self.position].text

    def take(self, *texts: str, kind: str = "", expected: str = "") -> _Token:
        """The current token, which must have one of these texts or this kind."""
        token = self.tokens[self.position]
        if token.kind != kind and token.text not in texts:
            self.fail(f"{expected or f'`{texts[0]}`'} must stand here")
        self.position += 1
        return token

    def listing(self) -> Listing:
        self._version()
        calls: list[Call] = []
        while self.tokens[self.position].kind != "end":
            match self.text:
                case "input":
                    self._input()
                case "qubit":
                    self._qubit()
                case "barrier":
                    self._barrier()
                case _:
                    calls.append(self._call())
        if not self.n_qubits:
            self.fail("a file must declare its qubits: `qubit[N] NAME;`")
        title, reference = (self.header[key][0] if key in self.header else "" for key in ("title", "reference"))
        inputs, weights = self._order()
        measurements, shape = self._measurements(), self._weight_shape(len(weights))
        return Listing(self.n_qubits, inputs, weights, tuple(calls), measurements, title, reference, shape)

    def _order(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of inputs and weights in the order in which they are bound."""
        inputs, weights = (in_order_of_numbers(self.names[letter]) for letter in "xw")
        if "order" in self.header:
            text, token = self.header["order"]
            order = [name.strip() for name in text.split(",")]
            if sorted(order) != sorted(inputs + weights):
                self.fail("`order:` must name every input and weight once, separated by commas", token)
            inputs, weights = ([name for name in order if name[0] == letter] for letter in "xw")
        return tuple(inputs), tuple(weights)

    def _measurements(self) -> tuple[Measurement, ...]:
        if "observables" not in self.header:
            return tuple(Expval.word("Z", wire) for wire in range(self.n_qubits))
        text, token = self.header["observables"]
        try:
            measurements = parse_observables(text)
            Program(self.n_qubits, (), measurements, 0)
        except CircuitError as error:
            self.fail(str(error), token)
        return measurements

    def _weight_shape(self, n_weights: int) -> tuple[int, ...]:
        if "weight_shape" not in self.header:
            return (n_weights,)
        text, token = self.header["weight_shape"]
        fits = re.fullmatch(r"[0-9]{1,9}( *, *[0-9]{1,9})*", text)
        shape = tuple(map(int, text.split(","))) if fits else ()
        if not fits or math.prod(shape) != n_weights:
            self.fail(f"it must be whole numbers, as in 2, 4, 3, whose product is {n_weights}", token)
        return shape

    def _version(self) -> None:
        self.take("OPENQASM", expected="the version, `OPENQASM 3.0;`,")
        version = self.take(kind="number", expected="the version 3.0")
        if version.text.partition(".")[0] != "3":
            self.fail("the version must be 3.0", version)
        self.take(";")
        for text in ("include", '"stdgates.inc"', ";"):
            self.take(text, expected='`include "stdgates.inc";`')

    def _input(self) -> None:
        self.take("input")
        self.take("float", expected="`float[64]`, the type of every input,")
        if self.text == "[":
            for text in ("[", "64", "]"):
                self.take(text, expected="`float[64]`, the type of every input,")
        name = self.take(kind="name", expected="a name like x_0 or w_0")
        if not is_data_name(name.text) or name.text == self.register:
            self.fail("the name of an input must be like x_0 (data) or w_0 (a weight) and mean nothing else", name)
        if any(name.text in names for names in self.names.values()):
            self.fail("this name is declared already", name)
        self.names[name.text[0]].append(name.text)
        self.take(";")

    def _qubit(self) -> None:
        token = self.take("qubit")
        if self.n_qubits:
            self.fail("a file must have one register of qubits", token)
        self.take("[", expected="the number of qubits, as in `qubit[2] q;`,")
        size = self._whole("the number of qubits", 1, _MAX_QUBITS)
        self.take("]")
        name = self.take(kind="name", expected="the name of the register")
        if name.text in (*_RESERVED, *self.names["x"], *self.names["w"]):
            self.fail("the name of the register must mean nothing else", name)
        self.register, self.n_qubits = name.text, size
        self.take(";")

    def _whole(self, what: str, low: int, high: int) -> int:
        text = self.text
        if not (text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
            self.fail(f"{what} must be a whole number from {low} to {high}")
        self.position += 1
        return int(text)

    def _barrier(self) -> None:
        """Checked, and dropped: it does not change what a circuit computes."""
        self.take("barrier")
        if self.text == self.register and self.tokens[self.position + 1].text == ";":
            self.take(self.register)
        elif self.text != ";":
            self._wires()
        self.take(";")

    def _call(self) -> Call:
        token = self.tokens[self.position]
        if token.text not in _SPELLINGS:
            like_a_gate = self.tokens[self.position + 1].text in ("(", self.register)
            if token.kind == "name" and like_a_gate and token.text not in _KEYWORDS:
                self.fail(f"a gate must be one of {', '.join(_SPELLINGS)}")
            self.fail(f"a flat circuit may hold only {_STATEMENTS}")
        self.position += 1
        params: list[Expression] = []
        if self.text == "(":
            self.take("(")
            while self.text != ")":
                params.append(self._param())
                if self.text != ")":
                    self.take(",", expected="an operator, `,` or `)`")
            self.take(")")
        call = Call(_SPELLINGS[token.text].name, self._wires(), tuple(params))
        try:
            check_call(call, self.n_qubits)
        except CircuitError as error:
            self.fail(str(error), token)
        self.take(";")
        return call

    def _wires(self) -> tuple[int, ...]:
        if not self.n_qubits:
            self.fail("the qubits must be declared before they are used")
        wires: list[int] = []
        while not wires or self.text == ",":
            if wires:
                self.take(",")
            self.take(self.register, expected=f"a qubit like `{self.register}[0]`")
            self.take("[", expected=f"one qubit, as in `{self.register}[0]`,")
            wires.append(self._whole("the number of a qubit", 0, self.n_qubits - 1))
            self.take("]", expected="`]`: qubits are named one by one, and that")
        return tuple(wires)

    # ---- arithmetic: operators bind as `BINARY` says, a sign between products and powers ----

    def _param(self) -> Expression:
        start, self.operators = self.tokens[self.position], 0
        try:
            return self._expression(1)
        except ArgumentError as error:  # arithmetic of numbers that has no value
            self.fail(str(error), start)

    def _expression(self, level: int) -> Expression:
        left = self._operand()
        while self.text in BINARY and BINARY[self.text][0] >= level:
            operator = self._operator()
            binds = BINARY[operator.text][0]
            right = self._expression(binds if operator.text == "**" else binds + 1)
            numbers = [side.args[0] for side in (left, right) if side.op == "number"]
            if operator.text == "/" and [*map(type, numbers)] == [int, int]:
                self.fail(f"`{left} / {right}` is integer division there: write {float(numbers[0])}", operator)
            left = BINARY[operator.text][1](left, right)
        return left

    def _operator(self) -> _Token:
        self.operators += 1
        if self.operators > _MAX_OPERATORS:
            self.fail(f"a parameter may hold at most {_MAX_OPERATORS} operators, functions and parentheses")
        self.position += 1
        return self.tokens[self.position - 1]

    def _operand(self) -> Expression:
        token = self.tokens[self.position]
        if token.text == "-":
            self._operator()
            return -self._expression(BINARY["**"][0])
        if token.text == "(" or token.text in (*FUNCTIONS, "pow"):
            return self._group()
        self.position += 1
        if token.kind == "number":
            whole = token.text.isdecimal() and len(token.text) < 16
            return Expression.of(int(token.text) if whole else float(token.text))
        if token.text in _CONSTANT_NAMES:
            return Expression("constant", (_CONSTANT_NAMES[token.text],))
        if token.text in self.names["x"] or token.text in self.names["w"]:
            return Expression.variable(token.text)
        names = ", ".join((*_CONSTANT_NAMES, *FUNCTIONS, "pow"))
        self.fail(f"an operand must be a declared input or weight, a number, {names}, `-` or `(`", token)

    def _group(self) -> Expression:
        """Parentheses, or a function and its arguments."""
        function = "" if self.text == "(" else self._operator().text
        if function:
            self.take("(", expected=f"`(` of the function {function}")
        else:
            self._operator()
        value = self._expression(1)
        if function == "pow":
            self.take(",")
            value = value ** self._expression(1)
        self.take(")", expected="an operator or `)`")
        return Expression.call(function, value) if function not in ("", "pow") else value

"""Circuits as files: reads and writes a strict, flat subset of OpenQASM 3 that Qiskit reads too.

A file holds the version, ``include "stdgates.inc";``, scalars ``input float[64] x_0;`` (data: the name starts
with x) and ``w_0`` (weights: with w), one ``qubit[n] q;`` and gate calls whose parameters are arithmetic of
inputs, weights, numbers and pi. Inputs and weights are bound in the order of the numbers in their names (x_2 before
x_10), whatever the order of their declarations. Comments may say ``title:``, ``reference:``, ``observables:`` (Z on
every wire where that is missing), ``weight_shape:`` and ``order:`` (of names that are to be bound otherwise).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from qbp.circuit.gates import GATES, Step
from qbp.circuit.qasm.expression import PI, Expression
from qbp.circuit.qasm.listing import Call, Listing, format_observables, in_order_of_numbers
from qbp.circuit.qasm.reader import loads
from qbp.errors import ArgumentError, CircuitError, did_you_mean

__all__ = [
    "Call",
    "Expression",
    "Listing",
    "available",
    "circuits_dir",
    "dumps",
    "find",
    "in_pi",
    "load",
    "loads",
    "rotation",
    "text_of",
]

_MAX_BYTES = 8_000_000


# ---- writing ---------------------------------------------------------------------------------------


def dumps(listing: Listing) -> str:
    """The OpenQASM 3 text of a circuit.

    Gates that ``stdgates.inc`` lacks are written as their Pauli rotations, in terms of h, s, sdg, cx, rx, ry,
    rz: the same circuit up to a global phase. All others read back as they are:
    ``loads(dumps(listing)) == listing``.
    """
    header = {
        "title": listing.title,
        "reference": listing.reference,
        "observables": format_observables(listing.measurements),
        "weight_shape": ", ".join(map(str, listing.weight_shape)) if len(listing.weight_shape) > 1 else "",
        "order": "" if _is_in_order(listing) else ", ".join(listing.inputs + listing.weights),
    }
    lines = [f"// {key}: {text}" for key, text in header.items() if text]
    lines += ["OPENQASM 3.0;", 'include "stdgates.inc";', ""]
    lines += [f"input float[64] {name};" for name in listing.inputs + listing.weights]
    lines += [f"qubit[{listing.n_qubits}] q;", ""]
    for call in (part for whole in listing.calls for part in _portable(whole)):
        params = f"({', '.join(map(str, call.params))})" if call.params else ""
        lines.append(f"{GATES[call.name].qasm}{params} {', '.join(f'q[{w}]' for w in call.wires)};")
    return "\n".join(lines) + "\n"


def _is_in_order(listing: Listing) -> bool:
    return all(tuple(in_order_of_numbers(names)) == names for names in (listing.inputs, listing.weights))


# Gates before and after a rotation about Z that make it one about another letter.
_BASIS = {"X": (("Hadamard",), ("Hadamard",)), "Y": (("Adjoint(S)", "Hadamard"), ("Hadamard", "S")), "Z": ((), ())}


def _portable(call: Call) -> Iterator[Call]:
    """The gate with a spelling in stdgates.inc, or else its Pauli rotations: a change of basis that turns the word
    into Z's, a ladder of CNOTs that gathers them on the last wire, the rotation there, and the way back."""
    gate = GATES[call.name]
    if gate.qasm:
        yield call
        return
    for step in gate.steps:
        yield from rotation(step.pauli, tuple(call.wires[w] for w in step.wires), _angle(step, call.params))


def rotation(pauli: str, wires: tuple[int, ...], angle: Expression) -> Iterator[Call]:
    """A rotation about a Pauli word by gates of stdgates.inc."""
    if len(wires) == 1:
        yield Call(f"R{pauli}", wires, (angle,))
        return
    letters = list(zip(pauli, wires, strict=True))
    ladder = [Call("CNOT", pair) for pair in itertools.pairwise(wires)]
    yield from (Call(name, (wire,)) for letter, wire in letters for name in _BASIS[letter][0])
    yield from (*ladder, Call("RZ", (wires[-1],), (angle,)), *reversed(ladder))
    yield from (Call(name, (wire,)) for letter, wire in letters for name in _BASIS[letter][1])


def _angle(step: Step, params: tuple[Expression, ...]) -> Expression:
    if step.param is None:
        return in_pi(step.offset)
    angle = params[step.param]
    if step.scale != 1:
        angle = -angle if step.scale == -1 else step.scale * angle
    return angle + in_pi(step.offset) if step.offset else angle


def in_pi(value: float) -> Expression:
    """The number as a multiple of pi, where it is a simple one."""
    if not value:
        return Expression.of(0.0)
    turns = Fraction(value / math.pi).limit_denominator(16)
    if abs(float(turns) * math.pi - value) > 1e-15:
        return Expression.of(value)
    top = PI if abs(turns.numerator) == 1 else abs(turns.numerator) * PI
    top = -top if turns < 0 else top
    return top if turns.denominator == 1 else top / turns.denominator


# ---- files -----------------------------------------------------------------------------------------


def circuits_dir() -> Path:
    """The folder of the circuits that come with qbp: inside the installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "circuits"
    return installed if installed.is_dir() else package.parent / "circuits"


def available() -> list[str]:
    """The names of the circuits that come with qbp."""
    return sorted(path.stem for path in circuits_dir().glob("*.qasm"))


def find(name_or_path: str | Path) -> Path:
    """The file of that path, or of that name in ``circuits/`` (with or without ``circuits/`` and ``.qasm``).

    Raises:
        ArgumentError: if there is none.
    """
    path = Path(name_or_path)
    shipped = circuits_dir() / f"{path.name.removesuffix('.qasm')}.qasm"
    named = path.parent in (Path("."), Path("circuits"))
    for candidate in (path, *([shipped] if named else [])):
        if candidate.is_file():
            return candidate
    names = ", ".join(available())
    raise ArgumentError(
        f"Argument `name_or_path` must be an OpenQASM 3 file or one of {names}, but is {str(name_or_path)!r}"
        f"{did_you_mean(str(name_or_path), available())}"
    )


def load(path: str | Path) -> Listing:
    """Read a file, found by `find`.

    Example:
        >>> load("xor_2q").inputs
        ('x_0', 'x_1')
    """
    file = find(path)
    return loads(text_of(file), filename=str(file))


def text_of(file: Path) -> str:
    """The text of a file.

    Raises:
        CircuitError: if it is too large, or no text in UTF-8.
    """
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise CircuitError(f"{file} has {size} bytes; at most {_MAX_BYTES} are read")
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CircuitError(f"{file} is not a text file in UTF-8") from error

"""Files of other tools: OpenQASM 2, and what Qiskit's reader knows of OpenQASM 3, as Qiskit circuits.

Whatever a file holds, reading ends within seconds: sizes are looked at before Qiskit sees the text, no file but the
gates' own library is included, and every error is a `CircuitError` with file, line and column.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from importlib import import_module
from itertools import accumulate
from typing import Any

from qbp.errors import CircuitError, MissingPackageError

__all__ = ["is_version_2", "place_of", "read"]

_MAX_BYTES = {2: 6_000_000, 3: 150_000}  # Qiskit's reader of OpenQASM 3 is slow
_MAX_SIZE = 20_000  # of a register, and of all of them
_MAX_STATEMENTS = 300_000
_MAX_NESTING = 200
_MAX_DEFINITIONS, _MAX_FLOORS = 2_000, 100

_SKIPPED = re.compile(r'//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.DOTALL)
_INDEX = re.compile(r"\[\s*([0-9]+)")
_REGISTER = re.compile(r"\b(?:(?:qreg|creg)\s+(\w+)\s*\[\s*([0-9]+)\s*\]|(?:qubit|bit)\s*\[\s*([0-9]+)\s*\]\s*(\w+))")
_DEFINITION = re.compile(r"\bgate\s+(\w+)[^{};]*\{([^{}]*)\}")
_GATE = re.compile(r"\bgate\s+(\w+)")
_WORD = re.compile(r"[^\W\d]\w*")
_FIRST_WORD = re.compile(r"(?:^|;)\s*(\w+)")
_HEAD = re.compile(r"\s*OPENQASM\s+([0-9]{1,3})\b")


def is_version_2(text: str) -> bool:
    """Whether a text is OpenQASM 2: by its version, or without one by what only OpenQASM 2 has."""
    start = text[:10_000]
    head = _HEAD.match(_blank(start))
    return head[1] == "2" if head else "qelib1.inc" in start or bool(re.search(r"\bqreg\b", _blank(start)))


def read(text: str, filename: str) -> Any:
    """A file's text as a Qiskit `QuantumCircuit`.

    Raises:
        CircuitError: naming file, line and column of what cannot be read.
        MissingPackageError: if OpenQASM 3 needs a reader that is not installed.
    """
    version = 2 if is_version_2(text) else 3
    _check_sizes(text, filename, version)
    try:
        return _read_2(text) if version == 2 else _read_3(text, filename)
    except (CircuitError, MissingPackageError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a parser's own; Rust's panics are no Exception
        if isinstance(error, SystemExit):
            raise
        raise CircuitError(f"{filename}{_told(error)}") from error


def _told(error: BaseException) -> str:
    """Where and what, of Qiskit's messages ``<input>:4,0: what`` and ``4,0: what``; its columns count from 0."""
    message = str(getattr(error, "message", error)).strip("'\"")
    match = re.match(r"(?:<input>:)?([0-9]+),([0-9]+): (.*)", message, re.DOTALL)
    if match is None:
        return f" cannot be read: {type(error).__name__}: {message[:200]}"
    return f", line {match[1]}, column {int(match[2]) + 1}: {match[3][:300]}"


def _read_2(text: str) -> Any:
    from qiskit import qasm2

    own = set(_GATE.findall(_blank(text))) if "gate" in text else set()  # Qiskit would take its own of these names
    instructions = [gate for gate in qasm2.LEGACY_CUSTOM_INSTRUCTIONS if gate.name not in own]
    return qasm2.loads(text, include_path=(), custom_instructions=instructions)


def _read_3(text: str, filename: str) -> Any:
    try:
        openqasm, antlr = import_module("openqasm3.parser"), import_module("antlr4.error.ErrorListener")
        converter = import_module("qiskit_qasm3_import")
    except ImportError as error:
        raise MissingPackageError(
            f"{filename} holds more of OpenQASM 3 than qbp reads by itself: `pip install qiskit-qasm3-import` "
            "(or 'qbp[qasm]') for Qiskit's reader"
        ) from error

    class Listener(antlr.ErrorListener):  # type: ignore[name-defined]  # the default one prints
        def syntaxError(self, recognizer: Any, symbol: Any, line: int, column: int, message: str, error: Any) -> None:
            raise CircuitError(f"{filename}, line {line}, column {column + 1}: {message[:300]}")

    lexer = openqasm.qasm3Lexer(openqasm.InputStream(_spelled_out(text)))
    parser = openqasm.qasm3Parser(openqasm.CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(Listener())
    return converter.convert(openqasm.QASMNodeVisitor().visitProgram(parser.program()))


_PHASES = {"U": ("a,b,c", "a/2"), "u3": ("a,b,c", "-(b+c)/2"), "u2": ("b,c", "-(b+c)/2")}
"""Gates whose phase in OpenQASM 3 is not that of Qiskit's gates: parameters and phase."""


def _spelled_out(text: str) -> str:
    """OpenQASM 3 in which controls see what the file says: Qiskit controls a gate by its name, also one that the file
    itself defines, and without the phase that `U` has in OpenQASM 3 (version 3.0, section "Quantum gates")."""
    plain = _blank(text)
    if "@" not in plain:
        return text
    own = set(_GATE.findall(plain))
    words = set(_WORD.findall(plain))
    phases = {name: names for name, names in _PHASES.items() if name in words - own}
    tail = "_"
    while any(word.endswith(tail) for word in words):
        tail += "_"
    gates = [
        f" gate {name}{tail}({params}) q {{ gphase({phase}); {name}({params}) q; }}"
        for name, (params, phase) in phases.items()
    ]
    pieces, end = [], 0
    for match in _WORD.finditer(plain):
        if match[0] in own or match[0] in phases:
            pieces += [text[end : match.end()], tail]
            end = match.end()
    text = "".join([*pieces, text[end:]])
    start = max((m.end() for m in re.finditer(r"\b(OPENQASM|include)\b[^;]*;", _blank(text))), default=0)
    return text[:start] + "".join(gates) + text[start:]


# ---- sizes -----------------------------------------------------------------------------------------------------------


def _blank(text: str) -> str:
    """The text with comments and strings blanked out; everything keeps its place."""
    return _SKIPPED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def _check_sizes(text: str, filename: str, version: int) -> None:
    def fail(message: str, position: int = 0) -> None:
        line, start = text.count("\n", 0, position) + 1, text.rfind("\n", 0, position) + 1
        raise CircuitError(f"{filename}, line {line}, column {position - start + 1}: {message}")

    if len(text) > _MAX_BYTES[version]:
        fail(f"the file has {len(text)} characters; of OpenQASM {version} at most {_MAX_BYTES[version]} are read")
    plain = _blank(text)
    largest = total = 0
    for match in _INDEX.finditer(plain):
        if len(match[1]) > 9 or int(match[1]) > _MAX_SIZE:
            fail(f"found `{match[1][:20]}`, but a register's size or index may be at most {_MAX_SIZE}", match.start(1))
    for match in _REGISTER.finditer(plain):
        largest, total = max(largest, int(match[2] or match[3])), total + int(match[2] or match[3])
        if total > 2 * _MAX_SIZE:
            fail(f"the registers may hold at most {2 * _MAX_SIZE} bits and qubits", match.start())
    if plain.count(";") > _MAX_STATEMENTS:
        fail(f"the file has {plain.count(';')} statements; at most {_MAX_STATEMENTS} are read")
    if plain.count(";") * largest > _MAX_STATEMENTS:
        n_instructions = sum(count for _, count in _statements(plain))
        if n_instructions > _MAX_STATEMENTS:
            fail(f"the file has {n_instructions} instructions; at most {_MAX_STATEMENTS} are read")
    position = 0
    for statement in plain.split(";"):
        nested = sum(map(statement.count, "([{^*-+~!")) > _MAX_NESTING and _nesting(statement)
        if nested:
            fail(f"parentheses, signs and powers may be nested at most {_MAX_NESTING} deep", position + nested)
        position += len(statement) + 1
    _check_definitions(plain, fail)


def _nesting(statement: str) -> int:
    """Where a statement is nested too deep, 0 where it is not."""
    depth = powers = 0
    for match in re.finditer(r"[(\[{}\])]|[-+~!]{100}|\^|\*\*", statement):
        text = match.group()
        depth += 1 if text in "([{" else -1 if text in ")]}" else 0
        powers += text in ("^", "**")
        if depth > _MAX_NESTING or powers > _MAX_NESTING or len(text) == 100:
            return match.start()
    return 0


def _check_definitions(plain: str, fail: Callable[[str, int], None]) -> None:
    """Gates that are defined by gates that are defined by gates: how many there are in the end, and how many floors."""
    sizes: dict[str, int] = {}
    floors: dict[str, int] = {}
    for match in _DEFINITION.finditer(plain):
        words = [word.group(1) for word in _FIRST_WORD.finditer(match[2])]
        sizes[match[1]] = 1 + sum(sizes.get(word, 1) for word in words)
        floors[match[1]] = 1 + max((floors.get(word, 0) for word in words), default=0)
        if floors[match[1]] > _MAX_FLOORS or len(sizes) > _MAX_DEFINITIONS:
            fail(f"a file may define at most {_MAX_DEFINITIONS} gates, on at most {_MAX_FLOORS} floors", match.start())
    total = 0
    for match in _FIRST_WORD.finditer(_DEFINITION.sub("", plain) if sizes else ""):
        total += sizes.get(match[1], 0)
        if total > _MAX_STATEMENTS:
            fail(f"the gates that the file defines come to more than {_MAX_STATEMENTS}", 0)


# ---- places ----------------------------------------------------------------------------------------------------------

_DECLARATION = re.compile(r"\s*(?:OPENQASM|include|qreg|creg|qubit|bit|input|opaque|gate)\b|\s*$")


def _statements(plain: str) -> list[tuple[int, int]]:
    """Where each statement that does something begins, and how many instructions it becomes: one, or on whole registers
    as many as they have qubits. `plain` has neither comments nor definitions."""
    sizes = {m[1] or m[4]: int(m[2] or m[3]) for m in _REGISTER.finditer(plain)}
    statements, position = [], 0
    for statement in plain.split(";")[:-1]:
        if not _DECLARATION.match(statement):
            unconditional = re.sub(r"^\s*if\s*\([^)]*\)", "", statement)
            barrier = re.match(r"\s*barrier\b", unconditional)
            whole = [] if barrier else re.findall(r"\b(\w+)\b(?!\s*[\[\w(])", unconditional)
            count = max([sizes[name] for name in whole if name in sizes], default=1)
            statements.append((position + len(statement) - len(statement.lstrip()), count))
        position += len(statement) + 1
    return statements


def place_of(text: str, index: int, n_instructions: int) -> str:
    """Line and text of the statement that became the instruction `index` of a circuit, "" where that is not certain, as
    with OpenQASM 3's ranges."""
    statements = _statements(_DEFINITION.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), _blank(text)))
    counts = list(accumulate(count for _, count in statements))
    if not counts or counts[-1] != n_instructions:
        return ""
    start = statements[bisect_right(counts, index)][0]
    line = text.count("\n", 0, start) + 1
    return f", line {line}, `{' '.join(text[start:].partition(';')[0].split())[:80]};`"

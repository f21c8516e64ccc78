"""Readout errors: what is measured where the outcomes of some wires are read wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from qbp.circuit.program import Expval, Measurement, Probs, Program

__all__ = ["confused", "confusion", "read"]


def read(program: Program) -> tuple[Measurement, ...]:
    """The measurements without readout errors whose expectation values are those with them; probabilities stay.

    An outcome +-1 that is read with p(1|0) and p(0|1) is ``(1 - p(1|0) - p(0|1)) P + p(0|1) - p(1|0)`` on average,
    so that a word of n letters becomes up to 2^n words.
    """
    errors = {wire: (1 - ones - zeros, zeros - ones) for wire, ones, zeros in program.readout}
    return tuple(_read(m, errors) if errors and isinstance(m, Expval) else m for m in program.measurements)


def _read(measurement: Expval, errors: dict[int, tuple[float, float]]) -> Expval:
    terms: dict[tuple[str, tuple[int, ...]], float] = {}
    for coefficient, word, wires in measurement.terms:
        for factor, letters, on in _parts(word, wires, errors):
            terms[letters, on] = terms.get((letters, on), 0.0) + coefficient * factor
    return Expval(tuple((c, letters, on) for (letters, on), c in terms.items()))


def _parts(
    word: str, wires: tuple[int, ...], errors: dict[int, tuple[float, float]]
) -> Iterator[tuple[float, str, tuple[int, ...]]]:
    """What a word is read as: (factor, letters, wires)."""
    parts: list[tuple[float, str, tuple[int, ...]]] = [(1.0, "", ())]
    for letter, wire in zip(word, wires, strict=True):
        factor, shift = errors.get(wire, (1.0, 0.0))
        kept = [(c * factor, letters + letter, (*on, wire)) for c, letters, on in parts]
        parts = kept + [(c * shift, letters, on) for c, letters, on in parts if shift]
    yield from parts


def confusion(program: Program, wires: tuple[int, ...]) -> np.ndarray:
    """The probabilities (2^n, 2^n) of reading outcome i of n wires where it is j."""
    errors = {wire: np.array([[1 - ones, zeros], [ones, 1 - zeros]]) for wire, ones, zeros in program.readout}
    return reduce(np.kron, [errors.get(wire, np.eye(2)) for wire in wires])


def confused(program: Program, outputs: np.ndarray, back: bool = False) -> np.ndarray:
    """The outputs (B, M) with their probabilities as they are read; expectation values stay (see `read`).

    With `back` it takes gradients of these to gradients of the outputs.
    """
    errors = {wire: np.array([[1 - ones, zeros], [ones, 1 - zeros]]) for wire, ones, zeros in program.readout}
    if not errors:
        return outputs
    if back:
        errors = {wire: error.T for wire, error in errors.items()}
    outputs, column = outputs.copy(), 0
    for m in program.measurements:
        if isinstance(m, Probs):
            cube = outputs[:, column : column + 2 ** len(m.wires)].reshape(-1, *[2] * len(m.wires))
            for axis, wire in enumerate(m.wires):
                if wire in errors:
                    cube = np.moveaxis(np.tensordot(errors[wire], cube, (1, 1 + axis)), 0, 1 + axis)
            outputs[:, column : column + 2 ** len(m.wires)] = cube.reshape(len(outputs), -1)
        column += 2 ** len(m.wires) if isinstance(m, Probs) else 1
    return outputs

# mypy: disable-error-code="no-untyped-def"
"""Rotations about words of several wires, and any other map."""

from __future__ import annotations

from qbp.executors.native.kernels.jit import inline, jit
from qbp.executors.native.kernels.simd import load, n_lanes, splat, store
from qbp.executors.pauli.kernels.one_wire import nth, widened

__all__ = ["apply_map", "turn_words", "word_gradient"]


@inline
def _group(g, bits):
    """The word with the digits of g, and I at some wires, whose digits begin at bits in ascending order."""
    for k in range(len(bits)):
        g = widened(g, bits[k])
    return g


@jit
def turn_words(S, n_groups, groups, ints, at, n_wires, n_pairs, CS, step, sign):
    """Turn the pairs (Q, Q') of words that a rotation mixes, ``Q -> cos Q + sin Q'``; back with sign -1."""
    W = n_lanes(S)
    c, s = load(CS, 2 * W * step), splat(S.dtype.type(sign)) * load(CS, 2 * W * step + W)
    bits, pairs = ints[at : at + n_wires], ints[at + n_wires : at + n_wires + 2 * n_pairs]
    for number in range(n_groups):
        base = _group(nth(groups, number), bits)
        for k in range(0, 2 * n_pairs, 2):
            i, j = (base + pairs[k]) * W, (base + pairs[k + 1]) * W
            x, y = load(S, i), load(S, j)
            store(S, i, c * x - s * y)
            store(S, j, c * y + s * x)


@jit
def word_gradient(V, U, n_groups, groups, ints, at, n_wires, n_pairs):
    """The gradient of its angle, both before it or both after it."""
    W = n_lanes(V)
    total = splat(V.dtype.type(0))
    bits, pairs = ints[at : at + n_wires], ints[at + n_wires : at + n_wires + 2 * n_pairs]
    for number in range(n_groups):
        base = _group(nth(groups, number), bits)
        for k in range(0, 2 * n_pairs, 2):
            i, j = (base + pairs[k]) * W, (base + pairs[k + 1]) * W
            total = total + load(U, j) * load(V, i) - load(U, i) * load(V, j)
    return total


# Integers of any other map: how many entries it and its inverse have, the bits of its wires, the offsets of its digits,
# then (row, column) of all entries. Numbers: their values.


@jit
def apply_map(S, n_groups, groups, ints, at, n_wires, numbers, of, inverse, transposed, P):
    """S <- M S, with the inverse or the transposed matrix if it is to be."""
    W, n_words = n_lanes(S), 1 << 2 * n_wires
    n_entries, n_before = ints[at + (1 if inverse else 0)], ints[at] if inverse else 0
    bits, offsets = ints[at + 2 : at + 2 + n_wires], ints[at + 2 + n_wires : at + 2 + n_wires + n_words]
    first = at + 2 + n_wires + n_words + 2 * n_before
    entries, values = ints[first : first + 2 * n_entries], numbers[of + n_before : of + n_before + n_entries]
    row, column = (1, 0) if transposed else (0, 1)
    zero = splat(S.dtype.type(0))
    for number in range(n_groups):
        base = _group(nth(groups, number), bits)
        for k in range(n_words):
            store(P, k * W, zero)
        for e in range(n_entries):
            i, j = entries[2 * e + row] * W, offsets[entries[2 * e + column]]
            store(P, i, load(P, i) + splat(values[e]) * load(S, (base + j) * W))
        for k in range(n_words):
            store(S, (base + offsets[k]) * W, load(P, k * W))

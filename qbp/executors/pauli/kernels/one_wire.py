# mypy: disable-error-code="no-untyped-def"
"""Runs of gates and noise on one wire: their matrices, what they do, and the gradients of their angles."""

from __future__ import annotations

from qbp.executors.native.kernels.fixed_point import as_turns, cos_sin_of_turns, turns_in
from qbp.executors.native.kernels.jit import inline, jit
from qbp.executors.native.kernels.passes import cos_sin
from qbp.executors.native.kernels.simd import hsum, load, n_lanes, splat, store
from qbp.executors.pauli.kernels.conventions import ANGLE, AXIS, FIXED, GROUPS, IS_FIXED, N_GROUPS, N_WIRES

__all__ = [
    "add_gradient",
    "groups_of",
    "nth",
    "run_gradients",
    "run_inverse",
    "run_matrix",
    "run_wire",
    "run_wire_back",
    "run_wire_forth",
    "run_wire_transposed",
    "turn_of_lanes",
    "turns",
    "widened",
]


# A run's matrix is kept as 3 x 4 numbers, of X, Y, Z after it: a shift by the identity, then X, Y, Z before it.


@jit
def turns(tables, first, last, n_batched, shared, CS):
    """cos and sin of the angles of some steps that samples share, in every lane, CS[step, 2, W]."""
    W, steps, scales = n_lanes(CS), tables.steps, tables.scales
    for s in range(first, last):
        at, k = 2 * W * s, steps[s, ANGLE]
        if steps[s, AXIS] != IS_FIXED and not 0 <= k < n_batched:
            c, d = cos_sin(scales[s, 1] + scales[s, 0] * shared[k - n_batched] if k >= 0 else scales[s, 1])
            store(CS, at, splat(CS.dtype.type(c)))
            store(CS, at + W, splat(CS.dtype.type(d)))


@inline
def turn_of_lanes(tables, s, batched, row, rows, CS):
    """cos and sin of the angle of a step in a register of samples; they are left in CS, too."""
    W, k, scale, offset = n_lanes(CS), tables.steps[s, ANGLE], tables.scales[s, 0], tables.scales[s, 1]
    at = 2 * W * s
    cos, sin = CS[at : at + W], CS[at + W : at + 2 * W]  # that no index is negative, the compiler then knows
    for w in range(W):
        cos[w] = batched[row + min(w, rows - 1), k]
    if CS.itemsize == 4:  # integers are as fine as float32, and quicker
        whole = as_turns(sin)
        for w in range(W):
            whole[w] = turns_in(scale * cos[w] + offset, CS)
        c, s = cos_sin_of_turns(load(whole, 0))
        store(CS, at, c)
        store(CS, at + W, s)
        return c, s
    for w in range(W):
        cos[w], sin[w] = cos_sin(scale * cos[w] + offset)
    return load(CS, at), load(CS, at + W)


@inline
def _other_axes(axis):
    return (1, 2) if axis == 0 else (2, 0) if axis == 1 else (0, 1)


@jit
def run_matrix(steps, fixed, first, last, CS, M):
    """The matrix of a run after each of its steps, M[step, 12, W]."""
    W = n_lanes(M)
    zero, one = splat(M.dtype.type(0)), splat(M.dtype.type(1))
    for s in range(first, last):
        at, before = 12 * W * s, 12 * W * (s - 1)
        if s == first:
            before = at
            for k in range(12):
                store(M, at + k * W, one if k in (1, 6, 11) else zero)
        if steps[s, AXIS] == IS_FIXED:
            n = steps[s, FIXED]
            for c in range(4):
                p, q, r = load(M, before + c * W), load(M, before + (4 + c) * W), load(M, before + (8 + c) * W)
                for a in range(3):
                    x = splat(fixed[n, 4 * a + 1]) * p + splat(fixed[n, 4 * a + 2]) * q + splat(fixed[n, 4 * a + 3]) * r
                    store(M, at + (4 * a + c) * W, x + splat(fixed[n, 4 * a]) if c == 0 else x)
        else:
            i, j = _other_axes(steps[s, AXIS])
            k = steps[s, AXIS]
            cos, sin = load(CS, 2 * W * s), load(CS, 2 * W * s + W)
            for c in range(4):
                p, q = load(M, before + (4 * i + c) * W), load(M, before + (4 * j + c) * W)
                r = load(M, before + (4 * k + c) * W)
                store(M, at + (4 * i + c) * W, cos * p - sin * q)
                store(M, at + (4 * j + c) * W, cos * q + sin * p)
                store(M, at + (4 * k + c) * W, r)


@jit
def run_inverse(steps, undone, first, last, CS, J, at):
    """The inverse of a run's matrix without its shift, nine numbers from J[at] on."""
    W = n_lanes(J)
    zero, one = splat(J.dtype.type(0)), splat(J.dtype.type(1))
    for k in range(9):
        store(J, at + k * W, one if k in (0, 4, 8) else zero)
    for s in range(first, last):
        for a in range(3):
            row = at + 3 * a * W
            p, q, r = load(J, row), load(J, row + W), load(J, row + 2 * W)
            if steps[s, AXIS] == IS_FIXED:
                n = steps[s, FIXED]
                for c in range(3):
                    store(
                        J,
                        row + c * W,
                        p * splat(undone[n, c]) + q * splat(undone[n, 3 + c]) + r * splat(undone[n, 6 + c]),
                    )
            else:
                i, j = _other_axes(steps[s, AXIS])
                cos, sin = load(CS, 2 * W * s), load(CS, 2 * W * s + W)
                p, q = load(J, row + i * W), load(J, row + j * W)
                store(J, row + i * W, cos * p - sin * q)
                store(J, row + j * W, cos * q + sin * p)


@jit
def run_gradients(tables, first, last, CS, M, E, at, n_batched, G, g_shared, chunk):
    """From ``dL/dM`` of a run, E[at] on, which is used up, to the gradients of its angles; these are added up."""
    W, steps, scales, fixed = n_lanes(E), tables.steps, tables.scales, tables.fixed
    for s in range(last - 1, first - 1, -1):
        if steps[s, AXIS] == IS_FIXED:
            n = steps[s, FIXED]
            for c in range(4):
                p, q, r = load(E, at + c * W), load(E, at + (4 + c) * W), load(E, at + (8 + c) * W)
                for a in range(3):
                    x = splat(fixed[n, 1 + a]) * p + splat(fixed[n, 5 + a]) * q + splat(fixed[n, 9 + a]) * r
                    store(E, at + (4 * a + c) * W, x)
        else:
            i, j = _other_axes(steps[s, AXIS])
            cos, sin = load(CS, 2 * W * s), load(CS, 2 * W * s + W)
            total = splat(E.dtype.type(0))
            for c in range(4):
                g, h = load(E, at + (4 * i + c) * W), load(E, at + (4 * j + c) * W)
                x, y = load(M, 12 * W * s + (4 * i + c) * W), load(M, 12 * W * s + (4 * j + c) * W)
                total = total + h * x - g * y
                store(E, at + (4 * i + c) * W, cos * g + sin * h)
                store(E, at + (4 * j + c) * W, cos * h - sin * g)
            add_gradient(steps[s, ANGLE], scales[s, 0], total, n_batched, G, g_shared, chunk)


@inline
def add_gradient(k, scale, total, n_batched, G, g_shared, chunk):
    """Add the gradient of a step to that of its angle: of samples in G[angle, W]."""
    W = n_lanes(G)
    if k >= n_batched:
        g_shared[chunk, k - n_batched] += scale * hsum(total)
    elif k >= 0:
        store(G, k * W, load(G, k * W) + splat(G.dtype.type(scale)) * total)


@inline
def groups_of(tables, p, size):
    """How many groups of words a pass has, those that differ in the digits of its wires, and which ones, if not all."""
    n, at = tables.passes[p, N_GROUPS], tables.passes[p, GROUPS]
    return (n, tables.ints[at : at + n]) if n >= 0 else (size >> 2 * tables.passes[p, N_WIRES], tables.ints[:0])


@inline
def nth(groups, number):
    """One of the groups of words of a pass, which are all where none are listed."""
    return groups[number] if len(groups) else number


@inline
def widened(g, shift):
    """The word with the digits of g, and I at the wire whose digit begins at a bit."""
    return (g >> shift << shift + 2) | (g & ((1 << shift) - 1))


@inline
def _matrix(M, at):
    """The 3 x 4 numbers of a run."""
    W = n_lanes(M)
    return (
        *(load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)),
        *(load(M, at + 4 * W), load(M, at + 5 * W), load(M, at + 6 * W), load(M, at + 7 * W)),
        *(load(M, at + 8 * W), load(M, at + 9 * W), load(M, at + 10 * W), load(M, at + 11 * W)),
    )


@inline
def _inverse(J, at):
    """The 3 x 3 numbers that undo it, but for its shift."""
    W = n_lanes(J)
    return (
        *(load(J, at), load(J, at + W), load(J, at + 2 * W)),
        *(load(J, at + 3 * W), load(J, at + 4 * W), load(J, at + 5 * W)),
        *(load(J, at + 6 * W), load(J, at + 7 * W), load(J, at + 8 * W)),
    )


@jit
def run_wire(S, n, groups, shift, M, at):
    """V <- M V."""
    W = n_lanes(S)
    m = W << shift
    tx, xx, xy, xz, ty, yx, yy, yz, tz, zx, zy, zz = _matrix(M, at)
    for q in range(n):
        i = widened(nth(groups, q), shift) * W
        e, x, y, z = load(S, i), load(S, i + m), load(S, i + 2 * m), load(S, i + 3 * m)
        store(S, i + m, tx * e + xx * x + xy * y + xz * z)
        store(S, i + 2 * m, ty * e + yx * x + yy * y + yz * z)
        store(S, i + 3 * m, tz * e + zx * x + zy * y + zz * z)


@jit
def run_wire_transposed(S, n, groups, shift, M, at):
    """U <- M^T U."""
    W = n_lanes(S)
    m = W << shift
    tx, xx, xy, xz, ty, yx, yy, yz, tz, zx, zy, zz = _matrix(M, at)
    for q in range(n):
        i = widened(nth(groups, q), shift) * W
        e, x, y, z = load(S, i), load(S, i + m), load(S, i + 2 * m), load(S, i + 3 * m)
        store(S, i, e + tx * x + ty * y + tz * z)
        store(S, i + m, xx * x + yx * y + zx * z)
        store(S, i + 2 * m, xy * x + yy * y + zy * z)
        store(S, i + 3 * m, xz * x + yz * y + zz * z)


@jit
def run_wire_back(V, U, n_groups, groups, shift, M, at, J, inverse, kept, E, to):
    """V <- M^-1 V unless it was kept, U <- M^T U, and ``dL/dM`` from E[to] on."""
    W = n_lanes(V)
    m = W << shift
    tx, xx, xy, xz, ty, yx, yy, yz, tz, zx, zy, zz = _matrix(M, at)
    a, b, c, d, f, h, j, k, n = _inverse(J, inverse)
    g0 = g1 = g2 = g3 = g4 = g5 = g6 = g7 = g8 = g9 = g10 = g11 = splat(V.dtype.type(0))
    for number in range(n_groups):
        i = widened(nth(groups, number), shift) * W
        e, x, y, z = load(V, i), load(V, i + m), load(V, i + 2 * m), load(V, i + 3 * m)
        if not kept:
            p, q, r = x - tx * e, y - ty * e, z - tz * e
            x, y, z = a * p + b * q + c * r, d * p + f * q + h * r, j * p + k * q + n * r
            store(V, i + m, x)
            store(V, i + 2 * m, y)
            store(V, i + 3 * m, z)
        o, p, q, r = load(U, i), load(U, i + m), load(U, i + 2 * m), load(U, i + 3 * m)
        g0, g1, g2, g3 = g0 + p * e, g1 + p * x, g2 + p * y, g3 + p * z
        g4, g5, g6, g7 = g4 + q * e, g5 + q * x, g6 + q * y, g7 + q * z
        g8, g9, g10, g11 = g8 + r * e, g9 + r * x, g10 + r * y, g11 + r * z
        store(U, i, o + tx * p + ty * q + tz * r)
        store(U, i + m, xx * p + yx * q + zx * r)
        store(U, i + 2 * m, xy * p + yy * q + zy * r)
        store(U, i + 3 * m, xz * p + yz * q + zz * r)
    _store_gradient(E, to, g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, g10, g11)


@jit
def run_wire_forth(U, V, n_groups, groups, shift, M, at, J, inverse, kept, E, to):
    """U <- M^-T U unless it was kept, V <- M V, and ``dL/dM`` from E[to] on."""
    W = n_lanes(V)
    m = W << shift
    tx, xx, xy, xz, ty, yx, yy, yz, tz, zx, zy, zz = _matrix(M, at)
    a, b, c, d, f, h, j, k, n = _inverse(J, inverse)
    g0 = g1 = g2 = g3 = g4 = g5 = g6 = g7 = g8 = g9 = g10 = g11 = splat(V.dtype.type(0))
    for number in range(n_groups):
        i = widened(nth(groups, number), shift) * W
        o, p, q, r = load(U, i), load(U, i + m), load(U, i + 2 * m), load(U, i + 3 * m)
        if not kept:
            x, y, z = p, q, r
            p, q, r = a * x + d * y + j * z, b * x + f * y + k * z, c * x + h * y + n * z
            store(U, i, o - tx * p - ty * q - tz * r)
            store(U, i + m, p)
            store(U, i + 2 * m, q)
            store(U, i + 3 * m, r)
        e, x, y, z = load(V, i), load(V, i + m), load(V, i + 2 * m), load(V, i + 3 * m)
        g0, g1, g2, g3 = g0 + p * e, g1 + p * x, g2 + p * y, g3 + p * z
        g4, g5, g6, g7 = g4 + q * e, g5 + q * x, g6 + q * y, g7 + q * z
        g8, g9, g10, g11 = g8 + r * e, g9 + r * x, g10 + r * y, g11 + r * z
        store(V, i + m, tx * e + xx * x + xy * y + xz * z)
        store(V, i + 2 * m, ty * e + yx * x + yy * y + yz * z)
        store(V, i + 3 * m, tz * e + zx * x + zy * y + zz * z)
    _store_gradient(E, to, g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, g10, g11)


@inline
def _store_gradient(E, to, g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, g10, g11):
    W = n_lanes(E)
    store(E, to, g0)
    store(E, to + W, g1)
    store(E, to + 2 * W, g2)
    store(E, to + 3 * W, g3)
    store(E, to + 4 * W, g4)
    store(E, to + 5 * W, g5)
    store(E, to + 6 * W, g6)
    store(E, to + 7 * W, g7)
    store(E, to + 8 * W, g8)
    store(E, to + 9 * W, g9)
    store(E, to + 10 * W, g10)
    store(E, to + 11 * W, g11)

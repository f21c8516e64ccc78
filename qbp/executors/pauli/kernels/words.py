# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels: expectation values of all Pauli words forward and backward, and words back to the data.

The state of a register of samples is ``V[Q, lane] = Tr(Q rho)`` for all words Q, numbers of base 4 with the digits I,
X, Y, Z, wire 0 the most significant. `U` is ``dL/dV``. A pass is a real matrix M on the digits of some wires:
``V <- M V`` forward and ``U <- M^T U`` backward, where V is taken back by the inverse, or comes from a copy that was
kept. With a run of gates and noise on one wire, ``dL/dM = sum u v^T`` (u after it, v before it) holds the gradients of
its angles.

Words that are carried back (`coefficients`) are the same with lanes that are outputs: U first, then V against it.
"""

from __future__ import annotations

from qbp.executors.native.kernels.atomics import fetch_add, flush_denormals, restore_denormals
from qbp.executors.native.kernels.jit import inline, jit, kernel
from qbp.executors.native.kernels.passes import cos_sin
from qbp.executors.native.kernels.simd import hsum, load, n_lanes, splat, store
from qbp.executors.pauli.kernels.conventions import (
    ANGLE,
    AT,
    AXIS,
    DIFFERS,
    END,
    FACTORS,
    FIXED,
    GROUPS,
    IS_FIXED,
    KEEP,
    KEEP_BACK,
    KIND,
    N_GROUPS,
    N_WIRES,
    NUMBERS,
    ONE,
    PAIR,
    RUN,
    STEP,
    UNDONE,
    WORD,
    N,
    Parts,
    unpacked,
)

__all__ = ["backward", "coefficients", "contract", "contract_back", "forth", "forward"]


# ---- runs on one wire ------------------------------------------------------------------------------------------------
# A run's matrix is kept as 3 x 4 numbers, of X, Y, Z after it: a shift by the identity, then X, Y, Z before it.


@jit
def _turns(tables, first, last, batched, row, rows, shared, fresh, CS):
    """cos and sin of the angles of some steps in every lane, CS[step, 2, W]; those that samples share only at first."""
    W, n_batched, steps, scales = n_lanes(CS), batched.shape[1], tables.steps, tables.scales
    for s in range(first, last):
        at, k = 2 * W * s, steps[s, ANGLE]
        if steps[s, AXIS] == IS_FIXED:
            continue
        scale, offset = scales[s, 0], scales[s, 1]
        if 0 <= k < n_batched:
            cos, sin = CS[at : at + W], CS[at + W : at + 2 * W]  # that no index is negative, the compiler then knows
            for w in range(W):
                cos[w] = batched[row + min(w, rows - 1), k]
            for w in range(W):
                cos[w], sin[w] = cos_sin(scale * cos[w] + offset)
        elif fresh:
            c, d = cos_sin(offset + scale * shared[k - n_batched] if k >= 0 else offset)
            store(CS, at, splat(CS.dtype.type(c)))
            store(CS, at + W, splat(CS.dtype.type(d)))


@inline
def _other_axes(axis):
    return (1, 2) if axis == 0 else (2, 0) if axis == 1 else (0, 1)


@jit
def _run_matrix(steps, fixed, first, last, CS, M):
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
def _run_inverse(steps, undone, first, last, CS, J, at):
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
def _run_gradients(steps, scales, fixed, first, last, CS, M, E, at, row, rows, g_batched, g_shared, chunk):
    """From ``dL/dM`` of a run, E[at] on, which is used up, to the gradients of its angles; these are added up."""
    W, n_batched = n_lanes(E), g_batched.shape[1]
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
            _add_gradient(steps[s, ANGLE], scales[s, 0], total, row, rows, n_batched, g_batched, g_shared, chunk, CS, s)


@inline
def _add_gradient(k, scale, total, row, rows, n_batched, g_batched, g_shared, chunk, CS, s):
    """Add the gradient of a step to that of its angle; CS[s] is overwritten."""
    W = n_lanes(CS)
    if k >= n_batched:
        g_shared[chunk, k - n_batched] += scale * hsum(total)
    elif k >= 0:
        store(CS, 2 * W * s, total)
        for w in range(rows):
            g_batched[row + w, k] += CS.dtype.type(scale) * CS[2 * W * s + w]


@inline
def _groups(tables, p, size):
    """How many groups of words a pass has, those that differ in the digits of its wires, and which ones, if not all."""
    n, at = tables.passes[p, N_GROUPS], tables.passes[p, GROUPS]
    return (n, tables.ints[at : at + n]) if n >= 0 else (size >> 2 * tables.passes[p, N_WIRES], tables.ints[:0])


@inline
def _nth(groups, number):
    return groups[number] if len(groups) else number


@inline
def _base(g, shift):
    """The word with the digits of g, and I at the wire whose digit begins at a bit."""
    return (g >> shift << shift + 2) | (g & ((1 << shift) - 1))


@jit
def _one(S, n, groups, shift, M, at):
    """V <- M V."""
    W = n_lanes(S)
    m = W << shift
    tx, xx, xy, xz = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
    ty, yx, yy, yz = load(M, at + 4 * W), load(M, at + 5 * W), load(M, at + 6 * W), load(M, at + 7 * W)
    tz, zx, zy, zz = load(M, at + 8 * W), load(M, at + 9 * W), load(M, at + 10 * W), load(M, at + 11 * W)
    for q in range(n):
        i = _base(_nth(groups, q), shift) * W
        e, x, y, z = load(S, i), load(S, i + m), load(S, i + 2 * m), load(S, i + 3 * m)
        store(S, i + m, tx * e + xx * x + xy * y + xz * z)
        store(S, i + 2 * m, ty * e + yx * x + yy * y + yz * z)
        store(S, i + 3 * m, tz * e + zx * x + zy * y + zz * z)


@jit
def _one_transposed(S, n, groups, shift, M, at):
    """U <- M^T U."""
    W = n_lanes(S)
    m = W << shift
    tx, xx, xy, xz = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
    ty, yx, yy, yz = load(M, at + 4 * W), load(M, at + 5 * W), load(M, at + 6 * W), load(M, at + 7 * W)
    tz, zx, zy, zz = load(M, at + 8 * W), load(M, at + 9 * W), load(M, at + 10 * W), load(M, at + 11 * W)
    for q in range(n):
        i = _base(_nth(groups, q), shift) * W
        e, x, y, z = load(S, i), load(S, i + m), load(S, i + 2 * m), load(S, i + 3 * m)
        store(S, i, e + tx * x + ty * y + tz * z)
        store(S, i + m, xx * x + yx * y + zx * z)
        store(S, i + 2 * m, xy * x + yy * y + zy * z)
        store(S, i + 3 * m, xz * x + yz * y + zz * z)


@jit
def _one_back(V, U, n_groups, groups, shift, M, at, J, inverse, kept, E, to):
    """V <- M^-1 V unless it was kept, U <- M^T U, and ``dL/dM`` from E[to] on."""
    W = n_lanes(V)
    m = W << shift
    tx, xx, xy, xz = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
    ty, yx, yy, yz = load(M, at + 4 * W), load(M, at + 5 * W), load(M, at + 6 * W), load(M, at + 7 * W)
    tz, zx, zy, zz = load(M, at + 8 * W), load(M, at + 9 * W), load(M, at + 10 * W), load(M, at + 11 * W)
    a, b, c = load(J, inverse), load(J, inverse + W), load(J, inverse + 2 * W)
    d, f, h = load(J, inverse + 3 * W), load(J, inverse + 4 * W), load(J, inverse + 5 * W)
    j, k, n = load(J, inverse + 6 * W), load(J, inverse + 7 * W), load(J, inverse + 8 * W)
    g0 = g1 = g2 = g3 = g4 = g5 = g6 = g7 = g8 = g9 = g10 = g11 = splat(V.dtype.type(0))
    for number in range(n_groups):
        i = _base(_nth(groups, number), shift) * W
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
def _one_forth(U, V, n_groups, groups, shift, M, at, J, inverse, kept, E, to):
    """U <- M^-T U unless it was kept, V <- M V, and ``dL/dM`` from E[to] on."""
    W = n_lanes(V)
    m = W << shift
    tx, xx, xy, xz = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
    ty, yx, yy, yz = load(M, at + 4 * W), load(M, at + 5 * W), load(M, at + 6 * W), load(M, at + 7 * W)
    tz, zx, zy, zz = load(M, at + 8 * W), load(M, at + 9 * W), load(M, at + 10 * W), load(M, at + 11 * W)
    a, b, c = load(J, inverse), load(J, inverse + W), load(J, inverse + 2 * W)
    d, f, h = load(J, inverse + 3 * W), load(J, inverse + 4 * W), load(J, inverse + 5 * W)
    j, k, n = load(J, inverse + 6 * W), load(J, inverse + 7 * W), load(J, inverse + 8 * W)
    g0 = g1 = g2 = g3 = g4 = g5 = g6 = g7 = g8 = g9 = g10 = g11 = splat(V.dtype.type(0))
    for number in range(n_groups):
        i = _base(_nth(groups, number), shift) * W
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


# ---- Clifford gates and noise on two wires ---------------------------------------------------------------------------
# ``w[ab] = factor[ab] v[from[ab]]``, then ``w[aZ] += t[a] w[aI]`` and ``w[Zb] += s[b] w[Ib]``: a Clifford gate, Pauli
# channels, and damping on each wire. Integers: bits of both wires, then `from`, as offsets. Numbers: factor (16), t, s,
# and 1 / factor (16).


@inline
def _four(S, i, ints, at, numbers, of):
    """Four words of `from`, times their factors."""
    W = n_lanes(S)
    return (
        splat(numbers[of]) * load(S, i + ints[at] * W),
        splat(numbers[of + 1]) * load(S, i + ints[at + 1] * W),
        splat(numbers[of + 2]) * load(S, i + ints[at + 2] * W),
        splat(numbers[of + 3]) * load(S, i + ints[at + 3] * W),
    )


@inline
def _put_four(S, i, ints, at, numbers, of, r):
    """Four words to `from`, times their factors."""
    W = n_lanes(S)
    store(S, i + ints[at] * W, splat(numbers[of]) * r[0])
    store(S, i + ints[at + 1] * W, splat(numbers[of + 1]) * r[1])
    store(S, i + ints[at + 2] * W, splat(numbers[of + 2]) * r[2])
    store(S, i + ints[at + 3] * W, splat(numbers[of + 3]) * r[3])


@inline
def _load_four(S, i, m):
    return load(S, i), load(S, i + m), load(S, i + 2 * m), load(S, i + 3 * m)


@inline
def _store_four(S, i, m, r):
    store(S, i, r[0])
    store(S, i + m, r[1])
    store(S, i + 2 * m, r[2])
    store(S, i + 3 * m, r[3])


@inline
def _plus(r, t, q):
    """r + t q, with four t."""
    return r[0] + t[0] * q[0], r[1] + t[1] * q[1], r[2] + t[2] * q[2], r[3] + t[3] * q[3]


@inline
def _splats(numbers, of, sign):
    sign = numbers.dtype.type(sign)
    return (
        splat(sign * numbers[of]),
        splat(sign * numbers[of + 1]),
        splat(sign * numbers[of + 2]),
        splat(sign * numbers[of + 3]),
    )


@inline
def _pair_of(S, n_groups, groups, ints, at, numbers, of, factors, sign, of_v):
    """From the words of `from`: V forward, or U where it is taken forward again (sign -1, 1 / factors)."""
    W = n_lanes(S)
    ints, shifts = ints[at : at + 18], numbers[of + 16 : of + 24]  # that no index is negative, the compiler then knows
    numbers = numbers[of + factors : of + factors + 16]
    high, low = ints[0], ints[1]
    m, n = W << high, W << low
    t, s = _splats(shifts, 0, sign), _splats(shifts, 4, sign)
    for number in range(n_groups):
        i = _base(_base(_nth(groups, number), low), high) * W
        p, q = _four(S, i, ints, 2, numbers, 0), _four(S, i, ints, 6, numbers, 4)
        r, o = _four(S, i, ints, 10, numbers, 8), _four(S, i, ints, 14, numbers, 12)
        if of_v:  # aZ += t aI, then Zb += s Ib
            p, q = (p[0], p[1], p[2], p[3] + t[0] * p[0]), (q[0], q[1], q[2], q[3] + t[1] * q[0])
            r, o = (r[0], r[1], r[2], r[3] + t[2] * r[0]), (o[0], o[1], o[2], o[3] + t[3] * o[0])
            o = _plus(o, s, p)
        else:
            p, q = (p[0] + t[0] * p[3], p[1], p[2], p[3]), (q[0] + t[1] * q[3], q[1], q[2], q[3])
            r, o = (r[0] + t[2] * r[3], r[1], r[2], r[3]), (o[0] + t[3] * o[3], o[1], o[2], o[3])
            p = _plus(p, s, o)
        _store_four(S, i, n, p)
        _store_four(S, i + m, n, q)
        _store_four(S, i + 2 * m, n, r)
        _store_four(S, i + 3 * m, n, o)


@inline
def _pair_to(S, n_groups, groups, ints, at, numbers, of, factors, sign, of_v):
    """Back to the words of `from`: U transposed, or V undone (sign -1, 1 / factors)."""
    W = n_lanes(S)
    ints, shifts = ints[at : at + 18], numbers[of + 16 : of + 24]  # that no index is negative, the compiler then knows
    numbers = numbers[of + factors : of + factors + 16]
    high, low = ints[0], ints[1]
    m, n = W << high, W << low
    t, s = _splats(shifts, 0, sign), _splats(shifts, 4, sign)
    for number in range(n_groups):
        i = _base(_base(_nth(groups, number), low), high) * W
        p, q, r, o = (
            _load_four(S, i, n),
            _load_four(S, i + m, n),
            _load_four(S, i + 2 * m, n),
            _load_four(S, i + 3 * m, n),
        )
        if of_v:
            o = _plus(o, s, p)
            p, q = (p[0], p[1], p[2], p[3] + t[0] * p[0]), (q[0], q[1], q[2], q[3] + t[1] * q[0])
            r, o = (r[0], r[1], r[2], r[3] + t[2] * r[0]), (o[0], o[1], o[2], o[3] + t[3] * o[0])
        else:
            p = _plus(p, s, o)
            p, q = (p[0] + t[0] * p[3], p[1], p[2], p[3]), (q[0] + t[1] * q[3], q[1], q[2], q[3])
            r, o = (r[0] + t[2] * r[3], r[1], r[2], r[3]), (o[0] + t[3] * o[3], o[1], o[2], o[3])
        _put_four(S, i, ints, 2, numbers, 0, p)
        _put_four(S, i, ints, 6, numbers, 4, q)
        _put_four(S, i, ints, 10, numbers, 8, r)
        _put_four(S, i, ints, 14, numbers, 12, o)


# ---- rotations about words, and any other map ------------------------------------------------------------------------


@inline
def _group(g, bits):
    """The word with the digits of g, and I at some wires, whose digits begin at bits in ascending order."""
    for k in range(len(bits)):
        g = _base(g, bits[k])
    return g


@jit
def _word(S, n_groups, groups, ints, at, n_wires, n_pairs, CS, step, sign):
    """Turn the pairs (Q, Q') of words that a rotation mixes, ``Q -> cos Q + sin Q'``; back with sign -1."""
    W = n_lanes(S)
    c, s = load(CS, 2 * W * step), splat(S.dtype.type(sign)) * load(CS, 2 * W * step + W)
    bits, pairs = ints[at : at + n_wires], ints[at + n_wires : at + n_wires + 2 * n_pairs]
    for number in range(n_groups):
        base = _group(_nth(groups, number), bits)
        for k in range(0, 2 * n_pairs, 2):
            i, j = (base + pairs[k]) * W, (base + pairs[k + 1]) * W
            x, y = load(S, i), load(S, j)
            store(S, i, c * x - s * y)
            store(S, j, c * y + s * x)


@jit
def _word_gradient(V, U, n_groups, groups, ints, at, n_wires, n_pairs):
    """The gradient of its angle, both before it or both after it."""
    W = n_lanes(V)
    total = splat(V.dtype.type(0))
    bits, pairs = ints[at : at + n_wires], ints[at + n_wires : at + n_wires + 2 * n_pairs]
    for number in range(n_groups):
        base = _group(_nth(groups, number), bits)
        for k in range(0, 2 * n_pairs, 2):
            i, j = (base + pairs[k]) * W, (base + pairs[k + 1]) * W
            total = total + load(U, j) * load(V, i) - load(U, i) * load(V, j)
    return total


# Integers of any other map: how many entries it and its inverse have, the bits of its wires, the offsets of its digits,
# then (row, column) of all entries. Numbers: their values.


@jit
def _map(S, n_groups, groups, ints, at, n_wires, numbers, of, inverse, transposed, P):
    """S <- M S, with the inverse or the transposed matrix if it is to be."""
    W, n_words = n_lanes(S), 1 << 2 * n_wires
    n_entries, n_before = ints[at + (1 if inverse else 0)], ints[at] if inverse else 0
    bits, offsets = ints[at + 2 : at + 2 + n_wires], ints[at + 2 + n_wires : at + 2 + n_wires + n_words]
    first = at + 2 + n_wires + n_words + 2 * n_before
    entries, values = ints[first : first + 2 * n_entries], numbers[of + n_before : of + n_before + n_entries]
    row, column = (1, 0) if transposed else (0, 1)
    zero = splat(S.dtype.type(0))
    for number in range(n_groups):
        base = _group(_nth(groups, number), bits)
        for k in range(n_words):
            store(P, k * W, zero)
        for e in range(n_entries):
            i, j = entries[2 * e + row] * W, offsets[entries[2 * e + column]]
            store(P, i, load(P, i) + splat(values[e]) * load(S, (base + j) * W))
        for k in range(n_words):
            store(S, (base + offsets[k]) * W, load(P, k * W))


# ---- whole circuits --------------------------------------------------------------------------------------------------


@jit
def _copy(S, of, T, to, n):
    """n registers."""
    W = n_lanes(S)
    for i in range(n):
        store(T, to + i * W, load(S, of + i * W))


@jit
def _matrices(tables, batched, row, rows, shared, fresh, parts):
    """cos and sin of all steps of passes, the matrices of all runs and their inverses; those that samples share only at
    first."""
    passes, W = tables.passes, n_lanes(parts.CS)
    if len(passes) == 0:
        return
    _turns(tables, passes[0, STEP], len(tables.steps), batched, row, rows, shared, fresh, parts.CS)
    for p in range(len(passes)):
        if passes[p, KIND] == ONE and (fresh or passes[p, DIFFERS]):
            first, last = passes[p, STEP], passes[p, END]
            _run_matrix(tables.steps, tables.fixed, first, last, parts.CS, parts.M)
            _run_inverse(tables.steps, tables.undone, first, last, parts.CS, parts.J, 9 * W * passes[p, RUN])


@jit
def _apply(size, tables, parts, kept, to):
    """V through all passes; copies are kept from kept[to] on, unless that is negative."""
    passes, ints, numbers, V, P = tables.passes, tables.ints, tables.numbers, parts.V, parts.P
    W = n_lanes(V)
    for p in range(len(passes)):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = _groups(tables, p, size)
        if passes[p, KEEP] >= 0 and to >= 0:
            _copy(V, 0, kept, to + passes[p, KEEP] * size * W, size)
        if kind == ONE:
            _one(V, n, groups, ints[at], parts.M, 12 * W * (passes[p, END] - 1))
        elif kind == PAIR:
            _pair_of(V, n, groups, ints, at, numbers, of, FACTORS, 1, True)
        elif kind == WORD:
            _word(V, n, groups, ints, at, n_wires, passes[p, N], parts.CS, passes[p, STEP], 1)
        else:
            _map(V, n, groups, ints, at, n_wires, numbers, of, False, False, P)


@jit
def _undo(size, tables, parts, kept, of_kept):
    """U back through all passes, V too, and the gradients of all runs, E[run, 12, W]."""
    passes, ints, numbers, V, U = tables.passes, tables.ints, tables.numbers, parts.V, parts.U
    CS, M, J, E, P, W = parts.CS, parts.M, parts.J, parts.E, parts.P, n_lanes(V)
    for p in range(len(passes) - 1, -1, -1):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = _groups(tables, p, size)
        run, is_kept = passes[p, RUN], passes[p, KEEP] >= 0
        if is_kept:
            _copy(kept, of_kept + passes[p, KEEP] * size * W, V, 0, size)
        if kind == ONE:
            matrix = 12 * W * (passes[p, END] - 1)
            _one_back(V, U, n, groups, ints[at], M, matrix, J, 9 * W * run, is_kept, E, 12 * W * run)
        elif kind == PAIR:
            if not is_kept:
                _pair_to(V, n, groups, ints, at, numbers, of, UNDONE, -1, True)
            _pair_to(U, n, groups, ints, at, numbers, of, FACTORS, 1, False)
        elif kind == WORD:
            step, n_pairs = passes[p, STEP], passes[p, N]
            if not is_kept:
                _word(V, n, groups, ints, at, n_wires, n_pairs, CS, step, -1)
            _word(U, n, groups, ints, at, n_wires, n_pairs, CS, step, -1)
            store(E, 12 * W * run, _word_gradient(V, U, n, groups, ints, at, n_wires, n_pairs))
        else:
            if not is_kept:
                _map(V, n, groups, ints, at, n_wires, numbers, of, True, False, P)
            _map(U, n, groups, ints, at, n_wires, numbers, of, False, True, P)


@jit
def _transpose(size, tables, parts, kept, to):
    """U back through all passes; copies are kept from kept[to] on."""
    passes, ints, numbers, U, P = tables.passes, tables.ints, tables.numbers, parts.U, parts.P
    W = n_lanes(U)
    for p in range(len(passes) - 1, -1, -1):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = _groups(tables, p, size)
        if passes[p, KEEP_BACK] >= 0:
            _copy(U, 0, kept, to + passes[p, KEEP_BACK] * size * W, size)
        if kind == ONE:
            _one_transposed(U, n, groups, ints[at], parts.M, 12 * W * (passes[p, END] - 1))
        elif kind == PAIR:
            _pair_to(U, n, groups, ints, at, numbers, of, FACTORS, 1, False)
        elif kind == WORD:
            _word(U, n, groups, ints, at, n_wires, passes[p, N], parts.CS, passes[p, STEP], -1)
        else:
            _map(U, n, groups, ints, at, n_wires, numbers, of, False, True, P)


@jit
def _forth(size, tables, parts, kept, of_kept):
    """V through all passes, U forward again, and the gradients of all runs, E[run, 12, W]."""
    passes, ints, numbers, V, U = tables.passes, tables.ints, tables.numbers, parts.V, parts.U
    CS, M, J, E, P, W = parts.CS, parts.M, parts.J, parts.E, parts.P, n_lanes(V)
    for p in range(len(passes)):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = _groups(tables, p, size)
        run, is_kept = passes[p, RUN], passes[p, KEEP_BACK] >= 0
        if is_kept:
            _copy(kept, of_kept + passes[p, KEEP_BACK] * size * W, U, 0, size)
        if kind == ONE:
            matrix = 12 * W * (passes[p, END] - 1)
            _one_forth(U, V, n, groups, ints[at], M, matrix, J, 9 * W * run, is_kept, E, 12 * W * run)
        elif kind == PAIR:
            if not is_kept:
                _pair_of(U, n, groups, ints, at, numbers, of, UNDONE, -1, False)
            _pair_of(V, n, groups, ints, at, numbers, of, FACTORS, 1, True)
        elif kind == WORD:
            step, n_pairs = passes[p, STEP], passes[p, N]
            if not is_kept:
                _word(U, n, groups, ints, at, n_wires, n_pairs, CS, step, 1)
            _word(V, n, groups, ints, at, n_wires, n_pairs, CS, step, 1)
            store(E, 12 * W * run, _word_gradient(V, U, n, groups, ints, at, n_wires, n_pairs))
        else:
            if not is_kept:
                _map(U, n, groups, ints, at, n_wires, numbers, of, True, True, P)
            _map(V, n, groups, ints, at, n_wires, numbers, of, False, False, P)


@jit
def _pass_gradients(tables, parts, row, rows, g_batched, g_shared, chunk):
    """The gradients of all angles of passes, added up."""
    passes, steps, scales, fixed = tables.passes, tables.steps, tables.scales, tables.fixed
    CS, M, E = parts.CS, parts.M, parts.E
    W = n_lanes(E)
    for p in range(len(passes)):
        at = 12 * W * passes[p, RUN]
        if passes[p, KIND] == ONE:
            first, last = passes[p, STEP], passes[p, END]
            _run_gradients(
                steps,
                scales,
                fixed,
                first,
                last,
                CS,
                M,
                E,
                at,
                row,
                rows,
                g_batched,
                g_shared,
                chunk,
            )
        elif passes[p, KIND] == WORD:
            s = passes[p, STEP]
            k, scale, n_batched = steps[s, ANGLE], scales[s, 0], g_batched.shape[1]
            _add_gradient(k, scale, load(E, at), row, rows, n_batched, g_batched, g_shared, chunk, CS, s)


# ---- where circuits start, and what they measure ---------------------------------------------------------------------


@jit
def _starts(tables, batched, row, rows, shared, fresh, parts):
    """<X>, <Y> and <Z> of each wire before the first pass, R[wire, 3, W], and after each step, M[step, ...]."""
    starts, steps, fixed, CS, M = tables.starts, tables.steps, tables.fixed, parts.CS, parts.M
    W = n_lanes(M)
    if len(starts):
        _turns(tables, 0, starts[len(starts) - 1, 1], batched, row, rows, shared, fresh, CS)
    for wire in range(len(starts)):
        x, y, z = splat(M.dtype.type(0)), splat(M.dtype.type(0)), splat(M.dtype.type(1))  # of |0>
        for s in range(starts[wire, 0], starts[wire, 1]):
            if steps[s, AXIS] == IS_FIXED:
                n = steps[s, FIXED]
                x, y, z = _mapped(fixed, n, 0, x, y, z), _mapped(fixed, n, 4, x, y, z), _mapped(fixed, n, 8, x, y, z)
            else:
                cos, sin = load(CS, 2 * W * s), load(CS, 2 * W * s + W)
                if steps[s, AXIS] == 0:
                    y, z = cos * y - sin * z, cos * z + sin * y
                elif steps[s, AXIS] == 1:
                    z, x = cos * z - sin * x, cos * x + sin * z
                else:
                    x, y = cos * x - sin * y, cos * y + sin * x
            _store_three(M, 12 * W * s, x, y, z)
        _store_three(parts.R, 3 * W * wire, x, y, z)


@inline
def _mapped(fixed, n, of, x, y, z):
    """One row of a fixed map."""
    shift = splat(fixed[n, of])
    return shift + splat(fixed[n, of + 1]) * x + splat(fixed[n, of + 2]) * y + splat(fixed[n, of + 3]) * z


@inline
def _store_three(S, at, x, y, z):
    W = n_lanes(S)
    store(S, at, x)
    store(S, at + W, y)
    store(S, at + 2 * W, z)


@jit
def _start_gradients(tables, parts, row, rows, g_batched, g_shared, chunk):
    """From ``dL/dR``, in R, to the gradients of the angles of the start."""
    starts, steps, fixed, CS, M = tables.starts, tables.steps, tables.fixed, parts.CS, parts.M
    W, n_batched = n_lanes(M), g_batched.shape[1]
    for wire in range(len(starts)):
        at = 3 * W * wire
        x, y, z = load(parts.R, at), load(parts.R, at + W), load(parts.R, at + 2 * W)
        for s in range(starts[wire, 1] - 1, starts[wire, 0] - 1, -1):
            if steps[s, AXIS] == IS_FIXED:
                n = steps[s, FIXED]
                p, q, r = x, y, z
                x = splat(fixed[n, 1]) * p + splat(fixed[n, 5]) * q + splat(fixed[n, 9]) * r
                y = splat(fixed[n, 2]) * p + splat(fixed[n, 6]) * q + splat(fixed[n, 10]) * r
                z = splat(fixed[n, 3]) * p + splat(fixed[n, 7]) * q + splat(fixed[n, 11]) * r
                continue
            cos, sin, of = load(CS, 2 * W * s), load(CS, 2 * W * s + W), 12 * W * s
            p, q, r = load(M, of), load(M, of + W), load(M, of + 2 * W)
            if steps[s, AXIS] == 0:
                total = z * q - y * r
                y, z = cos * y + sin * z, cos * z - sin * y
            elif steps[s, AXIS] == 1:
                total = x * r - z * p
                z, x = cos * z + sin * x, cos * x - sin * z
            else:
                total = y * p - x * q
                x, y = cos * x + sin * y, cos * y - sin * x
            k, scale = steps[s, ANGLE], tables.scales[s, 0]
            _add_gradient(k, scale, total, row, rows, n_batched, g_batched, g_shared, chunk, CS, s)


@jit
def _product(V, letters, R):
    """All products of one letter's value for each wire, the last wire first; letters[wire, 0] of them besides I."""
    W = n_lanes(V)
    store(V, 0, splat(V.dtype.type(1)))
    size = 1
    for wire in range(len(letters) - 1, -1, -1):
        for k in range(1, letters[wire, 0] + 1):
            r = load(R, (3 * wire + letters[wire, k] - 1) * W)
            for i in range(size):
                store(V, (k * size + i) * W, r * load(V, i * W))
        size *= letters[wire, 0] + 1
    return size


@jit
def _unproduct(V, U, size, letters, R):
    """From ``dL/dV`` in U, which is used up, to ``dL/dR`` in R, with the products V."""
    W = n_lanes(V)
    for wire in range(len(letters)):
        size //= letters[wire, 0] + 1
        values = (load(R, 3 * wire * W), load(R, (3 * wire + 1) * W), load(R, (3 * wire + 2) * W))
        for a in range(3):
            store(R, (3 * wire + a) * W, splat(V.dtype.type(0)))
        for k in range(1, letters[wire, 0] + 1):
            a = letters[wire, k] - 1
            r = values[0] if a == 0 else values[1] if a == 1 else values[2]
            total = splat(V.dtype.type(0))
            for i in range(size):
                u = load(U, (k * size + i) * W)
                total = total + u * load(V, i * W)
                store(U, i * W, load(U, i * W) + r * u)
            store(R, (3 * wire + a) * W, total)


@jit
def _clear(S, n):
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    for i in range(n):
        store(S, i * W, zero)


@jit
def _parts(work, size, n_steps, n_runs, n_wires, n_scratch):
    """The memory at work as `Parts`."""
    W = n_lanes(work)
    u = size * W
    cs = u + size * W
    m = cs + 2 * n_steps * W
    j = m + 12 * n_steps * W
    e = j + 9 * n_runs * W
    r = e + 12 * (n_runs + 1) * W
    p = r + 3 * n_wires * W
    end = p + n_scratch * W
    return Parts(work[:u], work[u:cs], work[cs:m], work[m:j], work[j:e], work[e:r], work[r:p], work[p:end])


# ---- amplitudes ------------------------------------------------------------------------------------------------------
# ``<Q> = i^y sum_j (-1)^parity(j & z) psi_{j ^ x}* psi_j`` of ``Q = i^y X^x Z^z``: one Walsh-Hadamard transform an x.


@jit
def _hadamard(S, at, size):
    W = n_lanes(S)
    step = 1
    while step < size:
        for i in range(0, size, 2 * step):
            for j in range(i, i + step):
                x, y = load(S, at + j * W), load(S, at + (j + step) * W)
                store(S, at + j * W, x + y)
                store(S, at + (j + step) * W, x - y)
        step *= 2


@jit
def _load_amplitudes(amplitudes, row, rows, P):
    """Amplitudes (B, 2^N, 1 or 2) into lanes, P[part, i, W]."""
    W, n = n_lanes(P), amplitudes.shape[1]
    for i in range(n):
        for w in range(W):
            P[i * W + w] = amplitudes[row + w, i, 0] if w < rows else 0
            P[(n + i) * W + w] = amplitudes[row + w, i, 1] if w < rows and amplitudes.shape[2] == 2 else 0


@inline
def _n_y(x, z):
    count, both = 0, x & z
    while both:
        both &= both - 1
        count += 1
    return count & 3


@jit
def _words_of_amplitudes(V, spread, P):
    """All expectation values, from amplitudes in P, which is six times as long."""
    W, n = n_lanes(V), len(spread)
    real, imaginary = 2 * n * W, 3 * n * W
    for x in range(n):
        for j in range(n):
            a, b = load(P, (j ^ x) * W), load(P, (n + (j ^ x)) * W)
            c, d = load(P, j * W), load(P, (n + j) * W)
            store(P, real + j * W, a * c + b * d)
            store(P, imaginary + j * W, a * d - b * c)
        _hadamard(P, real, n)
        _hadamard(P, imaginary, n)
        for z in range(n):
            at = (spread[x ^ z] | spread[z] << 1) * W
            y = _n_y(x, z)
            value = load(P, (imaginary if y & 1 else real) + z * W)
            store(V, at, splat(V.dtype.type(0)) - value if y in (1, 2) else value)


@jit
def _amplitude_gradients(U, spread, P, row, rows, g_amps):
    """``2 sum_Q u_Q Q psi`` from amplitudes in P."""
    W, n = n_lanes(U), len(spread)
    real, imaginary = 2 * n * W, 3 * n * W
    for k in range(4 * n, 6 * n):
        store(P, k * W, splat(U.dtype.type(0)))
    for x in range(n):
        for z in range(n):
            y = _n_y(x, z)
            value = load(U, (spread[x ^ z] | spread[z] << 1) * W)
            value = splat(U.dtype.type(0)) - value if y in (2, 3) else value
            store(P, real + z * W, splat(U.dtype.type(0)) if y & 1 else value)
            store(P, imaginary + z * W, value if y & 1 else splat(U.dtype.type(0)))
        _hadamard(P, real, n)
        _hadamard(P, imaginary, n)
        for j in range(n):
            a, b = load(P, real + j * W), load(P, imaginary + j * W)
            c, d = load(P, j * W), load(P, (n + j) * W)
            to = (4 * n + (j ^ x)) * W
            store(P, to, load(P, to) + a * c - b * d)
            store(P, to + n * W, load(P, to + n * W) + a * d + b * c)
    for i in range(n):
        for w in range(rows):
            g_amps[row + w, i, 0] = 2 * P[(4 * n + i) * W + w]
            if g_amps.shape[2] == 2:
                g_amps[row + w, i, 1] = 2 * P[(5 * n + i) * W + w]


# ---- the kernels -----------------------------------------------------------------------------------------------------


@jit
def _begin(tables, batched, shared, amplitudes, row, rows, fresh, parts):
    """V before the first pass."""
    if amplitudes.shape[1]:
        _load_amplitudes(amplitudes, row, rows, parts.P)
        _words_of_amplitudes(parts.V, tables.spread, parts.P)
    else:
        _starts(tables, batched, row, rows, shared, fresh, parts)
        _product(parts.V, tables.letters, parts.R)


@kernel
def forward(next_chunk, packed, n_wires, n_runs, n_scratch, batched, shared, amplitudes, out, states, kept, work):
    """Outputs (B, M), the final states and the copies that the way back needs (none where `states` is empty)."""
    tables = unpacked(packed)
    W, size, n_samples, n_outputs = n_lanes(work), 1 << 2 * n_wires, len(batched), out.shape[1]
    parts = _parts(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
    n_chunks = (n_samples + W - 1) // W
    keep = len(states) > 0
    each = len(kept) // max(n_chunks, 1)
    before = flush_denormals()
    chunk, fresh = fetch_add(next_chunk), True
    while chunk < n_chunks:
        row = chunk * W
        rows = min(W, n_samples - row)
        _begin(tables, batched, shared, amplitudes, row, rows, fresh, parts)
        _matrices(tables, batched, row, rows, shared, fresh, parts)
        _apply(size, tables, parts, kept, chunk * each if keep else -1)
        if keep:
            _copy(parts.V, 0, states, chunk * size * W, size)
        _clear(parts.P, n_outputs)
        for k in range(len(tables.terms)):
            at = tables.terms[k, 0] * W
            store(parts.P, at, load(parts.P, at) + splat(tables.weights[k]) * load(parts.V, tables.terms[k, 1] * W))
        for m in range(n_outputs):
            for w in range(rows):
                out[row + w, m] = parts.P[m * W + w]
        chunk, fresh = fetch_add(next_chunk), False
    restore_denormals(before)


@kernel
def backward(
    next_chunk,
    packed,
    n_wires,
    n_runs,
    n_scratch,
    n_kept,
    batched,
    shared,
    amplitudes,
    grad,
    states,
    kept,
    work,
    g_batched,
    g_shared,
    g_amps,
):
    """Gradients of the batched angles (B, Kb), the shared ones (chunks, Ks) and the amplitudes; what `forward` did not
    keep is computed again."""
    tables = unpacked(packed)
    W, size, n_samples = n_lanes(work), 1 << 2 * n_wires, len(batched)
    parts = _parts(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
    n_chunks = (n_samples + W - 1) // W
    again = len(states) == 0
    copies = work[len(work) - n_kept * size * W :] if again else kept
    before = flush_denormals()
    chunk, fresh = fetch_add(next_chunk), True
    while chunk < n_chunks:
        row = chunk * W
        rows = min(W, n_samples - row)
        for w in range(row, row + rows):
            for k in range(g_batched.shape[1]):
                g_batched[w, k] = 0
        for k in range(g_shared.shape[1]):
            g_shared[chunk, k] = 0
        _begin(tables, batched, shared, amplitudes, row, rows, fresh, parts)
        _matrices(tables, batched, row, rows, shared, fresh, parts)
        at = 0 if again else chunk * n_kept * size * W
        if again:
            _apply(size, tables, parts, copies, 0)
        else:
            _copy(states, chunk * size * W, parts.V, 0, size)
        _clear(parts.U, size)
        for k in range(len(tables.terms)):
            m, to = tables.terms[k, 0], tables.terms[k, 1] * W
            for w in range(rows):
                parts.U[to + w] += tables.weights[k] * grad[row + w, m]
        _undo(size, tables, parts, copies, at)
        _pass_gradients(tables, parts, row, rows, g_batched, g_shared, chunk)
        if amplitudes.shape[1]:
            if len(g_amps):
                _load_amplitudes(amplitudes, row, rows, parts.P)
                _amplitude_gradients(parts.U, tables.spread, parts.P, row, rows, g_amps)
        else:
            _product(parts.V, tables.letters, parts.R)
            _unproduct(parts.V, parts.U, size, tables.letters, parts.R)
            _start_gradients(tables, parts, row, rows, g_batched, g_shared, chunk)
        chunk, fresh = fetch_add(next_chunk), False
    restore_denormals(before)


@kernel
def coefficients(packed, n_wires, n_runs, n_scratch, order, batched, shared, C, states, kept, work):
    """The coefficients C (F, M) of the outputs in the products of the data (`contract`); `states` and copies as
    `forth` needs them (none where `states` is empty)."""
    tables = unpacked(packed)
    W, size, n_outputs = n_lanes(work), 1 << 2 * n_wires, C.shape[1]
    parts = _parts(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
    n_chunks = (n_outputs + W - 1) // W
    each = len(kept) // max(n_chunks, 1)
    before = flush_denormals()
    _matrices(tables, batched, 0, 1, shared, True, parts)
    for chunk in range(n_chunks):
        first = chunk * W
        _clear(parts.U, size)
        for k in range(len(tables.terms)):
            if first <= tables.terms[k, 0] < first + W:
                parts.U[tables.terms[k, 1] * W + tables.terms[k, 0] - first] += tables.weights[k]
        _transpose(size, tables, parts, kept, chunk * each)
        if len(states):
            _copy(parts.U, 0, states, chunk * size * W, size)
        for f in range(len(order)):
            for m in range(first, min(first + W, n_outputs)):
                C[f, m] = parts.U[order[f] * W + m - first]
    restore_denormals(before)


@kernel
def forth(packed, n_wires, n_runs, n_scratch, order, batched, shared, g_C, states, kept, work, g_batched, g_shared):
    """Gradients of the angles of all passes, (1, Ks), from those of the coefficients (F, M)."""
    tables = unpacked(packed)
    W, size, n_outputs = n_lanes(work), 1 << 2 * n_wires, g_C.shape[1]
    parts = _parts(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
    n_chunks = (n_outputs + W - 1) // W
    each = len(kept) // max(n_chunks, 1)
    before = flush_denormals()
    for k in range(g_shared.shape[1]):
        g_shared[0, k] = 0
    for chunk in range(n_chunks):
        first = chunk * W
        _matrices(tables, batched, 0, 1, shared, True, parts)
        _copy(states, chunk * size * W, parts.U, 0, size)
        _clear(parts.V, size)
        for f in range(len(order)):
            for m in range(first, min(first + W, n_outputs)):
                parts.V[order[f] * W + m - first] = g_C[f, m]
        _forth(size, tables, parts, kept, chunk * each)
        _pass_gradients(tables, parts, 0, 0, g_batched, g_shared, 0)
    restore_denormals(before)


@kernel
def contract(next_chunk, packed, n_wires, n_scratch, some_letters, batched, shared, C, out, work):
    """Outputs (B, M): the products of the data, which hold `some_letters`, times coefficients (F, M)."""
    tables = unpacked(packed)
    W, n_samples, n_products, n_outputs = n_lanes(work), len(batched), C.shape[0], C.shape[1]
    parts = _parts(work, n_products, len(tables.steps), 0, n_wires, n_scratch)
    n_chunks = (n_samples + W - 1) // W
    zero = splat(work.dtype.type(0))
    before = flush_denormals()
    chunk, fresh = fetch_add(next_chunk), True
    while chunk < n_chunks:
        row = chunk * W
        rows = min(W, n_samples - row)
        _starts(tables, batched, row, rows, shared, fresh, parts)
        _product(parts.V, some_letters, parts.R)
        for m in range(0, n_outputs - 3, 4):
            a = b = c = d = zero
            for f in range(n_products):
                v = load(parts.V, f * W)
                a, b = a + splat(C[f, m]) * v, b + splat(C[f, m + 1]) * v
                c, d = c + splat(C[f, m + 2]) * v, d + splat(C[f, m + 3]) * v
            store(parts.P, m * W, a)
            store(parts.P, (m + 1) * W, b)
            store(parts.P, (m + 2) * W, c)
            store(parts.P, (m + 3) * W, d)
        for m in range(n_outputs & ~3, n_outputs):
            a = zero
            for f in range(n_products):
                a = a + splat(C[f, m]) * load(parts.V, f * W)
            store(parts.P, m * W, a)
        for m in range(n_outputs):
            for w in range(rows):
                out[row + w, m] = parts.P[m * W + w]
        chunk, fresh = fetch_add(next_chunk), False
    restore_denormals(before)


@kernel
def contract_back(
    next_task,
    packed,
    n_wires,
    n_scratch,
    n_each,
    some_letters,
    batched,
    shared,
    C,
    grad,
    work,
    g_C,
    g_batched,
    g_shared,
):
    """Gradients of the coefficients, (tasks, F, M), and of the angles in front, (B, Kb) and (chunks, Ks); a task has
    `n_each` chunks, so that sums are the same whatever the threads."""
    tables = unpacked(packed)
    W, n_samples, n_products, n_outputs = n_lanes(work), len(batched), C.shape[0], C.shape[1]
    parts = _parts(work, n_products, len(tables.steps), 0, n_wires, n_scratch)
    totals = work[len(work) - n_products * n_outputs * W :]
    n_chunks = (n_samples + W - 1) // W
    before = flush_denormals()
    task, fresh = fetch_add(next_task), True
    while task < len(g_C):
        _clear(totals, n_products * n_outputs)
        for chunk in range(task * n_each, min(task * n_each + n_each, n_chunks)):
            row = chunk * W
            rows = min(W, n_samples - row)
            for w in range(row, row + rows):
                for k in range(g_batched.shape[1]):
                    g_batched[w, k] = 0
            for k in range(g_shared.shape[1]):
                g_shared[chunk, k] = 0
            _starts(tables, batched, row, rows, shared, fresh, parts)
            _product(parts.V, some_letters, parts.R)
            for m in range(n_outputs):
                for w in range(W):
                    parts.P[m * W + w] = grad[row + w, m] if w < rows else 0
            _clear(parts.U, n_products)
            for m in range(0, n_outputs - 1, 2):
                g, h = load(parts.P, m * W), load(parts.P, (m + 1) * W)
                for f in range(n_products):
                    v, at = load(parts.V, f * W), (m * n_products + 2 * f) * W
                    store(parts.U, f * W, load(parts.U, f * W) + splat(C[f, m]) * g + splat(C[f, m + 1]) * h)
                    store(totals, at, load(totals, at) + v * g)
                    store(totals, at + W, load(totals, at + W) + v * h)
            if n_outputs & 1:
                m = n_outputs - 1
                g = load(parts.P, m * W)
                for f in range(n_products):
                    at = (m * n_products + f) * W
                    store(parts.U, f * W, load(parts.U, f * W) + splat(C[f, m]) * g)
                    store(totals, at, load(totals, at) + load(parts.V, f * W) * g)
            _unproduct(parts.V, parts.U, n_products, some_letters, parts.R)
            _start_gradients(tables, parts, row, rows, g_batched, g_shared, chunk)
            fresh = False
        for m in range(n_outputs):
            first, step = (m & ~1) * n_products + (m & 1), 1 if m == n_outputs - 1 and not m & 1 else 2
            for f in range(n_products):
                g_C[task, f, m] = hsum(load(totals, (first + step * f) * W))
        task = fetch_add(next_task)
    restore_denormals(before)

# mypy: disable-error-code="no-untyped-def"
"""Clifford gates and noise on two wires, in one sweep each."""

from __future__ import annotations

from qbp.executors.native.kernels.jit import inline
from qbp.executors.native.kernels.simd import load, n_lanes, splat, store
from qbp.executors.pauli.kernels.one_wire import nth, widened

__all__ = ["pair_of", "pair_to"]


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
def pair_of(S, n_groups, groups, ints, at, numbers, of, factors, sign, of_v):
    """From the words of `from`: V forward, or U where it is taken forward again (sign -1, 1 / factors)."""
    W = n_lanes(S)
    ints, shifts = ints[at : at + 18], numbers[of + 16 : of + 24]  # that no index is negative, the compiler then knows
    numbers = numbers[of + factors : of + factors + 16]
    high, low = ints[0], ints[1]
    m, n = W << high, W << low
    t, s = _splats(shifts, 0, sign), _splats(shifts, 4, sign)
    for number in range(n_groups):
        i = widened(widened(nth(groups, number), low), high) * W
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
def pair_to(S, n_groups, groups, ints, at, numbers, of, factors, sign, of_v):
    """Back to the words of `from`: U transposed, or V undone (sign -1, 1 / factors)."""
    W = n_lanes(S)
    ints, shifts = ints[at : at + 18], numbers[of + 16 : of + 24]  # that no index is negative, the compiler then knows
    numbers = numbers[of + factors : of + factors + 16]
    high, low = ints[0], ints[1]
    m, n = W << high, W << low
    t, s = _splats(shifts, 0, sign), _splats(shifts, 4, sign)
    for number in range(n_groups):
        i = widened(widened(nth(groups, number), low), high) * W
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

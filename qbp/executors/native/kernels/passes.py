# mypy: disable-error-code="no-untyped-def"
"""What the kernels of both layouts run: angles, passes over blocks, and product states.

A state is a flat array ``S[place, part, lane]``: parts Re psi, Im psi and, going backward, Re lambda, Im lambda;
`stride` is 2 W or 4 W. Lanes are samples, and a place is an amplitude (`kernels`); or lanes are the lowest `bits` bits
of an amplitude's index, and a place is the rest of it (`one_state`). `bits` is 0 or log2 W, and always a constant, so
that what is not needed falls away as the kernels are compiled.

Gradients follow from ``lambda = dL/d psi* = O psi`` and ``dL/dt = Im <lambda| P |psi>`` for ``exp(-i t P / 2)``
(arXiv 2009.02823): both states are taken back through the circuit together.
"""

from __future__ import annotations

import math

import numpy as np

from qbp.executors.native.kernels.conventions import (
    ARGUMENT_1,
    ARGUMENT_2,
    AXIS,
    COS,
    COSETS_AT,
    CROSSED,
    DIAGONAL,
    DIFFERS,
    FACTOR,
    FIRST,
    FIRST_TERM,
    FIRST_WORD,
    FLIP_1,
    FLIP_2,
    HI,
    IMAGINARY,
    IN_SWEEP,
    KIND,
    LAST,
    LAST_TERM,
    LAST_WORD,
    LO,
    N_HI,
    N_LO,
    PHASE,
    PHASES,
    PLACE,
    REAL,
    SECOND,
    SHARED_PART,
    SIGN,
    SIN,
    SPAN_AT,
    SWEEP,
    TWO,
    WITHIN,
    WORD_ARGUMENT,
    WORD_LOCAL_Z,
    WORD_Z,
    X_1,
    X_2,
    Z_1,
    Z_2,
)
from qbp.executors.native.kernels.fixed_point import as_turns, cos_sin_of_turns
from qbp.executors.native.kernels.jit import exact, inline, jit
from qbp.executors.native.kernels.simd import (
    load,
    load_both,
    load_complex,
    n_lanes,
    parity,
    splat,
    store,
    store_both,
    store_complex,
    swapped,
)

__all__ = [
    "cos_sin",
    "hadamard",
    "matrices",
    "place",
    "prepare",
    "product",
    "run_block",
    "undo_block",
    "unproduct",
]


@inline
def place(i):
    """Where amplitude i lies (see `schedule.place`)."""
    return i ^ ((i >> 4 ^ i >> 8 ^ i >> 12 ^ i >> 16 ^ i >> 20 ^ i >> 24) & 15)


# ---- angles ----------------------------------------------------------------------------------------------------------


@exact
def cos_sin(t):
    """cos and sin without branches, so that loops over them run in vector registers; 1e-16 up to a million radians.

    ``t = k pi/2 + r`` with pi/2 in three parts (Cody and Waite), Taylor series of the remainder |r| <= pi/4.
    """
    k = math.floor(t * 0.6366197723675814 + 0.5)
    r = t - k * 1.5707963267341256
    r = r - k * 6.077100506303966e-11
    r = r - k * 2.0222662487959506e-21
    q = r * r
    s = 1.5896909952115501e-10
    s = s * q - 2.505076025340686e-08
    s = s * q + 2.7557313707070068e-06
    s = s * q - 1.984126982985795e-04
    s = s * q + 8.333333333322489e-03
    s = s * q - 1.6666666666666632e-01
    s = r + r * q * s
    c = -1.1359647557788195e-11
    c = c * q + 2.0875723212981748e-09
    c = c * q - 2.755731435139066e-07
    c = c * q + 2.4801587289476729e-05
    c = c * q - 1.3888888888874109e-03
    c = c * q + 4.1666666666666602e-02
    c = 1.0 - 0.5 * q + q * q * c
    quarter = k - 4.0 * math.floor(k * 0.25)
    swap = (quarter == 1.0) | (quarter == 3.0)
    cos, sin = s if swap else c, c if swap else s
    cos = -cos if (quarter == 1.0) | (quarter == 2.0) else cos
    sin = -sin if quarter >= 2.0 else sin
    return cos, sin


@jit
def prepare(tables, n_batched, shared, common):
    """What all samples share.

    Rotations ``exp(-i h P) = cos h (1 - i tan h P)`` that all samples share are run without the factor: one
    multiply-add less for every number. To keep ``|h| <= pi/4``, a half turn ``-i P`` goes to the end of the circuit,
    where it is a bit flip and signs; on its way it changes the sign of the angles of words that anticommute with P.

    Args:
        n_batched: how many angles, the first, samples do not share.
        shared: the other angles (Ks,), in radians.
        common: `Common`, written.
    """
    arguments, terms, items, words = tables.arguments, tables.terms, tables.items, tables.words
    offsets, scales, start = tables.offsets, tables.scales, tables.start
    table, factors, phases, n_args = common.table, common.factors, common.phases, len(arguments)
    half = np.empty(n_args)
    cosine = np.ones(n_args + len(items))  # made up for: by arguments, by diagonal items
    for a in range(n_args):
        half[a] = offsets[a]
        for t in range(arguments[a, FIRST_TERM], arguments[a, LAST_TERM]):
            if terms[t] >= n_batched:
                half[a] += scales[t] * shared[terms[t] - n_batched]
        table[a, FACTOR] = 1
        if arguments[a, DIFFERS] or arguments[a, AXIS] == IN_SWEEP:
            turn = 2 * math.pi
            table[a, SHARED_PART] = half[a] - turn * math.floor(half[a] / turn + 0.5)
            table[a, SIGN] = 1
        else:
            table[a, COS], table[a, SIN] = cos_sin(half[a])

    x = z = 0
    forward = 1.0
    for q in range(len(items)):
        kind = items[q, KIND]
        if kind in (DIAGONAL, SWEEP):
            for v in range(items[q, FIRST_WORD], items[q, LAST_WORD]):
                sign = 1 - 2 * parity(x & words[v, WORD_Z])
                table[words[v, WORD_ARGUMENT], FACTOR] = sign
                if kind == SWEEP:
                    table[words[v, WORD_ARGUMENT], SIGN] = sign
                else:
                    half[words[v, WORD_ARGUMENT]] *= sign
            if kind == DIAGONAL:
                _phases(half, words, items[q, FIRST_WORD], items[q, LAST_WORD], forward, phases, items[q, PHASES])
            factors[q] = cosine[n_args + q] = forward
            forward = 1.0
        else:
            for one in range(2 if kind >= TWO else 1):
                a = items[q, ARGUMENT_1 + SECOND * one]
                my_x, my_z = items[q, X_1 + SECOND * one], items[q, Z_1 + SECOND * one]
                sign = 1 - 2 * (parity(x & my_z) ^ parity(z & my_x))
                table[a, FACTOR] = sign
                table[a, SIN] *= sign
                if not arguments[a, DIFFERS] and kind != PHASE:
                    c, s = cos_sin(sign * half[a])
                    if abs(c) >= abs(s):
                        cosine[a], tangent = abs(c), s / c
                    else:
                        cosine[a], tangent = abs(s), -c / s
                        x, z = x ^ my_x, z ^ my_z
                    table[a, COS], table[a, SIN] = 1, tangent
                    forward *= cosine[a]
    common.norms[0] = forward
    common.flip[0], common.flip[1] = x, z

    backward = 1.0
    for q in range(len(items) - 1, -1, -1):
        kind = items[q, KIND]
        if kind in (DIAGONAL, SWEEP):
            for v in range(items[q, FIRST_WORD], items[q, LAST_WORD]):
                table[words[v, WORD_ARGUMENT], FACTOR] *= backward * backward
            backward /= cosine[n_args + q]
        else:
            for one in range(1 if kind >= TWO else 0, -1, -1):
                a = items[q, ARGUMENT_1 + SECOND * one]
                table[a, FACTOR] *= backward * backward
                backward *= cosine[a]
    common.norms[1] = backward
    for bit in range(len(start)):
        for a in range(start[bit, FIRST], start[bit, LAST]):
            table[a, FACTOR] *= backward * backward


@jit
def _phases(half, words, first, last, factor, phases, f):
    """cos and sin of ``sum_z (-1)^parity(i & z) h_z`` at every place i, from h_z (a Walsh-Hadamard
    transform), times a factor."""
    angle = np.zeros(phases.shape[2])
    for v in range(first, last):
        angle[words[v, WORD_Z]] += half[words[v, WORD_ARGUMENT]]
    step = 1
    while step < len(angle):
        for i in range(0, len(angle), 2 * step):
            for j in range(i, i + step):
                angle[j], angle[j + step] = angle[j] + angle[j + step], angle[j] - angle[j + step]
        step *= 2
    for i in range(len(angle)):
        c, s = cos_sin(angle[i])
        phases[f, 0, i], phases[f, 1, i] = factor * c, factor * s


# ---- passes ----------------------------------------------------------------------------------------------------------
# Each runs within one coset of a block, whose representative is `rep`. With the sign of i in s, ``exp(-i h P)`` is
# REAL [[c, -s], [s, c]] or IMAGINARY [[c, -i s], [-i s, c]] on (i, i ^ x), and PHASE c - i s on i. Where lanes are
# amplitudes, the lanes of the partner are swapped to face their own, and the signs that differ between lanes are in T.


@inline
def _turn(kind, x0, y0, x1, y1, c, s):
    if kind == REAL:
        return c * x0 - s * x1, c * y0 - s * y1, c * x1 + s * x0, c * y1 + s * y0
    return c * x0 + s * y1, c * y0 - s * x1, c * x1 + s * y0, c * y1 - s * x0


@inline
def _turn_undivided(kind, x0, y0, x1, y1, s):
    """The same divided by c, with the tangent for s."""
    if kind == REAL:
        return x0 - s * x1, y0 - s * y1, x1 + s * x0, y1 + s * y0
    return x0 + s * y1, y0 - s * x1, x1 + s * y0, y1 - s * x0


@inline
def _overlap(kind, g, x0, y0, u0, v0, x1, y1, u1, v1):
    """g and ``Im <lambda| P |psi>`` of the pair."""
    if kind == REAL:
        return g + u1 * x0 - u0 * x1 + v1 * y0 - v0 * y1
    return g + u0 * y1 - v0 * x1 + u1 * y0 - v1 * x0


@inline
def _pass(kind, bits, S, stride, q, items, places, rep, T):
    """One pass on psi."""
    W = n_lanes(S)
    x, by, z = items[q, X_1] >> bits, items[q, X_1] & (1 << bits) - 1, items[q, Z_1] >> bits
    at = items[q, ARGUMENT_1] * 2 * W
    c, plus = load(T, at), load(T, at + W)
    minus = splat(S.dtype.type(0)) - plus
    odd = parity(rep & z)
    for h in range(items[q, HI], items[q, HI] + items[q, N_HI]):
        base = rep ^ (places[h] & PLACE)
        s = minus if odd ^ (places[h] >= FLIP_1) else plus
        for k in range(items[q, LO], items[q, LO] + items[q, N_LO]):
            i = base ^ places[k]
            A, B = i * stride, (i ^ x) * stride
            if kind == PHASE:
                x0, y0 = load_complex(S, A, 0)
                store_complex(S, A, 0, c * x0 + s * y0, c * y0 - s * x0)
            else:
                x0, y0 = load_complex(S, A, 0)
                x1, y1 = load_complex(S, B, by)
                x0, y0, x1, y1 = _turn(kind, x0, y0, x1, y1, c, s)
                store_complex(S, A, 0, x0, y0)
                store_complex(S, B, by, x1, y1)


@inline
def _unpass(kind, bits, S, q, items, places, rep, T, E):
    """Undo one pass on psi and lambda, and add ``Im <lambda| P |psi>``, both after the pass, to its E[a, W]."""
    W = n_lanes(S)
    x, by, z = items[q, X_1] >> bits, items[q, X_1] & (1 << bits) - 1, items[q, Z_1] >> bits
    a = items[q, ARGUMENT_1]
    zero = splat(S.dtype.type(0))
    c, minus = load(T, a * 2 * W), load(T, a * 2 * W + W)
    plus = zero - minus
    odd = parity(rep & z)
    total = load(E, a * W)
    for h in range(items[q, HI], items[q, HI] + items[q, N_HI]):
        base = rep ^ (places[h] & PLACE)
        flip = odd ^ (places[h] >= FLIP_1)
        s = minus if flip else plus
        some = zero
        for k in range(items[q, LO], items[q, LO] + items[q, N_LO]):
            i = base ^ places[k]
            A, B = i * 4 * W, (i ^ x) * 4 * W
            x0, y0, u0, v0 = load_both(S, A, 0)
            if kind == PHASE:
                some = some + (u0 * y0 - v0 * x0)
                store_both(S, A, 0, c * x0 + s * y0, c * y0 - s * x0, c * u0 + s * v0, c * v0 - s * u0)
            else:
                x1, y1, u1, v1 = load_both(S, B, by)
                some = _overlap(kind, some, x0, y0, u0, v0, x1, y1, u1, v1)
                x0, y0, x1, y1 = _turn(kind, x0, y0, x1, y1, c, s)
                u0, v0, u1, v1 = _turn(kind, u0, v0, u1, v1, c, s)
                store_both(S, A, 0, x0, y0, u0, v0)
                store_both(S, B, by, x1, y1, u1, v1)
        total = total - some if flip else total + some
    store(E, a * W, total)


@inline
def _two(kind_1, kind_2, bits, S, stride, q, items, places, rep, T):
    """Two passes on psi at once: the first on (0, 1) and (2, 3) of a quadruple, the second on (0, 2) and (1, 3)."""
    W = n_lanes(S)
    x_1, x_2, z_1, z_2 = items[q, X_1] >> bits, items[q, X_2] >> bits, items[q, Z_1] >> bits, items[q, Z_2] >> bits
    by_1, by_2 = items[q, X_1] & (1 << bits) - 1, items[q, X_2] & (1 << bits) - 1
    by_3 = by_1 ^ by_2
    plus_1, plus_2 = load(T, items[q, ARGUMENT_1] * 2 * W + W), load(T, items[q, ARGUMENT_2] * 2 * W + W)
    zero = splat(S.dtype.type(0))
    minus_1, minus_2 = zero - plus_1, zero - plus_2
    odd_1, odd_2 = parity(rep & z_1), parity(rep & z_2)
    cross_1, cross_2 = items[q, CROSSED] & 1, items[q, CROSSED] >> 1
    for h in range(items[q, HI], items[q, HI] + items[q, N_HI]):
        base = rep ^ (places[h] & PLACE)
        flip_1, flip_2 = odd_1 ^ (places[h] & FLIP_1 != 0), odd_2 ^ (places[h] & FLIP_2 != 0)
        s_01, s_23 = minus_1 if flip_1 else plus_1, minus_1 if flip_1 ^ cross_1 else plus_1
        s_02, s_13 = minus_2 if flip_2 else plus_2, minus_2 if flip_2 ^ cross_2 else plus_2
        for k in range(items[q, LO], items[q, LO] + items[q, N_LO]):
            i = base ^ places[k]
            A, B, C, D = i * stride, (i ^ x_1) * stride, (i ^ x_2) * stride, (i ^ x_1 ^ x_2) * stride
            x0, y0 = load_complex(S, A, 0)
            x1, y1 = load_complex(S, B, by_1)
            x2, y2 = load_complex(S, C, by_2)
            x3, y3 = load_complex(S, D, by_3)
            x0, y0, x1, y1 = _turn_undivided(kind_1, x0, y0, x1, y1, s_01)
            x2, y2, x3, y3 = _turn_undivided(kind_1, x2, y2, x3, y3, s_23)
            x0, y0, x2, y2 = _turn_undivided(kind_2, x0, y0, x2, y2, s_02)
            x1, y1, x3, y3 = _turn_undivided(kind_2, x1, y1, x3, y3, s_13)
            store_complex(S, A, 0, x0, y0)
            store_complex(S, B, by_1, x1, y1)
            store_complex(S, C, by_2, x2, y2)
            store_complex(S, D, by_3, x3, y3)


@inline
def _untwo(kind_1, kind_2, bits, S, q, items, places, rep, T, E):
    """Undo two passes on psi and lambda, the second one first, and add to the gradients of both."""
    W = n_lanes(S)
    x_1, x_2, z_1, z_2 = items[q, X_1] >> bits, items[q, X_2] >> bits, items[q, Z_1] >> bits, items[q, Z_2] >> bits
    by_1, by_2 = items[q, X_1] & (1 << bits) - 1, items[q, X_2] & (1 << bits) - 1
    a_1, a_2 = items[q, ARGUMENT_1], items[q, ARGUMENT_2]
    by_3 = by_1 ^ by_2
    zero = splat(S.dtype.type(0))
    minus_1, minus_2 = load(T, a_1 * 2 * W + W), load(T, a_2 * 2 * W + W)
    plus_1, plus_2 = zero - minus_1, zero - minus_2
    odd_1, odd_2 = parity(rep & z_1), parity(rep & z_2)
    cross_1, cross_2 = items[q, CROSSED] & 1, items[q, CROSSED] >> 1
    total_1, total_2 = load(E, a_1 * W), load(E, a_2 * W)
    for h in range(items[q, HI], items[q, HI] + items[q, N_HI]):
        base = rep ^ (places[h] & PLACE)
        flip_1, flip_2 = odd_1 ^ (places[h] & FLIP_1 != 0), odd_2 ^ (places[h] & FLIP_2 != 0)
        s_01, s_23 = minus_1 if flip_1 else plus_1, minus_1 if flip_1 ^ cross_1 else plus_1
        s_02, s_13 = minus_2 if flip_2 else plus_2, minus_2 if flip_2 ^ cross_2 else plus_2
        g_01 = g_23 = g_02 = g_13 = zero
        for k in range(items[q, LO], items[q, LO] + items[q, N_LO]):
            i = base ^ places[k]
            A, B, C, D = i * 4 * W, (i ^ x_1) * 4 * W, (i ^ x_2) * 4 * W, (i ^ x_1 ^ x_2) * 4 * W
            x0, y0, u0, v0 = load_both(S, A, 0)
            x1, y1, u1, v1 = load_both(S, B, by_1)
            x2, y2, u2, v2 = load_both(S, C, by_2)
            x3, y3, u3, v3 = load_both(S, D, by_3)
            g_02 = _overlap(kind_2, g_02, x0, y0, u0, v0, x2, y2, u2, v2)
            g_13 = _overlap(kind_2, g_13, x1, y1, u1, v1, x3, y3, u3, v3)
            x0, y0, x2, y2 = _turn_undivided(kind_2, x0, y0, x2, y2, s_02)
            u0, v0, u2, v2 = _turn_undivided(kind_2, u0, v0, u2, v2, s_02)
            x1, y1, x3, y3 = _turn_undivided(kind_2, x1, y1, x3, y3, s_13)
            u1, v1, u3, v3 = _turn_undivided(kind_2, u1, v1, u3, v3, s_13)
            g_01 = _overlap(kind_1, g_01, x0, y0, u0, v0, x1, y1, u1, v1)
            g_23 = _overlap(kind_1, g_23, x2, y2, u2, v2, x3, y3, u3, v3)
            x0, y0, x1, y1 = _turn_undivided(kind_1, x0, y0, x1, y1, s_01)
            u0, v0, u1, v1 = _turn_undivided(kind_1, u0, v0, u1, v1, s_01)
            x2, y2, x3, y3 = _turn_undivided(kind_1, x2, y2, x3, y3, s_23)
            u2, v2, u3, v3 = _turn_undivided(kind_1, u2, v2, u3, v3, s_23)
            store_both(S, A, 0, x0, y0, u0, v0)
            store_both(S, B, by_1, x1, y1, u1, v1)
            store_both(S, C, by_2, x2, y2, u2, v2)
            store_both(S, D, by_3, x3, y3, u3, v3)
        total_1 = total_1 - g_01 if flip_1 else total_1 + g_01
        total_1 = total_1 - g_23 if flip_1 ^ cross_1 else total_1 + g_23
        total_2 = total_2 - g_02 if flip_2 else total_2 + g_02
        total_2 = total_2 - g_13 if flip_2 ^ cross_2 else total_2 + g_13
    store(E, a_1 * W, total_1)
    store(E, a_2 * W, total_2)


@inline
def _within(kind, bits, S, stride, q, items, n_span, places, span, rep, T):
    """A pass on psi whose pairs lie within registers."""
    W = n_lanes(S)
    by, z, at = items[q, X_1] & (1 << bits) - 1, items[q, Z_1] >> bits, items[q, ARGUMENT_1] * 2 * W
    c, plus = load(T, at), load(T, at + W)
    minus = splat(S.dtype.type(0)) - plus
    for k in range(span, span + n_span):
        i = rep ^ places[k]
        A, s = i * stride, minus if parity(i & z) else plus
        x, y = load_complex(S, A, 0)
        x, y, _, _ = _turn(kind, x, y, swapped(x, by), swapped(y, by), c, s)
        store_complex(S, A, 0, x, y)


@inline
def _unwithin(kind, bits, S, q, items, n_span, places, span, rep, T, E):
    """Undo it on psi and lambda, and add to its gradient."""
    W = n_lanes(S)
    by, z, a = items[q, X_1] & (1 << bits) - 1, items[q, Z_1] >> bits, items[q, ARGUMENT_1]
    c, minus = load(T, a * 2 * W), load(T, a * 2 * W + W)
    zero, half = splat(S.dtype.type(0)), splat(S.dtype.type(0.5))
    plus = zero - minus
    total = load(E, a * W)
    for k in range(span, span + n_span):
        i = rep ^ places[k]
        A, odd = i * 4 * W, parity(i & z)
        s = minus if odd else plus
        x0, y0, u0, v0 = load_both(S, A, 0)
        x1, y1, u1, v1 = swapped(x0, by), swapped(y0, by), swapped(u0, by), swapped(v0, by)
        some = half * _overlap(kind, zero, x0, y0, u0, v0, x1, y1, u1, v1)  # both lanes of a pair have it
        total = total - some if odd else total + some
        x0, y0, _, _ = _turn(kind, x0, y0, x1, y1, c, s)
        u0, v0, _, _ = _turn(kind, u0, v0, u1, v1, c, s)
        store_both(S, A, 0, x0, y0, u0, v0)
    store(E, a * W, total)


@inline
def _angles(bits, q, items, words, n_span, rep, T, R):
    """The angles ``sum_z (-1)^parity(i & z) h_z`` of a sweep at every place of a coset, in turns: R[k, W]."""
    W = n_lanes(R)
    turns, angles = as_turns(T), as_turns(R)
    for k in range(n_span):
        store(R, k * W, splat(R.dtype.type(0)))
    for v in range(items[q, FIRST_WORD], items[q, LAST_WORD]):
        at, turn = words[v, WORD_LOCAL_Z] * W, load(turns, words[v, WORD_ARGUMENT] * 2 * W)
        odd = parity(rep & words[v, WORD_Z] >> bits)
        store(angles, at, load(angles, at) - turn if odd else load(angles, at) + turn)
    hadamard(angles, n_span)


@inline
def _phase(swept, k, i, f, factor, phases, R):
    """cos and sin at place i, the k-th of its coset: of a sweep, or of the phases that all samples share."""
    W = n_lanes(R)
    if swept:
        c, s = cos_sin_of_turns(load(as_turns(R), k * W))
        return factor * c, factor * s
    return splat(phases[f, 0, i]), splat(phases[f, 1, i])


@inline
def _diagonal(swept, bits, S, stride, q, items, words, n_span, places, span, rep, common, T, R):
    """All diagonal rotations of a level at once: ``c - i s`` at each place."""
    f, factor, phases = items[q, PHASES], splat(common.factors[q]), common.phases
    if swept:
        _angles(bits, q, items, words, n_span, rep, T, R)
    for k in range(n_span):
        i = rep ^ places[span + k]
        A = i * stride
        c, s = _phase(swept, k, i, f, factor, phases, R)
        x, y = load_complex(S, A, 0)
        store_complex(S, A, 0, c * x + s * y, c * y - s * x)


@inline
def _undiagonal(swept, bits, S, q, items, words, n_span, places, span, rep, common, T, R, P, E):
    """Undo them; ``Im <lambda| Z_z |psi>`` of every word z are values of one Walsh-Hadamard transform."""
    W, f, factor, phases = n_lanes(S), items[q, PHASES], splat(common.factors[q]), common.phases
    if swept:
        _angles(bits, q, items, words, n_span, rep, T, R)
    for k in range(n_span):
        i = rep ^ places[span + k]
        A = i * 4 * W
        c, s = _phase(swept, k, i, f, factor, phases, R)
        x, y, u, v = load_both(S, A, 0)
        store(P, k * W, u * y - v * x)
        store_both(S, A, 0, c * x - s * y, c * y + s * x, c * u - s * v, c * v + s * u)
    if items[q, FIRST_WORD] < items[q, LAST_WORD]:
        hadamard(P, n_span)
    for v in range(items[q, FIRST_WORD], items[q, LAST_WORD]):
        at = words[v, WORD_ARGUMENT] * W
        w = load(P, words[v, WORD_LOCAL_Z] * W)
        store(E, at, load(E, at) - w if parity(rep & words[v, WORD_Z] >> bits) else load(E, at) + w)


# ---- blocks ----------------------------------------------------------------------------------------------------------
# Kinds are handed on as numbers rather than as literals, for each of which Numba would compile a pass again; LLVM knows
# them all the same once it has put the pass into the kernel.


@inline
def run_block(bits, b, first, n_cosets, S, stride, tables, n_span, common, T, R):
    """Some cosets of one block on psi."""
    blocks, items, words, places = tables.blocks, tables.items, tables.words, tables.places
    real, imaginary, phase = np.int64(REAL), np.int64(IMAGINARY), np.int64(PHASE)
    span, cosets = blocks[b, SPAN_AT], blocks[b, COSETS_AT] + first
    for r in range(cosets, cosets + n_cosets):
        rep = places[r]
        for q in range(blocks[b, FIRST], blocks[b, LAST]):
            kind = items[q, KIND]
            if kind == TWO:
                _two(real, real, bits, S, stride, q, items, places, rep, T)
            elif kind == TWO + 1:
                _two(imaginary, real, bits, S, stride, q, items, places, rep, T)
            elif kind == TWO + 2:
                _two(real, imaginary, bits, S, stride, q, items, places, rep, T)
            elif kind == TWO + 3:
                _two(imaginary, imaginary, bits, S, stride, q, items, places, rep, T)
            elif kind == DIAGONAL and bits == 0:
                _diagonal(False, bits, S, stride, q, items, words, n_span, places, span, rep, common, T, R)
            elif kind == SWEEP:
                _diagonal(True, bits, S, stride, q, items, words, n_span, places, span, rep, common, T, R)
            elif kind == REAL:
                _pass(real, bits, S, stride, q, items, places, rep, T)
            elif kind == IMAGINARY:
                _pass(imaginary, bits, S, stride, q, items, places, rep, T)
            elif kind == PHASE:
                _pass(phase, bits, S, stride, q, items, places, rep, T)
            elif kind == WITHIN + REAL and bits != 0:
                _within(real, bits, S, stride, q, items, n_span, places, span, rep, T)
            elif bits != 0:
                _within(imaginary, bits, S, stride, q, items, n_span, places, span, rep, T)


@inline
def undo_block(bits, b, first, n_cosets, S, tables, n_span, common, T, R, P, E):
    """Undo them on psi and lambda, and add to the gradients E[a, W] of the arguments."""
    blocks, items, words, places = tables.blocks, tables.items, tables.words, tables.places
    real, imaginary, phase = np.int64(REAL), np.int64(IMAGINARY), np.int64(PHASE)
    span, cosets = blocks[b, SPAN_AT], blocks[b, COSETS_AT] + first
    for r in range(cosets, cosets + n_cosets):
        rep = places[r]
        for q in range(blocks[b, LAST] - 1, blocks[b, FIRST] - 1, -1):
            kind = items[q, KIND]
            if kind == TWO:
                _untwo(real, real, bits, S, q, items, places, rep, T, E)
            elif kind == TWO + 1:
                _untwo(imaginary, real, bits, S, q, items, places, rep, T, E)
            elif kind == TWO + 2:
                _untwo(real, imaginary, bits, S, q, items, places, rep, T, E)
            elif kind == TWO + 3:
                _untwo(imaginary, imaginary, bits, S, q, items, places, rep, T, E)
            elif kind == DIAGONAL and bits == 0:
                _undiagonal(False, bits, S, q, items, words, n_span, places, span, rep, common, T, R, P, E)
            elif kind == SWEEP:
                _undiagonal(True, bits, S, q, items, words, n_span, places, span, rep, common, T, R, P, E)
            elif kind == REAL:
                _unpass(real, bits, S, q, items, places, rep, T, E)
            elif kind == IMAGINARY:
                _unpass(imaginary, bits, S, q, items, places, rep, T, E)
            elif kind == PHASE:
                _unpass(phase, bits, S, q, items, places, rep, T, E)
            elif kind == WITHIN + REAL and bits != 0:
                _unwithin(real, bits, S, q, items, n_span, places, span, rep, T, E)
            elif bits != 0:
                _unwithin(imaginary, bits, S, q, items, n_span, places, span, rep, T, E)


@inline
def hadamard(P, size):
    """Fast Walsh-Hadamard transform of P[i, W] over i < size: ``P[z] = sum_i (-1)^parity(i & z) P[i]``."""
    W = n_lanes(P)
    step = 1
    while 8 * step <= size:  # three dimensions at once
        for first in range(0, size, 8 * step):
            for i in range(first, first + step):
                A, B = i * W, step * W
                a, b, c, d = load(P, A), load(P, A + B), load(P, A + 2 * B), load(P, A + 3 * B)
                e, f, g, h = load(P, A + 4 * B), load(P, A + 5 * B), load(P, A + 6 * B), load(P, A + 7 * B)
                a, b, c, d, e, f, g, h = a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h
                a, b, c, d, e, f, g, h = a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h
                store(P, A, a + e)
                store(P, A + B, b + f)
                store(P, A + 2 * B, c + g)
                store(P, A + 3 * B, d + h)
                store(P, A + 4 * B, a - e)
                store(P, A + 5 * B, b - f)
                store(P, A + 6 * B, c - g)
                store(P, A + 7 * B, d - h)
        step *= 8
    while step < size:
        for first in range(0, size, 2 * step):
            for i in range(first, first + step):
                A, B = i * W, (i + step) * W
                a, b = load(P, A), load(P, B)
                store(P, A, a + b)
                store(P, B, a - b)
        step *= 2


# ---- the start -------------------------------------------------------------------------------------------------------


@jit
def matrices(tables, T, M):
    """For every bit the product of its rotations [[a, b], [-b*, a*]]: M[bit, 4, W] is Re a, Im a, Re b, Im b."""
    arguments, start = tables.arguments, tables.start
    W = n_lanes(T)
    zero = splat(T.dtype.type(0))
    for q in range(len(start)):
        ar = splat(T.dtype.type(1))
        ai = br = bi = zero
        for e in range(start[q, FIRST], start[q, LAST]):
            c, s = load(T, e * 2 * W), load(T, e * 2 * W + W)
            if arguments[e, AXIS] == 0:  # (c - i s X) (a, b)
                ar, ai, br, bi = c * ar + s * bi, c * ai + s * br, c * br - s * ai, c * bi - s * ar
            elif arguments[e, AXIS] == 1:  # (c - i s Y) (a, b)
                ar, ai, br, bi = c * ar + s * br, c * ai - s * bi, c * br - s * ar, c * bi + s * ai
            else:  # (c - i s Z) (a, b)
                ar, ai, br, bi = c * ar + s * ai, c * ai - s * ar, c * br + s * bi, c * bi - s * br
        at = q * 4 * W
        store(M, at, ar)
        store(M, at + W, ai)
        store(M, at + 2 * W, br)
        store(M, at + 3 * W, bi)


@jit
def product(S, stride, first, n_bits, M):
    """The product state of some bits: for each the column (a, -b*) of its matrix, doubling the state."""
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    store(S, 0, splat(S.dtype.type(1)))
    store(S, W, zero)
    for q in range(n_bits):
        at = (first + q) * 4 * W
        ar, ai, br, bi = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
        for i in range(1 << q):
            A, B = place(i) * stride, place(i + (1 << q)) * stride
            x, y = load_complex(S, A, 0)
            store_complex(S, A, 0, ar * x - ai * y, ar * y + ai * x)
            store_complex(S, B, 0, zero - br * x - bi * y, bi * x - br * y)


@jit
def unproduct(S, first, n_bits, tables, T, M, E):
    """Undo the product state bit by bit, the last first: the gradients E of its rotations.

    Each bit gives ``g = Im <lambda| X, Y, Z |psi>``. A rotation's gradient is that of its axis; before it, as
    ``R_x(t)`` takes Y to cos t Y + sin t Z: (gy, gz) -> (cos t gy + sin t gz, cos t gz - sin t gy), cyclic.
    """
    arguments, start = tables.arguments, tables.start
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    for q in range(n_bits - 1, -1, -1):
        at = (first + q) * 4 * W
        p0, q0 = load(M, at), load(M, at + W)  # the factor (a, -b*)
        p1, q1 = zero - load(M, at + 2 * W), load(M, at + 3 * W)
        r0 = s0 = r1 = s1 = zero  # <lambda_b | psi of the lower bits>
        for i in range(1 << q):
            A, B = place(i) * 4 * W, place(i + (1 << q)) * 4 * W
            x0, y0, u0, v0 = load_both(S, A, 0)
            x1, y1, u1, v1 = load_both(S, B, 0)
            x, y = p0 * x0 + q0 * y0 + p1 * x1 + q1 * y1, p0 * y0 - q0 * x0 + p1 * y1 - q1 * x1
            store_both(S, A, 0, x, y, p0 * u0 + q0 * v0 + p1 * u1 + q1 * v1, p0 * v0 - q0 * u0 + p1 * v1 - q1 * u1)
            r0, s0 = r0 + (u0 * x + v0 * y), s0 + (u0 * y - v0 * x)
            r1, s1 = r1 + (u1 * x + v1 * y), s1 + (u1 * y - v1 * x)
        gx = r0 * q1 + s0 * p1 + r1 * q0 + s1 * p0
        gy = s0 * q1 - r0 * p1 + r1 * p0 - s1 * q0
        gz = r0 * q0 + s0 * p0 - r1 * q1 - s1 * p1
        for e in range(start[first + q, LAST] - 1, start[first + q, FIRST] - 1, -1):
            ch, sh = load(T, e * 2 * W), load(T, e * 2 * W + W)
            c, s = ch * ch - sh * sh, ch * sh + ch * sh
            if arguments[e, AXIS] == 0:
                store(E, e * W, gx)
                gy, gz = c * gy + s * gz, c * gz - s * gy
            elif arguments[e, AXIS] == 1:
                store(E, e * W, gy)
                gz, gx = c * gz + s * gx, c * gx - s * gz
            else:
                store(E, e * W, gz)
                gx, gy = c * gx + s * gy, c * gy - s * gx

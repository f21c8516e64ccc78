# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels: forward and backward through one chunk of W samples after the other.

A state is a flat array ``S[place, part, lane]``: parts Re psi, Im psi and, going backward, Re lambda, Im lambda;
`stride` is 2 W or 4 W. Every sample has one lane from start to end, and only sums over samples cross lanes, in a fixed
order: equal samples give equal bits, whatever the batch, the chunks and the threads.

Gradients follow from ``lambda = dL/d psi* = O psi`` and ``dL/dt = Im <lambda| P |psi>`` for ``exp(-i t P / 2)``
(arXiv 2009.02823): both states are taken back through the circuit together.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numba import njit
from numba.core.event import Listener, register

from qbp.executors.native.lanes import (
    fetch_add,
    flush_denormals,
    hsum,
    load,
    n_lanes,
    parity,
    restore_denormals,
    splat,
    store,
)

__all__ = ["backward", "forward", "prepare"]

REAL, IMAGINARY, PHASE, DIAGONAL, TWO = range(5)  # kinds of items, as in `schedule`
FLIP_1, FLIP_2 = 1 << 30, 1 << 29  # of an entry of a table of places: the signs of the amplitudes there
PLACE = FLIP_2 - 1

_jit = njit(nogil=True, fastmath=True, error_model="numpy")
_inline = njit(nogil=True, fastmath=True, error_model="numpy", forceinline=True)
# For sums whose order matters; said explicitly, since callees inherit what they leave open.
_exact = njit(nogil=True, fastmath=False, error_model="numpy", forceinline=True)


def _kernel(function):
    """Compiled once on a machine: kept on disk beside this file, or in the user's cache directory."""
    try:
        return njit(nogil=True, fastmath=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither can be written to
        return _jit(function)


class _Notice(Listener):
    """Says, once, that kernels are being compiled, since that takes a while."""

    said = False

    def on_start(self, event):
        function = event.data["dispatcher"].py_func
        if function.__module__ == __name__ and function.__name__ in __all__ and not self.said:
            self.said = True
            print(
                "qbp: compiling the native engine, once on this machine (about 15 s) ...", file=sys.stderr, flush=True
            )

    def on_end(self, event):
        pass


register("numba:compile", _Notice())


@_inline
def _place(i):
    """Where amplitude i lies (see `schedule.place`)."""
    return i ^ ((i >> 4 ^ i >> 8 ^ i >> 12 ^ i >> 16 ^ i >> 20 ^ i >> 24) & 15)


# ---- angles ----------------------------------------------------------------------------------------------------------


@_exact
def _cos_sin(t):
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


@_kernel
def prepare(n_qubits, tables, n_batched, shared, table, phases, scales, flip):
    """What all samples share.

    Rotations ``exp(-i h P) = cos h (1 - i tan h P)`` that all samples share are run without the factor: one
    multiply-add less for every number. To keep ``|h| <= pi/4``, a half turn ``-i P`` goes to the end of the circuit,
    where it is a bit flip and signs; on its way it changes the sign of the angles of words that anticommute with P.

    Args:
        table: (A, 3), written: cos h or 1, sin h or tan h, and the factor of the argument's gradient. Where samples
            differ, the part of h that they share, the sign of h, and that factor.
        phases: (F, 2, 2^N), written: cos and sin of the phases of diagonal items, times the cosines since the last one.
        scales: (2,), written: the cosines that are left at the end, and at the beginning after going back.
        flip: (2,), written: x- and z-mask of the half turns at the end.
    """
    arguments, terms, numbers, start, _, items, words, _, _, _, _ = tables
    n_args = len(arguments)
    half = np.empty(n_args)
    cosine = np.ones(n_args + len(items))  # made up for: by arguments, by diagonal items
    for a in range(n_args):
        half[a] = numbers[a]
        for t in range(arguments[a, 0], arguments[a, 1]):
            if terms[t] >= n_batched:
                half[a] += numbers[n_args + t] * shared[terms[t] - n_batched]
        table[a, 2] = 1
        if arguments[a, 2]:
            table[a, 0] = half[a]
            table[a, 1] = 1
        else:
            table[a, 0], table[a, 1] = _cos_sin(half[a])

    x = z = 0
    forward = 1.0
    angle = np.empty(1 << n_qubits)
    for q in range(len(items)):
        kind = items[q, 0]
        if kind == DIAGONAL:
            angle[:] = 0
            for v in range(items[q, 2], items[q, 3]):
                sign = 1 - 2 * parity(x & words[v, 0])
                table[words[v, 2], 2] = sign
                angle[words[v, 0]] += sign * half[words[v, 2]]
            _phases(angle, forward, phases, items[q, 1])
            cosine[n_args + q] = forward
            forward = 1.0
        else:
            for one in range(2 if kind >= TWO else 1):
                a = items[q, 3 + 3 * one]
                my_x, my_z = items[q, 1 + 3 * one], items[q, 2 + 3 * one]
                sign = 1 - 2 * (parity(x & my_z) ^ parity(z & my_x))
                table[a, 2] = sign
                table[a, 1] *= sign
                if not arguments[a, 2] and kind != PHASE:
                    c, s = _cos_sin(sign * half[a])
                    if abs(c) >= abs(s):
                        cosine[a], tangent = abs(c), s / c
                    else:
                        cosine[a], tangent = abs(s), -c / s
                        x, z = x ^ my_x, z ^ my_z
                    table[a, 0], table[a, 1] = 1, tangent
                    forward *= cosine[a]
    scales[0] = forward
    flip[0], flip[1] = x, z

    backward = 1.0
    for q in range(len(items) - 1, -1, -1):
        kind = items[q, 0]
        if kind == DIAGONAL:
            for v in range(items[q, 2], items[q, 3]):
                table[words[v, 2], 2] *= backward * backward
            backward /= cosine[n_args + q]
        else:
            for one in range(1 if kind >= TWO else 0, -1, -1):
                a = items[q, 3 + 3 * one]
                table[a, 2] *= backward * backward
                backward *= cosine[a]
    scales[1] = backward
    for bit in range(len(start)):
        for a in range(start[bit, 0], start[bit, 1]):
            table[a, 2] *= backward * backward


@_jit
def _phases(angle, factor, phases, f):
    """cos and sin of ``sum_z (-1)^parity(i & z) t_z`` at every place i, from t_z (a Walsh-Hadamard
    transform), times a factor."""
    step = 1
    while step < len(angle):
        for i in range(0, len(angle), 2 * step):
            for j in range(i, i + step):
                angle[j], angle[j + step] = angle[j] + angle[j + step], angle[j] - angle[j + step]
        step *= 2
    for i in range(len(angle)):
        c, s = _cos_sin(angle[i])
        phases[f, 0, i], phases[f, 1, i] = factor * c, factor * s


@_jit
def _half_angles(tables, batched, row, rows, table, T):
    """cos and sin of every argument in every lane, T[a, 2, W]."""
    arguments, terms, numbers, _, _, _, _, _, _, _, _ = tables
    W = n_lanes(T)
    for a in range(len(arguments)):
        at = a * 2 * W
        if arguments[a, 2]:
            for w in range(W):
                T[at + w] = table[a, 0]
            for t in range(arguments[a, 0], arguments[a, 1]):
                if terms[t] < batched.shape[1]:
                    scale = T.dtype.type(numbers[len(arguments) + t])
                    for w in range(rows):
                        T[at + w] += scale * batched[row + w, terms[t]]
            for w in range(W):
                c, s = _cos_sin(T[at + w])
                T[at + w] = c
                T[at + W + w] = table[a, 1] * T.dtype.type(s)
        else:
            store(T, at, splat(table[a, 0]))
            store(T, at + W, splat(table[a, 1]))


@_jit
def _angle_gradients(tables, table, n_batched, row, rows, E, g_batched, g_shared, chunk):
    """From the gradient of every argument, dL/dt in E[a, W], to those of the angles (B, Kb) and (Ks,)."""
    arguments, terms, numbers, _, _, _, _, _, _, _, _ = tables
    W = n_lanes(E)
    for w in range(row, row + rows):
        for k in range(n_batched):
            g_batched[w, k] = 0
    for k in range(g_shared.shape[1]):
        g_shared[chunk, k] = 0
    for a in range(len(arguments)):
        for t in range(arguments[a, 0], arguments[a, 1]):
            scale = table[a, 2] * E.dtype.type(2 * numbers[len(arguments) + t])
            if terms[t] < n_batched:
                for w in range(rows):
                    g_batched[row + w, terms[t]] += scale * E[a * W + w]
            else:
                g_shared[chunk, terms[t] - n_batched] += scale * hsum(load(E, a * W))


# ---- passes ----------------------------------------------------------------------------------------------------------
# Each runs within one coset of a block, whose representative is `rep`. With the sign of i in s, ``exp(-i h P)`` is
# REAL [[c, -s], [s, c]] or IMAGINARY [[c, -i s], [-i s, c]] on (i, i ^ x), and PHASE c - i s on i.


@_inline
def _turn(kind, x0, y0, x1, y1, c, s):
    if kind == REAL:
        return c * x0 - s * x1, c * y0 - s * y1, c * x1 + s * x0, c * y1 + s * y0
    return c * x0 + s * y1, c * y0 - s * x1, c * x1 + s * y0, c * y1 - s * x0


@_inline
def _turn_undivided(kind, x0, y0, x1, y1, s):
    """The same divided by c, with the tangent for s."""
    if kind == REAL:
        return x0 - s * x1, y0 - s * y1, x1 + s * x0, y1 + s * y0
    return x0 + s * y1, y0 - s * x1, x1 + s * y0, y1 - s * x0


@_inline
def _overlap(kind, g, x0, y0, u0, v0, x1, y1, u1, v1):
    """g and ``Im <lambda| P |psi>`` of the pair."""
    if kind == REAL:
        return g + u1 * x0 - u0 * x1 + v1 * y0 - v0 * y1
    return g + u0 * y1 - v0 * x1 + u1 * y0 - v1 * x0


@_inline
def _pass(kind, S, stride, q, items, places, rep, T):
    """One pass on psi."""
    W = n_lanes(S)
    x, at = items[q, 1], items[q, 3] * 2 * W
    c, plus = load(T, at), load(T, at + W)
    minus = splat(S.dtype.type(0)) - plus
    odd = parity(rep & items[q, 2])
    for h in range(items[q, 9], items[q, 9] + items[q, 10]):
        base = rep ^ (places[h] & PLACE)
        s = minus if odd ^ (places[h] >= FLIP_1) else plus
        for k in range(items[q, 7], items[q, 7] + items[q, 8]):
            i = base ^ places[k]
            A, B = i * stride, (i ^ x) * stride
            if kind == PHASE:
                x0, y0 = load(S, A), load(S, A + W)
                store(S, A, c * x0 + s * y0)
                store(S, A + W, c * y0 - s * x0)
            else:
                x0, y0, x1, y1 = _turn(kind, load(S, A), load(S, A + W), load(S, B), load(S, B + W), c, s)
                store(S, A, x0)
                store(S, A + W, y0)
                store(S, B, x1)
                store(S, B + W, y1)


@_inline
def _unpass(kind, S, q, items, places, rep, T, E):
    """Undo one pass on psi and lambda, and add ``Im <lambda| P |psi>``, both after the pass, to its E[a, W]."""
    W = n_lanes(S)
    x, a = items[q, 1], items[q, 3]
    zero = splat(S.dtype.type(0))
    c, minus = load(T, a * 2 * W), load(T, a * 2 * W + W)
    plus = zero - minus
    odd = parity(rep & items[q, 2])
    total = load(E, a * W)
    for h in range(items[q, 9], items[q, 9] + items[q, 10]):
        base = rep ^ (places[h] & PLACE)
        flip = odd ^ (places[h] >= FLIP_1)
        s = minus if flip else plus
        some = zero
        for k in range(items[q, 7], items[q, 7] + items[q, 8]):
            i = base ^ places[k]
            A, B = i * 4 * W, (i ^ x) * 4 * W
            x0, y0, u0, v0 = load(S, A), load(S, A + W), load(S, A + 2 * W), load(S, A + 3 * W)
            if kind == PHASE:
                some = some + (u0 * y0 - v0 * x0)
                store(S, A, c * x0 + s * y0)
                store(S, A + W, c * y0 - s * x0)
                store(S, A + 2 * W, c * u0 + s * v0)
                store(S, A + 3 * W, c * v0 - s * u0)
            else:
                x1, y1, u1, v1 = load(S, B), load(S, B + W), load(S, B + 2 * W), load(S, B + 3 * W)
                some = _overlap(kind, some, x0, y0, u0, v0, x1, y1, u1, v1)
                x0, y0, x1, y1 = _turn(kind, x0, y0, x1, y1, c, s)
                u0, v0, u1, v1 = _turn(kind, u0, v0, u1, v1, c, s)
                store(S, A, x0)
                store(S, A + W, y0)
                store(S, A + 2 * W, u0)
                store(S, A + 3 * W, v0)
                store(S, B, x1)
                store(S, B + W, y1)
                store(S, B + 2 * W, u1)
                store(S, B + 3 * W, v1)
        total = total - some if flip else total + some
    store(E, a * W, total)


@_inline
def _two(kind_1, kind_2, S, stride, q, items, places, rep, T):
    """Two passes on psi at once: the first on (0, 1) and (2, 3) of a quadruple, the second on (0, 2) and (1, 3)."""
    W = n_lanes(S)
    x_1, x_2 = items[q, 1], items[q, 4]
    plus_1, plus_2 = load(T, items[q, 3] * 2 * W + W), load(T, items[q, 6] * 2 * W + W)
    zero = splat(S.dtype.type(0))
    minus_1, minus_2 = zero - plus_1, zero - plus_2
    odd_1, odd_2 = parity(rep & items[q, 2]), parity(rep & items[q, 5])
    cross_1, cross_2 = items[q, 11] & 1, items[q, 11] >> 1
    for h in range(items[q, 9], items[q, 9] + items[q, 10]):
        base = rep ^ (places[h] & PLACE)
        flip_1, flip_2 = odd_1 ^ (places[h] >> 30 & 1), odd_2 ^ (places[h] >> 29 & 1)
        s_01, s_23 = minus_1 if flip_1 else plus_1, minus_1 if flip_1 ^ cross_1 else plus_1
        s_02, s_13 = minus_2 if flip_2 else plus_2, minus_2 if flip_2 ^ cross_2 else plus_2
        for k in range(items[q, 7], items[q, 7] + items[q, 8]):
            i = base ^ places[k]
            A, B, C, D = i * stride, (i ^ x_1) * stride, (i ^ x_2) * stride, (i ^ x_1 ^ x_2) * stride
            x0, y0, x1, y1 = load(S, A), load(S, A + W), load(S, B), load(S, B + W)
            x2, y2, x3, y3 = load(S, C), load(S, C + W), load(S, D), load(S, D + W)
            x0, y0, x1, y1 = _turn_undivided(kind_1, x0, y0, x1, y1, s_01)
            x2, y2, x3, y3 = _turn_undivided(kind_1, x2, y2, x3, y3, s_23)
            x0, y0, x2, y2 = _turn_undivided(kind_2, x0, y0, x2, y2, s_02)
            x1, y1, x3, y3 = _turn_undivided(kind_2, x1, y1, x3, y3, s_13)
            store(S, A, x0)
            store(S, A + W, y0)
            store(S, B, x1)
            store(S, B + W, y1)
            store(S, C, x2)
            store(S, C + W, y2)
            store(S, D, x3)
            store(S, D + W, y3)


@_inline
def _untwo(kind_1, kind_2, S, q, items, places, rep, T, E):
    """Undo two passes on psi and lambda, the second one first, and add to the gradients of both."""
    W = n_lanes(S)
    x_1, x_2, a_1, a_2 = items[q, 1], items[q, 4], items[q, 3], items[q, 6]
    zero = splat(S.dtype.type(0))
    minus_1, minus_2 = load(T, a_1 * 2 * W + W), load(T, a_2 * 2 * W + W)
    plus_1, plus_2 = zero - minus_1, zero - minus_2
    odd_1, odd_2 = parity(rep & items[q, 2]), parity(rep & items[q, 5])
    cross_1, cross_2 = items[q, 11] & 1, items[q, 11] >> 1
    total_1, total_2 = load(E, a_1 * W), load(E, a_2 * W)
    for h in range(items[q, 9], items[q, 9] + items[q, 10]):
        base = rep ^ (places[h] & PLACE)
        flip_1, flip_2 = odd_1 ^ (places[h] >> 30 & 1), odd_2 ^ (places[h] >> 29 & 1)
        s_01, s_23 = minus_1 if flip_1 else plus_1, minus_1 if flip_1 ^ cross_1 else plus_1
        s_02, s_13 = minus_2 if flip_2 else plus_2, minus_2 if flip_2 ^ cross_2 else plus_2
        g_01 = g_23 = g_02 = g_13 = zero
        for k in range(items[q, 7], items[q, 7] + items[q, 8]):
            i = base ^ places[k]
            A, B, C, D = i * 4 * W, (i ^ x_1) * 4 * W, (i ^ x_2) * 4 * W, (i ^ x_1 ^ x_2) * 4 * W
            x0, y0, u0, v0 = load(S, A), load(S, A + W), load(S, A + 2 * W), load(S, A + 3 * W)
            x1, y1, u1, v1 = load(S, B), load(S, B + W), load(S, B + 2 * W), load(S, B + 3 * W)
            x2, y2, u2, v2 = load(S, C), load(S, C + W), load(S, C + 2 * W), load(S, C + 3 * W)
            x3, y3, u3, v3 = load(S, D), load(S, D + W), load(S, D + 2 * W), load(S, D + 3 * W)
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
            store(S, A, x0)
            store(S, A + W, y0)
            store(S, A + 2 * W, u0)
            store(S, A + 3 * W, v0)
            store(S, B, x1)
            store(S, B + W, y1)
            store(S, B + 2 * W, u1)
            store(S, B + 3 * W, v1)
            store(S, C, x2)
            store(S, C + W, y2)
            store(S, C + 2 * W, u2)
            store(S, C + 3 * W, v2)
            store(S, D, x3)
            store(S, D + W, y3)
            store(S, D + 2 * W, u3)
            store(S, D + 3 * W, v3)
        total_1 = total_1 - g_01 if flip_1 else total_1 + g_01
        total_1 = total_1 - g_23 if flip_1 ^ cross_1 else total_1 + g_23
        total_2 = total_2 - g_02 if flip_2 else total_2 + g_02
        total_2 = total_2 - g_13 if flip_2 ^ cross_2 else total_2 + g_13
    store(E, a_1 * W, total_1)
    store(E, a_2 * W, total_2)


@_inline
def _diagonal(S, stride, span, n_span, places, rep, phases, f):
    """All diagonal rotations of a level at once: ``c - i s`` at each place."""
    W = n_lanes(S)
    for k in range(span, span + n_span):
        i = rep ^ places[k]
        A = i * stride
        c, s = splat(phases[f, 0, i]), splat(phases[f, 1, i])
        x, y = load(S, A), load(S, A + W)
        store(S, A, c * x + s * y)
        store(S, A + W, c * y - s * x)


@_inline
def _undiagonal(S, q, items, words, span, n_span, places, rep, phases, P, E):
    """Undo them; ``Im <lambda| Z_z |psi>`` of every word z are values of one Walsh-Hadamard transform."""
    W = n_lanes(S)
    f = items[q, 1]
    for k in range(n_span):
        i = rep ^ places[span + k]
        A = i * 4 * W
        c, s = splat(phases[f, 0, i]), splat(phases[f, 1, i])
        x, y, u, v = load(S, A), load(S, A + W), load(S, A + 2 * W), load(S, A + 3 * W)
        store(P, k * W, u * y - v * x)
        store(S, A, c * x - s * y)
        store(S, A + W, c * y + s * x)
        store(S, A + 2 * W, c * u - s * v)
        store(S, A + 3 * W, c * v + s * u)
    if items[q, 2] < items[q, 3]:
        _hadamard(P, n_span)
    for v in range(items[q, 2], items[q, 3]):
        at = words[v, 2] * W
        w = load(P, words[v, 1] * W)
        store(E, at, load(E, at) - w if parity(rep & words[v, 0]) else load(E, at) + w)


@_inline
def _items(b, S, stride, blocks, items, places, n_span, n_cosets, phases, T):
    """One block on psi."""
    for r in range(blocks[b, 2], blocks[b, 2] + n_cosets):
        rep = places[r]
        for q in range(blocks[b, 0], blocks[b, 1]):
            kind = items[q, 0]
            if kind == TWO:
                _two(REAL, REAL, S, stride, q, items, places, rep, T)
            elif kind == TWO + 1:
                _two(IMAGINARY, REAL, S, stride, q, items, places, rep, T)
            elif kind == TWO + 2:
                _two(REAL, IMAGINARY, S, stride, q, items, places, rep, T)
            elif kind == TWO + 3:
                _two(IMAGINARY, IMAGINARY, S, stride, q, items, places, rep, T)
            elif kind == DIAGONAL:
                _diagonal(S, stride, blocks[b, 3], n_span, places, rep, phases, items[q, 1])
            elif kind == REAL:
                _pass(REAL, S, stride, q, items, places, rep, T)
            elif kind == IMAGINARY:
                _pass(IMAGINARY, S, stride, q, items, places, rep, T)
            else:
                _pass(PHASE, S, stride, q, items, places, rep, T)


@_inline
def _unitems(b, S, blocks, items, words, places, n_span, n_cosets, phases, T, P, E):
    """Undo one block on psi and lambda."""
    for r in range(blocks[b, 2], blocks[b, 2] + n_cosets):
        rep = places[r]
        for q in range(blocks[b, 1] - 1, blocks[b, 0] - 1, -1):
            kind = items[q, 0]
            if kind == TWO:
                _untwo(REAL, REAL, S, q, items, places, rep, T, E)
            elif kind == TWO + 1:
                _untwo(IMAGINARY, REAL, S, q, items, places, rep, T, E)
            elif kind == TWO + 2:
                _untwo(REAL, IMAGINARY, S, q, items, places, rep, T, E)
            elif kind == TWO + 3:
                _untwo(IMAGINARY, IMAGINARY, S, q, items, places, rep, T, E)
            elif kind == DIAGONAL:
                _undiagonal(S, q, items, words, blocks[b, 3], n_span, places, rep, phases, P, E)
            elif kind == REAL:
                _unpass(REAL, S, q, items, places, rep, T, E)
            elif kind == IMAGINARY:
                _unpass(IMAGINARY, S, q, items, places, rep, T, E)
            else:
                _unpass(PHASE, S, q, items, places, rep, T, E)


@_inline
def _hadamard(P, size):
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


@_jit
def _matrices(tables, T, M):
    """For every bit the product of its rotations [[a, b], [-b*, a*]]: M[bit, 4, W] is Re a, Im a, Re b, Im b."""
    arguments, _, _, start, _, _, _, _, _, _, _ = tables
    W = n_lanes(T)
    zero = splat(T.dtype.type(0))
    for q in range(len(start)):
        ar = splat(T.dtype.type(1))
        ai = br = bi = zero
        for e in range(start[q, 0], start[q, 1]):
            c, s = load(T, e * 2 * W), load(T, e * 2 * W + W)
            if arguments[e, 3] == 0:  # (c - i s X) (a, b)
                ar, ai, br, bi = c * ar + s * bi, c * ai + s * br, c * br - s * ai, c * bi - s * ar
            elif arguments[e, 3] == 1:  # (c - i s Y) (a, b)
                ar, ai, br, bi = c * ar + s * br, c * ai - s * bi, c * br - s * ar, c * bi + s * ai
            else:  # (c - i s Z) (a, b)
                ar, ai, br, bi = c * ar + s * ai, c * ai - s * ar, c * br + s * bi, c * bi - s * br
        at = q * 4 * W
        store(M, at, ar)
        store(M, at + W, ai)
        store(M, at + 2 * W, br)
        store(M, at + 3 * W, bi)


@_jit
def _product(S, stride, n_qubits, M):
    """The product state: for every bit the column (a, -b*) of its matrix, doubling the state."""
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    store(S, 0, splat(S.dtype.type(1)))
    store(S, W, zero)
    for q in range(n_qubits):
        at = q * 4 * W
        ar, ai, br, bi = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
        for i in range(1 << q):
            A, B = _place(i) * stride, _place(i + (1 << q)) * stride
            x, y = load(S, A), load(S, A + W)
            store(S, A, ar * x - ai * y)
            store(S, A + W, ar * y + ai * x)
            store(S, B, zero - br * x - bi * y)
            store(S, B + W, bi * x - br * y)


@_jit
def _unproduct(S, n_qubits, tables, T, M, E):
    """Undo the product state bit by bit, the last first: the gradients E of its rotations.

    Each bit gives ``g = Im <lambda| X, Y, Z |psi>``. A rotation's gradient is that of its axis; before it, as
    ``R_x(t)`` takes Y to cos t Y + sin t Z: (gy, gz) -> (cos t gy + sin t gz, cos t gz - sin t gy), cyclic.
    """
    arguments, _, _, start, _, _, _, _, _, _, _ = tables
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    for q in range(n_qubits - 1, -1, -1):
        at = q * 4 * W
        p0, q0 = load(M, at), load(M, at + W)  # the factor (a, -b*)
        p1, q1 = zero - load(M, at + 2 * W), load(M, at + 3 * W)
        r0 = s0 = r1 = s1 = zero  # <lambda_b | psi of the lower bits>
        for i in range(1 << q):
            A, B = _place(i) * 4 * W, _place(i + (1 << q)) * 4 * W
            x0, y0, u0, v0 = load(S, A), load(S, A + W), load(S, A + 2 * W), load(S, A + 3 * W)
            x1, y1, u1, v1 = load(S, B), load(S, B + W), load(S, B + 2 * W), load(S, B + 3 * W)
            x, y = p0 * x0 + q0 * y0 + p1 * x1 + q1 * y1, p0 * y0 - q0 * x0 + p1 * y1 - q1 * x1
            store(S, A, x)
            store(S, A + W, y)
            store(S, A + 2 * W, p0 * u0 + q0 * v0 + p1 * u1 + q1 * v1)
            store(S, A + 3 * W, p0 * v0 - q0 * u0 + p1 * v1 - q1 * u1)
            r0, s0 = r0 + (u0 * x + v0 * y), s0 + (u0 * y - v0 * x)
            r1, s1 = r1 + (u1 * x + v1 * y), s1 + (u1 * y - v1 * x)
        gx = r0 * q1 + s0 * p1 + r1 * q0 + s1 * p0
        gy = s0 * q1 - r0 * p1 + r1 * p0 - s1 * q0
        gz = r0 * q0 + s0 * p0 - r1 * q1 - s1 * p1
        for e in range(start[q, 1] - 1, start[q, 0] - 1, -1):
            ch, sh = load(T, e * 2 * W), load(T, e * 2 * W + W)
            c, s = ch * ch - sh * sh, ch * sh + ch * sh
            if arguments[e, 3] == 0:
                store(E, e * W, gx)
                gy, gz = c * gy + s * gz, c * gz - s * gy
            elif arguments[e, 3] == 1:
                store(E, e * W, gy)
                gz, gx = c * gz + s * gx, c * gx - s * gz
            else:
                store(E, e * W, gz)
                gx, gy = c * gx + s * gy, c * gy - s * gx


@_jit
def _load_amplitudes(S, stride, amplitudes, row, rows):
    """Rows (B, 2^N, 1 or 2) of real or complex amplitudes into lanes."""
    W = n_lanes(S)
    for i in range(amplitudes.shape[1]):
        at = _place(i) * stride
        for w in range(W):
            S[at + w] = amplitudes[row + w, i, 0] if w < rows else 0
            S[at + W + w] = amplitudes[row + w, i, 1] if w < rows and amplitudes.shape[2] == 2 else 0


# ---- measurements ----------------------------------------------------------------------------------------------------


@_inline
def _signed(number, mask):
    """The number with the sign of the mask's parity."""
    return -number if parity(mask) else number


@_jit
def _measure(S, stride, n_qubits, n_span, tables, flip, scale, P, Y):
    """Expectation values and probabilities of psi, Y[m, W]."""
    W = n_lanes(S)
    _, _, numbers, _, _, _, _, places, diagonal, others, probs = tables
    weight = len(numbers) - len(diagonal) - len(others)  # of the first measured word
    n_lo = n_qubits // 2
    zero = splat(S.dtype.type(0))
    square = splat(scale * scale)
    for m in range(len(Y) // W):
        store(Y, m * W, zero)
    for rep in range(0, 1 << n_qubits if len(diagonal) or len(probs) else 0, n_span):
        for k in range(n_span):
            x, y = load(S, (rep + k) * stride), load(S, (rep + k) * stride + W)
            store(P, k * W, square * (x * x + y * y))
        for q in range(len(probs)):
            out, lo, hi = probs[q]
            for k in range(n_span):
                i = (rep + k) ^ flip[0]
                at = (out + (places[hi + (i >> n_lo)] ^ places[lo + (i & (1 << n_lo) - 1)])) * W
                store(Y, at, load(Y, at) + load(P, k * W))
        if len(diagonal):
            _hadamard(P, n_span)
        for d in range(len(diagonal)):
            at, z = diagonal[d, 0] * W, diagonal[d, 1]
            g = splat(S.dtype.type(_signed(numbers[weight + d], (flip[0] ^ rep) & z)))
            store(Y, at, load(Y, at) + g * load(P, (z & (n_span - 1)) * W))
    for t in range(len(others)):
        out, x, z, imaginary, lo, n_some, hi, n_hi = others[t]
        g = splat(S.dtype.type(2 * _signed(_signed(numbers[weight + len(diagonal) + t], flip[0] & z), flip[1] & x)))
        total = zero
        for h in range(hi, hi + n_hi):
            base = places[h] & PLACE
            some = zero
            for k in range(lo, lo + n_some):
                i = base ^ places[k]
                A, B = i * stride, (i ^ x) * stride
                x0, y0, x1, y1 = load(S, A), load(S, A + W), load(S, B), load(S, B + W)
                if not imaginary:
                    some = some + (x0 * x1 + y0 * y1)
                else:
                    some = some + (x0 * y1 - y0 * x1)
            total = total - some if places[h] >= FLIP_1 else total + some
        at = out * W
        store(Y, at, load(Y, at) + g * square * total)


@_jit
def _unmeasure(S, psi, stride, n_qubits, n_span, tables, flip, scale, P, Y):
    """psi into S, and ``lambda = sum_m g_m O_m psi`` with the gradients g in Y[m, W]."""
    W = n_lanes(S)
    _, _, numbers, _, _, _, _, places, diagonal, others, probs = tables
    weight = len(numbers) - len(diagonal) - len(others)  # of the first measured word
    n_lo = n_qubits // 2
    zero = splat(S.dtype.type(0))
    factor = splat(scale)
    for rep in range(0, 1 << n_qubits, n_span):
        for k in range(n_span):
            store(P, k * W, zero)
        for d in range(len(diagonal)):
            z = diagonal[d, 1]
            at = (z & (n_span - 1)) * W
            g = splat(S.dtype.type(_signed(numbers[weight + d], (flip[0] ^ rep) & z)))
            store(P, at, load(P, at) + g * load(Y, diagonal[d, 0] * W))
        if len(diagonal):
            _hadamard(P, n_span)
        for q in range(len(probs)):
            out, lo, hi = probs[q]
            for k in range(n_span):
                i = (rep + k) ^ flip[0]
                at = (out + (places[hi + (i >> n_lo)] ^ places[lo + (i & (1 << n_lo) - 1)])) * W
                store(P, k * W, load(P, k * W) + load(Y, at))
        for k in range(n_span):
            A, B = (rep + k) * 4 * W, (rep + k) * stride
            x, y, w = factor * load(psi, B), factor * load(psi, B + W), load(P, k * W)
            store(S, A, x)
            store(S, A + W, y)
            store(S, A + 2 * W, w * x)
            store(S, A + 3 * W, w * y)
    for t in range(len(others)):
        out, x, z, imaginary, lo, n_some, hi, n_hi = others[t]
        g = splat(S.dtype.type(_signed(_signed(numbers[weight + len(diagonal) + t], flip[0] & z), flip[1] & x)))
        g = g * load(Y, out * W)
        for h in range(hi, hi + n_hi):
            base = places[h] & PLACE
            sg = zero - g if places[h] >= FLIP_1 else g
            for k in range(lo, lo + n_some):
                i = base ^ places[k]
                A, B = i * 4 * W, (i ^ x) * 4 * W
                x0, y0, x1, y1 = load(S, A), load(S, A + W), load(S, B), load(S, B + W)
                u0, v0, u1, v1 = (
                    load(S, A + 2 * W),
                    load(S, A + 3 * W),
                    load(S, B + 2 * W),
                    load(S, B + 3 * W),
                )
                if not imaginary:
                    u0, v0, u1, v1 = u0 + sg * x1, v0 + sg * y1, u1 + sg * x0, v1 + sg * y0
                else:
                    u0, v0, u1, v1 = u0 + sg * y1, v0 - sg * x1, u1 - sg * y0, v1 + sg * x0
                store(S, A + 2 * W, u0)
                store(S, A + 3 * W, v0)
                store(S, B + 2 * W, u1)
                store(S, B + 3 * W, v1)


# ---- chunks ----------------------------------------------------------------------------------------------------------


@_jit
def _evolve(S, stride, n_qubits, n_span, tables, phases, T, M, amplitudes, row, rows):
    """The final states of one chunk, from the start."""
    _, _, _, _, blocks, items, _, places, _, _, _ = tables
    if len(amplitudes):
        _load_amplitudes(S, stride, amplitudes, row, rows)
    else:
        _matrices(tables, T, M)
        _product(S, stride, n_qubits, M)
    for b in range(len(blocks)):
        _items(b, S, stride, blocks, items, places, n_span, (1 << n_qubits) // n_span, phases, T)


@_kernel
def forward(next_chunk, n_qubits, n_span, tables, common, batched, amplitudes, out, states, keep, work):
    """Chunks of a batch, until none is left: outputs (B, M), and the final states where they are kept.

    Args:
        next_chunk: (1,), the first chunk that no thread has taken.
        n_span: number of amplitudes in a coset of a block.
        tables: a `plan.Tables`.
        common: table, phases, scales and flip from `prepare`.
        batched: (B, Kb).
        amplitudes: (B, 2^N, 1 or 2), with no rows for a product start.
        states: flat, 2 * 2^N * W numbers for every chunk if `keep`, else only once.
        work: flat, `n_span + M + 4 N + 2 A` times W numbers.
    """
    table, phases, scales, flip = common
    W = n_lanes(states)
    size, n_out = (1 << n_qubits) * W, out.shape[1]
    P, Y, M, T, _ = _split(work, W, n_span, n_out, 4 * n_qubits, 2 * len(table))
    before = flush_denormals()
    while True:
        chunk = fetch_add(next_chunk)
        row = chunk * W
        rows = min(W, len(batched) - row)
        if rows <= 0:
            break
        S = states[chunk * 2 * size : (chunk + 1) * 2 * size] if keep else states
        _half_angles(tables, batched, row, rows, table, T)
        _evolve(S, 2 * W, n_qubits, n_span, tables, phases, T, M, amplitudes, row, rows)
        _measure(S, 2 * W, n_qubits, n_span, tables, flip, scales[0], P, Y)
        for w in range(rows):
            for m in range(n_out):
                out[row + w, m] = Y[m * W + w]
    restore_denormals(before)


@_kernel
def backward(
    next_chunk,
    n_qubits,
    n_span,
    tables,
    common,
    batched,
    amplitudes,
    grad,
    states,
    work,
    g_batched,
    g_shared,
    g_amps,
):
    """Chunks of the vector-Jacobian product, until none is left.

    Args:
        grad: (B, M).
        states: the final states that `forward` kept; if empty, they are computed again.
        work: flat, `n_span + M + 4 N + 3 A + 4 * 2^N` times W numbers.
        g_batched: (B, Kb), written.
        g_shared: (chunks, Ks), written: a sum over the samples of each chunk.
        g_amps: (B, 2^N, 1 or 2), written if it has rows.
    """
    _, _, _, start, blocks, items, words, places, _, _, _ = tables
    table, phases, scales, flip = common
    W = n_lanes(states)
    size, n_out, n_args = (1 << n_qubits) * W, grad.shape[1], len(table)
    P, Y, M, T, rest = _split(work, W, n_span, n_out, 4 * n_qubits, 2 * n_args)
    E, S = rest[: n_args * W], rest[n_args * W :]
    before = flush_denormals()
    while True:
        chunk = fetch_add(next_chunk)
        row = chunk * W
        rows = min(W, len(batched) - row)
        if rows <= 0:
            break
        _half_angles(tables, batched, row, rows, table, T)
        for i in range(len(E)):
            E[i] = 0
        for m in range(n_out):
            for w in range(W):
                Y[m * W + w] = grad[row + w, m] if w < rows else 0
        if len(states):
            psi = states[chunk * 2 * size : (chunk + 1) * 2 * size]
            _unmeasure(S, psi, 2 * W, n_qubits, n_span, tables, flip, scales[0], P, Y)
        else:
            _evolve(S, 4 * W, n_qubits, n_span, tables, phases, T, M, amplitudes, row, rows)
            _unmeasure(S, S, 4 * W, n_qubits, n_span, tables, flip, scales[0], P, Y)
        for b in range(len(blocks) - 1, -1, -1):
            _unitems(b, S, blocks, items, words, places, n_span, (1 << n_qubits) // n_span, phases, T, P, E)
        for i in range(g_amps.shape[1] if len(g_amps) else 0):
            for w in range(rows):
                for part in range(g_amps.shape[2]):
                    g_amps[row + w, i, part] = 2 * scales[1] * S[(_place(i) * 4 + 2 + part) * W + w]
        if len(start):
            _matrices(tables, T, M)
            _unproduct(S, n_qubits, tables, T, M, E)
        _angle_gradients(tables, table, batched.shape[1], row, rows, E, g_batched, g_shared, chunk)
    restore_denormals(before)


@_inline
def _split(work, W, a, b, c, d):
    """Parts of a buffer, of so many registers each, and the rest."""
    b, c, d = a + b, a + b + c, a + b + c + d
    return work[: a * W], work[a * W : b * W], work[b * W : c * W], work[c * W : d * W], work[d * W :]

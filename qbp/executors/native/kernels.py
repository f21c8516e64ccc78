"""The compiled kernels: forward and backward through one chunk of W samples after the other.

A state is a flat array ``S[i, part, lane]``: parts Re psi, Im psi and, going backward, Re lambda, Im lambda; ``stride`` is
2 W or 4 W. Every sample has one lane from start to end, and only sums over samples cross lanes, in a fixed order: equal
samples give equal bits, whatever the batch, the chunks and the threads.

A pass is one SU(2) matrix ``[[a, s b], [-s b*, a*]]`` on all pairs of amplitudes (i, i ^ x), with a sign s of each pair,
constant in the inner loop. Gradients follow from ``lambda = dL/d psi* = O psi`` and
``dL/dt = Im <lambda| P |psi>`` for ``exp(-i t P / 2)`` (arXiv 2009.02823): both states are taken back through the circuit
together.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from qbp.executors.native.lanes import hsum, load, n_lanes, splat, store

__all__ = ["backward", "forward", "trig"]

MATRIX, REAL, IMAGINARY, PHASE = range(4)
INDEX = (1 << 31) - 1  # the index in a word of a pair table; the bit above is the sign

_jit = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")


# ---- angles ----------------------------------------------------------------------------------------------------------


@_jit
def trig(turns, affine, n_batched, shared, table):
    """cos and sin of half of every angle that all samples share, (E, 2)."""
    for e in range(len(turns)):
        angle = turns[e, 1]
        if angle < n_batched:
            half = affine[e, 1] / 2
            if angle >= 0:
                continue
        else:
            half = (affine[e, 0] * shared[angle - n_batched] + affine[e, 1]) / 2
        table[e, 0] = math.cos(half)
        table[e, 1] = math.sin(half)


@_inline
def _half_angles(turns, affine, batched, row, rows, table, T):
    """cos and sin of half of every angle in every lane, T[e, 2, W]."""
    W = n_lanes(T)
    for e in range(len(turns)):
        angle = turns[e, 1]
        at = e * 2 * W
        if 0 <= angle < batched.shape[1]:
            for w in range(W):
                half = T.dtype.type(0)
                if w < rows:
                    half = T.dtype.type((affine[e, 0] * batched[row + w, angle] + affine[e, 1]) / 2)
                T[at + w] = math.cos(half)
                T[at + W + w] = math.sin(half)
        else:
            store(T, at, splat(table[e, 0]))
            store(T, at + W, splat(table[e, 1]))


@_inline
def _matrices(runs, turns, T, M):
    """The matrix (Re a, Im a, Re b, Im b) of every run, M[r, 4, W]: the product of its rotations."""
    W = n_lanes(T)
    zero = splat(T.dtype.type(0))
    for r in range(len(runs)):
        ar = splat(T.dtype.type(1))
        ai = br = bi = zero
        for e in range(runs[r, 2], runs[r, 3]):
            c = load(T, e * 2 * W)
            s = load(T, e * 2 * W + W)
            axis = turns[e, 0]
            if axis == 0:  # (c - i s X) (a, b)
                ar, ai, br, bi = c * ar + s * bi, c * ai + s * br, c * br - s * ai, c * bi - s * ar
            elif axis == 1:  # (c - i s Y) (a, b)
                ar, ai, br, bi = c * ar + s * br, c * ai - s * bi, c * br - s * ar, c * bi + s * ai
            else:  # (c - i s Z) (a, b)
                ar, ai, br, bi = c * ar + s * ai, c * ai - s * ar, c * br + s * bi, c * bi - s * br
        at = r * 4 * W
        store(M, at, ar)
        store(M, at + W, ai)
        store(M, at + 2 * W, br)
        store(M, at + 3 * W, bi)


# ---- passes ----------------------------------------------------------------------------------------------------------


@_inline
def _pass(S, stride, run, pairs, M, at):
    """One pass on psi."""
    W = n_lanes(S)
    kind, x = run[0], run[1]
    ar, ai, br, bi = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
    zero = splat(S.dtype.type(0))
    for h in range(run[6], run[6] + run[7]):
        base = pairs[h] & INDEX
        pr, pi = br, bi
        if pairs[h] > INDEX:
            pr, pi = zero - br, zero - bi
        for k in range(run[4], run[4] + run[5]):
            i = base ^ pairs[k]
            A, B = i * stride, (i ^ x) * stride
            x0, y0, x1, y1 = load(S, A), load(S, A + W), load(S, B), load(S, B + W)
            if kind == 0:
                store(S, A, ar * x0 - ai * y0 + pr * x1 - pi * y1)
                store(S, A + W, ar * y0 + ai * x0 + pr * y1 + pi * x1)
                store(S, B, ar * x1 + ai * y1 - pr * x0 - pi * y0)
                store(S, B + W, ar * y1 - ai * x1 - pr * y0 + pi * x0)
            elif kind == 1:
                store(S, A, ar * x0 + pr * x1)
                store(S, A + W, ar * y0 + pr * y1)
                store(S, B, ar * x1 - pr * x0)
                store(S, B + W, ar * y1 - pr * y0)
            elif kind == 2:
                store(S, A, ar * x0 - pi * y1)
                store(S, A + W, ar * y0 + pi * x1)
                store(S, B, ar * x1 - pi * y0)
                store(S, B + W, ar * y1 + pi * x0)
            else:
                store(S, A, ar * x0 - ai * y0)
                store(S, A + W, ar * y0 + ai * x0)
                store(S, B, ar * x1 + ai * y1)
                store(S, B + W, ar * y1 - ai * x1)


@_inline
def _unpass(S, run, pairs, M, at, G, g):
    """Undo one pass on psi and lambda; G[g, 3, W] = Im <lambda| X, Y, Z |psi>, both after the pass."""
    W = n_lanes(S)
    kind, x = run[0], run[1]
    zero = splat(S.dtype.type(0))
    ar, ai, br, bi = load(M, at), zero - load(M, at + W), zero - load(M, at + 2 * W), zero - load(M, at + 3 * W)
    gx = gy = gz = zero
    for h in range(run[6], run[6] + run[7]):
        base = pairs[h] & INDEX
        pr, pi = br, bi
        if pairs[h] > INDEX:
            pr, pi = zero - br, zero - bi
        sx = sy = zero
        for k in range(run[4], run[4] + run[5]):
            i = base ^ pairs[k]
            A, B = i * 4 * W, (i ^ x) * 4 * W
            x0, y0, u0, v0 = load(S, A), load(S, A + W), load(S, A + 2 * W), load(S, A + 3 * W)
            x1, y1, u1, v1 = load(S, B), load(S, B + W), load(S, B + 2 * W), load(S, B + 3 * W)
            if kind == 0 or kind == 2:
                sx = sx + (u0 * y1 - v0 * x1 + u1 * y0 - v1 * x0)
            if kind == 0 or kind == 1:
                sy = sy + (u1 * x0 + v1 * y0 - u0 * x1 - v0 * y1)
            if kind == 0 or kind == 3:
                gz = gz + (u0 * y0 - v0 * x0 - u1 * y1 + v1 * x1)
            if kind == 0:
                store(S, A, ar * x0 - ai * y0 + pr * x1 - pi * y1)
                store(S, A + W, ar * y0 + ai * x0 + pr * y1 + pi * x1)
                store(S, B, ar * x1 + ai * y1 - pr * x0 - pi * y0)
                store(S, B + W, ar * y1 - ai * x1 - pr * y0 + pi * x0)
                store(S, A + 2 * W, ar * u0 - ai * v0 + pr * u1 - pi * v1)
                store(S, A + 3 * W, ar * v0 + ai * u0 + pr * v1 + pi * u1)
                store(S, B + 2 * W, ar * u1 + ai * v1 - pr * u0 - pi * v0)
                store(S, B + 3 * W, ar * v1 - ai * u1 - pr * v0 + pi * u0)
            elif kind == 1:
                store(S, A, ar * x0 + pr * x1)
                store(S, A + W, ar * y0 + pr * y1)
                store(S, B, ar * x1 - pr * x0)
                store(S, B + W, ar * y1 - pr * y0)
                store(S, A + 2 * W, ar * u0 + pr * u1)
                store(S, A + 3 * W, ar * v0 + pr * v1)
                store(S, B + 2 * W, ar * u1 - pr * u0)
                store(S, B + 3 * W, ar * v1 - pr * v0)
            elif kind == 2:
                store(S, A, ar * x0 - pi * y1)
                store(S, A + W, ar * y0 + pi * x1)
                store(S, B, ar * x1 - pi * y0)
                store(S, B + W, ar * y1 + pi * x0)
                store(S, A + 2 * W, ar * u0 - pi * v1)
                store(S, A + 3 * W, ar * v0 + pi * u1)
                store(S, B + 2 * W, ar * u1 - pi * v0)
                store(S, B + 3 * W, ar * v1 + pi * u0)
            else:
                store(S, A, ar * x0 - ai * y0)
                store(S, A + W, ar * y0 + ai * x0)
                store(S, B, ar * x1 + ai * y1)
                store(S, B + W, ar * y1 - ai * x1)
                store(S, A + 2 * W, ar * u0 - ai * v0)
                store(S, A + 3 * W, ar * v0 + ai * u0)
                store(S, B + 2 * W, ar * u1 + ai * v1)
                store(S, B + 3 * W, ar * v1 - ai * u1)
        if pairs[h] > INDEX:
            gx, gy = gx - sx, gy - sy
        else:
            gx, gy = gx + sx, gy + sy
    store(G, g, gx)
    store(G, g + W, gy)
    store(G, g + 2 * W, gz)


@_inline
def _turn_gradients(runs, turns, T, G, E):
    """From the three numbers of every run to one of every rotation, E[e, W].

    ``dL/dt`` is the number of its axis; before the rotation, ``R_x(t): (gy, gz) -> (c gy + s gz, c gz - s gy)``, cyclic.
    """
    W = n_lanes(T)
    for r in range(len(runs)):
        gx, gy, gz = load(G, r * 3 * W), load(G, r * 3 * W + W), load(G, r * 3 * W + 2 * W)
        for e in range(runs[r, 3] - 1, runs[r, 2] - 1, -1):
            ch, sh = load(T, e * 2 * W), load(T, e * 2 * W + W)
            c, s = ch * ch - sh * sh, ch * sh + ch * sh
            axis = turns[e, 0]
            if axis == 0:
                store(E, e * W, gx)
                gy, gz = c * gy + s * gz, c * gz - s * gy
            elif axis == 1:
                store(E, e * W, gy)
                gz, gx = c * gz + s * gx, c * gx - s * gz
            else:
                store(E, e * W, gz)
                gx, gy = c * gx + s * gy, c * gy - s * gx


# ---- the start -------------------------------------------------------------------------------------------------------


@_inline
def _product(S, stride, n_qubits, M):
    """The product state: for every bit the column (a, -b*) of its run's matrix, doubling the state."""
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    store(S, 0, splat(S.dtype.type(1)))
    store(S, W, zero)
    for q in range(n_qubits):
        at = q * 4 * W
        ar, ai, br, bi = load(M, at), load(M, at + W), load(M, at + 2 * W), load(M, at + 3 * W)
        for i in range(1 << q):
            A, B = i * stride, (i + (1 << q)) * stride
            x, y = load(S, A), load(S, A + W)
            store(S, A, ar * x - ai * y)
            store(S, A + W, ar * y + ai * x)
            store(S, B, zero - br * x - bi * y)
            store(S, B + W, bi * x - br * y)


@_inline
def _product_gradients(S, n_qubits, M, G):
    """Undo the product state bit by bit, the last first, and take the three numbers of every bit's run on the way."""
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    for q in range(n_qubits - 1, -1, -1):
        at = q * 4 * W
        # The factor v = (a, -b*).
        p0, q0 = load(M, at), load(M, at + W)
        p1, q1 = zero - load(M, at + 2 * W), load(M, at + 3 * W)
        r0 = s0 = r1 = s1 = zero  # <lambda_b | psi of the lower bits>
        for i in range(1 << q):
            A, B = i * 4 * W, (i + (1 << q)) * 4 * W
            x0, y0, u0, v0 = load(S, A), load(S, A + W), load(S, A + 2 * W), load(S, A + 3 * W)
            x1, y1, u1, v1 = load(S, B), load(S, B + W), load(S, B + 2 * W), load(S, B + 3 * W)
            # psi = v^dagger psi, lambda = v^dagger lambda
            x, y = p0 * x0 + q0 * y0 + p1 * x1 + q1 * y1, p0 * y0 - q0 * x0 + p1 * y1 - q1 * x1
            store(S, A, x)
            store(S, A + W, y)
            store(S, A + 2 * W, p0 * u0 + q0 * v0 + p1 * u1 + q1 * v1)
            store(S, A + 3 * W, p0 * v0 - q0 * u0 + p1 * v1 - q1 * u1)
            r0, s0 = r0 + (u0 * x + v0 * y), s0 + (u0 * y - v0 * x)
            r1, s1 = r1 + (u1 * x + v1 * y), s1 + (u1 * y - v1 * x)
        # Im of <l0|p1> + <l1|p0>, -i <l0|p1> + i <l1|p0>, <l0|p0> - <l1|p1>, with the factor's other entry
        at = q * 3 * W
        store(G, at, r0 * q1 + s0 * p1 + r1 * q0 + s1 * p0)
        store(G, at + W, s0 * q1 - r0 * p1 + r1 * p0 - s1 * q0)
        store(G, at + 2 * W, r0 * q0 + s0 * p0 - r1 * q1 - s1 * p1)


@_inline
def _load_amplitudes(S, stride, amplitudes, row, rows):
    """Rows (B, 2^N, 1 or 2) of real or complex amplitudes into lanes."""
    W = n_lanes(S)
    for i in range(amplitudes.shape[1]):
        for w in range(W):
            at = i * stride + w
            S[at] = amplitudes[row + w, i, 0] if w < rows else 0
            S[at + W] = amplitudes[row + w, i, 1] if w < rows and amplitudes.shape[2] == 2 else 0


# ---- measurements ----------------------------------------------------------------------------------------------------


@_inline
def _hadamard(P, n_qubits):
    """Fast Walsh-Hadamard transform of P[i, W] over i: ``P[z] = sum_i (-1)^parity(i & z) P[i]``."""
    W = n_lanes(P)
    for q in range(n_qubits):
        step = 1 << q
        for p in range(1 << n_qubits >> 1):
            i = ((p >> q) << (q + 1)) | (p & (step - 1))
            A, B = i * W, (i + step) * W
            a, b = load(P, A), load(P, B)
            store(P, A, a + b)
            store(P, B, a - b)


@_inline
def _measure(S, stride, n_qubits, tables, P, Y):
    """Expectation values and probabilities of psi, Y[m, W]."""
    W = n_lanes(S)
    _, _, _, pairs, diagonal, others, weights, probs = tables
    zero = splat(S.dtype.type(0))
    for m in range(len(Y) // W):
        store(Y, m * W, zero)
    if len(diagonal) or len(probs):
        for i in range(1 << n_qubits):
            x, y = load(S, i * stride), load(S, i * stride + W)
            store(P, i * W, x * x + y * y)
    for q in range(len(probs)):
        out, lo, n_lo, hi, n_hi = probs[q]
        for h in range(n_hi):
            for k in range(n_lo):
                at = (out + (pairs[hi + h] ^ pairs[lo + k])) * W
                store(Y, at, load(Y, at) + load(P, (h * n_lo + k) * W))
    if len(diagonal):
        _hadamard(P, n_qubits)
    for d in range(len(diagonal)):
        at = diagonal[d, 0] * W
        store(Y, at, load(Y, at) + splat(S.dtype.type(weights[d])) * load(P, diagonal[d, 1] * W))
    for t in range(len(others)):
        out, x, axis, lo, n_lo, hi, n_hi = others[t]
        total = zero
        for h in range(hi, hi + n_hi):
            base = pairs[h] & INDEX
            some = zero
            for k in range(lo, lo + n_lo):
                i = base ^ pairs[k]
                A, B = i * stride, (i ^ x) * stride
                x0, y0, x1, y1 = load(S, A), load(S, A + W), load(S, B), load(S, B + W)
                if axis == 0:
                    some = some + (x0 * x1 + y0 * y1)
                else:
                    some = some + (x0 * y1 - y0 * x1)
            total = total - some if pairs[h] > INDEX else total + some
        at = out * W
        store(Y, at, load(Y, at) + splat(S.dtype.type(2 * weights[len(diagonal) + t])) * total)


@_inline
def _unmeasure(S, psi, n_qubits, tables, P, Y):
    """psi into S, and ``lambda = sum_m g_m O_m psi`` with the gradients g in Y[m, W]."""
    W = n_lanes(S)
    _, _, _, pairs, diagonal, others, weights, probs = tables
    zero = splat(S.dtype.type(0))
    for i in range(1 << n_qubits):
        store(P, i * W, zero)
    for d in range(len(diagonal)):
        at = diagonal[d, 1] * W
        store(P, at, load(P, at) + splat(S.dtype.type(weights[d])) * load(Y, diagonal[d, 0] * W))
    if len(diagonal):
        _hadamard(P, n_qubits)
    for q in range(len(probs)):
        out, lo, n_lo, hi, n_hi = probs[q]
        for h in range(n_hi):
            for k in range(n_lo):
                at = (h * n_lo + k) * W
                store(P, at, load(P, at) + load(Y, (out + (pairs[hi + h] ^ pairs[lo + k])) * W))
    for i in range(1 << n_qubits):
        x, y, weight = load(psi, i * 2 * W), load(psi, i * 2 * W + W), load(P, i * W)
        store(S, i * 4 * W, x)
        store(S, i * 4 * W + W, y)
        store(S, i * 4 * W + 2 * W, weight * x)
        store(S, i * 4 * W + 3 * W, weight * y)
    for t in range(len(others)):
        out, x, axis, lo, n_lo, hi, n_hi = others[t]
        g = splat(S.dtype.type(weights[len(diagonal) + t])) * load(Y, out * W)
        for h in range(hi, hi + n_hi):
            base = pairs[h] & INDEX
            sg = zero - g if pairs[h] > INDEX else g
            for k in range(lo, lo + n_lo):
                i = base ^ pairs[k]
                A, B = i * 4 * W, (i ^ x) * 4 * W
                x0, y0, x1, y1 = load(S, A), load(S, A + W), load(S, B), load(S, B + W)
                u0, v0, u1, v1 = load(S, A + 2 * W), load(S, A + 3 * W), load(S, B + 2 * W), load(S, B + 3 * W)
                if axis == 0:
                    u0, v0, u1, v1 = u0 + sg * x1, v0 + sg * y1, u1 + sg * x0, v1 + sg * y0
                else:
                    u0, v0, u1, v1 = u0 + sg * y1, v0 - sg * x1, u1 - sg * y0, v1 + sg * x0
                store(S, A + 2 * W, u0)
                store(S, A + 3 * W, v0)
                store(S, B + 2 * W, u1)
                store(S, B + 3 * W, v1)


# ---- chunks ----------------------------------------------------------------------------------------------------------


@_jit
def forward(first, last, n_qubits, n_start, tables, table, batched, amplitudes, out, states, keep, work):
    """Chunks `first` to `last` of a batch: outputs (B, M), and the final states where they are kept.

    Args:
        tables: a `frame.Tables`.
        table: (E, 2), from `trig`.
        batched: (B, Kb).
        amplitudes: (B, 2^N, 1 or 2), with no rows for a product start.
        states: flat, 2 * 2^N * W numbers for every chunk if `keep`, else only once.
        work: flat, `work_size` numbers.
    """
    runs, turns, affine, pairs = tables[0], tables[1], tables[2], tables[3]
    W = n_lanes(states)
    size = (1 << n_qubits) * W
    n_runs, n_turns, n_out = len(runs), len(turns), out.shape[1]
    P = work[:size]
    Y = work[size : size + n_out * W]
    T = work[size + n_out * W : size + (n_out + 2 * n_turns) * W]
    M = work[size + (n_out + 2 * n_turns) * W :]
    for chunk in range(first, last):
        row = chunk * W
        rows = min(W, len(batched) - row)
        S = states[chunk * 2 * size : (chunk + 1) * 2 * size] if keep else states
        _half_angles(turns, affine, batched, row, rows, table, T)
        _matrices(runs, turns, T, M)
        if len(amplitudes):
            _load_amplitudes(S, 2 * W, amplitudes, row, rows)
        else:
            _product(S, 2 * W, n_qubits, M)
        for r in range(n_start, n_runs):
            _pass(S, 2 * W, runs[r], pairs, M, r * 4 * W)
        _measure(S, 2 * W, n_qubits, tables, P, Y)
        for m in range(n_out):
            for w in range(rows):
                out[row + w, m] = Y[m * W + w]


@_jit
def backward(first, last, n_qubits, n_start, tables, table, batched, grad, states, work, g_batched, g_shared, g_amps):
    """Chunks `first` to `last` of the vector-Jacobian product.

    Args:
        grad: (B, M).
        states: the final states that `forward` kept.
        g_batched: (B, Kb), written.
        g_shared: (chunks, Ks), written: a sum over the samples of each chunk.
        g_amps: (B, 2^N, 1 or 2), written if it has rows.
    """
    runs, turns, affine, pairs = tables[0], tables[1], tables[2], tables[3]
    W = n_lanes(states)
    size = (1 << n_qubits) * W
    n_runs, n_turns, n_out, n_batched = len(runs), len(turns), grad.shape[1], batched.shape[1]
    S = work[: 4 * size]
    P = work[4 * size : 5 * size]
    at = 5 * size
    Y = work[at : at + n_out * W]
    at += n_out * W
    T = work[at : at + 2 * n_turns * W]
    at += 2 * n_turns * W
    E = work[at : at + n_turns * W]
    at += n_turns * W
    M = work[at : at + 4 * n_runs * W]
    at += 4 * n_runs * W
    G = work[at : at + 3 * n_runs * W]
    at += 3 * n_runs * W
    for chunk in range(first, last):
        row = chunk * W
        rows = min(W, len(batched) - row)
        _half_angles(turns, affine, batched, row, rows, table, T)
        _matrices(runs, turns, T, M)
        for m in range(n_out):
            for w in range(W):
                Y[m * W + w] = grad[row + w, m] if w < rows else 0
        _unmeasure(S, states[chunk * 2 * size : (chunk + 1) * 2 * size], n_qubits, tables, P, Y)
        for r in range(n_runs - 1, n_start - 1, -1):
            _unpass(S, runs[r], pairs, M, r * 4 * W, G, r * 3 * W)
        for i in range(g_amps.shape[1] if len(g_amps) else 0):
            for w in range(rows):
                for part in range(g_amps.shape[2]):
                    g_amps[row + w, i, part] = 2 * S[(i * 4 + 2 + part) * W + w]
        if n_start:
            _product_gradients(S, n_qubits, M, G)
        _turn_gradients(runs, turns, T, G, E)
        g_batched[row : row + rows] = 0
        g_shared[chunk] = 0
        for e in range(n_turns):
            angle, scale = turns[e, 1], S.dtype.type(affine[e, 0])
            if angle >= n_batched:
                g_shared[chunk, angle - n_batched] += scale * hsum(load(E, e * W))
            elif angle >= 0:
                for w in range(rows):
                    g_batched[row + w, angle] += scale * E[e * W + w]

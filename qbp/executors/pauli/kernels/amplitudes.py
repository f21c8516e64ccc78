# mypy: disable-error-code="no-untyped-def"
"""Circuits that start from amplitudes: the words of a state, and gradients of its amplitudes."""

from __future__ import annotations

from qbp.executors.native.kernels.jit import inline, jit
from qbp.executors.native.kernels.simd import load, n_lanes, splat, store

__all__ = ["amplitude_gradients", "load_amplitudes", "words_of_amplitudes"]


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
def load_amplitudes(amplitudes, row, rows, P):
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
def words_of_amplitudes(V, spread, P):
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
def amplitude_gradients(U, spread, P, row, rows, g_amps):
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

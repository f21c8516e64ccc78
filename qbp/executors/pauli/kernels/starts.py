# mypy: disable-error-code="no-untyped-def"
"""Where circuits start: product states, and how work is shared out in a buffer."""

from __future__ import annotations

from qbp.executors.native.kernels.jit import inline, jit
from qbp.executors.native.kernels.simd import load, n_lanes, splat, store
from qbp.executors.pauli.kernels.conventions import ANGLE, AXIS, FIXED, IS_FIXED, Parts
from qbp.executors.pauli.kernels.one_wire import add_gradient, turn_of_lanes, turns

__all__ = [
    "begin_gradients",
    "clear",
    "gradients_of_samples",
    "parts_of",
    "product",
    "start_gradients",
    "start_vectors",
    "unproduct",
]


@inline
def start_vectors(tables, batched, row, rows, shared, fresh, parts):
    """<X>, <Y> and <Z> of each wire before the first pass, R[wire, 3, W], and after each step, M[step, ...]."""
    starts, steps, fixed, CS, M = tables.starts, tables.steps, tables.fixed, parts.CS, parts.M
    W = n_lanes(M)
    if fresh and len(starts):
        turns(tables, 0, starts[len(starts) - 1, 1], batched.shape[1], shared, CS)
    for wire in range(len(starts)):
        x, y, z = splat(M.dtype.type(0)), splat(M.dtype.type(0)), splat(M.dtype.type(1))  # of |0>
        for s in range(starts[wire, 0], starts[wire, 1]):
            if steps[s, AXIS] == IS_FIXED:
                n = steps[s, FIXED]
                x, y, z = _mapped(fixed, n, 0, x, y, z), _mapped(fixed, n, 4, x, y, z), _mapped(fixed, n, 8, x, y, z)
            else:
                if 0 <= steps[s, ANGLE] < batched.shape[1]:
                    cos, sin = turn_of_lanes(tables, s, batched, row, rows, CS)
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


@inline
def start_gradients(tables, parts, n_batched, g_shared, chunk):
    """From ``dL/dR``, in R, to the gradients of the angles of the start."""
    starts, steps, fixed, CS, M = tables.starts, tables.steps, tables.fixed, parts.CS, parts.M
    W = n_lanes(M)
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
            add_gradient(steps[s, ANGLE], tables.scales[s, 0], total, n_batched, parts.G, g_shared, chunk)


@inline
def begin_gradients(parts, n_batched, g_shared, chunk):
    """None so far."""
    clear(parts.G, n_batched)
    for k in range(g_shared.shape[1]):
        g_shared[chunk, k] = 0


@inline
def gradients_of_samples(parts, row, rows, g_batched):
    """From lanes to rows (B, Kb)."""
    W = n_lanes(parts.G)
    for w in range(rows):
        for k in range(g_batched.shape[1]):
            g_batched[row + w, k] = parts.G[k * W + w]


@inline
def product(V, letters, R):
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


@inline
def unproduct(V, U, size, letters, R):
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


@inline
def clear(S, n):
    """n registers of zeros."""
    W = n_lanes(S)
    zero = splat(S.dtype.type(0))
    for i in range(n):
        store(S, i * W, zero)


@jit
def parts_of(work, size, n_steps, n_runs, n_wires, n_batched, n_scratch):
    """The memory at work as `Parts`."""
    W = n_lanes(work)
    u = size * W
    cs = u + size * W
    m = cs + 2 * n_steps * W
    j = m + 12 * n_steps * W
    e = j + 9 * n_runs * W
    r = e + 12 * (n_runs + 1) * W
    g = r + 3 * n_wires * W
    p = g + n_batched * W
    end = p + n_scratch * W
    return Parts(
        *(work[:u], work[u:cs], work[cs:m], work[m:j], work[j:e], work[e:r], work[r:g], work[g:p], work[p:end])
    )

# mypy: disable-error-code="no-untyped-def"
"""Values of graphs of words: of one set of angles, and of a batch with samples in lanes; forward and backward.

A graph is linear in its inputs: `gather` goes from values of inputs to those of all nodes, `scatter` the other way,
from what a result has of each node to what it has of the inputs. Each is the other's gradient.
"""

from __future__ import annotations

import numpy as np

from qbp.executors.native.kernels.atomics import fetch_add, flush_denormals, restore_denormals
from qbp.executors.native.kernels.jit import jit, kernel
from qbp.executors.native.kernels.passes import cos_sin
from qbp.executors.native.kernels.simd import hsum, load, n_lanes, splat, store
from qbp.executors.propagation.kernels.conventions import ONE, ZERO

__all__ = ["backward", "finish", "forward", "gather", "gradients", "scatter"]


@kernel
def finish(graph, inputs, n_inputs):
    """A graph in the order in which it is computed, without nodes that are zero or a multiple of another one.

    Args:
        graph: of a `Carried`.
        inputs: (n_nodes,) which input of the new graph a node is; ZERO where it is none but 0; -1 for all others.
        n_inputs: how many there are, ZERO included; the nodes of the new graph are numbered after them.

    Returns:
        Its five arrays, and for each node of the old one which of the new one it is, `at`, times what, `factor`.
    """
    n = len(graph.first)
    at, factor = np.zeros(n, np.int64), np.zeros(n)
    first, second, angle = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    of_cos, of_sin, m = np.zeros(n), np.zeros(n), 0
    for i in range(n - 1, 1, -1):
        if inputs[i] >= 0:
            at[i], factor[i] = inputs[i], 1.0
            continue
        a, b, k = at[graph.first[i]], at[graph.second[i]], graph.angle[i]
        x, y = graph.of_cos[i] * factor[graph.first[i]], graph.of_sin[i] * factor[graph.second[i]]
        if x == 0:
            a = ZERO
        if y == 0:
            b = ZERO
        if a == ZERO and b == ZERO:
            continue
        if k == 0 and (a == ZERO or b in (ZERO, a)):
            at[i], factor[i] = max(a, b), (x if a != ZERO else 0.0) + (y if b != ZERO else 0.0)
            continue
        first[m], second[m], of_cos[m], of_sin[m], angle[m] = a, b, x, y, k
        at[i], factor[i] = n_inputs + m, 1.0
        m += 1
    return first[:m].copy(), second[:m].copy(), of_cos[:m].copy(), of_sin[:m].copy(), angle[:m].copy(), at, factor


# ---- one set of angles -----------------------------------------------------------------------------------------------


@kernel
def gather(graph, cos, sin, values):
    """Values of all nodes from those of inputs, the first of `values`."""
    n_inputs = len(values) - len(graph.first)
    for i in range(len(graph.first)):
        k = graph.angle[i]
        values[n_inputs + i] = (
            graph.of_cos[i] * cos[k] * values[graph.first[i]] + graph.of_sin[i] * sin[k] * values[graph.second[i]]
        )


@kernel
def scatter(graph, cos, sin, shares):
    """What a result has of all nodes and inputs, from what it has of some nodes itself."""
    n_inputs = len(shares) - len(graph.first)
    for i in range(len(graph.first) - 1, -1, -1):
        k, share = graph.angle[i], shares[n_inputs + i]
        shares[graph.first[i]] += graph.of_cos[i] * cos[k] * share
        shares[graph.second[i]] += graph.of_sin[i] * sin[k] * share


@kernel
def gradients(graph, cos, sin, values, shares, result):
    """Add to `result` the derivatives by all angles of ``sum(shares * values)`` over inputs."""
    n_inputs = len(values) - len(graph.first)
    for i in range(len(graph.first)):
        k, share = graph.angle[i], shares[n_inputs + i]
        result[k] += share * (
            graph.of_sin[i] * cos[k] * values[graph.second[i]] - graph.of_cos[i] * sin[k] * values[graph.first[i]]
        )


# ---- a batch ---------------------------------------------------------------------------------------------------------


@jit
def _turns(angles, scales, batched, row, rows, shared, fresh, CS):
    """cos and sin of all rows of angles, CS[k, 2, W]; those that samples share only at first."""
    W, n_batched = n_lanes(CS), batched.shape[1]
    if fresh:
        store(CS, 0, splat(CS.dtype.type(1)))
        store(CS, W, splat(CS.dtype.type(1)))
    for k in range(1, len(angles)):
        at, angle = 2 * W * k, angles[k]
        if angle < n_batched:
            for w in range(W):
                c, s = cos_sin(scales[k, 0] * batched[row + min(w, rows - 1), angle] + scales[k, 1])
                CS[at + w], CS[at + W + w] = c, s
        elif fresh:
            c, s = cos_sin(scales[k, 0] * shared[angle - n_batched] + scales[k, 1])
            store(CS, at, splat(CS.dtype.type(c)))
            store(CS, at + W, splat(CS.dtype.type(s)))


@jit
def _values(graph, CS, V, of):
    """All nodes of a register of samples, V[node, W] from V[of] on."""
    W = n_lanes(V)
    store(V, of + W * ZERO, splat(V.dtype.type(0)))
    store(V, of + W * ONE, splat(V.dtype.type(1)))
    for i in range(len(graph.first)):
        k = 2 * W * graph.angle[i]
        x = splat(graph.of_cos[i]) * load(CS, k) * load(V, of + W * graph.first[i])
        y = splat(graph.of_sin[i]) * load(CS, k + W) * load(V, of + W * graph.second[i])
        store(V, of + W * (2 + i), x + y)


@kernel
def forward(next_chunk, graph, linear, coefficients, angles, scales, batched, shared, out, states, keep, work):
    """Outputs of samples.

    Args:
        next_chunk: (1,) counter that threads share.
        graph: `Graph` of the numbers' dtype.
        linear: `Linear`.
        coefficients: (E,) those of its entries.
        angles, scales: (K,) which angle, (K, 2) its scale and offset.
        batched, shared: (B, Kb) and (Ks,).
        out: (B, M).
        states: values of all chunks where `keep` says so, else unused.
        work: this thread's memory.
    """
    before = flush_denormals()
    W, n_samples, n_values = n_lanes(work), len(batched), 2 + len(graph.first)
    CS = work[: 2 * W * len(angles)]
    R = work[len(CS) : len(CS) + W * (len(linear.begin) - 1)]
    V, of = work[len(CS) + len(R) :], 0
    fresh = True
    if keep:
        V = states
    while True:
        chunk = fetch_add(next_chunk)
        row = chunk * W
        if row >= n_samples:
            break
        rows = min(W, n_samples - row)
        _turns(angles, scales, batched, row, rows, shared, fresh, CS)
        fresh = False
        of = chunk * n_values * W if keep else 0
        _values(graph, CS, V, of)
        for r in range(len(linear.begin) - 1):
            total = splat(V.dtype.type(0))
            for e in range(linear.begin[r], linear.begin[r + 1]):
                total = total + splat(coefficients[e]) * load(V, of + W * linear.at[e])
            store(R, W * r, total)
        for w in range(rows):
            out[row + w] = 0
        for k in range(len(linear.outputs)):
            r, m = W * linear.sources[k], linear.outputs[k]
            for w in range(rows):
                out[row + w, m] += out.dtype.type(linear.weights[k]) * R[r + w]
    restore_denormals(before)


@kernel
def backward(
    next_task,
    graph,
    linear,
    coefficients,
    angles,
    scales,
    batched,
    shared,
    grad,
    states,
    keep,
    per_task,
    work,
    g_batched,
    g_shared,
    g_coefficients,
):
    """Gradients of ``sum(grad * outputs)`` by tasks of `per_task` chunks: (B, Kb), (tasks, Ks) and (tasks, E)."""
    before = flush_denormals()
    W, n_samples, n_values, n_batched = n_lanes(work), len(batched), 2 + len(graph.first), batched.shape[1]
    zero = splat(work.dtype.type(0))
    CS = work[: 2 * W * len(angles)]
    GT = work[len(CS) : len(CS) + W * len(angles)]
    R = work[len(CS) + len(GT) : len(CS) + len(GT) + W * (len(linear.begin) - 1)]
    used = len(CS) + len(GT) + len(R)
    G = work[used : used + W * n_values]
    V, fresh = work[used + W * n_values :], True
    if keep:
        V = states
    while True:
        task = fetch_add(next_task)
        if task * per_task * W >= n_samples:
            break
        g_shared[task] = 0
        g_coefficients[task] = 0
        for chunk in range(task * per_task, min((task + 1) * per_task, (n_samples + W - 1) // W)):
            row = chunk * W
            rows = min(W, n_samples - row)
            _turns(angles, scales, batched, row, rows, shared, fresh, CS)
            fresh = False
            of = chunk * n_values * W if keep else 0
            if not keep:
                _values(graph, CS, V, of)
            for i in range(n_values):
                store(G, W * i, zero)
            for k in range(len(angles)):
                store(GT, W * k, zero)
            for r in range(len(linear.begin) - 1):
                store(R, W * r, zero)
            for k in range(len(linear.outputs)):
                r, m = W * linear.sources[k], linear.outputs[k]
                for w in range(rows):
                    R[r + w] += grad.dtype.type(linear.weights[k]) * grad[row + w, m]
            for r in range(len(linear.begin) - 1):
                g = load(R, W * r)
                for e in range(linear.begin[r], linear.begin[r + 1]):
                    at = W * linear.at[e]
                    store(G, at, load(G, at) + splat(coefficients[e]) * g)
                    g_coefficients[task, e] += hsum(load(V, of + at) * g)
            for i in range(len(graph.first) - 1, -1, -1):
                k, a, b, g = W * graph.angle[i], W * graph.first[i], W * graph.second[i], load(G, W * (2 + i))
                c, s = load(CS, 2 * k), load(CS, 2 * k + W)
                x, y = splat(graph.of_cos[i]) * g, splat(graph.of_sin[i]) * g
                store(G, a, load(G, a) + c * x)
                store(G, b, load(G, b) + s * y)
                store(GT, k, load(GT, k) + (c * y * load(V, of + b) - s * x * load(V, of + a)))
            for w in range(rows):
                g_batched[row + w] = 0
            for k in range(1, len(angles)):
                angle, scale = angles[k], scales[k, 0]
                if angle < n_batched:
                    for w in range(rows):
                        g_batched[row + w, angle] += work.dtype.type(scale) * GT[W * k + w]
                else:
                    g_shared[task, angle - n_batched] += scale * hsum(load(GT, W * k))
    restore_denormals(before)

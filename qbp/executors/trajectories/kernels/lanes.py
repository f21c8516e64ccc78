# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels for trajectories: those of `qbp.executors.native.kernels.batch` with lanes that differ in the
signs of their angles, and between their blocks events ``c + (d - i s) P`` that few lanes have.

A plan's EVENT items are blocks of their own, passed over where no lane of a chunk has that event.
"""

from __future__ import annotations

import math

import numpy as np

from qbp.executors.native.kernels.atomics import fetch_add, flush_denormals, restore_denormals
from qbp.executors.native.kernels.batch import (
    common_of,
    half_angles,
    load_amplitudes,
    measure,
    split,
    unmeasure,
)
from qbp.executors.native.kernels.conventions import (
    ARGUMENT_1,
    AXIS,
    COS,
    CROSSED,
    DIAGONAL,
    DIFFERS,
    EVENT,
    FACTOR,
    FIRST,
    FIRST_TERM,
    FIRST_WORD,
    FLIP_1,
    HI,
    IN_SWEEP,
    KIND,
    LAST,
    LAST_TERM,
    LAST_WORD,
    LO,
    N_HI,
    N_LO,
    PHASE,
    PLACE,
    SECOND,
    SIGN,
    SIN,
    SWEEP,
    TWO,
    WORD_ARGUMENT,
    X_1,
    unpacked,
)
from qbp.executors.native.kernels.fixed_point import as_turns, turns_in
from qbp.executors.native.kernels.jit import inline, jit, kernel
from qbp.executors.native.kernels.passes import matrices, place, prepare, product, run_block, undo_block, unproduct
from qbp.executors.native.kernels.simd import load, load_complex, n_lanes, splat, store, store_complex

__all__ = ["backward", "forward"]

BITS = 0  # of an amplitude's index, that tell lanes apart

# Columns of the rows of events: the block, the lane, and which of the states that are kept was there before it, or -1.
BLOCK, LANE, KEPT = range(3)


@jit
def _signed_half_angles(tables, tabled, batched, signs, row, rows, table, T):
    """cos and sin of every argument in every lane, T[a, 2, W], with the signs (A, L) of the lanes.

    Phases that all samples share are tables (`tabled` items) where no lane has another sign in them; else the item
    becomes a sweep, whose words have turns.
    """
    half_angles(tables, batched, row, rows, table, T)
    arguments, items, words, W, turns = tables.arguments, tables.items, tables.words, n_lanes(T), as_turns(T)
    for a in range(len(arguments)):
        at = a * 2 * W
        if arguments[a, AXIS] == IN_SWEEP:
            for w in range(rows):
                turns[at + w] *= signs[a, row + w]
        else:
            for w in range(rows):
                T[at + W + w] *= signs[a, row + w]
    for q in range(len(items)):
        if not tabled[q]:
            continue
        items[q, KIND] = DIAGONAL
        for v in range(items[q, FIRST_WORD], items[q, LAST_WORD]):
            for w in range(row, row + rows):
                if signs[words[v, WORD_ARGUMENT], w] < 0:
                    items[q, KIND] = SWEEP
        if items[q, KIND] == SWEEP:
            for v in range(items[q, FIRST_WORD], items[q, LAST_WORD]):
                a = words[v, WORD_ARGUMENT]
                half = math.atan2(float(table[a, SIN]), float(table[a, COS]))
                turn = turns_in(-half if table[a, FACTOR] < 0 else half, T)
                for w in range(W):
                    turns[a * 2 * W + w] = turn * signs[a, row + w] if w < rows else turn


@inline
def _own(arrays):
    """The tables of a program, whose items a thread may change."""
    rows, numbers, places = arrays
    return unpacked((rows.copy(), numbers, places))


@jit
def _lane_gradients(tables, table, signs, row, rows, E, gradients):
    """From the gradient of every argument, E[a, W], to those of all angles of every lane (K, L)."""
    arguments, terms, scales, W = tables.arguments, tables.terms, tables.scales, n_lanes(E)
    for k in range(len(gradients)):
        for w in range(row, row + rows):
            gradients[k, w] = 0
    for a in range(len(arguments)):
        for t in range(arguments[a, FIRST_TERM], arguments[a, LAST_TERM]):
            scale = table[a, FACTOR] * E.dtype.type(2 * scales[t])
            for w in range(rows):
                gradients[terms[t], row + w] += scale * signs[a, row + w] * E[a * W + w]


@inline
def _apply(S, A, x, y, c, d, s):
    """``c + (d - i s)`` times a number."""
    store_complex(S, A, 0, c * x + d * x + s * y, c * y + d * y - s * x)


@jit
def _event(S, stride, first, item, places, V):
    """``c + (d - i s) P`` on the two parts from `first` on, with c, d, s of every lane in V."""
    W, x, odd = n_lanes(S), item[X_1], item[CROSSED]
    zero = splat(S.dtype.type(0))
    c = load(V, 0)
    for h in range(item[HI], item[HI] + item[N_HI]):
        base = places[h] & PLACE
        d, s = load(V, W), load(V, 2 * W)
        if places[h] >= FLIP_1:
            d, s = zero - d, zero - s
        for k in range(item[LO], item[LO] + item[N_LO]):
            i = base ^ places[k]
            A, B = i * stride + first, (i ^ x) * stride + first
            x0, y0 = load_complex(S, A, 0)
            if x == 0:
                _apply(S, A, x0, y0, c, d, s)
                continue
            x1, y1 = load_complex(S, B, 0)
            if odd:
                store_complex(S, A, 0, c * x0 - s * x1 + d * y1, c * y0 - s * y1 - d * x1)
                store_complex(S, B, 0, c * x1 + s * x0 - d * y0, c * y1 + s * y0 + d * x0)
            else:
                store_complex(S, A, 0, c * x0 + d * x1 + s * y1, c * y0 + d * y1 - s * x1)
                store_complex(S, B, 0, c * x1 + d * x0 + s * y0, c * y1 + d * y0 - s * x0)


@inline
def _numbers(first, last, a, sign, rows, numbers, signs, row, way, V):
    """c, d and s of every lane of an event into V: as they are (0), those of the inverse (1), of the adjoint (2)."""
    W = n_lanes(V)
    store(V, 0, splat(V.dtype.type(1)))
    store(V, W, splat(V.dtype.type(0)))
    store(V, 2 * W, splat(V.dtype.type(0)))
    for e in range(first, last):
        w = rows[e, LANE]
        both = sign * signs[a, row + w]
        c, d, s = numbers[e, 0], both * numbers[e, 1], both * numbers[e, 2]
        if way == 1:
            n = c * c - d * d + s * s
            n = n if n > 1e-6 else 1.0  # what has no inverse is kept
            c, d, s = c / n, -d / n, -s / n
        elif way == 2:
            s = -s
        V[w], V[W + w], V[2 * W + w] = c, d, s


@jit
def _scale(tables, common, b):
    """By what psi differs, going back, from what it was before block b: cosines that each was left without.

    Going forward they are made up for with the next phases, going back with the phases before (`passes.prepare`).
    """
    arguments, items, blocks, table = tables.arguments, tables.items, tables.blocks, common.table
    forward, backward = 1.0, 1.0
    for q in range(len(items)):
        kind, before = items[q, KIND], q < blocks[b, FIRST]
        if kind in (DIAGONAL, SWEEP):
            forward = 1.0 if before else forward
            backward = backward if before else backward / common.factors[q]
        elif kind not in (PHASE, EVENT):
            for one in range(2 if kind >= TWO else 1):
                a = items[q, ARGUMENT_1 + SECOND * one]
                if not arguments[a, DIFFERS]:
                    cosine = 1 / math.sqrt(1 + table[a, SIN] * table[a, SIN])
                    forward = forward * cosine if before else forward
                    backward = backward if before else backward * cosine
    return forward / backward


@inline
def _tabled(items):
    """Which items have phases that all samples share."""
    tabled = np.empty(len(items), np.bool_)
    for q in range(len(items)):
        tabled[q] = items[q, KIND] == DIAGONAL
    return tabled


@jit
def _keep(S, psi):
    """A copy of psi (a loop: for an assignment of slices Numba would compile the texts of its errors, too)."""
    for i in range(0, len(psi), n_lanes(S)):
        store(psi, i, load(S, i))


@jit
def _restore(S, psi, factor):
    """psi as it was kept, beside the lambda of going back."""
    W = n_lanes(S)
    by = splat(S.dtype.type(factor))
    for i in range(len(psi) // (2 * W)):
        x, y = load_complex(psi, i * 2 * W, 0)
        store_complex(S, i * 4 * W, 0, by * x, by * y)


@kernel
def forward(
    next_chunk,
    n_qubits,
    n_span,
    arrays,
    numbers,
    flip,
    shared,
    batched,
    amplitudes,
    signs,
    events_at,
    event_rows,
    event_numbers,
    out,
    states,
    keep,
    kept,
    work,
):
    """Chunks of lanes, until none is left: outputs (L, M), and final states where they are kept.

    Args:
        next_chunk, n_qubits, n_span, arrays, numbers, flip, shared: as of `batch.forward`.
        batched, amplitudes: of each lane (L, Kb) and (L, 2^N, 1 or 2), the latter with no rows for a product start.
        signs: (A, L), +-1 for every argument.
        events_at: (chunks + 1,), where the events of each chunk begin.
        event_rows: (events, 3), in order of time within each chunk: block, lane, and where the state before it is kept.
        event_numbers: (events, 3), c, d and s.
        states: as of `batch.forward`.
        kept: flat, 2 * 2^N * W numbers for every state that is kept before an event, if `keep`.
        work: flat, `2 n_span + M + 4 N + 2 A + 3` times W numbers.
    """
    tables = _own(arrays)
    tabled = _tabled(tables.items)
    common = common_of(tables, n_qubits, numbers, flip)
    table, n_blocks, items, blocks = common.table, len(tables.blocks), tables.items, tables.blocks
    prepare(tables, batched.shape[1], shared, common)
    W = n_lanes(states)
    size, n_out = (1 << n_qubits) * W, out.shape[1]
    P, R, Y, M, T, V = split(work, W, n_span, n_out, 4 * n_qubits, 2 * len(table))
    before = flush_denormals()
    while True:
        chunk = fetch_add(next_chunk)
        row = chunk * W
        rows = min(W, len(batched) - row)
        if rows <= 0:
            break
        S = states[chunk * 2 * size : (chunk + 1) * 2 * size] if keep else states
        _signed_half_angles(tables, tabled, batched, signs, row, rows, table, T)
        if len(amplitudes):
            load_amplitudes(S, 2 * W, amplitudes, row, rows)
        else:
            matrices(tables, T, M)
            product(S, 2 * W, 0, n_qubits, M)
        first = events_at[chunk]
        for b in range(n_blocks):
            q = blocks[b, FIRST]
            if q < blocks[b, LAST] and items[q, KIND] == EVENT:
                last = first
                while last < events_at[chunk + 1] and event_rows[last, BLOCK] == b:
                    last += 1
                if last > first:
                    at = event_rows[first, KEPT]
                    if keep and at >= 0:
                        _keep(S, kept[at * 2 * size : (at + 1) * 2 * size])
                    a = items[q, ARGUMENT_1]
                    _numbers(first, last, a, table[a, SIGN], event_rows, event_numbers, signs, row, 0, V)
                    _event(S, 2 * W, 0, items[q], tables.places, V)
                first = last
            else:
                run_block(BITS, b, 0, (1 << n_qubits) // n_span, S, 2 * W, tables, n_span, common, T, R)
        measure(S, 2 * W, n_qubits, n_span, tables, common, P, Y)
        for w in range(rows):
            for m in range(n_out):
                out[row + w, m] = Y[m * W + w]
    restore_denormals(before)


@kernel
def backward(
    next_chunk,
    n_qubits,
    n_span,
    arrays,
    numbers,
    flip,
    batched,
    signs,
    events_at,
    event_rows,
    event_numbers,
    grad,
    gradients,
    g_amps,
    states,
    kept,
    work,
):
    """Chunks of the vector-Jacobian product, until none is left; arguments are those of `forward`, and

    Args:
        grad: (L, M).
        gradients: (K, L), written: of all angles, of each lane.
        g_amps: (L, 2^N, 1 or 2), written if it has rows.
        work: flat, `2 n_span + M + 4 N + 3 A + 3 + 4 * 2^N` times W numbers.
    """
    tables = _own(arrays)
    tabled = _tabled(tables.items)
    common = common_of(tables, n_qubits, numbers, flip)
    table, norms, n_blocks, items, blocks = common.table, common.norms, len(tables.blocks), tables.items, tables.blocks
    W = n_lanes(states)
    size, n_out, n_args = (1 << n_qubits) * W, grad.shape[1], len(table)
    P, R, Y, M, T, rest = split(work, W, n_span, n_out, 4 * n_qubits, 2 * n_args)
    V, E, S = rest[: 3 * W], rest[3 * W : (n_args + 3) * W], rest[(n_args + 3) * W :]
    before = flush_denormals()
    while True:
        chunk = fetch_add(next_chunk)
        row = chunk * W
        rows = min(W, len(batched) - row)
        if rows <= 0:
            break
        _signed_half_angles(tables, tabled, batched, signs, row, rows, table, T)
        for i in range(len(E)):
            E[i] = 0
        for m in range(n_out):
            for w in range(W):
                Y[m * W + w] = grad[row + w, m] if w < rows else 0
        psi = states[chunk * 2 * size : (chunk + 1) * 2 * size]
        unmeasure(S, psi, n_qubits, n_span, tables, common, P, Y)
        last = events_at[chunk + 1]
        for b in range(n_blocks - 1, -1, -1):
            q = blocks[b, FIRST]
            if q < blocks[b, LAST] and items[q, KIND] == EVENT:
                first = last
                while first > events_at[chunk] and event_rows[first - 1, BLOCK] == b:
                    first -= 1
                if last > first:
                    a = items[q, ARGUMENT_1]
                    _numbers(first, last, a, table[a, SIGN], event_rows, event_numbers, signs, row, 2, V)
                    _event(S, 4 * W, 2 * W, items[q], tables.places, V)
                    at = event_rows[first, KEPT]
                    if at >= 0:
                        _restore(S, kept[at * 2 * size : (at + 1) * 2 * size], _scale(tables, common, b))
                    else:
                        _numbers(first, last, a, table[a, SIGN], event_rows, event_numbers, signs, row, 1, V)
                        _event(S, 4 * W, 0, items[q], tables.places, V)
                last = first
            else:
                undo_block(BITS, b, 0, (1 << n_qubits) // n_span, S, tables, n_span, common, T, R, P, E)
        for i in range(g_amps.shape[1] if len(g_amps) else 0):
            for w in range(rows):
                for part in range(g_amps.shape[2]):
                    g_amps[row + w, i, part] = 2 * norms[1] * S[(place(i) * 4 + 2 + part) * W + w]
        if len(tables.start):
            matrices(tables, T, M)
            unproduct(S, 0, n_qubits, tables, T, M, E)
        _lane_gradients(tables, table, signs, row, rows, E, gradients)
    restore_denormals(before)

# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels: expectation values of all Pauli words forward and backward, and words back to the data.

The state of a register of samples is ``V[Q, lane] = Tr(Q rho)`` for all words Q, numbers of base 4 with the digits I,
X, Y, Z, wire 0 the most significant. `U` is ``dL/dV``. A pass is a real matrix M on the digits of some wires:
``V <- M V`` forward and ``U <- M^T U`` backward, where V is taken back by the inverse, or comes from a copy that was
kept. With a run of gates and noise on one wire, ``dL/dM = sum u v^T`` (u after it, v before it) holds the gradients of
its angles.

Words that are carried back (`contract`) are the same with lanes that are outputs: U first, then V against it.
"""

from __future__ import annotations

from qbp.executors.native.kernels.atomics import fetch_add, flush_denormals, restore_denormals
from qbp.executors.native.kernels.jit import inline, jit, kernel
from qbp.executors.native.kernels.simd import hsum, load, n_lanes, splat, store
from qbp.executors.pauli.kernels.amplitudes import amplitude_gradients, load_amplitudes, words_of_amplitudes
from qbp.executors.pauli.kernels.conventions import (
    ANGLE,
    AT,
    AXIS,
    DIFFERS,
    END,
    FACTORS,
    IS_FIXED,
    KEEP,
    KEEP_BACK,
    KIND,
    N_WIRES,
    NUMBERS,
    ONE,
    PAIR,
    RUN,
    STEP,
    UNDONE,
    WORD,
    N,
    unpacked,
)
from qbp.executors.pauli.kernels.maps import apply_map, turn_words, word_gradient
from qbp.executors.pauli.kernels.one_wire import (
    add_gradient,
    groups_of,
    run_gradients,
    run_inverse,
    run_matrix,
    run_wire,
    run_wire_back,
    run_wire_forth,
    run_wire_transposed,
    turn_of_lanes,
    turns,
)
from qbp.executors.pauli.kernels.starts import (
    begin_gradients,
    clear,
    gradients_of_samples,
    parts_of,
    product,
    start_gradients,
    start_vectors,
    unproduct,
)
from qbp.executors.pauli.kernels.two_wires import pair_of, pair_to

__all__ = ["backward", "contract", "contract_back", "forward"]


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
    if fresh:
        turns(tables, passes[0, STEP], len(tables.steps), batched.shape[1], shared, parts.CS)
    for p in range(len(passes)):
        first, last = passes[p, STEP], passes[p, END]
        if passes[p, DIFFERS]:
            for s in range(first, last):
                if tables.steps[s, AXIS] != IS_FIXED and 0 <= tables.steps[s, ANGLE] < batched.shape[1]:
                    turn_of_lanes(tables, s, batched, row, rows, parts.CS)
        if passes[p, KIND] == ONE and (fresh or passes[p, DIFFERS]):
            run_matrix(tables.steps, tables.fixed, first, last, parts.CS, parts.M)
            run_inverse(tables.steps, tables.undone, first, last, parts.CS, parts.J, 9 * W * passes[p, RUN])


@jit
def _apply(size, tables, parts, kept, to):
    """V through all passes; copies are kept from kept[to] on, unless that is negative."""
    passes, ints, numbers, V, P = tables.passes, tables.ints, tables.numbers, parts.V, parts.P
    W = n_lanes(V)
    for p in range(len(passes)):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = groups_of(tables, p, size)
        if passes[p, KEEP] >= 0 and to >= 0:
            _copy(V, 0, kept, to + passes[p, KEEP] * size * W, size)
        if kind == ONE:
            run_wire(V, n, groups, ints[at], parts.M, 12 * W * (passes[p, END] - 1))
        elif kind == PAIR:
            pair_of(V, n, groups, ints, at, numbers, of, FACTORS, 1, True)
        elif kind == WORD:
            turn_words(V, n, groups, ints, at, n_wires, passes[p, N], parts.CS, passes[p, STEP], 1)
        else:
            apply_map(V, n, groups, ints, at, n_wires, numbers, of, False, False, P)


@jit
def _undo(size, tables, parts, kept, of_kept):
    """U back through all passes, V too, and the gradients of all runs, E[run, 12, W]."""
    passes, ints, numbers, V, U = tables.passes, tables.ints, tables.numbers, parts.V, parts.U
    CS, M, J, E, P, W = parts.CS, parts.M, parts.J, parts.E, parts.P, n_lanes(V)
    for p in range(len(passes) - 1, -1, -1):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = groups_of(tables, p, size)
        run, is_kept = passes[p, RUN], passes[p, KEEP] >= 0
        if is_kept:
            _copy(kept, of_kept + passes[p, KEEP] * size * W, V, 0, size)
        if kind == ONE:
            matrix = 12 * W * (passes[p, END] - 1)
            run_wire_back(V, U, n, groups, ints[at], M, matrix, J, 9 * W * run, is_kept, E, 12 * W * run)
        elif kind == PAIR:
            if not is_kept:
                pair_to(V, n, groups, ints, at, numbers, of, UNDONE, -1, True)
            pair_to(U, n, groups, ints, at, numbers, of, FACTORS, 1, False)
        elif kind == WORD:
            step, n_pairs = passes[p, STEP], passes[p, N]
            if not is_kept:
                turn_words(V, n, groups, ints, at, n_wires, n_pairs, CS, step, -1)
            turn_words(U, n, groups, ints, at, n_wires, n_pairs, CS, step, -1)
            store(E, 12 * W * run, word_gradient(V, U, n, groups, ints, at, n_wires, n_pairs))
        else:
            if not is_kept:
                apply_map(V, n, groups, ints, at, n_wires, numbers, of, True, False, P)
            apply_map(U, n, groups, ints, at, n_wires, numbers, of, False, True, P)


@jit
def _transpose(size, tables, parts, kept, to):
    """U back through all passes; copies are kept from kept[to] on."""
    passes, ints, numbers, U, P = tables.passes, tables.ints, tables.numbers, parts.U, parts.P
    W = n_lanes(U)
    for p in range(len(passes) - 1, -1, -1):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = groups_of(tables, p, size)
        if passes[p, KEEP_BACK] >= 0:
            _copy(U, 0, kept, to + passes[p, KEEP_BACK] * size * W, size)
        if kind == ONE:
            run_wire_transposed(U, n, groups, ints[at], parts.M, 12 * W * (passes[p, END] - 1))
        elif kind == PAIR:
            pair_to(U, n, groups, ints, at, numbers, of, FACTORS, 1, False)
        elif kind == WORD:
            turn_words(U, n, groups, ints, at, n_wires, passes[p, N], parts.CS, passes[p, STEP], -1)
        else:
            apply_map(U, n, groups, ints, at, n_wires, numbers, of, False, True, P)


@jit
def _forth(size, tables, parts, kept, of_kept):
    """V through all passes, U forward again, and the gradients of all runs, E[run, 12, W]."""
    passes, ints, numbers, V, U = tables.passes, tables.ints, tables.numbers, parts.V, parts.U
    CS, M, J, E, P, W = parts.CS, parts.M, parts.J, parts.E, parts.P, n_lanes(V)
    for p in range(len(passes)):
        kind, at, of, n_wires = passes[p, KIND], passes[p, AT], passes[p, NUMBERS], passes[p, N_WIRES]
        n, groups = groups_of(tables, p, size)
        run, is_kept = passes[p, RUN], passes[p, KEEP_BACK] >= 0
        if is_kept:
            _copy(kept, of_kept + passes[p, KEEP_BACK] * size * W, U, 0, size)
        if kind == ONE:
            matrix = 12 * W * (passes[p, END] - 1)
            run_wire_forth(U, V, n, groups, ints[at], M, matrix, J, 9 * W * run, is_kept, E, 12 * W * run)
        elif kind == PAIR:
            if not is_kept:
                pair_of(U, n, groups, ints, at, numbers, of, UNDONE, -1, False)
            pair_of(V, n, groups, ints, at, numbers, of, FACTORS, 1, True)
        elif kind == WORD:
            step, n_pairs = passes[p, STEP], passes[p, N]
            if not is_kept:
                turn_words(U, n, groups, ints, at, n_wires, n_pairs, CS, step, 1)
            turn_words(V, n, groups, ints, at, n_wires, n_pairs, CS, step, 1)
            store(E, 12 * W * run, word_gradient(V, U, n, groups, ints, at, n_wires, n_pairs))
        else:
            if not is_kept:
                apply_map(U, n, groups, ints, at, n_wires, numbers, of, True, True, P)
            apply_map(V, n, groups, ints, at, n_wires, numbers, of, False, False, P)


@jit
def _pass_gradients(tables, parts, n_batched, g_shared, chunk):
    """The gradients of all angles of passes, added up."""
    passes, steps, scales, E, W = tables.passes, tables.steps, tables.scales, parts.E, n_lanes(parts.E)
    for p in range(len(passes)):
        at = 12 * W * passes[p, RUN]
        if passes[p, KIND] == ONE:
            first, last = passes[p, STEP], passes[p, END]
            run_gradients(tables, first, last, parts.CS, parts.M, E, at, n_batched, parts.G, g_shared, chunk)
        elif passes[p, KIND] == WORD:
            s = passes[p, STEP]
            add_gradient(steps[s, ANGLE], scales[s, 0], load(E, at), n_batched, parts.G, g_shared, chunk)


# ---- the kernels -----------------------------------------------------------------------------------------------------


@jit
def _begin(tables, batched, shared, amplitudes, row, rows, fresh, parts):
    """V before the first pass."""
    if amplitudes.shape[1]:
        load_amplitudes(amplitudes, row, rows, parts.P)
        words_of_amplitudes(parts.V, tables.spread, parts.P)
    else:
        start_vectors(tables, batched, row, rows, shared, fresh, parts)
        product(parts.V, tables.letters, parts.R)


@kernel
def forward(next_chunk, packed, n_wires, n_runs, n_scratch, batched, shared, amplitudes, out, states, kept, work):
    """Outputs (B, M), the final states and the copies that the way back needs (none where `states` is empty)."""
    tables = unpacked(packed)
    W, size, n_samples, n_outputs = n_lanes(work), 1 << 2 * n_wires, len(batched), out.shape[1]
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, batched.shape[1], n_scratch)
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
        clear(parts.P, n_outputs)
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
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, batched.shape[1], n_scratch)
    n_chunks = (n_samples + W - 1) // W
    again = len(states) == 0
    copies = work[len(work) - n_kept * size * W :] if again else kept
    before = flush_denormals()
    chunk, fresh = fetch_add(next_chunk), True
    while chunk < n_chunks:
        row = chunk * W
        rows = min(W, n_samples - row)
        begin_gradients(parts, batched.shape[1], g_shared, chunk)
        _begin(tables, batched, shared, amplitudes, row, rows, fresh, parts)
        _matrices(tables, batched, row, rows, shared, fresh, parts)
        at = 0 if again else chunk * n_kept * size * W
        if again:
            _apply(size, tables, parts, copies, 0)
        else:
            _copy(states, chunk * size * W, parts.V, 0, size)
        clear(parts.U, size)
        for k in range(len(tables.terms)):
            m, to = tables.terms[k, 0], tables.terms[k, 1] * W
            for w in range(rows):
                parts.U[to + w] += tables.weights[k] * grad[row + w, m]
        _undo(size, tables, parts, copies, at)
        _pass_gradients(tables, parts, batched.shape[1], g_shared, chunk)
        if amplitudes.shape[1]:
            if len(g_amps):
                load_amplitudes(amplitudes, row, rows, parts.P)
                amplitude_gradients(parts.U, tables.spread, parts.P, row, rows, g_amps)
        else:
            product(parts.V, tables.letters, parts.R)
            unproduct(parts.V, parts.U, size, tables.letters, parts.R)
            start_gradients(tables, parts, batched.shape[1], g_shared, chunk)
        gradients_of_samples(parts, row, rows, g_batched)
        chunk, fresh = fetch_add(next_chunk), False
    restore_denormals(before)


@jit
def _coefficients(size, tables, parts, batched, shared, C, states, kept):
    """The coefficients C (F, M) of the outputs in the products of the data; `states` and copies as `_words_forth` needs
    them (none where `states` is empty)."""
    W, order, n_outputs = n_lanes(parts.U), tables.order, C.shape[1]
    n_chunks = (n_outputs + W - 1) // W
    each = len(kept) // max(n_chunks, 1)
    _matrices(tables, batched, 0, 1, shared, True, parts)
    for chunk in range(n_chunks):
        first = chunk * W
        clear(parts.U, size)
        for k in range(len(tables.terms)):
            if first <= tables.terms[k, 0] < first + W:
                parts.U[tables.terms[k, 1] * W + tables.terms[k, 0] - first] += tables.weights[k]
        _transpose(size, tables, parts, kept, chunk * each)
        if len(states):
            _copy(parts.U, 0, states, chunk * size * W, size)
        for f in range(len(order)):
            for m in range(first, min(first + W, n_outputs)):
                C[f, m] = parts.U[order[f] * W + m - first]


@jit
def _words_forth(size, tables, parts, batched, shared, g_C, states, kept, g_shared, row):
    """Gradients of the angles of all passes, in a row of (rows, Ks), from those of the coefficients (F, M)."""
    W, order, n_outputs = n_lanes(parts.U), tables.order, g_C.shape[1]
    n_chunks = (n_outputs + W - 1) // W
    each = len(kept) // max(n_chunks, 1)
    for k in range(g_shared.shape[1]):
        g_shared[row, k] = 0
    for chunk in range(n_chunks):
        first = chunk * W
        _matrices(tables, batched, 0, 1, shared, True, parts)
        _copy(states, chunk * size * W, parts.U, 0, size)
        clear(parts.V, size)
        for f in range(len(order)):
            for m in range(first, min(first + W, n_outputs)):
                parts.V[order[f] * W + m - first] = g_C[f, m]
        _forth(size, tables, parts, kept, chunk * each)
        _pass_gradients(tables, parts, batched.shape[1], g_shared, row)


@inline
def _four(S, at):
    """Four registers, one after the other."""
    W = n_lanes(S)
    return load(S, at), load(S, at + W), load(S, at + 2 * W), load(S, at + 3 * W)


@kernel
def contract(next_chunk, first, packed, n_wires, n_runs, n_scratch, batched, shared, C, out, states, kept, work):
    """Outputs (B, M): the products of the data times the coefficients C (F, M), which come first, if they are to."""
    tables = unpacked(packed)
    W, n_samples, n_products, n_outputs = n_lanes(work), len(batched), C.shape[0], C.shape[1]
    size = 1 << 2 * n_wires if first else n_products
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, batched.shape[1], n_scratch)
    n_chunks = (n_samples + W - 1) // W
    zero = splat(work.dtype.type(0))
    before = flush_denormals()
    if first:
        _coefficients(size, tables, parts, batched, shared, C, states, kept)
    chunk, fresh = fetch_add(next_chunk), True
    while chunk < n_chunks:
        row = chunk * W
        rows = min(W, n_samples - row)
        start_vectors(tables, batched, row, rows, shared, fresh, parts)
        product(parts.V, tables.letters, parts.R)
        for m in range(0, n_outputs - 3, 4):
            a = b = c = d = e = g = h = p = zero  # two sums each: one would wait for itself
            for f in range(0, n_products - 1, 2):
                v, u = load(parts.V, f * W), load(parts.V, (f + 1) * W)
                a, b = a + splat(C[f, m]) * v, b + splat(C[f, m + 1]) * v
                c, d = c + splat(C[f, m + 2]) * v, d + splat(C[f, m + 3]) * v
                e, g = e + splat(C[f + 1, m]) * u, g + splat(C[f + 1, m + 1]) * u
                h, p = h + splat(C[f + 1, m + 2]) * u, p + splat(C[f + 1, m + 3]) * u
            if n_products & 1:
                f = n_products - 1
                v = load(parts.V, f * W)
                a, b = a + splat(C[f, m]) * v, b + splat(C[f, m + 1]) * v
                c, d = c + splat(C[f, m + 2]) * v, d + splat(C[f, m + 3]) * v
            store(parts.P, m * W, a + e)
            store(parts.P, (m + 1) * W, b + g)
            store(parts.P, (m + 2) * W, c + h)
            store(parts.P, (m + 3) * W, d + p)
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
    last,
    packed,
    n_wires,
    n_runs,
    n_scratch,
    n_each,
    batched,
    shared,
    C,
    grad,
    states,
    kept,
    work,
    g_C,
    g_batched,
    g_shared,
    total,
):
    """Gradients of the coefficients, (tasks, F, M), and of the angles in front, (B, Kb) and (chunks + 1, Ks); last, if
    it is to be, those of all other angles, and the sums, (Ks,). A task has `n_each` chunks, so that sums are the same
    whatever the threads."""
    tables = unpacked(packed)
    W, n_samples, n_products, n_outputs = n_lanes(work), len(batched), C.shape[0], C.shape[1]
    size = 1 << 2 * n_wires if last else n_products
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, batched.shape[1], n_scratch)
    totals = work[len(work) - n_products * n_outputs * W :]
    n_chunks = (n_samples + W - 1) // W
    before = flush_denormals()
    task, fresh = fetch_add(next_task), True
    while task < len(g_C):
        clear(totals, n_products * n_outputs)
        for chunk in range(task * n_each, min(task * n_each + n_each, n_chunks)):
            row = chunk * W
            rows = min(W, n_samples - row)
            begin_gradients(parts, batched.shape[1], g_shared, chunk)
            start_vectors(tables, batched, row, rows, shared, fresh, parts)
            product(parts.V, tables.letters, parts.R)
            for m in range(n_outputs):
                for w in range(W):
                    parts.P[m * W + w] = grad[row + w, m] if w < rows else 0
            if n_outputs < 4:
                clear(parts.U, n_products)
            for m in range(0, n_outputs - 3, 4):
                g, h, p, q = _four(parts.P, m * W)
                for f in range(n_products):
                    v, at = load(parts.V, f * W), (m * n_products + 4 * f) * W
                    a, b, c, d = _four(totals, at)
                    store(totals, at, a + v * g)
                    store(totals, at + W, b + v * h)
                    store(totals, at + 2 * W, c + v * p)
                    store(totals, at + 3 * W, d + v * q)
                    u = splat(C[f, m]) * g + splat(C[f, m + 1]) * h + splat(C[f, m + 2]) * p + splat(C[f, m + 3]) * q
                    store(parts.U, f * W, u + load(parts.U, f * W) if m else u)
            for m in range(n_outputs & ~3, n_outputs):
                g = load(parts.P, m * W)
                for f in range(n_products):
                    at = (m * n_products + f) * W
                    store(parts.U, f * W, load(parts.U, f * W) + splat(C[f, m]) * g)
                    store(totals, at, load(totals, at) + load(parts.V, f * W) * g)
            unproduct(parts.V, parts.U, n_products, tables.letters, parts.R)
            start_gradients(tables, parts, batched.shape[1], g_shared, chunk)
            gradients_of_samples(parts, row, rows, g_batched)
            fresh = False
        for m in range(n_outputs):
            by_four = m < n_outputs & ~3
            first, step = ((m & ~3) * n_products + (m & 3), 4) if by_four else (m * n_products, 1)
            for f in range(n_products):
                g_C[task, f, m] = hsum(load(totals, (first + step * f) * W))
        task = fetch_add(next_task)
    if last:
        for other in range(1, len(g_C)):
            for f in range(n_products):
                for m in range(n_outputs):
                    g_C[0, f, m] += g_C[other, f, m]
        _words_forth(size, tables, parts, batched, shared, g_C[0], states, kept, g_shared, n_chunks)
        for k in range(len(total)):
            number = 0.0
            for chunk in range(n_chunks + 1):
                number += g_shared[chunk, k]
            total[k] = number
    restore_denormals(before)

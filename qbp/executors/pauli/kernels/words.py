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
from qbp.executors.native.kernels.jit import jit, kernel
from qbp.executors.native.kernels.simd import hsum, load, n_lanes, splat, store
from qbp.executors.pauli.kernels.amplitudes import amplitude_gradients, load_amplitudes, words_of_amplitudes
from qbp.executors.pauli.kernels.conventions import (
    ANGLE,
    AT,
    DIFFERS,
    END,
    FACTORS,
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
    turns,
)
from qbp.executors.pauli.kernels.starts import clear, parts_of, product, start_gradients, start_vectors, unproduct
from qbp.executors.pauli.kernels.two_wires import pair_of, pair_to

__all__ = ["backward", "coefficients", "contract", "contract_back", "forth", "forward"]


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
    turns(tables, passes[0, STEP], len(tables.steps), batched, row, rows, shared, fresh, parts.CS)
    for p in range(len(passes)):
        if passes[p, KIND] == ONE and (fresh or passes[p, DIFFERS]):
            first, last = passes[p, STEP], passes[p, END]
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
def _pass_gradients(tables, parts, row, rows, g_batched, g_shared, chunk):
    """The gradients of all angles of passes, added up."""
    passes, steps, scales, fixed = tables.passes, tables.steps, tables.scales, tables.fixed
    CS, M, E = parts.CS, parts.M, parts.E
    W = n_lanes(E)
    for p in range(len(passes)):
        at = 12 * W * passes[p, RUN]
        if passes[p, KIND] == ONE:
            first, last = passes[p, STEP], passes[p, END]
            run_gradients(
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
            add_gradient(k, scale, load(E, at), row, rows, n_batched, g_batched, g_shared, chunk, CS, s)


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
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
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
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
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
        clear(parts.U, size)
        for k in range(len(tables.terms)):
            m, to = tables.terms[k, 0], tables.terms[k, 1] * W
            for w in range(rows):
                parts.U[to + w] += tables.weights[k] * grad[row + w, m]
        _undo(size, tables, parts, copies, at)
        _pass_gradients(tables, parts, row, rows, g_batched, g_shared, chunk)
        if amplitudes.shape[1]:
            if len(g_amps):
                load_amplitudes(amplitudes, row, rows, parts.P)
                amplitude_gradients(parts.U, tables.spread, parts.P, row, rows, g_amps)
        else:
            product(parts.V, tables.letters, parts.R)
            unproduct(parts.V, parts.U, size, tables.letters, parts.R)
            start_gradients(tables, parts, row, rows, g_batched, g_shared, chunk)
        chunk, fresh = fetch_add(next_chunk), False
    restore_denormals(before)


@kernel
def coefficients(packed, n_wires, n_runs, n_scratch, order, batched, shared, C, states, kept, work):
    """The coefficients C (F, M) of the outputs in the products of the data (`contract`); `states` and copies as
    `forth` needs them (none where `states` is empty)."""
    tables = unpacked(packed)
    W, size, n_outputs = n_lanes(work), 1 << 2 * n_wires, C.shape[1]
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
    n_chunks = (n_outputs + W - 1) // W
    each = len(kept) // max(n_chunks, 1)
    before = flush_denormals()
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
    restore_denormals(before)


@kernel
def forth(packed, n_wires, n_runs, n_scratch, order, batched, shared, g_C, states, kept, work, g_batched, g_shared):
    """Gradients of the angles of all passes, (1, Ks), from those of the coefficients (F, M)."""
    tables = unpacked(packed)
    W, size, n_outputs = n_lanes(work), 1 << 2 * n_wires, g_C.shape[1]
    parts = parts_of(work, size, len(tables.steps), n_runs, n_wires, n_scratch)
    n_chunks = (n_outputs + W - 1) // W
    each = len(kept) // max(n_chunks, 1)
    before = flush_denormals()
    for k in range(g_shared.shape[1]):
        g_shared[0, k] = 0
    for chunk in range(n_chunks):
        first = chunk * W
        _matrices(tables, batched, 0, 1, shared, True, parts)
        _copy(states, chunk * size * W, parts.U, 0, size)
        clear(parts.V, size)
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
    parts = parts_of(work, n_products, len(tables.steps), 0, n_wires, n_scratch)
    n_chunks = (n_samples + W - 1) // W
    zero = splat(work.dtype.type(0))
    before = flush_denormals()
    chunk, fresh = fetch_add(next_chunk), True
    while chunk < n_chunks:
        row = chunk * W
        rows = min(W, n_samples - row)
        start_vectors(tables, batched, row, rows, shared, fresh, parts)
        product(parts.V, some_letters, parts.R)
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
    parts = parts_of(work, n_products, len(tables.steps), 0, n_wires, n_scratch)
    totals = work[len(work) - n_products * n_outputs * W :]
    n_chunks = (n_samples + W - 1) // W
    before = flush_denormals()
    task, fresh = fetch_add(next_task), True
    while task < len(g_C):
        clear(totals, n_products * n_outputs)
        for chunk in range(task * n_each, min(task * n_each + n_each, n_chunks)):
            row = chunk * W
            rows = min(W, n_samples - row)
            for w in range(row, row + rows):
                for k in range(g_batched.shape[1]):
                    g_batched[w, k] = 0
            for k in range(g_shared.shape[1]):
                g_shared[chunk, k] = 0
            start_vectors(tables, batched, row, rows, shared, fresh, parts)
            product(parts.V, some_letters, parts.R)
            for m in range(n_outputs):
                for w in range(W):
                    parts.P[m * W + w] = grad[row + w, m] if w < rows else 0
            clear(parts.U, n_products)
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
            unproduct(parts.V, parts.U, n_products, some_letters, parts.R)
            start_gradients(tables, parts, row, rows, g_batched, g_shared, chunk)
            fresh = False
        for m in range(n_outputs):
            first, step = (m & ~1) * n_products + (m & 1), 1 if m == n_outputs - 1 and not m & 1 else 2
            for f in range(n_products):
                g_C[task, f, m] = hsum(load(totals, (first + step * f) * W))
        task = fetch_add(next_task)
    restore_denormals(before)

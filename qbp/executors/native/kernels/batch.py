# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels for a batch: lanes are samples, forward and backward through one chunk of W after the other.

Every sample has one lane from start to end, and only sums over samples cross lanes, in a fixed order: equal samples
give equal bits, whatever the batch, the chunks and the threads.
"""

from __future__ import annotations

from qbp.executors.native.kernels.atomics import fetch_add, flush_denormals, restore_denormals
from qbp.executors.native.kernels.conventions import (
    AXIS,
    COS,
    DIFFERS,
    FACTOR,
    FIRST_TERM,
    FLIP_1,
    IN_SWEEP,
    LAST_TERM,
    MEASURED_Z,
    OUTPUT,
    PLACE,
    PROBS_HI,
    PROBS_LO,
    PROBS_OUTPUT,
    SHARED_PART,
    SIGN,
    SIN,
    Common,
    other_of,
    unpacked,
)
from qbp.executors.native.kernels.fixed_point import as_turns, turns_in
from qbp.executors.native.kernels.jit import inline, jit, kernel
from qbp.executors.native.kernels.passes import (
    cos_sin,
    hadamard,
    matrices,
    place,
    prepare,
    product,
    run_block,
    undo_block,
    unproduct,
)
from qbp.executors.native.kernels.simd import (
    hsum,
    load,
    load_complex,
    n_lanes,
    parity,
    splat,
    store,
    store_both,
    store_complex,
)

__all__ = ["backward", "common_of", "forward", "half_angles", "load_amplitudes", "measure", "split", "unmeasure"]

BITS = 0  # of an amplitude's index, that tell lanes apart


# ---- angles and amplitudes in lanes ----------------------------------------------------------------------------------


@jit
def half_angles(tables, batched, row, rows, table, T):
    """cos and sin of every argument in every lane, T[a, 2, W]; of the words of sweeps the turns."""
    arguments, terms, scales = tables.arguments, tables.terms, tables.scales
    W, turns = n_lanes(T), as_turns(T)
    for a in range(len(arguments)):
        at = a * 2 * W
        if arguments[a, DIFFERS] or arguments[a, AXIS] == IN_SWEEP:
            for w in range(W):
                T[at + w] = table[a, SHARED_PART]
            for t in range(arguments[a, FIRST_TERM], arguments[a, LAST_TERM]):
                if terms[t] < batched.shape[1]:
                    scale = T.dtype.type(scales[t])
                    for w in range(rows):
                        T[at + w] += scale * batched[row + w, terms[t]]
            if arguments[a, AXIS] == IN_SWEEP:
                for w in range(W):
                    turns[at + w] = turns_in(table[a, SIGN] * T[at + w], T)
            else:
                for w in range(W):
                    c, s = cos_sin(T[at + w])
                    T[at + w] = c
                    T[at + W + w] = table[a, SIGN] * T.dtype.type(s)
        else:
            store(T, at, splat(table[a, COS]))
            store(T, at + W, splat(table[a, SIN]))


@jit
def _angle_gradients(tables, table, n_batched, row, rows, E, g_batched, g_shared, chunk):
    """From the gradient of every argument, dL/dt in E[a, W], to those of the angles (B, Kb) and (Ks,)."""
    arguments, terms, scales, W = tables.arguments, tables.terms, tables.scales, n_lanes(E)
    for w in range(row, row + rows):
        for k in range(n_batched):
            g_batched[w, k] = 0
    for k in range(g_shared.shape[1]):
        g_shared[chunk, k] = 0
    for a in range(len(arguments)):
        for t in range(arguments[a, FIRST_TERM], arguments[a, LAST_TERM]):
            scale = table[a, FACTOR] * E.dtype.type(2 * scales[t])
            if terms[t] < n_batched:
                for w in range(rows):
                    g_batched[row + w, terms[t]] += scale * E[a * W + w]
            else:
                g_shared[chunk, terms[t] - n_batched] += scale * hsum(load(E, a * W))


@jit
def load_amplitudes(S, stride, amplitudes, row, rows):
    """Rows (B, 2^N, 1 or 2) of real or complex amplitudes into lanes."""
    W = n_lanes(S)
    for i in range(amplitudes.shape[1]):
        at = place(i) * stride
        for w in range(W):
            S[at + w] = amplitudes[row + w, i, 0] if w < rows else 0
            S[at + W + w] = amplitudes[row + w, i, 1] if w < rows and amplitudes.shape[2] == 2 else 0


# ---- measurements ----------------------------------------------------------------------------------------------------


@inline
def _signed(number, mask):
    """The number with the sign of the mask's parity."""
    return -number if parity(mask) else number


@jit
def measure(S, stride, n_qubits, n_span, tables, common, P, Y):
    """Expectation values and probabilities of psi, Y[m, W]."""
    W, flip, norm = n_lanes(S), common.flip, common.norms[0]
    places, diagonal, others, probs = tables.places, tables.diagonal, tables.others, tables.probs
    coefficients = tables.coefficients
    n_lo = n_qubits // 2
    zero = splat(S.dtype.type(0))
    square = splat(norm * norm)
    for m in range(len(Y) // W):
        store(Y, m * W, zero)
    for rep in range(0, 1 << n_qubits if len(diagonal) or len(probs) else 0, n_span):
        for k in range(n_span):
            x, y = load_complex(S, (rep + k) * stride, 0)
            store(P, k * W, square * (x * x + y * y))
        for q in range(len(probs)):
            out, lo, hi = probs[q, PROBS_OUTPUT], probs[q, PROBS_LO], probs[q, PROBS_HI]
            for k in range(n_span):
                i = (rep + k) ^ flip[0]
                at = (out + (places[hi + (i >> n_lo)] ^ places[lo + (i & (1 << n_lo) - 1)])) * W
                store(Y, at, load(Y, at) + load(P, k * W))
        if len(diagonal):
            hadamard(P, n_span)
        for d in range(len(diagonal)):
            at, z = diagonal[d, OUTPUT] * W, diagonal[d, MEASURED_Z]
            g = splat(S.dtype.type(_signed(coefficients[d], (flip[0] ^ rep) & z)))
            store(Y, at, load(Y, at) + g * load(P, (z & (n_span - 1)) * W))
    for t in range(len(others)):
        word = other_of(others, t)
        sign = parity(flip[0] & word.z) ^ parity(flip[1] & word.x)
        coefficient = 2 * coefficients[len(diagonal) + t]
        g = splat(S.dtype.type(-coefficient if sign else coefficient))
        total = zero
        for h in range(word.hi, word.hi + word.n_hi):
            base = places[h] & PLACE
            some = zero
            for k in range(word.lo, word.lo + word.n_lo):
                i = base ^ places[k]
                A, B = i * stride, (i ^ word.x) * stride
                x0, y0 = load_complex(S, A, 0)
                x1, y1 = load_complex(S, B, 0)
                if not word.imaginary:
                    some = some + (x0 * x1 + y0 * y1)
                else:
                    some = some + (x0 * y1 - y0 * x1)
            total = total - some if places[h] >= FLIP_1 else total + some
        at = word.output * W
        store(Y, at, load(Y, at) + g * square * total)


@jit
def unmeasure(S, psi, n_qubits, n_span, tables, common, P, Y):
    """psi into S, and ``lambda = sum_m g_m O_m psi`` with the gradients g in Y[m, W]."""
    W, flip = n_lanes(S), common.flip
    places, diagonal, others, probs = tables.places, tables.diagonal, tables.others, tables.probs
    coefficients = tables.coefficients
    n_lo = n_qubits // 2
    zero = splat(S.dtype.type(0))
    factor = splat(common.norms[0])
    for rep in range(0, 1 << n_qubits, n_span):
        for k in range(n_span):
            store(P, k * W, zero)
        for d in range(len(diagonal)):
            z = diagonal[d, MEASURED_Z]
            at = (z & (n_span - 1)) * W
            g = splat(S.dtype.type(_signed(coefficients[d], (flip[0] ^ rep) & z)))
            store(P, at, load(P, at) + g * load(Y, diagonal[d, OUTPUT] * W))
        if len(diagonal):
            hadamard(P, n_span)
        for q in range(len(probs)):
            out, lo, hi = probs[q, PROBS_OUTPUT], probs[q, PROBS_LO], probs[q, PROBS_HI]
            for k in range(n_span):
                i = (rep + k) ^ flip[0]
                at = (out + (places[hi + (i >> n_lo)] ^ places[lo + (i & (1 << n_lo) - 1)])) * W
                store(P, k * W, load(P, k * W) + load(Y, at))
        for k in range(n_span):
            A, B = (rep + k) * 4 * W, (rep + k) * 2 * W
            x, y, w = factor * load(psi, B), factor * load(psi, B + W), load(P, k * W)
            store_both(S, A, 0, x, y, w * x, w * y)
    for t in range(len(others)):
        word = other_of(others, t)
        sign = parity(flip[0] & word.z) ^ parity(flip[1] & word.x)
        coefficient = coefficients[len(diagonal) + t]
        g = splat(S.dtype.type(-coefficient if sign else coefficient)) * load(Y, word.output * W)
        for h in range(word.hi, word.hi + word.n_hi):
            base = places[h] & PLACE
            sg = zero - g if places[h] >= FLIP_1 else g
            for k in range(word.lo, word.lo + word.n_lo):
                i = base ^ places[k]
                A, B = i * 4 * W, (i ^ word.x) * 4 * W
                x0, y0 = load_complex(S, A, 0)
                x1, y1 = load_complex(S, B, 0)
                u0, v0 = load_complex(S, A + 2 * W, 0)
                u1, v1 = load_complex(S, B + 2 * W, 0)
                if not word.imaginary:
                    u0, v0, u1, v1 = u0 + sg * x1, v0 + sg * y1, u1 + sg * x0, v1 + sg * y0
                else:
                    u0, v0, u1, v1 = u0 + sg * y1, v0 - sg * x1, u1 - sg * y0, v1 + sg * x0
                store_complex(S, A + 2 * W, 0, u0, v0)
                store_complex(S, B + 2 * W, 0, u1, v1)


# ---- chunks ----------------------------------------------------------------------------------------------------------


@kernel
def forward(next_chunk, n_qubits, n_span, arrays, numbers, flip, shared, batched, amplitudes, out, states, keep, work):
    """Chunks of a batch, until none is left: outputs (B, M), and the final states where they are kept.

    Args:
        next_chunk: (2,), the first chunk that no thread has taken; going backward, also how many are done.
        n_span: number of amplitudes in a coset of a block.
        arrays: a `Tables.packed`.
        numbers, flip: (2 + 3 A + Q + 2 F 2^N,) and (2,), written: a `Common`, in as few arrays as can be.
        shared: (Ks,).
        batched: (B, Kb).
        amplitudes: (B, 2^N, 1 or 2), with no rows for a product start.
        states: flat, 2 * 2^N * W numbers for every chunk if `keep`, else only once.
        work: flat, `2 n_span + M + 4 N + 2 A` times W numbers.
    """
    tables = unpacked(arrays)
    common = common_of(tables, n_qubits, numbers, flip)
    table, n_blocks = common.table, len(tables.blocks)
    prepare(tables, batched.shape[1], shared, common)
    W = n_lanes(states)
    size, n_out = (1 << n_qubits) * W, out.shape[1]
    P, R, Y, M, T, _ = split(work, W, n_span, n_out, 4 * n_qubits, 2 * len(table))
    before = flush_denormals()
    while True:
        chunk = fetch_add(next_chunk)
        row = chunk * W
        rows = min(W, len(batched) - row)
        if rows <= 0:
            break
        S = states[chunk * 2 * size : (chunk + 1) * 2 * size] if keep else states
        half_angles(tables, batched, row, rows, table, T)
        if len(amplitudes):
            load_amplitudes(S, 2 * W, amplitudes, row, rows)
        else:
            matrices(tables, T, M)
            product(S, 2 * W, 0, n_qubits, M)
        for b in range(n_blocks):
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
    grad,
    g_batched,
    g_shared,
    total,
    g_amps,
    states,
    work,
):
    """Chunks of the vector-Jacobian product, until none is left; arguments are those of `forward`, and

    Args:
        grad: (B, M).
        states: the final states that `forward` kept.
        work: flat, `2 n_span + M + 4 N + 3 A + 4 * 2^N` times W numbers.
        g_batched: (B, Kb), written.
        g_shared: (chunks, Ks), float64, written: a sum over the samples of each chunk.
        total: (Ks,), written: the sum over all chunks, in their order.
        g_amps: (B, 2^N, 1 or 2), written if it has rows.
    """
    tables = unpacked(arrays)
    common = common_of(tables, n_qubits, numbers, flip)
    table, norms, n_blocks, n_start = common.table, common.norms, len(tables.blocks), len(tables.start)
    W = n_lanes(states)
    size, n_out, n_args = (1 << n_qubits) * W, grad.shape[1], len(table)
    P, R, Y, M, T, rest = split(work, W, n_span, n_out, 4 * n_qubits, 2 * n_args)
    E, S = rest[: n_args * W], rest[n_args * W :]
    before = flush_denormals()
    while True:
        chunk = fetch_add(next_chunk)
        row = chunk * W
        rows = min(W, len(batched) - row)
        if rows <= 0:
            break
        half_angles(tables, batched, row, rows, table, T)
        for i in range(len(E)):
            E[i] = 0
        for m in range(n_out):
            for w in range(W):
                Y[m * W + w] = grad[row + w, m] if w < rows else 0
        psi = states[chunk * 2 * size : (chunk + 1) * 2 * size]
        unmeasure(S, psi, n_qubits, n_span, tables, common, P, Y)
        for b in range(n_blocks - 1, -1, -1):
            undo_block(BITS, b, 0, (1 << n_qubits) // n_span, S, tables, n_span, common, T, R, P, E)
        for i in range(g_amps.shape[1] if len(g_amps) else 0):
            for w in range(rows):
                for part in range(g_amps.shape[2]):
                    g_amps[row + w, i, part] = 2 * norms[1] * S[(place(i) * 4 + 2 + part) * W + w]
        if n_start:
            matrices(tables, T, M)
            unproduct(S, 0, n_qubits, tables, T, M, E)
        _angle_gradients(tables, table, batched.shape[1], row, rows, E, g_batched, g_shared, chunk)
        if fetch_add(next_chunk[1:]) == len(g_shared) - 1:
            for k in range(len(total)):
                some = 0.0
                for c in range(len(g_shared)):
                    some += g_shared[c, k]
                total[k] = some
    restore_denormals(before)


@inline
def common_of(tables, n_qubits, numbers, flip):
    """What `prepare` writes, in one array of numbers and flip."""
    n_args, n_items, size = len(tables.arguments), len(tables.items), 1 << n_qubits
    a = 2 + 3 * n_args
    b = a + n_items
    phases = numbers[b:].reshape(((len(numbers) - b) // (2 * size), 2, size))
    return Common(numbers[2:a].reshape((n_args, 3)), numbers[a:b], phases, numbers[:2], flip)


@inline
def split(work, W, n_span, b, c, d):
    """Parts of a buffer, of so many registers each, the first two of `n_span`, and the rest."""
    a = 2 * n_span
    b, c, d = a + b, a + b + c, a + b + c + d
    P, R = work[: n_span * W], work[n_span * W : a * W]
    return P, R, work[a * W : b * W], work[b * W : c * W], work[c * W : d * W], work[d * W :]

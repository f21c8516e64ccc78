# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels for one state after the other: lanes are the lowest bits of an amplitude's index.

A sample goes through stages, and each stage through tasks that touch different registers: whichever thread is free
takes the next task, and begins a stage when all tasks of the one before are done. What tasks add up they add up each on
its own, and the last stage sums over tasks in order: equal bits, whatever the threads.

All angles are one sample's own, so that all rotations are run divided by their cosines (`passes.prepare`), and all
phases in sweeps. A state that starts as a product is ``lane (x) low (x) high``: its factors over the bits of the lanes,
and over both halves of the other bits.
"""

from __future__ import annotations

import numpy as np

from qbp.executors.native.kernels.atomics import (
    count,
    count_up,
    fetch_add,
    flush_denormals,
    restore_denormals,
    wait_a_little,
)
from qbp.executors.native.kernels.conventions import (
    AXIS,
    COS,
    FACTOR,
    FIRST,
    FIRST_TERM,
    FLIP_1,
    IN_SWEEP,
    LANES_Z,
    LAST,
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
    other_of,
    unpacked,
)
from qbp.executors.native.kernels.fixed_point import as_turns, turns_in
from qbp.executors.native.kernels.jit import inline, jit, kernel
from qbp.executors.native.kernels.passes import (
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
    load_both,
    load_complex,
    n_lanes,
    parity,
    splat,
    store,
    store_both,
    store_complex,
)

__all__ = ["backward", "forward"]


@inline
def _bits(S):
    """log2 W, a constant."""
    W = n_lanes(S)
    return 1 if W == 2 else 2 if W == 4 else 3 if W == 8 else 4


@inline
def _share(n, task, n_tasks):
    """First and last of the n things that are a task's."""
    return n * task // n_tasks, n * (task + 1) // n_tasks


# ---- the first stages: angles, and the states to start from ----------------------------------------------------------


@jit
def _begin(tables, batched, shared, row, parts, common):
    """Angles of one sample into lanes, T[a, 2, W], and the three factors of the product state."""
    arguments, start, table = tables.arguments, tables.start, common.table
    T, signs, M, lane, angles = parts.T, parts.signs, parts.M, parts.lane, parts.angles
    W, bits, n_batched = n_lanes(T), _bits(T), batched.shape[1]
    turns = as_turns(T)
    for k in range(n_batched):
        angles[k] = batched[row, k]
    for k in range(len(shared)):
        angles[n_batched + k] = shared[k]
    prepare(tables, 0, angles, common)
    for z in range(W):
        for w in range(W):
            signs[z * W + w] = 1 - 2 * parity(z & w)
    for a in range(len(arguments)):
        at, z = a * 2 * W, arguments[a, LANES_Z] * W
        if arguments[a, AXIS] == IN_SWEEP:
            turn = turns_in(table[a, SIGN] * table[a, SHARED_PART], T)
            for w in range(W):
                turns[at + w] = turn if signs[z + w] > 0 else -turn
        else:
            store(T, at, splat(table[a, COS]))
            store(T, at + W, splat(table[a, SIN]) * load(signs, z))
    if len(start):
        n_low, n_high = _halves(len(start) - bits)
        matrices(tables, T, M)
        product(lane, 4 * W, 0, bits, M)
        product(parts.low, 4 * W, bits, n_low, M)
        product(parts.high, 4 * W, bits + n_low, n_high, M)
        at = 4 * W * W
        for i in range(W):  # its factor over the bits of the lanes goes into lanes
            lane[at + i], lane[at + W + i] = lane[place(i) * 4 * W], lane[place(i) * 4 * W + W]


@inline
def _halves(n_bits):
    """How the bits of a register's index are split."""
    return n_bits // 2, n_bits - n_bits // 2


@jit
def _fill(S, stride, n_registers, parts, amplitudes, row, task, n_tasks):
    """The product state, or given amplitudes."""
    lane, low, high = parts.lane, parts.low, parts.high
    W = n_lanes(S)
    if len(amplitudes):
        first, last = _share(n_registers, task, n_tasks)
        for r in range(first, last):
            A = place(r) * stride
            for w in range(W):
                S[A + w] = amplitudes[row, r * W + w, 0]
                S[A + W + w] = amplitudes[row, r * W + w, 1] if amplitudes.shape[2] == 2 else 0
        return
    n_low, n_high = len(low) // (4 * W), len(high) // (4 * W)
    first, last = _share(n_high, task, n_tasks)
    a, b = load(lane, 4 * W * W), load(lane, 4 * W * W + W)
    for h in range(first, last):
        at = place(h) * 4 * W
        x, y = load_complex(high, at, 0)
        x, y = a * x - b * y, a * y + b * x
        for k in range(n_low):
            at, A = place(k) * 4 * W, place(h * n_low + k) * stride
            p, q = load_complex(low, at, 0)
            store_complex(S, A, 0, p * x - q * y, p * y + q * x)


# ---- measurements ----------------------------------------------------------------------------------------------------


@inline
def _signed(number, mask):
    """The number with the sign of the mask's parity."""
    return -number if parity(mask) else number


@inline
def _weight(t, tables, flip):
    """The coefficient of a measured word, with the sign that the half turns at the end give it."""
    diagonal, number = tables.diagonal, tables.coefficients[t]
    if t < len(diagonal):
        return _signed(number, flip[0] & diagonal[t, MEASURED_Z])
    word = other_of(tables.others, t - len(diagonal))
    return _signed(_signed(number, flip[0] & word.z), flip[1] & word.x)


@jit
def _measure(S, stride, n_registers, n_span, tables, common, signs, task, n_tasks, P, Y):
    """A task's part of the expectation value of every measured word, Y[t, W]."""
    places, diagonal, others, flip = tables.places, tables.diagonal, tables.others, common.flip
    W, bits = n_lanes(S), _bits(S)
    zero, square = splat(S.dtype.type(0)), splat(common.norms[0] * common.norms[0])
    for d in range(len(diagonal)):
        store(Y, d * W, zero)
    first, last = _share(n_registers // n_span, task, n_tasks)
    for rep in range(first * n_span, last * n_span if len(diagonal) else 0, n_span):
        for k in range(n_span):
            x, y = load_complex(S, (rep + k) * stride, 0)
            store(P, k * W, square * (x * x + y * y))
        hadamard(P, n_span)
        for d in range(len(diagonal)):
            at, z, lanes = d * W, diagonal[d, MEASURED_Z] >> bits, diagonal[d, MEASURED_Z] & (1 << bits) - 1
            g = splat(S.dtype.type(_signed(_weight(d, tables, flip), rep & z))) * load(signs, lanes * W)
            store(Y, at, load(Y, at) + g * load(P, (z & (n_span - 1)) * W))
    for t in range(len(others)):
        word = other_of(others, t)
        by, within = word.x & (1 << bits) - 1, word.x >> bits == 0
        g = S.dtype.type((1 if within else 2) * _weight(len(diagonal) + t, tables, flip))
        total = zero
        first, last = _share(word.n_hi, task, n_tasks)
        for h in range(word.hi + first, word.hi + last):
            base = places[h] & PLACE
            some = zero
            for k in range(word.lo, word.lo + word.n_lo):
                i = base ^ places[k]
                A, B = i * stride, (i ^ word.x >> bits) * stride
                x0, y0 = load_complex(S, A, 0)
                x1, y1 = load_complex(S, B, by)
                if not word.imaginary:
                    some = some + (x0 * x1 + y0 * y1)
                else:
                    some = some + (x0 * y1 - y0 * x1)
            total = total - some if places[h] >= FLIP_1 else total + some
        signed = splat(g) * load(signs, (word.z & (1 << bits) - 1) * W) * square
        store(Y, (len(diagonal) + t) * W, signed * total)


@jit
def _outputs(S, stride, n_qubits, tables, common, Y, n_tasks, out, row):
    """The outputs of a sample: expectation values over all tasks and lanes, and probabilities."""
    places, diagonal, others, probs = tables.places, tables.diagonal, tables.others, tables.probs
    W, bits, n_words = n_lanes(S), _bits(S), len(diagonal) + len(others)
    sums = np.zeros(out.shape[1])
    for t in range(n_words):
        m = diagonal[t, OUTPUT] if t < len(diagonal) else others[t - len(diagonal), OUTPUT]
        for task in range(n_tasks):
            sums[m] += hsum(load(Y, (task * n_words + t) * W))
    n_lo, square = n_qubits // 2, common.norms[0] * common.norms[0]
    for q in range(len(probs)):
        first, lo, hi = probs[q, PROBS_OUTPUT], probs[q, PROBS_LO], probs[q, PROBS_HI]
        for i in range(1 << n_qubits):
            at, j = (i >> bits) * stride + (i & W - 1), i ^ common.flip[0]
            outcome = places[hi + (j >> n_lo)] ^ places[lo + (j & (1 << n_lo) - 1)]
            sums[first + outcome] += square * (S[at] * S[at] + S[at + W] * S[at + W])
    for m in range(len(sums)):
        out[row, m] = sums[m]


@jit
def _unmeasure(S, psi, n_qubits, n_span, tables, common, signs, grad, row, task, n_tasks, P):
    """A task's part of psi into S, and of ``lambda = sum_m g_m O_m psi`` without the words that have an x-mask."""
    places, diagonal, probs, flip = tables.places, tables.diagonal, tables.probs, common.flip
    W, bits, n_lo = n_lanes(S), _bits(S), n_qubits // 2
    factor = splat(common.norms[0])
    first, last = _share((1 << n_qubits - bits) // n_span, task, n_tasks)
    for rep in range(first * n_span, last * n_span, n_span):
        for k in range(n_span):
            store(P, k * W, splat(S.dtype.type(0)))
        for d in range(len(diagonal)):
            z, lanes = diagonal[d, MEASURED_Z] >> bits, diagonal[d, MEASURED_Z] & (1 << bits) - 1
            at = (z & (n_span - 1)) * W
            g = S.dtype.type(_signed(_weight(d, tables, flip), rep & z)) * grad[row, diagonal[d, OUTPUT]]
            store(P, at, load(P, at) + splat(g) * load(signs, lanes * W))
        if len(diagonal):
            hadamard(P, n_span)
        for q in range(len(probs)):
            out, lo, hi = probs[q, PROBS_OUTPUT], probs[q, PROBS_LO], probs[q, PROBS_HI]
            for i in range(n_span * W):
                j = (rep * W + i) ^ flip[0]
                P[i] += grad[row, out + (places[hi + (j >> n_lo)] ^ places[lo + (j & (1 << n_lo) - 1)])]
        for k in range(n_span):
            A, B = (rep + k) * 4 * W, (rep + k) * 2 * W
            x, y, w = factor * load(psi, B), factor * load(psi, B + W), load(P, k * W)
            store_both(S, A, 0, x, y, w * x, w * y)


@jit
def _unmeasure_other(t, S, tables, common, signs, grad, row, task, n_tasks):
    """Add a task's part of ``g_m O psi`` to lambda, of one measured word with an x-mask."""
    places, W, bits = tables.places, n_lanes(S), _bits(S)
    word = other_of(tables.others, t)
    by, within = word.x & (1 << bits) - 1, word.x >> bits == 0
    g = S.dtype.type(_weight(len(tables.diagonal) + t, tables, common.flip)) * grad[row, word.output]
    plus = splat(g) * load(signs, (word.z & (1 << bits) - 1) * W)
    minus = splat(S.dtype.type(0)) - plus
    first, last = _share(word.n_hi, task, n_tasks)
    for h in range(word.hi + first, word.hi + last):
        base = places[h] & PLACE
        sg = minus if places[h] >= FLIP_1 else plus
        for k in range(word.lo, word.lo + word.n_lo):
            i = base ^ places[k]
            A, B = i * 4 * W, (i ^ word.x >> bits) * 4 * W
            x0, y0, u0, v0 = load_both(S, A, 0)
            x1, y1, u1, v1 = load_both(S, B, by)
            if not word.imaginary:
                u0, v0, u1, v1 = u0 + sg * x1, v0 + sg * y1, u1 + sg * x0, v1 + sg * y0
            else:
                u0, v0, u1, v1 = u0 + sg * y1, v0 - sg * x1, u1 - sg * y0, v1 + sg * x0
            if not within:
                store_complex(S, B + 2 * W, by, u1, v1)
            store_complex(S, A + 2 * W, 0, u0, v0)


# ---- the last stages of going back -----------------------------------------------------------------------------------


@jit
def _unfill(S, parts, common, g_amps, row, n_registers, task, n_tasks):
    """The gradient of amplitudes; or ``<high| lambda>`` of all low parts, and ``<lane low| lambda>`` of each high one.

    The first is a sum over high parts, of which each task has its own.
    """
    lane, low, high, sums = parts.lane, parts.low, parts.high, parts.sums
    W = n_lanes(S)
    if len(g_amps):
        first, last = _share(n_registers, task, n_tasks)
        for r in range(first, last):
            A = place(r) * 4 * W
            for w in range(W):
                for part in range(g_amps.shape[2]):
                    g_amps[row, r * W + w, part] = 2 * common.norms[1] * S[A + (2 + part) * W + w]
    if not len(sums):
        return
    n_low, n_high = len(low) // (4 * W), len(high) // (4 * W)
    zero = splat(S.dtype.type(0))
    mine = task * n_low * 2 * W
    for k in range(2 * n_low):
        store(sums, mine + k * W, zero)
    first, last = _share(n_high, task, n_tasks)
    a, b = load(lane, 4 * W * W), load(lane, 4 * W * W + W)
    for h in range(first, last):
        at = place(h) * 4 * W
        x, y = load_complex(high, at, 0)
        real = imaginary = zero
        for k in range(n_low):
            A, B, C = place(h * n_low + k) * 4 * W, place(k) * 4 * W, mine + k * 2 * W
            (u, v), (p, q) = load_complex(S, A + 2 * W, 0), load_complex(low, B, 0)
            real, imaginary = real + (p * u + q * v), imaginary + (p * v - q * u)
            store(sums, C, load(sums, C) + (x * u + y * v))
            store(sums, C + W, load(sums, C + W) + (x * v - y * u))
        store(high, at + 2 * W, splat(hsum(a * real + b * imaginary)))
        store(high, at + 3 * W, splat(hsum(a * imaginary - b * real)))


@jit
def _unproduct(parts, tables, n_tasks, E):
    """The gradients of the rotations of the start, in all lanes: three small product states, each with its lambda."""
    T, M, lane, low, high, sums = parts.T, parts.M, parts.lane, parts.low, parts.high, parts.sums
    W, bits, n_low = n_lanes(T), _bits(T), len(low) // (4 * n_lanes(T))
    a, b = load(lane, 4 * W * W), load(lane, 4 * W * W + W)
    real = imaginary = splat(T.dtype.type(0))
    for k in range(n_low):
        u = v = splat(T.dtype.type(0))
        for task in range(n_tasks):
            C = (task * n_low + k) * 2 * W
            u, v = u + load(sums, C), v + load(sums, C + W)
        at = place(k) * 4 * W
        p, q = load_complex(low, at, 0)
        real, imaginary = real + (p * u + q * v), imaginary + (p * v - q * u)
        store(low, at + 2 * W, splat(hsum(a * u + b * v)))
        store(low, at + 3 * W, splat(hsum(a * v - b * u)))
    at = (4 * W + 2) * W  # lambda of every lane, in the lanes of two registers
    store(lane, at, real)
    store(lane, at + W, imaginary)
    for i in range(W):
        store(lane, (place(i) * 4 + 2) * W, splat(lane[at + i]))
        store(lane, (place(i) * 4 + 3) * W, splat(lane[at + W + i]))
    bits_low, bits_high = _halves(len(tables.start) - bits)
    unproduct(lane, 0, bits, tables, T, M, E)
    unproduct(low, bits, bits_low, tables, T, M, E)
    unproduct(high, bits + bits_low, bits_high, tables, T, M, E)


@jit
def _finish(tables, common, parts, n_tasks, row, g_batched, g_shared):
    """From what all tasks and lanes have of every argument's gradient to the gradients of the angles."""
    arguments, terms, start, table = tables.arguments, tables.terms, tables.start, common.table
    signs, angles, E = parts.signs, parts.angles, parts.E
    W, n_args, n_batched = n_lanes(E), len(arguments), g_batched.shape[1]
    if len(parts.sums):
        _unproduct(parts, tables, n_tasks, E[n_tasks * n_args * W :])
        for bit in range(len(start)):
            for a in range(start[bit, FIRST], start[bit, LAST]):  # lambda only is as much too small
                E[a * W] = common.norms[1] * E[(n_tasks * n_args + a) * W]
                table[a, FACTOR] = 1
    angles[:] = 0
    for a in range(n_args):
        total = 0.0
        for task in range(n_tasks):
            total += hsum(load(E, (task * n_args + a) * W) * load(signs, arguments[a, LANES_Z] * W))
        for t in range(arguments[a, FIRST_TERM], arguments[a, LAST_TERM]):
            angles[terms[t]] += table[a, FACTOR] * 2 * tables.scales[t] * total
    for k in range(n_batched):
        g_batched[row, k] = angles[k]
    for k in range(g_shared.shape[1]):
        g_shared[row, k] = angles[n_batched + k]


# ---- stages ----------------------------------------------------------------------------------------------------------


@jit
def _forward_stage(stage, task, n_tasks, n_qubits, n_span, tables, S, parts, common, inputs, row, out, P, R):
    """One task of going forward: begin, fill, blocks, measure, outputs."""
    batched, shared, amplitudes = inputs
    W, n_blocks, n_words = n_lanes(S), len(tables.blocks), len(tables.diagonal) + len(tables.others)
    n_registers, stride = (1 << n_qubits) // W, 2 * W
    if stage == 0:
        _begin(tables, batched, shared, row, parts, common)
    elif stage == 1:
        _fill(S, stride, n_registers, parts, amplitudes, row, task, n_tasks)
    elif stage < 2 + n_blocks:
        first, last = _share(n_registers // n_span, task, n_tasks)
        run_block(_bits(S), stage - 2, first, last - first, S, stride, tables, n_span, common, parts.T, R)
    elif stage == 2 + n_blocks:
        mine = parts.Y[task * n_words * W :]
        _measure(S, stride, n_registers, n_span, tables, common, parts.signs, task, n_tasks, P, mine)
    else:
        _outputs(S, stride, n_qubits, tables, common, parts.Y, n_tasks, out, row)


@jit
def _backward_stage(stage, task, n_tasks, n_qubits, n_span, tables, S, psi, parts, common, inputs, grads, row, P, R):
    """One task of going back: begin, lambda, word after word, blocks, the start, the angles."""
    batched, shared, _ = inputs
    grad, g_batched, g_shared, g_amps = grads
    signs, E = parts.signs, parts.E
    W, n_blocks, n_others = n_lanes(S), len(tables.blocks), len(tables.others)
    n_registers = (1 << n_qubits) // W
    if stage == 0:
        _begin(tables, batched, shared, row, parts, common)
        E[:] = 0
    elif stage == 1:
        _unmeasure(S, psi, n_qubits, n_span, tables, common, signs, grad, row, task, n_tasks, P)
    elif stage < 2 + n_others:
        _unmeasure_other(stage - 2, S, tables, common, signs, grad, row, task, n_tasks)
    elif stage < 2 + n_others + n_blocks:
        first, last = _share(n_registers // n_span, task, n_tasks)
        b, mine = 1 + n_others + n_blocks - stage, E[task * len(tables.arguments) * W :]
        undo_block(_bits(S), b, first, last - first, S, tables, n_span, common, parts.T, R, P, mine)
    elif stage == 2 + n_others + n_blocks:
        _unfill(S, parts, common, g_amps, row, n_registers, task, n_tasks)
    else:
        _finish(tables, common, parts, n_tasks, row, g_batched, g_shared)


@inline
def _wait(counters, mine, stage, last, n_tasks):
    """Until all tasks of the stage before are done; before the first stage of a sample comes the last of another."""
    if stage > 0:
        n_before, before = 1 if stage == 1 else n_tasks, counters[mine, stage - 1, 1:]
    else:
        n_before, before = int(mine > 0), counters[mine - 1, last, 1:]
    while count(before) < n_before:
        wait_a_little()


@kernel
def forward(
    next_row,
    counters,
    alone,
    n_tasks,
    n_qubits,
    n_span,
    arrays,
    inputs,
    out,
    states,
    keep,
    parts,
    common,
    scratch,
):
    """Samples of a batch, until none is left: outputs (B, M), and the final states where they are kept.

    Args:
        next_row: (1,), the first sample that no thread has taken, where each thread works alone.
        counters: (B or 1, stages, 2) zeros: of every stage the tasks taken, and those done.
        alone: whether this thread does all tasks of its samples; else all threads do tasks of one sample after another.
        n_tasks: of every stage but the first and the last, which are one task.
        n_span: number of registers in a coset of a block.
        arrays: a `Tables.packed`.
        inputs: batched (B, Kb), shared (Ks,), amplitudes (B, 2^N, 1 or 2) or no rows of them for a product start.
        states: flat, 2 * 2^N numbers for every sample if `keep`, else only once.
        parts, common: `Parts` and `Common`.
        scratch: flat, `2 n_span` registers, this thread's own.
    """
    tables, W, size = unpacked(arrays), n_lanes(states), 2 << n_qubits
    P, R = scratch[: n_span * W], scratch[n_span * W :]
    row, last = -1, 3 + len(tables.blocks)
    before = flush_denormals()
    while True:
        row = fetch_add(next_row) if alone else row + 1
        if row >= len(out):
            break
        mine = 0 if alone else row
        if alone:
            counters[0] = 0
        S = states[row * size : (row + 1) * size] if keep else states
        for stage in range(last + 1):
            while True:
                task = fetch_add(counters[mine, stage])
                if task >= (1 if stage in (0, last) else n_tasks):
                    break
                _wait(counters, mine, stage, last, n_tasks)
                _forward_stage(
                    *(stage, task, n_tasks, n_qubits, n_span, tables, S, parts, common, inputs, row, out, P, R)
                )
                count_up(counters[mine, stage, 1:])
    restore_denormals(before)


@kernel
def backward(
    next_row,
    counters,
    alone,
    n_tasks,
    n_qubits,
    n_span,
    arrays,
    inputs,
    grads,
    states,
    S,
    parts,
    common,
    scratch,
):
    """Samples of the vector-Jacobian product, until none is left; arguments are those of `forward`, and

    Args:
        grads: gradient of the outputs (B, M); to be written: those of batched (B, Kb) and shared angles, of the latter
            for each sample, (B, Ks), and of the amplitudes, (B, 2^N, 1 or 2) if it has rows.
        states: the final states that `forward` kept.
        S: flat, 4 * 2^N numbers.
    """
    tables, W, size = unpacked(arrays), n_lanes(S), 2 << n_qubits
    P, R = scratch[: n_span * W], scratch[n_span * W :]
    row, last = -1, 3 + len(tables.others) + len(tables.blocks)
    before = flush_denormals()
    while True:
        row = fetch_add(next_row) if alone else row + 1
        if row >= len(grads[0]):
            break
        mine = 0 if alone else row
        if alone:
            counters[0] = 0
        psi = states[row * size : (row + 1) * size]
        for stage in range(last + 1):
            while True:
                task = fetch_add(counters[mine, stage])
                if task >= (1 if stage in (0, last) else n_tasks):
                    break
                _wait(counters, mine, stage, last, n_tasks)
                _backward_stage(
                    *(stage, task, n_tasks, n_qubits, n_span, tables, S, psi, parts, common, inputs, grads, row, P, R)
                )
                count_up(counters[mine, stage, 1:])
    restore_denormals(before)

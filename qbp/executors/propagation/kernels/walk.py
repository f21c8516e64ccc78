# mypy: disable-error-code="no-untyped-def"
"""Words carried back through steps: what each becomes, found again where another one became the same.

Words that are there lie in a table by their masks. A step takes those that it touches out of it, and puts what they
become in: nodes of a graph, each defined by up to two later ones.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from qbp.executors.native.kernels.jit import inline, jit, kernel
from qbp.executors.native.kernels.simd import parity
from qbp.executors.propagation.kernels.conventions import Carried, Graph

__all__ = ["walk"]

ABSENT = -1
MANY = 1 << 30


@intrinsic
def _ones(typing, mask):
    """How many bits of an integer are 1."""

    def generate(context, builder, sig, args):
        return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)]), [args[0]])

    return mask(mask), generate


@inline
def _anticommute(word, other, P):
    crossings = np.int64(0)
    for p in range(P):
        crossings ^= (word[p] & other[P + p]) ^ (word[P + p] & other[p])
    return parity(crossings)


@inline
def _hash(word, P):
    mixed = np.uint64(0x9E3779B97F4A7C15)
    for p in range(2 * P):
        mixed = (mixed ^ np.uint64(word[p])) * np.uint64(0xFF51AFD7ED558CCD)
        mixed ^= mixed >> np.uint64(32)
    return np.int64(mixed >> np.uint64(1))


@jit
def _find(words, table, word, P):
    """The place in the table that has a word, or the empty one where it goes."""
    last = len(table) - 1
    at = _hash(word, P) & last
    while table[at] >= 0:
        other, same = words[table[at]], True
        for p in range(2 * P):
            same &= other[p] == word[p]
        if same:
            break
        at = (at + 1) & last
    return at


@jit
def _filled(words, n, size, P):
    """The table of n words."""
    table = np.full(size, -1, np.int64)
    for i in range(n):
        table[_find(words, table, words[i], P)] = i
    return table


@jit
def _longer(array, n):
    if len(array) >= n:
        return array
    new = np.zeros(max(n, 2 * len(array)), array.dtype)
    new[: len(array)] = array
    return new


@inline
def _keeps(coefficient, threshold, over, cut):
    """By what a word's coefficient is multiplied: 1, 0 where it is left out, more where chance keeps it."""
    if not over and coefficient >= threshold:
        return 1.0
    if not cut.random or coefficient == 0:
        return 0.0
    if coefficient >= threshold:
        return 1.0
    return threshold / coefficient if np.random.random() * threshold < coefficient else 0.0


@jit
def _sees(test, everything, P):
    """Whether a word with letters among these can anticommute with a test."""
    common = np.int64(0)
    for p in range(P):
        common |= (everything[p] & test[P + p]) | (everything[P + p] & test[p])
    return common != 0


@jit
def _weight(word, letters, P):
    """How many wires have a letter in the circuit as it is written."""
    weight = 0
    for w in range(0, len(letters), 2):
        weight += _anticommute(word, letters[w], P) | _anticommute(word, letters[w + 1], P)
    return weight


@jit
def _product(word, entry, phase, result, P):
    """The product of an entry and a word into `result`; its sign, and whether it is another word."""
    twice, moves = 0, np.int64(0)
    for p in range(P):
        x, z = word[p], word[P + p]
        result[p], result[P + p] = x ^ entry[p], z ^ entry[P + p]
        phase += _ones(x & z) - _ones(result[p] & result[P + p])
        twice += _ones(entry[P + p] & x)
        moves |= entry[p] | entry[P + p]
    return 1.0 - ((phase + 2 * twice) & 3), moves != 0


@jit
def _settle(words, nodes, values, sines, n, table, mask, A, CA, record, absolute, P):
    """Words whose qubits of a mask nothing moves any more, nor sees: those with an X there are 0, a Z there is 1.

    Words that become the same are one. Returns how many went, and how many have another place in the table; at their
    old one nothing looks for them any more.
    """
    word, n_gone, n_moved = np.zeros(2 * P, np.int64), 0, 0
    for i in range(n):
        flips, signs = np.int64(0), np.int64(0)
        for p in range(P):
            flips |= words[i, p] & mask[p]
            signs |= words[i, P + p] & mask[p]
        if nodes[i] == ABSENT or flips | signs == 0:
            continue
        n_gone += 1
        if flips != 0:
            nodes[i] = ABSENT
            continue
        for p in range(P):
            word[p], word[P + p] = words[i, p], words[i, P + p] & ~mask[p]
        at = _find(words, table, word, P)
        j = table[at]
        if j < 0:
            table[at] = i
            words[i] = word
            n_gone -= 1
            n_moved += 1
        elif nodes[j] == ABSENT:
            nodes[j], values[j], sines[j] = nodes[i], values[i], sines[i]
            nodes[i] = ABSENT
            n_gone -= 1
        else:
            low, high = min(nodes[i], nodes[j]), max(nodes[i], nodes[j])
            if record:
                A[low], CA[low] = high, 1.0
            nodes[i], nodes[j] = ABSENT, high
            values[j] += abs(values[i]) if absolute else values[i]
            sines[j] = min(sines[i], sines[j])
    return n_gone, n_moved


@jit
def _compact(words, nodes, values, sines, n):
    """Let those that are absent go; returns how many are left."""
    m = 0
    for i in range(n):
        if nodes[i] != ABSENT:
            words[m] = words[i]
            nodes[m], values[m], sines[m] = nodes[i], values[i], sines[i]
            m += 1
    return m


@kernel
def walk(tables, first, last, start, weights, cos, sin, cut, record, absolute, most, seed):
    """Carry words back through steps last - 1, ..., first.

    Args:
        tables: `Tables`.
        start: (n, 2P) different words, and `weights` (n,) their coefficients.
        cos, sin: by rows of angles, for coefficients.
        cut: `Cut`.
        record: whether the graph is wanted, not only coefficients.
        absolute: whether coefficients are sums of absolute values, bounds for any signs.
        most: nodes of the graph, or words, at which to stop.
        seed: of what is random.

    Returns:
        `Carried`; its nodes are numbered from 2, those of `start` first.
    """
    P = start.shape[1] // 2
    np.random.seed(seed)
    n, n_nodes, n_peak, stopped, threshold = len(start), 2 + len(start), len(start), -1, cut.coefficient
    size = 16
    while size < 4 * n + 4:
        size *= 2
    words = np.zeros((size // 2, 2 * P), np.int64)
    words[:n] = start
    table = _filled(words, n, size, P)
    nodes, values, sines = np.zeros(size // 2, np.int64), np.zeros(size // 2), np.zeros(size // 2, np.int64)
    for i in range(n):
        nodes[i], values[i] = 2 + i, weights[i]
    room = 4 * n_nodes if record else 0
    A, B, K = np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.int64)
    CA, CB = np.zeros(room), np.zeros(room)
    everything = np.zeros(2 * P, np.int64)  # letters of any word that is there
    for i in range(n):
        for p in range(2 * P):
            everything[p] |= words[i, p]
    word = np.zeros(2 * P, np.int64)
    touched, rows, changed = np.zeros(16, np.int64), np.zeros(16, np.int64), np.zeros(16, np.int64)
    old_nodes, old_sines, old_values = np.zeros(16, np.int64), np.zeros(16, np.int64), np.zeros(16)
    n_absent, n_filled = 0, n  # words that are not there, and filled places of the table

    for s in range(last, first - 1, -1):
        n_touched, n_changed = 0, 0
        if s < last:
            t0, t1, seen = tables.test_at[s], tables.test_at[s + 1], False
            for t in range(t0, t1):
                seen |= _sees(tables.tests[t], everything, P)
            if seen:
                touched, rows = _longer(touched, n), _longer(rows, n)
                for i in range(n):
                    row = tables.row_at[s]
                    for t in range(t0, t1):
                        row += _anticommute(words[i], tables.tests[t], P) << (t - t0)
                    if tables.touched[row] and nodes[i] != ABSENT:
                        touched[n_touched], rows[n_touched] = i, row
                        n_touched += 1
        if n_touched > 0:
            n_entries, n_sums = 0, 0
            for t in range(n_touched):
                n_own = tables.entry_at[rows[t] + 1] - tables.entry_at[rows[t]]
                n_entries += n_own
                n_sums += max(0, n_own - 2)
            if n + n_entries > len(words):
                larger = np.zeros((2 * (n + n_entries), 2 * P), np.int64)
                larger[:n] = words[:n]
                words = larger
                nodes, values, sines = (
                    _longer(nodes, len(words)),
                    _longer(values, len(words)),
                    _longer(sines, len(words)),
                )
                while size < 2 * len(words):
                    size *= 2
                n_filled = size  # anew
            if 2 * (n_filled + n_entries) > size:
                while size < 4 * (n + n_entries):
                    size *= 2
                table, n_filled = _filled(words, n, size, P), n
            if record:
                room = n_nodes + 2 * n_entries
                A, B, K = _longer(A, room), _longer(B, room), _longer(K, room)
                CA, CB = _longer(CA, room), _longer(CB, room)
            old_nodes, old_sines, old_values = (
                _longer(old_nodes, n_touched),
                _longer(old_sines, n_touched),
                _longer(old_values, n_touched),
            )
            changed = _longer(changed, n_entries)
            for t in range(n_touched):
                i = touched[t]
                old_nodes[t], old_values[t], old_sines[t] = nodes[i], values[i], sines[i]
                nodes[i], values[i] = ABSENT, 0.0
                n_absent += 1
            k, next_sum = tables.angles[s], n_nodes
            n_nodes += n_sums
            fresh = n_nodes
            for t in range(n_touched):
                i, current = touched[t], old_nodes[t]
                begin, end = tables.entry_at[rows[t]], tables.entry_at[rows[t] + 1]
                for e in range(begin, end):
                    sign, moves = _product(words[i], tables.entries[e], tables.phases[e], word, P)
                    j = i
                    if moves:
                        at = _find(words, table, word, P)
                        j = table[at]
                        if j < 0:
                            j, table[at] = n, n
                            words[n] = word
                            nodes[n], values[n] = ABSENT, 0.0
                            for p in range(2 * P):
                                everything[p] |= word[p]
                            n += 1
                            n_filled += 1
                            n_absent += 1
                    of_sine = tables.sines[e]
                    if nodes[j] == ABSENT:
                        nodes[j], sines[j] = n_nodes, MANY
                        n_nodes += 1
                        n_absent -= 1
                        changed[n_changed] = j
                        n_changed += 1
                    elif nodes[j] < fresh:  # a word that the step leaves as it is
                        if record:
                            A[nodes[j]], CA[nodes[j]] = n_nodes, 1.0
                        nodes[j] = n_nodes
                        n_nodes += 1
                    sines[j] = min(sines[j], old_sines[t] + of_sine)
                    factor = sign * tables.coefficients[e]
                    share = old_values[t] * factor * (sin[k] if of_sine else cos[k])
                    values[j] += abs(share) if absolute else share
                    if record:
                        if e == begin:
                            A[current], CA[current], K[current] = nodes[j], factor, k
                        else:
                            if e > begin + 1:  # what was the second becomes a sum
                                B[next_sum], CB[next_sum] = B[current], CB[current]
                                B[current], CB[current] = next_sum, 1.0
                                current = next_sum
                                next_sum += 1
                                A[current], CA[current], K[current] = nodes[j], factor, 0
                            else:
                                B[current], CB[current] = nodes[j], factor
            if threshold > 0 or cut.weight >= 0 or cut.sines >= 0:
                for c in range(n_changed):
                    j, over = changed[c], False
                    if cut.sines >= 0:
                        over |= sines[j] > cut.sines
                    if cut.weight >= 0:
                        over |= _weight(words[j], tables.letters[tables.letters_at[s]], P) > cut.weight
                    factor = _keeps(abs(values[j]), threshold, over, cut)
                    values[j] *= factor
                    if factor == 0:
                        nodes[j] = ABSENT  # whose node is never defined: 0
                        n_absent += 1
            present = n - n_absent
            n_peak = max(n_peak, present)
            if (n_nodes if record else present) > most:
                if not cut.random:
                    stopped = s
                    break
                threshold *= 2.0
        settling = False
        for p in range(P):
            settling |= (everything[p] | everything[P + p]) & tables.settled[s, p] != 0
        if settling:
            if 2 * (n_filled + n) > size:
                while size < 4 * n:
                    size *= 2
                table, n_filled = _filled(words, n, size, P), n
            n_gone, n_moved = _settle(
                *(words, nodes, values, sines, n, table, tables.settled[s], A, CA, record, absolute, P)
            )
            n_absent += n_gone
            n_filled += n_moved
            for p in range(P):
                everything[p] &= ~tables.settled[s, p]
                everything[P + p] &= ~tables.settled[s, p]
        if n_absent > 64 and 2 * n_absent > n:
            n, n_absent = _compact(words, nodes, values, sines, n), 0
            table, n_filled = _filled(words, n, size, P), n
            everything[:] = 0
            for i in range(n):
                for p in range(2 * P):
                    everything[p] |= words[i, p]

    m = _compact(words, nodes, values, sines, n)
    A, B, K = _longer(A, n_nodes), _longer(B, n_nodes), _longer(K, n_nodes)
    CA, CB = _longer(CA, n_nodes), _longer(CB, n_nodes)
    graph = Graph(A[:n_nodes], B[:n_nodes], CA[:n_nodes], CB[:n_nodes], K[:n_nodes])
    return Carried(words[:m].copy(), nodes[:m].copy(), values[:m].copy(), graph, n_peak, stopped)

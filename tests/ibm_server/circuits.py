"""Circuits on as few wires as can be, for the simulators that run them."""

from __future__ import annotations

IGNORED = ("barrier", "delay")
"""What noiseless engines do not need."""


def compact(circuit, keep=()):
    """The same circuit on the qubits it really uses (an ISA circuit is as wide as the device).

    Barriers and delays are dropped: the noiseless engines do not need them. Wires that interact are neighbours as far
    as that goes, which keeps matrix product states small.
    """
    from qiskit import QuantumCircuit

    index = {bit: i for i, bit in enumerate(circuit.qubits)}
    used = set(keep)
    rows = []
    for item in circuit.data:
        if item.operation.name in IGNORED:
            continue
        qubits = [index[bit] for bit in item.qubits]
        used.update(qubits)
        rows.append((item.operation, qubits, item.clbits))
    order = _neighbours(sorted(used) or [0], [qubits for _, qubits, _ in rows if len(qubits) == 2])
    place = {old: new for new, old in enumerate(order)}
    small = QuantumCircuit(len(order))
    small.add_bits(circuit.clbits)
    for register in circuit.cregs:
        small.add_register(register)
    for operation, qubits, clbits in rows:
        small.append(operation, [small.qubits[place[q]] for q in qubits], clbits, copy=False)
    return small, order


def _neighbours(wires, pairs):
    """The wires in an order of small bandwidth (reverse Cuthill-McKee)."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    at = {wire: i for i, wire in enumerate(wires)}
    links = np.array([[at[a], at[b]] for a, b in pairs] + [[i, i] for i in range(len(wires))])
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(len(wires), len(wires)))
    return [wires[i] for i in reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True)]


def crossings(circuit) -> int:
    """The most two-qubit gates across a cut between neighbouring wires: bonds have at most so many bits."""
    index = {bit: i for i, bit in enumerate(circuit.qubits)}
    across = [0] * len(index)
    for item in circuit.data:
        if len(item.qubits) == 2 and item.operation.name != "barrier":
            low, high = sorted(index[q] for q in item.qubits)
            for cut in range(low, high):
                across[cut] += 1
    return max(across, default=0)


def measured_early(circuit):
    """A circuit with the same outcomes on fewer wires: each is measured as soon as it can be, then used for another.

    What the next wire depends on runs first, and of all wires the next is the one whose past begins the fewest others
    (arXiv 2210.08039). Shallow circuits need as many wires as a front between done and not begun is long, whatever the
    size of the device.
    """
    from qiskit import QuantumCircuit

    index = {bit: i for i, bit in enumerate(circuit.qubits)}
    rows = [(item, [index[bit] for bit in item.qubits]) for item in circuit.data if item.operation.name not in IGNORED]
    past = [(0, 1 << wire) for wire in range(len(index))]  # of each wire's end: which rows and which wires, as bits
    for k, (_, wires) in enumerate(rows):
        ops, touched = 1 << k, 0
        for wire in wires:
            ops, touched = ops | past[wire][0], touched | past[wire][1]
        for wire in wires:
            past[wire] = ops, touched
    order, place, free, n_wires = [], {}, [], 0
    waiting, done, begun = {wire for wire in range(len(index)) if past[wire][0]}, 0, 0
    while waiting:
        wire = min(waiting, key=lambda wire: ((past[wire][1] & ~begun).bit_count(), wire))
        waiting.remove(wire)
        for k in _bits(past[wire][0] & ~done):
            item, wires = rows[k]
            for each in wires:
                if each not in place:
                    n_wires += not free
                    place[each] = free.pop() if free else n_wires - 1
            order.append((item.operation, [place[each] for each in wires], item.clbits))
        done, begun = done | past[wire][0], begun | past[wire][1]
        free.append(place.pop(wire))
        order.append((None, [free[-1]], ()))
    small = QuantumCircuit(n_wires)
    small.add_bits(circuit.clbits)
    for register in circuit.cregs:
        small.add_register(register)
    for operation, wires, clbits in order:
        if operation is None:
            small.reset(wires)
        else:
            small.append(operation, [small.qubits[wire] for wire in wires], clbits, copy=False)
    return small


def _bits(number):
    """Which bits are 1, from the lowest on."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low

"""Exact pruning: what a circuit does not need goes, and it still computes the same. No data, no training.

A circuit is ``C V`` with a Clifford `C` and a product `V` of rotations about Pauli words
(`qbp.circuit.pauli`). There it can be read off which rotations commute into the measurement, which only give
their state a phase, and which are about the same word with only commuting ones in between. What is left of redundancy
is a matter of rank: see `qbp.compression.rank`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from qbp.circuit.edit import affine_angles, remake, split
from qbp.circuit.frame import Frame
from qbp.circuit.pauli import Word
from qbp.circuit.program import Channel, Clifford, Expval, Measurement, Op, Probs, Program, Rotation
from qbp.circuit.tracing import Circuit
from qbp.compression.rank import drop_redundant
from qbp.executors.sampled import measurement_groups
from qbp.nn.layer import QuantumLayer
from qbp.nn.shrink import flat_values, shrink

__all__ = ["reduced", "simplify_layer"]

QUARTER = math.pi / 2
QUARTER_EXACT = 1e-6  # quarter turns: what single precision leaves of pi/2


def simplify_layer(layer: QuantumLayer, *, fix_quarters: bool = False, seed: int = 0) -> None:
    """Remove from a layer, in place, whatever its outputs do not need: gates, angles and weights.

    Args:
        layer: the layer.
        fix_quarters: also fix rotations whose weights are exactly at a multiple of pi/2, which then are Clifford gates.
            The layer computes the same, but they are no longer trained.
        seed: of the inputs and weights at which the rank is taken.

    Raises:
        CircuitError: the layer is a QNode that runs itself.
    """
    dtypes = {weight.dtype for weight in layer.qnode_weights.values()}
    layer.double()
    if fix_quarters:
        _fix_quarters(layer)
    _reduce(layer)
    drop_redundant(layer, seed=seed)
    _reduce(layer)
    if len(dtypes) == 1:
        layer.to(dtypes.pop())


def _reduce(layer: QuantumLayer) -> None:
    """Apply `reduced` until nothing changes."""
    circuit = layer.circuit
    values = flat_values(layer)
    while (smaller := reduced(circuit)).program != circuit.program:
        circuit = smaller
    layer.set_circuit(circuit, split(circuit, values))
    shrink(layer)


def _fix_quarters(layer: QuantumLayer) -> None:
    """Fix the weights that turn only rotations by multiples of pi/2."""
    circuit = layer.circuit
    weights = flat_values(layer)
    angles = circuit.angle_map(torch.zeros(1, circuit.n_inputs, dtype=torch.float64), weights).full()[0].tolist()
    places, slopes, _ = affine_angles(circuit.angle_map)
    graphs = (circuit.angle_map.batched_graph, circuit.angle_map.shared_graph, circuit.angle_map.amplitudes_graph)
    if any(graph is not None for graph in graphs):
        return
    of_inputs = (slopes[:, : circuit.n_inputs] != 0).any(1).tolist()
    groups = circuit.program.angle_rotations()
    fixed = {}
    for p in range(len(weights)):
        rows = torch.nonzero(slopes[:, circuit.n_inputs + p]).flatten().tolist()
        turning = [(row, r) for row in rows for r in groups[places[row]]]
        turns = [(r.scale * angles[places[row]] + r.offset) / QUARTER for row, r in turning]
        if turns and not any(of_inputs[row] for row in rows) and all(abs(t - round(t)) < QUARTER_EXACT for t in turns):
            row, r = turning[0]
            slope = r.scale * float(slopes[row, circuit.n_inputs + p])
            fixed[p] = float(weights[p]) + (round(turns[0]) - turns[0]) * QUARTER / slope
    shrink(layer, weights=fixed)


# ---- what the circuit's structure says -------------------------------------------------------------------------------


@dataclass
class _Turn:
    """A rotation of the circuit in the frame, up to its sign."""

    position: int
    word: Word

    def same_as(self, other: _Turn) -> int:
        """+1 or -1 where both are about the same word, else 0."""
        if (self.word.x, self.word.z) != (other.word.x, other.word.z):
            return 0
        return self.word.sign * other.word.sign


def reduced(circuit: Circuit) -> Circuit:
    """One round of exact reductions, for all inputs and weights; the weights stay as they are.

    Clifford gates at the end go into the measured words, those at the start where they do nothing, neighbours cancel;
    rotations that no measurement sees, or that only give the first state a phase, go; rotations about the same word
    become one. Of a circuit with noise goes only what shares no wire with what is measured.
    """
    if circuit.program.is_noisy:  # what commutes with a gate need not commute with its noise
        return _lightcone(circuit)
    program = _without_pairs(_without_last(_without_first(circuit.program)))
    turns, measured = _in_frame(program)
    kept = _seen(turns, measured)
    if not program.amplitudes:
        kept = _not_first(kept)
    merged, kept = _merged(program, kept)
    positions = {turn.position for turn in kept}
    sums: list[list[tuple[int, float]]] = [[(k, 1.0)] for k in range(program.n_angles)]
    ops: list[Op] = []
    for position, op in enumerate(program.ops):
        if _quarters(op) is not None or position in positions:
            ops.append(op)
        if (parts := merged.get(position)) is not None:
            ops[-1] = _sum(op, [(program.ops[p], sign) for p, sign in parts], sums)
    smaller = remake(replace(circuit, program=program), ops, sums=sums)
    return _lightcone(smaller)


def _lightcone(circuit: Circuit) -> Circuit:
    program, kept = circuit.program.lightcone()
    return replace(circuit, program=program, angle_map=circuit.angle_map.select(kept))


def _sum(op: Op, others: Sequence[tuple[Op, int]], sums: list[list[tuple[int, float]]]) -> Rotation:
    """A rotation by what several together turn; the angle that it needs is appended to `sums`."""
    assert isinstance(op, Rotation)
    terms: list[tuple[int, float]] = []
    offset = 0.0
    for part, sign in [(op, 1), *others]:
        assert isinstance(part, Rotation)
        offset += sign * part.offset
        if part.angle is not None:
            terms.append((part.angle, sign * part.scale))
    if not terms:
        return replace(op, offset=offset)
    sums.append(terms)
    return replace(op, angle=len(sums) - 1, scale=1.0, offset=offset)


def _quarters(op: Op) -> int | None:
    """Of a fixed rotation by a multiple of pi/2 how many, 0 for a Clifford gate; None for another op."""
    if isinstance(op, Clifford):
        return 0
    if isinstance(op, Channel):
        return None
    turns = op.offset / QUARTER
    return round(turns) if op.angle is None and abs(turns - round(turns)) < 1e-12 else None


def _steps(program: Program, op: Op) -> Iterator[tuple[Word, int]]:
    """The words and quarter turns that a Clifford gate, or a rotation that is one, is made of."""
    for step in replace(program, ops=(op,)).rotations():
        yield program.word(step), round(step.offset / QUARTER)


def _in_frame(program: Program) -> tuple[list[_Turn], list[Word]]:
    """The rotations that are no Clifford gates, and all measured words, as they are before all Clifford gates."""
    frame, turns = Frame(program.n_qubits), list[_Turn]()
    for position, op in enumerate(program.ops):
        if _quarters(op) is None:
            assert isinstance(op, Rotation)
            turns.append(_Turn(position, frame.pull(program.word(op))))
        else:
            for word, quarters in _steps(program, op):
                frame.turn(word, quarters)
    return turns, [frame.pull(word) for word in _words(program)]


def _words(program: Program) -> list[Word]:
    """Every Pauli word that is measured; for probabilities Z on each wire, of which they are functions."""
    words = []
    for m in program.measurements:
        terms = [("Z", (w,)) for w in m.wires] if isinstance(m, Probs) else [(word, on) for _, word, on in m.terms]
        words += [Word.of(letters, on, program.n_qubits) for letters, on in terms]
    return words


def _seen(turns: Sequence[_Turn], measured: Sequence[Word]) -> list[_Turn]:
    """The rotations that something after them, as far as it is seen itself, does not commute with."""
    after, kept = list(measured), list[_Turn]()
    for turn in reversed(turns):
        if any(turn.word.anticommutes(word) for word in after):
            after.append(turn.word)
            kept.append(turn)
    return kept[::-1]


def _is_stable(word: Word, before: Sequence[_Turn]) -> bool:
    """Whether |0...0> is an eigenstate of the word, and still is after the rotations."""
    return word.x == 0 and not any(turn.word.anticommutes(word) for turn in before)


def _not_first(turns: Sequence[_Turn]) -> list[_Turn]:
    """The rotations that do more than give their state a phase."""
    kept: list[_Turn] = []
    for turn in turns:
        if not _is_stable(turn.word, kept):
            kept.append(turn)
    return kept


def _merged(program: Program, turns: Sequence[_Turn]) -> tuple[dict[int, list[tuple[int, int]]], list[_Turn]]:
    """Which rotations (position, sign) each one takes over, and the rotations that are left."""
    shares = [len(group) for group in program.angle_rotations()]

    def alone(turn: _Turn) -> bool:
        op = program.ops[turn.position]
        return isinstance(op, Rotation) and (op.angle is None or shares[op.angle] == 1)

    taken: dict[int, list[tuple[int, int]]] = {}
    kept: list[_Turn] = []
    for turn in turns:
        for k in reversed(range(len(kept))):
            before = kept[k]
            if alone(turn) and alone(before) and (sign := turn.same_as(before)):
                more = [(p, s * sign) for p, s in taken.pop(before.position, [])]
                taken.setdefault(turn.position, []).extend([(before.position, sign), *more])
                del kept[k]
            elif before.word.anticommutes(turn.word):
                break
        kept.append(turn)
    return taken, kept


# ---- Clifford gates that are not needed ------------------------------------------------------------------------------

# The words of control and target of gates that do nothing where the first is +1, and the second word where it is -1.
_CONTROLLED = {"CNOT": "ZX", "CY": "ZY", "CZ": "ZZ"}


def _without_first(program: Program) -> Program:
    """Without controlled gates whose control, or whose target, is in an eigenstate of theirs."""
    if program.amplitudes:
        return program
    frame, before, ops = Frame(program.n_qubits), list[_Turn](), list[Op]()
    for op in program.ops:
        if isinstance(op, Clifford) and op.name in _CONTROLLED:
            for letter, wire, other, at in zip(
                _CONTROLLED[op.name], op.wires, _CONTROLLED[op.name][::-1], op.wires[::-1], strict=True
            ):
                if _is_stable(word := frame.pull(Word.of(letter, (wire,), program.n_qubits)), before):
                    op = Rotation(other, (at,), None, offset=0.0 if word.sign == 1 else math.pi)
                    break
        if isinstance(op, Rotation) and _quarters(op) is None:
            word = frame.pull(program.word(op))
            if not _is_stable(word, before):
                before.append(_Turn(len(ops), word))
        else:
            for word, quarters in _steps(program, op):
                frame.turn(word, quarters)
        ops.append(op)
    return replace(program, ops=tuple(ops))


def _without_last(program: Program) -> Program:
    """Without the Clifford gates at the end: the words they turn into are measured instead, where that takes no more
    circuits."""
    ops, blocked = list(program.ops), set[int]()
    groups = len(measurement_groups(program))
    measurements = program.measurements
    for position in reversed(range(len(ops))):
        op = ops[position]
        turned = None
        if isinstance(op, Clifford) and blocked.isdisjoint(op.wires):
            turned = _through(program, measurements, op)
        if turned is None or len(measurement_groups(replace(program, measurements=turned))) > groups:
            blocked.update(op.wires)
        else:
            measurements = turned
            del ops[position]
    return replace(program, ops=tuple(ops), measurements=measurements)


def _through(program: Program, measurements: Sequence[Measurement], op: Clifford) -> tuple[Measurement, ...] | None:
    """What to measure before the gate to get what was measured after it; None for probabilities that it changes."""
    frame, n = Frame(program.n_qubits), program.n_qubits
    for word, quarters in _steps(program, op):
        frame.turn(word, quarters)
    turned: list[Measurement] = []
    for m in measurements:
        if isinstance(m, Probs):
            words = [Word.of("Z", (w,), n) for w in m.wires]
            if any(frame.pull(word) != word for word in words):
                return None
            turned.append(m)
            continue
        terms = []
        for coefficient, letters, wires in m.terms:
            word = frame.pull(Word.of(letters, wires, n))
            bits = [(w, bool(word.x >> (n - 1 - w) & 1), bool(word.z >> (n - 1 - w) & 1)) for w in range(n)]
            named = {w: "Y" if x and z else "X" if x else "Z" for w, x, z in bits if x or z}
            terms.append((coefficient * word.sign, "".join(named.values()), tuple(named)))
        turned.append(Expval(tuple(terms)))
    return tuple(turned)


def _without_pairs(program: Program) -> Program:
    """Without pairs of equal self-inverse gates with only commuting ones in between."""
    ops: list[Op] = []
    for op in program.ops:
        for k in reversed(range(len(ops))):
            if isinstance(op, Clifford) and op.name in _SELF_INVERSE and _equal(op, ops[k]):
                del ops[k]
                break
            if not isinstance(op, Clifford) or not _commute(program, op, ops[k]):
                ops.append(op)
                break
        else:
            ops.append(op)
    return replace(program, ops=tuple(ops))


_SYMMETRIC = ("CZ", "SWAP")
_SELF_INVERSE = ("CNOT", "CY", "CZ", "SWAP", "Hadamard", "PauliX", "PauliY", "PauliZ")


def _equal(a: Clifford, b: Op) -> bool:
    return a == b or (isinstance(b, Clifford) and a.name == b.name in _SYMMETRIC and set(a.wires) == set(b.wires))


def _commute(program: Program, gate: Clifford, op: Op) -> bool:
    """Whether every rotation that `op` is made of is about a word that the gate leaves as it is."""
    if set(gate.wires).isdisjoint(op.wires):
        return True
    frame = Frame(program.n_qubits)
    for word, quarters in _steps(program, gate):
        frame.turn(word, quarters)
    steps = [op] if isinstance(op, Rotation) else list(replace(program, ops=(op,)).rotations())
    words = [program.word(step) for step in steps]
    return all(frame.pull(word) == word for word in words)

"""Programs with noise in the Clifford frame: what each random term of each channel does to the signs of angles.

In the frame of `qbp.circuit.frame` a Pauli error is a Pauli word that moves to the end of the circuit, where it changes
the sign of measured words that anticommute with it; on its way it changes the sign of the angles of such rotations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from qbp.circuit.frame import Frame, Measured, Rotations, Turn, walked
from qbp.circuit.pauli import Word
from qbp.circuit.program import Channel, Expval, Measurement, Op, Probs, Program
from qbp.circuit.readout import read
from qbp.executors.native.kernels.conventions import ARGUMENT_1, EVENT, FIRST, KIND, LAST
from qbp.executors.native.plan import Plan, compile_frame, sign_of
from qbp.executors.trajectories.unravelling import Outcome, simplified, unravelled

__all__ = ["Errors", "Noisy", "Outputs", "noisy"]

Row = tuple[int, tuple[str, tuple[int, ...]], float]


@dataclass(frozen=True)
class Errors:
    """The random terms of a program, those of one channel after those of another, without the first of each, which
    changes nothing.

    Attributes:
        rates: (C,) minus the logarithm of the probability that nothing happens at a channel; inf where it never does.
        first: (C + 1,) where the terms of each channel begin.
        cumulative: (E,) the number of the channel and the probability, of its terms, of this one and those before.
        negative: (E,) whether its weight has another sign than that of no error at this channel.
        flips: (E, n bytes) which signs it changes, packed: of arguments, measured words, outcomes' bits.
        event: (E,) the row of `numbers` that it has, or -1.
        blocks: (V,) the block of each event, in the plan.
        numbers: (V, 3) its c, d, s.
        lossy: (V,) whether nothing undoes it.
        weight: the sum of absolute weights, of all channels multiplied.
        sign: of the weight of no error at any channel, where it has one.
        nothing: the weight of no error at all.
        twirled: by how much an output of norm 1 may change, to first order, if all were made Pauli errors.
    """

    rates: np.ndarray
    first: np.ndarray
    cumulative: np.ndarray
    negative: np.ndarray
    flips: np.ndarray
    event: np.ndarray
    blocks: np.ndarray
    numbers: np.ndarray
    lossy: np.ndarray
    weight: float
    sign: float
    nothing: float
    twirled: float


@dataclass(frozen=True)
class Outputs:
    """How the outputs of a program come from what the kernels measure: words, and probabilities.

    Attributes:
        columns: (T,) the output that each word is part of, ascending.
        coefficients: (T,).
        constants: (M,) what identities add.
        n_words: T, and 1 more where the norm is measured, too, after the words.
        probs: for each measurement of probabilities its first output, and how many wires it has.
    """

    columns: np.ndarray
    coefficients: np.ndarray
    constants: np.ndarray
    n_words: int
    probs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Noisy:
    """A compiled program with noise.

    Attributes:
        plan: of the kernels.
        n_marks: how many signs arguments have; those of words follow, then the bits of outcomes.
    """

    plan: Plan
    errors: Errors
    outputs: Outputs
    n_marks: int


@dataclass
class _Place:
    """A channel in its frame: the images of X and Z on its wires, where it stands, and its events' rotations."""

    terms: tuple[Outcome, ...]
    generators: list[Word]
    n_start: list[int]
    n_turns: int
    events: dict[int, int]  # word: position in `turns`
    twirled: float = 0.0  # the largest sum of a row beside the diagonal of the channel


@lru_cache(maxsize=64)
def noisy(program: Program, n_batched: int) -> Noisy:
    """The compiled program.

    Args:
        program: what runs; wires that no output sees are left out before.
        n_batched: how many angles, the first, differ between samples.
    """
    apart, outputs = _apart(program)
    places: list[_Place] = []

    def at_channel(channel: Channel, frame: Frame, rotations: Rotations) -> None:
        terms = unravelled(channel.transfer, len(channel.wires))
        if len(terms) == 1:
            return
        images = [frame.pull(Word.of(letter, (w,), program.n_qubits)) for w in channel.wires for letter in "XZ"]
        matrix = np.abs(channel.matrix())
        place = _Place(terms, images, [], 0, {}, float((matrix.sum(1) - matrix.diagonal()).max()))
        for word in dict.fromkeys(term.event.word for term in terms if term.event):
            image = frame.pull(_word(word, channel, program.n_qubits))
            place.events[word] = len(rotations.turns)
            rotations.turns.append(Turn(Word.hermitian(image.x, image.z), -1, float(image.sign), 0.0, event=True))
        place.n_start, place.n_turns = list(map(len, rotations.start)), len(rotations.turns)
        places.append(place)

    rotations, measured = walked(apart, at_channel)
    return _compiled(apart, rotations, measured, places, outputs, n_batched)


def _word(number: int, channel: Channel, n_qubits: int) -> Word:
    """A word of a channel's wires."""
    wires = channel.wires
    letters = [number >> 2 * k & 3 for k in reversed(range(len(wires)))]
    some = [("IXYZ"[letter], w) for letter, w in zip(letters, wires, strict=True) if letter]
    return Word.of("".join(letter for letter, _ in some), [w for _, w in some], n_qubits)


def _apart(program: Program) -> tuple[Program, Outputs]:
    """The program that measures each word by itself, with simpler channels; and how its outputs come from them."""
    rows: list[Row] = []
    probs: list[tuple[int, Probs]] = []
    constants = np.zeros(program.n_outputs)
    column = 0
    for m in read(program):
        if isinstance(m, Probs):
            probs.append((column, m))
            column += 2 ** len(m.wires)
            continue
        for coefficient, word, wires in m.terms:
            if word:
                rows.append((column, (word, wires), coefficient))
            else:
                constants[column] += coefficient
        column += 1
    ops = tuple(chain(*(simplified(op) if isinstance(op, Channel) else (op,) for op in _joined(program.ops))))
    words = [Expval(((1.0, *word),)) for _, word, _ in rows]
    identity = Expval(((1.0, "", ()),))
    if not program.amplitudes and any(isinstance(op, Channel) and _changes_norms(op) for op in ops):
        words.append(identity)
    outputs = Outputs(
        np.array([column for column, _, _ in rows], np.int64),
        np.array([coefficient for _, _, coefficient in rows]),
        constants,
        len(words),
        tuple((column, len(m.wires)) for column, m in probs),
    )
    measurements: tuple[Measurement, ...] = (*words, *(m for _, m in probs)) or (identity,)  # something has to be
    return replace(program, ops=ops, measurements=measurements, readout=()), outputs


def _joined(ops: Iterable[Op]) -> list[Op]:
    """The ops with channels that follow each other on the same wires made one, whose weights are smaller."""
    joined: list[Op] = []
    last: dict[int, int] = {}  # position of the last op of each wire
    for op in ops:
        at = {last.get(wire, -1) for wire in op.wires}
        before = joined[min(at)] if len(at) == 1 and min(at) >= 0 else None
        if isinstance(op, Channel) and isinstance(before, Channel) and before.wires == op.wires:
            both = Channel.of_matrix(op.name, op.wires, op.matrix() @ before.matrix())
            joined[min(at)] = both
        else:
            last.update(dict.fromkeys(op.wires, len(joined)))
            joined.append(op)
    return joined


def _changes_norms(channel: Channel) -> bool:
    """Whether trajectories of a channel differ in their weighted norms."""
    return any(term.event or term.weight < 0 for term in unravelled(channel.transfer, len(channel.wires)))


def _compiled(
    program: Program,
    rotations: Rotations,
    measured: Measured,
    places: list[_Place],
    outputs: Outputs,
    n_batched: int,
) -> Noisy:
    """See `noisy`."""
    start = [(bit, k) for bit, turns in enumerate(rotations.start) for k in range(len(turns))]
    started = [rotations.start[bit][k] for bit, k in start]
    ends = [word for _, _, word in measured.terms] + [word for _, words in measured.probs for word in words]
    later = _Words([turn.word for turn in chain(started, rotations.turns)] + ends)
    n_start, n_turns = len(start), len(rotations.turns)
    seen = np.ones(len(later), bool)
    seen[n_start : n_start + n_turns] = False
    flips: list[np.ndarray] = []  # of each generator of the places that are seen, the last place first
    kept: list[_Place] = []
    at = n_turns
    for place in (*reversed(places), None):
        first = 0 if place is None else place.n_turns
        for k in range(at - 1, first - 1, -1):  # rotations that nothing sees are left out
            after = np.arange(len(later)) > n_start + k
            own = rotations.turns[k]
            seen[n_start + k] = not own.event and bool((later.crosses(own.word) & after & seen).any())
        if place is None:
            break
        after = np.arange(len(later)) >= n_start + place.n_turns
        after[:n_start] = [k >= place.n_start[bit] for bit, k in start]
        crossed = [later.crosses(word) & after for word in place.generators]
        at = place.n_turns
        if any((one & seen).any() for one in crossed):
            for k in place.events.values():
                seen[n_start + k] = True
            at -= len(place.events)
            flips += crossed
            kept.append(place)
    table = np.array(flips, bool).reshape(len(flips), len(later))
    # Rotations whose signs all errors change alike have one mark.
    marks: dict[bytes, int] = {}
    turns: list[Turn] = []
    of_turn: dict[int, Turn] = {}
    for k, turn in enumerate((*started, *rotations.turns)):
        if seen[k]:
            key = table[:, k].tobytes() + (k.to_bytes(8, "big") if turn.event else b"")
            of_turn[k] = replace(turn, mark=marks.setdefault(key, len(marks)))
    turns = [of_turn[k] for k in range(n_start, n_start + n_turns) if k in of_turn]
    starts: list[list[Turn]] = [[] for _ in rotations.start]
    for k, (bit, _) in enumerate(start):
        starts[bit].append(of_turn[k])
    plan = compile_frame(program, Rotations(starts, turns), measured, n_batched)
    columns = np.zeros((len(flips), len(marks)), bool)
    for k, turn in of_turn.items():
        columns[:, turn.mark] = table[:, k]
    table = np.concatenate([columns, table[:, n_start + n_turns :]], 1)
    errors = _errors(kept, table, _event_blocks(plan), {k - n_start: turn for k, turn in of_turn.items()})
    return Noisy(plan, errors, outputs, len(marks))


class _Words:
    """Words as arrays of masks."""

    def __init__(self, words: list[Word]):
        self.x, self.z = (np.array([getattr(word, mask) for word in words], np.int64) for mask in "xz")

    def __len__(self) -> int:
        return len(self.x)

    def crosses(self, word: Word) -> np.ndarray:
        """Which of them anticommute with a word."""
        crossings: np.ndarray = np.bitwise_count(self.x & word.z) + np.bitwise_count(self.z & word.x)
        return (crossings & 1).astype(bool)


def _event_blocks(plan: Plan) -> dict[int, int]:
    """The block of each event, by its mark."""
    blocks, items = plan.tables.blocks, plan.tables.items
    return {
        int(plan.marks[items[row[FIRST], ARGUMENT_1]]): b
        for b, row in enumerate(blocks)
        if row[FIRST] < row[LAST] and items[row[FIRST], KIND] == EVENT
    }


def _errors(places: list[_Place], table: np.ndarray, blocks: dict[int, int], turns: dict[int, Turn]) -> Errors:
    """The random terms of the channels that are seen.

    Args:
        places: the channels.
        table: (G, S) which signs each of their generators changes.
        blocks: of events, by their marks.
        turns: rotations by their position.
    """
    rows: dict[str, list[Any]] = {name: [] for name in ("rates", "first", "cumulative", "negative", "flips", "event")}
    events: dict[str, list[Any]] = {name: [] for name in ("blocks", "numbers", "lossy")}
    weight = nothing = overall = 1.0
    at = 0
    for place in places:
        generators = table[at : at + len(place.generators)]
        at += len(place.generators)
        idle, weights = 0.0, dict[tuple[bytes, int], float]()
        for term in place.terms:
            flipped = _flipped(term.error, generators)
            event = -1
            if term.event is not None:
                turn = turns[place.events[term.event.word]]
                sign = turn.scale * sign_of(turn.word)
                event = len(events["blocks"])
                events["blocks"].append(blocks[turn.mark])
                events["numbers"].append((term.event.c, sign * term.event.d, sign * term.event.s))
                events["lossy"].append(term.event.is_lossy)
            if event < 0 and not flipped.any():
                idle += term.weight
            else:
                key = np.packbits(flipped).tobytes(), event
                weights[key] = weights.get(key, 0.0) + term.weight
        total = sum(map(abs, weights.values()))
        size = abs(idle) + total
        sign = 1.0 if idle >= -1e-12 * size else -1.0
        weight, nothing, overall = weight * size, nothing * idle, overall * sign
        if not total:
            continue
        cumulative = np.cumsum([abs(w) for w in weights.values()]) / total
        cumulative[-1] = 1.0
        rows["first"].append(len(rows["event"]))
        rows["cumulative"] += (len(rows["rates"]) + cumulative).tolist()
        rows["rates"].append(-np.log(abs(idle) / size) if abs(idle) > 1e-12 * size else np.inf)
        rows["negative"] += [w * sign < 0 for w in weights.values()]
        rows["flips"] += [np.frombuffer(key, np.uint8) for key, _ in weights]
        rows["event"] += [event for _, event in weights]
    n_bytes = -(-table.shape[1] // 8)
    return Errors(
        np.array(rows["rates"], float),
        np.array([*rows["first"], len(rows["event"])], np.int64),
        np.array(rows["cumulative"], float),
        np.array(rows["negative"], bool),
        np.array(rows["flips"], np.uint8).reshape(len(rows["event"]), n_bytes),
        np.array(rows["event"], np.int64),
        np.array(events["blocks"], np.int64),
        np.array(events["numbers"], float).reshape(-1, 3),
        np.array(events["lossy"], bool),
        weight,
        overall,
        nothing,
        sum(place.twirled for place in places),
    )


def _flipped(error: int, generators: np.ndarray) -> np.ndarray:
    """The signs that a Pauli word of a channel changes: X and Z of each wire, the first the most significant letter."""
    n_wires = len(generators) // 2
    flips = np.zeros(generators.shape[1], bool)
    for wire in range(n_wires):
        letter = error >> 2 * (n_wires - 1 - wire) & 3
        if letter in (1, 2):
            flips ^= generators[2 * wire]
        if letter in (2, 3):
            flips ^= generators[2 * wire + 1]
    return flips

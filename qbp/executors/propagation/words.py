"""The words of a program, carried back: through what samples share once for each output, through the rest together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from qbp.circuit.program import Program
from qbp.errors import ArgumentError
from qbp.executors.propagation.kernels.conventions import KEEP_ALL, ONE, ZERO, Carried, Cut, Graph, Linear, Tables
from qbp.executors.propagation.kernels.values import finish
from qbp.executors.propagation.kernels.walk import walk
from qbp.executors.propagation.steps import Measured, measured_words, steps_of
from qbp.executors.propagation.tables import as_words, n_parts, tables_of

__all__ = ["Prepared", "Words", "carry", "count_steps", "count_words", "prepared", "start_of", "turns_of", "words_of"]


class Prepared(NamedTuple):
    """A program as tables.

    Attributes:
        angles: (K,) which angle each row of the table of cosines has, and `scales` (K, 2) its scale and offset; row 0
            has none.
    """

    tables: Tables
    measured: Measured
    parts: int
    angles: np.ndarray
    scales: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.tables.angles)

    def split(self, n_batched: int) -> int:
        """The step from which on all samples share the angles."""
        differ = (self.tables.angles > 0) & (self.angles[self.tables.angles] < n_batched)
        return int(np.flatnonzero(differ)[-1]) + 1 if differ.any() else 0


class Words(NamedTuple):
    """A program as two graphs: values of words by samples, and what outputs have of them by the shared angles.

    Attributes:
        graph: values of words of each sample; its inputs are 0 and 1.
        linear: outputs as sums of these; entry e has ``factors[e]`` times input ``1 + e`` of `shared`.
        shared: graph of what the roots are made of; its inputs are 0 and the entries.
        seeds, weights: the nodes of `shared` that the roots are, and their coefficients; those of root r begin at
            ``seed_at[r]``.
        n_words: nodes of both graphs.
        n_peak: most words at a time.
    """

    graph: Graph
    linear: Linear
    factors: np.ndarray
    shared: Graph
    seeds: np.ndarray
    weights: np.ndarray
    n_words: int
    n_peak: int

    def cast(self, dtype: np.dtype) -> Graph:
        """The graph of samples with numbers of a dtype."""
        graph = self.graph
        return graph._replace(of_cos=graph.of_cos.astype(dtype), of_sin=graph.of_sin.astype(dtype))


@lru_cache(maxsize=64)
def prepared(program: Program, letters: bool) -> Prepared:
    """The tables of a program.

    Args:
        program: one that starts from |0...0>.
        letters: whether letters are to be counted.

    Raises:
        ArgumentError: it starts from amplitudes, or measures probabilities of too many wires.
    """
    if program.amplitudes:
        raise ArgumentError(
            "Argument `backend` must be one that keeps the state where a circuit starts from amplitudes, which are "
            "2^N words; 'pauli-propagation' has circuits from |0...0>"
        )
    steps, frame = steps_of(program, letters)
    measured = measured_words(program, frame)
    tables, turns = tables_of(steps, program.n_qubits, letters)
    angles = np.array([-1, *(angle for angle, _, _ in turns)])
    scales = np.array([(0.0, 0.0), *((scale, offset) for _, scale, offset in turns)])
    return Prepared(tables, measured, n_parts(program.n_qubits), angles, scales)


def start_of(source: Prepared, root: int) -> tuple[np.ndarray, np.ndarray]:
    """The different words (n, 2P) of a root, and their coefficients (n,)."""
    terms = source.measured.roots[root]
    totals: dict[tuple[int, int], float] = {}
    for coefficient, word in terms:
        totals[word.x, word.z] = totals.get((word.x, word.z), 0.0) + coefficient * word.sign
    words = {(word.x, word.z): word for _, word in terms}
    return as_words([words[key] for key in totals], source.parts), np.array(list(totals.values()))


def turns_of(source: Prepared, angles: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin (K,) of the rows of angles.

    Args:
        source: the program.
        angles: its angles from the `first` on; those before it count as 1.
    """
    cos, sin, there = np.ones(len(source.angles)), np.ones(len(source.angles)), source.angles >= first
    t = source.scales[there, 0] * angles[source.angles[there] - first] + source.scales[there, 1]
    cos[there], sin[there] = np.cos(t), np.sin(t)
    return cos, sin


def words_of(
    source: Prepared, n_batched: int, cut: Cut, most: int, turns: tuple[np.ndarray, np.ndarray] | None = None
) -> Words:
    """Carry all words of a program back.

    Args:
        source: the program.
        n_batched: Kb, how many of its angles, the first, differ between samples.
        cut: which words are left out.
        most: nodes that there may be.
        turns: cos and sin (K,) of the shared angles, by which coefficients are known; those of angles that differ are
            1. None where nothing is cut by coefficients.

    Raises:
        ArgumentError: there are more nodes.
    """
    split, left, n_peak = source.split(n_batched), most, 0
    absolute = turns is None
    turns = turns or (np.ones(len(source.angles)), np.ones(len(source.angles)))
    front: list[Carried] = []
    for root in range(len(source.measured.roots)):
        start, weights = start_of(source, root)
        carried = carry(source, split, source.steps, start, weights, turns, cut, absolute, left)
        _check(carried, source, most)
        left -= len(carried.graph.first)
        n_peak += carried.n_peak
        front.append(carried)
    rows, which = _different([carried.words for carried in front])
    sizes = np.zeros(len(rows))
    np.maximum.at(sizes, which, np.abs(np.concatenate([carried.coefficients for carried in front])))
    back = carry(source, 0, split, rows, sizes, turns, cut, True, left)
    _check(back, source, most)
    return _finished(source, front, which, back, max(n_peak, back.n_peak))


def carry(
    source: Prepared,
    first: int,
    last: int,
    start: np.ndarray,
    weights: np.ndarray,
    turns: tuple[np.ndarray, np.ndarray],
    cut: Cut,
    absolute: bool,
    most: int,
    record: bool = True,
    seed: int = 0,
) -> Carried:
    """Carry words back through some steps; see the kernel."""
    return Carried(*walk(source.tables, first, last, start, weights, *turns, cut, record, absolute, most, seed))


def count_words(source: Prepared, root: int, cut: Cut, limit: int) -> int | None:
    """The most words that a root becomes at a time; None where they are more than `limit`."""
    ones = np.ones(len(source.angles))
    carried = carry(source, 0, source.steps, *start_of(source, root), (ones, ones), cut, True, limit, record=False)
    return None if carried.stopped >= 0 else carried.n_peak


def count_steps(source: Prepared, root: int, limit: int) -> int | None:
    """In how many steps the words of a root become others; None where they are more than `limit`."""
    ones = np.ones(len(source.angles))
    carried = carry(source, 0, source.steps, *start_of(source, root), (ones, ones), KEEP_ALL, True, limit)
    return None if carried.stopped >= 0 else len(carried.graph.first)


def _check(carried: Carried, source: Prepared, most: int) -> None:
    if carried.stopped >= 0:
        done = source.steps - carried.stopped
        raise ArgumentError(
            f"Argument `max_words` must be above {most:,} for this circuit: carried back through {done:,} of its "
            f"{source.steps:,} rotations and channels, its words have more values than that already, each at least 40 "
            "bytes. Cut them with `min_coefficient`, `max_weight` or `max_sines`, or take 'native' where its windows "
            "are narrow"
        )


def _different(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of arrays, and which of them each row is."""
    rows = np.concatenate(parts)
    order = np.lexsort(rows.T)
    rows = rows[order]
    new = np.append(True, (rows[1:] != rows[:-1]).any(1))[: len(rows)]
    which = np.empty(len(rows), np.int64)
    which[order] = np.cumsum(new) - 1
    return rows[new], which


def _finished(source: Prepared, front: Sequence[Carried], which: np.ndarray, back: Carried, n_peak: int) -> Words:
    inputs = np.full(len(back.graph.first), -1)
    inputs[back.nodes] = ONE  # the empty word: all that is left where nothing moves any qubit
    *graph, at, factor = finish(back.graph, inputs, 2)
    n_rows = 0 if not len(which) else int(which.max()) + 1
    at, factor = at[2 : 2 + n_rows], factor[2 : 2 + n_rows]
    parts: list[tuple[np.ndarray, ...]] = []
    seeds, seed_weights, begin, of_entries, of_factors = [], [], [0], [], []
    position, n_nodes, n_entries = 0, 0, 0
    for root, carried in enumerate(front):
        own = which[position : position + len(carried.words)]
        position += len(own)
        lives = at[own] != ZERO
        n_own = int(lives.sum())
        inputs = np.full(len(carried.graph.first), -1)
        inputs[carried.nodes] = np.where(lives, np.cumsum(lives), ZERO)
        *nodes, to, times = finish(carried.graph, inputs, 1 + n_own)
        start, weights = start_of(source, root)
        ends = slice(2, 2 + len(start))
        # For now entries are numbered from 1, nodes from -1 downwards: how many entries there are is not known yet.
        shift = [_shifted(index, n_own, n_entries, n_nodes) for index in (nodes[0], nodes[1], to[ends])]
        parts.append((shift[0], shift[1], *nodes[2:]))
        seeds.append(shift[2])
        seed_weights.append(weights * times[ends])
        of_entries.append(at[own][lives])
        of_factors.append(factor[own][lives])
        n_nodes, n_entries = n_nodes + len(nodes[0]), n_entries + n_own
        begin.append(n_entries)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    shared = Graph(_final(columns[0], n_entries), _final(columns[1], n_entries), *columns[2:])
    measured = source.measured
    linear = Linear(np.array(begin), np.concatenate(of_entries), measured.outputs, measured.sources, measured.weights)
    return Words(
        Graph(*graph),
        linear,
        np.concatenate(of_factors),
        shared,
        _final(np.concatenate(seeds), n_entries),
        np.concatenate(seed_weights),
        len(graph[0]) + n_nodes,
        n_peak,
    )


def _shifted(index: np.ndarray, n_own: int, n_entries: int, n_nodes: int) -> np.ndarray:
    """Indices into the graph of a root as ones into that of all: of entries above 0, of nodes below."""
    of_entry = np.where(index == ZERO, ZERO, index + n_entries)
    return np.where(index > n_own, -(index - n_own + n_nodes), of_entry)


def _final(index: np.ndarray, n_entries: int) -> np.ndarray:
    return np.where(index < 0, n_entries - index, index)

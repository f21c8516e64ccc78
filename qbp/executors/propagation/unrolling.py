"""Outputs as sums of products of cosines and sines: what is left of a circuit whose weights are fixed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qbp.executors.propagation.words import Prepared, Words
from qbp.limits import check_memory

__all__ = ["Unrolled", "unrolled"]


class Unrolled(NamedTuple):
    """Values ``v[i] = of_cos[i] cos t v[first[i]] + of_sin[i] sin t v[second[i]]``, after v[0] = 0 and v[1] = 1.

    Attributes:
        angles, scales: (K,) and (K, 2): ``t = scale * angles[angle] + offset`` of the rows 1 to K; row 0 is 1 and 1.
        angle: which row a value has.
        sizes: how many values each level has; they need those of levels before only.
        features: (F,) which values the outputs have, and `coefficients` (F, M) how much of each.
    """

    angles: np.ndarray
    scales: np.ndarray
    first: np.ndarray
    second: np.ndarray
    of_cos: np.ndarray
    of_sin: np.ndarray
    angle: np.ndarray
    sizes: np.ndarray
    features: np.ndarray
    coefficients: np.ndarray


def unrolled(source: Prepared, words: Words, coefficients: np.ndarray) -> Unrolled:
    """A program whose shared angles are known.

    Args:
        source, words: the program, and its words.
        coefficients: (E,) of the entries of `words.linear`.
    """
    graph, linear = words.graph, words.linear
    wanted = np.zeros(2 + len(graph.first), bool)
    wanted[linear.at] = True
    level = np.zeros(len(wanted), np.int64)
    pairs = list(zip(graph.first.tolist(), graph.second.tolist(), strict=True))
    for i in range(len(pairs) - 1, -1, -1):
        if wanted[2 + i]:
            wanted[list(pairs[i])] = True
    for i, pair in enumerate(pairs):
        level[2 + i] = 1 + max(level[j] for j in pair)
    kept = 2 + np.flatnonzero(wanted[2:])
    kept = kept[np.argsort(level[kept], kind="stable")]
    number = np.zeros(len(wanted), np.int64)
    number[1], number[kept] = 1, 2 + np.arange(len(kept))
    nodes = kept - 2
    rows, angle = np.unique(np.append(graph.angle[nodes], 0), return_inverse=True)  # row 0 among them
    features, at = np.unique(number[linear.at], return_inverse=True)
    return Unrolled(
        source.angles[rows[1:]],
        source.scales[rows[1:]],
        number[graph.first[nodes]],
        number[graph.second[nodes]],
        graph.of_cos[nodes],
        graph.of_sin[nodes],
        angle[:-1],
        np.bincount(level[kept])[1:],
        features,
        _of_outputs(words, coefficients, len(features), at),
    )


def _of_outputs(words: Words, coefficients: np.ndarray, n_features: int, at: np.ndarray) -> np.ndarray:
    """The coefficients (F, M) of outputs."""
    linear, n_outputs = words.linear, int(words.linear.outputs.max()) + 1
    n_roots = len(linear.begin) - 1
    check_memory(f"The coefficients of {n_features:,} products", 8.0 * (n_features + n_outputs) * (n_roots + n_outputs))
    of_roots, outputs = np.zeros((n_features, n_roots)), np.zeros((n_roots, n_outputs))
    np.add.at(of_roots, (at, np.repeat(np.arange(n_roots), np.diff(linear.begin))), coefficients)
    np.add.at(outputs, (linear.sources, linear.outputs), linear.weights)
    return of_roots @ outputs

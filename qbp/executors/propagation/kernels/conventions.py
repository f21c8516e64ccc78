"""What the kernels' tables mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["KEEP_ALL", "ONE", "ZERO", "Carried", "Cut", "Graph", "Linear", "Tables"]

ZERO, ONE = 0, 1
"""The nodes that are always 0 and always 1."""


class Tables(NamedTuple):
    """Steps as arrays; words are P integers of 64 bits for their x-mask, then P for their z-mask.

    Attributes:
        tests: (T, 2P) words, and `test_at` (S + 1,) where those of a step begin.
        row_at: (S,) the first row of a step.
        touched: (R,) whether words of a row become others; `entry_at` (R + 1,) where its entries begin.
        entries: (E, 2P) by what a word is multiplied, `phases` (E,) with i to which power, `coefficients` (E,), and
            `sines` (E,), 1 for the sine of an angle.
        angles: (S,) which row of the table of cosines and sines belongs to a step; row 0 is 1 and 1.
        settled: (S + 1, P) the qubits of which step s is the first that sees a Z there; at S those of which none is.
        letters: (L, 2N, 2P) images of X and Z of every wire, and `letters_at` (S,) which of them are those of a step.
    """

    tests: np.ndarray
    test_at: np.ndarray
    row_at: np.ndarray
    touched: np.ndarray
    entry_at: np.ndarray
    entries: np.ndarray
    phases: np.ndarray
    coefficients: np.ndarray
    sines: np.ndarray
    angles: np.ndarray
    settled: np.ndarray
    letters: np.ndarray
    letters_at: np.ndarray


class Cut(NamedTuple):
    """Which words are left out.

    Attributes:
        coefficient: those whose coefficient is smaller.
        weight, sines: those with more letters, or more sines; -1 for none.
        random: whether those left out stay by chance instead, with larger coefficients, so that the mean is true.
    """

    coefficient: float
    weight: int
    sines: int
    random: bool


KEEP_ALL = Cut(0.0, -1, -1, False)


class Graph(NamedTuple):
    """Values of words: ``v[i] = of_cos[i] cos[k] v[first[i]] + of_sin[i] sin[k] v[second[i]]``, k = `angle[i]`.

    The nodes of a `Carried` come in the order of time backwards, so that theirs are later ones; those of a finished
    graph come after what they are made of.
    """

    first: np.ndarray
    second: np.ndarray
    of_cos: np.ndarray
    of_sin: np.ndarray
    angle: np.ndarray


class Carried(NamedTuple):
    """Where words came.

    Attributes:
        words: (n, 2P) words that are there, `nodes` (n,) and `coefficients` (n,) theirs.
        graph: how the nodes that are no longer there are made of others.
        n_peak: most words at a time.
        stopped: the step at which there were too many nodes, or -1.
    """

    words: np.ndarray
    nodes: np.ndarray
    coefficients: np.ndarray
    graph: Graph
    n_peak: int
    stopped: int


class Linear(NamedTuple):
    """Outputs as sums of values.

    Attributes:
        begin: (R + 1,) where the entries of each root begin; `at` (E,) which values they are.
        outputs, sources, weights: output ``outputs[k]`` has ``weights[k]`` times root ``sources[k]``.
    """

    begin: np.ndarray
    at: np.ndarray
    outputs: np.ndarray
    sources: np.ndarray
    weights: np.ndarray

# mypy: disable-error-code="no-untyped-def"
"""What the kernels' tables mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qbp.executors.native.kernels.jit import inline

# Kinds of passes: a run on one wire; a permutation with factors and shifts on two; a rotation about a word; any map.
ONE, PAIR, WORD, MAP = range(4)

# Columns of `Tables.passes`: AT and NUMBERS are where its integers and numbers begin, N how many pairs of words it has,
# STEP and END its steps, RUN its place among the passes with angles, KEEP and KEEP_BACK the copies that are kept for it
# (-1: none), of samples and of words, N_WIRES its wires, DIFFERS whether it differs between samples. GROUPS is where
# those groups of words are listed that outputs can see, N_GROUPS how many they are (-1: all of them).
KIND, AT, N, NUMBERS, STEP, END, RUN, KEEP, KEEP_BACK, N_WIRES, DIFFERS, GROUPS, N_GROUPS = range(13)

# Columns of `Tables.steps`; an axis is X, Y, Z (0, 1, 2), or none.
AXIS, ANGLE, FIXED = range(3)
IS_FIXED, IS_WORD = 3, 4

# Where the factors of a pass on two wires, and one by them, begin among its numbers.
FACTORS, UNDONE = 0, 24


class Tables(NamedTuple):
    """A compiled program as tables.

    Attributes:
        steps: (S, 3): of runs on one wire and rotations about words, those of the start first.
        scales: (S, 2) scale and offset of their angles.
        fixed: (C, 12) fixed maps of one wire, 3 x 4: the shift, then X, Y, Z before.
        undone: (C, 9) their inverses without the shift.
        passes: (P, 13).
        ints, numbers: of passes, one after the other.
        starts: (N, 2) first and last step of each wire before the first pass; no rows where amplitudes are given.
        letters: (N, 4) how many letters, and which, besides I, products have on each wire: all three; where words are
            carried back to the data those that hold the data.
        terms: (T, 2) what is measured: an output and a word.
        weights: (T,).
        order: (F,) the words that hold the data, in the order of their products; empty where none are carried back.
        spread: (2^N,) masks of wires as words: bit b at digit b; one number where there are no amplitudes.
    """

    steps: np.ndarray
    scales: np.ndarray
    fixed: np.ndarray
    undone: np.ndarray
    passes: np.ndarray
    ints: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    letters: np.ndarray
    terms: np.ndarray
    weights: np.ndarray
    order: np.ndarray
    spread: np.ndarray

    def packed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All of it in three arrays, since every array that a kernel takes costs time: the integers, after where each
        table ends (`unpacked`), the scales, the other numbers, with the numbers of maps and of passes in front."""
        parts = [np.ravel(getattr(self, name)) for name in INTEGERS]
        sizes = [len(self.fixed), len(self.numbers), *(len(part) for part in parts)]
        ends = np.cumsum([len(sizes), *sizes[2:]])
        integers = np.concatenate([np.array([*sizes[:2], *ends[1:]], np.int64), *parts])
        numbers = np.concatenate([self.fixed.ravel(), self.undone.ravel(), self.numbers, self.weights])
        return integers, self.scales, numbers


INTEGERS = ("steps", "passes", "starts", "letters", "terms", "ints", "order", "spread")


@inline
def unpacked(arrays):
    """The tables of a program from the few arrays that they are handed over in (`Tables.packed`)."""
    integers, scales, numbers = arrays
    n_fixed, n_numbers = integers[0], integers[1]
    undone, other = 12 * n_fixed, 21 * n_fixed
    return Tables(
        integers[10 : integers[2]].reshape((-1, 3)),
        scales,
        numbers[:undone].reshape((-1, 12)),
        numbers[undone:other].reshape((-1, 9)),
        integers[integers[2] : integers[3]].reshape((-1, 13)),
        integers[integers[6] : integers[7]],
        numbers[other : other + n_numbers],
        integers[integers[3] : integers[4]].reshape((-1, 2)),
        integers[integers[4] : integers[5]].reshape((-1, 4)),
        integers[integers[5] : integers[6]].reshape((-1, 2)),
        numbers[other + n_numbers :],
        integers[integers[7] : integers[8]],
        integers[integers[8] : integers[9]],
    )


class Parts(NamedTuple):
    """Memory at work, in registers.

    Attributes:
        V, U: expectation values of words, and the gradient with respect to them.
        CS: cos and sin of every step.
        M: matrices of runs after every step, 12 each.
        J: inverses of runs, 9 each.
        E: gradients of the runs' matrices, 12 each.
        R: <X>, <Y>, <Z> of every wire before the first pass; going back, their gradients.
        G: gradients of the angles of samples.
        P: scratch of maps, outputs and amplitudes.
    """

    V: np.ndarray
    U: np.ndarray
    CS: np.ndarray
    M: np.ndarray
    J: np.ndarray
    E: np.ndarray
    R: np.ndarray
    G: np.ndarray
    P: np.ndarray

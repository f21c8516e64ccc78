"""What the kernels' tables mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Kinds of passes: a run on one wire; a permutation with factors and shifts on two; a rotation about a word; any map.
ONE, PAIR, WORD, MAP = range(4)

# Columns of `Tables.passes`: AT and NUMBERS are where its integers and numbers begin, N how many pairs of words it has,
# STEP and END its steps, RUN its place among the passes with angles, KEEP and KEEP_BACK the copies that are kept for it
# (-1: none), of samples and of words, N_WIRES its wires.
KIND, AT, N, NUMBERS, STEP, END, RUN, KEEP, KEEP_BACK, N_WIRES = range(10)

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
        passes: (P, 10).
        ints, numbers: of passes, one after the other.
        starts: (N, 2) first and last step of each wire before the first pass; no rows where amplitudes are given.
        letters: (N, 4) 3 letters of every wire: 1, 2, 3.
        terms: (T, 2) what is measured: an output and a word.
        weights: (T,).
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
    spread: np.ndarray


class Parts(NamedTuple):
    """Memory at work, in registers.

    Attributes:
        V, U: expectation values of words, and the gradient with respect to them.
        CS: cos and sin of every step.
        M: matrices of runs after every step, 12 each.
        J: inverses of runs, 9 each.
        E: gradients of the runs' matrices, 12 each.
        R: <X>, <Y>, <Z> of every wire before the first pass; going back, their gradients.
        P: scratch of maps, outputs and amplitudes.
    """

    V: np.ndarray
    U: np.ndarray
    CS: np.ndarray
    M: np.ndarray
    J: np.ndarray
    E: np.ndarray
    R: np.ndarray
    P: np.ndarray

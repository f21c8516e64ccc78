# mypy: disable-error-code="no-untyped-def"
"""What the tables of a compiled program hold: the one place where their columns, kinds and flags are named.

`plan` writes these tables, `schedule` decides what is in them, and the kernels read them. All are arrays of integers,
a row for each thing. Masks are bit masks of amplitudes' indices; *places* are where registers of amplitudes lie.

Letters of the kernels, each a flat array of registers of W lanes:

| letter | what |
|---|---|
| S[place, part] | the state: Re psi, Im psi and, going backward, Re lambda, Im lambda |
| T[a, 2] | cos and sin of every argument; of the words of sweeps the angle in turns |
| E[a] | the gradient of every argument |
| M[bit, 4] | the matrix of every bit of the start |
| P[k], R[k] | scratch for the places of a coset: products of psi and lambda, angles in turns |
| Y[m] | outputs, or their gradients |
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qbp.executors.native.kernels.jit import inline

# Kinds of items: a pass over pairs of amplitudes that are real or imaginary, over single amplitudes (PHASE), many
# diagonal words at once with a table of phases (DIAGONAL) or computed (SWEEP).
REAL, IMAGINARY, PHASE, DIAGONAL, SWEEP, WITHIN = range(6)  # WITHIN + REAL or IMAGINARY: pairs within a register
TWO = 7  # + first kind + 2 * second kind: two passes at once
EVENT = -1  # what noise may do to the state, a block of its own (`qbp.executors.trajectories`)

# Columns of `Tables.arguments`: its terms; whether samples differ; the axis, of one of the start; z-mask of lanes
FIRST_TERM, LAST_TERM, DIFFERS, AXIS, LANES_Z = range(5)
IN_SWEEP = 3  # in the place of the axis: of a word of a sweep

# Columns of `Tables.start`, of bits, and of `Tables.blocks`
FIRST, LAST, COSETS_AT, SPAN_AT = range(4)

# Columns of `Tables.items`. Of passes: masks and argument of the first and of the second word; the tables of places of
# its registers (`schedule.cosets`) and their lengths; signs crossed, ``parity(x_2 & z_1) + 2 parity(x_1 & z_2)``.
KIND, X_1, Z_1, ARGUMENT_1, X_2, Z_2, ARGUMENT_2, LO, N_LO, HI, N_HI, CROSSED = range(12)
SECOND = X_2 - X_1  # from a column of the first word to that of the second
PHASES, FIRST_WORD, LAST_WORD = X_1, Z_1, ARGUMENT_1  # of diagonal words instead: the table of phases, and the words

# Columns of `Tables.words`: z-mask, z-mask of registers within the block, argument
WORD_Z, WORD_LOCAL_Z, WORD_ARGUMENT = range(3)

# Columns of `Tables.diagonal` and of `Tables.others`
OUTPUT, MEASURED_Z = range(2)
N_OTHER = 8

# Columns of `Tables.probs`
PROBS_OUTPUT, PROBS_LO, PROBS_HI = range(3)

# Flags of an entry of a table of places: the signs of the amplitudes there, for the first and for the second word
FLIPS = FLIP_1, FLIP_2 = 1 << 30, 1 << 29
PLACE = FLIP_2 - 1

# Columns of `Common.table`: cos h or 1 and sin h or tan h; where samples differ, and for the words of sweeps, the part
# of h that samples share and the sign of h. Then the factor of the argument's gradient.
COS, SIN, FACTOR = range(3)
SHARED_PART, SIGN = COS, SIN


class Tables(NamedTuple):
    """A compiled program as tables.

    An argument is half the angle of one rotation of the start, or of one pass: ``offset + sum_t scale_t angle_t``.

    Attributes:
        arguments: (A, 5).
        terms: (T,) angles.
        offsets: (A,) of arguments, in radians.
        scales: (T,) of terms.
        coefficients: (D + C,) of the measured words, those without x-mask first.
        start: (N, 2) first and last argument for every bit; no rows where amplitudes are given.
        blocks: (L, 4) first and last item, where in `places` the representatives of its cosets lie, and its span.
        items: (Q, 12).
        words: (V, 3) the words of phases.
        places: tables of places, one after the other.
        diagonal: (D, 2) the measured words without x-mask.
        others: (C, 8) the other measured words (`Other`).
        probs: (P, 3) first output, and two tables of places: ``hi[i >> N / 2] ^ lo[i % 2^(N / 2)]`` is the outcome of
            place i.
    """

    arguments: np.ndarray
    terms: np.ndarray
    offsets: np.ndarray
    scales: np.ndarray
    coefficients: np.ndarray
    start: np.ndarray
    blocks: np.ndarray
    items: np.ndarray
    words: np.ndarray
    places: np.ndarray
    diagonal: np.ndarray
    others: np.ndarray
    probs: np.ndarray

    def packed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All of it in three arrays, since every array that a kernel takes costs time: the rows of all tables, after
        a row that says where each of them ends (`unpacked`), the numbers, the places."""
        apart = ("offsets", "scales", "coefficients", "places")
        fields = zip(self._fields, self, strict=True)
        tables = [t if t.ndim == 2 else t[:, None] for name, t in fields if name not in apart]
        rows = np.zeros((1 + sum(map(len, tables)), self.items.shape[1]), np.int64)
        end = 1
        for k, table in enumerate(tables):
            rows[end : end + len(table), : table.shape[1]] = table
            end = rows[0, k] = end + len(table)
        return rows, np.concatenate([self.offsets, self.scales, self.coefficients]), self.places


@inline
def unpacked(arrays):
    """The tables of a program from the few arrays that they are handed over in (`Tables.packed`)."""
    rows, numbers, places = arrays
    end = rows[0]
    n_arguments, n_terms = end[0] - 1, end[1] - end[0]
    return Tables(
        rows[1 : end[0]],
        rows[end[0] : end[1], 0],
        numbers[:n_arguments],
        numbers[n_arguments : n_arguments + n_terms],
        numbers[n_arguments + n_terms :],
        rows[end[1] : end[2]],
        rows[end[2] : end[3]],
        rows[end[3] : end[4]],
        rows[end[4] : end[5]],
        places,
        rows[end[5] : end[6]],
        rows[end[6] : end[7]],
        rows[end[7] : end[8]],
    )


class Other(NamedTuple):
    """A measured word with an x-mask, a row of `Tables.others`.

    Attributes:
        output: which output it is part of.
        x, z: its masks.
        imaginary: whether it has an odd number of Y.
        lo, n_lo, hi, n_hi: the tables of places of one register of each pair, and their lengths.
    """

    output: int
    x: int
    z: int
    imaginary: int
    lo: int
    n_lo: int
    hi: int
    n_hi: int


@inline
def other_of(others, t):
    """Row t of `Tables.others`, by name."""
    row = others[t]
    return Other(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7])


class Common(NamedTuple):
    """What all samples of a call share (`passes.prepare`).

    Attributes:
        table: (A, 3) of arguments.
        factors: (Q,) for items of phases: the cosines since the last such item.
        phases: (F, 2, 2^N) cos and sin of the phases of diagonal items, times the cosines since the last one.
        norms: (2,) the cosines that are left at the end, and at the beginning after going back.
        flip: (2,) x- and z-mask of the half turns at the end.
    """

    table: np.ndarray
    factors: np.ndarray
    phases: np.ndarray
    norms: np.ndarray
    flip: np.ndarray


class Parts(NamedTuple):
    """What the threads share that work on one state (`kernels.single`), in registers.

    Attributes:
        T, M, Y, E: as above; Y[task, word], E[task, a], for each task of a stage.
        signs: signs[z], the sign of every lane for every z-mask of lanes.
        lane, low, high: the factors of the product state over the bits of lanes, and over both halves of the others.
        angles: (K,) of this sample; going backward, in the end, their gradients.
        sums: sums[task, low, 2] of `single._unfill`.
    """

    T: np.ndarray
    signs: np.ndarray
    M: np.ndarray
    lane: np.ndarray
    low: np.ndarray
    high: np.ndarray
    angles: np.ndarray
    Y: np.ndarray
    E: np.ndarray
    sums: np.ndarray

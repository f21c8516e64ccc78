"""Which way a circuit is run: on its whole state, by windows, or by words carried back; with noise by all words or so.

What each takes without noise is known before it runs, in the unit of one amplitude turned by one rotation, for 32
samples (`benchmarks/width.py`).
"""

from __future__ import annotations

from functools import lru_cache

from qbp.circuit.program import Program
from qbp.executors.native.windows import NARROW, WIDEST, windowed

__all__ = ["MOST_SEEN", "MOST_STEPS", "way_of"]

CALL = 65_000
"""As long as the call of a window takes, for any number of samples."""

WORDS_CALL = 300_000
"""As long as a call by words takes, were there none."""

WORTH_IT = 3_000_000
"""What words are asked for beyond, 10 ms a step: their kernels compile for ten seconds when they are first used."""

STEP = 2.5
"""As long as what a word becomes takes, there and back."""

MOST_STEPS = 3_000_000
"""Beyond so many nothing is carried back unasked: it takes seconds to find them."""


MOST_SEEN = 10
"""Noisy wires that an output sees and that are run by all of their words, 4^N."""


@lru_cache(maxsize=128)
def way_of(program: Program) -> str:
    """The cheapest way: "native", the whole state; "windows"; or "pauli-propagation"; with noise "pauli" or that."""
    if program.is_noisy:
        return _way_of_noise(program)
    if program.n_qubits <= NARROW or program.amplitudes:
        return "native"
    whole = (1 + len(program.ops)) * 2.0 ** min(program.n_qubits, 1000)
    windows = windowed(program, most=min(program.n_qubits - 2, WIDEST))
    by_windows = float("inf") if windows is None else windows.cost + CALL * windows.n_windows
    least = min(whole, by_windows)
    if least > WORTH_IT and _has_at_most(program, int(min((least - WORDS_CALL) / STEP, MOST_STEPS))):
        return "pauli-propagation"
    return "windows" if by_windows < whole else "native"


def _way_of_noise(program: Program) -> str:
    from qbp.executors.pauli.apart import seen_at_most

    if program.amplitudes or seen_at_most(program) <= MOST_SEEN or not _has_at_most(program, MOST_STEPS):
        return "pauli"  # which refuses what does not fit
    return "pauli-propagation"


def _has_at_most(program: Program, steps: int) -> bool:
    """Whether words carried back become others in at most so many steps, all together."""
    from qbp.executors.propagation import PauliPropagation

    return PauliPropagation.fits(program, steps)

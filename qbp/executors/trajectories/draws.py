"""Which errors happen: random numbers, and nothing else.

At each channel something happens with a probability p, independently. On a line where a channel takes ``-log(1 - p)``
arrivals of unit rate hit each with just that probability, so that only what happens has to be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qbp.executors.native.kernels.simd import LANES
from qbp.executors.trajectories.frame import Errors

__all__ = ["ALONE_FROM", "Lanes", "draw"]

ALONE_FROM = 0.05
"""Probability of no error at all from which on it is no trajectory's: it runs once, weighted with this probability."""

UNDONE = 6
"""Events in a row that are undone; before the next one the state is kept, since each loses up to half a digit."""


@dataclass(frozen=True)
class Lanes:
    """What is run, a lane for each row and for each pattern of its errors; those with events stand together.

    Attributes:
        rows: (L,) the sample of each lane.
        counts: (L,) how many of the sample's random trajectories it is; 0 for the one without errors that is none.
        weights: (L,) of each of them.
        n: how many random trajectories a sample has.
        signs: (L, S) +-1: of arguments, measured words and outcomes' bits (`Errors.flips`).
        events_at: (chunks + 1,) where the events of each register of lanes begin.
        event_rows: (events, 3) of the kernels: block, lane of its register, and where the state before it is kept.
        event_numbers: (events, 3) c, d, s.
        n_kept: how many states are kept.
    """

    rows: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    n: int
    signs: np.ndarray
    events_at: np.ndarray
    event_rows: np.ndarray
    event_numbers: np.ndarray
    n_kept: int

    @property
    def shares(self) -> np.ndarray:
        """(L,) of each lane in the outputs of its sample."""
        return np.where(self.counts > 0, self.counts * self.weights / self.n, self.weights)

    def part(self, first: int, last: int, width: int) -> Lanes:
        """Some registers of lanes."""
        some, begin, end = slice(first * width, last * width), self.events_at[first], self.events_at[last]
        rows = self.event_rows[begin:end].copy()
        kept = rows[:, 2] >= 0
        base = rows[kept, 2].min(initial=np.iinfo(np.int64).max)
        rows[kept, 2] -= base
        return Lanes(
            self.rows[some],
            self.counts[some],
            self.weights[some],
            self.n,
            self.signs[some],
            self.events_at[first : last + 1] - begin,
            rows,
            self.event_numbers[begin:end],
            int(rows[:, 2].max(initial=-1)) + 1,
        )


def draw(errors: Errors, n_rows: int, n: int, seed: int, dtype: np.dtype) -> Lanes:
    """Trajectories.

    Args:
        errors: what may happen.
        n_rows: B.
        n: trajectories of each row, one of them without errors where those are likely.
        seed: of the random numbers.
        dtype: of what runs them.
    """
    random = np.random.Generator(np.random.SFC64(seed))
    always = np.flatnonzero(np.isinf(errors.rates))
    ends = np.cumsum(np.where(np.isinf(errors.rates), 0.0, errors.rates))
    total = float(ends[-1]) if len(ends) else 0.0
    alone = 0.0 if len(always) else float(np.exp(-total))  # the probability of no error
    apart = alone > ALONE_FROM
    n = n - 1 if apart else n
    n_lanes = n_rows * n if len(errors.rates) else 0
    at, lane = _arrivals(random, total, n_lanes, apart)
    hits = np.minimum(np.searchsorted(ends, at, side="right"), max(0, len(ends) - 1))
    lane = np.concatenate([lane, np.repeat(np.arange(n_lanes), len(always))])
    hits = np.concatenate([hits, np.tile(always, n_lanes)])
    lane, hits = np.divmod(np.unique(lane * max(1, len(ends)) + hits), max(1, len(ends)))
    terms = np.searchsorted(errors.cumulative, hits + random.random(len(hits)), side="right")
    terms = np.clip(terms, errors.first[hits], errors.first[hits + 1] - 1)

    flips = np.zeros((n_lanes, errors.flips.shape[1]), np.uint8)
    negative = np.zeros(n_lanes, bool)
    earliest = np.full(n_lanes, -1)  # channels are in reverse order
    if len(lane):
        begins = np.flatnonzero(np.diff(lane, prepend=-1))
        flips[lane[begins]] = np.bitwise_xor.reduceat(errors.flips[terms], begins, axis=0)
        negative[lane[begins]] = np.logical_xor.reduceat(errors.negative[terms], begins)
        earliest[lane[begins]] = np.maximum.reduceat(hits, begins)
    events = errors.event[terms]
    mine, events = lane[events >= 0], events[events >= 0]

    # Equal patterns of a row are one lane. Lanes whose first errors are near each other stand together: what comes
    # before them has no signs, and no events.
    own = np.where(np.bincount(mine, minlength=n_lanes) > 0, 1 + np.arange(n_lanes), 0)
    rows = np.repeat(np.arange(n_rows), n)[:n_lanes]
    keys = np.ascontiguousarray(np.concatenate([_bytes(rows), _bytes(own), negative[:, None], flips], 1), np.uint8)
    _, chosen, which, counts = np.unique(
        keys.view(f"V{keys.shape[1]}").ravel(), return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((chosen, earliest[chosen]))
    places = np.argsort(order)
    chosen, counts = chosen[order], counts[order]
    weights = errors.sign * errors.weight * (1 - alone if apart else 1.0) * np.where(negative[chosen], -1.0, 1.0)
    rows, flips = rows[chosen], flips[chosen]
    if apart:
        rows, counts = np.concatenate([rows, np.arange(n_rows)]), np.concatenate([counts, np.zeros(n_rows, np.int64)])
        weights = np.concatenate([weights, np.full(n_rows, errors.nothing)])
        flips = np.concatenate([flips, np.zeros((n_rows, flips.shape[1]), np.uint8)])
    placed = _placed_events(errors, places[which[mine]], events, LANES[dtype], len(rows))
    signs = 1 - 2 * np.unpackbits(flips, axis=1).astype(np.int8)
    return Lanes(rows, counts, weights, n, signs, *placed)


def _arrivals(random: np.random.Generator, total: float, n_lanes: int, some: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where arrivals are, and in which lanes; at least one in each lane if `some` are wanted."""
    lanes = np.arange(n_lanes)
    if not some:
        lane = np.repeat(lanes, random.poisson(total, n_lanes))
        return total * random.random(len(lane)), lane
    first = np.minimum(-np.log1p(random.random(n_lanes) * np.expm1(-total)), total)
    lane = np.repeat(lanes, random.poisson(total - first))
    later = first[lane] + (total - first[lane]) * random.random(len(lane))
    return np.concatenate([first, later]), np.concatenate([lanes, lane])


def _bytes(numbers: np.ndarray) -> np.ndarray:
    """Each number as 8 bytes."""
    return np.ascontiguousarray(numbers, np.int64).view(np.uint8).reshape(-1, 8)


def _placed_events(
    errors: Errors, lane: np.ndarray, events: np.ndarray, width: int, n_lanes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """`Lanes.events_at`, `event_rows`, `event_numbers` and `n_kept`."""
    blocks = errors.blocks[events]
    order = np.lexsort((blocks, lane))
    lane, events, blocks = lane[order], events[order], blocks[order]
    nth = np.arange(len(lane)) - np.searchsorted(lane, lane)  # of its lane
    keep = errors.lossy[events] | (nth % UNDONE == UNDONE - 1)
    order = np.lexsort((lane, blocks, lane // width))
    lane, events, blocks, keep = lane[order], events[order], blocks[order], keep[order]
    chunks = lane // width
    begins = np.flatnonzero(np.diff(chunks, prepend=-1) | np.diff(blocks, prepend=-1))
    kept = np.full(len(lane), -1, np.int64)
    if len(lane):
        groups = np.logical_or.reduceat(keep, begins)
        numbers = np.where(groups, np.cumsum(groups) - 1, -1)
        kept = np.repeat(numbers, np.diff(begins, append=len(lane)))
    events_at = np.searchsorted(chunks, np.arange(-(-n_lanes // width) + 1))
    rows = np.stack([blocks, lane % width, kept], 1).astype(np.int64)
    return events_at, rows, errors.numbers[events], int(kept.max(initial=-1)) + 1

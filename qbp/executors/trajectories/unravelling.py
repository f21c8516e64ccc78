"""Channels as random operators: Pauli errors, and events that are close to them, with signed weights.

With the Pauli words P_a of its wires any channel is ``E(rho) = sum_ab chi_ab P_a rho P_b``. A pair of off-diagonal
terms is part of an operator ``A = P_a + t u P_b`` with a phase u, which is ``P_a (1 + v t Q)`` for the word Q of
``P_a P_b``::

    k A rho A^+ = k P_a rho P_a + k t^2 P_b rho P_b + k t (u* P_a rho P_b + u P_b rho P_a)

So with ``k t = |chi_ab|`` it is taken away together with k and k t^2 of the diagonal; real and imaginary parts, as seen
from v, are two operators: a projection that is not complete (v = +-1), and a rotation (v = +-i). What is left of the
diagonal are Pauli errors. All of it is exact for any t; weights may be negative, and their sum of absolute values is
what the variance grows by. No probability depends on the state, so that the outputs stay linear in the channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np

from qbp.circuit.channels import PAULI, Channel
from qbp.circuit.program import Op, Rotation

__all__ = ["Event", "Outcome", "simplified", "unravelled"]

LEAST, MOST = 0.25, 0.5
"""t of projections: less makes them more frequent, more makes the way back lose digits, 3 times as many for 1/2."""

COMPLETE_FROM = 0.02
"""Off-diagonal weight from which on a projection may be complete; the state before it is kept for the way back."""


@dataclass(frozen=True)
class Event:
    """``c + (d - i s) Q`` with ``c^2 + d^2 + s^2 = 1``.

    Attributes:
        word: letters of Q on the channel's wires, a number of base 4 as in `Channel.transfer`.
        c, d, s: its numbers; d or s is 0.
    """

    word: int
    c: float
    d: float
    s: float

    @property
    def is_lossy(self) -> bool:
        """Whether nothing undoes it well."""
        return abs(self.d) > MOST * self.c


@dataclass(frozen=True)
class Outcome:
    """One term of a channel, ``weight * P A rho A^+ P``.

    Attributes:
        weight: its factor, of any sign.
        error: the Pauli word P, a number of base 4.
        event: A, or None for 1.
    """

    weight: float
    error: int
    event: Event | None = None


@lru_cache(maxsize=4096)
def unravelled(transfer: tuple[tuple[int, int, float], ...], n_wires: int) -> tuple[Outcome, ...]:
    """The terms of a channel, the one that changes nothing first; their weights times what they keep of the trace add
    up to 1.

    Args:
        transfer: `Channel.transfer`.
        n_wires: how many wires it acts on.
    """
    chi = _chi(Channel("", tuple(range(n_wires)), transfer))
    left = chi.diagonal().real.copy()
    events = []
    for a, b in zip(*np.nonzero(np.triu(np.abs(chi) > 1e-13, 1)), strict=True):
        before = np.maximum(left, 1e-12)
        for major, minor, share in _shares(int(a), int(b), before):
            word, phase = _product(major, minor)
            seen = complex(chi[major, minor] * np.conj(phase) * share)
            for part, rotates in ((seen.real, False), (seen.imag, True)):
                if abs(part) < 1e-13:
                    continue
                fits = before[minor] * share / abs(part)  # so that nothing negative is left
                least = abs(part) / (before[major] * share) if rotates else LEAST
                most = 1.0 if rotates or abs(part) >= COMPLETE_FROM * share else MOST
                t = min(max(fits, least), most)
                k, c = abs(part) / t, 1 / np.sqrt(1 + t * t)
                left[major] -= k
                left[minor] -= k * t * t
                own = c * t * np.sign(part)
                event = Event(word, float(c), *((0.0, float(own)) if rotates else (float(own), 0.0)))
                events.append(Outcome(float(k * (1 + t * t)), major, event))
    paulis = [Outcome(float(w), error) for error, w in enumerate(left) if error == 0 or abs(w) > 1e-13]
    return (*paulis, *events)


@lru_cache(maxsize=4096)
def simplified(channel: Channel) -> tuple[Op, ...]:
    """The same noise as ops that are unravelled with smaller weights: one channel for each wire where it is a product,
    and fixed rotations before it where what it mostly does is one.

    They are those of the polar decomposition of its largest Kraus operator, ``sin H`` of it in Pauli words; what their
    order leaves over is rotated away again.
    """
    size, n_wires = 4 ** len(channel.wires), len(channel.wires)
    if n_wires == 2:
        aligned = channel.matrix().reshape(4, 4, 4, 4).transpose(0, 2, 1, 3).reshape(16, 16)
        left, values, right = np.linalg.svd(aligned)
        if values[1] < 1e-12:
            parts = (values[0] * left[:, 0] * right[0, 0], right[0] / right[0, 0])  # entry (I, I) is 1
            each = zip(channel.wires, parts, strict=True)
            alone = (Channel.of_matrix(channel.name, (w,), part.reshape(4, 4)) for w, part in each)
            return tuple(op for one in alone for op in simplified(one))
    ops: list[Op] = []
    words, matrix = _words(n_wires), channel.matrix()
    for _ in range(8):
        rest = Channel.of_matrix(channel.name, channel.wires, matrix)
        if np.abs(_chi(rest)[0].imag).max() < 1e-12:
            break
        u, _, v = np.linalg.svd(rest.kraus()[-1])
        rotation = u @ v
        rotation = rotation * np.exp(-1j * np.angle(np.trace(rotation)))
        angles = [np.trace(word @ (rotation - rotation.conj().T)).imag / len(rotation) for word in words]
        for number in range(1, size):
            angle = -float(angles[number])  # of exp(-i angle Q / 2)
            if abs(angle) > 1e-13:
                letters = [number >> 2 * k & 3 for k in reversed(range(n_wires))]
                some = [("IXYZ"[k], w) for k, w in zip(letters, channel.wires, strict=True) if k]
                ops.append(Rotation("".join(k for k, _ in some), tuple(w for _, w in some), None, offset=angle))
                turn = np.cos(angle / 2) * words[0] + 1j * np.sin(angle / 2) * words[number]  # undone
                matrix = matrix @ _transfer(turn, words)
    return (*ops, Channel.of_matrix(channel.name, channel.wires, matrix))


def _shares(a: int, b: int, left: np.ndarray) -> tuple[tuple[int, int, float], ...]:
    """Which of two words takes the larger part of an operator, or each of them half of the time."""
    if left[a] > 2 * left[b]:
        return ((a, b, 1.0),)
    if left[b] > 2 * left[a]:
        return ((b, a, 1.0),)
    return (a, b, 0.5), (b, a, 0.5)


def _transfer(operator: np.ndarray, words: list[np.ndarray]) -> np.ndarray:
    """The Pauli transfer matrix of ``A rho A^+``."""
    after = [operator @ word @ operator.conj().T for word in words]
    return np.array([[np.trace(p @ q).real for q in after] for p in words]) / len(operator)


def _words(n_wires: int) -> list[np.ndarray]:
    """All Pauli words as matrices, by their numbers."""
    numbers = range(4**n_wires)
    return [reduce(np.kron, (PAULI[number >> 2 * k & 3] for k in reversed(range(n_wires)))) for number in numbers]


def _chi(channel: Channel) -> np.ndarray:
    """The matrix chi (4^k, 4^k) of a channel."""
    size, words = 2 ** len(channel.wires), _words(len(channel.wires))
    flat = np.array([word.T.reshape(-1) for word in words])
    choi = sum(value / size * np.kron(words[column].T, words[row]) for row, column, value in channel.transfer)
    return flat.conj() @ choi @ flat.T / size**2


@lru_cache(maxsize=4096)
def _product(a: int, b: int) -> tuple[int, complex]:
    """The word Q and the phase of ``P_a P_b = phase Q``."""
    word, phase = a ^ b, 1 + 0j
    while a and b:
        p, q = a & 3, b & 3
        if p and q and p != q:
            phase *= 1j if (q - p) % 3 == 1 else -1j
        a, b = a >> 2, b >> 2
    return word, phase

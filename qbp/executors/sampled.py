"""Finite shots: samples drawn from the exact distribution of a simulator, as hardware would measure them.

Observables whose words agree on every wire they share are read from the same shots (qubit-wise commuting groups),
each group in the basis of its words. So the outputs of one group are correlated, as they are on a device. A group on
more wires than `JOINT` is read part by part: what shares wires from the same shots, the rest from shots of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Clifford, Expval, Probs, Program
from qbp.executors import Capabilities, Executor, Results, capabilities_of, execute

__all__ = ["Sampled", "measurement_groups"]

MAX_NUMBERS = 2**24
"""Probabilities in one call of the executor (128 MiB in float64); larger batches are run in parts."""

JOINT = 24
"""Wires whose outcomes are drawn together, as far as memory goes."""

_TO_Z = {"X": ("Hadamard",), "Y": ("Adjoint(S)", "Hadamard"), "Z": ()}


@dataclass(frozen=True)
class Group:
    """What is read from the same shots.

    Attributes:
        base: the program that is measured.
        turns: what ends it in the group's basis.
        wires: what is read then.
        words: for each Pauli word (output, coefficient, positions of its wires in the group's).
        probs: for each measurement of probabilities (its first output, positions of its wires).
    """

    base: Program
    turns: tuple[Clifford, ...]
    wires: tuple[int, ...]
    words: tuple[tuple[int, float, tuple[int, ...]], ...]
    probs: tuple[tuple[int, tuple[int, ...]], ...]

    @cached_property
    def parts(self) -> tuple[Group, ...]:
        """Groups that share no wire, on few wires each where this one has many."""
        if len(self.wires) <= JOINT:
            return (self,)
        of = list(range(len(self.wires)))  # which part each wire is in
        for joined in (*(on for _, _, on in self.words), *(on for _, on in self.probs)):
            own = {of[w] for w in joined}
            of = [min(own) if part in own else part for part in of]
        return tuple(self._part([w for w, part in enumerate(of) if part == each]) for each in sorted(set(of)))

    def _part(self, own: Sequence[int]) -> Group:
        """What is measured on some of the wires."""
        at = {w: i for i, w in enumerate(own)}
        wires = tuple(self.wires[w] for w in own)
        return Group(
            self.base,
            tuple(turn for turn in self.turns if turn.wires[0] in wires),
            wires,
            tuple((m, c, tuple(at[w] for w in on)) for m, c, on in self.words if on[0] in at),
            tuple((m, tuple(at[w] for w in on)) for m, on in self.probs if on[0] in at),
        )

    @cached_property
    def program(self) -> Program:
        """The program with its turns, which measures the probabilities of the wires, of each part's."""
        measured = tuple(Probs(part.wires) for part in self.parts)
        return replace(self.base, ops=self.base.ops + self.turns, measurements=measured)


@lru_cache(maxsize=256)
def measurement_groups(program: Program) -> tuple[Group, ...]:
    """The groups that a program's measurements need: as many circuits are executed. Identities need none.

    Each word, the longest first, joins the first group whose basis it agrees with on every wire that they share
    (qubit-wise commuting, arXiv 1907.03358).
    """
    wanted: list[tuple[dict[int, str], int, float | None, tuple[int, ...]]] = []  # letters, output, ...
    output = 0
    for measurement in program.measurements:
        if isinstance(measurement, Probs):
            wanted.append((dict.fromkeys(measurement.wires, "Z"), output, None, measurement.wires))
            output += 2 ** len(measurement.wires)
        else:
            for coefficient, word, wires in measurement.terms:
                if word:
                    wanted.append((dict(zip(wires, word, strict=True)), output, coefficient, wires))
            output += 1
    bases: list[tuple[dict[int, str], list, list]] = []  # basis, words, probabilities
    for letters, first, factor, wires in sorted(wanted, key=lambda one: -len(one[0])):
        fits = (one for one in bases if all(one[0].get(w, letter) == letter for w, letter in letters.items()))
        basis, words, probs = group = next(fits, ({}, [], []))
        if not basis:
            bases.append(group)
        basis.update(letters)
        if factor is None:
            probs.append((first, wires))
        else:
            words.append((first, factor, wires))
    groups = []
    for basis, words, probs in bases:
        at = {w: i for i, w in enumerate(sorted(basis))}
        turns = tuple(Clifford(name, (w,)) for w in sorted(basis) for name in _TO_Z[basis[w]])
        groups.append(
            Group(
                program,
                turns,
                tuple(sorted(basis)),
                tuple((m, c, tuple(at[w] for w in wires)) for m, c, wires in words),
                tuple((m, tuple(at[w] for w in wires)) for m, wires in probs),
            )
        )
    return tuple(groups)


class Sampled:
    """An exact executor, sampled.

    Args:
        executor: an exact executor.
        shots: samples for each circuit and each group of observables: a sum over several groups takes so many for each.
        generator: what the samples are drawn from; None for torch's global random state.
    """

    def __init__(self, executor: Executor, shots: int, generator: torch.Generator | None = None):
        self.executor, self.shots, self.generator = executor, shots, generator

    @property
    def name(self) -> str:
        return self.executor.name

    @property
    def capabilities(self) -> Capabilities:
        channels = capabilities_of(self.executor).channels
        return Capabilities(exact=False, shots=self.shots, standard_errors=True, with_shots=True, channels=channels)

    def with_shots(self, shots: int) -> Sampled:
        """The same executor with other shots, and the same generator."""
        return Sampled(self.executor, shots, self.generator)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M): means of +-1 over the shots, and relative frequencies; and their standard errors."""
        from qbp.executors.native.sampling import draw

        outputs, variances = angles.batched.new_zeros(2, angles.n_samples, program.n_outputs)
        identities = [
            sum(c for c, word, _ in m.terms if not word) if isinstance(m, Expval) else 0.0
            for m in program.measurements
            for _ in range(1 if isinstance(m, Expval) else 2 ** len(m.wires))
        ]
        outputs += torch.tensor(identities, dtype=torch.float64).to(outputs)
        for group in measurement_groups(program):
            parts = [(part, int(torch.randint(2**62, (), generator=self.generator))) for part in group.parts]
            sizes = [2 ** len(part.wires) for part, _ in parts]
            per_call = max(1, MAX_NUMBERS // sum(sizes))
            for first in range(0, angles.n_samples, per_call):
                rows = slice(first, first + per_call)
                start = None if amplitudes is None else amplitudes[rows]
                some = Angles(angles.batched[rows], angles.shared)
                exact = execute(self.executor, group.program, some, start).values.split(sizes, 1)
                for (part, seed), probabilities in zip(parts, exact, strict=True):
                    frequencies = draw(probabilities, self.shots, seed, first).to(outputs) / self.shots
                    frequencies[~probabilities.isfinite().all(1)] = torch.nan
                    _read(frequencies, part, outputs[rows], variances[rows])
        return Results(outputs, (variances / self.shots).clamp_min(0).sqrt())


def _read(frequencies: Tensor, group: Group, outputs: Tensor, variances: Tensor) -> None:
    """Add what a group says, relative frequencies (B, 2^n) of its wires' outcomes, to the outputs (B, M), and to their
    variances for one shot: words of one output that are read from the same shots vary together."""
    n = len(group.wires)
    sums: dict[int, Tensor] = {}  # of an output with several words, what each outcome counts
    several = {column for column, count in Counter(column for column, _, _ in group.words).items() if count > 1}
    for column, coefficient, wires in group.words:
        signs = _signs(wires, n).to(frequencies)
        mean = frequencies @ signs
        outputs[:, column] += coefficient * mean
        if column in several:
            sums[column] = sums.get(column, 0) + coefficient * signs
        else:
            variances[:, column] += coefficient**2 * (1 - mean**2)
    for column, counts in sums.items():
        variances[:, column] += frequencies @ counts**2 - (frequencies @ counts) ** 2
    for column, wires in group.probs:
        p = _marginal(frequencies, wires, n)
        outputs[:, column : column + 2 ** len(wires)] = p
        variances[:, column : column + 2 ** len(wires)] = p * (1 - p)


@lru_cache(maxsize=1024)
def _signs(wires: tuple[int, ...], n_wires: int) -> Tensor:
    """(-1)^(parity of the wires' bits) of every outcome, (2^n,)."""
    outcomes = torch.arange(2**n_wires)
    parity = sum((outcomes >> (n_wires - 1 - w)) & 1 for w in wires)
    return 1 - 2 * (torch.as_tensor(parity) & 1)


def _marginal(frequencies: Tensor, wires: tuple[int, ...], n_wires: int) -> Tensor:
    """Frequencies (B, 2^n) of the outcomes of some wires, in their order."""
    cube = frequencies.reshape(-1, *[2] * n_wires)
    rest = [1 + w for w in range(n_wires) if w not in wires]
    return cube.permute(0, *(1 + w for w in wires), *rest).reshape(len(frequencies), 2 ** len(wires), -1).sum(2)

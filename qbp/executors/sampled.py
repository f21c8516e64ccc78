"""Finite shots: samples drawn from the exact distribution of a simulator, as hardware would measure them.

Observables whose words agree on every wire they share are read from the same shots (qubit-wise commuting groups),
each group in the basis of its words. So the outputs of one group are correlated, as they are on a device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from qbp.angles import Angles
from qbp.executors import Executor
from qbp.program import Clifford, Expval, Probs, Program, wires_of

__all__ = ["Sampled", "measurement_groups"]

_TO_Z = {"X": ("Hadamard",), "Y": ("Adjoint(S)", "Hadamard"), "Z": ()}


@dataclass(frozen=True)
class Group:
    """What is read from the same shots.

    Attributes:
        program: ends in the group's basis and measures the probabilities of its wires.
        words: for each Pauli word (output, coefficient, positions of its wires in the group's).
        probs: for each measurement of probabilities (its first output, positions of its wires).
    """

    program: Program
    words: tuple[tuple[int, float, tuple[int, ...]], ...]
    probs: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def wires(self) -> tuple[int, ...]:
        return wires_of(self.program.measurements)


@lru_cache(maxsize=256)
def measurement_groups(program: Program) -> tuple[Group, ...]:
    """The groups that a program's measurements need, first fit in their order; identities need none."""
    bases: list[dict[int, str]] = []
    members: list[tuple[list, list]] = []

    def place(letters: dict[int, str]) -> int:
        for i, basis in enumerate(bases):
            if all(basis.get(w, letter) == letter for w, letter in letters.items()):
                basis.update(letters)
                return i
        bases.append(dict(letters))
        members.append(([], []))
        return len(bases) - 1

    output = 0
    for measurement in program.measurements:
        if isinstance(measurement, Probs):
            members[place(dict.fromkeys(measurement.wires, "Z"))][1].append((output, measurement.wires))
            output += 2 ** len(measurement.wires)
        else:
            for coefficient, word, wires in measurement.terms:
                if word:
                    letters = dict(zip(wires, word, strict=True))
                    members[place(letters)][0].append((output, coefficient, wires))
            output += 1
    groups = []
    for basis, (words, probs) in zip(bases, members, strict=True):
        at = {w: i for i, w in enumerate(sorted(basis))}
        turns = tuple(Clifford(name, (w,)) for w in sorted(basis) for name in _TO_Z[basis[w]])
        ends = replace(program, ops=program.ops + turns, measurements=(Probs(tuple(sorted(basis))),))
        groups.append(
            Group(
                ends,
                tuple((m, c, tuple(at[w] for w in wires)) for m, c, wires in words),
                tuple((m, tuple(at[w] for w in wires)) for m, wires in probs),
            )
        )
    return tuple(groups)


class Sampled:
    """An exact executor, sampled.

    Args:
        executor: an exact executor.
        shots: samples for each circuit and group of observables.
        generator: what the samples are drawn from; None for torch's global random state.
    """

    exact = False

    def __init__(self, executor: Executor, shots: int, generator: torch.Generator | None = None):
        self.executor, self.shots, self.generator = executor, shots, generator

    @property
    def name(self) -> str:
        return self.executor.name

    def with_shots(self, shots: int) -> Sampled:
        """The same executor with other shots, and the same generator."""
        return Sampled(self.executor, shots, self.generator)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        """Outputs (B, M): means of +-1 over the shots, and relative frequencies."""
        from qbp.executors.native.shots import draw

        outputs = angles.batched.new_zeros(angles.n_samples, program.n_outputs)
        identities = [
            sum(c for c, word, _ in m.terms if not word) if isinstance(m, Expval) else 0.0
            for m in program.measurements
            for _ in range(1 if isinstance(m, Expval) else 2 ** len(m.wires))
        ]
        outputs += torch.tensor(identities).to(outputs)
        for group in measurement_groups(program):
            exact = self.executor(group.program, angles, amplitudes)
            seed = int(torch.randint(2**62, (), generator=self.generator))
            frequencies = draw(exact, self.shots, seed).to(outputs) / self.shots
            for column, coefficient, wires in group.words:
                outputs[:, column] += coefficient * (frequencies @ _signs(wires, len(group.wires)).to(outputs))
            for column, wires in group.probs:
                outputs[:, column : column + 2 ** len(wires)] = _marginal(frequencies, wires, len(group.wires))
        return outputs


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

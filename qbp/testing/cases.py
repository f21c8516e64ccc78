"""What the checks try, and how they compare; they raise `AssertionError` and say where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Program
from qbp.testing.noise import with_noise
from qbp.testing.programs import random_amplitudes, random_angles, random_program

__all__ = [
    "FLOAT32_ATOL",
    "Case",
    "cases",
    "check",
    "check_close",
    "check_part",
    "equal_rows_of",
    "random_grad",
    "same_bits",
    "size_of",
    "tolerance_of",
]

FLOAT32_ATOL = 5e-5
"""Tolerance in float32, as long as what a check is told to allow is smaller."""


@dataclass(frozen=True)
class Case:
    """A program, arguments to run it with, and how far an output may be from the truth for each unit of tolerance."""

    where: str
    program: Program
    angles: Angles
    amplitudes: Tensor | None
    unit: np.ndarray

    @property
    def arguments(self) -> tuple[Program, Angles, Tensor | None]:
        return self.program, self.angles, self.amplitudes


def cases(
    rng: np.random.Generator,
    n_programs: int,
    programs: Mapping[str, Program],
    accepts: Callable[[Program], bool],
    batch_sizes: Sequence[int],
    dtypes: Sequence[torch.dtype],
    noise: bool = False,
) -> Iterator[Case]:
    """Each named program with each batch size, each random program with one; every split of angles, every dtype."""
    named = [(f"program {name!r}", program, size) for name, program in programs.items() for size in batch_sizes]
    drawn = (
        (
            f"random program {i}",
            _random(rng, i % 5 == 4, noise),
            batch_sizes[i % len(batch_sizes)],
        )
        for i in range(n_programs)
    )
    count = 0
    for i, (where, program, n_samples) in enumerate((*named, *drawn)):
        if not accepts(program):
            continue
        count += 1
        nth, size = divmod(i, len(batch_sizes))
        n_batched = (program.n_angles, 0, int(rng.integers(program.n_angles + 1)))[(nth + size) % 3]
        dtype = dtypes[int(rng.integers(len(dtypes)))] if rng.random() < 0.5 else dtypes[0]
        angles = random_angles(rng, program, n_samples, n_batched=n_batched, dtype=dtype)
        state_dtype = dtype if rng.random() < 0.5 else dtype.to_complex()
        amplitudes = random_amplitudes(rng, program, n_samples, dtype=state_dtype)
        for rows in (angles.batched, *([] if amplitudes is None else [amplitudes])):
            _repeat_first_row(rows)
        unit = [
            [max(1.0, sum(abs(c) for c, _, _ in m.terms))] if isinstance(m, Expval) else [1.0] * 2 ** len(m.wires)
            for m in program.measurements
        ]
        label = f"{where}, B = {n_samples}, Kb = {n_batched} of K = {program.n_angles}, {dtype}"
        yield Case(label, program, angles, amplitudes, np.concatenate(unit))
    check(count > 0, "There was no program that `accepts` accepts: nothing was checked")


def _random(rng: np.random.Generator, amplitudes: bool, noise: bool) -> Program:
    program = random_program(rng, amplitudes=amplitudes)
    return with_noise(rng, program) if noise else program


def check_part(case: Case, part: str, got: Sequence[Tensor | None], want: np.ndarray | None, atol: float) -> None:
    """One of the gradients, as the mean over repeats; None is as good as a gradient without entries."""
    what = f"{case.where}: the gradient of {part}"
    if want is None:
        check(all(g is None or not g.numel() for g in got), f"{what} was not asked for, and must be None")
        return
    tensors = [g for g in got if g is not None]
    if not tensors and want.size == 0:
        return
    check(len(tensors) == len(got), f"{what} was asked for, but is None")
    source = case.amplitudes if part == "amplitudes" else case.angles.batched
    assert source is not None
    shape, dtype = tuple(tensors[0].shape), tensors[0].dtype
    check(shape == want.shape, f"{what} must have shape {want.shape}, but has {shape}")
    check(dtype == source.dtype, f"{what} must have dtype {source.dtype}, but has {dtype}")
    values = torch.stack(tensors).detach().numpy()
    tolerance: Any = tolerance_of(atol, dtype)
    if len(values) > 1:
        tolerance = tolerance + 5 * values.std(0, ddof=1) / len(values) ** 0.5
    check_close(what, values.mean(0), want, tolerance)


def random_grad(case: Case, rng: np.random.Generator) -> Tensor:
    """A gradient (B, M) of the outputs, equal in equal rows."""
    n_samples = case.angles.n_samples
    grad = torch.tensor(rng.normal(size=(n_samples, case.program.n_outputs)), dtype=case.angles.batched.dtype)
    return _repeat_first_row(grad)


def equal_rows_of(n_samples: int) -> tuple[int, ...]:
    """Rows made equal to row 0, far from it: an engine may treat the last ones of a batch in another way."""
    return (n_samples // 2, n_samples - 1) if n_samples > 3 else (2,) if n_samples == 3 else ()


def _repeat_first_row(rows: Tensor) -> Tensor:
    for row in equal_rows_of(len(rows)):
        rows[row] = rows[0].clone()
    return rows


def size_of(case: Case, grad: Tensor) -> float:
    """How large a gradient is, roughly, of which the observables have norm 1: what tolerances are relative to."""
    return float((grad.abs().double().numpy() * case.unit).sum())


def tolerance_of(atol: float, dtype: torch.dtype) -> float:
    """The tolerance in a dtype."""
    return atol if dtype in (torch.float64, torch.complex128) else max(atol, FLOAT32_ATOL)


def same_bits(a: Any, b: Any) -> bool:
    """Whether tensors, angles or tuples of them are equal to the last bit."""
    if isinstance(a, Angles):
        return same_bits((a.batched, a.shared), (b.batched, b.shared))
    if isinstance(a, tuple):
        return all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    return a is b if a is None or b is None else torch.equal(a, b)


def check(condition: bool, otherwise: str) -> None:
    """Raise `AssertionError` unless something holds."""
    if not condition:
        raise AssertionError(otherwise)


def check_close(what: str, got: np.ndarray, want: np.ndarray, atol: Any) -> None:
    """Raise `AssertionError`, with the worst entry, where numbers differ by more than `atol`."""
    if not want.size:
        return
    excess = abs(got - want) - atol
    wrong = ~(excess <= 0)  # a NaN is wrong too
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), want.shape)
        allowed = float(np.broadcast_to(atol, want.shape)[worst])
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {want.size} entries are wrong; entry {tuple(map(int, worst))} is "
            f"{got[worst]:.12g}, but must be {want[worst]:.12g} (within {allowed:.2g})"
        )

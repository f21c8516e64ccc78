"""Gradient rules: the vector-Jacobian product of a circuit with respect to its angles.

A rule is ``rule(run, program, angles, amplitudes, grad, needs) -> Gradients`` where ``run(angles, amplitudes) -> (B,
M)`` executes the program. All but the adjoint rule only combine executions at other angles, in ONE call of `run` for
the whole batch: so they work on hardware, and torch can differentiate them again when `run` is differentiable. Rules
that remember earlier steps are in `qbp.gradients.stateful`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.pauli import Word
from qbp.circuit.program import Program, Rotation
from qbp.errors import GradientError
from qbp.executors import Gradients

__all__ = ["RULES", "VARIANCES", "Needs", "finite_diff", "frequencies", "parameter_shift", "shift_rule", "spsa"]

Run = Callable[[Angles, Tensor | None], Tensor]
Term = tuple[int, float, float]  # angle, coefficient, shift

MAX_ELEMENTS = 2**25
"""Angles in one call of an executor: above that the shifted circuits are run in several calls (128 MiB in float32)."""

FINITE_DIFF_STEP = 1e-4
"""Step of central differences in radians: error h^2/6 of the third derivative, below 2e-9."""

SPSA_STEP = 0.1
"""Step of SPSA in radians: large enough for shot noise, biased by less than 0.2 % for an angle of one rotation."""


@dataclass(frozen=True)
class Needs:
    """Which gradients are wanted: of each angle (K,), and of the amplitudes."""

    angles: tuple[bool, ...]
    amplitudes: bool = False


@lru_cache(maxsize=4096)
def frequencies(rotations: tuple[Rotation, ...]) -> tuple[float, ...]:
    """The positive frequencies with which expectation values vary with the angle that turns commuting `rotations`.

    They are the differences of the eigenvalues of the generator ``sum_r scale_r P_r / 2`` (arXiv 2107.12390,
    section 2).
    """
    n = 1 + max(w for r in rotations for w in r.wires)
    words = [Word.of(r.pauli, r.wires, n) for r in rotations]
    if any(a.anticommutes(b) for i, a in enumerate(words) for b in words[:i]):
        raise GradientError("An angle turns rotations that do not commute: there is no shift rule for it")
    # Independent words take every combination of signs, their products the product of those signs.
    basis: list[tuple[int, int]] = []  # (symplectic vector reduced, which generators it is a product of)
    combos: list[tuple[int, int]] = []  # for each rotation: generators, sign bit
    generators: list[int] = []
    for i, word in enumerate(words):
        vector, made_of = word.x << n | word.z, 0
        for reduced, parts in basis:
            if vector ^ reduced < vector:
                vector, made_of = vector ^ reduced, made_of ^ parts
        if vector:
            made_of ^= 1 << len(generators)
            basis = sorted([*basis, (vector, made_of)], reverse=True)
            combos.append((1 << len(generators), 0))
            generators.append(i)
        else:
            combos.append((made_of, _product_sign([words[generators[g]] for g in _bits(made_of)], word)))
    values = set()
    for signs in product((0, 1), repeat=len(generators)):
        bits = sum(s << g for g, s in enumerate(signs))
        value = sum(
            r.scale / 2 * (-1) ** ((combo & bits).bit_count() + sign)
            for r, (combo, sign) in zip(rotations, combos, strict=True)
        )
        values.add(round(value, 12))
    return tuple(sorted({round(a - b, 10) for a in values for b in values if a - b > 1e-9}))


def _bits(mask: int) -> list[int]:
    return [b for b in range(mask.bit_length()) if mask >> b & 1]


def _product_sign(factors: list[Word], target: Word) -> int:
    """0 if the product of commuting Pauli words is +target, 1 if it is -target."""
    product = reduce(Word.times, factors, Word(0, 0))
    return int(product != target)


@lru_cache(maxsize=4096)
def shift_rule(rotations: tuple[Rotation, ...]) -> tuple[tuple[float, float], ...]:
    """Pairs ``(coefficient, shift)`` with ``df/dt = sum coefficient * f(t + shift)``, exact.

    One frequency w gives the two-term rule ``w/2 [f(t + pi/2w) - f(t - pi/2w)]`` (arXiv 1811.11184), R frequencies 2R
    terms (arXiv 2107.12390, equation 18, solved for the frequencies at hand).
    """
    found = frequencies(rotations)
    if not found:
        return ()
    r = len(found)
    shifts = [(2 * mu + 1) * math.pi / (2 * r * found[0]) for mu in range(r)]
    matrix = torch.tensor([[2 * math.sin(w * s) for s in shifts] for w in found], dtype=torch.float64)
    if torch.linalg.cond(matrix) > 1e8:
        shifts = [math.pi * (mu + 1) / ((r + 1) * found[-1]) for mu in range(r)]
        matrix = torch.tensor([[2 * math.sin(w * s) for s in shifts] for w in found], dtype=torch.float64)
    coefficients = torch.linalg.solve(matrix, torch.tensor(found, dtype=torch.float64)).tolist()
    return tuple(term for c, s in zip(coefficients, shifts, strict=True) for term in ((c, s), (-c, -s)))


def parameter_shift(
    run: Run,
    program: Program,
    angles: Angles,
    amplitudes: Tensor | None,
    grad: Tensor,
    needs: Needs,
    **_: object,
) -> Gradients:
    """Exact gradients from executions at shifted angles; two for each angle of one rotation, four for a CRX or a CRY.

    The gradient of amplitudes comes from the same idea: an expectation value is a quadratic form of the amplitudes,
    whose central differences are exact for any step.

    Args:
        run: executes the program.
        angles: (B, K) in radians.
        amplitudes: (B, 2^N) or None.
        grad: (B, M), the gradient of the loss with respect to the outputs.
        needs: the gradients that are wanted; the rest cost nothing.
    """
    result = split(combine(run, angles, amplitudes, grad, shift_terms(program, needs)), angles, needs)
    if needs.amplitudes:
        assert amplitudes is not None
        return Gradients(result.batched, result.shared, _amplitude_shift(run, angles, amplitudes, grad))
    return result


def shift_terms(program: Program, needs: Needs) -> list[Term]:
    """Terms (angle, coefficient, shift) of the shift rules of the angles that are wanted."""
    turned = [(k, rotations) for k, rotations in enumerate(program.angle_rotations()) if needs.angles[k] and rotations]
    return [(k, c, s) for k, rotations in turned for c, s in shift_rule(rotations)]


def finite_diff(
    run: Run,
    program: Program,
    angles: Angles,
    amplitudes: Tensor | None,
    grad: Tensor,
    needs: Needs,
    **_: object,
) -> Gradients:
    """Central differences ``[f(t + h) - f(t - h)] / 2h`` with h = `FINITE_DIFF_STEP`, run in float64."""
    refuse_amplitudes("finite-diff", needs)
    h = FINITE_DIFF_STEP
    terms = [(k, sign / (2 * h), sign * h) for k, need in enumerate(needs.angles) if need for sign in (1, -1)]
    fine = Angles(angles.batched.double(), angles.shared.double())
    result = split(combine(run, fine, amplitudes, grad.double(), terms), angles, needs)
    return Gradients(*(None if g is None else g.to(grad.dtype) for g in (result.batched, result.shared)))


def spsa(
    run: Run,
    program: Program,
    angles: Angles,
    amplitudes: Tensor | None,
    grad: Tensor,
    needs: Needs,
    generator: torch.Generator | None = None,
    **_: object,
) -> Gradients:
    """Simultaneous perturbation: two executions a sample, whatever the number of angles (Spall 1992, equation 2.2).

    ``g = (grad . [f(t + c d) - f(t - c d)] / 2c) d`` with random signs d, one set for each sample, c = `SPSA_STEP`.
    Only the circuit's vector-Jacobian product is estimated: the classical part of the model keeps its exact gradient.
    """
    refuse_amplitudes("spsa", needs)
    return split(perturb(run, angles.full(), amplitudes, grad, needs, generator), angles, needs)


def perturb(
    run: Run,
    full: Tensor,
    amplitudes: Tensor | None,
    grad: Tensor,
    needs: Needs,
    generator: torch.Generator | None,
    directions: int = 1,
) -> Tensor:
    """The mean of SPSA's gradient (B, K) over random directions of each sample, all executions in one call."""
    if not any(needs.angles) or not len(full):
        return torch.zeros_like(full)
    wanted = torch.tensor(needs.angles, device=full.device)
    shape = (directions, *full.shape)
    signs = (torch.randint(0, 2, shape, generator=generator, dtype=torch.int8).to(full) * 2 - 1) * wanted
    shifted = torch.stack([full + SPSA_STEP * signs, full - SPSA_STEP * signs])
    repeated = None if amplitudes is None else amplitudes.repeat(2 * directions, 1)
    up, down = run(Angles.of(shifted.flatten(0, 2)), repeated).unflatten(0, (2, *shape[:2]))
    slope = (grad * (up - down)).sum(2, keepdim=True) / (2 * SPSA_STEP)
    return (slope * signs).mean(0)


def parameter_shift_variance(
    run: Run, program: Program, angles: Angles, amplitudes: Tensor | None, grad: Tensor, needs: Needs
) -> Gradients:
    """Variances of the angles' gradients by `parameter_shift`, where `run` gives the variances of the outputs."""
    terms = [(k, c * c, s) for k, c, s in shift_terms(program, needs)]
    return split(combine(run, angles, amplitudes, grad**2, terms), angles, needs)


def spsa_variance(
    run: Run, program: Program, angles: Angles, amplitudes: Tensor | None, grad: Tensor, needs: Needs
) -> Gradients:
    """Variances of the gradients by `spsa` that come from the outputs' variances, which `run` gives; the random
    directions have more."""
    full = angles.full()
    up, down = run(Angles.of(full.repeat(2, 1)), None if amplitudes is None else amplitudes.repeat(2, 1)).chunk(2)
    slope = (grad**2 * (up + down)).sum(1, keepdim=True) / (2 * SPSA_STEP) ** 2
    return split(slope * torch.tensor(needs.angles).to(full), angles, needs)


def combine(run: Run, angles: Angles, amplitudes: Tensor | None, grad: Tensor, terms: list[Term]) -> Tensor:
    """``g[b, k] = sum over terms (k, c, s) of c * grad[b] . f(angles[b] + s e_k)``, all executions in one call."""
    full = angles.full()
    n_samples, n_angles = full.shape
    total = full.new_zeros(n_samples, n_angles)
    if not terms or not n_samples:
        return total
    per_call = max(1, MAX_ELEMENTS // max(1, n_samples * n_angles))
    for start in range(0, len(terms), per_call):
        index, coefficient, shift = zip(*terms[start : start + per_call], strict=True)
        columns = torch.tensor(index, device=full.device)
        shifts = full.new_zeros(len(index), n_angles)
        shifts[torch.arange(len(index)), columns] = torch.tensor(shift, dtype=full.dtype, device=full.device)
        shifted = (full.unsqueeze(1) + shifts).reshape(-1, n_angles)  # sample after sample, (B * S, K)
        repeated = None if amplitudes is None else amplitudes.repeat_interleave(len(index), dim=0)
        outputs = run(Angles.of(shifted), repeated).reshape(n_samples, len(index), -1)
        weights = torch.tensor(coefficient, dtype=full.dtype, device=full.device)
        total = total.index_add(1, columns, (outputs * grad.unsqueeze(1)).sum(2) * weights)
    return total


def split(full: Tensor, angles: Angles, needs: Needs) -> Gradients:
    """A gradient (B, K) as those of batched and of shared angles."""
    n_batched = angles.batched.shape[1]
    batched = full[:, :n_batched] if any(needs.angles[:n_batched]) else None
    shared = full[:, n_batched:].sum(0) if any(needs.angles[n_batched:]) else None
    return Gradients(batched, shared)


def _amplitude_shift(run: Run, angles: Angles, amplitudes: Tensor, grad: Tensor) -> Tensor:
    """Gradient of real or complex amplitudes: ``[f(a + e_j) - f(a - e_j)] / 2`` is exact, as f is quadratic in a."""
    full = angles.full()
    result = torch.zeros_like(amplitudes)
    for unit in (1, 1j) if amplitudes.is_complex() else (1,):
        for j in range(amplitudes.shape[1]):  # one execution a pair: states of B samples are the memory, not angles
            step = torch.zeros_like(amplitudes)
            step[:, j] += unit
            states = torch.cat([amplitudes + step, amplitudes - step])
            norms = torch.linalg.vector_norm(states, dim=1, keepdim=True).clamp_min(1e-30)
            outputs = run(Angles.of(full.repeat(2, 1)), states / norms) * norms**2
            up, down = outputs.chunk(2)
            result[:, j] += unit * ((up - down) * grad).sum(1) / 2
    return result


def refuse_amplitudes(rule: str, needs: Needs) -> None:
    if needs.amplitudes:
        raise GradientError(
            f"diff_method={rule!r} gives no gradient of amplitudes; use 'adjoint', 'backprop' or 'parameter-shift', or "
            "inputs that do not require a gradient"
        )


RULES: dict[str, Callable[..., Gradients]] = {
    "parameter-shift": parameter_shift,
    "spsa": spsa,
    "finite-diff": finite_diff,
}
"""The rules that work on any executor, by PennyLane's names. "adjoint" is the executor's own (`AdjointExecutor`), and
"backprop" is torch's through the dense executor."""

VARIANCES: dict[str, Callable[..., Gradients]] = {
    "parameter-shift": parameter_shift_variance,
    "spsa": spsa_variance,
}
"""What the noise of sampled outputs makes of the gradients, for the rules that work with it."""

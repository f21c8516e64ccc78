"""Gradient rules: the vector-Jacobian product of a circuit with respect to its angles, in two steps.

A rule is a plan, ``rule(program, needs, angles, amplitudes, generator=..., shots=...) -> Evaluations``: at which points
the program is run. What comes of it, ``Evaluations.combine(results, grad) -> Gradients`` puts together, and in the same
way the errors of the outputs to those of the gradients. So a rule works on hardware, in one job where that is wanted;
and torch can differentiate it again when the executions are differentiable. Rules that remember earlier steps are in
`qbp.gradients.stateful`; the adjoint rule is the executor's own (`qbp.executors.AdjointExecutor`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.errors import GradientError
from qbp.executors import Gradients, Results
from qbp.gradients.evaluations import Directions, Evaluations, Needs, Point, Shifts
from qbp.gradients.shifts import Shift, frequencies, shift_rule
from qbp.gradients.shifts import shift_terms as terms_of

__all__ = [
    "RULES",
    "Needs",
    "finite_diff",
    "frequencies",
    "parameter_shift",
    "shift_rule",
    "shift_terms",
    "spsa",
    "spsa_step",
    "vjp",
]

FINITE_DIFF_STEP = 1e-4
"""Step of central differences in radians: error h^2/6 of the third derivative, below 2e-9."""

SPSA_STEP, SPSA_SAMPLED_STEP = 0.05, 0.5
"""Steps of SPSA in radians times the root of the number of angles; the second where outputs are sampled."""


def vjp(
    rule: Callable[..., Evaluations],
    run: Callable[[Point], Results],
    program: Program,
    angles: Angles,
    amplitudes: Tensor | None,
    grad: Tensor,
    needs: Needs,
    *,
    generator: torch.Generator | None = None,
    shots: int | None = None,
) -> Gradients:
    """Both steps of a rule, one after the other.

    Args:
        rule: the rule.
        run: gives the results of a point.
        program: the program.
        angles: (B, K) in radians.
        amplitudes: (B, 2^N) or None.
        grad: (B, M), the gradient of the loss with respect to the outputs.
        needs: the gradients that are wanted; the rest cost nothing.
        generator: what a random rule draws from.
        shots: how often each execution is sampled.

    Example:
        >>> from qbp.circuit.program import Expval, Rotation
        >>> from qbp.executors.dense import Dense
        >>> program = Program(1, (Rotation("X", (0,), 0),), (Expval.word("Z", 0),), 1)
        >>> run = lambda point: Dense()(program, point.angles)
        >>> at = Angles.of(torch.tensor([[0.5]]))
        >>> round(vjp(parameter_shift, run, program, at, None, torch.ones(1, 1), Needs((True,))).batched.item(), 4)
        -0.4794
    """
    plan = rule(program, needs, angles, amplitudes, generator=generator, shots=shots)
    return plan.combine(map(run, plan.points()), grad)


def shift_terms(program: Program, needs: Needs) -> list[Shift]:
    """The shifted executions of each sample that `parameter_shift` needs."""
    return terms_of(program, needs.angles)


def parameter_shift(
    program: Program, needs: Needs, angles: Angles, amplitudes: Tensor | None = None, **_: Any
) -> Evaluations:
    """Exact gradients from executions at shifted angles; two for each angle of one rotation, four for a CRX or a CRY.

    Angles that always move together share theirs. The gradient of amplitudes comes from the same idea.
    """
    return Evaluations(angles, amplitudes, needs, (Shifts(tuple(shift_terms(program, needs))),))


def finite_diff(
    program: Program, needs: Needs, angles: Angles, amplitudes: Tensor | None = None, **_: Any
) -> Evaluations:
    """Central differences ``[f(t + h) - f(t - h)] / 2h`` with h = `FINITE_DIFF_STEP`, run in float64."""
    refuse_amplitudes("finite-diff", needs)
    h = FINITE_DIFF_STEP
    wanted = [k for k, need in enumerate(needs.angles) if need]
    terms = (Shift(k, sign * h, ((k, sign / (2 * h)),)) for k in wanted for sign in (1, -1))
    return Evaluations(angles, amplitudes, needs, (Shifts(tuple(terms)),), double=True)


def spsa(
    program: Program,
    needs: Needs,
    angles: Angles,
    amplitudes: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    shots: int | None = None,
    **_: Any,
) -> Evaluations:
    """Simultaneous perturbation: two executions a sample, whatever the number of angles (Spall 1992, equation 2.2).

    ``g = (grad . [f(t + c d) - f(t - c d)] / 2c) d`` with random signs d, one set for each sample, and c of
    `spsa_step`, which says how far the mean of g is from the gradient.
    Only the circuit's vector-Jacobian product is estimated: the classical part of the model keeps its exact gradient.
    """
    refuse_amplitudes("spsa", needs)
    return Evaluations(angles, amplitudes, needs, perturbed(angles, needs, generator, shots))


def spsa_step(n_angles: int, shots: int | None = None) -> float:
    """The step c of SPSA in radians, for so many angles of one rotation each.

    The mean of SPSA's gradient is the gradient with each of its Fourier terms, in which f of the P angles take part,
    times ``cos(c)^(f-1) sin(c)/c``: at least ``1 - c^2 P / 2``. With ``c = 0.05 / sqrt(P)`` terms are less than 0.13 %
    too small whatever P is. Shots give a gradient noise of variance ``~ 1 / (2 c^2 shots)``, so that c is ten times as
    large with them: terms up to 12 % too small where all angles matter to them, and 100 times less variance.
    """
    return (SPSA_STEP if shots is None else SPSA_SAMPLED_STEP) / math.sqrt(max(1, n_angles))


def perturbed(
    angles: Angles,
    needs: Needs,
    generator: torch.Generator | None,
    shots: int | None,
    directions: int = 1,
    rows: tuple[int, int] | None = None,
) -> tuple[Directions, ...]:
    """SPSA's executions over random directions of each sample; the gradient is the mean over the directions."""
    like, n_wanted = angles.batched, sum(needs.angles)
    first, last = rows or (0, angles.n_samples)
    if not n_wanted or first == last:
        return ()
    shape = (directions, last - first, len(needs.angles))
    wanted = torch.tensor(needs.angles, device=like.device)
    signs = (torch.randint(0, 2, shape, generator=generator, dtype=torch.int8).to(like) * 2 - 1) * wanted
    both = torch.cat([signs, -signs]).movedim(0, 1)  # (B, E, K)
    step = spsa_step(n_wanted, shots)
    return (Directions(step * both, both / (2 * step * directions), rows),)


def refuse_amplitudes(rule: str, needs: Needs) -> None:
    """Raise `GradientError` where gradients of amplitudes are wanted."""
    if needs.amplitudes:
        raise GradientError(
            f"diff_method={rule!r} gives no gradient of amplitudes; use 'adjoint', 'backprop' or 'parameter-shift', or "
            "inputs that do not require a gradient"
        )


RULES: dict[str, Callable[..., Evaluations]] = {
    "parameter-shift": parameter_shift,
    "spsa": spsa,
    "finite-diff": finite_diff,
}
"""The rules that work on any executor, by PennyLane's names. "adjoint" is the executor's own, and "backprop" is torch's
through an executor that is made of torch's operations."""
